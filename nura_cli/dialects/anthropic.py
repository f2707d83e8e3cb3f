"""Anthropic Message Batches: the vendor's facts and words.

Facts from the Message Batches guide and API reference.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from nura_cli.dialects import anthropic_requests, reading, refusals, schema_parts, topics, writing
from nura_cli.dialects.base import (
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

# The vendor's words. An unknown one is waited on.
_PHASES = {"ended": Phase.ENDED}
_COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")
_ENDINGS = {"errored": None, "canceled": ErrorKind.CANCELLED, "expired": ErrorKind.EXPIRED}
# Why a message ended, where it is as long as the model wanted it (API reference, stop reasons).
_SAID = ("end_turn", "stop_sequence", "stop")
# Types of blocks that are no answer by themselves: texts are looked at, the rest is on the way to one.
_NO_ANSWER = frozenset({"text", "", "server_tool_use", "mcp_tool_use", "compaction"}) | reading.THOUGHTS
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

# Why a create is refused, by the same types.
_REASONS = {
    "request_too_large": Reason.TOO_LARGE,
    "authentication_error": Reason.SETTINGS,
    "permission_error": Reason.SETTINGS,
    "billing_error": Reason.SETTINGS,
    "not_found_error": Reason.SETTINGS,
    "api_error": Reason.OUTAGE,
    "overloaded_error": Reason.OUTAGE,
    "timeout_error": Reason.OUTAGE,
}

_LIMITS = Limits(requests=100_000, bytes=256_000_000, inputs=None, line_bytes=32_000_000)
"""Requests and bytes of a batch (Message Batches guide, limitations); a single message request may have 32 MB."""

# Structured output takes what its guide lists ("For 'integer' type, property 'minimum' is not supported").
_SCHEMA_WORDS = frozenset(
    (
        *("type", "enum", "const", "anyOf", "allOf", "$ref", "$defs", "definitions", "properties", "required"),
        *("additionalProperties", "items", "minItems", "pattern", "format", "default", "title", "description"),
        *("$schema", "$id"),
    )
)
_SCHEMA_KINDS = frozenset(("type", "$ref", "anyOf", "allOf", "enum", "const"))
_MOST_OPTIONAL = 24
_MOST_UNIONS = 16
"""Properties that are not required, and parts with anyOf or several types (its guide, schema complexity limits)."""
_SCHEMA_FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
)


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
    name: Any = None
    caller: Any = None


class _Message(msgspec.Struct):
    content: list[_Block] | None = None
    stop_reason: str | None = None
    usage: Any = None
    model: str | None = None


_decode_ready = msgspec.json.Decoder(_ReadyLine).decode
_decode_params = msgspec.json.Decoder(_Params).decode
_decode_line = msgspec.json.Decoder(_ResultLine).decode
_decode_message = msgspec.json.Decoder(_Message).decode
_encode = msgspec.json.encode


_ENVELOPE = (
    b'{"model":"claude-","id":"msg_01","type":"message","role":"assistant","content":[{"type":"text","text":"{"}],'
    b'"stop_reason":"end_turn","stop_sequence":null,"stop_details":null,"usage":{"input_tokens":1,"cache_creation_input_tokens":0,'
    b'"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"output_tokens":1,'
    b'"service_tier":"batch","inference_geo":"not_available"}}'
)
"""A message without anything answered (API reference, Create a Message)."""


class AnthropicDialect:
    """How Anthropic words requests and results."""

    name = "anthropic"
    title = "Anthropic"
    base_url = "https://api.anthropic.com"
    domain = "api.anthropic.com"
    price_list = "anthropic"
    results_kept = 29 * 86400  # from creation (Message Batches guide)
    limits = _LIMITS
    endpoints: tuple[str, ...] = ("/v1/messages",)
    at_once = frozenset(endpoints)
    embeddings = frozenset[str]()
    account_options = frozenset[str]()
    params_set = writing.PARAMS_SET
    params_set_by_schema = writing.PARAMS_SET_BY_SCHEMA
    params_required: tuple[str, ...] = ("max_tokens",)
    frame = Frame(b'{"requests":[', b",", b"]}")
    id_field = "custom_id"
    uploads = False
    create_reads_requests = True
    keeps_marks = False
    cleanup_unlists = True
    cancel_keeps_answers = True  # what cannot be interrupted is even finished
    queue_unit: Literal["tokens", "requests"] = "requests"
    queue_by_model = False

    def ready(self, line: bytes) -> Ready:
        """Take apart a batch request: custom_id and params. Models may be mixed, so the queue has none."""
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

    def measure(self, endpoint: str, body: bytes) -> Measure:
        """Return what a request's params say of what it may cost."""
        return anthropic_requests.measure(body)

    def body(self, spec: Spec) -> Callable[[str], bytes]:
        """Return a function from a prompt to a request's params; all but the prompt is encoded once."""
        params: dict[str, Any] = {"model": spec.model}
        if spec.system is not None:
            params["system"] = spec.system
        params["messages"] = [{"role": "user", "content": writing.PROMPT}]
        if spec.answer_schema is not None:
            params["output_config"] = {"format": {"type": "json_schema", "schema": spec.answer_schema}}
        return writing.around_prompt(params | spec.params)

    def request(self, custom_id: bytes, endpoint: str, body: bytes) -> bytes:
        """Return one element of the ``requests`` array."""
        return b"".join((b'{"custom_id":"', custom_id, b'","params":', body, b"}"))

    def result(self, line: bytes) -> ResultLine:
        """Decode a result line: succeeded, errored, canceled or expired; an unknown ending is tried again."""
        found = reading.result_line(_decode_line, line)
        ending = found.result
        ended = ending.type.lower()
        if ended == "succeeded":
            message = reading.unwrapped(bytes(ending.message))
            if message is None:
                return reading.unread(found.custom_id, line, "it succeeded, and has no message that is an object", 200)
            return ResultLine(found.custom_id, message, None, 200)
        outer = reading.members(ending.error)
        inner = outer.get("error")
        failure = inner if isinstance(inner, dict) else outer
        code, words = reading.text(failure.get("type")), reading.text(failure.get("message"))
        if code is None or words is None:
            told = next(iter(refusals.read(ending.error, dumped=False)), Rejection(None, None, None))
            code, words = code or told.code, words or told.message
        status = _STATUSES.get(code or "")
        kind = _ENDINGS.get(ended) or reading.error_kind(status)
        codes = dict.fromkeys((*reading.codes(failure), *([code] if code else [])))
        blame = topics.blame(kind, tuple(codes), words, status)
        return ResultLine(found.custom_id, None, kind, status, code, words, _param(words), blame)

    def answer(self, endpoint: str, body: bytes) -> Answer:
        """Read a message: its text blocks together."""
        try:
            return _from_message(_message(body))
        except (msgspec.MsgspecError, RecursionError, AttributeError, TypeError, ValueError):
            return Answer()

    def said(self, endpoint: str) -> Callable[[Any], Said | None]:
        """Return what reads a message with one text."""
        return _said

    def envelope(self, endpoint: str) -> bytes:
        """Return a response body without anything answered."""
        return _ENVELOPE

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

    def reason(self, fault: Rejection) -> Reason:
        """Return what a fault comes down to; what neither code nor words tell is taken to be about the content."""
        return topics.reason(fault, _REASONS)

    def faults(self, body: Any) -> tuple[Rejection, ...]:
        """Return why a create was refused; its words begin with the place of the request, counted from 0."""
        return refusals.read(body)

    def schema_problems(self, schema: Mapping[str, Any]) -> Found:
        """Yield what structured output refuses (its guide, JSON schema limitations; the SDK's ``lib._parse``)."""
        every = list(schema_parts.parts(schema))
        for place, part in every:
            yield from schema_parts.findings(place, part, self.title, _SCHEMA_KINDS, _SCHEMA_FORMATS)
            yield from _not_structured(place, part)
        yield from _too_complex([part for _, part in every])
        if schema_parts.recursive(schema):
            yield (), "refers to itself, which Anthropic's structured output does not take"


