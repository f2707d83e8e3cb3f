"""Write-back: answers into the rows of the application's own table that they were asked for.

Takes a chunk of answer documents (the fields of a line of ``nura results``) and writes each into its row, in one
transaction; leaves the table with our values, and says of each document what became of it. At least once and idempotent:
the same chunk again, after a crash or by a second run at the same time, leaves the same rows. With a ledger, exactly once.

What can go wrong: an answer does not fit its column (``failed``, alone); the database refuses that row, or takes it and
does not hold it (``refused``, alone: to be tried again); the row was deleted (``gone``) or edited since (``changed``); the
database is down, locked or full (DatabaseDown: nothing of the chunk was written, all of it is to be tried again).
"""

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from nura_cli.clock import rfc3339
from nura_cli.delivery.columns import Convert, Value, converter, guard_converter, key_converter
from nura_cli.delivery.database import (
    RowRefused,
    errors_of,
    names_wrong,
    open_engine,
    refusal,
    speaking,
    transaction,
    wording,
)
from nura_cli.delivery.expressions import Document, Pick, compiled, first_field, like
from nura_cli.delivery.statements import (
    SKIPPED,
    UNCHANGED,
    EachRow,
    InPackets,
    Row,
    RowOutcome,
    Slot,
    Slots,
    Tally,
    Together,
    Writer,
    groups,
    unique,
)
from nura_cli.errors import ConfigError, ConfigProblem, DatabaseDown

if TYPE_CHECKING:
    from sqlalchemy import Column, Connection, Engine, Table, TableClause

__all__ = ["RowOutcome", "WriteBack"]
_RACES = 3
_LEDGER_COLUMNS = ("uid", "written_at")
_UID_CHARACTERS = 64
_UIDS = 1000
"""Entries of a ledger that one statement names."""


_LEDGER_SWALLOWED = "the ledger took the entry and does not hold it"


class _Raced(Exception):
    """The ledger took no entry: most likely another run has delivered one of these at this very moment."""


class _Ledger(NamedTuple):
    """The table that every delivery is entered into."""

    table: "TableClause"
    written_at: Convert
    """Turns an RFC 3339 time into what its column takes."""


class _Prepared(NamedTuple):
    """What is known once the table was looked at."""

    writers: Mapping[str, Writer]
    """By the status of the answers they write."""
    ledger: "_Ledger | None"


