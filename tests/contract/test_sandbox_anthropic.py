"""The sandbox's Anthropic side, spoken to by the real SDK."""

import json
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic import Anthropic
from anthropic.types.message_count_tokens_params import MessageCountTokensParams
from anthropic.types.message_create_params import MessageCreateParamsBase

from nura_cli.sandbox import Sandbox
from nura_cli.sandbox.anthropic_requests import COUNTED, PARAMS
from nura_cli.sandbox.elements import elements
from tests.contract.sandbox_clients import anthropic_client, ask, asks, finish, post_raw, results

DAY = 86400


@pytest.fixture
def client(server: Sandbox) -> Iterator[Anthropic]:
    with anthropic_client(server) as made:
        yield made


# Batches


def test_a_batch_is_answered_and_adds_up(client: Anthropic, server: Sandbox) -> None:
    created = client.messages.batches.create(requests=asks(20))
    assert (created.type, created.processing_status, created.results_url) == ("message_batch", "in_progress", None)
    assert created.request_counts.to_dict() == {
        "processing": 20,
        "succeeded": 0,
        "errored": 0,
        "canceled": 0,
        "expired": 0,
    }
    assert (created.expires_at - created.created_at).total_seconds() == DAY
    batch = client.messages.batches.retrieve(created.id)
    assert (batch.processing_status, batch.request_counts.succeeded) == ("ended", 20)
    assert batch.request_counts.processing == 0
    assert batch.ended_at
    assert batch.results_url == f"{server.url}/v1/messages/batches/{batch.id}/results"
    assert not batch.model_extra
    found = results(client, batch.id)
    assert found.keys() == {f"a{n}" for n in range(20)}
    assert list(found) != [f"a{n}" for n in range(20)], "results come shuffled"
    for name, result in found.items():
        assert result.type == "succeeded"
        message = result.message
        assert f"this is {name}." in message.content[0].text
        assert (message.stop_reason, message.role, message.type) == ("end_turn", "assistant", "message")
        assert message.usage.service_tier == "batch"
    assert server.control.billing()["requests"] == 20
    assert server.control.billing()["input_tokens"] == sum(r.message.usage.input_tokens for r in found.values())


def test_counts_stay_at_processing_until_the_end(client: Anthropic, server: Sandbox) -> None:
    server.control.settings(delay=1000)
    batch = client.messages.batches.create(requests=asks(3))
    server.control.advance(900)
    assert client.messages.batches.retrieve(batch.id).request_counts.processing == 3
    with pytest.raises(anthropic.NotFoundError):
        client.get(f"/v1/messages/batches/{batch.id}/results", cast_to=object)
    with pytest.raises(anthropic.AnthropicError, match="finished processing"):
        client.messages.batches.results(batch.id)
    server.control.advance(100)
    ended = client.messages.batches.retrieve(batch.id)
    assert (ended.processing_status, ended.request_counts.succeeded) == ("ended", 3)
    assert ended.ended_at
    assert (ended.ended_at - ended.created_at).total_seconds() == 1000


def test_a_slow_batch_expires_with_what_was_answered(client: Anthropic, server: Sandbox) -> None:
    server.control.settings(delay=2 * DAY)
    batch = client.messages.batches.create(requests=asks(60))
    server.control.advance(DAY + 1)
    ended = client.messages.batches.retrieve(batch.id)
    counts = ended.request_counts
    assert ended.processing_status == "ended"
    assert counts.succeeded + counts.expired == 60
    assert 15 < counts.expired < 45
    kinds = [result.type for result in results(client, batch.id).values()]
    assert (kinds.count("succeeded"), kinds.count("expired")) == (counts.succeeded, counts.expired)
    assert server.control.billing()["requests"] == counts.succeeded


def test_a_batch_can_be_canceled_until_it_has_ended(client: Anthropic, server: Sandbox) -> None:
    server.control.settings(delay=1000)
    batch = client.messages.batches.create(requests=asks(60))
    server.control.advance(500)
    canceling = client.messages.batches.cancel(batch.id)
    assert (canceling.processing_status, canceling.request_counts.processing) == ("canceling", 60)
    assert canceling.cancel_initiated_at
    ended = client.messages.batches.retrieve(batch.id)
    assert ended.processing_status == "ended"
    assert ended.request_counts.succeeded + ended.request_counts.canceled == 60
    assert ended.request_counts.succeeded
    assert ended.request_counts.canceled
    assert {result.type for result in results(client, batch.id).values()} == {"succeeded", "canceled"}
    with pytest.raises(anthropic.BadRequestError, match="already ended"):
        client.messages.batches.cancel(batch.id)


