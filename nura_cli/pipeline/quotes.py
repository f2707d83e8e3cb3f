"""What words quote of a record: pieces of it, and its key; and how these are taken out of a text."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

GONE = "(purged)"
_SHORT = 6
"""Keys that are shorter stand in many words: they are looked for only where they are named as keys."""
_LEAST = 8
"""What was said in fewer characters quotes nothing."""


def cleaner(keys: Iterable[str], words: Iterable[str]) -> Callable[[str], str]:
    """Return what takes keys (in their text form), and words that were said about their tasks, out of a text."""
    patterns = [_spaced(one) for one in words if len(one) >= _LEAST]
    for key in keys:
        patterns += _patterns(key)
    if not patterns:
        return str
    found = re.compile("|".join(sorted(patterns, key=len, reverse=True)))
    return lambda text: found.sub(GONE, text)


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


def of(texts: Sequence[str], records: Iterable[bytes]) -> set[str]:
    """Return the longest pieces of texts that stand in one of these records (kept lines) as well: of :data:`_QUOTE` characters or
    more, or a whole value of it that is not too short. White space counts as one space.
    """
    said = [" ".join(text.split()) for text in texts]
    windows = {window for text in said for window in _windows(text)}
    if not windows:
        return set()
    quoted, whole = set[str](), set[str]()
    for record in records:
        for value in _values(record):
            spaced = " ".join(value.split())
            quoted |= windows.intersection(_windows(spaced))
            if _LEAST <= len(spaced) < _QUOTE and any(spaced in text for text in said):
                whole.add(spaced)
    named = {one for one in whole for text in said if re.search(rf"(?<!\w){re.escape(one)}(?!\w)", text)}
    return named | {piece for text in said for piece in _pieces(text, quoted)}


def _windows(text: str) -> Iterator[str]:
    return (text[at : at + _QUOTE] for at in range(len(text) - _QUOTE + 1))


def _pieces(text: str, quoted: set[str]) -> Iterator[str]:
    """Yield the longest pieces of a text all of whose windows are quoted."""
    begin = None
    for at, window in enumerate(_windows(text)):
        if window in quoted:
            begin = at if begin is None else begin
        elif begin is not None:
            yield text[begin : at + _QUOTE - 1].strip()
            begin = None
    if begin is not None:
        yield text[begin:].strip()


def _values(record: bytes) -> Iterator[str]:
    """Yield the texts and whole numbers in a record, as text; of one that cannot be read all of it."""
    try:
        waiting = [msgspec.json.decode(record)]
    except (msgspec.MsgspecError, RecursionError):
        waiting = [record.decode(errors="replace")]
    while waiting:
        value: Any = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, int) and not isinstance(value, bool):
            yield str(value)
        elif isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
