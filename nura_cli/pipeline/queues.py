"""The walk over the queues that dispatch and its dry run share: what goes, in which order, and what waits, and why.

Of each workload that is due, queue after queue, batch after batch: how much may go is decided from what is known of the
queue now (:mod:`nura_cli.pipeline.packing`). Where room is scarce, at the provider or in a budget, the queues that want it take
turns (:mod:`nura_cli.pipeline.fairness`). What a batch comes to is up to who walks: dispatch sends it, a dry run
measures it and remembers what would have changed. So what one says is what the other does.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import NamedTuple

from nura_cli import contract
from nura_cli.clock import rfc3339
from nura_cli.config import Config, WorkloadConfig
from nura_cli.dialects.base import Dialect
from nura_cli.errors import (
    EX_OK,
    EX_PARTIAL,
    EX_TEMPFAIL,
    ConfigError,
    DatabaseDown,
    InputError,
    KeyRefused,
    ProblemKind,
    ProviderError,
    RateLimited,
    Unreachable,
)
from nura_cli.pipeline import backoff, budgets, canary, enqueued, estimate, fairness, holding, packing, quotas, search
from nura_cli.pipeline.budgets import Fund
from nura_cli.pipeline.estimate import Gauge, Learned, Weight
from nura_cli.pipeline.fairness import Claim
from nura_cli.pipeline.packing import Room, Turn, Wait, Waiting, Why
from nura_cli.pipeline.quotas import Queue
from nura_cli.pipeline.render import Rendering, rendering, revision
from nura_cli.pipeline.report import Problem, counted
from nura_cli.pipeline.run import ProviderRun
from nura_cli.pricing import Rates
from nura_cli.state import Connection, actions, batches, runs, standings, suspects, tasks
from nura_cli.state import quotas as quota_rows
from nura_cli.state import waits as wait_rows
from nura_cli.state.actions import Hold
from nura_cli.state.connection import LONGEST_BACKOFF
from nura_cli.state.outcomes import Revision
from nura_cli.state.quotas import UnderWay
from nura_cli.state.standings import Held
from nura_cli.state.suspects import Due
from nura_cli.states import BatchStatus

_MOST_REFUSALS = 40
"""Refused batches of one queue after which the search for the culprit goes on in the next run."""


class Sent(Enum):
    """How a batch ended, as far as the queue it came from is concerned."""

    TAKEN = "taken"
    EMPTY = "empty"  # none of its tasks could become a request, or a person cancelled it first: the next one may go
    REFUSED = "refused"  # for its content: what is left is sent in other batches
    HELD = "held"  # a person held it meanwhile, and nothing of it was created: the next look at the holds says so
    NOT_READY = (
        "not ready"  # its provider is not done with its file, and a later run goes on from there: the next one may go
    )
    STOP = "stop"  # nothing more of this queue in this run
    DONE = "done"  # there was no batch: nothing more is due
    FULL = "full"  # there was none: not even one request had room in the provider's queue
    UNFUNDED = "unfunded"  # there was none: a budget has nothing left for the next request


def no_room(wait: Wait) -> Sent:
    """Return how a batch ended into which not even one request went, by what that waits for."""
    return Sent.FULL if wait.why is Why.QUOTA else Sent.UNFUNDED


class Visit(NamedTuple):
    """A queue as a run comes by: what of it is to go, and how.

    Attributes:
        rendering: how they become requests now.
        last_id: the last task id to send: what comes in meanwhile waits for the next run.
        rates: what its model costs; None where that is not known.
        learned: what answers of its revision say of the next ones; None where there are too few.
        claim: what it may say for itself where room is scarce.
    """

    workload: WorkloadConfig
    queue: tasks.Queue
    rendering: Rendering
    last_id: int
    rates: Rates | None
    learned: Learned | None
    claim: Claim

    @property
    def model(self) -> str:
        """The one model of its batches; "" where its lines name their own."""
        return self.rendering.spec.model

    def gauge(self, room: Room) -> Gauge:
        """Return what weighs the requests of its next batch."""
        measure = partial(self.rendering.dialect.measure, self.rendering.spec.endpoint)
        return Gauge(measure, self.rates, self.learned, bounded=room.bounded)


class Waits(NamedTuple):
    """How many tasks of a workload, or of its queue for ``model``, wait, and why."""

    workload: WorkloadConfig
    model: str | None
    tasks: int
    wait: Wait

    def as_dict(self) -> contract.Wait:
        """Return the entry of ``waits`` in ``--json``."""
        return {
            "workload": self.workload.name,
            "provider": self.workload.provider,
            "model": self.model,
            "tasks": self.tasks,
            "why": str(self.wait.why),
            "until": rfc3339(self.wait.until),
            "message": self.wait.words,
        }


@dataclass(kw_only=True)
class Walk(ProviderRun, ABC):
    """One run over the queues.

    Attributes:
        ignore_waits: no thresholds, no backoff and no pauses (``--now``); holds are heeded all the same.
        progress: told in words what is going on.
        blocked: providers to which nothing more goes in this run.
        come_by: queues that were visited in this run.
        round: of queues at the providers, what was under way when this round began.
        canaries: requests that a dry run would have sent to show a revision.
        kept: for which queue of ours the room in a queue at a provider is kept.
        put_off: of a workload and a model, how many tasks are due later since they were passed over, in this run or before it.
        before: why tasks waited when dispatch came by before, where that matters.
        unsure: workloads that could not be looked at in full.
    """

    ignore_waits: bool = False
    progress: Callable[[str], None] = lambda text: None
    blocked: set[str] = field(default_factory=set)
    waits: list[Waits] = field(default_factory=list)
    come_by: set[int] = field(default_factory=set)
    round: dict[Queue, int] = field(default_factory=dict)
    canaries: Counter[Revision] = field(default_factory=Counter)
    kept: dict[tuple[str, str], int] = field(default_factory=dict)
    put_off: Counter[tuple[str, str]] = field(default_factory=Counter)
    before: Sequence[wait_rows.Waits] = field(default_factory=list)
    unsure: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.state.db.all_due = self.ignore_waits
        self.before = [] if self.ignore_waits else wait_rows.waits(self.state.db)

    @abstractmethod
    def next_batch(self, visit: Visit, room: Room) -> Sent:
        """Take what is due of a queue, as much as there is room for, and say what came of it."""

    @abstractmethod
    def end_used_up(self, visit: Visit) -> None:
        """Fail what is due of a queue and has had its attempts: there may be fewer of them by now."""

    def held(self, workload: WorkloadConfig) -> Hold | None:
        """Return what holds a workload, or its provider, at this moment, or None."""
        return actions.held(self.state.db, workload.name, workload.provider)

    @abstractmethod
    def check_targets(self, workload: WorkloadConfig) -> None:
        """See that a workload's answers will have somewhere to go. Raises ConfigError, DatabaseDown."""

    def route(self, provider: str, endpoint: str = "", model: str = "") -> runs.Route:
        """Return what is known of a route now."""
        return runs.route(self.state.db, provider, endpoint, model)

    def under_way(self) -> list[UnderWay]:
        """Return the batches that take room in queues at the providers."""
        return quota_rows.under_way(self.state.db)

    def account(self, provider: str) -> str:
        """Return whose account a provider's is, as well as it is known."""
        address = self.accounts.address(provider)
        return quota_rows.account(self.state.db, provider, address) or address

    def place(self, visit: Visit) -> tuple[str, str]:
        """Return in whose queue, and for which model, the requests of a visit wait at the provider."""
        account = self.account(visit.workload.provider)
        return account, visit.model if visit.rendering.dialect.queue_by_model else ""

    def funds(self, workload: WorkloadConfig) -> list[Fund]:
        """Return the budgets that a workload's requests count for now, as they stand."""
        found = budgets.of(self.config, workload.name, workload.provider, self.clock())
        return [budgets.fund(self.state.db, one, uploads=True) for one in found]

    def pending(self, queue: int) -> int:
        """Return how many tasks of a queue are pending now."""
        return tasks.pending_count(self.state.db, queue)

    def suspected(self, visit: Visit, limit: int = -1) -> list[Due]:
        """Return the tasks of a queue that may be to blame for a refused batch, and may be sent, as they are tried; all, for -1."""
        name = revision(visit.rendering.spec)[0]
        return suspects.due(self.state.db, visit.queue.id, name, visit.last_id, limit)

    def search_of(self, visit: Visit) -> search.Search:
        """Return how the search for who is to blame stands in a queue."""
        db, workload, name = self.state.db, visit.workload.name, revision(visit.rendering.spec)[0]
        standing, address = standings.of(db, workload, name), self.accounts.address(visit.workload.provider)
        return search.Search(
            Held.SEARCH in standing.pardoned,
            standings.validated_since(db, workload, name, address, standing.refused_at),
            suspects.under_way(db, visit.queue.id),
            standings.undecided(db, workload, name, address),
        )

    def revision_of(self, visit: Visit) -> Revision:
        """Return what the next batch of a queue would be one of."""
        name, address = visit.workload.name, self.accounts.address(visit.workload.provider)
        return Revision(name, revision(visit.rendering.spec)[0], address, 0)

    def canary(self, visit: Visit) -> int | Wait | None:
        """Return how much of a queue may go to show its revision (:func:`nura_cli.pipeline.canary.room`)."""
        of = self.revision_of(visit)
        return canary.room(self.state.db, visit.workload.canary, of, self.canaries[of])

    def apart_now(self, visit: Visit, room: Room) -> list[int]:
        """Return the suspects that make the next batch of a queue, where nothing else of it is to go; none while they wait."""
        most = room.limits.requests
        found = self.suspected(visit, most)
        return search.turn(found, most) if found and self.search_of(visit).goes_on(found[0]) else []

    def block(self, provider: str, error: ProviderError | KeyRefused) -> None:
        """Leave a provider alone for the rest of the run."""
        self.blocked.add(provider)
        self.fail(error, provider=provider)

    def unrendered(self, workload: WorkloadConfig, failed: Sequence[tuple[int, str]], outcome: str, hint: str) -> None:
        """Note that tasks could not become requests.

        Args:
            outcome: what became of them, in words: ``failed``.
        """
        if not failed:
            return
        self.worked = True
        first = f"task {failed[0][0]}: {failed[0][1]}"
        what = f"{counted(len(failed), 'task')} {outcome}, since no prompt can be rendered"
        self.fail(InputError(f"{workload.name}: {what}; {first}", hint=hint), workload=workload.name)

    def used_up(self, workload: WorkloadConfig, n: int, outcome: str) -> None:
        """Note that tasks have had their attempts.

        Args:
            outcome: what became of them, in words: ``failed``.
        """
        if n:
            most = workload.retry.max_attempts
            what = f"{counted(n, 'task')} {outcome}, having been tried {most} times or more (retry.max_attempts)"
            hint = f"see nura results {workload.name} --status failed"
            self.note(
                Problem(ProblemKind.TASK, f"{workload.name}: {what}", EX_PARTIAL, hint=hint, workload=workload.name)
            )

    def carry_over(self, workload: WorkloadConfig, later: int) -> int:
        """Note once more of what was passed over in an earlier run that it waits until it is looked at again; return how much that is.

        Args:
            later: tasks of the workload that are due later.
        """
        total = 0
        for one in self.before:
            if (one.workload, one.why) == (workload.name, Why.TOO_LARGE) and backoff.until(
                one.until or 0, self.clock()
            ):
                n = min(one.n, later - total)
                self.put_off[workload.name, one.model] += n
                self.note_waits(workload, n, Wait(Why.TOO_LARGE, one.words, one.until), one.model or None)
                total += n
        return total

    def aside(self, visit: Visit) -> int:
        """Return how many of the tasks that wait in a queue were passed over, now or before: of them it is noted apart."""
        return self.put_off[visit.workload.name, visit.model]

    def note_hold(self, hold: Hold) -> None:
        """Note that something is held: once a run, however much waits for it."""
        found = holding.problem(hold)
        if found.scope not in {known.scope for known in self.problems}:
            self.note(found)

    def note_waits(self, workload: WorkloadConfig, n: int, wait: Wait, model: str | None = None) -> None:
        """Note that ``n`` tasks wait; that they wait for a budget is said."""
        if not n:
            return
        if wait.why is Why.BUDGET and wait.until is not None:
            text, option = f"{workload.name}: {wait.words}", wait.words.partition(":")[0]
            self.note(Problem(ProblemKind.BUDGET, text, EX_OK, workload=workload.name, about=option))
        self.waits.append(Waits(workload, model, n, wait))

    def passed_over(self, visit: Visit, passed: Sequence[tuple[int, Wait]]) -> None:
        """Note that tasks are passed over, since what bounds them would never have room for them."""
        if passed:
            workload, (task_id, why) = visit.workload, passed[0]
            more = f", and {len(passed) - 1:,} more" if len(passed) > 1 else ""
            wait = Wait(Why.TOO_LARGE, f"passed over: its request {why.words}", self.clock() + LONGEST_BACKOFF)
            self.put_off[workload.name, visit.model] += len(passed)
            self.note_waits(workload, len(passed), wait, visit.model or None)
            text = f"{workload.name}: task {task_id}{more} cannot go: its request {why.words}"
            hint = "the others go; it is looked at again some hours from now, or with nura dispatch --now"
            self.note(Problem(ProblemKind.BUDGET, text, EX_OK, hint, workload=workload.name, about="passed over"))

    def waiting(self, requests: int) -> contract.Waiting:
        """Return how things stand, for the report: what waits, by reason and in full, and what is not confirmed."""
        by_reason = {why: sum(one.tasks for one in self.waits if one.wait.why is why) for why in Why}
        return {
            "requests": requests,
            "not_due": {
                "threshold": by_reason[Why.THRESHOLD],
                "backoff": by_reason[Why.BACKOFF],
                "paused": by_reason[Why.PAUSED],
                "quota": by_reason[Why.QUOTA],
                "too_large": by_reason[Why.TOO_LARGE],
                "budget": by_reason[Why.BUDGET],
                "canary": by_reason[Why.CANARY],
                "changed": by_reason[Why.CHANGED],
                "held": by_reason[Why.HELD],
            },
            "waits": [one.as_dict() for one in self.waits],
            "unconfirmed": len(batches.under_way(self.state.db, BatchStatus.SUBMITTING)),
        }


