"""weekly, and what other commands say of App Privacy Reports."""

import json

import pyarrow.parquet as pq
import pytest
from make import fleet, flows, summaries
from typer.testing import CliRunner

from appcadence.cli import app
from appcadence.models.weekly import WEEKLY
from appcadence.telemetry.directory import write_directory
from appcadence.telemetry.schema import CONTACT_SUMMARIES


@pytest.fixture
def reports(tmp_path):
    hosts = {f"h{n}.example": 9 for n in range(9)}
    rows = [row for week in range(3) for row in summaries(hosts, week)]
    rows += summaries({"c2\x1b[31m.invalid": 900}, 2)
    write_directory(tmp_path / "t", {"contact_summaries": CONTACT_SUMMARIES.of_rows(rows)})
    return tmp_path / "t"


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)


def test_findings_are_printed_written_and_told_as_json(reports, tmp_path):
    done = run("weekly", reports, "--out", tmp_path / "w.parquet", "--findings-per-phone-week", 3)
    text = " ".join(done.output.split())
    assert done.exit_code == 0 and "\x1b" not in done.output
    assert "28 sums of app and host in 3 reports of 1 device" in text
    assert "simulated phones are used instead" in text
    assert "d1, 2026-03-16 to 2026-03-23: com.a -> c2?[31m.invalid" in text
    assert "Not checked: rhythm and hours of the contacts" in text
    assert pq.read_schema(tmp_path / "w.parquet").equals(WEEKLY)
    facts = json.loads(run("weekly", reports, "--json", "--findings-per-phone-week", 3).output)
    assert (facts["reports"], facts["short_reports"], facts["sums"]) == (3, 0, 28)
    assert facts["findings"][0]["dest_host"].startswith("c2")
    assert {"code", "parameters", "text"} == set(facts["findings"][0]["findings"][0])


def test_score_and_readiness_name_their_place(reports):
    with pytest.raises(
        Exception, match=r"holds no flows\. App Privacy Reports are judged separately"
    ) as error:
        run("score", reports, "--out", reports.parent / "scored")
    assert str(error.value).endswith(f"appcadence weekly {reports}")
    text = " ".join(run("readiness", reports).output.split())
    assert "can be judged on 1 device (3 App Privacy Reports)" in text and "blind on 1" in text


def test_a_directory_without_reports_is_one_sentence(tmp_path):
    write_directory(tmp_path / "t", {"flows": flows([0.0, 60.0])})
    with pytest.raises(Exception, match="holds no contact summaries; convert an App Privacy Report"):
        run("weekly", tmp_path / "t")


def test_score_says_where_reports_are_judged(tmp_path):
    some = CONTACT_SUMMARIES.of_rows(summaries({"a.example": 9}))
    write_directory(tmp_path / "t", fleet(devices=1, days=1) | {"contact_summaries": some})
    done = run("score", tmp_path / "t", "--out", tmp_path / "scored")
    assert f"appcadence weekly {tmp_path / 't'}" in " ".join(done.output.split())
