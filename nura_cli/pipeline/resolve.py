"""nura resolve: a person decides about a batch that nura holds.

Takes what ``nura status`` names under "needs you": a batch in ``submitting`` whose create was not confirmed; one whose
answers were paid for and cannot be had, or whose time is over (``submitted``, ``completed``); one that somebody cancelled
at the provider; or (after a restored state file) batches at the provider that this file does not know. Leaves the batch
``submitted`` as the remote batch it is said to be, or its tasks pending (``--resend``) or ``lost`` (``--give-up``). It runs
under dispatch's lock, works in chunks, and when it is killed half-way is simply run again.
"""

from collections.abc import Sequence
from enum import StrEnum

from nura_cli import contract
from nura_cli.config import Config
from nura_cli.dialects.base import RemoteBatch
from nura_cli.errors import ConfigError, KeyRefused, NotFound, NuraError, ProviderError, UsageError
from nura_cli.pipeline import attention, plans, recovery, settle, shown
from nura_cli.pipeline.accounts import Accounts
from nura_cli.pipeline.report import Report, counted
from nura_cli.providers.base import Provider
from nura_cli.state import State, actions, answers, batches
from nura_cli.state.answers import Failure
from nura_cli.state.batches import Batch, Orphan
from nura_cli.states import BatchStatus, ErrorKind


class Decision(StrEnum):
    """What is to become of the tasks of a batch that is not adopted."""

    RESEND = "resend"  # they wait again, and are paid for again
    GIVE_UP = "give-up"  # they fail as lost, or stay cancelled: nothing more is paid


def run(
    state: State,
    config: Config,
    accounts: Accounts,
    names: Sequence[str],
    decision: Decision | str,
) -> Report:
    """Settle the named batches.

    Args:
        names: ids of batches here that status names; or ids of batches at a provider that another copy of this state file
            sent.
        decision: what is to become of their tasks; or the remote id that the one named batch is.

    Raises:
        UsageError: there is no such batch, or it needs nobody, or the remote batch is another one's. What was named before
            it is done.
    """
    if not all(name.strip() for name in names) or (not isinstance(decision, Decision) and not decision.strip()):
        raise UsageError("an id is empty", hint="nura status names the batches that need a person")
    if not isinstance(decision, Decision):
        if len(names) != 1:
            raise UsageError("--adopt goes with one batch")
        batch = _named(state, state.clock(), names[0])
        if batch.status is BatchStatus.SUBMITTED and batch.held is not None:
            _rename(state, accounts, batch, decision)
        elif batch.status is not BatchStatus.SUBMITTING:
            raise UsageError(
                f"batch {batch.id} is {batch.status}; only an unconfirmed (submitting) batch can be adopted"
            )
        else:
            _adopt(state, accounts, batch, decision)
        return _report(_noted(state, names[0], f"adopted {decision}"))
    done = [_noted(state, name, _decide(state, config, accounts, name, decision)) for name in names]
    return _report("; ".join(dict.fromkeys(done)))


def _report(done: str) -> Report:
    result: contract.Resolved = {"done": done}
    return Report(result, worked=True)


def _noted(state: State, name: str, what: str) -> str:
    """Note in the log what a person decided about a batch; return it."""
    batch = _here(state, name)
    workload, number = (None, None) if batch is None else (batch.workload, batch.id)
    with state.transaction() as db:
        actions.note(db, "resolve", f"batch {name}: {what}", 1, workload=workload, batch_id=number)
    return what


def _decide(state: State, config: Config, accounts: Accounts, name: str, decision: Decision) -> str:
    """Do what was decided about one batch; return what was done, in words."""
    resend = decision is Decision.RESEND
    if _at_provider(state, name):
        if not resend:
            return _let_go(state, name)
        _disown(state, accounts, name)
        return "its tasks are sent again by the next dispatch"
    batch = _named(state, state.clock(), name)
    if batch.cancelled:
        return _put_back(state, batch) if resend else _leave(state, batch)
    if resend and batch.cancel_at is not None:  # who has it sent again no longer wishes it cancelled
        with state.transaction() as db:
            batch = batches.note(db, batch, cancel_at=None, cancel_taken_at=None, cancel_why=None)
    if batch.status is BatchStatus.SUBMITTING and resend and not _may_have_run(batch):
        plan = plans.plan_of(config, batch.workload)
        recovery.give_up(state, batch, plan, "given up by a person: its tasks are sent again")
        return "its tasks are sent again by the next dispatch"
    what = "sent again" if resend else "not sent again"
    kind = ErrorKind.MISSING if batch.short_at is not None else ErrorKind.LOST
    failure = Failure(kind, f"given up by a person, its tasks are {what}: {batch.held or 'its time is over'}")
    settle.lose(state, batch, failure, plans.plan_of(config, batch.workload), resend=resend)
    return "its tasks are sent again by the next dispatch" if resend else f"its tasks are {kind}, and not sent again"


def _may_have_run(batch: Batch) -> bool:
    """Return whether there are results that may be this unconfirmed batch's: it was paid for, perhaps."""
    return any(word in (batch.held or "") for word in ("were deleted", "changed custom_ids"))


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _at_provider(state: State, name: str) -> bool:
    """Return whether a name is an id at a provider; there are services that number their batches, as this file does."""
    return not _is_number(name) or (_here(state, name) is None and bool(_followed(state, name)))


def _followed(state: State, remote_id: str) -> list[Orphan]:
    """Return the batches of this id at a provider that are followed, and not counted yet."""
    return [one for one in batches.orphans(state.db) if one.remote_id == remote_id]


