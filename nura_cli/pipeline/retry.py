"""nura retry: what is final is tried again, as a person decided.

Takes tasks that stand for their keys. Failed and cancelled ones wait again, with fresh attempts; what they cost so far stays in
the ledger, and what the application was still to be told of their failure is closed. Of a completed one a *new* task is made
from the kept record: the old answer stands, in results and in the row, until the new one completes, and for good if it does
not. Completed ones are meant only where their answer has another revision than today's, so that the same command run again costs
nothing; with ``until`` those of today's are meant, too. One that is being run again already is left alone.

It takes no stage lock: each chunk is one transaction, which looks at its tasks anew, and no more is done than was said before.
What can go wrong: killed half-way, it is run again; what a workload holds that has left the configuration, or that cannot be
sent as it is configured now, is reported, and the rest is done.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from nura_cli.config import Config
from nura_cli.dialects.vendors import dialect as dialect_of
from nura_cli.errors import ConfigError, InputError, UsageError
from nura_cli.pipeline.estimate import Estimate, estimate
from nura_cli.pipeline.queues import refuse_misfit
from nura_cli.pipeline.render import Rendering, rendering, revision
from nura_cli.pipeline.report import Problem, Report, counted
from nura_cli.pipeline.run import Run
from nura_cli.pricing import Prices, decimal_dollars
from nura_cli.state import Connection, State, actions, answers, retries, tasks
from nura_cli.state.retries import Candidate
from nura_cli.state.selection import Selection
from nura_cli.states import TaskStatus

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
    ANEW = "anew"  # it has an answer: a new task is made from its record
    UNCHANGED = "unchanged"  # its answer has today's revision: left alone
    RUNNING = "running"  # it is being run again: left alone


def fate(found: Candidate, today: str, *, every: bool) -> Fate:
    """Decide what becomes of a task.

    Args:
        today: the revision with which it would be sent now.
        every: whether answers of that revision are meant, too.
    """
    if found.status is not TaskStatus.COMPLETED:
        return Fate.WAITS
    if found.running:
        return Fate.RUNNING
    return Fate.ANEW if every or found.revision != today else Fate.UNCHANGED


class Way(NamedTuple):
    """How what waits in a queue would be sent now."""

    queue: tasks.Queue
    rendering: Rendering
    revision: str
    prices: Prices


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
        costs: by workload, what the input of all that is sent again may come to.
    """

    parts: Sequence[Selection]
    upto: int
    every: bool
    ways: dict[int, Way] = field(default_factory=dict)
    shares: defaultdict[int, Share] = field(default_factory=lambda: defaultdict(Share))
    costs: dict[str, Estimate] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """How many tasks will be sent again."""
        return sum(share.n for share in self.shares.values())

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
        for page in retries.pages(state.db, part, job.upto):
            for queue in {found.queue_id for found in page} - looked_at:
                looked_at.add(queue)
                _find_way(job, queues[queue])
            for found in page:
                _count(job, found)
    for queue, share in job.shares.items():
        if share.n:
            _add_cost(job, job.ways[queue], share)
    return job


def _find_way(job: Retry, queue: tasks.Queue) -> None:
    """Find out how a queue would be sent now; where it cannot be, that is a problem of the run's."""
    with job.apart(f"workload {queue.workload}", ConfigError, UsageError, workload=queue.workload):
        workload = job.config.workload(queue.workload)
        provider = job.config.providers[workload.provider]
        dialect = dialect_of(provider.dialect)
        refuse_misfit(workload, queue, dialect)
        made = rendering(workload, dialect, queue.endpoint, queue.model)
        prices = Prices(dialect.price_list, provider.base_url)
        job.ways[queue.id] = Way(queue, made, revision(made.spec)[0], prices)


def _count(job: Retry, found: Candidate) -> None:
    way = job.ways.get(found.queue_id)
    if way is None:
        return
    share = job.shares[found.queue_id]
    becomes = fate(found, way.revision, every=job.every)
    share.fates[becomes] += 1
    if becomes in (Fate.WAITS, Fate.ANEW) and len(share.sample) < _SAMPLE:
        share.sample.append(found.task_id)


