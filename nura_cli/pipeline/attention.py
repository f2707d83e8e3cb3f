"""What needs a person, and what to type: one definition, for status, and for the stages that say it when it happens."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nura_cli.clock import rfc3339, span
from nura_cli.pipeline import holding, plans, symptoms, waiting
from nura_cli.pipeline.person import Need
from nura_cli.pipeline.report import counted
from nura_cli.state import State, actions, batches, disk, outbox, purges, tasks
from nura_cli.state.actions import Hold
from nura_cli.state.batches import Batch, Orphan, Sighting
from nura_cli.state.file import foreign
from nura_cli.states import BatchStatus, NeedKind

if TYPE_CHECKING:
    from nura_cli.config import WorkloadConfig

_LATE = 24 * 3600
_UNSETTLED = 3600
"""Seconds after which a create that is still not confirmed, or a wish to cancel that is not taken, whatever the cause, needs a person."""
_UNPURGED = 2 * 86400
"""Seconds after which what is to be forgotten, and is still under way, needs a person: a batch takes a day."""
_GOES_ON = 3 * 3600
"""Seconds after which a batch that was wished cancelled, and is not done, needs a person although that was taken."""
_WARN_BEFORE = 3 * 86400
_WAITS_FOR = {
    BatchStatus.SUBMITTING: "dispatch",
    BatchStatus.SUBMITTED: "poll",
    BatchStatus.COMPLETED: "reconcile",  # its results are here; a damaged file could not be fetched again
}
"""The stage that a batch with results at the provider waits for."""
_CANCELS = {BatchStatus.PROCESSING: "dispatch", BatchStatus.UPLOADED: "dispatch", BatchStatus.SUBMITTED: "poll"}
"""The stage that carries out the wish to cancel a batch."""
_NOT_YET = {
    BatchStatus.PROCESSING: "is not undone",
    BatchStatus.UPLOADED: "is not undone",
    BatchStatus.SUBMITTED: "its provider has not taken that",
}
_PAYS = "the first pays for its tasks again"


def everything(
    state: State,
    under_way: Sequence[Batch],
    left: Sequence[outbox.Left],
    oldest: Mapping[str, int],
    configured: symptoms.Configured,
) -> list[Need]:
    """Return all that needs a person now: first what stops the stages, and then what is wrong with one part.

    Args:
        under_way: the batches that are not final.
        left: what is still to be delivered, and what was given up.
        oldest: when the oldest pending task of each workload was enqueued, unix seconds.
        configured: what is known of the configuration.
    """
    db, now, pending = state.db, state.clock(), tasks.pending(state.db)
    workloads, wrong = symptoms.configuration(db, configured, left)
    return [
        *wrong,
        *symptoms.full_disk(state, under_way),
        *foreign_owners(state.path),
        *symptoms.waiting(state, configured, oldest, under_way, pending),
        *symptoms.failed_enqueues(db),
        *about(under_way, now),
        *not_ready(under_way, now),
        *not_cancelled(under_way, now),
        *held(actions.holds(db)),
        *cancelled(batches.cancelled(db)),
        *extra_batches(batches.orphans(db), now),
        *possible_copies(batches.sightings(db), now),
        *symptoms.unconfigured(pending, configured),
        *symptoms.failed_tasks(db),
        *to_be_purged(purges.oldest_wish(db), now),
        *given_up(left),
        *(() if workloads is None else nobodys(left, workloads)),
    ]


def look(state: State, configured: symptoms.Configured) -> list[Need]:
    """Return all that needs a person now, for who has not looked at the state file otherwise."""
    under_way, left = batches.under_way(state.db), outbox.left(state.db)
    return everything(state, under_way, left, symptoms.oldest_pending(state.db), configured)


def about(under_way: Iterable[Batch], now: int) -> list[Need]:
    """Return what needs a person, and what to type: held batches, batches past their time, results about to expire.

    ``nura resolve`` takes every batch that is named here.
    """
    found: list[Need] = []

    def note(kind: NeedKind, batch: Batch, message: str, hint: str) -> None:
        found.append(Need(kind, message, hint, batch.id, batch.provider, batch.workload))

    for batch in under_way:
        sent = batch.submitted_at or batch.created_at
        going = _going(batch, now)
        resend = f"nura resolve {batch.id} --resend, or nura resolve {batch.id} --give-up"
        decide = f"nura resolve {batch.id} --adopt REMOTE_ID, or {resend}"
        if batch.status is BatchStatus.SUBMITTING and batch.held:
            account = _marker_account(batch)
            end = f"; its results {going}" if going else ""
            note(NeedKind.BATCH_HELD, batch, f"batch {batch.id} is held: {batch.held}{account}{end}", decide)
        elif batch.status is BatchStatus.SUBMITTED and batch.held:
            end = f"; its results {going}" if going else ""
            note(NeedKind.RESULTS_LOST, batch, f"batch {batch.id} is held: {batch.held}{end}", f"{resend}; {_PAYS}")
        elif batch.status is BatchStatus.SUBMITTED and waiting.overdue(batch, now):
            end = f"; its results {going}" if going else ""
            why = f"was sent {span(now - sent)} ago, and {batch.provider} says {batch.remote_status}"
            note(
                NeedKind.BATCH_LATE,
                batch,
                f"batch {batch.id} {why}{end}",
                f"nura poll -v; if it is gone for good: {resend}; {_PAYS}",
            )
        elif batch.status is BatchStatus.COMPLETED and now - (batch.ended_at or now) > _LATE and not going:
            message = f"batch {batch.id} came home {span(now - (batch.ended_at or now))} ago, and is not settled"
            note(NeedKind.BATCH_LATE, batch, message, f"nura reconcile -v; if it cannot be: {resend}; {_PAYS}")
        elif going:
            note(
                NeedKind.RESULTS_EXPIRE,
                batch,
                f"batch {batch.id}: its results {going}",
                f"nura {_WAITS_FOR[batch.status]}",
            )
        elif _unconfirmed(batch, now):
            refused = f"; its create was refused: {batch.reason}" if batch.reason else ""
            message = f"batch {batch.id}: whether it arrived at {batch.provider} is not known yet{refused}"
            note(NeedKind.UNCONFIRMED, batch, message, f"nura dispatch -v; or, to decide yourself, {decide}")
    return found


def _unconfirmed(batch: Batch, now: int) -> bool:
    """Return whether dispatch should long have found out what became of a create; one that was refused is sent again by then."""
    return batch.status is BatchStatus.SUBMITTING and now - (batch.sent_at or batch.created_at) > _UNSETTLED


def held(holds: Iterable[Hold]) -> list[Need]:
    """Return what nura itself holds, as what needs a person; whoever holds something knows of it, and status shows it."""
    return [
        Need(
            NeedKind.HELD,
            holding.described(hold),
            holding.release_command(hold),
            provider=hold.name if hold.scope == "provider" else None,
            workload=hold.name if hold.scope == "workload" else None,
        )
        for hold in holds
        if hold.origin
    ]


def cancelled(decided_nowhere: Iterable[Batch]) -> list[Need]:
    """Return the batches that somebody cancelled at the provider, as what needs a person: their tasks are not sent again."""
    return [
        Need(
            NeedKind.CANCELLED,
            f"batch {batch.id} was cancelled at {batch.provider}: {counted(batch.cancelled, 'task')} of {batch.workload}"
            f" {'is' if batch.cancelled == 1 else 'are'} cancelled, and not sent again",
            f"nura resolve {batch.id} --resend sends what is left of it; nura resolve {batch.id} --give-up leaves it",
            batch.id,
            batch.provider,
            batch.workload,
        )
        for batch in decided_nowhere
    ]


def not_cancelled(under_way: Iterable[Batch], now: int) -> list[Need]:
    """Return the batches that a person wished cancelled an hour ago, and that are not, as what needs a person: they may cost
    money. One whose create is not confirmed is named by :func:`about`.
    """
    return [
        Need(
            NeedKind.NOT_CANCELLED,
            f"batch {batch.id}: was to be cancelled {span(now - batch.cancel_at)} ago, and"
            f" {_NOT_YET[batch.status] if batch.cancel_taken_at is None else 'goes on all the same'}",
            f"nura {_CANCELS[batch.status]} -v",
            batch.id,
            batch.provider,
            batch.workload,
        )
        for batch in under_way
        if batch.cancel_at is not None and batch.status in _CANCELS
        if now - batch.cancel_at >= (_UNSETTLED if batch.cancel_taken_at is None else _GOES_ON)
    ]


def not_ready(under_way: Iterable[Batch], now: int) -> list[Need]:
    """Return the batches that have waited for their request file for an hour, as what needs a person. One whose create was refused,
    and not sent again since, is named by :func:`about`.
    """
    return [
        Need(
            NeedKind.UPLOAD_PENDING,
            f"batch {batch.id}: its request file, uploaded {rfc3339(batch.created_at)}, is not ready at"
            f" {batch.provider}{f': {batch.reason}' if batch.reason else ''}",
            "nura dispatch -v; each dispatch goes on from the file, and after a day its tasks are sent anew",
            batch.id,
            batch.provider,
        )
        for batch in under_way
        if batch.status is BatchStatus.UPLOADED or (waiting.refused_before(batch) and batch.held is None)
        if waiting.age(batch, now) > _UNSETTLED and batch.cancel_at is None and not _unconfirmed(batch, now)
    ]


def possible_copies(seen: Iterable[Sighting], now: int) -> list[Need]:
    """Return the batches at a provider that may be second sendings of ours, as what needs a person: they may cost money."""
    return [
        Need(
            NeedKind.POSSIBLE_COPY,
            f"{one.remote_id} at {one.provider} may be a second sending of batch {one.batch_id}: it is like it by time and"
            f" size, was first seen {span(now - one.first_at)} ago, and its results will tell",
            "nura poll -v; it is counted once it has ended; if you know it for a copy, cancel it in the provider's console",
            one.batch_id,
            one.provider,
        )
        for one in seen
        if one.verdict == "possible"
    ]


def extra_batches(orphans: Iterable[Orphan], now: int) -> list[Need]:
    """Return the extra batches that should long have ended, as what needs a person: they may cost money."""
    return [
        Need(
            NeedKind.EXTRA_BATCH,
            f"{orphan.remote_id}, an extra batch beside batch {orphan.batch_id} at {orphan.provider}, was cancelled"
            f" {span(now - orphan.found_at)} ago and is not known to have ended",
            f"nura poll -v; or, to let go of it: nura resolve {shlex.quote(orphan.remote_id)} --give-up",
            orphan.batch_id,
            orphan.provider,
        )
        for orphan in orphans
        if orphan.spooled is None and now - orphan.found_at > _LATE + 3600
    ]


def _going(batch: Batch, now: int) -> str | None:
    """Say when a batch's results go from the provider, where that is soon and a stage could still be in need of them."""
    left = waiting.kept_until(batch) - now
    if left >= _WARN_BEFORE or batch.status not in _WAITS_FOR or batch.faults:
        return None
    return f"expire at {batch.provider} in {span(left)}" if left > 0 else f"may be gone from {batch.provider} by now"


