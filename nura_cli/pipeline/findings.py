"""What ``nura check`` finds: one line each, and the error that a failure is."""

import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from nura_cli.config import Config
from nura_cli.errors import ConfigError, NuraError
from nura_cli.pipeline.report import Problem, problem

if TYPE_CHECKING:
    from nura_cli import contract

Level = Literal["ok", "warn", "fail"]


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        part: what it belongs to: ``workload echo``.
        message, hint: what is said of it, and the next step.
        problem: what it is to a report, where it fails.
        where: the option that it is about, as a dotted path, where the message does not say so itself.
    """

    level: Level
    part: str
    message: str
    hint: str | None = None
    problem: Problem | None = None
    where: str | None = None

    def as_dict(self) -> "contract.Check":
        """Return the entry of ``checks`` in ``--json``."""
        return {"level": self.level, "part": self.part, "message": self.message, "hint": self.hint}


def ok(part: str, message: str) -> Finding:
    """Return what is in order."""
    return Finding("ok", part, message)


def warn(part: str, message: str, hint: str | None = None, where: str | None = None) -> Finding:
    """Return what may be trouble."""
    return Finding("warn", part, message, hint, where=where)


def fail(part: str, error: NuraError, where: str | None = None) -> Iterator[Finding]:
    """Yield what a stage would stop at; each problem of a configuration's by itself.

    Args:
        where: the option that an error is about which names none.
    """
    problems = error.problems if isinstance(error, ConfigError) else ()
    path = error.path if isinstance(error, ConfigError) else None
    if len(problems) == 1 and path is None and problems[0].line is not None:  # whose message has it all
        problems = ()
    for one in problems:
        alone = ConfigError(one.message, hint=error.hint, workload=error.workload)
        if path is None:
            yield _failed(part, alone, one.where)
        else:
            alone = ConfigError(f"{path}:{one.line or 1}: {one.where}: {one.message}", workload=error.workload)
            yield _failed(part, alone, None)
    if not problems:
        yield _failed(part, error, where if isinstance(error, ConfigError) else None)


def _failed(part: str, error: NuraError, where: str | None) -> Finding:
    found = problem(error)
    return Finding("fail", part, " ".join(found.message.split()), found.hint, found, where)


def placed(found: Finding, config: Config) -> Finding:
    """Return a finding that says which file and line its option stands in."""
    if found.where is None:
        return found
    message = f"{config.path}:{config.line(found.where) or 1}: {found.where}: {found.message}"
    told = None if found.problem is None else replace(found.problem, message=message)
    return found._replace(message=message, problem=told, where=None)


def open_to_others(part: str, what: str, file: Path | None) -> Iterator[Finding]:
    """Yield a warning where others than its owner may read a file that holds a secret."""
    try:
        mode = 0 if file is None else file.stat().st_mode
    except OSError:
        return
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield warn(part, f"{what} {file}: others may read it (mode {stat.S_IMODE(mode):04o})", f"chmod 600 {file}")
