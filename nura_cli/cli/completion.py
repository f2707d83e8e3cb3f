"""What a shell completes beyond commands and options: workloads, providers, batches.

Nobody waits for it, and it says nothing: it reads the names in the configuration and the ids in the state file, whatever else may
be wrong with them, and where it cannot there is nothing to complete.
"""

import inspect
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import typer

from nura_cli import config_file
from nura_cli.errors import NuraError


def complete(command: Callable[..., None]) -> Callable[..., None]:
    """Have a shell complete the values of a command's parameters; which ones, their names tell."""
    for name, parameter in inspect.signature(command).parameters.items():
        for info in getattr(parameter.annotation, "__metadata__", ()):
            info.autocompletion = info.autocompletion or _OF.get(name)
    return command


def typed() -> list[str]:
    """Return the words that a shell asks about, so that no other command than the one among them is loaded; else none."""
    return (os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or "").split()[1:]


def workloads(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the configured workloads that begin so."""
    return _beginning(_names(ctx, "workloads"), incomplete)


def providers(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the configured providers that begin so."""
    return _beginning(_names(ctx, "providers"), incomplete)


def batches(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the newest batches whose ids begin so, each with what it is."""
    from nura_cli.state import glance

    found = _document(ctx)
    state = _option(ctx, "state") or (config_file.state_path(*found) if found else None)
    rows = glance.batches(state) if state else []
    return [(str(one.id), f"{one.workload}, {one.status}") for one in rows if str(one.id).startswith(incomplete)]


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _names(ctx: typer.Context, section: str) -> list[str]:
    found = _document(ctx)
    listed = found[1].get(section) if found else None
    return [str(name) for name in listed] if isinstance(listed, dict) else []


def _document(ctx: typer.Context) -> tuple[Path, dict[str, Any]] | None:
    """Return the configuration file and its document; None where there is none, or it cannot be read."""
    try:
        path = config_file.find(_option(ctx, "config"), os.environ)
        return path, config_file.read_yaml(path)[0]
    except NuraError:
        return None


def _option(ctx: typer.Context, name: str) -> Path | None:
    """Return one of the common options, which may stand before the command, too."""
    given = next((one.params[name] for one in (ctx, ctx.parent) if one is not None and one.params.get(name)), None)
    return Path(given) if given else None


_OF: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("workload", "workloads", "only"), workloads),
    "provider": providers,
    "batch": batches,
}
"""What completes the values of parameters of these names."""
