"""nura try."""  # noqa: N999 - a command's module has its name

import contextlib
import json
import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nura_cli.cli.enqueue import Given, from_files, from_sources
from nura_cli.cli.figures import cut, dollars
from nura_cli.cli.grammar import identity
from nura_cli.cli.session import Session, plain, with_session
from nura_cli.cli.verbs import DryRunOption, YesOption, acting, agree, answer
from nura_cli.errors import EX_CONFIG, EX_NOPERM, EX_PARTIAL, EX_TEMPFAIL, InputError, UsageError
from nura_cli.pipeline.report import Problem, Report, counted, problem

if TYPE_CHECKING:
    from nura_cli import contract
    from nura_cli.config import Config
    from nura_cli.pipeline.trial import Record, Trial
    from nura_cli.state import State

_MOST = 20
"""Requests that are tried at once, at most: for more there are batches."""


EXAMPLES = (
    ("nura try classify", "three of the records that wait"),
    ("nura try classify records.jsonl --limit 5 -n", "what five records of a file would be sent as"),
)
EXIT_CODES = (EX_PARTIAL, EX_TEMPFAIL, EX_NOPERM, EX_CONFIG)


@with_session
def command(
    session: Session,
    workload: Annotated[str, typer.Argument(help="A workload of the configuration.")],
    file: Annotated[
        Path | None,
        typer.Argument(
            help="Records, or ready lines, as nura enqueue takes them; - for standard input.",
            show_default="what waits; else its source",
        ),
    ] = None,
    keys: Annotated[
        list[str] | None,
        typer.Option("--key", help="The record of this key; may be given more than once.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=_MOST, help="How many records.")] = 3,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
) -> None:
    """Try some records at once, at list price: prompt, answer, columns and cost. No task is stored or changed."""
    from nura_cli.pipeline import trial
    from nura_cli.pipeline.accounts import Accounts

    if file is not None and keys:
        raise UsageError("give a file or --key: not both")
    if len(keys or []) > _MOST:
        raise UsageError(f"at most {_MOST} records are tried at once", hint="for more there are batches: nura dispatch")
    problems: list[Problem] = []
    with acting(session, None) as (state, config), Accounts(config, state.path, state.state_id) as accounts:
        config.workload(workload)
        records = list(_records(state, config, workload, file, keys or [], limit, problems))
        job = trial.plan(state, config, accounts, workload, records)
        job.problems[:0] = problems
        if job.hold is not None:
            session.tell(f"{job.hold.name} is held, which keeps nobody from trying it")
        if dry_run:
            if job.requests:
                answer(session, _question(job), *(f"\n{one.record.key}:\n{one.prompt or ''}" for one in job.requests))
            session.finish(Report(_planned(job), job.problems))
            return
        if job.requests and yes:
            answer(session, _question(job))
        elif job.requests:
            agree(session, _question(job), yes)
        report = trial.run(job, told=lambda one: answer(session, *_lines(one)))
    answer(session, *_summary(report))
    session.finish(report)


def _records(
    state: "State",
    config: "Config",
    workload: str,
    file: Path | None,
    keys: list[str],
    limit: int,
    problems: list[Problem],
) -> "Iterator[Record]":
    """Yield what is to be tried: of a file, of keys, of what waits, or, where nothing does, of the workload's source.

    Args:
        problems: takes a problem for each line that cannot be used.

    Raises:
        UsageError: there is nothing.
    """
    from nura_cli.pipeline import trial

    if keys:
        yield from trial.of_keys(state, workload, [identity(key) for key in keys])
    elif file is not None:
        with contextlib.ExitStack() as stack:
            yield from _read(from_files(stack, config, workload, [file]), limit, problems)
    elif found := trial.waiting(state, workload, limit):
        yield from found
    elif config.workloads[workload].source is not None:
        yield from _read(from_sources(config, [workload])[0], limit, problems)
    else:
        raise UsageError(f"nothing of {workload} waits", hint=f"name a file of records: nura try {workload} FILE, or -")


def _read(given: Given, limit: int, problems: list[Problem]) -> "Iterator[Record]":
    from nura_cli.pipeline import enqueue
    from nura_cli.pipeline.trial import Record

    def record(n: int, read: enqueue.Read) -> Record:
        return Record(read.key.json, read.keep, *read.queue[1:])

    for one in enqueue.first(enqueue.Reader(given.workload, given.dialect), given.inputs(), limit, record):
        if isinstance(one, InputError):
            problems.append(problem(one))
        else:
            yield one


def _question(job: "Trial") -> str:
    """Return what would be sent, and what it may cost."""
    from nura_cli.pipeline import trial
    from nura_cli.pricing import decimal_dollars

    given, said = trial.price(job)
    many = counted(len(job.requests), "request goes", "requests go")
    if given is None:
        cost = "at a price that is not known"
    else:
        most = (
            "what is answered"
            if said is None
            else f"at most {dollars(decimal_dollars(said) or '')} for what is answered"
        )
        cost = f"at list price, about {dollars(decimal_dollars(given) or '')} for their input and {most}"
    return f"{many} to {job.workload.provider} at once, {cost}"


def _planned(job: "Trial") -> dict[str, Any]:
    requests = [
        {"key": json.loads(one.record.key), "prompt": one.prompt, "body": json.loads(one.body)} for one in job.requests
    ]
    return {"workload": job.workload.name, "provider": job.workload.provider, "requests": requests}


def _lines(one: "contract.Tried") -> Iterator[str]:
    """Yield what is told of one request."""
    yield f"key {json.dumps(one['key'], ensure_ascii=False)}"
    if one["prompt"] is not None:
        yield from _block("prompt", one["prompt"])
    yield from _block("answer", _answered(one))
    if one["error"] is not None:
        yield from _block("failed", f"{one['error']['kind']}: {one['error']['message']}")
    elif one["fits"]:
        yield "  it fits the schema"
    for column in one["columns"]:
        value = column["error"] or cut(json.dumps(column["value"], ensure_ascii=False))
        yield from _block(f"{column['option']} {column['column']}", value)
    usage, cost = one["usage"], one["cost"]
    paid = "at an unknown cost" if cost is None else dollars(cost)
    yield f"  {usage['input_tokens']:,} tokens in, {usage['output_tokens']:,} out, {paid}"
    yield ""


def _answered(one: "contract.Tried") -> str:
    if one["text"] is not None:
        return str(one["text"])
    return "none" if one["json"] is None else cut(json.dumps(one["json"]))  # a vector has thousands of figures


def _block(name: str, text: str) -> list[str]:
    """Return text under its name, wrapped where a person looks."""
    width = shutil.get_terminal_size().columns - 5 if sys.stdout.isatty() else sys.maxsize
    lines = [part for line in plain(text).splitlines() for part in textwrap.wrap(line, max(width, 20)) or [""]]
    if len(lines) == 1 and len(lines[0]) + len(name) < width:
        return [f"  {name}: {lines[0]}"]
    return [f"  {name}:", *(f"    {line}" for line in lines)]


def _summary(report: Report) -> Iterator[str]:
    """Yield what it cost, and what the waiting work would cost in batches."""
    cost, waiting = report.result["cost"], report.result["waiting"]
    unknown = f", and {counted(cost['unpriced_attempts'], 'cost')} unknown" if cost["unpriced_attempts"] else ""
    yield f"{counted(len(report.result['trials']), 'request')} answered: paid {dollars(cost['paid'])}{unknown}"
    if waiting["tasks"] and waiting["estimated_cost"] is not None:
        many = counted(waiting["tasks"], "task that waits", "tasks that wait")
        yield f"{many} would cost about {dollars(waiting['estimated_cost'])} in batches"
