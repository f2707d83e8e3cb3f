"""One suite for the dialects, and each vendor's own shapes."""

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nura_cli import clock
from nura_cli.delivery import events
from nura_cli.dialects import anthropic, openai, reading, vendors
from nura_cli.dialects.base import Answer, Dialect, Phase, Rejection, Spec
from nura_cli.errors import InputError
from nura_cli.pipeline import backoff, refusals, search, spool
from nura_cli.pipeline.classify import Classifier, scrubbed
from nura_cli.pricing import Prices, Usage
from nura_cli.providers import wire
from nura_cli.states import ErrorKind, Reason, TaskStatus

PRICES = Prices("openai")
OPENAI, ANTHROPIC = vendors.dialect("openai"), vendors.dialect("anthropic")
BOTH = pytest.mark.parametrize("dialect", [OPENAI, ANTHROPIC], ids=lambda dialect: dialect.name)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@BOTH
@given(
    prompt=st.text(alphabet=st.characters(codec="utf-8")),
    system=st.none() | st.text(alphabet=st.characters(codec="utf-8")),
)
def test_a_request_carries_its_prompt_exactly(dialect: Dialect, prompt: str, system: str | None) -> None:
    for endpoint in dialect.endpoints:
        spec = Spec(dialect=dialect.name, endpoint=endpoint, model="m", system=system, params={"max_tokens": 5})
        raw = dialect.request(b"tag-1", endpoint, dialect.body(spec)(prompt))
        assert b"\n" not in raw
        request = json.loads(raw)
        body = request.get("body") or request["params"]
        assert request["custom_id"] == "tag-1"
        assert body["max_tokens"] == 5
        sent = body["messages"][-1]["content"] if "messages" in body else body["input"]
        assert sent == prompt
        if system is not None and not endpoint.endswith("/embeddings"):
            assert json.dumps(system) in json.dumps(body)


@BOTH
def test_a_schema_goes_out_in_the_vendors_form(dialect: Dialect) -> None:
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    for endpoint in dialect.endpoints:
        if endpoint.endswith("/embeddings"):
            continue
        spec = Spec(dialect=dialect.name, endpoint=endpoint, model="m", answer_schema=schema)
        body = json.loads(dialect.body(spec)("x"))
        steps = {
            "/v1/chat/completions": ("response_format", "json_schema", "schema"),
            "/v1/responses": ("text", "format", "schema"),
            "/v1/messages": ("output_config", "format", "schema"),
        }
        for step in steps[endpoint]:
            body = body[step]
        assert body == schema


@pytest.mark.parametrize(
    ("dialect", "code", "reason"),
    [
        (OPENAI, "token_limit_exceeded", Reason.TOO_MUCH),
        (OPENAI, "too_many_tasks", Reason.TOO_LARGE),
        (OPENAI, "request_too_large", Reason.TOO_LARGE),
        (OPENAI, "model_not_found", Reason.SETTINGS),
        (OPENAI, "server_error", Reason.OUTAGE),
        (OPENAI, "invalid_json_line", Reason.CONTENT),
        (ANTHROPIC, "request_too_large", Reason.TOO_LARGE),
        (ANTHROPIC, "billing_error", Reason.SETTINGS),
        (ANTHROPIC, "overloaded_error", Reason.OUTAGE),
        (ANTHROPIC, "invalid_request_error", Reason.CONTENT),
    ],
)
def test_why_a_batch_was_refused_comes_down_to_one_of_a_few_reasons(
    dialect: Dialect, code: str, reason: Reason
) -> None:
    assert dialect.reason(Rejection(code, "m", None)) is reason


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("openai", "overloaded_error", Reason.OUTAGE),
        ("openai", "permission_error", Reason.SETTINGS),
        ("anthropic", "token_limit_exceeded", Reason.TOO_MUCH),
        ("anthropic", "too_many_tasks", Reason.TOO_LARGE),
        ("anthropic", "insufficient_quota", Reason.SETTINGS),
        ("anthropic", "service_unavailable", Reason.OUTAGE),
        ("anthropic", "something_new", Reason.CONTENT),
    ],
)
def test_a_gateway_may_pass_on_another_vendors_words(name: str, code: str, reason: Reason) -> None:
    assert vendors.reason(name, Rejection(code, "m", None)) is reason


nonsense = st.none() | st.text(alphabet="qxzw_-.: \n79'\u00e9")
"""Words of nobody's language. Any text would not do: hypothesis draws from the words that it finds in the source, too."""


@BOTH
@given(code=nonsense, message=nonsense, line=st.none() | st.integers())
def test_a_word_that_is_not_known_is_taken_to_be_about_the_content(
    dialect: Dialect, code: str | None, message: str | None, line: int | None
) -> None:
    assert dialect.reason(Rejection(code, message, line)) is Reason.CONTENT


@BOTH
@given(line=st.binary() | documents.map(lambda document: json.dumps(document).encode()))
def test_result_raises_nothing_but_value_error(dialect: Dialect, line: bytes) -> None:
    try:
        found = dialect.result(line)
    except ValueError:
        return
    assert isinstance(found.custom_id, str)


@given(response=documents, error=documents)
def test_openai_result_understands_or_refuses_anything_under_a_custom_id(response: Any, error: Any) -> None:
    try:
        found = OPENAI.result(json.dumps({"custom_id": "a", "response": response, "error": error}).encode())
    except ValueError:
        return
    assert found.error is not None or found.body is not None


@BOTH
@given(body=documents)
def test_answer_never_raises(dialect: Dialect, body: Any) -> None:
    for endpoint in (*dialect.endpoints, "/v1/completions", "/v1/moderations", "/elsewhere"):
        dialect.answer(endpoint, json.dumps(body).encode())


def openai_line(response: Any, error: Any = None) -> bytes:
    return json.dumps({"id": "x", "custom_id": "t-1", "response": response, "error": error}).encode()


@pytest.mark.parametrize(
    ("line", "kind", "status", "code"),
    [
        (
            openai_line({"status_code": 400, "body": {"error": {"code": "bad", "message": "m"}}}),
            ErrorKind.REFUSED,
            400,
            "bad",
        ),
        (
            openai_line({"status_code": 429, "body": {"error": {"type": "x", "message": "m"}}}),
            ErrorKind.RATE_LIMITED,
            429,
            "x",
        ),
        (openai_line({"status_code": 500, "body": {}}), ErrorKind.PROVIDER_ERROR, 500, None),
        (openai_line({"status_code": 408, "body": {}}), ErrorKind.PROVIDER_ERROR, 408, None),
        (openai_line(None, {"code": "batch_expired", "message": "m"}), ErrorKind.EXPIRED, None, "batch_expired"),
        (openai_line(None, {"code": "batch_cancelled", "message": "m"}), ErrorKind.CANCELLED, None, "batch_cancelled"),
        (openai_line({"status_code": 0, "body": None}), ErrorKind.PROVIDER_ERROR, None, None),
        (openai_line(None), ErrorKind.PROVIDER_ERROR, None, None),
        (
            openai_line({"status_code": 200, "body": {"error": {"code": "c", "message": "m"}}}),
            ErrorKind.PROVIDER_ERROR,
            200,
            "c",
        ),
        (openai_line({"status_code": 200, "body": [1]}), ErrorKind.INVALID_OUTPUT, 200, None),
        (openai_line({"status_code": "429", "body": {}}), ErrorKind.RATE_LIMITED, 429, None),
    ],
)
def test_openai_shapes_of_errors(line: bytes, kind: ErrorKind, status: int | None, code: str | None) -> None:
    found = OPENAI.result(line)
    assert (found.custom_id, found.error, found.http_status, found.code) == ("t-1", kind, status, code)


def test_openai_answers_wrapped_in_a_string_are_unwrapped() -> None:
    body = {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}
    found = OPENAI.result(openai_line({"status_code": 200, "body": json.dumps(body)}))
    assert found.error is None
    assert found.body is not None
    assert OPENAI.answer("/v1/chat/completions", found.body).text == "hi"


def anthropic_line(result: Any) -> bytes:
    return json.dumps({"custom_id": "t-1", "result": result}).encode()


def errored(kind: str) -> dict[str, Any]:
    return {"type": "errored", "error": {"type": "error", "error": {"type": kind, "message": "m"}}}


@pytest.mark.parametrize(
    ("result", "kind", "status"),
    [
        (errored("invalid_request_error"), ErrorKind.REFUSED, 400),
        (errored("rate_limit_error"), ErrorKind.RATE_LIMITED, 429),
        (errored("overloaded_error"), ErrorKind.PROVIDER_ERROR, 529),
        (errored("api_error"), ErrorKind.PROVIDER_ERROR, 500),
        (errored("something_new"), ErrorKind.PROVIDER_ERROR, None),
        ({"type": "expired"}, ErrorKind.EXPIRED, None),
        ({"type": "canceled"}, ErrorKind.CANCELLED, None),
        ({"type": "pondering"}, ErrorKind.PROVIDER_ERROR, None),
    ],
)
def test_anthropic_shapes_of_errors(result: Any, kind: ErrorKind, status: int | None) -> None:
    found = ANTHROPIC.result(anthropic_line(result))
    assert (found.error, found.http_status) == (kind, status)


