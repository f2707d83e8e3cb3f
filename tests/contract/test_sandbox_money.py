"""The sandbox's money: what answers cost, by day, and how an account is refused that may spend no more."""

from datetime import UTC, datetime, timedelta
from typing import Any

import anthropic
import openai
import pytest
from anthropic import Anthropic
from openai import OpenAI

from nura_cli.sandbox import Sandbox, quotas
from tests.contract.sandbox_clients import (
    ask,
    asks,
    chat,
    chats,
    finish,
    openai_client,
    results,
    rows,
    run,
    send,
)

PRICES = {"*": {"input": 2.0, "output": 10.0}}


def listed(billed: dict[str, Any], given: float = 2.0, said: float = 10.0) -> float:
    """Return what tokens cost at list price, at so many dollars a million."""
    return float(billed["input_tokens"] * given + billed["output_tokens"] * said) / 1e6


def today(server: Sandbox) -> str:
    """Return the day of the sandbox's clock."""
    return datetime.fromtimestamp(server.control.settings()["now"], UTC).date().isoformat()


def at_hour(server: Sandbox, hour: int) -> None:
    """Move the sandbox's clock on to an hour of the next day."""
    now = datetime.fromtimestamp(server.control.settings()["now"], UTC)
    then = (now + timedelta(days=1)).replace(hour=hour, minute=0, second=0, microsecond=0)
    server.control.advance((then - now).total_seconds())


# What it costs


def test_a_batch_costs_half_of_the_list_and_a_single_request_all_of_it(
    client: OpenAI, claude: Anthropic, server: Sandbox
) -> None:
    server.control.settings(prices=PRICES)
    at_hour(server, 12)
    run(client, chats(3))
    finish(claude, asks(2))
    client.responses.create(model="gpt-4.1-mini", input="hello")
    claude.messages.create(model="claude-opus-5", max_tokens=50, messages=[{"role": "user", "content": "hello"}])
    billed = server.control.billing()
    assert billed["cost"] == pytest.approx(listed(billed) / 2)
    assert billed["synchronous"]["cost"] == pytest.approx(listed(billed["synchronous"]))
    (day,) = billed["days"].values()
    assert day["requests"] == 3 + 2 + 2
    assert day["cost"] == pytest.approx(billed["cost"] + billed["synchronous"]["cost"])


def test_each_model_of_a_batch_has_its_price_and_none_is_free(claude: Anthropic, server: Sandbox) -> None:
    server.control.settings(prices={"claude-opus-5": {"input": 5.0}, "claude-haiku-4-5": {"input": 1.0, "output": 0}})
    asked: list[Any] = [ask(1, model="claude-opus-5"), ask(2), ask(3, model="claude-other")]
    found = results(claude, finish(claude, asked).id)
    used = {one.message.model: one.message.usage.input_tokens for one in found.values()}
    expected = (used["claude-opus-5"] * 5 + used["claude-haiku-4-5"]) / 2e6
    assert server.control.billing()["cost"] == pytest.approx(expected)


def test_the_day_of_a_batch_is_the_one_it_was_created_on(client: OpenAI, server: Sandbox) -> None:
    server.control.settings(delay=7200, prices=PRICES)
    days = []
    for _ in range(2):
        at_hour(server, 23)
        days.append(today(server))
        run(client, chats(2))
        server.control.advance(7200)
    for batch in client.batches.list():
        assert batch.status == "completed"
    found = server.control.billing()["days"]
    assert {day: numbers["requests"] for day, numbers in found.items()} == dict.fromkeys(days, 2)
    assert sum(numbers["cost"] for numbers in found.values()) == pytest.approx(server.control.billing()["cost"])


def test_a_price_that_changes_changes_what_comes_after(client: OpenAI, server: Sandbox) -> None:
    run(client, chats(1))
    assert server.control.billing()["cost"] == 0
    server.control.settings(prices=PRICES)
    run(client, chats(1))
    assert server.control.billing()["cost"] == pytest.approx(listed(server.control.billing()) / 4)


# When there is none left


def test_openais_rows_fail_once_the_limit_is_reached(client: OpenAI, server: Sandbox) -> None:
    run(client, [chat("c")])
    each = listed(server.control.billing()) / 2
    limit = each * 3.5
    server.control.settings(prices=PRICES, spend_limit=limit)
    batch = run(client, [chat("c")] + [chat(n) for n in "abdefgh"])
    assert batch.status == "completed"
    assert len(rows(client, batch.output_file_id)) == 4, "the one that reaches the limit is still answered"
    failed = rows(client, batch.error_file_id)
    assert len(failed) == 4
    for row in failed.values():
        error = row["response"]["body"]["error"]
        assert (row["response"]["status_code"], row["error"]) == (429, None)
        assert (error["code"], error["type"]) == ("insufficient_quota", "insufficient_quota")
        assert error["message"].startswith("You exceeded your current quota, please check your plan")
    billed = server.control.billing()
    assert (billed["requests"], billed["accepted"]) == (1 + 4, 2)
    assert limit <= billed["cost"] < limit + each
    with pytest.raises(openai.RateLimitError) as alone:
        client.responses.create(model="gpt-4.1-mini", input="hello")
    assert alone.value.code == "insufficient_quota"
    server.control.settings(spend_limit=each * 100)
    assert run(client, chats(3)).error_file_id is None


