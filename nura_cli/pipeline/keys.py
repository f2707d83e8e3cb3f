"""Which key a record has: by the name of a field, by several of them, or by a path into it.

A name is that of a field first of all. Where the record has no such field, the name is a path: JMESPath, or names with
points between them (``_id.$oid``), which JMESPath would have in quotes.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from nura_cli.errors import InputError
from nura_cli.pipeline import lines

Record = Mapping[str, Any]
_PLAIN = re.compile(r"[^.\[\]|\"`@(&]+")
_POINTS = re.compile(r"[^.\[\]|\"`@(]+(\.[^.\[\]|\"`@(]+)+")


class Keys:
    """How records of one workload are named.

    Args:
        named: the workload's ``key``: a field or path, or several of them for a composite key.
        prefix: put before each key.
    """

    def __init__(self, named: str | Sequence[str], prefix: str = "") -> None:
        self._composite = not isinstance(named, str)
        self._names = [named] if isinstance(named, str) else list(named)
        self._single = named if isinstance(named, str) else None
        self._paths = {name: path for name in self._names if (path := _path(name))}
        self._prefix = prefix

    def of(self, record: Record) -> lines.Key:
        """Return a record's key. Raises InputError: a field is missing, or what it holds is no key."""
        if self._single is not None and self._single in record:
            with suppress(InputError):  # it is said in full below
                return lines.key_of(record[self._single], self._prefix)
        found = [self._value(record, name) for name in self._names]
        absent = [name for name, value in zip(self._names, found, strict=True) if value is _ABSENT]
        if absent:
            raise InputError(f"its key field {', '.join(absent)} is missing{_near(absent, record)}")
        try:
            return lines.key_of(found if self._composite else found[0], self._prefix)
        except InputError as error:
            inner = [_inside(name, value) for name, value in zip(self._names, found, strict=True)]
            hint = next(filter(None, inner), "")
            raise InputError(error.message + hint) from None

    def _value(self, record: Record, name: str) -> Any:
        if name in record:
            return record[name]
        return self._paths[name](record) if name in self._paths else _ABSENT


def _near(absent: Sequence[str], record: Record) -> str:
    """Return what the record has in the place of a key field that it lacks, and what to write; else nothing."""
    found = lines.nearest(absent, record)
    if not found:
        return ""
    path = _only_path(found[1], record[found[1]]) or found[1]
    return f"; the record has {found[1]}; did you mean {found[0]}, or key: {path}?"


def _inside(name: str, value: Any) -> str:
    """Return what to write for a key that is an object with one member, as MongoDB exports it, or a frame's column."""
    if isinstance(value, dict) and value and all(part.isdecimal() for part in value):
        return '; one record a line is wanted, in pandas to_json(orient="records", lines=True)'
    path = _only_path(name, value)
    return f"; write key: {path}" if path else ""


def _only_path(name: str, value: Any) -> str | None:
    """Return the path through objects of one member to a value that may be a key; None where there is none."""
    if not isinstance(value, dict):
        return None
    path = name
    while isinstance(value, dict) and len(value) == 1 and len(path) < _LONGEST_PATH:
        [(part, value)] = value.items()
        path += f".{part}"
    return path if isinstance(value, str | int) and lines.printable(path) else None


_LONGEST_PATH = 200
_ABSENT = object()
"""Stands for what a record does not have."""


def _path(name: str) -> Callable[[Record], Any] | None:
    """Return the function that follows a path into a record; None for what is a plain name."""
    if _PLAIN.fullmatch(name):
        return None
    if _POINTS.fullmatch(name):
        return _points(name.split("."))
    return _jmespath(name)


def _points(names: list[str]) -> Callable[[Record], Any]:
    def follow(record: Record) -> Any:
        found: Any = record
        for name in names:
            if not isinstance(found, Mapping) or name not in found:
                return _ABSENT
            found = found[name]
        return found

    return follow


def _jmespath(expression: str) -> Callable[[Record], Any] | None:
    """Return what evaluates an expression, or None where it is none."""
    import jmespath
    from jmespath.exceptions import JMESPathError

    try:
        parsed = jmespath.compile(expression)
    except JMESPathError:
        return None

    def search(record: Record) -> Any:
        try:
            found = parsed.search(record)
        except JMESPathError as error:
            raise InputError(f"its key {expression}: {' '.join(str(error).split())}") from None
        return _ABSENT if found is None else found

    return search
