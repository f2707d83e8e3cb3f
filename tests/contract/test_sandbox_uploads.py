"""What the sandbox takes as files: names of every kind, and uploads in parts, as the SDK and other clients send them."""

import hashlib
import http.client
import io
import json
import sqlite3
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final

import openai
import pytest
from openai import OpenAI

from nura_cli.sandbox import Sandbox
from tests.contract.sandbox_clients import CHAT, KEY, chats, jsonl, openai_client, rows

BODY = jsonl(chats(3))
TEXT: Final = "application/jsonl"


def finished(client: OpenAI, file_id: str) -> set[str]:
    """Run a batch over a file; return the custom_ids that were answered."""
    batch = client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")
    return set(rows(client, client.batches.retrieve(batch.id).output_file_id))


# Names


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (BODY, "upload"),
        (io.BytesIO(BODY), "upload"),
        (("", BODY), "upload"),
        ((None, BODY), "upload"),
        (("requests", BODY), "requests"),
        (("requests.", BODY), "requests."),
        ((".jsonl", BODY), ".jsonl"),
        (("IN.JSONL", BODY), "IN.JSONL"),
        (("v1.0/requests", BODY), None),
    ],
)
def test_a_file_without_an_extension_is_taken(client: OpenAI, file: Any, name: str | None) -> None:
    kept = client.files.create(file=file, purpose="batch")
    assert name is None or kept.filename == name
    assert kept.bytes == len(BODY)
    assert client.files.wait_for_processing(kept.id, poll_interval=0.01).status == "processed"
    assert finished(client, kept.id) == {"c0", "c1", "c2"}


@pytest.mark.parametrize("name", ["in.json", "in.jsonl.gz", "in.csv", "jsonl.txt", "a.b"])
def test_another_extension_is_refused_without_a_code(client: OpenAI, name: str) -> None:
    with pytest.raises(openai.BadRequestError, match=r"Invalid file format for Batch API\. Must be \.jsonl") as refused:
        client.files.create(file=(name, BODY), purpose="batch")
    assert (refused.value.code, refused.value.param, refused.value.type) == (None, None, "invalid_request_error")
    assert list(client.files.list()) == []


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('form-data; name="file"; filename="a b.jsonl"', "a b.jsonl"),
        ("form-data; name=file; filename=bare.jsonl", "bare.jsonl"),
        ("form-data; name=\"file\"; filename*=utf-8''na%C3%AFve.jsonl", "naïve.jsonl"),
        ('form-data; name="file"; filename="n.jsonl"; filename*=UTF-8\'\'%E9%9B%A8.jsonl', "雨.jsonl"),
        (r'form-data; name="file"; filename="quo\"te.jsonl"', 'quo"te.jsonl'),
        ('form-data; filename="first.jsonl"; name="file"', "first.jsonl"),
        ('form-data; name="file"', "upload"),
        ('form-data; name="file"; filename=""', "upload"),
    ],
)
def test_a_name_is_read_however_a_client_writes_it(server: Sandbox, disposition: str, name: str) -> None:
    status, file = _post_form(server, [('form-data; name="purpose"', b"batch"), (disposition, BODY)])
    assert (status, file["filename"], file["bytes"]) == (200, name, len(BODY))


def test_a_form_without_a_file_is_refused(server: Sandbox) -> None:
    status, answer = _post_form(server, [('form-data; name="purpose"', b"batch"), ('form-data; name="other"', BODY)])
    assert (status, answer["error"]["param"]) == (400, "file")
    assert list(Path(server._store.folder).glob("*.part")) == []


def _post_form(server: Sandbox, parts: list[tuple[str, bytes]]) -> tuple[int, Any]:
    """Send a multipart form by hand."""
    body = b"".join(b"--b0\r\nContent-Disposition: %s\r\n\r\n%s\r\n" % (d.encode(), data) for d, data in parts)
    host = server.url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=30)
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "multipart/form-data; boundary=b0"}
    connection.request("POST", "/v1/files", body + b"--b0--\r\n", headers)
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


