"""What a value of Python's is in JSON: the same for what a database gives and for what an application hands over.

====================================  ==================================================================
value                                 becomes
====================================  ==================================================================
text, whole number, true, false, None  itself
fraction, Decimal                      a number, with all its digits; NaN and infinity have none
date, time, date and time              RFC 3339 text
span of time                           hours, minutes and seconds, as SQL writes them
UUID, network address                  its text
list, tuple, mapping                   an array, an object
====================================  ==================================================================

Bytes, sets and whatever else there is have no form: the application says what they are to be.
"""

import math
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from numbers import Integral, Real
from typing import Any
from uuid import UUID

import msgspec

encode = msgspec.json.Encoder(decimal_format="number").encode
"""Writes a plain value as one line of JSON; a decimal is a number with all its digits."""


class NoForm(ValueError):
    """JSON has no form for values of this kind, whatever they hold; ``kind`` is its name."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"Object of type {kind} has no form in JSON")
        self.kind = kind


class Unreadable:
    """Stands for a value that could not be read; ``why`` says what is wrong with it."""

    def __init__(self, why: str) -> None:
        self.why = why


def plain(value: object) -> Any:
    """Return a value as JSON has it.

    Raises:
        NoForm: nothing of its kind has a form.
        ValueError: this one has none, such as infinity.
    """
    kind = type(value)
    if value is None or kind in (str, int, bool):
        return value
    for base in kind.__mro__:
        if convert := _FORMS.get(base):
            return convert(value)
    for base, convert in _OTHERS.items():
        if isinstance(value, base):
            return convert(value)
    raise NoForm(kind.__name__)


def _finite(value: float | Decimal) -> float | Decimal:
    if not (value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)):
        raise ValueError(f"JSON has no {str(value)[:40]}")
    return value


def _moment(value: date | time) -> str:
    if value != value:  # pandas' NaT is a datetime that is not equal to itself
        raise ValueError(f"JSON has no {value}")
    return value.isoformat()


def _clock(span: timedelta) -> str:
    """Return a span of time as SQL writes it: hours, as many as they are, minutes and seconds."""
    minutes, seconds = divmod(abs(span) // timedelta(seconds=1), 60)
    fraction = f".{abs(span).microseconds:06}" if span.microseconds else ""
    sign = "-" if span < timedelta() else ""
    return f"{sign}{minutes // 60:02}:{minutes % 60:02}:{seconds:02}{fraction}"


def _unreadable(value: Unreadable) -> object:
    raise ValueError(value.why)


_ADDRESSES = (IPv4Address, IPv6Address, IPv4Interface, IPv6Interface, IPv4Network, IPv6Network)
_FORMS: dict[type, Callable[[Any], object]] = {
    Enum: lambda value: plain(value.value),
    str: str,
    int: int,
    float: lambda value: _finite(float(value)),
    Decimal: _finite,
    datetime: _moment,
    date: _moment,
    time: _moment,
    timedelta: _clock,
    **dict.fromkeys((UUID, *_ADDRESSES), str),
    Unreadable: _unreadable,
    list: lambda value: [plain(item) for item in value],
    tuple: lambda value: [plain(item) for item in value],
}
# What another library's types say of themselves: a frame's numbers are numbers, a row's mapping is one.
_OTHERS: dict[type, Callable[[Any], object]] = {
    Mapping: lambda value: {str(plain(name)): plain(item) for name, item in value.items()},
    Integral: int,
    Real: lambda value: _finite(float(value)),
}
