"""nura results."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated

import typer

from nura_cli.cli import csv_out
from nura_cli.cli.grammar import Asked, with_grammar
from nura_cli.cli.session import Session, harmless, output, plain, with_session
from nura_cli.dialects import vendors
from nura_cli.errors import EX_CONFIG, EX_PARTIAL, EX_TEMPFAIL, InputError, UsageError
from nura_cli.pipeline.report import Problem, problem

if TYPE_CHECKING:
    from nura_cli.config import Config
    from nura_cli.contract import Result
    from nura_cli.state import State
    from nura_cli.state.selection import Selection

_FLUSH_BYTES = 1 << 18
_MOST_TOLD = 20
"""Keys without an answer that are told one by one."""

_OURS = "nura"
_FORMS = (_OURS, *vendors.names())


def _form(value: str) -> str:
    """Return what a line is to look like, once it is known here."""
    if value not in _FORMS:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(map(repr, _FORMS))}.")
    return value


EXAMPLES = (
    ("nura results classify --status failed", "what has no answer, and why"),
    ("nura results classify --fields key,json.section --csv", "two columns of it, for a spreadsheet"),
    ("nura results --after 1200", "what was settled since the answer with that seq"),
)
EXIT_CODES = (EX_PARTIAL, EX_TEMPFAIL, EX_CONFIG)


@with_session
@with_grammar
def command(
    session: Session,
    asked: Asked,
    fields: Annotated[
        str | None,
        typer.Option(
            help="Only these: JMESPath, with commas, such as key,text,json.section; or {NAME: EXPRESSION, …}.",
            metavar="LIST",
            show_default=False,
        ),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, with a header.")] = False,
    limit: Annotated[int | None, typer.Option(help="No more answers than this.", min=1, show_default=False)] = None,
    after: Annotated[int, typer.Option(help="Only answers with a higher seq.", min=0)] = 0,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="nura's own lines, or those of the vendor's result files with your custom_id.",
            metavar="|".join(_FORMS),
            callback=_form,
        ),
    ] = _OURS,
) -> None:
    """Print answers as JSON Lines, or as CSV."""
    if form != _OURS and (fields is not None or as_csv):
        raise UsageError(f"--format {form} prints whole lines", hint="leave out --fields and --csv")
    if as_csv and session.json:
        raise UsageError("--csv and --json are two forms of the same", hint="give one of them")
    printer = Printer(form, fields, as_csv)
    config = session.config()
    with session.state(config.state, newer=True) as state:
        _print(chain(printer.head(), islice(_lines(state, config, asked, printer, after), limit)))
    for found in printer.problems:
        session.tell(found.line)
    if printer.problems.more:
        session.tell(f"and {printer.problems.more:,} more")
    if printer.problems:
        raise typer.Exit(EX_PARTIAL)


def _lines(state: "State", config: "Config", asked: Asked, printer: "Printer", after: int) -> Iterator[bytes]:
    """Yield the lines of all that is meant; of a key that is asked for alone, without an answer, why is a problem."""
    from nura_cli.pipeline import results

    for chosen in asked.parts(state, config, printer.problems):
        if asked.keys_alone and not after:
            for found in results.unanswered(state, chosen):
                printer.problems.append(problem(found))
        yield from printer.lines(state, config, chosen, after)


class First(list[Problem]):
    """The first problems; of the others only how many there are, however many keys are asked for."""

    more = 0

    def append(self, found: Problem) -> None:
        """Keep a problem, or count it."""
        if len(self) < _MOST_TOLD:
            super().append(found)
        else:
            self.more += 1


class Printer:
    """Prints answers in one form, and remembers what of them could not be had."""

    def __init__(self, form: str, fields: str | None, as_csv: bool) -> None:
        """Prepare to print. Raises UsageError: ``fields`` cannot be understood."""
        self.problems = First()
        self._form = form
        self._csv = as_csv
        self._whole = fields is None and not as_csv
        if not self._whole:
            from nura_cli.pipeline import columns

            self._columns = columns.flat() if fields is None else columns.columns(fields)

    def head(self) -> Iterator[bytes]:
        """Yield what stands above all lines."""
        if self._csv:
            yield self._shown(csv_out.line(column.name for column in self._columns))

    def lines(self, state: "State", config: "Config", chosen: "Selection", after: int) -> Iterator[bytes]:
        """Yield the lines of a selection, with their ends."""
        from nura_cli.pipeline import results

        if self._form != _OURS:
            yield from map(_ended, results.vendor_lines(state, self._form, chosen, after=after))
            return
        if self._whole:
            yield from map(harmless, results.lines(state, config, chosen, after=after))
            return
        yield from map(self._picked, results.stream(state, config, chosen, after=after))

    def _picked(self, document: "Result") -> bytes:
        from nura_cli.pipeline import columns

        values, faults = columns.picked(document, self._columns)
        key = bytes(document["key"]).decode()
        for fault in faults:
            self.problems.append(problem(InputError(f"key {key}: {fault}; it is given as null")))
        if self._csv:
            return self._shown(csv_out.line(values))
        names = (column.name for column in self._columns)
        return _ended(csv_out.json_of(dict(zip(names, values, strict=True))))

    def _shown(self, line: bytes) -> bytes:
        """Return a line of CSV as it is; for a terminal without what it would act upon."""
        return plain(line.decode().removesuffix("\r\n")).encode() + b"\n" if sys.stdout.isatty() else line


def _ended(line: bytes) -> bytes:
    return harmless(line) + b"\n"


def _print(lines: Iterable[bytes]) -> None:
    """Print lines, many at a time."""
    waiting: list[bytes] = []
    size = 0
    for line in lines:
        waiting.append(line)
        size += len(line)
        if size >= _FLUSH_BYTES:
            _put(waiting)
            waiting, size = [], 0
    _put(waiting)


def _put(lines: Sequence[bytes]) -> None:
    with output() as out:
        out.write(b"".join(lines))
