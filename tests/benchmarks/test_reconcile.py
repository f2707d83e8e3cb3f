"""Reconcile: shuffled results of 1.5 KB into the state file, against a bare settle that does the same SQL work."""

import hashlib
import json
import sqlite3
import sys
from pathlib import Path

from nura_cli import config as configuration
from nura_cli.pipeline import dispatch, poll, spool
from nura_cli.pipeline.accounts import Accounts
from nura_cli.state import State, batches
from tests.benchmarks.conftest import nura, run, say, scaled, tell

CONFIG = {
    "providers": {"box": {"kind": "sandbox"}},
    "workloads": {"records": {"provider": "box", "model": "gpt-4.1-mini", "prompt": "Repeat: {{ text }}"}},
}
SETTLE = """
import itertools, msgspec, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA synchronous = FULL"); db.execute("PRAGMA cache_size = -32000")
class Usage(msgspec.Struct): prompt_tokens: int; completion_tokens: int
class Body(msgspec.Struct): usage: Usage
class Response(msgspec.Struct): body: msgspec.Raw
class Line(msgspec.Struct): custom_id: str; response: Response
line_of, body_of = msgspec.json.Decoder(Line).decode, msgspec.json.Decoder(Body).decode
for name in sys.argv[2:]:
    with open(name, "rb") as file:
        while chunk := list(itertools.islice(file, 2000)):
            found = [line_of(line) for line in chunk]
            rows = [(int(line.custom_id.split("-")[1]), bytes(line.response.body)) for line in found]
            used = [(i, one.prompt_tokens, one.completion_tokens) for i, body in rows for one in [body_of(body).usage]]
            n = len(rows)
            db.execute("BEGIN IMMEDIATE")
            db.executemany("UPDATE tasks SET status = 'completed', batch_id = NULL, attempts = 1 WHERE id = ?", [(i,) for i, _ in rows])
            db.executemany("INSERT INTO attempts (task_id, batch_id, at, outcome, input_tokens, output_tokens, cost, list_cost, summed)"
                           " VALUES (?, 1, 1, 'answered', ?, ?, 1, 2, 1)", used)
            given, said = sum(one[1] for one in used), sum(one[2] for one in used)
            db.execute("INSERT INTO spending VALUES (1, 1, 'p', 'm', ?, 0, ?, 0, 0, ?, ?, ?, 0) ON CONFLICT DO UPDATE SET"
                       " attempts = attempts + excluded.attempts, input_tokens = input_tokens + excluded.input_tokens,"
                       " output_tokens = output_tokens + excluded.output_tokens, cost = cost + excluded.cost,"
                       " list_cost = list_cost + excluded.list_cost", (n, given, said, n, 2 * n))
            db.executemany("INSERT INTO answers (task_id, batch_id, status, finished_at, attempts, body) VALUES (?, 1, 'completed', 1, 1, ?)", rows)
            db.execute("UPDATE counts SET n = n - ? WHERE status = 'submitted'", (n,))
            db.execute("INSERT INTO counts SELECT lane_id, 'completed', 0, ? FROM counts WHERE status = 'submitted'"
                       " ON CONFLICT DO UPDATE SET n = n + excluded.n", (n,))
            db.execute("COMMIT")
"""
"""Decodes each line and its usage, and writes the same rows into the same tables, a statement a row; sums a chunk at once, too."""


def settled(folder: Path, n: int) -> list[Path]:
    """Make a state file with n results that are home, each of 1.5 KB, as real ones are; return their files."""
    (folder / "nura.yaml").write_text(json.dumps(CONFIG))
    config = configuration.load(folder / "nura.yaml")
    with (folder / "in.jsonl").open("w") as file:
        for i in range(n):
            file.write(json.dumps({"id": i, "text": "x " * 5}) + "\n")
    nura("enqueue", "records", "in.jsonl", cwd=folder)
    files = []
    with State(config.state) as state, Accounts(config, state.path, state.state_id) as accounts:
        dispatch.run(state, config, accounts)
        poll.run(state, config, accounts, wait=300)
        for batch in batches.under_way(state.db):
            path = spool.result_file(state, batch, "output")
            padded = path.read_bytes().replace(b'"refusal":null', b'"refusal":null,"pad":"' + b"p" * 900 + b'"')
            path.write_bytes(padded)
            files.append(path)
            spooled = json.dumps({"output": {"bytes": len(padded), "sha256": hashlib.sha256(padded).hexdigest()}})
            state.db.execute("UPDATE batches SET spooled = ? WHERE id = ?", (spooled, batch.id))
    return files


def copied(source: Path, target: Path) -> None:
    """Copy a state file, its WAL included."""
    with sqlite3.connect(source) as one, sqlite3.connect(target) as other:
        one.backup(other)
        other.execute("PRAGMA journal_mode = wal")
    one.close()
    other.close()


def test_reconcile(tmp_path: Path) -> None:
    n = scaled(100_000)
    files = settled(tmp_path, n)
    copied(tmp_path / "nura.db", tmp_path / "bare.db")
    bare = run(sys.executable, "-c", SETTLE, tmp_path / "bare.db", *files, cwd=tmp_path).cpu
    copied(tmp_path / "nura.db", tmp_path / "again.db")
    nothing = run(Path(sys.executable).with_name("nura"), "status", "--json", cwd=tmp_path).cpu
    ours = run(Path(sys.executable).with_name("nura"), "reconcile", "--json", cwd=tmp_path).cpu
    with State(tmp_path / "nura.db") as state:
        (done,) = state.db.execute("SELECT count(*) FROM tasks WHERE status = 'completed'").fetchone()
        (attempts,) = state.db.execute("SELECT sum(attempts) FROM spending").fetchone()
    assert done == attempts == n
    does = "decodes each line once, and writes the same rows into the same tables, a statement a row"
    tell(f"reconcile {n:,} shuffled results, CPU against a bare settle", ours, bare, "at most 1.3", does=does)
    say(
        "reconcile, lines per CPU second",
        "at least 45,000",
        all=n / ours,
        without_the_start=n / max(ours - nothing, 0.001),
    )
    folder = tmp_path / "peak"
    folder.mkdir()
    (tmp_path / "again.db").rename(folder / "nura.db")
    (tmp_path / "nura.db.spool").rename(folder / "nura.db.spool")
    (folder / "nura.yaml").write_text(json.dumps(CONFIG))
    say("reconcile, peak in MB", "at most 120", peak=nura("reconcile", cwd=folder).peak_mb)
