"""Answers as nearly all are take a short way through the reading. It says the same as the long one, which a member beside forces."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nura_cli.dialects.base import Dialect, ResultLine
from nura_cli.dialects.vendors import dialect
from nura_cli.states import ErrorKind

OPENAI = dialect("openai")
CHAT = "/v1/chat/completions"
FIGURES: st.SearchStrategy[Any] = st.one_of(
    st.integers(-2, 40), st.sampled_from([None, True, 1.0, 1.5, "7", "x", 2**40 - 1, 2**40, 2**70, [], {}])
)
INPUT = st.dictionaries(st.sampled_from(["cached_tokens", "audio_tokens", "image_tokens"]), FIGURES)
OUTPUT = st.dictionaries(
    st.sampled_from(["reasoning_tokens", "audio_tokens", "accepted_prediction_tokens", "others"]), FIGURES
)
USAGE = st.fixed_dictionaries(
    {"prompt_tokens": FIGURES, "completion_tokens": FIGURES},
    optional={
        "total_tokens": FIGURES,
        "prompt_tokens_details": INPUT | FIGURES,
        "completion_tokens_details": OUTPUT | FIGURES,
        "num_search_queries": FIGURES,
    },
)


def body(usage: Any, **more: Any) -> bytes:
    """Return a chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}
    return json.dumps({"id": "c", "model": "gpt-4.1-mini", "choices": [choice], "usage": usage, **more}).encode()


@given(usage=USAGE, tier=st.sampled_from([None, "default", "priority", ["odd"]]))
def test_usage_is_read_the_same_with_a_figure_beside_it_that_says_nothing(usage: dict[str, Any], tier: Any) -> None:
    plain = OPENAI.answer(CHAT, body(usage, service_tier=tier))
    assert plain == OPENAI.answer(CHAT, body({**usage, "note": None}, service_tier=tier))
    assert plain.text == "Yes."


ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, "", "No.", 1, 0, True, [], ["x"], {}, {"id": "a"}, [{"type": "text", "text": "T"}]]
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.just("assistant")},
    optional={
        "content": st.sampled_from(["Yes.", "", "Yes.\n"]) | ODD,
        "refusal": ODD,
        "tool_calls": ODD | st.just([{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]),
        "function_call": ODD,
        "audio": ODD | st.just({"transcript": "Aloud."}),
        "images": ODD,
        "annotations": ODD | st.just([{"type": "url_citation"}]),
        "executed_tools": ODD,
        "others": ODD,
    },
)
CHOICE = st.fixed_dictionaries(
    {},
    optional={
        "message": MESSAGE | ODD,
        "text": ODD,
        "finish_reason": st.sampled_from(["stop", "length", "content_filter", "SAFETY", "error", "tool_calls"]) | ODD,
    },
)
SAID = {"prompt_tokens": 8, "completion_tokens": 5}


@given(
    choices=st.lists(CHOICE, max_size=2) | ODD,
    model=st.sampled_from(["gpt-4.1-mini", "gpt-4o-mini-search-preview", "gpt-4o-search-preview", None, 1]),
    tier=st.sampled_from(["default", "flex", "priority", None, 1]),
)
def test_a_chat_is_read_the_same_with_a_figure_beside_it_that_says_nothing(choices: Any, model: Any, tier: Any) -> None:
    plain, long = (
        OPENAI.answer(CHAT, body(usage, choices=choices, model=model, service_tier=tier))
        for usage in (SAID, {**SAID, "note": None})
    )
    assert plain == long


@given(message=MESSAGE, why=st.sampled_from(["stop", "length", "content_filter", None]))
def test_a_message_is_read_the_same_with_a_figure_beside_it_that_says_nothing(message: Any, why: Any) -> None:
    choices = [{"index": 0, "message": message, "finish_reason": why}]
    plain, long = (OPENAI.answer(CHAT, body(usage, choices=choices)) for usage in (SAID, {**SAID, "note": None}))
    assert plain == long


def line(response: Any, error: str, start: bytes = b"") -> bytes:
    """Return a line of results; ``error`` is JSON."""
    return start + b'{"custom_id": "t-1", "response": %b, "error": %b}' % (
        json.dumps(response).encode(),
        error.encode(),
    )


def read(document: bytes) -> ResultLine:
    """Return what a line says; of one that cannot be read without the line itself, which is kept as it came."""
    found = OPENAI.result(document)
    return found._replace(body=None) if found.error is ErrorKind.INVALID_OUTPUT else found