def _marker_account(batch: Batch) -> str:
    account = json.loads(batch.marker or "{}").get("account")
    return f" (sent as {account})" if account else ""


def to_be_purged(wishes: tuple[int, int] | None, now: int) -> list[Need]:
    """Return that tasks are to be forgotten, and have been under way for long, as what needs a person.

    Args:
        wishes: how many tasks that are, and since when.
    """
    if wishes is None or now - wishes[1] < _UNPURGED:
        return []
    n, since = wishes
    return [
        Need(
            NeedKind.PURGE_PENDING,
            f"{counted(n, 'task is', 'tasks are')} to be purged, the first for {span(now - since)} by now, and something of"
            f" {'it' if n == 1 else 'them'} is under way still",
            "nura poll -v and nura reconcile -v say what keeps its batch from ending",
        )
    ]


def given_up(left: Iterable[outbox.Left]) -> list[Need]:
    """Return the deliveries that were refused for good, as what needs a person."""
    what = {"row": ("row was not written", "rows were not written"), "event": ("event was", "events were")}
    end = {"row": "", "event": " given up"}
    return [
        Need(
            NeedKind.DELIVERY_FAILED,
            f"{one.workload}: {counted(one.n, *what[one.kind])}{end[one.kind]}, the last: {one.said}",
            f"once that is mended: nura redeliver {shlex.quote(one.workload)} --{one.kind}s; or, to let go of them, with --drop",
            workload=one.workload,
        )
        for one in left
        if one.status == "dead"
    ]


def foreign_owners(state: Path) -> list[Need]:
    """Return the files beside a state file that belong to somebody else, as what needs a person: stages stop at them."""
    found = foreign(state)
    if not found:
        return []
    owner = disk.owner_of(state)
    tops = dict.fromkeys(state.parent / path.relative_to(state.parent).parts[0] for path in found)
    names = " ".join(shlex.quote(str(top)) for top in tops)
    return [
        Need(
            NeedKind.FOREIGN_OWNER,
            f"{counted(len(found), 'file')} beside {state} {'belongs' if len(found) == 1 else 'belong'} to"
            f" {disk.owner_of(found[0])}, and that one to {owner}, whose stages stop at them",
            f"sudo chown -R '{owner.removeprefix('#')}' {names}",
        )
    ]


def nobodys(left: Iterable[outbox.Left], workloads: "Mapping[str, WorkloadConfig]") -> list[Need]:
    """Return the deliveries that wait for what is no longer in the configuration, as what needs a person."""
    return [
        Need(NeedKind.DELIVERY_UNOWNED, text, hint, workload=one.workload)
        for one, text, hint in plans.unowned(left, workloads)
    ]
