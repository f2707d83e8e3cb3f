"""The sandbox's fault switches, as the real SDKs meet them."""

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from anthropic import Anthropic
from anthropic.types.messages import MessageBatch
from openai import OpenAI
from openai.types import Batch

from nura_cli.sandbox import Sandbox
from tests.contract.sandbox_clients import (
    CHAT,
    KEY,
    ask,
    asks,
    chat,
    chats,
    finish,
    jsonl,
    results,
    rows,
    run,
    send,
    upload,
)


def until(true: Callable[[], object]) -> None:
    """Wait until something is true, for a bounded time."""
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.01)


# The switches themselves


def test_a_fault_strikes_its_route_as_often_as_told_after_those_it_lets_pass(
    client: OpenAI, claude: Anthropic, server: Sandbox
) -> None:
    server.control.fault("status", "list", status=503, skip=1, times=2)
    seen = []
    for _ in range(4):
        try:
            client.batches.list()
            seen.append(200)
        except openai.InternalServerError as error:
            seen.append(error.status_code)
        client.files.list()
    assert seen == [200, 503, 503, 200]
    assert claude.messages.batches.list().data == []
    (fault,) = server.control.faults()
    assert (fault["left"], fault["seen"]) == (0, 3)


def test_a_fault_can_be_aimed_at_a_path_and_a_method(client: OpenAI, claude: Anthropic, server: Sandbox) -> None:
    server.control.fault("status", path="/v1/messages/*", method="GET", times=-1)
    client.batches.list()
    batch = claude.messages.batches.create(requests=asks(1))
    for _ in range(3):
        with pytest.raises(anthropic.InternalServerError):
            claude.messages.batches.retrieve(batch.id)


def test_a_probable_fault_strikes_the_same_exchanges_for_the_same_seed(client: OpenAI, server: Sandbox) -> None:
    def pattern(seed: int) -> list[bool]:
        number = server.control.fault("status", "list", probability=0.5, seed=seed, times=-1)
        since = max((row["id"] for row in server.control.log()), default=0)
        for _ in range(20):
            with suppress(openai.InternalServerError):
                client.batches.list()
        server.control.clear(number)
        return [row["fault"] is not None for row in server.control.log(since)]

    first = pattern(1)
    assert 3 < sum(first) < 17
    assert pattern(1) == first
    assert pattern(2) != first


@pytest.mark.parametrize(
    "wrong",
    [
        {"what": "nothing"},
        {"what": "status", "sattus": 1},
        {"what": "truncate", "framing": "odd"},
        {"what": "rows", "shape": "round"},
        {"what": "list_shape", "shape": "plain"},
        {"what": "create_shape", "shape": "array"},
        {"what": "rows", "route": "create"},
    ],
    ids=str,
)
def test_a_fault_that_is_unknown_is_refused(server: Sandbox, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="fault"):
        server.control.fault(**wrong)
    with pytest.raises(ValueError, match="fault"):
        server.arm(wrong)
    with pytest.raises(ValueError, match="setting"):
        server.control.settings(dealy=1)
    assert server.control.faults() == []


def test_cleared_faults_strike_no_more(client: OpenAI, server: Sandbox) -> None:
    server.control.fault("status", times=-1)
    kept = server.control.fault("redirect", "files", times=-1)
    server.control.clear(kept)
    assert [fault["what"] for fault in server.control.faults()] == ["status"]
    server.control.clear()
    assert client.batches.list().data == []


# Exchanges

STATUSES: list[tuple[int, type[openai.APIStatusError], type[anthropic.APIStatusError], str]] = [
    (400, openai.BadRequestError, anthropic.BadRequestError, "invalid_request_error"),
    (401, openai.AuthenticationError, anthropic.AuthenticationError, "authentication_error"),
    (403, openai.PermissionDeniedError, anthropic.PermissionDeniedError, "permission_error"),
    (408, openai.APIStatusError, anthropic.APIStatusError, "invalid_request_error"),
    (409, openai.ConflictError, anthropic.ConflictError, "invalid_request_error"),
    (429, openai.RateLimitError, anthropic.RateLimitError, "rate_limit_error"),
    (500, openai.InternalServerError, anthropic.InternalServerError, "api_error"),
    (503, openai.InternalServerError, anthropic.InternalServerError, "api_error"),
    (529, openai.InternalServerError, anthropic.InternalServerError, "overloaded_error"),
]


@pytest.mark.parametrize(("status", "theirs", "claudes", "kind"), STATUSES, ids=[str(case[0]) for case in STATUSES])
def test_a_status_comes_in_the_vendors_shape_and_nothing_is_done(
    client: OpenAI,
    claude: Anthropic,
    server: Sandbox,
    status: int,
    theirs: type[openai.APIStatusError],
    claudes: type[anthropic.APIStatusError],
    kind: str,
) -> None:
    server.control.fault("status", "create", status=status, times=2, message="by order", retry_after=7)
    with pytest.raises(theirs, match="by order") as one:
        send(client, chats(1))
    with pytest.raises(claudes, match="by order") as other:
        claude.messages.batches.create(requests=asks(1))
    assert (one.value.status_code, other.value.status_code) == (status, status)
    assert other.value.type == kind
    assert [error.response.headers["retry-after"] for error in (one.value, other.value)] == ["7", "7"]
    assert server.control.batches() == []
    assert (server.control.billing()["creates"], server.control.billing()["accepted"]) == (2, 0)


def test_html_with_a_200_is_no_batch(client: OpenAI, claude: Anthropic, server: Sandbox) -> None:
    file = upload(client, chats(1))
    server.control.fault("html", "create", times=2)
    made: object = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    other: object = claude.messages.batches.create(requests=asks(1))
    assert isinstance(made, str)
    assert isinstance(other, str)
    assert made.startswith("<!DOCTYPE html>")
    assert server.control.batches() == []
    server.control.fault("html", "create", after=True)
    claude.messages.batches.create(requests=asks(1))
    assert len(server.control.batches()) == 1


@pytest.mark.parametrize(("what", "made"), [("drop_before", 0), ("drop_after", 1)])
def test_a_dropped_create_was_done_or_not(
    client: OpenAI, claude: Anthropic, server: Sandbox, what: str, made: int
) -> None:
    file = upload(client, chats(1))
    server.control.fault(what, "create", times=2)
    with pytest.raises(openai.APIConnectionError):
        client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    with pytest.raises(anthropic.APIConnectionError):
        claude.messages.batches.create(requests=asks(1))
    assert [batch["protocol"] for batch in server.control.batches()] == ["openai", "anthropic"][: 2 * made]
    assert (server.control.billing()["creates"], server.control.billing()["accepted"]) == (2, 2 * made)
    dropped = [row for row in server.control.log() if row["outcome"] == "dropped"]
    assert [(row["route"], row["status"], row["fault"]) for row in dropped] == [("create", None, what)] * 2
    assert len(client.batches.list().data) == made


