"""The statements that put answers into rows, and say of each whether it was written, and if not, why not.

PostgreSQL takes hundreds of rows in one statement and names those it changed. The others take one statement a row, within
one transaction: SQLite is no network away, and the drivers of MySQL do just that in their ``executemany``. Either way the
guard is part of the update itself, so that an edit that comes between is never overwritten, and a row that already holds
our values is left alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from nura_cli.delivery.database import RowRefused, errors_of, refusal

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Engine, Table
    from sqlalchemy.types import TypeEngine


@dataclass(frozen=True, slots=True)
class RowOutcome:
    """What became of one answer.

    ``written``; ``unchanged`` (the row held our values already, or the ledger knows the delivery); ``gone`` (no such
    row); ``changed`` (``only_if`` does not hold: somebody edited the row since); ``failed`` (the answer does not fit,
    ``reason`` says where and why, and trying again would not help); ``skipped`` (nothing is to be written for it).
    """

    kind: Literal["written", "unchanged", "gone", "changed", "failed", "skipped"]
    reason: str | None = None


WRITTEN = RowOutcome("written")
UNCHANGED = RowOutcome("unchanged")
GONE = RowOutcome("gone")
CHANGED = RowOutcome("changed")
SKIPPED = RowOutcome("skipped")
_OF_MISSES = {None: GONE, 0: CHANGED, 1: UNCHANGED}


class Slot(NamedTuple):
    """One column and what comes into it."""

    column: str
    take: Callable[[Mapping[str, Any]], Any]
    """Gives the value for an answer document, as the column takes it; raises ValueError where there is none."""


class Row(NamedTuple):
    """One answer on its way: its place in the chunk, and its values in the order of its writer's slots."""

    position: int
    writer: "Writer"
    key: tuple[Any, ...]
    values: tuple[Any, ...]
    delivery: str | None


class Writer:
    """Writes one mapping of answers to columns.

    Args:
        where, guards, sets: the slots of the row's key, of what must still hold in it, and of what is written.
    """

    def __init__(
        self, engine: "Engine", table: "Table", where: Sequence[Slot], guards: Sequence[Slot], sets: Sequence[Slot]
    ) -> None:
        self._engine = engine
        self._table = table
        self._errors = errors_of(engine)
        self._where, self._guards, self._sets = where, guards, sets
        self._takes = [slot.take for slot in (*guards, *sets)]
        # SQLAlchemy keeps the names of columns for itself, so ours must be none of them.
        prefix = "v"
        while any(column.name.startswith(prefix) for column in table.columns):
            prefix += "_"
        self._names = [f"{prefix}{i}" for i in range(len(where) + len(guards) + len(sets))]
        self._index = prefix + "i"

    def row(self, position: int, document: Mapping[str, Any]) -> Row:
        """Return the row of an answer document.

        Raises:
            ValueError: a value is null that must not be, or does not fit its column; says which.
        """
        key = tuple([slot.take(document) for slot in self._where])
        return Row(position, self, key, (*key, *[take(document) for take in self._takes]), document.get("delivery_id"))

    def write(self, connection: "Connection", rows: Sequence[Row]) -> Iterator[tuple[Row, RowOutcome]]:
        """Write rows, no two with one key, and yield what became of each.

        Raises:
            DatabaseDown: the database cannot be used now.
            RowRefused: a row's refusal has ended the whole transaction.
        """
        raise NotImplementedError

    def rehearse(self, connection: "Connection") -> None:
        """Have the database read the statements, with no row to work on; raises what the driver raises."""
        raise NotImplementedError

    def _conditions(
        self, values: Sequence["ColumnElement[Any]"]
    ) -> tuple["ColumnElement[bool]", "ColumnElement[bool]", "ColumnElement[bool]"]:
        """Return three conditions on the row: it is the one, its guards hold, it holds our values."""
        import sqlalchemy as sa

        columns = [self._table.columns[slot.column] for slot in (*self._where, *self._guards, *self._sets)]
        n, m = len(self._where), len(self._where) + len(self._guards)
        pairs = list(zip(columns, values, strict=True))
        same = [_same(column, value, self._engine.dialect.name) for column, value in pairs]
        return (
            sa.and_(*(column == value for column, value in pairs[:n])),
            sa.and_(sa.true(), *same[n:m]),
            sa.and_(*same[m:]),
        )


