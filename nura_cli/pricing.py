"""Usage → cost: what a batch costs, and what the same would have cost synchronously. Offline, from genai-prices, and before
that from prices that somebody gave.

Money is an int of pico-dollars (1e-12 US dollars): exact, and small enough to add up in SQLite. A rate that is no whole number
of them is a fraction: it stays exact with whole tokens, and takes parts of tokens too.
"""

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple, overload

PICO = 10**12
BATCH_SHARE = Fraction(1, 2)
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


class ListPrice(NamedTuple):
    """What a model costs at list price, in US dollars for a million tokens; None: as other input."""

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None


class _Tariff(NamedTuple):
    """Pico-dollars for one token of each kind, for the request itself, and for one call of a tool; None where the list has none."""

    fresh: int | Fraction
    cached: int | Fraction
    written: int | Fraction
    output: int | Fraction
    request: int | Fraction
    written_1h: int | Fraction | None
    image: int | Fraction
    output_image: int | Fraction
    web_search: int | Fraction | None
    file_search: int | Fraction | None

    def cost(self, usage: Usage) -> int | None:
        total = self.text(*usage[: len(_TEXT)])
        more = self._more(usage)
        return None if more is None else round(total + more)

    def text(self, given: float, cached: float, written: float, output: float) -> float | Fraction:
        """Return what so many tokens of text cost, exactly where they are whole: those given with what was cached and written."""
        fresh = given - cached - written
        return fresh * self.fresh + cached * self.cached + written * self.written + output * self.output + self.request

    def most(self, given: int, output: int, *, writes: bool, writes_1h: bool) -> int | None:
        """Return what so many tokens of text cost where all of the input has the highest rate that it may have."""
        if writes_1h and self.written_1h is None:
            return None
        rates = (self.fresh, self.cached, self.written if writes else 0, self.written_1h if writes_1h else 0)
        return math.ceil(given * max(rate or 0 for rate in rates) + output * self.output + self.request)

    def _more(self, usage: Usage) -> int | Fraction | None:
        """Return what is added to the cost of text for what else was used; None where a rate is not known."""
        total: int | Fraction = 0
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

    def times(self, share: Fraction) -> "_Tariff":
        """Return this share of the rates; what a tool's calls cost is the same in a batch."""
        return self._replace(
            **{
                name: _whole(rate * share)
                for name, rate in zip(self._fields, self, strict=True)
                if rate is not None and name not in _CALLS
            }
        )

    def or_half(self, full: "_Tariff") -> "_Tariff":
        """Return these rates of batches, halved where the list gives none of their own."""
        halved = full.times(BATCH_SHARE)
        return _Tariff._make(half if own == whole else own for own, whole, half in zip(self, full, halved, strict=True))


_CALLS = ("web_search", "file_search")
_TEXT = ("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens")
"""The figures of :class:`Usage` that every answer has; they come first."""


class _Tier(NamedTuple):
    """The rates of requests with more than ``above`` input tokens."""

    above: int
    batch: _Tariff
    listed: _Tariff


class Rates(NamedTuple):
    """What requests to one model come to before they are sent, worked out quickly, for many: in a batch, or at list price.

    Attributes:
        tiers: the number of input tokens above which a tariff holds, and the tariff; the highest first.
    """

    tiers: tuple[tuple[int, _Tariff], ...]

    def expected(self, input_tokens: float, output_tokens: float, cached: float = 0, written: float = 0) -> int:
        """Return what one request costs that uses so many tokens of text, in pico-dollars.

        Args:
            input_tokens: all of the input, in which ``cached`` and ``written`` are counted.
        """
        tariff = next(tariff for above, tariff in self.tiers if input_tokens > above)
        return round(tariff.text(input_tokens, cached, written, output_tokens))

    def worst(
        self, input_tokens: int, output_tokens: int, *, writes: bool = True, writes_1h: bool = False
    ) -> int | None:
        """Return what one request costs at most that uses no more tokens of text than these, in pico-dollars.

        Each input token has the highest rate that it may have, in the dearest of the tiers that so many may reach.

        Args:
            writes: input may be written to a cache.
            writes_1h: and kept there for an hour.

        Returns:
            None where input may be written to a cache for an hour, and the rate of that is not known.
        """
        costs = []
        for above, tariff in self.tiers:
            if input_tokens > above:
                most = tariff.most(input_tokens, output_tokens, writes=writes, writes_1h=writes_1h)
                if most is None:
                    return None
                costs.append(most)
        return max(costs)


