"""What of each answer is wanted: ``--fields``, a list of JMESPath expressions over a line of nura results.

``key,text,json.section`` names each by its own text; ``{section: json.section, who: key}`` gives names, as JMESPath does.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, get_type_hints, is_typeddict

from nura_cli import contract
from nura_cli.delivery.expressions import Pick, compiled, plain_document, reads
from nura_cli.errors import UsageError

FIELDS = tuple(get_type_hints(contract.Result))
_OPENING, _CLOSING = {"lparen", "lbrace", "lbracket", "filter"}, {"rparen", "rbrace", "rbracket"}
_BULKY = {"response"}
"""Fields that are left out where nobody says what is wanted: the vendor's whole response says all once more."""


class Column(NamedTuple):
    """One value of each answer: its name, what finds it, and the fields that it looks at (``@``: all)."""

    name: str
    pick: Pick
    roots: frozenset[str]


def columns(text: str) -> list[Column]:
    """Return the columns that ``--fields`` names.

    Raises:
        UsageError: it is no list of JMESPath expressions, begins at a field that no answer has, or names something twice.
    """
    found = [_column(name, expression) for name, expression in _named(text.strip())]
    names = [column.name for column in found]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--fields: {name} is there twice", hint="give names: {NAME: EXPRESSION, …}")
    return found


def flat() -> list[Column]:
    """Return a column for each field of an answer, and for each of those that have fields of their own; not the response."""
    names = []
    for field in contract.fields(contract.Result):
        inner = [kind for kind in (field.type, *getattr(field.type, "__args__", ())) if is_typeddict(kind)]
        below = [f"{field.name}.{one.name}" for kind in inner for one in contract.fields(kind)]
        names += [] if field.name in _BULKY else below or [field.name]
    return [_column(name, name) for name in names]


def picked(document: Mapping[str, Any], wanted: Sequence[Column]) -> tuple[list[Any], list[str]]:
    """Return the values of an answer's columns, and what went wrong: such a value is None."""
    values, faults = [], []
    looked_at = {name for column in wanted for name in column.roots}
    seen: dict[str, Any] = {}
    for name in document if "@" in looked_at else looked_at:
        try:
            seen |= plain_document({name: document.get(name)})
        except ValueError as error:
            faults.append(f"{name}: {error}")
    for column in wanted:
        try:
            values.append(column.pick(seen))
        except ValueError as error:
            values.append(None)
            faults.append(f"{column.name}: {error}")
    return values, faults


def _column(name: str, expression: str) -> Column:
    if not expression:
        raise UsageError("--fields: an expression is missing", hint="such as key,text,json.section")
    try:
        return Column(name, compiled(expression, FIELDS), reads(expression).roots)
    except ValueError as error:
        raise UsageError(f"--fields: {expression!r} {error}", hint="nura help fields lists them") from None


def _named(text: str) -> Iterator[tuple[str, str]]:
    """Yield each expression of a list with its name."""
    if not text.startswith("{"):
        yield from ((part, part) for part in _split(text, "comma"))
        return
    [whole, *more] = _split(text, "comma")
    if more or not whole.endswith("}"):
        raise UsageError(f"--fields: {text!r}: names stand in one pair of braces", hint="{NAME: EXPRESSION, …}")
    for part in _split(whole[1:-1], "comma"):
        name, *expression = _split(part, "colon")
        if len(expression) != 1:
            raise UsageError(f"--fields: {part!r} is no NAME: EXPRESSION")
        yield name.strip('"'), expression[0]


def _split(text: str, sign: str) -> list[str]:
    """Split text where a token stands outside of all brackets, as JMESPath's own lexer reads it. Raises UsageError."""
    from jmespath.exceptions import LexerError
    from jmespath.lexer import Lexer

    depth, parts, begin = 0, [], 0
    try:
        for token in Lexer().tokenize(text) if text else ():
            depth += (token["type"] in _OPENING) - (token["type"] in _CLOSING)
            if token["type"] == sign and depth == 0:
                parts.append(text[begin : token["start"]].strip())
                begin = token["end"]
    except LexerError as error:
        why = f"cannot be read at its column {error.lexer_position + 1}: {error.message}"
        raise UsageError(f"--fields: {text!r} {why}") from None
    return [*parts, text[begin:].strip()]