def test_a_canceled_batch_says_what_had_finished(client: Anthropic, server: Sandbox) -> None:
    server.control.settings(delay=1000)
    created = client.messages.batches.create(requests=asks(60))
    server.control.advance(500)
    client.messages.batches.cancel(created.id)
    canceling = client.messages.batches.cancel(created.id)
    assert (canceling.processing_status, canceling.ended_at, canceling.results_url) == ("canceling", None, None)
    server.control.advance(5000)
    batch = client.messages.batches.retrieve(created.id)
    assert (batch.processing_status, batch.ended_at) == ("ended", canceling.cancel_initiated_at)
    kinds = [result.type for result in results(client, batch.id).values()]
    assert {kind: kinds.count(kind) for kind in ("succeeded", "canceled")} == {
        "succeeded": batch.request_counts.succeeded,
        "canceled": batch.request_counts.canceled,
    }
    assert len(kinds) == 60
    assert 0 < batch.request_counts.canceled < 60
    assert client.messages.batches.list().data == [batch]


def test_a_batch_that_ended_before_its_cancel_is_not_canceled(client: Anthropic, server: Sandbox) -> None:
    server.control.settings(delay=1000)
    batch = client.messages.batches.create(requests=asks(3))
    server.control.advance(1000)
    with pytest.raises(anthropic.BadRequestError, match="already ended"):
        client.messages.batches.cancel(batch.id)
    assert client.messages.batches.retrieve(batch.id).request_counts.succeeded == 3


def test_only_an_ended_batch_can_be_deleted(client: Anthropic) -> None:
    batch = client.messages.batches.create(requests=asks(1))
    with pytest.raises(anthropic.BadRequestError, match="has not ended"):
        client.messages.batches.delete(batch.id)
    client.messages.batches.retrieve(batch.id)
    deleted = client.messages.batches.delete(batch.id)
    assert (deleted.id, deleted.type) == (batch.id, "message_batch_deleted")
    for call in (client.messages.batches.retrieve, client.messages.batches.cancel, client.messages.batches.delete):
        with pytest.raises(anthropic.NotFoundError):
            call(batch.id)
    assert client.messages.batches.list().data == []


def test_results_are_kept_29_days_and_the_batch_longer(client: Anthropic, server: Sandbox) -> None:
    batch = finish(client, asks(1))
    server.control.advance(29 * DAY - 60)
    assert len(results(client, batch.id)) == 1
    server.control.advance(61)
    later = client.messages.batches.retrieve(batch.id)
    assert (later.processing_status, later.results_url) == ("ended", None)
    assert later.archived_at
    with pytest.raises(anthropic.NotFoundError):
        client.get(f"/v1/messages/batches/{batch.id}/results", cast_to=object)


def test_batches_are_listed_newest_first_both_ways(client: Anthropic) -> None:
    ids = [client.messages.batches.create(requests=asks(1)).id for _ in range(5)]
    listed = client.messages.batches.list(limit=2)
    assert [batch.id for batch in listed.data] == [ids[4], ids[3]]
    assert (listed.has_more, listed.first_id, listed.last_id) == (True, ids[4], ids[3])
    assert [batch.id for batch in listed] == ids[::-1]
    before = client.messages.batches.list(limit=2, before_id=ids[1])
    assert [batch.id for batch in before.data] == [ids[3], ids[2]]
    assert before.has_more
    assert [batch.id for batch in before] == [ids[3], ids[2], ids[4]], "pages go up, each is newest first"
    last = client.messages.batches.list(after_id=ids[1])
    assert ([batch.id for batch in last.data], last.has_more) == ([ids[0]], False)


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 1001}, {"limit": "x"}, {"after_id": "msgbatch_none"}])
def test_a_list_that_asks_for_nonsense_is_refused(client: Anthropic, query: dict[str, Any]) -> None:
    with pytest.raises(anthropic.BadRequestError, match=next(iter(query))):
        client.messages.batches.list(**query)


# Models, and tokens


