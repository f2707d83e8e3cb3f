"""nura release: what is held, or rests, is sent again by the next dispatch.

Takes names of workloads or providers; lifts every hold of each, whoever set it, and ends a provider's pauses (what it takes
at once stays known). Of a workload that nura itself held, the counts that led to it start anew, nobody is suspected any more,
and what its requests failed for makes them fail one by one from now on. Leaves batches alone: about those that are held, a
person decides with ``nura resolve``. It waits for no stage and takes no lock but the state file's own; where nothing is held, it
says so.
"""

from collections.abc import Sequence

from nura_cli import contract
from nura_cli.clock import rfc3339, stamp
from nura_cli.config import Config
from nura_cli.pipeline import backoff, holding
from nura_cli.pipeline.report import Report, counted
from nura_cli.state import Connection, State, actions, quotas, runs, standings, suspects
from nura_cli.state.actions import Hold, Scope
from nura_cli.state.runs import Route
from nura_cli.state.standings import Held


def run(state: State, config: Config, scope: Scope, names: Sequence[str]) -> Report:
    """Lift the holds of workloads or providers; of providers, end the pauses too.

    Returns:
        ``released``: the holds that were lifted, each with the ``tasks`` that wait; ``resumed``: the routes whose pauses were
        ended; ``not_held``: the names of which there was neither; ``still_held``: other holds of what was named. Each with a
        ``message``.

    Raises:
        UsageError: a name is not known; nothing was done.
    """
    holding.check_names(state, config, scope, names)
    with state.transaction() as db:
        passed = [hold for hold in holding.end_passed(db, config) if hold.scope == scope and hold.name in names]
        lifted = actions.release(db, scope, names)
        resumed = _end_pauses(db, names) if scope == "provider" else _let_go_on(db, config, names)
        for hold in lifted:
            holding.note(db, config, "release", hold, f"{scope} is released: {holding.described(hold)}")
        released = [_released(db, config, hold) for hold in lifted]
        still = _still_held(db, config, scope, names)
    touched = {hold.name for hold in lifted} | {route.provider for route in resumed}
    result: contract.Released = {
        "released": released,
        "resumed": [_resumed(route) for route in resumed],
        "not_held": [_not_held(name, passed) for name in dict.fromkeys(names) if name not in touched],
        "still_held": [
            {**holding.as_dict(hold), "message": f"{holding.described(hold)}: {holding.release_command(hold)}"}
            for hold in still
        ],
    }
    return Report(result, worked=True)


def _let_go_on(db: Connection, config: Config, names: Sequence[str]) -> list[Route]:
    """Let workloads go on that nura itself held; where that was for trouble of the account, or for refusals of whole batches, end
    the pauses of their routes. Return these as they were.
    """
    suspects.clear_workloads(db, names)
    if not standings.release(db, names) & {Held.ACCOUNT, Held.SEARCH}:
        return []
    chosen = [one for one in config.workloads.values() if one.name in names]
    models = [] if any(one.model is None for one in chosen) else [one.model for one in chosen if one.model]
    return _end_pauses(db, [one.provider for one in chosen], models)


def _end_pauses(db: Connection, providers: Sequence[str], models: Sequence[str] = ()) -> list[Route]:
    """End the pauses of providers and of their routes, of all where no model is named; return them as they were."""
    paused = [
        one
        for one in runs.routes(db)
        if one.provider in providers and backoff.until(one.paused_until, db.now)
        if not models or one.model in (*models, "")
    ]
    quotas.unpause(db, providers)
    for route in paused:
        runs.learn(db, backoff.released(route))
        actions.note(db, "release", f"{_way(route)}: its pause until {rfc3339(route.paused_until)} is ended", 0)
    return paused


def _way(route: Route) -> str:
    return " ".join(part for part in (route.provider, route.endpoint, route.model) if part)


def _released(db: Connection, config: Config, hold: Hold) -> contract.HoldLifted:
    """Return the entry of ``released``."""
    n = holding.waiting(db, config, hold.scope, hold.name)
    waits = counted(n, "task waits", "tasks wait")
    message = f"released: {holding.described(hold)}; {waits} for the next dispatch"
    return {**holding.as_dict(hold), "tasks": n, "message": message}


def _resumed(route: Route) -> contract.PauseEnded:
    """Return the entry of ``resumed``."""
    until = stamp(route.paused_until)
    why = f": {route.why}" if route.why else ""
    return {
        "provider": route.provider,
        "endpoint": route.endpoint or None,
        "model": route.model or None,
        "until": until,
        "why": route.why,
        "message": f"{_way(route)}: its pause until {until} is ended{why}",
    }


def _not_held(name: str, passed: Sequence[Hold]) -> contract.NotHeld:
    """Return the entry of ``not_held``."""
    ended = next((f": its hold ended at {rfc3339(hold.until)}" for hold in passed if hold.name == name), "")
    return {"name": name, "message": f"{name} is not held{ended}"}


def _still_held(db: Connection, config: Config, scope: Scope, names: Sequence[str]) -> list[Hold]:
    """Return what still holds these workloads (their providers), or some workloads of these providers."""
    chosen = [one for one in config.workloads.values() if (one.name if scope == "workload" else one.provider) in names]
    others = {one.provider if scope == "workload" else one.name for one in chosen}
    return [hold for hold in actions.holds(db) if hold.scope != scope and hold.name in others]
