"""Pages of what may be wide: bounded in bytes as well as in rows, so that rows of some megabytes fill no memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

PAGE_BYTES = 4 * 1024 * 1024
"""What one page of wide rows holds; one larger row alone is a page."""

Row = TypeVar("Row")


def first(rows: Iterable[Row], size: Callable[[Row], int]) -> list[Row]:
    """Return the first of some rows, as many as one page takes; the others are not read.

    Args:
        size: gives the bytes of a row.
    """
    page, total = [], 0
    for row in rows:
        page.append(row)
        total += size(row)
        if total >= PAGE_BYTES:
            break
    return page


def split(rows: Sequence[Row], size: Callable[[Row], int]) -> Iterator[list[Row]]:
    """Yield rows in pages, in their order; ``size`` as :func:`first` has it."""
    done = 0
    while page := first(rows[done:], size):
        yield page
        done += len(page)
