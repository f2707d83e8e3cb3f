"""Requests that are tried at once, outside of any batch: their rows of the ledger. No task is concerned.

Every writing function runs inside the caller's transaction.
"""

from nura_cli.state import answers
from nura_cli.state.answers import CHARGED, Charge
from nura_cli.state.connection import Connection


def begin(db: Connection, queue: int, provider: str, model: str, expected: int | None, worst: int | None) -> int:
    """Enter a request that is about to be sent, at an unknown cost: so it stays if nobody says what became of it; return its id.

    Args:
        expected, worst: what it may cost, for the budgets until that is known; in pico-dollars.
    """
    answers.add_totals(db, queue, [Charge(cost=None, list_cost=None)])
    row = db.execute(
        "INSERT INTO trials (lane_id, provider, model, at, expected_cost, worst_cost) VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
        (queue, provider, model, db.now, expected, worst),
    ).fetchone()
    return int(row[0])


def end(db: Connection, trial: int, queue: int, outcome: str, charge: Charge) -> None:
    """Enter what became of a request, and what it used and cost."""
    db.execute(
        f"UPDATE trials SET outcome = ?, ({CHARGED}) = (?, ?, ?, ?, ?, ?) WHERE id = ?", (outcome, *charge, trial)
    )
    answers.known_now(db, queue)
    answers.add_totals(db, queue, [charge])
