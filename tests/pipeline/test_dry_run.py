"""The dry run says what dispatch then does: batches, requests, bytes, what waits, why and until when, and what fails."""

import sqlite3
import tempfile
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st

from nura_cli.pipeline.report import Report
from nura_cli.sandbox import Sandbox
from nura_cli.state import State, actions, runs
from nura_cli.state.actions import Hold, Scope
from nura_cli.state.runs import Route
from tests.conftest import START, Spool

SECOND_PROTOCOL_IS_LONG = True

HOUR = 3600
BATCH = ("workload", "provider", "endpoint", "model", "revision", "requests", "bytes")
PROMPT = "Repeat: {{ text }}{% if 1 // n %}{% endif %}"  # of a record whose n is 0 nothing can be rendered


def said(report: Report) -> dict[str, Any]:
    """Return what a report says of what goes and what waits; estimates, and what only sending tells, are left out."""
    return {
        "batches": [[batch[name] for name in BATCH] for batch in report.result["batches"]],
        **{name: report.result[name] for name in ("requests", "not_due", "waits", "unconfirmed")},
        "problems": [(found.kind, found.provider, found.workload) for found in report.problems],
        "exit_code": report.exit_code,
    }


def kept(spool: Spool) -> tuple[list[str], list[str], list[Any]]:
    """Return all that a dry run must leave as it is: the state file's rows, the files beside it, the provider's log."""
    with State(spool.state_path) as state:
        rows = list(state.db.iterdump())
    return rows, sorted(str(path) for path in spool.folder.rglob("*") if path.is_file()), spool.control.log()


def agreed(spool: Spool, **options: Any) -> dict[str, Any]:
    """Let a dry run say what goes, see that it changed nothing, and that the run does just that; return what was said."""
    before = kept(spool)
    foretold = said(spool.preview(**options))
    assert kept(spool) == before
    assert said(spool.dispatch(**options)) == foretold
    return foretold


# --- any spool


def any_task(random: Random) -> tuple[int, int, int, int]:
    """Return letters of a text (or inputs), the n of a record, the time of the next attempt, and when it was enqueued."""
    not_before = [0, 0, 0, 0, START - HOUR, START - 60, START, START + HOUR, START + 400 * 86400]
    enqueued_at = [START, START - 90, START - 2 * HOUR, START + HOUR]
    return (
        random.choice([0, 1, random.randrange(120)]),
        random.choice([1] * 8 + [0]),
        random.choice(not_before),
        random.choice(enqueued_at),
    )


def any_workload(random: Random) -> dict[str, Any]:
    """Return a workload with what waits in it: records, ready lines, or records whose prompt has left the configuration."""
    return {
        "kind": random.choice(["records"] * 4 + ["ready", "ready", "inputs", "inputs", "lost prompt"]),
        "provider": random.choice(["main", "main", "main", "other"]),
        "least": random.choice([1, 1, 2, 5]),
        "max_wait": random.choice(["1m", "1h", "24h"]),
        "tasks": [any_task(random) for _ in range(random.randrange(14))],
    }


def any_world(random: Random) -> dict[str, Any]:
    """Return a whole spool in numbers: limits, workloads, what earlier runs sent and learned, and how dispatch is called."""
    limits = {
        "requests": random.randint(1, 5),
        "bytes": random.randint(400, 2000),
        "inputs": random.randint(1, 200),
        "enqueued_tokens": random.randint(50, 500),
    }
    return {
        "protocol": random.choice(["openai", "openai", "anthropic"]),
        "limits": {name: limit for name, limit in limits.items() if random.random() < 0.4},
        "workloads": [any_workload(random) for _ in range(random.randint(1, 3))],
        "under_way": random.randrange(3),
        "provider_rests": random.choice([0] * 6 + [START - 60, START + HOUR]),
        "route": (
            random.choice([0] * 6 + [START - 60, START + HOUR, START + 400 * 86400]),
            random.choice([0, 1]),
            random.choice([None, 1, 2, 3]),
        ),
        "held": [
            (name, random.choice([None, START - 1, START, START + HOUR]))
            for name in ("w0", "w1", "main", "other")
            if random.random() < 0.15
        ],
        "refused": [
            {"times": random.randint(1, 4), "line": random.choice([None, None, 1, 2])}
            for _ in range(random.choice([0, 0, 0, 1, 2]))
        ],
        "takes": random.choice([0, 0, HOUR]),
        "now": random.random() < 0.4,
        "chosen": random.choice([(), (), (), ("w0",), ("w0", "w0")]),
    }


