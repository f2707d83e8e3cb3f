"""Write-back, held to one behaviour on SQLite and on a real PostgreSQL: types, keys, guards, refusals, hostile input, outages."""

import json
import multiprocessing
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from nura_cli.delivery import database as database_module
from nura_cli.delivery import statements as statements_module
from nura_cli.delivery.write_back import RowOutcome, WriteBack
from nura_cli.errors import ConfigError, DatabaseDown
from tests import postgres
from tests.databases import KINDS, NOW, Database, opened, postgresql


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with opened(request.param, tmp_path) as database:
        yield database


@pytest.fixture
def table(database: Database) -> Database:
    """A table of five rows."""
    text = "LONGTEXT" if database.kind == "mariadb" else "TEXT"
    database.run(f"CREATE TABLE t (id INTEGER PRIMARY KEY, a {text}, b VARCHAR(100), n INTEGER NOT NULL DEFAULT 0)")
    database.run("INSERT INTO t (id) VALUES (0), (1), (2), (3), (4)")
    return database


def answer(key: Any, text: str | None = "done", status: str = "completed", **more: Any) -> dict[str, Any]:
    """Return an answer document."""
    document = {"seq": 1, "workload": "w", "key": key, "status": status, "text": text, "json": None, "record": {}}
    return document | {"error": None if status == "completed" else {"kind": "refused", "message": "too long"}} | more


# --- what is written, and what is said of it


def test_each_answer_goes_into_its_row_and_no_other(table: Database) -> None:
    assert table.kinds(answer(1, "one"), answer(3, "three")) == ["written", "written"]
    assert table.run("SELECT id, a FROM t ORDER BY id") == [(0, None), (1, "one"), (2, None), (3, "three"), (4, None)]


def test_written_again_it_is_the_same_as_written_once(table: Database) -> None:
    table.run("CREATE TABLE effects (id INTEGER)")
    table.trigger("AFTER UPDATE ON t", "INSERT INTO effects VALUES (new.id)")
    assert table.kinds(answer(1), answer(2)) == ["written", "written"]
    assert table.kinds(answer(1), answer(2)) == ["unchanged", "unchanged"]
    assert table.run("SELECT count(*) FROM effects") == [(2,)]


def test_a_deleted_row_is_gone_and_is_not_invented(table: Database) -> None:
    table.run("DELETE FROM t WHERE id = 2")
    assert table.kinds(answer(1), answer(2), answer(77)) == ["written", "gone", "gone"]
    assert table.run("SELECT count(*) FROM t") == [(4,)]


def test_documents_of_one_key_are_written_in_their_order(table: Database) -> None:
    assert table.kinds(answer(1, "first"), answer(2), answer(1, "second")) == ["written"] * 3
    assert table.run("SELECT a FROM t WHERE id = 1") == [("second",)]


def test_many_answers_take_few_exchanges_with_mariadb(table: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    if table.kind != "mariadb":
        return
    import pymysql.connections  # type: ignore[import-untyped]  # it brings no types

    sent = []
    plainly = pymysql.connections.Connection._execute_command

    def counted(self: Any, *given: Any) -> Any:
        sent.append(given)
        return plainly(self, *given)

    monkeypatch.setattr(pymysql.connections.Connection, "_execute_command", counted)
    table.run("INSERT INTO t (id) SELECT seq FROM seq_5_to_1999")
    for kind in ("written", "unchanged"):
        with table.write_back() as write_back:
            write_back.check()
            sent.clear()
            assert {outcome.kind for outcome in write_back.write([answer(i) for i in range(2000)], NOW)} == {kind}
            assert len(sent) < 30


def test_many_answers_take_few_statements(table: Database) -> None:
    if table.kind != "postgresql":
        return  # no network lies between: a statement a row is the fastest
    table.run("INSERT INTO t (id) SELECT generate_series(5, 1999)")
    with table.write_back() as write_back:
        write_back.check()
        before = table.run("SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database")
        assert {outcome.kind for outcome in write_back.write([answer(i) for i in range(2000)], NOW)} == {"written"}
        after = table.run("SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database")
    assert after[0][0] - before[0][0] < 20
    [(transactions,)] = table.run("SELECT count(DISTINCT xmin::text) FROM t")
    assert transactions < 10


@pytest.mark.parametrize("there", ["Done", "döne", "done "])
def test_a_value_that_only_looks_the_same_is_not_ours(database: Database, there: str) -> None:
    collation = {"sqlite": "COLLATE NOCASE", "postgresql": "", "mariadb": "COLLATE utf8mb4_general_ci"}[database.kind]
    database.run(f"CREATE TABLE t (id INTEGER PRIMARY KEY, a VARCHAR(20) {collation})")
    database.run(f"INSERT INTO t VALUES (1, '{there}'), (2, '{there}')")
    guarded: dict[str, Any] = {"only_if": {"a": "record.a"}, "set_": {"a": "finish_reason"}}
    assert database.kinds(answer(2, finish_reason="x", record={"a": "done"}), **guarded) == ["changed"]
    assert database.kinds(answer(1, "done")) == ["written"]
    assert database.run("SELECT a FROM t ORDER BY id") == [("done",), (there,)]


# --- guards


def test_an_edit_made_meanwhile_is_left_as_it_is(table: Database) -> None:
    guard = {"n": "record.n"}
    table.run("UPDATE t SET n = 5, a = 'by hand' WHERE id = 2")
    outcomes = table.kinds(answer(1, record={"n": 0}), answer(2, record={"n": 0}), only_if=guard)
    assert outcomes == ["written", "changed"]
    assert table.run("SELECT a FROM t WHERE id = 2") == [("by hand",)]


def test_a_row_that_holds_our_values_already_is_no_conflict(table: Database) -> None:
    table.run("UPDATE t SET n = 5, a = 'done' WHERE id = 2")
    assert table.kinds(answer(2, record={"n": 0}), only_if={"n": "record.n"}) == ["unchanged"]


def test_a_guard_may_be_null(table: Database) -> None:
    table.run("UPDATE t SET b = 'edited' WHERE id = 2")
    outcomes = table.kinds(answer(1, record={"b": None}), answer(2, record={"b": None}), only_if={"b": "record.b"})
    assert outcomes == ["written", "changed"]


def test_of_several_rows_of_one_key_an_edited_one_is_left_and_told_of(database: Database) -> None:
    database.run("CREATE TABLE t (id INTEGER, a TEXT, n INTEGER)")
    database.run("INSERT INTO t VALUES (1, NULL, 0), (1, 'by hand', 5), (2, NULL, 0), (2, NULL, 0)")
    documents = [answer(key, record={"n": 0}) for key in (1, 2, 3)]
    for second in ("written", "unchanged"):
        assert database.kinds(*documents, only_if={"n": "record.n"}) == ["changed", second, "gone"]
    assert sorted(database.run("SELECT id, a FROM t")) == [(1, "by hand"), (1, "done"), (2, "done"), (2, "done")]


def test_a_write_that_changes_its_own_guard_is_still_idempotent(table: Database) -> None:
    options: dict[str, Any] = {"only_if": {"a": "record.a"}}
    assert table.kinds(answer(1, record={"a": None}), **options) == ["written"]
    assert table.kinds(answer(1, record={"a": None}), **options) == ["unchanged"]


# --- failed tasks, nulls


def test_failed_tasks_are_written_where_set_failed_says(table: Database) -> None:
    documents = answer(1), answer(2, None, "failed")
    assert table.kinds(*documents, set_failed={"b": "error.message"}) == ["written", "written"]
    assert table.run("SELECT a, b FROM t WHERE id IN (1, 2) ORDER BY id") == [("done", None), (None, "too long")]


def test_cancelled_tasks_are_written_where_set_cancelled_says(table: Database) -> None:
    documents = answer(1), answer(2, None, "cancelled"), answer(3, None, "failed")
    assert table.kinds(*documents, set_cancelled={"b": "error.message"}) == ["written", "written", "skipped"]
    assert table.run("SELECT a, b FROM t WHERE id IN (1, 2) ORDER BY id") == [("done", None), (None, "too long")]


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_without_set_failed_or_set_cancelled_nothing_is_written_for_them(table: Database, status: str) -> None:
    assert table.kinds(answer(1, None, status)) == ["skipped"]


def test_a_null_fails_unless_it_was_declared(table: Database) -> None:
    [outcome] = table.write(answer(1, None))
    assert (outcome.kind, outcome.reason) == ("failed", "set.a: text is null (list a under nullable)")
    assert table.kinds(answer(1, None), nullable=["a"], set_={"a": "text", "b": "status"}) == ["written"]


def test_what_the_database_refuses_fails_alone(table: Database) -> None:
    table.run("CREATE UNIQUE INDEX one_b ON t (b)")
    outcomes = table.write(*(answer(i, "same" if i in (1, 3) else f"text {i}") for i in range(5)), set_={"b": "text"})
    assert sorted(outcome.kind for outcome in outcomes) == ["refused", *["written"] * 4]
    reason = next(outcome.reason for outcome in outcomes if outcome.reason)
    assert ("Duplicate entry" if table.kind == "mariadb" else "unique") in reason.replace("UNIQUE", "unique")


def test_a_null_in_a_column_that_forbids_it_fails_alone(table: Database) -> None:
    outcomes = table.kinds(answer(1, "1"), answer(2, None), set_={"n": "text"}, nullable=["n"])
    assert outcomes == ["written", "refused"]


@pytest.mark.parametrize("raised", ["RAISE 'mine' USING ERRCODE = 'UR001'", "ASSERT false", "PERFORM 1 / 0"])
def test_whatever_a_trigger_thinks_up_is_about_its_row(raised: str) -> None:
    with postgres.database() as (url, connection):
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)")
        connection.execute("INSERT INTO t (id) VALUES (0), (1), (2)")
        database = Database("postgresql", url, lambda text: connection.execute(text.encode()).fetchall())
        connection.execute(
            f"CREATE FUNCTION x() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN IF new.id = 1 THEN {raised}; END IF; RETURN new; END $$".encode()
        )
        connection.execute("CREATE TRIGGER x BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION x()")
        assert database.kinds(*map(answer, range(3))) == ["written", "refused", "written"]


