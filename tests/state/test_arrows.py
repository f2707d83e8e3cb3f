"""Tasks and batches move along their arrows only, and each arrow is one along which something moves."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from nura_cli.errors import StateError
from nura_cli.state import Connection, State, answers, batches, retries, tasks
from nura_cli.state.answers import Charge, Failure, Settled
from nura_cli.states import BATCH_ARROWS, TASK_ARROWS, BatchStatus, ErrorKind, TaskStatus

NOW = 1_800_000_000
PENDING, SUBMITTED, COMPLETED, FAILED, CANCELLED = TaskStatus


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """A state file with two tasks, the first of them claimed by batch 1."""
    with State(tmp_path / "nura.db", lambda: NOW) as opened:
        with opened.transaction() as db:
            queue = tasks.queue_id(db, tasks.workload_id(db, "w"), "", "", "")
            tasks.insert(db, 1, [tasks.NewTask(queue, f'"{key}"', key, b"d", b"{}") for key in "ab"])
            batches.add(
                db, queue_id=queue, workload="w", provider="p", address="a", dialect="openai", endpoint="/v1", model="m",
                revision="r", spec="{}", tag="tag",
            )  # fmt: skip
            tasks.claim(db, queue, 1, 1, 9)
        yield opened


def replace(key: str, old: int) -> Callable[[Connection], object]:
    """Return what puts another task in the place of one."""
    return lambda db: tasks.replace(db, 1, tasks.NewTask(1, f'"{key}"', key, b"new", b"{}"), old)


def settle(to: TaskStatus) -> Callable[[Connection], object]:
    """Return what settles the claimed task."""
    failure = None if to is COMPLETED else Failure(ErrorKind.PROVIDER_ERROR, "m")
    return lambda db: answers.settle(db, 1, 1, [Settled(1, False, to, 1, 0, failure, None, Charge())], "x")


def release(db: Connection) -> object:
    """Give the claimed task back."""
    return tasks.release(db, 1, "x")


def release_replaced(db: Connection) -> None:
    """Give the claimed task back, which another stands for by now."""
    replace("a", 1)(db)
    release(db)


def retry(db: Connection) -> None:
    """Fail the claimed task, and have it tried again."""
    settle(FAILED)(db)
    answers.wait_again(db, 1, FAILED, [1], "x")


def take(db: Connection) -> None:
    """Fail the claimed task, and have it take the answer it has."""
    settle(FAILED)(db)
    retries.take(db, 1, 1, [1], "x")


def put_back(db: Connection) -> None:
    """Cancel the claimed task, and resend it."""
    settle(CANCELLED)(db)
    answers.put_back(db, 1, 1, 9, "x")


BLAMED = Failure(ErrorKind.REFUSED, "m")
MOVES: list[tuple[TaskStatus, TaskStatus, int, Callable[[Connection], object]]] = [
    (PENDING, SUBMITTED, 2, lambda db: tasks.claim(db, 1, 1, 1, 9)),
    (PENDING, CANCELLED, 2, replace("b", 2)),
    (PENDING, CANCELLED, 2, lambda db: answers.withdraw(db, 1, [1, 2], "x")),
    (PENDING, FAILED, 2, lambda db: answers.end_waiting(db, 1, FAILED, {1: (1, BLAMED), 2: (1, BLAMED)}, "x")),
    (SUBMITTED, PENDING, 1, release),
    (SUBMITTED, PENDING, 1, settle(PENDING)),
    (SUBMITTED, COMPLETED, 1, settle(COMPLETED)),
    (SUBMITTED, FAILED, 1, settle(FAILED)),
    (SUBMITTED, CANCELLED, 1, settle(CANCELLED)),
    (SUBMITTED, CANCELLED, 1, release_replaced),
    (FAILED, PENDING, 1, retry),
    (FAILED, COMPLETED, 1, take),
    (CANCELLED, PENDING, 1, put_back),
]


def status(state: State, task: int) -> str:
    """Return the status of a task."""
    return str(state.db.execute("SELECT status FROM tasks WHERE id = ?", (task,)).fetchone()[0])


def without(arrows: Mapping[Any, Mapping[Any, str]], old: Any, new: Any) -> dict[Any, Any]:
    """Return the arrows but one."""
    return {
        status: {to: why for to, why in tos.items() if (status, to) != (old, new)} for status, tos in arrows.items()
    }


def test_the_arrows_of_tasks_are_the_moves_there_are() -> None:
    assert {(old, new) for old, new, _, _ in MOVES} == {(old, new) for old, tos in TASK_ARROWS.items() for new in tos}


@pytest.mark.parametrize(("old", "new", "task", "move"), MOVES)
def test_a_task_moves_along_an_arrow_and_without_it_stays_where_it_is(
    state: State,
    monkeypatch: pytest.MonkeyPatch,
    old: TaskStatus,
    new: TaskStatus,
    task: int,
    move: Callable[[Connection], object],
) -> None:
    before = status(state, task)
    with monkeypatch.context() as patched:
        patched.setattr(tasks, "TASK_ARROWS", without(TASK_ARROWS, old, new))
        with pytest.raises(AssertionError, match=f"no arrow from {old} to {new}"), state.transaction() as db:
            move(db)
    assert status(state, task) == before
    with state.transaction() as db:
        move(db)
    assert status(state, task) == new
    logged = state.db.execute("SELECT from_status, to_status FROM transitions WHERE what = 'task'").fetchall()
    assert (str(old), str(new)) in logged


@pytest.mark.parametrize(("old", "new"), list(itertools.product(TaskStatus, TaskStatus)))
def test_there_is_no_other_way_for_a_task(old: TaskStatus, new: TaskStatus) -> None:
    if new in TASK_ARROWS[old]:
        assert tasks.moving(old, new, "a = ?") == f"UPDATE tasks SET status = '{new}', a = ? WHERE status = '{old}'"
    else:
        with pytest.raises(AssertionError, match="no arrow"):
            tasks.moving(old, new)


BATCH_MOVES = {
    "processing": "uploaded submitting failed",
    "uploaded": "submitting failed",
    "submitting": "uploaded submitted failed",
    "submitted": "completed failed",
    "completed": "reconciled submitted failed",
    "reconciled": "",
    "failed": "",
}


@pytest.mark.parametrize(("old", "new"), list(itertools.product(BatchStatus, BatchStatus)))
def test_a_batch_moves_where_the_stages_move_it_and_nowhere_else(
    state: State, old: BatchStatus, new: BatchStatus
) -> None:
    final = NOW if not BATCH_MOVES[old] else None
    state.db.execute(
        "UPDATE batches SET status = ?, remote_id = 'r', marker = '{}', final_at = ? WHERE id = 1", (old, final)
    )
    batch = batches.get(state.db, 1)
    assert batch is not None
    if new in BATCH_MOVES[old].split():
        with state.transaction() as db:
            assert batches.move(db, batch, new, "x").status is new
        with pytest.raises(StateError, match=f"no longer {old}"), state.transaction() as db:
            batches.move(db, batch, new, "x")
    else:
        with pytest.raises(AssertionError, match="no arrow"), state.transaction() as db:
            batches.move(db, batch, new, "x")
        assert batches.get(state.db, 1) == batch


@pytest.mark.parametrize("arrows", [TASK_ARROWS, BATCH_ARROWS])
def test_each_arrow_says_who_moves_it_and_why(arrows: Mapping[Any, Mapping[Any, str]]) -> None:
    """In words that a diagram takes as they are."""
    for why in (why for tos in arrows.values() for why in tos.values()):
        assert why.split()[0] in ("enqueue", "dispatch", "poll", "reconcile", "retry", "cancel", "resolve"), why
        assert not set(why) & set(":;#{}"), why