def guarded(walk: Walk, provider: str, workload: str, work: Callable[[], None]) -> None:
    """Do one provider's or workload's work; its failure is noted and concerns no other."""
    with walk.apart(f"workload {workload}", ProviderError, ConfigError, provider=provider, workload=workload):
        try:
            work()
        except (KeyRefused, RateLimited, Unreachable) as error:
            walk.block(provider, error)


def chosen(config: Config, names: Sequence[str]) -> list[WorkloadConfig]:
    """Return the workloads of these names, each once; all, where none is named. Raises UsageError: one is not configured."""
    return [config.workload(name) for name in dict.fromkeys(names or config.workloads)]


def go(walk: Walk, workloads: Sequence[WorkloadConfig]) -> None:
    """Visit the queues of these workloads, and make batches of what is due.

    They are visited by priority and age, round after round: one for which nothing is scarce sends all that it has when it is come by;
    the others take their turn's part of the room, and what is left goes round again. Those go last in which a request is looked
    for that gets its batches refused: that may pause the route which others share.
    """
    visits: list[Visit] = []
    for workload in workloads:
        guarded(walk, workload.provider, workload.name, partial(_prepare, walk, workload, visits))
    searched = suspects.searched(walk.state.db)
    lower = _lower_first(walk, visits)
    visits.sort(
        key=lambda visit: (
            visit.workload.name in searched,
            *fairness.order(visit.claim, lower=visit.workload.provider in lower),
        )
    )
    every = list(visits)
    while visits:
        turns, again = _Turns(walk, visits), set[int]()
        walk.round.clear()
        for visit in visits:
            work = partial(_come_by, walk, visit, turns.next(visit), again)
            guarded(walk, visit.workload.provider, visit.workload.name, work)
        visits = [visit for visit in visits if visit.queue.id in again]
    _note_blocked(walk, every)


