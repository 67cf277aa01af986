"""The gate between challenger and champion: what on a frozen evaluation set speaks against a promotion."""

from __future__ import annotations

from appcadence.training.evaluate import Quality, in_words

BUDGETS = (0.1, 1.0)
"""False alerts per device-day at which recall must not be lost."""
TOLERANCE = 0.02
"""Recall that may be lost: two implant-days in a hundred."""
PROMISE = 1.0
MAX_REALISED = 1.25
"""Realised false alerts per device-day, at a promise of one, that still keep the budget."""


def judge(champion: Quality | None, challenger: Quality) -> tuple[str, ...]:
    """Reasons not to promote the challenger, a sentence each; empty when it passes.

    Both must be measured on the same labelled telemetry, which neither was trained on. The challenger may
    lose no more than `TOLERANCE` of recall at either of `BUDGETS`, and at a promise of one false alert per
    device-day realise no more than `MAX_REALISED`, or than the champion where that is more. Without a
    champion only the budget is judged. A figure that is not a number speaks against the promotion.

    A fixed tolerance is no test of significance: on fewer than some hundreds of implant-days chance alone
    moves recall by more, so a close refusal is a reason to look, and a larger evaluation set the cure.
    """
    reasons = []
    kept = {} if champion is None else champion.recall
    for budget in BUDGETS if kept else ():
        old, new = kept[budget], challenger.recall[budget]
        if not new >= old - TOLERANCE - 1e-9:
            reasons.append(
                f"recall at {budget:g} false alerts per device-day would be {in_words(new, '.3f')}, the "
                f"champion has {in_words(old, '.3f')}; at most {TOLERANCE:g} may be lost (of "
                f"{challenger.implant_days} implant-days)"
            )
    realised = challenger.realised[PROMISE]
    before = None if champion is None else champion.realised[PROMISE]
    if not realised <= max(MAX_REALISED, before or 0.0):
        than = "" if before is None else f", the champion {in_words(before)}"
        reasons.append(
            f"it breaks the budget: at a promise of {PROMISE:g} false alert per device-day it raises "
            f"{in_words(realised)}{than}; at most {MAX_REALISED:g} is allowed"
        )
    return tuple(reasons)
