"""Pure decisions after a failure: who is tried again, when, and what a refused batch tells about its tasks."""

import random
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from nura_cli.state.answers import Failure
from nura_cli.state.connection import LONGEST_BACKOFF
from nura_cli.state.outbox import Pause
from nura_cli.state.runs import Route
from nura_cli.states import RETRYABLE, ErrorKind, Excuse, Reason, TaskStatus

if TYPE_CHECKING:
    from nura_cli.dialects.base import Rejection  # status asks about pauses, and loads no more than it needs

TASK_BACKOFF = 5 * 60
"""Seconds before a failed task's second attempt; doubled for each one after."""
OUTAGE_BACKOFF = 60
"""Seconds dispatch leaves a provider alone after it could not be reached; doubled with each strike."""
OUTAGE_LONGEST = 3600
ROUTE_BACKOFF = 5 * 60
"""Seconds a route pauses after a refused batch: 5, 10, 20, 40, 80 minutes."""
ROUTE_LONGEST = 80 * 60


def jitter() -> float:
    """Return a random share, from 0 to 1, of what :func:`backoff` may be shorter by: many that failed at once do not return at once."""
    return random.random()  # noqa: S311 - chance, and no secret


def backoff(first: int, failures_in_a_row: int, longest: int, jitter: float) -> int:
    """Return ``first`` seconds, doubled with each strike after the first, at most ``longest``, and up to a quarter less by ``jitter`` (0 to 1)."""
    plain = min((first << min(max(failures_in_a_row - 1, 0), 40)), longest)
    return round(plain * (1 - jitter / 4))


class NextStatus(NamedTuple):
    """What becomes of a task after an attempt: where to, and not before which unix second."""

    to: TaskStatus
    not_before: int


def next_status(
    failure: Failure | None,
    attempts: int,
    max_attempts: int,
    superseded: bool,
    now: int,
    jitter: float,
    *,
    wished: bool = False,
    excused: Excuse | None = None,
) -> NextStatus:
    """Decide what becomes of a task that ended so after ``attempts`` of its own.

    A superseded task is never sent again. What the vendor refused for good, or what would come out the same, fails at
    once; the rest goes back to wait until its attempts are used up, and what is excused whatever they are.

    Args:
        wished: a person wished its batch cancelled: what would be tried again is cancelled.
        excused: why the last attempt is none of its own. What waits for its workload's release, or goes with the next canary,
            waits for nothing else.
    """
    if failure is None:
        return NextStatus(TaskStatus.COMPLETED, 0)
    if failure.kind is ErrorKind.CANCELLED:  # somebody decided so
        return NextStatus(TaskStatus.CANCELLED, 0)
    again = excused is not None or (failure.kind in RETRYABLE and not failure.final and attempts < max_attempts)
    if not again or superseded:
        return NextStatus(TaskStatus.FAILED, 0)
    if wished:
        return NextStatus(TaskStatus.CANCELLED, 0)
    rest = 0 if excused in (Excuse.ALIKE, Excuse.CANARY) else backoff(TASK_BACKOFF, attempts, LONGEST_BACKOFF, jitter)
    return NextStatus(TaskStatus.PENDING, now + rest)


def until(paused_until: int, now: int) -> int:
    """Return when a pause ends; one further away than any backoff reaches ends now."""
    return paused_until if now < paused_until <= now + LONGEST_BACKOFF else 0


class Remedy(NamedTuple):
    """What a refused batch tells.

    Attributes:
        lines: the 1-based requests that the provider blames.
        pause: whether its route is to rest.
        smaller: whether the next batch on its route is to be half as large.
        search: a request of it is to blame, named or not (:mod:`nura_cli.pipeline.search`).
        counted: no request is: it is one more of those after which a person decides.
    """

    lines: tuple[int, ...] = ()
    pause: bool = False
    smaller: bool = False
    search: bool = False
    counted: bool = False


def remedy_for(
    faults: "Sequence[Rejection]",
    reasons: Collection[Reason],
    requests: int,
    *,
    content: bool = True,
) -> Remedy:
    """Decide what a refused batch of ``requests`` requests tells about its tasks.

    Where a request is to blame and none is named, the culprit is looked for by halving. Where too much was enqueued, a rest helps;
    how much may be is learned by the queue (:mod:`nura_cli.pipeline.quotas`).
    Where the provider had not looked at the ``content`` yet, and names no line, a file that it cannot find (any more, or so
    soon: curator#116) or an account that may not do this is no task's fault either.

    Args:
        reasons: what the faults come down to, in no order.
    """
    if Reason.TOO_MUCH in reasons:
        return Remedy(pause=True)
    if Reason.SETTINGS in reasons or Reason.OUTAGE in reasons:
        return Remedy(pause=True, counted=True)
    lines = dict.fromkeys(fault.line for fault in faults if fault.line is not None and 1 <= fault.line <= requests)
    if lines:
        return Remedy(tuple(lines), search=True)
    if Reason.TOO_LARGE in reasons and requests > 1:
        return Remedy(smaller=True)
    if not content:
        return Remedy(pause=True, counted=True)
    return Remedy(search=True)


def after_refusal(route: Route, remedy: Remedy, requests: int, why: str, now: int, jitter: float) -> Route:
    """Return what is known of a route after a batch of ``requests`` requests on it was refused.

    One refused while the route rests was sent before it did: it makes the rest no longer.
    """
    failures_in_a_row, pause, cap = route.failures_in_a_row, route.paused_until, route.cap
    if remedy.pause and not until(pause, now):
        failures_in_a_row += 1
        pause = now + backoff(ROUTE_BACKOFF, failures_in_a_row, ROUTE_LONGEST, jitter)
    if remedy.smaller:
        half = max(1, requests // 2)
        cap = min(cap, half) if cap else half
    return route._replace(paused_until=pause, failures_in_a_row=failures_in_a_row, cap=cap, why=why)


def after_accept(route: Route, requests: int) -> Route:
    """Return what is known of a route on which a create was taken: a cap that only narrowed a search grows again.

    After a pause the cap is about tokens, and grows only when a batch has ended.
    """
    return route if route.failures_in_a_row else after_success(route, requests)


def after_success(route: Route, requests: int) -> Route:
    """Return what is known of a route after a batch of ``requests`` requests on it was taken and ended.

    A learned cap doubles each time it held, until it no longer matters.
    """
    cap = route.cap
    if cap is not None and requests >= cap:
        cap = cap * 2 if cap < 25_000 else None
    return route._replace(paused_until=0, failures_in_a_row=0, cap=cap, why=route.why if cap else None)


def released(route: Route) -> Route:
    """Return what is known of a route once a person has ended its pause: what size it takes."""
    return route._replace(paused_until=0, failures_in_a_row=0, why=route.why if route.cap else None)


Pausing = TypeVar("Pausing", Route, Pause)


def after_outage(route: Pausing, why: str, retry_after: int | None, now: int, jitter: float) -> Pausing:
    """Return what is known of a provider, database or receiver that could take nothing, or that asks to wait ``retry_after`` seconds."""
    failures_in_a_row = route.failures_in_a_row + 1
    pause = backoff(OUTAGE_BACKOFF, failures_in_a_row, OUTAGE_LONGEST, jitter)
    if retry_after is not None:
        pause = max(pause, min(retry_after, LONGEST_BACKOFF))
    return route._replace(paused_until=now + pause, failures_in_a_row=failures_in_a_row, why=why)