def _not_structured(place: Place, part: Mapping[str, Any]) -> Found:
    """Find what structured output has no word for in one part, or takes a part of."""
    for name in sorted(part.keys() - _SCHEMA_WORDS):
        instead = "anyOf does the same" if name == "oneOf" else "say it in the description"
        yield (*place, name), f"Anthropic's structured output has no {name}; {instead}"
    if part.get("minItems", 0) not in (0, 1):
        yield (*place, "minItems"), "Anthropic's structured output takes 0 or 1"
    if any(isinstance(value, dict | list) for value in part.get("enum") or ()):
        yield (*place, "enum"), "Anthropic's structured output takes plain values alone"
    if any(isinstance(one, dict) and "$ref" in one for one in part.get("allOf") or ()):
        yield (*place, "allOf"), "Anthropic's structured output takes no $ref in it"
    if "\\b" in part.get("pattern", "").replace("\\\\", ""):
        yield (*place, "pattern"), "Anthropic's structured output has no \\b in patterns"


def _too_complex(parts: Sequence[Mapping[str, Any]]) -> Found:
    """Find what a schema has too much of, all its parts together."""
    optional = sum(len({*part.get("properties", ())} - {*part.get("required", ())}) for part in parts)
    unions = sum("anyOf" in part or isinstance(part.get("type"), list) for part in parts)
    for n, most, what in (
        (optional, _MOST_OPTIONAL, "properties that are not required"),
        (unions, _MOST_UNIONS, "parts with anyOf or several types"),
    ):
        if n > most:
            yield (), f"has {n} {what}, and Anthropic's structured output takes {most}"


