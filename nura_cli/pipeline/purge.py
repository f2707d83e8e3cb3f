"""nura purge: what is kept of keys is forgotten, or what is old is dropped, because a person says so.

Of a key every version goes: record, answer, what was said about it, lines in the spool, and by the next polls what its providers
keep; its own text becomes a keyed hash, so that it is not paid for again by accident (with ``again`` that goes, too). A task that
waits is withdrawn, and nobody is told; what is under way settles, and is billed, as ever, is told to nobody, and is forgotten by the
reconcile that finds it at rest. By age, records and answers of what is settled and delivered go; the keys' digests stay. Attempts,
sums, batches, tags and remote ids always stay: recovery goes by them.

It takes no lock: each chunk is one transaction, which looks at its tasks anew. What can go wrong: killed half-way, it is run again;
a stage that is at work may say at its end what it read before, so the purge is run once more after it; a reader that never ends keeps
the WAL from being emptied, and that is said. What it cannot reach, it names.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nura_cli import contract, progress
from nura_cli.dialects.vendors import dialect as dialect_of
from nura_cli.errors import EX_PARTIAL, ProblemKind, StateError, UsageError
from nura_cli.pipeline import forgetting, quotes, retention
from nura_cli.pipeline.accounts import address
from nura_cli.pipeline.forgetting import Fate, Left
from nura_cli.pipeline.report import Problem, Report, counted
from nura_cli.pipeline.retention import Age
from nura_cli.pipeline.run import Run
from nura_cli.pipeline.symptoms import free_bytes
from nura_cli.state import State, actions, compact, purges, sizes, snapshots
from nura_cli.state.look import holders
from nura_cli.state.selection import Selection

if TYPE_CHECKING:
    from nura_cli.config import Config


@dataclass(kw_only=True)
class Purge(Run):
    """One run: what is meant, and what becomes of it.

    Attributes:
        chunks: the keys (in their text form) that are meant, in chunks, each of one workload: its id and name.
        again: whether the keys may be enqueued again.
        fates: by workload, how many keys have which fate.
        left: batches of which a provider is to keep nothing.
    """

    chunks: Sequence[tuple[int, str, list[str]]]
    again: bool
    fates: dict[str, Counter[Fate]] = field(default_factory=dict)
    left: int = 0

    def total(self, which: Fate) -> int:
        """Return how many keys have this fate."""
        return sum(fates[which] for fates in self.fates.values())


def plan(state: State, config: "Config", parts: Iterable[Selection], problems: list[Problem], *, again: bool) -> Purge:
    """Look at what would be forgotten; nothing is written.

    Args:
        parts: which keys, in parts.
        problems: those that there were before; more are added.
        again: whether the keys may be enqueued again, and paid for again.
    """
    job = Purge(state=state, config=config, chunks=list(_chunks(state, parts)), again=again, problems=problems)
    for workload, name, wanted in job.chunks:
        families = forgetting.by_key(purges.families(state.db, workload, wanted))
        job.fates.setdefault(name, Counter()).update(forgetting.fate(family) for family in families.values())
    return job


def _chunks(state: State, parts: Iterable[Selection]) -> Iterator[tuple[int, str, list[str]]]:
    for part in parts:
        for name, workload in purges.workloads(state.db, part.workloads).items():
            wanted = list(dict.fromkeys(part.keys or ()))
            for start in range(0, len(wanted), forgetting.CHUNK_KEYS):
                yield workload, name, wanted[start : start + forgetting.CHUNK_KEYS]


def question(job: Purge) -> str:
    """Return what would be done: ``2 keys of w are forgotten for good``."""
    said = []
    for name, fates in job.fates.items():
        now, later = fates[Fate.NOW], fates[Fate.LATER]
        if now + later:
            once = f", {later:,} of them once nothing of {'it' if later == 1 else 'them'} is under way" if later else ""
            said.append(
                f"{counted(now + later, 'key')} of {name} {'is' if now + later == 1 else 'are'} forgotten for good{once}"
            )
        if job.again and fates[Fate.BEFORE]:
            before = counted(fates[Fate.BEFORE], "key")
            said.append(f"{before} of {name}, forgotten before, may be enqueued, and paid for, again")
    return "; ".join(said)


def run(job: Purge) -> Report:
    """Forget what was planned, in chunks; then leave nothing of it in the spool and in the file.

    Returns:
        As :func:`report`.
    """
    state, why = job.state, job.state.db.why
    purges.erase(state.db)
    at_work = holders(state.path)
    job.fates.clear()
    for workload, name, wanted in job.chunks:
        done = forgetting.forget(state, workload, wanted, again=job.again)
        job.fates.setdefault(name, Counter()).update(done.fates)
        job.left += done.batches
        _note(job, name, wanted, done.fates)
        state.yield_to_writers()
    state.db.why = why
    left = forgetting.tidy(state)
    if left:
        job.note(_not_emptied(state, left))
    if at_work:
        names = " and ".join(at_work)
        text = f"{names} {'is' if len(at_work) == 1 else 'are'} at work, and may say at the end what was read before"
        job.note(Problem(ProblemKind.BUSY, text, EX_PARTIAL, "run this again after that", stays=False))
    return report(job, emptied=left is None)


def _note(job: Purge, name: str, wanted: Sequence[str], fates: Counter[Fate]) -> None:
    """Note in the log how many keys were forgotten, and never which; not even in the person's own words."""
    n = fates[Fate.NOW] + fates[Fate.LATER]
    if not n:
        return
    with job.state.transaction() as db:
        if db.why is not None:
            db.why = quotes.cleaner(wanted, ())(db.why)
        later = f", {fates[Fate.LATER]:,} of them once nothing is under way" if fates[Fate.LATER] else ""
        what = f"{counted(n, 'key')} {'is' if n == 1 else 'are'} forgotten{later}"
        actions.note(db, "purge", what, n, workload=name)