def test_a_trigger_may_refuse_a_row(table: Database) -> None:
    table.refusing("new.id = 2", "not on Sundays")
    outcomes = table.write(*map(answer, range(5)))
    assert [outcome.kind for outcome in outcomes] == ["written", "written", "refused", "written", "written"]
    assert "not on Sundays" in (outcomes[2].reason or "")


@pytest.mark.parametrize(
    "state", ["lock_not_available", "query_canceled", "deadlock_detected", "serialization_failure"]
)
def test_a_row_that_waits_too_long_is_refused_alone(state: str) -> None:
    with postgresql() as database:
        database.run("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)")
        database.run("INSERT INTO t (id) VALUES (0), (1), (2)")
        database.trigger("BEFORE UPDATE ON t", f"IF new.id = 1 THEN RAISE {state}; END IF")
        assert database.kinds(*map(answer, range(3))) == ["written", "refused", "written"]
        assert database.kinds(answer(1)) == ["refused"]


def test_a_trigger_that_is_broken_for_one_row_stops_no_other(table: Database) -> None:
    broken = {
        "sqlite": "SELECT json('no') WHERE new.id = 2",
        "postgresql": "IF new.id = 2 THEN PERFORM not_there(); END IF",
        "mariadb": "IF new.id = 2 THEN INSERT INTO not_there VALUES (1); END IF",
    }
    table.trigger("BEFORE UPDATE ON t", broken[table.kind])
    outcomes = table.write(*map(answer, range(4)))
    assert [outcome.kind for outcome in outcomes] == ["written", "written", "refused", "written"]
    assert re.search("malformed|not_there", outcomes[2].reason or "")


def test_where_nothing_gets_through_it_is_the_database_that_cannot_be_used(table: Database) -> None:
    broken = {
        "sqlite": "SELECT json('no')",
        "postgresql": "PERFORM not_there()",
        "mariadb": "INSERT INTO not_there VALUES (1)",
    }
    table.trigger("BEFORE UPDATE ON t", broken[table.kind])
    with pytest.raises(DatabaseDown, match=r"cannot be used now: .*(malformed|not_there)"):
        table.write(*map(answer, range(4)))


# --- writes that the database takes and does not make

TOOK = "the database took the write and the row does not hold it"


def test_a_write_that_a_trigger_swallows_is_a_refusal_and_no_edit(table: Database) -> None:
    swallowing = {
        "sqlite": "SELECT RAISE(IGNORE) WHERE new.id = 2",
        "postgresql": "IF new.id = 2 THEN RETURN NULL; END IF",
    }
    if table.kind not in swallowing:
        return  # its triggers cannot
    table.trigger("BEFORE UPDATE ON t", swallowing[table.kind])
    for options in ({}, {"only_if": {"n": "record.n"}}):
        outcomes = table.write(*(answer(i, f"{options}", record={"n": 0}) for i in range(4)), **options)
        assert [outcome.kind for outcome in outcomes] == ["written", "written", "refused", "written"]
        assert outcomes[2].reason == TOOK
    table.run("UPDATE t SET n = 5 WHERE id = 1")
    assert table.kinds(answer(1, record={"n": 0}), only_if={"n": "record.n"}) == ["changed"]


