"""Whose fault a refusal is: what fails alike holds its workload, an expiry is no attempt, and fewer attempts hold for all."""

from typing import Any

import pytest

from nura_cli.errors import EX_OK, EX_PARTIAL, ProblemKind
from nura_cli.pipeline import blame
from nura_cli.pipeline.blame import Form, Rows
from nura_cli.pipeline.report import Report, ordinal
from nura_cli.state import State, batches, outcomes
from nura_cli.state.answers import Failure
from nura_cli.states import Blame, ErrorKind, Excuse
from tests.conftest import Spool

pytestmark = pytest.mark.long

WRONG = "Unsupported parameter: 'max_tokens' is not supported with this model."


def holds(spool: Spool) -> list[str]:
    """Return why nura itself holds workloads."""
    return [hold["origin"] for hold in spool.status()["holds"] if hold["origin"]]


def messages(report: Report, kind: ProblemKind) -> list[str]:
    """Return what a report says of a kind of problem."""
    return [found.message for found in report.problems if found.kind is kind]


def batch(spool: Spool, *records: dict[str, Any]) -> Report:
    """Send records as a batch of their own; return what reconcile says of it."""
    spool.enqueue(*records)
    return spool.round()[2]


def text(n: int, words: str = "good") -> dict[str, Any]:
    """Return a record."""
    return {"id": n, "text": f"{words} record number {n} "}


def odd(n: int) -> dict[str, Any]:
    """Return a record that the prompt of the next tests cannot be rendered with."""
    return {"id": n, "text": None}


UPPER = "Say: {{ text.upper() }}"


# --- refused alike


def test_a_backlog_that_is_refused_alike_holds_its_workload_and_none_of_it_fails(spool: Spool) -> None:
    spool.fill(64)
    spool.control.fault("rows", status=400, message=WRONG, times=-1)
    _, _, settled = spool.round()
    assert settled.exit_code == EX_PARTIAL
    assert settled.result["tasks"] == {
        **dict.fromkeys(("completed", "failed", "missing", "late", "cancelled"), 0),
        "retried": 64,
    }
    (held,) = [one for one in settled.problems if one.kind is ProblemKind.HELD]
    assert (held.exit_code, held.hint) == (EX_PARTIAL, "nura release echo")
    assert "64 requests of batch 1" in held.message
    assert WRONG in held.message
    assert spool.rows("SELECT DISTINCT status, attempts FROM tasks") == [("pending", 0)]
    assert set(spool.rows("SELECT outcome, excused FROM attempts")) == {("refused", "alike")}
    (need,) = spool.status()["attention"]
    assert need["hint"] == "nura release echo"
    spool.clock.advance(86400)
    sent, _, settled = spool.round()
    assert (sent.result["requests"], sent.exit_code, settled.exit_code) == (0, EX_OK, EX_OK)
    assert sent.result["not_due"]["held"] == 64
    spool.check()


def test_with_its_options_mended_and_released_it_goes_out_anew(spool: Spool) -> None:
    spool.fill(8)
    spool.control.fault("rows", status=400, message=WRONG)
    spool.round()
    spool.set(params={"max_tokens": 200})
    assert spool.dispatch().result["requests"] == 0
    assert "released: echo is held by nura" in spool.release("echo").result["released"][0]["message"]
    spool.settle()
    assert spool.counts()["completed"] == 8
    assert {answer["attempts"] for answer in spool.results()} == {1}
    spool.check()


def test_after_release_what_is_not_mended_fails_one_by_one(spool: Spool) -> None:
    spool.fill(8)
    spool.control.fault("rows", match="number", status=400, message=WRONG, times=-1)
    spool.round()
    spool.release("echo")
    spool.settle()
    assert spool.counts()["failed"] == 8
    assert holds(spool) == []
    batch(spool, *(text(n) for n in range(10, 20)))
    assert spool.counts()["failed"] == 18  # a revision that was let go on is not held again
    spool.check()


