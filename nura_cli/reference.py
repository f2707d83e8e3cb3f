"""Writes the reference that ships with nura: what ``nura help TOPIC`` prints, and the configuration's schema.

``python -m nura_cli.reference`` writes the files of ``nura_cli/help/`` anew, from what the code itself says; a test fails where
one is stale. Pages without a function here are written by hand.
"""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from enum import EnumType, StrEnum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, is_typeddict

from pydantic.json_schema import GenerateJsonSchema

from nura_cli import clock, contract, states
from nura_cli.config import Config
from nura_cli.dialects import vendors
from nura_cli.environment import VARIABLES
from nura_cli.errors import EXIT_CODES, ProblemKind

FOLDER = Path(__file__).with_name("help")


# --- documents: fields, json, events

_WORDS = {str: "text", int: "whole number", bool: "true or false", Any: "any JSON", type(None): "null"}


def _type(kind: Any) -> str:
    """Return a field's type in words."""
    given, origin = get_args(kind), get_origin(kind)
    if is_typeddict(kind):
        return f"`{kind.__name__}`"
    if origin is Annotated:
        return next((one.words for one in given[1:] if isinstance(one, contract.Form)), _type(given[0]))
    if origin in (Union, UnionType):
        return " or ".join(map(_type, given))
    if origin is Literal:
        return " or ".join(f"`{json.dumps(word)}`" for word in given)
    if origin is list:
        return f"list of {_type(given[0])}"
    return f"object: name → {_type(given[1])}" if origin is dict else _WORDS[kind]


def _field(field: contract.Field) -> str:
    """Return a field's line: its name, type and description, and the words that it may say."""
    optional = ", not always there" if field.optional else ""
    words = f": one of {', '.join(f'`{word}`' for word in field.words)}" if field.words else ""
    return f"- `{field.name}` ({_type(field.type)}{optional}): {field.description}{words}"


def _types(kind: Any) -> Iterator[Any]:
    """Yield the documents that a type is, or is made of."""
    if is_typeddict(kind):
        yield kind
    else:
        for part in get_args(kind):
            yield from _types(part)


def _inner(documents: list[Any]) -> list[Any]:
    """Return the documents that these are made of, and so on, each once, in the order in which they are met."""
    found: dict[Any, None] = {}
    met = list(documents)
    while met:
        new = [one for field in contract.fields(met.pop(0)) for one in _types(field.type)]
        met += [one for one in new if one not in found]
        found |= dict.fromkeys(new)
    return list(found)


def _listed(document: Any) -> str:
    return "\n".join(map(_field, contract.fields(document)))


def _below(documents: list[Any]) -> Iterator[str]:
    """Yield a section for each document that others are made of."""
    for document in _inner(documents):
        yield f"## `{document.__name__}`\n\n{_first(document)}\n\n{_listed(document)}".rstrip()


def _first(thing: Any) -> str:
    """Return the first paragraph of a docstring, as Markdown, on one line."""
    return " ".join((thing.__doc__ or "").split("\n\n")[0].split()).replace("``", "`")


def fields() -> Iterator[str]:
    """Yield the page of a line of results."""
    yield "# Fields of a line of `nura results`"
    yield "One JSON object a line, the same fields whether the task completed or failed; also what `nura_cli.results` gives in Python, and, but for `row` and `row_error`, what the expressions of `write_back` read. Fields are only ever added."
    yield "`--fields` takes them, and JMESPath over them: `key,text,json.section` prints objects with these names, in this order; `{section: json.section, who: key}` gives names. `--csv` prints CSV (RFC 4180, with a header; without `--fields` every field but `response`, those that have fields of their own as `usage.input_tokens` …; name columns, do not count them). There null is nothing, and an object or a list is JSON. Values stand as they are: a text that begins with `=` is a formula to a spreadsheet that is not told that the column is text. What an expression cannot take (`length(text)` of a task that failed) is null there, is said, and the command ends with 3."
    yield _listed(contract.Result)
    yield from _below([contract.Result])


def json_() -> Iterator[str]:
    """Yield the page of ``--json``."""
    yield "# What each command prints with `--json`"
    yield "One JSON object, on failure too, on one line. Fields are only ever added, never renamed. Every object begins with these, and one of a command that fails as a whole has no others:"
    yield _listed(contract.Envelope)
    named = [document for forms in contract.DOCUMENTS.values() for document in forms.values()]
    for command, forms in contract.DOCUMENTS.items():
        for when, document in forms.items():
            yield f"## `nura {command}`{f' {when}' if when else ''}\n\n{_first(document)}\n\n{_listed(document)}"
        if not forms:
            yield f"## `nura {command}`\n\nIts lines are JSON without it: `nura help fields`."
    yield from _below([contract.Envelope, *named])
    yield f"## Kinds of problems: `errors[].kind`\n\n{_word(ProblemKind)}"


