"""The sandbox's queues: what waits in them, how a full one is refused, and how long what was cancelled stays."""

import re
from typing import Any

import anthropic
import openai
import pytest
from anthropic import Anthropic
from openai import OpenAI
from openai.types import Batch

from nura_cli.sandbox import Sandbox, answers
from tests.contract.sandbox_clients import (
    CHAT,
    anthropic_client,
    ask,
    asks,
    chat,
    chats,
    openai_client,
    results,
    rows,
    run,
    send,
)

SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string", "enum": ["good", "bad", "neither"]}},
    "required": ["label"],
    "additionalProperties": False,
}


def state(batch: Batch) -> str:
    """Return a batch's status, or the code it was refused with."""
    return str(batch.errors.data[0].code) if batch.errors and batch.errors.data else batch.status


def words(batch: Batch) -> str:
    """Return why a batch was refused."""
    assert batch.errors
    assert batch.errors.data
    return str(batch.errors.data[0].message)


def size_of(client: OpenAI, server: Sandbox, lines: Any) -> int:
    """Return how many tokens such a batch has in its queue."""
    batch = run(client, lines)
    (tokens,) = (found["tokens"] for found in server.control.batches() if found["id"] == batch.id)
    return int(tokens)


# Tokens


@pytest.mark.parametrize(
    ("text", "each"),
    [
        ("The quick brown fox jumps over the lazy dog, and sleeps. " * 20, 4.6),
        ("敏捷的棕色狐狸跳过了懒狗。然后睡着了。" * 20, 4.7),
        ("17.25, 4801, -3.5\n" * 50, 1.6),
    ],
    ids=["english", "chinese", "numbers"],
)
def test_a_token_has_as_many_bytes_as_its_language_gives_it(text: str, each: float) -> None:
    assert answers.tokens(text) == pytest.approx(len(text.encode()) / each, rel=0.02)
    assert answers.tokens(f"{text}And so on.") > answers.tokens(text)


@pytest.mark.parametrize("text", ["plain words", "номер 7", "7 \ud800 番号", "수 7\n8", "एक 2"])
def test_a_longer_text_never_has_fewer_tokens(text: str) -> None:
    counted = [answers.tokens(text[:end]) for end in range(len(text) + 1)]
    assert counted == sorted(counted)
    assert counted[0] == 1


def test_a_cut_answer_has_as_many_tokens_as_it_may(client: OpenAI) -> None:
    said = run(client, [chat(1, max_completion_tokens=7), chat(2, max_completion_tokens=1)])
    for row in rows(client, said.output_file_id).values():
        body = row["response"]["body"]
        choice = body["choices"][0]
        assert choice["finish_reason"] == "length"
        assert answers.tokens(choice["message"]["content"]) == body["usage"]["completion_tokens"]


@pytest.mark.parametrize(
    ("url", "body"),
    [
        (CHAT, {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}}),
        (CHAT, {"tools": [{"type": "function", "function": {"name": "a", "parameters": SCHEMA}}]}),
        (
            "/v1/responses",
            {"input": "hello", "text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}}},
        ),
        ("/v1/responses", {"input": "hello", "instructions": "Be brief. " * 9}),
        ("/v1/embeddings", {"input": ["a text"] * 20}),
        ("/v1/completions", {"prompt": "Once upon a time, " * 9}),
    ],
    ids=["schema", "tools", "responses-schema", "instructions", "embeddings", "completions"],
)
def test_what_is_billed_as_input_is_what_waits(client: OpenAI, server: Sandbox, url: Any, body: dict[str, Any]) -> None:
    line = {"custom_id": "c", "method": "POST", "url": url, "body": {"model": "m", **body}}
    if url == CHAT:
        line = chat("c", **body)
    batch = run(client, [line], url)
    assert batch.request_counts
    assert batch.request_counts.completed == 1
    (found,) = server.control.batches()
    assert found["tokens"] == server.control.billing()["input_tokens"] > 20


def test_a_schema_is_read_by_claude_too(claude: Anthropic) -> None:
    asked: dict[str, Any] = dict(ask(1)["params"])
    asked.pop("max_tokens")
    form: Any = {"format": {"type": "json_schema", "schema": SCHEMA}}
    plain, formed = (
        claude.messages.count_tokens(**asked, **more).input_tokens for more in ({}, {"output_config": form})
    )
    assert formed - plain == pytest.approx(answers.tokens(answers.written(SCHEMA)), abs=2)


# OpenAI's queues


