"""nura hold: nothing of a workload, or to a provider, is sent until a person releases it.

Takes names of workloads or providers; leaves a hold for each, which dispatch reads before each upload and each create. What
is at a provider goes on: poll and reconcile bring it home, and an unconfirmed create is found out about. It waits for no
stage and takes no lock but the state file's own: one commit, after which nothing more of it is sent but the create that is
on its way at that moment.
"""

from collections.abc import Sequence

from nura_cli import contract
from nura_cli.clock import rfc3339
from nura_cli.config import Config
from nura_cli.pipeline import holding
from nura_cli.pipeline.report import Report, counted
from nura_cli.state import Connection, State, actions, batches
from nura_cli.state.actions import Hold, Scope
from nura_cli.states import BatchStatus

_GOES_ON = (BatchStatus.SUBMITTING, BatchStatus.SUBMITTED, BatchStatus.COMPLETED)
"""Batches whose create was sent: a hold stops none of them."""


def run(state: State, config: Config, scope: Scope, names: Sequence[str], until: int | None = None) -> Report:
    """Hold workloads or providers; one that is held already is held on, until the new time and for the new reason.

    Args:
        until: the unix second at which the holds end by themselves; None leaves that to a person.

    Returns:
        ``held`` anew, ``already`` held before, and ``holds``, each with the ``tasks`` that wait, the batches ``under_way``
        and a ``message``.

    Raises:
        UsageError: a name is not known; nothing was done.
    """
    holding.check_names(state, config, scope, names)
    with state.transaction() as db:
        holding.end_passed(db, config)
        found = [_held(db, config, scope, name, until) for name in dict.fromkeys(names)]
    new = sum(one["new"] for one in found)
    result: contract.Held = {"held": new, "already": len(found) - new, "holds": found}
    return Report(result, worked=True)


def _held(db: Connection, config: Config, scope: Scope, name: str, until: int | None) -> contract.HoldSet:
    """Hold one workload or provider as a person; return the entry of ``holds``."""
    before = next((one for one in actions.holds(db) if (one.scope, one.name, one.origin) == (scope, name, "")), None)
    now = Hold(scope, name, "", db.now, until, db.who, db.why)
    if before is not None:
        again = now._replace(at=before.at, why=db.why or before.why)
        now = before if (again.until, again.why) == (before.until, before.why) else again
    if now != before:
        actions.hold(db, now)
        holding.note(db, config, "hold", now, f"{scope} {name} is held {_end(now)}")
    left, under_way = holding.waiting(db, config, scope, name), _under_way(db, scope, name)
    return {
        **holding.as_dict(now),
        "new": before is None,
        "tasks": left,
        "under_way": under_way,
        "message": f"{_became(before, now)}; {_left(left, under_way)}",
    }


def _became(before: Hold | None, now: Hold) -> str:
    """Say what was done: held, held on with another end or reason, or nothing."""
    if before is None:
        return f"{now.name} is held {_end(now)}"
    if before == now:
        return f"held already: {holding.described(now)}"
    return f"{holding.described(before)}; it is held now {_end(now)}{f': {now.why}' if now.why else ''}"


def _end(hold: Hold) -> str:
    """Say how a hold ends."""
    return (
        f"until it is released: {holding.release_command(hold)}"
        if hold.until is None
        else f"until {rfc3339(hold.until)}"
    )


def _left(tasks: int, under_way: int) -> str:
    """Say what waits, and what a hold does not stop."""
    goes_on = f", and {counted(under_way, 'batch', 'batches')} under way {'goes' if under_way == 1 else 'go'} on"
    return f"{counted(tasks, 'task waits', 'tasks wait')}{goes_on if under_way else ''}"


def _under_way(db: Connection, scope: Scope, name: str) -> int:
    """Return how many batches of a workload, or at a provider, go on."""
    found = batches.under_way(db, *_GOES_ON)
    return sum((batch.workload if scope == "workload" else batch.provider) == name for batch in found)
