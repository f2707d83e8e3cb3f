"""Queues at the providers: what they take is learned, from refusals and from what is taken, and shared by priority and turn."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nura_cli.sandbox import Sandbox
from tests.conftest import Spool

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("hurried")]
TICK = 15 * 60
HOUR = 3600
DAY = 86400


@pytest.fixture
def openai(spools: Any) -> Spool:
    """Return a spool whose provider speaks OpenAI's protocol: it counts tokens, and tells after the create."""
    found: Spool = spools("openai")
    return found


@pytest.fixture
def spools(tmp_path: Path) -> Iterator[Any]:
    """Return what makes a spool at a sandbox of its own; queues are an account's, and so none of them is shared."""
    with Sandbox(tmp_path / "box.db") as server:

        def made(protocol: str, name: str = "one") -> Spool:
            folder = tmp_path / name
            folder.mkdir()
            return Spool(folder, server, protocol)

        yield made


def home(spool: Spool, most: int = 60) -> int:
    """Run cron's line every 15 minutes until nothing is left; return how many times that took."""
    for n in range(most):
        spool.round()
        if not any(spool.counts()[name] for name in ("pending", "submitted")):
            return n
        spool.clock.advance(TICK)
    raise AssertionError(f"not home after {most} rounds: {spool.counts()}")


def refused(spool: Spool) -> int:
    """Return how many batches were refused, or creates."""
    return len(spool.rows("SELECT 1 FROM batches WHERE status = 'failed' AND sent_at IS NOT NULL"))


def whys(report: Any) -> list[str]:
    """Return what tasks wait for, by a run of dispatch."""
    return [wait["why"] for wait in report.result["waits"]]


def test_the_cap_in_the_words_is_adopted_and_the_rest_goes_as_room_comes_free(openai: Spool) -> None:
    openai.fill(200)
    openai.control.settings(delay=TICK)
    openai.control.queue(tokens=700)
    assert home(openai) < 20
    assert refused(openai) <= 2
    assert openai.counts()["completed"] == 200
    assert [cap for (cap,) in openai.rows("SELECT cap FROM quotas")] == [700]
    openai.check()


@pytest.mark.parametrize("words", ["azure", "plain"])
def test_other_words_and_none_do_as_well(openai: Spool, words: str) -> None:
    openai.fill(200)
    openai.control.settings(delay=TICK)
    openai.control.fault("full_queue", words=words, times=-1)
    openai.control.queue(tokens=700)
    home(openai)
    assert refused(openai) <= 4
    assert openai.counts()["completed"] == 200
    ((cap, said),) = openai.rows("SELECT cap, said FROM quotas")
    assert (cap == 700, bool(said)) == ((True, True) if words == "azure" else (False, False))


def test_a_cap_on_requests_is_read_and_kept(openai: Spool) -> None:
    openai.fill(50)
    openai.control.settings(delay=TICK)
    openai.control.queue(requests=20)
    home(openai)
    assert openai.rows("SELECT unit, cap FROM quotas") == [("requests", 20)]
    assert refused(openai) == 1
    assert openai.counts()["completed"] == 50


def test_anthropic_counts_requests_of_all_models_and_refuses_the_create(spools: Any) -> None:
    spool: Spool = spools("anthropic")
    spool.set("other", model="claude-sonnet-4-5")
    spool.control.settings(delay=TICK)
    spool.control.queue(requests=30)
    spool.fill(25)
    spool.fill(40, "other")
    home(spool)
    assert spool.rows("SELECT model, unit, cap FROM quotas") == [("", "requests", 30)]
    assert refused(spool) <= 2
    assert spool.counts()["completed"] == 65
    assert spool.status()["workloads"]["other"]["tasks"]["failed"] == 0


def test_after_a_refusal_one_batch_goes_at_a_time_until_one_is_taken(openai: Spool) -> None:
    openai.fill(60)
    openai.control.settings(delay=2 * 3600)
    openai.control.queue(tokens=400)
    openai.round()
    openai.round()
    openai.clock.advance(TICK)
    openai.set("more")
    openai.fill(5, "more")
    first = openai.dispatch()
    assert len(first.result["batches"]) == 1
    assert "quota" in whys(first)
    assert openai.dispatch().result["batches"] == []


