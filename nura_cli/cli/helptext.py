"""How ``--help`` looks: plain sections that fit the terminal, each command with examples and the exit codes that it can have.

A command's module has ``EXAMPLES``, each what to type and what that does, and ``EXIT_CODES``, those that it can end with besides
what every command can.
"""

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from nura_cli import errors
from nura_cli.cli.defaults import TakesDefaults

EVERY = (errors.EX_OK, errors.EX_UNEXPECTED, errors.EX_USAGE, errors.EX_INTERRUPTED, errors.EX_TERMINATED)
"""The exit codes that every command can have."""
_VALUES = {
    "workloads": "WORKLOAD",
    "only": "WORKLOAD",
    "files": "FILE",
    "key_prefix": "PREFIX",
    "rejects": "FILE",
    "limit": "N",
    "config": "FILE",
    "state": "FILE",
    "keys_from": "FILE",
    "path": "FILE",
    "statuses": "STATE",
    "keys": "KEY",
    "since": "TIME",
    "until": "TIME",
    "wait": "LENGTH",
    "delay": "LENGTH",
    "provider": "NAME",
    "adopt": "REMOTE_ID",
    "fault": "JSON",
    "after": "SEQ",
    "why": "WORDS",
}
"""What a parameter's value is called, by the parameter's name; else by that name in capitals."""
_EXAMPLES = (
    ("nura demo", "see the whole pipeline work, in seconds"),
    ("nura dispatch --help", "what a command does, with examples and its exit codes"),
    ("nura help", "fields, options, exit codes, states and more: what there is to read about"),
)
_NARROWEST, _WIDEST = 40, 100
_LEFT = 26
"""Columns of what stands left of a description, at most."""

Row = tuple[str, str]
Section = tuple[str, Sequence[Row]]


class Command(TakesDefaults, TyperCommand):
    """A command, whose help has examples and exit codes."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write all of it."""
        module = sys.modules[str(self.callback.__module__)]
        codes = {code: errors.EXIT_CODES[code] for code in sorted({*EVERY, *module.EXIT_CODES})}
        usage = f"{ctx.command_path} [OPTIONS]{_arguments(self.get_params(ctx))}"
        ends = [(str(code), words) for code, words in codes.items()]
        formatter.write(page(usage, self.help, [*_parameters(self.get_params(ctx)), ("Exit codes", ends)]))
        formatter.write("\n".join(["", _heading("Examples"), *_examples(module.EXAMPLES)]) + "\n")


class Group(TakesDefaults, TyperGroup):
    """The whole command line: its commands by panel."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write all of it."""
        panels: dict[str, list[Row]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            panels.setdefault(command.rich_help_panel, []).append((name, summary(command)))
        sections = [*panels.items(), *_parameters(self.get_params(ctx))]
        formatter.write(page(f"{ctx.command_path} [OPTIONS] COMMAND ...", self.help, sections))
        formatter.write("\n".join(["", _heading("Examples"), *_examples(_EXAMPLES)]) + "\n")


def summary(command: Any) -> str:
    """Return what a command does, on one line."""
    return " ".join((command.help or "").split("\n\n")[0].split())


def _examples(given: Iterable[Row]) -> Iterator[str]:
    for typed, does in given:
        yield f"  $ {typed}"
        yield textwrap.fill(does, _width(), initial_indent=" " * 6, subsequent_indent=" " * 6)


def _width() -> int:
    """Return how wide a line may be: as wide as the terminal is, and no wider than is easily read."""
    return max(_NARROWEST, min(shutil.get_terminal_size().columns, _WIDEST))


def page(usage: str, text: str | None, sections: Iterable[Section]) -> str:
    """Return a page: how to use it, what it does, and each section under its title, as wide as the terminal is."""
    width = _width()
    lines = [f"Usage: {usage}"]
    for paragraph in (text or "").split("\n\n"):
        lines += ["", *textwrap.wrap(" ".join(paragraph.split()), width)]
    for title, rows in sections:
        lines += ["", _heading(title), *_table(rows, width)]
    return "\n".join(lines) + "\n"


def _heading(title: str) -> str:
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return typer.style(f"{title}:", bold=True) if coloured else f"{title}:"


def _table(rows: Sequence[Row], width: int) -> Iterator[str]:
    """Yield rows in two columns; what is too long for the left one has its description below."""
    left = max((len(one) for one, _ in rows if len(one) <= _LEFT), default=0)
    left = left or _LEFT // 4  # nothing but long ones
    for name, text in rows:
        lines = textwrap.wrap(text, width - left - 4, break_long_words=False, break_on_hyphens=False) or [""]
        if len(name) > left:
            lines.insert(0, "")
        for n, line in enumerate(lines):
            head = f"  {name if n == 0 else '':<{left}}  {line}" if n or len(name) <= left else f"  {name}"
            yield head.rstrip()


def _parameters(parameters: Iterable[Any]) -> Iterator[Section]:
    """Yield a section for each panel of parameters, arguments first and what all commands share last."""
    panels: dict[str, list[Row]] = {}
    for one in parameters:
        if getattr(one, "hidden", False):
            continue
        title = getattr(one, "rich_help_panel", None) or (
            "Arguments" if one.param_type_name == "argument" else "Options"
        )
        panels.setdefault("Common options" if one.name == "help" else title, []).append((_name(one), _text(one)))
    yield from sorted(panels.items(), key=lambda panel: (panel[0] == "Common options", panel[0] != "Arguments"))


def _arguments(parameters: Iterable[Any]) -> str:
    """Return a command's arguments as they follow its options."""
    given = [one for one in parameters if one.param_type_name == "argument"]
    return "".join(f" {_name(one)}" if one.required else f" [{_name(one)}]" for one in given)


def _name(one: Any) -> str:
    """Return a parameter as it is typed: ``-n, --dry-run``, ``--since TIME``, ``[WORKLOAD]...``."""
    value = one.metavar or _VALUES.get(one.name, one.name.upper())
    if one.param_type_name == "argument":
        return value if one.nargs == 1 else f"{value}..."
    names = ", ".join(sorted(one.opts, key=len))
    return names if one.is_flag or one.count else f"{names} {value}"


def _text(one: Any) -> str:
    """Return a parameter's description, and its default where it has one that is worth telling."""
    shown = one.show_default if isinstance(one.show_default, str) else one.default if one.show_default else None
    said = shown is not None and shown is not False and shown != ""
    return f"{one.help or ''} [default: {shown}]" if said else one.help or ""
