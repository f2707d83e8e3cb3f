"""The sandbox's Anthropic side: Message Batches, messages, models and counts of tokens, as the vendor's API reference describes them."""

import hashlib
import json
import re
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from nura_cli.sandbox import faults, quotas, work
from nura_cli.sandbox.anthropic_requests import count, count_problem_of, problem_of, respond
from nura_cli.sandbox.elements import elements
from nura_cli.sandbox.exchange import Failure, Json, Reply, Request, SendFile, number, private
from nura_cli.sandbox.faults import Fault
from nura_cli.sandbox.openai_requests import ODD
from nura_cli.sandbox.store import Settings, Store, account_of

PROTOCOL = "anthropic"
MOST_REQUESTS = 100_000
MOST_BYTES = 256_000_000
MOST_COUNTED_BYTES = 32_000_000
RESULTS_LAST = 29 * 86400
MODELS = ("claude-haiku-4-5", "claude-sonnet-4-5", "claude-opus-5")
"""The models that are listed where the settings name none; any other is answered too."""
_MODEL_SINCE = 1_767_225_600
"""When every model was released, as unix seconds: the first of January 2026."""
_ROUTES = {
    "/v1/messages/count_tokens": {"POST": "count"},
    "/v1/messages": {"POST": "answer"},
    "/v1/models": {"GET": "models"},
}
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_EDGE = (
    b"<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n"
    b"<body><center><h1>413 Request Entity Too Large</h1></center></body>\r\n</html>\r\n"
)
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def failure(
    status: int, message: str, kind: str | None = None, code: str | None = None, headers: dict[str, str] | None = None
) -> Failure:
    """Return an error in the vendor's shape; the server puts the request's id in."""
    return Failure(status, _error(status, message, code or kind), headers=headers)


def _error(status: int, message: str, kind: str | None = None) -> dict[str, Any]:
    kind = kind or _KINDS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": None}


def _unpaid(store: Store) -> tuple[int, dict[str, Any]]:
    """Return the status and the body of a refusal for want of money."""
    form = faults.choice(faults.of(store.standing(), "unpaid") or {"what": "unpaid"}, "anthropic")
    unpaid = quotas.anthropic_unpaid(form, store.now())
    body = _error(unpaid.status, unpaid.words, unpaid.kind)
    if unpaid.code:
        body["error"]["details"] = {"error_code": unpaid.code}
    return unpaid.status, body


def _check_money(store: Store, account: str) -> None:
    """Raise the vendor's refusal where an account may spend no more."""
    if store.left(account) <= 0:
        raise Failure(*_unpaid(store))


def speaks(path: str, headers: Any) -> bool:
    """Return whether a request is of this protocol. ``/v1/models`` is of both: the headers tell, which every client sends."""
    ours = headers.get("anthropic-version") or headers.get("x-api-key")
    return path.startswith("/v1/messages") or (bool(ours) and re.match(r"/v1/models(/|$)", path) is not None)


def route(request: Request) -> str:
    """Return the name of the route of a request, for faults and the log."""
    method, rest = request.method, request.path.removeprefix("/v1/messages/batches").strip("/").split("/")
    if not request.path.startswith("/v1/messages/batches"):
        path = request.path.rstrip("/")
        one = path.startswith("/v1/models/") and method == "GET"
        return "model" if one else _ROUTES.get(path, {}).get(method, "unknown")
    if rest == [""]:
        return {"POST": "create", "GET": "list"}.get(method, "unknown")
    if len(rest) == 1:
        return {"GET": "retrieve", "DELETE": "delete"}.get(method, "unknown")
    return {("GET", "results"): "download", ("POST", "cancel"): "cancel"}.get((method, "/".join(rest[1:])), "unknown")


def key_of(headers: Any) -> str:
    """Return the key of a request; empty where there is none. The 2.x SDK sends it as a bearer."""
    return str(headers.get("x-api-key") or (headers.get("Authorization") or "").removeprefix("Bearer ").strip())


