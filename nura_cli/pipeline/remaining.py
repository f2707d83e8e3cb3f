"""What of some workloads is still to come, and whether it comes by itself: what ``nura run --wait`` stays for.

A task that is pending and a batch under way come by themselves, unless a person has to do something first: lift a hold, decide
about a batch, mend the configuration or a key. What can only be waited for, an outage or a threshold, does come by itself.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from nura_cli.config import WorkloadConfig
from nura_cli.errors import EX_PARTIAL, EX_TEMPFAIL, ProblemKind
from nura_cli.pipeline import holding
from nura_cli.pipeline.report import Problem, counted
from nura_cli.state import Connection, actions, batches, tasks
from nura_cli.state.batches import Batch
from nura_cli.states import TaskStatus

_FOR_A_PERSON = frozenset({ProblemKind.CONFIG, ProblemKind.KEY_REFUSED})
"""Problems that no waiting ends."""


class Remaining(NamedTuple):
    """What of some workloads is still to come.

    Attributes:
        pending: how many tasks of each wait.
        under_way: their batches that are not final.
        holds: what of theirs is held without an end: workloads by name, each in words.
    """

    workloads: Sequence[WorkloadConfig]
    pending: Mapping[str, int]
    under_way: Sequence[Batch]
    holds: Mapping[str, str]

    def __bool__(self) -> bool:
        return bool(self.under_way or any(self.pending.values()))

    @property
    def words(self) -> str:
        """What remains, in words."""
        waiting = counted(sum(self.pending.values()), "task waits", "tasks wait")
        return f"{waiting}, and {counted(len(self.under_way), 'batch is', 'batches are')} under way"


def look(db: Connection, workloads: Sequence[WorkloadConfig]) -> Remaining:
    """Return what of these workloads is still to come."""
    names = {one.name for one in workloads}
    found = {one.name: _held(db, one.name, one.provider) for one in workloads}
    return Remaining(
        workloads,
        {name: n for name, n in tasks.pending(db).items() if name in names},
        [batch for batch in batches.under_way(db) if batch.workload in names],
        {name: holding.described(one) for name, one in found.items() if one is not None},
    )


def _held(db: Connection, workload: str, provider: str) -> actions.Hold | None:
    """Return what holds a workload, or its provider, until a person releases it."""
    found = actions.held(db, workload, provider)
    return found if found is not None and found.until is None else None


def comes(left: Remaining, problems: Collection[Problem]) -> bool:
    """Return whether something of what remains comes by itself.

    Args:
        problems: what poll and dispatch met when they were last at it.
    """
    lasting = [found for found in problems if found.kind in _FOR_A_PERSON]
    return any(_batch_comes(batch, lasting) for batch in left.under_way) or any(
        _workload_comes(one, lasting)
        for one in left.workloads
        if left.pending.get(one.name) and one.name not in left.holds
    )


def _batch_comes(batch: Batch, lasting: Iterable[Problem]) -> bool:
    concerned = any(found.batch_id == batch.id or _of_provider(found, batch.provider) for found in lasting)
    return batch.held is None and not concerned


def _workload_comes(workload: WorkloadConfig, lasting: Iterable[Problem]) -> bool:
    return not any(
        (found.workload == workload.name and found.batch_id is None) or _of_provider(found, workload.provider)
        for found in lasting
    )


def _of_provider(found: Problem, provider: str) -> bool:
    """Return whether a problem is one of a whole provider."""
    return found.provider == provider and found.workload is None and found.batch_id is None


def stuck(left: Remaining) -> Problem:
    """Return the problem that nothing of what remains comes by itself."""
    held = "".join(f"; {words}" for name, words in left.holds.items() if left.pending.get(name))
    text = f"{left.words}: nothing of it moves before a person does something{held}"
    return Problem(ProblemKind.HELD, text, EX_PARTIAL, hint="nura status says what to do")


def late(left: Remaining, seconds: int) -> Problem:
    """Return the problem that something still remains after so many seconds."""
    return Problem(ProblemKind.TIMEOUT, f"{left.words} after {seconds} seconds", EX_TEMPFAIL)


def failed(db: Connection, workloads: Sequence[WorkloadConfig]) -> dict[str, int]:
    """Return how many tasks of each of these workloads have failed."""
    queues = {queue.id: queue.workload for queue in tasks.queues(db)}
    found = dict.fromkeys((one.name for one in workloads), 0)
    for (queue, status, superseded), n in tasks.counts(db).items():
        if status is TaskStatus.FAILED and not superseded and queues.get(queue) in found:
            found[queues[queue]] += n
    return found


def failed_meanwhile(before: Mapping[str, int], after: Mapping[str, int], problems: Iterable[Problem]) -> list[Problem]:
    """Return as problems that tasks failed, where no problem says so: another run was quicker to settle them."""
    said = {found.workload for found in problems if found.kind is ProblemKind.TASK}
    return [
        Problem(
            ProblemKind.TASK,
            f"{name}: {counted(n - before.get(name, 0), 'task')} failed",
            EX_PARTIAL,
            hint=f"see nura results {name} --status failed",
            workload=name,
        )
        for name, n in after.items()
        if n > before.get(name, 0) and name not in said
    ]
