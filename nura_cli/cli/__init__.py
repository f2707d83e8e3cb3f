"""The command line: thin. Each command parses, opens, calls one stage, prints, and gives an exit code."""

import importlib
import sys
from collections.abc import Sequence

import typer

from nura_cli.cli.completion import complete, typed
from nura_cli.cli.helptext import Command, Group
from nura_cli.cli.session import Stopped, remember_common, stop_politely

PANELS = {
    "Every day": ("enqueue", "dispatch", "poll", "reconcile", "run", "status", "results"),
    "Something is wrong": ("show", "hold", "release", "retry", "cancel", "redeliver", "resolve"),
    "Setting up": ("demo", "sandbox", "init", "check", "try"),
    "Keeping": ("log", "cost", "purge", "backup", "help"),
}
"""The commands, each a module of its name, as ``nura --help`` lists them."""
COMMANDS = tuple(name for names in PANELS.values() for name in names)


def build(arguments: Sequence[str] = ()) -> typer.Typer:
    """Return the command line; with ``arguments`` that name a command, with that one alone, so that no other is loaded."""
    app = typer.Typer(
        name="nura",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        cls=Group,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(remember_common)
    named = next((argument for argument in arguments if argument in COMMANDS), None)
    for panel, names in PANELS.items():
        for name in names:
            if named in (None, name):
                module = importlib.import_module(f"nura_cli.cli.{name}")
                app.command(name, cls=Command, rich_help_panel=panel)(complete(module.command))
    return app


def main() -> None:
    """Run the command line; the exit code is the last word."""
    stop_politely()
    try:
        build(sys.argv[1:] or typed())()
    except Stopped as stopped:
        sys.exit(stopped.exit_code)


__all__ = ["COMMANDS", "PANELS", "build", "main"]