def account(headers: Any) -> str:
    """Return the account of a request, or raise the vendor's errors."""
    key = key_of(headers)
    if not key:
        raise failure(401, "x-api-key header is required")
    if not headers.get("anthropic-version"):
        raise failure(400, "anthropic-version: header is required")
    return account_of(key)


def refused_key() -> Failure:
    """Return the vendor's answer to a key it does not know."""
    return failure(401, "invalid x-api-key")


def handle(store: Store, request: Request, name: str) -> Reply:
    """Answer a request of this protocol."""
    if name == "create":
        return _create(store, request)
    if name == "list":
        return _list(store, request)
    if name == "count":
        return _count(store, request)
    if name == "answer":
        return _answer(store, request)
    if name == "models":
        return _models(store, request)
    if name == "model":
        return _model(store, unquote(request.path.removeprefix("/v1/models/")))
    if name == "unknown":
        raise failure(404, "Not Found")
    batch_id = request.path.split("/")[4]
    asked = name == "retrieve" or (name == "download" and "only_retrieve" not in store.quirks())
    if asked or (name == "cancel" and work.looked_at(store, request.account, batch_id)):
        work.settle(store, request.account, PROTOCOL, step, batch_id)
    batch = store.batch(request.account, batch_id)
    if batch is None or batch["protocol"] != PROTOCOL:
        if "missing_500" in store.quirks():
            raise failure(500, "Internal server error")
        raise failure(404, f"Message Batch {batch_id} not found")
    if name == "cancel":
        return _cancel(store, request, batch_id)
    if name == "delete":
        return _delete(store, batch)
    if name == "download":
        return _results(store, batch)
    return Json(_json(store, request.url, batch))


def _cancel(store: Store, request: Request, batch_id: str) -> Reply:
    with store.work():
        batch = store.batch(request.account, batch_id)
        if batch is None:
            raise failure(404, f"Message Batch {batch_id} not found")
        if batch["ended_at"] is not None:
            raise failure(400, f"Batch {batch_id} cannot be canceled: it has already ended.")
        if batch["cancel_at"] is None:
            store.change(batch_id, status="canceling", cancel_at=store.now())
    return Json(_json(store, request.url, store.batch(request.account, batch_id) or batch))


def _delete(store: Store, batch: dict[str, Any]) -> Reply:
    if batch["ended_at"] is None:
        raise failure(400, f"Batch {batch['id']} cannot be deleted: it has not ended. Cancel it first.")
    store.drop_batch(batch["id"])
    store.body(f"{batch['id']}.results").unlink(missing_ok=True)
    return Json({"id": batch["id"], "type": "message_batch_deleted"})


def _results(store: Store, batch: dict[str, Any]) -> Reply:
    path = store.body(f"{batch['id']}.results")
    gone = batch["ended_at"] is None or not path.exists() or _archived(store, batch)
    if gone or work.unnamed(store, batch):
        raise failure(404, f"The results of Message Batch {batch['id']} are not available")
    return SendFile(store.served(path.name), "application/x-jsonl")


def _archived(store: Store, batch: dict[str, Any]) -> bool:
    return store.now() >= int(batch["created_at"]) + RESULTS_LAST


# Models, and tokens


def _models(store: Store, request: Request) -> Reply:
    limit, after, before = _page_of(request)
    known = list(dict.fromkeys(store.settings().models or MODELS))
    for cursor in (after, before):
        if cursor and cursor not in known:
            raise failure(400, f"{'after_id' if after else 'before_id'}: {cursor} is no model")
    rest = known[known.index(after) + 1 :] if after else known[: known.index(before)] if before else known
    shown = rest[-limit:] if before else rest[:limit]
    ends = {"first_id": shown[0] if shown else None, "last_id": shown[-1] if shown else None}
    return Json({"data": [_model_json(model) for model in shown], "has_more": len(rest) > limit, **ends})


def _model(store: Store, model: str) -> Reply:
    if not work.exists(model, store.settings().models):
        raise failure(404, f"model: {model}")
    return Json(_model_json(model))


