"""What Anthropic makes of one request: its validation of the params, a message in its shape, and how many tokens it has."""

import hashlib
import json
from typing import Any

from nura_cli.sandbox import answers, endings, strict
from nura_cli.sandbox.openai_requests import names, text_of

PARAMS = names(
    "cache_control container diagnostics inference_geo max_tokens messages metadata model output_config service_tier"
    " stop_sequences system thinking tool_choice tools user_profile_id"
)
COUNTED = names(
    "cache_control messages model output_config speed system thinking tool_choice tools user_profile_id"
    " context_management mcp_servers"
)
"""What a request to count tokens may hold; the last two by a beta."""
SAMPLING = frozenset({"temperature", "top_p", "top_k"})
STRICT_SINCE = "2026-10-21"
"""From this ``anthropic-version`` on, sampling parameters are refused, even at their default values."""


def problem_of(params: dict[str, Any], version: str) -> str | None:
    """Return what the vendor's check of a single request says against it, or None."""
    if not _model(params):
        return "model: Field required"
    most = params.get("max_tokens")
    if most is None:
        return "max_tokens: Field required"
    if not isinstance(most, int) or isinstance(most, bool):
        return "max_tokens: Input should be a valid integer"
    if most < 1:
        return "max_tokens: Input should be greater than or equal to 1"
    known = PARAMS if version >= STRICT_SINCE else PARAMS | SAMPLING
    extra = sorted(params.keys() - known)
    if extra:
        return f"{extra[0]}: Extra inputs are not permitted"
    return _content(params)


def count_problem_of(params: dict[str, Any]) -> str | None:
    """Return what the vendor says against a request to count tokens, or None."""
    extra = sorted(params.keys() - COUNTED)
    if not _model(params):
        return "model: Field required"
    return f"{extra[0]}: Extra inputs are not permitted" if extra else _content(params)


def _model(params: dict[str, Any]) -> bool:
    return isinstance(params.get("model"), str) and bool(params["model"])


def _content(params: dict[str, Any]) -> str | None:
    """Return what is wrong with what is said, and asked for, in a request."""
    return (
        _messages(params.get("messages"))
        or _system(params.get("system"))
        or _output(params.get("output_config"))
        or _tools(params.get("tools"))
        or _choice(params)
    )


def _messages(messages: Any) -> str | None:
    if messages is None:
        return "messages: Field required"
    if not isinstance(messages, list):
        return "messages: Input should be a valid list"
    if not messages:
        return "messages: at least one message is required"
    for n, message in enumerate(messages):
        if not isinstance(message, dict):
            return f"messages.{n}: Input should be a valid dictionary"
        if message.get("role") not in ("user", "assistant", "system"):
            return f"messages.{n}.role: Input should be 'user' or 'assistant'"
        content = message.get("content")
        if not isinstance(content, str | list):
            return f"messages.{n}.content: Field required"
        if not content:
            return f"messages.{n}: all messages must have non-empty content"
        if isinstance(content, list) and not all(isinstance(one, dict) and "type" in one for one in content):
            return f"messages.{n}.content: each block needs a type"
    return None


def _system(system: Any) -> str | None:
    return None if system is None or isinstance(system, str | list) else "system: Input should be a valid string"


def _output(config: Any) -> str | None:
    if config is None:
        return None
    if not isinstance(config, dict):
        return "output_config: Input should be a valid dictionary"
    form = config.get("format")
    if form is None:
        return None
    if not isinstance(form, dict) or form.get("type") != "json_schema":
        return "output_config.format.type: Input should be 'json_schema'"
    if not isinstance(form.get("schema"), dict):
        return "output_config.format.schema: Field required"
    problem = strict.anthropic(form["schema"])
    return f"output_config.format.schema: {problem}" if problem else None


