"""The pure decisions: lines, keys, prompts, packing, retries, refusals, verdicts, prices, exit codes, states."""

import ast
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from freezegun import freeze_time
from hypothesis import given, settings
from hypothesis import strategies as st

from nura_cli import clock
from nura_cli.config import WorkloadConfig
from nura_cli.dialects.base import Limits, Rejection, ResultLine, Spec
from nura_cli.dialects.vendors import dialect
from nura_cli.errors import ConfigError, InputError, ProblemKind
from nura_cli.pipeline import backoff, lines, packing, poll, search
from nura_cli.pipeline.classify import Classifier, shorten
from nura_cli.pipeline.render import revision, spec_of
from nura_cli.pipeline.report import Problem, exit_code
from nura_cli.pipeline.templates import Prompt
from nura_cli.pricing import Prices, Usage, decimal_dollars
from nura_cli.state import schema
from nura_cli.state.answers import Failure
from nura_cli.state.connection import LONGEST_BACKOFF
from nura_cli.state.runs import Route
from nura_cli.state.standings import Standing
from nura_cli.state.suspects import Due
from nura_cli.states import BATCH_ARROWS, RETRYABLE, TASK_ARROWS, BatchStatus, ErrorKind, Excuse, Reason, TaskStatus

PACKAGE = Path(lines.__file__).parents[1]


# --- lines and keys


@settings(max_examples=300)
@given(st.binary() | st.text().map(str.encode))
def test_a_document_is_strict_json_or_an_input_error(data: bytes) -> None:
    try:
        lines.document(data)
    except InputError:
        return
    json.loads(data)


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=30), max_size=20))
def test_lines_are_split_on_newlines_alone_and_keep_their_numbers(texts: list[str]) -> None:
    stream = io.BytesIO("\n".join(texts).encode())
    found = {line.number: line.data.decode() for line in lines.split(stream, 1000)}
    expected = dict(enumerate(texts, 1))
    if expected.get(1, "").startswith("\ufeff"):
        expected[1] = expected[1][1:]
    kept = {n: text.strip(" \t\r\n") for n, text in expected.items()}
    assert found == {n: text for n, text in kept.items() if text}


def test_an_endless_line_is_cut_and_read_past() -> None:
    found = list(lines.split(io.BytesIO(b"x" * 100 + b"\n" + b"y\n" + b"z" * 11), 10))
    assert [(line.number, line.data) for line in found] == [(1, b"x" * 10), (2, b"y"), (3, b"z" * 10)]
    assert ["longer than the 10 bytes" in (line.fault or "") for line in found] == [True, False, True]


def test_one_and_its_text_are_one_key_and_arrays_are_composite() -> None:
    assert lines.key_of(1).identity == lines.key_of("1").identity == "1"
    assert (lines.key_of(1).json, lines.key_of("1").json) == ("1", '"1"')
    assert lines.key_of(["a", 1]).identity == lines.key_of(["a", "1"]).identity
    assert lines.key_of('["a","1"]').identity != lines.key_of(["a", "1"]).identity
    assert lines.key_of(5, "x-").json == '"x-5"'


@pytest.mark.parametrize("value", [None, True, 1.5, "", {}, [], [[1]], [None], "a\nb", "\x1ek", "x" * 600])
def test_what_is_no_key(value: Any) -> None:
    with pytest.raises(InputError, match="key"):
        lines.key_of(value)


# --- prompts


def test_a_prompt_names_what_it_needs() -> None:
    source = "{{ a }} {{ b.c }} {{ d | default('x') }} {% if e is defined %}{{ f }}{% endif %} {% for g in h %}{{ g }}{% endfor %}"
    assert Prompt(source, "w").names == {"a", "b", "f", "h"}
    assert Prompt("{{ record['odd name'] }}", "w").render({"odd name": 5}) == "5"
    assert Prompt("{{ range(3) | list }}\n", "w").render({}) == "[0, 1, 2]\n"


@pytest.mark.parametrize(
    "source",
    [
        "{{ a.b.c }}",
        "{{ a.__class__ }}",
        "{{ a.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ 1 // 0 }}",
        "{{ nothing }}",
    ],
)
def test_a_prompt_that_fails_on_a_record_says_why(source: str) -> None:
    with pytest.raises(InputError, match="cannot be rendered"):
        Prompt(source, "w").render({"a": [1]})


