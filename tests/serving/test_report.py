"""The triage page: complete, inert whatever the names say, and refusing what is no output."""

import base64
import hashlib
import json
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from appcadence.errors import AppcadenceError, TelemetryError
from appcadence.models.detector import SCORES
from appcadence.serving.plots import Lane, bar, raster, text
from appcadence.serving.report import write_report
from appcadence.serving.run import Run
from appcadence.telemetry.schema import ACTIVITY, conform

HOSTILE = "<script>alert(1)</script>\"'\u202e"
DAY = 1_772_409_600_000_000
HOUR = 3_600_000_000
RUN = Run(
    model_version="0123456789abcdef",
    window="24h",
    devices=2,
    device_days=4.0,
    windows=9,
    scored=3,
    excepted=0,
    alerts=2,
    alerts_per_device_day=1.0,
    false_discovery_rate=None,
    blind_spots=[f"Blind spot: {HOSTILE}."],
    fleet_events=[f"Fleet event: {HOSTILE}."],
)


def _times(values):
    return pa.array(values, pa.timestamp("us", tz="UTC"))


def _row(rank, device, app, dest, *, alert, status="scored"):
    part = {"feature": "session_mode_share", "value": 0.1, "expected": 0.9, "contribution": 2.5}
    scored = status == "scored"
    behaviour = {"score": 1.0, "p_value": 0.01}
    return {
        "device_id": device,
        "app_id": app,
        "dest": dest,
        "window_start": DAY,
        "window_end": DAY + 24 * HOUR,
        "observed_seconds": 86400.0,
        "n_flows": 288,
        "n_sessions": 288,
        "app_attribution": "exact",
        "status": status,
        "score": 3.2 if scored else None,
        "p_value": 0.004 if scored else None,
        "rank": rank,
        "alert": alert,
        "structured_cadence": behaviour,
        "session_persistence": behaviour,
        "notification_burst": {"score": None, "p_value": None},
        "behaviours": ["structured_cadence"],
        "explained_by": [f"known to {HOSTILE}"],
        "reasons": [f"Every 300 s to {HOSTILE}.", "Not checked: whether pushes started it."],
        "contributions": [
            part,
            part | {"feature": HOSTILE, "value": None, "expected": None, "contribution": -0.5},
        ],
        "exception_id": None,
        "model_name": "appcadence",
        "model_version": "0123456789ab",
    }


@pytest.fixture
def out(tmp_path):
    """An output with two ranked windows of hostile names, one without an app, and one unscored."""
    path = tmp_path / "out"
    path.mkdir()
    rows = [
        _row(2, "phone-2", None, "203.0.113.9", alert=False),
        _row(1, HOSTILE, HOSTILE, HOSTILE, alert=True),
        _row(None, "phone-2", "com.quiet", "quiet.example", alert=False, status="insufficient_evidence"),
    ]
    columns = {f.name: [row[f.name] for row in rows] for f in SCORES}
    pq.write_table(
        pa.table({f.name: pa.array(columns[f.name], f.type) for f in SCORES}), path / "scores.parquet"
    )
    keys = [(HOSTILE, HOSTILE, HOSTILE)] * 288 + [("phone-2", None, "203.0.113.9")]
    starts = [DAY + k * HOUR // 12 for k in range(288)] + [DAY + 3 * HOUR]
    sessions = {
        "device_id": [k[0] for k in keys],
        "app_id": [k[1] for k in keys],
        "dest": [k[2] for k in keys],
        "window_start": _times([DAY] * 289),
        "start": _times(starts),
        "end": _times([s + 2_000_000 for s in starts[:-1]] + [DAY + 30 * HOUR]),
        "bytes_out": pa.array([100] * 288 + [None], pa.int64()),
        "bytes_in": pa.array([200] * 288 + [None], pa.int64()),
    }
    pq.write_table(pa.table(sessions), path / "sessions.parquet")
    activity = {
        "device_id": [HOSTILE] * 4,
        "app_id": [HOSTILE, "com.other", None, None],
        "kind": ["app_foreground", "app_foreground", "device_unlocked", "charging"],
        "start": _times([DAY + 8 * HOUR, DAY + 9 * HOUR, DAY + 7 * HOUR, DAY]),
        "end": _times([DAY + 9 * HOUR, DAY + 12 * HOUR, None, DAY + HOUR]),
        "source": ["synthetic"] * 4,
        "time_resolution_seconds": [1.0] * 4,
    }
    pq.write_table(conform(ACTIVITY, pa.table(activity)), path / "activity.parquet")
    (path / "run.json").write_text(json.dumps(asdict(RUN)))
    return path


class _Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "wbr"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if self.open.pop() != tag:
            raise ValueError(f"{tag} closes another tag")

    def handle_data(self, data):
        self.words.append(data)


def test_page_is_inert_and_well_formed(out, tmp_path):
    html = tmp_path / "new" / "report.html"
    write_report(out, html)
    page = html.read_text(encoding="utf-8")
    parsed = _Tags(page)
    assert not parsed.open
    allowed = {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "header",
        "main",
        "section",
        "article",
        "h1",
        "h2",
        "h3",
        "h4",
        "p",
        "dl",
        "dt",
        "dd",
        "div",
        "ul",
        "li",
        "strong",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "a",
        "bdi",
        "span",
        "code",
        "wbr",
        "figure",
        "caption",
        "svg",
        "rect",
        "line",
        "text",
    }
    assert {tag for tag, _ in parsed.tags} <= allowed
    names = {name for _, attrs in parsed.tags for name in attrs}
    assert not names & {"style", "src", "onload", "onclick"}
    assert all(attrs["href"].startswith("#w") for tag, attrs in parsed.tags if tag == "a")
    assert "\u202e" not in page
    assert HOSTILE[:-1] in "".join(parsed.words)
    policy = next(a["content"] for t, a in parsed.tags if t == "meta" and "http-equiv" in a)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ") and f"style-src 'sha256-{digest}'" in policy
    assert list(html.parent.iterdir()) == [html]


def test_page_holds_facts_table_and_cards(out, tmp_path):
    html = tmp_path / "report.html"
    write_report(out, html)
    parsed = _Tags(html.read_text(encoding="utf-8"))
    words = " ".join(" ".join(parsed.words).split())
    for fact in ("Devices 2", "Device-days 4.0", "Windows 9", "Scored 3", "allows 4.0 benign", "Blind spots"):
        assert fact in words
    cards = [a["id"] for t, a in parsed.tags if t == "article"]
    assert cards == ["w1", "w2"]
    assert "quiet.example" not in words
    assert sum(a.get("class") == "session" for t, a in parsed.tags if t == "rect") == 289
    assert sum(a.get("class") == "foreground" for t, a in parsed.tags if t == "rect") == 1
    assert sum(a.get("class") == "unlocked" for t, a in parsed.tags if t == "rect") == 1
    assert "12:00" in words and "(unknown app)" in words and "Every 300 s" in words
    assert "10% 90%" in words and "+2.50" in words and "-0.50" in words and "No activity telemetry" in words
    write_report(out, html, top=1)
    assert [a["id"] for t, a in _Tags(html.read_text(encoding="utf-8")).tags if t == "article"] == ["w1"]


def test_output_without_scored_windows(out, tmp_path):
    table = pq.read_table(out / "scores.parquet").slice(2)
    pq.write_table(table, out / "scores.parquet")
    (out / "activity.parquet").unlink()
    write_report(out, tmp_path / "report.html")
    assert "No window had enough evidence" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("name", ["run.json", "scores.parquet", "sessions.parquet"])
@pytest.mark.parametrize("damage", ["missing", "garbage"])
def test_missing_or_damaged_file_is_one_sentence(out, tmp_path, name, damage):
    if damage == "missing":
        (out / name).unlink()
    else:
        (out / name).write_bytes(b"\xff\x00not this")
    with pytest.raises(TelemetryError, match="appcadence score") as error:
        write_report(out, tmp_path / "report.html")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "report.html").exists()


