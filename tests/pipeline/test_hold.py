"""Hold and release: what is held goes nowhere, from the very moment on, and everything else goes on."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from nura_cli import clock
from nura_cli.errors import UsageError
from nura_cli.pipeline.report import Report
from nura_cli.state import State, actions, runs
from nura_cli.state.actions import Hold
from nura_cli.state.runs import Route
from tests.conftest import START, Spool
from tests.pipeline.forks import Command, Ended

SECOND_PROTOCOL_IS_LONG = True

HOUR = 3600


def nura(spool: Spool, *arguments: str) -> Ended:
    """Run one command as a process, at the spool's time."""
    return Command(spool.folder, spool.clock(), *arguments).end()


def wait_until(done: Callable[[], object]) -> None:
    """Wait, for a bounded time, until something is so."""
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def while_it_waits(spool: Spool, route: str, skip: int, act: Callable[[], Any]) -> Report:
    """Run dispatch, and do something while its request number ``skip`` (from 0) to a route waits for an answer."""
    spool.control.fault("hold", route, skip=skip, seconds=50)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(spool.dispatch)
        wait_until(spool.control.held)
        act()
        spool.control.release()
        report = running.result()
    spool.control.clear()
    return report


def creates(spool: Spool) -> int:
    """Return how many creates arrived."""
    return int(spool.control.billing()["creates"])


def noted(spool: Spool) -> list[tuple[Any, ...]]:
    """Return what is noted of what persons did: (verb, who, workload, n, what, why)."""
    return spool.rows("SELECT verb, who, workload, n, what, why FROM actions ORDER BY id")


def held_by_nura(spool: Spool, name: str, origin: str) -> None:
    """Let nura hold a workload by itself."""
    with State(spool.state_path, spool.clock) as state, state.transaction() as db:
        actions.hold(db, Hold("workload", name, origin, db.now, None, "", None))


def test_nothing_of_a_held_workload_is_sent_and_the_rest_goes_on(spool: Spool) -> None:
    spool.set("other")
    spool.fill(2, workload="other")
    spool.fill(3)
    spool.dispatch()
    assert spool.hold("echo", why="a prompt is wrong").result["holds"][0]["under_way"] == 1
    spool.enqueue({"id": 7, "text": "late"})
    spool.enqueue({"id": 8, "text": "late"}, workload="other")
    for options in ({}, {"ignore_waits": True}):
        report = spool.dispatch(**options)
        assert [batch["workload"] for batch in report.result["batches"]] == ["other"] * (not options)
        assert (report.result["not_due"]["held"], report.exit_code) == (1, 0)
        (found,) = report.problems
        assert (found.kind, found.workload, found.lasting) == ("held", "echo", True)
        assert found.line == ("echo is held by tim since 2027-01-15T08:00:00Z: a prompt is wrong (nura release echo)")
    spool.poll()
    spool.reconcile()
    assert spool.counts()["completed"] == 6
    spool.release("echo")
    assert spool.dispatch().result["requests"] == 1


