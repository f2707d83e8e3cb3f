"""Answer schemas: what must hold of one before anything is sent with it, and the check of each answer against it.

A schema goes out in the vendor's strict form, and each vendor takes a part of JSON Schema only. What it would refuse, it
refuses request by request, hours later; so it is found here, when the configuration is read.

Sources: the Structured Outputs guides of OpenAI (supported schemas) and of Anthropic (JSON schema limitations), and what
their SDKs do to the schemas of models (``openai.lib._pydantic``, ``anthropic.lib._parse``).
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any, NoReturn

Place = tuple[str | int, ...]
Found = Iterator[tuple[Place, str]]
"""Places in a schema, each with what is wrong there."""

Check = Callable[[Any], str | None]
"""Returns None for a document that fits, else the place in it that does not, and why."""

_DEEPEST = 60
# Strict mode takes what its guide lists, and refuses a whole request for any other word ("'uniqueItems' is not permitted").
_OPENAI_NO = frozenset(
    (
        *("allOf", "oneOf", "not", "if", "then", "else", "dependentRequired", "dependentSchemas", "patternProperties"),
        *("default", "minLength", "maxLength", "uniqueItems", "contains", "minContains", "maxContains", "prefixItems"),
        *("propertyNames", "minProperties", "maxProperties", "unevaluatedProperties", "unevaluatedItems"),
    )
)
_OPENAI_KINDS = frozenset(("type", "$ref", "anyOf"))
_OPENAI_FORMATS = frozenset(("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"))
_OPENAI_NESTED = 10
_OPENAI_PROPERTIES = 5000
_OPENAI_ENUM_VALUES = 1000
_OPENAI_CHARACTERS = 120_000
_ANTHROPIC_NO = frozenset(
    (
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"),
        *("maxItems", "uniqueItems", "contains", "not", "if", "then", "else", "patternProperties", "propertyNames"),
        *("minProperties", "maxProperties", "dependentRequired", "dependentSchemas"),
    )
)
_ANTHROPIC_KINDS = _OPENAI_KINDS | {"oneOf", "allOf", "enum", "const"}
_ANTHROPIC_FORMATS = _OPENAI_FORMATS | {"uri"}
_DIALECTS = frozenset(
    f"http{s}://json-schema.org/{name}{end}"
    for s in ("", "s")
    for name in (
        "draft/2020-12/schema",
        "draft/2019-09/schema",
        "draft-07/schema",
        "draft-06/schema",
        "draft-04/schema",
    )
    for end in ("", "#")
)


def problems(schema: dict[str, Any], dialect: str) -> Found:
    """Yield what is wrong with an answer schema: as JSON Schema, then for a vendor's strict mode.

    Args:
        dialect: ``openai`` or ``anthropic``.
    """
    wrong = list(_as_json_schema(schema))
    yield from wrong or (_openai(schema) if dialect == "openai" else _anthropic(schema))


def _as_json_schema(schema: dict[str, Any]) -> Found:
    import jsonschema_rs

    for place, part in _parts(schema, ()):
        if part.get("$schema", "") not in ("", *_DIALECTS):  # it would be fetched, to know what the words mean
            yield (*place, "$schema"), "is no version of JSON Schema that is known here"
            return
    try:
        jsonschema_rs.meta.validate(schema)
        _validator(schema)
    except jsonschema_rs.ValidationError as error:
        yield tuple(error.instance_path), f"is not JSON Schema: {error.message}"
    except (ValueError, RecursionError, jsonschema_rs.ReferencingError) as error:
        yield (), f"is not JSON Schema: {str(error).splitlines()[0]}"


def _validator(schema: dict[str, Any]) -> Any:
    """Return a validator whose patterns run in linear time, and which fetches nothing from anywhere."""
    import jsonschema_rs

    def refuse(uri: str) -> NoReturn:
        raise ValueError("$ref reaches outside the schema")

    return jsonschema_rs.validator_for(schema, pattern_options=jsonschema_rs.RegexOptions(), retriever=refuse)


def _openai(schema: dict[str, Any]) -> Found:
    if schema.get("type") != "object" or "anyOf" in schema:
        yield (), "OpenAI's strict mode wants type: object at the root, and no anyOf there"
    parts = list(_parts(schema, ()))
    for place, part in parts:
        yield from _closed(place, part, "OpenAI")
        yield from _told(place, part, "OpenAI", _OPENAI_KINDS, _OPENAI_FORMATS)
        beside = sorted(part.keys() - {"$ref", "$defs", "definitions"})
        if "$ref" in part and beside:
            yield (*place, "$ref"), f"OpenAI's strict mode takes nothing beside it, and there is {beside[0]}"
        properties = part.get("properties")
        missing = sorted({*properties} - {*part.get("required", ())}) if isinstance(properties, dict) else []
        if missing:
            yield (
                (*place, "required"),
                f"OpenAI's strict mode wants every property here, and {missing[0]} is not; one that may be absent is"
                " of type [..., 'null']",
            )
        for name in sorted(part.keys() & _OPENAI_NO):
            yield (*place, name), f"OpenAI's strict mode has no {name}"
    yield from _too_large(schema, parts)


def _too_large(schema: dict[str, Any], parts: list[tuple[Place, dict[str, Any]]]) -> Found:
    names = [name for _, part in parts for word in ("properties", "$defs") for name in part.get(word) or ()]
    values = [value for _, part in parts for value in part.get("enum") or ()]
    values += [part["const"] for _, part in parts if "const" in part]
    nested = max(sum(step in ("properties", "items") for step in place) for place, _ in parts)
    measured = (
        (len(names), _OPENAI_PROPERTIES, "properties"),
        (sum(len(part.get("enum") or ()) for _, part in parts), _OPENAI_ENUM_VALUES, "enum values"),
        (sum(len(str(one)) for one in (*names, *values)), _OPENAI_CHARACTERS, "characters in names and enum values"),
        (nested, _OPENAI_NESTED, "levels of nesting"),
    )
    for n, most, what in measured:
        if n > most:
            yield (), f"has {n:,} {what}, and OpenAI's strict mode takes {most:,}"


def _anthropic(schema: dict[str, Any]) -> Found:
    for place, part in _parts(schema, ()):
        yield from _closed(place, part, "Anthropic")
        yield from _told(place, part, "Anthropic", _ANTHROPIC_KINDS, _ANTHROPIC_FORMATS)
        for name in sorted(part.keys() & _ANTHROPIC_NO):
            yield (*place, name), f"Anthropic's structured output has no {name}; say it in the description"
        if part.get("minItems", 0) not in (0, 1):
            yield (*place, "minItems"), "Anthropic's structured output takes 0 or 1"
        if any(isinstance(value, dict | list) for value in part.get("enum") or ()):
            yield (*place, "enum"), "Anthropic's structured output takes plain values alone"
    if _recursive(schema):
        yield (), "refers to itself, which Anthropic's structured output does not take"


def _closed(place: Place, part: dict[str, Any], vendor: str) -> Found:
    kinds = part.get("type")
    is_object = "properties" in part or "object" in (kinds if isinstance(kinds, list) else [kinds])
    if is_object and part.get("additionalProperties") is not False:
        yield place, f"an object needs additionalProperties: false for {vendor}"


def _told(place: Place, part: dict[str, Any], vendor: str, kinds: Collection[str], formats: Collection[str]) -> Found:
    """Find a part that does not say what it is, or says it in a format that is not known."""
    if not part.keys() & kinds:
        yield place, f"{vendor} wants to be told a type here"
    if "format" in part and part["format"] not in formats:
        yield (*place, "format"), f"{vendor} knows {', '.join(sorted(formats))}"


def _recursive(schema: dict[str, Any]) -> bool:
    """Whether following references from the root comes back to where it has been on the way."""
    whole = {"/".join(("#", *map(str, place))): part for place, part in _parts(schema, ())}
    done: set[str] = set()

    def again(name: str, above: frozenset[str]) -> bool:
        if name in above:
            return True
        if name in done:
            return False
        inner = _parts(whole.get(name, {}), ())
        below = {part["$ref"] for _, part in inner if isinstance(part.get("$ref"), str)}
        found = any(again(one, above | {name}) for one in below)
        done.add(name)
        return found

    return again("#", frozenset())


def _parts(schema: Any, place: Place) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Yield a schema and all schemas within it, each with its place; one that is just true or false is one without words."""
    if isinstance(schema, bool) and place[-1] != "additionalProperties":
        yield place, {}
    if not isinstance(schema, dict) or len(place) > _DEEPEST:
        return
    yield place, schema
    for name in ("properties", "patternProperties", "$defs", "definitions"):
        inner = schema.get(name)
        for key, part in inner.items() if isinstance(inner, dict) else ():
            yield from _parts(part, (*place, name, key))
    for name in ("anyOf", "oneOf", "allOf", "prefixItems"):
        inner = schema.get(name)
        for n, part in enumerate(inner) if isinstance(inner, list) else ():
            yield from _parts(part, (*place, name, n))
    for name in ("items", "not", "if", "then", "else", "contains", "additionalProperties"):
        yield from _parts(schema.get(name), (*place, name))


