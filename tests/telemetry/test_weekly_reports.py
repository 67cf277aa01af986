"""Simulated App Privacy Reports: sums of the flows, and files that the reader reads back."""

from collections import defaultdict

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from weekly_reports import (
    CONTACT_US,
    REPORT_US,
    first_export,
    report_lines,
    weekly_reports,
    with_long_tail,
)

from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.simulate.apps import APPS, SDK_HOSTS, SITES
from appcadence.telemetry.simulate.fleet import simulate


@pytest.fixture(scope="module")
def flows():
    return simulate(3, 15, 5, implants_per_device_day=0.0, own_log_share=0.0).tables["flows"]


@pytest.fixture(scope="module")
def reports(flows):
    return weekly_reports(flows, first_export(flows))


def test_sums_are_those_of_a_loop_over_the_flows(flows, reports):
    begin, starts = first_export(flows), defaultdict(list)
    daemons = {app.app_id for app in APPS if app.daemon}
    rows = flows.select(["device_id", "app_id", "dest_host", "dest_ip"]).to_pylist()
    for row, start in zip(rows, flows["start"].cast(pa.int64()).to_pylist(), strict=True):
        if row["app_id"] and row["app_id"] not in daemons and start >= begin:
            host = row["dest_host"] or row["dest_ip"]
            starts[(start - begin) // REPORT_US, row["device_id"], row["app_id"], host].append(start)
    expected = {}
    for key, times in starts.items():
        times.sort()
        hits = 1 + sum(b - a >= CONTACT_US for a, b in zip(times, times[1:], strict=False))
        expected[key] = (times[0], times[-1], hits)
    found = {}
    times = [reports[name].cast(pa.int64()).to_pylist() for name in ("first_seen", "last_seen")]
    for row, first, last in zip(reports.to_pylist(), *times, strict=True):
        key = ((first - begin) // REPORT_US, row["device_id"], row["app_id"], row["dest_host"])
        found[key] = (first, last, row["hits"])
        assert row["initiated"] == ("user" if row["dest_host"] in SITES else "app")
        assert (row["dest_owner"] is not None) == (row["dest_host"] in SDK_HOSTS)
        assert row["report_start"] <= row["first_seen"] <= row["last_seen"] <= row["report_end"]
    assert found == expected and {key[0] for key in found} == {0, 1, 2}


def test_a_report_is_read_back_as_it_was_written(tmp_path, reports):
    device = reports["device_id"].cast(pa.string())[0].as_py()
    own = reports.filter(pc.equal(reports["device_id"].cast(pa.string()), device))
    ends = sorted(set(own["report_end"].to_pylist()))
    for number, end in enumerate(ends):
        lines = report_lines(own.filter(pc.equal(own["report_end"], end)))
        (tmp_path / f"{number}.ndjson").write_text("".join(f"{line}\n" for line in lines))
    convert(sorted(tmp_path.glob("*.ndjson")), tmp_path / "out", device_id=device)
    again = TelemetryDirectory(tmp_path / "out").read("contact_summaries")

    def plain(table):
        rows = table.to_pylist()
        for row in rows:
            for name in ("first_seen", "last_seen", "report_start", "report_end"):
                # A report's times are in milliseconds.
                row[name] = row[name].isoformat(timespec="milliseconds")
        return sorted(rows, key=str)

    assert plain(again) == plain(own)


def test_the_long_tail_adds_apps_of_few_devices(flows, reports):
    begin = first_export(flows)
    more = with_long_tail(reports, begin, 1)
    assert more.equals(with_long_tail(reports, begin, 1))
    pairs = set(zip(reports["device_id"].to_pylist(), reports["app_id"].to_pylist(), strict=True))
    every = set(zip(more["device_id"].to_pylist(), more["app_id"].to_pylist(), strict=True))
    assert pairs < every and len(every) > 2 * len(pairs)
    own = {app.app_id for app in APPS}
    assert all(app.rsplit(".", 1)[0] in own for _, app in every - pairs)
    assert pc.min(more["hits"]).as_py() >= 1
    late = pc.less(more["last_seen"].cast(pa.int64()), more["first_seen"].cast(pa.int64()))
    assert not pc.any(late).as_py()
