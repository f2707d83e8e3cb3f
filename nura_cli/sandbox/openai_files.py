"""OpenAI's files as they are shown and named, and uploads: files that come in parts.

An upload is created with its size and name, takes parts in any order and any number at once, and becomes a file when it is
completed with the parts' order. It expires an hour after its creation. The vendor's reference says so; the words of its
refusals are our own.
"""

import hashlib
import secrets
from pathlib import Path, PurePosixPath
from typing import Any

from nura_cli.sandbox import faults
from nura_cli.sandbox.exchange import Json, Reply, Request, private
from nura_cli.sandbox.faults import Fault
from nura_cli.sandbox.openai_errors import failure, object_of
from nura_cli.sandbox.store import Store

FILE_LASTS = 30 * 86400
MOST_PART_BYTES = 64 << 20
UPLOAD_LASTS = 3600
_LASTS = range(3600, 2_592_001)
_PIECE = 1 << 20


def status_of(store: Store, row: dict[str, Any]) -> str:
    """Return a file's status: at once processed, or later, where services are slow at that."""
    slow = faults.of(store.standing(), "slow_files") or {}
    return str(slow.get("word", "pending") if _waits(store, row, slow) else slow.get("ends", "processed"))


def check_ready(store: Store, row: dict[str, Any]) -> None:
    """Raise a 400, as Azure does, where no batch can be made of a file yet, or ever."""
    slow = faults.of(store.standing(), "slow_files") or {}
    if _waits(store, row, slow) or slow.get("ends") == "error":
        words = f"File '{row['id']}' is not ready: its status is {status_of(store, row)}."
        raise failure(400, words, code="file_not_ready")


def _waits(store: Store, row: dict[str, Any], slow: Fault) -> bool:
    return bool(slow) and store.now() < row["created_at"] + float(slow.get("seconds", 60))


def file_json(store: Store, row: dict[str, Any]) -> dict[str, Any]:
    """Return a file as the vendor shows it."""
    return {
        "id": row["id"],
        "object": "file",
        "bytes": row["bytes"],
        "created_at": row["created_at"],
        "expires_at": row["expires_at"],
        "filename": row["filename"],
        "purpose": row["purpose"],
        "status": status_of(store, row),
        "status_details": None,
    }


def file_id() -> str:
    """Return the id of a new file."""
    return "file-" + secrets.token_hex(12)


def check_purpose(purpose: object) -> None:
    """Raise the vendor's 400 for any purpose but batches."""
    if purpose != "batch":
        raise failure(400, f"'{purpose}' is not one of ['batch'] - 'purpose'", param="purpose")


def check_name(filename: str) -> None:
    """Raise the vendor's 400 for a name with another extension than .jsonl; one without any is taken.

    So does the vendor: a file without a name comes as ``upload``. Its error has no code and no param (seen in
    github.com/BerriAI/litellm/pull/37527).
    """
    if PurePosixPath(filename).suffix.lower() not in ("", ".", ".jsonl"):
        raise failure(400, "Invalid file format for Batch API. Must be .jsonl")


def lasts(anchor: Any, seconds: Any) -> int:
    """Return for how many seconds a file is kept, by its ``expires_after``."""
    if anchor is None and seconds is None:
        return FILE_LASTS
    given = str(seconds)
    if anchor != "created_at" or not (given.isascii() and given.isdigit()) or int(given) not in _LASTS:
        raise failure(400, "Invalid 'expires_after': created_at, and 3600 to 2592000 seconds.", param="expires_after")
    return int(given)


# Uploads


def upload(store: Store, request: Request, name: str, most: int) -> Reply:
    """Answer a request about an upload: ``upload_create``, ``upload_part``, ``upload_complete`` or ``upload_cancel``.

    Args:
        most: how many bytes a file may have.
    """
    if name == "upload_create":
        return _create(store, request, most)
    if name == "upload_part":
        return _part(store, request, _pending(store, request)["id"])
    body = object_of(request) if name == "upload_complete" else {}
    with store.work():
        row = _pending(store, request)
        if name == "upload_complete":
            return _complete(store, row, body)
        return Json(_upload_json(store, store.end_upload(row["id"], "cancelled")))


def _pending(store: Store, request: Request) -> dict[str, Any]:
    """Return the upload that a request names, or raise a 404, or a 400 where it is over."""
    upload_id = request.path.split("/")[3]
    row = store.upload(request.account, upload_id)
    if row is None:
        raise failure(404, f"No such Upload object: {upload_id}", param="upload_id")
    status = _status(store, row)
    if status != "pending":
        raise failure(400, f"Upload {upload_id} is {status}: it takes no parts, and cannot be completed or cancelled.")
    return row


