"""What status found, as metrics: the text format that Prometheus reads, from a file that its node_exporter collects.

The format: https://github.com/prometheus/docs/blob/main/docs/instrumenting/exposition_formats.md (text, 0.0.4). Names and
units are as https://prometheus.io/docs/practices/naming/ asks for: seconds, bytes, dollars; what only grows ends with _total.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nura_cli import __version__
from nura_cli.clock import parse
from nura_cli.states import NeedKind

Sample = tuple[Mapping[str, str], Any]
"""The labels of one value, and the value: a number, or a decimal as text; None where there is none, and nothing is told."""


def text(found: Mapping[str, Any], now: int) -> str:
    """Return the result of status as metrics.

    Args:
        now: unix seconds, for who wants to know how old they are.
    """
    return "".join(f"{line}\n" for line in _lines(found, now))


def _lines(found: Mapping[str, Any], now: int) -> Iterator[str]:
    yield from _family("build_info", "gauge", "The version of nura that wrote this.", [({"version": __version__}, 1)])
    yield from _family("status_timestamp_seconds", "gauge", "When this was written.", [({}, now)])
    yield from _family("attention", "gauge", "What needs a person, by kind; nura status says it.", _needs(found))
    yield from _family("disk_free_bytes", "gauge", "Room where the state file is.", [({}, found["disk"]["free_bytes"])])
    yield from _workloads(found["workloads"])
    batches = Counter((one["workload"], one["provider"], one["status"]) for one in found["batches"])
    yield from _family(
        "batches",
        "gauge",
        "Batches under way.",
        [({"workload": name, "provider": provider, "status": it}, n) for (name, provider, it), n in batches.items()],
    )
    yield from _family("deliveries", "gauge", "Rows and events that wait, or were given up.", _deliveries(found))
    yield from _stages(found["stages"])
    yield from _family("holds", "gauge", "Workloads and providers that are held.", [({}, len(found["holds"]))])
    yield from _family("pauses", "gauge", "What is paused for a while.", [({}, len(found["paused"]))])


def _needs(found: Mapping[str, Any]) -> list[Sample]:
    counts = Counter(need["kind"] for need in found["attention"])
    return [({"kind": str(kind)}, counts[kind]) for kind in NeedKind]


def _workloads(rows: Mapping[str, Any]) -> Iterator[str]:
    tasks = [({"workload": name, "status": it}, n) for name, row in rows.items() for it, n in row["tasks"].items()]
    yield from _family("tasks", "gauge", "Tasks by what became of them.", tasks)

    def each(name: str, kind: str, what: str, *path: str) -> Iterator[str]:
        samples: list[Sample] = []
        for workload, row in rows.items():
            value: Any = row
            for part in path:
                value = value[part]
            samples.append(({"workload": workload}, value))
        return _family(name, kind, what, samples)

    yield from each(
        "oldest_pending_seconds", "gauge", "How long the oldest pending task has waited.", "oldest_pending_seconds"
    )
    for kind in ("input", "cached_input", "output"):
        what = f"Tokens of this kind ({kind}) that answers used."
        yield from each(f"{kind}_tokens_total", "counter", what, "usage", f"{kind}_tokens")
    yield from each("cost_dollars_total", "counter", "What was paid, in US dollars.", "cost", "paid")
    yield from each("list_cost_dollars_total", "counter", "What the same costs synchronously.", "cost", "list")
    yield from each("unpriced_tasks", "gauge", "Attempts of which the price is not known.", "cost", "unpriced_tasks")


def _deliveries(found: Mapping[str, Any]) -> list[Sample]:
    return [
        ({"workload": name, "kind": kind, "status": status}, n)
        for name, kinds in found["deliveries"].items()
        for kind, statuses in kinds.items()
        for status, n in statuses.items()
    ]


def _stages(stages: Mapping[str, Any]) -> Iterator[str]:
    def each(name: str, what: str, field: str, value: Any) -> Iterator[str]:
        samples = [({"stage": stage}, value(run[field])) for stage, run in stages.items() if run[field] is not None]
        return _family(name, "gauge", what, samples)

    yield from each("stage_started_timestamp_seconds", "When it last began.", "started_at", parse)
    yield from each("stage_success_timestamp_seconds", "When it last ended well.", "ok_at", parse)
    yield from each("stage_exit_code", "How it last ended.", "exit_code", int)


def _family(name: str, kind: str, what: str, samples: Iterable[Sample]) -> Iterator[str]:
    """Yield the lines of one metric; none where it has no value."""
    lines = [f"nura_{name}{_labels(labels)} {value}" for labels, value in samples if value is not None]
    if lines:
        yield f"# HELP nura_{name} {what}"
        yield f"# TYPE nura_{name} {kind}"
        yield from lines


def _labels(labels: Mapping[str, str]) -> str:
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
