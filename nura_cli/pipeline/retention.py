"""What is old is dropped: records and answers of what is settled and delivered, in bounded pages.

For nura purge --older-than, and for reconcile, where a workload says ``retention``. What nobody was told of stays, be it that it waits,
was given up, or that nothing was to be told of it; so does whatever is under way. The keys' digests stay: a line that comes in again is still a duplicate. Each page is one
transaction that looks anew at what it drops; killed in between, the next run goes on.
"""

from collections.abc import Iterator
from typing import NamedTuple

from nura_cli.config import Config, WorkloadConfig
from nura_cli.pipeline import forgetting
from nura_cli.state import Connection, State, compact, purges
from nura_cli.states import is_about_task

PAGE = 2000
"""Answers that are looked at in one transaction."""
PAGES_A_RUN = 20
"""Pages that reconcile looks at for one workload in one run."""
_DAY = 86400


class Age(NamedTuple):
    """What is old of a workload.

    Attributes:
        before: when it was settled at the latest, unix seconds.
        read_to: only answers up to this seq, which somebody has read; None: only what was delivered.
        undelivered: what waits to be delivered, or was given up, goes, too.
    """

    workload: str
    before: int
    read_to: int | None = None
    undelivered: bool = False


def delivers(workload: WorkloadConfig | None) -> bool:
    """Return whether a workload's answers go anywhere by themselves, into rows or with events about tasks: then nura knows of each of
    them whether somebody got it.
    """
    return workload is not None and (
        workload.write_back is not None or any(is_about_task(kind) for event in workload.events for kind in event.types)
    )


def count(state: State, age: Age) -> int:
    """Return how many answers would be dropped; nothing is written."""
    return sum(len(page.ids) for page in _pages(state, age, 0))


def _pages(state: State, age: Age, after: int) -> Iterator[purges.Page]:
    while True:
        page = _page(state.db, age, after)
        yield page
        if not page.more:
            return
        after = page.upto


def _page(db: Connection, age: Age, after: int) -> purges.Page:
    return purges.old(
        db,
        age.workload,
        age.before,
        after=after,
        read_to=age.read_to,
        undelivered=age.undelivered,
        limit=PAGE,
    )


class Dropped(NamedTuple):
    """What came of one page: how many tasks were dropped, up to which seq was looked, and whether there is more to look at."""

    tasks: int
    upto: int
    more: bool


def drop(db: Connection, age: Age, after: int) -> Dropped:
    """Drop what is old of the next page of answers, and the versions whose places it took, in the caller's transaction.

    Args:
        after: the seq up to which was looked before.
    """
    page = _page(db, age, after)
    ids = list(dict.fromkeys([*page.ids, *purges.superseded_by(db, page.ids)])) if page.ids else []
    found = purges.wipe(db, ids) if ids else {}
    return Dropped(sum(found.values()), page.upto, page.more)


def keep(state: State, config: Config) -> int:
    """Drop what is older than the ``retention`` of each workload that has one, for a run of reconcile; return how many tasks.

    It looks at no more than :data:`PAGES_A_RUN` pages of answers a run, and goes on where the last run ended. The day after it has
    reached the end it begins anew at the oldest answer that is left.
    """
    now, total = state.clock(), 0
    purges.erase(state.db)
    for workload in config.workloads.values():
        if workload.retention is not None:
            total += _keep(state, Age(workload.name, now - workload.retention), now // _DAY)
    if total:
        leave_no_rest(state)
    return total


def leave_no_rest(state: State) -> bool:
    """Leave nothing of what was dropped in the spool and in the file's WAL, and give the room back to the disk, in chunks that let others
    write; return False where readers keep the WAL from being emptied.
    """
    forgetting.sweep(state)
    while compact.shrink(state):
        state.yield_to_writers()
    return purges.empty_wal(state.db, forgetting.WAL_SECONDS)


def _keep(state: State, age: Age, today: int) -> int:
    place = purges.place(state.db, age.workload)
    after, total, more = (place[0] if place[1] in (0, today) else 0), 0, True
    for _ in range(PAGES_A_RUN):
        page = _page(state.db, age, after)
        if page.ids:
            with state.transaction() as db:
                found = drop(db, age, after)
            total += found.tasks
            state.yield_to_writers()
        after, more = (found.upto, found.more) if page.ids else (page.upto, page.more)
        if not more:
            break
    ended = 0 if more else today
    if (after, ended) != place:
        with state.transaction() as db:
            purges.drop_events_of_batches(db, age.workload, age.before)
            purges.note_place(db, age.workload, after, ended)
    return total
