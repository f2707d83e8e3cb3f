"""The sandbox's OpenAI side, spoken to by the real SDK."""

import io
import json
import time
import urllib.error
import urllib.request
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types import CreateEmbeddingResponse, ModerationCreateResponse
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from nura_cli.sandbox import Sandbox, answers
from nura_cli.sandbox import openai_requests as known
from tests.contract.sandbox_clients import CHAT, chat, chats, jsonl, openai_client, rows, run, send, upload

DAY = 86400


# Files


def test_an_uploaded_file_is_kept_as_it_came_under_its_name(client: OpenAI, server: Sandbox) -> None:
    lines: list[dict[str, Any] | bytes] = [*chats(3), b'{"text": "a\xe2\x80\xa8b"}']
    file = upload(client, lines, "tag-1.jsonl")
    assert (file.filename, file.purpose, file.object, file.status) == ("tag-1.jsonl", "batch", "file", "processed")
    assert file.bytes == len(jsonl(lines))
    assert file.expires_at == file.created_at + 30 * DAY
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == jsonl(lines)


def test_a_file_larger_than_the_pieces_it_is_read_in_arrives_whole(client: OpenAI) -> None:
    body = b"".join(b"%07d\r\n--boundary" % n for n in range(60_000))
    file = client.files.create(file=("x.jsonl", io.BytesIO(body)), purpose="batch")
    assert client.files.content(file.id).read() == body


@pytest.mark.parametrize("name", ["plain.jsonl", "with space.jsonl", 'quo"te.jsonl', "naïve-雨.jsonl", "50%25.jsonl"])
def test_any_name_that_ends_in_jsonl_comes_back(client: OpenAI, name: str) -> None:
    upload(client, chats(1), name)
    assert [file.filename for file in client.files.list()] == [name.replace("%25", "%")]


def test_a_file_of_another_kind_or_purpose_is_refused(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"Must be \.jsonl"):
        upload(client, chats(1), "in.json")
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.files.create(file=("in.jsonl", io.BytesIO(b"{}")), purpose="fine-tune")
    assert list(client.files.list()) == []


def test_a_file_over_200_mb_is_refused_and_leaves_nothing(client: OpenAI, server: Sandbox, monkeypatch: Any) -> None:
    monkeypatch.setattr("nura_cli.sandbox.openai_api.MOST_BYTES", 1000)
    assert upload(client, [b"x" * 998]).bytes == 999
    with pytest.raises(openai.APIStatusError, match="too large") as refused:
        upload(client, [b"x" * 1000])
    assert refused.value.status_code == 413
    assert len(server.control.files()) == 1


def test_files_are_listed_by_page_order_and_purpose(client: OpenAI) -> None:
    ids = [upload(client, chats(1), f"{n}.jsonl").id for n in range(5)]
    assert [file.id for file in client.files.list(limit=2)] == ids[::-1]
    assert [file.id for file in client.files.list(limit=2, order="asc")] == ids
    assert [file.id for file in client.files.list(after=ids[3], limit=2).data] == [ids[2], ids[1]]
    batch = run(client, chats(1))
    assert [file.id for file in client.files.list(purpose="batch_output")] == [batch.output_file_id]
    with pytest.raises(openai.BadRequestError, match="limit"):
        client.files.list(limit=10_001)
    with pytest.raises(openai.BadRequestError, match="Supported values"):
        client.files.list(order="up")  # type: ignore[arg-type]


def test_a_deleted_file_is_gone(client: OpenAI) -> None:
    file = upload(client, chats(1))
    assert client.files.delete(file.id).deleted
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match="No such File object"):
            call(file.id)


def test_files_expire_after_30_days_or_as_asked(client: OpenAI, server: Sandbox) -> None:
    batch = run(client, chats(1), output_expires_after={"anchor": "created_at", "seconds": 3600})
    short = client.files.create(
        file=("in.jsonl", io.BytesIO(b"{}\n")), purpose="batch", expires_after={"anchor": "created_at", "seconds": 7200}
    )
    assert batch.output_file_id
    server.control.advance(3601)
    with pytest.raises(openai.NotFoundError):
        client.files.content(batch.output_file_id)
    assert client.files.retrieve(short.id)
    server.control.advance(29 * DAY)
    assert client.files.retrieve(batch.input_file_id)
    server.control.advance(DAY)
    assert list(client.files.list()) == []
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(batch.input_file_id)
    with pytest.raises(openai.BadRequestError, match="expires_after"):
        client.files.create(
            file=("a.jsonl", io.BytesIO(b"")), purpose="batch", expires_after={"anchor": "created_at", "seconds": 60}
        )


