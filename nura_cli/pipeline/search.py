"""Pure decisions of the search for the request that gets its batches refused, where the provider does not say which.

A search needs a witness: a task fails only if it was refused alone, or named, and another batch of its workload and revision
was *taken* since its refusal before (the provider had looked at its requests). Without one, the trouble may be the account's,
in words that nobody knows, or the whole file's. So those under suspicion go last, half as many at a time, never together with
others; while there is no witness one batch of them is under way at a time, and the route rests more and more. After
:data:`MOST_REFUSALS` in a row a person decides, and where the person lets the workload go on, its requests fail one by one.
"""

from collections.abc import Sequence
from typing import NamedTuple

from nura_cli.dialects import vendors
from nura_cli.dialects.base import Phase, RemoteBatch
from nura_cli.state.standings import Standing
from nura_cli.state.suspects import Due

MOST_REFUSALS = 20
"""Batches of a workload's that are refused in a row before nura holds it."""
MOST_ONWARD = 100
"""As many, where each time others are named than before."""


def taken(dialect: str, remote: RemoteBatch) -> bool:
    """Return whether a batch at a provider shows that its requests were looked at and taken: a witness."""
    if vendors.dialect(dialect).create_reads_requests:
        return remote.phase is not Phase.REFUSED
    return remote.taken


def turn(waiting: Sequence[Due], most: int) -> list[int]:
    """Return those of a queue's suspects that make its next batch, ``most`` at most: all of one kind, and the first of them.

    Of those that were refused together half as many, what was refused alone alone, and what was named all together.

    Args:
        waiting: in the order of the search; at least the first ``most``.
    """
    if not waiting:
        return []
    first = waiting[0]
    if first.how == "among":
        alike = [one for one in waiting if (one.how, one.batch_id) == (first.how, first.batch_id)]
        most = min(most, (first.requests + 1) // 2)
    else:
        alike = [one for one in waiting if one.how == first.how]
        most = 1 if first.how == "alone" else most
    return [one.task_id for one in alike[: max(1, most)]]


def doubted(waiting: Sequence[Due]) -> list[Due]:
    """Return suspects as they are once some are sent that were named: each one is to be tried alone from now on."""
    return [one._replace(how="alone") if one.how == "named" else one for one in waiting]


class Search(NamedTuple):
    """How the search stands in a queue.

    Attributes:
        pardoned: its requests fail one by one, as a person decided.
        witness: a batch of its workload and revision was taken since the last refusal.
        under_way: a batch of suspects is.
        undecided: a batch is under way of which nobody knows yet whether it is taken.
    """

    pardoned: bool
    witness: bool
    under_way: bool
    undecided: bool

    def goes_on(self, first: Due) -> bool:
        """Return whether another batch of suspects may go, of which this one is the first: those that were named wait for what
        becomes of the rest, and go once there is none.
        """
        if first.how == "named":
            return not (self.witness or self.undecided)
        return self.pardoned or self.witness or not self.under_way


class Row(NamedTuple):
    """How a refusal continues the row of refusals before it.

    Attributes:
        refusals: in the row, this one included.
        witness: a batch was taken since the last one, if there was one; so this one is the first of a row.
        later: its batch was made after the last one that counted, which it may have heeded.
    """

    refusals: int
    witness: bool
    later: bool

    @property
    def over(self) -> bool:
        """Whether a person has to decide."""
        return self.refusals >= MOST_REFUSALS

    @property
    def of_how_many(self) -> str:
        """Where it stands, in words."""
        return f"{min(self.refusals, MOST_REFUSALS)} of {MOST_REFUSALS}"


def row(standing: Standing, batch_id: int, *, witness: bool) -> Row:
    """Return how the refusal of a batch continues the row; of those that were under way together one counts."""
    later = batch_id > standing.refused_after
    return Row(1 if witness else standing.refusals + later, witness, later)


def rests(found: Row, *, beside: bool) -> bool:
    """Return whether the route is to rest after a refusal for which nobody is found to blame.

    Args:
        beside: there is something to send that is not suspected: it goes first, and may be a witness.
    """
    return found.later and (found.refusals > 1 or not (found.witness or beside))


def same_place(lines: Sequence[int], before: Sequence[int | None]) -> bool:
    """Return whether a provider names a line that it named the time before, though another request stands there by now: it may
    mean the whole file.
    """
    return not set(lines).isdisjoint(before)
