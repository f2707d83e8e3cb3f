"""nura from Python: the two functions an application needs."""

import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import nura_cli
from nura_cli import contract
from nura_cli.errors import ConfigError, InputError, UsageError
from tests.conftest import Spool

SECOND_PROTOCOL_IS_LONG = True


def records(*numbers: int) -> Iterator[dict[str, Any]]:
    """Yield records for these numbers."""
    for n in numbers:
        yield {"id": n, "text": f"record number {n}"}


def test_records_go_in_and_answers_come_out(spool: Spool) -> None:
    counts = nura_cli.enqueue("echo", records(1, 2, 3), config=spool.path)
    assert counts == {
        "enqueued": 3,
        "duplicates": 0,
        "conflicts": 0,
        "replaced": 0,
        "rejected": 0,
        "duplicates_failed": 0,
        "duplicates_cancelled": 0,
        "duplicates_purged": 0,
        "enqueued_again": 0,
        "hint": None,
        "errors": [],
    }
    assert nura_cli.enqueue("echo", records(2, 3, 4), config=spool.path)["duplicates"] == 2
    spool.round()
    answers = list(nura_cli.results("echo", config=spool.path))
    assert {answer["key"]: answer["status"] for answer in answers} == dict.fromkeys((1, 2, 3, 4), "completed")
    assert all(f"record number {answer['key']}" in (answer["text"] or "") for answer in answers)
    assert answers == spool.results()
    spool.check()


def test_the_fields_are_those_that_are_promised(spool: Spool) -> None:
    nura_cli.enqueue("echo", records(1), config=spool.path)
    spool.round()
    (answer,) = nura_cli.results(config=spool.path)
    assert answer.keys() == nura_cli.Result.__annotations__.keys()
    counts = nura_cli.enqueue("echo", records(1), config=spool.path)
    assert counts.keys() == nura_cli.Enqueued.__annotations__.keys()


def test_what_is_no_record_is_rejected_by_number_and_the_good_ones_go_in(spool: Spool) -> None:
    given: list[Any] = [*records(1), {"id": 2}, {"id": 3, "text": {1, 2}}, {"id": 4, "text": float("nan")}, *records(5)]
    counts = nura_cli.enqueue("echo", given, config=spool.path)
    assert (counts["enqueued"], counts["rejected"]) == (2, 3)
    missing, unknown, nan = [error["message"] for error in counts["errors"]]
    assert missing.startswith("record 2: the prompt needs text")
    assert unknown.startswith("record 3: has no form in JSON: Object of type set")
    assert nan.startswith("record 4: has no form in JSON")


@pytest.mark.parametrize(
    "problem", [ValueError("own"), FileNotFoundError(2, "own", "a file"), sqlite3.OperationalError("own")]
)
def test_records_that_end_in_an_error_are_kept_up_to_there(spool: Spool, problem: Exception) -> None:
    """The application's own problem comes out as it is, and is not taken for the state file's."""

    def failing() -> Iterator[dict[str, Any]]:
        yield from records(1, 2)
        raise problem

    with pytest.raises(type(problem), match="own") as caught:
        nura_cli.enqueue("echo", failing(), config=spool.path)
    assert caught.value is problem
    assert spool.counts()["pending"] == 2
    assert nura_cli.enqueue("echo", records(1, 2, 3), config=spool.path)["enqueued"] == 1


def test_other_content_is_a_conflict_unless_it_is_to_replace(spool: Spool) -> None:
    nura_cli.enqueue("echo", records(1), config=spool.path)
    other = [{"id": 1, "text": "record number 1, corrected"}]
    counts = nura_cli.enqueue("echo", other, config=spool.path)
    assert counts["conflicts"] == 1
    assert "--replace" in counts["errors"][0]["message"]
    assert nura_cli.enqueue("echo", other, config=spool.path, replace=True)["replaced"] == 1
    assert nura_cli.enqueue("echo", records(1), config=spool.path, key_prefix="march-")["enqueued"] == 1


def test_ready_requests_go_in_where_there_is_no_prompt(openai_spool: Spool) -> None:
    openai_spool.workloads["raw"] = {"provider": "main"}
    openai_spool.write_config()
    body = {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "Repeat: yes"}]}
    request = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    assert nura_cli.enqueue("raw", [request], config=openai_spool.path)["enqueued"] == 1
    openai_spool.round()
    (answer,) = nura_cli.results("raw", key="a", config=openai_spool.path)
    assert "yes" in (answer["text"] or "")


def test_answers_are_picked_by_key_status_time_and_place(spool: Spool) -> None:
    spool.set(key=["tenant", "id"], retry={"max_attempts": 1})
    nura_cli.enqueue(
        "echo",
        [{"tenant": "a", "id": n, "text": f"record number {n}"} for n in (1, 2, 3)],
        config=spool.path,
    )
    spool.control.fault("rows", match="number 2", status=400, message="too long", times=-1)
    began = spool.clock()
    spool.round()

    def keys(**options: Any) -> list[Any]:
        return sorted(answer["key"][1] for answer in nura_cli.results(config=spool.path, **options))

    assert keys(status="failed") == [2]
    assert keys(status="completed") == [1, 3]
    assert keys(key=["a", 3]) == [3]
    assert keys(key=["a", 3], status="failed") == []
    assert keys(since=datetime.fromtimestamp(began, UTC)) == [1, 2, 3]
    assert keys(since=datetime.fromtimestamp(began + 7200)) == []  # noqa: DTZ006 - a naive time, as it comes
    assert keys(after=3) == []


