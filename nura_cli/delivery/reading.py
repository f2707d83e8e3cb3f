"""How a driver reads the values of a source: one that it cannot read becomes an :class:`Unreadable`, and the row goes on.

Drivers turn what the database sends into Python's values as they fetch, and one that cannot be turned would end the query
for every row behind it: text that is not UTF-8 in SQLite, a date before Christ or past the year 9999, or infinity, in
PostgreSQL. MySQL's driver gives such values as text.
"""

import sqlite3
from typing import TYPE_CHECKING, Any

from nura_cli.delivery.forms import Unreadable

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.abc import AdaptContext, Buffer, Loader
    from sqlalchemy import Engine
    from sqlalchemy.pool import ConnectionPoolEntry

_CONVERTED = ("date", "timestamp", "timestamptz", "time", "timetz", "interval", "json", "jsonb", "numeric")
"""Types of PostgreSQL's with values that Python's do not hold."""
_SHOWN = 40
"""Bytes of a value that is shown in a message; of a longer one nothing is."""


def prepare(engine: "Engine") -> None:
    """Have an engine's connections read so; before the first of them is made."""
    from sqlalchemy import event

    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def _(connection: sqlite3.Connection, record: "ConnectionPoolEntry") -> None:
            connection.text_factory = _text

    elif engine.dialect.driver == "psycopg":

        @event.listens_for(engine, "connect")
        def _(connection: "Connection[Any]", record: "ConnectionPoolEntry") -> None:
            _prepare_psycopg(connection)


def _text(data: bytes) -> str | Unreadable:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        return Unreadable(f"text that is not UTF-8, from its byte {error.start + 1} on")


def _prepare_psycopg(connection: "Connection[Any]") -> None:
    """Put a careful loader before each that may fail; what arrays hold is read by it, too."""
    from psycopg.pq import Format

    for name in _CONVERTED:
        oid = connection.adapters.types[name].oid
        inner = connection.adapters.get_loader(oid, Format.TEXT)
        if inner is not None:
            connection.adapters.register_loader(oid, _careful(inner))


def _careful(inner: "type[Loader]") -> "type[Loader]":
    """Return a loader that gives an :class:`Unreadable` where another one fails."""
    from psycopg.adapt import Loader as Base

    class Careful(Base):
        def __init__(self, oid: int, context: "AdaptContext | None" = None) -> None:
            super().__init__(oid, context)
            self._inner = inner(oid, context)

        def load(self, data: "Buffer") -> Any:
            try:
                return self._inner.load(data)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is about this value
                return Unreadable(_why(bytes(data), error))

    return Careful


def _why(data: bytes, error: Exception) -> str:
    shown = f"{data.decode('utf-8', 'replace')} " if len(data) <= _SHOWN else ""
    return f"{shown}cannot be read: {' '.join(str(error).split()) or type(error).__name__}"
