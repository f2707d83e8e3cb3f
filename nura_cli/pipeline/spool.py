"""The request file of a batch: rendered once, streamed to disk, hashed on the way, whole or not there at all."""

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from nura_cli.errors import InputError
from nura_cli.pipeline.packing import Room
from nura_cli.providers.base import Dialect, Limits
from nura_cli.state.file import publish

_WRITE_BYTES = 1 << 20


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
    request, nothing is left.

    Args:
        body: from a line to a request's body; an :class:`InputError` of its concerns that task alone.
        aim: bytes to stay under where that is possible; a first request goes in even so.

    Raises:
        OSError: the disk is full, or fails.
    """
    part = target.with_name(target.name + ".part")
    frame = dialect.frame
    sha = hashlib.sha256()
    failed: list[tuple[int, str]] = []
    requests = size = last_id = 0
    most = limits.bytes - len(frame.head) - len(frame.tail) - len(frame.separator)
    room = Room(min(most, aim or most), limits.inputs)
    counts_inputs = limits.inputs is not None
    prefix = tag.encode()
    buffer, buffered = [frame.head], len(frame.head)
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb", buffering=0) as file:
        for task_id, line in rows:
            try:
                content = body(line)
                inputs = dialect.inputs(endpoint, content) if counts_inputs else 0
                if limits.inputs is not None and inputs > limits.inputs:
                    raise InputError(f"carries {inputs:,} inputs; a batch takes {limits.inputs:,}")
                request = dialect.request(b"%b-%d" % (prefix, task_id), endpoint, content)
                if len(request) > min(limits.line_bytes, most):
                    raise InputError(f"its request has {len(request):,} bytes; {limits.line_bytes:,} are allowed")
            except InputError as error:
                failed.append((task_id, error.message))
                last_id = task_id
                continue
            length = len(request) + len(frame.separator)
            if requests and not room.fits(length, inputs):
                break
            room = room.less(length, inputs)
            if requests:
                buffer.append(frame.separator)
            buffer.append(request)
            buffered += length
            requests += 1
            last_id = task_id
            if buffered >= _WRITE_BYTES:
                size += _flush(file.write, sha.update, buffer)
                buffer, buffered = [], 0
        buffer.append(frame.tail)
        size += _flush(file.write, sha.update, buffer)
    if not requests:
        part.unlink()
        return Sealed(0, 0, "", last_id, failed)
    publish(part, target)
    return Sealed(requests, size, sha.hexdigest(), last_id, failed)


def _flush(write: Callable[[bytes], int | None], update: Callable[[bytes], None], buffer: list[bytes]) -> int:
    data = b"".join(buffer)
    update(data)
    left = memoryview(data)
    while left:
        left = left[write(left) or 0 :]  # type: ignore[arg-type]  # a raw file takes any buffer
    return len(data)


def sweep(folder: Path, keep: set[str]) -> int:
    """Delete every file of a spool folder that is not named in ``keep``; return how many went."""
    gone = 0
    for path in folder.iterdir():
        if path.name not in keep:
            path.unlink(missing_ok=True)
            gone += 1
    return gone
