"""Who goes first where room is scarce, and how much of it is whose: pure.

Higher priorities go first, then those that have waited longest. Workloads of the highest priority share the room equally, but for a
tenth, which those of lower ones share; what one does not use goes round again. What has waited for a day, while nothing
of its queue was sent, goes as the first do: nobody starves.
"""

from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

LONG_SECONDS = 86400
"""After so long what waits counts as of the highest priority there is."""
TENTH = 10
"""Of so many batches one is of a lower priority, where there is only room for one at a time."""
_OF_THE_FIRST = 1 - 1 / TENTH


class Claim(NamedTuple):
    """What wants room: a queue of a workload, of this priority, of which so many seconds nothing went."""

    workload: str
    queue: int
    priority: int
    waited: int


def order(claim: Claim, *, lower: bool) -> tuple[bool, int, int]:
    """Return what to sort claims by, those that go first first.

    Args:
        lower: the last batches were all of the highest priority, and so the lower ones go first this time.
    """
    long = claim.waited >= LONG_SECONDS
    return (not long, 0 if long else claim.priority if lower else -claim.priority, -claim.waited)


def shares(claims: Collection[Claim]) -> dict[int, float]:
    """Return of one round's room, by queue, which part is whose: all together 1."""
    if not claims:
        return {}
    highest = max(claim.priority for claim in claims)
    first = {claim.workload for claim in claims if claim.priority == highest or claim.waited >= LONG_SECONDS}
    rest = {claim.workload for claim in claims} - first
    of_first = _OF_THE_FIRST if rest else 1.0
    queues = Counter(claim.workload for claim in claims)
    return {
        claim.queue: (of_first / len(first) if claim.workload in first else (1 - of_first) / len(rest))
        / queues[claim.workload]
        for claim in claims
    }
