"""What makes two lines the same: what they say, not how it is written; an upgrade changes nothing of it."""

import hashlib
import io
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import nura_cli
from nura_cli import config as configuration
from nura_cli.dialects.vendors import dialect
from nura_cli.pipeline import enqueue
from nura_cli.pipeline.sameness import same
from nura_cli.state import State
from tests.conftest import STANDING, Spool
from tests.layouts import make_earlier

FIRST = '{"id": 1, "text": "café / x", "meta": {"a": 19.90, "b": [1, null]}}'.encode()
SAME = [
    b'{"id":1,"text":"caf\\u00e9 \\/ x","meta":{"a":19.90,"b":[1,null]}}',
    b'{"meta": {"b": [1,null], "a": 19.90}, "text": "caf\\u00E9 / x", "id": 1}',
    b'{"id": 1, "text": "old", "text": "caf\xc3\xa9 / x", "meta": {"a": 19.90, "b": [1, null]}}',
]
OTHER = [
    b'{"id":1,"text":"caf\\u00e9 / x","meta":{"a":19.9,"b":[1,null]}}',
    b'{"id":1,"text":"caf\\u00e9 / x","meta":{"a":19.90,"b":[1.0,null]}}',
    b'{"id":1,"text":"caf\\u00e9 / x","meta":{"a":19.90,"b":[null,1]}}',
    b'{"id":1,"text":"caf\\u00e9 / x","meta":{"a":19.90,"b":[1,null]},"c":null}',
    b'{"id":1,"text":"caf\\u00e9 / x","meta":{"a":"19.90","b":[1,null]}}',
    b'{"id":"1","text":"caf\\u00e9 / x","meta":{"a":19.90,"b":[1,null]}}',
]


def counted(report: Any) -> dict[str, int]:
    """Return what a run of enqueue counted, without what it did not."""
    names = ("enqueued", "duplicates", "conflicts", "replaced", "rejected")
    return {name: report.result[name] for name in names if report.result[name]}


@pytest.mark.parametrize("again", SAME)
def test_spaces_order_and_escapes_make_no_other_record(spool: Spool, again: bytes) -> None:
    spool.enqueue(FIRST)
    assert counted(spool.enqueue(again)) == {"duplicates": 1}
    assert counted(spool.enqueue(again, replace=True)) == {"duplicates": 1}
    assert counted(spool.enqueue(again, FIRST, again)) == {"duplicates": 3}
    assert spool.rows("SELECT line FROM records") == [(FIRST,)]


def test_within_one_input_likewise(spool: Spool) -> None:
    assert counted(spool.enqueue(FIRST, *SAME, OTHER[0])) == {"enqueued": 1, "duplicates": 3, "conflicts": 1}


@pytest.mark.parametrize("other", OTHER)
def test_other_content_is_a_conflict_and_a_number_counts_by_its_text(spool: Spool, other: bytes) -> None:
    spool.enqueue(FIRST)
    assert counted(spool.enqueue(other)) == {"conflicts": 1}
    assert counted(spool.enqueue(other, replace=True)) == {"replaced": 1}


@pytest.mark.parametrize(
    ("one", "other", "are"),
    [
        ("1e2", "100", False),
        ("1e2", "1.0e2", False),
        ("0", "-0", False),
        ("18446744073709551616", "18446744073709551617", False),
        ("18446744073709551616", "18446744073709551616", True),
        ("1E+16", "1e16", True),
        ("1e-05", "1e-5", True),
        ("1e-5", "1e5", False),
        ('"1e2"', "1e2", False),
    ],
)
def test_numbers(one: str, other: str, are: bool) -> None:
    assert same(b'{"a":[%s]}' % one.encode(), b'{ "a" : [%s] }' % other.encode()) is are


def test_a_line_nested_to_the_limit_is_compared_by_its_bytes() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    assert same(deep, deep)
    assert not same(deep, deep + b" ")


def test_a_line_is_looked_at_once_and_then_known_by_its_digest(spool: Spool) -> None:
    spool.enqueue(FIRST)
    spool.enqueue(SAME[0])
    assert spool.rows(f"SELECT digest FROM {STANDING}") == [(hashlib.blake2b(SAME[0], digest_size=16).digest(),)]


def test_the_digest_of_an_earlier_release_makes_no_conflict_and_sends_nothing_again(spool: Spool) -> None:
    make_earlier(spool.state_path)
    spool.enqueue(FIRST)
    spool.settle()
    with sqlite3.connect(spool.state_path) as db:
        db.execute("UPDATE keys SET digest = x'00'")
    assert counted(spool.enqueue(SAME[1], replace=True)) == {"duplicates": 1}
    assert spool.dispatch().result["requests"] == 0
    assert spool.rows(f"SELECT length(digest) FROM {STANDING}") == [(16,)]
    assert counted(spool.enqueue(OTHER[0])) == {"conflicts": 1}


def test_ready_lines_are_compared_by_what_is_sent(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.workloads["raw"] = {"provider": "main"}
    spool.write_config()
    body = {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "é"}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    spool.enqueue(line, workload="raw")
    turned = json.dumps({**dict(reversed(line.items())), "body": dict(reversed(body.items()))}, indent=None)
    assert counted(spool.enqueue(turned.encode(), workload="raw")) == {"duplicates": 1}
    assert counted(spool.enqueue({**line, "url": "/v1/responses"}, workload="raw")) == {"conflicts": 1}
    assert counted(spool.enqueue({**line, "body": {**body, "n": 2}}, workload="raw")) == {"conflicts": 1}


def test_files_sources_and_python_agree(spool: Spool, tmp_path: Path) -> None:
    record = {"id": 1, "text": "café / “x”", "n": 1e16, "tiny": 1e-07, "none": None}
    with sqlite3.connect(tmp_path / "app.db") as db:
        db.execute("CREATE TABLE t (id INTEGER, text TEXT, n REAL, tiny REAL, none TEXT)")
        db.execute("INSERT INTO t VALUES (:id, :text, :n, :tiny, :none)", record)
    spool.databases["app"] = {"url": f"sqlite:///{tmp_path / 'app.db'}"}
    spool.set(source={"database": "app", "query": "SELECT none, tiny, n, text, id FROM t"})
    assert nura_cli.enqueue("echo", [record], config=spool.path)["enqueued"] == 1
    assert counted(spool.enqueue(json.dumps(record, ensure_ascii=False, indent=None).encode())) == {"duplicates": 1}
    config = configuration.load(spool.path)
    with State(config.state) as state:
        workload = config.workloads["echo"]
        source = enqueue.from_source(workload, config)
        assert counted(enqueue.run(state, workload, dialect(spool.protocol), [source])) == {"duplicates": 1}
        again = enqueue.Source("-", io.BytesIO(json.dumps(record).encode()))
        assert counted(enqueue.run(state, workload, dialect(spool.protocol), [again])) == {"duplicates": 1}
    assert nura_cli.enqueue("echo", [record], config=spool.path)["duplicates"] == 1
