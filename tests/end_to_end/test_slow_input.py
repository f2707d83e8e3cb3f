"""nura enqueue at the end of a pipe or terminal that pauses: what came is safe after a second."""

import json
import os
import pty
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nura_cli.state import State
from tests.end_to_end.test_command_line import NURA

LINE = '{"id": %d, "text": "a"}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a configuration."""
    workload = {"provider": "box", "model": "gpt-4.1-mini", "prompt": "{{ text }}"}
    document = {"state": "nura.db", "providers": {"box": {"kind": "sandbox"}}, "workloads": {"w": workload}}
    (tmp_path / "nura.yaml").write_text(json.dumps(document))
    return tmp_path


def stored(folder: Path) -> int:
    """Return how many records are in; asks as a writer does, so that a lock that is held would be met."""
    with State(folder / "nura.db") as state, state.transaction() as db:
        return int(db.execute("SELECT count(*) FROM records").fetchone()[0])


def eventually(what: Callable[[], Any], seconds: float = 30.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def enqueue(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``nura enqueue w`` at the end of a pipe."""
    pipes: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([NURA, "enqueue", "w", "-v"], cwd=folder, **pipes) as process:
        yield process
        process.kill()


def test_what_came_is_in_after_a_second_and_half_a_line_is_not(folder: Path, enqueue: subprocess.Popen[bytes]) -> None:
    assert enqueue.stdin
    assert enqueue.stderr
    enqueue.stdin.write((LINE % 1 + LINE % 2 + '{"id": 3, ').encode())
    enqueue.stdin.flush()
    eventually(lambda: stored(folder) == 2)
    enqueue.stdin.write(b'"text": "a"}\n')
    enqueue.stdin.flush()
    eventually(lambda: stored(folder) == 3)
    enqueue.stdin.write((LINE % 4).encode())
    enqueue.stdin.close()
    assert enqueue.wait(30) == 0
    assert b"4 enqueued" in enqueue.stderr.read()
    assert stored(folder) == 4


def test_a_line_now_and_then_does_not_put_it_off_for_ever(folder: Path, enqueue: subprocess.Popen[bytes]) -> None:
    assert enqueue.stdin
    for n in range(30):
        enqueue.stdin.write((LINE % n).encode())
        enqueue.stdin.flush()
        time.sleep(0.2)
        if n and stored(folder):
            break
    assert 0 < stored(folder) < 30


def test_a_terminal_is_told_that_it_is_read(folder: Path) -> None:
    terminal, child = pty.openpty()
    with subprocess.Popen([NURA, "enqueue", "w"], cwd=folder, stdin=child, stderr=child, stdout=child) as process:
        os.close(child)
        assert b"reading records from the terminal; Ctrl-D ends them" in os.read(terminal, 1000)
        os.write(terminal, (LINE % 1).encode())
        eventually(lambda: stored(folder) == 1)
        os.write(terminal, b"\x04")
        assert process.wait(30) == 0
    with closing(open(terminal, "rb")):
        pass


def test_nothing_is_said_of_a_file(folder: Path) -> None:
    (folder / "f").write_text(LINE % 1)
    with (folder / "f").open("rb") as file:
        for arguments, given in ((["f"], subprocess.DEVNULL), ([], file)):
            done = subprocess.run(
                [NURA, "enqueue", "w", *arguments], cwd=folder, stdin=given, capture_output=True, timeout=60, check=True
            )
            assert (done.stdout, done.stderr) == (b"", b"")