def test_a_template_with_a_mistake_is_a_matter_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match="line 2"):
        Prompt("fine\n{{ not closed", "w")


def test_a_revision_changes_with_all_that_is_rendered() -> None:
    base = {"provider": "p", "model": "m", "prompt": "x"}
    variants = [
        base,
        {**base, "prompt": "y"},
        {**base, "system": "s"},
        {**base, "params": {"n": 1}},
        {**base, "schema": {}},
    ]
    specs = [spec_of(WorkloadConfig.model_validate(one), dialect("openai")) for one in variants]
    assert len({revision(spec)[0] for spec in specs}) == len(variants)
    assert revision(specs[0]) == revision(spec_of(WorkloadConfig.model_validate(base), dialect("openai")))


# --- packing


@pytest.mark.parametrize(
    ("waiting", "oldest", "due"),
    [(0, None, False), (4, 900, False), (5, 999, True), (1, 400, True), (1, 401, False), (1, 2000, True)],
)
def test_when_a_workload_is_due(waiting: int, oldest: int | None, due: bool) -> None:
    assert packing.due(waiting, oldest, min_requests=5, max_wait=600, now=1000) is due


def test_limits_can_be_lowered_and_never_raised() -> None:
    vendor = Limits(100, 1000, 50, 400)
    assert packing.lowered(vendor, 10, 300, 5) == Limits(10, 300, 5, 300)
    assert packing.lowered(vendor, 1000, 10**9, 500) == vendor
    assert packing.lowered(vendor._replace(inputs=None), None, None, 5).inputs is None


@pytest.mark.parametrize(
    ("waiting", "why", "until"),
    [((4, 900, None), "threshold", 1500), ((0, None, 1700), "backoff", 1700), ((0, None, None), "backoff", None)],
)
def test_what_is_not_due_says_why_and_until_when(
    waiting: tuple[int, int | None, int | None], why: str, until: int | None
) -> None:
    wait = packing.unripe(packing.Waiting(*waiting), min_requests=5, max_wait=600, now=1000)
    assert wait is not None
    assert (wait.why, wait.until) == (why, until)
    assert packing.unripe(packing.Waiting(5, 999, None), min_requests=5, max_wait=600, now=1000) is None


