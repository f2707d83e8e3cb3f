"""JSON Lines as they come from anywhere: split on ``\\n`` only, read in bounded pieces, checked strictly.

Takes bytes, gives documents or :class:`InputError`; a line that cannot be used never stops the ones after it.
"""

import codecs
import difflib
import re
from collections.abc import Callable, Collection, Generator
from decimal import Decimal
from typing import Any, BinaryIO, NamedTuple

import msgspec

from nura_cli.errors import InputError
from nura_cli.state import keys

_decode = msgspec.json.Decoder().decode
_LONE_SURROGATE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]")
_NOT_A_NUMBER = re.compile(rb"[:,\[\s]-?(NaN|Infinity)\b|^-?(NaN|Infinity)\b")
_PYTHONS = re.compile(
    rb"^[\[{\s]*\{?'|^\{[^\"]*\"[^\"]*\": *(None|True|False)\b|^[\[{].*[:,\[] *(None|True|False)\b *[,}\]]"
)
NO_TEXT = "not valid UTF-8 (text of another encoding goes through iconv -f WINDOWS-1252 -t UTF-8, say)"
"""Why bytes cannot be used that are no text."""
_BACKSLASH = ord("\\")
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1


class Line(NamedTuple):
    """One line.

    Attributes:
        number: its place in its file, from 1 on.
        data: its bytes, without the line end.
        fault: why it cannot be used, if that is known.
        whole: the fault is that of all lines of its file, and need be said once only.
        raw: its bytes as they stood, where ``data`` was made of them.
        header: the line that names its columns, where it is a row of a table.
        open_end: it is a row of a table, and has no line end: the last one, and perhaps not whole.
    """

    number: int
    data: bytes
    fault: str | None = None
    whole: bool = False
    raw: bytes | None = None
    header: bytes | None = None
    open_end: bool = False


class Block(NamedTuple):
    """Lines that stand one after the other, as they came but for their line ends; blank ones and long ones among them.

    Attributes:
        number: the place of the first one in its file.
        lines: their bytes.
    """

    number: int
    lines: list[bytes]


BLOCK_BYTES = 1 << 18
"""How much is read at once."""


def blocks(stream: BinaryIO, limit: int) -> Generator[Block | Line, None, None]:
    """Yield the lines of a stream, those together that came together; a BOM at the very start is passed over.

    No byte is waited for before the lines that came whole are given. One that is read by itself is a :class:`Line`, and not blank: the
    first, the last, and one that is longer than what is read at once.

    Args:
        stream: opened for reading bytes.
        limit: bytes a line may have.
    """
    first = next(pieces(stream, limit), None)
    if first is None:
        return
    yield from _unless_blank(*first, limit)
    number, begun = 2, b""
    read = getattr(stream, "read1", stream.read)
    while data := read(BLOCK_BYTES):
        found = (begun + data).split(b"\n")
        begun = found.pop()
        if found:
            yield Block(number, found)
            number += len(found)
            continue
        begun += stream.readline(max(0, limit + 2 - len(begun)))
        yield from _unless_blank(number, begun, _passed(stream, begun, limit), limit)
        number, begun = number + 1, b""
    yield from _unless_blank(number, begun, len(begun) <= limit, limit)


def each(part: Block | Line, limit: int) -> Generator[Line, None, None]:
    """Yield the lines of a block that are not blank."""
    if isinstance(part, Line):
        yield part
        return
    for number, data in enumerate(part.lines, part.number):
        yield from of_block(number, data, limit)


def last(part: Block | Line) -> int:
    """Return the number of the last line of a block."""
    return part.number if isinstance(part, Line) else part.number + len(part.lines) - 1


def of_block(number: int, data: bytes, limit: int) -> Generator[Line, None, None]:
    """Yield a line of a block, which had a line end, unless it is blank."""
    yield from _unless_blank(number, data, len(data) < limit + 2, limit)


