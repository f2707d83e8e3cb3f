"""The records to work on, out of the application's database: every value as JSON has it, nothing changed, nothing kept."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nura_cli.delivery import source
from nura_cli.errors import ConfigError, DatabaseDown
from tests.databases import KINDS, Database, opened


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with opened(request.param, tmp_path) as database:
        yield database


@pytest.fixture
def articles(database: Database) -> Database:
    database.run("CREATE TABLE articles (id INTEGER PRIMARY KEY, title TEXT, score FLOAT, summary TEXT)")
    database.run("INSERT INTO articles VALUES (1, 'Ünïcode \"quoted\"', 0.5, NULL), (2, 'two\nlines', NULL, 'done')")
    return database


def test_each_row_is_a_record_by_the_names_of_its_columns(articles: Database) -> None:
    assert articles.records("SELECT id, title, score FROM articles WHERE summary IS NULL") == [
        {"id": 1, "title": 'Ünïcode "quoted"', "score": 0.5}
    ]


def test_a_record_is_one_line_whatever_is_in_it(articles: Database) -> None:
    lines = list(source.rows(articles.url, "SELECT title FROM articles ORDER BY id"))
    assert len(lines) == 2
    assert all(b"\n" not in line for line in lines)


def test_signs_that_mean_something_to_a_driver_are_the_querys_own(articles: Database) -> None:
    query = "SELECT id AS \"a:b\", 'x % y %s :name ?' AS text FROM articles WHERE title LIKE '%line%'"
    assert articles.records(query) == [{"a:b": 2, "text": "x % y %s :name ?"}]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM articles",
        "UPDATE articles SET title = ''",
        "DROP TABLE articles",
        "INSERT INTO articles (id) VALUES (9) RETURNING id",
    ],
)
def test_nothing_can_be_changed(articles: Database, statement: str) -> None:
    with pytest.raises(ConfigError):
        articles.records(statement)
    assert len(articles.run("SELECT * FROM articles WHERE title <> ''")) == 2


@pytest.mark.parametrize("query", ["SELEC 1", "SELECT nope FROM articles", "SELECT 1 FROM nowhere", ""])
def test_a_wrong_query_is_a_matter_of_configuration(articles: Database, query: str) -> None:
    with pytest.raises(ConfigError, match="query"):
        articles.records(query)


def test_two_columns_of_one_name_are_refused(articles: Database) -> None:
    with pytest.raises(ConfigError, match="2 columns named id"):
        articles.records("SELECT a.id, b.id FROM articles a JOIN articles b ON a.id = b.id")


def test_a_type_that_json_has_no_form_for_is_a_matter_of_configuration(database: Database) -> None:
    if database.kind == "sqlite":
        return  # its columns have no types
    literal = "'\\xff00'::bytea" if database.kind == "postgresql" else "x'ff00'"
    with pytest.raises(ConfigError, match="column raw") as caught:
        database.records(f"SELECT {literal} AS raw")
    assert "CAST(raw AS TEXT)" in str(caught.value.hint)


BROKEN = {
    "sqlite": ["CAST(x'61ff' AS TEXT)", "9e999", "-9e999", "x'ff00'", "'a' || char(0) || 'b'"],
    "postgresql": [
        *("date 'infinity'", "date '-infinity'", "date '0044-03-15 BC'", "date '10000-01-01'", "time '24:00'"),
        *("timestamp '0001-01-01 BC'", "timestamptz 'infinity'", "timestamptz '9999-12-31 23:59:59-14'"),
        *("'Infinity'::float8", "'NaN'::float8", "'NaN'::numeric", "ARRAY['NaN'::float8]", "ARRAY[date 'infinity']"),
        *("'[1e5000]'::jsonb", "'[\"\\ud800\"]'::json", "('[1' || repeat('0', 5000) || ']')::json"),
    ],
    "mariadb": [],
}
"""Values that Python or JSON cannot hold, in one row among others."""


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind in KINDS for value in BROKEN[kind]])
def test_one_row_that_cannot_be_read_does_not_stop_the_others(tmp_path: Path, kind: str, value: str) -> None:
    with opened(kind, tmp_path) as database:
        null = "NULL" if kind == "sqlite" else f"CAST(NULL AS {database.run(f'SELECT pg_typeof({value})')[0][0]})"
        query = f"SELECT 1 AS id, {null} AS bad UNION ALL SELECT 2, {value} UNION ALL SELECT 3, {null}"
        first, broken, last = source.rows(database.url, query)
    assert (first, last) == (b'{"id":1,"bad":null}', b'{"id":3,"bad":null}')
    assert isinstance(broken, source.Unread)
    assert broken.line == b'{"id":2}'
    assert broken.why.startswith("column bad: ")
    assert "\n" not in broken.why
    assert len(broken.why) < 300


def test_every_column_that_cannot_be_read_is_named(database: Database) -> None:
    if database.kind == "sqlite":
        assert database.unread("SELECT 9e999 AS a, 1 AS b, CAST(x'ff' AS TEXT) AS c") == [
            "column a: JSON has no inf; column c: text that is not UTF-8, from its byte 1 on"
        ]


def test_what_the_database_refuses_to_compute_is_a_matter_of_configuration(database: Database) -> None:
    """It ends the query, and time does not help: it is no outage, after which it would be tried again for ever."""
    if database.kind == "postgresql":
        with pytest.raises(ConfigError, match="cannot be read: division by zero"):
            database.records("SELECT 1 / 0 AS v")


def test_a_span_of_time_is_written_as_sql_writes_it(database: Database) -> None:
    if database.kind == "sqlite":
        return  # it has text
    spans = ["10:11:12", "26:00:00", "-00:00:01", "00:00:00.500000"]
    literal = "INTERVAL '{}'" if database.kind == "postgresql" else "CAST('{}' AS TIME(6))"
    query = " UNION ALL ".join(f"SELECT {literal.format(span)} AS v" for span in spans)
    assert [record["v"] for record in database.records(query)] == spans


def test_numbers_are_given_as_they_are(database: Database) -> None:
    if database.kind == "postgresql":
        query = "SELECT 12345678901234567890.123456789 AS a, '{\"n\": [12345678901234567890.5]}'::jsonb AS b"
        [line] = database.read(query)
        assert line == b'{"a":12345678901234567890.123456789,"b":{"n":[12345678901234567890.5]}}'
    assert database.records("SELECT 9007199254740993 AS n") == [{"n": 9007199254740993}]


def test_whoever_stops_half_way_leaves_no_connection_open(articles: Database) -> None:
    before = articles.open_connections()
    reading = source.rows(articles.url, "SELECT id FROM articles")
    next(reading)
    assert articles.open_connections() > before
    reading.close()
    for wrong in ("SELECT nope", "SELECT id, id FROM articles", "DROP TABLE articles"):
        with pytest.raises(ConfigError):
            articles.records(wrong)
    deadline = time.monotonic() + 30
    while articles.open_connections() > before and time.monotonic() < deadline:
        time.sleep(0.02)  # a server notices a moment later that a connection was closed
    assert articles.open_connections() == before


def test_the_types_of_postgresql_become_what_json_has(database: Database) -> None:
    if database.kind != "postgresql":
        assert database.records("SELECT 1 AS a, 2.5 AS b, 'c' AS c, NULL AS d") == [
            {"a": 1, "b": 2.5, "c": "c", "d": None}
        ]
        return
    query = (
        "SELECT true AS yes, 12.50::numeric AS price, date '2026-03-29' AS day, timestamp '2026-03-29 02:30' AS local,"
        " '{\"a\": [1]}'::jsonb AS doc, ARRAY[1,2] AS list, '00000000-0000-0000-0000-000000000001'::uuid AS id,"
        " 9223372036854775807 AS large"
    )
    [line] = database.read(query)
    assert b'"price":12.50' in line
    assert json.loads(line) == {
        "yes": True,
        "price": 12.5,
        "day": "2026-03-29",
        "local": "2026-03-29T02:30:00",
        "doc": {"a": [1]},
        "list": [1, 2],
        "id": "00000000-0000-0000-0000-000000000001",
        "large": 9223372036854775807,
    }


def test_a_database_that_is_not_there_now_is_told_from_a_wrong_query(tmp_path: Path) -> None:
    with pytest.raises(DatabaseDown):
        list(source.rows(f"postgresql://nobody@/none?host={tmp_path}", "SELECT 1"))
    (tmp_path / "broken.db").write_bytes(b"no database" * 1000)
    with pytest.raises(DatabaseDown):
        list(source.rows(f"sqlite:///{tmp_path}/broken.db", "SELECT * FROM sqlite_schema"))
    with pytest.raises(ConfigError, match="no database at"):
        list(source.rows(f"sqlite:///{tmp_path}/absent.db", "SELECT 1"))


def test_reading_does_not_hold_up_a_writer_of_the_application(articles: Database) -> None:
    if articles.kind == "sqlite":
        articles.run("PRAGMA journal_mode = WAL")
    reading = source.rows(articles.url, "SELECT id FROM articles")
    next(reading)
    articles.run("UPDATE articles SET title = 'meanwhile'")
    reading.close()
    assert articles.run("SELECT count(*) FROM articles WHERE title = 'meanwhile'") == [(2,)]


_PEAK = """
import re, sys
from nura_cli.delivery import source
n = sum(1 for _ in source.rows(sys.argv[1], sys.argv[2]))
print(n, re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def test_memory_stays_flat_however_many_rows_there_are(database: Database) -> None:
    numbers = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {0}) SELECT i, '{1}' AS text FROM n"
        if database.kind == "sqlite"
        else "SELECT seq AS i, '{1}' AS text FROM seq_1_to_{0}"
        if database.kind == "mariadb"
        else "SELECT i, '{1}' AS text FROM generate_series(1, {0}) AS i"
    )
    peaks = []
    for n in (2_000, 100_000):
        query = numbers.format(n, "x" * 1000)
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, database.url, query], capture_output=True, text=True, check=True, timeout=120
        )
        count, peak = done.stdout.split()
        assert int(count) == n
        peaks.append(int(peak))
    assert peaks[1] < peaks[0] + 15_000  # KiB; the rows together have 100,000
