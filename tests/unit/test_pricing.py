"""Usage to cost: what the price list says, to the pico-dollar, and nothing where it says nothing."""

import subprocess
import sys
from decimal import Decimal

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from nura_cli.pricing import PICO, Cost, Prices, Usage, decimal_dollars

VENDORS = ("openai", "anthropic")
# Sold by the vendors, by services with fees for each request, with tiers, and with rates that are no whole pico-dollars.
SELLERS = (*VENDORS, "perplexity", "google", "openrouter", "groq")
MODELS = [
    (seller.id, model.id) for seller in get_snapshot().providers if seller.id in SELLERS for model in seller.models
]
TIER_EDGES = (0, 1, 199_999, 200_000, 200_001, 271_999, 272_000, 272_001)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Sound usage: no more cached or written than there is input, with the edges of tiers among it."""
    total = draw(st.sampled_from(TIER_EDGES) | st.integers(0, 2_000_000))
    cached = draw(st.integers(0, total))
    return Usage(total, cached, draw(st.integers(0, total - cached)), draw(st.integers(0, 300_000)))


def listed(seller: str, model: str, usage: Usage, *, batch: bool) -> Decimal | None:
    """Return genai-prices' own figure in pico-dollars; None where it knows no price for tokens."""
    tokens = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_tokens=usage.output_tokens,
    )
    context = {"processing": "batch"} if batch else None
    try:
        found = genai_prices.calc_price(tokens, model, provider_id=seller, price_context=context)
    except LookupError:
        return None
    by_tokens = found.model_price.input_mtok is not None or found.model_price.output_mtok is not None
    return found.total_price * PICO if by_tokens else None


def close(ours: int, theirs: Decimal) -> bool:
    """Whether two sums are the same but for the rounding to a whole pico-dollar."""
    return abs(ours - theirs) <= Decimal("0.51")


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(MODELS), usages())
def test_the_list_price_is_the_price_lists_own(of: tuple[str, str], usage: Usage) -> None:
    cost = Prices(of[0]).cost(of[1], usage)
    full = listed(*of, usage, batch=False)
    assert (cost is None) == (full is None)
    if cost is not None and full is not None:
        assert close(cost.list, full)
        assert cost.paid <= cost.list


def discounted(model: str, seller: str, usage: Usage) -> Decimal:
    """Return the batch price by hand: each kind of token at its batch price, or at half where it has none of its own."""
    cached, written = usage.cached_input_tokens, usage.cache_write_tokens
    above = usage.input_tokens  # an input of the same size as the whole, so that each part is priced in the same tier
    total = Decimal(0)
    parts = [
        (Usage(above), Usage(0), usage.input_tokens - cached - written),
        (Usage(above, above), Usage(0), cached),
        (Usage(above, 0, above), Usage(0), written),
        (Usage(above, 0, 0, 1000), Usage(above), usage.output_tokens),
    ]
    for with_it, without, tokens in parts:
        if tokens:
            rates = []
            for batch in (True, False):
                more, less = (listed(seller, model, part, batch=batch) for part in (with_it, without))
                assert more is not None
                assert less is not None
                rates.append((more - less) / (1000 if with_it.output_tokens else above))
            paid, full = rates
            total += tokens * (full / 2 if paid == full else paid)
    return total


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([of for of in MODELS if of[0] in VENDORS]), usages())
def test_a_vendors_batch_price_is_the_lists_or_half(of: tuple[str, str], usage: Usage) -> None:
    cost = Prices(of[0]).cost(of[1], usage)
    if cost is not None:
        assert close(cost.paid, discounted(of[1], of[0], usage))


