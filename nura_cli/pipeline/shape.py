"""What records are like: which field names them, which are text, and which say when they were changed last. Pure.

It is a guess, for a configuration to begin with; each answer is a line there that a person reads.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from nura_cli.errors import InputError, UsageError
from nura_cli.pipeline.keys import Keys

Path = tuple[str, ...]
_NAMED = ("id", "_id", "key", "uuid", "guid", "custom_id", "pk")
_CHANGED = re.compile(r"(.*_)?(updated|modified|changed)(_?(at|on|time))?", re.IGNORECASE)
_MOST_TEXTS = 20
_LONGEST_KEY = 100
_DEEPEST = 3
_MACHINES = re.compile(
    r"\d{4}-\d\d-\d\d([T ].*)?|[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-fA-F]{16,}|\w+://\S+|[^@\s]+@[^@\s]+|[-+\d.,:/]+|"
)
"""Texts that say nothing to a model: times, ids, addresses, numbers, nothing."""


class Text(NamedTuple):
    """A text of a record, by the names that lead to it; ``optional``: not every record has it."""

    path: Path
    optional: bool


class Shape(NamedTuple):
    """What a workload needs to know of its records.

    Attributes:
        key: the option: a field or path, or several fields.
        texts: those for its prompt.
        keep: fields that travel along.
        record: a field is called ``record``, which is how a template has the whole record otherwise.
    """

    key: str | list[str]
    texts: list[Text]
    keep: list[str]
    record: bool = False


def shape_of(records: Sequence[Mapping[str, Any]]) -> Shape:
    """Return what records are like. Raises UsageError: nothing tells them apart."""
    names = dict.fromkeys(name for record in records for name in record)
    key = _key(records, names)
    texts = [text for name in names if name != key for text in _texts(records, (name,))]
    machine = [text for text in texts if not _says_something(records, text.path)]
    keep = [name for name in names if changes(name)]
    return Shape(key, ([text for text in texts if text not in machine] or texts)[:_MOST_TEXTS], keep, "record" in names)


def changes(name: str) -> bool:
    """Whether a field's name says that it tells when its record was changed last."""
    return _CHANGED.fullmatch(name) is not None


def _key(records: Sequence[Mapping[str, Any]], names: Collection[str]) -> str:
    for name in _candidates(names):
        for path in (name, f"{name}.$oid"):
            if _tells_apart(records, path):
                return path
    hint = (
        "give each a number: jq -c '. + {id: input_line_number}'; a key of several fields is a list: key: [tenant, id]"
    )
    raise UsageError("no field of the sample is in every record and different in each", hint=hint)


def _candidates(names: Collection[str]) -> Iterator[str]:
    """Yield names of fields, those first that sound like a key's."""
    lower = {name.casefold(): name for name in reversed(list(names))}
    yield from (lower[name] for name in _NAMED if name in lower)
    yield from (name for name in names if re.search(r"(_id|Id|ID|_key|_no|number)$", name))
    yield from names


def _tells_apart(records: Sequence[Mapping[str, Any]], name: str) -> bool:
    keys = Keys(name)
    try:
        found = {keys.of(record).identity for record in records}
    except InputError:
        return False
    return len(found) == len(records) and all(len(one) <= _LONGEST_KEY for one in found)


def _texts(records: Sequence[Mapping[str, Any]], path: Path) -> Iterator[Text]:
    """Yield the texts at a path of the records, and below it."""
    values = [_at(record, path) for record in records]
    if any(isinstance(value, str) for value in values):
        yield Text(path, not all(isinstance(value, str) for value in values))
    elif len(path) < _DEEPEST:
        inner = dict.fromkeys(name for value in values if isinstance(value, Mapping) for name in value)
        for name in inner:
            yield from _texts(records, (*path, name))


def _says_something(records: Sequence[Mapping[str, Any]], path: Path) -> bool:
    values = (_at(record, path) for record in records)
    return any(isinstance(value, str) and not _MACHINES.fullmatch(value.strip()) for value in values)


def _at(record: Any, path: Path) -> Any:
    """Return what stands at a path of a record; None where nothing does."""
    for name in path:
        record = record.get(name) if isinstance(record, Mapping) else None
    return record