class EachRow(Writer):
    """One statement a row."""

    def __init__(
        self, engine: "Engine", table: "Table", where: Sequence[Slot], guards: Sequence[Slot], sets: Sequence[Slot]
    ) -> None:
        import sqlalchemy as sa

        super().__init__(engine, table, where, guards, sets)
        binds: list[ColumnElement[Any]] = [sa.bindparam(name, type_=sa.types.NullType()) for name in self._names]
        key, guard, same = self._conditions(binds)
        columns = [table.columns[slot.column] for slot in sets]
        update = sa.update(table).where(key, guard, sa.not_(same))
        update = update.values(dict(zip(columns, binds[-len(sets) :], strict=True)))
        # A table may say ON CONFLICT REPLACE or ROLLBACK; our update takes no other row's place.
        self._update, self._update_values = self._compiled(update.prefix_with("OR ABORT", dialect="sqlite"))
        misses = sa.select(_least(same)).select_from(table).where(key)
        self._miss, self._miss_values = self._compiled(misses)

    def _compiled(self, statement: Any) -> tuple[str, Callable[[tuple[Any, ...]], tuple[Any, ...]]]:
        """Return a statement's text, and what puts a row's values into the order of its parameters."""
        compiled = statement.compile(dialect=self._engine.dialect)
        order = [self._names.index(name) for name in compiled.positiontup]
        return str(compiled), itemgetter(*order)

    def write(self, connection: "Connection", rows: Sequence[Row]) -> Iterator[tuple[Row, RowOutcome]]:
        """Write rows; see :meth:`Writer.write`."""
        # The driver's own cursor: SQLAlchemy's execution costs several times what SQLite's does.
        cursor = connection.connection.cursor()
        update, values = self._update, self._update_values
        try:
            for row in rows:
                try:
                    cursor.execute(update, values(row.values))
                    if cursor.rowcount:
                        yield row, WRITTEN
                        continue
                    cursor.execute(self._miss, self._miss_values(row.values))
                    found = cursor.fetchone()
                    yield row, _OF_MISSES[found[0] if found else None]
                except self._errors as error:
                    reason = refusal(error)
                    if not getattr(connection.connection.dbapi_connection, "in_transaction", True):
                        raise RowRefused(reason) from error  # a trigger's RAISE(ROLLBACK)
                    yield row, RowOutcome("failed", reason)
        finally:
            cursor.close()

    def rehearse(self, connection: "Connection") -> None:
        """Have the statements read; see :meth:`Writer.rehearse`."""
        nothing = (None,) * len(self._names)
        connection.exec_driver_sql("EXPLAIN " + self._update, self._update_values(nothing))
        connection.exec_driver_sql("EXPLAIN " + self._miss, self._miss_values(nothing))


