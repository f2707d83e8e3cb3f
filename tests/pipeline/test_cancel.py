"""nura cancel: what waits is withdrawn; a batch is cancelled wherever it stands, what it answered is kept, and nothing is sent again."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nura_cli import clock as clocks
from nura_cli.pipeline import settle
from nura_cli.state import State, locks
from nura_cli.states import BatchStatus, TaskStatus
from tests.conftest import Spool
from tests.pipeline.forks import Command, Ended
from tests.pipeline.test_delivery import WRITE_BACK, App, app, told  # noqa: F401 - the fixture app
from tests.pipeline.test_new_vendor import AcmeSpool, acme, nura  # noqa: F401 - the fixture acme

HOUR = 3600
QUARTER = 15 * 60 + 1
WHO = "cancelled by tim: a runaway"


def command(spool: Spool, *arguments: str, kill_at: int | None = None) -> Ended:
    """Run nura as a process, at the spool's time."""
    return Command(spool.folder, spool.clock(), *arguments, kill_at=kill_at).end()


def until(done: Callable[[], object]) -> None:
    """Wait for what another process brings about."""
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def sent(spool: Spool, n: int = 4, seconds: int = 2 * HOUR) -> None:
    """Send a batch of n requests that takes the provider this long."""
    spool.control.settings(delay=seconds)
    spool.fill(n)
    spool.dispatch()


def routes(spool: Spool, *names: str) -> int:
    """Return how many exchanges of these routes there were."""
    return sum(entry["route"] in names for entry in spool.control.log())


def ends(spool: Spool, **counts: int) -> None:
    """Let cron run, and assert how it ends: nothing waits, nothing is paid for twice, and nobody is needed."""
    spool.settle()
    assert {name: n for name, n in spool.counts().items() if n} == counts
    assert spool.status()["attention"] == []
    assert spool.rows("SELECT count(*) FROM batches WHERE final_at IS NULL OR cancelled > 0") == [(0,)]
    spool.check()


