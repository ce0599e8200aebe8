"""Rules of computation: a session goes on by the rules that it began with, or is refused with the reason.

Where a new version of fedpkg computes another result from the same configuration and the same replies, the number of
the rules grows by one. A session records its number (`SessionRow.rules`). Code that still has the former way looks at
that number; strategies that no longer have it are listed here. `fedpkg.session.former_rules` refuses what depends on
more than the strategy, such as rules 3: the mean of more than 256 cohort positions adds them in another order. Since
rules 4, variables of a run win over those that fedpkg sets, and metrics that are numbers in text are numbers.
"""

from __future__ import annotations

CURRENT = 4

# Number of the rules → strategies that changed with it and no longer have their former way, with the reason.
_SECOND_POINT = "its second point no longer has buffers, which reset the model's running statistics in each round"
_STRATEGIES: dict[int, dict[str, str]] = {
    2: {
        "accsvrs": _SECOND_POINT,
        "accvrcs": _SECOND_POINT,
        "fedexp": "the model of a round is now the mean of the last two iterates",
    }
}


def refusal(rules: int, strategy: str) -> str | None:
    """Why this version cannot go on with a session of these rules; None if it can."""
    if rules > CURRENT:
        return f"it was begun by a newer version of fedpkg (rules {rules}; this version knows rules up to {CURRENT})"
    for number in range(rules + 1, CURRENT + 1):
        if reason := _STRATEGIES.get(number, {}).get(strategy):
            return f"it was begun by an older version of fedpkg, and strategy {strategy} has changed since: {reason}"
    return None
