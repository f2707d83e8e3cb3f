"""The sandbox's Anthropic side: Message Batches, as the vendor's guide and API reference describe them."""

import codecs
import hashlib
import json
import re
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from nura_cli.sandbox import answers, work
from nura_cli.sandbox.http import Failure, Json, Reply, Request, SendFile
from nura_cli.sandbox.openai_api import speak, text_of
from nura_cli.sandbox.store import Store

MOST_REQUESTS = 100_000
MOST_BYTES = 256_000_000
WINDOW = 86400
RESULTS_LAST = 29 * 86400
STRICT_SINCE = "2026-10-21"
"""From this ``anthropic-version`` on, sampling parameters are refused, even at their default values."""
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_EDGE = (
    b"<html><head><title>413 Request Entity Too Large</title></head><body>413 Request Entity Too Large</body></html>"
)


def failure(status: int, message: str, kind: str = "invalid_request_error") -> Failure:
    """Return an error in the vendor's shape."""
    return Failure(status, {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_sandbox"})


def route(request: Request) -> str:
    """Return the name of the route of a request, for faults and the log."""
    rest = request.path.removeprefix("/v1/messages/batches").strip("/").split("/")
    if rest == [""]:
        return "create" if request.method == "POST" else "list"
    if len(rest) == 2:
        return {"results": "download", "cancel": "cancel"}.get(rest[1], "unknown")
    return "delete" if request.method == "DELETE" else "retrieve"


def handle(store: Store, request: Request, name: str) -> Reply:
    """Answer a request of this protocol."""
    account = request.account
    if name == "create":
        return _create(store, account, request)
    if name == "list":
        return _list(store, account, request)
    batch_id = request.path.removeprefix("/v1/messages/batches/").split("/")[0]
    if name != "cancel":
        settle(store, account)
    batch = store.batch(account, batch_id)
    if batch is None:
        raise failure(404, f"Message batch {batch_id} was not found.", "not_found_error")
    if name == "retrieve":
        return Json(_json(request.url, batch))
    if name == "cancel":
        return _cancel(store, request, batch)
    if name == "delete":
        if batch["ended_at"] is None:
            raise failure(409, "Only batches that have ended can be deleted.")
        store.drop_batch(batch_id)
        store.body(f"{batch_id}.results").unlink(missing_ok=True)
        return Json({"id": batch_id, "type": "message_batch_deleted"})
    if name == "download":
        path = store.body(f"{batch_id}.results")
        if batch["ended_at"] is None or not path.exists() or store.now() > batch["created_at"] + RESULTS_LAST:
            raise failure(404, "The results of this batch are not available.", "not_found_error")
        return SendFile(path, "application/x-jsonl")
    raise failure(404, "Not found", "not_found_error")


def _cancel(store: Store, request: Request, batch: dict[str, Any]) -> Reply:
    if batch["ended_at"] is not None:
        raise failure(409, "The batch has already ended.")
    store.change(batch["id"], status="canceling", cancel_at=store.now())
    return Json(_json(request.url, store.batch(request.account, batch["id"]) or batch))


def _create(store: Store, account: str, request: Request) -> Reply:
    part = store.folder / f"create-{secrets.token_hex(8)}.part"
    try:
        size = request.save(part, MOST_BYTES)
        if size > MOST_BYTES:
            raise Failure(413, _EDGE, "text/html")
        seen: set[str] = set()
        for element in elements(part):
            custom_id = element.get("custom_id") if isinstance(element, dict) else None
            if not isinstance(custom_id, str) or not _CUSTOM_ID.fullmatch(custom_id):
                raise failure(400, "requests: custom_id must match ^[a-zA-Z0-9_-]{1,64}$")
            if custom_id in seen:
                raise failure(400, f"requests: custom_id '{custom_id}' is used twice")
            if not isinstance(element.get("params"), dict):
                raise failure(400, "requests: params: Field required")
            seen.add(custom_id)
        if not 1 <= len(seen) <= MOST_REQUESTS:
            raise failure(400, f"requests: must have between 1 and {MOST_REQUESTS} items, has {len(seen)}")
        refused = store.refusal(part)
        if refused:
            raise failure(int(refused.get("status", 400)), refused.get("message", "Refused."))
        batch_id = "msgbatch_" + secrets.token_hex(12)
        part.replace(store.body(f"{batch_id}.requests"))
        batch = store.add_batch(
            account,
            "anthropic",
            batch_id,
            status="in_progress",
            total=len(seen),
            endpoint=request.headers.get("anthropic-version", ""),
        )
        return Json(_json(request.url, batch))
    except ValueError as error:
        raise failure(400, f"The request body is not valid JSON: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def elements(path: Path) -> Iterator[Any]:
    """Yield the elements of the ``requests`` array of a body, one at a time. Raises ValueError where it is not JSON."""
    decoder = json.JSONDecoder()
    with path.open("rb") as file:
        window = _Window(file)
        if not window.skip_to("["):
            raise ValueError("no requests")
        while True:
            mark = window.next_mark()
            if mark == "]":
                return
            yield window.decode(decoder)


class _Window:
    """A sliding piece of text over a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")()
        self._file = file
        self._text = ""
        self._at = 0
        self._done = False

    def _more(self) -> bool:
        data = self._file.read(1 << 18)
        self._text = self._text[self._at :] + self._decode.decode(data, final=not data)
        self._at = 0
        self._done = not data
        return bool(data)

    def skip_to(self, mark: str) -> bool:
        """Move behind the first ``mark`` of the body's head."""
        self._more()
        found = self._text.find(mark)
        self._at = found + 1
        return found >= 0 and '"requests"' in self._text[:found]

    def next_mark(self) -> str:
        """Move to the next element, or return the ``]`` that ends the array."""
        while True:
            while self._at < len(self._text):
                character = self._text[self._at]
                if character == "]":
                    return "]"
                if character not in " \t\r\n,":
                    return character
                self._at += 1
            if not self._more():
                raise ValueError("the array does not end")

    def decode(self, decoder: json.JSONDecoder) -> Any:
        """Return the element that begins here, reading on until it is whole."""
        while True:
            try:
                value, end = decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError:
                if self._done or not self._more():
                    raise
            else:
                self._at = end
                return value


def _list(store: Store, account: str, request: Request) -> Reply:
    limit = int(request.query.get("limit", 20))
    if not 1 <= limit <= 1000:
        raise failure(400, "limit: must be between 1 and 1000")
    settle(store, account)
    stuck = store.quirk("stuck_list")
    rows = store.page(account, "anthropic", None if stuck else request.query.get("after_id"), limit + 1)
    data = [_json(request.url, row) for row in rows[:limit]]
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return Json({"data": data, "has_more": len(rows) > limit or (stuck and bool(rows)), **ends})


def _json(url: str, batch: dict[str, Any]) -> dict[str, Any]:
    counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
    counts |= batch["told"].get("counts") or {"processing": batch["total"]}
    ended = batch["ended_at"] is not None
    return {
        "id": batch["id"],
        "type": "message_batch",
        "processing_status": batch["status"],
        "request_counts": counts,
        "created_at": _time(batch["created_at"]),
        "expires_at": _time(batch["created_at"] + WINDOW),
        "ended_at": _time(batch["ended_at"]),
        "cancel_initiated_at": _time(batch["cancel_at"]),
        "archived_at": None,
        "results_url": f"{url}/v1/messages/batches/{batch['id']}/results" if ended else None,
    }


def _time(at: int | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000000Z")


def settle(store: Store, account: str) -> None:
    """Work on the batches of an account whose time has come."""
    delay = int(store.setting("delay", 0))
    for batch in store.due(account):
        age = store.now() - batch["created_at"]
        if batch["protocol"] == "anthropic" and (age >= min(delay, WINDOW) or batch["cancel_at"] is not None):
            with store.work():
                fresh = store.batch(account, batch["id"])
                if fresh and fresh["ended_at"] is None:
                    _work(store, fresh, expired=delay > WINDOW)


def _work(store: Store, batch: dict[str, Any], *, expired: bool) -> None:
    afflictions = store.afflictions()
    source = store.body(f"{batch['id']}.requests")
    strict = batch["endpoint"] >= STRICT_SINCE
    counts = dict.fromkeys(("succeeded", "errored", "canceled", "expired"), 0)

    def answer(request: work.Request, fate: work.Fate) -> work.Reply:
        reply, ending = _answer(request, fate, strict)
        counts[ending] += 1
        return reply

    cancelled = batch["cancel_at"] is not None
    outcome = work.run(
        store, batch, _requests(source), answer, afflictions, _stranger, cancelled=cancelled, expired=expired
    )
    target = store.body(f"{batch['id']}.results")
    if any(fault["what"] == "lost" for fault in afflictions):
        for path in outcome.parts.values():
            path.unlink()
    elif "results" in outcome.parts:
        outcome.parts["results"].replace(target)
    else:
        target.write_bytes(b"")
    store.change(batch["id"], status="ended", ended_at=store.now(), told={"counts": counts})
    source.unlink(missing_ok=True)


def _requests(source: Path) -> Iterator[work.Request]:
    for found in elements(source):
        yield work.Request(found["custom_id"], found["params"], json.dumps(found["params"]).encode())


def _line(custom_id: str, result: dict[str, Any], usage: tuple[int, int] | None = None) -> work.Reply:
    text = json.dumps({"custom_id": custom_id, "result": result}, ensure_ascii=False, separators=(",", ":"))
    return work.Reply("results", text.encode(), usage)


def _stranger(n: int) -> work.Reply:
    return _line(f"stranger-{n}", {"type": "expired"})


def _errored(custom_id: str, kind: str, message: str) -> work.Reply:
    error = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_x"}
    return _line(custom_id, {"type": "errored", "error": error})


_KINDS = {400: "invalid_request_error", 403: "permission_error", 429: "rate_limit_error", 529: "overloaded_error"}


def _answer(request: work.Request, fate: work.Fate, strict: bool) -> tuple[work.Reply, str]:
    if fate.ending in ("expired", "cancelled"):
        ending = "expired" if fate.ending == "expired" else "canceled"
        return _line(request.custom_id, {"type": ending}), ending
    if fate.ending == "failed":
        status = int(fate.fault.get("status", 500))
        words = fate.fault.get("message", f"the sandbox failed this request with {status}")
        return _errored(request.custom_id, _KINDS.get(status, "api_error"), words), "errored"
    problem = problem_of(request.body, strict)
    if problem:
        return _errored(request.custom_id, "invalid_request_error", problem), "errored"
    mode = fate.fault.get("mode", "text") if fate.ending == "invalid" else None
    message, usage = respond(request.body, mode)
    return _line(request.custom_id, {"type": "succeeded", "message": message}, usage), "succeeded"


def problem_of(params: dict[str, Any], strict: bool) -> str | None:
    """Return what the vendor's validation of a single request would say."""
    most = params.get("max_tokens")
    if not isinstance(params.get("model"), str):
        return "model: Field required"
    if not isinstance(most, int) or isinstance(most, bool):
        return "max_tokens: Field required"
    if most < 1:
        return "max_tokens: must be greater than or equal to 1"
    if not isinstance(params.get("messages"), list) or not params["messages"]:
        return "messages: Field required"
    refused: list[str] = [name for name in ("stream", "speed", "store") if name in params]
    if strict:
        refused += [name for name in ("temperature", "top_p", "top_k") if name in params]
    return f"{refused[0]}: Extra inputs are not permitted" if refused else None


def respond(params: dict[str, Any], mode: str | None) -> tuple[dict[str, Any], tuple[int, int]]:
    """Return a message and the tokens it is billed."""
    ident = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:24]
    messages = [message for message in params["messages"] if isinstance(message, dict)]
    prompt = text_of(messages[-1].get("content")) if messages else ""
    schema = ((params.get("output_config") or {}).get("format") or {}).get("schema")
    text, reason = speak(prompt, schema, params["max_tokens"], mode)
    spoken = text_of(params.get("system")) + "".join(text_of(message.get("content")) for message in messages)
    usage = (answers.tokens(spoken), answers.tokens(text))
    ending = {"stop": "end_turn", "length": "max_tokens", "refusal": "refusal"}[reason]
    message = {
        "id": f"msg_{ident}",
        "type": "message",
        "role": "assistant",
        "model": params["model"],
        "content": [{"type": "text", "text": text}] if text else [],
        "stop_reason": ending,
        "stop_sequence": None,
        "usage": {
            "input_tokens": usage[0],
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": usage[1],
            "service_tier": "batch",
        },
    }
    return message, usage


def account_of(headers: Any) -> str:
    """Return the account (the key) of a request, or raise the vendor's errors. The 2.x SDK sends the key as a bearer."""
    key = headers.get("x-api-key") or (headers.get("Authorization") or "").removeprefix("Bearer ")
    if not key:
        raise failure(401, "x-api-key header is required", "authentication_error")
    if not headers.get("anthropic-version"):
        raise failure(400, "anthropic-version: header is required")
    return str(key)
