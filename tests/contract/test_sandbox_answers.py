"""What the sandbox says: deterministic answers, documents that fit any schema, and what the vendors refuse of schemas."""

import json
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nura_cli.sandbox import answers, strict

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "friends": {"type": "array", "items": {"$ref": "#/$defs/person"}}},
    "required": ["name", "friends"],
    "additionalProperties": False,
}
SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {}, "additionalProperties": False},
    {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a", "unlisted"]},
    {"type": "object", "required": ["n"], "additionalProperties": {"type": "integer"}},
    {"type": "array", "items": {"type": "integer"}, "minItems": 3, "maxItems": 3},
    {"type": "array", "items": {"enum": ["a", "b", "c"]}, "minItems": 2, "uniqueItems": True},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}], "items": False, "minItems": 2},
    {"type": "array", "items": {"type": "string"}, "maxItems": 0},
    {"type": "string", "minLength": 300},
    {"type": "string", "maxLength": 3},
    *({"type": "string", "format": name} for name in ("date", "date-time", "email", "uri", "uuid", "ipv4", "ipv6", "time")),
    {"type": "integer", "minimum": 5, "maximum": 5},
    {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5},
    {"type": "integer", "multipleOf": 7, "minimum": 8},
    {"type": "integer", "maximum": -3},
    {"type": "number", "minimum": 0.2, "maximum": 0.8},
    {"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.25},
    {"type": "boolean"},
    {"type": "null"},
    {"const": {"a": [1, None]}},
    {"enum": [1, "two", None]},
    {"type": ["null", "integer"]},
    {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}]},
    {"oneOf": [{"type": "string"}, {"type": "integer"}]},
    {"type": "object", "properties": {"a": {"anyOf": [{"const": 1}, {"const": 2}]}}, "required": ["a"]},
    {"allOf": [{"$ref": "#/$defs/a"}, {"properties": {"y": {"type": "integer"}}, "required": ["y"]}],
     "$defs": {"a": {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]}}},
    {"$ref": "#/$defs/person", "$defs": {"person": PERSON}},
    {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "integer"}}},
    {"properties": {"implicit": {"items": {"type": "number"}}}, "required": ["implicit"]},
    {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["next"]},
    {},
]  # fmt: skip
"""Schemas of every kind that a strict mode takes, and some that it does not."""


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:60])
@pytest.mark.parametrize("prompt", ["", "Summarise: the cat sat on the mat.", "日本語のテキスト", "a\ud800b"])
def test_a_document_fits_its_schema(schema: dict[str, Any], prompt: str) -> None:
    document = answers.fitting(schema, prompt)
    assert answers.fitting(schema, prompt) == document
    if "\ud800" not in prompt:
        jsonschema_rs.validate(schema, json.loads(document), validate_formats=True)


@given(low=st.integers(-1000, 1000), span=st.integers(0, 50), step=st.integers(1, 9), prompt=st.text(max_size=5))
def test_whole_numbers_stay_within_their_bounds(low: int, span: int, step: int, prompt: str) -> None:
    schema = {"type": "integer", "minimum": low, "maximum": low + span, "multipleOf": step}
    value = json.loads(answers.fitting(schema, prompt))
    assert low <= value <= low + span
    assert value % step == 0 or all(n % step for n in range(low, low + span + 1))


def test_an_enum_is_chosen_by_the_words_of_the_prompt_and_else_by_chance() -> None:
    options = {"enum": ["billing", "bug report", "praise"]}
    assert json.loads(answers.fitting(options, "The BILLING page shows nothing")) == "billing"
    assert json.loads(answers.fitting(options, "I report a bug; billing is fine")) == "bug report"
    chosen = {json.loads(answers.fitting(options, f"text {n}")) for n in range(40)}
    assert chosen == {"billing", "bug report", "praise"}


def test_plain_answers_quote_the_prompt_and_differ_with_it() -> None:
    long = " ".join(f"word{n}" for n in range(500))
    assert "word0 word1 word2" in answers.plain(long)
    assert len(answers.plain(long)) < 300
    assert len({answers.plain(long + end) for end in ("", "a", "b")}) == 3
    assert answers.plain("same") == answers.plain("same")


def test_neighbours_in_a_document_are_chosen_apart() -> None:
    schema = {"type": "array", "items": {"type": "integer"}, "minItems": 20}
    assert len(set(json.loads(answers.fitting(schema, "x")))) > 10


@pytest.mark.parametrize(("most", "reason"), [(None, "stop"), (1000, "stop"), (6, "length"), (1, "length")])
def test_an_answer_keeps_to_its_tokens(most: int | None, reason: str) -> None:
    said = answers.speak("the quick brown fox jumps over the lazy dog", None, most)
    assert said.reason == reason
    assert said.tokens == answers.tokens(said.text)
    assert most is None or said.tokens <= most


OBJECT = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}


def test_a_strict_schema_is_taken_by_both_vendors() -> None:
    nested = {**OBJECT, "properties": {"a": {"type": "array", "items": OBJECT}}, "$defs": {"b": OBJECT}}
    assert (strict.openai(nested), strict.anthropic(nested)) == (None, None)


@pytest.mark.parametrize(
    "place",
    [
        lambda part: {**OBJECT, "properties": {"a": part}},
        lambda part: {**OBJECT, "properties": {"a": {"type": "array", "items": part}}},
        lambda part: {**OBJECT, "properties": {"a": {"anyOf": [{"type": "null"}, part]}}},
        lambda part: {**OBJECT, "$defs": {"deep": part}},
    ],
)
def test_an_open_object_is_refused_wherever_it_stands(place: Any) -> None:
    schema = place({"type": "object", "properties": {}})
    assert "additionalProperties" in (strict.openai(schema) or "")
    assert "additionalProperties" in (strict.anthropic(schema) or "")


def test_each_vendor_has_demands_of_its_own() -> None:
    optional = {**OBJECT, "required": []}
    assert "Missing 'a'" in (strict.openai(optional) or "")
    assert strict.anthropic(optional) is None
    for limit in (
        {"type": "integer", "maximum": 3},
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string"}, "minItems": 2},
    ):
        schema = {**OBJECT, "properties": {"a": limit}}
        assert strict.openai(schema) is None
        assert "not supported" in (strict.anthropic(schema) or "")
    assert strict.openai({"type": "string"})
    assert strict.openai({**OBJECT, "anyOf": [OBJECT]})
