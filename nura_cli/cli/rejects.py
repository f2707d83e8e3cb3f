"""``--rejects FILE``: the lines that were not taken, in a file that is none of those read or kept."""

import contextlib
import fcntl
import os
import re
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from nura_cli.errors import UsageError
from nura_cli.state.disk import on_disk, publish

if TYPE_CHECKING:
    from nura_cli.config import Config

_NAME_AT_MOST = 200
"""Bytes of a name that the name of the file beside it repeats."""
_DESCRIPTORS = 256
_DATABASE = b"SQLite format 3\0"


class Rejects:
    """Copies refused lines, as they came, to a file (0600).

    It is written beside its name and takes it once the command ends, so that what stood there is replaced whole or not at
    all. A pipe, a device, and whatever this process already has open for writing (``/dev/stderr``, a log that the shell
    appends to), is written to as it is.
    """

    def __init__(self, stack: contextlib.ExitStack, path: Path, config: "Config", sources: Iterable[Any]) -> None:
        """Prepare to write; nothing is made before a line is refused.

        Args:
            stack: what closes the file, and gives it its name.
            path: where the lines go.
            config: names the files that are read and kept.
            sources: the inputs of this command.

        Raises:
            UsageError: the name is that of a file that is read, or kept by nura; or nothing can be written there.
        """
        self._stack = stack
        self._path = path
        self._target = Path(os.path.realpath(path))
        self._ours = _open_already(path)
        self._file: IO[bytes] | None = None
        self._refuse_kept(config, sources)
        self._refuse_unfit()

    def __call__(self, source: str, number: int, line: bytes, why: str) -> None:
        """Keep a line. Raises StateError when the disk fails."""
        if self._file is None:
            self._file = self._stack.enter_context(self._opened())
        with on_disk(self._path):
            self._file.write(line + b"\n")

    @contextlib.contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        """Give the block the file: one of our own outputs by its descriptor, a pipe as it is, any other by one beside it."""
        with on_disk(self._path):  # what is left to write is written when it is closed
            if self._ours is not None:
                sys.stdout.flush()
                sys.stderr.flush()
                with open(os.dup(self._ours), "wb") as file:
                    yield file
            elif self._path.exists() and not self._path.is_file():
                with open(os.open(self._path, os.O_WRONLY | os.O_CLOEXEC), "wb") as file:
                    yield file
            else:
                with _beside(self._target) as file:
                    yield file

    def _refuse_unfit(self) -> None:
        """Say before a line is stored what would stop the first refused one."""
        folder = self._target.parent
        try:
            found: os.stat_result | None = self._path.stat()
        except FileNotFoundError:
            found = None
        except OSError as error:
            raise UsageError(f"--rejects {self._path}: {error.strerror}") from error
        if found and stat.S_ISDIR(found.st_mode):
            raise UsageError(f"--rejects {self._path}: is a folder", hint="name a file in it")
        if not folder.is_dir():
            raise UsageError(f"--rejects {self._path}: there is no folder {folder}", hint="make it, or name another")
        beside = found is None or (stat.S_ISREG(found.st_mode) and self._ours is None)
        if beside and not os.access(folder, os.W_OK | os.X_OK):
            raise UsageError(f"--rejects {self._path}: nothing can be written in {folder}", hint="name another folder")

    def _refuse_kept(self, config: "Config", sources: Iterable[Any]) -> None:
        """Refuse to write into anything that is read or kept: compared as files (device and inode), and by name."""
        found = list(_inputs(sources))
        if self._path.exists() and not self._path.is_file():  # a pipe would give back what was refused, without an end
            found = [(what, one) for what, one in found if not stat.S_ISCHR(one.st_mode)]
        else:
            self._refuse_state(config)
        inputs = (what for what, one in found if _same(self._path, one))
        kept = (what for what, file in config.files() if _is(self._target, file))
        for what in (*inputs, *kept):
            raise UsageError(f"--rejects {self._path}: is {what}, and would be overwritten", hint="give another name")

    def _refuse_state(self, config: "Config") -> None:
        """Refuse what is the state file's, and every SQLite database: ``--state`` may stand for another one of nura's."""
        if _belongs(self._target, Path(os.path.realpath(config.state))):
            raise UsageError(f"--rejects {self._path}: belongs to the state file", hint="give it a name of its own")
        with contextlib.suppress(OSError), self._target.open("rb") as file:
            if file.read(len(_DATABASE)) == _DATABASE:
                raise UsageError(f"--rejects {self._path}: is a database", hint="give another name")


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[IO[bytes]]:
    """Open a new file beside ``target``, under a name that nobody has; it takes the target's once it is written whole.

    However the block ends: lines that came through a pipe do not come again.
    """
    fd, name = tempfile.mkstemp(".part", f".{os.fsdecode(os.fsencode(target.name)[:_NAME_AT_MOST])}.", target.parent)
    file = open(fd, "wb")
    try:
        yield file
    finally:
        try:
            file.close()
            publish(Path(name), target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _open_already(path: Path) -> int | None:
    """Return the descriptor by which this process already writes to what ``path`` names, or None.

    The shell opened it, perhaps to append, and a new file under its name would lose what is written there.
    """
    for number in range(_DESCRIPTORS):
        with contextlib.suppress(OSError):  # a number that is not in use
            writes = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
            if writes and _same(path, os.fstat(number)):
                return number
    return None


def _belongs(target: Path, state: Path) -> bool:
    """Return whether a path is the state file's, or that of a file or folder beside it, or lies in one."""
    if state.parent not in target.parents:
        return False
    return bool(re.match(rf"{re.escape(state.name)}([.-]|$)", target.relative_to(state.parent).parts[0]))


def _inputs(sources: Iterable[Any]) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the open inputs of the command, each with what it is, in words."""
    for source in sources:
        stream = getattr(source, "stream", None)
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                what = "standard input" if source.name == "-" else "an input of this command"
                yield what, os.fstat(stream.fileno())


def _same(path: Path, found: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), found)
    except OSError:
        return False


def _is(target: Path, file: Path) -> bool:
    """Return whether two names are one file's, be it there or not: a database's journal is not, most of the time."""
    try:
        return target == Path(os.path.realpath(file)) or target.samefile(file)
    except OSError:
        return False
