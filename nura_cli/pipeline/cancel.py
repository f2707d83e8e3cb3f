"""nura cancel: what waits is withdrawn, and batches under way are cancelled, because a person says so.

Takes pending tasks; leaves them ``cancelled``, and the application is told. Takes batches that are not final; leaves in
each the wish that it be cancelled, and carries it out as far as it can reach: one that was not created yet is undone and
its tasks are cancelled; the provider of one under way is asked to cancel it, and what it has answered still comes home and
is billed. What this command cannot do, the stages do: dispatch undoes, and cancels a create that it finds to have arrived;
poll asks until the provider takes it; reconcile tries nothing of the batch again.

What can go wrong: a provider that cannot be reached, or left the configuration, alone; the wish stands. It works in
chunks, does nothing the second time, and when it is killed half-way is simply run again. It takes no lock to note a wish,
and dispatch's to undo a batch; where a dispatch is at work, that one reads the wish before it uploads and before it
creates.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from nura_cli import contract
from nura_cli.config import Config
from nura_cli.dialects.vendors import dialect as dialect_of
from nura_cli.errors import ConfigError, KeyRefused, ProviderError, StateError, UsageError
from nura_cli.pipeline import plans, settle, wishes
from nura_cli.pipeline.accounts import Accounts
from nura_cli.pipeline.report import Report, batch_dict, counted
from nura_cli.pipeline.run import ProviderRun, about
from nura_cli.pipeline.waiting import refused_before
from nura_cli.pricing import decimal_dollars
from nura_cli.state import State, actions, answers, batches, locks, outbox, tasks
from nura_cli.state.batches import Batch
from nura_cli.state.selection import Selection
from nura_cli.states import BatchStatus, TaskStatus

_UNSENT = (BatchStatus.PROCESSING, BatchStatus.UPLOADED)
_RUNNING = (*_UNSENT, BatchStatus.SUBMITTING, BatchStatus.SUBMITTED)
_NAMED_AT_MOST = 10
"""Keys that a dry run names of a workload."""


@dataclass(kw_only=True)
class Cancel(ProviderRun):
    """One run of the command.

    Attributes:
        tasks: how many tasks were withdrawn, by workload.
        keys: the first of their keys, as JSON, by workload.
    """

    tasks: Counter[str] = field(default_factory=Counter)
    keys: dict[str, list[str]] = field(default_factory=dict)


def waiting(
    state: State,
    config: Config,
    accounts: Accounts,
    parts: Iterable[Selection],
    *,
    workloads: Sequence[str] = (),
    dry_run: bool = False,
) -> Report:
    """Withdraw the tasks of a selection that wait, those that wait for another attempt among them.

    Args:
        parts: the selection, in parts.
        workloads: those it is of; empty where it names none.
        dry_run: count, and do nothing.

    Returns:
        ``cancelled`` tasks, and by workload (``tasks``: how many, and the first ``keys``); ``under_way``: the batches that go
        on all the same, and what they may cost.
    """
    job = Cancel(state=state, config=config, accounts=accounts)
    last_id = tasks.last_id(state.db)
    for chosen in parts:
        for page in tasks.waiting(state.db, chosen, last_id):
            n = len(page) if dry_run else _withdraw(job, page)
            name = page[0].workload
            job.tasks[name] += n
            named = job.keys.setdefault(name, [])
            named += [one.key for one in page[: _NAMED_AT_MOST - len(named)]]
    names = workloads or list(job.tasks)
    goes_on = [one for one in _of(state, names) if one.status in _RUNNING and one.cancel_at is None]
    result: contract.CancelledTasks = {
        "cancelled": job.tasks.total(),
        "tasks": _by_workload(job),
        "under_way": _costs(job, goes_on),
        "dry_run": dry_run,
    }
    return Report(result, job.problems, worked=bool(job.tasks.total()))


def _by_workload(job: Cancel) -> dict[str, contract.Withdrawn]:
    return {name: {"n": n, "keys": job.keys[name]} for name, n in job.tasks.items()}


def _withdraw(job: Cancel, page: Sequence[tasks.Waiting]) -> int:
    """Withdraw a page of one queue's tasks, with a row in the log; return how many of them still waited."""
    _, queue, workload, *_ = page[0]
    plan = plans.plan_of(job.config, workload)
    with job.state.transaction() as db:
        gone = answers.withdraw(db, queue, [one.task_id for one in page], actions.words(db, "cancelled"))
        outbox.add_for_tasks(db, queue, outbox.NO_BATCH, [(one, TaskStatus.CANCELLED) for one in gone.told], plan)
        if gone.n:
            what = f"{counted(gone.n, 'task')} that waited {'is' if gone.n == 1 else 'are'} cancelled"
            actions.note(db, "cancel", what, gone.n, workload=workload)
    job.state.yield_to_writers()
    return gone.n


