"""The whole way of a record, stage by stage, in each protocol."""

import hashlib
import json
from typing import Any

import msgspec
import pytest

from nura_cli import config as configuration
from nura_cli.errors import UsageError
from nura_cli.pipeline import results
from nura_cli.state import State
from tests.conftest import OPENAI_FIRST, START, Spool

SECOND_PROTOCOL_IS_LONG = True


def test_records_come_home_under_their_own_keys(spool: Spool) -> None:
    spool.fill(25)
    sent, home, settled = spool.round()
    assert sent.result["requests"] == 25
    assert sent.exit_code == 0
    assert home.result["checked"] == 1
    assert settled.result["tasks"] == {
        "completed": 25,
        "failed": 0,
        "retried": 0,
        "missing": 0,
        "late": 0,
        "cancelled": 0,
    }
    assert sorted(answer["key"] for answer in spool.results()) == list(range(25))
    assert spool.batches() == [(1, "reconciled")]
    assert not list((spool.folder / "nura.db.spool" / "requests").iterdir())
    spool.check()


def test_a_line_of_results_has_every_field_of_the_contract(spool: Spool) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    spool.workloads["echo"] = spool.workload(schema=schema, keep=["note", "absent"])
    spool.write_config()
    spool.enqueue({"id": "a", "text": "hello", "note": {"deep": [1, None]}})
    spool.round()
    (answer,) = spool.results()
    assert list(answer) == [
        "seq", "workload", "key", "status", "text", "json", "response", "finish_reason", "usage", "cost", "error",
        "model", "provider", "batch_id", "revision", "attempts", "record", "enqueued_at", "finished_at",
        "row", "row_error",
    ]  # fmt: skip
    assert isinstance(answer["json"]["n"], int)
    assert answer["record"] == {"note": {"deep": [1, None]}}
    assert answer["enqueued_at"] == "2027-01-15T08:00:00Z"
    assert answer["attempts"] == 1
    assert float(answer["cost"]) > 0
    assert answer["response"]["model"] == spool.model


def test_status_adds_up_tokens_and_what_was_saved(spool: Spool) -> None:
    spool.fill(10)
    spool.round()
    found = spool.status()
    billed = spool.control.billing()
    assert found["tasks"] == {
        "pending": 0, "submitted": 0, "completed": 10, "failed": 0, "cancelled": 0, "superseded": 0,
    }  # fmt: skip
    assert found["usage"]["input_tokens"] == billed["input_tokens"]
    assert found["usage"]["output_tokens"] == billed["output_tokens"]
    paid, listed, saved = (float(found["cost"][name]) for name in ("paid", "list", "saved"))
    assert paid > 0
    assert listed == pytest.approx(2 * paid)
    assert saved == pytest.approx(listed - paid)
    assert found["workloads"]["echo"]["cost"]["paid"] == found["cost"]["paid"]


def test_a_model_without_a_price_is_unpriced_and_never_free(spool: Spool) -> None:
    spool.workloads["echo"] = spool.workload(model="home-made-model")
    spool.write_config()
    spool.fill(3)
    spool.round()
    assert spool.status()["cost"]["unpriced_tasks"] == 3
    assert {answer["cost"] for answer in spool.results()} == {None}


def test_a_corrected_prompt_applies_to_all_that_waits(spool: Spool) -> None:
    spool.fill(1)
    spool.workloads["echo"] = spool.workload(prompt="Say again: record number {{ id }} of {{ text }}")
    spool.write_config()
    spool.round()
    assert "Say again" in spool.results()[0]["text"]


def test_a_record_whose_prompt_fails_to_render_fails_alone(spool: Spool) -> None:
    spool.workloads["echo"] = spool.workload(prompt="Repeat: {{ text }} {{ 10 // divisor }}")
    spool.write_config()
    spool.enqueue(*({"id": i, "text": f"record number {i}", "divisor": i} for i in range(3)))
    sent, _, settled = spool.round()
    assert sent.exit_code == 3
    assert "1 task failed" in sent.problems[0].message
    assert settled.exit_code == 0
    by_key = {answer["key"]: answer for answer in spool.results()}
    assert by_key[0]["status"] == "failed"
    assert by_key[0]["error"]["kind"] == "render"
    assert "ZeroDivisionError" in by_key[0]["error"]["message"]
    assert [by_key[key]["status"] for key in (1, 2)] == ["completed", "completed"]
    spool.check()


