"""nura retry: what is final is tried again, as a person decided.

Takes tasks that stand for their keys. Failed and cancelled ones wait again, with fresh attempts; what they cost so far stays in
the ledger, and what the application was still to be told of their failure is closed. Of a completed one a *new* task is made
from the kept record: the old answer stands, in results and in the row, until the new one completes, and for good if it does
not. Completed ones are meant only where their answer has another revision than today's, so that the same command run again costs
nothing; with ``until`` those of today's are meant, too. One that is being run again already is left alone.

One that failed because its text was cut at the token limit costs nothing where its workload takes such texts by now
(``accept_truncated``): it is completed with the response that was kept, no attempt is added, and the application is told as of
any answer. A workload with a schema takes none: what fits it was completed at once. A re-run without an answer is none of these:
the old answer stands for its key.

It takes no stage lock: each chunk is one transaction, which looks at its tasks anew, and no more is done than was said before.
What can go wrong: killed half-way, it is run again; what a workload holds that has left the configuration, or that cannot be
sent as it is configured now, is reported, and the rest is done.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import NamedTuple

from nura_cli import contract, progress
from nura_cli.config import Config
from nura_cli.dialects.base import Spec
from nura_cli.dialects.vendors import dialect as dialect_of
from nura_cli.errors import ConfigError, InputError, UsageError
from nura_cli.pipeline.estimate import Gauge, Learned, prices_of
from nura_cli.pipeline.lines import shown
from nura_cli.pipeline.plans import plan_of
from nura_cli.pipeline.queues import learned_of, refuse_misfit
from nura_cli.pipeline.render import Rendering, rendering, revision
from nura_cli.pipeline.report import Problem, Report, counted
from nura_cli.pipeline.run import Run
from nura_cli.pricing import Rates, decimal_dollars
from nura_cli.state import Connection, State, actions, answers, batches, outbox, purges, retries, tasks
from nura_cli.state.retries import Candidate
from nura_cli.state.selection import Selection
from nura_cli.states import ErrorKind, TaskStatus

_SAMPLE = 500
"""Tasks of a queue that are rendered to say what all of them may cost."""
_TAG = "x" * 20
"""Stands for a batch's tag, which is as long."""
_NEVER = {
    TaskStatus.PENDING: ("it waits already", "nura dispatch sends it"),
    TaskStatus.SUBMITTED: ("it is under way", "nura poll brings it home; a failed one may then be retried"),
}


class Fate(Enum):
    """What becomes of a task that is meant."""

    WAITS = "waits"  # it failed or was cancelled: pending again
    TAKEN = "taken"  # it failed, and has a response that its workload takes by now: completed
    ANEW = "anew"  # it has an answer: a new task is made from its record
    UNCHANGED = "unchanged"  # its answer has today's revision: left alone
    RUNNING = "running"  # it is being run again: left alone


def fate(found: Candidate, today: str, *, every: bool, kept: bool = False) -> Fate:
    """Decide what becomes of a task.

    Args:
        today: the revision with which it would be sent now.
        every: whether answers of that revision are meant, too.
        kept: whether it failed with a response that its workload takes as an answer.
    """
    if found.status is not TaskStatus.COMPLETED:
        return Fate.TAKEN if kept else Fate.WAITS
    if found.running:
        return Fate.RUNNING
    return Fate.ANEW if every or found.revision != today else Fate.UNCHANGED


class Way(NamedTuple):
    """How what waits in a queue would be sent now, and what that goes by costs; ``takes``: whether a text that was cut is an answer."""

    queue: tasks.Queue
    rendering: Rendering
    revision: str
    rates: Rates | None
    learned: Learned | None
    takes: bool


class Cost(NamedTuple):
    """What tasks may come to: tokens of input, and pico-dollars in a batch, or None where no price is known."""

    tokens: int
    cost: int | None


