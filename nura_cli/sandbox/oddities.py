"""Odd answers: what services that only nearly speak a vendor's protocol make of a right reply, just before it is sent, and of
the line of an answer, before it is written.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from nura_cli.sandbox import faults
from nura_cli.sandbox.exchange import Request
from nura_cli.sandbox.faults import Fault

Quirks = Mapping[str, Fault]
"""The quirks that are switched on, by name."""

_BATCHES = frozenset({"create", "retrieve", "cancel", "delete"})
"""The routes that are answered with a batch."""
_OTHER = "listed-"
_RESULTS = ("output_file_id", "error_file_id", "results_url")
_CURSORS = ("after", "after_id", "before_id")
_FAR = 315_569_520_000
"""Seconds of ten thousand years."""
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


def understand(request: Request, quirks: Quirks) -> bool:
    """Make of the names that lists give to batches the batches' ids; return whether the request named its batch so."""
    if "other_id" not in quirks:
        return False
    for cursor in _CURSORS:
        if cursor in request.query:
            request.query[cursor] = request.query[cursor].removeprefix(_OTHER)
    named = f"/batches/{_OTHER}" in request.path
    request.path = request.path.replace(f"/batches/{_OTHER}", "/batches/", 1)
    return named


def shown(route: str, body: Any, quirks: Quirks, *, other: bool = False) -> Any:
    """Return the body of a reply as the quirks have it.

    Args:
        other: the request named its batch as lists do.
    """
    if route == "list":
        body = {**body, "data": [_batch(row, quirks, listed=True) for row in body["data"]]}
        if "other_id" in quirks:
            body = _otherwise(body)
            body["data"] = [_otherwise(row) for row in body["data"]]
    elif "job" in body:
        return {"job": shown(route, body["job"], quirks, other=other)}
    elif route in _BATCHES:
        body = _batch(body, quirks, listed=False)
        body = _otherwise(body) if other else body
    return _page(route, body, quirks)


def _batch(batch: dict[str, Any], quirks: Quirks, *, listed: bool) -> dict[str, Any]:
    """Return a batch as the quirks have it."""
    if "list_files" in quirks:
        where = faults.choice(quirks["list_files"], "where")
        if where == "wrong_list" and listed:
            batch = {**batch, **{name: f"{batch[name]}-none" for name in _RESULTS if batch.get(name)}}
        elif where == ("retrieve" if listed else "list"):
            batch = {**batch, **{name: None for name in _RESULTS if name in batch}}
    if "other_status" in quirks and (listed or faults.choice(quirks["other_status"], "where") == "all"):
        name = "status" if "status" in batch else "processing_status"
        batch = {**batch, name: quirks["other_status"].get("word", "sealed")}
    if "times" in quirks:
        form = faults.choice(quirks["times"], "form")
        times = {name: at for name, at in batch.items() if name.endswith("_at") and at is not None}
        batch = {**batch, **{name: _time(at, form) for name, at in times.items()}}
    return batch


def _time(at: int | str, form: str) -> int | str:
    """Return a time, unix seconds or ISO 8601 as its vendor has it, in another form."""
    seconds = at if isinstance(at, int) else int(datetime.fromisoformat(at).timestamp())
    if form == "far":
        return at + _FAR if isinstance(at, int) else f"1{at}"
    if form == "iso":
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return seconds * 1000 if form == "ms" else str(seconds)


def _otherwise(members: dict[str, Any]) -> dict[str, Any]:
    """Return a batch, or a page, that names batches as lists do."""
    ids = {name: _OTHER + members[name] for name in ("id", "first_id", "last_id") if members.get(name)}
    if members.get("results_url"):
        ids["results_url"] = members["results_url"].replace("/batches/", f"/batches/{_OTHER}")
    return {**members, **ids}


def _page(route: str, body: Any, quirks: Quirks) -> Any:
    """Return the reply to a list as the quirks have it, and any other as it is."""
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


_SURROGATE = "\ud800"
_DEEP = 100_000
_LONG = "a long way down"


def written(line: bytes, form: str) -> bytes:
    """Return the line of an answer, as a service that writes it in an odd form has it."""
    if form == "bom":
        return b"\xef\xbb\xbf" + line
    if form == "garbled":
        return line[: len(line) * 3 // 4]
    members = json.loads(line)
    message = (members.get("response") or {}).get("body") or (members.get("result") or {}).get("message")
    if not isinstance(message, dict):
        return line
    if form in ("surrogate", "bytes", "control"):
        _add_to_text(message, "\t" if form == "control" else _SURROGATE)
    elif form == "usage":
        message["usage"] = dict.fromkeys(message.get("usage", ()), 14417.92)
    elif form == "types":
        _misplace(message)
    else:
        message["score"] = float("nan") if form == "nan" else _LONG
    text = json.dumps(members, ensure_ascii=form == "surrogate", separators=(",", ":"))
    text = text.replace(json.dumps(_LONG), "[" * _DEEP + "]" * _DEEP)
    return (text.replace("\\t", "\t") if form == "control" else text).encode("utf-8", "surrogatepass")


def _add_to_text(place: Any, end: str) -> bool:
    """Add to the first text that a model is said to have written; return whether there is one."""
    if isinstance(place, list):
        return any(_add_to_text(one, end) for one in place)
    if not isinstance(place, dict):
        return False
    for name in ("content", "text"):
        if isinstance(place.get(name), str):
            place[name] += end
            return True
    return any(_add_to_text(place.get(name), end) for name in ("choices", "message", "output", "content"))


def _misplace(message: dict[str, Any]) -> None:
    """Give members of an answer, beside its text, types that they do not have."""
    message |= {"model": None, "system_fingerprint": [], "stop_sequence": 7}
    for choice in message.get("choices", ()):
        choice["finish_reason"] = 7
        choice.get("message", {})["refusal"] = []
    if "stop_reason" in message:
        message["stop_reason"] = ["end_turn"]
    if "incomplete_details" in message:
        message["incomplete_details"] = []


def echoed(error: Any, key: str) -> Any:
    """Return an error, of whatever shape, whose messages tell a key; as it is where there is no key."""
    if isinstance(error, list):
        return [echoed(one, key) for one in error]
    if not isinstance(error, dict) or not key:
        return error
    return {
        name: f"{one} (API key: {key})" if name == "message" and isinstance(one, str) else echoed(one, key)
        for name, one in error.items()
    }


def _without(members: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in members.items() if key != name}
