"""What words quote of a record: pieces of it, and its key; and how these are taken out of a text."""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from nura_cli.dialects.reading import printable

GONE = "(purged)"
_SHORT = 6
"""Keys that are shorter stand in many words: they are looked for only where they are named as keys."""
_LEAST = 8
"""What was said in fewer characters quotes nothing."""


def cleaner(keys: Iterable[str], words: Iterable[str], quoted: Iterable[str] = ()) -> Callable[[str], str]:
    """Return what takes keys (in their text form), and words that were said about their tasks, out of a text.

    Args:
        quoted: patterns of what is quoted of their records (:func:`of`).
    """
    patterns = [*quoted, *(_spaced(one) for one in words if len(one) >= _LEAST)]
    for key in keys:
        patterns += _patterns(key)
    if not patterns:
        return str
    # Looked for at each place, for where one ends another may have begun.
    found = re.compile(f"(?=({'|'.join(sorted(patterns, key=len, reverse=True))}))")
    return lambda text: _without(text, (one.span(1) for one in found.finditer(text)))


def _without(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """Return a text without these pieces of it, which come by where they begin."""
    left, upto = list[str](), 0
    for begin, end in spans:
        if begin > upto or not left:
            left += text[upto:begin], GONE
        upto = max(upto, end)
    return "".join((*left, text[upto:]))


def _patterns(key: str) -> list[str]:
    """Return as regular expressions how a key may stand in words."""
    if not key.startswith("\x1e"):
        return [_named(form) for form in _forms(key)]
    parts = json.loads(key[1:])
    whole = r"\[\s*" + r"\s*,\s*".join('"?' + _spaced(str(one)) + '"?' for one in parts) + r"\s*\]"
    return [whole, *(_named(form) for one in parts if len(one) >= _SHORT for form in _forms(one))]


def _forms(key: str) -> set[str]:
    return {key, json.dumps(key, ensure_ascii=False)[1:-1], json.dumps(key)[1:-1]}


def _named(form: str) -> str:
    if len(form) < _SHORT:
        return rf'(?:(?<=key )|(?<=")){re.escape(form)}(?!\w)'
    return rf"(?<!\w){_spaced(form)}(?!\w)"


def _spaced(text: str) -> str:
    """Return the pattern of a text, however its white space came out."""
    return r"\s+".join(map(re.escape, text.split())) if text.split() else re.escape(text)


_QUOTE = 16
"""So many characters of a record, or more, are a quote of it wherever they stand."""
_TELLING = re.compile(r"[^\W\d_a-z]|[ @]|\d{7}")
"""What a value has that may be a quote as a whole: a capital or a letter of another alphabet, a space, an @, a long number."""
_IDENTIFIER = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)


def of(texts: Sequence[str], records: Iterable[bytes], but: Collection[str] = ()) -> set[str]:
    """Return as patterns what texts quote of records (kept lines): pieces of :data:`_QUOTE` characters or more, and shorter values
    as a whole, as they are or as JSON writes them, however their white space came out.

    Args:
        but: values that tell nothing of a record: its model.
    """
    said = [printable(text) for text in texts]  # as a vendor's words are kept
    long, short = ({window for text in said for window in _windows(text, size)} for size in (_QUOTE, _LEAST))
    if not short:
        return set()
    quoted, whole = set[str](), set[str]()
    for record in records:
        for value in _values(record):
            for form in () if value in but else {printable(form) for form in _forms(value)}:
                quoted |= long.intersection(_windows(form, _QUOTE))
                if _LEAST <= len(form) < _QUOTE and form[:_LEAST] in short and _TELLING.search(form):
                    whole.add(form)
    pieces = {piece for text in said for piece in _pieces(text, quoted)}
    return {_spaced(one) for one in pieces} | {_named(one) for one in whole}


def _windows(text: str, size: int) -> Iterator[str]:
    return (text[at : at + size] for at in range(len(text) - size + 1))


def _pieces(text: str, quoted: set[str]) -> Iterator[str]:
    """Yield the longest pieces of a text all of whose windows are quoted, from their first word to their last."""
    begin = end = 0
    for at, window in enumerate(_windows(text, _QUOTE)):
        if window in quoted:
            begin, end = (begin, at + _QUOTE) if at < end else (at, at + _QUOTE)
        elif at == end - _QUOTE + 1:
            yield from _trimmed(text[begin:end])
    if end == len(text):
        yield from _trimmed(text[begin:])


def _trimmed(piece: str) -> Iterator[str]:
    trimmed = re.sub(r"^\W+|\W+$", "", piece)
    if len(trimmed) >= _LEAST:
        yield trimmed


def _values(record: bytes) -> Iterator[str]:
    """Yield the texts and whole numbers in a record, as text, and names in it that are none of a program's; of one that cannot be
    read all of it.
    """
    try:
        waiting = [msgspec.json.decode(record)]
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        waiting = [record.decode(errors="replace")]
    while waiting:
        value: Any = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, int) and not isinstance(value, bool):
            yield str(value)
        elif isinstance(value, dict):
            waiting += (name for name in value if not _IDENTIFIER.fullmatch(name))
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
