"""Result lines that are too long to be read into memory."""

import hashlib
import io
import json
from pathlib import Path

import pytest

from nura_cli.pipeline import aside
from nura_cli.providers.base import Download
from nura_cli.providers.openai import OpenAIProvider
from tests.conftest import Spool

MOST = 20_000
LONG = "word " * 8000
QUARTER = 15 * 60 + 1


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let lines be long that are quickly made, and longer than a piece."""
    monkeypatch.setattr(aside, "MOST_BYTES", MOST)
    monkeypatch.setattr(aside, "_PIECE_BYTES", 4096)


def sent(spool: Spool) -> None:
    """Send three requests, of which the second has a long answer, and let them end."""
    spool.control.fault("patch", times=-1, match="record number 1", body={"image": LONG})
    spool.fill(3)
    spool.dispatch()
    spool.clock.advance(60)


def kept(spool: Spool) -> list[Path]:
    """Return what is set aside."""
    return sorted((spool.folder / "nura.db.spool" / "aside").iterdir())


def test_a_line_that_is_too_long_is_set_aside_whole_and_its_task_fails_alone(spool: Spool) -> None:
    sent(spool)
    spool.poll()
    report = spool.reconcile()
    assert spool.counts() | {"completed": 2, "failed": 1} == spool.counts()
    (failed,) = spool.results(statuses=["failed"])
    (file,) = kept(spool)
    assert failed["error"]["code"] == "answer_too_large"
    assert f"kept whole in {file}" in failed["error"]["message"]
    assert (failed["cost"], failed["attempts"], failed["key"]) == (None, 1, 1)
    assert "1 task failed" in report.problems[0].message
    assert LONG in json.dumps(json.loads(file.read_bytes()))
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    spool.settle()
    spool.poll()
    assert kept(spool) == [file]  # no stage sweeps it
    assert spool.control.billing()["requests"] == 3
    spool.check()


def test_a_custom_id_at_the_end_of_a_long_line_is_found_and_that_of_somebody_else_in_it_is_not_believed(
    openai_spool: Spool,
) -> None:
    spool = openai_spool
    spool.control.fault("late_id", match="record number 1")
    sent(spool)
    spool.poll()
    spool.reconcile()
    (failed,) = spool.results(statuses=["failed"])
    assert (failed["key"], failed["error"]["code"]) == (1, "answer_too_large")


@pytest.mark.parametrize("on_lost", ["hold", "resend"])
def test_a_long_line_that_names_no_request_is_kept_and_nothing_is_paid_for_again(spool: Spool, on_lost: str) -> None:
    spool.providers["main"] = spool.provider(on_lost=on_lost)
    spool.write_config()
    spool.control.fault("renamed", match="record number 1")
    sent(spool)
    said = spool.poll()
    assert len(kept(spool)) == 1
    assert any("names no request, and is kept in" in one.message for one in said.problems)
    for _ in range(30):
        spool.reconcile()
        spool.clock.advance(3600)
        spool.dispatch()
        spool.poll()
    assert spool.counts()["completed"] == 2
    assert spool.control.billing()["requests"] == 3
    (need,) = spool.status()["attention"]
    assert "names no request" in need["message"]
    assert "nura resolve" in need["hint"]
    spool.control.fault("status", "retrieve", status=404, times=-1)
    spool.control.fault("hide", seconds=10**9)
    for _ in range(4):  # not even once the provider has forgotten it
        spool.clock.advance(13 * 3600)
        spool.round()
    assert spool.batches() == [(1, "submitted")]


def test_a_download_that_is_repeated_sets_the_same_file_aside(spool: Spool) -> None:
    sent(spool)
    spool.poll()
    (before,) = kept(spool)
    content = before.read_bytes()
    for path in (spool.folder / "nura.db.spool" / "results").iterdir():
        path.write_bytes(b"damaged")
    spool.reconcile()
    before.unlink()
    spool.poll()
    assert [path.read_bytes() for path in kept(spool)] == [content]
    spool.reconcile()
    assert spool.counts()["completed"] == 2


def test_what_comes_in_another_order_each_time_is_kept_once(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.control.fault("shuffled", times=-1)
    spool.control.fault("missing", match="record number 5")
    spool.control.fault("renamed", match="record number 1")
    spool.control.fault("patch", times=-1, match="record number 1", body={"image": LONG})
    spool.fill(9)
    spool.dispatch()
    spool.clock.advance(60)
    for _ in range(6):
        spool.round()
        spool.clock.advance(3600)
    assert len(kept(spool)) == 1


def test_what_was_half_set_aside_by_a_killed_run_is_swept_and_nothing_else(spool: Spool) -> None:
    sent(spool)
    spool.poll()
    (file,) = kept(spool)
    file.with_name(file.name + ".part").write_bytes(b"{")
    spool.poll()
    assert kept(spool) == [file]


def left_by_an_earlier_release(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let results lie in the spool with a long line among them, which the provider then no longer has."""
    with monkeypatch.context() as before:
        before.setattr(aside, "MOST_BYTES", 1 << 27)
        sent(spool)
        spool.poll()
    spool.control.fault("status", "download", status=404, times=-1)


