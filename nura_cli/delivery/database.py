"""The application's database: opened carefully, and its errors told apart.

Three things can go wrong with a statement, and they call for different things: the *configuration* names something that
is not there (a person must act), the *database* cannot be used now (everything waits), or the database refuses one *row*
(that row is tried again later, the others go on). Which of the last two it is, the error alone does not always say: then
it is the row, as long as others get through.
"""

import json
import math
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, time
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from nura_cli import scrub
from nura_cli.errors import ConfigError, DatabaseDown

if TYPE_CHECKING:
    from psycopg.abc import AdaptContext
    from sqlalchemy import URL, Connection, Dialect, Engine
    from sqlalchemy.pool import ConnectionPoolEntry

CONNECT_SECONDS = 10
LOCK_SECONDS = 5
STATEMENT_SECONDS = 30
"""How long PostgreSQL may take for one statement; for what takes longer, fewer rows are tried."""
_SOCKET_SECONDS = 120
_DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
_DRIVERS["mariadb"] = "mariadb+pymysql"
_EXTRAS = {"psycopg": "postgres", "pymysql": "mysql"}
# MySQL's and MariaDB's classes of states for "this row will not do" (45: a trigger's SIGNAL), and numbers without a class.
_MYSQL_ROW_STATES = {"22", "23", "44", "45"}
_MYSQL_ROW = {1264, 1265, 1292, 1365, 1366, 1367, 1369, 1406, 1411, 1441, 1525, 1644, 1690, 3140, 3156, 3819, 4025}
# PostgreSQL's classes of errors that are not about the row: connections, rights, transactions, resources, an operator's
# doing, names. All others are, those that a trigger thinks up included.
_PG_NOT_ROW = {"08", "0A", "25", "26", "28", "3D", "3F", "40", "42", "53", "55", "57", "58", "F0", "HV", "XX"}
# What ends by itself, or with fewer rows: timeouts of statements and locks, deadlocks.
_PG_WAITED = {"57014", "55P03", "40P01", "40001"}
_MYSQL_WAITED = {1205, 1213, 1969, 3024}
_MYSQL_DEADLOCK = 1213
# Names, rights, and a view that cannot be written: neither time nor another row will help.
# A name that is not there has the second number, where the file's schema had to be read first.
_SQLITE_WRONG = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_SCHEMA}
_PG_WRONG = {"0A000", "3F000", "55000"}
_MYSQL_WRONG = {1044, 1049, 1142, 1143, 1227, 1288, 1348}


class RowRefused(Exception):
    """The database refuses the values of this statement, and would again; ``str`` of it says why."""


def open_engine(url: str, packets: bool = False) -> "Engine":
    """Return an engine for a database that exists; it connects when it is first used.

    Args:
        url: a SQLAlchemy URL.
        packets: several statements may be sent at once, where the driver asks for leave (PyMySQL).

    Raises:
        ConfigError: the URL is none, its driver is not installed, or its SQLite file does not exist.
    """
    import sqlalchemy as sa

    try:
        parsed = _parsed(url)
        parsed = parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))
        options: dict[str, Any] = {"hide_parameters": True, "connect_args": _connect_args(parsed, packets)}
        if parsed.get_backend_name() != "sqlite":
            # A miss is looked at again after the update: in a snapshot from before it, it would look like a hit.
            options["isolation_level"] = "READ COMMITTED"
        if parsed.get_backend_name() in ("mysql", "mariadb"):
            options["paramstyle"] = "format"  # values by position, as each row's statement has them
        engine = sa.create_engine(parsed, **options)
    except (sa.exc.ArgumentError, TypeError, ValueError):  # whose words may quote a part of the password
        raise ConfigError("the database's URL cannot be read", hint=_URL_HINT) from None
    except ImportError as error:
        extra = _EXTRAS.get(str(error.name))
        hint = f"pip install 'nura[{extra}]'" if extra else None
        raise ConfigError(f"the driver of the database is not installed: {error.name}", hint=hint) from error
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine, parsed)
    elif engine.dialect.driver == "psycopg":
        _prepare_psycopg(engine)
    return engine