@pytest.mark.parametrize(
    ("provider", "model", "usage", "cost"),
    [
        # 0.40 and 1.60 dollars a million, cached 0.10; half of each in a batch
        ("openai", "gpt-4.1-mini", Usage(1000, 0, 0, 100), Cost(280_000_000, 560_000_000)),
        ("openai", "gpt-4.1-mini", Usage(1000, 1000), Cost(50_000_000, 100_000_000)),
        ("openai", "gpt-4.1-mini-2025-04-14", Usage(1000), Cost(200_000_000, 400_000_000)),
        # no batch price in the list: the vendor's half
        ("openai", "text-embedding-3-small", Usage(1000), Cost(10_000_000, 20_000_000)),
        # 1 and 5 dollars a million, cached 0.10, written to the cache 1.25
        ("anthropic", "claude-haiku-4-5", Usage(3000, 1000, 1000, 1000), Cost(3_675_000_000, 7_350_000_000)),
        ("anthropic", "claude-haiku-4-5-20251001", Usage(0, 0, 0, 1), Cost(2_500_000, 5_000_000)),
        # written for an hour 2, of 1000 tokens 400
        ("anthropic", "claude-haiku-4-5", Usage(1000, 0, 1000, 0, 400), Cost(775_000_000, 1_550_000_000)),
        # written to the cache 1.25 times the input, which is 4 dollars a million
        ("openai", "gpt-5.6-sol", Usage(1000, 0, 1000), Cost(2_500_000_000, 5_000_000_000)),
        # searches: 10 dollars a thousand, and of files 2.50, in a batch as well
        ("anthropic", "claude-haiku-4-5", Usage(1000, web_searches=2), Cost(20_500_000_000, 21_000_000_000)),
        ("openai", "gpt-5", Usage(1000, web_searches=1), Cost(10_625_000_000, 11_250_000_000)),
        ("openai", "gpt-5", Usage(1000, file_searches=2), Cost(5_625_000_000, 6_250_000_000)),
        # more than 200,000 tokens of input: 6 and 22.50 dollars a million in place of 3 and 15, cached or not
        ("anthropic", "claude-sonnet-4-5", Usage(200_000), Cost(300_000_000_000, 600_000_000_000)),
        ("anthropic", "claude-sonnet-4-5", Usage(200_001, 0, 0, 2), Cost(600_025_500_000, 1_200_051_000_000)),
        # images: 8 dollars a million in and 32 out in place of 5 and 10; where the list has no price for them, as text
        ("openai", "gpt-image-1.5", Usage(1000, 0, 0, 1000, 0, 800, 900), Cost(18_600_000_000, 37_200_000_000)),
        ("openai", "gpt-4.1-mini", Usage(1000, 0, 0, 0, 0, 800), Cost(200_000_000, 400_000_000)),
    ],
)
def test_prices_by_hand(provider: str, model: str, usage: Usage, cost: Cost) -> None:
    assert Prices(provider).cost(model, usage) == cost


def test_a_list_price_has_its_tiers_even_where_the_batch_price_has_none() -> None:
    below, above = (Prices("openai").cost("gpt-5.5-pro", Usage(n)) for n in (272_000, 272_001))
    assert below is not None
    assert above is not None
    assert above.list > below.list * 1.5
    assert above.paid == pytest.approx(below.paid, rel=1e-4)


@pytest.mark.parametrize("model", ["no-such-model", "", "whisper-1", "tts-1"])
def test_what_has_no_price_for_tokens_is_unpriced_and_not_free(model: str) -> None:
    assert Prices("openai").cost(model, Usage(1000, 0, 0, 10)) is None


@pytest.mark.parametrize("usage", [Usage(-1), Usage(1, 2), Usage(2, 1, 2), Usage(10**9), Usage(1, 0, 0, -5)])
def test_usage_that_cannot_be_is_unpriced(usage: Usage) -> None:
    assert Prices("openai").cost("gpt-4.1-mini", usage) is None


