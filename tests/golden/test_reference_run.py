"""The whole product computes what the reference holds."""

import json

import pytest
from golden import reference_run


@pytest.mark.slow
def test_the_run_equals_the_reference(tmp_path):
    kept = json.loads(reference_run.FILE.read_text())
    bits = kept["setting"] == reference_run.setting()
    assert reference_run.differences(reference_run.run(tmp_path), kept["columns"], bits) == []
