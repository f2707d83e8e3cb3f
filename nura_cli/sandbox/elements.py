"""The body of an Anthropic create, read a request at a time: 256 MB of it take no more memory than one request."""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

MOST_CHARACTERS = 32_000_000
"""A single request may be 32 MB."""
_PIECE = 1 << 18
_SPACE = re.compile(r"[ \t\r\n]*")
_SLACK = 16


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_number)


def elements(path: Path) -> Iterator[Any]:
    """Yield the elements of the ``requests`` array of a body, one at a time, and read the body to its end.

    Raises:
        ValueError: it is not JSON, no object with just an array ``requests``, or holds a request over the limit.
    """
    with path.open("rb") as file:
        window = _Window(file)
        window.expect("{")
        if window.value() != "requests":
            raise ValueError("requests: Field required")
        window.expect(":")
        window.expect("[")
        if window.peek() == "]":
            window.expect("]")
        else:
            while True:
                yield window.value()
                if window.either(",]") == "]":
                    break
        if window.either(",}") == ",":
            raise ValueError(f"{window.value()}: Extra inputs are not permitted")
        if window.peek():
            raise ValueError("there is something after the end of the body")


class _Window:
    """A sliding piece of text over a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")()
        self._file = file
        self._text = ""
        self._at = 0
        self._done = False

    def _more(self, size: int = _PIECE) -> bool:
        if self._done:
            return False
        data = self._file.read(size)
        self._done = not data
        self._text = self._text[self._at :] + self._decode.decode(data, final=self._done)
        self._at = 0
        return True

    def peek(self) -> str:
        """Return the next character that is no white space, empty at the end."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def either(self, marks: str) -> str:
        """Move behind the next character, which must be one of ``marks``; return it."""
        found = self.peek()
        if not found or found not in marks:
            raise ValueError(f"expected {' or '.join(marks)}, found {found or 'the end'}")
        self._at += 1
        return found

    def expect(self, mark: str) -> None:
        """Move behind the next character, which must be ``mark``."""
        self.either(mark)

    def value(self) -> Any:
        """Return the value that begins here, reading on until it is whole."""
        self.peek()
        size = _PIECE
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if not self._cut(error) or not self._more(size):
                    raise
                size *= 2
            except RecursionError:
                raise ValueError("a request is nested too deeply") from None
            else:
                self._at = end
                return value

    def _cut(self, error: json.JSONDecodeError) -> bool:
        """Return whether an error may be due to the window's end: one in its middle is an error for good."""
        if len(self._text) - self._at > MOST_CHARACTERS:
            raise ValueError("a request is larger than 32 MB")
        return error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - _SLACK
