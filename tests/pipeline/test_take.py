"""nura retry takes the answers that failed tasks have, once their workload takes texts that were cut: nothing is paid again."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nura_cli.pipeline.report import Report
from nura_cli.pipeline.retry import Fate, fate
from nura_cli.state.retries import Candidate
from nura_cli.states import TaskStatus
from tests.conftest import Spool
from tests.pipeline.forks import Command, Ended

SECOND_PROTOCOL_IS_LONG = True

COMPLETED = TaskStatus.COMPLETED
LONG = "Repeat: {{ text }} and so on, in many words that are of no use to anybody at all, for it is to be cut"
LIMIT = 20


def limit(spool: Spool, tokens: int = LIMIT, **options: Any) -> None:
    """Give the workload a prompt whose answer is longer than its limit."""
    name = "max_tokens" if spool.protocol == "anthropic" else "max_completion_tokens"
    spool.set(prompt=LONG, params={name: tokens}, **options)


def cut(spool: Spool, n: int = 3, **options: Any) -> None:
    """Let n records fail because their texts are cut."""
    limit(spool, **options)
    spool.fill(n)
    spool.round()
    assert spool.counts()["failed"] == n
    assert {one["error"]["kind"] for one in spool.results()} == {"truncated"}
    spool.clock.advance(60)


def figures(spool: Spool) -> tuple[Any, ...]:
    """Return what was paid so far, here and at the provider, and the ledger."""
    found = spool.status()
    ledger = spool.rows("SELECT task_id, batch_id, outcome, cost FROM attempts ORDER BY 1, 2")
    return found["usage"], found["cost"], ledger, spool.control.billing()["requests"]


def became(report: Report) -> list[int]:
    """Return how many tasks a retry had take their answers, and how many wait."""
    return [report.result["taken"], report.result["retried"]]


def test_what_was_cut_is_completed_with_the_answers_it_has_and_nothing_is_paid(spool: Spool) -> None:
    cut(spool)
    before, last = figures(spool), max(one["seq"] for one in spool.results())
    limit(spool, accept_truncated=True)
    report = spool.retry(kind="truncated")
    assert [report.result[name] for name in ("taken", "retried", "rerun")] == [3, 0, 0]
    assert figures(spool) == before
    assert spool.counts() == spool.counts() | {"completed": 3, "failed": 0, "pending": 0}
    found = spool.results(after=last)
    assert [(one["key"], one["status"], one["attempts"], one["error"]) for one in found] == [
        (key, "completed", 1, None) for key in range(3)
    ]
    assert all(f"record number {one['key']} and so on" in one["text"] for one in found)
    assert {one["finish_reason"] for one in found} <= {"length", "max_tokens"}
    assert all(one["finished_at"] > one["enqueued_at"] for one in found)
    assert spool.rows("SELECT answered, completed, failed FROM batches") == [(3, 3, 0)]
    assert spool.rows("SELECT verb, n, what FROM actions") == [("retry", 3, "3 failed tasks get the answers they have")]
    moved = "SELECT batch_id, to_status, n FROM transitions WHERE what = 'task' AND from_status = 'failed'"
    assert spool.rows(moved) == [(1, "completed", 3)]
    assert spool.status()["attention"] == []
    spool.check()
    again = spool.retry(kind="truncated")
    assert (again.result["taken"], again.result["retried"], again.exit_code) == (0, 0, 0)
    spool.settle()
    assert figures(spool) == before


def test_without_the_option_they_are_tried_again(openai_spool: Spool) -> None:
    cut(openai_spool)
    limit(openai_spool, 300)
    assert became(openai_spool.retry(kind="truncated")) == [0, 3]
    openai_spool.settle()
    assert openai_spool.counts()["completed"] == 3
    assert openai_spool.control.billing()["requests"] == 6


def test_the_grammar_says_which_and_others_are_tried_again(openai_spool: Spool) -> None:
    cut(openai_spool)
    openai_spool.control.fault("rows", status=400)
    openai_spool.enqueue({"id": 3, "text": "record number 3"})
    openai_spool.round()
    limit(openai_spool, accept_truncated=True)
    assert openai_spool.retry(keys=["1"]).result["taken"] == 1
    assert became(openai_spool.retry()) == [2, 1]
    assert openai_spool.counts() == openai_spool.counts() | {"completed": 3, "pending": 1}


SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "string"}},
    "required": ["a"],
    "additionalProperties": False,
}


def test_with_a_schema_then_or_now_none_is_taken(openai_spool: Spool) -> None:
    cut(openai_spool, 2)
    limit(openai_spool, 300, accept_truncated=True, schema=SCHEMA)
    assert became(openai_spool.retry(keys=["0"])) == [0, 1]
    openai_spool.control.fault("invalid", mode="length")
    openai_spool.dispatch()
    openai_spool.poll()
    openai_spool.reconcile()
    assert [one["error"]["kind"] for one in openai_spool.results(statuses=[TaskStatus.FAILED])] == ["truncated"] * 2
    openai_spool.workloads["echo"].pop("schema")
    limit(openai_spool, 300, accept_truncated=True)
    assert became(openai_spool.retry()) == [1, 1]
    assert openai_spool.results()[0]["json"] is None


@pytest.mark.parametrize(
    "message",
    [{"content": ""}, {"content": None}, {"content": "record number 0", "refusal": "I will not"}, None],
    ids=["empty", "null", "refusal", "none"],
)
def test_what_has_no_text_or_is_a_refusal_is_tried_again(openai_spool: Spool, message: dict[str, Any] | None) -> None:
    cut(openai_spool, 1)
    body = json.dumps({"choices": [{"message": message, "finish_reason": "length"}]})
    with closing(sqlite3.connect(openai_spool.state_path)) as state, state:
        state.execute("UPDATE answers SET body = ?", (body.encode(),))
    limit(openai_spool, 300, accept_truncated=True)
    assert became(openai_spool.retry()) == [0, 1]


SAID = "A key-value store (see sk-learn docs, key-insights) holds"


def test_what_looks_like_a_key_in_a_text_that_was_cut_is_the_applications(spool: Spool) -> None:
    """An answer is never cleaned, and a text that was cut may become one."""
    limit(spool)
    spool.workloads["echo"]["prompt"] = (
        f"Repeat: {SAID} and so on {{{{ text }}}}, in many words that are of no use to anybody"
    )
    spool.write_config()
    spool.fill(1)
    spool.round()
    assert spool.counts()["failed"] == 1
    (failed,) = spool.results()
    assert SAID in json.dumps(failed["response"])
    spool.set(accept_truncated=True)
    assert became(spool.retry(kind="truncated")) == [1, 0]
    (taken,) = spool.results()
    assert SAID in taken["text"]


def test_a_rerun_that_was_cut_leaves_the_old_answer_where_it_is(openai_spool: Spool) -> None:
    limit(openai_spool, 300)
    openai_spool.fill(2)
    openai_spool.settle()
    openai_spool.clock.advance(60)
    limit(openai_spool)
    assert openai_spool.retry(statuses=[COMPLETED]).result["rerun"] == 2
    openai_spool.settle()
    assert openai_spool.counts() == openai_spool.counts() | {"completed": 2, "superseded": 2}
    whole = [one["text"] for one in openai_spool.results()]
    limit(openai_spool, accept_truncated=True)
    assert openai_spool.retry(kind="truncated").result["taken"] == 0
    assert [one["text"] for one in openai_spool.results()] == whole
    openai_spool.check()


def test_what_was_taken_may_be_run_again_as_any_answer(openai_spool: Spool) -> None:
    cut(openai_spool)
    limit(openai_spool, accept_truncated=True)
    openai_spool.retry()
    openai_spool.clock.advance(60)
    limit(openai_spool, 300, accept_truncated=True)
    assert openai_spool.retry(statuses=[COMPLETED]).result["rerun"] == 3
    openai_spool.settle()
    assert openai_spool.counts() == openai_spool.counts() | {"completed": 3, "superseded": 3}
    openai_spool.check()


class App:
    """The application's table, with a ledger, and what its hook was told."""

    def __init__(self, spool: Spool, folder: Path, n: int) -> None:
        self.path, self.told = folder / "app.db", folder / "told"
        self.run("CREATE TABLE t (id INTEGER PRIMARY KEY, answer TEXT, error TEXT)")
        self.run("CREATE TABLE ledger (uid TEXT PRIMARY KEY, written_at TEXT NOT NULL)")
        for key in range(n):
            self.run("INSERT INTO t (id) VALUES (?)", key)
        spool.databases = {"app": {"url": f"sqlite:///{self.path}"}}
        sets = {"set": {"answer": "text"}, "set_failed": {"error": "error.kind"}}
        self.write_back = {"database": "app", "table": "t", "where": {"id": "key"}, "ledger": "ledger", **sets}

    def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement as the application does."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as db:
            return db.execute(statement, values).fetchall()


