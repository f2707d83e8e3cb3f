"""A mistake in nura's own statements is a bug; what the file, the disk or another process does is said as what it is."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nura_cli.cli import build
from nura_cli.errors import StateCorrupt, StateError
from nura_cli.state import State, runs
from nura_cli.state.connection import Connection
from nura_cli.state.file import explained, unforeseen
from tests.conftest import Spool

Does = Callable[[sqlite3.Connection], object]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """A new state file."""
    with State(tmp_path / "nura.db") as opened:
        yield opened


def statement(sql: str, *values: object) -> Does:
    """Return what runs a statement."""
    return lambda db: db.execute(sql, values).fetchall()


def begin_twice(db: sqlite3.Connection) -> None:
    """Begin a transaction in a transaction."""
    db.execute("BEGIN")
    try:
        db.execute("BEGIN")
    finally:
        db.execute("ROLLBACK")


ADD_META = "INSERT INTO meta (name, value) VALUES ('state_id', 'x')"
MISTAKES: dict[str, Does] = {
    "no such column": statement("SELECT nothing FROM tasks"),
    "no such table": statement("SELECT 1 FROM nowhere"),
    "no such function": statement("SELECT nothing()"),
    "syntax": statement("SELEC 1"),
    "too few values": statement("SELECT ?"),
    "too many values": statement("SELECT 1", 1),
    "a value of no type": statement("SELECT ?", object()),
    "a number too large": statement("SELECT ?", 2**70),
    "a text too long": statement("SELECT zeroblob(2147483647)"),
    "two statements": statement("SELECT 1; SELECT 2"),
    "a key that is taken": statement(ADD_META),
    "a column left empty": statement("INSERT INTO meta (name) VALUES ('x')"),
    "a word that is no status": statement("UPDATE tasks SET status = 'x'"),
    "a CHECK that fails": statement("INSERT INTO tasks (lane_id, status) VALUES (1, 'submitted')"),
    "a column of another type": statement("INSERT INTO meta (name, value) VALUES ('x', x'00')"),
    "a transaction in a transaction": begin_twice,
    "a number made of text": statement("INSERT INTO workloads (id, name) VALUES ('x', 'x')"),
}


@pytest.mark.parametrize("does", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_a_statement_is_a_bug_and_nobody_says_that_the_file_is_damaged(state: State, does: Does) -> None:
    with state.transaction() as db:  # so that an UPDATE finds something
        db.execute("INSERT INTO tasks (lane_id, status) VALUES (1, 'pending')")
    with pytest.raises((sqlite3.Error, sqlite3.Warning, OverflowError)) as caught, explained(state.path):
        does(state.db)
    assert unforeseen(caught.value)
    assert state.db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def full(db: sqlite3.Connection) -> None:
    """Write more than there is room for."""
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages}")
    db.execute("INSERT INTO specs (revision, spec) VALUES ('x', ?)", ("x" * 16384 * 20,))


def read_only(db: sqlite3.Connection) -> None:
    """Write where only reading is allowed."""
    db.execute("PRAGMA query_only = 1")
    db.execute("DELETE FROM meta")


def locked(db: sqlite3.Connection) -> None:
    """Write while another does."""
    path = db.execute("SELECT file FROM pragma_database_list").fetchone()[0]
    db.execute("PRAGMA busy_timeout = 0")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        db.execute("BEGIN IMMEDIATE")


def no_database(db: sqlite3.Connection) -> None:
    """Open what is none."""
    path = Path(db.execute("SELECT file FROM pragma_database_list").fetchone()[0]).with_name("text")
    path.write_text("this is no database at all, but long enough to look at" * 40)
    db.execute("ATTACH ? AS other", (str(path),))


def no_text(db: sqlite3.Connection) -> None:
    """Read a text with a flipped bit in it."""
    db.execute("SELECT CAST(x'ff' AS TEXT)").fetchall()


def said(name: str, code: int) -> Does:
    """Return what fails as SQLite does when it says this, where a test cannot bring it about."""

    def fail(db: sqlite3.Connection) -> None:
        error = sqlite3.OperationalError(name)
        error.sqlite_errorcode, error.sqlite_errorname = code, name
        raise error

    return fail


FAILURES: list[tuple[Does, type[StateError], str]] = [
    (full, StateError, "the disk is full"),
    (read_only, StateError, "cannot be written"),
    (locked, StateError, "locked by another process"),
    (no_database, StateCorrupt, "is not an SQLite database"),
    (no_text, StateCorrupt, "is damaged"),
    (statement("ATTACH '/nowhere/at/all' AS other"), StateError, "cannot be opened"),
    (said("disk I/O error", sqlite3.SQLITE_IOERR_READ), StateError, "reports an I/O error"),
    (said("disk I/O error", sqlite3.SQLITE_IOERR_SHMSIZE), StateError, "cannot be written: the disk is full"),
    (said("malformed", sqlite3.SQLITE_CORRUPT_INDEX), StateCorrupt, "is damaged"),
    (said("locking protocol", sqlite3.SQLITE_PROTOCOL), StateError, "locked by another process"),
    (said("access denied", sqlite3.SQLITE_PERM), StateError, "access denied"),
]


@pytest.mark.parametrize(("does", "kind", "words"), FAILURES)
def test_a_failure_of_the_file_or_the_disk_is_said_as_what_it_is(
    state: State, does: Does, kind: type[StateError], words: str
) -> None:
    with pytest.raises(StateError, match=words) as caught, explained(state.path):
        does(state.db)
    assert type(caught.value) is kind
    assert isinstance(caught.value.__cause__, sqlite3.Error)
    assert not unforeseen(caught.value.__cause__)
    assert str(state.path) in caught.value.message


def test_a_command_that_meets_a_mistake_ends_with_1_and_says_what_to_report(
    openai_spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(db: Connection) -> Any:
        return db.execute("SELECT steige FROM runs").fetchall()

    monkeypatch.setattr(runs, "runs", mistaken)
    ended = CliRunner().invoke(build(), ["status", "--json", "-c", str(openai_spool.path)])
    assert ended.exit_code == 1
    (found,) = json.loads(ended.stdout)["errors"]
    assert (found["kind"], found["message"]) == ("unexpected", "unexpected OperationalError: no such column: steige")
    assert "a bug of nura's: please report it" in found["hint"]


@pytest.mark.parametrize("version", [1, 4, 99])
def test_an_applications_own_database_is_taken_for_nothing_else(tmp_path: Path, version: int) -> None:
    with closing(sqlite3.connect(tmp_path / "app.db")) as db:
        db.execute("CREATE TABLE meta (name, value)")
        db.execute(f"PRAGMA user_version = {version}")
    before = (tmp_path / "app.db").read_bytes()
    with pytest.raises(StateCorrupt, match="an SQLite database, but not nura's"):
        State(tmp_path / "app.db")
    assert len((tmp_path / "app.db").read_bytes()) == len(before)