def _lower_first(walk: Walk, visits: Sequence[Visit]) -> set[str]:
    """Return the providers to which a lower priority had its turn too long ago: it goes first this time."""
    highest: dict[str, int] = {}
    for visit in visits:
        provider = visit.workload.provider
        highest[provider] = max(highest.get(provider, visit.claim.priority), visit.claim.priority)
    found = set()
    for provider, most in highest.items():
        sent = batches.last_workloads(walk.state.db, provider, fairness.TENTH - 1)
        priorities = [walk.config.workloads[name].priority for name in sent if name in walk.config.workloads]
        if len(sent) == fairness.TENTH - 1 and all(one >= most for one in priorities):
            found.add(provider)
    return found


def _note_blocked(walk: Walk, visits: Sequence[Visit]) -> None:
    """Note what waits since its provider was blocked while its turn was on."""
    noted = {(one.workload.name, one.model) for one in walk.waits if one.wait.why is not Why.TOO_LARGE}
    for visit in visits:
        workload, model = visit.workload, visit.model or None
        if workload.provider in walk.blocked and not noted & {(workload.name, model), (workload.name, None)}:
            walk.note_waits(workload, walk.pending(visit.queue.id) - walk.aside(visit), _BLOCKED, model)


_NOTHING = 1e-9


