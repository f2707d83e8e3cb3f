"""What show and status read is found by index, however much there is, and told of each workload apart."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nura_cli.state import State, failures, versions
from nura_cli.state.failures import Failed
from nura_cli.state.outbox import Left
from nura_cli.state.selection import Selection
from nura_cli.states import TaskStatus

N = 400


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """A state file with two workloads, whose tasks are settled by batches of 100; each fourth failed."""
    with State(tmp_path / "n.db") as state:
        with state.transaction() as db:
            for name in ("a", "b"):
                db.execute("INSERT INTO workloads (name) VALUES (?)", (name,))
                db.execute(
                    "INSERT INTO lanes (workload_id, dialect, endpoint, model) VALUES (last_insert_rowid(), '', '', '')"
                )
            for i in range(1, N + 1):
                settle(db, i, lane=1 + i % 2, failed=i % 4 == 0)
        yield state


def settle(db: sqlite3.Connection, i: int, *, lane: int, failed: bool) -> None:
    """Insert a task that is settled, with its record, its key, its answer and its attempt."""
    status, kind = ("failed", "refused") if failed else ("completed", None)
    db.execute("INSERT INTO tasks (id, lane_id, status) VALUES (?, ?, ?)", (i, lane, status))
    db.execute("INSERT INTO records (task_id, enqueued_at, key, line) VALUES (?, 1, ?, X'7b7d')", (i, str(i)))
    db.execute("INSERT INTO keys (workload_id, key, task_id, digest) VALUES (?, ?, ?, X'')", (lane, str(i), i))
    db.execute(
        "INSERT INTO answers (task_id, batch_id, status, finished_at, attempts, error_kind, error_code, error_message)"
        " VALUES (?, ?, ?, ?, 1, ?, ?, ?)",
        (i, i // 100, status, i, kind, (failed and f"c{i % 8}") or None, (failed and f"words {i}") or None),
    )
    db.execute(
        "INSERT INTO attempts (task_id, batch_id, at, outcome, input_tokens, cost) VALUES (?, ?, 1, ?, 7, ?)",
        (i, i // 100, status, None if i == 201 else 5),
    )


def plans(state: State, read: Callable[[], Any]) -> list[str]:
    """Return the plans of the statements that something reads by."""
    statements: list[str] = []
    state.db.set_trace_callback(statements.append)
    read()
    state.db.set_trace_callback(None)
    return [row[3] for one in statements for row in state.db.execute(f"EXPLAIN QUERY PLAN {one}")]


LARGE = ("tasks", "records", "keys", "hashes", "h", "answers", "attempts", "deliveries", "t", "r", "k", "a", "d")
READS: dict[str, Callable[[State], Any]] = {
    "failed": lambda state: failures.failed(state.db),
    "words": lambda state: failures.words(state.db, Failed("a", "refused", "c4", 9), 5),
    "words without a code": lambda state: failures.words(state.db, Failed("a", "refused", None, 9), 5),
    "dead": lambda state: failures.dead_words(state.db, Left("a", "row", "set", "dead", 1, 1, None), 5),
    "versions": lambda state: versions.versions(state.db, "a", "4"),
    "attempts": lambda state: versions.attempts(state.db, [4]),
    "deliveries": lambda state: versions.deliveries(state.db, [4]),
    "last batch": lambda state: versions.last_batch(state.db, 4),
    "outcomes": lambda state: versions.outcomes(state.db, 1),
    "tasks of a batch": lambda state: versions.tasks_of(state.db, 1),
    "log": lambda state: versions.log_of(state.db, 1),
    "keys": lambda state: versions.named(state.db, Selection(workloads=["a"], keys=["4"]), 9),
    "by error": lambda state: versions.named(
        state.db, Selection(kind="refused", code="c4", statuses=[TaskStatus.FAILED]), 9
    ),
    "by batch": lambda state: versions.named(state.db, Selection(batch_id=1), 9),
    "under way": lambda state: versions.named(state.db, Selection(statuses=[TaskStatus.SUBMITTED]), 9),
    "waiting": lambda state: versions.named(state.db, Selection(statuses=[TaskStatus.PENDING]), 9),
}


@pytest.mark.parametrize("name", READS)
def test_nothing_is_read_from_one_end_to_the_other(state: State, name: str) -> None:
    for plan in plans(state, lambda: READS[name](state)):
        if plan.startswith("SCAN"):
            assert plan.split()[1] not in LARGE or "INDEX answers_errors" in plan, plan


def test_failures_are_counted_by_their_index_alone(state: State) -> None:
    found = plans(state, lambda: failures.failed(state.db))
    assert "SCAN a USING COVERING INDEX answers_errors" in found
    for code in ("c4", None):
        found = plans(state, lambda code=code: failures.words(state.db, Failed("a", "refused", code, 9), 5))  # type: ignore[misc]
        assert "SEARCH a USING INDEX answers_errors (error_kind=? AND error_code=?)" in found
        assert not [plan for plan in found if "TEMP B-TREE" in plan]


def test_failures_are_told_of_each_workload_and_of_what_stands(state: State) -> None:
    assert failures.failed(state.db) == [Failed("a", "refused", "c0", 50), Failed("a", "refused", "c4", 50)]
    with state.transaction() as db:
        db.execute("UPDATE tasks SET superseded_by = 400 WHERE id = 4")
        db.execute("UPDATE tasks SET lane_id = 2 WHERE id = 12")
    found = {(one.workload, one.code): one.n for one in failures.failed(state.db)}
    assert found == {("a", "c0"): 50, ("a", "c4"): 48, ("b", "c4"): 1}
    (one,) = failures.words(state.db, Failed("b", "refused", "c4", 1), 5)
    assert one == ("words 12", "12")
    newest = failures.words(state.db, Failed("a", "refused", "c4", 48), 2)
    assert [said.words for said in newest] == ["words 396", "words 388"]


def test_what_a_batch_came_to_is_added_up_past_64_bits(state: State) -> None:
    completed, failed = versions.outcomes(state.db, 1)
    assert (completed.outcome, completed.n, completed.input_tokens, completed.cost) == ("completed", 75, 525, 375)
    assert (failed.n, failed.cost) == (25, 125)
    assert versions.outcomes(state.db, 2)[0].cost is None
    with state.transaction() as db:
        db.execute("UPDATE attempts SET cost = ? WHERE batch_id = 1", (2**63 - 1,))
    assert (versions.outcomes(state.db, 1)[0].cost or 0) > 9 * 10**18


def test_keys_are_found_in_every_state_the_last_settled_first(state: State) -> None:
    with state.transaction() as db:
        db.execute("UPDATE tasks SET status = 'submitted', batch_id = 9 WHERE id = 1")
        db.execute("UPDATE tasks SET status = 'pending' WHERE id = 2")
        db.execute("DELETE FROM answers WHERE task_id < 3")

    def found(**chosen: Any) -> list[int]:
        return [one.task_id for one in versions.named(state.db, Selection(**chosen), 3)]

    assert found() == [400, 399, 398]
    assert found(until=4) == [3, 1, 2]
    assert found(statuses=[TaskStatus.PENDING, TaskStatus.SUBMITTED]) == [1, 2]
    assert found(batch_id=9) == [1]
    assert found(batch_id=9, kind="refused") == []
    assert found(keys=["1", "2", "4", "8"]) == [8, 4, 2]
    assert found(keys=["1", "2", "4"], batch_id=9) == [1]
    assert found(keys=["1", "2", "4"], kind="refused") == [4]
    assert found(keys=["1", "2", "4"], statuses=[TaskStatus.PENDING]) == [2]
    assert found(keys=["1", "4"], workloads=["b"]) == [1]


def test_a_family_of_tasks_is_followed_through_superseding_and_re_runs(state: State) -> None:
    with state.transaction() as db:
        for task, column, other in (
            (10, "superseded_by", 4),
            (11, "superseded_by", 10),
            (12, "retry_of", 11),
            (13, "superseded_by", 12),
        ):
            db.execute(f"UPDATE tasks SET {column} = ? WHERE id = ?", (other, task))
        db.execute("UPDATE tasks SET superseded_by = 13, retry_of = 4 WHERE id = 4")  # round in a circle
    found = versions.versions(state.db, "a", "4")
    assert [(one.task_id, one.stands) for one in found] == [
        (13, False),
        (12, False),
        (11, False),
        (10, False),
        (4, True),
    ]
