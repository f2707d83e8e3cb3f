"""OpenAI Batch, and the services that speak its protocol behind a ``base_url``.

Facts from the OpenAI Batch guide and API reference, and from the public reports named in place.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from nura_cli.dialects import openai_requests, reading, refusals, schema_parts, topics, writing
from nura_cli.dialects.base import (
    STATE_KEY,
    TAG_KEY,
    Answer,
    Ending,
    Found,
    Frame,
    Limits,
    Measure,
    Phase,
    Place,
    Ready,
    Rejection,
    RemoteBatch,
    ResultLine,
    Said,
    Spec,
)
from nura_cli.errors import InputError
from nura_cli.pricing import Usage
from nura_cli.states import ErrorKind, Reason

# The vendor's words, in lower case: some compatible services write them in upper case. An unknown word is waited on.
_PHASES = {
    "completed": Phase.ENDED,
    "expired": Phase.ENDED,
    "cancelled": Phase.ENDED,
    "canceled": Phase.ENDED,
    "failed": Phase.REFUSED,
}
_ROW_ERRORS = {
    "batch_expired": ErrorKind.EXPIRED,
    "batch_cancelled": ErrorKind.CANCELLED,
    "batch_canceled": ErrorKind.CANCELLED,
    "rate_limit_exceeded": ErrorKind.RATE_LIMITED,
}
_ANSWERED = range(200, 300)
_ENDINGS = {"expired": Ending.EXPIRED, "cancelled": Ending.CANCELLED, "canceled": Ending.CANCELLED}
_VALIDATED = frozenset(("in_progress", "finalizing", "completed"))
"""What a batch is called once its file was found good (Batch guide, status); ``validating`` comes before that."""
_FINISHED_BY = ("completed_at", "expired_at", "cancelled_at", "failed_at")

# Why a batch is refused (Batch guide, errors): the list is open.
_REASONS = {
    "token_limit_exceeded": Reason.TOO_MUCH,
    "rate_limit_exceeded": Reason.TOO_MUCH,
    "too_many_requests": Reason.TOO_MUCH,
    "too_many_tasks": Reason.TOO_LARGE,
    "request_too_large": Reason.TOO_LARGE,
    "file_too_large": Reason.TOO_LARGE,
    "model_not_found": Reason.SETTINGS,
    "unsupported_model": Reason.SETTINGS,
    "billing_hard_limit_reached": Reason.SETTINGS,
    "insufficient_quota": Reason.SETTINGS,
    "invalid_api_key": Reason.SETTINGS,
    "file_not_found": Reason.SETTINGS,
    "server_error": Reason.OUTAGE,
    "internal_error": Reason.OUTAGE,
    "internal_server_error": Reason.OUTAGE,
    "service_unavailable": Reason.OUTAGE,
}

_LIMITS = Limits(requests=50_000, bytes=200_000_000, inputs=50_000, line_bytes=16_000_000)
"""Requests and bytes of a file, embedding inputs of a batch (Batch guide, rate limits). The size of a single request is
not documented; 16 MB keeps one line from filling the memory."""

# Strict mode takes what its guide lists, and refuses a whole request for any other word ("'uniqueItems' is not permitted").
# Beyond the guide's, it takes what says something about the schema and nothing about an answer (openai-python#3732: examples).
_SCHEMA_WORDS = frozenset(
    (
        *("type", "enum", "const", "anyOf", "$ref", "$defs", "definitions", "properties", "required"),
        *("additionalProperties", "items", "minItems", "maxItems", "pattern", "format", "multipleOf", "minimum"),
        *("maximum", "exclusiveMinimum", "exclusiveMaximum", "title", "description", "examples", "$schema", "$id"),
    )
)
_SCHEMA_KINDS = frozenset(("type", "$ref", "anyOf"))
_SCHEMA_FORMATS = frozenset(("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"))
_MOST_NESTED = 10
_MOST_PROPERTIES = 5000
_MOST_ENUM_VALUES = 1000
_MOST_CHARACTERS = 120_000
_LONG_ENUM = 250
_LONG_ENUM_CHARACTERS = 15_000
"""An enum of more values than the first may have so many characters in them."""
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}


class _ReadyLine(msgspec.Struct):
    custom_id: str
    url: str
    body: msgspec.Raw
    method: str = "POST"


class _Body(msgspec.Struct):
    model: str
    stream: bool = False


class _Response(msgspec.Struct):
    status_code: Any = None
    body: msgspec.Raw = msgspec.Raw(b"null")


class _ResultLine(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: Any = None


class _PlainResponse(msgspec.Struct, gc=False):
    status_code: int
    body: msgspec.Raw


class _PlainLine(msgspec.Struct, gc=False):
    """The line of nearly every answer: it tells of no error."""

    custom_id: str
    response: _PlainResponse
    error: None = None


class _Message(msgspec.Struct):
    content: Any = None
    refusal: str | None = None
    tool_calls: Any = None
    function_call: Any = None
    audio: Any = None
    images: Any = None
    annotations: Any = None
    executed_tools: Any = None


class _Choice(msgspec.Struct):
    message: _Message | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Chat(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: Any = None
    model: str | None = None
    service_tier: Any = None


_Figure = Annotated[int, msgspec.Meta(ge=0, lt=reading.MOST_TOKENS)]


class _Input(msgspec.Struct, forbid_unknown_fields=True, frozen=True, gc=False):
    cached_tokens: _Figure = 0
    audio_tokens: Literal[0] = 0


class _Output(msgspec.Struct, forbid_unknown_fields=True, frozen=True, gc=False):
    reasoning_tokens: _Figure = 0
    audio_tokens: Literal[0] = 0
    accepted_prediction_tokens: _Figure = 0
    rejected_prediction_tokens: _Figure = 0


class _PlainUsage(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The usage of nearly every chat: no figure that is not known here, and none that is odd."""

    prompt_tokens: _Figure
    completion_tokens: _Figure
    total_tokens: _Figure = 0
    prompt_tokens_details: _Input = _Input()
    completion_tokens_details: _Output = _Output()


