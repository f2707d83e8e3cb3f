"""nura enqueue."""

import contextlib
import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nura_cli import clock
from nura_cli.cli.session import Session, harmless, output, with_session
from nura_cli.errors import EX_PARTIAL, InputError, UsageError
from nura_cli.state.disk import on_disk, publish

if TYPE_CHECKING:
    from nura_cli.config import Config


@with_session
def command(
    session: Session,
    workload: Annotated[str, typer.Argument(help="A workload of the configuration.", show_default=False)],
    files: Annotated[
        list[Path] | None, typer.Argument(help="JSON Lines; - or nothing for standard input.", show_default=False)
    ] = None,
    source: Annotated[
        bool, typer.Option("--from-source", help="Read the records by the workload's own source: a query.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="A key enqueued with other content gets the new one.")
    ] = False,
    key_prefix: Annotated[
        str, typer.Option(help="Put before each key, for hand-numbered files.", show_default=False)
    ] = "",
    rejects: Annotated[
        Path | None, typer.Option(help="Copy the lines that are not taken to this file.", show_default=False)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Print the requests the lines would become; store nothing.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="With --dry-run: how many lines.")] = 10,
) -> None:
    """Put records (or ready request lines) into the spool."""
    from nura_cli.pipeline import enqueue
    from nura_cli.providers import dialect as dialect_of
    from nura_cli.state import State

    config = session.config()
    chosen = config.workload(workload)
    dialect = dialect_of(config.providers[chosen.provider].dialect)
    with contextlib.ExitStack() as stack:
        if source and files:
            raise UsageError("--from-source goes without files")
        sources = _sources(stack, chosen, config, files, source)
        if dry_run:
            _preview(session, chosen, dialect, sources, limit, key_prefix)
            return
        keep = _Rejects(stack, rejects, config, sources) if rejects else None
        with State(config.state) as state:
            report = enqueue.run(
                state, chosen, dialect, sources, clock.now, replace=replace, key_prefix=key_prefix, rejects=keep
            )
    counts = report.result
    session.say(", ".join(f"{n:,} {name}" for name, n in counts.items() if n or name == "enqueued"))
    session.finish(report)


def _sources(
    stack: contextlib.ExitStack, workload: Any, config: "Config", files: list[Path] | None, source: bool
) -> list[Any]:
    from nura_cli.pipeline import enqueue

    if source:
        return [enqueue.from_source(workload, config)]
    return [_source(stack, file) for file in files or [Path("-")]]


def _source(stack: contextlib.ExitStack, file: Path) -> Any:
    from nura_cli.pipeline.enqueue import Source

    if str(file) == "-":
        if sys.stdin is None or sys.stdin.closed:
            raise UsageError("standard input is closed", hint="name a file, or pipe records in")
        return Source("-", sys.stdin.buffer)
    try:
        return Source(str(file), stack.enter_context(file.open("rb")))
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error


class _Rejects:
    """Copies refused lines, as they came, to a file (0600).

    It is written beside its name and takes it once the command ends, so that what stood there is replaced whole or not at
    all. A pipe or a device is written to as it is.
    """

    def __init__(self, stack: contextlib.ExitStack, path: Path, config: "Config", sources: list[Any]) -> None:
        """Prepare to write; nothing is made before a line is refused.

        Raises:
            UsageError: the name is that of a file that is read, or kept by nura.
        """
        self._stack = stack
        self._path = path
        self._file: Any = None
        _refuse_kept(path, config, sources)

    def __call__(self, source: str, number: int, line: bytes, why: str) -> None:
        if self._file is None:
            self._file = self._stack.enter_context(self._opened())
        with on_disk(self._path):
            self._file.write(line + b"\n")

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        target = Path(os.path.realpath(self._path))
        with on_disk(self._path):  # what is left to write is written when it is closed
            if self._path.exists() and not self._path.is_file():
                with open(_made(self._path, self._path, os.O_WRONLY), "wb") as file:
                    yield file
                return
            part = target.with_name(f"{target.name}.part")
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
            try:
                with open(_made(self._path, part, flags), "wb") as file:
                    yield file
            finally:
                publish(part, target)


def _made(named: Path, path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(f"--rejects {named}: {error.strerror}") from error


def _refuse_kept(path: Path, config: "Config", sources: list[Any]) -> None:
    """Refuse to write over anything that is read or kept: compared as files (device and inode), not by name."""
    target = Path(os.path.realpath(path))
    state = Path(os.path.realpath(config.state))
    spool = state.with_name(f"{state.name}.spool")
    if (
        target.parent == state.parent and re.match(rf"{re.escape(state.name)}([.-]|$)", target.name)
    ) or spool in target.parents:
        raise UsageError(f"--rejects {path}: belongs to the state file", hint="give it a name of its own")
    for name in (target, target.with_name(f"{target.name}.part")):
        try:
            found = name.stat()
        except OSError:
            continue
        if not stat.S_ISREG(found.st_mode):
            continue
        for read, identity in _identities(config, sources):
            if identity == (found.st_dev, found.st_ino):
                raise UsageError(f"--rejects {path}: is {read}, and would be overwritten", hint="give another name")


def _identities(config: "Config", sources: list[Any]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield what is read or kept: what it is, in words, and its device and inode."""
    for source in sources:
        stream = getattr(source, "stream", None)
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                found = os.fstat(stream.fileno())
                yield (
                    "standard input" if source.name == "-" else "an input of this command",
                    (found.st_dev, found.st_ino),
                )
    for what, file in config.files():
        with contextlib.suppress(OSError):
            found = file.stat()
            yield what, (found.st_dev, found.st_ino)


def _preview(session: Session, workload: Any, dialect: Any, sources: list[Any], limit: int, prefix: str) -> None:
    from nura_cli.pipeline import enqueue
    from nura_cli.pipeline.render import spec_of

    shown: list[str] = []
    failed = []
    for request in enqueue.preview(workload, spec_of(workload, dialect), dialect, sources, limit, prefix):
        if isinstance(request, InputError):
            failed.append(request)
            session.tell(request.message)
        elif session.json:
            shown.append(request.decode())
        else:
            with output() as out:
                out.write(harmless(request) + b"\n")
    if session.json:
        from nura_cli.pipeline.report import Report, trouble

        requests = [json.loads(text) for text in shown]
        session.finish(Report({"requests": requests}, [trouble(error) for error in failed], worked=True))
    if failed:
        raise typer.Exit(EX_PARTIAL)
