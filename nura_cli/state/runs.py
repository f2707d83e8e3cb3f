"""Each stage's last run and its runs of the last month, the problems that last, and the routes that are paused."""

from typing import NamedTuple

from nura_cli import logs
from nura_cli.clock import rfc3339
from nura_cli.state.connection import Connection

KEPT_SECONDS = 30 * 86400
"""How long a run stays in the log."""
_PRUNED = 1000
"""Runs that are over that age, and are deleted by one that begins: whatever has piled up, none takes long."""


class Run(NamedTuple):
    """A stage's last run: when it started, who ran it, when it last ended well, how it ended. Unix seconds."""

    stage: str
    started_at: int
    pid: int
    ended_at: int | None
    ok_at: int | None
    exit_code: int | None
    message: str | None


def started(db: Connection, stage: str, pid: int) -> None:
    """Note that a stage begins; how the run before it ended well stays known."""
    db.execute(
        "INSERT INTO runs (stage, started_at, pid) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET"
        " started_at = excluded.started_at, pid = excluded.pid, ended_at = NULL, exit_code = NULL, message = NULL",
        (stage, db.now, pid),
    )


def ended(db: Connection, stage: str, exit_code: int, message: str | None) -> None:
    """Note how a stage ended."""
    db.execute(
        "UPDATE runs SET ended_at = ?, exit_code = ?, message = ?, ok_at = CASE WHEN ? = 0 THEN ? ELSE ok_at END"
        " WHERE stage = ?",
        (db.now, exit_code, message, exit_code, db.now, stage),
    )


def runs(db: Connection) -> dict[str, Run]:
    """Return each stage's last run."""
    rows = db.execute("SELECT stage, started_at, pid, ended_at, ok_at, exit_code, message FROM runs")
    return {row[0]: Run(*row) for row in rows}


def begun(db: Connection, stage: str, pid: int, workload: str | None, at: int) -> int:
    """Note in the log that a run begins, or began at ``at``, unix seconds; return its number. What is too old leaves the log."""
    old = "SELECT id FROM past_runs WHERE started_at < ? ORDER BY started_at LIMIT ?"
    db.execute(f"DELETE FROM past_runs WHERE id IN ({old})", (db.now - KEPT_SECONDS, _PRUNED))
    row = db.execute(
        "INSERT INTO past_runs (stage, workload, started_at, pid) VALUES (?, ?, ?, ?) RETURNING id",
        (stage, workload, at, pid),
    ).fetchone()
    return int(row[0])


def resumed(db: Connection, run: int) -> None:
    """Note in the log that a run, by its number, goes on."""
    db.execute("UPDATE past_runs SET ended_at = NULL, exit_code = NULL, message = NULL WHERE id = ?", (run,))


def done(db: Connection, run: int, exit_code: int, message: str) -> None:
    """Note in the log how a run, by its number, ended, and what it said."""
    db.execute(
        "UPDATE past_runs SET ended_at = ?, exit_code = ?, message = ? WHERE id = ?", (db.now, exit_code, message, run)
    )


class Enqueued(NamedTuple):
    """The last enqueue of a workload that is in the log: when it began (unix seconds), and how it ended."""

    workload: str
    at: int
    exit_code: int | None
    message: str | None


def last_enqueues(db: Connection, since: int) -> list[Enqueued]:
    """Return the last enqueue of each workload among those in the log that began at ``since`` or later, and have ended."""
    rows = db.execute(
        "SELECT workload, started_at, exit_code, message, max(id) FROM past_runs"
        " WHERE started_at >= ? AND stage = 'enqueue' AND workload IS NOT NULL AND ended_at IS NOT NULL GROUP BY workload",
        (since,),
    )
    return [Enqueued(*row[:4]) for row in rows]


def problem(db: Connection, stage: str, scope: str, message: str, remind: int) -> bool:
    """Note a problem of a stage; return whether it is to be said now.

    It is said when it begins and every ``remind`` seconds while it lasts. A clock set back starts it anew.
    """
    # Another stage may have met the same outage, and said so.
    row = db.execute("SELECT min(since), max(said_at) FROM troubles WHERE scope = ?", (scope,)).fetchone()
    since, said_at = row if row[0] is not None else (db.now, -remind)
    say = not said_at <= db.now < said_at + remind
    said_at = db.now if say else said_at
    db.execute(
        "INSERT INTO troubles (stage, scope, since, said_at, message) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " since = excluded.since, said_at = excluded.said_at, message = excluded.message",
        (stage, scope, since, said_at, message),
    )
    return bool(say)


def over(db: Connection, stage: str, but: set[str]) -> None:
    """Forget a stage's problems, except those in these scopes: they are over, or will begin anew."""
    for (scope,) in db.execute("SELECT scope FROM troubles WHERE stage = ?", (stage,)).fetchall():
        if scope not in but:
            db.execute("DELETE FROM troubles WHERE stage = ? AND scope = ?", (stage, scope))


class Route(NamedTuple):
    """What nura learned about one way to a provider; endpoint and model "" mean the whole provider.

    Attributes:
        paused_until: nothing is sent before this unix second.
        failures_in_a_row: how often in a row it was refused: the pause grows with it.
        cap: requests to send in one batch at most, learned from refusals, or None.
        why: what the provider said.
    """

    provider: str
    endpoint: str
    model: str
    paused_until: int
    failures_in_a_row: int
    cap: int | None
    why: str | None


_ROUTE = "provider, endpoint, model, paused_until, strikes, cap, why"
_WHERE = "WHERE provider = ? AND endpoint = ? AND model = ?"


def routes(db: Connection) -> list[Route]:
    """Return every route something was learned about."""
    return [Route(*row) for row in db.execute(f"SELECT {_ROUTE} FROM routes ORDER BY provider, endpoint, model")]


def route(db: Connection, provider: str, endpoint: str = "", model: str = "") -> Route:
    """Return what is known of a route; one never heard of is open."""
    row = db.execute(f"SELECT {_ROUTE} FROM routes {_WHERE}", (provider, endpoint, model)).fetchone()
    return Route(*row) if row else Route(provider, endpoint, model, 0, 0, None, None)


def _tell(route: Route) -> None:
    logs.decided(
        "%s: sent to again %s, %s failures in a row, at most %s requests a batch: %s",
        "/".join(part for part in (route.provider, route.endpoint, route.model) if part),
        f"from {rfc3339(route.paused_until)} on" if route.paused_until else "at once",
        route.failures_in_a_row,
        route.cap or "any number of",
        route.why or "it answered",
    )


def learn(db: Connection, known: Route) -> None:
    """Store what is known of a route now; an open one without a cap leaves no row."""
    if known != route(db, known.provider, known.endpoint, known.model):
        _tell(known)
    if not (known.paused_until or known.failures_in_a_row or known.cap):
        db.execute(f"DELETE FROM routes {_WHERE}", (known.provider, known.endpoint, known.model))
        return
    db.execute(
        f"INSERT INTO routes ({_ROUTE}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " paused_until = excluded.paused_until, strikes = excluded.strikes, cap = excluded.cap, why = excluded.why",
        known,
    )