_Nothing = Annotated[list[Any], msgspec.Meta(max_length=0)] | None


class _PlainMessage(msgspec.Struct, gc=False):
    content: str
    refusal: None = None
    tool_calls: _Nothing = None
    function_call: None = None
    audio: None = None
    images: _Nothing = None
    annotations: _Nothing = None
    executed_tools: _Nothing = None


class _PlainChoice(msgspec.Struct, gc=False):
    message: _PlainMessage
    finish_reason: str | None = None


class _PlainChat(msgspec.Struct, gc=False):
    """Nearly every chat: a text, and nothing beside it."""

    choices: Annotated[list[_PlainChoice], msgspec.Meta(min_length=1)]
    usage: _PlainUsage
    model: str | None = None
    service_tier: str | None = None


_decode_ready = msgspec.json.Decoder(_ReadyLine).decode
_decode_body = msgspec.json.Decoder(_Body).decode
_decode_line = msgspec.json.Decoder(_ResultLine).decode
_decode_plain_line = msgspec.json.Decoder(_PlainLine).decode
_decode_chat = msgspec.json.Decoder(_Chat).decode
_decode_plain_chat = msgspec.json.Decoder(_PlainChat).decode
_encode = msgspec.json.encode


@functools.cache
def _url(endpoint: str) -> bytes:
    return _encode(endpoint)


_ENVELOPES = {
    "/chat/completions": (
        b'{"id":"chatcmpl-","object":"chat.completion","created":1,"model":"gpt-","choices":[{"index":0,"message":{"role":"assistant",'
        b'"content":"{","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":1,'
        b'"completion_tokens":1,"total_tokens":1,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},'
        b'"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,'
        b'"rejected_prediction_tokens":0}},"service_tier":"default","system_fingerprint":null}'
    ),
    "/responses": (
        b'{"id":"resp_","object":"response","created_at":1,"status":"completed","background":false,"completed_at":1,"error":null,'
        b'"incomplete_details":null,"instructions":null,"max_output_tokens":null,"max_tool_calls":null,"model":"gpt-","output":['
        b'{"id":"rs_","type":"reasoning","summary":[]},{"id":"msg_","type":"message","role":"assistant","status":"completed",'
        b'"content":[{"type":"output_text","text":"{","annotations":[],"logprobs":[]}]}],"parallel_tool_calls":true,'
        b'"previous_response_id":null,"prompt_cache_key":null,"reasoning":{"effort":null,"summary":null},"safety_identifier":null,'
        b'"service_tier":"default","store":true,"temperature":1.0,"text":{"format":{"type":"json_schema","description":null,"name":"",'
        b'"schema":{"type":"object","properties":{},"required":[],"additionalProperties":false},"strict":true},"verbosity":"medium"},'
        b'"tool_choice":"auto","tools":[],"top_logprobs":0,"top_p":1.0,"truncation":"disabled","usage":{"input_tokens":1,'
        b'"input_tokens_details":{"cached_tokens":0},"output_tokens":1,"output_tokens_details":{"reasoning_tokens":0},'
        b'"total_tokens":1},"user":null,"metadata":{}}'
    ),
    "/embeddings": (
        b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.0]}],"model":"text-embedding-3-",'
        b'"usage":{"prompt_tokens":1,"total_tokens":1}}'
    ),
}
"""Response bodies without anything answered, by how the path of their endpoint ends (API reference, the objects' examples)."""