def test_results_that_an_earlier_release_left_in_the_spool_are_taken_apart_where_they_lie(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_by_an_earlier_release(spool, monkeypatch)
    spool.poll()  # it sweeps the spool
    spool.reconcile()
    assert spool.batches() == [(1, "reconciled")]
    assert spool.counts() | {"completed": 2, "failed": 1} == spool.counts()
    (failed,) = spool.results(statuses=["failed"])
    (file,) = kept(spool)
    assert f"kept whole in {file}" in failed["error"]["message"]
    assert LONG in json.dumps(json.loads(file.read_bytes()))
    spool.check()


def test_a_run_killed_while_it_takes_them_apart_is_done_again(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    left_by_an_earlier_release(spool, monkeypatch)

    def killed(*_: object) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as before:
        before.setattr(aside, "note", killed)
        with pytest.raises(KeyboardInterrupt):
            spool.reconcile()
    spool.poll()
    spool.reconcile()
    assert spool.counts() | {"completed": 2, "failed": 1} == spool.counts()
    assert len(kept(spool)) == 1


def test_where_a_long_line_in_them_names_no_request_nothing_is_sent_again(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.control.fault("renamed", match="record number 1")
    left_by_an_earlier_release(spool, monkeypatch)
    for _ in range(30):
        spool.reconcile()
        spool.clock.advance(3600)
        spool.dispatch()
        spool.poll()
    assert spool.counts()["completed"] == 2
    assert len(kept(spool)) == 1
    assert spool.control.billing()["requests"] == 3
    (need,) = spool.status()["attention"]
    assert "nura resolve" in need["hint"]


RESULTS = [json.dumps({"custom_id": f"tag-{n}", "a": 'x {"} \\" ' * 300}).encode() for n in range(9)]


@pytest.mark.parametrize("piece", [7, 64, 4096])
@pytest.mark.parametrize(
    ("before", "between", "after"),
    [(b"", b"\r", b""), (b"[", b", ", b"]"), (b"[ ", b",\r", b" ]\r"), (b"data: ", b"\rdata: ", b"\rdata: [DONE]")],
)
def test_results_that_stand_in_one_line_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, piece: int, before: bytes, between: bytes, after: bytes
) -> None:
    monkeypatch.setattr(aside, "_PIECE_BYTES", piece)
    line = before + between.join(RESULTS) + after
    found = aside.results(io.BytesIO(b"else\n" + line), aside.Long(5, 5 + len(line)))
    assert [line[one.start - 5 : one.end - 5] for one in found] == RESULTS


@pytest.mark.parametrize(
    "line", [RESULTS[0], RESULTS[0] + b"\r" + RESULTS[1][:-1], b"x" + RESULTS[0], RESULTS[0] + b"}" + RESULTS[1], b"x"]
)
def test_anything_else_in_a_line_is_left_as_it_is(line: bytes) -> None:
    whole = aside.Long(0, len(line))
    assert aside.results(io.BytesIO(line), whole) == [whole]


@pytest.mark.parametrize("shape", ["array", "cr"])
def test_a_whole_batch_in_one_long_line_comes_home(
    openai_spool: Spool, monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    spool = openai_spool
    download = OpenAIProvider.download

    def in_one_line(self: OpenAIProvider, part: str, target: Path) -> Download:
        download(self, part, target)
        lines = target.read_bytes().splitlines()
        data = b"[" + b",".join(lines) + b"]" if shape == "array" else b"\r".join(lines)
        target.write_bytes(data)
        return Download(len(data), len(data), hashlib.sha256(data).hexdigest())

    monkeypatch.setattr(OpenAIProvider, "download", in_one_line)
    monkeypatch.setattr(aside, "MOST_BYTES", 2000)
    spool.fill(20)
    spool.settle()
    assert spool.counts()["completed"] == 20
    assert spool.control.billing()["requests"] == 20


def test_an_extra_batch_with_a_long_line_costs_what_nobody_knows(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.control.fault("twice", "create")
    sent(spool)
    for _ in range(4):
        spool.poll()
        spool.reconcile()
        spool.clock.advance(QUARTER)
    assert len(kept(spool)) == 2
    assert spool.rows("SELECT count(*) FROM attempts WHERE late = 1 AND cost IS NULL") == [(1,)]


@pytest.mark.parametrize("end", [b"\n", b""])
@pytest.mark.parametrize("lengths", [[5, MOST + 1, 7], [MOST, MOST + 1], [MOST + 1, MOST + 2], [9000] * 5, []])
def test_only_lines_beyond_the_bound_are_too_long(lengths: list[int], end: bytes) -> None:
    data = b"\n".join(b"x" * n for n in lengths) + (end if lengths else b"")
    found = aside.too_long(io.BytesIO(data))
    assert [data[one.start : one.end] for one in found] == [b"x" * n for n in lengths if n > MOST]


@pytest.mark.parametrize("place", [0, 4090, 4096, 8191, 15_000])
def test_a_custom_id_is_found_wherever_it_stands(place: int) -> None:
    line = b'{"a":"' + b"x" * place + b'","custom_id" : "tag-7","b":"' + b'\\"custom_id\\":\\"tag-8\\"' * 900 + b'"}'
    note = aside.note(io.BytesIO(line), aside.Long(0, len(line)), Path("kept"))
    found = aside.noted(note.strip())
    assert found is not None
    assert found.custom_ids == ["tag-7"]


@pytest.mark.parametrize(
    "line", [b"", b"{}", b'{"set_aside":3}', b'{"set_aside":', b'{"set_aside":"a","custom_id":"x"}']
)
def test_what_is_no_note_is_a_result_as_ever(line: bytes) -> None:
    assert aside.noted(line) is None
