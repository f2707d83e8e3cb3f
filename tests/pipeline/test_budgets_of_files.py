"""Budgets where the provider takes files, keeps marks, and takes requests without a limit on their output: OpenAI's protocol."""

import json
import os
from decimal import Decimal
from typing import Any

import pytest

from nura_cli.pricing import PICO
from nura_cli.state import State, actions
from nura_cli.state.budgets import Scope, spent
from tests.conftest import START, Spool
from tests.pipeline.test_budgets import DAY, HOUR, PRICE, TICK, budget, spending_of, whys, with_prices

pytestmark = pytest.mark.usefixtures("hurried")


@pytest.fixture
def priced(openai_spool: Spool) -> Spool:
    """Return a spool whose model has a price of our own, at the provider as well."""
    return with_prices(openai_spool)


@pytest.mark.parametrize(
    ("params", "why"),
    [({}, "sets no maximum for its output"), ({"max_tokens": 40, "n": 2}, "n"), ({"max_tokens": 40, "odd": 1}, "odd")],
    ids=["no maximum", "n", "unknown member"],
)
def test_a_request_without_a_bound_is_named_and_not_sent_under_worst(
    priced: Spool, params: dict[str, Any], why: str
) -> None:
    priced.workloads["echo"]["params"] = params
    budget(priced, day="5.00", basis="worst")
    priced.fill(3)
    report = priced.dispatch()
    assert report.result["requests"] == 0
    assert report.exit_code == 0
    (said,) = [found for found in report.problems if found.kind == "budget"]
    assert why in said.message
    assert priced.counts()["pending"] == 3
    budget(priced, day="5.00")
    priced.clock.advance(DAY)
    assert priced.dispatch().result["requests"] == 3


def test_an_upload_that_waits_over_midnight_counts_for_the_day_of_its_create(priced: Spool) -> None:
    budget(priced, day="0.02")
    priced.clock.advance(DAY - START % DAY - 60)
    priced.control.fault("slow_files", seconds=600, times=-1)
    priced.fill(10)
    priced.dispatch()
    assert priced.batches() == [(1, "uploaded")]
    priced.clock.advance(1200)
    priced.control.clear()
    priced.dispatch()
    ((sent_at, cost),) = priced.rows("SELECT sent_at, expected_cost FROM batches")
    day = sent_at - sent_at % DAY
    with State(priced.state_path, priced.clock) as state:
        today = spent(state.db, Scope(provider="main"), day, day + DAY, "expected", 0)
        yesterday = spent(state.db, Scope(provider="main"), day - DAY, day, "expected", 0)
    assert (today.total, yesterday.total) == (cost, 0)


def test_a_batch_that_no_longer_fits_when_it_is_to_be_created_goes_back(priced: Spool) -> None:
    priced.control.fault("slow_files", seconds=600, times=-1)
    priced.fill(10)
    priced.dispatch()
    priced.control.clear()
    priced.clock.advance(TICK)
    budget(priced, day="0.000001")
    report = priced.dispatch()
    assert "budget" in whys(report)
    assert priced.counts()["pending"] == 10
    assert priced.control.billing()["creates"] == 0


def test_another_copy_s_batches_close_the_budget_until_the_provider_is_released(priced: Spool) -> None:
    budget(priced, day="5.00")
    priced.fill(2)
    priced.dispatch()
    with State(priced.state_path, priced.clock) as state:
        name = state.state_id
    stranger = priced.control.foreign(5, metadata={"nura_state": name, "nura_tag": "f" * 20})
    priced.fill(2, "echo")
    priced.enqueue({"id": 77, "text": "record number 77"})
    priced.clock.advance(60)
    assert priced.dispatch().exit_code == 78
    (hold,) = priced.status()["holds"]
    assert (hold["scope"], hold["name"]) == ("provider", "main")
    assert "providers.main.budget.day" in hold["origin"]
    priced.resolve(stranger)
    assert priced.dispatch().result["requests"] == 0
    priced.release("main", scope="provider")
    assert priced.dispatch().result["requests"] == 1


