"""nura run: the stages in one process, each as itself; and the stay until nothing is left."""

import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from nura_cli import config as configuration
from nura_cli.errors import EX_CONFIG, EX_PARTIAL, EX_TEMPFAIL, Decided, ProblemKind, Unreachable
from nura_cli.pipeline import remaining
from nura_cli.pipeline.report import Problem, Report, exit_code, problem, together
from nura_cli.state import State, actions, locks
from nura_cli.state.actions import Hold
from tests.conftest import START, Spool
from tests.pipeline.forks import Command

SECOND_PROTOCOL_IS_LONG = True

STAGES = ["poll", "reconcile", "enqueue", "dispatch"]


def said(spool: Spool, code: int, *arguments: str) -> str:
    """Run a command as cron would; return what it said, once it ended as expected."""
    ended = Command(spool.folder, spool.clock(), *arguments).end()
    assert ended.code == code, ended.out
    return ended.out


def ran(spool: Spool, code: int, *arguments: str) -> dict[str, Any]:
    """Run ``nura run``; return its one JSON object."""
    found: dict[str, Any] = json.loads(said(spool, code, "run", "--json", *arguments))
    assert (found["command"], found["exit_code"], found["skipped"]) == ("run", code, None)
    assert list(found["stages"]) == STAGES
    return found


def in_log(spool: Spool) -> list[tuple[Any, ...]]:
    """Return stage, workload, exit code and message of each run."""
    return spool.rows("SELECT stage, workload, exit_code, message FROM past_runs ORDER BY id")


def given_source(spool: Spool, workload: str = "echo", rows: int = 2, query: str = "SELECT id, text FROM t") -> None:
    """Give a workload a table to read."""
    spool.databases["app"] = {"url": f"sqlite:///{spool.folder / 'app.db'}"}
    spool.set(workload, source={"database": "app", "query": query})
    with sqlite3.connect(spool.folder / "app.db") as app:
        app.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, text TEXT)")
        app.executemany("INSERT INTO t (text) VALUES (?)", [(f"record number {n}",) for n in range(1, rows + 1)])


def locked(spool: Spool, stage: str) -> Path:
    """Return the lock file of a stage."""
    return spool.state_path.with_name(f"{spool.state_path.name}.{stage}.lock")


# --- one run of each


def test_two_runs_do_what_two_rounds_of_cron_do_and_each_stage_is_noted_as_itself(spool: Spool) -> None:
    spool.fill(3)
    first = ran(spool, 0)["stages"]
    assert (first["poll"]["checked"], first["dispatch"]["requests"], first["enqueue"]) == (0, 3, {})
    second = ran(spool, 0)["stages"]
    assert (second["poll"]["checked"], second["reconcile"]["tasks"]["completed"]) == (1, 3)
    assert all(
        stage["exit_code"] == 0 and stage["errors"] == [] for stage in (second[name] for name in ("poll", "dispatch"))
    )
    assert spool.counts()["completed"] == 3
    assert [row[:3] for row in in_log(spool)] == 2 * [(name, None, 0) for name in ("poll", "reconcile", "dispatch")]
    assert in_log(spool)[3][3] == "1 batch checked, 1 downloaded"
    assert {row[0] for row in spool.rows("SELECT stage FROM runs")} == {"poll", "reconcile", "dispatch"}
    spool.check()


def test_what_ended_comes_home_before_more_is_sent_and_a_source_is_read_in_between(openai_spool: Spool) -> None:
    given_source(openai_spool)
    first = ran(openai_spool, 0)["stages"]
    assert first["enqueue"]["echo"]["enqueued"] == first["dispatch"]["requests"] == 2
    assert said(openai_spool, 0, "run") == ""
    assert openai_spool.counts()["completed"] == 2
    assert [row for row in in_log(openai_spool) if row[0] == "enqueue"] == [
        ("enqueue", "echo", 0, "2 enqueued"),
        ("enqueue", "echo", 0, "0 enqueued, 2 duplicates"),
    ]