def test_usage_counts_cached_tokens_once() -> None:
    chat = {
        "choices": [],
        "usage": {"prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 60}},
    }
    assert OPENAI.answer("/v1/chat/completions", json.dumps(chat).encode()).usage == Usage(100, 60, 0, 7)
    usage = {"input_tokens": 40, "output_tokens": 7, "cache_read_input_tokens": 50, "cache_creation_input_tokens": 10}
    message = {"content": [], "usage": usage}
    assert ANTHROPIC.answer("/v1/messages", json.dumps(message).encode()).usage == Usage(100, 50, 10, 7)


def used(dialect: Dialect, endpoint: str, **body: Any) -> Usage | None:
    """Return what an answer used, as its body tells."""
    return dialect.answer(endpoint, json.dumps({"model": "m", **body}).encode()).usage


def messages(usage: dict[str, Any], *content: dict[str, Any]) -> Usage | None:
    """Return what a message used, beside 10 tokens in and 5 out."""
    return used(ANTHROPIC, "/v1/messages", content=content, usage={"input_tokens": 10, "output_tokens": 5, **usage})


def responses(usage: dict[str, Any], *output: dict[str, Any], **body: Any) -> Usage | None:
    """Return what a response used, beside 10 tokens in and 5 out."""
    return used(OPENAI, "/v1/responses", output=output, usage={"input_tokens": 10, "output_tokens": 5, **usage}, **body)


def chat(usage: dict[str, Any], message: dict[str, Any] | None = None, **body: Any) -> Usage | None:
    """Return what a chat completion used, beside 10 tokens in and 5 out."""
    usage = {"prompt_tokens": 10, "completion_tokens": 5, **usage}
    return used(OPENAI, "/v1/chat/completions", choices=[{"message": message or {}}], usage=usage, **body)


PLAIN = Usage(10, 0, 0, 5)
BEYOND = PLAIN._replace(beyond=True)
HOUR = {"ephemeral_1h_input_tokens": 40, "ephemeral_5m_input_tokens": 20}


def test_what_is_written_to_a_cache_is_told_by_how_long_it_is_kept() -> None:
    written = {"cache_creation_input_tokens": 60}
    assert messages({**written, "cache_creation": HOUR}) == Usage(70, 0, 60, 5, 40)
    assert messages({"cache_creation": HOUR}) == Usage(70, 0, 60, 5, 40)
    assert messages({**written, "cache_creation": None}) == Usage(70, 0, 60, 5)
    assert messages({**written, "cache_creation": {**HOUR, "ephemeral_12h_input_tokens": 1}}) == Usage(
        70, 0, 60, 5, 40, beyond=True
    )
    assert chat({"prompt_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 4}}) == Usage(10, 1, 4, 5)
    details = {"cached_tokens": 0, "cache_write_tokens": 4}
    short, long = {"ttl_30m_tokens": 4, "ttl_12h_tokens": 0}, {"ttl_30m_tokens": 0, "ttl_12h_tokens": 4}
    for kept, found in ((short, Usage(10, 0, 4, 5)), (long, Usage(10, 0, 4, 5, beyond=True))):
        assert responses({"input_tokens_details": {**details, "cache_write_tokens_details": kept}}) == found


SEARCH = {"type": "web_search_call", "action": {"type": "search", "query": "q"}}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (messages({"server_tool_use": {"web_search_requests": 3, "web_fetch_requests": 2}}), PLAIN._replace(web_searches=3)),
        (messages({"server_tool_use": {"web_search_requests": 0, "code_execution_requests": 1}}), BEYOND),
        (messages({"server_tool_use": None}), PLAIN),
        (responses({}, SEARCH, SEARCH, {"type": "web_search_call", "action": {"type": "open_page"}}), PLAIN._replace(web_searches=2)),
        (responses({}, {"type": "web_search_call", "action": "odd"}), PLAIN._replace(web_searches=1)),
        (responses({}, {"type": "file_search_call"}, {"type": "message"}), PLAIN._replace(file_searches=1)),
        (responses({}, {"type": "message"}, {"type": "reasoning"}, {"type": "function_call"}, {}, {"type": 5}), PLAIN),
        (responses({}, {"type": "code_interpreter_call"}), BEYOND),
        (responses({}, {"type": "image_generation_call"}), BEYOND),
        (responses({}, {"type": "some_new_call"}), BEYOND),
        (responses({}, {"type": "shell_call", "environment": {"type": "local"}}), PLAIN),
        (responses({}, {"type": "shell_call", "environment": {"type": "container_reference"}}), BEYOND),
        (responses({}, SEARCH, tools=[{"type": "web_search"}]), PLAIN._replace(web_searches=1)),
        (responses({}, SEARCH, tools=[{"type": "web_search_preview"}]), BEYOND._replace(web_searches=1)),
        (chat({}, model="gpt-4o-search-preview-2025-03-11"), BEYOND),
        (chat({}, {"annotations": [{"type": "url_citation"}]}), BEYOND),
        (chat({}, {"annotations": []}), PLAIN),
        (chat({"num_search_queries": 2}), PLAIN._replace(web_searches=2)),
        (chat({"citation_tokens": 900}), BEYOND),
    ],
)  # fmt: skip
def test_calls_of_the_vendors_tools_are_counted_or_make_the_cost_unknown(found: Usage, expected: Usage) -> None:
    assert found == expected


def ran(name: str, **more: Any) -> dict[str, Any]:
    """Return a block that calls one of Anthropic's tools."""
    return {"type": "server_tool_use", "id": "s", "name": name, "input": {}, **more}


def test_code_that_anthropic_runs_is_free_where_it_searches_and_unknown_else() -> None:
    counted = {"server_tool_use": {"web_search_requests": 1}}
    by_code = ran("web_search", caller={"type": "code_execution_20260120", "tool_id": "s"})
    assert messages({}, ran("bash_code_execution")) == BEYOND
    assert messages(counted, ran("code_execution"), ran("web_search")) == BEYOND._replace(web_searches=1)
    assert messages(counted, ran("code_execution"), by_code) == PLAIN._replace(web_searches=1)
    assert messages(counted, ran("advisor"), by_code) == BEYOND._replace(web_searches=1)
    assert messages({}, ran("web_search")) == BEYOND
    assert messages({}, ran("web_fetch"), ran("tool_search_tool_bm25")) == PLAIN


@pytest.mark.parametrize(
    ("found", "known"),
    [
        (messages({"inference_geo": "us"}), False),
        (messages({"inference_geo": "not_available"}), True),
        (messages({"service_tier": "batch", "speed": None}), True),
        (messages({"service_tier": "priority"}), False),
        (messages({"speed": "fast"}), False),
        (messages({"iterations": [{"type": "message", "input_tokens": 10}]}), True),
        (messages({"iterations": [{"type": "message", "model": "other"}]}), False),
        (messages({"iterations": [{"type": "compaction"}]}), False),
        (messages({"iterations": [{"type": "advisor_message", "model": "m"}]}), False),
        (messages({"iterations": "odd"}), False),
        (chat({}, service_tier="default"), True),
        (chat({}, service_tier="flex"), True),
        (chat({}, service_tier="priority"), False),
        (chat({}, service_tier=["odd"]), True),
        (responses({}, service_tier="ultrafast"), False),
        (chat({"prompt_tokens_details": {"audio_tokens": 3}}), False),
        (chat({"completion_tokens_details": {"audio_tokens": 3}}), False),
        (chat({"completion_tokens_details": {"audio_tokens": 0, "accepted_prediction_tokens": 2}}), True),
        (messages({"output_tokens": None}), False),
        (chat({"completion_tokens": None}), False),
        (chat({"prompt_tokens_details": {"cached_tokens": "many"}}), False),
        (chat({"prompt_tokens_details": [1]}), False),
        (messages({"cache_read_input_tokens": -1}), False),
        (messages({"cache_creation": {"ephemeral_1h_input_tokens": 1.5}}), False),
    ],
)
def test_what_has_a_price_of_its_own_or_cannot_be_read_is_of_unknown_cost(found: Usage | None, known: bool) -> None:
    assert found is not None
    assert found.beyond is not known


@pytest.mark.parametrize("odd", [14417.92, [1], {}, True, -1, 2**40, 1e300])
def test_a_figure_that_makes_no_sense_costs_no_answer_its_text(odd: Any) -> None:
    said = {"content": [{"type": "text", "text": "hello"}], "choices": [{"message": {"content": "hello"}}]}
    usage = {"input_tokens": odd, "prompt_tokens": odd, "output_tokens": 1, "completion_tokens": 1}
    for dialect in (OPENAI, ANTHROPIC):
        found = dialect.answer(dialect.endpoints[0], json.dumps({**said, "usage": usage}).encode())
        assert (found.text, found.usage) == ("hello", None)
        found = dialect.answer(dialect.endpoints[0], json.dumps({**said, "usage": odd}).encode())
        assert (found.text, found.usage) == ("hello", None)
    assert chat({"prompt_tokens": 14417.0}) == Usage(14417, 0, 0, 5)


def test_thoughts_that_a_service_leaves_out_of_the_completion_are_counted() -> None:
    details = {"completion_tokens_details": {"reasoning_tokens": 100}}
    assert chat({**details, "total_tokens": 115}) == Usage(10, 0, 0, 105)
    assert chat({**details, "completion_tokens": 105, "total_tokens": 115}) == Usage(10, 0, 0, 105)


def test_what_only_a_total_tells_was_put_out_where_nothing_else_explains_it() -> None:
    assert chat({"total_tokens": 15}) == PLAIN
    assert chat({"total_tokens": 12}) == PLAIN
    assert chat({"total_tokens": 420}) == Usage(10, 0, 0, 410)
    assert responses({"total_tokens": 420}) == Usage(10, 0, 0, 410)
    thought = {"completion_tokens_details": {"reasoning_tokens": 100}}
    assert chat({"total_tokens": 420, **thought}) == Usage(10, 0, 0, 410)
    assert chat(thought) == BEYOND
    cached = {"prompt_tokens_details": {"cached_tokens": 8}}
    assert chat({"total_tokens": 23, **cached}) == Usage(10, 8, 0, 5, beyond=True)
    assert chat({"total_tokens": "odd"}) == BEYOND
    vectors = {"data": [], "usage": {"prompt_tokens": 10, "total_tokens": 12}}
    assert used(OPENAI, "/v1/embeddings", **vectors) == Usage(10, beyond=True)


def test_what_was_cached_is_told_in_several_places() -> None:
    for told in (
        {"cached_tokens": 8},
        {"prompt_cache_hit_tokens": 8, "prompt_cache_miss_tokens": 2},
        {"cached_tokens": 8, "prompt_tokens_details": {"cached_tokens": 8}},
        {"prompt_cache_hit_tokens": 8, "prompt_tokens_details": {"cached_tokens": 0}},
    ):
        assert chat(told) == Usage(10, 8, 0, 5)


@pytest.mark.parametrize(("given", "said", "known"), [(10, 5, True), (0, 0, False), (0, 5, True), (10, 0, True)])
def test_an_answer_that_was_made_of_nothing_is_of_unknown_cost(given: int, said: int, known: bool) -> None:
    for endpoint, body in ((C, CHAT), (R, RESPONSE), (M, CLAUDE)):
        dialect = ANTHROPIC if endpoint == M else OPENAI
        names = ("prompt_tokens", "completion_tokens") if endpoint == C else ("input_tokens", "output_tokens")
        usage = dict(zip(names, (given, said), strict=True))
        spec = Spec(dialect=dialect.name, endpoint=endpoint, model=body["model"], prompt="p")
        classifier = Classifier(dialect, spec, Prices(dialect.name))
        charge = classifier.classify(dialect.result(line_of(dialect, {**body, "usage": usage}))).charge
        assert (charge.cost is not None) == known
        assert (charge.input_tokens, charge.output_tokens) == (given, said)
        nothing = {**body, "usage": usage, "choices": [], "output": [], "content": []}
        charge = classifier.classify(dialect.result(line_of(dialect, nothing))).charge
        assert (given, said, charge.cost) == (0, 0, 0) or charge.cost is None or charge.cost > 0


def test_images_are_told_from_text() -> None:
    usage = {"input_tokens_details": {"text_tokens": 2, "image_tokens": 8}}
    assert used(OPENAI, "/v1/images/edits", data=[], usage={"input_tokens": 10, "output_tokens": 5, **usage}) == Usage(
        10, 0, 0, 5, 0, 8, 5
    )
    both = {**usage, "output_tokens_details": {"image_tokens": 4, "text_tokens": 1}}
    assert used(OPENAI, "/v1/images/edits", data=[], usage={"input_tokens": 10, "output_tokens": 5, **both}) == Usage(
        10, 0, 0, 5, 0, 8, 4
    )
    assert used(OPENAI, "/v1/embeddings", data=[], usage={"prompt_tokens": 10}) == Usage(10)


@pytest.mark.parametrize(
    ("dialect", "endpoint", "body", "truncated", "refusal"),
    [
        (
            OPENAI,
            "/v1/chat/completions",
            {"choices": [{"message": {"content": "x"}, "finish_reason": "length"}]},
            True,
            False,
        ),
        (
            OPENAI,
            "/v1/chat/completions",
            {"choices": [{"message": {"refusal": "no"}, "finish_reason": "stop"}]},
            False,
            True,
        ),
        (OPENAI, "/v1/chat/completions", {"choices": [{"finish_reason": "content_filter"}]}, False, True),
        (
            OPENAI,
            "/v1/responses",
            {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
            True,
            False,
        ),
        (ANTHROPIC, "/v1/messages", {"content": [], "stop_reason": "max_tokens"}, True, False),
        (ANTHROPIC, "/v1/messages", {"content": [], "stop_reason": "refusal"}, False, True),
    ],
)
def test_why_an_answer_ended(dialect: Dialect, endpoint: str, body: Any, truncated: bool, refusal: bool) -> None:
    found = dialect.answer(endpoint, json.dumps(body).encode())
    assert (found.truncated, found.refusal) == (truncated, refusal)


@pytest.mark.parametrize(
    ("dialect", "line", "why"),
    [
        (OPENAI, {"custom_id": "a", "url": "/v1/x", "body": {}}, "model"),
        (OPENAI, {"url": "/v1/x", "body": {"model": "m"}}, "custom_id"),
        (OPENAI, {"custom_id": "a", "url": "v1", "body": {"model": "m"}}, "path"),
        (OPENAI, {"custom_id": "a", "method": "GET", "url": "/v1/x", "body": {"model": "m"}}, "POST"),
        (OPENAI, {"custom_id": "a", "url": "/v1/x", "body": {"model": "m", "stream": True}}, "stream"),
        (OPENAI, {"custom_id": 5, "url": "/v1/x", "body": {"model": "m"}}, "custom_id"),
        (ANTHROPIC, {"custom_id": "a"}, "params"),
        (ANTHROPIC, {"custom_id": "a", "params": {"max_tokens": 1}}, "model"),
        (ANTHROPIC, {"custom_id": "a", "params": {"model": "m", "stream": True}}, "stream"),
    ],
)
def test_ready_lines_that_are_none(dialect: Dialect, line: Any, why: str) -> None:
    with pytest.raises(InputError, match=why):
        dialect.ready(json.dumps(line).encode())


def test_ready_lines_are_kept_to_the_byte() -> None:
    body = b'{"model" : "m",  "messages":[] , "x":1.0}'
    found = OPENAI.ready(b'{"custom_id":"k/1","method":"POST","url":"/chat/completions","body":' + body + b"}")
    assert (found.key, found.endpoint, found.model, found.body) == ("k/1", "/chat/completions", "m", body)
    assert OPENAI.inputs("/v1/embeddings", b'{"input": ["a", "b"]}') == 2
    assert OPENAI.inputs("/v1/embeddings", b'{"input": [1, 2, 3]}') == 1


@BOTH
def test_a_kept_answer_makes_a_line_of_the_vendors_again(dialect: Dialect) -> None:
    bodies = {"openai": b'{"choices": []}', "anthropic": b'{"content": []}'}
    line = dialect.result_line("my/key", bodies[dialect.name], None)
    found = dialect.result(line)
    assert (found.custom_id, found.error) == ("my/key", None)
    assert json.loads(found.body or b"") == json.loads(bodies[dialect.name])


@BOTH
@pytest.mark.parametrize("kind", ErrorKind)
@pytest.mark.parametrize("body", [None, b'{"choices": [], "content": []}'])
def test_what_failed_is_no_answer_in_a_line_of_the_vendors_either(
    dialect: Dialect, kind: ErrorKind, body: bytes | None
) -> None:
    error = {"kind": kind, "code": None, "http_status": None, "message": "why it failed"}
    line = dialect.result_line("my/key", body, error)
    found = dialect.result(line)
    assert found.custom_id == "my/key"
    assert found.error is not None
    if kind not in (ErrorKind.EXPIRED, ErrorKind.CANCELLED):
        assert "why it failed" in line.decode()


def test_openai_refusals_stand_in_the_body_as_they_came() -> None:
    body = b'{"error":{"message":"too long","type":"invalid_request_error","code":null}}'
    error = {"kind": "refused", "code": "invalid_request_error", "http_status": 400, "message": "too long"}
    line = json.loads(OPENAI.result_line("k", body, error))
    assert line["error"] is None
    assert line["response"] == {"status_code": 400, "request_id": "", "body": json.loads(body)}


# --- batch objects: times, and why one was refused

NO_TIMES: tuple[Any, ...] = (
    *(None, True, [], {}, "", "soon", "0", "-1", "9" * 20, "12023-11-14T22:13:20Z"),
    *(0, -1, 10**20, 10**300, float("nan"), float("inf"), float("-inf")),
)
NO_LINES: tuple[Any, ...] = (0, "0", -1, "-1", 3.5, "3.5", 10**30, "9" * 40, "x", [], True)


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        (1_700_000_000, 1_700_000_000),
        (1_700_000_000.75, 1_700_000_000),
        (1_700_000_000_123, 1_700_000_000),
        (1_700_000_000_123_456, 1_700_000_000),
        (1_700_000_000_123_456_789, 1_700_000_000),
        ("1700000000", 1_700_000_000),
        ("1700000000.5", 1_700_000_000),
        ("1700000000123", 1_700_000_000),
        ("2023-11-14T22:13:20Z", 1_700_000_000),
        ("2023-11-14T22:13:20", 1_700_000_000),
        ("2023-11-14T23:13:20.123456789+01:00", 1_700_000_000),
        ("Tue, 14 Nov 2023 22:13:20 GMT", 1_700_000_000),
        *[(nothing, None) for nothing in NO_TIMES],
    ],
)
def test_a_time_is_read_in_any_form_or_is_none(told: Any, seconds: int | None) -> None:
    assert reading.moment(told) == seconds
    found = openai.remote_batch({"id": "b", "created_at": told, "expires_at": told, "completed_at": told})
    assert found is not None
    assert (found.created_at, found.expires_at, found.ended_at) == (seconds, seconds, seconds)
    other = anthropic.remote_batch({"id": "b", "created_at": told, "expires_at": told, "ended_at": told})
    assert other is not None
    assert (other.created_at, other.expires_at, other.ended_at) == (seconds, seconds, seconds)


