"""The sandbox's OpenAI side: files and batches, as the vendor's Batch guide and API reference describe them."""

import codecs
import hashlib
import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nura_cli.sandbox import answers, work
from nura_cli.sandbox.http import Failure, Json, Reply, Request, SendFile
from nura_cli.sandbox.store import Store

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
MOST_REQUESTS = 50_000
MOST_BYTES = 200_000_000
MOST_INPUTS = 50_000
FILE_LASTS = 30 * 86400
WINDOW = 86400
_MOST_ERRORS = 20


def failure(status: int, message: str, kind: str = "invalid_request_error", code: str | None = None) -> Failure:
    """Return an error in the vendor's shape."""
    return Failure(status, {"error": {"message": message, "type": kind, "param": None, "code": code}})


def route(request: Request) -> str:
    """Return the name of the route of a request, for faults and the log."""
    path, method = request.path, request.method
    if path == "/v1/files":
        return "upload" if method == "POST" else "files"
    if path.startswith("/v1/files/"):
        return "download" if path.endswith("/content") else "delete" if method == "DELETE" else "file"
    if path == "/v1/batches":
        return "create" if method == "POST" else "list"
    if path.startswith("/v1/batches/"):
        return "cancel" if path.endswith("/cancel") else "retrieve"
    return "unknown"


def handle(store: Store, request: Request, name: str) -> Reply:
    """Answer a request of this protocol."""
    account = request.account
    last = request.path.split("/")
    if name == "upload":
        return _upload(store, account, request)
    if name == "files":
        return _files(store, account, request)
    if name in ("file", "download", "delete"):
        return _file(store, account, last[3], name)
    if name == "create":
        return _create(store, account, request)
    if name == "list":
        return _list(store, account, request)
    if name in ("retrieve", "cancel"):
        return _one(store, account, last[3], name)
    raise failure(404, f"Invalid URL ({request.method} {request.path})")


def _file_json(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "object": "file",
        "bytes": row["bytes"],
        "created_at": row["created_at"],
        "expires_at": row["expires_at"],
        "filename": row["filename"],
        "purpose": row["purpose"],
        "status": "processed",
        "status_details": None,
    }


def _upload(store: Store, account: str, request: Request) -> Reply:
    fields, part, filename = request.form(store.folder)
    try:
        if fields.get("purpose") != "batch":
            raise failure(400, f"'{fields.get('purpose')}' is not one of ['batch'] - 'purpose'")
        if part is None or not filename:
            raise failure(400, "Missing required parameter: 'file'.")
        if not filename.endswith(".jsonl"):
            raise failure(400, "Invalid file format for Batch API. Must be .jsonl", code="invalid_file_format")
        if part.stat().st_size > MOST_BYTES:
            raise failure(413, "File is too large: the maximum is 200 MB", code="file_too_large")
        return Json(_file_json(store.add_file(account, filename, "batch", part, FILE_LASTS)))
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def _files(store: Store, account: str, request: Request) -> Reply:
    limit = min(int(request.query.get("limit", 10_000)), 10_000)
    order = "ASC" if request.query.get("order") == "asc" else "DESC"
    after = store.db.execute("SELECT seq FROM files WHERE id = ?", (request.query.get("after"),)).fetchone()
    bound = after[0] if after else (0 if order == "ASC" else 2**62)
    compare = ">" if order == "ASC" else "<"
    rows = store.db.execute(
        f"SELECT * FROM files WHERE account = ? AND expires_at > ? AND seq {compare} ? AND (? IS NULL OR purpose = ?)"  # noqa: S608 - constants
        f" ORDER BY seq {order} LIMIT ?",
        (account, store.now(), bound, request.query.get("purpose"), request.query.get("purpose"), limit + 1),
    ).fetchall()
    data = [_file_json(dict(row)) for row in rows[:limit]]
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return Json({"object": "list", "data": data, "has_more": len(rows) > limit, **ends})


def _file(store: Store, account: str, file_id: str, name: str) -> Reply:
    row = store.file(account, file_id)
    if row is None or not store.body(file_id).exists():
        raise failure(404, f"No such File object: {file_id}")
    if name == "download":
        return SendFile(store.body(file_id), "application/octet-stream")
    if name == "delete":
        store.drop_file(file_id)
        return Json({"id": file_id, "object": "file", "deleted": True})
    return Json(_file_json(row))


