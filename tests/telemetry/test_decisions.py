"""Decisions in words become the verdicts table, or one sentence that says where they are wrong."""

from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from appcadence.errors import TelemetryError
from appcadence.telemetry.schema import VERDICTS
from appcadence.telemetry.verdicts import WINDOW, Draft, decisions, from_csv, latest_decisions
from appcadence.training.truth import verdict_of

NOW = datetime(2026, 3, 5, tzinfo=UTC)
GOOD = {
    "device_id": "phone-1",
    "app_id": "com.a",
    "dest": "a.example",
    "window_start": "2026-03-02T02:00:00+02:00",
    "window_end": "2026-03-03",
    "verdict": "benign",
    "analyst": "ana",
    "justification": "known poll",
}


def test_words_become_the_table():
    table = decisions([Draft(GOOD), Draft(GOOD | {"app_id": " ", "dest": "*"})], NOW)
    assert table.schema == VERDICTS.schema
    first, second = table.to_pylist()
    assert first["window_start"] == datetime(2026, 3, 2, tzinfo=UTC) and first["decided_at"] == NOW
    assert second["app_id"] is None and second["dest"] == "*"
    assert decisions([], NOW).schema == VERDICTS.schema


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"verdict": "fine"}, "verdict is 'fine'; expected one of malicious, benign, unexplained"),
        ({"device_id": " "}, "device_id is missing"),
        ({"justification": None}, "justification is missing"),
        ({"window_end": "2026-03-02"}, "window_end must be later"),
        ({"window_start": "yesterday"}, "window_start is 'yesterday'; expected ISO 8601"),
        (
            {"window_end": "0001-01-01T00:00+23:00"},
            "window_end is '0001-01-01T00:00.23:00'; expected ISO 8601",
        ),
        ({"analyst": "\udcff"}, "analyst is no valid text"),
    ],
)
def test_a_wrong_decision_is_one_sentence(change, said):
    with pytest.raises(TelemetryError, match=f"here: {said}"):
        decisions([Draft(GOOD), Draft(GOOD | change, "here: ")], NOW)


def test_a_csv_file_keeps_the_number_of_its_lines(tmp_path):
    file = tmp_path / "d.csv"
    lines = [
        "rank, device_id,app_id,dest,window_start,window_end,verdict,justification,analyst",
        '1,"p,1",,a.example,2026-03-02,2026-03-03,benign,"two\nlines",ana',
        "2,p2,com.a,a.example,2026-03-02,2026-03-03,,,ana",
        "3,p3,com.a,a.example,2026-03-02,2026-03-03,nonsense,why,ana",
    ]
    file.write_text("\ufeff" + "\n".join(lines) + "\n")
    drafts, undecided = from_csv(file, WINDOW)
    assert (len(drafts), undecided) == (2, 1)
    assert decisions(drafts[:1], NOW)["justification"].to_pylist() == ["two\nlines"]
    with pytest.raises(TelemetryError, match=r"d\.csv, line 5: verdict is 'nonsense'"):
        decisions(drafts, NOW)
    for content, said in (
        ("x\n1\n", "the columns must be device_id"),
        ("", "found nothing"),
        ('"', "cannot be read"),
    ):
        file.write_text(content)
        with pytest.raises(TelemetryError, match=said):
            from_csv(file, WINDOW)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(TelemetryError, match="cannot be read"):
        from_csv(file, WINDOW)


def test_the_last_word_of_each_analyst_counts():
    later = datetime(2026, 3, 6, tzinfo=UTC)
    rows = [
        *decisions([Draft(GOOD | {"verdict": "malicious"})], later).to_pylist(),
        *decisions(
            [Draft(GOOD), Draft(GOOD | {"analyst": "ben"}), Draft(GOOD | {"app_id": ""})], NOW
        ).to_pylist(),
    ]
    table = VERDICTS.schema.empty_table().from_pylist(rows, VERDICTS.schema)
    kept = latest_decisions(table)
    assert list(zip(kept["analyst"], kept["verdict"], kept["app_id"].fillna(""), strict=True)) == [
        ("ana", "malicious", "com.a"),
        ("ben", "benign", "com.a"),
        ("ana", "benign", ""),
    ]
    assert verdict_of(table.to_pandas(), table).tolist() == [
        "unexplained",
        "unexplained",
        "unexplained",
        "benign",
    ]
    alone = table.filter(pc.equal(table["analyst"].cast(pa.string()), "ana"))
    assert verdict_of(alone.to_pandas(), alone).tolist() == ["malicious", "malicious", "benign"]
