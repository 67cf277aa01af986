"""Keys set aside on disk come back, all of them and in order."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appcadence.errors import TelemetryError
from appcadence.telemetry.ingest import key_runs
from appcadence.telemetry.ingest.key_runs import KeyRuns

KEYS = st.lists(st.integers(0, 2**64 - 1) | st.sampled_from([0, 1 << 56, 2**64 - 1]), max_size=60)


@given(st.lists(KEYS, max_size=6), st.integers(1, 100))
def test_all_keys_come_back_in_order_as_often_as_asked_for(added, most):
    runs = KeyRuns()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(key_runs, "RUN_KEYS", most)
        for keys in added:
            runs.add(np.array(keys, np.uint64))
        for _ in range(2):
            parts = list(runs.parts())
            assert np.concatenate(parts).tolist() == sorted(itertools.chain(*added))
        ends = [(part[0], part[-1]) for part in parts if len(part)]
        # Equal keys are in one part.
        assert all(last < first for (_, last), (first, _) in zip(ends, ends[1:], strict=False))
    assert runs.count == sum(map(len, added))


def test_a_full_disk_is_said(monkeypatch):
    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(key_runs, "RUN_KEYS", 2)
    monkeypatch.setattr(key_runs.tempfile, "TemporaryFile", full)
    with pytest.raises(TelemetryError, match=r"cannot write temporary files in .* set TMPDIR"):
        KeyRuns().add(np.array([1, 2, 3], np.uint64))
