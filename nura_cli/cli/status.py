"""nura status."""

import shlex
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from nura_cli import clock, config_file
from nura_cli.cli import files, layout
from nura_cli.cli.figures import cut, dollars
from nura_cli.cli.layout import Cell, Column, Screen
from nura_cli.cli.session import Outline, Session, output, plain, with_session
from nura_cli.errors import EX_CONFIG, EX_PARTIAL, EX_TEMPFAIL, ConfigError
from nura_cli.pipeline import metrics, status
from nura_cli.pipeline.failures import argument
from nura_cli.pipeline.report import counted
from nura_cli.pipeline.symptoms import Alert, Configured
from nura_cli.state import State

if TYPE_CHECKING:
    from nura_cli.config import WorkloadConfig


EXAMPLES = (
    ("nura status", "counts, last runs, money, and what needs a person"),
    ("nura status classify --json", "the same of one workload, for a program"),
)
EXIT_CODES = (EX_PARTIAL, EX_TEMPFAIL, EX_CONFIG)


@with_session
def command(
    session: Session,
    only: Annotated[
        list[str] | None, typer.Argument(metavar="WORKLOAD", help="Only these.", show_default="all")
    ] = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="End with 3 where something needs a person.")] = False,
    prometheus: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write metrics to this file, and no table: for node_exporter's textfile collector."
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page with charts and tables to this file, and no table here."),
    ] = None,
) -> None:
    """Show where everything stands, and what needs a person."""
    state_path, configured = _known(session)
    with session.state(state_path, newer=True) as state:
        report = status.run(state, configured, only=only or ())
        if html is not None:
            _write_page(html, state, report.result)
    if prometheus is not None:
        text = metrics.text(report.result, clock.now())
        files.write("--prometheus", prometheus, text, begins="# HELP nura_", mode=0o666)
    if not (session.json or prometheus or html):
        with output():
            for line in _lines(
                report.result, layout.of_output(), every=bool(only or session.verbose), sizes=bool(session.verbose)
            ):
                print(line)
    session.finish(report, code=EX_PARTIAL if exit_code and report.result["attention"] else None)


def _write_page(path: Path, state: State, found: Mapping[str, Any]) -> None:
    """Write the page; it holds words of failures, so nobody else may read it."""
    from nura_cli.cli import page

    files.write("--html", path, page.render(state, found, clock.now()), begins=page.BEGINS, mode=0o600)


def _known(session: Session) -> tuple[Path, Configured]:
    """Return the state file, and what is known of the configuration; one that is no YAML needs a person, and hides no state.

    Raises:
        ConfigError: there is no configuration; or it is no YAML, and does not tell where the state file is.
    """
    try:
        outline = session.outline()
    except ConfigError as error:
        state = session.state_option or (error.path and config_file.state_line(error.path))
        if state is None or error.path is None or not state.exists():
            raise
        return state, Configured(load=partial(_raise, error))
    path = outline.config
    if path is None:
        return outline.state, Configured()
    known = Configured(outline.providers, lambda: _loaded(path), config_file.digest_of(path), _alert(outline))
    return outline.state, known


def _raise(error: ConfigError) -> NoReturn:
    raise error


def _loaded(path: Path) -> "Mapping[str, WorkloadConfig]":
    """Return the configured workloads, checked. Raises ConfigError."""
    from nura_cli import config

    return config.load(path).workloads


def _alert(outline: Outline) -> Alert:
    """Return when waiting needs a person; what is no length of time is the default, and a fault of the configuration."""
    given = outline.document.get("alert")
    found: dict[str, int | None] = {}
    for name, value in given.items() if isinstance(given, dict) else ():
        if name in Alert._fields and value is not None:
            try:
                found[name] = None if value == "never" else int(config_file.duration(value))
            except (ValueError, TypeError, OverflowError):
                continue
    return Alert(**found)


_NEEDS_SHOWN = 10
"""What needs a person is shown so far without ``-v``."""
_LARGE_BYTES = 100_000_000
"""What state file, log and spool take is shown from so much on without ``-v``."""
_BATCHES_SHOWN = 10
"""Beyond so many, batches are a line a workload."""


def _lines(found: Mapping[str, Any], screen: Screen, *, every: bool, sizes: bool = False) -> Iterator[str]:
    """Yield the lines for a person; words from outside are shown as they are, never read as markup.

    Args:
        every: whether each batch and all that needs a person is shown.
        sizes: whether it is said what lies on the disk, however little that is.
    """
    yield from _needs(found["attention"], screen, every=every)
    yield from _workloads(found["workloads"], screen)
    batches = found["batches"]
    if batches:
        yield from _batches(batches, screen) if every or len(batches) <= _BATCHES_SHOWN else _folded(batches, screen)
    for line, style in _details(found, sizes=sizes):
        yield screen.styled(screen.wrapped(line, "  "), style)
    yield screen.wrapped(_money(found), "  ")


