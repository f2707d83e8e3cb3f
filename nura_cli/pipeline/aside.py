"""Result lines that are too long to be read into memory: set aside whole, with a note in their place.

poll finds them in what it downloaded, before anything else reads it. One that consists of several results becomes as many
lines. The note is a line of its own, and names the file and the requests that the line may be about; a task that it names
fails at once, at an unknown cost. What is set aside is named by what it holds: fetched again, it is the same file.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from nura_cli.dialects.base import ResultLine
from nura_cli.dialects.reading import Illegible
from nura_cli.states import ErrorKind

MOST_BYTES = 128 * 1024 * 1024
"""Bytes that a result line may have, without its line end: answers with images have some tens of millions."""
TOO_LARGE = "answer_too_large"
"""The code of the error of a task whose line is set aside."""
_PIECE_BYTES = 1 << 20
_NAMED = re.compile(rb'(?<!\\)"custom_id"\s*:\s*"([^"\\]{1,64})"')
_NAME_BYTES = 1024
"""More than a custom_id with its name and its quotes takes: what two pieces have in common."""
_MOST_NAMES = 100


class Long(NamedTuple):
    """A line that is too long, or a result in one: where it begins and ends in its file."""

    start: int
    end: int


class Note(msgspec.Struct, forbid_unknown_fields=True):
    """What stands in the place of a line that is set aside.

    Attributes:
        set_aside: the file that it lies in.
        bytes: of the line.
        custom_ids: whatever stands as one in the line, each once.
    """

    set_aside: str
    bytes: int
    custom_ids: list[str]


_decode = msgspec.json.Decoder(Note).decode


class Nameless(Illegible):
    """A note of a line that names no request."""


def too_long(file: BinaryIO) -> list[Long]:
    """Return the lines of a file that are too long, read in pieces."""
    found = []
    start, at = 0, 0
    file.seek(0)
    while piece := file.read(_PIECE_BYTES):
        end = piece.find(b"\n")
        if end >= 0:
            if at + end - start > MOST_BYTES:
                found.append(Long(start, at + end))
            start = at + piece.rfind(b"\n") + 1
        at += len(piece)
    return [*found, Long(start, at)] if at - start > MOST_BYTES else found


def results(file: BinaryIO, line: Long) -> list[Long]:
    """Return the objects in a line, where it holds several, and besides them only what separates them; else the line itself."""
    found = []
    start, depth, quoted, at, ahead = line.start, 0, False, line.start, 0
    for piece in pieces(file, line.start, line.end):
        while (met := (_QUOTED if quoted else _INSIDE if depth else _BETWEEN).search(piece, ahead)) is not None:
            ahead, char = met.end(), met[0]
            if char == b"\\":
                ahead += 1
            elif not depth and char != b"{":
                return [line]
            elif char == b'"':
                quoted = not quoted
            else:
                start = start if depth else at + met.start()
                depth += 1 if char == b"{" else -1
                if not depth:
                    found.append(Long(start, at + ahead))
        ahead = max(0, ahead - len(piece))
        at += len(piece)
    return found if len(found) > 1 and not depth else [line]


_QUOTED, _INSIDE, _BETWEEN = re.compile(rb'["\\]'), re.compile(rb'[{}"]'), re.compile(rb"[^\s\0\x1e,;\[\]dat:DONE]")
"""Between results: anything but the characters of what :mod:`nura_cli.dialects.reading` takes for a separator."""


def named(file: BinaryIO, line: Long) -> str:
    """Return 20 hex digits that are a line's by what it holds."""
    sha = hashlib.sha256()
    for piece in pieces(file, line.start, line.end):
        sha.update(piece)
    return sha.hexdigest()[:20]


def note(file: BinaryIO, line: Long, kept: Path) -> bytes:
    """Return the note of a line that is kept in a file of its own, with its line end."""
    names: dict[bytes, None] = {}
    before = b""
    for piece in pieces(file, line.start, line.end):
        names |= dict.fromkeys(_NAMED.findall(before + piece))
        before = piece[-_NAME_BYTES:]
        if len(names) > _MOST_NAMES:  # it is no line of one request
            break
    listed = [name.decode("utf-8", "replace") for name in names][:_MOST_NAMES]
    return (
        msgspec.json.encode(Note(os.fsencode(kept).decode("utf-8", "replace"), line.end - line.start, listed)) + b"\n"
    )


def pieces(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    """Yield the bytes of a part of a file, a piece at a time."""
    at = start
    while at < end:
        file.seek(at)
        piece = file.read(min(_PIECE_BYTES, end - at))
        if not piece:
            raise OSError(f"{file.name}: it has become shorter")
        yield piece
        at += len(piece)


def noted(line: bytes) -> Nameless | None:
    """Return what a note in the place of a line tells, None where the line is none; who knows the batch's tag tells whose it is."""
    if not line.startswith(b'{"set_aside":'):
        return None
    try:
        found = _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    why = f"the answer has {found.bytes:,} bytes, more than the {MOST_BYTES:,} that one may have; it is kept whole in {found.set_aside}"
    return Nameless(line, found.custom_ids, why)


def of(found: Nameless, custom_id: str) -> ResultLine:
    """Return the result of the request whose line is set aside: it was most likely answered, and would come out as large again."""
    return ResultLine(custom_id, None, ErrorKind.INVALID_OUTPUT, code=TOO_LARGE, message=found.why, final=True)
