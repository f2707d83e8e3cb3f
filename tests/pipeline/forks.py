"""nura's commands as real processes, forked from one that has everything loaded: a run costs some milliseconds.

Each runs the whole command line, lock and exit code and all. Those of a walk run at the time its clock shows, and with the
same dice when they are run again as they were. They can be made to kill themselves (SIGKILL: nothing is cleaned up) at
their N-th call that reaches out of Python to the state file, the spool or the network.
"""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import anthropic  # noqa: F401 - loaded once, before the fork
import openai  # noqa: F401 - as above

from nura_cli import cli, clock
from nura_cli.cli import (  # noqa: F401 - loaded once, before the fork
    backup,
    cancel,
    demo,
    dispatch,
    enqueue,
    hold,
    log,
    poll,
    purge,
    reconcile,
    redeliver,
    release,
    resolve,
    results,
    retry,
    run,
    sandbox,
    show,
    status,
)
from nura_cli.providers import wire
from tests import documents

_REACHING_OUT = frozenset(
    {
        "execute",
        "executemany",
        "connect",
        "flock",
        "write",
        "fsync",
        "rename",
        "replace",
        "unlink",
        "send",
        "sendall",
        "recv",
    }
)
_SECONDS = 120.0
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])


class Ended(NamedTuple):
    """How a command ended: its exit code (negative: the signal that ended it), and what it said."""

    code: int
    out: str


class Command:
    """A running nura command."""

    def __init__(
        self, folder: Path, now: int, *arguments: str, kill_at: int | None = None, patience: float | None = None
    ) -> None:
        """Start it in ``folder``.

        Args:
            now: the time it takes it to be, unix seconds.
            kill_at: the number (from 1) of the call that reaches out at which it kills itself; None lets it end.
            patience: seconds it waits for a provider's answer; None for as long as nura does.
        """
        self._arguments = arguments
        self._out = folder / f"{id(self)}.out"
        given = (folder, self._out, now, arguments, kill_at, patience)
        self._process = _context.Process(target=_run, args=given, daemon=True)
        self._process.start()

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.is_alive()

    def kill(self) -> None:
        """Kill it: SIGKILL."""
        self._process.kill()

    def end(self) -> Ended:
        """Wait (for a bounded time) until it has ended; say how.

        Raises:
            AssertionError: it hangs.
        """
        code = _ended(self._process)
        out = self._out.read_text() if self._out.exists() else ""
        self._out.unlink(missing_ok=True)
        assert code is not None, f"a command hangs: {out}"
        documents.check_ended(self._arguments, code)
        return Ended(code, out)


def completed(
    *arguments: str, cwd: Path, environment: Mapping[str, str], given: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end; return its exit code and what it said, as ``subprocess.run`` does.

    Args:
        cwd: the folder it runs in.
        environment: all of its environment.
        given: what it reads on standard input, which is a file, as the two that it writes to are.

    Raises:
        AssertionError: it hangs; or its exit code or its JSON object is none that its help names.
    """
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("in", "out", "err")]
        for path in streams:
            path.write_bytes(given if path.name == "in" else b"")
        process = _context.Process(target=_complete, args=(cwd, streams, environment, arguments), daemon=True)
        process.start()
        code = _ended(process)
        out, err = (path.read_bytes() for path in streams[1:])
    assert code is not None, f"a command hangs: {err!r}"
    documents.check_ended(arguments, code, out)
    return subprocess.CompletedProcess(arguments, code, out, err)


def _ended(process: BaseProcess) -> int | None:
    """Wait until a process has ended, and return its exit code; None if it hangs, and then it is killed."""
    process.join(_SECONDS)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
    process.close()
    return code


def _complete(cwd: Path, streams: list[Path], environment: Mapping[str, str], arguments: tuple[str, ...]) -> None:
    os.chdir(cwd)
    for fd, path in enumerate(streams):
        os.dup2(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC), fd)
    sys.stdin = os.fdopen(0, closefd=False)  # multiprocessing gave it /dev/null
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["nura", *arguments]
    cli.main()


def _run(
    folder: Path, out: Path, now: int, arguments: tuple[str, ...], kill_at: int | None, patience: float | None
) -> None:
    os.chdir(folder)
    fd = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    clock.now = lambda: now
    random.seed(repr((now, arguments)))  # the jitter of what it tries again
    if patience is not None:
        wire.READ_SECONDS = wire.SEND_SECONDS = patience
    sys.argv = ["nura", *arguments]
    if kill_at is not None:
        sys.setprofile(_Killer(kill_at))
    cli.main()


class _Killer:
    """A profiler that counts calls which reach out, and ends the process at one of them."""

    def __init__(self, kill_at: int) -> None:
        self._left = kill_at

    def __call__(self, frame: FrameType, event: str, what: Any) -> None:
        if event == "c_call" and what.__name__ in _REACHING_OUT:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)
