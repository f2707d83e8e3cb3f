"""nura retry."""

from dataclasses import replace

from nura_cli.cli.grammar import Asked, with_grammar
from nura_cli.cli.session import Session, with_session
from nura_cli.cli.verbs import DryRunOption, WhyOption, YesOption, acting, agree, answer
from nura_cli.errors import EX_CONFIG, EX_PARTIAL, EX_TEMPFAIL, UsageError
from nura_cli.pipeline.report import Problem, Report, counted

EXAMPLES = (
    ("nura retry classify -n", "how many would be tried again, and about at what cost"),
    ("nura retry classify --error truncated --yes", "those that failed so, without a question"),
)
EXIT_CODES = (EX_PARTIAL, EX_TEMPFAIL, EX_CONFIG)


@with_session
@with_grammar
def command(
    session: Session, asked: Asked, dry_run: DryRunOption = False, yes: YesOption = False, why: WhyOption = None
) -> None:
    """Have tasks tried again that failed; or were cancelled, or completed with another prompt or model (--status).

    With accept_truncated those whose text was cut get the answers they have, at no cost.
    """
    from nura_cli.pipeline import retry

    if not asked.narrowed:
        raise UsageError("name what is to be retried", hint="a workload, --key, --keys-from or --batch")
    asked = replace(asked, statuses=retry.check(asked.statuses))
    problems: list[Problem] = []
    with acting(session, why) as (state, config):
        job = retry.plan(state, config, asked.parts(state, config, problems), problems)
        if dry_run:
            report = retry.report(job)
            answer(session, "; ".join([retry.question(job) if job.n else "nothing to retry", *_left(report)]))
            session.finish(report)
            return
        if job.n:
            agree(session, retry.question(job), yes)
        report = retry.run(job)
    answer(session, "; ".join([_summary(report), *_left(report)]))
    session.finish(report)


def _summary(report: Report) -> str:
    retried, rerun, taken = (report.result[name] for name in ("retried", "rerun", "taken"))
    said = []
    if retried + rerun:
        waiting = counted(retried + rerun, "task waits", "tasks wait")
        old = f", {rerun:,} of them to take the place of an answer" if rerun else ""
        said.append(f"{waiting} for nura dispatch{old}")
    if taken:
        said.append(counted(taken, "task has the answer it had", "tasks have the answers they had"))
    return "; ".join(said) or "nothing to retry"


def _left(report: Report) -> list[str]:
    """Return what is said of completed tasks that were left alone."""
    unchanged, running = report.result["left"]["unchanged"], report.result["left"]["running"]
    said = []
    if unchanged:
        said.append(
            f"{counted(unchanged, 'answer is', 'answers are')} of today's revision (--until T runs these again)"
        )
    if running:
        said.append(f"{counted(running, 'answer is', 'answers are')} being replaced already")
    return said
