"""Flows grouped into windows: one channel (or one app, dest `*`) over one aligned interval.

All arrays are ordered by window and, inside it, by time (CSR: window i owns offsets[i]:offsets[i+1]).
Times are seconds since the window's start, so that shifting a whole telemetry by days changes no bit.
A window holds nothing from outside of it: cutting the telemetry at a border changes no window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from appcadence._types import DAY_US, Mask
from appcadence.errors import AppcadenceError
from appcadence.features import pushes
from appcadence.features._kernels import HALF_MICROSECOND, kernel
from appcadence.features.columns import code_of
from appcadence.features.context import Context
from appcadence.features.grouping import scatter
from appcadence.features.history import Comparison, Contacts, History
from appcadence.telemetry.arrays import AsOf

SESSION_GAP_SECONDS = 30.0
BEAT_GAP_SECONDS = 2.0
MAX_DURATION_SECONDS = 30 * 86400.0
"""Longer durations are clipped: no capture holds them, and each window they cross costs a row."""
APP_LEVEL = "*"
"""The destination of a window over all of an app's, and of flows of which only the app is known."""


def with_app_level(dests: pd.Index[Any], dest: np.ndarray) -> tuple[pd.Index[Any], np.ndarray]:
    """Names of destinations, `*` among them, and codes into them for codes of which -1 is `*`."""
    names = dests if APP_LEVEL in dests else pd.Index([*dests, APP_LEVEL], dtype="object")
    return names, np.where(dest < 0, code_of(APP_LEVEL, names), dest)


