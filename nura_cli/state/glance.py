"""A quick look at the state file, for a shell that completes: it changes nothing, waits for nobody, and may find nothing."""

import contextlib
import sqlite3
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

_NEWEST = 50
"""Batches that are looked at: those that a person may mean."""
_PATIENCE_SECONDS = 0.2


class Glimpse(NamedTuple):
    """A batch, as far as a shell shows it."""

    id: int
    workload: str
    status: str


def address(path: Path) -> str:
    """Return the URI under which SQLite reads a state file without writing.

    Where nobody has it open, it is read as it lies there: no file is made beside it, which might be root's then.
    """
    used = path.with_name(f"{path.name}-wal").exists()
    return f"file:{quote(str(path.absolute()))}?{'mode=ro' if used else 'immutable=1'}"


def batches(path: Path) -> list[Glimpse]:
    """Return the newest batches of a state file, the newest first; none where it cannot be read now."""
    query = "SELECT id, workload, status FROM batches ORDER BY id DESC LIMIT ?"
    with contextlib.suppress(sqlite3.Error, OSError):
        if path.is_file():
            with contextlib.closing(sqlite3.connect(address(path), uri=True, timeout=_PATIENCE_SECONDS)) as db:
                return [Glimpse(*row) for row in db.execute(query, (_NEWEST,))]
    return []
