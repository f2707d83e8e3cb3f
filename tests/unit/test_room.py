"""How much may go, and why not more: the decisions about room, one by one."""

from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nura_cli.dialects import queues
from nura_cli.dialects.base import Frame, Limits
from nura_cli.dialects.measures import Measure
from nura_cli.dialects.vendors import dialect
from nura_cli.errors import InputError, Rejection
from nura_cli.pipeline import budgets, estimate, fairness, packing, quotas
from nura_cli.pipeline.budgets import Budget, Fund
from nura_cli.pipeline.estimate import Gauge, History, Learned, Weight
from nura_cli.pipeline.fairness import Claim
from nura_cli.pipeline.packing import Bound, Room, Turn, Wait, Why
from nura_cli.pipeline.quotas import Allowance, Queue
from nura_cli.pricing import Prices
from nura_cli.state.budgets import Scope
from nura_cli.state.quotas import Quota

DAY = 86400
NOON = 1_800_000_000 - 1_800_000_000 % DAY + DAY // 2
QUEUE = Queue("openai org-1", "m", "tokens")
LIMITS = Limits(10, 1000, None, 400)
FACTS = packing.Facts(LIMITS, None, 0, None, 0, False, (), (), Turn(), None, 100, False)
DAILY = Budget("workloads.w.budget.day", Scope(workload="w"), 1000, "expected", NOON - DAY // 2, NOON + DAY // 2)


def nothing_measured(body: bytes) -> Measure:
    """Stand for what a body says where that is not asked for."""
    raise AssertionError("nobody asked")


def gauge(**options: Any) -> Gauge:
    """Return what weighs a request by its bytes alone: one token each, no output, no price."""
    return Gauge(nothing_measured, None, Learned(1, 1, 0), bounded=False, **options)


# --- the decision


def test_the_room_of_a_batch_is_what_is_allowed_and_learned() -> None:
    assert packing.room(FACTS) == Room(LIMITS, claim=100)
    assert packing.room(FACTS._replace(learned=3)) == Room(LIMITS._replace(requests=3), claim=100)
    assert packing.room(FACTS._replace(learned=50)) == Room(LIMITS, claim=100)


def test_more_tasks_are_looked_at_than_go_and_no_more_than_make_sense() -> None:
    large = FACTS._replace(limits=LIMITS._replace(requests=50_000))
    assert packing.room(large) == Room(large.limits, claim=50_000)
    scarce = large._replace(each=Weight(10, 1, None), allowances=[Allowance("tokens", 10_000, 10_000, 0)])
    found = packing.room(scarce)
    assert isinstance(found, Room)
    assert found.claim == 1500


def test_a_pause_a_probe_a_full_queue_and_a_spent_budget_say_why_and_until_when() -> None:
    spent, full = Fund(DAILY, 0), Allowance("tokens", 1000, 950, 950)
    everything = FACTS._replace(
        paused_until=1234, paused_for="too many tokens", probing=True, allowances=[full], funds=[spent]
    )
    assert packing.room(everything) == Wait(Why.PAUSED, "too many tokens", 1234)
    probing = packing.room(everything._replace(paused_until=0))
    assert isinstance(probing, Wait)
    assert probing.why is Why.QUOTA
    assert "one batch goes at a time" in probing.words
    queue = packing.room(FACTS._replace(allowances=[full], funds=[spent]))
    assert queue == Wait(Why.QUOTA, "about 950 of 950 enqueued tokens are under way")
    budget = packing.room(FACTS._replace(funds=[spent]))
    assert isinstance(budget, Wait)
    assert (budget.why, budget.until) == (Why.BUDGET, DAILY.end)
    assert budget.words.startswith("workloads.w.budget.day: $0.00 of $0.00 are spent or under way")


def test_a_canary_makes_the_room_its_own_or_waits() -> None:
    assert packing.room(FACTS._replace(canary=3)) == Room(LIMITS._replace(requests=3), canary=True, claim=100)
    assert packing.room(FACTS._replace(canary=30)) == Room(LIMITS, canary=True, claim=100)
    mine = Wait(Why.CANARY, "y")
    assert packing.room(FACTS._replace(canary=mine)) == mine
    assert packing.room(FACTS._replace(canary=mine, paused_until=5, paused_for="x")) == Wait(Why.PAUSED, "x", 5)
    little = FACTS._replace(canary=3, allowances=[Allowance("requests", 1000, 1000, 990)])
    assert isinstance(packing.room(little), Room)


def test_a_budget_is_spent_where_the_next_request_would_pass_it_as_far_as_is_known() -> None:
    left = FACTS._replace(funds=[Fund(DAILY, 100)], each=Weight(10, 10, 101))
    assert isinstance(packing.room(left), Wait)
    whole = left._replace(funds=[Fund(DAILY, 1000)], each=Weight(10, 10, 1001))
    assert isinstance(
        packing.room(whole), Room
    )  # those that are smaller than the others may go, and larger ones are named
    assert isinstance(packing.room(left._replace(each=Weight(10, 10, 100))), Room)
    assert isinstance(packing.room(left._replace(each=None)), Room)


def test_what_is_of_unknown_cost_closes_a_budget_and_says_which_batch_that_is() -> None:
    wait = packing.room(FACTS._replace(funds=[Fund(DAILY, 0, (7,))]))
    assert isinstance(wait, Wait)
    assert "nobody knows what batch 7 costs" in wait.words


def test_no_crumbs_a_batch_goes_where_it_is_worth_it_or_all_fits_or_it_is_overdue() -> None:
    little = FACTS._replace(allowances=[Allowance("tokens", 1000, 1000, 900)])
    wait = packing.room(little)
    assert isinstance(wait, Wait)
    assert wait.words.endswith("what is left is not worth a batch")
    assert isinstance(packing.room(little._replace(overdue=True)), Room)
    assert isinstance(packing.room(little._replace(each=Weight(1, 1, None))), Room)  # a hundred tokens in all
    assert isinstance(packing.room(little._replace(each=Weight(2, 1, None))), Wait)
    assert isinstance(packing.room(FACTS._replace(allowances=[Allowance("tokens", 1000, 1000, 750)])), Room)
    requests = FACTS._replace(allowances=[Allowance("requests", 1000, 1000, 900)])
    assert isinstance(packing.room(requests), Room)
    assert isinstance(packing.room(requests._replace(waiting=101)), Wait)


def test_a_turn_is_a_part_of_what_is_left_and_a_first_request_may_be_more() -> None:
    facts = FACTS._replace(
        allowances=[Allowance("tokens", 1000, 900, 500), Allowance("requests", 20, 20, 12)], turn=Turn(0.5, 0.25)
    )
    own, shared = DAILY, DAILY._replace(scope=Scope(provider="p"))
    found = packing.room(facts._replace(funds=[Fund(own, 800), Fund(shared, 800)]))
    assert isinstance(found, Room)
    assert found.limits.requests == 4
    assert [(bound.of, bound.fair, bound.first, bound.whole) for bound in found.bounds] == [
        ("tokens", 200, 400, 1000),
        ("requests", 4, 8, 20),
        ("expected", 800, 800, 1000),
        ("expected", 200, 800, 1000),
    ]


def test_at_an_empty_queue_one_request_may_go_whatever_was_learned() -> None:
    assert Allowance("tokens", 1000, 20, 0).first == 1000
    assert Allowance("tokens", None, 20, 0).first is None
    assert Allowance("tokens", None, 20, 5).first == 15


# --- a batch as it fills


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 6)), max_size=20),
    st.integers(150, 400),
    st.integers(1, 4) | st.none(),
    st.integers(1, 400) | st.none(),
)
def test_a_batch_holds_no_more_than_there_is_room_for_and_no_task_is_passed_over(
    sizes: list[tuple[int, int]], most: int, inputs: int | None, token_room: int | None
) -> None:
    frame = Frame(b'{"requests": [', b",", b"]}")
    full = Wait(Why.QUOTA, "full")
    bounds = () if token_room is None else (Bound("tokens", token_room, None, None, full, ""),)
    load = packing.Load(Room(Limits(100, most, inputs, 180), bounds), frame, gauge())
    rows = [(n, b"%d" % n) for n in range(1, len(sizes) + 1)]

    def make(task_id: int, line: bytes) -> packing.Request:
        assert line == b"%d" % task_id
        size, carried = sizes[task_id - 1]
        if size == 13:
            raise InputError("unlucky")
        return packing.Request(b"x" * size, b"", carried if inputs is not None else 0)

    pieces = list(load.pieces(rows, make))
    file = b"".join(pieces)
    assert len(file) == load.bytes <= most
    assert len(pieces) == (load.requests + 1 if load.requests else 0)
    failed = {task_id for task_id, _ in load.failed}
    held = [size for n, (size, _) in enumerate(sizes[: load.last_id], 1) if n not in failed]
    assert file == (frame.head + b",".join(b"x" * size for size in held) + frame.tail if held else b"")
    carried = [one for n, (_, one) in enumerate(sizes[: load.last_id], 1) if n not in failed]
    assert inputs is None or sum(carried) <= inputs
    if token_room is not None and load.requests > 1:
        assert sum(held) <= token_room
    assert load.last_id == len(sizes) or load.requests > 0  # whatever is left goes into the next batch