def test_named_workloads_alone_are_read_and_sent(openai_spool: Spool) -> None:
    given_source(openai_spool, "other")
    openai_spool.fill(1)
    openai_spool.fill(1, "other")
    found = ran(openai_spool, 0, "echo")["stages"]
    assert (found["enqueue"], found["dispatch"]["requests"]) == ({}, 1)
    assert [batch["workload"] for batch in found["dispatch"]["batches"]] == ["echo"]
    assert "no workload nosuch" in said(openai_spool, 2, "run", "nosuch")


def test_a_stage_that_is_at_work_is_left_to_it_and_the_others_go_on(openai_spool: Spool) -> None:
    openai_spool.fill(1)
    with locks.lock(locked(openai_spool, "poll"), START):
        found = ran(openai_spool, 0)["stages"]
    assert [found[name]["skipped"] for name in ("poll", "reconcile", "dispatch")] == ["locked", None, None]
    assert found["dispatch"]["requests"] == 1
    assert "poll" not in {row[0] for row in in_log(openai_spool)}


def test_a_stage_that_hangs_is_said_and_in_the_log_as_often_as_it_is_said(openai_spool: Spool) -> None:
    openai_spool.fill(1)
    with locks.lock(locked(openai_spool, "poll"), START - 7 * 3600):
        found = ran(openai_spool, EX_PARTIAL)
        assert [error["message"][:24] for error in found["errors"]] == ["poll is already running "]
        assert said(openai_spool, EX_TEMPFAIL, "run") == ""
    assert [row[2] for row in in_log(openai_spool) if row[0] == "poll"] == [EX_TEMPFAIL]


def test_an_outage_that_every_stage_meets_is_said_once_and_again_only_later(spool: Spool) -> None:
    spool.fill(1)
    spool.dispatch()
    spool.enqueue({"id": 7, "text": "record number 7"})
    spool.control.fault("status", "*", status=503, times=-1)
    assert said(spool, EX_TEMPFAIL, "run").count("\n") == 1
    assert said(spool, EX_TEMPFAIL, "run") == ""
    spool.clock.advance(7 * 3600)
    assert said(spool, EX_TEMPFAIL, "run").count("\n") == 1
    assert len(ran(spool, EX_TEMPFAIL)["errors"]) == 1


def test_a_source_that_fails_keeps_neither_another_nor_a_stage_from_running(openai_spool: Spool) -> None:
    given_source(openai_spool, "bad", query="SELECT nothing FROM t")
    given_source(openai_spool)
    out = said(openai_spool, EX_PARTIAL, "run")
    assert out.startswith("nura run: bad: the query cannot be run")
    assert out.count("\n") == 1
    assert openai_spool.batches() == [(1, "submitted")]
    assert [row[:3] for row in in_log(openai_spool) if row[0] == "enqueue"] == [
        ("enqueue", "echo", 0),
        ("enqueue", "bad", EX_CONFIG),
    ]
    assert said(openai_spool, EX_PARTIAL, "run") == ""  # it lasts: as of every lasting problem, now and then


