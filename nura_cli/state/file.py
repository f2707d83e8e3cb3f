"""The state file: opened safely, written in short transactions, its failures put into words.

No process that has it open may touch the file by other means: opening and closing it elsewhere in the process drops
SQLite's POSIX locks. So it is made (0600) before SQLite sees it, and locks are files of their own.
"""

import glob
import os
import re
import shlex
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from nura_cli import clock as clocks
from nura_cli import logs
from nura_cli.clock import Clock
from nura_cli.errors import ConfigError, NuraError, StateCorrupt, StateError, StateForeign, StateNewer
from nura_cli.state import disk, keys, locks, packed, schema, snapshots
from nura_cli.state.connection import Connection
from nura_cli.state.disk import sync_folder

BUSY_SECONDS = 30.0
"""How long a writer waits for its turn before it gives up with exit 75."""
_POLL_SECONDS = 0.001
_YIELD_SECONDS = 0.003
_SQLITES = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database."""
_OWN = re.compile(
    r"-(wal|shm|journal)|\.[a-z]+\.lock|\.spool|\.[A-Za-z0-9_-]+\.sandbox(\.d|-wal|-shm|-journal)?"
    rf"|{snapshots.NAME}(\.part)?"
)
"""How the names of the files and folders of nura's own go on after the state file's."""
_OWN_FILE = "set state: (or --state) to a file of nura's own"
_NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "smbfs", "afs", "ncpfs"})


class State:
    """One open state file and the spool folder beside it. Use it as a context manager.

    Inside the block what goes wrong with the file, and any ``OSError``, comes out as a :class:`StateError` that names the file,
    the cause and the next step; a mistake in nura's own SQL comes out as it is. On a file system that is mounted read-only it
    can be read, and every write fails so.

    Attributes:
        path: the state file.
        db: the connection, in autocommit mode; write inside :meth:`transaction` only.
        state_id: 16 random characters made with the file, known to the provider as metadata.
        unsaved: why there is no snapshot from before the migration that this opening made; None where there is one, or nothing
            was migrated.
    """

    def __init__(self, path: Path, clock: Clock | None = None, *, create: bool = True, newer: bool = False) -> None:
        """Open the state file, making or migrating it where that is due.

        Args:
            path: the file; its folder must exist. Links are followed once, here: under whatever name it is opened, it has one
                set of locks and one spool.
            clock: the time of all that is noted in it; the system's, where none is given.
            create: make it when it is not there (enqueue does; a stage that finds none has nothing to do).
            newer: take one that a newer nura has migrated, too, if it says that this version may: for enqueue, status and
                results, which an application runs from an installation of its own.

        Raises:
            StateError: it cannot be opened, lies on a network file system, or does not exist and ``create`` is off.
            StateCorrupt, StateForeign, StateNewer: it is damaged, something else, or a newer nura wrote it.
        """
        path = Path(os.path.realpath(path))
        self.path = path
        self.unsaved: str | None = None
        with explained(path):
            refuse_unusable(path)
            if not path.exists():
                if not create:
                    raise StateError(f"{path}: no such state file", hint="nura enqueue makes it with the first record")
                _make(path)
            with foreign_if_new(path):
                self.db = _connect(path)
            self.db.clock = clock or clocks.now
            try:
                self.state_id = self._prepare(newer)
            except BaseException:
                self.db.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if isinstance(error, sqlite3.Error | OSError) and (explanation := _explain(self.path, error)):
            raise explanation from error

    def close(self) -> None:
        """Close the connection; the last one out checkpoints the WAL."""
        self.db.close()

    @property
    def clock(self) -> Clock:
        """What gives the time, unix seconds."""
        return self.db.clock

    @property
    def requests(self) -> Path:
        """The folder of request files: dispatch alone writes and sweeps it."""
        return self._spool("requests")

    @property
    def results(self) -> Path:
        """The folder of downloaded results: poll alone writes files here, and sweeps it."""
        return self._spool("results")

    @property
    def calls(self) -> Path:
        """Where calls of commands that are under way are noted."""
        return self._spool("calls")

    @property
    def aside(self) -> Path:
        """Where result lines are kept that are too long to be answers. poll sweeps nothing here but what was left half
        written, for they were paid for.
        """
        return self._spool("aside")

    def _spool(self, name: str) -> Path:
        """Return a folder of the spool, made (0700) where it is not there. Raises StateError: a link stands in its place."""
        folder = self.path.with_name(self.path.name + ".spool") / name
        for part in (folder.parent, folder):
            disk.refuse_link(part)
        if not folder.is_dir():
            folder.parent.mkdir(mode=0o700, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(folder.parent)
        return folder

    def refuse_root(self) -> None:
        """Refuse to make files as root beside a state file of another user's: they would lock that user's stages out.

        Raises:
            ConfigError: so it is; names the user to be.
        """
        refuse_root(self.path, "beside it")

    def lock_path(self, stage: str) -> Path:
        """Return the lock file of a stage, as :func:`lock_path` does."""
        return lock_path(self.path, stage)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Hold the write lock for the block; commit at its end, roll back on any exception.

        Begins IMMEDIATE: a deferred transaction that reads first cannot wait for the lock. SQLite's own waiting backs
        off up to 100 ms and loses to a busy writer every time, so the turn is asked for every millisecond here.

        Raises:
            sqlite3.OperationalError: still locked after :data:`BUSY_SECONDS`.
        """
        insist(self.db, "BEGIN IMMEDIATE")
        self.db.began()
        try:
            if self.db.keeps_text:  # somebody may have brought the file into the newer layout since it was opened
                self.db.keeps_text = self._meta("layout") is None
            yield self.db
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise
        finally:
            self.db.ended()

    def yield_to_writers(self) -> None:
        """Between two commits of a long write: leave other writers a gap in which to take their turn."""
        time.sleep(_YIELD_SECONDS)

    def _prepare(self, newer: bool) -> str:
        """See that the file is nura's and of this version, migrated where it is older; return its id."""
        version = self._version()
        if version > schema.VERSION:
            self._refuse_newer(version, newer)
        if version < schema.VERSION:
            self._migrate()
        keys.know(self.db, bytes.fromhex(self._meta("secret") or ""), keeps_text=self._meta("layout") is None)
        packed.know(self.db)
        return self._meta("state_id") or ""

    def _version(self) -> int:
        return int(self.db.execute("PRAGMA user_version").fetchone()[0])

    def _meta(self, name: str) -> str | None:
        row = self.db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else None

    def _refuse_newer(self, version: int, reads: bool) -> None:
        """A file that a newer nura has migrated is left to that one, except for what an older one may do with it."""
        allowed = allows_this(self.db)
        if not (reads and allowed):
            raise newer_than_this(self.path, version, allowed)

    def _migrate(self) -> None:
        self.refuse_root()
        with locks.lock(self.lock_path("migrate"), 0, wait=True):
            version = self._version()
            if 0 < version < schema.VERSION:
                self._save(version)
            with self.transaction() as db:
                schema.migrate(db, os.urandom(8).hex())
                if not version:
                    from nura_cli.state import purges

                    purges.note_seen(db, purges.Seen(db.now))

    def _save(self, version: int) -> None:
        why = snapshots.take(self.db, self.path, version)
        logs.decided("%s: migrated from schema %s, %s", self.path, version, why or "with a snapshot from before")
        if why:
            self.unsaved = (
                f"{self.path} was migrated from schema {version} to {schema.VERSION} without a snapshot: {why}"
            )


