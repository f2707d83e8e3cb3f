"""The file's shape: an earlier one is brought into the layout that new files have, and what was deleted is given back to the disk.

Nothing here is undone: a file of the newer layout is closed to older releases.
"""

from collections.abc import Callable

from nura_cli.state import schema
from nura_cli.state.file import State

PAGES = 512
"""How many pages are given back in one transaction: 8 MB, for which other writers hardly wait."""


def due(state: State) -> bool:
    """Return whether a file has the earlier layout, or is not wholly in the newer one."""
    return int(state.db.execute("PRAGMA auto_vacuum").fetchone()[0]) != schema.INCREMENTAL


def needs(state: State) -> int:
    """Return how many bytes of disk :func:`convert` and :func:`vacuum` need in the file's folder while they run, at most."""
    pages, size = (state.db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    return 3 * int(pages) * int(size)


def convert(state: State, progress: Callable[[int, int], None]) -> None:
    """Bring a file into the layout that new files have, chunk by chunk, while others write; killed, it goes on the next time.

    Args:
        progress: called after each chunk with how many rows are done, and how many there are about.
    """
    raise NotImplementedError


def vacuum(state: State) -> None:
    """Write the file anew, without its free pages, and so that :func:`shrink` can give them back from now on.

    Everybody else waits meanwhile, and gives up after a while.
    """
    raise NotImplementedError


def shrink(state: State, pages: int = PAGES) -> bool:
    """Give up to ``pages`` free pages back to the disk, in a transaction of its own; return whether there are more.

    A file that :func:`vacuum` never wrote anew gives nothing back.
    """
    if state.db.execute("PRAGMA auto_vacuum").fetchone()[0] != schema.INCREMENTAL:
        return False
    with state.transaction() as db:
        free = int(db.execute("PRAGMA freelist_count").fetchone()[0])
        for _ in range(
            min(free, pages)
        ):  # of the rows without columns that SQLite makes of more, Python reads the first
            db.execute("PRAGMA incremental_vacuum(1)")
        return free > pages