TYPES = ["task.failed", "task.completed"]


def test_the_application_that_was_told_of_the_failure_is_told_of_the_answer(
    openai_spool: Spool, tmp_path: Path
) -> None:
    app = App(openai_spool, tmp_path, 2)
    command = ["/bin/sh", "-c", f"cat >> {app.told}"]
    options: dict[str, Any] = {"write_back": app.write_back, "events": [{"types": TYPES, "command": command}]}
    cut(openai_spool, 2, **options)
    assert app.run("SELECT id, answer, error FROM t") == [(0, None, "truncated"), (1, None, "truncated")]
    limit(openai_spool, accept_truncated=True, **options)
    openai_spool.retry(kind="truncated")
    report = openai_spool.reconcile()
    assert report.result["rows"]["written"] == 2
    assert all(text and text.startswith("In short") for (text,) in app.run("SELECT answer FROM t"))
    events = [json.loads(line) for line in app.told.read_text().splitlines()]
    assert [one["type"] for one in events] == ["task.failed"] * 2 + ["task.completed"] * 2
    assert len({one["id"] for one in events}) == 4
    assert openai_spool.rows("SELECT DISTINCT status FROM deliveries") == [("done",)]
    openai_spool.check()


def test_what_it_was_still_to_be_told_of_the_failure_is_withdrawn(openai_spool: Spool, tmp_path: Path) -> None:
    app = App(openai_spool, tmp_path, 2)
    app.run("CREATE TRIGGER no BEFORE UPDATE OF error ON t BEGIN SELECT RAISE(ABORT, 'no errors here'); END")
    options: dict[str, Any] = {"write_back": app.write_back, "events": [{"types": TYPES, "command": ["/bin/false"]}]}
    cut(openai_spool, 2, **options)
    waiting = "SELECT kind, target, type, count(*) FROM deliveries WHERE status = 'pending' GROUP BY 1, 2, 3"
    assert openai_spool.rows(waiting) == [("row", "set_failed", "task.failed", 2)]
    limit(openai_spool, accept_truncated=True, **options)
    openai_spool.retry()
    assert openai_spool.rows(waiting) == [("row", "set", "task.completed", 2)]
    openai_spool.settle()
    openai_spool.clock.advance(86400)
    openai_spool.reconcile()
    assert app.run("SELECT count(answer), count(error) FROM t") == [(2, 0)]