def _create(store: Store, account: str, request: Request) -> Reply:
    body = request.json()
    endpoint, file_id = body.get("endpoint"), body.get("input_file_id")
    if endpoint not in ENDPOINTS:
        raise failure(400, f"Invalid value: '{endpoint}'. Supported values are: {', '.join(ENDPOINTS)}.")
    if body.get("completion_window") != "24h":
        raise failure(400, "Invalid value for 'completion_window': must be '24h'.")
    row = store.file(account, str(file_id))
    if row is None:
        raise failure(404, f"No such File object: {file_id}")
    metadata = body.get("metadata")
    _check_metadata(metadata)
    if store.quirk("no_metadata"):
        metadata = None
    batch = store.add_batch(
        account,
        "openai",
        "batch_" + secrets.token_hex(16),
        status="validating",
        endpoint=endpoint,
        input_file_id=file_id,
        metadata=metadata,
    )
    shown = _json(store, batch)
    return Json({"job": shown} if store.quirk("job_create") else shown)


def _check_metadata(metadata: Any) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict) or len(metadata) > 16:
        raise failure(400, "Invalid 'metadata': at most 16 pairs.")
    for key, value in metadata.items():
        if len(key) > 64 or not isinstance(value, str) or len(value) > 512:
            raise failure(400, "Invalid 'metadata': keys of at most 64, values of at most 512 characters.")


def _list(store: Store, account: str, request: Request) -> Reply:
    limit = int(request.query.get("limit", 20))
    if not 1 <= limit <= 100:
        raise failure(400, f"Invalid 'limit': integer above maximum value. Expected a value <= 100, but got {limit}.")
    settle(store, account)
    after = None if store.quirk("stuck_list") else request.query.get("after")
    rows = store.page(account, "openai", after, limit + 1)
    data = [_json(store, row) for row in rows[:limit]]
    more = len(rows) > limit or (store.quirk("stuck_list") and bool(rows))
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return Json({"object": "list", "data": data, "has_more": more, **ends})


def _one(store: Store, account: str, batch_id: str, name: str) -> Reply:
    batch = store.batch(account, batch_id)
    if batch is None:
        if store.quirk("missing_500"):
            raise failure(500, "Internal error", "server_error")
        raise failure(404, f"No batch found with id '{batch_id}'.")
    if name == "cancel":
        if batch["ended_at"] is not None:
            raise failure(409, f"Cannot cancel a batch with status '{batch['status']}'.")
        store.change(batch_id, status="cancelling", cancel_at=store.now())
    else:
        settle(store, account)
    return Json(_json(store, store.batch(account, batch_id) or batch))


def _json(store: Store, batch: dict[str, Any]) -> dict[str, Any]:
    told, status = batch["told"], batch["status"]
    upper = store.quirk("upper_case")
    shown = {
        "id": batch["id"],
        "object": "batch",
        "endpoint": batch["endpoint"],
        "errors": told.get("errors"),
        "input_file_id": batch["input_file_id"],
        "completion_window": "24h",
        "status": status.upper() if upper else status,
        "output_file_id": told.get("output_file_id"),
        "error_file_id": told.get("error_file_id"),
        "created_at": batch["created_at"],
        "in_progress_at": batch["created_at"] if status != "validating" else None,
        "expires_at": batch["created_at"] + WINDOW,
        "finalizing_at": None,
        "completed_at": batch["ended_at"] if status == "completed" else None,
        "failed_at": batch["ended_at"] if status == "failed" else None,
        "expired_at": batch["ended_at"] if status == "expired" else None,
        "cancelling_at": batch["cancel_at"],
        "cancelled_at": batch["ended_at"] if status == "cancelled" else None,
        "request_counts": told.get("counts", {"total": 0, "completed": 0, "failed": 0}),
        "metadata": batch["metadata"],
        "usage": told.get("usage"),
    }
    if store.quirk("no_counts"):
        shown["request_counts"] = None
    return shown


def settle(store: Store, account: str) -> None:
    """Work on the batches of an account whose time has come."""
    delay = int(store.setting("delay", 0))
    for batch in store.due(account):
        age = store.now() - batch["created_at"]
        if batch["protocol"] == "openai" and (age >= min(delay, WINDOW) or batch["cancel_at"] is not None):
            with store.work():
                fresh = store.batch(account, batch["id"])
                if fresh and fresh["ended_at"] is None:
                    _work(store, fresh, expired=delay > WINDOW)


