"""Answers that were paid for and cannot be had: looked for again, held, and never paid for twice by themselves."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from nura_cli.dialects.base import Ending, Phase
from nura_cli.dialects.openai import remote_batch
from nura_cli.errors import UsageError
from nura_cli.pipeline import reconcile
from nura_cli.providers import anthropic as claude
from nura_cli.providers import openai
from tests.conftest import Spool

pytestmark = pytest.mark.long


QUARTER = 15 * 60 + 1
HOUR = 3600
DAY = 24 * HOUR

LOSSES: dict[str, dict[str, Any]] = {
    "not found": {"what": "lost"},
    "not named": {"what": "unnamed"},
    "renamed": {"what": "renamed"},
}
GONE = 10**8
"""Seconds that never pass."""


def said(report: Any) -> str:
    """Return all that a run had to say."""
    return "\n".join(found.line for found in report.problems)


def later(spool: Spool, seconds: int, rounds: int = 1) -> list[int]:
    """Let cron run that often, with this time in between; return poll's exit codes."""
    codes = []
    for _ in range(rounds):
        spool.clock.advance(seconds)
        codes.append(spool.round()[1].exit_code)
    return codes


@pytest.mark.parametrize("loss", LOSSES)
def test_results_that_cannot_be_had_are_held_and_not_sent_again(spool: Spool, loss: str) -> None:
    spool.fill(4)
    spool.server.arm(LOSSES[loss])
    _, home, _ = spool.round()
    assert home.exit_code == 3
    assert spool.status()["attention"] == []  # on one look nothing is believed
    assert later(spool, QUARTER, 40) == [3] + 39 * [0]
    assert spool.control.billing()["requests"] == 4
    (need,) = spool.status()["attention"]
    assert need["message"].startswith("batch 1 is held: main ")
    assert "nura resolve 1 --resend" in need["hint"]
    assert "nura resolve 1 --give-up" in need["hint"]
    assert spool.batches() == [(1, "submitted")]
    spool.check()


@pytest.mark.parametrize("loss", LOSSES)
def test_poll_does_not_wait_for_what_cannot_be_had(spool: Spool, loss: str) -> None:
    spool.fill(2)
    spool.server.arm(LOSSES[loss])
    slept: list[float] = []
    spool.dispatch()
    assert spool.poll(wait=3000, sleep=slept.append).exit_code == 3
    later(spool, QUARTER)
    assert spool.poll(wait=3000, sleep=slept.append).exit_code == 0
    assert slept == []


@pytest.mark.parametrize("loss", LOSSES)
def test_a_person_has_it_sent_again_at_an_unknown_cost(spool: Spool, loss: str) -> None:
    spool.set(retry={"max_attempts": 1})
    spool.fill(3)
    spool.server.arm(LOSSES[loss])
    spool.round()
    later(spool, QUARTER)
    spool.resolve("1")
    assert spool.counts()["pending"] == 3
    spool.settle()
    assert spool.counts()["completed"] == 3
    assert spool.control.billing()["requests"] == 6
    assert spool.status()["cost"]["unpriced_tasks"] == 3
    assert {answer["cost"] for answer in spool.results()} == {None}
    with pytest.raises(UsageError, match="nothing to decide"):
        spool.resolve("1")
    spool.check()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_person_gives_it_up_and_nothing_more_is_paid(spool: Spool, loss: str) -> None:
    spool.fill(3)
    spool.server.arm(LOSSES[loss])
    spool.round()
    later(spool, QUARTER)
    spool.resolve("1", give_up=True)
    later(spool, 7 * HOUR, 5)
    assert spool.counts()["failed"] == 3
    assert {(answer["error"]["kind"], answer["cost"]) for answer in spool.results()} == {("lost", None)}
    assert spool.control.billing()["requests"] == 3
    assert spool.status()["attention"] == []
    spool.check()


@pytest.mark.parametrize("loss", LOSSES)
def test_with_resend_each_task_is_sent_again_once(spool: Spool, loss: str) -> None:
    spool.providers["main"] = spool.provider(on_lost="resend")
    spool.set(retry={"max_attempts": 9})
    spool.fill(3)
    spool.server.arm({**LOSSES[loss], "times": -1})
    spool.round()
    assert later(spool, QUARTER)[-1] == 3
    later(spool, 7 * HOUR, 6)
    assert spool.control.billing()["requests"] == 6
    (need,) = spool.status()["attention"]
    assert need["message"].startswith("batch 2 is held: ")
    spool.control.clear()
    spool.resolve("2")
    spool.settle()
    assert spool.counts()["completed"] == 3
    assert spool.control.billing()["requests"] == 9
    spool.check()