class WriteBack:
    """A table of the application, and how answers map to its columns.

    Args:
        url: a SQLAlchemy URL; the database and, for SQLite, its file exist already.
        table: its name, or ``schema.name``.
        where: key column → JMESPath over the answer document; a row must match all of them.
        set_: column → JMESPath, for completed tasks (none: nothing is written for them).
        only_if: column → JMESPath of what the row must still hold.
        set_failed, set_cancelled: column → JMESPath, for failed and for cancelled tasks.
        nullable: columns that may be set to null.
        ledger: a table ``(uid, written_at)`` that makes each delivery happen exactly once.
        path: the option's place in the configuration, for messages.

    Nothing is opened before the first call. Use it as a context manager, or close it.
    """

    def __init__(
        self,
        url: str,
        *,
        table: str,
        where: Mapping[str, str],
        set_: Mapping[str, str],
        only_if: Mapping[str, str] | None = None,
        set_failed: Mapping[str, str] | None = None,
        set_cancelled: Mapping[str, str] | None = None,
        nullable: Collection[str] = (),
        ledger: str | None = None,
        path: str = "write_back",
    ) -> None:
        self._url = url
        self._table = table
        self._where = where
        self._only_if = only_if or {}
        self._sets = {"set": set_, "set_failed": set_failed or {}, "set_cancelled": set_cancelled or {}}
        self._nullable = nullable
        self._ledger = ledger
        self._path = path

    @cached_property
    def fields(self) -> frozenset[str] | None:
        """The fields of a line of ``nura results`` that :meth:`write` looks at; None where it may look at any."""
        mappings = (self._where, self._only_if, *self._sets.values())
        found = {first_field(expression) for mapping in mappings for expression in mapping.values()}
        return None if None in found else frozenset({"status", *filter(None, found)})

    def __enter__(self) -> "WriteBack":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if "_engine" in self.__dict__:
            self._engine.dispose()

    def check(self) -> None:
        """See that everything named here exists and works together, without writing.

        Raises:
            ConfigError: with every problem, each at its option.
            DatabaseDown: the database cannot be asked now.
        """
        writers = self._prepared.writers.values()
        try:
            with transaction(self._engine, reads=True) as connection:
                for writer in writers:
                    writer.rehearse(connection)
                connection.rollback()
        except errors_of(self._engine) as error:
            raise self._as_ours(error) from error
        if self._prepared.ledger is not None:
            self._check_entry(self._prepared.ledger.table)

    def _check_entry(self, ledger: "TableClause") -> None:
        """See that the ledger may be read and entered into, without entering anything. Raises as :meth:`check`."""
        import sqlalchemy as sa

        nothing = sa.select(*(ledger.columns[name] for name in _LEDGER_COLUMNS)).where(sa.false())
        entry = ledger.insert().from_select([*_LEDGER_COLUMNS], nothing)
        try:
            with transaction(self._engine, reads=True) as connection:
                connection.exec_driver_sql(f"EXPLAIN {entry.compile(dialect=self._engine.dialect)}")
                connection.rollback()
        except errors_of(self._engine) as error:
            raise self._as_ours(error, "ledger") from error

    def unfit(self, document: Document) -> list[str]:
        """Return why values of an answer document would not go into their columns, each with its option; writes nothing.

        Raises:
            ConfigError, DatabaseDown: as :meth:`check`.
        """
        writer = self._prepared.writers.get(str(document["status"]))
        return [] if writer is None else list(writer.faults(document))

    def write(self, documents: Sequence[Document], now: int, *, suspects: bool = False) -> list[RowOutcome]:
        """Write a chunk of answers in one transaction; the documents of one key are written in their order.

        Args:
            documents: with :attr:`fields` of a line of ``nura results`` (what they hold may be JSON as it came), and with a
                ledger ``delivery_id``: a string that stays the same however often this is tried.
            now: unix seconds, for the ledger.
            suspects: these were refused before while others got through: what fails is their own problem again.

        Returns:
            What became of each, in the order of the documents.

        Raises:
            DatabaseDown: the database cannot be used now; nothing was written.
            ConfigError: the table no longer is what it was when it was checked; nothing was written.
        """
        outcomes = [SKIPPED] * len(documents)
        rows: list[Row] = []
        writers = self._prepared.writers
        for position, document in enumerate(documents):
            writer = writers.get(str(document["status"]))
            if writer is not None:
                try:
                    rows.append(writer.row(position, document))
                except ValueError as error:
                    outcomes[position] = RowOutcome("failed", str(error))
        for position, outcome in self._transact(rows, now, suspects).items():
            outcomes[position] = outcome
        return outcomes

    def forget(self, deliveries: Sequence[str]) -> None:
        """Take deliveries out of the ledger, so that they happen once more; without a ledger there is nothing to do.

        Args:
            deliveries: what :meth:`write` was given as ``delivery_id``; those that the ledger does not have are no matter.

        Raises:
            DatabaseDown: the database cannot be used now; nothing was taken out.
            ConfigError: the ledger is not what it was, or lets nothing be taken out.
        """
        ledger = self._prepared.ledger if self._ledger else None
        if ledger is None:
            return
        uid = ledger.table.columns["uid"]
        try:
            with transaction(self._engine) as connection:
                for start in range(0, len(deliveries), _UIDS):
                    connection.execute(ledger.table.delete().where(uid.in_(deliveries[start : start + _UIDS])))
                if self._known(connection, deliveries):
                    raise self._config_error([("ledger", f"table {self._ledger} does not let its entries be deleted")])
        except errors_of(self._engine) as error:
            raise self._as_ours(error, "ledger") from error

    def _transact(self, rows: Sequence[Row], now: int, suspects: bool) -> dict[int, RowOutcome]:
        """Deliver rows in one transaction, and return what became of each, by its position; one that is refused as a whole is
        halved until the row is found.
        """
        if not rows:
            return {}
        reason = ""
        for _ in range(_RACES):
            try:
                with speaking(self._engine), transaction(self._engine) as connection:
                    return {row.position: one for row, one in self._deliver(connection, rows, now, suspects)}
            except _Raced as race:
                reason = f"the ledger takes no entry: {race}"
            except RowRefused as error:
                reason = str(error)
                break
        if len(rows) == 1:
            return {rows[0].position: RowOutcome("refused", reason)}
        middle = len(rows) // 2
        return self._transact(rows[:middle], now, suspects) | self._transact(rows[middle:], now, suspects)

    def _deliver(
        self, connection: "Connection", rows: Sequence[Row], now: int, suspects: bool
    ) -> Iterator[tuple[Row, RowOutcome]]:
        known = self._known(connection, [row.delivery for row in rows])
        yield from ((row, UNCHANGED) for row in rows if row.delivery in known)
        done: list[Row] = []
        for writer, group in groups([row for row in rows if row.delivery not in known] if known else rows):
            for row, outcome in writer.write(connection, group, Tally(works=suspects)):
                if outcome.kind in ("written", "unchanged"):
                    done.append(row)
                yield row, outcome
        self._enter(connection, done, now)

    def _known(self, connection: "Connection", deliveries: Sequence[object]) -> set[object]:
        """Return the deliveries that the ledger has already."""
        import sqlalchemy as sa

        ledger = self._prepared.ledger
        known: set[object] = set()
        if ledger is None:
            return known
        uid = ledger.table.columns["uid"]
        for start in range(0, len(deliveries), _UIDS):
            known.update(connection.scalars(sa.select(uid).where(uid.in_(deliveries[start : start + _UIDS]))))
        return known

    def _enter(self, connection: "Connection", rows: Sequence[Row], now: int) -> None:
        """Enter deliveries into the ledger."""
        ledger = self._prepared.ledger
        if ledger is None or not rows:
            return
        at = ledger.written_at(rfc3339(now))
        try:
            connection.execute(ledger.table.insert(), [{"uid": row.delivery, "written_at": at} for row in rows])
        except errors_of(self._engine) as error:
            raise _Raced(refusal(error)) from error
        if len(self._known(connection, [row.delivery for row in rows])) < len(rows):
            raise RowRefused(_LEDGER_SWALLOWED)

    @cached_property
    def _engine(self) -> "Engine":
        try:
            return open_engine(self._url, packets=True)
        except ConfigError as error:
            raise self._config_error([("database", error.message)], error.hint) from error

    @cached_property
    def _prepared(self) -> _Prepared:
        """Look at the table and the ledger, and make the statements.

        Raises:
            ConfigError: with every problem, each at its option.
            DatabaseDown: the database cannot be asked now.
        """
        import sqlalchemy as sa

        problems: list[tuple[str, str]] = []
        try:
            with transaction(self._engine, reads=True) as connection:
                table = self._reflected(connection, "table", self._table, problems)
                ledger = self._reflected(connection, "ledger", self._ledger, problems) if self._ledger else None
                types = _type_names(connection, table) if table is not None else {}
                doubtful = table is not None and _doubtful(connection, table)
        except errors_of(self._engine) as error:
            raise self._as_ours(error) from error
        slots = {
            option: list(self._slots(option, mapping, table, problems))
            for option, mapping in {"where": self._where, "only_if": self._only_if, **self._sets}.items()
        }
        problems += self._rules()
        if problems or table is None:
            raise self._config_error(problems)
        writers = {
            status: self._writer(table, Slots(slots["where"], slots["only_if"], slots[option]), types, doubtful)
            for status, option in (("completed", "set"), ("failed", "set_failed"), ("cancelled", "set_cancelled"))
            if slots[option]
        }
        if ledger is None:
            return _Prepared(writers, None)
        at = converter(ledger.columns["written_at"].type, self._engine.dialect.name)
        # Without the types of its columns: what comes is converted already.
        bare = sa.table(ledger.name, *(sa.column(column) for column in _LEDGER_COLUMNS), schema=ledger.schema)
        return _Prepared(writers, _Ledger(bare, at))

    def _writer(self, table: "Table", slots: Slots, types: Mapping[str, str], doubtful: bool) -> Writer:
        if self._engine.dialect.name == "postgresql":
            return Together(self._engine, table, slots, types, doubtful)
        kind = InPackets if self._engine.dialect.driver == "pymysql" else EachRow
        return kind(self._engine, table, slots, doubtful)

    def _reflected(
        self, connection: "Connection", option: str, named: str, problems: list[tuple[str, str]]
    ) -> "Table | None":
        """Return a table as it is in the database, or note that it is not there."""
        import sqlalchemy as sa

        inspector = sa.inspect(connection)
        schema, name = None, named
        if "." in named and not inspector.has_table(named):
            schema, name = named.split(".", 1)
        known = schema is None or schema in inspector.get_schema_names()
        if known and inspector.has_table(name, schema=schema):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", sa.exc.SAWarning)  # types it does not know are no concern of ours
                table = sa.Table(name, sa.MetaData(), schema=schema, autoload_with=connection, resolve_fks=False)
            _retyped(connection, table)
            if option == "table" and connection.dialect.name == "sqlite":
                _add_row_ids(connection, table, {*self._where, *self._only_if})
            wrong = list(_ledger_rules(table, connection.dialect.name)) if option == "ledger" else []
            problems += ((option, f"table {named} {why}") for why in wrong)
            return None if wrong else table
        there = [*inspector.get_table_names(schema), *inspector.get_view_names(schema)] if known else []
        if option == "ledger":
            problems.append((option, f"no table {named}; create it with: {_create_ledger(connection, schema, name)}"))
        else:
            problems.append((option, f"the database has no table {named}{like(name, there)}"))
        return None

    def _slots(
        self, option: str, mapping: Mapping[str, str], table: "Table | None", problems: list[tuple[str, str]]
    ) -> Iterator[Slot]:
        """Yield the slots of an option, and note what is wrong with it."""
        for name, expression in mapping.items():
            place = f"{option}.{name}"
            try:
                pick = compiled(expression)
            except ValueError as error:
                problems.append((place, f"{expression} {error}"))
                continue
            column = table.columns.get(name) if table is not None else None
            if table is not None and column is None:
                near = like(name, [*table.columns.keys()])
                problems.append((place, f"table {self._table} has no column {name}{near}"))
            elif column is not None and column.computed is not None and option.startswith("set"):
                problems.append((place, "the database computes this column itself"))
            elif column is not None:
                null = {"where": False, "only_if": True}.get(option, name in self._nullable)
                yield Slot(name, self._take(place, expression, pick, column, null), first_field(expression))

    def _take(
        self, place: str, expression: str, pick: Pick, column: "Column[object]", null: bool
    ) -> Callable[[Document], Value | None]:
        """Return the function that takes a column's value from a document."""
        makers = {"where": key_converter, "only_if": guard_converter}
        convert = makers.get(place.split(".")[0], converter)(column.type, self._engine.dialect.name)
        advice = f"list {column.name} under nullable" if place.startswith("set") else "it names the row"

        def take(document: Document) -> Value | None:
            try:
                value = pick(document)
                if value is not None:
                    return convert(value)
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from None
            except RecursionError:
                raise ValueError(f"{place}: the answer is nested too deeply") from None
            if not null:
                raise ValueError(f"{place}: {expression} is null ({advice})")
            return None

        return take

    def _rules(self) -> Iterator[tuple[str, str]]:
        """Find what is wrong with the options, whatever the database holds."""
        if not self._where:
            yield "where", "name the column that finds the row: without it every row would be written"
        if not any(self._sets.values()):
            yield "set", "name at least one column to write"
        named = {column for columns in self._sets.values() for column in columns}
        if self._ledger is None:
            for column in sorted(named & self._where.keys()):
                why = "tried again, it would not find the row that it has written"
                yield f"where.{column}", f"is set, too: {why}; a condition goes under only_if"
        for column in self._nullable:
            if column not in named:
                yield "nullable", f"{column} is not set{like(column, sorted(named))}"

    def _config_error(self, problems: Sequence[tuple[str, str]], hint: str | None = None) -> ConfigError:
        found = [ConfigProblem(f"{self._path}.{option}", None, message) for option, message in problems]
        return ConfigError("\n".join(f"{one.where}: {one.message}" for one in found), problems=found, hint=hint)

    def _as_ours(self, error: Exception, option: str = "table") -> ConfigError | DatabaseDown:
        """Return the error to raise for what the database said when no row was at stake."""
        if names_wrong(error):
            return self._config_error([(option, wording(error))])
        self._engine.dispose()
        message = wording(error)
        return DatabaseDown(f"the database cannot be asked now: {message}")


