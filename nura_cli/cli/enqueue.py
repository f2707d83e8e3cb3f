"""nura enqueue."""

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nura_cli.cli.rejects import Rejects
from nura_cli.cli.session import Session, harmless, output, with_session
from nura_cli.errors import EX_PARTIAL, InputError, UsageError
from nura_cli.pipeline.report import counted

if TYPE_CHECKING:
    from nura_cli.config import Config


_COUNTS = ("enqueued", "duplicates", "conflicts", "replaced", "rejected")


@with_session
def command(
    session: Session,
    workload: Annotated[str, typer.Argument(help="A workload of the configuration.", show_default=False)],
    files: Annotated[
        list[Path] | None, typer.Argument(help="JSON Lines; - or nothing for standard input.", show_default=False)
    ] = None,
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
    from nura_cli.dialects.vendors import dialect as dialect_of
    from nura_cli.pipeline import enqueue

    config = session.config()
    chosen = config.workload(workload)
    dialect = dialect_of(config.providers[chosen.provider].dialect)
    with contextlib.ExitStack() as stack:
        if source and files:
            raise UsageError("--from-source goes without files")
        sources = _sources(stack, chosen, config, files, source)
        if dry_run:
            _preview(session, chosen, dialect, sources, limit, key_prefix)
            return
        keep = Rejects(stack, rejects, config, sources) if rejects else None
        with session.state(config.state, newer=True) as state:
            report = enqueue.run(state, chosen, dialect, sources, replace=replace, key_prefix=key_prefix, rejects=keep)
    counts = {name: n for name, n in report.result.items() if name in _COUNTS}
    session.say(", ".join(_counted(name, n) for name, n in counts.items() if n or name == "enqueued"))
    if report.result["hint"]:
        session.say(report.result["hint"])
    session.finish(report)


def _counted(name: str, n: int) -> str:
    """Return one of the report's figures as it is said: ``1 duplicate``, ``2 duplicates``, ``3 enqueued``."""
    return counted(n, name.removesuffix("s")) if name.endswith("s") else f"{n:,} {name}"


def _sources(
    stack: contextlib.ExitStack, workload: Any, config: "Config", files: list[Path] | None, source: bool
) -> list[Any]:
    from nura_cli.pipeline import enqueue

    if source:
        return [enqueue.from_source(workload, config)]
    return [_source(stack, file) for file in files or [Path("-")]]


def _source(stack: contextlib.ExitStack, file: Path) -> Any:
    """Return what a file, or standard input, has to give. Raises UsageError: it cannot be opened."""
    from nura_cli.pipeline.enqueue import Source

    if str(file) == "-":
        if sys.stdin is None or sys.stdin.closed:
            raise UsageError("standard input is closed", hint="name a file, or pipe records in")
        return Source("-", sys.stdin.buffer)
    try:
        return Source(str(file), stack.enter_context(file.open("rb")))
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error


def _preview(session: Session, workload: Any, dialect: Any, sources: list[Any], limit: int, prefix: str) -> None:
    """Print the requests that lines would become; those that would be refused are said, and make the exit code 3."""
    from nura_cli.pipeline import enqueue
    from nura_cli.pipeline.render import spec_of

    shown: list[str] = []
    failed = []
    for request in enqueue.preview(workload, spec_of(workload, dialect), dialect, sources, limit, prefix):
        if isinstance(request, InputError):
            failed.append(request)
            session.tell(request.message)
        elif session.json:
            shown.append(request.decode())
        else:
            with output() as out:
                out.write(harmless(request) + b"\n")
    if session.json:
        from nura_cli.pipeline.report import Report, problem

        requests = [json.loads(text) for text in shown]
        session.finish(Report({"requests": requests}, [problem(error) for error in failed], worked=True))
    if failed:
        raise typer.Exit(EX_PARTIAL)
