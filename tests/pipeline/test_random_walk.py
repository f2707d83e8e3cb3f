"""A random walk over the stages with faults, under one invariant: nothing accepted is lost, nothing is billed twice.

A bounded walk by default; ``NURA_WALK=200 pytest tests/pipeline/test_random_walk.py`` takes that many walks a protocol.
A failing walk prints the steps that lead to it, shortened by hypothesis, and its seed.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nura_cli.sandbox import Sandbox
from tests.conftest import Spool

WALKS = int(os.environ.get("NURA_WALK", "4"))
STEPS = 30
FAULTS: tuple[dict[str, Any], ...] = (
    {"what": "status", "route": "*", "status": 429, "retry_after": 30},
    {"what": "status", "route": "*", "status": 500},
    {"what": "html", "route": "*"},
    {"what": "html", "route": "create", "after": True},
    {"what": "drop_before", "route": "*"},
    {"what": "drop_after", "route": "*"},
    {"what": "drop_before", "route": "create"},
    {"what": "drop_after", "route": "create"},
    {"what": "truncate", "route": "download", "framing": "length"},
    {"what": "truncate", "route": "download", "framing": "chunked"},
    {"what": "truncate", "route": "download", "framing": "close"},
    {"what": "framing", "route": "download", "framing": "close"},
    {"what": "expire", "fraction": 0.5},
    {"what": "cancel", "fraction": 0.5},
    {"what": "rows", "fraction": 0.5, "status": 500},
    {"what": "rows", "fraction": 0.3, "status": 429},
    {"what": "rows", "fraction": 0.2, "status": 400},
    {"what": "missing", "fraction": 0.3},
    {"what": "duplicate", "fraction": 0.5},
    {"what": "foreign", "n": 2},
    {"what": "lost"},
    {"what": "invalid", "fraction": 0.4, "mode": "refusal"},
    {"what": "refuse", "code": "token_limit_exceeded", "message": "too much"},
    {"what": "refuse", "code": "invalid_request", "message": "bad"},
)


class Walk(RuleBasedStateMachine):
    """One spool on one sandbox, and whatever may happen to them."""

    protocol = "openai"

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="nura-walk-"))
        self.server = Sandbox(self.folder / "box.db").start()
        (self.folder / "nura").mkdir()
        self.spool = Spool(self.folder / "nura", self.server, self.protocol)
        self.keys = 0
        self.accepted = 0
        self.versions: dict[int, int] = {}

    @rule(n=st.integers(1, 6))
    def enqueue(self, n: int) -> None:
        """New records come in."""
        keys = range(self.keys, self.keys + n)
        report = self.spool.enqueue(*({"id": key, "text": f"record number {key} version 0"} for key in keys))
        assert report.result["enqueued"] == n
        self.keys += n
        self.accepted += n
        self.versions |= dict.fromkeys(keys, 0)

    @rule(pick=st.integers(0, 1000))
    def replace(self, pick: int) -> None:
        """A record is enqueued anew with other content."""
        if self.keys:
            key = pick % self.keys
            self.versions[key] += 1
            text = f"record number {key} version {self.versions[key]}"
            assert self.spool.enqueue({"id": key, "text": text}, replace=True).result["replaced"] == 1
            self.accepted += 1

    @rule(fault=st.sampled_from(FAULTS), skip=st.integers(0, 3))
    def trouble(self, fault: dict[str, Any], skip: int) -> None:
        """Something is about to go wrong, once."""
        self.server.arm({**fault, "skip": skip if "route" in fault else 0})

    @rule()
    def dispatch(self) -> None:
        """Cron runs dispatch."""
        self.spool.dispatch()

    @rule()
    def poll(self) -> None:
        """Cron runs poll."""
        self.spool.poll()

    @rule()
    def reconcile(self) -> None:
        """Cron runs reconcile."""
        self.spool.reconcile()

    @rule(seconds=st.sampled_from([60, 900, 1000, 7200, 86400, 3 * 86400]))
    def time_passes(self, seconds: int) -> None:
        """Cron does not run for a while."""
        self.spool.clock.advance(seconds)

    @rule(seconds=st.sampled_from([-3600, 3600, -5 * 86400, 5 * 86400]))
    def clock_jumps(self, seconds: int) -> None:
        """This machine's clock is set, and the provider's is not."""
        self.spool.clock.time += seconds

    @invariant()
    def nothing_is_lost(self) -> None:
        """Whatever was accepted is counted somewhere, and nothing was billed twice."""
        assert sum(self.spool.counts().values()) == self.accepted
        assert self.server.control.billing()["twice"]["custom_id"] == []

    def teardown(self) -> None:
        """The faults stop and cron goes on: all settles."""
        try:
            self.server.control.clear()
            self.spool.settle(rounds=40)
            self.spool.check()
            assert sum(self.spool.counts().values()) == self.accepted
            answered = {answer["key"]: answer for answer in self.spool.results()}
            assert answered.keys() == self.versions.keys()
            for key, answer in answered.items():
                if answer["status"] == "completed":
                    assert f"number {key} version {self.versions[key]}" in answer["text"]
        finally:
            self.server.stop()
            shutil.rmtree(self.folder)


class AnthropicWalk(Walk):
    """The same in Anthropic's protocol."""

    protocol = "anthropic"


_SETTINGS = settings(
    max_examples=WALKS,
    stateful_step_count=STEPS,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
TestOpenAI = Walk.TestCase
TestOpenAI.settings = _SETTINGS
TestAnthropic = AnthropicWalk.TestCase
TestAnthropic.settings = _SETTINGS