def test_under_worst_an_answer_of_unknown_cost_may_have_cost_all_that_is_left(priced: Spool) -> None:
    day = priced.clock.time - priced.clock.time % DAY

    def line(n: int, most: int) -> bytes:
        body = {"model": priced.model, "max_tokens": most, "messages": [{"role": "user", "content": f"number {n}"}]}
        whole = {"custom_id": f"k{n}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        return json.dumps(whole).encode()

    priced.set("ready")
    priced.workloads["ready"] = {"provider": "main"}
    budget(priced, day="0.20", basis="worst")
    priced.control.fault("patch", match="number 0", body={"usage": None}, times=-1)
    priced.enqueue(line(0, 10_000), *(line(n, 10) for n in range(1, 10)), workload="ready")
    priced.dispatch()
    priced.clock.advance(HOUR)
    priced.poll()
    priced.reconcile()
    with State(priced.state_path, priced.clock) as state:
        found = spent(state.db, Scope(provider="main"), day, day + DAY, "worst", 0)
    assert found.total >= 10_000 * 8 * PICO // 10**6


def test_a_hold_of_a_workload_of_the_same_name_leaves_no_budget_open(priced: Spool) -> None:
    priced.workloads = {"main": priced.workloads["echo"], "echo": priced.workloads["echo"]}
    budget(priced, day="5.00")
    priced.fill(2)
    priced.dispatch()
    with State(priced.state_path, priced.clock) as state, state.transaction() as db:
        actions.hold(db, actions.Hold("workload", "main", "its canary failed", db.now, None, "", None))
        name = state.state_id
    priced.control.foreign(5, metadata={"nura_state": name, "nura_tag": "f" * 20})
    priced.enqueue({"id": 77, "text": "record number 77"})
    priced.clock.advance(60)
    priced.dispatch()
    assert ("provider", "main") in {(hold["scope"], hold["name"]) for hold in priced.status()["holds"]}


def test_an_upload_is_written_anew_where_its_prices_may_have_changed(priced: Spool) -> None:
    budget(priced, day="0.02", basis="worst")
    priced.control.fault("slow_files", seconds=600, times=-1)
    priced.fill(10)
    priced.dispatch()
    ((before,),) = priced.rows("SELECT worst_cost FROM batches")
    priced.control.clear()
    priced.clock.advance(TICK)
    dearer = {name: str(Decimal(price) * 2) for name, price in PRICE.items()}
    priced.providers["main"]["prices"] = {priced.model: dearer}
    priced.write_config()
    os.utime(priced.path, (priced.clock.time, priced.clock.time))
    priced.dispatch()
    ((after,),) = priced.rows("SELECT worst_cost FROM batches WHERE sent_at IS NOT NULL")
    assert after == 2 * before


def test_an_upload_whose_workload_has_moved_counts_for_the_budgets_all_the_same(priced: Spool) -> None:
    priced.control.fault("slow_files", seconds=600, times=-1)
    priced.fill(10)
    priced.dispatch()
    priced.control.clear()
    priced.clock.advance(TICK)
    priced.workloads["renamed"] = priced.workloads.pop("echo")
    budget(priced, day="0.000001", basis="worst")
    priced.dispatch()
    assert priced.control.billing()["creates"] == 0


def test_a_second_sending_counts_twice(priced: Spool) -> None:
    day = priced.clock.time - priced.clock.time % DAY
    priced.control.fault("twice", "create")
    priced.control.settings(delay=HOUR)
    priced.fill(10)
    priced.dispatch()
    priced.clock.advance(60)
    priced.poll()
    ((estimate,),) = priced.rows("SELECT expected_cost FROM batches")
    assert spending_of(priced, day) == 2 * estimate


def test_a_second_sending_that_is_let_go_is_not_free(priced: Spool) -> None:
    day = priced.clock.time - priced.clock.time % DAY
    priced.control.fault("twice", "create")
    priced.control.settings(delay=3 * HOUR)
    priced.fill(10)
    priced.dispatch()
    for _ in range(3):
        priced.clock.advance(20 * 60)
        priced.poll()
    found = priced.rows("SELECT remote_id FROM strays WHERE counted_at IS NULL")
    priced.resolve(found[0][0], give_up=True)
    priced.clock.advance(4 * HOUR)
    priced.round()
    priced.round()
    assert spending_of(priced, day) >= priced.control.billing()["cost"] * PICO