def _ledger_rules(ledger: "Table", dialect: str) -> Iterator[str]:
    """Find why a table cannot be a ledger."""
    import sqlalchemy as sa

    if not set(_LEDGER_COLUMNS) <= set(ledger.columns.keys()):
        yield f"needs the columns {' and '.join(_LEDGER_COLUMNS)}"
        return
    uid, at = (ledger.columns[name] for name in _LEDGER_COLUMNS)
    if not isinstance(uid.type, sa.String) or (uid.type.length or _UID_CHARACTERS) < _UID_CHARACTERS:
        yield f"needs a column uid that takes {_UID_CHARACTERS} characters"
    if not unique(ledger, {"uid"}):
        yield "needs uid as its primary key: it is what makes a second delivery impossible"
    try:
        converter(at.type, dialect)(rfc3339(0))
    except ValueError as error:
        yield f"needs a column written_at that takes a time: {error}"
    for column in ledger.columns:
        given = column.nullable or column.server_default is not None or column.computed or column.identity
        if column.name not in _LEDGER_COLUMNS and not given and column.autoincrement is not True:
            yield f"needs a default for {column.name}, which nura does not fill"


def _create_ledger(connection: "Connection", schema: str | None, name: str) -> str:
    """Return the statement that makes a ledger."""
    import sqlalchemy as sa

    columns = (
        sa.Column("uid", sa.String(255), primary_key=True),
        sa.Column("written_at", sa.DateTime(timezone=True), nullable=False),
    )
    statement = sa.schema.CreateTable(sa.Table(name, sa.MetaData(), *columns, schema=schema))
    return " ".join(str(statement.compile(dialect=connection.dialect)).split())