# Batches


def test_a_batch_is_validated_answered_and_adds_up(client: OpenAI) -> None:
    created = send(client, chats(20), metadata={"tag": "t1"})
    assert (created.status, created.object, created.endpoint) == ("validating", "batch", CHAT)
    assert created.expires_at == created.created_at + DAY
    batch = client.batches.retrieve(created.id)
    assert batch.status == "completed"
    assert batch.metadata == {"tag": "t1"}
    assert batch.model == "gpt-4.1-mini"
    assert (batch.error_file_id, batch.errors) == (None, None)
    assert batch.request_counts
    assert batch.request_counts.to_dict() == {"total": 20, "completed": 20, "failed": 0}
    answers = rows(client, batch.output_file_id)
    assert answers.keys() == {f"c{n}" for n in range(20)}
    assert list(answers) != [f"c{n}" for n in range(20)], "results come shuffled"
    completions = {name: ChatCompletion.model_validate(row["response"]["body"]) for name, row in answers.items()}
    for name, completion in completions.items():
        assert f"this is {name}." in (completion.choices[0].message.content or "")
        assert completion.choices[0].finish_reason == "stop"
        assert (answers[name]["error"], answers[name]["response"]["status_code"]) == (None, 200)
    used = [completion.usage for completion in completions.values()]
    assert batch.usage
    assert batch.usage.input_tokens == sum(one.prompt_tokens for one in used if one)
    assert batch.usage.total_tokens == sum(one.total_tokens for one in used if one)


def test_answers_and_their_order_are_the_same_each_time(client: OpenAI) -> None:
    first, second = run(client, chats(5)), run(client, chats(5))
    texts = [
        {name: row["response"]["body"]["choices"] for name, row in rows(client, batch.output_file_id).items()}
        for batch in (first, second)
    ]
    assert texts[0] == texts[1]


def test_every_field_is_one_the_sdk_knows(client: OpenAI) -> None:
    batch = run(client, chats(1))
    assert not batch.model_extra
    assert not client.files.retrieve(batch.input_file_id).model_extra


def test_a_batch_takes_its_time_through_the_vendors_states(client: OpenAI, server: Sandbox) -> None:
    server.control.settings(delay=1000)
    batch = send(client, chats(10))
    seen = [batch.status]
    for seconds in (0, 500, 460, 40):
        server.control.advance(seconds)
        batch = client.batches.retrieve(batch.id)
        seen.append(batch.status)
        if seconds == 500:
            assert batch.request_counts
            assert 4 <= batch.request_counts.completed <= 6
            assert batch.output_file_id is None
    assert seen == ["validating", "in_progress", "in_progress", "finalizing", "completed"]
    assert batch.completed_at == batch.created_at + 1000


def test_a_slow_batch_expires_with_what_was_answered(client: OpenAI, server: Sandbox) -> None:
    server.control.settings(delay=2 * DAY)
    created = send(client, chats(60))
    server.control.advance(DAY + 1)
    batch = client.batches.retrieve(created.id)
    assert (batch.status, batch.expired_at) == ("expired", batch.created_at + DAY)
    answered, expired = rows(client, batch.output_file_id), rows(client, batch.error_file_id)
    assert len(answered) + len(expired) == 60
    assert 15 < len(answered) < 45
    assert batch.request_counts
    assert batch.request_counts.to_dict() == {"total": 60, "completed": len(answered), "failed": 0}
    assert {(row["response"], row["error"]["code"]) for row in expired.values()} == {(None, "batch_expired")}
    assert server.control.billing()["requests"] == len(answered)


