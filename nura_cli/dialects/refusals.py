"""Reading why a batch, a create or an upload was refused, in whatever shape a service tells it: codes, words, request lines.

A line is taken from where the vendor puts one (``line``); else from words that begin with it ("Line 3: …", as stdapi.ai says
it, "Lines 3, 7 and 9 …", Anthropic's "requests.2.params: …", which counts from 0) or end with it ("… on line 3", "… (line 3)"). Elsewhere in the
words it may be a quotation of the record.
"""

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

from nura_cli.dialects import reading, topics
from nura_cli.dialects.base import Rejection

_MOST_FAULTS = 100
_DEEPEST_FAULT = 6
_LISTS = ("data", "errors", "error", "detail", "details")
_MESSAGES = ("message", "detail", "msg", "error_msg", "error_message", "errorMessage", "Message", "reason")
_LINES = ("line", "line_number", "lineno")

_NUMBER = r"\d{1,9}(?!\.?\d)"
_JOINED = rf"{_NUMBER}(?:(?:\s*,\s*(?:and\s+)?|\s+and\s+|\s*&\s*|\s*[-\u2013]\s*|\s+to\s+){_NUMBER})*"
_NAMED = rf"(?:line(?:\s+(?:no\.?|number))?\s*#?\s*({_NUMBER})|lines\s*#?\s*({_JOINED}))"
_STARTS = re.compile(
    rf"[(\[]?(?:[\w ]{{0,20}}errors? )?(?:(?:on|in|at|with|for) )?(?:the )?(?:input |batch |request )?{_NAMED}(?!\w|\s*,?\s*\(?(?:col|char|pos))",
    re.IGNORECASE,
)
_ENDS = re.compile(
    rf"(?:\b(?:on|in|at|for|from|of|see)\s+|[(\[]\s*)(?:the )?(?:input |batch )?{_NAMED}\s*[)\]]?\s*[.!]?$",
    re.IGNORECASE,
)
_PLACE = re.compile(r"requests(?:\.|\[)(\d{1,9})\b")
_REQUEST = re.compile(r"request #?([1-9]\d{0,8}): ", re.IGNORECASE)
"""stdapi.ai, where it speaks Anthropic's protocol: counted from 1, as its "Line 3: …" is."""
_LOOKED_AT = 300
"""Characters at either end of a message in which a line is looked for."""


def read(errors: Any, depth: int = 0, *, dumped: bool = True) -> tuple[Rejection, ...]:
    """Return why something was refused, from any shape; words without a known place are kept as they are.

    Where a summary stands beside a list whose items name lines, the items count. A code that stands around an error counts where
    that has none, or has one that says less (xAI: ``{"code", "error": "words"}``).

    Args:
        dumped: whether an object in which nothing is known is kept as its JSON.
    """
    if isinstance(errors, list) and depth < _DEEPEST_FAULT:
        each = (read(item, depth + 1, dumped=dumped) for item in errors[:_MOST_FAULTS])
        return tuple(itertools.chain.from_iterable(each))[:_MOST_FAULTS]
    if not isinstance(errors, dict) or depth >= _DEEPEST_FAULT:
        return _in_words(errors if dumped else _bare(errors))
    said = next((given for name in _MESSAGES if _said(given := errors.get(name))), None)
    nested = (errors[name] for name in _LISTS if _nested(errors.get(name)))
    inner = [found for each in nested if (found := read(each, depth + 1, dumped=dumped))]
    named = next((found for found in inner if any(fault.line is not None for fault in found)), None)
    code = _code(errors)
    if named is not None or (said is None and any(name in errors for name in _LISTS)):
        return _coded(code, named or next(iter(inner), ()) or _plain(errors))
    if not code and said is None:
        return _in_words(errors) if dumped else ()
    return _each(code, said, _own_lines(errors, said))


_NO_CODES = frozenset(("error", "list", "failed"))
"""What stands around errors as a type or a status, and is no code of theirs."""


