"""The control endpoint, ``/_sandbox/…``: faults, the clock, the bill, the log. JSON in, JSON out; it is not logged itself.

``GET faults`` · ``POST faults`` a fault → ``{"id"}`` · ``DELETE faults[?id=]``
``POST advance`` ``{"seconds"}`` → ``{"now"}`` · ``GET settings`` · ``POST settings`` some of :class:`~nura_cli.sandbox.store.Settings`
``POST queue`` ``{"model"}`` and some of its numbers → all queues
``POST release`` lets go what is held · ``GET billing`` · ``GET log[?since=]`` · ``GET batches`` · ``GET files``
``POST foreign`` ``{"requests", "protocol", "key" or "account", "age"}`` → ``{"id"}``: a batch of somebody else in the account
"""

import json
import secrets
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from nura_cli.sandbox.exchange import Request, number, private
from nura_cli.sandbox.store import Store, account_of

_BATCH_COLUMNS = (
    "id, account, protocol, created_at, status, endpoint, model, total, tokens, metadata, input_file_id, ended_at"
)


def answer(store: Store, request: Request) -> tuple[int, Any]:
    """Return the status and the body for a request to the control endpoint."""
    name = request.path.removeprefix("/_sandbox/")
    handler = _HANDLERS.get((request.method, name))
    try:
        body = request.json() if request.method == "POST" else {}
        if handler is None:
            return 404, {"error": f"no control {request.method} {name}"}
        if not isinstance(body, dict):
            raise ValueError("the body is no object")
        return 200, handler(store, request, body)
    except (ValueError, KeyError, TypeError) as error:
        return 400, {"error": str(error)}


def _arm(store: Store, request: Request, body: dict[str, Any]) -> Any:
    return {"id": store.arm(body)}


def _armed(store: Store, request: Request, body: dict[str, Any]) -> Any:
    return store.armed()


def _disarm(store: Store, request: Request, body: dict[str, Any]) -> Any:
    store.disarm(number(request.query, "id", -1) if "id" in request.query else None)
    return {}


def _advance(store: Store, request: Request, body: dict[str, Any]) -> Any:
    return {"now": store.advance(float(body["seconds"]))}


def _settings(store: Store, request: Request, body: dict[str, Any]) -> Any:
    if body:
        store.configure(body)
    shown = asdict(store.settings())
    shown.pop("accept_keys")
    return {**shown, "now": store.now()}


def _queue(store: Store, request: Request, body: dict[str, Any]) -> Any:
    store.change_queue(str(body.pop("model")), body)
    return store.settings().queues


def _release(store: Store, request: Request, body: dict[str, Any]) -> Any:
    store.let_go()
    return {}


def _billing(store: Store, request: Request, body: dict[str, Any]) -> Any:
    return store.billing()


def _log(store: Store, request: Request, body: dict[str, Any]) -> Any:
    return store.log(number(request.query, "since", 0) or 0)


def _files(store: Store, request: Request, body: dict[str, Any]) -> Any:
    rows = store.db.execute("SELECT * FROM files WHERE expires_at > ? AND account <> '' ORDER BY seq", (store.now(),))
    return [dict(row) for row in rows]


def _batches(store: Store, request: Request, body: dict[str, Any]) -> Any:
    rows = store.db.execute(f"SELECT {_BATCH_COLUMNS} FROM batches ORDER BY seq")  # noqa: S608 - constant
    return [{**dict(row), "metadata": json.loads(row["metadata"] or "null")} for row in rows]


def _foreign(store: Store, request: Request, body: dict[str, Any]) -> Any:
    """Insert a batch that none of the account's clients under test has sent."""
    protocol, requests = str(body.get("protocol", "openai")), int(body.get("requests", 1))
    account = body.get("account") or (account_of(body["key"]) if "key" in body else _newest_account(store))
    created = store.now() - int(body.get("age", 0))
    ident = secrets.token_hex(12)
    if protocol == "anthropic":
        batch_id = f"msgbatch_{ident}"
        part = store.body(f"{batch_id}.requests")
        lines = [{"custom_id": f"foreign-{ident}-{n}", "params": _ask(n)} for n in range(requests)]
        with private(part) as file:
            file.write(json.dumps({"requests": lines}).encode())
        columns = {"status": "in_progress", "total": requests, "endpoint": "2023-06-01"}
    else:
        batch_id, part = f"batch_{ident}", store.folder / f"foreign-{ident}.part"
        with private(part) as file:
            for n in range(requests):
                line = {
                    "custom_id": f"foreign-{ident}-{n}",
                    "method": "POST",
                    "url": "/v1/chat/completions",
                    "body": _ask(n),
                }
                file.write(json.dumps(line).encode() + b"\n")
        kept = store.add_file(account, f"file-{ident}", "foreign.jsonl", "batch", part, 30 * 86400, created)
        columns = {"status": "validating", "input_file_id": kept["id"], "endpoint": "/v1/chat/completions"}
    store.add_batch(account, protocol, batch_id, created_at=created, metadata=body.get("metadata"), **columns)
    return {"id": batch_id}


def _ask(n: int) -> dict[str, Any]:
    message = {"role": "user", "content": f"A foreign question, number {n}"}
    return {"model": "foreign-model", "max_tokens": 100, "messages": [message]}


def _newest_account(store: Store) -> str:
    row = store.db.execute("SELECT account FROM batches ORDER BY seq DESC LIMIT 1").fetchone()
    if row is None:
        raise ValueError("there is no account yet: name it by its key")
    return str(row["account"])


_HANDLERS: dict[tuple[str, str], Callable[[Store, Request, dict[str, Any]], Any]] = {
    ("GET", "faults"): _armed,
    ("POST", "faults"): _arm,
    ("DELETE", "faults"): _disarm,
    ("POST", "advance"): _advance,
    ("GET", "settings"): _settings,
    ("POST", "settings"): _settings,
    ("POST", "queue"): _queue,
    ("POST", "release"): _release,
    ("GET", "billing"): _billing,
    ("GET", "log"): _log,
    ("GET", "files"): _files,
    ("GET", "batches"): _batches,
    ("POST", "foreign"): _foreign,
}
