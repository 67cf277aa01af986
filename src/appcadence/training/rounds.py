"""Rounds of injection: implants are put into the same telemetry until there is enough to learn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Progress
from appcadence.features.columns import micros
from appcadence.features.history import History
from appcadence.models.baseline import AppBaseline
from appcadence.models.detector import hide
from appcadence.training.fit import Sample
from appcadence.training.injection import LabelledWindows, Tables, labelled

_IMPLANTS_PER_DEVICE_DAY = 1.5
_MIN_IMPLANTS = 40
"""The number wanted in each round."""
_BENIGN_WANTED = 4000
_BENIGN_ENOUGH = 100_000
"""With this many benign windows one round is enough; training learns from a sample of this size."""
_MAX_ROUNDS = 40


@dataclass(frozen=True)
class Injector:
    """Telemetry into which implants are injected, and what the windows after a cut are compared with."""

    tables: Tables
    """With spans aligned."""
    cuts: list[int]
    """Where past and future part, microseconds since the epoch; round n takes the n-th, over and over."""
    window: str
    kinds: tuple[str, ...]
    """The implants to inject."""
    verdicts: pa.Table | None
    known: History
    """What is known before the telemetry begins."""
    excluded_families: tuple[str, ...]
    baselines: Mapping[int, AppBaseline]
    """By cut."""
    seed: int

    def inject(
        self, number: int, draw: int, rate: float, *, thin: bool = False, **how: Any
    ) -> tuple[Sample, pd.DataFrame]:
        """The windows of a round with a number of its own, and its implants, at a rate for each device-day.

        Args:
            draw: seed of the implants.
            thin: leave out benign windows beyond `_BENIGN_ENOUGH`.
            how: further arguments of `labelled`.
        """
        cut = self.cuts[number % len(self.cuts)]
        found, specs = labelled(
            self.tables,
            cut,
            self.window,
            draw,
            rate,
            kinds=self.kinds,
            verdicts=self.verdicts,
            known=self.known,
            **how,
        )
        found = _thinned(found, self.seed) if thin else found
        frame = hide(found.frame, self.excluded_families)
        return Sample.of(frame, found.implant, self.baselines[cut], number), specs.assign(round=number)

    def rate(self, number: int, devices: list[str] | None, small: bool) -> float:
        """Implants per device-day: a few on a fleet, a handful a round on a small baseline."""
        if not small:
            return _IMPLANTS_PER_DEVICE_DAY
        flows = self.tables["flows"]
        last = int(micros(flows["start"]).max())
        count = len(devices) if devices is not None else len(pc.unique(flows["device_id"]))
        days = max((last - self.cuts[number % len(self.cuts)]) / 86_400e6, 1 / 24) * count
        return max(_MIN_IMPLANTS / days, _IMPLANTS_PER_DEVICE_DAY)


class Rounds(NamedTuple):
    """What rounds of injection gave."""

    learn: list[Sample]
    """Per round, the windows to learn from."""
    clean: list[Sample]
    """Per cut, the benign windows of held-out devices."""
    check: list[Sample]
    """Per round, the windows of held-out devices, with implants."""
    injected: list[pd.DataFrame]
    """The implants of each injection."""


def run_rounds(
    injector: Injector, learners: list[str] | None, held_out: list[str] | None, progress: Progress
) -> Rounds:
    """Inject implants, round by round, until there are enough benign windows to learn from.

    Args:
        learners: the devices to learn from; None = all.
        held_out: the devices to check with; None = none.
    """
    done = Rounds([], [], [], [])
    benign, small = 0, False
    for number in range(_MAX_ROUNDS):
        draw, rate = injector.seed * 1000 + number, injector.rate(number, learners, small)
        varied = small and number > 0
        rows, specs = injector.inject(
            number, draw, rate, thin=True, devices=learners, varied=varied, changed=True
        )
        done.learn.append(rows)
        done.injected.append(specs)
        if held_out is not None:
            if number < len(injector.cuts):
                rows, _ = injector.inject(number, 0, 0.0, devices=held_out)
                done.clean.append(rows.take(~rows.malicious))
            rows, specs = injector.inject(number, draw + 500, rate, devices=held_out)
            done.check.append(rows)
            done.injected.append(specs)
        benign += int((~done.learn[-1].malicious).sum())
        if number == 0:
            small = benign < _BENIGN_WANTED / 2
        progress("injecting implants", min(max(benign / _BENIGN_WANTED, (number + 1) / _MAX_ROUNDS), 1.0))
        if benign >= (_BENIGN_WANTED if number else _BENIGN_ENOUGH):
            break
    return done


def _thinned(rows: LabelledWindows, seed: int) -> LabelledWindows:
    """All implants, all windows with a verdict, and at most `_BENIGN_ENOUGH` of the other benign windows."""
    plain = rows.frame["verdict"].isna().to_numpy()
    spare = np.flatnonzero(~rows.malicious & plain)
    if len(spare) <= _BENIGN_ENOUGH:
        return rows
    keep = np.ones(len(rows.frame), np.bool_)
    keep[np.random.default_rng(seed).permutation(spare)[_BENIGN_ENOUGH:]] = False
    return rows.take(keep)
