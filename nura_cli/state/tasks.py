"""Tasks, their records and keys: what waits, what is claimed, and the counts kept beside every move.

Every function here runs inside the caller's transaction, and moves tasks by guarded updates only.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from nura_cli.state import batches, keys, log, outbox, packed, pages, selection, suspects
from nura_cli.state.connection import Connection
from nura_cli.states import TASK_ARROWS, TaskStatus, check_arrow


class Queue(NamedTuple):
    """A queue of tasks that may share a batch. dialect, endpoint and model are "" for records."""

    id: int
    workload: str
    dialect: str
    endpoint: str
    model: str


class NewTask(NamedTuple):
    """A task to insert: its queue, its key as JSON and as identity, the digest of its line, the bytes to keep."""

    queue_id: int
    key_json: str
    key: str
    digest: bytes
    line: bytes


class Current(NamedTuple):
    """The task that stands for a key now."""

    task_id: int
    digest: bytes
    status: str
    undecided: bool


def workload_id(db: Connection, name: str) -> int:
    """Return the id of a workload, making its row when it is new."""
    row = db.execute("SELECT id FROM workloads WHERE name = ?", (name,)).fetchone()
    if row is None:
        row = db.execute("INSERT INTO workloads (name) VALUES (?) RETURNING id", (name,)).fetchone()
    return int(row[0])


def identities(db: Connection, ids: Sequence[int]) -> dict[int, tuple[int, str]]:
    """Return of these tasks the workload's id and the key in its text form."""
    rows = db.execute(
        "SELECT r.task_id, l.workload_id, r.key FROM records r JOIN tasks t ON t.id = r.task_id"
        " JOIN lanes l ON l.id = t.lane_id WHERE r.task_id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(ids)),),
    )
    return {task_id: (workload, keys.identity(json.loads(key))) for task_id, workload, key in rows}


def queue_id(db: Connection, workload: int, dialect: str, endpoint: str, model: str) -> int:
    """Return the id of a queue, making its row when it is new."""
    known = (workload, dialect, endpoint, model)
    row = db.execute(
        "SELECT id FROM lanes WHERE workload_id = ? AND dialect = ? AND endpoint = ? AND model = ?", known
    ).fetchone()
    if row is None:
        row = db.execute(
            "INSERT INTO lanes (workload_id, dialect, endpoint, model) VALUES (?, ?, ?, ?) RETURNING id", known
        ).fetchone()
    return int(row[0])


def queues(db: Connection) -> list[Queue]:
    """Return every queue, by id."""
    rows = db.execute(
        "SELECT l.id, w.name, l.dialect, l.endpoint, l.model FROM lanes l JOIN workloads w ON w.id = l.workload_id"
        " ORDER BY l.id"
    )
    return [Queue(*row) for row in rows]


def current(db: Connection, workload: int, wanted: Iterable[str]) -> dict[str, Current]:
    """Return the tasks that stand for these keys now; keys nobody has used are left out."""
    found = keys.find(db, workload, wanted)
    rows = db.execute(
        "SELECT t.id, t.status, t.status = 'cancelled' AND EXISTS (SELECT 1 FROM answers a"
        " JOIN batches b ON b.id = a.batch_id WHERE a.task_id = t.id AND b.cancelled > 0)"
        " FROM json_each(?) j CROSS JOIN tasks t ON t.id = j.value",
        (json.dumps([one.task_id for one in found.values()]),),
    )
    states = {task_id: state for task_id, *state in rows}
    return {key: Current(*one, *states[one.task_id]) for key, one in found.items()}


def kept(db: Connection, task_id: int) -> tuple[int, bytes] | None:
    """Return the queue of a task and the line that is kept of it; None where nothing is."""
    row = db.execute(
        "SELECT t.lane_id, r.line FROM tasks t JOIN records r ON r.task_id = t.id WHERE t.id = ?", (task_id,)
    ).fetchone()
    return None if row is None else (row[0], packed.unpack(db, row[1]))


