"""nura retry: failed and cancelled tasks wait again, completed ones are run anew beside the answers that they have."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from nura_cli.errors import UsageError
from nura_cli.pipeline.retry import Fate, fate
from nura_cli.state import State, retries
from nura_cli.state.retries import Candidate
from nura_cli.state.selection import Selection
from nura_cli.states import TaskStatus
from tests.conftest import Spool
from tests.layouts import make_earlier
from tests.pipeline.forks import Command, Ended

SECOND_PROTOCOL_IS_LONG = True

COMPLETED, FAILED, CANCELLED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED


def nura(spool: Spool, *arguments: str) -> Ended:
    """Run a command at the time of the spool's clock."""
    return Command(spool.folder, spool.clock(), *arguments).end()


def refuse(spool: Spool, match: str = "record", **options: Any) -> int:
    """Let the provider refuse the rows that hold these words, until it is told otherwise."""
    number: int = spool.control.fault("rows", match=match, status=400, times=-1, **options)
    return number


def failed(spool: Spool, n: int = 3) -> None:
    """Let n records fail for good; from then on nothing goes wrong."""
    spool.fill(n)
    fault = refuse(spool)
    spool.round()
    spool.control.clear(fault)
    assert spool.counts()["failed"] == n


def cancelled(spool: Spool, n: int = 3) -> None:
    """Let the batch of n records be cancelled at the provider."""
    spool.fill(n)
    spool.control.fault("cancel", fraction=0)
    spool.round()
    assert spool.counts()["cancelled"] == n


def answered(spool: Spool, n: int = 3) -> None:
    """Let n records be answered, and then change the prompt."""
    spool.fill(n)
    spool.round()
    assert spool.counts()["completed"] == n
    spool.clock.advance(60)
    spool.set(prompt="Repeat once more: {{ text }}")


def texts(spool: Spool) -> dict[int, tuple[str, bool]]:
    """Return of each key what became of it, and whether it was asked with the changed prompt."""
    found = {one["key"]: (one["status"], "once more" in (one["text"] or "")) for one in spool.results()}
    assert len(found) == len(spool.results())
    return found


def test_what_failed_waits_again_with_fresh_attempts_and_the_ledger_stays(spool: Spool) -> None:
    failed(spool)
    assert spool.retry().result["retried"] == 3
    assert spool.rows("SELECT DISTINCT status, attempts, not_before FROM tasks") == [("pending", 0, 0)]
    assert spool.rows("SELECT outcome, count(*) FROM attempts GROUP BY 1") == [("refused", 3)]
    assert spool.results() == []
    spool.check()
    spool.settle()
    assert spool.counts()["completed"] == 3
    assert spool.rows("SELECT count(*) FROM attempts") == [(6,)]
    spool.check()


def test_a_second_time_does_nothing(openai_spool: Spool) -> None:
    failed(openai_spool)
    openai_spool.retry()
    again = openai_spool.retry()
    assert (again.result["retried"], again.exit_code) == (0, 0)
    assert openai_spool.rows("SELECT verb, n, what FROM actions") == [("retry", 3, "3 failed tasks wait again")]


def test_the_grammar_says_which(openai_spool: Spool) -> None:
    failed(openai_spool, 4)
    assert openai_spool.retry(keys=["0", "7"]).result["retried"] == 1
    assert openai_spool.retry(kind="expired").result["retried"] == 0
    assert openai_spool.retry(since=openai_spool.clock() + 1).result["retried"] == 0
    assert openai_spool.retry(batch_id=1, kind="refused").result["retried"] == 3