def _retyped(connection: "Connection", table: "Table") -> None:
    """Correct the types that reflection cannot know.

    SQLite takes the name of any type; what it does not know is reflected as a number, and holds anything. MariaDB's JSON is
    text with a constraint.
    """
    import sqlalchemy as sa

    if connection.dialect.name == "sqlite":
        declared = sa.text("SELECT name, upper(type) FROM pragma_table_xinfo(:named, :schema)")
        names = connection.execute(declared, {"named": table.name, "schema": table.schema or "main"})
        for name, kind in names:  # a virtual table has hidden columns, which are not reflected
            column = table.columns.get(name)
            if column is not None and isinstance(column.type, sa.Numeric) and not kind.startswith(("NUMERIC", "DEC")):
                column.type = sa.types.NullType()
    elif getattr(connection.dialect, "is_mariadb", False):
        valid = sa.text(
            "SELECT constraint_name FROM information_schema.check_constraints WHERE level = 'Column' AND table_name = :named"
            " AND constraint_schema = coalesce(:schema, database()) AND check_clause LIKE 'json_valid(%'"
        )
        for name in connection.scalars(valid, {"named": table.name, "schema": table.schema}):
            table.columns[name].type = sa.JSON()


_ROW_IDS = frozenset({"rowid", "oid", "_rowid_", "docid"})
"""Names by which SQLite finds a row of a table that has no such column; ``docid`` is that of FTS3 and FTS4."""