def test_the_same_line_is_a_duplicate_and_another_one_a_conflict(spool: Spool) -> None:
    spool.fill(2)
    again = spool.enqueue({"id": 0, "text": "record number 0"}, {"id": "1", "text": "other"}, {"id": 2, "text": "x"})
    assert again.result == {
        "enqueued": 1,
        "duplicates": 1,
        "conflicts": 1,
        "replaced": 0,
        "rejected": 0,
        "duplicates_failed": 0,
        "duplicates_cancelled": 0,
        "duplicates_purged": 0,
        "enqueued_again": 0,
        "hint": None,
    }
    assert again.exit_code == 3
    assert "line 2" in again.problems[0].message
    assert "--replace" in again.problems[0].message


def test_replace_supersedes_what_waits_and_what_is_under_way(spool: Spool) -> None:
    spool.fill(2)
    spool.dispatch()
    replaced = spool.enqueue({"id": 0, "text": "new record number 0"}, replace=True)
    assert replaced.result["replaced"] == 1
    again = spool.enqueue({"id": 0, "text": "newest record number 0"}, replace=True)
    assert again.result["replaced"] == 1
    assert spool.counts() == {
        "pending": 1, "submitted": 1, "completed": 0, "failed": 0, "cancelled": 0, "superseded": 2,
    }  # fmt: skip
    spool.settle()
    answers = {answer["key"]: answer["text"] for answer in spool.results()}
    assert "newest" in answers[0]
    assert len(answers) == 2
    assert spool.control.billing()["requests"] == 3
    assert spool.rows("SELECT count(*) FROM attempts") == [(3,)]


def decided(spool: Spool) -> None:
    """Let cron run until all is settled, with a person who has everything that is held or was cancelled sent again."""
    for _ in range(12):
        spool.round()
        for need in spool.status()["attention"]:
            spool.resolve(str(need["batch_id"]))
        if not any(spool.counts()[name] for name in ("pending", "submitted")):
            return
        spool.clock.advance(7 * 3600)
    raise AssertionError(f"not settled: {spool.counts()}")


@pytest.mark.parametrize(
    "fault",
    [
        {"what": "lost"},
        {"what": "missing"},
        {"what": "expire", "fraction": 0},
        {"what": "cancel", "fraction": 0},
        {"what": "rows", "status": 500},
        {"what": "refuse", "code": "token_limit_exceeded"},
        {"what": "drop_before", "route": "create"},
        {"what": "drop_after", "route": "create"},
        {"what": "drop_before", "route": "upload"},
    ],
    ids=lambda fault: "-".join(str(fault[name]) for name in ("what", "route") if name in fault),
)
def test_a_superseded_record_is_never_sent_again_whatever_becomes_of_its_batch(
    spool: Spool, fault: dict[str, Any]
) -> None:
    spool.fill(2)
    spool.control.fault(**fault)
    spool.dispatch()
    spool.enqueue({"id": 0, "text": "record number 0 renewed"}, replace=True)
    spool.clock.advance(2 * 3600)
    decided(spool)
    assert {answer["key"]: "renewed" in answer["text"] for answer in spool.results()} == {0: True, 1: False}
    assert spool.rows("SELECT status FROM tasks WHERE id = 1")[0][0] in ("completed", "failed", "cancelled")
    assert spool.rows("SELECT count(*) <= 1 FROM attempts WHERE task_id = 1") == [(1,)]
    # Both records once, the new one once, and what was not superseded perhaps once more.
    claims = spool.rows(
        "SELECT sum(CASE to_status WHEN 'submitted' THEN n ELSE -n END) FROM transitions WHERE what = 'task'"
        " AND ((from_status, to_status) = ('pending', 'submitted') OR why = 'did not fit into the batch')"
    )
    assert claims[0][0] <= 4
    spool.check()


def test_ready_lines_keep_their_custom_ids_and_bodies(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.workloads["raw"] = {"provider": "main"}
    spool.write_config()

    def line(key: str, url: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"custom_id": key, "method": "POST", "url": url, "body": body}

    chat = {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "hello there"}]}
    other = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "good day"}]}
    spool.enqueue(
        line("a/1", "/v1/chat/completions", chat),
        line("b 2", "/v1/chat/completions", other),
        line("c", "/v1/embeddings", {"model": "text-embedding-3-small", "input": ["x", "y"]}),
        workload="raw",
    )
    sent, _, _ = spool.round()
    assert len(sent.result["batches"]) == 3  # one for each endpoint and model
    answers = {answer["key"]: answer for answer in spool.results(workloads=["raw"])}
    assert "hello there" in answers["a/1"]["text"]
    assert "good day" in answers["b 2"]["text"]
    assert len(answers["c"]["json"]) == 2


