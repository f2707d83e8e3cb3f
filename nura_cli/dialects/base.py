"""What nura knows of a vendor: how it words requests and answers, and the facts by which it differs from others.

A :class:`Dialect` is pure: bytes in, values out, no network and no SDK. Whoever has a question about a vendor asks its
dialect (configuration, schemas, the stages, ``nura status``, the command line): no other file knows a vendor's name. What
the vendor tells is translated here into a closed list of words: :class:`Phase`, :class:`Ending`, :class:`~nura_cli.states.Reason`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from nura_cli.dialects.measures import Measure as Measure
from nura_cli.errors import Rejection as Rejection
from nura_cli.pricing import Usage
from nura_cli.states import Blame, ErrorKind, Reason

TAG_KEY = "nura_tag"
STATE_KEY = "nura_state"
"""The names under which a batch carries its tag and its state file's id, at a vendor that keeps metadata."""

Place = tuple[str | int, ...]
Found = Iterator[tuple[Place, str]]
"""Places in a schema, each with what is wrong there."""


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
        dialect: the vendor's name.
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

    @classmethod
    def stored(cls, text: str) -> "Spec":
        """Return a spec that a batch was rendered with, from the JSON in which it is kept."""
        return msgspec.json.decode(text, type=cls)


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
        body: the raw JSON of the model's response, or None without one; of a line that could not be read all of it, as a
            JSON string.
        error: None for an answer, else why there is none; ``invalid_output`` of what could not be read, and may be one.
        http_status: the status the provider gave for this request, if any.
        code, message: the provider's own words about the error.
        param: which part of the request it is about, in the provider's words, if it says so.
        blame: whose fault it is, as far as these words tell.
        final: another attempt would come out the same, whatever the error.
    """

    custom_id: str
    body: bytes | None
    error: ErrorKind | None = None
    http_status: int | None = None
    code: str | None = None
    message: str | None = None
    param: str | None = None
    blame: Blame = Blame.TASK
    final: bool = False


class Answer(NamedTuple):
    """What a model's response says.

    Attributes:
        text: the answer's text; None for an embedding, or where there is none.
        value: an embedding's vector (or a list of them), else None.
        finish_reason: the vendor's word for why it ended.
        truncated: it ran into its token limit.
        refusal: the model declined to answer.
        usage: tokens, or None where the response does not say, or says what makes no sense.
        model: the model that answered, or None.
        other: where there is no text, it holds an answer of another form: a tool call, audio, what an endpoint gives that
            answers without texts.
        unfinished: the kind of error that it is for being no whole answer, whatever it holds; None for one that is.
        spoken: there is a message, be it an empty one.
        thought: what the model thought is all that there is.
        endings: where there are several texts, what is said last: since the last call of a tool or thought, and the last text.
    """

    text: str | None = None
    value: Any = None
    finish_reason: str | None = None
    truncated: bool = False
    refusal: bool = False
    usage: Usage | None = None
    model: str | None = None
    other: bool = False
    unfinished: ErrorKind | None = None
    spoken: bool = False
    thought: bool = False
    endings: tuple[str, ...] = ()


Said = tuple[str, str, str]
"""What a model's response of the usual shape says: one text, the vendor's word for why it ended, and the model that answered; neither
of these is empty."""


class Frame(NamedTuple):
    """How requests become one file: ``head + separator.join(requests) + tail``."""

    head: bytes
    separator: bytes
    tail: bytes


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


def stored_rejections(found: Sequence[Rejection]) -> str:
    """Return rejections as JSON, in which a batch keeps them."""
    return msgspec.json.encode(found).decode()


def rejections(stored: str | None) -> tuple[Rejection, ...]:
    """Return what a batch keeps of why it was refused; nothing where it was not."""
    return tuple(msgspec.json.decode(stored or "[]", type=list[Rejection]))


class Dialect(Protocol):
    """One vendor: the facts by which it differs, and how it words what is sent and what comes back.

    Attributes:
        name: as it stands in configurations, state files and specs.
        title: as people write it.
        base_url: the vendor's own address.
        domain: the host of that address; those below it are the vendor's, too.
        price_list: its name in the price list.
        results_kept: how long results can be had after a create, in seconds.
        limits: what one batch may hold.
        endpoints: those that prompts are rendered for; the first is the default.
        at_once: those of them that answer a single request, outside of a batch, with the same body.
        embeddings: those of the endpoints that answer with vectors, and so take neither a system text nor a schema.
        account_options: options of a provider, beyond those that all have, which say whose account it is.
        params_set: request options that nura sets itself.
        params_set_by_schema: those that it sets where there is an answer schema.
        params_required: request options without which the vendor refuses a request.
        frame: how requests become a file.
        id_field: the member of a result line that names its request.
        uploads: the request file is uploaded first, and a create names it; else the create carries it.
        create_reads_requests: a refused create can be about what stands in the requests.
        keeps_marks: a batch carries the tag and the state file's id that it was created with, and lists show them.
        cleanup_unlists: a batch that was cleaned up is no longer in the list.
        cancel_keeps_answers: what a batch has answered before it is cancelled can still be had.
        queue_unit: what of the requests that wait the vendor counts, where its words do not say so.
        queue_by_model: it counts for each model; else for all of them together.
    """

    name: str
    title: str
    base_url: str
    domain: str
    price_list: str
    results_kept: int
    limits: Limits
    endpoints: tuple[str, ...]
    at_once: frozenset[str]
    embeddings: frozenset[str]
    account_options: frozenset[str]
    params_set: frozenset[str]
    params_set_by_schema: frozenset[str]
    params_required: tuple[str, ...]
    frame: Frame
    id_field: str
    uploads: bool
    create_reads_requests: bool
    keeps_marks: bool
    cleanup_unlists: bool
    cancel_keeps_answers: bool
    queue_unit: Literal["tokens", "requests"]
    queue_by_model: bool

    def schema_problems(self, schema: Mapping[str, Any]) -> Found:
        """Yield what the vendor's strict mode would refuse of an answer schema that is sound as JSON Schema."""
        ...

    def ready(self, line: bytes) -> Ready:
        """Take apart one ready line (one JSON document, UTF-8).

        Raises:
            InputError: it is not a request of this vendor's; says why.
        """
        ...

    def inputs(self, endpoint: str, body: bytes) -> int:
        """Return how many embedding inputs a request body carries (1 for one string; 0 at other endpoints)."""
        ...

    def measure(self, endpoint: str, body: bytes) -> Measure:
        """Return what a request's body says of what it may cost. Never raises: of what is odd no bound is known."""
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
            ValueError: it is not a result of this vendor's; a :class:`nura_cli.dialects.reading.Illegible` may be one.
        """
        ...

    def answer(self, endpoint: str, body: bytes) -> Answer:
        """Read a response body. Never raises for odd shapes: what is not there is None."""
        ...

    def said(self, endpoint: str) -> Callable[[Any], Said | None]:
        """Return a function from a response body, decoded, to what :meth:`answer` says of it; None where that takes a longer look."""
        ...

    def envelope(self, endpoint: str) -> bytes:
        """Return a response body as the vendor documents it, without anything answered, as JSON; empty where none is known."""
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

    def reason(self, fault: Rejection) -> Reason:
        """Return what a fault of a refused batch comes down to; ``request_too_large`` is what nura calls an HTTP 413."""
        ...

    def faults(self, body: Any) -> tuple[Rejection, ...]:
        """Return why a create or an upload was refused, from the body of the answer, decoded: each fault, with its line."""
        ...


class RemoteBatch(NamedTuple):
    """A batch as the provider tells it. Absent figures are None, never guessed.

    Attributes:
        id: the provider's id.
        status: the provider's own word.
        phase: what that word means.
        ending: how it ended, once it has.
        created_at, expires_at, ended_at: unix seconds, UTC.
        total, completed, failed: requests.
        input_file_id: the uploaded request file, where there is one.
        parts: what can be downloaded: part name (``output``, ``error`` or ``results``) → id of the file or batch.
        tag, state_id: from the metadata, where the provider keeps any.
        faults: why it was refused.
        known: nura knows its status; an unknown one is taken for that of a batch that runs.
        validated: its status is one that it has only once the provider has looked at its requests and taken them.
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
    faults: tuple[Rejection, ...] = ()
    ending: Ending | None = None
    validated: bool = False
    known: bool = True

    @property
    def taken(self) -> bool:
        """Whether the provider has looked at its requests and taken them: by its word, or since it has answered some."""
        answered = bool(self.completed) or bool(self.parts.keys() - {"error"})
        return self.phase is not Phase.REFUSED and (self.validated or answered)


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


class Upload(NamedTuple):
    """A file at the provider: its id, its filename and when it was made (unix seconds)."""

    id: str
    filename: str
    created_at: int | None
