"""Answers reach the application: rows are written, then events go out, each at least once and never for superseded work."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Spool

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
    assert "write_back.set.sumary" in report.troubles[0].message
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
    assert "1 row was no longer there, the first: key 4" in report.troubles[0].message
    assert app.run("SELECT count(*) FROM articles") == [(9,)]


def test_an_edit_made_meanwhile_is_not_overwritten(openai_spool: Spool, app: App) -> None:
    openai_spool.set(write_back={**WRITE_BACK, "only_if": {"updated": "record.updated"}}, keep=["updated"])
    openai_spool.enqueue(*({"id": i, "updated": 1, "text": f"record number {i}"} for i in range(3)))
    openai_spool.dispatch()
    openai_spool.poll()
    app.run("UPDATE articles SET updated = 2, summary = 'by hand' WHERE id = 1")
    report = openai_spool.reconcile()
    assert report.result["rows"] == {"written": 2, "skipped": 1, "delayed": 0, "failed": 0}
    assert "1 row was changed since" in report.troubles[0].message
    assert app.summaries()[1] == "by hand"


def test_an_answer_that_does_not_fit_fails_alone_and_is_kept(ended: Spool, app: App) -> None:
    app.run("CREATE TRIGGER picky BEFORE UPDATE ON articles WHEN new.id = 7 BEGIN SELECT RAISE(ABORT, 'not this'); END")
    report = ended.reconcile()
    assert report.exit_code == 3
    assert report.result["rows"] == {"written": 9, "skipped": 0, "delayed": 0, "failed": 1}
    assert "key 7: not this" in report.troubles[0].message
    status = ended.status()
    assert status["deliveries"]["echo"]["rows"] == {"pending": 0, "failed": 1}
    assert "not this" in status["attention"][0]["message"]
    assert len(ended.results()) == 10


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
    assert "10 rows wait for database app" in report.troubles[0].message
    assert ended.status()["paused"][0]["why"].startswith("database app")
    # While it rests, it is not asked; then everything is written, once.
    assert ended.reconcile().exit_code == 75
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
    assert any(trouble.exit_code == 78 for trouble in report.troubles)
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


def test_the_document_that_expressions_look_at_is_a_line_of_results(openai_spool: Spool, app: App) -> None:
    expressions = {"summary": "join('|', [workload, status, provider, model, finish_reason, to_string(record)])"}
    openai_spool.set(write_back={**WRITE_BACK, "set": expressions}, keep=["text"])
    openai_spool.fill(1)
    openai_spool.round()
    [line] = openai_spool.results()
    want = [line[name] for name in ("workload", "status", "provider", "model", "finish_reason")]
    assert app.summaries()[0].split("|")[:5] == want
    assert json.loads(app.summaries()[0].split("|")[5]) == line["record"]
