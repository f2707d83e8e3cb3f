"""What became of all requests of a revision lately, by index alone: who was refused for what, and whether any was answered."""

import json
from collections.abc import Sequence
from typing import NamedTuple

from nura_cli.state.answers import Failure
from nura_cli.state.batches import Batch
from nura_cli.state.connection import Connection
from nura_cli.states import ErrorKind, Excuse


class Revision(NamedTuple):
    """A revision of a workload as it is sent to an address; ``batch_id`` is the batch at hand, which is left out."""

    workload: str
    revision: str
    address: str
    batch_id: int


def revision_of(batch: Batch) -> Revision:
    """Return what a batch is one of."""
    return Revision(batch.workload, batch.revision, batch.address, batch.id)


class Alike(NamedTuple):
    """Requests that were refused, or could not be rendered, with the same words: how many there are."""

    code: str | None
    param: str | None
    said: str | None
    n: int


_LATELY = (
    "b.revision = :revision AND b.workload = :workload AND b.address = :address AND b.id <> :batch_id"
    " AND (b.final_at IS NULL OR b.final_at >= :since)"
)


def lately(db: Connection, of: Revision, outcome: ErrorKind, since: int) -> list[Alike]:
    """Return what requests of a revision failed for since a unix second.

    Args:
        outcome: ``refused`` or ``render``.
    """
    rows = db.execute(
        "SELECT a.code, a.param, a.said, count(*) FROM batches b CROSS JOIN attempts a ON a.batch_id = b.id"
        f" WHERE {_LATELY} AND b.faults IS NULL AND a.outcome = '{outcome}' AND a.outcome IN ('refused', 'render') AND a.at >= :since"
        " GROUP BY 1, 2, 3",
        _values(of, since),
    )
    return [Alike(*row) for row in rows]


def judged(db: Connection, of: Revision, since: int) -> int:
    """Return how many requests the batches of a revision that are final since a unix second had, without those that were excused
    for what they were not judged by.
    """
    query = f"SELECT coalesce(sum(b.requests), 0) FROM batches b WHERE {_LATELY} AND b.status = 'reconciled'"
    excused = (
        "SELECT count(*) FROM batches b CROSS JOIN attempts a ON a.batch_id = b.id AND a.excused IN ('account', 'expired')"
        f" WHERE {_LATELY} AND b.status = 'reconciled' AND a.excused IS NOT NULL"
    )
    return int(db.execute(f"SELECT ({query}) - ({excused})", _values(of, since)).fetchone()[0])


def rendered(db: Connection, of: Revision, since: int) -> int:
    """Return how many requests of a revision were rendered since a unix second, in batches that were sent."""
    query = (
        f"SELECT coalesce(sum(b.requests), 0) FROM batches b WHERE {_LATELY} AND b.created_at >= :since"
        " AND b.marker IS NOT NULL"
    )
    return int(db.execute(query, _values(of, since)).fetchone()[0])


def _values(of: Revision, since: int) -> dict[str, object]:
    return {**of._asdict(), "since": since}


def ever_answered(db: Connection, of: Revision) -> bool:
    """Return whether any request of a revision was ever answered."""
    query = "SELECT 1 FROM batches WHERE revision = ? AND workload = ? AND answered > 0 AND address = ? LIMIT 1"
    return db.execute(query, (of.revision, of.workload, of.address)).fetchone() is not None


def ever_rendered(db: Connection, of: Revision) -> bool:
    """Return whether any request of a revision was ever rendered."""
    query = "SELECT 1 FROM batches WHERE revision = ? AND workload = ? AND id <> ? AND requests > 0 LIMIT 1"
    return db.execute(query, (of.revision, of.workload, of.batch_id)).fetchone() is not None


def answered_since(db: Connection, batch: Batch) -> bool:
    """Return whether another batch of a batch's route, sent after it had ended, had an answer."""
    row = db.execute(
        "SELECT 1 FROM batches WHERE provider = ? AND marker IS NOT NULL AND created_at >= ? AND id <> ?"
        " AND endpoint = ? AND model = ? AND address = ? AND answered > 0 LIMIT 1",
        (
            batch.provider,
            db.now if batch.ended_at is None else batch.ended_at,
            batch.id,
            batch.endpoint,
            batch.model,
            batch.address,
        ),
    ).fetchone()
    return row is not None


def most_excused(db: Connection, ids: Sequence[int], excuse: Excuse, since: int = 0) -> int:
    """Return how many attempts of one of these tasks were excused so at most, since its last one that counted and a unix second."""
    row = db.execute(
        "SELECT max(n) FROM (SELECT count(*) AS n FROM attempts a WHERE a.task_id IN (SELECT value FROM json_each(?))"
        " AND a.excused = ? AND a.at >= ? AND NOT EXISTS (SELECT 1 FROM attempts c WHERE c.task_id = a.task_id"
        " AND c.excused IS NULL AND c.at > a.at) GROUP BY a.task_id)",
        (json.dumps(list(ids)), excuse, since),
    ).fetchone()
    return int(row[0] or 0)


def last_failures(db: Connection, ids: Sequence[int]) -> dict[int, tuple[int | None, Failure]]:
    """Return, of each of these tasks, the batch of its last attempt that counted, and why that failed."""
    found: dict[int, tuple[int | None, Failure]] = {}
    rows = db.execute(
        "SELECT task_id, batch_id, outcome, said, code, param FROM attempts"
        " WHERE task_id IN (SELECT value FROM json_each(?)) AND stray = '' AND excused IS NULL ORDER BY task_id, at, batch_id",
        (json.dumps(list(ids)),),
    )
    for task_id, batch_id, outcome, said, code, param in rows:
        known = outcome in ErrorKind.__members__.values()
        kind = ErrorKind(outcome) if known else ErrorKind.PROVIDER_ERROR
        found[task_id] = (batch_id, Failure(kind, said or "its attempts are used up", code, None, param))
    return found