def insert(db: Connection, workload: int, tasks: Sequence[NewTask], *, unseen: bool = False) -> None:
    """Insert pending tasks whose keys are new.

    Args:
        unseen: :func:`current` knows none of the keys.

    Raises:
        KeyTaken: one is taken, or may be: the transaction is to be rolled back.
    """
    if tasks:
        first = next_id(db)
        keys.add(db, workload, [(task.key, task.digest) for task in tasks], first, unseen=unseen)
        _insert_rows(db, first, tasks)


def moving(old: TaskStatus, new: TaskStatus, *changes: str) -> str:
    """Return the statement that moves tasks along an arrow of :data:`TASK_ARROWS`, to be narrowed by conditions.

    No other changes a status. The states stand in it as they are: the partial indexes are found by that.

    Args:
        changes: of other columns: ``column = value`` each.

    Raises:
        AssertionError: there is no such arrow.
    """
    check_arrow(TASK_ARROWS, old, new)
    assignments = ", ".join((f"status = '{new}'", *changes))
    return f"UPDATE tasks SET {assignments} WHERE status = '{old}'"


OF_QUEUE = "+lane_id = ?"
"""Narrows tasks that are named by their ids, and are found by these: not by the index of all that waits in the queue."""


def replace(db: Connection, workload: int, task: NewTask, old: int) -> None:
    """Insert a task for a key that another task stands for; the old one is superseded, and with it one that runs it again."""
    new = next_id(db)
    keys.point(db, workload, task.key, old, new, task.digest)
    _insert_rows(db, new, [task])
    running = db.execute(f"SELECT id FROM tasks WHERE retry_of = ? AND {RUNNING}", (old,))
    supersede(db, [(one, new) for one in (old, *(row[0] for row in running))], f"superseded by task {new}")


RUNNING = "status IN ('pending', 'submitted')"
"""Of a task that runs a completed one again: it is not final yet. There is one such at most for each."""


def supersede(db: Connection, pairs: Sequence[tuple[int, int]], why: str) -> None:
    """Let another task stand in the place of each of some: (old, new).

    A pending one leaves (``cancelled``); a submitted one still settles. None is delivered any more.
    """
    old = [one for one, _ in pairs]
    ids = json.dumps(old)
    found = Counter(
        db.execute(
            "SELECT lane_id, status, superseded_by IS NOT NULL FROM tasks"
            " WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id",
            (ids,),
        ).fetchall()
    )
    db.executemany("UPDATE tasks SET superseded_by = ? WHERE id = ?", [(new, one) for one, new in pairs])
    leaving = moving(TaskStatus.PENDING, TaskStatus.CANCELLED)
    db.execute(f"{leaving} AND id IN (SELECT value FROM json_each(?))", (ids,))
    outbox.withdraw(db, old, "superseded")
    batches.forget_cancelled(db, old)
    suspects.clear(db, old)
    for (queue, status, gone), n in found.items():
        after = TaskStatus.CANCELLED if status == TaskStatus.PENDING else TaskStatus(status)
        add_to_counts(db, {(queue, TaskStatus(status), bool(gone)): -n})
        add_to_counts(db, {(queue, after, True): n})
        log.task(db, queue, None, status, after, n, why)


def next_id(db: Connection) -> int:
    """Return the id the next task will get (ids are never used twice). Holds for the length of the transaction."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'tasks'").fetchone()
    return int(row[0]) + 1 if row else 1


def _insert_rows(db: Connection, first: int, tasks: Sequence[NewTask]) -> None:
    """Insert tasks, the first of which gets this id; in one statement, for each one touches AUTOINCREMENT's own table."""
    queues, now = [task.queue_id for task in tasks], db.now
    db.execute(
        "INSERT INTO tasks (id, lane_id, status) SELECT ? + key, value, 'pending' FROM json_each(?)",
        (first, json.dumps(queues)),
    )
    db.executemany(
        "INSERT INTO records (task_id, enqueued_at, key, line) VALUES (?, ?, ?, ?)",
        ((n, now, task.key_json, task.line) for n, task in enumerate(tasks, first)),
    )
    for queue, n in Counter(queues).items():
        add_to_counts(db, {(queue, TaskStatus.PENDING, False): n})
        log.task(db, queue, None, None, TaskStatus.PENDING, n, "enqueued")


