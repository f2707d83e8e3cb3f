"""The connection to the state file, which knows its time: one moment for all that a transaction writes."""

import hashlib
import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nura_cli.clock import Clock, now

if TYPE_CHECKING:
    from nura_cli.state.packed import Dictionary

LONGEST_BACKOFF = 6 * 3600
"""Seconds: nothing is put off for longer. What is due later than that was put off by a clock that has been set back since."""


class Connection(sqlite3.Connection):
    """What speaks to the state file, inside a transaction or outside of one. Other packages hand it on to this one's functions.

    Attributes:
        clock: gives the time, unix seconds.
        all_due: nothing waits for its time (``--now``).
        keeps_text: the file has the earlier layout: new keys are kept as text, and nothing is packed.
        dictionaries: those that are ready for use, by their number (:mod:`nura_cli.state.packed`).
        key_hasher: for each workload, what its keys' hashes begin with (:mod:`nura_cli.state.keys`).
        who, why: the person whose verb this is, and the person's own words for it; empty and None for a stage.
    """

    clock: Clock = staticmethod(now)
    all_due = False
    keeps_text = False
    key_hasher: "Callable[[int], hashlib.blake2b]"
    who = ""
    why: str | None = None
    _began: int | None = None

    dictionaries: "dict[int, Dictionary]"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.dictionaries = {}

    @property
    def now(self) -> int:
        """The time, unix seconds: inside a transaction the moment at which it had the write lock."""
        return self.clock() if self._began is None else self._began

    @property
    def horizon(self) -> int:
        """After which ``not_before`` (unix seconds) a task or delivery is due because nothing is put off so far."""
        return -1 if self.all_due else self.now + LONGEST_BACKOFF

    def began(self) -> None:
        """Stop the time: a transaction has begun."""
        self._began = self.clock()

    def ended(self) -> None:
        """Let the time go on: it was committed, or rolled back."""
        self._began = None
