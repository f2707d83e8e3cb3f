"""The search for the request that gets its batches refused: nobody fails without a witness, and nothing goes on for ever."""

import sqlite3
from typing import Any

import pytest

from nura_cli.pipeline.report import Report
from nura_cli.pipeline.search import MOST_REFUSALS
from nura_cli.state import State
from tests.conftest import Spool
from tests.pipeline.forks import Command

pytestmark = pytest.mark.long

ODD = {"code": "odd_trouble", "message": "nobody knows this word"}
HOUR = 3600


def rounds(spool: Spool, n: int, seconds: int = 2 * HOUR) -> list[Report]:
    """Let cron run n times, with time in between; return what reconcile said."""
    said = []
    for _ in range(n):
        said.append(spool.round()[2])
        spool.clock.advance(seconds)
    return said


def sizes(spool: Spool) -> list[int]:
    """Return how many requests each batch had, in their order."""
    return [n for (n,) in spool.rows("SELECT requests FROM batches ORDER BY id")]


def suspects(spool: Spool) -> list[tuple[Any, ...]]:
    """Return the suspects: task, how, and the batch that was refused."""
    return spool.rows("SELECT task_id, how, batch_id FROM suspects ORDER BY task_id")


def one_by_one(spool: Spool, requests: int = 1) -> None:
    """Let a batch hold so many requests."""
    spool.providers["main"] = spool.provider(limits={"requests": requests})
    spool.write_config()


# --- trouble that is nobody's


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("limit", [64, 8])
def test_trouble_in_words_that_nobody_knows_fails_no_task(spool: Spool, limit: int, earlier: bool) -> None:
    """An account's trouble refused whatever was sent: 64 of 64 failed for good in half an hour."""
    one_by_one(spool, limit)
    if earlier:
        spool.enqueue({"id": "before", "text": "record number before"})
        spool.settle()
    fault = spool.control.fault("refuse", times=-1, **ODD)
    spool.fill(64)
    rounds(spool, 12)
    assert (spool.counts()["failed"], spool.counts()["pending"]) == (0, 64)
    assert spool.status()["holds"] == []
    spool.control.clear(fault)
    spool.settle()
    assert spool.counts()["completed"] == 64 + earlier
    assert suspects(spool) == []
    spool.check()


