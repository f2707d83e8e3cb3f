"""What a JSON value becomes in a column of a given type; what does not fit exactly is refused, never bent.

================  ==========================================================================================
column            takes
================  ==========================================================================================
text              a string as it is; a number, true or false as JSON writes it; an object or array as compact
                  JSON; no more characters than the column declares
integer           a whole number in the column's range (3.0 is one, 3.7 is not), a string of one, true and false
                  as 1 and 0
numeric, float    a number, or a string of one; rounded to the column's declared places, as SQL does
boolean           true and false, 1 and 0
date, time        an RFC 3339 string; a date and time without an offset is UTC; a date takes a time only at midnight
JSON              any value
uuid, enum        a string of one
array             an array whose items fit (PostgreSQL)
any other         a string as it is, anything else as text
================  ==========================================================================================

What a row is found by and what it must still hold is compared, not written: nothing is too long or too precise for that,
and since SQLite holds whatever it was given, whatever its column says, a guard there is compared as it came.

A null is never given to a converter.
"""

import json
import math
import re
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import msgspec

from nura_cli.delivery.database import plain

if TYPE_CHECKING:
    from sqlalchemy.types import TypeEngine

    ColumnType = TypeEngine[Any]

Exact = str | int | float | Decimal | datetime | date | time
"""What a value is in Python, before it has the form that a driver takes."""
Value = str | int | float
"""What a driver is given."""
Convert = Callable[[object], Value]
_Exactly = Callable[[object], Exact]
_Moment = TypeVar("_Moment", datetime, date, time)
_NUMBER = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?([eE][-+]?[0-9]{1,3})?")
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
"""A NUL character in JSON; behind an odd number of backslashes it is only the text of one."""
_WIDE = Context(prec=1100)
_JSON = msgspec.json.Encoder(decimal_format="number")
_BITS = {"SmallInteger": 16, "Integer": 32, "BigInteger": 64}


def converter(column_type: "ColumnType", dialect: str) -> Convert:
    """Return the function that turns a JSON value (never null) into what a column takes.

    Args:
        column_type: the column's type, as SQLAlchemy reflects it.
        dialect: ``postgresql``, where every value becomes the text that its column's type reads; any other gets the
            driver's own values.

    The function raises ValueError, with why, when the value does not fit.
    """
    return _for_driver(_exact(column_type, dialect), column_type, dialect)


def key_converter(column_type: "ColumnType", dialect: str) -> Convert:
    """Return the function that turns a JSON value (never null) into what finds a row by a column.

    In SQLite a time is found as the text that it is there.
    """
    from sqlalchemy import types

    if dialect == "sqlite" and isinstance(column_type, types.DateTime | types.Date | types.Time):
        return _for_driver(_any, None, dialect)
    return _for_driver(_exact(column_type, dialect, held=True), column_type, dialect)


def guard_converter(column_type: "ColumnType", dialect: str) -> Convert:
    """Return the function that turns a JSON value (never null) into what a column is compared with, as the database gave it."""
    from sqlalchemy import types

    if isinstance(column_type, types.JSON) and dialect != "postgresql":  # their drivers give the document's text
        return _document_text
    if dialect == "sqlite" and not isinstance(column_type, types.String):
        return _for_driver(_any, None, dialect)
    return _for_driver(_exact(column_type, dialect, held=True), column_type, dialect)


def _for_driver(exact: _Exactly, column_type: "ColumnType | None", dialect: str) -> Convert:
    from sqlalchemy import types

    if isinstance(column_type, types.String) or (isinstance(column_type, types.Integer) and dialect != "postgresql"):
        return cast("Convert", exact)  # it gives texts, or whole numbers, and nothing else
    if dialect == "postgresql":
        return _as_text(exact)
    return lambda value: _driver_value(exact(value), dialect)


def _as_text(exact: _Exactly) -> Callable[[object], str]:
    return lambda value: _postgresql_text(exact(value))


