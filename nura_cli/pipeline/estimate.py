"""What requests may cost before they are sent: pure, and no more than a guess at their input."""

from typing import NamedTuple

from nura_cli.config import Config
from nura_cli.dialects.base import Dialect
from nura_cli.pipeline.packing import BYTES_PER_TOKEN
from nura_cli.pricing import Prices, Usage


class Estimate(NamedTuple):
    """About how many input tokens requests have, and what these cost in a batch.

    Attributes:
        cost: in pico-dollars; None where no price is known.
    """

    tokens: int
    cost: int | None


def prices_of(config: Config, provider: str, dialect: Dialect) -> Prices:
    """Return the price list of a provider; one that left the configuration is priced as its vendor's."""
    known = config.providers.get(provider)
    return Prices(dialect.price_list, known.base_url if known else None)


def estimate(prices: Prices, model: str, requests: int, size: int) -> Estimate:
    """Return what requests of ``size`` bytes together may come to; each is priced as the mean of them is."""
    tokens = size // BYTES_PER_TOKEN
    mean = max(tokens // max(requests, 1), 1)
    cost = prices.cost(model, Usage(mean))
    return Estimate(tokens, cost.paid * tokens // mean if cost else None)
