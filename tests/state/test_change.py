"""The state file can change: a new column disturbs nothing, an older file is brought up to date, a newer one may be used."""

import sqlite3
from contextlib import closing

from nura_cli.state import State
from tests.conftest import Spool

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
