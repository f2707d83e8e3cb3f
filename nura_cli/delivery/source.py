"""Source: the records to work on, out of the application's own database.

Takes a workload's SELECT; gives each row as one line of JSON, column name → value, as the database streams them. The
transaction is read-only, whatever the statement says, and nothing is kept in memory but one page of rows.

What can go wrong: the statement is wrong, or a column holds what JSON has no form for, or what cannot be read at all
(ConfigError); the database cannot be used now (DatabaseDown).
"""

import math
import sqlite3
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from nura_cli.delivery.database import cause_of, errors_of, names_wrong, open_engine, read_only, refuses_row, wording
from nura_cli.errors import ConfigError, DatabaseDown

if TYPE_CHECKING:
    from sqlalchemy import Connection, CursorResult, Engine

PAGE = 1000
"""Rows that are held at a time."""


def rows(url: str, query: str) -> Generator[bytes, None, None]:
    """Yield each row of a SELECT as one JSON object on one line, without its line end.

    Args:
        url: a SQLAlchemy URL.
        query: passed to the driver as it is; it cannot change anything.

    Raises:
        ConfigError: the statement is wrong, gives no rows, two columns of one name, or a value JSON has no form for.
        DatabaseDown: the database cannot be used now.
    """
    engine = open_engine(url)
    try:
        with _as_ours(engine), read_only(engine) as connection:
            yield from _lines(connection, query)
    finally:
        engine.dispose()


def _lines(connection: "Connection", query: str) -> Iterator[bytes]:
    # A percent sign is the query's own: without parameters no driver looks for places to put them.
    options = {"stream_results": True, "max_row_buffer": PAGE, "no_parameters": True}
    with closing(connection.execution_options(**options).exec_driver_sql(query)) as result:
        yield from _encoded(result)


def _encoded(result: "CursorResult[Any]") -> Iterator[bytes]:
    if not result.returns_rows:
        raise ConfigError("the query gives no rows; a source is a SELECT")
    names = list(result.keys())
    for name, n in Counter(names).items():
        if n > 1:
            raise ConfigError(
                f"the query gives {n} columns named {name}", hint=f"name them apart: SELECT … AS {name}_2"
            )
    encode = msgspec.json.Encoder(decimal_format="number").encode
    for page in result.partitions(PAGE):
        for row in page:
            yield encode(dict(zip(names, map(_plain, names, row), strict=True)))


def _plain(name: str, value: object) -> object:
    """Return a value as JSON has it.

    Raises:
        ConfigError: there is no form for it.
    """
    kind = type(value)
    if value is None or kind in (str, int, bool):
        return value
    convert = _FORMS.get(kind)
    try:
        if convert is None:
            raise ValueError(f"JSON has no form for {kind.__name__}")
        return convert(name, value)
    except ValueError as error:
        raise ConfigError(
            f"column {name}: {error}", hint=f"cast it in the query, such as CAST({name} AS TEXT); AS CHAR in MySQL"
        ) from None


def _finite(name: str, value: float | Decimal) -> float | Decimal:
    if not math.isfinite(value):
        raise ValueError(f"JSON has no {value}")
    return value


def _clock(span: timedelta) -> str:
    """Return a span of time as SQL writes it: hours, as many as they are, minutes and seconds."""
    minutes, seconds = divmod(abs(span) // timedelta(seconds=1), 60)
    fraction = f".{abs(span).microseconds:06}" if span.microseconds else ""
    sign = "-" if span < timedelta() else ""
    return f"{sign}{minutes // 60:02}:{minutes % 60:02}:{seconds:02}{fraction}"


_ADDRESSES = (IPv4Address, IPv6Address, IPv4Interface, IPv6Interface, IPv4Network, IPv6Network)
_FORMS: dict[type, Callable[[str, Any], object]] = {
    float: _finite,
    Decimal: _finite,
    datetime: lambda name, value: value.isoformat(),
    date: lambda name, value: value.isoformat(),
    time: lambda name, value: value.isoformat(),
    timedelta: lambda name, value: _clock(value),
    **dict.fromkeys((UUID, *_ADDRESSES), lambda name, value: str(value)),
    list: lambda name, value: [_plain(name, item) for item in value],
    tuple: lambda name, value: [_plain(name, item) for item in value],
    dict: lambda name, value: {str(key): _plain(name, item) for key, item in value.items()},
}


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
    except errors_of(engine) as error:
        message = wording(error)
        if names_wrong(error) or writes(error):
            raise ConfigError(f"the query cannot be run: {message}") from error
        if refuses_row(error):
            raise ConfigError(
                f"the query gives a value that cannot be read: {message}", hint="cast it in the query"
            ) from error
        raise DatabaseDown(f"the database cannot be read now: {message}") from error