class Together(Writer):
    """Many rows in one statement, as PostgreSQL can: each column's values are one array, in the text of its type."""

    def __init__(
        self,
        engine: "Engine",
        table: "Table",
        where: Sequence[Slot],
        guards: Sequence[Slot],
        sets: Sequence[Slot],
        types: Mapping[str, str],
    ) -> None:
        import sqlalchemy as sa
        from sqlalchemy.dialects.postgresql import ARRAY

        super().__init__(engine, table, where, guards, sets)
        names = [self._index, *self._names]
        arrays = [sa.bindparam(name, type_=ARRAY(sa.Text)) for name in names]
        given = sa.func.unnest(*arrays).table_valued(*(sa.column(name, sa.Text) for name in names)).render_derived()
        slots = (*where, *guards, *sets)
        values: list[ColumnElement[Any]] = [
            sa.cast(given.columns[name], _named(types[slot.column]))
            for name, slot in zip(self._names, slots, strict=True)
        ]
        key, guard, same = self._conditions(values)
        index = given.columns[self._index]
        columns = [table.columns[slot.column] for slot in sets]
        update = sa.update(table).values(dict(zip(columns, values[-len(sets) :], strict=True)))
        self._update = update.where(key, guard, sa.not_(same)).returning(index)
        holds = _least(same)
        self._misses = sa.select(index, holds).select_from(given).join(table, key).group_by(index)

    def write(self, connection: "Connection", rows: Sequence[Row]) -> Iterator[tuple[Row, RowOutcome]]:
        """Write rows; see :meth:`Writer.write`."""
        try:
            with connection.begin_nested():
                hits = {int(index) for (index,) in connection.execute(self._update, self._arrays(rows))}
        except self._errors as error:
            reason = refusal(error)
            if len(rows) == 1:
                yield rows[0], RowOutcome("failed", reason)
            else:
                middle = len(rows) // 2
                yield from self.write(connection, rows[:middle])
                yield from self.write(connection, rows[middle:])
            return
        misses = [row for row in rows if row.position not in hits]
        held: dict[int, int] = {}
        if misses:
            held = {int(i): same for i, same in connection.execute(self._misses, self._arrays(misses))}
        for row in rows:
            yield row, WRITTEN if row.position in hits else _OF_MISSES[held.get(row.position)]

    def rehearse(self, connection: "Connection") -> None:
        """Have the statements read; see :meth:`Writer.rehearse`."""
        connection.execute(self._update, self._arrays([]))
        connection.execute(self._misses, self._arrays([]))

    def _arrays(self, rows: Sequence[Row]) -> dict[str, list[Any]]:
        columns = list(zip(*(row.values for row in rows), strict=True)) or [()] * len(self._names)
        arrays = {name: list(values) for name, values in zip(self._names, columns, strict=True)}
        return {self._index: [str(row.position) for row in rows], **arrays}


def _named(name: str) -> "TypeEngine[Any]":
    """Return a type by the name that the database itself gives it."""
    from sqlalchemy.types import UserDefinedType

    class Named(UserDefinedType[Any]):
        cache_ok = False

        def get_col_spec(self, **options: Any) -> str:
            return name.replace("%", "%%")

    return Named()


def _least(same: "ColumnElement[bool]") -> "ColumnElement[Any]":
    """Return 1 when every row that was found holds our values, 0 when one does not, null when none was found."""
    import sqlalchemy as sa

    return sa.func.min(sa.case((same, sa.literal_column("1")), else_=sa.literal_column("0")))


def _same(column: "ColumnElement[Any]", value: "ColumnElement[Any]", dialect: str) -> "ColumnElement[bool]":
    """Return the condition that a column holds a value, null included, as its type compares."""
    import sqlalchemy as sa
    from sqlalchemy.dialects.postgresql import JSONB

    if dialect == "sqlite" and isinstance(column.type, sa.DateTime | sa.Date | sa.Time):
        return sa.func.nura_same_time(column, value) == sa.literal_column("1")
    if dialect == "sqlite" and isinstance(column.type, sa.JSON):
        return sa.func.nura_same_json(column, value) == sa.literal_column("1")
    if dialect == "postgresql" and isinstance(column.type, sa.JSON):  # plain json has no equality
        return sa.cast(column, JSONB).is_not_distinct_from(sa.cast(value, JSONB))
    return column.is_not_distinct_from(value)


_GROUP_ROWS = 1000
_GROUP_CHARACTERS = 4_000_000


def groups(rows: Sequence[Row]) -> Iterator[tuple[Writer, list[Row]]]:
    """Part rows into groups for one writer each, of bounded size and in order for one key: no group has a key twice."""
    waiting: dict[Writer, list[Row]] = {}
    keys: set[tuple[Any, ...]] = set()
    characters = 0
    for row in rows:
        if row.key in keys or len(keys) == _GROUP_ROWS or characters > _GROUP_CHARACTERS:
            yield from waiting.items()
            waiting, keys, characters = {}, set(), 0
        waiting.setdefault(row.writer, []).append(row)
        keys.add(row.key)
        characters += sum([len(value) for value in row.values if isinstance(value, str)])
    yield from waiting.items()
