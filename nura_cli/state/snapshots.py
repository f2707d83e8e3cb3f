"""Snapshots: the state file as it was before a migration, beside it, so that the nura before can have it back.

One is made where there is room, by the process that migrates and under the lock of migrations. Killed half-way, that is done
again with the migration. A run of reconcile removes it after two weeks.
"""

import contextlib
import glob
import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from nura_cli.errors import StateError
from nura_cli.state import disk
from nura_cli.state.connection import Connection

KEPT_SECONDS = 14 * 86400
"""How long a snapshot is kept."""
NAME = r"\.version-(\d+)\.snapshot"
"""How the name of a snapshot goes on after the state file's: the version of its tables stands in it."""


class Snapshot(NamedTuple):
    """A snapshot that lies beside a state file: the version of its tables, its size, when it was made (unix seconds)."""

    path: Path
    version: int
    bytes: int
    made_at: int


def take(db: sqlite3.Connection, state: Path, version: int) -> str | None:
    """Make a snapshot of a state file as it is now, what is still in its WAL included: whole and 0600, or not at all.

    Args:
        db: a connection to it, outside of a transaction.
        state: the state file.
        version: of its tables, before the migration.

    Returns:
        Why there is none, in words, or None.
    """
    target = state.with_name(f"{state.name}.version-{version}.snapshot")
    try:
        with disk.part_of(target) as part:
            part.unlink(missing_ok=True)  # of one that was killed
            if not _fits(db, state.parent):
                return f"{target}: there is no room for it"
            copy(db, part)
            disk.publish(part, target)
    except StateError as error:
        return error.message
    except sqlite3.Error as error:
        return f"{target}: {error}"
    return None


def _fits(db: sqlite3.Connection, folder: Path) -> bool:
    """Return whether a folder has room for a copy, and for as much again: the migration needs some, and so do others."""
    pages, size = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    found = os.statvfs(folder)
    return bool(found.f_bavail * found.f_frsize >= 2 * pages * size)


def copy(db: sqlite3.Connection, part: Path, told: Callable[[int], None] = lambda done: None) -> None:
    """Copy a state file as one moment has it, what is still in its WAL included, into a new file, 0600; it is not synced.

    Nobody else knows the new file: it is locked by nobody, and may lie where no lock holds.

    Args:
        db: a connection to the state file; inside of a transaction it is copied as that sees it, however others write.
        told: hears now and then how many pages are done.

    Raises:
        sqlite3.Error: it cannot be read, or there is no room for the copy.
    """
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    with closing(alone(part)) as target:
        target.execute("PRAGMA journal_mode = off")  # it is whole when it gets its name, and synced then
        target.execute("PRAGMA synchronous = off")
        steps = _STEP_PAGES if db.in_transaction else -1  # outside of one, each commit meanwhile would begin it anew
        db.backup(target, pages=steps, progress=lambda status, left, total: told(total - left))


_STEP_PAGES = 512
"""Pages that are copied before it is looked whether the process is to stop."""


def alone(path: Path) -> Connection:
    """Open a copy that no other process knows of: without a lock, which a network file system may not have."""
    uri = f"{path.absolute().as_uri()}?vfs=unix-none"
    return sqlite3.connect(uri, uri=True, isolation_level=None, factory=Connection)


def found(state: Path) -> list[Snapshot]:
    """Return the snapshots beside a state file, those of the oldest version first."""
    snapshots = []
    for path in state.parent.glob(f"{glob.escape(state.name)}.version-*.snapshot"):
        named = re.fullmatch(NAME, path.name.removeprefix(state.name))
        if named and path.is_file() and not path.is_symlink():
            known = path.stat()
            snapshots.append(Snapshot(path, int(named[1]), known.st_size, int(known.st_mtime)))
    return sorted(snapshots, key=lambda one: one.version)


def sweep(state: Path, now: int) -> None:
    """Remove the snapshots that have been kept long enough at the unix second ``now``; one that cannot be removed stops nobody."""
    for snapshot in found(state):
        if now - snapshot.made_at >= KEPT_SECONDS:
            with contextlib.suppress(OSError):
                snapshot.path.unlink()
