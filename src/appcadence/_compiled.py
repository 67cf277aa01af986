"""Functions compiled by Numba, cached for later processes if possible."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import numba
from numba.core import event
from numba.core.caching import FunctionCache

from appcadence._address_space import check_address_space

_log = logging.getLogger(__name__)


class _GarbageLater(event.Listener):
    """Disables garbage collection while Numba compiles: it takes a seventh of the time and finds little.

    Numba reports one compilation at a time, and those nested in it.
    """

    def __init__(self) -> None:
        self._depth, self._was_searched_for = 0, False

    def on_start(self, event: object) -> None:
        if not self._depth:
            self._was_searched_for = gc.isenabled()
            gc.disable()
        self._depth += 1

    def on_end(self, event: object) -> None:
        self._depth -= 1
        if not self._depth and self._was_searched_for:
            gc.enable()


event.register("numba:compile", _GarbageLater())  # type: ignore[no-untyped-call]


class Cache(FunctionCache):
    """Numba's cache, but a damaged cache or a full disk only means that the function is compiled."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        check_address_space()
        found = None
        try:
            found = super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        except Exception:  # Numba unpickles the cache: a truncated file may raise anything
            with contextlib.suppress(OSError):
                self.flush()  # type: ignore[no-untyped-call]
        if found is None:
            _tell_once()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(Exception):
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]


def compiled(function: Callable[..., Any], cache: type[Cache] = Cache, **options: Any) -> Any:
    """Compile a function for use by many threads; without a writable cache, each process compiles it again.

    The function may use NumPy, `math` and names of its own file: edits elsewhere do not invalidate the cache.
    `options` are Numba's.
    """
    made: Any = numba.njit(**{"nogil": True, "no_cfunc_wrapper": True} | options)(function)
    try:
        made._cache = cache(function)
    except RuntimeError:  # Numba found no writable place for it
        _warn_once()
    return made


@cache
def _tell_once() -> None:
    _log.info("compiling for this machine; later runs will reuse the result")


@cache
def _warn_once() -> None:
    _log.warning(
        "appcadence: warning: compiled code cannot be cached, so every start compiles it again: neither the "
        "package nor the user's cache directory is writable; set NUMBA_CACHE_DIR to a writable directory"
    )
