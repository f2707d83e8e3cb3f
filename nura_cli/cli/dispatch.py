"""nura dispatch."""

from collections.abc import Sequence
from typing import Annotated

import typer

from nura_cli import contract
from nura_cli.cli.session import Session, output, plain, with_session
from nura_cli.cli.stages import Opened, Stage, alone
from nura_cli.errors import EX_CONFIG, EX_NOPERM, EX_PARTIAL, EX_TEMPFAIL
from nura_cli.pipeline.report import Report, counted

EXAMPLES = (
    ("nura dispatch -n", "what would be sent now, about at what cost, and what waits for what"),
    ("nura dispatch --now classify", "send what waits in a workload, few as it may be"),
)
EXIT_CODES = (EX_PARTIAL, EX_TEMPFAIL, EX_NOPERM, EX_CONFIG)


@with_session
def command(
    session: Session,
    workloads: Annotated[list[str] | None, typer.Argument(help="Only these.", show_default="all")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Show what would be sent, with estimates; write nothing.")
    ] = False,
    now: Annotated[
        bool,
        typer.Option("--now", help="Send what waits: no thresholds, no backoff after outages; what is held stays."),
    ] = False,
) -> None:
    """Pack what waits into batches and send them."""
    names = workloads or []
    if dry_run:
        _preview(session, names, now)
        return
    alone(session, stage(names, now=now))


def stage(names: Sequence[str], *, now: bool = False) -> Stage:
    """Return the stage: sending of these workloads, or of all; ``now`` without thresholds and backoff."""

    def work(at: Opened) -> Report:
        from nura_cli.pipeline import dispatch

        say = at.session.say
        return dispatch.run(at.state, at.config, at.accounts, workloads=names, ignore_waits=now, progress=say)

    standing = ("not_due", "waits", "unconfirmed")
    return Stage(
        name="dispatch",
        work=work,
        summary=_summary,
        empty=contract.nothing(contract.Dispatched),
        lock="dispatch",
        standing=standing,
    )


def _summary(report: Report) -> str:
    waits = {name: n for name, n in report.result["not_due"].items() if n}
    rest = "".join(f", {n:,} wait ({name})" for name, n in waits.items())
    unconfirmed = report.result["unconfirmed"]
    doubt = f", {unconfirmed} unconfirmed" if unconfirmed else ""
    return f"{counted(report.result['requests'], 'request')} sent in {counted(len(report.result['batches']), 'batch', 'batches')}{rest}{doubt}"


_ABOUT = {"learned": "about", "max_tokens": "at most about", "floor": "for its input about"}
"""How near an estimate is, by what it goes by."""


def _preview(session: Session, names: list[str], now: bool) -> None:
    """Print what dispatch would send now, and what would wait."""
    from nura_cli.pipeline import preview, queues
    from nura_cli.pipeline.accounts import Accounts

    config = session.config()
    if not config.state.exists():  # nothing waits; and a dry run makes no file
        queues.chosen(config, names)
        session.finish(Report(contract.nothing(contract.Planned)))
        return
    with session.state(config.state) as state, Accounts(config, state.path, state.state_id) as accounts:
        report = preview.run(state, config, accounts, workloads=names, ignore_waits=now)
    if not session.json:
        with output():
            _show(report)
    session.finish(report)


def _show(report: Report) -> None:
    """Print a line for each batch that would go, and one for each reason to wait."""
    for batch in report.result["batches"]:
        cost = f", {_ABOUT[batch['basis']]} ${batch['estimated_cost']}" if batch["estimated_cost"] else ""
        output = f" and {batch['estimated_output_tokens']:,}" if batch["estimated_output_tokens"] else ""
        print(
            f"{batch['workload']}: {counted(batch['requests'], 'request')}, {batch['bytes']:,} bytes,"
            f" about {batch['estimated_tokens']:,}{output} tokens{cost}, to {batch['provider']}"
            f" ({batch['model'] or 'their own models'})"
        )
    for wait in report.result["waits"]:
        model = f" for {wait['model']}" if wait["model"] else ""
        until = f" until {wait['until']}" if wait["until"] else ""
        tasks = "1 waits" if wait["tasks"] == 1 else f"{wait['tasks']:,} wait"
        print(plain(f"{wait['workload']}: {tasks}{model}{until} ({wait['why']}: {wait['message']})"))