# Uploads in parts


def test_the_sdk_uploads_a_file_in_parts(client: OpenAI, server: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(BODY)
    upload = client.uploads.upload_file_chunked(file=path, mime_type=TEXT, purpose="batch", part_size=100)
    assert (upload.status, upload.filename, upload.bytes) == ("completed", "in.jsonl", len(BODY))
    assert not upload.model_extra
    assert upload.expires_at == upload.created_at + 3600
    assert upload.file
    assert not upload.file.model_extra
    assert client.files.content(upload.file.id).read() == BODY
    assert client.files.retrieve(upload.file.id) == upload.file
    assert finished(client, upload.file.id) == {"c0", "c1", "c2"}
    assert list(Path(server._store.folder).glob("part_*")) == [], "the parts are gone"


def test_parts_are_joined_in_the_order_that_is_asked_for_and_the_md5_is_checked(client: OpenAI) -> None:
    upload = _upload(client, 6)
    last, first = (client.uploads.parts.create(upload, data=data) for data in (b"def", b"abc"))
    unused = client.uploads.parts.create(upload, data=("named.bin", b"x"))
    assert (first.object, first.upload_id) == ("upload.part", upload)
    assert not first.model_extra
    assert unused.id not in (first.id, last.id)
    ids = [first.id, last.id]
    with pytest.raises(openai.BadRequestError, match="md5"):
        client.uploads.complete(upload, part_ids=ids, md5="0" * 32)
    done = client.uploads.complete(upload, part_ids=ids, md5=hashlib.md5(b"abcdef").hexdigest())
    assert done.file
    assert client.files.content(done.file.id).read() == b"abcdef"


def _upload(client: OpenAI, size: int, **options: Any) -> str:
    given = {"filename": "a.jsonl", "mime_type": TEXT, "purpose": "batch", **options}
    return client.uploads.create(bytes=size, **given).id


def test_parts_that_do_not_make_the_file_are_refused_and_can_be_mended(client: OpenAI) -> None:
    upload, other = _upload(client, 6), _upload(client, 3)
    part, foreign = client.uploads.parts.create(upload, data=b"abc"), client.uploads.parts.create(other, data=b"def")
    for ids in ([part.id], [], [part.id, part.id], [part.id, foreign.id], [part.id, "part_none"]):
        with pytest.raises(openai.BadRequestError) as refused:
            client.uploads.complete(upload, part_ids=ids)
        assert refused.value.param == "part_ids"
    with pytest.raises(openai.BadRequestError, match="part_ids"):
        client.uploads.complete(upload, part_ids="abc")  # type: ignore[arg-type]
    more = client.uploads.parts.create(upload, data=b"def")
    assert client.uploads.complete(upload, part_ids=[part.id, more.id]).status == "completed"
    assert [file.bytes for file in client.files.list()] == [6]


def test_what_is_over_takes_nothing_more(client: OpenAI, server: Sandbox) -> None:
    cancelled, completed, late = (_upload(client, 0) for _ in range(3))
    client.uploads.parts.create(cancelled, data=b"abc")
    assert client.uploads.cancel(cancelled).status == "cancelled"
    assert client.uploads.complete(completed, part_ids=[]).status == "completed"
    server.control.advance(3600)
    for upload, status in ((cancelled, "cancelled"), (completed, "completed"), (late, "expired")):
        with pytest.raises(openai.BadRequestError, match=f"is {status}"):
            client.uploads.parts.create(upload, data=b"x")
        with pytest.raises(openai.BadRequestError, match=f"is {status}"):
            client.uploads.complete(upload, part_ids=[])
        with pytest.raises(openai.BadRequestError, match=f"is {status}"):
            client.uploads.cancel(upload)
    assert [file.bytes for file in client.files.list()] == [0]


def test_an_upload_that_was_left_is_swept(client: OpenAI, server: Sandbox) -> None:
    left = _upload(client, 3)
    client.uploads.parts.create(left, data=b"abc")
    server.control.advance(3601)
    _upload(client, 3)
    assert list(Path(server._store.folder).glob("part_*")) == []


@pytest.mark.parametrize(
    "wrong",
    [{"filename": "a.csv"}, {"purpose": "fine-tune"}, {"size": -1}, {"size": 200_000_001}, {"size": True}, {"size": "3"},
     {"filename": None}, {"mime_type": 5},
     {"expires_after": {"anchor": "created_at", "seconds": 1}}, {"expires_after": "soon"}],
)  # fmt: skip
def test_an_upload_that_makes_no_batch_file_is_refused(client: OpenAI, wrong: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError):
        _upload(client, **{"size": 3, **wrong})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("uploads", r'{"bytes": 1, "filename": "a\ud800", "mime_type": "x", "purpose": "batch"}'),
        ("batches", r'{"input_file_id": "\ud800", "endpoint": "/v1/responses", "completion_window": "24h"}'),
        ("responses/input_tokens", '{"input": ' + "[" * 100_000),
    ],
)
def test_what_is_no_text_is_refused(server: Sandbox, path: str, body: str) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.openai_base_url}/{path}", body.encode(), headers)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    with refused.value:
        assert (refused.value.code, json.loads(refused.value.read())["error"]["type"]) == (400, "invalid_request_error")


