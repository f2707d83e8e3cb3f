"""nura enqueue: records in, tasks in the state file.

Takes JSON Lines, or CSV: records for a workload with a prompt (its ``key`` field names each), or ready lines of its provider's
kind for one without. Leaves one pending task for each new key; the record is kept as it came, the prompt is rendered
when it is sent. A line that was there already, however it was written, is a duplicate, whatever became of it; the same key
with other content is a conflict, unless ``--replace``. A key that was cancelled may be enqueued again with any line, but not out of the workload's
own source, which gives the same rows night after night. A bad line is rejected with its number, and the good ones still go
in.

What can go wrong: an interrupted run is simply run again, since what is in already counts as duplicates. It takes no
stage lock, and commits often, so that other stages get their turn.
"""

import hashlib
import json
import os
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, TypeVar

import msgspec

from nura_cli import contract, progress
from nura_cli.config import Config, WorkloadConfig, prompt_text
from nura_cli.dialects.base import Dialect, Spec
from nura_cli.errors import EX_OK, EX_PARTIAL, ConfigError, InputError, ProblemKind, UsageError
from nura_cli.pipeline import csv_in, lines, sameness
from nura_cli.pipeline.guess import Command, binary, guess
from nura_cli.pipeline.keys import Keys
from nura_cli.pipeline.lines import Line
from nura_cli.pipeline.needs import Needs
from nura_cli.pipeline.numbers import record_of
from nura_cli.pipeline.render import compiled
from nura_cli.pipeline.report import Problem, Report, counted
from nura_cli.pipeline.unpack import Damaged, Unpacked, unpacked
from nura_cli.state import Connection, State, keys, purges, tasks
from nura_cli.state.disk import on_disk
from nura_cli.states import TaskStatus

if TYPE_CHECKING:
    from nura_cli.delivery.source import Unread

CHUNK_LINES = 10_000
CHUNK_BYTES = 8 * 1024 * 1024
_TELL_LINES = 500
MOST_PRINTED = 20
"""Rejected lines that are reported one by one; ``--rejects`` gets them all."""


Made = TypeVar("Made")
Lines = Generator[lines.Line, None, None]
"""Lines of an input; whoever stops half-way closes them, and with them what they come from."""
Parts = Generator[lines.Block | lines.Line, None, None]
Idle = Callable[[], None]


def _nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True)
class Source:
    """One input: a name for messages (a file name, or ``-``), a stream of bytes, for hints the workload's name, and whether
    it is CSV and not JSON Lines.
    """

    name: str
    stream: BinaryIO
    workload: str = "WORKLOAD"
    csv: bool = False
    lasting: ClassVar[bool] = False

    def lines(self, limit: int, idle: Idle = _nothing) -> Lines:
        """Yield its lines, none longer than ``limit`` bytes. Raises StateError: it cannot be read.

        Args:
            idle: called where the next bytes let themselves be waited for, once a second at most.
        """
        with closing(self.parts(limit, idle)) as parts:
            for part in parts:
                yield from lines.each(part, limit)

    def parts(self, limit: int, idle: Idle = _nothing) -> Parts:
        """Yield the same lines, those of JSON Lines as they come: many together, and unread."""
        with on_disk("standard input" if self.name == "-" else self.name):
            given = unpacked(self.stream, idle)
            why = self._unfit(given)
            number = 0
            try:
                if why is not None:
                    for line in lines.split(given.stream, limit):
                        number = line.number
                        yield lines.Line(number, line.data, why, whole=True)
                    return
                for part in (csv_in.split if self.csv else lines.blocks)(given.stream, limit):
                    number = lines.last(part)
                    yield part
            except Damaged as error:
                yield lines.Line(number + 1, b"", f"compressed data: {error}; the lines before are taken")

    @property
    def size(self) -> int | None:
        """How many bytes a file has; None of what is none."""
        try:
            return os.fstat(self.stream.fileno()).st_size if self.stream.seekable() else None
        except OSError:
            return None

    @property
    def piped(self) -> bool:
        """Whether it is a pipe or a terminal: of what it gives nobody can tell where it should have ended."""
        return not self.stream.seekable()

    def _unfit(self, given: Unpacked) -> str | None:
        """Return why nothing of the input can be used, and what to type; None where it looks as it should."""
        workload = f"--csv {self.workload}" if self.csv else self.workload
        command = Command(self.name, workload, *filter(None, (given.tool,)))
        return binary(given.head, command, "CSV") if self.csv else guess(given.head, command)

    def place(self, line: Line) -> str:
        """Return where a line stands, in words."""
        if line.whole:
            return "standard input" if self.name == "-" else self.name
        return f"line {line.number}" if self.name == "-" else f"{self.name}, line {line.number}"