def test_another_revision_is_judged_anew(spool: Spool) -> None:
    spool.fill(8)
    spool.control.fault("rows", match="number", status=400, message=WRONG, times=-1)
    spool.round()
    spool.set(params={"max_tokens": 200})
    spool.release("echo")
    spool.round()
    assert len(holds(spool)) == 1
    assert spool.counts()["pending"] == 8
    assert spool.counts()["failed"] == 0


def test_five_bad_rows_of_a_hundred_fail_alone(spool: Spool) -> None:
    spool.enqueue(*(text(n, "bad" if n % 20 == 0 else "good") for n in range(100)))
    spool.control.fault("rows", match="bad record", status=400, message=WRONG, times=-1)
    _, _, settled = spool.round()
    assert settled.result["tasks"]["failed"] == 5
    assert spool.counts()["completed"] == 95
    assert holds(spool) == []
    assert set(spool.rows("SELECT excused FROM attempts")) == {(None,)}


@pytest.mark.parametrize(("bad", "good", "held"), [(50, 5, True), (49, 1, False), (60, 10, False)])
def test_where_some_were_answered_it_takes_fifty_that_are_nine_in_ten(
    spool: Spool, bad: int, good: int, held: bool
) -> None:
    records = [text(n, "bad" if n < bad else "good") for n in range(bad + good)]
    spool.enqueue(*records)
    spool.control.fault("rows", match="bad record", status=400, message=WRONG, times=-1)
    spool.round()
    assert spool.counts()["completed"] == good
    assert (spool.counts()["failed"], spool.counts()["pending"]) == ((0, bad) if held else (bad, 0))
    assert bool(holds(spool)) is held
    spool.check()


def test_it_is_counted_across_batches(spool: Spool) -> None:
    spool.control.fault("rows", match="number", status=400, message=WRONG, times=-1)
    batch(spool, text(1), text(2))
    batch(spool, text(3), text(4))
    assert spool.counts()["failed"] == 4
    settled = batch(spool, text(5))
    assert messages(settled, ProblemKind.HELD)
    assert (spool.counts()["failed"], spool.counts()["pending"]) == (4, 1)


def test_what_was_refused_more_than_a_day_ago_does_not_count(spool: Spool) -> None:
    spool.control.fault("rows", match="number", status=400, message=WRONG, times=-1)
    batch(spool, *(text(n) for n in range(4)))
    spool.clock.advance(25 * 3600)
    batch(spool, text(5))
    assert spool.counts()["failed"] == 5


def test_what_comes_home_while_it_is_held_waits_too(spool: Spool) -> None:
    spool.control.fault("rows", match="number", status=400, message=WRONG, times=-1)
    spool.control.settings(delay=3600)
    spool.fill(5)
    spool.dispatch()
    spool.clock.advance(1800)
    spool.enqueue(text(7), text(8))
    spool.dispatch()
    spool.clock.advance(1900)
    spool.poll()
    spool.reconcile()
    assert len(holds(spool)) == 1
    spool.clock.advance(2 * 86400)
    spool.poll()
    again = spool.reconcile()
    assert messages(again, ProblemKind.HELD) == []
    assert spool.counts()["pending"] == 7


def test_what_was_replaced_meanwhile_is_not_sent_again(spool: Spool) -> None:
    spool.fill(6)
    spool.control.fault("rows", match="number", status=400, message=WRONG, times=-1)
    spool.dispatch()
    spool.enqueue({"id": 0, "text": "record number 0 anew"}, replace=True)
    spool.poll()
    spool.reconcile()
    assert spool.rows("SELECT status, count(*) FROM tasks GROUP BY 1") == [("failed", 1), ("pending", 6)]
    spool.check()


def test_of_a_batch_that_a_person_cancelled_nothing_waits_again(spool: Spool) -> None:
    spool.fill(6)
    spool.control.settings(delay=60)
    spool.control.fault("rows", match="number", status=400, message=WRONG, times=-1)
    spool.dispatch()
    spool.cancel(batch=1)
    spool.clock.advance(120)
    spool.poll()
    spool.reconcile()
    assert spool.counts()["pending"] == 0
    assert holds(spool) == []
    spool.check()


