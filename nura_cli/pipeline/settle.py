"""Moves that stages share: tasks that could not be rendered, batches that were not sent, answers that were lost."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from nura_cli.errors import EX_PARTIAL, ProblemKind, Rejection
from nura_cli.pipeline.report import Problem, counted
from nura_cli.state import Connection, State, answers, batches, outbox, tasks
from nura_cli.state.answers import Charge, Failure, Open, Settled
from nura_cli.state.batches import Batch, Orphan
from nura_cli.state.outbox import Plan
from nura_cli.states import BatchStatus, ErrorKind, EventType, TaskStatus


def settle_tasks(db: Connection, batch: Batch, settled: Sequence[Settled], plan: Plan, why: str) -> None:
    """Apply what became of tasks of a batch, and note whom the application is to be told: of those that stand for their keys."""
    answers.settle(db, batch.queue_id, batch.id, settled, why)
    notified = ((one.task_id, one.to) for one in settled if one.told)
    outbox.add_for_tasks(db, batch.queue_id, batch.id, notified, plan)


def fail_tasks(
    db: Connection,
    batch: Batch,
    failures: Sequence[tuple[int, Failure]],
    plan: Plan,
    why: str,
    *,
    attempt: bool,
) -> list[Settled]:
    """Fail tasks of a batch for good; with ``attempt`` it counts as one of theirs. Returns what was settled."""
    found = answers.open_tasks(db, batch.id, [task_id for task_id, _ in failures])
    settled = [
        Settled(
            task_id,
            found[task_id].superseded,
            TaskStatus.FAILED,
            found[task_id].attempts + attempt,
            0,
            failure,
            None,
            Charge(),
            found[task_id].retry_of,
        )
        for task_id, failure in failures
        if task_id in found
    ]
    settle_tasks(db, batch, settled, plan, why)
    return settled


def fail_unrendered(
    db: Connection,
    batch: Batch,
    failed: Sequence[tuple[int, str]],
    plan: Plan,
) -> list[Settled]:
    """Fail the tasks whose prompts could not be rendered. They were never sent: no attempt counts."""
    failures = [(task_id, Failure(ErrorKind.RENDER, why)) for task_id, why in failed]
    return fail_tasks(db, batch, failures, plan, "could not be rendered", attempt=False) if failures else []


@contextmanager
def undoing(state: State, batch: Batch, plan: Plan) -> Iterator[Connection]:
    """Give the block a transaction in which a batch of which nothing was done is undone.

    Where a person wished it cancelled, no task of it is left by then: all of them are, in chunks, and none waits again.
    Killed half-way, the wish stands, and the rest is done when the batch is undone again.

    Raises:
        StateError: another process moved the batch.
    """
    while True:
        with state.transaction() as db:
            if _cancel_some(db, batch, plan) < CHUNK_TASKS:
                yield db
                return
        state.yield_to_writers()


def _cancel_some(db: Connection, batch: Batch, plan: Plan) -> int:
    """Cancel some tasks of a batch that a person wished cancelled, without an attempt of theirs; return how many."""
    batches.still(db, batch)
    wish = batches.wish(db, batch.id)
    if wish is None:
        return 0
    found, failure = answers.unaccounted(db, batch.id, CHUNK_TASKS), Failure(ErrorKind.CANCELLED, wish)
    settled = [
        Settled(
            task_id, task.superseded, TaskStatus.CANCELLED, task.attempts, 0, failure, None, Charge(), task.retry_of
        )
        for task_id, task in found.items()
    ]
    settle_tasks(db, batch, settled, plan, wish)
    return len(settled)


def give_back(state: State, batch: Batch, plan: Plan, why: str, **changes: str | int | None) -> None:
    """Undo a batch that was surely not created: its tasks wait again, or are cancelled, where a person wished the batch so.

    Args:
        why: of those that wait again.
        changes: to other columns of the batch.
    """
    with undoing(state, batch, plan) as db:
        tasks.release(db, batch.id, why)
        reason = batches.wish(db, batch.id) or why
        batches.move(db, batch, BatchStatus.FAILED, reason, reason=reason, **changes)


CHUNK_TASKS = 2000
UNKNOWN = Charge(cost=None, list_cost=None)
"""What a lost answer cost: it was paid for, and nobody says how much."""


def lose(
    state: State,
    batch: Batch,
    failure: Failure,
    plan: Plan,
    *,
    resend: bool,
    once: bool = False,
    followed: Sequence[str] = (),
) -> bool:
    """Account for the tasks whose answers a batch has lost, at unknown cost, in chunks; killed half-way, it is run again.

    Args:
        failure: why there is no answer; its message goes into the log.
        resend: the tasks wait again, or are cancelled, where a person wished the batch so; else they fail.
        once: those that were lost before, in another batch, are left alone: nothing is sent again twice by itself.
        followed: remote ids of batches that may be it.

    Returns:
        Whether every task is accounted for. Then the batch is ``failed``, and followed at the provider, so that what it cost is
        counted should its results turn up.

    Raises:
        StateError: another process moved the batch.
    """
    after = left = 0
    while True:
        with state.transaction() as db:
            now = state.clock()
            batches.still(db, batch)
            found = answers.unaccounted(db, batch.id, CHUNK_TASKS, after)
            wished = batches.wish(db, batch.id) is not None
            before = answers.lost_before(db, batch.id, list(found)) if once and not wished else set()
            left += len(before)
            again = TaskStatus.CANCELLED if wished else TaskStatus.PENDING
            to = again if resend else TaskStatus.FAILED
            settled = [_lost(one, task, failure, to) for one, task in found.items() if one not in before]
            settle_tasks(db, batch, settled, plan, failure.message)
            if len(found) < CHUNK_TASKS:
                if not left:
                    _end_lost(db, batch, failure.message, plan)
                    for remote_id in followed:
                        batches.add_orphan(db, Orphan(batch.provider, remote_id, batch.id, now))
                return not left
        after = max(found)
        state.yield_to_writers()


def _lost(task_id: int, task: Open, failure: Failure, to: TaskStatus) -> Settled:
    final = TaskStatus.FAILED if to is TaskStatus.PENDING and task.superseded else to
    attempts = task.attempts + (
        final is not TaskStatus.PENDING
    )  # what is sent again is so by a decision, and not for its sake
    return Settled(task_id, task.superseded, final, attempts, 0, failure, None, UNKNOWN, task.retry_of)


def _end_lost(db: Connection, batch: Batch, why: str, plan: Plan) -> None:
    """End a batch whose answers are lost, once all its tasks are accounted for; what is at the provider is followed."""
    if batch.remote_id is not None:
        batches.add_orphan(db, Orphan(batch.provider, batch.remote_id, batch.id, db.now))
    found = batches.get(db, batch.id) or batch
    batches.move(
        db,
        batch,
        BatchStatus.FAILED,
        why,
        reason=why,
        held=None,
        completed=found.answered,
        failed=found.requests - found.answered,
        absent_at=batch.absent_at if batch.remote_id is not None else batch.absent_at or db.now,
        cleaned_at=db.now,  # what cannot be told to be ours is not ours to delete
    )
    outbox.add_for_batch(db, batch.queue_id, batch.id, EventType.BATCH_FAILED, plan)


def let_go(db: Connection, orphan: Orphan) -> None:
    """Stop following an orphan whose answers cannot be had: it may have been paid for, and nobody says how much."""
    batch = batches.get(db, orphan.batch_id)
    if batch is not None and batch.remote_id != orphan.remote_id:  # its own were billed so when they were given up
        answers.unknown(db, batch.queue_id, batch.id, orphan.remote_id, same=batch.remote_id is None)
    batches.counted(db, orphan)


def in_vain(workload: str, kinds: Counter[str]) -> Problem:
    """Return as a problem that tasks which ran completed ones again have no answer, by kind of error."""
    listed = ", ".join(f"{kind} {n}" for kind, n in kinds.most_common())
    many = counted(kinds.total(), "re-run has", "re-runs have")
    text = f"{workload}: {many} no answer ({listed}): the old answers stay"
    hint = f"nura retry {workload} --status completed runs them once more"
    return Problem(ProblemKind.TASK, text, EX_PARTIAL, hint=hint, workload=workload)


def words(said: Failure | Rejection | None) -> str:
    """Return the provider's code and words about a failure on one line."""
    return ": ".join(part for part in (said and said.code, said and said.message) if part) or "no reason given"


def fail_waiting(
    db: Connection,
    queue: int,
    ends: Mapping[int, tuple[int | None, Failure]],
    plan: Plan,
    why: str,
    *,
    attempt: bool = False,
) -> list[Settled]:
    """Fail those of a queue's tasks that still wait, and note whom the application is to be told.

    Args:
        ends: by task, the batch that it was in last, and why it fails.
        why: for the log.
        attempt: as for :func:`nura_cli.state.answers.end_waiting`.
    """
    settled = answers.end_waiting(db, queue, TaskStatus.FAILED, ends, why, attempt=attempt)
    told: dict[int, list[tuple[int, TaskStatus]]] = {}
    for one in settled:
        if one.told:
            told.setdefault(ends[one.task_id][0] or outbox.NO_BATCH, []).append((one.task_id, one.to))
    for batch_id, notified in told.items():
        outbox.add_for_tasks(db, queue, batch_id, notified, plan)
    return settled