_MOST_BRANCHES = 2000


def check(schema: dict[str, Any]) -> Check:
    """Return a check of an answer's text against a schema. Answers are hostile: whatever is wrong is said, never raised."""
    import msgspec

    validator = _validator(schema)
    deepest = _explained_to(schema)

    def checked(text: str | None) -> str | None:
        if text is None:
            return "the answer has no text"
        try:
            document = msgspec.json.decode(text)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            return f"the answer is not JSON: {error}"
        try:
            if validator.is_valid(document):
                return None
            if deepest is not None and _depth(document) > deepest:
                return "at /: does not fit; it is nested too deeply to say where"
            wrong = next(validator.iter_errors(document))
        except (ValueError, RecursionError) as error:
            return f"the answer cannot be checked: {error}"
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # what a panic in Rust becomes, which is no Exception
                raise
            raise RuntimeError(f"the schema library failed: {error}") from error
        place = "/".join(str(part).replace("~", "~0").replace("/", "~1") for part in wrong.instance_path)
        return f"at /{place}: {wrong.message[:400]}"

    return checked


def _explained_to(schema: dict[str, Any]) -> int | None:
    """Return how deeply an answer may be nested for its error to be looked for, or None for however deeply.

    The search tries each branch of each union: where a schema refers to itself, that is a power of an answer's depth.
    """
    branches = max(len(part.get("anyOf") or part.get("oneOf") or ()) for _, part in _parts(schema, ()))
    if branches < 2 or not _recursive(schema):
        return None
    depth = 0
    while branches ** (depth + 1) <= _MOST_BRANCHES:
        depth += 1
    return depth


def _depth(document: Any) -> int:
    """Return how deeply a document is nested."""
    depth, layer = 0, [document]
    while layer := [one for one in layer if isinstance(one, dict | list) and one]:
        depth += 1
        layer = [inner for one in layer for inner in (one.values() if isinstance(one, dict) else one)]
    return depth
