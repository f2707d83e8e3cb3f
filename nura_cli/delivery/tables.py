"""A table of the application's as ``nura init`` wants to know it: its key, its columns, and how SQL names them.

Only looks; what can go wrong: no such table (ConfigError), or the database cannot be used now (DatabaseDown).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from nura_cli.delivery.database import errors_of, names_wrong, open_engine, read_only, wording
from nura_cli.delivery.expressions import like
from nura_cli.errors import ConfigError, DatabaseDown

_SHORT = 255
"""Characters that a column must take to be one that an answer goes to."""


class Column(NamedTuple):
    """A column: whether it is of text, long enough for an answer, whether it may be NULL, and be written."""

    name: str
    text: bool
    long: bool
    nullable: bool
    written: bool


class Table(NamedTuple):
    """A table: its name as SQL has it, the columns of its key, all its columns, and what quotes a name of one for SQL."""

    name: str
    key: list[str]
    columns: list[Column]
    quoted: Callable[[str], str]

    def select(self, columns: Sequence[str], unanswered: str | None) -> str:
        """Return the SELECT of some columns: of the rows in which ``unanswered`` is NULL, where that is a column."""
        where = "" if unanswered is None else f" WHERE {self.quoted(unanswered)} IS NULL"
        return f"SELECT {', '.join(map(self.quoted, columns))} FROM {self.name}{where}"  # noqa: S608 - its names are quoted

    def add_text(self, column: str) -> str:
        """Return the statement that gives the table a column for answers."""
        return f"ALTER TABLE {self.name} ADD COLUMN {self.quoted(column)} TEXT"


def look(url: str, named: str) -> Table:
    """Return a table by its name, or ``schema.name``.

    Raises:
        ConfigError: the URL cannot be used, or there is no such table.
        DatabaseDown: the database cannot be asked now.
    """
    import sqlalchemy as sa

    engine = open_engine(url)
    try:
        with read_only(engine) as connection:
            inspector = sa.inspect(connection)
            schema, name = None, named
            if "." in named and not inspector.has_table(named):
                schema, name = named.split(".", 1)
            if not inspector.has_table(name, schema=schema):
                there = [*inspector.get_table_names(), *inspector.get_view_names()]
                raise ConfigError(f"the database has no table {named}{like(named, there)}")
            columns = [_column(one) for one in inspector.get_columns(name, schema=schema)]
            key = list(inspector.get_pk_constraint(name, schema=schema)["constrained_columns"])
    except errors_of(engine) as error:
        if names_wrong(error):
            raise ConfigError(f"table {named} cannot be looked at: {wording(error)}") from error
        raise DatabaseDown(f"the database cannot be asked now: {wording(error)}") from error
    finally:
        engine.dispose()
    quote = engine.dialect.identifier_preparer.quote
    return Table(".".join(quote(part) for part in (schema, name) if part), key, columns, quote)


def _column(found: object) -> Column:
    import sqlalchemy as sa

    assert isinstance(found, dict)
    kind = found["type"]
    text = isinstance(kind, sa.String) and not isinstance(kind, sa.Enum)
    long = text and (kind.length or _SHORT) >= _SHORT
    return Column(found["name"], text, long, bool(found["nullable"]), not found.get("computed"))