def test_a_value_that_a_trigger_replaces_is_a_refusal(table: Database) -> None:
    if table.kind == "mariadb":
        table.trigger("BEFORE UPDATE ON t", "IF new.id = 2 THEN SET new.a = 'mine'; END IF")
    else:
        again = {"sqlite": " AND new.a <> 'mine'", "postgresql": " AND new.a <> 'mine'"}[table.kind]
        table.trigger("AFTER UPDATE ON t", f"UPDATE t SET a = 'mine' WHERE id = new.id AND id = 2{again}")
    outcomes = table.write(*map(answer, range(4)))
    assert [outcome.kind for outcome in outcomes] == ["written", "written", "refused", "written"]
    assert outcomes[2].reason == TOOK
    assert table.kinds(answer(2, "mine")) == ["unchanged"]


@pytest.mark.parametrize("made", ["t_1 PARTITION OF t FOR VALUES FROM (0) TO (9)", "t_1 () INHERITS (t)"])
def test_a_trigger_of_a_part_of_the_table_is_seen_too(made: str) -> None:
    with postgresql() as database:
        database.run(f"CREATE TABLE t (id INTEGER, a TEXT) {'PARTITION BY RANGE (id)' if 'OF' in made else ''}")
        database.run(f"CREATE TABLE {made}")
        database.run("INSERT INTO t_1 (id) VALUES (0), (1), (2)")
        database.trigger("BEFORE UPDATE ON t_1", "IF new.id = 1 THEN new.a := 'mine'; END IF")
        assert database.kinds(*map(answer, range(3))) == ["written", "refused", "written"]


def test_a_trigger_that_touches_the_row_besides_is_no_refusal(table: Database) -> None:
    """As of a column that says when the row was last changed, which is also what ``only_if`` looks at."""
    if table.kind == "sqlite":
        table.trigger("AFTER UPDATE OF a ON t", "UPDATE t SET n = n + 1 WHERE id = new.id")
    else:
        before = "new.n := new.n + 1" if table.kind == "postgresql" else "SET new.n = new.n + 1"
        table.trigger("BEFORE UPDATE ON t", before)
    documents = [answer(i, record={"n": 0}) for i in range(4)]
    assert table.kinds(*documents, only_if={"n": "record.n"}) == ["written"] * 4
    assert table.run("SELECT DISTINCT n FROM t WHERE id < 4") == [(1,)]


def test_a_row_that_moves_on_when_it_is_written_was_written(table: Database) -> None:
    """As with a queue from which a trigger takes what is done."""
    if table.kind == "mariadb":
        return  # its triggers cannot change their own table
    table.trigger("AFTER UPDATE ON t", "DELETE FROM t WHERE id = new.id")
    assert table.kinds(answer(1), answer(2)) == ["written", "written"]


