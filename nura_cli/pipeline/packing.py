"""Pure decisions of dispatch and of its dry run: when a workload is due, how much goes into a batch, and why not more.

One decision (:func:`room`) says before each batch how much of which queue may go now: what the vendor takes, what its queue has
room for, what budgets leave, and which part of that is this workload's turn are what it goes by (:class:`Facts`). Of what is
bounded, each kind is a :class:`Bound`, and a batch is filled (:class:`Load`) until the first of them is reached.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from nura_cli.dialects.base import Frame, Limits
from nura_cli.errors import InputError
from nura_cli.pipeline import quotas
from nura_cli.pipeline.budgets import Fund, short_dollars
from nura_cli.pipeline.estimate import Estimate, Gauge, Weight
from nura_cli.pipeline.quotas import Allowance
from nura_cli.states import Why as Why


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


class Bound(NamedTuple):
    """One thing that bounds what may go: the queue at the provider, or a budget.

    Attributes:
        of: what it bounds: requests, tokens of input, or a cost (pico-dollars) as expected or at worst.
        fair: how much of it this batch may fill.
        first: how much its first request may come to at most, which may be more; None for any.
        whole: how much a request may come to at all: a larger one would never fit; None for any.
        wait: why no more goes.
        what: what a request is too large for, in words.
    """

    of: Literal["requests", "tokens", "expected", "worst"]
    fair: float
    first: float | None
    whole: float | None
    wait: Wait
    what: str


class Turn(NamedTuple):
    """Which part of what is left is a queue's turn, from 0 to 1: of the room at its provider, and of the provider's budget."""

    queue: float = 1.0
    budget: float = 1.0


class Facts(NamedTuple):
    """All that decides how much of a queue may go into its next batch.

    Attributes:
        limits: of one batch, by the vendor and the configuration.
        learned: requests in one batch at most, learned from refusals; None where nothing was.
        paused_until: the unix second until which its route is paused; 0 where it is not, or pauses are ignored.
        paused_for: what the provider said when the route was paused.
        full_until: the unix second until which its queue at the provider rests, since that was full; 0 where it does not.
        probing: its route, or its queue, refused lately, and what was sent since is not known to be taken.
        allowances: what its queue at the provider takes.
        funds: the budgets that it counts for.
        turn: which part of these is its turn.
        each: what a request comes to, as learned; None where nothing was.
        waiting: requests that wait.
        overdue: nothing has gone into that queue for as long as their workload lets them wait.
        canary: how many requests may go to show a new revision, or why none may; None where none has to be shown.
    """

    limits: Limits
    learned: int | None
    paused_until: int
    paused_for: str | None
    full_until: int
    probing: bool
    allowances: Sequence[Allowance]
    funds: Sequence[Fund]
    turn: Turn
    each: Weight | None
    waiting: int
    overdue: bool
    canary: int | Wait | None = None


class Room(NamedTuple):
    """How much a queue's next batch may hold.

    Attributes:
        canary: it shows a new revision before the rest of that is sent.
        claim: how many tasks are looked at for it: more than are needed, since some may not become requests, and what those have
            in common shows in many.
    """

    limits: Limits
    bounds: tuple[Bound, ...] = ()
    canary: bool = False
    claim: int = 0

    @property
    def bounded(self) -> bool:
        """Whether each request is to be measured, since money depends on it."""
        return any(bound.of in ("expected", "worst") for bound in self.bounds)


_LOOKED_AT = 100
"""Tasks that are looked at for a batch, however few may go in it."""
_SPARE = 1.5
"""Where room is scarce, so many times the tasks that it may hold are looked at."""


def room(facts: Facts) -> Room | Wait:
    """Decide how much of a queue may go into its next batch: the room there is, or why there is none, and until when."""
    if facts.paused_until:
        return Wait(Why.PAUSED, facts.paused_for or "its last batch was refused", facts.paused_until)
    if facts.full_until:
        return Wait(Why.QUOTA, "its queue was full, and is tried again then", facts.full_until)
    if facts.probing:
        return Wait(Why.QUOTA, "its queue was full: one batch goes at a time until one is taken")
    if isinstance(facts.canary, Wait):
        return facts.canary
    requests = min(facts.limits.requests, facts.learned or facts.limits.requests, facts.canary or facts.limits.requests)
    bounds: list[Bound] = []
    for allowance in facts.allowances:
        if wait := _no_room(allowance, facts):
            return wait
        if allowance.unit == "requests":
            requests = min(requests, max(int(allowance.left * facts.turn.queue), 1))
        bounds.append(_of_queue(allowance, facts.turn.queue))
    for fund in facts.funds:
        bound = _of_fund(fund, facts.turn.budget)
        each = 0 if facts.each is None else _amount(facts.each, bound.of)
        if fund.left <= 0 or fund.left < min(each, fund.budget.limit):
            return bound.wait
        bounds.append(bound)
    each = max(facts.each.input, 1) if facts.each is not None else 1
    few = min((int(_SPARE * bound.fair / each) for bound in bounds if bound.of == "tokens"), default=requests)
    claim = max(min(few, requests), _LOOKED_AT)
    return Room(facts.limits._replace(requests=requests), tuple(bounds), facts.canary is not None, claim)


def _no_room(allowance: Allowance, facts: Facts) -> Wait | None:
    """Return that a queue has no room, or not as much as a batch is worth, or None."""
    each: float | None = 1
    if allowance.unit == "tokens":
        each = facts.each.input if facts.each is not None else None
    if allowance.used and allowance.left < (1 if each is None else each):
        return Wait(Why.QUOTA, allowance.words)
    waiting = facts.waiting if facts.canary is None or isinstance(facts.canary, Wait) else facts.canary
    if not quotas.worth(allowance, None if each is None else each * waiting, overdue=facts.overdue):
        return Wait(Why.QUOTA, f"{allowance.words}: what is left is not worth a batch")
    return None


def _of_queue(allowance: Allowance, turn: float) -> Bound:
    what = f"its queue takes {allowance.cap:,} {allowance.unit}" if allowance.cap is not None else ""
    wait = Wait(Why.QUOTA, allowance.words)
    return Bound(allowance.unit, allowance.left * turn, allowance.first, allowance.cap, wait, what)


def _of_fund(fund: Fund, turn: float) -> Bound:
    budget = fund.budget
    fair = fund.left * turn if budget.scope.provider is not None else fund.left
    wait = Wait(Why.BUDGET, fund.words, budget.end)
    return Bound(budget.basis, fair, fund.left, budget.limit, wait, f"{budget.option} is {short_dollars(budget.limit)}")


def _amount(weight: Weight, of: str) -> float:
    """Return how much of what a bound bounds a request comes to."""
    if of == "requests":
        return 1
    if of == "tokens":
        return weight.input
    found = weight.worst if of == "worst" else weight.expected
    return 0 if found is None else found


class Request(NamedTuple):
    """A task's request as it stands in the file, its body alone, and how many embedding inputs it carries, where they are limited."""

    data: bytes
    body: bytes
    inputs: int


