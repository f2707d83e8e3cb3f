"""Answer schemas: what each vendor's strict mode would refuse is found at load, and answers are held to what is left."""

import json
from pathlib import Path
from typing import Any

import pytest

from nura_cli import config, schemas
from nura_cli.dialects.vendors import dialect
from nura_cli.errors import ConfigError
from nura_cli.sandbox import strict

VENDORS = ("openai", "anthropic")
GOOD: dict[str, Any] = {
    "type": "object",
    "properties": {
        "section": {"type": "string", "enum": ["world", "sports"], "description": "where it belongs"},
        "names": {"type": "array", "items": {"$ref": "#/$defs/name"}},
        "when": {"type": ["string", "null"], "format": "date"},
        "score": {"anyOf": [{"type": "number"}, {"type": "null"}]},
    },
    "required": ["section", "names", "when", "score"],
    "additionalProperties": False,
    "$defs": {
        "name": {
            "type": "object",
            "properties": {"first": {"type": "string"}},
            "required": ["first"],
            "additionalProperties": False,
        }
    },
}


def schema(**properties: Any) -> dict[str, Any]:
    """Return a strict schema with these properties."""
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def said(given: dict[str, Any], vendor: str) -> dict[str, str]:
    """Return what is said of a schema, by place."""
    return {".".join(map(str, place)): why for place, why in schemas.problems(given, dialect(vendor))}


