"""nura resolve: a person decides about a batch that recovery holds.

Takes a batch in ``submitting``, one that is ``submitted`` and long past its time, or (after a restored state file)
batches at the provider that it does not know; leaves the batch ``submitted`` as the remote batch it is said to be, or
``failed`` with its tasks pending. It runs under dispatch's lock.
"""

from collections.abc import Sequence

from nura_cli.clock import Clock
from nura_cli.errors import ConfigError, KeyRefused, NotFound, NuraError, ProviderError, UsageError
from nura_cli.pipeline import recovery
from nura_cli.pipeline.accounts import Accounts
from nura_cli.pipeline.report import Report
from nura_cli.providers.base import Provider, RemoteBatch
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
            _send_again(state, clock(), name)
        else:
            _disown(state, accounts, clock, name)
    return Report({"done": "its tasks are sent again by the next dispatch"}, worked=True)


def _held(state: State, name: str) -> Batch:
    batch = batches.get(state.db, int(name)) if name.isdigit() else None
    if batch is None or batch.status is not BatchStatus.SUBMITTING:
        status = f"is {batch.status}" if batch else "is not known"
        raise UsageError(f"batch {name} {status}; only an unconfirmed (submitting) batch can be resolved")
    return batch


def _send_again(state: State, now: int, name: str) -> None:
    """Give a batch's tasks back; where the provider took it, it is cancelled should it be there, and what it cost counted."""
    batch = batches.get(state.db, int(name))
    if batch is not None and batch.status is BatchStatus.SUBMITTED:
        if now < recovery.deadline(batch) + recovery.LOST_AFTER:
            raise UsageError(f"batch {name} is submitted, and its time is not over: the provider may be working on it")
        recovery.abandon(state, batch, now, "given up by a person, past its time: its tasks are sent again")
    else:
        recovery.give_up(state, _held(state, name), now, "given up by a person: its tasks are sent again")


def _adopt(state: State, accounts: Accounts, clock: Clock, batch: Batch, remote_id: str) -> None:
    accounts.check(batch)
    _check_unknown(state, remote_id)
    provider = accounts.provider(batch.provider)
    remote = provider.retrieve(remote_id)
    if remote.total not in (None, 0, batch.requests):
        raise UsageError(f"{remote_id} has {remote.total:,} requests, and batch {batch.id} has {batch.requests:,}")
    tags = recovery.tags_of(provider, remote)
    if tags is not None and batch.tag not in tags:
        raise UsageError(f"{remote_id} holds other requests than batch {batch.id}: its custom_ids bear another tag")
    recovery.adopt(state, batch, remote, clock(), "adopted by a person")


def _check_unknown(state: State, remote_id: str) -> None:
    if batches.known(state.db, [remote_id]):
        raise UsageError(f"{remote_id} already belongs to a batch here; nura status names it while it is under way")


def _disown(state: State, accounts: Accounts, clock: Clock, remote_id: str) -> None:
    """Accept that a batch another copy of this state file sent is not followed, and may be paid for twice."""
    if not batches.disowned(state.db, remote_id):
        _check_unknown(state, remote_id)
    provider, remote = _found(accounts, remote_id)
    if remote.state_id != state.state_id:
        raise UsageError(f"{remote_id} at {provider.name} was not sent by this state file or a copy of it")
    with state.transaction() as db:
        batches.add_stray(db, Stray(provider.name, remote_id, 0, clock()))
    provider.cancel(remote_id)


def _found(accounts: Accounts, remote_id: str) -> tuple[Provider, RemoteBatch]:
    """Return the provider that knows a batch, and what it says of it; the trouble of another one does not matter.

    Raises:
        UsageError: none knows it.
        ProviderError, KeyRefused, ConfigError: none that could be asked knows it.
    """
    trouble: NuraError | None = None
    for name in accounts.names():
        try:
            provider = accounts.provider(name)
            return provider, provider.retrieve(remote_id)
        except NotFound:
            continue
        except (ProviderError, KeyRefused, ConfigError) as error:
            trouble = trouble or error
    raise trouble or UsageError(f"no provider knows a batch {remote_id}")
