"""The connection to OpenAI, and to the services that speak its protocol behind a ``base_url``."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from nura_cli.dialects import reading
from nura_cli.dialects.base import STATE_KEY, TAG_KEY, Dialect, Page, RemoteBatch, Upload
from nura_cli.dialects.openai import OpenAIDialect, remote_batch
from nura_cli.dialects.openai_files import file_faults, processed
from nura_cli.errors import KeyRefused, NotFound, ProviderError, RateLimited, Refused
from nura_cli.providers import sparse, wire
from nura_cli.providers.base import Account, Download


class OpenAIProvider:
    """One OpenAI account, or one at a compatible service, over the vendor's SDK."""

    dialect: Dialect = OpenAIDialect()
    page_size = 100

    def __init__(self, account: Account) -> None:
        """Prepare a client; nothing is sent.

        Raises:
            ConfigError: the key cannot be read.
        """
        self.name, self.own, self._on_close = account.name, account.own, account.on_close
        self._processed: set[str] = set()
        with sparse.importing("openai"):
            options, config = wire.sdk_options(account), account.config
            with wire.without_environment("OPENAI_"):
                import openai

                self._client = openai.OpenAI(organization=config.organization, project=config.project, **options)
        self._caller = wire.Caller(account.name, remote_batch, self.dialect.faults, options["http_client"])
        self._batches = self._client.batches.with_raw_response
        self._files = self._client.files.with_raw_response

    def close(self) -> None:
        """Close connections, and the embedded server, if there is one."""
        self._client.close()
        self._on_close()

    @staticmethod
    def options(endpoint: str) -> Collection[str]:
        """Return the request options that the SDK's types have for an endpoint."""
        from openai.types import embedding_create_params
        from openai.types.chat import completion_create_params
        from openai.types.responses import response_create_params

        known: dict[str, Any] = {
            "/v1/chat/completions": completion_create_params.CompletionCreateParamsBase,
            "/v1/responses": response_create_params.ResponseCreateParamsBase,
            "/v1/embeddings": embedding_create_params.EmbeddingCreateParams,
        }
        return known[endpoint].__annotations__.keys() if endpoint in known else ()

    def upload(self, path: Path, filename: str) -> str:
        """Send a request file, streamed from the open file; return its id."""
        what = "uploading a request file"
        with wire.sending(path) as file:
            found = self._caller.document(
                what,
                lambda: self._files.create(file=(filename, file), purpose="batch", timeout=wire.patience(path)),
            )
        file_id = reading.text(found.get("id"))
        if file_id is None:
            raise NotFound(f"{self.name}: {what}: the answer names no file", provider=self.name)
        if processed(found):
            self._processed.add(file_id)
        return file_id

    def processed(self, file_id: str) -> bool | None:
        """Return whether an uploaded file is ready; one of which the answer to its upload said so is not asked after."""
        if file_id in self._processed:
            return True
        what = f"asking after the file {file_id}"
        try:
            found = self._caller.document(what, lambda: self._files.retrieve(file_id))
        except RateLimited:
            raise
        except KeyRefused:  # some may upload, and not look
            return None
        except ProviderError as error:
            if not error.answered:
                raise
            return None
        if (faults := file_faults(found)) is not None:
            words = faults[0].message or "it could not be processed"
            raise Refused(f"{self.name}: {what}: {words}", http_status=200, faults=faults, provider=self.name)
        return processed(found)

    def create(self, source: Path | str, *, endpoint: str, tag: str, state_id: str) -> RemoteBatch:
        """Create a batch from an uploaded file's id. Sends exactly once."""
        return self._caller.create(
            lambda: self._batches.create(
                input_file_id=str(source),
                endpoint=endpoint,  # type: ignore[arg-type]  # the SDK lists today's endpoints; the service may know more
                completion_window="24h",
                metadata={TAG_KEY: tag, STATE_KEY: state_id},
            )
        )

    def answer(self, endpoint: str, body: bytes) -> bytes:
        """Return the response to one request outside of a batch: its very bytes are sent. Sends exactly once."""
        headers = {"Content-Type": "application/json", "X-Stainless-Raw-Response": "true"}
        return self._caller.answer(
            lambda: self._client.post(
                endpoint.removeprefix("/v1"),  # the base URL has it
                content=body,
                cast_to=object,
                options={"headers": headers, "timeout": wire.ANSWER_SECONDS},
            )
        )

    def page(self, cursor: str | None = None) -> Page:
        """Return one page of the account's batches, newest first."""
        return self._caller.page(
            lambda: self._batches.list(limit=self.page_size, **wire.given(after=cursor)),
            size=self.page_size,
            cursor=cursor,
            account="openai-organization",
        )

    def retrieve(self, remote_id: str) -> RemoteBatch:
        """Return one batch."""
        return self._caller.retrieve(remote_id, lambda: self._batches.retrieve(remote_id))

    def download(self, part_id: str, target: Path) -> Download:
        """Stream a file to ``target``."""
        return self._caller.download(part_id, self._opened(part_id), target)

    def head(self, part_id: str, size: int) -> bytes:
        """Return the first bytes of a file."""
        return self._caller.head(part_id, self._opened(part_id), size)

    def _opened(self, part_id: str) -> wire.Opened:
        return lambda: self._client.files.with_streaming_response.content(part_id)

    def cancel(self, remote_id: str) -> bool:
        """Ask for a batch to be cancelled; one that has ended already answers 400 or 409: not taken."""
        return self._caller.cancel(remote_id, lambda: self._batches.cancel(remote_id))

    def files(self, cursor: str | None = None) -> tuple[Sequence[Upload], str | None]:
        """Return one page of uploaded request files, newest first."""
        listing = self._caller.listing(
            "listing files",
            lambda: self._files.list(purpose="batch", limit=1000, order="desc", **wire.given(after=cursor)),
        )
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
        self._caller.delete(file_id, lambda: self._files.delete(file_id))
