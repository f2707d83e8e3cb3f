"""The statements that put answers into rows, and say of each whether it was written, and if not, why not.

PostgreSQL takes hundreds of rows in one statement and names those it changed. MySQL takes hundreds of statements in one
packet. SQLite takes one statement a row: it is no network away. It is always one transaction. The guard is part of the
update itself, so that an edit that comes between is never overwritten; a row that already holds our values is left alone.
What was not hit is looked at afterwards, and where triggers or row-level security can swallow a write, or change it, and say
nothing, so is what was.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from nura_cli.delivery.columns import Value
from nura_cli.delivery.database import DatabaseFailure, RowRefused, errors_of, failure_of, transaction_ended, wording
from nura_cli.delivery.expressions import Document, plain_document
from nura_cli.errors import DatabaseDown

if TYPE_CHECKING:
    from sqlalchemy import Column, ColumnElement, Connection, Engine, Select, Table, Update
    from sqlalchemy.engine.interfaces import DBAPICursor
    from sqlalchemy.types import TypeEngine

Values = tuple[Value | None, ...]
"""What a row's slots hold, as the driver takes it."""
Reply = TypeVar("Reply")


@dataclass(frozen=True, slots=True)
class RowOutcome:
    """What became of one answer.

    ``written``; ``unchanged`` (the row held our values already, or the ledger knows the delivery); ``gone`` (no such
    row); ``changed`` (``only_if`` does not hold: somebody edited the row since); ``failed`` (the answer does not fit, and
    never will); ``refused`` (the database would not have it this time; of both, ``reason`` says where and why); ``later``
    (not tried: rows before it kept the database waiting too long); ``skipped`` (nothing is to be written for it).
    """

    kind: Literal["written", "unchanged", "gone", "changed", "failed", "refused", "later", "skipped"]
    reason: str | None = None


WRITTEN = RowOutcome("written")
UNCHANGED = RowOutcome("unchanged")
GONE = RowOutcome("gone")
CHANGED = RowOutcome("changed")
SKIPPED = RowOutcome("skipped")
LATER = RowOutcome("later")
SWALLOWED = RowOutcome("refused", "the database took the write and the row does not hold it")


class Found(NamedTuple):
    """What a look at the rows of a key says: whether all of them hold our values, and whether none was edited since."""

    ours: bool
    unedited: bool


def outcome(hit: bool, found: Found | None, alone: bool) -> RowOutcome:
    """Return what became of an answer.

    Args:
        hit: whether the update changed a row.
        found: what a look at its rows said afterwards; None where there is none: one that was hit has moved on.
        alone: a key finds one row at most, so that the one that was hit was not edited before.
    """
    if found is None:
        return WRITTEN if hit else GONE
    if found.ours:
        return WRITTEN if hit else UNCHANGED
    return SWALLOWED if found.unedited or (hit and alone) else CHANGED


_MOST_IN_VAIN = 40
"""Rows that fail, or statements that wait too long, before a group is given up."""


@dataclass(slots=True)
class Tally:
    """How a database took the rows of one group so far: whether it is at all fit to be used.

    Attributes:
        works: it took a row, or refused one for its values; from then on what fails is a row's own problem.
        waits: statements that took too long.
        doubts: what was said of the rows that failed and are to blame only if others get through.
    """

    works: bool = False
    waits: int = 0
    doubts: list[str] = field(default_factory=list)

    @property
    def enough(self) -> bool:
        """Whether nothing more of the group is to be tried: it has kept us waiting for long."""
        return self.waits >= _MOST_IN_VAIN

    def refused(self, error: Exception) -> RowOutcome:
        """Return what became of a row that failed by itself.

        Raises:
            DatabaseDown: the database cannot be used now.
        """
        found = failure_of(error)
        message = wording(error)
        if found is DatabaseFailure.REFUSED:
            self.works = True
        elif found is DatabaseFailure.DOWN or (not self.works and len(self.doubts) >= _MOST_IN_VAIN):
            raise DatabaseDown(f"the database cannot be used now: {message}") from error
        else:
            self.doubts.append(message)
        return RowOutcome("refused", message)

    def end(self) -> None:
        """Look back, once the last row was tried.

        Raises:
            DatabaseDown: nothing got through.
        """
        if self.doubts and not self.works:
            raise DatabaseDown(f"the database cannot be used now: {self.doubts[0]}")


class Slot(NamedTuple):
    """One column and what comes into it."""

    column: str
    take: Callable[[Document], Value | None]
    """Gives the value for an answer document, as the column takes it; raises ValueError where there is none."""
    field: str | None = None
    """The one field of the document that it looks at; None where it may look at others, too."""


