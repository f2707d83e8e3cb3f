"""Which tasks are meant: the one grammar of results, show and the operators' verbs, as conditions on the state file.

Only tasks that stand for their key now are ever meant; what was superseded is no one's any more.
"""

import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nura_cli.state import keys
from nura_cli.state.connection import Connection
from nura_cli.states import TaskStatus

CHUNK = 2000
"""Tasks that a verb moves in one transaction, and keys that are looked up at a time."""


class Selection(NamedTuple):
    """Which tasks are meant; each attribute narrows it, and empty ones do not.

    Attributes:
        workloads, statuses: one of these.
        keys: one of these, in their text form (1 and "1" are one key); None for any.
        batch_id: settled by this batch.
        kind, code: failed for this kind of error, and with this code of the provider's.
        since, until: settled (what still waits: enqueued) at this unix second or later, and before that one.
    """

    workloads: Sequence[str] = ()
    statuses: Sequence[TaskStatus] = ()
    keys: Sequence[str] | None = None
    batch_id: int | None = None
    kind: str | None = None
    code: str | None = None
    since: int | None = None
    until: int | None = None


class Clauses(NamedTuple):
    """A selection as SQL: what is read (tasks ``t``, their queues ``l``, workloads ``w``, and answers ``a`` or records ``r``), the
    conditions, and the values bound in them.
    """

    tables: str
    where: str
    values: dict[str, object]


def settled(chosen: Selection) -> Clauses:
    """Return the clauses by which settled tasks of a selection are read: answers ``a`` of tasks ``t``; none of what is to be forgotten."""
    where, values = _of_tasks(chosen)
    where.append("a.task_id NOT IN (SELECT task_id FROM purges)")
    if chosen.statuses:
        one = len(chosen.statuses) == 1  # by its index such answers come by seq
        where.append("a.status = :statuses" if one else "a.status IN (SELECT value FROM json_each(:statuses))")
        statuses = [str(status) for status in chosen.statuses]
        values["statuses"] = statuses[0] if one else json.dumps(statuses)
        if TaskStatus.COMPLETED not in chosen.statuses:
            where.append("a.status <> 'completed'")  # by which the index of what has no answer is found
    for column, value in (("batch_id", chosen.batch_id), ("error_kind", chosen.kind), ("error_code", chosen.code)):
        if value is not None:
            where.append(f"a.{column} = :{column}")
            values[column] = value
    _between(where, values, "a.finished_at", chosen)
    tables = "answers a CROSS JOIN tasks t ON t.id = a.task_id"
    if chosen.keys is not None:
        tables = f"{_BY_KEY} CROSS JOIN answers a ON a.task_id = t.id"
    return Clauses(f"{tables} {_OWNER_AFTER}", " AND ".join(where), values)


def pending(chosen: Selection) -> Clauses:
    """Return the clauses by which tasks of a selection that wait are read: tasks ``t`` and their records ``r``; of a key also the
    one that runs its completed task again.
    """
    where, values = _of_tasks(chosen)
    where.append("t.status = 'pending'")
    if chosen.batch_id is not None or chosen.kind is not None or chosen.code is not None:
        where.append("0")  # what waits has neither
    _between(where, values, "r.enqueued_at", chosen)
    tables = "lanes q CROSS JOIN tasks t ON t.lane_id = q.id" if chosen.keys is None else _WAITING_BY_KEY
    return Clauses(f"{tables} JOIN records r ON r.task_id = t.id {_OWNER}", " AND ".join(where), values)


def submitted(chosen: Selection) -> Clauses:
    """Return the clauses by which tasks under way of a selection without keys and errors are read: tasks ``t``, records ``r``."""
    where, values = _of_tasks(chosen)
    where.append("t.batch_id IS NOT NULL")
    if chosen.batch_id is not None:
        where.append("t.batch_id = :batch_id")
        values["batch_id"] = chosen.batch_id
    _between(where, values, "r.enqueued_at", chosen)
    tables = f"tasks t INDEXED BY tasks_batch JOIN records r ON r.task_id = t.id {_OWNER}"
    return Clauses(tables, " AND ".join(where), values)