@given(documents | st.floats() | st.text(alphabet="0123456789:-+TZ. GMTueNov,"))
def test_any_time_has_a_form_on_the_way_out(told: Any) -> None:
    seconds = reading.moment(told)
    assert seconds is None or clock.rfc3339(seconds) is not None


@given(st.integers())
def test_a_time_that_an_earlier_release_kept_is_shown_or_is_none(at: int) -> None:
    shown = clock.rfc3339(at)
    assert shown is None or clock.parse(shown) == at


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,5} [A-Za-z]{3} [0-9]{1,9} [0-9:]{0,12} [+A-Z0-9-]{0,6}"))
def test_headers_with_any_date_or_length_are_read_or_passed_over(value: str) -> None:
    found = reading.http_date(value)
    assert found is None or clock.rfc3339(found) is not None
    headers = {"retry-after": value, "date": value, "content-length": value}
    assert (wire._retry_after(headers) or 0) >= 0
    assert (wire._announced(headers) or 0) >= 0
    assert (events.retry_after(headers, 0.0) or 0) >= 0


MESSAGE = Rejection(None, "too many", None)


@pytest.mark.parametrize(
    ("told", "taken"),
    [
        ({"status": "validating"}, False),
        ({"status": "in_progress"}, True),
        ({"status": "IN_PROGRESS"}, True),
        ({"status": "finalizing"}, True),
        ({"status": "completed"}, True),
        ({"status": "failed"}, False),
        ({"status": "failed", "output_file_id": "file-1"}, True),
        ({"status": "failed", "error_file_id": "file-1"}, False),
        ({"status": "queued"}, False),
        ({"status": "queued", "request_counts": {"completed": 1}}, True),
        ({"status": "cancelling"}, False),
        ({"status": "cancelled", "error_file_id": "file-1", "request_counts": {"failed": 3}}, False),
        ({"status": "cancelled", "output_file_id": "file-1"}, True),
        ({"status": "expired"}, False),
        ({"status": "expired", "request_counts": {"completed": 2}}, True),
        ({}, False),
    ],
)
def test_when_openai_has_looked_at_the_requests_and_taken_them(told: dict[str, Any], taken: bool) -> None:
    found = openai.remote_batch({"id": "b", **told})
    assert found is not None
    assert search.taken("openai", found) is taken


