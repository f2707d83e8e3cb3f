"""nura log: what happened, oldest first: runs, what persons did, and the moves of tasks and batches.

Takes the state file; leaves it as it is. A run stands where it began, before the moves that it made, and says how it ended:
one that has no end is at work as long as its process is there, else it was killed. It reads in pages by time, and looks at
nothing outside of the time that is asked for.

What can go wrong: nothing but the state file. It takes no lock, needs no key and speaks to nobody.
"""

import heapq
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from nura_cli.clock import rfc3339, stamp
from nura_cli.errors import UsageError
from nura_cli.state import State, batches, history, locks, tasks
from nura_cli.state.history import Acted, Moved, Part, Ran

if TYPE_CHECKING:
    from nura_cli import contract

Happened = Ran | Acted | Moved


def check(state: State, part: Part, configured: Collection[str]) -> None:
    """Check what is asked for.

    Args:
        configured: the names of the configured workloads; one that has left the configuration has its past.

    Raises:
        UsageError: there never was such a workload, or batch.
    """
    known = dict.fromkeys([*configured, *(queue.workload for queue in tasks.queues(state.db))])
    for name in part.workloads:
        if name not in known:
            raise UsageError(f"no workload {name}", hint=f"there are: {', '.join(known)}" if known else None)
    if part.batch_id is not None and batches.get(state.db, part.batch_id) is None:
        raise UsageError(f"there is no batch {part.batch_id}", hint="nura log names batches as they were sent")


def entries(state: State, part: Part) -> Iterator[Happened]:
    """Yield what happened, oldest first; of the same second runs first, then what persons did, then moves."""
    readers = history.runs(state.db, part), history.actions(state.db, part), history.moves(state.db, part)
    return heapq.merge(*readers, key=lambda one: one.at)


def killed(ran: Ran) -> bool:
    """Return whether a run has no end because its process was killed."""
    return ran.ended_at is None and not locks.at_work(ran.pid, ran.at)


def as_dict(one: Happened) -> "contract.LogEntry":
    """Return an entry of the log in ``--json``."""
    at = stamp(one.at)
    if isinstance(one, Ran):
        return {
            "kind": "run",
            "at": at,
            "stage": one.stage,
            "workload": one.workload,
            "pid": one.pid,
            "ended_at": rfc3339(one.ended_at),
            "exit_code": one.exit_code,
            "killed": killed(one),
            "message": one.message,
        }
    about: contract.Entry = {"at": at, "workload": one.workload, "batch_id": one.batch_id, "n": one.n}
    if isinstance(one, Acted):
        return {"kind": "action", **about, "verb": one.verb, "who": one.who, "what": one.what, "why": one.why}
    return {"kind": one.what, **about, "from": one.old, "to": one.new, "why": one.why}
