"""The sandbox's HTTP vocabulary: requests as they are read, replies as they are sent."""

import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple


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


Reply = Json | Html | SendFile


class Failure(Exception):
    """An error reply, raised where it is found."""

    def __init__(self, status: int, body: Any, kind: str = "application/json") -> None:
        super().__init__(status)
        self.status = status
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.kind = kind


_PIECE = 1 << 17


class Request:
    """One request: its head parsed, its body still to be read."""

    def __init__(self, method: str, path: str, query: dict[str, str], headers: Any, stream: BinaryIO, url: str) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.url = url
        self.account = ""
        self._stream = stream
        self._read = False

    def pieces(self) -> Iterator[bytes]:
        """Yield the body in pieces, by its Content-Length or its chunks."""
        if self._read:
            return
        self._read = True
        if "chunked" in (self.headers.get("Transfer-Encoding") or ""):
            while size := int(self._stream.readline(64).split(b";")[0], 16):
                yield self._stream.read(size)
                self._stream.readline(8)
            self._stream.readline(8)
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            piece = self._stream.read(min(left, _PIECE))
            if not piece:
                raise ConnectionError("the body was cut")
            left -= len(piece)
            yield piece

    def drain(self) -> None:
        """Read past what is left of the body, so that the connection can go on."""
        for _ in self.pieces():
            pass

    def json(self) -> dict[str, Any]:
        """Return the body's JSON object."""
        try:
            found = json.loads(b"".join(self.pieces()) or b"{}")
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Failure(400, {"error": {"message": "We could not parse the JSON body of your request.", "type": "x"}})
        return found

    def save(self, target: Path, limit: int) -> int:
        """Write the body to a file; return its size. Past ``limit`` bytes it is read and not written."""
        size = 0
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(fd, "wb") as file:
            for piece in self.pieces():
                size += len(piece)
                if size <= limit:
                    file.write(piece)
        return size

    def form(self, folder: Path) -> tuple[dict[str, str], Path | None, str | None]:
        """Read a multipart form: its plain fields, the one file (streamed to ``folder``), and its filename."""
        match = re.search(r'boundary="?([^";]+)"?', self.headers.get("Content-Type") or "")
        if not match:
            self.drain()
            return {}, None, None
        return _Form(self.pieces(), b"--" + match[1].encode(), folder).read()


class _Form:
    """A multipart body, read in pieces."""

    def __init__(self, pieces: Iterator[bytes], boundary: bytes, folder: Path) -> None:
        self._pieces = pieces
        self._boundary = boundary
        self._folder = folder
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
                yield self._buffer[: len(self._buffer) - keep]
                self._buffer = self._buffer[-keep:] if keep else b""
            piece = next(self._pieces, None)
            if piece is None:
                return
            self._buffer += piece

    def read(self) -> tuple[dict[str, str], Path | None, str | None]:
        fields: dict[str, str] = {}
        path, filename = None, None
        b"".join(self._until(self._boundary))
        while True:
            head = b"".join(self._until(b"\r\n\r\n"))
            if head.strip() in (b"--", b""):
                break
            name = re.search(rb'name="([^"]*)"', head)
            file = re.search(rb'filename="([^"]*)"', head)
            end = b"\r\n" + self._boundary
            if file:
                filename = file[1].decode("utf-8", "replace")
                path = self._folder / f"upload-{secrets.token_hex(8)}.part"
                fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
                with open(fd, "wb") as out:
                    for piece in self._until(end):
                        out.write(piece)
            else:
                fields[name[1].decode() if name else ""] = b"".join(self._until(end)).decode("utf-8", "replace")
        for _ in self._pieces:
            pass
        return fields, path, filename
