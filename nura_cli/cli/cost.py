"""nura cost."""

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import typer

from nura_cli import clock
from nura_cli.cli import csv_out
from nura_cli.cli.figures import dollars, short, short_dollars
from nura_cli.cli.grammar import moment
from nura_cli.cli.layout import Cell, Column, Screen, table
from nura_cli.cli.session import Session, output, plain, with_session
from nura_cli.errors import EX_CONFIG, EX_TEMPFAIL, UsageError
from nura_cli.pipeline import cost
from nura_cli.pipeline.cost import Period

EXAMPLES = (
    ("nura cost", "this month, by workload"),
    ("nura cost --since 2026-01-01 --by month,model --csv", "months and models, for a spreadsheet"),
)
EXIT_CODES = (EX_TEMPFAIL, EX_CONFIG)


@with_session
def command(
    session: Session,
    month: Annotated[
        str | None, typer.Option(help="Of this month (UTC), such as 2026-11.", show_default="this month")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="From the day (UTC) of this time or date on, or of so long ago, such as 30d.", show_default=False
        ),
    ] = None,
    until: Annotated[str | None, typer.Option(help="… and of days before then.", show_default=False)] = None,
    by: Annotated[
        str, typer.Option(help=f"What to tell apart, with commas: {', '.join(cost.GROUPS)}.", metavar="WHAT,…")
    ] = "workload",
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Say what was spent, and what the same had cost without batches."""
    if as_csv and session.json:
        raise UsageError("--csv and --json are two forms of the same", hint="give one of them")
    groups = cost.groups(by)
    period = _period(month, moment("--since", since), moment("--until", until), groups)
    outline = session.outline()
    with session.state(outline.state, newer=True) as state:
        report = cost.run(state, groups, period)
    if not session.json:
        with output() as out:
            out.write("".join((_csv if as_csv else _table)(report.result)).encode())
    session.finish(report)


def _period(month: str | None, begin: int | None, end: int | None, groups: Sequence[str]) -> Period:
    """Return the days that are meant: this month's, where nothing is said, or all, to be told apart by month."""
    if month is not None:
        if begin is not None or end is not None:
            raise UsageError("--month says both ends", hint="give --month alone, or --since and --until")
        return cost.month(month)
    if begin is None and end is None and "month" not in groups:
        return cost.this_month(clock.now())
    return cost.since(begin, end)


class _Column(NamedTuple):
    """A column of figures: its heading for a person and for a program, its value, whether it is left out where all are 0."""

    heading: str
    name: str
    value: Callable[[dict[str, Any]], Any]
    always: bool = True


_COLUMNS = (
    _Column("attempts", "attempts", lambda row: row["attempts"]),
    _Column("no answer", "unanswered", lambda row: row["unanswered"], always=False),
    _Column("in", "input_tokens", lambda row: row["usage"]["input_tokens"]),
    _Column("cached", "cached_input_tokens", lambda row: row["usage"]["cached_input_tokens"], always=False),
    _Column("written", "cache_write_tokens", lambda row: row["usage"]["cache_write_tokens"], always=False),
    _Column("out", "output_tokens", lambda row: row["usage"]["output_tokens"]),
    _Column("paid", "paid", lambda row: row["cost"]["paid"]),
    _Column("list", "list", lambda row: row["cost"]["list"]),
    _Column("saved", "saved", lambda row: row["cost"]["saved"]),
    _Column("unpriced", "unpriced_attempts", lambda row: row["cost"]["unpriced_attempts"], always=False),
    _Column("estimated", "estimated", lambda row: row["estimate"]["estimated"], always=False),
    _Column("came to", "estimated_paid", lambda row: row["estimate"]["paid"], always=False),
)


def _csv(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of CSV. No text in it is a formula to a spreadsheet: a model's name comes from outside."""
    yield csv_out.line([*found["by"], *(column.name for column in _COLUMNS)]).decode()
    for row in found["rows"]:
        names = (plain(row[name]) for name in found["by"])
        shown = (f"'{name}" if name[:1] in "=+-@" else name for name in names)
        yield csv_out.line([*shown, *(column.value(row) for column in _COLUMNS)]).decode()


def _table(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a table: for a person with what is not nothing, to fit the terminal, else with all in full."""
    rows = [*found["rows"], found["total"]]
    if sys.stdout.isatty():
        columns = [
            column for column in _COLUMNS if column.always or any(column.value(row) not in (0, "0.00") for row in rows)
        ]
        lines = list(_lines(found["by"], rows, columns, "{:,}".format, dollars))
        if max(map(len, lines)) > shutil.get_terminal_size().columns:
            lines = list(_lines(found["by"], rows, columns, short, short_dollars))
    else:
        lines = list(_lines(found["by"], rows, _COLUMNS, str, dollars))
    yield from (f"{line}\n" for line in lines)


def _lines(
    by: Sequence[str],
    rows: Sequence[dict[str, Any]],
    columns: Sequence[_Column],
    figures: Callable[[int], str],
    money: Callable[[str], str],
) -> Iterator[str]:
    """Yield rows in columns under their headings, figures and money written so; the last row is the total."""

    def cell(value: Any) -> str:
        return figures(value) if isinstance(value, int) else money(value)

    heads = [*(Column(name) for name in by), *(Column(column.heading, figures=True) for column in columns)]
    cells = []
    for row in rows:
        names = [plain(row[name]) for name in by] if row is not rows[-1] else ["total", *[""] * (len(by) - 1)]
        cells.append([Cell(text) for text in (*names, *(cell(column.value(row)) for column in columns))])
    yield from table(Screen(), heads, cells)