@pytest.mark.parametrize("status", ["in_progress", "canceling", "ended", "something new"])
def test_what_anthropic_creates_it_has_looked_at(status: str) -> None:
    found = anthropic.remote_batch({"id": "b", "processing_status": status})
    assert found is not None
    assert search.taken("anthropic", found)


@pytest.mark.parametrize(
    ("errors", "faults"),
    [
        *(
            (nothing, ())
            for nothing in (None, [], {}, "", {"object": "list", "data": []}, {"data": None}, [None], True)
        ),
        ("too many", (MESSAGE,)),
        (["too many"], (MESSAGE,)),
        ({"data": "too many"}, (MESSAGE,)),
        ({"data": ["too many"]}, (MESSAGE,)),
        ({"message": "too many"}, (MESSAGE,)),
        ({"data": {"message": "too many"}}, (MESSAGE,)),
        ({"error": {"message": "too many"}}, (MESSAGE,)),
        ([{"error": {"message": "too many"}}], (MESSAGE,)),
        ({"errors": [{"detail": "too many"}]}, (MESSAGE,)),
        ({"error": {"message": "too many", "type": "limit"}}, (Rejection("limit", "too many", None),)),
        ({"type": "error", "error": {"message": "too many", "code": 7}}, (Rejection("7", "too many", None),)),
        ({"code": "limit", "param": None}, (Rejection("limit", None, None),)),
        (["too many", {"message": "too many", "line": 3}], (MESSAGE, MESSAGE._replace(line=3))),
        (503, (Rejection(None, "503", None),)),
        ({"why": "nobody knows"}, (Rejection(None, '{"why": "nobody knows"}', None),)),
    ],
)
def test_why_a_batch_was_refused_is_read_in_any_shape(errors: Any, faults: tuple[Rejection, ...]) -> None:
    found = openai.remote_batch({"id": "b", "status": "failed", "errors": errors})
    assert found is not None
    assert (found.phase, found.faults) == (Phase.REFUSED, faults)
    assert backoff.remedy_for(found.faults, {OPENAI.reason(fault) for fault in found.faults}, 1)
    assert refusals.describe(found.faults)


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (3, 3),
        ("3", 3),
        (3.0, 3),
        *[(odd, None) for odd in NO_LINES],
    ],
)
def test_a_line_to_blame_is_a_whole_number_from_1(told: Any, line: int | None) -> None:
    found = openai.remote_batch({"id": "b", "status": "failed", "errors": {"data": [{"message": "m", "line": told}]}})
    assert found is not None
    assert found.faults == (Rejection(None, "m", line),)


@given(st.dictionaries(st.text(), documents))
def test_a_batch_object_of_any_shape_is_read(document: dict[str, Any]) -> None:
    names = (
        "status",
        "processing_status",
        "errors",
        "request_counts",
        "metadata",
        "created_at",
        "output_file_id",
        "job",
    )
    for remote_batch in (openai.remote_batch, anthropic.remote_batch):
        for n, value in enumerate(document.values()):
            remote_batch({"id": "b", "status": "failed", names[n % len(names)]: value, **document})
            remote_batch(document)


def test_an_endless_list_of_faults_is_cut_and_so_are_their_words() -> None:
    found = openai.remote_batch({"id": "b", "status": "s" * 10_000, "errors": [{"message": "m" * 10_000}] * 10_000})
    assert found is not None
    assert (len(found.faults), len(found.faults[0].message or ""), len(found.status)) == (100, 300, 300)


@BOTH
def test_an_answer_that_is_not_utf_8_is_an_answer_all_the_same(dialect: Dialect) -> None:
    message = b'{"choices":[{"message":{"content":"caf\xe9"}}],"content":[{"type":"text","text":"caf\xe9"}]}'
    response = b'"response":{"status_code":200,"body":%s}' % message
    found = dialect.result(b'{"custom_id":"t-1",%s,"result":{"type":"succeeded","message":%s}}' % (response, message))
    assert found.error is None
    assert dialect.answer(dialect.endpoints[0], found.body or b"").text == "caf\ufffd"
    assert dialect.answer(dialect.endpoints[0], message).text is None


WORDS = (
    *("choices", "message", "content", "text", "refusal", "finish_reason", "usage", "model", "error", "code", "type"),
    *("output", "data", "embedding", "index", "status", "incomplete_details", "reason", "stop_reason", "status_code"),
    *("body", "prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "cached_tokens", "message"),
    *("prompt_tokens_details", "cache_read_input_tokens", "cache_creation_input_tokens", "errored", "succeeded"),
    *(
        "cache_creation",
        "ephemeral_1h_input_tokens",
        "server_tool_use",
        "iterations",
        "web_search_call",
        "service_tier",
    ),
    *("cache_write_tokens", "output_tokens_details", "reasoning_tokens", "total_tokens", "tools", "action", "caller"),
)
hostile = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=6),
    max_leaves=30,
)
LARGEST = 2**63


@BOTH
@settings(max_examples=300, deadline=None)
@given(response=hostile, error=hostile, kind=st.sampled_from(("succeeded", "errored", "expired", "odd")))
def test_whatever_stands_in_a_result_line_is_judged(dialect: Dialect, response: Any, error: Any, kind: str) -> None:
    """The verdict fits into the state file: numbers of 64 bits, and text that is UTF-8."""
    result = {"type": kind, "message": response, "error": error}
    line = {
        "custom_id": "t-1",
        "result": result,
        "response": {"status_code": response, "body": response},
        "error": error,
    }
    for each in (line, line | {"response": response}, line | {"response": {"body": response}, "error": None}):
        try:
            found = dialect.result(json.dumps(each).encode())
        except ValueError:
            continue
        for endpoint in (*dialect.endpoints, "/v1/completions"):
            spec = Spec(dialect=dialect.name, endpoint=endpoint, model="m", answer_schema={"type": "object"})
            verdict = scrubbed(Classifier(dialect, spec, PRICES).classify(found))
            numbers = [*verdict.charge, *(verdict.failure or ())]
            assert all(-LARGEST <= n < LARGEST for n in numbers if isinstance(n, int))
            assert all(text.encode() or True for text in verdict.failure or () if isinstance(text, str))
            if verdict.body is not None:
                json.loads(verdict.body)
                dialect.result_line("x", verdict.body, None)


@settings(deadline=None)  # the price list is loaded first
@given(model=st.text(), tokens=st.lists(st.integers() | st.integers(0, 10**9), min_size=9, max_size=9))
def test_any_model_and_any_usage_has_a_price_or_none(model: str, tokens: list[int]) -> None:
    for prices, name in ((PRICES, model), (PRICES, "gpt-4.1-mini"), (Prices("anthropic"), "claude-haiku-4-5")):
        cost = prices.cost(name, Usage._make([*tokens, False]))
        assert cost is None or 0 <= cost.paid <= cost.list < LARGEST


# --- answers that are written oddly

