"""A stage as the command line runs it: under its lock, its start and end written down, a lasting problem said now and then.

A stage command runs one, ``nura run`` several; each is the same run, with the same lock and the same row in the log.
"""

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from nura_cli import clock, contract
from nura_cli.cli.session import Session, Stopped
from nura_cli.errors import EX_UNEXPECTED, Busy, NuraError, StateError
from nura_cli.pipeline.report import Problem, Report, bug, problem, together
from nura_cli.pipeline.symptoms import CONFIGURATION, LATELY
from nura_cli.state import Connection, State, locks, outbox, runs
from nura_cli.state.file import explained, unforeseen

if TYPE_CHECKING:
    from nura_cli.config import Config
    from nura_cli.pipeline.accounts import Accounts

_LOOK_SECONDS = 0.1
"""Seconds between two looks at a lock that is waited for."""


@dataclass(kw_only=True)
class Opened:
    """What the stages of one command work with, opened once."""

    session: Session
    config: "Config"
    state: State
    stack: ExitStack = field(repr=False)

    @cached_property
    def accounts(self) -> "Accounts":
        """The connections to the providers."""
        from nura_cli.pipeline.accounts import Accounts

        return self.stack.enter_context(Accounts(self.config, self.state.path, self.state.state_id))

    def reload(self) -> None:
        """Go on by the configuration as it is now. Raises ConfigError: it cannot be used."""
        self.config = self.session.config()
        self.__dict__.pop("accounts", None)  # those that are open are closed in the end


@contextmanager
def opened(session: Session, config: "Config", *, beside: bool = False) -> Iterator[Opened]:
    """Give the block the open state file, and connections to providers once they are needed.

    Args:
        beside: for what takes no lock and makes no files (enqueue): it may be an older release than the stages, and root's.

    Raises:
        ConfigError: as root, where the state file is another user's.
    """
    with ExitStack() as stack:
        state = stack.enter_context(session.state(config.state, newer=beside))
        if not beside:
            state.refuse_root()
        yield Opened(session=session, config=config, state=state, stack=stack)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage, and what the command line has to know of it.

    Attributes:
        summary: puts a report into one line, for a terminal and for the log.
        empty: the fields of the report of a run that was skipped.
        workload: the one that it is about, where it is about one.
        lock: the stage whose lock it takes; None where it takes none, and keeps no row as the stage's last run.
        needed: it cannot do without the lock: that another run holds it is an error.
        in_log: whether a run that ended well is in the log.
        standing: the fields of its report that say how things stand, not what was done.
    """

    name: str
    work: Callable[[Opened], Report]
    summary: Callable[[Report], str]
    empty: Mapping[str, Any]
    workload: str | None = None
    lock: str | None = None
    needed: bool = False
    in_log: bool = True
    standing: Collection[str] = ()

    @property
    def title(self) -> str:
        """Its name, and the workload's: under it, its lasting problems are kept."""
        return f"{self.name} {self.workload}" if self.workload else self.name


def contained(stage: Stage) -> Stage:
    """Return the stage with a failure of all of it as a problem of its report: what a command runs beside it goes on.

    That of the state file is none: nothing goes on without it.
    """

    def work(at: Opened) -> Report:
        try:
            return stage.work(at)
        except StateError:
            raise
        except NuraError as error:
            found = problem(error, workload=stage.workload)
            named = found if stage.workload is None else replace(found, message=f"{stage.workload}: {found.message}")
            return Report(dict(stage.empty), [named])
        except Exception as error:
            if not unforeseen(error):
                raise
            return Report(dict(stage.empty), [bug(error, stage.title, workload=stage.workload)])

    return replace(stage, work=work)


class Done(NamedTuple):
    """What came of a stage.

    Attributes:
        said: the run in one line, for a terminal.
        printed: the problems to say now.
        skipped: why there was no run; None where there was one.
        run: its number in the log, where it has one.
    """

    report: Report
    said: str
    printed: list[Problem]
    skipped: contract.Skipped | None = None
    run: int | None = None


def alone(session: Session, stage: Stage) -> None:
    """Run a stage as a command of its own: say what came of it, and exit with its code.

    Raises:
        Busy: another run holds a lock that this cannot do without.
    """
    with opened(session, session.config()) as at:
        done = do(at, stage)
    finish(session, done)


def finish(session: Session, done: Done) -> None:
    """Say what came of the one stage of a command, and exit with its code."""
    if done.said:
        session.say(done.said)
    session.finish(done.report, skipped=done.skipped, printed=done.printed)


def do(at: Opened, stage: Stage, *, earlier: Done | None = None, patience: float = 0.0) -> Done:
    """Run a stage under its lock, with its start written before the work and its end after.

    Args:
        earlier: what this command's own run of the stage came to that this one carries on: to the log they are one.
        patience: seconds to wait for the lock; then the stage is skipped.

    Raises:
        Busy: another run holds a lock that this cannot do without.
    """
    try:
        with _locked(at, stage, patience):
            return _noted(at, stage, earlier)
    except locks.Held as held:
        if stage.needed:
            since = clock.rfc3339(held.holder.since) if held.holder else "just now"
            raise Busy(
                f"{stage.lock} is at work (since {since}): nothing was done", hint="run this again once it has ended"
            ) from held
        return _skipped(at, stage, held.holder)


