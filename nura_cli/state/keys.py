"""Keys: which task stands for each of them now.

A file of an earlier layout keeps them as text (``keys``). A newer one keeps a keyed hash of each (``hashes``), so that a key can be
forgotten and yet be known again; what was forgotten in an earlier file stands there, too. Readers look into both.

Hashes are random: in one large tree almost each new one would have a page of its own written. So they stand in levels, each much
larger than the one before. New ones go into the first; slice by slice, in the order of their hashes, they go on into the next,
where a slice touches few pages.

Equal hashes of different keys are told apart by the key that stands in the record.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

from nura_cli.state.connection import Connection
from nura_cli.state.schema import shut_out

HASH_BYTES = 16
"""How long the hash of a key is."""
LEVELS = (300_000,)
"""How many hashes the first levels hold before slices of them go on into the next; the last level holds the rest.

One such level fits in the connection's cache with room to spare. A larger one would have more pages that each chunk writes, a
smaller one fewer hashes for each page of the last: at ten millions this one writes the least.
"""
_SLICE = 4
"""How many hashes go on from a level that is full, for each that comes in."""


_text = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def identity(key: object) -> str:
    """Return a key in its text form: 1 and "1" are one key, and no other is a composite one (a list)."""
    return "\x1e" + _text([str(part) for part in key]) if isinstance(key, list) else str(key)


def know(db: Connection, secret: bytes, *, keeps_text: bool) -> None:
    """Let a connection know the file's secret, without which nobody can tell a key by its hash, and how the file keeps new keys."""

    @cache
    def hasher(workload: int) -> hashlib.blake2b:
        return hashlib.blake2b(key=secret, salt=workload.to_bytes(8, "big"), digest_size=HASH_BYTES)

    db.keeps_text, db.key_hasher = keeps_text, hasher
    db.create_function("key_hash", 2, lambda workload, key: hash_of(db, workload, key), deterministic=True)
    db.create_function("key_text", 1, lambda key: identity(json.loads(key)), deterministic=True)


def hash_of(db: Connection, workload: int, key: str) -> bytes:
    """Return the hash of a workload's key (in its text form), :data:`HASH_BYTES` long."""
    hasher = db.key_hasher(workload).copy()
    hasher.update(key.encode(errors="surrogatepass"))  # none that is kept has one
    return hasher.digest()


class Standing(NamedTuple):
    """The task that stands for a key, and the digest of the line it was made of; empty where the key was forgotten."""

    task_id: int
    digest: bytes


class KeyTaken(Exception):
    """A key of tasks to insert is taken, here or among themselves: the transaction is to be rolled back."""


_ANY_LEVEL = ", ".join(map(str, range(len(LEVELS) + 1)))
_LISTED = (  # hashes one after the other in one value: an array of JSON takes no bytes
    "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < :n - 1) {}"
    f" FROM n CROSS JOIN hashes h ON h.level IN ({_ANY_LEVEL})"
    f" AND h.hash = substr(:hashes, n.i * {HASH_BYTES} + 1, {HASH_BYTES})"
)
CHOSEN = (
    "(SELECT workload_id, key, task_id, digest FROM keys"
    " WHERE workload_id IN (SELECT id FROM workloads) AND key IN (SELECT value FROM json_each(:keys))"
    " UNION ALL SELECT u.id, j.value, h.task_id, h.digest FROM workloads u CROSS JOIN json_each(:keys) j CROSS JOIN hashes h"
    f" ON h.level IN ({_ANY_LEVEL}) AND h.hash = key_hash(u.id, j.value)"
    " WHERE NOT EXISTS (SELECT 1 FROM records r WHERE r.task_id = h.task_id AND key_text(r.key) <> j.value))"
)
"""As SQL: rows (workload_id, key, task_id, digest) of the keys in ``:keys``, a JSON array of their text forms, in any workload."""


def find(db: Connection, workload: int, keys: Iterable[str]) -> dict[str, Standing]:
    """Return the tasks that stand for these keys (in their text form) now; keys nobody has used are left out."""
    wanted = list(keys)
    texts = db.execute(
        "SELECT k.key, k.task_id, k.digest FROM json_each(?) j CROSS JOIN keys k ON k.workload_id = ? AND k.key = j.value",
        (json.dumps(wanted), workload),
    )
    found = {key: Standing(task_id, digest) for key, task_id, digest in texts}
    hashes = [hash_of(db, workload, key) for key in wanted]
    query = f"{_LISTED.format('SELECT n.i, h.task_id, h.digest, r.key')} LEFT JOIN records r ON r.task_id = h.task_id"
    for n, task_id, digest, key in db.execute(query, _values(hashes)):
        if key is None or identity(json.loads(key)) == wanted[n]:
            found[wanted[n]] = Standing(task_id, digest)
    return found


