"""What Anthropic's requests may come to: the members that are known of a message, and what they mean for the cost.

From the API reference and the SDK's parameters. What reads elsewhere (files, pictures, documents), runs at the vendor (its tools,
MCP servers, containers), or has a price of its own (regions, speed) is left out on purpose: of that no bound is known.
"""

from typing import Any

from nura_cli.dialects.measures import (
    Measure,
    Members,
    Tally,
    document,
    each,
    limit,
    measured,
    members,
    only,
    schema,
    setting,
    text,
    text_or,
    typed,
    walk,
)


def _cached(tally: Tally, name: str, value: Any) -> None:
    """Note that input is written to the cache, and for how long (Prompt caching guide: five minutes or an hour)."""
    tally.writes = True
    tally.writes_1h |= isinstance(value, dict) and value.get("ttl") == "1h"
    walk(tally, name, value, {"type": only("ephemeral"), "ttl": only("5m", "1h")})


def _thinking(tally: Tally, name: str, value: Any) -> None:
    """Note how many tokens may be spent on thoughts: fewer than max_tokens, but where tools are called in between, up to all that
    the model can hold (Extended thinking guide, interleaved thinking).
    """
    walk(tally, name, value, {"type": setting, "display": setting, "budget_tokens": setting})
    budget = value.get("budget_tokens") if isinstance(value, dict) else None
    tally.thoughts = budget if type(budget) is int else 0


_BLOCK: Members = {"type": setting, "cache_control": _cached}
_TEXT: Members = {**_BLOCK, "text": text}
_TEXTS = text_or(typed({"text": _TEXT}))
_BLOCKS = {
    "text": _TEXT,
    "tool_use": {**_BLOCK, "id": setting, "name": text, "input": document},
    "tool_result": {**_BLOCK, "tool_use_id": setting, "is_error": setting, "content": _TEXTS},
}
_TOOL: Members = {
    **_BLOCK,
    "name": text,
    "description": text,
    "input_schema": schema,
    "input_examples": document,
    "strict": setting,
    "eager_input_streaming": setting,
}
_MESSAGES: Members = {
    **dict.fromkeys(("model", "temperature", "top_k", "top_p", "stop_sequences", "stream"), setting),
    **dict.fromkeys(("metadata", "user_profile_id", "tool_choice"), setting),
    "messages": each(members({"role": setting, "content": text_or(typed(_BLOCKS))})),
    "system": _TEXTS,
    "tools": typed({"custom": _TOOL}, default="custom"),
    "max_tokens": limit,
    "thinking": _thinking,
    "output_config": members({"effort": setting, "format": members({"type": setting, "schema": schema})}),
    "cache_control": _cached,
    "service_tier": only("auto", "standard_only"),
    "inference_geo": only("global"),  # in one region it costs 1.1 times as much (pricing page)
    "speed": only("standard"),
}


def measure(body: bytes) -> Measure:
    """Return what a request's params say of what it may cost; input is written to a cache where they ask for it."""
    return measured(body, _MESSAGES, Tally())
