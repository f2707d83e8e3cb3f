"""nura resolve: a person decides what became of a batch that nura holds."""

from typing import TYPE_CHECKING, Annotated

import typer

from nura_cli import clock
from nura_cli.cli.session import Session, stage, with_session
from nura_cli.errors import UsageError
from nura_cli.pipeline.report import Report

if TYPE_CHECKING:
    from nura_cli.config import Config
    from nura_cli.pipeline.accounts import Accounts
    from nura_cli.state import State


@with_session
def command(
    session: Session,
    batch: Annotated[list[str], typer.Argument(help="A held batch, as status names it; or batches at the provider.")],
    adopt: Annotated[str | None, typer.Option(help="It is this batch at the provider.", show_default=False)] = None,
    resend: Annotated[bool, typer.Option("--resend", help="It is not there: send its tasks again.")] = False,
) -> None:
    """Decide what became of a batch that is held."""
    if (adopt is None) == (not resend):
        raise UsageError("give one of --adopt REMOTE_ID and --resend")

    def work(state: "State", config: "Config", accounts: "Accounts") -> Report:
        from nura_cli.pipeline import resolve

        return resolve.run(state, accounts, clock.now, batch, adopt)

    def summary(report: Report) -> str:
        return f"batch {', '.join(batch)}: {report.result['done']}"

    # Under dispatch's lock: only dispatch and a person move an unconfirmed batch.
    stage(session, work, summary, {"done": None}, lock="dispatch")