def test_a_person_s_release_of_a_workload_that_is_not_held_pardons_nothing(spool: Spool) -> None:
    spool.control.fault("rows", match="number", status=400, message=WRONG, times=-1)
    batch(spool, text(1))
    spool.hold("echo")
    spool.release("echo")
    batch(spool, *(text(n) for n in range(2, 8)))
    assert len(holds(spool)) == 1


def test_what_was_under_way_at_the_release_waits_and_goes_out_mended(spool: Spool) -> None:
    spool.providers["main"] = spool.provider(limits={"requests": 6})
    spool.write_config()
    spool.control.settings(delay=3600)
    spool.fill(18)
    spool.control.fault("rows", match="number", status=400, message=WRONG, times=3)
    spool.dispatch()
    spool.clock.advance(3700)
    spool.control.fault("status", "download", status=500, times=2)
    spool.poll()
    spool.reconcile()
    assert spool.counts()["submitted"] > 0
    assert len(holds(spool)) == 1
    spool.set(params={"max_tokens": 200})
    spool.release("echo")
    spool.poll()
    spool.reconcile()
    assert (spool.counts()["failed"], spool.counts()["pending"]) == (0, 18)
    assert holds(spool) == []  # it was let go on
    spool.settle()
    assert spool.counts()["completed"] == 18
    spool.check()


def test_a_pardon_is_for_what_the_workload_was_held_for(spool: Spool) -> None:
    spool.set(prompt=UPPER)
    spool.enqueue(*(odd(n) for n in range(6)))
    spool.dispatch()
    spool.release("echo")
    spool.dispatch()
    assert spool.counts()["failed"] == 6
    spool.control.fault("rows", match="NUMBER", status=400, message=WRONG, times=-1)
    batch(spool, *(text(n) for n in range(50, 60)))
    assert (spool.counts()["failed"], spool.counts()["pending"]) == (6, 10)
    assert len(holds(spool)) == 1


def test_another_address_is_judged_by_what_it_answered_itself(spool: Spool) -> None:
    batch(spool, *(text(n) for n in range(3)))
    assert spool.counts()["completed"] == 3
    spool.providers["other"] = spool.provider()
    spool.providers["other"]["base_url"] = spool.providers["main"]["base_url"].replace("127.0.0.1", "localhost")
    spool.set(provider="other")
    with State(spool.state_path, spool.clock) as state, state.transaction() as db:
        batches.note_shown(db, f"{spool.protocol} {spool.providers['other']['base_url']}", "an earlier batch")
    spool.control.fault("rows", match="number", status=400, message=WRONG, times=-1)
    batch(spool, *(text(n) for n in range(10, 20)))
    assert (spool.counts()["failed"], spool.counts()["pending"]) == (0, 10)


# --- the account's trouble

MONEY: dict[str, dict[str, Any]] = {
    "openai": {"status": 429, "code": "insufficient_quota", "message": "You exceeded your current quota."},
    "anthropic": {"status": 400, "message": "Your credit balance is too low to access the Anthropic API."},
}
LIMITS: dict[str, Any] = {
    "status": 400,
    "message": "You have reached your specified API usage limits. You will regain access on 2026-12-01.",
}


def money(spool: Spool, **options: Any) -> None:
    """Let rows fail for want of money."""
    spool.control.fault("rows", **MONEY[spool.protocol], **options)


def rests(spool: Spool) -> list[tuple[int, str]]:
    """Return how long routes rest, in seconds, and why."""
    return [(until - spool.clock(), why) for until, why in spool.rows("SELECT paused_until, why FROM routes")]


def test_without_money_nothing_fails_and_nothing_is_counted(spool: Spool) -> None:
    spool.fill(64)
    money(spool, times=-1)
    sent = []
    for _ in range(6):  # two days of cron
        sent.append(spool.round()[0].result["requests"])
        spool.clock.advance(8 * 3600)
    assert sent == [64] * 6
    assert spool.rows("SELECT DISTINCT status, attempts FROM tasks") == [("pending", 0)]
    assert spool.rows("SELECT DISTINCT excused FROM attempts") == [("account",)]
    assert holds(spool) == []
    spool.control.clear()
    spool.settle()
    assert {answer["attempts"] for answer in spool.results()} == {1}
    spool.check()