CHAT: dict[str, Any] = {
    "model": "gpt-4.1-mini",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "hi", "refusal": None}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 10, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}},
}
RESPONSE: dict[str, Any] = {
    "status": "completed",
    "incomplete_details": None,
    "model": "gpt-4.1-mini",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "hi"}]}],
    "usage": {"input_tokens": 10, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 4}},
}
CLAUDE: dict[str, Any] = {
    "model": "claude-haiku-4-5",
    "content": [{"type": "text", "text": "hi"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 6, "cache_read_input_tokens": 4, "output_tokens": 2},
}
SHAPES = pytest.mark.parametrize(
    ("dialect", "endpoint", "body"),
    [
        (OPENAI, "/v1/chat/completions", CHAT),
        (OPENAI, "/v1/responses", RESPONSE),
        (ANTHROPIC, "/v1/messages", CLAUDE),
    ],
    ids=["chat", "responses", "messages"],
)
ODD: tuple[Any, ...] = (None, True, 7, -1, 14417.92, 10**30, "", "odd", [], [7], {}, {"a": 1})


def line_of(dialect: Dialect, body: Any, custom_id: str = "t-1") -> bytes:
    """Return a result line around a body, which may be JSON already."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    if dialect is OPENAI:
        return b'{"custom_id": "%s", "response": {"status_code": 200, "body": %s}}' % (custom_id.encode(), raw)
    return b'{"custom_id": "%s", "result": {"type": "succeeded", "message": %s}}' % (custom_id.encode(), raw)


def read(dialect: Dialect, endpoint: str, line: bytes) -> Answer:
    """Return the answer of a line; the body that is kept of it is JSON for any reader."""
    found = dialect.result(line)
    assert found.error is None, found
    assert found.body is not None
    msgspec.json.decode(found.body)
    json.loads(found.body)
    return dialect.answer(endpoint, found.body)


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of every member in a document."""
    for step in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield (*way, step)
        yield from places(value[step], (*way, step))


def put(body: Any, way: tuple[Any, ...], value: Any) -> Any:
    """Return a document with another value at a place."""
    copy = json.loads(json.dumps(body))
    inner = copy
    for step in way[:-1]:
        inner = inner[step]
    inner[way[-1]] = value
    return copy


def beside_the_text(body: Any) -> list[tuple[Any, ...]]:
    """Return the places of the members around which the text does not stand."""
    (text,) = [
        way for way in places(body) if json.loads(json.dumps(body)) != put(body, way, None) and _at(body, way) == "hi"
    ]
    return [way for way in places(body) if way != text[: len(way)] and way[-1] not in ("type", "phase")]


def _at(body: Any, way: tuple[Any, ...]) -> Any:
    for step in way:
        body = body[step]
    return body


@SHAPES
@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_whatever_stands_beside_the_text_the_text_is_read(
    dialect: Dialect, endpoint: str, body: dict[str, Any], odd: Any
) -> None:
    """What cannot be used is None; what can be is used."""
    spec = Spec(dialect=dialect.name, endpoint=endpoint, model=body["model"], prompt="p")
    for way in beside_the_text(body):
        declined = way[-1] == "refusal" and odd == "odd"
        found = read(dialect, endpoint, line_of(dialect, put(body, way, odd)))
        if declined:
            assert (found.refusal, found.text) == (True, "odd")
            continue
        assert found.text == "hi", way
        assert found.model in (body["model"], None, "", "odd")
        assert found.usage is None or all(type(n) in (int, bool) and n >= 0 for n in found.usage)
        if way[-1] != "status":
            line = dialect.result(line_of(dialect, put(body, way, odd)))
            assert Classifier(dialect, spec, Prices(dialect.name)).classify(line).failure is None, way


@pytest.mark.parametrize("odd", [*ODD, ["text"], {"text": ["text"]}], ids=repr)
def test_whatever_stands_beside_a_part_of_a_text_the_text_is_read(odd: Any) -> None:
    for name in ("type", "name", "caller", "annotations", "citations"):
        content = [{"type": "text", "text": "h"} | {name: odd}, {"type": "text", "text": "i"}]
        chat = put(CHAT, ("choices", 0, "message", "content"), content)
        for dialect, endpoint, body in (
            (OPENAI, C, chat),
            (OPENAI, R, put(RESPONSE, ("output", 0, "content"), content)),
            (ANTHROPIC, M, {**CLAUDE, "content": content}),
        ):
            found = read(dialect, endpoint, line_of(dialect, body)).text
            assert found == "hi" or (name == "type" and found == "i"), (endpoint, name)


@SHAPES
@pytest.mark.parametrize("odd", [True, -1, 14417.92, 2**60, 10**30, "odd", [], {}], ids=repr)
def test_a_figure_that_makes_no_sense_makes_the_cost_unknown(
    dialect: Dialect, endpoint: str, body: dict[str, Any], odd: Any
) -> None:
    for name in body["usage"]:
        if name.endswith("tokens"):
            found = read(dialect, endpoint, line_of(dialect, put(body, ("usage", name), odd)))
            assert found.text == "hi"
            assert found.usage is None or found.usage.beyond


@SHAPES
def test_figures_as_text_are_figures(dialect: Dialect, endpoint: str, body: dict[str, Any]) -> None:
    usage = {name: str(n) if isinstance(n, int) else n for name, n in body["usage"].items()}
    assert read(dialect, endpoint, line_of(dialect, {**body, "usage": usage})).usage == Usage(10, 4, 0, 2)


@SHAPES
@pytest.mark.parametrize(
    ("written", "text"),
    [
        (rb"hi \ud800", "hi \ufffd"),
        (rb"hi \udc00 \uD83D\uDE00", "hi \ufffd \U0001f600"),
        (rb"hi \ud83d\ud83d\ude00", "hi \ufffd\U0001f600"),
        (rb"hi \\ud800", "hi \\ud800"),
        (rb"hi \\\ud800", "hi \\\ufffd"),
        (b"hi \xed\xa0\x80", "hi \ufffd"),
        (b"hi \xed\xa0\xbd\xed\xb8\x80", "hi \U0001f600"),
        (b"hi \xff", "hi \ufffd"),
        (b"hi\tyou", "hi\tyou"),
        (rb"hi \x \u12", "hi \\x \\u12"),
        (rb"hi \u0000", "hi \0"),
        ("\ufeffhi".encode(), "\ufeffhi"),
    ],
)
def test_a_text_of_any_bytes_is_read(
    dialect: Dialect, endpoint: str, body: dict[str, Any], written: bytes, text: str
) -> None:
    raw = json.dumps(body).encode().replace(b'"hi"', b'"%s"' % written)
    assert read(dialect, endpoint, line_of(dialect, raw)).text == text


@SHAPES
@pytest.mark.parametrize(
    "beside",
    [
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"9" * 5000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a": ' * 50_000 + b"1" + b"}" * 50_000,
        b'{"a": 1, "a": 2}',
        b'"\\ud800"',
    ],
    ids=["nan", "infinity", "large", "digits", "lists", "objects", "twice", "surrogate"],
)
@pytest.mark.parametrize("place", ["beside", "logprobs", "usage", "model", "metadata"])
def test_a_text_beside_what_no_reader_takes_is_read(
    dialect: Dialect, endpoint: str, body: dict[str, Any], beside: bytes, place: str
) -> None:
    raw = json.dumps({**body, place: "XX"}).encode().replace(b'"XX"', beside)
    found = dialect.result(line_of(dialect, raw))
    assert found.error is None
    assert dialect.answer(endpoint, found.body or b"").text == "hi"
    if beside[:1] != b"9":  # JSON, which Python alone does not take
        json.loads(found.body or b"")


@SHAPES
def test_byte_order_marks_and_spaces_are_passed_over(dialect: Dialect, endpoint: str, body: dict[str, Any]) -> None:
    mark, line = b"\xef\xbb\xbf", line_of(dialect, body)
    for odd in (mark + line, mark + mark + b" " + mark + line + b"\r\n", b"  " + line):
        assert read(dialect, endpoint, odd).text == "hi"
    text = json.dumps("\ufeff" + json.dumps(body)).encode()
    for wrapped in (
        text,
        json.dumps(json.dumps(body).replace("hi", "h\ud800")).encode(),
        json.dumps(json.dumps(body, indent=1)).encode(),
    ):
        assert (read(dialect, endpoint, line_of(dialect, wrapped)).text or "")[:1] == "h"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("hi", "hi"),
        (["h", {"type": "text", "text": "i"}, {"type": "image"}, 7, None], "hi"),
        ({"type": "text", "text": "hi"}, "hi"),
        ([{"type": "text", "text": {"value": "hi", "annotations": []}}], "hi"),
        ([{"type": "thinking", "text": "hm"}, {"type": "text", "text": "hi"}], "hi"),
        (42, "42"),
        ({"label": "a"}, '{"label": "a"}'),
        ([], ""),
        ([{"type": "image"}], None),
        ([{"type": "text", "text": None}], None),
        (None, None),
    ],
)
def test_a_text_is_read_in_any_form(content: Any, text: str | None) -> None:
    nothing: tuple[Any, ...] = (None, [], False)
    for refusal in nothing:
        chat = put(
            put(CHAT, ("choices", 0, "message", "content"), content), ("choices", 0, "message", "refusal"), refusal
        )
        assert read(OPENAI, "/v1/chat/completions", line_of(OPENAI, chat)).text == text
    message = {**CLAUDE, "content": content}
    if not isinstance(content, int) and content != {"label": "a"}:
        assert read(ANTHROPIC, "/v1/messages", line_of(ANTHROPIC, message)).text == text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"type": "person", "name": "Ann"}, '{"type": "person", "name": "Ann"}'),
        ([{"s": "a"}, {"s": "b"}], '[{"s": "a"}, {"s": "b"}]'),
        ([{"type": "person"}, {"type": "place"}], '[{"type": "person"}, {"type": "place"}]'),
        ([1, 2.5], "[1, 2.5]"),
        ([{"type": "text", "content": "x"}], "x"),
        ({"type": "output_text", "content": "x"}, "x"),
        ([{"type": "tool_use", "input": {}}], None),
        ([{"type": "image_url", "image_url": {"url": "x"}}, {"s": "a"}], None),
        ([{"type": "web_search_tool_result", "content": []}], None),
        ([{"type": "thinking", "thinking": "hm"}], None),
        ([None], None),
        ([{}], None),
        ({}, "{}"),
    ],
)
def test_a_document_that_a_service_read_is_what_the_model_wrote(content: Any, text: str | None) -> None:
    chat = put(CHAT, ("choices", 0, "message", "content"), content)
    assert read(OPENAI, C, line_of(OPENAI, chat)).text == text
    odd = put(CHAT, ("choices", 0, "message", "refusal"), content)
    assert read(OPENAI, C, line_of(OPENAI, odd)).refusal == (text == "x")


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'[{"embedding": [NaN, 0.1]}]', None),
        (b'[{"embedding": [null, 0.1]}]', None),
        (b'[{"embedding": ["0.1"]}]', None),
        (b'[{"embedding": [[0.1], [null]]}]', None),
        (b'[{"embedding": [[0.1], [2]]}]', [[0.1], [2]]),
        (b'[{"embedding": [1, 0.1]}]', [1, 0.1]),
        (b'[{"index": "1", "embedding": [1]}, {"index": "0", "embedding": [2]}]', [[2], [1]]),
        (b'[{"index": 1, "embedding": [1]}, {"index": "0", "embedding": [NaN]}]', None),
    ],
)
def test_an_embedding_is_numbers_all_of_them_and_in_their_order(data: bytes, value: Any) -> None:
    line = line_of(OPENAI, b'{"data": %s, "usage": {"prompt_tokens": 5}}' % data)
    assert read(OPENAI, "/v1/embeddings", line).value == value


@pytest.mark.parametrize(
    "choices",
    [
        {"message": {"content": "hi"}, "finish_reason": "stop"},
        {"0": {"message": {"content": "hi"}, "finish_reason": "stop"}},
        [{"message": "hi", "finish_reason": "stop"}],
        [{"text": "hi", "finish_reason": "stop"}],
        [None, {"message": {"content": "hi"}, "finish_reason": "stop"}],
    ],
)
def test_choices_of_any_shape_are_read(choices: Any) -> None:
    found = read(OPENAI, "/v1/chat/completions", line_of(OPENAI, {**CHAT, "choices": choices}))
    assert (found.text, found.finish_reason) == ("hi", "stop")


def test_the_first_of_several_choices_is_the_answer() -> None:
    second = {"message": {"content": "ho"}, "finish_reason": "length"}
    found = read(OPENAI, "/v1/chat/completions", line_of(OPENAI, {**CHAT, "choices": [*CHAT["choices"], second]}))
    assert (found.text, found.truncated) == ("hi", False)


