"""The connection to Anthropic. Facts from the Message Batches API reference, and from the SDK's source."""

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nura_cli.config import ProviderConfig
from nura_cli.dialects.anthropic import AnthropicDialect, remote_batch
from nura_cli.dialects.base import Dialect, Page, RemoteBatch, Upload
from nura_cli.errors import NotFound, Unconfirmed
from nura_cli.providers import wire
from nura_cli.providers.base import Download


class AnthropicProvider:
    """One Anthropic account, over the vendor's SDK."""

    dialect: Dialect = AnthropicDialect()
    page_size = 1000

    def __init__(
        self,
        name: str,
        config: ProviderConfig,
        base_url: str | None,
        on_close: Callable[[], None] | None,
        *,
        own: bool,
    ) -> None:
        """Prepare a client; nothing is sent. Account and address come from the configuration alone.

        Args:
            own: whether ``base_url`` is the vendor's own address.

        Raises:
            ConfigError: the key cannot be read.
        """
        secret = config.secret()
        self.name = name
        self.own = own
        self._caller = wire.Caller(name)
        self._on_close = on_close
        address = base_url or self.dialect.base_url
        with wire.without_environment("ANTHROPIC_"):
            import anthropic

            self._client = anthropic.Anthropic(
                api_key=secret,
                base_url=address,
                max_retries=0,
                http_client=wire.http_client(address),
                timeout=wire.READ_SECONDS,
            )

    def close(self) -> None:
        """Close connections, and the embedded server, if there is one."""
        self._client.close()
        if self._on_close:
            self._on_close()

    def upload(self, path: Path, filename: str) -> str:
        """Not part of this API: the request file is the body of the create.

        Raises:
            NotImplementedError: always; ``uploads`` says so.
        """
        raise NotImplementedError("Anthropic takes the requests with the create")

    def create(self, source: Path | str, *, endpoint: str, tag: str, state_id: str) -> RemoteBatch:
        """Create a batch from its request file, sent as it is, with its length. Sends exactly once."""
        from anthropic.types.messages import MessageBatch

        what = "creating a batch"
        with Path(source).open("rb") as file:
            raw = self._caller.create(
                what,
                lambda: self._client.post(
                    "/v1/messages/batches",
                    content=file,
                    cast_to=MessageBatch,
                    options={
                        "headers": {
                            "Content-Type": "application/json",
                            "Content-Length": str(Path(source).stat().st_size),
                            "X-Stainless-Raw-Response": "raw",
                        },
                        "timeout": wire.SEND_SECONDS,
                    },
                ),
            )
        remote = remote_batch(self._caller.document(what, raw, effect=True))
        if remote is None:
            raise Unconfirmed(f"{self.name}: {what}: the answer names no batch", provider=self.name)
        return remote

    def page(self, cursor: str | None = None) -> Page:
        """Return one page of the account's batches, newest first."""
        what = "listing batches"
        after: dict[str, Any] = {} if cursor is None else {"after_id": cursor}
        raw = self._caller.read(
            what, lambda: self._client.messages.batches.with_raw_response.list(limit=self.page_size, **after)
        )
        listing = self._caller.listing(what, raw)
        return wire.page(listing, remote_batch, self.page_size, cursor, raw, "anthropic-organization-id")

    def retrieve(self, remote_id: str) -> RemoteBatch:
        """Return one batch."""
        what = f"asking after {remote_id}"
        raw = self._caller.read(what, lambda: self._client.messages.batches.with_raw_response.retrieve(remote_id))
        return self._caller.asked_for(what, remote_id, remote_batch(self._caller.document(what, raw)))

    def download(self, part_id: str, target: Path) -> Download:
        """Stream a batch's results to ``target``."""
        return self._caller.stream(f"downloading results of {part_id}", self._opened(part_id), target)

    def head(self, part_id: str, size: int) -> bytes:
        """Return the first bytes of a batch's results."""
        return self._caller.head(f"reading results of {part_id}", self._opened(part_id), size)

    def _opened(self, part_id: str) -> Callable[[], Any]:
        """Return what opens the stream of a batch's results.

        Not by the SDK's ``results``: it asks after the batch first, and breaks where the answer to that is no batch; and
        it goes, with the key, to whatever address that answer names.
        """
        from anthropic.types.messages import MessageBatch

        headers = {"Accept": "application/binary", "X-Stainless-Raw-Response": "stream"}
        path = f"/v1/messages/batches/{quote(part_id, safe='')}/results"
        return lambda: closing(self._client.get(path, cast_to=MessageBatch, options={"headers": headers}))

    def cancel(self, remote_id: str) -> None:
        """Ask for a batch to be cancelled; one that has ended already is fine."""
        what = f"cancelling {remote_id}"
        wire.idempotent(self._caller, what, lambda: self._client.messages.batches.with_raw_response.cancel(remote_id))

    def files(self, cursor: str | None = None) -> tuple[Sequence[Upload], str | None]:
        """Return nothing: there are no uploaded files."""
        return [], None

    def delete(self, remote: RemoteBatch) -> None:
        """Delete an ended batch with its results. Gone is fine."""
        try:
            self._caller.read(
                f"deleting {remote.id}", lambda: self._client.messages.batches.with_raw_response.delete(remote.id)
            )
        except NotFound:
            return

    def delete_file(self, file_id: str) -> None:
        """Do nothing: there are no uploaded files."""
