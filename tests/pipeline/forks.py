"""nura's commands as real processes of a walk, forked from one that has everything loaded: a run costs some milliseconds.

Each runs the whole command line, lock and exit code and all, at the time the walk's clock shows, and with the same dice
when it is run again as it was. It can be made to kill itself (SIGKILL: nothing is cleaned up) at its N-th call that
reaches out of Python to the state file, the spool or the network.
"""

import multiprocessing
import os
import random
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import anthropic  # noqa: F401 - loaded once, before the fork
import openai  # noqa: F401

from nura_cli import cli, clock
from nura_cli.cli import dispatch, enqueue, poll, reconcile, resolve  # noqa: F401 - loaded once, before the fork
from nura_cli.providers import wire

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
        self._process.join(_SECONDS)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
            self._process.join()
        out = self._out.read_text() if self._out.exists() else ""
        self._out.unlink(missing_ok=True)
        self._process.close()
        assert code is not None, f"a command hangs: {out}"
        return Ended(code, out)


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