def test_what_the_application_was_to_be_told_of_the_failure_is_closed(openai_spool: Spool, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "app.db") as app:
        app.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, answer TEXT, error TEXT CHECK (length(error) < 3))")
        app.executemany("INSERT INTO t (id) VALUES (?)", [(0,), (1,), (2,)])
    app.close()
    openai_spool.databases = {"app": {"url": f"sqlite:///{tmp_path}/app.db"}}
    write_back = {"database": "app", "table": "t", "where": {"id": "key"}}
    set_failed = {"error": "error.message"}
    openai_spool.set(
        write_back={**write_back, "set": {"answer": "text"}, "set_failed": set_failed},
        events=[{"types": ["task.failed"], "command": ["/bin/false"]}],
    )
    failed(openai_spool)
    assert openai_spool.rows("SELECT DISTINCT kind, status FROM deliveries WHERE status <> 'done'") != []
    with sqlite3.connect(openai_spool.state_path) as state:
        state.execute("UPDATE deliveries SET status = 'dead', done_at = 1 WHERE task_id = 1 AND status = 'pending'")
    state.close()
    openai_spool.retry()
    assert openai_spool.rows("SELECT DISTINCT status FROM deliveries WHERE task_id IS NOT NULL") == [("done",)]
    assert ("retried",) in openai_spool.rows("SELECT outcome FROM deliveries WHERE task_id = 1")
    openai_spool.settle()
    with sqlite3.connect(tmp_path / "app.db") as app:
        rows = app.execute("SELECT answer IS NOT NULL, error FROM t").fetchall()
    app.close()
    assert rows == [(1, None)] * 3


def test_nobody_has_to_decide_any_more_about_a_cancelled_batch_whose_tasks_were_retried(spool: Spool) -> None:
    cancelled(spool)
    assert spool.retry(statuses=[CANCELLED], keys=["0"]).result["retried"] == 1
    assert spool.rows("SELECT cancelled FROM batches WHERE id = 1") == [(2,)]
    assert "2 tasks" in spool.status()["attention"][0]["message"]
    spool.retry(statuses=[CANCELLED])
    assert spool.status()["attention"] == []
    spool.settle()
    assert spool.counts()["completed"] == 3
    spool.check()


@pytest.mark.parametrize("decision", [True, False])
def test_what_a_person_decided_to_leave_may_be_retried_later(openai_spool: Spool, decision: bool) -> None:
    cancelled(openai_spool)
    if decision:
        openai_spool.resolve("1", give_up=True)
    assert openai_spool.retry(statuses=[CANCELLED, FAILED]).result["retried"] == 3
    assert openai_spool.rows("SELECT cancelled FROM batches WHERE id = 1") == [(0,)]


@pytest.mark.parametrize("status", [TaskStatus.PENDING, TaskStatus.SUBMITTED])
def test_what_is_not_final_is_never_retried(openai_spool: Spool, status: TaskStatus) -> None:
    with pytest.raises(UsageError, match=f"--status {status}: it .* is not retried"):
        openai_spool.retry(statuses=[status])


def test_what_was_replaced_is_never_retried(openai_spool: Spool) -> None:
    failed(openai_spool)
    openai_spool.enqueue({"id": 0, "text": "record number 0 anew"}, replace=True)
    assert openai_spool.retry(statuses=[FAILED, CANCELLED]).result["retried"] == 2
    openai_spool.settle()
    assert openai_spool.counts() == openai_spool.counts() | {"completed": 3, "superseded": 1}
    openai_spool.check()


def test_an_answer_stands_until_the_new_one_has_completed(spool: Spool) -> None:
    answered(spool)
    report = spool.retry(statuses=[COMPLETED])
    assert (report.result["rerun"], report.result["retried"]) == (3, 0)
    for stage in (spool.dispatch, spool.poll):
        assert texts(spool) == dict.fromkeys(range(3), ("completed", False))
        spool.check()
        stage()
    assert spool.reconcile().exit_code == 0
    assert texts(spool) == dict.fromkeys(range(3), ("completed", True))
    assert spool.counts() == spool.counts() | {"completed": 3, "superseded": 3, "pending": 0}
    assert spool.control.billing()["requests"] == 6
    spool.check()


