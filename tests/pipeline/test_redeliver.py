"""What was given up is delivered again, or closed for good; never an older answer over a newer one."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from nura_cli import clock
from nura_cli.pipeline.deliver import MOST_TRIES
from nura_cli.state import State, locks, outbox
from tests.conftest import Spool, cron_environment
from tests.databases import KINDS, Database, opened
from tests.pipeline.forks import completed

pytestmark = pytest.mark.long

WRITE_BACK = {"database": "app", "table": "t", "where": {"id": "key"}, "set": {"a": "text"}}
LEDGER = {**WRITE_BACK, "ledger": "log"}
EACH_DATABASE = pytest.mark.parametrize("app", KINDS, indirect=True)


@pytest.fixture
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """The application's database: three rows that want a text, and a ledger."""
    with opened(getattr(request, "param", "sqlite"), tmp_path) as database:
        database.run("CREATE TABLE t (id INTEGER PRIMARY KEY, a VARCHAR(3))")
        database.run("INSERT INTO t (id) VALUES (0), (1), (2)")
        database.run("CREATE TABLE log (uid VARCHAR(255) PRIMARY KEY, written_at VARCHAR(40) NOT NULL)")
        yield database


@pytest.fixture
def ended(openai_spool: Spool, app: Database) -> Spool:
    """A spool whose three answers lie downloaded; a command is told of everything, unless there is a file ``no``."""
    openai_spool.databases["app"] = {"url": app.url}
    script = openai_spool.folder / "tell"
    script.write_text(
        f"#!/bin/sh\nif [ -e {openai_spool.folder}/no ]; then exit 1; fi\ncat >> {openai_spool.folder}/told.jsonl\n"
    )
    script.chmod(0o755)
    types = ["task.completed", "batch.completed"]
    openai_spool.set(write_back=WRITE_BACK, events=[{"types": types, "command": ["./tell"]}])
    openai_spool.fill(3)
    openai_spool.dispatch()
    openai_spool.poll()
    return openai_spool


def wide(app: Database) -> None:
    """Give the column the room that answers need."""
    app.run("ALTER TABLE t DROP COLUMN a")
    app.run("ALTER TABLE t ADD COLUMN a TEXT")


@contextmanager
def state_file(spool: Spool) -> Iterator[sqlite3.Connection]:
    """Give the state file itself, for what takes days, or goes wrong."""
    with closing(sqlite3.connect(spool.state_path, isolation_level=None)) as db:
        yield db


def until_given_up(spool: Spool) -> None:
    """Let cron run until nothing is tried any more; most of the day in which it is tried is left out."""
    for _ in range(8):
        spool.reconcile()
        with state_file(spool) as db:
            left = db.execute(
                "UPDATE deliveries SET tries = ?, not_before = 0 WHERE status = 'pending'", (MOST_TRIES - 1,)
            ).rowcount
        if not left:
            return
    raise AssertionError("something is still tried")


def told(spool: Spool) -> list[dict[str, Any]]:
    """Return what the command was told of tasks, in order."""
    path = spool.folder / "told.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [event for event in events if event["type"] != "batch.completed"]


def texts(app: Database) -> dict[int, str]:
    """Return what stands in the rows."""
    return dict(app.run("SELECT id, a FROM t WHERE a IS NOT NULL"))


def due(rows: int = 0, events: int = 0) -> dict[str, dict[str, int]]:
    """Return the counts of a run that has done nothing but make due."""
    return {name: {"due": n, "superseded": 0, "dropped": 0} for name, n in (("rows", rows), ("events", events))}


# --- what was given up


@EACH_DATABASE
def test_rows_whose_column_was_too_short_are_written_once_it_is_altered(ended: Spool, app: Database) -> None:
    until_given_up(ended)
    assert texts(app) == {}
    assert {line["row"] for line in ended.results()} == {"failed"}
    assert all(line["row_error"] for line in ended.results())
    assert [event["data"]["row"] for event in told(ended)] == [None] * 3
    assert "nura redeliver echo --rows" in ended.status()["attention"][0]["hint"]
    wide(app)
    assert ended.redeliver(workloads=["echo"]).result == due(rows=3)
    assert {line["row"] for line in ended.results()} == {"waiting"}
    assert all(line["row_error"] for line in ended.results())
    assert ended.reconcile().result["rows"]["written"] == 3
    assert texts(app).keys() == {0, 1, 2}
    assert [(line["row"], line["row_error"]) for line in ended.results()] == [(None, None)] * 3
    assert ended.status()["attention"] == []
    assert ended.redeliver(workloads=["echo"]).result == due()