@pytest.mark.parametrize(
    ("provider", "model", "usage"),
    [
        ("openai", "gpt-5", Usage(1000, 0, 1000, 0, 1)),  # written for an hour
        ("anthropic", "claude-haiku-4-5", Usage(1000, file_searches=1)),
        ("openai", "o3-mini", Usage(1000, web_searches=1)),
        ("openai", "gpt-5", Usage(1000, beyond=True)),
        ("anthropic", "claude-haiku-4-5", Usage(1000, 0, 10, 0, 11)),
        ("openai", "gpt-image-1.5", Usage(1000, 0, 0, 1000, 0, 0, 1001)),
        ("openai", "gpt-5", Usage(1000, web_searches=10**6)),
    ],
)
def test_what_the_list_has_no_price_for_makes_the_whole_unpriced(provider: str, model: str, usage: Usage) -> None:
    assert Prices(provider).known(model)
    assert Prices(provider).cost(model, usage) is None


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([of for of in MODELS if of[0] == "anthropic"]),
    usages(),
    st.integers(0, 2_000_000),
    st.integers(0, 9),
)
def test_longer_writes_and_searches_are_the_lists_own(
    of: tuple[str, str], usage: Usage, hour: int, searches: int
) -> None:
    usage = usage._replace(cache_write_1h_tokens=min(hour, usage.cache_write_tokens), web_searches=searches)
    found = genai_prices.calc_price(genai_prices.Usage(), of[1], provider_id=of[0]).model_price
    cost = Prices(of[0]).cost(of[1], usage)
    tokens = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        output_tokens=usage.output_tokens,
        web_searches=searches,
    )
    unknown = (searches and found.web_searches_kcount is None) or (
        usage.cache_write_1h_tokens and found.cache_write_1h_mtok is None
    )
    assert (cost is None) == bool(unknown)
    if cost is not None:
        full = genai_prices.calc_price(tokens, of[1], provider_id=of[0]).total_price * PICO
        assert close(cost.list, full)


def test_no_tokens_cost_nothing() -> None:
    assert Prices("openai").cost("gpt-4.1-mini", Usage(0)) == Cost(0, 0)


def test_an_address_is_priced_as_the_service_behind_it() -> None:
    usage = Usage(1000)
    own = Prices("openai").cost("text-embedding-3-small", usage)
    assert own is not None
    assert Prices("openai", "https://api.openai.com/v1").cost("text-embedding-3-small", usage) == own
    gateway = Prices("openai", "http://gateway.example:4000/v1")
    assert gateway.cost("text-embedding-3-small", usage) == own
    assert gateway.cost("some-other-model", usage) is None
    # No batch price of Groq's is known, and OpenAI's half is not Groq's.
    groq = Prices("openai", "https://api.groq.com/openai/v1").cost("llama-3.1-8b-instant", usage)
    assert groq is not None
    assert groq.paid == groq.list


@pytest.mark.parametrize(
    ("pico", "text"),
    [
        (0, "0.00"),
        (1, "0.000000000001"),
        (280_000_000, "0.00028"),
        (PICO, "1.00"),
        (12_340_000_000_000, "12.34"),
        (-500_000_000_000, "-0.50"),
        (123_456_789 * PICO + 1, "123456789.000000000001"),
        (None, None),
    ],
)
def test_dollars_are_plain_decimals(pico: int | None, text: str | None) -> None:
    assert decimal_dollars(pico) == text


@given(st.integers(-(2**62), 2**62))
def test_dollars_can_be_read_back(pico: int) -> None:
    text = decimal_dollars(pico)
    assert text is not None
    assert "e" not in text.lower()
    assert Decimal(text) * PICO == pico


def test_the_price_list_is_loaded_only_when_a_price_is_asked_for() -> None:
    code = (
        "import sys; from nura_cli.pricing import Prices, Usage; prices = Prices('openai', 'https://x.example')\n"
        "before = 'genai_prices' in sys.modules\n"
        "prices.cost('gpt-4.1', Usage(1)); print(before, 'genai_prices' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False", "True"]
