"""What the benchmarks share: their size, processes measured from outside, and the lines they print at the end.

``python -m tests.benchmarks`` runs them at full size, and prints the README's table; under pytest they run at a hundredth of it, so
that they cannot rot. They print ratios against a reference measured in the same run, and assert results, never times; so
they run one after the other, on the disk.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import tallies

SCALE = float(os.environ.get("NURA_BENCH_SCALE", "0.01"))


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Start no workers: what is measured is alone on the machine."""
    config.option.numprocesses = 0


def scaled(n: int) -> int:
    """Return a size at the scale of this run."""
    return max(1, int(n * SCALE))


TABLE = "NURA_BENCH_TABLE"
"""The environment variable that names a file to which each figure is added, one JSON object a line (:mod:`tests.benchmarks.__main__`)."""


def tell(name: str, measured: float, reference: float, target: str, more: str = "", *, does: str = "") -> None:
    """Note a ratio for the end of the run, and for the table: seconds against seconds.

    Args:
        target: what is to be reached, in words.
        more: what else was found.
        does: what the reference does, in words.
    """
    ratio = measured / reference if reference else float("inf")
    line = f"{name}: {measured:.3f} s / {reference:.3f} s = {ratio:.2f} ({target}){more and ', ' + more}"
    tallies.ratios[f"benchmark at {SCALE:g} of the size: {line}"] += 1
    _row(name, f"{ratio:.2f} x{more and '; ' + more}", target, does)


def say(name: str, target: str, *, does: str = "", **figures: float) -> None:
    """Note figures for the end of the run, and for the table, that are no seconds of this machine. ``does`` as in :func:`tell`."""
    line = ", ".join(f"{what} {figure:.2f}" for what, figure in figures.items())
    tallies.ratios[f"benchmark at {SCALE:g} of the size: {name}: {line} ({target})"] += 1
    _row(name, line.replace("_", " "), target, does)


def _row(figure: str, reached: str, target: str, reference: str) -> None:
    if (path := os.environ.get(TABLE)) is not None:
        with Path(path).open("a") as file:
            file.write(
                json.dumps({"figure": figure, "reached": reached, "target": target, "reference": reference}) + "\n"
            )


class Ran(NamedTuple):
    """A process that ended: its wall seconds, its peak memory in MB, its output, the seconds of CPU that it and its children took."""

    seconds: float
    peak_mb: float
    output: bytes
    cpu: float = 0.0


def run(*arguments: str | Path, cwd: Path, stdin: Path | None = None) -> Ran:
    """Run a process to its end and measure it."""
    with (stdin or Path(os.devnull)).open("rb") as given, (cwd / "out").open("wb+") as out:
        start = time.perf_counter()
        process = subprocess.Popen([str(argument) for argument in arguments], cwd=cwd, stdin=given, stdout=out)
        peak = 0
        # The rusage of a child counts the memory of the parent it was forked from; its own high-water mark does not.
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            peak = max(peak, _high_water(process.pid))
            time.sleep(0.002)
        seconds = time.perf_counter() - start
        _, status, used = ended
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, arguments
        out.seek(0)
        return Ran(seconds, peak / 1024, out.read(), used.ru_utime + used.ru_stime)


def _high_water(pid: int) -> int:
    """Return a process's peak memory so far in KB (proc(5)), or 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)


def nura(*arguments: str | Path, cwd: Path, stdin: Path | None = None) -> Ran:
    """Run nura to its end and measure it."""
    return run(Path(sys.executable).with_name("nura"), *arguments, cwd=cwd, stdin=stdin)
