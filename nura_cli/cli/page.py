"""``nura status --html``: one page with all of it, which asks nobody for anything, and runs no script."""

import importlib.resources
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from nura_cli import __version__, clock
from nura_cli.cli.figures import dollars
from nura_cli.cli.session import plain
from nura_cli.pipeline import charts
from nura_cli.state import State

BEGINS = "<!doctype html>\n<!-- nura status -->"
"""How each page begins: so it is known for one, and is replaced."""
_WIDTH, _HEIGHT = 640, 160
_STATES = ("completed", "submitted", "pending", "failed", "cancelled")


class Bar(NamedTuple):
    """A bar of a chart: where it stands, in its units, how it is coloured, and what it says."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    says: str


class Label(NamedTuple):
    """Words of a chart, and where their middle is."""

    x: float
    text: str


class Chart(NamedTuple):
    """Upright bars beside each other, with words below some of them, and the largest value beside the top."""

    bars: Sequence[Bar]
    labels: Sequence[Label]
    top: str


def render(state: State, found: Mapping[str, Any], now: int) -> str:
    """Return the page.

    Args:
        found: the result of status.
        now: unix seconds, for the page's head.
    """
    import jinja2

    spent, took = charts.spent(state), charts.took(state)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"plain": plain, "dollars": dollars, "span": clock.span, "grouped": "{:,}".format}
    template = environment.from_string(importlib.resources.files(__package__).joinpath("page.html").read_text("utf-8"))
    return BEGINS + template.render(
        found=found,
        states=list(_STATES),
        version=__version__,
        at=clock.rfc3339(now),
        spent=spent,
        spending=_by_day(spent),
        took=took,
        durations=_durations(took),
        work=[(name, _stacked(row["tasks"])) for name, row in found["workloads"].items()],
        failed=charts.failed(found["workloads"]),
        width=_WIDTH,
        height=_HEIGHT,
    )


def _by_day(spent: Sequence[charts.Spent]) -> Chart | None:
    """Return the chart of what was paid and what the same costs synchronously; None where nothing was."""
    top = max((max(Decimal(one.paid), Decimal(one.list)) for one in spent), default=Decimal(0))
    if not top:
        return None
    step, bars, labels = _WIDTH / len(spent), list[Bar](), list[Label]()
    for n, one in enumerate(spent):
        for k, (colour, value) in enumerate((("paid", one.paid), ("list", one.list))):
            height = float(Decimal(value) / top) * _HEIGHT
            says = f"{one.day}: {dollars(value)} {'paid' if colour == 'paid' else 'at list price'}"
            bars.append(Bar(n * step + k * step * 0.42, _HEIGHT - height, step * 0.4, height, colour, says))
        if (len(spent) - 1 - n) % 7 == 0:
            labels.append(Label(min(max((n + 0.5) * step, 16), _WIDTH - 16), one.day[5:]))
    return Chart(bars, labels, dollars(str(top)))


def _durations(took: Sequence[charts.Took]) -> Chart | None:
    """Return the chart of how many batches took how long; None where none has ended."""
    if not took:
        return None
    top, step = max(one.n for one in took), _WIDTH / len(took)
    bars = [
        Bar(
            n * step + step * 0.1,
            _HEIGHT - one.n / top * _HEIGHT,
            step * 0.8,
            one.n / top * _HEIGHT,
            "paid",
            f"{one.span}: {one.n:,}",
        )
        for n, one in enumerate(took)
    ]
    return Chart(bars, [Label((n + 0.5) * step, one.span) for n, one in enumerate(took)], f"{top:,}")


def _stacked(tasks: Mapping[str, int]) -> list[Bar]:
    """Return a workload's tasks by state as parts of one bar that lies."""
    total, x, bars = sum(tasks[state] for state in _STATES), 0.0, list[Bar]()
    for state in _STATES:
        width = tasks[state] / total * _WIDTH if total else 0
        if width:
            bars.append(Bar(x, 0, width, 18, state, f"{tasks[state]:,} {state}"))
        x += width
    return bars