def _unless_blank(number: int, data: bytes, whole: bool, limit: int) -> Generator[Line, None, None]:
    data = data[: limit + 2].strip(BLANKS)
    if data:
        yield bounded(number, data, limit) if whole else Line(number, data[:limit], too_long(limit))


BLANKS = b" \t\r\n"
"""What may stand before a line and after it."""


def split(stream: BinaryIO, limit: int) -> Generator[Line, None, None]:
    """Yield the lines of a stream that are not blank; a BOM at the very start is passed over.

    Args:
        stream: opened for reading bytes.
        limit: bytes a line may have; of a longer one the first ``limit`` bytes are given, the rest is read past.
    """
    for part in blocks(stream, limit):
        yield from each(part, limit)


def pieces(stream: BinaryIO, limit: int) -> Generator[tuple[int, bytes, bool], None, None]:
    """Yield each line of a stream with its number and end, without a BOM at the very start, and whether it is there as a whole.

    Of one of more than ``limit`` bytes the rest is read past.
    """
    number = 0
    while data := stream.readline(limit + 2):
        number += 1
        whole = _passed(stream, data, limit)
        if number == 1 and data.startswith(codecs.BOM_UTF8):
            data = data[3:]
        yield number, data, whole


def _passed(stream: BinaryIO, data: bytes, limit: int) -> bool:
    """Return whether what was read of a line is all of it; if not, read past the rest."""
    whole = data.endswith(b"\n") or len(data) <= limit
    rest = b"" if whole else data
    while rest and not rest.endswith(b"\n"):
        rest = stream.readline(1 << 20)
    return whole


def bounded(number: int, data: bytes, limit: int) -> Line:
    """Return a line of at most ``limit`` bytes; one that was longer says so."""
    return Line(number, data) if len(data) <= limit else Line(number, data[:limit], too_long(limit))


def too_long(limit: int) -> str:
    """Return why a line of more than ``limit`` bytes cannot be used."""
    return f"longer than the {limit:,} bytes a request may have"


def document(line: bytes) -> Any:
    """Return the JSON document of a line.

    Raises:
        InputError: it is not strict JSON in UTF-8, holds a NUL, a number that Python cannot hold, or is nested too deeply.
    """
    try:
        value = _decode(line)
        if _BACKSLASH in line and b"\\u0000" in line and _any_string(value, lambda text: "\0" in text):
            raise InputError("a NUL character (\\u0000) in a string")
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(_why(line, error)) from error
    except RecursionError as error:
        raise InputError("nested too deeply") from error
    return value


def _any_string(value: Any, test: Callable[[str], bool]) -> bool:
    """Return whether a test holds for any string in a value, names of members included."""
    if isinstance(value, str):
        return test(value)
    if isinstance(value, dict):
        return any(test(key) or _any_string(item, test) for key, item in value.items())
    return isinstance(value, list) and any(_any_string(item, test) for item in value)


def _why(line: bytes, error: Exception) -> str:
    """Say why a line is no JSON, in words that name what people have done rather than what the parser met."""
    if isinstance(error, UnicodeDecodeError):
        return NO_TEXT
    if line.startswith(codecs.BOM_UTF8):
        return "a byte order mark in the middle of the input"
    if b"\0" in line:
        return "a NUL byte"
    if _LONE_SURROGATE.search(line):
        return "a lone surrogate (\\ud800 to \\udfff) in a string"
    if _NOT_A_NUMBER.search(line):
        return "NaN and Infinity are not JSON"
    if _PYTHONS.search(line):
        return "not JSON but Python's own form: write it by json.dumps(record)"
    if "out of range" in str(error):
        return "a number too large to represent"
    detail = str(error).removeprefix("JSON is malformed: ")
    return f"not valid JSON: {detail}{_cure(line, detail)}"


def _cure(line: bytes, detail: str) -> str:
    """Return what to type where more than one document stands on a line, or one is an element of an array; else nothing."""
    if line.endswith(b",") and _is_document(line[:-1]):
        return "; it is an element of a JSON array, which jq -c '.[]' takes apart"
    if "trailing characters" in detail and line.startswith(b"{"):
        return "; where it is another document, jq -c . writes one on each line"
    return ""