def messages(answers: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """Return kind and words of the errors of answers."""
    return {(one["error"]["kind"], one["error"]["message"]) for one in answers}


# --- what waits


def test_what_waits_is_cancelled_and_says_who_and_why(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(3)
    report = spool.cancel()
    assert (report.exit_code, report.result["cancelled"]) == (0, 3)
    assert report.result["tasks"] == {"echo": {"n": 3, "keys": ["0", "1", "2"]}}
    ends(spool, cancelled=3)
    answers = spool.results(statuses=["cancelled"])
    assert messages(answers) == {("cancelled", WHO)}
    assert {(one["batch_id"], one["attempts"], one["cost"], one["text"]) for one in answers} == {
        (None, 0, "0.00", None)
    }
    done = spool.rows("SELECT verb, who, workload, n, what, why FROM actions")
    assert done == [("cancel", "tim", "echo", 3, "3 tasks that waited are cancelled", "a runaway")]
    assert spool.rows("SELECT count(*) FROM attempts") == [(0,)]


def test_the_second_time_it_does_nothing(openai_spool: Spool) -> None:
    openai_spool.fill(3)
    openai_spool.cancel()
    before = openai_spool.results()
    report = openai_spool.cancel()
    assert (report.exit_code, report.result["cancelled"], report.result["tasks"]) == (0, 0, {})
    assert openai_spool.results() == before
    assert openai_spool.rows("SELECT count(*) FROM actions") == [(1,)]


def test_what_waits_for_another_attempt_is_cancelled_too_and_what_it_cost_stays(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.set(schema={"type": "object", "properties": {}, "required": [], "additionalProperties": False})
    spool.fill(3)
    spool.control.fault("invalid", fraction=1, mode="text")
    spool.round()
    paid = spool.status()["cost"]["paid"]
    assert (spool.counts()["pending"], float(paid) > 0) == (3, True)
    assert spool.cancel().result["cancelled"] == 3
    ends(spool, cancelled=3)
    assert spool.status()["cost"]["paid"] == paid
    assert {one["attempts"] for one in spool.results()} == {1}


def test_only_what_is_meant_is_cancelled(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.set("other")
    spool.fill(4)
    spool.fill(2, "other")
    spool.clock.advance(HOUR)
    spool.enqueue({"id": 9, "text": "record number 9"})
    assert spool.cancel(keys=["1", "3"]).result["cancelled"] == 2
    assert spool.cancel(until=spool.clock() - HOUR).result["cancelled"] == 0
    assert spool.cancel(since=spool.clock()).result["tasks"] == {"echo": {"n": 1, "keys": ["9"]}}
    assert spool.cancel("echo", "other", until=spool.clock()).result["cancelled"] == 4
    ends(spool, cancelled=7)


def test_a_dry_run_counts_and_names_and_does_nothing(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(12)
    report = spool.cancel(dry_run=True)
    assert report.result["tasks"] == {"echo": {"n": 12, "keys": [str(n) for n in range(10)]}}
    assert spool.counts()["pending"] == 12
    assert spool.rows("SELECT count(*) FROM actions") == [(0,)]


def test_many_are_cancelled_chunk_by_chunk_each_with_its_row_in_the_log(openai_spool: Spool) -> None:
    openai_spool.fill(4500)
    assert openai_spool.cancel().result["cancelled"] == 4500
    assert openai_spool.rows("SELECT n FROM actions ORDER BY id") == [(2000,), (2000,), (500,)]
    assert openai_spool.counts()["cancelled"] == 4500
    openai_spool.check()


def test_a_replaced_key_is_cancelled_once_and_may_be_replaced_again(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(2)
    spool.enqueue({"id": 0, "text": "record number 0 anew"}, replace=True)
    assert spool.cancel().result["cancelled"] == 2
    spool.enqueue({"id": 0, "text": "record number 0 once more"}, replace=True)
    ends(spool, completed=1, cancelled=1, superseded=2)


@pytest.mark.parametrize("chosen", [{}, {"keys": ["0"]}], ids=["all", "key"])
@pytest.mark.parametrize("under_way", [False, True])
def test_one_that_runs_a_completed_one_again_gives_its_place_back(
    openai_spool: Spool, chosen: dict[str, Any], under_way: bool
) -> None:
    if under_way and chosen:
        return  # a batch is cancelled whole
    spool = openai_spool
    spool.set(events=[{"types": ["task.cancelled"], "command": ["cat"]}])
    spool.fill(1)
    spool.settle()
    before = spool.results()
    spool.set(prompt="Repeat once more: {{ text }}")
    spool.retry(statuses=[TaskStatus.COMPLETED])
    if under_way:
        spool.control.settings(delay=2 * HOUR)
        spool.dispatch()
    spool.cancel(under_way=under_way, **chosen)
    spool.settle()
    assert spool.results() == before
    assert spool.rows("SELECT status, superseded_by FROM tasks WHERE id = 2") == [("cancelled", 1)]
    ends(spool, completed=1, superseded=1)
    assert spool.rows("SELECT count(*) FROM deliveries") == [(0,)]


def test_what_was_cancelled_may_be_retried_and_cancelled_again_under_another_id(openai_spool: Spool) -> None:
    spool = openai_spool
    script = spool.folder / "tell"
    script.write_text(f"#!/bin/sh\ncat >> {spool.folder}/told.jsonl\n")
    script.chmod(0o755)
    spool.set(events=[{"types": ["task.cancelled"], "command": ["./tell"]}])
    spool.fill(1)
    for _ in range(2):
        spool.cancel()
        spool.reconcile()
        spool.retry(statuses=[TaskStatus.CANCELLED])
    first, second = (event["id"] for event in told(spool))
    assert first != second
    ends(spool, completed=1)


def test_a_batch_that_is_held_is_cancelled(openai_spool: Spool) -> None:
    spool = openai_spool
    left(spool, BatchStatus.UPLOADED)
    spool.hold("echo")
    with locks.lock(Path(f"{spool.state_path}.dispatch.lock"), spool.clock()):
        spool.cancel(under_way=True)
    spool.dispatch()
    assert spool.batches() == [(1, "failed")]
    spool.release("echo")
    ends(spool, cancelled=3)


# --- the application is told


def test_rows_and_events_tell_of_it_each_under_an_id_of_its_own(openai_spool: Spool, app: App) -> None:  # noqa: F811
    spool = openai_spool
    script = spool.folder / "tell"
    script.write_text(f"#!/bin/sh\ncat >> {spool.folder}/told.jsonl\n")
    script.chmod(0o755)
    events = [{"types": ["task.cancelled", "task.completed"], "command": ["./tell"]}]
    spool.set(write_back={**WRITE_BACK, "set_cancelled": {"error": "error.message"}, "ledger": "log"}, events=events)
    spool.fill(3)
    assert spool.cancel(keys=["0", "2"]).result["cancelled"] == 2
    assert spool.round()[2].result["rows"]["written"] == 3
    assert app.run("SELECT id FROM articles WHERE error = ? ORDER BY id", WHO) == [(0,), (2,)]
    assert spool.reconcile().result["events"]["sent"] == 0
    found = {event["data"]["key"]: event for event in told(spool)}
    assert [found[key]["type"] for key in range(3)] == ["task.cancelled", "task.completed", "task.cancelled"]
    assert {(found[key]["data"]["row"], found[key]["data"]["status"]) for key in (0, 2)} == {("written", "cancelled")}
    ids = {event["id"].removeprefix("evt_") for event in found.values()}
    assert len(ids) == 3
    assert ids == {uid for (uid,) in app.run("SELECT uid FROM log")}


def test_without_a_row_of_theirs_events_go_out_at_once_and_keep_their_id(openai_spool: Spool) -> None:
    spool = openai_spool
    script = spool.folder / "tell"
    script.write_text(f"#!/bin/sh\ncat >> {spool.folder}/told.jsonl\nexit 75\n")
    script.chmod(0o755)
    spool.set(events=[{"types": ["task.cancelled"], "command": ["./tell"]}])
    spool.fill(1)
    spool.cancel()
    for _ in range(2):
        spool.reconcile()
        spool.clock.advance(2 * HOUR)
    first, second = told(spool)
    assert first == second
    assert first["data"]["error"] == {"kind": "cancelled", "code": None, "http_status": None, "message": WHO}


# --- batches under way


def test_what_a_batch_answered_until_then_is_applied_and_billed_and_the_rest_cancelled(spool: Spool) -> None:
    sent(spool, 10)
    spool.clock.advance(HOUR)
    report = spool.cancel(under_way=True)
    assert report.exit_code == 0
    assert "is being cancelled at main; what it has answered comes home" in report.result["batches"][0]["message"]
    assert spool.control.batches()[0]["status"] in ("cancelling", "canceling")
    settled = [*spool.round(), *spool.round()]
    assert [one.exit_code for one in settled] == [0] * 6
    answered = spool.control.billing()["requests"]
    assert 0 < answered < 10
    ends(spool, completed=answered, cancelled=10 - answered)
    assert messages(spool.results(statuses=["cancelled"])) == {("cancelled", WHO)}
    assert {one["batch_id"] for one in spool.results()} == {1}
    assert routes(spool, "create") == 1
    assert spool.rows("SELECT verb, batch_id, n, why FROM actions") == [("cancel", 1, 10, "a runaway")]


def test_what_waits_ends_by_naming_what_goes_on_and_about_what_it_costs(openai_spool: Spool) -> None:
    spool = openai_spool
    sent(spool)
    spool.fill(6)
    report = spool.cancel()
    assert report.result["cancelled"] == 2
    found = report.result["under_way"]
    assert (found["batches"], found["unpriced"], float(found["estimated_cost"]) > 0) == (1, 0, True)
    assert found["message"].startswith("1 batch under way, about $0.00")
    spool.set(model="a-model-without-a-price")
    spool.fill(7)
    spool.dispatch()
    found = spool.cancel().result["under_way"]
    assert (found["batches"], found["unpriced"]) == (2, 1)
    assert found["message"].endswith(", and 1 at an unknown price")
    spool.cancel(batch=1)
    found = spool.cancel().result["under_way"]
    assert (found["message"], found["estimated_cost"]) == ("1 batch under way, at an unknown price", None)


def test_batches_name_what_still_waits(openai_spool: Spool) -> None:
    sent(openai_spool)
    openai_spool.fill(6)
    assert openai_spool.cancel(under_way=True).result["waiting"] == {"echo": 2}
    openai_spool.cancel()
    ends(openai_spool, cancelled=6)


def test_a_batch_is_cancelled_once(openai_spool: Spool) -> None:
    sent(openai_spool)
    for _ in range(2):
        assert openai_spool.cancel(batch=1).exit_code == 0
    openai_spool.poll()
    assert routes(openai_spool, "cancel") == 1
    assert openai_spool.rows("SELECT count(*) FROM actions") == [(1,)]


def test_a_dry_run_of_batches_does_nothing(openai_spool: Spool) -> None:
    sent(openai_spool)
    report = openai_spool.cancel(under_way=True, dry_run=True)
    assert report.result["batches"][0]["message"].startswith("batch 1 of echo is to be cancelled at main")
    assert report.result["under_way"]["batches"] == 1
    assert routes(openai_spool, "cancel") == 0
    assert openai_spool.rows("SELECT cancel_at FROM batches") == [(None,)]


def test_one_that_is_final_says_so(openai_spool: Spool) -> None:
    openai_spool.fill(2)
    openai_spool.settle()
    report = openai_spool.cancel(batch=1)
    assert (report.exit_code, report.worked) == (0, False)
    assert report.result["batches"][0]["message"] == "batch 1 of echo is reconciled: nothing of it goes on"
    assert openai_spool.cancel(under_way=True).result["batches"] == []
    assert openai_spool.rows("SELECT cancel_at FROM batches") == [(None,)]


@pytest.mark.parametrize(
    "fault",
    [{"what": "status", "status": 503}, {"what": "status", "status": 404}, {"what": "html"}],
)
def test_what_the_provider_does_not_take_poll_asks_for_until_it_does(spool: Spool, fault: dict[str, Any]) -> None:
    sent(spool)
    spool.server.arm({"route": "cancel", "times": 3, **fault})
    report = spool.cancel(under_way=True)
    assert report.exit_code == 3
    assert spool.rows("SELECT cancel_at, cancel_taken_at FROM batches") == [(spool.clock(), None)]
    for _ in range(2):
        spool.clock.advance(600)
        spool.poll()
    assert spool.rows("SELECT cancel_taken_at FROM batches") == [(None,)]
    spool.clock.advance(600)
    assert spool.poll().exit_code == 0
    assert spool.rows("SELECT cancel_taken_at FROM batches") == [(spool.clock(),)]
    spool.settle()
    answered = spool.control.billing()["requests"]
    ends(spool, completed=answered, cancelled=4 - answered)


def test_a_wish_that_is_not_taken_for_an_hour_needs_a_person(openai_spool: Spool) -> None:
    spool = openai_spool
    sent(spool, seconds=20 * HOUR)
    spool.control.fault("status", "cancel", status=503, times=-1)
    spool.cancel(under_way=True)
    assert spool.status()["attention"] == []
    spool.clock.advance(HOUR)
    spool.poll()
    (need,) = spool.status()["attention"]
    assert (need["batch_id"], need["hint"]) == (1, "nura poll -v")
    assert need["message"] == "batch 1: was to be cancelled 1h ago, and its provider has not taken that"
    spool.control.clear()
    spool.poll()
    assert spool.status()["attention"] == []


def test_one_that_ended_first_is_applied_whole(spool: Spool) -> None:
    sent(spool, seconds=HOUR)
    spool.clock.advance(2 * HOUR)
    report = spool.cancel(under_way=True)
    assert report.exit_code == 0
    assert spool.rows("SELECT cancel_taken_at FROM batches") == [(spool.clock(),)]
    ends(spool, completed=4)


def test_of_one_that_is_home_retries_are_cancelled(spool: Spool) -> None:
    spool.fill(4)
    spool.control.fault("rows", match="number 1", status=500)
    spool.dispatch()
    spool.poll()
    report = spool.cancel(under_way=True)
    assert report.result["batches"][0]["message"].endswith(
        "what it answered is applied, and nothing of it is tried again"
    )
    assert spool.reconcile().result["tasks"]["cancelled"] == 1
    ends(spool, completed=3, cancelled=1)
    (cancelled,) = spool.results(statuses=["cancelled"])
    assert (cancelled["key"], cancelled["error"]["kind"], cancelled["attempts"]) == (1, "provider_error", 1)


def test_one_that_is_refused_whole_gives_nothing_back(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(3)
    spool.control.fault("refuse", code="token_limit_exceeded", message="too much")
    spool.dispatch()
    spool.cancel(under_way=True)
    report = spool.poll(), spool.reconcile()
    assert report[1].problems[0].hint == "its tasks are cancelled, as was wished"
    ends(spool, cancelled=3)


def test_a_batch_whose_provider_left_the_configuration_is_cancelled_once_it_is_back(openai_spool: Spool) -> None:
    spool = openai_spool
    sent(spool)
    spool.providers = {"other": spool.providers["main"]}
    spool.set(provider="other")
    report = spool.cancel(under_way=True)
    assert report.exit_code == 3
    assert "its provider main is no longer in the configuration" in report.problems[0].message
    spool.providers = {"main": spool.providers["other"]}
    spool.set(provider="main")
    assert spool.poll().exit_code == 0
    assert routes(spool, "cancel") == 1
    ends(spool, cancelled=4)


def test_one_problem_keeps_no_other_batch_from_being_cancelled(openai_spool: Spool) -> None:
    spool = openai_spool
    sent(spool)
    spool.fill(6)
    spool.dispatch()
    spool.control.fault("drop_before", "cancel")
    report = spool.cancel(under_way=True)
    assert [found.batch_id for found in report.problems] == [1]
    assert [batch["status"] for batch in spool.control.batches()] == ["in_progress", "cancelling"]


def test_who_has_it_resent_no_longer_wishes_it_cancelled(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(2)
    spool.control.fault("drop_before", "create")
    spool.dispatch()
    spool.cancel(under_way=True)
    spool.resolve("1")
    assert spool.rows("SELECT cancel_at FROM batches") == [(None,)]
    ends(spool, completed=2)


@pytest.mark.parametrize("fault", [{"what": "lost"}, {"what": "short", "fraction": 0.5, "seconds": 10**8}])
def test_answers_that_are_lost_are_not_sent_again(openai_spool: Spool, fault: dict[str, Any]) -> None:
    spool = openai_spool
    spool.providers["main"]["on_lost"] = "resend"
    spool.write_config()
    spool.fill(4)
    spool.server.arm(fault)
    spool.dispatch()
    with State(spool.state_path, spool.clock) as state, state.transaction() as db:  # ended before the provider took it
        db.execute("UPDATE batches SET cancel_at = 1, cancel_why = 'cancelled by tim'")
    spool.settle()
    assert spool.counts()["pending"] == spool.counts()["failed"] == 0
    assert spool.counts()["cancelled"] > 0
    assert routes(spool, "create") == 1


# --- before and while it is created


def left(spool: Spool, status: BatchStatus) -> None:
    """Leave a batch as a killed dispatch leaves it."""
    spool.fill(3)
    route = "upload" if status is BatchStatus.PROCESSING else "list"
    spool.control.fault("hold", route, skip=0 if route == "upload" else 1, seconds=30, after=True)
    command = Command(spool.folder, spool.clock(), "dispatch")
    until(lambda: spool.control.held())
    command.kill()
    command.end()
    spool.control.release()
    spool.control.clear()
    assert spool.batches() == [(1, status)]


@pytest.mark.parametrize("status", [BatchStatus.PROCESSING, BatchStatus.UPLOADED])
def test_one_that_was_not_created_never_is(openai_spool: Spool, status: BatchStatus) -> None:
    spool = openai_spool
    left(spool, status)
    report = spool.cancel(under_way=True)
    assert (report.exit_code, report.result["cancelled"]) == (0, 3)
    assert report.result["batches"][0]["message"] == "batch 1 of echo was not sent, and is cancelled"
    assert spool.batches() == [(1, "failed")]
    ends(spool, cancelled=3)
    assert messages(spool.results()) == {("cancelled", WHO)}
    assert {(one["batch_id"], one["attempts"]) for one in spool.results()} == {(1, 0)}
    assert routes(spool, "create") == 0


@pytest.mark.parametrize("status", [BatchStatus.PROCESSING, BatchStatus.UPLOADED])
def test_while_a_dispatch_is_at_work_the_wish_is_left_to_it(openai_spool: Spool, status: BatchStatus) -> None:
    spool = openai_spool
    left(spool, status)
    with locks.lock(Path(f"{spool.state_path}.dispatch.lock"), spool.clock()):
        assert spool.cancel(under_way=True).exit_code == 0
        assert spool.batches() == [(1, status)]
        spool.clock.advance(HOUR)
        (need,) = spool.status()["attention"]
        assert (need["hint"], "is not undone" in need["message"]) == ("nura dispatch -v", True)
    spool.providers["main"]["base_url"] = "http://127.0.0.1:1/v1"  # which needs no provider
    spool.write_config()
    spool.dispatch()
    assert spool.batches() == [(1, "failed")]
    ends(spool, cancelled=3)


@pytest.mark.parametrize(
    ("route", "skip", "created"), [("upload", 0, 0), ("list", 1, 0), ("create", 0, 1)], ids=["upload", "look", "create"]
)
def test_a_running_dispatch_reads_the_wish_before_it_uploads_and_before_it_creates(
    spool: Spool, route: str, skip: int, created: int
) -> None:
    if route == "upload" and spool.protocol == "anthropic":
        return  # takes no upload
    spool.control.settings(delay=HOUR)
    spool.fill(3)
    spool.control.fault("hold", route, skip=skip, seconds=30)
    running = Command(spool.folder, spool.clock(), "dispatch", "--json")
    until(lambda: spool.control.held())
    assert spool.cancel(under_way=True).exit_code == 0
    spool.control.release()
    ended = running.end()
    assert ended.code == 0, ended.out
    assert routes(spool, "create") == created
    if created:
        assert spool.control.batches()[0]["status"] in ("cancelling", "canceling")
    ends(spool, cancelled=3)


@pytest.mark.parametrize("fault", ["drop_after", "drop_before"])
def test_an_unconfirmed_create_is_found_and_cancelled_or_absent_and_its_tasks_are(spool: Spool, fault: str) -> None:
    sent_anew = routes(spool, "create")
    spool.control.settings(delay=20 * HOUR)
    spool.fill(3)
    spool.control.fault(fault, "create")
    spool.dispatch()
    report = spool.cancel(under_way=True)
    assert report.result["batches"][0]["message"].endswith("may have arrived: dispatch finds out, and cancels it")
    assert spool.batches() == [(1, "submitting")]
    if fault == "drop_before":
        spool.dispatch()
        spool.clock.advance(QUARTER)
        assert spool.dispatch().exit_code == 0
        assert spool.batches() == [(1, "failed")]
    elif spool.protocol == "openai":
        spool.dispatch()
        assert spool.control.batches()[0]["status"] == "cancelling"
    spool.control.settings(delay=0)
    ends(spool, **({"cancelled": 3} if fault == "drop_before" or spool.protocol == "openai" else {"completed": 3}))
    assert routes(spool, "create") - sent_anew == 1


def test_one_taken_for_absent_that_turns_up_is_cancelled_and_what_it_cost_is_counted(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.control.settings(delay=HOUR)
    spool.fill(3)
    spool.control.fault("hide", times=-1, seconds=10**6)
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    spool.cancel(under_way=True)
    for _ in range(2):
        spool.clock.advance(QUARTER)
        spool.dispatch()
    assert spool.batches() == [(1, "failed")]
    spool.control.clear()
    spool.clock.advance(HOUR)
    for _ in range(2):
        spool.round()
    assert spool.counts()["cancelled"] == 3
    assert spool.rows("SELECT count(*) FROM attempts WHERE late") == [(3,)]
    assert float(spool.status()["cost"]["paid"]) > 0


def test_a_wish_killed_half_way_through_the_tasks_is_carried_out_by_the_next(
    openai_spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some tasks are cancelled, the others not yet, and the batch is still to be undone: none of it is ever created."""
    spool = openai_spool
    left(spool, BatchStatus.UPLOADED)
    monkeypatch.setattr(settle, "CHUNK_TASKS", 2)
    monkeypatch.setattr(State, "yield_to_writers", killed := _Killed())
    with pytest.raises(KeyboardInterrupt):
        spool.cancel(under_way=True)
    assert killed.times == 1
    assert (spool.counts()["cancelled"], spool.batches()) == (2, [(1, "uploaded")])
    monkeypatch.undo()
    spool.dispatch()
    ends(spool, cancelled=3)
    assert routes(spool, "create") == 0


class _Killed:
    """Ends the process, as far as the code under test can tell."""

    times = 0

    def __call__(self) -> None:
        self.times += 1
        raise KeyboardInterrupt


def test_killed_anywhere_it_is_simply_run_again(openai_spool: Spool) -> None:
    spool = openai_spool
    sent(spool)
    spool.fill(7)
    for options, points in (((), (45, 60)), (("--under-way",), (50, 60, 106))):
        for kill_at in points:
            ended = command(spool, "cancel", "echo", *options, "--json", kill_at=kill_at)
            assert ended.code in (-9, 0), ended
        assert command(spool, "cancel", "echo", *options).code == 0
        spool.check()
    ends(spool, cancelled=7)
    assert spool.rows("SELECT count(*), sum(n) FROM actions") == [(2, 7)]


def test_two_at_once_do_it_once(openai_spool: Spool) -> None:
    spool = openai_spool
    sent(spool)
    spool.fill(7)
    for options in ((), ("--under-way",)):
        both = [Command(spool.folder, spool.clock(), "cancel", "echo", *options) for _ in range(2)]
        assert [one.end().code for one in both] == [0, 0]
    ends(spool, cancelled=7)
    assert spool.rows("SELECT count(*), sum(n) FROM actions") == [(2, 7)]


# --- a vendor that keeps nothing of what it cancelled


def test_where_cancelling_loses_what_was_answered_that_is_said_and_agreed_to(acme: AcmeSpool) -> None:  # noqa: F811
    acme.fill(2)
    acme.dispatch()
    ended = nura("cancel", "echo", "--under-way", cwd=acme.folder)
    said = ended.stderr.decode()
    assert ended.returncode == 2
    assert "1 batch is cancelled, and Acme throws away what was answered so far, though it may be billed" in said
    assert "--yes" in said
    assert acme.rows("SELECT cancel_at FROM batches") == [(None,)]
    dry = nura("cancel", "echo", "--under-way", "-n", cwd=acme.folder)
    assert (dry.returncode, "Acme throws away" in dry.stderr.decode()) == (0, True)
    assert nura("cancel", "echo", "--under-way", "--yes", cwd=acme.folder).returncode == 0
    acme.poll()
    acme.reconcile()
    assert acme.counts()["cancelled"] == 2
    assert acme.status()["attention"] == []


# --- the command line


def test_it_says_what_was_done_and_what_goes_on(openai_spool: Spool) -> None:
    spool = openai_spool
    sent(spool)
    spool.fill(6)
    dry = command(spool, "cancel", "echo", "-n")
    assert dry.out.splitlines()[0] == "echo: 2 tasks would be cancelled: 4, 5"
    ended = command(spool, "cancel", "echo", "--why", "a runaway", "-v")
    lines = ended.out.splitlines()
    assert (ended.code, lines[0]) == (0, "echo: 2 tasks cancelled")
    assert lines[-1].startswith("1 batch under way, about $0.00")
    assert lines[-1].endswith(": nura cancel echo --under-way")
    assert spool.rows("SELECT who <> '', why FROM actions") == [(1, "a runaway")]
    spool.fill(8)  # what was cancelled may be enqueued again
    ended = command(spool, "cancel", "--batch", "1", "--json")
    found = json.loads(ended.out)
    assert (found["exit_code"], found["cancelled"], found["waiting"]) == (0, 0, {"echo": 4})
    assert (found["batches"][0]["id"], found["under_way"]["batches"]) == (1, 1)
    ended = command(spool, "cancel", "echo", "--under-way")
    assert ended.out.splitlines()[-1] == "4 tasks of echo wait: nura cancel echo"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "what is to be cancelled?"),
        (("--status", "pending"), "what is to be cancelled?"),
        (("--under-way",), "what is to be cancelled?"),
        (("nope",), "no workload nope"),
        (("nope", "--under-way"), "no workload nope"),
        (("echo", "--key", "77"), "key 77: no such key"),
        (("echo", "--status", "failed"), "--status failed: only what is pending is withdrawn"),
        (("echo", "--error", "refused"), "--error: only what is pending is withdrawn"),
        (("echo", "--under-way", "--key", "1"), "a batch is cancelled whole"),
        (("--batch", "1", "--since", "2h"), "a batch is cancelled whole"),
        (("--batch", "77"), "batch 77 is not known"),
        (("other", "--batch", "1"), "batch 1 is of echo"),
    ],
)
def test_what_cannot_be_cancelled_is_a_usage_error(openai_spool: Spool, arguments: tuple[str, ...], said: str) -> None:
    openai_spool.set("other")
    openai_spool.fill(1)
    openai_spool.dispatch()
    ended = command(openai_spool, "cancel", *arguments)
    assert ended.code == 2, ended
    assert said in ended.out
    assert openai_spool.rows("SELECT count(*) FROM actions") == [(0,)]


def test_keys_come_from_a_file_and_an_unknown_one_is_named_by_its_line(openai_spool: Spool) -> None:
    openai_spool.fill(3)
    (openai_spool.folder / "keys").write_text('0\n"nope"\n{"key": 2}\n')
    ended = command(openai_spool, "cancel", "--keys-from", "keys")
    assert (ended.code, "keys, line 2: key nope: no such key" in ended.out) == (3, True)
    assert openai_spool.counts()["cancelled"] == 2


def test_the_time_it_takes_is_the_clocks(openai_spool: Spool) -> None:
    openai_spool.fill(1)
    openai_spool.cancel()
    assert [one["finished_at"] for one in openai_spool.results()] == [clocks.rfc3339(openai_spool.clock())]