def lock_path(path: Path, stage: str) -> Path:
    """Return the lock file of a stage: ``<state>.<stage>.lock``."""
    return path.with_name(f"{path.name}.{stage}.lock")


def foreign(path: Path) -> list[Path]:
    """Return the files beside a state file that belong to somebody else: its owner's stages may stop at them.

    Only nura's own: somebody's backup beside it is nobody's problem.
    """
    with explained(path):
        owner = path.stat().st_uid
        beside = path.parent.glob(f"{glob.escape(path.name)}[.-]*")
        own = [one for one in beside if _OWN.fullmatch(one.name.removeprefix(path.name))]
        inside = [one for folder in own if folder.is_dir() and not folder.is_symlink() for one in folder.rglob("*")]
        return [one for one in sorted(own + inside) if disk.owner_id(one) not in (None, owner)]


def allows_this(db: sqlite3.Connection) -> bool:
    """Return whether a newer state file says that this version may use it."""
    oldest = db.execute("SELECT value FROM meta WHERE name = 'oldest_version'").fetchone()
    return bool(oldest) and str(oldest[0]).isdecimal() and int(oldest[0]) <= schema.VERSION


def newer_than_this(path: Path, version: int, allowed: bool) -> StateNewer:
    """Return the error for a state file of a newer version; ``allowed``: it says that what only reads may go on."""
    only = "; of this one, only enqueue, status and results go on" if allowed else ""
    return StateNewer(
        f"{path}: written by a newer nura (schema {version}, this one knows {schema.VERSION})",
        hint=f"run the newer nura{only}; or restore an older state file",
    )