@BOTH
@pytest.mark.parametrize(
    "line",
    [
        b'{"custom_id": "t-1", "response": {"status_code": 200, "body": {"a": "',
        b'{"custom_id" : "t-1" , }',
        b'{"response": {"body": {"text": "\\"custom_id\\": \\"t-2\\""}, }, "custom_id": "t-1"}',
        b'{"custom_id": "t-1", "response": "an upstream error", "result": "an upstream error"}',
        b'\xef\xbb\xbf{"custom_id": "t-1", \xff}',
        b'{"response": {"custom_id": "t-2"}, "custom_id": "t-1", "x": tru',
        b'"response": {"body": "custom_id"}, "custom_id":"t-1"}',
    ],
)
def test_what_cannot_be_read_names_its_request_and_is_kept_as_it_came(dialect: Dialect, line: bytes) -> None:
    with pytest.raises(reading.Illegible) as caught:
        dialect.result(line)
    assert caught.value.custom_ids == ["t-1"]
    kept = caught.value.of("t-1")
    assert kept.error is ErrorKind.INVALID_OUTPUT
    assert json.loads(kept.body or b"") == line.decode("utf-8", "replace")
    verdict = scrubbed(Classifier(dialect, Spec(dialect=dialect.name, endpoint="/x"), PRICES).classify(kept))
    assert (verdict.charge.cost, verdict.body) == (None, kept.body)


AROUND = (
    *((b"", b","), (b"[", b","), (b"", b"]"), (b"[", b"]"), (b" [ ", b" ,\r\n"), (b"data: ", b""), (b"data:", b",")),
    *((b"", b"\0" * 8), (b"\x1e", b""), (b"", b"\x1e"), (b"\xef\xbb\xbf[", b"]\0\n"), (b"", b"[DONE]")),
)


@SHAPES
@pytest.mark.parametrize(("before", "after"), AROUND)
def test_what_separates_results_elsewhere_is_passed_over(
    dialect: Dialect, endpoint: str, body: dict[str, Any], before: bytes, after: bytes
) -> None:
    line = line_of(dialect, body)
    for odd in (
        line,
        line.replace(b'"hi"', rb'"h\ud800"'),
        line.replace(b'"hi"', b'"h\xff\n"'),
        line[:-1] + b', "x": NaN}',
    ):
        assert (read(dialect, endpoint, before + odd + after).text or "")[:1] == "h"
    assert reading.rows(before + line + after) == [line]
    assert reading.rows(before + line + after + line + after) == [line, line]
    assert reading.rows(before + after) == []
    assert reading.rows(before + line + after + b'{"custom_id": "t-2", "x": "cu') == [
        line,
        b'{"custom_id": "t-2", "x": "cu',
    ]
    for other in (b"x" + line, line + b"x", line[:-1], line + b"}", b"7", line + b" 7 " + line, b'"' + line):
        assert reading.rows(other) == [other]


@pytest.mark.parametrize("error", [{}, {"code": None, "message": None}, {"message": ""}, [], "", False, 0])
def test_an_error_that_says_nothing_is_none(error: Any) -> None:
    for line in (
        openai_line({"status_code": 200, "body": CHAT}, error),
        openai_line({"status_code": 200, "body": {**CHAT, "error": error}}),
    ):
        assert read(OPENAI, C, line).text == "hi"


def response_of(*items: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"status": "completed", "output": list(items), **more}


def said(text: str, phase: str | None = None) -> dict[str, Any]:
    part = {"type": "output_text", "text": text}
    return {"type": "message", "content": [part]} | ({} if phase is None else {"phase": phase})


C, R, M = "/v1/chat/completions", "/v1/responses", "/v1/messages"
WELL: tuple[Any, ...] = (
    *({"code": 0, "message": "success"}, {"code": "200", "message": "OK"}, {"code": "0", "message": "ok"}, {"code": 0}),
    *(
        {"code": "ok", "message": ""},
        {"code": None, "message": "Success."},
        {"code": "0000", "message": "Request done"},
    ),
    *({"code": 200, "message": None}, {"type": "success"}, {"message": "None"}, {"code": "success", "error_code": 0}),
    *("None", "null", "OK", "success", 200, [{"code": 0, "message": "success"}], {"code": "", "message": "no error"}),
)
BAD: tuple[Any, ...] = (
    True,
    *({"code": 0, "type": "server_error", "message": "the stream broke"}, {"code": 500, "message": ""}, "broke off"),
    *(
        {"code": "server_error", "message": "none"},
        {"code": 1},
        {"message": "it is ok to retry"},
        {"code": [0]},
        ["no"],
        500,
    ),
)
ANSWERED = pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        (C, CHAT),
        (C, {name: value for name, value in CHAT.items() if name != "usage"}),
        (R, response_of(said("hi"))),
        ("/v1/embeddings", {"data": [{"index": 0, "embedding": [0.5]}]}),
        ("/v1/images/generations", {"data": [{"b64_json": "x"}]}),
        ("/v1/moderations", {"results": [{"flagged": False}]}),
    ],
)


@ANSWERED
@pytest.mark.parametrize("error", WELL, ids=repr)
def test_an_answer_beside_an_error_that_says_all_is_well_is_an_answer(
    endpoint: str, body: dict[str, Any], error: Any
) -> None:
    spec = Spec(dialect="openai", endpoint=endpoint, model="m", prompt="p")
    for status in (200, 201, None, 0, "0"):
        for line in (
            openai_line({"status_code": status, "body": body}, error),
            openai_line({"status_code": status, "body": {**body, "error": error}}),
            openai_line({"status_code": status, "body": [body]}, error),
            openai_line({"status_code": status, "body": body}),
        ):
            found = OPENAI.result(line)
            assert (found.error, found.http_status) == (None, int(status or 0) or None)
            assert Classifier(OPENAI, spec, PRICES).classify(found).failure is None


@ANSWERED
@pytest.mark.parametrize("error", BAD, ids=repr)
def test_an_answer_beside_an_error_that_says_something_is_none(endpoint: str, body: dict[str, Any], error: Any) -> None:
    for line in (
        openai_line({"status_code": 200, "body": body}, error),
        openai_line({"status_code": 200, "body": {**body, "error": error}}),
        openai_line({"status_code": 200, "body": {**body, "error": WELL[0]}}, error),
        openai_line({"status_code": 200, "body": {**body, "error": error}}, WELL[0]),
    ):
        found = OPENAI.result(line)
        assert (found.error, found.message == "success") == (ErrorKind.PROVIDER_ERROR, False)


@pytest.mark.parametrize("error", [error for error in WELL if error != {"code": 0}], ids=repr)
def test_without_an_answer_an_error_that_says_all_is_well_makes_none(error: Any) -> None:
    for status, body in (
        (200, {}),
        (200, {"choices": []}),
        (0, {}),
        (500, CHAT),
        (None, {"id": "x"}),
        (404, {"data": []}),
    ):
        found = OPENAI.result(openai_line({"status_code": status, "body": body}, error))
        assert found.error not in (None, ErrorKind.INVALID_OUTPUT)
    assert OPENAI.result(openai_line(None, error)).error is ErrorKind.PROVIDER_ERROR
    unread = OPENAI.result(openai_line({"status_code": 200, "body": "plain words"}, error))
    assert unread.error is ErrorKind.INVALID_OUTPUT  # it may have been paid for


@ANSWERED
def test_what_failed_and_holds_an_answer_costs_what_it_says_or_nobody_knows(
    endpoint: str, body: dict[str, Any]
) -> None:
    judge = Classifier(OPENAI, Spec(dialect="openai", endpoint=endpoint, model="gpt-4.1-mini"), PRICES)
    charge = judge.classify(OPENAI.result(openai_line({"status_code": 500, "body": body}))).charge
    if "usage" in body:
        assert charge.cost
    elif endpoint in (C, R, "/v1/embeddings"):
        assert charge.cost is None
    refused = openai_line({"status_code": 400, "body": {"error": {"message": "no"}}})
    assert judge.classify(OPENAI.result(refused)).charge.cost == 0


@pytest.mark.parametrize("ending", ["SUCCEEDED", "Succeeded"])
def test_an_ending_of_anthropics_may_be_written_in_capitals(ending: str) -> None:
    found = ANTHROPIC.result(anthropic_line({"type": ending, "message": CLAUDE}))
    assert (found.error, found.http_status) == (None, 200)
    for word, kind in (("EXPIRED", ErrorKind.EXPIRED), ("Canceled", ErrorKind.CANCELLED)):
        assert ANTHROPIC.result(anthropic_line({"type": word})).error is kind


@BOTH
@pytest.mark.parametrize("body", [b"7", b"null", b'""', b'"plain words"', b'"{\\"choices\\": [{"', b"[1]", b"true"])
def test_an_answered_request_without_a_body_to_read_is_kept(dialect: Dialect, body: bytes) -> None:
    line = line_of(dialect, body)
    found = dialect.result(line)
    assert (found.custom_id, found.error, found.http_status) == ("t-1", ErrorKind.INVALID_OUTPUT, 200)
    assert json.loads(found.body or b"") == line.decode()


@BOTH
@pytest.mark.parametrize(
    "hostile",
    [
        b'{"custom_id": "t-1", "x": "' + rb"\"" * 500_000,
        b'{"x": ' + b"[" * 500_000 + b'"' + rb"\"" * 500_000,
        b'{"custom_id": "t-1", "x": ' + b'"custom_id": "a", ' * 50_000,
        b"\xef\xbb\xbf" * 500_000,
        b"\xef\xbb\xbf" + b" \xef\xbb\xbf" * 300_000 + b"x",
        b" " * 1_000_000 + b"{",
        b'{"custom_id": "t-1", "x": "' + rb"\ud800" * 200_000,
        b'"custom_id"' + b" " * 500_000 + b":",
    ],
)
@pytest.mark.timeout(60)  # a way that goes back over what it has read takes minutes
def test_no_line_takes_long_to_be_found_unreadable(dialect: Dialect, hostile: bytes) -> None:
    with pytest.raises(reading.Illegible):
        dialect.result(hostile)
    assert reading.bare(hostile) is not None


