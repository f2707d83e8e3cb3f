"""What tells that the spool as a whole is not well, as what needs a person: that nothing runs, or that what ran went wrong.

Each is a pure look at the state file, its disk and the configuration; what is wrong with single batches and deliveries is
:mod:`nura_cli.pipeline.attention`'s.
"""

import os
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from nura_cli.clock import rfc3339, span
from nura_cli.errors import ConfigError
from nura_cli.pipeline.failures import argument
from nura_cli.pipeline.person import Need
from nura_cli.pipeline.report import counted
from nura_cli.state import Connection, State, actions, failures, outbox, runs, tasks
from nura_cli.state.batches import Batch
from nura_cli.states import NeedKind

if TYPE_CHECKING:
    from nura_cli.config import Config, WorkloadConfig

LATELY = 26 * 3600
"""Seconds for which a failure needs a person: a day, and two hours in which somebody who looks once a day may be late."""
ROOM = 64 * 1000**2
"""Bytes that should be free on the disk, beside what is under way."""
_MOST_FAILED = 50_000
"""Failed tasks that are counted; that many are said to be as many or more."""
_STAGES = ("dispatch", "poll", "reconcile")
CONFIGURATION = "configuration"
"""Under this name the state file has the digest of the configuration that last loaded (:func:`outbox.remember_good`)."""


class Alert(NamedTuple):
    """Seconds after which what waits needs a person: None for never.

    Attributes:
        oldest_pending: a task has been pending for so long.
        no_success: work waits, and no stage has ended well for so long.
    """

    oldest_pending: int | None = 26 * 3600
    no_success: int | None = 2 * 3600


class Configured(NamedTuple):
    """What is known of the configuration by a command that does without most of it.

    Attributes:
        providers: the configured workloads, each with the name of its provider, right or wrong; empty where that is not known.
        load: gives the workloads themselves, or raises ConfigError; None where no configuration is given.
        digest: of its file: where a stage has loaded the same one, it is not loaded again to see whether it can be.
        alert: when waiting needs a person.
    """

    providers: Mapping[str, str | None] = {}
    load: "Callable[[], Mapping[str, WorkloadConfig]] | None" = None
    digest: str | None = None
    alert: Alert = Alert()


def loaded(config: "Config") -> Configured:
    """Return what is known of a configuration that was loaded: all."""
    providers = {name: one.provider for name, one in config.workloads.items()}
    alert = Alert(config.alert.oldest_pending, config.alert.no_success)
    return Configured(providers, lambda: config.workloads, config.digest, alert)


def configuration(
    db: Connection, configured: Configured, left: Iterable[outbox.Left]
) -> "tuple[Mapping[str, WorkloadConfig] | None, list[Need]]":
    """Return the configured workloads, where deliveries wait for something in them, and whether the configuration is wrong."""
    good = configured.digest is not None and configured.digest == outbox.known_good(db, CONFIGURATION)
    if configured.load is None or (good and not any(one.status == "pending" for one in left)):
        return None, []
    try:
        return configured.load(), []
    except ConfigError as error:
        first, *others = error.message.splitlines()
        more = f", and {counted(len(others), 'more problem')}" if others else ""
        need = Need(
            NeedKind.CONFIGURATION,
            f"the configuration cannot be used, and no stage runs: {first}{more}",
            "mend it, and see whether all is well: nura check",
            workload=error.workload,
        )
        return None, [need]


def full_disk(state: State, under_way: Iterable[Batch]) -> list[Need]:
    """Return that the disk is nearly full: results as large as the requests under way would not fit, beside :data:`ROOM`."""
    folder = state.path.parent
    free, wanted = free_bytes(state), ROOM + sum(batch.bytes for batch in under_way)
    if free is None or free >= wanted:
        return []
    return [
        Need(
            NeedKind.DISK,
            f"{folder} has {free / 1e6:,.0f} MB left, and what is under way may need {wanted / 1e6:,.0f} MB: a full disk stops"
            " the stages",
            f"free some room: df -h {shlex.quote(str(folder))}; nothing is lost, and what stops goes on by itself",
        )
    ]


def free_bytes(state: State) -> int | None:
    """Return the bytes that are free for this user where the state file lies; None where nothing can be written anyway."""
    try:
        found = os.statvfs(state.path.parent)
    except OSError:
        return None
    return None if found.f_flag & os.ST_RDONLY else found.f_bavail * found.f_frsize


