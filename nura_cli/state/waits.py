"""Why tasks did not go when dispatch last came by: what ``nura status`` says without deciding it anew.

Every writing function runs inside the caller's transaction.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

from nura_cli.state.connection import Connection


class Waits(NamedTuple):
    """Why tasks of a workload wait; model "" stands for all of its models. Unix seconds.

    Attributes:
        why: one of :class:`nura_cli.states.Why`.
        n: how many tasks that are.
        until: when it ends by itself; None where that is not known.
        since: when dispatch first found it so.
    """

    workload: str
    model: str
    why: str
    n: int
    words: str
    until: int | None
    since: int


_COLUMNS = ", ".join(Waits._fields)


def waits(db: Connection) -> list[Waits]:
    """Return what dispatch found when it last came by, by workload."""
    rows = db.execute(f"SELECT {_COLUMNS} FROM waits ORDER BY workload, model, why")
    return [Waits(*row) for row in rows]


def note(
    db: Connection, workloads: Sequence[str], found: Sequence[Waits], known: Sequence[str]
) -> tuple[list[Waits], list[Waits]]:
    """Note why tasks of these workloads wait now; return what is new, and what is over. Of one that is not ``known`` nothing is kept."""
    db.execute("DELETE FROM waits WHERE workload NOT IN (SELECT value FROM json_each(?))", (json.dumps(list(known)),))
    before = {one[:3]: one for one in waits(db) if one.workload in workloads}
    now = {one[:3]: one for one in found}
    for gone in before.keys() - now.keys():
        db.execute("DELETE FROM waits WHERE workload = ? AND model = ? AND why = ?", gone)
    for key, one in now.items():
        since = before[key].since if key in before else one.since
        db.execute(f"INSERT OR REPLACE INTO waits ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", one._replace(since=since))
    return [one for key, one in now.items() if key not in before], [
        one for key, one in before.items() if key not in now
    ]
