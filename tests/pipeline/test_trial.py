"""nura try: some records at once, as a batch would send and judge them; what they cost is in the ledger, and no task is touched."""

import json
import os
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nura_cli.cli import build
from nura_cli.errors import OnHold, UsageError
from nura_cli.pipeline import trial
from nura_cli.pipeline.report import Report
from nura_cli.state.actions import Scope
from tests.conftest import Spool
from tests.end_to_end.test_command_line import NURA

SECOND_PROTOCOL_IS_LONG = True
SCHEMA = {
    "type": "object",
    "properties": {"section": {"type": "string", "enum": ["world", "sports"]}},
    "required": ["section"],
    "additionalProperties": False,
}


def tried(spool: Spool, *keys: str, most: int = 3) -> Report:
    """Try what waits, or these keys, as somebody who agrees to it."""

    def work(state: Any, config: Any, accounts: Any) -> Report:
        found = trial.of_keys(state, "echo", keys) if keys else trial.waiting(state, "echo", most)
        return trial.run(trial.plan(state, config, accounts, "echo", found))

    return spool._run(work)


def ledger(spool: Spool) -> list[tuple[Any, ...]]:
    """Return outcome and cost of each request that was tried."""
    return spool.rows("SELECT outcome, cost FROM trials ORDER BY id")


def digests(spool: Spool, *, batch: bool) -> set[bytes]:
    """Return the digests of the bodies that the provider has billed, in batches or at once."""
    with closing(sqlite3.connect(f"file:{spool.server._store.path}?mode=ro", uri=True)) as box:
        query = f"SELECT digest FROM billed WHERE batch {'<>' if batch else '='} ''"
        return {row[0] for row in box.execute(query)}


def invoke(spool: Spool, *options: str, given: str = "") -> tuple[int, str]:
    """Run nura try on the spool's workload; return its exit code, and what it says and prints."""
    ended = CliRunner().invoke(build(["try"]), ["try", "echo", "-c", str(spool.path), *options], input=given)
    return ended.exit_code, ended.output


def test_what_is_tried_is_the_very_body_that_a_batch_sends(spool: Spool) -> None:
    spool.set(schema=SCHEMA, system="Be short.", prompt="Say é: {{ text }}")
    spool.fill(3)
    report = tried(spool)
    assert (report.exit_code, [one["key"] for one in report.result["trials"]]) == (0, [0, 1, 2])
    first = report.result["trials"][0]
    assert (first["prompt"], first["system"], first["fits"]) == ("Say é: record number 0", "Be short.", True)
    assert json.loads(first["text"]) == first["json"]
    assert spool.counts()["pending"] == 3
    assert spool.batches() == []
    assert spool.control.billing()["synchronous"]["requests"] == 3
    alone = digests(spool, batch=False)
    spool.round()
    assert digests(spool, batch=True) == alone
    answers = {one["key"]: one["text"] for one in spool.results()}
    assert answers == {one["key"]: one["text"] for one in report.result["trials"]}


def test_its_cost_is_the_list_price_and_stands_in_status_and_cost(spool: Spool) -> None:
    spool.fill(4)
    report = tried(spool, most=2)
    assert [outcome for outcome, _ in ledger(spool)] == ["answered"] * 2
    found = spool.status()
    assert found["cost"]["paid"] == found["cost"]["list"] == report.result["cost"]["paid"] > "0.00"
    assert found["usage"]["input_tokens"] == spool.control.billing()["synchronous"]["input_tokens"]
    assert report.result["waiting"]["tasks"] == 4
    assert float(report.result["waiting"]["estimated_cost"]) == pytest.approx(
        float(report.result["cost"]["paid"]), rel=0.1
    )
    spool.check()