def test_the_route_rests_for_longer_each_time(spool: Spool) -> None:
    spool.fill(3)
    money(spool, times=-1)
    pauses = []
    for _ in range(4):
        settled = spool.round()[2]
        assert settled.exit_code == EX_PARTIAL
        (said,) = messages(settled, ProblemKind.REFUSED)
        assert said.startswith("echo: 3 tasks wait again, no attempt counted: ")
        assert MONEY[spool.protocol]["message"] in said
        ((seconds, why),) = rests(spool)
        assert MONEY[spool.protocol]["message"] in why
        pauses.append(seconds)
        waits = spool.dispatch()
        assert waits.result["requests"] == 0
        spool.clock.advance(max(seconds, 6 * 60))
    assert all(225 * 2**n <= pause <= 300 * 2**n for n, pause in enumerate(pauses))


def test_a_task_that_is_put_back_twenty_times_is_held_with_its_workload(spool: Spool) -> None:
    spool.fill(3)
    money(spool, times=-1)
    for n in range(25):
        spool.round()
        assert bool(holds(spool)) is (n >= 19)
        spool.clock.advance(2 * 3600)
    (reason,) = holds(spool)
    assert "20 times" in reason
    assert spool.counts()["pending"] == 3
    spool.release("echo")
    for _ in range(20):  # the count starts anew
        assert holds(spool) == []
        spool.round()
        spool.clock.advance(2 * 3600)
    assert len(holds(spool)) == 1
    spool.control.clear()
    spool.release("echo")
    spool.settle()
    assert spool.counts()["completed"] == 3
    spool.check()


def test_a_release_after_the_accounts_trouble_ends_its_pauses_whatever_was_mended(spool: Spool) -> None:
    spool.fill(3)
    money(spool, times=-1)
    for _ in range(20):
        spool.round()
        spool.clock.advance(2 * 3600)
    spool.clock.advance(-2 * 3600)
    assert rests(spool)
    spool.set(params={"max_tokens": 200})
    released = spool.release("echo").result
    assert [one["provider"] for one in released["resumed"]] == ["main"]
    assert rests(spool) == []
    spool.clock.advance(6 * 60)
    assert spool.round()[0].result["requests"] == 3
    assert holds(spool) == []  # another revision counts from the release on, too
    spool.check()


def test_a_task_that_is_retried_is_counted_anew(spool: Spool) -> None:
    spool.fill(2)
    money(spool, match="number 0", times=19)
    for _ in range(19):
        spool.round()
        spool.clock.advance(2 * 3600)
    spool.control.fault("rows", match="number 0", status=400, message="no")
    spool.round()
    assert spool.counts()["failed"] == 1
    spool.clock.advance(86400)
    spool.retry()
    money(spool, match="number 0")
    spool.round()
    assert spool.counts()["pending"] == 1
    assert holds(spool) == []


def test_a_witness_was_sent_after_the_batch_had_ended(spool: Spool) -> None:
    batch(spool, text(1))
    with State(spool.state_path, spool.clock) as state:
        (one,) = (found for found in [batches.get(state.db, 1)] if found)
        other = one._replace(id=99)
        assert outcomes.answered_since(state.db, other._replace(ended_at=one.created_at))
        assert not outcomes.answered_since(state.db, other._replace(ended_at=one.created_at + 1))
        assert not outcomes.answered_since(state.db, other._replace(ended_at=one.created_at, address="elsewhere"))
        assert not outcomes.answered_since(state.db, one._replace(ended_at=one.created_at))


def test_money_is_nobodys_fault_however_many_were_answered(spool: Spool) -> None:
    spool.fill(40)
    money(spool, match="number 7")
    spool.round()
    assert (spool.counts()["completed"], spool.counts()["pending"]) == (39, 1)
    assert spool.rows("SELECT attempts FROM tasks WHERE status = 'pending'") == [(0,)]


