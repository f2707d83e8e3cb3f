"""``ping:`` tells a monitor that a run of ``nura run`` begins, and with which exit code it ends; silence tells it the rest."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from nura_cli.cli.session import Session, Stopped
from nura_cli.errors import EX_OK, EX_UNEXPECTED, NuraError
from nura_cli.state import State, disk, runs

if TYPE_CHECKING:
    from nura_cli.config import Config

_STAGE, _SCOPE = "run", "ping"


@dataclass
class Pinged:
    """What the monitor is told at the end beside the exit code: a line without any words of records or providers."""

    line: str = ""


@contextlib.contextmanager
def around(session: Session, config: "Config") -> Iterator[Pinged]:
    """Ping before and after the block, where the configuration says so. Whatever becomes of a ping, the exit code is the block's."""
    told = Pinged()
    if config.ping is None:
        yield told
        return
    from nura_cli.pipeline import monitor

    failed = [monitor.tell(config.ping, "start")]
    code = EX_OK
    try:
        yield told
    except BaseException as error:
        code = _code(error)
        told.line = told.line or _kind(error)
        raise
    finally:
        failed.append(monitor.tell(config.ping, str(code), told.line))
        why = next((one for one in reversed(failed) if one is not None), None)
        if _to_say(session, config, why):
            session.tell(f"the monitor was not told of this run: {why} (see ping: in the configuration)")


def _code(error: BaseException) -> int:
    """Return the exit code that the command ends with after this."""
    if isinstance(error, typer.Exit | Stopped | NuraError):
        return int(error.exit_code)
    known = disk.problem(error) if isinstance(error, OSError) else None
    return EX_UNEXPECTED if known is None else known.exit_code


def _kind(error: BaseException) -> str:
    """Return what ended a run, without its words."""
    if isinstance(error, NuraError):
        return str(error.kind)
    return "told to stop" if isinstance(error, Stopped) else ""


def _to_say(session: Session, config: "Config", why: str | None) -> bool:
    """Return whether to say now that a ping was not taken: on a terminal always, under cron at its onset and at intervals."""
    try:
        with State(config.state, create=False) as state, state.transaction() as db:
            if why is None:
                runs.over(db, _STAGE, set())
                return False
            new = runs.problem(db, _STAGE, _SCOPE, why, config.remind)
    except NuraError:  # how the run itself ended says why
        new = True
    return why is not None and bool(new or session.terminal or session.verbose)
