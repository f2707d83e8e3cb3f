"""nura resolve: a person decides what became of a batch that nura holds."""

from typing import Annotated

import typer

from nura_cli import contract
from nura_cli.cli.session import Session, with_session
from nura_cli.cli.stages import Opened, Stage, alone
from nura_cli.cli.verbs import WhyOption, one_line, person
from nura_cli.errors import EX_CONFIG, EX_NOPERM, EX_PARTIAL, EX_TEMPFAIL, UsageError
from nura_cli.pipeline.report import Report

EXAMPLES = (
    ("nura resolve 12 --adopt batch_68c1", "it is that one at the provider"),
    ("nura resolve 12 --resend --why 'not in the console'", "send its tasks again"),
)
EXIT_CODES = (EX_PARTIAL, EX_TEMPFAIL, EX_NOPERM, EX_CONFIG)


@with_session
def command(
    session: Session,
    batch: Annotated[
        list[str], typer.Argument(help="Batches that status names; or their ids at the provider.", show_default=False)
    ],
    adopt: Annotated[str | None, typer.Option(help="It is this batch at the provider.", show_default=False)] = None,
    resend: Annotated[
        bool, typer.Option("--resend", help="Send its tasks again, and pay for them again if it was paid for.")
    ] = False,
    give_up: Annotated[
        bool, typer.Option("--give-up", help="Send nothing again: its tasks fail as lost, or stay cancelled.")
    ] = False,
    why: WhyOption = None,
) -> None:
    """Decide what becomes of a batch that is held, lost or was cancelled at the provider."""
    if (adopt is not None) + resend + give_up != 1:
        raise UsageError("give one of --adopt REMOTE_ID, --resend and --give-up")

    def work(at: Opened) -> Report:
        from nura_cli.pipeline import resolve

        at.state.db.who, at.state.db.why = person(), one_line(why)
        decision = adopt if adopt is not None else resolve.Decision.RESEND if resend else resolve.Decision.GIVE_UP
        return resolve.run(at.state, at.config, at.accounts, batch, decision)

    def summary(report: Report) -> str:
        return f"batch {', '.join(batch)}: {report.result['done']}"

    # Under dispatch's lock: only dispatch and a person move an unconfirmed batch.
    stage = Stage(
        name="resolve",
        work=work,
        summary=summary,
        empty=contract.nothing(contract.Resolved),
        lock="dispatch",
        needed=True,
    )
    alone(session, stage)