_URL_HINT = "such as postgresql://user@host/name; in a user's name or password, write @ as %40, : as %3A and / as %2F"


def _parsed(url: str) -> "URL":
    """Return a URL taken apart.

    Raises:
        ArgumentError, ValueError: it is none, or an ``@`` in its password is not escaped, so that the end of the password
            would be taken for the host, and be named in messages.
    """
    import sqlalchemy as sa

    parsed = sa.make_url(url)
    after = re.sub(r"^[^:/]*://(?:[^:/]*(?::[^@]*)?@)?", "", url)
    if parsed.get_backend_name() != "sqlite" and "@" in after:
        raise ValueError("an @ that is not escaped")
    return parsed


def _connect_args(url: "URL", packets: bool) -> dict[str, object]:
    """Return what bounds every wait for a server, save what the URL says itself."""
    if url.drivername.endswith("+psycopg"):
        # Without a server-side name for statements, a pooler such as PgBouncer may stand in between.
        bounds: dict[str, object] = {
            "connect_timeout": CONNECT_SECONDS,
            "keepalives_idle": 30,
            "tcp_user_timeout": 60_000,
            "prepare_threshold": None,
            "client_encoding": "utf8",  # whatever cron's environment, or a database of encoding SQL_ASCII, would have
        }
    elif url.drivername.endswith("+pymysql"):
        from pymysql.constants import CLIENT  # type: ignore[import-untyped]  # it brings no types

        strict = "SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')"
        bounds = {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": _SOCKET_SECONDS,
            "write_timeout": _SOCKET_SECONDS,
            "init_command": f"{strict}, SESSION innodb_lock_wait_timeout = {LOCK_SECONDS}",
            "client_flag": CLIENT.FOUND_ROWS | (CLIENT.MULTI_STATEMENTS if packets else 0),
        }
    else:
        bounds = {}
    return {name: value for name, value in bounds.items() if name not in url.query}


def _prepare_psycopg(engine: "Engine") -> None:
    """Have the numbers in JSON documents read as they are."""
    from sqlalchemy import event

    @event.listens_for(engine, "connect")
    def _(connection: "AdaptContext", record: "ConnectionPoolEntry") -> None:
        from psycopg.types.json import set_json_loads

        set_json_loads(lambda text: json.loads(text, parse_float=exact), connection)


def exact(text: str) -> float | Decimal:
    """Return the number that a JSON number stands for: a double, or a decimal where a double would be another number."""
    number = float(text)
    if len(text) <= 15 and "e" not in text.lower():  # a double has so many digits
        return number
    precise = Decimal(text)
    return number if math.isfinite(number) and Decimal(repr(number)) == precise else precise


def _prepare_sqlite(engine: "Engine", url: "URL") -> None:
    """Open only a file that exists, take the write lock at once, and hold the file to its declared constraints."""
    from sqlalchemy import event

    name = url.database or ""
    if name.startswith("file:"):
        raise ConfigError("a SQLite database is named by its plain path, without file:")
    if name in ("", ":memory:"):
        raise ConfigError("the database is SQLite in memory, which is empty each time", hint="name a file")
    if not Path(name).is_file():
        raise ConfigError(f"no database at {name}", hint="nura writes into tables that exist and creates none")

    @event.listens_for(engine, "do_connect")
    def _(dialect: "Dialect", record: "ConnectionPoolEntry", arguments: list[object], options: dict[str, Any]) -> None:
        arguments[0] = f"file:{quote(os.path.abspath(name))}?mode=rw"  # noqa: PTH100 - a link stays a link
        options |= {"uri": True, "timeout": float(options.get("timeout", LOCK_SECONDS)), "isolation_level": None}

    @event.listens_for(engine, "connect")
    def _(connection: sqlite3.Connection, record: "ConnectionPoolEntry") -> None:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.create_function("nura_same_time", 2, _same_time, deterministic=True)
        connection.create_function("nura_same_json", 2, _same_json, deterministic=True)

    @event.listens_for(engine, "begin")
    def _(connection: "Connection") -> None:
        # A deferred transaction that reads first is refused the write lock at once when another has written.
        connection.exec_driver_sql(
            "BEGIN IMMEDIATE" if not connection.get_execution_options().get("reads") else "BEGIN"
        )