def test_anthropics_spend_limit_that_a_customer_sets(anthropic_spool: Spool) -> None:
    spool = anthropic_spool
    spool.fill(64)
    spool.control.fault("rows", **LIMITS)
    spool.round()
    assert spool.rows("SELECT DISTINCT status, attempts FROM tasks") == [("pending", 0)]
    assert rests(spool)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (500, "The server had an error while processing your request"),
        (503, "overloaded"),
        (404, "The model `gpt-9` does not exist or you do not have access to it."),
        (403, "Project does not have access to model."),
        (429, "Rate limit reached for requests"),
    ],
)
def test_what_may_be_the_accounts_is_so_unless_another_was_answered(spool: Spool, status: int, message: str) -> None:
    spool.fill(5)
    spool.control.fault("rows", match="number", status=status, message=message, times=-1)
    spool.round()
    assert spool.rows("SELECT DISTINCT status, attempts FROM tasks") == [("pending", 0)]
    spool.clock.advance(2 * 3600)
    spool.enqueue({"id": 99, "text": "a witness"})
    spool.round()
    assert spool.rows("SELECT DISTINCT attempts FROM tasks") == [(1,)]


def test_what_fails_alone_has_no_witness_though_it_failed_beside_others_before(spool: Spool) -> None:
    """An outage that begins within a batch is no fault of those that it hit."""
    spool.fill(4)
    spool.control.fault("rows", match="number 2", status=503, times=-1)
    for _ in range(4):
        spool.round()
        spool.clock.advance(2 * 3600)
    assert spool.rows("SELECT status, attempts FROM tasks WHERE status <> 'completed'") == [("pending", 1)]
    for n in range(2):
        spool.enqueue({"id": 90 + n, "text": "a witness"})
        spool.round()
        spool.clock.advance(2 * 3600)
    assert spool.rows("SELECT status, attempts FROM tasks WHERE status <> 'completed'") == [("failed", 3)]


def test_a_record_that_speaks_of_money_changes_nothing(spool: Spool) -> None:
    words = "Invalid value: 'Your credit balance is too low' is no colour"
    spool.fill(3)
    spool.control.fault("rows", match="number 1", status=400, message=words, times=-1)
    spool.round()
    assert (spool.counts()["completed"], spool.counts()["failed"]) == (2, 1)


@pytest.mark.parametrize(
    ("code", "words"),
    [(None, "User message is blocked by our moderation system"), ("credit_card_detected", "a credit card number")],
)
def test_a_record_that_a_filter_refused_is_no_account_s_trouble(openai_spool: Spool, code: str, words: str) -> None:
    spool = openai_spool
    spool.fill(3)
    spool.control.fault("rows", match="number 1", status=400, message=words, code=code, times=-1)
    spool.round()
    assert (spool.counts()["completed"], spool.counts()["failed"]) == (2, 1)
    assert rests(spool) == []


# --- what cannot be rendered


def test_records_that_cannot_be_rendered_for_a_wrong_name_hold_their_workload(spool: Spool) -> None:
    spool.fill(50)
    spool.set(prompt="Say: {{ txet }}")
    said = spool.preview()
    assert spool.counts()["pending"] == 50
    sent = spool.dispatch()
    for report in (said, sent):
        (held,) = messages(report, ProblemKind.HELD)
        assert "50 of 50 records cannot be rendered, all alike, and so none of them failed" in held
        assert "txet" in held
        assert report.exit_code == EX_PARTIAL
        assert report.result["not_due"]["held"] == 50
    assert spool.counts()["pending"] == 50
    assert list((spool.folder / "nura.db.spool" / "requests").iterdir()) == []
    assert spool.dispatch().exit_code == EX_OK
    spool.set(prompt="Say: {{ text }}")
    spool.release("echo")
    spool.settle()
    assert spool.counts()["completed"] == 50
    spool.check()