FRAME = Frame(b"", b"", b"")


def filled(sizes: list[int], *bounds: Bound, limits: Limits = LIMITS) -> packing.Load:
    """Return a batch of requests of these sizes, as far as they fit."""
    load = packing.Load(Room(limits, bounds), FRAME, gauge())
    rows = [(n, b"") for n in range(1, len(sizes) + 1)]
    list(load.pieces(rows, lambda task_id, line: packing.Request(b"x" * sizes[task_id - 1], b"", 0)))
    return load


def bound(fair: float, first: float | None = None, whole: float | None = None) -> Bound:
    """Return a bound of tokens."""
    return Bound("tokens", fair, first, whole, Wait(Why.QUOTA, "full"), "its queue takes 50 tokens")


def test_one_that_would_never_fit_is_passed_over_and_blocks_nobody() -> None:
    load = filled([60, 10, 51, 20], bound(40, 40, 50))
    assert [task_id for task_id, _ in load.passed] == [1, 3]
    assert load.passed[0][1] == Wait(Why.QUOTA, "comes to about 60 tokens; its queue takes 50 tokens")
    assert (load.requests, load.last_id, load.failed, load.full) == (2, 4, [], None)


def test_what_does_not_fit_now_ends_the_batch_and_says_why() -> None:
    load = filled([10, 45], bound(40, 40, 50))
    assert (load.requests, load.last_id, load.passed) == (1, 1, [])
    assert load.full == Wait(Why.QUOTA, "full")
    assert filled([45], bound(40, 40, 50)).requests == 0


