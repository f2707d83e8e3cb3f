"""What the vendors demand of a JSON schema that answers must fit, as their structured-output guides list it."""

from collections.abc import Iterator
from typing import Any

_BOTH = frozenset(
    (
        *("type", "enum", "const", "anyOf", "$ref", "$defs", "definitions", "properties", "required", "$schema", "$id"),
        *("additionalProperties", "items", "minItems", "pattern", "format", "title", "description"),
    )
)
_NUMBERS = frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"))
_OPENAI = _BOTH | _NUMBERS | {"maxItems", "minLength", "maxLength", "examples"}
_ANTHROPIC = _BOTH | {"allOf", "default"}


def openai(schema: dict[str, Any]) -> str | None:
    """Return what OpenAI's strict mode refuses in a schema, or None."""
    if schema.get("type") != "object":
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{schema.get('type')}\"'."
    if "anyOf" in schema:
        return "In context=(), 'anyOf' is not permitted at the root."
    for place, part in _parts(schema, ()):
        if problem := _refused(part):
            return f"In context={place}, {problem}"
    for place, part in _objects(schema, ()):
        if part.get("additionalProperties") is not False:
            return f"In context={place}, 'additionalProperties' is required to be supplied and to be false."
        missing = sorted(part.get("properties", {}).keys() - set(part.get("required", ())))
        if missing:
            return (
                f"In context={place}, 'required' is required to be supplied and to be an array including every key in"
                f" properties. Missing '{missing[0]}'."
            )
    return None


def anthropic(schema: dict[str, Any]) -> str | None:
    """Return what Anthropic's structured outputs refuse in a schema, or None."""
    for _, part in _parts(schema, ()):
        kind = part.get("type")
        if (kind == "object" or "properties" in part) and part.get("additionalProperties") is not False:
            return "For 'object' type, 'additionalProperties' must be explicitly set to false"
        for name in sorted(part.keys() - _ANTHROPIC):
            return f"For '{kind}' type, property '{name}' is not supported"
        if _missing_items(part):
            return "For 'array' type, 'items' is required"
        if set(part.get("required", ())) - part.get("properties", {}).keys():
            return "For 'object' type, 'required' must name properties alone"
        if part.get("minItems", 0) not in (0, 1):
            return "For 'array' type, 'minItems' values other than 0 or 1 are not supported"
    return None


def _refused(part: dict[str, Any]) -> str | None:
    """Return what OpenAI's strict mode refuses of one part, whatever it is."""
    for name in sorted(part.keys() - _OPENAI):
        return f"'{name}' is not permitted."
    if _missing_items(part):
        return "array schema missing items."
    extra = sorted(set(part.get("required", ())) - part.get("properties", {}).keys())
    if extra:
        return f"'required' is required to be supplied and to be an array of properties. Extra required key '{extra[0]}' supplied."
    values = part.get("enum", ())
    length = sum(len(value) for value in values if isinstance(value, str))
    if len(values) > 250 and length > 15_000:
        return f"enum has {len(values)} values with {length} characters in total, more than 15000."
    return None


def _missing_items(part: dict[str, Any]) -> bool:
    kinds = part.get("type")
    return "array" in (kinds if isinstance(kinds, list) else [kinds]) and not isinstance(part.get("items"), dict)


def _objects(schema: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    for where, part in _parts(schema, place):
        if part.get("type") == "object" or "properties" in part:
            yield where, part


def _parts(schema: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yield a schema and all schemas within it, each with its place."""
    if not isinstance(schema, dict) or len(place) > 64:
        return
    yield place, schema
    for name in ("properties", "$defs", "definitions"):
        inner = schema.get(name)
        for key, part in inner.items() if isinstance(inner, dict) else ():
            yield from _parts(part, (*place, name, str(key)))
    for name in ("anyOf", "oneOf", "allOf", "prefixItems"):
        inner = schema.get(name)
        for n, part in enumerate(inner) if isinstance(inner, list) else ():
            yield from _parts(part, (*place, name, str(n)))
    yield from _parts(schema.get("items"), (*place, "items"))
