"""nura enqueue."""

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from nura_cli import contract
from nura_cli.cli.rejects import Rejects
from nura_cli.cli.session import Session, harmless, output, with_session
from nura_cli.cli.stages import Done, Opened, Stage, contained, do, finish, opened
from nura_cli.errors import EX_CONFIG, EX_PARTIAL, EX_TEMPFAIL, ConfigError, InputError, UsageError
from nura_cli.pipeline.report import Report, counted, problem

if TYPE_CHECKING:
    from nura_cli.config import Config, WorkloadConfig
    from nura_cli.dialects.base import Dialect
    from nura_cli.pipeline.enqueue import Input, Source


EXAMPLES = (
    ("nura enqueue classify news.jsonl", "put the records of a file into the spool"),
    ("nura enqueue classify -n --limit 3 news.jsonl", "print the first three requests, store nothing"),
    ("nura enqueue classify --csv news.csv", "its first row names the columns"),
    ("nura enqueue --from-source", "read the query of every workload that has one"),
)
EXIT_CODES = (EX_PARTIAL, EX_TEMPFAIL, EX_CONFIG)


@with_session
def command(
    session: Session,
    workload: Annotated[
        str | None,
        typer.Argument(help="A workload of the configuration; with --from-source, none reads every source."),
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="JSON Lines, or CSV; - or nothing for standard input.", show_default=False),
    ] = None,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="The files are CSV: a header, and each row a record of strings.")
    ] = False,
    source: Annotated[
        bool, typer.Option("--from-source", help="Read the records by the workload's own source: a query.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="A key enqueued with other content gets the new one.")
    ] = False,
    key_prefix: Annotated[
        str, typer.Option(help="Put before each key, for hand-numbered files.", show_default=False)
    ] = "",
    rejects: Annotated[
        Path | None, typer.Option(help="Copy the lines that are not taken to this file.", show_default=False)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Print the requests the lines would become; store nothing.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="With --dry-run: how many lines.")] = 10,
) -> None:
    """Put records (or ready request lines) into the spool."""
    if source and (files or as_csv):
        raise UsageError("--from-source goes without files")
    if workload is None and not source:
        hint = "its records are read from files, or from standard input; --from-source alone reads every source"
        raise UsageError("name a workload", hint=hint)
    config = session.config()
    with contextlib.ExitStack() as stack:
        if source:
            given = from_sources(config, [workload] if workload is not None else sourced(config))
        else:
            given = [from_files(stack, config, str(workload), files or [Path("-")], as_csv=as_csv)]
            if not files and sys.stdin.isatty():
                session.say("reading records from the terminal; Ctrl-D ends them")
        if dry_run:
            _preview(session, given, limit, key_prefix)
            return
        streams = [] if source else given[0].inputs()
        keep = Rejects(stack, rejects, config, streams) if rejects else None
        with opened(session, config, beside=True) as at:
            stages = [stage(one, replace=replace, key_prefix=key_prefix, rejects=keep) for one in given]
            done = [do(at, one) for one in stages]
    if workload is not None:
        finish(session, done[0])
    else:
        _finish_all(session, stages, done)


@dataclass(frozen=True, kw_only=True)
class Given:
    """What is given to one workload: by its ``source``, or else by files."""

    workload: "WorkloadConfig"
    dialect: "Dialect"
    inputs: "Callable[[], list[Input]]"
    source: bool


def from_files(
    stack: contextlib.ExitStack, config: "Config", workload: str, files: Sequence[Path], *, as_csv: bool = False
) -> Given:
    """Return what files give to a workload, ``-`` for standard input.

    Raises:
        UsageError: one cannot be opened; or they are CSV, and the workload takes ready lines.
    """
    chosen = config.workload(workload)
    if as_csv and not chosen.has_prompt:
        raise UsageError(f"--csv: {workload} takes ready lines", hint="give it a prompt, and its rows become requests")
    inputs: list[Input] = [_source(stack, file, chosen.name, as_csv) for file in files]
    return Given(workload=chosen, dialect=_dialect(config, chosen), inputs=lambda: inputs, source=False)


def sourced(config: "Config") -> list[str]:
    """Return the names of the workloads that have a source. Raises ConfigError: there is none."""
    found = [workload.name for workload in config.workloads.values() if workload.source is not None]
    if not found:
        raise ConfigError("no workload has a source", hint="give one a database and a query, under source")
    return found


