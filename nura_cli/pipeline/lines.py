"""JSON Lines as they come from anywhere: split on ``\\n`` only, read in bounded pieces, checked strictly.

Takes bytes, gives documents or :class:`InputError`; a line that cannot be used never stops the ones after it.
"""

import codecs
import re
from collections.abc import Callable, Generator
from typing import Any, BinaryIO, NamedTuple

import msgspec

from nura_cli.errors import InputError
from nura_cli.state import tasks

_decode = msgspec.json.Decoder().decode
_LONE_SURROGATE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]")
_NOT_A_NUMBER = re.compile(rb"[:,\[\s]-?(NaN|Infinity)\b|^-?(NaN|Infinity)\b")
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1


class Line(NamedTuple):
    """One line: its number in its file (1-based), its bytes without the line end, and why it cannot be used, if known."""

    number: int
    data: bytes
    fault: str | None = None


def split(stream: BinaryIO, limit: int) -> Generator[Line, None, None]:
    """Yield the lines of a stream that are not blank; a BOM at the very start is passed over.

    Args:
        stream: opened for reading bytes.
        limit: bytes a line may have; of a longer one the first ``limit`` bytes are given, the rest is read past.
    """
    number = 0
    while data := stream.readline(limit + 2):
        number += 1
        whole = data.endswith(b"\n") or len(data) <= limit
        if not whole:
            rest = data
            while rest and not rest.endswith(b"\n"):
                rest = stream.readline(1 << 20)
        if number == 1 and data.startswith(codecs.BOM_UTF8):
            data = data[3:]
        data = data.strip(b" \t\r\n")
        if data:
            yield bounded(number, data, limit) if whole else Line(number, data[:limit], too_long(limit))


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
        if b"\\u0000" in line and _any_string(value, lambda text: "\0" in text):
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
        return "not valid UTF-8"
    if line.startswith(codecs.BOM_UTF8):
        return "a byte order mark in the middle of the input"
    if b"\0" in line:
        return "a NUL byte"
    if _LONE_SURROGATE.search(line):
        return "a lone surrogate (\\ud800 to \\udfff) in a string"
    if _NOT_A_NUMBER.search(line):
        return "NaN and Infinity are not JSON"
    if "out of range" in str(error):
        return "a number too large to represent"
    detail = str(error).removeprefix("JSON is malformed: ")
    return f"not valid JSON: {detail}"


class Key(NamedTuple):
    """A record's key: its JSON text (types kept) and its identity, in which 1 and "1" are the same."""

    json: str
    identity: str


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
KEY_BYTES = 512
"""How long a key may be, in UTF-8 bytes."""


def key_of(value: Any, prefix: str = "") -> Key:
    """Return the key that a value stands for: a string, an integer, or an array of these (a composite key).

    Args:
        value: as it stands in the record.
        prefix: put before a string or an integer, which makes it a string.

    Raises:
        InputError: the value is no key; says why.
    """
    if prefix:
        if isinstance(value, list):
            raise InputError("--key-prefix does not go with a composite key")
        value = prefix + _part(value)
    if isinstance(value, list):
        if not value:
            raise InputError("its key is an empty array")
        identity = tasks.identity([_part(part) for part in value])
    else:
        identity = _part(value)
    if len(identity.encode()) > KEY_BYTES:
        raise InputError(f"its key is longer than {KEY_BYTES} bytes")
    return Key(msgspec.json.encode(value).decode(), identity)


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
        dict: "an object",
        list: "an array in an array",
    }
    return names.get(type(value), type(value).__name__)
