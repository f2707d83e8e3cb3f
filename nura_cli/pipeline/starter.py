"""The text of a first configuration, and of the crontab that goes with it. Pure: what is known goes in, text comes out.

What a comment says of an option is the option's own description.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nura_cli.config import Config, WorkloadConfig, WriteBackConfig
from nura_cli.dialects import vendors
from nura_cli.errors import ConfigError
from nura_cli.pipeline.shape import Shape, Text
from nura_cli.pipeline.templates import Prompt

MODEL = "gpt-4.1-mini"
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_WORDS = {"true", "false", "null"}


class Rows(NamedTuple):
    """Where the records of a table come from and where answers go.

    Attributes:
        variable: the environment variable that holds the database's URL.
        table, key: the table's name, and the columns that find a row.
        query: what gives the records.
        answer: the column for answers.
        add: the statement that would make it; None where it is there.
    """

    variable: str
    table: str
    key: list[str]
    query: str
    answer: str
    add: str | None


class Start(NamedTuple):
    """What a first configuration is made of.

    Attributes:
        name: the workload's.
        shape: what its records are like.
        rows: its table, if there is one.
        ready: the vendor whose ready lines it takes; None where it renders a prompt.
        state: the state file.
    """

    name: str
    shape: Shape
    rows: Rows | None = None
    ready: str | None = None
    state: str = "nura.db"


def configuration(start: Start) -> str:
    """Return a configuration on the sandbox, with comments."""
    return "\n".join(_configuration(start)) + "\n"


def _configuration(start: Start) -> Iterator[str]:
    yield "# nura's configuration, as nura init has written it: a beginning. nura help config has every option; nura check looks at it."
    yield ""
    yield f"# {_about(Config, 'state')}"
    yield f"state: {_scalar(start.state)}"
    yield ""
    yield f"# {_about(Config, 'providers')}"
    yield "providers:"
    protocol = f", protocol: {start.ready}" if start.ready else ""
    yield f"  sandbox: {{kind: sandbox{protocol}}}  # built in: no key, no network, no bill"
    yield "  # To send for real, take away the # of one, put its key into that file (mode 0600), and name it below, with a model of its:"
    yield from (f"  # {name}: {{kind: {name}, api_key_file: {name}.key}}" for name in vendors.names())
    yield ""
    if start.rows is not None:
        yield f"# {_about(Config, 'databases')}. cron has not the environment of a shell: there, url_file: names a file (mode 0600)."
        yield "databases:"
        yield f"  app: {{url_env: {start.rows.variable}}}"
        yield ""
    yield f"# {_about(Config, 'workloads')}"
    yield "workloads:"
    yield f"  {_scalar(start.name)}:"
    yield from (f"    {line}".rstrip() for line in _workload(start))


def _workload(start: Start) -> Iterator[str]:
    shape = start.shape
    yield f"provider: sandbox  # {_about(WorkloadConfig, 'provider')}"
    if start.ready:
        yield "# Without a prompt it takes ready lines of its provider's kind, and sends each as it is."
        return
    yield f"model: {MODEL}  # {_about(WorkloadConfig, 'model')}"
    yield f"# {_about(WorkloadConfig, 'key')}"
    yield f"key: {_list(shape.key) if isinstance(shape.key, list) else _scalar(shape.key)}"
    yield f"# {_about(WorkloadConfig, 'prompt')}"
    yield from _prompt(shape)
    yield f"# params: {{max_completion_tokens: 500}}  # {_about(WorkloadConfig, 'params')}"
    if shape.keep:
        yield f"keep: {_list(shape.keep)}  # {_about(WorkloadConfig, 'keep')}"
    if start.rows is not None:
        yield from _rows(start.rows, shape)


def _rows(rows: Rows, shape: Shape) -> Iterator[str]:
    yield f"# {_about(WorkloadConfig, 'source')}"
    yield f"source: {{database: app, query: {_quoted(rows.query)}}}"
    yield f"# {_about(WorkloadConfig, 'write_back')}"
    if rows.add is not None:
        yield f"# The table has no column for answers. Make one, and take away the # of what follows: {rows.add}"
    yield from (line if rows.add is None else f"# {line}" for line in _write_back(rows, shape))


def _write_back(rows: Rows, shape: Shape) -> Iterator[str]:
    finds = ["key"] if len(rows.key) == 1 else [f'"key[{n}]"' for n in range(len(rows.key))]
    where = ", ".join(f"{_scalar(column)}: {value}" for column, value in zip(rows.key, finds, strict=True))
    yield "write_back:"
    yield "  database: app"
    yield f"  table: {_scalar(rows.table)}"
    yield f"  where: {{{where}}}  # {_about(WriteBackConfig, 'where')}"
    yield f"  set: {{{_scalar(rows.answer)}: text}}  # {_about(WriteBackConfig, 'set_')}"
    guards = [name for name in shape.keep if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)]
    if guards:
        yield f"  only_if: {{{guards[0]}: record.{guards[0]}}}  # {_about(WriteBackConfig, 'only_if')}"


def _prompt(shape: Shape) -> Iterator[str]:
    """Yield the option ``prompt``, with those texts that a template can name."""
    texts = [text for text in shape.texts if not shape.record or _is_name(text.path[0]) or text.path[0] == _WHOLE]
    said = [_said(text, alone=len(texts) == 1) for text in texts] or ["{{ record | tojson }}"]
    lines = ["Summarise this in one sentence:", *(line for one in said for line in ("", one))]
    if all(line.isprintable() for line in lines):
        yield "prompt: |"
        yield from (f"  {line}" for line in lines)
    else:
        yield f"prompt: {_quoted(chr(10).join(lines))}"


def _said(text: Text, *, alone: bool) -> str:
    """Return what a template says of one text."""
    place = expression(text.path)
    shown = f'{{{{ {place} or "" }}}}' if text.optional else f"{{{{ {place} }}}}"
    label = "" if alone else f"{_label(text.path[-1])}: "
    if len(text.path) > 1 and text.optional:
        parents = " and ".join(expression(text.path[:n]) for n in range(1, len(text.path)))
        return f"{label}{{% if {parents} %}}{shown}{{% endif %}}"
    return f"{label}{shown}"


def _label(name: str) -> str:
    """Return a field's name as the prompt has it: without what a template would take for its own."""
    return re.sub(r"[{}%#]", " ", name).strip() or "text"