@pytest.fixture
def secured() -> Iterator[Database]:
    """A table with row-level security, as a user sees it to whom its policies apply."""
    with postgresql() as database:
        database.run("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)")
        database.run("INSERT INTO t (id) VALUES (0), (1), (2)")
        database.run("ALTER TABLE t ENABLE ROW LEVEL SECURITY")
        database.run("CREATE POLICY seen ON t FOR SELECT USING (true)")
        database.run("DO $$ BEGIN CREATE ROLE app LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
        database.run("GRANT SELECT, UPDATE ON t TO app")
        yield Database("postgresql", database.url.replace("postgres@", "app@"), database.run)


def test_a_row_that_its_policy_keeps_from_being_written_is_a_refusal(secured: Database) -> None:
    secured.run("CREATE POLICY written ON t FOR UPDATE USING (id <> 1)")
    outcomes = secured.write(*map(answer, range(3)))
    assert [outcome.kind for outcome in outcomes] == ["written", "refused", "written"]
    assert outcomes[1].reason == TOOK
    secured.run("CREATE POLICY this_one_too ON t FOR UPDATE USING (id = 1)")
    assert secured.kinds(answer(1)) == ["written"]


def test_values_that_a_policy_will_not_have_are_a_refusal(secured: Database) -> None:
    secured.run("CREATE POLICY written ON t FOR UPDATE USING (true) WITH CHECK (a <> 'bad')")
    outcomes = secured.write(answer(0), answer(1, "bad"), answer(2))
    assert [outcome.kind for outcome in outcomes] == ["written", "refused", "written"]
    assert "row-level security" in (outcomes[1].reason or "")
    assert secured.kinds(answer(1, "bad")) == ["refused"]


def test_an_account_that_may_not_do_what_is_to_be_done_is_found_before_anything_is_paid_for(secured: Database) -> None:
    secured.run("CREATE TABLE log (uid VARCHAR(64) PRIMARY KEY, written_at TIMESTAMPTZ)")
    secured.run("GRANT SELECT ON log TO app")
    with secured.write_back(ledger="log") as table, pytest.raises(ConfigError, match=r"write_back\.ledger: .*log"):
        table.check()
    secured.run("GRANT INSERT ON log TO app")
    with secured.write_back(ledger="log") as table:
        table.check()
    secured.run("REVOKE UPDATE ON t FROM app")
    with secured.write_back() as table, pytest.raises(ConfigError, match=r"write_back\.table: .*denied"):
        table.check()


# --- types: column type, value, what is in the column then (None: it does not fit)

FITS = [
    ("INTEGER", 3, 3),
    ("INTEGER", 3.0, 3),
    ("INTEGER", "42", 42),
    ("INTEGER", True, 1),
    ("INTEGER", 3.7, None),
    ("INTEGER", "many", None),
    ("INTEGER", [1], None),
    ("BIGINT", 2**63 - 1, 2**63 - 1),
    ("BIGINT", 2**63, None),
    ("FLOAT", 0.5, 0.5),
    ("FLOAT", "2.5e3", 2500.0),
    ("FLOAT", 7, 7.0),
    ("FLOAT", "NaN", None),
    ("FLOAT", "high", None),
    ("BOOLEAN", True, True),
    ("BOOLEAN", 0, False),
    ("BOOLEAN", "yes", None),
    ("BOOLEAN", 2, None),
    ("TEXT", "plain", "plain"),
    ("TEXT", 1.5, "1.5"),
    ("TEXT", True, "true"),
    ("TEXT", {"a": [1, "é"]}, '{"a":[1,"é"]}'),
    ("VARCHAR(5)", "12345", "12345"),
    ("VARCHAR(5)", "123456", None),
    ("DATE", "2026-03-29", "2026-03-29"),
    ("DATE", "2026-03-29T00:00:00Z", "2026-03-29"),
    ("DATE", "2026-03-29T01:30:00Z", None),
    ("DATE", "tomorrow", None),
    ("TIMESTAMP", "2026-03-29T02:30:00+02:00", "2026-03-29 00:30:00"),
    ("TIMESTAMP", "2026-03-29 02:30:00", "2026-03-29 02:30:00"),
    ("TIMESTAMP", 1774744200, None),
    ("JSON", {"b": [1, None, "x"]}, {"b": [1, None, "x"]}),
    ("JSON", "text", "text"),
    ("JSON", 1.5, 1.5),
    ("TEXT", 9007199254740993, "9007199254740993"),
    ("TEXT", Decimal("12345678901234567890.12"), "12345678901234567890.12"),
    ("TEXT", {"n": Decimal("12345678901234567890.12")}, '{"n":12345678901234567890.12}'),
    ("TIME", "23:59", "23:59:00"),
    ("TIME", "noon", None),
]
POSTGRESQL = [
    ("SMALLINT", 32767, 32767),
    ("SMALLINT", 32768, None),
    ("INTEGER", 2**31, None),
    ("NUMERIC(6,2)", 12.345, "12.35"),
    ("NUMERIC(6,2)", 12345.6, None),
    ("NUMERIC", "0.12345678901234567890123456789", "0.12345678901234567890123456789"),
    ("NUMERIC(30,10)", Decimal("12345678901234567890.123456789"), "12345678901234567890.1234567890"),
    ("NUMERIC(3,-2)", 12345, "12300"),
    ("NUMERIC(20,2)", 9007199254740993, "9007199254740993.00"),
    ("NUMERIC", "1e400", "1" + "0" * 400),
    ("REAL", 0.123456789, 0.12345679),
    ("REAL", 1e300, None),
    ("TIMESTAMP(0)", "2026-03-29T02:30:00.7Z", "2026-03-29 02:30:01"),
    ("TIMESTAMPTZ(3)", "2026-03-29T02:30:00.1239Z", "2026-03-29 02:30:00.124000+00:00"),
    ("TIME(0)", "10:11:12.9", "10:11:13"),
    ("JSONB", {"no nul": "\\u0000"}, {"no nul": "\\u0000"}),
    ("INTEGER[]", [[1, 2], [3, None]], [[1, 2], [3, None]]),
    ("INTEGER[]", [[1, 2], [3]], None),
    ("JSONB[]", [[1], {"a": None}], [[1], {"a": None}]),
    ("short", "abc", "abc"),
    ("short", "abcd", None),
    ("short", "no", None),
    ("price", 12.345, "12.35"),
    ("price", 12345.6, None),
    ("BIT(3)", "101", "101"),
    ("BIT(3)", "1010", None),
    ("TIMESTAMPTZ", "2026-03-29T02:30:00+02:00", "2026-03-29 00:30:00+00:00"),
    ("TIME", "23:59:59", "23:59:59"),
    ("JSONB", {"b": [1, None, "x"]}, {"b": [1, None, "x"]}),
    ("JSONB", {"nul": "a\0b"}, None),
    ("UUID", "00000000-0000-0000-0000-00000000000A", "00000000-0000-0000-0000-00000000000a"),
    ("UUID", "no", None),
    ("INTEGER[]", [1, None, 3], [1, None, 3]),
    ("TEXT[]", ['a"b', "c\\d", "{e}", "NULL", ""], ['a"b', "c\\d", "{e}", "NULL", ""]),
    ("TEXT[]", "no array", None),
    ("BYTEA", "text", None),
    ("INET", "10.0.0.1", "10.0.0.1"),
    ("INET", "10.0.0.256", None),
]


def stored(database: Database, column: str) -> Any:
    """Return what is in the column, as plain as the type allows."""
    [(value,)] = database.run("SELECT v FROM typed")
    if database.kind != "postgresql" and column in ("JSON", "BOOLEAN"):
        return json.loads(str(value)) if column == "JSON" else bool(value)
    return value if isinstance(value, int | float | str | list | dict) else str(value)


@pytest.mark.parametrize(("column", "value", "there"), FITS)
def test_a_value_becomes_what_its_column_takes_or_fails(
    database: Database, column: str, value: Any, there: Any
) -> None:
    if (database.kind, column, value) == ("mariadb", "BOOLEAN", 2):
        there = True  # its booleans are numbers
    put(database, column, value, there)


@pytest.mark.parametrize(("column", "value", "there"), POSTGRESQL)
def test_the_types_of_postgresql(column: str, value: Any, there: Any) -> None:
    with postgres.database() as (url, connection):

        def run(statement: str) -> list[tuple[Any, ...]]:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

        run("SET TIME ZONE 'UTC'")
        run("CREATE DOMAIN short AS VARCHAR(3) CHECK (value <> 'no')")
        run("CREATE DOMAIN price AS NUMERIC(6,2)")
        put(Database("postgresql", url, run), column, value, there)


def put(database: Database, column: str, value: Any, there: Any) -> None:
    """Write a value into a column of a type, and look at what is there: twice, since the second time it is there already."""
    database.run(f"CREATE TABLE typed (id INTEGER PRIMARY KEY, v {column})")
    database.run("INSERT INTO typed (id) VALUES (1)")
    options: dict[str, Any] = {"table": "typed", "set_": {"v": "json.v"}}
    [outcome] = database.write(answer(1, json={"v": value}), **options)
    if there is None:
        assert outcome.kind in ("failed", "refused")  # by what nura knows of the type, or by the database
        assert outcome.reason
        assert database.run("SELECT v FROM typed") == [(None,)]
        return
    assert outcome == RowOutcome("written")
    assert stored(database, column) == there
    assert database.kinds(answer(1, json={"v": value}), **options) == ["unchanged"]


# --- keys


def test_keys_may_be_text_or_composite(database: Database) -> None:
    database.run("CREATE TABLE k (tenant VARCHAR(20), n INTEGER, a TEXT, PRIMARY KEY (tenant, n))")
    database.run("INSERT INTO k (tenant, n) VALUES ('x', 1), ('x', 2), ('y', 1)")
    options: dict[str, Any] = {"table": "k", "where": {"tenant": "key[0]", "n": "key[1]"}}
    assert database.kinds(answer(["x", 1], "x1"), answer(["y", 1], "y1"), answer(["y", 2]), **options) == [
        "written",
        "written",
        "gone",
    ]
    assert database.run("SELECT tenant, n, a FROM k ORDER BY 1, 2") == [("x", 1, "x1"), ("x", 2, None), ("y", 1, "y1")]


def test_a_key_may_be_written_as_text_or_as_a_number(table: Database) -> None:
    assert table.kinds(answer("1"), answer(2), answer("three")) == ["written", "written", "failed"]


def test_a_key_that_is_null_finds_no_row_and_never_all_of_them(table: Database) -> None:
    [outcome] = table.write(answer(None))
    assert outcome.kind == "failed"
    assert table.run("SELECT count(*) FROM t WHERE a IS NOT NULL") == [(0,)]


def test_a_number_that_is_the_key_of_a_column_of_times_stops_no_other_row(database: Database) -> None:
    database.run(f"CREATE TABLE k (at {'DATETIME' if database.kind == 'sqlite' else 'TIMESTAMP'} PRIMARY KEY, a TEXT)")
    database.run("INSERT INTO k (at) VALUES ('2026-01-02 03:04:05')")
    more_than_a_double = msgspec.Raw(b"12345678901234567.5")
    options: dict[str, Any] = {"table": "k", "where": {"at": "key"}}
    odd, plain = database.kinds(answer(more_than_a_double), answer("2026-01-02 03:04:05"), **options)
    assert odd in ("failed", "gone")  # by the type of the column, or since there is no such row
    assert plain == "written"


# --- hostile names and answers

NAMES = [
    'quo"te',
    "semi; DROP TABLE t --",
    "select",
    "per%cent",
    "per%(x)s",
    "co:lon",
    "ünïcode",
    "with space",
    "v0",
    "dot.ted",
    "new\nline",
]


@pytest.mark.parametrize("name", NAMES)
def test_hostile_names_are_only_names(database: Database, name: str) -> None:
    if database.kind == "mariadb" and "\n" in name:
        return  # SQLAlchemy reads what MySQL's SHOW CREATE TABLE says line by line
    quoted = '"' + name.replace('"', '""') + '"'
    database.run(f'CREATE TABLE {quoted} ({quoted} INTEGER PRIMARY KEY, {quoted[:-1]}2" TEXT)')
    database.run(f"INSERT INTO {quoted} ({quoted}) VALUES (1)")
    options: dict[str, Any] = {"table": name, "where": {name: "key"}, "set_": {f"{name}2": "text"}}
    assert database.kinds(answer(1, "here"), **options) == ["written"]
    assert database.run(f'SELECT {quoted[:-1]}2" FROM {quoted}') == [("here",)]


TEXTS = [
    "'; DROP TABLE t; --",
    '"quoted"',
    "\x1b[31mred\x1b[0m",
    "back\\slash",
    "%s %(a)s :a ?",
    "line\r\n\u2028",
    "𝄞 é",
    "x" * 1_000_000,
    "",
]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:12]))
def test_hostile_answers_are_only_text(table: Database, text: str) -> None:
    assert table.kinds(answer(1, text)) == ["written"]
    assert table.run("SELECT a FROM t WHERE id = 1") == [(text,)]
    assert table.run("SELECT count(*) FROM t") == [(5,)]


