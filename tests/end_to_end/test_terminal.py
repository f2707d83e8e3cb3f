"""Commands in a real terminal, of some size, with and without colours."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.conftest import START, Spool

NURA = Path(sys.executable).with_name("nura")
NAME = "w" * 50 + "-of-the-night"


def in_terminal(spool: Spool, columns: int, *arguments: str, **environment: str) -> str:
    """Return what a command shows in a terminal of 24 lines of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR", "TERM")}
    env |= {"TERM": "xterm", **environment}
    with subprocess.Popen(
        [NURA, *arguments], cwd=spool.folder, env=env, stdout=theirs, stderr=theirs, stdin=theirs
    ) as it:
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 1 << 16):
                shown += chunk
        except OSError:  # the other side has ended
            pass
        assert it.wait(60) == 0
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [60, 80])
def test_status_fits_a_terminal_and_shows_colours(openai_spool: Spool, columns: int) -> None:
    openai_spool.clock.time = START - 400 * 86400  # before the real time, by which the command goes
    openai_spool.set(NAME)
    openai_spool.fill(3, NAME)
    shown = in_terminal(openai_spool, columns, "status", NO_COLOR="1")
    assert "\x1b" not in shown
    assert all(len(line) <= columns for line in shown.splitlines() if " " in line.strip()), shown
    assert "…" in shown
    assert shown.startswith("needs you: work waits, and no stage has ended well yet\n")
    assert "\x1b[33mneeds you: " in in_terminal(openai_spool, columns, "status")