def _same_time(left: object, right: object) -> bool:
    """Whether two times are the same instant, however they are written; SQLite has text for times, not a type."""
    return left == right or (None not in (left, right) and _instant(left) == _instant(right))


def _instant(value: object) -> object:
    if not isinstance(value, str):
        return value
    for kind in (datetime, time):
        try:
            moment: datetime | time = kind.fromisoformat(value)
        except ValueError:
            continue
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return value


def _same_json(left: object, right: object) -> bool:
    """Whether two values are the same JSON document; SQLite turns a text that is a number into one."""
    if left == right or None in (left, right):
        return bool(left == right)
    try:
        given = json.loads(str(right))
        return bool(given == left or given == json.loads(str(left)))
    except (TypeError, ValueError, RecursionError):
        return False


def errors_of(engine: "Engine") -> tuple[type[Exception], ...]:
    """Return what SQLAlchemy, the driver underneath and its conversions raise, for an ``except``."""
    import sqlalchemy as sa

    return sa.exc.SQLAlchemyError, getattr(engine.dialect.loaded_dbapi, "Error", sa.exc.DBAPIError), OverflowError


def refusal(error: Exception) -> str:
    """Return why the database refuses the values of a statement.

    Raises:
        DatabaseDown: it is not about the values: the database cannot be used now.
    """
    if refuses_row(error):
        return wording(error)
    raise DatabaseDown(f"the database cannot be used now: {wording(error)}") from error


@contextmanager
def speaking(engine: "Engine") -> Iterator[None]:
    """Turn what a database says within this block into one of our errors; a transaction stands within it, whole.

    Raises:
        RowRefused: the values will not do.
        DatabaseDown: anything else: it cannot be used now.
    """
    try:
        try:
            yield
        except errors_of(engine) as error:
            raise RowRefused(refusal(error)) from error
    except DatabaseDown:
        # The connections kept are as dead as this one. Not before it was given back: it would outlive them all.
        engine.dispose()
        raise


def _connected(engine: "Engine", *, reads: bool) -> "Connection":
    """Return a connection. Raises ConfigError where the URL has an option, or a value of one, that its driver does not take."""
    try:
        return engine.connect().execution_options(reads=reads)
    except (TypeError, ValueError):  # as above: not a word of it is told
        hint = "look at its options, and at the characters of its user's name and password"
        raise ConfigError("the database's driver does not take a part of its URL", hint=hint) from None


@contextmanager
def transaction(engine: "Engine", reads: bool = False) -> Iterator["Connection"]:
    """Give a connection within one transaction that waits for nothing for long; it ends with the block.

    Args:
        reads: it only reads, so that SQLite takes no write lock.
    """
    with _connected(engine, reads=reads) as connection:
        with connection.begin():
            if engine.dialect.name == "postgresql":
                limits = (
                    f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'; SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'"
                )
                # A deferred constraint would refuse the whole transaction at its end, without saying for which row.
                connection.exec_driver_sql(f"{limits}; SET CONSTRAINTS ALL IMMEDIATE")
            yield connection


# In MySQL only a session that is read-only refuses what ends a transaction first, and then does its work: DROP TABLE.
_READ_ONLY = {"sqlite": "PRAGMA query_only = ON", "postgresql": "SET TRANSACTION READ ONLY"}
_READ_ONLY_SESSION = "SET SESSION TRANSACTION READ ONLY"


@contextmanager
def read_only(engine: "Engine") -> Iterator["Connection"]:
    """Give a connection within one transaction in which nothing can be changed; what it reads may take its time."""
    with _connected(engine, reads=True) as connection:
        with connection.begin():
            connection.exec_driver_sql(_READ_ONLY.get(engine.dialect.name, _READ_ONLY_SESSION))
            yield connection