def test_what_turns_up_late_comes_home_by_itself(spool: Spool) -> None:
    spool.fill(4)
    gone = spool.control.fault("status", "download", status=404, times=-1)
    spool.round()
    later(spool, QUARTER, 2)
    later(spool, 5 * DAY)
    assert len(spool.status()["attention"]) == 1
    spool.control.clear(gone)
    later(spool, HOUR)
    assert spool.counts()["completed"] == 4
    assert spool.status()["attention"] == []
    assert spool.control.billing()["requests"] == 4
    spool.check()


def test_nothing_is_looked_for_once_the_vendor_keeps_nothing(spool: Spool) -> None:
    spool.fill(2)
    spool.control.fault("status", "download", status=404, times=-1)
    spool.round()
    later(spool, QUARTER)
    spool.clock.advance(31 * DAY)
    before = len(spool.control.log())
    assert spool.poll().exit_code == 0
    assert len(spool.control.log()) == before
    assert len(spool.status()["attention"]) == 1


def test_results_that_turn_up_after_they_were_given_up_tell_what_they_cost(spool: Spool) -> None:
    spool.fill(3)
    gone = spool.control.fault("status", "download", status=404, times=-1)
    spool.round()
    later(spool, QUARTER)
    spool.resolve("1", give_up=True)
    assert spool.status()["cost"]["unpriced_tasks"] == 3
    spool.control.clear(gone)
    later(spool, HOUR)
    found = spool.status()
    assert found["cost"]["unpriced_tasks"] == 0
    assert found["usage"]["input_tokens"] == spool.control.billing()["input_tokens"]
    assert {answer["status"] for answer in spool.results()} == {"failed"}


def test_a_retrieve_that_names_what_the_list_does_not_is_believed(spool: Spool) -> None:
    spool.providers["main"] = spool.provider(limits={"requests": 1})
    spool.write_config()
    spool.fill(4)
    spool.dispatch()
    spool.control.fault("list_files", where="retrieve")
    spool.poll()
    spool.reconcile()
    assert spool.counts()["completed"] == 4


@pytest.mark.parametrize("where", ["list", "wrong_list"])
@pytest.mark.parametrize("n", [1, 5])
def test_a_list_and_a_retrieve_that_name_different_files_lose_nothing(openai_spool: Spool, where: str, n: int) -> None:
    spool = openai_spool
    spool.providers["main"] = spool.provider(limits={"requests": 1})
    spool.write_config()
    spool.fill(n)
    spool.dispatch()
    spool.control.fault("list_files", where=where)
    spool.round()
    assert spool.counts()["completed"] == n
    assert spool.control.billing()["requests"] == n


# --- expired, cancelled