def test_a_first_request_may_be_larger_than_a_turn_and_never_than_what_is_left() -> None:
    assert filled([30, 5], bound(10, 40)).requests == 1
    assert filled([41, 5], bound(10, 40)).requests == 0
    assert filled([390], bound(10)).requests == 1


# --- estimates


RATES = Prices("openai").rates("gpt-4.1-mini")


def measured(most_output: int | None, unbounded: str | None = None) -> Any:
    """Return what measures each body: a byte of text for a byte."""
    return lambda body: Measure(
        text=len(body),
        digits=0,
        messages=1,
        most_output=most_output,
        unbounded=unbounded,
        writes=False,
        writes_1h=False,
    )


def test_before_anything_is_learned_text_and_the_output_s_maximum_count() -> None:
    found = Gauge(measured(100), RATES, None, bounded=False)
    weights = [found.weigh(b"x" * 460, 700) for _ in range(150)]
    assert found.basis == "max_tokens"
    assert all(90 <= one.input <= 120 and one.output == 100 for one in weights)
    assert weights[0].input == pytest.approx(weights[-1].input)
    assert Gauge(measured(None), RATES, None, bounded=False).basis == "max_tokens"
    floor = Gauge(measured(None), RATES, None, bounded=False)
    assert floor.weigh(b"x" * 460, 700).output == 0
    assert floor.basis == "floor"


def test_a_bound_is_asked_of_each_request_and_one_without_says_why() -> None:
    assert RATES is not None
    found = Gauge(measured(100), RATES, None, bounded=True).weigh(b"x" * 460, 700)
    assert found.worst is not None
    assert found.expected is not None
    assert found.worst >= RATES.expected(460, 100) > found.expected
    endless = Gauge(measured(None), RATES, None, bounded=True).weigh(b"x", 10)
    assert (endless.worst, endless.unbounded) == (None, "sets no maximum for its output")
    tools = Gauge(measured(100, "lets the provider search the web"), RATES, None, bounded=True).weigh(b"x", 10)
    assert (tools.worst, tools.unbounded) == (None, "lets the provider search the web")