def test_a_batch_past_the_cap_fails_in_the_vendors_words_and_holds_nothing(client: OpenAI, server: Sandbox) -> None:
    one = size_of(client, server, chats(10))
    server.control.settings(delay=100)
    server.control.queue("gpt-4.1-mini", tokens=one * 2)
    first, second, third, small = (send(client, chats(n)) for n in (10, 5, 10, 5))
    states = [state(client.batches.retrieve(one.id)) for one in (small, third, second, first)]
    assert states == ["in_progress", "token_limit_exceeded", "in_progress", "in_progress"], "in the order of creation"
    found = client.batches.retrieve(third.id)
    organization = client.batches.with_raw_response.list().headers["openai-organization"]
    assert found.failed_at
    assert words(found) == (
        f"Enqueued token limit reached for gpt-4.1-mini in organization {organization}. Limit: {one * 2:,} enqueued tokens."
        " Please try again once some in_progress batches have been completed."
    )
    server.control.advance(100)
    assert client.batches.retrieve(first.id).status == "completed"
    assert state(run(client, chats(10))) == "in_progress"
    assert server.control.billing()["requests"] == 10 + 10, "one before, and the first"


def test_figures_have_commas_and_a_cap_holds_for_one_model_and_any_other_for_the_rest(
    client: OpenAI, server: Sandbox
) -> None:
    server.control.settings(delay=100)
    server.control.queue(tokens=0, requests=1)
    found = server.control.queue("gpt-4.1", tokens=2_000_000, others_tokens=1_999_999)
    assert found == {"*": {"tokens": 0, "requests": 1}, "gpt-4.1": {"tokens": 2_000_000, "others_tokens": 1_999_999}}
    assert "Limit: 2,000,000 enqueued tokens." in words(run(client, [chat(1, model="gpt-4.1")]))
    assert "limit reached for other in organization org-" in words(run(client, [chat(1, model="other")]))
    server.control.queue("gpt-4.1", others_tokens=0)
    assert state(run(client, [chat(1, model="gpt-4.1")])) == "in_progress"
    assert "request limit" in words(run(client, [chat(1, model="gpt-4.1")])), (
        "what it does not say is that of every model"
    )
    server.control.queue("gpt-4.1", requests=None)
    assert state(run(client, [chat(1, model="gpt-4.1")])) == "in_progress"


def test_requests_have_a_cap_with_words_and_a_code_of_its_own(client: OpenAI, server: Sandbox) -> None:
    server.control.settings(delay=100)
    server.control.queue(requests=1_000_000, others_requests=999_995)
    states = [run(client, chats(3)), run(client, chats(3)), run(client, chats(2))]
    assert [state(one) for one in states] == ["in_progress", "token_limit_exceeded", "in_progress"]
    assert re.fullmatch(
        r"Enqueued request limit reached for gpt-4.1-mini in organization org-\w+. Limit: 1,000,000 enqueued requests."
        " Please try again once some in_progress batches have been completed.",
        words(states[1]),
    )
    server.control.fault("full_queue", code="request_limit_exceeded")
    assert state(run(client, chats(1))) == "request_limit_exceeded"


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("azure", r"The number of enqueued tokens has surpassed the configured limit of 30K for the deployment 'm4'\."),
        ("plain", r"Enqueued token limit reached\. Please try again once [\D]*"),
    ],
)
def test_a_full_queue_is_told_in_other_words(client: OpenAI, server: Sandbox, form: str, said: str) -> None:
    server.control.queue(tokens=30_000, others_tokens=30_000)
    server.control.fault("full_queue", words=form)
    assert re.fullmatch(said, words(run(client, [chat(1, model="m4")])))
    server.control.queue(tokens=1_500, others_tokens=30_000)
    assert ("limit of 1.5K for" in words(run(client, [chat(1, model="m4")]))) == (form == "azure")


def test_the_queue_is_looked_at_as_it_was_when_the_batch_was_created(client: OpenAI, server: Sandbox) -> None:
    server.control.settings(delay=1000)
    server.control.queue(requests=10)
    first = send(client, chats(10))
    server.control.advance(900)
    second = send(client, chats(10))
    server.control.advance(100)
    third = send(client, chats(10))
    assert [state(client.batches.retrieve(one.id)) for one in (third, second, first)] == [
        "in_progress",
        "token_limit_exceeded",
        "completed",
    ]


def test_what_is_asked_after_alone_is_checked_alone(client: OpenAI, server: Sandbox) -> None:
    server.control.settings(delay=100)
    server.control.queue(requests=1)
    server.control.fault("only_retrieve")
    first, second = send(client, chats(1)), send(client, chats(1))
    assert state(client.batches.retrieve(second.id)) == "in_progress"
    assert [batch["status"] for batch in server.control.batches()] == ["validating", "in_progress"]
    assert state(client.batches.retrieve(first.id)) == "in_progress", "it came before the other one"


