"""Kill -9 at the N-th system call that writes, and at every exchange with the provider; then run the stages again.

By default a bounded sample of the sweep runs; ``NURA_KILL_SWEEP=1 pytest tests/end_to_end/test_kills.py`` counts N up
until the run completes, for each call, each stage and both protocols. How many kills there were is printed at the end.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nura_cli.sandbox import Sandbox
from tests.conftest import PROTOCOLS, START, Spool, need
from tests.end_to_end.test_command_line import NURA

WHOLE = bool(os.environ.get("NURA_KILL_SWEEP"))
CALLS = ("pwrite64", "write", "/^rename", "/^unlink", "fsync", "fdatasync", "ftruncate")
STAGES = ("enqueue", "dispatch", "poll", "reconcile")
RECORDS = 5
MOST = 400
SAMPLE = (1, 3)
pytestmark = pytest.mark.timeout(3600 if WHOLE else 300)


def prepared(spool: Spool, stage: str) -> list[str]:
    """Bring a spool to where a stage has work; return the arguments of that stage."""
    now = int(time.time())
    spool.clock.time = now
    spool.control.advance(now - START)
    lines = "".join(json.dumps({"id": i, "text": f"record number {i}"}) + "\n" for i in range(RECORDS))
    (spool.folder / "in.jsonl").write_text(lines)
    if stage != "enqueue":
        spool.fill(RECORDS)
    if stage in ("poll", "reconcile"):
        spool.dispatch()
    if stage == "reconcile":
        spool.poll()
    return [str(NURA), stage, *(["echo", "in.jsonl"] if stage == "enqueue" else [])]


def environment(spool: Spool) -> dict[str, str]:
    """Return cron's environment, with no byte code written: that is no call of the stage's own."""
    return {"PATH": "/usr/bin:/bin", "HOME": str(spool.folder), "PYTHONDONTWRITEBYTECODE": "1"}


def recovered(spool: Spool) -> None:
    """Run the stages again, and assert that nothing was lost, paid for twice, or left lying about."""
    spool.enqueue(*({"id": i, "text": f"record number {i}"} for i in range(RECORDS)))
    spool.settle()
    spool.poll()
    assert spool.counts()["completed"] == RECORDS
    assert sum(spool.counts().values()) == RECORDS
    bill = spool.control.billing()
    assert (bill["requests"], bill["twice"]) == (RECORDS, {"custom_id": [], "digest": []})
    left = [path for folder in ("requests", "results") for path in (spool.folder / "nura.db.spool" / folder).iterdir()]
    assert left == []
    spool.check()


@contextmanager
def fresh(parent: Path, protocol: str, n: int) -> Iterator[Spool]:
    """A spool on a sandbox of its own."""
    folder = parent / f"n{n}"
    folder.mkdir()
    with Sandbox(folder / "box.db") as server:
        (folder / "nura").mkdir()
        yield Spool(folder / "nura", server, protocol)
    shutil.rmtree(folder)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_any_call_that_writes_it_loses_nothing_and_pays_once(
    stage: str, call: str, protocol: str, tmp_path: Path, kills: list[str]
) -> None:
    strace = need("strace", "strace")
    for n in range(1, MOST) if WHOLE else SAMPLE:
        with fresh(tmp_path, protocol, n) as spool:
            arguments = prepared(spool, stage)
            inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={n}"]
            done = subprocess.run(
                [strace, "-f", "-qq", "-o", "/dev/null", *inject, *arguments],
                cwd=spool.folder, env=environment(spool), capture_output=True, timeout=120, check=False,
            )  # fmt: skip
            recovered(spool)
        if done.returncode == 0:
            assert n > 1 or call != "pwrite64", "every stage writes to the state file: the kill did not happen"
            return
        assert done.returncode == -signal.SIGKILL, done.stderr
        kills.append(f"{stage} {call}")
    assert not WHOLE, f"{stage} does not complete within {MOST} calls of {call}"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("stage", ["dispatch", "poll"])
def test_killed_at_any_exchange_it_loses_nothing_and_pays_once(
    stage: str, when: str, protocol: str, tmp_path: Path, kills: list[str]
) -> None:
    for n in range(20):
        with fresh(tmp_path, protocol, n) as spool:
            arguments = prepared(spool, stage)
            spool.control.fault("hold", "*", skip=n, after=when == "after", seconds=60)
            process = subprocess.Popen(arguments, cwd=spool.folder, env=environment(spool), stderr=subprocess.DEVNULL)
            while process.poll() is None and not spool.control.held():
                time.sleep(0.02)
            ended = process.poll() is not None
            process.kill()
            process.wait(timeout=30)
            spool.control.clear()
            spool.control.release()
            recovered(spool)
        if ended:
            assert n > 1
            return
        kills.append(f"{stage} {when} an exchange")
    raise AssertionError(f"{stage} does not complete within 20 exchanges")


def test_what_a_kill_cannot_show_stands_in_the_trace(spool: Spool) -> None:
    """A power cut: a file is written, synced, renamed, its folder synced, and only then is it committed."""
    strace = need("strace", "strace")
    for stage in ("dispatch", "poll"):
        arguments = prepared(spool, stage) if stage == "dispatch" else [str(NURA), stage]
        trace = spool.folder / f"{stage}.trace"
        subprocess.run(
            [strace, "-f", "-y", "-qq", "-o", str(trace), "-e", "trace=write,fsync,fdatasync,/^rename,pwrite64", *arguments],
            cwd=spool.folder, env=environment(spool), check=True, timeout=120,
        )  # fmt: skip
        lines = trace.read_text().splitlines()
        folder = "requests" if stage == "dispatch" else "results"
        part = rf"/{folder}/[^>]*\.part"
        steps = [
            _first(lines, rf"write\(\d+<[^>]*{part}", 0),
            _first(lines, rf"fsync\(\d+<[^>]*{part}", 0),
            _first(lines, rf"rename\w*\(.*{folder}", 0),
        ]
        assert steps == sorted(steps)
        synced = _first(lines, rf"fsync\(\d+<[^>]*/{folder}>", steps[-1])
        committed = _first(lines, r"(fsync|fdatasync)\(\d+<[^>]*nura\.db-wal", synced)
        assert steps[-1] < synced < committed


def _first(lines: list[str], pattern: str, after: int) -> int:
    """Return the number of the first line after ``after`` that a pattern matches."""
    for number, line in enumerate(lines[after:], after):
        if re.search(pattern, line):
            return number
    raise AssertionError(f"nothing in the trace matches {pattern}")
