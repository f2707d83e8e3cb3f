"""Deliveries that are over, made or given up, and those that nobody takes any more: what ``nura redeliver`` looks at and moves.

Every writing function runs inside the caller's transaction.
"""

import json
from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

from nura_cli.state import answers, keys, selection
from nura_cli.state.connection import Connection
from nura_cli.state.outbox import Kind, row_target
from nura_cli.state.selection import CHUNK, Selection
from nura_cli.states import EventType, TaskStatus

Closing = Literal["superseded", "dropped"]
"""What becomes of a delivery that is not to be made any more."""


class Over(NamedTuple):
    """A delivery that is over, or waits for what left the configuration.

    Attributes:
        task_id: None for an event about a batch.
        again: as of :class:`~nura_cli.state.outbox.Delivery`.
        overtaken: the task is superseded or has another answer by now, or was told of anew since.
        tag: as of an answer's :class:`~nura_cli.state.answers.Row`.
    """

    id: int
    type: EventType
    task_id: int | None
    batch_id: int
    status: Literal["pending", "done", "dead"]
    again: int
    overtaken: bool
    tag: str | None


# Of one answer, its newest row counts, and of its events those told last: by two indexes, of what waits and of what does not.
_NEWER = (
    "EXISTS (SELECT 1 FROM deliveries n WHERE n.task_id = d.task_id AND n.kind = d.kind AND n.seq = d.seq"
    " AND (n.again > d.again OR (d.kind = 'row' AND n.id > d.id)) AND n.status {} 'pending')"
)
_OVER = (
    "SELECT d.id, d.type, d.task_id, d.batch_id, d.status, d.again, d.task_id IS NOT NULL AND (t.superseded_by IS NOT NULL"
    f" OR a.seq IS NOT d.seq OR {_NEWER.format('=')} OR {_NEWER.format('<>')}), {answers.TAG}"
    " FROM deliveries d LEFT JOIN tasks t ON t.id = d.task_id LEFT JOIN answers a ON a.task_id = d.task_id"
    " LEFT JOIN batches b ON b.id = d.batch_id WHERE d.id IN ({}) ORDER BY d.id"
)
MADE = "status = 'done' AND outcome NOT IN ('superseded', 'retried', 'dropped')"
"""As SQL: a delivery was made, and not closed because somebody, or another answer, put an end to it."""
_ENDED = f"(status = 'dead' OR {MADE})"
_OF_KEYS = f"task_id IN (SELECT c.task_id FROM {keys.CHOSEN} c WHERE c.workload_id = (SELECT id FROM workloads WHERE name = :workload))"


def over(
    db: Connection, workload: str, kind: Kind, chosen: Selection, *, made: bool, after: int, upto: int
) -> list[Over]:
    """Return the deliveries of a workload that were given up, by id, up to :data:`~nura_cli.state.selection.CHUNK` of them.

    Args:
        chosen: its keys are looked for; for all else see :func:`meant`.
        made: also those that were made; not those that a person or another answer has put an end to.
        after, upto: only those with a higher id than the one, and none higher than the other.
    """
    if chosen.keys is not None:
        index, where = "INDEXED BY deliveries_over", f"status <> 'pending' AND {_OF_KEYS}"
    else:
        index, where = ("NOT INDEXED", "status <> 'pending'") if made else ("INDEXED BY deliveries_dead", "1")
    ended = _ENDED if made else "status = 'dead'"
    values = {"keys": json.dumps(list(chosen.keys or ())), "upto": upto}
    return _page(db, index, f"{where} AND {ended} AND id <= :upto", workload, kind, after, values)


def waiting(db: Connection, workload: str, kind: Kind, target: str, *, after: int) -> list[Over]:
    """Return the deliveries that wait for a target, due or not, by id, in pages as :func:`over`."""
    return _page(
        db,
        "INDEXED BY deliveries_due",
        "status = 'pending' AND target = :target",
        workload,
        kind,
        after,
        {"target": target},
    )


