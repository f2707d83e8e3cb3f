"""A look at the state file as it lies there, for ``nura check``: it makes nothing, migrates nothing, and changes nothing."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from nura_cli.state import glance, schema
from nura_cli.state.file import (
    allows_this,
    explained,
    foreign_if_new,
    lock_path,
    newer_than_this,
    refuse_others_database,
    refuse_unusable,
)
from nura_cli.state.locks import Holder, at_work

STAGES = ("dispatch", "poll", "reconcile")
_PATIENCE_SECONDS = 2.0


class Look(NamedTuple):
    """What a state file tells: its version, and the latest time at which something began in it (unix seconds)."""

    version: int
    latest: int


def look(path: Path) -> Look | None:
    """Look at a state file; None where there is none yet.

    Raises:
        StateError, StateCorrupt, StateForeign, StateNewer: it cannot be used; as :class:`~nura_cli.state.State` has them.
    """
    path = Path(os.path.realpath(path))
    with explained(path):
        refuse_unusable(path)
        if not path.exists() or not path.stat().st_size:
            return None
        with closing(sqlite3.connect(glance.address(path), uri=True, timeout=_PATIENCE_SECONDS)) as db:
            with foreign_if_new(path):
                refuse_others_database(db, path)
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            if version > schema.VERSION:
                raise newer_than_this(path, version, allows_this(db))
            return Look(version, _latest(db) if version else 0)


def _latest(db: sqlite3.Connection) -> int:
    """Return when the newest batch was made, or a stage last began, whichever is later; 0 where nothing was done yet."""
    batch = db.execute("SELECT created_at FROM batches ORDER BY id DESC LIMIT 1").fetchone()
    run = db.execute("SELECT max(started_at) FROM runs").fetchone()
    return max((batch or (0,))[0] or 0, run[0] or 0)


def holders(path: Path) -> dict[str, Holder]:
    """Return the stages that are at work on a state file now, each with who holds its lock; no lock is taken to find out."""
    path = Path(os.path.realpath(path))
    found = {}
    for stage in STAGES:
        with explained(path):
            file = lock_path(path, stage)
            words = file.read_bytes()[:64].split() if file.is_file() else []
        if len(words) == 2 and all(word.isdigit() for word in words):
            holder = Holder(int(words[0]), int(words[1]))
            if at_work(*holder):
                found[stage] = holder
    return found