def _model_json(model: str) -> dict[str, Any]:
    line = next((one for one in ("haiku", "sonnet", "opus") if one in model), None)
    shown = {"id": model, "type": "model", "display_name": model.replace("-", " ").title(), "line": line}
    ends = {"lifecycle": "active", "deprecated_at": None, "retires_at": None, "capabilities": None}
    return {**shown, "created_at": _time(_MODEL_SINCE), "max_input_tokens": 200_000, "max_tokens": 64_000, **ends}


def _count(store: Store, request: Request) -> Reply:
    params = _params(request)
    try:
        problem = count_problem_of(params)
        tokens = 0 if problem else count(params)
    except ODD as error:
        raise failure(400, f"The request is not valid: {error}") from error
    if problem:
        raise failure(400, problem)
    if not work.exists(params["model"], store.settings().models):
        raise failure(404, f"model: {params['model']}")
    return Json({"input_tokens": tokens})


def _params(request: Request) -> dict[str, Any]:
    """Return the JSON object that a request brings, or raise the vendor's 400."""
    try:
        params = request.json(MOST_COUNTED_BYTES)
    except ValueError as error:
        raise failure(400, f"The request body is not valid: {error}") from error
    if not isinstance(params, dict):
        raise failure(400, "The request body is not valid: it is no object")
    return params


def _answer(store: Store, request: Request) -> Reply:
    """Answer a request outside of a batch, as a batch would, and bill it at once."""
    params = _params(request)
    try:
        problem = problem_of(params, request.headers.get("anthropic-version", ""))
        if problem:
            raise failure(400, problem)
        if not work.exists(params["model"], store.settings().models):
            raise failure(404, f"model: {params['model']}")
        _check_money(store, request.account)
        message, usage = respond(params, None)
    except ODD as error:
        raise failure(400, f"The request is not valid: {error}") from error
    store.bill_one(request.account, params["model"], work.encoded(params), usage)
    return Json(message)


# Create


def _create(store: Store, request: Request) -> Reply:
    part = store.folder / f"create-{secrets.token_hex(8)}.part"
    try:
        if request.save(part, MOST_BYTES) > MOST_BYTES:
            raise Failure(413, _EDGE, "text/html")
        total = _checked(part)
        refused = store.refusal(part)
        if refused:
            raise _refusal(refused, part)
        _check_money(store, request.account)
        with store.transaction():
            _check_room(store, request.account, total)
            batches = [_add(store, request, part, total) for _ in range(request.executions)]
        return Json(_json(store, request.url, batches[0]))
    finally:
        part.unlink(missing_ok=True)


def _check_room(store: Store, account: str, requests: int) -> None:
    """Raise the vendor's 429 where there is no room for so many requests in an account's queue."""
    settings, now = store.settings(), store.now()
    queue = quotas.of_model(settings.queues, quotas.EVERY)
    if queue.get("requests") is None:
        return
    rows = store.waiting(account, PROTOCOL, since=now - settings.release_delay)
    waiting = work.waiting(rows, settings, now, for_ever="never_ends" in store.quirks())
    found = quotas.full({**queue, "tokens": None}, waiting, quotas.Load(0, requests))
    if found:
        said = faults.of(store.standing(), "full_queue") or {"what": "full_queue"}
        raise failure(429, quotas.anthropic_words(found, faults.choice(said, "words")))


def _add(store: Store, request: Request, part: Path, total: int) -> dict[str, Any]:
    batch_id = "msgbatch_" + secrets.token_hex(12)
    store.body(f"{batch_id}.requests").hardlink_to(part)
    version = request.headers.get("anthropic-version", "")
    columns = {"status": "in_progress", "total": total, "endpoint": version}
    return store.add_batch(request.account, PROTOCOL, batch_id, created_at=store.now() + request.ahead, **columns)


