"""crontab.example under a real cron, with cron's bare environment; time is sped up: a quarter of an hour is 15 seconds.

A round of the stages ends within that; were it shorter, a busy machine would have ever more of them at once.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from nura_cli.sandbox import Sandbox
from tests.conftest import Spool, need
from tests.end_to_end.test_command_line import NURA

EXAMPLE = Path(__file__).parents[2] / "crontab.example"
PATIENCE = 180


def crontab_lines(config: Path, log: Path) -> str:
    """Return crontab.example with its two paths set, and its output kept where cron would mail it."""
    lines = []
    for line in EXAMPLE.read_text().splitlines():
        if line.startswith("NURA="):
            line = f"NURA={NURA}"
        elif line.startswith("NURA_CONFIG="):
            line = f"NURA_CONFIG={config}"
        elif line.startswith("*/15 * * * *"):
            schedule, command = line[:12], line[12:].strip()
            assert "&&" not in command
            line = f"{schedule} ({command}) >> {log} 2>&1"
        lines.append(line)
    return "\n".join(lines) + "\n"


# A cron of the test's own, in namespaces of its own: it sees no crontab but ours, nobody else sees ours, and with its first
# process all of it ends. /dev/shm too: faketime names a semaphore there by its process id, which is always 1 in here; the
# test's own folder may lie there, and stays.
ISOLATED = """
set -e
mount -t tmpfs none /run
mkdir /run/ours
mount --bind "$2" /run/ours
for folder in /dev/shm /var/spool/cron/crontabs /etc/cron.d; do mount -t tmpfs none $folder; done
mkdir -p "$2"
mount --bind /run/ours "$2"
mount --bind /dev/null /etc/crontab
crontab "$1"
exec faketime -f '+0 x60' cron -f
"""


@pytest.fixture
def cron(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """A function that installs a crontab into a real cron, which runs sixty times as fast."""
    for tool, package in (("cron", "cron"), ("faketime", "faketime"), ("crontab", "cron"), ("unshare", "util-linux")):
        need(tool, package)
    if os.geteuid() != 0:
        reason = "needs root, to run a cron of its own"
        (pytest.fail if os.environ.get("NURA_NO_SKIPS") else pytest.skip)(reason)
    running: list[subprocess.Popen[bytes]] = []

    def install(lines: str) -> None:
        crontab = tmp_path / "crontab"
        crontab.write_text(lines)
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ISOLATED, "sh"]
        running.append(subprocess.Popen([*unshare, str(crontab), str(tmp_path)], stderr=subprocess.DEVNULL))

    yield install
    for process in running:
        process.kill()
        process.wait(timeout=20)


def until(done: Callable[[], bool], what: str) -> None:
    """Wait for something cron brings about; bounded."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, f"waited {PATIENCE} s in vain: {what}"
        time.sleep(0.2)


def rounds_pass(spool: Spool, n: int) -> None:
    """Wait until cron has run the last stage ``n`` times more, from its beginning to its end."""

    def ended() -> int:
        return int(spool.rows("SELECT ended_at FROM runs WHERE stage = 'dispatch'")[0][0] or 0)

    def later(than: int) -> bool:
        return ended() > than

    for _ in range(n):
        until(partial(later, ended()), "a round of the stages ends")


@pytest.mark.timeout(4 * PATIENCE)
def test_the_example_crontab_completes_records_in_silence_and_survives_an_outage(
    openai_spool: Spool, server: Sandbox, cron: Callable[[str], None]
) -> None:
    spool, log = openai_spool, openai_spool.folder / "mail"
    spool.fill(12)
    cron(crontab_lines(spool.path, log))
    until(lambda: spool.counts()["completed"] == 12, "the first records complete")
    spool.enqueue({"id": 100, "text": "record number 100"})
    until(lambda: spool.counts()["completed"] == 13, "a later record completes")
    assert log.read_bytes() == b""

    spool.control.fault("status", "*", status=503, times=-1)
    spool.enqueue({"id": 101, "text": "record number 101"})
    until(lambda: log.read_bytes() != b"", "the outage is said")
    runs = spool.rows("SELECT count(*) FROM runs")
    assert runs == [(3,)]
    until(lambda: spool.rows("SELECT exit_code FROM runs WHERE stage = 'dispatch'") == [(75,)], "dispatch ends with 75")
    rounds_pass(spool, 2)
    assert log.read_bytes().count(b"\n") == 1, log.read_bytes()
    assert b"503" in log.read_bytes()

    spool.control.clear()
    # The provider is left alone for a minute or so of its own; --now is what an operator would type.
    subprocess.run([NURA, "dispatch", "--now"], cwd=spool.folder, check=False, timeout=PATIENCE)
    until(lambda: spool.counts()["completed"] == 14, "the record of the outage completes")
    assert log.read_bytes().count(b"\n") == 1
    spool.check()


def test_the_example_crontab_has_no_percent_sign_and_chains_with_semicolons() -> None:
    jobs = [line for line in EXAMPLE.read_text().splitlines() if line and not line.startswith(("#", "NURA"))]
    assert len(jobs) == 1
    assert "%" not in jobs[0]
    assert jobs[0].index("poll") < jobs[0].index("reconcile") < jobs[0].index("dispatch")
    assert jobs[0].count(";") == 2