_MOST = 2**62
"""No sum is larger, so that it fits into a column, and two of them into one."""


class Load:
    """A batch as it fills.

    Attributes:
        requests, bytes: what its request file holds.
        last_id: the last task that is in it, failed or was passed over; tasks after it did not fit.
        failed: tasks that could not become a request, and why.
        passed: tasks whose request is larger than what would ever be left for it, or of which no bound is known; what of it they
            wait for, and why in words.
        full: why the next one did not fit, where a bound was reached.
    """

    def __init__(self, room: Room, frame: Frame, gauge: Gauge) -> None:
        limits = room.limits
        most = limits.bytes - len(frame.head) - len(frame.tail) - len(frame.separator)
        self.requests = self.bytes = self.last_id = 0
        self.failed: list[tuple[int, str]] = []
        self.passed: list[tuple[int, Wait]] = []
        self.full: Wait | None = None
        self._gauge = gauge
        self._frame = frame
        self._between = len(frame.separator)
        self._limits = limits._replace(line_bytes=min(limits.line_bytes, most))
        self._bytes_left = most
        self._inputs_left = limits.inputs
        self._bounds = room.bounds
        self._used = [0.0] * len(room.bounds)
        self._input = self._output = 0.0
        self._cost: int | None = 0
        self._worst: int | None = 0

    @property
    def estimate(self) -> Estimate:
        """What the requests may come to, all together."""
        figures = (round(self._input), round(self._output), self._cost, self._worst)
        given, answered, cost, worst = (None if one is None else min(one, _MOST) for one in figures)
        return Estimate(self._gauge.basis, given or 0, answered or 0, cost, worst)

    def pieces(self, rows: Iterable[tuple[int, bytes]], make: Callable[[int, bytes], Request]) -> Iterator[bytes]:
        """Yield the request file of ``rows`` (task id, line; by id) piece by piece, until one of them does not fit.

        A task that cannot become a request fails alone; one that would never fit is passed over. Where none becomes one, nothing is
        yielded.

        Args:
            make: from a task to its request; an :class:`InputError` of its concerns that task alone.
        """
        weigh = self._gauge.weigh
        for task_id, line in rows:
            try:
                request = make(task_id, line)
                self._refuse_too_large(request)
            except InputError as error:
                self.failed.append((task_id, error.message))
                self.last_id = task_id
                continue
            weight = weigh(request.body, len(request.data))
            if self._bounds and (why := self._never(weight)) is not None:
                self.passed.append((task_id, why))
            elif self._take(request, weight):
                lead = self._frame.separator if self.requests > 1 else self._frame.head
                yield self._counted(lead + request.data if lead else request.data)
            else:
                break
            self.last_id = task_id
        if self.requests:
            yield self._counted(self._frame.tail)

    def _refuse_too_large(self, request: Request) -> None:
        """Raise InputError where a request would not fit into a batch of its own."""
        limits = self._limits
        if limits.inputs is not None and request.inputs > limits.inputs:
            raise InputError(f"carries {request.inputs:,} inputs; a batch takes {limits.inputs:,}")
        if len(request.data) > limits.line_bytes:
            raise InputError(f"its request has {len(request.data):,} bytes; {limits.line_bytes:,} are allowed")

    def _never(self, weight: Weight) -> Wait | None:
        """Return why a request would never fit, or None."""
        for bound in self._bounds:
            if bound.of == "worst" and weight.worst is None:
                doubt = weight.unbounded or "its cost has no known bound"
                return Wait(bound.wait.why, f"{doubt}, so that nobody knows what it may cost; {bound.what}")
            amount = _amount(weight, bound.of)
            if bound.whole is not None and amount > bound.whole:
                size = (
                    f"about {amount:,.0f} tokens" if bound.of == "tokens" else f"up to {short_dollars(round(amount))}"
                )
                return Wait(bound.wait.why, f"comes to {size}; {bound.what}")
        return None

    def _take(self, request: Request, weight: Weight) -> bool:
        """Use up room for a request; return False where there is not enough left for it."""
        length = len(request.data) + self._between
        inputs_left = None if self._inputs_left is None else self._inputs_left - request.inputs
        if self.requests and (length > self._bytes_left or (inputs_left is not None and inputs_left < 0)):
            return False
        if self.requests >= self._limits.requests or not self._use_up(weight):
            return False
        self._input += weight.input
        self._output += weight.output
        self._cost = None if self._cost is None or weight.expected is None else self._cost + weight.expected
        self._worst = None if self._worst is None or weight.worst is None else self._worst + weight.worst
        self._bytes_left -= length
        self._inputs_left = inputs_left
        self.requests += 1
        return True

    def _use_up(self, weight: Weight) -> bool:
        """Use up a request's part of what is bounded; where there is not enough left, return False, and say why in ``full``."""
        if not self._bounds:
            return True
        for used, bound in zip(self._used, self._bounds, strict=True):
            most = bound.fair if self.requests else bound.first
            if most is not None and used + _amount(weight, bound.of) > max(most, 0):
                self.full = bound.wait
                return False
        self._used = [used + _amount(weight, bound.of) for used, bound in zip(self._used, self._bounds, strict=True)]
        return True

    def _counted(self, piece: bytes) -> bytes:
        self.bytes += len(piece)
        return piece