def test_what_is_learned_needs_twenty_answers_and_fades() -> None:
    assert estimate.learned([History(19, 1900, 19, 190, 19)]) is None
    known = estimate.learned([History(20, 2000, 20, 400, 100)])
    assert known == Learned(0.2, 20, 5)
    old, new = History(10_000, 10**6, 10_000, 10**6, 10**5), History(10_000, 10**6, 10_000, 10**5, 10**4)
    known = estimate.learned([new, old])
    assert known is not None
    assert 0.1 <= known.input_per_byte < 0.15


def test_a_batch_of_which_a_part_was_answered_teaches_by_that_part() -> None:
    assert estimate.learned([History(100, 10_000, 50, 1000, 500)]) == Learned(0.2, 20, 10)


def test_what_a_cache_saves_is_learned_by_the_tokens_at_today_s_prices() -> None:
    assert RATES is not None
    known = estimate.learned([History(50, 5000, 50, 1000, 500, cached=600, written=100)])
    assert known is not None
    assert (known.cached, known.written) == (0.6, 0.1)
    found = Gauge(measured(1), RATES, known, bounded=False).weigh(b"", 100)
    assert found.expected == RATES.expected(20, 10, 12, 2) < RATES.expected(20, 10)


def test_where_money_depends_on_it_each_request_is_measured() -> None:
    most = iter([*[10] * 100, *[16_000] * 50])
    found = Gauge(lambda body: measured(next(most))(body), RATES, None, bounded=True)
    outputs = [found.weigh(b"x" * 100, 200).output for _ in range(150)]
    assert outputs == [10] * 100 + [16_000] * 50


# --- quotas


def refusal(known: Quota | None, queue: Queue, said: int | None, under_way: int, now: int) -> Quota:
    """Return what is known after another refusal, of a batch that was sent after the last one."""
    batch = 1 if known is None else known.refused_after + 1
    return quotas.after_refusal(known, queue, said, under_way, batch, batch, now, 0.5)


@pytest.mark.parametrize(
    ("code", "words", "found"),
    [
        (
            "token_limit_exceeded",
            "Enqueued token limit reached for gpt-4.1-mini in organization org-1. Limit: 2,000,000 enqueued tokens. Please try"
            " again once some in_progress batches have been completed.",
            ("tokens", 2_000_000),
        ),
        (
            None,
            "Enqueued request limit reached for m in organization o. Limit: 1,000,000 enqueued requests.",
            ("requests", 1_000_000),
        ),
        (
            "token_limit_exceeded",
            "The number of enqueued tokens has surpassed the configured limit of 30K for the deployment 'm'.",
            ("tokens", 30_000),
        ),
        (
            "rate_limit_error",
            "Number of batch requests in the processing queue would exceed your organization's limit of 200,000.",
            ("requests", 200_000),
        ),
        ("token_limit_exceeded", "Too much.", (None, None)),
        ("token_limit_exceeded", "Enqueued token limit reached.", ("tokens", None)),
        ("token_limit_exceeded", "Enqueued tokens: configured limit of 2 million.", ("tokens", 2_000_000)),
        ("token_limit_exceeded", "model daily-limit 7. Limit: 1,000,000 enqueued tokens.", ("tokens", 1_000_000)),
        ("token_limit_exceeded", "Limit: 90.000", (None, None)),
        ("token_limit_exceeded", "Too many batches in progress. Limit: 100.", (None, None)),
        ("rate_limit_error", "Number of batch requests has exceeded your rate limit of 50 requests per minute.", None),
        ("rate_limit_error", "Too many requests in queue. Rate limit: 60 per minute.", None),
        ("rate_limit_error", "This request would exceed your limit of 50 requests per minute.", None),
        ("invalid_request", "limit: 3 enqueued things", None),
    ],
)
def test_a_full_queue_is_read_from_the_words(code: str | None, words: str, found: tuple[str, int] | None) -> None:
    assert queues.full(Rejection(code, words, None)) == (None if found is None else queues.QueueFull(*found))  # type: ignore[arg-type]


def test_a_cap_from_words_is_adopted_and_used_less_where_it_is_refused_again() -> None:
    known = refusal(None, QUEUE, 1000, 5000, NOON)
    assert (known.cap, known.said, known.share) == (1000, True, 0.95)
    again = refusal(known, QUEUE, 1000, 950, NOON + 900)
    assert again.share < 0.75
    grown = again
    for _ in range(100):
        grown = quotas.after_success(grown)
    assert grown.share == 0.95
    creeping = again._replace(share=0.5, ceiling=0.5)
    assert 0 < quotas.after_success(creeping).share - creeping.share < quotas.after_success(again).share - again.share
    lowered = refusal(again, QUEUE, 500, 700, NOON + 1800)
    assert (lowered.cap, lowered.share) == (500, 0.95)


