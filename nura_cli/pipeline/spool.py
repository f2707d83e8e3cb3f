"""What lies in the spool: request files, streamed to disk, and results, fetched and checked whole.

A file is whole or not there at all.
"""

import errno
import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

import msgspec

from nura_cli.dialects import reading
from nura_cli.dialects.base import Dialect, ResultLine
from nura_cli.errors import Unreachable
from nura_cli.pipeline import aside
from nura_cli.providers.base import Provider
from nura_cli.state import State
from nura_cli.state.batches import Batch, File, Orphan
from nura_cli.state.disk import on_disk, part_of, publish

_PIECE_BYTES = 1 << 20
_READ_BYTES = 1 << 18
"""What is read at once of a file of results: with a line each time, as by default, it took twice as long."""
_AHEAD = 16
_SYNC_BYTES = 32 * 1024 * 1024


def write(target: Path, pieces: Iterable[bytes]) -> File:
    """Write a request file, piece by piece as they come, to ``target``.

    The file is written beside itself as ``.part``, synced and renamed, and its folder synced. Where there is no piece, or it
    could not be written, nothing is left.

    Raises:
        StateError: the disk is full, or fails.
    """
    with part_of(target) as part:
        with _Writer(part) as writer:
            for piece in pieces:
                writer.put(piece)
        if writer.size:
            publish(part, target)
    return File(writer.size, writer.sha.hexdigest())


class _Writer:
    """Hashes and writes in a thread of its own, while the next requests are rendered; what fails there is raised here.

    At most :data:`_AHEAD` pieces wait to be written, so that memory stays bounded. The file is synced as it grows: a last
    sync of 200 MB would be waited for.
    """

    def __init__(self, path: Path) -> None:
        self.size = 0
        self.sha = hashlib.sha256()
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._waiting: deque[Future[None]] = deque()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._thread = ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._flush()
                while self._waiting:
                    self._waiting.popleft().result()
        finally:
            self._thread.shutdown(cancel_futures=True)
            os.close(self._fd)

    def put(self, data: bytes) -> None:
        """Add bytes to the file."""
        self._buffer.append(data)
        self._buffered += len(data)
        if self._buffered >= _PIECE_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._waiting.append(self._thread.submit(self._write, b"".join(self._buffer)))
        self._buffer, self._buffered = [], 0
        while len(self._waiting) > _AHEAD:
            self._waiting.popleft().result()

    def _write(self, data: bytes) -> None:
        """Write bytes and take them into the hash; now and then have them on the disk, so that the last sync is short."""
        self.sha.update(data)
        left = memoryview(data)
        while left:
            left = left[os.write(self._fd, left) :]
        before, self.size = self.size, self.size + len(data)
        if self.size // _SYNC_BYTES > before // _SYNC_BYTES:
            os.fdatasync(self._fd)


def sweep(folder: Path, keep: set[str]) -> int:
    """Delete every file of a spool folder that is not named in ``keep``; return how many went."""
    gone = 0
    for path in folder.iterdir():
        if path.name not in keep:
            path.unlink(missing_ok=True)
            gone += 1
    return gone


def result_file(state: State, batch: Batch, part: str) -> Path:
    """Return where a part of a batch's results lies in the spool."""
    return state.results / result_name(batch, part)


def result_name(batch: Batch, part: str) -> str:
    """Return how the file of a part of a batch's results is named in the spool."""
    return f"{batch.tag}.{part}.jsonl"


def fetch(state: State, provider: Provider, part_id: str, target: Path) -> File:
    """Download one part whole to ``target``: through a ``.part`` file, checked, synced, renamed, the folder synced. Lines that are
    too long are set aside.

    Whole means: as long as was announced; where no length was announced, a second download has to give the same lines, be it in
    another order, and its last line must not be cut. A line of it that cannot be read does not make it less whole; a page of HTML is no results.

    Raises:
        Unreachable: it came short, or is something else; the next run tries again.
        NotFound: the provider no longer has it.
        StateError: there is no room for it on the disk, or the disk fails.
    """
    with part_of(target) as part:
        got = provider.download(part_id, part)
        if got.announced is None:
            with part_of(part) as again:
                second = provider.download(part_id, again)
                same = second.sha256 == got.sha256 or all_lines(part) == all_lines(again)
            if not same:
                raise _unusable(part_id, "two downloads of it differ")
            if not ends_whole(part):
                raise _unusable(part_id, "its last line is cut")
        elif got.bytes != got.announced:
            raise _unusable(part_id, f"{got.bytes:,} of {got.announced:,} bytes came")
        if not has_lines(part):
            raise _unusable(part_id, "what came are no results")
        with part.open("rb") as file:
            if long := aside.too_long(file):
                rest = target.with_name(target.name + ".rest")
                written = write(rest, _apart(file, long, state.aside / target.stem))
                publish(rest, target)
                return written
        publish(part, target)
    return File(got.bytes, got.sha256)


