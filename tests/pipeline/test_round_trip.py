"""From a table and back into it, through every stage: keys of all kinds, and guards on what the source gave."""

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Spool
from tests.databases import KINDS, Database, opened

pytestmark = pytest.mark.long

TABLE = """CREATE TABLE t (tenant VARCHAR(20), id {key}, title TEXT, updated_at {time}, score {float}, flag BOOLEAN,
 price NUMERIC(30,12), meta JSON, summary TEXT, PRIMARY KEY (tenant, id))"""
TYPES = {
    "sqlite": {"time": "TIMESTAMP", "float": "REAL"},
    "postgresql": {"time": "TIMESTAMPTZ", "float": "REAL"},
    "mariadb": {"time": "DATETIME(6)", "float": "FLOAT"},
}
ROW = "'{tenant}', {key}, 'record number {n}', '2026-11-20 10:11:1{n}.123456', 0.1{n}, {flag}, {price}, '{meta}', NULL"
KEYS = {
    "small": ("INTEGER", ["1", "2", "3"]),
    "large": ("BIGINT", ["9007199254740993", "-9223372036854775808", "9223372036854775807"]),
    "text": ("VARCHAR(40)", ["'one'", "'Zwei, drei'", "'it''s \"3\"'"]),
    "number or text": ("VARCHAR(40)", ["'1'", "'01'", "'1.0'"]),
    "uuid": ("{uuid}", [f"'0000000{n}-0000-4000-8000-00000000000a'" for n in range(3)]),
}


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    with opened(request.param, tmp_path) as database:
        yield database


def filled(database: Database, kind: str) -> None:
    """Make a table of three rows with keys of a kind."""
    column, keys = KEYS[kind]
    key = column.format(uuid="VARCHAR(40)" if database.kind == "sqlite" else "UUID")
    database.run(TABLE.format(key=key, **TYPES[database.kind]))
    for n, one in enumerate(keys):
        flag, price = ("true", "NULL")[n % 2], "123456789012345678.012345678901" if n == 2 else "1.10"
        row = ROW.format(tenant=f"T{n % 2}", key=one, n=n, flag=flag, price=price, meta='{"a": [1, 2.50, null]}')
        database.run(f"INSERT INTO t VALUES ({row})")


def asked(spool: Spool, database: Database, where: dict[str, str], key: str | list[str]) -> None:
    """Have each row without a summary worked on, and written only while nothing in it has changed."""
    guarded = ("title", "updated_at", "score", "flag", "price", "meta")
    spool.databases["app"] = {"url": database.url}
    spool.set(
        prompt="Repeat: {{ title }}",
        key=key,
        keep=[*guarded],
        source={"database": "app", "query": "SELECT * FROM t WHERE summary IS NULL"},
        write_back={
            "database": "app",
            "table": "t",
            "where": where,
            "set": {"summary": "text"},
            "only_if": {name: f"record.{name}" for name in guarded},
        },
    )


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("composite", [False, True], ids=["one column", "two columns"])
def test_each_row_gets_its_answer_once_by_a_key_of_any_kind(
    openai_spool: Spool, database: Database, kind: str, composite: bool
) -> None:
    spool = openai_spool
    filled(database, kind)
    if composite:
        asked(spool, database, {"tenant": "key[0]", "id": "key[1]"}, ["tenant", "id"])
    else:
        asked(spool, database, {"id": "key"}, "id")
    assert spool.enqueue_from_source().result["enqueued"] == 3
    assert spool.enqueue_from_source().result["duplicates"] == 3
    spool.dispatch()
    spool.poll()
    assert spool.enqueue_from_source().result["duplicates"] == 3
    assert spool.reconcile().result["rows"] == {"written": 3, "skipped": 0, "delayed": 0, "failed": 0}
    assert all(title in summary for title, summary in database.run("SELECT title, summary FROM t"))
    assert not any(spool.enqueue_from_source().result.values())


@pytest.mark.parametrize("column", ["title", "updated_at", "score", "flag", "price", "meta"])
def test_an_edit_of_any_column_meanwhile_is_kept_and_told_of(
    openai_spool: Spool, database: Database, column: str
) -> None:
    spool = openai_spool
    filled(database, "small")
    asked(spool, database, {"id": "key"}, "id")
    spool.enqueue_from_source()
    spool.dispatch()
    spool.poll()
    edits = {
        "title": "'edited'",
        "updated_at": "'2026-11-20 10:11:12.123457'",
        "score": "0.2",
        "flag": "false",
        "price": "1.100000000001",
        "meta": "'{\"a\": [1, 2.50, 0]}'",
    }
    database.run(f"UPDATE t SET {column} = {edits[column]} WHERE id = 1")
    report = spool.reconcile()
    assert report.result["rows"] == {"written": 2, "skipped": 1, "delayed": 0, "failed": 0}
    assert "1 row was changed since, the first: key 1" in report.problems[0].message
    assert database.run("SELECT summary FROM t WHERE id = 1") == [(None,)]