def _needs(needs: list[dict[str, Any]], screen: Screen, *, every: bool) -> Iterator[str]:
    """Yield what needs a person, each with what to type."""
    shown = needs if every else needs[:_NEEDS_SHOWN]
    for need in shown:
        yield screen.styled(screen.wrapped(f"needs you: {plain(need['message'])}", "  "), "yellow")
        yield screen.wrapped(f"  type: {plain(need['hint'])}", "    ")
    if len(needs) > len(shown):
        yield screen.styled(f"needs you: {len(needs) - len(shown):,} more\n  type: nura status -v", "yellow")
    if needs:
        yield ""


def _details(found: Mapping[str, Any], *, sizes: bool) -> Iterator[tuple[str, str]]:
    """Yield one line after the other about stages, the disk, deliveries, pauses, holds, copies and failures, each with its style."""
    for name, stage in found["stages"].items():
        ended = "still running, or was stopped" if stage["exit_code"] is None else f"exit code {stage['exit_code']}"
        message = f": {plain(stage['message'])}" if stage["message"] else ""
        yield f"{name}: last run {stage['started_at']}, {ended}{message}", "red" if stage["exit_code"] else ""
    disk = found["disk"]
    if sizes or disk["state_bytes"] + disk["wal_bytes"] + disk["spool_bytes"] >= _LARGE_BYTES:
        yield (
            f"on the disk: state file {_megabytes(disk['state_bytes'])}, its log {_megabytes(disk['wal_bytes'])},"
            f" spool {_megabytes(disk['spool_bytes'])}",
            "",
        )
    for workload, row in found["workloads"].items():
        if row["tasks"]["cancelled"]:
            yield f"{workload}: {row['tasks']['cancelled']:,} cancelled", ""
        if row["purged"]:
            yield f"{workload}: {row['purged']:,} purged", ""
        if row["to_be_purged"]:
            yield f"{workload}: {row['to_be_purged']:,} to be purged once nothing of them is under way", ""
        for wait in row["waits"]:
            until = f" until {wait['until']}" if wait["until"] else ""
            yield f"{workload}: {wait['tasks']:,} wait{until} ({wait['why']}): {plain(wait['message'])}", ""
    if found["purged_at_providers"]:
        n = counted(found["purged_at_providers"], "purged batch", "purged batches")
        yield f"what providers keep of {n} is still to be deleted there", ""
    for workload, left in found["deliveries"].items():
        waiting = [f"{left[kind]['pending']:,} {kind}" for kind in ("rows", "events") if left[kind]["pending"]]
        if waiting:
            yield f"{workload}: still to be delivered: {' and '.join(waiting)}", ""
    for route in found["paused"]:
        names = (route["provider"], route["endpoint"], route["model"], plain(route["why"] or ""))
        where = " ".join(part for part in names[:3] if part)
        yield f"paused until {route['until']}: {': '.join(part for part in (where, names[3]) if part)}", "yellow"
    for hold in found["holds"]:
        yield f"held: {plain(hold['message'])}", "yellow"
    for one in found["snapshots"]:
        what = f"as it was before a migration (schema {one['version']}), kept until {one['kept_until']}"
        yield f"{what}: {plain(one['path'])}", ""
    for line in _failures(found):
        yield line, ""


_GROUPS_SHOWN = 5
"""Kinds of failure of a workload that are shown; ``--json`` has more of them."""
_GIVEN_UP = {
    "row": ("row was not written", "rows were not written"),
    "event": ("event was given up", "events were given up"),
}


