"""Usage → cost: what a batch costs, and what the same would have cost synchronously. Offline, from genai-prices.

Money is an int of pico-dollars (1e-12 US dollars): exact, and small enough to add up in SQLite.
"""

from decimal import Decimal
from functools import cached_property
from typing import Any, NamedTuple

PICO = 10**12
BATCH_SHARE = Decimal("0.5")
"""Both vendors bill batch requests at half the list price (OpenAI and Anthropic pricing pages); used where the price list
has no batch price of its own, such as for embeddings."""


class Usage(NamedTuple):
    """Tokens of one answer. ``input_tokens`` is all of the input, what was cached or written to a cache included."""

    input_tokens: int
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0


class Cost(NamedTuple):
    """What an answer costs in a batch, and its list price; both in pico-dollars."""

    paid: int
    list: int


class _Rates(NamedTuple):
    """Pico-dollars for one token of each kind, up to ``upto`` input tokens, where a higher tier begins."""

    fresh: int
    cached: int
    written: int
    output: int
    upto: int

    def cost(self, usage: Usage) -> int:
        fresh = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens
        return (
            fresh * self.fresh
            + usage.cached_input_tokens * self.cached
            + usage.cache_write_tokens * self.written
            + usage.output_tokens * self.output
        )


class Prices:
    """The price list of one provider. The list itself is loaded when a price is first asked for."""

    def __init__(self, provider: str, base_url: str | None = None) -> None:
        """Take the prices of a vendor (``openai`` or ``anthropic``), or those of the compatible service at ``base_url``.

        An address the price list does not know is most likely a gateway in front of the vendor: its models have the
        vendor's prices, and models the vendor does not know have none.
        """
        self._provider = provider
        self._base_url = base_url
        self._rates: dict[str, tuple[_Rates, _Rates] | None] = {}

    def cost(self, model: str, usage: Usage) -> Cost | None:
        """Return what ``usage`` of a model costs, or None where no price is known (unpriced, never free)."""
        if model not in self._rates:
            self._rates[model] = self._look_up(model)
        rates = self._rates[model]
        if rates is None or not _sound(usage):
            return None
        batch, listed = rates
        if usage.input_tokens <= batch.upto:
            return Cost(batch.cost(usage), listed.cost(usage))
        paid, full = self._exact(model, usage, batch=True), self._exact(model, usage, batch=False)
        return Cost(self._discounted(paid, full), full)

    @cached_property
    def _where(self) -> dict[str, Any]:
        """Whose prices to take, in genai-prices' words."""
        from genai_prices.data_snapshot import get_snapshot

        try:
            if self._base_url:
                get_snapshot().find_provider(None, None, self._base_url)
                return {"provider_api_url": self._base_url}
        except LookupError:
            pass
        return {"provider_id": self._provider}

    def _look_up(self, model: str) -> tuple[_Rates, _Rates] | None:
        try:
            listed = self._linear(model, batch=False)
            batch = self._linear(model, batch=True)
        except (LookupError, ValueError):
            return None
        paid = [self._discounted(ours, full) for ours, full in zip(batch[:4], listed[:4], strict=True)]
        return _Rates(paid[0], paid[1], paid[2], paid[3], batch.upto), listed

    def _discounted(self, paid: int, listed: int) -> int:
        return int(listed * BATCH_SHARE) if "provider_id" in self._where and paid == listed else paid

    def _linear(self, model: str, *, batch: bool) -> _Rates:
        """Read the rates off the price list by pricing probes of a thousand tokens; tiers begin far above."""
        probes = (Usage(1000), Usage(1000, 1000), Usage(1000, 0, 1000), Usage(0, 0, 0, 1000))
        fresh, cached, written, output = (self._exact(model, probe, batch=batch) // 1000 for probe in probes)
        return _Rates(fresh, cached, written, output, self._first_tier(model, batch=batch))

    def _first_tier(self, model: str, *, batch: bool) -> int:
        prices = vars(self._priced(model, Usage(1), batch=batch).model_price).values()
        starts = [tier.start for price in prices for tier in getattr(price, "tiers", ())]
        return min(starts, default=10**12)

    def _exact(self, model: str, usage: Usage, *, batch: bool) -> int:
        return int(self._priced(model, usage, batch=batch).total_price * PICO)

    def _priced(self, model: str, usage: Usage, *, batch: bool) -> Any:
        import genai_prices

        tokens = genai_prices.Usage(
            input_tokens=usage.input_tokens,
            cache_read_tokens=usage.cached_input_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            output_tokens=usage.output_tokens,
        )
        context: Any = {"processing": "batch"} if batch else None
        return genai_prices.calc_price(tokens, model, price_context=context, **self._where)


def _sound(usage: Usage) -> bool:
    """Whether the figures can be priced: not negative, no more cached than there is, none absurd."""
    return (
        all(0 <= n < 10**9 for n in usage)
        and usage.cached_input_tokens + usage.cache_write_tokens <= usage.input_tokens
    )


def decimal_dollars(pico: int | None) -> str | None:
    """Return pico-dollars as a plain decimal string of US dollars, at least two places: ``0.00028``; None stays None."""
    if pico is None:
        return None
    text = f"{Decimal(pico) / PICO:.12f}".rstrip("0")
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction.ljust(2, '0')}"