def test_a_search_without_a_witness_rests_longer_each_time(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(64)
    spool.control.fault("refuse", times=-1, **ODD)
    spool.round()
    (paused,) = spool.status()["paused"]
    assert paused["why"].startswith("odd_trouble: nobody knows this word")
    assert "no request is found to blame: 1 of 20" in paused["why"]
    assert spool.dispatch().result["not_due"]["paused"] == 64
    spool.clock.advance(2 * HOUR)
    rounds(spool, 3)
    assert "4 of 20" in str(spool.rows("SELECT why FROM routes"))
    assert sizes(spool) == [64, 32, 32, 16]


def test_after_twenty_refusals_a_person_decides_and_then_they_fail_one_by_one(spool: Spool) -> None:
    spool.fill(5)
    fault = spool.control.fault("refuse", times=-1, **ODD)
    held = []
    for _ in range(60):
        dispatched, _, reconciled = spool.round()
        held += [one for one in (*dispatched.problems, *reconciled.problems) if one.kind == "held"]
        if held:
            break
        spool.clock.advance(2 * HOUR)
    assert [(one.exit_code, one.workload) for one in held] == [(3, "echo")]
    assert "20 of its batches in a row were refused, and no request is found to blame: odd_trouble" in held[0].message
    assert len(spool.batches()) == MOST_REFUSALS
    (hold,) = spool.status()["holds"]
    assert "held by nura" in hold["message"]
    rounds(spool, 2)
    assert len(spool.batches()) == MOST_REFUSALS
    assert spool.counts()["pending"] == 5
    spool.release("echo")
    rounds(spool, 12)
    assert spool.counts()["failed"] == 5
    spool.control.clear(fault)
    spool.check()


def test_what_was_released_is_let_go_where_the_trouble_is_over(spool: Spool) -> None:
    spool.fill(5)
    fault = spool.control.fault("refuse", times=-1, **ODD)
    rounds(spool, MOST_REFUSALS)
    assert spool.status()["holds"] != []
    spool.control.clear(fault)
    spool.release("echo")
    assert suspects(spool) == []
    spool.settle()
    assert spool.counts()["completed"] == 5


def test_after_a_release_halving_goes_on_without_a_rest(spool: Spool) -> None:
    spool.fill(9)
    fault = spool.control.fault("refuse", times=-1, **ODD)
    rounds(spool, MOST_REFUSALS)
    spool.control.clear(fault)
    spool.control.fault("refuse", times=-1, match="number 5", **ODD)
    spool.release("echo")
    for _ in range(8):
        spool.round()  # without time in between
    assert (spool.counts()["completed"], spool.counts()["failed"]) == (8, 1)


def test_twenty_that_were_under_way_together_count_once(openai_spool: Spool) -> None:
    spool = openai_spool
    one_by_one(spool)
    spool.fill(25)
    spool.control.fault("refuse", times=25, **ODD)
    spool.round()
    assert len(spool.batches()) == 25
    assert spool.rows("SELECT refusals FROM standings") == [(1,)]
    assert spool.status()["holds"] == []
    spool.clock.advance(HOUR)
    spool.settle()
    assert spool.counts()["completed"] == 25


@pytest.mark.parametrize("code", ["insufficient_quota", "server_error"])
def test_an_accounts_trouble_that_goes_on_is_held_and_no_task_is_searched_for(openai_spool: Spool, code: str) -> None:
    spool = openai_spool
    spool.fill(3)
    fault = spool.control.fault("refuse", code=code, message="no", times=-1)
    *before, last = rounds(spool, MOST_REFUSALS)
    assert not [one for said in before for one in said.problems if one.kind == "held"]
    (held,) = [one for one in last.problems if one.kind == "held"]
    assert f"20 of its batches in a row were refused: {code}: no" in held.message
    assert suspects(spool) == []
    spool.release("echo")
    rounds(spool, 3)
    assert spool.rows("SELECT refusals, pardoned FROM standings") == [(3, "")]
    assert spool.status()["holds"] == []
    spool.control.clear(fault)
    spool.settle()
    assert spool.counts()["completed"] == 3
    assert spool.rows("SELECT max(attempts) FROM tasks") == [(1,)]


def test_a_full_queue_never_counts(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(2)
    spool.control.fault("refuse", code="token_limit_exceeded", message="full", times=-1)
    rounds(spool, MOST_REFUSALS + 5)
    assert spool.status()["holds"] == []
    assert spool.counts()["pending"] == 2


# --- with a witness


@pytest.mark.parametrize("culprit", range(9))
def test_the_one_to_blame_is_found_wherever_it_stands(spool: Spool, culprit: int) -> None:
    spool.fill(9)
    spool.control.fault("refuse", times=-1, match=f"number {culprit}", **ODD)
    rounds(spool, 12)
    (failed,) = spool.results(statuses=["failed"])
    assert (failed["key"], failed["error"]["kind"], failed["error"]["code"]) == (culprit, "refused", "odd_trouble")
    assert failed["attempts"] == 1
    assert spool.counts()["completed"] == 8
    assert spool.control.billing()["requests"] == 8
    assert suspects(spool) == []
    spool.check()


def test_of_a_pair_the_one_fails_once_the_other_was_taken(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(2)
    spool.control.fault("refuse", times=-1, match="number 0", **ODD)
    rounds(spool, 1)
    assert suspects(spool) == [(1, "among", 1), (2, "among", 1)]
    rounds(spool, 1)  # the one to blame goes first, and nobody was taken before: once more
    assert (sizes(spool), suspects(spool)) == ([2, 1], [(1, "alone", 2), (2, "among", 1)])
    rounds(spool, 1)
    assert (spool.counts()["pending"], spool.counts()["completed"]) == (1, 1)
    rounds(spool, 1)
    assert (spool.counts()["failed"], spool.counts()["completed"]) == (1, 1)
    assert sizes(spool) == [2, 1, 1, 1]


def test_one_that_is_refused_alone_waits_for_a_witness(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(1)
    spool.control.fault("refuse", times=-1, match="number 0", **ODD)
    rounds(spool, 5)
    assert (spool.counts()["pending"], suspects(spool)) == (1, [(1, "alone", 5)])
    spool.enqueue({"id": 7, "text": "record number 7"})
    rounds(spool, 1)
    assert (spool.counts()["failed"], spool.counts()["completed"]) == (1, 1)
    assert spool.status()["holds"] == []


def test_what_was_taken_before_a_refusal_is_no_witness(openai_spool: Spool) -> None:
    """Whatever the clocks say: all of this happens within one second."""
    spool = openai_spool
    one_by_one(spool)
    spool.fill(3)
    spool.control.fault("refuse", times=-1, match="number 1", **ODD)
    spool.round()
    for _ in range(3):
        spool.dispatch(ignore_waits=True)
        spool.poll()
        spool.reconcile()
    assert (spool.counts()["completed"], spool.counts()["pending"]) == (2, 1)
    spool.enqueue({"id": 7, "text": "record number 7"})
    spool.dispatch(ignore_waits=True)
    spool.poll()
    spool.reconcile()
    assert (spool.counts()["completed"], spool.counts()["failed"]) == (3, 1)


def test_a_clock_that_was_set_makes_no_witness_of_what_came_before(openai_spool: Spool) -> None:
    spool = openai_spool
    one_by_one(spool)
    spool.clock.time += 400 * 86400
    spool.enqueue({"id": 7, "text": "record number 7"})
    spool.round()
    spool.clock.time -= 400 * 86400
    spool.fill(1)
    fault = spool.control.fault("refuse", times=-1, **ODD)
    rounds(spool, 5)
    assert spool.counts()["pending"] == 1
    rounds(spool, MOST_REFUSALS - 5)
    assert spool.status()["holds"] != []
    spool.control.clear(fault)


def test_a_batch_that_was_refused_after_all_is_no_witness(openai_spool: Spool) -> None:
    """A gateway says that it is at work on a batch, and refuses it later."""
    spool = openai_spool
    one_by_one(spool)
    spool.fill(2)
    spool.control.settings(delay=600)
    spool.dispatch()
    spool.poll()
    assert spool.rows("SELECT count(*) FROM batches WHERE validated_at IS NOT NULL") == [(2,)]
    with sqlite3.connect(spool.state_path) as db:
        db.execute("UPDATE batches SET status = 'completed', parts = '{}', spooled = '{}', faults = '[]'")
    db.close()
    spool.reconcile()
    assert (spool.counts()["pending"], len(suspects(spool))) == (2, 2)


def test_suspects_go_last_and_share_no_batch_with_others(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(8)
    spool.control.fault("refuse", times=-1, match="number 3", **ODD)
    spool.control.settings(delay=20 * HOUR)
    rounds(spool, 1)
    spool.enqueue(*({"id": n, "text": f"record number {n}"} for n in range(10, 16)))
    report = spool.dispatch()
    assert [batch["requests"] for batch in report.result["batches"]] == [6, 4]
    assert spool.rows("SELECT DISTINCT batch_id FROM tasks WHERE id > 8") == [(2,)]
    (wait,) = report.result["waits"]
    assert (wait["why"], wait["tasks"]) == ("paused", 4)
    assert "may be to blame" in wait["message"]
    assert spool.dispatch().result["not_due"]["paused"] == 4  # one batch of them at a time, as long as nobody was taken
    spool.poll()
    spool.reconcile()
    spool.clock.advance(HOUR)
    assert [batch["requests"] for batch in spool.dispatch().result["batches"]] == [4]  # the other half goes first
    spool.poll()
    assert [batch["requests"] for batch in spool.dispatch().result["batches"]] == [2, 2]


def test_what_is_new_is_not_kept_waiting_by_a_search(spool: Spool) -> None:
    spool.fill(40)
    spool.control.fault("refuse", times=-1, match="record number", **ODD)
    rounds(spool, 4)
    for n in range(6):
        spool.enqueue({"id": f"new {n}", "text": "something else"})
        spool.round()
        spool.clock.advance(2 * HOUR)
        assert spool.counts()["completed"] == n + 1


def test_a_search_in_one_workload_stops_no_other_on_its_route(spool: Spool) -> None:
    spool.set("second")
    spool.fill(8)
    spool.control.fault("refuse", times=-1, match="record number", **ODD)
    rounds(spool, 3)
    for n in range(5):
        spool.enqueue({"id": n, "text": f"something else {n}"}, workload="second")
        rounds(spool, 1)
        assert spool.status()["workloads"]["second"]["tasks"]["completed"] == n + 1
    assert spool.status()["workloads"]["echo"]["tasks"]["failed"] == 0


def test_of_two_workloads_with_one_spec_each_has_its_own_witness(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.set("second")
    spool.fill(1)
    spool.control.fault("refuse", times=-1, match="number 0", **ODD)
    rounds(spool, 1)
    spool.enqueue({"id": 7, "text": "record number 7"}, workload="second")
    rounds(spool, 2)
    assert spool.status()["workloads"]["second"]["tasks"]["completed"] == 1
    assert spool.status()["workloads"]["echo"]["tasks"]["pending"] == 1


# --- lines that are named


def test_all_lines_that_are_named_are_set_aside_at_once(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.enqueue(*({"id": n, "text": f"record number {n} {'wrong' if n % 4 == 1 else ''}"} for n in range(40)))
    spool.control.fault("refuse", times=-1, match="wrong", line="matches", code="invalid_request", message="it is bad")
    rounds(spool, 2)
    assert sizes(spool) == [40, 30]
    failed = spool.results(statuses=["failed"])
    assert sorted(one["key"] for one in failed) == list(range(1, 40, 4))
    assert {(one["error"]["code"], one["error"]["message"], one["attempts"]) for one in failed} == {
        ("invalid_request", "it is bad", 1)
    }
    assert spool.rows("SELECT count(*), min(batch_id), max(batch_id) FROM attempts WHERE outcome = 'refused'") == [
        (10, 1, 1)
    ]
    assert spool.counts()["completed"] == 30
    assert suspects(spool) == []
    spool.check()


def test_named_ones_fail_as_soon_as_the_rest_was_taken(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.set(events=[{"command": ["/bin/cat"], "types": ["task.failed"]}])
    spool.fill(6)
    spool.control.settings(delay=20 * HOUR)
    spool.control.fault("refuse", line=3, code="invalid_request", message="it is bad")
    assert spool.round()[2].result["events"]["sent"] == 0
    assert spool.counts()["failed"] == 0
    assert [batch["requests"] for batch in spool.dispatch().result["batches"]] == [5]
    assert spool.reconcile().result["tasks"]["failed"] == 0  # nobody knows yet whether they are taken
    assert spool.dispatch().result["batches"] == []
    spool.poll()
    report = spool.reconcile()
    assert (report.result["tasks"]["failed"], report.result["events"]["sent"], report.exit_code) == (1, 1, 3)
    assert spool.counts()["submitted"] == 5


def test_ten_bad_lines_of_which_one_is_named_each_time_all_fail(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.enqueue(*({"id": n, "text": f"record number {n} {'wrong' if n % 3 == 2 else ''}"} for n in range(12)))
    spool.control.fault("refuse", times=-1, match="wrong", line="match", code="invalid_request", message="it is bad")
    rounds(spool, 5)
    assert sizes(spool) == [12, 11, 10, 9, 8]
    assert (spool.counts()["failed"], spool.counts()["completed"]) == (4, 8)


@pytest.mark.parametrize("times", [2, 3, 7])
def test_what_concerns_the_whole_file_and_is_called_line_1_fails_nobody(openai_spool: Spool, times: int) -> None:
    spool = openai_spool
    spool.fill(12)
    spool.control.fault("refuse", times=times, line=1, **ODD)
    rounds(spool, times + 6)
    assert spool.counts()["completed"] == 12
    assert suspects(spool) == []
    spool.check()


def test_thirty_bad_lines_of_which_one_is_named_each_time_hold_nobody_up(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.enqueue(*({"id": n, "text": f"{'wrong' if n % 2 else 'good'} record number {n} "} for n in range(60)))
    spool.control.fault("refuse", times=-1, match="wrong record", line="match", **ODD)
    rounds(spool, 35)
    assert spool.status()["holds"] == []
    assert (spool.counts()["failed"], spool.counts()["completed"]) == (30, 30)
    spool.check()


def test_line_1_for_ever_is_held_and_fails_nobody(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(12)
    fault = spool.control.fault("refuse", times=-1, line=1, **ODD)
    rounds(spool, MOST_REFUSALS)
    assert (spool.counts()["pending"], len(spool.status()["holds"])) == (12, 1)
    spool.release("echo")
    rounds(spool, 1)
    assert spool.counts()["failed"] == 1  # as a person decided: named, and so it fails
    spool.control.clear(fault)
    spool.settle()
    assert (spool.counts()["failed"], spool.counts()["completed"]) == (1, 11)


def test_where_every_line_is_named_nobody_is(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(6)
    fault = spool.control.fault("refuse", times=-1, match="record", line="matches", **ODD)
    rounds(spool, MOST_REFUSALS + 2)
    assert (spool.counts()["pending"], len(spool.status()["holds"])) == (6, 1)
    assert len(spool.batches()) == MOST_REFUSALS
    spool.control.clear(fault)
    spool.release("echo")
    spool.settle()
    assert spool.counts()["completed"] == 6


def test_bad_lines_that_stand_in_one_place_after_another_fail_once_they_were_tried_alone(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.enqueue(*({"id": n, "text": f"record number {n} {'wrong' if n < 2 else ''}"} for n in range(8)))
    spool.control.fault("refuse", times=-1, match="wrong", line="match", code="invalid_request", message="it is bad")
    rounds(spool, 5)
    assert sizes(spool) == [8, 7, 6, 1, 1]
    assert (spool.counts()["failed"], spool.counts()["completed"]) == (2, 6)


@pytest.mark.parametrize("limit", [6, 4])
def test_that_some_of_those_named_are_taken_convicts_none_of_the_others(openai_spool: Spool, limit: int) -> None:
    """All lines of a file are named, and there is no rest to wait for; then the trouble is over."""
    spool = openai_spool
    spool.fill(6)
    spool.control.fault("refuse", match="record", line="matches", **ODD)
    rounds(spool, 1)
    one_by_one(spool, limit)
    rounds(spool, 4)
    assert spool.counts()["completed"] == 6
    assert sizes(spool)[1] == limit


# --- what else may happen meanwhile


def test_another_prompt_starts_the_search_anew(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(8)
    spool.control.fault("refuse", times=1, **ODD)
    rounds(spool, 1)
    assert len(suspects(spool)) == 8
    spool.set(prompt="Please repeat: {{ text }}")
    assert [batch["requests"] for batch in spool.preview().result["batches"]] == [8]
    assert [batch["requests"] for batch in spool.dispatch().result["batches"]] == [8]
    assert suspects(spool) == []


@pytest.mark.parametrize("how", ["replaced", "withdrawn", "wished"])
def test_who_waits_no_more_is_no_suspect(openai_spool: Spool, how: str) -> None:
    spool = openai_spool
    spool.fill(4)
    spool.control.fault("refuse", times=1, **ODD)
    if how == "wished":
        spool.dispatch()
        spool.cancel(batch=1)
        spool.poll()
        spool.reconcile()
        assert (suspects(spool), spool.rows("SELECT refusals FROM standings")) == ([], [])
        return
    rounds(spool, 1)
    if how == "replaced":
        spool.enqueue(*({"id": n, "text": f"record number {n} anew"} for n in range(4)), replace=True)
    else:
        spool.cancel()
    assert suspects(spool) == []


def test_suspects_that_an_earlier_release_replaced_are_forgotten(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(2)
    spool.control.fault("refuse", times=1, **ODD)
    rounds(spool, 1)
    with State(spool.state_path) as state, state.transaction() as db:
        db.execute("DELETE FROM counts")
        db.execute("UPDATE tasks SET status = 'cancelled', superseded_by = 1")
    assert spool.dispatch().result["batches"] == []
    spool.reconcile()
    assert suspects(spool) == []


def test_a_batch_of_suspects_that_was_not_sent_leaves_them_as_they_were(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(8)
    spool.control.fault("refuse", times=1, **ODD)
    rounds(spool, 1)
    before = suspects(spool)
    spool.control.fault("status", "upload", status=503)
    spool.dispatch()
    assert (suspects(spool), spool.counts()["pending"]) == (before, 8)
    rounds(spool, 3)
    assert spool.counts()["completed"] == 8


@pytest.mark.parametrize("route", ["upload", "create"])
def test_a_file_that_is_called_too_large_with_a_400_is_sent_in_smaller_ones(openai_spool: Spool, route: str) -> None:
    spool = openai_spool
    spool.fill(8)
    spool.control.fault("status", route, status=400, code="file_too_large", message="File is too large.")
    spool.dispatch()
    spool.settle()
    assert spool.counts()["completed"] == 8
    assert sizes(spool)[:3] == [8, 4, 4]


def test_a_create_that_is_refused_for_ever_is_held(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(2)
    fault = spool.control.fault("status", "create", status=400, times=-1, **ODD)
    rounds(spool, MOST_REFUSALS)
    assert "20 of its batches in a row were refused: odd_trouble" in spool.status()["holds"][0]["message"]
    assert (suspects(spool), spool.counts()["pending"]) == ([], 2)
    spool.control.clear(fault)
    spool.release("echo")
    spool.settle()
    assert spool.counts()["completed"] == 2


@pytest.mark.parametrize(
    "kill_at", [3, 25, *(pytest.param(n, marks=pytest.mark.long) for n in (12, 40, *range(50, 140, 6)))]
)
@pytest.mark.parametrize("line", [None, "match"])
def test_a_search_goes_on_wherever_it_was_killed(openai_spool: Spool, line: str | None, kill_at: int) -> None:
    """Each stage of each round is killed at one of its calls that reach out, and then simply run again."""
    spool = openai_spool
    spool.fill(6)
    spool.control.fault("refuse", times=-1, match="number 2", line=line, **ODD)
    for turn in range(5):
        for number, stage in enumerate(("dispatch", "poll", "reconcile")):
            Command(spool.folder, spool.clock(), stage, kill_at=kill_at + 7 * turn + 3 * number).end()
        rounds(spool, 1)
    rounds(spool, 2)
    assert (spool.counts()["completed"], spool.counts()["failed"]) == (5, 1)
    assert (spool.control.billing()["requests"], suspects(spool)) == (5, [])
    spool.check()
