"""What a workload's write-back needs of each record, so that one that lacks it is rejected before it is paid for.

An expression is evaluated on the record, as it will be when the answer has come. What it takes from the record and the key
alone is known already; where it looks at the answer, too, a field is missed only if the expression would do with it, and
does not without.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from nura_cli.config import WorkloadConfig
from nura_cli.delivery.expressions import FIELDS, Pick, Reads, compiled, reads
from nura_cli.errors import InputError
from nura_cli.pipeline.lines import near

_KNOWN = frozenset({"workload", "key", "record"})
"""The fields of an answer document that are known before there is an answer."""
_ANSWER: dict[str, Any] = {
    **dict.fromkeys(FIELDS, "text"),
    **dict.fromkeys(("seq", "batch_id", "attempts"), 1),
    **dict.fromkeys(("json", "response")),
    "status": "completed",
    "usage": {},
    "error": {"kind": "refused", "code": None, "http_status": 400, "message": "text"},
}
"""What an answer may be like, as far as that can be said beforehand."""
_FILLED = ("text", 1, ["text"], {"text": "text"})
"""What a field that is missing might have held."""


class _Need(NamedTuple):
    """One expression: the option it stands under, what it says and reads, and why null is wrong (None: it may be meant)."""

    place: str
    expression: str
    pick: Pick
    reads: Reads
    no_null: str | None


class Needs:
    """The expressions of one workload's write-back that a record alone can make fail."""

    def __init__(self, workload: WorkloadConfig) -> None:
        self._workload = workload
        self._found = list(_needs(workload))

    def __bool__(self) -> bool:
        return bool(self._found)

    def check(self, key: str, record: Mapping[str, Any]) -> None:
        """See that a record has what its row will need.

        Args:
            key: its key, as JSON.

        Raises:
            InputError: it lacks a field; says which, and where it is needed.
        """
        kept = {name: record[name] for name in self._workload.keep if name in record}
        known = {"workload": self._workload.name, "key": msgspec.json.decode(key), "record": kept}
        for need in self._found:
            why = _fault(need, known)
            if why is not None:
                here = [name for name in need.reads.record if name in record and name not in kept]
                hint = f" (name {here[0]} under keep)" if here else near(need.reads.absent(record), record)
                raise InputError(f"write_back.{need.place}: {why}{hint}")


def _needs(workload: WorkloadConfig) -> Iterator[_Need]:
    """Yield the expressions of a write-back that a record may leave without a value."""
    options = workload.write_back
    if options is None:
        return
    sets = {"set": options.set_, "set_failed": options.set_failed, "set_cancelled": options.set_cancelled}
    for option, mapping in {"where": options.where, "only_if": options.only_if, **sets}.items():
        for column, expression in mapping.items():
            if expression == "key" or (option in sets and column in options.nullable):
                continue
            no_null = {"where": "it names the row", "only_if": None}.get(option, f"list {column} under nullable")
            try:
                need = _Need(f"{option}.{column}", expression, compiled(expression), reads(expression), no_null)
            except ValueError:
                continue  # dispatch says so, before anything is sent
            if need.reads.record or (need.reads.roots and need.reads.roots <= _KNOWN):
                yield need


def _fault(need: _Need, known: dict[str, Any]) -> str | None:
    """Return why an expression will give nothing for a record, or None where it may give something."""
    value, error = _value(need.pick, _ANSWER | known)
    if value is not None:
        return None
    absent = need.reads.absent(known["record"])
    alone = need.reads.roots <= _KNOWN
    if absent and (alone or _would_do(need, known, absent)):
        return f"it needs record.{absent[0]}, which the record lacks"
    if alone and error:
        return f"{need.expression} gives nothing: {error}"
    return f"{need.expression} is null ({need.no_null})" if alone and need.no_null else None


def _would_do(need: _Need, known: dict[str, Any], absent: list[str]) -> bool:
    """Whether the expression would give something if the record had the fields that it lacks."""
    filled = ({**known["record"], **dict.fromkeys(absent, value)} for value in _FILLED)
    return any(_value(need.pick, _ANSWER | known | {"record": record})[0] is not None for record in filled)


def _value(pick: Pick, document: Mapping[str, Any]) -> tuple[Any, str | None]:
    """Return what an expression gives, or why it fails."""
    try:
        return pick(document), None
    except ValueError as error:
        return None, str(error)
    except RecursionError:
        return None, "the record is nested too deeply"
