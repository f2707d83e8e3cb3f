"""Calls of commands that are under way, each noted by a file that its program holds locked, as all do that it starts.

A call that comes to its end, in whatever way, removes its file. One whose nura was killed leaves it, and the program may
go on and deliver what is old by then after what is newer: the next call waits for it, for as long as it may take.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LOOK_SECONDS = 0.05


@contextmanager
def call(path: Path, timeout: int) -> Iterator[int]:
    """Give the block a descriptor for its program to inherit, once what a killed call left running has ended.

    It is waited for until its own time is over: ``timeout`` seconds after it began, and never longer than that from now.
    One call at a time holds a path: whoever delivers has a lock of its own.

    Raises:
        OSError: the file cannot be made, or what stands there is a link.
    """
    with suppress(FileNotFoundError):
        _wait(path, timeout)
        path.unlink()  # another file is made: what is held of this one is held for ever, perhaps
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.write(
            fd, str(int(time.monotonic())).encode()
        )  # since the machine was started: no clock that is set moves it
        yield fd
    finally:
        path.unlink(missing_ok=True)
        os.close(fd)


def _wait(path: Path, timeout: int) -> None:
    """Wait until nobody holds a file any more, or its holder's time is over."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        began = os.pread(fd, 20, 0)
        age = time.monotonic() - int(began) if began.isdigit() else 0.0
        deadline = time.monotonic() + timeout - max(0.0, age)
        while _held(fd) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
    finally:
        os.close(fd)


def _held(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