def options_of(spool: Spool, workload: dict[str, Any]) -> dict[str, Any]:
    """Return a workload's options, as it is enqueued into."""
    rule = {"min_requests": workload["least"], "max_wait": workload["max_wait"]}
    if workload["kind"] in ("ready", "inputs"):
        return {"provider": workload["provider"], "dispatch": rule}
    return spool.workload(prompt=PROMPT, provider=workload["provider"], dispatch=rule)


def line_of(spool: Spool, workload: dict[str, Any], key: int, size: int, n: int) -> dict[str, Any]:
    """Return a line to enqueue: a record, or a ready line of the protocol's kind."""
    name = f"k{key}"
    if workload["kind"] not in ("ready", "inputs"):
        return {"id": name, "text": "é" * size, "n": n}
    message = [{"role": "user", "content": "é" * (size + 1)}]
    if spool.protocol == "anthropic":
        return {"custom_id": name, "params": {"model": spool.model, "max_tokens": 5, "messages": message}}
    if workload["kind"] == "ready":
        return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions",
                "body": {"model": f"gpt-4.1{'' if n else '-mini'}", "messages": message}}  # fmt: skip
    body = {"model": "text-embedding-3-small", "input": ["x"] * (size + 1)}
    return {"custom_id": name, "method": "POST", "url": "/v1/embeddings", "body": body}


def fill(spool: Spool, world: dict[str, Any]) -> None:
    """Enqueue a world's tasks, each with its age and the time of its next attempt."""
    times = []
    for index, workload in enumerate(world["workloads"]):
        lines = [line_of(spool, workload, key, size, n) for key, (size, n, *_) in enumerate(workload["tasks"])]
        if lines:
            spool.enqueue(*lines, workload=f"w{index}")
        times += [(not_before, at) for *_, not_before, at in workload["tasks"]]
    with State(spool.state_path) as state, state.transaction() as db:
        ids = [row[0] for row in db.execute("SELECT id FROM tasks WHERE status = 'pending' ORDER BY id")]
        for task_id, (not_before, at) in zip(ids, times, strict=True):
            db.execute("UPDATE tasks SET not_before = ? WHERE id = ?", (not_before, task_id))
            db.execute("UPDATE records SET enqueued_at = ? WHERE task_id = ?", (at, task_id))


def learn(spool: Spool, world: dict[str, Any]) -> None:
    """Let the state file know what earlier runs learned of provider and routes."""
    rest, (pause, failures_in_a_row, cap) = world["provider_rests"], world["route"]
    endpoints = ["/v1/chat/completions", "/v1/embeddings"] if spool.protocol == "openai" else ["/v1/messages"]
    with State(spool.state_path) as state, state.transaction() as db:
        runs.learn(db, Route("main", "", "", rest, int(rest > 0), None, "it was down"))
        for endpoint in endpoints:
            for model in (spool.model, "text-embedding-3-small"):
                runs.learn(db, Route("main", endpoint, model, pause, failures_in_a_row, cap, "too much at once"))


def hold(spool: Spool, world: dict[str, Any]) -> None:
    """Let persons hold workloads and providers; the time of some holds is over."""
    with State(spool.state_path) as state, state.transaction() as db:
        for name, until in world["held"]:
            scope: Scope = "workload" if name.startswith("w") else "provider"
            actions.hold(db, Hold(scope, name, "", START - HOUR, until, "tim", None))


def refuse(spool: Spool, world: dict[str, Any]) -> None:
    """Let some batches be refused, in words that nobody knows: who of their tasks is to blame is looked for."""
    spool.control.settings(delay=world["takes"])
    for refusal in world["refused"]:
        spool.control.fault("refuse", code="odd_trouble", message="nobody knows this word", **refusal)
        spool.dispatch(ignore_waits=True)
        spool.poll()
        spool.reconcile()
        spool.control.clear()


def build(spool: Spool, world: dict[str, Any]) -> None:
    """Make a spool in which such a world waits: some batches under way, some prompts lost, some routes paused."""
    spool.providers["other"] = spool.provider()
    spool.workloads = {f"w{n}": options_of(spool, one) for n, one in enumerate(world["workloads"])}
    spool.workloads["early"] = spool.workload()
    spool.write_config()
    for n in range(world["under_way"]):
        spool.enqueue({"id": f"early {n}", "text": "early"}, workload="early")
        spool.dispatch(workloads=["early"])
    fill(spool, world)
    refuse(spool, world)
    learn(spool, world)
    hold(spool, world)
    spool.providers["main"] = spool.provider(limits=world["limits"])
    for n, workload in enumerate(world["workloads"]):
        if workload["kind"] == "lost prompt":
            spool.workloads[f"w{n}"] = options_of(spool, {**workload, "kind": "ready"})
    spool.write_config()