def of_keys(chosen: Selection) -> Clauses:
    """Return the clauses by which the tasks of a selection's keys ``c`` are read, whatever their state: ``t``; ``r``, nulls of what was
    purged; and ``a`` or nulls.
    """
    where, values = _of_tasks(chosen)
    if chosen.statuses:
        where.append("t.status IN (SELECT value FROM json_each(:statuses))")
        values["statuses"] = json.dumps([str(status) for status in chosen.statuses])
    for column, value in (("a.error_kind", chosen.kind), ("a.error_code", chosen.code)):
        if value is not None:
            where.append(f"{column} = :{column[2:]}")
            values[column[2:]] = value
    if chosen.batch_id is not None:
        where.append("coalesce(a.batch_id, t.batch_id) = :batch_id")
        values["batch_id"] = chosen.batch_id
    _between(where, values, "coalesce(a.finished_at, r.enqueued_at)", chosen)
    tables = f"{_BY_KEY} LEFT JOIN records r ON r.task_id = t.id LEFT JOIN answers a ON a.task_id = t.id"
    return Clauses(f"{tables} {_OWNER}", " AND ".join(where), values)


class Unanswered(NamedTuple):
    """A key (as JSON) that has no answer: the state of its task, whether an earlier answer of it was superseded, or it was purged, or is
    to be.
    """

    workload: str
    key: str
    status: str
    superseded: int
    purged: int
    wished: int


def unanswered(db: Connection, workloads: Sequence[str], wanted: Sequence[str]) -> list[Unanswered]:
    """Return which of these keys (in their text form) have no answer in the workloads (in all, when empty)."""
    tables, where, values = of_keys(Selection(workloads, keys=wanted))
    earlier = "SELECT 1 FROM tasks x JOIN answers y ON y.task_id = x.id WHERE x.superseded_by = t.id"
    wished = "t.id IN (SELECT task_id FROM purges)"
    query = (
        f"SELECT w.name, {KEY}, t.status, EXISTS ({earlier}), r.task_id IS NULL, {wished} FROM {tables}"
        f" WHERE {where} AND (a.task_id IS NULL OR {wished})"
    )
    return [Unanswered(*row) for row in db.execute(query, values)]


KEY = "coalesce(r.key, iif(substr(c.key, 1, 1) = char(30), substr(c.key, 2), json_quote(c.key)))"
"""As SQL: a key ``c`` as JSON; of one that was purged, which is known as a text alone, as texts."""
# CROSS JOIN: read in the order in which it is written.
_BY_KEY = f"{keys.CHOSEN} c CROSS JOIN tasks t ON t.id = c.task_id"
# By their ids alone: by the index of what waits, each key would be looked for in the whole of its queue.
_WAITING_BY_KEY = (
    f"{keys.CHOSEN} c CROSS JOIN tasks t NOT INDEXED"
    " ON t.id IN (SELECT c.task_id UNION ALL SELECT x.id FROM tasks x WHERE x.retry_of = c.task_id)"
)
_OWNER = "JOIN lanes l ON l.id = t.lane_id JOIN workloads w ON w.id = l.workload_id"
_OWNER_AFTER = _OWNER.replace("JOIN", "CROSS JOIN")


def _of_tasks(chosen: Selection) -> tuple[list[str], dict[str, object]]:
    where, values = ["t.superseded_by IS NULL"], dict[str, object]()
    if chosen.workloads:
        where.append("w.name IN (SELECT value FROM json_each(:workloads))")
        values["workloads"] = json.dumps(list(chosen.workloads))
    if chosen.keys is not None:
        values["keys"] = json.dumps(list(chosen.keys))
    return where, values


def _between(where: list[str], values: dict[str, object], column: str, chosen: Selection) -> None:
    for name, value, comparison in (("since", chosen.since, ">="), ("until", chosen.until, "<")):
        if value is not None:
            where.append(f"+{column} {comparison} :{name}")  # paged by seq or id, not by this column's index
            values[name] = value


class Unknown(NamedTuple):
    """A key that nothing is known of, and the known ones beside it."""

    key: str
    near: Sequence[str]


def unknown(db: Connection, workloads: Sequence[str], wanted: Sequence[str]) -> Iterator[Unknown]:
    """Yield which of these keys (in their text form) none of the workloads has (of all, when empty), each with its neighbours."""
    ids = [
        row[0]
        for row in db.execute(
            "SELECT id FROM workloads WHERE :all OR name IN (SELECT value FROM json_each(:names)) ORDER BY id",
            {"all": not workloads, "names": json.dumps(list(workloads))},
        )
    ]
    for key in wanted:
        if not any(keys.find(db, one, [key]) for one in ids):
            yield Unknown(key, list(dict.fromkeys(near for one in ids for near in keys.beside(db, one, key))))
