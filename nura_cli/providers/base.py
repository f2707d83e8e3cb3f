"""What nura needs of a provider: a dialect (pure: bytes in, values out) and a connection (the network).

A :class:`Dialect` knows how a vendor words requests and results, and never imports the SDK; enqueue, dispatch,
reconcile and results use it. A :class:`Provider` speaks to one account through the vendor's SDK; only dispatch and poll
hold one. Each vendor's file has both, and nothing else in nura knows a vendor's word.

Errors of a :class:`Provider` (all from :mod:`nura_cli.errors`): ``KeyRefused`` (401, 403), ``RateLimited`` (429),
``NotFound`` (404), ``Refused`` (any other certain no: 400, 413, 422), ``Unreachable`` (nothing of the request left, or a
read or delete had no usable answer), and, from :meth:`Provider.create` alone, ``Unconfirmed`` (the request left, and no
answer says what became of it).
"""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from nura_cli.pricing import Usage
from nura_cli.states import ErrorKind

TAG_KEY = "nura_tag"
STATE_KEY = "nura_state"


class Limits(NamedTuple):
    """What one batch may hold at most.

    Attributes:
        requests: requests in a batch.
        bytes: size of the request file or body, in bytes.
        inputs: embedding inputs in a batch, or None where there is no such limit.
        line_bytes: size of one request, in bytes.
    """

    requests: int
    bytes: int
    inputs: int | None
    line_bytes: int


class Spec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a batch is rendered with; its hash is the batch's *revision*.

    Attributes:
        dialect: ``openai`` or ``anthropic``.
        endpoint: the vendor's path, such as ``/v1/chat/completions``.
        model: the one model of the batch, or "" where its lines name their own.
        system: text for the system's role, sent as it is, or None.
        prompt: the Jinja template of the user's message, or None for ready lines.
        params: the vendor's own request options, passed on unchanged.
        answer_schema: the JSON schema that answers must fit, or None.
    """

    dialect: str
    endpoint: str
    model: str = ""
    system: str | None = None
    prompt: str | None = None
    params: dict[str, Any] = {}
    answer_schema: dict[str, Any] | None = None


class Ready(NamedTuple):
    """A ready line taken apart: its key, where it goes, its model, the bytes to send, its embedding inputs."""

    key: str
    endpoint: str
    model: str
    body: bytes


class ResultLine(NamedTuple):
    """One line of a batch's results.

    Attributes:
        custom_id: as the provider gave it back; never trusted before it is looked up.
        body: the raw JSON of the model's response, or None without one.
        error: None for an answer, else why there is none.
        http_status: the status the provider gave for this request, if any.
        code, message: the provider's own words about the error.
    """

    custom_id: str
    body: bytes | None
    error: ErrorKind | None = None
    http_status: int | None = None
    code: str | None = None
    message: str | None = None


class Answer(NamedTuple):
    """What a model's response says.

    Attributes:
        text: the answer's text; None for an embedding, or where there is none.
        value: an embedding's vector (or a list of them), else None.
        finish_reason: the vendor's word for why it ended.
        truncated: it ran into its token limit.
        refusal: the model declined to answer.
        usage: tokens, or None where the response does not say.
        model: the model that answered, or None.
    """

    text: str | None
    value: Any
    finish_reason: str | None
    truncated: bool
    refusal: bool
    usage: Usage | None
    model: str | None


class Frame(NamedTuple):
    """How requests become one file: ``head + separator.join(requests) + tail``."""

    head: bytes
    separator: bytes
    tail: bytes


class Dialect(Protocol):
    """A vendor's wording, without its network."""

    name: str
    limits: Limits
    endpoints: tuple[str, ...]
    """Endpoints that prompts are rendered for; the first is the default."""
    one_model: bool
    """Whether all requests of a batch must name one model."""
    frame: Frame

    def ready(self, line: bytes) -> Ready:
        """Take apart one ready line (one JSON document, UTF-8).

        Raises:
            InputError: it is not a request of this vendor's; says why.
        """
        ...

    def inputs(self, endpoint: str, body: bytes) -> int:
        """Return how many embedding inputs a request body carries (1 for one string; 0 at other endpoints)."""
        ...

    def body(self, spec: Spec) -> Callable[[str], bytes]:
        """Return a function from a rendered prompt to the JSON bytes of one request's body; all else is ready made."""
        ...

    def request(self, custom_id: bytes, endpoint: str, body: bytes) -> bytes:
        """Return one request as it stands in the file, without line end or comma."""
        ...

    def result(self, line: bytes) -> ResultLine:
        """Decode one line of a result file.

        Raises:
            ValueError: it is not a result of this vendor's.
        """
        ...

    def answer(self, endpoint: str, body: bytes) -> Answer:
        """Read a response body. Never raises for odd shapes: what is not there is None."""
        ...

    def result_line(self, custom_id: str, body: bytes | None, error: Mapping[str, Any] | None) -> bytes:
        """Return an answer kept here as a line of the vendor's own result files.

        Args:
            custom_id: the application's own.
            body: the response body, on one line, or None without one.
            error: None for a completed task; else the ``error`` of a line of ``nura results``. What the vendor answered
                and nura would not take (an answer that breaks its schema, say) is an error of nura's kind here too.
        """
        ...


