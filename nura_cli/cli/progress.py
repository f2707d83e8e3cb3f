"""A progress bar for people: one, with figures, rate and time left; nothing for cron."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nura_cli import logs, progress
from nura_cli.cli.figures import short
from nura_cli.cli.session import Session, plain

_SOON_SECONDS = 0.5
"""What is over by then is not shown."""
_AGAIN_SECONDS = 0.1


@contextmanager
def bar(session: Session) -> Iterator[None]:
    """Show on a terminal how far the work inside of the block is; not among the lines of what nura tells of itself."""
    if not session.terminal or session.verbose > 1 or logs.VARIABLE in os.environ or os.environ.get("TERM") == "dumb":
        yield
        return
    shown = Bar()
    try:
        with progress.shown(shown):
            yield
    finally:
        shown.stop()


@dataclass
class _Piece:
    """A piece of work; ``task`` is what rich knows it by, once it is drawn."""

    what: str
    total: int | None
    in_bytes: bool
    began: float
    done: int = 0
    task: Any = None


class Bar(progress.Listener):
    """One bar on standard error: that of the innermost piece of work."""

    def __init__(self) -> None:
        self._pieces: list[_Piece] = []
        self._drawn: Any = None
        self._next = 0.0

    def begin(self, what: str, total: int | None, *, in_bytes: bool, at_once: bool) -> None:
        """Take a piece of work on; drawn once it has taken a while."""
        now = time.monotonic()
        if self._pieces and self._pieces[-1].task is not None:
            self._drawn.update(self._pieces[-1].task, visible=False)
        self._pieces.append(_Piece(plain(what), total, in_bytes, now))
        self._next = now if at_once or self._drawn else now + _SOON_SECONDS
        if at_once:
            self.at(0)

    def at(self, done: int) -> None:
        """Draw how far it is, some times a second."""
        piece, now = self._pieces[-1], time.monotonic()
        piece.done = done
        if now < self._next:
            return
        self._next = now + _AGAIN_SECONDS
        self._drawn = self._drawn or _bar()
        if piece.task is None:
            piece.task = self._drawn.add_task(piece.what, total=piece.total, in_bytes=piece.in_bytes)
        self._drawn.update(piece.task, completed=done)

    def end(self) -> None:
        """Take the innermost bar away; the one around it is there again."""
        piece = self._pieces.pop()
        if piece.task is not None:
            self._drawn.update(piece.task, completed=piece.done, refresh=True)
            self._drawn.remove_task(piece.task)
        if not self._pieces:
            self.stop()
        elif self._pieces[-1].task is not None:
            self._drawn.update(self._pieces[-1].task, visible=True)

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if self._drawn is not None:
            self._drawn.stop()
            self._drawn = None


def _bar() -> Any:
    """Return rich's bar, drawn already."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.table import Column
    from rich.text import Text

    class Figures(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(figures(int(task.completed), task.total, task.speed, in_bytes=task.fields["in_bytes"]))

    what = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    columns = (what, BarColumn(16), Figures(), TimeRemainingColumn(compact=True))
    # What is printed meanwhile to standard error stands above the bar; standard output is for programs.
    found = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)
    found.start()
    return found


def figures(done: int, total: float | None, speed: float | None, *, in_bytes: bool) -> str:
    """Return how much is done, of how much where that is known, and how much a second."""
    unit = "B" if in_bytes else ""
    of = f" of {short(int(total))}{unit}" if total is not None else ""
    rate = f", {short(int(speed))}{unit}/s" if speed else ""
    return f"{short(done)}{unit if total is None else ''}{of}{rate}"