def _work(store: Store, batch: dict[str, Any], *, expired: bool) -> None:
    afflictions = store.afflictions()
    source = store.body(batch["input_file_id"])
    refused = next((fault for fault in afflictions if fault["what"] == "refuse"), None)
    errors, total = _validate(batch, source, refused)
    if errors:
        listed = {"object": "list", "data": errors[:_MOST_ERRORS]}
        counts = {"total": 0, "completed": 0, "failed": 0}
        store.change(batch["id"], status="failed", ended_at=store.now(), told={"errors": listed, "counts": counts})
        return
    quirks = {name: store.quirk(name) for name in ("no_usage", "body_string", "empty_error_id", "empty_error_file")}

    def answer(request: work.Request, fate: work.Fate) -> work.Reply:
        return _answer(batch["endpoint"], request, fate, quirks)

    cancelled = batch["cancel_at"] is not None
    outcome = work.run(
        store, batch, _requests(source), answer, afflictions, _stranger, cancelled=cancelled, expired=expired
    )
    ended = "cancelled" if cancelled or outcome.counts.get("cancelled") else "completed"
    if outcome.counts.get("expired"):
        ended = "expired"
    told: dict[str, Any] = {}
    for part in ("output", "error"):
        if part in outcome.parts:
            row = store.add_file(
                batch["account"], f"{batch['id']}_{part}.jsonl", "batch_output", outcome.parts[part], FILE_LASTS
            )
            told[f"{part}_file_id"] = row["id"]
            if any(fault["what"] == "lost" for fault in afflictions):
                store.drop_file(row["id"])
    if "error" not in outcome.parts:
        if quirks["empty_error_file"]:
            empty = store.folder / f"{batch['id']}.empty"
            empty.write_bytes(b"")
            row = store.add_file(batch["account"], f"{batch['id']}_error.jsonl", "batch_output", empty, FILE_LASTS)
            told["error_file_id"] = row["id"]
        elif quirks["empty_error_id"]:
            told["error_file_id"] = ""
    answered = outcome.counts.get("answered", 0) + outcome.counts.get("invalid", 0)
    told["counts"] = {"total": total, "completed": answered, "failed": total - answered}
    told["usage"] = {
        "input_tokens": outcome.usage[0],
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": outcome.usage[1],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": sum(outcome.usage),
    }
    store.change(batch["id"], status=ended, ended_at=store.now(), total=total, told=told)


def _requests(source: Path) -> Iterator[work.Request]:
    with source.open("rb") as file:
        for line in file:
            if line.strip():
                found = json.loads(line)
                yield work.Request(found["custom_id"], found["body"], json.dumps(found["body"]).encode())


def _validate(batch: dict[str, Any], source: Path, refused: dict[str, Any] | None) -> tuple[list[dict[str, Any]], int]:
    """Check an input file as the vendor does after the create; return its errors and the number of requests."""
    errors: list[dict[str, Any]] = []
    seen: set[bytes] = set()
    models: set[str] = set()
    total = inputs = 0
    match = str(refused["match"]).encode() if refused and "match" in refused else None
    matched = match is None

    def wrong(code: str, message: str, line: int | None) -> None:
        errors.append({"code": code, "message": message, "line": line, "param": None})

    with source.open("rb") as file:
        for number, line in enumerate(file, 1):
            if match is not None and match in line:
                matched = True
            if number == 1 and line.startswith(codecs.BOM_UTF8):
                wrong("invalid_json_line", "This line is not parseable as valid JSON.", 1)
                continue
            if not line.strip():
                continue
            total += 1
            try:
                found = json.loads(line)
                custom_id, body = found["custom_id"], found["body"]
                if found["method"] != "POST" or not isinstance(custom_id, str) or not isinstance(body, dict):
                    raise ValueError
            except (ValueError, KeyError, TypeError, RecursionError):
                wrong("invalid_json_line", "This line is not parseable as a valid batch request.", number)
                continue
            key = hashlib.blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=12).digest()
            if key in seen:
                wrong("duplicate_custom_id", f"The custom_id '{custom_id}' has already been used.", number)
            seen.add(key)
            if found.get("url") != batch["endpoint"]:
                wrong("url_mismatch", f"The URL provided for this request does not match {batch['endpoint']}.", number)
            models.add(str(body.get("model")))
            if len(models) > 1:
                wrong("model_mismatch", "The provided model does not match the other requests in the batch.", number)
                models = {str(body.get("model"))}
            if batch["endpoint"] == "/v1/embeddings":
                inputs += len(body["input"]) if isinstance(body.get("input"), list) else 1
            if len(errors) >= _MOST_ERRORS:
                break
    if refused and matched:
        line_number = refused.get("line")
        errors = []
        wrong(refused.get("code", "token_limit_exceeded"), refused.get("message", "Refused."), line_number)
    elif not total:
        wrong("empty_file", "The input file is empty.", None)
    elif total > MOST_REQUESTS or inputs > MOST_INPUTS:
        wrong("too_many_tasks", f"The batch has more than {MOST_REQUESTS} requests or inputs.", None)
    elif any(model.startswith("no-such") for model in models):
        wrong("model_not_found", "The model does not exist, or you have no access to it.", None)
    return errors, total