def _exact(column_type: "ColumnType", dialect: str, held: bool = False) -> _Exactly:
    """Return the function that turns a JSON value into the Python value of a column type, exactly.

    Args:
        held: the value is to be compared with what the column holds.
    """
    from sqlalchemy import types
    from sqlalchemy.dialects.mysql import SET
    from sqlalchemy.dialects.postgresql import DOMAIN

    match column_type:
        case types.Enum(enums=names):
            return lambda value: _one_of(value, names)
        case SET():
            return _text_of(None, dialect)
        case types.String(length=length):
            return _text_of(None if held else length, dialect)
        case types.Boolean():
            return _boolean
        case types.Integer():
            return _integer_of(_bits(column_type, dialect))
        case types.Numeric(precision=precision, scale=scale):
            return lambda value: _decimal(value, None if held and dialect == "sqlite" else precision, scale)
        case types.Float():
            return _float
        case types.DateTime(timezone=timezone):
            places = _places(column_type, dialect)
            return lambda value: _moment(value, bool(timezone) and dialect == "postgresql", places)
        case types.Date():
            return _date
        case types.Time():
            places = _places(column_type, dialect)
            return lambda value: _time(value, places)
        case types.JSON():
            return lambda value: _json(value, dialect)
        case types.Uuid():
            return _uuid
        case types.ARRAY(item_type=item_type):
            item = _as_text(_exact(item_type, dialect))
            nested = not isinstance(item_type, types.JSON)
            return lambda value: _array(value, item, nested)
        case types.LargeBinary():
            return _binary
        case DOMAIN(data_type=data_type):
            return _exact(data_type, dialect, held)
        case _:
            return _text_of(None, dialect) if dialect == "postgresql" else _any


def _bits(column_type: "ColumnType", dialect: str) -> int:
    if dialect != "postgresql":  # SQLite has one size; MySQL's many, with and without a sign, it measures itself
        return 64 if dialect == "sqlite" else 65
    names = (base.__name__ for base in type(column_type).__mro__)
    return next(_BITS[name] for name in names if name in _BITS)


def _places(column_type: "ColumnType", dialect: str) -> int:
    """Return how many places of a second a column of times keeps: what MySQL would cut, and PostgreSQL's cast rounds."""
    return 6 if dialect in ("sqlite", "postgresql") else getattr(column_type, "fsp", None) or 0


def _show(value: object) -> str:
    return plain(json.dumps(value, ensure_ascii=False, default=str), 60)


def _compact(value: object) -> str:
    return _JSON.encode(value).decode()


def _document_text(value: object) -> str:
    """Return the text of a JSON document that came as such a text, or as the document."""
    if isinstance(value, str):
        try:
            msgspec.json.decode(value)
            return value
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            pass
    return _compact(value)


def _text_of(length: int | None, dialect: str) -> Convert:
    no_nul = dialect == "postgresql"

    def text(value: object) -> str:
        words = value if type(value) is str else _compact(value)
        if words is value and not words.isascii():
            _encodable(words)
        if length is not None and len(words) > length:
            raise ValueError(f"{len(words)} characters, and the column takes {length}")
        if no_nul and "\0" in words:
            raise ValueError("a NUL character, which PostgreSQL stores in no text")
        return words

    return text


def _encodable(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair, which is no character") from None


def _any(value: object) -> Exact:
    """Return the value for a column without a type that is known here, as SQLite allows."""
    if isinstance(value, str):
        _encodable(value)
        return value
    if isinstance(value, int):
        return _integer_of(64)(value)
    return value if isinstance(value, float | Decimal) else _compact(value)


def _boolean(value: object) -> bool:
    if value is True or value is False or (type(value) is int and value in (0, 1)):
        return bool(value)
    raise ValueError(f"{_show(value)} is neither true nor false")


def _integer_of(bits: int) -> Convert:
    limit = 1 << (bits - 1)

    def integer(value: object) -> int:
        number = value if type(value) is int else int(value) if isinstance(value, int) else _whole(value)
        if not -limit <= number < limit:
            raise ValueError(f"{_show(value)} is out of the range of the column ({bits} bits)")
        return number

    return integer


def _whole(value: object) -> int:
    number = _number(value, "whole number")
    if number != number.to_integral_value():
        raise ValueError(f"{_show(value)} is not a whole number")
    return int(number) if abs(number) < 10**30 else 10**30


def _number(value: object, wanted: str = "number") -> Decimal:
    """Return a JSON number, or a string of one, as the decimal it was written as."""
    if isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value):
        return Decimal(repr(value))
    if isinstance(value, Decimal) and value.is_finite():
        return value
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return Decimal(value)
    raise ValueError(f"{_show(value)} is not a {wanted}")


