"""Believing what a provider says: lists that are none, addresses that never showed a batch of ours, two clocks."""

from pathlib import Path
from typing import Any

import pytest

from nura_cli.sandbox import Sandbox
from tests.conftest import PROTOCOLS, Spool

pytestmark = pytest.mark.long

QUARTER = 15 * 60 + 1
NO_LISTS = ("batches", "value", "object", "error", "no_ids")


@pytest.fixture(params=PROTOCOLS)
def stranger(request: pytest.FixtureRequest, tmp_path: Path, server: Sandbox) -> Spool:
    """A spool at an address whose list has never shown a batch of ours."""
    folder = tmp_path / "nura"
    folder.mkdir()
    return Spool(folder, server, request.param, shown=False)


def creates(spool: Spool) -> int:
    """Return how many creates were accepted."""
    return int(spool.control.billing()["accepted"])


def said(report: Any) -> str:
    """Return all that a run had to say."""
    return "\n".join(found.line for found in report.problems)


@pytest.mark.parametrize("shape", NO_LISTS)
def test_what_does_not_look_like_a_list_is_not_an_empty_one(spool: Spool, shape: str) -> None:
    spool.fill(3)
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    odd = spool.control.fault("list_shape", shape=shape)
    for _ in range(7):
        spool.clock.advance(QUARTER)
        spool.enqueue({"id": int(spool.clock()), "text": "record number 9"})
        report = spool.dispatch(ignore_waits=True)
        assert report.exit_code in (3, 75)
        assert "is no list" in said(report)
    assert creates(spool) == 1
    assert spool.batches()[0] == (1, "submitting")
    spool.control.clear(odd)
    spool.settle()
    assert creates(spool) == 2
    assert spool.control.billing()["requests"] == 10


@pytest.mark.parametrize("shape", NO_LISTS)
def test_a_list_that_is_none_does_not_keep_batches_from_coming_home(spool: Spool, shape: str) -> None:
    spool.providers["main"] = spool.provider(limits={"requests": 1})
    spool.write_config()
    spool.fill(5)
    spool.dispatch()
    spool.control.fault("list_shape", shape=shape)
    report = spool.poll()
    assert report.exit_code == 3
    assert "is no list" in said(report)
    spool.reconcile()
    assert spool.counts()["completed"] == 5


def test_a_null_list_marks_an_empty_one_and_proves_no_absence(spool: Spool) -> None:
    odd = spool.control.fault("list_shape", shape="null")
    spool.fill(3)
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    assert creates(spool) == 1  # nothing stood in the way of the first one
    for _ in range(4):
        spool.clock.advance(QUARTER)
        report = spool.dispatch()
    assert spool.batches() == [(1, "submitting")]
    assert report.exit_code == 0
    assert "null" in spool.status()["attention"][0]["message"]
    spool.control.clear(odd)
    spool.settle()
    assert (creates(spool), spool.counts()["completed"]) == (1, 3)


