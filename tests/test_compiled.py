"""Compiling leaves the process as it was: garbage collection is on or off as before.

Numba's own decorator caches nothing on disk, so each run compiles.
"""

import gc

import numba
import numpy as np
import pytest
from numba.core import event

import appcadence._compiled  # noqa: F401  (listens to Numba)


@pytest.fixture(params=[True, False], ids=["searched", "not searched"])
def searched(request):
    before = gc.isenabled()
    (gc.enable if request.param else gc.disable)()
    yield request.param
    (gc.enable if before else gc.disable)()


def test_a_compiled_function_leaves_the_search_for_garbage_as_it_was(searched):
    @numba.njit
    def inner(x):
        return x + 1

    @numba.njit
    def outer(x):
        return inner(x) * 2

    assert outer(20) == 42
    assert outer(0.5) == 3.0
    assert gc.isenabled() == searched


def test_so_does_one_that_cannot_be_compiled(searched):
    @numba.njit
    def wrong(x):
        return x.nothing

    with pytest.raises(Exception, match="nothing"):
        wrong(np.zeros(1))
    assert gc.isenabled() == searched


def test_while_compiling_none_is_searched_for(monkeypatch):
    seen = []
    with event.install_recorder("numba:run_pass") as recorder:
        notify = recorder.notify
        monkeypatch.setattr(recorder, "notify", lambda e: (seen.append(gc.isenabled()), notify(e)))

        @numba.njit
        def plain(x):
            return x + 1

        assert plain(1) == 2
    assert seen and not any(seen)