def _is_document(line: bytes) -> bool:
    """Return whether a line is JSON."""
    try:
        _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def nearest(wanted: Collection[str], known: Collection[str]) -> tuple[str, str] | None:
    """Return the first wanted name that a known one nearly is, and that one; None where there is no such."""
    names = [name for name in list(known)[:_MOST_NAMES] if len(name) <= _LONGEST_NAME and printable(name)]
    for name in wanted:
        alike = [one for one in names if one.casefold() == name.casefold()]
        for found in alike or difflib.get_close_matches(name, names, 1, _NEAR):
            if found not in wanted:
                return name, found
    return None


def near(wanted: Collection[str], known: Collection[str]) -> str:
    """Return ``; the record has titel; did you mean title?`` for a near miss, or nothing."""
    found = nearest(wanted, known)
    return f"; the record has {found[1]}; did you mean {found[0]}?" if found else ""


_MOST_NAMES, _LONGEST_NAME, _NEAR = 200, 80, 0.65
"""What near misses are looked for among: names of a record come from anywhere."""


def printable(text: str) -> bool:
    """Return whether a name can stand in a message as it is."""
    return text.isprintable()


class Key(NamedTuple):
    """A record's key: its JSON text (types kept) and its identity, in which 1 and "1" are the same."""

    json: str
    identity: str


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
KEY_BYTES = 512
"""How long a key may be, in UTF-8 bytes."""


def key_of(value: Any, prefix: str = "") -> Key:
    """Return the key that a value stands for: a string, an integer (1.0 is one), or an array of these (a composite key).

    Args:
        value: as it stands in the record.
        prefix: put before a string or an integer, which makes it a string.

    Raises:
        InputError: the value is no key; says why.
    """
    if type(value) is str and not prefix and _is_plain(value):
        return Key(f'"{value}"', value)
    value = [_whole(part) for part in value] if isinstance(value, list) else _whole(value)
    if prefix:
        if isinstance(value, list):
            raise InputError("--key-prefix does not go with a composite key")
        value = prefix + _part(value)
    if isinstance(value, list):
        if not value:
            raise InputError("its key is an empty array")
        identity = keys.identity([_part(part) for part in value])
    else:
        identity = _part(value)
    if len(identity.encode()) > KEY_BYTES:
        raise InputError(f"its key is longer than {KEY_BYTES} bytes")
    return Key(msgspec.json.encode(value).decode(), identity)


def _is_plain(text: str) -> bool:
    """Return whether a text is a key as most are: its JSON is the text between quotes."""
    return text.isascii() and text.isprintable() and 0 < len(text) <= KEY_BYTES and '"' not in text and "\\" not in text


def _whole(value: Any) -> Any:
    """Return a number that is whole as an integer: 1.0 is 1. Past 2^53 a fraction may not be the number that was meant."""
    fraction = isinstance(value, float | Decimal)
    return int(value) if fraction and abs(value) < _EXACT and value == int(value) else value


_EXACT = 2**53


def shown(identity: str) -> str:
    """Return a key's identity as a person would type it after ``--key``."""
    return identity.removeprefix("\x1e")


def _part(value: Any) -> str:
    """Return one part of a key as text. Raises InputError: it is no string or integer, is empty, or has control characters."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(f"its key is {_kind(value)}; a key is a string, an integer, or an array of these")
    if isinstance(value, int) and not _SMALLEST <= value <= _LARGEST:  # a database could not look for it
        raise InputError("its key is a number past 64 bits; send it as a string")
    text = str(value)
    if not text:
        raise InputError("its key is empty")
    if _CONTROL.search(text):
        raise InputError("its key has a control character")
    return text


def _kind(value: Any) -> str:
    names = {
        type(None): "null",
        bool: "a boolean",
        float: "a fraction",
        Decimal: "a fraction",
        dict: "an object",
        list: "an array in an array",
    }
    return names.get(type(value), type(value).__name__)