def test_models_are_listed_by_page_and_found_as_the_settings_have_them(client: Anthropic, server: Sandbox) -> None:
    listed = [model.id for model in client.models.list()]
    assert "claude-haiku-4-5" in listed
    for name in (*listed, "claude-any-other", "org/mine"):
        model = client.models.retrieve(name)
        assert (model.id, model.type, model.lifecycle) == (name, "model", "active")
        assert not model.model_extra
    assert [model.id for model in client.beta.models.list()] == listed
    with pytest.raises(anthropic.NotFoundError, match="model: no-such"):
        client.models.retrieve("no-such")
    server.control.settings(models=["m1", "m2", "m3", "m4", "m5"])
    page = client.models.list(limit=2)
    assert ([model.id for model in page.data], page.has_more, page.last_id) == (["m1", "m2"], True, "m2")
    assert [model.id for model in page] == ["m1", "m2", "m3", "m4", "m5"]
    assert [model.id for model in client.models.list(before_id="m4", limit=2).data] == ["m2", "m3"]
    assert client.models.list(after_id="m4").has_more is False
    for query in ({"limit": 0}, {"after_id": "no-such"}, {"after_id": "m1", "before_id": "m2"}):
        with pytest.raises(anthropic.BadRequestError):
            client.models.list(**query)


def test_each_vendor_has_its_own_shape_of_models_and_errors(client: Anthropic, server: Sandbox) -> None:
    answer = client.models.with_raw_response.list()
    assert answer.headers["request-id"]
    assert answer.headers["anthropic-organization-id"].startswith("org-")
    server.control.settings(accept_keys=["sk-right"])
    with pytest.raises(anthropic.AuthenticationError, match="invalid x-api-key"):
        client.models.list()
    headers = {"Authorization": "Bearer sk-right"}
    with urllib.request.urlopen(urllib.request.Request(f"{server.url}/v1/models", headers=headers)) as plain:
        assert json.loads(plain.read())["object"] == "list"
        assert plain.headers["x-request-id"]


def test_tokens_are_counted_as_a_batch_is_billed(client: Anthropic, server: Sandbox) -> None:
    params: dict[str, Any] = {
        "model": "claude-haiku-4-5",
        "system": "Be brief.",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Say hello."}]}],
        "tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}}],
    }
    counted = client.messages.count_tokens(**params)
    assert not counted.model_extra
    assert counted.input_tokens > 20
    assert client.beta.messages.count_tokens(**params).input_tokens == counted.input_tokens
    request = {"custom_id": "a1", "params": {**params, "max_tokens": 50}}
    assert results(client, finish(client, [request]).id)["a1"].message.usage.input_tokens == counted.input_tokens
    long: list[Any] = [{"role": "user", "content": "x" * 4_000_000}]
    assert client.messages.count_tokens(model="claude-opus-5", messages=long).input_tokens > 800_000
    with pytest.raises(anthropic.NotFoundError, match="model: no-such"):
        client.messages.count_tokens(**{**params, "model": "no-such"})
    assert server.control.billing()["requests"] == 1
    assert server.control.log()[0]["route"] == "count"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"max_tokens": 5}, "max_tokens: Extra inputs are not permitted"),
        ({"temperature": 1}, "temperature: Extra inputs are not permitted"),
        ({"messages": []}, "at least one message"),
        ({"model": None}, "model: Field required"),
        ({"tool_choice": {"type": "any"}}, "tools"),
        (
            {"tools": [{"name": "f", "strict": True, "input_schema": {"properties": {"a": 5}, "required": 3}}]},
            "tools.0",
        ),
    ],
)
def test_a_count_of_nonsense_is_refused(client: Anthropic, wrong: dict[str, Any], words: str) -> None:
    params = {"model": "claude-haiku-4-5", "messages": [{"role": "user", "content": "x"}], **wrong}
    with pytest.raises(anthropic.BadRequestError, match=re.escape(words)):
        client.post("/v1/messages/count_tokens", body=params, cast_to=object)


def test_a_body_that_is_no_object_is_not_counted(client: Anthropic) -> None:
    headers = {"Content-Type": "application/json"}
    for body in (b"", b"[]", b"[" * 100_000, b"{"):
        with pytest.raises(anthropic.BadRequestError, match="not valid"):
            client.post("/v1/messages/count_tokens", content=body, cast_to=object, options={"headers": headers})


# Create