def _not_emptied(state: State, left: Left = Left.READERS) -> Problem:
    again = "run this again once that has ended"
    return replace(forgetting.untidy(state, left, again, EX_PARTIAL), stays=False)


def report(job: Purge, *, emptied: bool | None = None) -> Report:
    """Return what was done; without ``emptied`` (whether nothing is left in the WAL), what would be."""
    result: contract.Purged = {
        "purged": job.total(Fate.NOW),
        "later": job.total(Fate.LATER),
        "before": job.total(Fate.BEFORE),
        "workloads": {name: fates[Fate.NOW] for name, fates in job.fates.items() if fates[Fate.NOW]},
        "at_providers": len(purges.left_there(job.state.db)),
        "emptied": bool(emptied),
        "compacted": None,
        "out_of_reach": out_of_reach(job.state, {name: address(one) for name, one in job.config.providers.items()}),
        "dry_run": emptied is None,
    }
    return Report(result, job.problems, worked=bool(job.fates))


def out_of_reach(state: State, addresses: Mapping[str, str]) -> list[str]:
    """Return what may still hold what was forgotten, in words; ``addresses``: where the providers in the configuration are."""
    said = [
        f"{one.path}, a copy from before a migration, which reconcile removes in time"
        for one in snapshots.found(state.path)
    ]
    for batch in purges.left_there(state.db):
        if batch.provider not in addresses:
            said.append(f"what {batch.provider}, which is not in the configuration, keeps of batch {batch.id}")
        elif addresses[batch.provider] != batch.address:
            where = f"{batch.address}, where {batch.provider} is not any more"
            said.append(f"what {where}, keeps of batch {batch.id}")
    if compact.is_moved(state):
        said.append("what was replaced or moved within the state file before, until nura purge --compact")
    return [
        *said,
        "backups, and files that were enqueued",
        "the application's rows, and whoever was told",
        "logs, and what was printed",
        "what providers keep by themselves of requests that they answered",
    ]


# --- by age


@dataclass(kw_only=True)
class Aged(Run):
    """One run that drops what is old.

    Attributes:
        ages: what is old of each workload.
        tasks: by workload, how many answers would be dropped, or how many tasks were.
    """

    ages: Sequence[Age]
    tasks: Counter[str] = field(default_factory=Counter)


def plan_old(
    state: State, config: "Config", workloads: Sequence[str], seconds: int, *, read_to: int | None, undelivered: bool
) -> Aged:
    """Look at what would be dropped; nothing is written.

    Args:
        workloads: of these; of all, when empty.
        seconds: how old it is at least.
        read_to: only answers up to this seq, which somebody has read; None: those that were delivered.
        undelivered: whether what is not delivered goes, too.

    Raises:
        UsageError: a workload delivers nothing, and nobody says what of it was read.
    """
    names = list(workloads) or list(purges.workloads(state.db, ()))
    silent = [name for name in names if not retention.delivers(config.workloads.get(name))]
    if silent and read_to is None and not undelivered:
        raise UsageError(
            f"{', '.join(silent)}: {'delivers' if len(silent) == 1 else 'deliver'} nothing, so nobody knows which answers were read",
            hint="--read-to SEQ says up to which seq of nura results, --undelivered that all may go",
        )
    before = state.clock() - seconds
    ages = [Age(name, before, read_to, undelivered) for name in names]
    job = Aged(state=state, config=config, ages=ages)
    job.tasks.update({age.workload: n for age in ages if (n := retention.count(state, age))})
    return job


def question_old(job: Aged) -> str:
    """Return what would be done: ``20 answers of w are dropped for good, each with its record``."""
    return "; ".join(
        f"{counted(n, 'answer')} of {name} {'is' if n == 1 else 'are'} dropped for good, with {'its record' if n == 1 else 'their records'}"
        for name, n in job.tasks.items()
    )