def _here(state: State, name: str) -> Batch | None:
    return batches.get(state.db, int(name)) if _is_number(name) and len(name) < 19 else None


def _let_go(state: State, name: str) -> str:
    """Stop following an extra batch, whose answers nobody needs; what it cost stays unknown. Raises UsageError: none is followed."""
    found = _followed(state, name)
    if not found:
        raise UsageError(
            f"{name} is not followed; --give-up takes the number of a batch, or the id of an extra batch that status names"
        )
    with state.transaction() as db:
        for orphan in found:
            settle.let_go(db, orphan)
    return f"{name} is no longer followed, and what it cost stays unknown"


def _named(state: State, now: int, name: str) -> Batch:
    """Return a batch that a person may decide about.

    Raises:
        UsageError: there is none, or it needs nobody.
    """
    batch = _here(state, name)
    if batch is None:
        raise UsageError(f"batch {name} is not known", hint="nura status names those that need a person")
    if batch.status is BatchStatus.SUBMITTING or batch.cancelled or attention.about([batch], now):
        return batch
    running = batch.status is BatchStatus.SUBMITTED
    over = ", and its time is not over: the provider may be working on it" if running else ""
    raise UsageError(
        f"batch {name} is {batch.status}{over}; there is nothing to decide about it",
        hint="nura status names those that need a person",
    )


def _put_back(state: State, batch: Batch) -> str:
    """Let all that a cancelled batch left wait again, chunk by chunk; return how much that was, in words."""
    total = 0
    while True:
        with state.transaction() as db:
            n = answers.put_back(db, batch.queue_id, batch.id, settle.CHUNK_TASKS, "sent again, as a person decided")
            if n < settle.CHUNK_TASKS:
                batches.decided(db, batch)
        total += n
        if n < settle.CHUNK_TASKS:
            return f"{counted(total, 'task')} that its cancelling stopped {'waits' if total == 1 else 'wait'} again"
        state.yield_to_writers()


def _leave(state: State, batch: Batch) -> str:
    with state.transaction() as db:
        batches.decided(db, batch)
    return "what its cancelling stopped stays cancelled"


def _rename(state: State, accounts: Accounts, batch: Batch, remote_id: str) -> None:
    """Take another id at the provider for a batch that is held: its create may have been answered with one nobody knows."""
    _check_ours(state, accounts, batch, remote_id)
    with state.transaction() as db:
        batches.note(
            db,
            batch,
            remote_id=remote_id,
            cancel_taken_at=None,
            held=None,
            absent_at=None,
            absent_here=None,
            missed=None,
        )


def _adopt(state: State, accounts: Accounts, batch: Batch, remote_id: str) -> None:
    recovery.adopt(state, batch, _check_ours(state, accounts, batch, remote_id), state.clock(), "adopted by a person")


def _check_ours(state: State, accounts: Accounts, batch: Batch, remote_id: str) -> RemoteBatch:
    """Return what the provider says of a batch, once nothing it tells makes it another one's. Raises UsageError."""
    accounts.check(batch)
    followed = {one.batch_id for one in _followed(state, remote_id)}
    if batch.id not in followed:  # one that is followed for this very batch may be used in its place
        _check_unknown(state, remote_id)
    provider = accounts.provider(batch.provider)
    remote = shown.find(state, accounts, provider, remote_id)
    if remote.total not in (None, 0, batch.requests):
        raise UsageError(f"{remote_id} has {remote.total:,} requests, and batch {batch.id} has {batch.requests:,}")
    tags = recovery.tags_of(provider, remote).found
    if tags and batch.tag not in tags:
        raise UsageError(f"{remote_id} holds other requests than batch {batch.id}: its custom_ids bear another tag")
    files = {remote.input_file_id, batch.input_file_id}
    if not tags and len(files) == 2 and None not in files:
        raise UsageError(
            f"{remote_id} was made from another file ({remote.input_file_id}) than batch {batch.id}"
            f" ({batch.input_file_id})"
        )
    with state.transaction() as db:
        batches.take_orphan(db, batch, remote_id)
    return remote


def _check_unknown(state: State, remote_id: str) -> None:
    if batches.known(state.db, [remote_id]):
        raise UsageError(f"{remote_id} already belongs to a batch here; nura status names it while it is under way")


def _disown(state: State, accounts: Accounts, remote_id: str) -> None:
    """Accept that a batch another copy of this state file sent is not followed, and may be paid for twice."""
    if not batches.disowned(state.db, remote_id):
        _check_unknown(state, remote_id)
    provider, remote = _found(state, accounts, remote_id)
    uploads = {batch.input_file_id for batch in batches.under_way(state.db, BatchStatus.UPLOADED)} - {None}
    if remote.state_id != state.state_id and remote.input_file_id not in uploads:
        raise UsageError(f"{remote_id} at {provider.name} was not sent by this state file or a copy of it")
    with state.transaction() as db:
        batches.add_orphan(db, Orphan(provider.name, remote_id, 0, state.clock()))
    provider.cancel(remote_id)


def _found(state: State, accounts: Accounts, remote_id: str) -> tuple[Provider, RemoteBatch]:
    """Return the provider that knows a batch, and what it says of it; the problem of another one does not matter.

    Raises:
        UsageError: none knows it.
        ProviderError, KeyRefused, ConfigError: none that could be asked knows it.
    """
    problem: NuraError | None = None
    for name in accounts.names():
        try:
            provider = accounts.provider(name)
            return provider, shown.find(state, accounts, provider, remote_id)
        except NotFound:
            continue
        except (ProviderError, KeyRefused, ConfigError) as error:
            problem = problem or error
    raise problem or UsageError(f"no provider knows a batch {remote_id}")
