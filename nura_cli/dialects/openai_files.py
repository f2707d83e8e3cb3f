"""Uploaded files, as OpenAI and the services that speak its protocol tell of them.

OpenAI takes a file with the answer to its upload. Azure works through it first: until then it is ``pending`` or ``running``,
and a create from it is answered with 400 (openai-dotnet#312).
"""

from collections.abc import Mapping
from typing import Any

from nura_cli.dialects import reading, refusals
from nura_cli.errors import Rejection

_PROCESSED = frozenset(("processed", "completed", "succeeded", "success", "ready", "available", "active"))
_WAITING = frozenset(
    (
        "pending",
        "running",
        "processing",
        "in_progress",
        "inprogress",
        "queued",
        "notstarted",
        "not_started",
        "importing",
    )
)
_FAILED = frozenset(("error", "failed", "rejected", "invalid"))


def processed(found: Mapping[str, Any]) -> bool | None:
    """Return whether a file is ready: False while it is worked on, None of a word that does not tell.

    ``uploaded`` is such a one: at some services it comes before ``processed``, at others nothing comes after it.
    """
    word = _word(found)
    if word in _PROCESSED:
        return True
    return False if word in _WAITING else None


def file_faults(found: Mapping[str, Any]) -> tuple[Rejection, ...] | None:
    """Return why a file could not be processed, at least one fault; None where that is not said."""
    word = _word(found)
    if word not in _FAILED:
        return None
    told = refusals.read(found.get("error")) or refusals.read(found.get("errors"))
    details = reading.line(reading.text(found.get("status_details")) or "")
    return told or (Rejection(None, details or f"the file is {word}", None),)


def _word(found: Mapping[str, Any]) -> str:
    return reading.status(found.get("status")).lower()