@dataclass
class Share:
    """What is retried of one queue: how many tasks by their fate, and the first of them."""

    fates: Counter[Fate] = field(default_factory=Counter)
    sample: list[int] = field(default_factory=list)

    @property
    def n(self) -> int:
        """How many tasks will be sent."""
        return self.fates[Fate.WAITS] + self.fates[Fate.ANEW]


@dataclass(kw_only=True)
class Retry(Run):
    """One run: what is meant, and what is to become of it.

    Attributes:
        parts: the selections.
        upto: the newest answer there was when it was counted; later ones are not touched.
        every: as for :func:`fate`.
        ways: of each queue that can be sent now.
        shares: by queue, as it was counted.
        schemas: by revision, whether answers of it had to fit a schema.
        costs: by workload, what all that is sent again may come to.
    """

    parts: Sequence[Selection]
    upto: int
    every: bool
    ways: dict[int, Way] = field(default_factory=dict)
    shares: defaultdict[int, Share] = field(default_factory=lambda: defaultdict(Share))
    schemas: dict[str, bool] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """How many tasks will be sent again, or take the answers they have."""
        return sum(share.n for share in self.shares.values()) + self.total(Fate.TAKEN)

    def total(self, which: Fate) -> int:
        """Return how many tasks have this fate."""
        return sum(share.fates[which] for share in self.shares.values())


def check(statuses: Iterable[TaskStatus]) -> list[TaskStatus]:
    """Return the statuses that are meant: failed, where none is named. Raises UsageError: one is never retried."""
    for status in statuses:
        if status in _NEVER:
            why, hint = _NEVER[status]
            raise UsageError(f"--status {status}: {why}, and is not retried", hint=hint)
    return list(statuses) or [TaskStatus.FAILED]


def plan(state: State, config: Config, parts: Iterable[Selection], problems: list[Problem]) -> Retry:
    """Look at what would be retried; nothing is written.

    Args:
        parts: the tasks that are meant, each in one part; their statuses as from :func:`check`.
        problems: those that there were before; more are added.
    """
    listed = list(parts)
    every = any(part.until is not None for part in listed)
    job = Retry(state=state, config=config, parts=listed, upto=retries.newest(state.db), every=every, problems=problems)
    queues = {queue.id: queue for queue in tasks.queues(state.db)}
    looked_at: set[int] = set()
    for part in listed:
        for workload, key in purges.gone(state.db, part.workloads, part.keys) if part.keys else ():
            job.fail(InputError(f"{workload}, key {shown(key)}: purged, there is nothing to send"), workload=workload)
        for page in retries.pages(state.db, part, job.upto):
            for queue in {found.queue_id for found in page} - looked_at:
                looked_at.add(queue)
                _find_way(job, queues[queue])
            kept = _kept(job, page)
            for found in page:
                _count(job, found, kept=found.task_id in kept)
    for queue, share in job.shares.items():
        if share.n:
            _add_cost(job, job.ways[queue], share)
    return job


def _find_way(job: Retry, queue: tasks.Queue) -> None:
    """Find out how a queue would be sent now; where it cannot be, that is a problem of the run's."""
    with job.apart(f"workload {queue.workload}", ConfigError, UsageError, workload=queue.workload):
        workload = job.config.workload(queue.workload)
        dialect = dialect_of(job.config.providers[workload.provider].dialect)
        refuse_misfit(workload, queue, dialect)
        made = rendering(workload, dialect, queue.endpoint, queue.model)
        rates, name = prices_of(job.config, workload.provider, dialect).rates(made.spec.model), revision(made.spec)[0]
        known = learned_of(job.state.db, queue, name)
        takes = workload.accept_truncated and workload.answer_schema is None
        job.ways[queue.id] = Way(queue, made, name, rates, known, takes)


def _kept(job: Retry, page: Sequence[Candidate]) -> set[int]:
    """Return which tasks of a page failed with a response that is an answer to what their workloads take now."""
    cut = [
        found.task_id
        for found in page
        if found.status is TaskStatus.FAILED and found.kind == ErrorKind.TRUNCATED
        if found.queue_id in job.ways and job.ways[found.queue_id].takes
    ]
    return {row.task_id for part in answers.parts(job.state.db, cut) for row in part if _usable(job, row)}