def test_foreign_facts_and_bad_top(out, tmp_path):
    with pytest.raises(AppcadenceError, match="is a directory"):
        write_report(out, tmp_path)
    with pytest.raises(AppcadenceError, match="between 1 and 200"):
        write_report(out, tmp_path / "report.html", top=0)
    (out / "run.json").write_text(json.dumps(asdict(replace(RUN, devices="two"))))
    with pytest.raises(TelemetryError, match="appcadence score"):
        write_report(out, tmp_path / "report.html")
    with pytest.raises(TelemetryError, match="appcadence score"):
        write_report(tmp_path / "nowhere", tmp_path / "report.html")


def test_raster_clips_merges_and_labels():
    dense = [(DAY - HOUR, DAY + HOUR)] + [(DAY + 10 * HOUR + k, DAY + 10 * HOUR + k) for k in range(5000)]
    svg = raster(DAY, DAY + 24 * HOUR, [Lane("sessions", "session", dense, 30)], 'a "label"')
    assert svg.count('class="session"') == 2
    assert 'x="0.000%" y="19" width="4.167%"' in svg
    assert "&quot;label&quot;" in svg and ">04:00<" in svg
    week = raster(DAY, DAY + 7 * 24 * HOUR, [Lane("sessions", "session", [], 30)], "week")
    assert ">Mar 02<" in week and ">Mar 09<" in week


def test_the_shortest_session_is_drawn():
    # A browser draws no rect whose width is zero, stroke or not.
    svg = raster(
        DAY,
        DAY + 24 * HOUR,
        [Lane("sessions", "session", [(DAY, DAY), (DAY + HOUR, DAY + HOUR + 1)], 30)],
        "",
    )
    widths = re.findall(r'class="session"[^>]*? width="([\d.]+)%"', svg)
    assert len(widths) == 2 and all(float(width) > 0 for width in widths)


def test_bars_share_a_scale_and_text_is_inert():
    assert 'class="up" x="20.00%" y="2" width="80.00%"' in bar(4.0, -1.0, 4.0)
    assert 'class="down" x="0.00%" y="2" width="20.00%"' in bar(-1.0, -1.0, 4.0)
    assert 'width="0.00%"' in bar(0.0, 0.0, 0.0)
    assert text("a\u202eb<&>\"'\n") == "a\\u202eb&lt;&amp;&gt;&quot;&#x27;\\u000a"
