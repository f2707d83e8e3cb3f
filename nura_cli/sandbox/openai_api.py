"""The sandbox's OpenAI side: files and batches, as the vendor's Batch guide and API reference describe them."""

import codecs
import hashlib
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nura_cli.sandbox import answers, faults, work
from nura_cli.sandbox.exchange import Failure, Json, Reply, Request, SendFile, number, private
from nura_cli.sandbox.faults import Fault
from nura_cli.sandbox.openai_requests import Problem, inputs_of, respond, text_of
from nura_cli.sandbox.store import Settings, Store, account_of

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
_LASTS = range(3600, 2_592_001)
_MOST_ERRORS = 20
_FINALIZING = 0.95
"""From this share of its time on, a batch is being finalized."""


def failure(
    status: int,
    message: str,
    kind: str | None = None,
    code: str | None = None,
    param: str | None = None,
    headers: dict[str, str] | None = None,
) -> Failure:
    """Return an error in the vendor's shape."""
    kinds = {429: "rate_limit_exceeded", 403: "permission_error"}
    kind = kind or kinds.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return Failure(status, {"error": {"message": message, "type": kind, "param": param, "code": code}}, headers=headers)


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
    }
    if not request.path.startswith("/v1/") or not parts:
        return "unknown"
    return routes.get((parts[0], len(parts)), {}).get(method, "unknown")