def test_composite_keys_and_numbers_too_large_for_sqlite_are_found_again(openai_spool: Spool) -> None:
    records = [{"id": 2**64 - 1, "b": 'ä"\\/', "text": "x"}, {"id": "1", "b": 1, "text": "y"}]
    openai_spool.set(key=["id", "b"])
    openai_spool.set("single", **openai_spool.workload())
    assert openai_spool.enqueue(*records).result["enqueued"] == 2
    assert openai_spool.enqueue(*records, workload="single").result["enqueued"] == 2
    openai_spool.settle()
    openai_spool.clock.advance(1)
    openai_spool.retry("echo", "single", statuses=[COMPLETED], until=openai_spool.clock())
    openai_spool.settle()
    assert openai_spool.counts() == openai_spool.counts() | {"completed": 4, "superseded": 4}
    assert openai_spool.enqueue(*records).result["duplicates"] == 2
    assert openai_spool.enqueue({**records[1], "id": 1}, workload="single").result["conflicts"] == 1


def test_answers_of_todays_revision_are_left_alone_but_for_those_before_a_time(openai_spool: Spool) -> None:
    answered(openai_spool)
    openai_spool.retry(statuses=[COMPLETED], keys=["0"])
    openai_spool.settle()
    first = openai_spool.retry(statuses=[COMPLETED])
    assert (first.result["rerun"], first.result["left"]) == (2, {"unchanged": 1, "running": 0})
    second = openai_spool.retry(statuses=[COMPLETED])
    assert (second.result["rerun"], second.result["left"]) == (0, {"unchanged": 1, "running": 2})
    openai_spool.settle()
    assert openai_spool.retry(statuses=[COMPLETED]).result["left"] == {"unchanged": 3, "running": 0}
    now = openai_spool.clock()
    assert openai_spool.retry(statuses=[COMPLETED], until=now).result["rerun"] == 0
    openai_spool.clock.advance(60)
    assert openai_spool.retry(statuses=[COMPLETED], until=now + 60).result["rerun"] == 3
    openai_spool.settle()
    assert openai_spool.retry(statuses=[COMPLETED], until=now + 60).result["rerun"] == 0
    openai_spool.check()


