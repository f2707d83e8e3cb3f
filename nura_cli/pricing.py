"""Usage → cost: what a batch costs, and what the same would have cost synchronously. Offline, from genai-prices.

Money is an int of pico-dollars (1e-12 US dollars): exact, and small enough to add up in SQLite.
"""

from decimal import Decimal
from functools import cached_property
from typing import Any, NamedTuple, overload

PICO = 10**12
BATCH_SHARE = Decimal("0.5")
"""The vendors bill a batch's tokens at half the list price (OpenAI and Anthropic pricing pages); used where the price list has
no batch price of its own, such as for embeddings. What a tool's calls cost is the same in a batch (Anthropic publishes no
other price of searches, genai-prices notes; OpenRouter's batch guide says so of web search)."""


class Usage(NamedTuple):
    """What one answer used, as far as it is billed.

    Attributes:
        input_tokens: all of the input, what was cached or written to a cache included.
        cached_input_tokens, cache_write_tokens: how many of them were read from the vendor's cache, or written there.
        output_tokens: all of the output.
        cache_write_1h_tokens: how many of those written are kept for an hour.
        input_image_tokens, output_image_tokens: how many of the input's and the output's are of images.
        web_searches, file_searches: calls of these tools of the vendor's.
        beyond: it used what none of these figures tells, or one of them cannot be read: its cost is not known.
    """

    input_tokens: int
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    cache_write_1h_tokens: int = 0
    input_image_tokens: int = 0
    output_image_tokens: int = 0
    web_searches: int = 0
    file_searches: int = 0
    beyond: bool = False


class Cost(NamedTuple):
    """What an answer costs in a batch, and its list price; both in pico-dollars."""

    paid: int
    list: int


class _Rates(NamedTuple):
    """Pico-dollars for one token of each kind, for the request itself, and for one call of a tool; None where the list has none."""

    fresh: int | Decimal
    cached: int | Decimal
    written: int | Decimal
    output: int | Decimal
    request: int | Decimal
    written_1h: int | Decimal | None
    image: int | Decimal
    output_image: int | Decimal
    web_search: int | Decimal | None
    file_search: int | Decimal | None

    def cost(self, usage: Usage) -> int | None:
        fresh = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens
        total = (
            fresh * self.fresh
            + usage.cached_input_tokens * self.cached
            + usage.cache_write_tokens * self.written
            + usage.output_tokens * self.output
            + self.request
        )
        if any(usage[len(_TEXT) :]):
            more = self._more(usage)
            return None if more is None else round(total + more)
        return round(total)

    def _more(self, usage: Usage) -> int | Decimal | None:
        """Return what is added to the cost of text for what else was used; None where a rate is not known."""
        total: int | Decimal = 0
        for n, rate, counted in (
            (usage.cache_write_1h_tokens, self.written_1h, self.written),
            (usage.input_image_tokens, self.image, self.fresh),
            (usage.output_image_tokens, self.output_image, self.output),
            (usage.web_searches, self.web_search, 0),
            (usage.file_searches, self.file_search, 0),
        ):
            if n and rate is None:
                return None
            total += n * ((rate or 0) - counted)
        return total

    def discounted(self, full: "_Rates") -> "_Rates":
        """Return these rates of batches, halved where the list gives none of their own; what a tool's calls cost is not halved."""
        same = {
            name: _whole(whole * BATCH_SHARE)
            for name, own, whole in zip(self._fields, self, full, strict=True)
            if own == whole and whole is not None and name not in _CALLS
        }
        return self._replace(**same)


_CALLS = ("web_search", "file_search")
_TEXT = ("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens")
"""The figures of :class:`Usage` that every answer has; they come first."""


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
        """Return what ``usage`` of a model costs, or None where that is not known (unpriced, never free)."""
        tiers = self._tiers_of(model)
        if not tiers or not _sound(usage):
            return None
        tier = next(tier for tier in tiers if usage.input_tokens > tier.above)
        paid, listed = tier.batch.cost(usage), tier.listed.cost(usage)
        return None if paid is None or listed is None else Cost(paid, listed)

    def known(self, model: str) -> bool:
        """Return whether the list has prices for the tokens of a model."""
        return bool(self._tiers_of(model))

    def _tiers_of(self, model: str) -> list[_Tier]:
        if model not in self._tiers:
            self._tiers[model] = self._look_up(model)
        return self._tiers[model]

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
    return _Tier(above, paid.discounted(full) if own else paid, full)


def _rates(price: Any, above: int) -> _Rates:
    """Read the rates for more than ``above`` input tokens off a price object, which is in US dollars for a million."""

    def rate(name: str, per: int = 10**6) -> int | Decimal | None:
        value = getattr(price, name)
        for tier in reversed(getattr(value, "tiers", ())):
            if above >= tier.start:
                return _whole(tier.price * (PICO // per))
        base = getattr(value, "base", value)
        return None if base is None else _whole(base * (PICO // per))

    def token(name: str, otherwise: int | Decimal) -> int | Decimal:
        found = rate(name)
        return otherwise if found is None else found

    fresh, output = token("input_mtok", 0), token("output_mtok", 0)
    return _Rates(
        fresh=fresh,
        cached=token("cache_read_mtok", fresh),
        written=token("cache_write_mtok", fresh),
        output=output,
        request=rate("requests_kcount", 1000) or 0,
        written_1h=rate("cache_write_1h_mtok"),  # twice the input, at Anthropic (Prompt caching guide, pricing)
        image=token("input_image_mtok", fresh),
        output_image=token("output_image_mtok", output),
        web_search=rate("web_searches_kcount", 1000),
        file_search=rate("storage_searches_kcount", 1000),
    )


def _whole(rate: Decimal) -> int | Decimal:
    """Return a rate as an int where it is one: ints add up faster."""
    return int(rate) if rate == int(rate) else rate


def _sound(usage: Usage) -> bool:
    """Whether the figures can be priced: all that is billed is among them, and none is negative, absurd, or more than its whole."""
    return (
        not usage.beyond
        and all(0 <= n < 10**9 for n in usage)
        and usage.cached_input_tokens + usage.cache_write_tokens <= usage.input_tokens
        and usage.cache_write_1h_tokens <= usage.cache_write_tokens
        and usage.input_image_tokens <= usage.input_tokens
        and usage.output_image_tokens <= usage.output_tokens
        and max(usage.web_searches, usage.file_searches) < 10**6
    )


@overload
def decimal_dollars(pico: int) -> str: ...
@overload
def decimal_dollars(pico: None) -> None: ...
@overload
def decimal_dollars(pico: int | None) -> str | None: ...
def decimal_dollars(pico: int | None) -> str | None:
    """Return pico-dollars as a plain decimal string of US dollars, at least two places: ``0.00028``; None stays None."""
    if pico is None:
        return None
    text = f"{Decimal(pico) / PICO:.12f}".rstrip("0")
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction.ljust(2, '0')}"