def test_a_batch_can_be_cancelled_until_it_has_ended(client: OpenAI, server: Sandbox) -> None:
    server.control.settings(delay=1000)
    created = send(client, chats(60))
    server.control.advance(500)
    assert client.batches.cancel(created.id).status == "cancelling"
    assert client.batches.cancel(created.id).status == "cancelling"
    batch = client.batches.retrieve(created.id)
    assert (batch.status, batch.cancelled_at) == ("cancelled", batch.cancelling_at)
    answered, left = rows(client, batch.output_file_id), rows(client, batch.error_file_id)
    assert len(answered) + len(left) == 60
    assert answered
    assert {row["error"]["code"] for row in left.values()} == {"batch_cancelled"}
    with pytest.raises(openai.ConflictError, match="Cannot cancel"):
        client.batches.cancel(created.id)


def test_a_cancelled_batch_says_what_had_finished(client: OpenAI, server: Sandbox) -> None:
    """So does the vendor: of 8 requests 4 completed and 0 failed, in two files (github.com/BerriAI/litellm/pull/36034)."""
    server.control.settings(delay=1000)
    created = send(client, chats(60))
    server.control.advance(500)
    cancelling = client.batches.cancel(created.id)
    assert (cancelling.status, cancelling.output_file_id, cancelling.error_file_id) == ("cancelling", None, None)
    assert cancelling.cancelling_at
    assert cancelling.in_progress_at
    assert cancelling.request_counts
    assert cancelling.request_counts.to_dict() == {"total": 60, "completed": 30, "failed": 0}
    server.control.advance(5000)
    batch = client.batches.retrieve(created.id)
    answered, left = rows(client, batch.output_file_id), rows(client, batch.error_file_id)
    assert answered.keys() | left.keys() == {f"c{n}" for n in range(60)}
    assert batch.request_counts
    assert batch.request_counts.to_dict() == {"total": 60, "completed": len(answered), "failed": 0}
    assert (batch.status, batch.completed_at, batch.cancelled_at) == ("cancelled", None, cancelling.cancelling_at)
    assert client.batches.list().data == [batch]


def test_a_batch_that_ended_before_its_cancel_is_not_cancelled(client: OpenAI, server: Sandbox) -> None:
    server.control.settings(delay=1000)
    created = send(client, chats(3))
    server.control.advance(1000)
    with pytest.raises(openai.ConflictError, match="Cannot cancel a batch with status 'completed'"):
        client.batches.cancel(created.id)
    assert client.batches.retrieve(created.id).status == "completed"


def test_a_batch_that_the_provider_cancels_says_when(client: OpenAI, server: Sandbox) -> None:
    server.control.fault("cancel")
    batch = run(client, chats(20))
    assert batch.cancelling_at
    assert (batch.status, batch.cancelled_at) == ("cancelled", batch.cancelling_at)


def test_a_batch_cancelled_at_once_answers_nothing(client: OpenAI, server: Sandbox) -> None:
    created = send(client, chats(3))
    client.batches.cancel(created.id)
    batch = client.batches.retrieve(created.id)
    assert (batch.status, batch.output_file_id) == ("cancelled", None)
    assert len(rows(client, batch.error_file_id)) == 3
    assert server.control.billing()["requests"] == 0


def test_batches_are_listed_newest_first_by_page(client: OpenAI) -> None:
    ids = [send(client, chats(1)).id for _ in range(5)]
    assert [batch.id for batch in client.batches.list(limit=2)] == ids[::-1]
    page = client.batches.list(after=ids[2], limit=2)
    assert [batch.id for batch in page.data] == [ids[1], ids[0]]
    assert page.has_more is False
    assert client.batches.list(limit=2).has_more is True
    assert {batch.status for batch in client.batches.list()} == {"completed"}
    for limit in (0, 101):
        with pytest.raises(openai.BadRequestError, match="limit"):
            client.batches.list(limit=limit)


CREATES: list[tuple[dict[str, Any], str]] = [
    ({"endpoint": "/v1/chat"}, "Supported values"),
    ({"completion_window": "48h"}, "Supported values"),
    ({"metadata": {f"k{n}": "v" for n in range(17)}}, "too many properties"),
    ({"metadata": {"k" * 65: "v"}}, "64 characters"),
    ({"metadata": {"k": "v" * 513}}, "512"),
    ({"metadata": {"k": 1}}, "expected a string"),
    ({"extra_body": {"window": 1}}, "Unknown parameter"),
]


