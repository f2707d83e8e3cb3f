"""Whether a document is what the contract says: every field that must be there, no other, each of its type."""

import functools
import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, is_typeddict

import jsonschema_rs

from nura_cli import config_file, contract, reference
from nura_cli.cli import COMMANDS
from nura_cli.cli.helptext import EVERY


def check(document: Any, *forms: Any) -> None:
    """Assert that a document has one of these forms: of each type or sequence of types, all fields of which it has."""
    found = [list(differences(document, form)) for form in forms]
    assert not forms or [] in found, found


@functools.cache
def check_configuration(text: str) -> None:
    """Assert that a configuration, which nura takes, is valid by the schema that editors go by."""
    found = _schema().iter_errors(config_file.load(text)[0])
    assert [error.message for error in found] == []


@functools.cache
def _schema() -> Any:
    return jsonschema_rs.Draft202012Validator(reference.config_schema())


def differences(document: Any, form: Any) -> Iterator[str]:
    """Yield where a document is not what a type, or a sequence of types together, says."""
    fields = {one.name: one for kind in (form if isinstance(form, tuple) else (form,)) for one in _fields(kind)}
    yield from (f"{name} is not described" for name in document.keys() - fields.keys())
    for name, field in fields.items():
        if name not in document:
            if not field.optional:
                yield f"{name} is missing"
            continue
        value = document[name]
        if field.words and value is not None and value not in field.words:
            yield f"{name}: {value} is not one of {', '.join(field.words)}"
        yield from (f"{name}: {why}" for why in _unlike(value, field.type))


@functools.cache
def _fields(kind: Any) -> tuple[contract.Field, ...]:
    return tuple(contract.fields(kind))


def _unlike(value: Any, kind: Any) -> Iterator[str]:
    """Yield why a value is not of a type."""
    given, origin = get_args(kind), get_origin(kind)
    if is_typeddict(kind):
        yield from differences(value, kind) if isinstance(value, Mapping) else [f"{value!r} is no object"]
    elif origin is Annotated:
        yield from _unlike(value, given[0])
    elif origin in (Union, UnionType):
        each = [list(_unlike(value, one)) for one in given]
        yield from [] if [] in each else min(each, key=len)
    elif origin is Literal:
        yield from [] if value in given else [f"{value!r} is not one of {given}"]
    elif origin in (list, dict) and not isinstance(value, origin):
        yield f"{value!r} is no {origin.__name__}"
    elif origin is list:
        for one in value:
            yield from _unlike(one, given[0])
    elif origin is dict:
        for one in value.values():
            yield from _unlike(one, given[1])
    elif kind is not Any and type(value) is not kind and not isinstance(value, kind):
        yield f"{value!r} is no {kind.__name__}"


def check_ended(arguments: Sequence[str], code: int, out: bytes = b"") -> None:
    """Assert that a command ended with a code that its help names, and that what it printed with ``--json`` has a form of its."""
    name = next((one for one in arguments if one in COMMANDS), None)
    if name is None or code < 0:
        return
    module = importlib.import_module(f"nura_cli.cli.{name}")
    assert code in {*EVERY, *module.EXIT_CODES}, f"nura {name} ended with {code}, which its help does not name"
    if "--json" not in arguments or not out.startswith(b"{") or name in ("results", "sandbox"):
        return
    own = [(contract.Envelope, form) for form in contract.DOCUMENTS[name].values()]
    check(json.loads(out), *own, *([contract.Envelope] if code or b'"locked"' in out else []))