@dataclass(frozen=True, slots=True)
class Rows:
    """Records out of a database: each is one JSON document on one line, without its line end, or cannot be read.

    What is wrong with one lasts: the same query gives it again.
    """

    name: str
    rows: Generator["bytes | Unread", None, None]
    keys: Keys
    lasting: ClassVar[bool] = True

    def lines(self, limit: int, idle: Idle = _nothing) -> Lines:
        """Yield its records, none longer than ``limit`` bytes."""
        with closing(self.rows):
            for number, row in enumerate(self.rows, 1):
                if isinstance(row, bytes):
                    yield lines.bounded(number, row, limit)
                else:
                    yield lines.Line(number, row.line, row.why)

    def place(self, line: Line) -> str:
        """Return which row a line is, by its key where that can be read, and the column that makes it no record."""
        record, bad = _fields(line.data)
        column = f", column {bad[0]}" if bad else ""
        try:
            return f"{self.name}, key {self.keys.of(record).json}{column}"
        except InputError:
            return f"{self.name}, row {line.number}{column}"


def _fields(line: bytes) -> tuple[dict[str, Any], list[str]]:
    """Return what of a record can be read, field by field, and the names of the fields that cannot."""
    good, bad = {}, []
    try:
        fields = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}, []
    for name, raw in fields.items():
        try:
            good[name] = lines.document(bytes(raw))
        except InputError:
            bad.append(name)
    return good, bad


@dataclass(frozen=True, slots=True)
class Objects:
    """Records that are Python's own mappings."""

    name: str
    records: Iterable[Mapping[str, Any]]
    lasting: ClassVar[bool] = False

    def lines(self, limit: int, idle: Idle = _nothing) -> Lines:
        """Yield its records as JSON, none longer than ``limit`` bytes.

        Raises:
            GiverFailed: whatever the records' own iterator raised; it is no failure of the state file.
        """
        for number, record in enumerate(self._given(), 1):
            try:
                yield lines.bounded(number, _as_json(record), limit)
            except (TypeError, ValueError, OverflowError, RecursionError) as error:
                yield lines.Line(number, b"", f"has no form in JSON: {error}")

    def place(self, line: Line) -> str:
        """Return where a record stands, in words."""
        return f"record {line.number}"

    def _given(self) -> Iterator[Mapping[str, Any]]:
        try:
            yield from self.records
        except Exception as error:
            raise GiverFailed(error) from error


def records_of(given: Any) -> Iterable[Mapping[str, Any]]:
    """Return the records that are given: one mapping is one. Raises UsageError: these are none."""
    if isinstance(given, Mapping):
        return [given]
    kind = type(given).__name__
    if hasattr(given, "columns") and hasattr(given, "shape"):  # iterating over a table gives the names of its columns
        rows = 'table.to_dict("records") in pandas, table.to_dicts() in polars'
        raise UsageError(f"records are mappings, and a {kind} is a whole table", hint=f"give {rows}")
    if (
        isinstance(given, str | bytes | bytearray | os.PathLike)
        or not isinstance(given, Iterable)
        or hasattr(given, "read")
    ):
        hint = "give an iterable of dicts; a file goes through the command: nura enqueue WORKLOAD FILE"
        raise UsageError(f"records are mappings, and a {kind} is none", hint=hint)
    return given


