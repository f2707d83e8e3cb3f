"""nura redeliver: what was given up is due again, or is closed for good."""

from typing import TYPE_CHECKING, Annotated

import typer

from nura_cli.cli.grammar import Asked, with_grammar
from nura_cli.cli.session import Session, with_session
from nura_cli.cli.verbs import DryRunOption, WhyOption, YesOption, acting, agree, alone, answer
from nura_cli.errors import EX_CONFIG, EX_PARTIAL, EX_TEMPFAIL, UsageError
from nura_cli.pipeline.report import Problem, Report

if TYPE_CHECKING:
    from nura_cli.config import Config
    from nura_cli.pipeline.redeliver import Wanted
    from nura_cli.state import State
    from nura_cli.state.outbox import Kind
    from nura_cli.state.selection import Selection


EXAMPLES = (
    ("nura redeliver classify --rows", "write the rows that were given up, once what was wrong is mended"),
    ("nura redeliver classify --events --drop --yes", "let go of events that nobody can take"),
)
EXIT_CODES = (EX_PARTIAL, EX_TEMPFAIL, EX_CONFIG)


@with_session
@with_grammar
def command(
    session: Session,
    asked: Asked,
    rows: Annotated[bool, typer.Option("--rows", help="Rows alone; without this and --events: both.")] = False,
    events: Annotated[bool, typer.Option("--events", help="Events alone.")] = False,
    made: Annotated[
        bool, typer.Option("--all", help="Also what was delivered: the application has lost its table.")
    ] = False,
    drop: Annotated[
        bool, typer.Option("--drop", help="Close them instead, and what waits for nobody: they are never delivered.")
    ] = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    why: WhyOption = None,
) -> None:
    """Deliver again what was given up, or close it for good."""
    from nura_cli.pipeline import redeliver

    if made and drop:
        raise UsageError("give one of --all and --drop")
    if not asked.narrowed:
        raise UsageError("name what to deliver again: a workload, a batch or keys")
    named: dict[Kind, bool] = {"row": rows, "event": events}
    wanted = redeliver.Wanted([kind for kind in named if named[kind] or rows == events], made, drop)
    problems: list[Problem] = []
    with acting(session, why) as (state, config):
        parts = list(asked.parts(state, config, problems))
        if dry_run:
            report = redeliver.run(state, config, parts, wanted, dry=True)
        else:
            report = _run(session, state, config, parts, wanted, yes)
    report.problems[:0] = problems
    answer(session, _summary(report, dry_run))
    session.finish(report)


def _run(
    session: Session,
    state: "State",
    config: "Config",
    parts: "list[Selection]",
    wanted: "Wanted",
    yes: bool,
) -> Report:
    """Do it; what deletes, or sends what was received, only if a person agrees, and while nothing is being delivered."""
    from nura_cli.pipeline import redeliver

    if not (wanted.made or wanted.drop):
        return redeliver.run(state, config, parts, wanted)
    foreseen = redeliver.run(state, config, parts, wanted, dry=True)
    if not foreseen.worked:
        return foreseen
    agree(session, _question(foreseen, wanted), yes)
    with alone(state, "reconcile"):
        return redeliver.run(state, config, parts, wanted)


def _question(foreseen: Report, wanted: "Wanted") -> str:
    consequence = "nobody gets them any more" if wanted.drop else "they are delivered though some of them were before"
    return f"{_words(foreseen)}: {consequence}"


def _summary(report: Report, dry_run: bool) -> str:
    if not report.worked:
        return "nothing to deliver again"
    return f"would be: {_words(report)}" if dry_run else _words(report)


def _words(report: Report) -> str:
    from nura_cli.pipeline.redeliver import described

    return described({"row": report.result["rows"], "event": report.result["events"]})