def test_a_bare_array_is_a_list(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.control.fault("list_shape", shape="array")
    spool.fill(3)
    spool.control.fault("drop_after", "create")
    spool.settle()
    assert (creates(spool), spool.counts()["completed"]) == (1, 3)


def test_a_list_that_does_not_say_whether_there_is_more_is_read_on(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nura_cli.providers.openai.OpenAIProvider.page_size", 5)
    monkeypatch.setattr("nura_cli.providers.anthropic.AnthropicProvider.page_size", 5)
    spool.control.fault("no_has_more")
    spool.fill(2)
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    for _ in range(12):
        spool.control.foreign(1, protocol=spool.protocol, key="sk-test-1")
    for _ in range(3):
        spool.clock.advance(QUARTER)
        spool.dispatch()
    spool.settle()
    assert (creates(spool), spool.counts()["completed"]) == (1, 2)


@pytest.mark.parametrize(
    "fault", [{"what": "drop_before"}, {"what": "drop_after"}, {"what": "create_shape", "shape": "no_id"}]
)
def test_an_address_that_never_showed_a_batch_of_ours_proves_no_absence(stranger: Spool, fault: dict[str, Any]) -> None:
    spool = stranger
    empty = spool.control.fault("hide", seconds=10**9, times=-1)
    spool.workloads["other"] = spool.workload(prompt="Other: {{ text }}")
    spool.write_config()
    spool.fill(3)
    spool.server.arm({"route": "create", **fault})
    first = spool.dispatch()
    assert first.exit_code == 75
    sent = spool.control.billing()["creates"]
    spool.fill(2, workload="other")
    codes = []
    for _ in range(5):
        spool.clock.advance(QUARTER)
        report = spool.dispatch(ignore_waits=True)
        codes.append(report.exit_code)
        assert "has never shown a batch of ours" in said(report)
        assert report.result["not_due"]["paused"] == 2
    assert codes == [3, 0, 0, 0, 0]  # the run that sets the hold, and those after it
    assert spool.control.billing()["creates"] == sent  # nothing more goes to that address
    assert spool.batches() == [(1, "submitting")]
    (need,) = spool.status()["attention"]
    assert "nura resolve 1 --resend" in need["hint"]
    spool.control.clear(empty)
    if fault["what"] == "drop_before":
        spool.resolve("1")
    spool.settle()  # found on the list, it is released by itself
    assert spool.counts()["completed"] == 5
    assert spool.control.billing()["requests"] == 5


def test_a_confirmed_batch_that_the_list_lacks_makes_the_list_no_better(stranger: Spool) -> None:
    spool = stranger
    spool.control.settings(delay=10**5)
    spool.control.fault("hide", seconds=10**9, times=-1)
    spool.fill(1)
    assert spool.dispatch().exit_code == 0
    spool.enqueue({"id": 7, "text": "record number 7"})
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    for _ in range(4):
        spool.clock.advance(QUARTER)
        spool.dispatch()
    assert [status for _, status in spool.batches()] == ["submitted", "submitting"]
    assert creates(spool) == 2


def test_an_address_that_has_shown_a_batch_of_ours_is_believed(stranger: Spool) -> None:
    spool = stranger
    spool.fill(1)
    spool.settle()
    spool.enqueue({"id": 7, "text": "record number 7"})
    spool.dispatch()
    spool.enqueue({"id": 8, "text": "record number 8"})
    spool.control.fault("drop_before", "create")
    spool.dispatch()
    for _ in range(2):
        spool.clock.advance(QUARTER)
        spool.dispatch()
    assert (3, "failed") in spool.batches()
    spool.settle()
    assert spool.counts()["completed"] == 3
    assert spool.control.billing()["requests"] == 3


def test_servers_whose_clocks_disagree_do_not_shorten_the_quarter_of_an_hour(spool: Spool) -> None:
    """One server is 20 minutes ahead of the other: by their clocks the quarter of an hour passes between two requests."""
    spool.fill(2)
    spool.control.fault("drop_before", "create")
    spool.dispatch()
    spool.dispatch()
    spool.control.advance(20 * 60)
    spool.clock.time += 5
    spool.dispatch()
    assert spool.batches() == [(1, "submitting")]
    spool.clock.time -= 3600  # a clock that was set back starts the quarter of an hour anew
    spool.dispatch()
    spool.clock.time += 60
    spool.dispatch()
    assert spool.batches() == [(1, "submitting")]
    spool.clock.advance(QUARTER)
    spool.dispatch()
    assert spool.batches()[0] == (1, "failed")
    spool.settle()
    assert spool.control.billing()["requests"] == 2


@pytest.mark.parametrize("shape", ["batch_id", "no_id", "empty", "wrapped"])
def test_a_create_answered_without_an_id_is_found_and_not_sent_again(spool: Spool, shape: str) -> None:
    spool.fill(3)
    spool.control.fault("create_shape", "create", shape=shape)
    assert spool.dispatch().result["unconfirmed"] == 1
    spool.settle()
    assert (creates(spool), spool.counts()["completed"]) == (1, 3)


def test_a_create_answered_with_another_batchs_id_is_held(spool: Spool) -> None:
    spool.control.settings(delay=600)
    spool.fill(2)
    spool.dispatch()
    spool.enqueue(
        {"id": 7, "text": "record number 7"}, {"id": 8, "text": "record number 8"}, {"id": 9, "text": "record number 9"}
    )
    spool.control.fault("create_shape", "create", shape="known")
    report = spool.dispatch()
    assert report.exit_code == 3
    assert "belongs to another batch already" in said(report)
    assert spool.batches() == [(1, "submitted"), (2, "submitting")]
    spool.clock.advance(700)
    spool.settle()
    assert creates(spool) == 2
    assert spool.counts()["completed"] == 5
    spool.check()
