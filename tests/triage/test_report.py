"""The triage page: complete, inert whatever the names say, and refusing what is no output."""

import base64
import hashlib
import ipaddress
import json
import math
import re
import shlex
import shutil
import subprocess
import tomllib
from dataclasses import asdict, replace
from datetime import UTC, date, datetime
from html import unescape
from html.parser import HTMLParser

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile_output import DAY, HOSTILE, HOUR, RUN, written
from typer.testing import CliRunner

from appcadence.cli import app
from appcadence.errors import AppcadenceError, SchemaError, TelemetryError
from appcadence.findings import Finding
from appcadence.telemetry.verdicts import Draft, decisions
from appcadence.triage import siem
from appcadence.triage.cases import CASES
from appcadence.triage.exceptions import read
from appcadence.triage.report.case_card import card, exception_entry, verdict_commands
from appcadence.triage.report.html import Lane, bar, histogram, raster
from appcadence.triage.report.page import write_report
from appcadence.triage.report_data import Output
from appcadence.triage.verdicts import placed, record

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture
def out(tmp_path):
    return written(tmp_path / "out")


class _Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "wbr", "input"):
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
        "time",
        "wbr",
        "figure",
        "figcaption",
        "caption",
        "label",
        "input",
        "select",
        "option",
        "details",
        "summary",
        "pre",
        "button",
        "script",
        "svg",
        "rect",
        "line",
        "path",
        "text",
    }
    assert {tag for tag, _ in parsed.tags} <= allowed
    names = {name for _, attrs in parsed.tags for name in attrs}
    assert not names & {"style", "src", "onload", "onclick"}
    links = {attrs["href"] for tag, attrs in parsed.tags if tag == "a"}
    ids = {attrs["id"] for _, attrs in parsed.tags if "id" in attrs}
    assert {link[1:] for link in links if link[0] == "#"} <= ids
    assert {link for link in links if link[0] != "#"} == {
        siem.REFERENCE,
        "https://attack.mitre.org/techniques/T1437/001",
    }
    assert "\u202e" not in page
    assert HOSTILE[:-1] in "".join(parsed.words)
    policy = next(a["content"] for t, a in parsed.tags if t == "meta" and "http-equiv" in a)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ") and f"style-src 'sha256-{digest}'" in policy
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert "innerHTML" not in script and "eval" not in script
    assert list(html.parent.iterdir()) == [html]


def test_page_holds_facts_table_and_cards(out, tmp_path):
    html = tmp_path / "report.html"
    write_report(out, html)
    parsed = _Tags(html.read_text(encoding="utf-8"))
    words = " ".join(" ".join(parsed.words).split())
    for fact in (
        "Devices 2",
        "Device-days 4.0",
        "Windows 9",
        "Scored 3",
        "Excepted 1",
        "allows 4.0 benign",
        "Blind spots",
    ):
        assert fact in words
    cards = [a["id"] for t, a in parsed.tags if t == "article"]
    assert cards == ["c1", "c2"]
    assert "quiet.example" not in words
    assert "36 of 36 pushes were followed by a session start within 31 s (24 by chance" in words
    assert "Ask the owner of the managed app" in words and "Ask release management" in words
    assert f"Declared purpose: {HOSTILE[:-1]}" in words
    page = html.read_text(encoding="utf-8")
    for kind, bars in (("session", 289), ("foreground", 1), ("unlocked", 1), ("push", 36)):
        lanes = re.findall(rf'<svg class="{kind}".*?</svg>', page)
        assert sum(lane.count("v1") for lane in lanes) == bars
    assert "12:00" in words and "(unknown app)" in words and "starts: 5.0 min; usual" in words
    assert "10% 90%" in words and "+2.50" in words and "-0.50" in words and "No activity telemetry" in words
    write_report(out, html, top=1)
    assert [a["id"] for t, a in _Tags(html.read_text(encoding="utf-8")).tags if t == "article"] == ["c1"]


