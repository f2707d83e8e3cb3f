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
        refused_at: when the last of them was.
        held, held_at: why nura holds the workload for it, and since when; None where it does not.
        released_at: when a person last let the workload go on: what was before counts no more.
        pardoned: that was after it had been held for what its requests are: they fail one by one.
    """

    refusals: int = 0
    refused_at: int = 0
    held: Held | None = None
    held_at: int | None = None
    released_at: int = 0
    pardoned: bool = False


_UNKNOWN = Standing()


def of(db: Connection, workload: str, revision: str) -> Standing:
    """Return how a revision of a workload stands."""
    row = db.execute(
        "SELECT refusals, refused_at, held, held_at, released_at, pardoned FROM standings WHERE workload = ? AND revision = ?",
        (workload, revision),
    ).fetchone()
    if row is None:
        return _UNKNOWN
    refusals, refused_at, held, held_at, released_at, pardoned = row
    return Standing(refusals, refused_at, None if held is None else Held(held), held_at, released_at, bool(pardoned))


def refused(db: Connection, workload: str, revision: str, refusals: int) -> None:
    """Note that a batch was refused now, as the last of so many in a row."""
    db.execute(
        "INSERT INTO standings (workload, revision, refusals, refused_at) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " refusals = excluded.refusals, refused_at = excluded.refused_at",
        (workload, revision, refusals, db.now),
    )


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


def validated_since(db: Connection, workload: str, revision: str, at: int) -> bool:
    """Return whether a batch of a revision was seen to be taken, its requests looked at, after a unix second."""
    row = db.execute(
        "SELECT 1 FROM batches WHERE revision = ? AND workload = ? AND validated_at > ? LIMIT 1",
        (revision, workload, at),
    ).fetchone()
    return row is not None
