"""An answer that was paid for is kept, however oddly it is written; and what is no answer is none, and says why."""

import hashlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nura_cli.dialects.vendors import dialect as dialect_of
from nura_cli.pipeline import reconcile
from nura_cli.pipeline import spool as spooled
from nura_cli.pipeline.results import vendor_lines
from nura_cli.state import State
from tests.conftest import Spool
from tests.pipeline.forks import Command

pytestmark = pytest.mark.long


N = 5
STRICT = {
    "type": "object",
    "properties": {"s": {"type": "string"}},
    "required": ["s"],
    "additionalProperties": False,
}


def answer_of(spool: Spool, mode: str, **options: Any) -> dict[str, Any]:
    """Return the one answer of a workload with these options whose model always ends in this mode."""
    spool.set(**options)
    spool.control.fault("invalid", mode=mode, times=-1)
    spool.fill(1)
    spool.round()
    (answer,) = spool.results()
    return answer


def responses(spool: Spool) -> None:
    spool.set(endpoint="/v1/responses")


def changed(spool: Spool, old: bytes, new: bytes) -> None:
    """Change, once in each file that holds it, what poll left in the spool, as if it had come so."""
    rewritten(spool, lambda data: data.replace(old, new, 1))


def rewritten(spool: Spool, change: Callable[[bytes], bytes]) -> None:
    """Change each of the one batch's files that poll left in the spool, as if it had come so."""
    with State(spool.state_path) as state, state.transaction() as db:
        (stored,) = db.execute("SELECT spooled FROM batches").fetchone()
        files = json.loads(stored)
        for part in files:
            path = next((spool.folder / "nura.db.spool" / "results").glob(f"*.{part}.jsonl"))
            data = change(path.read_bytes())
            path.write_bytes(data)
            files[part] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        assert files != json.loads(stored)
        db.execute("UPDATE batches SET spooled = ?", (json.dumps(files),))


# --- read leniently


@pytest.mark.parametrize("framing", ["length", "close", "chunked"])
@pytest.mark.parametrize("form", ["surrogate", "bytes", "bom", "control", "usage", "types", "nan", "deep"])
def test_an_answer_that_is_written_oddly_is_kept_and_paid_once(spool: Spool, form: str, framing: str) -> None:
    spool.control.fault("odd", form=form, times=-1)
    spool.control.fault("framing", route="download", framing=framing, times=-1)
    spool.fill(N)
    dispatched, polled, reconciled = spool.round()
    assert [report.exit_code for report in (dispatched, polled, reconciled)] == [0, 0, 0]
    assert spool.counts()["completed"] == N
    assert spool.control.billing()["requests"] == N
    for answer in spool.results():
        ending = {"surrogate": "\ufffd", "bytes": "\ufffd", "control": "\t"}.get(form, "")
        assert answer["text"].endswith(f"]{ending}"), answer["text"]
        assert (answer["cost"] is None) == (form == "usage")
    spool.check()


@pytest.mark.parametrize("form", ["surrogate", "types"])
def test_an_answer_of_the_responses_endpoint_that_is_written_oddly_is_kept(openai_spool: Spool, form: str) -> None:
    responses(openai_spool)
    openai_spool.control.fault("odd", form=form, times=-1)
    openai_spool.fill(N)
    openai_spool.round()
    assert openai_spool.counts()["completed"] == N
    openai_spool.check()


def test_what_cannot_be_read_is_kept_as_it_came_at_an_unknown_cost(spool: Spool) -> None:
    """It is tried again, but never as if it had no line."""
    spool.set(retry={"max_attempts": 2})
    spool.control.fault("odd", form="garbled", times=-1)
    spool.fill(2)
    _, polled, reconciled = spool.round()
    assert polled.exit_code == 0
    assert reconciled.result["tasks"]["missing"] == 0
    assert reconciled.result["tasks"]["retried"] == 2
    spool.settle()
    assert spool.rows("SELECT outcome, count(*), count(cost) FROM attempts GROUP BY 1") == [("invalid_output", 4, 0)]
    for answer in spool.results():
        assert (answer["status"], answer["error"]["kind"], answer["cost"]) == ("failed", "invalid_output", None)
        assert f"record number {answer['key']}" in answer["response"]
        assert '"custom_id"' in answer["response"]
    with State(spool.state_path) as state:
        lines = [json.loads(line) for line in vendor_lines(state, spool.protocol)]
    assert [line["custom_id"] for line in lines] == ["0", "1"]
    assert spool.status()["cost"]["unpriced_tasks"] == 4