RESPONSES: list[Any] = [
    {"status_code": 200, "body": {"choices": []}},
    {"status_code": 200, "body": {"choices": [], "text": "é"}},
    {"status_code": 201, "body": {"error": None}},
    {"status_code": 200, "body": {"error": {"message": "no", "code": "bad"}}},
    {"status_code": 200, "body": {"error": {"code": 0, "message": "success"}, "output": ["x"]}},
    {"status_code": 400, "body": {"message": "no"}},
    {"status_code": 0, "body": {"choices": []}},
    {"status_code": "200", "body": {"choices": []}},
    {"status_code": True, "body": {"choices": []}},
    {"status_code": 200.0, "body": {"choices": []}},
    {"status_code": 200, "body": [{"choices": []}]},
    {"status_code": 200, "body": '{"choices": []}'},
    {"status_code": 200, "body": None},
    {"status_code": 200, "body": ""},
    {"status_code": 200},
    {"body": {"choices": []}},
    {},
    None,
]


@pytest.mark.parametrize("response", RESPONSES, ids=json.dumps)
def test_a_line_is_read_the_same_with_an_error_that_says_nothing(response: Any) -> None:
    plain = read(line(response, "null"))
    assert plain == read(line(response, "[]")) == read(line(response, "{}"))
    assert plain == read(line(response, "null", b"\xef\xbb\xbf "))


@pytest.mark.parametrize("text", [b"\xff", b"\xed\xa0\xbd\xed\xb8\x80", b"\\ud83d", b"\x01", b"\xc3"])
def test_a_text_that_is_no_unicode_is_mended_as_in_any_line(text: bytes) -> None:
    made = b'{"custom_id": "t-1", "response": {"status_code": 200, "body": {"text": "%b"}}, "error": %b}'
    plain = read(made % (text, b"null"))
    assert plain == read(made % (text, b"{}"))
    assert plain.body is None or plain.body.decode()


ANTHROPIC = dialect("anthropic")
WORDS: st.SearchStrategy[Any] = st.sampled_from(["", "Yes.", "é\x7f\u2028", None, 5, ["x"], {"text": "x"}, True])
KINDS: st.SearchStrategy[Any] = st.sampled_from(
    ["text", "output_text", "thinking", "reasoning", "message", "refusal", "tool_use", "function_call", "", None, 1]
)
PARTS = st.lists(st.fixed_dictionaries({"type": KINDS, "text": WORDS}, optional={"refusal": WORDS}) | WORDS, max_size=3)
MESSAGES = st.fixed_dictionaries(
    {"content": WORDS | PARTS}, optional={"type": KINDS, "refusal": WORDS, "phase": WORDS, "tool_calls": WORDS}
)
CHOICES = st.fixed_dictionaries({"message": MESSAGES | WORDS}, optional={"finish_reason": WORDS, "text": WORDS})
BODIES = st.fixed_dictionaries(
    {"model": WORDS},
    optional={
        "choices": st.lists(CHOICES | WORDS, max_size=2) | WORDS,
        "output": st.lists(MESSAGES | WORDS, max_size=3) | WORDS,
        "content": WORDS | PARTS,
        "status": WORDS,
        "stop_reason": WORDS,
        "incomplete_details": WORDS | st.just({"reason": "max_output_tokens"}),
        "usage": USAGE | FIGURES,
    },
)
USUAL = [
    (OPENAI, CHAT, {"model": "m", "choices": [{"message": {"content": "Yes."}, "finish_reason": "stop"}]}),
    (
        OPENAI,
        "/v1/responses",
        {
            "model": "m",
            "status": "stop",
            "output": [
                {"type": "reasoning", "summary": []},
                {"type": "message", "content": [{"type": "output_text", "text": "Yes."}]},
            ],
        },
    ),
    (
        ANTHROPIC,
        "/v1/messages",
        {
            "model": "m",
            "stop_reason": "stop",
            "content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Yes."}],
        },
    ),
]


@pytest.mark.parametrize(("vendor", "endpoint", "body"), USUAL)
def test_the_usual_answer_is_read_at_once(vendor: Dialect, endpoint: str, body: dict[str, Any]) -> None:
    assert vendor.said(endpoint)(body) == ("Yes.", "stop", "m")
    assert vendor.said(endpoint)(body) == _read_with_care(vendor, endpoint, body)


@given(body=BODIES | WORDS | st.lists(WORDS))
def test_what_is_read_at_once_is_what_is_read_with_care(body: Any) -> None:
    for vendor, endpoint, _ in USUAL:
        said = vendor.said(endpoint)(body)
        assert said in (None, _read_with_care(vendor, endpoint, body))


def _read_with_care(vendor: Dialect, endpoint: str, body: Any) -> tuple[Any, ...] | None:
    found = vendor.answer(endpoint, json.dumps(body).encode())
    return (found.text, found.finish_reason, found.model) if found.value is None and not found.endings else None