def _status(store: Store, row: dict[str, Any]) -> str:
    """Return an upload's status: a pending one expires."""
    over = store.now() >= row["created_at"] + UPLOAD_LASTS
    return "expired" if over and row["status"] == "pending" else str(row["status"])


def _upload_json(store: Store, row: dict[str, Any], file: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "id": row["id"],
        "object": "upload",
        "bytes": row["bytes"],
        "created_at": row["created_at"],
        "expires_at": row["created_at"] + UPLOAD_LASTS,
        "filename": row["filename"],
        "purpose": row["purpose"],
        "status": row["status"],
        "file": None if file is None else file_json(store, file),
    }


def _create(store: Store, request: Request, most: int) -> Reply:
    body = object_of(request)
    for name, kind in (("bytes", int), ("filename", str), ("mime_type", str), ("purpose", str)):
        if not isinstance(body.get(name), kind) or isinstance(body[name], bool):
            raise failure(400, f"Missing required parameter: '{name}'.", code="missing_required_parameter", param=name)
    check_purpose(body["purpose"])
    check_name(body["filename"])
    if not 0 <= body["bytes"] <= most:
        raise failure(400, f"Invalid 'bytes': expected a value of 0 to {most}.", param="bytes")
    after = body.get("expires_after") or {}
    if not isinstance(after, dict):
        raise failure(400, "Invalid type for 'expires_after': expected an object.", param="expires_after")
    columns = {name: body[name] for name in ("filename", "purpose", "bytes")}
    kept = lasts(after.get("anchor"), after.get("seconds"))
    return Json(_upload_json(store, store.add_upload(request.account, UPLOAD_LASTS, lasts=kept, **columns)))


def _part(store: Store, request: Request, upload_id: str) -> Reply:
    form = request.form(store.folder, MOST_PART_BYTES, "data")
    try:
        if form.path is None:
            raise failure(400, "'data' is a required property", param="data")
        if form.size > MOST_PART_BYTES:
            raise failure(400, f"The part is too large: {form.size} bytes, at most {MOST_PART_BYTES}.", param="data")
        part = store.add_part(upload_id, form.path)
    finally:
        if form.path is not None:
            form.path.unlink(missing_ok=True)
    shown = {"id": part["id"], "object": "upload.part", "created_at": part["created_at"], "upload_id": upload_id}
    return Json(shown)


def _complete(store: Store, row: dict[str, Any], body: dict[str, Any]) -> Reply:
    whole = store.folder / f"upload-{secrets.token_hex(8)}.part"
    try:
        size, digest = _joined(store, _order(store, row["id"], body.get("part_ids")), whole)
        if size != row["bytes"]:
            words = f"The parts have {size} bytes, and the upload was created with {row['bytes']}."
            raise failure(400, words, param="part_ids")
        if body.get("md5") not in (None, "", digest):
            raise failure(400, "The md5 does not match that of the parts.", param="md5")
        file = store.add_file(row["account"], file_id(), row["filename"], row["purpose"], whole, row["lasts"])
    finally:
        whole.unlink(missing_ok=True)
    return Json(_upload_json(store, store.end_upload(row["id"], "completed"), file))


def _order(store: Store, upload_id: str, part_ids: Any) -> list[str]:
    """Return the ids of an upload's parts in the order that is asked for, or raise a 400."""
    known = store.part_ids(upload_id)
    if not isinstance(part_ids, list) or not all(isinstance(one, str) for one in part_ids):
        raise failure(
            400, "Missing required parameter: 'part_ids'.", code="missing_required_parameter", param="part_ids"
        )
    wrong = next((one for n, one in enumerate(part_ids) if one not in known or one in part_ids[:n]), None)
    if wrong is not None:
        raise failure(400, f"Part {wrong} is none of this upload's, or named twice.", param="part_ids")
    return part_ids


def _joined(store: Store, part_ids: list[str], target: Path) -> tuple[int, str]:
    """Write parts to a file, one after the other; return its size in bytes and its MD5."""
    digest = hashlib.md5(usedforsecurity=False)
    with private(target) as out:
        for part_id in part_ids:
            with store.body(part_id).open("rb") as part:
                while piece := part.read(_PIECE):
                    digest.update(piece)
                    out.write(piece)
        return out.tell(), digest.hexdigest()
