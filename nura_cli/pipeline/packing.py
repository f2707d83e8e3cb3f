"""Pure decisions of dispatch and of its dry run: when a workload is due, how much goes into a batch, and why not more."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from nura_cli.dialects.base import Frame, Limits
from nura_cli.errors import InputError
from nura_cli.states import Why as Why

BYTES_PER_TOKEN = 4
"""A rough measure for estimates: about four bytes of English JSON make a token."""


class Wait(NamedTuple):
    """Why tasks do not go now.

    Attributes:
        words: the reason for a person.
        until: the unix second at which it ends by itself; None where that is not known.
    """

    why: Why
    words: str
    until: int | None = None


def due(waiting: int, oldest: int | None, min_requests: int, max_wait: int, now: int) -> bool:
    """Return whether a workload's waiting tasks are to be sent now.

    Args:
        waiting: tasks that may be sent, counted up to ``min_requests``.
        oldest: when the oldest of them was enqueued, unix seconds; one enqueued in the future is due.
        min_requests, max_wait: the workload's thresholds (requests, seconds); either one will do.
    """
    if oldest is None:
        return False
    return waiting >= min_requests or now - oldest >= max_wait or oldest > now


class Waiting(NamedTuple):
    """What of a workload waits.

    Attributes:
        due: tasks that may be sent, counted up to the workload's least number.
        oldest: when the oldest of them was enqueued, unix seconds; None where nothing is due.
        next_at: when the next of the others may be sent, unix seconds; None where there is none.
    """

    due: int
    oldest: int | None
    next_at: int | None


def unripe(waiting: Waiting, min_requests: int, max_wait: int, now: int) -> Wait | None:
    """Return why a workload's tasks are not to be sent yet, or None where they are (:func:`due`)."""
    if due(waiting.due, waiting.oldest, min_requests, max_wait, now):
        return None
    if waiting.oldest is None:
        return later(waiting.next_at)
    return Wait(
        Why.THRESHOLD,
        f"{waiting.due:,} of the {min_requests:,} that are sent together are there",
        waiting.oldest + max_wait,
    )


def later(next_at: int | None) -> Wait:
    """Return why tasks wait that failed lately; the first of them is tried again at ``next_at``, unix seconds."""
    return Wait(Why.BACKOFF, "they failed lately, and are tried again later", next_at)


SEARCHED = Wait(
    Why.PAUSED,
    "they may be to blame for a batch that was refused, and are tried one batch at a time until another one is taken",
)
"""Why tasks wait of which one may be to blame."""


def lowered(vendor: Limits, requests: int | None, size: int | None, inputs: int | None) -> Limits:
    """Return the vendor's limits, lowered by the configuration where it says less; it cannot raise them."""
    most = min(vendor.bytes, size or vendor.bytes)
    return Limits(
        requests=min(vendor.requests, requests or vendor.requests),
        bytes=most,
        inputs=vendor.inputs if vendor.inputs is None else min(vendor.inputs, inputs or vendor.inputs),
        line_bytes=min(vendor.line_bytes, most),
    )


def token_room(cap: int | None, under_way_bytes: int) -> int | None:
    """Return how many bytes of requests may still be sent under a cap on enqueued tokens, or None without a cap."""
    return None if cap is None else max(0, cap * BYTES_PER_TOKEN - under_way_bytes)


class Facts(NamedTuple):
    """All that decides how much of a queue may go into its next batch.

    Attributes:
        limits: of one batch, by the vendor and the configuration.
        learned: requests in one batch at most, learned from refusals; None where nothing was.
        paused_until: the unix second until which its route is paused; 0 where it is not, or pauses are ignored.
        paused_for: what the provider said when the route was paused.
        token_cap: tokens that may be under way at once for its model, or None.
        under_way: bytes of the request files under way for its model.
    """

    limits: Limits
    learned: int | None
    paused_until: int
    paused_for: str | None
    token_cap: int | None
    under_way: int


class Room(NamedTuple):
    """How much a queue's next batch may hold.

    Attributes:
        limits: what it holds at most.
        aim: bytes to stay under where that is possible, or None; a first request goes in even so.
    """

    limits: Limits
    byte_budget: int | None = None


def room(facts: Facts) -> Room | Wait:
    """Decide how much of a queue may go into its next batch: the room there is, or why there is none, and until when."""
    if facts.paused_until:
        return Wait(Why.PAUSED, facts.paused_for or "its last batch was refused", facts.paused_until)
    byte_budget = token_room(facts.token_cap, facts.under_way)
    if byte_budget == 0:
        return Wait(Why.PAUSED, f"what is under way reaches the cap of {facts.token_cap:,} enqueued tokens")
    limits = facts.limits
    return Room(limits._replace(requests=min(limits.requests, facts.learned or limits.requests)), byte_budget)


class Request(NamedTuple):
    """A task's request as it stands in the file, and how many embedding inputs it carries, where they are limited."""

    data: bytes
    inputs: int


class Load:
    """A batch as it fills.

    Attributes:
        requests, bytes: what its request file holds.
        last_id: the last task that is in it or failed; tasks after it did not fit.
        failed: tasks that could not become a request, and why.
    """

    def __init__(self, room: Room, frame: Frame) -> None:
        limits = room.limits
        most = limits.bytes - len(frame.head) - len(frame.tail) - len(frame.separator)
        self.requests = self.bytes = self.last_id = 0
        self.failed: list[tuple[int, str]] = []
        self._frame = frame
        self._limits = limits._replace(line_bytes=min(limits.line_bytes, most))
        self._bytes_left = min(most, room.byte_budget or most)
        self._inputs_left = limits.inputs

    def pieces(self, rows: Iterable[tuple[int, bytes]], make: Callable[[int, bytes], Request]) -> Iterator[bytes]:
        """Yield the request file of ``rows`` (task id, line; by id) piece by piece, until one of them does not fit.

        A task that cannot become a request fails alone. Where none becomes one, nothing is yielded.

        Args:
            make: from a task to its request; an :class:`InputError` of its concerns that task alone.
        """
        for task_id, line in rows:
            try:
                request = make(task_id, line)
                self._refuse_too_large(request)
            except InputError as error:
                self.failed.append((task_id, error.message))
                self.last_id = task_id
                continue
            if not self._take(request):
                break
            self.last_id = task_id
            yield self._counted((self._frame.separator if self.requests > 1 else self._frame.head) + request.data)
        if self.requests:
            yield self._counted(self._frame.tail)

    def _refuse_too_large(self, request: Request) -> None:
        """Raise InputError where a request would not fit into a batch of its own."""
        limits = self._limits
        if limits.inputs is not None and request.inputs > limits.inputs:
            raise InputError(f"carries {request.inputs:,} inputs; a batch takes {limits.inputs:,}")
        if len(request.data) > limits.line_bytes:
            raise InputError(f"its request has {len(request.data):,} bytes; {limits.line_bytes:,} are allowed")

    def _take(self, request: Request) -> bool:
        """Use up room for a request; return False where there is not enough left for it."""
        length = len(request.data) + len(self._frame.separator)
        inputs_left = None if self._inputs_left is None else self._inputs_left - request.inputs
        if self.requests and (length > self._bytes_left or (inputs_left is not None and inputs_left < 0)):
            return False
        self._bytes_left -= length
        self._inputs_left = inputs_left
        self.requests += 1
        return True

    def _counted(self, piece: bytes) -> bytes:
        self.bytes += len(piece)
        return piece