def _as_json(record: Any) -> bytes:
    """Return a record as one line. Raises TypeError, ValueError: it has no form; says which field it is about."""
    if isinstance(record, dict):
        try:
            return json.dumps(record, allow_nan=False).encode()
        except (TypeError, ValueError):
            pass  # it holds more than JSON's own kinds: a decimal, a date
    from nura_cli.delivery.forms import encode, plain

    if not isinstance(record, Mapping):
        if not callable(getattr(record, "keys", None)):  # as a row of sqlite3 has
            raise TypeError(f"a {type(record).__name__} is no mapping of fields")
        record = {name: record[name] for name in record.keys()}  # noqa: SIM118 - it iterates over its values
    fields = {}
    for name, value in record.items():
        try:
            fields[str(name)] = plain(value)
        except ValueError as error:
            raise ValueError(f"{error} (field {name})") from None
    return encode(fields)


class GiverFailed(Exception):
    """Who gives the records failed half-way; ``error`` is what was raised."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


Input = Source | Rows | Objects


def from_source(workload: WorkloadConfig, config: Config) -> Rows:
    """Return the records that a workload's own ``source`` names, read as they are asked for.

    Raises:
        ConfigError: it has none; reading them raises it where the query is wrong, and DatabaseDown.
    """
    from nura_cli.delivery import source

    if workload.source is None:
        raise ConfigError("the workload has no source", hint="give it a database and a query")
    url = config.databases[workload.source.database].secret()
    return Rows(f"source of {workload.name}", source.rows(url, workload.source.query), Keys(workload.key))


class Reader:
    """How one workload reads its lines: what a record must have, which queue and key it gets, what is kept of it."""

    def __init__(self, workload: WorkloadConfig, dialect: Dialect, key_prefix: str = "") -> None:
        """Prepare to read lines of ``workload``.

        Raises:
            ConfigError: its prompt cannot be read or compiled.
        """
        self.dialect = dialect
        self.limit = dialect.limits.line_bytes
        self._prefix = key_prefix
        self._keys = Keys(workload.key, key_prefix)
        self._prompt = compiled(workload, prompt_text(workload))
        self._names = self._prompt.names if self._prompt else frozenset[str]()
        self._needs = Needs(workload)

    def read(self, raw: lines.Line) -> "Read":
        """Take one line apart.

        Raises:
            InputError: it cannot be used; says why.
        """
        if raw.fault:
            raise InputError(raw.fault)
        return self._taken(raw.data)

    def good(self, data: bytes) -> "Read | None":
        """Take one line of a block apart; None of one that is blank, and where :meth:`read` has something to say."""
        line = data.strip(lines.BLANKS)
        if not line or len(data) > self.limit:
            return None
        try:
            return self._taken(line)
        except InputError:
            return None

    def _taken(self, line: bytes) -> "Read":
        document = lines.document(line)
        if self._prompt is None:
            ready = self.dialect.ready(line)
            key = lines.key_of(ready.key, self._prefix)
            if self._needs:
                self._needs.check(key.json, lines.document(ready.body))
            return Read((self.dialect.name, ready.endpoint, ready.model), key, ready.body, line)
        if type(document) is not dict:
            raise InputError(_NO_OBJECT.get(type(document), "not a JSON object"))
        if not self._names <= document.keys():
            missing = sorted(self._names - document.keys())
            hint = lines.near(missing, document) or _within(self._names, document)
            raise InputError(f"the prompt needs {', '.join(missing)}, which the record lacks{hint}")
        key = self._keys.of(document)
        if self._needs:
            self._needs.check(key.json, document)
        return Read(_RECORD_LANE, key, line, line)


_NO_OBJECT = {list: "a JSON array and not an object; jq -c '.[]' writes its elements one on each line"}


def _within(wanted: AbstractSet[str], record: Mapping[str, Any]) -> str:
    """Return where in a record what is wanted stands, for one that is a whole document of records; else nothing."""
    for name, value in record.items():
        inner = value[0] if isinstance(value, list) and value else None
        if isinstance(inner, dict) and wanted <= inner.keys() and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            return f"; the elements of its {name} have it, which jq -c '.{name}[]' writes one on each line"
    return ""


_RECORD_LANE = ("", "", "")


class Read(msgspec.Struct, frozen=True, gc=False):
    """A line taken apart: its queue (dialect, endpoint, model), its key, what is kept, and the line itself."""

    queue: tuple[str, str, str]
    key: lines.Key
    keep: bytes
    line: bytes


def _digest(line: bytes) -> bytes:
    """Return a digest of a line, by which most duplicates are known; the others by what is kept (:mod:`sameness`)."""
    return hashlib.blake2b(line, digest_size=16).digest()


class Numbered(msgspec.Struct, frozen=True, gc=False):
    """A read line, the input in which it stood, and its number there, or the line as it came where that is more."""

    source: Input
    came: lines.Line | int
    read: Read

    @property
    def line(self) -> lines.Line:
        """The line as it came."""
        return lines.Line(self.came, self.read.line) if isinstance(self.came, int) else self.came


Rejects = Callable[[str, int, bytes, str], None]
"""Called with (source, line number, the line, why) for each line that is not taken."""


def run(
    state: State,
    workload: WorkloadConfig,
    dialect: Dialect,
    sources: Iterable[Input],
    *,
    replace: bool = False,
    key_prefix: str = "",
    rejects: Rejects | None = None,
) -> Report:
    """Enqueue the lines of all sources.

    Args:
        rejects: told of each line that is not taken: rejected, or in conflict.

    Returns:
        The counts ``enqueued``, ``duplicates``, ``conflicts``, ``replaced`` and ``rejected``; of the duplicates,
        ``duplicates_failed``, ``duplicates_cancelled`` and ``duplicates_purged``; ``enqueued_again``, how many had been cancelled; and in ``hint`` what to
        know and to type of these.

    Raises:
        ConfigError: the workload's prompt, or its source, cannot be used.
        DatabaseDown: its source cannot be read now.
        StateError: the state file cannot be written; run it again.
    """
    reader = Reader(workload, dialect, key_prefix)
    sources = list(sources)
    renew = not any(isinstance(source, Rows) for source in sources)
    intake = _Intake(state, workload.name, replace, renew, rejects)
    try:
        for source in sources:
            parts = source.parts if isinstance(source, Source) else source.lines
            with _told(source, intake, workload.name), closing(parts(reader.limit, intake.flush)) as given:
                for part in given:
                    if isinstance(part, lines.Block):
                        _take_block(reader, intake, source, part)
                    else:
                        _take_line(reader, intake, source, part)
        intake.flush()
    finally:  # a source failed half-way, or we are told to stop: a pipe gives what it gave only once
        intake.flush()
    return intake.report()


def _take_block(reader: Reader, intake: "_Intake", source: Input, block: lines.Block) -> None:
    """Take the lines of a block; a :class:`Line` is made of one that is odd only.

    Told to stop half-way, the rest is taken first: a pipe gives what it gave only once.
    """
    left = deque(block.lines)
    try:
        _take_lines(reader, intake, source, block.number, left)
    except Exception:
        raise
    except BaseException:
        _take_lines(reader, intake, source, block.number + len(block.lines) - len(left), left)
        raise


def _take_lines(reader: Reader, intake: "_Intake", source: Input, number: int, left: deque[bytes]) -> None:
    """Take the lines that are left, the first of which has this number; one leaves when it has been taken."""
    while left:
        data = left[0]
        read = reader.good(data)
        if read is not None:
            intake.take(Numbered(source, number, read))
        else:
            for line in lines.of_block(number, data, reader.limit):
                _take_line(reader, intake, source, line)
        left.popleft()
        number += 1


def _take_line(reader: Reader, intake: "_Intake", source: Input, line: lines.Line) -> None:
    if line.open_end and isinstance(source, Source) and source.piped:
        intake.doubt(source, line)
    try:
        read = reader.read(line)
    except InputError as error:
        intake.refuse("rejected", source, line, error.message)
    else:
        intake.take(Numbered(source, line, read))


@contextmanager
def _told(source: Input, intake: "_Intake", workload: str) -> Iterator[None]:
    """Tell now and then how far its source is: a file in bytes, anything else in lines."""
    file = source if isinstance(source, Source) and source.size is not None else None
    before = intake.lines
    with progress.going(f"{workload}: enqueueing", file.size if file else None, in_bytes=file is not None) as step:
        intake.tell = lambda: step.to(file.stream.tell() if file else intake.lines - before)
        try:
            yield
            intake.tell()
        finally:
            intake.tell = _nothing


class _Intake:
    """Collects lines into chunks, and commits each chunk in one transaction.

    With ``renew`` a key that was cancelled is taken again.
    """

    def __init__(
        self,
        state: State,
        workload: str,
        replace: bool,
        renew: bool,
        rejects: Rejects | None,
    ) -> None:
        self._state = state
        self._workload = workload
        self._replace = replace
        self._renew = renew
        self._rejects = rejects
        self.tell: Idle = _nothing
        self._chunk: list[Numbered] = []
        self._bytes = 0
        self._counts = dict.fromkeys(("enqueued", "duplicates", "conflicts", "replaced", "rejected"), 0)
        self._unanswered = {TaskStatus.FAILED: 0, TaskStatus.CANCELLED: 0}
        self._purged = 0
        self._wished = 0
        self._again = 0
        self._seen = False
        self._said: dict[tuple[str, str], bool] = {}
        self._told = 0
        self._lasting = False
        self._header: bytes | None = None
        self._doubts: list[Problem] = []

    def take(self, line: Numbered) -> None:
        self._chunk.append(line)
        self._bytes += len(line.read.line)
        if len(self._chunk) >= CHUNK_LINES or self._bytes >= CHUNK_BYTES:
            self.flush()
            self._state.yield_to_writers()
        elif not len(self._chunk) % _TELL_LINES:
            self.tell()

    def refuse(self, kind: str, source: Input, line: lines.Line, why: str) -> None:
        self._counts[kind] += 1
        place = source.place(line)
        if (place, why) in self._said:
            self._told += 1
        elif len(self._said) < MOST_PRINTED:
            self._said[place, why] = source.lasting
            self._told += 1
        self._lasting |= source.lasting
        if self._rejects:
            self._rejects(source.name, line.number, self._as_it_stood(line), why)

    def doubt(self, source: Input, line: lines.Line) -> None:
        """Note that a row may be cut: many tables end so, and it is taken all the same."""
        text = f"{source.place(line)}: the last row has no line end; if what wrote it broke off, the row is cut"
        hint = "enqueue it again whole with --replace"
        self._doubts.append(Problem(ProblemKind.INPUT, text, EX_OK, hint, workload=self._workload))

    def _as_it_stood(self, line: lines.Line) -> bytes:
        """Return a line for ``--rejects``; a row of a table under its header, where another one stood above it there."""
        above = b"" if line.header in (None, self._header) else line.header + b"\n"
        self._header = line.header or self._header
        return above + (line.data if line.raw is None else line.raw)

    def flush(self) -> None:
        """Store the chunk. Where that fails it is let go: it would fail again; where it is stopped, the next call stores it."""
        if self._chunk:
            try:
                conflicts = self._stored()
            except Exception:
                self._chunk, self._bytes = [], 0
                raise
            for line, purged in conflicts:
                content = "other content, which was purged" if purged else "other content"
                why = f"key {line.read.key.json} was enqueued with {content}; --replace sends the new one"
                self.refuse("conflicts", line.source, line.line, why)
        self._chunk, self._bytes = [], 0
        self.tell()

    @property
    def lines(self) -> int:
        """How many lines were taken, or refused."""
        return sum(self._counts.values()) + len(self._chunk)

    def _stored(self) -> list[tuple[Numbered, bool]]:
        """Store the chunk, in one transaction; return the lines that are in conflict with what is there, and whether that was purged."""
        reads = [line.read for line in self._chunk]
        digests = [_digest(read.line) for read in reads]
        if not self._seen:  # where the chunk before had keys that were known, this one most likely has, too
            with suppress(keys.KeyTaken), self._state.transaction() as db:
                tasks.insert(db, *self._rows(db, reads, digests))
                self._counts["enqueued"] += len(reads)
                return []
        with self._state.transaction() as db:
            return self._one_by_one(db, *self._rows(db, reads, digests))

    def _rows(self, db: Connection, reads: Sequence[Read], digests: Sequence[bytes]) -> tuple[int, list[tasks.NewTask]]:
        """Return the id of the workload, and the chunk as tasks to insert; a queue that is new is made."""
        workload = tasks.workload_id(db, self._workload)
        queues = {queue: tasks.queue_id(db, workload, *queue) for queue in dict.fromkeys(read.queue for read in reads)}
        return workload, [
            tasks.NewTask(queues[read.queue], *read.key, digest, read.keep)
            for read, digest in zip(reads, digests, strict=True)
        ]

    def _one_by_one(self, db: Connection, workload: int, rows: Sequence[tasks.NewTask]) -> list[tuple[Numbered, bool]]:
        """Take a chunk line by line, some keys of which are known: duplicates, conflicts and replacements; return the conflicts."""
        known = tasks.current(db, workload, [row.key for row in rows])
        going = purges.going(db, [one.task_id for one in known.values()])
        self._seen = bool(known)
        fresh: dict[str, tasks.NewTask] = {}
        conflicts = []
        done = dict.fromkeys(("enqueued", "duplicates", "replaced"), 0)
        again = purged = late = 0
        unanswered = dict.fromkeys(self._unanswered, 0)
        for row, line in zip(rows, self._chunk, strict=True):
            before = known.get(row.key)
            if before is not None and before.digest == row.digest and before.status not in unanswered:
                done["duplicates"] += 1
                late += before.task_id in going
                continue
            here = before or fresh.get(row.key)
            status = TaskStatus(here.status) if isinstance(here, tasks.Current) else TaskStatus.PENDING
            undecided = isinstance(here, tasks.Current) and here.undecided
            forgotten = isinstance(here, tasks.Current) and not here.digest
            renewed = self._renew and status is TaskStatus.CANCELLED and not undecided and not forgotten
            again += renewed
            if here is None:
                fresh[row.key] = row
                done["enqueued"] += 1
            elif forgotten:  # nobody knows of what: not even another line is sent by accident
                done["duplicates"] += 1
                purged += 1
            elif not renewed and _same(db, workload, here, row):
                done["duplicates"] += 1
                if isinstance(here, tasks.Current) and here.task_id in going:
                    late += 1
                elif status in unanswered and _is_purged(db, here):
                    purged += 1
                elif status in unanswered:
                    unanswered[status] += 1
            elif not self._replace and not renewed:
                conflicts.append((line, _is_purged(db, here)))
            else:
                replaced = self._replace and not _same(db, workload, here, row)
                tasks.insert(db, workload, list(fresh.values()), unseen=True)
                known.update(tasks.current(db, workload, [*fresh, row.key]))
                fresh.clear()
                tasks.replace(db, workload, row, known[row.key].task_id)
                known.update(tasks.current(db, workload, [row.key]))
                done["replaced" if replaced else "enqueued"] += 1
        tasks.insert(db, workload, list(fresh.values()), unseen=True)
        for name, n in done.items():
            self._counts[name] += n
        for status, n in unanswered.items():
            self._unanswered[status] += n
        self._again += again
        self._purged += purged
        self._wished += late
        return conflicts

    def report(self) -> Report:
        problems = [self._problem(place, why, lasts) for (place, why), lasts in self._said.items()]
        unsaid = self._counts["rejected"] + self._counts["conflicts"] - self._told
        if unsaid > 0:
            more = f"{unsaid} more lines were not taken; --rejects FILE keeps them all"
            problems.append(self._problem("", f"and {more}", self._lasting))
        problems += self._doubts
        result: contract.EnqueuedRecords = {
            **contract.figures(contract.EnqueuedCounts, self._counts),
            "duplicates_failed": self._unanswered[TaskStatus.FAILED],
            "duplicates_cancelled": self._unanswered[TaskStatus.CANCELLED],
            "duplicates_purged": self._purged + self._wished,
            "enqueued_again": self._again,
            "hint": self._hint(),
        }
        return Report(result, problems, worked=True)

    def _problem(self, place: str, why: str, lasts: bool) -> Problem:
        text = f"{place}: {why}" if place else why
        about = text if lasts and place else "more" if lasts else None
        return Problem(ProblemKind.INPUT, text, EX_PARTIAL, workload=self._workload, about=about, stays=lasts)

    def _hint(self) -> str | None:
        """Return what of the duplicates has no answer, and what to type for one, and what had been cancelled; else None."""
        again = f"{self._again:,} of them had been cancelled, and are sent after all" if self._again else None
        purged = (
            f"{counted(self._purged, 'duplicate was', 'duplicates were')} purged, and not sent again:"
            f" nura purge {self._workload} --key K --allow-again lets a key be"
            if self._purged
            else None
        )
        late = (
            f"{counted(self._wished, 'duplicate is', 'duplicates are')} to be purged, and under way still: enqueue"
            f" {'it' if self._wished == 1 else 'them'} again once nura status shows nothing that is to be purged"
            if self._wished
            else None
        )
        found = {status: n for status, n in self._unanswered.items() if n}
        if not found:
            return "; ".join(filter(None, (again, purged, late))) or None
        listed = " and ".join(f"{n:,} {status}" for status, n in found.items())
        which = "".join(f" --status {status}" for status in found) if TaskStatus.CANCELLED in found else ""
        duplicates = counted(self._counts["duplicates"], "duplicate")
        unanswered = f"{duplicates}, of which {listed}: nura retry {self._workload}{which}"
        return "; ".join(filter(None, (again, unanswered, purged, late)))


def _is_purged(db: Connection, here: tasks.Current | tasks.NewTask) -> bool:
    """Return whether nothing is kept of the task that stands for a key."""
    return isinstance(here, tasks.Current) and tasks.kept(db, here.task_id) is None


def _same(db: Connection, workload: int, here: tasks.Current | tasks.NewTask, row: tasks.NewTask) -> bool:
    """Return whether a line says what the task that stands for its key was made of.

    Where only the bytes differ (or the digest is one of an earlier release), what is kept decides; the digest is then noted
    anew, so that the next run knows it at once.
    """
    if here.digest == row.digest:
        return True
    stored = (here.queue_id, here.line) if isinstance(here, tasks.NewTask) else tasks.kept(db, here.task_id)
    if stored is None or stored[0] != row.queue_id or not sameness.same(stored[1], row.line):
        return False
    if isinstance(here, tasks.Current):
        keys.point(db, workload, row.key, here.task_id, here.task_id, row.digest)
    return True


def preview(
    workload: WorkloadConfig,
    spec: Spec,
    dialect: Dialect,
    sources: Iterable[Input],
    limit: int,
    key_prefix: str = "",
) -> Iterator[bytes | InputError]:
    """Yield the requests that the first ``limit`` lines would become, or why a line would be rejected; stores nothing."""
    prompt = compiled(workload, spec.prompt)
    body = dialect.body(spec) if prompt else None

    def request(n: int, read: Read) -> bytes:
        content = body(prompt.render(record_of(read.line))) if prompt and body else read.keep
        return dialect.request(b"preview-%d" % n, spec.endpoint if prompt else read.queue[1], content)

    return first(Reader(workload, dialect, key_prefix), sources, limit, request)


def first(
    reader: Reader, sources: Iterable[Input], limit: int, made: "Callable[[int, Read], Made]"
) -> "Iterator[Made | InputError]":
    """Yield what is made of the first ``limit`` lines, each given with its number, or why a line would be rejected; stores nothing."""
    shown = 0
    for source in sources:
        with closing(source.lines(reader.limit)) as given:
            for line in given:
                if shown >= limit:
                    return
                shown += 1
                try:
                    yield made(shown, reader.read(line))
                except InputError as error:
                    named = line.whole or source.lasting
                    place = source.place(line) if named else f"line {line.number}"
                    yield InputError(f"{place}: {error.message}")
                    if line.whole:
                        break
