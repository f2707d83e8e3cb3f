"""What every command shares: the common options, the state file and lock, how a report becomes output and an exit code."""

import contextlib
import functools
import inspect
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from nura_cli import __version__, clock, config_file, logs, scrub
from nura_cli.errors import EX_UNEXPECTED, NuraError, OutputLost, StateError
from nura_cli.pipeline.report import Problem, Report, problem
from nura_cli.state import State, disk

if TYPE_CHECKING:
    from nura_cli import contract
    from nura_cli.config import Config

_COMMON = "Common options"

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="Configuration file.", rich_help_panel=_COMMON, show_default=False)
]
StateOption = Annotated[
    Path | None, typer.Option("--state", help="State file, instead of the configured one.", rich_help_panel=_COMMON)
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.", rich_help_panel=_COMMON)]
VerboseOption = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        count=True,
        help="Say what is going on; twice: each decision, and each exchange with a provider.",
        rich_help_panel=_COMMON,
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel=_COMMON)]


class Stopped(BaseException):
    """The process was told to stop (SIGINT, SIGTERM): what is committed stays, what is not is done again."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def stop_politely() -> None:
    """Turn SIGINT and SIGTERM into :class:`Stopped`, so that transactions roll back and locks are given back."""

    def stop(number: int, frame: object) -> None:
        raise Stopped(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


@dataclass(slots=True)
class Session:
    """One command's common options, and what follows from them."""

    command: str
    config_option: Path | None = None
    state_option: Path | None = None
    quiet: bool = False
    verbose: int = 0
    json: bool = False

    @property
    def terminal(self) -> bool:
        """Whether a person is looking: progress and summaries are for them; cron gets silence on success."""
        return sys.stderr.isatty() and not self.json and not self.quiet

    def config_path(self) -> Path:
        """Return the configuration file. Raises ConfigError where there is none."""
        return config_file.find(self.config_option, os.environ)

    def config(self) -> "Config":
        """Return the checked configuration. Raises ConfigError with every problem in it."""
        from nura_cli import config

        loaded = config.load(self.config_path())
        return loaded.model_copy(update={"state": self.state_option.absolute()}) if self.state_option else loaded

    def outline(self) -> "Outline":
        """Return what a command that only reads the state file needs of the configuration, right or wrong as the rest may be.

        Raises:
            ConfigError: there is none, or it is no YAML.
        """
        if self.state_option is not None and self.config_option is None:
            return Outline(self.state_option, None)
        path = self.config_path()
        document, _ = config_file.read_yaml(path)
        return Outline(self.state_option or config_file.state_path(path, document), path, document)

    @contextlib.contextmanager
    def state(self, path: Path, *, newer: bool = False) -> Iterator[State]:
        """Give the block the open state file (``newer`` as :class:`State` has it), and say what its opening could not do."""
        with State(path, newer=newer) as state:
            if state.unsaved:
                self.tell(state.unsaved)
            yield state

    def say(self, text: str) -> None:
        """Say what is going on: on a terminal, or with ``-v``."""
        if (self.terminal or self.verbose) and not self.quiet:
            self.tell(text)

    def tell(self, text: str) -> None:
        """Write a line to standard error. Where that cannot be (a log on a full disk), work and exit code are as ever.

        With ``-v`` and off a terminal it begins with the time: such lines are kept in a file.
        """
        at = f"{clock.stamp(clock.now())} " if self.verbose and not sys.stderr.isatty() else ""
        try:
            print(f"{at}nura {self.command}: {plain(scrub.clean(text))}", file=sys.stderr, flush=True)
        except OSError:
            _silence(sys.stderr)

    def finish(
        self,
        report: Report,
        *,
        skipped: "contract.Skipped | None" = None,
        printed: list[Problem] | None = None,
        code: int | None = None,
    ) -> None:
        """Print a report, and exit with its code.

        Args:
            printed: the problems to print; None for all of the report's.
            code: the exit code where it is not the report's own.
        """
        code = report.exit_code if code is None else code
        if self.json:
            with output():
                print(one_line({"command": self.command, **document(report, skipped), "exit_code": code}))
        else:
            for found in report.problems if printed is None else printed:
                self.tell(found.line)
        if code:
            raise typer.Exit(code)


def document(report: Report, skipped: "contract.Skipped | None") -> dict[str, Any]:
    """Return a report as ``--json`` gives it; ``skipped`` says why there was no run."""
    errors = [found.as_dict() for found in report.problems]
    common: contract.StageEnvelope = {"exit_code": report.exit_code, "skipped": skipped, "errors": errors}
    return {**common, **report.result}


class Outline(NamedTuple):
    """The state file, and the configuration: its file, None where only ``--state`` is given, and what stands there, unchecked."""

    state: Path
    config: Path | None
    document: Mapping[str, Any] = {}

    @property
    def workloads(self) -> list[str]:
        """The names of the configured workloads."""
        return list(self.providers)

    @property
    def providers(self) -> dict[str, str | None]:
        """The configured workloads, each with the name of its provider, None where that is none."""
        listed = self.document.get("workloads")
        found: dict[str, str | None] = {}
        for name, options in listed.items() if isinstance(listed, dict) else ():
            provider = options.get("provider") if isinstance(options, dict) else None
            found[str(name)] = provider if isinstance(provider, str) else None
        return found