class Slots(NamedTuple):
    """The slots of a row's key, of what must still hold in it, and of what is written."""

    where: Sequence[Slot]
    guards: Sequence[Slot]
    sets: Sequence[Slot]

    @property
    def every(self) -> list[Slot]:
        """All of them, in this order: a row's values stand in it."""
        return [*self.where, *self.guards, *self.sets]


class Row(NamedTuple):
    """One answer on its way: its place in the chunk, and its values in the order of its writer's slots."""

    position: int
    writer: "Writer"
    key: Values
    values: Values
    delivery: object
    """Names the delivery in the ledger, where there is one."""


class Writer:
    """Writes one mapping of answers to columns.

    Args:
        slots: which columns, and what comes into each.
        doubtful: a row that was hit need not hold what was written.
    """

    def __init__(self, engine: "Engine", table: "Table", slots: Slots, doubtful: bool) -> None:
        self._engine = engine
        self._table = table
        self._alone = unique(table, {slot.column for slot in slots.where})
        # Of several rows of one key, some may have been edited and others not.
        self._looks = doubtful or (bool(slots.guards) and not self._alone)
        self._errors = errors_of(engine)
        self._slots = slots
        self._key_takes = [slot.take for slot in slots.where]
        self._takes = [slot.take for slot in (*slots.guards, *slots.sets)]
        fields = dict.fromkeys(slot.field for slot in slots.every)
        self._fields = None if None in fields else [name for name in fields if name is not None]
        # SQLAlchemy keeps the names of columns for itself, so ours must be none of them.
        prefix = "v"
        while any(column.name.startswith(prefix) for column in table.columns):
            prefix += "_"
        self._names = [f"{prefix}{i}" for i in range(len(slots.every))]
        self._index = prefix + "i"

    def row(self, position: int, document: Document) -> Row:
        """Return the row of an answer document, in which there may be JSON as it came.

        Raises:
            ValueError: a value is null that must not be, or does not fit its column; says which.
        """
        plain = plain_document(document, self._fields)
        key = tuple([take(plain) for take in self._key_takes])
        return Row(position, self, key, (*key, *[take(plain) for take in self._takes]), document.get("delivery_id"))

    def faults(self, document: Document) -> Iterator[str]:
        """Yield why values of an answer document would not go into the columns that are written, each with its option."""
        plain = plain_document(document, self._fields)
        for slot in self._slots.sets:
            try:
                slot.take(plain)
            except ValueError as error:
                yield str(error)

    def write(self, connection: "Connection", rows: Sequence[Row], tally: Tally) -> Iterator[tuple[Row, RowOutcome]]:
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
        """Return three conditions on the row: it is the one, its guards hold, it holds our values; each true or false."""
        import sqlalchemy as sa

        columns = [self._table.columns[slot.column] for slot in self._slots.every]
        n, m = len(self._slots.where), len(self._slots.where) + len(self._slots.guards)
        pairs = list(zip(columns, values, strict=True))
        same = [_same(column, value, self._engine.dialect.name) for column, value in pairs]
        return (
            sa.and_(*(column == value for column, value in pairs[:n])),
            sa.and_(sa.true(), *same[n:m]),
            sa.and_(*same[m:]),
        )

    def _assigned(self, values: Sequence["ColumnElement[Any]"]) -> dict["Column[Any]", "ColumnElement[Any]"]:
        """Return the columns that are written, each with its one of the values."""
        columns = [self._table.columns[slot.column] for slot in self._slots.sets]
        return dict(zip(columns, values[-len(columns) :], strict=True))


