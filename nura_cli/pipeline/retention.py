"""What is old is dropped: records and answers of what is settled and delivered, in bounded pages.

For nura purge --older-than, and for reconcile, where a workload says ``retention``. What nobody was told of stays, be it that it waits,
was given up, or that nothing was to be told of it; so does whatever is under way. The keys' digests stay: a line that comes in again is still a duplicate. Each page is one
transaction that looks anew at what it drops; killed in between, the next run goes on.
"""

from collections.abc import Iterator
from typing import NamedTuple

from nura_cli.clock import span, stamp
from nura_cli.config import WorkloadConfig
from nura_cli.errors import EX_OK, ProblemKind
from nura_cli.pipeline import forgetting
from nura_cli.pipeline.report import Problem
from nura_cli.pipeline.run import Run
from nura_cli.state import Connection, State, compact, purges
from nura_cli.state.purges import Seen
from nura_cli.states import is_about_task

PAGE = 2000
"""Answers that are looked at in one transaction."""
PAGES_A_RUN = 20
"""Pages that reconcile looks at for one workload in one run."""
LONGEST_PAUSE = 200 * 86400
"""Seconds between two runs after which the clock is still believed: a machine may be off for months; a clock that is wrong (an empty
battery, a mistyped year) is ahead by years.
"""
AGREED = 22 * 3600
"""Seconds after which a clock that has leapt, and goes on from there, is believed."""
LONGEST_DOUBT = 32 * 86400
"""Seconds between two runs after which it has leapt again instead."""
_NOTED = 3600
"""Seconds after which the time that a clock shows is noted anew."""
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


def believed(before: Seen, now: int) -> Seen:
    """Decide whether the clock is believed, so that nothing is dropped for years that did not pass; it is where ``doubted`` is 0.

    It is believed as long as it goes on, and from one run to another that is about a day later, or up to a month: after a longer
    pause nothing is dropped for a day, and neither is from a file of a release that noted no time.

    Args:
        before: what was known of it.
        now: the time that it shows, unix seconds.
    """
    goes_on = before.known and now <= before.known + LONGEST_PAUSE
    agrees = before.doubted and before.doubted + AGREED <= now <= before.doubted + LONGEST_DOUBT
    if goes_on or agrees:
        return Seen(now)
    return before if before.doubted <= now < before.doubted + AGREED else Seen(before.known, now)


def _is_right(job: Run, now: int, *, told: bool) -> bool:
    """Return whether the clock is believed; where it is not any more, say so, if that is to be ``told``."""
    before = purges.seen(job.state.db)
    found = believed(before, now)
    if found != before and (found.doubted or before.doubted or abs(found.known - before.known) >= _NOTED):
        with job.state.transaction() as db:
            purges.note_seen(db, found)
    if told and found.doubted and found.known:
        text = f"nothing is dropped for its age: the clock shows {stamp(now)}, {span(now - found.known)} after what it showed before"
        hint = (
            "where that is right, it goes on within a day or two by itself, and nura purge --older-than does it at once"
        )
        job.note(Problem(ProblemKind.STATE, text, EX_OK, hint, about="retention", stays=True))
    return not found.doubted


def keep(job: Run) -> int:
    """Drop what is older than the ``retention`` of each workload that has one, for a run of reconcile; return how many tasks.

    It looks at no more than :data:`PAGES_A_RUN` pages of answers a run, and goes on where the last run ended. The day after it has
    reached the end it begins anew at the oldest answer that is left. A clock that has leapt is not believed at once; that is said.
    """
    state, now = job.state, job.clock()
    kept = {one.name: one.retention for one in job.config.workloads.values() if one.retention is not None}
    if not _is_right(job, now, told=bool(kept)) or not kept:
        return 0
    purges.erase(state.db)
    total = sum(_keep(state, Age(name, now - seconds), now // _DAY) for name, seconds in kept.items())
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