def test_a_pause_ends_when_a_batch_has_ended(openai: Spool) -> None:
    openai.control.settings(delay=TICK)
    openai.fill(10)
    openai.round()
    openai.control.queue(tokens=1)
    openai.set("more")
    openai.fill(10, "more")
    openai.dispatch()
    openai.clock.advance(5)
    openai.round()  # refused: its route rests for minutes
    assert openai.status()["paused"]
    openai.control.queue(tokens=None)
    openai.clock.advance(TICK)
    openai.poll()  # the first one has ended
    assert openai.status()["paused"] == []


def test_more_than_a_cap_is_tried_a_day_later(openai: Spool) -> None:
    openai.control.settings(delay=60)
    openai.control.queue(tokens=300)
    openai.fill(100)
    openai.round()
    openai.round()
    assert openai.rows("SELECT count(*) FROM quotas") == [(1,)]
    openai.control.queue(tokens=None)
    before = openai.rows("SELECT sum(requests) FROM batches WHERE sent_at IS NOT NULL AND status <> 'failed'")
    openai.clock.advance(DAY + 1)
    openai.settle()
    assert before == [(None,)]
    assert openai.rows("SELECT max(expected_input) > 300 FROM batches WHERE status = 'reconciled'") == [(1,)]


def test_a_queue_is_the_account_s_whatever_the_provider_is_called(openai: Spool) -> None:
    openai.providers["again"] = openai.provider()
    openai.set("other", provider="again")
    openai.control.settings(delay=TICK)
    openai.control.queue(tokens=400)
    openai.fill(60)
    openai.round()
    openai.round()
    openai.clock.advance(TICK)
    openai.fill(60, "other")
    openai.dispatch()
    sent = openai.rows("SELECT sum(expected_input) FROM batches WHERE final_at IS NULL")
    assert 0 < sent[0][0] <= 400


def test_what_was_learned_of_one_account_says_nothing_of_another(openai: Spool) -> None:
    openai.control.settings(delay=60)
    openai.control.queue(tokens=300)
    openai.fill(100)
    openai.round()
    openai.round()
    openai.clock.advance(TICK)
    (openai.folder / "key").write_text("sk-test-2\n")
    openai.control.queue(tokens=None)
    openai.dispatch()  # learns whose key it is, with what it sends
    openai.clock.advance(TICK)
    openai.round()
    openai.dispatch()
    assert openai.counts()["pending"] == 0


def test_others_may_fill_the_queue_and_what_waits_is_lost_to_nobody(openai: Spool) -> None:
    openai.fill(20)
    openai.control.settings(delay=TICK)
    openai.control.queue(tokens=1000, others_tokens=990)
    for _ in range(12):
        openai.round()
        openai.clock.advance(TICK)
    assert openai.counts()["failed"] == 0
    assert refused(openai) <= 8
    openai.control.queue(others_tokens=0)
    home(openai)
    assert openai.counts()["completed"] == 20


def test_one_request_larger_than_the_cap_is_named_and_passed_over(openai: Spool) -> None:
    openai.providers["main"]["limits"] = {"enqueued_tokens": 100}
    openai.write_config()
    openai.enqueue({"id": 1, "text": "word " * 400}, {"id": 2, "text": "short"})
    planned = openai.preview()
    report = openai.dispatch()
    for one in (planned, report):
        assert one.result["requests"] == 1
        (said,) = [found for found in one.problems if found.kind == "budget"]
        assert "cannot go: its request comes to about" in said.message
        assert said.exit_code == 0
    openai.round()
    openai.round()
    assert (openai.counts()["completed"], openai.counts()["pending"]) == (1, 1)
    assert openai.dispatch(ignore_waits=True).result["requests"] == 0


