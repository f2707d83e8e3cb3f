"""Working on a batch: read the requests, answer each, write the results shuffled, bill what was answered.

Streamed: what is kept in memory of a request is where its line lies, whatever the size of the batch.
"""

import json
import os
import random
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from nura_cli.sandbox import faults, oddities, quotas
from nura_cli.sandbox.exchange import private
from nura_cli.sandbox.faults import Fault
from nura_cli.sandbox.store import Settings, Store, digest

WINDOW = 86400
"""Seconds after which both vendors' batches expire."""
_BILL_ROWS = 5000
_ROW_FAULTS = frozenset({"missing", "duplicate", "renamed", "short", "late_id", "odd", "patch"})
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

    ending: str  # answered, failed, invalid, unpaid, expired, cancelled
    fault: Fault


Answer = Callable[[Request, Fate], Reply]


class Deadline(NamedTuple):
    """When a batch ends (unix seconds), how (``expired``, ``cancelled`` or in full) and which share of it is answered by then."""

    at: int
    ending: str | None
    share: float


def deadline(batch: Mapping[str, Any], settings: Settings) -> Deadline:
    """Return the end of a batch: it is done, its cancellation is, or its 24 h are over."""
    created_at, cancel_at, delay = batch["created_at"], batch["cancel_at"], settings.delay
    window = min(delay, WINDOW)
    if cancel_at is not None and (delay == 0 or cancel_at < created_at + window):
        at = cancel_at + settings.cancel_delay
        at = min(at, created_at + window) if delay else at
        return Deadline(at, "cancelled", max(0, at - created_at) / delay if delay else 0.0)
    if delay > WINDOW:
        return Deadline(created_at + WINDOW, "expired", WINDOW / delay)
    return Deadline(created_at + delay, None, 1.0)


def takes_time(batch: Mapping[str, Any], settings: Settings) -> bool:
    """Return whether a batch ends by the clock, and not as soon as somebody asks after it."""
    return bool(settings.delay if batch["cancel_at"] is None else settings.cancel_delay)


def waiting(rows: Iterable[Mapping[str, Any]], settings: Settings, at: float, *, for_ever: bool) -> quotas.Load:
    """Return what a queue holds at a time (unix seconds).

    Args:
        rows: the batches that may be in it (:meth:`nura_cli.sandbox.store.Store.waiting`). Nobody may have asked yet after one
            that has ended by the clock; one that does not end by it is there until somebody asks.
        for_ever: no batch ends.
    """

    def holds(row: Mapping[str, Any]) -> bool:
        ended = row["ended_at"]
        if ended is None and (for_ever or not takes_time(row, settings)):
            return True
        return bool((deadline(row, settings).at if ended is None else ended) + settings.release_delay > at)

    held = [row for row in rows if holds(row)]
    return quotas.Load(sum(row["tokens"] for row in held), sum(row["total"] for row in held))


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


class _Bill:
    """The bill of one batch, written some thousand requests at a time; what an interrupted work wrote is forgotten."""

    def __init__(self, store: Store, batch: dict[str, Any]) -> None:
        self._store = store
        self._of = (batch["account"], batch["id"])
        self._day = quotas.day_of(batch["created_at"])
        self._rows: list[tuple[str, str, str, bytes, int, int]] = []
        self._models: dict[str, tuple[int, int, int, float]] = {}
        self._prices = store.settings().prices
        store.unbill(batch["id"])
        self._left = store.left(batch["account"])

    @property
    def unpaid(self) -> bool:
        """Whether the account may spend no more."""
        return self._left <= 0

    @property
    def used(self) -> tuple[int, int]:
        """The tokens billed (input, output)."""
        return sum(of[1] for of in self._models.values()), sum(of[2] for of in self._models.values())

    def add(self, request: Request, usage: tuple[int, int]) -> None:
        """Bill a request's tokens (input, output)."""
        self._rows.append((*self._of, request.custom_id, digest(request.raw), *usage))
        model = str(request.body.get("model"))
        cost = quotas.cost(self._prices, model, usage, batch=True)
        self._left -= cost
        requests, given, said, spent = self._models.get(model, (0, 0, 0, 0.0))
        self._models[model] = (requests + 1, given + usage[0], said + usage[1], spent + cost)
        if len(self._rows) >= _BILL_ROWS:
            self.write()

    def close(self) -> None:
        """Write what is not written yet, and what all of it costs."""
        self.write()
        self._store.spend((*self._of, model, self._day, *of) for model, of in self._models.items())

    def write(self) -> None:
        """Write what is not written yet."""
        self._store.bill(self._rows)
        self._rows.clear()


class Outcome(NamedTuple):
    """What became of a batch.

    Attributes:
        parts: the written parts.
        short: those parts' short forms, without the rows that come later, where a fault wants them.
        counts: how many requests ended how.
        usage: the tokens billed (input, output).
    """

    parts: dict[str, Path]
    short: dict[str, Path]
    counts: dict[str, int]
    usage: tuple[int, int]