class _Turns:
    """One round: which part of what is left is whose turn, as one after the other is come by."""

    def __init__(self, walk: Walk, visits: Sequence[Visit]) -> None:
        self._groups: dict[int, tuple[Hashable, Hashable]] = {}
        members: dict[Hashable, list[Claim]] = {}
        for visit in visits:
            provider = visit.workload.provider
            self._groups[visit.queue.id] = (("queue", *walk.place(visit)), ("budget", provider))
            for group in self._groups[visit.queue.id]:
                members.setdefault(group, []).append(visit.claim)
        self._shares = {group: fairness.shares(claims) for group, claims in members.items()}
        self._left = dict.fromkeys(members, 1.0)

    def next(self, visit: Visit) -> Turn:
        """Return the turn of the next visit of the round."""
        return Turn(*(self._part(group, visit.queue.id) for group in self._groups[visit.queue.id]))

    def _part(self, group: Hashable, queue: int) -> float:
        share, left = self._shares[group][queue], self._left[group]
        self._left[group] = max(left - share, 0.0)
        return share / left if left - share > _NOTHING else 1.0


def _prepare(walk: Walk, workload: WorkloadConfig, visits: list[Visit]) -> None:
    """Say why a workload waits, or see that it can be sent, and its answers received, and add its queues to those to visit."""
    queues = [queue for queue in tasks.queues(walk.state.db) if queue.workload == workload.name]
    pending = sum(walk.pending(queue.id) for queue in queues)
    pending -= walk.carry_over(workload, sum(tasks.not_yet(walk.state.db, queue.id)[0] for queue in queues))
    wait = _held(walk, workload, pending) or _waits(walk, workload, queues)
    if wait is not None:
        walk.note_waits(workload, pending, wait)
        return
    try:
        workload.check()
        walk.check_targets(workload)
    except (ConfigError, DatabaseDown) as error:
        walk.unsure.add(workload.name)
        walk.fail(error, workload=workload.name)
        return
    last_id = tasks.last_id(walk.state.db)
    for queue in queues:
        guarded(walk, workload.provider, workload.name, partial(_add_visit, walk, workload, queue, last_id, visits))


