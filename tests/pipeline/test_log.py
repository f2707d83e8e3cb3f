"""nura log: what happened, by time: runs and how they ended, what persons did, moves of tasks and batches."""

import json
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from nura_cli.cli import log as command
from nura_cli.pipeline import log
from nura_cli.state import Connection, State, actions, history, runs
from nura_cli.state.history import Acted, Moved, Part, Ran
from tests.conftest import START, Spool
from tests.pipeline.forks import Command
from tests.pipeline.test_run import given_source, said

SECOND_PROTOCOL_IS_LONG = True


def entries(spool: Spool, *arguments: str) -> list[dict[str, Any]]:
    """Return the entries of ``nura log --json``."""
    found: list[dict[str, Any]] = json.loads(said(spool, 0, "log", "--json", *arguments))["entries"]
    return found


def written(spool: Spool, work: Callable[[Connection], object]) -> None:
    """Write to the state file as a command does that a person gave."""
    with State(spool.state_path, spool.clock) as state, state.transaction() as db:
        db.who, db.why = "tim", "a weekend"
        work(db)


def a_night(spool: Spool) -> None:
    """Let a night pass: three records, of which one is refused, in a round of cron each hour."""
    spool.fill(3)
    spool.control.fault("rows", match="number 1", status=400, message="no", times=-1)
    for stage in ("dispatch", "poll", "reconcile"):
        spool.clock.advance(3600)
        Command(spool.folder, spool.clock(), stage).end()


def test_it_answers_what_happened_last_night(spool: Spool) -> None:
    a_night(spool)
    found = entries(spool)
    assert [one["at"] for one in found] == sorted(one["at"] for one in found)
    assert [(one["stage"], one["exit_code"], one["message"]) for one in found if one["kind"] == "run"] == [
        ("dispatch", 0, "3 requests sent in 1 batch"),
        ("poll", 0, "1 batch checked, 1 downloaded"),
        ("reconcile", 3, "echo: 1 task failed: refused 1"),
    ]
    moves = [(one["from"], one["to"], one["n"], one["batch_id"]) for one in found if one["kind"] == "task"]
    assert moves[:2] == [(None, "pending", 3, None), ("pending", "submitted", 3, 1)]
    assert sorted(moves[2:]) == [("submitted", "completed", 2, 1), ("submitted", "failed", 1, 1)]
    assert [one["to"] for one in found if one["kind"] == "batch"][-3:] == ["submitted", "completed", "reconciled"]
    kinds = [one["kind"] for one in found if one["at"] == found[-1]["at"]]
    assert kinds[0] == "run"  # before the moves that it made
    lines = said(spool, 0, "log").splitlines()
    assert "dispatch: exit code 0: 3 requests sent in 1 batch" in lines[2]
    assert "echo: 3 tasks of batch 1: pending -> submitted: claimed" in "\n".join(lines)


def test_of_twelve_hours_unless_told_otherwise_and_no_longer_than_told(openai_spool: Spool) -> None:
    openai_spool.fill(1)
    openai_spool.clock.advance(13 * 3600)
    openai_spool.fill(2)
    assert [one["n"] for one in entries(openai_spool)] == [1]
    assert [one["n"] for one in entries(openai_spool, "--since", "1d")] == [1, 1]
    assert [one["n"] for one in entries(openai_spool, "--since", "1d", "--until", "1h")] == [1]
    assert entries(openai_spool, "--until", "2027-01-15") == []
    assert said(openai_spool, 0, "log", "--until", "2027-01-15") == ""
    assert "--since noon: neither a time" in said(openai_spool, 2, "log", "--since", "noon")