def test_listing_goes_on_while_it_may_cost_less_than_asking_one_by_one() -> None:
    assert poll.listing_pays(1000, 100, 0, 1000)
    assert poll.listing_pays(10, 100, 9, 1000)
    assert not poll.listing_pays(2, 100, 0, 2)
    assert not poll.listing_pays(50, 100, 2, 50 // 10)


# --- retries


@given(st.integers(1, 60), st.floats(0, 1))
def test_backoff_grows_and_is_bounded(failures_in_a_row: int, jitter: float) -> None:
    pause = backoff.backoff(60, failures_in_a_row, 3600, jitter)
    assert 45 <= pause <= 3600
    assert pause <= backoff.backoff(60, failures_in_a_row + 1, 3600, 0)


@pytest.mark.parametrize("kind", list(ErrorKind))
def test_the_fate_of_each_kind_of_failure(kind: ErrorKind) -> None:
    failure = Failure(kind, "x")
    given_up = TaskStatus.CANCELLED if kind is ErrorKind.CANCELLED else TaskStatus.FAILED
    first = backoff.next_status(failure, 1, 3, superseded=False, now=1000, jitter=0)
    assert first.to is (TaskStatus.PENDING if kind in RETRYABLE else given_up)
    assert (first.not_before > 1000) is (kind in RETRYABLE)
    assert backoff.next_status(failure, 3, 3, superseded=False, now=1000, jitter=0).to is given_up
    assert backoff.next_status(failure, 1, 3, superseded=True, now=1000, jitter=0).to is given_up
    assert backoff.next_status(None, 1, 3, superseded=True, now=1000, jitter=0).to is TaskStatus.COMPLETED


@pytest.mark.parametrize("kind", ErrorKind)
def test_of_a_batch_that_was_wished_cancelled_nothing_is_tried_again(kind: ErrorKind) -> None:
    fates = [
        backoff.next_status(Failure(kind, "x"), n, 3, superseded=False, now=1000, jitter=0, wished=wished)
        for wished in (False, True)
        for n in (1, 3)
    ]
    assert fates[2].to is (TaskStatus.CANCELLED if kind in RETRYABLE else fates[0].to)
    assert (fates[2].not_before, fates[3]) == (0, fates[1])


@pytest.mark.parametrize("kind", [kind for kind in ErrorKind if kind is not ErrorKind.CANCELLED])
@pytest.mark.parametrize("excused", Excuse)
def test_what_is_excused_waits_again_however_often_it_was_tried(kind: ErrorKind, excused: Excuse) -> None:
    def after(*, superseded: bool = False, wished: bool = False) -> backoff.NextStatus:
        return backoff.next_status(Failure(kind, "x"), 9, 3, superseded, 1000, 0, wished=wished, excused=excused)

    assert after().to is TaskStatus.PENDING
    assert (after().not_before == 1000) is (excused in (Excuse.ALIKE, Excuse.CANARY))
    assert after(wished=True).to is TaskStatus.CANCELLED
    assert after(superseded=True).to is TaskStatus.FAILED


def test_a_pause_further_away_than_any_backoff_is_over() -> None:
    assert backoff.until(1500, 1000) == 1500
    assert backoff.until(900, 1000) == 0
    assert backoff.until(1000 + LONGEST_BACKOFF + 1, 1000) == 0


@pytest.mark.parametrize(
    ("code", "line", "n", "verdict"),
    [
        ("token_limit_exceeded", None, 10, backoff.Remedy(pause=True)),
        ("model_not_found", None, 10, backoff.Remedy(pause=True, counted=True)),
        ("server_error", 1, 10, backoff.Remedy(pause=True, counted=True)),
        ("too_many_tasks", None, 10, backoff.Remedy(smaller=True)),
        ("too_many_tasks", None, 1, backoff.Remedy(search=True)),
        ("invalid_json_line", 4, 10, backoff.Remedy((4,), search=True)),
        ("invalid_json_line", 40, 10, backoff.Remedy(search=True)),
        ("something_new", None, 10, backoff.Remedy(search=True)),
        ("something_new", None, 1, backoff.Remedy(search=True)),
        (None, None, 2, backoff.Remedy(search=True)),
    ],
)
def test_what_a_refused_batch_tells(code: str | None, line: int | None, n: int, verdict: backoff.Remedy) -> None:
    fault = Rejection(code, "m", line)
    assert backoff.remedy_for([fault], {dialect("openai").reason(fault)}, n) == verdict


def test_a_create_whose_file_was_not_looked_at_is_no_requests_fault_unless_it_names_one() -> None:
    told = [Rejection("odd", "m", None)]
    assert backoff.remedy_for(told, {Reason.CONTENT}, 5, content=False) == backoff.Remedy(pause=True, counted=True)
    named = [Rejection("odd", "m", 2), Rejection("odd", "m", 2), Rejection("odd", "m", 4), Rejection("odd", "m", 9)]
    assert backoff.remedy_for(named, {Reason.CONTENT}, 5, content=False) == backoff.Remedy((2, 4), search=True)


def test_a_batch_of_suspects_holds_one_kind_and_half_of_what_was_refused_together() -> None:
    among = [Due(n, "among", 1, 5) for n in range(5)]
    assert search.turn(among, 100) == [0, 1, 2]
    assert search.turn(among[3:], 100) == [3, 4]
    assert search.turn(among, 2) == [0, 1]
    assert search.turn([Due(1, "among", 1, 2), Due(2, "among", 2, 9)], 100) == [1]
    alone = [Due(6, "alone", 2, 1), Due(7, "alone", 3, 1)]
    named = [Due(8, "named", 4, 9), Due(9, "named", 5, 9)]
    assert search.turn([*among[4:], *alone, *named], 100) == [4]
    assert search.turn([*alone, *named], 100) == [6]
    assert search.turn(named, 100) == [8, 9]
    assert search.turn([], 100) == []


@pytest.mark.parametrize("requests", range(1, 40))
def test_halving_ends_with_each_one_alone(requests: int) -> None:
    left = [Due(n, "among", 0, requests) for n in range(requests)]
    batches = 0
    while left:  # whatever is sent is refused
        batches += 1
        chosen = search.turn(left, 1000)
        left = [one for one in left if one.task_id not in chosen]
        left += [Due(n, "among", batches, len(chosen)) for n in chosen if len(chosen) > 1]
    assert batches <= max(1, 2 * requests - 2)


def test_a_row_of_refusals_is_counted_from_the_last_witness_on() -> None:
    standing = Standing(refusals=4, refused_at=100, refused_after=7)
    assert search.row(standing, 8, witness=False) == search.Row(5, witness=False, later=True)
    assert search.row(standing, 7, witness=False) == search.Row(4, witness=False, later=False)
    assert search.row(standing, 8, witness=True) == search.Row(1, witness=True, later=True)
    assert not search.row(standing._replace(refusals=18), 8, witness=False).over
    assert search.row(standing._replace(refusals=19), 8, witness=False).over


@pytest.mark.parametrize(
    ("refusals", "witness", "later", "beside", "rests"),
    [
        (1, False, True, False, True),  # nothing else to send, and nobody was taken
        (1, False, True, True, False),  # the sister goes first
        (1, True, True, False, False),
        (2, False, True, True, True),  # a second one in a row
        (2, False, False, False, False),  # it was under way with the first
    ],
)
def test_when_a_route_rests_in_a_search(refusals: int, witness: bool, later: bool, beside: bool, rests: bool) -> None:
    assert search.rests(search.Row(refusals, witness, later), beside=beside) is rests


def test_what_was_named_waits_for_the_rest_and_others_for_a_witness() -> None:
    among, named = Due(1, "among", 1, 2), Due(2, "named", 1, 2)
    alone_there = search.Search(pardoned=False, witness=False, under_way=False, undecided=False)
    assert alone_there.goes_on(among)
    assert alone_there.goes_on(named)
    assert not alone_there._replace(under_way=True).goes_on(among)
    assert alone_there._replace(under_way=True, witness=True).goes_on(among)
    assert alone_there._replace(under_way=True, pardoned=True).goes_on(among)
    assert not alone_there._replace(undecided=True).goes_on(named)
    assert not alone_there._replace(witness=True).goes_on(named)


def test_routes_pause_longer_and_recover() -> None:
    route = Route("p", "e", "m", 0, 0, None, None)
    refusal = backoff.Remedy(pause=True, smaller=True)
    pauses = []
    now = 0
    for _ in range(6):
        route = backoff.after_refusal(route, refusal, 100, "why", now, 0)
        assert (
            backoff.after_refusal(route, refusal, 100, "why", now + 9, 0) == route
        )  # sent before the pause, like the first
        pauses.append((route.paused_until - now) // 60)
        now = route.paused_until
    assert pauses == [5, 10, 20, 40, 80, 80]
    assert route.cap == 50
    assert backoff.after_refusal(route, refusal, 500, "why", now, 0).cap == 50
    assert backoff.after_accept(route, 50) == route
    rested = backoff.after_success(route, 50)
    assert (rested.paused_until, rested.failures_in_a_row, rested.cap) == (0, 0, 100)
    assert backoff.after_success(rested._replace(cap=30_000), 30_000).cap is None
    assert backoff.after_outage(Route("p", "", "", 0, 0, None, None), "w", 5000, 0, 0).paused_until == 5000


# --- judging


def classify(spec: Spec) -> Classifier:
    return Classifier(dialect("openai"), spec, Prices("openai"))


def chat(text: str, **more: Any) -> ResultLine:
    choice = {"message": {"content": text}, "finish_reason": more.get("reason", "stop")}
    body = {"model": "gpt-4.1-mini", "choices": [choice], "usage": {"prompt_tokens": 1000, "completion_tokens": 100}}
    return ResultLine("t-1", json.dumps(body).encode(), None, 200)


def test_an_answer_is_priced_by_the_model_that_gave_it() -> None:
    found = classify(Spec(dialect="openai", endpoint="/v1/chat/completions", model="gpt-4.1-mini-2025-04-14")).classify(
        chat("x")
    )
    assert found.failure is None
    assert (found.charge.cost, found.charge.list_cost) == (280_000_000, 560_000_000)


def test_what_models_say_is_shortened_to_one_harmless_line() -> None:
    assert shorten("a\x1b[31m\nb\u202ec") == "a [31m b c"
    assert len(shorten("x" * 10_000)) == 500


# --- prices


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-4.1-mini"),
        ("openai", "gpt-5.4"),
        ("openai", "o4-mini"),
        ("anthropic", "claude-sonnet-4-5"),
        ("anthropic", "claude-haiku-4-5"),
    ],
)
@settings(max_examples=25)
@given(tokens=st.integers(0, 400_000), cached=st.floats(0, 1), output=st.integers(0, 50_000))
def test_rates_agree_with_the_price_list(provider: str, model: str, tokens: int, cached: float, output: int) -> None:
    import genai_prices

    usage = Usage(tokens, int(tokens * cached), 0, output)
    found = Prices(provider).cost(model, usage)
    assert found is not None
    theirs = genai_prices.Usage(
        input_tokens=usage.input_tokens, cache_read_tokens=usage.cached_input_tokens, output_tokens=output
    )
    for ours, context in ((found.list, None), (found.paid, {"processing": "batch"})):
        if context and usage.cached_input_tokens:
            continue  # the list has no batch price for some models' cached tokens; the vendors halve these, too
        price = genai_prices.calc_price(theirs, model, provider_id=provider, price_context=context).total_price
        assert abs(ours - int(price * 10**12)) <= 1
    assert found.paid <= found.list