class Prices:
    """The prices of one provider: those that were given, else its price list, which is loaded when it is first needed."""

    def __init__(
        self,
        provider: str,
        base_url: str | None = None,
        *,
        given: Mapping[str, ListPrice] | None = None,
        discount: Fraction | None = None,
        at_home: bool = True,
    ) -> None:
        """Take the prices of a vendor, by its name in genai-prices, or those of the compatible service at ``base_url``.

        An address the price list does not know is most likely a gateway in front of the vendor: its models have the
        vendor's prices, and models the vendor does not know have none.

        Args:
            given: list prices by model, which go before the price list.
            discount: what batches cost less than the list price, as a share, for every model; None: the list's batch price,
                or the vendors' half where it has none, at the vendor; of a price that was given the half, ``at_home``.
            at_home: whether ``base_url`` is the vendor's own address, where its half is documented.
        """
        self._provider = provider
        self._base_url = base_url
        self._given = given or {}
        self._share = None if discount is None else 1 - discount
        self._documented = BATCH_SHARE if at_home else Fraction(1)
        self._tiers: dict[str, list[_Tier]] = {}
        self._billed: dict[tuple[str, str | None], str] = {}

    def cost(self, model: str, usage: Usage) -> Cost | None:
        """Return what ``usage`` of a model costs, or None where that is not known (unpriced, never free)."""
        tiers = self._tiers_of(model)
        if not tiers or not _sound(usage):
            return None
        tier = tiers[0]
        if usage.input_tokens <= tier.above:
            tier = next(tier for tier in tiers if usage.input_tokens > tier.above)
        given, cached, written, said, *more = usage
        if not any(more):
            batch, full = tier.batch, tier.listed
            return Cost(round(batch.text(given, cached, written, said)), round(full.text(given, cached, written, said)))
        paid, listed = tier.batch.cost(usage), tier.listed.cost(usage)
        return None if paid is None or listed is None else Cost(paid, listed)

    def known(self, model: str) -> bool:
        """Return whether there are prices for the tokens of a model."""
        return bool(self._tiers_of(model))

    def billed(self, asked: str, answered: str | None) -> str:
        """Return the model by whose price an answer is billed: the one that it names, else the one that was asked for.

        One with a price that was given goes first: an answer may name a model of the price list where a deployment or an alias
        was asked for.
        """
        both = (asked, answered)
        billed = self._billed.get(both)
        if billed is None:
            names = [name for name in (answered, asked) if name]
            found = next((name for name in names if self._given_for(name)), None)
            billed = found or next((name for name in names if self.known(name)), asked)
            self._billed[both] = billed
        return billed

    def rates(self, model: str, *, listed: bool = False) -> Rates | None:
        """Return what tokens of a model cost in a batch, or else at list price; None where that is not known."""
        tiers = self._tiers_of(model)
        return Rates(tuple((tier.above, tier.listed if listed else tier.batch) for tier in tiers)) if tiers else None

    def _given_for(self, model: str) -> ListPrice | None:
        """Return the price that was given for a model, or for the one of which it is a dated version."""
        return self._given.get(model) or self._given.get(_DATED.sub("", model))

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
        given = self._given_for(model)
        if given is not None:
            full = _tariff_of(given)
            return [_Tier(-1, full.times(self._documented if self._share is None else self._share), full)]
        try:
            own, listed = self._priced(model, batch=False)
            _, batch = self._priced(model, batch=True)
        except (LookupError, ValueError):
            return []
        if listed.input_mtok is None and listed.output_mtok is None:
            return []
        prices = [price for both in (batch, listed) for price in vars(both).values()]
        starts = {tier.start for price in prices for tier in getattr(price, "tiers", ())}
        return [self._tier(above, batch, listed, own=own) for above in sorted({-1, *starts}, reverse=True)]

    def _tier(self, above: int, batch: Any, listed: Any, *, own: bool) -> _Tier:
        """Return the rates above a size: a vendor's own address halves those that its list does not give for batches."""
        full, paid = _tariff(listed, above), _tariff(batch, above)
        if self._share is not None:
            return _Tier(above, full.times(self._share), full)
        return _Tier(above, paid.or_half(full) if own else paid, full)

    def _priced(self, model: str, *, batch: bool) -> tuple[bool, Any]:
        """Return whether the vendor itself sells the model, and its price object."""
        import genai_prices

        context = {"processing": "batch"} if batch else None
        found = genai_prices.calc_price(genai_prices.Usage(), model, price_context=context, **self._where)
        return found.provider.id == self._provider, found.model_price


