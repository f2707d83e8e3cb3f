"""nura status: where everything stands, and what needs a person.

Takes the state file; leaves it as it is. It looks at counts, batches under way, last runs and the words of the newest
failures, never at all tasks, and is right while other stages run. It needs no key and speaks to nobody.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from nura_cli.clock import rfc3339, stamp
from nura_cli.errors import UsageError
from nura_cli.pipeline import attention, backoff, failures, holding
from nura_cli.pipeline.report import Report, batch_dicts
from nura_cli.pipeline.symptoms import Configured, free_bytes, oldest_pending
from nura_cli.pricing import decimal_dollars
from nura_cli.state import State, actions, answers, batches, outbox, purges, runs, sizes, snapshots, tasks, waits
from nura_cli.state.answers import Totals
from nura_cli.state.batches import Batch
from nura_cli.states import TaskStatus

if TYPE_CHECKING:
    from nura_cli import contract

_NOTHING = Totals(0, 0, 0, 0, 0, 0)


def run(state: State, configured: Configured, *, only: Sequence[str] = ()) -> Report:
    """Say where everything stands.

    Args:
        configured: what is known of the configuration; its workloads are shown though nothing of them is there.
        only: the workloads, their batches and figures that are meant; all, when empty. What needs a person, the stages and the
            pauses are told of the whole.
    """
    now, oldest = state.clock(), oldest_pending(state.db)
    every = tasks.queues(state.db)
    names = _names([*configured.providers, *(queue.workload for queue in every)], only)
    queues = [queue for queue in every if queue.workload in names]
    ids = {queue.id for queue in queues}
    counts = {key: n for key, n in tasks.counts(state.db).items() if key[0] in ids}
    totals = {queue: total for queue, total in answers.totals(state.db).items() if queue in ids}
    open_batches = batches.under_way(state.db)
    under_way = [batch for batch in open_batches if batch.workload in names]
    left = outbox.left(state.db)
    unknown = _unknown_costs(state, under_way)
    failed, dead = failures.of_tasks(state.db, names), failures.of_deliveries(state.db, names, left)
    waiting, purged, wished = waits.waits(state.db), purges.counted(state.db), purges.wishes(state.db)
    by_workload: dict[str, contract.WorkloadStatus] = {
        name: {
            **_workload([queue.id for queue in queues if queue.workload == name], counts, totals, unknown),
            "purged": sum(purged.get(queue.id, 0) for queue in queues if queue.workload == name),
            "to_be_purged": sum(wished.get(queue.id, 0) for queue in queues if queue.workload == name),
            "oldest_pending_seconds": max(0, now - oldest[name]) if name in oldest else None,
            "waits": [_wait(one) for one in waiting if one.workload == name],
            "failures": failed[name],
            "dead_deliveries": dead[name],
        }
        for name in names
    }
    needs = attention.everything(state, open_batches, left, oldest, configured)
    result: contract.Status = {
        "tasks": _tasks(counts),
        "workloads": by_workload,
        "batches": batch_dicts(under_way),
        "stages": _stages(state),
        "paused": _paused(state, now),
        "holds": [{**holding.as_dict(hold), "message": holding.described(hold)} for hold in actions.holds(state.db)],
        "snapshots": _snapshots(state),
        "disk": {"folder": str(state.path.parent), "free_bytes": free_bytes(state), **_sizes(sizes.of(state.path))},
        "deliveries": {name: deliveries([one for one in left if one.workload == name]) for name in names},
        "purged_at_providers": purges.count_left_there(state.db),
        "attention": [need.as_dict() for need in needs],
        **_spent(list(totals.values()), unknown.total()),
    }
    return Report(result, worked=True)


def _sizes(found: sizes.Sizes) -> "contract.Sizes":
    return {"state_bytes": found.state, "wal_bytes": found.wal, "spool_bytes": found.spool}


def _names(known: Iterable[str], only: Sequence[str]) -> list[str]:
    """Return the workloads that are meant, each once. Raises UsageError: one is known nowhere."""
    names = list(dict.fromkeys(known))
    for name in only:
        if name not in names:
            raise UsageError(f"no workload {name}", hint=f"there is {', '.join(names) or 'none'}")
    return [name for name in names if not only or name in only]


def _workload(
    ids: Sequence[int],
    counts: Mapping[tuple[int, TaskStatus, bool], int],
    totals: Mapping[int, Totals],
    unknown: Counter[int],
) -> "contract.WorkloadFigures":
    """Return what stands of a workload, whose queues are ``ids``."""
    return {
        "tasks": _tasks({key: n for key, n in counts.items() if key[0] in ids}),
        **_spent([totals[queue] for queue in ids if queue in totals], sum(unknown[queue] for queue in ids)),
    }


def deliveries(left: Iterable[outbox.Left]) -> "contract.Deliveries":
    """Return how many of a workload's deliveries wait (``pending``), and how many were refused for good."""
    found = Counter[tuple[str, bool]]()
    for one in left:
        found[one.kind, one.status == "pending"] += one.n
    return {
        "rows": {"pending": found["row", True], "failed": found["row", False]},
        "events": {"pending": found["event", True], "dead": found["event", False]},
    }


