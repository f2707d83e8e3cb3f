"""The walk over the queues that dispatch and its dry run share: what goes, in which order, and what waits, and why.

Of each workload that is due, queue after queue, batch after batch: how much may go is decided from what is known of the
queue now (:mod:`nura_cli.pipeline.packing`). What a batch comes to is up to who walks: dispatch sends it, a dry run
measures it and remembers what would have changed. So what one says is what the other does.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import NamedTuple

from nura_cli import contract, logs
from nura_cli.clock import rfc3339
from nura_cli.config import Config, WorkloadConfig
from nura_cli.dialects.base import Dialect
from nura_cli.errors import (
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
from nura_cli.pipeline import backoff, holding, packing, search
from nura_cli.pipeline.packing import Room, Wait, Waiting, Why
from nura_cli.pipeline.render import Rendering, rendering, revision
from nura_cli.pipeline.report import Problem, counted
from nura_cli.pipeline.run import ProviderRun
from nura_cli.state import actions, batches, runs, standings, suspects, tasks
from nura_cli.state.actions import Hold
from nura_cli.state.standings import Held
from nura_cli.state.suspects import Due
from nura_cli.states import BatchStatus

_MOST_REFUSALS = 40
"""Refused batches of one queue after which the search for the culprit goes on in the next run."""
_HOLDS_TOKENS = (BatchStatus.UPLOADED, BatchStatus.SUBMITTING, BatchStatus.SUBMITTED, BatchStatus.COMPLETED)
"""Batches that count towards a cap on what is under way: all but those that are only being written."""


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


class Visit(NamedTuple):
    """A queue as a run comes by: what of it is to go, and how.

    Attributes:
        rendering: how they become requests now.
        last_id: the last task id to send: what comes in meanwhile waits for the next run.
    """

    workload: WorkloadConfig
    queue: tasks.Queue
    rendering: Rendering
    last_id: int


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
    """

    ignore_waits: bool = False
    progress: Callable[[str], None] = lambda text: None
    blocked: set[str] = field(default_factory=set)
    waits: list[Waits] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state.db.all_due = self.ignore_waits

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

    def under_way(self, provider: str, model: str) -> int:
        """Return the bytes of the request files that are under way at a provider for a model."""
        found = batches.under_way(self.state.db, *_HOLDS_TOKENS)
        return sum(batch.bytes for batch in found if (batch.provider, batch.model) == (provider, model))

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

    def note_hold(self, hold: Hold) -> None:
        """Note that something is held: once a run, however much waits for it."""
        found = holding.problem(hold)
        if found.scope not in {known.scope for known in self.problems}:
            self.note(found)

    def note_waits(self, workload: WorkloadConfig, n: int, wait: Wait, model: str | None = None) -> None:
        """Note that ``n`` tasks wait."""
        if n:
            logs.decided("%s: %s tasks wait (%s): %s", workload.name, n, wait.why, wait.words)
            self.waits.append(Waits(workload, model, n, wait))

    def waiting(self, requests: int) -> contract.Waiting:
        """Return how things stand, for the report: what waits, by reason and in full, and what is not confirmed."""
        by_reason = {why: sum(one.tasks for one in self.waits if one.wait.why is why) for why in Why}
        return {
            "requests": requests,
            "not_due": {
                "threshold": by_reason[Why.THRESHOLD],
                "backoff": by_reason[Why.BACKOFF],
                "paused": by_reason[Why.PAUSED],
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
    """Visit the queues of these workloads, in their order, and make batches of what is due.

    Those go last in which a request is looked for that gets its batches refused: that may pause the route which others share.
    """
    searched = suspects.searched(walk.state.db)
    for workload in sorted(workloads, key=lambda one: one.name in searched):
        guarded(walk, workload.provider, workload.name, partial(_visit, walk, workload))


def _visit(walk: Walk, workload: WorkloadConfig) -> None:
    """Visit one workload: say why it waits, or see that it can be sent, and its answers received, and visit its queues."""
    queues = [queue for queue in tasks.queues(walk.state.db) if queue.workload == workload.name]
    pending = sum(walk.pending(queue.id) for queue in queues)
    wait = _held(walk, workload, pending) or _waits(walk, workload, queues)
    if wait is not None:
        walk.note_waits(workload, pending, wait)
        return
    try:
        workload.check()
        walk.check_targets(workload)
    except (ConfigError, DatabaseDown) as error:
        walk.fail(error, workload=workload.name)
        return
    last_id = tasks.last_id(walk.state.db)
    for queue in queues:
        guarded(walk, workload.provider, workload.name, partial(_visit_queue, walk, workload, queue, last_id))


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
        return Wait(Why.PAUSED, "nothing more goes to its provider in this run")
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


def _visit_queue(walk: Walk, workload: WorkloadConfig, queue: tasks.Queue, last_id: int) -> None:
    """Make batches of all that is due of one queue."""
    dialect = walk.accounts.dialect(workload.provider)
    refuse_misfit(workload, queue, dialect)
    visit = Visit(workload, queue, rendering(workload, dialect, queue.endpoint, queue.model), last_id)
    model = visit.rendering.spec.model or None
    walk.end_used_up(visit)
    refusals = 0
    while workload.provider not in walk.blocked and refusals < _MOST_REFUSALS:
        pending = walk.pending(queue.id)
        room = _held(walk, workload, pending) or _outdated(walk) or packing.room(_facts(walk, visit))
        if isinstance(room, Wait):
            walk.note_waits(workload, pending, room, model)
            return
        sent = walk.next_batch(visit, room)
        if sent is Sent.DONE:
            walk.note_waits(workload, len(walk.suspected(visit)), packing.SEARCHED, model)
            n, next_at = tasks.not_yet(walk.state.db, queue.id)
            walk.note_waits(workload, n, packing.later(next_at), model)
        if sent in (Sent.DONE, Sent.STOP):
            return
        refusals += sent is Sent.REFUSED


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


def _facts(walk: Walk, visit: Visit) -> packing.Facts:
    """Return what is known of a queue now, for the decision about its next batch."""
    provider, spec = visit.workload.provider, visit.rendering.spec
    route = walk.route(provider, spec.endpoint, spec.model)
    cap = walk.config.providers[provider].limits.enqueued_tokens
    return packing.Facts(
        limits=walk.accounts.limits(provider),
        learned=route.cap,
        paused_until=0 if walk.ignore_waits else backoff.until(route.paused_until, walk.clock()),
        paused_for=route.why,
        token_cap=cap,
        under_way=0 if cap is None else walk.under_way(provider, spec.model),
    )
