"""What comes in: out of a database with a broken row, out of other tools' exports, and out of an application in Python."""

import fcntl
import io
import json
import os
import signal
import sqlite3
import termios
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import nura_cli
from nura_cli.config import load
from nura_cli.dialects.vendors import dialect
from nura_cli.errors import EX_CONFIG, EX_PARTIAL, InputError, UsageError
from nura_cli.pipeline import enqueue, lines
from nura_cli.pipeline.keys import Keys
from nura_cli.state import State, tasks
from tests.conftest import Spool
from tests.pipeline.forks import Command

pytestmark = pytest.mark.long


def said(spool: Spool, code: int, *arguments: str) -> str:
    """Run a command as cron would; return what it said, once it ended as expected."""
    ended = Command(spool.folder, spool.clock(), *arguments).end()
    assert ended.code == code, ended.out
    return ended.out


@pytest.fixture
def broken(openai_spool: Spool) -> Spool:
    """A spool whose source has four rows; the second holds bytes that are no text."""
    spool = openai_spool
    with closing(sqlite3.connect(spool.folder / "app.db")) as app, app:
        app.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT, done TEXT)")
        app.executemany("INSERT INTO t (text) VALUES (?)", [(f"record number {n}",) for n in range(1, 5)])
        app.execute("UPDATE t SET text = CAST(x'fffe' AS TEXT) WHERE id = 2")
    spool.databases["app"] = {"url": "sqlite:///app.db"}
    spool.set(
        source={"database": "app", "query": "SELECT id, text FROM t WHERE done IS NULL"},
        write_back={"database": "app", "table": "t", "where": {"id": "key"}, "set": {"done": "text"}},
    )
    return spool


BROKEN = "source of echo, key 2: column text: text that is not UTF-8, from its byte 1 on"


def test_one_broken_row_is_rejected_and_the_others_get_their_answers(broken: Spool) -> None:
    report = broken.enqueue_from_source()
    assert (report.result["enqueued"], report.result["rejected"], report.exit_code) == (3, 1, EX_PARTIAL)
    assert [found.message for found in report.problems] == [BROKEN]
    broken.round()
    with closing(sqlite3.connect(broken.folder / "app.db")) as app:
        assert app.execute("SELECT id FROM t WHERE done IS NULL").fetchall() == [(2,)]
        app.execute("UPDATE t SET text = 'record number 2' WHERE id = 2")
        app.commit()
    report = broken.enqueue_from_source()
    assert (report.result["enqueued"], report.problems) == (1, [])


def test_a_broken_row_is_said_once_and_again_per_remind(broken: Spool) -> None:
    out = said(broken, EX_PARTIAL, "enqueue", "--from-source")
    assert BROKEN in out
    broken.clock.advance(3600)
    assert said(broken, EX_PARTIAL, "enqueue", "--from-source") == ""
    assert said(broken, EX_PARTIAL, "run") == ""
    counts = json.loads(said(broken, EX_PARTIAL, "enqueue", "echo", "--from-source", "--json"))
    assert [found["message"] for found in counts["errors"]] == [BROKEN]
    broken.clock.advance(6 * 3600)
    assert BROKEN in said(broken, EX_PARTIAL, "enqueue", "--from-source")


def test_another_broken_row_is_said_at_once(broken: Spool) -> None:
    said(broken, EX_PARTIAL, "enqueue", "--from-source")
    with closing(sqlite3.connect(broken.folder / "app.db")) as app, app:
        app.execute("INSERT INTO t (text) VALUES (9e999)")
        app.execute("INSERT INTO t (text) VALUES (x'00')")
    out = said(broken, EX_PARTIAL, "enqueue", "--from-source")
    assert "key 2" not in out
    assert "key 6: column text: JSON has no form for bytes (cast it in the query, such as CAST(text AS TEXT)" in out


def test_a_broken_row_is_shown_before_anything_is_stored_and_copied_to_rejects(broken: Spool) -> None:
    out = said(broken, EX_PARTIAL, "enqueue", "echo", "--from-source", "-n")
    assert BROKEN in out
    assert out.count("custom_id") == 3
    said(broken, EX_PARTIAL, "enqueue", "echo", "--from-source", "--rejects", "bad")
    assert (broken.folder / "bad").read_bytes() == b'{"id":2}\n'


