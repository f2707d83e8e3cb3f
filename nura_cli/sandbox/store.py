"""What the sandbox remembers: an SQLite file, and a folder of bodies beside it.

Nothing that matters is kept in memory: several processes may serve the same file, one after the other or at once.
"""

import errno
import fcntl
import hashlib
import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from nura_cli.sandbox import faults, quotas
from nura_cli.sandbox.faults import Fault

_VERSION = 2
_SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE files (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, account TEXT NOT NULL, filename TEXT NOT NULL,
    purpose TEXT NOT NULL, bytes INTEGER NOT NULL, created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL);
CREATE INDEX files_of ON files (account, seq);
CREATE TABLE batches (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, account TEXT NOT NULL, protocol TEXT NOT NULL,
    created_at INTEGER NOT NULL, status TEXT NOT NULL, endpoint TEXT, model TEXT, input_file_id TEXT, metadata TEXT,
    total INTEGER NOT NULL DEFAULT 0, tokens INTEGER NOT NULL DEFAULT 0, told TEXT NOT NULL DEFAULT '{}',
    faults TEXT, cancel_at INTEGER, ended_at INTEGER);
CREATE INDEX batches_of ON batches (account, protocol, seq);
CREATE INDEX batches_open ON batches (account, protocol, seq) WHERE ended_at IS NULL;
CREATE TABLE billed (
    account TEXT NOT NULL, batch TEXT NOT NULL, custom_id TEXT NOT NULL, digest BLOB NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL);
CREATE INDEX billed_batch ON billed (batch);
CREATE TABLE creates (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, protocol TEXT NOT NULL, batch TEXT);
CREATE TABLE faults (
    id INTEGER PRIMARY KEY AUTOINCREMENT, spec TEXT NOT NULL, left INTEGER NOT NULL, seen INTEGER NOT NULL DEFAULT 0);
CREATE TABLE log (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, method TEXT NOT NULL, path TEXT NOT NULL,
    route TEXT NOT NULL, fault TEXT, status INTEGER, outcome TEXT NOT NULL DEFAULT 'open');
