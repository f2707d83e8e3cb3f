"""The operators' verbs where they meet: each other, a run that is at work, and what providers do."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from nura_cli import config as configuration
from nura_cli.errors import EX_CONFIG, ProblemKind
from nura_cli.pipeline import reconcile, remaining, retry
from nura_cli.pipeline.accounts import Accounts
from nura_cli.pipeline.report import Problem, Report
from nura_cli.state import State
from nura_cli.state.selection import Selection
from nura_cli.states import TaskStatus
from tests.conftest import Spool
from tests.pipeline.test_hold import while_it_waits
from tests.pipeline.test_retry import answered, failed, refuse

DAY = 86400


def records(n: int) -> list[dict[str, Any]]:
    """Return so many records."""
    return [{"id": i, "text": f"record number {i}"} for i in range(n)]


def receiver(spool: Spool, name: str, code: int) -> list[str]:
    """Return the command of a receiver that ends with a code."""
    path = spool.folder / name
    path.write_text(f"#!/bin/sh\ncat >> {name}.jsonl\nexit {code}\n")
    path.chmod(0o755)
    return [f"./{name}"]


def listening(spool: Spool, command: list[str]) -> None:
    """Have a receiver told of what completes and of what is cancelled."""
    spool.set(events=[{"types": ["task.completed", "task.cancelled"], "command": command}])


def test_nothing_more_is_run_anew_than_was_said(openai_spool: Spool) -> None:
    """Re-runs that end without an answer between the count and the work were not asked about."""
    spool = openai_spool
    answered(spool, 2)
    spool.retry(statuses=[TaskStatus.COMPLETED])
    fault = refuse(spool)
    spool.dispatch()
    spool.poll()
    spool.control.clear(fault)

    def work(state: State, config: configuration.Config, accounts: Accounts) -> Report:
        job = retry.plan(state, config, [Selection(workloads=["echo"], statuses=[TaskStatus.COMPLETED])], [])
        assert job.n == 0
        reconcile.run(state, config)
        return retry.run(job)

    assert spool._run(work).result["rerun"] == 0
    assert spool.counts()["pending"] == 0


def test_what_is_retried_while_a_dispatch_is_at_work_is_not_sent_with_the_old_prompt(openai_spool: Spool) -> None:
    spool = openai_spool
    failed(spool, 2)
    spool.clock.advance(60)
    spool.enqueue({"id": 100, "text": "record number 100"})
    mended: list[int] = []

    def progress(text: str) -> None:
        if "writing" in text and not mended:
            spool.set(prompt="Mended: {{ text }}")
            mended.append(spool.retry().result["retried"])

    report = spool.dispatch(progress=progress)
    assert mended == [2]
    assert (report.result["requests"], report.result["not_due"]["changed"]) == (1, 2)
    spool.settle()
    texts = {answer["key"]: answer["text"] for answer in spool.results(statuses=[TaskStatus.COMPLETED])}
    assert "Mended" not in texts[100]
    assert all("Mended" in text for key, text in texts.items() if key != 100)


def test_what_was_held_before_its_create_is_sent_as_it_is_when_it_is_released(openai_spool: Spool) -> None:
    """Not as it was uploaded: its records may have been replaced, its prompt mended, and its time be over since."""
    spool = openai_spool
    spool.fill(3)
    while_it_waits(spool, "list", 1, lambda: spool.hold("echo"))
    assert spool.counts()["pending"] == 3
    spool.set(prompt="Mended: {{ text }}")
    spool.enqueue(*({"id": n, "text": f"new {n}"} for n in range(3)), replace=True)
    spool.clock.advance(15 * DAY)
    spool.release("echo")
    spool.settle()
    assert all("Mended: new" in answer["text"] for answer in spool.results())
    assert spool.control.billing()["requests"] == 3
    assert spool.status()["attention"] == []


@pytest.mark.parametrize("withdrawn", [False, True], ids=["", "one withdrawn since"])
def test_events_follow_a_receiver_whatever_waits_beside_them(openai_spool: Spool, withdrawn: bool) -> None:
    spool = openai_spool
    down, up = receiver(spool, "down", 75), receiver(spool, "up", 0)
    listening(spool, down)
    spool.fill(3)
    spool.settle()
    if withdrawn:
        spool.enqueue({"id": 9, "text": "x"})
        spool.cancel()
        spool.reconcile()
    listening(spool, up)
    spool.clock.advance(DAY)
    assert spool.reconcile().result["events"]["sent"] == 3 + withdrawn


def test_what_follows_a_receiver_is_not_dropped(openai_spool: Spool) -> None:
    spool = openai_spool
    down, up = receiver(spool, "down", 75), receiver(spool, "up", 0)
    listening(spool, down)
    spool.fill(3)
    spool.settle()
    listening(spool, up)
    spool.clock.advance(DAY)
    assert spool.redeliver(drop=True).result["events"]["dropped"] == 0
    assert spool.reconcile().result["events"]["sent"] == 3


def test_a_wish_needs_no_person_where_a_doubtful_create_would(openai_spool: Spool) -> None:
    """With on_unconfirmed hold, too: what is to be cancelled is not sent again, whatever became of it."""
    spool = openai_spool
    spool.control.settings(delay=20 * 3600)
    spool.providers["main"]["on_unconfirmed"] = "hold"
    spool.write_config()
    spool.fill(3)
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    spool.cancel(batch=1)
    spool.settle()
    assert spool.counts()["cancelled"] == 3
    assert spool.control.billing()["requests"] == 0


def test_a_wish_that_was_taken_and_not_heeded_is_made_again(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.control.settings(delay=20 * 3600)
    spool.fill(3)
    spool.dispatch()
    fault = spool.control.fault("never_ends", times=-1)
    spool.cancel(under_way=True)
    before = asked(spool)
    for _ in range(4):
        spool.clock.advance(3600)
        spool.poll()
    assert asked(spool) >= before + 3
    [need] = [one["message"] for one in spool.status()["attention"] if "goes on all the same" in one["message"]]
    assert "batch 1" in need
    spool.control.clear(fault)


def asked(spool: Spool) -> int:
    """Return how often the provider was asked to cancel."""
    return sum(entry["route"] == "cancel" for entry in spool.control.log())


def test_a_wish_ends_a_batch_whose_results_are_lost(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(2)
    spool.dispatch()
    spool.control.fault("lost", times=-1)
    for _ in range(3):
        spool.clock.advance(1000)
        spool.poll()
    assert spool.counts()["submitted"] == 2
    spool.cancel(under_way=True)
    for _ in range(3):
        spool.clock.advance(3600)
        spool.round()
    assert spool.counts()["cancelled"] == 2
    assert spool.status()["cost"]["unpriced_tasks"] == 2


def test_what_was_withdrawn_may_come_again_and_is_said(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.enqueue(*records(3))
    spool.cancel()
    report = spool.enqueue(*records(3))
    assert (report.result["enqueued"], report.result["enqueued_again"]) == (3, 3)
    assert "3 of them had been cancelled" in report.result["hint"]


def test_what_somebody_cancelled_at_the_provider_waits_for_a_decision_whoever_enqueues_it(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.control.settings(delay=7200)
    spool.enqueue(*records(3))
    spool.dispatch()
    spool.control.fault("cancel", fraction=0)
    spool.clock.advance(7300)
    spool.poll()
    spool.reconcile()
    report = spool.enqueue(*records(3))
    assert (report.result["enqueued"], report.result["duplicates_cancelled"]) == (0, 3)
    assert len(spool.status()["attention"]) == 1
    assert spool.dispatch().result["requests"] == 0


def test_a_clock_that_ran_ahead_ends_no_hold(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(1)
    spool.hold("echo", until=spool.clock() + 3 * DAY)
    spool.clock.advance(400 * DAY)
    with State(spool.state_path, spool.clock) as state, state.transaction() as db:
        from nura_cli.pipeline import holding

        assert [one.name for one in holding.end_passed(db, configuration.load(spool.path))] == ["echo"]
    spool.clock.advance(-400 * DAY)
    assert spool.dispatch().result["not_due"]["held"] == 1


def test_run_goes_on_beside_a_receiver_that_is_gone(openai_spool: Spool) -> None:
    """What reconcile has to say of the configuration keeps no task from being sent."""
    spool = openai_spool
    spool.fill(2)
    gone = Problem(ProblemKind.CONFIG, "echo: 3 events wait for a receiver", EX_CONFIG, workload="echo", about="abc")
    with State(spool.state_path, spool.clock) as state:
        left = remaining.look(state.db, list(configuration.load(spool.path).workloads.values()))
    assert remaining.comes(left, [])
    assert not remaining.comes(left, [gone])  # so that only what poll and dispatch met is asked about


def test_the_row_of_what_was_withdrawn_is_written_again_with_a_ledger(openai_spool: Spool, tmp_path: Path) -> None:
    spool = openai_spool
    path = tmp_path / "app.db"
    with sqlite3.connect(path) as app:
        app.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, e TEXT)")
        app.execute("CREATE TABLE log (uid VARCHAR(255) PRIMARY KEY, written_at TEXT NOT NULL)")
        app.execute("INSERT INTO t (id) VALUES (0)")
    app.close()
    spool.databases = {"app": {"url": f"sqlite:///{path}"}}
    columns = {"where": {"id": "key"}, "set": {"a": "text"}, "set_cancelled": {"e": "error.message"}}
    spool.set(write_back={"database": "app", "table": "t", "ledger": "log", **columns})
    spool.fill(1)
    spool.cancel()
    spool.reconcile()
    with sqlite3.connect(path) as app:
        app.execute("UPDATE t SET e = NULL")
    app.close()
    spool.redeliver("row", made=True)
    spool.reconcile()
    with sqlite3.connect(path) as app:
        [(words,)] = app.execute("SELECT e FROM t").fetchall()
    app.close()
    assert "cancelled" in words
