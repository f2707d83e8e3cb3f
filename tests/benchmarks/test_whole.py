"""Requests end to end: ``nura enqueue``, then ``nura run`` until all answers are there. The provider is a process of its own."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nura_cli.state import State, tasks
from nura_cli.states import TaskStatus
from tests.benchmarks.conftest import nura, say, scaled
from tests.benchmarks.test_dispatch import CONFIG, write_records


@contextmanager
def provider(folder: Path) -> Iterator[None]:
    """Have a sandbox in a process of its own as the provider of the configuration in this folder."""
    command = [sys.executable, "-m", "nura_cli.sandbox", "box.db"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        (folder / "key").write_text("k")
        (folder / "key").chmod(0o600)
        box = {"kind": "openai", "api_key_file": "key", "base_url": f"{url}/v1"}
        (folder / "nura.yaml").write_text(json.dumps({**CONFIG, "providers": {"box": box}}))
        try:
            yield
        finally:
            server.terminate()


def test_requests_end_to_end(tmp_path: Path) -> None:
    n = scaled(20_000)
    write_records(tmp_path / "in.jsonl", n)
    with provider(tmp_path):
        ran = [
            nura("enqueue", "records", "in.jsonl", cwd=tmp_path),
            nura("run", "--wait", "10m", "--json", cwd=tmp_path),
        ]
    with State(tmp_path / "nura.db") as state:
        found = tasks.counts(state.db)
    assert sum(count for (_, status, _), count in found.items() if status is TaskStatus.COMPLETED) == n
    say(
        f"{n:,} requests of 1 KB end to end: `enqueue`, then `run`",
        "at most 1.6 s, 90 MB",
        seconds_of_CPU=sum(one.cpu for one in ran),
        peak_MB=max(one.peak_mb for one in ran),
        does="no reference: the CPU of these two processes, without the provider's",
    )