class OpenAIDialect:
    """How OpenAI words requests and results."""

    name = "openai"
    title = "OpenAI"
    base_url = "https://api.openai.com/v1"
    domain = "api.openai.com"  # and its regional hosts (API reference, data residency)
    price_list = "openai"
    results_kept = 30 * 86400  # batch files (Batch guide)
    limits = _LIMITS
    endpoints: tuple[str, ...] = ("/v1/chat/completions", "/v1/responses", "/v1/embeddings")
    at_once = frozenset(endpoints)
    embeddings = frozenset({"/v1/embeddings"})
    account_options = frozenset({"organization", "project"})
    params_set = writing.PARAMS_SET
    params_set_by_schema = writing.PARAMS_SET_BY_SCHEMA
    params_required: tuple[str, ...] = ()
    frame = Frame(b"", b"\n", b"\n")
    id_field = "custom_id"
    uploads = True
    create_reads_requests = False  # what stands in the file is looked at afterwards
    keeps_marks = True  # metadata
    cleanup_unlists = False  # files are deleted; a batch cannot be
    cancel_keeps_answers = True
    queue_unit: Literal["tokens", "requests"] = "tokens"
    queue_by_model = True

    def ready(self, line: bytes) -> Ready:
        """Take apart a line of a batch input file: custom_id, url, body with its model."""
        try:
            found = _decode_ready(line)
            body = _decode_body(found.body)
        except msgspec.ValidationError as error:
            raise InputError(f"not an OpenAI batch request: {error}") from error
        if found.method != "POST":
            raise InputError(f"method {found.method!r}; a batch takes POST")
        if not found.url.startswith("/"):
            raise InputError(f"url {found.url!r} is not a path such as /v1/chat/completions")
        if body.stream:
            raise InputError("stream is not possible in a batch")
        return Ready(found.custom_id, found.url, body.model, bytes(found.body))

    def inputs(self, endpoint: str, body: bytes) -> int:
        """Return how many texts an embeddings request carries; a list of token numbers is one."""
        if not endpoint.endswith("/embeddings"):
            return 0
        given = msgspec.json.decode(body, type=dict[str, Any]).get("input")
        tokens = isinstance(given, list) and all(isinstance(item, int) for item in given)
        return len(given) if isinstance(given, list) and not tokens else 1

    def measure(self, endpoint: str, body: bytes) -> Measure:
        """Return what a request's body says of what it may cost."""
        return openai_requests.measure(endpoint, body)

    def body(self, spec: Spec) -> Callable[[str], bytes]:
        """Return a function from a prompt to a request body; all but the prompt is encoded once."""
        return writing.around_prompt(self._template(spec))

    def _template(self, spec: Spec) -> dict[str, Any]:
        body: dict[str, Any] = {"model": spec.model}
        strict = {"name": "answer", "strict": True, "schema": spec.answer_schema}
        if spec.endpoint == "/v1/embeddings":
            body["input"] = writing.PROMPT
        elif spec.endpoint == "/v1/responses":
            body["input"] = writing.PROMPT
            if spec.system is not None:
                body["instructions"] = spec.system
            if spec.answer_schema is not None:
                body["text"] = {"format": {"type": "json_schema", **strict}}
        else:
            system = [] if spec.system is None else [{"role": "system", "content": spec.system}]
            body["messages"] = [*system, {"role": "user", "content": writing.PROMPT}]
            if spec.answer_schema is not None:
                body["response_format"] = {"type": "json_schema", "json_schema": strict}
        return body | spec.params

    def request(self, custom_id: bytes, endpoint: str, body: bytes) -> bytes:
        """Return one line of the request file."""
        return b"".join(
            (b'{"custom_id":"', custom_id, b'","method":"POST","url":', _url(endpoint), b',"body":', body, b"}")
        )

    def result(self, line: bytes) -> ResultLine:
        """Decode a line of the output or error file, in any of the shapes in which errors come (openai-openapi#302)."""
        plain = _plain_result(line)
        if plain is not None:
            return plain
        found = reading.result_line(_decode_line, line)
        response, error = found.response, _as_object(found.error)
        if response is None:
            return _failed(found.custom_id, None, _told(error, b""), None)
        status, raw = _http_status(response.status_code), bytes(response.body)
        body = reading.unwrapped(raw)
        if body is None:
            if status in _ANSWERED and (error is None or _is_well(error)):
                return reading.unread(found.custom_id, line, "a response without a body that is an object", status)
            return _failed(found.custom_id, status, _told(error, raw), None)
        inside = _error_in(body)
        wrong = error or inside or not (status is None or status in _ANSWERED)
        if wrong and not (all(map(_is_well, filter(None, (error, inside)))) and _holds_answer(status, body)):
            return _failed(found.custom_id, status, _told(error, body), body)
        return ResultLine(found.custom_id, body, None, status or None)

    def answer(self, endpoint: str, body: bytes) -> Answer:
        """Read a response body of any of the endpoints."""
        if endpoint.endswith("/completions") and (plain := _plain_answer(body)) is not None:
            return plain
        try:
            if endpoint.endswith("/responses"):
                return _from_responses(reading.members(reading.document(body)))
            if endpoint.endswith("/embeddings"):
                return _from_embeddings(reading.members(reading.document(body)))
            found = _from_chat(_chat(body))
            if endpoint.endswith("/completions"):
                return found
            return found._replace(other=_gives(reading.members(reading.document(body))))
        except (msgspec.MsgspecError, RecursionError, AttributeError, TypeError, ValueError):
            return Answer()

    def said(self, endpoint: str) -> Callable[[Any], Said | None]:
        """Return what reads a chat completion, or a response of one message with one text."""
        if endpoint.endswith("/embeddings"):
            return lambda found: None
        return _said_in_response if endpoint.endswith("/responses") else _said_in_chat

    def envelope(self, endpoint: str) -> bytes:
        """Return a response body without anything answered; an OpenAI-compatible service may have a path of its own before it."""
        return next((body for end, body in _ENVELOPES.items() if endpoint.endswith(end)), b"")

    def result_line(self, custom_id: str, body: bytes | None, error: Mapping[str, Any] | None) -> bytes:
        """Return a line as the vendor's output or error file has it: a refused request has its error in the body."""
        status = (error or {}).get("http_status") or 200
        response = None if body is None else {"status_code": status, "request_id": "", "body": msgspec.Raw(body)}
        shown = None
        if error is not None and (body is None or status < 400):
            shown = {"code": error.get("code") or error["kind"], "message": error.get("message")}
        return _encode({"id": f"batch_req_{custom_id}", "custom_id": custom_id, "response": response, "error": shown})

    def reason(self, fault: Rejection) -> Reason:
        """Return what a fault comes down to; what neither code nor words tell is taken to be about the content."""
        return topics.reason(fault, _REASONS)

    def faults(self, body: Any) -> tuple[Rejection, ...]:
        """Return why a create or an upload was refused: some services look into the file at once (stdapi.ai#240)."""
        return refusals.read(body)

    def schema_problems(self, schema: Mapping[str, Any]) -> Found:
        """Yield what strict mode refuses (Structured Outputs guide, supported schemas; the SDK's ``lib._pydantic``)."""
        if schema.get("type") != "object" or "anyOf" in schema:
            yield (), "OpenAI's strict mode wants type: object at the root, and no anyOf there"
        every = list(schema_parts.parts(schema))
        for place, part in every:
            yield from schema_parts.findings(place, part, self.title, _SCHEMA_KINDS, _SCHEMA_FORMATS)
            yield from _not_strict(place, part)
        yield from _too_large(every)


