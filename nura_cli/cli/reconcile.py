"""nura reconcile."""

from nura_cli import contract
from nura_cli.cli.session import Session, with_session
from nura_cli.cli.stages import Opened, Stage, alone
from nura_cli.errors import EX_CONFIG, EX_PARTIAL, EX_TEMPFAIL
from nura_cli.pipeline.report import Report

EXAMPLES = (
    ("nura reconcile", "settle what poll brought home, write rows, send events"),
    ("nura reconcile -v", "the same, and say how many of each"),
)
EXIT_CODES = (EX_PARTIAL, EX_TEMPFAIL, EX_CONFIG)


@with_session
def command(session: Session) -> None:
    """Account for every task of the finished batches."""
    alone(session, stage())


def stage() -> Stage:
    """Return the stage."""

    def work(at: Opened) -> Report:
        from nura_cli.pipeline import reconcile

        return reconcile.run(at.state, at.config)

    return Stage(
        name="reconcile", work=work, summary=_summary, empty=contract.nothing(contract.Reconciled), lock="reconcile"
    )


def _summary(report: Report) -> str:
    words = {"rows": "rows ", "events": "events "}
    parts = [
        f"{n:,} {words.get(part, '')}{name}"
        for part in ("tasks", "rows", "events")
        for name, n in report.result[part].items()
        if n
    ]
    return ", ".join(parts) or "nothing to account for"
