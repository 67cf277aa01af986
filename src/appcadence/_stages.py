"""The stages of a long job, as its log tells them."""

from __future__ import annotations

import logging

from appcadence._types import Progress


def logged_stages(log: logging.Logger, progress: Progress) -> Progress:
    """`progress`, and a line in the log (INFO) whenever another stage begins than the last."""
    last = ""

    def tell(what: str, share: float) -> None:
        nonlocal last
        if what != last:
            last = what
            log.info("%s", what)
        progress(what, share)

    return tell