class _Parts:
    """The parts that a batch's lines are written to, each made when its first line comes."""

    def __init__(self, store: Store, batch: dict[str, Any], form: str = "") -> None:
        self._store = store
        self._batch = batch
        self._form = form
        self._parts: dict[str, Shuffled] = {}

    def part(self, name: str) -> Shuffled:
        """Return a part."""
        if name not in self._parts:
            self._parts[name] = Shuffled(self._path(name, "tmp"))
        return self._parts[name]

    def _path(self, name: str, suffix: str) -> Path:
        return self._store.folder / f"{self._batch['id']}.{name}{self._form}.{suffix}"

    def written(self) -> dict[str, Path]:
        """Write the parts; return where each lies."""
        paths = {name: self._path(name, "part") for name in self._parts}
        seed = self._store.settings().seed
        for name, lines in self._parts.items():
            lines.write(paths[name], f"{seed}:{self._batch['seq']}:{name}")
        return paths


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
    parts, short = _Parts(store, batch), _Parts(store, batch, ".short")
    shortened = faults.of(suffered, "short") is not None
    counts: dict[str, int] = {}
    bill = _Bill(store, batch)
    key = store.echo()

    def put(reply: Reply, *, late: bool = False) -> None:
        parts.part(reply.part).add(reply.line)
        if shortened:
            lines = short.part(reply.part)
            if not late:
                lines.add(reply.line)

    for number, request in enumerate(requests):
        row = _row_faults(suffered, number, request)
        named = request._replace(custom_id=f"x-{request.custom_id}") if "renamed" in row else request
        fate = _fate(suffered, number, request, end)
        if bill.unpaid and fate.ending in ("answered", "invalid"):
            fate = Fate("unpaid", {})
        reply = answer(named, fate)
        counts[reply.ending] = counts.get(reply.ending, 0) + 1
        if reply.usage is not None:
            bill.add(request, reply.usage)
            if "patch" in row:
                reply = reply._replace(line=_patched(reply.line, row["patch"].get("body")))
        elif key:
            reply = reply._replace(line=encoded(oddities.echoed(json.loads(reply.line), key)))
        if "late_id" in row:
            reply = reply._replace(line=_id_last(reply.line, int(row["late_id"].get("bytes", 0))))
        if "odd" in row and reply.usage is not None:
            reply = reply._replace(line=oddities.written(reply.line, faults.choice(row["odd"], "form")))
        for _ in range(0 if "missing" in row else 2 if "duplicate" in row else 1):
            put(reply, late="short" in row)
    foreign = faults.of(suffered, "foreign")
    for n in range(int(foreign.get("n", 3)) if foreign else 0):
        put(stranger(n))
    bill.close()
    return Outcome(parts.written(), short.written(), counts, bill.used)


def _row_faults(suffered: list[Fault], number: int, request: Request) -> dict[str, Fault]:
    """Return the faults, by kind, that change how a row is written whatever its fate."""
    return {
        fault["what"]: fault
        for fault in suffered
        if fault["what"] in _ROW_FAULTS and faults.hits(fault, number, request.custom_id, request.raw)
    }


def _patched(line: bytes, patch: Any) -> bytes:
    """Return the line of an answer whose response is changed by a merge patch."""
    members: dict[str, Any] = json.loads(line)
    for outer, inner in (("response", "body"), ("result", "message")):
        if outer in members:
            members[outer][inner] = _merged(members[outer][inner], patch)
    return encoded(members)


def _merged(value: Any, patch: Any) -> Any:
    """Return a value as a merge patch (RFC 7396) changes it."""
    if not isinstance(patch, dict):
        return patch
    value = value if isinstance(value, dict) else {}
    changed = {name: _merged(value.get(name), one) for name, one in patch.items() if one is not None}
    return {name: one for name, one in value.items() if name not in patch} | changed


def _id_last(line: bytes, size: int) -> bytes:
    """Return a line, longer than ``size``, that tells its custom_id last, after an answer that holds somebody else's."""
    members: dict[str, Any] = json.loads(line)
    custom_id, place = members.pop("custom_id"), members
    for _ in range(2):
        place = next((member for member in place.values() if isinstance(member, dict)), place)
    place["metadata"] = {"custom_id": "somebody-1", "text": "x" * size}
    return encoded({**members, "custom_id": custom_id})


def complete_at(suffered: list[Fault], end: Deadline) -> int:
    """Return when (unix seconds) the results of a batch that ends so are no longer short."""
    fault = faults.of(suffered, "short")
    return end.at + int(fault.get("seconds", 60)) if fault else end.at


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


def looked_at(store: Store, account: str, batch_id: str) -> bool:
    """Return whether a batch is looked at before it is cancelled: one that takes its time may have ended by now.

    One that takes none ends when somebody asks after it, so that it can be cancelled until then; and one that is being
    cancelled is until then, too, however often it is cancelled.
    """
    batch = store.batch(account, batch_id)
    waits = batch is not None and batch["cancel_at"] is None and store.settings().delay > 0
    return waits and "only_retrieve" not in store.quirks()


def as_created(batch: dict[str, Any], status: str) -> dict[str, Any]:
    """Return a batch as it was right after its create, when it had this status."""
    return {**batch, "status": status, "model": None, "told": {}, "cancel_at": None, "ended_at": None}


def unnamed(store: Store, batch: dict[str, Any]) -> bool:
    """Return whether a batch that has ended names none of its results now."""
    fault = faults.of(json.loads(batch["faults"] or "[]"), "unnamed")
    return fault is not None and store.now() < batch["ended_at"] + float(fault.get("seconds", "inf"))


def exists(model: str, models: tuple[str, ...]) -> bool:
    """Return whether there is a model, by the settings."""
    return model in models if models else not model.startswith("no-such")
