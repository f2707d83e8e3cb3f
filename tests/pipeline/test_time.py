"""Time: clocks that are set back, DST, a cron that did not run for days, results that are about to expire.

The clock of these tests stands still until it is moved. ``clock.advance`` moves the provider's along, ``clock.time``
this machine's alone.
"""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from nura_cli.state.connection import LONGEST_BACKOFF
from tests.conftest import Spool
from tests.pipeline.forks import Command

pytestmark = pytest.mark.long


HOUR = 3600
DAY = 24 * HOUR
KEPT = {"openai": 30 * DAY, "anthropic": 29 * DAY}
"""How long each vendor keeps results."""
MARGIN = 600
"""Seconds to spare where the sandbox's clock, which goes on, meets the one that stands still."""
RECORDS = 10


def billed_once(spool: Spool, n: int = RECORDS) -> None:
    """Assert that all is done, and was answered and paid for once."""
    assert spool.counts()["completed"] == sum(spool.counts().values()) == n
    bill = spool.control.billing()
    assert (bill["requests"], bill["twice"]) == (n, {"custom_id": [], "digest": []})
    spool.check()


def no_nonsense(spool: Spool) -> dict[str, Any]:
    """Assert that status shows no time that cannot be, and return what it says."""
    found = spool.status()
    for workload in found["workloads"].values():
        assert (workload["oldest_pending_seconds"] or 0) >= 0
    for pause in found["paused"]:
        assert 0 < seconds(pause["until"]) - spool.clock() <= LONGEST_BACKOFF
    shown = Command(spool.folder, spool.clock(), "status").end()
    assert shown.code == 0
    assert not re.search(r"-\d+[smhd]", shown.out)
    return found