@pytest.mark.parametrize(("quirk", "shared"), [(None, False), ("one_organization", True), ("one_account", True)])
def test_a_queue_is_an_organizations(client: OpenAI, server: Sandbox, quirk: str | None, shared: bool) -> None:
    server.control.settings(delay=100)
    server.control.queue(requests=3)
    if quirk:
        server.control.fault(quirk)
    with openai_client(server, "sk-another") as other, anthropic_client(server) as claude:
        claude.messages.batches.create(requests=asks(3))
        send(other, chats(2))
        found = run(client, chats(2))
        assert state(found) == ("token_limit_exceeded" if shared else "in_progress")
        assert not shared or "in organization org-one." in words(found)


@pytest.mark.parametrize(
    ("maximum", "reserved"),
    [
        ({"max_completion_tokens": 500}, 500),
        ({"max_tokens": 500, "n": 2}, 1000),
        ({}, 0),
        ({"max_tokens": 10**30}, 10**6),
    ],
    ids=["maximum", "choices", "none", "absurd"],
)
def test_output_counts_by_its_maximum_where_that_is_wanted(
    client: OpenAI, server: Sandbox, maximum: dict[str, Any], reserved: int
) -> None:
    line = chat(1, **maximum)
    before = size_of(client, server, [line])
    server.control.fault("output_counts")
    assert size_of(client, server, [line]) == before + reserved


def test_a_request_that_makes_no_sense_counts_for_nothing(client: OpenAI, server: Sandbox) -> None:
    server.control.fault("output_counts")
    assert size_of(client, server, [chat(1, messages=7), chat(2, max_tokens="many")]) == 0


@pytest.mark.parametrize("asked", [True, False])
def test_tokens_are_released_late(client: OpenAI, server: Sandbox, asked: bool) -> None:
    server.control.settings(delay=1000, release_delay=600)
    server.control.queue(requests=1)
    states = []
    for step in (0, 1000, 300, 300):
        server.control.advance(step)
        if asked:
            client.batches.list()
        states.append(state(run(client, chats(1))))
    assert states == ["in_progress", "token_limit_exceeded", "token_limit_exceeded", "in_progress"]


def test_a_batch_that_never_ends_never_leaves(client: OpenAI, server: Sandbox) -> None:
    server.control.settings(delay=100)
    server.control.queue(requests=1)
    server.control.fault("never_ends")
    run(client, chats(1))
    server.control.advance(100_000)
    assert state(run(client, chats(1))) == "token_limit_exceeded"


@pytest.mark.parametrize(
    "wrong",
    [{"token": 1}, {"tokens": -1}, {"tokens": "many"}, {"requests": True}],
    ids=["name", "negative", "text", "truth"],
)
def test_numbers_that_make_no_sense_are_refused(server: Sandbox, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"queues: m: {next(iter(wrong))} is no"):
        server.control.queue("m", **wrong)
    none: list[Any] = [[], {"m": 5}]
    for given in none:
        with pytest.raises(ValueError, match="by model"):
            server.control.settings(prices=given)
    with pytest.raises(ValueError, match="cached"):
        server.control.settings(prices={"m": {"cached": 1}})
    assert server.control.settings()["queues"] == server.control.settings()["prices"] == {}


# Anthropic's queue


@pytest.mark.parametrize(("form", "limit"), [(None, " of 200,000"), ("plain", "")])
def test_claudes_create_is_refused_past_the_requests_of_all_models(
    claude: Anthropic, server: Sandbox, form: str | None, limit: str
) -> None:
    server.control.settings(delay=100)
    server.control.queue(requests=200_000, others_requests=199_995, tokens=0, others_tokens=5)
    if form:
        server.control.fault("full_queue", words=form)
    first = claude.messages.batches.create(requests=asks(3))
    others: list[Any] = [ask(n, model="claude-opus-5") for n in range(3)]
    with pytest.raises(anthropic.RateLimitError) as full:
        claude.messages.batches.create(requests=others)
    assert full.value.type == "rate_limit_error"
    assert "retry-after" not in full.value.response.headers
    body: Any = full.value.body
    assert body["error"]["message"] == (
        f"Number of batch requests in the processing queue would exceed your organization's limit{limit}."
        " Please wait until some of your batches have ended, and try again."
    )
    assert [batch["id"] for batch in server.control.batches()] == [first.id]
    assert server.control.billing()["accepted"] == 1
    server.control.queue(others_requests=199_994)
    claude.messages.batches.create(requests=asks(3))


def test_claudes_requests_leave_their_queue_when_their_batch_ends(claude: Anthropic, server: Sandbox) -> None:
    server.control.settings(delay=1000, release_delay=500)
    server.control.queue(requests=3)
    made: list[str] = []
    for step in (0, 1000, 250, 250):
        server.control.advance(step)
        try:
            made.append(claude.messages.batches.create(requests=asks(3)).processing_status)
        except anthropic.RateLimitError:
            made.append("full")
    assert made == ["in_progress", "full", "full", "in_progress"], "though nobody asked after the first"


