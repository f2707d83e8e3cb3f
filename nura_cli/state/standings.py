"""How each revision of a workload stands: refused in a row, held by nura itself, let go on by a person.

Every writing function runs inside the caller's transaction.
"""

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from nura_cli.state.connection import Connection


class Held(StrEnum):
    """Why nura itself holds a workload."""

    ACCOUNT = "account"  # the account's trouble goes on and on
    ALIKE = "alike"  # what it sends fails alike
    SEARCH = "search"  # its batches are refused, and no request is found to blame


class Standing(NamedTuple):
    """How a revision of a workload stands. Unix seconds.

    Attributes:
        refusals: its batches that were refused in a row, for what no single request is known to be to blame for.
        refused_at: when the last of them was; later than what was seen to be taken before it, however the clock was set.
        held, held_at: why nura holds the workload for it, and since when; None where it does not.
        released_at: when a person last let the workload go on: what was before counts no more.
        pardoned: that was after it had been held for what its requests are: they fail one by one.
        refused_after: the newest batch when the last of them was counted: of those that were under way together, one counts.
    """

    refusals: int = 0
    refused_at: int = 0
    held: Held | None = None
    held_at: int | None = None
    released_at: int = 0
    pardoned: bool = False
    refused_after: int = 0


_UNKNOWN = Standing()


def of(db: Connection, workload: str, revision: str) -> Standing:
    """Return how a revision of a workload stands."""
    row = db.execute(
        "SELECT refusals, refused_at, held, held_at, released_at, pardoned, refused_after FROM standings"
        " WHERE workload = ? AND revision = ?",
        (workload, revision),
    ).fetchone()
    if row is None:
        return _UNKNOWN
    found = Standing(*row)
    return found._replace(held=None if found.held is None else Held(found.held), pardoned=bool(found.pardoned))


def refused(db: Connection, workload: str, revision: str, refusals: int, *, counted: bool = True) -> int:
    """Note that a batch was refused now, as the last of so many in a row; return the unix second at which that was.

    Args:
        counted: it is one more of them, and those that are under way by now are not.
    """
    row = db.execute(
        "INSERT INTO standings (workload, revision, refusals, refused_at, refused_after) SELECT ?1, ?2, ?3,"
        " max(?4, coalesce((SELECT max(validated_at) FROM batches WHERE workload = ?1 AND revision = ?2"
        " AND validated_at IS NOT NULL), 0)),"
        " CASE WHEN ?5 THEN (SELECT coalesce(max(id), 0) FROM batches) ELSE 0 END WHERE true"
        " ON CONFLICT DO UPDATE SET refusals = excluded.refusals, refused_at = excluded.refused_at,"
        " refused_after = max(refused_after, excluded.refused_after) RETURNING refused_at",
        (workload, revision, refusals, db.now, counted),
    ).fetchone()
    return int(row[0])


def next_second(db: Connection, workload: str, revision: str) -> int:
    """Return the unix second to note for a batch of a revision that is seen to be taken now: later than its last refusal.

    Which of the two was seen first is what a search goes by, within one second and with a clock that was set, too.
    """
    return max(db.now, of(db, workload, revision).refused_at + 1)


def hold(db: Connection, workload: str, revision: str, why: Held) -> None:
    """Note that nura holds a workload for a revision of it; since when does not change while it does."""
    db.execute(
        "INSERT INTO standings (workload, revision, held, held_at) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " held = excluded.held, held_at = coalesce(held_at, excluded.held_at)",
        (workload, revision, why, db.now),
    )


def release(db: Connection, workloads: Sequence[str]) -> None:
    """Note that a person let these workloads go on: counts start anew, and what was held for its requests is pardoned."""
    db.execute(
        "UPDATE standings SET refusals = 0, released_at = ?, held = NULL, held_at = NULL,"
        " pardoned = pardoned OR coalesce(held, 'account') <> 'account'"
        " WHERE workload IN (SELECT value FROM json_each(?))",
        (db.now, json.dumps(list(workloads))),
    )


def undecided(db: Connection, workload: str, revision: str) -> bool:
    """Return whether a batch of a revision is under way of which nobody knows yet whether it is taken."""
    row = db.execute(
        "SELECT 1 FROM batches WHERE revision = ? AND workload = ? AND final_at IS NULL AND validated_at IS NULL"
        " AND faults IS NULL LIMIT 1",
        (revision, workload),
    ).fetchone()
    return row is not None


def validated_since(db: Connection, workload: str, revision: str, at: int) -> bool:
    """Return whether a batch of a revision was seen to be taken, its requests looked at, after a unix second.

    One that was refused after all is none.
    """
    row = db.execute(
        "SELECT 1 FROM batches WHERE revision = ? AND workload = ? AND validated_at > ? AND faults IS NULL LIMIT 1",
        (revision, workload, at),
    ).fetchone()
    return row is not None