def add_to_counts(db: Connection, changes: Mapping[tuple[int, TaskStatus, bool], int]) -> None:
    """Add to the counts of (queue, status, superseded)."""
    db.executemany(
        "INSERT INTO counts (lane_id, status, superseded, n) VALUES (?, ?, ?, max(?, 0))"
        " ON CONFLICT DO UPDATE SET n = n + ?",
        [(queue, status, superseded, n, n) for (queue, status, superseded), n in changes.items() if n],
    )


def counts(db: Connection) -> dict[tuple[int, TaskStatus, bool], int]:
    """Return how many tasks each (queue, status, superseded) has, without looking at a task."""
    rows = db.execute("SELECT lane_id, status, superseded, n FROM counts")
    return {(queue, TaskStatus(status), bool(superseded)): n for queue, status, superseded, n in rows}


class Waiting(NamedTuple):
    """A task that waits: its workload, its key as JSON, and its place in the order in which tasks are claimed."""

    task_id: int
    queue_id: int
    workload: str
    key: str
    not_before: int


def waiting(
    db: Connection, chosen: selection.Selection, last_id: int, page: int = selection.CHUNK
) -> Iterator[list[Waiting]]:
    """Yield the tasks of a selection that wait, in pages that are not empty, queue by queue; no read is open in between.

    Args:
        last_id: the last task id to look at: what comes in meanwhile is not meant.
    """
    tables, where, values = selection.pending(chosen)
    query = (
        f"SELECT t.id, t.lane_id, w.name, r.key, t.not_before FROM {tables} WHERE {where} AND t.lane_id = :queue"
        " AND t.id <= :upto AND (t.not_before, t.id) > (:not_before, :after) ORDER BY t.not_before, t.id LIMIT :page"
    )
    for queue in queues(db):
        place = {"queue": queue.id, "not_before": -1, "after": 0}
        while rows := [Waiting(*row) for row in db.execute(query, {**values, **place, "upto": last_id, "page": page})]:
            yield rows
            place |= {"not_before": rows[-1].not_before, "after": rows[-1].task_id}


def pending(db: Connection) -> dict[str, int]:
    """Return how many tasks of each workload are pending, from the counts."""
    rows = db.execute(
        "SELECT w.name, sum(c.n) FROM counts c JOIN lanes l ON l.id = c.lane_id JOIN workloads w ON w.id = l.workload_id"
        " WHERE c.status = 'pending' AND NOT c.superseded GROUP BY w.id"
    )
    return dict(rows.fetchall())


def pending_count(db: Connection, queue: int) -> int:
    """Return how many tasks of a queue are pending, from the counts."""
    row = db.execute("SELECT sum(n) FROM counts WHERE lane_id = ? AND status = 'pending'", (queue,)).fetchone()
    return int(row[0] or 0)


# A task is due when it never failed (not_before 0), when its time has come, or when its time lies further away than any
# backoff reaches: then a clock was set wrong, and waiting for it would be waiting for nothing.
_DUE = ("t.not_before BETWEEN 1 AND :now", "t.not_before > :horizon", "t.not_before = 0")


def due_count(db: Connection, queue: int, limit: int) -> int:
    """Return how many pending tasks of a queue are due, counting no further than ``limit``."""
    total = 0
    for due in _DUE:
        query = f"SELECT count(*) FROM (SELECT 1 FROM tasks t WHERE lane_id = :queue AND status = 'pending' AND {due} LIMIT :n)"
        total += db.execute(
            query, {"queue": queue, "now": db.now, "horizon": db.horizon, "n": limit - total}
        ).fetchone()[0]
        if total >= limit:
            break
    return total


def oldest_due(db: Connection, queue: int) -> int | None:
    """Return when the oldest due task of a queue was enqueued (unix seconds), or None when nothing is due."""
    return _oldest(db, queue, db.now, db.horizon)


def oldest_pending(db: Connection, queue: int) -> int | None:
    """Return about when the oldest pending task of a queue was enqueued (exact among those never tried), or None."""
    return _oldest(db, queue, 2**62 - 1, 2**62)


