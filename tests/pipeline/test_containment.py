"""Problem stays where it is: the others go on, and the exit code and one line say what failed."""

import json
import sqlite3
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from nura_cli.dialects.base import ResultLine
from nura_cli.errors import StateError
from nura_cli.pipeline import backoff
from nura_cli.pipeline import spool as spooled
from nura_cli.pipeline.classify import Classifier, Verdict
from nura_cli.state import State
from nura_cli.state.answers import Charge
from nura_cli.state.connection import LONGEST_BACKOFF
from tests.conftest import OPENAI_FIRST, START, Spool
from tests.pipeline.forks import Command, Ended

pytestmark = pytest.mark.long


BATCHES = 100


def run(spool: Spool, stage: str) -> Ended:
    """Run a stage as cron does."""
    return Command(spool.folder, spool.clock(), stage).end()


def hundred(spool: Spool) -> None:
    """Make a hundred batches of one request each."""
    spool.providers["main"] = spool.provider(limits={"requests": 1})
    spool.write_config()
    spool.fill(BATCHES)


@pytest.mark.parametrize("spool", OPENAI_FIRST, indirect=True)
def test_one_batch_of_100_whose_results_cannot_be_read_stops_no_other(spool: Spool) -> None:
    hundred(spool)
    assert run(spool, "dispatch") == (0, "")
    spool.control.fault("html", "download", skip=41)
    code, said = run(spool, "poll")
    assert code == 3
    assert said.count("\n") == 1
    (poisoned,) = spool.rows("SELECT id FROM batches WHERE status = 'submitted'")[0]
    (path,) = [entry["path"] for entry in spool.control.log() if "html" in (entry["fault"] or "")]
    spool.control.fault("html", path=path.partition("?")[0], times=-1)
    for _ in range(3):
        assert run(spool, "reconcile") == (0, "")
        spool.clock.advance(3600)
        assert run(spool, "poll").code in (3, 75)
    assert spool.rows("SELECT id FROM batches WHERE final_at IS NULL") == [(poisoned,)]
    assert spool.counts()["completed"] == BATCHES - 1
    spool.control.clear()
    spool.settle()
    assert spool.counts()["completed"] == BATCHES
    assert spool.control.billing()["requests"] == BATCHES
    spool.check()


@pytest.mark.long
@pytest.mark.parametrize("spool", OPENAI_FIRST, indirect=True)
def test_one_batch_of_100_that_is_refused_stops_no_other(spool: Spool) -> None:
    hundred(spool)
    text = {"match": "record number 41", "code": "invalid_request", "message": "a poisoned request"}
    spool.control.fault("refuse", times=-1, **text)
    ended = [run(spool, stage) for stage in ("dispatch", "poll", "reconcile")]
    assert sorted(code for code, _ in ended) == [0, 0, 3]
    (said,) = [said for _, said in ended if said]
    line = next(line for line in said.splitlines() if "a poisoned request" in line)
    assert "batch 42 " in line or spool.protocol == "anthropic"
    assert spool.counts()["completed"] == BATCHES - 1
    spool.enqueue({"id": 990, "text": "record number 990 "})  # what is taken since bears witness
    for _ in range(2):
        spool.clock.advance(2 * 3600)
        spool.round()
    assert spool.counts()["completed"] == BATCHES
    (failed,) = spool.results(statuses=["failed"])
    assert (failed["key"], failed["error"]["kind"]) == (41, "refused")
    spool.check()


def test_a_provider_that_is_down_a_refused_key_and_a_wrong_workload_stop_no_other(spool: Spool) -> None:
    spool.control.settings(accept_keys=["sk-test-1"])
    (spool.folder / "refused-key").write_text("sk-refused\n")
    (spool.folder / "prompt.txt").write_text("Repeat: {{ text }}")
    main = spool.providers["main"]
    spool.providers |= {
        "down": main | {"base_url": "http://127.0.0.1:9/v1"},
        "refused": main | {"api_key_file": "refused-key"},
    }
    wrong = {name: value for name, value in spool.workload().items() if name != "prompt"}
    # The troubled ones come first.
    spool.workloads = {
        "on_down": spool.workload(provider="down"),
        "on_refused": spool.workload(provider="refused"),
        "wrong": wrong | {"prompt_file": "prompt.txt"},
        **spool.workloads,
    }
    spool.write_config()
    for name in spool.workloads:
        spool.fill(3, workload=name)
    (spool.folder / "prompt.txt").unlink()
    code, said = run(spool, "dispatch")
    assert code == 3
    lines = said.splitlines()
    assert len(lines) == 3, said
    for words in ("down: ", "refused: ", "workloads.wrong.prompt_file: "):
        assert sum(words in line for line in lines) == 1
    assert run(spool, "poll") == (0, "")
    assert run(spool, "reconcile") == (0, "")
    by_workload = {name: found["tasks"] for name, found in spool.status()["workloads"].items()}
    assert by_workload.pop("echo")["completed"] == 3
    assert [tasks["pending"] for tasks in by_workload.values()] == [3, 3, 3]
    assert spool.rows("SELECT max(attempts) FROM tasks WHERE status = 'pending'") == [(0,)]
    # The same commands work once the causes are gone.
    (spool.folder / "prompt.txt").write_text("Repeat: {{ text }}")
    (spool.folder / "refused-key").write_text("sk-test-1\n")
    spool.providers["down"] = main
    spool.write_config()
    spool.settle()
    assert spool.counts()["completed"] == 12
    spool.check()


