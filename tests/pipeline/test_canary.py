"""A new revision shows itself with a few requests before the rest of it is sent; no task fails by that."""

import re
import shlex
import sqlite3
from typing import Any

import pytest

from nura_cli.cli import show as show_command
from nura_cli.config import CanaryConfig
from nura_cli.dialects.base import ResultLine
from nura_cli.errors import EX_OK, EX_PARTIAL, EX_UNEXPECTED, ProblemKind
from nura_cli.pipeline import canary, holding
from nura_cli.pipeline.canary import Verdict
from nura_cli.pipeline.classify import Classifier
from nura_cli.pipeline.classify import Verdict as Classified
from nura_cli.pipeline.report import Report
from nura_cli.state import State
from nura_cli.state.answers import Failure
from nura_cli.state.canaries import UnderWay
from nura_cli.state.standings import Held
from nura_cli.states import Blame, ErrorKind, Excuse
from tests.conftest import OPENAI_FIRST, Spool
from tests.pipeline.forks import Command
from tests.pipeline.test_dry_run import agreed

pytestmark = pytest.mark.long

HOUR = 3600
BROKEN = {
    "type": "object",
    "properties": {"topic": {"type": "string"}},
    "required": ["topic"],
    "additionalProperties": False,
}


def careful(spool: Spool, **options: Any) -> None:
    """Let new revisions of the workload, which has a schema, show themselves first."""
    spool.set(schema=BROKEN, canary=options)


def useless(spool: Spool, match: str = "record", times: int = -1) -> None:
    """Let answers break the schema: of records with this text, in so many batches."""
    spool.control.fault("invalid", mode="schema", match=match, times=times)


def record(n: int, words: str = "a") -> dict[str, Any]:
    """Return a record."""
    return {"id": n, "text": f"{words} record number {n} "}


def holds(spool: Spool) -> list[str]:
    """Return why nura itself holds workloads."""
    return [hold["origin"] for hold in spool.status()["holds"] if hold["origin"]]


def sizes(spool: Spool) -> list[tuple[Any, ...]]:
    """Return (requests, canary) of every batch."""
    return spool.rows("SELECT requests, canary FROM batches ORDER BY id")


def excuses(spool: Spool) -> list[tuple[Any, ...]]:
    """Return how attempts ended, why they do not count, and how many did so."""
    return spool.rows("SELECT outcome, excused, count(*) FROM attempts GROUP BY 1, 2 ORDER BY 1, 2")


def passed(spool: Spool) -> int:
    """Return how many revisions have shown themselves."""
    return int(spool.rows("SELECT count(*) FROM standings WHERE canary = 'passed'")[0][0])


def waits(report: Report) -> int:
    """Return how many tasks wait for a canary."""
    return int(report.result["not_due"]["canary"])


def bring_home(spool: Spool) -> Report:
    """Run poll and reconcile; return what the latter says."""
    spool.poll()
    return spool.reconcile()


# --- a revision that fails


def test_a_broken_schema_costs_no_more_than_the_canary_and_nothing_fails(spool: Spool) -> None:
    careful(spool)
    useless(spool)
    spool.fill(2000)
    sent, _, settled = spool.round()
    assert (sent.result["requests"], waits(sent), sent.exit_code) == (20, 1980, EX_OK)
    (held,) = [one for one in settled.problems if one.kind is ProblemKind.HELD]
    assert (settled.exit_code, held.exit_code, held.hint) == (EX_PARTIAL, EX_PARTIAL, "nura release echo")
    for _ in range(6):
        spool.clock.advance(7 * 3600)
        sent, _, settled = spool.round()
        assert (sent.result["requests"], sent.exit_code, settled.exit_code) == (0, EX_OK, EX_OK)
        assert sent.result["not_due"]["held"] == 2000
    assert spool.control.billing()["requests"] == 20
    assert spool.rows("SELECT status, attempts, count(*) FROM tasks GROUP BY 1, 2") == [("pending", 0, 2000)]
    assert excuses(spool) == [("invalid_output", "canary", 20)]
    assert spool.status()["usage"]["input_tokens"] == spool.control.billing()["input_tokens"]
    spool.check()