def test_ready_lines_of_endpoints_that_nura_does_not_render_keep_their_whole_response(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.workloads["raw"] = {"provider": "main"}
    spool.write_config()
    body = {"model": "omni-moderation-latest", "input": "a fine day"}
    spool.enqueue({"custom_id": "m", "method": "POST", "url": "/v1/moderations", "body": body}, workload="raw")
    spool.round()
    (answer,) = spool.results()
    assert (answer["status"], answer["text"]) == ("completed", None)
    assert answer["response"]["results"][0]["flagged"] is False


def test_an_indented_answer_is_still_one_line_of_results(openai_spool: Spool) -> None:
    spool = openai_spool
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    spool.workloads["strict"] = spool.workload(schema=schema)
    spool.write_config()
    spool.enqueue({"id": 1, "text": "x"}, workload="strict")
    spool.round()
    body = {"choices": [{"message": {"content": '{\n  "n": 1\n}'}, "finish_reason": "stop"}]}
    spool.rows("UPDATE answers SET body = ?", json.dumps(body, indent=2).encode())
    config = configuration.load(spool.path)
    with State(config.state) as state:
        (line,) = [msgspec.json.encode(document) for document in results.stream(state, config)]
    assert b"\n" not in line
    assert json.loads(line)["json"] == {"n": 1}


def test_ready_lines_of_one_anthropic_batch_may_mix_models(anthropic_spool: Spool) -> None:
    spool = anthropic_spool
    spool.workloads["raw"] = {"provider": "main"}
    spool.write_config()
    for key, model in (("a", "claude-haiku-4-5"), ("b", "claude-sonnet-4-5")):
        params = {"model": model, "max_tokens": 90, "messages": [{"role": "user", "content": f"say {key}"}]}
        spool.enqueue({"custom_id": key, "params": params}, workload="raw")
    sent, _, _ = spool.round()
    assert len(sent.result["batches"]) == 1
    assert {answer["model"] for answer in spool.results()} == {"claude-haiku-4-5", "claude-sonnet-4-5"}


def test_a_key_prefix_tells_hand_numbered_files_apart(spool: Spool) -> None:
    spool.enqueue({"id": 1, "text": "one"}, key_prefix="monday-")
    spool.enqueue({"id": 1, "text": "two"}, key_prefix="tuesday-")
    assert spool.counts()["pending"] == 2


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"id": 1, "text": "\xff"}', "UTF-8"),
        (b'{"id": 1, "text": "\\u0000"}', "NUL"),
        (b'{"id": 1, "text": "\x00"}', "NUL"),
        (b'{"id": 1, "text": "\\ud800"}', "surrogate"),
        (b'{"id": 1, "text": NaN}', "NaN"),
        (b'{"id": 1, "text": -Infinity}', "Infinity"),
        (b'{"id": 18446744073709551616, "text": "x"}', "64 bits"),
        (b'{"id": 1, "text": 1' + b"0" * 5000 + b"}", "too large"),
        (b'{"id": 1, "text": 1e999}', "too large"),
        (b'{"id": 1, "text": ' + b"[" * 5000 + b"]" * 5000 + b"}", "nested"),
        (b'{"id": 1}', "text"),
        (b'{"text": "x"}', "key field id is missing"),
        (b'{"id": null, "text": "x"}', "null"),
        (b'{"id": 1.5, "text": "x"}', "fraction"),
        (b'{"id": "", "text": "x"}', "empty"),
        (b'\xef\xbb\xbf{"id": 1, "text": "x"}', "byte order mark"),
        (b'{"id": 1, "text": "x"} trailing', "JSON"),
        (b'["id", 1]', "object"),
    ],
)
def test_a_bad_line_is_refused_by_number_and_the_good_ones_go_in(spool: Spool, line: bytes, why: str) -> None:
    refused: list[tuple[int, bytes]] = []
    report = spool.enqueue(
        {"id": 8, "text": "x"},
        line,
        {"id": 9, "text": "y"},
        rejects=lambda _, number, data, why: refused.append((number, data)),
    )
    assert (report.result["enqueued"], report.result["rejected"]) == (2, 1)
    assert not any(report.result[name] for name in ("duplicates", "conflicts", "replaced"))
    assert report.exit_code == 3
    assert "line 2: " in report.problems[0].message
    assert why in report.problems[0].message
    assert refused == [(2, line)]


