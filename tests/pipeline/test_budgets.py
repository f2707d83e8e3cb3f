"""Budgets hold: across runs, kills and midnight, whatever is under way, lost, sent twice or tried at once."""

import random
from decimal import Decimal
from typing import Any

import pytest

from nura_cli import config as configuration
from nura_cli import contract
from nura_cli.errors import ConfigError
from nura_cli.pipeline import trial
from nura_cli.pipeline.accounts import Accounts
from nura_cli.pipeline.report import Report
from nura_cli.pricing import PICO
from nura_cli.state import State
from nura_cli.state.budgets import Scope, spent
from tests.conftest import OPENAI_FIRST, START, Spool
from tests.pipeline.forks import Command

pytestmark = [pytest.mark.parametrize("spool", OPENAI_FIRST, indirect=True), pytest.mark.usefixtures("hurried")]
TICK = 15 * 60
HOUR = 3600
DAY = 86400
PRICE = {"input": "4.00", "output": "16.00"}
"""US dollars for a million tokens: of the configuration, and of the sandbox."""


def with_prices(spool: Spool) -> Spool:
    """Give the model of a spool a price of our own, at the provider as well; each request has its output limited."""
    spool.providers["main"].update(prices={spool.model: PRICE}, batch_discount=0.5)
    spool.control.settings(prices={"*": {name: float(price) for name, price in PRICE.items()}})
    spool.set(params={"max_tokens": 40})
    return spool


@pytest.fixture
def priced(spool: Spool) -> Spool:
    """Return a spool with prices."""
    return with_prices(spool)


def budget(spool: Spool, **options: Any) -> None:
    """Give the provider a budget."""
    spool.providers["main"]["budget"] = options
    spool.write_config()


def tried(spool: Spool, key: str) -> Any:
    """Try the record of one key."""

    def work(state: State, config: configuration.Config, accounts: Accounts) -> Report:
        return trial.run(trial.plan(state, config, accounts, "echo", trial.of_keys(state, "echo", [key])))

    return spool._run(work, contract.Trials)


def whys(report: Any) -> list[str]:
    """Return what tasks wait for, by a run of dispatch."""
    return [wait["why"] for wait in report.result["waits"]]


def expected(spool: Spool, basis: str = "expected") -> Decimal:
    """Return in US dollars what all that was sent was expected to cost."""
    ((pico,),) = spool.rows(f"SELECT coalesce(sum({basis}_cost), 0) FROM batches WHERE sent_at IS NOT NULL")
    return Decimal(pico) / PICO


def test_a_day_s_budget_lets_go_what_fits_and_the_next_day_the_rest(priced: Spool) -> None:
    budget(priced, day="0.02")
    priced.control.settings(delay=60)
    priced.fill(600)
    planned, report = priced.preview(), priced.dispatch()
    assert report.exit_code == 0
    assert "budget" in whys(report)
    assert whys(planned) == whys(report)
    assert planned.result["requests"] == report.result["requests"] < 600
    assert Decimal("0.015") < expected(priced) <= Decimal("0.02")
    (said,) = [found for found in report.problems if found.kind == "budget"]
    assert "providers.main.budget.day" in said.message
    for _ in range(8):
        priced.clock.advance(TICK)
        priced.round()
    before = priced.counts()["pending"]
    assert before > 0
    priced.clock.advance(DAY)
    again = priced.dispatch()
    assert again.result["requests"] > 0


def test_what_came_cheaper_than_expected_leaves_room_again_and_that_is_said(priced: Spool) -> None:
    budget(priced, day="0.02")
    priced.set(params={"max_tokens": 400})  # ten times what is answered
    priced.control.settings(delay=60)
    priced.fill(60)
    first = priced.dispatch()
    assert "budget" in whys(first)
    priced.clock.advance(TICK)
    priced.poll()
    priced.reconcile()
    second = priced.dispatch()
    assert second.result["requests"] > 0
    while "budget" in whys(second):
        priced.clock.advance(TICK)
        priced.poll()
        priced.reconcile()
        second = priced.dispatch()
    assert any("has room again" in found.message for found in second.problems)
    priced.settle()
    assert priced.counts()["completed"] == 60


def test_worst_counts_all_the_output_that_may_come_and_is_never_passed(priced: Spool) -> None:
    budget(priced, day="0.02", basis="worst")
    priced.control.fault("patch", body={"usage": {"output_tokens": 40, "completion_tokens": 40}}, times=-1)
    priced.control.settings(delay=60)
    priced.fill(200)
    for _ in range(20):
        priced.round()
        priced.clock.advance(TICK)
    assert expected(priced, "worst") >= Decimal("0.01")
    (billed,) = priced.control.billing()["days"].values()
    assert 0 < billed["cost"] <= 0.02