def test_ready_lines_have_a_revision_of_their_own_queue(openai_spool: Spool) -> None:
    openai_spool.workloads["ready"] = {"provider": "main"}
    openai_spool.write_config()
    body = {"model": openai_spool.model, "messages": [{"role": "user", "content": "record"}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    openai_spool.enqueue(line, workload="ready")
    openai_spool.settle()
    assert openai_spool.retry("ready", statuses=[COMPLETED]).result["left"]["unchanged"] == 1
    openai_spool.clock.advance(1)
    assert openai_spool.retry("ready", statuses=[COMPLETED], until=openai_spool.clock()).result["rerun"] == 1
    openai_spool.settle()
    assert openai_spool.control.billing()["requests"] == 2


@pytest.mark.parametrize("fault", [{"what": "rows", "status": 400}, {"what": "cancel", "fraction": 0}])
def test_a_re_run_without_an_answer_leaves_the_old_one(spool: Spool, fault: dict[str, Any]) -> None:
    spool.set(events=[{"types": ["task.failed", "task.cancelled"], "command": ["/bin/false"]}])
    answered(spool)
    spool.retry(statuses=[COMPLETED])
    spool.server.arm({"match": "number 1", **fault, "times": -1} if fault["what"] == "rows" else fault)
    _, _, report = spool.round()
    n = 1 if fault["what"] == "rows" else 3
    assert report.exit_code == 3
    (said,) = [one for one in report.problems if one.kind == "task"]
    assert f"{n} re-run{'s have' if n > 1 else ' has'} no answer" in said.message
    assert "the old answers stay" in said.message
    assert said.hint is not None
    assert "nura retry echo --status completed" in said.hint
    assert [key for key, (_, new) in texts(spool).items() if not new] == ([1] if n == 1 else [0, 1, 2])
    assert spool.rows("SELECT count(*) FROM deliveries WHERE type <> 'task.completed'") == [(0,)]
    assert spool.status()["attention"] == []
    assert spool.counts() == spool.counts() | {"completed": 3, "superseded": 3, "failed": 0, "cancelled": 0}
    spool.check()
    spool.control.clear()
    assert spool.retry(statuses=[FAILED, CANCELLED]).result["retried"] == 0
    assert spool.retry(statuses=[COMPLETED]).result["rerun"] == n
    spool.settle()
    assert texts(spool) == dict.fromkeys(range(3), ("completed", True))
    spool.check()


def test_a_re_run_that_cannot_be_rendered_leaves_the_old_answer(openai_spool: Spool) -> None:
    answered(openai_spool)
    openai_spool.set(prompt="Repeat: {{ 1 // (1 - id % 2) }} {{ text }}")
    openai_spool.retry(statuses=[COMPLETED])
    openai_spool.settle()
    assert openai_spool.counts() == openai_spool.counts() | {"completed": 3, "superseded": 3, "failed": 0}
    assert {one["key"]: one["revision"] for one in openai_spool.results()}[1] != openai_spool.results()[-1]["revision"]
    openai_spool.check()


def test_a_re_run_is_tried_again_as_any_task_is(openai_spool: Spool) -> None:
    answered(openai_spool)
    openai_spool.retry(statuses=[COMPLETED])
    openai_spool.control.fault("rows", status=500)
    openai_spool.round()
    assert openai_spool.counts() == openai_spool.counts() | {"pending": 3, "completed": 3}
    openai_spool.check()
    openai_spool.settle()
    assert texts(openai_spool) == dict.fromkeys(range(3), ("completed", True))


ANEW = {"id": 1, "text": "record number 1 changed"}


@pytest.mark.parametrize("when", ["pending", "submitted", "failed", "completed"])
def test_another_line_takes_the_place_of_an_answer_and_its_re_run(spool: Spool, when: str) -> None:
    answered(spool)
    spool.retry(statuses=[COMPLETED])
    if when != "pending":
        fault = refuse(spool) if when == "failed" else None
        spool.dispatch()
        if when != "submitted":
            spool.poll()
            spool.reconcile()
        if fault:
            spool.control.clear(fault)
    assert spool.enqueue(ANEW, replace=True).result["replaced"] == 1
    spool.check()
    spool.settle()
    spool.check()
    (one,) = spool.results(key="1")
    assert "number 1 changed" in one["text"]
    assert spool.counts() == spool.counts() | {"completed": 3, "failed": 0, "cancelled": 0}
    assert spool.control.billing()["requests"] == 3 + {"pending": 2, "failed": 0}.get(when, 3) + 1


@pytest.mark.parametrize("when", ["pending", "submitted", "retrying"])
def test_a_replacement_by_an_earlier_release_makes_a_re_run_superseded(spool: Spool, when: str) -> None:
    make_earlier(spool.state_path)
    answered(spool)
    spool.retry(statuses=[COMPLETED])
    if when == "submitted":
        spool.dispatch()
    if when == "retrying":
        spool.control.fault("rows", status=500)
        spool.round()
    replace_as_before(spool, 2, "1", b'{"id": 1, "text": "record number 1 changed"}')
    spool.settle()
    spool.check()
    (one,) = spool.results(key="1")
    assert "number 1 changed" in one["text"]
    assert spool.counts() == spool.counts() | {"completed": 3, "superseded": 4}
    assert spool.control.billing()["requests"] == 3 + (3 if when == "submitted" else 2) + 1


def replace_as_before(spool: Spool, old: int, key: str, line: bytes) -> None:
    """Replace a completed task as the release before did, which knows of no re-runs."""
    with sqlite3.connect(spool.state_path) as db:
        (new,) = db.execute("SELECT max(id) + 1 FROM tasks").fetchone()
        db.execute("UPDATE keys SET task_id = ?, digest = ? WHERE task_id = ?", (new, line[:16], old))
        db.execute(
            "INSERT INTO tasks (id, lane_id, status) SELECT ?, lane_id, 'pending' FROM tasks WHERE id = ?", (new, old)
        )
        db.execute("INSERT INTO records VALUES (?, ?, ?, ?)", (new, spool.clock(), key, line))
        db.execute("UPDATE tasks SET superseded_by = ? WHERE id = ?", (new, old))
        for status, superseded, n in (("pending", 0, 1), ("completed", 0, -1), ("completed", 1, 1)):
            db.execute(
                "INSERT INTO counts SELECT lane_id, ?, ?, max(?, 0) FROM tasks WHERE id = ?"
                " ON CONFLICT DO UPDATE SET n = n + ?",
                (status, superseded, n, old, n),
            )
    db.close()


def test_what_was_still_to_be_delivered_of_the_old_answer_is_not(openai_spool: Spool, tmp_path: Path) -> None:
    told = tmp_path / "told"
    openai_spool.set(events=[{"types": ["task.completed"], "answers": True, "command": ["/bin/false"]}])
    answered(openai_spool)
    script = tmp_path / "tell"
    script.write_text(f"#!/bin/sh\ncat >> {told}\n")
    script.chmod(0o755)
    openai_spool.retry(statuses=[COMPLETED], keys=["0", "1"])
    openai_spool.settle()
    openai_spool.set(events=[{"types": ["task.completed"], "answers": True, "command": [str(script)]}])
    openai_spool.clock.advance(7 * 3600)
    openai_spool.reconcile()
    events = [json.loads(line) for line in told.read_text().splitlines()]
    assert sorted((one["data"]["key"], "once more" in one["data"]["text"]) for one in events) == [
        (0, True),
        (1, True),
        (2, False),
    ]
    outcomes = openai_spool.rows("SELECT task_id, outcome FROM deliveries WHERE task_id < 3 ORDER BY 1")
    assert outcomes == [(1, "superseded"), (2, "superseded")]


def test_batches_of_failed_and_completed_tasks_go_together(openai_spool: Spool) -> None:
    openai_spool.fill(3)
    fault = refuse(openai_spool, "number 1")
    openai_spool.round()
    openai_spool.control.clear(fault)
    openai_spool.set(prompt="Repeat once more: {{ text }}")
    report = openai_spool.retry(statuses=[FAILED, COMPLETED])
    assert (report.result["retried"], report.result["rerun"]) == (1, 2)
    openai_spool.settle()
    assert texts(openai_spool) == dict.fromkeys(range(3), ("completed", True))
    openai_spool.check()


@pytest.mark.parametrize("status", [COMPLETED, FAILED, CANCELLED])
def test_however_many_there_are_none_is_sorted(openai_spool: Spool, status: TaskStatus) -> None:
    """Or each page would look at all of those that are left."""
    seen: list[str] = []
    with State(openai_spool.state_path) as state:
        state.db.set_trace_callback(seen.append)
        list(retries.pages(state.db, Selection(workloads=["echo"], statuses=[status]), 9))
        state.db.set_trace_callback(None)
        (query,) = seen
        plan = [step for *_, step in state.db.execute(f"EXPLAIN QUERY PLAN {query}")]
    assert not [step for step in plan if "TEMP B-TREE" in step], plan


@pytest.mark.parametrize(
    ("status", "revision", "running", "every", "expected"),
    [
        (FAILED, "now", False, False, Fate.WAITS),
        (CANCELLED, None, False, True, Fate.WAITS),
        (COMPLETED, "then", False, False, Fate.ANEW),
        (COMPLETED, "then", True, True, Fate.RUNNING),
        (COMPLETED, "now", False, False, Fate.UNCHANGED),
        (COMPLETED, "now", False, True, Fate.ANEW),
    ],
)
def test_what_becomes_of_a_task(
    status: TaskStatus, revision: str | None, running: bool, every: bool, expected: Fate
) -> None:
    assert fate(Candidate(1, 1, 1, status, revision, running), "now", every=every) is expected


def test_the_command_says_what_it_would_do_and_asks_first(openai_spool: Spool) -> None:
    failed(openai_spool)
    tried = nura(openai_spool, "retry", "echo", "-n")
    assert tried.code == 0
    assert tried.out.startswith("3 tasks of echo wait again, at about $0.000")
    refused = nura(openai_spool, "retry", "echo")
    assert refused.code == 2
    assert ": nothing was done (agree to it with --yes" in refused.out
    assert openai_spool.counts()["failed"] == 3
    done = nura(openai_spool, "retry", "echo", "--yes", "--json", "--why", "a typing error in the prompt")
    found = json.loads(done.out)
    assert done.code == 0
    assert (found["retried"], found["rerun"], found["dry_run"]) == (3, 0, False)
    assert found["workloads"]["echo"]["estimated_cost"].startswith("0.000")
    ((who, why),) = openai_spool.rows("SELECT who, why FROM actions")
    assert who
    assert why == "a typing error in the prompt"
    again = nura(openai_spool, "retry", "echo")
    assert (again.code, again.out) == (0, "nothing to retry\n")
    assert nura(openai_spool, "retry", "echo", "-n").out == "nothing to retry\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name what is to be retried"),
        (("--status", "failed"), "name what is to be retried"),
        (("echo", "--status", "pending"), "it waits already, and is not retried"),
        (("echo", "--status", "submitted"), "it is under way, and is not retried"),
        (("nobody",), "no workload nobody"),
        (("echo", "--key", "7"), "no such key; beside it there are"),
    ],
)
def test_what_the_command_refuses(openai_spool: Spool, arguments: tuple[str, ...], said: str) -> None:
    openai_spool.fill(1)
    ended = nura(openai_spool, "retry", *arguments, "--yes")
    assert ended.code == 2
    assert said in ended.out