def _tools(tools: Any) -> str | None:
    if not isinstance(tools, list | None):
        return "tools: Input should be a valid list"
    for n, tool in enumerate(tools or ()):
        if not isinstance(tool, dict):
            return f"tools.{n}: Input should be a valid dictionary"
        if tool.get("type") not in (None, "custom"):
            continue  # one of the vendor's own, which has a shape of its own
        if not isinstance(tool.get("name"), str) or not tool["name"]:
            return f"tools.{n}.custom.name: Field required"
        if not isinstance(tool.get("input_schema"), dict):
            return f"tools.{n}.custom.input_schema: Field required"
        problem = strict.anthropic(tool["input_schema"]) if tool.get("strict") is True else None
        if problem:
            return f"tools.{n}.custom.input_schema: {problem}"
    return None


def _choice(params: dict[str, Any]) -> str | None:
    choice, tools = params.get("tool_choice"), params.get("tools") or []
    if choice is None:
        return None
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind not in ("auto", "any", "tool", "none"):
        return "tool_choice.type: Input should be 'auto', 'any', 'tool' or 'none'"
    if kind not in ("any", "tool"):
        return None
    if not tools:
        return "tool_choice: may only be specified while providing tools"
    if kind == "tool" and choice.get("name") not in [tool.get("name") for tool in tools]:
        return f"tool_choice.name: Tool '{choice.get('name')}' not found in provided tools"
    thinking = params.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") == "enabled":
        return "Thinking may not be enabled when tool_choice forces tool use."
    return None


def _forced(params: dict[str, Any]) -> dict[str, Any] | None:
    """Return the tool that must be called, or None.

    It is the one that ``tool_choice`` names, or with ``any`` the first that has a schema: the vendor's own have none.
    """
    choice, tools = params.get("tool_choice") or {}, params.get("tools") or []
    if choice.get("type") == "tool":
        return next((tool for tool in tools if tool.get("name") == choice.get("name")), None)
    return next((tool for tool in tools if "input_schema" in tool), None) if choice.get("type") == "any" else None


def count(params: dict[str, Any]) -> int:
    """Return how many input tokens a request has; a batch is billed as many."""
    asked = answers.written(_schema(params)) + answers.written(params.get("tools"))
    messages = len(params["messages"]) + bool(params.get("system"))
    said = text_of(params.get("system")) + text_of(params["messages"])
    return answers.tokens(said + asked) + answers.MESSAGE_TOKENS * messages


def _schema(params: dict[str, Any]) -> Any:
    """Return the schema that the answer must fit, or None."""
    return ((params.get("output_config") or {}).get("format") or {}).get("schema")


def respond(params: dict[str, Any], mode: str | None) -> tuple[dict[str, Any], tuple[int, int]]:
    """Return a message and the tokens it is billed (input, output); ``mode`` as in :func:`nura_cli.sandbox.answers.speak`."""
    ident = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:24]
    forced = _forced(params)
    schema = _schema(params)
    if forced:
        schema = {"type": "object", **(forced.get("input_schema") or {"properties": {}})}
    said = answers.speak(text_of(params["messages"][-1]["content"]), schema, params["max_tokens"], mode)
    usage = (count(params), said.tokens)
    called = forced if said.reason != "refusal" else None
    stop = "tool_use" if called else "end_turn"
    message = {
        "id": f"msg_{ident}",
        "type": "message",
        "role": "assistant",
        "model": params["model"],
        "content": [_call(called["name"], said.text, ident)] if called else _words(said.text),
        "stop_reason": {"stop": stop, "length": "max_tokens", "refusal": "refusal"}[said.reason],
        "stop_sequence": None,
        "usage": {
            "input_tokens": usage[0],
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens": usage[1],
            "service_tier": "batch",
        },
    }
    return endings.anthropic(message, mode), usage


def _words(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}] if text else []


def _call(name: str, text: str, ident: str) -> dict[str, Any]:
    """Return the block of a tool's call. Its input is an object whatever was said: empty where that is cut, or none."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    return {"type": "tool_use", "id": f"toolu_{ident}", "name": name, "input": found if isinstance(found, dict) else {}}