def _oldest(db: Connection, queue: int, now: int, horizon: int) -> int | None:
    """Return when the oldest task that is due at a time was enqueued; each way to be due has an index of its own."""
    found = []
    for due in _DUE:
        query = (
            "SELECT r.enqueued_at FROM tasks t JOIN records r ON r.task_id = t.id"
            f" WHERE t.lane_id = :queue AND t.status = 'pending' AND {due} ORDER BY t.not_before, t.id LIMIT 1"
        )
        row = db.execute(query, {"queue": queue, "now": now, "horizon": horizon}).fetchone()
        if row:
            found.append(row[0])
    return min(found, default=None)


def due_beside(db: Connection, queue: int, last_id: int = 2**63 - 1) -> bool:
    """Return whether a pending task of a queue, up to ``last_id``, is due that is not suspected of anything."""
    values = {"queue": queue, "now": db.now, "horizon": db.horizon, "upto": last_id}
    queries = (
        f"SELECT 1 FROM tasks t WHERE lane_id = :queue AND status = 'pending' AND {due} AND id <= :upto AND {_NO_SUSPECT}"
        " LIMIT 1"
        for due in _DUE
    )
    return any(db.execute(query, values).fetchone() for query in queries)


_NO_SUSPECT = "t.id NOT IN (SELECT task_id FROM suspects WHERE lane_id = :queue)"
_WAITING = "retry_of IS NOT NULL AND t.status = 'pending'"


def claim(db: Connection, queue: int, batch_id: int, limit: int, last_id: int, but: Iterable[int] = ()) -> int:
    """Move up to ``limit`` due tasks of a queue into a batch, retried ones first, then oldest first; return how many.

    Those that are suspected of something are left: they share no batch with others. ``last_id`` is the last one to take: what
    comes in meanwhile waits for the next run. ``but`` are left, too.
    """
    total, left = 0, json.dumps(list(but))
    _let_go(db, queue)
    for due in _DUE:
        query = (
            f"{moving(TaskStatus.PENDING, TaskStatus.SUBMITTED, 'batch_id = :batch')} AND id IN (SELECT id FROM tasks t"
            f" WHERE lane_id = :queue AND status = 'pending' AND {due} AND id <= :upto AND {_NO_SUSPECT}"
            " AND id NOT IN (SELECT value FROM json_each(:but)) ORDER BY not_before, id LIMIT :n)"
        )
        values = {
            "batch": batch_id,
            "queue": queue,
            "now": db.now,
            "horizon": db.horizon,
            "n": limit - total,
            "upto": last_id,
            "but": left,
        }
        total += db.execute(query, values).rowcount
        if total >= limit:
            break
    _claimed(db, queue, batch_id, total, "claimed")
    return total


def claim_suspects(db: Connection, queue: int, batch_id: int, ids: Sequence[int]) -> int:
    """Move these tasks of a queue into a batch of their own, those that still wait; return how many."""
    _let_go(db, queue)
    move = moving(TaskStatus.PENDING, TaskStatus.SUBMITTED, "batch_id = ?")
    query = f"{move} AND {OF_QUEUE} AND id IN (SELECT value FROM json_each(?))"
    total = db.execute(query, (batch_id, queue, json.dumps(list(ids)))).rowcount
    _claimed(db, queue, batch_id, total, "claimed apart: they may be to blame for a refused batch")
    return total


def _claimed(db: Connection, queue: int, batch_id: int, n: int, why: str) -> None:
    add_to_counts(db, {(queue, TaskStatus.PENDING, False): -n, (queue, TaskStatus.SUBMITTED, False): n})
    if n:
        log.task(db, queue, batch_id, TaskStatus.PENDING, TaskStatus.SUBMITTED, n, why)


def _let_go(db: Connection, queue: int) -> None:
    """Send no re-run of what was replaced meanwhile: an earlier release's ``enqueue --replace``, which may use this file, knows
    nothing of them.
    """
    gone = db.execute(
        f"SELECT t.id, o.superseded_by FROM tasks t JOIN tasks o ON o.id = t.retry_of WHERE t.lane_id = ? AND t.{_WAITING}"
        " AND t.superseded_by IS NULL AND o.superseded_by IS NOT NULL",
        (queue,),
    ).fetchall()
    if gone:
        supersede(db, gone, "their keys were enqueued with other content")
    _let_forgotten_go(db, queue)