def account(headers: Any) -> str:
    """Return the account of a request, or raise the vendor's 401."""
    scheme, _, key = (headers.get("Authorization") or "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise failure(401, "You didn't provide an API key.", code="invalid_api_key")
    return account_of(key.strip())


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
    if name == "create":
        return _create(store, request)
    if name == "list":
        return _list(store, request)
    if name in ("retrieve", "cancel"):
        return _one(store, request, name)
    raise failure(404, f"Invalid URL ({request.method} {request.path})")


# Files


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


def _upload(store: Store, request: Request) -> Reply:
    form = request.form(store.folder, MOST_BYTES)
    try:
        if form.path is None or not form.filename:
            raise failure(400, "'file' is a required property", param="file")
        if form.fields.get("purpose") != "batch":
            raise failure(400, f"'{form.fields.get('purpose')}' is not one of ['batch'] - 'purpose'", param="purpose")
        if not form.filename.endswith(".jsonl"):
            raise failure(400, "Invalid file format for Batch API. Must be .jsonl", code="invalid_file_format")
        if form.size > MOST_BYTES:
            raise failure(413, f"File is too large: {form.size} bytes, at most {MOST_BYTES}.", code="file_too_large")
        lasts = _lasts(form.fields.get("expires_after[anchor]"), form.fields.get("expires_after[seconds]"))
        file_id = "file-" + secrets.token_hex(12)
        return Json(_file_json(store.add_file(request.account, file_id, form.filename, "batch", form.path, lasts)))
    finally:
        if form.path is not None:
            form.path.unlink(missing_ok=True)


def _lasts(anchor: Any, seconds: Any) -> int:
    """Return for how many seconds a file is kept, by its ``expires_after``."""
    if anchor is None and seconds is None:
        return FILE_LASTS
    given = str(seconds)
    if anchor != "created_at" or not given.isdigit() or int(given) not in _LASTS:
        raise failure(400, "Invalid 'expires_after': created_at, and 3600 to 2592000 seconds.", param="expires_after")
    return int(given)


def _files(store: Store, request: Request) -> Reply:
    limit, order = number(request.query, "limit", 10_000), request.query.get("order", "desc")
    if limit is None or not 1 <= limit <= 10_000:
        raise failure(400, "Invalid 'limit': expected a value of 1 to 10000.", param="limit")
    if order not in ("asc", "desc"):
        raise failure(400, f"Invalid value: '{order}'. Supported values are: 'asc' and 'desc'.", param="order")
    after = None if "stuck_list" in store.quirks() else request.query.get("after")
    purpose = request.query.get("purpose")
    rows = store.files(request.account, purpose, after, limit + 1, ascending=order == "asc")
    return Json(_page([_file_json(row) for row in rows], limit, stuck="stuck_list" in store.quirks()))


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
        return SendFile(store.body(file_id), "application/octet-stream")
    if name == "delete":
        store.drop_file(file_id)
        return Json({"id": file_id, "object": "file", "deleted": True})
    return Json(_file_json(row))


# Batches


def _create(store: Store, request: Request) -> Reply:
    try:
        body = request.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise failure(400, "We could not parse the JSON body of your request.")
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
    lasts = _lasts(after.get("anchor"), after.get("seconds")) if isinstance(after, dict) else FILE_LASTS
    row = store.file(request.account, body["input_file_id"])
    if row is None or row["purpose"] != "batch":
        raise failure(404, f"No such File object: {body['input_file_id']}", param="input_file_id")
    quirks = store.quirks()
    batch = store.add_batch(
        request.account,
        "openai",
        "batch_" + secrets.token_hex(16),
        status="validating",
        endpoint=body["endpoint"],
        input_file_id=row["id"],
        metadata=None if "no_metadata" in quirks else metadata,
    )
    store.change(batch["id"], told={"lasts": lasts})
    shown = _json(store, batch, quirks)
    return Json({"job": shown} if "job_create" in quirks else shown)


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
    work.settle(store, request.account, "openai", step)
    quirks = store.quirks()
    after = None if "stuck_list" in quirks else request.query.get("after")
    rows = store.page(request.account, "openai", limit + 1, after=after)
    return Json(_page([_json(store, row, quirks) for row in rows], limit, stuck="stuck_list" in quirks))


def _one(store: Store, request: Request, name: str) -> Reply:
    batch_id = request.path.split("/")[3]
    if name == "retrieve":
        work.settle(store, request.account, "openai", step, batch_id)
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
    if status == "in_progress":
        share = _share(store, batch)
        counts = {**counts, "completed": int(counts["total"] * share)}
        if share >= _FINALIZING:
            status, finalizing = "finalizing", store.now()
    return {
        "id": batch["id"],
        "object": "batch",
        "endpoint": batch["endpoint"],
        "model": batch["model"],
        "errors": told.get("errors"),
        "input_file_id": batch["input_file_id"],
        "completion_window": "24h",
        "status": status.upper() if "upper_case" in quirks else status,
        "output_file_id": told.get("output_file_id"),
        "error_file_id": told.get("error_file_id"),
        "created_at": batch["created_at"],
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
    """Return which share of its time a batch under way has had."""
    delay = store.settings().delay
    return min(max(0.0, (store.now() - batch["created_at"]) / delay), 1.0) if delay else 0.0


# Working on a batch


def step(store: Store, batch: dict[str, Any], settings: Settings) -> None:
    """Move a batch as far as its time has come; the caller holds the work lock."""
    source = store.body(batch["input_file_id"])
    suffered = store.deal(batch, source)
    if batch["model"] is None:
        checked = _Check(store, batch, settings, suffered).run(source)
        if checked.errors:
            _fail(store, batch, checked.errors)
            return
        status = "in_progress" if batch["cancel_at"] is None else "cancelling"
        told = {**batch["told"], "counts": {"total": checked.total, "completed": 0, "failed": 0}}
        columns = {"model": checked.model, "total": checked.total, "tokens": checked.tokens, "told": told}
        store.change(batch["id"], status=status, **columns)
        batch = {**batch, **columns}
    end = work.deadline(batch["created_at"], batch["cancel_at"], settings.delay)
    if settings.delay == 0 or end.at <= store.now():
        _finish(store, batch, source, suffered, end)


def _fail(store: Store, batch: dict[str, Any], errors: list[dict[str, Any]]) -> None:
    told = {"errors": {"object": "list", "data": errors[:_MOST_ERRORS]}}
    store.change(batch["id"], status="failed", ended_at=store.now(), told=told)


class _Check:
    """The check of an input file, as the vendor does it after the create."""

    def __init__(self, store: Store, batch: dict[str, Any], settings: Settings, suffered: list[Fault]) -> None:
        self.errors: list[dict[str, Any]] = []
        self.total = self.tokens = 0
        self.model: str | None = None
        self._inputs = 0
        self._seen: set[bytes] = set()
        self._store = store
        self._batch = batch
        self._settings = settings
        self._refusal = faults.of(suffered, "refuse")
        self._matched: int | None = None

    def run(self, source: Path) -> "_Check":
        try:
            with source.open("rb") as file:
                for n, line in enumerate(file, 1):
                    self._line(n, line)
                    if len(self.errors) >= _MOST_ERRORS:
                        return self
        except FileNotFoundError:
            self._wrong("file_not_found", "The input file no longer exists.")
            return self
        self._whole()
        return self

    def _wrong(self, code: str, message: str, line: int | None = None, param: str | None = None) -> None:
        self.errors.append({"code": code, "message": message, "line": line, "param": param})

    def _line(self, n: int, line: bytes) -> None:
        if self._refusal and "match" in self._refusal and str(self._refusal["match"]).encode() in line:
            self._matched = self._matched or n
        if not line.strip():
            return
        self.total += 1
        # A byte order mark is not JSON, and json.loads would take it.
        found = None if line.startswith(codecs.BOM_UTF8) else _parsed(line)
        if not isinstance(found, dict):
            self._wrong("invalid_json_line", "This line is not parseable as valid JSON.", n)
            return
        for name, kind in (("custom_id", str), ("method", str), ("url", str), ("body", dict)):
            if not isinstance(found.get(name), kind):
                self._wrong("missing_required_parameter", f"Missing required parameter: '{name}'.", n, name)
                return
        self._request(n, found)

    def _request(self, n: int, found: dict[str, Any]) -> None:
        key = hashlib.blake2b(found["custom_id"].encode("utf-8", "surrogatepass"), digest_size=12).digest()
        if key in self._seen:
            self._wrong("duplicate_custom_id", f"The custom_id '{found['custom_id']}' is used twice.", n, "custom_id")
        self._seen.add(key)
        if found["method"] != "POST":
            self._wrong("invalid_method", "The HTTP method must be POST.", n, "method")
        if found["url"] != self._batch["endpoint"]:
            self._wrong("url_mismatch", "The URL does not match the batch's endpoint.", n, "url")
        body = found["body"]
        model = body.get("model")
        if not isinstance(model, str) or not model:
            self._wrong("missing_required_parameter", "Missing required parameter: 'body.model'.", n, "body.model")
        elif self.model not in (None, model):
            self._wrong("model_mismatch", "All requests of a batch must be for one model.", n, "body.model")
        else:
            self.model = model
        self.tokens += answers.tokens(text_of(body.get("messages", body.get("input", body.get("prompt")))))
        if self._batch["endpoint"] == "/v1/embeddings":
            self._inputs += inputs_of(body)

    def _whole(self) -> None:
        if self._refusal:
            line = self._refusal.get("line")
            code, words = self._refusal.get("code", "token_limit_exceeded"), self._refusal.get("message", "Refused.")
            self.errors = []
            self._wrong(code, words, self._matched if line == "match" else line)
        elif self.errors:
            return
        elif not self.total:
            self._wrong("empty_file", "The batch input file is empty.")
        elif self.total > MOST_REQUESTS:
            self._wrong("too_many_tasks", f"The batch has {self.total} requests, at most {MOST_REQUESTS} are allowed.")
        elif self._inputs > MOST_INPUTS:
            self._wrong("too_many_inputs", f"The batch has {self._inputs} inputs, at most {MOST_INPUTS} are allowed.")
        elif self.model is None or not work.exists(self.model, self._settings.models):
            self._wrong("model_not_found", f"The model `{self.model}` does not exist.", None, "body.model")
        elif self._settings.token_limit:
            self._queue(self._settings.token_limit)

    def _queue(self, limit: int) -> None:
        waiting = self._store.waiting_tokens(self._batch["account"], self.model or "")
        if waiting + self.tokens > limit:
            words = f"Enqueued token limit reached for {self.model}. Limit: {limit} enqueued tokens."
            self._wrong("token_limit_exceeded", words)


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _finish(store: Store, batch: dict[str, Any], source: Path, suffered: list[Fault], end: work.Deadline) -> None:
    answerer = _Answerer(batch, end.at, store.quirks(), suffered)
    outcome = work.run(store, batch, _requests(source), answerer.answer, answerer.stranger, suffered, end)
    counts = outcome.counts
    status = end.ending or "completed"
    if faults.of(suffered, "expire"):
        status = "expired"
    elif faults.of(suffered, "cancel"):
        status = "cancelled"
    answered = counts.get("answered", 0)
    told = {
        **_result_files(store, batch, outcome, end.at, suffered),
        "counts": {"total": batch["total"], "completed": answered, "failed": batch["total"] - answered},
        "usage": {
            "input_tokens": outcome.usage[0],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": outcome.usage[1],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": sum(outcome.usage),
        },
    }
    store.change(batch["id"], status=status, ended_at=end.at, told=told)
    if store.file(batch["account"], batch["input_file_id"]) is None:
        store.discard(batch["input_file_id"])


def _result_files(
    store: Store, batch: dict[str, Any], outcome: work.Outcome, at: int, suffered: list[Fault]
) -> dict[str, Any]:
    """Keep what was written as files, by ids that work done anew would give again; return the batch's fields for them."""
    quirks, told, parts = store.quirks(), {}, dict(outcome.parts)
    if "error" not in parts and "empty_error_file" in quirks:
        parts["error"] = store.folder / f"{batch['id']}.error.part"
        private(parts["error"]).close()
    if "error" not in parts and "empty_error_id" in quirks:
        told["error_file_id"] = ""
    lasts = int(batch["told"].get("lasts", FILE_LASTS))
    for part, path in parts.items():
        file_id = "file-" + hashlib.sha256(f"{batch['id']}.{part}".encode()).hexdigest()[:24]
        store.add_file(batch["account"], file_id, f"{batch['id']}_{part}.jsonl", "batch_output", path, lasts, at)
        told[f"{part}_file_id"] = file_id
        if faults.of(suffered, "lost"):
            store.drop_file(file_id)
    if faults.of(suffered, "no_output"):
        told.pop("output_file_id", None)
    return told


def _requests(source: Path) -> Iterator[work.Request]:
    with source.open("rb") as file:
        for line in file:
            if line.strip():
                found = json.loads(line)
                yield work.Request(found["custom_id"], found["body"], work.encoded(found["body"]))


class _Answerer:
    """Makes the lines of a batch's output and error file."""

    def __init__(self, batch: dict[str, Any], at: int, quirks: frozenset[str], suffered: list[Fault]) -> None:
        self._batch = batch
        self._at = at
        self._quirks = quirks

    def answer(self, request: work.Request, fate: work.Fate) -> work.Reply:
        """Return the line of one request, as its fate has it."""
        ident = hashlib.sha256(f"{self._batch['id']}{request.custom_id}".encode("utf-8", "surrogatepass")).hexdigest()[
            :24
        ]
        base = {"id": f"batch_req_{ident}", "custom_id": request.custom_id, "response": None, "error": None}
        if fate.ending in ("expired", "cancelled"):
            return _unanswered(base, fate.ending)
        if fate.ending == "failed":
            return _failed(base, fate.fault, ident)
        mode = fate.fault.get("mode", "text") if fate.ending == "invalid" else None
        try:
            body, usage = respond(self._batch["endpoint"], request.body, self._at, mode)
        except Problem as problem:
            error = {
                "message": problem.message,
                "type": "invalid_request_error",
                "param": problem.param,
                "code": problem.code,
            }
            return _row("error", {**base, "response": _response(400, ident, {"error": error})}, "failed")
        if "no_usage" in self._quirks:
            body.pop("usage", None)
        shown = json.dumps(body) if "body_string" in self._quirks else body
        return _row("output", {**base, "response": _response(200, ident, shown)}, "answered", usage)

    def stranger(self, n: int) -> work.Reply:
        """Return a line that answers nobody's request."""
        body = respond("/v1/completions", {"prompt": f"stranger {n}", "model": "unknown"}, self._at).body
        line = {"id": f"batch_req_stranger{n}", "custom_id": f"stranger-{n}", "response": _response(200, f"{n}", body)}
        return _row("output", {**line, "error": None}, "foreign")


def _response(status: int, ident: str, body: Any) -> dict[str, Any]:
    return {"status_code": status, "request_id": f"req_{ident}", "body": body}


def _row(part: str, line: dict[str, Any], ending: str, usage: tuple[int, int] | None = None) -> work.Reply:
    return work.Reply(part, work.encoded(line), ending, usage)


def _unanswered(base: dict[str, Any], ending: str) -> work.Reply:
    words = {
        "expired": "This request could not be executed before the completion window expired.",
        "cancelled": "This request was not executed because its batch was cancelled.",
    }
    error = {"code": f"batch_{ending}", "message": words[ending]}
    return _row("error", {**base, "error": error}, ending)


def _failed(base: dict[str, Any], fault: Fault, ident: str) -> work.Reply:
    status, shape = int(fault.get("status", 500)), fault.get("shape", "body")
    inside = failure(status, fault.get("message", f"the sandbox failed this request with {status}")).body
    inside["error"]["code"] = inside["error"]["type"]
    if shape == "error":
        error = {"code": inside["error"]["code"], "message": inside["error"]["message"]}
        return _row("error", {**base, "error": error}, "failed")
    if shape == "zero":
        return _row("error", {**base, "response": {"status_code": 0, "request_id": "", "body": None}}, "failed")
    return _row("error", {**base, "response": _response(status, ident, inside if shape == "body" else {})}, "failed")
