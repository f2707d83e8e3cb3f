"""What commands need of memory where what they read is large: the installed program, measured from outside."""

import json
import random
from pathlib import Path

import pytest

from nura_cli.pipeline import aside
from nura_cli.state import State
from tests.benchmarks.conftest import run
from tests.conftest import Spool
from tests.end_to_end.test_command_line import NURA

pytestmark = pytest.mark.long


def peak(spool: Spool, *arguments: str) -> float:
    """Return how many MB a command took at most."""
    return run(NURA, *arguments, cwd=spool.folder).peak_mb


def large_answers(spool: Spool, size: int) -> None:
    """Let all answers be so large."""
    document = {"model": "gpt-4.1-mini", "choices": [{"message": {"content": "x" * size}, "finish_reason": "stop"}]}
    with State(spool.state_path) as state, state.transaction() as db:
        db.execute("UPDATE answers SET body = ?", (json.dumps(document).encode(),))


def test_answers_of_some_megabytes_are_printed_one_page_at_a_time(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(60)
    spool.settle()
    base = peak(spool, "results", "--key", "0")
    large_answers(spool, 2_000_000)
    for options in (), ("--format", "openai"), ("--status", "completed", "--batch", "1"):
        assert peak(spool, "results", *options) < base + 80


def test_keys_in_no_order_are_enqueued_in_as_little_memory_as_others(openai_spool: Spool) -> None:
    n, spool = 120_000, openai_spool
    chance = random.Random(1)
    keys = [chance.getrandbits(63) for _ in range(n)]
    peaks = []
    for given in (keys[: n // 2], keys[n // 2 :]):
        records = spool.folder / "records.jsonl"
        records.write_text("".join(f'{{"id":"{key:020d}-{key}","text":"x"}}\n' for key in given))
        peaks.append(peak(spool, "enqueue", "echo", "records.jsonl"))
    assert max(peaks) < 120
    assert spool.counts()["pending"] == n


def test_a_line_beyond_the_bound_is_never_read_into_memory(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.control.fault("late_id", match="record number 1", bytes=aside.MOST_BYTES + 1)
    spool.fill(3)
    spool.dispatch()
    assert peak(spool, "poll") < 150
    (file,) = Path(spool.folder, "nura.db.spool", "aside").iterdir()
    assert file.stat().st_size > aside.MOST_BYTES
    spool.reconcile()
    assert spool.counts() | {"completed": 2, "failed": 1} == spool.counts()
