"""Answers reach the application: rows are written, then events go out, each at least once and never for superseded work."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nura_cli import contract
from nura_cli.delivery.events import Command
from nura_cli.delivery.write_back import WriteBack
from nura_cli.errors import ConfigError
from nura_cli.pipeline import deliver, documents
from nura_cli.pipeline.deliver import MOST_TRIES
from tests import documents as contracted
from tests.conftest import Spool
from tests.receiver import SECRET, Receiver

WRITE_BACK = {"database": "app", "table": "articles", "where": {"id": "key"}, "set": {"summary": "text"}}


class App:
    """The application's database: a table of articles that want a summary."""

    def __init__(self, path: Path, n: int) -> None:
        self.path = path
        self.run("CREATE TABLE articles (id INTEGER PRIMARY KEY, updated INTEGER, summary TEXT, error TEXT)")
        self.run("CREATE TABLE log (uid TEXT PRIMARY KEY, written_at TEXT NOT NULL)")
        for i in range(n):
            self.run("INSERT INTO articles (id, updated) VALUES (?, 1)", i)

    def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement as the application does."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as db:
            return db.execute(statement, values).fetchall()

    def summaries(self) -> dict[int, str]:
        """Return the summaries that are there."""
        return dict(self.run("SELECT id, summary FROM articles WHERE summary IS NOT NULL"))


@pytest.fixture
def app(openai_spool: Spool) -> App:
    """An application with ten articles, whose summaries the workload ``echo`` writes."""
    openai_spool.databases["app"] = {"url": "sqlite:///app.db?timeout=0.2"}
    openai_spool.set(write_back=WRITE_BACK)
    return App(openai_spool.folder / "app.db", 10)


@pytest.fixture
def ended(openai_spool: Spool, app: App) -> Spool:
    """A spool whose ten answers lie downloaded."""
    openai_spool.fill(10)
    openai_spool.dispatch()
    openai_spool.poll()
    return openai_spool


# --- rows


def test_each_answer_is_written_into_its_row(ended: Spool, app: App) -> None:
    report = ended.reconcile()
    assert report.exit_code == 0
    assert report.result["rows"] == {"written": 10, "skipped": 0, "delayed": 0, "failed": 0}
    assert all(f"record number {key}" in text for key, text in app.summaries().items())
    assert len(app.summaries()) == 10
    assert ended.reconcile().result["rows"]["written"] == 0


def test_a_typing_error_costs_no_batch(openai_spool: Spool, app: App) -> None:
    openai_spool.set(write_back={**WRITE_BACK, "set": {"sumary": "text"}})
    openai_spool.fill(3)
    report = openai_spool.dispatch()
    assert report.exit_code == 78
    assert "write_back.set.sumary" in report.problems[0].message
    assert openai_spool.control.log() == []
    openai_spool.set(write_back=WRITE_BACK)
    assert openai_spool.dispatch().result["requests"] == 3


def test_a_missing_database_file_is_an_error_and_not_a_new_database(openai_spool: Spool, app: App) -> None:
    app.path.unlink()
    openai_spool.fill(3)
    assert openai_spool.dispatch().exit_code == 78
    assert not app.path.exists()


def test_one_workloads_typing_error_does_not_hold_up_another(openai_spool: Spool, app: App) -> None:
    openai_spool.set(write_back={**WRITE_BACK, "table": "artikles"})
    openai_spool.set("other")
    openai_spool.fill(3)
    openai_spool.fill(2, workload="other")
    report = openai_spool.dispatch()
    assert report.exit_code == 3
    assert report.result["requests"] == 2


def test_a_deleted_row_is_reported_and_never_invented(ended: Spool, app: App) -> None:
    app.run("DELETE FROM articles WHERE id = 4")
    report = ended.reconcile()
    assert report.exit_code == 3
    assert report.result["rows"] == {"written": 9, "skipped": 1, "delayed": 0, "failed": 0}
    assert "1 row was no longer there, the first: key 4" in report.problems[0].message
    assert app.run("SELECT count(*) FROM articles") == [(9,)]


def test_an_edit_made_meanwhile_is_not_overwritten(openai_spool: Spool, app: App) -> None:
    openai_spool.set(write_back={**WRITE_BACK, "only_if": {"updated": "record.updated"}}, keep=["updated"])
    openai_spool.enqueue(*({"id": i, "updated": 1, "text": f"record number {i}"} for i in range(3)))
    openai_spool.dispatch()
    openai_spool.poll()
    app.run("UPDATE articles SET updated = 2, summary = 'by hand' WHERE id = 1")
    report = openai_spool.reconcile()
    assert report.result["rows"] == {"written": 2, "skipped": 1, "delayed": 0, "failed": 0}
    assert "1 row was changed since" in report.problems[0].message
    assert app.summaries()[1] == "by hand"


def test_an_answer_that_does_not_fit_fails_alone_and_is_kept(ended: Spool, app: App) -> None:
    ended.set(
        write_back={**WRITE_BACK, "set": {"summary": "text", "updated": "contains(text, 'number 7') && text || `2`"}}
    )
    report = ended.reconcile()
    assert report.exit_code == 3
    assert report.result["rows"] == {"written": 9, "skipped": 0, "delayed": 0, "failed": 1}
    assert "key 7: set.updated:" in report.problems[0].message
    assert ended.status()["deliveries"]["echo"]["rows"] == {"pending": 0, "failed": 1}
    assert len(ended.results()) == 10


REFUSING = "CREATE TRIGGER picky BEFORE UPDATE ON articles WHEN new.id = 7 BEGIN SELECT RAISE(ABORT, 'not this'); END"


