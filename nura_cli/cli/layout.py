"""Tables and lines as a terminal has room for them. Into a pipe they go whole: not wrapped, not cut, without colour."""

import os
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

_ANSI = {"bold": "1", "red": "31", "yellow": "33", "dim": "2"}
_GAPS = (2, 1)
"""Blanks between two columns: what is tried first, and what a narrow terminal gets."""
_LEAST = 8
"""Columns that a name keeps at least when it is cut."""


@dataclass(frozen=True)
class Screen:
    """Where output goes.

    Attributes:
        columns: characters of a line; None where nothing is wrapped or cut.
        colours: whether colours are shown.
    """

    columns: int | None = None
    colours: bool = False

    def styled(self, text: str, style: str) -> str:
        """Return text in a style: ``bold``, ``red``, ``yellow``, ``dim``; as it is, where ``style`` is empty."""
        return f"\x1b[{_ANSI[style]}m{text}\x1b[0m" if self.colours and style and text.strip() else text

    def wrapped(self, text: str, indent: str = "") -> str:
        """Return text with its lines broken between words; all but the first begin with ``indent``. No word is broken."""
        if self.columns is None:
            return text
        return "\n".join(line for part in text.split("\n") for line in _lines(part, self.columns, indent))


def of_output() -> Screen:
    """Return the screen that standard output is: a pipe or a file has no end of a line, and no colours."""
    if not sys.stdout.isatty():
        return Screen()
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return Screen(max(20, shutil.get_terminal_size().columns), colours=not plain)


class Column(NamedTuple):
    """A column of a table: its name; figures stand to the right, and are never cut; words may be."""

    name: str
    figures: bool = False


class Cell(NamedTuple):
    """What stands in a row of a column, and the style that it is shown in."""

    text: str
    style: str = ""


def table(screen: Screen, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> Iterator[str]:
    """Yield the lines of a table that fits the screen: names are cut first, then the columns stand closer; where the figures
    alone have no room beside each other, each row becomes a paragraph.
    """
    natural = [
        max(cells(text) for text in (column.name, *(row[n].text for row in rows))) for n, column in enumerate(columns)
    ]
    for gap in _GAPS:
        widths = _fitted(
            columns, natural, None if screen.columns is None else screen.columns - gap * (len(columns) - 1)
        )
        if widths is not None:
            heads = [Cell(column.name, "bold") for column in columns]
            yield from (_row(screen, columns, widths, " " * gap, row) for row in (heads, *rows))
            return
    for row in rows:
        yield from _paragraph(screen, columns, row)


def _fitted(columns: Sequence[Column], natural: Sequence[int], room: int | None) -> list[int] | None:
    """Return the columns' widths that fit into ``room`` characters, the longest names cut most; None where there are none."""
    widths = list(natural)
    while room is not None and sum(widths) > room:
        names = [n for n, column in enumerate(columns) if not column.figures]
        longest = max(names, key=lambda n: widths[n] - max(_LEAST, len(columns[n].name)))
        if widths[longest] <= max(_LEAST, len(columns[longest].name)):
            return None
        widths[longest] -= 1
    return widths


def _row(screen: Screen, columns: Sequence[Column], widths: Sequence[int], gap: str, row: Sequence[Cell]) -> str:
    parts = []
    for column, width, cell in zip(columns, widths, row, strict=True):
        text = cut(cell.text, width)
        blanks = " " * (width - cells(text))
        parts.append(screen.styled(blanks + text if column.figures else text + blanks, cell.style))
    return gap.join(parts).rstrip()


def _paragraph(screen: Screen, columns: Sequence[Column], row: Sequence[Cell]) -> Iterator[str]:
    """Yield a row as its first cell, and below it the others, each with the name of its column; empty ones are left out."""
    width = screen.columns or 0
    yield cut(row[0].text, width)
    items = [
        f"{column.name} {cell.text if column.figures else cut(cell.text, width - 3 - len(column.name))}"
        for column, cell in zip(columns[1:], row[1:], strict=True)
        if cell.text.strip()
    ]
    line = ""
    for item in items:
        if line and cells(line) + 2 + cells(item) > width:
            yield line
            line = ""
        line += f"{', ' if line else '  '}{item}"
    yield line


def cut(text: str, width: int) -> str:
    """Return text that takes at most ``width`` columns, an ellipsis in the middle of what does not: names differ at their ends."""
    if cells(text) <= width:
        return text
    head, tail = (width - 1) - (width - 1) // 2, (width - 1) // 2
    return f"{_first(text, head)}…{_first(text[::-1], tail)[::-1]}"


def _first(text: str, width: int) -> str:
    """Return as much of the beginning of a text as takes ``width`` columns."""
    taken = 0
    for n, character in enumerate(text):
        taken += cells(character)
        if taken > width:
            return text[:n]
    return text


def cells(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _lines(text: str, columns: int, indent: str) -> Iterator[str]:
    words = text.lstrip(" ").split(" ")
    line = text[: len(text) - len(text.lstrip(" "))] + words[0]
    for word in words[1:]:
        if cells(line) + 1 + cells(word) > columns:
            yield line.rstrip()
            line = indent + word
        else:
            line += " " + word
    yield line
