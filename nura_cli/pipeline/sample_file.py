"""A sample of an application's records, for ``nura init``: the beginning of a file of JSON Lines or CSV, plain or compressed.

It is known by what it holds, and not by its name alone. No more than its beginning is read.
"""

import csv
import io
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from nura_cli.errors import InputError, UsageError
from nura_cli.pipeline import csv_in, lines
from nura_cli.pipeline.unpack import Damaged, unpacked

_MOST_RECORDS = 1000
_MOST_BYTES = 8 << 20


class Sample(NamedTuple):
    """The first records of a file, and whether they stood there as CSV."""

    records: list[dict[str, Any]]
    csv: bool


def read(stream: BinaryIO, name: str) -> Sample:
    """Read the beginning of a file; what cannot be read of it is passed over, as long as there is something.

    Args:
        name: for messages; ``-`` is standard input.

    Raises:
        UsageError: there is nothing in it that could be a record.
    """
    given = unpacked(stream)
    first = given.head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if first == b"[":
        raise UsageError(f"{name}: is a JSON array", hint=f"write its elements one on each line: jq -c '.[]' {name}")
    as_csv = first not in (b"", b"{")
    data = _beginning(given.stream, name)
    records = list(itertools.islice(_rows(data, name) if as_csv else _documents(data, name), _MOST_RECORDS))
    if not records:
        raise UsageError(f"{name}: holds no record", hint="give a file with some of your records, as JSON Lines or CSV")
    return Sample(records, as_csv)


def _beginning(stream: BinaryIO, name: str) -> bytes:
    """Return the whole lines at the beginning of a file."""
    data = bytearray()
    try:
        while len(data) < _MOST_BYTES and (more := stream.read(1 << 16)):
            data += more
    except Damaged as error:
        if not data:
            raise UsageError(f"{name}: {error}") from error
    return bytes(data) if len(data) < _MOST_BYTES else bytes(data[: data.rfind(b"\n") + 1])


def _documents(data: bytes, name: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of lines. Raises UsageError: there is a line, and none is one."""
    wrong: str | None = None
    n = 0
    for line in lines.split(io.BytesIO(data), _MOST_BYTES):
        try:
            found = lines.document(line.data)
        except InputError as error:
            wrong = wrong or f"{name}:{line.number}: {error.message}"
            continue
        if isinstance(found, dict) and found:
            n += 1
            yield found
    if wrong and not n:
        raise UsageError(wrong, hint="JSON Lines has one object on each line; or give CSV")


def _rows(data: bytes, name: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of CSV under their headings. Raises UsageError: it is none."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        hint = "text of another encoding goes through iconv -f WINDOWS-1252 -t UTF-8, say"
        raise UsageError(f"{name}: not valid UTF-8", hint=hint) from error
    header = text.lstrip("\r\n").partition("\n")[0]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=csv_in.sign_of(header))
    try:
        names = next((row for row in rows if row), [])
        _check_headings(names, name)
        for row in rows:
            if row:
                yield dict(zip(names, row, strict=False))
    except csv.Error as error:
        raise UsageError(f"{name}: is no CSV: {error}") from error


def _check_headings(names: list[str], name: str) -> None:
    if not all(one.strip() and one.isprintable() for one in names):
        raise UsageError(f"{name}: is neither JSON Lines nor CSV: its first line names no columns")
    for one, n in Counter(names).items():
        if n > 1:
            raise UsageError(f"{name}: has {n} columns named {one}", hint="name them apart in its first line")