def _plain_result(line: bytes) -> ResultLine | None:
    """Return a line that holds an answer, and tells of no error anywhere; None of any other, which is to be read with care."""
    try:
        found = _decode_plain_line(line)
        if not line.isascii():
            line.decode()
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    status, body = found.response.status_code, bytes(found.response.body)
    if status not in _ANSWERED or not body.startswith(b"{") or b'"error"' in body:
        return None
    return ResultLine(found.custom_id, body, None, status)


def _plain_answer(body: bytes) -> Answer | None:
    """Return what a chat says that is a text and nothing beside it, and used what its figures tell; None of any other."""
    try:
        found = _decode_plain_chat(body)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None
    used, model, choice = _plain_usage(found.usage), found.model, found.choices[0]
    if used is None or found.service_tier in _DEARER_TIERS or (model is not None and _SEARCHES in model):
        return None
    why = choice.finish_reason
    truncated, refusal, unfinished = reading.close(why)
    return Answer(choice.message.content, None, why, truncated, refusal, used, model, False, unfinished, True)


def _http_status(value: Any) -> int | None:
    """Return the HTTP status of a single request, be it told as text."""
    digits = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 3
    return reading.whole(int(value) if digits else value)


def _error_in(body: bytes) -> dict[str, Any] | None:
    return _as_object(reading.members(_document(body)).get("error")) if b'"error"' in body else None


