"""The outbox: what the application is still to be told, and which receivers rest.

Deliveries are added in the transaction that settles their tasks. A task's events are added when its row is written, or
with its settling where no row is to be. Every writing function runs inside the caller's transaction.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from nura_cli.state import packed
from nura_cli.state.connection import Connection
from nura_cli.states import EventType, TaskStatus

Kind = Literal["row", "event"]
NO_BATCH = 0
"""Stands for the batch of what is told of a task that no batch settled."""


class Plan(NamedTuple):
    """What a workload's answers set off.

    Attributes:
        rows: the statuses (``completed``, ``failed``, ``cancelled``) for which a row is written.
        events: event type → the receivers that get it.
    """

    rows: frozenset[str] = frozenset()
    events: Mapping[str, tuple[str, ...]] = {}

    @property
    def text(self) -> str:
        """The plan as it is kept with a batch."""
        return json.dumps({"rows": sorted(self.rows), "events": self.events})

    @property
    def receivers(self) -> dict[str, frozenset[str]]:
        """Receiver → the types of events that it gets."""
        targets = dict.fromkeys(target for targets in self.events.values() for target in targets)
        return {one: frozenset(kind for kind, its in self.events.items() if one in its) for one in targets}

    def moved(self, today: "Plan") -> dict[str, str]:
        """Return which receivers have another address today: one that is gone, and one that is new and gets the same."""
        new = {one: types for one, types in today.receivers.items() if one not in self.receivers}
        found = {}
        for one, types in self.receivers.items():
            heir = next((other for other, its in new.items() if its == types), None)
            if heir is not None and one not in today.receivers:
                found[one] = heir
                del new[heir]
        return found

    def joined(self, today: "Plan") -> "Plan":
        """Return all that is due: what was planned, at today's addresses, and what today adds."""
        moved = self.moved(today)
        events = {}
        for kind in {**self.events, **today.events}:
            planned = [moved.get(one, one) for one in self.events.get(kind, ())]
            events[kind] = tuple(dict.fromkeys([*planned, *today.events.get(kind, ())]))
        return Plan(self.rows | today.rows, events)


def row_target(status: str) -> str:
    """Return what stands for the row of a task in the place of a receiver: the option that says what is written for it."""
    return "set" if status == "completed" else f"set_{status}"


def uid(tag: str | None, task_id: int) -> str:
    """Return what a ledger of the application's knows the row of an answer by; ``tag`` is that of the answer's batch."""
    return f"{tag}-{task_id}"


def kept_plan(db: Connection, batch_id: int) -> Plan:
    """Return what was planned for a batch's answers when it was claimed; nothing, for one of an earlier release."""
    row = db.execute("SELECT plan FROM batches WHERE id = ?", (batch_id,)).fetchone()
    kept = json.loads(row[0]) if row and row[0] else {"rows": [], "events": {}}
    return Plan(frozenset(kept["rows"]), {kind: tuple(targets) for kind, targets in kept["events"].items()})


class Delivery(NamedTuple):
    """One delivery that is due.

    Attributes:
        task_id: None for an event about a batch.
        row: of an event: what became of the row before it (None where there is none, or it was refused).
        row_error: of an event: why that row was refused.
        overtaken: the task is superseded, or has another answer by now: nothing is to be delivered.
        bytes: of the task's record and answer, roughly.
        again: how often it was due again after it was over (a row), or told of before under another id (an event).
        outcome: of a row that is due again: what became of it before; None where it was given up.
    """

    id: int
    type: EventType
    task_id: int | None
    batch_id: int
    tries: int
    row: str | None
    row_error: str | None
    created_at: int
    overtaken: bool
    bytes: int
    again: int
    outcome: str | None