def test_the_event_that_told_of_a_row_given_up_is_told_anew_under_another_id(ended: Spool, app: Database) -> None:
    until_given_up(ended)
    first = told(ended)
    assert all(event["data"]["row_error"] for event in first)
    wide(app)
    ended.redeliver()
    ended.reconcile()
    again = told(ended)[3:]
    assert [event["id"] for event in again] == [f"{event['id']}-1" for event in first]
    assert [(event["data"]["row"], event["data"]["row_error"]) for event in again] == [("written", None)] * 3
    ended.reconcile()
    assert len(told(ended)) == 6


def test_a_row_that_is_given_up_once_more_is_not_told_of_once_more(ended: Spool, app: Database) -> None:
    until_given_up(ended)
    ended.redeliver()
    until_given_up(ended)
    assert len(told(ended)) == 3
    assert ended.status()["deliveries"]["echo"]["rows"] == {"pending": 0, "failed": 3}
    wide(app)
    ended.redeliver()
    ended.reconcile()
    assert [event["data"]["row"] for event in told(ended)[3:]] == ["written"] * 3


def test_a_receiver_that_was_gone_a_day_is_told_under_the_same_ids(ended: Spool, app: Database) -> None:
    wide(app)
    (ended.folder / "no").touch()
    until_given_up(ended)
    assert "nura redeliver echo --events" in ended.status()["attention"][0]["hint"]
    (ended.folder / "no").unlink()
    assert ended.redeliver("row").result == due()
    assert ended.redeliver("event").result == due(events=4)
    assert ended.redeliver("event").result == due()
    assert ended.reconcile().result["events"] == {"sent": 4, "delayed": 0, "dead": 0}
    [(tag,)] = ended.rows("SELECT tag FROM batches")
    assert [event["id"] for event in told(ended)] == [f"evt_{tag}-{n}" for n in (1, 2, 3)]


def test_an_event_is_not_sent_after_one_that_tells_what_became_of_the_row_since(ended: Spool, app: Database) -> None:
    (ended.folder / "no").touch()
    until_given_up(ended)
    wide(app)
    (ended.folder / "no").unlink()
    ended.redeliver("row")
    ended.reconcile()
    assert [event["data"]["row"] for event in told(ended)] == ["written"] * 3
    found = ended.redeliver("event").result["events"]
    assert found == {"due": 1, "superseded": 3, "dropped": 0}  # the one that is due is the batch's
    ended.reconcile()
    assert len(told(ended)) == 3


def test_what_is_due_again_has_all_its_tries_before_it(ended: Spool, app: Database) -> None:
    until_given_up(ended)
    ended.redeliver()
    assert ended.rows("SELECT DISTINCT status, tries, not_before FROM deliveries WHERE kind = 'row'") == [
        ("pending", 0, 0)
    ]


# --- the answer that stands


def test_a_row_of_a_replaced_record_is_closed_and_never_delivered(ended: Spool, app: Database) -> None:
    until_given_up(ended)
    wide(app)
    ended.enqueue({"id": 1, "text": "another"}, replace=True)
    assert ended.redeliver(workloads=["echo"]).result == due(rows=2)
    ended.reconcile()
    assert texts(app).keys() == {0, 2}
    ended.round()
    assert "another" in texts(app)[1]
    assert ended.redeliver("row", made=True).result == due(rows=3)
    ended.reconcile()
    assert "another" in texts(app)[1]


def test_of_a_task_that_is_run_again_the_answer_that_stands_is_delivered(ended: Spool, app: Database) -> None:
    until_given_up(ended)
    wide(app)
    ended.set(prompt="Say: {{ text }} once more")
    ended.retry(statuses=["completed"], keys=["1"])
    assert ended.redeliver("row").result == due(rows=3)
    ended.reconcile()
    old = texts(app)
    ended.round()
    assert {key for key in old if texts(app)[key] != old[key]} == {1}
    app.run("UPDATE t SET a = NULL")
    assert ended.redeliver("row", made=True).result == due(rows=3)
    new = ended.results(key="1")[0]["text"]
    ended.reconcile()
    assert texts(app)[1] == new != old[1]


def test_a_record_replaced_while_its_row_is_due_again_is_not_delivered(ended: Spool, app: Database) -> None:
    until_given_up(ended)
    wide(app)
    ended.redeliver()
    ended.enqueue({"id": 1, "text": "another"}, replace=True)
    assert ended.reconcile().result["rows"]["written"] == 2


