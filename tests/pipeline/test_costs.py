"""What answers cost, as the provider's own figures tell; unknown, and never too low, where they do not."""

from decimal import Decimal
from typing import Any

import pytest

from tests.conftest import Spool

SECOND_PROTOCOL_IS_LONG = True


def answered(spool: Spool, patch: dict[str, Any], n: int = 1) -> dict[str, Any]:
    """Let records be answered with responses that are changed so; return what status says of the costs."""
    spool.control.fault("patch", body=patch)
    spool.fill(n)
    spool.round()
    assert spool.counts()["completed"] == n
    found: dict[str, Any] = spool.status()["cost"]
    return found


def dollars(document: dict[str, Any]) -> Decimal:
    """Return what an answer cost."""
    return Decimal(document["cost"])


def test_a_configured_price_of_the_workloads_model_holds_whatever_version_answers(spool: Spool) -> None:
    """The spool's address is no vendor's own, so that nothing says that batches cost less there."""
    spool.providers["main"] = spool.provider(prices={spool.model: {"input": 1000, "output": 2000}})
    spool.write_config()
    usage = dict.fromkeys(("prompt_tokens", "input_tokens"), 1000) | dict.fromkeys(
        ("completion_tokens", "output_tokens"), 10
    )
    others = {"total_tokens": 1010} if "gpt" in spool.model else {}
    cost = answered(spool, {"usage": usage | others, "model": f"{spool.model}-2026-01-01"})
    assert dollars(spool.results()[0]) == Decimal("1.02")
    assert (cost["paid"], cost["list"], cost["unpriced_tasks"]) == ("1.02", "1.02", 0)
    spool.check()


def test_a_model_that_no_list_has_is_priced_by_the_configuration_in_every_place(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.set(model="my-deployment", retry={"max_attempts": 1})
    spool.fill(2)
    assert [one["estimated_cost"] for one in spool.preview().result["batches"]] == [None]
    prices = {"my-deployment": {"input": 1000, "output": 2000}}
    spool.providers["main"] = spool.provider(prices=prices, batch_discount="20%")
    spool.write_config()
    planned = spool.preview().result["batches"]
    assert [Decimal(one["estimated_cost"]) / one["estimated_tokens"] for one in planned] == [Decimal("0.0008")]
    spool.control.fault("patch", body={"model": "gpt-4.1-mini-2025-04-14"})
    spool.control.fault("rows", match="record number 1", status=400)
    spool.round()
    used, costs = spool.status()["usage"], spool.status()["cost"]
    listed = used["input_tokens"] * Decimal("0.001") + used["output_tokens"] * Decimal("0.002")
    assert (Decimal(costs["list"]), Decimal(costs["paid"])) == (listed, listed * Decimal("0.8"))
    assert spool.retry("echo").result["workloads"]["echo"]["estimated_cost"] is not None
    spool.check()


def test_an_hours_cache_costs_twice_the_input_and_a_search_a_cent(anthropic_spool: Spool) -> None:
    written = {"ephemeral_1h_input_tokens": 1_000_000, "ephemeral_5m_input_tokens": 0}
    usage = {"input_tokens": 0, "output_tokens": 0, "cache_creation_input_tokens": 1_000_000, "cache_creation": written}
    cost = answered(anthropic_spool, {"usage": usage | {"server_tool_use": {"web_search_requests": 2}}})
    assert dollars(anthropic_spool.results()[0]) == Decimal("1.02")
    assert (cost["paid"], cost["list"], cost["unpriced_tasks"]) == ("1.02", "2.02", 0)


def test_what_a_cache_write_costs_at_openai_is_the_price_lists(openai_spool: Spool) -> None:
    openai_spool.set(model="gpt-5.6-sol", endpoint="/v1/responses")
    details = {"cached_tokens": 0, "cache_write_tokens": 10_000}
    usage = {"input_tokens": 10_000, "output_tokens": 0, "input_tokens_details": details}
    answered(openai_spool, {"usage": usage})
    assert dollars(openai_spool.results()[0]) == Decimal("0.025")


def test_searches_of_a_response_are_priced_and_code_is_of_unknown_cost(openai_spool: Spool) -> None:
    openai_spool.set(endpoint="/v1/responses", model="gpt-5")
    said = {"type": "message", "content": [{"type": "output_text", "text": "record number 0"}]}
    usage = {"input_tokens": 0, "output_tokens": 0}
    search = {"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}}
    answered(openai_spool, {"output": [search, search, said], "usage": usage})
    assert dollars(openai_spool.results()[0]) == Decimal("0.02")
    openai_spool.enqueue({"id": 1, "text": "record number 1"})
    said = {**said, "content": [{"type": "output_text", "text": "record number 1"}]}
    openai_spool.control.fault("patch", body={"output": [{"type": "code_interpreter_call"}, said]})
    openai_spool.round()
    assert [one["cost"] for one in openai_spool.results()] == ["0.02", None]
    assert openai_spool.status()["cost"]["unpriced_tasks"] == 1
    openai_spool.check()


@pytest.mark.parametrize("usage", [None, "odd", {"input_tokens": 1.5, "prompt_tokens": 1.5}, 7])
def test_figures_that_cannot_be_read_make_the_cost_unknown_and_keep_the_answer(spool: Spool, usage: Any) -> None:
    cleared = dict.fromkeys(("prompt_tokens", "input_tokens"))
    patch = {**cleared, **usage} if isinstance(usage, dict) else usage
    cost = answered(spool, {"usage": patch}, 2)
    assert cost["unpriced_tasks"] == 2
    assert [one["cost"] for one in spool.results()] == [None, None]
    spool.check()


def test_a_row_that_is_missing_was_perhaps_paid_for(spool: Spool) -> None:
    """Whatever the counts say: they and the lines may well disagree."""
    spool.set(retry={"max_attempts": 1})
    spool.fill(3)
    for fault in ("rows", "missing"):
        spool.control.fault(fault, match="record number 1")
    spool.settle()
    found = {one["key"]: (one["status"], one["cost"] is None) for one in spool.results()}
    assert found == {0: ("completed", False), 1: ("failed", True), 2: ("completed", False)}
    assert spool.status()["cost"]["unpriced_tasks"] == 1
    spool.check()


def test_a_row_that_failed_costs_what_its_response_says(openai_spool: Spool) -> None:
    failed = {"error": {"message": "the server had an error", "code": "server_error"}, "choices": None}
    openai_spool.set(retry={"max_attempts": 1})
    openai_spool.control.fault("patch", match="number 0", body=failed)
    openai_spool.control.fault("rows", match="number 1", status=400)
    openai_spool.fill(3)
    openai_spool.round()
    costs = {one["key"]: one["cost"] for one in openai_spool.results()}
    assert openai_spool.counts()["failed"] == 2
    assert Decimal(costs[0]) > 0
    assert costs[1] == "0.00"
    assert openai_spool.status()["usage"]["input_tokens"] == openai_spool.control.billing()["input_tokens"]
