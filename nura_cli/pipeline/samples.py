"""Documents that an answer schema allows: what an answer may hold, to try a write-back with before there is one."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

_DEEPEST = 8
_MOST = 20
"""Documents of one part of a schema that are looked at."""
_FORMATS = {
    "date": "2026-01-02",
    "time": "03:04:05Z",
    "date-time": "2026-01-02T03:04:05Z",
    "uuid": "123e4567-e89b-42d3-a456-426614174000",
}
_PLAIN = {"integer": 1, "number": 1.5, "boolean": True, "null": None}


def samples(schema: Mapping[str, Any]) -> list[Any]:
    """Return documents that fit a schema, in so far as their types do: each type, each word of a list stands in one of them."""
    return list(islice(_of(schema, schema, 0), _MOST))


def _of(part: Any, whole: Mapping[str, Any], depth: int) -> Iterator[Any]:
    if not isinstance(part, Mapping) or depth > _DEEPEST:
        return
    if isinstance(named := part.get("$ref"), str):
        yield from _of(_referred(named, whole), whole, depth + 1)
    elif "const" in part:
        yield part["const"]
    elif isinstance(part.get("enum"), list):
        yield from part["enum"]
    elif branches := part.get("anyOf") or part.get("oneOf"):
        for branch in branches:
            yield from _of(branch, whole, depth + 1)
    else:
        kinds = part.get("type", "object" if "properties" in part else "string")
        for kind in kinds if isinstance(kinds, list) else [kinds]:
            yield from _typed(kind, part, whole, depth)


def _typed(kind: str, part: Mapping[str, Any], whole: Mapping[str, Any], depth: int) -> Iterator[Any]:
    if kind == "object":
        yield from _objects(part.get("properties") or {}, whole, depth)
    elif kind == "array":
        yield from ([item] for item in islice(_of(part.get("items", {}), whole, depth + 1), _MOST))
    elif kind == "string":
        yield _FORMATS.get(part.get("format", ""), "text")
    elif kind in _PLAIN:
        yield _PLAIN[kind]


def _objects(properties: Mapping[str, Any], whole: Mapping[str, Any], depth: int) -> Iterator[dict[str, Any]]:
    """Yield as many objects as the property with the most samples has of them."""
    found = {name: list(islice(_of(part, whole, depth + 1), _MOST)) for name, part in properties.items()}
    for n in range(max((len(values) for values in found.values()), default=1) or 1):
        yield {name: values[n % len(values)] for name, values in found.items() if values}


def _referred(named: str, whole: Mapping[str, Any]) -> Any:
    """Return the part of a schema that a reference names; None where it names none."""
    found: Any = whole
    for name in named.removeprefix("#").strip("/").split("/"):
        if name:
            found = found.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    return found
