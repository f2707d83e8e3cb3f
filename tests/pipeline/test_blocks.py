"""Lines that are read many at once are taken, and refused, as they are one by one."""

import gzip
import io
import itertools
import json
import random
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nura_cli import config as configuration
from nura_cli.dialects.vendors import dialect
from nura_cli.errors import InputError
from nura_cli.pipeline import enqueue, lines
from nura_cli.pipeline.lines import Line
from nura_cli.state import State
from tests.conftest import Spool

LIMIT = 400
RECORDS = [
    b'{"id": "a", "text": "x"}',
    b'{"id": "a", "text": "x"}\r',
    b'  {"text": "x", "id": "a"}\t',
    b'{"id": "a", "text": "other"}',
    b'{"id": 7, "text": "x"}',
    b'{"id": "7", "text": "x"}',
    b'{"id": 7.0, "text": "x"}',
    b'{"id": 7.5, "text": "x"}',
    b'{"id": 18446744073709551616, "text": "x"}',
    b'{"id": true, "text": "x"}',
    b'{"id": null, "text": "x"}',
    b'{"id": "", "text": "x"}',
    b'{"id": "qu\\"o\\\\te", "text": "x"}',
    b'{"id": "\\u00e9", "text": "x"}',
    '{"id": "é", "text": "x"}'.encode(),
    b'{"id": "\\u007f", "text": "x"}',
    b'{"id": "tab\\t", "text": "x"}',
    b'{"id": ["a", 1], "text": "x"}',
    b'{"id": [], "text": "x"}',
    b'{"id": {"$oid": "5"}, "text": "x"}',
    b'{"id": "%b", "text": "x"}' % (b"k" * 513),
    b'{"id": "once", "id": "twice", "text": "x"}',
    b'{"ID": "a", "text": "x"}',
    b'{"id": "a", "txt": "x"}',
    b'{"id": "n1", "text": "a NUL: \\u0000"}',
    b'{"id": "n2", "text": "none: \\\\u0000"}',
    b'{"id": "n3", "text": "\0"}',
    b'{"id": "s", "text": "\\ud800"}',
    b'{"id": "u", "text": "\xff"}',
    b'\xef\xbb\xbf{"id": "bom", "text": "x"}',
    b'{"id": "nan", "text": NaN}',
    b'{"id": "big", "text": 1e999}',
    b'{"id": "two", "text": "x"} {"id": "three", "text": "x"}',
    b'{"id": "four", "text": "x"},',
    b"[1",
    b"2]",
    b'["id", "text"]',
    b"7",
    b"null",
    b"{",
    b"{'id': 1}",
    b"",
    b" \t\r",
    b'{"id": "long", "text": "%b"}' % (b"x" * LIMIT),
    b'{"id": "padded", "text": "x"}' + b" " * LIMIT,
    b" " * (LIMIT + 5),
    b'{"id": "deep", "text": %b}' % (b"[" * 180 + b"]" * 180),
    *(b'{"id": "edge%d", "text": "%b"}' % (n, b"x" * (LIMIT - 25 + n)) for n in range(6)),
]
BODY = b'{"model": "m", "messages": []}'
READY = [
    b'{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": %b}' % BODY,
    b'{"custom_id": "a", "url": "/v1/chat/completions", "body": {"messages": [], "model": "m"}}\r',
    b'{"custom_id": "b", "url": "/v1/responses", "body": %b}' % BODY,
    b'{"custom_id": "c", "url": "/v1/responses", "body": {"model": "n"}, "more": "\xff"}',
    b'{"custom_id": "d", "url": "/v1/responses", "body": {"model": "n"}, "body": {"model": "o"}}',
    b'{"custom_id": "e", "url": "/v1/responses", "body": {"model": "n", "stream": true}}',
    b'{"custom_id": "f", "url": "/v1/responses", "body": {"model": 1}}',
    b'{"custom_id": "g", "url": "/v1/responses", "body": {"model": "n", "x": "\\u0000"}}',
    b'{"custom_id": "h", "url": "/v1/responses", "body": {"model": "n", "x": "\xff"}}',
    b'{"custom_id": "i", "url": "/v1/responses", "body": [{"model": "n"}]}',
    b'{"custom_id": "j", "url": "responses", "body": {"model": "n"}}',
    b'{"custom_id": "k", "method": "GET", "url": "/v1/responses", "body": {"model": "n"}}',
    b'{"custom_id": 5, "url": "/v1/responses", "body": {"model": "n"}}',
    b'{"custom_id": "", "url": "/v1/responses", "body": {"model": "n"}}',
    b'{"custom_id": "l", "url": "/v1/responses"}',
    b"{",
    b"",
    b'{"custom_id": "m", "url": "/v1/responses", "body": {"model": "n", "x": "%b"}}' % (b"x" * LIMIT),
]
KINDS = {"records": RECORDS, "raw": READY}


def small() -> Any:
    """Return OpenAI's dialect, with a bound that few lines keep to."""
    found = dialect("openai")
    bounds = {"limits": found.limits._replace(line_bytes=LIMIT)}
    return type("Small", (type(found),), bounds)()


def one_by_one(stream: BinaryIO, limit: int) -> Iterator[lines.Line]:
    """Yield the lines of a stream, each read by itself."""
    for number, data, whole in lines.pieces(stream, limit):
        data = data.strip(b" \t\r\n")
        if data:
            yield (
                lines.bounded(number, data, limit) if whole else lines.Line(number, data[:limit], lines.too_long(limit))
            )


