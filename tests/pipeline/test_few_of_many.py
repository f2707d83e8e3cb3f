"""What is done about a few tasks costs the same however many others wait, or are over: counted in steps of SQLite's machine."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nura_cli.pipeline import retention
from nura_cli.sandbox import Sandbox
from nura_cli.state import State, compact
from nura_cli.states import TaskStatus
from tests.conftest import Spool

pytestmark = pytest.mark.long

HOUR = 3600
FEW, MANY = 200, 2000
EACH = 20
"""Steps after which the counter is told."""


class Steps:
    """Counts the steps of all statements on state files that are opened meanwhile."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n = 0
        opened = State.__init__

        def counting(state: State, *args: Any, **options: Any) -> None:
            opened(state, *args, **options)
            state.db.set_progress_handler(self._more, EACH)

        monkeypatch.setattr(State, "__init__", counting)

    def _more(self) -> int:
        self.n += EACH
        return 0

    def of(self, work: Callable[[], Any]) -> int:
        """Return how many steps some work takes."""
        before = self.n
        work()
        return self.n - before


@contextlib.contextmanager
def among(folder: Path, others: int) -> Iterator[Spool]:
    """A spool in which so many others are over, with their rows written and told of, and as many wait behind a full queue."""
    folder.mkdir()
    with Sandbox(folder / "box.db") as server:
        (folder / "nura").mkdir()
        spool = Spool(folder / "nura", server, "openai")
        spool.set(events=[{"types": ["task.completed", "task.failed", "task.cancelled"], "command": ["true"]}])
        spool.fill(others)
        spool.settle()
        spool.providers["main"] = spool.provider(limits={"requests": 5, "enqueued_requests": 5})
        spool.set(retention="90d")
        spool.enqueue(*({"id": f"w{n}", "text": f"record number w{n}"} for n in range(others)))
        yield spool


def everyday(spool: Spool, others: int) -> dict[str, Callable[[], Any]]:
    """Return what stages and persons do about a few tasks, one after the other, by name."""
    last = others - 1
    return {
        "a batch is sent": spool.dispatch,
        "nothing more fits": spool.dispatch,
        "it is asked after": spool.poll,
        "it is settled and told of": spool.reconcile,
        "nothing is to be settled": spool.reconcile,
        "one comes in": lambda: spool.enqueue({"id": "new", "text": "record number new"}),
        "it comes in again": lambda: spool.enqueue({"id": "new", "text": "record number new"}),
        "it is replaced": lambda: spool.enqueue({"id": "new", "text": "record number new too"}, replace=True),
        "one is run again": lambda: spool.retry(keys=["1"], statuses=[TaskStatus.COMPLETED]),
        "the next batch": spool.dispatch,
        "and its end": lambda: (spool.poll(), spool.reconcile()),
        "one that waits is cancelled": lambda: spool.cancel(keys=[f"w{last}"]),
        "it is run again": lambda: spool.retry(keys=[f"w{last}"]),
        "one is told of again": lambda: (spool.redeliver("event", keys=["3"], made=True), spool.reconcile()),
        "one is forgotten": lambda: spool.purge("2"),
        "one that waits is forgotten": lambda: spool.purge(f"w{last - 1}"),
        "nothing of them is sent": spool.dispatch,
        "one that is under way is to be forgotten": lambda: spool.purge("w20"),
        "others are under way": spool.dispatch,
        "all is settled": lambda: (spool.poll(), spool.reconcile()),
        "a batch is refused": lambda: spool.control.fault("refuse", code="bad_thing", message="no") or spool.dispatch(),
        "that is found out": lambda: (spool.poll(), spool.reconcile()),
        "time goes by": partial(spool.clock.advance, HOUR),
        "its halves are sent": lambda: (spool.dispatch(), spool.poll(), spool.reconcile()),
        "nothing is so old": lambda: spool.purge_old(seconds=30 * 24 * HOUR, undelivered=True),
        "status": spool.status,
        "a key's history": lambda: spool.show("3"),
        "the newest answers": lambda: spool.results(after=2 * others),
        "a key's answer": lambda: spool.results(key="3"),
        "the workload is held": lambda: spool.hold("echo"),
        "and nothing is sent": spool.dispatch,
        "it goes on": lambda: spool.release("echo"),
    }


def test_what_is_done_about_a_few_costs_the_same_among_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact, "rewrite", lambda *_: False)  # a small file is written anew by design
    monkeypatch.setattr(retention, "PAGE", FEW)  # so many answers are looked at in any case
    steps = Steps(monkeypatch)
    taken = []
    for n in (FEW, MANY):
        with among(tmp_path / f"among {n}", n) as spool:
            taken.append({name: steps.of(work) for name, work in everyday(spool, n).items()})
            spool.check()
    few, many = taken
    assert all(few[name] > 0 for name in ("a batch is sent", "it is asked after", "one is forgotten"))
    slower = {name: (few[name], n) for name, n in many.items() if n - few[name] > 0.5 * (MANY - FEW)}
    assert slower == {}
