"""A flow source that cuts connections, beside one that does not."""

import numpy as np
import pytest
from make import flows, together

from appcadence.telemetry.directory import TelemetryDirectory, write_directory
from appcadence.telemetry.ingest.timeouts import active_timeout, timeout_notes

DAY = 86_400


def connections(source, cut=None, device="d1", seed=0):
    """Three long connections a day of 1.5 to 6 h and some short ones, cut at `cut` seconds."""
    rng = np.random.default_rng(seed)
    start, length = [], []
    for at in np.arange(0, 5 * DAY, DAY / 3):
        whole = rng.uniform(5400, 21_600)
        pieces = [whole] if cut is None else [cut] * int(whole // cut) + [whole % cut]
        start += list(at + np.cumsum([0, *pieces[:-1]]))
        length += pieces
    short = rng.uniform(0, 5 * DAY, 200)
    return flows(
        np.array([*start, *short]),
        device,
        duration=np.array([*length, *rng.exponential(5, 200)]),
        source=source,
        dest_ip="192.0.2.1",
    )


def notes(path, *tables, **options):
    write_directory(path, {"flows": together(*tables)})
    return timeout_notes(TelemetryDirectory(path), **options)


def chains(*lengths, gap=0.0, dest=(0,), port=(443,)):
    """Rows of chains of connections, a day apart, each of which begins as the one before has ended."""
    rows = np.zeros(sum(map(len, lengths)), [(n, "f8") for n in ("start", "seconds", "dest", "port")])
    rows["seconds"] = np.concatenate(lengths)
    begun = [k * DAY + np.cumsum([0.0, *(np.array(part[:-1]) + gap)]) for k, part in enumerate(lengths)]
    rows["start"] = np.concatenate(begun)
    rows["dest"], rows["port"] = np.resize(dest, len(rows)), np.resize(port, len(rows))
    return rows


@pytest.mark.parametrize(
    ("flows", "cut"),
    [
        (chains([60.0] * 10), 60.0),
        (chains([60.0] * 9), None),
        (chains([60.0] * 9 + [58.8]), 60.0),  # within 2 % of the longest
        (chains([60.0] * 9 + [58.7]), None),
        (chains(*[[60.0] * 2] * 5), 60.0),  # half of them go on
        (chains(*[[60.0] * 2] * 5, [60.0]), None),
        (chains([60.0] * 10, gap=1.0), 60.0),
        (chains([60.0] * 10, gap=-1.0), 60.0),
        (chains([60.0] * 10, gap=1.001), None),
        (chains([60.0] * 10, gap=-1.001), None),
        (chains([60.0] * 10, dest=range(10)), None),
        (chains([60.0] * 10, port=range(10)), None),
        (chains([60.0] * 10, dest=[-1]), None),  # to nobody knows where
        (chains([60.0] * 11 + [30.0]), 60.0),
    ],
)
def test_ten_flows_as_long_as_the_longest_of_which_half_go_on_are_cut(flows, cut):
    assert active_timeout(flows[::-1]) == cut


@pytest.mark.parametrize(("longest", "told"), [(2699.0, 0), (2700.0, 0), (2701.0, 1)])
def test_the_other_source_must_show_half_as_long_again(tmp_path, longest, told):
    cut = connections("nfdump", 1800)
    whole = flows([0.0, 100.0], duration=[longest, 40.0], source="zeek", dest_ip="192.0.2.1")
    assert len(notes(tmp_path / "t", cut, whole)) == told


def test_a_source_that_cuts_is_named(tmp_path):
    cut, whole = connections("nfdump", 1800), connections("zeek")
    (note,) = notes(tmp_path / "a", cut, whole)
    assert note.startswith("nfdump cuts connections at 1,800 s where zeek does not, for d1: ")
    assert notes(tmp_path / "b", cut, whole, devices={"d2"}) == ()


def test_there_must_be_a_contradiction(tmp_path):
    cut, whole = connections("nfdump", 1800), connections("zeek")
    assert notes(tmp_path / "one", cut) == ()
    assert notes(tmp_path / "both", whole, connections("argus")) == ()
    assert notes(tmp_path / "same", cut, connections("argus", 1800)) == ()
    assert notes(tmp_path / "devices", cut, connections("zeek", device="d2")) == ()


def test_polls_of_one_length_are_no_cuts(tmp_path):
    polls = flows(np.arange(0, DAY, 120.0), duration=60.0, source="nfdump", dest_ip="192.0.2.1")
    assert notes(tmp_path / "apart", polls, connections("zeek")) == ()
    # End to end, they are no cut of a source that shows longer connections as well.
    polls = flows(np.arange(0, DAY, 60.0), duration=60.0, source="nfdump", dest_ip="192.0.2.1")
    longer = flows([0.0], duration=500.0, source="nfdump", dest_ip="192.0.2.2")
    assert notes(tmp_path / "longer", polls, longer, connections("zeek")) == ()
