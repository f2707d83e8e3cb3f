"""What became of one key, and of one batch: what nura show reads. Nothing is written here."""

import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nura_cli.state import keys, packed, selection
from nura_cli.state.connection import Connection
from nura_cli.state.selection import Clauses, Selection
from nura_cli.states import TaskStatus

_LARGEST = 2.0**63 - 1024
"""The largest fraction that is an integer of SQLite's."""


class Named(NamedTuple):
    """A key of a workload, as JSON, and the task by which it was found."""

    workload: str
    key: str
    task_id: int


def named(db: Connection, chosen: Selection, most: int) -> list[Named]:
    """Return up to ``most`` keys of a selection: what was settled last comes first, then what is under way, then what waits."""
    found: list[Named] = []
    for clauses, order in _parts(chosen):
        tables, where, values = clauses
        key = selection.KEY if chosen.keys is not None else "r.key"
        query = f"SELECT w.name, {key}, t.id FROM {tables} WHERE {where} ORDER BY {order} LIMIT :most"
        found += [Named(*row) for row in db.execute(query, {**values, "most": most - len(found)})]
    return found


def _parts(chosen: Selection) -> Iterator[tuple[Clauses, str]]:
    if chosen.keys is not None:
        yield selection.of_keys(chosen), "t.id DESC"
        return
    wanted = set(chosen.statuses or TaskStatus)
    if wanted - {TaskStatus.PENDING, TaskStatus.SUBMITTED}:
        tables, where, values = selection.settled(chosen)
        yield Clauses(f"{tables} JOIN records r ON r.task_id = t.id", where, values), "a.seq DESC"
    if chosen.kind is not None or chosen.code is not None:
        return
    if TaskStatus.SUBMITTED in wanted:
        yield selection.submitted(chosen), "t.id"
    if TaskStatus.PENDING in wanted and chosen.batch_id is None:
        yield selection.pending(chosen), "t.id"


class Version(NamedTuple):
    """One task of a key.

    Attributes:
        stands: it is the one that stands for the key now.
        batch_id: the batch that it is in.
        not_before: when it may be sent, where that is put off; unix seconds, as ``enqueued_at``.
        superseded_by, retry_of: the task that took its place; the completed one that it runs again.
        enqueued_at, line: None of what was purged.
        dialect, endpoint, model: of its queue.
    """

    task_id: int
    stands: bool
    status: TaskStatus
    batch_id: int | None
    not_before: int
    superseded_by: int | None
    retry_of: int | None
    enqueued_at: int | None
    line: bytes | None
    dialect: str
    endpoint: str
    model: str


_FAMILY = (
    f"WITH RECURSIVE here (id) AS (SELECT c.task_id FROM {keys.CHOSEN} c JOIN workloads w ON w.id = c.workload_id"
    " WHERE w.name = :workload), family (id) AS (SELECT id FROM here"
    " UNION SELECT t.id FROM family f CROSS JOIN tasks t ON t.superseded_by = f.id"
    " UNION SELECT t.id FROM family f CROSS JOIN tasks t ON t.retry_of = f.id)"
    " SELECT t.id, t.id IN (SELECT id FROM here),"
    " t.status, t.batch_id, t.not_before, t.superseded_by, t.retry_of, r.enqueued_at, r.line, l.dialect, l.endpoint, l.model"
    " FROM family f CROSS JOIN tasks t ON t.id = f.id LEFT JOIN records r ON r.task_id = t.id JOIN lanes l ON l.id = t.lane_id"
    " ORDER BY t.id DESC"
)


def versions(db: Connection, workload: str, key: str) -> list[Version]:
    """Return the tasks that stand or ever stood for a key (in its text form), re-runs among them, the newest first."""
    rows = [Version(*row) for row in db.execute(_FAMILY, {"workload": workload, "keys": json.dumps([key])})]
    return [
        row._replace(
            stands=bool(row.stands),
            status=TaskStatus(row.status),
            line=None if row.line is None else packed.unpack(db, row.line),
        )
        for row in rows
    ]


class Attempt(NamedTuple):
    """One attempt at a task, as the ledger has it: money in pico-dollars, None where no price is known.

    Attributes:
        late: its answer came too late to be applied, and was billed all the same.
        remote_id: its batch at the provider; for a second sending of it, that one's.
        code, said, param: the provider's, where there is no answer: param names the part of the request.
        excused: why it counts as none of the task's, where it does not.
    """

    task_id: int
    batch_id: int
    at: int
    outcome: str
    late: bool
    code: str | None
    said: str | None
    param: str | None
    excused: str | None
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    cost: int | None
    list_cost: int | None
    provider: str | None
    model: str | None
    remote_id: str | None


def attempts(db: Connection, ids: Sequence[int]) -> list[Attempt]:
    """Return the attempts at these tasks, by time."""
    rows = db.execute(
        "SELECT a.task_id, a.batch_id, a.at, a.outcome, a.late, a.code, a.said, a.param, a.excused, a.input_tokens, a.cached_input_tokens,"
        " a.output_tokens, a.cost, a.list_cost, b.provider, b.model, CASE a.stray WHEN '' THEN b.remote_id ELSE a.stray END"
        " FROM attempts a LEFT JOIN batches b ON b.id = a.batch_id WHERE a.task_id IN (SELECT value FROM json_each(?))"
        " ORDER BY a.at, a.batch_id, a.stray",
        (json.dumps(list(ids)),),
    )
    return [Attempt(*row)._replace(late=bool(row[4])) for row in rows]


