"""Reading what services tell: words, counts and times, in whatever form they come; what makes no sense is None."""

import re
from datetime import UTC, datetime
from email.utils import mktime_tz, parsedate_tz
from typing import Any

from nura_cli import scrub

_LONGEST_MESSAGE = 300


def line(words: str) -> str:
    """Return a vendor's words as one bounded line of printable characters, without secrets."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in scrub.words(words)).split())
    return plain if len(plain) <= _LONGEST_MESSAGE else plain[: _LONGEST_MESSAGE - 1] + "…"


def http_date(value: str) -> int | None:
    """Return the unix seconds of an HTTP date, or None where it is none."""
    try:
        parsed = parsedate_tz(value)
        return None if parsed is None else _sensible(mktime_tz(parsed))
    except (TypeError, ValueError, OverflowError, IndexError):
        return None


def whole(value: Any) -> int | None:
    """Return a figure of the vendor's, or None where it is no sensible count or time."""
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53 else None


_ABSURD = 10**11
"""In seconds the year 5138; in milliseconds, 1973."""


def moment(value: Any) -> int | None:
    """Return the unix seconds of a vendor's time, or None where it is no sensible one.

    Args:
        value: seconds, or milli-, micro- or nanoseconds, as a number or as text; or an ISO 8601 time (UTC, where it has no
            offset), or an HTTP date. Some services write 0 or -1 for none.
    """
    if isinstance(value, str):
        return _written(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _ABSURD * 10**9:
        return None
    while value >= _ABSURD:
        value /= 1000
    return _sensible(value)


def _written(value: str) -> int | None:
    if re.fullmatch(r"[0-9]{1,20}(\.[0-9]{1,9})?", value):
        return moment(float(value))
    try:
        at = datetime.fromisoformat(value)
        return _sensible((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return http_date(value)


def _sensible(seconds: float) -> int | None:
    return int(seconds) if _BEFORE_BATCHES < seconds < _ABSURD else None


_BEFORE_BATCHES = 1_420_070_400
"""The year 2015: no batch is older, and a time that says so was misread."""


def text(value: Any) -> str | None:
    """Return a vendor's word, or None where it is no text."""
    return value if isinstance(value, str) and value else None


def utf8(document: bytes) -> bytes:
    """Return a document in valid UTF-8, as it is where it is that; answers are read leniently, and told on as JSON."""
    try:
        document.decode()
    except UnicodeDecodeError:
        return document.decode("utf-8", "replace").encode()
    return document