"""
_ADDED = """
CREATE TABLE IF NOT EXISTS uploads (
    id TEXT PRIMARY KEY, account TEXT NOT NULL, filename TEXT NOT NULL, purpose TEXT NOT NULL, bytes INTEGER NOT NULL,
    lasts INTEGER NOT NULL, created_at INTEGER NOT NULL, status TEXT NOT NULL DEFAULT 'pending') WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parts (id TEXT PRIMARY KEY, upload TEXT NOT NULL, created_at INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS parts_of ON parts (upload);
CREATE TABLE IF NOT EXISTS spent (
    account TEXT NOT NULL, batch TEXT NOT NULL, model TEXT NOT NULL, day TEXT NOT NULL, requests INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, cost REAL NOT NULL);
"""
"""What a file of this version may lack, if an older sandbox made it: it is added when the file is opened."""
_LOG_ROWS = 20_000
_REMEMBERED = "NOT EXISTS (SELECT 1 FROM json_each(?) WHERE batches.id GLOB json_each.value)"
_WHOSE = "(account = ? OR ?)"
_SUMS = ("requests", "input_tokens", "output_tokens", "cost")
_SHORT = ""
"""The account of the short forms of files: nobody's."""


@dataclass(frozen=True)
class Settings:
    """How the sandbox behaves. Kept in its file, so that every process that serves it behaves alike.

    Attributes:
        delay: seconds until a batch has ended; 0 for as soon as somebody asks after it. Past 24 h a batch expires with the
            part of its requests answered that the delay allows.
        cancel_delay: seconds until a cancelled batch has ended; 0 for at once. What is answered by then, by its share of
            ``delay``, is kept and billed.
        release_delay: seconds for which a batch still counts in its queue after it has ended.
        accept_keys: the only keys that are not refused; empty accepts any.
        models: the only models there are; empty accepts any but those whose name begins with ``no-such``.
        queues: what may wait in an account's batches that have not ended, by model; ``*`` has what a model does not say.
            ``tokens`` and ``requests`` are caps (None for none); ``others_tokens`` and ``others_requests`` are somebody
            else's, in the same queue. OpenAI has a queue per model and looks at it when it checks the batch's file: the
            batches of the account that were created before it and had not ended then have their input tokens in it, as they
            are billed. Anthropic has one queue of all models, which is that of ``*``, counts requests alone, and looks at it
            when a batch is created. Keys of one organization (the quirk) share their queues.
        prices: US dollars per million tokens, ``input`` and ``output``, by model (``*`` as above): those of the price list; a
            batch costs half. What has no price costs nothing.
        spend_limit: once an account's bill comes to so many US dollars, nothing more is answered, until it is raised; None for
            no limit.
        seed: of the order in which results come.
    """

    delay: int = 0
    cancel_delay: int = 0
    release_delay: int = 0
    accept_keys: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    queues: quotas.Numbers = field(default_factory=dict)
    prices: quotas.Numbers = field(default_factory=dict)
    spend_limit: float | None = None
    seed: int = 0


_NUMBERS = {"queues": quotas.QUEUE, "prices": quotas.PRICE}
"""The settings that are numbers by model, and the names of theirs."""


class Store:
    """One sandbox's memory. Safe to use from several threads and several processes."""

    def __init__(self, path: Path) -> None:
        """Open the file at ``path``, making it (0600) and its folder ``<path>.d`` (0700) where they are missing.

        Raises:
            OSError: it cannot be opened, is no sandbox's file, or is one of another version.
        """
        self.path = path
        self.folder = path.with_name(path.name + ".d")
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._local = threading.local()
        self._open: set[sqlite3.Connection] = set()
        try:
            with self._locked("open"):
                self._prepare()
        except sqlite3.DatabaseError as error:
            self.close()
            raise OSError(errno.EINVAL, f"is no sandbox's file ({error})", str(path)) from error
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        if not self.path.exists():
            os.close(os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o600))
        version = self.db.execute("PRAGMA user_version").fetchone()[0]
        if version == _VERSION:
            self._add()
            return
        if version or self.db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
            raise OSError(
                errno.EINVAL, "is no sandbox's file, or one of another version; name another file", str(self.path)
            )
        self.db.execute("PRAGMA journal_mode = wal")
        self.db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} {_ADDED} PRAGMA user_version = {_VERSION}; COMMIT;")

    def _add(self) -> None:
        there = self.db.execute("SELECT count(*) FROM sqlite_master WHERE name IN ('uploads', 'spent')").fetchone()[0]
        if there < 2:
            self.db.executescript(f"BEGIN IMMEDIATE; {_ADDED} COMMIT;")

    @property
    def db(self) -> sqlite3.Connection:
        """This thread's connection, in autocommit mode."""
        db = getattr(self._local, "db", None)
        if db is None:
            db = sqlite3.connect(self.path, isolation_level=None, timeout=60, check_same_thread=False)
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA synchronous = normal")
            self._local.db = db
            self._open.add(db)
        found: sqlite3.Connection = db
        return found

    def release(self) -> None:
        """Close this thread's connection."""
        db = getattr(self._local, "db", None)
        if db is not None:
            self._open.discard(db)
            db.close()
            self._local.db = None

    def close(self) -> None:
        """Close every connection."""
        while self._open:
            self._open.pop().close()
        self._local = threading.local()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the write lock for the block."""
        db = self.db
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        fd = os.open(self.folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    @contextmanager
    def work(self) -> Iterator[None]:
        """Be the only thread of any process that works on batches. The lock goes with the process that holds it."""
        with self._locked("work"):
            yield

    # The key that is heard

    def hear(self, key: str) -> None:
        """Remember, in this thread alone, the key that came with the request it answers."""
        self._local.key = key

    def echo(self) -> str:
        """Return the key that error messages tell now: none, but for the quirk ``echo_key``."""
        return str(getattr(self._local, "key", "")) if "echo_key" in self.quirks() else ""

    # Settings, and the clock

    def settings(self) -> Settings:
        """Return the settings."""
        rows = dict(self.db.execute("SELECT name, value FROM settings"))
        known: dict[str, Any] = {one.name: json.loads(rows[one.name]) for one in fields(Settings) if one.name in rows}
        if "models" in known:
            known["models"] = tuple(known["models"])
        return replace(Settings(), **known)

    def configure(self, changes: Settings | dict[str, Any]) -> None:
        """Change settings: all of them, or those named. Keys are kept as hashes. Raises ValueError for what makes no sense."""
        given = asdict(changes) if isinstance(changes, Settings) else dict(changes)
        unknown = sorted(given.keys() - asdict(Settings()).keys())
        if unknown:
            raise ValueError(f"unknown setting {unknown[0]}")
        for name in given.keys() & _NUMBERS.keys():
            quotas.check(name, given[name], _NUMBERS[name])
        if "accept_keys" in given:
            given["accept_accounts"] = [account_of(key) for key in given.pop("accept_keys")]
        rows = [(name, json.dumps(value)) for name, value in given.items()]
        self.db.executemany("INSERT OR REPLACE INTO settings VALUES (?, ?)", rows)

    def change_queue(self, model: str, numbers: Mapping[str, Any]) -> None:
        """Change some of the numbers of a model's queue. Raises ValueError for what makes no sense."""
        with self.transaction():
            queues = self.settings().queues
            self.configure({"queues": {**queues, model: {**queues.get(model, {}), **numbers}}})

    def _value(self, name: str, default: Any) -> Any:
        row = self.db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else default

    def accepts(self, account: str) -> bool:
        """Return whether an account's key is not refused."""
        accepted = self._value("accept_accounts", [])
        return not accepted or account in accepted

    def now(self) -> int:
        """Return the sandbox's own clock, unix seconds."""
        return int(time.time() + self._value("offset", 0))

    def advance(self, seconds: float) -> int:
        """Move the clock, either way; return what it shows then."""
        with self.transaction() as db:
            offset = self._value("offset", 0) + seconds
            db.execute("INSERT OR REPLACE INTO settings VALUES ('offset', ?)", (json.dumps(offset),))
        return self.now()

    def releases(self) -> int:
        """Return how often held requests have been let go."""
        return int(self._value("releases", 0))

    def let_go(self) -> None:
        """Let go of every request that a ``hold`` fault holds, in every process."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO settings VALUES ('releases', ?)", (json.dumps(self.releases() + 1),))

    # Files

    def body(self, file_id: str) -> Path:
        """Return where the bytes of a file lie."""
        return self.folder / file_id

    def add_file(
        self, account: str, file_id: str, filename: str, purpose: str, part: Path, lasts: int, at: int | None = None
    ) -> dict[str, Any]:
        """Keep a received or written body as a file for so many seconds; return its row. Sweeps what has expired."""
        size, now = part.stat().st_size, self.now()
        created = now if at is None else at
        part.replace(self.body(file_id))
        with self.transaction() as db:
            gone = db.execute("DELETE FROM files WHERE expires_at <= ? RETURNING id", (now,)).fetchall()
            db.execute(
                "INSERT OR REPLACE INTO files (id, account, filename, purpose, bytes, created_at, expires_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (file_id, account, filename, purpose, size, created, created + lasts),
            )
        for row in gone:
            self.discard(row["id"])
        return dict(self.db.execute("SELECT * FROM files WHERE id = ?", (file_id,)).fetchone())

    def add_short(self, file_id: str, part: Path, until: int, at: int) -> None:
        """Keep the short form of a file, which is served in the file's place from ``at`` until then (unix seconds)."""
        self.add_file(_SHORT, f"{file_id}.short", "", "", part, until - at, at)

    def served(self, file_id: str) -> Path:
        """Return where the bytes lie that a file is served with now."""
        short = f"{file_id}.short"
        return self.body(short if self.file(_SHORT, short) else file_id)

    def file(self, account: str, file_id: str) -> dict[str, Any] | None:
        """Return a file that is still kept, or None."""
        row = self.db.execute(
            "SELECT * FROM files WHERE id = ? AND account = ? AND expires_at > ?", (file_id, account, self.now())
        ).fetchone()
        return dict(row) if row else None

    def files(
        self, account: str, purpose: str | None, after: str | None, limit: int, *, ascending: bool
    ) -> list[dict[str, Any]]:
        """Return up to ``limit`` files that are still kept, after one."""
        cursor = self.db.execute("SELECT seq FROM files WHERE id = ?", (after,)).fetchone()
        bound = cursor[0] if cursor else (0 if ascending else 2**62)
        compare, order = (">", "ASC") if ascending else ("<", "DESC")
        rows = self.db.execute(
            f"SELECT * FROM files WHERE account = ? AND seq {compare} ? AND expires_at > ?"  # noqa: S608 - constants
            f" AND (? IS NULL OR purpose = ?) ORDER BY seq {order} LIMIT ?",
            (account, bound, self.now(), purpose, purpose, limit),
        )
        return [dict(row) for row in rows]

    def drop_file(self, file_id: str) -> None:
        """Delete a file."""
        self.db.execute("DELETE FROM files WHERE id = ?", (file_id,))
        self.discard(file_id)

    def discard(self, file_id: str) -> None:
        """Remove the bytes of a deleted file, unless a batch under way still needs them."""
        open_one = "SELECT 1 FROM batches WHERE input_file_id = ? AND ended_at IS NULL"
        if not self.db.execute(open_one, (file_id,)).fetchone():
            self.body(file_id).unlink(missing_ok=True)

    # Uploads

    def add_upload(self, account: str, takes: int, **columns: Any) -> dict[str, Any]:
        """Add an upload; return it. Sweeps the parts of those that are older than ``takes`` seconds."""
        now = self.now()
        gone = self.db.execute(
            "DELETE FROM parts WHERE upload IN (SELECT id FROM uploads WHERE created_at <= ?) RETURNING id",
            (now - takes,),
        ).fetchall()
        for part in gone:
            self.body(part["id"]).unlink(missing_ok=True)
        values = {"id": "upload_" + secrets.token_hex(12), "account": account, "created_at": now, **columns}
        return dict(self._insert("uploads", values))

    def upload(self, account: str, upload_id: str) -> dict[str, Any] | None:
        """Return an upload, or None."""
        row = self.db.execute("SELECT * FROM uploads WHERE id = ? AND account = ?", (upload_id, account)).fetchone()
        return dict(row) if row else None

    def add_part(self, upload_id: str, part: Path) -> dict[str, Any]:
        """Keep a received body as a part of an upload; return its row."""
        part_id = "part_" + secrets.token_hex(12)
        part.replace(self.body(part_id))
        values = (part_id, upload_id, self.now())
        row = self.db.execute("INSERT INTO parts VALUES (?, ?, ?) RETURNING *", values).fetchone()
        return dict(row)

    def part_ids(self, upload_id: str) -> frozenset[str]:
        """Return the ids of an upload's parts."""
        rows = self.db.execute("SELECT id FROM parts WHERE upload = ?", (upload_id,))
        return frozenset(row["id"] for row in rows)

    def end_upload(self, upload_id: str, status: str) -> dict[str, Any]:
        """Give an upload its last status, and forget its parts; return it."""
        for part_id in self.part_ids(upload_id):
            self.body(part_id).unlink(missing_ok=True)
        self.db.execute("DELETE FROM parts WHERE upload = ?", (upload_id,))
        row = self.db.execute("UPDATE uploads SET status = ? WHERE id = ? RETURNING *", (status, upload_id)).fetchone()
        return dict(row)

    # Batches

    def batch(self, account: str, batch_id: str) -> dict[str, Any] | None:
        """Return a batch, or None."""
        row = self.db.execute(
            f"SELECT * FROM batches WHERE id = ? AND account = ? AND {_REMEMBERED}",  # noqa: S608 - constants
            (batch_id, account, self._forgotten()),
        ).fetchone()
        return _batch(row) if row else None

    def _forgotten(self) -> str:
        """Return the globs of the batches that are forgotten, as a JSON list."""
        return json.dumps([quirk.get("batch", "*") for quirk in self.standing() if quirk["what"] == "forgotten"])

    def oldest(self, batch_id: str) -> str:
        """Return the id of the oldest batch of the account and the protocol of a batch."""
        row = self.db.execute(
            "SELECT old.id FROM batches AS old JOIN batches AS new USING (account, protocol) WHERE new.id = ?"
            " ORDER BY old.seq LIMIT 1",
            (batch_id,),
        ).fetchone()
        return str(row[0])

    def page(
        self, account: str, protocol: str, limit: int, *, after: str | None = None, before: str | None = None
    ) -> list[dict[str, Any]]:
        """Return up to ``limit`` batches, newest first: those after one, or those right before one."""
        hidden = faults.of(self.standing(), "hide")
        youngest = self.now() - int(hidden.get("seconds", 10**9)) if hidden else 2**62
        where = f"account = ? AND protocol = ? AND created_at <= ? AND {_REMEMBERED}"
        values = (account, protocol, youngest, self._forgotten())
        if self.quirks() & {"oldest_first", "ties"}:
            return self._odd_page(where, values, limit, after)
        cursor = self.db.execute("SELECT seq FROM batches WHERE id = ?", (before or after,)).fetchone()
        compare, order = (">", "ASC") if before else ("<", "DESC")
        bound = cursor[0] if cursor else (0 if before else 2**62)
        rows = self.db.execute(
            f"SELECT * FROM batches WHERE {where} AND seq {compare} ? ORDER BY seq {order} LIMIT ?",  # noqa: S608 - constants
            (*values, bound, limit),
        )
        return [_batch(row) for row in rows]

    def _odd_page(self, where: str, values: tuple[Any, ...], limit: int, after: str | None) -> list[dict[str, Any]]:
        """Return a page of a list in another order than the vendors'."""
        order = "seq" if "oldest_first" in self.quirks() else "created_at DESC, seq"
        rows = self.db.execute(f"SELECT * FROM batches WHERE {where} ORDER BY {order}", values).fetchall()  # noqa: S608 - constants
        ids = [row["id"] for row in rows]
        start = ids.index(after) + 1 if after in ids else 0
        return [_batch(row) for row in rows[start : start + limit]]

    def add_batch(self, account: str, protocol: str, batch_id: str, **columns: Any) -> dict[str, Any]:
        """Add a batch; return it."""
        wide = {"metadata": json.dumps(columns.pop("metadata", None)), "told": json.dumps(columns.pop("told", {}))}
        values = {"created_at": self.now(), **columns, **wide, "account": account, "protocol": protocol, "id": batch_id}
        return _batch(self._insert("batches", values))

    def _insert(self, table: str, values: Mapping[str, Any]) -> sqlite3.Row:
        """Add a row to a table; return it."""
        names, holes = ", ".join(values), ", ".join("?" for _ in values)
        query = f"INSERT INTO {table} ({names}) VALUES ({holes}) RETURNING *"  # noqa: S608 - our own names
        row: sqlite3.Row = self.db.execute(query, list(values.values())).fetchone()
        return row

    def change(self, batch_id: str, **columns: Any) -> None:
        """Change columns of a batch."""
        if "told" in columns:
            columns["told"] = json.dumps(columns["told"])
        sets = ", ".join(f"{name} = ?" for name in columns)
        self.db.execute(f"UPDATE batches SET {sets} WHERE id = ?", [*columns.values(), batch_id])  # noqa: S608 - our own names

    def drop_batch(self, batch_id: str) -> None:
        """Delete a batch."""
        self.db.execute("DELETE FROM batches WHERE id = ?", (batch_id,))

    def due(self, account: str, protocol: str, delay: int, longest: int) -> list[str]:
        """Return the ids of an account's batches on which there is something to do now, oldest first."""
        now = self.now()
        oldest = now - min(delay, longest) if delay else 2**62
        rows = self.db.execute(
            "SELECT id FROM batches WHERE account = ? AND protocol = ? AND ended_at IS NULL"
            " AND (status = 'validating' OR cancel_at IS NOT NULL OR created_at <= ?) ORDER BY seq",
            (account, protocol, oldest),
        )
        return [row["id"] for row in rows]

    def organization(self, account: str) -> str:
        """Return the name of the organization that an account is of, as replies tell it."""
        return "org-one" if "one_organization" in self.quirks() else account

    def _whose(self, account: str) -> tuple[str, bool]:
        """Return the values for ``_WHOSE``: an account, and whether every other is of its organization."""
        return account, self.organization(account) != account

    def waiting(
        self, account: str, protocol: str, model: str | None = None, *, before: int = 2**62, since: float = 0
    ) -> list[dict[str, Any]]:
        """Return what is known of the batches that may be in an account's queue.

        Args:
            model: the only model, of batches that were checked; None for any.
            before: the seq of the first batch that came too late.
            since: unix seconds; what has ended until then has left the queue.
        """
        rows = self.db.execute(
            f"SELECT created_at, cancel_at, ended_at, total, tokens FROM batches WHERE {_WHOSE} AND protocol = ?"  # noqa: S608 - constants
            " AND (? IS NULL OR model = ?) AND seq < ? AND (ended_at IS NULL OR ended_at > ?)",
            (*self._whose(account), protocol, model, model, before, since),
        )
        return [dict(row) for row in rows]

    def unchecked(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the OpenAI batches of an account that were created before one and not checked yet, oldest first."""
        rows = self.db.execute(
            f"SELECT * FROM batches WHERE {_WHOSE} AND protocol = 'openai' AND model IS NULL AND ended_at IS NULL"  # noqa: S608 - constants
            " AND seq < ? ORDER BY seq",
            (*self._whose(batch["account"]), batch["seq"]),
        )
        return [_batch(row) for row in rows]

    # The bill

    def unbill(self, batch_id: str) -> None:
        """Forget what an interrupted work on a batch has billed: it begins again."""
        self.db.execute("DELETE FROM billed WHERE batch = ?", (batch_id,))
        self.db.execute("DELETE FROM spent WHERE batch = ?", (batch_id,))

    def bill(self, rows: Sequence[tuple[str, str, str, bytes, int, int]]) -> None:
        """Bill answered requests: (account, batch, custom_id, digest, input tokens, output tokens)."""
        with self.transaction() as db:
            db.executemany("INSERT INTO billed VALUES (?, ?, ?, ?, ?, ?)", rows)

    def bill_one(self, account: str, model: str, body: bytes, usage: tuple[int, int]) -> None:
        """Bill a request that was answered outside of a batch: its tokens (input, output), at list price."""
        self.bill([(account, "", "", digest(body), *usage)])
        cost = quotas.cost(self.settings().prices, model, usage, batch=False)
        self.spend([(account, "", model, quotas.day_of(self.now()), 1, *usage, cost)])

    def spend(self, rows: Iterable[tuple[str, str, str, str, int, int, int, float]]) -> None:
        """Add to what was spent: (account, batch, model, day, requests, input tokens, output tokens, US dollars)."""
        with self.transaction() as db:
            db.executemany("INSERT INTO spent VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def left(self, account: str) -> float:
        """Return how many US dollars an account may still spend: endless without a limit, and below 0 past it."""
        limit = self.settings().spend_limit
        if limit is None:
            return float("inf")
        row = self.db.execute(
            f"SELECT coalesce(sum(cost), 0) FROM spent WHERE {_WHOSE}",  # noqa: S608 - constants
            self._whose(account),
        ).fetchone()
        return limit - float(row[0])

    def arrived(self, protocol: str) -> int:
        """Count the arrival of a create; return its number."""
        at = self.now()
        row = self.db.execute(
            "INSERT INTO creates (at, protocol) VALUES (?, ?) RETURNING id", (at, protocol)
        ).fetchone()
        return int(row[0])

    def accepted(self, arrival: int, batch_id: str) -> None:
        """Note that a create made a batch."""
        self.db.execute("UPDATE creates SET batch = ? WHERE id = ?", (batch_id, arrival))

    def billing(self) -> dict[str, Any]:
        """Return what was billed: totals, creates, and what was billed more than once."""
        summed = (
            "SELECT count(*), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0), count(DISTINCT digest)"
            " FROM billed WHERE batch"
        )
        one, alone = (self.db.execute(f"{summed} {which} ''").fetchone() for which in ("<>", "="))
        creates = self.db.execute("SELECT count(*), count(batch) FROM creates").fetchone()
        cost, cost_alone = (self._spent(f"batch {which} ''")["cost"] for which in ("<>", "="))
        days = [row[0] for row in self.db.execute("SELECT DISTINCT day FROM spent ORDER BY day")]
        return {
            "requests": one[0],
            "distinct": one[3],
            "input_tokens": one[1],
            "output_tokens": one[2],
            "creates": creates[0],
            "accepted": creates[1],
            "cost": cost,
            "days": {day: self._spent("day = ?", day) for day in days},
            "synchronous": dict(zip(("requests", "input_tokens", "output_tokens"), alone, strict=False))
            | {"cost": cost_alone},
            "twice": {"custom_id": self._twice("custom_id"), "digest": self._twice("digest")},
        }

    def _spent(self, which: str, *values: str) -> dict[str, Any]:
        """Return the sum of some of what was spent."""
        sums = ", ".join(f"coalesce(sum({name}), 0) AS {name}" for name in _SUMS)
        row = self.db.execute(f"SELECT {sums} FROM spent WHERE {which}", values).fetchone()  # noqa: S608 - our own words
        return {**dict(row), "cost": round(row["cost"], 9)}

    def _twice(self, column: str) -> list[str]:
        rows = self.db.execute(
            f"SELECT {column} FROM billed WHERE batch <> '' GROUP BY account, {column} HAVING count(*) > 1 LIMIT 100"  # noqa: S608 - our own names
        )
        return [row[0].hex() if isinstance(row[0], bytes) else row[0] for row in rows]

    # Faults

    def arm(self, fault: Any) -> int:
        """Store a fault; return its number. Raises ValueError for one that is unknown."""
        spec = faults.check(fault)
        times = int(spec.get("times", -1 if spec["what"] in faults.QUIRKS else 1))
        row = self.db.execute(
            "INSERT INTO faults (spec, left) VALUES (?, ?) RETURNING id", (json.dumps(spec), times)
        ).fetchone()
        return int(row[0])

    def disarm(self, number: int | None = None) -> None:
        """Forget one fault, or every one."""
        self.db.execute("DELETE FROM faults WHERE ? IS NULL OR id = ?", (number, number))

    def armed(self) -> list[Fault]:
        """Return every fault, with ``id``, ``left`` (how often it will still strike) and ``seen`` (its occasions so far)."""
        rows = self.db.execute("SELECT * FROM faults ORDER BY id")
        return [{**json.loads(row["spec"]), "id": row["id"], "left": row["left"], "seen": row["seen"]} for row in rows]

    def strike(self, route: str, method: str, path: str) -> list[Fault]:
        """Return the faults that strike an exchange now, at most one beside its companions, and count them down."""

        def of_kinds(*kinds: str) -> Fault | None:
            return self._take(lambda fault: fault["what"] in kinds and faults.concerns(fault, route, method, path))

        companions = [of_kinds(kind) for kind in faults.COMPANIONS]
        other = of_kinds(*(faults.EXCHANGE - set(faults.COMPANIONS)))
        return [fault for fault in (*companions, other) if fault is not None]

    def deal(self, batch: dict[str, Any], body: Path, *, but: str = "") -> list[Fault]:
        """Return the faults a batch suffers, dealt out once and kept with it, so that work begun again meets the same ones.

        Args:
            but: a kind that struck before there was a batch, and is left out.
        """
        if batch["faults"] is not None:
            kept: list[Fault] = json.loads(batch["faults"])
            return kept

        def of_kind(kind: str) -> Callable[[Fault], bool]:
            return lambda fault: (
                fault["what"] == kind
                and fault.get("at") != "create"
                and fault.get("batch", batch["id"]) == batch["id"]
                and _matches(fault, body)
            )

        with self.transaction() as db:
            found = [self._pick(db, of_kind(kind)) for kind in sorted(faults.BATCH - {but})]
            dealt = [fault for fault in found if fault is not None]
            db.execute("UPDATE batches SET faults = ? WHERE id = ?", (json.dumps(dealt), batch["id"]))
        return dealt

    def refusal(self, body: Path, *, at: str | None = None) -> Fault | None:
        """Return the ``refuse`` fault that a create with this body suffers, and count it down.

        Args:
            at: only one that says so.
        """
        return self._take(
            lambda fault: (
                fault["what"] == "refuse"
                and at in (None, fault.get("at"))
                and "batch" not in fault
                and _matches(fault, body)
            )
        )

    def standing(self) -> list[Fault]:
        """Return the quirks that are switched on."""
        specs = [json.loads(row[0]) for row in self.db.execute("SELECT spec FROM faults WHERE left <> 0 ORDER BY id")]
        return [spec for spec in specs if spec["what"] in faults.QUIRKS]

    def quirks(self) -> frozenset[str]:
        """Return the names of the quirks that are switched on."""
        return frozenset(spec["what"] for spec in self.standing())

    def _take(self, wanted: Callable[[Fault], bool]) -> Fault | None:
        if not self.db.execute("SELECT 1 FROM faults LIMIT 1").fetchone():
            return None
        with self.transaction() as db:
            return self._pick(db, wanted)

    @staticmethod
    def _pick(db: sqlite3.Connection, wanted: Callable[[Fault], bool]) -> Fault | None:
        for row in db.execute("SELECT * FROM faults WHERE left <> 0 ORDER BY id").fetchall():
            spec: Fault = json.loads(row["spec"])
            if not wanted(spec):
                continue
            db.execute("UPDATE faults SET seen = seen + 1 WHERE id = ?", (row["id"],))
            if faults.failures_in_a_row(spec, row["seen"]):
                db.execute("UPDATE faults SET left = left - 1 WHERE id = ? AND left > 0", (row["id"],))
                return spec
        return None

    # The log

    def note(self, method: str, path: str, route: str, struck: Sequence[Fault]) -> int:
        """Log an exchange that begins; return its number. The log is bounded."""
        row = self.db.execute(
            "INSERT INTO log (at, method, path, route, fault) VALUES (?, ?, ?, ?, ?) RETURNING id",
            (self.now(), method, path, route, "+".join(fault["what"] for fault in struck) or None),
        ).fetchone()
        if row[0] % 100 == 0:
            self.db.execute("DELETE FROM log WHERE id <= ?", (row[0] - _LOG_ROWS,))
        return int(row[0])

    def outcome(self, exchange: int, outcome: str, status: int | None = None) -> None:
        """Log how an exchange goes: held, answered (with its status) or dropped."""
        self.db.execute("UPDATE log SET outcome = ?, status = ? WHERE id = ?", (outcome, status, exchange))

    def log(self, since: int = 0) -> list[dict[str, Any]]:
        """Return the exchanges after one, oldest first."""
        return [dict(row) for row in self.db.execute("SELECT * FROM log WHERE id > ? ORDER BY id", (since,))]


def _batch(row: sqlite3.Row) -> dict[str, Any]:
    batch = dict(row)
    batch["metadata"] = json.loads(batch["metadata"]) if batch["metadata"] else None
    batch["told"] = json.loads(batch["told"])
    return batch


def _matches(fault: Fault, body: Path) -> bool:
    """Return whether a fault is about a batch with this body: a ``refuse`` with a ``match`` is about those that hold it."""
    if fault["what"] != "refuse" or "match" not in fault:
        return True
    text, tail = str(fault["match"]).encode(), b""
    try:
        with body.open("rb") as file:
            while piece := file.read(1 << 20):
                if text in tail + piece:
                    return True
                tail = piece[-len(text) :]
    except FileNotFoundError:
        return False
    return False


def account_of(key: str) -> str:
    """Return the account of a key. Keys themselves are kept nowhere."""
    return "org-" + hashlib.sha256(b"nura sandbox account:" + key.encode()).hexdigest()[:20]


def digest(body: bytes) -> bytes:
    """Return the digest by which a request billed twice is recognised, whatever its custom_id."""
    return hashlib.sha256(body).digest()
