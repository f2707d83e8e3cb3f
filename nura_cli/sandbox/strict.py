"""What the vendors demand of a JSON schema that answers must fit, as their structured-output guides list it."""

from collections.abc import Iterator
from typing import Any

_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_STRINGS = ("minLength", "maxLength")


def openai(schema: dict[str, Any]) -> str | None:
    """Return what OpenAI's strict mode refuses in a schema, or None."""
    if schema.get("type") != "object":
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{schema.get('type')}\"'."
    if "anyOf" in schema:
        return "In context=(), 'anyOf' is not permitted at the root."
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
        for name in (*_NUMBERS, *_STRINGS, "maxItems"):
            if name in part:
                return f"For '{kind}' type, property '{name}' is not supported"
        if part.get("minItems", 0) not in (0, 1):
            return "For 'array' type, 'minItems' values other than 0 or 1 are not supported"
    return None


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
