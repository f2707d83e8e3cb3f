"""What requests may come to before they are sent: pure, from what answers of the same revision used, else from their text."""

from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Literal, NamedTuple

from nura_cli import providers
from nura_cli.config import Config
from nura_cli.dialects.base import Dialect, Measure
from nura_cli.dialects.measures import estimate_input, most_input
from nura_cli.pricing import ListPrice, Prices, Rates

Basis = Literal["learned", "max_tokens", "floor"]
"""What an estimate goes by: answers of its revision; its text, and the most output that it allows; its text alone, since nothing
limits the output: then it is the least that it comes to."""

LEAST_ANSWERS = 20
"""Answers from which on an estimate is learned."""
_HALF_LIFE = 2000
"""Answers after which an older one weighs half."""
_SAMPLE = 100
"""Requests of a batch whose text is measured; the others are taken to be like these, by their bytes."""
_MOST_SIZES = 10_000
"""So many sizes are remembered with what a request of each comes to."""


class History(NamedTuple):
    """A batch that came home: its requests and the bytes of its file, and the tokens that its answers used."""

    requests: int
    bytes: int
    answers: int
    input: int
    output: int
    cached: int = 0
    written: int = 0


class Learned(NamedTuple):
    """What answers used: tokens of input for a byte of the request file, tokens of input and output for a request.

    Attributes:
        cached, written: of the input, what share was read from a cache, and written to one.
    """

    input_per_byte: float
    input: float
    output: float
    cached: float = 0.0
    written: float = 0.0

    def cost(self, rates: Rates, given: float) -> int:
        """Return what a request with so many tokens of input is expected to cost, in pico-dollars."""
        return rates.expected(given, self.output, given * self.cached, given * self.written)


def learned(history: Iterable[History]) -> Learned | None:
    """Return what the answers of a revision say of the next ones; None where there are too few.

    Args:
        history: the newest first; older ones fade.
    """
    answers = 0
    size = inputs = outputs = counted = cached = written = 0.0
    for one in history:
        if not one.answers or not one.requests or not one.bytes:
            continue
        weight = 0.5 ** (answers / _HALF_LIFE)
        answers += one.answers
        size += weight * one.bytes * one.answers / one.requests
        inputs += weight * one.input
        outputs += weight * one.output
        counted += weight * one.answers
        cached += weight * one.cached
        written += weight * one.written
    if answers < LEAST_ANSWERS or not size:
        return None
    whole = max(inputs, cached + written, 1.0)
    return Learned(inputs / size, inputs / counted, outputs / counted, cached / whole, written / whole)


class Weight(NamedTuple):
    """What one request may come to.

    Attributes:
        input, output: tokens, as expected.
        expected, worst: what it may cost in pico-dollars; None where no price, or no bound, is known.
        unbounded: why no bound is known, in words.
    """

    input: float
    output: float
    expected: int | None
    worst: int | None = None
    unbounded: str | None = None


class Estimate(NamedTuple):
    """What a batch may come to: tokens, pico-dollars (None where no price, or no bound, is known), and what that goes by."""

    basis: Basis
    input: int
    output: int
    cost: int | None
    worst: int | None


class Gauge:
    """Weighs the requests of one batch, one after the other.

    Where answers of their revision are known, by their bytes; else the first hundred are measured, and the others are taken to be
    like them. Each is measured where a bound of its cost is asked for.
    """

    def __init__(
        self, measure: Callable[[bytes], Measure], rates: Rates | None, learned: Learned | None, *, bounded: bool
    ) -> None:
        self._measure = measure
        self._rates = rates
        self._learned = learned
        self._bounded = bounded
        self._measured = 0
        self._bytes = self._input = self._output = 0.0
        self._limited = True
        self._by_size: dict[int, Weight] = {}

    @property
    def basis(self) -> Basis:
        """What the weights go by."""
        if self._learned is not None:
            return "learned"
        return "max_tokens" if self._limited else "floor"

    def weigh(self, body: bytes, size: int) -> Weight:
        """Return what a request of ``size`` bytes in the file may come to."""
        if self._bounded or (self._learned is None and self._measured < _SAMPLE):
            return self._weighed(self._measure(body), size)
        weight = self._by_size.get(size)
        if weight is None:
            weight = self._weighed(None, size)
            if len(self._by_size) < _MOST_SIZES:
                self._by_size[size] = weight
        return weight

    def _weighed(self, found: Measure | None, size: int) -> Weight:
        """Return what a request comes to by its measure, which is kept for the others; without one, by its size alone."""
        if found is not None and self._learned is None:
            given, answered = float(estimate_input(found)), float(found.most_output or 0)
            self._measured += 1
            self._bytes += size
            self._input += given
            self._output += answered
            self._limited = self._limited and found.most_output is not None
        elif self._learned is not None:
            given, answered = self._learned.input_per_byte * size, self._learned.output
        else:
            given, answered = self._input / self._bytes * size, self._output / self._measured
        if self._rates is None:
            return Weight(given, answered, None)
        known = self._learned
        expected = self._rates.expected(given, answered) if known is None else known.cost(self._rates, given)
        if not self._bounded or found is None:
            return Weight(given, answered, expected)
        if found.unbounded or found.most_output is None:
            return Weight(given, answered, expected, None, found.unbounded or "sets no maximum for its output")
        worst = self._rates.worst(most_input(found), found.most_output, writes=found.writes, writes_1h=found.writes_1h)
        return Weight(given, answered, expected, worst)


def prices_of(config: Config, provider: str, dialect: Dialect) -> Prices:
    """Return the prices of a provider; one that left the configuration is priced as its vendor's."""
    known = config.providers.get(provider)
    if known is None:
        return Prices(dialect.price_list)
    return Prices(
        dialect.price_list,
        known.base_url,
        given={
            model: ListPrice(price.input, price.output, price.cached_input, price.cache_write)
            for model, price in known.prices.items()
        },
        discount=None if known.batch_discount is None else Fraction(str(known.batch_discount)),
        at_home=providers.at_home(known),
    )