def test_of_a_line_that_cannot_be_read_and_one_that_can_the_answer_counts(spool: Spool) -> None:
    spool.control.fault("duplicate")
    spool.fill(1)
    spool.dispatch()
    spool.poll()
    changed(spool, b"[", b"]")
    report = spool.reconcile()
    assert report.result["tasks"]["completed"] == 1
    spool.check()


@pytest.mark.parametrize("line", [b"}{", b'{"custom_id": 5}', b'{"custom_id": "somebody-7", '])
def test_a_line_that_cannot_be_read_and_is_nobodys_is_counted_and_stops_no_other(spool: Spool, line: bytes) -> None:
    spool.fill(N)
    spool.dispatch()
    spool.poll()
    changed(spool, b"\n", b"\n" + line + b"\n")
    report = spool.reconcile()
    assert [found.message for found in report.problems] == ["1 result line was unreadable, and not applied"]
    assert spool.counts()["completed"] == N


def test_a_page_of_html_in_the_place_of_results_is_fetched_again(spool: Spool) -> None:
    spool.fill(1)
    spool.dispatch()
    spool.control.fault("html", route="download")
    assert "are no results" in spool.poll().problems[0].message
    spool.poll()
    spool.reconcile()
    assert spool.counts()["completed"] == 1


@pytest.mark.parametrize(
    ("data", "whole"),
    [
        (b"", True),
        (b"\n\n", True),
        (b'{"a": 1}', True),
        (b'{"a": 1}\r\n', True),
        (b'{"a": 1}\n{"a": "\\ud800"}', True),
        (b'{"a": 1}\n{"a": "\xed\xa0\x80"}', True),
        (b'\xef\xbb\xbf{"a": NaN}', True),
        (b'{"a": 1}\n{"a": tru\n', True),
        (b'{"a": 1}\n{"a": tru', False),
        (b'[{"a": 1},\n{"a": "x"}]', True),
        (b'{"a": 1},\n{"a": "x"},\0\0', True),
        (b'{"a": 1}\n{"a": 1}{"a": tru', False),
        (b'{"a": 1}\n{"a": "x' + b"y" * 200_000, False),
    ],
)
def test_a_last_line_is_cut_only_where_it_has_no_end_and_cannot_be_read(
    tmp_path: Path, data: bytes, whole: bool
) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(data)
    assert spooled.ends_whole(path) is whole


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", True),
        (b"\xef\xbb\xbf\r\n", True),
        (b"\xef\xbb\xbf{}\n", True),
        (b'x\n{"a": 1}\n', True),
        (b'{"a": 1}\nx', True),
        (b'"custom_id": "t-1", }', True),
        (b'[\n{"a": 1}\n]\n', True),
        (b'data: {"a": 1}\n\ndata: [DONE]\n', True),
        (b"[]", True),
        (b"[\n<html>", False),
        (b"<html>{}</html>", False),
        (b"no healthy upstream\n", False),
    ],
)
def test_a_page_of_something_else_is_told_from_results(tmp_path: Path, data: bytes, lines: bool) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(data)
    assert spooled.has_lines(path) is lines