def test_a_task_with_another_answer_by_now_gets_that_one_alone(ended: Spool, app: Database) -> None:
    until_given_up(ended)
    wide(app)
    with state_file(ended) as db:
        db.execute("UPDATE answers SET seq = seq + 100 WHERE task_id = 1")
    assert ended.redeliver("row").result["rows"] == {"due": 2, "superseded": 1, "dropped": 0}
    assert [line["row"] for line in ended.results()] == ["waiting", "waiting", None]


# --- what was delivered, and lost


@EACH_DATABASE
@pytest.mark.parametrize("write_back", [WRITE_BACK, LEDGER], ids=["plain", "ledger"])
def test_a_table_that_was_lost_is_written_once_more(ended: Spool, app: Database, write_back: dict[str, Any]) -> None:
    wide(app)
    ended.set(write_back=write_back)
    ended.reconcile()
    before = texts(app)
    billed = ended.rows("SELECT * FROM attempts")
    app.run("UPDATE t SET a = NULL")
    assert ended.redeliver().result == due()
    assert ended.redeliver("row", made=True).result == due(rows=3)
    assert app.run("SELECT count(*) FROM log") == [(0,)]
    assert ended.redeliver("row", made=True).result == due()
    assert ended.reconcile().result["rows"]["written"] == 3
    assert texts(app) == before
    assert app.run("SELECT count(*) FROM log") == [(3 if "ledger" in write_back else 0,)]
    assert len(told(ended)) == 3  # they were told that it is written, and it is
    assert ended.rows("SELECT * FROM attempts") == billed


def test_a_row_of_what_was_cancelled_before_it_was_sent_leaves_the_ledger_too(ended: Spool, app: Database) -> None:
    wide(app)
    app.run("INSERT INTO t (id) VALUES (7)")
    ended.set(write_back={**LEDGER, "set_cancelled": {"a": "error.kind"}})
    ended.enqueue({"id": 7, "text": "a typing error"})
    ended.cancel()
    ended.reconcile()
    assert texts(app)[7] == "cancelled"
    app.run("UPDATE t SET a = NULL")
    assert ended.redeliver("row", made=True).result == due(rows=4)
    ended.reconcile()
    assert texts(app)[7] == "cancelled"


def test_a_row_is_due_once_whatever_release_wrote_it(ended: Spool, app: Database) -> None:
    wide(app)
    ended.reconcile()
    with state_file(ended) as db:
        db.execute("UPDATE deliveries SET target = 'as an earlier release had it' WHERE kind = 'row'")
        columns = "kind, workload_id, target, type, task_id, batch_id, seq, status, outcome, created_at, done_at"
        db.execute(f"INSERT INTO deliveries ({columns}) SELECT {columns} FROM deliveries WHERE kind = 'row'")
    app.run("UPDATE t SET a = NULL")
    assert ended.redeliver("row", made=True).result == due(rows=3)
    assert ended.reconcile().result["rows"]["written"] == 3


def test_events_that_were_sent_keep_their_ids_and_wait_for_their_rows(ended: Spool, app: Database) -> None:
    wide(app)
    ended.reconcile()
    first = told(ended)
    assert ended.redeliver(made=True).result == due(rows=3, events=4)
    kept = app.run("SELECT * FROM t")
    app.run("ALTER TABLE t RENAME TO away")
    assert ended.reconcile().result["events"]["sent"] == 0
    app.run("ALTER TABLE away RENAME TO t")
    assert ended.reconcile().result["events"]["sent"] == 4
    assert told(ended)[3:] == first
    assert app.run("SELECT * FROM t") == kept


def test_a_row_that_is_gone_by_now_is_told_of(ended: Spool, app: Database) -> None:
    wide(app)
    ended.reconcile()
    app.run("DELETE FROM t WHERE id = 1")
    ended.redeliver("row", made=True)
    ended.reconcile()
    [event] = told(ended)[3:]
    assert (event["data"]["key"], event["data"]["row"]) == (1, "gone")