@pytest.mark.parametrize(
    ("form", "status", "code"),
    [("create", 429, "insufficient_quota"), ("hard_limit", 400, "billing_hard_limit_reached")],
)
def test_openais_creates_can_be_refused_as_well(
    client: OpenAI, server: Sandbox, form: str, status: int, code: str
) -> None:
    server.control.settings(prices=PRICES, spend_limit=0.00001)
    server.control.fault("unpaid", openai=form)
    assert run(client, chats(5)).error_file_id
    for ask_for in (
        lambda: send(client, chats(1)),
        lambda: client.responses.create(model="gpt-4.1-mini", input="hello"),
    ):
        with pytest.raises(openai.APIStatusError) as refused:
            ask_for()
        assert (refused.value.status_code, refused.value.code) == (status, code)
    assert server.control.billing()["accepted"] == 1
    server.control.settings(spend_limit=None)
    assert run(client, chats(1)).error_file_id is None


USAGE = r"You have reached your specified API usage limits\. You will regain access on 20\d\d-\d\d-01 at 00:00 UTC\."


@pytest.mark.parametrize(
    ("form", "status", "kind", "words", "details"),
    [
        (None, 400, "invalid_request_error", USAGE, None),
        ("credit", 400, "invalid_request_error", "Your credit balance is too low", None),
        (
            "tier",
            429,
            "rate_limit_error",
            "You have reached your API usage limits: your organization",
            {"error_code": "enforced_spend_limit_reached"},
        ),
    ],
    ids=["usage", "credit", "tier"],
)
def test_claude_refuses_rows_and_creates_once_the_limit_is_reached(
    claude: Anthropic, server: Sandbox, form: str | None, status: int, kind: str, words: str, details: Any
) -> None:
    server.control.settings(prices=PRICES, spend_limit=0.00001)
    if form:
        server.control.fault("unpaid", anthropic=form)
    batch = finish(claude, asks(5))
    assert (batch.request_counts.succeeded, batch.request_counts.errored) == (1, 4)
    errors = [one.error.error for one in results(claude, batch.id).values() if one.type == "errored"]
    assert {error.type for error in errors} == {kind}
    with pytest.raises(anthropic.APIStatusError, match=words) as refused:
        claude.messages.batches.create(requests=asks(1))
    with pytest.raises(anthropic.APIStatusError, match=words):
        claude.messages.create(model="claude-opus-5", max_tokens=50, messages=[{"role": "user", "content": "hello"}])
    body: Any = refused.value.body
    assert (refused.value.status_code, refused.value.type) == (status, kind)
    assert body["error"].get("details") == details
    assert {error.message for error in errors} == {body["error"]["message"]}
    assert "retry-after" not in refused.value.response.headers
    assert server.control.billing()["requests"] == server.control.billing()["accepted"] == 1


@pytest.mark.parametrize(
    ("day", "month"), [("2026-11-25T12:00:00", "2026-12-01"), ("2026-12-31T23:59:59", "2027-01-01")], ids=["11", "12"]
)
def test_access_is_regained_on_the_first_of_the_next_month(day: str, month: str) -> None:
    now = int(datetime.fromisoformat(f"{day}+00:00").timestamp())
    assert quotas.anthropic_unpaid("usage", now).words == (
        f"You have reached your specified API usage limits. You will regain access on {month} at 00:00 UTC."
    )


@pytest.mark.parametrize(("quirk", "status"), [(None, "answered"), ("one_organization", "refused")])
def test_a_limit_is_an_organizations(client: OpenAI, server: Sandbox, quirk: str | None, status: str) -> None:
    server.control.settings(prices=PRICES, spend_limit=0.00001)
    if quirk:
        server.control.fault(quirk)
    run(client, chats(1))
    with openai_client(server, "sk-another") as other:
        found = run(other, chats(1))
        assert ("answered" if found.output_file_id else "refused") == status


def test_what_is_not_answered_for_another_reason_says_that(client: OpenAI, server: Sandbox) -> None:
    server.control.settings(spend_limit=0)
    server.control.fault("rows", custom_ids=["c1"], status=503)
    server.control.fault("expire", custom_ids=["c1", "c2"])
    failed = rows(client, run(client, chats(4)).error_file_id)
    codes = {name: (row["error"] or row["response"]["body"]["error"])["code"] for name, row in sorted(failed.items())}
    expired = "batch_expired"
    assert codes == {"c0": expired, "c1": "server_error", "c2": "insufficient_quota", "c3": expired}
