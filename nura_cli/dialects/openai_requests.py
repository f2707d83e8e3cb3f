"""What OpenAI's requests may come to: the members that are known of each endpoint's, and what they mean for the cost.

From the API reference and the SDK's parameters. What reads elsewhere (files, pictures, earlier responses), runs at the vendor
(its tools), or has a price of its own (sound, tiers, moderation) is left out on purpose: of that no bound is known.
"""

from nura_cli.dialects.measures import (
    Measure,
    Members,
    Tally,
    answers,
    document,
    each,
    limit,
    measured,
    members,
    model,
    only,
    schema,
    setting,
    shown,
    text,
    text_or,
    texts,
    typed,
)

_SAMPLING = dict.fromkeys(
    (
        *("temperature", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty", "logit_bias"),
        *("logprobs", "top_logprobs", "stream", "stream_options", "user", "store", "metadata", "safety_identifier"),
        *("top_k", "min_p", "repetition_penalty"),  # of services that speak like it
    ),
    setting,
)
_ASKED: Members = {
    "model": model,
    "parallel_tool_calls": setting,
    "tool_choice": setting,
    "service_tier": only("auto", "default", "flex"),  # the others have rates of their own (pricing page)
    "prompt_cache_key": setting,
    "prompt_cache_retention": setting,
    "prompt_cache_options": members({"mode": setting, "ttl": only("30m")}),  # a longer one has no price in the list
}
_BREAKPOINT: Members = {"prompt_cache_breakpoint": setting}
_TEXT: Members = {"type": setting, "text": text, **_BREAKPOINT}
_REFUSAL: Members = {"type": setting, "refusal": text}

_MESSAGE: Members = {
    "role": setting,
    "content": text_or(typed({"text": _TEXT, "refusal": _REFUSAL})),
    "name": text,
    "refusal": text,
    "tool_calls": document,
    "function_call": document,
    "tool_call_id": setting,
}
_CHAT: Members = {
    **_SAMPLING,
    **_ASKED,
    "messages": each(members(_MESSAGE)),
    "max_tokens": limit,
    "max_completion_tokens": limit,
    "n": answers,
    "reasoning_effort": setting,
    "verbosity": setting,
    "modalities": only(["text"]),
    "response_format": members({"type": setting, "json_schema": schema}),
    "tools": typed({"function": {"type": setting, "function": schema}, "custom": {"type": setting, "custom": schema}}),
    "functions": schema,
    "function_call": setting,
}

_CALL: Members = {"type": setting, "id": setting, "call_id": setting, "status": setting}
_SAID: Members = {
    **dict.fromkeys(("type", "role", "id", "status", "phase"), setting),
    "content": text_or(typed({"input_text": _TEXT, "output_text": _TEXT, "refusal": _REFUSAL})),
}
_GIVEN: Members = {**_CALL, "output": text_or(typed({"input_text": _TEXT}))}
_ITEMS = {
    "message": _SAID,
    "": {
        name: read for name, read in _SAID.items() if name not in ("id", "type", "status")
    },  # with an id it may be a reference
    "function_call": {**_CALL, "name": text, "arguments": text},
    "function_call_output": _GIVEN,
    "custom_tool_call": {**_CALL, "name": text, "input": text},
    "custom_tool_call_output": _GIVEN,
}
_TOOL: Members = {"type": setting, "name": text, "description": text, "strict": setting}
_FORMAT: Members = {**_TOOL, "schema": schema}
_RESPONSES: Members = {
    **_SAMPLING,
    **_ASKED,
    "input": each(typed(_ITEMS)),
    "instructions": text,
    "max_output_tokens": limit,
    "reasoning": members(
        {
            **dict.fromkeys(("effort", "summary", "generate_summary", "context"), setting),
            "mode": only("standard"),  # another one works on it several times
        }
    ),
    "text": members({"format": members(_FORMAT), "verbosity": setting}),
    "tools": typed({"function": {**_TOOL, "parameters": schema}, "custom": {**_TOOL, "format": schema}}),
    "include": setting,
    "truncation": setting,
    "max_tool_calls": setting,
}

_COMPLETIONS: Members = {
    **_SAMPLING,
    "model": model,
    "prompt": texts,
    "suffix": text,
    "echo": setting,
    "max_tokens": limit,
    "n": answers,
    "best_of": answers,
}
_EMBEDDINGS: Members = {
    **dict.fromkeys(("model", "dimensions", "encoding_format", "user"), setting),
    "input": texts,
}
_MODERATIONS: Members = {"model": setting, "input": each(text_or(typed({"text": _TEXT})))}

_ENDPOINTS: tuple[tuple[str, Members, bool], ...] = (
    ("/chat/completions", _CHAT, True),
    ("/completions", _COMPLETIONS, True),
    ("/responses", _RESPONSES, True),
    ("/embeddings", _EMBEDDINGS, False),
    ("/moderations", _MODERATIONS, False),
)
"""How an endpoint ends, the members of its requests, and whether any output is billed."""


def measure(endpoint: str, body: bytes) -> Measure:
    """Return what a request's body says of what it may cost; any of its input may be billed as written to a cache."""
    for ending, known, answered in _ENDPOINTS:
        if endpoint.endswith(ending):
            tally = Tally()
            tally.writes = True
            tally.limits += [] if answered else [0]
            return measured(body, known, tally)
    return Measure(unbounded=f"goes to {shown(endpoint)}, and what that costs is not known")
