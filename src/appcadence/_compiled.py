"""Functions compiled by Numba; their machine code is kept for later processes where that can be."""

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
    """No search for garbage while Numba compiles: there is little, and looking takes a seventh of the time.

    Numba tells of one compilation at a time, and of those inside it.
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
    """Numba's cache, without which a function is compiled: one that is damaged or full ends no run."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        check_address_space()
        found = None
        try:
            found = super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        except Exception:  # Numba unpickles what it kept: a file that is cut off may raise anything
            with contextlib.suppress(OSError):
                self.flush()  # type: ignore[no-untyped-call]
        if found is None:
            _tell_once()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(Exception):
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]


def compiled(function: Callable[..., Any], cache: type[Cache] = Cache, **options: Any) -> Any:
    """Compile a function for many threads; where no cache can be written, each process does so anew.

    It may use NumPy, `math` and what its own file defines: an edit of anything else would not be noticed.
    `options` are Numba's.
    """
    made: Any = numba.njit(**{"nogil": True, "no_cfunc_wrapper": True} | options)(function)
    try:
        made._cache = cache(function)
    except RuntimeError:  # Numba found no place for it
        _warn_once()
    return made


@cache
def _tell_once() -> None:
    _log.info("compiling for this machine, which later runs need not")


@cache
def _warn_once() -> None:
    _log.warning(
        "appcadence: warning: compiled code cannot be kept, and every start compiles it anew: neither the "
        "package nor a cache directory of the user can be written to; set NUMBA_CACHE_DIR to one that can be"
    )