@dataclass
class Singly:
    """An input of which each line is read by itself."""

    data: bytes
    name: str = "in"
    lasting: ClassVar[bool] = False

    def lines(self, limit: int, idle: enqueue.Idle) -> enqueue.Lines:
        """Yield its lines."""
        yield from one_by_one(io.BytesIO(self.data), limit)

    def place(self, line: Line) -> str:
        """Return where a line stands, as that of a file."""
        return f"in, line {line.number}"


def told(path: Path, workload: str, source: Any, **options: Any) -> tuple[Any, ...]:
    """Enqueue a source into an empty state file twice; return all that there is to know of it."""
    document = {
        "providers": {"box": {"kind": "sandbox"}},
        "workloads": {"records": {"provider": "box", "model": "m", "prompt": "{{ text }}"}, "raw": {"provider": "box"}},
    }
    (path / "nura.yaml").write_text(json.dumps(document))
    config = configuration.load(path / "nura.yaml")
    state_path, rejects = path / "nura.db", list[Any]()
    queries = (
        "SELECT workload_id, key, task_id, digest FROM keys ORDER BY 1, 2",
        "SELECT hash, task_id, digest FROM hashes ORDER BY 1, 2",
        "SELECT t.id, l.dialect, l.endpoint, l.model, t.status FROM tasks t JOIN lanes l ON l.id = t.lane_id ORDER BY 1",
        "SELECT task_id, key, line FROM records ORDER BY 1",
        "SELECT * FROM counts ORDER BY 1, 2, 3",
    )
    with State(path / "empty.db"):
        pass
    shutil.copy(path / "empty.db", state_path)  # keys are hashed as its secret says
    with State(state_path, lambda: 1) as state:
        reports = [
            enqueue.run(
                state, config.workloads[workload], small(), [given], rejects=lambda *one: rejects.append(one), **options
            )
            for given in (source(), source())
        ]
        found = [state.db.execute(query).fetchall() for query in queries]
    return [(report.result, report.problems) for report in reports], rejects, found


@pytest.mark.parametrize("workload", KINDS)
@pytest.mark.parametrize("size", [7, 64, 1000, lines.BLOCK_BYTES])
def test_odd_lines_among_good_ones_are_told_of_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workload: str, size: int
) -> None:
    monkeypatch.setattr(lines, "BLOCK_BYTES", size)
    chance = random.Random(size)
    odd = KINDS[workload]
    good = b'{"id":"good%d","text":"%b"}' if workload == "records" else READY[0].replace(b'"a"', b'"good%d%b"')
    mixed = [good % (n, b"" if workload == "raw" else b"y" * n) for n in range(30)] + odd + chance.sample(odd, len(odd))
    chance.shuffle(mixed)
    start = b"\xef\xbb\xbf" if size % 2 else b""
    data = start + good % (99, b"") + b"\n" + (b"\r\n" if size > 100 else b"\n").join(mixed)
    zipped = gzip.compress(data, 1)
    for options in {}, {"replace": True}, {"key_prefix": "p-"}:
        expected = told(tmp_path, workload, lambda: Singly(data), **options)
        assert expected[0][0][0]["enqueued"] > 30
        assert told(tmp_path, workload, lambda: enqueue.Source("in", io.BytesIO(data)), **options) == expected
        assert told(tmp_path, workload, lambda: enqueue.Source("in", io.BytesIO(zipped)), **options) == expected


@settings(max_examples=400)
@given(
    st.lists(
        st.sampled_from(["a", "bc", " ", "\r", "\n", "\n", "\ufeff", "x" * 9, "x" * 10, "x" * 12, "é"]), max_size=40
    ),
    st.integers(1, 30),
    st.integers(3, 30),
)
def test_a_stream_has_the_same_lines_whatever_is_read_at_once(parts: list[str], size: int, limit: int) -> None:
    data = "".join(parts).encode()
    expected = list(one_by_one(io.BytesIO(data), limit))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lines, "BLOCK_BYTES", size)
        assert list(lines.split(io.BytesIO(data), limit)) == expected
        assert list(lines.split(io.BufferedReader(io.BytesIO(data), 5), limit)) == expected


@given(st.text(max_size=20), st.sampled_from(["", "p"]))
def test_the_key_of_a_text_is_its_json(text: str, prefix: str) -> None:
    with suppress(InputError):
        assert lines.key_of(text, prefix) == (msgspec.json.encode(prefix + text).decode(), prefix + text)
        return
    assert not text or lines._CONTROL.search(text)


class Told(BaseException):
    """Somebody told the process to stop."""


@pytest.mark.parametrize("at", [1, 100, 1999])
def test_told_to_stop_within_a_block_what_was_read_is_stored_first(
    openai_spool: Spool, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    spool, good, calls = openai_spool, enqueue.Reader.good, itertools.count(1)

    def stopped(reader: enqueue.Reader, data: bytes) -> Any:
        if next(calls) == at:
            raise Told
        return good(reader, data)

    monkeypatch.setattr(enqueue.Reader, "good", stopped)
    given = io.BytesIO(b"".join(b'{"id":%d,"text":"x"}\n' % i for i in range(2000)))
    config = configuration.load(spool.path)
    with State(spool.state_path, spool.clock) as state, pytest.raises(Told):
        enqueue.run(state, config.workloads["echo"], dialect("openai"), [enqueue.Source("-", given)])
    assert spool.counts()["pending"] == 2000