def test_a_wait_for_a_release_says_who_holds_it_and_until_when(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.set(dispatch={"min_requests": 5, "max_wait": "1h"})
    spool.fill(2)
    spool.hold("echo", until=START + HOUR)
    (wait,) = spool.preview().result["waits"]
    assert (wait["why"], wait["tasks"], wait["until"]) == ("held", 2, "2027-01-15T09:00:00Z")
    assert wait["message"] == "echo is held by tim since 2027-01-15T08:00:00Z, until 2027-01-15T09:00:00Z"


def test_a_held_workload_in_which_nothing_waits_is_no_news(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.hold("echo")
    report = spool.dispatch()
    assert (report.problems, report.result["waits"]) == ([], [])


def test_a_held_provider_holds_all_that_goes_to_it_and_is_named_once(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.providers["second"] = spool.provider()
    spool.set("other")
    spool.set("elsewhere", provider="second")
    for name in ("echo", "other", "elsewhere"):
        spool.fill(2, workload=name)
    (entry,) = spool.hold("main", scope="provider").result["holds"]
    assert (entry["scope"], entry["tasks"]) == ("provider", 4)
    report = spool.dispatch(ignore_waits=True)
    assert [batch["workload"] for batch in report.result["batches"]] == ["elsewhere"]
    assert report.result["not_due"]["held"] == 4
    assert [(found.provider, found.hint) for found in report.problems] == [("main", "nura release --provider main")]


@pytest.mark.parametrize("scope", ["workload", "provider"])
def test_a_hold_before_the_upload_gives_the_batch_back(spool: Spool, scope: actions.Scope) -> None:
    spool.fill(3)
    name = "echo" if scope == "workload" else "main"
    # The first list is read before tasks are claimed; where nothing is uploaded, the second is the last look before a create.
    skip = 0 if spool.protocol == "openai" else 1
    report = while_it_waits(spool, "list", skip, lambda: spool.hold(name, scope=scope))
    assert (report.result["requests"], report.result["not_due"]["held"], report.exit_code) == (0, 3, 0)
    assert [row["route"] for row in spool.control.log() if row["method"] == "POST"] == []
    assert spool.counts()["pending"] == 3
    assert [status for _, status in spool.batches()] == ["failed"]
    spool.release(name, scope=scope)
    spool.settle()
    assert spool.rows("SELECT DISTINCT attempts FROM tasks") == [(1,)]
    spool.check()


def test_a_hold_between_upload_and_create_gives_the_batch_back(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(3)
    report = while_it_waits(spool, "list", 1, lambda: spool.hold("echo"))
    assert (report.result["requests"], report.exit_code, [found.kind for found in report.problems]) == (0, 0, ["held"])
    spoken = len(spool.control.log())
    for options in ({}, {"ignore_waits": True}):
        assert [found.kind for found in spool.dispatch(**options).problems] == ["held"]
    assert (spool.batches(), len(spool.control.log())) == ([(1, "failed")], spoken)
    assert (creates(spool), spool.counts()["pending"]) == (0, 3)
    assert spool.release("echo").exit_code == 0
    assert spool.dispatch().result["requests"] == 3
    assert (creates(spool), spool.batches()) == (1, [(1, "failed"), (2, "submitted")])
    spool.settle()
    spool.check()


def test_a_hold_while_an_uploaded_batch_is_gone_on_with_stops_it_too(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(3)
    spool.control.fault("hold", "list", skip=1, seconds=50)
    running = Command(spool.folder, spool.clock(), "dispatch")
    wait_until(spool.control.held)
    running.kill()
    running.end()
    spool.control.release()
    spool.control.clear()
    assert spool.batches() == [(1, "uploaded")]
    while_it_waits(spool, "list", 0, lambda: spool.hold("main", scope="provider"))
    assert (creates(spool), spool.batches()) == (0, [(1, "failed")])


def test_a_hold_between_two_batches_stops_the_second(spool: Spool) -> None:
    spool.providers["main"] = spool.provider(limits={"requests": 2})
    spool.write_config()
    spool.fill(5)

    def progress(text: str) -> None:
        if "writing batch 2" in text:
            spool.hold("echo")

    report = spool.dispatch(progress=progress)
    assert (report.result["requests"], report.result["not_due"]["held"]) == (2, 3)
    assert (creates(spool), spool.counts()["pending"]) == (1, 3)


def test_a_create_that_was_not_confirmed_is_found_out_about_in_a_hold(spool: Spool) -> None:
    spool.fill(3)
    spool.control.fault("drop_after", "create")
    assert spool.dispatch().result["unconfirmed"] == 1
    (entry,) = spool.hold("echo").result["holds"]
    assert entry["message"] == (
        "echo is held until it is released: nura release echo; 0 tasks wait, and 1 batch under way goes on"
    )
    assert spool.dispatch().result["unconfirmed"] == 0
    spool.clock.advance(HOUR)
    spool.poll()
    spool.reconcile()
    assert (spool.counts()["completed"], creates(spool)) == (3, 1)


@pytest.mark.parametrize("skip", [0, 1])
def test_a_dispatch_that_is_killed_leaves_nothing_that_the_next_one_sends_in_a_hold(
    openai_spool: Spool, skip: int
) -> None:
    spool = openai_spool
    spool.fill(3)
    spool.control.fault("hold", "list" if skip else "upload", skip=skip, seconds=50)
    running = Command(spool.folder, spool.clock(), "dispatch")
    wait_until(spool.control.held)
    spool.hold("echo")
    running.kill()
    running.end()
    spool.control.release()
    spool.control.clear()
    report = spool.dispatch(ignore_waits=True)
    assert (report.exit_code, creates(spool)) == (0, 0)
    assert spool.batches() == [(1, "failed")]
    spool.release("echo")
    spool.settle()
    spool.check()


# --- the end of a hold


def test_a_hold_ends_by_itself_at_its_time_and_that_is_noted(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(2)
    spool.hold("echo", until=START + HOUR)
    spool.clock.advance(HOUR - 1)
    assert spool.dispatch().result["not_due"]["held"] == 2
    spool.clock.advance(1)
    assert spool.status()["holds"] == []
    assert spool.preview().result["requests"] == 2
    assert spool.rows("SELECT count(*) FROM holds") == [(1,)]  # a dry run ends none
    report = spool.dispatch()
    assert (report.result["requests"], report.problems) == (2, [])
    assert noted(spool)[1:] == [
        (
            "release",
            "",
            "echo",
            2,
            "workload echo: its hold, set by tim at 2027-01-15T08:00:00Z, ended at 2027-01-15T09:00:00Z",
            None,
        )
    ]
    spool.clock.advance(-2 * HOUR)  # the clock that ended it was wrong
    assert len(spool.status()["holds"]) == 1


def test_release_says_that_a_hold_had_ended(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.hold("echo", until=START + HOUR)
    spool.clock.advance(HOUR)
    result = spool.release("echo").result
    assert (result["released"], [one["message"] for one in result["not_held"]]) == (
        [],
        ["echo is not held: its hold ended at 2027-01-15T09:00:00Z"],
    )
    assert [row[:2] for row in noted(spool)] == [("hold", "tim"), ("release", "")]


@pytest.mark.parametrize("until", [None, START + 400 * 86400])
def test_a_hold_has_no_horizon_and_survives_a_clock_that_is_set(openai_spool: Spool, until: int | None) -> None:
    spool = openai_spool
    spool.fill(2)
    spool.hold("echo", until=until)
    for seconds in (90 * 86400, -180 * 86400):
        spool.clock.advance(seconds)
        assert spool.dispatch(ignore_waits=True).result["not_due"]["held"] == 2
    assert spool.status()["holds"][0]["since"] == "2027-01-15T08:00:00Z"


def test_the_hold_that_lasts_longest_is_the_one_that_is_said(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(1)
    spool.hold("echo", until=START + HOUR)
    spool.hold("main", scope="provider", until=START + 2 * HOUR)
    assert spool.dispatch().result["waits"][0]["until"] == "2027-01-15T10:00:00Z"
    held_by_nura(spool, "echo", "its answers all fail alike")
    assert spool.dispatch().result["waits"][0]["until"] is None


# --- what the verbs say


def test_holding_twice_says_so_and_new_words_replace_the_old(openai_spool: Spool) -> None:
    spool = openai_spool
    assert spool.hold("echo", why="too dear").result["held"] == 1
    spool.clock.advance(60)
    result = spool.hold("echo").result
    assert (result["held"], result["already"]) == (0, 1)
    assert result["holds"][0]["message"] == (
        "held already: echo is held by tim since 2027-01-15T08:00:00Z: too dear; 0 tasks wait"
    )
    assert len(noted(spool)) == 1
    (entry,) = spool.hold("echo", until=START + HOUR, why="until the meeting").result["holds"]
    assert (entry["new"], entry["since"], entry["until"], entry["why"]) == (
        False,
        "2027-01-15T08:00:00Z",
        "2027-01-15T09:00:00Z",
        "until the meeting",
    )
    assert "it is held now until 2027-01-15T09:00:00Z: until the meeting" in entry["message"]
    (entry,) = spool.hold("echo").result["holds"]  # whoever names no end wants none
    assert (entry["until"], entry["why"]) == (None, "until the meeting")
    assert [row[0] for row in noted(spool)] == ["hold"] * 3


def test_several_are_held_and_released_at_once_each_named_with_its_reasons(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.set("other")
    spool.fill(2, workload="other")
    spool.hold("echo", "other", "echo", why="a weekend")
    held_by_nura(spool, "other", "its answers all fail alike")
    result = spool.release("other", "echo").result
    assert sorted((one["name"], one["who"], one["origin"], one["tasks"]) for one in result["released"]) == [
        ("echo", "tim", None, 0),
        ("other", "", "its answers all fail alike", 2),
        ("other", "tim", None, 2),
    ]
    assert "released: other is held by nura since 2027-01-15T08:00:00Z: its answers all fail alike; 2 tasks wait" in (
        " ".join(one["message"] for one in result["released"])
    )
    assert (result["resumed"], result["not_held"], result["still_held"]) == ([], [], [])
    assert {row[1] for row in noted(spool) if row[0] == "release"} == {"ann"}
    assert spool.dispatch().result["requests"] == 2


def test_releasing_what_is_not_held_says_so_and_what_still_holds_it(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.hold("main", scope="provider")
    report = spool.release("echo", "echo")
    assert report.exit_code == 0
    assert [one["message"] for one in report.result["not_held"]] == ["echo is not held"]
    assert [one["message"] for one in report.result["still_held"]] == [
        "main is held by tim since 2027-01-15T08:00:00Z: nura release --provider main"
    ]
    spool.hold("echo")
    report = spool.release("main", scope="provider")
    assert [one["name"] for one in report.result["still_held"]] == ["echo"]
    assert [row[0] for row in noted(spool)] == ["hold", "hold", "release"]


@pytest.mark.parametrize("scope", ["workload", "provider"])
def test_a_name_that_nobody_knows_is_refused_and_nothing_is_done(openai_spool: Spool, scope: actions.Scope) -> None:
    spool = openai_spool
    known = "echo" if scope == "workload" else "main"
    for verb in (spool.hold, spool.release):
        with pytest.raises(UsageError, match="nosuch") as refused:
            verb(known, "nosuch", scope=scope)
        assert known in str(refused.value.hint)
    assert spool.rows("SELECT count(*) FROM holds") == [(0,)]


def test_what_left_the_configuration_can_be_released_still(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.set("other")
    spool.fill(1, workload="other")
    spool.providers["old"] = spool.provider()
    spool.write_config()
    spool.hold("old", scope="provider")
    spool.hold("other")
    del spool.providers["old"], spool.workloads["other"]
    spool.write_config()
    assert len(spool.release("old", scope="provider").result["released"]) == 1
    assert len(spool.release("other").result["released"]) == 1
    assert spool.hold("other").result["held"] == 1  # it has tasks, and may come back
    with pytest.raises(UsageError):
        spool.release("old", scope="provider")


def test_release_ends_the_pauses_of_a_provider_and_keeps_what_size_it_takes(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(3)
    with State(spool.state_path, spool.clock) as state, state.transaction() as db:
        runs.learn(db, Route("main", "", "", START + HOUR, 3, None, "it was down"))
        runs.learn(db, Route("main", "/v1/chat/completions", spool.model, START + HOUR, 2, 2, "too much at once"))
    assert spool.release("echo").result["resumed"] == []
    assert spool.dispatch().result["requests"] == 0
    result = spool.release("main", scope="provider").result
    assert [(one["model"], one["why"]) for one in result["resumed"]] == [
        (None, "it was down"),
        (spool.model, "too much at once"),
    ]
    assert (result["released"], result["not_held"]) == ([], [])
    assert result["resumed"][0]["message"] == "main: its pause until 2027-01-15T09:00:00Z is ended: it was down"
    assert [row[:2] for row in noted(spool)] == [("release", "ann")] * 2
    assert spool.rows("SELECT model, paused_until, strikes, cap FROM routes") == [(spool.model, 0, 0, 2)]
    assert [batch["requests"] for batch in spool.dispatch().result["batches"]] == [2, 1]


def test_release_touches_no_batch_that_is_held(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.providers["main"] = spool.provider(on_unconfirmed="hold")
    spool.write_config()
    spool.fill(2)
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    spool.dispatch()
    before = spool.rows("SELECT status, held FROM batches")
    assert before[0][1] is not None
    spool.release("main", scope="provider")
    spool.release("echo")
    assert spool.rows("SELECT status, held FROM batches") == before


def test_status_shows_holds_and_only_nuras_own_need_somebody(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.hold("main", scope="provider", until=START + HOUR, why="a weekend")
    held_by_nura(spool, "echo", "its answers all fail alike")
    found = spool.status()
    assert {(one["name"], one["until"]) for one in found["holds"]} == {("main", "2027-01-15T09:00:00Z"), ("echo", None)}
    assert next(one for one in found["holds"] if one["name"] == "main") == {
        "scope": "provider",
        "name": "main",
        "origin": None,
        "since": "2027-01-15T08:00:00Z",
        "until": "2027-01-15T09:00:00Z",
        "who": "tim",
        "why": "a weekend",
        "message": "main is held by tim since 2027-01-15T08:00:00Z, until 2027-01-15T09:00:00Z: a weekend",
    }
    assert [(need["message"], need["hint"]) for need in found["attention"]] == [
        ("echo is held by nura since 2027-01-15T08:00:00Z: its answers all fail alike", "nura release echo")
    ]


# --- the commands


def test_dispatch_says_a_hold_once_and_again_every_six_hours(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(2)
    assert nura(spool, "hold", "echo").code == 0
    said = []
    for _ in range(4):
        said.append(nura(spool, "dispatch"))
        spool.clock.advance(3 * HOUR)
    assert [ended.code for ended in said] == [0] * 4
    assert [ended.out.count("(nura release echo)") for ended in said] == [1, 0, 1, 0]
    assert nura(spool, "release", "echo").code == 0
    assert nura(spool, "dispatch").out == ""


def test_a_hold_is_not_what_a_run_that_failed_is_remembered_for(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(1)
    spool.hold("echo")
    spool.providers["down"] = spool.provider(base_url="http://127.0.0.1:9/v1")
    spool.set("last", provider="down")
    spool.fill(1, workload="last")
    assert nura(spool, "dispatch").code == 75
    ((code, message),) = spool.rows("SELECT exit_code, message FROM runs WHERE stage = 'dispatch'")
    assert (code, "down" in message) == (75, True)


def test_the_commands_say_what_they_did(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(2)
    ended = nura(spool, "hold", "echo", "--until", "2h", "--why", "a\n \x1b[1mweekend")
    assert ended == (0, "echo is held until 2027-01-15T10:00:00Z; 2 tasks wait\n")
    shown = nura(spool, "status").out
    assert ", until 2027-01-15T10:00:00Z: a \\x1b[1mweekend\n" in shown
    assert "held: echo is held by " in shown
    assert nura(spool, "hold", "echo", "-q", "--until", "2027-01-16") == (0, "")
    found = json.loads(nura(spool, "release", "echo", "--json").out)
    assert (found["command"], found["exit_code"], found["released"][0]["until"]) == (
        "release",
        0,
        "2027-01-16T00:00:00Z",
    )
    assert nura(spool, "release", "--provider", "main") == (0, "main is not held\n")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("echo", "--until", "2027-01-15T07:59:59Z"), "is past"),
        (("echo", "--until", "0s"), "is past"),
        (("echo", "--until", "soon"), "neither a time such as"),
        (("echo", "--until", "999999999d"), "any calendar"),
        (("echo", "--provider", "main"), "not both"),
        ((), "name workloads"),
        (("nosuch",), "no workload nosuch"),
        (("--provider", "nosuch"), "no provider nosuch"),
    ],
)
def test_what_makes_no_sense_is_refused(openai_spool: Spool, arguments: tuple[str, ...], why: str) -> None:
    ended = nura(openai_spool, "hold", *arguments)
    assert (ended.code, why in ended.out, "Traceback" in ended.out) == (2, True, False), ended
    assert openai_spool.rows("SELECT count(*) FROM holds") == [(0,)]


def test_a_reason_that_is_no_text_is_kept_as_far_as_it_is_one(openai_spool: Spool) -> None:
    assert nura(openai_spool, "hold", "echo", "--why", "caf\udce9").code == 0
    assert openai_spool.rows("SELECT why FROM holds") == [("caf\ufffd",)]


def test_the_time_of_a_hold_counts_from_now() -> None:
    from nura_cli.cli.grammar import to_come

    assert to_come("--until", None) is None
    assert abs((to_come("--until", "1h30m") or 0) - clock.now() - 5400) <= 1
