"""The words that programs read, of events and of problems: closed lists, whose strings stay as they are."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import nura_cli
from nura_cli import errors
from nura_cli.config import EventConfig
from nura_cli.errors import EX_PARTIAL, NuraError, ProblemKind
from nura_cli.pipeline.report import Problem
from nura_cli.state.outbox import Plan
from nura_cli.states import EventType, TaskStatus

SOURCE = "".join(path.read_text() for path in Path(nura_cli.__file__).parent.rglob("*.py"))


def types(base: type[NuraError]) -> Iterator[type[NuraError]]:
    """Yield a type of error, and those below it."""
    yield base
    for below in base.__subclasses__():
        yield from types(below)


def test_the_words_of_events_stay() -> None:
    words = "task.completed task.failed task.cancelled batch.completed batch.failed"
    assert " ".join(EventType) == words
    event = EventConfig.model_validate({"types": words.split(), "command": ["x"]})
    kept = json.loads(Plan(events=dict.fromkeys(event.types, ("r",))).text)["events"]
    assert kept == {word: ["r"] for word in words.split()}


def test_the_words_of_troubles_stay() -> None:
    assert " ".join(ProblemKind) == (
        "unexpected usage input config key_refused busy state state_corrupt state_newer database provider unreachable"
        " incomplete held budget refused rate_limited not_found unconfirmed task cancelled results spool row event receiver timeout"
    )


@pytest.mark.parametrize("kind", ProblemKind)
def test_each_kind_of_trouble_is_one_that_nura_has(kind: ProblemKind) -> None:
    assert f"ProblemKind.{kind.name}" in SOURCE
    entry = Problem(kind, "m", EX_PARTIAL).as_dict()
    assert type(entry["kind"]) is str
    assert entry["kind"] == kind


@pytest.mark.parametrize("error", [error for error in types(NuraError) if error.__module__ == errors.__name__])
def test_each_type_of_error_has_a_kind(error: type[NuraError]) -> None:
    assert isinstance(error.kind, ProblemKind)


def test_what_a_task_ends_as_has_an_event() -> None:
    for status in (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED):
        assert EventType(f"task.{status}")