def test_cached_tokens_are_half_price_too() -> None:
    found = Prices("openai").cost("gpt-4.1-mini", Usage(1000, 1000))
    assert found is not None
    assert found.paid * 2 == found.list


def test_prices_known_by_the_vendors_half_and_not_at_all() -> None:
    embedding = Prices("openai").cost("text-embedding-3-small", Usage(10**6))
    assert embedding is not None
    assert embedding.paid * 2 == embedding.list
    assert Prices("openai").cost("home-made", Usage(5)) is None
    assert Prices("openai").cost("gpt-4.1-mini", Usage(5, 10)) is None
    assert Prices("openai", "http://gateway.internal/v1").cost("gpt-4.1-mini", Usage(5)) is not None
    groq = Prices("openai", "https://api.groq.com/openai/v1").cost("llama-3.3-70b-versatile", Usage(1000))
    assert groq is not None


@given(st.integers(0, 10**18))
def test_dollars_are_plain_decimals(pico: int) -> None:
    text = decimal_dollars(pico)
    assert text is not None
    assert Decimal(text) == Decimal(pico) / 10**12
    assert "E" not in text
    assert len(text.partition(".")[2]) >= 2


# --- exit codes, states, times


def test_exit_codes() -> None:
    def codes(*found: int, worked: bool = False) -> int:
        return exit_code([Problem(ProblemKind.TASK, "m", code) for code in found], worked)

    assert codes() == 0
    assert codes(75) == 75
    assert codes(75, worked=True) == 3
    assert codes(75, 77) == 3
    assert codes(77) == 77
    assert codes(78) == 78
    assert codes(3, 1) == 1


