"""CSV as it comes from anywhere: its first row names the columns, each other one is a record with these names.

Every value is a string, an empty cell the empty string: what a table means by ``007`` or ``1.10`` only its reader knows. A row
that cannot be used never stops the ones after it, and no more than one is held.
"""

import csv
from collections.abc import Generator, Iterator
from typing import BinaryIO

import msgspec

from nura_cli.errors import InputError
from nura_cli.pipeline import lines
from nura_cli.pipeline.lines import Line

_SIGNS = ",;\t|"
"""What may stand between cells: the one that parts the first line into most of them."""


def split(stream: BinaryIO, limit: int) -> Generator[Line, None, None]:
    """Yield the rows of a table that are not empty, each as a JSON object.

    Args:
        stream: opened for reading bytes.
        limit: bytes that a row may have, and its record.
    """
    text = _Text(stream, limit)
    rows = text.rows()
    try:
        head = next(rows, None)
        if head is None:
            return
        names = _names(head)
    except InputError as error:
        json = text.taken.lstrip().startswith((b"{", b"["))
        why = "is JSON, not CSV: leave out --csv" if json else f"its header: {error.message}"
        yield Line(1, text.taken, why, whole=True)
        for number, data, _ in text.pieces:
            yield Line(number, data.rstrip(b"\r\n"), why, whole=True)
        return
    header = text.taken
    for row in rows:
        try:
            data, fault = _record(names, row), None
        except InputError as error:
            data, fault = b"", error.message
        if len(data) > limit:
            data, fault = b"", lines.too_long(limit)
        yield Line(text.number, data, fault, raw=text.taken, header=header, open_end=text.open_end)


Row = list[str] | InputError


def _names(row: Row) -> list[str]:
    """Return the names of the columns, empty for one without. Raises InputError: no record can be made with them."""
    if isinstance(row, InputError):
        raise row
    names = [name.strip() for name in row]
    if not any(names):
        raise InputError("names no column")
    if names[0].startswith(("{", "[")):
        raise InputError("is JSON")
    for name in names:
        if name and names.count(name) > 1:
            raise InputError(f"names {name} twice")
    return names


def _record(names: list[str], row: Row) -> bytes:
    """Return a row as JSON; a column without a name is left out. Raises InputError: it is no record."""
    if isinstance(row, InputError):
        raise row
    if len(row) != len(names):
        raise InputError(f"has {len(row)} cells, and the header has {len(names)}")
    return msgspec.json.encode({name: cell for name, cell in zip(names, row, strict=True) if name})


class _Text:
    """The lines of a stream as text, for the parser of a row to take as many as that has.

    Attributes:
        pieces: what is not read yet.
        number: the number of the line on which the row begins that was read last.
    """

    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self.pieces = lines.pieces(stream, limit)
        self.number = 0
        self._limit = limit
        self._taken: list[bytes] = []
        self._size = 0
        self._ahead: str | None = None
        self._last = 0
        self._is_text = True
        csv.field_size_limit(limit)

    @property
    def taken(self) -> bytes:
        """The row that was read last, as it stood, without its line end."""
        return b"".join(self._taken).rstrip(b"\r\n")

    @property
    def open_end(self) -> bool:
        """Whether the row that was read last has no line end."""
        return bool(self._taken) and not self._taken[-1].endswith((b"\n", b"\r"))

    def rows(self) -> Iterator[Row]:
        """Yield the cells of each row that is not empty, or why it cannot be read."""
        first = next(self, "")
        self._ahead = first or None
        parser = csv.reader(self, delimiter=sign_of(first), strict=True)
        while True:
            self._begin()
            try:
                row: Row = next(parser)
            except StopIteration:
                return
            except csv.Error as error:
                row = InputError(f"cannot be read as CSV: {str(error).split(' - ')[0]}{self._until()}")
            except InputError as error:
                row = InputError(f"{error.message}{self._until()}")
            if not self._is_text:
                row = InputError(lines.NO_TEXT)
            if isinstance(row, InputError) or any(row):
                yield row

    def _begin(self) -> None:
        if self._ahead is None:
            self._taken, self._size, self._is_text = [], 0, True
            self.number = self._last + 1

    def _until(self) -> str:
        """Return where a row ends that goes over several lines: most likely a quote on its first one is not closed."""
        return f" (from here to line {self._last})" if self._last > self.number else ""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """Return the next line. Raises InputError: it, or the row that it belongs to, is too long."""
        if self._ahead is not None:
            text, self._ahead = self._ahead, None
            return text
        self._last, data, whole = next(self.pieces)
        self._taken.append(data)
        self._size += len(data)
        self.number = self.number or self._last
        if not whole or self._size > self._limit + 2:
            raise InputError(lines.too_long(self._limit))
        try:
            return data.decode()
        except UnicodeDecodeError:
            self._is_text = False
            return data.decode("utf-8", "surrogateescape")


def sign_of(line: str) -> str:
    """Return what stands between the cells of a table that begins with this line."""
    return max(_SIGNS, key=lambda sign: _cells(line, sign))


def _cells(line: str, sign: str) -> int:
    """Return how many cells a line has with a sign between them; a row that goes on in the next line counts as far as it is there."""
    try:
        return len(next(csv.reader([line], delimiter=sign), []))
    except csv.Error:
        return 0
