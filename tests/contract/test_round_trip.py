"""What a source gives of a row is what a guard and a key know it by again, whatever type its column has."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.contract.test_write_back import answer
from tests.databases import KINDS, Database, opened

# column type, what is in the column, as SQL writes it
EVERYWHERE = [
    ("INTEGER", "7"),
    ("BIGINT", "9007199254740993"),
    ("FLOAT", "0.1"),
    ("DOUBLE PRECISION", "0.1"),
    ("DOUBLE PRECISION", "1e300"),
    ("NUMERIC(10,2)", "1.10"),
    ("TEXT", "'a'"),
    ("TEXT", "''"),
    ("TEXT", "'Grüße, \"quoted\"'"),
    ("CHAR(5)", "'ab'"),
    ("VARCHAR(5)", "'ab'"),
    ("BOOLEAN", "true"),
    ("DATE", "'2026-11-20'"),
    ("TIMESTAMP", "'2026-11-20 10:11:12'"),
    ("TIME", "'10:11:12'"),
    ("JSON", "'{\"a\": [1, 2.50]}'"),
    ("JSON", "'5'"),
    ("JSON", "'\"text\"'"),
    ("INTEGER", "NULL"),
]
OF = {
    # SQLite holds whatever it is given, and has types of any name.
    "sqlite": [
        ("INTEGER", "'abc'"),
        ("INTEGER", "1.5"),
        ("NUMERIC(10,2)", "1.005"),
        ("NUMERIC", "12345678901234567890"),
        ("DECIMAL(10,2)", "'12.50'"),
        ("VARCHAR(3)", "'abcdef'"),
        ("TEXT", "5"),
        ("BOOLEAN", "'t'"),
        ("BOOLEAN", "2"),
        ("DATE", "'2026-11-20 10:11:12'"),
        ("DATETIME", "'2026-11-20T10:11:12.123456+02:00'"),
        ("DATETIME", "1700000000"),
        ("TIMESTAMP", "'2026-11-20 10:11:12.1234567'"),
        ("TIMESTAMP", "'n/a'"),
        ("TIME", "'10:11'"),
        ("JSON", "'no json'"),
        ("BLOB", "'text'"),
        ("STRING", "'x'"),
        ("UUID", "'00000000-0000-0000-0000-00000000000A'"),
        ("", "'x'"),
    ],
    "postgresql": [
        ("REAL", "0.1"),
        ("REAL", "16777217"),
        ("NUMERIC", "12345678901234567890.123456789"),
        ("NUMERIC", "1e-30"),
        ("TIMESTAMP", "'2026-11-20 10:11:12.123456'"),
        ("TIMESTAMP(0)", "'2026-11-20 10:11:12.9'"),
        ("TIMESTAMPTZ", "'2026-11-20 10:11:12.123456+02'"),
        ("TIMETZ", "'10:11:12+02'"),
        ("INTERVAL", "'1 month 1 day 02:00:00.5'"),
        ("JSONB", "'{\"a\": 12345678901234567890.5}'"),
        ("JSONB", "'null'"),
        ("UUID", "'00000000-0000-0000-0000-00000000000A'"),
        ("INTEGER[]", "'{1,NULL,3}'"),
        ("INTEGER[]", "'{{1,2},{3,4}}'"),
        ("TEXT[]", '\'{a,"b,c","NULL"}\''),
        ("JSONB[]", "ARRAY['[1]'::jsonb]"),
        ("INET", "'10.0.0.1/8'"),
        ("CIDR", "'10.0.0.0/8'"),
        ("MONEY", "12.5"),
        ("BIT(3)", "B'101'"),
        ("mood", "'sad'"),
        ("short", "'abc'"),
    ],
    "mariadb": [
        ("BIGINT UNSIGNED", "18446744073709551615"),
        ("FLOAT", "0.123456789"),
        ("DECIMAL(40,20)", "12345678901234567890.123456789"),
        ("DATETIME(6)", "'2026-11-20 10:11:12.123456'"),
        ("TIMESTAMP(3)", "'2026-11-20 10:11:12.5'"),
        ("ENUM('a','b')", "'a'"),
        ("SET('a','b')", "'a,b'"),
        ("UUID", "'00000000-0000-0000-0000-00000000000a'"),
    ],
}
CASES = [(kind, *case) for kind in KINDS for case in [*EVERYWHERE, *OF[kind]]]
NO_KEYS = ("JSON", "FLOAT", "REAL")


def table_of(database: Database, column: str, literal: str) -> dict[str, Any]:
    """Make a table with one row, and return the row as a source gives it, as it travels: a field is JSON as it came."""
    if database.kind == "postgresql":
        database.run("CREATE TYPE mood AS ENUM ('sad', 'glad')")
        database.run("CREATE DOMAIN short AS VARCHAR(3)")
    database.run(f"CREATE TABLE t (id INTEGER PRIMARY KEY, v {column}, a INTEGER)")
    database.run(f"INSERT INTO t (id, v) VALUES (1, {literal})")
    [line] = database.read("SELECT v FROM t")
    return msgspec.json.decode(line, type=dict[str, msgspec.Raw])


@pytest.mark.parametrize(("kind", "column", "literal"), CASES)
def test_a_row_that_nobody_edited_is_known_by_what_the_source_gave(
    tmp_path: Path, kind: str, column: str, literal: str
) -> None:
    with opened(kind, tmp_path) as database:
        record = table_of(database, column, literal)
        guarded: dict[str, Any] = {"set_": {"a": "finish_reason"}, "only_if": {"v": "record.v"}}
        assert database.kinds(answer(1, finish_reason=1, record=record), **guarded) == ["written"]
        other = "1" if literal == "NULL" else "'5'" if bytes(record["v"]) == b"null" else "NULL"
        database.run(f"UPDATE t SET v = {other}")
        assert database.kinds(answer(1, finish_reason=2, record=record), **guarded) == ["changed"]
        assert database.run("SELECT a FROM t") == [(1,)]


KEYS = [
    (kind, column, literal)
    for kind, column, literal in CASES
    if literal != "NULL" and not column.startswith(NO_KEYS) and not (kind == "sqlite" and (column, literal) in OF[kind])
]
KEYS += [
    ("sqlite", column, literal) for column, literal in OF["sqlite"] if column in ("UUID", "STRING", "VARCHAR(3)", "")
]


@pytest.mark.parametrize(("kind", "column", "literal"), KEYS)
def test_a_row_is_found_by_the_key_that_the_source_gave(tmp_path: Path, kind: str, column: str, literal: str) -> None:
    with opened(kind, tmp_path) as database:
        record = table_of(database, column, literal)
        written = database.kinds(answer(record["v"], finish_reason=1), where={"v": "key"}, set_={"a": "finish_reason"})
        assert written == ["written"]
