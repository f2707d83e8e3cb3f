"""Speed and memory of the stages, each against a bare loop that does the same with nothing checked."""

import subprocess
import time
from pathlib import Path

from nura_cli.sandbox import Sandbox
from nura_cli.state import State, batches, tasks
from tests.benchmarks.conftest import scaled, tell
from tests.benchmarks.test_dispatch import write_ready


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
        does="the same with a tenth of the tasks",
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