def meant(state: State, workloads: Sequence[str], batch_id: int | None) -> list[Batch]:
    """Return the batches that are meant: the one of this id, or all of these workloads that are not final.

    Raises:
        UsageError: there is no such batch, or it is of another workload.
    """
    if batch_id is None:
        return _of(state, workloads)
    batch = batches.get(state.db, batch_id)
    if batch is None:
        raise UsageError(f"batch {batch_id} is not known", hint="nura status lists the batches under way")
    if workloads and batch.workload not in workloads:
        raise UsageError(f"batch {batch_id} is of {batch.workload}")
    return [batch]


def _of(state: State, workloads: Sequence[str]) -> list[Batch]:
    return [batch for batch in batches.under_way(state.db) if batch.workload in workloads]


def loses(chosen: Sequence[Batch]) -> str | None:
    """Return in words what cancelling these batches loses, where a vendor does not keep what was answered; else None."""
    at_stake = (BatchStatus.SUBMITTING, BatchStatus.SUBMITTED)
    lost = [
        one
        for one in chosen
        if one.status in at_stake and one.cancel_at is None and not dialect_of(one.dialect).cancel_keeps_answers
    ]
    if not lost:
        return None
    titles = " and ".join(dict.fromkeys(dialect_of(one.dialect).title for one in lost))
    return (
        f"{counted(len(lost), 'batch', 'batches')} {'is' if len(lost) == 1 else 'are'} cancelled, and {titles} throws away"
        " what was answered so far, though it may be billed"
    )


def under_way(
    state: State, config: Config, accounts: Accounts, chosen: Sequence[Batch], *, dry_run: bool = False
) -> Report:
    """Cancel batches, as far as they can be reached now; the wish is noted first.

    Args:
        chosen: as :func:`meant` gives them.
        dry_run: say which, and do nothing.

    Returns:
        ``cancelled`` tasks of batches that were undone; the ``batches``, each with what becomes of it (``message``); and
        ``waiting``: how many tasks of their workloads still wait, which the next batches are made of.
    """
    job = Cancel(state=state, config=config, accounts=accounts)
    job.worked = not dry_run and _wish(job, chosen)
    if not dry_run:
        for batch in _now(job, chosen, BatchStatus.SUBMITTED):
            _ask(job, batch)
        _undo(job, chosen)
    found = [batches.get(state.db, batch.id) or batch for batch in chosen]
    names = dict.fromkeys(batch.workload for batch in chosen)
    pending = tasks.pending(state.db)
    result: contract.CancelledBatches = {
        "cancelled": job.tasks.total(),
        "batches": [{**batch_dict(batch), "message": _becomes(batch, dry_run)} for batch in found],
        "under_way": _costs(job, [batch for batch in found if batch.status in _RUNNING]),
        "waiting": {name: n for name in names if (n := pending.get(name, 0))},
        "dry_run": dry_run,
    }
    return Report(result, job.problems, job.worked)