def _usable(job: Retry, row: answers.Row) -> bool:
    """Whether a response that failed has a text, is no refusal, and did not have to fit a schema."""
    if row.body is None or row.dialect is None or row.revision is None:
        return False
    if row.revision not in job.schemas:
        spec = Spec.stored(batches.spec(job.state.db, row.revision))
        job.schemas[row.revision] = spec.answer_schema is not None
    answer = dialect_of(row.dialect).answer(row.endpoint or "", row.body)
    return bool(answer.text) and not answer.refusal and not job.schemas[row.revision]


def _count(job: Retry, found: Candidate, *, kept: bool) -> None:
    way = job.ways.get(found.queue_id)
    if way is None:
        return
    share = job.shares[found.queue_id]
    becomes = fate(found, way.revision, every=job.every, kept=kept)
    share.fates[becomes] += 1
    if becomes in (Fate.WAITS, Fate.ANEW) and len(share.sample) < _SAMPLE:
        share.sample.append(found.task_id)


def _add_cost(job: Retry, way: Way, share: Share) -> None:
    one = _cost(job.state, way, share)
    before = job.costs.get(way.queue.workload, Cost(0, 0))
    cost = None if one.cost is None or before.cost is None else before.cost + one.cost
    job.costs[way.queue.workload] = Cost(before.tokens + one.tokens, cost)


def _cost(state: State, way: Way, share: Share) -> Cost:
    """Return what the tasks may come to, at the mean of the first of them; what cannot be rendered fails, and costs nothing."""
    dialect, spec = way.rendering.dialect, way.rendering.spec
    make = way.rendering.maker(_TAG, dialect.limits)
    gauge = Gauge(partial(dialect.measure, spec.endpoint), way.rates, way.learned, bounded=False)
    weights = []
    for task_id, line in tasks.lines(state.db, share.sample):
        with suppress(InputError):
            request = make(task_id, line)
            weights.append(gauge.weigh(request.body, len(request.data)))
    times = share.n / max(len(share.sample), 1)
    expected = [one.expected for one in weights if one.expected is not None]
    cost = round(sum(expected) * times) if way.rates is not None else None
    return Cost(round(sum(one.input for one in weights) * times), cost)


def question(job: Retry) -> str:
    """Return what would be done, and what it may cost: ``2 tasks of w wait again, at about $0.40``; what costs
    nothing comes last: ``3 tasks of w get the answers they have, at no cost``.
    """
    by_workload: dict[str, Counter[Fate]] = {}
    for queue, share in job.shares.items():
        by_workload.setdefault(job.ways[queue].queue.workload, Counter()).update(share.fates)
    said = [
        f"{counted(n, 'task')} of {workload} {verb}"
        for workload, fates in by_workload.items()
        for n, verb in (
            (fates[Fate.WAITS], "waits again" if fates[Fate.WAITS] == 1 else "wait again"),
            (fates[Fate.ANEW], "is run anew" if fates[Fate.ANEW] == 1 else "are run anew"),
        )
        if n
    ]
    taken = [
        f"{counted(n, 'task')} of {workload} {'gets the answer it has' if n == 1 else 'get the answers they have'}"
        for workload, fates in by_workload.items()
        if (n := fates[Fate.TAKEN])
    ]
    sent = [f"{', '.join(said)}, {_price(job.costs)}"] if said else []
    free = [f"{', '.join(taken)}, at no cost"] if taken else []
    return "; ".join([*sent, *free])


def _price(found: dict[str, Cost]) -> str:
    known = sum(one.cost for one in found.values() if one.cost is not None)
    unknown = [workload for workload, one in found.items() if one.cost is None]
    if not unknown:
        return f"at about ${decimal_dollars(known)}"
    rest = f"about ${decimal_dollars(known)} for the others and " if len(unknown) < len(found) else ""
    return f"at {rest}a cost that is not known, since there is no price for the model of {', '.join(unknown)}"


