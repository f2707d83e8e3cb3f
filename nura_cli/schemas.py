"""Answer schemas: what must hold of one before anything is sent with it, and the check of each answer against it.

A schema goes out in the vendor's strict form, and each vendor takes a part of JSON Schema only. What it would refuse, it
refuses request by request, hours later; so it is found here, when the configuration is read.
"""

from collections.abc import Callable
from typing import Any, NoReturn

from nura_cli.dialects.base import Dialect, Found
from nura_cli.dialects.schema_parts import parts, recursive

Check = Callable[[Any], str | None]
"""Returns None for a document that fits, else the place in it that does not, and why."""

_VERSIONS = frozenset(
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


def problems(schema: dict[str, Any], dialect: Dialect) -> Found:
    """Yield what is wrong with an answer schema: as JSON Schema, then for a vendor's strict mode."""
    wrong = list(_as_json_schema(schema))
    yield from wrong or dialect.schema_problems(schema)


def _as_json_schema(schema: dict[str, Any]) -> Found:
    """Find what makes a document no JSON Schema at all."""
    import jsonschema_rs

    for place, part in parts(schema):
        if part.get("$schema", "") not in ("", *_VERSIONS):  # it would be fetched, to know what the words mean
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
    branches = max(len(part.get("anyOf") or part.get("oneOf") or ()) for _, part in parts(schema))
    if branches < 2 or not recursive(schema):
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
