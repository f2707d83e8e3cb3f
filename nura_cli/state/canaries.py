"""What is known of canaries: the batches that show a new revision before the rest of it is sent, and what came of them."""

import json
from collections.abc import Collection
from typing import NamedTuple

from nura_cli.state.connection import Connection
from nura_cli.state.outcomes import Revision


class UnderWay(NamedTuple):
    """The canaries of a revision that are not final: how many batches, and requests in them."""

    batches: int
    requests: int


class Ended(NamedTuple):
    """Attempts of canaries that ended alike: how, how many there are, and the task of one; None where all were purged."""

    outcome: str
    n: int
    task_id: int | None


_CANARY = "b.canary = 1 AND b.revision = :revision AND b.workload = :workload AND b.address = :address"


def under_way(db: Connection, of: Revision) -> UnderWay:
    """Return the canaries of a revision that are not final, without the batch at hand and those that a person has to decide about."""
    row = db.execute(
        f"SELECT count(*), coalesce(sum(b.requests), 0) FROM batches b WHERE {_CANARY} AND b.id <> :batch_id AND b.final_at IS NULL"
        " AND b.held IS NULL",
        of._asdict(),
    ).fetchone()
    return UnderWay(*row)


def ended(db: Connection, of: Revision, outcomes: Collection[str]) -> list[Ended]:
    """Return how the attempts of a revision's canaries ended that are final, and those of the batch at hand that are settled.

    Args:
        outcomes: those that count. What was the account's trouble, or ran out of time, does not.
    """
    rows = db.execute(
        "SELECT a.outcome, count(*), min(r.task_id) FROM batches b CROSS JOIN attempts a ON a.batch_id = b.id"
        " LEFT JOIN records r ON r.task_id = a.task_id"
        f" WHERE {_CANARY} AND (b.final_at IS NOT NULL OR b.id = :batch_id) AND a.stray = '' AND a.late = 0"
        " AND a.outcome IN (SELECT value FROM json_each(:outcomes)) AND coalesce(a.excused, '') NOT IN ('account', 'expired')"
        " GROUP BY 1",
        {**of._asdict(), "outcomes": json.dumps(list(outcomes))},
    )
    return [Ended(*row) for row in rows]


def answered_beside(db: Connection, workload: str, revision: str) -> bool:
    """Return whether a batch of a revision that was no canary, and is reconciled, had an answer."""
    query = (
        "SELECT 1 FROM batches WHERE revision = ? AND workload = ? AND answered > 0 AND canary = 0"
        " AND status = 'reconciled' LIMIT 1"
    )
    return db.execute(query, (revision, workload)).fetchone() is not None


def passed_since(db: Connection, of: Revision) -> bool:
    """Return whether another revision of a workload has shown itself, of which batches were made after the one at hand."""
    query = (
        "SELECT 1 FROM standings s JOIN batches b ON b.revision = s.revision AND b.workload = s.workload"
        " WHERE s.workload = ? AND s.revision <> ? AND s.canary = 'passed' AND b.id > ? LIMIT 1"
    )
    return db.execute(query, (of.workload, of.revision, of.batch_id)).fetchone() is not None


def key(db: Connection, task_id: int) -> object:
    """Return the key of a task."""
    return json.loads(db.execute("SELECT key FROM records WHERE task_id = ?", (task_id,)).fetchone()[0])
