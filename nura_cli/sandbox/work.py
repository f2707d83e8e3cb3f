"""Working on a batch: read the requests, answer each, write the results shuffled, bill what was answered.

Streamed: a line of memory for each request, whatever the size of the batch.
"""

import random
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from nura_cli.sandbox import faults
from nura_cli.sandbox.store import Store, digest

_BILL_ROWS = 5000


class Reply(NamedTuple):
    """What a request comes to: the part it is written to, its line, and the tokens it is billed (None: not billed)."""

    part: str
    line: bytes
    usage: tuple[int, int] | None


class Request(NamedTuple):
    """One request of a batch: its custom_id, its body, and the bytes it came as."""

    custom_id: str
    body: Any
    raw: bytes


Answer = Callable[[Request, "Fate"], Reply]


class Fate(NamedTuple):
    """What the armed faults make of one request: kind of ending, and the fault behind it, if any."""

    ending: str  # answered, failed, expired, cancelled, invalid
    fault: dict[str, Any]


class Shuffled:
    """A file whose lines come out in another order than they went in: written once, copied by shuffled offsets."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("wb+")
        self._starts = array("q")

    def add(self, line: bytes) -> None:
        self._starts.append(self._file.tell())
        self._file.write(line + b"\n")

    def __len__(self) -> int:
        return len(self._starts)

    def write(self, target: Path, seed: str) -> None:
        """Write the lines to ``target``, shuffled, and remove the source."""
        end = self._file.tell()
        self._file.flush()
        bounds = [*self._starts, end]
        order = list(range(len(self._starts)))
        random.Random(seed).shuffle(order)  # noqa: S311 - repeatable on purpose
        with target.open("wb") as out:
            for n in order:
                self._file.seek(bounds[n])
                out.write(self._file.read(bounds[n + 1] - bounds[n]))
        self.close()

    def close(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


class Outcome(NamedTuple):
    """What became of a batch: the written parts, and the counts by ending."""

    parts: dict[str, Path]
    counts: dict[str, int]
    usage: tuple[int, int]


def run(
    store: Store,
    batch: dict[str, Any],
    requests: Iterator[Request],
    answer: Answer,
    afflictions: list[dict[str, Any]],
    stranger: Callable[[int], Reply],
    *,
    cancelled: bool,
    expired: bool,
) -> Outcome:
    """Answer a batch's requests under the faults armed for it.

    Args:
        stranger: makes the n-th line of a request nobody sent.
        cancelled, expired: nothing more of it is answered.
    """
    by_kind = {fault["what"]: fault for fault in afflictions}
    parts: dict[str, Shuffled] = {}
    counts: dict[str, int] = {}
    bill: list[tuple[str, str, str, bytes, int, int]] = []
    used = [0, 0]

    def put(reply: Reply) -> None:
        if reply.part not in parts:
            parts[reply.part] = Shuffled(store.folder / f"{batch['id']}.{reply.part}.tmp")
        parts[reply.part].add(reply.line)

    for number, request in enumerate(requests):
        fate = _fate(by_kind, number, request.raw, cancelled, expired)
        reply = answer(request, fate)
        counts[fate.ending] = counts.get(fate.ending, 0) + 1
        if reply.usage is not None:
            bill.append((batch["account"], batch["id"], request.custom_id, digest(request.raw), *reply.usage))
            used[0] += reply.usage[0]
            used[1] += reply.usage[1]
            if len(bill) >= _BILL_ROWS:
                store.bill(bill)
                bill.clear()
        missing, duplicate = by_kind.get("missing"), by_kind.get("duplicate")
        if missing and faults.hits(missing, number, request.raw):
            continue
        put(reply)
        if duplicate and faults.hits(duplicate, number, request.raw):
            put(reply)
    for n in range(int(by_kind.get("foreign", {}).get("n", 3)) if "foreign" in by_kind else 0):
        put(stranger(n))
    store.bill(bill)
    written = {}
    for name, lines in parts.items():
        written[name] = store.folder / f"{batch['id']}.{name}.part"
        lines.write(written[name], f"{batch['id']}.{name}")
    return Outcome(written, counts, (used[0], used[1]))


def _fate(by_kind: dict[str, dict[str, Any]], number: int, raw: bytes, cancelled: bool, expired: bool) -> Fate:
    for what, ending, whole in (("cancel", "cancelled", cancelled), ("expire", "expired", expired)):
        fault = by_kind.get(what)
        # The fraction of these two is the part that still was answered.
        if fault is not None and not faults.hits({"fraction": 0.5, **fault}, number, raw):
            return Fate(ending, fault)
        if whole and fault is None:
            return Fate(ending, {})
    rows = by_kind.get("rows")
    if rows and faults.hits(rows, number, raw):
        return Fate("failed", rows)
    invalid = by_kind.get("invalid")
    if invalid and faults.hits(invalid, number, raw):
        return Fate("invalid", invalid)
    return Fate("answered", {})
