"""What a workload's answers set off, and whether what waits has somebody to go to.

*That* a row and which events are due is kept with a batch when it is claimed (:class:`~nura_cli.state.outbox.Plan`). *How*
they are delivered, the table, the columns, the address, comes from the configuration of the day.
"""

import hashlib
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from nura_cli.pipeline.report import counted
from nura_cli.state.outbox import Left, Plan, row_target

if TYPE_CHECKING:
    from nura_cli.config import Config, EventConfig, WorkloadConfig  # status does without, where nothing waits


def plan_of(config: "Config", workload: str) -> Plan:
    """Return what today's configuration says the answers of a workload set off; nothing, where it left the configuration."""
    options = config.workloads.get(workload)
    if options is None:
        return Plan()
    events: dict[str, tuple[str, ...]] = {}
    for event in options.events:
        for kind in event.types:
            events[kind] = (*events.get(kind, ()), target_of(event))
    return Plan(frozenset(written(options)), events)


def written(workload: "WorkloadConfig") -> list[str]:
    """Return the statuses of the tasks for which a workload writes a row."""
    options = workload.write_back
    if options is None:
        return []
    columns = {"completed": options.set_, "failed": options.set_failed, "cancelled": options.set_cancelled}
    return [status for status, mapping in columns.items() if mapping]


def target_of(event: "EventConfig") -> str:
    """Return what stands for a receiver in the state file: a hash, since an address may hold a secret."""
    named = json.dumps([event.command, event.webhook])
    return hashlib.sha256(named.encode()).hexdigest()[:16]


class Unowned(NamedTuple):
    """Deliveries that wait for what is not in the configuration: how it is said, and what a person is to do."""

    left: Left
    message: str
    hint: str


def unowned(left: Iterable[Left], workloads: "Mapping[str, WorkloadConfig]") -> Iterator[Unowned]:
    """Find what waits for a table or a receiver that is no longer in the configuration, or has another address there."""
    for one in left:
        workload = workloads.get(one.workload)
        if one.status == "pending" and (workload is None or one.target not in _targets(workload, one.kind)):
            n = counted(one.n, f"{one.kind} waits", f"{one.kind}s wait")
            whom, option = _missing(one, workload)
            text = f"{one.workload}: {n} for {whom} that is no longer in the configuration"
            close = f"nura redeliver {shlex.quote(one.workload)} --{one.kind}s --drop"
            yield Unowned(one, text, f"put workloads.{one.workload}{option} back until they are delivered; or {close}")


def _targets(workload: "WorkloadConfig", kind: str) -> set[str]:
    if kind == "row":
        return {row_target(status) for status in written(workload)}
    return {target_of(event) for event in workload.events}


def _missing(one: Left, workload: "WorkloadConfig | None") -> tuple[str, str]:
    """Return what a delivery waits for, in words, and the option below the workload's that it stood under."""
    if one.kind == "event":
        return "a receiver", ".events" if workload else ""
    if workload is None or workload.write_back is None:
        return "a table", ".write_back" if workload else ""
    return f"a {one.target}", f".write_back.{one.target}"