def _add_cost(job: Retry, way: Way, share: Share) -> None:
    one = _cost(job.state, way, share)
    before = job.costs.get(way.queue.workload, Estimate(0, 0))
    cost = None if one.cost is None or before.cost is None else before.cost + one.cost
    job.costs[way.queue.workload] = Estimate(before.tokens + one.tokens, cost)


def _cost(state: State, way: Way, share: Share) -> Estimate:
    make = way.rendering.maker(_TAG, way.rendering.dialect.limits)
    sizes = []
    for task_id, line in tasks.lines(state.db, share.sample):
        try:
            sizes.append(len(make(task_id, line).data))
        except InputError:
            sizes.append(0)  # it fails, and costs nothing
    mean = sum(sizes) / max(len(sizes), 1)
    return estimate(way.prices, way.rendering.spec.model, share.n, round(mean * share.n))


def question(job: Retry) -> str:
    """Return what would be done, and what it may cost: ``2 tasks of w wait again, at about $0.40 for their input``."""
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
    return f"{', '.join(said)}, {_price(job.costs)}"


def _price(found: dict[str, Estimate]) -> str:
    known = sum(one.cost for one in found.values() if one.cost is not None)
    unknown = [workload for workload, one in found.items() if one.cost is None]
    if not unknown:
        return f"at about ${decimal_dollars(known)} for their input"
    rest = f"about ${decimal_dollars(known)} for the others' input and " if len(unknown) < len(found) else ""
    return f"at {rest}a cost that is not known, since there is no price for the model of {', '.join(unknown)}"


def report(job: Retry, done: Counter[Fate] | None = None) -> Report:
    """Return what was done; without it, what would be.

    Returns:
        ``retried`` and ``rerun``: the tasks that wait again, and those of which new ones were made; ``left``: completed ones that
        were left alone, and why; ``workloads``: what each was estimated at.
    """
    figures = Counter({which: job.total(which) for which in Fate}) if done is None else done
    result: dict[str, Any] = {
        "dry_run": done is None,
        "retried": figures[Fate.WAITS],
        "rerun": figures[Fate.ANEW],
        "left": {str(which.value): figures[which] for which in (Fate.UNCHANGED, Fate.RUNNING)},
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
    for part in job.parts:
        for page in retries.pages(job.state.db, part, job.upto):
            with job.state.transaction() as db:
                done += _retried(db, job, page)
            job.state.yield_to_writers()
    return report(job, done)


def _retried(db: Connection, job: Retry, page: Sequence[Candidate]) -> Counter[Fate]:
    """Retry those of a page that are candidates still; return how many of them have which fate."""
    groups: dict[tuple[int, Fate, TaskStatus], list[int]] = {}
    for found in retries.still(db, page, job.upto):
        if found.queue_id in job.ways:
            becomes = fate(found, job.ways[found.queue_id].revision, every=job.every)
            groups.setdefault((found.queue_id, becomes, found.status), []).append(found.task_id)
    done: Counter[Fate] = Counter()
    for (queue, becomes, status), ids in groups.items():
        done[becomes] += len(ids)
        workload = job.ways[queue].queue.workload
        if becomes is Fate.WAITS:
            answers.wait_again(db, queue, status, ids, "retried, as a person decided")
            verb = "waits" if len(ids) == 1 else "wait"
            actions.note(
                db, "retry", f"{counted(len(ids), f'{status} task')} {verb} again", len(ids), workload=workload
            )
        elif becomes is Fate.ANEW:
            retries.run_again(db, queue, ids, "run again, as a person decided")
            verb = "is" if len(ids) == 1 else "are"
            what = f"{counted(len(ids), f'{status} task')} {verb} run anew"
            actions.note(db, "retry", what, len(ids), workload=workload)
    return done
