"""nura dispatch."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from nura_cli import clock
from nura_cli.cli.session import Session, output, stage, with_session
from nura_cli.pipeline.report import Report, count

if TYPE_CHECKING:
    from nura_cli.config import Config
    from nura_cli.pipeline.accounts import Accounts
    from nura_cli.state import State

_EMPTY = {"batches": [], "requests": 0, "not_due": {"threshold": 0, "backoff": 0, "paused": 0}, "unconfirmed": 0}


@with_session
def command(
    session: Session,
    workloads: Annotated[list[str] | None, typer.Argument(help="Only these.", show_default="all")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Show what would be sent, with estimates; write nothing.")
    ] = False,
    now: Annotated[
        bool, typer.Option("--now", help="Send what waits: no thresholds, no backoff after outages.")
    ] = False,
) -> None:
    """Pack what waits into batches and send them."""
    names = workloads or []
    if dry_run:
        _plan(session, names)
        return

    def work(state: "State", config: "Config", accounts: "Accounts") -> Report:
        from nura_cli.pipeline import dispatch

        return dispatch.run(state, config, accounts, clock.now, workloads=names, ignore_waits=now, progress=session.say)

    stage(session, work, _summary, _EMPTY)


def _summary(report: Report) -> str:
    waits = {name: n for name, n in report.result["not_due"].items() if n}
    rest = "".join(f", {n:,} wait ({name})" for name, n in waits.items())
    unconfirmed = report.result["unconfirmed"]
    doubt = f", {unconfirmed} unconfirmed" if unconfirmed else ""
    return f"{count(report.result['requests'], 'request')} sent in {count(len(report.result['batches']), 'batch', 'batches')}{rest}{doubt}"


def _plan(session: Session, names: list[str]) -> None:
    from nura_cli.pipeline import dispatch
    from nura_cli.pipeline.accounts import Accounts

    config = session.config()
    with session.state(config.state) as state, Accounts(config, state.path, state.state_id) as accounts:
        report = dispatch.plan(state, config, accounts.dialect, clock.now, names)
    if not session.json:
        with output():
            _show(report.result["batches"])
    session.finish(report)


def _show(planned: list[dict[str, Any]]) -> None:
    for batch in planned:
        due = "due" if batch["due"] else "not due yet"
        cost = f", about ${batch['estimated_cost']} for its input" if batch["estimated_cost"] else ""
        print(
            f"{batch['workload']}: {batch['requests']:,} requests, {batch['bytes']:,} bytes,"
            f" about {batch['estimated_tokens']:,} tokens{cost}, to {batch['provider']}"
            f" ({batch['model'] or 'their own models'}), {due}"
        )