def test_a_part_has_a_limit_and_needs_its_data(client: OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nura_cli.sandbox.openai_files.MOST_PART_BYTES", 5)
    upload = _upload(client, 6)
    assert client.uploads.parts.create(upload, data=b"12345").id
    with pytest.raises(openai.BadRequestError, match="too large"):
        client.uploads.parts.create(upload, data=b"123456")
    with pytest.raises(openai.BadRequestError, match="data"):
        client.post(f"/uploads/{upload}/parts", body={}, cast_to=object)
    assert client.uploads.complete(_upload(client, 0), part_ids=[]).status == "completed"


def test_an_upload_is_its_accounts_alone_and_its_file_expires_as_asked(client: OpenAI, server: Sandbox) -> None:
    upload = _upload(client, 3, expires_after={"anchor": "created_at", "seconds": 7200})
    part = client.uploads.parts.create(upload, data=b"abc")
    with openai_client(server, "sk-other") as other, pytest.raises(openai.NotFoundError, match="No such Upload"):
        other.uploads.complete(upload, part_ids=[part.id])
    with pytest.raises(openai.NotFoundError):
        client.uploads.cancel("upload_none")
    done = client.uploads.complete(upload, part_ids=[part.id])
    assert done.file
    assert done.file.expires_at == done.file.created_at + 7200
    assert [row["route"] for row in server.control.log()][:2] == ["upload_create", "upload_part"]


def test_a_fault_strikes_an_upload_by_its_route(client: OpenAI, server: Sandbox) -> None:
    server.control.fault("status", route="upload_*", status=503)
    with pytest.raises(openai.InternalServerError):
        _upload(client, 3)
    assert _upload(client, 3)


def test_a_file_of_an_older_sandbox_takes_uploads_and_bills(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with Sandbox(path) as server, openai_client(server) as client:
        kept = client.files.create(file=BODY, purpose="batch")
    with sqlite3.connect(path) as db:
        db.executescript("DROP TABLE uploads; DROP TABLE parts; DROP TABLE spent;")
    db.close()
    with Sandbox(path) as server, openai_client(server) as client:
        assert [file.id for file in client.files.list()] == [kept.id]
        assert _upload(client, 3)
        client.responses.create(model="gpt-4.1-mini", input="hello")
        assert sum(day["requests"] for day in server.control.billing()["days"].values()) == 1