def test_a_row_without_a_key_is_told_by_its_place(broken: Spool) -> None:
    with closing(sqlite3.connect(broken.folder / "app.db")) as app, app:
        app.execute("CREATE TABLE u AS SELECT CAST(x'ff' AS TEXT) AS id, 'a' AS text UNION ALL SELECT 'b', 'c'")
    broken.set(source={"database": "app", "query": "SELECT id, text FROM u"}, write_back=None)
    report = broken.enqueue_from_source()
    assert report.result["enqueued"] == 1
    assert report.problems[0].message.startswith("source of echo, row 1: column id: text that is not UTF-8")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"[" * 5000 + b"]" * 5000, "row 1: nested too deeply"),
        (b'{"a": "\\u0000"}', "key 3, column doc: a NUL character (\\u0000) in a string"),
        (b"1e999", "key 3, column doc: a number too large to represent"),
    ],
)
def test_what_the_reader_refuses_of_a_row_is_told_by_key_and_column(value: bytes, why: str) -> None:
    """A database's JSON holds what records may not."""
    rows = enqueue.Rows("source of w", (row for row in [b'{"id":3,"doc":%b}' % value]), Keys("id"))
    [line] = rows.lines(1_000_000)
    with pytest.raises(InputError) as caught:
        lines.document(line.data)
    assert f"{rows.place(line)}: {caught.value.message}" == f"source of w, {why}"


# --- exports, as the tools write them

EXPORTS: dict[str, tuple[str | list[str], str, list[Any]]] = {
    "pandas, orient=records, lines": (
        "id",
        '{"id":1.0,"text":"a","score":null,"at":1767225600000}\n{"id":2.0,"text":"b","score":0.5,"at":null}\n',
        [1, 2],
    ),
    "Spark": (
        "id",
        '{"id":"a1","text":"a","tags":["x"]}\n{"id":"a2","text":"b","at":"2026-01-01T00:00:00.000Z"}\n',
        ["a1", "a2"],
    ),
    "BigQuery": ("id", '{"id":"9007199254740993","text":"a","n":{"v":[{"v":"1"}]}}\n', ["9007199254740993"]),
    "mongoexport": (
        "_id.$oid",
        '{"_id":{"$oid":"65a1b2c3d4e5f60718293a4b"},"text":"a","n":{"$numberLong":"5"},"at":{"$date":"2026-01-01T00:00:00Z"}}\n',
        ["65a1b2c3d4e5f60718293a4b"],
    ),
    "mongoexport, a composite _id": (
        ["_id.tenant", "_id.n.$numberInt"],
        '{"_id":{"tenant":"a","n":{"$numberInt":"7"}},"text":"a"}\n',
        [["a", "7"]],
    ),
}


@pytest.mark.parametrize(("key", "export", "keys"), EXPORTS.values(), ids=EXPORTS)
def test_exports_go_in_as_they_are(openai_spool: Spool, key: Any, export: str, keys: list[Any]) -> None:
    openai_spool.set(key=key)
    (openai_spool.folder / "export").write_text(export)
    assert said(openai_spool, 0, "enqueue", "-n", "echo", "export").count("custom_id") == len(keys)
    said(openai_spool, 0, "enqueue", "echo", "export")
    openai_spool.round()
    assert [answer["key"] for answer in sorted(openai_spool.results(), key=lambda one: str(one["key"]))] == keys


WRONG = {
    "an array": ('[\n{"id": 1, "text": "a"},\n{"id": 2, "text": "b"}\n]\n', "f: is a JSON array"),
    "an array on a line": ('[{"id": 1, "text": "a"}]\n', "line 1: a JSON array and not an object; jq -c '.[]'"),
    "printed": ('{\n  "id": 1,\n  "text": "a"\n}\n', "f: is JSON over several lines"),
    "CSV": ("id,text\n1,a\n", "f: is CSV"),
    "UTF-16": ('{"id": 1, "text": "a"}\n'.encode("utf-16-le").decode("latin-1"), "f: is UTF-16LE"),
    "Python's form": ("{'id': 1, 'text': None}\n", "line 1: not JSON but Python's own form"),
    "Python's constants": ('{"id": 1, "text": None}\n', "line 1: not JSON but Python's own form"),
    "NaN": ('{"id": 1, "text": NaN}\n', "line 1: NaN and Infinity are not JSON"),
    "two on a line": ('{"id": 1, "text": "a"}{"id": 2, "text": "b"}\n', "where it is another document, jq -c ."),
    "an element": ('{"id": 1, "text": "a"},\n', "it is an element of a JSON array"),
    "records inside": (
        '{"data": [{"id": 1, "text": "a"}]}\n',
        "the elements of its data have it, which jq -c '.data[]'",
    ),
    "pandas, columns": ('{"id": {"0": 1}, "text": {"0": "a"}}\n', 'to_json(orient="records", lines=True)'),
    "a near miss": ('{"id": 1, "tekst": "a"}\n', "lacks; the record has tekst; did you mean text?"),
    "another case": ('{"id": 1, "TEXT": "a"}\n', "lacks; the record has TEXT; did you mean text?"),
    "truncated gzip": ("\x1f\x8b\x08", "line 1: compressed data: it ends too early"),
}


