"""What is forgotten: records, answers and words of tasks, what is to be forgotten once it is not under way, and traces of it.

The tasks themselves stay, with their attempts and what these cost, and the batches with their tags and remote ids: sums and
recovery go by them. A task that has lost its record is a *purged* one. Every writing function runs inside the caller's transaction.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from nura_cli.state import answers, batches, keys, over, suspects
from nura_cli.state.batches import Batch
from nura_cli.state.connection import Connection
from nura_cli.state.schema import shut_out
from nura_cli.states import ErrorKind, TaskStatus


def erase(db: Connection) -> None:
    """Have whatever is deleted through this connection from now on overwritten in the file."""
    db.execute("PRAGMA secure_delete = ON").fetchone()


# --- keys


class Member(NamedTuple):
    """One of the tasks that stand, or ever stood, for a key.

    Attributes:
        key: in its text form.
        stands: it is the one that stands for the key now.
        busy: it is under way, or a batch that it was in is not final: what came of it may still be needed.
        kept: it has a record.
        again: as it was wished; False where nobody wished it forgotten.
        known: it stands for the key, and the key's own text or the digest of its line is still there.
    """

    workload_id: int
    key: str
    task_id: int
    queue_id: int
    status: TaskStatus
    stands: bool
    busy: bool
    kept: bool
    again: bool = False
    known: bool = False


_BUSY = (
    "(t.status = 'submitted' OR EXISTS (SELECT 1 FROM attempts x CROSS JOIN batches y ON y.id = x.batch_id"
    " WHERE x.task_id = t.id AND y.final_at IS NULL))"
)
_FAMILIES = (
    "WITH RECURSIVE family (key, id, stands, known) AS ("
    f"SELECT c.key, c.task_id, 1, c.digest <> x'' FROM {keys.CHOSEN} c WHERE c.workload_id = :workload"
    " UNION SELECT f.key, t.id, 0, 0 FROM family f CROSS JOIN tasks t ON t.superseded_by = f.id"
    " UNION SELECT f.key, t.id, 0, 0 FROM family f CROSS JOIN tasks t ON t.retry_of = f.id)"
    f" SELECT f.key, t.id, t.lane_id, t.status, max(f.stands), {_BUSY},"
    " EXISTS (SELECT 1 FROM records r WHERE r.task_id = t.id), coalesce((SELECT again FROM purges p WHERE p.task_id = t.id), 0),"
    " max(f.known) FROM family f CROSS JOIN tasks t ON t.id = f.id GROUP BY f.key, t.id"
)


def workloads(db: Connection, names: Sequence[str]) -> dict[str, int]:
    """Return the ids of these workloads, of all when none is named; one that has no task has none."""
    rows = db.execute(
        "SELECT name, id FROM workloads WHERE :all OR name IN (SELECT value FROM json_each(:names)) ORDER BY id",
        {"all": not names, "names": json.dumps(list(names))},
    )
    return dict(rows.fetchall())


def families(db: Connection, workload: int, wanted: Sequence[str]) -> list[Member]:
    """Return the tasks that stand or ever stood for these keys (in their text form) of a workload, re-runs among them."""
    rows = db.execute(_FAMILIES, {"workload": workload, "keys": json.dumps(list(wanted))})
    return [_member(workload, *row) for row in rows]


def due(db: Connection, after: int, limit: int) -> list[Member]:
    """Return tasks after an id that a person wished forgotten, and that are not under way any more, by id."""
    rows = db.execute(
        "SELECT l.workload_id, r.key, t.id, t.lane_id, t.status, 1, 0, 1, p.again FROM purges p"
        " CROSS JOIN tasks t ON t.id = p.task_id CROSS JOIN lanes l ON l.id = t.lane_id CROSS JOIN records r ON r.task_id = t.id"
        f" WHERE p.task_id > ? AND NOT {_BUSY} ORDER BY p.task_id LIMIT ?",
        (after, limit),
    )
    return [_member(row[0], keys.identity(json.loads(row[1])), *row[2:]) for row in rows]


def _member(
    workload: int,
    key: str,
    task: int,
    queue: int,
    status: str,
    stands: int,
    busy: int,
    kept: int,
    again: int,
    known: int = 0,
) -> Member:
    state = TaskStatus(status)
    return Member(workload, key, task, queue, state, bool(stands), bool(busy), bool(kept), bool(again), bool(known))


def wished(db: Connection, ids: Iterable[int]) -> set[int]:
    """Return which of these tasks a person wished forgotten: nobody is told of them, and nothing of them is sent again."""
    if db.execute("SELECT 1 FROM purges LIMIT 1").fetchone() is None:
        return set()
    query = "SELECT task_id FROM purges WHERE task_id IN (SELECT value FROM json_each(?))"
    return {row[0] for row in db.execute(query, (json.dumps(list(ids)),))}


def going(db: Connection, ids: Iterable[int]) -> set[int]:
    """Return which of these tasks, that stand for keys, are to be forgotten once nothing of the key is under way, or have lost their
    record already and wait for that.
    """
    if db.execute("SELECT 1 FROM purges LIMIT 1").fetchone() is None:
        return set()
    query = (
        "WITH RECURSIVE above (id) AS (SELECT task_id FROM purges UNION SELECT coalesce(t.superseded_by, t.retry_of) FROM above a"
        " CROSS JOIN tasks t ON t.id = a.id WHERE coalesce(t.superseded_by, t.retry_of) IS NOT NULL)"
        " SELECT j.value FROM json_each(?) j WHERE j.value IN (SELECT task_id FROM purges) OR j.value IN (SELECT id FROM above)"
        " AND NOT EXISTS (SELECT 1 FROM records r WHERE r.task_id = j.value)"
    )
    return {row[0] for row in db.execute(query, (json.dumps(list(ids)),))}


def wishes(db: Connection) -> dict[int, int]:
    """Return by queue how many tasks are to be forgotten once they are not under way."""
    query = "SELECT t.lane_id, count(*) FROM purges p CROSS JOIN tasks t ON t.id = p.task_id GROUP BY 1"
    return dict(db.execute(query).fetchall())


def wish(db: Connection, members: Sequence[Member], *, again: bool) -> None:
    """Note that tasks are to be forgotten once they are not under way; ``again``: their keys may then be enqueued again.

    Until then nobody is told of them; earlier releases, which know of no wish, are shut out. Without ``again`` the digests of their lines go at once: whatever comes in under their keys is
    known as forgotten.
    """
    ids = [one.task_id for one in members]
    db.executemany(
        "INSERT INTO purges (task_id, again, at) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET again = max(again, excluded.again)",
        [(one, again, db.now) for one in ids],
    )
    if ids:
        shut_out(db)
    _delete_deliveries(db, ids)


def forget_keys(db: Connection, members: Sequence[Member], *, again: bool) -> None:
    """Drop the text of the keys that tasks stand for; with ``again`` all that is known of them."""
    for one in members:
        keys.forget(db, one.workload_id, one.key, one.task_id, again=again)


def withdraw(db: Connection, members: Sequence[Member]) -> None:
    """Make those of these tasks that wait ``cancelled``, and tell nobody."""
    for queue in {one.queue_id for one in members if one.status is TaskStatus.PENDING}:
        ids = [one.task_id for one in members if one.queue_id == queue and one.status is TaskStatus.PENDING]
        answers.withdraw(db, queue, ids, PURGED)


PURGED = "purged"
"""Why a task that waited is not sent: for the log."""


# --- what is dropped


def wipe(db: Connection, ids: Sequence[int]) -> dict[int, int]:
    """Drop the records and answers of final tasks, what was said about their attempts and deliveries, and the wish to do so; return by
    queue how many lost their record. Earlier releases, to which a task without a record is damage, are shut out.
    """
    listed = json.dumps(list(ids))
    if ids:
        shut_out(db)
    found: dict[int, int] = dict(
        db.execute(
            "SELECT t.lane_id, count(*) FROM json_each(?) j CROSS JOIN records r ON r.task_id = j.value"
            " CROSS JOIN tasks t ON t.id = r.task_id GROUP BY 1",
            (listed,),
        ).fetchall()
    )
    batches.forget_cancelled(db, ids)
    suspects.clear(db, ids)
    _delete_deliveries(db, ids)
    for table in ("records", "answers", "purges"):
        db.execute(f"DELETE FROM {table} WHERE task_id IN (SELECT value FROM json_each(?))", (listed,))
    db.execute(
        "UPDATE attempts SET said = NULL WHERE task_id IN (SELECT value FROM json_each(?)) AND said IS NOT NULL",
        (listed,),
    )
    db.executemany(
        "INSERT INTO purged (lane_id, n) VALUES (?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n", found.items()
    )
    return found


def _delete_deliveries(db: Connection, ids: Sequence[int]) -> None:
    """Delete deliveries about tasks, made or not: nobody is to get them any more."""
    for left in ("= 'pending'", "<> 'pending'"):  # each has an index of its own
        db.execute(
            f"DELETE FROM deliveries WHERE status {left} AND task_id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(ids)),),
        )


def counted(db: Connection) -> dict[int, int]:
    """Return by queue how many tasks have neither record nor answer any more."""
    return dict(db.execute("SELECT lane_id, n FROM purged").fetchall())


def gone(db: Connection, workloads: Sequence[str], wanted: Sequence[str]) -> list[tuple[str, str]]:
    """Return (workload, key in its text form) of those of these keys whose tasks were purged, in these workloads (all, when empty)."""
    rows = db.execute(
        f"SELECT w.name, c.key FROM {keys.CHOSEN} c JOIN workloads w ON w.id = c.workload_id"
        " WHERE (:all OR w.name IN (SELECT value FROM json_each(:workloads)))"
        " AND NOT EXISTS (SELECT 1 FROM records r WHERE r.task_id = c.task_id)",
        {"all": not workloads, "workloads": json.dumps(list(workloads)), "keys": json.dumps(list(wanted))},
    )
    return rows.fetchall()


# --- words that may quote what is forgotten


_GENERAL = tuple(
    str(kind)
    for kind in (
        ErrorKind.RATE_LIMITED,
        ErrorKind.EXPIRED,
        ErrorKind.CANCELLED,
        ErrorKind.MISSING,
        ErrorKind.LOST,
    )
)
"""Kinds whose words are about a batch or an account, and quote no request."""


def words(db: Connection, ids: Sequence[int]) -> set[str]:
    """Return what was said about these tasks by providers, databases and receivers."""
    found = db.execute(
        "SELECT said FROM attempts WHERE task_id IN (SELECT value FROM json_each(:ids))"
        " AND outcome NOT IN (SELECT value FROM json_each(:general))"
        " UNION SELECT error_message FROM answers WHERE task_id IN (SELECT value FROM json_each(:ids))"
        " AND error_kind NOT IN (SELECT value FROM json_each(:general))"
        " UNION SELECT said FROM suspects WHERE task_id IN (SELECT value FROM json_each(:ids))"
        " UNION SELECT said FROM deliveries WHERE status = 'pending' AND task_id IN (SELECT value FROM json_each(:ids))"
        " UNION SELECT row_error FROM deliveries WHERE status = 'pending' AND task_id IN (SELECT value FROM json_each(:ids))"
        " UNION SELECT said FROM deliveries WHERE status <> 'pending' AND task_id IN (SELECT value FROM json_each(:ids))"
        " UNION SELECT row_error FROM deliveries WHERE status <> 'pending' AND task_id IN (SELECT value FROM json_each(:ids))",
        {"ids": json.dumps(list(ids)), "general": json.dumps(_GENERAL)},
    )
    return {row[0] for row in found if row[0]}


class Refusals(NamedTuple):
    """Why batches of some queues were refused, each text once, and the models of these batches."""

    texts: list[str]
    models: set[str]


def refusals(db: Connection, ids: Sequence[int]) -> Refusals:
    """Return why batches of these tasks' queues, and tasks of theirs, were refused."""
    rows = db.execute(
        "SELECT b.reason, b.faults, b.model FROM batches b WHERE b.final_at IS NOT NULL AND (b.reason <> '' OR b.faults IS NOT NULL)"
        " AND b.lane_id IN (SELECT lane_id FROM tasks WHERE id IN (SELECT value FROM json_each(:ids)))"
        " UNION SELECT said, NULL, '' FROM suspects"
        " WHERE lane_id IN (SELECT lane_id FROM tasks WHERE id IN (SELECT value FROM json_each(:ids)))",
        {"ids": json.dumps(list(ids))},
    ).fetchall()
    texts = {reason for reason, *_ in rows if reason}
    for _, faults, _ in rows:
        texts |= set(_strings(json.loads(faults))) if faults else set()
    return Refusals(sorted(texts), {model for *_, model in rows})


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)


