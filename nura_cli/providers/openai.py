"""The connection to OpenAI, and to the services that speak its protocol behind a ``base_url``."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nura_cli.config import ProviderConfig
from nura_cli.dialects import reading
from nura_cli.dialects.base import STATE_KEY, TAG_KEY, Dialect, Page, RemoteBatch, Upload
from nura_cli.dialects.openai import OpenAIDialect, remote_batch
from nura_cli.errors import NotFound, Unconfirmed
from nura_cli.providers import wire
from nura_cli.providers.base import Download


class OpenAIProvider:
    """One OpenAI account, or one at a compatible service, over the vendor's SDK."""

    dialect: Dialect = OpenAIDialect()
    page_size = 100

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
        with wire.without_environment("OPENAI_"):
            import openai

            self._client = openai.OpenAI(
                api_key=secret,
                base_url=address,
                organization=config.organization,
                project=config.project,
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
        """Send a request file, streamed from the open file; return its id."""
        what = "uploading a request file"
        with path.open("rb") as file:
            raw = self._caller.read(
                what,
                lambda: self._client.files.with_raw_response.create(
                    file=(filename, file), purpose="batch", timeout=wire.SEND_SECONDS
                ),
            )
        file_id = reading.text(self._caller.document(what, raw).get("id"))
        if file_id is None:
            raise NotFound(f"{self.name}: {what}: the answer names no file", provider=self.name)
        return file_id

    def create(self, source: Path | str, *, endpoint: str, tag: str, state_id: str) -> RemoteBatch:
        """Create a batch from an uploaded file's id. Sends exactly once."""
        what = "creating a batch"
        raw = self._caller.create(
            what,
            lambda: self._client.batches.with_raw_response.create(
                input_file_id=str(source),
                endpoint=endpoint,  # type: ignore[arg-type]  # the SDK lists today's endpoints; the service may know more
                completion_window="24h",
                metadata={TAG_KEY: tag, STATE_KEY: state_id},
            ),
        )
        remote = remote_batch(self._caller.document(what, raw, effect=True))
        if remote is None:
            raise Unconfirmed(f"{self.name}: {what}: the answer names no batch", provider=self.name)
        return remote

    def page(self, cursor: str | None = None) -> Page:
        """Return one page of the account's batches, newest first."""
        what = "listing batches"
        after: dict[str, Any] = {} if cursor is None else {"after": cursor}
        raw = self._caller.read(
            what, lambda: self._client.batches.with_raw_response.list(limit=self.page_size, **after)
        )
        listing = self._caller.listing(what, raw)
        return wire.page(listing, remote_batch, self.page_size, cursor, raw, "openai-organization")

    def retrieve(self, remote_id: str) -> RemoteBatch:
        """Return one batch."""
        what = f"asking after {remote_id}"
        raw = self._caller.read(what, lambda: self._client.batches.with_raw_response.retrieve(remote_id))
        return self._caller.asked_for(what, remote_id, remote_batch(self._caller.document(what, raw)))

    def download(self, part_id: str, target: Path) -> Download:
        """Stream a file to ``target``."""
        return self._caller.stream(f"downloading {part_id}", self._opened(part_id), target)

    def head(self, part_id: str, size: int) -> bytes:
        """Return the first bytes of a file."""
        return self._caller.head(f"reading {part_id}", self._opened(part_id), size)

    def _opened(self, part_id: str) -> Callable[[], Any]:
        return lambda: self._client.files.with_streaming_response.content(part_id)

    def cancel(self, remote_id: str) -> None:
        """Ask for a batch to be cancelled; one that has ended already answers 400 or 409, which is fine."""
        wire.idempotent(
            self._caller, f"cancelling {remote_id}", lambda: self._client.batches.with_raw_response.cancel(remote_id)
        )

    def files(self, cursor: str | None = None) -> tuple[Sequence[Upload], str | None]:
        """Return one page of uploaded request files, newest first."""
        what = "listing files"
        after: dict[str, Any] = {} if cursor is None else {"after": cursor}
        raw = self._caller.read(
            what,
            lambda: self._client.files.with_raw_response.list(purpose="batch", limit=1000, order="desc", **after),
        )
        listing = self._caller.listing(what, raw)
        uploads = [
            Upload(row["id"], row["filename"], reading.moment(row.get("created_at")))
            for row in listing.rows
            if reading.text(row.get("id")) and reading.text(row.get("filename"))
        ]
        more = listing.more and uploads and uploads[-1].id != cursor
        return uploads, uploads[-1].id if more else None

    def delete(self, remote: RemoteBatch) -> None:
        """Delete a batch's input, output and error files; the batch itself cannot be deleted."""
        for file_id in (remote.input_file_id, *remote.parts.values()):
            if file_id:
                self.delete_file(file_id)

    def delete_file(self, file_id: str) -> None:
        """Delete one file. Gone is fine."""
        try:
            self._caller.read(f"deleting {file_id}", lambda: self._client.files.with_raw_response.delete(file_id))
        except NotFound:
            return