def test_a_row_that_the_database_refuses_is_tried_again_and_the_others_are_written(ended: Spool, app: App) -> None:
    app.run(REFUSING)
    report = ended.reconcile()
    assert report.exit_code == 3
    assert report.result["rows"] == {"written": 9, "skipped": 0, "delayed": 1, "failed": 0}
    assert "1 row was refused, the first: key 7: not this" in report.problems[0].message
    assert ended.status()["deliveries"]["echo"]["rows"] == {"pending": 1, "failed": 0}
    # Before its time it is not asked again, and nothing more is said of it.
    app.run("DROP TRIGGER picky")
    again = ended.reconcile()
    assert (again.exit_code, again.result["rows"]["delayed"], len(app.summaries())) == (0, 1, 9)
    ended.clock.advance(60)
    assert ended.reconcile().result["rows"] == {"written": 1, "skipped": 0, "delayed": 0, "failed": 0}
    assert "record number 7" in app.summaries()[7]


def test_a_row_that_breaks_a_trigger_keeps_no_database_from_the_others(ended: Spool, app: App) -> None:
    """What it raises, ``malformed JSON``, is what a database that cannot be used might say, too."""
    app.run("CREATE TRIGGER broken BEFORE UPDATE ON articles WHEN new.id = 7 BEGIN SELECT json('no'); END")
    assert ended.reconcile().result["rows"] == {"written": 9, "skipped": 0, "delayed": 1, "failed": 0}
    for _ in range(MOST_TRIES - 1):
        ended.clock.advance(7 * 3600)
        report = ended.reconcile()
        assert ended.status()["paused"] == []
    assert report.result["rows"]["failed"] == 1


def test_a_row_refused_for_a_day_is_given_up_and_waits_longer_each_time(ended: Spool, app: App) -> None:
    app.run(REFUSING)
    waits = []
    for _ in range(MOST_TRIES - 1):
        ended.reconcile()
        [(until,)] = ended.rows("SELECT not_before FROM deliveries WHERE status = 'pending' AND kind = 'row'")
        waits.append(until - ended.clock.time)
        ended.clock.advance(waits[-1])
    assert waits[:9] == sorted(waits[:9])  # from then on it is the longest there is, less some jitter
    assert 16 * 3600 < sum(waits) < 30 * 3600
    report = ended.reconcile()
    assert report.result["rows"] == {"written": 0, "skipped": 0, "delayed": 0, "failed": 1}
    assert f"1 row was given up after {MOST_TRIES} tries, the first: key 7: not this" in report.problems[0].message
    assert "not this" in ended.status()["attention"][0]["message"]
    app.run("DROP TRIGGER picky")
    ended.clock.advance(86400)
    assert ended.reconcile().result["rows"]["written"] == 0


def test_a_write_that_is_swallowed_is_said_so_and_is_no_edit_of_somebodys(ended: Spool, app: App) -> None:
    app.run("CREATE TRIGGER quiet BEFORE UPDATE ON articles WHEN new.id = 7 BEGIN SELECT RAISE(IGNORE); END")
    report = ended.reconcile()
    assert report.result["rows"] == {"written": 9, "skipped": 0, "delayed": 1, "failed": 0}
    assert "key 7: the database took the write and the row does not hold it" in report.problems[0].message


def test_a_failed_task_is_written_where_set_failed_says(openai_spool: Spool, app: App) -> None:
    openai_spool.set(write_back={**WRITE_BACK, "set_failed": {"error": "error.message"}}, retry={"max_attempts": 1})
    openai_spool.fill(3)
    openai_spool.control.fault("rows", status=400, message="too long", times=-1)
    openai_spool.round()
    assert app.run("SELECT count(*) FROM articles WHERE error IS NOT NULL") == [(3,)]


def test_without_set_failed_a_failed_task_writes_nothing(openai_spool: Spool, app: App) -> None:
    openai_spool.set(retry={"max_attempts": 1})
    openai_spool.fill(3)
    openai_spool.control.fault("rows", status=400, message="too long", times=-1)
    assert openai_spool.round()[2].result["rows"] == {"written": 0, "skipped": 0, "delayed": 0, "failed": 0}


def test_a_superseded_task_is_never_delivered(ended: Spool, app: App) -> None:
    ended.enqueue({"id": 3, "text": "record number 3, in its second form"}, replace=True)
    ended.reconcile()
    assert 3 not in app.summaries()
    ended.round()
    assert "in its second form" in app.summaries()[3]


def test_a_task_that_is_superseded_while_its_row_waits_is_not_written_later(ended: Spool, app: App) -> None:
    with lock(app):
        ended.reconcile()
    ended.enqueue({"id": 3, "text": "record number 3, in its second form"}, replace=True)
    ended.clock.advance(3600)
    report = ended.reconcile()
    assert report.result["rows"]["written"] == 9
    assert 3 not in app.summaries()


class lock:  # noqa: N801 - read as a verb: with lock(app)
    """Another process holds the write lock of the application's database."""

    def __init__(self, app: App) -> None:
        self._db = sqlite3.connect(app.path, isolation_level=None)

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, *error: object) -> None:
        self._db.close()


def test_a_database_that_is_down_delays_its_deliveries_and_nothing_else(ended: Spool, app: App) -> None:
    ended.set("other")
    ended.fill(2, workload="other")
    ended.dispatch()
    ended.poll()
    with lock(app):
        report = ended.reconcile()
    assert report.result["tasks"]["completed"] == 12
    assert report.result["rows"] == {"written": 0, "skipped": 0, "delayed": 10, "failed": 0}
    assert report.exit_code == 3
    assert "10 rows wait for database app" in report.problems[0].message
    assert ended.status()["paused"][0]["why"].startswith("database app")
    # While it rests, it is not asked; then everything is written, once.
    resting = ended.reconcile()
    assert (resting.exit_code, resting.result["rows"]["delayed"]) == (75, 10)
    ended.clock.advance(3600)
    assert ended.reconcile().result["rows"]["written"] == 10
    assert ended.status()["paused"] == []
    assert ended.reconcile().exit_code == 0


