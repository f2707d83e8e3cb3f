"""The sandbox's OpenAI side: files, batches, models and single requests, as the vendor's Batch guide and API reference describe them."""

import secrets
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from nura_cli.sandbox import faults, openai_files, quotas, work
from nura_cli.sandbox.exchange import Failure, Json, Reply, Request, SendFile, number
from nura_cli.sandbox.faults import Fault
from nura_cli.sandbox.openai_errors import Problem, failure, object_of, unpaid_body
from nura_cli.sandbox.openai_files import FILE_LASTS, check_name, check_purpose, check_ready, file_json, lasts
from nura_cli.sandbox.openai_requests import counted, respond
from nura_cli.sandbox.openai_work import errors_in, refused_for, step
from nura_cli.sandbox.store import Store, account_of

ENDPOINTS = (
    "/v1/responses",
    "/v1/chat/completions",
    "/v1/embeddings",
    "/v1/completions",
    "/v1/moderations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/videos",
)
PROTOCOL = "openai"
MOST_BYTES = 200_000_000
MODELS = ("gpt-4.1", "gpt-4.1-mini", "gpt-5-mini", "text-embedding-3-small", "omni-moderation-latest")
"""The models that are listed where the settings name none; any other is answered too."""
_MODEL_SINCE = 1_767_225_600
"""When every model was made, as unix seconds: the first of January 2026."""
_OF_UPLOADS = {"parts": "upload_part", "complete": "upload_complete", "cancel": "upload_cancel"}
_FINALIZING = 0.95
"""From this share of its time on, a batch is being finalized."""


def route(request: Request) -> str:
    """Return the name of the route of a request, for faults and the log."""
    method, parts = request.method, request.path.rstrip("/").split("/")[2:]
    routes = {
        ("files", 1): {"POST": "upload", "GET": "files"},
        ("files", 2): {"DELETE": "delete", "GET": "file"},
        ("files", 3): {"GET": "download"} if parts[2:] == ["content"] else {},
        ("batches", 1): {"POST": "create", "GET": "list"},
        ("batches", 2): {"GET": "retrieve"},
        ("batches", 3): {"POST": "cancel"} if parts[2:] == ["cancel"] else {},
        ("uploads", 1): {"POST": "upload_create"},
        ("uploads", 3): {"POST": _OF_UPLOADS[parts[2]]} if parts[2:] and parts[2] in _OF_UPLOADS else {},
        ("models", 1): {"GET": "models"},
        ("responses", 2): {"POST": "count"} if parts[1:] == ["input_tokens"] else {},
    }
    if not request.path.startswith("/v1/") or not parts:
        return "unknown"
    if request.path.rstrip("/") in ENDPOINTS and method == "POST":
        return "answer"
    if parts[0] == "models" and len(parts) > 1:
        return "model" if method == "GET" else "unknown"
    return routes.get((parts[0], len(parts)), {}).get(method, "unknown")