def _checked(part: Path) -> int:
    """Return how many requests a body holds. Raises the vendor's 400 where it is no list of requests."""
    seen: dict[bytes, int] = {}
    try:
        for n, element in enumerate(elements(part)):
            if not isinstance(element, dict):
                raise failure(400, f"requests.{n}: Input should be a valid dictionary")
            custom_id = element.get("custom_id")
            if not isinstance(custom_id, str):
                raise failure(400, f"requests.{n}.custom_id: Field required")
            if not _CUSTOM_ID.fullmatch(custom_id):
                raise failure(400, f"requests.{n}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'")
            if not isinstance(element.get("params"), dict):
                raise failure(400, f"requests.{n}.params: Field required")
            extra = sorted(element.keys() - {"custom_id", "params"})
            if extra:
                raise failure(400, f"requests.{n}.{extra[0]}: Extra inputs are not permitted")
            first = seen.setdefault(custom_id.encode(), n)
            if first != n:
                raise failure(400, f"requests.{n}.custom_id: '{custom_id}' is already used by requests.{first}")
            if n >= MOST_REQUESTS:
                raise failure(400, f"requests: List should have at most {MOST_REQUESTS} items")
    except ValueError as error:
        raise failure(400, f"The request body is not valid: {error}") from error
    if not seen:
        raise failure(400, "requests: List should have at least 1 item after validation, not 0")
    return len(seen)


def _refusal(refused: Fault, part: Path) -> Failure:
    """Return the refusal that a fault wants; with ``line: "match"`` (or "matches") it names the first request."""
    words = refused.get("message", "Refused.")
    if refused.get("line") in ("match", "matches") and "match" in refused:
        text = str(refused["match"])
        n = next((n for n, one in enumerate(elements(part)) if text in json.dumps(one, ensure_ascii=False)), 0)
        words = f"requests.{n}.params: {words}"
    return failure(int(refused.get("status", 400)), words, refused.get("code"))


# List and retrieve


def _page_of(request: Request) -> tuple[int, str | None, str | None]:
    """Return which page of a list is asked for: how many, after and before which id."""
    after, before = request.query.get("after_id"), request.query.get("before_id")
    limit = number(request.query, "limit", 20)
    if limit is None or not 1 <= limit <= 1000:
        raise failure(400, "limit: Input should be between 1 and 1000")
    if after and before:
        raise failure(400, "Only one of before_id and after_id can be given")
    return limit, after, before


def _list(store: Store, request: Request) -> Reply:
    limit, after, before = _page_of(request)
    for cursor in (after, before):
        if cursor and store.batch(request.account, cursor) is None:
            raise failure(400, f"{'after_id' if after else 'before_id'}: {cursor} is no batch of this account")
    quirks = store.quirks()
    if "only_retrieve" not in quirks:
        work.settle(store, request.account, PROTOCOL, step)
    stuck = "stuck_list" in quirks
    rows = store.page(
        request.account, PROTOCOL, limit + 1, after=None if stuck else after, before=None if stuck else before
    )
    more, rows = len(rows) > limit or (stuck and bool(rows)), rows[:limit]
    if before and not stuck:
        rows.reverse()
    if "stale_list" in quirks:
        rows = [work.as_created(row, "in_progress") for row in rows]
    data = [_json(store, request.url, row) for row in rows]
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return Json({"data": data, "has_more": more, **ends})


def _json(store: Store, url: str, batch: dict[str, Any]) -> dict[str, Any]:
    counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
    counts |= batch["told"].get("counts") or {"processing": batch["total"]}
    archived = _archived(store, batch)
    there = batch["ended_at"] is not None and not archived and not work.unnamed(store, batch)
    return {
        "id": batch["id"],
        "type": "message_batch",
        "processing_status": batch["status"].upper() if "upper_case" in store.quirks() else batch["status"],
        "request_counts": counts,
        "created_at": _time(batch["created_at"]),
        "expires_at": _time(batch["created_at"] + work.WINDOW),
        "ended_at": _time(batch["ended_at"]),
        "cancel_initiated_at": _time(batch["cancel_at"]),
        "archived_at": _time(batch["created_at"] + RESULTS_LAST) if archived else None,
        "results_url": f"{url}/v1/messages/batches/{batch['id']}/results" if there else None,
    }


