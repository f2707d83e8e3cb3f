"""The log of transitions: one row for each bulk move, written in the transaction that makes it, and told of."""

from nura_cli import logs
from nura_cli.state.connection import Connection


def task(db: Connection, queue: int, batch: int | None, old: str | None, new: str, n: int, why: str) -> None:
    """Note that ``n`` tasks of a queue moved from ``old`` to ``new`` at unix second ``at``, and why."""
    db.execute(
        "INSERT INTO transitions (at, what, lane_id, batch_id, from_status, to_status, n, why)"
        " VALUES (?, 'task', ?, ?, ?, ?, ?, ?)",
        (db.now, queue, batch, old, new, n, why),
    )
    logs.decided("%s tasks (batch %s): %s -> %s: %s", n, batch or "none", old or "new", new, why)


def batch(db: Connection, batch_id: int, old: str | None, new: str, why: str) -> None:
    """Note that a batch moved from ``old`` to ``new`` at unix second ``at``, and why."""
    db.execute(
        "INSERT INTO transitions (at, what, batch_id, from_status, to_status, n, why) VALUES (?, 'batch', ?, ?, ?, 1, ?)",
        (db.now, batch_id, old, new, why),
    )
    logs.decided("batch %s: %s -> %s: %s", batch_id, old or "new", new, why)