def test_characters_that_no_text_can_hold_fail_alone(table: Database) -> None:
    outcomes = table.write(answer(1), answer(2, "nul\0"), answer(3, "half \ud800"))
    nul = "failed" if table.kind == "postgresql" else "written"
    assert [outcome.kind for outcome in outcomes] == ["written", nul, "failed"]
    assert "surrogate" in (outcomes[2].reason or "")


def test_a_reason_shows_nothing_of_a_terminals(table: Database) -> None:
    [outcome] = table.write(answer(1, "\x1b[2J" + "y" * 5000), set_={"n": "text"})
    assert outcome.kind == "failed"
    assert (outcome.reason or "").isprintable()
    assert len(outcome.reason or "") < 400


@pytest.mark.parametrize(
    "deep", ["[" * 950 + "]" * 950, '{"a":' * 950 + '"\\u0000"' + "}" * 950, "[" * 2000 + "]" * 2000]
)
@pytest.mark.parametrize("expression", ["json", "json.a", "to_string(json)", "[json, response]"])
@pytest.mark.parametrize("column", ["TEXT", "JSON"])
def test_an_answer_that_is_nested_too_deeply_fails_alone_if_at_all(
    database: Database, column: str, expression: str, deep: str
) -> None:
    database.run(f"CREATE TABLE t (id INTEGER PRIMARY KEY, a {'LONGTEXT' if database.kind == 'mariadb' else column})")
    database.run("INSERT INTO t (id) VALUES (1), (2)")
    documents = [answer(1, json=msgspec.Raw(deep.encode())), answer(2, json=msgspec.Raw(b'{"a": 1}'))]
    for second in ("written", "unchanged"):
        outcomes = database.write(*documents, set_={"a": expression}, nullable=["a"])
        assert outcomes[1].kind == second
        assert outcomes[0].kind in ("failed", "unchanged", second)
        assert outcomes[0].kind != "failed" or re.search("nested|NUL", outcomes[0].reason or "")


def test_a_number_that_nothing_holds_fails_alone(table: Database) -> None:
    documents = [answer(1, json=msgspec.Raw(b"9" * 5000)), answer(2, json=msgspec.Raw(b"7"))]
    assert table.kinds(*documents, set_={"n": "json"}) == ["failed", "written"]


# --- what is wrong is found before anything is sent


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"table": "tt"}, "write_back.table: the database has no table tt, did you mean t"),
        ({"set_": {"aa": "text"}}, "write_back.set.aa: table t has no column aa"),
        ({"where": {"idd": "key"}}, "write_back.where.idd: table t has no column idd, did you mean id"),
        ({"only_if": {"x": "key"}}, "write_back.only_if.x"),
        (
            {"set_": {"a": "txt"}},
            "write_back.set.a: txt begins at txt, and an answer has no such field, did you mean text",
        ),
        ({"set_": {"a": "json.[["}}, "write_back.set.a: json.[[ is not JMESPath"),
        ({"set_": {"a": "{{ text }}"}}, "is not JMESPath: an expression is no template, so write text without braces"),
        ({"set_": {"a": "&text"}}, "write_back.set.a: &text has an expression (&) where a value is meant"),
        ({"set_": {"a": "shout(text)"}}, "calls shout(), and JMESPath has no such function"),
        ({"nullable": ["b"]}, "write_back.nullable: b is not set"),
        ({"where": {}}, "without it every row would be written"),
        ({"set_": {}}, "name at least one column to write"),
        ({"ledger": "log"}, "write_back.ledger: no table log; create it with: CREATE TABLE log"),
        ({"ledger": "t"}, "needs the columns uid and written_at"),
        ({"where": {"id": "key", "n": "`0`"}, "set_": {"n": "`1`"}}, "write_back.where.n: is set, too"),
    ],
)
def test_a_typing_error_is_found_at_its_option(table: Database, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        table.write(answer(1), **options)
    assert said in str(caught.value)
    assert table.run("SELECT count(*) FROM t WHERE a IS NOT NULL") == [(0,)]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("uid VARCHAR(255), written_at VARCHAR(40)", "needs uid as its primary key"),
        ("uid VARCHAR(20) PRIMARY KEY, written_at VARCHAR(40)", "needs a column uid that takes 64 characters"),
        ("uid INTEGER PRIMARY KEY, written_at VARCHAR(40)", "needs a column uid that takes 64 characters"),
        ("uid VARCHAR(64) PRIMARY KEY, written_at INTEGER", "needs a column written_at that takes a time"),
        ("uid VARCHAR(64) PRIMARY KEY, written_at DATE, who INTEGER NOT NULL", "needs a default for who"),
    ],
)
def test_a_table_that_cannot_be_a_ledger_is_found_before_anything_is_paid_for(
    table: Database, columns: str, said: str
) -> None:
    table.run(f"CREATE TABLE log ({columns})")
    with table.write_back(ledger="log") as write_back, pytest.raises(ConfigError) as caught:
        write_back.check()
    assert f"write_back.ledger: table log {said}" in str(caught.value)