def _add_visit(walk: Walk, workload: WorkloadConfig, queue: tasks.Queue, last_id: int, visits: list[Visit]) -> None:
    """Add a queue to those to visit. Raises ConfigError: it cannot be sent as its workload is configured now."""
    walk.unsure.add(workload.name)
    dialect = walk.accounts.dialect(workload.provider)
    refuse_misfit(workload, queue, dialect)
    how = rendering(workload, dialect, queue.endpoint, queue.model)
    rates = estimate.prices_of(walk.config, workload.provider, dialect).rates(how.spec.model)
    pending = walk.pending(queue.id)
    if pending and rates is None:
        budgets.refuse_unpriced(walk.config, workload, how.spec.model)
    walk.unsure.discard(workload.name)
    known = learned_of(walk.state.db, queue, revision(how.spec)[0])
    oldest, last = tasks.oldest_due(walk.state.db, queue.id), batches.last_sent(walk.state.db, queue.id)
    waited = 0 if oldest is None else walk.clock() - max(oldest, last or 0)
    claim = Claim(workload.name, queue.id, workload.priority, waited)
    visits.append(Visit(workload, queue, how, last_id, rates, known, claim))


def _held(walk: Walk, workload: WorkloadConfig, pending: int) -> Wait | None:
    """Return that a workload, or its provider, is held at this moment, or None; it is said where tasks wait for it."""
    hold = walk.held(workload)
    if hold is None:
        return None
    if pending:
        walk.note_hold(hold)
    return Wait(Why.HELD, holding.described(hold), hold.until)


