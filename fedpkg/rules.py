"""Rules of computation: a session continues with the rules of its start, or is refused with the reason.

If a new version of fedpkg computes another result from the same configuration and the same replies, the number of the
rules is incremented. A session records its number (`SessionRow.rules`). Code that still supports former rules uses that
number; strategies that no longer do are listed here. `fedpkg.session.former_rules` refuses sessions for reasons
other than the strategy, such as rules 3: the mean of more than 256 cohort positions adds them in another order. Since
rules 4, variables of a run override those that fedpkg sets, and metrics that are numbers as text are numbers. Rules 5
draw the partitions `iid` and `dirichlet` from bits (`fedpkg.partitions.draws`). The data of a session are split once,
when it begins, so a resumed session reads its files and draws nothing. Since rules 6, an import of an installed module
in a task or a coordinator leaves the global generators as they are.
"""

from __future__ import annotations

CURRENT = 6
UNDRAWN = 6  # the first rules under which imports leave the generators as they are

# Number of the rules → strategies that changed with it and no longer support former rules, with the reason.
_SECOND_POINT = "its second point no longer has buffers, which reset the model's running statistics in each round"
_STRATEGIES: dict[int, dict[str, str]] = {
    2: {
        "accsvrs": _SECOND_POINT,
        "accvrcs": _SECOND_POINT,
        "fedexp": "the model of a round is now the mean of the last two iterates",
    }
}


def refusal(rules: int, strategy: str) -> str | None:
    """The reason why this version cannot continue a session of these rules; None if it can."""
    if rules > CURRENT:
        return (
            f"it was started by a newer version of fedpkg (rules {rules}; this version supports rules up to {CURRENT})"
        )
    for number in range(rules + 1, CURRENT + 1):
        if reason := _STRATEGIES.get(number, {}).get(strategy):
            return f"it was started by an older version of fedpkg, and strategy {strategy} has changed since: {reason}"
    return None


def variables_of(rules: int) -> dict[str, str]:
    """Environment variables by which tasks and coordinators keep the rules of their session."""
    return {"FEDPKG_IMPORTS_DRAW": "1"} if rules < UNDRAWN else {}
