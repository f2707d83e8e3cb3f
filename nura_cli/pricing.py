"""Usage → cost: what a batch costs, and what the same would have cost synchronously. Offline, from genai-prices.

Money is an int of pico-dollars (1e-12 US dollars): exact, and small enough to add up in SQLite.
"""

from decimal import Decimal
from functools import cached_property
from typing import Any, NamedTuple

PICO = 10**12
BATCH_SHARE = Decimal("0.5")
"""The vendors bill batch requests at half the list price (OpenAI and Anthropic pricing pages); used where the price list
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
    """Pico-dollars for one token of each kind, and for the request itself."""

    fresh: int | Decimal
    cached: int | Decimal
    written: int | Decimal
    output: int | Decimal
    request: int | Decimal

    def cost(self, usage: Usage) -> int:
        fresh = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens
        return round(
            fresh * self.fresh
            + usage.cached_input_tokens * self.cached
            + usage.cache_write_tokens * self.written
            + usage.output_tokens * self.output
            + self.request
        )


class _Tier(NamedTuple):
    """The rates of requests with more than ``above`` input tokens."""

    above: int
    batch: _Rates
    listed: _Rates


class Prices:
    """The price list of one provider. The list itself is loaded when a price is first asked for."""

    def __init__(self, provider: str, base_url: str | None = None) -> None:
        """Take the prices of a vendor, by its name in genai-prices, or those of the compatible service at ``base_url``.

        An address the price list does not know is most likely a gateway in front of the vendor: its models have the
        vendor's prices, and models the vendor does not know have none.
        """
        self._provider = provider
        self._base_url = base_url
        self._tiers: dict[str, list[_Tier]] = {}

    def cost(self, model: str, usage: Usage) -> Cost | None:
        """Return what ``usage`` of a model costs, or None where no price is known (unpriced, never free)."""
        if model not in self._tiers:
            self._tiers[model] = self._look_up(model)
        tiers = self._tiers[model]
        if not tiers or not _sound(usage):
            return None
        tier = next(tier for tier in tiers if usage.input_tokens > tier.above)
        return Cost(tier.batch.cost(usage), tier.listed.cost(usage))

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

    def _look_up(self, model: str) -> list[_Tier]:
        """Return a model's tiers, the highest first; none where it has no price for tokens (but for audio hours, say).

        A price is linear within a tier, so that it is looked up once for a model and not once for an answer.
        """
        try:
            own, listed = self._priced(model, batch=False)
            _, batch = self._priced(model, batch=True)
        except (LookupError, ValueError):
            return []
        if listed.input_mtok is None and listed.output_mtok is None:
            return []
        prices = [price for both in (batch, listed) for price in vars(both).values()]
        starts = {tier.start for price in prices for tier in getattr(price, "tiers", ())}
        return [_tier(above, batch, listed, own=own) for above in sorted({-1, *starts}, reverse=True)]

    def _priced(self, model: str, *, batch: bool) -> tuple[bool, Any]:
        """Return whether the vendor itself sells the model, and its price object."""
        import genai_prices

        context = {"processing": "batch"} if batch else None
        found = genai_prices.calc_price(genai_prices.Usage(), model, price_context=context, **self._where)
        return found.provider.id == self._provider, found.model_price


def _tier(above: int, batch: Any, listed: Any, *, own: bool) -> _Tier:
    """Return the rates above a size: a vendor's own address halves those that its list does not give for batches."""
    full, paid = _rates(listed, above), _rates(batch, above)
    if own:
        paid = _Rates(*(_whole(f * BATCH_SHARE) if p == f else p for p, f in zip(paid, full, strict=True)))
    return _Tier(above, paid, full)


def _rates(price: Any, above: int) -> _Rates:
    """Read the rates for more than ``above`` input tokens off a price object, which is in US dollars for a million."""

    def rate(name: str) -> int | Decimal | None:
        value = getattr(price, name)
        for tier in reversed(getattr(value, "tiers", ())):
            if above >= tier.start:
                return _whole(tier.price * (PICO // 10**6))
        base = getattr(value, "base", value)
        return None if base is None else _whole(base * (PICO // 10**6))

    fresh, cached, written = rate("input_mtok") or 0, rate("cache_read_mtok"), rate("cache_write_mtok")
    request = _whole(Decimal(price.requests_kcount or 0) * (PICO // 1000))
    return _Rates(
        fresh,
        fresh if cached is None else cached,
        fresh if written is None else written,
        rate("output_mtok") or 0,
        request,
    )


def _whole(rate: Decimal) -> int | Decimal:
    """Return a rate as an int where it is one: ints add up faster."""
    return int(rate) if rate == int(rate) else rate


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
