"""Which tasks are meant: the options that results, show and the operators' verbs share."""

import json
from typing import Any

import pytest

from nura_cli.clock import rfc3339
from nura_cli.state import State, selection
from nura_cli.state.keys import identity
from nura_cli.state.selection import Selection
from nura_cli.states import TaskStatus
from tests.conftest import START, Spool
from tests.pipeline.forks import Command, Ended

pytestmark = pytest.mark.long


def results(spool: Spool, *arguments: str) -> Ended:
    """Run ``nura results`` as a process."""
    return Command(spool.folder, spool.clock(), "results", *arguments).end()


def keys(spool: Spool, *arguments: str) -> list[Any]:
    """Return the keys of the answers that are meant."""
    ended = results(spool, *arguments)
    assert ended.code == 0, ended.out
    return [json.loads(line)["key"] for line in ended.out.splitlines()]


@pytest.fixture
def filled(openai_spool: Spool) -> Spool:
    """A spool with answers: 0 and 2 completed, 1 refused, an hour later the composite one, and one that waits."""
    spool = openai_spool
    spool.set(key=["id", "part"])
    spool.control.fault("rows", status=400, message="not this one", match="number 1")
    spool.enqueue(*({"id": n, "part": "a", "text": f"record number {n}"} for n in range(3)))
    spool.settle()
    spool.clock.advance(3600)
    spool.enqueue({"id": "x", "part": 7, "text": "another"})
    spool.settle()
    spool.enqueue({"id": "late", "part": 0, "text": "waits"})
    return spool