def test_keys_out_of_a_file_are_retried_and_unknown_ones_named(openai_spool: Spool) -> None:
    failed(openai_spool)
    (openai_spool.folder / "keys").write_text('0\n{"key": 2, "status": "failed"}\n99\n')
    ended = nura(openai_spool, "retry", "echo", "--keys-from", "keys", "--yes")
    assert ended.code == 3
    assert "keys, line 3: key 99: no such key" in ended.out
    assert openai_spool.counts() == openai_spool.counts() | {"pending": 2, "failed": 1}


def test_what_is_left_alone_and_what_has_no_price_is_said(openai_spool: Spool) -> None:
    openai_spool.set(model="a-model-of-ours")
    answered(openai_spool)
    tried = nura(openai_spool, "retry", "echo", "--status", "completed", "-n")
    assert tried.out == (
        "3 tasks of echo are run anew, at a cost that is not known, since there is no price for the model of echo\n"
    )
    openai_spool.set(prompt="Repeat: {{ text }}")
    tried = nura(openai_spool, "retry", "echo", "--status", "completed", "-n")
    assert tried.out == "nothing to retry; 3 answers are of today's revision (--until T runs these again)\n"


def test_a_workload_that_left_the_configuration_is_named_and_the_others_are_done(openai_spool: Spool) -> None:
    openai_spool.set("other", **openai_spool.workload())
    openai_spool.fill(1, "other")
    openai_spool.fill(1)
    fault = refuse(openai_spool)
    openai_spool.round()
    openai_spool.control.clear(fault)
    del openai_spool.workloads["other"]
    openai_spool.write_config()
    report = openai_spool.retry("echo", "other")
    assert (report.result["retried"], report.exit_code) == (1, 3)
    assert [one.workload for one in report.problems] == ["other"]
    assert openai_spool.counts() == openai_spool.counts() | {"pending": 1, "failed": 1}


