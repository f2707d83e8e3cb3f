"""Results: answers of 1.5 KB as lines, against a bare SELECT that prints as many bytes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nura_cli import clock
from nura_cli.state import State, batches, tasks
from tests.benchmarks.conftest import nura, run, scaled, tell

CONFIG = {
    "providers": {"box": {"kind": "sandbox"}},
    "workloads": {"records": {"provider": "box", "model": "gpt-4.1-mini", "prompt": "Repeat: {{ text }}"}},
}
READ = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
for key, seq, body in db.execute("SELECT r.key, a.seq, a.body FROM answers a JOIN records r USING (task_id) ORDER BY seq"):
    sys.stdout.buffer.write(b'{"seq":%d,"key":%b,"text":"%b","response":%b,"rest":"%b"}\\n' % (seq, key.encode(), body[90:1490], body, b"x" * 350))
"""
"""Prints of each answer the text, the whole response and as many bytes more as nura's other fields have."""


def cpu(program: str, *arguments: str | Path, cwd: Path) -> float:
    """Run a process to its end, its output into the file ``lines``, and return the CPU seconds that it took."""
    with (cwd / "lines").open("wb") as out:
        process = subprocess.Popen([program, *map(str, arguments)], cwd=cwd, stdout=out)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, arguments
    return used.ru_utime + used.ru_stime


def fill(state: State, n: int, word: str = "word ") -> None:
    """Make n settled tasks with answers of 1.5 KB, of a word of 5 bytes; each chunk of 2,000 was settled in one second."""
    usage = '"usage":{"prompt_tokens":20,"completion_tokens":300,"total_tokens":320}'
    message = f'"message":{{"role":"assistant","content":"{word * 280}"}},"finish_reason":"stop"'
    body = f'{{"id":"x","model":"gpt-4.1-mini","choices":[{{{message}}}],{usage}}}'
    series = f"WITH RECURSIVE s (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < {n})"
    with state.transaction() as db:
        queue = tasks.queue_id(db, tasks.workload_id(db, "records"), "", "", "")
        db.execute(f"{series} INSERT INTO tasks (id, lane_id, status) SELECT i, {queue}, 'completed' FROM s")
        db.execute("INSERT INTO counts VALUES (?, 'completed', 0, ?)", (queue, n))
        batches.add(
            db, queue_id=queue, workload="records", provider="box", address="x", dialect="openai",
            endpoint="/v1/chat/completions", model="gpt-4.1-mini", revision="r", spec='{"dialect":"openai","endpoint":""}',
            tag="tag",
        )  # fmt: skip
        db.execute(f"{series} INSERT INTO records SELECT i, 1, i, x'7b7d' FROM s")
        db.execute(
            f"{series} INSERT INTO attempts (task_id, batch_id, at, outcome, cost) SELECT i, 1, 1, 'answered', 1 FROM s"
        )
        db.execute(
            f"{series} INSERT INTO answers (task_id, batch_id, status, finished_at, attempts, body)"
            " SELECT i, 1, 'completed', i / 2000, 1, CAST(? AS BLOB) FROM s",
            (body,),
        )
        db.execute("INSERT INTO moments (at, seq) SELECT finished_at, min(seq) FROM answers GROUP BY 1")


@pytest.mark.parametrize(("word", "kind"), [("word ", ""), ("für ", " with accents")], ids=["plain", "accents"])
def test_results(tmp_path: Path, word: str, kind: str) -> None:
    peaks = {}
    for n in (scaled(20_000), scaled(200_000)):
        folder = tmp_path / str(n)
        folder.mkdir()
        (folder / "nura.yaml").write_text(json.dumps(CONFIG))
        with State(folder / "nura.db") as state:
            fill(state, n, word)
        program = str(Path(sys.executable).with_name("nura"))
        ours = cpu(program, "results", cwd=folder)
        printed = (folder / "lines").stat().st_size
        with (folder / "lines").open("rb") as lines:
            assert sum(line.startswith(b'{"seq":') for line in lines) == n
        bare = cpu(sys.executable, "-c", READ, "nura.db", cwd=folder)
        told = (folder / "lines").stat().st_size
        assert 0.9 < told / printed < 1.1
        peaks[n] = run("sh", "-c", f"exec {program} results > lines", cwd=folder).peak_mb
        newest = nura("results", "--since", clock.rfc3339(n // 2000) or "", cwd=folder)
        assert newest.output.count(b"\n") == n - max(n // 2000 * 2000, 1) + 1
        shutil.rmtree(folder)
    tenth, whole = peaks.values()
    more = f"peak {whole:.0f} MB ({tenth:.0f} MB for a tenth), the newest alone {newest.seconds:.2f} s"
    tell(
        f"results of {n:,} answers{kind}, CPU against a bare SELECT that prints as much", ours, bare, "at most 2", more
    )
