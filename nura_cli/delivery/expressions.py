"""JMESPath expressions over an answer document: compiled once, and their typing errors found before anything is sent."""

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple, get_type_hints

import msgspec

from nura_cli.contract import Answer
from nura_cli.delivery.database import exact

if TYPE_CHECKING:
    from jmespath.visitor import _TreeNode as Node

_exactly = msgspec.json.Decoder(float_hook=exact).decode
Document = Mapping[str, object]
"""An answer document: the fields of a line of ``nura results``, by name."""
Pick = Callable[[Document], object]

FIELDS = tuple(get_type_hints(Answer))
"""The fields of an answer document: those of a line of ``nura results``."""
_FROM_THEIR_FIRST = {
    *("subexpression", "index_expression", "pipe", "flatten", "or_expression", "and_expression"),
    *("projection", "value_projection", "filter_projection"),
}
_PATH = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*", re.ASCII)
_BRACED = re.compile(r"\{\{\s*(.+?)\s*\}\}")


def like(name: str, known: Collection[str]) -> str:
    """Return ``, did you mean summary`` for the known name that is nearest to a mistyped one, or nothing."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f", did you mean {near[0]}" if near else ""


def plain_document(document: Document, fields: Collection[str] | None = None) -> dict[str, object]:
    """Return a document with plain values where it holds JSON as it came; numbers are what they were written as.

    Args:
        fields: of the fields these alone, where they are there; None for all.

    Raises:
        ValueError: the JSON is nested too deeply, or has a number of more digits than anything holds.
    """
    try:
        return {name: _decoded(document[name]) for name in (document if fields is None else fields) if name in document}
    except RecursionError:
        raise ValueError("the answer is nested too deeply") from None
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise ValueError(f"the answer cannot be read: {error}") from None


_Raw = msgspec.Raw


def _decoded(value: object) -> object:
    kind = type(value)
    if kind is _Raw:
        return _exactly(value)  # type: ignore[arg-type]  # which mypy does not see from its type
    if kind is dict and _Raw in map(type, value.values()):  # type: ignore[attr-defined]  # a record, field by field
        return {name: _exactly(one) if type(one) is _Raw else one for name, one in value.items()}  # type: ignore[attr-defined]
    return value


def _with_doubles(value: object) -> object:
    """Return a value for JMESPath's functions, which know no decimals."""
    if isinstance(value, dict):
        return {name: _with_doubles(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_with_doubles(inner) for inner in value]
    return float(value) if isinstance(value, Decimal) else value


def compiled(expression: str, known: Collection[str] = FIELDS) -> Pick:
    """Return the function that evaluates a JMESPath expression over a document with the ``known`` fields: those of an answer.

    Raises:
        ValueError: it is no JMESPath, calls a function that does not exist, begins at a field no answer has, or has an
            expression (``&text``) where a value is meant. The function that is returned raises it when a value is not what a
            JMESPath function takes, or is nested too deeply.
    """
    import jmespath
    from jmespath.exceptions import JMESPathError

    try:
        parsed = jmespath.compile(expression)
    except JMESPathError as error:
        why = " ".join(str(error).split()).split(", for expression")[0]
        if braced := _BRACED.search(expression):
            why = f"an expression is no template, so write {braced[1]} without braces"
        raise ValueError(f"is not JMESPath: {why}") from None
    for problem in _mistyped(parsed.parsed, known):
        raise ValueError(problem)
    if _PATH.fullmatch(expression):
        return _path(expression.split("."))

    def pick(document: Document) -> object:
        try:
            return parsed.search(_with_doubles(document))
        except JMESPathError as error:
            raise ValueError(" ".join(str(error).split())) from None
        except RecursionError:
            raise ValueError("the answer is nested too deeply") from None

    return pick


def _path(names: list[str]) -> Pick:
    """Return what JMESPath does for ``a.b.c``, several times as fast: nearly every expression is one of these."""

    first, *others = names
    if len(others) == 1:
        (second,) = others

        def pick_second(document: Document) -> object:
            found = document.get(first)
            return found.get(second) if isinstance(found, dict) else None

        return pick_second

    def pick(document: Document) -> object:
        found = document.get(first)
        for name in others:
            if not isinstance(found, dict):
                return None
            found = found.get(name)
        return found

    return pick


def first_field(expression: str) -> str | None:
    """Return the one field of the document that an expression looks at; None where it may look at others, too."""
    return expression.split(".")[0] if _PATH.fullmatch(expression) else None


class Reads(NamedTuple):
    """What an expression looks at.

    Attributes:
        roots: fields of the answer document; ``@`` where it looks at the whole.
        record: fields of the record.
        path: the names after ``record``, where it is nothing but a path there.
    """

    roots: frozenset[str]
    record: tuple[str, ...]
    path: tuple[str, ...] = ()

    def absent(self, record: Mapping[str, object]) -> list[str]:
        """Return which of the fields a record lacks; of a path, how far it leads."""
        if not self.path:
            return [name for name in self.record if name not in record]
        found: object = record
        for n, name in enumerate(self.path, 1):
            if not isinstance(found, dict) or name not in found:
                return [".".join(self.path[:n])]
            found = found[name]
        return []


def reads(expression: str) -> Reads:
    """Return what a JMESPath expression, one that :func:`compiled` takes, looks at."""
    import jmespath

    found = list(_fields(jmespath.compile(expression).parsed, ""))
    record = dict.fromkeys(name for scope, name in found if scope == "record")
    first, *path = expression.split(".")
    plain = first == "record" and _PATH.fullmatch(expression)
    return Reads(frozenset(name for scope, name in found if not scope), tuple(record), tuple(path) if plain else ())


_STEPS = {
    *("subexpression", "index_expression", "pipe", "flatten", "projection", "value_projection", "filter_projection")
}
"""Nodes whose children work on what the one before them gave, and not on what the node itself was given."""


def _fields(node: "Node", scope: str | None) -> Iterator[tuple[str, str]]:
    """Yield the fields that a node looks at in the document (scope "") and in its record ("record"); None: in neither."""
    if scope is None:
        return
    if node["type"] in ("field", "current"):
        yield scope, node.get("value", "@")
    for child in node.get("children", ()):
        if isinstance(child, dict) and child["type"] != "expref":
            yield from _fields(child, scope)
            if node["type"] in _STEPS and child["type"] not in ("identity", "current"):
                scope = "record" if (scope, child.get("value")) == ("", "record") else None
                if scope is None:
                    return


def _mistyped(tree: "Node", known: Collection[str]) -> Iterator[str]:
    """Find functions that do not exist, a first field that is not known, and an expression where a value is meant."""
    from jmespath.functions import Functions

    first = tree
    while first["type"] in _FROM_THEIR_FIRST:
        first = first["children"][0]
    if first["type"] == "field" and first["value"] not in known:
        yield f"begins at {first['value']}, and an answer has no such field{like(first['value'], known)}"
    waiting, taken = [tree], set[int]()
    while waiting:
        node = waiting.pop()
        children = [child for child in node.get("children", ()) if isinstance(child, dict)]
        if node["type"] == "function_expression":
            if node["value"] not in Functions.FUNCTION_TABLE:
                yield f"calls {node['value']}(), and JMESPath has no such function"
                continue
            takes = Functions.FUNCTION_TABLE[node["value"]]["signature"]
            taken |= {id(one) for one, given in zip(children, takes, strict=False) if "expref" in given["types"]}
        if node["type"] == "expref" and id(node) not in taken:
            yield "has an expression (&) where a value is meant: only functions such as sort_by take one"
        waiting += children