def add_for_tasks(
    db: Connection,
    queue: int,
    batch_id: int,
    tasks: Iterable[tuple[int, TaskStatus]],
    plan: Plan,
) -> None:
    """Add what the settling of tasks of one queue sets off: their rows, or at once their events; nobody is told of what is to be
    forgotten.

    Args:
        batch_id: the batch that settled them, or :data:`NO_BATCH`.
        plan: what today's configuration says; what was planned when the batch was claimed is due as well.
    """
    due = kept_plan(db, batch_id).joined(plan)
    if not due.rows and not due.events:
        return
    with_row = []
    without = []
    for task_id, status in tasks:
        kind = EventType(f"task.{status}")
        if status in due.rows:
            with_row.append(("row", row_target(status), kind, batch_id, db.now, queue, task_id))
        else:
            without += [
                ("event", target, kind, batch_id, db.now, queue, task_id) for target in due.events.get(kind, ())
            ]
    db.executemany(
        "INSERT INTO deliveries (kind, workload_id, target, type, task_id, batch_id, seq, created_at)"
        " SELECT ?1, l.workload_id, ?2, ?3, a.task_id, ?4, a.seq, ?5 FROM answers a JOIN lanes l ON l.id = ?6"
        " WHERE a.task_id = ?7 AND NOT EXISTS (SELECT 1 FROM purges p WHERE p.task_id = ?7)",
        [*with_row, *without],
    )


def add_for_batch(
    db: Connection,
    queue: int,
    batch_id: int,
    kind: EventType,
    plan: Plan,
) -> None:
    """Add the events about a batch that is final; ``plan`` as for :func:`settled`."""
    due = kept_plan(db, batch_id).joined(plan)
    db.executemany(
        "INSERT INTO deliveries (kind, workload_id, target, type, batch_id, created_at)"
        " SELECT 'event', workload_id, ?, ?, ?, ? FROM lanes WHERE id = ?",
        [(target, kind, batch_id, db.now, queue) for target in due.events.get(kind, ())],
    )


# A task's next event waits for the one before it and for its row, where that is due again, and a batch's for all its rows.
_DUE = (
    "SELECT d.id, d.type, d.task_id, d.batch_id, d.tries, d.row, d.row_error, d.created_at,"
    " d.task_id IS NOT NULL AND (t.superseded_by IS NOT NULL OR a.seq IS NOT d.seq),"
    f" coalesce({packed.size('a.body')}, 0) + coalesce({packed.size('r.line')}, 0), d.again, d.outcome"
    " FROM deliveries d JOIN workloads w ON w.id = d.workload_id LEFT JOIN tasks t ON t.id = d.task_id"
    " LEFT JOIN answers a ON a.task_id = d.task_id LEFT JOIN records r ON r.task_id = d.task_id"
    " WHERE d.status = 'pending' AND w.name = :workload AND d.kind = :kind AND d.target = :target AND d.id > :after"
    " AND (d.not_before <= :now OR d.not_before > :horizon)"
    " AND NOT EXISTS (SELECT 1 FROM deliveries e WHERE e.status = 'pending' AND e.task_id = d.task_id"
    " AND e.kind = d.kind AND e.target = d.target AND e.id < d.id)"
    " AND NOT (:kind = 'event' AND EXISTS (SELECT 1 FROM deliveries e WHERE e.status = 'pending' AND e.task_id = d.task_id"
    " AND e.kind = 'row'))"
    " AND NOT (d.task_id IS NULL AND EXISTS (SELECT 1 FROM deliveries e WHERE e.status = 'pending' AND e.kind = 'row'"
    " AND e.batch_id = d.batch_id))"
    " ORDER BY d.id LIMIT :limit"
)


def due(
    db: Connection,
    workload: str,
    kind: Kind,
    target: str,
    *,
    after: int = 0,
    limit: int,
) -> list[Delivery]:
    """Return deliveries that are due, by id, none of them of one task with another.

    Args:
        horizon: a ``not_before`` beyond this unix second comes from a wrong clock, and is due now.
        after: only those with a higher id.
    """
    values = {"workload": workload, "kind": kind, "target": target, "now": db.now, "horizon": db.horizon}
    rows = db.execute(_DUE, {**values, "after": after, "limit": limit})
    return [Delivery(*row)._replace(type=EventType(row[1]), overtaken=bool(row[8])) for row in rows]