@pytest.mark.parametrize(("wrong", "words"), CREATES, ids=lambda value: str(value)[:30])
def test_a_create_that_is_wrong_is_refused_at_once(client: OpenAI, wrong: dict[str, Any], words: str) -> None:
    file = upload(client, chats(1))
    options: dict[str, Any] = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h", **wrong}
    with pytest.raises(openai.BadRequestError, match=words):
        client.batches.create(**options)
    assert client.batches.list().data == []


def test_metadata_at_its_limits_comes_back(client: OpenAI) -> None:
    metadata = {f"{n:064}": "v" * 512 for n in range(16)}
    assert run(client, chats(1), metadata=metadata).metadata == metadata


def test_what_is_not_there_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="No such File"):
        client.batches.create(input_file_id="file-none", endpoint=CHAT, completion_window="24h")
    for call in (client.batches.retrieve, client.batches.cancel):
        with pytest.raises(openai.NotFoundError, match="No batch found") as missing:
            call("batch_none")
        assert missing.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError, match="Invalid URL"):
        client.post("/nothing", cast_to=object)


def test_an_output_file_is_no_input_file(client: OpenAI) -> None:
    batch = run(client, chats(1))
    with pytest.raises(openai.NotFoundError):
        client.batches.create(input_file_id=batch.output_file_id or "", endpoint=CHAT, completion_window="24h")


def test_a_batch_whose_file_was_deleted_before_validation_fails(client: OpenAI) -> None:
    batch = send(client, chats(1))
    client.files.delete(batch.input_file_id)
    assert client.batches.retrieve(batch.id).status == "completed", "the vendor has the file for as long as it needs it"
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(batch.input_file_id)


FILES: list[tuple[list[dict[str, Any] | bytes], str, int | None]] = [
    ([], "empty_file", None),
    ([b"", b"  "], "empty_file", None),
    ([chat(1), b"{not json"], "invalid_json_line", 2),
    ([b"\xef\xbb\xbf" + json.dumps(chat(1)).encode()], "invalid_json_line", 1),
    ([b'{"custom_id": NaN}'], "invalid_json_line", 1),
    ([b"[" * 100_000], "invalid_json_line", 1),
    ([b"\xff"], "invalid_json_line", 1),
    ([b"[]"], "invalid_json_line", 1),
    ([{**chat(1), "custom_id": "\ud800"}], "invalid_json_line", 1),
    ([chat(1), chat(2, model="\ud800")], "invalid_json_line", 2),
    ([chat(1), chat(2), chat(1)], "duplicate_custom_id", 3),
    ([chat(1), chat(2, url="/v1/responses")], "url_mismatch", 2),
    ([chat(1), chat(2, model="gpt-4.1")], "model_mismatch", 2),
    ([chat(1, model=None)], "missing_required_parameter", 1),
    ([{**chat(1), "method": "GET"}], "invalid_method", 1),
    ([{**chat(1), "custom_id": 1}], "missing_required_parameter", 1),
    ([{**chat(1), "body": "x"}], "missing_required_parameter", 1),
    ([chat(1, model="no-such-model")], "model_not_found", None),
]


@pytest.mark.parametrize(("lines", "code", "line"), FILES, ids=[f"{n}-{case[1]}" for n, case in enumerate(FILES)])
def test_a_bad_input_file_fails_its_batch_after_the_create(
    client: OpenAI, server: Sandbox, lines: list[dict[str, Any] | bytes], code: str, line: int | None
) -> None:
    batch = run(client, lines)
    assert batch.status == "failed"
    assert batch.failed_at
    assert batch.errors
    assert batch.errors.data
    assert (batch.errors.data[0].code, batch.errors.data[0].line) == (code, line)
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    assert server.control.billing()["requests"] == 0


def test_the_limits_of_a_batch(client: OpenAI, server: Sandbox, monkeypatch: Any) -> None:
    monkeypatch.setattr("nura_cli.sandbox.openai_work.MOST_REQUESTS", 5)
    monkeypatch.setattr("nura_cli.sandbox.openai_work.MOST_INPUTS", 5)
    assert run(client, chats(5)).status == "completed"
    assert _code(run(client, chats(6))) == "too_many_tasks"
    one = {"custom_id": "e", "method": "POST", "url": "/v1/embeddings", "body": {"model": "e", "input": ["x"] * 6}}
    assert _code(run(client, [one], "/v1/embeddings")) == "too_many_inputs"


