"""How far the work of this process is: stages tell it as they go on, and whoever shows it listens.

Where nobody listens, as off a terminal, telling costs next to nothing.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Listener(Protocol):
    """Who shows it: of pieces of work that lie in one another, the innermost."""

    def begin(self, what: str, total: int | None, *, in_bytes: bool, at_once: bool) -> None:
        """Hear of a piece of work, as :func:`going` is told of it."""

    def at(self, done: int) -> None:
        """Hear how much of the innermost piece is done."""

    def end(self) -> None:
        """Hear that the innermost piece has ended."""


class Step:
    """One piece of work, for who does it."""

    done = 0

    def add(self, n: int) -> None:
        """Tell that ``n`` more are done."""

    def to(self, done: int) -> None:
        """Tell how many are done."""
        self.add(done - self.done)


class _Told(Step):
    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def add(self, n: int) -> None:
        self.done += n
        self._listener.at(self.done)


NOBODY = Step()
"""For work that nobody looks at."""
_listeners: list[Listener] = []


@contextmanager
def shown(listener: Listener) -> Iterator[None]:
    """Have a listener hear of all work inside of the block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.pop()


@contextmanager
def going(what: str, total: int | None = None, *, in_bytes: bool = False, at_once: bool = False) -> Iterator[Step]:
    """Give the block what it tells its progress with.

    Args:
        what: in words, for a person.
        total: how many there are to do; None where nobody knows.
        in_bytes: whether bytes are counted.
        at_once: to be shown at once, and not only where it takes a while: little will be told of it.
    """
    if not _listeners:
        yield NOBODY
        return
    listener = _listeners[-1]
    listener.begin(what, total, in_bytes=in_bytes, at_once=at_once)
    try:
        yield _Told(listener)
    finally:
        listener.end()


class Read(io.BufferedReader):
    """A file whose reader tells how far it is."""

    def __init__(self, raw: io.RawIOBase, step: Step) -> None:
        super().__init__(raw)
        self._step = step

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes, as any file does."""
        data = super().read(size)
        self._step.add(len(data))
        return data
