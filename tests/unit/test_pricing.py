"""Usage to cost: what the price list says, to the pico-dollar, and nothing where it says nothing."""

import subprocess
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from nura_cli import config
from nura_cli.dialects import vendors
from nura_cli.pipeline import estimate
from nura_cli.pricing import PICO, Cost, ListPrice, Prices, Rates, Usage, decimal_dollars

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


MINE = ListPrice(Decimal("0.40"), Decimal("1.60"), Decimal("0.04"), Decimal("0.50"))


def test_a_price_that_was_given_goes_before_the_price_list_and_holds_for_dated_versions() -> None:
    prices = Prices("openai", given={"gpt-4.1-mini": MINE._replace(input=Decimal(1)), "mine": MINE})
    listed = Prices("openai").cost("gpt-4.1", Usage(1000))
    assert prices.cost("gpt-4.1", Usage(1000)) == listed
    for model in ("gpt-4.1-mini", "gpt-4.1-mini-2025-04-14", "gpt-4.1-mini@20250414"):
        assert prices.cost(model, Usage(1000)) == Cost(500_000_000, 1_000_000_000)
    for model in ("mine", "mine-2026-01-01"):
        # 500 fresh, 300 cached, 200 written, 10 of output
        assert prices.cost(model, Usage(1000, 300, 200, 10)) == Cost(164_000_000, 328_000_000)
    for model in ("mine-too", "mine-2", "mine-2026-01-01-long"):
        assert not prices.known(model)


def test_what_a_given_price_says_nothing_of_is_never_free() -> None:
    prices = Prices("anthropic", given={"m": ListPrice(Decimal(3), Decimal(15))})
    assert prices.cost("m", Usage(1000, 400)) == prices.cost("m", Usage(1000))
    assert prices.cost("m", Usage(1000, 0, 1000)) == Cost(1_875_000_000, 3_750_000_000)  # written, a quarter more
    assert prices.cost("m", Usage(1000, 0, 1000, 0, 1000)) == Cost(3_000_000_000, 6_000_000_000)  # for an hour, twice
    assert prices.cost("m", Usage(1000, web_searches=1)) is None
    assert prices.cost("m", Usage(1000, beyond=True)) is None
    dear = Prices("anthropic", given={"m": ListPrice(Decimal(3), Decimal(15), None, Decimal(8))})
    assert dear.cost("m", Usage(1000, 0, 1000, 0, 1000)) == Cost(4_000_000_000, 8_000_000_000)


def test_a_discount_holds_for_every_model_and_not_for_calls_of_tools() -> None:
    fifth = Prices("openai", given={"mine": MINE}, discount=Fraction(1, 5), at_home=False)
    assert fifth.cost("mine", Usage(1000)) == Cost(320_000_000, 400_000_000)
    assert fifth.cost("gpt-4.1-mini", Usage(1000)) == Cost(320_000_000, 400_000_000)
    assert fifth.cost("gpt-5", Usage(0, web_searches=1)) == Cost(10_000_000_000, 10_000_000_000)
    none = Prices("openai", "https://api.openai.com/v1", discount=Fraction(0))
    assert none.cost("gpt-4.1-mini", Usage(1000)) == Cost(400_000_000, 400_000_000)
    groq = Prices("openai", "https://api.groq.com/openai/v1", discount=Fraction(1, 2))
    found = groq.cost("llama-3.1-8b-instant", Usage(1000, 0, 0, 10))
    assert found is not None
    assert found.paid * 2 == found.list


@pytest.mark.parametrize(
    ("asked", "answered", "billed"),
    [
        ("mine", "mine-2026-01-01", "mine-2026-01-01"),
        ("mine", "gpt-4.1-mini-2025-04-14", "mine"),  # a deployment, an alias
        ("gpt-4.1", "mine", "mine"),
        ("gpt-4.1", "gpt-4.1-mini-2025-04-14", "gpt-4.1-mini-2025-04-14"),
        ("gpt-4.1", "no-such-model", "gpt-4.1"),
        ("gpt-4.1", None, "gpt-4.1"),
        ("", "mine-20260101", "mine-20260101"),
        ("nothing", "no-such-model", "nothing"),
        ("", None, ""),
    ],
)
def test_an_answer_is_billed_as_the_model_with_a_given_price_else_as_the_one_it_names(
    asked: str, answered: str | None, billed: str
) -> None:
    assert Prices("openai", given={"mine": MINE}).billed(asked, answered) == billed