def test_after_release_what_cannot_be_rendered_fails_one_by_one(spool: Spool) -> None:
    spool.set(prompt=UPPER)
    spool.enqueue(*(odd(n) for n in range(6)))
    spool.dispatch()
    assert len(holds(spool)) == 1
    spool.release("echo")
    assert spool.preview().result["not_due"]["held"] == 0
    spool.dispatch()
    assert spool.counts()["failed"] == 6
    spool.enqueue(*(odd(50 + n) for n in range(10)))
    spool.dispatch()
    assert spool.counts()["failed"] == 16


def test_a_few_records_that_cannot_be_rendered_fail_alone(spool: Spool) -> None:
    spool.set(prompt=UPPER)
    spool.enqueue(*(text(n) if n % 20 else odd(n) for n in range(100)))
    spool.dispatch()
    assert (spool.counts()["failed"], spool.counts()["submitted"]) == (5, 95)
    assert holds(spool) == []


def test_unrendered_records_are_counted_across_batches(spool: Spool) -> None:
    spool.set(prompt=UPPER)
    for first in (0, 2):
        spool.enqueue(odd(first), odd(first + 1))
        spool.dispatch()
    assert spool.counts()["failed"] == 4
    spool.enqueue(odd(9))
    spool.dispatch()
    assert (spool.counts()["failed"], spool.counts()["pending"]) == (4, 1)


# --- an expiry is no attempt


def test_a_provider_that_needs_ten_days_makes_nothing_fail(spool: Spool) -> None:
    spool.fill(6)
    for day in range(1, 8):
        spool.control.fault("expire", fraction=0)
        sent, _, settled = spool.round()
        assert sent.result["requests"] == 6
        (said,) = messages(settled, ProblemKind.TASK)
        often = f"; one of them for the {ordinal(day)} time" if day > 1 else ""
        assert said == f"echo: 6 tasks expired unanswered, and wait again{often}"
        assert settled.exit_code == EX_OK
        spool.clock.advance(86400)
    assert spool.rows("SELECT DISTINCT attempts FROM tasks") == [(0,)]
    spool.settle()
    assert {answer["attempts"] for answer in spool.results()} == {1}
    (shown,) = spool.show("0")["keys"]
    attempts = [(one["outcome"], one["excused"]) for one in shown["tasks"][0]["attempts"]]
    assert attempts == [*[("expired", "expired")] * 7, ("answered", None)]
    spool.check()


# --- fewer attempts


def tried(spool: Spool, n: int) -> None:
    """Leave a task that was tried n times beside others that were answered, and failed each time."""
    spool.enqueue(text(1, "bad"), text(2))
    spool.control.fault("rows", match="bad record", status=500, message="no luck", times=n)
    for count in range(n):
        spool.round()
        spool.enqueue(text(100 + count))
        spool.clock.advance(7 * 3600)


def test_fewer_attempts_hold_for_those_already_tried(spool: Spool) -> None:
    tried(spool, 2)
    spool.set(retry={"max_attempts": 2})
    said, sent = spool.preview(), spool.dispatch()
    assert messages(said, ProblemKind.TASK) == [
        "echo: 1 task will fail, having been tried 2 times or more (retry.max_attempts)"
    ]
    assert messages(sent, ProblemKind.TASK) == [
        "echo: 1 task failed, having been tried 2 times or more (retry.max_attempts)"
    ]
    assert sent.result["requests"] == said.result["requests"] == 1
    (failed,) = [answer for answer in spool.results() if answer["status"] == "failed"]
    assert (failed["key"], failed["attempts"]) == (1, 2)
    assert (failed["error"]["kind"], failed["error"]["message"]) == ("provider_error", "no luck")
    assert failed["batch_id"] == 2
    spool.settle()
    spool.check()


def test_more_attempts_hold_for_them_as_well(spool: Spool) -> None:
    tried(spool, 2)
    spool.set(retry={"max_attempts": 5})
    assert spool.dispatch().result["requests"] == 2
    spool.settle()
    assert spool.counts()["completed"] == 4


