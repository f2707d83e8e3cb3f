"""nura init."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nura_cli.cli.session import Session, output, plain, with_session
from nura_cli.errors import EX_CONFIG, EX_TEMPFAIL, UsageError

if TYPE_CHECKING:
    from nura_cli.pipeline.init import Files
    from nura_cli.pipeline.starter import Start

EXAMPLES = (
    ("nura init --from articles.jsonl", "a workload for records like these"),
    ("nura init --database-env APP_URL --table articles", "from a table, and back into it"),
    ("nura init --from big.csv.gz -c big.yaml", "beside another configuration"),
)
EXIT_CODES = (EX_TEMPFAIL, EX_CONFIG)


@with_session
def command(
    session: Session,
    sample: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Some of your records, as JSON Lines or CSV; - for standard input.", show_default=False
        ),
    ] = None,
    variable: Annotated[
        str | None,
        typer.Option(
            "--database-env",
            help="Environment variable that holds your database's URL.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(
            help="A table there, or schema.table: its rows are the records.", metavar="NAME", show_default=False
        ),
    ] = None,
) -> None:
    """Write a first nura.yaml, on the sandbox, and lines for cron. Overwrites nothing."""
    from nura_cli.pipeline import init

    if (variable is None) != (table is None):
        raise UsageError("--database-env and --table go together")
    if sample is not None and table is not None:
        raise UsageError("records come out of a sample's like, or out of a table", hint="give --from, or --table")
    files = init.Files.at(session.config_option or Path("nura.yaml"))
    as_csv = False
    if sample is not None:
        start, as_csv = _of_sample(sample)
    elif variable is not None and table is not None:
        start = init.of_table(variable, table, files.config.absolute().parent)
    else:
        start = init.plain()
    if session.state_option is not None:
        start = start._replace(state=str(session.state_option.absolute()))
    report = init.run(files, start, shutil.which(sys.argv[0]) or sys.argv[0])
    if not session.json and not session.quiet:
        with output() as out:
            lines = plain("\n".join(_next(files, start, sample, as_csv)))
            out.write(f"{lines}\n".encode("utf-8", "backslashreplace"))
    session.finish(report)


def _of_sample(sample: Path) -> "tuple[Start, bool]":
    from nura_cli.pipeline import init

    if str(sample) == "-":
        if sys.stdin is None or sys.stdin.closed:
            raise UsageError("standard input is closed", hint="name a file, or pipe records in")
        return init.of_sample(sys.stdin.buffer, "-")
    try:
        with sample.open("rb") as stream:
            return init.of_sample(stream, str(sample))
    except OSError as error:
        raise UsageError(f"{sample}: {error.strerror}") from error


def _next(files: "Files", start: "Start", sample: Path | None, as_csv: bool) -> Iterator[str]:
    """Yield what was written, and what to type next."""
    yield f"{files.config} and {files.crontab} are written. Next, each as it stands here:"
    found = str(files.config) == "nura.yaml" and not os.environ.get("NURA_CONFIG")
    chosen = "" if found else f" -c {shlex.quote(str(files.config))}"
    name = start.name
    if start.rows is not None:
        given = f"{name} --from-source"
    else:
        file = "FILE" if sample is None else shlex.quote(str(sample))
        given = f"{name} {'--csv ' if as_csv else ''}{file}"
    yield f"  nura check{chosen}"
    if not as_csv:
        yield f"  nura try{chosen} {given.removesuffix(' --from-source')}"
    yield f"  nura enqueue{chosen} {given}"
    yield f"  nura run{chosen} --wait 1m"
    yield f"  nura results{chosen} {name}"
    yield f"  (crontab -l; cat {shlex.quote(str(files.crontab))}) | crontab -"
