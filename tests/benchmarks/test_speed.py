"""Speed and memory of the stages, each against a bare loop that does the same with nothing checked."""

import json
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from nura_cli import clock
from nura_cli import config as configuration
from nura_cli.pipeline import dispatch, poll, spool
from nura_cli.pipeline.accounts import Accounts
from nura_cli.sandbox import Sandbox
from nura_cli.state import State, batches, tasks
from tests.benchmarks.conftest import nura, run, scaled, tell

CONFIG = {
    "providers": {"box": {"kind": "sandbox"}},
    "workloads": {
        "records": {"provider": "box", "model": "gpt-4.1-mini", "prompt": "Repeat: {{ text }}"},
        "raw": {"provider": "box"},
    },
}


def write_config(folder: Path) -> configuration.Config:
    """Write the configuration of the benchmarks."""
    (folder / "nura.yaml").write_text(json.dumps(CONFIG))
    return configuration.load(folder / "nura.yaml")


def fill_by_sql(state: State, n: int) -> None:
    """Make n pending tasks without bodies."""
    with state.transaction() as db:
        workload = tasks.workload_id(db, "records")
        queue = tasks.queue_id(db, workload, "", "", "")
        series = f"WITH RECURSIVE s (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < {n})"  # a constant of ours
        db.execute(f"{series} INSERT INTO tasks (id, lane_id, status) SELECT i, {queue}, 'pending' FROM s")
        db.execute("INSERT INTO counts VALUES (?, 'pending', 0, ?)", (queue, n))


def claim(folder: Path, size: int, n: int) -> float:
    """Return the seconds to claim n of ``size`` tasks; the best of three."""
    with State(folder / f"{size}.db") as state:
        fill_by_sql(state, size)
        times = []
        for turn in range(3):
            start = time.perf_counter()
            with state.transaction() as db:
                batch = batches.add(
                    db, queue_id=1, workload="records", provider="box", address="x", dialect="openai", endpoint="/v1",
                    model="m", revision="r", spec="{}", tag=f"tag{turn}",
                )  # fmt: skip
                assert tasks.claim(db, 1, batch, n, size) == n
            times.append(time.perf_counter() - start)
    return min(times)


def test_claim(tmp_path: Path) -> None:
    n = scaled(50_000)
    small = claim(tmp_path, scaled(1_000_000), n)
    large = claim(tmp_path, scaled(10_000_000), n)
    tell(
        f"claim {n:,} tasks at {scaled(10_000_000):,} in the file, against {scaled(1_000_000):,}",
        large,
        small,
        "at most 1.5",
    )


