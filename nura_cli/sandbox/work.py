"""Working on a batch: read the requests, answer each, write the results shuffled, bill what was answered.

Streamed: what is kept in memory of a request is where its line lies, whatever the size of the batch.
"""

import json
import os
import random
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from nura_cli.sandbox import faults
from nura_cli.sandbox.exchange import private
from nura_cli.sandbox.faults import Fault
from nura_cli.sandbox.store import Settings, Store, digest

WINDOW = 86400
"""Seconds after which both vendors' batches expire."""
_BILL_ROWS = 5000
_SETTLE_SECONDS = 20.0
"""A request that asks after batches is answered after so long at the latest, and one batch more."""


class Reply(NamedTuple):
    """What a request comes to: the part it is written to, its line, its ending, and the tokens billed (None: not billed)."""

    part: str
    line: bytes
    ending: str
    usage: tuple[int, int] | None


class Request(NamedTuple):
    """One request of a batch: its custom_id, its body, and the bytes of its body."""

    custom_id: str
    body: Any
    raw: bytes


class Fate(NamedTuple):
    """What is to become of one request, and the fault behind it, if any."""

    ending: str  # answered, failed, invalid, expired, cancelled
    fault: Fault


Answer = Callable[[Request, Fate], Reply]


class Deadline(NamedTuple):
    """When a batch ends (unix seconds), how (``expired``, ``cancelled`` or in full) and which share of it is answered by then."""

    at: int
    ending: str | None
    share: float


def deadline(created_at: int, cancel_at: int | None, delay: int) -> Deadline:
    """Return the end of a batch that needs ``delay`` seconds: it is done, cancelled, or its 24 h are over."""
    window = min(delay, WINDOW)
    if cancel_at is not None and (delay == 0 or cancel_at < created_at + window):
        return Deadline(cancel_at, "cancelled", max(0, cancel_at - created_at) / delay if delay else 0.0)
    if delay > WINDOW:
        return Deadline(created_at + WINDOW, "expired", WINDOW / delay)
    return Deadline(created_at + delay, None, 1.0)


def encoded(line: dict[str, Any]) -> bytes:
    """Return a line as JSON in UTF-8; escaped where a request brought what UTF-8 cannot say."""
    try:
        return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(line, separators=(",", ":")).encode()


class Shuffled:
    """A file whose lines come out in another order than they went in: written once, copied by shuffled offsets."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = private(path)
        self._bounds = array("q", [0])

    def add(self, line: bytes) -> None:
        """Take a line."""
        self._file.write(line + b"\n")
        self._bounds.append(self._bounds[-1] + len(line) + 1)

    def write(self, target: Path, seed: str) -> None:
        """Write the lines to ``target``, shuffled, and remove the source."""
        self._file.flush()
        order = array("l", range(len(self._bounds) - 1))
        random.Random(seed).shuffle(order)  # noqa: S311 - it swaps in place, as a list would
        with private(target) as out:
            for n in order:
                start, end = self._bounds[n], self._bounds[n + 1]
                out.write(os.pread(self._file.fileno(), end - start, start))
        self._file.close()
        self._path.unlink(missing_ok=True)


class Outcome(NamedTuple):
    """What became of a batch: the written parts, how many requests ended how, and the tokens billed (input, output)."""

    parts: dict[str, Path]
    counts: dict[str, int]
    usage: tuple[int, int]


def run(
    store: Store,
    batch: dict[str, Any],
    requests: Iterator[Request],
    answer: Answer,
    stranger: Callable[[int], Reply],
    suffered: list[Fault],
    end: Deadline,
) -> Outcome:
    """Answer a batch's requests under the faults dealt to it. Work that was interrupted is done anew.

    Args:
        stranger: makes the n-th line of a request nobody sent.
    """
    parts: dict[str, Shuffled] = {}
    counts: dict[str, int] = {}
    bill: list[tuple[str, str, str, bytes, int, int]] = []
    used = [0, 0]
    missing, duplicate = faults.of(suffered, "missing"), faults.of(suffered, "duplicate")

    def put(reply: Reply) -> None:
        if reply.part not in parts:
            parts[reply.part] = Shuffled(store.folder / f"{batch['id']}.{reply.part}.tmp")
        parts[reply.part].add(reply.line)

    store.unbill(batch["id"])
    for number, request in enumerate(requests):
        reply = answer(request, _fate(suffered, number, request, end))
        counts[reply.ending] = counts.get(reply.ending, 0) + 1
        if reply.usage is not None:
            bill.append((batch["account"], batch["id"], request.custom_id, digest(request.raw), *reply.usage))
            used = [used[0] + reply.usage[0], used[1] + reply.usage[1]]
            if len(bill) >= _BILL_ROWS:
                store.bill(bill)
                bill.clear()
        if missing and faults.hits(missing, number, request.custom_id, request.raw):
            continue
        put(reply)
        if duplicate and faults.hits(duplicate, number, request.custom_id, request.raw):
            put(reply)
    foreign = faults.of(suffered, "foreign")
    for n in range(int(foreign.get("n", 3)) if foreign else 0):
        put(stranger(n))
    store.bill(bill)
    return Outcome(_written(store, batch, parts), counts, (used[0], used[1]))


def _written(store: Store, batch: dict[str, Any], parts: dict[str, Shuffled]) -> dict[str, Path]:
    written = {name: store.folder / f"{batch['id']}.{name}.part" for name in parts}
    seed = store.settings().seed
    for name, lines in parts.items():
        lines.write(written[name], f"{seed}:{batch['seq']}:{name}")
    return written


def _fate(suffered: list[Fault], number: int, request: Request, end: Deadline) -> Fate:
    if not suffered and end.share >= 1:
        return Fate("answered", {})

    def hit(fault: Fault) -> bool:
        return faults.hits(fault, number, request.custom_id, request.raw)

    for what, ending in (("cancel", "cancelled"), ("expire", "expired")):
        fault = faults.of(suffered, what)
        # The rows these two choose are those that still were answered.
        if fault is not None and not hit({"fraction": 0.5, **fault}):
            return Fate(ending, fault)
    if end.ending is not None and faults.draw({}, number) >= end.share:
        return Fate(end.ending, {})
    for what, ending in (("rows", "failed"), ("invalid", "invalid")):
        fault = faults.of(suffered, what)
        if fault is not None and hit(fault):
            return Fate(ending, fault)
    return Fate("answered", {})


Step = Callable[[Store, dict[str, Any], Settings], None]


def settle(store: Store, account: str, protocol: str, step: Step, batch_id: str | None = None) -> None:
    """Work on the batches of an account whose time has come: on one, or on all, for some seconds; the rest goes on next time.

    Args:
        step: moves one batch on; called by one thread of one process at a time.
    """
    settings, began = store.settings(), time.monotonic()
    for due in store.due(account, protocol, settings.delay, WINDOW):
        if batch_id in (None, due):
            with store.work():
                batch = store.batch(account, due)
                if batch is not None and batch["ended_at"] is None:
                    step(store, batch, settings)
        if time.monotonic() - began > _SETTLE_SECONDS:
            return


def exists(model: str, models: tuple[str, ...]) -> bool:
    """Return whether there is a model, by the settings."""
    return model in models if models else not model.startswith("no-such")