@pytest.mark.parametrize(("given", "why"), WRONG.values(), ids=WRONG)
def test_what_people_have_is_told_with_what_to_do(openai_spool: Spool, given: str, why: str) -> None:
    data = given.encode("latin-1")
    (openai_spool.folder / "f").write_bytes(data)
    assert why.removeprefix("f: ") in said(openai_spool, EX_PARTIAL, "enqueue", "-n", "echo", "f")
    out = said(openai_spool, EX_PARTIAL, "enqueue", "echo", "f", "--rejects", "bad")
    assert why in out
    assert out.count("\n") == 1
    assert openai_spool.counts()["pending"] == 0
    if "compressed" not in why and "UTF-16" not in why:
        bad = (openai_spool.folder / "bad").read_text().splitlines()
        assert bad == [line.strip() for line in given.splitlines()]


def test_other_inputs_go_in_beside_one_that_is_no_json_lines(openai_spool: Spool) -> None:
    (openai_spool.folder / "f").write_text('[\n{"id": 1, "text": "a"}\n]\n')
    (openai_spool.folder / "g").write_text('{"id": 2, "text": "b"}\n')
    counts = json.loads(said(openai_spool, EX_PARTIAL, "enqueue", "echo", "f", "g", "--json"))
    assert (counts["enqueued"], counts["rejected"], len(counts["errors"])) == (1, 3, 1)


# --- an application in Python


def test_one_mapping_is_one_record(openai_spool: Spool) -> None:
    counts = nura_cli.enqueue("echo", {"id": 1, "text": "record number 1"}, config=openai_spool.path)
    assert (counts["enqueued"], counts["rejected"]) == (1, 0)


def test_values_are_taken_as_a_source_takes_them(openai_spool: Spool) -> None:
    openai_spool.set(prompt="{{ text }} {{ at }} {{ price }}", key="uid")
    uid = uuid.uuid4()
    record = {"uid": uid, "text": "a", "at": datetime(2026, 1, 2, tzinfo=UTC), "price": Decimal("19.90")}
    assert nura_cli.enqueue("echo", [record], config=openai_spool.path)["enqueued"] == 1
    [(kept,)] = openai_spool.rows("SELECT line FROM records")
    assert kept == f'{{"uid":"{uid}","text":"a","at":"2026-01-02T00:00:00+00:00","price":19.90}}'.encode()
    assert nura_cli.enqueue("echo", [record], config=openai_spool.path)["duplicates"] == 1


@pytest.mark.parametrize("given", ['{"id": 1}', b"{}", Path("records.jsonl"), 7, None])
def test_what_is_no_records_is_a_mistake_in_words(openai_spool: Spool, given: Any) -> None:
    with pytest.raises(UsageError, match="records are mappings") as caught:
        nura_cli.enqueue("echo", given, config=openai_spool.path)
    assert "nura enqueue WORKLOAD FILE" in str(caught.value.hint)


def test_a_table_is_told_from_records(openai_spool: Spool) -> None:
    class Frame:
        columns, shape = ("id", "text"), (1, 2)

        def __iter__(self) -> Any:
            return iter(self.columns)

    frame: Any = Frame()
    with pytest.raises(UsageError, match="a Frame is a whole table"):
        nura_cli.enqueue("echo", frame, config=openai_spool.path)


# --- who is to be told, before anything is paid for


def script(spool: Spool, text: str, mode: int = 0o755) -> None:
    """Write the program of the tests."""
    (spool.folder / "tell").write_text(text, newline="")
    (spool.folder / "tell").chmod(mode)


PROGRAMS = {
    "missing": (None, 0, "there is no such program"),
    "not executable": ("#!/bin/sh\n", 0o644, "may not be run (chmod +x "),
    "without an interpreter": ("cat > told\n", 0o755, "is a text, and does not say by #! what runs it"),
    "with another's interpreter": ("#!/opt/none/python\n", 0o755, "is to be run by /opt/none/python"),
    "with Windows' line ends": ("#!/bin/sh\r\nexit 0\r\n", 0o755, "has Windows' line ends"),
    "empty": ("", 0o755, "is a text"),
}


