"""The application's database, as the tests see it: SQLite, a real PostgreSQL, and MariaDB where it is asked for."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from nura_cli.delivery import source
from nura_cli.delivery.write_back import RowOutcome, WriteBack
from tests import mariadb, postgres

KINDS = ("sqlite", "postgresql", *(("mariadb",) if mariadb.ASKED_FOR else ()))
NOW = 1_800_000_000


class Database:
    """A database of the application's, a way to run a statement in it as the application does, and what nura does with it."""

    def __init__(self, kind: str, url: str, run: Callable[[str], list[tuple[Any, ...]]]) -> None:
        self.kind = kind
        self.url = url
        self.run = run

    def write_back(self, **options: Any) -> WriteBack:
        """Return a write-back of ``text`` into ``t.a`` by ``id``, with other options put in."""
        return WriteBack(self.url, **({"table": "t", "where": {"id": "key"}, "set_": {"a": "text"}} | options))

    def write(self, *documents: dict[str, Any], **options: Any) -> list[RowOutcome]:
        """Write documents; return what became of each."""
        with self.write_back(**options) as table:
            table.check()
            return table.write(documents, NOW)

    def kinds(self, *documents: dict[str, Any], **options: Any) -> list[str]:
        """Write documents; return the kinds of what became of each."""
        return [outcome.kind for outcome in self.write(*documents, **options)]

    def records(self, query: str) -> list[dict[str, Any]]:
        """Return what a source gives, where all of it can be read."""
        return [json.loads(line) for line in self.read(query)]

    def read(self, query: str) -> list[bytes]:
        """Return the lines of a source, where all of it can be read."""
        found = list(source.rows(self.url, query))
        assert self.unread(query) == []
        return [row for row in found if isinstance(row, bytes)]

    def unread(self, query: str) -> list[str]:
        """Return why rows of a source could not be read."""
        return [row.why for row in source.rows(self.url, query) if isinstance(row, source.Unread)]

    def trigger(self, when: str, statement: str) -> None:
        """Make a trigger that does something for each row, such as ``AFTER UPDATE ON t``."""
        if self.kind == "sqlite":
            self.run(f"CREATE TRIGGER x {when} BEGIN {statement}; END")
        elif self.kind == "mariadb":
            self.run(f"CREATE TRIGGER x {when} FOR EACH ROW BEGIN {statement}; END")
        else:
            self.run(
                f"CREATE FUNCTION x() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {statement}; RETURN new; END $$"
            )
            self.run(f"CREATE TRIGGER x {when} FOR EACH ROW EXECUTE FUNCTION x()")

    def refusing(self, condition: str, why: str) -> None:
        """Make a trigger that refuses the rows of table ``t`` for which a condition on ``new`` holds."""
        refusal = {
            "sqlite": f"SELECT RAISE(ABORT, '{why}') WHERE {condition}",
            "postgresql": f"IF {condition} THEN RAISE EXCEPTION '{why}'; END IF",
            "mariadb": f"IF {condition} THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{why}'; END IF",
        }
        self.trigger("BEFORE UPDATE ON t", refusal[self.kind])

    def open_connections(self) -> int:
        """Return how many connections there are to it, this one included."""
        if self.kind == "sqlite":
            links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
            return sum(str(link.readlink()).endswith("app.db") for link in links)
        if self.kind == "mariadb":
            return int(self.run("SELECT count(*) FROM information_schema.processlist WHERE db = database()")[0][0])
        return int(self.run("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")[0][0])


@contextmanager
def postgresql() -> Iterator[Database]:
    """Give a new empty database of PostgreSQL's."""
    with postgres.database() as (url, connection):

        def run(statement: str) -> list[tuple[Any, ...]]:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

        yield Database("postgresql", url, run)


@contextmanager
def opened(kind: str, folder: Path) -> Iterator[Database]:
    """Give a new empty database of a kind."""
    if kind == "sqlite":
        with closing(sqlite3.connect(folder / "app.db", isolation_level=None, timeout=30)) as db:
            url = f"sqlite:///{folder}/app.db?timeout=0.2"
            yield Database(kind, url, lambda statement: db.execute(statement).fetchall())
    elif kind == "postgresql":
        with postgresql() as database:
            yield database
    else:
        with mariadb.database() as (url, client):

            def ask(statement: str) -> list[tuple[Any, ...]]:
                with client.cursor() as cursor:
                    cursor.execute(statement)
                    return list(cursor.fetchall())

            yield Database(kind, url, ask)