@contextmanager
def _locked(at: Opened, stage: Stage, patience: float) -> Iterator[None]:
    deadline = time.monotonic() + patience
    with ExitStack() as stack:
        while stage.lock is not None:
            try:
                stack.enter_context(locks.lock(at.state.lock_path(stage.lock), clock.now()))
                break
            except locks.Held:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(_LOOK_SECONDS)
        yield


def _noted(at: Opened, stage: Stage, earlier: Done | None) -> Done:
    began = at.state.clock()
    _note_configuration(at)
    run = _begun(at, stage, earlier) if stage.in_log else None
    try:
        with explained(at.state.path):
            report = stage.work(at)
    except BaseException as error:
        if stage.in_log or not isinstance(
            error, StateError | Stopped
        ):  # what waited for the file once need not do so twice
            _failed(at, stage, began, run, error)
        raise
    whole = together(earlier.report, report, stage.standing) if earlier else report
    done = Done(whole, stage.summary(whole), report.problems, run=run)
    if not stage.in_log and not whole.exit_code and not _failed_before(at, stage):
        return done
    with at.state.transaction() as db:
        gravest = sorted(whole.problems, key=lambda found: not found.exit_code)[:1]
        _ended(db, stage, began, run, whole.exit_code, gravest[0].message if gravest else None, done.said)
        return done._replace(printed=_to_say(db, at, stage, report.problems))


def _note_configuration(at: Opened) -> None:
    """Write down that this configuration loads, where that is news: status need not load it then to know that it does."""
    digest = at.config.digest
    if digest and outbox.known_good(at.state.db, CONFIGURATION) != digest:
        with explained(at.state.path), at.state.transaction() as db:
            outbox.remember_good(db, CONFIGURATION, digest)


def _begun(at: Opened, stage: Stage, earlier: Done | None) -> int:
    """Write down that a run begins, or goes on; return its number in the log."""
    with at.state.transaction() as db:
        if stage.lock is not None:
            runs.started(db, stage.name, os.getpid())
        if earlier is not None and earlier.run is not None:
            runs.resumed(db, earlier.run)
            return earlier.run
        return runs.begun(db, stage.name, os.getpid(), stage.workload, db.now)


def _failed_before(at: Opened, stage: Stage) -> bool:
    """Return whether the last run of a stage that is in the log failed, not long ago: then it is to be seen there that it is over."""
    last = {run.workload: run.exit_code for run in runs.last_enqueues(at.state.db, at.state.clock() - LATELY)}
    return bool(last.get(stage.workload or ""))


def _failed(at: Opened, stage: Stage, began: int, run: int | None, error: BaseException) -> None:
    try:
        with at.state.transaction() as db:
            _ended(db, stage, began, run, *_end_of(error))
    except Exception:  # noqa: BLE001 - the failure of the work itself is the one to tell
        at.session.say("how this run ended could not be written down")


def _ended(
    db: Connection, stage: Stage, began: int, run: int | None, code: int, message: str | None, said: str = ""
) -> None:
    """Write down how a run ended: with what went wrong first, or else, in the log, with what it ``said``."""
    if stage.lock is not None:
        runs.ended(db, stage.name, code, message)
    if run is None:
        run = runs.begun(db, stage.name, os.getpid(), stage.workload, began)
    runs.done(db, run, code, message or said)


def _end_of(error: BaseException) -> tuple[int, str]:
    """Return the exit code that an exception means, and what is written down of it."""
    if isinstance(error, NuraError):
        return error.exit_code, error.message
    if isinstance(error, Stopped):
        return error.exit_code, "told to stop"
    return EX_UNEXPECTED, "ended unexpectedly"


def _to_say(db: Connection, at: Opened, stage: Stage, problems: list[Problem]) -> list[Problem]:
    """Return the problems to say now: on a terminal all, under cron a lasting one at its onset and at intervals."""
    if not stage.in_log:
        return problems
    runs.over(db, stage.title, {found.scope for found in problems if found.lasting})
    new = [
        not found.lasting or runs.problem(db, stage.title, found.scope, found.message, at.config.remind)
        for found in problems
    ]
    everything = at.session.terminal or at.session.verbose
    return [found for found, now in zip(problems, new, strict=True) if now or everything]


def _skipped(at: Opened, stage: Stage, holder: locks.Holder | None) -> Done:
    """Return what came of a stage that another run is at; one that hangs is a problem, and in the log whenever it is said."""
    since = clock.rfc3339(holder.since) if holder else "just now"
    running = f"already running (pid {holder.pid if holder else 'unknown'}, since {since})"
    if holder is None or clock.now() - holder.since <= locks.HUNG_AFTER:
        return Done(Report(dict(stage.empty)), running, [], "locked")
    error = Busy(
        f"{stage.name} is {running}: longer than a run can take",
        hint=f"look at it with: ps -fp {holder.pid}; if it hangs, kill {holder.pid}: nothing is lost",
    )
    found = problem(error, about=stage.name)
    with at.state.transaction() as db:
        now = runs.problem(db, stage.name, found.scope, found.message, at.config.remind)
        if now:
            run = runs.begun(db, stage.name, os.getpid(), stage.workload, db.now)
            runs.done(db, run, found.exit_code, found.message)
    printed = [found] if now or at.session.terminal else []
    return Done(Report(dict(stage.empty), [found]), running, printed, "locked")
