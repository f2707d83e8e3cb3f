"""nura purge."""

from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from nura_cli.cli.grammar import Asked, with_keys
from nura_cli.cli.session import Session, with_session
from nura_cli.cli.verbs import DryRunOption, WhyOption, YesOption, acting, agree, answer
from nura_cli.errors import EX_CONFIG, EX_PARTIAL, EX_TEMPFAIL, UsageError
from nura_cli.pipeline.report import Problem, Report, counted

if TYPE_CHECKING:
    from nura_cli.config import Config
    from nura_cli.state import State

EXAMPLES = (
    ("nura purge classify --key 17 --yes", "forget a key: its record, its answers, what was said of it"),
    ("nura purge classify --keys-from gone.txt -n", "say how many keys would be forgotten"),
    ("nura purge classify --older-than 90d --read-to 70 --yes", "drop what is old, of the answers that were read"),
)
EXIT_CODES = (EX_PARTIAL, EX_TEMPFAIL, EX_CONFIG)


@with_session
@with_keys
def command(
    session: Session,
    asked: Asked,
    allow_again: Annotated[
        bool,
        typer.Option(
            "--allow-again", help="Forget that the keys were there, too: they may be enqueued, and paid for, again."
        ),
    ] = False,
    older_than: Annotated[
        str | None,
        typer.Option(
            help="Instead, drop records and answers that were settled so long ago, such as 90d, and are delivered."
        ),
    ] = None,
    read_to: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="With that, of a workload that delivers nothing: the seq up to which its answers were read.",
            metavar="SEQ",
        ),
    ] = None,
    undelivered: Annotated[
        bool, typer.Option("--undelivered", help="With that, whether or not they were delivered, or read.")
    ] = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    why: WhyOption = None,
) -> None:
    """Forget keys for good, or drop what is old: records and answers; what they cost stays counted."""
    by_key = bool(asked.keys or asked.keys_from)
    if by_key == (older_than is not None):
        raise UsageError(
            "what is to be forgotten? Name keys (--key K, --keys-from FILE), or an age (--older-than 90d)",
            hint="-n says what would be done",
        )
    if by_key and (read_to is not None or undelivered):
        raise UsageError("--read-to and --undelivered go with --older-than")
    if allow_again and not by_key:
        raise UsageError("--allow-again goes with keys: by age, what is known of keys stays")
    with acting(session, why) as (state, config):
        if older_than is None:
            report = _keys(session, asked, state, config, allow_again, dry_run, yes)
        else:
            given = _Old(_seconds(older_than), read_to, undelivered)
            report = _by_age(session, asked, state, config, given, dry_run, yes)
    session.finish(report)


class _Old(NamedTuple):
    """What the options say of an age."""

    seconds: int
    read_to: int | None
    undelivered: bool


def _seconds(text: str) -> int:
    from nura_cli.config_file import duration

    try:
        return int(duration(text))
    except ValueError as error:
        raise UsageError(f"--older-than {text}: no length of time such as 90d") from error


def _by_age(
    session: Session, asked: Asked, state: "State", config: "Config", given: _Old, dry_run: bool, yes: bool
) -> Report:
    from nura_cli.pipeline import purge
    from nura_cli.pipeline.results import check_known

    check_known(state, config, asked.workloads)
    job = purge.plan_old(
        state, config, asked.workloads, given.seconds, read_to=given.read_to, undelivered=given.undelivered
    )
    words = purge.question_old(job)
    if dry_run:
        answer(session, f"would be: {words}" if words else "nothing is so old")
        return purge.report_old(job)
    if words:
        agree(session, words, yes)
    report = purge.run_old(job)
    n = report.result["purged"]
    answer(
        session,
        f"{counted(n, 'task')} lost {'its record and its answer' if n == 1 else 'their records and answers'}"
        if n
        else "nothing is so old",
    )
    return report


def _keys(
    session: Session, asked: Asked, state: "State", config: "Config", again: bool, dry_run: bool, yes: bool
) -> Report:
    from nura_cli.pipeline import purge

    problems: list[Problem] = []
    job = purge.plan(state, config, asked.parts(state, config, problems), problems, again=again)
    words = purge.question(job)
    if dry_run:
        report = purge.report(job)
        answer(session, f"would be: {words}" if words else "nothing to forget")
        return report
    if words:
        agree(session, words, yes)
    report = purge.run(job)
    answer(session, *_said(report))
    return report


def _said(report: Report) -> list[str]:
    """Return what was done, and what is not, each on a line."""
    result = report.result
    lines = [f"{counted(result['purged'], 'key')} forgotten" if result["purged"] else "nothing was forgotten now"]
    if result["later"]:
        n = counted(result["later"], "key is", "keys are")
        lines.append(
            f"{n} forgotten once nothing of {'it' if result['later'] == 1 else 'them'} is under way: by nura reconcile"
        )
    if result["before"]:
        lines.append(f"{counted(result['before'], 'key was', 'keys were')} forgotten before")
    if result["at_providers"]:
        n = counted(result["at_providers"], "batch", "batches")
        lines.append(f"what the providers keep of {n} is deleted by the next nura poll, once each is final")
    return [*lines, *(f"not reached: {one}" for one in result["out_of_reach"])]
