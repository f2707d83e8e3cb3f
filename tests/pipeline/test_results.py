"""What of the answers is printed, and how: chosen fields, CSV, no more than so many; and what is said of keys without one."""

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
from typing import Any, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nura_cli import config as configuration
from nura_cli.cli import csv_out
from nura_cli.cli.session import harmless
from nura_cli.contract import Answer, Result
from nura_cli.delivery.expressions import compiled, first_field, plain_document
from nura_cli.errors import UsageError
from nura_cli.pipeline.columns import columns, flat, picked
from nura_cli.pipeline.documents import Documents
from nura_cli.state import State, answers, packed
from nura_cli.states import TaskStatus
from tests.conftest import Spool, cron_environment
from tests.pipeline.forks import completed

SCHEMA = {
    "type": "object",
    "properties": {"section": {"type": "string", "enum": ["world", "sports"]}},
    "required": ["section"],
    "additionalProperties": False,
}


def results(spool: Spool, *arguments: str, code: int = 0) -> tuple[str, str]:
    """Run ``nura results``; return what it printed, and what it said."""
    done = completed("results", *arguments, cwd=spool.folder, environment=cron_environment(spool.folder))
    assert done.returncode == code, done.stderr
    return done.stdout.decode(), done.stderr.decode()


def table(text: str) -> list[list[str]]:
    """Return the rows of CSV."""
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.fixture
def filled(openai_spool: Spool) -> Spool:
    """Answers to 0 and 2, a refusal of 1, and 3, which waits."""
    spool = openai_spool
    spool.set(schema=SCHEMA, keep=["text"], prompt="Which section? world {{ text }}")
    spool.control.fault("rows", status=400, message="not this one", match="number 1")
    spool.fill(3)
    spool.settle()
    spool.enqueue({"id": 3, "text": "late"})
    return spool


def test_chosen_fields_are_json_lines_with_these_names_in_this_order(filled: Spool) -> None:
    out, said = results(filled, "--fields", "key, json.section,record.text")
    assert said == ""
    assert [json.loads(line) for line in out.splitlines()] == [
        {"key": 0, "json.section": "world", "record.text": "record number 0"},
        {"key": 2, "json.section": "world", "record.text": "record number 2"},
        {"key": 1, "json.section": None, "record.text": "record number 1"},
    ]
    assert out.startswith('{"key":0,"json.section":')


