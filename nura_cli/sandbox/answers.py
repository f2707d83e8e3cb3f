"""Deterministic answers: to a prompt a sentence that quotes it, to a prompt with a schema a document that fits it."""

import bisect
import hashlib
import json
import math
import re
from typing import Any, NamedTuple

_WORDS = 24
_CHARACTERS = 200
_DEEP = 8
_MOST_VALUES = 100_000
_MOST_CHARACTERS = 1_000_000
_FORMATS = {
    "date": "2026-01-02",
    "time": "03:04:05Z",
    "date-time": "2026-01-02T03:04:05Z",
    "duration": "P1D",
    "email": "someone@example.com",
    "hostname": "example.com",
    "uri": "https://example.com/",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uuid": "123e4567-e89b-42d3-a456-426614174000",
}


MESSAGE_TOKENS = 4
"""What stands around a message's text, and before the answer, as tokens."""
_TOKEN_BYTES = 4.6
_TOKEN_BYTES_OF = (
    (re.compile(r"[0-9][0-9 \t\r\n.,;:/%+-]*"), 1.6),
    (re.compile("[\u3040-\u30ff]+"), 3.3),
    (re.compile("[\u2e80-\u303f\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]+"), 4.7),
    (re.compile("[\uac00-\ud7af][\uac00-\ud7af \t\r\n]*"), 4.7),
    (re.compile("[\u0400-\u04ff][\u0400-\u04ff \t\r\n]*"), 8.2),
    (re.compile("[\u0900-\u097f][\u0900-\u097f \t\r\n]*"), 10.2),
)
"""UTF-8 bytes that make a token (measured with o200k): of English and what is like it, and of runs of numbers, Japanese kana,
Chinese, Korean, Russian and Hindi."""


class Spoken(NamedTuple):
    """An answer: its text, why it ended (``stop``, ``length`` or ``refusal``), and its tokens."""

    text: str
    reason: str
    tokens: int


