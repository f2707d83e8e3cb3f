"""The state file: the only place that speaks SQL to it. One module for each kind of row; no business rules."""

from nura_cli.state.file import Connection, State

__all__ = ["Connection", "State"]