def _coded(code: str | None, faults: tuple[Rejection, ...]) -> tuple[Rejection, ...]:
    """Return faults with the code that stands around them, where it says more than their own."""
    if code is None or code.lower() in _NO_CODES:
        return faults
    telling = topics.topic((code,), None) is not None
    return tuple(
        fault._replace(code=code)
        if fault.code is None or (telling and topics.topic((fault.code,), None) is None)
        else fault
        for fault in faults
    )


def _plain(errors: dict[str, Any]) -> tuple[Rejection, ...]:
    """Return what stands where a list could, in plain words."""
    return next((found for name in _LISTS if (found := _in_words(_bare(errors.get(name))))), ())


def _bare(value: Any) -> Any:
    return value if isinstance(value, str | int) else None


def _nested(value: Any) -> bool:
    return isinstance(value, dict | list) and bool(value)


def _said(value: Any) -> bool:
    return bool(_text(value))


def _code(errors: dict[str, Any]) -> str | None:
    """Return the most telling of an error's codes: one about the account, else the first that is known, else the first."""
    codes = [code for one in reading.codes(errors) if (code := _text(one))]
    known = {code: found for code in codes if (found := topics.topic((code,), None)) is not None}
    about_the_account = (code for code, found in known.items() if found is topics.Topic.ACCOUNT)
    return next(about_the_account, next(iter([*known, *codes]), None))


def _each(code: str | None, said: Any, lines: list[int]) -> tuple[Rejection, ...]:
    message = _text(said)
    if not lines:
        return (Rejection(code, message, None),)
    return tuple(Rejection(code, message, line) for line in lines[:_MOST_FAULTS])


def _own_lines(errors: dict[str, Any], said: Any) -> list[int]:
    """Return the lines that an error names: as a number, as the place of a request, or in its words."""
    for name in _LINES:
        if (line := _request_line(errors.get(name))) is not None:
            return [line]
    param = errors.get("param")
    return _placed(param) or lines_in(said)


def _placed(words: Any) -> list[int]:
    found = _PLACE.match(words) if isinstance(words, str) else None
    return [int(found[1]) + 1] if found else []


def lines_in(words: Any) -> list[int]:
    """Return the 1-based request lines that words name where they begin or end, in their order; [] where they name none."""
    if not isinstance(words, str):
        return []
    begin, end = words.lstrip()[:_LOOKED_AT], words.rstrip()[-_LOOKED_AT:]
    if placed := _placed(begin):
        return placed
    if (request := _REQUEST.match(begin)) is not None:
        return [int(request[1])]
    found = _STARTS.match(begin) or _ENDS.search(end)
    if found is None:
        return []
    numbers = [int(found[1])] if found[1] else list(_numbers(found[2]))
    return [n for n in dict.fromkeys(numbers) if n > 0][:_MOST_FAULTS]


def _numbers(joined: str) -> Iterator[int]:
    """Yield the numbers of "3, 7 to 9 and 12"."""
    for part in re.finditer(r"(\d+)(?:\s*(?:[-\u2013]|to)\s*(\d+))?", joined):
        first, last = int(part[1]), int(part[2] or part[1])
        yield from range(first, min(last, first + _MOST_FAULTS) + 1)


def _in_words(errors: Any) -> tuple[Rejection, ...]:
    """Return anything else as a fault that says just that; nothing at all is none."""
    if not errors or errors is True:
        return ()
    return _each(None, errors if isinstance(errors, str) else json.dumps(errors, ensure_ascii=False), lines_in(errors))


def _text(value: Any) -> str | None:
    """Return what a vendor says, be it a number, as one line; None where it says nothing."""
    return reading.line(str(value)) or None if isinstance(value, str | int) and not isinstance(value, bool) else None


def _request_line(value: Any) -> int | None:
    """Return the 1-based line that a fault names, or None where it names none that could be."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        value = int(value)
    number = reading.whole(value)
    return number if number and number == value else None
