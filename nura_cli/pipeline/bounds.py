"""What the rendering of one prompt may cost, so that a slip in a template, or a hostile record, costs one record only.

Nothing is interrupted from outside: no signal, no thread, no second process. Whatever may grow is measured *before* it is
built (operators, filters and methods whose result can be longer than what went in), all else when it is there; loops,
calls, filters and tests look at the CPU time of this thread, which stands still while a loaded machine does other work.
"""

import re
import sys
import time
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Sized, ValuesView
from typing import Any

from jinja2 import TemplateRuntimeError, Undefined

MOST_BYTES = 128 * 2**20
"""What all expressions of one rendering may build, together, in bytes of memory."""
MOST_TEXT = 40_000_000
"""Characters of a prompt: more than the largest request that any vendor takes."""
MOST_SECONDS = 2
"""CPU time of one rendering."""
_MOST_BITS = 100_000
_MOST_COPIED = 10**10
"""Bytes that a filter may move about where it takes text apart again and again: about the second that memory needs for it."""
_EVERY = 15
_PART = 60
"""Bytes of a short piece of text beside its characters."""

_CONTAINERS = (list, tuple, set, frozenset, KeysView, ValuesView, ItemsView)
_TEXTS = (str, bytes)
_NUMBERS = (int, float, range)
_SIZED = (str, bytes, list, tuple, dict, set, frozenset)
_CONVERSION = re.compile(r"%(?:\([^)]*\))?[#0\- +]*(\*|\d+)?(?:\.(\*|\d+))?")
_DIGITS = re.compile(r"\d+")


class TooMuch(TemplateRuntimeError):
    """A rendering would build too much, or take too long."""


class NotData(TemplateRuntimeError):
    """What is to be printed, tested or passed on is a method, a function or a sequence that is not made yet."""


class Meter:
    """What is left to one rendering. Before the first, which is while a template is compiled, nothing is."""

    def __init__(self) -> None:
        self._left = -1
        self._until: float | None = None
        self._ops = 0

    def start(self) -> None:
        """Begin a rendering. The clock is not asked yet: that is a system call, and most renderings end within a few steps."""
        self._left = MOST_BYTES
        self._until = None
        self._ops = 0

    def tick(self) -> None:
        """Count one step of a rendering. Raises TooMuch: it has taken too long."""
        self._ops += 1
        if self._ops & _EVERY:
            return
        now = time.thread_time()
        if self._until is None:
            self._until = now + MOST_SECONDS
        if now > self._until:
            raise TooMuch(f"it takes more than {MOST_SECONDS} seconds")

    def take(self, n: int) -> None:
        """Count ``n`` bytes that are to be built, or were. Raises TooMuch: there is no room for them."""
        self._left -= n
        if self._left < 0:
            raise TooMuch(f"its expressions build more than {MOST_BYTES >> 20} MB")

    def built(self, value: Any) -> Any:
        """Count a value that was built, and return it."""
        if isinstance(value, _SIZED):
            self.take(sys.getsizeof(value))
        return value

    def each(self, values: Iterable[Any]) -> Iterator[Any]:
        """Yield values, each a step."""
        for value in values:
            self.tick()
            yield value

    def text(self, value: Any) -> None:
        """Count the text that a value will become.

        Raises:
            NotData: it has none that a prompt could want.
            UndefinedError: it, or something in it, is undefined.
        """
        waiting = [value]
        while waiting:
            one = waiting.pop()
            if one is None or isinstance(one, _NUMBERS):  # before the views among the containers, which are slow to ask
                continue
            if isinstance(one, _TEXTS):
                self.take(len(one) + 2)
            elif isinstance(one, dict):
                self.take(32 * len(one) + 2)
                waiting += (*one.keys(), *one.values())
            elif isinstance(one, _CONTAINERS):
                self.take(16 * len(one) + 2)
                waiting += one
            elif isinstance(one, Undefined):
                str(one)
            else:
                raise NotData(f"{_named(one)} is no data")

    def copied(self, n: int) -> None:
        """Raise TooMuch where a filter would move ``n`` bytes about."""
        if n > _MOST_COPIED:
            raise TooMuch("a text is too long for what is done with it")


def _named(value: object) -> str:
    """Return what something is that is no data, as a person may know it."""
    if isinstance(value, Iterator):
        return "a sequence that a filter has yet to make (| list does)"
    kind = type(value).__name__
    name = getattr(value, "__name__", None) or getattr(value, "name", None)
    return f"{name}, which is only ever called," if name else kind


def _number(value: Any) -> int:
    return abs(int(value)) if isinstance(value, int | float) and value == value and abs(value) != float("inf") else 0


def _length(value: Any) -> int:
    return len(value) if isinstance(value, Sized) else len(str(value))


# --- operators


def operated(meter: Meter, operator: str, left: Any, right: Any) -> None:
    """Count what an operator is to build."""
    if isinstance(left, int) and isinstance(right, int):
        _whole(operator, left, right)
    elif operator == "*":
        many, times = (right, left) if isinstance(left, int) else (left, right)
        if isinstance(many, str | bytes | list | tuple) and isinstance(times, int):
            meter.take(len(many) * _width(many) * max(times, 0))
    elif operator == "+" and isinstance(left, _SIZED) and isinstance(right, _SIZED):
        meter.take(sys.getsizeof(left) + sys.getsizeof(right))
    elif operator == "%" and isinstance(left, str | bytes):
        formatted(meter, left, right)


def _width(many: str | bytes | list[Any] | tuple[Any, ...]) -> int:
    """Return the bytes that one character, or one member, takes in memory, at most."""
    if isinstance(many, str):
        return 1 if many.isascii() else 4
    return 1 if isinstance(many, bytes) else 8