def test_a_view_that_cannot_be_written_is_found_too(table: Database) -> None:
    table.run("CREATE VIEW counted AS SELECT id, max(a) AS a FROM t GROUP BY id")
    with table.write_back(table="counted") as write_back, pytest.raises(ConfigError):
        write_back.check()


def test_a_column_that_the_database_computes_cannot_be_set(table: Database) -> None:
    kind = "STORED" if table.kind == "postgresql" else "VIRTUAL"
    table.run(f"ALTER TABLE t ADD COLUMN twice INTEGER GENERATED ALWAYS AS (n * 2) {kind}")
    with pytest.raises(ConfigError, match="the database computes this column itself"):
        table.write(answer(1), set_={"twice": "key"})


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///nowhere/app.db", "no database at"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("nonsense", "URL cannot be read"),
        ("oracle+nope://host/db", "cannot be read"),
    ],
)
def test_a_database_that_cannot_be_is_a_matter_of_configuration(url: str, said: str) -> None:
    with (
        pytest.raises(ConfigError, match=said),
        WriteBack(url, table="t", where={"id": "key"}, set_={"a": "text"}) as table,
    ):
        table.check()
    assert not Path("nowhere").exists()


def test_checking_writes_nothing(table: Database) -> None:
    with table.write_back() as write_back:
        write_back.check()
    assert table.run("SELECT count(*) FROM t WHERE a IS NULL") == [(5,)]


def test_a_view_that_can_be_written_is_as_good_as_a_table(table: Database) -> None:
    table.run("CREATE VIEW seen AS SELECT id, a FROM t")
    if table.kind == "sqlite":
        table.run(
            "CREATE TRIGGER through INSTEAD OF UPDATE ON seen BEGIN UPDATE t SET a = new.a WHERE id = old.id; END"
        )
        with table.write_back(table="seen") as write_back:
            write_back.write([answer(1, "through")], NOW)
    else:
        assert table.kinds(answer(1, "through"), table="seen") == ["written"]
    assert table.run("SELECT a FROM t WHERE id = 1") == [("through",)]


# --- the ledger: exactly once


@pytest.fixture
def counted(table: Database) -> Database:
    """The table, a ledger, and a trigger that counts the writes of each row."""
    stamp = "TIMESTAMPTZ" if table.kind == "postgresql" else "TEXT"
    table.run(f"CREATE TABLE log (uid VARCHAR(255) PRIMARY KEY, written_at {stamp} NOT NULL)")
    table.run("CREATE TABLE effects (id INTEGER)")
    table.trigger("AFTER UPDATE ON t", "INSERT INTO effects VALUES (new.id)")
    return table


def test_with_a_ledger_a_delivery_that_was_made_is_made_no_second_time(counted: Database) -> None:
    documents = [answer(i, delivery_id=f"d{i}") for i in range(3)]
    assert counted.kinds(*documents, ledger="log") == ["written"] * 3
    counted.run("UPDATE t SET a = 'edited since' WHERE id = 1")
    assert counted.kinds(*documents, ledger="log") == ["unchanged"] * 3
    assert counted.run("SELECT a FROM t WHERE id = 1") == [("edited since",)]
    assert counted.run("SELECT count(*) FROM log") == [(3,)]


def test_what_was_not_written_is_not_in_the_ledger(counted: Database) -> None:
    documents = [answer(1, delivery_id="d1"), answer(99, delivery_id="d99"), answer(2, None, delivery_id="d2")]
    assert counted.kinds(*documents, ledger="log") == ["written", "gone", "failed"]
    assert counted.run("SELECT uid FROM log") == [("d1",)]


def test_a_write_that_is_swallowed_is_not_in_the_ledger(counted: Database) -> None:
    swallowing = {
        "sqlite": "SELECT RAISE(IGNORE) WHERE new.id = 2",
        "postgresql": "IF new.id = 2 THEN RETURN NULL; END IF",
    }
    if counted.kind not in swallowing:
        return  # its triggers cannot
    counted.run("DROP TRIGGER x" if counted.kind == "sqlite" else "DROP FUNCTION x CASCADE")
    counted.trigger("BEFORE UPDATE ON t", swallowing[counted.kind])
    outcomes = counted.write(*(answer(i, delivery_id=f"d{i}") for i in range(4)), ledger="log")
    assert [outcome.kind for outcome in outcomes] == ["written", "written", "refused", "written"]
    assert outcomes[2].reason == TOOK
    assert counted.run("SELECT uid FROM log ORDER BY uid") == [("d0",), ("d1",), ("d3",)]


@pytest.mark.parametrize("silently", [True, False])
def test_a_delivery_that_the_ledger_will_not_enter_is_not_made(counted: Database, silently: bool) -> None:
    raised = {"sqlite": ("IGNORE", "ABORT, 'no'"), "postgresql": ("RETURN NULL", "RAISE 'no'"), "mariadb": ("", "")}
    does = raised[counted.kind][0 if silently else 1]
    if counted.kind == "mariadb" and silently:
        return  # its triggers cannot
    refusing = {
        "sqlite": f"SELECT RAISE({does}) WHERE new.uid = 'd2'",
        "postgresql": f"IF new.uid = 'd2' THEN {does}; END IF",
        "mariadb": "IF new.uid = 'd2' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'; END IF",
    }
    counted.run("DROP FUNCTION x CASCADE" if counted.kind == "postgresql" else "DROP TRIGGER x")
    counted.trigger("BEFORE INSERT ON log", refusing[counted.kind])
    outcomes = counted.write(*(answer(i, delivery_id=f"d{i}") for i in range(4)), ledger="log")
    assert [outcome.kind for outcome in outcomes] == ["written", "written", "refused", "written"]
    assert (outcomes[2].reason or "").startswith("the ledger")
    assert counted.run("SELECT id FROM t WHERE a IS NULL ORDER BY id") == [(2,), (4,)]