def test_expired_without_a_file_is_tried_again_once_nothing_was_counted_twice(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(3)
    spool.control.fault("expire", fraction=0, files=False)
    _, home, _ = spool.round()
    assert "looked for again in 15 minutes" in said(home)
    assert spool.counts()["submitted"] == 3
    spool.clock.advance(QUARTER)
    _, _, settled = spool.round()
    assert settled.result["tasks"]["retried"] == 3
    assert spool.rows("SELECT DISTINCT outcome, cost FROM attempts") == [("expired", 0)]
    spool.settle()
    assert spool.counts()["completed"] == 3
    assert spool.control.billing()["requests"] == 3


def test_expired_without_counts_goes_by_the_vendors_rule(openai_spool: Spool) -> None:
    """What was answered in time is in the output file: where there is none, nothing was."""
    spool = openai_spool
    spool.control.fault("no_counts")
    spool.fill(2)
    spool.control.fault("expire", fraction=0, files=False)
    spool.round()
    later(spool, QUARTER)
    assert spool.rows("SELECT DISTINCT outcome FROM attempts") == [("expired",)]


def test_expired_without_a_file_that_counts_answers_is_held(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(4)
    spool.control.fault("expire", fraction=0.5, files=False)
    spool.round()
    later(spool, QUARTER, 4)
    assert "names no file" in spool.status()["attention"][0]["message"]
    assert spool.counts()["submitted"] == 4


@pytest.mark.parametrize(("fraction", "unknown"), [(0, 0), (0.5, 4)])
def test_cancelled_without_a_file_is_cancelled_and_not_held(openai_spool: Spool, fraction: float, unknown: int) -> None:
    spool = openai_spool
    spool.fill(4)
    spool.control.fault("cancel", fraction=fraction, files=False)
    spool.round()
    later(spool, QUARTER)
    assert spool.counts()["cancelled"] == 4
    assert spool.status()["cost"]["unpriced_tasks"] == unknown
    (need,) = spool.status()["attention"]
    assert "was cancelled at main" in need["message"]
    assert spool.control.billing()["requests"] <= 4


# --- short files


def test_a_short_file_is_applied_at_once_and_the_rest_looked_for(spool: Spool) -> None:
    spool.fill(4)
    spool.control.fault("short", match="number 3", seconds=HOUR)
    _, home, settled = spool.round()
    assert settled.result["tasks"]["completed"] == 3
    assert "1 answer more than its results hold" in said(home)
    assert spool.counts()["submitted"] == 1
    assert spool.poll(wait=3000, sleep=lambda seconds: pytest.fail("waited")).exit_code == 3
    later(spool, QUARTER, 6)
    assert spool.counts()["completed"] == 4
    assert spool.batches() == [(1, "reconciled")]
    assert spool.control.billing()["requests"] == 4
    assert spool.rows("SELECT count(*), count(cost) FROM attempts") == [(4, 4)]
    spool.check()


@pytest.mark.parametrize("on_lost", ["hold", "resend"])
def test_answers_that_are_counted_and_do_not_come_in_a_day_go_by_on_lost(spool: Spool, on_lost: str) -> None:
    spool.providers["main"] = spool.provider(on_lost=on_lost)
    spool.write_config()
    spool.fill(4)
    spool.control.fault("short", match="number 3", seconds=GONE)
    spool.round()
    later(spool, HOUR, 23)
    assert spool.status()["attention"] == []
    assert spool.control.billing()["requests"] == 4
    later(spool, HOUR, 3)
    if on_lost == "hold":
        (need,) = spool.status()["attention"]
        assert "1 answer more than its results hold" in need["message"]
        assert spool.control.billing()["requests"] == 4
        spool.resolve("1")
    spool.settle()
    assert spool.counts()["completed"] == 4
    assert spool.control.billing()["requests"] == 5
    assert spool.rows("SELECT outcome, cost FROM attempts WHERE outcome <> 'answered'") == [("missing", None)]
    spool.check()


def test_rows_that_the_count_does_not_claim_are_tried_again(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.control.fault("no_counts")
    spool.fill(4)
    spool.control.fault("missing", match="number 3")
    _, home, _ = spool.round()
    assert "does not count" in said(home)
    spool.clock.advance(QUARTER)
    _, _, settled = spool.round()
    assert settled.result["tasks"]["missing"] == 1
    assert spool.rows("SELECT cost FROM attempts WHERE outcome = 'missing'") == [(None,)]  # nobody says what it cost
    spool.settle()
    assert spool.counts()["completed"] == 4


def test_a_service_that_counts_failed_rows_as_completed_is_not_stopped(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(4)
    spool.control.fault("rows", match="number 3", status=400, message="too long")
    spool.dispatch()
    spool.poll()
    spool.rows("UPDATE batches SET completed = 4")
    spool.reconcile()
    assert (spool.counts()["completed"], spool.counts()["failed"]) == (3, 1)
    assert spool.batches() == [(1, "reconciled")]


# --- stale lists, batches without an end


def test_a_list_that_shows_a_batch_running_for_ever_is_not_all_that_is_asked(spool: Spool) -> None:
    spool.providers["main"] = spool.provider(limits={"requests": 1})
    spool.write_config()
    spool.fill(5)
    spool.dispatch()
    spool.control.fault("stale_list")
    spool.poll()
    assert spool.batches() == [(n, "submitted") for n in range(1, 6)]
    before = len(spool.control.log())
    later(spool, QUARTER)
    assert len([entry for entry in spool.control.log(0) if entry["route"] == "retrieve"]) == 0
    assert len(spool.control.log()) > before
    later(spool, HOUR)
    assert spool.counts()["completed"] == 5


def test_a_stale_list_does_not_take_back_that_results_are_lost(spool: Spool) -> None:
    spool.providers["main"] = spool.provider(limits={"requests": 1})
    spool.write_config()
    spool.fill(4)
    spool.control.fault("lost", times=-1)
    spool.dispatch()
    later(spool, HOUR)
    spool.control.fault("stale_list")
    later(spool, QUARTER, 3)
    assert len(spool.status()["attention"]) == 4
    assert spool.control.billing()["requests"] == 4


def test_a_batch_that_moves_on_only_when_it_is_retrieved_comes_home(spool: Spool) -> None:
    spool.providers["main"] = spool.provider(limits={"requests": 1})
    spool.write_config()
    spool.control.fault("only_retrieve")
    spool.fill(5)
    spool.dispatch()
    later(spool, HOUR, 2)
    assert spool.counts()["completed"] == 5


def test_past_its_time_a_batch_that_never_ends_is_named_with_what_to_type(spool: Spool) -> None:
    spool.fill(3)
    spool.control.fault("never_ends")
    spool.dispatch()
    assert later(spool, 12 * HOUR, 2) == [0, 0]
    assert spool.status()["attention"] == []
    assert later(spool, HOUR + 60, 3) == [3, 0, 0]
    (need,) = spool.status()["attention"]
    assert "its time is over, and main says" in need["message"]
    assert "nura resolve 1 --resend" in need["hint"]
    spool.control.clear()
    later(spool, QUARTER)
    assert spool.counts()["completed"] == 3
    assert spool.status()["attention"] == []


@pytest.mark.parametrize("status", [404, 500])
def test_past_its_time_a_batch_that_nobody_knows_is_named_with_what_to_type(spool: Spool, status: int) -> None:
    spool.control.settings(delay=HOUR)
    spool.fill(3)
    spool.dispatch()
    spool.control.fault("status", "retrieve", status=status, times=-1)
    spool.control.fault("hide", seconds=10**9)
    later(spool, 25 * HOUR + 120, 2)
    (need,) = spool.status()["attention"]
    assert "nura resolve 1 --resend" in need["hint"]
    assert spool.control.billing()["creates"] == 1
    spool.control.clear()
    spool.resolve("1")
    spool.control.settings(delay=0)
    spool.settle()
    assert spool.counts()["completed"] == 3


# --- a person's decision


def test_a_decision_killed_half_way_is_simply_made_again(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nura_cli.pipeline.settle.CHUNK_TASKS", 3)
    spool.fill(8)
    spool.control.fault("lost")
    spool.round()
    later(spool, QUARTER)

    def killed(self: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("nura_cli.state.file.State.yield_to_writers", killed)
        with pytest.raises(KeyboardInterrupt):
            spool.resolve("1")
    assert (spool.counts()["pending"], spool.counts()["submitted"]) == (3, 5)
    spool.resolve("1")
    spool.settle()
    assert spool.counts()["completed"] == 8
    assert spool.control.billing()["requests"] == 16
    spool.check()


def test_what_needs_nobody_cannot_be_decided_about(spool: Spool) -> None:
    spool.control.settings(delay=HOUR)
    spool.fill(2)
    spool.dispatch()
    for name in ("1", "2", "99999999999999999999"):
        with pytest.raises(UsageError):
            spool.resolve(name)
    assert spool.counts()["submitted"] == 2


def test_an_unconfirmed_create_is_given_up_without_sending_it_again(spool: Spool) -> None:
    spool.providers["main"] = spool.provider(on_unconfirmed="hold")
    spool.write_config()
    spool.fill(3)
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    spool.dispatch()
    spool.resolve("1", give_up=True)
    assert {(answer["error"]["kind"], answer["cost"]) for answer in spool.results()} == {("lost", None)}
    for _ in range(4):
        later(spool, HOUR)
    assert spool.control.billing()["creates"] == 1
    spool.check()


def test_a_batch_of_the_release_before_that_was_taken_for_lost_is_looked_for_again(spool: Spool) -> None:
    spool.fill(3)
    spool.dispatch()
    spool.poll()
    spool.rows("UPDATE batches SET parts = '{}', spooled = '{}', reason = 'main does not find its output file'")
    spool.reconcile()
    assert spool.batches() == [(1, "submitted")]
    spool.round()
    assert spool.counts()["completed"] == 3
    assert spool.control.billing()["requests"] == 3


# --- seldom, and dear


def test_a_failed_batch_that_counts_answers_was_not_refused() -> None:
    counts = {"total": 4, "completed": 4, "failed": 0}
    found = remote_batch({"id": "b", "status": "failed", "request_counts": counts})
    assert found is not None
    assert (found.phase, found.ending) == ("ended", "completed")
    found = remote_batch({"id": "b", "status": "failed", "request_counts": {"total": 4, "completed": 0}})
    assert found is not None
    assert found.phase == "refused"


@pytest.mark.parametrize("fault", [{"what": "short", "match": "number 3", "seconds": 600}, {"what": "no_output"}])
def test_without_counts_a_request_without_a_line_is_not_believed_on_one_look(
    openai_spool: Spool, fault: dict[str, Any]
) -> None:
    spool = openai_spool
    spool.control.fault("no_counts")
    spool.fill(4)
    spool.server.arm(fault)
    spool.control.fault("rows", match="number 0", status=400)
    spool.round()
    assert spool.control.billing()["creates"] == 1
    later(spool, QUARTER, 3)
    assert spool.control.billing()["creates"] == 1
    if fault["what"] == "short":
        assert spool.counts()["completed"] == 3
    else:
        assert "counts none" in spool.status()["attention"][0]["message"]
        assert spool.status()["cost"]["unpriced_tasks"] == 4


def test_a_retrieve_that_counts_more_than_the_list_is_believed(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.providers["main"] = spool.provider(limits={"requests": 1})
    spool.write_config()
    spool.fill(4)
    spool.control.fault("missing", times=-1)
    spool.dispatch()
    real = openai.OpenAIProvider.page

    def uncounted(self: openai.OpenAIProvider, cursor: str | None = None) -> Any:
        page = real(self, cursor)
        return page._replace(batches=[one._replace(completed=0) for one in page.batches])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openai.OpenAIProvider, "page", uncounted)
        later(spool, QUARTER, 5)
    assert spool.control.billing()["requests"] == 4


def test_an_error_file_that_is_gone_does_not_make_a_short_output_whole(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(6)
    spool.control.fault("rows", match="number 0", status=400)
    spool.control.fault("short", match="number 3", seconds=GONE)
    spool.dispatch()
    spool.control.fault("status", "download", path="*", status=404, times=-1, skip=1)
    spool.poll()
    spool.control.clear()
    later(spool, QUARTER, 3)
    assert spool.control.billing()["creates"] == 1
    assert spool.counts()["submitted"] >= 1


def test_a_provider_whose_clock_is_weeks_off_is_asked_all_the_same(spool: Spool) -> None:
    spool.control.settings(delay=HOUR)
    spool.control.advance(-40 * DAY)
    spool.fill(3)
    spool.dispatch()
    later(spool, QUARTER, 2)
    assert spool.status()["attention"] == []
    later(spool, HOUR, 2)
    assert spool.counts()["completed"] == 3


def test_a_batch_stuck_on_its_way_to_being_settled_is_named(spool: Spool) -> None:
    spool.fill(3)
    spool.dispatch()
    spool.poll()
    assert spool.status()["attention"] == []
    spool.clock.advance(DAY + HOUR)
    (need,) = spool.status()["attention"]
    assert "is not settled" in need["message"]
    assert "nura reconcile" in need["hint"]
    spool.resolve("1", give_up=True)
    assert spool.counts()["failed"] == 3


def test_a_person_who_decides_while_reconcile_is_at_work_breaks_nothing(spool: Spool) -> None:
    spool.fill(3)
    spool.dispatch()
    spool.poll()
    spool.clock.advance(DAY + HOUR)
    real = reconcile.Settling.finish

    def meanwhile(self: reconcile.Settling) -> None:
        spool.resolve("1", give_up=True)
        real(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconcile.Settling, "finish", meanwhile)
        report = spool.reconcile()
    assert report.exit_code in (3, 75)
    assert "no longer completed" in said(report)
    assert spool.counts()["completed"] == 3
    spool.check()


def test_custom_ids_changed_behind_the_tag_are_nobodys(spool: Spool) -> None:
    spool.fill(4)
    spool.dispatch()
    real = openai.OpenAIProvider.download if spool.protocol == "openai" else claude.AnthropicProvider.download
    owner = openai.OpenAIProvider if spool.protocol == "openai" else claude.AnthropicProvider
    ((tag,),) = spool.rows("SELECT tag FROM batches")

    def renumbered(self: Any, part_id: str, target: Path) -> Any:
        got = real(self, part_id, target)
        target.write_bytes(target.read_bytes().replace(f"{tag}-".encode(), f"{tag}-1000".encode()))
        size = target.stat().st_size
        return got._replace(bytes=size, announced=size, sha256=hashlib.sha256(target.read_bytes()).hexdigest())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, "download", renumbered)
        later(spool, QUARTER, 4)
    assert "other requests' results" in spool.status()["attention"][0]["message"]
    assert spool.control.billing()["requests"] == 4
    later(spool, QUARTER)
    assert spool.counts()["completed"] == 4


@pytest.mark.parametrize("answer", ["running", "down"])
def test_a_list_that_says_ended_is_not_believed_alone(openai_spool: Spool, answer: str) -> None:
    spool = openai_spool
    spool.providers["main"] = spool.provider(limits={"requests": 1})
    spool.write_config()
    spool.control.settings(delay=10**5)
    spool.fill(4)
    spool.dispatch()
    real = openai.OpenAIProvider.page

    def expired(self: Any, cursor: str | None = None) -> Any:
        page = real(self, cursor)
        told: dict[str, Any] = {
            "status": "expired",
            "phase": Phase.ENDED,
            "ending": Ending.EXPIRED,
            "parts": {},
            "completed": 0,
        }
        return page._replace(batches=[one._replace(**told) for one in page.batches])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openai.OpenAIProvider, "page", expired)
        if answer == "down":
            spool.control.fault("status", "retrieve", status=503, times=-1)
        later(spool, QUARTER, 3)
    assert spool.counts()["submitted"] == 4
    spool.control.clear()
    spool.control.settings(delay=0)
    later(spool, HOUR, 2)
    assert spool.counts()["completed"] == 4
    assert spool.control.billing()["requests"] == 4


def test_counts_that_vanish_take_nothing_back(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(4)
    spool.control.fault("short", match="number 3", seconds=GONE)
    spool.round()
    spool.control.fault("no_counts")
    later(spool, QUARTER, 4)
    assert spool.control.billing()["requests"] == 4
    assert spool.counts()["submitted"] == 1


def test_an_id_that_is_empty_or_too_long_is_no_bug(spool: Spool) -> None:
    for name in ("", " ", "²"):
        with pytest.raises(UsageError):
            spool.resolve(name)
    with pytest.raises(UsageError, match="is empty"):
        spool.resolve("1", adopt=" ")


@pytest.mark.parametrize("on_lost", ["hold", "resend"])
def test_what_somebody_cancelled_is_not_sent_again_for_a_short_file(spool: Spool, on_lost: str) -> None:
    """Of a batch that counts more than its files hold and was cancelled, what has no line is cancelled with the rest."""
    spool.providers["main"] = spool.provider(on_lost=on_lost)
    spool.write_config()
    spool.fill(4)
    spool.control.fault("cancel", match="number")
    spool.control.fault("short", match="number 3", seconds=GONE)
    spool.round()
    later(spool, HOUR, 27)
    assert (spool.counts()["completed"], spool.counts()["cancelled"]) == (3, 1)
    assert spool.rows("SELECT outcome, cost FROM attempts WHERE outcome <> 'answered'") == [("cancelled", None)]
    assert spool.control.billing()["requests"] == 4
    (need,) = spool.status()["attention"]
    assert "was cancelled at main" in need["message"]
    spool.resolve("1")  # once is enough
    spool.settle()
    assert spool.counts()["completed"] == 4
    spool.check()


def test_lost_results_of_a_cancelled_batch_are_a_persons_to_send_again(spool: Spool) -> None:
    spool.providers["main"] = spool.provider(on_lost="resend")
    spool.write_config()
    spool.fill(4)
    spool.control.fault("cancel", match="number 1")
    spool.control.fault("lost")
    spool.round()
    later(spool, QUARTER, 3)
    assert spool.control.billing()["requests"] == 1
    (need,) = spool.status()["attention"]
    assert need["message"].startswith("batch 1 is held: ")
    spool.resolve("1")
    assert spool.counts()["pending"] == 4


def test_the_day_of_a_short_file_passes_on_the_servers_clock_too(spool: Spool) -> None:
    spool.fill(4)
    spool.control.fault("short", match="number 3", seconds=GONE)
    spool.round()
    later(spool, QUARTER)
    spool.clock.time += 20 * HOUR  # a clock here that jumps
    later(spool, HOUR, 4)
    assert spool.status()["attention"] == []
    assert spool.counts()["submitted"] == 1
    later(spool, HOUR, 22)
    (need,) = spool.status()["attention"]
    assert "1 answer more than its results hold" in need["message"]