def events() -> Iterator[str]:
    """Yield the page of events."""
    yield "# Events: what commands and webhooks get"
    yield "What a command of `events:` gets on its standard input, one JSON object a line, and a webhook as the body of a POST. Sent at least once, under an id that stays the same, in order for one key."
    yield _listed(contract.EventTold)
    yield f"## Types\n\n{_word(states.EventType)}"
    yield from _below([contract.EventTold])
    yield "## How a receiver answers"
    yield "A command ends with 0 where it has them all, with 75 where it can take nothing now, with anything else where it refuses them. A webhook answers 2xx, 429 or 503 (heeding `Retry-After`), or anything else."
    yield "## Headers of a webhook's POST\n\nAs [Standard Webhooks](https://www.standardwebhooks.com) has them."
    yield "\n".join(f"- `{name}`: {words}" for name, words in contract.HEADERS.items())


# --- config


class _Titled(GenerateJsonSchema):
    """The schema without the titles that repeat a name in capitals: the titles that are left say what a value is."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of a configuration."""
    found = Config.model_json_schema(schema_generator=_Titled)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **found,
        "title": "nura.yaml",
        "description": "nura's configuration",
    }


def config() -> Iterator[str]:
    """Yield the page of the configuration's options."""
    schema = config_schema()
    yield "# Options of the configuration"
    yield "One YAML file, read as YAML 1.2 reads it: only `true` and `false` are booleans. Relative paths are relative to the file. A length of time is `30s`, `15m`, `1h30m`, `7d`, or a number of seconds; a size `64KiB`, `200MB`, or a number of bytes; a share `10%` or `0.1`. NAME is a name of your choice. `config.example.yaml` shows every option in its place; an editor checks them by `config.schema.json`, which `nura help schema` prints."
    yield "\n".join(_options(schema, schema, ""))