_TEXTS = {
    "runs": ("message",),
    "past_runs": ("message",),
    "transitions": ("why",),
    "actions": ("what", "why"),
    "holds": ("origin", "why"),
    "routes": ("why",),
    "receivers": ("why",),
    "waits": ("words",),
    "batches": ("reason", "held", "missed", "cancel_why", "faults"),
    "suspects": ("said",),
}
"""The columns in which nura keeps what it said of a run, a batch or a route, and what others said: some of it may be about one task.
Holds whose origins are the same without that are one."""
_JUDGED_BY = {("batches", column) for column in ("reason", "held", "faults")}
"""Those by which it is decided what becomes of a batch, while it is not final."""


def redact(db: Connection, clean: Callable[[str], str]) -> None:
    """Take out of what was ever said here what ``clean`` takes out of a text; not of what a batch is still to be judged by: nothing
    that is at rest was ever in it.
    """
    for table, columns in _TEXTS.items():
        for column in columns:
            settled = " AND final_at IS NOT NULL" if (table, column) in _JUDGED_BY else ""
            texts = db.execute(f"SELECT DISTINCT {column} FROM {table} WHERE {column} <> ''{settled}").fetchall()
            cleaned = [(_clean(text, clean, column == "faults"), text) for (text,) in texts]
            changed = [(new, old) for new, old in cleaned if new != old]
            db.executemany(f"UPDATE OR REPLACE {table} SET {column} = ? WHERE {column} = ?{settled}", changed)
    said = db.execute("SELECT stage, scope, message FROM troubles").fetchall()
    db.executemany(  # what lasts is said anew
        "DELETE FROM troubles WHERE stage = ? AND scope = ?",
        [(stage, scope) for stage, scope, text in said if clean(scope) != scope or clean(text) != text],
    )


