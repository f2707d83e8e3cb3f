"""Reading from the words of a refusal that a queue is full, and what it takes. Pure.

The words are the vendors' own: OpenAI ("Enqueued token limit reached for M in organization O. Limit: 2,000,000 enqueued tokens.",
openai-python#2084; "Enqueued request limit reached …"), Azure ("… surpassed the configured limit of 30K for the deployment …").
Anthropic's were not found: any that speak of a queue, or of batch requests, will do.
"""

import re
from typing import Literal, NamedTuple

from nura_cli.dialects import topics
from nura_cli.dialects.topics import Topic
from nura_cli.errors import Rejection

_FULL = re.compile(r"enqueued|\bqueue\b|batch requests", re.IGNORECASE)
_FIGURE = r"(\d{1,3}(?:,\d{3})+(?![\d,])|\d{1,15}(?:\.\d{1,2})?(?![\d,.]\d))"
_TIMES = {"": 1, "k": 10**3, "thousand": 10**3, "m": 10**6, "million": 10**6, "g": 10**9, "b": 10**9, "billion": 10**9}
_UNIT = r" ?(k|m|g|b|thousand|million|billion)?(?![a-z0-9])"
_CAPS = (
    re.compile(rf"limit(?: of| is)?:? {_FIGURE}{_UNIT} enqueued (token|request)s?\b", re.IGNORECASE),
    re.compile(
        rf"enqueued (?P<kind>token|request)s?\b[^.]{{0,60}}\bconfigured limit of {_FIGURE}{_UNIT}", re.IGNORECASE
    ),
    re.compile(
        rf"\b(?P<kind>request)s in (?:the |your )?(?:processing )?queue\b[^.]{{0,60}}\blimit of {_FIGURE}{_UNIT}",
        re.IGNORECASE,
    ),
)
"""What a queue takes stands beside what is counted in it; any other figure is about something else, of which there are many."""
_OTHER = re.compile(r"per (?:second|minute|hour|day)|/ ?(?:\d+ ?)?(?:s|sec|m|min|h|d)\b|rate limit", re.IGNORECASE)
_REQUESTS = re.compile(
    r"enqueued requests?|enqueued request limit|batch requests|requests in (?:the )?processing", re.IGNORECASE
)
_TOKENS = re.compile(r"enqueued tokens?", re.IGNORECASE)
_LOOKED_AT = 1000
"""Characters of a message that are looked at."""


class QueueFull(NamedTuple):
    """That a queue is full: what it counts, and what it takes; None where the words do not say so."""

    unit: Literal["tokens", "requests"] | None
    cap: int | None


def full(fault: Rejection) -> QueueFull | None:
    """Return what a fault says of a queue that is full; None where it is about something else, a minute's allowance say."""
    words = (fault.message or "")[:_LOOKED_AT]
    found = topics.topic((fault.code,) if fault.code else (), words)
    if found is not Topic.QUEUE and not (found is Topic.PACE and _FULL.search(words) and not _OTHER.search(words)):
        return None
    for pattern in _CAPS:
        if (cap := pattern.search(words)) is not None:
            return _read(cap)
    if _REQUESTS.search(words):
        return QueueFull("requests", None)
    return QueueFull("tokens" if _TOKENS.search(words) else None, None)


def _read(cap: re.Match[str]) -> QueueFull:
    """Return the cap that words name, and its unit."""
    if "kind" in cap.groupdict():
        kind, figure, times = cap.groups()
    else:
        figure, times, kind = cap.groups()
    n = int(float(figure.replace(",", "")) * _TIMES[(times or "").lower()])
    return QueueFull("requests" if kind.lower() == "request" else "tokens", n or None)