def test_a_limit_of_the_configuration_bounds_what_is_under_way_together(openai: Spool) -> None:
    openai.providers["main"]["limits"] = {"enqueued_tokens": 300, "enqueued_requests": 12}
    openai.set("other")
    openai.control.settings(delay=TICK)
    openai.fill(30)
    openai.fill(30, "other")
    openai.dispatch()
    ((tokens, requests),) = openai.rows("SELECT sum(expected_input), sum(requests) FROM batches WHERE final_at IS NULL")
    assert 0 < tokens <= 300
    assert requests <= 12
    home(openai)
    assert openai.counts()["completed"] == 60


# --- turns


def test_priority_goes_first_and_lower_ones_share_a_tenth(openai: Spool) -> None:
    openai.providers["main"]["limits"] = {"enqueued_requests": 100}
    openai.set("urgent", priority=10)
    openai.control.settings(delay=TICK)
    openai.fill(300)
    openai.fill(300, "urgent")
    openai.dispatch()
    assert dict(openai.rows("SELECT workload, sum(requests) FROM batches GROUP BY 1")) == {"urgent": 90, "echo": 10}


def test_equal_workloads_share_and_what_one_does_not_use_goes_round(openai: Spool) -> None:
    openai.providers["main"]["limits"] = {"enqueued_requests": 90}
    openai.set("second")
    openai.set("third")
    openai.control.settings(delay=TICK)
    openai.fill(300)
    openai.fill(5, "second")
    openai.fill(300, "third")
    planned = openai.preview().result["batches"]
    openai.dispatch()
    sent = dict(openai.rows("SELECT workload, sum(requests) FROM batches GROUP BY 1"))
    assert sent["second"] == 5
    assert sum(sent.values()) == 90
    assert min(sent["echo"], sent["third"]) >= 30
    assert sum(one["requests"] for one in planned) == 90


def test_twenty_urgent_tasks_behind_many_are_home_in_two_batch_times(openai: Spool) -> None:
    openai.providers["main"]["limits"] = {"enqueued_requests": 25}
    openai.control.settings(delay=TICK)
    openai.set("urgent", priority=10)
    openai.fill(300)
    for _ in range(3):
        openai.round()
        openai.clock.advance(TICK)
    openai.fill(20, "urgent")
    for _ in range(3):
        openai.round()
        openai.clock.advance(TICK)
    openai.round()
    assert openai.status()["workloads"]["urgent"]["tasks"]["completed"] == 20


def test_a_low_priority_never_starves(openai: Spool) -> None:
    openai.providers["main"]["limits"] = {"enqueued_requests": 1}
    openai.control.settings(delay=TICK)
    openai.set("urgent", priority=10)
    openai.fill(3)
    for n in range(60):
        openai.enqueue({"id": n, "text": f"record number {n}"}, {"id": -n - 1, "text": "more"}, workload="urgent")
        openai.round()
        openai.clock.advance(TICK)
    assert openai.status()["workloads"]["echo"]["tasks"]["completed"] == 3


# --- what is said


def test_status_says_why_tasks_wait_and_since_when_and_no_longer_once_they_go(openai: Spool) -> None:
    openai.providers["main"]["limits"] = {"enqueued_requests": 10}
    openai.write_config()
    openai.control.settings(delay=TICK)
    openai.fill(15)
    openai.dispatch()
    (wait,) = openai.status()["workloads"]["echo"]["waits"]
    assert (wait["why"], wait["tasks"]) == ("quota", 5)
    assert wait["message"] == "10 of 10 enqueued requests are under way"
    openai.clock.advance(60)
    openai.dispatch()
    assert openai.status()["workloads"]["echo"]["waits"] == [wait]
    openai.clock.advance(TICK)
    openai.poll()
    openai.dispatch()
    assert openai.status()["workloads"]["echo"]["waits"] == []


# --- what must not happen


def test_batches_that_were_refused_together_teach_once(openai: Spool) -> None:
    openai.control.settings(delay=TICK)
    openai.control.queue(tokens=700)
    names = [f"w{n}" for n in range(6)]
    for name in names:
        openai.set(name)
        openai.fill(60, name)
    openai.round()
    assert refused(openai) >= 4
    assert openai.rows("SELECT cap, share FROM quotas") == [(700, 0.95)]