@EACH_DATABASE
def test_killed_after_the_ledger_forgot_it_is_run_again(ended: Spool, app: Database) -> None:
    wide(app)
    app.run("CREATE TABLE effects (id INTEGER)")
    app.trigger("AFTER UPDATE ON t", "INSERT INTO effects VALUES (new.id)")
    ended.set(write_back=LEDGER)
    ended.reconcile()
    with state_file(ended) as db:
        db.execute("CREATE TRIGGER x BEFORE UPDATE ON deliveries BEGIN SELECT RAISE(ABORT, 'as a crash would'); END")
    assert ended.redeliver("row", made=True).exit_code == 1
    assert app.run("SELECT count(*) FROM log") == [(0,)]
    assert ended.reconcile().result["rows"]["written"] == 0
    with state_file(ended) as db:
        db.execute("DROP TRIGGER x")
    app.run("UPDATE t SET a = 'lost'")
    app.run("DELETE FROM effects")
    assert ended.redeliver("row", made=True).result == due(rows=3)
    ended.reconcile()
    ended.reconcile()
    assert sorted(app.run("SELECT id FROM effects")) == [(0,), (1,), (2,)]
    assert app.run("SELECT count(*) FROM log") == [(3,)]


def test_a_ledger_that_keeps_its_entries_keeps_the_rows_as_they_are(ended: Spool, app: Database) -> None:
    wide(app)
    ended.set(write_back=LEDGER)
    ended.reconcile()
    app.run("CREATE TRIGGER keep BEFORE DELETE ON log BEGIN SELECT RAISE(IGNORE); END")
    report = ended.redeliver(made=True)
    assert report.exit_code == 78
    assert "ledger: table log does not let its entries be deleted" in report.problems[0].message
    assert report.result == due()
    assert app.run("SELECT count(*) FROM log") == [(3,)]


def test_a_database_that_is_down_keeps_its_rows_and_not_those_of_others(ended: Spool, app: Database) -> None:
    wide(app)
    ended.set(write_back=LEDGER)
    ended.set("other", write_back=WRITE_BACK)
    ended.fill(1, workload="other")
    ended.round()
    app.run("BEGIN IMMEDIATE")
    report = ended.redeliver(made=True)
    assert report.exit_code == 3
    assert [(found.workload, found.exit_code) for found in report.problems] == [("echo", 75)]
    assert report.result["rows"]["due"] == 1
    app.run("ROLLBACK")
    assert ended.redeliver("row", made=True).result == due(rows=3)


def test_rows_whose_table_left_the_configuration_are_not_due_again(ended: Spool, app: Database) -> None:
    wide(app)
    ended.reconcile()
    del ended.workloads["echo"]["write_back"]
    ended.write_config()
    report = ended.redeliver(made=True)
    assert (report.exit_code, report.result) == (78, due())
    assert report.problems[0].hint == "put workloads.echo.write_back back first"


# --- what nobody is to get any more


def test_what_was_given_up_is_closed_for_good(ended: Spool, app: Database) -> None:
    (ended.folder / "no").touch()
    until_given_up(ended)
    report = ended.redeliver(drop=True)
    assert {name: found["dropped"] for name, found in report.result.items()} == {"rows": 3, "events": 4}
    assert ended.status()["attention"] == []
    assert {line["row"] for line in ended.results()} == {None}
    assert ended.redeliver(drop=True).result == due()
    assert ended.redeliver(made=True).result == due()
    assert not told(ended)


def test_rows_that_wait_for_a_table_that_was_taken_out_are_closed_and_their_events_follow(
    ended: Spool, app: Database
) -> None:
    del ended.workloads["echo"]["write_back"]
    ended.write_config()
    ended.reconcile()
    assert not told(ended)
    assert ended.status()["attention"][0]["hint"].endswith("; or nura redeliver echo --rows --drop")
    assert ended.redeliver(drop=True, keys=["1"]).result["rows"]["dropped"] == 1
    assert ended.redeliver("row", drop=True).result["rows"]["dropped"] == 2
    assert ended.reconcile().exit_code == 0
    assert {(event["data"]["row"], event["data"]["row_error"]) for event in told(ended)} == {
        (None, "closed by a person, and not written")
    }
    assert {event["data"]["key"] for event in told(ended)} == {0, 1, 2}


def test_events_of_a_receiver_that_was_taken_out_are_closed(ended: Spool, app: Database) -> None:
    wide(app)
    del ended.workloads["echo"]["events"]
    ended.write_config()
    ended.reconcile()
    assert ended.redeliver("row", drop=True).result == due()
    assert ended.redeliver(drop=True).result["events"] == {"due": 0, "superseded": 0, "dropped": 4}
    assert ended.reconcile().exit_code == 0


# --- which are meant