def _time(at: int | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000000Z")


# Working on a batch


def step(store: Store, batch: dict[str, Any], settings: Settings) -> None:
    """End a batch whose time has come; the caller holds the work lock."""
    end = work.deadline(batch, settings)
    if "never_ends" in store.quirks() or (work.takes_time(batch, settings) and end.at > store.now()):
        return
    source = store.body(f"{batch['id']}.requests")
    suffered = store.deal(batch, source, but="refuse")
    counts = dict.fromkeys(("succeeded", "errored", "canceled", "expired"), 0)
    answerer = _Answerer(batch, settings, _unpaid(store)[1])
    outcome = work.run(store, batch, _requests(source), answerer.answer, _stranger, suffered, end)
    counts |= {ending: n for ending, n in outcome.counts.items() if ending in counts}
    target = store.body(f"{batch['id']}.results")
    if "results" not in outcome.parts:
        private(target).close()
    elif faults.of(suffered, "lost"):
        for part in (*outcome.parts.values(), *outcome.short.values()):
            part.unlink()
    else:
        outcome.parts["results"].replace(target)
        for part in outcome.short.values():
            store.add_short(target.name, part, work.complete_at(suffered, end), end.at)
    stopped = end.at if faults.of(suffered, "cancel") else batch["cancel_at"]
    store.change(batch["id"], status="ended", ended_at=end.at, cancel_at=stopped, told={"counts": counts})
    source.unlink(missing_ok=True)


def _requests(source: Path) -> Iterator[work.Request]:
    for found in elements(source):
        yield work.Request(found["custom_id"], found["params"], work.encoded(found["params"]))


def _line(
    custom_id: str, ending: str, result: dict[str, Any] | None = None, usage: tuple[int, int] | None = None
) -> work.Reply:
    line = {"custom_id": custom_id, "result": {"type": ending, **(result or {})}}
    return work.Reply("results", work.encoded(line), ending, usage)


def _stranger(n: int) -> work.Reply:
    return _line(f"stranger-{n}", "expired")._replace(ending="foreign")


def _errored(custom_id: str, status: int, message: str, kind: str | None = None) -> work.Reply:
    return _with_error(custom_id, _error(status, message, kind))


def _with_error(custom_id: str, error: dict[str, Any]) -> work.Reply:
    ident = hashlib.sha256(custom_id.encode()).hexdigest()[:24]
    return _line(custom_id, "errored", {"error": {**error, "request_id": f"req_{ident}"}})


class _Answerer:
    """Makes the lines of a batch's results."""

    def __init__(self, batch: dict[str, Any], settings: Settings, unpaid: dict[str, Any]) -> None:
        self._version = str(batch["endpoint"])
        self._models = settings.models
        self._unpaid = unpaid

    def answer(self, request: work.Request, fate: work.Fate) -> work.Reply:
        """Return the line of one request, as its fate has it."""
        if fate.ending in ("expired", "cancelled"):
            return _line(request.custom_id, "expired" if fate.ending == "expired" else "canceled")
        if fate.ending == "unpaid":
            return _with_error(request.custom_id, self._unpaid)
        if fate.ending == "failed":
            status = int(fate.fault.get("status", 500))
            words = fate.fault.get("message", f"the sandbox failed this request with {status}")
            return _errored(request.custom_id, status, words, fate.fault.get("code"))
        try:
            return self._answered(request, fate.fault.get("mode", "text") if fate.ending == "invalid" else None)
        except ODD as error:
            return _errored(request.custom_id, 400, f"The request is not valid: {error}")

    def _answered(self, request: work.Request, mode: str | None) -> work.Reply:
        problem = problem_of(request.body, self._version)
        if problem:
            return _errored(request.custom_id, 400, problem)
        if not work.exists(request.body["model"], self._models):
            return _errored(request.custom_id, 404, f"model: {request.body['model']}")
        message, usage = respond(request.body, mode)
        return _line(request.custom_id, "succeeded", {"message": message}, usage)
