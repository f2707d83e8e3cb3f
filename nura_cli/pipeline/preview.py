"""nura dispatch --dry-run: the walk that dispatch takes, and nothing of it is sent or written.

Each batch is rendered and measured, and thrown away. What a sent one would change (the tasks it takes, what is under way,
the cap on a queue that grows with what is taken) is kept in memory, and the decisions about later batches heed it. Nobody
is spoken to, but for the application's database, whose tables are looked at as dispatch does. What a provider would
answer, and what an earlier run left behind for dispatch to recover, stands outside of it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from nura_cli import contract
from nura_cli.config import Config, WorkloadConfig
from nura_cli.pipeline import backoff, blame, holding, queues, recovery, search, targets
from nura_cli.pipeline.accounts import Accounts
from nura_cli.pipeline.budgets import Budget, Fund
from nura_cli.pipeline.estimate import Estimate
from nura_cli.pipeline.packing import Load, Room
from nura_cli.pipeline.queues import Sent, Visit, Walk
from nura_cli.pipeline.render import revision
from nura_cli.pipeline.report import Report
from nura_cli.pricing import decimal_dollars
from nura_cli.state import State, runs, tasks
from nura_cli.state.actions import Hold
from nura_cli.state.budgets import Scope
from nura_cli.state.outcomes import Revision
from nura_cli.state.quotas import UnderWay
from nura_cli.state.suspects import Due

_PAGE = 1000
"""Tasks read at a time while a batch is measured."""
_TAG = "x" * 20
"""Stands for a batch's tag, which is as long."""


class _Claims:
    """The due tasks of a queue, as one batch after the other would claim them."""

    def __init__(self, ids: Iterator[int]) -> None:
        self._ids = ids
        self._back: list[int] = []

    def take(self, most: int) -> list[int]:
        """Return the next ids: those that were given back come first, as in :func:`tasks.claim`."""
        taken, self._back = self._back[:most], self._back[most:]
        return taken + list(islice(self._ids, most - len(taken)))

    def give_back(self, taken: Sequence[int], last_id: int) -> None:
        """Let those of ``taken`` that did not fit, whose ids are above ``last_id``, wait again."""
        self._back = [task_id for task_id in taken if task_id > last_id] + self._back


class _Planned(NamedTuple):
    """What a batch that would be sent may cost."""

    provider: str
    workload: str
    estimate: Estimate

    def cost(self, budget: Budget) -> int:
        """Return what of it counts for a budget, in pico-dollars."""
        if budget.start is None or budget.scope not in (Scope(provider=self.provider), Scope(workload=self.workload)):
            return 0
        return (self.estimate.worst if budget.basis == "worst" else self.estimate.cost) or 0