def _stranger(n: int) -> work.Reply:
    body = {"choices": [{"message": {"role": "assistant", "content": "nobody asked"}, "finish_reason": "stop"}]}
    response = {"status_code": 200, "request_id": f"req_{n}", "body": body}
    line = {"id": f"batch_req_x{n}", "custom_id": f"stranger-{n}", "response": response, "error": None}
    return work.Reply("output", json.dumps(line).encode(), None)


def _answer(endpoint: str, request: work.Request, fate: work.Fate, quirks: dict[str, bool]) -> work.Reply:
    """Answer one request, as the faults have it."""
    row_id = "batch_req_" + hashlib.sha256(request.custom_id.encode()).hexdigest()[:24]
    base: dict[str, Any] = {"id": row_id, "custom_id": request.custom_id, "response": None, "error": None}
    if fate.ending in ("expired", "cancelled"):
        code = "batch_expired" if fate.ending == "expired" else "batch_cancelled"
        words = "This request could not be executed before the completion window expired."
        return _row("error", {**base, "error": {"code": code, "message": words}})
    if fate.ending == "failed":
        return _failed(base, fate.fault)
    problem = _problem(endpoint, request.body)
    if problem:
        inside = {"error": {"message": problem, "type": "invalid_request_error", "param": None, "code": None}}
        return _row("error", {**base, "response": {"status_code": 400, "request_id": row_id, "body": inside}})
    body, usage = respond(endpoint, request.body, fate.fault.get("mode", "text") if fate.ending == "invalid" else None)
    if quirks["no_usage"]:
        body.pop("usage", None)
    shown: Any = json.dumps(body) if quirks["body_string"] else body
    response = {"status_code": 200, "request_id": "req_" + row_id[10:], "body": shown}
    return _row("output", {**base, "response": response}, usage)


def _row(part: str, line: dict[str, Any], usage: tuple[int, int] | None = None) -> work.Reply:
    return work.Reply(part, json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode(), usage)


def _failed(base: dict[str, Any], fault: dict[str, Any]) -> work.Reply:
    status = int(fault.get("status", 500))
    kind = "rate_limit_exceeded" if status == 429 else "server_error" if status >= 500 else "invalid_request_error"
    error = {
        "message": fault.get("message", f"the sandbox failed this request with {status}"),
        "type": kind,
        "code": kind,
    }
    shape = fault.get("shape", "body")
    if shape == "error":
        return _row("error", {**base, "error": {"code": kind, "message": error["message"]}})
    if shape == "zero":
        return _row("error", {**base, "response": {"status_code": 0, "request_id": "", "body": None}})
    inside = {"error": error} if shape == "body" else {}
    return _row("error", {**base, "response": {"status_code": status, "request_id": "req_x", "body": inside}})


def _problem(endpoint: str, body: dict[str, Any]) -> str | None:
    """Return what the vendor's validation of a single request would say."""
    if body.get("stream"):
        return "Streaming is not supported in the Batch API."
    if endpoint == "/v1/chat/completions":
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            return "Missing required parameter: 'messages'."
        most = body.get("max_completion_tokens", body.get("max_tokens"))
        if most is not None and (not isinstance(most, int) or most < 1):
            return "Invalid 'max_completion_tokens': integer below minimum value."
    elif endpoint in ("/v1/responses", "/v1/embeddings", "/v1/moderations") and not body.get("input"):
        return "Missing required parameter: 'input'."
    elif endpoint == "/v1/completions" and "prompt" not in body:
        return "Missing required parameter: 'prompt'."
    return None