class EachRow(Writer):
    """One statement a row."""

    def __init__(self, engine: "Engine", table: "Table", slots: Slots, doubtful: bool = True) -> None:
        import sqlalchemy as sa

        super().__init__(engine, table, slots, doubtful)
        binds: list[ColumnElement[Any]] = [sa.bindparam(name, type_=sa.types.NullType()) for name in self._names]
        key, guard, same = self._conditions(binds)
        update = sa.update(table).values(self._assigned(binds)).where(key, guard, sa.not_(same))
        # A table may say ON CONFLICT REPLACE or ROLLBACK; our update takes no other row's place.
        self._update, self._update_values = self._compiled(update.prefix_with("OR ABORT", dialect="sqlite"))
        look = sa.select(_all(same), _all(sa.or_(guard, same))).select_from(table).where(key)
        self._look, self._look_values = self._compiled(look)

    def _compiled(self, statement: "Update | Select[int, int]") -> tuple[str, Callable[[Values], Values]]:
        """Return a statement's text, and what puts a row's values into the order of its parameters."""
        compiled = statement.compile(dialect=self._engine.dialect)
        order = [self._names.index(name) for name in compiled.positiontup or ()]
        return str(compiled), itemgetter(*order)

    def write(self, connection: "Connection", rows: Sequence[Row], tally: Tally) -> Iterator[tuple[Row, RowOutcome]]:
        """Write rows; see :meth:`Writer.write`."""
        # The driver's own cursor: SQLAlchemy's execution costs several times what SQLite's does.
        update, values, looks = self._update, self._update_values, self._looks
        with closing(connection.connection.cursor()) as cursor:
            execute = cursor.execute
            for row in rows:
                try:
                    execute(update, values(row.values))
                    hit = bool(cursor.rowcount)
                    if hit and not looks:
                        tally.works = True
                        yield row, WRITTEN
                        continue
                    execute(self._look, self._look_values(row.values))
                    found = _found(cursor.fetchone())
                    tally.works = True
                    yield row, outcome(hit, found, self._alone)
                except self._errors as error:
                    yield row, self._refused(error, connection.connection.dbapi_connection, tally)
            tally.end()

    def _refused(self, error: Exception, connection: object, tally: Tally) -> RowOutcome:
        """Return what became of a row that failed; raises DatabaseDown, and RowRefused where the transaction ended with it."""
        refused = tally.refused(error)
        if transaction_ended(error, connection):
            raise RowRefused(refused.reason) from error
        return refused

    def rehearse(self, connection: "Connection") -> None:
        """Have the statements read; see :meth:`Writer.rehearse`."""
        nothing = (None,) * len(self._names)
        connection.exec_driver_sql("EXPLAIN " + self._update, self._update_values(nothing))
        connection.exec_driver_sql("EXPLAIN " + self._look, self._look_values(nothing))


class InPackets(EachRow):
    """One statement a row, and hundreds of statements in one packet: as PyMySQL can, with a server some way off."""

    def write(self, connection: "Connection", rows: Sequence[Row], tally: Tally) -> Iterator[tuple[Row, RowOutcome]]:
        """Write rows; see :meth:`Writer.write`."""
        with closing(connection.connection.cursor()) as cursor:
            for packet in _packets(rows):
                yield from self._written(cursor, packet, tally)
            tally.end()

    def _written(self, cursor: "DBAPICursor", rows: Sequence[Row], tally: Tally) -> Iterator[tuple[Row, RowOutcome]]:
        replies = self._asked(cursor, self._update, self._update_values, rows, lambda: bool(cursor.rowcount), tally)
        looked = [row for row, hit in zip(rows, replies, strict=True) if hit is False or (hit is True and self._looks)]
        look = self._asked(cursor, self._look, self._look_values, looked, lambda: _found(cursor.fetchone()), tally)
        found = dict(zip([row.position for row in looked], look, strict=True))
        for row, hit in zip(rows, replies, strict=True):
            seen = found.get(row.position)
            if isinstance(hit, RowOutcome):
                yield row, hit
            elif isinstance(seen, RowOutcome):
                yield row, seen
            else:
                yield row, outcome(hit, seen, self._alone)

    def _asked(
        self,
        cursor: "DBAPICursor",
        statement: str,
        values: Callable[[Values], Values],
        rows: Sequence[Row],
        read: Callable[[], Reply],
        tally: Tally,
    ) -> list[Reply | RowOutcome]:
        """Run a statement for each row, and return what ``read`` gives for it, or the outcome of one that was refused.

        A packet ends at a statement that is refused: the rest goes into another.
        """
        replies: list[Reply | RowOutcome] = []
        while len(replies) < len(rows):
            if tally.enough:
                return replies + [LATER] * (len(rows) - len(replies))
            try:
                left = rows[len(replies) :]
                cursor.execute(";".join([cursor.mogrify(statement, values(row.values)) for row in left]))
                replies.append(read())
                while cursor.nextset():
                    replies.append(read())
                tally.works = True
            except self._errors as error:
                tally.waits += failure_of(error) is DatabaseFailure.WAITED
                replies.append(self._refused(error, cursor.connection, tally))
        return replies


_PACKET_ROWS = 250
_PACKET_CHARACTERS = 500_000