def test_the_hold_has_counts_and_a_key_to_look_at_and_nothing_of_an_answer(spool: Spool) -> None:
    careful(spool)
    useless(spool, "poor")
    spool.enqueue(*({"id": f"it's {n}", "text": f"{'good' if n < 2 else 'poor'} one"} for n in range(40)))
    spool.round()
    (reason,) = holds(spool)
    ((revision,),) = spool.rows("SELECT DISTINCT revision FROM batches")
    words = f"18 of its first 20 answers under revision {revision} are of no use (invalid_output 18)"
    assert reason.startswith(f"{words}, so nothing more of it is sent; see nura show echo ")
    assert "unexpected" not in reason
    *_, workload, key = shlex.split(reason)
    (shown,) = spool.show(key, workload=workload)["keys"]
    (attempt,) = shown["tasks"][0]["attempts"]
    assert (attempt["outcome"], attempt["excused"]) == ("invalid_output", "canary")


def test_a_revision_fails_though_all_that_failed_by_it_was_purged(openai_spool: Spool) -> None:
    spool = openai_spool
    careful(spool)
    useless(spool, "poor")
    spool.enqueue(*(record(n, "poor") for n in range(5)))
    spool.dispatch()
    spool.enqueue(*(record(n, "good") for n in range(5, 11)))
    bring_home(spool)
    assert spool.counts()["pending"] == 11
    spool.purge(*map(str, range(5)))
    for _ in range(2):
        spool.clock.advance(7 * 3600)
        spool.round()
    assert (spool.counts()["completed"], spool.counts()["pending"]) == (6, 0)
    (reason,) = holds(spool)
    assert reason.endswith("see nura show echo --batch 2")
    spool.check()


def test_good_answers_of_a_canary_that_fails_are_kept_and_told(spool: Spool) -> None:
    told = spool.folder / "told"
    careful(spool)
    spool.set(events=[{"types": ["task.completed"], "command": ["tee", "-a", str(told)]}])
    useless(spool, "poor")
    spool.enqueue(*(record(n, "poor" if n % 2 else "good") for n in range(40)))
    spool.round()
    assert len(holds(spool)) == 1
    assert (spool.counts()["completed"], spool.counts()["pending"], spool.counts()["failed"]) == (10, 30, 0)
    assert told.read_text().count("task.completed") == 10
    spool.check()


@pytest.mark.parametrize(("bad", "held"), [(2, False), (3, True)])
def test_it_is_held_where_more_than_the_share_failed(spool: Spool, bad: int, held: bool) -> None:
    careful(spool, max_failed="10%")
    useless(spool, "poor")
    spool.enqueue(*(record(n, "poor" if n < bad else "good") for n in range(30)))
    spool.round()
    assert bool(holds(spool)) is held
    assert passed(spool) is not held
    assert spool.counts()["pending"] == 10 + bad
    counted = {(excused,) for outcome, excused, _ in excuses(spool) if outcome != "answered"}
    assert counted == {("canary" if held else None,)}
    spool.check()


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        (("rows", {"status": 400, "message": "no such parameter"}), "refused"),
        (("invalid", {"mode": "refusal"}), "refusal"),
        (("invalid", {"mode": "length"}), "truncated"),
    ],
    ids=["refused", "refusal", "truncated"],
)
def test_what_is_the_fault_of_what_was_sent_counts(spool: Spool, what: tuple[str, dict[str, Any]], kind: str) -> None:
    careful(spool)
    spool.control.fault(what[0], match="record", times=-1, **what[1])
    spool.fill(60)
    spool.round()
    (reason,) = holds(spool)
    assert "20 of its first 20 answers under revision" in reason
    assert f"({kind} 20)" in reason
    assert spool.rows("SELECT DISTINCT status, attempts FROM tasks") == [("pending", 0)]
    assert spool.rows("SELECT held FROM standings") == [("canary",)]
    spool.check()