def _add_row_ids(connection: "Connection", table: "Table", named: Collection[str]) -> None:
    """Add the column that finds the rows of a full-text table, which has no key of its own, where it is asked for."""
    import sqlalchemy as sa

    inspector = sa.inspect(connection)
    if table.name in inspector.get_view_names(table.schema):  # whose rows have none, whatever SQLite says
        return
    for name in sorted(_ROW_IDS & set(named) - set(table.columns.keys())):
        try:
            connection.execute(sa.select(sa.literal_column(name)).select_from(table).limit(0))
        except sa.exc.OperationalError:  # a table WITHOUT ROWID
            continue
        table.append_column(sa.Column(name, sa.BigInteger()))


_TYPE_NAMES = """
WITH RECURSIVE kinds AS (
  SELECT attname, atttypid AS oid, atttypmod AS modifier FROM pg_attribute
  WHERE attrelid = CAST(:named AS regclass) AND attnum > 0 AND NOT attisdropped
  UNION ALL
  SELECT attname, t.typbasetype, t.typtypmod FROM kinds JOIN pg_type t ON t.oid = kinds.oid WHERE t.typtype = 'd'
)
SELECT attname, format_type(t.oid, CASE WHEN t.typname IN ('timestamp', 'timestamptz', 'time', 'timetz', 'numeric', 'interval')
  THEN modifier ELSE -1 END) AS kind
FROM kinds JOIN pg_type t ON t.oid = kinds.oid WHERE t.typtype <> 'd'
"""


