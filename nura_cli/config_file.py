"""The configuration file as a file: where it is, and its YAML as version 1.2 reads it.

PyYAML parses; here are the few kinds of scalars that count, no duplicate keys, and the line of everything. What the
options mean is :mod:`nura_cli.config`'s; a command that needs the state file alone stops here.
"""

import hashlib
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from nura_cli import __version__
from nura_cli.errors import ConfigError, ConfigProblem

_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MOST_NODES = 100_000
_DEEPEST = 100
_TAG = "tag:yaml.org,2002:"
_TEXT = _TAG + "str"

Marks = dict[tuple[Any, ...], int]
"""The line (1-based) of each path in a document."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class _Loader(_BASE):  # type: ignore[misc]  # PyYAML's C loader has no type
    """Only the scalars of YAML 1.2's core schema that a configuration needs."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML reads it from the class


for _kind, _pattern, _first in (
    ("bool", r"^(?:true|false)$", "tf"),
    ("null", r"^(?:~|null|)$", "~n\0"),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(_pattern), list(_first) + ([""] if _kind == "null" else []))


def load(text: str) -> tuple[Any, Marks, list[ConfigProblem]]:
    """Return (document, line of each path, problems). With problems, the document is None."""
    problems: list[ConfigProblem] = []
    marks: Marks = {}
    try:
        _check_depth(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None, marks, problems
            _walk(loader, node, (), marks, problems)
            return (None if problems else loader.construct_document(node)), marks, problems
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        marked = [mark.line for mark in (error.problem_mark, error.context_mark) if mark]
        why = " ".join(part for part in (error.context, error.problem) if part)
        lines = text.splitlines()
        hint = next(filter(None, (_unquoted(lines[n]) for n in marked if n < len(lines))), "")
        return None, {}, [ConfigProblem("YAML", marked[0] + 1 if marked else None, why + hint)]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return None, {}, [ConfigProblem("YAML", None, str(error).splitlines()[0])]


_QUOTES = (
    """: a template that begins with braces stands in quotes, as in "{{ title }}", or on lines of its own under |"""
)
_TEMPLATE = re.compile(r"""^\s*[\w-]+:\s+[^"'|>\s#].*(\{\{|\{%|\{#)|^\s*[\w-]+:\s+\{[{%#]""")


def _unquoted(line: str) -> str:
    """Return what to do about a template that is the value on a line, without quotes; else nothing."""
    if not _TEMPLATE.search(line):
        return ""
    return """; a template stands in quotes, as in "{{ title }}", or on lines of its own under |"""


def _check_depth(text: str) -> None:
    """Raise MarkedYAMLError for what is nested too deeply: libyaml's composer would run out of stack, and end the process."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                mark: Any = event.start_mark
                raise yaml.MarkedYAMLError(None, None, f"nested more than {_DEEPEST} deep", mark)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _walk(loader: Any, node: Any, where: tuple[Any, ...], marks: Marks, problems: list[ConfigProblem]) -> None:
    """Note the line of every path, and what cannot stand there; bounded, so that aliases cannot multiply without end."""
    marks.setdefault(where, node.start_mark.line + 1)
    if len(marks) > _MOST_NODES or len(where) > _DEEPEST:
        raise ValueError("too much: aliases that multiply, or hold themselves?")
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                template = isinstance(key, yaml.MappingNode) and key.flow_style and node.flow_style
                what = f"is a mapping here{_QUOTES}" if template else "a name must be plain text"
                problems.append(ConfigProblem(dotted(where), line, what))
                continue
            key.tag = _TEXT  # names are text, as in JSON: 1, true and null are no exception
            here = (*where, key.value)
            if key.value in seen:
                problems.append(ConfigProblem(dotted(here), line, "stands here twice"))
            seen.add(key.value)
            marks[here] = line
            _walk(loader, value, here, marks, problems)
    elif isinstance(node, yaml.SequenceNode):
        for n, item in enumerate(node.value):
            _walk(loader, item, (*where, n), marks, problems)
    why = _unfit(loader, node)
    if why:
        problems.append(ConfigProblem(dotted(where), node.start_mark.line + 1, why))


def _unfit(loader: Any, node: Any) -> str | None:
    """Say why a value cannot be taken: a tag that makes something else of it than it looks like, a number without end."""
    plain = isinstance(node, yaml.ScalarNode) and not node.style
    looks = loader.resolve(type(node), getattr(node, "value", None) if plain else None, (plain, not plain))
    if node.tag not in (looks, _TEXT):
        return f"{node.tag.replace(_TAG, '!!')} is not understood here; leave the tag out"
    if node.tag == _TAG + "float" and math.isinf(float(node.value)):
        return "this number is too large"
    if node.tag == _TAG + "int" and len(node.value) > 19:
        return "this number is too large; as text it stands in quotes"
    return None


def duration(value: Any) -> Any:
    """Return the seconds of ``90``, ``30s``, ``15m``, ``1h30m`` or ``7d``.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = str(value).strip()
    if not re.fullmatch(r"[0-9]{1,12}|([0-9]{1,9}[smhd])+", text):
        raise ValueError("a length of time such as 30s, 15m, 1h30m or 7d")
    return sum(int(n) * _UNITS[unit or "s"] for n, unit in re.findall(r"([0-9]+)([smhd]?)", text))


def dotted(where: Iterable[Any]) -> str:
    """Return a path in a document as a person writes it."""
    parts = [str(part) for part in where]
    return ".".join(part if part.isprintable() else repr(part) for part in parts) or "the file"


def find(explicit: Path | None, env: Mapping[str, str]) -> Path:
    """Return the configuration file: ``--config``, else ``NURA_CONFIG``, else the first of the usual places.

    Raises:
        ConfigError: there is none; lists where it was looked for.
    """
    if explicit is not None or env.get("NURA_CONFIG"):
        path = _expanded(explicit or env["NURA_CONFIG"])
        try:
            path.stat()
        except OSError as error:
            source = "--config" if explicit is not None else "NURA_CONFIG"
            raise ConfigError(f"{path}: {error.strerror} (from {source})", path=path) from error
        return path
    home = Path(env.get("XDG_CONFIG_HOME") or Path(env.get("HOME", "/")) / ".config")
    places = [Path("nura.yaml"), home / "nura" / "config.yaml", Path("/etc/nura/config.yaml")]
    for path in places:
        if os.access(path, os.F_OK) and path.is_file():  # a folder that may not be entered holds nothing for us
            return path
    raise ConfigError(
        "no configuration found; looked for " + ", ".join(str(place) for place in places),
        hint="name it with --config or NURA_CONFIG",
    )


def read_yaml(path: Path) -> tuple[dict[str, Any], Marks]:
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


def digest_of(path: Path) -> str | None:
    """Return what tells one content of a configuration file from another, and one nura that reads it; None: it cannot be read."""
    try:
        return f"{__version__}:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    except OSError:
        return None


def state_line(path: Path) -> Path | None:
    """Return the state file of a configuration that is no YAML: what its line ``state:`` names, or else stands by default beside
    it; None where that cannot be told.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError:
        return None
    found = re.search(r"""^state:[ \t]+(["']?)([^\s#"'].*?)\1[ \t]*(#.*)?$""", text, re.MULTILINE)
    return beside(path, found[2] if found else "nura.db")


def state_path(path: Path, document: Mapping[str, Any]) -> Path:
    """Return the state file that a configuration document names, relative to the configuration's own folder."""
    return beside(path, str(document.get("state") or "nura.db"))


def beside(path: Path, other: Path | str) -> Path:
    """Return a path of the configuration made absolute: relative to the file's own folder, never to the working one."""
    return path.absolute().parent / _expanded(other)


def _expanded(path: Path | str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # the ~ of an unknown user; the path will be found absent
        return Path(path)


def problems_in(path: Path, problems: Iterable[ConfigProblem], workload: str | None = None) -> ConfigError:
    """Return the error that lists everything wrong with a file, or with one workload, each with its line and path."""
    listed = sorted(problems, key=lambda problem: problem.line or 0)
    lines = [f"{path}:{found.line or 1}: {found.where}: {found.message}" for found in listed]
    return ConfigError("\n".join(lines), path=path, problems=listed, workload=workload)