def test_a_mended_prompt_starts_a_canary_of_its_own_once_it_is_released(spool: Spool) -> None:
    careful(spool)
    useless(spool, "Repeat")
    spool.fill(60)
    spool.round()
    spool.set(prompt="Say: {{ text }}")
    assert spool.dispatch().result["not_due"]["held"] == 60
    spool.release("echo")
    assert agreed(spool)["requests"] == 20
    bring_home(spool)
    assert agreed(spool)["requests"] == 40
    bring_home(spool)
    assert spool.counts()["completed"] == 60
    assert {answer["attempts"] for answer in spool.results()} == {1}
    spool.check()


def test_a_mended_prompt_that_fails_too_is_held_again(spool: Spool) -> None:
    careful(spool)
    useless(spool)
    spool.fill(60)
    for prompt in ("Say: {{ text }}", "Tell: {{ text }}"):
        spool.round()
        assert len(holds(spool)) == 1
        spool.set(prompt=prompt)
        spool.release("echo")
    assert sizes(spool) == [(20, 1)] * 2
    assert (spool.counts()["failed"], spool.counts()["pending"]) == (0, 60)


def test_a_release_lets_the_revision_go_for_good(spool: Spool) -> None:
    careful(spool)
    spool.set(retry={"max_attempts": 1})
    useless(spool)
    spool.fill(60)
    spool.round()
    spool.release("echo")
    assert agreed(spool)["requests"] == 60
    bring_home(spool)
    assert spool.counts()["failed"] == 60
    spool.enqueue(*(record(n) for n in range(100, 130)))
    assert agreed(spool)["requests"] == 30
    bring_home(spool)
    assert spool.counts()["failed"] == 90
    assert holds(spool) == []
    spool.check()


# --- a revision that passes


def test_what_passes_sends_the_rest_and_is_asked_no_more(spool: Spool) -> None:
    careful(spool)
    spool.set(retry={"max_attempts": 1})
    spool.fill(300)
    first = agreed(spool)
    assert (first["requests"], first["not_due"]["canary"]) == (20, 280)
    (wait,) = first["waits"]
    assert re.search(r"^revision [0-9a-f]{12} shows itself with its first 20 requests", wait["message"])
    assert agreed(spool)["requests"] == 0
    assert bring_home(spool).exit_code == EX_OK
    assert passed(spool) == 1
    assert agreed(spool)["requests"] == 280
    bring_home(spool)
    assert sizes(spool) == [(20, 1), (280, 0)]
    assert spool.counts()["completed"] == 300
    useless(spool)
    spool.enqueue(*(record(n) for n in range(500, 540)))
    assert agreed(spool)["requests"] == 40
    bring_home(spool)
    assert (spool.counts()["failed"], holds(spool)) == (40, [])
    spool.check()


def test_another_revision_shows_itself_anew_and_one_that_passed_does_not(spool: Spool) -> None:
    careful(spool)
    prompts = ["Repeat: {{ text }}", "Say: {{ text }}", "Repeat: {{ text }}"]
    sent = []
    for n, prompt in enumerate(prompts):
        spool.set(prompt=prompt)
        spool.enqueue(*(record(100 * n + m) for m in range(30)))
        sent.append(agreed(spool)["requests"])
        bring_home(spool)
        spool.settle()
    assert sent == [20, 20, 30]


def test_a_revision_that_was_answered_before_has_passed(spool: Spool) -> None:
    spool.set(schema=BROKEN)
    spool.enqueue(record(1))
    spool.round()
    careful(spool)
    spool.enqueue(*(record(n) for n in range(10, 60)))
    assert agreed(spool)["requests"] == 50


def test_without_the_option_nothing_waits_and_what_was_a_canary_counts_as_everywhere(spool: Spool) -> None:
    careful(spool)
    useless(spool)
    spool.set(retry={"max_attempts": 1})
    spool.fill(60)
    assert agreed(spool)["requests"] == 20
    spool.set(canary=None)
    assert agreed(spool)["requests"] == 40
    bring_home(spool)
    assert (spool.counts()["failed"], holds(spool)) == (60, [])


def test_what_was_sent_beyond_the_canary_counts_as_everywhere(spool: Spool) -> None:
    spool.set(schema=BROKEN, retry={"max_attempts": 1})
    useless(spool)
    spool.fill(30)
    spool.dispatch()
    careful(spool)
    spool.enqueue(*(record(n) for n in range(50, 90)))
    assert agreed(spool)["requests"] == 20
    bring_home(spool)
    assert sizes(spool) == [(30, 0), (20, 1)]
    assert (spool.counts()["failed"], spool.counts()["pending"]) == (30, 40)
    assert len(holds(spool)) == 1