def nura(spool: Spool, *arguments: str) -> str:
    """Run a command; return what it prints."""
    ended: Ended = Command(spool.folder, spool.clock(), *arguments).end()
    assert ended.code == 0, ended
    return ended.out


def test_the_question_says_how_many_are_taken_and_at_what_cost(openai_spool: Spool) -> None:
    cut(openai_spool)
    limit(openai_spool, accept_truncated=True)
    assert "3 tasks of echo get the answers they have, at no cost" in nura(openai_spool, "retry", "echo", "-n")
    assert json.loads(nura(openai_spool, "--json", "retry", "echo", "-n"))["taken"] == 3
    one = nura(openai_spool, "retry", "echo", "--key", "0", "-n")
    assert "1 task of echo gets the answer it has, at no cost" in one
    assert openai_spool.counts()["failed"] == 3
    done = json.loads(nura(openai_spool, "--json", "retry", "echo", "--yes", "--error", "truncated"))
    assert (done["taken"], done["retried"], done["workloads"]) == (3, 0, {})
    assert openai_spool.counts()["completed"] == 3


def test_what_waits_and_what_is_taken_are_told_apart(openai_spool: Spool) -> None:
    cut(openai_spool, 2)
    openai_spool.control.fault("rows", status=400)
    openai_spool.enqueue({"id": 2, "text": "record number 2"})
    openai_spool.round()
    limit(openai_spool, accept_truncated=True)
    said = nura(openai_spool, "retry", "echo", "-n")
    assert "1 task of echo waits again, at about $0.0" in said
    assert said.strip().endswith("; 2 tasks of echo get the answers they have, at no cost")


def test_a_failed_task_that_kept_an_answer_takes_it() -> None:
    one = Candidate(1, 1, 1, TaskStatus.FAILED, "old", False, "truncated", 1)
    assert fate(one, "today", every=False, kept=True) is Fate.TAKEN
    assert fate(one, "today", every=False) is Fate.WAITS
    assert fate(one._replace(status=COMPLETED), "old", every=False, kept=True) is Fate.UNCHANGED
