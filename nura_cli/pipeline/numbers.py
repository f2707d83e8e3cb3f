"""Numbers of a record as they were written: ``19.90`` is not ``19.9`` to whoever reads the prompt.

JSON's numbers become Python's where something is computed with them, and keep their text where they are only handed on.
"""

import json
import re
from typing import Any

import msgspec

_MINUS_ZERO = re.compile(rb"-0(?![0-9.eE])")
_MARKED = re.compile(r'"\\u0000([^"]*)"')


class Number(float):
    """A fraction, or a number with an exponent: a float in arithmetic and comparisons, its own text wherever it is written."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> "Number":
        """Return the number that a text of JSON's stands for."""
        made = super().__new__(cls, text)
        made.text = text
        return made

    def __repr__(self) -> str:
        """Return the text; ``str``, ``format`` without a specification, and the printing of lists come here, too."""
        return self.text

    __str__ = __repr__


_decode = msgspec.json.Decoder(dict[str, Any], float_hook=Number).decode


def record_of(line: bytes) -> dict[str, Any]:
    """Return the record of a kept line, which was checked when it was enqueued; its numbers know their text."""
    if b"-0" in line and _MINUS_ZERO.search(line):  # the one integer that Python writes differently
        return dict(json.loads(line, parse_float=Number, parse_int=_whole))
    return _decode(line)


def _whole(text: str) -> int | Number:
    return Number(text) if text == "-0" else int(text)


def dumps(value: Any, **options: Any) -> str:
    """Return a value as ``json.dumps`` does, its numbers in their own text.

    A mark stands for each meanwhile: a string that begins with NUL, which no record holds.
    """
    return _MARKED.sub(r"\1", json.dumps(_marked(value), **options))


def _marked(value: Any) -> Any:
    if isinstance(value, Number):
        return f"\0{value.text}"
    if isinstance(value, dict):
        return {key: _marked(item) for key, item in value.items()}
    return [_marked(item) for item in value] if isinstance(value, list | tuple) else value