# --- what does not count


def test_a_canary_that_expired_is_sent_again_with_others(spool: Spool) -> None:
    careful(spool)
    spool.fill(60)
    spool.control.fault("expire", fraction=0)
    for _ in range(2):
        assert agreed(spool)["requests"] == 20
        bring_home(spool)
        spool.clock.advance(86400)
    assert passed(spool) == 1
    spool.settle()
    assert spool.counts()["completed"] == 60
    assert sizes(spool) == [(20, 1), (20, 1), (40, 0)]
    spool.check()


def test_of_one_that_expired_in_part_ten_answers_are_enough(spool: Spool) -> None:
    careful(spool)
    spool.enqueue(*(record(n, "late" if n < 10 else "soon") for n in range(60)))
    spool.control.fault("expire", match="soon")
    useless(spool)
    spool.round()
    (reason,) = holds(spool)
    assert reason.startswith("10 of its first 10 answers")
    assert excuses(spool) == [("expired", "expired", 10), ("invalid_output", "canary", 10)]


def test_with_fewer_than_ten_more_are_sent_and_nobody_is_held_yet(spool: Spool) -> None:
    careful(spool)
    spool.enqueue(*(record(n, "late" if n < 11 else "soon") for n in range(60)))
    spool.control.fault("expire", match="soon")
    useless(spool)
    _, _, settled = spool.round()
    (said,) = [one for one in settled.problems if one.about == "canary"]
    assert said.message.startswith("echo: 9 tasks wait again, no attempt counted: ")
    assert settled.exit_code == EX_OK
    assert (holds(spool), passed(spool)) == ([], 0)
    assert agreed(spool)["requests"] == 11
    bring_home(spool)
    (reason,) = holds(spool)
    assert reason.startswith("20 of its first 20 answers")
    assert spool.control.billing()["requests"] == 20
    assert spool.rows("SELECT DISTINCT status, attempts FROM tasks") == [("pending", 0)]
    spool.check()


@pytest.mark.parametrize("status", [500, 429])
def test_a_5xx_and_a_429_say_nothing_of_a_revision(spool: Spool, status: int) -> None:
    careful(spool)
    spool.enqueue(*(record(n, "poor" if n < 12 else "good") for n in range(60)))
    spool.control.fault("rows", match="poor", status=status, message="not now", times=1)
    spool.round()
    assert (holds(spool), passed(spool)) == ([], 0)
    spool.clock.advance(2 * 3600)
    assert agreed(spool)["requests"] == 12
    bring_home(spool)
    assert passed(spool) == 1
    spool.settle()
    assert spool.counts()["completed"] == 60
    spool.check()


TROUBLE: dict[str, dict[str, Any]] = {
    "money": {"status": 429, "code": "insufficient_quota", "message": "You exceeded your current quota."},
    "model": {"status": 404, "message": "The model `gpt-9` does not exist or you do not have access to it."},
}


@pytest.mark.parametrize("what", TROUBLE)
def test_the_account_s_trouble_says_nothing_of_a_revision(openai_spool: Spool, what: str) -> None:
    spool = openai_spool
    careful(spool)
    spool.fill(60)
    spool.control.fault("rows", **TROUBLE[what])
    spool.round()
    assert [(excused, n) for _, excused, n in excuses(spool)] == [("account", 20)]
    assert (holds(spool), passed(spool)) == ([], 0)
    spool.settle()
    assert sizes(spool) == [(20, 1), (20, 1), (40, 0)]


def test_one_that_a_person_cancelled_is_followed_by_another(spool: Spool) -> None:
    careful(spool)
    spool.control.settings(delay=3600)
    spool.fill(60)
    spool.dispatch()
    spool.cancel(batch=1)
    spool.clock.advance(7200)
    bring_home(spool)
    assert (spool.counts()["cancelled"], spool.counts()["pending"]) == (20, 40)
    assert agreed(spool)["requests"] == 20
    spool.settle()
    assert (passed(spool), spool.counts()["completed"]) == (1, 40)
    spool.check()