def key_of(headers: Any) -> str:
    """Return the key of a request; empty where there is none."""
    scheme, _, key = (headers.get("Authorization") or "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def account(headers: Any) -> str:
    """Return the account of a request, or raise the vendor's 401."""
    key = key_of(headers)
    if not key:
        raise failure(401, "You didn't provide an API key.", code="invalid_api_key")
    return account_of(key)


def refused_key() -> Failure:
    """Return the vendor's answer to a key it does not know."""
    return failure(401, "Incorrect API key provided.", code="invalid_api_key")


def handle(store: Store, request: Request, name: str) -> Reply:
    """Answer a request of this protocol."""
    if name == "upload":
        return _upload(store, request)
    if name == "files":
        return _files(store, request)
    if name in ("file", "download", "delete"):
        return _file(store, request, name)
    if name.startswith("upload_"):
        return openai_files.upload(store, request, name, MOST_BYTES)
    if name in ("models", "model"):
        return _models(store, request, name)
    if name == "count":
        return _count(store, request)
    if name == "answer":
        return _answer(store, request)
    if name == "create":
        return _create(store, request)
    if name == "list":
        return _list(store, request)
    if name in ("retrieve", "cancel"):
        return _one(store, request, name)
    raise failure(404, f"Invalid URL ({request.method} {request.path})")


# Files


def _upload(store: Store, request: Request) -> Reply:
    form = request.form(store.folder, MOST_BYTES, "file")
    try:
        if form.path is None or form.filename is None:
            raise failure(400, "'file' is a required property", param="file")
        check_purpose(form.fields.get("purpose"))
        check_name(form.filename)
        if form.size > MOST_BYTES:
            raise failure(413, f"File is too large: {form.size} bytes, at most {MOST_BYTES}.", code="file_too_large")
        kept = lasts(form.fields.get("expires_after[anchor]"), form.fields.get("expires_after[seconds]"))
        row = store.add_file(request.account, openai_files.file_id(), form.filename, "batch", form.path, kept)
        return Json(file_json(store, row))
    finally:
        if form.path is not None:
            form.path.unlink(missing_ok=True)


def _files(store: Store, request: Request) -> Reply:
    limit, order = number(request.query, "limit", 10_000), request.query.get("order", "desc")
    if limit is None or not 1 <= limit <= 10_000:
        raise failure(400, "Invalid 'limit': expected a value of 1 to 10000.", param="limit")
    if order not in ("asc", "desc"):
        raise failure(400, f"Invalid value: '{order}'. Supported values are: 'asc' and 'desc'.", param="order")
    after = None if "stuck_list" in store.quirks() else request.query.get("after")
    purpose = request.query.get("purpose")
    rows = store.files(request.account, purpose, after, limit + 1, ascending=order == "asc")
    return Json(_page([file_json(store, row) for row in rows], limit, stuck="stuck_list" in store.quirks()))


def _page(data: list[dict[str, Any]], limit: int, *, stuck: bool) -> dict[str, Any]:
    """Return a page of at most ``limit`` of the rows found; one more of them says that there are more."""
    more, data = len(data) > limit or (stuck and bool(data)), data[:limit]
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return {"object": "list", "data": data, "has_more": more, **ends}


def _file(store: Store, request: Request, name: str) -> Reply:
    file_id = request.path.split("/")[3]
    row = store.file(request.account, file_id)
    if row is None or not store.body(file_id).exists():
        raise failure(404, f"No such File object: {file_id}", param="id")
    if name == "download":
        return SendFile(store.served(file_id), "application/octet-stream")
    if name == "delete":
        store.drop_file(file_id)
        return Json({"id": file_id, "object": "file", "deleted": True})
    return Json(file_json(store, {**row, "bytes": store.served(file_id).stat().st_size}))


# Models, and tokens


def _models(store: Store, request: Request, name: str) -> Reply:
    """Return the list of models, or one: any whose batches are not refused."""
    known = store.settings().models
    if name == "models":
        return Json({"object": "list", "data": [_model_json(model) for model in known or MODELS]})
    model = unquote(request.path.removeprefix("/v1/models/"))
    _check_model(store, model)
    return Json(_model_json(model))


def _check_model(store: Store, model: str) -> None:
    if not work.exists(model, store.settings().models):
        raise failure(404, f"The model '{model}' does not exist", code="model_not_found", param="model")


def _count(store: Store, request: Request) -> Reply:
    body = object_of(request)
    try:
        tokens = counted(body)
    except Problem as problem:
        raise failure(400, problem.message, code=problem.code, param=problem.param) from problem
    if body.get("model"):
        _check_model(store, str(body["model"]))
    return Json({"object": "response.input_tokens", "input_tokens": tokens})


def _answer(store: Store, request: Request) -> Reply:
    """Answer a request outside of a batch, as a batch would, and bill it at once."""
    body = object_of(request)
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise failure(400, "you must provide a model parameter", param="model")
    _check_model(store, body["model"])
    _check_money(store, request.account, "answer")
    try:
        answer, usage = respond(request.path.rstrip("/"), body, store.now())
    except Problem as problem:
        raise failure(400, problem.message, code=problem.code, param=problem.param) from problem
    store.bill_one(request.account, body["model"], work.encoded(body), usage)
    if "no_usage" in store.quirks():
        answer.pop("usage", None)
    return Json(answer)


def _check_money(store: Store, account: str, name: str) -> None:
    """Raise the vendor's refusal where an account may spend no more, unless it is the rows of its batches that say so."""
    form = faults.choice(faults.of(store.standing(), "unpaid") or {"what": "unpaid"}, "openai")
    if store.left(account) <= 0 and (name, form) != ("create", "rows"):
        unpaid = quotas.openai_unpaid(form)
        raise Failure(unpaid.status, unpaid_body(unpaid))


def _model_json(model: str) -> dict[str, Any]:
    return {"id": model, "object": "model", "created": _MODEL_SINCE, "owned_by": "sandbox"}


# Batches


def _create(store: Store, request: Request) -> Reply:
    body = object_of(request)
    unknown = sorted(
        body.keys() - {"input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after"}
    )
    if unknown:
        raise failure(400, f"Unknown parameter: '{unknown[0]}'.", code="unknown_parameter", param=unknown[0])
    for name in ("input_file_id", "endpoint", "completion_window"):
        if not isinstance(body.get(name), str):
            raise failure(400, f"Missing required parameter: '{name}'.", code="missing_required_parameter", param=name)
    if body["endpoint"] not in ENDPOINTS:
        words = f"Invalid value: '{body['endpoint']}'. Supported values are: {', '.join(ENDPOINTS)}."
        raise failure(400, words, code="invalid_value", param="endpoint")
    if body["completion_window"] != "24h":
        words = f"Invalid value: '{body['completion_window']}'. Supported values are: '24h'."
        raise failure(400, words, code="invalid_value", param="completion_window")
    metadata, after = body.get("metadata"), body.get("output_expires_after") or {}
    _check_metadata(metadata)
    kept = lasts(after.get("anchor"), after.get("seconds")) if isinstance(after, dict) else FILE_LASTS
    row = store.file(request.account, body["input_file_id"])
    if row is None or row["purpose"] != "batch":
        raise failure(404, f"No such File object: {body['input_file_id']}", param="input_file_id")
    check_ready(store, row)
    _check_money(store, request.account, "create")
    quirks, source = store.quirks(), store.body(row["id"])
    refused = store.refusal(source, at="create")
    if refused:
        raise _refusal(refused, source)
    batches = [
        store.add_batch(
            request.account,
            PROTOCOL,
            "batch_" + secrets.token_hex(16),
            created_at=store.now() + request.ahead,
            status="validating",
            endpoint=body["endpoint"],
            input_file_id=row["id"],
            metadata=None if "no_metadata" in quirks else metadata,
            told={"lasts": kept},
        )
        for _ in range(request.executions)
    ]
    shown = _json(store, batches[0], quirks)
    return Json({"job": shown} if "job_create" in quirks else shown)


def _refusal(refused: Fault, source: Path) -> Failure:
    """Return the refusal of a create that a fault wants: with what is wrong in its file, as the fault has it."""
    text = str(refused.get("match", "")).encode()
    with source.open("rb") as file:
        matched = [n for n, line in enumerate(file, 1) if text in line]
    errors, form = refused_for(refused, matched), faults.choice(refused, "errors")
    said = failure(int(refused.get("status", 400)), errors[0]["message"], code=errors[0]["code"])
    if form == "list":
        said.body["error"]["message"] = f"The input file has {len(errors)} errors."
        said.body["errors"] = errors_in(errors, form)
    elif form == "dict":
        said.body["error"] |= errors[0]
    return said


def _check_metadata(metadata: Any) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        raise failure(400, "Invalid type for 'metadata': expected an object.", code="invalid_type", param="metadata")
    if len(metadata) > 16:
        words = f"Invalid 'metadata': too many properties. Expected at most 16, but got {len(metadata)}."
        raise failure(400, words, code="object_above_max_properties", param="metadata")
    for key, value in metadata.items():
        if not isinstance(value, str):
            words = f"Invalid type for 'metadata.{key[:64]}': expected a string."
            raise failure(400, words, code="invalid_type", param=f"metadata.{key[:64]}")
        if len(key) > 64 or len(value) > 512:
            words = "Invalid 'metadata': keys of at most 64 characters, values of at most 512."
            raise failure(400, words, code="string_above_max_length", param="metadata")


def _list(store: Store, request: Request) -> Reply:
    limit = number(request.query, "limit", 20)
    if limit is None or not 1 <= limit <= 100:
        given = request.query.get("limit")
        words = f"Invalid 'limit': expected a value of 1 to 100, but got {given} instead."
        raise failure(400, words, code="integer_above_max_value", param="limit")
    quirks = store.quirks()
    if "only_retrieve" not in quirks:
        work.settle(store, request.account, PROTOCOL, step)
    after = None if "stuck_list" in quirks else request.query.get("after")
    rows = store.page(request.account, PROTOCOL, limit + 1, after=after)
    if "stale_list" in quirks:
        rows = [work.as_created(row, "validating") for row in rows]
    return Json(_page([_json(store, row, quirks) for row in rows], limit, stuck="stuck_list" in quirks))


def _one(store: Store, request: Request, name: str) -> Reply:
    batch_id = request.path.split("/")[3]
    if name == "retrieve" or work.looked_at(store, request.account, batch_id):
        work.settle(store, request.account, PROTOCOL, step, batch_id)
    batch, quirks = store.batch(request.account, batch_id), store.quirks()
    if batch is None:
        if "missing_500" in quirks:
            raise failure(500, "Internal server error")
        raise failure(404, f"No batch found with id '{batch_id}'.", param="id")
    if name == "cancel":
        with store.work():
            batch = store.batch(request.account, batch_id) or batch
            if batch["ended_at"] is not None:
                raise failure(409, f"Cannot cancel a batch with status '{batch['status']}'.")
            if batch["cancel_at"] is None:
                store.change(batch_id, status="cancelling", cancel_at=store.now())
        batch = store.batch(request.account, batch_id) or batch
    return Json(_json(store, batch, quirks))


def _json(store: Store, batch: dict[str, Any], quirks: frozenset[str]) -> dict[str, Any]:
    told, status, ended = batch["told"], batch["status"], batch["ended_at"]
    counts = told.get("counts", {"total": 0, "completed": 0, "failed": 0})
    finalizing = ended if status == "completed" else None
    results = {} if ended is not None and work.unnamed(store, batch) else told
    if status in ("in_progress", "cancelling"):
        share = 0.0 if "never_ends" in quirks else _share(store, batch)
        counts = {**counts, "completed": int(counts["total"] * share)}
        if status == "in_progress" and share >= _FINALIZING:
            status, finalizing = "finalizing", store.now()
    return {
        "id": batch["id"],
        "object": "batch",
        "endpoint": batch["endpoint"],
        "model": batch["model"],
        "errors": told.get("errors"),
        "input_file_id": None if "no_input_file" in quirks else batch["input_file_id"],
        "completion_window": "24h",
        "status": status.upper() if "upper_case" in quirks else status,
        "output_file_id": results.get("output_file_id"),
        "error_file_id": results.get("error_file_id"),
        "created_at": None if "no_times" in quirks else batch["created_at"],
        "in_progress_at": None if batch["model"] is None else batch["created_at"],
        "expires_at": batch["created_at"] + work.WINDOW,
        "finalizing_at": finalizing,
        "completed_at": ended if status == "completed" else None,
        "failed_at": ended if status == "failed" else None,
        "expired_at": ended if status == "expired" else None,
        "cancelling_at": batch["cancel_at"],
        "cancelled_at": ended if status == "cancelled" else None,
        "request_counts": None if "no_counts" in quirks else counts,
        "metadata": batch["metadata"],
        "usage": told.get("usage"),
    }


def _share(store: Store, batch: dict[str, Any]) -> float:
    """Return which share of its time a batch under way has had, until its cancellation is done."""
    settings, until = store.settings(), store.now()
    if batch["cancel_at"] is not None:
        until = min(until, batch["cancel_at"] + settings.cancel_delay)
    return min(max(0.0, (until - batch["created_at"]) / settings.delay), 1.0) if settings.delay else 0.0
