"""What failed, and what could not be delivered: counted by index alone, and the words of the newest of each kind."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from nura_cli.state.connection import Connection
from nura_cli.state.outbox import Left


class Failed(NamedTuple):
    """How many tasks of a workload failed for one kind of error, with one code of the provider's."""

    workload: str
    kind: str
    code: str | None
    n: int


class Said(NamedTuple):
    """What was said of one failure, and the key that it is about, as JSON: None for an event about a batch."""

    words: str | None
    key: str | None


def failed(db: Connection) -> list[Failed]:
    """Return what failed and stands for its key, by workload, kind and code: no answer is looked at."""
    rows = db.execute(
        "SELECT w.name, f.error_kind, f.error_code, sum(f.n) FROM ("
        "SELECT t.lane_id, a.error_kind, a.error_code, count(*) AS n FROM answers a CROSS JOIN tasks t ON t.id = a.task_id"
        " WHERE a.status = 'failed' AND t.superseded_by IS NULL GROUP BY 2, 3, 1"
        ") f JOIN lanes l ON l.id = f.lane_id JOIN workloads w ON w.id = l.workload_id GROUP BY w.id, 2, 3"
    )
    return [Failed(*row) for row in rows]


def words(db: Connection, of: Failed, most: int) -> list[Said]:
    """Return the words of the newest tasks that failed so, of at most so many."""
    rows = db.execute(
        "SELECT a.error_message, r.key FROM answers a CROSS JOIN tasks t ON t.id = a.task_id"
        " CROSS JOIN lanes l ON l.id = t.lane_id CROSS JOIN workloads w ON w.id = l.workload_id"
        " CROSS JOIN records r ON r.task_id = t.id"
        " WHERE a.status = 'failed' AND a.error_kind = ? AND a.error_code IS ? AND t.superseded_by IS NULL AND w.name = ?"
        " ORDER BY a.task_id DESC LIMIT ?",
        (of.kind, of.code, of.workload, most),
    )
    return [Said(*row) for row in rows]


def dead_words(db: Connection, of: Left, most: int) -> Sequence[Said]:
    """Return the words of the newest deliveries of a workload to a target that were given up, of at most so many."""
    rows = db.execute(
        "SELECT d.said, r.key FROM deliveries d LEFT JOIN records r ON r.task_id = d.task_id"
        " WHERE d.status = 'dead' AND d.workload_id = (SELECT id FROM workloads WHERE name = ?) AND d.kind = ?"
        " AND d.target = ? ORDER BY d.id DESC LIMIT ?",
        (of.workload, of.kind, of.target, most),
    )
    return [Said(*row) for row in rows]


class Lately(NamedTuple):
    """The tasks of one workload that failed lately: how many by kind of error, and the key of the newest."""

    workload: str
    kinds: Counter[str]
    key: Any


class Newest(NamedTuple):
    """What failed lately, by workload; ``cut`` where there was more than was looked at."""

    workloads: list[Lately]
    cut: bool


_PAGE = 1000


def lately(db: Connection, since: int, most: int) -> Newest:
    """Return the tasks that failed at ``since`` (unix seconds) or later and stand for their keys, of the newest ``most``.

    What was settled later has a higher seq: beyond a page in which nothing is new nothing is looked at.
    """
    found: dict[str, Lately] = {}
    looked_at = 0
    for page in _failed_newest_first(db, since):
        for workload, kind, key in page:
            found.setdefault(workload, Lately(workload, Counter(), json.loads(key))).kinds[kind] += 1
        looked_at += len(page)
        if looked_at >= most:
            return Newest(list(found.values()), cut=True)
    return Newest(list(found.values()), cut=False)


def _failed_newest_first(db: Connection, since: int) -> Iterator[list[tuple[str, str, str]]]:
    """Yield (workload, kind, key) of what failed at ``since`` or later, in pages."""
    query = (
        "SELECT a.seq, a.finished_at, w.name, a.error_kind, r.key, t.superseded_by FROM answers a"
        " CROSS JOIN tasks t ON t.id = a.task_id CROSS JOIN lanes l ON l.id = t.lane_id"
        " CROSS JOIN workloads w ON w.id = l.workload_id CROSS JOIN records r ON r.task_id = t.id"
        " WHERE a.status <> 'completed' AND a.status = 'failed' AND a.seq < ? ORDER BY a.seq DESC LIMIT ?"
    )
    before = 2**63 - 1
    while rows := db.execute(query, (before, _PAGE)).fetchall():
        new = [row for row in rows if row[1] >= since]
        if not new:
            return
        yield [row[2:5] for row in new if row[5] is None]
        before = rows[-1][0]
