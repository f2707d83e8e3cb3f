"""What was spent, from the sums that are kept beside the ledger: nothing here looks at an attempt."""

from collections.abc import Iterator
from typing import NamedTuple

from nura_cli.state import schema
from nura_cli.state.connection import Connection


class Sums(NamedTuple):
    """What attempts, and requests tried outside of batches, came to. Money in pico-dollars.

    Attributes:
        unanswered: how many gave no answer that was of use: failed, expired, lost, come too late, or of a second sending.
        input_tokens: all of the input, what was read from the provider's cache or written to it included.
        unpriced: how many have an unknown cost; the money is that of the others.
    """

    attempts: int = 0
    unanswered: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0
    list_cost: int = 0
    unpriced: int = 0

    def plus(self, other: "Sums") -> "Sums":
        """Return both together."""
        return Sums(*map(int.__add__, self, other))


_ADD_OF_BATCH = (
    f"INSERT INTO spending ({schema.SUMMED})"
    " SELECT sent_at - sent_at % 86400, lane_id, provider, model, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM batches"
    f" WHERE id = ? AND sent_at IS NOT NULL {schema.ADD}"
)


def add_of_batch(db: Connection, batch_id: int, sums: Sums) -> None:
    """Add the sums of a batch's attempts that stand in the ledger as ``summed``: at once what a trigger adds of others one by one."""
    db.execute(_ADD_OF_BATCH, (*sums, batch_id))


class Spent(NamedTuple):
    """What one workload spent on one model of a provider on one day (unix seconds at its beginning, UTC)."""

    day: int
    workload: str
    provider: str
    model: str
    sums: Sums


_COLUMNS = ", ".join(f"s.{name}" for name in Sums._fields)


def spent(db: Connection, since: int, until: int) -> Iterator[Spent]:
    """Yield what was spent on the days that begin at ``since`` or later, and before ``until`` (unix seconds), by day."""
    rows = db.execute(
        f"SELECT s.day, w.name, s.provider, s.model, {_COLUMNS} FROM spending s JOIN lanes l ON l.id = s.lane_id"
        " JOIN workloads w ON w.id = l.workload_id WHERE s.day >= ? AND s.day < ? ORDER BY s.day",
        (since, until),
    )
    for day, workload, provider, model, *sums in rows:
        yield Spent(day, workload, provider, model, Sums(*sums))


class Estimated(NamedTuple):
    """What batches that were reconciled were expected to cost when they were sent, and what they cost. Money in pico-dollars."""

    batches: int = 0
    expected: int = 0
    cost: int = 0

    def plus(self, other: "Estimated") -> "Estimated":
        """Return both together."""
        return Estimated(*map(int.__add__, self, other))


class Expected(NamedTuple):
    """The estimates of one workload's batches for one model of a provider, sent on one day (unix seconds at its beginning, UTC)."""

    day: int
    workload: str
    provider: str
    model: str
    sums: Estimated


def expected(db: Connection, since: int, until: int) -> Iterator[Expected]:
    """Yield how near the estimates were of batches that were sent on the days from ``since`` on, and before ``until``."""
    rows = db.execute(
        "SELECT sent_at - sent_at % 86400, workload, provider, model, count(*), sum(expected_cost), sum(billed_cost) FROM batches"
        " WHERE sent_at >= ? AND sent_at < ? AND expected_cost IS NOT NULL AND billed_cost IS NOT NULL"
        " GROUP BY 1, 2, 3, 4 ORDER BY 1",
        (since, until),
    )
    for day, workload, provider, model, *sums in rows:
        yield Expected(day, workload, provider, model, Estimated(*sums))
