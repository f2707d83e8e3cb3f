"""What the sandbox remembers: over restarts, between processes, after a kill; and how little of it in memory."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from nura_cli.sandbox import Control, Sandbox, Settings
from tests.contract.sandbox_clients import (
    anthropic_client,
    asks,
    chats,
    openai_client,
    results,
    rows,
    run,
    send,
)


@contextmanager
def process(path: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a sandbox in a process of its own; give it and its address."""
    command = [sys.executable, "-m", "nura_cli.sandbox", str(path), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        try:
            yield child, child.stdout.readline().strip()
        finally:
            child.kill()


def until(true: Callable[[], object]) -> None:
    """Wait until something is true, for a bounded time."""
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.01)


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    with Sandbox(tmp_path / "box.db", settings=Settings(delay=50, seed=7)) as server, openai_client(server) as client:
        batch = send(client, chats(5), metadata={"a": "b"})
        server.control.advance(3600)
        server.control.fault("rows", match="c1")
        server.control.fault("status", "files", times=-1)
        log, now = server.control.log(), server.control.settings()["now"]
    with Sandbox(tmp_path / "box.db") as server, openai_client(server) as client:
        assert server.control.log() == log
        assert server.control.settings()["now"] - now in range(60)
        assert (server.control.settings()["delay"], server.control.settings()["seed"]) == (50, 7)
        found = client.batches.retrieve(batch.id)
        assert (found.status, found.metadata) == ("completed", {"a": "b"})
        assert found.error_file_id
        with pytest.raises(openai.InternalServerError):
            client.files.list()


def test_two_sandboxes_over_one_file_are_one(tmp_path: Path) -> None:
    with Sandbox(tmp_path / "box.db") as one, Sandbox(tmp_path / "box.db") as other:
        with openai_client(one) as first, openai_client(other) as second:
            batch = send(first, chats(30))
            other.control.fault("status", "list", status=503)
            with pytest.raises(openai.InternalServerError):
                first.batches.list()
            assert [listed.id for listed in second.batches.list()] == [batch.id]
            found = first.batches.retrieve(batch.id)
            assert rows(second, found.output_file_id).keys() == {f"c{n}" for n in range(30)}
            assert one.control.billing() == other.control.billing()


