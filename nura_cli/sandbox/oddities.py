"""Odd answers: what services that only nearly speak a vendor's protocol make of a right reply, just before it is sent."""

from collections.abc import Callable, Mapping
from typing import Any

from nura_cli.sandbox import faults
from nura_cli.sandbox.faults import Fault

Quirks = Mapping[str, Fault]
"""The quirks that are switched on, by name."""

_ERROR = {"error": {"type": "server_error", "message": "the sandbox cannot list its batches"}}


def created(body: dict[str, Any], batch_id: str, oldest: str, fault: Fault) -> dict[str, Any]:
    """Return the reply to a create in the shape that a fault wants.

    Args:
        body: the right reply.
        batch_id: the batch that was made.
        oldest: the account's oldest batch.
        fault: a ``create_shape``.
    """
    shapes: dict[str, dict[str, Any]] = {
        "batch_id": {"batch_id": batch_id},
        "no_id": _without(body, "id"),
        "empty": {},
        "wrapped": {"data": body},
        "known": {**body, "id": oldest},
    }
    return shapes[faults.choice(fault, "shape")]


def shown(route: str, body: Any, quirks: Quirks) -> Any:
    """Return the body of a reply as the quirks have it."""
    if route in ("list", "files") and "no_has_more" in quirks:
        body = _without(body, "has_more")
    if route == "list" and "list_shape" in quirks:
        body = _LIST_SHAPES[faults.choice(quirks["list_shape"], "shape")](body)
    return body


_LIST_SHAPES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "batches": lambda page: {"batches": page["data"]},
    "value": lambda page: {"value": page["data"]},
    "null": lambda page: {"data": None},
    "array": lambda page: page["data"],
    "object": lambda page: {"data": {}},
    "error": lambda page: _ERROR,
    "no_ids": lambda page: {**page, "data": [{"batch_id": row["id"], **_without(row, "id")} for row in page["data"]]},
}


def _without(members: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in members.items() if key != name}