A, B, C, X = [0, "a"], [1, "a"], [2, "a"], ["x", 7]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((), [A, C, B, X]),
        (("echo",), [A, C, B, X]),
        (("--status", "failed"), [B]),
        (("--status", "failed", "--status", "completed"), [A, C, B, X]),
        (("--status", "pending"), []),
        (("--key", '[1,"a"]'), [B]),
        (("--key", '["1", "a"]', "--key", '["x", "7"]'), [B, X]),
        (("--key", '[1,"a"]', "--status", "completed"), []),
        (("--batch", "1"), [A, C, B]),
        (("--batch", "2"), [X]),
        (("--batch", "99"), []),
        (("--error", "refused"), [B]),
        (("--error", "refused:invalid_request_error"), [B]),
        (("--error", "refused:even"), []),
        (("--error", "expired"), []),
        (("--since", rfc3339(START + 1800) or ""), [X]),
        (("--until", rfc3339(START + 1800) or ""), [A, C, B]),
        (("--since", "30m"), [X]),
        (("--until", "30m", "--status", "completed"), [A, C]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_each_option_narrows_what_is_meant(filled: Spool, arguments: tuple[str, ...], wanted: list[Any]) -> None:
    found = keys(filled, *arguments)
    assert sorted(found, key=str) == sorted(wanted, key=str)


def test_keys_come_from_a_file_in_every_form_that_tools_print(filled: Spool) -> None:
    lines = ['[0,"a"]', "", json.dumps({"key": [1, "a"], "status": "failed"}), '  ["x", 7]  ']
    (filled.folder / "keys").write_text("\n".join(lines))
    assert sorted(keys(filled, "--keys-from", "keys"), key=str) == sorted([A, B, X], key=str)


@pytest.mark.parametrize("line", ["plain", '"plain"', '{"key": "plain"}'])
def test_a_key_of_one_field_may_stand_bare_quoted_or_in_an_object(openai_spool: Spool, line: str) -> None:
    openai_spool.enqueue({"id": "plain", "text": "a"}, {"id": 17, "text": "b"})
    openai_spool.settle()
    (openai_spool.folder / "keys").write_text(line + "\n17\n")
    assert keys(openai_spool, "--keys-from", "keys") == ["plain", 17]


def test_a_key_that_is_named_is_meant_once_however_long_the_file_is(filled: Spool) -> None:
    (filled.folder / "keys").write_text('[0,"a"]\n' * selection.CHUNK + '[2,"a"]\n')
    assert keys(filled, "--key", '[1,"a"]', "--keys-from", "keys") == [A, B, C]
    (filled.folder / "keys").write_text("")
    assert keys(filled, "--key", '[1,"a"]', "--keys-from", "keys") == [B]


def test_a_line_that_names_no_key_is_told_and_the_others_are_done(filled: Spool) -> None:
    (filled.folder / "keys").write_text('[0,"a"]\n{"no": "key"}\n[9,"a"]\n{"key"\n\x00\n')
    ended = results(filled, "--keys-from", "keys")
    assert ended.code == 3
    first, *told = ended.out.splitlines()
    assert json.loads(first)["key"] == A
    assert any("keys, line 2: the object has no key" in line for line in told)
    assert any(
        "keys, line 3" in line and "no such key" in line and '["2","a"]' in line.replace(" ", "") for line in told
    )
    assert any("keys, line 4" in line for line in told)
    assert any("keys, line 5" in line for line in told)
    assert "Traceback" not in ended.out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--key", '[3,"a"]'), "no such key"),
        (("--key", "[1"), "--key [1"),
        (("--key", ""), "--key"),
        (("--error", "refuse"), "'refuse' is not one of refused, "),
        (("--since", "yesterday"), "--since yesterday: neither a time"),
        (("--until", "5x"), "--until 5x: neither a time"),
        (("--status", "done"), "done"),
        (("--keys-from", "nowhere"), "--keys-from nowhere: No such file"),
        (("--batch", "x"), "--batch"),
        (("nobody",), "nobody"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_makes_no_sense_is_a_usage_error(filled: Spool, arguments: tuple[str, ...], why: str) -> None:
    ended = results(filled, *arguments)
    assert ended.code == 2
    assert why in ended.out
    assert "Traceback" not in ended.out


def test_an_unknown_key_names_its_neighbours(filled: Spool) -> None:
    out = results(filled, "echo", "--key", '[1, "b"]').out.replace(" ", "")
    assert '["1","a"]' in out
    assert '["2","a"]' in out


def meant(state: State, chosen: Selection) -> list[str]:
    """Return the keys of the tasks that wait and are meant."""
    tables, where, values = selection.pending(chosen)
    return [row[0] for row in state.db.execute(f"SELECT r.key FROM {tables} WHERE {where}", values)]


def test_what_waits_is_meant_by_the_time_at_which_it_was_enqueued(filled: Spool) -> None:
    with State(filled.state_path) as state:
        late = ['["late",0]']
        late_one = identity(["late", 0])
        assert meant(state, Selection()) == late
        assert meant(state, Selection(["echo"], keys=[late_one])) == late
        assert meant(state, Selection(since=START + 1800)) == late
        assert meant(state, Selection(until=START + 1800)) == []
        assert meant(state, Selection(batch_id=1)) == []
        assert meant(state, Selection(kind="refused")) == []
        assert meant(state, Selection(["other"])) == []


def plan(state: State, chosen: Selection) -> str:
    """Return how SQLite reads the settled tasks of a selection."""
    tables, where, values = selection.settled(chosen)
    rows = state.db.execute(
        f"EXPLAIN QUERY PLAN SELECT a.seq FROM {tables} WHERE {where} AND a.seq > 0 ORDER BY a.seq", values
    )
    return "; ".join(row[3] for row in rows)


@pytest.mark.parametrize(
    ("chosen", "index"),
    [
        (Selection(statuses=[TaskStatus.FAILED]), "answers_unanswered"),
        (Selection(batch_id=3), "answers_batch"),
        (Selection(keys=["a"]), "PRIMARY KEY"),
        (Selection(), "PRIMARY KEY"),
    ],
)
def test_nothing_that_is_not_meant_is_read(openai_spool: Spool, chosen: Selection, index: str) -> None:
    openai_spool.fill(1)
    with State(openai_spool.state_path) as state:
        assert index in plan(state, chosen)
        assert "SCAN a" not in plan(state, chosen)
