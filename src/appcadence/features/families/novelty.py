"""What was known before the window began: first contact, prevalence and habits, always as of the window.

A window's own contact never counts, so contacts count the same for every device. Only what is in the vetted
past of `History` is known: a channel that joined later stays new, however long it lasts. Contacts of other
devices count whether vetted or not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from appcadence._types import FeatureMatrix, Mask
from appcadence.features._kernels import bisect_left, kernel
from appcadence.features._parallel import fill
from appcadence.features.columns import code_of
from appcadence.features.context import Fleetwide
from appcadence.features.domains import registrable_domain
from appcadence.features.feature import Family, Feature
from appcadence.features.history import Contacts, Past
from appcadence.features.windows import APP_LEVEL, Windows

FEATURES = (
    Feature(
        "channel_is_new",
        "1 if the device's app never contacted the destination before the window, or it is not vetted",
        "new for this app on this device since the baseline",
    ),
    Feature(
        "channel_age_days",
        "days from the channel's first contact to the window; 0 if new",
        "age of the channel",
        unit="days",
        direction=-1,
    ),
    Feature(
        "destination_is_new_for_device",
        "1 if no vetted channel of the device led there before the window",
        "new for this device since the baseline",
    ),
    Feature(
        "steady_days_ratio",
        "share of the days since the channel's first contact, at most 14 before the window, with contact, "
        "vetted or not; 0 below two such days: a beacon slower than a window shows only here",
        "share of the days before with contact",
    ),
    Feature(
        "twin_distance_octaves",
        "distance to the device's nearest vetted channel on the same port: the largest |log2 ratio| of mean "
        "bytes sent, bytes received, flow duration and gap between beats; a moved or renamed service has a "
        "near twin",
        "unlikeness to every earlier channel",
        unit="octaves",
    ),
    Feature(
        "destination_is_new_for_fleet",
        "1 if no vetted channel of the device led there, and no other device contacted it, before the window",
        "new for the whole fleet",
    ),
    Feature(
        "destination_prevalence_ratio",
        "share of the fleet's other devices that contacted it before the window's end",
        "share of other devices that know the destination",
        direction=-1,
    ),
    Feature(
        "destination_other_apps",
        "other known apps of the fleet that contacted it before the window's end",
        "other apps that know the destination",
        unit="count",
        direction=-1,
    ),
    Feature(
        "app_domain_share",
        "share of the app's other vetted channels in the fleet, seen before the window, that lie in the "
        "destination's registrable domain",
        "share of the app's channels in this domain",
        direction=-1,
    ),
)
_NEW_FOR_DEVICE = 2
FLEET = slice(5, 9)
"""Features that need the whole fleet."""


def compute(windows: Windows, wanted: Mask) -> FeatureMatrix:
    """(n, 9); NaN without history and for app-level windows; all but steady days also if the device has no
    vetted past.

    These values need one device only. The last four columns need the whole fleet and are filled by `Fleet`.
    """
    out = np.full((windows.n, len(FEATURES)), np.nan, np.float32)
    if windows.compared is not None:
        out[: windows.n_channels, : FLEET.start] = windows.compared.values
        out[windows.nameless, _NEW_FOR_DEVICE] = np.nan
    return out


class Fleet:
    """First contacts across the fleet: the history and all windows of an extraction."""

    def __init__(self, past: Past, parts: Sequence[Contacts | None], first_us: int) -> None:
        """`first_us`: when the first flow of the extraction started."""
        channels = past.all_contacts([part for part in parts if part is not None])
        domains: dict[str, int] = {}
        codes = [domains.setdefault(registrable_domain(d), len(domains)) for d in past.dests]
        domain = np.array(codes, np.int64)
        self.first_us = first_us
        self.nameless = code_of(APP_LEVEL, past.dests)
        """Code that stands for no destination; -1 = there is none."""
        self.n_domains = max(len(domains), 1)
        self.domain = domain
        named = np.flatnonzero(channels.app >= 0)
        app, first = channels.app[named].astype(np.int64), channels.first_us[named]
        vetted = np.flatnonzero((channels.app >= 0) & channels.vetted)
        home, met = channels.app[vetted].astype(np.int64), channels.first_us[vetted]
        device_dest = channels.dest.astype(np.int64)
        everybody = np.zeros(len(channels.device), np.int64)
        self.devices = _Firsts(everybody, channels.device, channels.first_us)
        self.of_dest = _Firsts(device_dest, channels.device, channels.first_us)
        self.apps_of_dest = _Firsts(device_dest[named], app, first)
        self.of_app = _Firsts(home, vetted, met)
        self.of_domain = _Firsts(home * self.n_domains + domain[channels.dest[vetted]], vetted, met)

    @classmethod
    def of(cls, context: Fleetwide, parts: Sequence[Contacts | None]) -> Fleet | None:
        """None without a history."""
        return None if context.past is None else cls(context.past, parts, context.first_us)

    def fill(
        self,
        values: FeatureMatrix,
        rows: np.ndarray,
        device: np.ndarray,
        app: np.ndarray,
        dest: np.ndarray,
        start_us: np.ndarray,
        width_us: int,
    ) -> None:
        """Fill the last four columns of some rows; this family's columns are the last of `values`.

        The rows are channel windows of that width; `device`, `app`, `dest` and `start_us` (n_rows,) are
        theirs.
        """
        first = values.shape[1] - len(FEATURES)
        home = app.astype(np.int64) * self.n_domains + self.domain[dest] if len(dest) else dest
        values[rows, first + FLEET.start :] = fill(
            _kernel,
            np.arange(len(app) + 1),
            4,
            app,
            np.maximum(start_us, self.first_us),
            start_us + width_us,
            np.ascontiguousarray(values[rows, first]),
            np.ascontiguousarray(values[rows, first + _NEW_FOR_DEVICE]),
            device,
            self.devices.first_us,
            self.of_dest.of(dest.astype(np.int64)),
            self.apps_of_dest.of(dest.astype(np.int64)),
            self.of_app.of(app.astype(np.int64)),
            self.of_domain.of(home),
        )


class _Firsts:
    """Sorted times at which the members of each group were first seen."""

    def __init__(self, group: np.ndarray, member: np.ndarray, first_us: np.ndarray) -> None:
        order = np.lexsort((first_us, member, group))
        group, member, first_us = group[order], member[order], first_us[order]
        earliest = np.ones(len(group), np.bool_)
        earliest[1:] = (group[1:] != group[:-1]) | (member[1:] != member[:-1])
        group, member, first_us = group[earliest], member[earliest], first_us[earliest]
        order = np.lexsort((first_us, group))
        self.group, self.member, self.first_us = group[order], member[order], first_us[order]

    def of(self, group: np.ndarray) -> tuple[np.ndarray, ...]:
        """First and last + 1 of each group, all times and members; windows of one channel follow each other,
        and share a search."""
        heads = np.flatnonzero(np.append(True, group[1:] != group[:-1])[: len(group)])
        count = np.diff(np.append(heads, len(group)))
        lo = np.searchsorted(self.group, group[heads])
        hi = np.searchsorted(self.group, group[heads], side="right")
        return np.repeat(lo, count), np.repeat(hi, count), self.first_us, self.member


@kernel
def _kernel(  # type: ignore[no-untyped-def]
    lo,
    hi,
    out,
    _offsets,
    app,
    begin,
    end,
    is_new,
    new_for_device,
    device,
    devices,
    of_dest,
    apps_of_dest,
    of_app,
    of_domain,
):
    dest_lo, dest_hi, dest_first, dest_device = of_dest
    apps_lo, apps_hi, apps_first, _ = apps_of_dest
    app_lo, app_hi, app_first, _ = of_app
    home_lo, home_hi, home_first, _ = of_domain
    for g in range(lo, hi):
        if not np.isnan(is_new[g]):
            met = bisect_left(dest_first, dest_lo[g], dest_hi[g], begin[g]) - dest_lo[g]
            # What the device itself met since its past was vetted makes nothing known.
            alone = met == 1 and new_for_device[g] == 1.0 and dest_device[dest_lo[g]] == device[g]
            out[g, 0] = met == 0 or alone
        fleet = bisect_left(devices, np.int64(0), len(devices), end[g]) - 1
        if fleet > 0:
            out[g, 1] = (bisect_left(dest_first, dest_lo[g], dest_hi[g], end[g]) - dest_lo[g] - 1) / fleet
        if app[g] < 0:
            continue
        out[g, 2] = bisect_left(apps_first, apps_lo[g], apps_hi[g], end[g]) - apps_lo[g] - 1
        own = is_new[g] == 0.0
        known = bisect_left(app_first, app_lo[g], app_hi[g], begin[g]) - app_lo[g] - own
        home = bisect_left(home_first, home_lo[g], home_hi[g], begin[g]) - home_lo[g] - own
        out[g, 3] = home / known if known > 0 else np.nan


FAMILY = Family("novelty", ("flows", "history"), FEATURES, compute, relative=False)
