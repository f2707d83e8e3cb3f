"""Speed and memory of enqueue: against a program in C that checks nothing, and against sqlite-utils."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from nura_cli.state import State, tasks
from tests.benchmarks.conftest import nura, run, say, scaled, tell

CONFIG = {
    "providers": {"box": {"kind": "sandbox"}},
    "workloads": {
        "records": {"provider": "box", "model": "gpt-4.1-mini", "prompt": "Repeat: {{ text }}"},
        "raw": {"provider": "box"},
    },
}
FILLER = "the quick brown fox jumps over the lazy dog " * 21


def ready(i: int) -> str:
    """Return a ready line of 1 KB."""
    text = f"{i} " + "lorem ipsum dolor sit amet " * 32
    body = {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": text}]}
    return json.dumps({"custom_id": f"r{i}", "method": "POST", "url": "/v1/chat/completions", "body": body})


def record(i: int) -> str:
    """Return a record of 1 KB; the keys are in no order, but near each other."""
    return f'{{"id": "article-{i * 7919 % 10**9:09d}", "text": "{FILLER[: 1024 - 50]}"}}'


def random_record(i: int) -> str:
    """Return a record of 1 KB with a key that is random."""
    return f'{{"id": "{random.Random(i).getrandbits(128):032x}", "text": "{FILLER[: 1024 - 60]}"}}'


class Kind(NamedTuple):
    """Lines of one kind: the workload that takes them, how one is made, what the program in C is told, and the CPU ratio to reach."""

    workload: str
    line: Callable[[int], str]
    names: tuple[str, ...]
    target: str


KINDS = {
    "ready lines": Kind("raw", ready, ("custom_id", "body"), "at most 3.0"),
    "records": Kind("records", record, ("id",), "at most 2.8"),
    "records with random keys": Kind("records", random_record, ("id",), "no target"),
}


@pytest.fixture
def reference(tmp_path: Path) -> Path | None:
    """The program in C, built; None where there is no compiler, or no SQLite for it."""
    source, program = Path(__file__).with_name("enqueue.c"), tmp_path / "reference"
    compiler = shutil.which("cc")
    command = [str(compiler), "-O2", "-o", str(program), str(source), "-lsqlite3"]
    if compiler is None or subprocess.run(command, capture_output=True, check=False).returncode:
        say("enqueue against C", "not measured: it cannot be built here; cc and libsqlite3-dev do that")
        return None
    return program


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with a configuration."""
    (tmp_path / "nura.yaml").write_text(json.dumps(CONFIG))
    yield tmp_path
    for file in tmp_path.glob("*.db*"):
        if file.is_file():
            file.unlink()


def new_state(path: Path) -> None:
    """Make a state file with one queue. To make one takes more memory, and seconds, than to enqueue a little."""
    with State(path) as state, state.transaction() as db:
        tasks.queue_id(db, tasks.workload_id(db, "other"), "", "", "")


@pytest.mark.parametrize("name", KINDS)
def test_enqueue(folder: Path, reference: Path | None, name: str) -> None:
    n, kind = scaled(1_000_000), KINDS[name]
    with (folder / "in.jsonl").open("w") as file:
        file.writelines(kind.line(i) + "\n" for i in range(n))
    new_state(folder / "nura.db")
    first = nura("enqueue", kind.workload, "in.jsonl", cwd=folder)
    again = nura("enqueue", kind.workload, "in.jsonl", cwd=folder)
    with State(folder / "nura.db") as state:
        assert sum(tasks.counts(state.db).values()) == n
    (folder / "nura.db").unlink()
    memory = f"peak {first.peak_mb:.0f} and {again.peak_mb:.0f} MB (at most 110)"
    tell(
        f"enqueue {n:,} {name} again, CPU against the first time",
        again.cpu,
        first.cpu,
        "at most 1.0",
        memory,
        does="the first time",
    )
    if reference is not None:
        new_state(folder / "bare.db")
        bare = run(reference, "bare.db", "in.jsonl", *kind.names, cwd=folder)
        with State(folder / "bare.db") as state:
            assert sum(tasks.counts(state.db).values()) == n
        (folder / "bare.db").unlink()
        tell(
            f"enqueue {n:,} {name} of 1 KB, CPU against C",
            first.cpu,
            bare.cpu,
            kind.target,
            does="splits, finds the key, digests, and inserts into the same tables, keys as text; checks nothing",
        )
    utils = Path(sys.executable).with_name("sqlite-utils")
    other = run(utils, "insert", "other.db", "rows", "in.jsonl", "--nl", cwd=folder)
    tell(
        f"sqlite-utils insert --nl of {n:,} {name}, against enqueue",
        other.seconds,
        first.seconds,
        "at least 2",
        does="wall time of enqueue",
    )