def _outdated(walk: Walk) -> Wait | None:
    """Return that the configuration has changed since this run read it, or None: what was retried with a mended prompt, and
    whatever else waits, is not to be sent with the old one.
    """
    if not walk.config.changed():
        return None
    return Wait(
        Why.CHANGED, "the configuration or a prompt was changed while this run was at work; the next one sends them"
    )


def _waits(walk: Walk, workload: WorkloadConfig, queues: Sequence[tasks.Queue]) -> Wait | None:
    """Return why nothing of a workload goes now, or None where it is due and its provider may be spoken to."""
    now, provider, rule = walk.clock(), workload.provider, workload.dispatch
    least = 1 if walk.ignore_waits else rule.min_requests
    if wait := packing.unripe(_waiting(walk, queues, least), least, rule.max_wait, now):
        return wait
    if provider in walk.blocked:
        return _BLOCKED
    rest = walk.route(provider)
    if walk.ignore_waits or not backoff.until(rest.paused_until, now):
        return None
    text = f"{provider} is left alone until {rfc3339(rest.paused_until)}: {rest.why}"
    walk.problems.append(Problem(ProblemKind.UNREACHABLE, text, EX_TEMPFAIL, provider=provider))
    return Wait(Why.BACKOFF, rest.why or "its provider could not be reached", rest.paused_until)


def _waiting(walk: Walk, queues: Sequence[tasks.Queue], least: int) -> Waiting:
    """Return what waits in these queues, counted no further than ``least``."""
    db = walk.state.db
    ages = [tasks.oldest_due(db, queue.id) for queue in queues]
    times = [tasks.not_yet(db, queue.id)[1] for queue in queues]
    return Waiting(
        sum(tasks.due_count(db, queue.id, least) for queue in queues),
        min((at for at in ages if at is not None), default=None),
        min((at for at in times if at is not None), default=None),
    )


def _come_by(walk: Walk, visit: Visit, turn: Turn, again: set[int]) -> None:
    """Make batches of what is due of a queue: all of it, or, where room is scarce, one of what is its turn's.

    Args:
        again: gets the queue where the next round is to come by it once more.
    """
    workload, queue = visit.workload, visit.queue
    model, refusals = visit.model or None, 0
    if queue.id not in walk.come_by:
        walk.come_by.add(queue.id)
        walk.end_used_up(visit)
    while workload.provider not in walk.blocked and refusals < _MOST_REFUSALS:
        pending = walk.pending(queue.id)
        wait = _held(walk, workload, pending) or _outdated(walk) or _kept(walk, visit)
        room = wait or packing.room(_facts(walk, visit, turn))
        if isinstance(room, Wait):
            walk.note_waits(workload, pending - walk.aside(visit), room, model)
            _keep(walk, visit, room.why)
            return
        sent = walk.next_batch(visit, room)
        if sent is Sent.FULL:
            _keep(walk, visit, Why.QUOTA)
        if sent is Sent.DONE:
            walk.note_waits(workload, len(walk.suspected(visit)), packing.SEARCHED, model)
            n, next_at = tasks.not_yet(walk.state.db, queue.id)
            walk.note_waits(workload, max(n - walk.aside(visit), 0), packing.later(next_at), model)
        if sent in (Sent.DONE, Sent.STOP, Sent.FULL, Sent.UNFUNDED):
            return
        refusals += sent is Sent.REFUSED
        if sent is Sent.TAKEN and room.bounds:
            again.add(queue.id)
            return


def _keep(walk: Walk, visit: Visit, why: Why) -> None:
    """Keep what room there is in a queue for a visit that has waited for long, and for which there is not enough of it."""
    if why is Why.QUOTA and visit.claim.waited >= fairness.LONG_SECONDS:
        walk.kept.setdefault(walk.place(visit), visit.queue.id)