@pytest.mark.parametrize(
    ("options", "cost"),
    [
        ("kind: openai, api_key_env: K", Cost(200, 400)),
        ("kind: openai, api_key_env: K, base_url: 'https://eu.api.openai.com/v1'", Cost(200, 400)),
        ("kind: openai, api_key_env: K, base_url: 'https://api.deepinfra.com/v1/openai'", Cost(400, 400)),
        ("kind: openai, api_key_env: K, base_url: 'https://x.example/v1', batch_discount: 20%", Cost(320, 400)),
        ("kind: anthropic, api_key_env: K, batch_discount: 0.3", Cost(280, 400)),
        ("kind: sandbox, protocol: anthropic", Cost(200, 400)),
    ],
)
def test_a_configured_price_is_halved_where_that_is_documented_or_as_the_configuration_says(
    tmp_path: Path, options: str, cost: Cost
) -> None:
    (tmp_path / "nura.yaml").write_text(
        f"providers: {{p: {{{options}, prices: {{mine: {{input: 0.40, output: 1.60}}}}}}}}"
    )
    loaded = config.load(tmp_path / "nura.yaml")
    dialect = vendors.dialect(loaded.providers["p"].dialect)
    assert estimate.prices_of(loaded, "p", dialect).cost("mine", Usage(1000)) == Cost(cost[0] * 10**6, cost[1] * 10**6)
    assert not estimate.prices_of(loaded, "left", dialect).known("mine")


ODD = ListPrice(Decimal("0.0000033"), Decimal("0.0000077"), Decimal("0.0000001"))
"""Rates that are no whole pico-dollars."""


def priced(seller: str) -> Prices:
    return Prices(seller, given={"odd": ODD}, discount=Fraction(1, 3) if seller == "groq" else None)


def rates_of(prices: Prices, model: str, *, listed: bool = False) -> Rates:
    found = prices.rates(model, listed=listed)
    assert found is not None
    return found


PRICED = st.sampled_from(MODELS) | st.sampled_from([("groq", "odd"), ("openai", "odd")])


@settings(max_examples=400, deadline=None)
@given(PRICED, usages())
def test_what_is_expected_of_whole_tokens_is_what_they_cost(of: tuple[str, str], usage: Usage) -> None:
    prices = priced(of[0])
    cost = prices.cost(of[1], usage)
    assert (cost is None) == (prices.rates(of[1]) is None)
    if cost is None:
        return
    given_, cached, written, output = usage[:4]
    assert rates_of(prices, of[1]).expected(given_, output, cached, written) == cost.paid
    assert rates_of(prices, of[1], listed=True).expected(given_, output, cached, written) == cost.list


@settings(max_examples=400, deadline=None)
@given(PRICED, usages(), st.integers(0, 300_000), st.integers(0, 1000), st.integers(0, 10**6))
def test_no_use_within_a_bound_costs_more_than_the_worst(
    of: tuple[str, str], usage: Usage, more: int, longer: int, hour: int
) -> None:
    """Whatever of the input is cached or written, and in whichever tier the real number of tokens falls."""
    prices = priced(of[0])
    bound = usage.input_tokens + more, usage.output_tokens + longer
    usage = usage._replace(cache_write_1h_tokens=min(hour, usage.cache_write_tokens))
    for listed in (False, True):
        rates = prices.rates(of[1], listed=listed)
        if rates is None:
            return
        cost = prices.cost(of[1], usage)
        worst = rates.worst(*bound, writes=usage.cache_write_tokens > 0, writes_1h=usage.cache_write_1h_tokens > 0)
        assert (worst is None) == (cost is None)  # an hour's rate is not known
        if worst is not None and cost is not None:
            assert worst >= cost[listed]


def test_the_worst_by_hand() -> None:
    sol = rates_of(Prices("openai"), "gpt-5.6-sol")  # in a batch 2 dollars a million, written 2.50, output 10 at least
    plain, written = (sol.worst(1000, 0, writes=writes) for writes in (False, True))
    assert (plain, written) == (2_000_000_000, 2_500_000_000)
    assert sol.worst(1000, 0, writes_1h=True) is None
    beyond = sol.worst(272_001, 0, writes=False)
    assert beyond == 272_001 * 4_000_000  # the dearer tier, which it may reach
    haiku = rates_of(Prices("anthropic"), "claude-haiku-4-5", listed=True)
    assert haiku.worst(1000, 10, writes_1h=True) == 2_050_000_000
    assert haiku.expected(0.5, 0.25) == 1_750_000
    assert rates_of(priced("openai"), "odd").expected(0.5, 0.0) == 1
    assert Prices("openai").rates("no-such-model") is None


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
