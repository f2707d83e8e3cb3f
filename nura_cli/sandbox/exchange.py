"""The sandbox's HTTP vocabulary: requests as they are read, replies as they are sent. Bodies are streamed both ways."""

import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import unquote

_PIECE = 1 << 17
_MOST_JSON_BYTES = 1 << 20
_UNNAMED = "upload"
"""The name of a file that came without one: what both SDKs send then (httpx2's default)."""


class Json(NamedTuple):
    """A reply with a JSON body."""

    body: Any
    status: int = 200


class Html(NamedTuple):
    """A reply with a page of HTML: what stands between client and API says so."""

    body: bytes
    status: int = 200


class SendFile(NamedTuple):
    """A reply with the bytes of a file."""

    path: Path
    kind: str
    status: int = 200


Reply = Json | Html | SendFile


class Failure(Exception):
    """An error reply, raised where it is found."""

    def __init__(
        self, status: int, body: Any, kind: str = "application/json", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.kind = kind
        self.headers = headers or {}


class Request:
    """One request: its head parsed, its body still to be read."""

    def __init__(self, method: str, path: str, query: dict[str, str], headers: Any, stream: BinaryIO, url: str) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.url = url
        self.account = ""
        self.executions = 1
        """How often it is executed: a proxy on the way may repeat it."""
        self.ahead = 0
        """How many seconds the clock of the server that answers it is ahead."""
        self._stream = stream
        self._read = False

    def pieces(self) -> Iterator[bytes]:
        """Yield the body in pieces, by its Content-Length or its chunks. Raises ConnectionError where it is cut."""
        if self._read:
            return
        self._read = True
        if "chunked" in (self.headers.get("Transfer-Encoding") or "").lower():
            yield from self._chunks()
            return
        length = self.headers.get("Content-Length") or "0"
        if not length.isdecimal():
            raise ConnectionError("the body has no length")
        yield from self._exactly(int(length))

    def _exactly(self, left: int) -> Iterator[bytes]:
        while left:
            piece = self._stream.read(min(left, _PIECE))
            if not piece:
                raise ConnectionError("the body was cut")
            left -= len(piece)
            yield piece

    def _chunks(self) -> Iterator[bytes]:
        while True:
            head = self._stream.readline(1024).split(b";")[0].strip()
            if not re.fullmatch(rb"[0-9a-fA-F]{1,15}", head):
                raise ConnectionError("the body was cut")
            if size := int(head, 16):
                yield from self._exactly(size)
                self._stream.readline(8)
            else:
                while self._stream.readline(1024).strip():
                    """Trailers are read past."""
                return

    def drain(self) -> None:
        """Read past what is left of the body, so that the connection can go on."""
        for _ in self.pieces():
            pass

    def json(self, most: int = _MOST_JSON_BYTES) -> Any:
        """Return the body's JSON value. Raises ValueError where it is none, nested too deeply, or over ``most`` bytes."""
        body = bytearray()
        for piece in self.pieces():
            if len(body) <= most:
                body += piece
        if len(body) > most:
            raise ValueError("the body is too large")
        try:
            return json.loads(bytes(body))
        except RecursionError:
            raise ValueError("the body is nested too deeply") from None

    def save(self, target: Path, limit: int) -> int:
        """Write the body to a file (0600); return its size in bytes. Past ``limit`` it is read and not written."""
        size = 0
        with private(target) as file:
            for piece in self.pieces():
                size += len(piece)
                if size <= limit:
                    file.write(piece)
        return size

    def form(self, folder: Path, limit: int, field: str) -> "Form":
        """Read a multipart form, its file streamed to ``folder``; past ``limit`` bytes it is read and not written.

        Args:
            field: the field that is a file even where it has no file name.
        """
        match = re.search(r'boundary="?([^";]+)"?', self.headers.get("Content-Type") or "")
        if not match:
            self.drain()
            return Form({}, None, None, 0)
        return _Multipart(self.pieces(), b"--" + match[1].encode(), folder, limit).read(field)


class Form(NamedTuple):
    """A form: its plain fields; where its file lies, the name it came with, and its size in bytes."""

    fields: dict[str, str]
    path: Path | None
    filename: str | None
    size: int


class _Multipart:
    """A multipart body, read in pieces."""

    def __init__(self, pieces: Iterator[bytes], boundary: bytes, folder: Path, limit: int) -> None:
        self._pieces = pieces
        self._boundary = boundary
        self._folder = folder
        self._limit = limit
        self._buffer = b""

    def _until(self, mark: bytes) -> Iterator[bytes]:
        """Yield what comes before ``mark``, and move behind it."""
        while True:
            found = self._buffer.find(mark)
            if found >= 0:
                yield self._buffer[:found]
                self._buffer = self._buffer[found + len(mark) :]
                return
            keep = len(mark) - 1
            if len(self._buffer) > keep:
                yield self._buffer[:-keep]
                self._buffer = self._buffer[-keep:]
            piece = next(self._pieces, None)
            if piece is None:
                return
            self._buffer += piece

    def read(self, field: str) -> Form:
        fields: dict[str, str] = {}
        path, filename, size = None, None, 0
        b"".join(self._until(self._boundary))
        try:
            while True:
                head = b"".join(self._until(b"\r\n\r\n"))
                if head.strip() in (b"--", b""):
                    break
                name, file = _names(head)
                if path is None and (file is not None or name == field):
                    filename = file or _UNNAMED
                    path = self._folder / f"upload-{secrets.token_hex(8)}.part"
                    size = self._save(path)
                else:
                    fields[name] = self._value()
            for _ in self._pieces:
                pass
        except BaseException:
            if path is not None:
                path.unlink(missing_ok=True)
            raise
        return Form(fields, path, filename, size)

    def _value(self) -> str:
        """Return a plain field, as much of it as a form may hold."""
        value = bytearray()
        for piece in self._until(b"\r\n" + self._boundary):
            value += piece[: _MOST_JSON_BYTES - len(value)]
        return value.decode("utf-8", "replace")

    def _save(self, path: Path) -> int:
        size = 0
        with private(path) as out:
            for piece in self._until(b"\r\n" + self._boundary):
                size += len(piece)
                if size <= self._limit:
                    out.write(piece)
        return size


def _names(head: bytes) -> tuple[str, str | None]:
    """Return the name of a form's part, and that of its file: None where it has none.

    Clients write it in three ways: in quotes (with %22 or ``\\"`` for a quote), bare, or percent-encoded (RFC 5987).
    """
    text = head.decode("utf-8", "replace")
    name = re.search(r'[; ]name=(?:"([^"]*)"|([^\s;]+))', text)
    wide = re.search(r"[; ]filename\*=(?:utf-8|UTF-8)'[^']*'([^\s;]+)", text)
    file = wide or re.search(r'[; ]filename=(?:"((?:\\"|[^"])*)"|([^\s;]*))', text)
    found = "".join(filter(None, name.groups())) if name else ""
    if file is None:
        return found, None
    return found, unquote("".join(filter(None, file.groups())).replace('\\"', '"'))


def private(path: Path) -> BinaryIO:
    """Open a file that only its owner may read, for writing from its beginning (and reading)."""
    with suppress(FileNotFoundError):
        path.unlink()
    return open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "wb+")


def number(query: dict[str, str], name: str, default: int) -> int | None:
    """Return a whole number of a query, the default where it is absent, None where it is no number."""
    text = query.get(name)
    if text is None:
        return default
    return int(text) if re.fullmatch(r"-?\d{1,18}", text) else None
