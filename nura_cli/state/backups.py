"""Backups: copies of the state file and of results in the spool, in a folder of their own that is whole or not there.

The folder is named by the state file and the time, and is written as ``.part``; who writes it holds a lock on it, so that what
a killed run left is known, and removed by the next one. No folder that has its name is touched again.
"""

import contextlib
import errno
import fcntl
import os
import re
import resource
import shutil
import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from nura_cli.errors import StateCorrupt, StateError
from nura_cli.state import actions, disk, snapshots
from nura_cli.state.connection import Connection
from nura_cli.state.file import State, explained

_NAME = r"\.\d{8}T\d{6}Z(-\d+)?"
"""How the name of a backup goes on after the state file's."""
_SPARED = 16_000_000
"""Bytes that stay free on the disk: others write there, too."""
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


@contextmanager
def made(folder: Path, name: str, at: int) -> Iterator[Path]:
    """Give the block a new folder (0700) to write a backup into; at the block's end it is synced, and gets its lasting name. Where
    the block raises, nothing is left of it.

    Args:
        folder: where backups are kept; it is made where it is not there, in a folder that is.
        name: the state file's.
        at: the time that it is named by, unix seconds.

    Yields:
        The folder under its name for the time being; :func:`lasting` gives the other one.

    Raises:
        StateError: it cannot be written.
    """
    with disk.on_disk(folder):
        if not folder.is_dir():
            folder.mkdir(mode=0o700)
            disk.sync_folder(folder.parent)
        _sweep(folder, name)
        part, lock = _begun(folder, f"{name}.{datetime.fromtimestamp(at, UTC):%Y%m%dT%H%M%SZ}")
    try:
        yield part
        for place, _, _ in os.walk(part):
            disk.sync_folder(Path(place))
        with disk.on_disk(part):
            part.rename(lasting(part))
        disk.sync_folder(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)  # once renamed, it is not there
        os.close(lock)


def lasting(part: Path) -> Path:
    """Return the name that a folder which is being written gets in the end."""
    return part.with_suffix("")


def _begun(folder: Path, name: str) -> tuple[Path, int]:
    """Make and lock a folder that nobody else writes to; return it, and the descriptor that holds its lock."""
    n = 1
    while True:
        part = folder / f"{name}{f'-{n}' if n > 1 else ''}.part"
        try:
            part.mkdir(mode=0o700)
        except FileExistsError:
            n += 1
            continue
        lock = _locked(part, wait=True)
        if lock is not None and not lasting(part).exists():
            return part, lock
        if lock is not None:  # another run of this second has ended meanwhile
            part.rmdir()
            os.close(lock)
            n += 1


def _locked(part: Path, *, wait: bool) -> int | None:
    """Lock a folder that is being written; return the descriptor that holds the lock, None where another run has it, or it has
    gone. Where folders cannot be locked, it is held without one.
    """
    try:
        fd = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if not wait:  # somebody is at it, or nobody can tell
            os.close(fd)
            return None
        if error.errno not in (errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP):
            os.close(fd)
            raise
    if os.fstat(fd).st_nlink and part.exists():
        return fd
    os.close(fd)
    return None


def _sweep(folder: Path, name: str) -> None:
    """Remove what runs that were killed left half written."""
    for part in folder.glob("*.part"):
        if re.fullmatch(rf"{re.escape(name)}{_NAME}\.part", part.name) and part.is_dir() and not part.is_symlink():
            lock = _locked(part, wait=False)
            if lock is not None:
                shutil.rmtree(part, ignore_errors=True)
                os.close(lock)


@contextmanager
def one_moment(state: State) -> Iterator[Connection]:
    """Have the block see the state file as it is at one moment, however others write meanwhile. Nothing can be written in it, and
    the WAL grows by what others write: it is to be short, but for a copy of the file.
    """
    with explained(state.path):
        state.db.execute("BEGIN")
        try:
            state.db.execute("SELECT count(*) FROM meta").fetchone()  # with the first look it begins
            yield state.db
        finally:
            state.db.execute("ROLLBACK")


def size(db: Connection) -> int:
    """Return the size of the state file, in bytes."""
    pages, page_size = (int(db.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "page_size"))
    return pages * page_size


def check_room(folder: Path, needed: int) -> None:
    """See that a folder has room for so many bytes, and that some is left to others.

    Raises:
        StateError: it has not; nothing has been written.
    """
    with disk.on_disk(folder):
        found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if found.f_blocks and free < needed + _SPARED:  # some file systems do not tell
        raise StateError(
            f"{folder}: a backup takes {needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free", hint=disk.NO_ROOM
        )