@pytest.mark.parametrize(
    ("fields", "names", "first"),
    [
        ("{section: json.section, who: key}", ["section", "who"], ["world", "0"]),
        ('{"the key": key}', ["the key"], ["0"]),
        ("[key, status], status", ["[key, status]", "status"], ['[0,"completed"]', "completed"]),
        (
            "join(', ', [status, workload]),key",
            ["join(', ', [status, workload])", "key"],
            ["completed, echo", "0"],
        ),
        ("usage.keys(@)[0]", ["usage.keys(@)[0]"], ["input_tokens"]),
        ("row_error, json", ["row_error", "json"], ["", '{"section":"world"}']),
        ("@.key", ["@.key"], ["0"]),
        ("sort_by([@], &key)[0].key", ["sort_by([@], &key)[0].key"], ["0"]),
    ],
)
def test_a_list_is_read_as_jmespath_reads_it(filled: Spool, fields: str, names: list[str], first: list[str]) -> None:
    out, _ = results(filled, "--fields", fields, "--csv", "--key", "0")
    assert table(out) == [names, first]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ("key,,text", "an expression is missing"),
        ("", "an expression is missing"),
        ("{}", "is no NAME: EXPRESSION"),
        ("key,tekst", "'tekst' begins at tekst, and an answer has no such field, did you mean text"),
        ("key,json.", "'json.' is not JMESPath: Expecting"),
        ("key,json.a b", "Parse error at column 7"),
        ("key,len(text)", "calls len(), and JMESPath has no such function"),
        ("key,&text", "'&text' has an expression (&) where a value is meant"),
        ("not_null(text, &key)", "where a value is meant"),
        ('key,"open', "cannot be read at its column 5: Unclosed"),
        ("key,key", "key is there twice"),
        ("{a: key, a: text}", "a is there twice"),
        ("{a: key}, text", "names stand in one pair of braces"),
        ("{a}", "'a' is no NAME: EXPRESSION"),
        ("key)", "is not JMESPath"),
    ],
)
def test_a_bad_list_is_a_usage_error_that_says_where(fields: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        columns(fields)
    assert why in caught.value.message


def test_an_answer_that_is_nested_too_deeply_is_no_value_of_an_expression() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deeply"):
        compiled("response.choices[0].index")({"response": {"choices": deep}})


@pytest.mark.parametrize(
    ("expression", "field"),
    [
        ("key", "key"),
        ("record.a.b", "record"),
        ("*", None),
        ("keys(@)", None),
        ("@", None),
        ("json[0]", None),
        ("a || b", None),
    ],
)
def test_what_is_no_path_may_look_at_any_field(expression: str, field: str | None) -> None:
    assert first_field(expression) == field


def test_of_a_document_the_fields_that_are_asked_for_are_read() -> None:
    document = {
        "key": msgspec.Raw(b"1"),
        "record": {"a": msgspec.Raw(b"[2]"), "b": 3},
        "response": msgspec.Raw(b"{no JSON"),
    }
    assert plain_document(document, ["record", "key", "json"]) == {"record": {"a": [2], "b": 3}, "key": 1}
    with pytest.raises(ValueError, match="cannot be read"):
        plain_document(document)


def test_a_bad_list_ends_the_command_with_2(filled: Spool) -> None:
    for arguments in (("--fields", "tekst"), ("--csv", "--format", "openai"), ("--limit", "0")):
        assert results(filled, *arguments, code=2)[0] == ""
    assert "two forms" in json.loads(results(filled, "--csv", "--json", code=2)[0])["errors"][0]["message"]


def test_what_an_expression_cannot_take_is_null_there_and_said(filled: Spool) -> None:
    out, said = results(filled, "--fields", "key,length(text)", "--status", "failed", code=3)
    assert json.loads(out) == {"key": 1, "length(text)": None}
    assert "key 1: length(text): " in said


def test_csv_has_every_field_but_the_response_and_is_flat(filled: Spool) -> None:
    head, *rows = table(results(filled, "--csv")[0])
    assert {name.split(".")[0] for name in head} == set(get_type_hints(Result)) - {"response"}
    found = [dict(zip(head, row, strict=True)) for row in rows]
    assert [one["key"] for one in found] == ["0", "2", "1"]
    assert found[0]["json"] == '{"section":"world"}'
    assert json.loads(found[0]["record"]) == {"text": "record number 0"}
    assert (found[2]["error.kind"], found[2]["error.http_status"], found[2]["text"]) == ("refused", "400", "")
    assert int(found[0]["usage.input_tokens"]) > 0


def test_csv_has_its_header_where_there_is_no_row(openai_spool: Spool) -> None:
    assert results(openai_spool, "--csv", "--fields", "key,text")[0] == "key,text\r\n"


HOSTILE = ['a,b "c"\r\nd\ne', "=1+1", "", "-", "\x00\x1b[2J", "☃ \u2028"]


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_comes_out_of_csv_as_it_was(text: str) -> None:
    line = csv_out.line([text, 1, None, True, {"a": text}, 0.1])
    [[again, *others]] = list(csv.reader(io.StringIO(line.decode(), newline="")))
    assert again == text
    assert others[:3] == ["1", "", "true"]
    assert json.loads(others[3]) == {"a": text}
    assert line.endswith(b"\r\n")


def test_figures_are_those_that_were_written() -> None:
    documents: Any = {"json": msgspec.Raw(b'{"n": 12345678901234567890.12345, "m": 1e2}')}
    values, faults = picked(documents, columns("json,json.n"))
    assert faults == []
    assert csv_out.line(values).decode().endswith(",12345678901234567890.12345\r\n")


def test_the_flat_columns_are_expressions_themselves() -> None:
    names = ",".join(column.name for column in flat())
    assert [column.name for column in columns(names)] == names.split(",")


def test_limit_ends_it(filled: Spool) -> None:
    first = [json.loads(line) for line in results(filled, "--limit", "2")[0].splitlines()]
    assert [one["key"] for one in first] == [0, 2]
    after = str(first[-1]["seq"])
    assert [json.loads(line)["key"] for line in results(filled, "--limit", "2", "--after", after)[0].splitlines()] == [
        1
    ]
    assert len(table(results(filled, "--csv", "--limit", "1")[0])) == 2
    assert results(filled, "--format", "openai", "--limit", "1")[0].count("\n") == 1


def test_a_key_that_waits_is_said_and_the_others_are_printed(filled: Spool) -> None:
    out, said = results(filled, "--key", "3", "--key", "0", "--fields", "key", code=3)
    assert out == '{"key":0}\n'
    assert "echo, key 3: pending, no answer yet" in said
    filled.dispatch()
    assert "echo, key 3: submitted, no answer yet" in results(filled, "--key", "3", code=3)[1]


def test_a_key_whose_answer_is_superseded_is_said(filled: Spool) -> None:
    filled.enqueue({"id": 0, "text": "other content"}, replace=True)
    out, said = results(filled, "--key", "0", code=3)
    assert out == ""
    assert "key 0: pending, no answer yet; what was answered before is superseded: its record was replaced" in said


@pytest.mark.parametrize("arguments", [("--status", "failed"), ("--batch", "1"), ("--since", "1h"), ("--after", "1")])
def test_who_asks_for_some_answers_only_is_not_told_of_keys_without_one(
    filled: Spool, arguments: tuple[str, ...]
) -> None:
    assert results(filled, "--key", "3", *arguments) == ("", "")


def test_of_many_keys_without_an_answer_the_first_are_named(openai_spool: Spool) -> None:
    openai_spool.fill(30)
    (openai_spool.folder / "keys").write_text("".join(f"{n}\n" for n in range(25)) + "nobody\n")
    said = results(openai_spool, "--keys-from", "keys", code=3)[1].splitlines()
    assert len(said) == 21
    assert said[-1].endswith("and 6 more")


def test_a_terminal_gets_no_control_characters_in_csv(openai_spool: Spool) -> None:
    openai_spool.set(keep=["text"])
    openai_spool.enqueue({"id": 1, "text": "\x1b[2J bad"})
    openai_spool.settle()
    code = "import sys; from nura_cli.cli import main; sys.argv[1:] = ['results', '--csv', '--fields', 'record.text']; main()"
    terminal, child = pty.openpty()
    with open(child, "wb") as out:
        subprocess.run([sys.executable, "-c", code], cwd=openai_spool.folder, stdout=out, check=True, timeout=60)
        shown = os.read(terminal, 1 << 16)
    os.close(terminal)
    assert shown == b"record.text\r\n\\x1b[2J bad\r\n"


ODD_TEXTS = (
    "",
    "plain",
    'é "quoted" \\ \x7f \u2028 \u0085 \u200e',
    "line\none",
    '{"section":"world"}',
    '{"section": "é\\u00e9", "n": 1e400}',
    '{\n  "section": "world"\n}',
    '```json\n{"section":"world"}\n```',
    '{"section":"\\ud800"}',
    ' {"section":"a\\nb"} ',
    '{"section":"a\\nb"}',
    "[1,2]",
    "{not json}",
)


def bodies(protocol: str) -> list[bytes]:
    """Return response bodies of all kinds, as they may be stored."""

    def made(text: Any, **more: Any) -> dict[str, Any]:
        if protocol == "anthropic":
            content = text if isinstance(text, list) else [{"type": "text", "text": text}]
            return {"model": "claude", "content": content, "stop_reason": "end_turn", **more}
        choice = {"message": {"content": text, "refusal": None}, "finish_reason": "stop"}
        return {"model": "gpt", "choices": [choice], **more}

    sound = [json.dumps(made(text), ensure_ascii=short).encode() for text in ODD_TEXTS for short in (True, False)]
    parts = [{"type": "text", "text": "Well."}, {"type": "text", "text": '{"section":"world"}'}]
    odd = [
        made(parts),
        made(5),
        made("x", model=None),
        made("x", model=""),
        made("x", stop_reason=None, choices=[]),
        [],
    ]
    good = json.dumps(made("x")).encode()
    return [
        *sound,
        *(json.dumps(one).encode() for one in odd),
        json.dumps(made("x"), indent=1).encode(),
        good.replace(b'"x"', b'"\\ud800"'),
        good.replace(b'"x"', b'"\xff"'),
        good.replace(b"{", b'{"n": ' + b"9" * 5000 + b", ", 1),
        good.replace(b"{", b'{"deep": ' + b"[" * 5000 + b"]" * 5000 + b", ", 1),
        json.dumps("no object").encode(),
        b"no JSON",
        b"",
        good + b" " * 3000,
    ]


@pytest.mark.parametrize("schema", [None, SCHEMA], ids=["text", "schema"])
def test_a_line_that_is_composed_is_what_its_document_would_be(spool: Spool, schema: dict[str, Any] | None) -> None:
    kinds = bodies(spool.protocol)
    spool.set(schema=schema, keep=["text", "other", "nothing"], prompt="Which section? world {{ text }}")
    spool.enqueue(*({"id": n, "text": f"é {n}\u2028", "other": [n, 1.50]} for n in range(len(kinds) + 8)))
    spool.settle()
    before = spool.results()
    assert len(before) == len(kinds) + 8
    with State(spool.state_path) as state, state.transaction() as db:
        ids = [row[0] for row in db.execute("SELECT task_id FROM answers ORDER BY seq")]
        pack = packed.packer_small(db, None)
        for n, (task_id, body) in enumerate(zip(ids, kinds, strict=False)):
            value = pack(body) if n % 2 else body
            db.execute("UPDATE answers SET body = ? WHERE task_id = ?", (value, task_id))
        one, two, three, four, five, six, seven, *_ = ids[len(kinds) :]
        attempt = (
            "INSERT INTO attempts (task_id, batch_id, at, outcome, input_tokens, cost) VALUES (?, 99, 1, 'late', 7, ?)"
        )
        db.execute(attempt, (one, 10**12 + 5))
        db.execute(attempt, (two, None))
        db.execute("DELETE FROM attempts WHERE task_id = ?", (three,))
        failed = "UPDATE answers SET status = 'failed', error_kind = 'truncated' WHERE task_id = ?"
        db.execute(failed, (four,))
        db.execute("UPDATE answers SET body = NULL WHERE task_id = ?", (five,))
        db.execute(
            "INSERT INTO deliveries (kind, workload_id, target, type, task_id, batch_id, seq, created_at)"
            " SELECT 'row', 1, 'completed', 'task.completed', task_id, batch_id, seq, 1 FROM answers WHERE task_id = ?",
            (six,),
        )
        db.execute("INSERT INTO purges VALUES (?, 0, 1)", (seven,))
    found = spool.results()  # which compares them
    assert [one["seq"] for one in found] == [
        one["seq"] for one in before if one["key"] != before[len(kinds) + 6]["key"]
    ]
    by_seq = {one["seq"]: one for one in found}
    made = [by_seq[one["seq"]] for one in before[len(kinds) : len(kinds) + 6]]
    pairs = zip(made, before[len(kinds) :], strict=False)
    assert [one["usage"]["input_tokens"] - old["usage"]["input_tokens"] for one, old in pairs][:2] == [7, 7]
    assert [one["cost"] for one in made[1:3]] == [None, "0.00"]
    assert [(one["status"], one["row"]) for one in made[3:]] == [
        ("failed", None),
        ("completed", None),
        ("completed", "waiting"),
    ]
    assert spool.results(after=found[-2]["seq"]) == found[-1:]
    assert spool.results(key=json.dumps(found[3]["key"])) == [found[3]]
    assert spool.results(statuses=[TaskStatus.FAILED]) == [one for one in found if one["status"] == "failed"]
    assert spool.results(batch_id=found[0]["batch_id"]) == [
        one for one in found if one["batch_id"] == found[0]["batch_id"]
    ]


@pytest.mark.parametrize("schema", [None, SCHEMA], ids=["text", "schema"])
def test_a_part_of_a_document_is_what_the_whole_one_has(spool: Spool, schema: dict[str, Any] | None) -> None:
    kinds = bodies(spool.protocol)
    spool.set(schema=schema, keep=["text"], prompt="Which section? world {{ text }}")
    spool.fill(len(kinds) + 3)
    spool.settle()
    with State(spool.state_path) as state:
        with state.transaction() as db:
            db.executemany("UPDATE answers SET body = ? WHERE seq = ?", zip(kinds, range(1, 1000), strict=False))
            failed = "UPDATE answers SET status = 'failed', error_kind = 'truncated', body = ? WHERE seq = ?"
            db.executemany(failed, [(kinds[0], len(kinds) + 1), (None, len(kinds) + 2)])
        made = Documents(state, configuration.load(spool.path))
        [rows] = answers.pages(state.db)
        whole = made.of(rows)
        assert [list(one) for one in whole] == [list(get_type_hints(Answer))] * len(rows)
        for names in ({"key"}, {"status", "json"}, *({name} for name in whole[0]), {"response", "unknown"}):
            wanted = [{name: value for name, value in one.items() if name in names} for one in whole]
            assert msgspec.json.encode(made.parts(rows, names)) == msgspec.json.encode(wanted)


@given(
    st.text(
        st.characters(codec="utf-8") | st.sampled_from("\x7f\x80\x9f\u061c\u200e\u2028\u202e\u2066\u2069\u2019é\u00a0")
    )
)
def test_every_harmful_character_of_a_line_is_escaped_and_no_other(text: str) -> None:
    harmful = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
    line = msgspec.json.encode(text)
    assert harmless(line).decode() == harmful.sub(lambda found: f"\\u{ord(found[0]):04x}", line.decode())
    assert json.loads(harmless(line)) == text