@pytest.mark.parametrize(("text", "mode", "why"), PROGRAMS.values(), ids=PROGRAMS)
def test_a_command_that_cannot_be_run_is_found_before_anything_is_paid(
    openai_spool: Spool, text: str | None, mode: int, why: str
) -> None:
    spool = openai_spool
    if text is not None:
        script(spool, text, mode)
    spool.set(events=[{"types": ["task.completed"], "command": ["./tell"]}])
    spool.fill(1)
    for report in (spool.preview(), spool.dispatch()):
        assert report.exit_code == EX_CONFIG
        assert report.problems[0].message.startswith("workloads.echo.events.0.command: ")
        assert why in report.problems[0].message
    assert spool.control.billing()["requests"] == 0
    script(spool, f"#!/usr/bin/env sh\ncat >> {spool.folder}/told\n")
    spool.round()
    assert (spool.folder / "told").exists()


def test_what_runs_elsewhere_is_none_of_its_business(openai_spool: Spool) -> None:
    """A name in PATH, a program with arguments, one that may be run and not be read."""
    spool = openai_spool
    for command in (["true"], ["/bin/sh", "-c", "no-such-program; true"]):
        spool.set(events=[{"types": ["task.completed"], "command": command}])
        assert spool.dispatch().problems == []
    spool.set(events=[{"types": ["task.completed"], "command": ["no-such-program"]}])
    spool.fill(1)
    assert "no such program in PATH" in spool.dispatch().problems[0].message


@pytest.mark.parametrize("secret", [None, "", "not base64!"])
def test_a_webhook_without_a_secret_is_found_before_anything_is_paid(openai_spool: Spool, secret: str | None) -> None:
    if secret is not None:
        (openai_spool.folder / "hook.key").write_text(secret)
    hook = {"types": ["task.completed"], "webhook": "http://127.0.0.1:9/", "secret_file": "hook.key"}
    openai_spool.set(events=[hook])
    openai_spool.fill(1)
    report = openai_spool.dispatch()
    assert report.exit_code == EX_CONFIG
    assert report.problems[0].message.startswith("workloads.echo.events.0.secret_file: ")
    assert openai_spool.control.billing()["requests"] == 0


class Told(BaseException):
    """The process was told to stop."""


def told(*_: object) -> None:
    """Be the handler of a signal, or whatever is called when one comes."""
    raise Told


def taken(spool: Spool, source: enqueue.Source, rejects: enqueue.Rejects | None = None) -> None:
    """Enqueue a source, and be told to stop meanwhile."""
    config = load(spool.path)
    with State(config.state) as state, pytest.raises(Told):
        enqueue.run(state, config.workloads["echo"], dialect(spool.protocol), [source], rejects=rejects)


def give(pipe: int, pieces: Sequence[bytes]) -> None:
    """Write pieces into a pipe, each a while after the one before was read; then tell this process to stop."""
    for n, piece in enumerate(pieces):
        time.sleep(1.2 if n else 0)
        os.write(pipe, piece)
        while any(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))):
            time.sleep(0.01)
    time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGALRM)


@pytest.mark.parametrize(
    ("csv", "pieces"),
    [
        (False, [b'{"id":1,"text":"a"}\n{"id":2,"text":"b"}\n{"id":3,"text":"c"}\n{"id":4']),
        (False, [b'{"id":1,"text":"a"}\n{"id":2,"text":"b"}\n', b'{"id":3,"text":"c"}\n{"id":4']),
        (True, [b"id,text\n1,a\n2,b\n3,c\n4,cu"]),
    ],
)
def test_told_to_stop_while_a_pipe_pauses_what_it_gave_whole_is_stored(
    openai_spool: Spool, csv: bool, pieces: list[bytes]
) -> None:
    before = signal.signal(signal.SIGALRM, told)
    reader, writer = os.pipe()
    giver = threading.Thread(target=give, args=(writer, pieces))
    with open(reader, "rb") as stream:
        giver.start()
        taken(openai_spool, enqueue.Source("-", stream, csv=csv))
    giver.join()
    os.close(writer)
    signal.signal(signal.SIGALRM, before)
    assert openai_spool.counts()["pending"] == 3


def test_told_to_stop_between_two_lines_what_was_taken_is_stored(openai_spool: Spool) -> None:
    lines_of = b'{"id":1,"text":"a"}\n{"id":2,"text":"b"}\n{"text":"c"}\n{"id":4,"text":"d"}\n'
    taken(openai_spool, enqueue.Source("in", io.BytesIO(lines_of)), told)
    assert openai_spool.counts()["pending"] == 2


def test_told_to_stop_while_it_commits_the_commit_is_done_again(
    openai_spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = tasks.insert

    def once(*arguments: Any) -> None:
        monkeypatch.setattr(tasks, "insert", insert)
        insert(*arguments)
        raise Told

    monkeypatch.setattr(tasks, "insert", once)
    taken(openai_spool, enqueue.Source("in", io.BytesIO(b'{"id":1,"text":"a"}\n')))
    assert openai_spool.counts()["pending"] == 1
