"""Fault switches: what can be made to go wrong, and the picking of the one that strikes now.

Of an exchange (``route`` names which: upload, files, file, download, create, list, retrieve, cancel, delete):

``latency``      ``seconds``
``status``       ``status``, ``retry_after``, ``code``, ``message``: the vendor's error with this status, nothing done
``html``         a page of HTML with status 200, nothing done (``after=true``: after the effect)
``drop_before``  the connection closes before anything was done
``drop_after``   everything was done, and the connection closes without an answer
``hold``         waits, before (or with ``after=true`` after) the effect, until released or ``seconds`` (30) have passed
``truncate``     a download that ends early; ``framing`` length, chunked or close; ``keep`` the fraction that comes
``framing``      a whole download in this ``framing``
``redirect``     a 307 to ``to``

Of a batch, when it is worked on:

``rows``         requests fail: ``fraction`` or ``match`` (text in the request); ``status`` (500), ``shape``: plain, body, error, zero
``missing``      rows are in no file; ``fraction`` or ``match``
``duplicate``    rows come twice; ``foreign``: ``n`` rows of nobody come along
``expire``       only ``fraction`` is answered, the rest expires; ``cancel``: likewise, cancelled by the provider
``refuse``       the batch fails with ``code``, ``message``, ``line`` (``match``: only when a request holds this text)
``lost``         its results are gone
``invalid``      answers are wrong: ``mode`` text, schema, length, refusal, empty; ``fraction`` or ``match``

Standing quirks of compatible services: ``upper_case``, ``no_counts``, ``body_string``, ``no_usage``, ``no_metadata``,
``empty_error_id``, ``empty_error_file``, ``job_create``, ``missing_500``, ``stuck_list``, ``hide`` (batches younger than
``seconds`` are not listed).
"""

import fnmatch
import random
from typing import Any

EXCHANGE = frozenset(
    {"latency", "status", "html", "drop_before", "drop_after", "hold", "truncate", "framing", "redirect"}
)
BATCH = frozenset({"rows", "missing", "duplicate", "foreign", "expire", "cancel", "refuse", "lost", "invalid"})
QUIRKS = frozenset(
    {
        "upper_case",
        "no_counts",
        "body_string",
        "no_usage",
        "no_metadata",
        "empty_error_id",
        "empty_error_file",
        "job_create",
        "missing_500",
        "stuck_list",
        "hide",
    }
)


def concerns(fault: dict[str, Any], route: str) -> bool:
    """Return whether an exchange's fault is about a route."""
    return fault["what"] in EXCHANGE and fnmatch.fnmatch(route, fault.get("route", "*"))


def hits(fault: dict[str, Any], number: int, request: bytes) -> bool:
    """Return whether a batch's fault is about its request ``number`` (from 0)."""
    if "match" in fault:
        return str(fault["match"]).encode() in request
    chance = random.Random(f"{fault.get('seed', 0)}:{number}").random()  # noqa: S311 - repeatable on purpose
    return chance < float(fault.get("fraction", 1))
