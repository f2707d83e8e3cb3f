"""The sandbox against the vendors' own SDKs: where the two would disagree, the sandbox is wrong."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from nura_cli.sandbox import Sandbox, Settings

CHAT = "/v1/chat/completions"
SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "enum": ["apples", "pears"]},
        "n": {"type": "integer", "minimum": 3, "maximum": 5},
        "deep": {"type": "array", "items": {"$ref": "#/$defs/yes"}},
    },
    "required": ["label", "n", "deep"],
    "additionalProperties": False,
    "$defs": {"yes": {"type": "boolean"}},
}


@pytest.fixture
def gpt(server: Sandbox) -> Iterator[openai.OpenAI]:
    """The OpenAI SDK on the sandbox."""
    with openai.OpenAI(api_key="one", base_url=server.openai_base_url, max_retries=0) as client:
        yield client


@pytest.fixture
def claude(server: Sandbox) -> Iterator[anthropic.Anthropic]:
    """The Anthropic SDK on the sandbox."""
    with anthropic.Anthropic(api_key="one", base_url=server.anthropic_base_url, max_retries=0) as client:
        yield client


def line(custom_id: str, body: dict[str, Any] | None = None, url: str = CHAT) -> dict[str, Any]:
    body = body or {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": f"say {custom_id}"}]}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def upload(gpt: openai.OpenAI, lines: list[dict[str, Any]] | bytes, name: str = "in.jsonl") -> str:
    data = lines if isinstance(lines, bytes) else "\n".join(json.dumps(one) for one in lines).encode()
    return gpt.files.create(file=(name, io.BytesIO(data)), purpose="batch").id


def create(gpt: openai.OpenAI, file_id: str, endpoint: Any = CHAT, **metadata: str) -> Any:
    return gpt.batches.create(input_file_id=file_id, endpoint=endpoint, completion_window="24h", metadata=metadata)


def rows(gpt: openai.OpenAI, file_id: str | None) -> dict[str, Any]:
    assert file_id is not None
    text = gpt.files.content(file_id).text
    return {row["custom_id"]: row for row in map(json.loads, text.splitlines())}


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        (CHAT, {"model": "m", "messages": [{"role": "user", "content": "hello world"}]}),
        ("/v1/responses", {"model": "m", "input": "hello world"}),
        ("/v1/embeddings", {"model": "m", "input": ["hello", "world"]}),
        ("/v1/completions", {"model": "m", "prompt": "hello world"}),
        ("/v1/moderations", {"model": "m", "input": "hello world"}),
    ],
)
def test_openai_answers_every_endpoint(gpt: openai.OpenAI, endpoint: str, body: dict[str, Any]) -> None:
    batch = create(gpt, upload(gpt, [line("a", body, endpoint)]), endpoint, note="x")
    assert batch.status == "validating"
    ended = gpt.batches.retrieve(batch.id)
    assert (ended.status, ended.metadata) == ("completed", {"note": "x"})
    assert ended.request_counts is not None
    assert (ended.request_counts.total, ended.request_counts.completed, ended.request_counts.failed) == (1, 1, 0)
    assert ended.error_file_id is None
    row = rows(gpt, ended.output_file_id)["a"]
    assert row["response"]["status_code"] == 200
    assert row["error"] is None
    if endpoint in (CHAT, "/v1/responses", "/v1/completions"):
        assert "hello world" in json.dumps(row["response"]["body"])


def test_openai_structured_output_fits_its_schema(gpt: openai.OpenAI) -> None:
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "two pears please"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": SCHEMA}},
    }
    batch = create(gpt, upload(gpt, [line("a", body)]))
    row = rows(gpt, gpt.batches.retrieve(batch.id).output_file_id)["a"]
    answer = json.loads(row["response"]["body"]["choices"][0]["message"]["content"])
    assert answer["label"] == "pears"
    assert 3 <= answer["n"] <= 5
    assert {type(one) for one in answer["deep"]} == {bool}


def test_openai_lists_newest_first_in_pages(gpt: openai.OpenAI) -> None:
    made = [create(gpt, upload(gpt, [line("a")])).id for _ in range(5)]
    first = gpt.batches.list(limit=2)
    assert [batch.id for batch in first.data] == made[:-3:-1]
    assert [batch.id for batch in gpt.batches.list(limit=2)] == made[::-1]
    with pytest.raises(openai.BadRequestError):
        gpt.batches.list(limit=101)


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ([line("a"), line("a")], "duplicate_custom_id"),
        ([line("a", url="/v1/embeddings")], "url_mismatch"),
        ([line("a"), line("b", {"model": "other", "messages": []})], "model_mismatch"),
        (b'{"custom_id": "a"\n', "invalid_json_line"),
        (b"\xef\xbb\xbf" + json.dumps(line("a")).encode(), "invalid_json_line"),
        (b"\n", "empty_file"),
        ([line("a", {"model": "no-such-model", "messages": []})], "model_not_found"),
    ],
)
def test_openai_refuses_a_bad_file_after_the_create(gpt: openai.OpenAI, lines: Any, code: str) -> None:
    batch = create(gpt, upload(gpt, lines))
    ended = gpt.batches.retrieve(batch.id)
    assert ended.status == "failed"
    assert ended.errors is not None
    assert ended.errors.data is not None
    assert ended.errors.data[0].code == code
    assert ended.output_file_id is None


def test_openai_errors_have_their_statuses(gpt: openai.OpenAI, server: Sandbox) -> None:
    with pytest.raises(openai.BadRequestError, match="jsonl"):
        upload(gpt, [line("a")], name="in.txt")
    with pytest.raises(openai.NotFoundError):
        gpt.batches.retrieve("batch_nope")
    with pytest.raises(openai.NotFoundError):
        gpt.files.content("file-nope")
    file_id = upload(gpt, [line("a")])
    with pytest.raises(openai.BadRequestError, match="Supported values"):
        create(gpt, file_id, "/v1/nonsense")
    with pytest.raises(openai.BadRequestError, match="metadata"):
        create(gpt, file_id, CHAT, x="y" * 513)
    server.control.settings(accept_keys=["two"])
    with pytest.raises(openai.AuthenticationError):
        gpt.batches.list()


def test_openai_requests_that_are_wrong_stand_in_the_error_file(gpt: openai.OpenAI) -> None:
    batch = create(gpt, upload(gpt, [line("good"), line("bad", {"model": "gpt-4.1-mini"})]))
    ended = gpt.batches.retrieve(batch.id)
    assert ended.status == "completed"
    bad = rows(gpt, ended.error_file_id)["bad"]
    assert bad["error"] is None
    assert bad["response"]["status_code"] == 400
    assert "messages" in bad["response"]["body"]["error"]["message"]
    assert list(rows(gpt, ended.output_file_id)) == ["good"]


def test_openai_batches_expire_and_are_cancelled(gpt: openai.OpenAI, server: Sandbox) -> None:
    server.control.settings(delay=10**6)
    slow, other = (create(gpt, upload(gpt, [line("a")])) for _ in range(2))
    assert gpt.batches.cancel(other.id).status == "cancelling"
    cancelled = gpt.batches.retrieve(other.id)
    assert cancelled.status == "cancelled"
    assert rows(gpt, cancelled.error_file_id)["a"]["error"]["code"] == "batch_cancelled"
    with pytest.raises(openai.ConflictError):
        gpt.batches.cancel(other.id)
    assert gpt.batches.retrieve(slow.id).status == "in_progress"
    server.control.advance(86400)
    expired = gpt.batches.retrieve(slow.id)
    assert expired.status == "expired"
    assert rows(gpt, expired.error_file_id)["a"]["error"]["code"] == "batch_expired"
    assert server.control.billing()["requests"] == 0


def test_openai_files_are_listed_deleted_and_expire(gpt: openai.OpenAI, server: Sandbox) -> None:
    kept, gone = upload(gpt, [line("a")], "one.jsonl"), upload(gpt, [line("b")], "two.jsonl")
    assert [file.filename for file in gpt.files.list(purpose="batch")] == ["two.jsonl", "one.jsonl"]
    assert gpt.files.delete(gone).deleted
    assert [file.id for file in gpt.files.list()] == [kept]
    server.control.advance(30 * 86400 + 1)
    with pytest.raises(openai.NotFoundError):
        gpt.files.retrieve(kept)


def request(custom_id: str, **params: Any) -> Any:
    base = {"model": "claude-x", "max_tokens": 200, "messages": [{"role": "user", "content": f"say {custom_id}"}]}
    return {"custom_id": custom_id, "params": {**base, **params}}


def results(claude: anthropic.Anthropic, batch_id: str) -> dict[str, Any]:
    return {row.custom_id: row.result for row in claude.messages.batches.results(batch_id)}


def test_anthropic_batches_come_to_their_end(claude: anthropic.Anthropic) -> None:
    batch = claude.messages.batches.create(requests=[request("a"), request("b")])
    assert batch.processing_status == "in_progress"
    assert batch.request_counts.processing == 2
    assert (batch.expires_at - batch.created_at).total_seconds() == 86400
    ended = claude.messages.batches.retrieve(batch.id)
    assert ended.processing_status == "ended"
    assert ended.request_counts.succeeded == 2
    found = results(claude, batch.id)
    assert found["a"].type == "succeeded"
    assert "say a" in found["a"].message.content[0].text
    assert claude.messages.batches.delete(batch.id).type == "message_batch_deleted"
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.batches.retrieve(batch.id)


def test_anthropic_structured_output_fits_its_schema(claude: anthropic.Anthropic) -> None:
    properties = {**SCHEMA["properties"], "n": {"type": "integer"}}  # type: ignore[dict-item]  # no bounds here
    config = {"format": {"type": "json_schema", "schema": {**SCHEMA, "properties": properties}}}
    batch = claude.messages.batches.create(requests=[request("apples", output_config=config)])
    claude.messages.batches.retrieve(batch.id)
    answer = json.loads(results(claude, batch.id)["apples"].message.content[0].text)
    assert answer["label"] == "apples"


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"temperature": 1.0}, "temperature"),
        ({"top_p": 1}, "top_p"),
        ({"stream": False}, "stream"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_anthropic_params_are_checked_when_the_batch_runs(
    claude: anthropic.Anthropic, params: dict[str, Any], words: str
) -> None:
    batch = claude.messages.batches.create(requests=[request("bad", **params), request("good")])
    claude.messages.batches.retrieve(batch.id)
    found = results(claude, batch.id)
    assert found["bad"].type == "errored"
    assert words in found["bad"].error.error.message
    assert found["good"].type == "succeeded"


@pytest.mark.parametrize("requests", [[], [request("not allowed!")], [request("a"), request("a")]])
def test_anthropic_refuses_bad_batches_at_once(claude: anthropic.Anthropic, requests: list[Any]) -> None:
    with pytest.raises(anthropic.BadRequestError):
        claude.messages.batches.create(requests=requests)


def test_anthropic_lists_cancels_expires_and_keeps_results_29_days(
    claude: anthropic.Anthropic, server: Sandbox
) -> None:
    made = [claude.messages.batches.create(requests=[request("a")]).id for _ in range(3)]
    assert [batch.id for batch in claude.messages.batches.list(limit=2)] == made[::-1]
    server.control.settings(delay=10**6)
    slow, other = (claude.messages.batches.create(requests=[request("a")]).id for _ in range(2))
    with pytest.raises(anthropic.BadRequestError, match="not ended"):
        claude.messages.batches.delete(slow)
    assert claude.messages.batches.cancel(other).processing_status == "canceling"
    assert claude.messages.batches.retrieve(other).request_counts.canceled == 1
    server.control.advance(86400)
    assert claude.messages.batches.retrieve(slow).request_counts.expired == 1
    server.control.advance(29 * 86400)
    with pytest.raises(anthropic.AnthropicError, match="results_url"):
        list(claude.messages.batches.results(made[0]))


def test_two_accounts_do_not_see_each_other(server: Sandbox, gpt: openai.OpenAI) -> None:
    batch = create(gpt, upload(gpt, [line("a")]))
    with openai.OpenAI(api_key="two", base_url=server.openai_base_url, max_retries=0) as other:
        assert other.batches.list().data == []
        with pytest.raises(openai.NotFoundError):
            other.batches.retrieve(batch.id)


def test_two_servers_over_one_file_serve_the_same_batches_and_bill_once(tmp_path: Path, gpt: openai.OpenAI) -> None:
    batches = [create(gpt, upload(gpt, [line(f"{n}")])).id for n in range(4)]
    with Sandbox(tmp_path / "box.db") as second:
        with openai.OpenAI(api_key="one", base_url=second.openai_base_url, max_retries=0) as other:
            for batch_id in batches:
                assert other.batches.retrieve(batch_id).status == "completed"
                assert gpt.batches.retrieve(batch_id).status == "completed"
        bill = second.control.billing()
    assert bill["requests"] == 4
    assert bill["twice"] == {"custom_id": [], "digest": []}


def test_the_bill_names_what_was_paid_for_twice(gpt: openai.OpenAI, server: Sandbox) -> None:
    for _ in range(2):
        batch = create(gpt, upload(gpt, [line("again")]))
        gpt.batches.retrieve(batch.id)
    assert server.control.billing()["twice"]["custom_id"] == ["again"]
    assert len(server.control.billing()["twice"]["digest"]) == 1


def test_settings_survive_a_restart(tmp_path: Path) -> None:
    with Sandbox(tmp_path / "b.db", settings=Settings(delay=50)) as server:
        server.control.advance(1000)
    with Sandbox(tmp_path / "b.db") as server:
        with openai.OpenAI(api_key="one", base_url=server.openai_base_url, max_retries=0) as gpt:
            batch = create(gpt, upload(gpt, [line("a")]))
            assert gpt.batches.retrieve(batch.id).status == "in_progress"


def test_an_unknown_fault_is_refused(server: Sandbox) -> None:
    with pytest.raises(ValueError, match="unknown fault"):
        server.arm({"what": "gremlins"})