def write_ready(path: Path, n: int) -> None:
    """Write n ready lines of 1 KB."""
    with path.open("w") as file:
        for i in range(n):
            text = f"{i} " + "lorem ipsum dolor sit amet " * 32
            body = {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": text}]}
            line = {"custom_id": f"r{i}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")


SETTLE = """
import itertools, msgspec, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA synchronous = FULL"); db.execute("PRAGMA cache_size = -32000")
decode, encode = msgspec.json.Decoder().decode, msgspec.json.encode
class Response(msgspec.Struct): body: msgspec.Raw
class Line(msgspec.Struct): custom_id: str; response: Response
line_of = msgspec.json.Decoder(Line).decode
for name in sys.argv[2:]:
    with open(name, "rb") as file:
        while chunk := list(itertools.islice(file, 2000)):
            found = [line_of(line) for line in chunk]
            rows = [(int(line.custom_id.split("-")[1]), bytes(line.response.body)) for line in found]
            used = [(i, decode(body)["usage"]["prompt_tokens"]) for i, body in rows]
            db.execute("BEGIN IMMEDIATE")
            db.executemany("UPDATE tasks SET status = 'completed', batch_id = NULL, attempts = 1 WHERE id = ?", [(i,) for i, _ in rows])
            db.executemany("INSERT INTO attempts (task_id, batch_id, at, outcome, input_tokens) VALUES (?, 1, 1, 'answered', ?)", used)
            db.executemany("INSERT INTO answers (task_id, batch_id, status, finished_at, attempts, body) VALUES (?, 1, 'completed', 1, 1, ?)", rows)
            db.execute("COMMIT")
"""


def test_reconcile(tmp_path: Path) -> None:
    n = scaled(100_000)
    config = write_config(tmp_path)
    with (tmp_path / "in.jsonl").open("w") as file:
        for i in range(n):
            file.write(json.dumps({"id": i, "text": "x " * 5}) + "\n")
    nura("enqueue", "records", "in.jsonl", cwd=tmp_path)
    with State(config.state) as state, Accounts(config, state.path, state.state_id) as accounts:
        dispatch.run(state, config, accounts)
        poll.run(state, config, accounts, wait=300)
        found = batches.under_way(state.db)
        files = []
        for batch in found:  # make each answer 1.5 KB, as real ones are
            path = spool.result_file(state, batch, "output")
            padded = path.read_bytes().replace(b'"refusal":null', b'"refusal":null,"pad":"' + b"p" * 900 + b'"')
            path.write_bytes(padded)
            files.append(path)
            spooled = json.dumps({"output": {"bytes": len(padded), "sha256": _sha256(path)}})
            state.db.execute("UPDATE batches SET spooled = ? WHERE id = ?", (spooled, batch.id))
    # The state is kept as it is for the bare loop, before nura settles.
    copy = tmp_path / "bare.db"
    source, target = sqlite3.connect(tmp_path / "nura.db"), sqlite3.connect(copy)
    source.backup(target)
    source.close()
    target.execute("PRAGMA journal_mode = wal")
    target.close()
    bare = run(sys.executable, "-c", SETTLE, copy, *files, cwd=tmp_path)
    ours = nura("reconcile", "--json", cwd=tmp_path)
    assert json.loads(ours.output)["tasks"]["completed"] == n
    more = f"peak {ours.peak_mb:.0f} MB (under 120)"
    tell(f"reconcile {n:,} shuffled results, against a bare settle", ours.seconds, bare.seconds, "at most 2.5", more)


def _sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


READ = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
for key, seq, body in db.execute("SELECT r.key, a.seq, a.body FROM answers a JOIN records r USING (task_id) ORDER BY seq"):
    sys.stdout.buffer.write(b'{"seq":%d,"key":%b,"response":%b}\\n' % (seq, key.encode(), body))
"""


def fill_answers(state: State, n: int) -> None:
    """Make n settled tasks with answers of 1.5 KB."""
    fill_by_sql(state, n)
    usage = '"usage":{"prompt_tokens":20,"completion_tokens":300}'
    message = f'"message":{{"role":"assistant","content":"{"word " * 280}"}},"finish_reason":"stop"'
    body = f'{{"id":"x","model":"gpt-4.1-mini","choices":[{{{message}}}],{usage}}}'
    series = f"WITH RECURSIVE s (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < {n})"
    with state.transaction() as db:
        batches.add(
            db, queue_id=1, workload="records", provider="box", address="x", dialect="openai",
            endpoint="/v1/chat/completions", model="gpt-4.1-mini", revision="r", spec='{"dialect":"openai","endpoint":""}',
            tag="tag",
        )  # fmt: skip
        db.execute(f"{series} INSERT INTO records SELECT i, 1, i, x'7b7d' FROM s")
        db.execute(
            f"{series} INSERT INTO attempts (task_id, batch_id, at, outcome, cost) SELECT i, 1, 1, 'answered', 1 FROM s"
        )
        db.execute(
            f"{series} INSERT INTO answers (task_id, batch_id, status, finished_at, attempts, body)"
            " SELECT i, 1, 'completed', i, 1, CAST(? AS BLOB) FROM s",
            (body,),
        )


def test_results(tmp_path: Path) -> None:
    peaks, seconds, bare = {}, 0.0, 0.0
    for n in (scaled(100_000), scaled(1_000_000)):
        folder = tmp_path / str(n)
        folder.mkdir()
        write_config(folder)
        with State(folder / "nura.db") as state:
            fill_answers(state, n)
        program = Path(sys.executable).with_name("nura")
        ours = run("sh", "-c", f"exec {program} results > lines", cwd=folder)
        with (folder / "lines").open("rb") as lines:
            assert sum(line.startswith(b'{"seq":') for line in lines) == n
        bare = run("sh", "-c", 'exec "$0" -c "$1" nura.db > lines', sys.executable, READ, cwd=folder).seconds
        peaks[n], seconds = ours.peak_mb, ours.seconds
        newest = nura("results", "--since", clock.rfc3339(n - 1) or "", cwd=folder)
        assert newest.output.count(b"\n") == 2
        shutil.rmtree(folder)
    more = f"peak {peaks[scaled(1_000_000)]:.0f} MB ({peaks[scaled(100_000)]:.0f} MB for a tenth), the newest two alone {newest.seconds:.2f} s"
    tell(
        f"results of {scaled(1_000_000):,} answers, against a bare SELECT that prints", seconds, bare, "no target", more
    )


def test_sandbox_takes_a_large_batch_without_keeping_it(tmp_path: Path) -> None:
    n = scaled(100_000)
    import openai

    write_ready(tmp_path / "in.jsonl", n)
    with Sandbox(tmp_path / "box.db") as server:
        with openai.OpenAI(api_key="x", base_url=server.openai_base_url, max_retries=0) as client:
            with (tmp_path / "in.jsonl").open("rb") as file:
                start = time.perf_counter()
                kept = client.files.create(file=("in.jsonl", file), purpose="batch")
                seconds = time.perf_counter() - start
    start = time.perf_counter()
    subprocess.run(["cp", str(tmp_path / "in.jsonl"), str(tmp_path / "copy")], check=True)
    tell(f"upload of {n:,} requests to the sandbox, against cp", seconds, time.perf_counter() - start, "no target")
    assert kept.bytes == (tmp_path / "in.jsonl").stat().st_size
