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
    ("nura purge --compact -n", "say what writing the file anew needs"),
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
            help="With that, only answers up to this seq: they were read. Needed of a workload that delivers nothing.",
            metavar="SEQ",
        ),
    ] = None,
    undelivered: Annotated[
        bool, typer.Option("--undelivered", help="With that, whether or not they were delivered, or read.")
    ] = False,
    compact: Annotated[
        bool,
        typer.Option(
            "--compact", help="Write the state file anew, smaller, after that or by itself; says first what that needs."
        ),
    ] = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    why: WhyOption = None,
) -> None:
    """Forget keys for good, or drop what is old: records and answers; what they cost stays counted."""
    _check(asked, older_than, read_to, undelivered, allow_again, compact)
    with acting(session, why) as (state, config):
        report: Report | None = None
        if older_than is not None:
            given = _Old(_seconds(older_than), read_to, undelivered)
            report = _by_age(session, asked, state, config, given, dry_run, yes)
        elif asked.keys or asked.keys_from:
            report = _keys(session, asked, state, config, allow_again, dry_run, yes)
        if compact:
            report = _compact(session, state, report, dry_run, yes)
    if report is not None:
        session.finish(report)


def _check(
    asked: Asked, older_than: str | None, read_to: int | None, undelivered: bool, allow_again: bool, compact: bool
) -> None:
    """Raise UsageError where the options say nothing that can be forgotten."""
    by_key, by_age = bool(asked.keys or asked.keys_from), older_than is not None
    if (by_key and by_age) or not (by_key or by_age or compact):
        raise UsageError(
            "what is to be forgotten? Name keys (--key K, --keys-from FILE), or an age (--older-than 90d)",
            hint="-n says what would be done",
        )
    if by_key and len(asked.workloads) != 1:
        raise UsageError(
            "keys are forgotten of one workload at a time, and what is forgotten does not come back: name exactly one",
            hint="nura purge WORKLOAD --key K",
        )
    if not by_age and (read_to is not None or undelivered):
        raise UsageError("--read-to and --undelivered go with --older-than")
    if allow_again and not by_key:
        raise UsageError("--allow-again goes with keys: by age, what is known of keys stays")
    if asked.workloads and not (by_key or by_age):
        raise UsageError(
            "--compact is of the whole state file: name no workload, or what of it is to be forgotten first"
        )


def _compact(session: Session, state: "State", before: Report | None, dry_run: bool, yes: bool) -> Report:
    from nura_cli.pipeline import purge

    found = purge.plan_compact(state)
    problems: list[Problem] = []
    words = purge.question_compact(found, str(state.path))
    if dry_run:
        answer(session, f"would be: {words}" if words else "would be: free pages are given back to the disk")
    else:
        if words:
            agree(session, words, yes)
        found, problems = purge.run_compact(state, found)
        answer(session, f"compacted: from {found['before_bytes']:,} to {found['after_bytes']:,} bytes")
    return purge.report_compact(found, problems, dry_run=dry_run, before=before)


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
    nothing = f"nothing to drop: nothing {'is so old' if given.undelivered else 'so old was delivered, or read'}"
    if dry_run:
        answer(session, f"would be: {words}" if words else nothing)
        return purge.report_old(job)
    if words:
        agree(session, words, yes)
    report = purge.run_old(job)
    n = report.result["purged"]
    answer(
        session,
        f"{counted(n, 'task')} lost {'its record and its answer' if n == 1 else 'their records and answers'}"
        if n
        else nothing,
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
