"""What persons did, and what they hold: the rows behind hold, release and the other verbs of an operator."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from nura_cli import logs
from nura_cli.state.connection import Connection

Scope = Literal["workload", "provider"]


def note(
    db: Connection,
    verb: str,
    what: str,
    n: int,
    *,
    workload: str | None = None,
    batch_id: int | None = None,
    by_itself: bool = False,
) -> None:
    """Note what a person did, in the transaction that does it; who it is, and why, the connection knows.

    Args:
        what: in words: ``3 failed tasks wait again``.
        n: how many tasks, rows or events that were.
        by_itself: nobody did it: its time had come.
    """
    who, why = ("", None) if by_itself else (db.who, db.why)
    db.execute(
        "INSERT INTO actions (at, verb, who, workload, batch_id, n, what, why) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (db.now, verb, who, workload, batch_id, n, what, why),
    )
    logs.decided("nura %s by %s: %s%s", verb, who or "nobody", what, f" ({why})" if why else "")


def newest(db: Connection, since: int) -> dict[str | None, int]:
    """Return when persons last did something about each workload, of what they did at ``since`` or later; unix seconds.

    What names no workload, and may concern each of them, stands under None.
    """
    rows = db.execute(
        "SELECT coalesce(a.workload, b.workload), max(a.at) FROM actions a LEFT JOIN batches b ON b.id = a.batch_id"
        " WHERE a.at >= ? AND a.who <> '' GROUP BY 1",
        (since,),
    )
    return dict(rows.fetchall())


def words(db: Connection, done: str) -> str:
    """Return what the person at work has done, with who it is, and why: ``cancelled by tim: a runaway``."""
    return f"{done} by {db.who or 'nobody'}" + (f": {db.why}" if db.why else "")


class Hold(NamedTuple):
    """Why nothing goes to a workload or provider. Unix seconds; ``until`` is None where only a person ends it.

    ``origin`` is empty for a person's hold, and says why for one that nura set by itself.
    """

    scope: Scope
    name: str
    origin: str
    at: int
    until: int | None
    who: str
    why: str | None


_HOLD = ", ".join(Hold._fields)


def holds(db: Connection) -> list[Hold]:
    """Return what is held now, the longest first."""
    rows = db.execute(
        f"SELECT {_HOLD} FROM holds WHERE until IS NULL OR until > ? ORDER BY at, scope, name, origin", (db.now,)
    )
    return [Hold(*row) for row in rows]


def held(db: Connection, workload: str, provider: str) -> Hold | None:
    """Return what holds a workload, or its provider, the longest; None where it may be sent."""
    row = db.execute(
        f"SELECT {_HOLD} FROM holds WHERE (scope, name) IN (('workload', ?), ('provider', ?))"
        " AND (until IS NULL OR until > ?) ORDER BY until IS NOT NULL, until DESC, scope DESC, at LIMIT 1",
        (workload, provider, db.now),
    ).fetchone()
    return Hold(*row) if row else None


def hold(db: Connection, found: Hold) -> None:
    """Hold a workload or provider; one that is held for the same reason is held on, with its new time and words."""
    db.execute(
        f"INSERT INTO holds ({_HOLD}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " until = excluded.until, who = excluded.who, why = excluded.why, ended_at = NULL",
        found,
    )


def end_passed(db: Connection) -> list[Hold]:
    """Note that the time of holds is over; return them. They are forgotten a week later: a clock may have jumped ahead, and what
    it ended is held again once it is set right.
    """
    db.execute("DELETE FROM holds WHERE until <= ? AND ended_at <= ?", (db.now, db.now - _FORGOTTEN_AFTER))
    rows = db.execute(
        f"UPDATE holds SET ended_at = ? WHERE until <= ? AND ended_at IS NULL RETURNING {_HOLD}", (db.now, db.now)
    ).fetchall()
    return [Hold(*row) for row in rows]


_FORGOTTEN_AFTER = 7 * 86400


def release(db: Connection, scope: Scope, names: Sequence[str]) -> list[Hold]:
    """Lift every hold of these workloads or providers, whoever set it; return them."""
    lifted = [one for one in holds(db) if one.scope == scope and one.name in names]
    db.executemany("DELETE FROM holds WHERE scope = ? AND name = ?", [(scope, name) for name in names])
    return lifted