def _document(raw: bytes) -> Any:
    """Return a JSON document, or None where it is none."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError):
        return None


_AROUND = frozenset(
    (
        *("id", "object", "created", "created_at", "model", "usage", "service_tier", "system_fingerprint", "meta"),
        *(
            "error",
            "errors",
            "error_code",
            "error_msg",
            "error_message",
            "code",
            "type",
            "param",
            "status",
            "status_code",
        ),
        *(
            "message",
            "msg",
            "detail",
            "details",
            "reason",
            "success",
            "ok",
            "request_id",
            "requestId",
            "timestamp",
            "path",
        ),
    )
)
"""Members of a body that say something about an answer, or why there is none, and are none themselves."""
_EMPTY: tuple[Any, ...] = (None, "", [], {})


def _gives(found: Mapping[str, Any]) -> bool:
    """Return whether a body of an endpoint that nobody reads here gives anything at all: else it says that there is no answer."""
    return any(
        not _hollow(value) or (name == "text" and value == "")  # a transcript of silence
        for name, value in found.items()
        if name not in _AROUND or (name == "message" and isinstance(value, dict))
    )


def _hollow(value: Any) -> bool:
    return value in _EMPTY or (isinstance(value, list) and all(one in _EMPTY for one in value))


def _as_object(error: Any) -> dict[str, Any] | None:
    """Return an error as an object: bare words as its message, a number as its code; of a list, the first.

    None where it says nothing.
    """
    if isinstance(error, list):
        each = (_as_object(one) for one in error[:_MOST_LOOKED_AT] if not isinstance(one, list))
        return next(filter(None, each), None)
    if isinstance(error, dict):
        return error if any(error.values()) else None
    if isinstance(error, bool | str):
        return {"message": str(error)} if error else None
    return {"code": error} if error else None


_MOST_LOOKED_AT = 20
_ANSWERS = ("output", "output_text", "data", "results")
"""The members of a body in which an answer stands, at other endpoints than chat."""
_WELL = frozenset(("ok", "okay", "success", "successful", "succeeded", "completed", "成功"))
_NOTHING = frozenset(("", "none", "null", "nil", "noerror", "false"))


def _holds_answer(status: int | None, body: bytes) -> bool:
    """Return whether an answer stands in a body, whatever is told beside it; some services give it a status of 0."""
    found = reading.members(_document(body))
    if status and status not in _ANSWERED:
        return False
    return any(map(_speaks, reading.objects(found.get("choices")))) or any(found.get(name) for name in _ANSWERS)


def _speaks(choice: Mapping[str, Any]) -> bool:
    """Return whether a choice of a chat has something to say."""
    message = reading.members(choice.get("message"))
    return any(message.get(name) for name in _SAID) or any(choice.get(name) for name in ("text", "content"))


_SAID = ("content", "tool_calls", "function_call", "refusal", "audio", "images")


def _is_well(error: Mapping[str, Any]) -> bool:
    """Return whether an error beside an answer is none: all that it says is so, or its code is that of success."""
    codes = [_plain_word(error[name]) for name in _CODES if error.get(name) not in (None, "")]
    return _says_well(error) or (bool(codes) and all(map(_is_good, codes)))


_CODES = ("code", "error_code", "status", "type")


def _says_well(error: Any, depth: int = 0) -> bool:
    """Return whether an error says that there is none, in whatever member: some services give every answer one with code 0 and
    the message "success".
    """
    if isinstance(error, dict):
        known = (value for name, value in error.items() if name not in ("param", "request_id", "requestId"))
        return depth < _DEEPEST and all(_says_well(value, depth + 1) for value in known)
    if error is None or isinstance(error, bool | list):
        return not error
    word = _plain_word(error)
    return word in _WELL or word in _NOTHING or _is_good(word)


_DEEPEST = 5


def _plain_word(value: Any) -> str:
    """Return a word or a number as its letters and digits, in lower case; nothing where there is none."""
    if isinstance(value, str):
        return re.sub(r"[\W_]+", "", value.lower())
    return "" if value is None or value is False else str(reading.whole(value))


def _is_good(code: str) -> bool:
    """Return whether a code says that all is well: 0, any HTTP status that does, or a word for it."""
    number = int(code) if re.fullmatch("[0-9]{1,6}", code) else None
    return code in _WELL or code in _NOTHING or number == 0 or number in _ANSWERED


class _Told(NamedTuple):
    """What an error says: its codes, the most telling first; its words; the parameter that it is about."""

    codes: tuple[str, ...]
    message: str | None
    param: Any


_NO_CODES = frozenset(("error", "failed", "completed", "incomplete", "cancelled", "queued", "in_progress"))
"""What a body around an error may say of itself that is no code of the error."""


def _told(error: dict[str, Any] | None, raw: bytes) -> _Told:
    """Return what an error says, wherever its codes and its words stand.

    Args:
        error: that of the line.
        raw: the body of the response: with an error in it (``{"error": {…}}``, ``[{"error": …}]``, ``{"errors": […]}``,
            ``{"detail": …}``), beside which a code may stand (xAI: ``{"code", "error": "words"}``), or itself the error
            (DashScope: ``{"code", "message"}``).
    """
    body = _document(raw)
    around = reading.members(body)
    told = (error, _as_object(around.get("error")), _as_object(around.get("detail")))
    own = next((one for one in told if one and not _is_well(one)), error or around)
    first = () if own is around else reading.codes(own)
    beside, message = reading.codes(around), reading.text(own.get("message"))
    if message is None or not (first or beside):
        faults = (*refusals.read(own, dumped=False), *refusals.read(body, dumped=False))[:_MOST_LOOKED_AT]
        beside += tuple(fault.code for fault in faults if fault.code)
        words = (fault.message for fault in faults if fault.message and _plain_word(fault.message) not in _WELL)
        message = message or next(words, None)
    codes = (*first, *(code for code in beside if code.lower() not in _NO_CODES))
    return _Told(tuple(dict.fromkeys(codes)), message, own.get("param") or own.get("loc"))


def _failed(custom_id: str, status: int | None, told: _Told, body: bytes | None) -> ResultLine:
    kind = _ROW_ERRORS.get(told.codes[0].lower() if told.codes else "") or reading.error_kind(status)
    if kind is ErrorKind.RATE_LIMITED and topics.oversized(told.message):
        kind = ErrorKind.REFUSED
    return ResultLine(
        custom_id,
        body,
        kind,
        status or None,
        told.codes[0] if told.codes else None,
        told.message,
        reading.place(told.param),
        topics.blame(kind, told.codes, told.message, status or None),
    )


# What costs nothing beside the answer's tokens (pricing page, built-in tools): what the model says, and calls of the caller's
# own tools, of MCP servers and of those that search tools. Of what is not listed here the cost is not known.
_FREE_ITEMS = frozenset(
    (
        *("message", "reasoning", "compaction", "function_call", "function_call_output"),
        *("custom_tool_call", "custom_tool_call_output", "computer_call", "computer_call_output"),
        *("local_shell_call", "local_shell_call_output", "shell_call_output"),
        *("apply_patch_call", "apply_patch_call_output", "additional_tools"),
        *("mcp_call", "mcp_list_tools", "mcp_approval_request", "mcp_approval_response"),
        *("tool_search_call", "tool_search_output"),
    )
)
_FREE_ACTIONS = ("open_page", "find_in_page")
"""What a call of web search does that is no search: "search actions incur a tool call cost" (Web search guide)."""
_DEARER_TIERS = ("priority", "fast", "ultrafast", "scale")
"""Processing with rates of its own (pricing page). Any other word comes with a batch's answer, too, and says nothing."""
_SEARCHES = "-search-"
"""Stands in the names of models that search the web (pricing page)."""
_SERVICES_FIGURES = frozenset(("citation_tokens", "num_sources_used", "num_server_side_tools_used"))
"""What compatible services count and bill beside the tokens (Perplexity, xAI)."""


class _Tools(NamedTuple):
    """Calls of the vendor's tools in an answer, and whether there are some of which its figures do not tell the cost."""

    web: int = 0
    files: int = 0
    others: bool = False


