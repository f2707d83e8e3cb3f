"""The connection to Anthropic. Facts from the Message Batches API reference, and from the SDK's source."""

from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from nura_cli.dialects.anthropic import AnthropicDialect, remote_batch
from nura_cli.dialects.base import Dialect, Page, RemoteBatch, Upload
from nura_cli.providers import sparse, wire
from nura_cli.providers.base import Account, Download

_PATH = "/v1/messages/batches"
_UNCALLED = ("anthropic.lib._tracing:finish_api_call_span", "anthropic.lib._tracing:get")
"""Functions for spans of OpenTelemetry, of which there are none here: they would import the types of all requests and answers."""


class AnthropicProvider:
    """One Anthropic account, over the vendor's SDK."""

    dialect: Dialect = AnthropicDialect()
    page_size = 1000

    def __init__(self, account: Account) -> None:
        """Prepare a client; nothing is sent.

        Raises:
            ConfigError: the key cannot be read.
        """
        self.name, self.own, self._on_close = account.name, account.own, account.on_close
        with sparse.importing("anthropic", uncalled=_UNCALLED):
            options = wire.sdk_options(account)
            with wire.without_environment("ANTHROPIC_"):
                import anthropic
                from anthropic.resources.messages import Batches

                self._client = anthropic.Anthropic(**options)
        self._caller = wire.Caller(account.name, remote_batch, self.dialect.faults, options["http_client"])
        self._batches = Batches(self._client).with_raw_response  # client.messages.batches, without what streams need

    def close(self) -> None:
        """Close connections, and the embedded server, if there is one."""
        self._client.close()
        self._on_close()

    @staticmethod
    def options(endpoint: str) -> Collection[str]:
        """Return the request options that the SDK's types have for messages; those that need a beta's header are among them."""
        from anthropic.types import message_create_params
        from anthropic.types.beta import message_create_params as beta

        if endpoint not in AnthropicDialect.endpoints:
            return ()
        known = message_create_params.MessageCreateParamsBase, beta.MessageCreateParamsBase
        return {name for one in known for name in one.__annotations__} - {"betas"}

    def upload(self, path: Path, filename: str) -> str:
        """Not part of this API: the request file is the body of the create.

        Raises:
            NotImplementedError: always; ``uploads`` says so.
        """
        raise NotImplementedError("Anthropic takes the requests with the create")

    def processed(self, file_id: str) -> bool | None:
        """Return None: there are no uploaded files."""
        return None

    def create(self, source: Path | str, *, endpoint: str, tag: str, state_id: str) -> RemoteBatch:
        """Create a batch from its request file, sent as it is, with its length. Sends exactly once."""
        from anthropic.types.messages import MessageBatch

        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(Path(source).stat().st_size),
            "X-Stainless-Raw-Response": "raw",
        }
        with wire.sending(Path(source)) as file:
            return self._caller.create(
                lambda: self._client.post(
                    _PATH,
                    content=file,
                    cast_to=MessageBatch,
                    options={"headers": headers, "timeout": wire.patience(Path(source))},
                )
            )

    def answer(self, endpoint: str, body: bytes) -> bytes:
        """Return the response to one request outside of a batch: its very bytes are sent. Sends exactly once."""
        headers = {"Content-Type": "application/json", "X-Stainless-Raw-Response": "raw"}
        return self._caller.answer(
            lambda: self._client.post(
                endpoint,
                content=body,
                cast_to=object,
                options={"headers": headers, "timeout": wire.ANSWER_SECONDS},
            )
        )

    def page(self, cursor: str | None = None) -> Page:
        """Return one page of the account's batches, newest first."""
        return self._caller.page(
            lambda: self._batches.list(limit=self.page_size, **wire.given(after_id=cursor)),
            size=self.page_size,
            cursor=cursor,
            account="anthropic-organization-id",
        )

    def retrieve(self, remote_id: str) -> RemoteBatch:
        """Return one batch."""
        return self._caller.retrieve(remote_id, lambda: self._batches.retrieve(remote_id))

    def download(self, part_id: str, target: Path) -> Download:
        """Stream a batch's results to ``target``."""
        return self._caller.download(f"results of {part_id}", self._opened(part_id), target)

    def head(self, part_id: str, size: int) -> bytes:
        """Return the first bytes of a batch's results."""
        return self._caller.head(f"results of {part_id}", self._opened(part_id), size)

    def _opened(self, part_id: str) -> wire.Opened:
        """Return what opens the stream of a batch's results.

        Not by the SDK's ``results``: it asks after the batch first, and breaks where the answer to that is no batch; and
        it goes, with the key, to whatever address that answer names.
        """
        from anthropic.types.messages import MessageBatch

        headers = {"Accept": "application/binary", "X-Stainless-Raw-Response": "stream"}
        path = f"{_PATH}/{quote(part_id, safe='')}/results"
        return lambda: closing(self._client.get(path, cast_to=MessageBatch, options={"headers": headers}))

    def cancel(self, remote_id: str) -> bool:
        """Ask for a batch to be cancelled; for one that has ended already it is not taken."""
        return self._caller.cancel(remote_id, lambda: self._batches.cancel(remote_id))

    def files(self, cursor: str | None = None) -> tuple[Sequence[Upload], str | None]:
        """Return nothing: there are no uploaded files."""
        return [], None

    def delete(self, remote: RemoteBatch) -> None:
        """Delete an ended batch with its results. Gone is fine."""
        self._caller.delete(remote.id, lambda: self._batches.delete(remote.id))

    def delete_file(self, file_id: str) -> None:
        """Do nothing: there are no uploaded files."""
