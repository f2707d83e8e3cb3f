"""What nura needs of a connection to a provider: one account, over the vendor's SDK.

Only dispatch, poll and those who help them hold a :class:`Provider`. What is said over it is worded by its dialect
(:mod:`nura_cli.dialects`), which has a file of its own for each vendor, as the connections have here.

Errors of a :class:`Provider` (all from :mod:`nura_cli.errors`): ``KeyRefused`` (401, 403), ``RateLimited`` (429),
``NotFound`` (404), ``Refused`` (any other certain no: 400, 402, 413, 422), ``Unreachable`` (nothing of the request left, or a
read or delete had no usable answer), and, from :meth:`Provider.create` and :meth:`Provider.answer` alone, ``Unconfirmed`` (the
request left, and no answer says what became of it).
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from nura_cli.config import ProviderConfig
from nura_cli.dialects.base import Dialect, Page, RemoteBatch, Upload


class Account(NamedTuple):
    """What a connection is made from. Whose account it is and where comes from the configuration alone.

    Attributes:
        name: the provider's, in the configuration.
        config: its options; they hold the key, or where it is.
        address: the base URL that is spoken to.
        own: whether that is the vendor's own, whose list is known to show what was created there.
        on_close: what is to be done when the connection is closed: it stops the embedded server, if there is one.
    """

    name: str
    config: ProviderConfig
    address: str
    own: bool
    on_close: Callable[[], None] = lambda: None


class Download(NamedTuple):
    """A body that was written to a file: bytes written, bytes announced (None: no length was given), its sha256."""

    bytes: int
    announced: int | None
    sha256: str


class Provider(Protocol):
    """One account at one provider, over the vendor's SDK; made from an :class:`Account`. Close it when done."""

    name: str
    dialect: Dialect
    page_size: int
    """Batches on one page of the list."""
    own: bool
    """Whether it is spoken to at the vendor's own address, whose list is known to show what was created there."""

    def upload(self, path: Path, filename: str) -> str:
        """Send a request file, streamed; return its id. May be repeated: an orphan costs nothing."""
        ...

    def processed(self, file_id: str) -> bool | None:
        """Return whether an uploaded file is ready to be made a batch of: False while it is not, None where nobody can tell.

        Raises:
            Refused: the provider could not process it, and says why.
        """
        ...

    def create(self, source: Path | str, *, endpoint: str, tag: str, state_id: str) -> RemoteBatch:
        """Create a batch from an uploaded file's id, or (no uploads) from the request file itself. Sends exactly once.

        Raises:
            Unconfirmed: the request may have had its effect.
        """
        ...

    def answer(self, endpoint: str, body: bytes) -> bytes:
        """Return the response to one request outside of a batch, as it came: a JSON object. Sends exactly once.

        Args:
            endpoint: one of the dialect's ``at_once``.
            body: the request's, as it would stand in a batch.

        Raises:
            Unconfirmed: the request may have been answered, and paid for.
        """
        ...

    def page(self, cursor: str | None = None) -> Page:
        """Return one page of the account's batches, newest first.

        Raises:
            Unreachable: also where the answer is no list: that is not an empty one.
        """
        ...

    def retrieve(self, remote_id: str) -> RemoteBatch:
        """Return one batch."""
        ...

    def download(self, part_id: str, target: Path) -> Download:
        """Stream a part to ``target`` (made 0600, replaced if it exists); not synced. Raises Unreachable when cut."""
        ...

    def head(self, part_id: str, size: int) -> bytes:
        """Return the first bytes of a part, at most ``size``, without reading the rest."""
        ...

    def cancel(self, remote_id: str) -> bool:
        """Ask for a batch to be cancelled; return whether that was taken. One that has ended already is no error: False."""
        ...

    def files(self, cursor: str | None = None) -> tuple[Sequence[Upload], str | None]:
        """Return one page of uploaded request files, newest first, and the next cursor; ([], None) without uploads."""
        ...

    def delete(self, remote: RemoteBatch) -> None:
        """Delete what the provider still keeps of an ended batch: its files, or the batch itself. Gone is fine."""
        ...

    def delete_file(self, file_id: str) -> None:
        """Delete one uploaded file. Gone is fine."""
        ...

    def close(self) -> None:
        """Close connections, and the embedded server, if there is one."""
        ...

    @staticmethod
    def options(endpoint: str) -> Collection[str]:
        """Return the request options that the installed SDK knows at an endpoint; none where it does not know that."""
        ...
