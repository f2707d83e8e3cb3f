"""Working on an OpenAI batch: the check of its input file, its answers, its output and error files."""

import codecs
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nura_cli.sandbox import faults, oddities, quotas, work
from nura_cli.sandbox.exchange import private
from nura_cli.sandbox.faults import Fault
from nura_cli.sandbox.openai_errors import Problem, error_of, unpaid_body
from nura_cli.sandbox.openai_files import FILE_LASTS
from nura_cli.sandbox.openai_requests import enqueued, inputs_of, respond
from nura_cli.sandbox.store import Settings, Store

MOST_REQUESTS = 50_000
MOST_INPUTS = 50_000
_MOST_ERRORS = 20


def step(store: Store, batch: dict[str, Any], settings: Settings) -> None:
    """Move a batch as far as its time has come; the caller holds the work lock."""
    quirks = store.quirks()
    if settings.queues and batch["model"] is None and "only_retrieve" not in quirks:
        for older in store.unchecked(batch):
            _check(store, older, settings)
    found = _check(store, batch, settings) if batch["model"] is None else batch
    if found is None or "never_ends" in quirks:
        return
    end = work.deadline(found, settings)
    if not work.takes_time(found, settings) or end.at <= store.now():
        source = store.body(found["input_file_id"])
        _finish(store, found, source, store.deal(found, source), end)


def _check(store: Store, batch: dict[str, Any], settings: Settings) -> dict[str, Any] | None:
    """Check a batch's file; return the batch as it is then, or None where it has failed."""
    source = store.body(batch["input_file_id"])
    suffered = store.deal(batch, source)
    checked = _Check(store, batch, settings, suffered).run(source)
    if checked.errors:
        _fail(store, batch, checked.errors, faults.of(suffered, "refuse"))
        return None
    status = "in_progress" if batch["cancel_at"] is None else "cancelling"
    told = {**batch["told"], "counts": {"total": checked.total, "completed": 0, "failed": 0}}
    columns = {"model": checked.model, "total": checked.total, "tokens": checked.tokens, "told": told}
    store.change(batch["id"], status=status, **columns)
    return {**batch, **columns, "faults": json.dumps(suffered)}


def _fail(store: Store, batch: dict[str, Any], errors: list[dict[str, Any]], refusal: Fault | None) -> None:
    shown = oddities.echoed(errors[:_MOST_ERRORS], store.echo())
    told = {"errors": errors_in(shown, faults.choice(refusal, "errors") if refusal else "list")}
    store.change(batch["id"], status="failed", ended_at=store.now(), told=told)


def errors_in(errors: list[dict[str, Any]], form: str) -> Any:
    """Return a failed batch's errors in the form that a fault wants."""
    words = [error["message"] for error in errors]
    forms: dict[str, Any] = {
        "list": {"object": "list", "data": errors},
        "in_words": {"object": "list", "data": errors},
        "null": None,
        "string": words[0],
        "dict": {"code": errors[0]["code"], "message": words[0]},
        "strings": words,
        "data_strings": {"object": "list", "data": words},
    }
    return forms[form]


def refused_for(refusal: Fault, matched: list[int]) -> list[dict[str, Any]]:
    """Return the errors that a ``refuse`` wants of a batch in whose file the lines ``matched`` (from 1) hold its text."""
    named = {"match": matched[:1], "matches": matched}.get(str(refusal.get("line")), [refusal.get("line")])
    code, words = refusal.get("code", "token_limit_exceeded"), refusal.get("message", "Refused.")
    if faults.choice(refusal, "errors") == "in_words" and any(named):
        named, words = [None], f"Line{'s' * (len(named) > 1)} {' and '.join(map(str, named))}: {words}"
    return [{"code": code, "message": words, "line": line, "param": None} for line in named or [None]]


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
        self._output = "output_counts" in store.quirks()
        self._refusal = faults.of(suffered, "refuse")
        self._matched: list[int] = []

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
            self._matched.append(n)
        if not line.strip():
            return
        self.total += 1
        # A byte order mark is not JSON, and json.loads would take it.
        found = None if line.startswith(codecs.BOM_UTF8) else _parsed(line)
        if not isinstance(found, dict) or not _sound(found):
            self._wrong("invalid_json_line", "This line is not parseable as valid JSON.", n)
            return
        for name, kind in (("custom_id", str), ("method", str), ("url", str), ("body", dict)):
            if not isinstance(found.get(name), kind):
                self._wrong("missing_required_parameter", f"Missing required parameter: '{name}'.", n, name)
                return
        self._request(n, found)

    def _request(self, n: int, found: dict[str, Any]) -> None:
        key = hashlib.blake2b(found["custom_id"].encode(), digest_size=12).digest()
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
        self.tokens += enqueued(self._batch["endpoint"], body, output=self._output)
        if self._batch["endpoint"] == "/v1/embeddings":
            self._inputs += inputs_of(body)

    def _whole(self) -> None:
        if self._refusal:
            self.errors = refused_for(self._refusal, self._matched)
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
        else:
            self._queue(self.model)

    def _queue(self, model: str) -> None:
        """Refuse a batch for which there was no room in its queue when it was created."""
        queue = quotas.of_model(self._settings.queues, model)
        if not queue:
            return
        store, account, at = self._store, self._batch["account"], self._batch["created_at"]
        since = at - self._settings.release_delay
        rows = store.waiting(account, "openai", model, before=self._batch["seq"], since=since)
        waiting = work.waiting(rows, self._settings, at, for_ever="never_ends" in store.quirks())
        found = quotas.full(queue, waiting, quotas.Load(self.tokens, self.total))
        if found:
            said = faults.of(store.standing(), "full_queue") or {"what": "full_queue"}
            words = quotas.openai_words(found, model, store.organization(account), faults.choice(said, "words"))
            code = said.get("code") if found.what == "requests" else None
            self._wrong(code or "token_limit_exceeded", words)


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None


