"""What becomes of a batch that was refused whole, and of its tasks: the moves, by what :mod:`nura_cli.pipeline.search` decides.

Who is surely to blame fails; who may be is remembered as a suspect, and all wait again. What no single request is to blame for
is counted by workload and revision, and after :data:`~nura_cli.pipeline.search.MOST_REFUSALS` in a row a person decides.
"""

from collections.abc import Sequence
from typing import NamedTuple

from nura_cli.dialects import vendors
from nura_cli.dialects.base import Rejection, rejections, stored_rejections
from nura_cli.pipeline import backoff, enqueued, holding, search, settle
from nura_cli.pipeline.backoff import Remedy
from nura_cli.pipeline.report import Problem
from nura_cli.pipeline.search import Row
from nura_cli.state import Connection, batches, outbox, runs, standings, suspects, tasks
from nura_cli.state.answers import Failure, Settled
from nura_cli.state.batches import Batch
from nura_cli.state.outbox import Plan
from nura_cli.state.standings import Held, Standing
from nura_cli.state.suspects import Suspect
from nura_cli.states import BatchStatus, ErrorKind, EventType


class Refusal(NamedTuple):
    """What came of a refused batch.

    Attributes:
        settled: the tasks settled for good.
        pause: whether its route is to rest.
        searched: whether who is to blame is still to be found.
        held: that its workload is held from now on, to be said once; or None.
    """

    settled: list[Settled]
    pause: bool
    searched: bool
    held: Problem | None


def refused_batch(
    db: Connection,
    batch: Batch,
    faults: tuple[Rejection, ...],
    plan: Plan,
    jitter: float,
    *,
    content: bool = True,
) -> Refusal:
    """Undo a batch the provider refused whole: who is surely to blame fails, the others wait again, the route learns.

    Within :func:`nura_cli.pipeline.settle.undoing`: of a batch that a person wished cancelled no task is left to blame, and it
    counts for nothing. One of which others are named than before, and not all, brings the search onward: the rest goes at once.

    Args:
        content: whether the provider had looked at its requests.
    """
    why, remedy = describe(faults), _remedy(batch, faults, content=content)
    standing = standings.of(db, batch.workload, batch.revision)
    row = search.row(standing, batch.id, witness=_witness(db, batch, standing.refused_at))
    members = tasks.in_order(db, batch.id)
    guilty, suspected = _judged(db, batch, members, faults, standing) if remedy.search else ([], [])
    searched = bool(suspected) and not standing.pardons(Held.SEARCH, batch.id)
    onward = searched and suspected[0].how == "named" and len(suspected) < len(members)
    onward = onward and row.refusals < search.MOST_ONWARD
    counted = bool(members) and (searched or remedy.counted)
    settled = settle.fail_tasks(db, batch, guilty, plan, f"refused: {why}", attempt=True)
    if guilty or suspected or counted:
        refusals = row.refusals if counted else 0
        since = standings.refused(db, batch.workload, batch.revision, refusals, counted=counted and row.later)
        if guilty or suspected:
            suspects.clear(db, [task_id for task_id, _ in members])
            suspects.add(db, [one._replace(since=since) for one in suspected])
    apart = "; who is to blame is looked for" if searched else ""
    tasks.release(db, batch.id, f"its batch was refused: {why}{apart}")
    enqueued.learn_refusal(db, batch, faults, jitter)
    held = _hold(db, batch, row, why, searched=searched) if counted and row.over and not onward else None
    if searched and not onward:
        beside = tasks.due_beside(db, batch.queue_id)
        remedy = remedy._replace(pause=not row.over and search.rests(row, beside=beside))
    _learn(db, batch, remedy, _said(batch, row, why, searched=searched) if counted else why, jitter, anew=row.witness)
    batches.move(db, batch, BatchStatus.FAILED, f"refused: {why}", reason=why, faults=stored_rejections(faults))
    outbox.add_for_batch(db, batch.queue_id, batch.id, EventType.BATCH_FAILED, plan)
    return Refusal(settled, remedy.pause, searched, held)


def _remedy(batch: Batch, faults: Sequence[Rejection], *, content: bool) -> Remedy:
    reasons = {vendors.reason(batch.dialect, fault) for fault in faults}
    return backoff.remedy_for(faults, reasons, batch.requests, content=content)


def _witness(db: Connection, batch: Batch, since: int) -> bool:
    """Return whether another batch of its workload and revision was taken since a unix second."""
    return standings.validated_since(db, batch.workload, batch.revision, batch.address, since)


