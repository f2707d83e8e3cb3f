"""nura cost: what was spent, by workload, model, provider, day or month.

Takes the state file; leaves it as it is. An attempt belongs to the UTC day on which its batch was sent, a request that was
tried at once to the day of its call; what is under way is not counted yet. It reads sums that are kept beside the ledger, so
that it answers at once however much there is, and also about what the ledger no longer has.

What can go wrong: nothing but the state file. It takes no lock, needs no key and speaks to nobody.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, NamedTuple, cast

from nura_cli.clock import rfc3339
from nura_cli.errors import UsageError
from nura_cli.pipeline.report import Report
from nura_cli.pricing import decimal_dollars
from nura_cli.state import State, spending
from nura_cli.state.spending import Estimated, Expected, Spent, Sums

if TYPE_CHECKING:
    from nura_cli import contract

DAY = 86400
_END_OF_TIME = 2**62


class Period(NamedTuple):
    """The days that are meant: those that begin at ``since`` or later, and before ``until``; unix seconds."""

    since: int = 0
    until: int = _END_OF_TIME


def month(text: str) -> Period:
    """Return the days of a month such as ``2026-11``. Raises UsageError: it is none."""
    try:
        if len(text) != len("2026-11"):
            raise ValueError
        first = date.fromisoformat(f"{text}-01")
    except ValueError as error:
        raise UsageError(f"--month {text}: is not a month", hint="write it as 2026-11") from error
    after = date(first.year + first.month // 12, first.month % 12 + 1, 1) if first < date(9999, 12, 1) else None
    return Period(_second(first), _END_OF_TIME if after is None else _second(after))


def since(begin: int | None, end: int | None) -> Period:
    """Return the days from that of one unix second on, up to the last that begins before another."""
    return Period(0 if begin is None else begin // DAY * DAY, _END_OF_TIME if end is None else end)


def this_month(now: int) -> Period:
    """Return the days of the month, in UTC, in which a unix second falls."""
    return month(_date(now)[:7])


def _second(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def _date(at: int) -> str:
    """Return the day, in UTC, in which a unix second falls; a clock may have said anything."""
    return (rfc3339(at) or "unknown")[: len("2026-11-26")]


GROUPS: Mapping[str, Callable[[Spent | Expected], str]] = {
    "workload": lambda one: one.workload,
    "model": lambda one: one.model,
    "provider": lambda one: one.provider,
    "day": lambda one: _date(one.day),
    "month": lambda one: _date(one.day)[:7],
}
"""What the figures can be told apart by."""


def groups(text: str) -> list[str]:
    """Return what figures are to be told apart by, from a list with commas. Raises UsageError: something else is in it."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in GROUPS:
            raise UsageError(f"--by {text}: {name!r} is none of {', '.join(GROUPS)}")
    return list(dict.fromkeys(names))


def run(state: State, by: Sequence[str], period: Period) -> Report:
    """Say what was spent.

    Args:
        by: of :data:`GROUPS`.
        period: the days that are meant.

    Returns:
        ``rows``, each with what it is about, attempts, tokens and money, in order of what they are about; ``total``;
        ``since`` and ``until``: the first day that is meant and the first that no longer is, null where there is no such bound.
    """
    found: dict[tuple[str, ...], Sums] = {}
    for one in spending.spent(state.db, *period):
        group = tuple(GROUPS[name](one) for name in by)
        found[group] = found.get(group, Sums()).plus(one.sums)
    guessed: dict[tuple[str, ...], Estimated] = {}
    for guess in spending.expected(state.db, *period):
        group = tuple(GROUPS[name](guess) for name in by)
        guessed[group] = guessed.get(group, Estimated()).plus(guess.sums)
    total, nearness = Sums(), Estimated()
    for group, sums in found.items():
        total, nearness = total.plus(sums), nearness.plus(guessed.get(group, Estimated()))
    result: contract.CostTold = {
        "since": _date(period.since) if period.since else None,
        "until": _date(period.until - 1 + DAY) if period.until < _END_OF_TIME else None,
        "by": list(by),
        "rows": [_row(by, group, found[group], guessed.get(group, Estimated())) for group in sorted(found)],
        "total": _figures(total, nearness),
    }
    return Report(result, worked=True)


def _row(by: Sequence[str], group: Sequence[str], sums: Sums, guessed: Estimated) -> "contract.CostRow":
    return cast("contract.CostRow", dict(zip(by, group, strict=True)) | _figures(sums, guessed))


def _figures(sums: Sums, guessed: Estimated) -> "contract.CostFigures":
    return {
        "attempts": sums.attempts,
        "unanswered": sums.unanswered,
        "usage": {
            "input_tokens": sums.input_tokens,
            "cached_input_tokens": sums.cached_input_tokens,
            "cache_write_tokens": sums.cache_write_tokens,
            "output_tokens": sums.output_tokens,
        },
        "cost": {
            "currency": "USD",
            "paid": decimal_dollars(sums.cost),
            "list": decimal_dollars(sums.list_cost),
            "saved": decimal_dollars(sums.list_cost - sums.cost),
            "unpriced_attempts": sums.unpriced,
        },
        "estimate": {
            "batches": guessed.batches,
            "estimated": decimal_dollars(guessed.expected),
            "paid": decimal_dollars(guessed.cost),
        },
    }