def _decimal(value: object, precision: int | None, scale: int | None) -> Decimal:
    number = _number(value)
    if precision is None:
        return number
    places = scale or 0
    try:
        number = number.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP, _WIDE)
    except InvalidOperation:  # more digits than any column has
        number = Decimal("Infinity")
    if abs(number) >= Decimal(10) ** (precision - places):
        raise ValueError(f"{_show(value)} has more digits than the column takes ({precision}, {places})")
    return number


def _float(value: object) -> float:
    number = float(_number(value))
    if not math.isfinite(number):
        raise ValueError(f"{_show(value)} is out of the range of the column")
    return number


def _moment(value: object, aware: bool, places: int) -> datetime:
    """Return a point in time, in UTC: with its offset, or naive for columns that keep none."""
    moment = _parsed(datetime, value, "date and time")
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else _in_utc(moment, value)
    moment = _rounded(moment, places, value)
    return moment if aware else moment.replace(tzinfo=None)


def _rounded(moment: datetime, places: int, value: object) -> datetime:
    """Return a point in time with no more than so many places of a second."""
    step: int = 10 ** (6 - places)
    try:
        return moment + timedelta(microseconds=(moment.microsecond + step // 2) // step * step - moment.microsecond)
    except OverflowError:
        raise ValueError(f"{_show(value)} is out of the range of dates") from None


def _in_utc(moment: datetime, value: object) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{_show(value)} is out of the range of dates") from None


def _date(value: object) -> date:
    if isinstance(value, str) and len(value) > 10:
        moment = _parsed(datetime, value, "date")
        if moment.time() != time():
            raise ValueError(f"{_show(value)} has a time of day, and the column takes a date alone")
        return moment.date()
    return _parsed(date, value, "date")


def _time(value: object, places: int) -> time:
    moment = _parsed(time, value, "time of day")
    rounded = _rounded(datetime.combine(date(2000, 1, 1), moment), places, value)
    if rounded.day != 1:
        raise ValueError(f"{_show(value)} is out of the range of a time of day")
    return rounded.timetz()


def _parsed(kind: type[_Moment], value: object, name: str) -> _Moment:
    if isinstance(value, str):
        with suppress(ValueError):
            return kind.fromisoformat(value)
    raise ValueError(f"{_show(value)} is not a {name} such as RFC 3339 has it")


def _uuid(value: object) -> str:
    if isinstance(value, str):
        with suppress(ValueError):
            return str(uuid.UUID(value))
    raise ValueError(f"{_show(value)} is not a UUID")


def _one_of(value: object, names: list[str]) -> str:
    if isinstance(value, str) and value in names:
        return value
    raise ValueError(f"{_show(value)} is none of {_show(names)}")


def _json(value: object, dialect: str) -> str:
    text = _compact(value)
    if dialect == "postgresql" and _NUL.search(text):
        raise ValueError("a NUL character, which PostgreSQL stores in no JSON")
    return text


def _array(value: object, item: Callable[[object], str], nested: bool) -> str:
    """Return PostgreSQL's own notation of an array: each item quoted, or NULL; an array in it is one more dimension."""
    if not isinstance(value, list):
        raise ValueError(f"{_show(value)} is not an array")
    items = (
        "NULL" if one is None else _array(one, item, nested) if nested and isinstance(one, list) else _quoted(item(one))
        for one in value
    )
    return "{" + ",".join(items) + "}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _binary(value: object) -> NoReturn:
    raise ValueError("the column is binary, and an answer is text")


def _postgresql_text(value: Exact) -> str:
    """Return the text that PostgreSQL reads a value from."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return repr(value) if isinstance(value, float) else str(value)


_PLAIN = (str, int, float)


def _driver_value(value: Exact, dialect: str) -> Value:
    """Return the value for the drivers of SQLite and MySQL: times as SQL writes them, and as CURRENT_TIMESTAMP does."""
    if isinstance(value, _PLAIN):
        return int(value) if value is True or value is False else value
    if isinstance(value, datetime):
        return value.isoformat(" ")
    if isinstance(value, date | time):
        return value.isoformat()
    if dialect == "sqlite":  # has no decimals: a whole number, or the nearest double
        return int(value) if value == value.to_integral_value() and abs(value) < 2**63 else float(value)
    return str(value)