def _judged(
    db: Connection,
    batch: Batch,
    members: Sequence[tuple[int, bool]],
    faults: Sequence[Rejection],
    standing: Standing,
) -> tuple[list[tuple[int, Failure]], list[Suspect]]:
    """Return who of a refused batch fails, and why; and who is under suspicion. What was replaced meanwhile is not sent again.

    Args:
        members: as :func:`nura_cli.state.tasks.in_order` gives them.
    """
    named = {one.line: one for one in reversed(faults) if one.line is not None and 1 <= one.line <= len(members)}
    any_fault = next(iter(faults), Rejection(None, None, None))
    alone = len(members) == 1
    blamed = {
        task_id: named.get(n, any_fault)
        for n, (task_id, _) in enumerate(members, 1)
        if alone or n in named or not named
    }
    prior = suspects.of(db, members[0][0]) if alone else None
    if (alone or named) and (
        standing.pardons(Held.SEARCH, batch.id) or (prior is not None and _witness(db, batch, prior.since))
    ):
        why = describe(tuple(faults))
        failures = [(one, Failure(ErrorKind.REFUSED, said.message or why, said.code)) for one, said in blamed.items()]
        return failures, []
    how = _how(db, batch, list(named), alone=alone)
    said = {one: (None, None) if how == "among" else (fault.code, fault.message) for one, fault in blamed.items()}
    waits = [task_id for task_id, superseded in members if task_id in blamed and not superseded]
    return [], [Suspect(one, batch.queue_id, batch.id, how, 0, *said[one]) for one in waits]


def _how(db: Connection, batch: Batch, lines: Sequence[int], *, alone: bool) -> suspects.How:
    """Return how the tasks of a refused batch come under suspicion, of which the provider names these lines.

    One that names a line again, where others stand by now, may mean the whole file: nobody was named then, neither now nor
    before, and each of them is tried alone.
    """
    if not lines:
        return "alone" if alone else "among"
    last = suspects.last_blamed(db, batch.queue_id)
    before = batches.get(db, last) if last is not None else None
    if before is not None and search.same_place(lines, [fault.line for fault in rejections(before.faults)]):
        suspects.alone(db, batch.queue_id)
        return "alone"
    return "named"


def _hold(db: Connection, batch: Batch, row: Row, why: str, *, searched: bool) -> Problem | None:
    """Leave a workload to a person; return what is to be said of it, if that is new."""
    nobody = ", and no request is found to blame" if searched else ""
    reason = f"{row.refusals} of its batches in a row were refused{nobody}: {why}"
    kind = Held.SEARCH if searched else Held.ACCOUNT
    return holding.hold_by_itself(db, batch.workload, batch.revision, kind, reason)


def _said(batch: Batch, row: Row, why: str, *, searched: bool) -> str:
    """Return what is said of a route after a refusal that counts: the provider's words, and how long this may go on."""
    nobody = ", and no request is found to blame" if searched else ""
    return f"{why} (the batches of {batch.workload} are refused{nobody}: {row.of_how_many} before it is held)"


def _learn(db: Connection, batch: Batch, remedy: Remedy, why: str, jitter: float, *, anew: bool) -> None:
    """Let the route learn from a refusal; in a search the first of a row rests as shortly as any first one."""
    route = runs.route(db, batch.provider, batch.endpoint, batch.model)
    if remedy.search and anew:
        route = route._replace(failures_in_a_row=0)
    runs.learn(db, backoff.after_refusal(route, remedy, batch.requests, why, db.now, jitter))


def convicted(db: Connection, batch: Batch, plan: Plan) -> list[Settled]:
    """Fail the tasks that the provider named when it refused a batch, and that still wait: the rest was taken since."""
    found = suspects.named(db, batch.id)
    why = batch.reason or "its batch was refused"
    ends: dict[int, tuple[int | None, Failure]] = {
        one.task_id: (batch.id, Failure(ErrorKind.REFUSED, one.said or why, one.code)) for one in found
    }
    words = "refused: the provider named it, and took the rest"
    return settle.fail_waiting(db, batch.queue_id, ends, plan, words, attempt=True)


def describe(faults: tuple[Rejection, ...]) -> str:
    """Return the provider's words about a refused batch on one line, the first fault first."""
    if not faults:
        return "the provider gave no reason"
    first = faults[0]
    place = f" (line {first.line})" if first.line is not None else ""
    more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
    return f"{settle.words(first)}{place}{more}"