@settings(max_examples=20, phases=(Phase.explicit, Phase.generate))  # a seed has nothing to shrink
@given(st.randoms(use_true_random=True))
def test_what_a_dry_run_says_is_what_the_run_then_does(random: Random) -> None:
    world = any_world(random)
    note(str(world))
    with tempfile.TemporaryDirectory() as name, Sandbox(Path(name) / "box.db") as server:
        folder = Path(name) / "nura"
        folder.mkdir()
        spool = Spool(folder, server, world["protocol"])
        build(spool, world)
        agreed(spool, workloads=world["chosen"], ignore_waits=world["now"])


# --- what a dry run must heed


def test_waiting_for_more_is_said_and_now_overrides_it(spool: Spool) -> None:
    spool.set(dispatch={"min_requests": 5, "max_wait": "1h"})
    spool.fill(2)
    told = agreed(spool)
    assert told["batches"] == []
    assert told["not_due"] == dict.fromkeys(told["not_due"], 0) | {"threshold": 2}
    (wait,) = told["waits"]
    assert (wait["workload"], wait["tasks"], wait["until"]) == ("echo", 2, "2027-01-15T09:00:00Z")
    assert wait["message"] == "2 of the 5 that are sent together are there"
    assert agreed(spool, ignore_waits=True)["requests"] == 2