def test_an_upload_can_be_dropped_after_its_effect(client: OpenAI, server: Sandbox) -> None:
    server.control.fault("drop_after", "upload")
    with pytest.raises(openai.APIConnectionError):
        upload(client, chats(1), "tag.jsonl")
    assert [file["filename"] for file in server.control.files()] == ["tag.jsonl"]


@pytest.mark.parametrize("after", [False, True])
def test_a_held_request_waits_until_it_is_let_go(client: OpenAI, server: Sandbox, after: bool) -> None:
    file = upload(client, chats(1))
    server.control.fault("hold", "create", after=after, seconds=20)
    made: list[Batch] = []

    def create() -> None:
        made.append(client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h"))

    thread = threading.Thread(target=create)
    thread.start()
    until(lambda: server.control.held() == 1)
    assert len(server.control.batches()) == int(after)
    assert made == []
    server.control.release()
    thread.join(10)
    assert [batch.id for batch in made] == [batch["id"] for batch in server.control.batches()]
    assert server.control.held() == 0


def test_a_hold_ends_by_itself(client: OpenAI, server: Sandbox) -> None:
    server.control.fault("hold", "list", seconds=0.05)
    assert client.batches.list().data == []


def test_latency_makes_a_client_time_out_and_goes_with_another_fault(client: OpenAI, server: Sandbox) -> None:
    server.control.fault("latency", "list", seconds=20)
    with pytest.raises(openai.APITimeoutError):
        client.batches.list(timeout=0.1)
    server.control.fault("latency", "files", seconds=0.01)
    server.control.fault("status", "files", status=429)
    with pytest.raises(openai.RateLimitError):
        client.files.list()
    assert server.control.log()[-1]["fault"] == "latency+status"


def test_a_redirect_leads_away(client: OpenAI, server: Sandbox) -> None:
    server.control.fault("redirect", "list", to=f"{server.url}/v1/files", times=2)
    plain = httpx2.get(f"{server.openai_base_url}/batches", follow_redirects=False)
    assert (plain.status_code, plain.headers["location"]) == (307, f"{server.url}/v1/files")
    client.batches.list()
    assert [row["route"] for row in server.control.log()] == ["list", "list", "files"]


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_download_comes_whole_or_cut_in_each_framing(
    client: OpenAI, claude: Anthropic, server: Sandbox, framing: str
) -> None:
    one, other = run(client, chats(20)), finish(claude, asks(20))
    file_id = one.output_file_id or ""
    whole = client.files.content(file_id).read()
    server.control.fault("framing", "download", framing=framing, times=2)
    assert client.files.content(file_id).read() == whole
    assert len(results(claude, other.id)) == 20
    server.control.fault("truncate", "download", framing=framing, keep=0.4)
    if framing == "close":
        short = client.files.content(file_id).read()
        assert short == whole[: int(len(whole) * 0.4)], "such a body ends silently short"
    else:
        with pytest.raises(httpx2.RemoteProtocolError), client.files.with_streaming_response.content(file_id) as body:
            body.read()
    assert client.files.content(file_id).read() == whole


def test_a_list_can_fail_half_way_and_never_advance(client: OpenAI, claude: Anthropic, server: Sandbox) -> None:
    ids = [send(client, chats(1)).id for _ in range(5)]
    for _ in range(3):
        claude.messages.batches.create(requests=asks(1))
    server.control.fault("status", "list", skip=1)
    first = client.batches.list(limit=2)
    assert [batch.id for batch in first.data] == ids[:2:-1]
    with pytest.raises(openai.InternalServerError):
        first.get_next_page()
    server.control.fault("stuck_list")
    pages = [client.batches.list(limit=2, after=after).data for after in (ids[4], ids[3], ids[0])]
    assert [[batch.id for batch in page] for page in pages] == [[ids[4], ids[3]]] * 3
    assert client.batches.list(limit=100).has_more
    listed = claude.messages.batches.list(limit=2)
    again = claude.messages.batches.list(limit=2, after_id=listed.last_id or "")
    assert (again.data, again.has_more) == (listed.data, True)


def test_young_batches_can_be_hidden_from_the_list(client: OpenAI, server: Sandbox) -> None:
    batch = send(client, chats(1))
    server.control.fault("hide", seconds=600)
    assert client.batches.list().data == []
    assert client.batches.retrieve(batch.id).id == batch.id
    server.control.advance(601)
    assert [one.id for one in client.batches.list()] == [batch.id]


def test_a_list_can_come_in_other_orders(client: OpenAI, server: Sandbox) -> None:
    old = [server.control.foreign(key=KEY, age=60) for _ in range(2)]
    new = [server.control.foreign(key=KEY, age=0) for _ in range(2)]
    assert [batch.id for batch in client.batches.list()] == [*reversed(new), *reversed(old)]
    number = server.control.fault("oldest_first")
    assert [batch.id for batch in client.batches.list(limit=1)] == [*old, *new]
    server.control.clear(number)
    server.control.fault("ties")
    listed = [batch.id for batch in client.batches.list(limit=1)]
    assert set(listed[:2]) == set(new)
    assert listed[2:] == old


def test_a_service_can_leave_out_what_the_vendor_says(client: OpenAI, server: Sandbox) -> None:
    batch = send(client, chats(1))
    told = client.batches.with_raw_response.retrieve(batch.id)
    assert {"date", "openai-organization"} <= {name.lower() for name in told.http_response.headers}
    for quirk in ("no_date", "no_account", "no_times", "no_input_file"):
        server.control.fault(quirk)
    told = client.batches.with_raw_response.retrieve(batch.id)
    assert not {"date", "openai-organization"} & {name.lower() for name in told.http_response.headers}
    found = told.parse().model_dump()
    assert (found["created_at"], found["input_file_id"]) == (None, None)


@pytest.mark.parametrize(("quirk", "shared"), [("one_organization", False), ("one_account", True)])
def test_keys_may_be_of_one_organization_or_of_one_account(
    client: OpenAI, server: Sandbox, quirk: str, shared: bool
) -> None:
    other = client.with_options(api_key="sk-other")
    server.control.fault(quirk)
    batch = send(client, chats(1))
    pages = [one.batches.with_raw_response.list() for one in (client, other)]
    assert len({page.http_response.headers["openai-organization"] for page in pages}) == 1
    assert [one.id for one in pages[0].parse().data] == [batch.id]
    assert [one.id for one in pages[1].parse().data] == [batch.id] * shared


def test_asked_after_one_batch_or_file_it_can_tell_of_another(
    client: OpenAI, claude: Anthropic, server: Sandbox
) -> None:
    first, second = run(client, chats(1)), run(client, chats(2))
    server.control.fault("mixed_up", "retrieve", of=first.id)
    assert client.batches.retrieve(second.id).id == first.id
    server.control.fault("mixed_up", "download", of=first.output_file_id)
    assert len(rows(client, second.output_file_id)) == 1
    assert len(rows(client, second.output_file_id)) == 2
    one, two = finish(claude, asks(1)), finish(claude, asks(2))
    server.control.fault("mixed_up", "download", of=one.id)
    assert len(results(claude, two.id)) == 1


def heads(url: str) -> dict[str, str]:
    """Return what a request by hand needs, in the protocol of its address."""
    return (
        {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
        if "/messages/" in url
        else {"Authorization": f"Bearer {KEY}"}
    )


def fetched(server: Sandbox, path: str) -> Any:
    """Return what a GET of a path answers, whatever its shape."""
    answer = httpx2.get(f"{server.url}{path}", headers=heads(path))
    assert answer.status_code == 200
    return answer.json()


LISTS = ("/v1/batches", "/v1/messages/batches")


def test_a_create_can_be_executed_and_answered_with_an_error(
    client: OpenAI, claude: Anthropic, server: Sandbox
) -> None:
    server.control.fault("status", "create", status=429, after=True, retry_after=5, times=2)
    with pytest.raises(openai.RateLimitError) as one:
        send(client, chats(1))
    with pytest.raises(anthropic.RateLimitError):
        claude.messages.batches.create(requests=asks(1))
    assert one.value.response.headers["retry-after"] == "5"
    assert [len(client.batches.list().data), len(claude.messages.batches.list().data)] == [1, 1]
    assert server.control.billing()["accepted"] == 2


@pytest.mark.parametrize("beside", ["drop_after", None])
def test_a_create_can_be_executed_twice(client: OpenAI, claude: Anthropic, server: Sandbox, beside: str | None) -> None:
    server.control.fault("twice", times=2)
    if beside:
        server.control.fault(beside, "create", times=2)
    made = []
    for create in (lambda: send(client, chats(2), metadata={"a": "b"}), lambda: finish(claude, asks(2))):
        with suppress(openai.APIConnectionError, anthropic.APIConnectionError):
            made.append(create().id)
    second, first = client.batches.list().data
    assert (second.input_file_id, second.metadata) == (first.input_file_id, {"a": "b"})
    again, claudes = claude.messages.batches.list().data
    assert made == ([] if beside else [first.id, claudes.id])
    assert rows(client, second.output_file_id).keys() == rows(client, first.output_file_id).keys() == {"c0", "c1"}
    assert results(claude, again.id).keys() == results(claude, claudes.id).keys() == {"a0", "a1"}
    bill = server.control.billing()
    assert (bill["creates"], bill["accepted"], bill["requests"]) == (4, 4, 8)
    assert sorted(bill["twice"]["custom_id"]) == ["a0", "a1", "c0", "c1"]


def test_a_fault_of_creates_waits_for_one(client: OpenAI, server: Sandbox) -> None:
    server.control.fault("twice")
    server.control.fault("create_shape")
    client.batches.list()
    assert [fault["seen"] for fault in server.control.faults()] == [0, 0]


@pytest.mark.parametrize("shape", ["batch_id", "no_id", "empty", "wrapped", "known"])
def test_a_create_is_answered_in_every_shape(client: OpenAI, claude: Anthropic, server: Sandbox, shape: str) -> None:
    file = upload(client, chats(1))
    body = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
    for path, asked in zip(LISTS, (body, {"requests": asks(1)}), strict=True):
        url = f"{server.url}{path}"
        first = httpx2.post(url, headers=heads(url), json=asked).json()
        server.control.fault("create_shape", shape=shape)
        answer = httpx2.post(url, headers=heads(url), json=asked)
        newest = fetched(server, f"{path}?limit=1")["data"][0]["id"]
        shapes = {
            "batch_id": {"batch_id": newest},
            "no_id": {key: value for key, value in answer.json().items() if key != "id"},
            "empty": {},
            "known": {**answer.json(), "id": first["id"]},
        }
        assert answer.status_code == 200
        if shape == "wrapped":
            assert answer.json()["data"]["id"] == newest != first["id"]
        else:
            assert answer.json() == shapes[shape]
        assert httpx2.post(url, headers=heads(url), json=asked).json().keys() == first.keys(), "it struck once"
    assert server.control.billing()["accepted"] == 6


@pytest.mark.parametrize("path", LISTS)
def test_batches_are_listed_in_every_shape(client: OpenAI, claude: Anthropic, server: Sandbox, path: str) -> None:
    send(client, chats(1))
    finish(claude, asks(1))
    page = fetched(server, path)
    (row,) = page["data"]
    shapes: dict[str, Any] = {
        "batches": {"batches": [row]},
        "value": {"value": [row]},
        "null": {"data": None},
        "array": [row],
        "object": {"data": {}},
        "no_ids": {**page, "data": [{**{k: v for k, v in row.items() if k != "id"}, "batch_id": row["id"]}]},
    }
    for shape, expected in shapes.items():
        number = server.control.fault("list_shape", shape=shape)
        assert fetched(server, path) == expected
        server.control.clear(number)
    server.control.fault("list_shape", shape="error")
    assert fetched(server, path).keys() == {"error"}
    assert isinstance(fetched(server, "/v1/files")["data"], list)


def test_lists_that_do_not_say_whether_there_is_more_still_go_on(
    client: OpenAI, claude: Anthropic, server: Sandbox
) -> None:
    server.control.fault("no_has_more")
    ids = [send(client, chats(1)).id for _ in range(3)]
    claudes = [claude.messages.batches.create(requests=asks(1)).id for _ in range(3)]
    for path, cursor, made in zip(LISTS, ("after", "after_id"), (ids, claudes), strict=True):
        page = fetched(server, f"{path}?limit=2")
        assert "has_more" not in page
        rest = fetched(server, f"{path}?limit=2&{cursor}={page['data'][-1]['id']}")
        assert [row["id"] for row in (*page["data"], *rest["data"])] == made[::-1]
        assert fetched(server, f"{path}?{cursor}={made[0]}")["data"] == []
    assert "has_more" not in fetched(server, "/v1/files")


def test_a_list_can_be_stale(client: OpenAI, claude: Anthropic, server: Sandbox) -> None:
    new, claudes = send(client, chats(2)), claude.messages.batches.create(requests=asks(2))
    assert client.batches.list().data[0].status == "completed"
    assert claude.messages.batches.list().data[0].processing_status == "ended"
    server.control.fault("stale_list")
    assert client.batches.list().data == [new]
    assert claude.messages.batches.list().data == [claudes]
    assert client.batches.retrieve(new.id).output_file_id
    assert claude.messages.batches.retrieve(claudes.id).results_url


def test_a_batch_can_wait_until_it_is_itself_retrieved(client: OpenAI, claude: Anthropic, server: Sandbox) -> None:
    server.control.fault("only_retrieve")
    one, other = [send(client, chats(1)).id for _ in range(2)]
    claudes = claude.messages.batches.create(requests=asks(1)).id
    client.batches.retrieve(one)
    assert [batch.status for batch in client.batches.list()] == ["validating", "completed"]
    with pytest.raises(anthropic.NotFoundError):
        results_at_once(claude, claudes)
    assert claude.messages.batches.list().data[0].processing_status == "in_progress"
    assert server.control.billing()["requests"] == 1
    assert client.batches.retrieve(other).status == "completed"
    assert claude.messages.batches.retrieve(claudes).processing_status == "ended"
    assert claude.messages.batches.list().data[0].processing_status == "ended"


def results_at_once(claude: Anthropic, batch_id: str) -> None:
    """Ask for a batch's results without asking after the batch, as the SDK would."""
    claude.get(f"/v1/messages/batches/{batch_id}/results", cast_to=httpx2.Response)


def test_a_list_can_name_batches_by_other_ids(client: OpenAI, claude: Anthropic, server: Sandbox) -> None:
    server.control.fault("other_id")
    ids = [send(client, chats(1)).id for _ in range(3)]
    assert [batch.id for batch in client.batches.list(limit=1)] == [f"listed-{one}" for one in reversed(ids)]
    assert client.batches.list(after=ids[1]).data[0].id == f"listed-{ids[0]}"
    assert client.batches.retrieve(ids[0]).id == ids[0]
    assert client.batches.retrieve(f"listed-{ids[0]}").id == f"listed-{ids[0]}"
    claudes = [claude.messages.batches.create(requests=asks(1)).id for _ in range(2)]
    newest, oldest = claude.messages.batches.list(limit=1)
    assert (newest.id, oldest.id) == (f"listed-{claudes[1]}", f"listed-{claudes[0]}")
    assert f"/listed-{claudes[0]}/results" in (claude.messages.batches.retrieve(oldest.id).results_url or "")
    assert "listed-" not in (claude.messages.batches.retrieve(claudes[0]).results_url or "")
    assert results(claude, oldest.id).keys() == results(claude, claudes[0]).keys() == {"a0"}
    server.control.settings(delay=60)
    under_way, claudes_own = send(client, chats(1)).id, claude.messages.batches.create(requests=asks(1)).id
    assert client.batches.cancel(f"listed-{under_way}").id == f"listed-{under_way}"
    assert claude.messages.batches.cancel(f"listed-{claudes_own}").id == f"listed-{claudes_own}"
    server.control.clear()
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve(f"listed-{ids[0]}")


@pytest.mark.parametrize(("where", "listed", "retrieved"), [("list", 1, 0), ("retrieve", 0, 1), ("wrong_list", 1, 1)])
def test_lists_and_retrieves_can_name_different_result_files(
    client: OpenAI, claude: Anthropic, server: Sandbox, where: str, listed: int, retrieved: int
) -> None:
    one, other = run(client, [chat(1), chat(2, messages=[])]), finish(claude, asks(1))
    true = [one.output_file_id, one.error_file_id, other.results_url]
    server.control.fault("list_files", where=where)

    def named(batch: Batch, claudes: MessageBatch) -> list[str | None]:
        return [batch.output_file_id, batch.error_file_id, claudes.results_url]

    of_list = named(client.batches.list().data[0], claude.messages.batches.list().data[0])
    of_retrieve = named(client.batches.retrieve(one.id), claude.messages.batches.retrieve(other.id))
    assert [sum(name is not None for name in names) for names in (of_list, of_retrieve)] == [3 * listed, 3 * retrieved]
    assert of_retrieve == (true if retrieved else [None] * 3)
    if where == "wrong_list":
        for file_id in of_list[:2]:
            with pytest.raises(openai.NotFoundError):
                client.files.content(file_id or "")
        assert httpx2.get(of_list[2] or "", headers=heads(of_list[2] or "")).status_code == 404
    else:
        assert of_list == (true if listed else [None] * 3)


def test_batches_can_be_forgotten(client: OpenAI, claude: Anthropic, server: Sandbox) -> None:
    one, other = [run(client, chats(1)).id for _ in range(2)]
    claudes = finish(claude, asks(1)).id
    numbers = [server.control.fault("forgotten", batch=batch) for batch in (one, claudes)]
    assert [batch.id for batch in client.batches.list()] == [other]
    assert claude.messages.batches.list().data == []
    for gone in (
        lambda: client.batches.retrieve(one),
        lambda: client.batches.cancel(one),
        lambda: claude.messages.batches.retrieve(claudes),
        lambda: claude.messages.batches.results(claudes),
        lambda: results_at_once(claude, claudes),
    ):
        with pytest.raises((openai.NotFoundError, anthropic.NotFoundError)):
            gone()
    server.control.fault("forgotten")
    server.control.fault("oldest_first")
    assert client.batches.list().data == []
    for number in numbers:
        server.control.clear(number)
    server.control.clear()
    assert client.batches.retrieve(one).status == "completed"
    assert results(claude, claudes).keys() == {"a0"}


def iso(at: int) -> str:
    """Return unix seconds as the vendors write them."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


FORMS: dict[str, tuple[Callable[[int], Any], Callable[[int], Any]]] = {
    "ms": (lambda at: at * 1000, lambda at: at * 1000),
    "far": (lambda at: at + 315_569_520_000, lambda at: "1" + iso(at).replace("Z", ".000000Z")),
    "text": (str, str),
    "iso": (iso, iso),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_times_of_batches_come_in_every_form(client: OpenAI, claude: Anthropic, server: Sandbox, form: str) -> None:
    made = [server.control.foreign(key=KEY, protocol=protocol) for protocol in ("openai", "anthropic")]
    server.control.fault("times", form=form)
    for path, batch_id, written in zip(LISTS, made, FORMS[form], strict=True):
        (known,) = [one for one in server.control.batches() if one["id"] == batch_id]
        expected = written(known["created_at"])
        for batch in (fetched(server, f"{path}/{batch_id}"), fetched(server, path)["data"][0]):
            assert batch["created_at"] == expected
            times = [at for name, at in batch.items() if name.endswith("_at") and at is not None]
            assert len(times) > 2
            assert {type(at) for at in times} == {type(expected)}


def test_every_second_reply_can_come_from_a_server_whose_clock_is_ahead(
    client: OpenAI, claude: Anthropic, server: Sandbox
) -> None:
    server.control.fault("skew", seconds=7200)
    file, now = upload(client, chats(1)), server.control.settings()["now"]
    made = [
        client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h").created_at - now
        for _ in range(2)
    ]
    assert [at // 60 for at in made] == [120, 0]
    first, second = [claude.messages.batches.create(requests=asks(1)).created_at for _ in range(2)]
    assert round((first - second).total_seconds() / 60) == 120
    dates = [client.batches.with_raw_response.list().http_response.headers["date"] for _ in range(4)]
    clocks = [(parsedate_to_datetime(date).timestamp() - now) // 60 for date in dates]
    assert sorted(clocks) == [0, 0, 120, 120]
    assert clocks[0] == clocks[2]


def test_error_messages_can_tell_the_key(client: OpenAI, claude: Anthropic, server: Sandbox) -> None:
    for _ in range(2):
        server.control.fault("rows", custom_ids=["c0", "a0"], message="no")
    server.control.fault("echo_key")
    row = rows(client, run(client, chats(2)).error_file_id)["c0"]
    assert row["response"]["body"]["error"]["message"] == f"no (API key: {KEY})"
    (failed,) = [one for one in results(claude, finish(claude, asks(2)).id).values() if one.type == "errored"]
    assert failed.error.error.message == f"no (API key: {KEY})"
    server.control.fault("status", "files", status=403, message="forbidden")
    with pytest.raises(openai.PermissionDeniedError, match=rf"forbidden .API key: {KEY}"):
        client.files.list()
    with pytest.raises(openai.NotFoundError, match=KEY):
        client.batches.retrieve("batch_none")
    with pytest.raises(anthropic.NotFoundError, match=KEY):
        claude.messages.batches.retrieve("msgbatch_none")
    server.control.clear()
    with pytest.raises(openai.NotFoundError) as error:
        client.batches.retrieve("batch_none")
    assert KEY not in str(error.value)


@pytest.mark.parametrize("form", ["list", "string", "dict", "strings", "data_strings"])
def test_a_refused_batch_can_tell_the_key_in_every_form(client: OpenAI, server: Sandbox, form: str) -> None:
    server.control.fault("echo_key")
    server.control.fault("refuse", errors=form)
    assert KEY in str(fetched(server, f"/v1/batches/{send(client, chats(1)).id}")["errors"])


# Batches


@pytest.mark.parametrize("size", [0, 100_000])
def test_a_line_can_tell_its_custom_id_last_and_another_before(
    client: OpenAI, claude: Anthropic, server: Sandbox, size: int
) -> None:
    for _ in range(2):
        server.control.fault("late_id", custom_ids=["c1", "a1", "c2"], bytes=size)
    one, other = run(client, [*chats(2), chat(2, messages=[])]), finish(claude, asks(2))
    lines = b"".join(client.files.content(file_id or "").read() for file_id in (one.output_file_id, one.error_file_id))
    path = f"/v1/messages/batches/{other.id}/results"
    lines += httpx2.get(f"{server.url}{path}", headers=heads(path)).content
    found = {json.loads(line)["custom_id"]: line for line in lines.splitlines()}
    assert found.keys() == {"c0", "c1", "c2", "a0", "a1"}
    for name, line in found.items():
        assert (b'"custom_id":"somebody-1"' in line) == (name in ("c1", "c2", "a1"))
        if name in ("c1", "c2", "a1"):
            assert line.endswith(f'"custom_id":"{name}"}}'.encode())
            assert len(line) > size
    assert json.loads(found["c1"])["response"]["body"]["metadata"]["custom_id"] == "somebody-1"
    assert results(claude, other.id)["a1"].message.model_extra["metadata"]["custom_id"] == "somebody-1"


@pytest.mark.parametrize("seconds", [None, 600])
def test_a_batch_can_end_and_name_no_results(
    client: OpenAI, claude: Anthropic, server: Sandbox, seconds: int | None
) -> None:
    for_a_while: dict[str, Any] = {} if seconds is None else {"seconds": seconds}
    server.control.fault("unnamed", times=2, **for_a_while)
    one, other = run(client, [chat(1), chat(2, messages=[])]), finish(claude, asks(2))
    assert one.request_counts
    assert (one.status, one.request_counts.completed, one.request_counts.failed) == ("completed", 1, 1)
    assert (other.processing_status, other.request_counts.succeeded) == ("ended", 2)
    for batch in (one, client.batches.list().data[0]):
        assert (batch.output_file_id, batch.error_file_id) == (None, None)
    assert (other.results_url, claude.messages.batches.list().data[0].results_url) == (None, None)
    with pytest.raises(anthropic.NotFoundError):
        results_at_once(claude, other.id)
    assert server.control.billing()["requests"] == 3
    server.control.advance(601)
    one = client.batches.retrieve(one.id)
    if seconds is None:
        assert (one.output_file_id, one.error_file_id) == (None, None)
        assert claude.messages.batches.retrieve(other.id).results_url is None
    else:
        assert rows(client, one.output_file_id).keys() | rows(client, one.error_file_id).keys() == {"c1", "c2"}
        assert results(claude, other.id).keys() == {"a0", "a1"}


@pytest.mark.parametrize(("what", "status"), [("expire", "expired"), ("cancel", "cancelled")])
@pytest.mark.parametrize("fraction", [0, 1])
def test_a_batch_cut_short_can_name_no_file(
    client: OpenAI, server: Sandbox, what: str, status: str, fraction: int
) -> None:
    server.control.fault(what, fraction=fraction, files=False)
    batch = run(client, chats(3))
    assert (batch.status, batch.output_file_id, batch.error_file_id) == (status, None, None)
    assert batch.request_counts
    assert batch.request_counts.completed == server.control.billing()["requests"] == 3 * fraction
    assert [file["purpose"] for file in server.control.files()] == ["batch"]
    server.control.fault(what, fraction=fraction)
    batch = run(client, chats(3))
    assert [bool(batch.output_file_id), bool(batch.error_file_id)] == [bool(fraction), not fraction]


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("null", None),
        ("string", "too long"),
        ("dict", {"code": "too_long", "message": "too long"}),
        ("strings", ["too long"]),
        ("data_strings", {"object": "list", "data": ["too long"]}),
    ],
)
def test_a_refused_batch_gives_its_errors_in_every_form(
    client: OpenAI, server: Sandbox, form: str, expected: Any
) -> None:
    server.control.fault("refuse", code="too_long", message="too long", errors=form)
    batch = send(client, chats(1))
    told = fetched(server, f"/v1/batches/{batch.id}")
    assert (told["status"], told["errors"]) == ("failed", expected)


@pytest.mark.parametrize("delay", [0, 3600, 100_000])
def test_batches_that_never_end_do_not_end_past_their_day(
    client: OpenAI, claude: Anthropic, server: Sandbox, delay: int
) -> None:
    server.control.settings(delay=delay)
    number = server.control.fault("never_ends")
    one, other = send(client, chats(2)), claude.messages.batches.create(requests=asks(2))
    for _ in range(3):
        assert {batch.status for batch in client.batches.list()} == {"in_progress"}
        assert client.batches.retrieve(one.id).status == "in_progress"
        assert claude.messages.batches.retrieve(other.id).processing_status == "in_progress"
        server.control.advance(86400)
    assert client.batches.cancel(one.id).status == "cancelling"
    assert claude.messages.batches.cancel(other.id).processing_status == "canceling"
    server.control.advance(86400)
    assert client.batches.retrieve(one.id).status == "cancelling"
    assert claude.messages.batches.retrieve(other.id).ended_at is None
    assert server.control.billing()["requests"] == 0
    server.control.clear(number)
    assert client.batches.retrieve(one.id).status not in ("in_progress", "cancelling")
    assert claude.messages.batches.retrieve(other.id).processing_status == "ended"


def test_rows_come_back_under_other_names(client: OpenAI, claude: Anthropic, server: Sandbox) -> None:
    server.control.fault("renamed", match="3.", times=2)
    assert rows(client, run(client, chats(5)).output_file_id).keys() == {"c0", "c1", "c2", "x-c3", "c4"}
    assert results(claude, finish(claude, asks(5)).id).keys() == {"a0", "a1", "a2", "x-a3", "a4"}
    run(client, chats(4))
    assert "c3" in server.control.billing()["twice"]["custom_id"], "it is billed under its own name"


@pytest.mark.parametrize("chosen", [{"custom_ids": ["c1", "a1"]}, {"fraction": 1.0}], ids=["some", "all"])
def test_rows_can_come_later_than_the_end(
    client: OpenAI, claude: Anthropic, server: Sandbox, chosen: dict[str, Any]
) -> None:
    server.control.fault("short", seconds=600, times=2, **chosen)
    one, other = run(client, chats(3)), finish(claude, asks(3))
    early = {"0", "2"} if "custom_ids" in chosen else set()
    file_id = one.output_file_id or ""
    assert one.request_counts
    assert (one.request_counts.completed, other.request_counts.succeeded) == (3, 3)
    assert rows(client, file_id).keys() == {f"c{n}" for n in early}
    assert results(claude, other.id).keys() == {f"a{n}" for n in early}
    assert client.files.retrieve(file_id).bytes == len(client.files.content(file_id).read())
    assert server.control.billing()["requests"] == 6
    server.control.advance(601)
    assert client.batches.retrieve(one.id).output_file_id == file_id
    assert rows(client, file_id).keys() == {"c0", "c1", "c2"}
    assert results(claude, other.id).keys() == {"a0", "a1", "a2"}
    assert client.files.retrieve(file_id).bytes == len(client.files.content(file_id).read())
    assert [file["purpose"] for file in server.control.files()] == ["batch", "batch_output"]


@pytest.mark.parametrize("shape", ["body", "plain", "error", "zero"])
@pytest.mark.parametrize("status", [400, 429, 500])
def test_rows_fail_in_every_shape(client: OpenAI, server: Sandbox, shape: str, status: int) -> None:
    server.control.fault("rows", match="this is c3.", status=status, shape=shape, message="no")
    batch = run(client, chats(5))
    assert batch.request_counts
    assert (batch.status, batch.request_counts.failed) == ("completed", 1)
    assert len(rows(client, batch.output_file_id)) == 4
    row = rows(client, batch.error_file_id)["c3"]
    if shape == "error":
        assert (row["response"], row["error"]["message"]) == (None, "no")
    elif shape == "zero":
        assert (row["response"]["status_code"], row["error"]) == (0, None)
    else:
        assert (row["response"]["status_code"], row["error"]) == (status, None)
        assert (row["response"]["body"].get("error", {}).get("message") == "no") == (shape == "body")
    assert server.control.billing()["requests"] == 4


def test_rows_fail_with_any_code_and_parameter(client: OpenAI, claude: Anthropic, server: Sandbox) -> None:
    server.control.fault("rows", status=400, code="odd", param="messages", message="no", times=2)
    error = rows(client, run(client, chats(1)).error_file_id)["c0"]["response"]["body"]["error"]
    assert error == {"message": "no", "type": "invalid_request_error", "param": "messages", "code": "odd"}
    (result,) = results(claude, finish(claude, asks(1)).id).values()
    assert result.type == "errored"
    assert (result.error.error.type, result.error.error.message) == ("odd", "no")
    server.control.fault("rows", status=400, code="odd", shape="bare", message="no")
    bare = rows(client, run(client, chats(1)).error_file_id)["c0"]["response"]["body"]
    assert (bare["code"], bare["message"]) == ("odd", "no")


def test_rows_are_chosen_by_fraction_text_or_name(claude: Anthropic, server: Sandbox) -> None:
    server.control.fault("rows", fraction=0.5, seed=3, status=529)
    batch = finish(claude, asks(60))
    assert 15 < batch.request_counts.errored < 45
    errors = [result for result in results(claude, batch.id).values() if result.type == "errored"]
    assert {result.error.error.type for result in errors} == {"overloaded_error"}
    server.control.fault("rows", custom_ids=["a1", "a2"], status=429)
    found = results(claude, finish(claude, asks(4)).id)
    assert sorted(name for name, result in found.items() if result.type == "errored") == ["a1", "a2"]
    assert finish(claude, asks(4)).request_counts.succeeded == 4


def test_rows_go_missing_come_twice_and_come_from_nowhere(client: OpenAI, claude: Anthropic, server: Sandbox) -> None:
    for _ in range(2):
        server.control.fault("missing", match="3.")
        server.control.fault("duplicate", match="2.")
        server.control.fault("foreign", n=2)
        if not server.control.batches():
            batch = run(client, chats(5))
            lines = client.files.content(batch.output_file_id or "").read().splitlines()
            names = sorted(json.loads(line)["custom_id"] for line in lines)
            assert names == ["c0", "c1", "c2", "c2", "c4", "stranger-0", "stranger-1"]
            continue
        other = finish(claude, asks(5))
        names = sorted(one.custom_id for one in claude.messages.batches.results(other.id))
        assert names == ["a0", "a1", "a2", "a2", "a4", "stranger-0", "stranger-1"]
        assert other.request_counts.succeeded == 5, "the counts know nothing of it"
    assert server.control.billing()["requests"] == 10, "what went missing is billed, what came twice only once"


@pytest.mark.parametrize(
    ("what", "status", "code"), [("expire", "expired", "batch_expired"), ("cancel", "cancelled", "batch_cancelled")]
)
def test_a_batch_ends_half_way(
    client: OpenAI, claude: Anthropic, server: Sandbox, what: str, status: str, code: str
) -> None:
    server.control.fault(what, fraction=0.3, times=2)
    batch = run(client, chats(60))
    answered, left = rows(client, batch.output_file_id), rows(client, batch.error_file_id)
    assert batch.status == status
    assert len(answered) + len(left) == 60
    assert 5 < len(answered) < 32
    assert {row["error"]["code"] for row in left.values()} == {code}
    counts = finish(claude, asks(60)).request_counts
    gone = counts.expired if what == "expire" else counts.canceled
    assert (counts.succeeded, gone) == (len(answered), len(left))
    assert server.control.billing()["requests"] == 2 * len(answered)


def test_a_batch_is_refused_with_any_code_or_the_line_that_is_at_fault(client: OpenAI, server: Sandbox) -> None:
    server.control.fault("refuse", code="token_limit_exceeded", message="too many tokens", line=7)
    error = run(client, chats(2)).errors
    assert error
    assert error.data
    assert error.data[0].to_dict() == {
        "code": "token_limit_exceeded",
        "message": "too many tokens",
        "line": 7,
        "param": None,
    }
    server.control.fault("refuse", code="invalid_request", match="this is c3.", line="match", times=-1)
    assert run(client, chats(3)).status == "completed"
    error = run(client, chats(5)).errors
    assert error
    assert error.data
    assert (error.data[0].code, error.data[0].line) == ("invalid_request", 4)


def test_every_line_that_is_at_fault_can_be_named(client: OpenAI, server: Sandbox) -> None:
    server.control.fault("refuse", code="bad", match="this is", line="matches", message="no")
    error = run(client, chats(3)).errors
    assert error
    assert [(one.code, one.line) for one in error.data or ()] == [("bad", 1), ("bad", 2), ("bad", 3)]
    server.control.fault("refuse", code="bad", match="this is", line="matches", message="no", errors="in_words")
    error = run(client, chats(2)).errors
    assert error
    assert [(one.message, one.line) for one in error.data or ()] == [("Lines 1 and 2: no", None)]


@pytest.mark.parametrize("form", ["list", "dict", "in_words"])
def test_a_create_can_be_refused_for_what_its_file_holds(client: OpenAI, server: Sandbox, form: str) -> None:
    server.control.fault(
        "refuse", match="this is c2", line="matches", code="bad", message="no", at="create", errors=form
    )
    assert run(client, chats(2)).status == "completed"
    with pytest.raises(openai.BadRequestError) as caught:
        send(client, chats(3))
    told = caught.value.response.json()
    assert told["error"]["code"] == "bad"
    if form == "list":
        assert told["errors"]["data"] == [{"code": "bad", "message": "no", "line": 3, "param": None}]
    elif form == "dict":
        assert (told["error"]["message"], told["error"]["line"]) == ("no", 3)
    else:
        assert told["error"]["message"] == "Line 3: no"
    assert send(client, chats(3)).id  # once


def test_a_create_of_claudes_is_refused_for_what_it_holds(claude: Anthropic, server: Sandbox) -> None:
    server.control.fault("refuse", match="this is a3.", line="match", message="bad prompt", times=-1)
    assert claude.messages.batches.create(requests=asks(3)).id
    with pytest.raises(anthropic.BadRequestError, match=r"requests\.3\.params: bad prompt"):
        claude.messages.batches.create(requests=asks(5))
    server.control.clear()
    server.control.fault("refuse", status=422, message="no")
    with pytest.raises(anthropic.UnprocessableEntityError, match="no"):
        claude.messages.batches.create(requests=asks(1))


def test_a_fault_can_wait_for_one_batch(client: OpenAI, server: Sandbox) -> None:
    first, second = send(client, chats(1)), send(client, chats(1))
    server.control.fault("rows", batch=second.id)
    assert client.batches.retrieve(first.id).output_file_id
    assert client.batches.retrieve(second.id).output_file_id is None


def test_results_are_lost_or_never_named(client: OpenAI, claude: Anthropic, server: Sandbox) -> None:
    server.control.fault("lost", times=2)
    batch = run(client, chats(2))
    assert batch.status == "completed"
    with pytest.raises(openai.NotFoundError):
        client.files.content(batch.output_file_id or "")
    other = finish(claude, asks(2))
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.batches.results(other.id)
    server.control.fault("no_output")
    batch = run(client, [chat(1), chat(2, messages=[])])
    assert (batch.status, batch.output_file_id) == ("completed", None)
    assert rows(client, batch.error_file_id).keys() == {"c2"}


FORM = {
    "type": "json_schema",
    "json_schema": {"name": "a", "schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}},
}  # fmt: skip


@pytest.mark.parametrize("mode", ["text", "schema", "length", "refusal", "empty"])
def test_answers_are_wrong_in_every_way(client: OpenAI, claude: Anthropic, server: Sandbox, mode: str) -> None:
    server.control.fault("invalid", mode=mode, times=2)
    batch = run(client, [chat(1, response_format=FORM)])
    choice = rows(client, batch.output_file_id)["c1"]["response"]["body"]["choices"][0]
    content, reason = choice["message"]["content"], choice["finish_reason"]
    (result,) = results(claude, finish(claude, [ask(1)]).id).values()
    said = "".join(part.text for part in result.message.content)
    expected = {
        "text": ("This is not JSON.", "stop", "end_turn"),
        "schema": ('{"unexpected": true}', "stop", "end_turn"),
        "refusal": (None, "stop", "refusal"),
        "empty": ("", "stop", "end_turn"),
    }
    if mode == "length":
        assert (reason, result.message.stop_reason) == ("length", "max_tokens")
        with pytest.raises(ValueError):  # noqa: PT011 - whatever the parser says of half a document
            json.loads(content)
    else:
        assert (content, reason, result.message.stop_reason) == expected[mode]
        assert said == ("I cannot help with that." if mode == "refusal" else expected[mode][0])
    assert (choice["message"]["refusal"] is not None) == (mode == "refusal")
    assert server.control.billing()["requests"] == 2, "a wrong answer is billed"


# Quirks of compatible services


def test_statuses_in_upper_case_and_no_counts(client: OpenAI, server: Sandbox) -> None:
    server.control.fault("upper_case")
    server.control.fault("no_counts")
    created = send(client, chats(1))
    batch = client.batches.retrieve(created.id)
    assert [created.status, batch.status] == ["VALIDATING", "COMPLETED"]
    assert batch.request_counts is None


def test_bodies_as_strings_and_without_usage(client: OpenAI, server: Sandbox) -> None:
    server.control.fault("body_string")
    server.control.fault("no_usage")
    batch = run(client, chats(1))
    body = rows(client, batch.output_file_id)["c0"]["response"]["body"]
    assert isinstance(body, str)
    assert "usage" not in json.loads(body)


def test_metadata_is_not_echoed(client: OpenAI, server: Sandbox) -> None:
    server.control.fault("no_metadata")
    assert run(client, chats(1), metadata={"a": "b"}).metadata is None


def test_an_error_file_that_is_empty_or_has_no_name(client: OpenAI, server: Sandbox) -> None:
    number = server.control.fault("empty_error_id")
    assert run(client, chats(1)).error_file_id == ""
    server.control.clear(number)
    server.control.fault("empty_error_file")
    assert client.files.content(run(client, chats(1)).error_file_id or "").read() == b""


def test_a_create_that_answers_with_a_job(client: OpenAI, server: Sandbox) -> None:
    server.control.fault("job_create")
    made = send(client, chats(1))
    assert made.id is None
    (batch,) = server.control.batches()
    assert made.model_extra
    assert made.model_extra["job"]["id"] == batch["id"]
    assert server.control.billing()["accepted"] == 1


def test_a_missing_batch_that_is_answered_with_500(client: OpenAI, claude: Anthropic, server: Sandbox) -> None:
    server.control.fault("missing_500")
    with pytest.raises(openai.InternalServerError):
        client.batches.retrieve("batch_none")
    with pytest.raises(anthropic.InternalServerError):
        claude.messages.batches.retrieve("msgbatch_none")


# The desk


def test_a_foreign_batch_is_like_any_other(client: OpenAI, claude: Anthropic, server: Sandbox) -> None:
    mine, claudes = send(client, chats(3)), claude.messages.batches.create(requests=asks(3))
    foreign = server.control.foreign(3, age=60, metadata={"whose": "theirs"})
    other = server.control.foreign(3, protocol="anthropic")
    listed = client.batches.list().data
    assert [batch.id for batch in listed] == [foreign, mine.id]
    assert (listed[0].created_at, listed[0].metadata) == (mine.created_at - 60, {"whose": "theirs"})
    assert rows(client, listed[0].output_file_id).keys().isdisjoint({"c0", "c1", "c2"})
    found: list[MessageBatch] = claude.messages.batches.list().data
    assert [batch.id for batch in found] == [other, claudes.id]
    assert [batch.request_counts.succeeded for batch in found] == [3, 3]
    elsewhere = server.control.foreign(1, key="sk-somebody")
    assert elsewhere not in [batch.id for batch in client.batches.list()]


def test_what_is_billed_twice_is_seen_by_name_and_by_body(client: OpenAI, claude: Anthropic, server: Sandbox) -> None:
    run(client, [chat(1), chat(2), chat(3, messages=[])])
    bill = server.control.billing()
    assert (bill["requests"], bill["distinct"], bill["twice"]) == (2, 2, {"custom_id": [], "digest": []})
    run(client, [{**chat(1), "custom_id": "another-name"}])
    bill = server.control.billing()
    assert (bill["requests"], bill["twice"]["custom_id"], len(bill["twice"]["digest"])) == (3, [], 1)
    run(client, [chat(2)])
    assert server.control.billing()["twice"]["custom_id"] == ["c2"]


def test_the_log_counts_the_exchanges_and_not_those_of_the_desk(client: OpenAI, server: Sandbox) -> None:
    run(client, chats(1))
    while any(row["outcome"] == "open" for row in server.control.log()):
        time.sleep(0.01)  # it is noted after the answer has left
    log = server.control.log()
    assert [(row["method"], row["route"], row["status"], row["outcome"]) for row in log] == [
        ("POST", "upload", 200, "answered"),
        ("POST", "create", 200, "answered"),
        ("GET", "retrieve", 200, "answered"),
    ]
    assert server.control.log(log[1]["id"]) == log[2:]


def test_the_log_is_bounded(client: OpenAI, server: Sandbox, monkeypatch: Any) -> None:
    monkeypatch.setattr("nura_cli.sandbox.store._LOG_ROWS", 50)
    for _ in range(200):
        client.batches.list()
    assert len(server.control.log()) == 50


def test_the_clock_goes_either_way(client: OpenAI, server: Sandbox) -> None:
    now = server.control.settings()["now"]
    assert server.control.advance(86400) - now in range(86400, 86460)
    later = send(client, chats(1))
    server.control.advance(-2 * 86400)
    earlier = send(client, chats(1))
    assert earlier.created_at < later.created_at
    assert {batch.status for batch in client.batches.list()} == {"completed"}


def test_a_line_of_an_input_file_is_kept_to_the_byte(client: OpenAI, server: Sandbox) -> None:
    lines: list[dict[str, Any] | bytes] = [
        chat(1),
        b'{ "custom_id":"odd", "method":"POST","url":"/v1/chat/completions",  "body":{"model":"x"}}',
    ]
    assert client.files.content(upload(client, lines).id).read() == jsonl(lines)
