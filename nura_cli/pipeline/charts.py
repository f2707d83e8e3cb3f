"""What the page of ``nura status --html`` shows besides what status says: figures over time, for charts and tables."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from nura_cli.pricing import decimal_dollars
from nura_cli.state import State, batches, spending
from nura_cli.state.spending import Sums

DAYS = 30
"""Days of which the cost is shown."""
_DAY = 86400
_SPANS = (
    *((600, "under 10m"), (1800, "10–30m"), (3600, "30m–1h"), (7200, "1–2h"), (4 * 3600, "2–4h")),  # noqa: RUF001 - a range
    *((8 * 3600, "4–8h"), (16 * 3600, "8–16h"), (24 * 3600, "16–24h")),  # noqa: RUF001 - a range
)
_LONGER = "longer"


class Spent(NamedTuple):
    """A day, as a date (UTC), and what was paid, and would have been paid synchronously: US dollars, as decimals."""

    day: str
    paid: str
    list: str


class Took(NamedTuple):
    """How many batches took so long."""

    span: str
    n: int


class Failed(NamedTuple):
    """How many tasks failed for a reason: the kind of error, and the provider's code."""

    reason: str
    n: int


def spent(state: State) -> list[Spent]:
    """Return what was paid on each of the last days, today's the last."""
    after = (state.clock() // _DAY + 1) * _DAY
    found = dict.fromkeys(range(after - DAYS * _DAY, after, _DAY), Sums())
    for one in spending.spent(state.db, min(found), after):
        found[one.day] = found[one.day].plus(one.sums)
    return [
        Spent(datetime.fromtimestamp(day, UTC).date().isoformat(), _dollars(sums.cost), _dollars(sums.list_cost))
        for day, sums in found.items()
    ]


def _dollars(pico: int) -> str:
    return str(decimal_dollars(pico))


def took(state: State) -> list[Took]:
    """Return how many of the newest batches took how long, from the quickest on; nothing, where none has ended."""
    seconds = batches.durations(state.db)
    counts = Counter(next((name for bound, name in _SPANS if one < bound), _LONGER) for one in seconds)
    return [Took(name, counts[name]) for name in (*(name for _, name in _SPANS), _LONGER)] if seconds else []


def failed(workloads: Mapping[str, Any]) -> Sequence[Failed]:
    """Return for what tasks failed, the most frequent first, from the workloads as status has them."""
    counts: Counter[str] = Counter()
    for row in workloads.values():
        for group in row["failures"]:
            parts = (group["kind"], group["code"])
            counts[": ".join(part for part in parts if part) or "other reasons"] += group["n"]
    return [Failed(reason, n) for reason, n in counts.most_common()]