def test_the_pause_of_a_database_grows(ended: Spool, app: App) -> None:
    pauses = []
    with lock(app):
        for _ in range(3):
            ended.reconcile()
            [(until,)] = ended.rows("SELECT paused_until FROM receivers")
            pauses.append(until - ended.clock.time)
            ended.clock.advance(until - ended.clock.time)
    assert pauses == sorted(pauses)
    assert pauses[2] > pauses[0]


def test_a_database_that_was_looked_at_before_does_not_hold_up_sending_while_it_is_down(
    openai_spool: Spool, app: App
) -> None:
    openai_spool.fill(3)
    openai_spool.dispatch()
    openai_spool.fill(6)
    with broken(app):
        assert openai_spool.dispatch().result["requests"] == 3


def test_nothing_is_sent_before_the_table_could_be_looked_at_once(openai_spool: Spool, app: App) -> None:
    openai_spool.fill(3)
    with broken(app):
        report = openai_spool.dispatch()
    assert report.exit_code == 75
    assert openai_spool.control.log() == []
    assert openai_spool.dispatch().result["requests"] == 3


class broken:  # noqa: N801 - read as a verb: with broken(app)
    """The application's database is damaged for a while."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._kept = app.path.read_bytes()

    def __enter__(self) -> None:
        self._app.path.write_bytes(b"this is no database" * 1000)

    def __exit__(self, *error: object) -> None:
        self._app.path.write_bytes(self._kept)


def test_a_table_that_went_away_keeps_its_rows_waiting(ended: Spool, app: App) -> None:
    app.run("ALTER TABLE articles RENAME TO elsewhere")
    report = ended.reconcile()
    assert report.result["rows"]["delayed"] == 10
    assert any(problem.exit_code == 78 for problem in report.problems)
    app.run("ALTER TABLE elsewhere RENAME TO articles")
    assert ended.reconcile().result["rows"]["written"] == 10


def test_with_a_ledger_each_delivery_happens_exactly_once(ended: Spool, app: App) -> None:
    ended.set(write_back={**WRITE_BACK, "ledger": "log"})
    app.run("CREATE TABLE effects (id)")
    app.run("CREATE TRIGGER effect AFTER UPDATE ON articles BEGIN INSERT INTO effects VALUES (new.id); END")
    copy = ended.folder / "before.db"
    shutil.copy(ended.state_path, copy)
    ended.reconcile()
    # A crash between the application's commit and ours looks like this: the same deliveries are due once more.
    ended.rows("SELECT 1")
    with closing(sqlite3.connect(ended.state_path)) as db:
        db.execute("UPDATE deliveries SET status = 'pending', done_at = NULL, outcome = NULL")
        db.commit()
    assert ended.reconcile().result["rows"]["written"] == 10
    assert app.run("SELECT count(*) FROM effects") == [(10,)]
    assert app.run("SELECT count(*) FROM log") == [(10,)]


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"set_": {"a": "text"}}, {"status", "key", "text"}),
        ({"set_": {"a": "json.a", "b": "json.b.c"}, "only_if": {"c": "record.c"}}, {"status", "key", "json", "record"}),
        ({"set_": {"a": "text"}, "set_failed": {"b": "error.message"}}, {"status", "key", "text", "error"}),
        ({"set_": {"a": "text"}, "set_cancelled": {"b": "to_string(error)"}}, None),
        ({"set_": {"a": "text", "b": "@"}}, None),
    ],
    ids=["text", "paths", "failed", "function", "whole"],
)
def test_write_back_says_which_fields_of_an_answer_it_looks_at(
    options: dict[str, Any], fields: set[str] | None
) -> None:
    assert WriteBack("sqlite:///nowhere.db", table="t", where={"id": "key"}, **options).fields == fields


def test_columns_get_the_same_by_paths_as_by_expressions_over_the_whole_document(openai_spool: Spool, app: App) -> None:
    by_path = {"summary": "text", "error": "usage.input_tokens"}
    by_expression = {"summary": "@.text", "error": "@.usage.input_tokens"}
    for first, chosen in ((0, by_path), (5, by_expression)):
        openai_spool.set(write_back={**WRITE_BACK, "set": chosen})
        openai_spool.enqueue(*({"id": first + i, "text": "the same"} for i in range(3)))
        openai_spool.settle()
    written = app.run("SELECT summary, error FROM articles WHERE summary IS NOT NULL ORDER BY id")
    assert len(written) == 6
    assert len(set(written)) == 1


def test_the_document_that_expressions_look_at_is_a_line_of_results(openai_spool: Spool, app: App) -> None:
    expressions = {"summary": "join('|', [workload, status, provider, model, finish_reason, to_string(record)])"}
    openai_spool.set(write_back={**WRITE_BACK, "set": expressions}, keep=["text"])
    openai_spool.fill(1)
    openai_spool.round()
    [line] = openai_spool.results()
    want = [line[name] for name in ("workload", "status", "provider", "model", "finish_reason")]
    assert app.summaries()[0].split("|")[:5] == want
    assert json.loads(app.summaries()[0].split("|")[5]) == line["record"]


# --- events


def told(spool: Spool) -> list[dict[str, Any]]:
    """Return what the command was told, in order."""
    path = spool.folder / "told.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for event in found:
        contracted.check(event, contract.EventTold)
    return found


@pytest.fixture
def told_spool(ended: Spool) -> Spool:
    """The spool with ten downloaded answers, and a command that is told of everything."""
    script = ended.folder / "tell"
    script.write_text(
        f"#!/bin/sh\nif [ -e {ended.folder}/no ]; then echo no >&2; exit 1; fi\ncat >> {ended.folder}/told.jsonl\n"
    )
    script.chmod(0o755)
    types = ["task.completed", "task.failed", "batch.completed", "batch.failed"]
    ended.set(events=[{"types": types, "command": ["./tell"]}], keep=["text"])
    return ended


def test_each_event_is_told_after_its_row_was_written(told_spool: Spool, app: App) -> None:
    app.run("DELETE FROM articles WHERE id = 4")
    report = told_spool.reconcile()
    assert report.result["events"] == {"sent": 11, "delayed": 0, "dead": 0}
    events = told(told_spool)
    assert len({event["id"] for event in events}) == 11
    tasks = {event["data"]["key"]: event for event in events if event["type"] == "task.completed"}
    assert {key: event["data"]["row"] for key, event in tasks.items()} == {
        n: "gone" if n == 4 else "written" for n in range(10)
    }
    data = tasks[2]["data"]
    assert data["workload"] == "echo"
    assert data["status"] == "completed"
    assert data["batch_id"] == 1
    assert data["record"] == {"text": "record number 2"}
    assert data["error"] is None
    assert "text" not in data
    assert events[0]["type"] == "batch.completed" or events[-1]["type"] == "batch.completed"
    assert told_spool.reconcile().result["events"]["sent"] == 0


def test_a_receiver_that_says_no_is_asked_again_later_and_less_and_less_often(told_spool: Spool) -> None:
    (told_spool.folder / "no").touch()
    report = told_spool.reconcile()
    assert report.exit_code == 3
    assert report.result["events"] == {"sent": 0, "delayed": 11, "dead": 0}
    assert report.result["rows"]["written"] == 10
    assert "ended with exit code 1: no" in report.problems[0].message
    waits = set()
    for tries in range(1, 5):
        [(most,)] = told_spool.rows("SELECT max(not_before) FROM deliveries WHERE tries = ?", tries)
        waits.add(most - told_spool.clock.time)
        told_spool.clock.advance(most - told_spool.clock.time)
        told_spool.reconcile()
    assert len(waits) == 4
    assert max(waits) > 4 * min(waits)
    (told_spool.folder / "no").unlink()
    told_spool.clock.advance(7 * 3600)
    assert told_spool.reconcile().result["events"] == {"sent": 11, "delayed": 0, "dead": 0}
    assert len(told(told_spool)) == 11


def test_an_event_refused_for_a_day_is_a_dead_letter_and_the_rest_gets_through(told_spool: Spool) -> None:
    script = told_spool.folder / "tell"
    script.write_text(
        '#!/bin/sh\nread -r all; lines=$(cat; echo); case "$all$lines" in *\'"key":6,\'*) echo not six >&2; exit 1;; esac\n'
        f'printf \'%s\\n%s\' "$all" "$lines" | grep . >> {told_spool.folder}/told.jsonl\n'
    )
    dead = 0
    for _ in range(MOST_TRIES + 8):
        dead += told_spool.reconcile().result["events"]["dead"]
        told_spool.clock.advance(7 * 3600)
    assert dead == 1
    keys = [event["data"]["key"] for event in told(told_spool)]
    assert sorted(key for key in keys if key is not None) == [n for n in range(10) if n != 6]
    status = told_spool.status()
    assert status["deliveries"]["echo"]["events"] == {"pending": 0, "dead": 1}
    assert "1 event was given up, the last: ended with exit code 1: not six" in status["attention"][0]["message"]


def test_a_receiver_that_can_take_nothing_now_rests_and_loses_no_try(told_spool: Spool) -> None:
    (told_spool.folder / "tell").rename(told_spool.folder / "tell.away")
    for _ in range(MOST_TRIES + 2):
        report = told_spool.reconcile()
        assert report.result["events"] == {"sent": 0, "delayed": 11, "dead": 0}
        told_spool.clock.advance(7 * 3600)
    assert "cannot be started: No such file" in report.problems[0].message
    (told_spool.folder / "tell.away").rename(told_spool.folder / "tell")
    assert told_spool.reconcile().result["events"] == {"sent": 11, "delayed": 0, "dead": 0}
    assert told_spool.status()["paused"] == []


def test_a_receiver_that_rests_is_not_asked_and_status_says_so(told_spool: Spool) -> None:
    (told_spool.folder / "tell").rename(told_spool.folder / "tell.away")
    told_spool.reconcile()
    (told_spool.folder / "tell.away").rename(told_spool.folder / "tell")
    assert told_spool.reconcile().result["events"]["delayed"] == 11
    [paused] = told_spool.status()["paused"]
    assert "cannot be started" in paused["why"]
    assert told_spool.status()["deliveries"]["echo"]["events"]["pending"] == 11


def test_what_waits_for_a_receiver_that_left_the_configuration_is_told_of_and_kept(told_spool: Spool) -> None:
    (told_spool.folder / "no").touch()
    told_spool.reconcile()
    kept = told_spool.workloads["echo"]["events"]
    told_spool.set(events=[{"types": ["task.completed"], "command": ["./elsewhere"]}])
    told_spool.clock.advance(7 * 3600)
    report = told_spool.reconcile()
    assert report.result["events"] == {"sent": 0, "delayed": 11, "dead": 0}
    assert report.exit_code == 78
    assert "11 events wait for a receiver that is no longer in the configuration" in report.problems[0].message
    (told_spool.folder / "no").unlink()
    told_spool.set(events=kept)
    assert told_spool.reconcile().result["events"] == {"sent": 11, "delayed": 0, "dead": 0}


def test_rows_that_wait_for_a_table_that_left_the_configuration_are_told_of_and_kept(ended: Spool, app: App) -> None:
    with lock(app):
        ended.reconcile()
    ended.set(write_back=None)
    ended.clock.advance(7 * 3600)
    report = ended.reconcile()
    assert report.result["rows"]["delayed"] == 10
    assert "10 rows wait for a table that is no longer in the configuration" in report.problems[0].message
    ended.set(write_back=WRITE_BACK)
    assert ended.reconcile().result["rows"]["written"] == 10


def test_a_receiver_of_two_workloads_rests_for_both_and_is_told_of_both(told_spool: Spool) -> None:
    told_spool.set("other", events=told_spool.workloads["echo"]["events"], keep=["text"])
    told_spool.fill(3, workload="other")
    told_spool.dispatch()
    told_spool.poll()
    (told_spool.folder / "tell").rename(told_spool.folder / "tell.away")
    assert told_spool.reconcile().result["events"] == {"sent": 0, "delayed": 15, "dead": 0}
    assert len(told_spool.status()["paused"]) == 1
    (told_spool.folder / "tell.away").rename(told_spool.folder / "tell")
    assert told_spool.reconcile().result["events"] == {"sent": 0, "delayed": 15, "dead": 0}
    told_spool.clock.advance(7 * 3600)
    assert told_spool.reconcile().result["events"] == {"sent": 15, "delayed": 0, "dead": 0}
    tasks = sorted(
        (event["data"]["workload"], event["data"]["key"]) for event in told(told_spool) if event["data"]["record"]
    )
    assert tasks == [("echo", n) for n in range(10)] + [("other", n) for n in range(3)]


def test_one_receiver_that_fails_does_not_hold_up_another(told_spool: Spool) -> None:
    ok = told_spool.folder / "ok"
    ok.write_text(f"#!/bin/sh\ncat >> {told_spool.folder}/other.jsonl\n")
    ok.chmod(0o755)
    failing = {"types": ["task.completed"], "command": ["./not-there"]}
    told_spool.set(events=[failing, {"types": ["task.completed"], "command": ["./ok"]}])
    assert told_spool.reconcile().result["events"] == {"sent": 10, "delayed": 10, "dead": 0}
    assert len((told_spool.folder / "other.jsonl").read_text().splitlines()) == 10


def test_the_event_of_a_superseded_task_is_never_told(told_spool: Spool) -> None:
    (told_spool.folder / "no").touch()
    told_spool.reconcile()
    told_spool.enqueue({"id": 3, "text": "record number 3, in its second form"}, replace=True)
    (told_spool.folder / "no").unlink()
    told_spool.clock.advance(7 * 3600)
    assert told_spool.reconcile().result["events"]["sent"] == 10
    assert 3 not in [event["data"]["key"] for event in told(told_spool)]
    told_spool.round()
    [event] = [event for event in told(told_spool) if event["data"]["key"] == 3]
    assert event["data"]["record"]["text"] == "record number 3, in its second form"


def test_events_wait_for_rows_that_wait_for_their_database(told_spool: Spool, app: App) -> None:
    with lock(app):
        report = told_spool.reconcile()
    assert report.result["events"]["sent"] == 0
    assert told(told_spool) == []
    told_spool.clock.advance(3600)
    assert told_spool.reconcile().result["events"]["sent"] == 11


def test_without_write_back_an_event_says_that_there_was_no_row(openai_spool: Spool) -> None:
    tell = openai_spool.folder / "tell"
    tell.write_text(f"#!/bin/sh\ncat >> {openai_spool.folder}/told.jsonl\n")
    tell.chmod(0o755)
    openai_spool.set(events=[{"types": ["task.completed", "task.failed"], "command": ["./tell"], "answers": True}])
    openai_spool.fill(2)
    openai_spool.control.fault("rows", match="number 1", status=400, message="your prompt is too long", times=-1)
    openai_spool.round()
    good, bad = sorted((event["data"] for event in told(openai_spool)), key=lambda data: data["key"])
    assert good["row"] is None
    assert "record number 0" in good["text"]
    assert (bad["status"], bad["error"]["kind"], bad["error"]["message"]) == (
        "failed",
        "refused",
        "your prompt is too long",
    )
    assert bad["text"] is None


def test_a_refused_batch_is_told_of(openai_spool: Spool) -> None:
    tell = openai_spool.folder / "tell"
    tell.write_text(f"#!/bin/sh\ncat >> {openai_spool.folder}/told.jsonl\n")
    tell.chmod(0o755)
    openai_spool.set(events=[{"types": ["batch.failed", "batch.completed"], "command": ["./tell"]}])
    openai_spool.fill(2)
    openai_spool.control.fault("refuse", code="token_limit_exceeded", message="enqueued token limit reached")
    openai_spool.settle()
    refused, *ended = told(openai_spool)
    assert refused["type"] == "batch.failed"
    assert "token_limit_exceeded" in refused["data"]["error"]["message"]
    assert {event["type"] for event in ended} == {"batch.completed"}
    assert sum(event["data"]["completed"] for event in ended) == 2


def test_a_webhook_gets_signed_events_under_ids_that_stay_the_same(ended: Spool) -> None:
    (ended.folder / "hook.key").write_text(SECRET)
    with Receiver() as receiver:
        receiver.answers = [500] * 4
        ended.set(events=[{"types": ["task.completed"], "webhook": receiver.url, "secret_file": "hook.key"}])
        report = ended.reconcile()
        assert report.result["events"] == {"sent": 6, "delayed": 4, "dead": 0}
        assert "secret-token" not in str(report.problems)
        ended.clock.advance(3600)
        assert ended.reconcile().result["events"] == {"sent": 4, "delayed": 0, "dead": 0}
    assert sorted(post.event["data"]["key"] for post in receiver.got) == list(range(10))
    assert set(receiver.got[0].event) == {"type", "timestamp", "data"}
    names = ended.rows(
        "SELECT b.tag || '-' || d.task_id FROM deliveries d JOIN batches b ON b.id = d.batch_id WHERE d.kind = 'event'"
    )
    assert {post.id for post in receiver.got} == {f"evt_{name}" for (name,) in names}


def test_a_webhook_that_asks_to_wait_is_left_alone_for_as_long(ended: Spool) -> None:
    (ended.folder / "hook.key").write_text(SECRET)
    with Receiver({"Retry-After": "900"}) as receiver:
        receiver.answers = [429] * 10
        ended.set(events=[{"types": ["task.completed"], "webhook": receiver.url, "secret_file": "hook.key"}])
        assert ended.reconcile().result["events"]["delayed"] == 10
        asked = receiver.refused
        ended.clock.advance(600)
        ended.reconcile()
        assert receiver.refused == asked
        receiver.answers = []
        ended.clock.advance(301)
        assert ended.reconcile().result["events"]["sent"] == 10


def test_no_secret_of_a_receiver_is_in_the_state_file(ended: Spool) -> None:
    (ended.folder / "hook.key").write_text(SECRET)
    with Receiver() as receiver:
        receiver.answers = [500] * 10
        ended.set(events=[{"types": ["task.completed"], "webhook": receiver.url, "secret_file": "hook.key"}])
        ended.reconcile()
    ended.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    kept = ended.state_path.read_bytes()
    assert b"secret-token" not in kept
    assert SECRET[6:].encode() not in kept


def test_a_receiver_without_its_secret_is_a_matter_of_configuration(ended: Spool) -> None:
    hook = {"types": ["task.completed"], "webhook": "http://127.0.0.1:1/", "secret_file": "not-there.key"}
    ended.set(events=[hook])
    report = ended.reconcile()
    assert report.result["events"]["delayed"] == 10
    assert [problem.exit_code for problem in report.problems] == [78]


# --- the configuration changes between sending and settling


def leave(spool: Spool) -> dict[str, Any]:
    """Take the workload out of the configuration; return it."""
    leaving: dict[str, Any] = spool.workloads.pop("echo")
    spool.set("another")
    return leaving


def test_rows_and_events_are_due_although_the_workload_was_away_when_its_tasks_settled(
    told_spool: Spool, app: App
) -> None:
    told_spool.dispatch()
    told_spool.set(prompt="Again: {{ text }}")
    told_spool.enqueue({"id": 10, "text": "record number 10"})
    app.run("INSERT INTO articles (id, updated) VALUES (10, 1)")
    told_spool.dispatch()
    told_spool.poll()
    leaving = leave(told_spool)
    report = told_spool.reconcile()
    assert report.exit_code == 3
    assert report.result["rows"] == {"written": 0, "skipped": 0, "delayed": 11, "failed": 0}
    said = [found for found in report.problems if "row" in found.message]
    assert said[0].message == "echo: 11 rows wait for a table that is no longer in the configuration"
    assert said[0].hint == ("put workloads.echo back until they are delivered; or nura redeliver echo --rows --drop")
    [need] = [one for one in told_spool.status()["attention"] if "table" in one["message"]]
    assert need["hint"] == said[0].hint
    told_spool.workloads["echo"] = leaving
    told_spool.write_config()
    report = told_spool.reconcile()
    assert report.exit_code == 0
    assert report.result["rows"]["written"] == 11
    # The first batch was sent before there was a receiver; today's configuration adds it.
    assert report.result["events"] == {"sent": 12, "delayed": 0, "dead": 0}
    assert told_spool.status()["attention"] == []


def test_a_workload_renamed_for_one_reconcile_loses_nothing(ended: Spool, app: App) -> None:
    ended.workloads["renamed"] = ended.workloads.pop("echo")
    ended.write_config()
    assert ended.reconcile().result["rows"]["delayed"] == 10
    ended.workloads["echo"] = ended.workloads.pop("renamed")
    ended.write_config()
    assert ended.reconcile().result["rows"]["written"] == 10


def test_a_second_configuration_on_the_same_state_file_loses_nothing(ended: Spool, app: App) -> None:
    first = ended.path
    ended.path = ended.folder / "second.yaml"
    kept = ended.workloads
    ended.workloads = {"other": ended.workload()}
    ended.write_config()
    assert ended.reconcile().result["rows"]["delayed"] == 10
    ended.path, ended.workloads = first, kept
    assert ended.reconcile().result["rows"]["written"] == 10


def test_a_write_back_taken_out_waits_and_its_mended_mapping_is_the_one_that_counts(ended: Spool, app: App) -> None:
    ended.set(write_back=None)
    report = ended.reconcile()
    assert report.result["rows"]["delayed"] == 10
    assert report.problems[0].hint == (
        "put workloads.echo.write_back back until they are delivered; or nura redeliver echo --rows --drop"
    )
    assert [one["hint"] for one in ended.status()["attention"]] == [report.problems[0].hint]
    app.run("CREATE TABLE better (nr INTEGER PRIMARY KEY, answer TEXT)")
    app.run("INSERT INTO better (nr) SELECT id FROM articles")
    ended.set(write_back={**WRITE_BACK, "table": "better", "where": {"nr": "key"}, "set": {"answer": "text"}})
    assert ended.reconcile().result["rows"]["written"] == 10
    assert app.run("SELECT count(*) FROM better WHERE answer IS NOT NULL") == [(10,)]
    assert app.summaries() == {}


def test_rows_of_failed_tasks_wait_for_a_set_failed_that_was_taken_out(openai_spool: Spool, app: App) -> None:
    with_failed = {**WRITE_BACK, "set_failed": {"error": "error.message"}}
    openai_spool.set(write_back=with_failed, retry={"max_attempts": 1})
    openai_spool.fill(3)
    openai_spool.control.fault("rows", match="number 1", status=400, message="too long", times=-1)
    openai_spool.dispatch()
    openai_spool.poll()
    openai_spool.set(write_back=WRITE_BACK)
    report = openai_spool.reconcile()
    assert report.result["rows"] == {"written": 2, "skipped": 0, "delayed": 1, "failed": 0}
    assert "1 row waits for a set_failed that is no longer in the configuration" in report.problems[-1].message
    assert report.problems[-1].hint == (
        "put workloads.echo.write_back.set_failed back until they are delivered; or nura redeliver echo --rows --drop"
    )
    openai_spool.set(write_back=with_failed)
    assert openai_spool.reconcile().result["rows"]["written"] == 1
    assert app.run("SELECT id FROM articles WHERE error IS NOT NULL") == [(1,)]


def test_what_todays_configuration_adds_is_due_as_well(openai_spool: Spool) -> None:
    app = App(openai_spool.folder / "app.db", 3)
    openai_spool.fill(3)
    openai_spool.dispatch()
    openai_spool.poll()
    openai_spool.databases["app"] = {"url": "sqlite:///app.db"}
    openai_spool.set(write_back=WRITE_BACK)
    assert openai_spool.reconcile().result["rows"]["written"] == 3
    assert len(app.summaries()) == 3


def test_a_batch_of_an_earlier_release_has_todays_configuration_alone(ended: Spool, app: App) -> None:
    with closing(sqlite3.connect(ended.state_path)) as db:
        db.execute("UPDATE batches SET plan = NULL")
        db.commit()
    assert ended.reconcile().result["rows"]["written"] == 10


@pytest.fixture
def planned(ended: Spool, app: App) -> Spool:
    """A spool whose downloaded batch was sent when two commands were to be told of it."""
    for name in ("one", "two", "elsewhere"):
        script = ended.folder / name
        script.write_text(f"#!/bin/sh\ncat >> {ended.folder}/{name}.jsonl\n")
        script.chmod(0o755)
    ended.reconcile()
    ended.set(events=[{"types": ["task.completed", "batch.completed"], "command": ["./one"]}, TWO])
    ended.enqueue(*({"id": i, "text": f"record number {i}"} for i in range(10, 12)))
    app.run("INSERT INTO articles (id) VALUES (10), (11)")
    ended.dispatch()
    ended.poll()
    return ended


TWO = {"types": ["task.completed"], "command": ["./two"]}


def heard(spool: Spool, name: str) -> int:
    """Return how many events a command was told."""
    path = spool.folder / f"{name}.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_a_receiver_that_has_moved_is_told_at_its_new_address(planned: Spool) -> None:
    moved = {"types": ["task.completed", "batch.completed"], "command": ["./elsewhere"]}
    planned.set(events=[TWO, moved])
    report = planned.reconcile()
    assert (report.exit_code, report.result["events"]) == (0, {"sent": 5, "delayed": 0, "dead": 0})
    assert [heard(planned, name) for name in ("one", "two", "elsewhere")] == [0, 2, 3]


def test_what_was_refused_at_the_old_address_follows_to_the_new_one(planned: Spool) -> None:
    (planned.folder / "one").unlink()
    assert planned.reconcile().result["events"] == {"sent": 2, "delayed": 3, "dead": 0}
    planned.set(events=[{"types": ["task.completed", "batch.completed"], "command": ["./elsewhere"]}, TWO])
    report = planned.reconcile()
    assert (report.exit_code, report.result["events"]) == (0, {"sent": 3, "delayed": 0, "dead": 0})
    assert heard(planned, "elsewhere") == 3


def test_events_for_a_receiver_taken_out_before_their_rows_were_written_wait_and_are_named(planned: Spool) -> None:
    kept = planned.workloads["echo"]["events"]
    planned.set(events=[TWO])
    report = planned.reconcile()
    assert report.result["events"] == {"sent": 2, "delayed": 3, "dead": 0}
    assert report.exit_code == 3
    assert "3 events wait for a receiver that is no longer in the configuration" in report.problems[-1].message
    [need] = planned.status()["attention"]
    assert need["hint"] == (
        "put workloads.echo.events back until they are delivered; or nura redeliver echo --events --drop"
    )
    planned.set(events=kept)
    assert planned.reconcile().result["events"] == {"sent": 3, "delayed": 0, "dead": 0}
    assert [heard(planned, name) for name in ("one", "two")] == [3, 2]


def test_events_of_a_batch_wait_for_its_rows_although_nobody_can_write_them(planned: Spool) -> None:
    planned.set(write_back=None)
    report = planned.reconcile()
    assert report.result["rows"]["delayed"] == 2
    assert report.result["events"]["sent"] == 0
    planned.set(write_back=WRITE_BACK)
    assert planned.reconcile().result["events"]["sent"] == 5


# --- what nobody foresaw


def failing(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, keys: set[int]) -> None:
    """Let a function fail, as nobody foresaw, for the answers of some keys."""
    plainly = getattr(place, name)

    def failing(self: Any, row: Any, *given: Any) -> Any:
        if int(row.key) in keys:
            raise TypeError("nobody thought of this")
        return plainly(self, row, *given)

    monkeypatch.setattr(place, name, failing)


def test_what_nobody_foresaw_about_one_row_is_reported_and_the_others_are_written(
    ended: Spool, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, documents.Documents, "_source", {7})
    report = ended.reconcile()
    assert report.exit_code == 1
    assert report.result["rows"] == {"written": 9, "skipped": 0, "delayed": 1, "failed": 0}
    assert report.problems[-1].message == "echo: the row of task 8: unexpected TypeError: nobody thought of this"
    assert "report" in (report.problems[-1].hint or "")
    monkeypatch.undo()
    ended.clock.advance(60)
    assert ended.reconcile().result["rows"]["written"] == 1


def test_what_nobody_foresaw_about_every_row_is_said_once_and_stops_no_other_workload(
    ended: Spool, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.run("INSERT INTO articles (id) SELECT 100 + id FROM articles")
    ended.set("other", write_back=WRITE_BACK)
    ended.enqueue(*({"id": 100 + i, "text": f"record number {100 + i}"} for i in range(10)), workload="other")
    ended.enqueue(*({"id": 1000 + i, "text": f"record number {1000 + i}"} for i in range(50)))
    ended.dispatch()
    ended.poll()
    failing(monkeypatch, documents.Documents, "_source", {*range(100), *range(1000, 2000)})
    report = ended.reconcile()
    assert report.exit_code == 1
    assert report.result["rows"]["written"] == 10
    assert 1 <= sum(found.kind == "unexpected" for found in report.problems) <= 2


def test_what_nobody_foresaw_about_one_event_or_receiver_stops_no_other(
    planned: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plainly = Command.send

    def send(self: Command, events: Any) -> Any:
        if "two" in self._argv[0]:
            raise ZeroDivisionError("nobody thought of this")
        return plainly(self, events)

    monkeypatch.setattr(Command, "send", send)
    monkeypatch.setattr(deliver, "batch_data", lambda *given: [].pop())
    report = planned.reconcile()
    assert report.exit_code == 1
    assert report.result["events"]["sent"] == 2
    said = [found.message for found in report.problems if found.kind == "unexpected"]
    assert said == [
        "echo: the event about batch 2: unexpected IndexError: pop from empty list",
        f"echo: command {planned.folder}/two: unexpected ZeroDivisionError: nobody thought of this",
    ]
    monkeypatch.undo()
    planned.clock.advance(60)
    assert planned.reconcile().result["events"]["sent"] == 3


# --- somebody cancelled the batch


def test_tasks_that_somebodys_cancelling_ended_are_told_of_and_no_row_is_written(openai_spool: Spool, app: App) -> None:
    script = openai_spool.folder / "tell"
    script.write_text(f"#!/bin/sh\ncat >> {openai_spool.folder}/told.jsonl\n")
    script.chmod(0o755)
    openai_spool.set(
        write_back={**WRITE_BACK, "set_failed": {"error": "error.message"}},
        events=[{"types": ["task.cancelled", "task.failed"], "command": ["./tell"]}],
    )
    openai_spool.fill(10)
    openai_spool.control.fault("cancel", fraction=0.3)
    report = openai_spool.round()[2]
    cancelled = report.result["tasks"]["cancelled"]
    assert cancelled > 0
    assert report.result["events"] == {"sent": cancelled, "delayed": 0, "dead": 0}
    assert report.result["rows"]["written"] == 10 - cancelled
    assert app.run("SELECT count(*) FROM articles WHERE error IS NOT NULL") == [(0,)]
    for event in told(openai_spool):
        assert event["type"] == "task.cancelled"
        assert (event["data"]["status"], event["data"]["error"]["kind"]) == ("cancelled", "cancelled")
        assert event["data"]["row"] is None


def test_a_cancelled_task_that_is_sent_again_is_no_longer_told_of(openai_spool: Spool) -> None:
    script = openai_spool.folder / "tell"
    script.write_text("#!/bin/sh\nexit 75\n")
    script.chmod(0o755)
    openai_spool.set(events=[{"types": ["task.cancelled"], "command": ["./tell"]}])
    openai_spool.fill(3)
    openai_spool.control.fault("cancel", fraction=0)
    assert openai_spool.round()[2].result["events"] == {"sent": 0, "delayed": 3, "dead": 0}
    openai_spool.resolve("1")
    script.write_text(f"#!/bin/sh\ncat >> {openai_spool.folder}/told.jsonl\n")
    openai_spool.clock.advance(3600)
    openai_spool.settle()
    assert told(openai_spool) == []
    assert openai_spool.status()["deliveries"]["echo"]["events"] == {"pending": 0, "dead": 0}


# --- what a record lacks is found before it is paid for


def test_a_record_that_lacks_what_its_row_needs_is_rejected_and_the_good_ones_go_in(
    openai_spool: Spool, app: App
) -> None:
    openai_spool.set(write_back={**WRITE_BACK, "only_if": {"updated": "record.updated"}}, keep=["updated"])
    good = ({"id": i, "updated": 1, "text": f"record number {i}"} for i in range(3))
    report = openai_spool.enqueue({"id": 7, "text": "x"}, *good)
    assert report.exit_code == 3
    assert (report.result["enqueued"], report.result["rejected"]) == (3, 1)
    said = "line 1: write_back.only_if.updated: it needs record.updated, which the record lacks"
    assert [found.message for found in report.problems] == [said]
    assert openai_spool.round()[2].result["rows"]["written"] == 3


def test_a_ready_line_that_lacks_what_its_row_needs_is_rejected_too(openai_spool: Spool, app: App) -> None:
    where = {"id": "record.metadata.row"}
    openai_spool.workloads["echo"] = {
        "provider": "main",
        "keep": ["metadata"],
        "write_back": {**WRITE_BACK, "where": where},
    }
    openai_spool.write_config()
    messages = [{"role": "user", "content": "record number 0"}]
    body = {"model": openai_spool.model, "messages": messages}
    lines = [
        {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": {**body, **more}}
        for name, more in {"a": {}, "b": {"metadata": {"row": "1"}}}.items()
    ]
    report = openai_spool.enqueue(*lines)
    assert (report.result["enqueued"], report.result["rejected"]) == (1, 1)
    assert "needs record.metadata, which the record lacks" in report.problems[0].message


# --- from the database, too


def test_every_article_without_a_summary_is_worked_on_once(openai_spool: Spool, app: App) -> None:
    query = "SELECT id, 'record number ' || id AS text FROM articles WHERE summary IS NULL"
    openai_spool.set(source={"database": "app", "query": query})
    assert openai_spool.enqueue_from_source().result["enqueued"] == 10
    assert openai_spool.enqueue_from_source().result["duplicates"] == 10
    openai_spool.dispatch()
    assert openai_spool.enqueue_from_source().result["duplicates"] == 10
    openai_spool.poll()
    openai_spool.reconcile()
    assert not any(openai_spool.enqueue_from_source().result.values())
    app.run("INSERT INTO articles (id) VALUES (10)")
    assert openai_spool.enqueue_from_source().result["enqueued"] == 1
    openai_spool.round()
    assert len(app.summaries()) == 11


def test_a_source_that_fails_half_way_keeps_what_it_gave(openai_spool: Spool, app: App) -> None:
    query = (
        "SELECT id, CASE WHEN id = 6 THEN json('{' || id) ELSE 'record number' END AS text FROM articles ORDER BY id"
    )
    openai_spool.set(source={"database": "app", "query": query})
    with pytest.raises(ConfigError, match="the query cannot be run: malformed JSON"):
        openai_spool.enqueue_from_source()
    assert openai_spool.counts()["pending"] in (5, 6)  # Python's sqlite3 may look one row ahead


def test_a_workload_without_a_source_says_so(openai_spool: Spool) -> None:
    with pytest.raises(ConfigError, match="has no source"):
        openai_spool.enqueue_from_source()
