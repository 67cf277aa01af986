"""A flow source that cuts connections, beside one that does not."""

import numpy as np
from make import flows, together

from appcadence.telemetry.directory import TelemetryDirectory, write_directory
from appcadence.telemetry.ingest.timeouts import timeout_notes

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
