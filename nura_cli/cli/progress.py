"""A progress bar for people; nothing for cron."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nura_cli.cli.session import Session


@contextmanager
def bar(session: Session, what: str, *, only: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Give a function that takes (done, total) and shows it on a terminal; off a terminal, or without ``only``, none."""
    if not session.terminal or not only:
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