def test_what_each_column_would_become_is_told_without_the_database(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.databases["app"] = {"url": "sqlite:///nowhere.db"}
    sets = {"section": "json.section", "n": "length(text)", "x": "length(`1`)", "of": "record.text"}
    back = {"database": "app", "table": "t", "where": {"id": "key"}, "set": sets, "set_failed": {"why": "error.kind"}}
    spool.set(schema=SCHEMA, write_back=back, keep=["text"])
    spool.fill(1)
    (one,) = tried(spool).result["trials"]
    columns = {column["column"]: column["value"] for column in one["columns"]}
    assert columns == {
        "id": 0,
        "section": one["json"]["section"],
        "n": len(one["text"]),
        "x": None,
        "of": "record number 0",
    }
    assert "length()" in next(column["error"] for column in one["columns"] if column["column"] == "x")
    spool.set(schema=SCHEMA, write_back=back, params={"max_tokens": 1})
    report = tried(spool, "0")
    (one,) = report.result["trials"]
    assert (report.exit_code, one["status"], one["fits"], one["error"]["kind"]) == (3, "failed", False, "truncated")
    assert [(c["option"], c["value"]) for c in one["columns"]] == [("where", 0), ("set_failed", "truncated")]
    assert [outcome for outcome, cost in ledger(spool) if cost] == ["answered", "truncated"]
    assert not (spool.folder / "nowhere.db").exists()


@pytest.mark.parametrize(
    ("fault", "code", "outcomes", "priced"),
    [
        ({"what": "status", "status": 400}, 3, ["refused", "answered"], True),
        ({"what": "status", "status": 429}, 75, ["rate_limited"], True),
        ({"what": "status", "status": 401}, 77, ["key_refused"], True),
        ({"what": "status", "status": 404}, 3, ["not_found", "answered"], True),
        ({"what": "status", "status": 503}, 75, ["unknown"], False),
        ({"what": "drop_before"}, 75, ["unknown"], False),
        ({"what": "drop_after"}, 75, ["unknown"], False),
        ({"what": "html"}, 75, ["unknown"], False),
        ({"what": "html", "after": True}, 75, ["unknown"], False),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_what_goes_wrong_is_told_sent_once_and_never_free_where_it_may_be_billed(
    spool: Spool, fault: dict[str, Any], code: int, outcomes: list[str], priced: bool
) -> None:
    spool.fill(2)
    spool.server.arm({**fault, "route": "answer"})
    report = tried(spool)
    assert report.exit_code == code
    assert report.problems[0].message.startswith("echo 0: main: trying a request: ")
    assert [outcome for outcome, _ in ledger(spool)] == outcomes
    assert (ledger(spool)[0][1] == 0) is priced
    assert report.result["cost"]["unpriced_attempts"] == (not priced)
    assert spool.status()["cost"]["unpriced_tasks"] == (not priced)
    sent = [entry for entry in spool.control.log() if entry["route"] == "answer"]
    assert len(sent) == len(outcomes)
    assert spool.counts()["pending"] == 2
    spool.check()


def test_where_nobody_listens_nothing_was_spent(openai_spool: Spool) -> None:
    openai_spool.fill(1)
    openai_spool.server.stop()
    report = tried(openai_spool)
    assert (report.exit_code, ledger(openai_spool)) == (75, [("unreachable", 0)])
    openai_spool.check_sums()


def test_a_held_provider_gets_nothing_and_a_held_workload_is_tried(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(1)
    spool.hold("echo", why="the prompt is bad")
    code, text = invoke(spool, "--yes")
    assert code == 0
    assert "echo is held, which keeps nobody from trying it" in text
    spool.hold("main", scope="provider", why="no money")
    with pytest.raises(OnHold, match=r"main is held by tim .*no money") as held:
        tried(spool)
    assert held.value.exit_code == 3
    assert len(ledger(spool)) == 1


@pytest.mark.parametrize(("scope", "name"), [("provider", "main"), ("workload", "echo")])
def test_what_is_held_meanwhile_stops_what_is_not_sent_yet(openai_spool: Spool, scope: Scope, name: str) -> None:
    spool = openai_spool
    spool.fill(3)

    def hold(_: Any) -> None:
        spool.hold(name, scope=scope, why="too dear")

    def work(state: Any, config: Any, accounts: Any) -> Report:
        job = trial.plan(state, config, accounts, "echo", trial.waiting(state, "echo", 3))
        return trial.run(job, told=hold)

    report = spool._run(work)
    assert (report.exit_code, len(report.result["trials"]), len(ledger(spool))) == (3, 1, 1)
    assert "too dear" in report.problems[0].message


def test_ready_lines_are_sent_as_they_are(spool: Spool) -> None:
    body = {"model": spool.model, "max_tokens": 50, "messages": [{"role": "user", "content": "record number 7"}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    if spool.protocol == "anthropic":
        line = {"custom_id": "a", "params": body}
    spool.workloads["echo"] = {"provider": "main"}
    spool.write_config()
    code, text = invoke(spool, "-", "--yes", "--json", given=json.dumps(line))
    assert code == 0
    (one,) = json.loads(text)["trials"]
    assert (one["key"], one["prompt"], one["fits"]) == ("a", None, None)
    assert "record number 7" in one["text"]
    member = "params" if spool.protocol == "anthropic" else "body"
    code, text = invoke(spool, "-", "--yes", given=json.dumps({**line, member: {**body, "stream": True}}))
    assert (code, "stream is not possible" in text) == (3, True)
    assert spool.rows("SELECT count(*) FROM trials") == [(1,)]


def test_an_endpoint_that_answers_no_single_request_ends_with_2(openai_spool: Spool) -> None:
    line = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"model": "m", "prompt": "x"}}
    openai_spool.workloads["echo"] = {"provider": "main"}
    openai_spool.write_config()
    code, text = invoke(openai_spool, "-", "--yes", given=json.dumps(line))
    assert code == 2
    assert "echo: main answers no request at /v1/completions outside of a batch" in text
    assert openai_spool.control.log() == []


def test_it_is_said_before_what_it_may_cost_and_agreed_to(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.set(params={"max_tokens": 1000})
    spool.fill(2)
    code, text = invoke(spool)
    assert code == 2
    assert "2 requests go to main at once, at list price, about $0.0000" in text
    assert "at most $0.0032 for what is answered: nothing was done (agree to it with --yes" in text
    code, text = invoke(spool, "-n", "--key", "1")
    assert (code, "1 request goes to main" in text, "Repeat: record number 1" in text) == (0, True, True)
    spool.set(params={"max_tokens": 1000, "n": 50})
    assert "at most $0.16 for what is answered" in invoke(spool)[1]
    spool.set(model="nobody-knows-it")
    assert "at a price that is not known" in invoke(spool)[1]
    assert (ledger(spool), spool.control.log()) == ([], [])


def test_records_come_from_a_file_from_what_waits_or_from_the_source(openai_spool: Spool) -> None:
    spool = openai_spool
    with closing(sqlite3.connect(spool.folder / "app.db", isolation_level=None)) as app:
        app.execute("CREATE TABLE t (id INTEGER, text TEXT)")
        app.executemany("INSERT INTO t VALUES (?, ?)", [(n, f"row {n}") for n in range(9)])
    spool.databases["app"] = {"url": "sqlite:///app.db"}
    spool.set(source={"database": "app", "query": "SELECT id, text FROM t"})
    given = '{"id": 50, "text": "of a file"}\n{"id": 51, "txet": "x"}\n{"id": 52, "text": "of a file"}\n'

    def prompts(*options: str, given: str = "") -> tuple[int, list[str]]:
        code, text = invoke(spool, "--yes", "--json", *options, given=given)
        return code, [one["prompt"] for one in json.loads(text)["trials"]]

    assert prompts("--limit", "2") == (0, ["Repeat: row 0", "Repeat: row 1"])
    assert prompts("-", given=given) == (3, ["Repeat: of a file"] * 2)
    spool.fill(1)
    assert prompts() == (0, ["Repeat: record number 0"])
    spool.settle()
    assert prompts("--key", "0") == (0, ["Repeat: record number 0"])
    assert spool.counts() == {**spool.counts(), "completed": 1, "pending": 0}
    assert len(spool.results()) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--limit", "21"], "less than or equal to 20"),
        (["--key", "7"], "echo has no key 7 (the records of a file can be tried, too)"),
        (["file.jsonl", "--key", "7"], "give a file or --key: not both"),
        (["gone.jsonl"], "gone.jsonl: No such file or directory"),
        ([], "nothing of echo waits (name a file of records: nura try echo FILE, or -)"),
        ([word for n in range(21) for word in ("--key", str(n))], "at most 20 records are tried at once"),
    ],
)
def test_what_cannot_be_tried_is_said_and_ends_with_2(openai_spool: Spool, options: list[str], said: str) -> None:
    code, text = invoke(openai_spool, *options, "--yes")
    assert code == 2
    assert said in " ".join(text.replace("│", "").split())


def test_without_such_a_workload_it_is_said(openai_spool: Spool) -> None:
    with pytest.raises(UsageError, match="no workload"):
        openai_spool._run(lambda state, config, accounts: trial.run(trial.plan(state, config, accounts, "no", [])))


def test_stopped_in_the_middle_what_was_sent_has_an_unknown_cost(openai_spool: Spool, tmp_path: Path) -> None:
    spool = openai_spool
    spool.fill(2)
    spool.server.arm({"what": "hold", "route": "answer", "after": True, "seconds": 60})
    child = subprocess.Popen(
        [NURA, "try", "echo", "-c", spool.path, "--yes"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ}, cwd=tmp_path,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not any(entry["outcome"] == "held" for entry in spool.control.log()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=60)
    spool.control.release()
    assert (child.returncode, b"answered" in out.split(b"\n", 1)[1]) == (130, False)
    assert ledger(spool) == [("unknown", None)]
    assert spool.control.billing()["synchronous"]["requests"] == 1
    assert spool.status()["cost"]["unpriced_tasks"] == 1
    spool.check()


def test_for_a_person_it_is_readable(openai_spool: Spool) -> None:
    openai_spool.set(schema=SCHEMA, prompt="First\n\n{{ text }}")
    openai_spool.fill(1)
    code, text = invoke(openai_spool, "--yes")
    assert code == 0
    asked, key, prompt, first, between, second, answered, fits, used, _, paid, wait = text.splitlines()
    assert asked.startswith("1 request goes to main at once")
    assert (key, prompt, first, between.strip(), second) == (
        "key 0",
        "  prompt:",
        "    First",
        "",
        "    record number 0",
    )
    assert answered.startswith('  answer: {"section": ')
    assert fits == "  it fits the schema"
    assert " tokens in, " in used
    assert paid.startswith("1 request answered: paid $")
    assert wait.startswith("1 task that waits would cost about $")
    assert wait.endswith(" in batches")
