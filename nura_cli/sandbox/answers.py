"""Deterministic answers: to a prompt a sentence that quotes it, to a prompt with a schema a document that fits it."""

import hashlib
import json
import math
import re
from typing import Any

_WORDS = 24


def tokens(text: str) -> int:
    """Return a plain estimate: four characters make a token."""
    return max(1, math.ceil(len(text) / 4))


def plain(prompt: str) -> str:
    """Return a sentence that quotes the beginning of the prompt, and differs where the prompt does."""
    words = " ".join(prompt.split()[:_WORDS])
    return f"In short: {words} [{hashlib.sha256(prompt.encode()).hexdigest()[:8]}]"


def fitting(schema: dict[str, Any], prompt: str) -> str:
    """Return a JSON document that fits a schema, chosen by the prompt."""
    return json.dumps(_value(schema, schema, prompt, "", 0), ensure_ascii=False)


def _pick(options: list[Any], prompt: str, place: str) -> Any:
    """Choose the option whose words the prompt has most of, else one by hash."""
    lower = prompt.lower()

    def score(option: Any) -> int:
        return sum(lower.count(word) for word in re.findall(r"[a-z]{3,}", str(option).lower()))

    best = max(options, key=score)
    if score(best):
        return best
    return options[int(hashlib.sha256(f"{place}:{prompt}".encode()).hexdigest(), 16) % len(options)]


def _value(schema: Any, root: dict[str, Any], prompt: str, place: str, depth: int) -> Any:
    if not isinstance(schema, dict) or depth > 40:
        return None
    if "$ref" in schema:
        target: Any = root
        for part in str(schema["$ref"]).lstrip("#/").split("/"):
            target = target.get(part.replace("~1", "/").replace("~0", "~"), {}) if part else target
        return _value(target, root, prompt, place, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return _pick(schema["enum"], prompt, place)
    for combined in ("anyOf", "oneOf", "allOf"):
        if schema.get(combined):
            return _value(schema[combined][0], root, prompt, place, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    if kind == "object":
        names = schema.get("properties", {})
        return {
            name: _value(names[name], root, prompt, f"{place}/{name}", depth + 1)
            for name in names
            if depth < 20 or name in schema.get("required", ())
        }
    if kind == "array":
        n = max(int(schema.get("minItems", 1)), 0)
        return [_value(schema.get("items", {}), root, prompt, f"{place}/{i}", depth + 1) for i in range(n)]
    return _scalar(kind, schema, prompt, place)


def _scalar(kind: str, schema: dict[str, Any], prompt: str, place: str) -> Any:
    digest = int(hashlib.sha256(f"{place}:{prompt}".encode()).hexdigest()[:8], 16)
    if kind == "boolean":
        return bool(digest % 2)
    if kind in ("integer", "number"):
        low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
        high = schema.get("maximum", schema.get("exclusiveMaximum", low + 100))
        span = max(int(high) - math.ceil(low) - ("exclusiveMaximum" in schema), 0)
        value = math.ceil(low) + ("exclusiveMinimum" in schema) + (digest % (span + 1) if span else 0)
        step = schema.get("multipleOf")
        return value - value % step if isinstance(step, int) and step else value
    if kind == "null":
        return None
    formats = {"date": "2026-01-02", "date-time": "2026-01-02T03:04:05Z", "email": "someone@example.com"}
    text = formats.get(str(schema.get("format")), plain(prompt))
    shortest = int(schema.get("minLength", 0))
    return (text + "." * max(0, shortest - len(text)))[: int(schema.get("maxLength", 10**6))]
