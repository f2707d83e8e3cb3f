"""The progress bar: there where a person waits, gone when the work is done, and nowhere off a terminal."""

import json
import os
import pty
import re
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from nura_cli import progress
from nura_cli.cli.progress import figures

# Shown at once, so that little work is enough; the sandbox is in the process.
RUN = (
    "import sys; from nura_cli.cli import main, progress; progress._SOON_SECONDS = progress._AGAIN_SECONDS = 0.0;"
    " sys.argv = ['nura', *sys.argv[1:]]; main()"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a configuration whose answers are written into a table and told to a program."""
    (tmp_path / "tell").write_text("#!/bin/sh\nexec cat > /dev/null\n")
    (tmp_path / "tell").chmod(0o755)
    with closing(sqlite3.connect(tmp_path / "app.db")) as app, app:
        app.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")
        app.executemany("INSERT INTO t (id) VALUES (?)", [(n,) for n in range(600)])
    workload = {
        "provider": "box",
        "model": "gpt-4.1-mini",
        "prompt": "{{ text }}",
        "write_back": {"database": "app", "table": "t", "where": {"id": "key"}, "set": {"v": "text"}},
        "events": [{"types": ["task.completed"], "command": ["./tell"]}],
    }
    document = {
        "state": "nura.db",
        "providers": {"box": {"kind": "sandbox"}},
        "databases": {"app": {"url": "sqlite:///app.db"}},
        "workloads": {"w": workload},
    }
    (tmp_path / "nura.yaml").write_text(json.dumps(document))
    lines = [json.dumps({"id": n, "text": "x" * 900}) for n in range(600)]
    (tmp_path / "f.jsonl").write_text("\n".join(lines))
    return tmp_path


def seen(folder: Path, arguments: Sequence[str], environment: Mapping[str, str] = {}) -> str:
    """Run a command with standard error on a terminal of 80 columns; return what it drew there."""
    terminal, child = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "80", **environment}
    command = [sys.executable, "-c", RUN, *arguments]
    with subprocess.Popen(
        command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=child
    ) as process:
        os.close(child)
        drawn = b""
        while True:
            try:
                drawn += os.read(terminal, 1 << 16)
            except OSError:  # the last who had it open has ended
                break
        process.communicate(timeout=60)
    os.close(terminal)
    assert process.returncode == 0, drawn
    return drawn.decode()


def text(drawn: str) -> str:
    """Return what was drawn without what moves the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn)


def test_each_stage_shows_how_far_it_is(folder: Path) -> None:
    enqueued = seen(folder, ["enqueue", "w", "f.jsonl"])
    assert "w: enqueueing" in text(enqueued)
    assert re.search(r"55\dkB? of 55\dkB", text(enqueued))
    sent = text(seen(folder, ["dispatch"]))
    assert "w: writing batch 1" in sent
    assert re.search(r"600 of 600", sent)
    assert re.search(r"sending requests .*k? of [67]\d\dkB", sent)
    assert "600 requests sent in 1 batch" in sent
    home = text(seen(folder, ["poll"]))
    assert re.search(r"downloading answers .* of .*B", home)
    settled = text(seen(folder, ["reconcile"]))
    for what in ("settling answers", "w: writing rows", "w: sending events"):
        assert re.search(rf"{what} .*600 of 600", settled), what
    again = text(seen(folder, ["retry", "w", "--status", "completed", "--until", "0s", "--yes"]))
    assert re.search(r"retrying .*600 of 600", again)


def test_the_terminal_is_left_as_it_was(folder: Path) -> None:
    drawn = seen(folder, ["enqueue", "w", "f.jsonl"])
    assert drawn.count("\x1b[?25l") == drawn.count("\x1b[?25h") > 0  # the cursor is there again
    assert drawn.rstrip().endswith("nura enqueue: 600 enqueued")


@pytest.mark.parametrize(
    ("options", "environment"), [(["-q"], {}), (["-vv"], {}), ([], {"TERM": "dumb"})], ids=["quiet", "loud", "dumb"]
)
def test_nothing_is_drawn_where_nobody_wants_it(
    folder: Path, options: Sequence[str], environment: Mapping[str, str]
) -> None:
    assert "\x1b" not in seen(folder, ["enqueue", "w", "f.jsonl", *options], environment)


def test_nothing_is_drawn_off_a_terminal(folder: Path) -> None:
    command = [sys.executable, "-c", RUN, "enqueue", "w", "f.jsonl"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_work_within_work_is_told_to_who_listens() -> None:
    heard: list[object] = []

    class Ear(progress.Listener):
        def begin(self, what: str, total: int | None, *, in_bytes: bool, at_once: bool) -> None:
            heard.append((what, total))

        def at(self, done: int) -> None:
            heard.append(done)

        def end(self) -> None:
            heard.append("end")

    with progress.going("nobody listens") as step:
        step.add(1)
    with progress.shown(Ear()), progress.going("outer", 3) as outer, progress.going("inner") as inner:
        inner.add(2)
        inner.to(5)
        outer.to(1)
    assert heard == [("outer", 3), ("inner", None), 2, 5, 1, "end", "end"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((0, None, None, False), "0"),
        ((1_500, 20_000, 250.0, False), "1.50k of 20.0k, 250/s"),
        ((1_500_000, 20_000_000, 2_500_000.0, True), "1.50M of 20.0MB, 2.50MB/s"),
        ((1_500_000, None, None, True), "1.50MB"),
    ],
)
def test_figures_are_short(given: tuple[int, int | None, float | None, bool], words: str) -> None:
    assert figures(*given[:3], in_bytes=given[3]) == words