def waiting(db: Connection, workload: str, kind: Kind, target: str) -> int:
    """Return how many deliveries are still to be made to a target, due or not."""
    row = db.execute(
        "SELECT count(*) FROM deliveries d JOIN workloads w ON w.id = d.workload_id"
        " WHERE d.status = 'pending' AND w.name = ? AND d.kind = ? AND d.target = ?",
        (workload, kind, target),
    ).fetchone()
    return int(row[0])


def done(db: Connection, outcomes: Sequence[tuple[int, str]]) -> None:
    """Note deliveries that were made, each with its outcome."""
    db.executemany(
        "UPDATE deliveries SET status = 'done', outcome = ?, done_at = ? WHERE id = ? AND status = 'pending'",
        [(outcome, db.now, delivery) for delivery, outcome in outcomes],
    )


def dead(db: Connection, refused: Sequence[tuple[int, str]]) -> None:
    """Note deliveries that are given up, each with what the receiver said last."""
    db.executemany(
        "UPDATE deliveries SET status = 'dead', outcome = NULL, tries = tries + 1, said = ?, done_at = ?"
        " WHERE id = ? AND status = 'pending'",
        [(error, db.now, delivery) for delivery, error in refused],
    )


def put_off(db: Connection, refused: Sequence[tuple[int, str, int]]) -> None:
    """Note deliveries that were refused once more, each with what the receiver said and when to try again."""
    db.executemany(
        "UPDATE deliveries SET tries = tries + 1, said = ?, not_before = ? WHERE id = ? AND status = 'pending'",
        [(error, not_before, delivery) for delivery, error, not_before in refused],
    )


class Ended(NamedTuple):
    """What became of a row: its delivery, as events say it (None where it was not written), and why it was refused, if it was."""

    id: int
    type: EventType
    batch_id: int
    word: str | None
    why: str | None


def after_rows(db: Connection, rows: Sequence[Ended], plan: Plan) -> None:
    """Add the events that waited for rows; of a row that was due again they are told under a new id.

    Args:
        plan: as for :func:`add_for_tasks`.
    """
    due = {batch_id: kept_plan(db, batch_id).joined(plan) for batch_id in {one.batch_id for one in rows}}
    db.executemany(
        'INSERT INTO deliveries (kind, workload_id, target, type, task_id, batch_id, seq, "row", row_error, created_at, again)'
        " SELECT 'event', workload_id, ?, type, task_id, batch_id, seq, ?, ?, ?, again FROM deliveries WHERE id = ?",
        [
            (target, one.word, one.why, db.now, one.id)
            for one in rows
            for target in due[one.batch_id].events.get(one.type, ())
        ],
    )


def withdraw(db: Connection, tasks: Sequence[int], outcome: str) -> None:
    """Close what is still to be told of tasks, and what was given up of it: nobody is to get it any more.

    Args:
        outcome: why, in a word: ``superseded``, ``retried``.
    """
    values = (outcome, db.now, json.dumps(list(tasks)))
    for left in ("status = 'pending'", "status <> 'pending' AND status = 'dead'"):  # as their indexes are found
        db.execute(
            f"UPDATE deliveries SET status = 'done', outcome = ?, done_at = ? WHERE {left}"
            " AND task_id IN (SELECT value FROM json_each(?))",
            values,
        )


class Unwritten(NamedTuple):
    """Why an answer is not in its row: it is still to be written there, or that was given up; and what was said last."""

    given_up: bool
    said: str | None


_UNWRITTEN = (
    "SELECT d.task_id, d.status = 'dead', d.said FROM deliveries d JOIN answers a ON a.task_id = d.task_id AND a.seq = d.seq"
    " WHERE d.task_id IN (SELECT value FROM json_each(:ids)) AND d.kind = 'row' AND"
)