def _usage(found: Any, *, tier: Any = None, tools: _Tools = _Tools(), output: bool = True) -> Usage | None:
    """Return what an answer used, or None where it does not say.

    Args:
        found: its ``usage``.
        tier: the ``service_tier`` that it names.
        output: whether an answer without a count of its output leaves something untold.
    """
    told = reading.Figures(found)
    given, said = told.of("prompt_tokens", "input_tokens"), told.of("completion_tokens", "output_tokens")
    if not told.sound or not told.given("prompt_tokens", "input_tokens"):
        return None
    inputs = told.within("prompt_tokens_details", "input_tokens_details")
    outputs = told.within("completion_tokens_details", "output_tokens_details")
    cached = inputs.of("cached_tokens") or told.of("cached_tokens", "prompt_cache_hit_tokens")  # Moonshot, DeepSeek
    total, thought = told.of("total_tokens"), outputs.of("reasoning_tokens")
    untold = max(0, total - given - said) if given else 0
    counted = told.given("completion_tokens", "output_tokens")
    if output and counted and untold != cached:
        said += untold  # some services leave thoughts out of the completion, and bill them (Gemini, xAI)
    beyond = (
        (output and not counted)
        or (untold > 0 and (not output or untold == cached))  # what else it may be is not known
        or thought > said
        or inputs.of("audio_tokens") + outputs.of("audio_tokens") > 0
        or inputs.within("cache_write_tokens_details").others("ttl_30m_tokens")  # a longer one has no price in the list
        or told.within("server_tool_use").others()
        or told.some(_SERVICES_FIGURES)
        or tier in _DEARER_TIERS
        or tools.others
    )
    images = told.given("input_tokens") and inputs.given("image_tokens") and not told.given("output_tokens_details")
    used = Usage(
        input_tokens=given,
        cached_input_tokens=cached,
        cache_write_tokens=inputs.of("cache_write_tokens"),
        output_tokens=said,
        input_image_tokens=inputs.of("image_tokens"),
        output_image_tokens=said if images else outputs.of("image_tokens"),  # images alone may come without details
        web_searches=tools.web + told.of("num_search_queries"),
        file_searches=tools.files,
        beyond=beyond,
    )
    return used if told.sound else used._replace(beyond=True)


def _plain_usage(found: _PlainUsage) -> Usage | None:
    """Return what an answer used by figures that add up; None where the whole is more than its parts."""
    given, said = found.prompt_tokens, found.completion_tokens
    if found.total_tokens > given + said or found.completion_tokens_details.reasoning_tokens > said:
        return None
    return Usage(given, found.prompt_tokens_details.cached_tokens, 0, said)


def _called(found: Mapping[str, Any]) -> _Tools:
    """Return the calls of the vendor's tools among the output items of a response.

    The preview of web search has other prices with some models, and no figure that says which.
    """
    web = files = 0
    others = False
    for item in _objects(found.get("output")):
        kind = reading.text(item.get("type"))
        if kind == "web_search_call":
            web += reading.members(item.get("action")).get("type") not in _FREE_ACTIONS
        elif kind == "file_search_call":
            files += 1
        elif kind == "shell_call":
            others |= reading.members(item.get("environment")).get("type") != "local"
        elif kind is not None:
            others |= kind not in _FREE_ITEMS
    offered = [reading.text(one.get("type")) or "" for one in _objects(found.get("tools"))]
    return _Tools(web, files, others or (web > 0 and any(kind.startswith("web_search_preview") for kind in offered)))


