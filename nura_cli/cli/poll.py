"""nura poll."""

from typing import Annotated

import typer

from nura_cli import contract
from nura_cli.cli.session import Session, with_session
from nura_cli.cli.stages import Opened, Stage, alone
from nura_cli.errors import EX_CONFIG, EX_NOPERM, EX_PARTIAL, EX_TEMPFAIL, UsageError
from nura_cli.pipeline.report import Report, counted

EXAMPLES = (
    ("nura poll -v", "ask once, and say what came home"),
    ("nura poll --wait 30m", "stay until all batches have ended, half an hour at most"),
)
EXIT_CODES = (EX_PARTIAL, EX_TEMPFAIL, EX_NOPERM, EX_CONFIG)


@with_session
def command(
    session: Session,
    wait: Annotated[
        str | None, typer.Option(help="Stay until all have ended, such as 30m; exit code 75 if they have not.")
    ] = None,
) -> None:
    """Ask after the batches under way, and bring home what has ended."""
    alone(session, stage(seconds(wait)))


def stage(wait: int | None = None) -> Stage:
    """Return the stage: one look, or a stay of ``wait`` seconds."""

    def work(at: Opened) -> Report:
        from nura_cli.pipeline import poll

        return poll.run(at.state, at.config, at.accounts, wait=wait)

    return Stage(name="poll", work=work, summary=_summary, empty=contract.nothing(contract.Polled), lock="poll")


def seconds(wait: str | None) -> int | None:
    """Return what ``--wait`` says, in seconds; None where it was not given. Raises UsageError: it is no length of time."""
    from nura_cli.config_file import duration

    try:
        return None if wait is None else int(duration(wait))
    except ValueError as error:
        raise UsageError(f"--wait {wait}: must be {error}") from error


def _summary(report: Report) -> str:
    home = sum(batch["status"] == "completed" for batch in report.result["batches"])
    return f"{counted(report.result['checked'], 'batch', 'batches')} checked, {home} downloaded"
