"""What was paid on each day, and how long the newest batches took: for the page of ``nura status --html``."""

from typing import NamedTuple

from nura_cli.state.connection import Connection

_MILLION = 1_000_000
_LOOKED_AT = 1000
"""The newest batches, which are looked at for how long they took."""


class Day(NamedTuple):
    """What the attempts that ended on a day (UTC, days since 1970) cost, in pico-dollars, and would have cost synchronously."""

    day: int
    cost: int
    list_cost: int


def spent(db: Connection, since: int) -> list[Day]:
    """Return what was paid on each day from ``since`` (unix seconds) on; a day on which nothing was has no entry.

    It reads the ledger. In two parts, since SQLite's sum fails past 64 bits.
    """
    rows = db.execute(
        "SELECT at / 86400, sum(cost / :million), sum(cost % :million), sum(list_cost / :million), sum(list_cost % :million)"
        " FROM attempts WHERE at >= :since AND cost IS NOT NULL GROUP BY 1 ORDER BY 1",
        {"since": since, "million": _MILLION},
    )
    return [Day(day, a * _MILLION + b, (c or 0) * _MILLION + (d or 0)) for day, a, b, c, d in rows]


def durations(db: Connection) -> list[int]:
    """Return how many seconds the newest batches that have ended took at their providers."""
    rows = db.execute(
        "SELECT ended_at - submitted_at FROM (SELECT ended_at, submitted_at FROM batches ORDER BY id DESC LIMIT ?)"
        " WHERE ended_at >= submitted_at",
        (_LOOKED_AT,),
    )
    return [row[0] for row in rows]