def test_a_bom_at_the_start_and_separators_inside_strings_are_fine(spool: Spool) -> None:
    first = b'\xef\xbb\xbf{"id": 1, "text": "a\xe2\x80\xa8b\xe2\x80\xa9c\xc2\x85d"}\r'
    report = spool.enqueue(first, b"", b"   ", {"id": 2, "text": "y"})
    assert report.result["enqueued"] == 2
    spool.round()
    assert len(spool.results()) == 2


def test_thresholds_decide_when_a_workload_is_due(spool: Spool) -> None:
    spool.workloads["echo"] = spool.workload(dispatch={"min_requests": 3, "max_wait": "1h"})
    spool.write_config()
    spool.fill(2)
    report = spool.dispatch()
    assert report.result["requests"] == 0
    assert report.result["not_due"] == dict.fromkeys(report.result["not_due"], 0) | {"threshold": 2}
    spool.clock.advance(3601)
    assert spool.dispatch().result["requests"] == 2
    spool.fill(5)
    assert spool.dispatch().result["requests"] == 3
    spool.enqueue({"id": 77, "text": "z"})
    assert spool.dispatch().result["requests"] == 0
    assert spool.dispatch(ignore_waits=True).result["requests"] == 1


def test_batches_stay_within_lowered_limits(spool: Spool) -> None:
    spool.providers["main"] = spool.provider(limits={"requests": 4})
    spool.write_config()
    spool.fill(10)
    sizes = [batch["requests"] for batch in spool.dispatch().result["batches"]]
    assert sizes == [4, 4, 2]


def test_batches_stay_within_a_limit_in_bytes(spool: Spool) -> None:
    spool.providers["main"] = spool.provider(limits={"bytes": 2500})
    spool.write_config()
    spool.enqueue(*({"id": i, "text": f"record number {i} " + "x" * 600} for i in range(9)))
    spool.enqueue({"id": 99, "text": "y" * 3000})
    report = spool.dispatch()
    assert all(batch["bytes"] <= 2500 for batch in report.result["batches"] if batch["requests"])
    assert report.result["requests"] == 9
    spool.poll()
    spool.reconcile()
    failed = [answer for answer in spool.results() if answer["status"] == "failed"]
    assert [answer["key"] for answer in failed] == [99]
    assert "bytes" in failed[0]["error"]["message"]
    spool.check()


