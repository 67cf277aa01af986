"""Several exceptions at once, and scores that are marked part by part."""

import pyarrow as pa
import pytest
from test_suppression import TODAY, an, applied, mail
from two_rhythms import MAIL, scored

from appcadence.triage.suppression import judge, marked, ranks_under


def test_what_one_exception_covers_breaks_no_other(fleet_model):
    scores, measures = scored(fleet_model)
    cover, strict = an(app_id=MAIL), an("strict", app_id=MAIL, max_bytes_per_day=1)
    table, _ = applied(scores, measures, [cover, strict], TODAY)
    codes = {f["code"] for found in mail(table)["findings"] for f in found}
    assert set(mail(table)["status"]) == {"excepted"}
    assert "exception_volume" not in codes


@pytest.mark.parametrize("cut", [1, 3, 7])
def test_a_table_marked_in_parts_is_the_table_marked_at_once(fleet_model, cut):
    scores, measures = scored(fleet_model)
    entries = [an(app_id=MAIL, max_bytes_per_day=1)]
    ruling = judge(scores, measures, entries, TODAY)
    ranks = ranks_under(ruling, scores)
    whole = marked(scores, measures, entries, ruling, ranks)
    parts = [
        marked(scores.slice(start, cut), measures.slice(start, cut), entries, ruling, ranks, start)
        for start in range(0, len(scores), cut)
    ]
    assert "exception_volume" in {f["code"] for found in whole["findings"].to_pylist() for f in found}
    assert pa.concat_tables(parts).combine_chunks().equals(whole.combine_chunks())