def test_without_words_half_of_what_was_under_way_is_tried_and_never_less_than_one_request() -> None:
    known = refusal(None, QUEUE, None, 8000, NOON)
    shares = [known.share * known.cap]
    for n in range(1, 12):
        known = refusal(known, QUEUE, None, int(known.share * known.cap), NOON + n)
        shares.append(known.share * known.cap)
    assert shares[:3] == [4000, 2000, 1000]
    allowed = quotas.allowance("tokens", known, None, 0, NOON)
    assert allowed is not None
    assert allowed.first is None


@given(st.integers(0, 10**7), st.integers(1, 10**7) | st.none(), st.integers(0, 50))
def test_whatever_was_refused_something_may_always_go(under_way: int, said: int | None, times: int) -> None:
    known = None
    for n in range(times):
        known = refusal(known, QUEUE, said, under_way, NOON + n)
    found = quotas.allowance("tokens", known, None, 0, NOON)
    assert found is None or found.first is None or found.first >= 1


def test_of_batches_that_were_under_way_together_one_refusal_counts() -> None:
    known = quotas.after_refusal(None, QUEUE, 1000, 5000, 1, 12, NOON, 0.5)
    for batch in range(2, 13):
        known = quotas.after_refusal(known, QUEUE, 1000, 5000, batch, 12, NOON + 60, 0.5)
    assert known.share == 0.95
    assert quotas.after_refusal(known, QUEUE, 1000, 950, 13, 13, NOON + 900, 0.5).share < 0.95
    assert quotas.after_refusal(known, QUEUE, 500, 5000, 5, 12, NOON + 60, 0.5).cap == 500


def test_each_day_without_a_refusal_twice_as_much_is_tried_and_after_ten_all() -> None:
    known = refusal(None, QUEUE, 1000, 5000, NOON)

    def most(now: int) -> int | None:
        found = quotas.allowance("tokens", quotas.fresh(known, now), None, 0, now)
        return None if found is None else found.most

    assert [most(NOON + n * DAY) for n in (0, 1, 2, 9, 10)] == [950, 1900, 3800, 486_400, None]
    assert most(NOON + DAY - 1) == 950
    assert most(NOON - 1) is None  # a clock that was set
    again = refusal(known, QUEUE, 1000, 1900, NOON + DAY)
    assert (again.share, again.refused_at) == (0.95, NOON + DAY)


def test_the_configuration_lowers_what_was_learned_and_stands_alone_where_nothing_was() -> None:
    known = refusal(None, QUEUE, 1000, 5000, NOON)
    assert quotas.allowance("tokens", None, None, 5, NOON) is None
    assert quotas.allowance("tokens", None, 300, 5, NOON) == Allowance("tokens", 300, 300, 5)
    assert quotas.allowance("tokens", known, 300, 5, NOON) == Allowance("tokens", 300, 300, 5)
    assert quotas.allowance("tokens", known, 5000, 5, NOON) == Allowance("tokens", 1000, 950, 5)


# --- turns


def test_the_highest_priority_has_all_but_a_tenth_and_equals_share() -> None:
    first, second, low = Claim("a", 1, 10, 5), Claim("b", 2, 10, 9), Claim("c", 3, 0, 99)
    found = fairness.shares([first, second, low])
    assert found == pytest.approx({1: 0.45, 2: 0.45, 3: 0.1})
    assert fairness.shares([low]) == {3: 1}
    assert sorted([low, first, second], key=lambda claim: fairness.order(claim, lower=False)) == [second, first, low]
    assert sorted([low, first, second], key=lambda claim: fairness.order(claim, lower=True)) == [low, second, first]


def test_a_workload_of_many_queues_has_no_more_than_one_of_one() -> None:
    found = fairness.shares([Claim("a", 1, 0, 5), Claim("a", 2, 0, 5), Claim("b", 3, 0, 5)])
    assert found == pytest.approx({1: 0.25, 2: 0.25, 3: 0.5})