@BOTH
def test_of_a_line_without_end_the_beginning_is_kept(dialect: Dialect) -> None:
    with pytest.raises(reading.Illegible) as caught:
        dialect.result(b'{"custom_id": "t-1", "x": "' + b"\xc3\xa9" * 2_000_000)
    assert 1 << 20 <= len(caught.value.of("t-1").body or b"") < (1 << 20) + 100


@BOTH
@pytest.mark.parametrize("custom_id", [b"7", b"null", b'["t-1"]', b'{"custom_id": "t-1"}'])
def test_a_custom_id_that_is_no_text_is_nobodys(dialect: Dialect, custom_id: bytes) -> None:
    line = line_of(dialect, CHAT | CLAUDE).replace(b'"t-1"', custom_id, 1)
    with pytest.raises(reading.Illegible) as caught:
        dialect.result(line)
    assert caught.value.custom_ids == []


def chat_of(message: dict[str, Any], finish: str | None) -> dict[str, Any]:
    return {"choices": [{"message": message, "finish_reason": finish}]}


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


THINKING = {"type": "thinking", "thinking": "hm", "signature": "s"}


@pytest.mark.parametrize(
    ("endpoint", "body", "kind", "final"),
    [
        (C, chat_of({"content": None}, "stop"), "invalid_output", True),
        (C, chat_of({"content": None}, None), "invalid_output", True),
        (C, chat_of({}, "stop"), "invalid_output", True),
        (C, chat_of({"content": None, "tool_calls": []}, "tool_calls"), "invalid_output", True),
        (C, chat_of({"content": None}, "length"), "truncated", None),
        (C, chat_of({"content": ""}, "length"), "truncated", None),
        (C, chat_of({"content": "x"}, "length"), "truncated", None),
        (C, chat_of({"content": "x"}, "MAX_TOKENS"), "truncated", None),
        (C, chat_of({"content": "x"}, "error"), "provider_error", False),
        (C, chat_of({"content": "x"}, "pause_turn"), "invalid_output", True),
        (C, chat_of({"content": "x"}, "content_filter"), "refusal", None),
        (C, chat_of({"content": ""}, "stop"), None, None),
        (C, chat_of({"content": ""}, None), None, None),
        (C, chat_of({"content": None, "tool_calls": [CALL]}, "tool_calls"), None, None),
        (C, chat_of({"content": None, "function_call": {"name": "f"}}, "function_call"), None, None),
        (C, chat_of({"content": None, "audio": {"id": "a", "transcript": "x"}}, "stop"), None, None),
        (C, {"choices": []}, "invalid_output", False),
        (C, {"choices": None}, "invalid_output", False),
        (C, {}, "invalid_output", False),
        ("/v1/completions", {"choices": [{"text": "", "finish_reason": "length"}]}, "truncated", None),
        ("/v1/completions", {"choices": [{"text": "", "finish_reason": "stop"}]}, None, None),
        ("/v1/moderations", {"results": [{"flagged": False}]}, None, None),
        ("/v1/images/generations", {"data": [{"b64_json": "x"}]}, None, None),
        ("/v1/embeddings", {"data": [{"index": 0, "embedding": [0.5]}]}, None, None),
        ("/v1/embeddings", {"data": [{"index": 0, "embedding": "AAAA"}]}, None, None),
        ("/v1/embeddings", {"data": [{"index": 0, "embedding": None}]}, "invalid_output", False),
        ("/v1/embeddings", {"data": 7}, "invalid_output", False),
        (R, response_of(said("x")), None, None),
        (R, response_of({"type": "function_call", "name": "f"}), None, None),
        (R, response_of({"type": "image_generation_call", "result": "x"}), None, None),
        (R, response_of({"type": "reasoning", "summary": []}), "invalid_output", True),
        (R, response_of(), "invalid_output", True),
        (R, response_of(said("look", "commentary")), "invalid_output", True),
        (R, response_of(said("x"), status="queued"), "provider_error", False),
        (R, response_of(said("x"), status="in_progress"), "provider_error", False),
        (R, response_of(said("x"), status="failed"), "provider_error", False),
        (R, response_of(said("x"), status="CANCELLED"), "provider_error", False),
        (R, response_of(said("x"), status="incomplete"), "invalid_output", True),
        (
            R,
            response_of(said("x"), status="incomplete", incomplete_details={"reason": "max_messages"}),
            "invalid_output",
            True,
        ),
        (
            R,
            response_of(said("x"), status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
            "truncated",
            None,
        ),
        (
            R,
            response_of(said("x"), status="incomplete", incomplete_details={"reason": "content_filter"}),
            "refusal",
            None,
        ),
        (M, {"content": [THINKING], "stop_reason": "end_turn"}, "invalid_output", True),
        (M, {"content": [THINKING], "stop_reason": "max_tokens"}, "truncated", None),
        (M, {"content": [{"type": "text", "text": "x"}], "stop_reason": "max_tokens"}, "truncated", None),
        (
            M,
            {"content": [{"type": "text", "text": "x"}], "stop_reason": "model_context_window_exceeded"},
            "truncated",
            None,
        ),
        (M, {"content": [{"type": "text", "text": "x"}], "stop_reason": "pause_turn"}, "invalid_output", True),
        (M, {"content": [{"type": "server_tool_use"}], "stop_reason": "end_turn"}, "invalid_output", True),
        (M, {"content": None, "stop_reason": "end_turn"}, "invalid_output", True),
        (M, {"content": [], "stop_reason": "max_tokens"}, "truncated", None),
        (M, {"content": [], "stop_reason": "end_turn"}, None, None),
        (M, {"content": [THINKING, {"type": "tool_use", "name": "f"}], "stop_reason": "tool_use"}, None, None),
        (M, {}, "invalid_output", False),
    ],
)
def test_completed_means_that_there_is_an_answer(
    endpoint: str, body: Any, kind: str | None, final: bool | None
) -> None:
    dialect = ANTHROPIC if endpoint == M else OPENAI
    spec = Spec(dialect=dialect.name, endpoint=endpoint, model="m", prompt="p")
    failure = Classifier(dialect, spec, PRICES).classify(dialect.result(line_of(dialect, body))).failure
    assert (failure and failure.kind) == kind
    if failure is not None:
        again = backoff.next_status(failure, 1, 3, False, 0, 0).to
        assert (again is TaskStatus.FAILED) == (final is not False)


HOSTED = ("web_search_call", "file_search_call", "code_interpreter_call", "mcp_call", "mcp_list_tools", "some_new_call")
NO_PICTURE = {"type": "image_generation_call", "status": "failed", "result": None}
ASKED = (
    {"type": "function_call", "name": "f"},
    {"type": "custom_tool_call"},
    {"type": "computer_call"},
    {"type": "local_shell_call"},
    {"type": "apply_patch_call"},
    {"type": "mcp_approval_request"},
    {"type": "shell_call", "environment": None},
    {"type": "shell_call", "environment": {"type": "local"}},
    {"type": "tool_search_call", "execution": "client"},
    {"type": "image_generation_call", "result": "x"},
    {"type": "another_call", "call_id": "c"},
)


def kind_of(endpoint: str, body: Any, *, accept: bool = False, **spec: Any) -> str | None:
    """Return why a body is no answer, by nura's kind; None where it is one."""
    dialect = ANTHROPIC if endpoint == M else OPENAI
    classifier = Classifier(
        dialect, Spec(dialect=dialect.name, endpoint=endpoint, model="m", **spec), PRICES, accept_truncated=accept
    )
    failure = classifier.classify(dialect.result(line_of(dialect, body))).failure
    return failure and failure.kind


@pytest.mark.parametrize(
    "hosted", [*({"type": kind} for kind in HOSTED), {"type": "tool_search_call", "execution": "server"}, NO_PICTURE]
)
def test_a_call_of_the_vendors_own_tools_is_no_answer(hosted: dict[str, Any]) -> None:
    container = {"type": "shell_call", "call_id": "c", "environment": {"type": "container_reference"}}
    thought = {"type": "reasoning", "summary": []}
    for items in ([hosted], [thought, hosted], [hosted, container], [said("look", "commentary"), hosted, thought]):
        assert kind_of(R, response_of(*items)) == "invalid_output"
    for asked in ASKED:
        assert kind_of(R, response_of(thought, hosted, asked)) is None, asked
    assert kind_of(R, response_of(hosted, said("it is 4"))) is None


@pytest.mark.parametrize(
    "spec",
    [{"prompt": "p"}, {"prompt": None}, {"prompt": "p", "params": {"max_tokens": 16}}],
    ids=["accepted", "ready", "label"],
)
def test_half_a_tool_call_is_no_answer_whatever_is_accepted(spec: dict[str, Any]) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": "unfin'}}
    use = {"type": "tool_use", "id": "c", "name": "f", "input": {}}
    cut = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    for text, kind in ((None, "truncated"), ("", "truncated"), ("x", None)):
        spoken = [] if text is None else [{"type": "text", "text": text}]
        for endpoint, body in (
            (C, chat_of({"content": text, "tool_calls": [call]}, "length")),
            (M, {"content": [*spoken, use], "stop_reason": "max_tokens"}),
            (R, response_of(*([] if text is None else [said(text)]), {"type": "function_call", "name": "f"}) | cut),
        ):
            assert kind_of(endpoint, body, accept=True, **spec) == kind, (endpoint, text)


SCHEMA = {
    "type": "object",
    "properties": {"s": {"type": "string"}},
    "required": ["s"],
    "additionalProperties": False,
}


def block(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


SEARCHED = [{"type": "server_tool_use", "name": "web_search"}, {"type": "web_search_tool_result", "content": []}]
SEARCH, WHOLE = {"type": "web_search_call"}, '{"s":"a"}'


@pytest.mark.parametrize(
    ("endpoint", "body", "document"),
    [
        (R, response_of(said("Let me look."), SEARCH, said(WHOLE)), WHOLE),
        (R, response_of(said("Let me look."), SEARCH, said(WHOLE), SEARCH), WHOLE),
        (R, response_of(said("Let me look."), said(WHOLE)), WHOLE),
        (R, response_of(said('{"s":'), said('"a"}')), WHOLE),
        (R, response_of(said("Look:"), SEARCH, said('{"s":'), said('"a"}')), WHOLE),
        (R, response_of(said(WHOLE), SEARCH, said("That is it.")), None),
        (M, {"content": [block("Let me look."), *SEARCHED, block(WHOLE)]}, WHOLE),
        (M, {"content": [block("Look."), *SEARCHED, block('{"s":'), block('"a"}'), THINKING]}, WHOLE),
        (M, {"content": [block("I"), *SEARCHED, block("look."), THINKING, block(WHOLE)]}, WHOLE),
        (M, {"content": [block(""), *SEARCHED, block(WHOLE)]}, WHOLE),
        (M, {"content": [block(WHOLE), *SEARCHED, block("")]}, WHOLE),
        (M, {"content": [*SEARCHED, block("nothing")]}, None),
    ],
)
def test_a_document_after_other_texts_is_the_answer(endpoint: str, body: dict[str, Any], document: str | None) -> None:
    assert kind_of(endpoint, body, prompt="p", answer_schema=SCHEMA) == (None if document else "invalid_output")
    answer = (ANTHROPIC if endpoint == M else OPENAI).answer(endpoint, json.dumps(body).encode())
    assert document is None or reading.document_in(answer) == document


@pytest.mark.parametrize(
    ("text", "document"),
    [
        ('{"s":"line one\nline two"}', {"s": "line one\nline two"}),
        ('{\n\t"s":"a\tb\\n\0c\\"\n"\n}\n', {"s": 'a\tb\n\0c"\n'}),
        ('```json\n{"s":"a"}\n```', {"s": "a"}),
        ('\n```\n{"s":"a"}```\n', {"s": "a"}),
        ('```JSON{"s":"a\nb"}```', {"s": "a\nb"}),
        ('\ufeff{"s":"a"}', {"s": "a"}),
        ('{"s":"```json\\n{}\\n```"}', {"s": "```json\n{}\n```"}),
        ('```json\n{"s":"a"}', None),
        ('{"s":"a\n', None),
        ('{"s":"a"} and more', None),
        ("```json```", None),
        ("```", None),
        ("", None),
    ],
)
def test_a_document_is_read_whatever_is_around_it_and_in_its_strings(text: str, document: Any) -> None:
    for ending, kind in (("stop", "invalid_output"), ("length", "truncated")):
        body = chat_of({"content": text}, ending)
        assert kind_of(C, body, prompt="p", answer_schema=SCHEMA) == (None if document else kind)
        found = reading.document_in(OPENAI.answer(C, json.dumps(body).encode()))
        assert found == text if document is None else json.loads(found or "") == document


@pytest.mark.parametrize("text", ['"' + '\\"' * 500_000, "```" * 300_000, '"\n' * 500_000, "\ufeff" * 300_000 + '"'])
@pytest.mark.timeout(60)
def test_no_text_takes_long_to_be_found_no_document(text: str) -> None:
    reading.document_in(Answer(text=text, endings=(text, text)))
    assert reading.endings([None, *["x"] * 300_000, *[None] * 300_000])


@pytest.mark.parametrize("endpoint", ["/v1/images/generations", "/v1/moderations", "/v1/rerank", "/v1/some/thing/new"])
@pytest.mark.parametrize(
    ("body", "answered"),
    [
        ({}, False),
        ({"created": 1, "data": []}, False),
        ({"id": "x", "model": "m", "object": "list", "results": None, "usage": {"total_tokens": 5}}, False),
        ({"code": "InternalError", "message": "busy, try again"}, False),
        ({"detail": "Rate limited"}, False),
        ({"detail": [{"msg": "field required", "loc": ["body"]}]}, False),
        ({"data": [{}, None]}, False),
        ({"data": [{"b64_json": "x"}]}, True),
        ({"results": [{"flagged": False}]}, True),
        ({"output": {"results": [{"index": 0}]}, "usage": {"total_tokens": 5}, "request_id": "x"}, True),
        ({"text": ""}, True),
        ({"score": 0}, True),
        ({"flagged": False}, True),
        ({"message": {"role": "assistant", "content": "x"}}, True),
    ],
)
def test_an_endpoint_that_is_not_read_gave_an_answer_if_it_gave_anything(
    endpoint: str, body: dict[str, Any], answered: bool
) -> None:
    assert kind_of(endpoint, body) == (None if answered else "invalid_output")


@pytest.mark.parametrize(
    ("why", "kind", "final"),
    [
        *((word, "provider_error", False) for word in ("insufficient_system_resource", "abort", "aborted", "ABORT")),
        *(
            (word, "provider_error", False)
            for word in ("network_error", "timeout", "TIMEOUT", "error", "FinishReason.ERROR")
        ),
        *((word, "refusal", True) for word in ("sensitive", "safety", "SAFETY", "recitation", "prohibited_content")),
        *(
            (word, "refusal", True)
            for word in ("BLOCKLIST", "CONTENT_FILTER", "Content-Filter", "content_filter: OTHER")
        ),
        *(
            (word, "refusal", True)
            for word in ("REFUSAL", "FinishReason.SAFETY", "FINISH_REASON_SAFETY", "contentFilter")
        ),
        *(
            (word, "invalid_output", True)
            for word in ("malformed_function_call", "MALFORMED_FUNCTION_CALL", "PAUSE_TURN")
        ),
        ("function_call_filter: MALFORMED_FUNCTION_CALL", "invalid_output", True),
        *(
            (word, "truncated", True)
            for word in ("token_limit", "LENGTH", "max_token", "MaxTokens", "finishReason_MAX_TOKENS")
        ),
        *(
            (word, None, None)
            for word in ("stop", "STOP", "end_turn", "eos", "COMPLETE", "tool_calls", "something_new", "")
        ),
        *((word, None, None) for word in ("ok: error", "stop_sequence", "x" * 5000, "error" * 5000, ":", "7")),
    ],
)
@pytest.mark.parametrize("endpoint", [C, R, M])
def test_why_an_answer_ended_is_understood_in_any_spelling(
    endpoint: str, why: str, kind: str | None, final: bool | None
) -> None:
    body = {
        C: chat_of({"content": "the contract is not val"}, why),
        R: response_of(said("the contract is not val"), incomplete_details={"reason": why}),
        M: {"content": [{"type": "text", "text": "the contract is not val"}], "stop_reason": why},
    }[endpoint]
    dialect = ANTHROPIC if endpoint == M else OPENAI
    spec = Spec(dialect=dialect.name, endpoint=endpoint, model="m", prompt="p")
    failure = Classifier(dialect, spec, PRICES).classify(dialect.result(line_of(dialect, body))).failure
    assert (failure and failure.kind) == kind
    assert failure is None or (backoff.next_status(failure, 1, 3, False, 0, 0).to is TaskStatus.FAILED) == final


@pytest.mark.parametrize("status", ["ABORTED", "timeout", "expired", "network_error"])
def test_a_response_that_was_broken_off_may_say_so_as_its_status(status: str) -> None:
    found = OPENAI.answer(R, json.dumps(response_of(said("x"), status=status)).encode())
    assert found.unfinished is ErrorKind.PROVIDER_ERROR


def test_a_message_without_content_that_ended_well_in_capitals_is_an_answer() -> None:
    assert ANTHROPIC.answer(M, b'{"content": [], "stop_reason": "END_TURN"}').text == ""


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ([said("look. ", "commentary"), said("it is 4", "final_answer")], "it is 4"),
        ([said("it is ", "final_answer"), said("look. ", "commentary"), said("4", "final_answer")], "it is 4"),
        ([said("look. ", "commentary"), said("it is 4")], "it is 4"),
        ([said("it is "), said("4")], "it is 4"),
        ([said("look. ", "commentary"), {"type": "function_call", "name": "f"}], None),
    ],
)
def test_the_text_of_a_response_is_that_of_its_final_answer(items: list[dict[str, Any]], text: str | None) -> None:
    assert OPENAI.answer(R, json.dumps(response_of(*items)).encode()).text == text


