"""Tasks that are final and may be tried again: which they are, the completed ones made anew, the failed ones that take what they have.

Every writing function runs inside the caller's transaction.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from nura_cli.state import answers, batches, log, outbox, selection, tasks
from nura_cli.state.connection import Connection
from nura_cli.states import TaskStatus


class Candidate(NamedTuple):
    """A task that stands for its key and is final.

    Attributes:
        seq: of its answer; another one since then is another candidate.
        revision: of the spec that its batch was rendered with; None for one that no batch settled.
        running: whether a task that runs it again is not final yet, or was not when it was counted.
        kind: of error, of one that failed.
        batch_id: the batch that settled it.
    """

    seq: int
    task_id: int
    queue_id: int
    status: TaskStatus
    revision: str | None
    running: bool
    kind: str | None = None
    batch_id: int | None = None


def newest(db: Connection) -> int:
    """Return the highest seq that an answer ever had."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'answers'").fetchone()
    return int(row[0]) if row else 0


def pages(db: Connection, chosen: selection.Selection, upto: int) -> Iterator[list[Candidate]]:
    """Yield the candidates of a selection, by status and seq, up to that seq, in pages; no read is open in between."""
    for status in chosen.statuses:  # one at a time: by its index they come by seq, and none is sorted
        one = chosen._replace(statuses=[status])
        query, values = _query(one, "a.seq > :after AND a.seq <= :upto ORDER BY a.seq LIMIT :page")
        values |= {"after": 0, "upto": upto, "page": selection.CHUNK}
        while page := _candidates(db.execute(query, values)):
            yield page
            values["after"] = page[-1].seq


def still(db: Connection, found: Sequence[Candidate], upto: int) -> list[Candidate]:
    """Return those of these candidates that are candidates still, as they are now; ``upto`` as for :func:`pages`."""
    query, values = _query(selection.Selection(), "a.seq IN (SELECT value FROM json_each(:seqs)) ORDER BY a.seq")
    return _candidates(db.execute(query, {**values, "seqs": json.dumps([one.seq for one in found]), "upto": upto}))


def _query(chosen: selection.Selection, which: str) -> tuple[str, dict[str, object]]:
    tables, where, values = selection.settled(chosen)
    running = (
        f"EXISTS (SELECT 1 FROM tasks n WHERE n.retry_of = t.id AND (n.{tasks.RUNNING}"
        " OR EXISTS (SELECT 1 FROM answers x WHERE x.task_id = n.id AND x.seq > :upto)))"
    )
    return (
        f"SELECT a.seq, t.id, t.lane_id, t.status, b.revision, {running}, a.error_kind, a.batch_id FROM {tables}"
        f" LEFT JOIN batches b ON b.id = a.batch_id WHERE t.id NOT IN (SELECT task_id FROM purges) AND {where} AND {which}"
    ), values


def _candidates(rows: Iterable[tuple[int, int, int, str, str | None, int, str | None, int | None]]) -> list[Candidate]:
    return [
        Candidate(seq, task_id, queue, TaskStatus(status), revision, bool(running), kind, batch_id)
        for seq, task_id, queue, status, revision, running, kind, batch_id in rows
    ]


def take(db: Connection, queue: int, batch_id: int, ids: Sequence[int], why: str) -> None:
    """Make tasks of a queue completed that a batch left failed, with the responses that they have; the ledger stays as it is.

    What the application was still to be told of their failure is closed.
    """
    listed = json.dumps(list(ids))
    outbox.withdraw(db, ids, "retried")
    move = tasks.moving(TaskStatus.FAILED, TaskStatus.COMPLETED)
    n = db.execute(f"{move} AND id IN (SELECT value FROM json_each(?))", (listed,)).rowcount
    answers.note_moment(db)
    db.execute(  # anew, as what is settled anew: readers go on by seq
        "INSERT OR REPLACE INTO answers (task_id, batch_id, status, finished_at, attempts, body, taken)"
        " SELECT task_id, batch_id, 'completed', ?, attempts, body, 1 FROM answers"
        " WHERE task_id IN (SELECT value FROM json_each(?)) ORDER BY seq",
        (db.now, listed),
    )
    batches.took(db, batch_id, n)
    tasks.add_to_counts(db, {(queue, TaskStatus.FAILED, False): -n, (queue, TaskStatus.COMPLETED, False): n})
    log.task(db, queue, batch_id, TaskStatus.FAILED, TaskStatus.COMPLETED, n, why)


def run_again(db: Connection, queue: int, ids: Sequence[int], why: str) -> None:
    """Make a pending task from the record of each of some completed ones; until it completes the old one stands for the key."""
    if not ids:
        return
    first = tasks.next_id(db)
    pairs = [(first + n, old) for n, old in enumerate(ids)]
    db.executemany(
        "INSERT INTO tasks (id, lane_id, status, retry_of) VALUES (?, ?, 'pending', ?)",
        [(new, queue, old) for new, old in pairs],
    )
    db.executemany(
        "INSERT INTO records (task_id, enqueued_at, key, line) SELECT ?, ?, key, line FROM records WHERE task_id = ?",
        [(new, db.now, old) for new, old in pairs],
    )
    tasks.add_to_counts(db, {(queue, TaskStatus.PENDING, False): len(pairs)})
    log.task(db, queue, None, None, TaskStatus.PENDING, len(pairs), why)