@dataclass(frozen=True)
class Windows:
    """Windows with their flows, sessions and beats. `n` windows, channel windows first, then app windows.

    Flows of an app without a destination, as a phone's own log has them, are one channel named `*`, unless
    the app has flows with one in the same window: those then show the same traffic.
    """

    seconds: float
    device: np.ndarray
    """(n,) codes into `devices`; likewise `app` (-1 = unknown) into `apps` and `dest` into `dests`; -1 = all
    destinations together, while `*` among `dests` are flows whose destination the source does not tell."""
    app: np.ndarray
    dest: np.ndarray
    start_us: np.ndarray
    """(n,) start of each window, microseconds since the epoch."""
    devices: pd.Index[Any]
    apps: pd.Index[Any]
    dests: pd.Index[Any]
    local: np.ndarray
    """(n_dests,) whether each destination is on the device's own network."""
    attribution: np.ndarray
    """(n,) how well the app is known at best, codes into the declared values of `app_attribution`."""
    port: np.ndarray
    """(n,) highest destination port; -1 = unknown."""
    device_interval: np.ndarray
    """(n,) code of the window's device and interval, in that order."""
    observed_seconds: np.ndarray
    offsets: np.ndarray
    flow_start: np.ndarray
    flow_end: np.ndarray
    """NaN where the duration is unknown."""
    bytes_out: np.ndarray
    bytes_in: np.ndarray
    fresh: np.ndarray
    """The flow started in this window, and is no continuation over the border."""
    flags: np.ndarray
    """Bits of `appcadence.features.flows`."""
    context: Context = field(repr=False)
    compare: Callable[[Windows], Comparison] | None = field(default=None, repr=False)
    """Compares them with the past; None without a history."""

    @property
    def n(self) -> int:
        return len(self.start_us)

    @cached_property
    def nameless(self) -> np.ndarray:
        """(n,) whether each is a window of flows whose destination is not known."""
        found = code_of(APP_LEVEL, self.dests)
        return np.asarray((self.dest == found) & (found >= 0))

    @property
    def n_channels(self) -> int:
        return int(np.count_nonzero(self.dest >= 0))

    @cached_property
    def sessions(self) -> Sessions:
        return Sessions(*_sessions(self.offsets, self.flow_start, self.flow_end, self.fresh))

    @cached_property
    def starts(self) -> tuple[np.ndarray, np.ndarray]:
        """(offsets, times) of the starts of sessions; one that goes on over the border has none here."""
        begun = self.sessions.fresh
        return np.concatenate([[0], np.cumsum(begun)])[self.sessions.offsets], self.sessions.start[begun]

    @cached_property
    def beats(self) -> tuple[np.ndarray, np.ndarray]:
        """(offsets, times) of flow starts, those less than 2 s apart merged."""
        offsets, times = _beats(self.offsets, self.flow_start, self.fresh)
        return offsets, times

    @cached_property
    def activity_logged(self) -> Mask:
        """(n,) whether the activity log of the device has a record in the window, or in the day up to its end
        where the window is shorter: a log that fell silent does not mean that nobody was there."""
        logged, end = self.context.logged, self.start_us + int(self.seconds * 1e6)
        last = AsOf(logged.key, logged.first).find(self.device, end - 1)
        until = np.append(logged.last, np.iinfo(np.int64).min)[last]
        return np.asarray(until > end - max(int(self.seconds * 1e6), DAY_US))

    @property
    def use(self) -> tuple[np.ndarray, ...]:
        """As `Context.use.of` the devices, without intervals where the log is silent: for a kernel."""
        first, end, *columns = self.context.use.of(self.device)
        return first, np.where(self.activity_logged, end, first), *columns

    @cached_property
    def push_counts(self) -> np.ndarray:
        """(n, 5) `pushes.COUNTS`."""
        return pushes.count(self)

    @cached_property
    def compared(self) -> Comparison | None:
        """These windows compared with the past; None without a history."""
        return None if self.compare is None else self.compare(self)

    @cached_property
    def history(self) -> History:
        """The history with the contacts of these windows added; neither order nor repetition matters.

        Raises:
            ValueError: there was none.
        """
        if self.context.past is None or self.compared is None:
            raise ValueError("no history was given")
        return self.context.past.with_devices([self.compared.channels]).history()

    @property
    def contacts(self) -> Contacts | None:
        """Who met what first, these windows included; None without a history."""
        return None if self.compared is None else self.compared.channels.contacts()

    @cached_property
    def by_device_interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Windows in order of device and interval, and CSR offsets of those."""
        order, offsets = scatter(self.device_interval, int(self.device_interval.max(initial=-1)) + 1)
        return order, offsets


class Sessions(NamedTuple):
    """Sessions of all windows, CSR like the flows."""

    offsets: np.ndarray
    start: np.ndarray
    end: np.ndarray
    fresh: np.ndarray
    """The session began in this window; a continued one has no start to judge."""


def window_seconds(text: str) -> int:
    """Length of a window such as `24h`: whole hours that divide a day, or whole days.

    Raises:
        AppcadenceError: not of that form.
    """
    unit = {"h": 3600, "d": 86400}.get(text[-1:], 0)
    number = text[:-1]
    seconds = int(number) * unit if number.isascii() and number.isdigit() else 0
    if seconds <= 0 or (86400 % seconds and seconds % 86400):
        raise AppcadenceError(
            f"window must be hours that divide a day or whole days, such as 1h, 6h, 24h or 7d; got {text!r}"
        )
    return seconds


@kernel
def _sessions(offsets, start, end, fresh):  # type: ignore[no-untyped-def]
    n = len(offsets) - 1
    session_offsets = np.zeros(n + 1, np.int64)
    first = np.empty(len(start))
    last = np.empty(len(start))
    opened = np.empty(len(start), np.bool_)
    k = 0
    for g in range(n):
        reach = -np.inf
        for i in range(offsets[g], offsets[g + 1]):
            stop = start[i] if np.isnan(end[i]) else end[i]
            if i == offsets[g] or start[i] > reach + SESSION_GAP_SECONDS + HALF_MICROSECOND:
                first[k], last[k], opened[k] = start[i], stop, fresh[i]
                k += 1
                reach = stop
            elif stop > reach:
                reach = stop
                last[k - 1] = stop
        session_offsets[g + 1] = k
    return session_offsets, first[:k].copy(), last[:k].copy(), opened[:k].copy()


@kernel
def _beats(offsets, start, fresh):  # type: ignore[no-untyped-def]
    n = len(offsets) - 1
    beat_offsets = np.zeros(n + 1, np.int64)
    beat = np.empty(len(start))
    k = 0
    for g in range(n):
        previous = -np.inf
        for i in range(offsets[g], offsets[g + 1]):
            if not fresh[i]:
                continue
            if start[i] - previous >= BEAT_GAP_SECONDS - HALF_MICROSECOND:
                beat[k] = start[i]
                k += 1
            previous = start[i]
        beat_offsets[g + 1] = k
    return beat_offsets, beat[:k].copy()