def test_mistakes_are_told_apart(spool: Spool, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no workload ecko"):
        nura_cli.enqueue("ecko", records(1), config=spool.path)
    with pytest.raises(UsageError, match="no workload ecko"):
        list(nura_cli.results("ecko", config=spool.path))
    with pytest.raises(InputError, match="empty"):
        nura_cli.results(key="", config=spool.path)
    with pytest.raises(ConfigError, match="No such file"):
        nura_cli.enqueue("echo", records(1), config=tmp_path / "absent.yaml")


def test_a_slow_reader_holds_up_no_stage_and_sees_what_comes_meanwhile(spool: Spool) -> None:
    nura_cli.enqueue("echo", records(*range(300)), config=spool.path)
    spool.round()
    reader = nura_cli.results(config=spool.path)
    first = next(reader)
    spool.fill(301)
    spool.clock.advance(3600)
    spool.round()
    spool.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    assert len({answer["key"] for answer in [first, *reader]}) == 301


def test_threads_of_one_application_may_enqueue_at_once(spool: Spool) -> None:
    counts: list[nura_cli.Enqueued] = []

    def work() -> None:
        counts.append(nura_cli.enqueue("echo", records(*range(50)), config=spool.path))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(count["enqueued"] for count in counts) == [0, 0, 0, 50]
    assert sum(count["duplicates"] for count in counts) == 150


def test_importing_it_costs_next_to_nothing() -> None:
    code = "import sys; from nura_cli import enqueue, results; print(sorted({n.split('.')[0] for n in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(json.loads(done.stdout.replace("'", '"')))
    assert not loaded & {"openai", "anthropic", "pydantic", "sqlite3", "sqlalchemy", "typer", "yaml", "jinja2"}


def test_the_types_of_what_it_returns_can_be_had_of_it() -> None:
    assert nura_cli.Enqueued is contract.Enqueued
    assert nura_cli.Result is contract.Result
    with pytest.raises(AttributeError, match="no attribute 'Answers'"):
        nura_cli.Answers  # noqa: B018 - that it is asked for is the test


# --- the vendor's lines


def vendor_lines(spool: Spool, form: str, *options: str) -> list[dict[str, Any]]:
    """Return what ``nura results --format`` prints."""
    nura = Path(sys.executable).with_name("nura")
    done = subprocess.run(
        [nura, "results", "--format", form, *options], cwd=spool.folder, capture_output=True, timeout=60, check=True
    )
    return [json.loads(line) for line in done.stdout.split(b"\n") if line]


def test_a_script_that_reads_batch_output_files_goes_on_working(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.workloads = {"raw": {"provider": "main", "retry": {"max_attempts": 1}}}
    spool.write_config()
    requests = [
        {
            "custom_id": f"doc/{n}",
            "url": "/v1/chat/completions",
            "body": {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": f"Repeat: record number {n}"}]},
        }
        for n in range(4)
    ]
    nura_cli.enqueue("raw", requests, config=spool.path)
    spool.control.fault("rows", match="number 1", status=400, message="too long", times=-1)
    spool.control.fault("missing", match="number 2", times=-1)
    spool.control.fault("no_counts")  # what nobody counts as answered is missing at once
    spool.settle()
    lines = {line["custom_id"]: line for line in vendor_lines(spool, "openai")}
    assert lines.keys() == {f"doc/{n}" for n in range(4)}
    assert {frozenset(line) for line in lines.values()} == {frozenset(("id", "custom_id", "response", "error"))}
    good = lines["doc/3"]["response"]
    assert good["status_code"] == 200
    assert "record number 3" in good["body"]["choices"][0]["message"]["content"]
    assert lines["doc/3"]["error"] is None
    refused = lines["doc/1"]
    assert (refused["error"], refused["response"]["status_code"]) == (None, 400)
    assert refused["response"]["body"]["error"]["message"] == "too long"
    assert (lines["doc/2"]["response"], lines["doc/2"]["error"]["code"]) == (None, "missing")
    assert [line["custom_id"] for line in vendor_lines(spool, "openai", "--status", "failed", "--key", "doc/1")] == [
        "doc/1"
    ]


def test_keys_of_records_become_custom_ids(spool: Spool) -> None:
    spool.set(key=["tenant", "id"])
    spool.enqueue({"tenant": "a", "id": 1, "text": "record number 1"})
    spool.round()
    (line,) = vendor_lines(spool, spool.protocol)
    assert line["custom_id"] == '["a",1]'
    if spool.protocol == "anthropic":
        assert line["result"]["type"] == "succeeded"
        assert "record number 1" in line["result"]["message"]["content"][0]["text"]


def test_answers_of_another_vendor_are_not_bent_into_a_form(anthropic_spool: Spool) -> None:
    anthropic_spool.fill(1)
    anthropic_spool.round()
    nura = Path(sys.executable).with_name("nura")
    done = subprocess.run(
        [nura, "results", "--format", "openai"],
        cwd=anthropic_spool.folder,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"--format anthropic" in done.stderr