def test_only_the_models_of_the_settings_exist(client: OpenAI, server: Sandbox) -> None:
    server.control.settings(models=["gpt-4.1"])
    assert _code(run(client, chats(1))) == "model_not_found"
    assert run(client, [chat(1, model="gpt-4.1")]).status == "completed"


def _code(batch: Any) -> str | None:
    assert batch.status == "failed"
    code: str | None = batch.errors.data[0].code
    return code


# Models, and tokens


def test_models_are_listed_and_found_as_the_settings_have_them(client: OpenAI, server: Sandbox) -> None:
    listed = [model.id for model in client.models.list()]
    assert "gpt-4.1-mini" in listed
    for name in (*listed, "any-other", "org/llama 3", "ft:gpt-4.1:me::1"):
        model = client.models.retrieve(name)
        assert (model.id, model.object) == (name, "model")
        assert not model.model_extra
    for name in ("no-such-model", "no-such/model"):
        with pytest.raises(openai.NotFoundError, match="does not exist") as missing:
            client.models.retrieve(name)
        assert missing.value.code == "model_not_found"
    server.control.settings(models=["mine", "org/mine"])
    assert [model.id for model in client.models.list()] == ["mine", "org/mine"]
    assert client.models.retrieve("org/mine").id == "org/mine"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4.1-mini")


def test_tokens_are_counted_as_a_batch_is_billed(client: OpenAI, server: Sandbox) -> None:
    tools = [{"type": "function", "name": "f", "parameters": {"type": "object"}}]
    body: dict[str, Any] = {"model": "m", "instructions": "Be brief.", "input": "Say hello.", "tools": tools}
    counted = client.responses.input_tokens.count(**body)
    assert (counted.object, counted.model_extra) == ("response.input_tokens", {})
    assert counted.input_tokens > 20
    usage = Response.model_validate(_answer(client, _line("/v1/responses", **body))).usage
    assert usage
    assert usage.input_tokens == counted.input_tokens
    assert client.responses.input_tokens.count(input="Say hello.").input_tokens == 3 + answers.MESSAGE_TOKENS
    for wrong in ({"temperature": 1}, {"input": 5}, {"tool_choice": "required"}, {"tools": 5}):
        with pytest.raises(openai.BadRequestError):
            client.responses.input_tokens.count(extra_body={**body, "tools": [], **wrong})
    with pytest.raises(openai.NotFoundError):
        client.responses.input_tokens.count(model="no-such", input="x")
    assert server.control.billing()["requests"] == 1


# Accounts


def test_a_key_is_needed_and_each_has_an_account_of_its_own(client: OpenAI, server: Sandbox) -> None:
    batch = run(client, chats(1))
    with openai_client(server, "sk-other") as other:
        assert other.batches.list().data == []
        assert other.files.list().data == []
        for call in (other.batches.retrieve, other.batches.cancel):
            with pytest.raises(openai.NotFoundError):
                call(batch.id)
        with pytest.raises(openai.NotFoundError):
            other.files.content(batch.output_file_id or "")
    server.control.settings(accept_keys=["sk-right"])
    with pytest.raises(openai.AuthenticationError) as refused:
        client.batches.list()
    assert refused.value.code == "invalid_api_key"
    assert "sk-test" not in str(refused.value)
    with openai_client(server, "sk-right") as right:
        assert right.batches.list().data == []
    with urllib.request.urlopen(f"{server.url}/_sandbox/log") as log:
        assert log.status == 200, "the control endpoint asks for no key"
    with pytest.raises(urllib.error.HTTPError) as nobody:
        urllib.request.urlopen(f"{server.openai_base_url}/batches")
    with nobody.value:
        assert (nobody.value.code, json.loads(nobody.value.read())["error"]["code"]) == (401, "invalid_api_key")


def test_every_answer_has_a_request_id_and_the_sandboxs_date(client: OpenAI, server: Sandbox) -> None:
    server.control.advance(365 * DAY)
    ok = client.batches.with_raw_response.list()
    with pytest.raises(openai.NotFoundError) as missing:
        client.batches.retrieve("batch_none")
    assert ok.request_id
    assert ok.request_id.startswith("req_")
    assert missing.value.request_id
    assert missing.value.request_id != ok.request_id
    assert ok.headers["openai-organization"].startswith("org-")
    assert str(time.gmtime(server.control.settings()["now"]).tm_year) in ok.headers["date"]