def test_a_batch_without_delay_waits_until_it_is_asked_after(claude: Anthropic, server: Sandbox) -> None:
    server.control.queue(requests=3)
    first = claude.messages.batches.create(requests=asks(3))
    with pytest.raises(anthropic.RateLimitError):
        claude.messages.batches.create(requests=asks(1))
    claude.messages.batches.retrieve(first.id)
    claude.messages.batches.create(requests=asks(3))


# Cancelling


@pytest.mark.parametrize("delay", [1000, 0])
def test_a_cancelled_batch_of_openais_takes_its_time(client: OpenAI, server: Sandbox, delay: int) -> None:
    server.control.settings(delay=delay, cancel_delay=500)
    server.control.queue(requests=200)
    batch = send(client, chats(200))
    server.control.advance(200)
    assert client.batches.cancel(batch.id).status == "cancelling"
    server.control.advance(400)
    found = client.batches.retrieve(batch.id)
    assert found.status == "cancelling"
    assert found.request_counts
    least = 200 * 600 // 1000 if delay else 0
    assert least <= found.request_counts.completed <= least + (18 if delay else 0), "the work goes on"
    assert state(run(client, chats(1))) == "token_limit_exceeded", "and it still waits"
    server.control.advance(100)
    found = client.batches.retrieve(batch.id)
    assert found.status == "cancelled"
    assert found.cancelling_at
    assert found.cancelled_at == found.cancelling_at + 500
    answered = len(rows(client, found.output_file_id)) if delay else 0
    assert answered == server.control.billing()["requests"]
    assert 110 < answered < 170 if delay else answered == 0
    assert {row["error"]["code"] for row in rows(client, found.error_file_id).values()} == {"batch_cancelled"}
    assert state(run(client, chats(200))) in ("in_progress", "completed")


def test_so_does_one_of_claudes(claude: Anthropic, server: Sandbox) -> None:
    server.control.settings(delay=1000, cancel_delay=500)
    server.control.queue(requests=200)
    batch = claude.messages.batches.create(requests=asks(200))
    server.control.advance(200)
    assert claude.messages.batches.cancel(batch.id).processing_status == "canceling"
    server.control.advance(400)
    assert claude.messages.batches.retrieve(batch.id).request_counts.processing == 200
    with pytest.raises(anthropic.RateLimitError):
        claude.messages.batches.create(requests=asks(1))
    server.control.advance(100)
    found = claude.messages.batches.retrieve(batch.id)
    assert found.processing_status == "ended"
    assert found.ended_at
    assert found.cancel_initiated_at
    assert (found.ended_at - found.cancel_initiated_at).total_seconds() == 500
    kinds = [result.type for result in results(claude, batch.id).values()]
    assert (kinds.count("succeeded"), kinds.count("canceled")) == (
        found.request_counts.succeeded,
        found.request_counts.canceled,
    )
    assert 110 < kinds.count("succeeded") == server.control.billing()["requests"] < 170
    claude.messages.batches.create(requests=asks(200))


def test_a_cancellation_takes_no_longer_than_the_work(client: OpenAI, server: Sandbox) -> None:
    server.control.settings(delay=100, cancel_delay=500)
    batch = send(client, chats(20))
    server.control.advance(10)
    client.batches.cancel(batch.id)
    server.control.advance(90)
    found = client.batches.retrieve(batch.id)
    assert (found.status, server.control.billing()["requests"]) == ("cancelled", 20)


# Too many calls


@pytest.mark.parametrize("route", ["upload", "create", "list"])
def test_a_route_can_have_too_many_calls(client: OpenAI, server: Sandbox, route: str) -> None:
    server.control.fault("status", route, status=429, retry_after=30)
    with pytest.raises(openai.RateLimitError) as limited:
        for _ in send(client, chats(1)), client.batches.list():
            pass
    assert limited.value.response.headers["retry-after"] == "30"
    assert [entry["route"] for entry in server.control.log() if entry["status"] == 429] == [route]
    assert len(server.control.batches()) == (route == "list")


@pytest.mark.parametrize("route", ["create", "list"])
def test_so_can_one_of_claudes(claude: Anthropic, server: Sandbox, route: str) -> None:
    server.control.fault("status", route, status=429, retry_after=30)
    with pytest.raises(anthropic.RateLimitError) as limited:
        for _ in claude.messages.batches.create(requests=asks(1)), claude.messages.batches.list():
            pass
    assert (limited.value.type, limited.value.response.headers["retry-after"]) == ("rate_limit_error", "30")
    assert len(server.control.batches()) == (route == "list")
