"""A record that lacks what its row will need is rejected when it is enqueued; what an expression provides for is no lack."""

import json
from pathlib import Path
from typing import Any

import pytest

from nura_cli import config
from nura_cli.errors import InputError
from nura_cli.pipeline.needs import Needs

FULL = {"id": 1, "ref": "r1", "title": "t", "meta": {"at": 5}, "list": [1, 2]}


@pytest.fixture
def needs(tmp_path: Path) -> Any:
    """A function from the options of a write-back to what is wrong with a record (None: nothing)."""

    def wrong(record: dict[str, Any], key: Any = 1, keep: tuple[str, ...] = tuple(FULL), **options: Any) -> str | None:
        write_back = {"database": "app", "table": "t", "where": {"id": "key"}, "set": {"s": "text"}, **options}
        workload = {"provider": "p", "model": "m", "prompt": "x", "keep": list(keep), "write_back": write_back}
        document = {
            "providers": {"p": {"kind": "sandbox"}},
            "databases": {"app": {"url": "sqlite:///app.db"}},
            "workloads": {"w": workload},
        }
        path = tmp_path / "nura.yaml"
        path.write_text(json.dumps(document))
        try:
            Needs(config.load(path).workloads["w"]).check(json.dumps(key), record)
        except InputError as error:
            return error.message
        return None

    return wrong


ANYWHERE = [
    "record.ref",
    "record.meta.at",
    "record | ref",
    "record.list[0]",
    "record.ref || record.title",
    "not_null(record.ref, record.title)",
    "length(record.title)",
    "join('-', [record.ref, record.title])",
    'record."ref"',
]


@pytest.mark.parametrize("option", ["where", "only_if", "set", "set_failed", "set_cancelled"])
@pytest.mark.parametrize("expression", ANYWHERE)
def test_a_field_that_is_lacking_is_named_with_the_option_that_needs_it(
    needs: Any, option: str, expression: str
) -> None:
    assert needs(FULL, **{option: {"c": expression}}) is None
    found = needs({"id": 1}, **{option: {"c": expression}})
    assert found.startswith(f"write_back.{option}.c: it needs record.")
    assert found.endswith(", which the record lacks")


@pytest.mark.parametrize(
    "expression",
    [
        "record.ref || 'none'",
        "record.ref || text",
        "record.ref || key",
        "not_null(record.ref, json.ref, 'none')",
        "to_string(record.ref)",
        "record.ref == `1`",
        "[record.ref, record.title]",
        "record",
        "text",
        "json.summary",
        "error.message",
        "key",
    ],
)
@pytest.mark.parametrize("option", ["set", "set_failed", "set_cancelled"])
def test_what_an_expression_provides_for_is_no_lack(needs: Any, option: str, expression: str) -> None:
    assert needs({"id": 1}, **{option: {"c": expression}}) is None


def test_a_field_is_missed_beside_an_answer_that_is_not_known_yet(needs: Any) -> None:
    expression = "join(': ', [record.title, text])"
    assert needs({"id": 1, "title": "t"}, set={"c": expression}) is None
    assert "needs record.title" in needs({"id": 1}, set={"c": expression})
    # What the answer will hold decides here, and nobody knows it.
    assert needs({"id": 1}, set={"c": "json.parts[?name == record.title]"}) is None


def test_a_null_that_is_there_is_a_guard_and_else_nothing_to_write(needs: Any) -> None:
    assert needs({"ref": None}, only_if={"c": "record.ref"}) is None
    assert (
        needs({"ref": None}, where={"c": "record.ref"}) == "write_back.where.c: record.ref is null (it names the row)"
    )
    assert needs({"ref": None}, set={"c": "record.ref"}).endswith("record.ref is null (list c under nullable)")
    assert needs({"ref": None}, set={"c": "record.ref"}, nullable=["c"]) is None
    assert needs({}, set={"c": "record.ref"}, nullable=["c"]) is None


def test_parts_of_a_key_that_has_none_are_missed(needs: Any) -> None:
    where = {"tenant": "key[0]", "n": "key[1]"}
    assert needs({}, ["x", 1], where=where) is None
    assert needs({}, ["x"], where=where) == "write_back.where.n: key[1] is null (it names the row)"
    assert "where.tenant" in needs({}, "x", where=where)


def test_a_path_is_followed_to_where_it_ends(needs: Any) -> None:
    lacking: list[dict[str, Any]] = [{"meta": {}}, {"meta": None}, {"meta": 5}]
    for record in lacking:
        assert "needs record.meta.at," in needs(record, only_if={"c": "record.meta.at"})
    assert needs({"meta": {"at": None}}, only_if={"c": "record.meta.at"}) is None


def test_what_a_function_will_not_take_is_said_in_its_words(needs: Any) -> None:
    assert "length(record.title) gives nothing:" in needs({"title": 5}, set={"c": "length(record.title)"})


def test_a_field_that_is_there_and_does_not_travel_is_to_be_kept(needs: Any) -> None:
    found = needs(FULL, keep=("ref",), where={"c": 'record."title"'})
    assert found.endswith("which the record lacks (name title under keep)")


def test_a_mistyped_expression_is_left_to_dispatch(needs: Any) -> None:
    assert needs({}, where={"c": "record.[["}) is None