@dataclass(kw_only=True)
class DryRun(Walk):
    """A walk that sends nothing.

    Attributes:
        planned: the batches that dispatch would send.
    """

    planned: list[contract.PlannedBatch] = field(default_factory=list)
    _claims: dict[int, _Claims] = field(default_factory=dict)
    _suspects: dict[int, list[Due]] = field(default_factory=dict)
    _searches: dict[int, search.Search] = field(default_factory=dict)
    _gone: Counter[int] = field(default_factory=Counter)
    _sent: list[UnderWay] = field(default_factory=list)
    _costs: list[_Planned] = field(default_factory=list)
    _rendered: Counter[Revision] = field(default_factory=Counter)
    _holds: dict[str, Hold] = field(default_factory=dict)
    _used_up: dict[int, frozenset[int]] = field(default_factory=dict)
    _routes: dict[tuple[str, str, str], runs.Route] = field(default_factory=dict)

    def check_targets(self, workload: WorkloadConfig) -> None:
        """Look at the application's tables, and remember nothing."""
        targets.checked(self.state, workload, self.config, note=False)

    def route(self, provider: str, endpoint: str = "", model: str = "") -> runs.Route:
        """Return what would be known of a route."""
        return self._routes.get((provider, endpoint, model)) or super().route(provider, endpoint, model)

    def under_way(self) -> list[UnderWay]:
        """Return the batches that would be under way."""
        return super().under_way() + self._sent

    def funds(self, workload: WorkloadConfig) -> list[Fund]:
        """Return the budgets as they would stand."""
        planned = ((fund, sum(one.cost(fund.budget) for one in self._costs)) for fund in super().funds(workload))
        return [fund._replace(left=max(fund.left - cost, 0)) for fund, cost in planned]

    def pending(self, queue: int) -> int:
        """Return how many tasks of a queue would still be pending."""
        return super().pending(queue) - self._gone[queue]

    def end_used_up(self, visit: Visit) -> None:
        """Count them, and leave them out of what is claimed."""
        queue = visit.queue.id
        self._used_up[queue] = frozenset(
            tasks.used_up(self.state.db, queue, visit.workload.retry.max_attempts, tasks.last_id(self.state.db))
        )
        self._gone[queue] += len(self._used_up[queue])
        self.used_up(visit.workload, len(self._used_up[queue]), "will fail")

    def held(self, workload: WorkloadConfig) -> Hold | None:
        """Return what would hold it."""
        return super().held(workload) or self._holds.get(workload.name)

    def next_batch(self, visit: Visit, room: Room) -> Sent:
        """Measure the next batch of a queue."""
        claims, queue = self._claims_of(visit), visit.queue.id
        taken = claims.take(room.claim)
        apart = [] if taken else self.apart_now(visit, room)
        if not taken and not apart:
            return Sent.DONE
        load = _measured(self.state, visit, room, sorted(taken or apart))
        if load.full is not None and not load.requests and not load.failed and not load.passed:
            self.note_waits(visit.workload, self.pending(queue) - self.aside(visit), load.full, visit.model or None)
            return queues.no_room(load.full)
        if self._hold_unrendered(visit, load):
            claims.give_back(taken, 0)
            return Sent.HELD
        claims.give_back(taken, load.last_id)
        gone = {task_id for task_id in apart if task_id <= load.last_id}
        left = [one for one in self.suspected(visit) if one.task_id not in gone]
        self._suspects[queue] = search.doubted(left) if apart and self.suspected(visit, 1)[0].how == "named" else left
        self._gone[queue] += load.requests + len(load.failed)
        self.passed_over(visit, load.passed)
        self.unrendered(visit.workload, load.failed, "will fail", "mend its prompt before it is dispatched")
        if not load.requests:
            return Sent.EMPTY
        now, decided = self.search_of(visit), visit.rendering.dialect.create_reads_requests
        self._searches[queue] = search.Search(
            now.pardoned, now.witness or decided, now.under_way or bool(apart), now.undecided or not decided
        )
        self._plan(visit, load)
        if room.canary:
            self.canaries[self.revision_of(visit)] += load.requests
        return Sent.TAKEN

    def suspected(self, visit: Visit, limit: int = -1) -> list[Due]:
        """Return the suspects of a queue that would still be left, in their order."""
        queue = visit.queue.id
        if queue not in self._suspects:
            self._suspects[queue] = super().suspected(visit)
        return self._suspects[queue] if limit < 0 else self._suspects[queue][:limit]

    def search_of(self, visit: Visit) -> search.Search:
        """Return how the search would stand: where a create looks into its requests, what is taken is a witness."""
        return self._searches.get(visit.queue.id) or super().search_of(visit)

    def _claims_of(self, visit: Visit) -> _Claims:
        queue = visit.queue.id
        if queue not in self._claims:
            apart = {one.task_id for one in self.suspected(visit)} | self._used_up[queue]
            ids = (one for one in tasks.due_ids(self.state.db, queue, visit.last_id) if one not in apart)
            self._claims[queue] = _Claims(ids)
        return self._claims[queue]

    def _hold_unrendered(self, visit: Visit, load: Load) -> bool:
        """Return whether dispatch would hold the workload, for records that cannot be rendered alike."""
        name, of = visit.workload.name, self.revision_of(visit)
        self._rendered[of] += load.requests
        reason = blame.unrendered(self.state.db, of, load.failed, self._rendered[of], visit.rendering.spec.prompt)
        if reason is None:
            return False
        self._holds[name] = holding.by_nura(name, reason, self.clock())
        self.note(holding.onset(self._holds[name]))
        return True

    def _plan(self, visit: Visit, load: Load) -> None:
        """Note a batch that dispatch would send, and what would be known once it is taken."""
        provider, spec, expected = visit.workload.provider, visit.rendering.spec, load.estimate
        route = self.route(provider, spec.endpoint, spec.model)
        self._routes[provider, spec.endpoint, spec.model] = backoff.after_accept(route, load.requests)
        at, whose = self.accounts.address(provider), self.account(provider)
        decided = visit.rendering.dialect.create_reads_requests
        self._sent.append(UnderWay(0, at, whose, spec.model, load.requests, expected.input, decided, self.clock()))
        self._costs.append(_Planned(provider, visit.workload.name, expected))
        self.planned.append(_estimated(visit, load))
        self.worked = True


def _estimated(visit: Visit, load: Load) -> contract.PlannedBatch:
    """Return a batch as ``--json`` shows it, with what it may cost."""
    workload, spec, expected = visit.workload, visit.rendering.spec, load.estimate
    return {
        "workload": workload.name,
        "provider": workload.provider,
        "endpoint": spec.endpoint,
        "model": spec.model or None,
        "revision": revision(spec)[0],
        "due": True,
        "requests": load.requests,
        "bytes": load.bytes,
        "basis": expected.basis,
        "estimated_tokens": expected.input,
        "estimated_output_tokens": expected.output,
        "estimated_cost": decimal_dollars(expected.cost),
    }


def _measured(state: State, visit: Visit, room: Room, ids: Sequence[int]) -> Load:
    """Return what a batch of these tasks comes to: its request file, rendered and not kept."""
    load = Load(room, visit.rendering.dialect.frame, visit.gauge(room))
    pages = (ids[n : n + _PAGE] for n in range(0, len(ids), _PAGE))
    rows = (row for page in pages for row in tasks.lines(state.db, page))
    for _ in load.pieces(rows, visit.rendering.maker(_TAG, room.limits)):
        pass
    return load


def run(
    state: State,
    config: Config,
    accounts: Accounts,
    *,
    workloads: Sequence[str] = (),
    ignore_waits: bool = False,
) -> Report:
    """Say what dispatch would send now, and what would wait. Writes nothing, and speaks to no provider.

    Args:
        workloads, ignore_waits: as for :func:`nura_cli.pipeline.dispatch.run`.

    Returns:
        ``batches`` that would be sent, with estimates, and the other fields of dispatch's report.

    Raises:
        UsageError: a workload is not configured.
    """
    walk = DryRun(state=state, config=config, accounts=accounts, ignore_waits=ignore_waits)
    walk.blocked |= recovery.unproven(walk)
    queues.go(walk, queues.chosen(config, workloads))
    requests = sum(batch["requests"] for batch in walk.planned)
    result: contract.Planned = {"batches": walk.planned, **walk.waiting(requests)}
    return Report(result, walk.problems, walk.worked)
