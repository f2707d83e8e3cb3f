"""What a provider's queue takes at once: pure decisions from what it refused and what it took.

A cap that stands in the words of a refusal is taken at its word, and what is used of it shrinks where it is refused again: the
estimates are too low, or others fill the queue. Without words, half of what was under way is tried. What is taken lets the
share grow, slowly where it was refused before. Each day without a refusal twice as much is tried. After each refusal the queue
rests, for all who share it.
"""

from typing import NamedTuple

from nura_cli.pipeline.backoff import ROUTE_BACKOFF, ROUTE_LONGEST, backoff
from nura_cli.state.quotas import Quota, Unit

_DAY = 86400
"""Seconds after the last refusal when twice as much is tried."""
_FORGOTTEN_AFTER = 10
"""Days after which nothing of it holds any more."""
_OF_SAID = 0.95
"""Of a cap in words, what is used at most: estimates are some per cent off."""
_SMALLEST = 0.02
_GROWS, _CREEPS = 0.05, 0.01
_MORE, _MOST_SHARE = 1.25, 1000.0
_WORTH = 4
"""A batch is worth sending where there is room for a quarter of the cap."""


class Queue(NamedTuple):
    """Whose queue it is, for which model ("" where all count together), and what is counted."""

    account: str
    model: str
    unit: Unit


def days(known: Quota, now: int) -> int:
    """Return how many whole days a queue has not refused anything."""
    return (now - known.refused_at) // _DAY


def fresh(known: Quota | None, now: int) -> Quota | None:
    """Return what still holds of what was learned of a queue: nothing long after its last refusal, or of one in the future."""
    return known if known is not None and 0 <= days(known, now) < _FORGOTTEN_AFTER else None


def after_refusal(
    known: Quota | None,
    queue: Queue,
    said: int | None,
    under_way: int,
    batch: int,
    newest: int,
    now: int,
    jitter: float,
) -> Quota:
    """Return what is known of a queue after it refused a batch.

    Args:
        said: the cap in the provider's words, or None.
        under_way: by our estimates, what was under way there, with the refused batch; in units.
        batch, newest: its id, and that of the newest batch there is: of those that were under way together one counts.
        jitter: from 0 to 1, for the pause.
    """
    before = fresh(known, now)
    if before is not None and batch <= before.refused_after:
        return before if said in (None, before.cap) else _refused(before, queue, said, under_way, newest, now)
    strikes = (0 if before is None else before.strikes) + 1
    pause = backoff(ROUTE_BACKOFF, strikes, ROUTE_LONGEST, jitter)
    found = _refused(before, queue, said, under_way, newest, now)
    return found._replace(refused_at=now, refused_after=newest, strikes=strikes, paused_until=now + pause)


def _refused(before: Quota | None, queue: Queue, said: int | None, under_way: int, newest: int, now: int) -> Quota:
    """Return what is known of a queue's cap and of our share after a refusal."""
    if said is not None and (before is None or before.cap != said):
        return Quota(*queue, max(said, 1), _OF_SAID, 1.0, said=True, refused_at=now, refused_after=newest)
    if before is None:
        return Quota(*queue, max(under_way, 1), 0.5, 1.0, said=False, refused_at=now, refused_after=newest)
    if days(before, now):  # more was tried, and it is as it was
        return before
    used = min(before.share, under_way / before.cap) if under_way else before.share
    if before.said and used * _WORTH < before.share:  # others fill it: that says nothing of our share
        return before
    share = max(used * (0.75 if before.said else 0.5), _SMALLEST)
    return before._replace(share=share, ceiling=max(used, _SMALLEST))


def after_success(known: Quota) -> Quota:
    """Return what is known of a queue after a batch was taken and has ended."""
    step = _GROWS if known.share < known.ceiling else _CREEPS
    share = min(known.share + step, _OF_SAID if known.said else 1.0)
    if not known.said and known.share >= 1:  # the cap is a guess, and was too low
        share = min(known.share * _MORE, _MOST_SHARE)
    return known._replace(share=share, paused_until=0, strikes=0)


class Allowance(NamedTuple):
    """How much of a queue may be used. In units.

    Attributes:
        cap: what it takes at all; a request that is larger never goes. None where that was not said.
        most: of it, what is used at most now.
        used: what is under way.
        taken: of that, what others have taken in this round, each in its turn.
    """

    unit: Unit
    cap: int | None
    most: int
    used: int
    taken: int = 0

    @property
    def left(self) -> int:
        """What may still go."""
        return max(self.most - self.used, 0)

    @property
    def first(self) -> int | None:
        """What a single request may come to: at an empty queue whatever that takes at all; None for any size."""
        return self.left if self.used else self.cap

    @property
    def words(self) -> str:
        """How it stands, for a person."""
        about = "about " if self.unit == "tokens" else ""
        learned = "" if self.cap is not None else ", as far as is known"
        return f"{about}{self.used:,} of {self.most:,} enqueued {self.unit} are under way{learned}"


def allowance(unit: Unit, known: Quota | None, configured: int | None, used: int, now: int) -> Allowance | None:
    """Return how much of a queue may be used, by what was learned and by the configuration; None where nothing bounds it."""
    if known is None:
        return None if configured is None else Allowance(unit, configured, configured, used)
    times = 1 << max(days(known, now), 0)
    most = max(int(known.cap * known.share * times), 1)
    if configured is not None:
        most = min(most, configured)
    cap = min((n for n in (known.cap * times if known.said else None, configured) if n is not None), default=None)
    return Allowance(unit, cap, most, used)


def worth(allowance: Allowance, needed: float | None, *, overdue: bool) -> bool:
    """Return whether a batch is worth sending into what is left: no crumbs, each of which takes a batch's time. What others have
    taken in this round counts as left: to one whose turn is a small part, that is worth it.

    Args:
        needed: about what all that waits comes to, in units; None where that is not known.
        overdue: what waits has waited for as long as its workload lets it.
    """
    used, left = allowance.used - allowance.taken, allowance.left
    if not used or overdue or (left + allowance.taken) * _WORTH >= allowance.most:
        return True
    return needed is not None and needed <= left
