"""Tasks of refused batches that may be to blame for it: the rows behind the search for the culprit.

Every writing function runs inside the caller's transaction. What is said of a task here is about a pending one, or one that is
under way again: whoever settles it clears it. It counts for the revision of the batch that was refused alone.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from nura_cli.state.connection import Connection

How = Literal["among", "alone", "named"]
"""How a task came under suspicion: among others, refused alone, or named by the provider."""


class Suspect(NamedTuple):
    """A task that may be to blame: since when (unix seconds), for the refusal of which batch, and the provider's words."""

    task_id: int
    queue_id: int
    batch_id: int
    how: How
    since: int
    code: str | None
    said: str | None


class Due(NamedTuple):
    """A suspect that may be sent now: the batch that was refused with it, and how many requests that held."""

    task_id: int
    how: How
    batch_id: int
    requests: int


def add(db: Connection, found: Iterable[Suspect]) -> None:
    """Note suspects; of one that is known, what was last said of it counts."""
    db.executemany(
        "INSERT OR REPLACE INTO suspects (task_id, lane_id, batch_id, how, since, code, said) VALUES (?, ?, ?, ?, ?, ?, ?)",
        found,
    )


def of(db: Connection, task_id: int) -> Suspect | None:
    """Return what a task is suspected of, or None."""
    row = db.execute(f"SELECT {_SUSPECT} FROM suspects WHERE task_id = ?", (task_id,)).fetchone()
    return Suspect(*row) if row else None


_SUSPECT = ", ".join({"queue_id": "lane_id"}.get(name, name) for name in Suspect._fields)


def clear(db: Connection, ids: Sequence[int]) -> None:
    """Let these tasks go: they were answered for, or wait no more."""
    if db.execute("SELECT 1 FROM suspects LIMIT 1").fetchone() is not None:
        db.execute("DELETE FROM suspects WHERE task_id IN (SELECT value FROM json_each(?))", (json.dumps(list(ids)),))


def clear_workloads(db: Connection, workloads: Sequence[str]) -> None:
    """Let all tasks of these workloads go: a person had them go on."""
    db.execute(
        "DELETE FROM suspects WHERE lane_id IN (SELECT l.id FROM lanes l JOIN workloads w ON w.id = l.workload_id"
        " WHERE w.name IN (SELECT value FROM json_each(?)))",
        (json.dumps(list(workloads)),),
    )


def clear_others(db: Connection, queue: int, revision: str) -> None:
    """Let those of a queue's tasks go that were refused under another revision than this one."""
    db.execute(f"DELETE FROM suspects WHERE {_OTHERS}", (queue, revision))


def others(db: Connection, queue: int, revision: str) -> bool:
    """Return whether there are suspects in a queue that were refused under another revision than this one."""
    return db.execute(f"SELECT 1 FROM suspects WHERE {_OTHERS} LIMIT 1", (queue, revision)).fetchone() is not None


_OTHERS = "lane_id = ? AND NOT EXISTS (SELECT 1 FROM batches b WHERE b.id = batch_id AND b.revision = ?)"


def clear_ended(db: Connection) -> None:
    """Let the tasks go that are final: an earlier release, which may use this file, replaces tasks and knows of no suspects."""
    db.execute(
        "DELETE FROM suspects WHERE task_id NOT IN"
        " (SELECT t.id FROM suspects s CROSS JOIN tasks t ON t.id = s.task_id WHERE t.status IN ('pending', 'submitted'))"
    )


def alone(db: Connection, queue: int) -> None:
    """Take it back that the provider named tasks of a queue: each of them is to be tried alone."""
    db.execute("UPDATE suspects SET how = 'alone' WHERE lane_id = ? AND how = 'named'", (queue,))


def last_blamed(db: Connection, queue: int) -> int | None:
    """Return the refused batch for which a task of a queue that still waits was last blamed alone, or named; or None."""
    row = db.execute(
        "SELECT batch_id FROM suspects WHERE lane_id = ? AND how <> 'among' ORDER BY since DESC, batch_id DESC LIMIT 1",
        (queue,),
    ).fetchone()
    return int(row[0]) if row else None


def due(db: Connection, queue: int, revision: str, last_id: int, limit: int) -> list[Due]:
    """Return the suspects of a queue that may be sent, in the order of the search, ``limit`` at most; -1 for all.

    Those go first that were refused among others, the longest ago first: so the other half goes before what was refused of
    this one. Those named by the provider go last. Only what was refused under this revision, up to the task ``last_id``.
    """
    rows = db.execute(
        "SELECT s.task_id, s.how, s.batch_id, b.requests FROM suspects s CROSS JOIN tasks t ON t.id = s.task_id"
        " JOIN batches b ON b.id = s.batch_id WHERE s.lane_id = ? AND t.status = 'pending' AND b.revision = ?"
        " AND (t.not_before <= ? OR t.not_before > ?) AND t.id <= ?"
        " ORDER BY CASE s.how WHEN 'among' THEN 0 WHEN 'alone' THEN 1 ELSE 2 END, s.since, s.batch_id, s.task_id LIMIT ?",
        (queue, revision, max(db.now, 0), db.horizon, last_id, limit),
    )
    return [Due(*row) for row in rows]


def under_way(db: Connection, queue: int) -> bool:
    """Return whether a suspect of a queue is in a batch again."""
    row = db.execute(
        "SELECT 1 FROM suspects s CROSS JOIN tasks t ON t.id = s.task_id WHERE s.lane_id = ? AND t.status = 'submitted' LIMIT 1",
        (queue,),
    ).fetchone()
    return row is not None


def searched(db: Connection) -> set[str]:
    """Return the workloads in which there are suspects."""
    rows = db.execute(
        "SELECT DISTINCT w.name FROM (SELECT DISTINCT lane_id FROM suspects) s JOIN lanes l ON l.id = s.lane_id"
        " JOIN workloads w ON w.id = l.workload_id"
    )
    return {row[0] for row in rows}


def convicted(db: Connection) -> list[int]:
    """Return the refused batches of which tasks were named, and since whose refusal another of their workload and revision was
    seen to be taken; oldest first.
    """
    rows = db.execute(
        "SELECT DISTINCT s.batch_id FROM suspects s JOIN batches b ON b.id = s.batch_id WHERE s.how = 'named'"
        " AND EXISTS (SELECT 1 FROM batches o WHERE o.revision = b.revision AND o.workload = b.workload"
        " AND o.address = b.address AND o.validated_at > s.since AND o.faults IS NULL) ORDER BY s.batch_id"
    )
    return [row[0] for row in rows]


def named(db: Connection, batch_id: int) -> list[Suspect]:
    """Return the tasks that were named with the refusal of a batch, and wait."""
    rows = db.execute(
        f"SELECT {', '.join(f's.{name}' for name in _SUSPECT.split(', '))} FROM suspects s CROSS JOIN tasks t ON t.id = s.task_id"
        " WHERE s.how = 'named' AND s.batch_id = ? AND t.status = 'pending' ORDER BY s.task_id",
        (batch_id,),
    )
    return [Suspect(*row) for row in rows]


def any_at_all(db: Connection) -> bool:
    """Return whether there is any suspect: mostly, there is none."""
    return db.execute("SELECT 1 FROM suspects LIMIT 1").fetchone() is not None
