"""Anthropic Message Batches. Facts from the Message Batches guide and API reference, and from the SDK's source."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from nura_cli.config import ProviderConfig
from nura_cli.errors import InputError, NotFound, Unconfirmed
from nura_cli.pricing import Usage
from nura_cli.providers import wire
from nura_cli.providers.base import (
    Answer,
    Dialect,
    Download,
    Ending,
    Frame,
    Limits,
    Page,
    Phase,
    Ready,
    RemoteBatch,
    ResultLine,
    Spec,
    Upload,
)
from nura_cli.states import ErrorKind

# The vendor's words. An unknown one is waited on.
_PHASES = {"ended": Phase.ENDED}
_ENDINGS = {"errored": None, "canceled": ErrorKind.CANCELLED, "expired": ErrorKind.EXPIRED}
# Error types of single requests (API reference, errors), and the HTTP status each stands for.
_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_RETRIED = {"rate_limit_error": ErrorKind.RATE_LIMITED}

LIMITS = Limits(requests=100_000, bytes=256_000_000, inputs=None, line_bytes=32_000_000)
"""Requests and bytes of a batch (Message Batches guide, limitations); a single message request may have 32 MB."""
DEFAULT_URL = "https://api.anthropic.com"
DOMAIN = "api.anthropic.com"


class _ReadyLine(msgspec.Struct):
    custom_id: str
    params: msgspec.Raw


class _Params(msgspec.Struct):
    model: str
    stream: bool = False


class _Ending(msgspec.Struct):
    type: str
    message: msgspec.Raw = msgspec.Raw(b"")
    error: Any = None


class _ResultLine(msgspec.Struct):
    custom_id: str
    result: _Ending


class _Block(msgspec.Struct):
    type: str = ""
    text: str = ""


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class _Message(msgspec.Struct):
    content: list[_Block] = []
    stop_reason: str | None = None
    usage: _Usage | None = None
    model: str | None = None


_decode_ready = msgspec.json.Decoder(_ReadyLine).decode
_decode_params = msgspec.json.Decoder(_Params).decode
_decode_line = msgspec.json.Decoder(_ResultLine).decode
_decode_message = msgspec.json.Decoder(_Message).decode
_encode = msgspec.json.encode
_HOLE = "\x00nura\x00"


class AnthropicDialect:
    """How Anthropic words requests and results."""

    name = "anthropic"
    limits = LIMITS
    endpoints: tuple[str, ...] = ("/v1/messages",)
    one_model = False
    frame = Frame(b'{"requests":[', b",", b"]}")

    def ready(self, line: bytes) -> Ready:
        """Take apart a batch request: custom_id and params. Models may be mixed, so the lane has none."""
        try:
            found = _decode_ready(line)
            params = _decode_params(found.params)
        except msgspec.ValidationError as error:
            raise InputError(f"not an Anthropic batch request: {error}") from error
        if params.stream:
            raise InputError("stream is not possible in a batch")
        return Ready(found.custom_id, self.endpoints[0], "", bytes(found.params))

    def inputs(self, endpoint: str, body: bytes) -> int:
        """Return 0: there are no embeddings here."""
        return 0

    def body(self, spec: Spec) -> Callable[[str], bytes]:
        """Return a function from a prompt to a request's params; all but the prompt is encoded once."""
        params: dict[str, Any] = {"model": spec.model}
        if spec.system is not None:
            params["system"] = spec.system
        params["messages"] = [{"role": "user", "content": _HOLE}]
        if spec.answer_schema is not None:
            params["output_config"] = {"format": {"type": "json_schema", "schema": spec.answer_schema}}
        before, after = _encode(params | spec.params).split(_encode(_HOLE))

        def fill(prompt: str) -> bytes:
            return b"".join((before, _encode(prompt), after))

        return fill

    def request(self, custom_id: bytes, endpoint: str, body: bytes) -> bytes:
        """Return one element of the ``requests`` array."""
        return b"".join((b'{"custom_id":"', custom_id, b'","params":', body, b"}"))

    def result(self, line: bytes) -> ResultLine:
        """Decode a result line: succeeded, errored, canceled or expired; an unknown ending is tried again."""
        try:
            found = _decode_line(wire.utf8(line))
        except (msgspec.MsgspecError, RecursionError) as error:
            raise ValueError(f"not a result line: {error}") from error
        ending = found.result
        message = bytes(ending.message).strip()
        if ending.type == "succeeded" and message.startswith(b"{"):
            return ResultLine(found.custom_id, message, None, 200)
        outer = ending.error if isinstance(ending.error, dict) else {}
        inner = outer.get("error")
        told = inner if isinstance(inner, dict) else outer
        code = wire.text(told.get("type"))
        status = _STATUSES.get(code or "")
        kind = _ENDINGS.get(ending.type) or _kind(code, status)
        return ResultLine(found.custom_id, None, kind, status, code, wire.text(told.get("message")))

    def answer(self, endpoint: str, body: bytes) -> Answer:
        """Read a message: its text blocks together."""
        try:
            found = _decode_message(body)
        except (msgspec.MsgspecError, RecursionError, ValueError):
            return Answer(None, None, None, False, False, None, None)
        texts = [block.text for block in found.content if block.type == "text"]
        return Answer(
            "".join(texts) if texts else None,
            None,
            found.stop_reason,
            found.stop_reason in ("max_tokens", "model_context_window_exceeded"),
            found.stop_reason == "refusal",
            _usage(found.usage),
            found.model,
        )

    def result_line(self, custom_id: str, body: bytes | None, error: Mapping[str, Any] | None) -> bytes:
        """Return a line as the vendor's results have it."""
        ended = {kind: word for word, kind in _ENDINGS.items() if kind is not None}
        if error is None:
            ending: dict[str, Any] = {"type": "succeeded", "message": msgspec.Raw(body or b"null")}
        elif error["kind"] in ended:
            ending = {"type": ended[error["kind"]]}
        else:
            inner = {"type": error.get("code") or error["kind"], "message": error.get("message")}
            ending = {"type": "errored", "error": {"type": "error", "error": inner}}
        return _encode({"custom_id": custom_id, "result": ending})