def _page(
    db: Connection, index: str, where: str, workload: str, kind: Kind, after: int, values: dict[str, object]
) -> list[Over]:
    page = (
        f"SELECT id FROM deliveries {index} WHERE {where} AND kind = :kind AND id > :after"
        " AND workload_id = (SELECT id FROM workloads WHERE name = :workload) ORDER BY id LIMIT :limit"
    )
    rows = db.execute(
        _OVER.format(page), {"workload": workload, "kind": kind, "after": after, "limit": CHUNK, **values}
    )
    return [Over(*row)._replace(type=EventType(row[1]), overtaken=bool(row[6])) for row in rows]


def meant(db: Connection, chosen: Selection, page: Sequence[Over]) -> set[int]:
    """Return which deliveries of a page belong to what is chosen: to a task, or for an event about a batch to a batch."""
    in_batch = [one for one in page if chosen.batch_id in (None, one.batch_id)]
    if chosen._replace(workloads=(), batch_id=None) == selection.Selection():
        return {one.id for one in in_batch}  # also of tasks that no longer stand for their key
    tasks = _tasks(db, chosen, [one.task_id for one in in_batch if one.task_id is not None])
    batches = _batches(db, chosen, [one.batch_id for one in in_batch if one.task_id is None])
    return {one.id for one in in_batch if (one.batch_id in batches if one.task_id is None else one.task_id in tasks)}


def _tasks(db: Connection, chosen: Selection, ids: Collection[int]) -> set[int]:
    tables, where, values = selection.settled(chosen)
    query = f"SELECT a.task_id FROM {tables} WHERE {where} AND a.task_id IN (SELECT value FROM json_each(:ids))"
    return {row[0] for row in db.execute(query, {**values, "ids": json.dumps(list(ids))})}


def _batches(db: Connection, chosen: Selection, ids: Collection[int]) -> set[int]:
    """Return which of these batches ended in the time that is chosen; none where that says something of tasks."""
    if chosen.keys is not None or chosen.statuses or chosen.kind is not None or chosen.code is not None:
        return set()
    rows = db.execute(
        "SELECT id FROM batches WHERE id IN (SELECT value FROM json_each(?)) AND final_at >= ? AND final_at < ?",
        (json.dumps(list(ids)), chosen.since or 0, 2**62 if chosen.until is None else chosen.until),
    )
    return {row[0] for row in rows}


def last_id(db: Connection) -> int:
    """Return the highest id of a delivery that there is."""
    return int(db.execute("SELECT coalesce(max(id), 0) FROM deliveries").fetchone()[0])


# What rows that an earlier release has written had for a target is none any more.
_TARGETS = " ".join(
    f"WHEN 'task.{status}' THEN '{row_target(status)}'"
    for status in (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED)
)


def make_due(db: Connection, kind: Kind, ids: Collection[int], *, made: bool) -> int:
    """Make deliveries due again, under their ids; a row is noted to be written once more. Returns how many were over, but not closed.

    Args:
        made: also those that were made, and not given up alone.
    """
    which = _ENDED if made else "status = 'dead'"
    again = f", again = again + 1, target = CASE type {_TARGETS} END" if kind == "row" else ""
    return db.execute(
        f"UPDATE deliveries SET status = 'pending', tries = 0, not_before = 0, done_at = NULL{again}"
        f" WHERE id IN (SELECT value FROM json_each(?)) AND {which}",
        (json.dumps(list(ids)),),
    ).rowcount


def close(db: Connection, ids: Collection[int], outcome: Closing) -> int:
    """Put an end to deliveries that were not made. Returns how many there were."""
    return db.execute(
        "UPDATE deliveries SET status = 'done', outcome = ?, done_at = ?"
        " WHERE id IN (SELECT value FROM json_each(?)) AND status <> 'done'",
        (outcome, db.now, json.dumps(list(ids))),
    ).rowcount