def test_one_that_was_refused_whole_is_followed_by_another(spool: Spool) -> None:
    careful(spool)
    spool.control.fault("refuse", code="token_limit_exceeded", message="Enqueued token limit reached")
    spool.fill(60)
    spool.settle()
    assert (passed(spool), spool.counts()["completed"]) == (1, 60)
    assert sum(n for n, shows in sizes(spool)[1:] if shows) == 10  # half of it, and enough for a verdict
    spool.check()


def test_what_cannot_be_rendered_takes_no_place_of_it(spool: Spool) -> None:
    careful(spool)
    spool.set(prompt="Say: {{ text.upper() }}")
    spool.enqueue(*({"id": n, "text": None} if n % 10 == 0 else record(n) for n in range(60)))
    foretold = agreed(spool)
    assert (foretold["requests"], foretold["not_due"]["canary"]) == (20, 37)
    assert [shows for _, shows in sizes(spool)] == [1] * len(sizes(spool))
    assert spool.counts()["failed"] == 3
    bring_home(spool)
    assert (holds(spool), passed(spool)) == ([], 1)


@pytest.mark.parametrize("requests", [3, 20])
def test_a_prompt_that_renders_nothing_fails_nobody_however_small_the_canary(spool: Spool, requests: int) -> None:
    spool.enqueue({"id": -1, "text": "x", "more": {"deep": 1}}, *(record(n) for n in range(80)))
    spool.set(prompt="Say: {{ text }} {{ more.deep }}", canary={"requests": requests})  # what the others lack
    spool.dispatch()
    assert spool.counts()["failed"] == 0
    assert len(holds(spool)) == 1


def test_one_that_fails_while_its_workload_is_held_for_something_else_is_said_all_the_same(spool: Spool) -> None:
    careful(spool, requests=10)
    useless(spool)
    spool.fill(50)
    spool.dispatch()
    with State(spool.state_path, spool.clock) as state, state.transaction() as db:
        ((revision,),) = db.execute("SELECT revision FROM batches").fetchall()
        holding.hold_by_itself(db, "echo", revision, Held.ACCOUNT, "no credit")
    bring_home(spool)
    assert len(holds(spool)) == 2


# --- few tasks


def test_a_few_are_not_enough_where_others_of_the_batch_wait_again(spool: Spool) -> None:
    careful(spool)
    spool.enqueue(*(record(n, "late" if n < 4 else "soon") for n in range(8)))
    spool.control.fault("expire", match="soon")
    useless(spool)
    spool.round()
    assert (holds(spool), passed(spool)) == ([], 0)
    spool.clock.advance(3600)
    spool.round()
    assert holds(spool)[0].startswith("12 of its first 12 answers")


@pytest.mark.parametrize("n", [1, 4, 9])
def test_where_nothing_more_waits_a_few_answers_are_enough(spool: Spool, n: int) -> None:
    careful(spool)
    useless(spool, times=1)
    spool.fill(n)
    spool.round()
    (reason,) = holds(spool)
    first = "its first answer under" if n == 1 else f"{n} of its first {n} answers under"
    assert reason.startswith(first)
    assert spool.counts()["pending"] == n
    spool.release("echo")
    spool.settle()
    assert spool.counts()["completed"] == n


def test_few_good_ones_pass_too(spool: Spool) -> None:
    careful(spool)
    spool.fill(3)
    spool.round()
    assert passed(spool) == 1


def test_a_canary_smaller_than_ten_is_enough(spool: Spool) -> None:
    careful(spool, requests=3)
    useless(spool)
    spool.fill(60)
    spool.round()
    assert sizes(spool) == [(3, 1)]
    assert holds(spool)[0].startswith("3 of its first 3 answers")


def test_one_that_is_never_enough_by_itself_comes_to_a_verdict(spool: Spool) -> None:
    """Something waits whenever it comes home, and it is sent again each time: at most as often as it has requests."""
    careful(spool)
    useless(spool)
    for n in range(12):
        spool.enqueue(record(n))
        spool.dispatch()
        spool.enqueue(record(100 + n))
        bring_home(spool)
        if holds(spool):
            break
    assert len(holds(spool)) == 1
    assert spool.control.billing()["requests"] <= 20
    assert spool.counts()["failed"] == 0
    spool.check()


