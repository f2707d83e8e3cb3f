"""What Anthropic makes of one request of a batch: its validation of the params, and a message in its shape."""

import hashlib
import json
from typing import Any

from nura_cli.sandbox import answers, endings, strict
from nura_cli.sandbox.openai_requests import names, text_of

PARAMS = names(
    "cache_control container diagnostics inference_geo max_tokens messages metadata model output_config service_tier"
    " stop_sequences system thinking tool_choice tools user_profile_id"
)
SAMPLING = frozenset({"temperature", "top_p", "top_k"})
STRICT_SINCE = "2026-10-21"
"""From this ``anthropic-version`` on, sampling parameters are refused, even at their default values."""


def problem_of(params: dict[str, Any], version: str) -> str | None:
    """Return what the vendor's check of a single request says against it, or None."""
    if not isinstance(params.get("model"), str) or not params["model"]:
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
    return _messages(params.get("messages")) or _system(params.get("system")) or _output(params.get("output_config"))


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


def respond(params: dict[str, Any], mode: str | None) -> tuple[dict[str, Any], tuple[int, int]]:
    """Return a message and the tokens it is billed (input, output); ``mode`` as in :func:`nura_cli.sandbox.answers.speak`."""
    ident = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:24]
    messages = params["messages"]
    schema = ((params.get("output_config") or {}).get("format") or {}).get("schema")
    said = answers.speak(text_of(messages[-1]["content"]), schema, params["max_tokens"], mode)
    usage = (answers.tokens(text_of(params.get("system")) + text_of(messages)), said.tokens)
    message = {
        "id": f"msg_{ident}",
        "type": "message",
        "role": "assistant",
        "model": params["model"],
        "content": [{"type": "text", "text": said.text}] if said.text else [],
        "stop_reason": {"stop": "end_turn", "length": "max_tokens", "refusal": "refusal"}[said.reason],
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
