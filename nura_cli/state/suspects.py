"""Tasks of refused batches that may be to blame for it: the rows behind the search for the culprit.

Every writing function runs inside the caller's transaction. What is said of a task here is about a pending one, or one that is
under way again: whoever settles it clears it.
"""

import json
from collections.abc import Sequence
from typing import Literal, NamedTuple

from nura_cli.state.connection import Connection

How = Literal["among", "alone", "named"]
"""How a task came under suspicion: among others, refused alone, or named by the provider."""


class Suspect(NamedTuple):
    """A task that may be to blame: since when (unix seconds), for the refusal of which batch, and the provider's words."""

    task_id: int
    queue_id: int
    batch_id: int
    how: How
    since: int
    code: str | None
    said: str | None


def clear(db: Connection, ids: Sequence[int]) -> None:
    """Let these tasks go: they were answered for, or wait no more."""
    if db.execute("SELECT 1 FROM suspects LIMIT 1").fetchone() is not None:
        db.execute("DELETE FROM suspects WHERE task_id IN (SELECT value FROM json_each(?))", (json.dumps(list(ids)),))
