"""YAML as version 1.2 reads it, on PyYAML: few kinds of scalars, no duplicate keys, and the line of everything."""

import re
from typing import Any

import yaml

from nura_cli.errors import Problem

_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MOST_NODES = 100_000


class _Loader(_BASE):  # type: ignore[misc]  # PyYAML's C loader has no type
    """Only the scalars of YAML 1.2's core schema that a configuration needs."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML reads it from the class


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|false)$", "tf"),
    ("null", r"^(?:~|null|)$", "~n\0"),
    ("int", r"^-?(?:0|[1-9][0-9]*)$", "-0123456789"),
    ("float", r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$", "-0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first) + ([""] if _tag == "null" else []))


def load(text: str) -> tuple[Any, dict[tuple[Any, ...], int], list[Problem]]:
    """Return (document, line of each path, problems). With problems, the document is None."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        problems: list[Problem] = []
        marks: dict[tuple[Any, ...], int] = {}
        if node is not None:
            _walk(node, (), marks, problems)
        return (None if problems or node is None else loader.construct_document(node)), marks, problems
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        why = " ".join(part for part in (error.context, error.problem) if part)
        return None, {}, [Problem("YAML", mark.line + 1 if mark else None, why)]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return None, {}, [Problem("YAML", None, str(error).splitlines()[0])]
    finally:
        loader.dispose()


def _walk(node: Any, where: tuple[Any, ...], marks: dict[tuple[Any, ...], int], problems: list[Problem]) -> None:
    """Note the line of every path, and what is there twice; bounded, so that aliases cannot multiply without end."""
    marks.setdefault(where, node.start_mark.line + 1)
    if len(marks) > _MOST_NODES:
        raise ValueError("too many nodes: aliases that multiply?")
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                problems.append(Problem(_dotted(where), key.start_mark.line + 1, "a name must be plain text"))
                continue
            here = (*where, key.value)
            if key.value in seen:
                problems.append(Problem(_dotted(here), key.start_mark.line + 1, "stands here twice"))
            seen.add(key.value)
            marks[here] = key.start_mark.line + 1
            _walk(value, here, marks, problems)
    elif isinstance(node, yaml.SequenceNode):
        for n, item in enumerate(node.value):
            _walk(item, (*where, n), marks, problems)


def _dotted(where: tuple[Any, ...]) -> str:
    return ".".join(map(str, where)) or "the file"
