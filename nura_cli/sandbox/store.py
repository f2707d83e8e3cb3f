"""What the sandbox remembers: an SQLite file, and a folder of bodies beside it."""

import fcntl
import hashlib
import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nura_cli.sandbox import faults

_SCHEMA = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS files (
    id TEXT PRIMARY KEY, seq INTEGER, account TEXT NOT NULL, filename TEXT NOT NULL, purpose TEXT NOT NULL,
    bytes INTEGER NOT NULL, created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS batches (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, account TEXT NOT NULL, protocol TEXT NOT NULL,
    created_at INTEGER NOT NULL, status TEXT NOT NULL, endpoint TEXT, input_file_id TEXT, metadata TEXT,
    total INTEGER NOT NULL DEFAULT 0, told TEXT NOT NULL DEFAULT '{}', cancel_at INTEGER, ended_at INTEGER);
CREATE INDEX IF NOT EXISTS batches_open ON batches (account, ended_at);
CREATE TABLE IF NOT EXISTS billed (
    account TEXT NOT NULL, batch TEXT NOT NULL, custom_id TEXT NOT NULL, digest BLOB NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS billed_digest ON billed (digest);
CREATE TABLE IF NOT EXISTS creates (account TEXT NOT NULL, at INTEGER NOT NULL, accepted INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS faults (id INTEGER PRIMARY KEY AUTOINCREMENT, spec TEXT NOT NULL, left INTEGER, skip INTEGER);
CREATE TABLE IF NOT EXISTS log (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER, method TEXT, path TEXT, route TEXT, status INTEGER, fault TEXT);
"""
_LOG_ROWS = 20_000


@dataclass(frozen=True)
class Settings:
    """How the sandbox behaves.

    Attributes:
        delay: seconds until a batch has ended; 0 for as soon as somebody asks after it.
        accept_keys: the only keys that are not refused; empty accepts any.
    """

    delay: int = 0
    accept_keys: tuple[str, ...] = ()


class Store:
    """One sandbox's memory. Safe to use from several threads and several processes."""

    def __init__(self, path: Path) -> None:
        """Open the file at ``path``, making it (0600) and its folder ``<path>.d`` (0700) where they are missing."""
        self.path = path
        self.folder = path.with_name(path.name + ".d")
        self.folder.mkdir(mode=0o700, exist_ok=True)
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        self.db.executescript(_SCHEMA)

    @property
    def db(self) -> sqlite3.Connection:
        """This thread's connection, in autocommit mode."""
        db = getattr(self._local, "db", None)
        if db is None:
            db = sqlite3.connect(self.path, isolation_level=None, timeout=60, check_same_thread=False)
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA journal_mode = wal")
            db.execute("PRAGMA synchronous = normal")
            self._local.db = db
            self._open.append(db)
        found: sqlite3.Connection = db
        return found

    def release(self) -> None:
        """Close this thread's connection: its request has been answered."""
        db = getattr(self._local, "db", None)
        if db is not None:
            self._open.remove(db)
            db.close()
            self._local.db = None

    def close(self) -> None:
        """Close every connection."""
        for db in self._open:
            db.close()
        self._open.clear()
        self._local = threading.local()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the write lock for the block."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield self.db
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    @contextmanager
    def work(self) -> Iterator[None]:
        """Be the only thread of any process that works on batches."""
        fd = os.open(self.folder / "work.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def setting(self, name: str, default: Any) -> Any:
        """Return a setting's value."""
        row = self.db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else default

    def set(self, **changes: Any) -> None:
        """Change settings."""
        rows = [(name, json.dumps(value)) for name, value in changes.items()]
        self.db.executemany("INSERT OR REPLACE INTO settings VALUES (?, ?)", rows)

    def now(self) -> int:
        """Return the sandbox's own clock, unix seconds."""
        return int(time.time()) + int(self.setting("offset", 0))

    def body(self, file_id: str) -> Path:
        """Return where the bytes of a file lie."""
        return self.folder / file_id

    def add_file(self, account: str, filename: str, purpose: str, part: Path, lasts: int) -> dict[str, Any]:
        """Keep a received or written body as a file; return its row."""
        file_id = "file-" + secrets.token_hex(12)
        size = part.stat().st_size
        part.replace(self.body(file_id))
        now = self.now()
        with self.transaction() as db:
            seq = db.execute("SELECT coalesce(max(seq), 0) + 1 FROM files").fetchone()[0]
            row = (file_id, seq, account, filename, purpose, size, now, now + lasts)
            db.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        return dict(self.db.execute("SELECT * FROM files WHERE id = ?", (file_id,)).fetchone())

    def file(self, account: str, file_id: str) -> dict[str, Any] | None:
        """Return a file that is still kept, or None."""
        row = self.db.execute(
            "SELECT * FROM files WHERE id = ? AND account = ? AND expires_at > ?", (file_id, account, self.now())
        ).fetchone()
        return dict(row) if row else None

    def drop_file(self, file_id: str) -> None:
        """Delete a file."""
        self.db.execute("DELETE FROM files WHERE id = ?", (file_id,))
        self.body(file_id).unlink(missing_ok=True)

    def batch(self, account: str, batch_id: str) -> dict[str, Any] | None:
        """Return a batch, or None."""
        row = self.db.execute("SELECT * FROM batches WHERE id = ? AND account = ?", (batch_id, account)).fetchone()
        return _batch(row) if row else None

    def page(self, account: str, protocol: str, after: str | None, limit: int) -> list[dict[str, Any]]:
        """Return up to ``limit`` batches, newest first, after one."""
        row = self.db.execute("SELECT seq FROM batches WHERE id = ?", (after,)).fetchone() if after else None
        before = row[0] if row else 2**62
        hidden = next((f for f in self.standing() if f["what"] == "hide"), None)
        youngest = self.now() - int(hidden.get("seconds", 10**9)) if hidden else 2**62
        rows = self.db.execute(
            "SELECT * FROM batches WHERE account = ? AND protocol = ? AND seq < ? AND created_at <= ?"
            " ORDER BY seq DESC LIMIT ?",
            (account, protocol, before, youngest, limit),
        )
        return [_batch(row) for row in rows]

    def add_batch(self, account: str, protocol: str, batch_id: str, **columns: Any) -> dict[str, Any]:
        """Add a batch."""
        metadata = json.dumps(columns.pop("metadata", None))
        values = {"account": account, "protocol": protocol, "id": batch_id, "created_at": self.now(), **columns}
        values["metadata"] = metadata
        names = ", ".join(values)
        holes = ", ".join("?" for _ in values)
        self.db.execute(f"INSERT INTO batches ({names}) VALUES ({holes})", list(values.values()))  # noqa: S608 - our own names
        found = self.batch(account, batch_id)
        if found is None:
            raise AssertionError("the batch that was just added is gone")
        return found

    def change(self, batch_id: str, **columns: Any) -> None:
        """Change columns of a batch."""
        if "told" in columns:
            columns["told"] = json.dumps(columns["told"])
        sets = ", ".join(f"{name} = ?" for name in columns)
        self.db.execute(f"UPDATE batches SET {sets} WHERE id = ?", [*columns.values(), batch_id])  # noqa: S608 - our own names

    def drop_batch(self, batch_id: str) -> None:
        """Delete a batch."""
        self.db.execute("DELETE FROM batches WHERE id = ?", (batch_id,))

    def due(self, account: str) -> list[dict[str, Any]]:
        """Return the batches of an account that have not ended, oldest first."""
        rows = self.db.execute("SELECT * FROM batches WHERE account = ? AND ended_at IS NULL ORDER BY seq", (account,))
        return [_batch(row) for row in rows]

    def bill(self, rows: Sequence[tuple[str, str, str, bytes, int, int]]) -> None:
        """Bill answered requests: (account, batch, custom_id, digest, input tokens, output tokens)."""
        with self.transaction() as db:
            db.executemany("INSERT INTO billed VALUES (?, ?, ?, ?, ?, ?)", rows)

    def billing(self) -> dict[str, Any]:
        """Return what was billed."""
        one = self.db.execute("SELECT count(*), sum(input_tokens), sum(output_tokens) FROM billed").fetchone()
        twice = {
            name: [
                row[0].hex() if isinstance(row[0], bytes) else row[0]
                for row in self.db.execute(f"SELECT {name} FROM billed GROUP BY {name} HAVING count(*) > 1 LIMIT 100")  # noqa: S608 - constants
            ]
            for name in ("custom_id", "digest")
        }
        creates = self.db.execute("SELECT count(*), coalesce(sum(accepted), 0) FROM creates").fetchone()
        return {
            "requests": one[0],
            "input_tokens": one[1] or 0,
            "output_tokens": one[2] or 0,
            "creates": creates[0],
            "accepted": creates[1],
            "twice": twice,
        }

    def arm(self, fault: dict[str, Any]) -> None:
        """Store a fault. Raises ValueError for an unknown kind."""
        if fault.get("what") not in faults.EXCHANGE | faults.BATCH | faults.QUIRKS:
            raise ValueError(f"unknown fault {fault.get('what')!r}")
        times, skip = fault.get("times", 1), fault.get("skip", 0)
        self.db.execute("INSERT INTO faults (spec, left, skip) VALUES (?, ?, ?)", (json.dumps(fault), times, skip))

    def disarm(self) -> None:
        """Forget every fault."""
        self.db.execute("DELETE FROM faults")

    def strike(self, route: str) -> dict[str, Any] | None:
        """Return the fault that strikes an exchange of this route now, and count it down."""
        return self._take(lambda fault: faults.concerns(fault, route))

    def afflictions(self) -> list[dict[str, Any]]:
        """Return the faults that a batch being worked on suffers, and count them down."""
        found = [self._take(partial(_is, what)) for what in sorted(faults.BATCH)]
        return [fault for fault in found if fault]

    def refusal(self, body: Path) -> dict[str, Any] | None:
        """Return the ``refuse`` fault that a batch with this body suffers at its create, and count it down."""

        def wanted(fault: dict[str, Any]) -> bool:
            return fault["what"] == "refuse" and ("match" not in fault or _holds(body, str(fault["match"]).encode()))

        return self._take(wanted)

    def standing(self) -> list[dict[str, Any]]:
        """Return the quirks that are switched on."""
        rows = self.db.execute("SELECT spec FROM faults").fetchall()
        return [spec for row in rows if (spec := json.loads(row[0]))["what"] in faults.QUIRKS]

    def quirk(self, what: str) -> bool:
        """Return whether a quirk is switched on."""
        return any(spec["what"] == what for spec in self.standing())

    def _take(self, wanted: Any) -> dict[str, Any] | None:
        if not self.db.execute("SELECT 1 FROM faults LIMIT 1").fetchone():
            return None
        with self.transaction() as db:
            for row in db.execute("SELECT * FROM faults WHERE left <> 0 ORDER BY id").fetchall():
                spec: dict[str, Any] = json.loads(row["spec"])
                if not wanted(spec):
                    continue
                if row["skip"] > 0:
                    db.execute("UPDATE faults SET skip = skip - 1 WHERE id = ?", (row["id"],))
                    continue
                db.execute("UPDATE faults SET left = left - 1 WHERE id = ? AND left > 0", (row["id"],))
                return spec
        return None

    def note(self, method: str, path: str, route: str, status: int | None, fault: str | None) -> None:
        """Log an exchange; the log is bounded."""
        self.db.execute(
            "INSERT INTO log (at, method, path, route, status, fault) VALUES (?, ?, ?, ?, ?, ?)",
            (self.now(), method, path, route, status, fault),
        )
        self.db.execute("DELETE FROM log WHERE id <= (SELECT max(id) FROM log) - ?", (_LOG_ROWS,))


def _batch(row: sqlite3.Row) -> dict[str, Any]:
    batch = dict(row)
    batch["metadata"] = json.loads(batch["metadata"]) if batch["metadata"] else None
    batch["told"] = json.loads(batch["told"])
    return batch


def _is(what: str, fault: dict[str, Any]) -> bool:
    return bool(fault["what"] == what)


def _holds(path: Path, text: bytes) -> bool:
    """Return whether a file holds a text."""
    with path.open("rb") as file:
        tail = b""
        while piece := file.read(1 << 20):
            if text in tail + piece:
                return True
            tail = piece[-len(text) :]
    return False


def digest(body: bytes) -> bytes:
    """Return the digest by which a request billed twice is recognised, whatever its custom_id."""
    return hashlib.sha256(body).digest()[:16]
