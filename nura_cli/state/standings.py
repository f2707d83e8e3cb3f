"""How each revision of a workload stands: refused in a row, held by nura itself, let go on by a person.

Every writing function runs inside the caller's transaction.
"""

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from nura_cli.state import batches
from nura_cli.state.connection import Connection


class Held(StrEnum):
    """Why nura itself holds a workload."""

    ACCOUNT = "account"  # the account's trouble goes on and on
    ALIKE = "alike"  # what it sends fails alike
    RENDER = "render"  # its records cannot be rendered, alike
    SEARCH = "search"  # its batches are refused, and no request is found to blame
    CANARY = "canary"  # the first answers of a new revision are of no use


class Standing(NamedTuple):
    """How a revision of a workload stands. Unix seconds.

    Attributes:
        refusals: its batches that were refused in a row, for what no single request is known to be to blame for.
        refused_at: when the last of them was; later than what was seen to be taken before it, however the clock was set.
        refused_after: the newest batch when the last of them was counted: of those that were under way together, one counts.
        held_at: since when nura holds the workload for it; None where it does not.
        pardoned: for what it was held when a person let it go on: for that its requests fail one by one.
        released_at: when a person last let the workload go on, whatever its revision: what was before counts no more.
        released_after: the newest batch by then: earlier ones are no part of what was let go on.
        passed: it has shown itself, by its canary.
    """

    refusals: int = 0
    refused_at: int = 0
    refused_after: int = 0
    held_at: int | None = None
    pardoned: frozenset[Held] = frozenset()
    released_at: int = 0
    released_after: int = 0
    passed: bool = False

    def pardons(self, kind: Held, batch_id: int) -> bool:
        """Return whether the requests of a batch fail one by one for what the workload would be held for otherwise."""
        return kind in self.pardoned and batch_id > self.released_after


def of(db: Connection, workload: str, revision: str) -> Standing:
    """Return how a revision of a workload stands."""
    row = db.execute(
        "SELECT coalesce(max(refusals) FILTER (WHERE revision = ?1), 0), coalesce(max(refused_at) FILTER (WHERE revision = ?1), 0),"
        " coalesce(max(refused_after) FILTER (WHERE revision = ?1), 0), max(held_at) FILTER (WHERE revision = ?1),"
        " coalesce(max(pardoned) FILTER (WHERE revision = ?1), ''), coalesce(max(released_at), 0),"
        " coalesce(max(released_after), 0), coalesce(max(canary = 'passed') FILTER (WHERE revision = ?1), 0)"
        " FROM standings WHERE workload = ?2",
        (revision, workload),
    ).fetchone()
    found = Standing(*row)
    return found._replace(
        pardoned=frozenset(Held(kind) for kind in row[4].split()),
        released_at=min(found.released_at, max(db.now, 0)),
        passed=bool(found.passed),
    )


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


def hold(db: Connection, workload: str, revision: str, why: Held) -> bool:
    """Note that nura holds a workload for a revision of it; since when does not change while it does.

    Return whether it is new that it holds the workload for that.
    """
    every = db.execute("SELECT held FROM standings WHERE workload = ?", (workload,)).fetchall()
    row = db.execute("SELECT held FROM standings WHERE workload = ? AND revision = ?", (workload, revision)).fetchone()
    kinds = " ".join(sorted({why, *(row[0].split() if row else ())}))
    db.execute(
        "INSERT INTO standings (workload, revision, held, held_at) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " held = excluded.held, held_at = coalesce(held_at, excluded.held_at)",
        (workload, revision, kinds, db.now),
    )
    return not any(why in held.split() for (held,) in every)


def release(db: Connection, workloads: Sequence[str]) -> set[Held]:
    """Note that a person let these workloads go on: counts start anew, and for what they were held, but for the account's trouble,
    what is sent from now on fails one by one. Return for what they were held.
    """
    newest = batches.newest(db)
    lifted: set[Held] = set()
    rows = db.execute(
        "SELECT workload, revision, held, pardoned FROM standings WHERE workload IN (SELECT value FROM json_each(?))",
        (json.dumps(list(workloads)),),
    ).fetchall()
    for workload, revision, held, pardoned in rows:
        kinds = {Held(kind) for kind in held.split()}
        lifted |= kinds
        db.execute(
            "UPDATE standings SET refusals = 0, released_at = ?, released_after = ?, held = '', held_at = NULL, pardoned = ?"
            " WHERE workload = ? AND revision = ?",
            (
                db.now,
                newest,
                " ".join(sorted({*pardoned.split(), *kinds} - {Held.ACCOUNT})),
                workload,
                revision,
            ),
        )
    return lifted


def passed(db: Connection, workload: str, revision: str) -> None:
    """Note that a revision of a workload has shown itself; that stays."""
    db.execute(
        "INSERT INTO standings (workload, revision, canary) VALUES (?, ?, 'passed')"
        " ON CONFLICT DO UPDATE SET canary = excluded.canary",
        (workload, revision),
    )


def undecided(db: Connection, workload: str, revision: str, address: str) -> bool:
    """Return whether a batch of a revision is under way at an address of which nobody knows yet whether it is taken."""
    row = db.execute(
        "SELECT 1 FROM batches WHERE revision = ? AND workload = ? AND final_at IS NULL AND validated_at IS NULL"
        " AND faults IS NULL AND address = ? LIMIT 1",
        (revision, workload, address),
    ).fetchone()
    return row is not None


def validated_since(db: Connection, workload: str, revision: str, address: str, at: int) -> bool:
    """Return whether a batch of a revision at an address was seen to be taken, its requests looked at, after a unix second.

    One that was refused after all is none.
    """
    row = db.execute(
        "SELECT 1 FROM batches WHERE revision = ? AND workload = ? AND validated_at > ? AND faults IS NULL"
        " AND address = ? LIMIT 1",
        (revision, workload, at, address),
    ).fetchone()
    return row is not None