def test_the_page_says_how_many_of_all_cases_it_shows(out, tmp_path):
    command = ["report", str(out), "--html", str(tmp_path / "report.html")]
    for options, said in (
        ([], "2 of 2 cases have a card."),
        (
            ["--top", "1"],
            "1 of 2 cases has a card. The list holds 2, all of which the filters search",
        ),
    ):
        assert CliRunner().invoke(app, [*command, *options]).exit_code == 0
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert said in page and 'data-total="2"' in page
        assert page.count("<article") == int(said[0]) and page.count('<tr role="row" data-case') == 2
    assert CliRunner().invoke(app, [*command, "--top", "201"]).exit_code != 0


def test_output_without_scored_windows(out, tmp_path):
    for name in ("scores", "cases"):
        pq.write_table(pq.read_table(out / f"{name}.parquet").slice(2), out / f"{name}.parquet")
    for name in ("activity", "context", "exceptions"):
        (out / f"{name}.parquet").unlink()
    write_report(out, tmp_path / "report.html")
    assert "no window without an exception alerts at this budget" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("name", ["run.json", "scores.parquet", "cases.parquet", "sessions.parquet"])
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
    for wrong in ({"devices": "two"}, {"model_version": None}, {"window": 24}):
        (out / "run.json").write_text(json.dumps(asdict(replace(RUN, **wrong))))
        with pytest.raises(TelemetryError, match="appcadence score"):
            write_report(out, tmp_path / "report.html")
    with pytest.raises(TelemetryError, match="appcadence score"):
        write_report(tmp_path / "nowhere", tmp_path / "report.html")