def tokens(text: str) -> int:
    """Return how many tokens a text has, by the bytes that make one in what it is written in; an empty one has one, too."""
    scripts = _TOKEN_BYTES_OF[:1] if text.isascii() else _TOKEN_BYTES_OF
    left, found = _size(text), 0.0
    for runs, each in scripts:
        size = sum(map(_size, runs.findall(text)))
        left, found = left - size, found + size / each
    return max(1, math.ceil(found + left / _TOKEN_BYTES))


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def written(value: Any) -> str:
    """Return what a model reads of a schema or of tools: its JSON, without blanks; nothing where there is none."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) if value else ""


def _cut(text: str, most: int) -> str:
    """Return the longest part of a text, from its beginning and never all of it, that has so many tokens at most."""
    return text[: bisect.bisect_right(range(len(text)), most, key=lambda end: tokens(text[:end])) - 1]


def speak(prompt: str, schema: Any, most: Any = None, mode: str | None = None) -> Spoken:
    """Return the answer to a prompt.

    Args:
        prompt: the user's last words.
        schema: the JSON schema it must fit, or None for a plain sentence.
        most: how many tokens it may have; None for any number. One that needs more is cut.
        mode: how a fault wants it wrong: ``text``, ``schema``, ``length``, ``silent``, ``refusal`` or ``empty``; what else there
            is does not change what is said (:mod:`nura_cli.sandbox.endings`).
    """
    if mode == "refusal":
        return Spoken("I cannot help with that.", "refusal", 6)
    if mode == "silent":
        return Spoken("", "length", 8)
    wrong = {"text": "This is not JSON.", "schema": '{"unexpected": true}', "empty": ""}
    text = fitting(schema, prompt) if isinstance(schema, dict) else plain(prompt)
    text = wrong.get(mode or "", text)
    needed = tokens(text)
    allowed = min(needed - 1, 8) if mode == "length" else most if isinstance(most, int) else needed
    if needed > allowed:
        return Spoken(_cut(text, max(allowed, 1)), "length", max(allowed, 1))
    return Spoken(text, "stop", needed)


def plain(prompt: str) -> str:
    """Return a sentence that quotes the beginning of the prompt, and differs where the prompt does."""
    return f"In short: {' '.join(prompt[:_CHARACTERS].split()[:_WORDS])} [{_hash('', prompt) % 16**8:08x}]"


def fitting(schema: dict[str, Any], prompt: str) -> str:
    """Return a JSON document that fits a schema, chosen by the prompt. Patterns are not followed.

    Raises:
        ValueError: no document of a sensible size fits, or the schema is none (other errors are of that kind, too).
    """
    return json.dumps(_Walk(schema, prompt).value(schema, "", 0), ensure_ascii=False)


def _hash(place: str, prompt: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{place}:{prompt}".encode("utf-8", "replace")).digest()[:8], "big")


class _Walk:
    """A walk through a schema that makes up a value on its way."""

    def __init__(self, root: dict[str, Any], prompt: str) -> None:
        self._root = root
        self._prompt = prompt
        self._lower = prompt.lower()
        self._values = 0

    def value(self, schema: Any, place: str, depth: int) -> Any:
        """Return a value that fits a schema; ``place`` is where it stands, so that neighbours differ."""
        self._values += 1
        if self._values > _MOST_VALUES:
            raise ValueError("the schema asks for too large a document")
        if not isinstance(schema, dict) or depth > 8 * _DEEP:
            return None
        if "$ref" in schema:
            return self.value({**self._target(schema["$ref"]), **_without(schema, "$ref")}, place, depth + 1)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._choose(schema["enum"], place)
        if schema.get("allOf"):
            return self.value(self._merged(schema), place, depth + 1)
        for either in ("anyOf", "oneOf"):
            if schema.get(either):
                chosen = self._branch(schema[either], depth)
                return self.value({**_without(schema, either), **chosen}, place, depth + 1)
        kind = schema.get("type", "object" if "properties" in schema else "array" if "items" in schema else "string")
        if isinstance(kind, list):
            kind = next((one for one in kind if one != "null"), "null") if depth < _DEEP else kind[-1]
        return self._of_kind(kind, schema, place, depth)

    def _of_kind(self, kind: str, schema: dict[str, Any], place: str, depth: int) -> Any:
        if kind == "object":
            return self._object(schema, place, depth)
        if kind == "array":
            return self._array(schema, place, depth)
        if kind in ("integer", "number"):
            return _number(schema, _hash(place, self._prompt), whole=kind == "integer")
        if kind == "boolean":
            return _hash(place, self._prompt) % 2 == 1
        return None if kind == "null" else self._string(schema)

    def _target(self, reference: object) -> dict[str, Any]:
        found: Any = self._root
        for part in str(reference).lstrip("#").split("/"):
            if part:
                found = found.get(part.replace("~1", "/").replace("~0", "~"), {}) if isinstance(found, dict) else {}
        return found if isinstance(found, dict) else {}

    def _merged(self, schema: dict[str, Any]) -> dict[str, Any]:
        merged = _without(schema, "allOf")
        for part in schema["allOf"]:
            whole = {**self._target(part["$ref"]), **_without(part, "$ref")} if "$ref" in part else part
            properties = {**merged.get("properties", {}), **whole.get("properties", {})}
            required = [*merged.get("required", []), *whole.get("required", [])]
            merged = {**merged, **whole}
            if properties:
                merged |= {"properties": properties, "required": required}
        return merged

    def _branch(self, branches: list[Any], depth: int) -> dict[str, Any]:
        """Return the branch to take: the first that is not null; deep down the one that ends soonest."""
        dicts = [branch for branch in branches if isinstance(branch, dict)]
        plain_ones = [one for one in dicts if one.get("type") in ("null", "string", "boolean", "integer", "number")]
        if depth >= _DEEP and plain_ones:
            return plain_ones[0]
        return next((one for one in dicts if one.get("type") != "null"), dicts[0] if dicts else {})

    def _choose(self, options: list[Any], place: str) -> Any:
        """Return the option whose words the prompt has most of; among equals one by hash."""

        def score(option: Any) -> int:
            return sum(self._lower.count(word) for word in re.findall(r"[^\W_]{3,}", str(option).lower()))

        scores = [score(option) for option in options]
        best = [option for option, found in zip(options, scores, strict=True) if found == max(scores)]
        return best[_hash(place, self._prompt) % len(best)]

    def _object(self, schema: dict[str, Any], place: str, depth: int) -> dict[str, Any]:
        properties, required = schema.get("properties", {}), schema.get("required", ())
        rest = schema.get("additionalProperties", {"type": "string"})
        extra = {
            name: rest if isinstance(rest, dict) else {"type": "string"} for name in required if name not in properties
        }
        return {
            name: self.value(part, f"{place}/{name}", depth + 1)
            for name, part in {**properties, **extra}.items()
            if depth < _DEEP or name in required
        }

    def _array(self, schema: dict[str, Any], place: str, depth: int) -> list[Any]:
        first = schema.get("prefixItems", [])
        least, most = int(schema.get("minItems", 0)), int(schema.get("maxItems", 10**6))
        n = min(max(least, len(first), 1 if depth < _DEEP else 0), most)
        items: list[Any] = []
        for i in range(n + 20 if schema.get("uniqueItems") else n):
            item = self.value(first[i] if i < len(first) else schema.get("items", {}), f"{place}/{i}", depth + 1)
            if len(items) < n and not (schema.get("uniqueItems") and item in items):
                items.append(item)
        return items

    def _string(self, schema: dict[str, Any]) -> str:
        text = _FORMATS.get(str(schema.get("format")), plain(self._prompt))
        shortest = int(schema.get("minLength", 0))
        if shortest > _MOST_CHARACTERS:
            raise ValueError("the schema asks for too long a text")
        return (text + "." * max(0, shortest - len(text)))[: int(schema.get("maxLength", 10**6))]


def _without(schema: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != name}


def _number(schema: dict[str, Any], digest: int, *, whole: bool) -> Any:
    """Return a number within a schema's bounds, on its ``multipleOf``."""
    step = schema.get("multipleOf", 1)
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is None:
        low = 0 if high is None or high > 0 else high - 100 * step
    first, last = math.ceil(low / step), math.floor((low + 100 * step if high is None else high) / step)
    first += first * step == schema.get("exclusiveMinimum")
    last -= last * step == schema.get("exclusiveMaximum")
    if first > last:
        # No multiple fits between the bounds: a number between them does, unless a whole one is asked for.
        return math.ceil(low) if whole or high is None else (low + high) / 2
    value = (first + digest % (last - first + 1)) * step
    return int(value) if whole else value
