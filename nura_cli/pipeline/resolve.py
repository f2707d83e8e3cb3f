"""nura resolve: a person decides about a batch that recovery holds.

Takes a batch in ``submitting`` (or, after a restored state file, batches at the provider that it does not know); leaves
the batch ``submitted`` as the remote batch it is said to be, or ``failed`` with its tasks pending. It runs under
dispatch's lock.
"""

from collections.abc import Sequence

from nura_cli.clock import Clock
from nura_cli.errors import NotFound, UsageError
from nura_cli.pipeline import recovery
from nura_cli.pipeline.accounts import Accounts
from nura_cli.pipeline.report import Report
from nura_cli.state import State, batches
from nura_cli.state.batches import Batch, Stray
from nura_cli.states import BatchStatus


def run(state: State, accounts: Accounts, clock: Clock, names: Sequence[str], adopt: str | None) -> Report:
    """Settle the named batches.

    Args:
        names: ids of held batches here; or ids of batches at a provider that another copy of this state file sent.
        adopt: the remote id that the one named batch is; None sends its tasks again.

    Raises:
        UsageError: there is no such batch, or it is not held, or the remote batch is another one's.
    """
    if adopt is not None:
        if len(names) != 1:
            raise UsageError("--adopt goes with one batch")
        batch = _held(state, names[0])
        _adopt(state, accounts, clock, batch, adopt)
        return Report({"done": f"adopted {adopt}"}, worked=True)
    for name in names:
        if name.isdigit():
            recovery.give_up(state, _held(state, name), clock(), "given up by a person: its tasks are sent again")
        else:
            _disown(state, accounts, clock, name)
    return Report({"done": "its tasks are sent again by the next dispatch"}, worked=True)


def _held(state: State, name: str) -> Batch:
    batch = batches.get(state.db, int(name)) if name.isdigit() else None
    if batch is None or batch.status is not BatchStatus.SUBMITTING:
        status = f"is {batch.status}" if batch else "is not known"
        raise UsageError(f"batch {name} {status}; only an unconfirmed (submitting) batch can be resolved")
    return batch


def _adopt(state: State, accounts: Accounts, clock: Clock, batch: Batch, remote_id: str) -> None:
    accounts.check(batch)
    if batches.known(state.db, [remote_id]):
        raise UsageError(f"{remote_id} already belongs to another batch")
    provider = accounts.provider(batch.provider)
    remote = provider.retrieve(remote_id)
    tags = recovery.tags_of(provider, remote)
    if tags is not None and batch.tag not in tags:
        raise UsageError(f"{remote_id} holds other requests than batch {batch.id}: its custom_ids bear another tag")
    recovery.adopt(state, batch, remote, clock(), "adopted by a person")


def _disown(state: State, accounts: Accounts, clock: Clock, remote_id: str) -> None:
    """Accept that a batch another copy of this state file sent is not followed, and may be paid for twice."""
    for name in accounts.names():
        provider = accounts.provider(name)
        try:
            remote = provider.retrieve(remote_id)
        except NotFound:
            continue
        if remote.state_id != state.state_id:
            raise UsageError(f"{remote_id} at {name} was not sent by this state file or a copy of it")
        with state.transaction() as db:
            batches.add_stray(db, Stray(name, remote_id, 0), clock())
        provider.cancel(remote_id)
        return
    raise UsageError(f"no provider knows a batch {remote_id}")
