"""Files on the disk: named and synced so that a power cut loses none, and the disk's failures put into words."""

import errno
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nura_cli.errors import StateError

NO_ROOM = "free some room and run the same command again; nothing is lost"
_HINTS = {
    errno.ENOSPC: NO_ROOM,
    errno.EDQUOT: NO_ROOM,
    errno.EROFS: "mount it writable and run the same command again; nothing is lost",
    errno.EACCES: "run nura as the user who owns the state file and its folder",
    errno.EPERM: "run nura as the user who owns the state file and its folder",
    errno.ENOENT: "make the folder, or set state: (or --state) to one that exists",
    errno.ELOOP: "it is a link, and nura writes through none: remove it, and run the same command again",
    errno.EIO: "check the disk; the same command goes on where this one stopped",
}


def trouble(error: OSError, path: Path | str | None = None) -> StateError | None:
    """Return an ``OSError`` in words, with the next step to take; None where it is about a connection.

    Args:
        path: the file it is about, where the error itself names none.
    """
    if error.errno is None or isinstance(error, ConnectionError | TimeoutError):
        return None
    name = error.filename or path
    what = error.strerror or str(error)
    hint = _HINTS.get(error.errno, "run the same command again once that is mended; nothing is lost")
    return StateError(f"{os.fsdecode(name)}: {what}" if name else what, hint=hint)


@contextmanager
def on_disk(path: Path | str) -> Iterator[None]:
    """Turn an ``OSError`` inside the block into a :class:`StateError` about ``path``: calls on an open file name none."""
    try:
        yield
    except OSError as error:
        if explanation := trouble(error, path):
            raise explanation from error
        raise


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last: fsync the folder itself."""
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def owner_of(path: Path) -> str:
    """Return the name of the user who owns a file; ``#1000`` where the system has none for the number."""
    uid = path.lstat().st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def refuse_link(path: Path) -> None:
    """Refuse a link where a file or folder of nura's own belongs: it would write into, or empty, whatever it points to.

    Raises:
        StateError: it is one.
    """
    if path.is_symlink():
        raise trouble(OSError(errno.ELOOP, "is a link", str(path))) or AssertionError


def publish(part: Path, target: Path) -> None:
    """Give a written file its lasting name: fsync it, rename it, fsync the folder."""
    _sync(part, os.O_RDONLY)
    part.replace(target)
    sync_folder(target.parent)


@contextmanager
def part_of(target: Path) -> Iterator[Path]:
    """Give the block a file beside ``target`` to write and :func:`publish`; whatever it leaves of it is removed.

    A file that could not be written whole would only take the room that the next run needs.

    Raises:
        StateError: an ``OSError`` in the block; or a link stands in its place.
    """
    part = target.with_name(target.name + ".part")
    refuse_link(part)
    try:
        with on_disk(part):
            yield part
    finally:
        part.unlink(missing_ok=True)


def _sync(path: Path, flags: int) -> None:
    with on_disk(path):
        fd = os.open(path, flags)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
