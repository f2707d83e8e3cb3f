"""Tools that a request forces: the answer is a call whose arguments fit the tool's schema, in each endpoint's shape."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from anthropic import Anthropic
from anthropic.types import Message
from openai import OpenAI
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from nura_cli.sandbox import Sandbox
from tests.contract.sandbox_clients import anthropic_client, ask, chat, finish, openai_client, results, rows, run

SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "enum": ["billing", "bug", "praise"]},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/part"}},
    },
    "required": ["label", "parts"],
    "additionalProperties": False,
    "$defs": {
        "part": {
            "type": "object",
            "properties": {"n": {"type": "integer"}},
            "required": ["n"],
            "additionalProperties": False,
        }
    },
}
MESSAGES = [{"role": "user", "content": "There is a bug in the export."}]
LABEL = {"name": "label", "description": "Label it.", "parameters": SCHEMA}
OTHER = {"name": "other", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}}
CHAT_TOOLS = [{"type": "function", "function": one} for one in (OTHER, LABEL)]
RESPONSE_TOOLS = [{"type": "web_search"}, *({"type": "function", **one} for one in (OTHER, LABEL))]


@pytest.fixture
def openai_api(server: Sandbox) -> Iterator[OpenAI]:
    with openai_client(server) as made:
        yield made


@pytest.fixture
def anthropic_api(server: Sandbox) -> Iterator[Anthropic]:
    with anthropic_client(server) as made:
        yield made


def chatted(client: OpenAI, **body: Any) -> Any:
    """Return the answer to a chat request, parsed by the SDK, or the body of its error."""
    return _answer(client, chat(1, messages=MESSAGES, **body), ChatCompletion)


def responded(client: OpenAI, **body: Any) -> Any:
    """Return the answer to a Responses request, likewise."""
    line = {"custom_id": "c1", "method": "POST", "url": "/v1/responses"}
    return _answer(client, {**line, "body": {"model": "m", "input": "There is a bug.", **body}}, Response)


def _answer(client: OpenAI, line: dict[str, Any], kind: Any) -> Any:
    batch = run(client, [line], line["url"])
    row = rows(client, batch.output_file_id or batch.error_file_id)["c1"]["response"]
    return kind.model_validate(row["body"]) if row["status_code"] == 200 else row["body"]["error"]


def fits(arguments: Any, schema: dict[str, Any] = SCHEMA) -> Any:
    """Return arguments, asserting that they fit a schema."""
    found = json.loads(arguments) if isinstance(arguments, str) else arguments
    jsonschema_rs.validate(schema, found)
    return found


# Chat


@pytest.mark.parametrize(
    ("choice", "name", "reason"),
    [
        ({"type": "function", "function": {"name": "label"}}, "label", "stop"),
        ("required", "other", "tool_calls"),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [CHAT_TOOLS[1]]}},
            "label",
            "tool_calls",
        ),
    ],
)
def test_chat_calls_the_tool_that_is_forced(openai_api: OpenAI, choice: Any, name: str, reason: str) -> None:
    said = chatted(openai_api, tools=CHAT_TOOLS, tool_choice=choice, n=2)
    calls = [one.message.tool_calls[0] for one in said.choices]
    assert [(call.type, call.function.name) for call in calls] == [("function", name)] * 2
    assert calls[0].id != calls[1].id
    found = fits(calls[0].function.arguments, SCHEMA if name == "label" else OTHER["parameters"])  # type: ignore[arg-type]
    assert name == "other" or found["label"] == "bug"
    assert {one.finish_reason for one in said.choices} == {reason}
    assert {one.message.content for one in said.choices} == {None}
    assert said.usage.completion_tokens > 5


@pytest.mark.parametrize(
    "choice",
    [None, "auto", "none", {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [CHAT_TOOLS[0]]}}],
)
def test_a_tool_that_is_not_forced_is_not_called(openai_api: OpenAI, choice: Any) -> None:
    said = chatted(openai_api, tools=CHAT_TOOLS, tool_choice=choice).choices[0]
    assert said.message.tool_calls is None
    assert "bug" in said.message.content
    assert said.finish_reason == "stop"


def test_the_older_functions_and_custom_tools_are_called_likewise(openai_api: OpenAI) -> None:
    older = chatted(openai_api, functions=[OTHER, LABEL], function_call={"name": "label"}).choices[0]
    assert older.message.function_call.name == "label"
    assert fits(older.message.function_call.arguments)["label"] == "bug"
    custom = {"type": "custom", "custom": {"name": "shell"}}
    said = chatted(openai_api, tools=[custom], tool_choice=custom).choices[0].message.tool_calls[0]
    assert (said.type, said.custom.name) == ("custom", "shell")
    assert "bug" in said.custom.input


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "sometimes", "tools": CHAT_TOOLS}, "tool_choice"),
        ({"tool_choice": 5, "tools": CHAT_TOOLS}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "none"}}, "tools": CHAT_TOOLS}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools"}, "tools": CHAT_TOOLS}, "tool_choice"),
        ({"tools": "label"}, "tools"),
        ({"tools": [{"function": LABEL}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function.name"),
        ({"function_call": {"name": "none"}, "functions": [LABEL]}, "function_call"),
        ({"tools": [{"type": "function", "function": {**OTHER, "strict": True}}]}, "tools[0].function.parameters"),
    ],
)
def test_a_choice_or_a_tool_that_makes_no_sense_is_refused(
    openai_api: OpenAI, body: dict[str, Any], param: str
) -> None:
    error = chatted(openai_api, **body)
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


@pytest.mark.parametrize("parameters", [None, {}, {"properties": {}}, {"type": "object"}])
def test_a_tool_without_parameters_is_called_with_none(openai_api: OpenAI, parameters: Any) -> None:
    tool = {"type": "function", "function": {"name": "ping", "parameters": parameters}}
    said = chatted(openai_api, tools=[tool], tool_choice=tool).choices[0]
    assert json.loads(said.message.tool_calls[0].function.arguments) == {}


# Responses


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ({"type": "function", "name": "label"}, "label"),
        ("required", "other"),
        ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "label"}]}, "label"),
    ],
)
def test_responses_call_the_tool_that_is_forced(openai_api: OpenAI, choice: Any, name: str) -> None:
    said = responded(openai_api, tools=RESPONSE_TOOLS, tool_choice=choice)
    (call,) = said.output
    assert (call.type, call.name, call.status, said.status) == ("function_call", name, "completed", "completed")
    assert call.call_id != call.id
    fits(call.arguments, SCHEMA if name == "label" else OTHER["parameters"])  # type: ignore[arg-type]
    assert said.output_text == ""
    assert len(said.tools) == 3


def test_what_is_the_vendors_own_is_not_called_and_what_is_in_a_namespace_is(openai_api: OpenAI) -> None:
    own = [{"type": "web_search"}]
    for choice in ("required", "auto", {"type": "web_search_preview"}):
        assert "bug" in responded(openai_api, tools=own, tool_choice=choice).output_text
    space = [{"type": "namespace", "name": "n", "description": "", "tools": [{"type": "function", **LABEL}]}]
    (call,) = responded(openai_api, tools=space, tool_choice={"type": "function", "name": "label"}).output
    assert fits(call.arguments)["label"] == "bug"
    custom = {"type": "custom", "name": "shell"}
    (call,) = responded(openai_api, tools=[custom], tool_choice=custom).output
    assert (call.type, call.name) == ("custom_tool_call", "shell")
    assert "none" in responded(openai_api, tools=own, tool_choice={"type": "function", "name": "none"})["message"]


# Anthropic

TOOLS = [
    {"name": "other", "input_schema": OTHER["parameters"]},
    {"name": "label", "description": "Label it.", "input_schema": SCHEMA},
]


def messages(client: Anthropic, **params: Any) -> Any:
    """Return the one result of a batch of one request."""
    return results(client, finish(client, [ask(1, messages=MESSAGES, **params)]).id)["a1"]


@pytest.mark.parametrize(("choice", "name"), [({"type": "tool", "name": "label"}, "label"), ({"type": "any"}, "other")])
def test_a_message_calls_the_tool_that_is_forced(anthropic_api: Anthropic, choice: Any, name: str) -> None:
    message: Message = messages(anthropic_api, tools=TOOLS, tool_choice=choice).message
    (block,) = message.content
    assert block.type == "tool_use"
    assert (block.name, message.stop_reason) == (name, "tool_use")
    assert block.id.startswith("toolu_")
    found = fits(block.input, SCHEMA if name == "label" else OTHER["parameters"])  # type: ignore[arg-type]
    assert name == "other" or found["label"] == "bug"


@pytest.mark.parametrize("choice", [None, {"type": "auto"}, {"type": "none"}])
def test_a_message_is_words_where_no_tool_is_forced(anthropic_api: Anthropic, choice: Any) -> None:
    given = {} if choice is None else {"tool_choice": choice}
    message = messages(anthropic_api, tools=TOOLS, **given).message
    assert (message.content[0].type, message.stop_reason) == ("text", "end_turn")


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"tool_choice": {"type": "any"}}, "tools"),
        ({"tool_choice": {"type": "tool", "name": "none"}, "tools": TOOLS}, "'none' not found"),
        ({"tool_choice": "any", "tools": TOOLS}, "tool_choice.type"),
        ({"tools": "label"}, "tools: Input should be a valid list"),
        ({"tools": [5]}, "tools.0: "),
        ({"tools": [{"name": "x"}]}, "tools.0.custom.input_schema: Field required"),
        ({"tools": [{**TOOLS[0], "strict": True}]}, "additionalProperties"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "any"}, "thinking": {"type": "enabled", "budget_tokens": 1024}},
            "Thinking may not be enabled",
        ),
    ],
)
def test_a_message_whose_tools_make_no_sense_is_errored(
    anthropic_api: Anthropic, params: dict[str, Any], words: str
) -> None:
    result = messages(anthropic_api, **params)
    assert (result.type, result.error.error.type) == ("errored", "invalid_request_error")
    assert words in result.error.error.message


# What goes wrong


def test_a_call_may_be_cut_refused_or_wrong(openai_api: OpenAI, anthropic_api: Anthropic, server: Sandbox) -> None:
    forced = {"tools": CHAT_TOOLS, "tool_choice": CHAT_TOOLS[1]}
    cut = chatted(openai_api, **forced, max_completion_tokens=3).choices[0]
    assert cut.finish_reason == "length"
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads(cut.message.tool_calls[0].function.arguments)
    ours = {"tools": TOOLS, "tool_choice": {"type": "any"}}
    message = messages(anthropic_api, **ours, max_tokens=2).message
    assert (message.stop_reason, message.content[0].input) == ("max_tokens", {})
    server.control.fault("invalid", mode="refusal", times=2)
    refused = chatted(openai_api, **forced).choices[0].message
    assert (refused.tool_calls, bool(refused.refusal)) == (None, True)
    message = messages(anthropic_api, **ours).message
    assert (message.stop_reason, message.content[0].type) == ("refusal", "text")
    server.control.fault("invalid", mode="schema")
    wrong = chatted(openai_api, **forced).choices[0].message.tool_calls[0]
    assert json.loads(wrong.function.arguments) == {"unexpected": True}


ODD: list[Any] = [
    {"type": "object", "properties": {"a": {"type": "string", "minLength": "many"}}},
    {"type": "object", "properties": {"a": {"type": "string", "minLength": 10**12}}},
    {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer"}, "minItems": 10**12}}},
    {"type": "object", "properties": [1]},
    {"type": "object", "properties": {"a": {"type": "integer", "minimum": "low"}}},
    {"type": "object", "properties": {"a": {"type": "integer", "multipleOf": 0}}},
    {"type": "object", "properties": {}, "required": 7},
    {"type": "object", "allOf": [1]},
]


@pytest.mark.parametrize("schema", ODD, ids=lambda schema: json.dumps(schema)[:60])
def test_a_schema_that_is_none_fails_its_request_alone(
    openai_api: OpenAI, anthropic_api: Anthropic, schema: Any
) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    batch = run(openai_api, [chat(1, tools=[tool], tool_choice=tool), chat(2)])
    assert rows(openai_api, batch.error_file_id)["c1"]["response"]["status_code"] == 400
    assert rows(openai_api, batch.output_file_id).keys() == {"c2"}
    ours = {"tools": [{"name": "f", "input_schema": schema}], "tool_choice": {"type": "any"}}
    found = results(anthropic_api, finish(anthropic_api, [ask(1, **ours), ask(2)]).id)
    assert [found[name].type for name in ("a1", "a2")] == ["errored", "succeeded"]