@pytest.mark.parametrize("vendor", VENDORS)
def test_what_both_vendors_take_is_taken(vendor: str) -> None:
    assert said(GOOD, vendor) == {}
    assert getattr(strict, vendor)(GOOD) is None


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"type": "objekt"}, "type"),
        ({"type": "object", "required": "x"}, "required"),
        (schema(a={"type": "string", "pattern": "(a"}), "properties.a.pattern"),
        (schema(a={"type": "string", "pattern": "(?=x)y"}), "properties.a.pattern"),
        (schema(a={"$ref": "#/$defs/none"}), ""),
        (schema(a={"$ref": "http://127.0.0.1:1/x.json"}), ""),
        (schema(a={"$ref": "file:///etc/passwd"}), ""),
        (schema(a={"$id": "http://127.0.0.1:1/x", "$ref": "y.json"}), ""),
    ],
)
@pytest.mark.parametrize("vendor", VENDORS)
def test_what_is_no_json_schema_is_refused(given: dict[str, Any], place: str, vendor: str) -> None:
    assert "is not JSON Schema" in said(given, vendor)[place]


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_schema_names_a_version_that_is_known_here_or_none(vendor: str) -> None:
    known = schema() | {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    assert said(known, vendor) == {}
    for place, given in {
        "$schema": schema() | {"$schema": "http://127.0.0.1:1/meta"},
        "properties.a.$schema": schema(a={"type": "string", "$schema": "http://127.0.0.1:1/meta"}),
    }.items():
        assert "no version of JSON Schema that is known" in said(given, vendor)[place]


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_schema_that_shares_its_parts_many_times_over_is_read_at_once(vendor: str) -> None:
    layers = {f"x{i}": schema(l={"$ref": f"#/$defs/x{i + 1}"}, r={"$ref": f"#/$defs/x{i + 1}"}) for i in range(40)}
    assert said(schema(a={"$ref": "#/$defs/x0"}) | {"$defs": {**layers, "x40": {"type": "string"}}}, vendor) == {}


@pytest.mark.parametrize(
    ("given", "place", "words"),
    [
        ({"type": "array", "items": {"type": "string"}}, "", "type: object at the root"),
        (schema() | {"anyOf": [schema()]}, "", "no anyOf there"),
        (schema(a={"type": "object", "properties": {}, "required": []}), "properties.a", "additionalProperties: false"),
        (schema(a={"type": "string"}) | {"additionalProperties": True}, "", "additionalProperties: false"),
        (schema(a={"type": "string"}) | {"required": []}, "required", "a is not; one that may be absent"),
        (schema(a={"allOf": [{"type": "string"}]}), "properties.a.allOf", "has no allOf"),
        (schema(a={"oneOf": [{"type": "string"}]}), "properties.a.oneOf", "has no oneOf"),
        (schema(a={"not": {"type": "string"}}), "properties.a.not", "has no not"),
        (schema(a={"type": "array", "items": {"type": "object"}}), "properties.a.items", "additionalProperties: false"),
        (schema(a={}), "properties.a", "a type here"),
        (schema(a=True), "properties.a", "a type here"),
        (schema(a={"const": "x"}), "properties.a", "a type here"),
        (schema(a={"enum": ["x", 1]}), "properties.a", "a type here"),
        (schema(a={"anyOf": [{"type": "null"}, {}]}), "properties.a.anyOf.1", "a type here"),
        (schema(a={"type": "string", "format": "uri"}), "properties.a.format", "knows date, date-time"),
        (schema(a={"type": "string", "default": "x"}), "properties.a.default", "has no default"),
        (schema(a={"type": "string", "minLength": 1}), "properties.a.minLength", "has no minLength"),
        (
            schema(a={"type": "array", "items": {"type": "null"}, "uniqueItems": True}),
            "properties.a.uniqueItems",
            "has no",
        ),
        (
            schema(a={"$ref": "#/$defs/x", "description": "d"}) | {"$defs": {"x": {"type": "null"}}},
            "properties.a.$ref",
            "nothing beside it, and there is description",
        ),
        (schema(a={"type": "string", "enum": [f"v{n}" for n in range(1001)]}), "", "1,001 enum values"),
        (schema(**{f"p{n}": {"type": "string"} for n in range(5001)}), "", "5,001 properties"),
        (schema(a={"type": "string", "enum": ["x" * 120_001]}), "", "characters in names and enum values"),
        (
            schema(a={"type": "string", "enum": [f"{n:060}" for n in range(251)]}),
            "properties.a.enum",
            "has 15,060 characters in 251 values",
        ),
        (schema(a={"type": "string", "enum": ["x", 1]}), "properties.a.enum", "wants string here, and 1 is none"),
        (schema(a={"type": "integer", "enum": [1, True]}), "properties.a.enum", "and True is none"),
        (schema(a={"type": "string", "x-order": 1}), "properties.a.x-order", "has no x-order"),
        (schema(a={"type": "string", "contentEncoding": "base64"}), "properties.a.contentEncoding", "has no"),
    ],
)
def test_what_openai_would_refuse_is_said_at_its_place(given: dict[str, Any], place: str, words: str) -> None:
    assert words in said(given, "openai")[place]


@pytest.mark.parametrize(
    ("given", "place", "words"),
    [
        (schema(a={"type": "array"}), "properties.a", "what an array holds"),
        (schema(a={"type": ["null", "array"]}), "properties.a", "what an array holds"),
        (schema(a={"type": "array", "items": {"type": "array"}}), "properties.a.items", "what an array holds"),
        (schema(a={"type": "null"}) | {"required": ["a", "b"]}, "required", "b is required, and is no property"),
        (schema(a={"type": "string", "enum": []}), "properties.a.enum", "has no value"),
        (schema(a={"type": "array", "items": {"type": "null"}, "prefixItems": []}), "properties.a.prefixItems", "no"),
        (schema() | {"unevaluatedProperties": False}, "unevaluatedProperties", "has no unevaluatedProperties"),
    ],
)
@pytest.mark.parametrize("vendor", VENDORS)
def test_what_no_vendor_takes_is_said_at_its_place(given: dict[str, Any], place: str, words: str, vendor: str) -> None:
    assert words in said(given, vendor)[place]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "string", "enum": [f"{n:059}" for n in range(251)]},
        {"type": "string", "enum": ["x" * 15_001]},
        {"type": ["string", "null"], "enum": ["x", None]},
        {"type": "integer", "enum": [1, 2.0], "title": "N", "examples": [1]},
        {"type": "number", "minimum": 1, "exclusiveMaximum": 2, "multipleOf": 0.5},
        {"type": "array", "items": {"type": "string", "pattern": "^x$"}, "minItems": 2, "maxItems": 3},
    ],
)
def test_what_openai_lists_is_taken(part: dict[str, Any]) -> None:
    given = schema(a=part) | {"$schema": "http://json-schema.org/draft-07/schema#"}
    assert said(given, "openai") == {}
    assert strict.openai(given) is None


