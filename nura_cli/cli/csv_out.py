"""CSV, as RFC 4180 has it: for programs, and for spreadsheets by their import.

Values stand as they are: a text that begins with ``=`` is the answer's own, and a quote before it would be another answer.
"""

import csv
import io
from collections.abc import Iterable
from typing import Any

import msgspec

_json = msgspec.json.Encoder(decimal_format="number")


def line(cells: Iterable[Any]) -> bytes:
    """Return one line: text as it is, null as nothing, whatever else as JSON writes it."""
    text = io.StringIO()
    csv.writer(text).writerow([_cell(cell) for cell in cells])
    return text.getvalue().encode("utf-8", "replace")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json_of(value).decode()


def json_of(value: Any) -> bytes:
    """Return a value as JSON writes it, decimals as the numbers that they are."""
    return _json.encode(value)
