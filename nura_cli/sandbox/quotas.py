"""How much may wait in a provider's queue, what a request costs, and what either vendor says when there is no more room or money.

Pure: what waits and what was spent is counted elsewhere (:mod:`nura_cli.sandbox.work`, :mod:`nura_cli.sandbox.store`).
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

EVERY = "*"
"""Stands for every model that has no numbers of its own."""
QUEUE = frozenset({"tokens", "requests", "others_tokens", "others_requests"})
"""What can be set of a queue: its caps, and what somebody else has in it."""
PRICE = frozenset({"input", "output"})
BATCH_DISCOUNT = 0.5
"""Both vendors' batches cost half the list price."""

Numbers = Mapping[str, Mapping[str, Any]]
"""Numbers by name, by model (or ``*``)."""


class Load(NamedTuple):
    """What waits in a queue, or would."""

    tokens: int
    requests: int


class Full(NamedTuple):
    """The cap that a batch would exceed: of ``tokens`` or of ``requests``."""

    what: str
    cap: int


class Unpaid(NamedTuple):
    """How a request is refused for want of money: its status, and the vendor's type, words and (OpenAI) code or (Anthropic) details."""

    status: int
    kind: str
    words: str
    code: str | None = None


def check(setting: str, given: Any, known: frozenset[str]) -> None:
    """Raise ValueError where numbers by model are none, negative, or of a name that is not known."""
    if not isinstance(given, Mapping) or not all(isinstance(numbers, Mapping) for numbers in given.values()):
        raise ValueError(f"{setting}: numbers by model are expected")
    for model, numbers in given.items():
        for name, number in numbers.items():
            if name not in known:
                raise ValueError(f"{setting}: {model}: {name} is none of {', '.join(sorted(known))}")
            if number is not None and (isinstance(number, bool) or not isinstance(number, int | float) or number < 0):
                raise ValueError(f"{setting}: {model}: {name} is no number from 0 on")


def of_model(numbers: Numbers, model: str) -> dict[str, Any]:
    """Return a model's numbers: its own, and those of ``*`` that it does not have."""
    return {**numbers.get(EVERY, {}), **numbers.get(model, {})}


def full(queue: Mapping[str, Any], waiting: Load, own: Load) -> Full | None:
    """Return the cap of a queue that a batch of this load exceeds, beside what waits already; None where there is room."""
    for what in Load._fields:
        cap, others = queue.get(what), queue.get(f"others_{what}") or 0
        if cap is not None and getattr(waiting, what) + others + getattr(own, what) > cap:
            return Full(what, cap)
    return None


def openai_words(found: Full, model: str, organization: str, words: str) -> str:
    """Return what OpenAI says of a full queue (``vendor``), what Azure says, or words without any figure (``plain``).

    The words are those of github.com/openai/openai-python/issues/2084 and of Azure's users; a cap of requests is reported with
    OpenAI's alone.
    """
    one = found.what.removesuffix("s")
    if words == "azure":
        limit = f"{found.cap / 1000:.3f}".rstrip("0").rstrip(".")
        return (
            f"The number of enqueued {found.what} has surpassed the configured limit of {limit}K"
            f" for the deployment '{model}'."
        )
    again = "Please try again once some in_progress batches have been completed."
    if words == "plain":
        return f"Enqueued {one} limit reached. {again}"
    return (
        f"Enqueued {one} limit reached for {model} in organization {organization}."
        f" Limit: {found.cap:,} enqueued {found.what}. {again}"
    )


def anthropic_words(found: Full, words: str) -> str:
    """Return what Anthropic says of a full queue: the documented name of the limit, in words of our own."""
    limit = "" if words == "plain" else f" of {found.cap:,}"
    return (
        f"Number of batch requests in the processing queue would exceed your organization's limit{limit}."
        " Please wait until some of your batches have ended, and try again."
    )


def cost(prices: Numbers, model: str, usage: tuple[int, int], *, batch: bool) -> float:
    """Return what a request costs, in US dollars: nothing where its model has no price.

    Args:
        prices: US dollars per million tokens (``input``, ``output``), as on the price list.
        usage: the tokens billed (input, output).
        batch: it was answered in a batch, for half of that.
    """
    price = of_model(prices, model)
    listed = (usage[0] * (price.get("input") or 0) + usage[1] * (price.get("output") or 0)) / 1_000_000
    return listed * BATCH_DISCOUNT if batch else listed


def openai_unpaid(form: str) -> Unpaid:
    """Return how OpenAI refuses for want of money: out of credit, or (``hard_limit``) at the limit of the account's own."""
    if form == "hard_limit":
        words = "Billing hard limit has been reached."
        return Unpaid(400, "invalid_request_error", words, "billing_hard_limit_reached")
    words = (
        "You exceeded your current quota, please check your plan and billing details. For more information on this error,"
        " read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
    )
    return Unpaid(429, "insufficient_quota", words, "insufficient_quota")


def anthropic_unpaid(form: str, now: int) -> Unpaid:
    """Return how Anthropic refuses for want of money: at the customer's limit (``usage``), the ``tier``'s, or without ``credit``.

    The tier's has its code in the error's ``details`` and no retry-after (Anthropic's page on rate limits).
    """
    if form == "credit":
        words = (
            "Your credit balance is too low to access the Anthropic API."
            " Please go to Plans & Billing to upgrade or purchase credits."
        )
        return Unpaid(400, "invalid_request_error", words)
    again = f"You will regain access on {_next_month(now)} at 00:00 UTC."
    if form == "tier":
        words = (
            "You have reached your API usage limits: your organization has crossed its monthly API usage threshold, set"
            f" based on your organization's API tier. {again}"
        )
        return Unpaid(429, "rate_limit_error", words, "enforced_spend_limit_reached")
    return Unpaid(400, "invalid_request_error", f"You have reached your specified API usage limits. {again}")


def day_of(at: int) -> str:
    """Return the day (UTC) of a time in unix seconds, such as ``2026-11-25``."""
    return datetime.fromtimestamp(at, UTC).date().isoformat()


def _next_month(now: int) -> str:
    today = datetime.fromtimestamp(now, UTC).date()
    return today.replace(year=today.year + today.month // 12, month=today.month % 12 + 1, day=1).isoformat()