_ANY_UNWRITTEN = (
    "SELECT EXISTS (SELECT 1 FROM deliveries WHERE status = 'pending' AND kind = 'row') OR EXISTS (SELECT 1 FROM workloads w"
    " CROSS JOIN deliveries d ON d.workload_id = w.id AND d.kind = 'row' WHERE d.status = 'dead')"
)


def unwritten(db: Connection, ids: Sequence[int]) -> dict[int, Unwritten]:
    """Return which of these tasks' answers are not in their rows, though they are due there."""
    if not db.execute(_ANY_UNWRITTEN).fetchone()[0]:  # as nearly always, and told at once by the indexes
        return {}
    rows = db.execute(
        f"{_UNWRITTEN} d.status = 'pending' UNION ALL {_UNWRITTEN} d.status <> 'pending' AND d.status = 'dead'",
        {"ids": json.dumps(list(ids))},
    )
    return {task_id: Unwritten(bool(given_up), said) for task_id, given_up, said in rows}


class Left(NamedTuple):
    """Deliveries of one workload and target that wait or were given up; the newest one's batch, and what was said of it. One that
    is of a batch goes before those that are of none: it knows whom that was meant for.
    """

    workload: str
    kind: Kind
    target: str
    status: Literal["pending", "dead"]
    n: int
    batch_id: int
    said: str | None


def left(db: Connection) -> list[Left]:
    """Return what waits, and what was given up, by workload and target."""
    rows = [
        row
        for status in ("pending", "dead")
        for row in db.execute(
            f"SELECT w.name, d.kind, d.target, '{status}', count(*), coalesce(max(iif(d.batch_id, d.id, NULL)), max(d.id))"
            " FROM deliveries d"
            f" JOIN workloads w ON w.id = d.workload_id WHERE d.status = '{status}'"
            " GROUP BY d.workload_id, d.kind, d.target"
        )
    ]
    newest = "SELECT batch_id, said FROM deliveries WHERE id = ?"
    return [Left(*row[:5], *db.execute(newest, (row[5],)).fetchone()) for row in rows]


def readdress(db: Connection, waiting: Left, target: str) -> None:
    """Let the events of a workload that wait for a receiver go to another."""
    db.execute(
        "UPDATE deliveries SET target = ? WHERE status = 'pending' AND kind = 'event' AND target = ?"
        " AND workload_id = (SELECT id FROM workloads WHERE name = ?)",
        (target, waiting.target, waiting.workload),
    )


class Pause(NamedTuple):
    """A database or receiver that could not take anything: until when it is left alone, how often in a row, and why."""

    target: str
    paused_until: int
    failures_in_a_row: int
    why: str


_PAUSE = "target, paused_until, strikes, why"


def pauses(db: Connection) -> list[Pause]:
    """Return every target that is paused."""
    return [Pause(*row) for row in db.execute(f"SELECT {_PAUSE} FROM receivers ORDER BY target")]


def pause_of(db: Connection, target: str) -> Pause:
    """Return what is known of a target; one never heard of is not paused."""
    row = db.execute(f"SELECT {_PAUSE} FROM receivers WHERE target = ?", (target,)).fetchone()
    return Pause(*row) if row else Pause(target, 0, 0, "")


def pause(db: Connection, found: Pause) -> None:
    """Leave a target alone until the pause is over."""
    db.execute(
        f"INSERT INTO receivers ({_PAUSE}) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " paused_until = excluded.paused_until, strikes = excluded.strikes, why = excluded.why",
        found,
    )


def resume(db: Connection, target: str) -> None:
    """Forget that a target was paused."""
    db.execute("DELETE FROM receivers WHERE target = ?", (target,))


def known_good(db: Connection, name: str) -> str | None:
    """Return the digest of the options under a name that were last found right, or None."""
    row = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return str(row[0]) if row else None


def remember_good(db: Connection, name: str, digest: str) -> None:
    """Note that options were found right."""
    db.execute(
        "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", (name, digest)
    )