def _let_forgotten_go(db: Connection, queue: int) -> None:
    """Send nothing again that is to be forgotten; a re-run gives its place back to what it ran again."""
    move = moving(TaskStatus.PENDING, TaskStatus.CANCELLED)
    gone = db.execute(
        f"{move} AND {OF_QUEUE} AND id IN (SELECT task_id FROM purges) RETURNING id, retry_of IS NOT NULL", (queue,)
    ).fetchall()
    if not gone:
        return
    db.execute(
        "UPDATE tasks SET superseded_by = retry_of WHERE id IN (SELECT value FROM json_each(?)) AND retry_of IS NOT NULL",
        (json.dumps([task_id for task_id, _ in gone]),),
    )
    again = sum(is_again for _, is_again in gone)
    add_to_counts(db, {(queue, TaskStatus.PENDING, False): -len(gone), (queue, TaskStatus.CANCELLED, True): again})
    add_to_counts(db, {(queue, TaskStatus.CANCELLED, False): len(gone) - again})
    log.task(db, queue, None, TaskStatus.PENDING, TaskStatus.CANCELLED, len(gone), "to be forgotten")


def page(db: Connection, batch_id: int, after: int, limit: int) -> list[tuple[int, bytes]]:
    """Return (task id, line) of a batch's tasks, by id, after ``after``: as many as a page takes, in rows and in bytes."""
    db.execute("PRAGMA shrink_memory")  # of the records of the page before, none is read again
    rows = db.execute(
        "SELECT t.id, r.line FROM tasks t JOIN records r ON r.task_id = t.id WHERE t.batch_id = ? AND t.id > ?"
        " ORDER BY t.id LIMIT ?",
        (batch_id, after, limit),
    )
    return pages.first(_unpacked(db, rows), lambda row: len(row[1]))