def _apart(file: BinaryIO, long: Sequence[aside.Long], kept: Path) -> Iterator[bytes]:
    """Yield a file with each result of lines that are too long on a line of its own: where it is too long itself, a note; it is
    kept in a file of its own first.
    """
    at = 0
    for line in long:
        yield from aside.pieces(file, at, line.start)
        for result in aside.results(file, line):
            if result.end - result.start <= aside.MOST_BYTES:
                yield from aside.pieces(file, result.start, result.end)
                yield b"\n"
                continue
            own = kept.with_name(f"{kept.name}.{aside.named(file, result)}.json")
            if not own.is_file():  # it has its name once it is whole
                write(own, aside.pieces(file, result.start, result.end))
            yield aside.note(file, result, own)
        at = line.end + 1
    yield from aside.pieces(file, at, max(at, file.seek(0, os.SEEK_END)))


def _unusable(part_id: str, why: str) -> Unreachable:
    return Unreachable(f"{part_id}: {why}; it is fetched again by the next run", part=part_id)


def all_lines(path: Path) -> tuple[int, int]:
    """Return what two files of the same results have alike, in whatever order they come: how many, and the sum of their hashes."""
    n = total = 0
    with path.open("rb") as file:
        for line in rows(file):
            if found := reading.bare(line):
                n += 1
                total += int.from_bytes(hashlib.sha256(found).digest())
    return n, total


_TAIL = 1 << 16


def ends_whole(path: Path) -> bool:
    """Return whether the last line of a file is not cut: it has its line end, or can be read (an empty file is whole)."""
    with path.open("rb") as file:
        tail, line = _last_line(file)
    if tail.endswith(b"\n") or not line:
        return True
    if len(line) > aside.MOST_BYTES:
        return line.endswith((b"}", b"]"))
    try:
        msgspec.json.decode(line, type=msgspec.Raw)
    except RecursionError:  # nested too deeply to be an answer: as whole as can be told
        return True
    except msgspec.MsgspecError:
        return all(reading.is_json(row) for row in reading.rows(line))
    return True


def has_lines(path: Path) -> bool:
    """Return whether a file is empty, or its first or its last line may be one of results: it looks like an object of JSON."""
    with path.open("rb") as file:
        blank, first = True, b""
        while not reading.beginning(first) and (first := file.readline(_TAIL)):
            blank = blank and not reading.beginning(first)
        last = _last_line(file)[1]
    return blank or any(reading.beginning(line).startswith(b"{") or b'"custom_id"' in line for line in (first, last))


def rows(file: BinaryIO) -> Iterator[bytes]:
    """Yield the results of a file, split on ``\\n`` only: mostly its lines; each of several that stand in one line."""
    while line := file.readline(_LINE_BYTES):
        if line.count(_NAMES) == 1:
            yield line
        else:
            yield from reading.rows(line)


_LINE_BYTES = aside.MOST_BYTES + 2
_NAMES = b'"custom_id"'


def _last_line(file: BinaryIO) -> tuple[bytes, bytes]:
    """Return the end of a file, and its last line that is not blank; of one that is too long its end."""
    size = file.seek(0, 2)
    length = _TAIL
    while True:
        file.seek(max(0, size - length))
        tail = file.read()
        lines = tail.rstrip(b" \r\n")
        if b"\n" in lines or length >= size or length > aside.MOST_BYTES + _TAIL:
            return tail, reading.bare(lines.rpartition(b"\n")[2])
        length = min(4 * length, aside.MOST_BYTES + 2 * _TAIL)


def intact(path: Path, expected: File) -> bool:
    """Return whether a spool file is still what was downloaded: its length and sha256. One the disk cannot read is not.

    Raises:
        StateError: it may not be read, or the disk does not say.
    """
    with on_disk(path):
        if not path.is_file() or path.stat().st_size != expected.bytes:
            return False
        try:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == expected.sha256
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return False