CREATES: list[tuple[bytes, str]] = [
    (b'{"requests": []}', "at least 1"),
    (b"", "not valid"),
    (b"{}", "not valid"),
    (b"[]", "not valid"),
    (b'{"request": [1]}', "Field required"),
    (b'{"requests": [1]}', "valid dictionary"),
    (b'{"requests": [{"params": {}}]}', "custom_id: Field required"),
    (b'{"requests": [{"custom_id": "a"}]}', "params: Field required"),
    (b'{"requests": [{"custom_id": "a", "params": {}, "extra": 1}]}', "Extra inputs"),
    (b'{"requests": [{"custom_id": "a", "params": {}}], "metadata": {}}', "Extra inputs"),
    (b'{"requests": [{"custom_id": "a", "params": {}}]', "not valid"),
    (b'{"requests": [{"custom_id": "a", "params": {}}] } x', "not valid"),
    (b'{"requests": [{"custom_id": "a", "params": {}},]}', "not valid"),
    (b'{"requests": [{"custom_id": "a", "params": {}} {}]}', "not valid"),
    (b'{"requests": [{"custom_id": "a", "params": {"x": NaN}}]}', "not valid"),
    (b'{"requests": [{"custom_id": "a", "params": {"x": "\xff"}}]}', "not valid"),
    (b'{"requests": [{"custom_id": "a", "params": ' + b"[" * 99_999 + b"]" * 99_999 + b"}]}", "not valid"),
    (b"\xef\xbb\xbf" + b'{"requests": [{"custom_id": "a", "params": {}}]}', "not valid"),
]


@pytest.mark.parametrize(("body", "words"), CREATES, ids=[f"{n}-{case[1]}" for n, case in enumerate(CREATES)])
def test_a_body_that_is_no_list_of_requests_is_refused(
    client: Anthropic, server: Sandbox, body: bytes, words: str
) -> None:
    with pytest.raises(anthropic.BadRequestError, match=words) as refused:
        post_raw(client, body)
    assert refused.value.type == "invalid_request_error"
    assert client.messages.batches.list().data == []
    assert [path.suffix for path in Path(f"{server._store.folder}").iterdir() if path.suffix != ".lock"] == []


@pytest.mark.parametrize("custom_id", ["", "a b", "ä", "a" * 65, "a.b"])
def test_a_custom_id_has_its_pattern(client: Anthropic, custom_id: str) -> None:
    bad: Any = [ask(0), {**ask(1), "custom_id": custom_id}]
    with pytest.raises(anthropic.BadRequestError, match=r"requests\.1\.custom_id"):
        client.messages.batches.create(requests=bad)
    fine: Any = [{**ask(0), "custom_id": "a" * 64}, {**ask(1), "custom_id": "A-_9"}]
    assert client.messages.batches.create(requests=fine).request_counts.processing == 2


def test_a_custom_id_is_used_once_in_a_batch(client: Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match=r"requests\.2\.custom_id: 'a0' is already used by requests\.0"):
        client.messages.batches.create(requests=[ask(0), ask(1), ask(0)])  # type: ignore[list-item]
    assert finish(client, asks(1)).request_counts.succeeded == 1
    assert finish(client, asks(1)).request_counts.succeeded == 1


def test_a_body_that_is_too_large_is_refused_by_the_edge_in_html(client: Anthropic, monkeypatch: Any) -> None:
    monkeypatch.setattr("nura_cli.sandbox.anthropic_api.MOST_BYTES", 1000)
    with pytest.raises(anthropic.APIStatusError) as refused:
        client.messages.batches.create(requests=asks(20))
    assert refused.value.status_code == 413
    assert refused.value.response.headers["content-type"] == "text/html"
    assert refused.value.response.text.startswith("<html>")


def test_a_batch_has_a_limit_of_requests(client: Anthropic, monkeypatch: Any) -> None:
    monkeypatch.setattr("nura_cli.sandbox.anthropic_api.MOST_REQUESTS", 5)
    assert client.messages.batches.create(requests=asks(5)).request_counts.processing == 5
    with pytest.raises(anthropic.BadRequestError, match="at most 5"):
        client.messages.batches.create(requests=asks(6))


def test_requests_are_told_apart_wherever_the_body_is_cut_for_reading(tmp_path: Path, monkeypatch: Any) -> None:
    values = [
        {"custom_id": f"n{n}", "params": {"t": 'q"\\[{,}]\u2028é' * (n % 7), "n": [n, -1.5e-3, None, True]}}
        for n in range(40)
    ]
    body = json.dumps({"requests": values}, ensure_ascii=False, indent=1).encode()
    (tmp_path / "body").write_bytes(body)
    for piece in (17, 64, 1000):
        monkeypatch.setattr("nura_cli.sandbox.elements._PIECE", piece)
        assert list(elements(tmp_path / "body")) == values