def test_the_same_line_of_a_failed_key_is_a_duplicate_and_its_retry_is_named(openai_spool: Spool) -> None:
    failed(openai_spool, 2)
    openai_spool.fill(3)
    for replace in (False, True):
        report = openai_spool.enqueue(*({"id": n, "text": f"record number {n}"} for n in range(3)), replace=replace)
        assert (report.result["duplicates"], report.result["duplicates_failed"]) == (3, 2)
        assert report.result["hint"] == "3 duplicates, of which 2 failed: nura retry echo"
        assert report.exit_code == 0
    (openai_spool.folder / "in").write_text('{"id": 0, "text": "record number 0"}\n')
    said = nura(openai_spool, "enqueue", "echo", "in", "-v").out
    assert "1 duplicate, of which 1 failed: nura retry echo\n" in said
    assert nura(openai_spool, "enqueue", "echo", "in").out == ""
    openai_spool.retry()
    assert openai_spool.enqueue({"id": 0, "text": "record number 0"}).result["hint"] is None


@pytest.mark.parametrize("text", ["record number 0", "record number 0 changed"])
@pytest.mark.parametrize("replace", [False, True])
def test_a_cancelled_key_may_be_enqueued_again(openai_spool: Spool, text: str, replace: bool) -> None:
    openai_spool.fill(3)
    openai_spool.cancel()
    lines = [{"id": 0, "text": text}] * 2 + [{"id": 9, "text": "record number 9"}]
    report = openai_spool.enqueue(*lines, replace=replace)
    new = "replaced" if replace and "changed" in text else "enqueued"
    assert report.result.items() >= {"enqueued": 1, new: 2 if new == "enqueued" else 1, "duplicates": 1}.items()
    assert report.result["enqueued_again"] == 1
    openai_spool.settle()
    assert openai_spool.counts() == openai_spool.counts() | {"completed": 2, "cancelled": 2, "superseded": 1}
    (one,) = openai_spool.results(key="0")
    assert text in one["text"]
    openai_spool.check()


