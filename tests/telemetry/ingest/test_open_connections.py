"""A connection that is recorded while it is open: judged night by night, and one flow in the end."""

import pandas as pd
import pytest
from make import DAY0, fleet

from appcadence.models.bundle import load
from appcadence.nightly import score_directory
from appcadence.serving.scorer import Scorer
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.ingest.late_records import ChangedDay

DAY = 86_400
FIELDS = (
    "ts uid id.orig_h id.orig_p id.resp_h id.resp_p proto service duration orig_bytes resp_bytes conn_state"
)
OPENED, CLOSED = DAY0 + 4 * DAY + 8 * 3600, DAY0 + 7 * DAY + 11 * 3600
PHONE, QUIET = "10.0.0.1", "203.0.113.9"


def written(path, rows, kind="conn", fields=FIELDS):
    head = f"#separator \\x09\n#path\t{kind}\n#fields\t" + "\t".join(fields.split()) + "\n"
    path.write_text(head + "".join("\t".join(map(str, row)) + "\n" for row in rows))
    return path


def session(until, state):
    seconds = until - OPENED
    figures = (f"{seconds:.6f}", int(seconds / 43), int(seconds / 29), state)
    return (f"{OPENED:.6f}", "Cquiet", PHONE, 61000, QUIET, 443, "tcp", "ssl", *figures)


@pytest.fixture(scope="module")
def background():
    """Flows of six phones, as rows of Zeek and the host of each, by the day on which they end."""
    flows = fleet(6, 8)["flows"].to_pandas()
    start = flows["start"].astype("datetime64[us, UTC]").astype("int64") / 1e6
    ended = ((start + flows["duration_seconds"] - DAY0) // DAY).astype(int)
    device = flows["device_id"].astype("category").cat.codes + 1
    address = flows["dest_host"].astype("category").cat.codes + 1
    days = {}
    for k, (day, at) in enumerate(zip(ended, start, strict=True)):
        row = flows.iloc[k]
        ends = (f"10.0.0.{device[k]}", 20_000 + k, f"198.51.100.{address[k]}", 443)
        figures = (row.duration_seconds, int(row.bytes_out), int(row.bytes_in), "SF")
        conn = (f"{at:.6f}", f"C{k}", *ends, "tcp", "ssl", *figures)
        days.setdefault(day, []).append((conn, (f"{at:.6f}", f"C{k}", row.dest_host)))
    return days


def test_a_session_open_for_three_days(tmp_path, background, fleet_model):
    tel, scorer, history = tmp_path / "tel", Scorer(load(fleet_model)[0], "1"), None

    def night(day, *more, named=()):
        conn, ssl = zip(*background[day], strict=True)
        logs = [
            written(tmp_path / f"conn{day}.log", [*conn, *(row for row in more if row[-1] == "SF")]),
            written(tmp_path / f"ssl{day}.log", [*ssl, *named], "ssl", "ts uid server_name"),
            written(tmp_path / f"long{day}.log", [row for row in more if row[-1] != "SF"], "conn_long"),
        ]
        return convert(logs if logs[2].read_text().count("\n") > 3 else logs[:2], tel)

    def scored(day):
        nonlocal history
        since = pd.Timestamp(DAY0 + day * DAY, unit="s", tz="UTC")
        out = tmp_path / f"scored{day}"
        score_directory(tel, scorer, out, history=history, since=since, until=since + pd.Timedelta("1D"))
        history = out
        scores = pd.read_parquet(out / "scores.parquet")
        return scores[(scores["device_id"] == PHONE) & (scores["dest"] == "quiet.example")]

    for day in range(4):
        night(day)
    handshake = (f"{OPENED:.6f}", "Cquiet", "quiet.example")
    for day in (4, 5, 6):
        midnight = DAY0 + (day + 1) * DAY
        hourly = [session(midnight - hours * 3600 - 60, "S1") for hours in (9, 4, 0)]
        report = night(day, *hourly, named=[handshake] if day == 4 else ())
        assert sum(file.left_out.get("interim", 0) for file in report.files) == 2
        # The days that the session touched before are to be scored again.
        assert report.changed_days == tuple(
            ChangedDay(PHONE, f"2026-03-{2 + before:02d}", 1) for before in range(4, day)
        )
        (window,) = scored(day).to_dict("records")
        assert window["alert"], window
    report = night(7, session(CLOSED, "SF"))
    assert [day.day for day in report.changed_days] == ["2026-03-06", "2026-03-07", "2026-03-08"]
    assert any("completed" in note for note in report.notes)

    whole = tmp_path / "whole"
    conn, ssl = zip(*(pair for day in range(8) for pair in background[day]), strict=True)
    convert(
        [
            written(tmp_path / "conn.log", [*conn, session(CLOSED, "SF")]),
            written(tmp_path / "ssl.log", [*ssl, handshake], "ssl", "ts uid server_name"),
        ],
        whole,
    )
    found, expected = (
        sorted(TelemetryDirectory(path).read("flows").to_pylist(), key=str) for path in (tel, whole)
    )
    assert found == expected