# Requests

REQUESTS: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": "hello"}, "messages"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"stream": True}, "stream"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"max_tokens": "many"}, "max_tokens"),
    ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens"),
    ({"temperature": 3}, "temperature"),
    ({"top_p": -1}, "top_p"),
    ({"n": True}, "n"),
    ({"promt": "typing error"}, "promt"),
    ({"response_format": {"type": "xml"}}, "response_format"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}},
        "response_format.name",
    ),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}}, "response_format.schema"),
]


@pytest.mark.parametrize(("wrong", "param"), REQUESTS, ids=[json.dumps(case[0])[:40] for case in REQUESTS])
def test_a_bad_request_fails_alone_with_a_400_in_the_error_file(
    client: OpenAI, server: Sandbox, wrong: dict[str, Any], param: str
) -> None:
    batch = run(client, [chat(1), chat(2, **wrong)])
    assert batch.status == "completed"
    assert batch.request_counts
    assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 1)
    assert list(rows(client, batch.output_file_id)) == ["c1"]
    row = rows(client, batch.error_file_id)["c2"]
    assert (row["error"], row["response"]["status_code"]) == (None, 400)
    assert row["response"]["body"]["error"]["type"] == "invalid_request_error"
    assert row["response"]["body"]["error"]["param"] == param
    assert server.control.billing()["requests"] == 1


def test_all_bad_requests_leave_no_output_file(client: OpenAI) -> None:
    batch = run(client, [chat(1, messages=[])])
    assert (batch.status, batch.output_file_id) == ("completed", None)
    assert len(rows(client, batch.error_file_id)) == 1


def test_an_answer_that_needs_more_tokens_than_allowed_is_cut(client: OpenAI) -> None:
    batch = run(client, [chat(1, max_completion_tokens=3), chat(2, max_tokens=4)])
    bodies = [row["response"]["body"] for row in rows(client, batch.output_file_id).values()]
    assert {body["choices"][0]["finish_reason"] for body in bodies} == {"length"}
    assert sorted(body["usage"]["completion_tokens"] for body in bodies) == [3, 4]


def test_the_answer_is_made_of_the_last_message_and_n_of_them(client: OpenAI) -> None:
    parts = [{"type": "text", "text": "first part, "}, {"type": "text", "text": "second part"}]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}]
    batch = run(client, [chat(1, messages=messages, n=2)])
    completion = ChatCompletion.model_validate(rows(client, batch.output_file_id)["c1"]["response"]["body"])
    assert [choice.index for choice in completion.choices] == [0, 1]
    assert "first part, second part" in (completion.choices[0].message.content or "")


SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string", "enum": ["billing", "bug", "praise"]}, "urgent": {"type": "boolean"}},
    "required": ["label", "urgent"],
    "additionalProperties": False,
}


def _chat_form(schema: dict[str, Any]) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": schema}}}


def test_an_answer_fits_the_schema_and_the_prompt(client: OpenAI) -> None:
    texts = ["There is a bug in the export.", "I have a question about billing.", "Nothing but praise!"]
    batch = run(
        client,
        [chat(n, messages=[{"role": "user", "content": t}], **_chat_form(SCHEMA)) for n, t in enumerate(texts)],
    )
    answers = rows(client, batch.output_file_id)
    told = [json.loads(answers[f"c{n}"]["response"]["body"]["choices"][0]["message"]["content"]) for n in range(3)]
    assert [one["label"] for one in told] == ["bug", "billing", "praise"]
    assert all(type(one["urgent"]) is bool for one in told)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "array", "items": {}}, "type: \"object\""),
        ({**SCHEMA, "additionalProperties": True}, "additionalProperties"),
        ({**SCHEMA, "required": ["label"]}, "Missing 'urgent'"),
        ({**SCHEMA, "properties": {**SCHEMA["properties"], "x": {"type": "object"}}, "required": ["label", "urgent", "x"]},  # type: ignore[dict-item]
         "additionalProperties"),
    ],
)  # fmt: skip
def test_strict_mode_refuses_a_schema_that_is_not(client: OpenAI, schema: dict[str, Any], words: str) -> None:
    batch = run(client, [chat(1, **_chat_form(schema))])
    error = rows(client, batch.error_file_id)["c1"]["response"]["body"]["error"]
    assert "Invalid schema" in error["message"]
    assert words in error["message"]


