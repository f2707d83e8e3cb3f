"""Source: the records to work on, out of the application's own database.

Takes a workload's SELECT; gives each row as one line of JSON, column name → value, as the database streams them. The
transaction is read-only, whatever the statement says, and nothing is kept in memory but one page of rows.

What can go wrong: a row holds what cannot be read or has no form in JSON (that row is given as :class:`Unread`, and the
others go on); the statement is wrong, computes what the database refuses to compute (a division by zero), or has a column
of a type that JSON has no form for (ConfigError); the database cannot be used now (DatabaseDown).
"""

import sqlite3
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from nura_cli.delivery import reading
from nura_cli.delivery.database import cause_of, errors_of, names_wrong, open_engine, read_only, refuses_row, wording
from nura_cli.delivery.forms import NoForm, encode, plain
from nura_cli.errors import ConfigError, DatabaseDown

if TYPE_CHECKING:
    from sqlalchemy import Connection, CursorResult, Engine

PAGE = 1000
"""Rows that are held at a time."""


class Unread(NamedTuple):
    """A row that has no form in JSON.

    Attributes:
        line: what of it could be read, as one JSON object.
        why: names each column that could not be, and says why.
    """

    line: bytes
    why: str


def rows(url: str, query: str) -> Generator[bytes | Unread, None, None]:
    """Yield each row of a SELECT as one JSON object on one line, without its line end; or why there is none.

    Args:
        url: a SQLAlchemy URL.
        query: passed to the driver as it is; it cannot change anything.

    Raises:
        ConfigError: the statement is wrong, gives no rows, two columns of one name, or a column whose type JSON has no form for.
        DatabaseDown: the database cannot be used now.
    """
    engine = open_engine(url)
    reading.prepare(engine)
    try:
        with _as_ours(engine), read_only(engine) as connection:
            yield from _lines(connection, query)
    finally:
        engine.dispose()


def ask(url: str) -> None:
    """Ask a database for a row of nothing, to see whether it answers.

    Args:
        url: a SQLAlchemy URL.

    Raises:
        ConfigError, DatabaseDown: as :func:`rows`.
    """
    with closing(rows(url, "SELECT 1")) as found:
        next(found, None)


def _lines(connection: "Connection", query: str) -> Iterator[bytes | Unread]:
    # A percent sign is the query's own: without parameters no driver looks for places to put them.
    options = {"stream_results": True, "max_row_buffer": PAGE, "no_parameters": True}
    with closing(connection.execution_options(**options).exec_driver_sql(query)) as result:
        # In SQLite each value has a type of its own: there a column may hold one that has no form, among others that have.
        yield from _encoded(result, typed=connection.dialect.name != "sqlite")


def _encoded(result: "CursorResult[Any]", typed: bool) -> Iterator[bytes | Unread]:
    if not result.returns_rows:
        raise ConfigError("the query gives no rows; a source is a SELECT")
    names = list(result.keys())
    for name, n in Counter(names).items():
        if n > 1:
            raise ConfigError(
                f"the query gives {n} columns named {name}", hint=f"name them apart: SELECT … AS {name}_2"
            )
    for row in result:  # one by one: where one fails, what came before it is given, and not only whole pages
        try:
            yield encode(dict(zip(names, map(_value, row), strict=True)))
        except (ValueError, OverflowError, RecursionError):
            yield _by_column(names, row, typed)


def _value(value: object) -> object:
    """Return a value as JSON has it. Raises ValueError: it has no form there, or could not be read."""
    if type(value) is str:
        if "\0" in value:
            raise ValueError("a NUL character")
        return value
    return plain(value)


def _by_column(names: Sequence[str], row: Sequence[object], typed: bool) -> Unread:
    """Return a row that cannot be written as one: what of it can be, and why the rest cannot.

    Raises:
        ConfigError: a column's type has no form, so that no row of it would have one.
    """
    good, faults = {}, []
    for name, value in zip(names, row, strict=True):
        try:
            good[name] = msgspec.Raw(encode(_value(value)))
        except NoForm as error:
            cast = f"cast it in the query, such as CAST({name} AS TEXT); AS CHAR in MySQL"
            why = f"column {name}: JSON has no form for {error.kind}"
            if typed:
                raise ConfigError(why, hint=cast) from None
            faults.append(f"{why} ({cast})")
        except RecursionError:
            faults.append(f"column {name}: nested too deeply")
        except UnicodeEncodeError:
            faults.append(f"column {name}: a lone surrogate (\\ud800 to \\udfff) in a string")
        except (ValueError, OverflowError) as error:
            faults.append(f"column {name}: {' '.join(str(error).split())}")
    return Unread(encode(good), "; ".join(faults))


def writes(error: BaseException) -> bool:
    """Whether a statement was refused because it would have changed something."""
    cause = cause_of(error)
    return (
        getattr(cause, "sqlstate", None) == "25006"
        or getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY
        or cause.args[:1] == (1792,)  # MySQL
    )


@contextmanager
def _as_ours(engine: "Engine") -> Iterator[None]:
    """Turn what the database says into one of our errors."""
    try:
        yield
    except UnicodeError as error:  # a driver of a kind that is not looked after
        raise ConfigError(f"the query gives text that cannot be read: {error}", hint="cast it in the query") from error
    except errors_of(engine) as error:
        message = wording(error)
        if names_wrong(error) or writes(error):
            raise ConfigError(f"the query cannot be run: {message}") from error
        if refuses_row(error):
            raise ConfigError(
                f"the query gives a value that cannot be read: {message}", hint="cast it in the query"
            ) from error
        raise DatabaseDown(f"the database cannot be read now: {message}") from error