def _wish(job: Cancel, chosen: Sequence[Batch]) -> bool:
    """Note the wish in each batch in which it is new, each with its row in the log; return whether there was one."""
    new = 0
    with job.state.transaction() as db:
        for batch in chosen:
            if batches.wish_cancelled(db, batch, actions.words(db, "cancelled")):
                what = f"batch {batch.id} ({batch.status}) is to be cancelled"
                actions.note(db, "cancel", what, batch.requests, workload=batch.workload, batch_id=batch.id)
                new += 1
    return bool(new)


def _now(job: Cancel, chosen: Sequence[Batch], *statuses: BatchStatus) -> list[Batch]:
    """Return the batches as they are now, those in these statuses."""
    found = (batches.get(job.state.db, batch.id) for batch in chosen)
    return [batch for batch in found if batch is not None and batch.status in statuses]


def _ask(job: Cancel, batch: Batch) -> None:
    """Ask the provider of a batch under way to cancel it; what keeps it from that is this batch's own problem."""
    with job.apart(f"batch {batch.id}", ProviderError, KeyRefused, ConfigError, StateError, **about(batch)):
        job.accounts.check(batch)
        if not wishes.ask(job.state, job.accounts.provider(batch.provider), batch):
            raise ProviderError(
                f"batch {batch.id}: {batch.provider} does not cancel it now", hint="every poll asks for it again"
            )


def _undo(job: Cancel, chosen: Sequence[Batch]) -> None:
    """Undo the batches that were not created, unless a dispatch is at work, which reads the wish itself."""
    if not _now(job, chosen, *_UNSENT):
        return
    try:
        with locks.lock(job.state.lock_path("dispatch"), job.state.clock()):
            for batch in _now(job, chosen, *_UNSENT):
                if refused_before(batch):  # dispatch looks for its create first
                    continue
                plan, n = plans.plan_of(job.config, batch.workload), tasks.outstanding(job.state.db, batch.id)
                settle.give_back(job.state, batch, plan, str(batch.cancel_why))
                job.tasks[batch.workload] += n
    except locks.Held:
        return


def _becomes(batch: Batch, dry_run: bool) -> str:
    """Return in words what becomes of a batch."""
    name = f"batch {batch.id} of {batch.workload}"
    if batch.status is BatchStatus.FAILED and batch.cancel_at is not None:
        return f"{name} was not sent, and is cancelled"
    if batch.final_at is not None:
        return f"{name} is {batch.status}: nothing of it goes on"
    words = {
        BatchStatus.PROCESSING: "is being made: it is not sent",
        BatchStatus.UPLOADED: "is not sent",
        BatchStatus.SUBMITTING: "may have arrived: dispatch finds out, and cancels it",
        BatchStatus.SUBMITTED: f"is to be cancelled at {batch.provider}; what it has answered comes home, and is billed",
        BatchStatus.COMPLETED: "has ended: what it answered is applied, and nothing of it is tried again",
    }
    if batch.cancel_taken_at is not None and batch.status is BatchStatus.SUBMITTED:
        return f"{name} is being cancelled at {batch.provider}; what it has answered comes home, and is billed"
    return f"{name} {words[batch.status]}" + (", from now on" if dry_run and batch.cancel_at is None else "")


def _costs(job: Cancel, running: Sequence[Batch]) -> contract.GoingOn:
    """Return how many batches these are, and about what they may cost, as was expected when they were sent."""
    costs = [batch.expected_cost for batch in running]
    priced = [cost for cost in costs if cost is not None]
    unpriced = len(costs) - len(priced)
    total = decimal_dollars(sum(priced)) if priced or not running else None
    words = f"about ${total}" if priced else "at an unknown price"
    more = f", and {unpriced:,} at an unknown price" if priced and unpriced else ""
    return {
        "batches": len(running),
        "estimated_cost": total,
        "unpriced": unpriced,
        "message": f"{counted(len(running), 'batch', 'batches')} under way, {words}{more}" if running else None,
    }