def test_what_has_waited_for_a_day_goes_first_and_shares_as_the_first_do() -> None:
    old, urgent = Claim("a", 1, 0, DAY), Claim("b", 2, 10, 5)
    assert sorted([urgent, old], key=lambda claim: fairness.order(claim, lower=False)) == [old, urgent]
    assert fairness.shares([old, urgent]) == {1: 0.5, 2: 0.5}


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 2 * DAY)), min_size=1, max_size=8))
def test_shares_make_one_and_nobody_has_none(given: list[tuple[int, int]]) -> None:
    claims = [Claim(str(n % 3), n, *one) for n, one in enumerate(given)]
    found = fairness.shares(claims)
    assert sum(found.values()) == pytest.approx(1)
    assert all(share > 0 for share in found.values())


# --- windows


@pytest.mark.parametrize(
    ("moment", "day", "month"),
    [
        ("2026-11-25T23:59:59Z", ("2026-11-25", "2026-11-26"), ("2026-11-01", "2026-12-01")),
        ("2026-12-31T00:00:00Z", ("2026-12-31", "2027-01-01"), ("2026-12-01", "2027-01-01")),
        ("2028-02-29T12:00:00Z", ("2028-02-29", "2028-03-01"), ("2028-02-01", "2028-03-01")),
    ],
)
def test_days_and_months_are_those_of_utc(moment: str, day: tuple[str, str], month: tuple[str, str]) -> None:
    from datetime import datetime

    def second(text: str) -> int:
        return int(datetime.fromisoformat(text).timestamp())

    found = budgets.windows(second(moment))
    assert found["day"] == tuple(second(f"{one}T00:00:00+00:00") for one in day)
    assert found["month"] == tuple(second(f"{one}T00:00:00+00:00") for one in month)


@pytest.mark.parametrize(
    ("pico", "shown"), [(0, "$0.00"), (123_456_789_012, "$0.1235"), (20 * 10**12, "$20.00"), (5_000_000, "$0.00")]
)
def test_amounts_are_short(pico: int, shown: str) -> None:
    assert budgets.short_dollars(pico) == shown


def test_a_refused_queue_rests_longer_each_time_for_all_who_share_it_until_a_batch_of_it_has_ended() -> None:
    pauses = []
    known = None
    for n in range(4):
        known = refusal(known, QUEUE, 1000, 950, NOON + n)
        pauses.append(known.paused_until - NOON - n)
    assert pauses == sorted(pauses)
    assert pauses[0] >= 60
    assert len(set(pauses)) == 4
    assert known is not None
    found = packing.room(FACTS._replace(full_until=known.paused_until))
    assert isinstance(found, packing.Wait)
    assert (found.why, found.until) == (packing.Why.QUOTA, known.paused_until)
    over = quotas.after_success(known)
    assert (over.paused_until, over.strikes) == (0, 0)


def test_a_small_batch_that_is_refused_says_nothing_of_our_share_of_a_known_cap() -> None:
    known = refusal(None, QUEUE, 2_000_000, 2_500_000, NOON)
    for n in range(5):
        known = refusal(known, QUEUE, 2_000_000, 20_000, NOON + 60 * n)
    assert (known.share, known.ceiling, known.strikes) == (0.95, 1.0, 6)
    assert refusal(known, QUEUE, 2_000_000, 1_900_000, NOON + 600).share < 0.95


def test_a_cap_that_was_guessed_too_low_grows_with_what_ends_well() -> None:
    known = refusal(None, QUEUE, None, 150, NOON)
    for _ in range(60):
        known = quotas.after_success(known)
    assert known.cap * known.share > 10_000


@pytest.mark.parametrize("known", [None, Learned(0.3, 200.0, 40.5, 0.1, 0.0)], ids=["sampled", "learned"])
def test_a_size_that_was_seen_before_comes_to_what_it_does_when_it_is_new(known: Learned | None) -> None:
    measure = partial(dialect("openai").measure, "/v1/chat/completions")
    rates = Prices("openai").rates("gpt-4.1-mini")
    form = b'{"max_tokens": 9, "messages": [{"role": "user", "content": "%s"}]}'
    bodies = [form % (b"w" * (i % 7)) for i in range(150)]
    one = Gauge(measure, rates, known, bounded=False)
    for i, body in enumerate(bodies):
        fresh = Gauge(measure, rates, known, bounded=False)
        for earlier in bodies[: min(i, 100)]:  # the first hundred are measured
            fresh.weigh(earlier, len(earlier))
        assert one.weigh(body, len(body)) == fresh.weigh(body, len(body))
