"""The configuration changes while batches are under way: they keep what they were sent with, and nothing is stuck."""

import pytest

from tests.conftest import Spool

SECOND_PROTOCOL_IS_LONG = True


def test_options_lowered_meanwhile_concern_what_is_sent_next(spool: Spool) -> None:
    spool.enqueue({"id": 99, "text": "one that is answered"})
    spool.fill(6)
    spool.dispatch()
    spool.control.fault("rows", match="number", status=500, times=2)
    spool.providers["main"] = spool.provider(limits={"requests": 2, "enqueued_tokens": 40})
    spool.set(retry={"max_attempts": 1}, prompt="Say: {{ text }}", model="another-model")
    spool.poll()
    settled = spool.reconcile()
    assert settled.result["tasks"]["failed"] == 6
    assert {answer["attempts"] for answer in spool.results()} == {1}
    assert {answer["model"] for answer in spool.results()} == {spool.model}
    assert spool.counts()["completed"] == 1
    spool.set(retry={"max_attempts": 3})
    spool.enqueue(*({"id": 10 + i, "text": f"record number {10 + i}"} for i in range(4)))
    sent = spool.dispatch()
    assert all(batch["requests"] <= 2 for batch in sent.result["batches"])
    spool.settle(rounds=20)
    assert spool.counts() | {"failed": 6, "completed": 5} == spool.counts()


def test_a_cap_on_attempts_lowered_below_what_was_tried_holds_without_another_one(spool: Spool) -> None:
    spool.set(retry={"max_attempts": 5})
    spool.fill(2)
    spool.control.fault("rows", match="number 1", status=500, times=-1)
    for n in range(2):
        spool.round()
        spool.clock.advance(7 * 3600)
        spool.enqueue({"id": 90 + n, "text": "one that is answered"})
    spool.set(retry={"max_attempts": 1})
    spool.settle()
    (failed,) = [answer for answer in spool.results() if answer["status"] == "failed"]
    assert (failed["key"], failed["attempts"]) == (1, 2)


def test_a_workload_that_left_is_settled_and_what_it_still_holds_is_said(spool: Spool) -> None:
    spool.set("leaves")
    spool.fill(4, workload="leaves")
    spool.dispatch()
    spool.control.fault("rows", match="number 2", status=500)
    leaving = spool.workloads.pop("leaves")
    spool.write_config()
    spool.poll()
    assert spool.reconcile().result["tasks"] == {
        "completed": 3,
        "failed": 0,
        "retried": 1,
        "missing": 0,
        "late": 0,
        "cancelled": 0,
    }
    spool.clock.advance(7 * 3600)
    assert spool.dispatch().exit_code == 0
    (need,) = spool.status()["attention"]
    assert need["message"].startswith("leaves: 1 task waits")
    assert "put workloads.leaves back" in need["hint"]
    spool.workloads["leaves"] = leaving
    spool.write_config()
    spool.settle()
    assert spool.status()["attention"] == []
    assert spool.status()["workloads"]["leaves"]["tasks"]["completed"] == 4
    assert spool.control.billing()["requests"] == 4


@pytest.mark.parametrize("before", [{}, {"x-team": "red"}])
def test_other_headers_change_nothing_about_a_create_that_is_in_doubt(spool: Spool, before: dict[str, str]) -> None:
    spool.providers["main"] = spool.provider(headers=before)
    spool.write_config()
    spool.fill(3)
    spool.control.fault("drop_after", route="create")
    spool.dispatch()
    assert spool.batches() == [(1, "submitting")]
    spool.providers["main"] = spool.provider(headers={"anthropic-beta": "context-1m-2025-08-07"})
    spool.write_config()
    spool.settle()
    assert spool.counts()["completed"] == 3
    assert spool.control.billing()["requests"] == 3
    assert spool.status()["attention"] == []
    spool.check()