@contextmanager
def opened(state: State, path: Path) -> Iterator[BinaryIO]:
    """Open a spool file whose lines are to be read.

    One that an earlier release left may have lines that are too long. They are set aside as in :func:`fetch`, and a copy without a
    name is read: the file stays what was downloaded, which the provider may no longer have, however often a run is killed here.

    Raises:
        StateError: an ``OSError`` in the block; or there is no room for the copy.
    """
    with on_disk(path), path.open("rb", _READ_BYTES) as file:
        long = aside.too_long(file) if os.fstat(file.fileno()).st_size > aside.MOST_BYTES else []
        if not long:
            file.seek(0)
            yield file
            return
        with TemporaryFile(dir=path.parent) as copy:
            copy.writelines(_apart(file, long, state.aside / path.stem))
            copy.seek(0)
            yield copy


def orphan_file(state: State, orphan: Orphan, part: str) -> Path:
    """Return where a part of an orphan's results lies in the spool."""
    return state.results / orphan_name(orphan, part)


def orphan_name(orphan: Orphan, part: str) -> str:
    """Return how the file of a part of an orphan's results is named in the spool."""
    return f"stray-{hashlib.sha256(orphan.remote_id.encode()).hexdigest()[:20]}.{part}.jsonl"


class Lines(NamedTuple):
    """What result files hold of a batch's own lines.

    Attributes:
        tasks: the tasks that have a line.
        answered: those whose line is an answer, by what the vendor counts as completed.
        others: lines that are not this batch's, or that cannot be read.
        nameless: those of them that are set aside, and may be answers to any of its requests.
    """

    tasks: frozenset[int]
    answered: frozenset[int]
    others: int
    nameless: int = 0

    def plus(self, more: "Lines", *, all_answers: bool) -> "Lines":
        """Return these lines and those of another file.

        Args:
            all_answers: whether that file holds only what the vendor counts as completed.
        """
        answered = more.tasks if all_answers else more.answered
        others, nameless = self.others + more.others, self.nameless + more.nameless
        return Lines(self.tasks | more.tasks, self.answered | answered, others, nameless)


def lines_of(path: Path, dialect: Dialect, tag: str) -> Lines:
    """Read whose lines a result file holds; a custom_id counts where it belongs to the line itself."""
    tasks, answered, others, nameless = set(), set(), 0, 0
    with on_disk(path), path.open("rb", _READ_BYTES) as file:
        for line in rows(file):
            try:
                found = read_line(line, dialect, tag)
            except ValueError as error:
                others += 1
                nameless += isinstance(error, aside.Nameless)
                continue
            if found is None:
                continue
            if found.task_id is None:
                others += 1
                continue
            tasks.add(found.task_id)
            if found.result.error is None or found.result.final:
                answered.add(found.task_id)
    return Lines(frozenset(tasks), frozenset(answered), others, nameless)


class Found(NamedTuple):
    """A line of results, and the task of the batch that it is about, by its custom_id; None where that is not ours."""

    task_id: int | None
    result: ResultLine


def read_line(line: bytes, dialect: Dialect, tag: str) -> Found | None:
    """Return what a line of a result file says, None where it is blank; one that cannot be read is ours if it bears our tag.

    Args:
        tag: of the batch.

    Raises:
        ValueError: it cannot be read, and is not known to be ours.
    """
    line = reading.bare(line)
    if not line:
        return None
    try:
        if note := aside.noted(line):
            raise note
        result = dialect.result(line)
    except reading.Illegible as error:
        ours = [name for name in error.custom_ids if _task_of(name, tag) is not None]
        if len(ours) != 1:
            raise
        result = aside.of(error, ours[0]) if isinstance(error, aside.Nameless) else error.of(ours[0])
    return Found(_task_of(result.custom_id, tag), result)


def _task_of(custom_id: str, tag: str) -> int | None:
    """Return the task that a custom_id of a batch names, or None where it is not of this batch."""
    name, dash, number = custom_id.strip().rpartition("-")
    ours = name == tag and dash and number.isascii() and number.isdigit() and len(number) <= 18
    return int(number) if ours else None


def claimed(completed: int | None, lines: Lines, requests: int) -> int:
    """Return how many answers a provider counts that its files lack.

    What it counts as completed is compared with the file that holds that, and only where a request has no line at all: a
    service that counts those that failed, too, has lines for them. Lines that are set aside, and name nobody, are answers too.
    """
    missing = requests - len(lines.tasks)
    return max(0, min(missing, max((completed or 0) - len(lines.answered), lines.nameless)))