def test_what_is_uploaded_counts_in_its_queue(openai: Spool) -> None:
    openai.providers["main"]["limits"] = {"enqueued_requests": 20}
    openai.write_config()
    openai.control.fault("slow_files", seconds=3600)
    openai.fill(100)
    openai.dispatch()
    assert openai.rows("SELECT status, sum(requests) FROM batches GROUP BY 1") == [("uploaded", 20)]


@pytest.mark.parametrize("what", ["lost", "forgotten"])
def test_a_batch_that_cannot_be_had_takes_no_room(openai: Spool, what: str) -> None:
    openai.providers["main"]["limits"] = {"enqueued_requests": 20}
    openai.write_config()
    openai.fill(40)
    openai.control.settings(delay=TICK)
    if what == "lost":
        openai.control.fault("lost", times=1)
    openai.dispatch()
    if what == "forgotten":
        ((remote,),) = openai.rows("SELECT remote_id FROM batches")
        openai.control.fault("forgotten", batch=remote)
    for _ in range(30):
        openai.clock.advance(3600)
        openai.round()
    assert openai.counts()["completed"] == 20
    assert openai.counts()["pending"] == 0


def test_a_large_request_that_has_waited_for_a_day_has_the_room_kept_for_it(openai: Spool) -> None:
    openai.providers["main"]["limits"] = {"enqueued_tokens": 1000}
    openai.set("small")
    openai.control.settings(delay=2 * 3600)
    openai.enqueue({"id": 1, "text": "word " * 700})
    done = 0
    for n in range(120):
        openai.enqueue(*({"id": f"{n}-{k}", "text": f"record number {k}"} for k in range(20)), workload="small")
        openai.round()
        openai.clock.advance(1800)
        done = openai.status()["workloads"]["echo"]["tasks"]["completed"]
        if done:
            break
    assert done == 1


def test_what_a_blocked_provider_leaves_is_told_of(openai: Spool) -> None:
    openai.providers["main"]["limits"] = {"enqueued_requests": 40}
    openai.set("second")
    openai.fill(60)
    openai.fill(60, "second")
    openai.control.fault("status", "create", status=503, skip=1, times=-1)
    report = openai.dispatch()
    told = sum(wait["tasks"] for wait in report.result["waits"])
    assert told == openai.counts()["pending"] > 0
    assert (
        sum(wait["tasks"] for name in ("echo", "second") for wait in openai.status()["workloads"][name]["waits"])
        == told
    )


def test_a_queue_over_all_models_is_tried_once_a_pause_however_many_models_wait(spools: Any) -> None:
    spool: Spool = spools("anthropic")
    for n, model in enumerate(("claude-sonnet-4-5", "claude-opus-4-1", "claude-haiku-4-5", "claude-3-5-haiku-latest")):
        spool.set(f"w{n}", model=model)
        spool.fill(20, f"w{n}")
    spool.control.settings(delay=TICK)
    spool.control.queue(requests=30, others_requests=30)
    seen = 0
    for _ in range(6):
        waits = spool.dispatch().result["waits"]
        assert {one["why"] for one in waits} <= {"quota", "paused"}
        spool.poll()
        spool.clock.advance(TICK)
        assert refused(spool) - seen <= 1
        seen = refused(spool)
    spool.release("main", scope="provider")
    ((paused,),) = spool.rows("SELECT max(paused_until) FROM quotas")
    assert paused == 0


def test_a_small_batch_that_others_had_refused_leaves_us_the_room_we_had(openai: Spool) -> None:
    openai.control.settings(delay=TICK - 30)
    openai.control.queue(tokens=7000, others_tokens=7000)
    openai.fill(2)
    for _ in range(5):
        openai.round()
        openai.clock.advance(TICK)
    openai.control.queue(tokens=7000, others_tokens=0)
    openai.clock.advance(2 * HOUR)
    openai.enqueue(*({"id": 10 + n, "text": f"record number {n}"} for n in range(400)))
    assert home(openai) <= 4
