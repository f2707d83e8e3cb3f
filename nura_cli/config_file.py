"""The configuration file as a file: where it is, and its YAML as version 1.2 reads it.

PyYAML parses; here are the few kinds of scalars that count, no duplicate keys, and the line of everything. What the
options mean is :mod:`nura_cli.config`'s; a command that needs the state file alone stops here.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from nura_cli.errors import ConfigError, Problem

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
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first) + ([""] if _tag == "null" else [])
    )


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


def find(explicit: Path | None, env: Mapping[str, str]) -> Path:
    """Return the configuration file: ``--config``, else ``NURA_CONFIG``, else the first of the usual places.

    Raises:
        ConfigError: there is none; lists where it was looked for.
    """
    if explicit is not None or env.get("NURA_CONFIG"):
        path = (explicit or Path(env["NURA_CONFIG"])).expanduser()
        if not path.is_file():
            source = "--config" if explicit is not None else "NURA_CONFIG"
            raise ConfigError(f"{path}: no such file (from {source})", path=path)
        return path
    home = Path(env.get("XDG_CONFIG_HOME") or Path(env.get("HOME", "/")) / ".config")
    places = [Path("nura.yaml"), home / "nura" / "config.yaml", Path("/etc/nura/config.yaml")]
    for path in places:
        if path.is_file():
            return path
    raise ConfigError(
        "no configuration found; looked for " + ", ".join(str(place) for place in places),
        hint="name it with --config or NURA_CONFIG",
    )


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[tuple[Any, ...], int]]:
    """Read a configuration file; return its document and the line of each path in it.

    Raises:
        ConfigError: it cannot be read, is no YAML, no mapping, or names an option twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise ConfigError(f"{path}: cannot be read: {why}", path=path) from error
    document, marks, problems = load(text)
    if problems:
        raise problems_in(path, problems)
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: is empty, or not a mapping of options", path=path, hint="see config.example.yaml")
    return document, marks


def state_path(path: Path, document: Mapping[str, Any]) -> Path:
    """Return the state file that a configuration document names, relative to the configuration's own folder."""
    return beside(path, str(document.get("state") or "nura.db"))


def beside(path: Path, other: Path | str) -> Path:
    """Return a path of the configuration made absolute: relative to the file's own folder, never to the working one."""
    return path.absolute().parent / Path(other).expanduser()


def problems_in(path: Path, problems: Iterable[Problem]) -> ConfigError:
    """Return the error that lists everything wrong with a file, each with its line and path."""
    listed = sorted(problems, key=lambda problem: problem.line or 0)
    lines = [f"{path}:{found.line or 1}: {found.where}: {found.message}" for found in listed]
    return ConfigError("\n".join(lines), path=path, problems=listed)
