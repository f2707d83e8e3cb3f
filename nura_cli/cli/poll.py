"""nura poll."""

from typing import TYPE_CHECKING, Annotated

import typer

from nura_cli.cli.progress import bar
from nura_cli.cli.session import Session, stage, with_session
from nura_cli.errors import UsageError
from nura_cli.pipeline.report import Report, counted

if TYPE_CHECKING:
    from nura_cli.config import Config
    from nura_cli.pipeline.accounts import Accounts
    from nura_cli.state import State

_EMPTY = {"checked": 0, "batches": []}


@with_session
def command(
    session: Session,
    wait: Annotated[
        str | None, typer.Option(help="Stay until all have ended, such as 30m; exit code 75 if they have not.")
    ] = None,
) -> None:
    """Ask after the batches under way, and bring home what has ended."""

    def work(state: "State", config: "Config", accounts: "Accounts") -> Report:
        from nura_cli.pipeline import poll

        with bar(session, "batches ended", only=wait is not None) as advance:
            return poll.run(state, config, accounts, wait=_seconds(wait), progress=advance)

    stage(session, work, _summary, _EMPTY)


def _seconds(wait: str | None) -> int | None:
    from nura_cli.config import duration

    try:
        return None if wait is None else int(duration(wait))
    except ValueError as error:
        raise UsageError(f"--wait {wait}: must be {error}") from error


def _summary(report: Report) -> str:
    home = sum(batch["status"] == "completed" for batch in report.result["batches"])
    return f"{counted(report.result['checked'], 'batch', 'batches')} checked, {home} downloaded"