def test_what_nobody_foresaw_in_one_stage_is_its_own(openai_spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    from nura_cli.cli import poll, run, stages
    from nura_cli.cli.session import Session

    def broken(at: stages.Opened) -> Report:
        raise ZeroDivisionError

    stage = stages.Stage(name="poll", work=broken, summary=lambda report: "", empty={"checked": 0}, lock="poll")
    monkeypatch.setattr(poll, "stage", lambda: stage)
    openai_spool.fill(1)
    config = configuration.load(openai_spool.path)
    with stages.opened(Session("run", json=True), config) as at:
        chain = run.Chain(at=at, chosen=list(config.workloads.values()), names=[], deadline=0)
        chain.round()
    report = chain.report()
    assert report.exit_code == 1
    assert report.result["stages"]["poll"]["checked"] == 0
    assert report.result["stages"]["dispatch"]["requests"] == 1
    assert in_log(openai_spool)[0][:3] == ("poll", None, 1)


# --- sources without a name


def test_every_source_is_read_where_no_workload_is_named(openai_spool: Spool) -> None:
    given_source(openai_spool)
    given_source(openai_spool, "other", rows=1)
    found = json.loads(said(openai_spool, 0, "enqueue", "--from-source", "--json"))
    assert found["enqueued"] == 6
    assert {name: one["enqueued"] for name, one in found["workloads"].items()} == {"echo": 3, "other": 3}
    assert said(openai_spool, 0, "enqueue", "--from-source") == ""


def test_without_a_source_or_a_name_there_is_nothing_to_read(openai_spool: Spool) -> None:
    assert "no workload has a source" in said(openai_spool, EX_CONFIG, "enqueue", "--from-source")
    assert "name a workload" in said(openai_spool, 2, "enqueue")
    assert ran(openai_spool, 0)["stages"]["enqueue"] == {}


# --- --wait


def test_it_stays_until_the_answers_are_there_and_reads_sources_once(spool: Spool) -> None:
    given_source(spool)
    found = ran(spool, 0, "--wait", "1m")["stages"]
    assert (found["dispatch"]["requests"], found["reconcile"]["tasks"]["completed"]) == (2, 2)
    assert len(found["dispatch"]["batches"]) == 1
    assert set(found["dispatch"]["not_due"].values()) == {0}
    assert spool.counts()["completed"] == 2
    assert sorted(row[:3] for row in in_log(spool)) == [
        ("dispatch", None, 0), ("enqueue", "echo", 0), ("poll", None, 0), ("reconcile", None, 0),
    ]  # fmt: skip
    assert ("reconcile", None, 0, "2 completed") in in_log(spool)
    spool.check()


def test_what_failed_on_the_way_is_3_at_its_end(openai_spool: Spool) -> None:
    openai_spool.fill(3)
    openai_spool.control.fault("rows", match="number 1", status=400, message="no", times=-1)
    out = said(openai_spool, EX_PARTIAL, "run", "--wait", "1m")
    assert out.count("1 task failed") == 1
    assert openai_spool.counts()["completed"] == 2


def test_what_another_run_saw_fail_is_3_too() -> None:
    before = {"echo": 1, "other": 0}
    found = remaining.failed_meanwhile(before, {"echo": 3, "other": 0}, [])
    assert [(one.workload, one.message) for one in found] == [("echo", "echo: 2 tasks failed")]
    assert remaining.failed_meanwhile(before, {"echo": 3}, found) == []


def test_when_the_time_is_over_it_is_75_whatever_else_there_was(openai_spool: Spool) -> None:
    openai_spool.fill(1)
    openai_spool.control.fault("never_ends", times=-1)
    found = ran(openai_spool, EX_TEMPFAIL, "--wait", "1s")
    assert [error["kind"] for error in found["errors"]] == ["timeout"]
    assert "0 tasks wait, and 1 batch is under way after 1 seconds" in found["errors"][0]["message"]
    task, late = Problem(ProblemKind.TASK, "m", EX_PARTIAL), Problem(ProblemKind.TIMEOUT, "m", EX_TEMPFAIL)
    assert exit_code([task, late], worked=True) == EX_TEMPFAIL


def test_it_waits_for_a_stage_that_is_at_work(openai_spool: Spool) -> None:
    openai_spool.fill(1)
    with locks.lock(locked(openai_spool, "dispatch"), START):
        staying = Command(openai_spool.folder, START, "run", "--wait", "1m", "--json")
        time.sleep(1)
        assert staying.running
        assert openai_spool.batches() == []
    ended = staying.end()
    assert json.loads(ended.out)["stages"]["dispatch"]["requests"] == 1
    assert ended.code == 0


def test_a_lock_that_is_not_given_back_is_waited_for_no_longer_than_told(openai_spool: Spool) -> None:
    openai_spool.fill(1)
    with locks.lock(locked(openai_spool, "poll"), START):
        found = ran(openai_spool, EX_TEMPFAIL, "--wait", "1s")
    assert found["stages"]["poll"]["skipped"] == "locked"
    assert found["stages"]["dispatch"]["requests"] == 1


def test_it_ends_at_once_where_only_a_person_can_go_on(openai_spool: Spool) -> None:
    openai_spool.fill(2)
    openai_spool.workloads["echo"] = {"provider": "main"}  # without a prompt, records cannot be sent
    openai_spool.write_config()
    began = time.monotonic()
    found = ran(openai_spool, EX_PARTIAL, "--wait", "10m")
    assert time.monotonic() - began < 60
    assert [error["kind"] for error in found["errors"]] == ["config", "held"]
    assert "2 tasks wait, and 0 batches are under way" in found["errors"][1]["message"]


def test_what_a_person_holds_is_not_waited_for_and_the_rest_comes_first(openai_spool: Spool) -> None:
    openai_spool.set("other")
    openai_spool.fill(2)
    openai_spool.fill(1, "other")
    said(openai_spool, 0, "hold", "echo", "--why", "a weekend")
    found = ran(openai_spool, EX_PARTIAL, "--wait", "10m")
    assert found["stages"]["reconcile"]["tasks"]["completed"] == 1
    assert [error["kind"] for error in found["errors"] if error["kind"] == "held"]
    assert "2 tasks wait, and 0 batches are under way" in found["errors"][-1]["message"]
    assert found["errors"][-1]["message"].endswith(": a weekend")
    assert ran(openai_spool, 0, "--wait", "1m", "other")["stages"]["dispatch"]["requests"] == 0
    said(openai_spool, 0, "release", "echo")
    assert ran(openai_spool, 0, "--wait", "1m")["stages"]["reconcile"]["tasks"]["completed"] == 2
    assert [one["verb"] for one in json.loads(said(openai_spool, 0, "log", "--json"))["entries"] if one["kind"] == "action"] == [
        "hold", "release",
    ]  # fmt: skip


def test_a_threshold_is_waited_for(openai_spool: Spool) -> None:
    openai_spool.set(dispatch={"min_requests": 100, "max_wait": "1h"})
    openai_spool.fill(1)
    found = ran(openai_spool, EX_TEMPFAIL, "--wait", "1s")
    assert found["stages"]["dispatch"]["not_due"]["threshold"] == 1
    openai_spool.clock.advance(3600)
    assert ran(openai_spool, 0, "--wait", "1m")["stages"]["reconcile"]["tasks"]["completed"] == 1


# --- whether what remains comes by itself


def remains(spool: Spool, *problems: Problem) -> bool:
    """Return whether what remains of echo comes by itself."""
    config = configuration.load(spool.path)
    with State(spool.state_path, spool.clock) as state:
        return remaining.comes(remaining.look(state.db, [config.workloads["echo"]]), problems)


@pytest.mark.parametrize(
    ("kind", "concerns", "comes"),
    [
        (ProblemKind.CONFIG, {"workload": "echo", "provider": "main"}, False),
        (ProblemKind.KEY_REFUSED, {"provider": "main"}, False),
        (ProblemKind.CONFIG, {"workload": "other", "provider": "main"}, True),
        (ProblemKind.CONFIG, {"batch_id": 7, "provider": "main", "workload": "echo"}, True),
        (ProblemKind.UNREACHABLE, {"provider": "main"}, True),
        (ProblemKind.DATABASE, {"workload": "echo"}, True),
    ],
)
def test_what_waits_comes_unless_a_person_has_to_mend_something(
    openai_spool: Spool, kind: ProblemKind, concerns: dict[str, Any], comes: bool
) -> None:
    openai_spool.fill(1)
    assert remains(openai_spool, Problem(kind, "m", EX_CONFIG, **concerns)) == comes


@pytest.mark.parametrize(("until", "comes"), [(None, False), (START + 60, True)])
@pytest.mark.parametrize(("scope", "name"), [("workload", "echo"), ("provider", "main")])
def test_what_is_held_comes_only_where_the_hold_has_an_end(
    openai_spool: Spool, scope: actions.Scope, name: str, until: int | None, comes: bool
) -> None:
    openai_spool.fill(1)
    with State(openai_spool.state_path, openai_spool.clock) as state, state.transaction() as db:
        actions.hold(db, Hold(scope, name, "", START, until, "tim", "a weekend"))
    assert remains(openai_spool) == comes


def test_a_batch_comes_unless_it_is_held_or_its_provider_cannot_be_asked(openai_spool: Spool) -> None:
    openai_spool.fill(1)
    openai_spool.dispatch()
    assert remains(openai_spool)
    refused = Problem(ProblemKind.KEY_REFUSED, "m", 77, provider="main")
    elsewhere = Problem(ProblemKind.CONFIG, "m", EX_CONFIG, provider="main", workload="echo", batch_id=1)
    assert not remains(openai_spool, refused)
    assert not remains(openai_spool, elsewhere)
    with State(openai_spool.state_path) as state, state.transaction() as db:
        db.execute("UPDATE batches SET held = 'lost'")
    assert not remains(openai_spool)


def test_two_runs_add_up_but_for_how_things_stand() -> None:
    earlier = Report({"n": 1, "rows": {"a": 1}, "batches": [{"id": 1, "s": "x"}], "left": 5}, worked=True)
    later = Report({"n": 2, "rows": {"a": 2}, "batches": [{"id": 1, "s": "y"}, {"id": 2}], "left": 3})
    outage = Problem(ProblemKind.UNREACHABLE, "down", EX_TEMPFAIL, provider="p")
    task = Problem(ProblemKind.TASK, "failed", EX_PARTIAL)
    earlier.problems += [outage, task]
    found = together(earlier, later, {"left"})
    assert found.result == {"n": 3, "rows": {"a": 3}, "batches": [{"id": 1, "s": "y"}, {"id": 2}], "left": 3}
    assert (found.problems, found.worked) == ([task], True)


# --- what is one problem, and what another


def found(message: str, kind: ProblemKind = ProblemKind.HELD, **more: Any) -> Problem:
    """Return a problem about batch 3."""
    return Problem(kind, message, EX_PARTIAL, provider="main", batch_id=3, **more)


@pytest.mark.parametrize("kind", [ProblemKind.HELD, ProblemKind.CONFIG, ProblemKind.INCOMPLETE, ProblemKind.PROVIDER])
def test_another_thing_about_the_same_batch_is_another_problem(kind: ProblemKind) -> None:
    first, other = found("main says in_progress", kind), found("main no longer knows it", kind)
    assert first.scope != other.scope
    assert found("asked again in 900 seconds", kind).scope == found("asked again in 60 seconds", kind).scope


@pytest.mark.parametrize("kind", [ProblemKind.UNREACHABLE, ProblemKind.RATE_LIMITED, ProblemKind.KEY_REFUSED])
def test_an_outage_is_one_problem_whatever_the_provider_says_of_it(kind: ProblemKind) -> None:
    assert found("request req_abc: overloaded", kind).scope == found("request req_def: down", kind).scope


def test_a_download_that_is_of_no_use_is_no_outage() -> None:
    error = Unreachable("file-a: its last line is cut", part="file-a", provider="main")
    down = Unreachable("connection refused", provider="main")
    assert problem(error).scope != problem(down).scope
    assert problem(down, about="an extra batch").scope == problem(down).scope


def test_what_is_decided_is_said_whatever_follows_in_the_same_run() -> None:
    decided = problem(Decided("batch 3: never arrived", provider="main"))
    both = together(Report({}, [decided, found("still held")]), Report({}, []))
    assert both.problems == [decided]


def test_a_receiver_that_refuses_is_told_of_though_it_was_told_that_it_could_take_nothing(spool: Spool) -> None:
    program = spool.folder / "told"
    program.write_text("#!/bin/sh\nexit $(cat mode)\n")
    program.chmod(0o755)
    (spool.folder / "mode").write_text("75")
    spool.set(events=[{"types": ["task.completed"], "command": [str(program)]}])
    spool.fill(1)
    spool.dispatch()
    spool.poll()
    assert "1 event waits" in said(spool, EX_PARTIAL, "reconcile")
    (spool.folder / "mode").write_text("9")
    spool.clock.advance(3600)
    assert "refused 1 event" in said(spool, EX_PARTIAL, "reconcile")