def refuse_unusable(path: Path) -> None:
    """Refuse what cannot be a state file: where it lies, what kind it is, other names that it has. Nothing there is fine.

    Raises:
        StateError, StateCorrupt: it is such a one.
    """
    _refuse_network(path)
    for suffix in _SQLITES:
        disk.refuse_link(path.with_name(path.name + suffix))
    if path.exists():
        if not path.is_file():
            raise StateError(f"{path}: is no plain file", hint=_OWN_FILE)
        _refuse_second_name(path)
        _refuse_emptied(path)


def _refuse_second_name(path: Path) -> None:
    """A file with two names (hard links, or mounted by itself) has two WALs, one beside each: what one process commits the
    other loses.
    """
    lost = "and SQLite would lose what is written under one of them"
    if path.stat().st_nlink > 1:
        raise StateError(
            f"{path}: has a second name (a hard link), {lost}",
            hint=f"remove the other one: find / -xdev -samefile {shlex.quote(str(path))}",
        )
    if mounted_alone(path):
        raise StateError(
            f"{path}: is mounted by itself, and has another name where it comes from, {lost}",
            hint="mount its folder instead",
        )


def _refuse_emptied(path: Path) -> None:
    """A file without a byte, on which stages have run before, has lost what it held: it is not made anew in silence."""
    if _ran(path) and not path.stat().st_size:
        raise StateCorrupt(
            f"{path}: is empty, and stages have run on it before",
            hint="restore a backup; to start anew without what it held, remove it",
        )


def _ran(path: Path) -> bool:
    """Return whether stages have run on it: its name has been that of a state file."""
    return any(lock_path(path, stage).exists() for stage in ("dispatch", "poll", "reconcile"))


@contextmanager
def foreign_if_new(path: Path) -> Iterator[None]:
    """Turn the block's finding that a file is no database into :class:`StateForeign`, where there never was a state file
    under its name; else it is a damaged one.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_NOTADB and not _ran(path):
            raise StateForeign(f"{path}: is not an SQLite database", hint=_OWN_FILE) from error
        raise


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's and the disk's failures inside the block into :class:`StateError`, with the next step to take.

    A mistake in nura's own SQL is none of theirs: it comes out as it is, and ends a command as any bug does.

    Args:
        path: the state file. A failure of another file names that one, or none where it is not known which.
    """
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        if explanation := _explain(path, error):
            raise explanation from error
        raise


def unforeseen(error: Exception) -> bool:
    """Return whether an exception is nobody's fault but nura's: not the disk's, nor that of a state file that is locked or
    damaged. Such a one concerns the batch, row or receiver at hand, and the rest of a run goes on.
    """
    if isinstance(error, NuraError | OSError):
        return False
    return not isinstance(error, sqlite3.Error) or _cause(error) is None


class _Cause(NamedTuple):
    """What is wrong with the file: the error it becomes, and in words, with the next step. ``FILE`` stands for its name."""

    kind: type[StateError]
    what: str
    hint: str