def test_a_cap_on_what_is_under_way_counts_what_the_run_itself_sends(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.set("second")
    spool.providers["main"] = spool.provider(limits={"requests": 2, "enqueued_tokens": 50})
    spool.write_config()
    spool.fill(5)
    spool.fill(2, workload="second")
    told = agreed(spool)
    assert told["requests"] < 7
    assert told["not_due"]["quota"] == 7 - told["requests"]
    assert " of 50 enqueued tokens are under way" in told["waits"][-1]["message"]


def test_a_learned_size_that_grows_with_each_batch_taken_is_foreseen(spool: Spool) -> None:
    spool.fill(9)
    with State(spool.state_path) as state, state.transaction() as db:
        endpoint = "/v1/chat/completions" if spool.protocol == "openai" else "/v1/messages"
        runs.learn(db, Route("main", endpoint, spool.model, 0, 0, 1, "too large"))
    assert [batch[5] for batch in agreed(spool)["batches"]] == [1, 2, 4, 2]


def test_an_outage_and_a_paused_route_are_said_with_their_end(spool: Spool) -> None:
    spool.fill(3)
    spool.control.fault("status", status=503, times=-1)
    spool.dispatch()
    assert spool.rows("SELECT paused_until > 0 FROM routes") == [(1,)]
    spool.control.clear()
    told = agreed(spool)
    assert (told["requests"], told["not_due"]["backoff"], told["exit_code"]) == (0, 3, 75)
    assert told["waits"][0]["until"] > "2027-01-15T08:00:00Z"
    assert agreed(spool, ignore_waits=True)["requests"] == 3


def test_records_that_cannot_be_rendered_or_are_too_large_fail_and_the_rest_goes(spool: Spool) -> None:
    spool.set(prompt=PROMPT)
    spool.providers["main"] = spool.provider(limits={"bytes": 2000})
    spool.write_config()
    spool.enqueue({"id": 1, "text": "x", "n": 0}, {"id": 2, "text": "x" * 3000, "n": 1}, {"id": 3, "text": "x", "n": 1})
    foretold = spool.preview()
    assert [found.message.partition(";")[0] for found in foretold.problems] == [
        "echo: 2 tasks will fail, since no prompt can be rendered"
    ]
    told = agreed(spool)
    assert (told["requests"], told["exit_code"]) == (1, 3)
    assert spool.counts()["failed"] == 2


def test_records_whose_workload_lost_its_prompt_go_nowhere(spool: Spool) -> None:
    spool.fill(2)
    spool.workloads["echo"] = {"provider": "main"}
    spool.write_config()
    told = agreed(spool)
    assert (told["batches"], told["exit_code"]) == ([], 78)
    assert "records wait in it" in spool.preview().problems[0].message


def test_limits_on_inputs_split_batches(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.workloads["vectors"] = {"provider": "main"}
    spool.providers["main"] = spool.provider(limits={"inputs": 4})
    spool.write_config()
    lines = [line_of(spool, {"kind": "inputs"}, key, size, 1) for key, size in enumerate([2, 0, 1, 5])]
    spool.enqueue(*lines, workload="vectors")
    told = agreed(spool)
    assert [batch[5] for batch in told["batches"]] == [2, 1]
    assert told["problems"] == [("input", None, "vectors")]


def test_a_table_that_is_wrong_holds_its_workload_back_and_looking_at_it_is_not_noted(spool: Spool) -> None:
    with sqlite3.connect(spool.folder / "app.db") as app:
        app.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, answer TEXT)")
    app.close()
    spool.databases["app"] = {"url": "sqlite:///app.db"}
    wrong = {"database": "app", "table": "rows", "where": {"id": "key"}, "set": {"nothing": "text"}}
    spool.set(write_back=wrong)
    spool.fill(2)
    told = agreed(spool)
    assert (told["batches"], told["exit_code"]) == ([], 78)
    spool.set(write_back={**wrong, "set": {"answer": "text"}})
    assert agreed(spool)["requests"] == 2


def test_tasks_that_wait_for_their_next_attempt_are_said_beside_those_that_go(spool: Spool) -> None:
    spool.fill(2)
    spool.control.fault("rows", match="number 1", status=500)
    spool.round()
    spool.enqueue({"id": 7, "text": "record number 7"})
    told = agreed(spool)
    assert (told["requests"], told["not_due"]["backoff"]) == (1, 1)
    assert told["waits"][0]["message"] == "they failed lately, and are tried again later"


def test_with_now_each_task_is_counted_once_whatever_it_waits_for(spool: Spool) -> None:
    spool.providers["main"] = spool.provider(limits={"requests": 2})
    spool.write_config()
    spool.fill(6)
    with State(spool.state_path) as state, state.transaction() as db:
        for task_id, not_before in enumerate([START - 60, START + 60, START - 90, 0, START + 400 * 86400], 1):
            db.execute("UPDATE tasks SET not_before = ? WHERE id = ?", (not_before, task_id))
    assert [batch[5] for batch in agreed(spool, ignore_waits=True)["batches"]] == [2, 2, 2]


def test_a_batch_that_fills_up_gives_the_rest_back_in_its_place(spool: Spool) -> None:
    """Those that failed before are claimed first and written in the order of their ids: who does not fit is not the last claimed."""
    spool.providers["main"] = spool.provider(limits={"requests": 4, "bytes": 900})
    spool.write_config()
    spool.enqueue(*({"id": n, "text": "x" * (n * 37 % 150)} for n in range(12)))
    with State(spool.state_path) as state, state.transaction() as db:
        db.execute("UPDATE tasks SET not_before = ? - id WHERE id % 3 = 0", (START,))
    assert agreed(spool)["requests"] == 12


def test_who_may_be_to_blame_goes_last_and_apart_as_the_dry_run_says(spool: Spool) -> None:
    spool.fill(9)
    spool.control.fault("refuse", code="odd_trouble", message="nobody knows this word")
    spool.round()
    spool.control.settings(delay=HOUR)
    spool.clock.advance(HOUR)
    spool.enqueue({"id": 9, "text": "record number 9"})
    told = agreed(spool)
    if spool.protocol == "openai":  # whether a batch is taken is not known at once: one batch of them at a time
        assert [batch[5] for batch in told["batches"]] == [1, 5]
        assert told["not_due"]["paused"] == 4
        spool.poll()
        assert [batch[5] for batch in agreed(spool)["batches"]] == [4]
    else:
        assert [batch[5] for batch in told["batches"]] == [1, 5, 4]


def test_who_was_named_waits_for_the_rest_as_the_dry_run_says(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(4)
    spool.control.fault("refuse", code="odd_trouble", message="nobody knows this word", line=2)
    spool.round()
    spool.control.settings(delay=HOUR)
    told = agreed(spool)
    assert ([batch[5] for batch in told["batches"]], told["not_due"]["paused"]) == ([3], 1)
    assert "may be to blame" in told["waits"][0]["message"]
    spool.cancel(under_way=True)
    spool.poll()
    spool.reconcile()
    assert [batch[5] for batch in agreed(spool)["batches"]] in ([1], [])