def _wait(found: waits.Waits) -> "contract.WaitFound":
    return {
        "model": found.model or None,
        "tasks": found.n,
        "why": found.why,
        "since": stamp(found.since),
        "until": rfc3339(found.until),
        "message": found.words,
    }


def _tasks(counts: Mapping[tuple[int, TaskStatus, bool], int]) -> "contract.TaskCounts":
    """Add counts up by state; what is superseded counts as that alone."""
    found = Counter[str]()
    for (_, status, superseded), n in counts.items():
        found["superseded" if superseded else str(status)] += n
    return cast("contract.TaskCounts", {name: found[name] for name in (*map(str, TaskStatus), "superseded")})


def _unknown_costs(state: State, under_way: Iterable[Batch]) -> Counter[int]:
    """Return by queue how many tasks may have been paid for by a batch that has ended, and of which something is missing."""
    found: Counter[int] = Counter()
    for batch in under_way:
        if batch.held and (batch.absent_at is not None or batch.short_at is not None):
            found[batch.queue_id] += tasks.outstanding(state.db, batch.id)
    return found


def _spent(rows: list[Totals], unknown: int) -> "contract.Spent":
    total = Totals(*(sum(column) for column in zip(*rows, strict=True))) if rows else _NOTHING
    return {
        "usage": {
            "input_tokens": total.input_tokens,
            "cached_input_tokens": total.cached_input_tokens,
            "output_tokens": total.output_tokens,
        },
        "cost": {
            "currency": "USD",
            "paid": decimal_dollars(total.cost),
            "list": decimal_dollars(total.list_cost),
            "saved": decimal_dollars(total.list_cost - total.cost),
            "unpriced_tasks": total.unpriced + unknown,
        },
    }


def _stages(state: State) -> "dict[str, contract.LastRun]":
    return {
        stage: {
            "started_at": stamp(run.started_at),
            "ok_at": rfc3339(run.ok_at),
            "exit_code": run.exit_code,
            "message": run.message,
        }
        for stage, run in runs.runs(state.db).items()
    }


def _snapshots(state: State) -> "list[contract.Snapshot]":
    """Return the copies from before migrations that lie beside the state file."""
    return [
        {
            "path": str(one.path),
            "version": one.version,
            "bytes": one.bytes,
            "made_at": stamp(one.made_at),
            "kept_until": stamp(one.made_at + snapshots.KEPT_SECONDS),
        }
        for one in snapshots.found(state.path)
    ]


def _paused(state: State, now: int) -> "list[contract.Pause]":
    routes: list[contract.Pause] = [
        {
            "provider": route.provider,
            "endpoint": route.endpoint or None,
            "model": route.model or None,
            "until": stamp(route.paused_until),
            "why": route.why,
        }
        for route in runs.routes(state.db)
        if backoff.until(route.paused_until, now)
    ]
    receivers: list[contract.Pause] = [
        {"provider": None, "endpoint": None, "model": None, "until": stamp(rest.paused_until), "why": rest.why}
        for rest in outbox.pauses(state.db)
        if backoff.until(rest.paused_until, now)
    ]
    return routes + receivers