def _line(endpoint: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": "r", "method": "POST", "url": endpoint, "body": {"model": "m", **body}}


def _answer(client: OpenAI, line: dict[str, Any]) -> dict[str, Any]:
    batch = run(client, [line], line["url"])
    body: dict[str, Any] = rows(client, batch.output_file_id or batch.error_file_id)["r"]["response"]["body"]
    return body


def test_responses_are_answered(client: OpenAI) -> None:
    form = {"format": {"type": "json_schema", "name": "a", "strict": True, "schema": SCHEMA}}
    plain = Response.model_validate(_answer(client, _line("/v1/responses", input="Say hello.")))
    assert "Say hello." in plain.output_text
    assert plain.status == "completed"
    items = [{"role": "user", "content": [{"type": "input_text", "text": "a bug"}]}]
    fitted = Response.model_validate(_answer(client, _line("/v1/responses", input=items, text=form)))
    assert json.loads(fitted.output_text)["label"] == "bug"
    cut = Response.model_validate(_answer(client, _line("/v1/responses", input="x " * 90, max_output_tokens=16)))
    assert cut.incomplete_details
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert "input" in _answer(client, _line("/v1/responses"))["error"]["message"]


def test_embeddings_are_answered(client: OpenAI) -> None:
    line = _line("/v1/embeddings", input=["one", "two"], dimensions=40)
    found = CreateEmbeddingResponse.model_validate(_answer(client, line))
    assert [len(one.embedding) for one in found.data] == [40, 40]
    assert found.data[0].embedding != found.data[1].embedding
    assert sum(x * x for x in found.data[0].embedding) == pytest.approx(1, abs=1e-3)
    tokens = CreateEmbeddingResponse.model_validate(_answer(client, _line("/v1/embeddings", input=[1, 2, 3])))
    assert (len(tokens.data), tokens.usage.prompt_tokens) == (1, 3)
    assert "input" in _answer(client, _line("/v1/embeddings", input=["x"] * 2049))["error"]["message"]


def test_completions_and_moderations_are_answered_and_other_endpoints_are_not(client: OpenAI) -> None:
    assert (
        "Once upon"
        in _answer(client, _line("/v1/completions", prompt="Once upon", max_tokens=50))["choices"][0]["text"]
    )
    found = ModerationCreateResponse.model_validate(_answer(client, _line("/v1/moderations", input=["a", "b"])))
    assert [one.flagged for one in found.results] == [False, False]
    assert "error" in _answer(client, _line("/v1/videos", prompt="x"))


def test_the_parameters_that_are_accepted_are_those_of_the_sdk() -> None:
    from openai.types.chat.completion_create_params import CompletionCreateParamsBase as Chat
    from openai.types.completion_create_params import CompletionCreateParamsBase as Completion
    from openai.types.embedding_create_params import EmbeddingCreateParams
    from openai.types.moderation_create_params import ModerationCreateParams
    from openai.types.responses.input_token_count_params import InputTokenCountParams
    from openai.types.responses.response_create_params import ResponseCreateParamsBase

    for params, names in (
        (Chat, known.CHAT),
        (Completion, known.COMPLETIONS),
        (ResponseCreateParamsBase, known.RESPONSES),
        (EmbeddingCreateParams, known.EMBEDDINGS),
        (InputTokenCountParams, known.COUNTED),
        (ModerationCreateParams, known.MODERATIONS),
    ):
        assert set(params.__annotations__) <= names


def test_content_that_is_nested_deeply_stops_no_batch(client: OpenAI) -> None:
    content: Any = "x"
    for _ in range(400):
        content = [{"content": content}]
    batch = run(client, [chat(1, messages=[{"role": "user", "content": content}]), chat(2)])
    assert rows(client, batch.output_file_id).keys() == {"c1", "c2"}


def test_text_that_breaks_lines_elsewhere_stays_in_its_line(client: OpenAI) -> None:
    nasty = "one\u2028two\u2029three\x85four\ud800"
    batch = run(client, [chat(1, messages=[{"role": "user", "content": nasty}]), chat(2)])
    assert rows(client, batch.output_file_id).keys() == {"c1", "c2"}
