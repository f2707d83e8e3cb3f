"""The command line: thin. Each command parses, opens, calls one stage, prints, and gives an exit code."""

import sys

import typer

from nura_cli.cli import demo, dispatch, enqueue, poll, reconcile, resolve, results, sandbox, status
from nura_cli.cli.session import Stopped, remember_common, stop_politely

app = typer.Typer(
    name="nura",
    help="A spool for LLM work: records in, provider batches out, answers back. Cron chains the stages.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback()(remember_common)
for module in (enqueue, dispatch, poll, reconcile, status, results, resolve, demo, sandbox):
    app.command(module.__name__.rpartition(".")[2])(module.command)


def main() -> None:
    """Run the command line; the exit code is the last word."""
    stop_politely()
    try:
        app()
    except Stopped as stopped:
        sys.exit(stopped.exit_code)


__all__ = ["app", "main"]