_WHOLE = "record"
"""What a template calls the whole record, or the field of that name where there is one."""


def expression(path: Sequence[str]) -> str:
    """Return what a template says to have what stands at a path of a record."""
    first, *rest = path
    found = first if _is_name(first) or first == _WHOLE else f"{_WHOLE}[{_in_template(first)}]"
    return found + "".join(map(_inner, rest))


def _inner(name: str) -> str:
    """Return what follows a mapping for a member of it; a method of mappings is no member."""
    return f".{name}" if _is_name(name) and not hasattr({}, name) else f"[{_in_template(name)}]"


def _is_name(name: str) -> bool:
    """Whether a template that says this name asks the record for it, and not Jinja for something of its own."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        return False
    try:
        return Prompt(f"{{{{ {name} }}}}", "").names == {name}
    except ConfigError:
        return False


def _in_template(name: str) -> str:
    return json.dumps(name)


def _about(model: type[Config] | type[WorkloadConfig] | type[WriteBackConfig], option: str) -> str:
    return str(model.model_fields[option].description)


def _list(names: Sequence[str]) -> str:
    return f"[{', '.join(map(_scalar, names))}]"


def _scalar(text: str) -> str:
    """Return a text as YAML has it, without quotes where it needs none."""
    return text if _PLAIN.fullmatch(text) and text not in _WORDS else _quoted(text)


def _quoted(text: str) -> str:
    """Return a text in double quotes, as YAML 1.2 reads them."""
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    return f"\\U{ord(character):08x}"


def crontab(program: str, config: str) -> str:
    """Return the lines of a crontab that do all stages.

    Args:
        program, config: absolute paths of nura and of the configuration.
    """
    return f"""\
# nura under cron. Add these lines to yours: nura help cron has more.
# On success nothing is said; what fails is said once, and again every 6 h while it lasts.
NURA={program}
NURA_CONFIG={config}
# Every 15 minutes: bring home what has ended, write it back, read the sources, send what waits.
*/15 * * * *  "$NURA" run
"""
