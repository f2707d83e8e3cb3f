"""Reading what services tell, in whatever form it comes: words, counts, times, tokens; what makes no sense is None."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import mktime_tz, parsedate_tz
from typing import Any, TypeVar

import msgspec

from nura_cli import scrub
from nura_cli.pricing import Usage
from nura_cli.states import ErrorKind

_LONGEST_MESSAGE = 300

Line = TypeVar("Line")


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


_CODES = ("code", "type", "error_code", "status")


def codes(error: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a vendor's words for an error, those of its ``details`` included: texts first, then numbers, the code first."""
    found = [each.get(name) for each in (error, members(error.get("details"))) for name in _CODES]
    numbers = [str(one) for one in found if isinstance(one, int) and not isinstance(one, bool) and 0 <= one < 10**9]
    return tuple(dict.fromkeys([*(one for one in found if isinstance(one, str) and one), *numbers]))


_LONGEST_PLACE = 200


def place(value: Any) -> str | None:
    """Return which part of a request a vendor names, a bounded text: a path's steps joined by dots; None for anything else."""
    steps = value if isinstance(value, list) else [value]
    if not all(isinstance(step, str | int) and not isinstance(step, bool) for step in steps):
        return None
    return line(".".join(map(str, steps[:_LONGEST_PLACE])))[:_LONGEST_PLACE] or None


def status(value: Any) -> str:
    """Return a vendor's word for where a batch stands, or ``unknown`` where it gives none."""
    return line(text(value) or "") or "unknown"


def members(value: Any) -> Mapping[str, Any]:
    """Return a vendor's object; one without members where it is none."""
    return value if isinstance(value, dict) else {}


def usage(given: int | None, cached: int | None, written: int | None, output: int | None) -> Usage | None:
    """Return the tokens that an answer took, or None where it does not say, or one of the figures makes no sense.

    Args:
        given: all of the input.
        cached, written: how much of it was read from the vendor's cache, or written there; None is 0.
        output: None is 0.
    """
    if given is None:
        return None
    found = Usage(given, cached or 0, written or 0, output or 0)
    return found if all(0 <= n < 2**40 for n in found) else None


def error_kind(http_status: int | None) -> ErrorKind:
    """Return the kind of error that an HTTP status of a single request stands for."""
    if http_status == 429:
        return ErrorKind.RATE_LIMITED
    if http_status is not None and 400 <= http_status < 500 and http_status not in (408, 409):
        return ErrorKind.REFUSED
    return ErrorKind.PROVIDER_ERROR


def result_line(decode: Callable[[bytes], Line], document: bytes) -> Line:
    """Return a line of results, decoded; bytes that are no UTF-8 are replaced.

    Raises:
        ValueError: ``decode`` finds that it is none.
    """
    try:
        return decode(utf8(document))
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"not a result line: {error}") from error


def utf8(document: bytes) -> bytes:
    """Return a document in valid UTF-8, as it is where it is that; answers are read leniently, and told on as JSON."""
    try:
        document.decode()
    except UnicodeDecodeError:
        return document.decode("utf-8", "replace").encode()
    return document
