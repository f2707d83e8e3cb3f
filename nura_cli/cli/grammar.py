"""Which tasks are meant: the options that results, show and the operators' verbs have in common, and what they say."""

import functools
import inspect
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from nura_cli import clock
from nura_cli.errors import InputError, UsageError
from nura_cli.pipeline.report import Problem, problem
from nura_cli.state import selection
from nura_cli.state.selection import Selection
from nura_cli.states import ErrorKind, TaskStatus

if TYPE_CHECKING:
    from nura_cli.config import Config
    from nura_cli.state import State

_PANEL = "Which tasks"
_OPTIONS: dict[str, tuple[Any, Any]] = {
    "workloads": (
        Annotated[list[str] | None, typer.Argument(help="Only these.", show_default="all")],
        None,
    ),
    "statuses": (
        Annotated[
            list[TaskStatus] | None,
            typer.Option(
                "--status",
                help=f"In this state ({', '.join(TaskStatus)}); may be given more than once.",
                rich_help_panel=_PANEL,
                show_default=False,
            ),
        ],
        None,
    ),
    "keys": (
        Annotated[
            list[str] | None,
            typer.Option(
                "--key",
                help="With this key, a composite one as a JSON array; may be given more than once.",
                rich_help_panel=_PANEL,
                show_default=False,
            ),
        ],
        None,
    ),
    "keys_from": (
        Annotated[
            Path | None,
            typer.Option(
                help="With a key of this file, or of standard input (-): one a line, or objects with a key.",
                rich_help_panel=_PANEL,
                show_default=False,
            ),
        ],
        None,
    ),
    "batch": (
        Annotated[
            int | None, typer.Option(help="Of this batch.", rich_help_panel=_PANEL, show_default=False, metavar="ID")
        ],
        None,
    ),
    "error": (
        Annotated[
            str | None,
            typer.Option(
                help="Failed for this kind of error, and with this code.",
                rich_help_panel=_PANEL,
                show_default=False,
                metavar="KIND[:CODE]",
            ),
        ],
        None,
    ),
    "since": (
        Annotated[
            str | None,
            typer.Option(
                help="Settled since then, or enqueued, of what waits: a time, or how long ago, such as 2h.",
                rich_help_panel=_PANEL,
                show_default=False,
            ),
        ],
        None,
    ),
    "until": (
        Annotated[str | None, typer.Option(help="… and before then.", rich_help_panel=_PANEL, show_default=False)],
        None,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the options of the grammar say, as they were given."""

    workloads: list[str]
    statuses: list[TaskStatus]
    keys: list[str]
    keys_from: Path | None
    batch: int | None
    error: str | None
    since: str | None
    until: str | None

    @property
    def narrowed(self) -> bool:
        """Whether a workload, a batch or keys are named: without one of these nothing is changed."""
        return bool(self.workloads or self.keys or self.keys_from) or self.batch is not None

    @property
    def anything(self) -> bool:
        """Whether any option is given: without one, all tasks are meant."""
        return any(value or value == 0 for value in vars(self).values())

    @property
    def keys_alone(self) -> bool:
        """Whether keys are named, and nothing that an answer of one of them might not fit."""
        fits = (self.statuses, self.error, self.since, self.until)
        return bool(self.keys or self.keys_from) and not any(fits) and self.batch is None

    def selection(self, state: "State", config: "Config") -> Selection:
        """Return the tasks that are meant, but for those that ``--keys-from`` names.

        Raises:
            UsageError: an option says nothing sensible, or a workload or key is not known.
        """
        from nura_cli.pipeline.results import check_known

        check_known(state, config, self.workloads)
        kind, code = _error(self.error)
        keys = [identity(key) for key in self.keys]
        for found in selection.unknown(state.db, self.workloads, keys):
            raise UsageError(_unknown(found))
        return Selection(
            workloads=self.workloads,
            statuses=self.statuses,
            keys=keys or None,
            batch_id=self.batch,
            kind=kind,
            code=code,
            since=moment("--since", self.since),
            until=moment("--until", self.until),
        )

    def parts(self, state: "State", config: "Config", problems: list[Problem]) -> Iterator[Selection]:
        """Yield the tasks that are meant, in parts where ``--keys-from`` names many.

        Args:
            problems: takes a problem for each line of that file that names no key.

        Raises:
            UsageError: as :meth:`selection`; or the file cannot be read.
        """
        chosen = self.selection(state, config)
        if self.keys_from is None:
            yield chosen
            return
        named, every = list(chosen.keys or ()), _lines(self.keys_from)
        while (lines := list(islice(every, selection.CHUNK))) or named:
            found = {}
            for line in lines:
                if isinstance(line, InputError):
                    problems.append(problem(line))
                else:
                    found[line.identity] = line.place
            for unknown in selection.unknown(state.db, self.workloads, list(found)):
                problems.append(problem(InputError(f"{found.pop(unknown.key)}: {_unknown(unknown)}")))
            yield chosen._replace(keys=[*named, *found])
            named = []


def with_keys(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command what of the grammar names keys, as :func:`with_grammar` gives it all of it."""
    return _with(function, ("workloads", "keys", "keys_from"))


def with_grammar(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of the grammar, in the place of its parameter ``asked``.

    One that it has itself, under the same name, is its own: it decides what that means, and ``asked`` does not have it.
    """
    return _with(function, tuple(_OPTIONS))


def _with(function: Callable[..., None], names: tuple[str, ...]) -> Callable[..., None]:
    own = inspect.signature(function, eval_str=True)
    options = {name: option for name, option in _OPTIONS.items() if name in names and name not in own.parameters}
    grammar = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in options.items()
    ]
    rest = [one for one in own.parameters.values() if one.name != "asked"]

    @functools.wraps(function)
    def command(session: Any, **given: Any) -> None:
        asked: dict[str, Any] = {name: given.pop(name) if name in options else None for name in _OPTIONS}
        lists = {name: asked[name] or [] for name in ("workloads", "statuses", "keys")}
        function(session, asked=Asked(**{**asked, **lists}), **given)

    command.__signature__ = own.replace(  # type: ignore[attr-defined]
        parameters=[rest[0], *grammar, *(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in rest[1:])]
    )
    return command


class _Line(NamedTuple):
    """A key out of a file, in its text form, and where it stood."""

    identity: str
    place: str


def _lines(path: Path) -> Iterator[_Line | InputError]:
    with ExitStack() as stack:
        if str(path) == "-":
            file: IO[str] = sys.stdin
        else:
            try:
                file = stack.enter_context(path.open(encoding="utf-8", errors="surrogateescape"))
            except OSError as error:
                raise UsageError(f"--keys-from {path}: {error.strerror}") from error
        for number, line in enumerate(file, 1):
            place = f"line {number}" if str(path) == "-" else f"{path}, line {number}"
            if text := line.strip():
                try:
                    yield _Line(_key_of(text), place)
                except (ValueError, InputError) as error:
                    yield InputError(f"{place}: {error}")


def _key_of(text: str) -> str:
    """Return the key, in its text form, of one line: a key as ``--key`` takes it, or an object with one."""
    from nura_cli.pipeline.lines import key_of

    if text.startswith("{"):
        document = json.loads(text)
        if "key" not in document:
            raise InputError("the object has no key")
        return key_of(document["key"]).identity
    return key_of(json.loads(text) if text[:1] in ("[", '"') else text).identity


def identity(key: str) -> str:
    """Return a key as ``--key`` takes it in its text form. Raises UsageError: it is none."""
    try:
        return _key_of(key)
    except (ValueError, InputError) as error:
        raise UsageError(f"--key {key}: {error}") from error


def _unknown(found: selection.Unknown) -> str:
    from nura_cli.pipeline.lines import shown

    near = f"; beside it there are {', '.join(map(shown, found.near))}" if found.near else ""
    return f"key {shown(found.key)}: no such key{near}"


def _error(text: str | None) -> tuple[str | None, str | None]:
    if text is None:
        return None, None
    kind, _, code = text.partition(":")
    if kind not in list(ErrorKind):
        raise UsageError(f"--error {text}: {kind!r} is not one of {', '.join(ErrorKind)}")
    return kind, code or None


def moment(option: str, text: str | None) -> int | None:
    """Return the unix second of a time or date, or of how long ago it was, such as ``2h``; None where it is not given.

    Raises:
        UsageError: it is none of these; says so of the option.
    """
    return None if text is None else _time(option, text, -1)


def to_come(option: str, text: str | None) -> int | None:
    """Return the unix second that an option gives: a time or date, or in how long, such as ``2h``; None where it is not given.

    Raises:
        UsageError: it is neither, or past, or after all calendars.
    """
    if text is None:
        return None
    at = _time(option, text, 1)
    if at <= clock.now():
        raise UsageError(f"{option} {text}: is past ({clock.rfc3339(at) or 'long ago'})")
    if clock.rfc3339(at) is None:
        raise UsageError(f"{option} {text}: is further away than any calendar reaches")
    return at


def _time(option: str, text: str, direction: int) -> int:
    """Return the unix second of a time or date, or of a length of time from now on (1) or before (-1). Raises UsageError."""
    from nura_cli.config_file import duration

    try:
        return clock.now() + direction * int(duration(text)) if text[-1:] in "smhd" else clock.parse(text)
    except ValueError as error:
        message = f"{option} {text}: neither a time such as 2026-01-02T03:04:05Z nor a length of time such as 2h"
        raise UsageError(message) from error