_DOUBTFUL = {
    "sqlite": "SELECT max(type = 'view' OR type = 'trigger') FROM {schema}.sqlite_master WHERE lower(tbl_name) = lower(:named)",
    "postgresql": (
        "SELECT relkind <> 'r' OR relrowsecurity OR relhasrules OR relhassubclass OR EXISTS (SELECT FROM pg_trigger"
        " WHERE tgrelid = c.oid AND NOT tgisinternal) FROM pg_class c WHERE oid = CAST(:quoted AS regclass)"
    ),
}


def _doubtful(connection: "Connection", table: "Table") -> bool:
    """Whether a row of a table need not hold what an update that hit it has written: triggers, policies, views.

    MySQL shows a table's triggers only to those who may make some: there every table is doubtful.
    """
    import sqlalchemy as sa

    query = _DOUBTFUL.get(connection.dialect.name)
    if query is None:
        return True
    schema = '"' + (table.schema or "main").replace('"', '""') + '"'
    given = {"named": table.name} if "named" in query else {"quoted": _quoted(table)}
    return bool(connection.scalar(sa.text(query.format(schema=schema)), given))


def _quoted(table: "Table") -> str:
    """Return a table's name as PostgreSQL reads it."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in (table.schema, table.name) if part)


def _type_names(connection: "Connection", table: "Table") -> dict[str, str]:
    """Return PostgreSQL's own names of the types that a value is cast to before it comes to its column.

    A domain's is the type below it, and a length is left out: a cast would cut the value to it silently, where the column
    refuses it. What a cast rounds, the column rounds, too.
    """
    import sqlalchemy as sa

    if connection.dialect.name != "postgresql":
        return {}
    found = connection.execute(sa.text(_TYPE_NAMES), {"named": _quoted(table)})
    return {row.attname: row.kind for row in found}