def report(job: Retry, done: Counter[Fate] | None = None) -> Report:
    """Return what was done; without it, what would be.

    Returns:
        ``retried``, ``taken`` and ``rerun``: the tasks that wait again, those that were completed with the answers they had, and
        those of which new ones were made; ``left``: completed ones that
        were left alone, and why; ``workloads``: what each was estimated at.
    """
    figures = Counter({which: job.total(which) for which in Fate}) if done is None else done
    result: contract.Retried = {
        "dry_run": done is None,
        "retried": figures[Fate.WAITS],
        "taken": figures[Fate.TAKEN],
        "rerun": figures[Fate.ANEW],
        "left": {"unchanged": figures[Fate.UNCHANGED], "running": figures[Fate.RUNNING]},
        "workloads": {
            workload: {"estimated_tokens": one.tokens, "estimated_cost": decimal_dollars(one.cost)}
            for workload, one in job.costs.items()
        },
    }
    return Report(result, job.problems, worked=bool(job.shares))


def run(job: Retry) -> Report:
    """Do what was planned, in chunks. What is no longer as it was counted is left alone.

    Returns:
        As :func:`report`.
    """
    done: Counter[Fate] = Counter()
    if not job.n:
        return report(job, Counter({which: job.total(which) for which in Fate}))  # nothing was agreed to
    with progress.going("retrying", sum(job.total(which) for which in Fate)) as step:
        for part in job.parts:
            for page in retries.pages(job.state.db, part, job.upto):
                with job.state.transaction() as db:
                    done += _retried(db, job, page)
                job.state.yield_to_writers()
                step.add(len(page))
    return report(job, done)


def _retried(db: Connection, job: Retry, page: Sequence[Candidate]) -> Counter[Fate]:
    """Retry those of a page that are candidates still; return how many of them have which fate."""
    groups: dict[tuple[int, Fate, TaskStatus], list[Candidate]] = {}
    candidates = retries.still(db, page, job.upto)
    kept = _kept(job, candidates)
    for found in candidates:
        if found.queue_id in job.ways:
            today = job.ways[found.queue_id].revision
            becomes = fate(found, today, every=job.every, kept=found.task_id in kept)
            groups.setdefault((found.queue_id, becomes, found.status), []).append(found)
    done: Counter[Fate] = Counter()
    for (queue, becomes, status), those in groups.items():
        done[becomes] += len(those)
        ids, n = [found.task_id for found in those], len(those)
        what = counted(n, f"{status} task")
        if becomes is Fate.WAITS:
            answers.wait_again(db, queue, status, ids, "retried, as a person decided")
            what += " waits again" if n == 1 else " wait again"
        elif becomes is Fate.TAKEN:
            _take(db, job, queue, those)
            what += " gets the answer it has" if n == 1 else " get the answers they have"
        elif becomes is Fate.ANEW:
            retries.run_again(db, queue, ids, "run again, as a person decided")
            what += " is run anew" if n == 1 else " are run anew"
        else:
            continue
        actions.note(db, "retry", what, n, workload=job.ways[queue].queue.workload)
    return done


def _take(db: Connection, job: Retry, queue: int, those: Sequence[Candidate]) -> None:
    """Complete failed tasks of a queue with the responses they have, and note whom the application is to be told of."""
    plan = plan_of(job.config, job.ways[queue].queue.workload)
    by_batch: dict[int, list[int]] = {}
    for found in those:
        if found.batch_id is not None:
            by_batch.setdefault(found.batch_id, []).append(found.task_id)
    for batch_id, ids in by_batch.items():
        retries.take(db, queue, batch_id, ids, "the answer that it has is taken, as a person decided")
        outbox.add_for_tasks(db, queue, batch_id, [(one, TaskStatus.COMPLETED) for one in ids], plan)