FORMS: dict[str, Callable[[list[bytes]], bytes]] = {
    "comma": lambda lines: b",\n".join(lines) + b",\n",
    "list": lambda lines: b"[" + b",\n".join(lines) + b"]",
    "lines of a list": lambda lines: b"[\n" + b",\n".join(lines) + b"\n]\n",
    "one line": lambda lines: b"[" + b", ".join(lines) + b"]",
    "nul": lambda lines: b"\n".join(lines) + b"\0" * 512,
    "glued": lambda lines: b"".join(lines[:2]) + b"\n" + b"\n".join(lines[2:]) + b"\n",
    "all glued": b"".join,
    "events": lambda lines: b"".join(b"data: " + line + b"\n\n" for line in lines) + b"data: [DONE]\n",
    "sequence": lambda lines: b"".join(b"\x1e" + line + b"\n" for line in lines),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("chunk", [1, 2000])
def test_results_that_are_separated_in_another_way_are_results(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, form: str, chunk: int
) -> None:
    monkeypatch.setattr(reconcile, "CHUNK_LINES", chunk)
    spool.fill(N)
    spool.dispatch()
    spool.poll()
    rewritten(spool, lambda data: FORMS[form](data.splitlines()))
    path = next((spool.folder / "nura.db.spool" / "results").iterdir())
    assert spooled.has_lines(path)
    assert spooled.ends_whole(path)
    (tag,) = spool.rows("SELECT tag FROM batches")[0]
    lines = spooled.lines_of(path, dialect_of(spool.protocol), tag)
    assert (len(lines.tasks), len(lines.answered), lines.others) == (N, N, 0)
    report = spool.reconcile()
    assert (report.result["tasks"]["completed"], report.problems) == (N, [])
    spool.check()


def failed_line(spool: Spool, line: bytes, status: int) -> bytes:
    """Return a line that says of the same request that it failed; without a status, one that cannot be read."""
    custom_id = json.loads(line)["custom_id"]
    if not status:
        return b'{"custom_id": "%s", "response": {"bo' % custom_id.encode()
    kind = {429: "rate_limit_error", 400: "invalid_request_error", 500: "api_error", 401: "authentication_error"}[
        status
    ]
    error = {"type": kind, "message": "oops"}
    if spool.protocol == "anthropic":
        return json.dumps(
            {"custom_id": custom_id, "result": {"type": "errored", "error": {"type": "error", "error": error}}}
        ).encode()
    return json.dumps({"custom_id": custom_id, "response": {"status_code": status, "body": {"error": error}}}).encode()


@pytest.mark.parametrize("chunk", [1, 2000])
@pytest.mark.parametrize("status", [0, 400, 401, 429, 500])
@pytest.mark.parametrize("first", [True, False], ids=["error first", "answer first"])
def test_what_was_answered_and_failed_as_well_was_answered_however_far_apart_its_lines_are(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, status: int, first: bool, chunk: int
) -> None:
    monkeypatch.setattr(reconcile, "CHUNK_LINES", chunk)
    spool.fill(N)
    spool.dispatch()
    spool.poll()

    def doubled(data: bytes) -> bytes:
        lines = data.splitlines()
        errors = [failed_line(spool, line, status) for line in lines[:2]]
        return b"\n".join([*errors, *lines] if first else [*lines, *errors]) + b"\n"

    rewritten(spool, doubled)
    report = spool.reconcile()
    assert [found.message for found in report.problems] == ["2 result lines were repeated, and not applied"]
    assert spool.counts()["completed"] == N
    assert spool.status()["paused"] == []
    assert spool.rows("SELECT outcome, count(*) FROM attempts GROUP BY 1") == [("answered", N)]
    assert spool.control.billing()["requests"] == N
    spool.check()


# --- completed means that there is an answer


@pytest.mark.parametrize(
    ("mode", "kind", "words"),
    [
        ("silent", "truncated", "the model said nothing before it ran into its token limit"),
        ("length", "truncated", "the answer ran into its token limit, and was cut there"),
        ("null", "invalid_output", "the response holds no text"),
        ("thinking", "invalid_output", ""),
        ("paused", "invalid_output", "the response ended unfinished: pause_turn"),
    ],
)
def test_what_is_no_answer_fails_at_once_and_says_why(spool: Spool, mode: str, kind: str, words: str) -> None:
    answer = answer_of(spool, mode)
    assert (answer["status"], answer["attempts"]) == ("failed", 1)
    assert answer["error"]["kind"] == kind
    assert words in answer["error"]["message"]
    assert answer["error"]["code"] == answer["finish_reason"]
    assert float(answer["cost"]) > 0
    assert answer["response"] is not None
    assert spool.control.billing()["requests"] == 1


@pytest.mark.parametrize(
    ("mode", "kind", "code"),
    [
        ("silent", "truncated", "max_output_tokens"),
        ("length", "truncated", "max_output_tokens"),
        ("null", "invalid_output", "completed"),
        ("thinking", "invalid_output", "completed"),
        ("paused", "invalid_output", "incomplete"),
    ],
)
def test_likewise_of_the_responses_endpoint(openai_spool: Spool, mode: str, kind: str, code: str) -> None:
    responses(openai_spool)
    answer = answer_of(openai_spool, mode)
    assert (answer["status"], answer["attempts"]) == ("failed", 1)
    assert (answer["error"]["kind"], answer["error"]["code"]) == (kind, code)


def test_what_the_provider_did_not_finish_is_tried_again(openai_spool: Spool) -> None:
    responses(openai_spool)
    openai_spool.control.fault("invalid", mode="unfinished")
    openai_spool.fill(1)
    openai_spool.settle()
    (answer,) = openai_spool.results()
    assert (answer["status"], answer["attempts"]) == ("completed", 2)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"error":null', b'"error":{"code":0,"message":"success"}'),
        (b'"status_code":200', b'"status_code":0'),
        (b'"choices":', b'"error":{"code":"200","message":"OK"},"choices":'),
    ],
)
def test_an_answer_beside_which_all_is_said_to_be_well_is_one(openai_spool: Spool, old: bytes, new: bytes) -> None:
    openai_spool.fill(1)
    openai_spool.dispatch()
    openai_spool.poll()
    changed(openai_spool, old, new)
    openai_spool.reconcile()
    (answer,) = openai_spool.results()
    assert (answer["status"], answer["attempts"]) == ("completed", 1)
    assert float(answer["cost"]) > 0
    openai_spool.check()


