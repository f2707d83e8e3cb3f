"""Request files, from a real state file: ready lines against ``cp`` with a sync, rendered ones against Jinja alone."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from nura_cli import config as configuration
from nura_cli.config import WorkloadConfig
from nura_cli.dialects.vendors import dialect
from nura_cli.pipeline import dispatch, spool
from nura_cli.pipeline.estimate import Gauge
from nura_cli.pipeline.packing import Load, Room
from nura_cli.pipeline.render import rendering
from nura_cli.pricing import Prices
from nura_cli.progress import going
from nura_cli.state import State, batches, tasks
from tests.benchmarks.conftest import nura, run, scaled, tell

ENDPOINT, MODEL = "/v1/chat/completions", "gpt-4.1-mini"
SOURCE = "Repeat:\n\n{{ title }}\n\n{{ text }}"
CONFIG = {
    "providers": {"box": {"kind": "sandbox"}},
    "workloads": {
        "records": {"provider": "box", "model": MODEL, "prompt": SOURCE},
        "raw": {"provider": "box"},
    },
}
COPY = "import os, shutil, sys; shutil.copyfile(*sys.argv[1:]); os.fsync(os.open(sys.argv[2], os.O_RDWR))"


def write_config(folder: Path) -> configuration.Config:
    """Write the configuration of the benchmarks."""
    (folder / "nura.yaml").write_text(json.dumps(CONFIG))
    return configuration.load(folder / "nura.yaml")


def write_ready(path: Path, n: int) -> None:
    """Write n ready lines of 1 KB."""
    with path.open("w") as file:
        for i in range(n):
            text = f"{i} " + "lorem ipsum dolor sit amet " * 32 + "x" * (i % 97)
            body = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
            file.write(json.dumps({"custom_id": f"r{i}", "method": "POST", "url": ENDPOINT, "body": body}) + "\n")


def write_records(path: Path, n: int) -> None:
    """Write n records of 1 KB."""
    with path.open("w") as file:
        for i in range(n):
            file.write(json.dumps({"id": i, "title": f"t{i}", "text": "word " * 180}) + "\n")


class Written:
    """A request file that was written: its path, its bytes, the CPU and the wall seconds it took."""

    def __init__(self, folder: Path, workload: WorkloadConfig, n: int) -> None:
        """Claim n tasks of a workload, and write their request file as dispatch does, with nothing learned and no bounds."""
        openai = dialect("openai")
        made = rendering(workload, openai, ENDPOINT, MODEL)
        with State(folder / "nura.db") as state:
            with state.transaction() as db:
                queue = db.execute("SELECT id FROM lanes").fetchone()[0]
                batch_id = batches.add(
                    db, queue_id=queue, workload=workload.name, provider="box", address="x", dialect="openai",
                    endpoint=ENDPOINT, model=MODEL, revision="r", spec="{}", tag="t" * 20,
                )  # fmt: skip
                assert tasks.claim(db, queue, batch_id, n, 10**15) == n
            batch = batches.get(state.db, batch_id)
            assert batch is not None
            limits = openai.limits._replace(bytes=10**12, requests=10**9, inputs=None)
            gauge = Gauge(partial(openai.measure, ENDPOINT), Prices("openai").rates(MODEL), None, bounded=False)
            self.path = folder / "requests.jsonl"
            cpu, wall = time.process_time(), time.perf_counter()
            load = Load(Room(limits), openai.frame, gauge)
            with going("writing", n) as step:
                rows = dispatch._rows(state, batch, step)
                self.bytes = spool.write(self.path, load.pieces(rows, made.maker(batch.tag, limits))).bytes
            self.cpu, self.wall = time.process_time() - cpu, time.perf_counter() - wall
            assert (load.requests, load.failed, load.passed) == (n, [], [])
            self.estimate = load.estimate


def best(measure: Callable[[], float], turns: int = 3) -> float:
    """Return the least of several measurements."""
    return min(measure() for _ in range(turns))


def test_a_ready_request_file(tmp_path: Path) -> None:
    n = scaled(200_000)
    config = write_config(tmp_path)
    write_ready(tmp_path / "in.jsonl", n)
    nura("enqueue", "raw", "in.jsonl", cwd=tmp_path)
    ours = Written(tmp_path, config.workloads["raw"], n)
    copies = [run(sys.executable, "-c", COPY, ours.path, "copy", cwd=tmp_path) for _ in range(3)]
    cp = min(copies, key=lambda copy: copy.cpu)
    start = run(sys.executable, "-c", "import os, shutil, sys", cwd=tmp_path)
    name = f"request file of {n:,} ready requests, {ours.bytes / 1e6:.0f} MB, against cp with a sync"
    does = "copies that file by the kernel and syncs it; hashes and reads nothing"
    tell(f"{name}, CPU", ours.cpu, max(cp.cpu - start.cpu, 0.001), "at most 4", does=does)
    tell(f"{name}, wall", ours.wall, max(cp.seconds - start.seconds, 0.001), "at most 4", does=does)


def test_a_rendered_request_file(tmp_path: Path) -> None:
    n = scaled(200_000)
    config = write_config(tmp_path)
    write_records(tmp_path / "in.jsonl", n)
    nura("enqueue", "records", "in.jsonl", cwd=tmp_path)
    template = ImmutableSandboxedEnvironment(undefined=StrictUndefined).from_string(SOURCE)
    parsed = [msgspec.json.decode(line) for line in (tmp_path / "in.jsonl").read_bytes().splitlines()]

    def jinja() -> float:
        began = time.process_time()
        for record in parsed:
            template.render(record)
        return time.process_time() - began

    reference = best(jinja)
    ours = Written(tmp_path, config.workloads["records"], n)
    tell(
        f"request file of {n:,} rendered requests, against Jinja alone, CPU",
        ours.cpu,
        reference,
        "at most 1.2",
        does="renders the same template by Jinja, in memory, from records that were decoded before",
    )


def test_a_dispatch(tmp_path: Path) -> None:
    n = scaled(200_000)
    write_config(tmp_path)
    write_ready(tmp_path / "in.jsonl", n)
    nura("enqueue", "raw", "in.jsonl", cwd=tmp_path)
    server = subprocess.Popen(
        [sys.executable, "-m", "nura_cli.sandbox", "box.db"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        (tmp_path / "key").write_text("k")
        (tmp_path / "key").chmod(0o600)
        document = {**CONFIG, "providers": {"box": {"kind": "openai", "api_key_file": "key", "base_url": f"{url}/v1"}}}
        (tmp_path / "nura.yaml").write_text(json.dumps(document))
        ours = nura("dispatch", "--json", cwd=tmp_path)
    finally:
        server.terminate()
        server.wait(timeout=20)
        if server.stdout:
            server.stdout.close()
    assert json.loads(ours.output)["requests"] == n
    size = sum(batch["bytes"] for batch in json.loads(ours.output)["batches"])
    began = time.perf_counter()
    shutil.copy(tmp_path / "in.jsonl", tmp_path / "copy")
    copied = time.perf_counter() - began
    more = f"{size / 1e6:.0f} MB, process peak {ours.peak_mb:.0f} MB (under 150)"
    tell(f"dispatch of {n:,} ready requests, the whole process, against cp of its input", ours.seconds, copied, "no target", more, does="copies the input file, unsynced")  # fmt: skip