def last_batch(db: Connection, task_id: int) -> int | None:
    """Return the batch that settled a task, or that it was in last; None where it never was in one that accounted for it."""
    row = db.execute(
        "SELECT coalesce((SELECT batch_id FROM answers WHERE task_id = :task),"
        " (SELECT batch_id FROM attempts WHERE task_id = :task ORDER BY at DESC, batch_id DESC LIMIT 1))",
        {"task": task_id},
    ).fetchone()
    return None if row[0] is None else int(row[0])


class Told(NamedTuple):
    """One delivery about a task. Unix seconds; the words are as :class:`~nura_cli.state.outbox.Delivery` has them."""

    id: int
    task_id: int
    kind: str
    target: str
    type: str
    status: str
    outcome: str | None
    tries: int
    not_before: int
    said: str | None
    row: str | None
    row_error: str | None
    created_at: int
    done_at: int | None


def deliveries(db: Connection, ids: Sequence[int]) -> list[Told]:
    """Return the deliveries about these tasks, made or not, in their order."""
    columns = (
        'd.id, d.task_id, d.kind, d.target, d.type, d.status, d.outcome, d.tries, d.not_before, d.said, d."row",'
        " d.row_error, d.created_at, d.done_at"
    )
    query = " UNION ALL ".join(
        f"SELECT {columns} FROM json_each(:ids) CROSS JOIN deliveries d ON d.task_id = value WHERE d.status {which}"
        for which in ("= 'pending'", "<> 'pending'")  # each has an index of its own
    )
    return [Told(*row) for row in db.execute(f"{query} ORDER BY 1", {"ids": json.dumps(list(ids))})]


class Ended(NamedTuple):
    """What a batch's attempts came to: how many ended so, what they used and cost; cost is None where one has no price."""

    outcome: str
    n: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    cost: int | None


def outcomes(db: Connection, batch_id: int) -> list[Ended]:
    """Return what the attempts of a batch ended as, the most frequent first."""
    tokens, cached, output, cost = (
        f"CAST(min(total({column}), {_LARGEST}) AS INTEGER)"  # sum() fails past 64 bits
        for column in ("input_tokens", "cached_input_tokens", "output_tokens", "cost")
    )
    rows = db.execute(
        f"SELECT outcome, count(*), {tokens}, {cached}, {output}, CASE WHEN count(cost) = count(*) THEN {cost} END"
        " FROM attempts WHERE batch_id = ? GROUP BY outcome ORDER BY 2 DESC, 1",
        (batch_id,),
    )
    return [Ended(*row) for row in rows]


def purged_of(db: Connection, batch_id: int) -> int:
    """Return how many tasks that were in a batch last have neither record nor answer any more."""
    query = (
        "SELECT count(DISTINCT a.task_id) FROM attempts a WHERE a.batch_id = ? AND NOT EXISTS (SELECT 1 FROM records r"
        " WHERE r.task_id = a.task_id) AND NOT EXISTS (SELECT 1 FROM attempts n WHERE n.task_id = a.task_id AND n.batch_id > a.batch_id)"
    )
    return int(db.execute(query, (batch_id,)).fetchone()[0])


def tasks_of(db: Connection, batch_id: int) -> dict[TaskStatus, int]:
    """Return how many tasks a batch holds now, and how many stand as it settled them, by state; what was purged is not among them."""
    held = db.execute("SELECT count(*) FROM tasks WHERE batch_id = ?", (batch_id,)).fetchone()[0]
    rows = db.execute("SELECT status, count(*) FROM answers WHERE batch_id = ? GROUP BY status", (batch_id,))
    return {TaskStatus.SUBMITTED: held, **{TaskStatus(status): n for status, n in rows}}


class Moved(NamedTuple):
    """A line of a batch's log: what moved (``batch``, ``task``, or a person's verb), how many, and why; ``who`` is None for a stage.

    ``before`` and ``after`` are states; None for what a person did.
    """

    at: int
    what: str
    before: str | None
    after: str | None
    n: int
    why: str | None
    who: str | None


def log_of(db: Connection, batch_id: int) -> list[Moved]:
    """Return the log of a batch, by time: its own moves, those of its tasks, and what persons did about it."""
    rows = db.execute(
        "SELECT at, what, from_status, to_status, n, why, NULL, id, 0 FROM transitions WHERE batch_id = :batch"
        " UNION ALL SELECT at, verb, NULL, NULL, n, CASE WHEN why IS NULL THEN what ELSE what || ' (' || why || ')' END, who, id, 1"
        " FROM actions WHERE batch_id = :batch ORDER BY 1, 9, 8",
        {"batch": batch_id},
    )
    return [Moved(*row[:7]) for row in rows]