def test_fewer_requests_than_were_judged_leave_nothing_waiting_for_ever(spool: Spool) -> None:
    careful(spool)
    spool.enqueue(*(record(n, "late" if n < 12 else "soon") for n in range(60)))
    spool.control.fault("expire", match="soon")
    spool.round()
    assert passed(spool) == 0
    careful(spool, requests=5)
    assert agreed(spool)["requests"] == 1
    bring_home(spool)
    assert passed(spool) == 1


# --- several batches, queues and runs


def test_several_batches_are_one_canary_which_is_waited_for_whole(spool: Spool) -> None:
    spool.providers["main"] = spool.provider(limits={"requests": 6})
    careful(spool)
    useless(spool)
    spool.fill(60)
    assert agreed(spool)["requests"] == 20
    assert sizes(spool) == [(6, 1), (6, 1), (6, 1), (2, 1)]
    spool.control.fault("status", "download", status=500, times=1)
    bring_home(spool)
    assert holds(spool) == []
    assert agreed(spool)["requests"] == 0
    assert spool.counts()["failed"] == 0
    bring_home(spool)
    assert holds(spool)[0].startswith("20 of its first 20 answers")
    assert spool.control.billing()["requests"] == 20
    spool.check()


def test_one_that_others_join_in_a_later_run_is_shared(spool: Spool) -> None:
    careful(spool)
    spool.control.settings(delay=3600)
    for first, sent in ((0, 8), (100, 8), (200, 4), (300, 0)):
        spool.enqueue(*(record(n) for n in range(first, first + 8)))
        assert agreed(spool)["requests"] == sent
    spool.clock.advance(7200)
    bring_home(spool)
    assert passed(spool) == 1


