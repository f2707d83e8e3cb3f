"""nura status."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nura_cli import clock
from nura_cli.cli.figures import cut, dollars
from nura_cli.cli.session import Session, output, plain, with_session
from nura_cli.errors import EX_CONFIG, EX_TEMPFAIL, ConfigError
from nura_cli.pipeline import status
from nura_cli.pipeline.failures import argument
from nura_cli.pipeline.report import counted

if TYPE_CHECKING:
    from rich.table import Table

    from nura_cli.config import WorkloadConfig


EXAMPLES = (
    ("nura status", "counts, last runs, money, and what needs a person"),
    ("nura status classify --json", "the same of one workload, for a program"),
)
EXIT_CODES = (EX_TEMPFAIL, EX_CONFIG)


@with_session
def command(
    session: Session,
    only: Annotated[
        list[str] | None, typer.Argument(metavar="WORKLOAD", help="Only these.", show_default="all")
    ] = None,
) -> None:
    """Show where everything stands, and what needs a person."""
    outline = session.outline()
    with session.state(outline.state, newer=True) as state:
        report = status.run(state, outline.workloads, only=only or (), options=lambda: _options(outline.config))
    if not session.json:
        with output():
            _show(dict(report.result))
    session.finish(report)


def _options(path: Path | None) -> "Mapping[str, WorkloadConfig] | None":
    """Return the configured workloads, checked; None where the configuration is not there, or wrong."""
    from nura_cli import config

    try:
        return config.load(path).workloads if path else None
    except ConfigError:
        return None


def _show(found: dict[str, Any]) -> None:
    """Print tables; words from outside are shown as they are, never read as markup."""
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True, highlight=False)
    if not console.is_terminal:
        console.width = 10_000  # a pipe has no width to wrap at
    console.print(_workloads(found))
    if found["batches"]:
        console.print(_batches(found))
    for name, stage in found["stages"].items():
        ended = "still running, or was stopped" if stage["exit_code"] is None else f"exit code {stage['exit_code']}"
        message = f": {plain(stage['message'])}" if stage["message"] else ""
        console.print(Text(f"{name}: last run {stage['started_at']}, {ended}{message}"))
    for workload, left in found["deliveries"].items():
        waiting = [f"{left[kind]['pending']:,} {kind}" for kind in ("rows", "events") if left[kind]["pending"]]
        if waiting:
            console.print(Text(f"{workload}: still to be delivered: {' and '.join(waiting)}"))
    for route in found["paused"]:
        names = (route["provider"], route["endpoint"], route["model"], plain(route["why"] or ""))
        where = " ".join(part for part in names[:3] if part)
        console.print(Text(f"paused until {route['until']}: {': '.join(part for part in (where, names[3]) if part)}"))
    for hold in found["holds"]:
        console.print(Text(f"held: {plain(hold['message'])}"))
    for one in found["snapshots"]:
        console.print(
            Text(
                f"as it was before a migration (schema {one['version']}), kept until {one['kept_until']}: {plain(one['path'])}"
            )
        )
    for line in _failures(found):
        console.print(Text(line))
    for need in found["attention"]:
        console.print(Text(f"needs you: {plain(need['message'])}\n  type: {need['hint']}"))
    console.print(Text(_money(found)))


_GROUPS_SHOWN = 5
"""Kinds of failure of a workload that are shown; ``--json`` has more of them."""
_GIVEN_UP = {
    "row": ("row was not written", "rows were not written"),
    "event": ("event was given up", "events were given up"),
}


def _failures(found: dict[str, Any]) -> Iterator[str]:
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


def _workloads(found: dict[str, Any]) -> "Table":
    """Return the table of workloads: tasks by state, the oldest that waits, what was paid and saved."""
    from rich.table import Table

    table = Table(title=None, box=None, pad_edge=False, header_style="bold")
    names = ("pending", "submitted", "completed", "failed", "cancelled")
    table.add_column("workload", no_wrap=True)
    for name in (*names, "oldest pending", "paid", "saved"):
        table.add_column(name, justify="right", no_wrap=True)
    for workload, row in found["workloads"].items():
        oldest = row["oldest_pending_seconds"]
        cost = row["cost"]
        table.add_row(
            workload,
            *(f"{row['tasks'][name]:,}" for name in names),
            "" if oldest is None else clock.span(oldest),
            dollars(cost["paid"]),
            dollars(cost["saved"]),
        )
    return table


def _batches(found: dict[str, Any]) -> "Table":
    """Return the table of batches under way, with their age and what is left of their time."""
    from rich.table import Table

    table = Table(title=None, box=None, pad_edge=False, header_style="bold")
    for name in ("batch", "workload", "provider", "status", "there", "requests", "age", "time left"):
        table.add_column(name, no_wrap=True)
    now = clock.now()
    for batch in found["batches"]:
        sent = batch["submitted_at"] or batch["created_at"]
        left = clock.parse(batch["expires_at"]) - now if batch["expires_at"] and not batch["ended_at"] else None
        table.add_row(
            str(batch["id"]),
            batch["workload"],
            batch["provider"],
            batch["status"],
            plain(batch["remote_status"] or ""),
            f"{batch['requests']:,}",
            clock.span(now - clock.parse(sent)),
            "" if left is None else clock.span(left) if left > 0 else "over",
        )
    return table


def _money(found: dict[str, Any]) -> str:
    usage, cost = found["usage"], found["cost"]
    unpriced = f"; {cost['unpriced_tasks']:,} answers have no known price" if cost["unpriced_tasks"] else ""
    return (
        f"{usage['input_tokens']:,} tokens in, {usage['output_tokens']:,} out: paid {dollars(cost['paid'])},"
        f" synchronously {dollars(cost['list'])}, saved {dollars(cost['saved'])}{unpriced}"
    )