def _values(hashes: Sequence[bytes]) -> dict[str, object]:
    return {"n": len(hashes), "hashes": b"".join(hashes)}


def add(db: Connection, workload: int, keys: Sequence[tuple[str, bytes]], first: int, *, unseen: bool = False) -> None:
    """Let new tasks stand for new keys, each given in its text form and with a digest; the tasks' ids count up from ``first``.

    Args:
        unseen: :func:`find` knows none of them; another key may have the same hash.

    Raises:
        KeyTaken: one is taken, or its hash is; there is no savepoint to go back to, since it would keep each page that random keys
            touch.
    """
    hashed = sorted((hash_of(db, workload, key), first + n, digest) for n, (key, digest) in enumerate(keys))
    if not unseen and _taken(db, workload, [row[0] for row in hashed], [key for key, _ in keys]):
        raise KeyTaken
    if db.keeps_text:
        _add_text(db, workload, keys, first)
        return
    _enter(db, hashed)


def _taken(db: Connection, workload: int, hashes: Sequence[bytes], keys: Sequence[str]) -> bool:
    """Return whether one of these hashes, or of the keys as text, is there already, or twice among them."""
    if len(set(hashes)) < len(hashes):
        return True
    if db.execute(f"{_LISTED.format('SELECT 1')} LIMIT 1", _values(hashes)).fetchone():
        return True
    if db.keeps_text or not db.execute("SELECT 1 FROM keys LIMIT 1").fetchone():  # the insert itself will tell
        return False
    query = "SELECT 1 FROM json_each(?) j CROSS JOIN keys k ON k.workload_id = ? AND k.key = j.value LIMIT 1"
    return db.execute(query, (json.dumps(list(keys)), workload)).fetchone() is not None


def _add_text(db: Connection, workload: int, keys: Sequence[tuple[str, bytes]], first: int) -> None:
    try:
        db.executemany(
            "INSERT INTO keys (workload_id, key, task_id, digest) VALUES (?, ?, ?, ?)",
            [(workload, key, first + n, digest) for n, (key, digest) in enumerate(keys)],
        )
    except sqlite3.IntegrityError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
            raise
        raise KeyTaken from error


def point(db: Connection, workload: int, key: str, old: int, new: int, digest: bytes | None = None) -> int:
    """Let a task stand for a key for which another one stood, and note the digest of its line, where one is given; return 1, or 0 where
    that one does not stand for it.
    """
    changes = "task_id = ?" if digest is None else "task_id = ?, digest = ?"
    values = (new,) if digest is None else (new, digest)
    moved = db.execute(
        f"UPDATE keys SET {changes} WHERE workload_id = ? AND key = ? AND task_id = ?", (*values, workload, key, old)
    ).rowcount
    moved += db.execute(
        f"UPDATE hashes SET {changes} WHERE level IN ({_ANY_LEVEL}) AND hash = ? AND task_id = ?",
        (*values, hash_of(db, workload, key), old),
    ).rowcount
    return moved


def forget(db: Connection, workload: int, key: str, task_id: int, *, again: bool) -> None:
    """Drop the text of a key, and the digest of its line; the task still stands for it, unless it may be enqueued ``again``.

    Where the file keeps keys as text, a hash takes the place of this one: releases that know of no hashes would enqueue it anew, so
    they are shut out from now on.
    """
    hashed = hash_of(db, workload, key)
    if again:
        db.execute("DELETE FROM keys WHERE workload_id = ? AND key = ? AND task_id = ?", (workload, key, task_id))
        for level in range(len(LEVELS) + 1):
            gone = db.execute(
                "DELETE FROM hashes WHERE level = ? AND hash = ? AND task_id = ?", (level, hashed, task_id)
            )
            db.execute("UPDATE levels SET n = n - ? WHERE level = ?", (gone.rowcount, level))
        return
    if db.execute(
        "DELETE FROM keys WHERE workload_id = ? AND key = ? AND task_id = ?", (workload, key, task_id)
    ).rowcount:
        db.execute("INSERT INTO hashes (level, hash, task_id, digest) VALUES (0, ?, ?, x'')", (hashed, task_id))
        db.execute("UPDATE levels SET n = n + 1 WHERE level = 0")
        shut_out(db)
        return
    db.execute(
        f"UPDATE hashes SET digest = x'' WHERE level IN ({_ANY_LEVEL}) AND hash = ? AND task_id = ?", (hashed, task_id)
    )