def _writer(url: str, start: Any, n: int, ledger: str | None) -> None:
    start.wait(30)
    with WriteBack(url, table="t", where={"id": "key"}, set_={"a": "text"}, ledger=ledger) as table:
        for _ in range(3):
            try:
                table.write([answer(i, f"text {i}", delivery_id=f"d{i}") for i in range(n)], NOW)
            except DatabaseDown:
                continue


@pytest.mark.parametrize("ledger", [None, "log"])
def test_two_runs_at_once_leave_what_one_leaves(counted: Database, ledger: str | None) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Event()
    url = counted.url.replace("timeout=0.2", "timeout=20")
    runs = [context.Process(target=_writer, args=(url, start, 5, ledger)) for _ in range(2)]
    for run in runs:
        run.start()
    start.set()
    for run in runs:
        run.join(60)
        assert run.exitcode == 0
    assert counted.run("SELECT id, a FROM t ORDER BY id") == [(i, f"text {i}") for i in range(5)]
    assert counted.run("SELECT count(*) FROM effects") == [(5,)]


# --- a database that cannot be used now


def test_a_row_that_somebody_holds_is_refused_for_now_and_the_others_are_written(
    table: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite has one lock for all of its rows: there it is the database that cannot be used."""
    monkeypatch.setattr(database_module, "LOCK_SECONDS", 1)
    documents = [*map(answer, range(5))]
    table.run("BEGIN IMMEDIATE" if table.kind == "sqlite" else "BEGIN")
    table.run("UPDATE t SET n = 1 WHERE id = 2")
    if table.kind == "sqlite":
        with pytest.raises(DatabaseDown), table.write_back() as write_back:
            write_back.write(documents, NOW)
    else:
        assert table.kinds(*documents) == ["written", "written", "refused", "written", "written"]
        assert table.kinds(answer(2)) == ["refused"]
    table.run("ROLLBACK")
    again = "written" if table.kind == "sqlite" else "unchanged"
    assert table.kinds(*documents) == [again, again, "written", again, again]


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """A PostgreSQL table of a hundred rows, and locks that are not waited for long."""
    monkeypatch.setattr(database_module, "LOCK_SECONDS", "0.05")
    monkeypatch.setattr(statements_module, "_WAIT_AGAIN", "10ms")
    monkeypatch.setattr(statements_module, "_MOST_IN_VAIN", 20)
    with postgresql() as database:
        database.run("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)")
        database.run("INSERT INTO t (id) SELECT generate_series(0, 99)")
        yield database


def test_a_table_that_is_locked_whole_delays_the_chunk(many: Database) -> None:
    with many.write_back() as write_back:
        write_back.check()
        many.run("BEGIN; LOCK TABLE t")
        with pytest.raises(DatabaseDown, match="lock timeout"):
            write_back.write([*map(answer, range(100))], NOW)
        many.run("ROLLBACK")
        assert {outcome.kind for outcome in write_back.write([*map(answer, range(100))], NOW)} == {"written"}


def test_of_many_rows_that_somebody_holds_some_are_not_even_tried(many: Database) -> None:
    many.run("BEGIN; SELECT FROM t WHERE id BETWEEN 20 AND 79 FOR UPDATE")
    kinds = many.kinds(*map(answer, range(100)))
    assert set(kinds[:12]) == {"written"}
    assert set(kinds) == {"written", "refused", "later"}
    many.run("ROLLBACK")
    assert many.kinds(*map(answer, range(100)))[50:] == ["written"] * 50


def test_a_full_database_delays_the_chunk(table: Database) -> None:
    if table.kind == "mariadb":
        return  # it has no limit of its own that a test could set
    if table.kind == "sqlite":
        pages = table.run("PRAGMA page_count")[0][0]
        with table.write_back() as write_back:
            write_back.check()
            limited(write_back, pages)
            with pytest.raises(DatabaseDown, match="full"):
                write_back.write([answer(i, "x" * 100_000) for i in range(5)], NOW)
    else:
        table.run("CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE disk_full; END $$")
        table.run("CREATE TRIGGER no_room BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION no_room()")
        with pytest.raises(DatabaseDown):
            table.write(answer(1))
        table.run("DROP TRIGGER no_room ON t")
    assert table.run("SELECT count(*) FROM t WHERE a IS NOT NULL") == [(0,)]
    assert table.kinds(*(answer(i) for i in range(5))) == ["written"] * 5


def test_no_connection_stays_open_whatever_went_wrong(table: Database) -> None:
    if table.kind == "postgresql":
        table.trigger("BEFORE UPDATE ON t", "IF new.id = 1 THEN RAISE disk_full; END IF")
    else:
        table.refusing("new.id = 1", "no")
    before = table.open_connections()
    wrong: dict[str, Any] = {"a table that is not there": {"table": "tt"}, "no ledger": {"ledger": "log"}}
    for options in wrong.values():
        with pytest.raises(ConfigError):
            table.write(answer(1), **options)
    with table.write_back() as write_back, suppress(DatabaseDown):
        write_back.write([answer(0), answer(1)], NOW)
    table.run("BEGIN IMMEDIATE" if table.kind == "sqlite" else "BEGIN")
    table.run("UPDATE t SET n = 1 WHERE id = 2")
    with table.write_back() as write_back, suppress(DatabaseDown):
        write_back.write([answer(2)], NOW)
    table.run("ROLLBACK")
    deadline = time.monotonic() + 30
    while table.open_connections() > before and time.monotonic() < deadline:
        time.sleep(0.02)  # a server notices a moment later that a connection was closed
    assert table.open_connections() == before


def limited(write_back: WriteBack, pages: int) -> None:
    """Let the database grow no further: its own limit, in the connections of this write-back."""
    from sqlalchemy import event

    engine = write_back._engine
    engine.dispose()
    event.listen(engine, "connect", lambda connection, record: connection.execute(f"PRAGMA max_page_count = {pages}"))


def test_rows_that_are_too_slow_together_are_written_in_smaller_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a trigger that takes its time: a part that never got through would never be written at all."""
    monkeypatch.setattr(database_module, "STATEMENT_SECONDS", 1)
    with postgres.database() as (url, connection):
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)")
        connection.execute("INSERT INTO t (id) SELECT generate_series(1, 8)")
        connection.execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_sleep(0.2); RETURN new; END $$"
        )
        connection.execute("CREATE TRIGGER slow BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION slow()")
        with WriteBack(url, table="t", where={"id": "key"}, set_={"a": "text"}) as table:
            outcomes = table.write([answer(i) for i in range(1, 9)], NOW)
        assert {outcome.kind for outcome in outcomes} == {"written"}