def _sound(found: dict[str, Any]) -> bool:
    """Return whether a line's custom_id and model can be said in UTF-8: a lone surrogate cannot."""
    body = found.get("body")
    names = [found.get("custom_id"), body.get("model") if isinstance(body, dict) else None]
    try:
        return all(name.encode() is not None for name in names if isinstance(name, str))
    except UnicodeEncodeError:
        return False


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _finish(store: Store, batch: dict[str, Any], source: Path, suffered: list[Fault], end: work.Deadline) -> None:
    answerer = _Answerer(batch, end.at, store.quirks())
    outcome = work.run(store, batch, _requests(source), answerer.answer, answerer.stranger, suffered, end)
    counts = outcome.counts
    status = end.ending or "completed"
    if faults.of(suffered, "expire"):
        status = "expired"
    elif faults.of(suffered, "cancel"):
        status = "cancelled"
    # A request that expired or was cancelled is counted as neither (github.com/warmbly/warmbly/pull/333 saw 10, 1, 0).
    shown = {"total": batch["total"], "completed": counts.get("answered", 0), "failed": counts.get("failed", 0)}
    told = {
        **_result_files(store, batch, outcome, end, suffered),
        "counts": shown,
        "usage": {
            "input_tokens": outcome.usage[0],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": outcome.usage[1],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": sum(outcome.usage),
        },
    }
    stopped = end.at if faults.of(suffered, "cancel") else batch["cancel_at"]
    store.change(batch["id"], status=status, ended_at=end.at, cancel_at=stopped, told=told)
    if store.file(batch["account"], batch["input_file_id"]) is None:
        store.discard(batch["input_file_id"])


def _result_files(
    store: Store, batch: dict[str, Any], outcome: work.Outcome, end: work.Deadline, suffered: list[Fault]
) -> dict[str, Any]:
    """Keep what was written as files, by ids that work done anew would give again; return the batch's fields for them."""
    quirks, told, parts = store.quirks(), {}, dict(outcome.parts)
    if any(fault["what"] in ("expire", "cancel") and not fault.get("files", True) for fault in suffered):
        for path in (*outcome.parts.values(), *outcome.short.values()):
            path.unlink()
        return {}
    if "error" not in parts and "empty_error_file" in quirks:
        parts["error"] = store.folder / f"{batch['id']}.error.part"
        private(parts["error"]).close()
    if "error" not in parts and "empty_error_id" in quirks:
        told["error_file_id"] = ""
    lasts = int(batch["told"].get("lasts", FILE_LASTS))
    for part, path in parts.items():
        file_id = "file-" + hashlib.sha256(f"{batch['id']}.{part}".encode()).hexdigest()[:24]
        store.add_file(batch["account"], file_id, f"{batch['id']}_{part}.jsonl", "batch_output", path, lasts, end.at)
        if part in outcome.short:
            store.add_short(file_id, outcome.short[part], work.complete_at(suffered, end), end.at)
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

    def __init__(self, batch: dict[str, Any], at: int, quirks: frozenset[str]) -> None:
        self._batch = batch
        self._at = at
        self._quirks = quirks

    def answer(self, request: work.Request, fate: work.Fate) -> work.Reply:
        """Return the line of one request, as its fate has it."""
        ident = hashlib.sha256(f"{self._batch['id']}{request.custom_id}".encode()).hexdigest()[:24]
        base = {"id": f"batch_req_{ident}", "custom_id": request.custom_id, "response": None, "error": None}
        if fate.ending in ("expired", "cancelled"):
            return _unanswered(base, fate.ending)
        if fate.ending == "failed":
            return _failed(base, fate.fault, ident)
        if fate.ending == "unpaid":
            body = unpaid_body(quotas.openai_unpaid("rows"))
            return _row("error", {**base, "response": _response(429, ident, body)}, "failed")
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
    inside = error_of(status, fault.get("message", f"the sandbox failed this request with {status}"))
    inside["error"] |= {"code": fault.get("code", inside["error"]["type"]), "param": fault.get("param")}
    if shape == "error":
        error = {"code": inside["error"]["code"], "message": inside["error"]["message"]}
        return _row("error", {**base, "error": error}, "failed")
    if shape == "zero":
        return _row("error", {**base, "response": {"status_code": 0, "request_id": "", "body": None}}, "failed")
    body = {"body": inside, "bare": inside["error"]}.get(shape, {})
    return _row("error", {**base, "response": _response(status, ident, body)}, "failed")