def _objects(value: Any) -> list[Mapping[str, Any]]:
    """Return the objects in a list; none where it is no list."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _searched(found: _Chat, message: _Message) -> bool:
    """Return whether a chat's answer comes from a search, whose price no figure of it tells; or from other tools (Groq's)."""
    cited = bool(message.annotations) and any(
        note.get("type") == "url_citation" for note in _objects(message.annotations)
    )
    return cited or _SEARCHES in (found.model or "") or bool(message.executed_tools)


def _chat(body: bytes) -> _Chat:
    """Return a chat completion; member by member, where one of them is of an odd type."""
    try:
        return _decode_chat(body)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        found = reading.members(reading.document(body))
    choices = found.get("choices")
    if isinstance(choices, dict) and not choices.keys() & {"message", "text"}:
        choices = list(choices.values())  # by index, as some languages write a list
    return _Chat(
        choices=[_choice(one) for one in reading.objects(choices)[:1]],
        usage=found.get("usage"),
        service_tier=found.get("service_tier"),
        model=reading.text(found.get("model")),
    )


def _choice(found: Mapping[str, Any]) -> _Choice:
    given = found.get("message")
    message = reading.members(given if isinstance(given, dict) else {"content": given})
    return _Choice(
        message=_Message(
            content=message.get("content"),
            refusal=_refusal(message.get("refusal")),
            tool_calls=message.get("tool_calls"),
            function_call=message.get("function_call"),
            audio=message.get("audio"),
            images=message.get("images"),
            annotations=message.get("annotations"),
            executed_tools=message.get("executed_tools"),
        ),
        text=reading.words(found.get("text")),
        finish_reason=reading.text(found.get("finish_reason")),
    )


def _from_chat(found: _Chat) -> Answer:
    choice = found.choices[0] if found.choices else _Choice()
    message = choice.message or _Message()
    content = reading.words(message.content if message.content is not None else choice.text)
    if content is None and message.audio:
        content = reading.text(reading.members(message.audio).get("transcript"))
    why = choice.finish_reason
    close = reading.close(why)
    others = (message.tool_calls, message.function_call, message.audio, message.images)
    return Answer(
        text=message.refusal or content,
        finish_reason=why,
        truncated=close.truncated,
        refusal=bool(message.refusal) or close.refusal,
        usage=_usage(found.usage, tier=found.service_tier, tools=_Tools(others=_searched(found, message))),
        model=found.model,
        other=any(others) and any(reading.objects(one) for one in others if one),
        unfinished=close.unfinished,
        spoken=bool(found.choices),
    )


def _said_in_chat(found: Any) -> Said | None:
    try:
        choice, model = found["choices"][0], found["model"]
        message, why = choice["message"], choice["finish_reason"]
        text, refusal = message["content"], message.get("refusal")
    except (LookupError, TypeError, AttributeError):
        return None
    plain = type(text) is str and refusal is None and type(why) is str and type(model) is str
    return (text, why, model) if plain and why and model else None


def _said_in_response(found: Any) -> Said | None:
    """Return what a response says in one message of one text, with nothing but thoughts beside it."""
    try:
        items, why, model = found["output"], found["status"], found["model"]
        [message] = [item for item in items if item["type"] != "reasoning"]
        [part] = message["content"]
        text, kinds = part["text"], (message["type"], part["type"])
        odd = "phase" in message or "refusal" in part or found.get("incomplete_details") is not None
    except (LookupError, TypeError, ValueError, AttributeError):
        return None
    plain = type(items) is list and type(text) is str and type(why) is str and type(model) is str
    plain = plain and kinds == ("message", "output_text") and not odd
    return (text, why, model) if plain and why and model else None


def _from_responses(found: Mapping[str, Any]) -> Answer:
    given = found.get("output")
    items = reading.objects(given)
    texts, refusals = _said([item for item in items if item.get("type") in (None, "message")])
    text = "".join(texts) if texts else reading.text(given) or reading.text(found.get("output_text"))
    why = reading.text(reading.members(found.get("incomplete_details")).get("reason"))
    status = reading.text(found.get("status"))
    close, ended = reading.close(why), reading.close(status)
    kinds = () if text else tuple(str(item.get("type")) for item in items)
    calls = () if text else tuple(item for item in items if _asks(item))
    return Answer(
        text="".join(refusals) if refusals else text,
        finish_reason=why or status,
        truncated=close.truncated,
        refusal=bool(refusals) or close.refusal,
        usage=_usage(found.get("usage"), tier=found.get("service_tier"), tools=_called(found)),
        model=reading.text(found.get("model")),
        other=bool(calls),
        unfinished=None if close.truncated else close.unfinished or ended.unfinished,
        spoken=given is not None or status is not None,
        thought=bool(kinds) and all(kind in reading.THOUGHTS for kind in kinds),
        endings=_endings(items) if len(texts) > 1 else (),
    )


_ASKING = frozenset(
    (
        *("function_call", "custom_tool_call", "computer_call", "local_shell_call", "shell_call", "apply_patch_call"),
        "mcp_approval_request",
    )
)
"""Items that are an answer without a text: what asks the caller for something; pictures are, too. What calls the vendor's own tools
is on the way to one (API reference, output items)."""


def _asks(item: Mapping[str, Any]) -> bool:
    """Return whether an item is an answer: a call that the caller is to answer names itself by a ``call_id``."""
    kind = reading.text(item.get("type")) or ""
    if kind == "shell_call":
        return reading.members(item.get("environment")).get("type") in (None, "local")
    if kind == "image_generation_call":
        return bool(item.get("result"))
    if kind == "tool_search_call":
        return item.get("execution") == "client"
    return kind in _ASKING or (kind.endswith("_call") and reading.text(item.get("call_id")) is not None)


def _said(messages: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Return the texts and the refusals of the messages that are the answer: not those that comment on the way to it.

    Newer models say which message is which by its ``phase`` (openai-python#3859).
    """
    final = [one for one in messages if one.get("phase") == "final_answer"]
    meant = final or [one for one in messages if one.get("phase") != "commentary"]
    contents = [one.get("content") for one in meant]
    told = [reading.said(content) if isinstance(content, list) else reading.words(content) for content in contents]
    texts = [text for text in told if text is not None]
    parts = [part["refusal"] for content in contents for part in reading.objects(content) if "refusal" in part]
    return texts, [text for part in parts if (text := _refusal(part))]