_CHECK_MOUNT = "check the owner and mode of the file and its folder, and that the disk is mounted writable"
_DAMAGED = _Cause(
    StateCorrupt,
    "is damaged, or the disk cannot read it",
    "check the disk; keep a copy, then restore a backup or try: sqlite3 FILE .recover",
)
_LOCKED = _Cause(
    StateError,
    "locked by another process",
    "wait for it, or find it with: fuser -v FILE; then run the same command again",
)
_CAUSES: dict[int, _Cause] = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_PROTOCOL: _LOCKED,  # others were at the WAL's index each time it looked
    sqlite3.SQLITE_FULL: _Cause(StateError, "the disk is full", disk.NO_ROOM),
    sqlite3.SQLITE_READONLY: _Cause(StateError, "cannot be written", _CHECK_MOUNT),
    sqlite3.SQLITE_CANTOPEN: _Cause(
        StateError,
        "cannot be opened, or a file beside it",
        f"{_CHECK_MOUNT} and has room; then run the same command again",
    ),
    sqlite3.SQLITE_IOERR: _Cause(
        StateError,
        "the disk reports an I/O error",
        "check the disk; then run the same command again",
    ),
    # SQLite's index of the WAL: one page more of it did not fit, or could not be written. It does not say which.
    sqlite3.SQLITE_IOERR_SHMSIZE: _Cause(
        StateError,
        "its index FILE-shm cannot be written: the disk is full, or fails",
        disk.NO_ROOM,
    ),
    sqlite3.SQLITE_PERM: _Cause(StateError, "access denied", "run nura as the user who owns the file"),
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _Cause(
        StateCorrupt,
        "is not an SQLite database",
        "set state: (or --state) to the right file; if this is it, it is damaged: restore a backup",
    ),
}
"""What is the file's, the disk's or another process's doing. Whatever else SQLite has to say is about nura's statements."""


def _cause(error: sqlite3.Error) -> _Cause | None:
    """Return what is wrong with the file, or None: then a statement, or what was given to it, is wrong."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # Python's own: it could not read a text, or was not told what a statement needs
        return _DAMAGED if type(error) is sqlite3.OperationalError else None
    return _CAUSES.get(code) or _CAUSES.get(code & 0xFF)


def _explain(path: Path, error: sqlite3.Error | OSError) -> StateError | None:
    """Return a failure of the file or the disk as words with the next step; None where it is a mistake of nura's own."""
    if isinstance(error, OSError):
        return disk.problem(error)
    cause = _cause(error)
    if cause is None:
        return None
    hint = cause.hint
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in (
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
    ):
        hint = _owners_hint(path) or hint
    return cause.kind(f"{path}: {cause.what.replace('FILE', str(path))}", hint=hint.replace("FILE", str(path)))


def _owners_hint(path: Path) -> str | None:
    """Return what to type where the state file, or one that SQLite keeps beside it, belongs to somebody else; else None."""
    owner, me = disk.owner_id(path), os.geteuid()
    beside = [path.with_name(path.name + suffix) for suffix in ("", *_SQLITES)]
    names = " ".join(shlex.quote(str(file)) for file in beside if disk.owner_id(file) not in (None, me))
    mend = f"sudo chown '{disk.user(me).removeprefix('#')}' {names}" if names else None
    if owner is None or owner == me:
        return mend
    return f"it belongs to {disk.user(owner)}; run it as that user: sudo -u '{disk.user(owner)}' nura …; or make it yours: {mend}"


def refuse_root(path: Path, where: str) -> None:
    """Refuse, as root, what would be made beside a file, or in a folder, of another user's: that user may not write it."""
    if os.geteuid() == 0 and path.stat().st_uid != 0:
        owner = disk.owner_of(path)
        raise ConfigError(
            f"{path} belongs to {owner}, and what root makes {where} would stop {owner}'s own runs",
            hint=f"run it as that user: sudo -u '{owner}' nura …",
        )


def _make(path: Path) -> None:
    """Make an empty file, 0600, for SQLite to fill. It is closed again before any connection exists."""
    refuse_root(path.parent, "there")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    sync_folder(path.parent)


