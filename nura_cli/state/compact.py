"""The file's shape: an earlier one is brought into the layout that new files have, and what was deleted is given back to the disk.

Nothing here is undone: a file of the newer layout is closed to older releases. Each step is a short transaction that leaves a file
that is right, so others go on writing, and who was killed goes on where it ended.
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import cache

from nura_cli.errors import Busy
from nura_cli.state import keys, locks, packed, schema
from nura_cli.state import pages as paging
from nura_cli.state.connection import Connection
from nura_cli.state.file import State, explained, insist

PAGES = 512
"""How many pages are given back in one transaction: 8 MB, for which other writers hardly wait."""
_CHUNK = 2000
"""Rows that one transaction looks at."""
_STAGES = ("dispatch", "poll", "reconcile")
_WAL_BYTES = 64 * 1024 * 1024

Progress = Callable[[int, int], None]
"""Is told how many rows are done, and how many there are about."""


def due(state: State) -> bool:
    """Return whether a file has the earlier layout, or is not wholly in the newer one."""
    query = "SELECT NOT EXISTS (SELECT 1 FROM meta WHERE name = 'layout') OR EXISTS (SELECT 1 FROM keys)"
    return bool(state.db.execute(query).fetchone()[0]) or not _gives_back(state.db)


def needs(state: State) -> int:
    """Return how many bytes of disk :func:`convert` and :func:`vacuum` need in the file's folder while they run, at most."""
    total, free, size = (_pragma(state.db, name) for name in ("page_count", "freelist_count", "page_size"))
    return 2 * (total - free) * size + _WAL_BYTES  # a copy, and the WAL through which it comes back


def _gives_back(db: Connection) -> bool:
    return _pragma(db, "auto_vacuum") == schema.INCREMENTAL


def _pragma(db: Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def convert(
    state: State, progress: Progress, envelope: Callable[[str, str], bytes] = lambda dialect, endpoint: b""
) -> None:
    """Bring a file into the layout that new files have, and pack its records and answers, chunk by chunk.

    Other processes of this release go on, whenever they opened it; older ones are shut out first. Killed, it goes on the next time.
    What was packed is small once :func:`vacuum` has written the file anew.

    Args:
        progress: called after each chunk.
        envelope: gives a response without anything answered, as :func:`nura_cli.state.packed.content` takes it, for a dialect's
            name and an endpoint.

    Raises:
        Busy: a stage is at work, and may be an older release's.
        StateCorrupt: a value that is to be packed anew cannot be read.
    """
    if state.db.keeps_text:
        _take_over(state, envelope)
    total, done = _rows(state.db), 0
    for step in (_rehash, _pack_records, _pack_answers):
        while n := _chunk(state, step):
            done += n
            progress(done, max(total, done))
            state.yield_to_writers()
    with state.transaction() as db:
        db.execute("DROP INDEX IF EXISTS answers_finished")


def _chunk(state: State, step: Callable[[Connection], int]) -> int:
    with state.transaction() as db:
        return step(db)


def _rows(db: Connection) -> int:
    """Return about how many rows there are to convert; none of them is looked at."""
    query = (
        "SELECT iif(EXISTS (SELECT 1 FROM keys), (SELECT coalesce(sum(n), 0) FROM counts WHERE NOT superseded), 0)"
        " + coalesce((SELECT max(task_id) FROM records), 0) + coalesce((SELECT max(seq) FROM answers), 0)"
    )
    return max(int(db.execute(query).fetchone()[0]) - _gone(db, "records") - _gone(db, "answers"), 0)


def _take_over(state: State, envelope: Callable[[str, str], bytes]) -> None:
    """Shut older releases out of a file, and let what is new be kept as the newer layout has it."""
    with ExitStack() as held:
        for stage in _STAGES:  # one of an older release would read what is packed from now on
            try:
                held.enter_context(locks.lock(state.lock_path(stage), state.clock()))
            except locks.Held as error:
                who = f" (pid {error.holder.pid})" if error.holder else ""
                raise Busy(f"{stage} is at work{who}", hint="run this again once it has ended") from error
        with state.transaction() as db:
            if not db.keeps_text:  # another process has done it meanwhile
                return
            schema.execute(db, schema.TAKE_OVER)
            for revision, dialect, endpoint, spec in db.execute(_SPECS).fetchall():
                packed.learn(db, revision, packed.content(spec, envelope(dialect, endpoint)))


_SPECS = (
    "SELECT DISTINCT b.revision, b.dialect, b.endpoint, s.spec FROM batches b JOIN specs s ON s.revision = b.revision"
)


def _rehash(db: Connection) -> int:
    return keys.rehash(db, _CHUNK)


def _pack_records(db: Connection) -> int:
    rows = db.execute(
        "SELECT task_id, NULL, line FROM records WHERE task_id > ? ORDER BY task_id LIMIT ?",
        (_gone(db, "records"), _CHUNK),
    )
    return _pack(db, "records", rows, "UPDATE records SET line = ? WHERE task_id = ?")


def _pack_answers(db: Connection) -> int:
    rows = db.execute(
        "SELECT seq, batch_id, body FROM answers WHERE seq > ? ORDER BY seq LIMIT ?", (_gone(db, "answers"), _CHUNK)
    )
    return _pack(db, "answers", rows, "UPDATE answers SET body = ? WHERE seq = ?")


def _pack(db: Connection, table: str, rows: Iterable[tuple[int, int | None, bytes | None]], update: str) -> int:
    """Pack values as small as may be, and note up to which row; return how many were looked at.

    Args:
        rows: of the table, in their order: its id, the batch that gave it, if one did, and the value.
    """
    page = paging.first(rows, lambda row: len(row[2] or b""))
    packer = cache(lambda batch_id: packed.packer_small(db, batch_id))
    small = [(packer(batch_id)(value), number, value) for number, batch_id, value in page]
    db.executemany(update, [(new, number) for new, number, old in small if new is not old])
    if page:
        db.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (_mark(table), str(page[-1][0])))
    return len(page)


