"""What a request's body says of what it may cost: all that is read, no bound where one cannot be told, and never an error."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nura_cli.dialects import vendors
from nura_cli.dialects.base import Dialect, Measure, Spec
from nura_cli.dialects.measures import estimate_input, most_input

OPENAI, ANTHROPIC = vendors.dialect("openai"), vendors.dialect("anthropic")
CHAT, RESPONSES, EMBEDDINGS, MESSAGES = (*OPENAI.endpoints, *ANTHROPIC.endpoints)
COMPLETIONS, MODERATIONS = "/v1/completions", "/v1/moderations"
EACH = pytest.mark.parametrize("endpoint", [CHAT, RESPONSES, EMBEDDINGS, MESSAGES, COMPLETIONS, MODERATIONS])
PROMPTED = pytest.mark.parametrize("endpoint", [CHAT, RESPONSES, MESSAGES])
SCHEMA = {
    "type": "object",
    "properties": {"größe": {"type": "string", "enum": ["1", "2"]}},
    "required": ["größe"],
    "additionalProperties": False,
}
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(("type", "text", "content", "role", "input", "x")), inner, max_size=4)
    ),
    max_leaves=12,
)


def dialect_of(endpoint: str) -> Dialect:
    return ANTHROPIC if endpoint == MESSAGES else OPENAI


def measured(endpoint: str, **body: Any) -> Measure:
    """Return what a body with these members says."""
    return dialect_of(endpoint).measure(endpoint, json.dumps(body).encode())


def plain(endpoint: str, text: str = "hi") -> dict[str, Any]:
    """Return a body of which a bound is known."""
    message = [{"role": "user", "content": text}]
    members: dict[str, dict[str, Any]] = {
        CHAT: {"messages": message, "max_completion_tokens": 50},
        RESPONSES: {"input": text, "max_output_tokens": 50},
        EMBEDDINGS: {"input": text},
        MESSAGES: {"messages": message, "max_tokens": 50},
        COMPLETIONS: {"prompt": text, "max_tokens": 50},
        MODERATIONS: {"input": text},
    }
    return {"model": "m", **members[endpoint]}


@EACH
@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_all_of_a_text_counts_and_nothing_that_json_puts_around_it(endpoint: str, text: str) -> None:
    found = measured(endpoint, **plain(endpoint, text))
    assert found.text == len(text.encode())
    assert found.digits == sum(c in "0123456789" for c in text)
    assert (found.most_output, found.unbounded) == (0 if endpoint in (EMBEDDINGS, MODERATIONS) else 50, None)
    assert most_input(found) > len(text.encode())


@PROMPTED
@given(system=st.none() | st.text(alphabet="aé1\n", max_size=20), prompt=st.text(alphabet='a"ü世7', max_size=40))
def test_what_nura_renders_counts_with_its_system_text_and_schema(
    endpoint: str, system: str | None, prompt: str
) -> None:
    dialect = dialect_of(endpoint)
    limit = "max_output_tokens" if endpoint == RESPONSES else "max_tokens"
    spec = Spec(dialect=dialect.name, endpoint=endpoint, model="m", system=system, params={limit: 7})
    bare = dialect.measure(endpoint, dialect.body(spec)(prompt))
    assert bare.text == len(f"{system or ''}{prompt}".encode())
    assert (bare.most_output, bare.unbounded, bare.hidden) == (7, None, False)
    shaped = Spec(**{name: getattr(spec, name) for name in spec.__struct_fields__} | {"answer_schema": SCHEMA})
    found = dialect.measure(endpoint, dialect.body(shaped)(prompt))
    more = len(json.dumps(SCHEMA, ensure_ascii=False, separators=(",", ":")).encode())
    assert more <= found.text - bare.text <= more + 60  # with its name
    assert (found.unbounded, found.hidden) == (None, True)
    assert most_input(found) >= most_input(bare) + more + 1000


@EACH
@pytest.mark.parametrize("option", ["new_option", "tool_resources", "max_tokenz", "\x1b[31m" + "x" * 500])
def test_of_what_nura_does_not_know_no_bound_is_known(endpoint: str, option: str) -> None:
    found = measured(endpoint, **plain(endpoint), **{option: 1})
    assert found.unbounded is not None
    assert found.unbounded.startswith("sets ")
    assert found.unbounded.isprintable()
    assert len(found.unbounded) < 200
    assert measured(endpoint, **plain(endpoint), **{option: None}).unbounded is None


@pytest.mark.parametrize(
    ("endpoint", "members", "words"),
    [
        (CHAT, {"n": 3}, "sets n to 3"),
        (COMPLETIONS, {"best_of": 2}, "sets best_of to 2"),
        (CHAT, {"modalities": ["text", "audio"]}, "sets modalities to"),
        (CHAT, {"web_search_options": {"search_context_size": "low"}}, "sets web_search_options"),
        (CHAT, {"prediction": {"type": "content", "content": "x"}}, "sets prediction"),
        (CHAT, {"service_tier": "priority"}, "sets service_tier to priority"),
        (CHAT, {"max_completion_tokens": 0}, "which limits nothing"),
        (CHAT, {"max_tokens": -1}, "which limits nothing"),
        (CHAT, {"max_tokens": True}, "which limits nothing"),
        (CHAT, {"max_tokens": "50"}, "which limits nothing"),
        (CHAT, {"max_tokens": 10**18}, "which limits nothing"),
        (CHAT, {"n": "3"}, "a n of a form"),
        (CHAT, {"messages": {"role": "user"}}, "messages of a form"),
        (CHAT, {"messages": ["hi"]}, "messages of a form"),
        (CHAT, {"messages": [{"role": "user", "content": 5}]}, "content of a form"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "image_url in its content"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input_audio in its content"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "file"}]}]}, "file in its content"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": ["text"]}]}]}, "content of a form"),
        (CHAT, {"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, "sets audio"),
        (CHAT, {"tools": [{"type": "web_search"}]}, "web_search in its tools"),
        (CHAT, {"prompt_cache_options": {"ttl": "24h"}}, "sets ttl to 24h"),
        (RESPONSES, {"previous_response_id": "r"}, "sets previous_response_id"),
        (RESPONSES, {"conversation": "c"}, "sets conversation"),
        (RESPONSES, {"prompt": {"id": "p"}}, "sets prompt"),
        (RESPONSES, {"reasoning": {"mode": "pro"}}, "sets mode to pro"),
        (RESPONSES, {"input": [{"type": "item_reference", "id": "i"}]}, "item_reference in its input"),
        (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input_file in its content"),
        (RESPONSES, {"input": [{"type": "reasoning", "encrypted_content": "x"}]}, "reasoning in its input"),
        *(
            (RESPONSES, {"tools": [{"type": kind}]}, f"{kind} in its tools")
            for kind in ("web_search", "file_search", "code_interpreter", "computer_use_preview", "mcp")
        ),
        (EMBEDDINGS, {"input": [{"image": "x"}]}, "input of a form"),
        (MODERATIONS, {"input": [{"type": "image_url"}]}, "image_url in its input"),
        (MESSAGES, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "web_search_20250305"),
        (MESSAGES, {"tools": [{"type": "bash_20250124", "name": "bash"}]}, "bash_20250124 in its tools"),
        (MESSAGES, {"mcp_servers": [{"url": "https://x.example"}]}, "sets mcp_servers"),
        (MESSAGES, {"container": "c"}, "sets container"),
        (MESSAGES, {"context_management": {"edits": [1]}}, "sets context_management"),
        (MESSAGES, {"inference_geo": "us"}, "sets inference_geo to us"),
        (MESSAGES, {"speed": "fast"}, "sets speed to fast"),
        (MESSAGES, {"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "document in its content"),
        (MESSAGES, {"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "image in its content"),
        (MESSAGES, {"cache_control": {"type": "ephemeral", "ttl": "1d"}}, "sets ttl to 1d"),
        (MESSAGES, {"thinking": {"type": "enabled", "budget_tokens": 50}}, "may think for longer"),
    ],
)
def test_why_no_bound_is_known_is_said(endpoint: str, members: dict[str, Any], words: str) -> None:
    assert words in (measured(endpoint, **{**plain(endpoint), **members}).unbounded or "")


@pytest.mark.parametrize(
    ("endpoint", "members"),
    [
        (CHAT, {"temperature": 0, "seed": 1, "stop": ["x"], "store": False, "metadata": {"a": "b"}, "n": 1}),
        (CHAT, {"service_tier": "flex", "modalities": ["text"], "reasoning_effort": "low", "verbosity": "low"}),
        (CHAT, {"response_format": {"type": "json_object"}, "tools": [], "max_tokens": None}),
        (CHAT, {"prompt_cache_options": {"mode": "explicit", "ttl": "30m"}, "prompt_cache_key": "k"}),
        (RESPONSES, {"reasoning": {"effort": "low", "summary": "auto"}, "include": [], "truncation": "auto"}),
        (RESPONSES, {"text": {"format": {"type": "text"}, "verbosity": "low"}, "tools": None}),
        (MESSAGES, {"thinking": {"type": "enabled", "budget_tokens": 49}, "metadata": {"user_id": "u"}}),
        (MESSAGES, {"output_config": {"effort": "low"}, "service_tier": "standard_only", "stop_sequences": ["x"]}),
        (EMBEDDINGS, {"dimensions": 5, "encoding_format": "float"}),
    ],
)
def test_what_changes_neither_input_nor_price_leaves_the_bound_as_it_is(endpoint: str, members: dict[str, Any]) -> None:
    assert measured(endpoint, **{**plain(endpoint), **members}) == measured(endpoint, **plain(endpoint))


@PROMPTED
def test_parts_of_a_conversation_and_tools_of_the_callers_own_count(endpoint: str) -> None:
    ask, said = {"type": "object", "properties": {"q": {"type": "string"}}}, '{"q":"2"}'
    bodies: dict[str, dict[str, Any]] = {
        CHAT: {
            "messages": [
                {"role": "system", "content": "abc"},
                {"role": "user", "content": [{"type": "text", "text": "déf"}], "name": "gh"},
                {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": said}}]},
                {"role": "tool", "tool_call_id": "c", "content": "ij"},
            ],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": ask}}],
        },
        RESPONSES: {
            "instructions": "abc",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "défgh"}]},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": said},
                {"type": "function_call_output", "call_id": "c", "output": "ij"},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "kl"}]},
            ],
            "tools": [{"type": "function", "name": "f", "parameters": ask, "strict": True}],
        },
        MESSAGES: {
            "system": [{"type": "text", "text": "abc"}],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "défgh"}]},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"q": "2"}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "ij"}]},
                {"role": "assistant", "content": "kl"},
            ],
            "tools": [{"name": "f", "input_schema": ask}],
        },
    }
    found = measured(endpoint, **{**plain(endpoint), **bodies[endpoint]})
    least = len("abcdéfghij".encode()) + len(said) + len(json.dumps(ask, separators=(",", ":")))
    assert least <= found.text <= least + 80
    parts = {CHAT: 6, RESPONSES: 11, MESSAGES: 9}[endpoint]  # messages, and what they and the tools are made of
    assert (found.unbounded, found.messages, found.hidden, found.digits) == (None, parts, True, 1)


def test_every_answer_and_every_prompt_has_its_output() -> None:
    assert measured(CHAT, **plain(CHAT), n=3).most_output == 150
    assert measured(CHAT, **plain(CHAT), max_tokens=60).most_output == 60
    several = {"model": "m", "prompt": ["a", "bc"], "max_tokens": 5, "best_of": 3, "n": 2}
    found = measured(COMPLETIONS, **several)
    assert (found.most_output, found.text, found.messages) == (30, 3, 2)


@PROMPTED
def test_without_a_maximum_there_is_no_most_output(endpoint: str) -> None:
    limits = ("max_completion_tokens", "max_output_tokens", "max_tokens")
    found = measured(endpoint, **{name: value for name, value in plain(endpoint).items() if name not in limits})
    assert (found.most_output, found.unbounded) == (None, None)


@pytest.mark.parametrize(("given", "tokens", "messages"), [([1, 2, 3], 3, 1), ([[1, 2], [3]], 3, 2), ([[]], 0, 1)])
def test_input_that_is_given_as_tokens_counts_as_so_many(given: Any, tokens: int, messages: int) -> None:
    found = measured(EMBEDDINGS, model="m", input=given)
    assert found == Measure(most_output=0, writes=True, tokens=tokens, messages=messages)
    assert most_input(found) > estimate_input(found) >= tokens


@pytest.mark.parametrize(
    ("members", "writes"),
    [
        ({}, (False, False)),
        ({"cache_control": {"type": "ephemeral"}}, (True, False)),
        (
            {"system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]},
            (True, True),
        ),
        (
            {"tools": [{"name": "f", "input_schema": {}, "cache_control": {"type": "ephemeral", "ttl": "5m"}}]},
            (True, False),
        ),
        ({"system": 'no "cache_control": {"ttl": "1h"}'}, (False, False)),
    ],
    ids=["none", "whole", "hour", "tool", "words"],
)
def test_what_is_written_to_a_cache_is_what_the_request_marks(
    members: dict[str, Any], writes: tuple[bool, bool]
) -> None:
    found = measured(MESSAGES, **plain(MESSAGES), **members)
    assert (found.writes, found.writes_1h, found.unbounded) == (*writes, None)


def test_some_vendors_write_to_the_cache_unasked() -> None:
    found = measured(CHAT, **plain(CHAT))
    assert (found.writes, found.writes_1h) == (True, False)


@pytest.mark.parametrize("endpoint", ["/v1/images/generations", "/v1/videos", "/v1/chat/ds-test", "", "/\n" * 99])
def test_of_other_endpoints_no_bound_is_known(endpoint: str) -> None:
    found = OPENAI.measure(endpoint, json.dumps(plain(CHAT)).encode())
    assert found.unbounded is not None
    assert found.unbounded.isprintable()
    assert OPENAI.measure("/openai/chat/completions", json.dumps(plain(CHAT)).encode()).unbounded is None


@EACH
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"7", b'"x"', b"\xff", b"[" * 5000, b'{"input":1e999}'])
def test_what_is_no_request_is_unbounded_and_no_error(endpoint: str, body: bytes) -> None:
    assert dialect_of(endpoint).measure(endpoint, body).unbounded


@EACH
@given(st.data())
def test_odd_shapes_are_no_error(endpoint: str, data: st.DataObject) -> None:
    body = plain(endpoint)
    names = [*body, "tools", "system", "instructions", "response_format", "text", "thinking", "n", "cache_control"]
    body |= data.draw(st.dictionaries(st.sampled_from(names), documents, max_size=4))
    found = measured(endpoint, **body)
    assert 0 <= found.digits <= found.text
    assert 0 <= estimate_input(found) <= most_input(found)
    assert found.unbounded is None or found.unbounded.isprintable()


def test_deeply_nested_schemas_are_no_error() -> None:
    deep = b'{"a":' * 400 + b"1" + b"}" * 400
    body = b'{"model":"m","messages":[],"max_tokens":5,"tools":[{"name":"f","input_schema":%b}]}' % deep
    assert ANTHROPIC.measure(MESSAGES, body).text >= len(deep)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("The quick brown fox jumps over the lazy dog. " * 20, 203), ("20261126" * 100, 507), ("世界" * 300, 398)],
    ids=["english", "numbers", "chinese"],
)
def test_the_first_estimate_goes_by_bytes_of_text_and_by_digits(text: str, tokens: int) -> None:
    """English and Chinese have about 4.6 bytes a token, numbers 1.6; and there are a few tokens around each message."""
    assert estimate_input(measured(CHAT, **plain(CHAT, text))) == tokens
