"""The one clock, and how its times are written: unix seconds (UTC) inside, RFC 3339 with Z outside."""

import functools
import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], int]
"""A function that gives the time: unix seconds, UTC. Stages take one, so that tests can hold it."""


def now() -> int:
    """Return the time now, in unix seconds, UTC."""
    return int(time.time())


@functools.lru_cache(maxsize=1024)  # a chunk of tasks has one time
def rfc3339(at: int | None) -> str | None:
    """Return unix seconds as ``2026-01-02T03:04:05Z``; None stays None, and so is what no calendar year has."""
    try:
        return (
            None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        )
    except (ValueError, OverflowError, OSError):
        return None


def stamp(at: int) -> str:
    """Return a time that a clock of ours gave, in unix seconds, in the same form."""
    return rfc3339(at) or ""  # no clock of ours shows a year that no calendar has


def parse(text: str) -> int:
    """Return the unix seconds of an RFC 3339 time or date; without an offset it is taken as UTC.

    Raises:
        ValueError: it is neither.
    """
    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def span(seconds: int) -> str:
    """Return a length of time in at most two units, for people: ``45s``, ``12m``, ``3h 20m``, ``2d 4h``."""
    if seconds < 60:
        return f"{max(seconds, 0)}s"
    minutes = seconds // 60
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    parts = [f"{n}{unit}" for n, unit in ((days, "d"), (hours, "h"), (minutes, "m")) if n]
    return " ".join(parts[:2])