_DATED = re.compile(r"[-@][0-9]{4}-?[0-9]{2}-?[0-9]{2}$")
"""How vendors name the versions of a model: ``gpt-4.1-2025-04-14``, ``claude-haiku-4-5-20251001``."""
_WRITE = Fraction(5, 4)
"""What is written to a cache costs so many times the input (OpenAI's and Anthropic's pricing pages), where it is not said."""
_HOUR = 2
"""What is kept in a cache for an hour costs so many times the input (Anthropic's Prompt caching guide, pricing)."""


def _tariff_of(price: ListPrice) -> _Tariff:
    """Return the rates of a price that was given."""
    fresh, output = _rate(price.input), _rate(price.output)
    cached = fresh if price.cached_input is None else _rate(price.cached_input)
    written = _whole(_WRITE * Fraction(fresh)) if price.cache_write is None else _rate(price.cache_write)
    return _Tariff(fresh, cached, written, output, 0, max(written, _HOUR * fresh), fresh, output, None, None)


def _tariff(price: Any, above: int) -> _Tariff:
    """Read the rates for more than ``above`` input tokens off a price object, which is in US dollars for a million."""

    def rate(name: str, per: int = 10**6) -> int | Fraction | None:
        value = getattr(price, name)
        for tier in reversed(getattr(value, "tiers", ())):
            if above >= tier.start:
                return _rate(tier.price, per)
        base = getattr(value, "base", value)
        return None if base is None else _rate(base, per)

    def token(name: str, otherwise: int | Fraction) -> int | Fraction:
        found = rate(name)
        return otherwise if found is None else found

    fresh, output = token("input_mtok", 0), token("output_mtok", 0)
    return _Tariff(
        fresh=fresh,
        cached=token("cache_read_mtok", fresh),
        written=token("cache_write_mtok", fresh),
        output=output,
        request=rate("requests_kcount", 1000) or 0,
        written_1h=rate("cache_write_1h_mtok"),
        image=token("input_image_mtok", fresh),
        output_image=token("output_image_mtok", output),
        web_search=rate("web_searches_kcount", 1000),
        file_search=rate("storage_searches_kcount", 1000),
    )


def _rate(dollars: Decimal, per: int = 10**6) -> int | Fraction:
    """Return US dollars for so many as pico-dollars for one."""
    return _whole(Fraction(dollars) * (PICO // per))


def _whole(rate: int | Fraction) -> int | Fraction:
    """Return a rate as an int where it is one: ints add up faster."""
    return int(rate) if rate == int(rate) else rate


_MOST_TOKENS = 10**8
"""No request uses so many; what fewer of them cost fits into a column of SQLite's, be they 10,000 dollars a million."""


def _sound(usage: Usage) -> bool:
    """Whether the figures can be priced: all that is billed is among them, and none is negative, absurd, or more than its whole.

    Every answer is looked at so: most used text alone.
    """
    given, cached, written, said, *more = usage
    if cached < 0 or written < 0 or not cached + written <= given < _MOST_TOKENS or not 0 <= said < _MOST_TOKENS:
        return False
    return not any(more) or (
        not usage.beyond
        and min(more) >= 0
        and usage.cache_write_1h_tokens <= written
        and usage.input_image_tokens <= given
        and usage.output_image_tokens <= said
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
    whole, fraction = divmod(abs(pico), PICO)
    return f"{'-' if pico < 0 else ''}{whole}.{f'{fraction:012}'.rstrip('0').ljust(2, '0')}"