def _mode(path: Path) -> str:
    """Return how SQLite is to open the file: for writing, unless its file system is mounted read-only.

    There it cannot make the files it keeps beside a database. Where none is left from before, nobody can be writing, and
    it may do without them (``immutable``).
    """
    if not os.statvfs(path).f_flag & os.ST_RDONLY:
        return "mode=rw"
    wal = path.with_name(path.name + "-wal")
    return "mode=ro" if wal.exists() and wal.stat().st_size else "mode=ro&immutable=1"


def _connect(path: Path) -> Connection:
    """Open a connection as every process must have it: WAL, each commit on the disk, no more cache than it needs."""
    uri = f"{path.absolute().as_uri()}?{_mode(path)}"
    db = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, factory=Connection)
    try:
        refuse_others_database(db, path)
        if not db.execute("PRAGMA page_count").fetchone()[0]:
            db.execute(f"PRAGMA page_size = {schema.PAGE_SIZE}")
            db.execute(f"PRAGMA auto_vacuum = {schema.INCREMENTAL}")
        if db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            insist(db, "PRAGMA journal_mode = wal")  # of several that open a new file at once, SQLite lets none wait
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA cache_size = -32000")
        db.execute("PRAGMA temp_store = memory")
        db.execute(
            "PRAGMA secure_delete = FAST"
        ).fetchone()  # what a page loses is overwritten; a purge sees to free pages
        db.execute("PRAGMA wal_autocheckpoint = 2000")
        db.execute(f"PRAGMA journal_size_limit = {64 * 1024 * 1024}")
    except BaseException:
        db.close()
        raise
    return db


def refuse_others_database(db: sqlite3.Connection, path: Path) -> None:
    """An SQLite database that is not nura's is left alone, its journal's mode included; one without a table becomes nura's.

    The tables are looked at first: another process may be making them at this moment, and the id comes with them.
    """
    names = {row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    application = db.execute("PRAGMA application_id").fetchone()[0]
    version = db.execute("PRAGMA user_version").fetchone()[0]
    foreign = application or version or names - {"_sqlite_migrations", "sqlite_sequence"}
    if application != schema.APPLICATION_ID and foreign:
        raise StateForeign(f"{path}: is an SQLite database, but not nura's", hint=_OWN_FILE)


def insist(db: sqlite3.Connection, statement: str) -> None:
    """Run a statement until no other process is in its way, for :data:`BUSY_SECONDS` at most."""
    deadline = time.monotonic() + BUSY_SECONDS
    db.execute("PRAGMA busy_timeout = 0")
    try:
        while True:
            try:
                db.execute(statement).fetchall()  # to its end: a disk may fail after the first row
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_SECONDS)
    finally:
        db.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")


def _refuse_network(path: Path) -> None:
    kind = file_system(path.absolute().parent)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise StateError(
            f"{path}: lies on a network file system ({kind}), where SQLite's locks do not hold",
            hint="set state: to a file on a local disk",
        )


_MOUNTS = Path("/proc/self/mountinfo")


def file_system(folder: Path, mounts: Path = _MOUNTS) -> str | None:
    """Return the type of the file system that holds a folder, or None where the system does not tell (proc(5))."""
    inside = os.fsencode(os.path.realpath(folder))
    best, found = -1, None
    for mount, kind in _mounted(mounts):
        within = inside == mount or inside.startswith(mount.rstrip(b"/") + b"/")
        if within and len(mount) >= best:
            best, found = len(mount), kind
    return found


def mounted_alone(path: Path, mounts: Path = _MOUNTS) -> bool:
    """Return whether a file is mounted by itself, without its folder, as containers may do it."""
    name = os.fsencode(path)
    return any(mount == name for mount, _ in _mounted(mounts))


def _mounted(mounts: Path) -> Iterator[tuple[bytes, str]]:
    """Yield where something is mounted, and its file system's type; nothing where the system does not tell."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        left, _, right = line.partition(" - ")
        yield os.fsencode(left.split()[4]).decode("unicode_escape").encode("latin-1"), right.split()[0]