_PARAM = re.compile(
    r"(?:requests\.\d+\.params\.)?(?:([a-z][\w-]*(?:\.[\w-]+)*):(?:\s|$)|`([a-z][\w-]*(?:\.[\w-]+)*)`\s)"
)
_LONGEST_PARAM = 200


def _param(message: str | None) -> str | None:
    """Return which part of a request an error is about: its words begin with the path ("messages.0.content: …"), or with
    an option in backticks.
    """
    found = _PARAM.match(message or "")
    name = found and (found[1] or found[2])
    return name if name and len(name) <= _LONGEST_PARAM else None


def _message(body: bytes) -> _Message:
    """Return a message; member by member, where one of them is of an odd type."""
    try:
        return _decode_message(body)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        found = reading.members(reading.document(body))
    content = found.get("content")
    listed = content if isinstance(content, list) else [] if content is None else [content]
    return _Message(
        content=None if content is None else [_block(one) for one in listed],
        stop_reason=reading.text(found.get("stop_reason")),
        usage=found.get("usage"),
        model=reading.text(found.get("model")),
    )


def _said(found: Any) -> Said | None:
    """Return what a message says in one block of text, with nothing but thoughts beside it."""
    try:
        [block] = [block for block in found["content"] if block["type"] != "thinking"]
        text, kind, why, model = block["text"], block["type"], found["stop_reason"], found["model"]
    except (LookupError, TypeError, ValueError):
        return None
    plain = type(text) is str and type(why) is str and type(model) is str and kind == "text"
    return (text, why, model) if plain and why and model else None


def _block(found: Any) -> _Block:
    """Return a block of a message; text that stands by itself is one."""
    kind = reading.text(reading.members(found).get("type"))
    text = reading.said(found)
    if kind not in (None, "text"):
        told = reading.members(found)
        return _Block(kind, name=told.get("name"), caller=told.get("caller"))
    return _Block("text", text) if text is not None else _Block()


def _is_text(block: _Block) -> bool:
    return block.type == "text" or bool(block.text and not block.type)


def _from_message(found: _Message) -> Answer:
    blocks, why = found.content or [], found.stop_reason
    close = reading.close(why)
    texts = [block.text for block in blocks if _is_text(block)]
    silent = found.content == [] and (why or "").lower() in _SAID  # it had nothing to say, which is an answer
    text = "".join(texts) if texts or silent else None
    kinds = () if text else tuple(block.type for block in blocks)
    return Answer(
        text=text,
        finish_reason=why,
        truncated=close.truncated,
        refusal=close.refusal,
        usage=_usage(found),
        model=found.model,
        other=any(not (kind in _NO_ANSWER or kind.endswith("_tool_result")) for kind in kinds),
        unfinished=close.unfinished,
        spoken=found.content is not None or why is not None,
        thought=bool(kinds) and all(kind in reading.THOUGHTS for kind in kinds),
        endings=reading.endings([block.text if _is_text(block) else None for block in blocks])
        if len(texts) > 1
        else (),
    )