def rehash(db: Connection, most: int) -> int:
    """Keep up to ``most`` of the keys that are kept as text as hashes; return how many that were."""
    rows = db.execute(
        "SELECT workload_id, key, task_id, digest FROM keys ORDER BY workload_id, key LIMIT ?", (most,)
    ).fetchall()
    if rows:
        hashed = sorted((hash_of(db, workload, key), task_id, digest) for workload, key, task_id, digest in rows)
        _enter(db, hashed)
        db.execute("DELETE FROM keys WHERE (workload_id, key) <= (?, ?)", rows[-1][:2])
    return len(rows)


def _enter(db: Connection, hashed: Sequence[tuple[bytes, int, bytes]]) -> None:
    """Enter new hashes, in their order, into the first level."""
    db.executemany("INSERT INTO hashes (level, hash, task_id, digest) VALUES (0, ?, ?, ?)", hashed)
    db.execute("UPDATE levels SET n = n + ? WHERE level = 0", (len(hashed),))
    _go_on(db, len(hashed))


def _go_on(db: Connection, came: int) -> None:
    """Let slices of the levels that are full go on into the next, in bounded steps: :data:`_SLICE` for each hash that came in.

    A slice goes on where the one before it ended (``gone``), and ends at the last hash; then the level is looked at anew.
    """
    for level, most in enumerate(LEVELS):
        n, gone = db.execute("SELECT n, gone FROM levels WHERE level = ?", (level,)).fetchone()
        if gone is None and n < most:
            continue
        values = {"level": level, "gone": gone or b"", "most": _SLICE * came}
        last = db.execute(
            "SELECT max(hash), count(*) FROM (SELECT hash FROM hashes WHERE level = :level AND hash > :gone ORDER BY hash LIMIT :most)",
            values,
        ).fetchone()
        upto = last[0] if last[1] == values["most"] else b"\xff" * (HASH_BYTES + 1)
        slice_ = {**values, "upto": upto}
        which = "level = :level AND hash > :gone AND hash <= :upto"
        moved = db.execute(
            "INSERT OR FAIL INTO hashes (level, hash, task_id, digest)"
            f" SELECT level + 1, hash, task_id, digest FROM hashes WHERE {which} ORDER BY hash",
            slice_,
        ).rowcount
        db.execute(f"DELETE FROM hashes WHERE {which}", slice_)
        db.execute(
            "UPDATE levels SET n = n - ?, gone = ? WHERE level = ?",
            (moved, last[0] if last[1] == values["most"] else None, level),
        )
        db.execute("UPDATE levels SET n = n + ? WHERE level = ?", (moved, level + 1))


_LOOKED_AT = 10_000
"""How many of the newest tasks are looked through for keys beside one, where keys are not kept as text."""


def beside(db: Connection, workload: int, key: str) -> list[str]:
    """Return the keys right before and after one, in their order: of hashed ones, among those of the newest tasks."""
    recent = db.execute(
        "SELECT r.key FROM tasks t JOIN records r ON r.task_id = t.id"
        " WHERE t.lane_id IN (SELECT id FROM lanes WHERE workload_id = ?) AND t.id > (SELECT max(id) FROM tasks) - ?"
        " AND t.superseded_by IS NULL",
        (workload, 0 if db.keeps_text else _LOOKED_AT),
    )
    known = {identity(json.loads(row[0])) for row in recent}
    for side, order in (("<", "DESC"), (">", "ASC")):
        query = f"SELECT key FROM keys WHERE workload_id = ? AND key {side} ? ORDER BY key {order} LIMIT 3"
        known.update(row[0] for row in db.execute(query, (workload, key)))
    before = sorted((one for one in known if one < key), reverse=True)
    return before[:3] + sorted(one for one in known if one > key)[:3]