def text_of(content: Any) -> str:
    """Return the text of a message's content, a string or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(text_of(part.get("text", part.get("content", ""))) for part in content if isinstance(part, dict))
    return "" if content is None else json.dumps(content)


def speak(prompt: str, schema: Any, most: Any, mode: str | None) -> tuple[str, str]:
    """Return (text, reason) of an answer: ``stop``, ``length`` or ``refusal``, wrong where a fault wants it."""
    if mode == "refusal":
        return "I cannot help with that.", "refusal"
    text = answers.fitting(schema, prompt) if isinstance(schema, dict) else answers.plain(prompt)
    if mode in ("text", "schema", "empty"):
        return {"text": "This is not JSON.", "schema": '{"unexpected": true}', "empty": ""}[mode], "stop"
    if mode == "length" or (isinstance(most, int) and answers.tokens(text) > most):
        return text[: max(4, (most if isinstance(most, int) else 4) * 4 - 8)][: max(1, len(text) - 2)], "length"
    return text, "stop"


def respond(endpoint: str, body: dict[str, Any], mode: str | None) -> tuple[dict[str, Any], tuple[int, int]]:
    """Return a response body and the tokens it is billed."""
    ident = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:24]
    model = body.get("model", "unknown")
    if endpoint == "/v1/responses":
        return _responses(body, ident, model, mode)
    if endpoint == "/v1/embeddings":
        return _embeddings(body, model)
    if endpoint == "/v1/moderations":
        result = {"flagged": False, "categories": {}, "category_scores": {}}
        return {"id": f"modr-{ident}", "model": model, "results": [result]}, (0, 0)
    if endpoint == "/v1/completions":
        prompt = text_of(body.get("prompt"))
        text, reason = speak(prompt, None, body.get("max_tokens", 256), mode)
        usage = (answers.tokens(prompt), answers.tokens(text))
        choice = {"index": 0, "text": text, "finish_reason": reason, "logprobs": None}
        shown = {"id": f"cmpl-{ident}", "object": "text_completion", "created": 0, "model": model, "choices": [choice]}
        return {**shown, "usage": _usage(usage)}, usage
    messages = [message for message in body["messages"] if isinstance(message, dict)]
    prompt = text_of(messages[-1].get("content")) if messages else ""
    schema = (body.get("response_format") or {}).get("json_schema", {}).get("schema")
    text, reason = speak(prompt, schema, body.get("max_completion_tokens", body.get("max_tokens")), mode)
    spoken = "".join(text_of(message.get("content")) for message in messages)
    usage = (answers.tokens(spoken), answers.tokens(text))
    refused = reason == "refusal"
    message = {"role": "assistant", "content": None if refused else text, "refusal": text if refused else None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop" if refused else reason}
    shown = {"id": f"chatcmpl-{ident}", "object": "chat.completion", "created": 0, "model": model, "choices": [choice]}
    return {**shown, "usage": _usage(usage), "system_fingerprint": None}, usage


def _usage(used: tuple[int, int]) -> dict[str, Any]:
    details = {"cached_tokens": 0, "audio_tokens": 0}
    return {
        "prompt_tokens": used[0],
        "completion_tokens": used[1],
        "total_tokens": sum(used),
        "prompt_tokens_details": details,
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def _responses(
    body: dict[str, Any], ident: str, model: str, mode: str | None
) -> tuple[dict[str, Any], tuple[int, int]]:
    given = body.get("input")
    prompt = text_of(given)
    schema = ((body.get("text") or {}).get("format") or {}).get("schema")
    text, reason = speak(prompt, schema, body.get("max_output_tokens"), mode)
    usage = (answers.tokens(text_of(body.get("instructions")) + prompt), answers.tokens(text))
    part: dict[str, Any] = {"type": "output_text", "text": text, "annotations": []}
    if reason == "refusal":
        part = {"type": "refusal", "refusal": text}
    message = {"id": f"msg_{ident}", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    cut = reason == "length"
    shown = {
        "id": f"resp_{ident}",
        "object": "response",
        "created_at": 0,
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "error": None,
        "model": model,
        "output": [message],
        "usage": {
            "input_tokens": usage[0],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage[1],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": sum(usage),
        },
    }
    return shown, usage


def _embeddings(body: dict[str, Any], model: str) -> tuple[dict[str, Any], tuple[int, int]]:
    given = body["input"]
    texts = given if isinstance(given, list) and all(isinstance(item, str) for item in given) else [json.dumps(given)]
    if isinstance(given, str):
        texts = [given]
    data = [
        {"object": "embedding", "index": n, "embedding": [b / 255 for b in hashlib.sha256(text.encode()).digest()[:8]]}
        for n, text in enumerate(texts)
    ]
    used = sum(answers.tokens(text) for text in texts)
    usage = {"prompt_tokens": used, "total_tokens": used}
    return {"object": "list", "data": data, "model": model, "usage": usage}, (used, 0)


_KEY = re.compile(r"Bearer (\S+)")


def account_of(headers: Any) -> str:
    """Return the account (the key) of a request, or raise the vendor's 401."""
    match = _KEY.fullmatch(headers.get("Authorization") or "")
    if not match:
        raise failure(401, "You didn't provide an API key.", code="invalid_api_key")
    return match[1]