def ready(n: int, model: str) -> dict[str, Any]:
    """Return a line of the vendor's own."""
    body = {"model": model, "messages": [{"role": "user", "content": f"a record number {n} "}]}
    return {"custom_id": f"c{n}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def test_each_model_of_ready_lines_shows_itself(openai_spool: Spool) -> None:
    spool = openai_spool
    options = {name: value for name, value in spool.workload().items() if name not in ("prompt", "params", "model")}
    spool.workloads["echo"] = options | {"canary": {"requests": 5}}
    spool.write_config()
    models = (spool.model, f"{spool.model}-other")
    spool.enqueue(*(ready(n, models[n % 2]) for n in range(30)))
    spool.control.fault("invalid", mode="refusal", match="-other", times=-1)
    first = agreed(spool)
    assert [batch[5] for batch in first["batches"]] == [5, 5]
    bring_home(spool)
    assert (passed(spool), len(holds(spool))) == (1, 1)
    spool.release("echo")
    assert agreed(spool)["requests"] == 25
    bring_home(spool)
    assert spool.counts()["failed"] == 15


def test_a_person_s_hold_and_release_meanwhile_cost_no_second_canary(spool: Spool) -> None:
    careful(spool)
    useless(spool)
    spool.control.settings(delay=3600)
    spool.fill(60)
    spool.dispatch()
    spool.hold("echo")
    spool.release("echo")
    assert agreed(spool)["requests"] == 0
    spool.clock.advance(7200)
    bring_home(spool)
    assert len(holds(spool)) == 1
    assert spool.control.billing()["requests"] == 20


def test_one_that_is_being_written_is_waited_for(spool: Spool) -> None:
    spool.providers["main"] = spool.provider(limits={"requests": 10})
    careful(spool)
    useless(spool)
    spool.fill(60)
    decided = []

    def meanwhile(progress: str) -> None:
        if "writing batch 2" in progress:
            bring_home(spool)
            decided.append(holds(spool))

    spool.dispatch(progress=meanwhile)
    assert (sizes(spool), decided) == ([(10, 1), (10, 1)], [[]])
    assert spool.rows("SELECT status FROM batches WHERE id = 1") == [("reconciled",)]
    bring_home(spool)
    assert holds(spool)[0].startswith("20 of its first 20 answers")
    assert spool.control.billing()["requests"] == 20
    spool.check()


# --- kills


def interrupted(spool: Spool, monkeypatch: pytest.MonkeyPatch, chunks: int = 1) -> None:
    """Let reconcile end, as by a kill, after some chunks of four rows."""
    calls: list[int] = []

    def stop(self: State) -> None:
        calls.append(1)
        if len(calls) == chunks:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("nura_cli.pipeline.reconcile.CHUNK_LINES", 4)
        patched.setattr(State, "yield_to_writers", stop)
        with pytest.raises(KeyboardInterrupt):
            spool.reconcile()


@pytest.mark.parametrize("bad", [2, 20])
def test_a_verdict_stands_wherever_the_settling_was_cut_off(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, bad: int
) -> None:
    careful(spool)
    useless(spool, "poor")
    spool.enqueue(*(record(n, "poor" if n < bad else "good") for n in range(60)))
    spool.dispatch()
    spool.poll()
    interrupted(spool, monkeypatch, chunks=2)
    assert spool.counts()["submitted"] == 12
    spool.control.settings(delay=3600)
    sent = spool.dispatch().result["requests"]
    assert (sent > 0) is (bad == 2)
    spool.reconcile()
    assert (bool(holds(spool)), passed(spool)) == (bad == 20, int(bad == 2))
    assert spool.counts()["failed"] == 0
    assert {excused for outcome, excused, _ in excuses(spool) if outcome != "answered"} == {
        "canary" if bad == 20 else None
    }
    spool.check()


def test_what_was_settled_before_is_counted_once(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    careful(spool)
    useless(spool)
    spool.fill(9)
    spool.dispatch()
    spool.enqueue(record(100))
    spool.poll()
    interrupted(spool, monkeypatch)
    spool.reconcile()
    assert holds(spool) == []  # nine answers, and another one waits
    assert excuses(spool) == [("invalid_output", "canary", 9)]
    assert agreed(spool)["requests"] == 10
    bring_home(spool)
    assert holds(spool)[0].startswith("19 of its first 19 answers")


def test_what_came_home_late_counts_with_what_came_before(spool: Spool) -> None:
    careful(spool)
    useless(spool)
    spool.control.fault("short", match="number 1", seconds=600)  # 1, 10 and 11
    spool.fill(12)
    spool.dispatch()
    spool.enqueue(record(100))
    bring_home(spool)
    assert excuses(spool) == [("invalid_output", "canary", 9)]
    assert holds(spool) == []
    spool.clock.advance(7200)
    bring_home(spool)
    assert holds(spool)[0].startswith("12 of its first 12 answers")
    assert spool.counts()["pending"] == 13
    spool.check()


@pytest.mark.parametrize(
    "kill_at", [20, 45, 70, 100, *(pytest.param(n, marks=pytest.mark.long) for n in range(110, 400, 30))]
)
@pytest.mark.parametrize("spool", OPENAI_FIRST, indirect=True)
def test_killed_anywhere_nothing_fails_and_the_workload_is_held(spool: Spool, kill_at: int) -> None:
    careful(spool)
    useless(spool)
    spool.fill(40)
    for stage in ("dispatch", "poll", "reconcile"):
        Command(spool.folder, spool.clock(), stage, kill_at=kill_at).end()
    for _ in range(2):
        spool.round()
        spool.clock.advance(3600)
    assert holds(spool)[0].startswith("20 of its first 20 answers")
    assert spool.rows("SELECT status, attempts, count(*) FROM tasks GROUP BY 1, 2") == [("pending", 0, 40)]
    assert spool.control.billing()["requests"] == 20
    assert excuses(spool) == [("invalid_output", "canary", 20)]
    spool.check()


def test_released_between_two_chunks_the_rest_waits_too(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    careful(spool)
    useless(spool)
    spool.fill(40)
    spool.dispatch()
    spool.poll()
    interrupted(spool, monkeypatch)
    spool.release("echo")
    spool.reconcile()
    assert excuses(spool) == [("invalid_output", "canary", 20)]
    assert (holds(spool), spool.counts()["pending"]) == ([], 40)


def test_with_a_row_that_nobody_foresaw_nothing_is_decided(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    careful(spool)
    spool.fill(40)
    spool.dispatch()
    spool.poll()
    real = Classifier.classify

    def fails(self: Classifier, line: ResultLine) -> Classified:
        if b"number 3 " in (line.body or b""):
            raise ZeroDivisionError
        return real(self, line)

    with monkeypatch.context() as patched:
        patched.setattr(Classifier, "classify", fails)
        assert spool.reconcile().exit_code == EX_UNEXPECTED
    assert (spool.counts()["completed"], spool.counts()["submitted"], passed(spool)) == (19, 1, 0)
    assert agreed(spool)["not_due"]["canary"] == 20
    spool.reconcile()
    assert passed(spool) == 1
    spool.settle()
    assert spool.counts()["completed"] == 40


# --- the decisions

RULE = CanaryConfig()


@pytest.mark.parametrize(
    ("ended", "under_way", "more", "verdict"),
    [
        ({}, False, False, Verdict.UNDECIDED),
        ({"answered": 20}, True, True, Verdict.UNDECIDED),
        ({"answered": 9}, False, True, Verdict.UNDECIDED),
        ({"answered": 9}, False, False, Verdict.PASSED),
        ({"answered": 10}, False, True, Verdict.PASSED),
        ({"answered": 9, "refused": 1}, False, True, Verdict.PASSED),
        ({"answered": 8, "refused": 1, "truncated": 1}, False, True, Verdict.FAILED),
        ({"answered": 27, "refusal": 3}, False, True, Verdict.PASSED),
        ({"invalid_output": 1}, False, False, Verdict.FAILED),
    ],
)
def test_verdicts(ended: dict[str, int], under_way: bool, more: bool, verdict: Verdict) -> None:
    assert canary.decide(ended, RULE, under_way=under_way, more=more) is verdict


@pytest.mark.parametrize(
    ("n", "under_way", "most"),
    [
        (0, (0, 0), 20),
        (0, (1, 20), 0),
        (0, (1, 8), 12),
        (9, (0, 0), 11),
        (9, (2, 11), 0),
        (20, (0, 0), 1),
        (30, (1, 0), 0),
    ],
)
def test_how_many_may_go(n: int, under_way: tuple[int, int], most: int) -> None:
    assert canary.left(RULE, n, UnderWay(*under_way)) == most


@pytest.mark.parametrize("kind", ErrorKind)
@pytest.mark.parametrize("excused", [None, *Excuse])
def test_what_counts_for_a_revision_is_excused_until_it_has_passed(kind: ErrorKind, excused: Excuse | None) -> None:
    failure = Failure(kind, "words", blame=Blame.TASK)
    counts = kind in ("refused", "invalid_output", "truncated", "refusal") and excused not in ("account", "expired")
    assert (canary.judged(failure, excused) == kind) is counts
    for verdict in Verdict:
        mine = counts and verdict is not Verdict.PASSED
        assert canary.excuse(failure, excused, verdict) == ("canary" if mine else excused)
    assert canary.excuse(None, None, Verdict.FAILED) is None


def test_show_has_words_for_each_excuse() -> None:
    assert show_command._EXCUSES.keys() == set(Excuse)


def test_the_canary_of_a_revision_that_was_mended_meanwhile_holds_nothing(openai_spool: Spool) -> None:
    spool = openai_spool
    careful(spool, requests=10)
    useless(spool, match="record", times=1)
    spool.control.settings(delay=HOUR)
    spool.fill(30)
    spool.dispatch()
    spool.clock.advance(60)
    spool.set(prompt="Better: {{ text }}")
    spool.dispatch()
    ((bad,), (good,)) = spool.rows("SELECT revision FROM batches ORDER BY id")
    with sqlite3.connect(spool.state_path) as db:  # the later one came home first
        db.execute(
            "INSERT OR REPLACE INTO standings (workload, revision, canary) VALUES ('echo', ?, 'passed')", (good,)
        )
    db.close()
    spool.clock.advance(HOUR)
    spool.poll()
    spool.reconcile()
    assert bad != good
    assert spool.status()["holds"] == []
    spool.settle()
    assert spool.counts()["completed"] == 30