def _kept(walk: Walk, visit: Visit) -> Wait | None:
    """Return that the room in a queue is kept for another visit, or None."""
    for_whom = walk.kept.get(walk.place(visit), visit.queue.id)
    if for_whom == visit.queue.id:
        return None
    return Wait(
        Why.QUOTA, "what room there is is kept for requests that have waited for a day, until it is enough for them"
    )


_BLOCKED = Wait(Why.PAUSED, "nothing more goes to its provider in this run")


def learned_of(db: Connection, queue: tasks.Queue, revision: str) -> Learned | None:
    """Return what answers of a queue under a revision say of the next ones; None where there are too few."""
    past = batches.history(db, queue.id, queue.workload, revision)
    return estimate.learned(estimate.History(*row) for row in past)


def refuse_misfit(workload: WorkloadConfig, queue: tasks.Queue, dialect: Dialect) -> None:
    """Raise ConfigError where the lines of a queue cannot be sent as their workload is configured now."""
    if queue.dialect and queue.dialect != dialect.name:
        raise ConfigError(
            f"workload {workload.name}: {queue.dialect} lines wait in it, and its provider takes {dialect.name} ones",
            hint=f"set its provider to one that speaks {queue.dialect}",
            workload=workload.name,
        )
    if bool(queue.dialect) == workload.has_prompt:
        kind = "ready lines" if queue.dialect else "records"
        raise ConfigError(
            f"workload {workload.name}: {kind} wait in it, and with its prompt {'set' if queue.dialect else 'gone'} they cannot be sent",
            hint="use another workload's name for the other kind",
            workload=workload.name,
        )


def _facts(walk: Walk, visit: Visit, turn: Turn) -> packing.Facts:
    """Return what is known of a queue now, for the decision about its next batch."""
    workload, spec = visit.workload, visit.rendering.spec
    now, db = walk.clock(), walk.state.db
    route = walk.route(workload.provider, spec.endpoint, spec.model)
    configured = walk.config.providers[workload.provider].limits
    under_way = walk.under_way()
    allowances, learned, last, full_until, struck = [], False, 0, 0, bool(route.failures_in_a_row)
    for unit in enqueued.UNITS:
        queue = enqueued.queue_of(spec.dialect, walk.account(workload.provider), spec.model, unit)
        known = quotas.fresh(quota_rows.quota(db, *queue), now)
        if known is not None:
            full_until, struck = max(full_until, backoff.until(known.paused_until, now)), struck or bool(known.strikes)
        cap = configured.enqueued_tokens if unit == "tokens" else configured.enqueued_requests
        inside = enqueued.within(under_way, queue, walk.accounts.address(workload.provider))
        used = enqueued.used(inside, unit)
        found = quotas.allowance(unit, known, cap, used, now)
        taken = used - walk.round.setdefault(queue, used)
        allowances += [] if found is None else [found._replace(taken=max(taken, 0))]
        learned = learned or (known is not None and not all(one.decided for one in inside))
        last = max((one.sent_at for one in inside if one.sent_at is not None), default=0)
    oldest = tasks.oldest_due(db, visit.queue.id)
    due_since = now if oldest is None else max(oldest, last)
    return packing.Facts(
        limits=walk.accounts.limits(workload.provider),
        learned=route.cap,
        paused_until=0 if walk.ignore_waits else backoff.until(route.paused_until, now),
        paused_for=route.why,
        full_until=0 if walk.ignore_waits else full_until,
        probing=learned and struck and not walk.ignore_waits,
        allowances=allowances,
        funds=walk.funds(workload),
        turn=turn,
        each=_each(visit),
        waiting=walk.pending(visit.queue.id),
        overdue=walk.ignore_waits or now - due_since >= workload.dispatch.max_wait,
        canary=walk.canary(visit),
    )


def _each(visit: Visit) -> Weight | None:
    """Return what a request of a queue comes to on average, as answers of its revision say; None where there are too few."""
    known, rates = visit.learned, visit.rates
    if known is None:
        return None
    return Weight(known.input, known.output, None if rates is None else known.cost(rates, known.input))
