"""Files on the disk: named and synced so that a power cut loses none, and the disk's failures put into words."""

import errno
import os
import pwd
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from nura_cli.errors import StateError

NO_ROOM = "free some room and run the same command again; nothing is lost"
_HINTS = {
    errno.ENOSPC: NO_ROOM,
    errno.EDQUOT: NO_ROOM,
    errno.EROFS: "mount it writable and run the same command again; nothing is lost",
    errno.EACCES: "run nura as the user who owns the state file and its folder",
    errno.EPERM: "run nura as the user who owns the state file and its folder",
    errno.ENOENT: "make the folder, or set state: (or --state) to one that exists",
    errno.ELOOP: "nura writes through no link: remove it, and run the same command again",
    errno.EEXIST: "it stands where nura keeps a file or folder of its own: move it away, and run the same command again",
    errno.EISDIR: "it stands where nura keeps a file of its own: move it away, and run the same command again",
    errno.EIO: "check the disk; the same command goes on where this one stopped",
}


def problem(error: OSError, path: Path | str | None = None) -> StateError | None:
    """Return an ``OSError`` in words, with the next step to take; None where it is about a connection.

    Args:
        path: the file it is about, where the error itself names none.
    """
    if error.errno is None or isinstance(error, ConnectionError | TimeoutError):
        return None
    name = error.filename or path
    what = error.strerror or str(error)
    hint = _HINTS.get(error.errno, "run the same command again once that is mended; nothing is lost")
    if name and error.errno in (errno.EACCES, errno.EPERM):
        hint = _owners_hint(Path(os.fsdecode(name))) or hint
    return StateError(f"{os.fsdecode(name)}: {what}" if name else what, hint=hint)


@contextmanager
def on_disk(path: Path | str) -> Iterator[None]:
    """Turn an ``OSError`` inside the block into a :class:`StateError` about ``path``: calls on an open file name none."""
    try:
        yield
    except OSError as error:
        if explanation := problem(error, path):
            raise explanation from error
        raise


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last: fsync the folder itself."""
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _owners_hint(path: Path) -> str | None:
    """Return what to type where a file, or the folder that it would be made in, belongs to somebody else; else None."""
    there = next((place for place in (path.absolute(), *path.absolute().parents) if os.path.lexists(place)), path)
    uid = owner_id(there)
    if uid is None or uid == os.geteuid():
        return None
    me = shlex.quote(user(os.geteuid()).removeprefix("#"))
    return (
        f"{there} belongs to {user(uid)}: where the state file is yours, type: sudo chown {me} {shlex.quote(str(there))};"
        " else run nura as the user who owns it"
    )


def owner_id(path: Path) -> int | None:
    """Return who owns a file, by number; None where it has gone meanwhile, or may not be looked at."""
    try:
        return path.lstat().st_uid
    except OSError:
        return None


def owner_of(path: Path) -> str:
    """Return the name of the user who owns a file, as :func:`user` gives it."""
    return user(path.lstat().st_uid)


def user(uid: int) -> str:
    """Return a user's name; ``#1000`` where the system has none for the number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def refuse_link(path: Path) -> None:
    """Refuse a link where a file or folder of nura's own belongs: it would write into, or empty, whatever it points to.

    A hard link is one, too: the file would be written to under its other name. Nothing there is no link.

    Raises:
        StateError: it is one.
    """
    try:
        found = path.lstat()
    except OSError:
        return
    if stat.S_ISLNK(found.st_mode):
        _refuse(errno.ELOOP, "is a link", path)
    if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
        _refuse(errno.ELOOP, "has a second name (a hard link)", path)


def refuse_other_kind(path: Path) -> None:
    """Refuse a link, a pipe, a device or a folder where a file of nura's own belongs.

    Raises:
        StateError: it is one.
    """
    refuse_link(path)
    if path.exists() and not path.is_file():
        _refuse(errno.EEXIST, "is no plain file", path)


def _refuse(code: int, what: str, path: Path) -> NoReturn:
    raise StateError(f"{path}: {what}", hint=_HINTS[code])


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
