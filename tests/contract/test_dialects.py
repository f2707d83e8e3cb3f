"""One suite for the dialects, and each vendor's own shapes."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nura_cli import clock
from nura_cli.delivery import events
from nura_cli.dialects import anthropic, openai, reading, vendors
from nura_cli.dialects.base import Dialect, Phase, Rejection, Spec
from nura_cli.errors import InputError
from nura_cli.pipeline import backoff, settle
from nura_cli.pipeline.classify import Classifier, scrubbed
from nura_cli.pricing import Prices, Usage
from nura_cli.providers import wire
from nura_cli.states import ErrorKind, Reason

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
    assert settle.describe(found.faults)


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
@given(model=st.text(), tokens=st.lists(st.integers() | st.integers(0, 10**9), min_size=4, max_size=4))
def test_any_model_and_any_usage_has_a_price_or_none(model: str, tokens: list[int]) -> None:
    for prices, name in ((PRICES, model), (PRICES, "gpt-4.1-mini"), (Prices("anthropic"), "claude-haiku-4-5")):
        cost = prices.cost(name, Usage(*tokens))
        assert cost is None or 0 <= cost.paid <= cost.list < LARGEST
