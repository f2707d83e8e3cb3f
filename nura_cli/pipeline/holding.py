"""What holds a workload or a provider: in words, as a line of a run, and ended when its time is over.

A hold is no pause: nothing of what is held goes out until a person releases it (or until the time that the person gave).
Who holds and releases, and who heeds it, shares what stands here.
"""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nura_cli.clock import rfc3339, stamp
from nura_cli.errors import EX_OK, EX_PARTIAL, ProblemKind, UsageError
from nura_cli.pipeline.report import Problem
from nura_cli.state import Connection, State, actions, standings, tasks
from nura_cli.state.actions import Hold, Scope
from nura_cli.state.standings import Held

if TYPE_CHECKING:
    from nura_cli import contract
    from nura_cli.config import Config


def described(hold: Hold) -> str:
    """Return who holds what since when, until when, and why: ``echo is held by tim since …, until …: too dear``."""
    until = f", until {rfc3339(hold.until)}" if hold.until is not None else ""
    reason = hold.origin or hold.why
    return (
        f"{hold.name} is held by {hold.who or 'nura'} since {rfc3339(hold.at)}{until}{f': {reason}' if reason else ''}"
    )


def release_command(hold: Hold) -> str:
    """Return what to type to lift a hold."""
    option = "--provider " if hold.scope == "provider" else ""
    return f"nura release {option}{shlex.quote(hold.name)}"


def problem(hold: Hold) -> Problem:
    """Return a hold as what a run has to say of it: it lasts, and nothing went wrong in this run."""
    return Problem(
        ProblemKind.HELD,
        described(hold),
        EX_OK,
        hint=release_command(hold),
        provider=hold.name if hold.scope == "provider" else None,
        workload=hold.name if hold.scope == "workload" else None,
        about=hold.origin or None,
    )


def hold_by_itself(db: Connection, workload: str, revision: str, why: Held, reason: str) -> Problem | None:
    """Hold a workload because of what became of a revision of it; return that as a problem of the run's, None where nura holds it
    for that already.

    Args:
        reason: in words, for a person: what happened.
    """
    new = standings.hold(db, workload, revision, why)
    if not new and any((one.scope, one.name) == ("workload", workload) and one.origin for one in actions.holds(db)):
        return None
    found = by_nura(workload, reason, db.now)
    actions.hold(db, found)
    n = tasks.pending(db).get(workload, 0)
    actions.note(db, "hold", f"workload is held: {described(found)}", n, workload=workload, by_itself=True)
    return onset(found)


def by_nura(workload: str, reason: str, at: int) -> Hold:
    """Return a hold that nura sets by itself, at a unix second."""
    return Hold("workload", workload, reason, at, None, "", None)


def onset(hold: Hold) -> Problem:
    """Return a hold as what the run has to say that sets it."""
    return replace(problem(hold), exit_code=EX_PARTIAL)


def as_dict(hold: Hold) -> "contract.Hold":
    """Return a hold as every command's ``--json`` shows it; ``origin`` is null for a person's."""
    return {
        "scope": hold.scope,
        "name": hold.name,
        "origin": hold.origin or None,
        "since": stamp(hold.at),
        "until": rfc3339(hold.until),
        "who": hold.who,
        "why": hold.why,
    }


def check_names(state: State, config: "Config", scope: Scope, names: Sequence[str]) -> None:
    """Check what is to be held or released: it is configured, has tasks from before, or is held.

    Raises:
        UsageError: one is none of these.
    """
    known = {hold.name for hold in actions.holds(state.db) if hold.scope == scope}
    if scope == "workload":
        known |= {queue.workload for queue in tasks.queues(state.db)}
    for name in names:
        if name in known:
            continue
        if scope == "workload":
            config.workload(name)
        elif name not in config.providers:
            raise UsageError(
                f"no provider {name} is configured", hint=f"there is {', '.join(config.providers) or 'none'}"
            )


def waiting(db: Connection, config: "Config", scope: Scope, name: str) -> int:
    """Return how many tasks wait in a workload, or in those of a provider."""
    names = {name} if scope == "workload" else {one.name for one in config.workloads.values() if one.provider == name}
    return sum(n for workload, n in tasks.pending(db).items() if workload in names)


def end_passed(db: Connection, config: "Config") -> list[Hold]:
    """Lift the holds whose time is over, note it, and return them."""
    passed = actions.end_passed(db)
    for hold in passed:
        what = f"{hold.scope} {hold.name}: its hold, set by {hold.who or 'nura'} at {rfc3339(hold.at)}, ended at {rfc3339(hold.until)}"
        note(db, config, "release", hold, what, by_itself=True)
    return passed


def note(db: Connection, config: "Config", verb: str, hold: Hold, what: str, *, by_itself: bool = False) -> None:
    """Note what was done to a hold, with how many tasks wait there; ``by_itself`` as :func:`actions.note` has it."""
    n = waiting(db, config, hold.scope, hold.name)
    workload = hold.name if hold.scope == "workload" else None
    actions.note(db, verb, what, n, workload=workload, by_itself=by_itself)
