"""How far scarce room is used: a queue at the provider, a budget, a canary. On the sandbox's clock, with cron every 15 minutes.

Figures of time here are those of the virtual clock, and so the same on every machine.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nura_cli.sandbox import Sandbox
from tests.benchmarks.conftest import say, scaled
from tests.conftest import Spool

TICK = 15 * 60
A_MOMENT = 30
"""Batches end so many seconds before the run of cron that is to find them ended: they were created some seconds after one."""
NEWS = max(200, scaled(2000))
SCHEMA = {
    "type": "object",
    "properties": {"topic": {"type": "string"}, "score": {"type": "integer"}},
    "required": ["topic", "score"],
    "additionalProperties": False,
}
WORDS = "the council of the town has decided after a long debate that the old bridge over the river will be repaired in spring "
TEXTS: dict[str, Callable[[int], str]] = {
    "english": lambda n: (WORDS * 12)[n % 40 : n % 40 + 300 + 40 * (n % 17)],
    "chinese": lambda n: "市议会经过长时间的辩论后决定在春天修复河上的旧桥" * (3 + n % 9),
    "numbers": lambda n: " ".join(str((n + 7) * k * 7919 % 100_000) for k in range(1, 40 + n % 60)),
}


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """Return a spool at a sandbox of its own."""
    with Sandbox(tmp_path / "box.db") as server:
        yield Spool(tmp_path, server, "openai")


def fill(spool: Spool, n: int, workload: str = "echo", text: Callable[[int], str] = TEXTS["english"]) -> None:
    """Enqueue n news items."""
    spool.enqueue(*({"id": k, "text": text(k)} for k in range(n)), workload=workload)


def tokens_of(spool: Spool) -> int:
    """Return how many input tokens all that waits has, as the sandbox counts them: by a run that has nothing in its way."""
    spool.round()
    spool.round()
    used = spool.control.billing()["input_tokens"]
    return int(used)


def line_of_cron(spool: Spool) -> None:
    """Run the stages as crontab.example has them."""
    spool.poll()
    spool.reconcile()
    spool.dispatch()


def home(spool: Spool, workload: str = "echo", most: int = 400) -> int:
    """Run cron's line every 15 minutes until a workload has nothing left; return how many seconds that took."""
    begun = spool.clock.time
    for _ in range(most):
        line_of_cron(spool)
        left = spool.status()["workloads"][workload]["tasks"]
        if not left["pending"] and not left["submitted"]:
            return spool.clock.time - begun
        spool.clock.advance(TICK)
    raise AssertionError(f"not home after {most} rounds: {spool.counts()}")


def refused(spool: Spool) -> int:
    """Return how many batches were refused, or creates."""
    return len(spool.rows("SELECT 1 FROM batches WHERE status = 'failed' AND sent_at IS NOT NULL"))


def whole(tmp_path: Path, n: int) -> int:
    """Return the input tokens of n news items."""
    folder = tmp_path / "measure"
    folder.mkdir()
    with Sandbox(folder / "box.db") as server:
        spool = Spool(folder, server, "openai")
        fill(spool, n)
        return tokens_of(spool)


@pytest.mark.parametrize(("share", "minutes"), [(0.05, 15), (0.4, 120)], ids=["5 percent", "40 percent"])
def test_a_full_queue(spool: Spool, tmp_path: Path, share: float, minutes: int) -> None:
    n = NEWS
    total = whole(tmp_path, n)
    cap = int(total * share)
    spool.control.settings(delay=minutes * 60 - A_MOMENT)
    spool.control.queue(tokens=cap)
    fill(spool, n)
    took = home(spool)
    least = math.ceil(total / cap) * minutes * 60
    target = "2, 1.25 x" if share < 0.1 else "1, 1.4 x"
    name = f"cap {share:.0%} of {n:,} items, batches of {minutes} min"
    say(name, target, refused=refused(spool), time_against_least=took / least, does="tokens / cap, in batch times")


def test_urgent_tasks_behind_many(spool: Spool, tmp_path: Path) -> None:
    n = NEWS
    spool.control.settings(delay=TICK - A_MOMENT)
    spool.control.queue(tokens=whole(tmp_path, n) // 20)
    spool.set("urgent", priority=10)
    fill(spool, n)
    for _ in range(4):
        line_of_cron(spool)
        spool.clock.advance(TICK)
    fill(spool, 20, "urgent")
    say("20 urgent tasks behind the others", "at most 2", batch_times=home(spool, "urgent") / TICK)


@pytest.mark.parametrize("kind", TEXTS)
def test_an_estimate_after_a_hundred_answers(spool: Spool, kind: str) -> None:
    spool.set(schema=SCHEMA, prompt="Classify: {{ text }}", params={"max_tokens": 200})
    fill(spool, 100, text=TEXTS[kind])
    spool.round()
    spool.round()
    spool.enqueue(*({"id": 1000 + k, "text": TEXTS[kind](3 * k)} for k in range(500)))
    (planned,) = spool.preview().result["batches"]
    before = spool.control.billing()
    spool.round()
    spool.round()
    after = spool.control.billing()
    given, answered = (after[name] - before[name] for name in ("input_tokens", "output_tokens"))
    (cost,) = spool.rows("SELECT billed_cost FROM batches ORDER BY id DESC LIMIT 1")[0]
    say(
        f"estimate after 100 answers, {kind}",
        "0.90 to 1.10",
        input=planned["estimated_tokens"] / given,
        output=planned["estimated_output_tokens"] / answered,
        cost=float(planned["estimated_cost"]) * 10**12 / cost,
    )


def test_a_broken_schema_with_a_canary(spool: Spool) -> None:
    spool.set(schema=SCHEMA, canary={"requests": 20})
    spool.control.fault("invalid", mode="schema", times=-1)
    fill(spool, NEWS)
    for _ in range(20):
        spool.round()
        spool.clock.advance(TICK)
    say("broken schema, canary of 20", "at most 20", billed=spool.control.billing()["requests"])
