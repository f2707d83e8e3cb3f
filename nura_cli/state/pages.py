"""Pages of what may be wide: bounded in bytes as well as in rows, so that rows of some megabytes fill no memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

PAGE_BYTES = 2 * 1024 * 1024
"""What one page of wide rows holds."""

Row = TypeVar("Row")


def first(rows: Iterable[Row], size: Callable[[Row], int]) -> list[Row]:
    """Return the first of some rows as they are read: until they fill a page; no further one is read.

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
    """Yield rows that are not read yet in pages, in their order; a larger one is a page of its own. ``size`` as in :func:`first`."""
    page: list[Row] = []
    total = 0
    for row in rows:
        if page and total + size(row) > PAGE_BYTES:
            yield page
            page, total = [], 0
        page.append(row)
        total += size(row)
    if page:
        yield page
