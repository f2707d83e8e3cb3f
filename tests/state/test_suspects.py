"""Who may be to blame for a refused batch, as the state file keeps it: in which order they go, and what came before what."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from nura_cli.state import State, batches, standings, suspects, tasks
from nura_cli.state.suspects import How, Suspect
from nura_cli.states import BatchStatus, TaskStatus

NOW = 1_800_000_000


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.time = NOW

    def __call__(self) -> int:
        return self.time


@pytest.fixture
def clock() -> Clock:
    """The clock of the state file."""
    return Clock()


@pytest.fixture
def state(tmp_path: Path, clock: Clock) -> Iterator[State]:
    """A state file with ten pending tasks, and two batches that were refused under revision r."""
    with State(tmp_path / "nura.db", clock) as opened:
        with opened.transaction() as db:
            workload = tasks.workload_id(db, "w")
            queue = tasks.queue_id(db, workload, "", "", "")
            tasks.insert(db, workload, [tasks.NewTask(queue, f'"{n}"', str(n), b"d", b"{}") for n in range(10)])
        for n in (1, 2):
            one = made(opened, f"tag {n}")
            with opened.transaction() as db:
                batches.move(db, one, BatchStatus.FAILED, "refused", requests=4)
        yield opened


def made(state: State, tag: str, revision: str = "r") -> batches.Batch:
    """Return a new batch that claimed nothing."""
    with state.transaction() as db:
        batch_id = batches.add(
            db, queue_id=1, workload="w", provider="p", address="a", dialect="openai", endpoint="/v1", model="m",
            revision=revision, spec="{}", tag=tag,
        )  # fmt: skip
        found = batches.get(db, batch_id)
    assert found is not None
    return found


def suspect(state: State, task_id: int, how: How, since: int = NOW, batch_id: int = 1) -> None:
    """Bring a task under suspicion."""
    with state.transaction() as db:
        suspects.add(db, [Suspect(task_id, 1, batch_id, how, since, None, None)])


def test_those_refused_among_others_go_first_and_the_longest_ago_before_others(state: State) -> None:
    suspect(state, 1, "named")
    suspect(state, 2, "alone")
    suspect(state, 3, "among", NOW + 5, 2)
    suspect(state, 4, "among")
    suspect(state, 5, "among")
    found = suspects.due(state.db, 1, "r", 100, -1)
    assert [(one.task_id, one.batch_id, one.requests) for one in found] == [
        (4, 1, 4), (5, 1, 4), (3, 2, 4), (2, 1, 4), (1, 1, 4),
    ]  # fmt: skip
    assert [one.task_id for one in suspects.due(state.db, 1, "r", 4, 2)] == [4, 3]
    assert suspects.due(state.db, 1, "another", 100, -1) == []


def test_a_claim_leaves_suspects_and_they_are_claimed_apart(state: State) -> None:
    for task_id in (1, 2, 3):
        suspect(state, task_id, "among")
    one, two = made(state, "a"), made(state, "b")
    with state.transaction() as db:
        assert tasks.claim(db, 1, one.id, 100, 6) == 3
        assert not tasks.due_beside(db, 1, 6)
        assert tasks.due_beside(db, 1)
        assert not suspects.under_way(db, 1)
        assert tasks.claim_suspects(db, 1, two.id, [1, 2, 4]) == 2
        assert suspects.under_way(db, 1)
    assert tasks.in_order(state.db, one.id) == [(4, False), (5, False), (6, False)]
    assert tasks.in_order(state.db, two.id) == [(1, False), (2, False)]
    assert tasks.counts(state.db)[1, TaskStatus.SUBMITTED, False] == 5


@pytest.mark.parametrize("back", [0, 1, 400 * 86400])
def test_what_was_seen_first_is_told_within_a_second_and_with_a_clock_set_back(
    state: State, clock: Clock, back: int
) -> None:
    def taken() -> None:
        one = made(state, f"tag {made.__name__} {len(seen)}")
        seen.append(one.id)
        with state.transaction() as db:
            batches.note(db, one, validated_at=standings.next_second(db, "w", "r"))

    def refused(n: int) -> int:
        with state.transaction() as db:
            return standings.refused(db, "w", "r", n)

    seen: list[int] = []
    taken()
    clock.time -= back
    first = refused(1)
    assert not standings.validated_since(state.db, "w", "r", "a", first)
    taken()
    assert standings.validated_since(state.db, "w", "r", "a", first)
    assert not standings.validated_since(state.db, "other", "r", "a", first)
    assert not standings.validated_since(state.db, "w", "other", "a", first)
    second = refused(2)
    assert second > first
    assert not standings.validated_since(state.db, "w", "r", "a", second)
    assert standings.of(state.db, "w", "r").refused_after == max(seen)


def test_what_was_under_way_does_not_count_and_moves_nothing_but_the_time(state: State) -> None:
    with state.transaction() as db:
        standings.refused(db, "w", "r", 3)
    made(state, "newer")
    with state.transaction() as db:
        standings.refused(db, "w", "r", 3, counted=False)
    assert standings.of(state.db, "w", "r").refused_after == 2


def test_a_batch_of_which_nothing_is_known_yet_is_undecided(state: State) -> None:
    assert not standings.undecided(state.db, "w", "r", "a")
    one = made(state, "a")
    assert standings.undecided(state.db, "w", "r", "a")
    assert not standings.undecided(state.db, "w", "other", "a")
    with state.transaction() as db:
        batches.note(db, one, validated_at=NOW)
    assert not standings.undecided(state.db, "w", "r", "a")


def test_suspects_of_another_revision_of_final_tasks_and_of_released_workloads_are_let_go(state: State) -> None:
    for task_id in (1, 2, 3):
        suspect(state, task_id, "named")
    assert not suspects.others(state.db, 1, "r")
    assert suspects.others(state.db, 1, "another")
    assert suspects.searched(state.db) == {"w"}
    with state.transaction() as db:
        db.execute("UPDATE tasks SET status = 'cancelled' WHERE id = 1")
        suspects.clear_ended(db)
        assert [one.task_id for one in suspects.named(db, 1)] == [2, 3]
        suspects.alone(db, 1)
        assert (suspects.named(db, 1), suspects.last_blamed(db, 1)) == ([], 1)
        suspects.clear_workloads(db, ["another"])
        assert suspects.any_at_all(db)
        suspects.clear_workloads(db, ["w"])
        assert not suspects.any_at_all(db)
        suspects.clear_others(db, 1, "r")
