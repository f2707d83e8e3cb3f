"""What an input that is not JSON Lines most likely is, and the command that turns it into them.

People have what their tools export: a JSON array, a document printed over many lines, a table, text in UTF-16. Line by line
such an input makes a flood of errors, and a part of it may even go in. So it is known by its beginning, and refused whole.
"""

import codecs
import re
import shlex

import msgspec

_decode = msgspec.json.Decoder().decode
_BINARY = (
    (b"\x1f\x8b", "gzip inside of gzip", "zcat"),
    (b"BZh", "bzip2", "bzcat"),
    (b"\xfd7zXZ\0", "xz", "xzcat"),
    (b"PAR1", "Parquet", None),
    (b"PK\x03\x04", "a ZIP archive (or an Excel file)", None),
    (b"Obj\x01", "Avro", None),
    (b"SQLite format 3\0", "an SQLite database (name it under databases, and read it by source)", None),
    (b"%PDF", "PDF", None),
)
_TAR = slice(257, 262)
_CELL = re.compile(r'"[^"]*"|[\w .:/()%#-]*')
_ELEMENTS = "jq -c '.[]'"
_WHOLE = "jq -c ."
_NO_MARK = "tail -c +4"
"""Leaves out a mark of the byte order in UTF-8, which jq does not take."""


class Command:
    """How somebody gives one input to one workload: for the commands of hints.

    Args:
        name: the file's name; ``-`` is standard input.
        workload: the workload's name.
        first: the tools that the input goes through first, such as the one that decompresses it.
    """

    def __init__(self, name: str, workload: str, *first: str) -> None:
        self._name = name
        self._workload = workload
        self._first = first

    def after(self, tool: str) -> "Command":
        """Return the command with one more tool that the input goes through first."""
        return Command(self._name, self._workload, *self._first, tool)

    def through(self, *tools: str) -> str:
        """Return the command that sends the input through tools."""
        steps = [*self._first, *tools, f"nura enqueue {self._workload}"]
        if self._name == "-":
            return " | ".join(["…", *steps])
        return " | ".join([f"{steps[0]} {shlex.quote(self._name)}", *steps[1:]])

    def with_option(self, option: str) -> str:
        """Return the command that gives the input as it is, with an option."""
        command = f"nura enqueue {option} {self._workload}"
        return f"… | {command}" if self._name == "-" else f"{command} {shlex.quote(self._name)}"


def guess(head: bytes, command: Command) -> str | None:
    """Return what an input is, and what to type, by its first bytes; None where it may be JSON Lines."""
    if found := binary(head, command, "JSON Lines"):
        return found
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if table := _table(text):
        return f"is {table}, not one record on each line: {command.with_option('--csv')}"
    tool = _tool(text)
    if head.startswith(codecs.BOM_UTF8):
        command = command.after(_NO_MARK)
    return f"is {tool[0]}, not one record on each line: {command.through(tool[1])}" if tool else None


def binary(head: bytes, command: Command, wanted: str) -> str | None:
    """Return what an input is that is no text in UTF-8, by its first bytes, and what to type; else None."""
    for magic, what, tool in _BINARY:
        if head.startswith(magic):
            return f"is {what}, not {wanted}" + (f": {command.through(tool)}" if tool else "")
    if head[_TAR] == b"ustar":
        return f"is a tar archive, not {wanted}: unpack it first"
    encoding = _encoding(head)
    return f"is {encoding}, not UTF-8: {command.through(f'iconv -f {encoding} -t UTF-8')}" if encoding else None


def _encoding(head: bytes) -> str | None:
    """Return the name, as iconv has it, of an encoding that is not UTF-8; a mark of the byte order stands at its head or not."""
    for mark, name in ((codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32")):
        if head.startswith(mark):
            return name
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    wide = {b"\0\0\0": "UTF-32BE", b"\0": "UTF-16BE"}
    for zeros, name in wide.items():
        if head.startswith(zeros) and head[len(zeros) : len(zeros) + 1] in (b"{", b"[", b'"'):
            return name
    if head[:1] in (b"{", b"[", b'"') and head[1:2] == b"\0":
        return "UTF-32LE" if head[1:4] == b"\0\0\0" else "UTF-16LE"
    return None


def _lines(text: bytes) -> tuple[bytes, bytes] | None:
    """Return the first line of a text and the rest; None where it begins with a whole document on a line, or is no line."""
    first, end, rest = text.partition(b"\n")
    first = first.rstrip()
    return (first, rest.lstrip()) if end and not _whole(first) else None


def _tool(text: bytes) -> tuple[str, str] | None:
    """Return what a text of JSON is that does not have a document on each line, and the tool for it; else None."""
    first, rest = _lines(text) or (b"", b"")
    if first.startswith(b"["):
        goes_on = first.endswith((b"[", b"{", b",")) or rest.startswith((b",", b"]"))
        return ("a JSON array", _ELEMENTS) if goes_on else None
    if first.startswith(b"{"):
        goes_on = first.endswith((b"{", b"[", b",")) and not rest.startswith(b"{") and not _whole(first[:-1])
        return ("JSON over several lines", _WHOLE) if goes_on else None
    return None


def _table(text: bytes) -> str | None:
    """Return the kind of table whose header the first line of a text may be; else None."""
    first, rest = _lines(text) or (b"", b"")
    if first.startswith((b"[", b"{")) or rest.startswith(b"{"):
        return None
    try:
        header = first.decode()
    except UnicodeDecodeError:
        return None
    below = rest.partition(b"\n")[0]
    for name, sign in (("TSV", "\t"), ("CSV", ","), ("CSV", ";")):
        cells = header.split(sign)
        if len(cells) > 1 and all(_CELL.fullmatch(cell.strip()) for cell in cells) and sign.encode() in below:
            return name
    return None


def _whole(line: bytes) -> bool:
    """Return whether a line is one whole JSON document."""
    try:
        _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True
