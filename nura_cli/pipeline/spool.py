"""The request file of a batch: rendered once, streamed to disk, hashed on the way, whole or not there at all."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from nura_cli.errors import InputError
from nura_cli.providers.base import Dialect, Limits
from nura_cli.state.disk import part_of, publish

_PIECE_BYTES = 1 << 20
_AHEAD = 16
_SYNC_BYTES = 32 * 1024 * 1024


class Sealed(NamedTuple):
    """A written request file.

    Attributes:
        requests, bytes, sha256: what the file holds.
        last_id: the last task that is in it or failed; tasks after it did not fit.
        failed: tasks that could not become a request, and why.
    """

    requests: int
    bytes: int
    sha256: str
    last_id: int
    failed: list[tuple[int, str]]


def write(
    target: Path,
    rows: Iterable[tuple[int, bytes]],
    body: Callable[[bytes], bytes],
    *,
    dialect: Dialect,
    endpoint: str,
    tag: str,
    limits: Limits,
    aim: int | None = None,
) -> Sealed:
    """Write the requests of ``rows`` (task id, line; by id) to ``target``, up to the limits in bytes and inputs.

    The file is written beside itself as ``.part``, synced and renamed, and its folder synced. Where no row became a
    request, or it could not be written, nothing is left.

    Args:
        body: from a line to a request's body; an :class:`InputError` of its concerns that task alone.
        aim: bytes to stay under where that is possible; a first request goes in even so.

    Raises:
        StateError: the disk is full, or fails.
    """
    frame = dialect.frame
    failed: list[tuple[int, str]] = []
    requests = last_id = 0
    most = limits.bytes - len(frame.head) - len(frame.tail) - len(frame.separator)
    longest = min(limits.line_bytes, most)
    bytes_left, inputs_left = min(most, aim or most), limits.inputs
    prefix = tag.encode()

    def made(task_id: int, line: bytes) -> tuple[bytes, int]:
        """Return a task's request and how many inputs it carries; raises InputError where it cannot be one."""
        content = body(line)
        inputs = dialect.inputs(endpoint, content) if limits.inputs is not None else 0
        if limits.inputs is not None and inputs > limits.inputs:
            raise InputError(f"carries {inputs:,} inputs; a batch takes {limits.inputs:,}")
        request = dialect.request(b"%b-%d" % (prefix, task_id), endpoint, content)
        if len(request) > longest:
            raise InputError(f"its request has {len(request):,} bytes; {limits.line_bytes:,} are allowed")
        return request, inputs

    with part_of(target) as part:
        with _Writer(part) as writer:
            writer.put(frame.head)
            for task_id, line in rows:
                try:
                    request, inputs = made(task_id, line)
                except InputError as error:
                    failed.append((task_id, error.message))
                    last_id = task_id
                    continue
                length = len(request) + len(frame.separator)
                if requests and (length > bytes_left or (inputs_left is not None and inputs > inputs_left)):
                    break
                bytes_left -= length
                inputs_left = None if inputs_left is None else inputs_left - inputs
                if requests:
                    writer.put(frame.separator)
                writer.put(request)
                requests += 1
                last_id = task_id
            writer.put(frame.tail)
        if requests:
            publish(part, target)
    if not requests:
        return Sealed(0, 0, "", last_id, failed)
    return Sealed(requests, writer.size, writer.sha.hexdigest(), last_id, failed)


class _Writer:
    """Hashes and writes in a thread of its own, while the next requests are rendered; what fails there is raised here.

    At most :data:`_AHEAD` pieces wait to be written, so that memory stays bounded. The file is synced as it grows: a last
    sync of 200 MB would be waited for.
    """

    def __init__(self, path: Path) -> None:
        self.size = 0
        self.sha = hashlib.sha256()
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._waiting: deque[Future[None]] = deque()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._thread = ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._flush()
                while self._waiting:
                    self._waiting.popleft().result()
        finally:
            self._thread.shutdown(cancel_futures=True)
            os.close(self._fd)

    def put(self, data: bytes) -> None:
        """Add bytes to the file."""
        self._buffer.append(data)
        self._buffered += len(data)
        if self._buffered >= _PIECE_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._waiting.append(self._thread.submit(self._write, b"".join(self._buffer)))
        self._buffer, self._buffered = [], 0
        while len(self._waiting) > _AHEAD:
            self._waiting.popleft().result()

    def _write(self, data: bytes) -> None:
        self.sha.update(data)
        left = memoryview(data)
        while left:
            left = left[os.write(self._fd, left) :]
        before, self.size = self.size, self.size + len(data)
        if self.size // _SYNC_BYTES > before // _SYNC_BYTES:
            os.fdatasync(self._fd)


def sweep(folder: Path, keep: set[str]) -> int:
    """Delete every file of a spool folder that is not named in ``keep``; return how many went."""
    gone = 0
    for path in folder.iterdir():
        if path.name not in keep:
            path.unlink(missing_ok=True)
            gone += 1
    return gone
