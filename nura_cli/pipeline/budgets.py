"""What may be spent, until when, and what is left of it: the configuration's budgets, and the sums of their windows.

A batch belongs to the window (a day or a month of UTC) in which its create was sent. What is spent is summed up anew from the
ledger and the batches each time (:mod:`nura_cli.state.budgets`); there is no counter that could go wrong.
"""

import calendar
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from nura_cli.clock import rfc3339
from nura_cli.errors import ConfigError
from nura_cli.pipeline.waiting import GIVEN_UP_WATCH
from nura_cli.pricing import PICO, decimal_dollars
from nura_cli.state import Connection, budgets
from nura_cli.state.budgets import Basis, Scope

if TYPE_CHECKING:
    from nura_cli.config import Config, WorkloadConfig

_DAY = 86400


class Budget(NamedTuple):
    """What may be spent.

    Attributes:
        option: where it stands in the configuration, such as ``workloads.classify.budget.day``.
        scope: whose spending is meant.
        limit: in pico-dollars.
        basis: what a request counts for until its cost is known.
        start, end: the window, unix seconds; None where each batch has a budget of its own.
    """

    option: str
    scope: Scope
    limit: int
    basis: Basis
    start: int | None = None
    end: int | None = None


class Fund(NamedTuple):
    """A budget as it stands.

    Attributes:
        left: what may still be sent, in pico-dollars; 0 where a cost is not known.
        unknown: batches (0: a request that was tried) of which nothing tells what they cost.
    """

    budget: Budget
    left: int
    unknown: tuple[int, ...] = ()

    @property
    def words(self) -> str:
        """Why no more goes, for a person."""
        option, limit = self.budget.option, short_dollars(self.budget.limit)
        if self.unknown:
            first = f"batch {self.unknown[0]}" if self.unknown[0] else "a request that was tried"
            end = "" if self.budget.end is None else f", or {rfc3339(self.budget.end)}"
            return f"{option}: nobody knows what {first} costs, and so nothing more goes until that is known{end}"
        until = "" if self.budget.end is None else f" until {rfc3339(self.budget.end)}"
        used = short_dollars(self.budget.limit - self.left)
        return f"{option}: {used} of {limit} are spent or under way, and the next request could pass it{until}"


def short_dollars(pico: int) -> str:
    """Return an amount for a person: ``$0.0123``."""
    return f"${decimal_dollars(round(pico, -(len(str(PICO)) - 5)))}"


def windows(moment: int) -> dict[str, tuple[int, int]]:
    """Return the day and the month of UTC in which a unix second lies: when each begins, and ends."""
    day = moment - moment % _DAY
    at = datetime.fromtimestamp(moment, UTC)
    month = calendar.timegm((at.year, at.month, 1, 0, 0, 0))
    after = calendar.timegm((at.year + at.month // 12, at.month % 12 + 1, 1, 0, 0, 0))
    return {"day": (day, day + _DAY), "month": (month, after)}


def of(config: "Config", workload: str, provider: str, moment: int) -> Iterator[Budget]:
    """Yield the budgets that a workload's requests count for when they are sent to a provider at a unix second.

    Of either that left the configuration there are none.
    """
    at, mine, found = config.providers.get(provider), config.workloads.get(workload), windows(moment)
    for section, scope, options in (
        (f"providers.{provider}", Scope(provider=provider), at.budget if at else None),
        (f"workloads.{workload}", Scope(workload=workload), mine.budget if mine else None),
    ):
        for name, (start, end) in found.items():
            amount = getattr(options, name, None)
            if options is not None and amount is not None:
                yield Budget(f"{section}.budget.{name}", scope, int(amount * PICO), options.basis, start, end)
    if mine is not None and mine.budget.batch is not None:
        limit = int(mine.budget.batch * PICO)
        yield Budget(f"workloads.{workload}.budget.batch", Scope(), limit, mine.budget.basis)


def refuse_unpriced(config: "Config", workload: "WorkloadConfig", model: str) -> None:
    """Raise ConfigError where a budget is set for a workload, and nobody knows what its model costs."""
    budget = next(of(config, workload.name, workload.provider, 0), None)
    if budget is not None:
        raise ConfigError(
            f"workload {workload.name}: nobody knows what {model or 'the models of its lines'} cost, and {budget.option} is set",
            hint=f"set providers.{workload.provider}.prices, in US dollars for a million tokens",
            workload=workload.name,
        )


def fund(db: Connection, budget: Budget, but: int = 0, *, uploads: bool = False) -> Fund:
    """Return how a budget stands, without the batch ``but``; with those that are uploaded and yet to be created, if that is asked."""
    if budget.start is None or budget.end is None:
        return Fund(budget, budget.limit)
    watched = max(db.now, 0) - GIVEN_UP_WATCH
    spent = budgets.spent(db, budget.scope, budget.start, budget.end, budget.basis, watched, but)
    waiting = budgets.uploaded(db, budget.scope, budget.basis) if uploads else 0
    return Fund(budget, 0 if spent.unknown else max(budget.limit - spent.total - waiting, 0), spent.unknown)