def test_of_a_workload_and_of_a_batch_alone(openai_spool: Spool) -> None:
    openai_spool.set("other")
    openai_spool.fill(1)
    openai_spool.fill(1, "other")
    said(openai_spool, 0, "dispatch")
    openai_spool.clock.advance(30 * 86400)
    written(openai_spool, lambda db: actions.note(db, "hold", "provider main is held", 0))
    written(openai_spool, lambda db: actions.note(db, "retry", "1 task waits again", 1, workload="other"))
    written(openai_spool, lambda db: actions.note(db, "cancel", "batch 2 is cancelled", 1, batch_id=2))
    of_echo = entries(openai_spool, "echo", "--since", "60d")
    assert {one["workload"] for one in of_echo} == {"echo", None}
    assert {one["kind"] for one in of_echo} == {"run", "task", "batch", "action"}
    assert [one["verb"] for one in of_echo if one["kind"] == "action"] == ["hold"]
    of_batch = entries(openai_spool, "--batch", "2")
    assert {(one["workload"], one["batch_id"]) for one in of_batch} == {("other", 2)}
    assert [one["kind"] for one in of_batch][-1] == "action"
    assert len(of_batch) > 4  # all of it, however long ago
    assert entries(openai_spool, "other", "--batch", "1") == []
    assert "there is no batch 9" in said(openai_spool, 2, "log", "--batch", "9")
    assert "no workload nosuch (there are: echo, other)" in said(openai_spool, 2, "log", "nosuch")


def test_a_workload_that_left_the_configuration_has_its_past_and_a_wrong_configuration_is_no_hindrance(
    openai_spool: Spool,
) -> None:
    openai_spool.fill(1)
    openai_spool.path.write_text(json.dumps({"state": "nura.db", "providers": {"main": {"kind": "typo"}}}))
    assert "echo: 1 task: new -> pending: enqueued" in said(openai_spool, 0, "log", "echo")


# --- runs


def test_a_run_without_an_end_was_killed_unless_its_process_is_there(openai_spool: Spool) -> None:
    openai_spool.fill(1)
    died = Command(openai_spool.folder, START, "dispatch", kill_at=60)
    died.end()
    written(openai_spool, lambda db: runs.begun(db, "poll", os.getpid(), None, db.now))
    written(openai_spool, lambda db: runs.begun(db, "reconcile", os.getpid(), None, 1_600_000_000))
    found = {one["stage"]: one for one in entries(openai_spool, "--since", "2020-01-01") if one["kind"] == "run"}
    assert [found[name]["killed"] for name in ("dispatch", "poll", "reconcile")] == [True, False, True]
    out = said(openai_spool, 0, "log", "--since", "2020-01-01")
    assert "dispatch: was killed" in out
    assert f"poll: at work (pid {os.getpid()})" in out
    assert "reconcile: was killed" in out  # its number is another process's now


def test_enqueue_is_in_the_log_where_it_fails_or_reads_a_source(openai_spool: Spool) -> None:
    given_source(openai_spool)
    bad = openai_spool.folder / "bad.jsonl"
    bad.write_text("nonsense\n")
    good = openai_spool.folder / "good.jsonl"
    good.write_text('{"id": 9, "text": "x"}\n')
    said(openai_spool, 0, "enqueue", "echo", "good.jsonl")
    said(openai_spool, 3, "enqueue", "echo", "bad.jsonl")
    said(openai_spool, 0, "enqueue", "echo", "--from-source")
    ran = [one for one in entries(openai_spool) if one["kind"] == "run"]
    assert [(one["stage"], one["workload"], one["exit_code"]) for one in ran] == [
        ("enqueue", "echo", 3),
        ("enqueue", "echo", 0),
    ]
    assert ran[0]["message"].startswith("bad.jsonl, line 1: not valid JSON")
    assert ran[1]["message"] == "2 enqueued"


def test_runs_leave_after_thirty_days_a_bounded_number_at_a_time(openai_spool: Spool) -> None:
    def many(db: Connection) -> None:
        for n in range(1500):
            runs.begun(db, "poll", 1, None, START - n)

    written(openai_spool, many)
    openai_spool.clock.advance(31 * 86400)
    said(openai_spool, 0, "reconcile")
    assert openai_spool.rows("SELECT count(*) FROM past_runs WHERE stage = 'poll'") == [(500,)]
    said(openai_spool, 0, "reconcile")
    assert openai_spool.rows("SELECT DISTINCT stage FROM past_runs") == [("reconcile",)]