def test_only_what_is_chosen_is_due_again(ended: Spool, app: Database) -> None:
    (ended.folder / "no").touch()
    until_given_up(ended)
    assert ended.redeliver(workloads=["echo"], keys=["0"]).result == due(rows=1, events=1)
    assert ended.redeliver(batch_id=2).result == due()
    assert ended.redeliver(statuses=["failed"]).result == due()
    assert ended.redeliver(kind="refused").result == due()
    ended.clock.advance(3600)
    assert ended.redeliver(since=ended.clock.time).result == due()
    assert ended.redeliver("row", until=ended.clock.time).result == due(rows=2)
    assert ended.redeliver("event", since=1, batch_id=1).result == due(events=3)


def test_more_than_a_page_is_done_in_pieces(ended: Spool, app: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    until_given_up(ended)
    monkeypatch.setattr("nura_cli.state.over.CHUNK", 2)
    monkeypatch.setattr("nura_cli.pipeline.redeliver.CHUNK", 2)
    assert ended.redeliver().result == due(rows=3)
    assert ended.rows("SELECT verb, workload, n, what FROM actions") == [
        ("redeliver", "echo", 2, "2 rows due again"),
        ("redeliver", "echo", 1, "1 row due again"),
    ]


def test_results_ask_after_rows_by_an_index(ended: Spool, app: Database) -> None:
    until_given_up(ended)
    with State(ended.state_path) as state:
        asked: list[str] = []
        state.db.set_trace_callback(asked.append)
        assert outbox.unwritten(state.db, [1, 2])
        state.db.set_trace_callback(None)
        anything, these = ([row[3] for row in state.db.execute(f"EXPLAIN QUERY PLAN {query}")] for query in asked)
    assert {"deliveries_task", "deliveries_over"} <= {word for line in these for word in line.split()}
    assert not [line for line in these if line.startswith("SCAN d")]
    assert not [line for line in anything if line.startswith("SCAN d") and "INDEX" not in line]


# --- the command


def command(spool: Spool, *arguments: str) -> tuple[int, str, str]:
    """Run nura redeliver; return its exit code, and what it said."""
    done = completed("redeliver", *arguments, cwd=spool.folder, environment=cron_environment(spool.folder))
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_the_command_says_what_it_did_and_who_did_it(ended: Spool, app: Database) -> None:
    until_given_up(ended)
    before = ended.rows("SELECT * FROM deliveries")
    assert command(ended, "echo", "-n") == (0, "would be: 3 rows due again\n", "")
    assert ended.rows("SELECT * FROM deliveries") == before
    (ended.folder / "keys").write_text('{"key": 0}\n"nosuch"\n')
    code, out, err = command(ended, "echo", "--keys-from", "keys", "--json", "--why", "the column is wider")
    assert (code, err) == (3, "")
    found = json.loads(out)
    assert {name: found[name] for name in ("rows", "events")} == due(rows=1)
    assert "keys, line 2: key nosuch: no such key" in found["errors"][0]["message"]
    [(who, why)] = ended.rows("SELECT who, why FROM actions")
    assert who
    assert why == "the column is wider"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name what to deliver again: a workload, a batch or keys"),
        (["--status", "failed"], "name what to deliver again"),
        (["echo", "--all", "--drop"], "give one of --all and --drop"),
        (
            ["echo", "--all"],
            "3 rows due again, 4 events due again: they are delivered though some of them were before: nothing",
        ),
        (["echo", "--drop"], "3 rows dropped, 4 events dropped: nobody gets them any more: nothing was done"),
        (["nosuch"], "nosuch"),
    ],
)
def test_what_is_not_agreed_to_or_not_clear_is_not_done(
    ended: Spool, app: Database, arguments: list[str], said: str
) -> None:
    ended.reconcile()
    with state_file(ended) as db:
        db.execute("UPDATE deliveries SET status = 'dead', said = 'no', done_at = 1")
    code, _, err = command(ended, *arguments)
    assert code == 2
    assert said in err
    assert ended.rows("SELECT DISTINCT status FROM deliveries") == [("dead",)]


def test_while_reconcile_is_at_work_only_what_was_given_up_is_due_again(ended: Spool, app: Database) -> None:
    until_given_up(ended)
    with State(ended.state_path) as state, locks.lock(state.lock_path("reconcile"), clock.now()):
        for option in ("--all", "--drop"):
            code, _, err = command(ended, "echo", option, "--yes")
            assert code == 75
            assert "reconcile is at work" in err
        assert command(ended, "echo") == (0, "3 rows due again\n", "")
    assert ended.redeliver().result == due()
    assert command(ended, "echo", "--drop", "--yes")[::2] == (0, "")