def _packets(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Part rows into packets of bounded size."""
    packet: list[Row] = []
    characters = 0
    for row in rows:
        packet.append(row)
        characters += _characters(row)
        if len(packet) == _PACKET_ROWS or characters > _PACKET_CHARACTERS:
            yield packet
            packet, characters = [], 0
    if packet:
        yield packet


def _characters(row: Row) -> int:
    return sum([len(value) for value in row.values if type(value) is str])


_WAIT_AGAIN = "1s"
"""How long a lock is waited for once a statement has waited in vain: it is held for long, and its row is looked for."""


class Together(Writer):
    """Many rows in one statement, as PostgreSQL can: each column's values are one array, in the text of its type."""

    def __init__(
        self,
        engine: "Engine",
        table: "Table",
        slots: Slots,
        types: Mapping[str, str],
        doubtful: bool = True,
    ) -> None:
        import sqlalchemy as sa
        from sqlalchemy.dialects.postgresql import ARRAY

        super().__init__(engine, table, slots, doubtful)
        names = [self._index, *self._names]
        arrays = [sa.bindparam(name, type_=ARRAY(sa.Text)) for name in names]
        given = sa.func.unnest(*arrays).table_valued(*(sa.column(name, sa.Text) for name in names)).render_derived()
        values: list[ColumnElement[Any]] = [
            sa.cast(given.columns[name], _named(types[slot.column]))
            for name, slot in zip(self._names, slots.every, strict=True)
        ]
        key, guard, same = self._conditions(values)
        index = given.columns[self._index]
        update = sa.update(table).values(self._assigned(values)).where(key, guard, sa.not_(same))
        self._update = update.returning(index)
        look = sa.select(index, _all(same), _all(sa.or_(guard, same)))
        self._look = look.select_from(given).join(table, key).group_by(index)

    def write(self, connection: "Connection", rows: Sequence[Row], tally: Tally) -> Iterator[tuple[Row, RowOutcome]]:
        """Write rows; see :meth:`Writer.write`. Those that fail together are halved until the row is found."""
        yield from self._part(connection, rows, tally)
        # One that waits alone says nothing of the database.
        if len(rows) > 1 or not tally.waits:
            tally.end()

    def _part(self, connection: "Connection", rows: Sequence[Row], tally: Tally) -> Iterator[tuple[Row, RowOutcome]]:
        if tally.enough:
            yield from ((row, LATER) for row in rows)
            return
        try:
            with connection.begin_nested():
                hits, found = self._written(connection, rows)
        except self._errors as error:
            if failure_of(error) is DatabaseFailure.WAITED:
                tally.waits += 1
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_WAIT_AGAIN}'")
            if len(rows) == 1 or failure_of(error) is DatabaseFailure.DOWN:
                yield rows[0], tally.refused(error)
                return
            middle = len(rows) // 2
            yield from self._part(connection, rows[:middle], tally)
            yield from self._part(connection, rows[middle:], tally)
            return
        tally.works = True
        for row in rows:
            yield row, outcome(row.position in hits, found.get(row.position), self._alone)

    def _written(self, connection: "Connection", rows: Sequence[Row]) -> tuple[set[int], dict[int, Found | None]]:
        """Update the rows in one statement and look at them in another; return which were hit, and what was seen."""
        hits = {int(index) for (index,) in connection.execute(self._update, self._arrays(rows))}
        looked = rows if self._looks else [row for row in rows if row.position not in hits]
        found = connection.execute(self._look, self._arrays(looked)) if looked else ()
        return hits, {int(index): _found(two) for index, *two in found}

    def rehearse(self, connection: "Connection") -> None:
        """Have the statements read; see :meth:`Writer.rehearse`."""
        connection.execute(self._update, self._arrays([]))
        connection.execute(self._look, self._arrays([]))

    def _arrays(self, rows: Sequence[Row]) -> dict[str, Sequence[Value | None]]:
        columns = list(zip(*(row.values for row in rows), strict=True)) or [()] * len(self._names)
        arrays = {name: list(values) for name, values in zip(self._names, columns, strict=True)}
        return {self._index: [str(row.position) for row in rows], **arrays}


def _named(name: str) -> "TypeEngine[Any]":
    """Return a type by the name that the database itself gives it."""
    from sqlalchemy.types import UserDefinedType

    class Named(UserDefinedType[str]):
        cache_ok = False

        def get_col_spec(self, **options: object) -> str:
            return name.replace("%", "%%")

    return Named()


def unique(table: "Table", columns: Collection[str]) -> bool:
    """Whether these columns find one row at most."""
    import sqlalchemy as sa

    keys = [set(table.primary_key.columns.keys())]
    keys += [set(one.columns.keys()) for one in table.constraints if isinstance(one, sa.UniqueConstraint)]
    for index in table.indexes:
        partial = any(index.dialect_options[name].get("where") is not None for name in ("postgresql", "sqlite"))
        if index.unique and not partial and len(index.columns) == len(index.expressions):
            keys.append(set(index.columns.keys()))
    return any(key and key <= set(columns) for key in keys)