def from_sources(config: "Config", names: Sequence[str]) -> list[Given]:
    """Return what the sources of these workloads give. Raises UsageError: there is no such workload."""
    return [
        Given(workload=one, dialect=_dialect(config, one), inputs=partial(_rows, one, config), source=True)
        for one in map(config.workload, names)
    ]


def _rows(workload: "WorkloadConfig", config: "Config") -> "list[Input]":
    from nura_cli.pipeline import enqueue

    return [enqueue.from_source(workload, config)]


def stage(given: Given, *, replace: bool = False, key_prefix: str = "", rejects: Rejects | None = None) -> Stage:
    """Return the stage, for one workload: that a source fails is a problem of its own, as it is of a provider."""

    def work(at: Opened) -> Report:
        from nura_cli.pipeline import enqueue

        return enqueue.run(
            at.state,
            given.workload,
            given.dialect,
            given.inputs(),
            replace=replace,
            key_prefix=key_prefix,
            rejects=rejects,
        )

    found = Stage(
        name="enqueue", work=work, summary=_summary, empty={}, workload=given.workload.name, in_log=given.source
    )
    return contained(found) if given.source else found


def _summary(report: Report) -> str:
    """Return the report in one line; where duplicates have no answer, what to type for one in another; nothing of a failure."""
    if not report.result:
        return ""
    counts = ((name, report.result[name]) for name in _COUNTS)
    said = ", ".join(_counted(name, n) for name, n in counts if n or name == "enqueued")
    return "\n".join(filter(None, (said, report.result.get("hint"))))


def _finish_all(session: Session, stages: Sequence[Stage], done: Sequence[Done]) -> None:
    """Say what came of every source, and exit with one code for all."""
    workloads = {str(one.workload): came.report for one, came in zip(stages, done, strict=True)}
    for name, report in workloads.items():
        if report.result:
            session.say(f"{name}: {_summary(report)}")
    figures = [Counter({name: report.result.get(name, 0) for name in _COUNTS}) for report in workloads.values()]
    total = sum(figures, Counter[str]())
    each: Any = {name: report.result for name, report in workloads.items()}
    result: contract.EnqueuedSources = {**contract.figures(contract.EnqueuedCounts, total), "workloads": each}
    problems = [found for report in workloads.values() for found in report.problems]
    worked = any(report.worked for report in workloads.values())
    session.finish(Report(result, problems, worked), printed=[found for one in done for found in one.printed])


_COUNTS = tuple(get_type_hints(contract.EnqueuedCounts))


def _counted(name: str, n: int) -> str:
    """Return one of the report's figures as it is said: ``1 duplicate``, ``2 duplicates``, ``3 enqueued``."""
    return counted(n, name.removesuffix("s")) if name.endswith("s") else f"{n:,} {name}"


def _dialect(config: "Config", workload: "WorkloadConfig") -> "Dialect":
    from nura_cli.dialects.vendors import dialect

    return dialect(config.providers[workload.provider].dialect)


def _source(stack: contextlib.ExitStack, file: Path, workload: str, as_csv: bool) -> "Source":
    """Return what a file, or standard input, has to give to a workload. Raises UsageError: it cannot be opened."""
    from nura_cli.pipeline.enqueue import Source

    if str(file) == "-":
        if sys.stdin is None or sys.stdin.closed:
            raise UsageError("standard input is closed", hint="name a file, or pipe records in")
        return Source("-", sys.stdin.buffer, workload, as_csv)
    try:
        return Source(str(file), stack.enter_context(file.open("rb")), workload, as_csv)
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error


def _preview(session: Session, given: Sequence[Given], limit: int, prefix: str) -> None:
    """Print the requests that lines would become; those that would be refused are said, and make the exit code 3."""
    from nura_cli.pipeline import enqueue
    from nura_cli.pipeline.render import spec_of

    shown: list[str] = []
    failed = []
    for one in given:
        spec = spec_of(one.workload, one.dialect)
        for request in enqueue.preview(one.workload, spec, one.dialect, one.inputs(), limit, prefix):
            if isinstance(request, InputError):
                failed.append(request)
                session.tell(request.message)
            elif session.json:
                shown.append(request.decode())
            else:
                with output() as out:
                    out.write(harmless(request) + b"\n")
    if session.json:
        result: contract.Requests = {"requests": [json.loads(text) for text in shown]}
        session.finish(Report(result, [problem(error) for error in failed], worked=True))
    if failed:
        raise typer.Exit(EX_PARTIAL)
