"""nura log."""

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from nura_cli.cli.grammar import moment
from nura_cli.cli.session import Session, output, plain, with_session
from nura_cli.clock import span
from nura_cli.errors import EX_CONFIG, EX_TEMPFAIL
from nura_cli.pipeline import log
from nura_cli.pipeline.report import Report, counted
from nura_cli.state.history import Acted, Moved, Part, Ran

if TYPE_CHECKING:
    from nura_cli import contract
    from nura_cli.pipeline.log import Happened

_LAST = "12h"
_BEGINNING = 0


EXAMPLES = (
    ("nura log --since 2h classify", "what happened to a workload"),
    ("nura log --batch 12", "all that happened to a batch"),
)
EXIT_CODES = (EX_TEMPFAIL, EX_CONFIG)


@with_session
def command(
    session: Session,
    workloads: Annotated[list[str] | None, typer.Argument(help="Only what concerns these.", show_default="all")] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="From then on: a time or date, or how long ago, such as 2h.",
            show_default=f"{_LAST}; all of a batch's",
        ),
    ] = None,
    until: Annotated[str | None, typer.Option(help="… and before then.", show_default=False)] = None,
    batch: Annotated[int | None, typer.Option(help="Only of this batch.", show_default=False, metavar="ID")] = None,
) -> None:
    """Say what happened, and when: runs, what persons did, moves of tasks and batches."""
    begin = moment("--since", since or (_LAST if batch is None else None))
    end = moment("--until", until)
    part = Part(_BEGINNING if begin is None else begin, workloads=workloads or (), batch_id=batch)
    if end is not None:
        part = part._replace(until=end)
    outline = session.outline()
    with session.state(outline.state, newer=True) as state:
        log.check(state, part, outline.workloads)
        found = log.entries(state, part)
        if session.json:
            result: contract.Logged = {"entries": [log.as_dict(one) for one in found]}
            session.finish(Report(result))
            return
        with output():
            for line in lines(found):
                print(line)


def lines(found: "Iterable[Happened]") -> Iterator[str]:
    """Yield the lines of the log for a person: the date once, then the local time, and what it was, in words.

    Moves that are alike and follow each other within an hour are one line, with their sum.
    """
    day = None
    for _, alike in groupby(enumerate(found), key=_alike):
        one = _as_one([entry for _, entry in alike])
        at = time.localtime(one.at)
        date = time.strftime("%Y-%m-%d, local time (%z)", at)
        if date != day:
            yield date if day is None else f"\n{date}"
            day = date
        yield f"{time.strftime('%H:%M:%S', at)}  {plain(' '.join(_words(one).split()))}"


def _alike(numbered: "tuple[int, Happened]") -> object:
    number, one = numbered
    if not isinstance(one, Moved):
        return number
    return one._replace(id=0, n=0, at=one.at // 3600)


def _as_one(alike: "Sequence[Happened]") -> "Happened":
    first = alike[0]
    if not isinstance(first, Moved):
        return first
    return first._replace(n=sum(one.n for one in alike if isinstance(one, Moved)))


def _words(one: "Happened") -> str:
    if isinstance(one, Ran):
        return f"{one.stage}{f' {one.workload}' if one.workload else ''}: {_end(one)}"
    if isinstance(one, Acted):
        about = f" {one.workload}" if one.workload else ""
        batch = f" (batch {one.batch_id})" if one.batch_id is not None else ""
        why = f": {one.why}" if one.why else ""
        return f"{one.verb}{about} by {one.who or 'nura'}{batch}: {one.what}{why}"
    batch = "" if one.batch_id is None else f"batch {one.batch_id}"
    if one.what == "batch":
        what = f"{batch} of {one.workload}"
    else:
        what = f"{one.workload}: {counted(one.n, 'task')}" + (f" of {batch}" if batch else "")
    return f"{what}: {one.old or 'new'} -> {one.new}: {one.why}"


def _end(ran: Ran) -> str:
    if ran.ended_at is None:
        return "was killed" if log.killed(ran) else f"at work (pid {ran.pid})"
    took = ran.ended_at - ran.at
    after = f" after {span(took)}" if took > 0 else ""
    said = f": {ran.message}" if ran.message else ""
    return f"exit code {ran.exit_code}{after}{said}"
