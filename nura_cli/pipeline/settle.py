"""Moves that dispatch and reconcile share: tasks that could not be rendered, and batches refused whole."""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from nura_cli.pipeline import retry
from nura_cli.providers.base import Fault
from nura_cli.state import answers, batches, outbox, runs, tasks
from nura_cli.state.answers import Failure, Settled, Spent
from nura_cli.state.batches import Batch
from nura_cli.state.outbox import Plan
from nura_cli.states import BatchStatus, ErrorKind, TaskStatus


def settle_tasks(
    db: sqlite3.Connection, batch: Batch, settled: Sequence[Settled], plan: Plan, now: int, why: str
) -> None:
    """Apply what became of tasks of a batch, and note whom the application is to be told; nobody of superseded ones."""
    answers.settle(db, batch.lane_id, batch.id, settled, now, why)
    told = [(one.task_id, one.to) for one in settled if one.to is not TaskStatus.PENDING and not one.superseded]
    outbox.settled(db, batch.lane_id, batch.id, told, plan, now)


def fail_tasks(
    db: sqlite3.Connection,
    batch: Batch,
    failures: Sequence[tuple[int, Failure]],
    plan: Plan,
    now: int,
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
            Spent(),
        )
        for task_id, failure in failures
        if task_id in found
    ]
    settle_tasks(db, batch, settled, plan, now, why)
    return settled


def fail_unrendered(
    db: sqlite3.Connection, batch: Batch, failed: Sequence[tuple[int, str]], plan: Plan, now: int
) -> list[Settled]:
    """Fail the tasks whose prompts could not be rendered. They were never sent: no attempt counts."""
    failures = [(task_id, Failure(ErrorKind.RENDER, why)) for task_id, why in failed]
    return fail_tasks(db, batch, failures, plan, now, "could not be rendered", attempt=False) if failures else []


class Refusal(NamedTuple):
    """What came of a refused batch: the tasks settled for good, and whether its route is to rest."""

    settled: list[Settled]
    pause: bool


def refused_batch(
    db: sqlite3.Connection,
    batch: Batch,
    faults: tuple[Fault, ...],
    plan: Plan,
    now: int,
    jitter: float,
    *,
    content: bool = True,
) -> Refusal:
    """Undo a batch the provider refused whole: the task to blame fails, the others wait again, the route learns.

    Args:
        content: whether the provider had looked at its requests.
    """
    beside = batches.under_way(db, BatchStatus.SUBMITTED)
    alone = not any((other.provider, other.model) == (batch.provider, batch.model) for other in beside)
    verdict = retry.refused(faults, batch.requests, alone=alone, content=content)
    why = describe(faults)
    line = 1 if verdict.fail_all else verdict.line
    culprit = tasks.nth(db, batch.id, line) if line is not None else None
    settled = []
    if culprit is not None:
        fault = next((fault for fault in faults if fault.line == verdict.line), faults[0])
        failure = Failure(ErrorKind.REFUSED, fault.message or why, fault.code)
        settled = fail_tasks(db, batch, [(culprit, failure)], plan, now, f"refused: {why}", attempt=True)
    tasks.release(db, batch.id, now, f"its batch was refused: {why}")
    route = runs.route(db, batch.provider, batch.endpoint, batch.model)
    runs.learn(db, retry.after_refusal(route, verdict, batch.requests, why, now, jitter))
    batches.move(
        db, batch, BatchStatus.FAILED, now, f"refused: {why}", reason=why, faults=msgspec.json.encode(faults).decode()
    )
    outbox.ended(db, batch.lane_id, batch.id, "batch.failed", plan, now)
    return Refusal(settled, verdict.pause)


def describe(faults: tuple[Fault, ...]) -> str:
    """Return the provider's words about a refused batch on one line, the first fault first."""
    if not faults:
        return "the provider gave no reason"
    first = faults[0]
    place = f" (line {first.line})" if first.line is not None else ""
    words = ": ".join(part for part in (first.code, first.message) if part) or "no reason given"
    more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
    return f"{words}{place}{more}"