def test_a_model_without_a_price_stops_its_workload_under_a_budget_and_no_other(priced: Spool) -> None:
    budget(priced, day="5.00")
    priced.set("other", model="a-model-of-nobody")
    priced.fill(2)
    priced.fill(2, "other")
    report = priced.dispatch()
    assert report.result["requests"] == 2
    (said,) = report.problems
    assert (said.kind, said.workload) == (ConfigError.kind, "other")
    assert said.hint is not None
    assert "providers.main.prices" in said.hint


def test_one_request_larger_than_a_budget_is_passed_over_and_blocks_nobody(priced: Spool) -> None:
    budget(priced, day="0.001")
    priced.enqueue({"id": 1, "text": "word " * 3000}, {"id": 2, "text": "short"})
    report = priced.dispatch()
    assert report.result["requests"] == 1
    assert "budget.day is $0.001" in next(found.message for found in report.problems if found.kind == "budget")


def test_a_batch_s_budget_makes_more_batches(priced: Spool) -> None:
    priced.set(budget={"batch": "0.01"})
    priced.fill(200)
    report = priced.dispatch()
    assert report.result["requests"] == 200
    assert len(report.result["batches"]) > 1
    costs = priced.rows("SELECT expected_cost FROM batches")
    assert all(cost <= 0.01 * PICO for (cost,) in costs)


def test_a_workload_s_budget_is_its_own_and_a_provider_s_is_shared(priced: Spool) -> None:
    priced.set("other", params={"max_tokens": 40}, budget={"day": "0.005"})
    budget(priced, day="0.02")
    priced.fill(200)
    priced.fill(200, "other")
    priced.dispatch()
    costs = dict(priced.rows("SELECT workload, sum(expected_cost) FROM batches GROUP BY 1"))
    assert costs["other"] <= 0.005 * PICO
    assert sum(costs.values()) <= 0.02 * PICO
    assert costs["echo"] >= 0.008 * PICO


