"""Forgetting: what nura purge, reconcile and a workload's retention have in common.

A key is forgotten as a whole: every task that stood for it loses its record, its answer and what was said about it. What is under
way, or of a batch that is not final, is noted as a wish, and forgotten by the first run that finds it at rest; until then nobody is
told of it, and nothing of it is sent again. The order keeps a kill harmless: what quotes a task in words or in the spool goes
first, the record that names the key last, in one transaction with the key's own text; whoever comes next begins again.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import msgspec

from nura_cli.errors import ProblemKind
from nura_cli.pipeline import aside, quotes
from nura_cli.pipeline.report import Problem
from nura_cli.pipeline.symptoms import free_bytes
from nura_cli.state import Connection, State, batches, compact, purges, tasks
from nura_cli.state.disk import on_disk
from nura_cli.state.purges import Member

CHUNK_KEYS = 200
"""Keys that are forgotten in one transaction."""
WAL_SECONDS = 5.0
"""How long readers are waited for before the WAL is left as it is."""
FREE_PAGES = 4096
"""Free pages of the file that are overwritten at once, and pages of a file that is written anew at once: 64 MB."""


class Fate(Enum):
    """What becomes of a key that is to be forgotten."""

    NOW = "now"
    LATER = "later"  # something of it is under way
    BEFORE = "before"  # it was forgotten before


def fate(members: Sequence[Member]) -> Fate:
    """Decide what becomes of a key, by the tasks that stand or stood for it."""
    if any(one.busy for one in members):
        return Fate.LATER
    return Fate.NOW if any(one.kept or one.known for one in members) else Fate.BEFORE


def by_key(members: Iterable[Member]) -> dict[str, list[Member]]:
    """Return tasks by their key."""
    found: dict[str, list[Member]] = {}
    for one in members:
        found.setdefault(one.key, []).append(one)
    return found


class Forgotten(NamedTuple):
    """What was done about some keys: how many of them have which fate, and how many batches a provider is to keep nothing of."""

    fates: Counter[Fate]
    batches: int


def forget(state: State, workload: int, wanted: Sequence[str], *, again: bool) -> Forgotten:
    """Forget keys of a workload (in their text form), at most :data:`CHUNK_KEYS`; wish it of those that are under way.

    Args:
        workload: its id.
        again: whether they may be enqueued again, and paid for again.
    """
    seen = purges.families(state.db, workload, wanted)
    _clear_traces(state, [one for one in seen if not one.busy], wanted)
    rested = {one.task_id for one in seen if not one.busy}
    with state.transaction() as db:
        families = by_key(
            one._replace(busy=one.busy or one.task_id not in rested) for one in purges.families(db, workload, wanted)
        )
        found = [one for family in families.values() for one in family]
        left = purges.leave_nothing(db, [one.task_id for one in found])
        purges.withdraw(db, found)
        purges.wish(db, [one for one in found if one.busy], again=again)
        fates = Counter(fate(family) for family in families.values())
        drop = [one for family in families.values() if not again or fate(family) is not Fate.LATER for one in family]
        purges.forget_keys(db, [one for one in drop if one.stands], again=again)
        purges.wipe(db, [one.task_id for one in found if not one.busy])
        purges.leave_traces(db)
    return Forgotten(fates, left)


class Left(Enum):
    """Why what was forgotten may still have traces in the file."""

    READERS = "readers"  # somebody reads, and keeps the WAL from being emptied
    FREE_PAGES = (
        "free pages"  # there are too many of them to be overwritten at once, and the file cannot give them back
    )


def carry_out(state: State) -> Left | None:
    """Forget what a person wished forgotten while it was under way, and is not any more; then remove what traces there are, a killed
    run's among them.

    Returns:
        As :func:`tidy`.
    """
    after = 0
    while found := purges.due(state.db, after, CHUNK_KEYS):
        after = found[-1].task_id
        purges.erase(state.db)
        _clear_traces(state, found, [one.key for one in found])
        with state.transaction() as db:
            still = {one.task_id for one in purges.due(db, found[0].task_id - 1, CHUNK_KEYS)}
            rested = [one for one in found if one.task_id in still]
            ids = [one.task_id for one in rested]
            purges.leave_nothing(db, ids)
            purges.withdraw(db, rested)
            standing = _standing(db, rested)
            for again in (False, True):
                purges.forget_keys(db, [one for one in standing if one.again is again], again=again)
            purges.wipe(db, ids)
            purges.leave_traces(db)
        state.yield_to_writers()
    if not purges.has_traces(state.db):
        return None
    purges.erase(state.db)
    return tidy(state)


def _standing(db: Connection, rested: Sequence[Member]) -> list[Member]:
    """Return the tasks that stand for the keys of tasks that are to be forgotten now, each with their wish; what came in since then, and
    has a record of its own, is another matter.
    """
    again = {(one.workload_id, one.key): one.again for one in rested}
    ids = {one.task_id for one in rested}
    return [
        one._replace(again=again[one.workload_id, one.key])
        for workload in {one.workload_id for one in rested}
        for one in purges.families(db, workload, [key for of, key in again if of == workload])
        if one.stands and (one.task_id in ids or not one.kept)
    ]


def tidy(state: State) -> Left | None:
    """Leave nothing of what was forgotten in the spool, in the file and in its WAL, and give the room back to the disk. A large file, and
    one that the disk has no room to write anew, has its free pages overwritten.

    Returns:
        Why something may be left; None where nothing is, but for what SQLite moved in such a file (:func:`compact.is_moved`).
    """
    free = free_bytes(state)
    anew = compact.rewrite(state, FREE_PAGES if free is None or free >= compact.needs(state) else 0)
    return leave_nothing(state, anew=anew)


def leave_nothing(state: State, *, anew: bool) -> Left | None:
    """Leave nothing of what was forgotten in the spool, on free pages and in the WAL; ``anew``: the file was just written anew.

    Returns:
        As :func:`tidy`.
    """
    sweep(state)
    whole = anew
    if not anew:
        while compact.shrink(state):
            state.yield_to_writers()
        with state.transaction() as db:
            whole = purges.overwrite_free(db, FREE_PAGES)
    if not purges.empty_wal(state.db, WAL_SECONDS):
        return Left.READERS
    if not whole:
        return Left.FREE_PAGES
    if purges.has_traces(state.db):
        with state.transaction() as db:
            purges.no_traces(db)
    return None


def untidy(state: State, left: Left, again: str, exit_code: int) -> Problem:
    """Return as a problem of a run that what was forgotten may still have traces; it lasts.

    Args:
        again: what removes them once nobody reads any more: for a person.
    """
    if left is Left.READERS:
        text, hint = "in its write-ahead log: another process is reading", again
    else:
        text = "on free pages of the file, which are too many to be overwritten at once"
        hint = "nura purge --compact writes the file anew"
    text = f"{state.path}: what was deleted may still stand {text}"
    return Problem(ProblemKind.STATE, text, exit_code, hint, about=f"traces: {left.value}")


# --- words and files


def _clear_traces(state: State, members: Sequence[Member], keys: Iterable[str]) -> None:
    """Take out of what nura said, and out of what is set aside, whatever is about tasks at rest, or names their keys."""
    ids = [one.task_id for one in members]
    clean = quotes.cleaner(keys, purges.words(state.db, ids), _quoted(state, ids))
    with state.transaction() as db:
        purges.redact(db, clean)
    drop_set_aside(state, set(ids))


def _quoted(state: State, ids: Sequence[int]) -> set[str]:
    """Return as patterns what refusals quote of tasks: nobody knows which of a batch's requests such words are about."""
    refused, found = purges.refusals(state.db, ids), set[str]()
    for start in range(0, len(refused.texts), _TEXTS):
        records = (line for _, line in tasks.lines(state.db, ids))
        found |= quotes.of(refused.texts[start : start + _TEXTS], records, refused.models)
    return found