def _whole(operator: str, left: int, right: int) -> None:
    """Refuse an operation of two integers with more digits than anybody has for a prompt: it takes the time of its square."""
    bits = max(left.bit_length(), right.bit_length())
    if operator == "**" and right > 0 and left not in (0, 1, -1):
        bits = left.bit_length() * right
    if bits > _MOST_BITS:
        raise TooMuch("a number has too many digits")


def formatted(meter: Meter, pattern: Any, given: Any) -> None:
    """Count what ``%`` makes of a text: its widths and precisions, and what is put in."""
    text = pattern.decode("latin-1") if isinstance(pattern, bytes) else str(pattern)
    found = [size for match in _CONVERSION.finditer(text) for size in match.groups() if size]
    meter.take(sum(int(size[:20]) for size in found if size != "*") + len(text))
    if "*" in found:
        meter.take(sum(map(_number, given if isinstance(given, tuple) else (given,))))
    meter.text(given)


def spelled(meter: Meter, value: Any, specification: str) -> None:
    """Count what ``str.format`` makes of one value."""
    meter.take(sum(int(size[:20]) for size in _DIGITS.findall(specification)))
    meter.text(value)


# --- filters and methods: what they are to build, in bytes


def _replaced(text: Any, old: Any = "", new: Any = "", *_: Any, **__: Any) -> int:
    if not isinstance(text, bytes):
        text, old = str(text), str(old)
    return len(text) + int(text.count(old)) * _length(new)


def _indented(text: Any, width: Any = 4, *_: Any, **__: Any) -> int:
    return (str(text).count("\n") + 1) * (len(width) if isinstance(width, str) else _number(width))


def _wrapped(text: Any, width: Any = 79, _: Any = True, wrapstring: Any = None, *__: Any, **___: Any) -> int:
    whole = str(text)
    return (len(whole) // max(_number(width), 1) + whole.count("\n") + 1) * len(str(wrapstring or "\n"))


def _batched(_: Any, linecount: Any = 0, fill_with: Any = None) -> int:
    return 8 * _number(linecount) if fill_with is not None else 0


def _translated(text: str | bytes, table: Any = None, *_: Any) -> int:
    longest = max((len(one) for one in table.values() if isinstance(one, str)), default=1) if type(table) is dict else 1
    return len(text) * longest


def _split(text: Any, sep: Any = None, *_: Any, **__: Any) -> int:
    blanks = (" ", "\n", "\t") if isinstance(text, str) else (b" ", b"\n", b"\t")
    return int(len(text) + _PART * sum(map(text.count, [sep] if sep else blanks)))


def _lines(text: Any, *_: Any, **__: Any) -> int:
    ends = ("\n", "\r") if isinstance(text, str) else (b"\n", b"\r")
    return int(len(text) + _PART * sum(map(text.count, ends)))


def _tabs(text: Any, tabsize: Any = 8) -> int:
    return len(text) + int(text.count("\t" if isinstance(text, str) else b"\t")) * _number(tabsize)


def _words(n: Any = 5, html: Any = True, min: Any = 20, max: Any = 100) -> int:  # noqa: A002 - lipsum's own names
    return _number(n) * (_number(max) + 1) * 12


FILTERS: dict[str, Callable[..., int]] = {
    "center": lambda _, width=80: _number(width),
    "indent": _indented,
    "wordwrap": _wrapped,
    "replace": _replaced,
    "batch": _batched,
    "slice": lambda _, slices=0, fill_with=None: _PART * _number(slices),
    # json.dumps writes so many blanks before each member, and once more for each level it is deep.
    "tojson": lambda _, indent=None: 2**20 * (_length(indent) if isinstance(indent, str) else _number(indent)),
    "round": lambda _, precision=0, method="common": 2**17 * _number(precision),
}
"""Filters whose result may be larger than what goes in by more than a factor that their own code fixes."""

METHODS: dict[str, Callable[..., int]] = {
    **dict.fromkeys(("center", "ljust", "rjust", "zfill"), lambda _, width=0, *__: _number(width)),
    "to_bytes": lambda _, length=1, *__, **___: _number(length),
    "expandtabs": _tabs,
    "replace": _replaced,
    "translate": _translated,
    **dict.fromkeys(("split", "rsplit"), _split),
    "splitlines": _lines,
}
"""The same of the methods of strings, bytes and integers. ``join``, ``format`` and ``format_map`` are measured in place."""

FUNCTIONS: dict[str, Callable[..., int]] = {"generate_lorem_ipsum": _words}

TEXTUAL = frozenset(
    (
        *("upper", "lower", "capitalize", "title", "trim", "string", "replace", "center", "indent", "truncate"),
        *("wordwrap", "wordcount", "striptags", "urlize", "escape", "e", "forceescape", "safe", "pprint", "tojson"),
    )
)
"""Filters that make text of whatever they are given."""


_IN_WORDS = frozenset(("title", "urlize", "wordcount", "wordwrap", "pprint"))


def taken_apart(meter: Meter, name: str, value: Any, width: Any = 79, *_: Any, **__: Any) -> None:
    """Count the words into which some filters split a text; refuse what two take the square of its length for: words without end."""
    if name not in _IN_WORDS:
        return
    text = str(value)
    meter.take(2 * _PART * sum(map(text.count, " \n\t-<([{")))
    if name in ("wordwrap", "urlize"):
        longest = max(map(len, text.split()), default=0)
        meter.copied(longest * longest // (max(_number(width), 1) if name == "wordwrap" else 1))
