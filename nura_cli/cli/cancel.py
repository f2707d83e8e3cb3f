"""nura cancel."""

from typing import TYPE_CHECKING, Annotated

import typer

from nura_cli.cli.grammar import Asked, with_grammar
from nura_cli.cli.session import Session, with_session
from nura_cli.cli.verbs import DryRunOption, WhyOption, YesOption, acting, agree, answer
from nura_cli.errors import EX_CONFIG, EX_NOPERM, EX_PARTIAL, EX_TEMPFAIL, UsageError
from nura_cli.pipeline.report import Problem, Report, counted
from nura_cli.states import TaskStatus

if TYPE_CHECKING:
    from nura_cli.config import Config
    from nura_cli.pipeline.accounts import Accounts
    from nura_cli.state import State


EXAMPLES = (
    ("nura cancel classify", "withdraw what waits"),
    ("nura cancel classify --under-way --yes", "have its batches cancelled at the provider"),
)
EXIT_CODES = (EX_PARTIAL, EX_TEMPFAIL, EX_NOPERM, EX_CONFIG)


@with_session
@with_grammar
def command(
    session: Session,
    asked: Asked,
    under_way: Annotated[
        bool, typer.Option("--under-way", help="The batches under way of these workloads, instead of what waits.")
    ] = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    why: WhyOption = None,
) -> None:
    """Withdraw what waits; with --batch or --under-way, cancel batches: what they answered is kept, the rest is not sent."""
    from nura_cli.pipeline.accounts import Accounts

    of_batches = under_way or asked.batch is not None
    _check(asked, of_batches)
    with acting(session, why) as (state, config), Accounts(config, state.path, state.state_id) as accounts:
        if of_batches:
            report = _batches(session, asked, state, config, accounts, dry_run, yes)
        else:
            report = _waiting(asked, state, config, accounts, dry_run)
    _show(session, asked, report)
    session.finish(report)


def _check(asked: Asked, of_batches: bool) -> None:
    """Raise UsageError where the options say nothing that can be cancelled."""
    if not asked.narrowed:
        raise UsageError("what is to be cancelled? Name a workload, a batch or keys", hint="-n says what would be done")
    if of_batches and (asked.keys or asked.keys_from or asked.statuses or asked.since or asked.until or asked.error):
        raise UsageError("a batch is cancelled whole: --batch and --under-way go with workloads alone")
    if of_batches and asked.batch is None and not asked.workloads:
        raise UsageError("--under-way: name the workloads whose batches are meant")
    other = [status for status in asked.statuses if status is not TaskStatus.PENDING]
    if other or asked.error:
        given = f"--status {other[0]}" if other else "--error"
        raise UsageError(
            f"{given}: only what is pending is withdrawn", hint="of batches: nura cancel W --under-way, or --batch ID"
        )


def _waiting(asked: Asked, state: "State", config: "Config", accounts: "Accounts", dry_run: bool) -> Report:
    from nura_cli.pipeline import cancel

    problems: list[Problem] = []
    parts = asked.parts(state, config, problems)
    report = cancel.waiting(state, config, accounts, parts, workloads=asked.workloads, dry_run=dry_run)
    return Report(report.result, [*problems, *report.problems], report.worked)


def _batches(
    session: Session, asked: Asked, state: "State", config: "Config", accounts: "Accounts", dry_run: bool, yes: bool
) -> Report:
    from nura_cli.pipeline import cancel
    from nura_cli.pipeline.results import check_known

    check_known(state, config, asked.workloads)
    chosen = cancel.meant(state, asked.workloads, asked.batch)
    loss = cancel.loses(chosen)
    if loss and dry_run:
        session.tell(loss)
    elif loss:
        agree(session, loss, yes)
    return cancel.under_way(state, config, accounts, chosen, dry_run=dry_run)


def _show(session: Session, asked: Asked, report: Report) -> None:
    """Print what was done, or would be, and what goes on."""
    result = report.result
    lines = [_tasks(name, found, result["dry_run"]) for name, found in result.get("tasks", {}).items()]
    lines += [batch["message"] for batch in result.get("batches", ())]
    nothing = "nothing would be cancelled" if result["dry_run"] else "nothing was cancelled"
    answer(session, *(lines or [nothing]), *_goes_on(asked, report))


def _tasks(name: str, found: dict[str, object], dry_run: bool) -> str:
    n, keys = int(str(found["n"])), found["keys"]
    tasks = counted(n, "task")
    if not dry_run:
        return f"{name}: {tasks} cancelled"
    named = ", ".join(map(str, keys)) if isinstance(keys, list) else ""
    more = f" and {n - len(keys):,} more" if isinstance(keys, list) and n > len(keys) else ""
    return f"{name}: {tasks} would be cancelled: {named}{more}"


def _goes_on(asked: Asked, report: Report) -> list[str]:
    """Return in words what goes on all the same, each with what to type about it."""
    result = report.result
    waiting = [
        f"{counted(n, 'task')} of {name} {'waits' if n == 1 else 'wait'}: nura cancel {name}"
        for name, n in result.get("waiting", {}).items()
    ]
    running = result["under_way"]["message"]
    if "waiting" in result or running is None:
        return waiting
    names = " ".join(asked.workloads or result["tasks"])
    return [f"{running}: nura cancel {names} --under-way"]