def test_a_source_does_not_bring_back_what_was_cancelled(openai_spool: Spool, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "app.db") as app:
        app.execute("CREATE TABLE t AS SELECT 0 AS id, 'record number 0' AS text")
    app.close()
    openai_spool.databases = {"app": {"url": f"sqlite:///{tmp_path}/app.db"}}
    openai_spool.set(source={"database": "app", "query": "SELECT id, text FROM t"})
    openai_spool.enqueue_from_source()
    openai_spool.control.fault("cancel", fraction=0)
    openai_spool.round()
    report = openai_spool.enqueue_from_source()
    assert report.result.items() >= {"enqueued": 0, "duplicates": 1, "duplicates_cancelled": 1}.items()
    assert report.result["hint"] == "1 duplicate, of which 1 cancelled: nura retry echo --status cancelled"
    with sqlite3.connect(tmp_path / "app.db") as app:
        app.execute("UPDATE t SET text = 'record number 0 changed'")
    app.close()
    assert openai_spool.enqueue_from_source().result["conflicts"] == 1
    assert openai_spool.counts()["cancelled"] == 1


@pytest.mark.parametrize("kill_at", [20, 40, 60, 80, 100])
def test_killed_half_way_it_is_run_again(openai_spool: Spool, kill_at: int) -> None:
    openai_spool.fill(6)
    fault = refuse(openai_spool, "number 1")
    openai_spool.round()
    openai_spool.control.clear(fault)
    openai_spool.set(prompt="Repeat once more: {{ text }}")
    arguments = ("retry", "echo", "--status", "failed", "--status", "completed", "--yes", "--json")
    killed = Command(openai_spool.folder, openai_spool.clock(), *arguments, kill_at=kill_at).end()
    assert killed.code in (-9, 0)
    openai_spool.check()
    assert nura(openai_spool, *arguments).code == 0
    openai_spool.check()
    assert openai_spool.counts()["pending"] == 6
    openai_spool.settle()
    assert texts(openai_spool) == dict.fromkeys(range(6), ("completed", True))
    assert openai_spool.control.billing()["requests"] == 5 + 6
    openai_spool.check()