def _failures(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield what failed and what could not be delivered, each with what to type."""
    for workload, row in found["workloads"].items():
        lines = [_failed(workload, one) for one in row["failures"]] + [
            _dead(workload, one) for one in row["dead_deliveries"]
        ]
        yield from lines[:_GROUPS_SHOWN]
        if len(lines) > _GROUPS_SHOWN:
            yield f"{workload}: {len(lines) - _GROUPS_SHOWN} more kinds of failure: nura status {shlex.quote(workload)} --json"


def _failed(workload: str, group: dict[str, Any]) -> str:
    retry = f"nura retry {shlex.quote(workload)}"
    tasks = counted(group["n"], "task")
    if group["kind"] is None:
        return _group(workload, f"{tasks} failed for other reasons", group, retry)
    code = group["code"]
    which = shlex.quote(group["kind"] + (f":{code}" if code else ""))
    kind = group["kind"] + (f" ({plain(code)})" if code else "")
    return _group(workload, f"{tasks} failed, {kind}", group, f"{retry} --error {which}")


def _dead(workload: str, group: dict[str, Any]) -> str:
    redeliver = f"nura redeliver {shlex.quote(workload)}"
    if group["kind"] is None:
        return _group(workload, f"{counted(group['n'], 'more delivery', 'more deliveries')} given up", group, redeliver)
    return _group(workload, counted(group["n"], *_GIVEN_UP[group["kind"]]), group, f"{redeliver} --{group['kind']}s")


def _group(workload: str, what: str, group: dict[str, Any], again: str) -> str:
    """Return a group of failures and what to type: to look at one, and, once what was wrong is mended, to try again."""
    words = f": {cut(plain(group['message']))}" if group["message"] else ""
    look = f"nura show {shlex.quote(workload)} {argument(group['key'])}; " if group["key"] is not None else ""
    return f"{workload}: {what}{words}\n  type: {look}once it is mended, {again}"


def _workloads(rows: dict[str, Any], screen: Screen) -> Iterator[str]:
    """Yield the table of workloads: one row each."""
    columns = [
        Column("workload"),
        *(Column(name, figures=True) for name in ("pending", "oldest", "under way", "completed", "failed", "paid")),
    ]
    yield from layout.table(
        screen,
        columns,
        [
            (
                Cell(name),
                Cell(f"{row['tasks']['pending']:,}"),
                Cell("" if row["oldest_pending_seconds"] is None else clock.span(row["oldest_pending_seconds"])),
                Cell(f"{row['tasks']['submitted']:,}"),
                Cell(f"{row['tasks']['completed']:,}"),
                Cell(f"{row['tasks']['failed']:,}", "red" if row["tasks"]["failed"] else ""),
                Cell(dollars(row["cost"]["paid"])),
            )
            for name, row in rows.items()
        ],
    )


def _batches(batches: list[dict[str, Any]], screen: Screen) -> Iterator[str]:
    """Yield the table of batches under way, with their age and what is left of their time."""
    columns = [
        *(Column(name) for name in ("batch", "workload", "provider", "status", "there")),
        *(Column(name, figures=True) for name in ("requests", "age", "left")),
    ]
    now = clock.now()
    yield from layout.table(
        screen,
        columns,
        [
            (
                Cell(str(batch["id"])),
                Cell(batch["workload"]),
                Cell(batch["provider"]),
                Cell(batch["status"]),
                Cell(plain(batch["remote_status"] or "")),
                Cell(f"{batch['requests']:,}"),
                Cell(clock.span(_age(batch, now))),
                Cell(_left(batch, now)),
            )
            for batch in batches
        ],
    )


def _folded(batches: list[dict[str, Any]], screen: Screen) -> Iterator[str]:
    """Yield one line for the batches of each workload, and what to type for all."""
    now, by_workload = clock.now(), dict[str, list[dict[str, Any]]]()
    for batch in batches:
        by_workload.setdefault(batch["workload"], []).append(batch)
    for name, those in by_workload.items():
        n = sum(batch["requests"] for batch in those)
        oldest = max(_age(batch, now) for batch in those)
        yield screen.wrapped(
            f"{name}: {counted(len(those), 'batch', 'batches')} under way, {counted(n, 'request')}, the oldest {clock.span(oldest)}"
            f" old (nura status {shlex.quote(name)})",
            "  ",
        )


def _age(batch: dict[str, Any], now: int) -> int:
    return now - clock.parse(batch["submitted_at"] or batch["created_at"])


def _left(batch: dict[str, Any], now: int) -> str:
    """Return what is left of a batch's time at its provider."""
    if not batch["expires_at"] or batch["ended_at"]:
        return ""
    left = clock.parse(batch["expires_at"]) - now
    return clock.span(left) if left > 0 else "over"


def _megabytes(n: int) -> str:
    return f"{n / 1e6:,.1f} MB"


def _money(found: Mapping[str, Any]) -> str:
    usage, cost = found["usage"], found["cost"]
    unpriced = f"; {cost['unpriced_tasks']:,} answers have no known price" if cost["unpriced_tasks"] else ""
    return (
        f"{usage['input_tokens']:,} tokens in, {usage['output_tokens']:,} out: paid {dollars(cost['paid'])},"
        f" synchronously {dollars(cost['list'])}, saved {dollars(cost['saved'])}{unpriced}"
    )