def failed_enqueues(db: Connection) -> list[Need]:
    """Return the workloads whose last enqueue failed, lately, and was not followed by one that ended well."""
    return [
        Need(
            NeedKind.ENQUEUE,
            f"{run.workload}: the last enqueue ({rfc3339(run.at)}) ended with exit code {run.exit_code}: {run.message}",
            f"nura log {shlex.quote(run.workload)}; mend it, and enqueue the same again",
            workload=run.workload,
        )
        for run in runs.last_enqueues(db, db.now - LATELY)
        if run.exit_code and run.exit_code < 128  # above: somebody stopped it
    ]


def failed_tasks(db: Connection) -> list[Need]:
    """Return the workloads of which tasks failed lately, and still are failed."""
    found = failures.lately(db, db.now - LATELY, _MOST_FAILED)
    return [
        Need(
            NeedKind.TASKS_FAILED,
            f"{one.workload}: {counted(one.kinds.total(), 'task')}{' or more' if found.cut else ''} failed in the last"
            f" {LATELY // 3600}h: {_kinds(one.kinds)}",
            f"nura show {shlex.quote(one.workload)} {argument(one.key)}; once it is mended, nura retry {shlex.quote(one.workload)}",
            workload=one.workload,
        )
        for one in found.workloads
    ]


def _kinds(kinds: Counter[str]) -> str:
    """Return kinds of errors, the most frequent first: ``render``, where there is one kind, else ``8 refused, 2 render``."""
    if len(kinds) == 1:
        return next(iter(kinds))
    return ", ".join(f"{n:,} {kind}" for kind, n in kinds.most_common())


def waiting(
    state: State,
    configured: Configured,
    oldest: Mapping[str, int],
    under_way: Iterable[Batch],
    count: Mapping[str, int],
) -> list[Need]:
    """Return that work has waited for too long: for any stage, and each workload's own.

    What a person did about a workload starts its time anew, and what a person holds waits for that person.

    Args:
        oldest: when the oldest pending task of each workload was enqueued, unix seconds.
        under_way: the batches that are not final.
        count: how many tasks of each workload are pending.
    """
    db, now, alert = state.db, state.clock(), configured.alert
    held = {(hold.scope, hold.name) for hold in actions.holds(db)}
    touched = actions.newest(db, now - max(alert.oldest_pending or 0, alert.no_success or 0))
    since = {
        name: max(at, touched.get(name, 0), touched.get(None, 0))
        for name, at in oldest.items()
        if ("workload", name) not in held and ("provider", configured.providers.get(name)) not in held
        if not configured.providers or name in configured.providers
    }
    going = [batch.submitted_at or batch.created_at for batch in under_way if not batch.held]
    return [
        *(_no_success(db, [*since.values(), *going], alert.no_success) if alert.no_success is not None else ()),
        *(
            _pending(name, now - at, count.get(name, 0))
            for name, at in since.items()
            if alert.oldest_pending is not None and now - at >= alert.oldest_pending
        ),
    ]


def _no_success(db: Connection, waiting_since: list[int], bound: int) -> list[Need]:
    """Return that work has waited for ``bound`` seconds, and that no stage has ended well in that time."""
    last = max((run.ok_at or 0 for stage, run in runs.runs(db).items() if stage in _STAGES), default=0)
    if not waiting_since or db.now - max(min(waiting_since), last) < bound:
        return []
    ago = f"for {span(db.now - last)}" if last else "yet"
    return [
        Need(
            NeedKind.NO_SUCCESS,
            f"work waits, and no stage has ended well {ago}",
            "nura run -v; if that ends well, see that cron runs it (crontab -l), as whom, and what it mails",
        )
    ]


def _pending(name: str, seconds: int, n: int) -> Need:
    return Need(
        NeedKind.OLDEST_PENDING,
        f"{name}: {counted(n, 'task is', 'tasks are')} pending, the oldest for {span(seconds)}",
        f"nura dispatch --dry-run {shlex.quote(name)} says what they wait for; where that is right, alert: oldest_pending",
        workload=name,
    )


def unconfigured(pending: Mapping[str, int], configured: Configured) -> list[Need]:
    """Return the workloads that have left the configuration with tasks still waiting, as what needs a person."""
    return [
        Need(
            NeedKind.UNCONFIGURED,
            f"{name}: {counted(n, 'task waits', 'tasks wait')}, and it is no longer in"
            " the configuration: nothing sends them",
            f"put workloads.{name} back; what it holds can then be sent with: nura dispatch {name}",
            workload=name,
        )
        for name, n in pending.items()
        if configured.providers and name not in configured.providers and n
    ]


def oldest_pending(db: Connection) -> dict[str, int]:
    """Return when the oldest pending task of each workload was enqueued, unix seconds; one without such has no entry."""
    found: dict[str, int] = {}
    for queue in tasks.queues(db):
        at = tasks.oldest_pending(db, queue.id)
        if at is not None:
            found[queue.workload] = min(at, found.get(queue.workload, at))
    return found