def test_every_arrow_leads_from_a_state_to_a_state_and_finals_have_none() -> None:
    assert set(TASK_ARROWS) == set(TaskStatus)
    assert set(BATCH_ARROWS) == set(BatchStatus)
    finals = {state for state, arrows in BATCH_ARROWS.items() if not arrows}
    assert finals == {BatchStatus.RECONCILED, BatchStatus.FAILED}
    for column, kind in (("status", TaskStatus), ("status", BatchStatus), ("error_kind", ErrorKind)):
        listed = ", ".join(repr(str(value)) for value in kind)
        assert f"CHECK ({column} IN ({listed}))" in "".join(schema.STEPS)


@freeze_time("2026-03-29T01:30:00Z")
def test_times_are_utc_and_readable() -> None:
    assert clock.rfc3339(clock.now()) == "2026-03-29T01:30:00Z"
    assert clock.parse("2026-03-29T03:30:00+02:00") == clock.now()
    assert clock.parse("2026-03-29") == clock.now() - 5400
    assert [clock.span(n) for n in (-5, 59, 60, 3661, 90000, 86400)] == ["0s", "59s", "1m", "1h 1m", "1d 1h", "1d"]


# --- who speaks SQL


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_state_package_speaks_sql_to_the_state_file(path: Path) -> None:
    part = path.relative_to(PACKAGE).parts[0]
    if part in ("state", "sandbox", "delivery"):  # delivery speaks to the application's own databases
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not node.value.startswith(("SELECT ", "INSERT ", "UPDATE ", "DELETE ")), node.value