@pytest.mark.parametrize(
    ("why", "kind", "status"),
    [("insufficient_system_resource", "provider_error", "pending"), ("SAFETY", "refusal", "failed")],
)
def test_an_answer_that_was_broken_off_or_taken_away_is_none(spool: Spool, why: str, kind: str, status: str) -> None:
    spool.fill(1)
    spool.dispatch()
    spool.poll()
    well = b"stop" if spool.protocol == "openai" else b"end_turn"
    changed(spool, b'"%s"' % well, b'"%s"' % why.encode())
    spool.reconcile()
    assert spool.rows("SELECT status FROM tasks") == [(status,)]
    ((outcome, cost),) = spool.rows("SELECT outcome, cost FROM attempts")
    assert outcome == kind
    assert float(cost) > 0


@pytest.mark.parametrize("endpoint", [None, "/v1/responses"])
@pytest.mark.parametrize(("mode", "text"), [("empty", ""), ("tool", None)])
def test_nothing_to_say_and_a_tool_call_are_answers(
    spool: Spool, mode: str, text: str | None, endpoint: str | None
) -> None:
    if spool.protocol == "openai" and endpoint:
        spool.set(endpoint=endpoint)
    answer = answer_of(spool, mode)
    assert (answer["status"], answer["text"]) == ("completed", text)


def test_the_answer_is_the_final_message_and_no_comment_before_it(openai_spool: Spool) -> None:
    responses(openai_spool)
    answer = answer_of(openai_spool, "phases")
    assert answer["text"].startswith("In short: Repeat: record number 0")


@pytest.mark.parametrize(
    "options", [{"accept_truncated": True}, {"params": {"max_tokens": 16}}, {"params": {"max_tokens": 1}}]
)
def test_a_cut_text_is_an_answer_where_that_is_meant(spool: Spool, options: dict[str, Any]) -> None:
    answer = answer_of(spool, "length", **options)
    assert answer["status"] == "completed"
    assert answer["text"]
    assert answer["finish_reason"] in ("length", "max_tokens")


def test_a_cut_text_is_no_answer_at_a_higher_limit(spool: Spool) -> None:
    assert answer_of(spool, "length", params={"max_tokens": 17})["error"]["kind"] == "truncated"


def test_a_cut_answer_to_a_ready_line_is_the_applications_to_judge(spool: Spool) -> None:
    spool.workloads["echo"] = {"provider": "main"}
    spool.write_config()
    message = {
        "model": spool.model,
        "max_tokens": 20,
        "messages": [{"role": "user", "content": "record number 1 " * 50}],
    }
    ready = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": message}
    spool.enqueue(ready if spool.protocol == "openai" else {"custom_id": "1", "params": message})
    spool.round()
    (answer,) = spool.results()
    assert (answer["status"], answer["finish_reason"] in ("length", "max_tokens")) == ("completed", True)


def test_a_cut_document_is_no_answer_whatever_is_accepted(spool: Spool) -> None:
    answer = answer_of(spool, "length", schema=STRICT, accept_truncated=True)
    assert answer["error"]["kind"] == "truncated"


def test_a_document_with_a_lone_surrogate_fits_its_schema(openai_spool: Spool) -> None:
    openai_spool.set(schema=STRICT)
    openai_spool.fill(1)
    openai_spool.dispatch()
    openai_spool.poll()
    changed(openai_spool, rb"\": \"", rb"\": \"\\ud83d ")
    openai_spool.reconcile()
    (answer,) = openai_spool.results()
    assert (answer["status"], answer["json"]["s"][:2]) == ("completed", "\ufffd ")


