"""Packed values: bodies of answers and lines of records as zstd frames, each by itself, so that one of them can be forgotten.

A packed value begins with a byte with which no JSON text begins, then the number of its dictionary, then the frame; any other is
what it is. A dictionary holds what answers of one revision have in common before anything was answered: its spec, and the vendor's
response around the answer. No record and no answer is ever in one.

Values are packed in files of the newer layout alone: older releases read the others.
"""

import json
import sqlite3
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

from nura_cli.state.connection import Connection

_PACKED = b"\xff"
_ID_BYTES = 2
_HEAD = len(_PACKED) + _ID_BYTES
_FRAME_HEAD = 18
"""How long the head of a frame is at most; the size of what is packed stands in it."""
_NONE = 0
"""Stands for a value that is packed without a dictionary."""
_LEAST = 64
"""Bytes: shorter values are left as they are, and shorter dictionaries are none."""
_MOST = 16 * 1024 * 1024
"""Bytes: larger values are left as they are, for memory would hold them twice. One that says that it holds more is damaged."""
FAST = -1
"""The level for what is packed while somebody waits: about 3 µs for an answer of 700 bytes, which then takes 220."""
SMALL = 3
"""The level for what is packed once, later: 190 bytes, for twice the time."""
_MOST_SPEC = 16 * 1024
"""Characters of a spec that go into a dictionary."""
_OPEN = 16
"""How many dictionaries a connection keeps ready."""

Packer = Callable[[bytes | None], bytes | None]
"""Packs a value, if there is one, and if it is smaller then."""


def size(column: str) -> str:
    """Return as SQL how many bytes the values of a column have unpacked; of one that is damaged, as many as it has."""
    head = f"substr({column}, 1, {_HEAD + _FRAME_HEAD})"
    return (
        f"iif(substr({column}, 1, 1) = x'{_PACKED.hex()}', unpacked_size({head}, length({column})), length({column}))"
    )


def know(db: Connection) -> None:
    """Let a connection's statements know of :func:`size`."""
    db.create_function("unpacked_size", 2, lambda head, length: _announced(head) or length, deterministic=True)


def content(spec: str, envelope: bytes) -> bytes:
    """Return what a dictionary for the answers of a spec (JSON) is made of.

    An answer in JSON stands as a string in the response, and vendors write with spaces and without.

    Args:
        envelope: a response of the vendor's (JSON) without anything answered; empty where none is known.
    """
    escaped = json.dumps(spec[:_MOST_SPEC], ensure_ascii=False)[1:-1]
    response = json.loads(envelope) if envelope else ""
    spaced, close = (json.dumps(response, separators=form) for form in ((", ", ": "), (",", ":")))
    return "".join((spaced, escaped, close)).encode(errors="replace")


def learn(db: Connection, revision: str, content: bytes) -> None:
    """Keep the dictionary for answers of a revision, where there is none."""
    query = "INSERT OR IGNORE INTO dictionaries (revision, content) VALUES (?, ?)"
    db.execute(query, (revision, content))


def packer(db: Connection, batch_id: int) -> Packer:
    """Return what packs the bodies of a batch's answers, where the file's layout has it."""
    if db.keeps_text:
        return _as_it_is
    return _packing(_dictionary_of(db, batch_id), FAST)


def packer_small(db: Connection, batch_id: int | None) -> Packer:
    """Return what packs the bodies of a batch's answers, or with None any value, as small as may be."""
    return _packing(_dictionary_of(db, batch_id) if batch_id is not None else _opened(db, _NONE), SMALL)


def _as_it_is(value: bytes | None) -> bytes | None:
    return value


def _packing(dictionary: "Dictionary", level: int) -> Packer:
    compressor = dictionary.compressor(level)

    def pack(value: bytes | None) -> bytes | None:
        if value is None or not _LEAST <= len(value) <= _MOST or value.startswith(_PACKED):
            return value
        packed = dictionary.head + compressor.compress(value, compressor.FLUSH_FRAME)
        return packed if len(packed) < len(value) else value

    return pack


def unpack(db: Connection, value: bytes) -> bytes:
    """Return a value as it was before it was packed, where it was.

    Raises:
        sqlite3.DatabaseError: it is damaged; with the code of a damaged file.
    """
    if not value.startswith(_PACKED):
        return value
    number = int.from_bytes(value[len(_PACKED) : _HEAD], "big")
    return _opened(db, number).unpack(value)


def unpack_any(db: Connection, value: bytes | None) -> bytes | None:
    """Return a value as :func:`unpack` does, None where there is none."""
    return None if value is None else unpack(db, value)


class Dictionary:
    """A dictionary as it is used: what values begin with that are packed with it, and contexts that are ready."""

    def __init__(self, number: int, content: bytes | None) -> None:
        self.head = _PACKED + number.to_bytes(_ID_BYTES, "big")
        self._content = zstandard().ZstdDict(content, is_raw=True) if content and len(content) >= _LEAST else None
        self._ready = dict[int, Any]()

    def compressor(self, level: int) -> Any:
        """Return a compressor of a level."""
        if level not in self._ready:
            content = self._content and self._content.as_digested_dict
            self._ready[level] = zstandard().ZstdCompressor(level=level, zstd_dict=content)
        return self._ready[level]

    def unpack(self, value: bytes) -> bytes:
        """Return what is packed in a value. Raises DatabaseError as :func:`unpack` does."""
        most = _announced(value)
        if most is None:
            raise _damaged()
        zstd = zstandard()
        frame = zstd.ZstdDecompressor(zstd_dict=self._content)
        try:
            found = frame.decompress(memoryview(value)[_HEAD:], max_length=most)
        except zstd.ZstdError as error:
            raise _damaged() from error
        if len(found) != most or not frame.eof:
            raise _damaged()
        return bytes(found)


def _announced(value: bytes) -> int | None:
    """Return how many bytes the head of a packed value says are in it; None where that is damaged."""
    zstd = zstandard()
    try:
        found = zstd.get_frame_info(memoryview(value)[_HEAD:]).decompressed_size
    except zstd.ZstdError:
        return None
    return found if found is not None and found <= _MOST else None


def _dictionary_of(db: Connection, batch_id: int) -> Dictionary:
    row = db.execute(
        "SELECT d.id FROM batches b JOIN dictionaries d ON d.revision = b.revision WHERE b.id = ?", (batch_id,)
    ).fetchone()
    return _opened(db, row[0] if row and row[0] < 2 ** (8 * _ID_BYTES) else _NONE)


def _opened(db: Connection, number: int) -> Dictionary:
    """Return a dictionary, ready for use. Raises DatabaseError: there is none of this number."""
    if number in db.dictionaries:
        return db.dictionaries[number]
    row = db.execute("SELECT content FROM dictionaries WHERE id = ?", (number,)).fetchone()
    if row is None and number != _NONE:
        raise _damaged()
    if len(db.dictionaries) >= _OPEN:
        db.dictionaries.clear()
    return db.dictionaries.setdefault(number, Dictionary(number, row[0] if row else None))


def _damaged() -> sqlite3.DatabaseError:
    """Return what SQLite raises of a page that is damaged."""
    error = sqlite3.DatabaseError("a packed value is damaged")
    error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_CORRUPT, "SQLITE_CORRUPT"
    return error


@cache
def zstandard() -> Any:
    """Return the module that knows zstd: Python's own from 3.14 on. Imported where something is packed, and not before."""
    try:
        return import_module("compression.zstd")
    except ImportError:
        return import_module("backports.zstd")
