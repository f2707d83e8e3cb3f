"""nura reconcile."""

from typing import TYPE_CHECKING

from nura_cli.cli.progress import bar
from nura_cli.cli.session import Session, stage, with_session
from nura_cli.pipeline.report import Report

if TYPE_CHECKING:
    from nura_cli.config import Config
    from nura_cli.pipeline.accounts import Accounts
    from nura_cli.state import State

_EMPTY = {
    "tasks": dict.fromkeys(("completed", "failed", "retried", "missing", "late", "cancelled"), 0),
    "rows": dict.fromkeys(("written", "skipped", "delayed", "failed"), 0),
    "events": dict.fromkeys(("sent", "delayed", "dead"), 0),
}


@with_session
def command(session: Session) -> None:
    """Account for every task of the finished batches."""

    def work(state: "State", config: "Config", accounts: "Accounts") -> Report:
        from nura_cli.pipeline import reconcile

        with bar(session, "tasks accounted for") as advance:
            return reconcile.run(state, config, progress=advance)

    stage(session, work, _summary, _EMPTY)


def _summary(report: Report) -> str:
    words = {"rows": "rows ", "events": "events "}
    parts = [
        f"{n:,} {words.get(part, '')}{name}"
        for part in ("tasks", "rows", "events")
        for name, n in report.result[part].items()
        if n
    ]
    return ", ".join(parts) or "nothing to account for"
