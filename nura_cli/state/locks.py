"""Locks between processes: files of their own, flocked and never unlinked, so that no crash leaves one held."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from nura_cli.state.disk import on_disk, refuse_other_kind

HUNG_AFTER = 6 * 3600
"""Seconds after which a run that still holds its lock is taken for hung."""


_CLOCK_SLACK = 60
"""Seconds by which the time of a process's beginning may be wrong: the clock may have been set since."""


class Holder(NamedTuple):
    """Who holds a lock: its process id and since when (unix seconds)."""

    pid: int
    since: int


def at_work(pid: int, since: int) -> bool:
    """Return whether the process that began a run at unix second ``since`` is there: that one, none that has its number now."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    began = _began(pid)
    return began is None or began <= since + _CLOCK_SLACK


def _began(pid: int) -> float | None:
    """Return when a process began, unix seconds; None where the system does not say."""
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return None


class Held(Exception):
    """Another process holds the lock; ``holder`` says which, or is None when it has not written that down yet."""

    def __init__(self, holder: Holder | None) -> None:
        super().__init__("another run is at work")
        self.holder = holder


@contextmanager
def lock(path: Path, now: int, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file ``path`` (made 0600) for the length of the block.

    Args:
        path: the lock file; it stays when the lock is given back.
        now: unix seconds, written into the file for others to read.
        wait: wait for the holder instead of raising.

    Raises:
        Held: another process has it (never with ``wait``).
        StateError: the file cannot be made, or not be written, or is a link or no plain file.
    """
    refuse_other_kind(path)
    with on_disk(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with on_disk(path):
            _take(fd, now, wait)
        yield
    finally:
        os.close(fd)


def _take(fd: int, now: int, wait: bool) -> None:
    """Lock an open file and write down who has it. Raises Held: another process has."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as error:
        raise Held(_holder(fd)) from error
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()} {now}\n".encode(), 0)


def _holder(fd: int) -> Holder | None:
    words = os.pread(fd, 64, 0).split()
    if len(words) == 2 and all(word.isdigit() for word in words):
        return Holder(int(words[0]), int(words[1]))
    return None
