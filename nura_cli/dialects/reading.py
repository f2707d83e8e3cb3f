"""Reading what services tell, in whatever form it comes: words, counts, times, tokens; what makes no sense is None.

An answer was paid for, so a result line is read as leniently as can be. What is sound is decoded as it is; only where that
fails is it mended: byte-order marks and commas, brackets and NULs around it go, what is no Unicode becomes U+FFFD, NaN and Infinity become null, what is nested too
deeply is left out. What even then is no result is an :class:`Illegible`, which says whose it may be.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import mktime_tz, parsedate_tz
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import msgspec

from nura_cli import scrub
from nura_cli.dialects.base import Answer, ResultLine
from nura_cli.states import ErrorKind

_LONGEST_MESSAGE = 300
_LONGEST_KEPT = 1 << 20
"""Bytes that are kept of a result line that cannot be read."""
_DEEPEST = 100
"""Levels of a document that are read, where one is nested too deeply to be read whole."""

_CUT = (
    *("length", "max_tokens", "max_token", "max_output_tokens", "max_length", "model_length", "token_limit"),
    *("error_limit", "model_context_window_exceeded", "context_length_exceeded"),
)
_REFUSED = (
    *("content_filter", "content_filtered", "refusal", "sensitive", "safety", "recitation", "prohibited_content"),
    *("blocklist", "spii", "language", "guardrail_intervened", "error_toxic"),
    *("image_safety", "image_prohibited_content", "image_recitation"),
)
_BROKEN_OFF = (
    *("failed", "error", "cancelled", "canceled", "user_cancel", "expired", "queued", "in_progress", "not_finished"),
    *("abort", "aborted", "timeout", "time_limit", "network_error", "insufficient_system_resource"),
)
_NOT_WHOLE = (
    *("incomplete", "pause_turn", "compaction"),  # of the last two, the model is to be asked to go on
    *("malformed_function_call", "function_call_filter", "malformed_tool_use", "malformed_model_output"),
    *("malformed_response", "unexpected_tool_call", "too_many_tool_calls"),
)


class Close(NamedTuple):
    """What the word for why an answer ended comes down to.

    Attributes:
        truncated: it ran into a limit on tokens.
        refusal: it was declined, or taken away by a filter.
        unfinished: the kind of error that it is where it is no whole answer for another reason.
    """

    truncated: bool = False
    refusal: bool = False
    unfinished: ErrorKind | None = None


def _letters(word: str) -> str:
    return _NO_LETTER.sub("", word.lower())


_NO_LETTER = re.compile(r"[^a-z]+")
_CLOSES: dict[str, Close] = {
    **dict.fromkeys(map(_letters, _CUT), Close(truncated=True)),
    **dict.fromkeys(map(_letters, _REFUSED), Close(refusal=True)),
    **dict.fromkeys(map(_letters, _BROKEN_OFF), Close(unfinished=ErrorKind.PROVIDER_ERROR)),
    **dict.fromkeys(map(_letters, _NOT_WHOLE), Close(unfinished=ErrorKind.INVALID_OUTPUT)),
}
"""OpenAI's words and Anthropic's (API references), and those of services that speak like them, or are passed on by one that
does: DeepSeek, Z.AI, Mistral, vLLM and SGLang (abort), watsonx, Cohere, Bedrock (Converse), Gemini (FinishReason)."""
_WHOLE = Close()
_LONGEST_WORD = 80
_WORD_ALONE = re.compile(r"(?:finish_?reason[._])?([^:]*)", re.IGNORECASE)


def close(why: str | None) -> Close:
    """Return what a vendor's word for why an answer ended comes down to; one that is not known is a good end.

    It may be written in any case, as the name of an enumeration's member ("FinishReason.SAFETY"), or with another's after it
    ("content_filter: RECITATION", Gemini's compatible endpoint).
    """
    return _WHOLE if why is None else _close(why[:_LONGEST_WORD])


@lru_cache(maxsize=64)
def _close(why: str) -> Close:
    found = _WORD_ALONE.match(why)
    return _CLOSES.get(_letters(found[1] if found else ""), _WHOLE)


THOUGHTS = frozenset({"thinking", "redacted_thinking", "reasoning"})
"""Types of parts of an answer that are what the model thought, and not what it said."""

Line = TypeVar("Line")


def printable(text: str) -> str:
    """Return a text as one line of printable characters: whatever else is in it, white space among that, is one space."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def line(words: str) -> str:
    """Return a vendor's words as one bounded line of printable characters, without secrets."""
    plain = printable(scrub.words(words))
    return plain if len(plain) <= _LONGEST_MESSAGE else plain[: _LONGEST_MESSAGE - 1] + "…"


def http_date(value: str) -> int | None:
    """Return the unix seconds of an HTTP date, or None where it is none."""
    try:
        parsed = parsedate_tz(value)
        return None if parsed is None else _sensible(mktime_tz(parsed))
    except (TypeError, ValueError, OverflowError, IndexError):
        return None


def whole(value: Any) -> int | None:
    """Return a figure of the vendor's, or None where it is no sensible count or time."""
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53 else None


_ABSURD = 10**11
"""In seconds the year 5138; in milliseconds, 1973."""


def moment(value: Any) -> int | None:
    """Return the unix seconds of a vendor's time, or None where it is no sensible one.

    Args:
        value: seconds, or milli-, micro- or nanoseconds, as a number or as text; or an ISO 8601 time (UTC, where it has no
            offset), or an HTTP date. Some services write 0 or -1 for none.
    """
    if isinstance(value, str):
        return _written(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _ABSURD * 10**9:
        return None
    while value >= _ABSURD:
        value /= 1000
    return _sensible(value)


def _written(value: str) -> int | None:
    if re.fullmatch(r"[0-9]{1,20}(\.[0-9]{1,9})?", value):
        return moment(float(value))
    try:
        at = datetime.fromisoformat(value)
        return _sensible((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return http_date(value)


def _sensible(seconds: float) -> int | None:
    return int(seconds) if _BEFORE_BATCHES < seconds < _ABSURD else None


_BEFORE_BATCHES = 1_420_070_400
"""The year 2015: no batch is older, and a time that says so was misread."""


def text(value: Any) -> str | None:
    """Return a vendor's word, or None where it is no text."""
    return value if isinstance(value, str) and value else None


_CODES = ("code", "type", "error_code", "status")


def codes(error: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a vendor's words for an error, those of its ``details`` included: texts first, then numbers, the code first."""
    found = [each.get(name) for each in (error, members(error.get("details"))) for name in _CODES]
    numbers = [str(one) for one in found if isinstance(one, int) and not isinstance(one, bool) and 0 <= one < 10**9]
    return tuple(dict.fromkeys([*(one for one in found if isinstance(one, str) and one), *numbers]))


_LONGEST_PLACE = 200


def place(value: Any) -> str | None:
    """Return which part of a request a vendor names, a bounded text: a path's steps joined by dots; None for anything else."""
    steps = value if isinstance(value, list) else [value]
    if not all(isinstance(step, str | int) and not isinstance(step, bool) for step in steps):
        return None
    return line(".".join(map(str, steps[:_LONGEST_PLACE])))[:_LONGEST_PLACE] or None


def status(value: Any) -> str:
    """Return a vendor's word for where a batch stands, or ``unknown`` where it gives none."""
    return line(text(value) or "") or "unknown"


RUNNING = frozenset(
    (
        *(
            "validating",
            "in_progress",
            "finalizing",
            "cancelling",
            "canceling",
            "created",
            "submitted",
            "pending",
            "queued",
        ),
        *("scheduled", "not_started", "notstarted", "starting", "started", "running", "processing", "active", "paused"),
        *("cancellation_requested", "cancel_requested", "preparing", "validated"),
    )
)
"""The words, in lower case, by which vendors and services call a batch that is not done yet."""


def members(value: Any) -> Mapping[str, Any]:
    """Return a vendor's object; one without members where it is none."""
    return value if isinstance(value, dict) else {}


MOST_TOKENS = 2**40


def tokens(value: Any) -> int | None:
    """Return a figure of what was used, or None where it is no whole number that could be one; digits as text are one."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MOST_TOKENS:
        return None
    return int(value) if value == int(value) else None


class Figures:
    """The figures of an object that says what an answer used, and of those within it. One that is left out, or null, is 0.

    Every answer is read so: it is written to be fast.

    Attributes:
        sound: whether all that was asked for so far, within it as well, could be read.
    """

    __slots__ = ("_found", "_whole", "sound")

    def __init__(self, found: Any, whole: "Figures | None" = None) -> None:
        self._whole = self if whole is None else whole
        self.sound = type(found) is dict
        self._found: dict[str, Any] = found if self.sound else {}
        if not self.sound:
            self._whole.sound = False

    def given(self, *names: str) -> bool:
        """Return whether there is something by one of these names."""
        return self._first(names) is not None

    def of(self, *names: str) -> int:
        """Return the first figure there is by one of these names."""
        value = self._first(names)
        if value is None:
            return 0
        if type(value) is int and 0 <= value < MOST_TOKENS:
            return value
        number = tokens(value)
        if number is None:
            self._whole.sound = False
        return number or 0

    def within(self, *names: str) -> "Figures":
        """Return the figures of the first object there is by one of these names."""
        value = self._first(names)
        return _NO_FIGURES if value is None else Figures(value, self._whole)

    def others(self, *known: str) -> bool:
        """Return whether it has figures other than these: what they count may be billed."""
        return bool(self._found) and any(value for name, value in self._found.items() if name not in known)

    def some(self, names: frozenset[str]) -> bool:
        """Return whether it has a figure by one of these names."""
        return not names.isdisjoint(self._found) and any(self._found.get(name) for name in names)

    def _first(self, names: tuple[str, ...]) -> Any:
        for name in names:
            value = self._found.get(name)
            if value is not None:
                return value
        return None


_NO_FIGURES = Figures({})


def error_kind(http_status: int | None) -> ErrorKind:
    """Return the kind of error that an HTTP status of a single request stands for."""
    if http_status == 429:
        return ErrorKind.RATE_LIMITED
    if http_status is not None and 400 <= http_status < 500 and http_status not in (408, 409):
        return ErrorKind.REFUSED
    return ErrorKind.PROVIDER_ERROR


class Illegible(ValueError):
    """A result line that cannot be read. Whoever knows the batch's tag may tell whose it is.

    Attributes:
        document: the line as it came.
        custom_ids: what may be its custom_id.
    """

    def __init__(self, document: bytes, custom_ids: Sequence[str], why: object) -> None:
        super().__init__(f"not a result line: {why}")
        self.document = document
        self.custom_ids = custom_ids
        self.why = str(why)

    def of(self, custom_id: str) -> ResultLine:
        """Return the line as one about this request."""
        return unread(custom_id, self.document, self.why)


def unread(custom_id: str, document: bytes, why: str, http_status: int | None = None) -> ResultLine:
    """Return a result that cannot be read, and was most likely paid for: kept as it came, as a JSON string."""
    kept = msgspec.json.encode(utf8(document[:_LONGEST_KEPT]).decode())
    message = f"the result cannot be read: {why}"
    return ResultLine(custom_id, kept, ErrorKind.INVALID_OUTPUT, http_status, message=message)


def result_line(decode: Callable[[bytes], Line], document: bytes) -> Line:
    """Return a line of results, decoded; mended first, where it has to be.

    Raises:
        Illegible: ``decode`` finds that it is none.
    """
    try:
        return decode(utf8(document))
    except (msgspec.MsgspecError, RecursionError):
        pass
    try:
        mended = _object(document)
    except ValueError as error:
        raise Illegible(document, _named(document), error) from error
    try:
        return decode(mended)
    except (msgspec.MsgspecError, RecursionError) as error:
        custom_id = members(msgspec.json.decode(mended)).get("custom_id")
        raise Illegible(document, [custom_id] if isinstance(custom_id, str) else [], error) from error


def _object(document: bytes) -> bytes:
    """Return the one object of a line as JSON that any reader takes; what is JSON, and no object, as it is.

    Raises:
        ValueError: it is no JSON, however leniently it is read.
    """
    alone = rows(document) if not bare(document).startswith(b"{") else [document]
    try:
        return sound(alone[0] if len(alone) == 1 else document)
    except ValueError:
        alone = rows(document)
        if len(alone) != 1 or alone[0] is document:
            raise
        return sound(alone[0])


_SEPARATORS = r"(?:\[DONE\]|[\s\0\x1e,;\[\]]|data:)*"
"""What a service may put around results beside line ends: the commas and brackets of a list, NULs, record separators (RFC 7464),
the words of a stream of events.
"""
_BETWEEN, _BEFORE = re.compile(_SEPARATORS), re.compile(_SEPARATORS.encode())


def rows(line: bytes) -> list[bytes]:
    """Return the objects in a line of results, none of one that holds only what separates them; the line itself where it holds
    anything else. What follows the first, and begins as one, is returned as it is where it cannot be read.
    """
    text = escaped(utf8(bare(line))).decode()
    found: list[bytes] = []
    at = _after(text, 0)
    while at < len(text):
        if text[at] != "{":
            return [line]
        try:
            _, end = _LENIENT.raw_decode(text, at)
        except (ValueError, RecursionError):
            return [*found, text[at:].encode()] if found else [line]
        found.append(text[at:end].encode())
        at = _after(text, end)
    return found


def _after(text: str, at: int) -> int:
    found = _BETWEEN.match(text, at)
    return found.end() if found else at


def beginning(line: bytes) -> bytes:
    """Return a line of results without what may separate it from others before it."""
    return _BEFORE.sub(b"", bare(line), 1)


_CUSTOM_ID = re.compile(rb'(?<!\\)"custom_id"\s*:\s*"([^"\\]{1,64})"')


def _named(document: bytes) -> list[str]:
    """Return the custom_id of a line that is no JSON; where none is the line's own, whatever stands as one in it, each once."""
    own = top_level(document, "custom_id")
    if own is not None:
        return [own]
    return list(dict.fromkeys(name.decode("utf-8", "replace") for name in _CUSTOM_ID.findall(document)))


_WORD = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|(?P<cut>\\?\Z))|[{}\[\]:,]', re.DOTALL)


def top_level(line: bytes, name: str) -> str | None:
    """Return a text member of a JSON object that may be cut short; members of what is inside it do not count.

    The custom_id belongs to the line itself: a tool's answer may have one of its own, and before the line's.
    """
    depth, key, before = 0, b"", b""
    for token in _WORD.finditer(line):
        word = token.group()
        if token["cut"] is not None:
            break
        if depth == 1 and word.startswith(b'"'):
            if before != b":":
                key = word
            elif key == f'"{name}"'.encode():
                return word[1:-1].decode("utf-8", "replace")
        depth += (word in b"{[") - (word in b"}]")
        before = word
    return None


def bare(line: bytes) -> bytes:
    """Return a line without white space around it, and without byte-order marks before it."""
    line = line.strip()
    return _MARKS.sub(b"", line, 1) if line.startswith(b"\xef\xbb\xbf") else line


_MARKS = re.compile(rb"\A(?:\xef\xbb\xbf|\s)+")


def utf8(document: bytes) -> bytes:
    """Return a document in valid UTF-8, as it is where it is that; answers are read leniently, and told on as JSON."""
    if document.isascii():
        return document
    try:
        document.decode()
    except UnicodeDecodeError:
        return _unicode(document).encode()
    return document


def _unicode(document: bytes) -> str:
    """Return bytes that are no UTF-8 as text: surrogates in pairs (CESU-8) are what they stand for, all else is U+FFFD."""
    try:
        return document.decode("utf-8", "surrogatepass").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    except UnicodeDecodeError:
        return document.decode("utf-8", "replace")


def sound(document: bytes) -> bytes:
    """Return a document as JSON that any reader takes; byte for byte what came, but for what had to be mended.

    Raises:
        ValueError: it is no JSON, however leniently it is read.
    """
    mended = escaped(utf8(bare(document)))
    try:
        msgspec.json.decode(mended)
    except (msgspec.MsgspecError, RecursionError):
        return json.dumps(_loosely(mended.decode()), ensure_ascii=False, separators=(",", ":")).encode()
    return mended


def is_json(document: bytes) -> bool:
    """Return whether a document is JSON, read leniently."""
    try:
        sound(document)
    except ValueError:
        return False
    return True


_ESCAPE = re.compile(
    rb"(?P<sound>\\(?:[\"\\/bfnrt]|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}))|(?P<lone>\\u[0-9a-fA-F]{4})|\\"
)


def escaped(document: bytes) -> bytes:
    """Return a JSON document in which each escape stands for Unicode: a lone surrogate becomes U+FFFD, what is none itself."""

    def mended(found: re.Match[bytes]) -> bytes:
        return found[0] if found["sound"] else b"\\ufffd" if found["lone"] else b"\\\\"

    return _ESCAPE.sub(mended, document) if b"\\" in document else document


def document_in(answer: Answer) -> str | None:
    """Return the JSON document that a model wrote as its text, as any reader takes it; the text itself, where it is none.

    A byte-order mark and a fence around it go, each escape in it is Unicode, control characters in its strings are escaped.
    Where all that was said is none ("Let me look that up."), but what was said last is, it is that.
    """
    if answer.text is None:
        return None
    readings = (found for text in (answer.text, *answer.endings) for found in _documents(text))
    return next((found for found in readings if _parses(found)), _unicode_in(answer.text))


def _documents(text: str) -> Iterator[str]:
    """Yield what may be the document in a text: as it stands, then without what is around it, and with what must be escaped."""
    plain = _unicode_in(text)
    yield plain
    inside = _unfenced(plain)
    if inside != plain:
        yield inside
    if _CONTROL.search(inside):
        yield _STRING.sub(lambda found: _CONTROL.sub(lambda c: f"\\u{ord(c[0]):04x}", found[0]), inside)


_CONTROL = re.compile(r"[\x00-\x1f]")
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)


def _unicode_in(text: str) -> str:
    return escaped(bare(text.encode())).decode() if "\\" in text or "\ufeff" in text else text


def _unfenced(text: str) -> str:
    """Return a text without a Markdown fence that is around all of it."""
    text = text.strip()
    if len(text) < 2 * len(_FENCE) or not (text.startswith(_FENCE) and text.endswith(_FENCE)):
        return text
    inside = text[len(_FENCE) : -len(_FENCE)].strip()
    return inside[4:].strip() if inside[:4].lower() == "json" else inside


_FENCE = "```"


def _parses(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return False
    return True


def endings(parts: Sequence[str | None]) -> tuple[str, ...]:
    """Return what is said last where there are several texts: since the last part that is none (None), and the last text."""
    texts: list[str] = []
    for part in reversed(parts):
        if part is not None:
            texts.append(part)
        elif texts:
            break
    return tuple(dict.fromkeys(("".join(reversed(texts)), texts[0]))) if texts else ()


def document(body: bytes) -> Any:
    """Return a JSON document, numbers that no reader keeps as None.

    Raises:
        ValueError: it is none.
    """
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError):
        return _loosely(escaped(bare(body)).decode())


def _loosely(text: str) -> Any:
    """Return a JSON document that is read as leniently as can be: control characters in strings, NaN, numbers of any size."""
    try:
        return _loads(text)
    except RecursionError:
        return _loads(_pruned(text))


def _loads(text: str) -> Any:
    return _LENIENT.decode(text)


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits) <= 100 else None


def _fraction(digits: str) -> float | None:
    value = float(digits)
    return value if abs(value) != float("inf") else None


_LENIENT = json.JSONDecoder(strict=False, parse_int=_integer, parse_float=_fraction, parse_constant=lambda name: None)
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[\[{]|[\]}]|[^"\[\]{}]+', re.DOTALL)
_OPEN, _CLOSE = frozenset("[{"), frozenset("]}")


def _pruned(text: str) -> str:
    """Return a JSON document in which null stands for what is nested deeper than :data:`_DEEPEST` levels."""
    kept, depth = [], 0
    for token in _TOKEN.findall(text):
        depth += token in _OPEN
        if depth <= _DEEPEST:
            kept.append(token)
        elif depth == _DEEPEST + 1 and token in _OPEN:
            kept.append("null")
        depth -= token in _CLOSE
    return "".join(kept)


def unwrapped(raw: bytes) -> bytes | None:
    """Return the JSON object of a body; some services wrap it into a JSON string, or a list. None where there is no object."""
    body = raw.strip()
    try:
        if body.startswith(b'"'):
            body = sound(msgspec.json.decode(body, type=str).encode())
        if body.startswith(b"[") and len(msgspec.json.decode(body, type=list[msgspec.Raw])) == 1:
            body = body[1:-1].strip()
    except (ValueError, RecursionError):
        return None
    return body if body.startswith(b"{") else None


def objects(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a vendor's list; one object alone stands for a list of it."""
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, dict)]


def words(value: Any) -> str | None:
    """Return what a model wrote, in whatever form it comes; None where there is nothing.

    Args:
        value: text; the parts of a message, of which those that are texts count; or a number or a document, which a service
            read where the model wrote JSON.
    """
    if type(value) is str:
        return value
    found = said(value)
    hollow = value is None or (isinstance(value, list) and any(one in (None, {}, []) for one in value))
    if found is not None or hollow or any(map(_known_part, value if isinstance(value, list) else [value])):
        return found
    return json.dumps(value, ensure_ascii=False)


def said(value: Any) -> str | None:
    """Return the text in what a message holds: text, or its parts, of which those that are texts count; None where there is none."""
    if isinstance(value, list):
        texts = [text for part in value if (text := _part(part)) is not None]
        return "".join(texts) if texts or not value else None
    return _part(value)


_TEXTS = frozenset({"text", "output_text", "input_text"})
_PART = re.compile(
    r"(?:input_|output_|tool_|image_|audio_|video_|document_|file_|server_tool_|mcp_tool_|function_|summary_)*"
    r"(?:text|image|url|audio|video|file|document|refusal|thinking|redacted_thinking|reasoning|use|result|call|reference|citation)"
    r"|\w{1,40}_tool_result"
)


def _known_part(value: Any) -> bool:
    """Return whether a value is a part of a message, be it no text; else it is what a model wrote as JSON."""
    kind = members(value).get("type")
    return isinstance(kind, str) and _PART.fullmatch(kind) is not None


def _part(part: Any) -> str | None:
    """Return the text of a part of a message; None of what is no text, or was only thought."""
    if isinstance(part, str):
        return part
    inside = members(part)
    kind = text(inside.get("type"))
    if kind in THOUGHTS:
        return None
    value = inside.get("content") if kind in _TEXTS and "text" not in inside else inside.get("text")
    value = members(value).get("value") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None