def test_the_application_is_told_of_a_task_whose_attempts_were_used_up(spool: Spool) -> None:
    told = spool.folder / "told"
    spool.set(events=[{"types": ["task.failed"], "command": ["tee", "-a", str(told)]}])
    tried(spool, 2)
    spool.set(retry={"max_attempts": 1})
    spool.settle()
    assert told.read_text().count("no luck") == 1
    spool.check()


# --- the decisions


@pytest.mark.parametrize(
    ("refused", "judged", "answered", "found"),
    [
        ({"a": 4}, 4, False, ""),
        ({"a": 5}, 5, False, "a"),
        ({"a": 5}, 500, False, "a"),
        ({"a": 5, "b": 7, "c": 1}, 13, False, "ab"),
        ({"a": 5}, 5, True, ""),
        ({"a": 49}, 49, True, ""),
        ({"a": 50}, 55, True, "a"),
        ({"a": 50}, 56, True, ""),
        ({"a": 900}, 1000, True, "a"),
        ({"a": 899}, 1000, True, ""),
        ({}, 0, False, ""),
    ],
)
def test_what_fails_alike(refused: dict[str, int], judged: int, answered: bool, found: str) -> None:
    rows = Rows({Form(None, name): n for name, n in refused.items()}, judged, answered)
    assert blame.alike_in(rows) == {Form(None, name) for name in found}


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (("c", None, "no 1"), ("c", None, "no 2"), True),
        (("c", None, "no"), ("d", None, "no"), False),
        (("c", "max_tokens", "x"), ("c", "max_tokens", "y"), True),
        (("c", "max_tokens", "x"), ("c", "temperature", "x"), False),
        (("c", "messages[0].content", "x"), ("c", "messages[3].content", "y"), True),
        (("c", "messages.0.content", "x"), ("c", "messages.3.content", "y"), True),
        ((None, None, None), (None, None, None), True),
        ((None, None, "a\nb"), (None, None, "a b"), True),
    ],
)
def test_forms(a: tuple[str | None, ...], b: tuple[str | None, ...], same: bool) -> None:
    assert (blame.form_of(*a) == blame.form_of(*b)) is same


KINDS = (ErrorKind.REFUSED, ErrorKind.PROVIDER_ERROR, ErrorKind.RATE_LIMITED)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("whose", "witnessed", "expected"),
    [
        (Blame.ACCOUNT, True, Excuse.ACCOUNT),
        (Blame.ACCOUNT, False, Excuse.ACCOUNT),
        (Blame.UNSURE, True, None),
        (Blame.UNSURE, False, Excuse.ACCOUNT),
        (Blame.TASK, True, None),
        (Blame.TASK, False, None),
    ],
)
def test_whose_fault(kind: ErrorKind, whose: Blame, witnessed: bool, expected: Excuse | None) -> None:
    failure = Failure(kind, "words", "code", 400, None, whose)
    assert blame.excuse(failure, frozenset(), witnessed=witnessed) is expected
    assert blame.excuse(None, frozenset(), witnessed=witnessed) is None


@pytest.mark.parametrize(
    ("n", "said"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (12, "12th"), (21, "21st"), (113, "113th")],
)
def test_ordinals(n: int, said: str) -> None:
    assert ordinal(n) == said


def test_a_release_while_results_are_settled_holds(openai_spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two chunks a person lets the workload go on: the rest of the batch was sent before, and holds it no more."""
    spool = openai_spool
    monkeypatch.setattr("nura_cli.pipeline.reconcile.CHUNK_LINES", 10)
    spool.fill(64)
    spool.control.fault("rows", status=400, message=WRONG)
    spool.dispatch()
    spool.poll()
    released = iter([True])
    waits = State.yield_to_writers

    def released_between(self: State) -> None:
        waits(self)
        if next(released, False):
            spool.release("echo")

    monkeypatch.setattr(State, "yield_to_writers", released_between)
    spool.reconcile()
    assert holds(spool) == []
    assert spool.counts()["pending"] == 64
