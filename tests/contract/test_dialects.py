"""One suite for the dialects, and each vendor's own shapes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nura_cli import providers
from nura_cli.errors import InputError
from nura_cli.providers.base import Dialect, Spec
from nura_cli.states import ErrorKind

OPENAI, ANTHROPIC = providers.dialect("openai"), providers.dialect("anthropic")
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
        (openai_line({"status_code": 200, "body": [1]}), ErrorKind.PROVIDER_ERROR, 200, None),
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
    assert OPENAI.answer("/v1/chat/completions", json.dumps(chat).encode()).usage == (100, 60, 0, 7)
    usage = {"input_tokens": 40, "output_tokens": 7, "cache_read_input_tokens": 50, "cache_creation_input_tokens": 10}
    message = {"content": [], "usage": usage}
    assert ANTHROPIC.answer("/v1/messages", json.dumps(message).encode()).usage == (100, 50, 10, 7)


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