def test_the_document_after_other_texts_is_what_the_application_is_given(spool: Spool) -> None:
    endpoint = {"endpoint": "/v1/responses"} if spool.protocol == "openai" else {}
    spool.set(schema=STRICT, **endpoint)
    spool.fill(1)
    spool.dispatch()
    spool.poll()

    def searched(data: bytes) -> bytes:
        line = json.loads(data)
        if spool.protocol == "openai":
            message = {"type": "message", "role": "assistant"}
            line["response"]["body"]["output"] = [
                {**message, "content": [{"type": "output_text", "text": "Let me look that up."}]},
                {"type": "web_search_call", "action": {"type": "search"}},
                {**message, "content": [{"type": "output_text", "text": '```json\n{"s": "a\nb"}\n```'}]},
            ]
        else:
            line["result"]["message"]["content"] = [
                {"type": "text", "text": "Let me look that up."},
                {"type": "server_tool_use", "id": "x", "name": "web_search", "input": {}},
                {"type": "web_search_tool_result", "tool_use_id": "x", "content": []},
                {"type": "text", "text": '```json\n{"s": "a\nb"}\n```'},
            ]
        return json.dumps(line).encode()

    rewritten(spool, searched)
    spool.reconcile()
    (answer,) = spool.results()
    assert (answer["status"], answer["json"], json.loads(answer["text"])) == ("completed", {"s": "a\nb"}, {"s": "a\nb"})
    assert spool.control.billing()["requests"] == 1


@pytest.mark.parametrize(
    "number", [b"1e999", b"9" * 5000, b"-" + b"9" * 80, b"0." + b"9" * 5000], ids=lambda one: len(one)
)
def test_a_number_that_no_reader_takes_keeps_no_answer_from_its_row(spool: Spool, number: bytes) -> None:
    with sqlite3.connect(spool.folder / "app.db") as app:
        app.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, summary TEXT)")
        app.execute("INSERT INTO t (id) VALUES (0)")
    app.close()
    spool.databases["app"] = {"url": f"sqlite:///{spool.folder / 'app.db'}"}
    spool.set(write_back={"database": "app", "table": "t", "where": {"id": "key"}, "set": {"summary": "text"}})
    spool.fill(1)
    spool.dispatch()
    spool.poll()
    rewritten(spool, lambda data: data.replace(b'"usage":', b'"score": %s, "usage":' % number, 1))
    assert spool.reconcile().result["rows"]["written"] == 1
    (answer,) = spool.results()
    assert answer["status"] == "completed"
    for form in ("nura", spool.protocol):
        ended = Command(spool.folder, spool.clock(), "results", "--format", form).end()
        assert "score" in json.dumps(json.loads(ended.out))
    with sqlite3.connect(spool.folder / "app.db") as app:
        assert app.execute("SELECT summary FROM t").fetchall() == [(answer["text"],)]
    app.close()


def test_nothing_said_at_the_limit_is_not_written_over_a_null(openai_spool: Spool) -> None:
    spool = openai_spool
    with sqlite3.connect(spool.folder / "app.db") as app:
        app.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, summary TEXT, error TEXT)")
        app.execute("INSERT INTO t (id) VALUES (0)")
    app.close()
    spool.databases["app"] = {"url": f"sqlite:///{spool.folder / 'app.db'}"}
    told = spool.folder / "told.jsonl"
    script = spool.folder / "told.sh"
    script.write_text(f"#!/bin/sh\ncat >> {told}\n")
    script.chmod(0o755)
    back = {"database": "app", "table": "t", "where": {"id": "key"}, "set": {"summary": "text"}}
    answer_of(
        spool,
        "silent",
        write_back={**back, "set_failed": {"error": "error.message"}},
        events=[{"types": ["task.failed", "task.completed"], "command": [str(script)]}],
    )
    with sqlite3.connect(spool.folder / "app.db") as app:
        ((summary, error),) = app.execute("SELECT summary, error FROM t").fetchall()
    app.close()
    assert (summary, error) == (None, "the model said nothing before it ran into its token limit")
    (event,) = [json.loads(line) for line in told.read_text().splitlines()]
    assert (event["type"], event["data"]["error"]["code"]) == ("task.failed", "length")


def test_embeddings_and_what_other_endpoints_answer_are_answers(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.workloads["echo"] = {"provider": "main"}
    spool.write_config()
    for n, url in enumerate(("/v1/embeddings", "/v1/moderations")):
        body = {"model": "text-embedding-3-small", "input": "record number 1"}
        spool.enqueue({"custom_id": f"{n}", "method": "POST", "url": url, "body": body})
    spool.round()
    assert [answer["status"] for answer in spool.results()] == ["completed"] * 2


def test_what_could_not_be_read_is_printed_as_json(spool: Spool) -> None:
    spool.set(retry={"max_attempts": 1})
    spool.control.fault("odd", form="garbled", times=-1)
    spool.fill(1)
    spool.round()
    for form in ("nura", spool.protocol):
        ended = Command(spool.folder, spool.clock(), "results", "--format", form).end()
        (line,) = ended.out.splitlines()
        assert json.loads(line)