def _mark(table: str) -> str:
    return f"packed_{table}"


def _gone(db: Connection, table: str) -> int:
    """Return up to which row a table has been packed."""
    row = db.execute("SELECT value FROM meta WHERE name = ?", (_mark(table),)).fetchone()
    return int(row[0]) if row else 0


def vacuum(state: State) -> None:
    """Write the file anew, without its free pages, and so that :func:`shrink` can give them back from now on.

    Other writers wait meanwhile, and give up after a while. A kill leaves the file as it was.

    Raises:
        StateError: the disk is full; or what else goes wrong with the file.
    """
    _rewrite(state, f"PRAGMA auto_vacuum = {schema.INCREMENTAL}")


def rewrite(state: State, most: int) -> bool:
    """Write a file anew as it is, if it has no more than ``most`` pages; return False where it has more, and note that.

    Nothing is left in it then of what was deleted: SQLite overwrites a row where it is deleted, but not where it stood before it was
    moved, as rows are when others beside them go.

    Raises:
        StateError: as of :func:`vacuum`.
    """
    if _pragma(state.db, "page_count") <= most:
        _rewrite(state)
        return True
    with state.transaction() as db:
        db.execute(
            "INSERT INTO meta (name, value) VALUES ('moved', '1')"
            " ON CONFLICT DO UPDATE SET value = CAST(CAST(value AS INTEGER) + 1 AS TEXT)"
        )
    return False


def is_moved(state: State) -> bool:
    """Return whether something was forgotten since the file was written anew, and may stand where SQLite moved it from."""
    return _moved(state.db) is not None


def _moved(db: Connection) -> str | None:
    row = db.execute("SELECT value FROM meta WHERE name = 'moved'").fetchone()
    return str(row[0]) if row else None


def _rewrite(state: State, *before: str) -> None:
    db, folder = state.db, str(state.path.parent).replace("'", "''")
    moved = _moved(db)
    with explained(state.path):
        db.execute("PRAGMA temp_store = file")  # beside the file, where the room was looked for
        db.execute(f"PRAGMA temp_store_directory = '{folder}'")
        try:
            for statement in before:
                db.execute(statement)
            insist(db, "VACUUM")
        finally:
            db.execute("PRAGMA temp_store_directory = ''")
            db.execute("PRAGMA temp_store = memory")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    if moved is not None:
        with state.transaction() as db:  # unless another process has forgotten something meanwhile
            db.execute("DELETE FROM meta WHERE name = 'moved' AND value = ?", (moved,))


def shrink(state: State, pages: int = PAGES) -> bool:
    """Give up to ``pages`` free pages back to the disk, in a transaction of its own; return whether there are more.

    A file of the earlier layout gives nothing back.
    """
    if not _gives_back(state.db):
        return False
    with state.transaction() as db:
        free = _pragma(db, "freelist_count")
        for _ in range(min(free, pages)):  # Python reads but the first of the rows without columns, one for each page
            db.execute("PRAGMA incremental_vacuum(1)")
    return free > pages
