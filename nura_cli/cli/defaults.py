"""What was not typed is taken as it stands in the code.

Typer has pydantic convert each value of a command line, the defaults too, which are of the right type already (a test looks at all of
them). To load pydantic takes a third of the time of a command that reads the state file alone.
"""

from collections.abc import Callable
from functools import partial
from typing import Any


class TakesDefaults:
    """A command, or a group of them, of which only what was typed is converted."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, ``--help`` among them."""
        found: list[Any] = super().get_params(ctx)  # type: ignore[misc]  # that of Typer's class, beside this one
        for one in found:
            if hasattr(one, "process_value"):  # else this Typer converts elsewhere, and converts all
                one.process_value = partial(_process, type(one).process_value, one)
        return found


def _process(process: Callable[..., Any], parameter: Any, ctx: Any, value: Any) -> Any:
    """Return the value of a parameter: a default as it is, and anything else as ``process`` makes it."""
    source = ctx.get_parameter_source(parameter.name)
    if source is None or source.name != "DEFAULT" or parameter.required or parameter.default != value:
        return process(parameter, ctx, value)
    return value if parameter.callback is None else parameter.callback(ctx, parameter, value)