def _usage(found: _Message) -> Usage | None:
    """Return what an answer used; the vendor's input_tokens leave out what was read from or written to the cache."""
    told = reading.Figures(found.usage)
    fresh, output = told.of("input_tokens"), told.of("output_tokens")
    if not told.sound or not told.given("input_tokens"):
        return None
    cached, kept, tools = (
        told.of("cache_read_input_tokens"),
        told.within("cache_creation"),
        told.within("server_tool_use"),
    )
    hour = kept.of("ephemeral_1h_input_tokens")
    written = max(told.of("cache_creation_input_tokens"), hour + kept.of("ephemeral_5m_input_tokens"))
    searches = tools.of("web_search_requests")
    beyond = (
        not told.given("output_tokens")
        or kept.others("ephemeral_1h_input_tokens", "ephemeral_5m_input_tokens")
        or tools.others("web_search_requests", "web_fetch_requests")  # a fetch costs its tokens alone
        or _dearer(found)
        or _ran(found.content or [], counted=told.given("server_tool_use"))
    )
    return Usage(
        input_tokens=fresh + cached + written,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        output_tokens=output,
        cache_write_1h_tokens=hour,
        web_searches=searches,
        beyond=beyond or not told.sound,
    )


def _dearer(found: _Message) -> bool:
    """Return whether an answer's tokens have other rates than the price list's, or are not all in its figures.

    Inference in one region costs 1.1 times as much, priority and fast mode have rates of their own (pricing page), and what an
    advisor, a compaction or a fallback used stands in ``iterations`` alone (the SDK's ``beta_usage``).
    """
    told = reading.members(found.usage)
    turns = told.get("iterations") or []
    models = (None, found.model)
    return (
        told.get("inference_geo") not in _ANYWHERE
        or told.get("service_tier") == "priority"
        or told.get("speed") == "fast"
        or not isinstance(turns, list)
        or any(one.get("type") != "message" or one.get("model") not in models for one in map(reading.members, turns))
    )


_ANYWHERE = (None, "", "global", "not_available")
_FREE_TOOLS = ("web_search", "web_fetch", "tool_search_tool_regex", "tool_search_tool_bm25")
"""The vendor's tools that cost nothing beside the answer's tokens, but for searches, which are counted in its usage."""


def _ran(content: list[_Block], *, counted: bool) -> bool:
    """Return whether tools of the vendor's ran that are billed, and not in the usage: code, by the hour.

    Code that searches or fetches is free (pricing page): these calls then say that code made them.

    Args:
        counted: whether the usage tells of searches, be it that there were none.
    """
    used = [block for block in content if block.type == "server_tool_use"]
    if not used:
        return False
    callers = [reading.text(reading.members(block.caller).get("type")) or "" for block in used]
    free = any(name.startswith("code_execution") for name in callers)
    billed = [block.name for block in used if block.name not in _FREE_TOOLS]
    untold = not counted and any(block.name == "web_search" for block in used)
    return untold or any(not free or "code_execution" not in str(name) for name in billed)


def remote_batch(found: Mapping[str, Any]) -> RemoteBatch | None:
    """Return a batch object of the vendor's as nura sees it; None where it has no id."""
    remote_id = reading.text(found.get("id"))
    if remote_id is None:
        return None
    status = reading.status(found.get("processing_status"))
    told = reading.members(found.get("request_counts"))
    counts = {name: reading.whole(told.get(name)) for name in _COUNTS}
    known = [n for n in counts.values() if n is not None]
    phase = _PHASES.get(status.lower(), Phase.RUNNING)
    heard_of = status.lower() in _PHASES or status.lower() in reading.RUNNING
    cancelled = found.get("cancel_initiated_at") is not None or bool(counts["canceled"])
    ending = (Ending.CANCELLED if cancelled else Ending.COMPLETED) if phase is Phase.ENDED else None
    ended = phase is Phase.ENDED or not heard_of
    return RemoteBatch(
        id=remote_id,
        status=status,
        phase=phase,
        created_at=reading.moment(found.get("created_at")),
        expires_at=reading.moment(found.get("expires_at")),
        ended_at=reading.moment(found.get("ended_at")),
        total=sum(known) if known else None,
        completed=counts["succeeded"],
        failed=sum(counts[name] or 0 for name in ("errored", "canceled", "expired")) if known else None,
        # Results are kept for 29 days; after that the batch has ended and has none.
        parts={"results": remote_id} if ended and reading.text(found.get("results_url")) else {},
        ending=ending,
        known=heard_of,
    )