def _all(condition: "ColumnElement[bool]") -> "ColumnElement[int]":
    """Return 1 when a condition holds for every row that was found, 0 when not, null when none was found."""
    import sqlalchemy as sa

    return sa.func.min(sa.case((condition, sa.literal_column("1")), else_=sa.literal_column("0")))


def _found(row: Sequence[int | None] | None) -> Found | None:
    ours, unedited = row or (None, None)
    return None if ours is None else Found(bool(ours), bool(unedited))


def _same(column: "ColumnElement[Any]", value: "ColumnElement[Any]", dialect: str) -> "ColumnElement[bool]":
    """Return the condition that a column holds just this value, null included: true or false, never null.

    Equality alone would not do: most collations of MySQL, and some of the others, take "Done" and "done" for the same.
    """
    return {"sqlite": _same_in_sqlite, "postgresql": _same_in_postgresql}.get(dialect, _same_in_mysql)(column, value)


def _same_in_sqlite(column: "ColumnElement[Any]", value: "ColumnElement[Any]") -> "ColumnElement[bool]":
    import sqlalchemy as sa

    if isinstance(column.type, sa.DateTime | sa.Date | sa.Time):
        return sa.func.nura_same_time(column, value) == sa.literal_column("1")
    if isinstance(column.type, sa.JSON):
        return sa.func.nura_same_json(column, value) == sa.literal_column("1")
    if isinstance(column.type, sa.String | sa.types.NullType):
        return sa.collate(column, "BINARY").is_not_distinct_from(value)
    return column.is_not_distinct_from(value)


def _same_in_postgresql(column: "ColumnElement[Any]", value: "ColumnElement[Any]") -> "ColumnElement[bool]":
    import sqlalchemy as sa
    from sqlalchemy.dialects.postgresql import CITEXT, DOMAIN, JSONB

    kind = column.type
    while isinstance(kind, DOMAIN):
        kind = kind.data_type
    if isinstance(
        kind, sa.JSON
    ):  # plain json has no equality, and JSON's null is no other than SQL's to an application
        null = sa.cast(sa.literal_column("'null'"), JSONB)
        return sa.func.coalesce(sa.cast(column, JSONB), null) == sa.func.coalesce(sa.cast(value, JSONB), null)
    collation = getattr(kind, "collation", None) or "default"
    if isinstance(kind, CITEXT) or (collation != "default" and not isinstance(kind, sa.Enum)):
        exactly = [sa.collate(sa.cast(one, sa.Text), "C") for one in (column, value)]
        return exactly[0].is_not_distinct_from(exactly[1])
    return column.is_not_distinct_from(value)


def _same_in_mysql(column: "ColumnElement[Any]", value: "ColumnElement[Any]") -> "ColumnElement[bool]":
    import sqlalchemy as sa
    from sqlalchemy.dialects.mysql import FLOAT, JSON

    same = column.is_not_distinct_from(value)
    if isinstance(column.type, JSON):
        return column.is_not_distinct_from(sa.cast(value, JSON))
    if isinstance(column.type, sa.JSON):  # MariaDB's, which is text
        compact = [sa.func.json_compact(one) for one in (column, value)]
        return compact[0].is_not_distinct_from(compact[1])
    if isinstance(column.type, FLOAT):  # it shows six digits of what it holds, and compares them all
        near = sa.func.abs(column - value) <= sa.func.abs(value) * sa.literal_column("6e-6")
        return sa.or_(same, sa.func.coalesce(near, sa.false()))
    if isinstance(column.type, sa.String) and not isinstance(column.type, sa.Enum):
        octets = [
            sa.cast(sa.func.convert(one.op("USING")(sa.literal_column("utf8mb4"))), sa.LargeBinary)
            for one in (column, value)
        ]
        return octets[0].is_not_distinct_from(octets[1])
    return same


_GROUP_ROWS = 1000
_GROUP_CHARACTERS = 4_000_000


def groups(rows: Sequence[Row]) -> Iterator[tuple[Writer, list[Row]]]:
    """Part rows into groups for one writer each, of bounded size and in order for one key: no group has a key twice."""
    waiting: dict[Writer, list[Row]] = {}
    keys: set[Values] = set()
    characters = 0
    for row in rows:
        writer, key = row.writer, row.key
        if key in keys or len(keys) == _GROUP_ROWS or characters > _GROUP_CHARACTERS:
            yield from waiting.items()
            waiting, keys, characters = {}, set(), 0
        if writer not in waiting:
            waiting[writer] = []
        waiting[writer].append(row)
        keys.add(key)
        characters += _characters(row)
    yield from waiting.items()