def _kind(code: str | None, status: int | None) -> ErrorKind:
    if code in _RETRIED:
        return _RETRIED[code]
    return ErrorKind.REFUSED if status is not None and 400 <= status < 500 else ErrorKind.PROVIDER_ERROR


def _usage(found: _Usage | None) -> Usage | None:
    """Return the tokens; the vendor's input_tokens leave out what was read from or written to the cache."""
    if found is None or found.input_tokens is None:
        return None
    cached, written = found.cache_read_input_tokens or 0, found.cache_creation_input_tokens or 0
    usage = Usage(found.input_tokens + cached + written, cached, written, found.output_tokens or 0)
    return usage if all(0 <= n < 2**40 for n in usage) else None


def remote_batch(found: Mapping[str, Any]) -> RemoteBatch | None:
    """Return a batch object of the vendor's as nura sees it; None where it has no id."""
    remote_id = wire.text(found.get("id"))
    if remote_id is None:
        return None
    status = wire.line(wire.text(found.get("processing_status")) or "") or "unknown"
    counts = found.get("request_counts")
    counts = counts if isinstance(counts, dict) else {}
    told = {
        name: wire.whole(counts.get(name)) for name in ("processing", "succeeded", "errored", "canceled", "expired")
    }
    known = [n for n in told.values() if n is not None]
    phase = _PHASES.get(status.lower(), Phase.RUNNING)
    cancelled = found.get("cancel_initiated_at") is not None or bool(told["canceled"])
    ending = (Ending.CANCELLED if cancelled else Ending.COMPLETED) if phase is Phase.ENDED else None
    return RemoteBatch(
        id=remote_id,
        status=status,
        phase=phase,
        created_at=wire.moment(found.get("created_at")),
        expires_at=wire.moment(found.get("expires_at")),
        ended_at=wire.moment(found.get("ended_at")),
        total=sum(known) if known else None,
        completed=told["succeeded"],
        failed=sum(told[name] or 0 for name in ("errored", "canceled", "expired")) if known else None,
        # Results are kept for 29 days; after that the batch has ended and has none.
        parts={"results": remote_id} if phase is Phase.ENDED and wire.text(found.get("results_url")) else {},
        ending=ending,
    )


class AnthropicProvider:
    """One Anthropic account, over the vendor's SDK."""

    dialect: Dialect = AnthropicDialect()
    page_size = 1000
    uploads = False

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
        address = base_url or DEFAULT_URL
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
        wire.settled(self._caller, what, lambda: self._client.messages.batches.with_raw_response.cancel(remote_id))

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
