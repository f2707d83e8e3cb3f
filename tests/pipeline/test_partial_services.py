"""Services that have only a part of the protocol, or another word or order for it; and those that drip."""

import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nura_cli.pipeline import spool as spooling
from nura_cli.providers import wire
from nura_cli.sandbox import Sandbox
from tests.conftest import Spool

pytestmark = pytest.mark.long

QUARTER = 15 * 60 + 1
HOUR = 3600
DAY = 24 * HOUR
ABSENT = (404, 405, 501)


def said(report: Any) -> str:
    """Return all that a run had to say."""
    return "\n".join(found.line for found in report.problems)


@contextmanager
def answering(status: int) -> Iterator[str]:
    """Yield the address of a server that answers every GET with this status, and nothing else."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/store"
        server.shutdown()


@pytest.mark.parametrize("status", ABSENT)
def test_without_a_list_nothing_is_sent_and_what_was_sent_comes_home(spool: Spool, status: int) -> None:
    spool.fill(2)
    spool.dispatch()
    spool.control.fault("status", "list", status=status, times=-1)
    spool.enqueue({"id": 9, "text": "record number 9"})
    report = spool.dispatch()
    assert "has no list of batches" in said(report)
    assert "nothing is sent there" in said(report)
    assert all(found.lasting for found in report.problems)  # said once, and again each `remind`
    assert not any(row["route"] == "upload" for row in spool.control.log()[-3:])
    spool.poll()
    spool.reconcile()
    assert (spool.counts()["completed"], spool.counts()["pending"]) == (2, 1)
    assert spool.control.billing()["accepted"] == 1


def test_a_create_that_cannot_be_looked_for_is_held_for_a_person(spool: Spool) -> None:
    spool.fill(2)
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    gone = spool.control.fault("status", "list", status=404, times=-1)
    for _ in range(4):
        spool.clock.advance(QUARTER)
        spool.dispatch()
    (need,) = spool.status()["attention"]
    assert "has no list of batches" in need["message"]
    assert "nura resolve 1" in need["hint"]
    spool.control.clear(gone)
    spool.settle()
    assert (spool.control.billing()["accepted"], spool.counts()["completed"]) == (1, 2)


@pytest.mark.parametrize("status", ABSENT)
@pytest.mark.parametrize("batches", [1, 4])
def test_without_single_batches_the_list_is_gone_by(spool: Spool, status: int, batches: int) -> None:
    spool.providers["main"] = spool.provider(limits={"requests": 1}, on_lost="resend")
    spool.write_config()
    spool.control.settings(delay=2 * HOUR)
    spool.control.fault("status", "retrieve", status=status, times=-1)
    spool.fill(batches)
    spool.dispatch()
    assert spool.poll().problems == []  # so soon after a create it may pass
    spool.clock.advance(HOUR)
    report = spool.poll()
    assert "its list is gone by" in said(report)
    assert (report.exit_code, len(report.problems), report.problems[0].lasting) == (0, 1, True)
    spool.settle()
    assert spool.counts()["completed"] == batches
    assert spool.control.billing()["accepted"] == batches


def hearsay(spool: Spool, word: str, status: int, times: int = -1) -> None:
    """Send a batch that works for two hours, and that only a list tells of, in this word."""
    spool.control.settings(delay=2 * HOUR)
    spool.fill(3)
    spool.dispatch()
    spool.control.fault("status", "retrieve", status=status, times=times)
    spool.control.fault("other_status", word=word, where="list")


@pytest.mark.parametrize("word", ["failed", "cancelled"])
@pytest.mark.parametrize("status", ABSENT)
def test_what_only_a_list_says_to_have_come_to_nothing_is_not_believed_on_one_look(
    openai_spool: Spool, status: int, word: str
) -> None:
    spool = openai_spool
    hearsay(spool, word, status)
    for seconds in (1, 60, 300):  # not a quarter of an hour, however many looks
        spool.clock.advance(seconds)
        assert "it is looked for again" in said(spool.poll())
        spool.reconcile()
        assert spool.batches() == [(1, "submitted")]
    spool.control.clear()
    spool.settle()
    assert (spool.control.billing()["accepted"], spool.counts()["completed"]) == (1, 3)


def test_a_batch_that_passes_for_unknown_once_is_asked_after_by_itself_again(openai_spool: Spool) -> None:
    spool = openai_spool
    hearsay(spool, "failed", 404, times=1)
    spool.poll()
    spool.clock.advance(QUARTER)
    assert spool.poll().problems == []
    assert spool.batches() == [(1, "submitted")]


def test_what_was_taken_for_refused_by_a_list_is_followed(openai_spool: Spool) -> None:
    spool = openai_spool
    hearsay(spool, "failed", 405)
    spool.poll()
    spool.clock.advance(QUARTER)
    for _ in range(2):
        spool.poll()
        spool.reconcile()
    assert spool.batches() == [(1, "failed")]
    assert spool.counts()["pending"] == 3
    assert [row["status"] for row in spool.control.log() if row["route"] == "cancel"][:1] == [200]
    spool.control.clear()
    spool.settle()
    assert spool.counts()["completed"] == 3
    spool.poll()
    spool.reconcile()
    assert spool.rows("SELECT count(*) FROM strays WHERE counted_at IS NULL") == [(0,)]


def test_what_a_batch_cost_that_a_list_called_refused_is_counted(openai_spool: Spool) -> None:
    spool = openai_spool
    hearsay(spool, "failed", 405)
    spool.control.fault("status", "cancel", status=405, times=-1)
    spool.poll()
    spool.clock.advance(QUARTER)
    spool.poll()
    spool.reconcile()
    spool.control.clear()
    spool.clock.advance(2 * HOUR)
    spool.poll()
    spool.reconcile()
    assert spool.rows("SELECT outcome, count(*) FROM attempts WHERE cost > 0") == [("late", 3)]
    spool.settle()
    assert (spool.control.billing()["requests"], spool.counts()["completed"]) == (6, 3)


def test_what_was_seen_taken_is_not_refused_by_a_list(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.control.settings(delay=20 * HOUR)
    spool.fill(3)
    spool.dispatch()
    spool.clock.advance(HOUR)
    spool.poll()
    assert spool.rows("SELECT validated_at IS NOT NULL FROM batches") == [(1,)]
    hidden = [spool.control.fault("status", "retrieve", status=404, times=-1)]
    hidden += [spool.control.fault("other_status", word="failed", where="list")]
    for _ in range(3):
        spool.poll()
        spool.clock.advance(QUARTER)
    (need,) = spool.status()["attention"]
    assert "says failed on its list" in need["message"]
    assert "nura resolve 1" in need["hint"]
    for fault in hidden:
        spool.control.clear(fault)
    spool.settle()
    assert (spool.control.billing()["accepted"], spool.counts()["completed"]) == (1, 3)


def test_a_person_adopts_without_single_batches_too(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.providers["main"] = spool.provider(on_unconfirmed="hold")
    spool.write_config()
    spool.fill(2)
    spool.control.fault("drop_after", "create")
    spool.control.fault("status", "retrieve", status=405, times=-1)
    spool.dispatch()
    spool.clock.advance(QUARTER)
    spool.dispatch()
    (made,) = spool.control.batches()
    spool.resolve("1", adopt=made["id"])
    spool.settle()
    assert (spool.control.billing()["accepted"], spool.counts()["completed"]) == (1, 2)


@pytest.mark.parametrize("status", ABSENT)
def test_an_endpoint_that_is_missing_makes_no_batch_lost(spool: Spool, status: int) -> None:
    """Neither a list nor single batches, for days, where what is lost may be sent again: it stays where it is."""
    spool.providers["main"] = spool.provider(on_lost="resend")
    spool.write_config()
    spool.fill(2)
    spool.dispatch()
    gone = [spool.control.fault("status", route, status=status, times=-1) for route in ("list", "retrieve")]
    for _ in range(6):
        spool.clock.advance(DAY)
        spool.round()
    assert spool.batches() == [(1, "submitted")]
    assert "nura resolve 1" in spool.status()["attention"][0]["hint"]
    for fault in gone:
        spool.control.clear(fault)
    spool.settle()
    assert (spool.control.billing()["accepted"], spool.counts()["completed"]) == (1, 2)


@pytest.mark.parametrize("status", [405, 500])
@pytest.mark.parametrize("listed", [True, False])
def test_a_wish_to_cancel_is_passed_on_without_single_batches(spool: Spool, listed: bool, status: int) -> None:
    spool.control.settings(delay=20 * HOUR)
    spool.fill(2)
    spool.dispatch()
    spool.control.fault("status", "retrieve", status=status, times=-1)
    if not listed:
        spool.control.fault("hide", seconds=10**9)
    spool.control.fault("status", "cancel", status=409, times=1)
    spool.cancel(batch=1)
    spool.clock.advance(HOUR)
    spool.poll()
    assert [row["status"] for row in spool.control.log() if row["route"] == "cancel"] == [409, 200]
    spool.control.clear()
    spool.settle()
    assert spool.counts()["cancelled"] == 2


@pytest.mark.parametrize("status", [405, 501])
def test_a_gateway_that_refuses_downloads_for_a_while_makes_nothing_lost(spool: Spool, status: int) -> None:
    spool.providers["main"] = spool.provider(on_lost="resend")
    spool.write_config()
    gateway = spool.control.fault("status", "download", status=status, times=-1)
    spool.fill(3)
    spool.dispatch()
    for _ in range(3):
        assert f"HTTP {status}" in said(spool.poll())
        spool.clock.advance(QUARTER)
    spool.clock.advance(DAY + HOUR)
    spool.poll()
    (need,) = spool.status()["attention"]  # past its time a person may decide
    assert "nura resolve 1 --resend" in need["hint"]
    spool.control.clear(gateway)
    spool.settle()
    assert (spool.control.billing()["requests"], spool.counts()["completed"]) == (3, 3)


@pytest.mark.parametrize("status", [404, 405])
def test_a_store_that_does_not_have_what_a_download_was_sent_to_makes_nothing_lost(spool: Spool, status: int) -> None:
    spool.providers["main"] = spool.provider(on_lost="resend")
    spool.write_config()
    with answering(status) as store:
        away = spool.control.fault("redirect", "download", to=store, status=302, times=-1)
        spool.fill(3)
        spool.dispatch()
        for _ in range(3):
            assert f"redirected to 127.0.0.1, HTTP {status}" in said(spool.poll())
            spool.clock.advance(QUARTER)
    spool.control.clear(away)
    spool.settle()
    assert (spool.control.billing()["requests"], spool.counts()["completed"]) == (3, 3)


def test_past_its_time_what_an_unknown_word_names_comes_home(spool: Spool) -> None:
    spool.fill(3)
    spool.control.fault("other_status", word="sealed")
    spool.dispatch()
    spool.poll()
    assert spool.batches() == [(1, "submitted")]  # before that it may be at work
    spool.clock.advance(DAY + 60)
    report = spool.poll()
    assert report.problems == []
    spool.reconcile()
    assert spool.counts()["completed"] == 3
    assert spool.control.billing()["accepted"] == 1


@pytest.mark.parametrize("on_lost", ["hold", "resend"])
def test_what_an_unknown_word_does_not_name_is_not_sent_again_by_itself(spool: Spool, on_lost: str) -> None:
    spool.providers["main"] = spool.provider(on_lost=on_lost)
    spool.write_config()
    spool.fill(4)
    spool.control.fault("other_status", word="sealed")
    spool.control.fault("missing", custom_ids=[], match="record number 2")
    spool.dispatch()
    spool.clock.advance(DAY + 60)
    report = spool.poll()
    assert "says sealed, which nobody knows, and 1 request has no result" in said(report)
    spool.reconcile()
    assert spool.counts()["completed"] == 3
    for _ in range(30):
        spool.clock.advance(HOUR)
        spool.round()
    assert spool.control.billing()["accepted"] == 1
    assert "nura resolve 1" in spool.status()["attention"][0]["hint"]


def test_a_wish_to_cancel_is_passed_on_though_what_an_unknown_word_names_came_home(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(4)
    spool.control.fault("other_status", word="sealed")
    spool.control.fault("missing", custom_ids=[], match="record number 2")
    spool.dispatch()
    spool.clock.advance(DAY + 60)
    spool.poll()
    spool.reconcile()
    spool.control.fault("status", "cancel", status=500)
    spool.cancel(batch=1)
    spool.clock.advance(HOUR)
    spool.poll()
    assert [row["status"] for row in spool.control.log() if row["route"] == "cancel"] == [500, 409]
    assert (spool.counts()["completed"], spool.counts()["submitted"]) == (3, 1)


@pytest.mark.parametrize("word", ["in_progress", "Running"])
def test_what_is_said_to_run_is_not_taken_for_done_because_it_names_a_file(openai_spool: Spool, word: str) -> None:
    spool = openai_spool
    spool.fill(3)
    spool.control.fault("other_status", word=word)
    spool.dispatch()
    spool.clock.advance(DAY + HOUR + 60)
    spool.poll()
    assert spool.batches() == [(1, "submitted")]
    assert word in spool.status()["attention"][0]["message"]


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_results_in_another_order_each_time_come_home(spool: Spool, framing: str) -> None:
    spool.fill(12)
    spool.control.fault("shuffled")
    spool.control.fault("framing", "download", framing=framing, times=-1)
    assert [report.exit_code for report in spool.round()] == [0, 0, 0]
    assert spool.counts()["completed"] == 12
    spool.check()


def test_two_files_are_alike_if_their_lines_are(tmp_path: Path) -> None:
    def lines(text: bytes) -> tuple[int, int]:
        (tmp_path / "x").write_bytes(text)
        return spooling.all_lines(tmp_path / "x")

    a, b = b'{"custom_id":"a","x":1}', b'{"custom_id":"b"}'
    assert lines(a + b"\n" + b) == lines(b + b"\n\n" + a + b"\r\n") == lines(a + b + b"\n")
    for other in (a, a + b"\n" + a + b"\n" + b, a + b"\n" + b'{"custom_id":"c"}', a + b"\n" + b[:-3]):
        assert lines(other) != lines(a + b"\n" + b)


@pytest.mark.parametrize("part", ["head", "body"])
@pytest.mark.parametrize("route", ["list", "retrieve", "download"])
def test_a_provider_that_drips_does_not_hold_the_other_one(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, route: str, part: str
) -> None:
    for name in ("READ_SECONDS", "SEND_SECONDS"):
        monkeypatch.setattr(wire, name, 0.5)
    with Sandbox(tmp_path / "slow.db") as slow:
        slow.control.advance(spool.clock.time - slow.control.settings()["now"])
        base = slow.openai_base_url if spool.protocol == "openai" else slow.anthropic_base_url
        spool.providers = {"dripping": spool.provider(base_url=base, limits={"requests": 1}), "main": spool.provider()}
        spool.workloads = {"dripped": spool.workload(provider="dripping"), "echo": spool.workload()}
        spool.write_config()
        n = 2 if route == "retrieve" else 6  # of so few a list would not pay
        spool.fill(n, "dripped")
        spool.fill(2)
        spool.dispatch()
        slow.control.fault("drip", route, part=part, seconds=0.2, times=-1)
        began = time.monotonic()
        report = spool.poll()
        assert time.monotonic() - began < 8
        assert "dripping" in said(report)
        spool.reconcile()
        assert spool.counts()["completed"] >= 2
        slow.control.clear()
        for _ in range(3):
            spool.round()
        assert spool.counts()["completed"] == n + 2
        assert slow.control.billing()["accepted"] == n