def test_openai_takes_ten_levels() -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(10):
        deep = schema(a=deep)
    assert said(deep, "openai") == {}
    assert "11 levels of nesting" in said(schema(a=deep), "openai")[""]


@pytest.mark.parametrize(
    ("given", "place", "words"),
    [
        (
            schema(a={"type": "integer", "minimum": 1}),
            "properties.a.minimum",
            "has no minimum; say it in the description",
        ),
        (schema(a={"type": "integer", "maximum": 1}), "properties.a.maximum", "has no maximum"),
        (schema(a={"type": "string", "minLength": 1}), "properties.a.minLength", "has no minLength"),
        (
            schema(a={"type": "array", "items": {"type": "string"}, "maxItems": 3}),
            "properties.a.maxItems",
            "has no maxItems",
        ),
        (
            schema(a={"type": "array", "items": {"type": "string"}, "minItems": 2}),
            "properties.a.minItems",
            "takes 0 or 1",
        ),
        (schema(a={"type": "object", "properties": {}}), "properties.a", "additionalProperties: false for Anthropic"),
        (schema(a={"type": "string", "format": "phone"}), "properties.a.format", "knows date, date-time"),
        (schema(a={"enum": [{"x": 1}]}), "properties.a.enum", "plain values"),
        (schema(a={}), "properties.a", "a type here"),
        (schema(a={"type": "array", "items": True}), "properties.a.items", "a type here"),
        (schema(a={"oneOf": [{"type": "string"}]}), "properties.a.oneOf", "anyOf does the same"),
        (schema(a={"type": "string", "examples": ["x"]}), "properties.a.examples", "has no examples"),
        (schema(a={"type": "string", "pattern": r"\bx"}), "properties.a.pattern", "has no \\b"),
        (
            schema(a={"allOf": [{"$ref": "#/$defs/x"}]}) | {"$defs": {"x": {"type": "null"}}},
            "properties.a.allOf",
            "takes no $ref",
        ),
        (
            schema(**{f"p{n}": {"type": "null"} for n in range(25)}) | {"required": []},
            "",
            "25 properties that are not required",
        ),
        (schema(**{f"p{n}": {"type": ["null", "string"]} for n in range(17)}), "", "17 parts with anyOf"),
        (schema(a={"$ref": "#"}), "", "refers to itself"),
        (
            schema(a={"$ref": "#/$defs/tree"}) | {"$defs": {"tree": schema(left={"$ref": "#/$defs/tree"})}},
            "",
            "refers to itself",
        ),
    ],
)
def test_what_anthropic_would_refuse_is_said_at_its_place(given: dict[str, Any], place: str, words: str) -> None:
    assert words in said(given, "anthropic")[place]


def test_what_one_vendor_refuses_the_other_may_take() -> None:
    assert said(schema(a={"type": "integer", "minimum": 1}), "openai") == {}
    assert said(schema(a={"type": "string"}) | {"required": []}, "anthropic") == {}
    assert said(schema(a={"$ref": "#"}), "openai") == {}


@pytest.mark.parametrize(
    "given",
    [
        schema(a={"type": "integer", "minimum": 1}),
        schema(a={"type": "string"}) | {"required": []},
        schema(a={"type": "string"}) | {"additionalProperties": True},
        schema(a={"type": "array", "items": {"type": "string"}, "minItems": 2}),
        schema(a={"type": "string"}),
        {"type": "array", "items": {"type": "string"}},
        schema(a={"type": "array"}),
        schema(a={"type": "string"}) | {"required": ["a", "b"]},
        schema(a={"type": "string", "uniqueItems": True}),
        schema(a={"type": "string", "enum": [f"{n:060}" for n in range(251)]}),
    ],
)
@pytest.mark.parametrize("vendor", VENDORS)
def test_whatever_the_sandbox_refuses_is_found_at_load(given: dict[str, Any], vendor: str) -> None:
    if getattr(strict, vendor)(given) is not None:
        assert said(given, vendor) != {}
    elif vendor == "anthropic":
        assert said(given, vendor) == {}


