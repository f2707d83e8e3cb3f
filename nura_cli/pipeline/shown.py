"""What a provider's list shows of batches that are not to be had one by one.

Some services have no answer for single batches, and each may lose sight of one for a while. What is on the list is there,
whoever's key reads it; what the list lacks is missing only where nothing speaks against it (``doubt``).
"""

from collections.abc import Mapping
from typing import NamedTuple

from nura_cli.dialects.base import RemoteBatch
from nura_cli.errors import KeyRefused, NotFound, ProviderError
from nura_cli.pipeline import recovery
from nura_cli.pipeline.accounts import Accounts
from nura_cli.pipeline.waiting import SETTLING_SECONDS
from nura_cli.providers.base import Provider
from nura_cli.state import Connection, State, batches, tasks


class Shown(NamedTuple):
    """The batches on a list, by id, and why it proves no absence, in words, or None."""

    batches: Mapping[str, RemoteBatch]
    doubt: str | None

    def lacks(self) -> str:
        """Return in words, to be added to what is said of a batch that is not on it, why that proves nothing; else nothing."""
        return f"; that its list lacks it proves nothing: {self.doubt}" if self.doubt else ""


def find(state: State, accounts: Accounts, provider: Provider, remote_id: str) -> RemoteBatch:
    """Return a batch as its provider tells it, by itself or on its list.

    Raises:
        NotFound: it is on neither.
        ProviderError, KeyRefused: it cannot be asked after now.
    """
    try:
        return provider.retrieve(remote_id)
    except NotFound:
        remote = read(state, accounts, provider).batches.get(remote_id)
        if remote is None:
            raise
        return remote


def read(state: State, accounts: Accounts, provider: Provider) -> Shown:
    """Read a provider's list down to before the oldest batch that is under way there; one that cannot be read shows nothing."""
    here = accounts.fingerprint(provider.name)
    try:
        scan = recovery.read_list(provider, _since(state.db, provider.name, here), here)
    except (ProviderError, KeyRefused) as error:
        return Shown({}, error.message)
    return Shown({remote.id: remote for remote in scan.batches}, scan.doubt)


def _since(db: Connection, name: str, here: str) -> recovery.Marker:
    """Return a marker from before the oldest of these batches; of a key that is not the one in use, where one sent any of them."""
    sent = [one for one in batches.under_way(db) if one.provider == name]
    followed = [one.batch_id for one in batches.orphans(db) if one.provider == name and one.spooled is None]
    sent += [batch for number in followed if (batch := batches.get(db, number)) is not None]
    markers = [recovery.marker_of(one) for one in sorted(sent, key=lambda one: one.created_at) if one.marker]
    if not markers or 0 in followed:  # a copy of this state file sent it, who knows when
        markers.insert(0, recovery.Marker(None, tasks.first_at(db) - SETTLING_SECONDS, None, None, here))
    asked = next((one for one in markers if one.fingerprint != here), markers[0])
    return asked._replace(id=None, created_at=markers[0].created_at)
