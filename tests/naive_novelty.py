"""Slow, obvious twin of novelty: every window looks back over all earlier contacts."""

from __future__ import annotations

import math
from itertools import pairwise

from naive_context import DAY, NAN, TICK, windows_of

from appcadence.features.domains import registrable_domain


class Fleet:
    """Everything that novelty may look back on: all channel windows, each judged by those before it."""

    def __init__(self, flows, length=DAY, vetted_until=math.inf):
        self.windows = [w for w in windows_of(flows, length) if w.is_channel]
        self.contacts = [(w.device, w.app, w.dest, w.begin + p.start) for w in self.windows for p in w.pieces]
        self.vetted_until = vetted_until
        self.vetted = {c[:3] for c in self.contacts if c[3] < vetted_until}

    def novelty(self, window):
        """The nine features; what came before the device was first seen in the window is its past.

        The fleet's past ends where the window begins, or with the first flow of all. Only channels that were
        met before `vetted_until` make anything known to their own device.
        """
        now = min(
            w.begin + p.start
            for w in self.windows
            for p in w.pieces
            if (w.device, w.begin) == (window.device, window.begin)
        )
        end = window.begin + window.length
        device, app, dest = window.device, window.app, window.dest
        met = [c for c in self.contacts if c[3] < now and c[0] == device]
        mine = [c for c in met if c[:3] in self.vetted]
        past = [c for c in self.contacts if c[3] < max(window.begin, min(c[3] for c in self.contacts))]
        out = {}
        today, days = window.begin // DAY, {c[3] // DAY for c in met if c[1:3] == (app, dest)}
        span = int(min(today - min(days), 14)) if days else 0
        with_contact = sum(today - back in days for back in range(1, span + 1))
        out["steady_days_ratio"] = with_contact / span if with_contact >= 2 else 0.0
        if mine:
            own = [c[3] for c in mine if c[1:3] == (app, dest)]
            out["channel_is_new"] = float(not own)
            out["channel_age_days"] = (now - min(own)) / DAY if own else 0.0
            if dest != "*":
                out["destination_is_new_for_device"] = float(all(c[2] != dest for c in mine))
                out["destination_is_new_for_fleet"] = float(
                    all(c[2] != dest for c in past if c[0] != device or c[:3] in self.vetted)
                )
            out["twin_distance_octaves"] = self.twin(window, now)
        if dest == "*":
            return out
        met = [c for c in self.contacts if c[3] < end]
        others = {c[0] for c in met} - {device}
        if others:
            knowing = {c[0] for c in met if c[2] == dest} - {device}
            out["destination_prevalence_ratio"] = len(knowing) / len(others)
        if app is not None:
            out["destination_other_apps"] = len({c[1] for c in met if c[2] == dest} - {None, app})
            home = {(c[0], c[2]) for c in past if c[1] == app and c[:3] in self.vetted} - {(device, dest)}
            if home:
                domain = registrable_domain(dest)
                out["app_domain_share"] = sum(registrable_domain(d) == domain for _, d in home) / len(home)
        return out

    def twin(self, window, now):
        latest = {}
        for w in sorted(self.windows, key=lambda w: w.begin):
            if w.device == window.device and w.begin < min(window.begin, self.vetted_until):
                latest[w.app, w.dest] = w
        mine, best = habits(window), NAN
        for other in latest.values():
            theirs = habits(other)
            apart = [abs(a - b) for a, b in zip(mine, theirs, strict=True) if not math.isnan(a - b)]
            comparable = not math.isnan(mine[0] - theirs[0]) and len(apart) >= 2
            if comparable and top_port(other) == top_port(window):
                best = max(apart) if math.isnan(best) else min(best, max(apart))
        return best


def top_port(window):
    return max(-1 if p.flow.port is None else p.flow.port for p in window.pieces)


def habits(window):
    """log2(1 + mean) of bytes sent and received, duration, and gap between beats; nan = unknown."""
    beats, previous = [], -math.inf
    for piece in window.pieces:
        if piece.fresh:
            if piece.start - previous >= 2 - TICK:
                beats.append(piece.start)
            previous = piece.start
    known = [
        [p.sent for p in window.pieces if p.sent is not None],
        [p.received for p in window.pieces if p.received is not None],
        [p.end - p.start for p in window.pieces if p.end is not None],
        [b - a for a, b in pairwise(beats)],
    ]
    return [math.log2(1 + math.fsum(values) / len(values)) if values else NAN for values in known]
