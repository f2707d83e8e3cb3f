"""How long a command takes before it does anything: ``nura status``, and the imports of a stage that talks to a provider."""

import json
import sys
from pathlib import Path

import pytest

from nura_cli.dialects import vendors
from nura_cli.state import State, tasks
from tests.benchmarks.conftest import nura, run, scaled, tell
from tests.benchmarks.test_dispatch import write_config

EMPTY = """
import typer
app = typer.Typer()
@app.command()
def main(): pass
@app.command()
def other(): pass
app()
"""
CONNECT = """
import sys
from pathlib import Path
from nura_cli.config import ProviderConfig
from nura_cli.pipeline import dispatch, poll
from nura_cli.providers import connect
connect("x", ProviderConfig.model_validate({"kind": sys.argv[1], "api_key_file": "key"}), Path("state.db")).close()
"""
WHOLE = """
import importlib, sys
from nura_cli.pipeline import dispatch, poll
importlib.import_module(sys.argv[1])
"""
TURNS = 7


def least(*arguments: str | Path, cwd: Path) -> float:
    """Return the least seconds of CPU that a process takes, of several runs."""
    return min(run(*arguments, cwd=cwd).cpu for _ in range(TURNS))


def fill(state: State, n: int) -> None:
    """Make n pending tasks without bodies, but for the first."""
    with state.transaction() as db:
        queue = tasks.queue_id(db, tasks.workload_id(db, "records"), "", "", "")
        series = f"WITH RECURSIVE s (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < {n})"
        db.execute(f"{series} INSERT INTO tasks (id, lane_id, status) SELECT i, {queue}, 'pending' FROM s")
        db.execute("INSERT INTO counts VALUES (?, 'pending', 0, ?)", (queue, n))
        db.execute("INSERT INTO records VALUES (1, 1, '1', x'7b7d')")


def test_status(tmp_path: Path) -> None:
    n = scaled(10_000_000)
    write_config(tmp_path)
    with State(tmp_path / "nura.db") as state:
        fill(state, n)
    nura("poll", cwd=tmp_path)  # it has the configuration checked, and status need not do it again
    (tmp_path / "empty.py").write_text(EMPTY)
    program = Path(sys.executable).with_name("nura")
    empty = least(sys.executable, "empty.py", "main", cwd=tmp_path)
    does = "an empty Typer program of two commands"
    found = least(program, "status", "--json", cwd=tmp_path)
    tell(f"`nura status --json` at {n:,} tasks, CPU", found, empty, "at most 1.25", does=does)
    tell(
        f"`nura status`, the table, at {n:,} tasks, CPU",
        least(program, "status", cwd=tmp_path),
        empty,
        "at most 1.25",
        does=does,
    )


@pytest.mark.parametrize("vendor", vendors.names())
def test_imports_of_a_stage_that_talks_to(vendor: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(json.dumps("k"))
    (tmp_path / "key").chmod(0o600)
    whole = least(sys.executable, "-c", WHOLE, vendor, cwd=tmp_path)
    ours = least(sys.executable, "-c", CONNECT, vendor, cwd=tmp_path)
    does = "the same imports with all of the SDK, and no client"
    tell(f"imports of dispatch and poll, and a client of {vendor}'s, CPU", ours, whole, "at most 0.45 s", f"{ours:.2f} s", does=does)  # fmt: skip
