"""Templates and schemas of one workload, through the stages: what they spoil is theirs alone."""

import json

import msgspec
import pytest

from nura_cli import config as configuration
from nura_cli.errors import ConfigError
from nura_cli.pipeline import results
from nura_cli.state import State
from nura_cli.state.selection import Selection
from tests.conftest import Spool


def prompts(spool: Spool) -> dict[int, str]:
    """Return the prompt of each record, which the sandbox repeats."""
    texts = {answer["key"]: answer["text"] for answer in spool.results()}
    return {key: text.removeprefix("In short: ").rpartition(" [")[0] for key, text in texts.items() if text}


def test_a_method_or_a_bomb_fails_the_record_that_meets_it_and_costs_nothing(spool: Spool) -> None:
    spool.set(prompt="Repeat: {{ meta.title }}{{ 'x' * n }}")
    spool.enqueue({"id": 1, "meta": {"title": "T"}, "n": 1})
    spool.enqueue({"id": 2, "meta": "a string", "n": 1})
    spool.enqueue({"id": 3, "meta": {"title": "T"}, "n": 10**10})
    spool.settle()
    found = {answer["key"]: answer for answer in spool.results()}
    assert prompts(spool) == {1: "Repeat: Tx"}
    assert "title is a method of a string" in found[2]["error"]["message"]
    assert "build more than 128 MB" in found[3]["error"]["message"]
    assert [found[n]["error"]["kind"] for n in (2, 3)] == ["render", "render"]
    assert [found[n]["cost"] for n in (2, 3)] == ["0.00", "0.00"]


def test_a_record_without_an_optional_field_is_taken_and_sent(spool: Spool) -> None:
    spool.set(prompt="Repeat: {{ text }}{% if subtitle %} ({{ subtitle }}){% endif %}{{ note or '' }}")
    report = spool.enqueue({"id": 1, "text": "a"}, {"id": 2, "text": "b", "subtitle": "s", "note": "!"}, {"id": 3})
    assert (report.result["enqueued"], report.result["rejected"]) == (2, 1)
    assert "needs text" in report.problems[0].message
    spool.settle()
    assert prompts(spool) == {1: "Repeat: a", 2: "Repeat: b (s)!"}


def test_numbers_travel_as_they_were_written(spool: Spool) -> None:
    spool.set(prompt="Repeat: {{ p }} {{ q }} {{ big }} {{ tiny }} {{ record.q }}", keep=["p", "q", "big", "tiny"])
    numbers = b'"p": 19.90, "q": 1234567890123456.78, "big": 18446744073709551616, "tiny": 0.00001'
    spool.enqueue(b'{"id": 1, %s}' % numbers)
    spool.settle()
    assert prompts(spool) == {1: "Repeat: 19.90 1234567890123456.78 18446744073709551616 0.00001 1234567890123456.78"}
    config = configuration.load(spool.path)
    with State(config.state) as state:
        (line,) = map(msgspec.json.encode, results.stream(state, config, Selection(("echo",))))
    assert b'"record":{"p":19.90,"q":1234567890123456.78,"big":18446744073709551616,"tiny":0.00001}' in line


BAD = {"type": "object", "properties": {"a": {"type": "array"}}, "required": ["a"], "additionalProperties": False}


def test_a_schema_that_the_vendor_refuses_stops_the_dispatch_of_its_workload_alone(spool: Spool) -> None:
    spool.fill(2)
    spool.dispatch()
    spool.set("bad", schema=BAD)
    assert spool.enqueue({"id": 1, "text": "x"}, workload="bad").result["enqueued"] == 1
    spool.enqueue({"id": 9, "text": "y"})
    for report in (spool.dispatch(), spool.dispatch()):
        (problem,) = report.problems
        assert (problem.exit_code, problem.workload) == (78, "bad")
        assert "workloads.bad.schema.properties.a: " in problem.message
        assert "what an array holds" in problem.message
    assert [found.workload for found in spool.preview().problems] == ["bad"]
    spool.clock.advance(3600)
    assert (spool.poll().exit_code, spool.reconcile().exit_code) == (0, 0)
    assert len(spool.results()) == 3
    assert spool.rows("SELECT count(*) FROM tasks WHERE status = 'pending'") == [(1,)]
    spool.set("bad", schema={**BAD, "properties": {"a": {"type": "array", "items": {"type": "string"}}}})
    assert spool.dispatch().result["requests"] == 1


def test_a_file_that_cannot_be_understood_stops_all(spool: Spool) -> None:
    spool.workloads["bad"] = {**spool.workload(schema=BAD), "promt": "x"}
    spool.path.write_text(json.dumps({"providers": spool.providers, "workloads": spool.workloads}))
    with pytest.raises(ConfigError, match="did you mean prompt"):
        configuration.load(spool.path)
