"""What is stored keeps its form from release to release: revisions, specs, addresses, why a batch was refused."""

from typing import Any

import msgspec
import pytest

from nura_cli.config import ProviderConfig, WorkloadConfig
from nura_cli.dialects.base import Rejection, Spec
from nura_cli.dialects.vendors import dialect
from nura_cli.pipeline.accounts import address
from nura_cli.pipeline.render import revision, spec_of

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
PLAIN = {"provider": "p", "model": "m", "prompt": "Sort: {{ text }}"}
FULL = {**PLAIN, "system": "Be brief.", "params": {"max_tokens": 50, "n": 1.5}, "schema": SCHEMA}
READY = {"provider": "p"}

_SCHEMA = (
    '"answer_schema":{"additionalProperties":false,"properties":{"a":{"type":"string"}},"required":["a"],'
    '"type":"object"}'
)
_PROMPT = '"prompt":"Sort: {{ text }}"'
_PARAMS = '"params":{"max_tokens":50,"n":1.5}'
PINNED: list[tuple[str, dict[str, Any], str, str]] = [
    (
        *("openai", PLAIN, "97ea40d68a63"),
        '{"dialect":"openai","endpoint":"/v1/chat/completions","model":"m",' + _PROMPT + "}",
    ),
    (
        *("openai", FULL, "7da74e0ec50b"),
        f'{{{_SCHEMA},"dialect":"openai","endpoint":"/v1/chat/completions","model":"m",{_PARAMS},{_PROMPT},'
        '"system":"Be brief."}',
    ),
    (
        *("openai", {**PLAIN, "endpoint": "/v1/embeddings"}, "c3b5cf8ef62a"),
        '{"dialect":"openai","endpoint":"/v1/embeddings","model":"m",' + _PROMPT + "}",
    ),
    ("openai", READY, "72f66162ce3c", '{"dialect":"openai","endpoint":"/v1/chat/completions"}'),
    (
        *("anthropic", PLAIN, "f21da821eccd"),
        '{"dialect":"anthropic","endpoint":"/v1/messages","model":"m",' + _PROMPT + "}",
    ),
    (
        *("anthropic", FULL, "e535ad8577dd"),
        f'{{{_SCHEMA},"dialect":"anthropic","endpoint":"/v1/messages","model":"m",{_PARAMS},{_PROMPT},'
        '"system":"Be brief."}',
    ),
    ("anthropic", READY, "8f0399b5017f", '{"dialect":"anthropic","endpoint":"/v1/messages"}'),
]


@pytest.mark.parametrize(("name", "options", "pinned", "text"), PINNED)
def test_no_upgrade_changes_a_revision_or_how_a_spec_is_stored(
    name: str, options: dict[str, Any], pinned: str, text: str
) -> None:
    assert revision(spec_of(WorkloadConfig.model_validate(options), dialect(name))) == (pinned, text)


@pytest.mark.parametrize(("name", "options", "pinned", "text"), PINNED)
def test_a_stored_spec_is_read_with_all_that_it_holds(
    name: str, options: dict[str, Any], pinned: str, text: str
) -> None:
    read = msgspec.json.decode(text, type=Spec)
    assert revision(read) == (pinned, text)
    assert (read.dialect, read.prompt, read.system) == (name, options.get("prompt"), options.get("system"))
    assert (read.params, read.answer_schema) == (options.get("params", {}), options.get("schema"))


@pytest.mark.parametrize(
    ("options", "stored"),
    [
        ({"kind": "openai"}, "openai"),
        (
            {"kind": "openai", "base_url": "https://x.example/v1", "organization": "o", "project": "p"},
            "openai https://x.example/v1 o p",
        ),
        ({"kind": "anthropic"}, "anthropic"),
        ({"kind": "sandbox"}, "sandbox-openai"),
        ({"kind": "sandbox", "protocol": "anthropic"}, "sandbox-anthropic"),
    ],
)
def test_where_batches_are_is_written_as_before(options: dict[str, Any], stored: str) -> None:
    assert address(ProviderConfig.model_validate(options)) == stored


def test_why_a_batch_was_refused_is_stored_as_code_words_and_line() -> None:
    stored = b'[["model_not_found","no such model",3],[null,null,null]]'
    faults = [Rejection("model_not_found", "no such model", 3), Rejection(None, None, None)]
    assert msgspec.json.encode(faults) == stored
    assert msgspec.json.decode(stored, type=list[Rejection]) == faults