def seconds(moment: str) -> int:
    """Return the unix seconds of a time as nura writes it: UTC, with a Z."""
    return int(datetime.strptime(moment, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())


# --- a clock that is set back


@pytest.mark.parametrize("before", ["dispatch", "poll", "reconcile", "the next dispatch"])
def test_a_clock_set_back_an_hour_between_two_stages_loses_and_repeats_nothing(spool: Spool, before: str) -> None:
    spool.control.fault("rows", fraction=0.5, status=500)  # some are tried again: with a time not to be tried before
    spool.fill(RECORDS)
    for stage in ("dispatch", "poll", "reconcile", "the next dispatch"):
        if stage == before:
            spool.clock.time -= HOUR
        getattr(spool, stage.rpartition(" ")[2])()
        no_nonsense(spool)
    spool.settle()
    billed_once(spool)


def test_a_clock_set_back_during_a_backoff_makes_it_that_much_longer_and_nothing_is_sent_twice(spool: Spool) -> None:
    spool.fill(RECORDS)
    spool.control.fault("rows", status=500)
    spool.round()
    ((longest,),) = spool.rows("SELECT max(not_before) FROM tasks")
    (pause,) = spool.status()["paused"]  # the route rests as well, by a chance of its own
    longest = max(longest, seconds(pause["until"]))
    spool.clock.time -= HOUR
    assert spool.dispatch().result["not_due"]["backoff"] == RECORDS
    no_nonsense(spool)
    spool.clock.advance(longest - spool.clock.time - 60)
    spool.dispatch()
    spool.clock.advance(60)
    assert spool.dispatch().exit_code == 0
    assert spool.counts()["submitted"] == RECORDS
    assert spool.dispatch().result["requests"] == 0
    spool.settle()
    billed_once(spool)


def test_a_clock_set_back_during_an_outage_s_pause_makes_it_that_much_longer(spool: Spool) -> None:
    spool.fill(RECORDS)
    spool.control.fault("status", "list", status=503)
    assert spool.dispatch().exit_code == 75
    spool.clock.time -= HOUR
    assert spool.dispatch().result["not_due"]["backoff"] == RECORDS
    (pause,) = no_nonsense(spool)["paused"]
    spool.clock.advance(seconds(pause["until"]) - spool.clock.time)
    assert spool.status()["paused"] == []
    assert spool.dispatch().result["requests"] == RECORDS
    spool.settle()
    billed_once(spool)


def test_a_pause_of_a_clock_that_ran_ahead_is_neither_kept_nor_shown(spool: Spool) -> None:
    spool.fill(RECORDS)
    spool.control.fault("status", "list", status=503)
    spool.clock.time += 400 * DAY
    assert spool.dispatch().exit_code == 75
    spool.clock.time -= 400 * DAY
    assert no_nonsense(spool)["paused"] == []
    assert spool.dispatch().result["requests"] == RECORDS


# --- DST


@pytest.fixture(params=["2027-03-28T01:00:00Z", "2027-10-31T01:00:00Z"], ids=["spring", "autumn"])
def change(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The moment (unix seconds) at which the clocks of Berlin, where this machine stands, are put forward or back."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    moment = seconds(request.param)
    assert time.localtime(moment - 1).tm_isdst != time.localtime(moment).tm_isdst
    yield moment
    monkeypatch.undo()
    time.tzset()


def test_an_hour_is_an_hour_when_the_clocks_are_changed(spool: Spool, change: int) -> None:
    spool.set(dispatch={"min_requests": 100, "max_wait": "1h"})
    spool.control.settings(delay=HOUR)
    spool.clock.advance(change - HOUR // 2 - spool.clock())
    spool.fill(RECORDS)
    spool.clock.advance(HOUR - 1)
    assert spool.status()["workloads"]["echo"]["oldest_pending_seconds"] == HOUR - 1
    assert spool.dispatch().result["not_due"]["threshold"] == RECORDS
    spool.clock.advance(1)
    assert spool.dispatch().result["requests"] == RECORDS
    (batch,) = spool.status()["batches"]
    assert abs(seconds(batch["submitted_at"]) - (change + HOUR // 2)) < MARGIN
    assert seconds(batch["expires_at"]) - seconds(batch["submitted_at"]) == DAY
    spool.poll()
    assert spool.batches() == [(1, "submitted")]
    spool.clock.advance(HOUR)
    spool.poll()
    spool.reconcile()
    assert {seconds(answer["finished_at"]) for answer in spool.results()} == {spool.clock()}
    billed_once(spool)


def test_a_batch_that_is_under_way_while_the_clocks_are_changed_is_neither_late_nor_lost(
    spool: Spool, change: int
) -> None:
    spool.clock.advance(change - HOUR - spool.clock())
    spool.control.settings(delay=2 * HOUR)
    spool.control.fault("rows", fraction=0.5, status=500)
    spool.fill(RECORDS)
    for _ in range(11):
        spool.round()
        assert no_nonsense(spool)["attention"] == []
        spool.clock.advance(HOUR // 2)
    billed_once(spool)


# --- a cron that did not run


def test_cron_not_run_for_three_days_catches_up_and_sends_nothing_twice(spool: Spool) -> None:
    spool.control.settings(delay=30 * HOUR)  # more than the provider's 24 h: what is not answered by then expires
    spool.fill(RECORDS)
    spool.dispatch()
    spool.set("waits", prompt="Say: {{ text }}", dispatch={"min_requests": 100, "max_wait": "1h"})
    spool.fill(3, workload="waits")
    spool.clock.advance(3 * DAY + MARGIN)
    found = no_nonsense(spool)
    assert found["workloads"]["waits"]["oldest_pending_seconds"] == 3 * DAY + MARGIN
    (need,) = found["attention"]
    assert re.match(r"batch 1 was sent 3d \d+m ago, and main says \w+$", need["message"])
    assert need["hint"].startswith("nura poll -v; if it is gone for good: nura resolve 1 --resend")
    table = Command(spool.folder, spool.clock(), "status").end().out
    assert "  over" in next(line for line in table.splitlines() if line.startswith("1 "))
    sent, home, settled = spool.round()
    assert sent.result["requests"] == 3
    assert home.exit_code == 0
    assert settled.result["tasks"]["completed"] + settled.result["tasks"]["retried"] == RECORDS
    assert 0 < settled.result["tasks"]["retried"] < RECORDS
    for (not_before,) in spool.rows("SELECT not_before FROM tasks WHERE status = 'pending'"):
        assert not_before > spool.clock()
    assert spool.dispatch().result["requests"] == 0
    assert no_nonsense(spool)["attention"] == []
    spool.control.settings(delay=0)
    spool.settle()
    billed_once(spool, RECORDS + 3)
    assert max(attempts for (attempts,) in spool.rows("SELECT attempts FROM tasks")) == 1  # an expiry is none


def test_a_create_left_unconfirmed_for_three_days_is_found_and_not_sent_again(spool: Spool) -> None:
    spool.fill(RECORDS)
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    spool.clock.advance(3 * DAY)
    no_nonsense(spool)
    spool.settle()
    assert len(spool.control.batches()) == 1
    billed_once(spool)


# --- results that are about to expire


def sent_and_left(spool: Spool, status: str) -> None:
    """Leave a batch in a state, with its results at the provider."""
    spool.control.settings(delay=HOUR)
    spool.fill(RECORDS)
    if status == "submitting":
        spool.control.fault("drop_after", "create")
    spool.dispatch()
    if status == "completed":
        spool.clock.advance(HOUR)
        spool.poll()
        spool.clock.advance(-HOUR)
    assert spool.batches() == [(1, status)]


STAGES = {"submitting": "dispatch", "submitted": "poll", "completed": "reconcile"}


@pytest.mark.parametrize("status", STAGES)
def test_results_about_to_expire_are_warned_of_with_what_to_type(spool: Spool, status: str) -> None:
    sent_and_left(spool, status)
    spool.clock.advance(KEPT[spool.protocol] - 3 * DAY - MARGIN)
    assert not [need for need in no_nonsense(spool)["attention"] if "expire" in need["message"]]
    spool.clock.advance(2 * MARGIN)
    (need,) = no_nonsense(spool)["attention"]
    assert need["message"].startswith("batch 1")
    assert need["message"].endswith(
        ": its results expire at main in 2d 23h" if status != "submitted" else "; its results expire at main in 2d 23h"
    )
    assert need["hint"].startswith(f"nura {STAGES[status]}")
    shown = Command(spool.folder, spool.clock(), "status").end().out
    assert f"needs you: {need['message']}\n  type: {need['hint']}\n" in shown
    spool.clock.advance(2 * DAY)
    spool.settle()
    assert spool.status()["attention"] == []
    billed_once(spool)


@pytest.mark.parametrize("status", STAGES)
def test_results_that_have_expired_are_said_to_be_gone_and_end_the_warning(spool: Spool, status: str) -> None:
    sent_and_left(spool, status)
    spool.clock.advance(KEPT[spool.protocol] + DAY + 2 * HOUR)
    (need,) = no_nonsense(spool)["attention"]
    assert need["message"].endswith(" its results may be gone from main by now")
    assert need["hint"].startswith(f"nura {STAGES[status]}")
    if status == "completed":  # they lie in the spool
        spool.reconcile()
        billed_once(spool)
    elif status == "submitting" and spool.protocol == "anthropic":  # only results could tell whose batch it is there
        spool.dispatch()
        (need,) = spool.status()["attention"]
        assert need["message"].startswith("batch 1 is held: the results of what may be it were deleted")
        assert need["message"].endswith("; its results may be gone from main by now")
        assert "nura resolve 1 --resend" in need["hint"]
        spool.resolve("1", adopt=spool.control.batches()[0]["id"])
    if spool.batches() != [(1, "reconciled")]:
        spool.control.settings(delay=0)
        for _ in range(3):
            spool.round()
            spool.clock.advance(HOUR)
        (need,) = spool.status()["attention"]
        assert need["message"].startswith("batch 1 is held")
        spool.resolve("1")
    spool.settle(30)
    assert spool.counts()["completed"] == RECORDS
    assert spool.status()["attention"] == []