def test_a_month_s_budget_holds_over_days(priced: Spool) -> None:
    budget(priced, month="0.02")
    priced.control.settings(delay=60)
    priced.fill(400)
    for _ in range(6):
        priced.round()
        priced.clock.advance(HOUR)
        priced.round()
        priced.clock.advance(DAY // 2)
    total = priced.control.billing()["cost"]
    assert 0.01 < total <= 0.025
    assert priced.counts()["pending"] > 0


def spending_of(spool: Spool, day: int) -> int:
    """Return what a day's budget of the provider holds, in pico-dollars; nothing of it is unknown."""
    with State(spool.state_path, spool.clock) as state:
        found = spent(state.db, Scope(provider="main"), day, day + DAY, "expected", spool.clock.time - 2 * DAY)
    assert found.unknown == ()
    return found.total


def test_what_is_under_way_settled_lost_and_given_up_counts(priced: Spool) -> None:
    day = priced.clock.time - priced.clock.time % DAY
    priced.control.settings(delay=HOUR)
    priced.fill(10)
    priced.dispatch()
    ((estimate,),) = priced.rows("SELECT expected_cost FROM batches")
    assert spending_of(priced, day) == estimate
    priced.clock.advance(HOUR)
    priced.poll()
    assert spending_of(priced, day) == estimate
    priced.reconcile()
    ((settled,),) = priced.rows("SELECT sum(cost) FROM attempts")
    assert spending_of(priced, day) == settled > 0
    assert settled != estimate


def test_a_create_that_nobody_answered_counts_until_it_is_known_and_while_it_may_turn_up(priced: Spool) -> None:
    day = priced.clock.time - priced.clock.time % DAY
    priced.control.fault("drop_before", "create")
    priced.fill(10)
    priced.dispatch()
    ((estimate,),) = priced.rows("SELECT expected_cost FROM batches")
    assert priced.batches() == [(1, "submitting")]
    assert spending_of(priced, day) == estimate
    for _ in range(3):
        priced.clock.advance(20 * 60)
        priced.dispatch(workloads=["echo"])
    sent = dict(priced.rows("SELECT id, expected_cost FROM batches WHERE sent_at IS NOT NULL"))
    assert len(sent) == 2
    assert spending_of(priced, day) == sum(sent.values())  # the one that was given up is still looked out for


def test_answers_of_unknown_cost_count_with_their_estimate(priced: Spool) -> None:
    day = priced.clock.time - priced.clock.time % DAY
    priced.control.fault("patch", body={"usage": None}, times=-1)
    priced.fill(10)
    priced.round()
    priced.round()
    ((estimate,),) = priced.rows("SELECT expected_cost FROM batches")
    assert priced.counts()["completed"] == 10
    assert priced.rows("SELECT count(*) FROM attempts WHERE cost IS NULL") == [(10,)]
    assert estimate <= spending_of(priced, day) < estimate + 10


def test_a_try_counts_and_is_refused_where_it_could_pass_the_budget(priced: Spool) -> None:
    budget(priced, day="0.001")
    priced.fill(3)
    first = tried(priced, "0")
    day = priced.clock.time - priced.clock.time % DAY
    assert spending_of(priced, day) == priced.rows("SELECT cost FROM trials")[0][0] > 0
    assert first.result["trials"][0]["status"] == "completed"
    budget(priced, day="0.0000001")
    before = priced.control.billing()["synchronous"]["requests"]
    refused = tried(priced, "1")
    assert refused.result["trials"] == []
    assert "budget.day" in refused.problems[0].message
    assert priced.control.billing()["synchronous"]["requests"] == before


def test_a_batch_of_an_earlier_release_closes_the_budget_until_it_is_home(priced: Spool) -> None:
    priced.control.settings(delay=60)
    priced.fill(10)
    priced.dispatch()
    with State(priced.state_path, priced.clock) as state, state.transaction() as db:
        db.execute("UPDATE batches SET basis = NULL, expected_cost = NULL, worst_cost = NULL")
    budget(priced, day="5.00")
    priced.enqueue({"id": 77, "text": "record number 77"})
    report = priced.dispatch()
    assert whys(report) == ["budget"]
    assert "nobody knows what batch 1 costs" in report.result["waits"][0]["message"]
    priced.clock.advance(TICK)
    priced.poll()
    priced.reconcile()
    assert priced.dispatch().result["requests"] == 1


def test_a_clock_that_is_set_back_makes_nobody_look_at_what_was_passed_over_for_ever(priced: Spool) -> None:
    budget(priced, day="0.001")
    priced.enqueue({"id": 1, "text": "word " * 3000})
    priced.dispatch()
    priced.clock.advance(-HOUR)
    before = priced.rows("SELECT seq FROM sqlite_sequence WHERE name = 'batches'")
    assert priced.dispatch().result["requests"] == 0
    assert priced.dispatch().result["requests"] == 0
    ((after,),) = priced.rows("SELECT seq FROM sqlite_sequence WHERE name = 'batches'")
    assert after - before[0][0] <= 2


def test_what_is_passed_over_is_said_by_the_dry_run_too_and_blocks_nobody_with_now(priced: Spool) -> None:
    priced.providers["main"]["limits"] = {"requests": 5}
    budget(priced, day="0.005")
    large = ({"id": f"large {n}", "text": "word " * 3000} for n in range(5))
    priced.enqueue(*large, *({"id": n, "text": f"record number {n}"} for n in range(5)))
    planned, report = priced.preview(ignore_waits=True), priced.dispatch(ignore_waits=True)
    assert planned.result["requests"] == report.result["requests"] == 5
    for found in (planned, report):
        ((why, n),) = [(wait["why"], wait["tasks"]) for wait in found.result["waits"]]
        assert (why, n) == ("too_large", 5)


def test_small_requests_go_though_the_others_were_larger_than_the_whole_budget(priced: Spool) -> None:
    priced.control.settings(delay=60)
    priced.enqueue(*({"id": f"large {n}", "text": "word " * 3000} for n in range(25)))
    priced.dispatch()
    priced.clock.advance(TICK)
    priced.poll()
    priced.reconcile()
    budget(priced, day="0.005")
    priced.clock.advance(DAY)
    priced.enqueue({"id": 1, "text": "record number 1"})
    assert priced.dispatch().result["requests"] == 1


@pytest.mark.long
def test_a_dollar_a_day_holds_over_kills_at_any_call_three_days_and_midnights_in_batches(
    priced: Spool,
) -> None:
    dice, limit = random.Random(2), 0.1
    budget(priced, day=str(limit), basis="worst")
    priced.set(params={"max_tokens": 60})
    priced.control.settings(delay=5 * HOUR)
    priced.clock.advance(DAY - START % DAY - 2 * HOUR)
    sent = 0
    for _ in range(40):
        priced.enqueue(*({"id": sent + n, "text": f"record number {sent + n}"} for n in range(60)))
        sent += 60
        for stage in ("dispatch", "poll", "reconcile"):
            Command(priced.folder, priced.clock.time, stage, kill_at=dice.randrange(1, 400)).end()
            if dice.random() < 0.5:
                Command(priced.folder, priced.clock.time, stage).end()
        priced.clock.advance(dice.choice([HOUR, 2 * HOUR]))
    days = priced.control.billing()["days"]
    assert len(days) >= 3
    assert max(day["cost"] for day in days.values()) <= limit
    assert sum(day["requests"] for day in days.values()) > 100
    priced.check_sums()


def test_a_budget_that_is_used_up_keeps_no_room_from_other_workloads(priced: Spool) -> None:
    priced.control.settings(delay=60)
    priced.set("free", params={"max_tokens": 40})
    priced.workloads["echo"]["budget"] = {"month": "0.005", "basis": "worst"}
    priced.write_config()
    priced.fill(100)
    while priced.round()[0].result["requests"]:
        priced.clock.advance(TICK)
    assert priced.counts()["pending"] > 0
    priced.clock.advance(DAY + HOUR)
    for n in range(2):
        priced.enqueue({"id": n, "text": "record"}, workload="free")
        sent = priced.dispatch()
        assert "free" not in [wait["workload"] for wait in sent.result["waits"]]
        assert sent.result["not_due"]["quota"] == 0
        priced.clock.advance(HOUR)


def test_what_is_passed_over_is_noted_apart_for_as_long_as_it_waits(priced: Spool) -> None:
    budget(priced, day="0.001")
    priced.control.settings(delay=60)
    priced.enqueue({"id": "large", "text": "word " * 3000}, {"id": 1, "text": "small"})
    first = priced.dispatch()
    assert first.result["not_due"] | {"too_large": 1, "budget": 0, "backoff": 0} == first.result["not_due"]
    (wait,) = first.result["waits"]
    for _ in range(3):
        priced.clock.advance(TICK)
        priced.poll()
        priced.reconcile()
        priced.enqueue({"id": priced.clock.time, "text": "small"})
        later = priced.dispatch()
        assert [(one["why"], one["tasks"], one["message"]) for one in later.result["waits"]] == [
            ("too_large", 1, wait["message"])
        ]
        assert not [one.message for one in later.problems if "room again" in one.message]
        (shown,) = priced.status()["workloads"]["echo"]["waits"]
        assert (shown["why"], shown["tasks"]) == ("too_large", 1)
    assert priced.preview().result["not_due"]["too_large"] == 1
    assert priced.counts()["pending"] == 1


def test_what_waits_adds_up_to_the_tasks_that_are_pending(priced: Spool) -> None:
    budget(priced, day="0.001")
    priced.control.settings(delay=60)
    priced.enqueue(
        *({"id": f"large {n}", "text": "word " * 3000} for n in range(20)),
        *({"id": n, "text": f"small {n}"} for n in range(60)),
    )
    planned, sent = priced.preview().result, priced.dispatch().result
    for found in (planned, sent):
        assert sum(found["not_due"].values()) == 80 - found["requests"]
        assert found["not_due"]["too_large"] == 20
    shown = priced.status()["workloads"]["echo"]["waits"]
    assert {one["why"]: one["tasks"] for one in shown} == {"too_large": 20, "budget": 60 - sent["requests"]}


def test_what_a_workload_waits_for_stays_noted_while_it_cannot_be_looked_at(priced: Spool) -> None:
    budget(priced, day="0.001")
    priced.control.settings(delay=60)
    priced.fill(60)
    priced.dispatch()
    before = priced.status()["workloads"]["echo"]["waits"]
    assert [one["why"] for one in before] == ["budget"]
    priced.providers["main"].pop("prices")
    priced.set(model="a-model-of-nobody")
    assert priced.dispatch().exit_code == 78
    assert priced.status()["workloads"]["echo"]["waits"] == before


def test_a_second_sending_of_unknown_cost_counts_with_the_estimate_at_worst(priced: Spool) -> None:
    day = priced.clock.time - priced.clock.time % DAY
    budget(priced, day="5.00", basis="worst")
    priced.control.fault("twice", "create")
    priced.control.settings(delay=HOUR)
    priced.fill(10)
    priced.dispatch()
    for _ in range(6):
        priced.clock.advance(20 * 60)
        priced.poll()
    priced.reconcile()
    ((worst, billed),) = priced.rows("SELECT worst_cost, billed_cost FROM batches")
    with State(priced.state_path, priced.clock) as state, state.transaction() as db:
        db.execute("UPDATE attempts SET cost = NULL, list_cost = NULL WHERE stray <> ''")  # as an unreadable usage does
    with State(priced.state_path, priced.clock) as state:
        found = spent(state.db, Scope(provider="main"), day, day + DAY, "worst", 0)
        assert found.total == billed + worst
        some = spent(state.db, Scope(provider="main"), day, day + DAY, "expected", 0)
        assert billed < some.total <= billed + worst