def run_old(job: Aged) -> Report:
    """Drop what was planned, page by page; what is no longer as it was is left alone.

    Returns:
        As :func:`report`; ``purged`` counts tasks.
    """
    state = job.state
    purges.erase(state.db)
    job.tasks.clear()
    for age in job.ages:
        for found in _dropped(state, age):
            job.tasks[age.workload] += found
    emptied = retention.leave_no_rest(state)
    if not emptied:
        job.note(_not_emptied(state))
    return report_old(job, emptied=emptied)


def _dropped(state: State, age: Age) -> Iterator[int]:
    """Drop what is old of a workload, a page at a time, each with a row in the log; yield how many tasks that were."""
    after, more = 0, True
    while more:
        with state.transaction() as db:
            found = retention.drop(db, age, after)
            purges.drop_events_of_batches(db, age.workload, age.before)
            if found.tasks:
                what = f"{counted(found.tasks, 'task')} lost {'its record' if found.tasks == 1 else 'their records'} by age"
                actions.note(db, "purge", what, found.tasks, workload=age.workload)
        after, more = found.upto, found.more
        yield found.tasks
        state.yield_to_writers()


def report_old(job: Aged, *, emptied: bool | None = None) -> Report:
    """Return what was dropped; without ``emptied`` (whether nothing is left in the WAL), what would be."""
    result: contract.Purged = {
        "purged": job.tasks.total(),
        "later": 0,
        "before": 0,
        "workloads": {name: n for name, n in job.tasks.items() if n},
        "at_providers": 0,
        "emptied": bool(emptied),
        "compacted": None,
        "out_of_reach": [],
        "dry_run": emptied is None,
    }
    return Report(result, job.problems, worked=bool(job.tasks))


# --- the file


_BYTES_A_SECOND = 30_000_000
"""What is packed and written anew in a second, roughly."""


def plan_compact(state: State) -> contract.Compacted:
    """Return what compacting the file takes; where it has the newer layout already, and nothing of what was forgotten may be left in it,
    only its free pages are given back.
    """
    size = sizes.of(state.path).state
    due = compact.due(state) or compact.is_moved(state) or purges.has_traces(state.db)
    return {
        "before_bytes": size,
        "after_bytes": None,
        "needs_bytes": compact.needs(state) if due else 0,
        "seconds": 1 + (2 * size // _BYTES_A_SECOND if due else 0),
    }


def question_compact(found: contract.Compacted, path: str) -> str | None:
    """Return what compacting would do, and what it takes; None where there is nothing to agree to."""
    if not found["needs_bytes"]:
        return None
    return (
        f"{path} ({_megabytes(found['before_bytes'])}) is written anew in the newer layout, and closed to older releases: that needs"
        f" {_megabytes(found['needs_bytes'])} of disk meanwhile and about {found['seconds']:,} s, in the last half of which other writers wait"
    )


def _megabytes(n: int) -> str:
    return f"{n / 1e6:,.1f} MB"


def run_compact(state: State, found: contract.Compacted) -> tuple[contract.Compacted, list[Problem]]:
    """Bring the file into the newer layout where it has an earlier one, and give back what it does not need.

    Killed half-way it is a right file, and the next run goes on.

    Args:
        found: as :func:`plan_compact` gives it.

    Returns:
        The same, with the size after it; and that the file is not yet what it will be, where others read.

    Raises:
        StateError: there is not disk enough; or another process is in the way.
        Busy: a stage is at work, and may be an older release's.
    """
    free = free_bytes(state)
    if free is not None and free < found["needs_bytes"]:
        raise StateError(
            f"{state.path.parent} has {_megabytes(free)} left, and compacting needs {_megabytes(found['needs_bytes'])}: nothing was done",
            hint="free some room and run the same command again",
        )
    purges.erase(state.db)
    if found["needs_bytes"]:
        with progress.going("compacting", None) as step:
            compact.convert(
                state, lambda done, _: step.to(done), lambda name, endpoint: dialect_of(name).envelope(endpoint)
            )
        compact.vacuum(state)
    left = forgetting.leave_nothing(state, anew=bool(found["needs_bytes"]))
    after = sizes.of(state.path).state
    with state.transaction() as db:
        what = f"the state file is compacted, from {_megabytes(found['before_bytes'])} to {_megabytes(after)}"
        actions.note(db, "purge", what, 0)
    return {**found, "after_bytes": after}, [_not_emptied(state, left)] if left else []


def report_compact(
    found: contract.Compacted, problems: Sequence[Problem], *, dry_run: bool, before: Report | None
) -> Report:
    """Return what came of compacting, by itself or after what came ``before``, whose traces it removed, or met again."""
    if before is not None:
        kept = [one for one in before.problems if not (one.about or "").startswith("traces: ")]
        changed = {"compacted": found, "emptied": not dry_run and not problems}
        return replace(before, result={**before.result, **changed}, problems=[*kept, *problems])
    result: contract.Purged = {
        "purged": 0,
        "later": 0,
        "before": 0,
        "workloads": {},
        "at_providers": 0,
        "emptied": not dry_run and not problems,
        "compacted": found,
        "out_of_reach": [],
        "dry_run": dry_run,
    }
    return Report(result, list(problems), worked=not dry_run)