def test_one_refused_key_alone_ends_with_77_and_one_wrong_workload_alone_with_78(spool: Spool) -> None:
    spool.fill(1)
    spool.control.settings(accept_keys=["sk-other"])
    assert run(spool, "dispatch").code == 77
    spool.control.settings(accept_keys=[])
    spool.workloads["echo"] = {k: v for k, v in spool.workload().items() if k != "prompt"} | {"prompt_file": "gone"}
    spool.write_config()
    assert run(spool, "dispatch").code == 78


def test_token_limits_pause_for_longer_each_time_and_less_is_tried(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(40)
    spool.control.fault("refuse", code="token_limit_exceeded", message="Enqueued token limit reached", times=-1)
    sizes, pauses = [], []
    for _ in range(5):
        sent, _, _ = spool.round()
        sizes.append([batch["requests"] for batch in sent.result["batches"]])
        (paused,) = spool.status()["paused"]
        pauses.append(int(datetime.fromisoformat(paused["until"]).timestamp()) - spool.clock())
        assert spool.counts()["pending"] == 40
        assert spool.dispatch().result["not_due"]["paused"] == 40
        spool.clock.advance(pauses[-1])
    spool.control.clear()
    for minutes, pause in zip((5, 10, 20, 40, 80), pauses, strict=True):
        assert minutes * 45 <= pause <= minutes * 60
    assert sizes == [[40], [20], [10], [5], [2]]  # one batch a pause
    spool.settle()
    assert spool.counts()["completed"] == 40
    assert spool.rows("SELECT max(attempts) FROM tasks") == [(1,)]
    spool.check()


def test_a_pause_that_reaches_further_than_any_backoff_is_over(spool: Spool) -> None:
    spool.fill(1)
    spool.control.fault("status", "list", status=503)
    spool.clock.time = START + 400 * 86400  # a clock that ran ahead
    assert spool.dispatch().exit_code == 75
    assert spool.dispatch().result["not_due"]["backoff"] == 1
    spool.clock.time = START
    assert spool.dispatch().result["requests"] == 1


def test_a_provider_cannot_ask_for_a_longer_rest_than_the_longest_backoff(spool: Spool) -> None:
    spool.fill(1)
    spool.control.fault("status", "list", status=429, retry_after=10**7)
    code, said = Command(spool.folder, spool.clock(), "dispatch", "--json").end()
    assert code == 75
    assert [error["kind"] for error in json.loads(said)["errors"]] == ["rate_limited"]
    spool.clock.advance(LONGEST_BACKOFF - 60)
    assert spool.dispatch().result["not_due"]["backoff"] == 1
    spool.clock.advance(60)
    assert spool.dispatch().result["requests"] == 1


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_failed_row_waits_longer_after_each_attempt_and_not_exactly(spool: Spool, attempt: int) -> None:
    spool.workloads["echo"] = spool.workload(retry={"max_attempts": 5})
    spool.write_config()
    spool.fill(20)
    spool.control.fault("rows", match="number", status=500, times=attempt)
    for n in range(attempt):
        spool.enqueue({"id": 100 + n, "text": "one that is answered"})
        spool.round()
        waits = [at - spool.clock() for (at,) in spool.rows("SELECT not_before FROM tasks WHERE status = 'pending'")]
        spool.clock.advance(max(waits))
    longest = backoff.TASK_BACKOFF * 2 ** (attempt - 1)
    assert all(longest * 3 / 4 <= wait <= longest for wait in waits)
    assert len(set(waits)) > 5


def test_an_unconfirmed_create_behind_a_refused_key_stops_no_other_provider(spool: Spool) -> None:
    (spool.folder / "second-key").write_text("sk-second\n")
    spool.providers["second"] = spool.provider(api_key_file="second-key")
    spool.set("other", provider="second")
    for key in (0, 1):
        spool.control.fault("drop_before", "create")
        spool.enqueue({"id": key, "text": f"record number {key}"})
        spool.dispatch()
    assert [status for _, status in spool.batches()] == ["submitting", "submitting"]
    spool.control.settings(accept_keys=["sk-second"])
    spool.fill(2, workload="other")
    report = spool.dispatch()
    assert report.exit_code == 3
    assert report.result["requests"] == 2
    assert [found.kind for found in report.problems] == ["key_refused"]
    spool.control.settings(accept_keys=[])
    spool.settle()
    assert spool.counts()["completed"] == 4
    assert spool.control.billing()["requests"] == 4


def test_one_batch_the_provider_fails_to_tell_of_stops_no_other(spool: Spool) -> None:
    spool.fill(1)
    spool.dispatch()
    spool.enqueue({"id": 8, "text": "record number 8"})
    spool.dispatch()
    (first,) = spool.rows("SELECT remote_id FROM batches WHERE id = 1")[0]
    spool.control.fault("status", path=f"*/{first}", status=500, times=-1)
    report = spool.poll()
    assert report.exit_code == 3
    spool.reconcile()
    assert spool.batches() == [(1, "submitted"), (2, "reconciled")]
    spool.control.clear()
    spool.settle()
    assert spool.counts()["completed"] == 2


def test_one_download_that_is_forbidden_stops_no_other(spool: Spool) -> None:
    spool.fill(1)
    spool.dispatch()
    spool.enqueue({"id": 8, "text": "record number 8"})
    spool.dispatch()
    spool.control.fault("status", "download", status=403)
    assert spool.poll().exit_code == 3
    spool.reconcile()
    assert [status for _, status in spool.batches()] == ["submitted", "reconciled"]
    spool.settle()
    assert spool.counts()["completed"] == 2


def test_one_deletion_that_is_refused_stops_no_other(spool: Spool) -> None:
    spool.fill(1)
    spool.settle()
    spool.enqueue({"id": 8, "text": "record number 8"})
    spool.settle()
    spool.providers["main"] = spool.provider(cleanup_after="0")
    spool.write_config()
    number = spool.control.fault("status", "delete", status=400)
    assert spool.poll().exit_code == 3
    spool.control.clear(number)
    left = spool.control.files() if spool.protocol == "openai" else spool.control.batches()
    assert len(left) == (2 if spool.protocol == "openai" else 1)
    assert spool.poll().exit_code == 0


# --- what nobody foresaw

CHECKED = Classifier.classify


def at_42(monkeypatch: pytest.MonkeyPatch, does: Callable[[Verdict], Verdict]) -> None:
    """Let something unforeseen happen to the answer of record 42."""

    def classify(self: Classifier, line: ResultLine) -> Verdict:
        verdict = CHECKED(self, line)
        return does(verdict) if b"number 42" in (line.body or b"") else verdict

    monkeypatch.setattr(Classifier, "classify", classify)


def fails(verdict: Verdict) -> Verdict:
    """Fail as a library with a bug does."""
    raise ZeroDivisionError(verdict.charge)


def absurd(verdict: Verdict) -> Verdict:
    """Count more tokens than fit into a column of the state file."""
    return verdict._replace(charge=Charge(input_tokens=2**70))


@pytest.mark.parametrize(("does", "named"), [(fails, "ZeroDivisionError"), (absurd, "OverflowError")])
def test_one_row_that_nobody_foresaw_stops_no_other_and_is_tried_again(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, does: Callable[[Verdict], Verdict], named: str
) -> None:
    spool.fill(60)
    spool.dispatch()
    spool.poll()
    with monkeypatch.context() as patched:
        at_42(patched, does)
        for _ in range(2):
            report = spool.reconcile()
            assert report.exit_code == 1
            (found,) = report.problems
            assert (found.kind, found.batch_id) == ("unexpected", 1)
            assert found.message.startswith(f"batch 1, the result of task 43: unexpected {named}")
            assert "report" in str(found.hint)
            assert spool.batches() == [(1, "completed")]
            assert {name: n for name, n in spool.counts().items() if n} == {"completed": 59, "submitted": 1}
            spool.poll()
    report = spool.reconcile()
    assert report.exit_code == 0
    assert {name: n for name, n in report.result["tasks"].items() if n} == {"completed": 1}
    assert spool.batches() == [(1, "reconciled")]
    assert spool.control.billing()["requests"] == 60
    assert spool.rows("SELECT count(*) FROM attempts") == [(60,)]
    spool.check()


def test_rows_that_nobody_foresaw_are_told_of_once_and_none_is_missing(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.fill(60)
    spool.dispatch()
    spool.poll()
    with monkeypatch.context() as patched:
        patched.setattr(Classifier, "classify", lambda classifier, line: 1 / 0)
        report = spool.reconcile()
    (found,) = [found for found in report.problems if found.kind == "unexpected"]
    assert " and of 59 more: unexpected ZeroDivisionError" in found.message
    assert report.result["tasks"]["missing"] == 0
    assert {name: n for name, n in spool.counts().items() if n} == {"submitted": 60}
    spool.settle()
    assert spool.counts()["completed"] == 60
    assert spool.control.billing()["requests"] == 60
    spool.check()


def test_a_line_that_nobody_can_read_for_a_bug_leaves_no_task_missing(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.fill(5)
    spool.dispatch()
    spool.poll()
    with monkeypatch.context() as patched:
        name = {"openai": "openai.OpenAIDialect", "anthropic": "anthropic.AnthropicDialect"}[spool.protocol]
        patched.setattr(f"nura_cli.dialects.{name}.result", lambda dialect, line: {}[line])
        report = spool.reconcile()
    assert report.exit_code == 1
    assert "batch 1, reading a result line: unexpected KeyError" in report.problems[0].message
    assert spool.counts()["submitted"] == 5
    spool.settle()
    assert spool.control.billing()["requests"] == 5


@pytest.mark.long
@pytest.mark.parametrize("spool", OPENAI_FIRST, indirect=True)
def test_one_batch_that_nobody_foresaw_stops_neither_the_others_nor_deliveries(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    spool.set(events=[{"types": ["task.completed"], "command": ["tee", "-a", str(told)]}])
    hundred(spool)
    spool.dispatch()
    spool.poll()
    with State(spool.state_path) as state, state.transaction() as db:
        db.execute("UPDATE batches SET spooled = '[1]' WHERE id = 7")
    report = spool.reconcile()
    assert report.exit_code == 1
    (found,) = report.problems
    assert found.message.startswith("batch 7: unexpected ")
    assert spool.batches()[6] == (7, "completed")
    assert spool.counts()["completed"] == BATCHES - 1
    assert len(told.read_text().splitlines()) == BATCHES - 1


def test_a_trouble_of_the_state_file_ends_the_run_and_is_no_bug(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    spool.fill(3)
    spool.dispatch()
    spool.poll()

    def full(*arguments: Any) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    monkeypatch.setattr("nura_cli.state.answers.settle", full)
    with pytest.raises(StateError, match="the disk is full"):
        spool.reconcile()


@pytest.mark.parametrize("n", [1, 4])
def test_a_batch_refused_without_a_reason_is_accounted_for(spool: Spool, n: int) -> None:
    spool.fill(n)
    spool.dispatch()
    spool.poll()
    with State(spool.state_path) as state, state.transaction() as db:
        db.execute("UPDATE batches SET faults = '[]' WHERE id = 1")  # as poll notes "errors": null
    report = spool.reconcile()
    assert [found.kind for found in report.problems if found.batch_id] == ["refused"]
    assert "the provider gave no reason" in report.problems[0].message
    assert spool.batches() == [(1, "failed")]
    assert spool.counts()["pending"] == n


def test_totals_that_no_longer_fit_stay_at_the_largest(spool: Spool) -> None:
    spool.fill(2)
    spool.dispatch()
    spool.poll()
    with State(spool.state_path) as state, state.transaction() as db:
        db.execute("INSERT INTO totals VALUES (1, ?, 0, 0, ?, ?, 0)", (2**63 - 1, 2**63 - 1, 2**63 - 2))
    assert spool.reconcile().exit_code == 0
    assert spool.rows("SELECT input_tokens, cost, list_cost FROM totals") == [(2**63 - 1,) * 3]


def test_times_that_no_year_has_are_shown_as_none(spool: Spool) -> None:
    spool.fill(1)
    spool.dispatch()
    with State(spool.state_path) as state, state.transaction() as db:
        db.execute("UPDATE batches SET expires_at = ?, ended_at = ?", (2**62, -(2**62)))
    (batch,) = spool.status()["batches"]
    assert (batch["expires_at"], batch["ended_at"]) == (None, None)


@pytest.mark.parametrize("line", [b"[" * 200_000, b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}\n"])
def test_a_last_line_that_is_nested_too_deeply_is_no_bug(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(line)
    assert spooled.ends_whole(path)