def _unpacked(db: Connection, rows: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Yield (task id, line) as it came, one at a time."""
    return ((task_id, packed.unpack(db, line)) for task_id, line in rows)


def due_ids(db: Connection, queue: int, last_id: int) -> Iterator[int]:
    """Yield the ids of a queue's due tasks up to ``last_id``, suspects among them, in the order in which :func:`claim` takes them.

    They are read in pages, and no read is open in between. What is due in two ways (where all is) comes once.
    """
    for n, due in enumerate(_DUE):
        once = "".join(f" AND NOT {earlier}" for earlier in _DUE[:n])
        query = (
            f"SELECT not_before, id FROM tasks t WHERE lane_id = :queue AND status = 'pending' AND {due}{once}"
            " AND id <= :upto AND (not_before, id) > (:not_before, :id) ORDER BY not_before, id LIMIT 1000"
        )
        values = {"queue": queue, "now": db.now, "horizon": db.horizon, "upto": last_id, "not_before": -1, "id": 0}
        while rows := db.execute(query, values).fetchall():
            yield from (task_id for _, task_id in rows)
            values["not_before"], values["id"] = rows[-1]


def used_up(db: Connection, queue: int, most: int, limit: int) -> list[int]:
    """Return up to ``limit`` due tasks of a queue that have had ``most`` attempts or more: those were lowered since."""
    due = " OR ".join(_DUE)
    rows = db.execute(
        "SELECT t.id FROM tasks t WHERE t.lane_id = :queue AND t.status = 'pending' AND t.attempts > 0"
        f" AND t.attempts >= :most AND ({due}) LIMIT :limit",
        {"queue": queue, "most": most, "now": db.now, "horizon": db.horizon, "limit": limit},
    )
    return [row[0] for row in rows]


def lines(db: Connection, ids: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """Yield (task id, line) of these tasks, by id, in pages that are bounded in bytes; no read is open in between."""
    query = (
        "SELECT task_id, line FROM records WHERE task_id IN (SELECT value FROM json_each(?)) AND task_id > ? ORDER BY 1"
    )
    after = 0
    listed = json.dumps(list(ids))
    while rows := pages.first(_unpacked(db, db.execute(query, (listed, after))), lambda row: len(row[1])):
        yield from rows
        after = rows[-1][0]


def not_yet(db: Connection, queue: int) -> tuple[int, int | None]:
    """Return how many pending tasks of a queue wait for their next attempt, and when the first one's time comes, or None."""
    row = db.execute(
        "SELECT count(*), min(not_before) FROM tasks WHERE lane_id = ? AND status = 'pending'"
        " AND not_before > ? AND not_before <= ?",
        (queue, max(db.now, 0), db.horizon),
    ).fetchone()
    return int(row[0]), row[1]


def in_order(db: Connection, batch_id: int) -> list[tuple[int, bool]]:
    """Return a batch's tasks in the order of its request file: each one's id, and whether another stands for its key by now."""
    rows = db.execute("SELECT id, superseded_by IS NOT NULL FROM tasks WHERE batch_id = ? ORDER BY id", (batch_id,))
    return [(task_id, bool(superseded)) for task_id, superseded in rows]


def release(db: Connection, batch_id: int, why: str, *, after: int = 0, not_before: int = 0) -> int:
    """Give a batch's tasks (those with ids above ``after``) back: pending, no attempt counted. Return how many.

    A superseded task is not sent again: it becomes ``cancelled``.
    """
    values = {"after": after, "at": not_before}
    return _give_back(db, batch_id, "id > :after", values, why, "max(not_before, :at)")


def put_off(db: Connection, batch_id: int, ids: Iterable[int], why: str, not_before: int) -> int:
    """Give these tasks of a batch back as :func:`release` does, due from a unix second on. Return how many."""
    values = {"ids": json.dumps(list(ids)), "at": not_before}
    return _give_back(db, batch_id, "id IN (SELECT value FROM json_each(:ids))", values, why, ":at")


def _give_back(
    db: Connection, batch_id: int, which: str, values: Mapping[str, object], why: str, not_before: str
) -> int:
    queue = db.execute("SELECT lane_id FROM batches WHERE id = ?", (batch_id,)).fetchone()[0]
    moves = (
        (TaskStatus.CANCELLED, True, "superseded_by IS NOT NULL"),
        (TaskStatus.PENDING, False, "superseded_by IS NULL"),
    )
    total = 0
    for to, superseded, standing in moves:
        move = moving(TaskStatus.SUBMITTED, to, "batch_id = NULL", f"not_before = {not_before}")
        query = f"{move} AND batch_id = :batch AND {which} AND {standing}"
        n = db.execute(query, {**values, "batch": batch_id}).rowcount
        if n:
            add_to_counts(db, {(queue, TaskStatus.SUBMITTED, superseded): -n, (queue, to, superseded): n})
            log.task(db, queue, batch_id, TaskStatus.SUBMITTED, to, n, why)
        total += n
    return total


def outstanding(db: Connection, batch_id: int) -> int:
    """Return how many tasks a batch has still to account for."""
    return int(db.execute("SELECT count(*) FROM tasks WHERE batch_id = ?", (batch_id,)).fetchone()[0])


def ever_of(db: Connection, batch_id: int, ids: Iterable[int]) -> frozenset[int]:
    """Return which of these ids are tasks that a batch has, or has accounted for."""
    rows = db.execute(
        "SELECT t.id FROM tasks t WHERE t.id IN (SELECT value FROM json_each(?1)) AND (t.batch_id = ?2 OR EXISTS"
        " (SELECT 1 FROM attempts a WHERE a.task_id = t.id AND a.batch_id = ?2))",
        (json.dumps(list(ids)), batch_id),
    )
    return frozenset(row[0] for row in rows)


def first_at(db: Connection) -> int:
    """Return when the first task came in, unix seconds, whether or not it was purged since; 0 when none ever did."""
    row = db.execute("SELECT min(at) FROM transitions").fetchone()
    return int(row[0] or 0)


def last_id(db: Connection) -> int:
    """Return the highest task id ever given."""
    return next_id(db) - 1
