"""CSV, as RFC 4180 has it: for programs, and for spreadsheets by their import.

Values stand as they are: a text that begins with ``=`` is the answer's own, and a quote before it would be another answer.
"""

import csv
import io
from collections.abc import Iterable
from typing import Any


def line(cells: Iterable[Any]) -> bytes:
    """Return one line: text as it is, null as nothing, whatever else as JSON writes it."""
    text = io.StringIO()
    csv.writer(text).writerow([_cell(cell) for cell in cells])
    return text.getvalue().encode("utf-8", "replace")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    plain = isinstance(value, str) or type(value) is int
    return str(value) if plain else json_of(value).decode()


def json_of(value: Any) -> bytes:
    """Return a value as JSON writes it, decimals as the numbers that they are."""
    import msgspec  # not for nura cost, whose cells are plain

    return msgspec.json.Encoder(decimal_format="number").encode(value)