def _options(schema: Mapping[str, Any], whole: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield a line for each option at a path, and for those below it."""
    for name, option in schema["properties"].items():
        where, inner, suffix = f"{path}{name}", _model(option, whole), ""
        if inner is None:
            for under, mark in (("additionalProperties", ".NAME"), ("items", "[]")):
                if isinstance(option.get(under), dict) and (inner := _model(option[under], whole)):
                    suffix = mark
                    break
        required = ", required" if name in schema.get("required", ()) else ""
        default = option.get("default")
        said = f", default `{_default(option)}`" if default not in (None, {}, []) else ""
        words = "options" if inner and not suffix else _value(option, whole)
        yield f"- `{where}` ({words}{required}{said}): {option['description']}"
        if inner:
            yield from _options(inner, whole, f"{where}{suffix}.")


def _default(option: Mapping[str, Any]) -> str:
    """Return an option's default as it is written in the file."""
    lengths = [one for one in (option, *option.get("anyOf", ())) if one.get("title") == "length of time"]
    return clock.span(option["default"]).replace(" ", "") if lengths else json.dumps(option["default"]).strip('"')


def _model(option: Mapping[str, Any], whole: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the options that an option holds, where it holds options."""
    refs = [one["$ref"] for one in (option, *option.get("anyOf", ())) if "$ref" in one]
    found = whole["$defs"][refs[0].rpartition("/")[2]] if refs else None
    return found if found and "properties" in found else None


def _value(option: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    """Return in words what an option may be."""
    if "$ref" in option:
        found = whole["$defs"][option["$ref"].rpartition("/")[2]]
        return "options" if "properties" in found else _value(found, whole)
    if "anyOf" in option:
        return " or ".join(_value(one, whole) for one in option["anyOf"] if one != {"type": "null"})
    if "enum" in option or "const" in option:
        return " or ".join(f"`{word}`" for word in option.get("enum", [option.get("const")]))
    if "title" in option:
        return str(option["title"])
    kind = option.get("type")
    if kind == "array":
        return f"list of {_value(option['items'], whole)}"
    if kind == "object":
        of = option.get("additionalProperties")
        return f"mapping: name → {_value(of, whole)}" if isinstance(of, dict) else "mapping"
    return {"string": "text", "integer": "whole number", "boolean": "true or false"}.get(str(kind), "any value")


# --- exit codes, states, environment, providers


def exit_codes() -> Iterator[str]:
    """Yield the page of exit codes."""
    yield "# Exit codes: what each means"
    yield "The same for every command; `nura COMMAND --help` names those that it can end with. One kind of problem and nothing else done gives its own code; part done and part not gives 3."
    yield "\n".join(f"- `{code}`: {words}" for code, words in EXIT_CODES.items())


def _word(kind: EnumType) -> str:
    """Return the words of a closed list, each with what its comment says."""
    return "\n".join(f"- `{word}`: {comment}" for word, comment in _comments(kind).items())


def _comments(kind: EnumType) -> dict[str, str]:
    """Return the comment behind each word of an enumeration."""
    lines = [line.partition("  # ") for line in inspect.getsource(kind).splitlines() if ' = "' in line]
    return {line.split('"')[1]: comment for line, _, comment in lines}


def states_() -> Iterator[str]:
    """Yield the page of states."""
    yield "# States of tasks and batches, and why they move"
    yield "Whatever is *paused* goes on by itself, at a time. What is *held* waits for a person: a workload or provider for `nura release` (or the time given with `--until`), a batch for `nura resolve`."
    for title, kind, arrows in (
        ("A task", states.TaskStatus, states.TASK_ARROWS),
        ("A batch", states.BatchStatus, states.BATCH_ARROWS),
    ):
        yield f"## {title}\n\n{_word(kind)}"
        moves: Mapping[Any, Mapping[Any, str]] = arrows
        yield "\n".join(f"- {old} → {new}: {why}" for old, news in moves.items() for new, why in news.items())
    lists: tuple[tuple[str, type[StrEnum]], ...] = (
        ("Why a task has no answer: `error.kind`", states.ErrorKind),
        ("What tasks wait for: `waits[].why`", states.Why),
        ("Why an attempt does not count: `excused`", states.Excuse),
    )
    for title, words in lists:
        yield f"## {title}\n\n{_word(words)}"


def environment() -> Iterator[str]:
    """Yield the page of environment variables."""
    yield "# Environment variables that count"
    yield "Those that the configuration names for secrets (`api_key_env` and the like) count, too. No other does: account and address come from the configuration alone."
    yield "\n".join(f"- `{name}`: {words}" for name, words in VARIABLES.items())


def providers() -> Iterator[str]:
    """Yield the page of providers."""
    yield "# Providers: limits, endpoints, how long results are kept"
    yield "What nura knows of each `kind` of provider. Limits can be lowered under `limits`, not raised. `kind: sandbox` is built in, and speaks the API of one of these (`protocol`): no key, no network."
    for name in vendors.names():
        one = vendors.dialect(name)
        limits = one.limits
        inputs = f", {limits.inputs:,} embedding inputs" if limits.inputs else ""
        facts = {
            "address": f"`{one.base_url}`",
            "one batch": f"{limits.requests:,} requests, {limits.bytes // 10**6:,} MB{inputs}; {limits.line_bytes // 10**6:,} MB a request",
            "prompts are rendered for": ", ".join(f"`{endpoint}`" for endpoint in one.endpoints)
            + "; the first is the default",
            "results are kept for": f"{one.results_kept // 86400} days after the create",
            "options of the account": ", ".join(f"`{option}`" for option in sorted(one.account_options)) or "none",
            "`params` must have": ", ".join(f"`{option}`" for option in one.params_required) or "nothing",
            "`params` that nura sets itself": ", ".join(f"`{option}`" for option in sorted(one.params_set)),
            "with a `schema` also": ", ".join(f"`{option}`" for option in sorted(one.params_set_by_schema)),
            "a batch carries a mark of ours": "yes"
            if one.keeps_marks
            else "no: after a restore, its console tells what was sent",
            "answers of a cancelled batch": "can be had" if one.cancel_keeps_answers else "are thrown away",
        }
        yield f"## `kind: {name}` ({one.title})"
        yield "\n".join(f"- {what}: {words}" for what, words in facts.items() if words)


PAGES: Mapping[str, Callable[[], Iterator[str]]] = {
    "fields": fields,
    "json": json_,
    "events": events,
    "config": config,
    "exit-codes": exit_codes,
    "states": states_,
    "environment": environment,
    "providers": providers,
}
"""The pages that are written from the code."""


def files() -> dict[str, str]:
    """Return each generated file of ``nura_cli/help/`` by its name, with what belongs in it."""
    pages = {f"{name}.md": "\n\n".join(page()) + "\n" for name, page in PAGES.items()}
    return {**pages, "config.schema.json": json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n"}


if __name__ == "__main__":
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