_TEXTS = 200
"""Refusals that are compared with records at once."""


def drop_set_aside(state: State, ids: set[int]) -> None:
    """Delete the lines that are set aside and name these tasks; those that name nobody, too, of batches that they were in."""
    for path in list(state.aside.iterdir()):
        if path.suffix == ".part" or path.is_symlink() or not path.is_file():
            continue
        with on_disk(path):
            try:
                names = _names(path)
            except FileNotFoundError:  # another run has forgotten the same meanwhile
                continue
        tasks = {int(number) for name in names if (number := name.rpartition("-")[2]).isdecimal()}
        if tasks & ids or (not names and _of_tag(state, path, ids)):
            path.unlink(missing_ok=True)


def _names(path: Path) -> list[str]:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        return msgspec.json.decode(aside.note(file, aside.Long(0, size), path), type=aside.Note).custom_ids


def _of_tag(state: State, path: Path, ids: set[int]) -> bool:
    batch = batches.by_tag(state.db, path.name.partition(".")[0])
    return batch is not None and purges.were_in(state.db, batch.id, ids)


def sweep(state: State) -> None:
    """Delete what the spool still has of batches that are final, and of orphans that are counted: nobody reads it any more."""
    followed = {hashlib.sha256(one.remote_id.encode()).hexdigest()[:20] for one in batches.orphans(state.db)}
    for folder in (state.requests, state.results):
        for path in list(folder.iterdir()):
            name = path.name.partition(".")[0]
            if name.startswith("stray-"):
                over = name.removeprefix("stray-") not in followed
            else:
                batch = batches.by_tag(state.db, name)
                over = batch is not None and batch.final_at is not None
            if over:
                path.unlink(missing_ok=True)
