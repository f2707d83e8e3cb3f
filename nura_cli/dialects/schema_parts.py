"""What the vendors' rules for answer schemas have in common: the parts of a schema, and what each of them must say."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from nura_cli.dialects.base import Found, Place

_DEEPEST = 60


def findings(
    place: Place, part: Mapping[str, Any], vendor: str, kinds: Collection[str], formats: Collection[str]
) -> Found:
    """Find an open object, and a part that does not say what it is, or says it in a format that is not known."""
    yield from _closed(place, part, vendor)
    yield from _open_ended(place, part, vendor)
    if not part.keys() & kinds:
        yield place, f"{vendor} wants to be told a type here"
    if "format" in part and part["format"] not in formats:
        yield (*place, "format"), f"{vendor} knows {', '.join(sorted(formats))}"


def types(part: Mapping[str, Any]) -> list[Any]:
    """Return the types that a part may be of, as it names them."""
    named = part.get("type")
    return named if isinstance(named, list) else [] if named is None else [named]


def _closed(place: Place, part: Mapping[str, Any], vendor: str) -> Found:
    """Find an object that may have members beyond those it names, or must have one that it does not."""
    is_object = "properties" in part or "object" in types(part)
    if is_object and part.get("additionalProperties") is not False:
        yield place, f"an object needs additionalProperties: false for {vendor}"
    for name in sorted({*part.get("required", ())} - {*part.get("properties", ())}):
        yield (*place, "required"), f"{name} is required, and is no property here: no answer could have it"


def _open_ended(place: Place, part: Mapping[str, Any], vendor: str) -> Found:
    """Find an array that holds nobody knows what, and an enum of nothing."""
    if "array" in types(part) and not isinstance(part.get("items"), dict | bool):
        yield place, f"{vendor} wants to be told what an array holds: items, a schema for each of them"
    if part.get("enum") == []:
        yield (*place, "enum"), "has no value: no answer could fit"


def recursive(schema: Mapping[str, Any]) -> bool:
    """Whether following references from the root comes back to where it has been on the way."""
    whole = {"/".join(("#", *map(str, place))): part for place, part in parts(schema)}
    done: set[str] = set()

    def again(name: str, above: frozenset[str]) -> bool:
        if name in above:
            return True
        if name in done:
            return False
        inner = parts(whole.get(name, {}))
        below = {part["$ref"] for _, part in inner if isinstance(part.get("$ref"), str)}
        found = any(again(one, above | {name}) for one in below)
        done.add(name)
        return found

    return again("#", frozenset())


def parts(schema: Any, place: Place = ()) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """Yield a schema and all schemas within it, each with its place; one that is just true or false is one without words."""
    if isinstance(schema, bool) and place[-1] != "additionalProperties":
        yield place, {}
    if not isinstance(schema, dict) or len(place) > _DEEPEST:
        return
    yield place, schema
    for name in ("properties", "patternProperties", "$defs", "definitions"):
        inner = schema.get(name)
        for key, part in inner.items() if isinstance(inner, dict) else ():
            yield from parts(part, (*place, name, key))
    for name in ("anyOf", "oneOf", "allOf", "prefixItems"):
        inner = schema.get(name)
        for n, part in enumerate(inner) if isinstance(inner, list) else ():
            yield from parts(part, (*place, name, n))
    for name in ("items", "not", "if", "then", "else", "contains", "additionalProperties"):
        yield from parts(schema.get(name), (*place, name))
