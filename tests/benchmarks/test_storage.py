"""The state file: what a task takes in it, and what random keys cost as it grows."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from nura_cli.state import State, compact, tasks
from tests.benchmarks.conftest import nura, say, scaled, tell

CONFIG = {
    "state": "nura.db",
    "providers": {"box": {"kind": "sandbox"}},
    "workloads": {
        "news": {
            "provider": "box",
            "model": "gpt-4.1-mini",
            "key": "id",
            "system": "You sort news.",
            "prompt": "Which section does this belong to?\n\n{{ title }}\n\n{{ body }}\n",
            "params": {"max_completion_tokens": 50},
            "schema": {
                "type": "object",
                "properties": {"section": {"type": "string", "enum": ["world", "sports", "business", "sci/tech"]}},
                "required": ["section"],
                "additionalProperties": False,
            },
        },
        "short": {"provider": "box", "model": "gpt-4.1-mini", "key": "id", "prompt": "Repeat: {{ id }}"},
    },
}


def write_config(folder: Path) -> None:
    """Write the configuration, and make the state file: importing what makes it is no part of what is measured."""
    (folder / "nura.yaml").write_text(json.dumps(CONFIG))
    with State(folder / "nura.db"):
        pass


def write_news(path: Path, n: int) -> int:
    """Write n records as long as short news are, of made-up words; return their bytes."""
    dice = random.Random(7)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    words = ["".join(dice.choices(letters, range(26, 0, -1), k=dice.randint(2, 9))) for _ in range(4000)]
    with path.open("w") as file:
        for i in range(n):
            title, body = (" ".join(dice.choices(words, k=k)) for k in (6, 30))
            section = dice.choice(("business", "world", "sports"))
            file.write(json.dumps({"id": f"news-{i:06}", "title": title, "body": body, "label": section}) + "\n")
    return path.stat().st_size


def taken(state: State) -> int:
    """Return the bytes of a state file, without its free pages."""
    pages, free, size = (
        state.db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def test_bytes_a_task(tmp_path: Path) -> None:
    n = scaled(100_000)
    write_config(tmp_path)
    with State(tmp_path / "nura.db") as state:
        empty = taken(state)
    given = write_news(tmp_path / "in.jsonl", n)
    nura("enqueue", "news", "in.jsonl", cwd=tmp_path)
    deadline = time.monotonic() + 1800
    while time.monotonic() < deadline:
        nura("run", cwd=tmp_path)
        with State(tmp_path / "nura.db") as state:
            if tasks_settled(state) == n:
                break
        time.sleep(1)
    with State(tmp_path / "nura.db") as state:
        assert tasks_settled(state) == n
        answered = taken(state) - empty
        start = time.process_time()
        compact.convert(state, lambda done, total: None)
        compact.vacuum(state)
        packing = time.process_time() - start
        packed = taken(state) - empty
        with state.transaction() as db:  # what is dropped of what is old
            db.execute("DELETE FROM records")
            db.execute("DELETE FROM answers")
        while compact.shrink(state):
            pass
        left = taken(state) - empty
    figures = {"given": given / n, "with answers": answered / n, "compacted": packed / n, "without both": left / n}
    say(
        "bytes a task of news",
        "with answers under 700, without records and answers under 200",
        does="no reference",
        **figures,
    )
    say("compacting, µs a task", "no target", CPU=packing / n * 1e6)


def tasks_settled(state: State) -> int:
    """Return how many tasks are completed."""
    return sum(n for (_, status, _), n in tasks.counts(state.db).items() if status == "completed")


class Used(NamedTuple):
    """What a process used: CPU seconds, bytes written to the disk, peak memory in MB."""

    cpu: float
    written: int
    peak_mb: float


def used(*arguments: str, cwd: Path) -> Used:
    """Run nura to its end and return what it used."""
    command = [str(Path(sys.executable).with_name("nura")), *arguments]
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL)
    peak = 0
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            assert process.returncode == 0, arguments
            return Used(usage.ru_utime + usage.ru_stime, usage.ru_oublock * 512, peak / 1024)
        text = Path(f"/proc/{process.pid}/status").read_text()
        peak = max([peak, *(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM"))])
        time.sleep(0.005)


def test_random_keys(tmp_path: Path) -> None:
    part, dice = scaled(1_000_000), random.Random(1)
    write_config(tmp_path)
    runs = []
    for _ in range(10):
        with (tmp_path / "in.jsonl").open("w") as file:
            file.writelines(f'{{"id": "{dice.randbytes(16).hex()}"}}\n' for _ in range(part))
        runs.append(used("enqueue", "short", "in.jsonl", cwd=tmp_path))
    with State(tmp_path / "nura.db") as state:
        assert sum(tasks.counts(state.db).values()) == 10 * part
    written, peak = runs[-1].written / part / 1024, max(run.peak_mb for run in runs)
    more = f"{written:.2f} KB written for each row of it (under 6), peak {peak:.0f} MB (under 110)"
    tell(
        f"the last {part:,} of random keys against the first",
        runs[-1].cpu,
        runs[0].cpu,
        "at most 1.5",
        more,
        does="the first tenth",
    )
