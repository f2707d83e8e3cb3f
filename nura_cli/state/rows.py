"""Many rows into a table by few statements.

A statement a row would begin a savepoint each time, where the table has a trigger or replaces rows, and write AUTOINCREMENT's own
table: that costs as much as the row.
"""

from collections.abc import Sequence
from itertools import chain

from nura_cli.state.connection import Connection

_AT_ONCE = 100
"""Rows of one statement. SQLite takes 32,766 values at once, and what is longer to prepare is hardly faster."""


def insert(db: Connection, into: str, row: str, rows: Sequence[Sequence[object]], alike: Sequence[object] = ()) -> None:
    """Insert rows, in their order.

    Args:
        into: the statement up to its values: ``INSERT INTO table (column, ...)``.
        row: the values of one row, in brackets: ``?`` for each of its own, ``?1`` and so on for those that all rows have alike.
        rows: each row's own values.
        alike: the values that all rows have alike.
    """
    whole = len(rows) - len(rows) % _AT_ONCE
    many = f"{into} VALUES {', '.join([row] * _AT_ONCE)}"
    for first in range(0, whole, _AT_ONCE):
        db.execute(many, [*alike, *chain.from_iterable(rows[first : first + _AT_ONCE])])
    db.executemany(f"{into} VALUES {row}", [(*alike, *one) for one in rows[whole:]])