def cause_of(error: BaseException) -> BaseException:
    """Return the driver's error, where SQLAlchemy's stands around it."""
    cause: BaseException = getattr(error, "orig", None) or error
    return cause


def _state(cause: BaseException) -> str:
    """Return the SQLSTATE of a driver's error, or nothing where it has none."""
    return str(getattr(cause, "sqlstate", None) or "")


def names_wrong(error: BaseException) -> bool:
    """Whether an error is about names, types or rights: a person must act, time alone will not help."""
    cause = cause_of(error)
    state = _state(cause)
    if cause.args and cause.args[0] in _MYSQL_WRONG:
        return True
    if state:
        return state.startswith("42") or state in _PG_WRONG
    return type(cause).__name__ == "ProgrammingError" or getattr(cause, "sqlite_errorcode", None) in _SQLITE_WRONG


def refuses_row(error: BaseException) -> bool:
    """Whether an error is about the values of a statement, so that the same would fail again."""
    cause = cause_of(error)
    state, module = _state(cause), type(cause).__module__
    if state and module.startswith("psycopg"):
        # A row that row-level security will not have is refused under the state that missing rights have.
        return state[:2] not in _PG_NOT_ROW or _checked_by(cause) == "ExecWithCheckOptions"
    if module.startswith("pymysql"):
        return state[:2] in _MYSQL_ROW_STATES or (bool(cause.args) and cause.args[0] in _MYSQL_ROW)
    # What no number stands with comes from Python's own module: a text of SQLite's that is not UTF-8.
    unread = type(cause) is sqlite3.OperationalError and getattr(cause, "sqlite_errorcode", None) is None
    return unread or type(cause).__name__ in ("IntegrityError", "DataError", "OverflowError")


def _checked_by(error: BaseException) -> str | None:
    """Return which part of PostgreSQL an error comes from: the one thing about it that no language and no trigger changes."""
    return getattr(getattr(error, "diag", None), "source_function", None)


class DatabaseFailure(Enum):
    """What a driver's error says of the one row that its statement was about."""

    REFUSED = "refused"  # its values will not do
    WAITED = "waited"  # it took too long, or somebody else holds it
    DOUBT = "doubt"  # the row or the database: it depends on whether other rows get through
    DOWN = "down"  # the connection is gone, or the whole database cannot be used


def failure_of(error: BaseException) -> DatabaseFailure:
    """Tell what an error is about."""
    cause = cause_of(error)
    module, code, state = type(cause).__module__, cause.args[0] if cause.args else None, _state(cause)
    if refuses_row(cause):
        return DatabaseFailure.REFUSED
    if module.startswith("psycopg"):
        down, waited = not state or state.startswith(("08", "57P")), state in _PG_WAITED
    elif module.startswith("pymysql"):
        down, waited = not isinstance(code, int) or 2000 <= code < 3000, code in _MYSQL_WAITED
    else:
        down, waited = getattr(cause, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR, False
    return DatabaseFailure.DOWN if down else DatabaseFailure.WAITED if waited else DatabaseFailure.DOUBT


def transaction_ended(error: BaseException, connection: object) -> bool:
    """Whether an error has ended the transaction that a driver's connection was in: SQLite's RAISE(ROLLBACK), MySQL's deadlock."""
    return cause_of(error).args[:1] == (_MYSQL_DEADLOCK,) or not getattr(connection, "in_transaction", True)


def wording(error: BaseException) -> str:
    """Return what the driver says of an error, as one plain line of at most 300 characters."""
    cause = cause_of(error)
    primary = getattr(getattr(cause, "diag", None), "message_primary", None)
    text = primary or (str(cause.args[-1]) if cause.args else "") or type(cause).__name__
    return plain(" ".join(text.split()), 300)


def plain(text: str, limit: int) -> str:
    """Return text without control characters and without secrets, cut to ``limit`` characters."""
    text = scrub.clean(text)
    clean = "".join(c if c.isprintable() else "�" for c in text[: limit + 1])
    return clean if len(text) <= limit else clean[: limit - 1] + "…"