CONFIG = """\
providers: {box: {kind: sandbox, protocol: anthropic}}
workloads:
  w:
    provider: box
    model: m
    prompt: "{{ a }}"
    params: {max_tokens: 10}
    schema:
      type: object
      properties:
        n: {type: integer, minimum: 1}
      required: [n]
"""


def test_the_configuration_knows_it_with_the_line_when_the_workload_is_to_be_sent(tmp_path: Path) -> None:
    path = tmp_path / "nura.yaml"
    path.write_text(CONFIG)
    workload = config.load(path).workloads["w"]
    with pytest.raises(ConfigError) as caught:
        workload.check()
    assert caught.value.workload == "w"
    assert [(found.where, found.line) for found in caught.value.problems] == [
        ("workloads.w.schema", 8),
        ("workloads.w.schema.properties.n.minimum", 11),
    ]


def test_a_file_that_is_wrong_otherwise_says_it_with_all_else(tmp_path: Path) -> None:
    path = tmp_path / "nura.yaml"
    path.write_text(CONFIG + "    keys: x\n")
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert [found.line for found in caught.value.problems] == [8, 11, 13]


# --- each answer is held to it

CHECK = schemas.check(
    {
        "type": "object",
        "properties": {
            "a": {"type": "array", "items": {"type": "integer"}},
            "s": {"type": "string", "pattern": "^(a+)+$"},
            "x/y~z": {"type": "string"},
        },
        "additionalProperties": False,
    }
)


def test_an_answer_that_fits_is_taken() -> None:
    assert CHECK('{"a": [1, 2], "s": "aaa"}') is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no text"),
        ("", "not JSON"),
        ("nonsense", "not JSON"),
        ('```json\n{"a": []}\n```', "not JSON"),
        ('{"a": [1]} and more', "not JSON"),
        ('{"a": NaN}', "not JSON"),
        ('{"a": [1e999]}', "not JSON"),
        ('{"s": "\\ud800"}', "not JSON"),
        ('{"s": "half', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"a": [1, "x"]}', "at /a/1: "),
        ('{"x/y~z": 1}', "at /x~1y~0z: "),
        ("[]", "at /: "),
        ('{"b": 1}', "at /: "),
        (json.dumps({"s": "a" * 50_000 + "!"}), "at /s: "),
        (json.dumps({"a": ["y" * 1_000_000]}), "at /a/0: "),
        ('{"a": [' + "9" * 5000 + ".5]}", ""),
        ('{"s": ' + '{"s":' * 900 + "1" + "}" * 900 + "}", "cannot be checked"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_whatever_is_wrong_is_said_and_never_raised(text: str | None, words: str) -> None:
    found = CHECK(text)
    assert found is not None
    assert words in found
    assert len(found) < 1000


def test_no_answer_to_a_schema_that_branches_into_itself_hangs_the_run() -> None:
    branches = {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}, {"type": "null"}]}
    tree = schema(root=branches) | {"$defs": {"a": schema(child=branches), "b": schema(child=branches)}}
    assert said(tree, "openai") == {}
    check = schemas.check(tree)
    nested = {depth: '{"root":' + '{"child":' * depth + "%s" + "}" * (depth + 1) for depth in (1, 5, 20, 200)}
    for depth, text in nested.items():
        assert check(text % "null") is None
        found = check(text % "1")
        assert found is not None
        assert ("too deeply" in found) == (depth > 5)


def test_a_number_past_64_bits_is_a_number() -> None:
    assert CHECK('{"a": [123456789012345678901234567890]}') is None


class PanicException(BaseException):
    """What a panic in a library written in Rust becomes."""


def test_a_panic_of_the_library_is_an_error_that_can_be_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    class Panicking:
        def is_valid(self, document: object) -> bool:
            raise PanicException("index out of bounds")

    monkeypatch.setattr(schemas, "_validator", lambda schema: Panicking())
    with pytest.raises(RuntimeError, match="the schema library failed: index out of bounds"):
        schemas.check({"type": "object"})("{}")