@pytest.mark.parametrize(
    ("spec", "accept", "taken"),
    [
        ({"prompt": "p"}, False, False),
        ({"prompt": "p"}, True, True),
        ({"prompt": None}, False, True),
        ({"prompt": "p", "params": {"max_completion_tokens": 16}}, False, True),
        ({"prompt": "p", "params": {"max_output_tokens": 5}}, False, True),
        ({"prompt": "p", "params": {"max_tokens": 17}}, False, False),
        ({"prompt": "p", "params": {"max_tokens": True}}, False, False),
        ({"prompt": "p", "answer_schema": {"type": "integer"}}, False, True),
        ({"prompt": "p", "answer_schema": {"type": "string"}}, True, False),
    ],
)
def test_a_cut_text_is_an_answer_where_that_is_meant(spec: dict[str, Any], accept: bool, taken: bool) -> None:
    meant = Spec(dialect="openai", endpoint=C, model="m", **spec)
    for text, wanted in (("12", taken), ("", False)):
        line = OPENAI.result(line_of(OPENAI, chat_of({"content": text}, "length")))
        failure = Classifier(OPENAI, meant, PRICES, accept_truncated=accept).classify(line).failure
        assert (failure is None) == wanted
        assert failure is None or (failure.kind, failure.code) == (ErrorKind.TRUNCATED, "length")


@BOTH
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_sound_line_with_any_bytes_changed_is_read_or_says_whose_it_is(dialect: Dialect, data: st.DataObject) -> None:
    line = bytearray(line_of(dialect, CHAT if dialect is OPENAI else CLAUDE))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(30, len(line) - 1))
        line[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    mine = spool.read_line(bytes(line), dialect, "t")
    assert mine is not None
    assert mine.task_id == 1
    spec = Spec(dialect=dialect.name, endpoint=dialect.endpoints[0], model="m", prompt="p")
    verdict = scrubbed(Classifier(dialect, spec, PRICES).classify(mine.result))
    if verdict.body is not None:
        msgspec.json.decode(verdict.body)