def test_many_that_ask_at_once_have_a_batch_worked_on_once(tmp_path: Path) -> None:
    with Sandbox(tmp_path / "box.db") as one, process(tmp_path / "box.db") as (_, url):
        with openai_client(one) as client:
            ids = [send(client, chats(300)).id for _ in range(3)]
            clients = [client, client.with_options(base_url=f"{url}/v1")] * 3
            seen: list[set[str]] = []
            threads = [
                threading.Thread(target=lambda one=one: seen.append({batch.status for batch in one.batches.list()}))
                for one in clients
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert seen == [{"completed"}] * 6
            assert {batch.id for batch in client.batches.list()} == set(ids)
            assert one.control.billing()["requests"] == 900
            assert len(client.files.list(purpose="batch_output").data) == 3


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
def test_work_that_was_killed_is_done_anew_and_billed_once(tmp_path: Path, protocol: str) -> None:
    n = 12_000
    with Sandbox(tmp_path / "box.db") as server, openai_client(server) as client, anthropic_client(server) as claude:
        server.control.fault("rows", match="Repeat: this is ", fraction=0.1)
        if protocol == "openai":
            batch_id = send(client, chats(n)).id
        else:
            batch_id = claude.messages.batches.create(requests=asks(n)).id
        with process(tmp_path / "box.db") as (child, url):
            asking = [
                client.with_options(base_url=f"{url}/v1", timeout=240),
                claude.with_options(base_url=url, timeout=240),
            ]
            thread = threading.Thread(target=_ask, args=(asking[protocol == "anthropic"], batch_id))
            thread.start()
            until(lambda: _failed_rows(tmp_path) > 0)
            os.kill(child.pid, signal.SIGKILL)
            thread.join(30)
        assert server.control.batches()[0]["ended_at"] is None
        if protocol == "openai":
            batch = client.batches.retrieve(batch_id)
            assert batch.request_counts
            assert (batch.request_counts.failed, batch.output_file_id) == (n, None), "it meets the same fault again"
            assert len(rows(client, batch.error_file_id)) == n
            assert len(client.files.list(purpose="batch_output").data) == 1
        else:
            assert claude.messages.batches.retrieve(batch_id).request_counts.errored == n
            assert len(results(claude, batch_id)) == n
        assert server.control.billing()["requests"] == 0
        left = [path.name for path in (tmp_path / "box.db.d").iterdir() if path.suffix in (".tmp", ".part")]
        assert left == []


def _ask(client: Any, batch_id: str) -> None:
    batches = client.batches if isinstance(client, openai.OpenAI) else client.messages.batches
    with pytest.raises(Exception, match="onnection"):
        batches.retrieve(batch_id)


def _failed_rows(folder: Path) -> int:
    """Return how many bytes of results an unfinished work has written."""
    return sum(path.stat().st_size for path in (folder / "box.db.d").glob("*.tmp"))


def test_an_interrupted_bill_is_written_anew(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("nura_cli.sandbox.work._BILL_ROWS", 10)
    with Sandbox(tmp_path / "box.db") as server, openai_client(server) as client:
        batch = send(client, chats(95))
        with sqlite3.connect(tmp_path / "box.db") as db:
            rows_of_a_killed_run = [("org", batch.id, f"c{n}", b"", 1, 1) for n in range(40)]
            db.executemany("INSERT INTO billed VALUES (?, ?, ?, ?, ?, ?)", rows_of_a_killed_run)
            db.execute("INSERT INTO spent VALUES ('org', ?, 'm', '2026-11-25', 40, 40, 40, 1.5)", (batch.id,))
        db.close()
        assert client.batches.retrieve(batch.id).status == "completed"
        billed = server.control.billing()
        assert (billed["requests"], billed["twice"]["custom_id"], billed["cost"]) == (95, [], 0)
        assert [day["requests"] for day in billed["days"].values()] == [95]


def test_its_files_are_the_owners_alone_and_hold_no_key(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with Sandbox(tmp_path / "box.db") as server, openai_client(server, "sk-very-secret") as client:
            run(client, chats(2))
            server.control.settings(accept_keys=["sk-very-secret"])
            with anthropic_client(server, "sk-very-secret") as claude:
                claude.messages.batches.create(requests=asks(1))
            paths = [tmp_path / name for name in os.listdir(tmp_path)] + list((tmp_path / "box.db.d").iterdir())
            assert {path.stat().st_mode & 0o777 for path in paths if path.is_dir()} == {0o700}
            assert {path.stat().st_mode & 0o777 for path in paths if path.is_file()} == {0o600}
            assert all(b"sk-very-secret" not in path.read_bytes() for path in paths if path.is_file())
    finally:
        os.umask(old)


def test_a_file_that_is_not_its_own_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("this is no database, and longer than its header would be " * 20)
    with sqlite3.connect(tmp_path / "other.db") as db:
        db.execute("CREATE TABLE mine (x)")
    db.close()
    for name in ("text", "other.db"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(OSError, match="sandbox"):
            Sandbox(tmp_path / name)
        assert (tmp_path / name).read_bytes() == before


def test_a_taken_port_is_an_error(tmp_path: Path) -> None:
    with Sandbox(tmp_path / "a.db") as server:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            Sandbox(tmp_path / "b.db", port=port)


def test_a_stop_does_not_wait_for_clients_that_stay(tmp_path: Path) -> None:
    server = Sandbox(tmp_path / "box.db").start()
    with openai_client(server) as client:
        client.batches.list()
        server.control.fault("hold", "list", seconds=60)
        failed = []

        def ask() -> None:
            try:
                client.batches.list()
            except openai.APIConnectionError:
                failed.append(True)

        thread = threading.Thread(target=ask)
        thread.start()
        until(lambda: server.control.held() == 1)
        server.stop()
        thread.join(10)
        assert failed == [True]


def test_as_a_process_it_takes_options_and_ends_when_told(tmp_path: Path) -> None:
    fault = json.dumps({"what": "status", "route": "list"})
    with process(tmp_path / "box.db", "--delay", "60", "--fault", fault) as (child, url):
        control = Control(url)
        assert control.settings()["delay"] == 60
        assert [one["what"] for one in control.faults()] == ["status"]
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == 0


def test_the_order_of_results_follows_the_seed(tmp_path: Path) -> None:
    orders = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        settings = Settings(seed=seed)
        with Sandbox(tmp_path / f"{name}.db", settings=settings) as server, openai_client(server) as client:
            orders.append(list(rows(client, run(client, chats(20)).output_file_id)))
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])


def test_a_list_works_for_a_bounded_time_and_goes_on_at_the_next(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("nura_cli.sandbox.work._SETTLE_SECONDS", 0)
    with Sandbox(tmp_path / "box.db") as server, openai_client(server) as client:
        for _ in range(3):
            send(client, chats(1))
        seen = [[batch.status for batch in client.batches.list()].count("completed") for _ in range(4)]
        assert seen == [1, 2, 3, 3]


def test_asking_after_one_batch_works_on_that_one(tmp_path: Path) -> None:
    with Sandbox(tmp_path / "box.db") as server, openai_client(server) as client:
        first, second = send(client, chats(1)), send(client, chats(1))
        assert client.batches.retrieve(second.id).status == "completed"
        assert [batch["status"] for batch in server.control.batches()] == ["validating", "completed"]
        assert client.batches.retrieve(first.id).status == "completed"


def test_the_bytes_of_what_is_gone_are_gone(tmp_path: Path) -> None:
    def kept() -> set[str]:
        return {path.name for path in (tmp_path / "box.db.d").iterdir() if path.suffix != ".lock"}

    with Sandbox(tmp_path / "box.db") as server, openai_client(server) as client, anthropic_client(server) as claude:
        batch = send(client, chats(2))
        client.files.delete(batch.input_file_id)
        assert kept() == {batch.input_file_id}, "the batch under way still reads it"
        output = client.batches.retrieve(batch.id).output_file_id
        assert kept() == {output}
        message_batch = claude.messages.batches.create(requests=asks(1))
        assert kept() == {output, f"{message_batch.id}.requests"}
        claude.messages.batches.retrieve(message_batch.id)
        assert kept() == {output, f"{message_batch.id}.results"}
        claude.messages.batches.delete(message_batch.id)
        server.control.advance(31 * 86400)
        newer = send(client, chats(1))
        assert kept() == {newer.input_file_id}, "an upload sweeps what has expired"


def test_a_batch_suffers_the_faults_it_first_met_and_no_others(tmp_path: Path) -> None:
    with Sandbox(tmp_path / "box.db", settings=Settings(delay=100)) as server, openai_client(server) as client:
        server.control.fault("rows", status=429)
        batch = send(client, chats(2))
        assert client.batches.retrieve(batch.id).status == "in_progress"
        server.control.clear()
        server.control.fault("lost")
        server.control.advance(100)
        found = client.batches.retrieve(batch.id)
        assert {row["response"]["status_code"] for row in rows(client, found.error_file_id).values()} == {429}
        assert server.control.faults()[0]["left"] == 1


def test_the_desk_says_what_it_does_not_know(tmp_path: Path) -> None:
    with Sandbox(tmp_path / "box.db") as server:
        control = server.control
        with pytest.raises(ValueError, match="no control GET nothing"):
            control._call("nothing")
        with pytest.raises(ValueError, match="no object"):
            control._call("advance", "POST", [1])
        with pytest.raises(ValueError, match="seconds"):
            control._call("advance", "POST", {})
        with pytest.raises(ValueError, match="account"):
            control.foreign(1)
        untouched = {"delay": 0, "models": [], "queues": {}, "spend_limit": None, "seed": 0}
        assert control.settings().items() >= untouched.items()


def test_a_long_list_is_read_by_its_index(tmp_path: Path) -> None:
    with Sandbox(tmp_path / "box.db") as server, openai_client(server) as client:
        send(client, chats(1))
        with sqlite3.connect(tmp_path / "box.db") as db:
            asked = "SELECT * FROM batches WHERE account = ? AND protocol = ? AND seq < ? ORDER BY seq DESC LIMIT 20"
            (plan,) = db.execute(f"EXPLAIN QUERY PLAN {asked}", ("a", "openai", 9)).fetchall()
            due = "SELECT id FROM batches WHERE account = ? AND protocol = ? AND ended_at IS NULL ORDER BY seq"
            (other,) = db.execute(f"EXPLAIN QUERY PLAN {due}", ("a", "openai")).fetchall()
        db.close()
        assert "batches_of" in plan[3]
        assert "batches_open" in other[3]


MEASURED = """
import json, resource, sys
from nura_cli.sandbox import Sandbox
from pathlib import Path
server = Sandbox(Path(sys.argv[1]))
server.start()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(server.url, flush=True)
sys.stdin.readline()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, flush=True)
server.stop()
"""


def test_large_bodies_take_little_memory(tmp_path: Path) -> None:
    """30 MB each way, in both protocols: were any of it held whole, the process would have grown by as much."""
    body = tmp_path / "body"
    pad = "x" * 3000
    with subprocess.Popen(
        [sys.executable, "-c", MEASURED, str(tmp_path / "box.db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout
        assert child.stdin
        url = child.stdout.readline().strip()
        with openai.OpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0, timeout=120) as client:
            with body.open("w") as file:
                for line in chats(10_000):
                    line["body"]["messages"][0]["content"] += pad
                    file.write(json.dumps(line) + "\n")
            with body.open("rb") as source:
                sent = client.files.create(file=("in.jsonl", source), purpose="batch")
            assert sent.bytes > 30_000_000
            batch = client.batches.create(
                input_file_id=sent.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            assert client.batches.retrieve(batch.id).status == "completed"
            with client.files.with_streaming_response.content(sent.id) as back:
                assert sum(len(piece) for piece in back.iter_bytes()) == sent.bytes
        with body.open("w") as file:
            file.write('{"requests": [')
            for n, request in enumerate(asks(10_000)):
                request["params"]["messages"][0]["content"] += pad
                file.write((",\n" if n else "") + json.dumps(request))
            file.write("]}")
        with anthropic_client(_At(url)) as claude, body.open("rb") as source:  # type: ignore[arg-type]
            headers = {"Content-Type": "application/json"}
            made = claude.post("/v1/messages/batches", content=source, cast_to=object, options={"headers": headers})
            assert isinstance(made, dict)
            assert claude.messages.batches.retrieve(made["id"]).request_counts.succeeded == 10_000
        child.stdin.write("\n")
        child.stdin.flush()
        grown = int(child.stdout.readline())
        assert child.wait(20) == 0
    assert grown / (1024 if sys.platform != "darwin" else 1024**2) < 25, "in MB"


class _At:
    """A sandbox in another process, as the helpers see one."""

    def __init__(self, url: str) -> None:
        self.anthropic_base_url = url