def test_a_request_in_an_endless_string_is_given_up(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("nura_cli.sandbox.elements.MOST_CHARACTERS", 100_000)
    (tmp_path / "body").write_bytes(b'{"requests": ["' + b"x" * 2_000_000)
    with pytest.raises(ValueError, match="larger than"):
        list(elements(tmp_path / "body"))


def test_a_body_may_come_in_chunks_and_a_connection_serves_many_requests(server: Sandbox) -> None:
    body = json.dumps({"requests": asks(50)}).encode()
    headers = {"x-api-key": "k", "anthropic-version": "2026-10-21"}
    with httpx2.Client(base_url=server.url, headers=headers) as client:
        for path, status in (("/v1/messages/batches", 200), ("/v1/messages/none", 404), ("/v1/messages/batches", 200)):
            pieces = (body[i : i + 777] for i in range(0, len(body), 777))
            assert client.post(path, content=pieces).status_code == status
            assert client.post(path, content=body).status_code == status
    with socket.create_connection(server.url.removeprefix("http://").split(":")) as raw:  # type: ignore[arg-type]
        get = "GET /v1/messages/batches HTTP/1.1\r\nHost: x\r\nx-api-key: k\r\nanthropic-version: 1\r\n\r\n"
        raw.sendall(b"POST" + get.encode()[3:-2] + b"Content-Length: 4\r\n\r\nnope" + 2 * get.encode())
        raw.shutdown(socket.SHUT_WR)
        answers = b"".join(iter(lambda: raw.recv(65536), b""))
    assert re.findall(rb"HTTP/1\.1 (\d+)", answers) == [b"400", b"200", b"200"]


@pytest.mark.parametrize("head", ["Content-Length: 999", "Content-Length: x", "Transfer-Encoding: chunked"])
def test_a_body_that_is_cut_has_no_effect(server: Sandbox, head: str) -> None:
    with socket.create_connection(server.url.removeprefix("http://").split(":")) as raw:  # type: ignore[arg-type]
        lines = ["POST /v1/messages/batches HTTP/1.1", "Host: x", "x-api-key: k", "anthropic-version: 1", head, "", ""]
        raw.sendall("\r\n".join(lines).encode() + b'{"requests": [')
        raw.shutdown(socket.SHUT_WR)
        assert raw.recv(10) == b""
    assert server.control.batches() == []
    assert [row["outcome"] for row in server.control.log()] == ["dropped"]


# Accounts


def test_each_key_has_an_account_of_its_own(client: Anthropic, server: Sandbox) -> None:
    batch = finish(client, asks(1))
    with anthropic_client(server, "sk-other") as other:
        assert other.messages.batches.list().data == []
        for call in (other.messages.batches.retrieve, other.messages.batches.cancel, other.messages.batches.delete):
            with pytest.raises(anthropic.NotFoundError):
                call(batch.id)
        with pytest.raises(anthropic.NotFoundError):
            other.get(f"/v1/messages/batches/{batch.id}/results", cast_to=object)
    server.control.settings(accept_keys=["sk-right"])
    with pytest.raises(anthropic.AuthenticationError) as refused:
        client.messages.batches.list()
    assert refused.value.type == "authentication_error"
    with anthropic_client(server, "sk-right") as right:
        assert right.messages.batches.list().data == []


def test_a_key_and_a_version_are_needed_and_the_old_header_is_fine(server: Sandbox) -> None:
    def get(**headers: str) -> int:
        request = urllib.request.Request(f"{server.url}/v1/messages/batches", headers=headers)
        try:
            with urllib.request.urlopen(request) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code if json.loads(error.read())["type"] == "error" else 0

    assert get() == 401
    assert get(**{"x-api-key": "k"}) == 400
    assert get(**{"x-api-key": "k", "anthropic-version": "2023-06-01"}) == 200


def test_every_answer_has_a_request_id_and_the_sandboxs_date(client: Anthropic, server: Sandbox) -> None:
    server.control.advance(365 * DAY)
    ok = client.messages.batches.with_raw_response.list()
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.messages.batches.retrieve("msgbatch_none")
    assert missing.value.request_id
    assert missing.value.body["request_id"] == missing.value.request_id  # type: ignore[index]
    assert ok.headers["request-id"].startswith("req_")
    assert ok.headers["anthropic-organization-id"].startswith("org-")
    assert str(time.gmtime(server.control.settings()["now"]).tm_year) in ok.headers["date"]
    with pytest.raises(anthropic.NotFoundError):
        client.post("/v1/messages/nothing", cast_to=object)


# Requests

REQUESTS: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": None}, "max_tokens: Field required"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": "9"}, "max_tokens"),
    ({"model": ""}, "model"),
    ({"messages": None}, "messages: Field required"),
    ({"messages": []}, "at least one message"),
    ({"messages": "hello"}, "valid list"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
    ({"messages": [{"role": "user", "content": ""}]}, "non-empty"),
    ({"messages": [{"role": "user"}]}, "content: Field required"),
    ({"system": 1}, "system"),
    ({"stream": True}, "stream: Extra"),
    ({"stream": False}, "stream: Extra"),
    ({"store": True}, "store: Extra"),
    ({"speed": "fast"}, "speed: Extra"),
    ({"temperature": 1.0}, "temperature: Extra"),
    ({"top_p": 1}, "top_p: Extra"),
    ({"top_k": 5}, "top_k: Extra"),
    ({"max_token": 5}, "max_token: Extra"),
    ({"output_config": {"format": {"type": "xml"}}}, "json_schema"),
    ({"output_config": {"format": {"type": "json_schema"}}}, "schema: Field required"),
    ({"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}}, "additionalProperties"),
    ({"output_config": {"format": {"type": "json_schema", "schema": {"type": "integer", "minimum": 1}}}}, "'minimum'"),
]


def test_a_bad_request_shows_up_only_as_its_errored_result(client: Anthropic, server: Sandbox) -> None:
    bad = [ask(f"bad-{n}", **wrong) for n, (wrong, _) in enumerate(REQUESTS)]
    created = client.messages.batches.create(requests=[ask("good"), *bad])  # type: ignore[list-item]
    assert created.processing_status == "in_progress"
    batch = client.messages.batches.retrieve(created.id)
    assert (batch.request_counts.succeeded, batch.request_counts.errored) == (1, len(REQUESTS))
    found = results(client, batch.id)
    for n, (wrong, words) in enumerate(REQUESTS):
        result = found[f"abad-{n}"]
        assert result.type == "errored", wrong
        assert (result.error.type, result.error.error.type) == ("error", "invalid_request_error")
        assert words in result.error.error.message
    assert found["agood"].type == "succeeded"
    assert server.control.billing()["requests"] == 1


def test_an_older_version_still_takes_sampling_parameters(server: Sandbox) -> None:
    with anthropic_client(server).with_options(default_headers={"anthropic-version": "2023-06-01"}) as old:
        batch = finish(old, [ask(1, temperature=0.5, top_k=3), ask(2, stream=True)])
        assert (batch.request_counts.succeeded, batch.request_counts.errored) == (1, 1)


def test_models_may_be_mixed_and_one_that_is_not_there_fails_alone(client: Anthropic) -> None:
    batch = finish(client, [ask(1, model="claude-haiku-4-5"), ask(2, model="claude-opus-5"), ask(3, model="no-such")])
    found = results(client, batch.id)
    assert [found[name].type for name in ("a1", "a2", "a3")] == ["succeeded", "succeeded", "errored"]
    assert found["a3"].error.error.type == "not_found_error"


def test_an_answer_that_needs_more_tokens_than_allowed_is_cut(client: Anthropic) -> None:
    message = results(client, finish(client, [ask(1, max_tokens=3)]).id)["a1"].message
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 3)


def test_an_answer_fits_the_schema_and_the_prompt(client: Anthropic) -> None:
    schema = {
        "type": "object",
        "properties": {"label": {"enum": ["billing", "bug", "praise"]}, "words": {"type": "array", "items": {"type": "string"}}},
        "required": ["label", "words"],
        "additionalProperties": False,
    }  # fmt: skip
    config = {"format": {"type": "json_schema", "schema": schema}}
    content = [{"type": "text", "text": "There is a bug "}, {"type": "text", "text": "in the export."}]
    request = ask(1, messages=[{"role": "user", "content": content}], output_config=config, system="Classify.")
    message = results(client, finish(client, [request]).id)["a1"].message
    told = json.loads(message.content[0].text)
    assert told["label"] == "bug"
    assert all(isinstance(word, str) for word in told["words"])


def test_the_parameters_that_are_accepted_are_those_of_the_sdk() -> None:
    assert set(MessageCountTokensParams.__annotations__) - {"workspace_id"} <= COUNTED
    assert set(MessageCreateParamsBase.__annotations__) - {"speed", "workspace_id"} == PARAMS
