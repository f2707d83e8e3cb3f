"""Wording what is sent: a request with a place for its prompt, and the request options that are nura's to set."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

PROMPT = "\x00nura\x00"
"""Stands for the prompt in a request that is not yet filled in."""

# Words of several vendors: one given by habit to another would be refused request by request, hours later.
PARAMS_SET = frozenset({"model", "messages", "input", "instructions", "system", "stream", "store"})
PARAMS_SET_BY_SCHEMA = frozenset({"response_format", "text", "output_config"})
TOKEN_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
"""Request options that say how many tokens an answer may have."""
ANSWERS_EACH = ("n", "best_of")
"""Request options that say how many answers one request has, all of them billed."""


def around_prompt(request: Mapping[str, Any]) -> Callable[[str], bytes]:
    """Return a function from a prompt to the request's JSON bytes, with the prompt in the one place of ``PROMPT``.

    All but the prompt is encoded once.
    """
    before, after = msgspec.json.encode(request).split(msgspec.json.encode(PROMPT))

    def fill(prompt: str) -> bytes:
        return b"".join((before, msgspec.json.encode(prompt), after))

    return fill