# --- how it is shown


def test_who_did_what_and_why_and_all_of_it_as_text(openai_spool: Spool) -> None:
    evil = "[red]x[/red]\n\x1b[2J\u202e"

    def acted(db: Connection) -> None:
        db.why = evil
        actions.note(db, "retry", "3 failed tasks wait again", 3, workload="echo")
        runs.done(db, runs.begun(db, "poll", 1, None, db.now), 75, evil)

    written(openai_spool, acted)
    out = said(openai_spool, 0, "log")
    assert r"retry echo by tim: 3 failed tasks wait again: [red]x[/red] \x1b[2J\u202e" in out
    assert r"poll: exit code 75: [red]x[/red] \x1b[2J\u202e" in out
    [action] = [one for one in entries(openai_spool) if one["kind"] == "action"]
    assert (action["who"], action["why"], action["n"]) == ("tim", evil, 3)


def test_times_are_local_for_a_person_with_each_date_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        found: list[log.Happened] = [
            Ran(1, START, "poll", None, 1, START + 70, 0, "0 batches checked"),
            Acted(1, START + 1, "hold", "", "echo", None, 0, "workload echo is held", None),
            Moved(1, START + 86400, "batch", "echo", 3, "submitted", "completed", 1, "it ended"),
        ]
        assert list(command.lines(found)) == [
            "2027-01-15, local time (+0100)",
            "09:00:00  poll: exit code 0 after 1m: 0 batches checked",
            "09:00:01  hold echo by nura: workload echo is held",
            "\n2027-01-16, local time (+0100)",
            "09:00:00  batch 3 of echo: submitted -> completed: it ended",
        ]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_moves_that_are_alike_are_one_line_within_an_hour() -> None:
    def enqueued(at: int, n: int, workload: str = "echo") -> Moved:
        return Moved(at, START + at, "task", workload, None, None, "pending", n, "enqueued")

    moves: list[log.Happened] = [
        enqueued(0, 1),
        enqueued(5, 2),
        enqueued(6, 4, "other"),
        enqueued(7, 8),
        enqueued(3600, 16),
    ]
    assert [line.partition("  ")[2] for line in command.lines(moves)][1:] == [
        "echo: 3 tasks: new -> pending: enqueued",
        "other: 4 tasks: new -> pending: enqueued",
        "echo: 8 tasks: new -> pending: enqueued",
        "echo: 16 tasks: new -> pending: enqueued",
    ]


@pytest.mark.parametrize("part", [Part(0), Part(0, workloads=["echo"]), Part(0, batch_id=1)])
def test_pages_lose_and_repeat_nothing(openai_spool: Spool, monkeypatch: pytest.MonkeyPatch, part: Part) -> None:
    a_night(openai_spool)
    with State(openai_spool.state_path) as state:
        whole = list(log.entries(state, part))
        monkeypatch.setattr(history, "_PAGE", 2)
        assert list(log.entries(state, part)) == whole
    assert len(whole) > 6


def test_it_looks_at_the_time_that_is_asked_for_alone(openai_spool: Spool) -> None:
    openai_spool.fill(1)
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    with State(openai_spool.state_path, openai_spool.clock) as state:
        with state.transaction() as db:
            db.execute(
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) INSERT INTO transitions"
                " (at, what, lane_id, to_status, n, why) SELECT i, 'task', 1, 'pending', 1, 'enqueued' FROM n"
            )
        state.db.set_progress_handler(step, 100)
        assert len(list(log.entries(state, Part(START)))) == 1
        assert list(log.entries(state, Part(START, batch_id=1))) == []
    assert steps < 50