def copy(db: Connection, source: Path, target: Path, told: Callable[[int], None]) -> None:
    """Copy the state file, 0600; see :func:`snapshots.copy`.

    Args:
        db: a connection to it, in :func:`one_moment`.
        told: hears now and then how many bytes are done.

    Raises:
        StateError: there is no room for it, or a disk fails. StateCorrupt: the state file is damaged.
    """
    page_size = int(db.execute("PRAGMA page_size").fetchone()[0])
    with _blamed(source, target):
        snapshots.copy(db, target, lambda done: told(done * page_size))


@contextmanager
def _blamed(source: Path, target: Path) -> Iterator[None]:
    """Put what goes wrong with a copy into words: it is about the copy, but that what is copied is damaged."""
    with explained(target):
        try:
            yield
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGE:
                raise
            with explained(source):
                raise


def finish(target: Path, source: Path, held: Collection[str], why: str, at: int) -> None:
    """Make a copy of the state file one that can be restored: hold providers in it, see that it is sound, and sync it.

    It needs no file beside it: it leaves WAL until it is opened as a state file again.

    Args:
        held: the providers to hold.
        why: the reason for that, in words.
        at: the moment that it shows, unix seconds.

    Raises:
        StateCorrupt: it is not sound, and so is the state file not. StateError: the disk is full, or fails.
    """
    with _blamed(source, target), closing(snapshots.alone(target)) as db:
        db.clock = lambda: at
        db.execute("PRAGMA locking_mode = exclusive")  # else a file of shared memory would be made beside it
        db.execute("PRAGMA journal_mode = delete")
        db.execute("PRAGMA synchronous = full")
        db.execute("BEGIN IMMEDIATE")
        for name in held:
            actions.hold(db, actions.Hold("provider", name, why, at, None, "", None))
        actions.note(db, "backup", _noted(held), len(held), by_itself=True)
        db.execute("COMMIT")
        _check(db, source)


def _noted(held: Collection[str]) -> str:
    return "this copy was made" + (f"; held in it: {', '.join(sorted(held))}" if held else "")


def _check(db: Connection, source: Path) -> None:
    found = [str(row[0]) for row in db.execute("PRAGMA quick_check(3)")]
    if found != ["ok"]:
        said = "; ".join(" ".join(line.split()) for line in found)
        raise StateCorrupt(
            f"{source}: is damaged ({said}): no backup was made of it",
            hint=f"check the disk; keep the backups that there are, and restore one, or try: sqlite3 {source} .recover",
        )


def providers(db: Connection) -> list[str]:
    """Return the providers to which anything was ever sent."""
    return [row[0] for row in db.execute("SELECT DISTINCT provider FROM batches ORDER BY provider")]


def spool_of(path: Path, name: str = "") -> Path:
    """Return a state file's spool, or a folder of it, whether it is there or not. Raises StateError: a link stands in its place."""
    spool = path.with_name(f"{path.name}.spool")
    for folder in (spool, spool / name):
        disk.refuse_link(folder)
    return spool / name


def spool_made(path: Path, name: str) -> Path:
    """Make a folder of the spool of a copy (0700), and return it."""
    folder = spool_of(path, name)
    with disk.on_disk(folder):
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700)
    return folder


def kept_aside(path: Path) -> list[Path]:
    """Return the files that lie aside in a state file's spool, whole."""
    folder = spool_of(path, "aside")
    with disk.on_disk(folder):
        listed = sorted(folder.iterdir()) if folder.is_dir() else []
        return [one for one in listed if one.suffix != ".part" and one.is_file() and not one.is_symlink()]


@contextmanager
def opened(paths: Collection[Path]) -> Iterator[dict[Path, BinaryIO]]:
    """Open files for the block, all at once: what is deleted meanwhile can be read all the same.

    Yields:
        The file of each path; those that are not there are left out.

    Raises:
        StateError: one of them may not be read, or the system opens no more.
    """
    _allow(len(paths))
    with contextlib.ExitStack() as stack:
        found: dict[Path, BinaryIO] = {}
        for path in paths:
            with disk.on_disk(path), contextlib.suppress(FileNotFoundError):
                disk.refuse_link(path)
                found[path] = stack.enter_context(path.open("rb"))
        yield found


def _allow(n: int) -> None:
    """Have the system open n more files than usual for this process, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = n + _OTHER_FILES if hard == resource.RLIM_INFINITY else min(n + _OTHER_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


_OTHER_FILES = 64
