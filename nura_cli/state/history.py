"""What happened, as the log has it: runs, what persons did, and moves of tasks and batches, each read by time in pages.

No page is open while the next is waited for, so a slow reader holds up nobody.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from nura_cli.state.connection import Connection

_PAGE = 1000
_END_OF_TIME = 2**62


class Part(NamedTuple):
    """What part of the log is meant. Unix seconds; ``until`` is the first that is not.

    ``workloads`` names whose part it is, all when it is empty; ``batch_id`` leaves nothing but what is about that batch.
    """

    since: int
    until: int = _END_OF_TIME
    workloads: Sequence[str] = ()
    batch_id: int | None = None


class Ran(NamedTuple):
    """A run of a stage. Unix seconds; one without an end is at work, or was killed."""

    id: int
    at: int
    stage: str
    workload: str | None
    pid: int
    ended_at: int | None
    exit_code: int | None
    message: str | None


class Acted(NamedTuple):
    """What a person did to ``n`` tasks, rows or events: ``what`` in words, ``why`` in the person's own."""

    id: int
    at: int
    verb: str
    who: str
    workload: str | None
    batch_id: int | None
    n: int
    what: str
    why: str | None


class Moved(NamedTuple):
    """A move of ``n`` tasks, or of a batch (``what``), from one state to another."""

    id: int
    at: int
    what: str
    workload: str | None
    batch_id: int | None
    old: str | None
    new: str
    n: int
    why: str


def runs(db: Connection, part: Part) -> Iterator[Ran]:
    """Yield runs by their start. Those of the stages concern every workload, enqueue's its own; a batch's part has none."""
    query = (
        "SELECT r.id, r.started_at AS at, r.stage, r.workload, r.pid, r.ended_at, r.exit_code, r.message FROM past_runs r"
        " WHERE r.started_at < :until AND (r.started_at, r.id) > (:at, :id)"
        f"{_workloads(part, 'r.workload', 'r.workload IS NULL')}"
    )
    return iter(()) if part.batch_id is not None else (Ran(*row) for row in _pages(db, query, part))


def actions(db: Connection, part: Part) -> Iterator[Acted]:
    """Yield what persons did, by time; what names neither workload nor batch may concern each of them."""
    batch = "" if part.batch_id is None else " AND a.batch_id = :batch_id"
    query = (
        "SELECT a.id, a.at, a.verb, a.who, coalesce(a.workload, b.workload), a.batch_id, a.n, a.what, a.why"
        " FROM actions a LEFT JOIN batches b ON b.id = a.batch_id"
        f" WHERE a.at < :until AND (a.at, a.id) > (:at, :id){batch}"
        f"{_workloads(part, 'coalesce(a.workload, b.workload)', 'coalesce(a.workload, b.workload) IS NULL')}"
    )
    return (Acted(*row) for row in _pages(db, query, part))


def moves(db: Connection, part: Part) -> Iterator[Moved]:
    """Yield the moves of tasks and batches, by time."""
    # The plus keeps the index on the time out of it: a batch has few moves, and they are found by the batch.
    at, batch = ("t.at", "") if part.batch_id is None else ("+t.at", " AND t.batch_id = :batch_id")
    query = (
        "SELECT t.id, t.at, t.what, coalesce(w.name, b.workload), t.batch_id, t.from_status, t.to_status, t.n, t.why"
        " FROM transitions t LEFT JOIN lanes l ON l.id = t.lane_id LEFT JOIN workloads w ON w.id = l.workload_id"
        " LEFT JOIN batches b ON b.id = t.batch_id"
        f" WHERE {at} < :until AND ({at}, t.id) > (:at, :id){batch}"
        f"{_workloads(part, 'coalesce(w.name, b.workload)')}"
    )
    return (Moved(*row) for row in _pages(db, query, part))


def _workloads(part: Part, column: str, other: str = "FALSE") -> str:
    """Return the condition that a row is about one of the workloads that are meant; ``other`` lets more rows in."""
    return f" AND ({column} IN (SELECT value FROM json_each(:workloads)) OR {other})" if part.workloads else ""


def _pages(db: Connection, query: str, part: Part) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a query, whose first columns are id and time, by time; ``:id`` and ``:at`` are those of the last row."""
    values: Mapping[str, Any] = {**part._asdict(), "workloads": json.dumps(part.workloads), "at": part.since, "id": 0}
    while rows := db.execute(f"{query} ORDER BY 2, 1 LIMIT {_PAGE}", values).fetchall():
        yield from rows
        values = {**values, "id": rows[-1][0], "at": rows[-1][1]}