class Phase(StrEnum):
    """What a batch's status at the provider means for nura."""

    RUNNING = "running"  # wait; also every word nura does not know
    ENDED = "ended"  # what there is of results can be downloaded
    REFUSED = "refused"  # the provider refused it whole; nothing was done, nothing is billed


class Ending(StrEnum):
    """How a provider ended a batch that it did not refuse."""

    COMPLETED = "completed"
    EXPIRED = "expired"  # its time was over first: what was answered until then is kept, the rest was never done
    CANCELLED = "cancelled"  # somebody decided so: what was answered until then is kept


class Fault(NamedTuple):
    """Why a provider refused a batch: its code, its words, and the 1-based request line, where it names one."""

    code: str | None
    message: str | None
    line: int | None


class RemoteBatch(NamedTuple):
    """A batch as the provider tells it. Absent figures are None, never guessed.

    Attributes:
        id: the provider's id.
        status: the provider's own word.
        phase: what that word means.
        ending: how it ended, once it has.
        created_at, expires_at, ended_at: unix seconds, UTC.
        total, completed, failed: requests.
        input_file_id: the uploaded request file (OpenAI).
        parts: what can be downloaded: part name (``output``, ``error`` or ``results``) → id of the file or batch.
        tag, state_id: from the metadata, where the provider keeps any.
        faults: why it was refused.
    """

    id: str
    status: str
    phase: Phase
    created_at: int | None = None
    expires_at: int | None = None
    ended_at: int | None = None
    total: int | None = None
    completed: int | None = None
    failed: int | None = None
    input_file_id: str | None = None
    parts: Mapping[str, str] = {}
    tag: str | None = None
    state_id: str | None = None
    faults: tuple[Fault, ...] = ()
    ending: Ending | None = None


class Page(NamedTuple):
    """One page of the provider's list of batches, newest first.

    Attributes:
        batches: at most what one page holds.
        next: the cursor of the next, older page; None at the end of the list, or where the cursor did not advance.
        date: the server's clock (its ``Date`` header), unix seconds, or None.
        account: who the provider says is asking (its organization header), or None.
        stuck: the server said there is more, but its cursor did not advance: the list cannot be read to its end.
        sound: whether what is not on it may be taken to be absent; not where it is null, or has rows without an id.
    """

    batches: Sequence[RemoteBatch]
    next: str | None
    date: int | None
    account: str | None
    stuck: bool = False
    sound: bool = True


class Download(NamedTuple):
    """A body that was written to a file: bytes written, bytes announced (None: no length was given), its sha256."""

    bytes: int
    announced: int | None
    sha256: str


class Upload(NamedTuple):
    """A file at the provider: its id, its filename and when it was made (unix seconds)."""

    id: str
    filename: str
    created_at: int | None


class Provider(Protocol):
    """One account at one provider, over the vendor's SDK. Close it when done."""

    name: str
    dialect: Dialect
    page_size: int
    """Batches on one page of the list."""
    uploads: bool
    """Whether the request file is uploaded before the batch is created."""
    own: bool
    """Whether it is spoken to at the vendor's own address, whose list is known to show what was created there."""

    def upload(self, path: Path, filename: str) -> str:
        """Send a request file, streamed; return its id. May be repeated: an orphan costs nothing."""
        ...

    def create(self, source: Path | str, *, endpoint: str, tag: str, state_id: str) -> RemoteBatch:
        """Create a batch from an uploaded file's id, or (no uploads) from the request file itself. Sends exactly once.

        Raises:
            Unconfirmed: the request may have had its effect.
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

    def cancel(self, remote_id: str) -> None:
        """Ask for a batch to be cancelled; one that has ended already is no error."""
        ...

    def files(self, cursor: str | None = None) -> tuple[Sequence[Upload], str | None]:
        """Return one page of uploaded request files, newest first, and the next cursor; ([], None) without uploads."""
        ...

    def delete(self, remote: RemoteBatch) -> None:
        """Delete what the provider still keeps of an ended batch: its files (OpenAI), itself (Anthropic). Gone is fine."""
        ...

    def delete_file(self, file_id: str) -> None:
        """Delete one uploaded file. Gone is fine."""
        ...

    def close(self) -> None:
        """Close connections, and the embedded server, if there is one."""
        ...
