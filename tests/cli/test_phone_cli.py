"""phone: one person's phone, from what was collected to sentences and a page."""

import json
import random
import shutil
import subprocess
import tarfile

import pytest
from ios_files import PUSHES, START, powerlog
from make import summaries, table
from phones import HOSTILE, quiet, with_beacon
from typer.testing import CliRunner

from appcadence.cli import app
from appcadence.errors import AppcadenceError
from appcadence.telemetry.directory import write_directory
from appcadence.telemetry.schema import ACCESSES, CONTACT_SUMMARIES, FLOWS

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def run(*arguments):
    return CliRunner().invoke(app, ["phone", *map(str, arguments)], catch_exceptions=False)


def refused(*arguments):
    with pytest.raises(AppcadenceError) as error:
        run(*arguments)
    return str(error.value)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Telemetry directories by name, and the page of each."""
    place = tmp_path_factory.mktemp("phones")
    for name, tables in {
        "quiet": quiet(),
        "beacon": with_beacon(),
        "hostile": with_beacon(HOSTILE),
        "courier": with_beacon("com.apple.courierd"),
    }.items():
        write_directory(place / name, tables)
    return place


def test_a_quiet_phone_says_so_in_one_sentence_and_what_that_does_not_prove(given):
    done = run(given / "quiet")
    lines = done.output.splitlines()
    assert done.exit_code == 0 and max(map(len, lines)) <= 80
    assert " ".join(lines).startswith(
        "Nothing stands out among the apps that people install, in 3 days of log. "
    )
    assert "PARTS OF iOS" not in done.output and "p-value" not in done.output


def test_a_beacon_is_told_in_plain_words_and_shown_day_by_day(given, tmp_path):
    done = run(given / "beacon", "--html", tmp_path / "p.html")
    text = " ".join(done.output.split())
    assert max(map(len, done.output.splitlines()[:-1])) <= 80
    assert text.startswith("1 app stands out in 3 days of log")
    assert "1. com.example.torch" in text and "not proof that an app is malicious" in text
    assert "It used the network 864 times in 3 days of log." in text
    assert "These uses came regularly, about every 5 minutes." in text
    assert "Where the connections go: a sysdiagnose does not say." in text
    assert "Beats faster than about 16 s" in text
    page = (tmp_path / "p.html").read_text()
    assert page.count('class="raster"') == 3 and "Mon 2 March 2026" in page and "<script" not in page
    assert "used the network, and nothing on record explains it" in page and "com.example.mail" not in page


def test_the_same_answer_as_json(given):
    found = json.loads(run(given / "beacon", "--json").output)
    (one,) = found["apps"]
    assert one["app_id"] == "com.example.torch" and not one["part_of_ios"] and "days" not in one
    assert len(one["for_analysts"]) == 3 and "score" in one["for_analysts"][0]


def test_names_are_escaped_on_the_page_and_plain_on_the_terminal(given, tmp_path):
    done = run(given / "hostile", "--html", tmp_path / "p.html")
    assert "\x1b" not in done.output and "com.<script>alert(1)</script>?[31m?" in done.output
    page = (tmp_path / "p.html").read_text()
    assert "<script" not in page and "com.&lt;script&gt;alert(1)&lt;/script&gt;\\u001b[31m\\u202e" in page
    assert "default-src 'none'" in page


def test_parts_of_ios_stand_apart_and_are_compared_with_another_phone(given):
    text = " ".join(run(given / "courier").output.split())
    assert text.startswith("Nothing stands out among the apps that people install")
    assert "PARTS OF iOS THAT STAND OUT: 1 iOS 1. com.apple.courierd" in text
    assert "Only a comparison with another phone on the same iOS version" in text
    assert "A sysdiagnose of another phone with the same iOS version" in text


def test_an_app_privacy_report_names_hosts_and_no_rhythm(tmp_path):
    hosts = {f"h{n}.example": 9 for n in range(9)}
    rows = [row for week in range(3) for row in summaries(hosts, week)]
    rows += summaries({"c2\x1b[31m.invalid": 9000}, 2)
    used = [
        {"device_id": "d1", "app_id": "com.a", "category": "location", "start": 1_300_000.0 + k}
        for k in range(3)
    ]
    tables = {"contact_summaries": CONTACT_SUMMARIES.of_rows(rows), "accesses": table(ACCESSES, used)}
    write_directory(tmp_path / "t", tables)
    text = " ".join(run(tmp_path / "t", "--html", tmp_path / "p.html").output.split())
    assert text.startswith("1 app stands out in the sums of 3 App Privacy Reports")
    assert "neither use nor an approved rhythm explains which hosts it contacted" in text
    assert "it contacted c2?[31m.invalid, which it had not contacted before" in text
    assert "it used location 3 times" in text and "has sums of a week and no rhythm" in text
    assert "raster" not in (tmp_path / "p.html").read_text().split("</style>")[1]


def test_options_of_other_commands_are_not_asked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing\n")
    with pytest.raises(AppcadenceError, match="known format") as error:
        run(tmp_path / "notes.txt")
    assert error.value.argument is None


def test_what_could_not_be_read_is_said(tmp_path):
    """A person who gave two files and hears of one believes that both were looked at."""
    pushes = [(START, "com.example.a"), ("soon", "com.example.a")]
    log = powerlog(tmp_path / "a.PLSQL", {PUSHES: ("timestamp, BundleID", pushes)})
    (tmp_path / "notes.txt").write_text("nothing\n")
    live = "2025-11-20 08:00:00.123456 SpringBoard{SpringBoard}[1] <NOTICE>: The device is unlocked\n"
    (tmp_path / "live.log").write_text(live)
    text = " ".join(run(log, tmp_path / "notes.txt", tmp_path / "live.log").output.split())
    unchecked = text[text.index("What could not be checked on this phone") :]
    assert "1 of 3 records of a.PLSQL could not be read." in unchecked
    assert "A file that could not be used:" in unchecked and "notes.txt is in no known format" in unchecked
    assert "carry no UTC offset and were read as UTC" in unchecked


def test_an_archive_that_was_cut_off_is_said_to_be_incomplete(tmp_path):
    name = "sysdiagnose_2026.03.01_10-00-00+0000_iPhone-OS_iPhone_22A1"
    log = powerlog(tmp_path / "a.PLSQL", {PUSHES: ("timestamp, BundleID", [(START, "com.example.a")])})
    (tmp_path / "noise").write_bytes(random.Random(0).randbytes(300_000))
    with tarfile.open(tmp_path / f"{name}.tar.gz", "w:gz") as tar:
        tar.add(log, f"{name}/logs/powerlogs/powerlog_2026-03-01_10-00_AB12CD34.PLSQL")
        tar.add(tmp_path / "noise", f"{name}/noise")
    whole = (tmp_path / f"{name}.tar.gz").read_bytes()
    (tmp_path / f"{name}.tar.gz").write_bytes(whole[:-100_000])
    text = " ".join(run(tmp_path / f"{name}.tar.gz").output.split())
    assert f"{name}.tar.gz is incomplete: the archive is cut off; the rest is not read." in text


@pytest.mark.parametrize("kind", ["missing", "empty", "junk"])
def test_what_cannot_be_used_is_refused_in_a_sentence_and_leaves_nothing(tmp_path, kind):
    path = tmp_path / "sysdiagnose_2026.03.01_10-00-00+0000_iPhone-OS_iPhone_22A1"
    if kind != "missing":
        path.mkdir()
    if kind == "junk":
        (path / "notes.txt").write_text("nothing\n")
    said = refused(path, "--html", tmp_path / "p.html", "--keep", tmp_path / "kept")
    assert path.name in said and "\n" not in said
    assert not (tmp_path / "p.html").exists() and not (tmp_path / "kept").exists()


def test_a_telemetry_directory_holds_one_phone_or_is_told_which(given, tmp_path):
    assert "give it alone" in refused(given / "quiet", given / "beacon")
    two = {
        "contact_summaries": CONTACT_SUMMARIES.of_rows(
            [row | {"device_id": name} for name in ("a", "b") for row in summaries({"h.example": 9})]
        )
    }
    write_directory(tmp_path / "two", two)
    assert "holds 2 devices (a, b); name the one phone to look at" in refused(tmp_path / "two")
    assert run(tmp_path / "two", "--device-id", "b").exit_code == 0
    assert "2 devices" in refused(tmp_path / "two", "--device-id", "c")
    assert "holds 1 device (d1)" in refused(given / "quiet", "--device-id", "c")


@pytest.mark.parametrize(
    "sources", ["null", "[[", '[{"conversion": [1]}]', '{"a": 1}', "[{}]", "[" * 100_000 + "]" * 100_000]
)
def test_a_damaged_telemetry_directory_is_called_one(tmp_path, sources):
    write_directory(tmp_path / "t", {"flows": FLOWS.empty()})
    (tmp_path / "t" / "sources.json").write_text(sources)
    assert "sources.json is damaged" in refused(tmp_path / "t")


def test_a_log_without_rows_tells_nothing_and_says_what_to_collect(tmp_path):
    write_directory(tmp_path / "t", {"flows": FLOWS.empty()})
    text = " ".join(run(tmp_path / "t").output.split())
    assert text.startswith("Nothing can be said about this phone") and "press both volume buttons" in text


def test_the_real_sample_is_kept_where_asked(shared_data, tmp_path):
    (log,) = (shared_data / "ios").glob("powerlog*")
    done = run(log, shared_data / "ios" / "ios_app_privacy_report.ndjson", "--keep", tmp_path / "kept")
    text = " ".join(done.output.split())
    assert "64 apps and parts of iOS used the network" in text and "too short to say much" in text
    assert "1 App Privacy Report of under two days, which cannot be judged" in text
    assert (tmp_path / "kept" / "flows").is_dir()
    assert "maybe of another phone" in refused(log, "--keep", tmp_path / "kept")


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to open the page in")
def test_a_browser_shows_the_hostile_page_and_runs_nothing(given, tmp_path):
    run(given / "hostile", "--html", tmp_path / "p.html")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    page = (tmp_path / "p.html").as_uri()
    done = subprocess.run([CHROMIUM, *options, profile, page], capture_output=True, text=True, timeout=60)
    assert "<h2" in done.stdout and "<script" not in done.stdout and "CONSOLE" not in done.stderr