def test_a_server_that_stops_and_comes_back_loses_nothing() -> None:
    server = postgres.server()
    with postgres.database() as (url, connection):
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)")
        connection.execute("INSERT INTO t (id) VALUES (1), (2)")
        connection.close()
        with WriteBack(url, table="t", where={"id": "key"}, set_={"a": "text"}) as table:
            table.check()
            server.stop()
            with pytest.raises(DatabaseDown):
                table.write([answer(1)], NOW)
            server.start()
            assert [outcome.kind for outcome in table.write([answer(1), answer(2)], NOW)] == ["written", "written"]


def test_a_connection_that_is_cut_in_the_middle_writes_nothing_of_the_chunk() -> None:
    with postgres.database() as (url, connection):
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)")
        connection.execute("INSERT INTO t (id) SELECT generate_series(1, 100)")
        connection.execute(
            "CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF new.id = 50 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN new; END $$"
        )
        connection.execute("CREATE TRIGGER cut BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION cut()")
        with WriteBack(url, table="t", where={"id": "key"}, set_={"a": "text"}) as table:
            with pytest.raises(DatabaseDown):
                table.write([answer(i) for i in range(1, 101)], NOW)
            assert connection.execute("SELECT count(*) FROM t WHERE a IS NOT NULL").fetchone() == (0,)
            connection.execute("DROP TRIGGER cut ON t")
            assert {outcome.kind for outcome in table.write([answer(i) for i in range(1, 101)], NOW)} == {"written"}


def test_a_password_is_in_no_message(tmp_path: Path) -> None:
    url = f"postgresql://me:hunter2-secret@/none?host={tmp_path}"
    with (
        WriteBack(url, table="t", where={"id": "key"}, set_={"a": "text"}) as table,
        pytest.raises(DatabaseDown) as caught,
    ):
        table.check()
    assert "hunter2" not in repr(caught.value) + str(caught.value) + repr(caught.value.__cause__)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(f"host={tmp_path}", connect_timeout=1)


# --- MySQL and MariaDB: the same code, as far as it can be seen without a server


def test_the_statements_for_mysql_can_be_made() -> None:
    import sqlalchemy as sa

    from nura_cli.delivery.database import open_engine
    from nura_cli.delivery.statements import EachRow, Slot, Slots

    engine = open_engine("mysql://user@127.0.0.1/app")
    columns = sa.Column("id", sa.Integer), sa.Column("a%", sa.Text), sa.Column("n", sa.Integer)
    slot = {name: Slot(name, lambda document: None) for name in ("id", "a%", "n")}
    slots = Slots([slot["id"]], [slot["n"]], [slot["a%"]])
    writer = EachRow(engine, sa.Table("t", sa.MetaData(), *columns), slots)
    assert writer._update.startswith("UPDATE t SET `a%%`=%s WHERE t.id = %s")
    assert "<=>" in writer._update
    assert writer._update_values((1, 2, 3)) == (3, 1, 2, 3)


# --- tables that SQLite makes up


FULL_TEXT = {
    "fts5": "CREATE VIRTUAL TABLE x USING fts5(body, summary UNINDEXED)",
    "fts5 of trigrams": "CREATE VIRTUAL TABLE x USING fts5(body, summary, tokenize='trigram')",
    "fts4": "CREATE VIRTUAL TABLE x USING fts4(body, summary)",
    "a table without a key": "CREATE TABLE x (body, summary)",
}


@pytest.mark.parametrize("create", FULL_TEXT.values(), ids=FULL_TEXT)
@pytest.mark.parametrize("where", ["rowid", "_rowid_", "oid"])
def test_a_full_text_table_is_written_by_its_row_ids(tmp_path: Path, create: str, where: str) -> None:
    with opened("sqlite", tmp_path) as database:
        database.run(create)
        database.run("INSERT INTO x (rowid, body) VALUES (7, 'seven'), (8, 'eight')")
        options: dict[str, Any] = {"table": "x", "where": {where: "key"}, "set_": {"summary": "text"}}
        documents = [answer(7), answer(99)]
        assert database.kinds(*documents, **options, only_if={"body": "'seven'"}) == ["written", "gone"]
        assert database.kinds(*documents, **options) == ["unchanged", "gone"]
        assert database.run("SELECT rowid, body, summary FROM x ORDER BY 1") == [
            (7, "seven", "done"),
            (8, "eight", None),
        ]


def test_a_full_text_table_is_written_by_a_column_of_its_own(tmp_path: Path) -> None:
    with opened("sqlite", tmp_path) as database:
        database.run("CREATE VIRTUAL TABLE x USING fts5(id UNINDEXED, body, summary)")
        database.run("INSERT INTO x (id, body) VALUES (1, 'one'), (2, 'two')")
        options: dict[str, Any] = {"table": "x", "where": {"id": "key"}, "set_": {"summary": "text"}}
        assert database.kinds(answer(2), **options) == ["written"]
        assert database.run("SELECT id FROM x WHERE x MATCH 'done'") == [(2,)]


@pytest.mark.parametrize(
    "create", ["CREATE TABLE x (id TEXT PRIMARY KEY, a) WITHOUT ROWID", "CREATE VIEW x AS SELECT 1 AS a"]
)
def test_where_there_are_no_row_ids_none_is_made_up(tmp_path: Path, create: str) -> None:
    with opened("sqlite", tmp_path) as database:
        database.run(create)
        with pytest.raises(ConfigError, match="table x has no column rowid"):
            database.write(answer(1), table="x", where={"rowid": "key"})


def test_a_generated_column_finds_a_row_and_is_never_set(database: Database) -> None:
    stored = "GENERATED ALWAYS AS (id * 2) STORED"
    database.run(f"CREATE TABLE t (id INTEGER PRIMARY KEY, twice INTEGER {stored}, a TEXT)")
    database.run("INSERT INTO t (id) VALUES (7), (8)")
    assert database.kinds(answer(14), where={"twice": "key"}) == ["written"]
    assert database.run("SELECT id, a FROM t ORDER BY id") == [(7, "done"), (8, None)]
    with pytest.raises(ConfigError, match=r"set\.twice: the database computes this column itself"):
        database.write(answer(7), set_={"twice": "key"})