def test_excepted_windows_name_their_exception(out, tmp_path):
    write_report(out, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    words = " ".join(
        " ".join(
            _Tags(page[page.index('<section aria-labelledby="excepted"') : page.index("</main>")]).words
        ).split()
    )
    assert f"mail.example 2026-03-02 00:00 mail-poll ({HOSTILE[:-1]}" in words


def test_analysts_who_disagree_are_all_shown(out, tmp_path):
    file, at = tmp_path / "verdicts.parquet", datetime(2026, 3, 4, tzinfo=UTC)
    window = {"device_id": "phone-2", "app_id": None, "dest": "203.0.113.9"}
    window |= {"window_start": "2026-02-20", "window_end": "2026-02-21"}
    for analyst, verdict in (("ana", "benign"), (HOSTILE, "malicious")):
        said = {"verdict": verdict, "analyst": analyst, "justification": f"because {verdict}"}
        record(decisions([Draft(window | said)], at), file, None, at)
    options = ["--html", str(tmp_path / "report.html"), "--verdicts", str(file)]
    assert CliRunner().invoke(app, ["report", str(out), *options]).exit_code == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    first, _, second = page.partition('id="c2"')
    assert "Earlier verdicts" not in first and "analysts differ" in second
    assert first.count('class="badge">verdicts differ<') == 1 and "judged" not in page
    assert "ana on 2026-03-04" in second and "because benign" in second and "because malicious" in second
    assert "from 2026-02-20 00:00" in second and "<script>alert" not in page
    pq.write_table(pa.table({"a": [1]}), file)
    with pytest.raises(SchemaError):
        write_report(out, tmp_path / "other.html", verdicts=file)
    assert not (tmp_path / "other.html").exists()


def test_gaps_are_counted_in_logarithmic_bars_beside_the_usual_gap(out, tmp_path):
    starts = [62_000_000, 0, 1_000_000, 2_000_000]
    svg = histogram(starts, 3600.0)
    bars = dict(
        re.findall(r'<rect class="gap" x="([\d.]+)%" y="[\d.]+" width="[\d.]+%" height="([\d.]+)"', svg)
    )
    # Two gaps of 1 s in bar 0, one of 60 s in bar int(32 ln 60 / ln 86400) = 11.
    assert bars == {"0.000": "52.0", f"{100 * 11 / 32:.3f}": "26.0"}
    assert f'class="usual" x1="{100 * math.log(3600) / math.log(86400):.3f}%"' in svg
    assert 'aria-label="3 gaps between session starts, median 1.0 s; usual here 60.0 min"' in svg
    assert 'class="usual"' not in histogram(starts, None)
    assert histogram([5], 3600.0) == "" and 'class="gap"' in histogram([0, 0, 10**13], None)
    write_report(out, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "287 gaps between session starts, median 5.0 min; usual here 60.0 min" in page


def test_entry_and_command_are_what_is_read(out, tmp_path):
    write_report(out, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    copied = {
        key: unescape(t) for key, t in re.findall(r'<pre id="([-\w]+)"[^>]*>(.*?)</pre>', page, re.DOTALL)
    }
    file = tmp_path / "exceptions.toml"
    file.write_text(copied["x4-2"], encoding="utf-8")
    (entry,) = read(file)
    assert (entry.app_id, entry.destination) == (None, ipaddress.ip_network("203.0.113.9"))
    assert entry.devices == {"phone-2"} and entry.behaviours == {"structured_cadence"}
    assert entry.created == date(2026, 3, 2) and entry.expires == date(2026, 5, 31)
    (hostile,) = tomllib.loads(copied["x4-1"])["exception"]
    assert hostile["device_id"] == hostile["app_id"] == hostile["destination"] == HOSTILE
    commands = verdict_commands(tmp_path / "a 'b", 7)
    words = shlex.split(commands["benign"])
    assert words[:6] == ["appcadence", "verdict", "add", str(tmp_path / "a 'b"), "--case", "7"]
    assert [copied[f"v{i}-1"] for i in (1, 2, 3)] == [*verdict_commands(out, 1).values()]
    assert set(commands) == {"malicious", "benign", "unexplained"}
    case = Output(out).cases()[1] | {"device_ids": ["a\U000e0001\n"], "behaviours": []}
    tagged = exception_entry(case, [])
    assert tagged.replace("\n", "").isprintable()
    assert tomllib.loads(tagged)["exception"][0]["device_id"] == "a\U000e0001\n"
    assert "app_id" not in tagged and tomllib.loads(tagged)["exception"][0]["behaviours"] == []


def test_an_exception_names_what_alerts_and_what_it_shows_there_from_first_alert_to_last(tmp_path):
    places = [{"dest": f"h{k}.example", "alert": k < 5} for k in range(9)]
    case = {"id": "0123456789abcdef", "kind": "app", "app_id": "com.a", "device_ids": ["d1"]}
    case |= {"destinations": places, "n_destinations": 9, "alert_days": ["2026-03-08", "2026-03-09"]}
    case |= {"behaviours": ["session_persistence"], "first_time": DAY + 30 * HOUR}
    raising = [
        {"dest": "h0.example", "behaviours": ["session_persistence"]},
        {"dest": "h0.example", "behaviours": ["structured_cadence"]},
        {"dest": "h1.example", "behaviours": []},
        {"dest": "h2.example", "behaviours": None},
    ]
    file = tmp_path / "exceptions.toml"
    file.write_text(exception_entry(case, raising))
    entries = read(file)
    assert [entry.destination for entry in entries] == [f"h{k}.example" for k in range(3)]
    assert {(e.app_id, e.created, e.expires) for e in entries} == {
        ("com.a", date(2026, 3, 8), date(2026, 6, 7))
    }
    assert [e.behaviours for e in entries] == [{"session_persistence", "structured_cadence"}, set(), set()]
    assert "# 2 more destinations alert" in file.read_text()
    both = exception_entry(case, [*raising, {"dest": "*", "behaviours": ["structured_cadence"]}])
    assert "an entry without destination" in both and both.count("[[exception]]") == 3
    together = [place | {"alert": False} for place in places]
    file.write_text(exception_entry(case | {"destinations": together}, [{"dest": "*", "behaviours": []}]))
    (whole,) = read(file)
    assert (whole.app_id, whole.destination, whole.behaviours) == ("com.a", None, set())
    fleet = case | {"kind": "fleet_app", "behaviours": None}
    file.write_text(exception_entry(fleet, raising))
    (rolled_out,) = read(file)
    assert rolled_out.behaviours == {"session_persistence", "structured_cadence"}
    assert (rolled_out.destination, rolled_out.devices) == (None, None)


@pytest.mark.parametrize(("seconds", "fits"), [(103.0, False), (7200.0, True), (None, True)])
def test_what_is_said_of_long_sessions_is_said_of_long_ones_alone(out, seconds, fits):
    named = {"expert": "persistence_of_new", "value": seconds, "one_in": 9}
    long = Finding("expert", named | {"feature": seconds and "longest_session_seconds"})
    new = Finding("expert", {"expert": "newness", "one_in": 9})
    case = Output(out).cases()[0]
    case |= {"findings": [case["findings"][0], long, new]}
    wrong = card(case, None, [], [], out)["wrong"]
    assert ("video calls" in wrong) == fits and ("change of CDN" in wrong) == (not fits)


def test_raster_clips_merges_and_labels():
    dense = [(DAY - HOUR, DAY + HOUR)] + [(DAY + 10 * HOUR + k, DAY + 10 * HOUR + k) for k in range(5000)]
    svg = raster(DAY, DAY + 24 * HOUR, [Lane("sessions", "session", dense, 30)], 'a "label"')
    assert '<path d="m0 0h83v1h-83zm833 0h0v1h0z"/>' in svg
    assert "&#34;label&#34;" in svg and ">04:00<" in svg
    week = raster(DAY, DAY + 7 * 24 * HOUR, [Lane("sessions", "session", [], 30)], "week")
    assert ">Mar 02<" in week and ">Mar 09<" in week


def test_the_picture_of_a_window_is_bounded():
    # Every other of the 2000 places at most: what adjoins is joined.
    sessions = [(DAY + k * HOUR // 100, DAY + k * HOUR // 100) for k in range(2400)]
    assert len(raster(DAY, DAY + 24 * HOUR, [Lane("sessions", "session", sessions, 30)], "")) < 15_000
    sparse = [(DAY + k * 24 * HOUR // 1000, DAY + k * 24 * HOUR // 1000) for k in range(1000)]
    svg = raster(DAY, DAY + 24 * HOUR, [Lane("sessions", "session", sparse, 30)], "")
    assert svg.count("v1") == 1000 and len(svg) < 15_000


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to open the page in")
def test_a_browser_runs_the_script_of_a_hostile_page_and_nothing_else(out, tmp_path):
    write_report(out, tmp_path / "report.html")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    page = (tmp_path / "report.html").as_uri()
    done = subprocess.run([CHROMIUM, *options, profile, page], capture_output=True, text=True, timeout=60)
    assert ">2 of 2 cases shown</span>" in done.stdout
    assert done.stdout.count("<script>") == 1 and "CONSOLE" not in done.stderr


def test_bars_share_a_scale_and_text_is_inert():
    assert 'class="up" x="20.00%" y="2" width="80.00%"' in bar(4.0, -1.0, 4.0)
    assert 'class="down" x="0.00%" y="2" width="20.00%"' in bar(-1.0, -1.0, 4.0)
    assert 'width="0.00%"' in bar(0.0, 0.0, 0.0)
    drawn = raster(DAY, DAY + HOUR, [], "a\u202eb<&>\"'\n")
    assert 'aria-label="a\\u202eb&lt;&amp;&gt;&#34;&#39;\\u000a"' in drawn


def test_what_alerts_in_no_window_offers_no_verdict(out, tmp_path):
    file = out / "cases.parquet"
    rows = pq.read_table(file).to_pylist()
    gone = {"status": "quiet", "rank": None, "app_id": "com.gone", "device_ids": ["phone-9"], "case": 3}
    pq.write_table(pa.Table.from_pylist([*rows, rows[0] | gone | {"id": "f" * 32}], CASES), file)
    write_report(out, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'id="v1-1"' in page and 'id="v1-3"' not in page and 'id="x1-3"' in page
    with pytest.raises(TelemetryError, match=r"no window of case 3 alerts in .*; give the output of 2026-"):
        placed(out, [Draft({"case": "3"})])
    with pytest.raises(TelemetryError, match="has no case 4"):
        placed(out, [Draft({"case": "4"})])
