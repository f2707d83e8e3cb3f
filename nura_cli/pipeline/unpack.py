"""Compressed input, known by its first bytes and not by its name: gzip and zstd, from files and from standard input.

Takes an open stream; gives the bytes inside, decompressed as they are asked for, so that no more than a line is ever held.
Several members in one file are read as one. Where the data are damaged, or end too early, :class:`Damaged` is raised after
all that could be read was given.
"""

import io
import select
import time
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

from nura_cli.state.packed import zstandard

HEAD_BYTES = 1 << 16
"""How much of an input is looked at before its first line is read."""
PATIENCE_SECONDS = 1.0
"""How long the next bytes of a pipe or terminal are waited for before what came is made safe."""
_BUFFER_BYTES = 1 << 17
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
"""RFC 8878, 3.1.1: a frame; one that is to be skipped (3.1.2) may stand before it, and has sixteen beginnings."""
_SKIPPABLE = tuple(bytes((0x50 + n, 0x2A, 0x4D, 0x18)) for n in range(16))


class Damaged(Exception):
    """Compressed data cannot be read on from here; ``str`` of it says why."""


class Unpacked(NamedTuple):
    """An input without its compression.

    Attributes:
        head: its first bytes, at most :data:`HEAD_BYTES`; they come out of the stream again.
        stream: all of it.
        tool: the command that decompresses such a file; empty where it is not compressed.
    """

    head: bytes
    stream: BinaryIO
    tool: str = ""


class Waiting:
    """Waits for the bytes of a pipe or terminal, and says so once that, since they began to come, has been for a second."""

    def __init__(self, stream: BinaryIO, idle: Callable[[], None]) -> None:
        self._idle = idle
        self._poll: select.poll | None = select.poll()
        self._began = time.monotonic()
        try:
            self._poll.register(stream.fileno(), select.POLLIN)
        except OSError:  # it is no file's, and what it reads is there
            self._poll = None

    def ready(self) -> bool:
        """Return whether there is something to read before that second is over."""
        left = max(0.0, self._began + PATIENCE_SECONDS - time.monotonic())
        return self._poll is None or bool(self._poll.poll(left * 1000))

    def wait(self) -> None:
        """Return once there is something to read, or its end."""
        if self._poll is not None and not self.ready():
            self._idle()
            self._poll.poll()
            self._began = time.monotonic()


def unpacked(stream: BinaryIO, idle: Callable[[], None] = lambda: None) -> Unpacked:
    """Return what an input holds. Raises OSError: it cannot be read.

    Args:
        idle: called where the next bytes of a pipe or terminal let themselves be waited for, once a second at most.
    """
    start = stream.tell() if stream.seekable() else None
    head, whole = _peeked(stream, (), Waiting(stream, idle) if start is None else None)
    if head.startswith(_GZIP):
        import gzip
        import zlib

        inner: Any = gzip.GzipFile(fileobj=whole)
        return Unpacked(*_peeked(inner, (EOFError, gzip.BadGzipFile, zlib.error)), "zcat")
    if head.startswith((_ZSTD, *_SKIPPABLE)):
        zstd = zstandard()
        return Unpacked(*_peeked(zstd.ZstdFile(whole), (EOFError, zstd.ZstdError)), "zstdcat")
    if start is not None:  # read by itself it is read faster
        stream.seek(start)
        return Unpacked(head, stream)
    return Unpacked(head, whole)


def _peeked(stream: Any, damage: tuple[type[Exception], ...], waiting: Waiting | None = None) -> tuple[bytes, BinaryIO]:
    """Return the first bytes of a stream, and a stream of all of it.

    Args:
        damage: what the stream raises where its data are damaged.
        waiting: waits for what is read; None where nothing has to be waited for.
    """
    given = _Given(getattr(stream, "read1", stream.read), damage, waiting)
    head = given.peek(HEAD_BYTES)
    return head, io.BufferedReader(given, _BUFFER_BYTES)


class _Given(io.RawIOBase):
    """A stream over whatever reads: its first bytes can be looked at, and what goes wrong then is told when it is its turn."""

    def __init__(
        self, read: Callable[[int], bytes], damage: tuple[type[Exception], ...], waiting: Waiting | None
    ) -> None:
        super().__init__()
        self._waiting = waiting
        self._read = read
        self._damage = damage
        self._head = bytearray()
        self._wrong: BaseException | None = None

    def peek(self, n: int) -> bytes:
        """Return the first ``n`` bytes, or what there is (of a pipe that pauses: so far); they are read later all the same.

        What ends this meanwhile, as being told to stop does, is raised once they are read.
        """
        try:
            while len(self._head) < n and self._wrong is None:
                if b"\n" in self._head and self._waiting is not None and not self._waiting.ready():
                    break
                data = self._next(n - len(self._head))
                if not data:
                    break
                self._head += data
        except BaseException as error:  # noqa: BLE001 - it is only put off
            self._wrong = error
        return bytes(self._head)

    def readable(self) -> bool:
        """It is for reading."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes. Raises Damaged, or what ended :meth:`peek`."""
        data = bytes(self._head[: len(buffer)]) or self._next(len(buffer))
        del self._head[: len(data)]
        if not data and self._wrong is not None:
            raise self._wrong
        buffer[: len(data)] = data
        return len(data)

    def _next(self, n: int) -> bytes:
        if self._wrong is not None:
            return b""
        if self._waiting is not None:
            self._waiting.wait()
        try:
            return self._read(n)
        except self._damage as error:
            early, unsure = isinstance(error, EOFError), "CRC" in str(error) or "checksum" in str(error).lower()
            why = "it ends too early" if early else f"it is damaged: {error}"
            self._wrong = Damaged(f"{why} (some of what came before may be, too)" if unsure else why)
            return b""