def _clean(text: str, clean: Callable[[str], str], in_json: bool) -> str:
    if not in_json:
        return clean(text)
    document = json.loads(text)
    found = _cleaned(document, clean)
    return text if found == document else json.dumps(found)


def _cleaned(value: Any, clean: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {name: _cleaned(one, clean) for name, one in value.items()}
    if isinstance(value, list):
        return [_cleaned(one, clean) for one in value]
    return clean(value) if isinstance(value, str) else value


# --- at the providers


def leave_nothing(db: Connection, ids: Sequence[int]) -> int:
    """Note that providers are to keep nothing of the batches that these tasks are in or were in; return how many that are.

    Of a batch that was given back before it was sent nobody knows whose requests were uploaded: all of the tasks' queues count.
    """
    return db.execute(
        "INSERT OR IGNORE INTO purged_batches (batch_id, at) SELECT b.id, :now FROM batches b WHERE b.id IN ("
        "SELECT batch_id FROM attempts WHERE task_id IN (SELECT value FROM json_each(:ids))"
        " UNION SELECT batch_id FROM answers WHERE task_id IN (SELECT value FROM json_each(:ids))"
        " UNION SELECT batch_id FROM tasks WHERE id IN (SELECT value FROM json_each(:ids))"
        " UNION SELECT u.id FROM tasks t CROSS JOIN batches u ON u.lane_id = t.lane_id"
        " WHERE t.id IN (SELECT value FROM json_each(:ids)) AND u.status = 'failed' AND u.final_at IS NOT NULL AND u.cleaned_at IS NULL)"
        " AND (b.cleaned_at IS NULL OR b.id IN (SELECT batch_id FROM strays))",
        {"now": db.now, "ids": json.dumps(list(ids))},
    ).rowcount


class AtProvider(NamedTuple):
    """A batch of which its provider is to keep nothing, and may keep something; since when: it was purged, and final, unix seconds."""

    batch: Batch
    since: int


def at_provider(db: Connection, provider: str) -> list[AtProvider]:
    """Return the final batches of a provider of which it is to keep nothing, and may keep something."""
    rows = db.execute(
        "SELECT p.batch_id, max(p.at, b.final_at) FROM purged_batches p CROSS JOIN batches b ON b.id = p.batch_id WHERE b.provider = ?"
        " AND b.final_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM strays s WHERE s.batch_id = b.id AND s.counted_at IS NULL)"
        " ORDER BY p.batch_id",
        (provider,),
    ).fetchall()
    return [AtProvider(batch, at) for batch_id, at in rows if (batch := batches.get(db, batch_id)) is not None]


def left_there(db: Connection) -> list[Batch]:
    """Return the batches of which a provider is to keep nothing, and may keep something, those under way among them."""
    rows = db.execute("SELECT batch_id FROM purged_batches ORDER BY batch_id").fetchall()
    return [batch for (batch_id,) in rows if (batch := batches.get(db, batch_id)) is not None]


def count_left_there(db: Connection) -> int:
    """Return how many batches that are."""
    return int(db.execute("SELECT count(*) FROM purged_batches").fetchone()[0])


def oldest_wish(db: Connection) -> tuple[int, int] | None:
    """Return how many tasks are to be forgotten once they are not under way, and since when the first is, unix seconds; None for none."""
    n, since = db.execute("SELECT count(*), min(at) FROM purges").fetchone()
    return (n, since) if n else None


def nothing_there(db: Connection, batch_id: int) -> None:
    """Note that a provider keeps nothing any more of a batch that was purged."""
    db.execute("DELETE FROM purged_batches WHERE batch_id = ?", (batch_id,))


def were_in(db: Connection, batch_id: int, ids: Iterable[int]) -> bool:
    """Return whether one of these tasks was in a batch."""
    query = "SELECT 1 FROM attempts WHERE batch_id = ? AND task_id IN (SELECT value FROM json_each(?)) LIMIT 1"
    return db.execute(query, (batch_id, json.dumps(list(ids)))).fetchone() is not None


# --- by age

_ANY = 2**63 - 1


class Page(NamedTuple):
    """A page of answers that were looked at: those that may be dropped, up to which seq, and whether there is more to look at."""

    ids: list[int]
    upto: int
    more: bool


_WAITS = (
    " AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.task_id = t.id AND d.status = 'pending')"
    " AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.task_id = t.id AND d.status <> 'pending' AND d.status = 'dead')"
)
_TOLD = (
    " AND EXISTS (SELECT 1 FROM deliveries d WHERE d.task_id = t.id AND d.seq = a.seq AND d.status <> 'pending'"
    f" AND (t.superseded_by IS NOT NULL OR d.{over.MADE}))"
)


def old(
    db: Connection, workload: str, before: int, *, after: int, read_to: int | None, undelivered: bool, limit: int
) -> Page:
    """Look at the next answers, by seq, for those of a workload that were settled before a unix second and may be dropped.

    An answer that nobody was told of stays, unless somebody has read it; so do those that wait to be delivered, or were given up; and
    what a re-run that is under way may fall back to, what is to be forgotten by its key, and whatever is of a batch that is not final.

    Args:
        after: the seq of the last one that was looked at.
        read_to: only answers up to this seq, up to which somebody has read them; None: all of them, and nobody has.
        undelivered: whether what is not delivered goes, too.
    """
    rows = db.execute(
        "SELECT a.seq, a.finished_at FROM answers a WHERE a.seq > ? AND a.seq <= ? ORDER BY a.seq LIMIT ?",
        (after, _ANY if read_to is None else read_to, limit),
    ).fetchall()
    aged = [seq for seq, at in rows if at < before]
    last = rows[-1][0] if rows else after
    more = len(rows) == limit and (last in aged[-1:] or _older_beyond(db, last, before))
    upto = last if more else max(aged, default=after)
    if not aged:
        return Page([], upto, more)
    needed = "" if undelivered else _WAITS if read_to is not None else f"{_WAITS}{_TOLD}"
    found = db.execute(
        "SELECT t.id FROM answers a CROSS JOIN tasks t ON t.id = a.task_id JOIN lanes l ON l.id = t.lane_id"
        " JOIN workloads w ON w.id = l.workload_id WHERE a.seq > ? AND a.seq <= ? AND a.finished_at < ? AND w.name = ?"
        " AND t.status NOT IN ('pending', 'submitted') AND t.id NOT IN (SELECT task_id FROM purges)"
        f" AND NOT {_BUSY} AND NOT EXISTS (SELECT 1 FROM tasks n WHERE n.retry_of = t.id AND n.status IN ('pending', 'submitted'))"
        f"{needed} ORDER BY a.seq",
        (after, upto, before, workload),
    ).fetchall()
    return Page([row[0] for row in found], upto, more)


def _older_beyond(db: Connection, seq: int, before: int) -> bool:
    """Return whether answers beyond a seq were settled before a unix second: those up to there bear the time of a clock that was ahead."""
    table, column = ("answers", "finished_at") if db.keeps_text else ("moments", "at")
    query = f"SELECT 1 FROM {table} WHERE {column} < ? AND +seq > ? LIMIT 1"  # by its index on the time
    return db.execute(query, (before, seq)).fetchone() is not None


def superseded_by(db: Connection, ids: Sequence[int]) -> list[int]:
    """Return the final tasks whose places these took, and theirs, that still have records and are not under way."""
    rows = db.execute(
        "WITH RECURSIVE family (id) AS (SELECT value FROM json_each(?)"
        " UNION SELECT t.id FROM family f CROSS JOIN tasks t ON t.superseded_by = f.id)"
        " SELECT t.id FROM family f CROSS JOIN tasks t ON t.id = f.id JOIN records r ON r.task_id = t.id"
        f" WHERE t.superseded_by IS NOT NULL AND t.status NOT IN ('pending', 'submitted') AND NOT {_BUSY}"
        " AND t.id NOT IN (SELECT task_id FROM purges)",
        (json.dumps(list(ids)),),
    )
    return [row[0] for row in rows]


def drop_events_of_batches(db: Connection, workload: str, before: int) -> int:
    """Delete the events about batches of a workload that were sent before a unix second; return how many."""
    return db.execute(
        "DELETE FROM deliveries INDEXED BY deliveries_told WHERE task_id IS NULL AND status = 'done' AND done_at < ?"
        " AND workload_id = (SELECT id FROM workloads WHERE name = ?)",
        (before, workload),
    ).rowcount


def place(db: Connection, workload: str) -> tuple[int, int]:
    """Return up to which seq a workload's answers were looked at to be dropped by their age, and on which day their end was reached: 0
    while it is not.
    """
    row = db.execute("SELECT value FROM meta WHERE name = ?", (f"retention:{workload}",)).fetchone()
    seq, _, day = (row[0] if row else "0 0").partition(" ")
    return int(seq), int(day)


def note_place(db: Connection, workload: str, seq: int, day: int) -> None:
    """Note up to which seq a workload's answers were looked at, and on which day their end was reached, 0 while it is not."""
    db.execute(
        "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
        (f"retention:{workload}", f"{seq} {day}"),
    )


class Seen(NamedTuple):
    """What is known of the clock by which answers are dropped for their age; unix seconds, 0 for none.

    Attributes:
        known: the last time that was believed.
        doubted: since when, by the clock itself, it shows a time that is not.
    """

    known: int = 0
    doubted: int = 0


def seen(db: Connection) -> Seen:
    """Return what is known of the clock by which answers are dropped."""
    row = db.execute("SELECT value FROM meta WHERE name = 'retention_clock'").fetchone()
    return Seen(*map(int, row[0].split())) if row else Seen()


def note_seen(db: Connection, found: Seen) -> None:
    """Note what is known of the clock by which answers are dropped."""
    value = f"{found.known} {found.doubted}"
    db.execute("INSERT OR REPLACE INTO meta (name, value) VALUES ('retention_clock', ?)", (value,))


# --- the file itself


def leave_traces(db: Connection) -> None:
    """Note that what was forgotten may still have traces in the spool and in the file, until :func:`no_traces` says otherwise."""
    db.execute("INSERT OR REPLACE INTO meta (name, value) VALUES ('traces', '1')")


def no_traces(db: Connection) -> None:
    """Note that what was forgotten has no traces any more."""
    db.execute("DELETE FROM meta WHERE name = 'traces'")


def has_traces(db: Connection) -> bool:
    """Return whether what was forgotten may still have traces: who removed them was killed, or could not."""
    return db.execute("SELECT 1 FROM meta WHERE name = 'traces'").fetchone() is not None


def overwrite_free(db: Connection, most: int) -> bool:
    """Overwrite the file's free pages, which may hold what was deleted earlier, within the caller's transaction; return False where
    there are more than ``most``.
    """
    free, size = (int(db.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("freelist_count", "page_size"))
    if free > most:
        return False
    if free > 1:
        db.execute("CREATE TABLE overwritten (zeros BLOB)")
        db.execute("INSERT INTO overwritten (zeros) VALUES (zeroblob(?))", ((free - 1) * (size - 4),))
        db.execute("DROP TABLE overwritten")
    return True


def empty_wal(db: Connection, patience: float) -> bool:
    """Write what the WAL holds into the file and empty it; return False where readers kept that from being done for so many seconds."""
    deadline = time.monotonic() + patience
    before = db.execute("PRAGMA busy_timeout").fetchone()[0]
    db.execute("PRAGMA busy_timeout = 100").fetchone()
    try:
        while True:
            try:
                busy = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise
                busy = 1
            if not busy or time.monotonic() >= deadline:
                return not busy
            time.sleep(0.05)
    finally:
        db.execute(f"PRAGMA busy_timeout = {int(before)}").fetchone()