def _endings(items: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return what the messages among output items say last."""
    messages = [item if item.get("type") in (None, "message") else None for item in items]
    return reading.endings([None if one is None else "".join(_said([one])[0]) for one in messages])


def _refusal(value: Any) -> str | None:
    """Return the words in which a model declined; None of what is no words: an odd member makes no answer a refusal."""
    return reading.said(value) or None


def _from_embeddings(found: Mapping[str, Any]) -> Answer:
    items = reading.objects(found.get("data") or [])
    if all(reading.tokens(item.get("index")) is not None for item in items):
        items.sort(key=lambda item: reading.tokens(item["index"]) or 0)
    vectors = [item.get("embedding") for item in items]
    told = bool(vectors) and all(map(_is_vector, vectors))
    value = (vectors[0] if len(vectors) == 1 else vectors) if told else None
    usage = _usage(found.get("usage"), output=False)
    return Answer(value=value, usage=usage, model=reading.text(found.get("model")))


def _is_vector(value: Any) -> bool:
    """Return whether an embedding is numbers, all of them: a list, or lists (one for each token), or bytes in base64."""
    if isinstance(value, list) and value and type(value[0]) is list:
        return all(type(one) is list and _is_vector(one) for one in value)
    return bool(value) and (isinstance(value, str) or (isinstance(value, list) and {*map(type, value)} <= {int, float}))


def remote_batch(found: Mapping[str, Any]) -> RemoteBatch | None:
    """Return a batch object of the vendor's, or of a service like it, as nura sees it; None where it has no id."""
    if isinstance(found.get("job"), dict):  # Together answers a create so
        found = found["job"]
    remote_id = reading.text(found.get("id"))
    if remote_id is None:
        return None
    status = reading.status(found.get("status"))
    counts = reading.members(found.get("request_counts"))
    metadata = reading.members(found.get("metadata"))
    parts = {part: file_id for part in ("output", "error") if (file_id := reading.text(found.get(f"{part}_file_id")))}
    phase = _PHASES.get(status.lower(), Phase.RUNNING)
    completed = reading.whole(counts.get("completed"))
    if phase is Phase.REFUSED and (parts or completed):  # what answered something was not refused
        phase = Phase.ENDED
    ending = _ENDINGS.get(status.lower(), Ending.COMPLETED) if phase is Phase.ENDED else None
    if completed is None and ending is Ending.EXPIRED and not parts:
        completed = 0  # what was answered in time is in the output file (Batch guide, batch expiration): there is none
    return RemoteBatch(
        id=remote_id,
        status=status,
        phase=phase,
        created_at=reading.moment(found.get("created_at")),
        expires_at=reading.moment(found.get("expires_at")),
        ended_at=next((at for name in _FINISHED_BY if (at := reading.moment(found.get(name)))), None),
        total=reading.whole(counts.get("total")),
        completed=completed,
        failed=reading.whole(counts.get("failed")),
        input_file_id=reading.text(found.get("input_file_id")),
        parts=parts,
        tag=reading.text(metadata.get(TAG_KEY)),
        state_id=reading.text(metadata.get(STATE_KEY)),
        faults=refusals.read(found.get("errors")) or refusals.read(found.get("error")),
        ending=ending,
        validated=status.lower() in _VALIDATED,
        known=status.lower() in _PHASES or status.lower() in reading.RUNNING,
    )


def _not_strict(place: Place, part: Mapping[str, Any]) -> Found:
    """Find what strict mode has no word for in one part, or asks for beyond JSON Schema."""
    beside = sorted(part.keys() - {"$ref", "$defs", "definitions"})
    if "$ref" in part and beside:
        yield (*place, "$ref"), f"OpenAI's strict mode takes nothing beside it, and there is {beside[0]}"
    properties = part.get("properties")
    missing = sorted({*properties} - {*part.get("required", ())}) if isinstance(properties, dict) else []
    if missing:
        yield (
            (*place, "required"),
            f"OpenAI's strict mode wants every property here, and {missing[0]} is not; one that may be absent is"
            " of type [..., 'null']",
        )
    for name in sorted(part.keys() - _SCHEMA_WORDS):
        yield (*place, name), f"OpenAI's strict mode has no {name}"
    yield from _not_listed(place, part)


def _not_listed(place: Place, part: Mapping[str, Any]) -> Found:
    """Find what strict mode refuses of an enum: too much of it, and values of another type than stands beside them."""
    values = part.get("enum") or []
    length = sum(len(value) for value in values if isinstance(value, str))
    if len(values) > _LONG_ENUM and length > _LONG_ENUM_CHARACTERS:
        yield (
            (*place, "enum"),
            f"has {length:,} characters in {len(values):,} values; beyond {_LONG_ENUM} values OpenAI's strict mode takes"
            f" {_LONG_ENUM_CHARACTERS:,}",
        )
    named = schema_parts.types(part)
    strange = [value for value in values if not any(_is(value, kind) for kind in named)] if named else []
    if strange:
        yield (*place, "enum"), f"OpenAI's strict mode wants {' or '.join(named)} here, and {strange[0]!r} is none"


def _is(value: Any, kind: Any) -> bool:
    """Whether a value is of a type of JSON Schema's."""
    if isinstance(value, bool) or kind == "boolean":
        return isinstance(value, bool) and kind == "boolean"
    whole = kind != "integer" or not isinstance(value, float) or value.is_integer()
    return whole and isinstance(value, _TYPES.get(kind, ()))


def _too_large(every: Sequence[tuple[Place, Mapping[str, Any]]]) -> Found:
    """Find what a schema has too much of, all its parts together."""
    names = [
        name for _, part in every for word in ("properties", "$defs", "definitions") for name in part.get(word) or ()
    ]
    values = [value for _, part in every for value in part.get("enum") or ()]
    values += [part["const"] for _, part in every if "const" in part]
    nested = max(sum(step in ("properties", "items") for step in place) for place, _ in every)
    measured = (
        (len(names), _MOST_PROPERTIES, "properties"),
        (sum(len(part.get("enum") or ()) for _, part in every), _MOST_ENUM_VALUES, "enum values"),
        (sum(len(str(one)) for one in (*names, *values)), _MOST_CHARACTERS, "characters in names and enum values"),
        (nested, _MOST_NESTED, "levels of nesting"),
    )
    for n, most, what in measured:
        if n > most:
            yield (), f"has {n:,} {what}, and OpenAI's strict mode takes {most:,}"
