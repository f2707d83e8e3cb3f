"""The state file: the only place that speaks SQL to it. One module for each kind of row; no business rules."""

from nura_cli.state.connection import Connection
from nura_cli.state.file import State

__all__ = ["Connection", "State"]
