"""What the verbs of an operator have in common: a dry run, a question before money or data is at stake, and who it was, and why."""

import os
import pwd
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from nura_cli import clock, scrub
from nura_cli.cli.session import Session, output, plain
from nura_cli.errors import Busy, UsageError
from nura_cli.state import locks

if TYPE_CHECKING:
    from nura_cli.config import Config
    from nura_cli.pipeline.report import Report
    from nura_cli.state import State
    from nura_cli.state.actions import Scope

DryRunOption = Annotated[bool, typer.Option("--dry-run", "-n", help="Say what would be done, and do nothing.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; needed where there is no terminal.")]
WhyOption = Annotated[str | None, typer.Option(help="Your reason, for nura log.", show_default=False)]


@contextmanager
def acting(session: Session, why: str | None) -> "Iterator[tuple[State, Config]]":
    """Give the block the open state file, on which what it does is noted as this person's, and the configuration.

    Raises:
        ConfigError: as root, where the state file is another user's.
    """
    config = session.config()
    with session.state(config.state) as state:
        state.refuse_root()
        state.db.who, state.db.why = person(), one_line(why)
        yield state, config


def one_line(why: str | None) -> str | None:
    """Return a reason as it is kept: on one line, and without the bytes that are no text; None where it says nothing."""
    return " ".join(os.fsencode(why).decode(errors="replace").split()) or None if why is not None else None


@contextmanager
def alone(state: "State", stage: str) -> Iterator[None]:
    """Hold a stage's lock for the block.

    Raises:
        Busy: the stage is at work.
    """
    try:
        with locks.lock(state.lock_path(stage), clock.now()):
            yield
    except locks.Held as held:
        since = clock.rfc3339(held.holder.since) if held.holder else "just now"
        raise Busy(
            f"{stage} is at work (since {since}): nothing was done", hint="run this again once it has ended"
        ) from held


def person() -> str:
    """Return who is at work, as the system knows them: ``tim``, or ``root (tim)`` under sudo."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    behind = os.environ.get("SUDO_USER")
    return f"{name} ({behind})" if behind and behind != name else name


def agree(session: Session, question: str, yes: bool) -> None:
    """Ask before something is spent or deleted; go on only if it is agreed to.

    Args:
        question: what would be done: ``12 tasks are sent again, at about $0.40``.
        yes: it was agreed to beforehand (``--yes``).

    Raises:
        UsageError: it was not, and nobody is there to ask.
    """
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()) or session.json:
        raise UsageError(f"{question}: nothing was done", hint="agree to it with --yes; -n says what would be done")
    if not typer.confirm(f"{question}. Go on?", err=True):
        session.tell("nothing was done")
        raise typer.Exit


def chosen(workloads: "list[str] | None", providers: "list[str] | None") -> "tuple[Scope, list[str]]":
    """Return what is meant: workloads, or providers (``--provider``).

    Raises:
        UsageError: neither is named, or both are.
    """
    if bool(workloads) == bool(providers):
        raise UsageError("name workloads, or give --provider NAME" + (": not both" if workloads else ""))
    return ("workload", workloads) if workloads else ("provider", providers or [])


def answer(session: Session, *lines: str) -> None:
    """Print what a verb did, or would do, on standard output, with a terminal or without: somebody asked for it."""
    if not (session.json or session.quiet):
        with output():
            for line in lines:
                print(plain(scrub.clean(line)))


def told(session: Session, report: "Report", *fields: str) -> None:
    """Print the message of each entry in these fields of a report; or its JSON object. Exit with its code."""
    answer(session, *(entry["message"] for field in fields for entry in report.result[field]))
    session.finish(report)