@contextlib.contextmanager
def output() -> Iterator[IO[bytes]]:
    """Give the block standard output, and flush it at its end.

    Raises:
        OutputLost: it cannot be written.
    """
    try:
        with disk.on_disk("standard output"):
            yield sys.stdout.buffer
            sys.stdout.flush()
    except StateError as error:
        _silence(sys.stdout)
        raise OutputLost(error.message, hint=error.hint) from error


def _silence(stream: IO[str]) -> None:
    """Let what a stream still holds go nowhere: the interpreter would try again to write it, and give a code of its own."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def plain(text: str) -> str:
    """Return text with its control characters made visible: words of providers and models are data."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


_HARMFUL_AFTER = {
    0x7F: rb"\x7f",
    0xC2: rb"\xc2[\x80-\x9f]",
    0xD8: rb"\xd8\x9c",
    0xE2: rb"\xe2(?:\x80[\x8e\x8f\xa8-\xae]|\x81[\xa6-\xa9])",
}
"""DEL, the C1 controls, the marks, embeddings, overrides and isolates that turn the direction of text (U+061C, U+200E, U+200F,
U+202A to U+202E, U+2066 to U+2069), and the two line ends that only some readers know (U+2028, U+2029), in UTF-8, by their first byte."""
_HARMFUL = re.compile(b"|".join(_HARMFUL_AFTER.values()))
_LOOKED_FOR = [(first, re.compile(those)) for first, those in _HARMFUL_AFTER.items()]
"""Each by itself, where its first byte is there at all: which is told twenty times as fast."""


def harmless(line: bytes) -> bytes:
    """Return the same JSON document with each character escaped that a terminal, or a reader of lines, would act upon."""
    if line.isascii():
        if 0x7F not in line:
            return line
    elif not any(first in line and those.search(line) for first, those in _LOOKED_FOR):
        return line
    return _HARMFUL.sub(lambda found: b"\\u%04x" % ord(found[0].decode()), line)


def one_line(document: Mapping[str, Any]) -> str:
    """Return a document as one line of JSON that is safe to print."""
    text = json.dumps(document, ensure_ascii=False, default=str)
    return harmless(text.encode("utf-8", "backslashreplace")).decode()  # a path may hold bytes that are no text


_before: dict[str, Any] = {}


def _version(wanted: bool) -> None:
    if wanted:
        print(f"nura {__version__}")
        raise typer.Exit


def remember_common(
    config: ConfigOption = None,
    state: StateOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = 0,
    json: JsonOption = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """A spool for LLM work: records in, provider batches out, answers back. Cron chains the stages."""
    _before.clear()
    _before.update(config=config, state=state, quiet=quiet, verbose=verbose, json=json)


_COMMON_OPTIONS: Mapping[str, tuple[Any, Any]] = {
    "config": (ConfigOption, None),
    "state": (StateOption, None),
    "quiet": (QuietOption, False),
    "verbose": (VerboseOption, 0),
    "json": (JsonOption, False),
}


def with_session(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the common options (they may stand before it, too), a :class:`Session`, and an end to its errors."""
    name = function.__module__.rpartition(".")[2]
    own = inspect.signature(function, eval_str=True)
    parameters = [parameter for parameter in own.parameters.values() if parameter.name != "session"]
    common = [
        inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for option, (kind, default) in _COMMON_OPTIONS.items()
    ]

    @functools.wraps(function)
    def command(**given: Any) -> None:
        chosen = {option: given.pop(option) or _before.get(option) for option in _COMMON_OPTIONS}
        session = Session(
            name,
            chosen["config"],
            chosen["state"],
            bool(chosen["quiet"]),
            int(chosen["verbose"] or 0),
            bool(chosen["json"]),
        )
        run(session, functools.partial(function, session, **given))

    command.__signature__ = own.replace(parameters=[*parameters, *common])  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in [*parameters, *common]}
    return command


def run(session: Session, work: Callable[[], None]) -> None:
    """Do a command's work; whatever goes wrong becomes plain words, one JSON object where it was asked for, and a code."""
    from nura_cli.cli.progress import bar

    try:
        logs.show(session.verbose, os.environ)
        with bar(session):
            work()
    except (typer.Exit, Stopped):
        raise
    except BrokenPipeError:  # the reader of our output has had enough
        _silence(sys.stdout)
        raise typer.Exit from None
    except NuraError as error:
        _end(session, error)
    except Exception as error:  # noqa: BLE001 - nothing ends with a traceback that may show a secret
        known = disk.problem(error) if isinstance(error, OSError) else None
        if known is None and session.verbose:
            session.tell(traceback.format_exc())
        what = f"unexpected {type(error).__name__}: {error}"
        hint = (
            "this is a bug of nura's: please report it with this line, and with what -v adds; the same may be run again"
        )
        _end(session, known or NuraError(what, hint=hint))


def _end(session: Session, error: NuraError) -> None:
    if session.json and not isinstance(error, OutputLost):
        with contextlib.suppress(OutputLost):  # then standard error has to do
            session.finish(Report(problems=[problem(error)]))
    hint = f" ({error.hint})" if error.hint else ""
    for line in f"{error.message}{hint}".split("\n"):
        session.tell(line)
    raise typer.Exit(error.exit_code or EX_UNEXPECTED)
