"""The state file can change: a new column disturbs nothing, an older file is brought up to date, a newer one may be used."""

import os
import re
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nura_cli.cli import build
from nura_cli.errors import StateNewer
from nura_cli.state import State, answers, batches, disk, schema, snapshots, tasks
from nura_cli.state.file import foreign
from nura_cli.states import BatchStatus, ErrorKind, TaskStatus
from tests.conftest import Spool

DUMPS = {number: Path(__file__).with_name(f"version_{number}.sql") for number in range(1, schema.VERSION)}


def load(path: Path, version: int) -> None:
    """Make a file that an earlier nura has written."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript(DUMPS[version].read_text())
        db.execute("PRAGMA journal_mode = wal")


@pytest.fixture(params=DUMPS)
def earlier(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file of each earlier version."""
    path = tmp_path / f"version_{request.param}.db"
    load(path, request.param)
    return path


def version_of(path: Path) -> int:
    """Return the version of a file's tables."""
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


# --- a column more


def widen(db: sqlite3.Connection) -> None:
    """Give each table a column of every name that another has, and one that none has: what a later migration may do."""
    tables = {
        table: [row[0] for row in db.execute("SELECT name FROM pragma_table_info(?)", (table,))]
        for (table,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND sql LIKE '%STRICT%'")
    }
    assert len(tables) >= 18
    names = {name for columns in tables.values() for name in columns} | {"later"}
    for table, columns in tables.items():
        for name in sorted(names - set(columns)):
            db.execute(f'ALTER TABLE "{table}" ADD COLUMN "{name}" ANY')


def test_a_column_of_any_name_may_come_into_any_table(spool: Spool) -> None:
    """Enqueued, replaced, refused, retried, written back, told of, paused and shown, all on such a file."""
    with State(spool.state_path) as state:
        widen(state.db)
    with closing(sqlite3.connect(spool.folder / "app.db", isolation_level=None)) as app:
        app.execute("CREATE TABLE articles (id INTEGER PRIMARY KEY, summary TEXT)")
        app.executemany("INSERT INTO articles (id) VALUES (?)", [(n,) for n in range(6)])
    spool.databases["app"] = {"url": "sqlite:///app.db"}
    spool.set(
        write_back={"database": "app", "table": "articles", "where": {"id": "key"}, "set": {"summary": "text"}},
        events=[{"types": ["task.completed", "batch.completed", "batch.failed"], "command": ["/bin/false"]}],
    )
    spool.fill(6)
    spool.enqueue({"id": 5, "text": "record number 5 again"}, replace=True)
    spool.control.fault("rows", match="number 1", status=500)
    spool.control.fault("status", "create", status=429)
    spool.round()
    assert spool.status()["paused"]
    spool.settle()
    spool.check()
    found = spool.status()
    assert (found["tasks"]["completed"], found["tasks"]["superseded"]) == (6, 1)
    assert found["deliveries"]["echo"]["events"]["pending"]
    assert len(spool.results(after=2, since=1)) == 4
    assert spool.rows("SELECT count(*) FROM deliveries WHERE kind = 'row' AND outcome = 'written'") == [(6,)]


# --- the schema, readable in one place


def parts(sql: str) -> tuple[Counter[str], str]:
    """Return what stands between the outer brackets of a statement, in no order, and what stands around them."""
    text = " ".join(re.sub(r"--.*", "", sql).replace('"', "").split())
    start, end = text.index("("), text.rindex(")") if text.startswith("CREATE TABLE") else len(text)
    found, depth, part = Counter[str](), 0, ""
    for letter in text[start + 1 : end]:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            found[part.strip()] += 1
            part = ""
        else:
            part += letter
    found[part.strip()] += 1
    return found, text[:start] + text[end:]


def structure(db: sqlite3.Connection) -> dict[str, Any]:
    """Return a file's tables with their columns, in order, and all that is said of them; and its indexes."""
    rows = db.execute(
        "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE '%sqlite_%'"
    ).fetchall()
    columns = 'SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_info(?)'
    return {name: (*parts(sql), db.execute(columns, (name,)).fetchall()) for name, sql in rows}


def test_the_readable_schema_is_what_the_migrations_make(tmp_path: Path) -> None:
    with State(tmp_path / "n.db") as state, closing(sqlite3.connect(":memory:")) as written:
        written.executescript(Path(schema.__file__).with_name("schema.sql").read_text())
        made, read = structure(state.db), structure(written)
    assert made.keys() == read.keys()
    for name in made:
        assert made[name] == read[name], name


@pytest.mark.parametrize(
    ("table", "column", "words"),
    [
        ("tasks", "status", TaskStatus),
        ("counts", "status", TaskStatus),
        ("batches", "status", BatchStatus),
        ("answers", "error_kind", ErrorKind),
    ],
)
def test_a_table_takes_the_words_of_its_enum_and_no_other(tmp_path: Path, table: str, column: str, words: Any) -> None:
    with State(tmp_path / "n.db") as state:
        (sql,) = state.db.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    (listed,) = re.findall(rf"{column} TEXT[ NOTULL]* CHECK \({column} IN \((.*?)\)\)", sql)
    assert listed.replace("'", "").split(", ") == [str(word) for word in words]


ADDS = re.compile(
    r"CREATE TABLE|CREATE INDEX|CREATE TRIGGER|INSERT INTO|UPDATE meta"
    r"|ALTER TABLE \w+ ADD COLUMN \w+ [A-Z]+($| DEFAULT \S+$| NOT NULL DEFAULT \S+$)"
)


def statements(script: str) -> Iterator[str]:
    """Yield the statements of a migration, without comments."""
    statement = ""
    for part in re.sub(r"--.*", "", script).split(";")[:-1]:
        statement += f"{' '.join(part.split())}; "
        if sqlite3.complete_statement(statement):
            yield statement.strip("; ")
            statement = ""


def put_anew(text: str, after: str) -> bool:
    """Return whether a statement drops a trigger in whose place the next one puts another: in one transaction, none is without it."""
    found = re.fullmatch(r"DROP TRIGGER (\w+)", text)
    return found is not None and after.startswith(f"CREATE TRIGGER {found[1]} ")


def test_migrations_only_add() -> None:
    """An older process has the file open, and goes on with it: nothing is taken from it, and nothing new asked of it."""
    for script in schema.STEPS[3:]:
        listed = list(statements(script))
        for text, after in zip(listed, [*listed[1:], ""], strict=True):
            assert ADDS.match(text) or put_anew(text, after), text
    assert not ADDS.match("ALTER TABLE tasks ADD COLUMN x TEXT NOT NULL")
    assert not ADDS.match("DROP TABLE tasks")
    assert not put_anew("DROP TRIGGER one", "CREATE TRIGGER another AFTER INSERT ON tasks BEGIN SELECT 1; END")


# --- a file of an earlier version


def test_before_a_migration_the_file_is_copied_beside_itself(earlier: Path) -> None:
    version = version_of(earlier)
    with closing(sqlite3.connect(earlier, isolation_level=None)) as other:
        other.execute("INSERT INTO meta VALUES ('in', 'the WAL')")
        with State(earlier) as state:
            assert state.unsaved is None
            assert version_of(earlier) == schema.VERSION
    (saved,) = snapshots.found(earlier)
    assert (saved.path.name, saved.version) == (f"{earlier.name}.version-{version}.snapshot", version)
    assert saved.path.stat().st_mode & 0o777 == 0o600
    assert version_of(saved.path) == version
    with closing(sqlite3.connect(saved.path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT value FROM meta WHERE name = 'in'").fetchone() == ("the WAL",)
    with State(earlier) as again:  # nothing is migrated, and nothing copied
        assert snapshots.found(earlier) == [saved]
        assert foreign(again.path) == []


def test_a_new_file_is_no_copy_worth(tmp_path: Path) -> None:
    with State(tmp_path / "n.db") as state:
        assert snapshots.found(state.path) == []


def test_without_room_it_is_migrated_all_the_same_and_said(earlier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = os.stat(earlier).st_size
    monkeypatch.setattr(
        os, "statvfs", lambda folder: os.statvfs_result((1, 1, 0, 0, size, 0, 0, 0, 0, 255))
    )  # room for one, and no more
    ended = CliRunner().invoke(build(), ["status", "--state", str(earlier)])
    assert ended.exit_code == 0
    assert "was migrated" in ended.stderr
    assert "without a snapshot" in ended.stderr
    assert "no room" in ended.stderr
    assert version_of(earlier) == schema.VERSION
    assert [path.name for path in earlier.parent.glob("*snapshot*")] == []


def test_a_copy_that_fails_half_way_leaves_nothing(earlier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(db: sqlite3.Connection, part: Path) -> None:
        part.write_bytes(b"half of it")
        raise OSError(28, "No space left on device", str(part))

    monkeypatch.setattr(snapshots, "copy", full)
    with State(earlier) as state:
        assert "No space left" in str(state.unsaved)
        assert version_of(earlier) == schema.VERSION
    assert [path.name for path in earlier.parent.glob("*snapshot*")] == []


def test_a_link_in_the_place_of_the_copy_is_not_written_through(earlier: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("theirs")
    version = version_of(earlier)
    for end in ("", ".part"):
        (tmp_path / f"{earlier.name}.version-{version}.snapshot{end}").symlink_to(theirs)
    with State(earlier) as state:
        assert "is a link" in str(state.unsaved)
    assert theirs.read_text() == "theirs"


def killed(path: Path, module: Any, name: str, after: bool) -> None:
    """Open a state file in another process, which is killed just before, or just after, it calls a function."""
    child = os.fork()
    if child == 0:
        real: Callable[..., Any] = getattr(module, name)

        def deadly(*given: Any) -> None:
            if after:
                real(*given)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(module, name, deadly)
        try:
            State(path)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("module", "name"), [(snapshots, "copy"), (disk, "publish"), (schema, "migrate")])
def test_killed_at_any_point_it_is_done_by_the_next(tmp_path: Path, module: Any, name: str, after: bool) -> None:
    path = tmp_path / "n.db"
    load(path, 3)
    killed(path, module, name, after)
    with State(path) as state:
        assert state.db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert version_of(path) == schema.VERSION
    (saved,) = snapshots.found(path)
    assert version_of(saved.path) == 3
    assert list(tmp_path.glob("*.part*")) == []


def test_a_snapshot_is_named_by_status_and_removed_after_two_weeks(openai_spool: Spool) -> None:
    spool = openai_spool
    saved = spool.folder / "nura.db.version-3.snapshot"
    beside = spool.folder / "nura.db.version-3.snapshot.mine"
    for path in (saved, beside):
        path.write_bytes(b"x" * 10)
        os.utime(path, (spool.clock(), spool.clock()))
    spool.clock.advance(snapshots.KEPT_SECONDS - 1)
    spool.reconcile()
    (named,) = spool.status()["snapshots"]
    assert (named["path"], named["version"], named["bytes"]) == (str(saved), 3, 10)
    assert str(saved) in CliRunner().invoke(build(), ["status", "-c", str(spool.path)]).stdout
    spool.clock.advance(1)
    spool.reconcile()
    assert spool.status()["snapshots"] == []
    assert beside.exists()


# --- a file of a later version


def upgrade(path: Path, oldest: str | None) -> None:
    """Do to a file what a later nura's migration may."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        widen(db)
        db.execute("CREATE TABLE invented (x ANY) STRICT")
        db.execute("DELETE FROM meta WHERE name = 'oldest_version'")
        if oldest is not None:
            db.execute("INSERT INTO meta (name, value) VALUES ('oldest_version', ?)", (oldest,))
        db.execute(f"PRAGMA user_version = {schema.VERSION + 3}")


def invoke(spool: Spool, *arguments: str) -> tuple[int, str]:
    """Run a command; return its exit code, and what it says and prints."""
    ended = CliRunner().invoke(
        build(), [*arguments, "-c", str(spool.path)], input='{"id": 9, "text": "record number 9"}'
    )
    return ended.exit_code, ended.output


def test_a_newer_file_that_allows_it_is_filled_and_read_and_the_stages_are_left_to_the_newer_nura(
    openai_spool: Spool,
) -> None:
    spool = openai_spool
    spool.fill(3)
    spool.settle()
    upgrade(spool.state_path, str(schema.VERSION))
    assert invoke(spool, "enqueue", "echo") == (0, "")
    assert invoke(spool, "status")[0] == 0
    code, printed = invoke(spool, "results")
    assert (code, len(printed.splitlines())) == (0, 3)
    for stage in ("dispatch", "poll", "reconcile", "dispatch -n"):
        code, said = invoke(spool, *stage.split())
        assert code == 78, stage
        assert "run the newer nura; of this one, only enqueue, status and results go on" in said
    with State(spool.state_path, newer=True) as state:
        assert tasks.pending_count(state.db, 1) == 1
        assert version_of(spool.state_path) == schema.VERSION + 3
        assert len([row for page in answers.pages(state.db) for row in page]) == 3
        assert batches.under_way(state.db) == []


@pytest.mark.parametrize(
    "oldest", [str(schema.VERSION + 1), *(pytest.param(one, marks=pytest.mark.long) for one in (None, "soon"))]
)
def test_a_newer_file_that_does_not_say_so_is_left_alone(openai_spool: Spool, oldest: str | None) -> None:
    upgrade(openai_spool.state_path, oldest)
    with pytest.raises(StateNewer, match="written by a newer nura"):
        State(openai_spool.state_path, newer=True)
    for command in ("enqueue echo", "status", "results", "poll"):
        code, said = invoke(openai_spool, *command.split())
        assert code == 78, command
        assert "run the newer nura; or restore an older state file" in said