def test_embedding_inputs_are_limited_in_a_batch(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.providers["main"] = spool.provider(limits={"inputs": 5})
    spool.workloads["raw"] = {"provider": "main"}
    spool.write_config()
    body = {"model": "text-embedding-3-small", "input": ["a", "b"]}
    lines = [{"custom_id": str(i), "method": "POST", "url": "/v1/embeddings", "body": body} for i in range(5)]
    spool.enqueue(*lines, workload="raw")
    assert [batch["requests"] for batch in spool.dispatch().result["batches"]] == [2, 2, 1]


def test_a_batch_that_expires_half_way_keeps_its_answers_and_sends_the_rest_again(spool: Spool) -> None:
    spool.fill(20)
    spool.control.fault("expire", fraction=0.5)
    _, _, settled = spool.round()
    answered = settled.result["tasks"]["completed"]
    assert 0 < answered < 20
    assert settled.result["tasks"]["retried"] == 20 - answered
    spool.settle()
    assert spool.counts()["completed"] == 20
    assert spool.control.billing()["requests"] == 20
    spool.check()


def test_a_batch_that_somebody_cancelled_is_not_sent_again_before_a_person_says_so(spool: Spool) -> None:
    spool.fill(10)
    spool.control.fault("cancel", fraction=0.3)
    _, _, settled = spool.round()
    answered = settled.result["tasks"]["completed"]
    assert 0 < answered < 10
    assert settled.result["tasks"]["cancelled"] == 10 - answered
    assert settled.exit_code == 3
    spool.settle()
    assert (spool.counts()["completed"], spool.counts()["cancelled"]) == (answered, 10 - answered)
    assert spool.control.billing()["requests"] == answered
    assert {answer["error"]["kind"] for answer in spool.results(statuses=["cancelled"])} == {"cancelled"}
    (need,) = spool.status()["attention"]
    assert f"{10 - answered} tasks of echo are cancelled" in need["message"]
    assert "nura resolve 1 --resend" in need["hint"]
    report = spool.resolve("1")
    assert report.result["done"] == f"{10 - answered} tasks that its cancelling stopped wait again"
    assert spool.status()["attention"] == []
    assert spool.counts()["pending"] == 10 - answered
    spool.settle()
    assert spool.counts()["completed"] == 10
    assert spool.control.billing()["requests"] == 10
    spool.check()


def test_what_somebody_cancelled_may_be_left_so(spool: Spool) -> None:
    spool.fill(3)
    spool.control.fault("cancel", fraction=0)
    spool.round()
    spool.resolve("1", give_up=True)
    assert spool.status()["attention"] == []
    spool.settle()
    assert spool.counts()["cancelled"] == 3
    with pytest.raises(UsageError, match="nothing to decide"):
        spool.resolve("1")
    spool.check()


def test_a_superseded_record_is_not_put_back_with_its_cancelled_batch(spool: Spool) -> None:
    spool.fill(3)
    spool.control.fault("cancel", fraction=0)
    spool.dispatch()
    spool.enqueue({"id": 0, "text": "record number 0 renewed"}, replace=True)
    spool.poll()
    spool.reconcile()
    assert spool.resolve("1").result["done"].startswith("2 tasks")
    spool.settle()
    assert spool.counts()["completed"] == 3
    assert spool.control.billing()["requests"] == 3
    spool.check()


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("shape", ["body", "plain"])
def test_rows_that_may_succeed_later_are_tried_again_up_to_their_attempts(
    spool: Spool, status: int, shape: str
) -> None:
    spool.fill(6)
    spool.control.fault("rows", match="number 3", status=status, shape=shape, times=-1)
    _, _, settled = spool.round()
    assert settled.result["tasks"] == {
        "completed": 5,
        "failed": 0,
        "retried": 1,
        "missing": 0,
        "late": 0,
        "cancelled": 0,
    }
    assert spool.dispatch().result["requests"] == 0  # its time has not come
    for n in range(2):
        spool.clock.advance(7 * 3600)
        spool.enqueue({"id": 90 + n, "text": "one that is answered"})
        spool.round()
    (failed,) = [answer for answer in spool.results() if answer["status"] == "failed"]
    assert failed["key"] == 3
    assert failed["attempts"] == 3
    assert failed["error"]["kind"] == ("rate_limited" if status == 429 and shape == "body" else failed["error"]["kind"])
    assert spool.counts()["pending"] == 0


@pytest.mark.parametrize("shape", ["error", "zero", "body"])
def test_every_shape_of_a_failed_row_is_understood(openai_spool: Spool, shape: str) -> None:
    spool = openai_spool
    spool.fill(3)
    spool.control.fault("rows", match="number 1", status=500, shape=shape)
    _, _, settled = spool.round()
    assert settled.result["tasks"]["retried"] == 1
    spool.settle()
    assert spool.counts()["completed"] == 3


def test_a_refused_request_fails_at_once_with_the_providers_words(spool: Spool) -> None:
    spool.fill(3)
    spool.control.fault("rows", match="number 1", status=400, message="your prompt is too long")
    _, _, settled = spool.round()
    assert settled.result["tasks"]["failed"] == 1
    assert settled.exit_code == 3
    assert "refused 1" in settled.problems[0].message
    (failed,) = [answer for answer in spool.results() if answer["status"] == "failed"]
    assert failed["error"]["kind"] == "refused"
    assert failed["error"]["message"] == "your prompt is too long"


def test_missing_repeated_foreign_and_shuffled_lines(spool: Spool) -> None:
    spool.fill(12)
    spool.control.fault("missing", match="number 7")
    spool.control.fault("duplicate", fraction=1)
    spool.control.fault("foreign", n=3)
    _, home, settled = spool.round()
    assert settled.result["tasks"]["completed"] == 11
    assert any("1 answer more than its results hold" in found.message for found in home.problems)
    assert any("not of their batch" in found.message for found in settled.problems)
    # The missing one was answered and billed by the provider: it is sent again as a person decides.
    for _ in range(30):
        spool.clock.advance(3600)
        spool.round()
    assert spool.control.billing()["requests"] == 12
    spool.resolve("1")
    spool.settle()
    assert spool.counts()["completed"] == 12
    assert spool.control.billing()["requests"] == 13
    spool.check()


def test_answers_that_break_the_schema_are_tried_again_and_then_fail_with_the_place(spool: Spool) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    spool.workloads["strict"] = spool.workload(schema=schema, retry={"max_attempts": 2})
    spool.write_config()
    spool.control.fault("invalid", mode="schema", times=2)
    spool.enqueue({"id": 1, "text": "x"}, workload="strict")
    _, _, settled = spool.round()
    assert settled.result["tasks"]["retried"] == 1
    spool.settle()
    (answer,) = spool.results(workloads=["strict"])
    assert answer["error"]["kind"] == "invalid_output"
    assert "unexpected" in answer["error"]["message"]
    assert spool.control.billing()["requests"] == 2
    assert float(answer["cost"]) > 0


def test_an_answer_cut_at_its_token_limit_fails_at_once(spool: Spool) -> None:
    schema = {
        "type": "object",
        "properties": {"s": {"type": "string"}},
        "required": ["s"],
        "additionalProperties": False,
    }
    spool.workloads["strict"] = spool.workload(schema=schema)
    spool.write_config()
    spool.control.fault("invalid", mode="length", times=-1)
    spool.enqueue({"id": 1, "text": "x"}, workload="strict")
    spool.enqueue({"id": 0, "text": "record number 0"})
    spool.round()
    by_workload = {answer["workload"]: answer for answer in spool.results()}
    for name, words in (("strict", "before it was whole"), ("echo", "was cut there")):
        assert by_workload[name]["error"]["kind"] == "truncated"
        assert words in by_workload[name]["error"]["message"]
        assert by_workload[name]["attempts"] == 1


def test_a_refusal_is_no_answer(spool: Spool) -> None:
    spool.fill(1)
    spool.control.fault("invalid", mode="refusal")
    spool.round()
    (answer,) = spool.results()
    assert answer["status"] == "failed"
    assert answer["error"]["kind"] == "refusal"


@pytest.mark.long
@pytest.mark.parametrize("spool", OPENAI_FIRST, indirect=True)
def test_a_thousand_batches_cost_few_requests(spool: Spool) -> None:
    spool.providers["main"] = spool.provider(limits={"requests": 1})
    spool.write_config()
    spool.control.settings(delay=3600)
    spool.fill(120)
    spool.dispatch()
    assert len(spool.batches()) == 120
    before = len(spool.control.log())
    report = spool.poll()
    assert report.result["checked"] == 120
    assert len(spool.control.log()) - before <= 4


def test_poll_waits_as_long_as_it_is_told(spool: Spool) -> None:
    spool.control.settings(delay=100)
    spool.fill(2)
    spool.dispatch()
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        spool.control.advance(40)

    report = spool.poll(wait=60, sleep=sleep)
    assert report.exit_code == 0
    assert len(slept) == 3
    assert spool.batches() == [(1, "completed")]


def test_poll_gives_up_with_75_when_its_time_is_over(spool: Spool) -> None:
    spool.control.settings(delay=10_000)
    spool.fill(2)
    spool.dispatch()
    report = spool.poll(wait=0)
    assert report.exit_code == 75
    assert spool.batches() == [(1, "submitted")]


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_short_download_is_never_taken_for_a_whole_one(spool: Spool, framing: str) -> None:
    spool.fill(30)
    spool.dispatch()
    spool.control.fault("truncate", "download", framing=framing, keep=0.6)
    first = spool.poll()
    assert first.exit_code == 3 or first.exit_code == 75
    assert spool.batches() == [(1, "submitted")]
    assert not [path for path in (spool.folder / "nura.db.spool" / "results").iterdir() if path.suffix == ".jsonl"]
    spool.poll()
    spool.reconcile()
    assert spool.counts()["completed"] == 30
    spool.check()


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_a_whole_download_without_a_length_is_taken(spool: Spool, framing: str) -> None:
    spool.fill(30)
    spool.control.fault("framing", "download", framing=framing, times=-1)
    spool.round()
    assert spool.counts()["completed"] == 30


def test_a_damaged_spool_file_is_fetched_again(spool: Spool) -> None:
    spool.fill(5)
    spool.dispatch()
    spool.poll()
    (path,) = (spool.folder / "nura.db.spool" / "results").iterdir()
    path.write_bytes(path.read_bytes()[:-40])
    report = spool.reconcile()
    assert report.exit_code == 3
    assert spool.batches() == [(1, "submitted")]
    spool.poll()
    path.unlink()
    spool.reconcile()
    spool.poll()
    spool.reconcile()
    assert spool.counts()["completed"] == 5
    spool.check()


@pytest.mark.parametrize("chunk", [1, 2000])
def test_a_custom_id_that_comes_again_with_another_answer_changes_nothing(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr("nura_cli.pipeline.reconcile.CHUNK_LINES", chunk)
    spool.fill(3)
    spool.dispatch()
    spool.poll()
    (path,) = (spool.folder / "nura.db.spool" / "results").iterdir()
    lines = path.read_bytes()
    path.write_bytes(lines + lines.replace(b"record number", b"RECORD NUMBER"))
    told = {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    ((spooled,),) = spool.rows("SELECT spooled FROM batches")
    spool.rows("UPDATE batches SET spooled = ?", json.dumps(dict.fromkeys(json.loads(spooled), told)))
    report = spool.reconcile()
    assert report.result["tasks"] == {
        "completed": 3,
        "failed": 0,
        "retried": 0,
        "missing": 0,
        "late": 0,
        "cancelled": 0,
    }
    assert spool.status()["usage"]["input_tokens"] == spool.control.billing()["input_tokens"]
    spool.check()


def test_results_that_are_not_found_once_are_not_lost(spool: Spool) -> None:
    spool.fill(4)
    spool.control.fault("status", "download", status=404)
    spool.round()
    assert spool.batches() == [(1, "submitted")]
    spool.round()
    assert spool.counts()["completed"] == 4
    assert spool.control.billing()["requests"] == 4


def mixed_up(spool: Spool) -> int:
    """Settle a batch, send another, and have the provider give the first one's results for it; return the fault's number."""
    spool.fill(2)
    spool.settle()
    ((parts,),) = spool.rows("SELECT parts FROM batches")
    (first,) = json.loads(parts).values()
    spool.enqueue({"id": 8, "text": "record number 8"})
    spool.dispatch()
    return spool.control.fault("mixed_up", "download", of=first, times=-1)


def test_other_requests_results_are_never_taken_for_a_batchs_own(spool: Spool) -> None:
    number = mixed_up(spool)
    _, home, settled = spool.round()
    assert "other requests' results" in home.problems[0].message
    assert settled.result["tasks"]["missing"] == 0
    assert spool.batches()[1] == (2, "submitted")
    spool.control.clear(number)
    spool.settle()
    assert spool.counts()["completed"] == 3
    assert spool.control.billing()["requests"] == 3


def test_results_that_stay_other_requests_are_held_and_never_deleted(spool: Spool) -> None:
    spool.providers["main"] = spool.provider(cleanup_after="8h")
    spool.write_config()
    number = mixed_up(spool)
    for _ in range(2):
        spool.poll()
        spool.clock.advance(901)
    spool.reconcile()
    (need,) = spool.status()["attention"]
    assert "other requests' results" in need["message"]
    spool.resolve("2")
    assert spool.rows("SELECT outcome FROM attempts WHERE batch_id = 2") == [("lost",)]
    spool.control.clear(number)
    spool.settle()
    spool.clock.advance(86400)
    spool.poll()
    (second,) = spool.rows("SELECT remote_id FROM batches WHERE id = 2")[0]
    deleted = [entry["path"] for entry in spool.control.log() if entry["route"] == "delete"]
    assert deleted
    assert not [path for path in deleted if second in path]
    assert spool.counts()["completed"] == 3


def test_what_is_said_of_another_batch_counts_for_nothing(spool: Spool) -> None:
    spool.fill(2)
    spool.settle()
    (first,) = spool.rows("SELECT remote_id FROM batches")[0]
    spool.control.settings(delay=600)
    spool.enqueue({"id": 8, "text": "record number 8"})
    spool.dispatch()
    spool.control.fault("mixed_up", "retrieve", of=first)
    report = spool.poll()
    assert "names another batch" in report.problems[0].message
    assert spool.batches()[1] == (2, "submitted")
    spool.clock.advance(600)
    spool.settle()
    assert spool.counts()["completed"] == 3
    assert spool.control.billing()["requests"] == 3


def test_a_clock_that_jumps_here_makes_no_results_lost(spool: Spool) -> None:
    spool.fill(4)
    spool.control.fault("status", "download", status=404, times=2)
    spool.round()
    spool.clock.time += 5 * 86400  # only this machine's clock
    spool.round()
    assert spool.batches() == [(1, "submitted")]
    spool.settle()
    assert spool.counts()["completed"] == 4
    assert spool.control.billing()["requests"] == 4


def test_a_late_line_is_billed_and_not_applied(spool: Spool) -> None:
    spool.fill(3)
    spool.dispatch()
    spool.poll()
    # The task was taken back meanwhile, as an operator could: it no longer belongs to the batch.
    with_state = spool.rows("SELECT id FROM tasks ORDER BY id LIMIT 1")[0][0]
    spool.rows("UPDATE tasks SET status = 'pending', batch_id = NULL WHERE id = ?", with_state)
    spool.rows("UPDATE counts SET n = n - 1 WHERE status = 'submitted'")
    spool.rows("UPDATE counts SET n = n + 1 WHERE status = 'pending'")
    report = spool.reconcile()
    assert report.result["tasks"] == {
        "completed": 2,
        "failed": 0,
        "retried": 0,
        "missing": 0,
        "late": 1,
        "cancelled": 0,
    }
    assert spool.rows("SELECT count(*) FROM attempts WHERE late = 1") == [(1,)]
    assert spool.counts()["pending"] == 1
    assert spool.status()["usage"]["input_tokens"] == spool.control.billing()["input_tokens"]


def test_reconcile_killed_half_way_goes_on(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nura_cli.pipeline.reconcile.CHUNK_LINES", 4)
    spool.fill(10)
    spool.dispatch()
    spool.poll()
    calls = []

    def stop_after_two(self: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("nura_cli.state.file.State.yield_to_writers", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            spool.reconcile()
    assert 0 < spool.counts()["completed"] < 10
    report = spool.reconcile()
    assert (report.exit_code, report.problems) == (0, [])
    assert report.result["tasks"]["late"] == 0
    assert spool.counts()["completed"] == 10
    spool.check()


def test_an_unknown_word_for_a_status_is_kept_and_waited_on(openai_spool: Spool) -> None:
    from nura_cli.dialects.base import Phase
    from nura_cli.dialects.openai import remote_batch

    remote = remote_batch({"id": "b", "status": "pondering", "request_counts": None})
    assert remote is not None
    assert (remote.status, remote.phase) == ("pondering", Phase.RUNNING)


@pytest.mark.parametrize(
    "quirks",
    [("upper_case",), ("no_counts",), ("empty_error_id",), ("empty_error_file",), ("body_string",), ("no_usage",),
     ("job_create",), ("no_metadata",), ("upper_case", "no_counts", "body_string", "no_usage", "no_metadata")],
)  # fmt: skip
def test_quirks_of_compatible_services_trip_nothing(openai_spool: Spool, quirks: tuple[str, ...]) -> None:
    spool = openai_spool
    for quirk in quirks:
        spool.control.fault(quirk, times=-1)
    spool.fill(5)
    reports = spool.round()
    assert [report.exit_code for report in reports] == [0, 0, 0]
    assert spool.counts()["completed"] == 5
    if "no_usage" in quirks:
        assert spool.status()["cost"]["unpriced_tasks"] == 5
    if "upper_case" in quirks:
        assert spool.rows("SELECT remote_status FROM batches") == [("COMPLETED",)]


def test_a_dry_run_shows_batches_and_changes_nothing(spool: Spool) -> None:
    spool.fill(6)
    before = spool.state_path.read_bytes()
    report = spool.preview()
    (planned,) = report.result["batches"]
    assert planned["requests"] == 6
    assert planned["estimated_tokens"] > 0
    assert spool.state_path.read_bytes() == before
    assert spool.control.log() == []


def test_a_clock_set_wrong_does_not_hold_a_task_back_for_years(spool: Spool) -> None:
    spool.fill(1)
    spool.control.fault("rows", status=500)
    spool.clock.time = START + 400 * 86400  # a clock that ran ahead
    spool.round()
    spool.clock.time = START
    assert spool.dispatch().result["requests"] == 1


def test_what_is_unclean_is_deleted_at_the_provider_and_nothing_else(spool: Spool) -> None:
    spool.providers["main"] = spool.provider(cleanup_after="7d")
    spool.write_config()
    spool.fill(2)
    spool.settle()
    spool.clock.advance(6 * 86400)
    spool.poll()
    kept = len(spool.control.files()) if spool.protocol == "openai" else len(spool.control.batches())
    assert kept > 0
    spool.clock.advance(2 * 86400)
    spool.poll()
    assert spool.control.files() == []
    if spool.protocol == "anthropic":
        assert spool.control.batches() == []
    before = len(spool.control.log())
    spool.poll()
    assert len(spool.control.log()) == before


def test_json_of_a_key_keeps_its_type_and_arrays_make_composite_keys(spool: Spool) -> None:
    spool.workloads["pairs"] = spool.workload(key=["tenant", "id"])
    spool.write_config()
    spool.enqueue({"tenant": "a", "id": 5, "text": "x"}, {"tenant": "a", "id": "5", "text": "x"}, workload="pairs")
    assert spool.counts()["pending"] == 1
    spool.settle()
    assert [json.dumps(answer["key"]) for answer in spool.results()] == ['["a", 5]']
