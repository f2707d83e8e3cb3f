"""What a person wished cancelled, and is at a provider: whoever reaches the provider asks it for that, until it is taken."""

from nura_cli.dialects.base import Phase
from nura_cli.errors import NotFound
from nura_cli.pipeline import waiting
from nura_cli.providers.base import Provider
from nura_cli.state import State, batches
from nura_cli.state.batches import Batch


def ask(state: State, provider: Provider, batch: Batch) -> bool:
    """Ask a provider to cancel a batch, where a person wished so and that was not taken yet; note it once it is.

    One that goes on for an hour all the same is asked for again: whoever answered may not have been the provider.

    Returns:
        Whether nothing is left to ask for: it was taken, or the batch has ended first.

    Raises:
        ProviderError, KeyRefused: it cannot be asked now.
    """
    taken = batch.cancel_taken_at
    if batch.cancel_at is None or (taken is not None and 0 <= state.clock() - taken < waiting.ALONE_SECONDS):
        return True
    remote_id = str(batch.remote_id)
    if not provider.cancel(remote_id) and _may_run(provider, remote_id):
        return False
    with state.transaction() as db:
        batches.cancel_taken(db, batch)
    return True


def _may_run(provider: Provider, remote_id: str) -> bool:
    """Return whether a batch may be at work; one that is not found may: some services have no answer for single batches."""
    try:
        return provider.retrieve(remote_id).phase is Phase.RUNNING
    except NotFound:
        return True
