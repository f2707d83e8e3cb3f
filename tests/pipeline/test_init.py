"""nura init: what it writes passes nura check, and takes the very sample that it was made from."""

import gzip
import io
import json
import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nura_cli import config as configuration
from nura_cli import contract
from nura_cli.cli import build
from nura_cli.dialects import vendors
from nura_cli.pipeline import check, enqueue, sample_file, starter
from nura_cli.pipeline.render import rendering
from nura_cli.pipeline.shape import Shape, shape_of
from tests import documents
from tests.end_to_end.test_command_line import NURA, nura

UTF8_BOM = b"\xef\xbb\xbf"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and this process in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*options: str, given: bytes = b"") -> Any:
    """Run nura init."""
    return CliRunner().invoke(build(["init"]), ["init", *options], input=given)


def lines(*records: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)


def prompts(folder: Path, records: list[dict[str, Any]]) -> list[str]:
    """Return the prompts of records, by the configuration that init wrote: it passes check, and takes each of them."""
    report = check.run(check.Checked(folder / "nura.yaml"))
    assert [one for one in report.result["checks"] if one["level"] != "ok"] == []
    documents.check_configuration((folder / "nura.yaml").read_text())
    [workload] = configuration.load(folder / "nura.yaml").workloads.values()
    dialect = vendors.dialect("openai")
    rendered = rendering(workload, dialect)
    source = enqueue.Source("-", io.BytesIO(lines(*records)))
    reader = enqueue.Reader(workload, dialect)
    read = list(enqueue.first(reader, [source], len(records), lambda n, one: one))
    assert not [one for one in read if not isinstance(one, enqueue.Read)]
    return [json.loads(rendered.body(one.line))["messages"][-1]["content"] for one in read]  # type: ignore[union-attr]


SAMPLES: dict[str, tuple[list[dict[str, Any]], str]] = {
    "two texts": ([{"id": 1, "title": "A b", "body": "C d"}, {"id": 2, "title": "E f", "body": "G h"}], "id"),
    "a text that some lack": (
        [{"id": 1, "title": "A b"}, {"id": 2, "title": None}, {"id": 3, "x": "Some words"}],
        "id",
    ),
    "nested": ([{"id": "a", "meta": {"author": {"name": "Jo Doe"}}}, {"id": "b", "meta": None}, {"id": "c"}], "id"),
    "methods of mappings": ([{"id": 1, "m": {"items": "x y", "keys": "z z"}}, {"id": 2, "m": {"get": "x x"}}], "id"),
    "odd names": ([{"id": 1, 'odd "name" é{{ }} %}': "A b", "range": "C d", "none": "G h"}], "id"),
    "a field called record": ([{"id": 1, "record": "A b", "title": "C d", "odd one": "Eeee"}], "id"),
    "an odd name for its key": ([{"no: #1": "a1", "text": "A b"}, {"no: #1": "a2", "text": "C d"}], "no: #1"),
    "names of YAML's own": ([{"true": 5, "on": "A b"}, {"true": 6, "on": "C d"}], "true"),
    "MongoDB": ([{"_id": {"$oid": "65a"}, "text": "A b"}, {"_id": {"$oid": "65b"}, "text": "C d"}], "_id.$oid"),
    "a key by another name": ([{"text": "A b", "n": 1, "isbn": "x1"}, {"text": "A b", "n": 1, "isbn": "x2"}], "isbn"),
    "an id that is not one": ([{"id": 1, "uuid": "u1", "t": "A b"}, {"id": 1, "uuid": "u2", "t": "C d"}], "uuid"),
    "other alphabets": ([{"id": 1, "título": "Más Ünïcode 漢字 😀"}], "id"),
    "no text at all": ([{"id": 1, "n": 5}, {"id": 2, "n": 6}], "id"),
    "a text over lines": ([{"id": 1, "text": 'A\n# b\t"c": |\n {{ d }} \u2028'}], "id"),
    "a control in a name": ([{"id": 1, "a\u0085b\u001b": "A b"}], "id"),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_what_it_writes_takes_the_sample(folder: Path, name: str) -> None:
    records, key = SAMPLES[name]
    (folder / "my records.jsonl").write_bytes(lines(*records))
    ended = invoke("--from", "my records.jsonl")
    assert ended.exit_code == 0, ended.output
    [(workload, options)] = configuration.load(folder / "nura.yaml").workloads.items()
    assert (workload, options.key) == ("my-records", key)
    for record, prompt in zip(records, prompts(folder, records), strict=True):
        for text in texts(record, key):
            assert text in prompt


def texts(value: Any, key: str) -> list[str]:
    """Return every text of a record that is not its key."""
    if isinstance(value, dict):
        return [text for name, one in value.items() if name != key.partition(".")[0] for text in texts(one, "")]
    return [value] if isinstance(value, str) and (" " in value or "\n" in value) else []


CSVS = {
    "commas": b"id,title,n\n1,A b,2\n2,C d,2\n",
    "semicolons and a BOM": UTF8_BOM + b"id;title;n\r\n1;A, b;2\r\n2;C d;2\r\n",
    "tabs": b"id\ttitle\n1\tA b\n2\tC d\n",
    "quotes and lines": b'"id","title"\n"1","A\nb, c"\n"2","C d"\n',
    "rows that are short": b"id,title,more\n1,A b,E f\n2,C d\n",
}


@pytest.mark.parametrize("name", CSVS)
@pytest.mark.parametrize("packed", [False, True])
def test_csv_is_a_sample_as_well(folder: Path, name: str, packed: bool) -> None:
    data = gzip.compress(CSVS[name]) if packed else CSVS[name]
    ended = invoke("--from", "-", given=data)
    assert ended.exit_code == 0, ended.output
    assert "--csv" in ended.stdout
    sample = sample_file.read(io.BytesIO(data), "-")
    assert [record["id"] for record in sample.records] == ["1", "2"]
    assert "b" in prompts(folder, sample.records)[0]


READY = {
    "openai": {
        "custom_id": "a",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "Hi there"}]},
    },
    "anthropic": {
        "custom_id": "a",
        "params": {"model": "claude-haiku-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi there"}]},
    },
}


@pytest.mark.parametrize("protocol", READY)
def test_of_ready_lines_it_makes_a_workload_that_takes_them(folder: Path, protocol: str) -> None:
    (folder / "batch.jsonl").write_bytes(lines(READY[protocol]))
    assert invoke("--from", "batch.jsonl").exit_code == 0
    assert check.run(check.Checked(folder / "nura.yaml")).exit_code == 0
    assert nura("enqueue", "batch", "batch.jsonl", cwd=folder).returncode == 0
    assert nura("run", "--wait", "30s", cwd=folder).returncode == 0
    [answer] = nura("results", "batch", cwd=folder).stdout.splitlines()
    assert (json.loads(answer)["key"], json.loads(answer)["status"]) == ("a", "completed")


def test_lines_that_are_no_records_are_passed_over(folder: Path) -> None:
    data = b'{"id": 1, "t": "A b"}\n{"id": 2,\n\n[1]\n{"id": 3, "t": "C d"}\n'
    assert invoke("--from", "-", given=data).exit_code == 0
    assert sample_file.read(io.BytesIO(data), "-").records == [{"id": 1, "t": "A b"}, {"id": 3, "t": "C d"}]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "holds no record"),
        (b"\n \n", "holds no record"),
        (b"{\n", "-:1: "),
        (b'[{"id": 1}]', "is a JSON array"),
        (b"id,id\n1,2\n", "2 columns named id"),
        (b"id,title\n", "holds no record"),
        (b"\x00\x01\x02", "names no columns"),
        ("id,título\n1,é\n".encode("latin-1"), "not valid UTF-8"),
        (b'{"t": "a"}\n{"t": "a"}\n', "no field of the sample is in every record"),
        (b"\x1f\x8b\x08\x00damaged", "ends too early"),
    ],
)
def test_what_is_no_sample_is_refused_and_nothing_is_written(folder: Path, data: bytes, said: str) -> None:
    ended = invoke("--from", "-", given=data)
    assert (ended.exit_code, said in ended.stderr) == (2, True), ended.output
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["nura.yaml", "nura.crontab"])
def test_nothing_is_overwritten(folder: Path, name: str) -> None:
    (folder / name).symlink_to(folder / "nowhere")
    ended = invoke()
    assert (ended.exit_code, f"{name}: is there already" in ended.stderr) == (2, True)
    assert [path.name for path in folder.iterdir()] == [name]


@pytest.mark.parametrize(
    "options",
    [("--from", "absent"), ("--from", "."), ("--table", "t"), ("--from", "-", "--table", "t", "--database-env", "X")],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(folder: Path, options: tuple[str, ...]) -> None:
    ended = invoke(*options, given=lines({"id": 1}))
    assert (ended.exit_code, ended.stderr.count("\n")) == (2, 1)
    assert list(folder.iterdir()) == []
    assert invoke("-c", "nowhere/nura.yaml").exit_code == 2


def test_alone_it_writes_a_workload_to_begin_with(folder: Path) -> None:
    done = json.loads(invoke("--json").stdout)
    documents.check(done, (contract.Envelope, contract.Begun))
    assert prompts(folder, [{"id": 1, "text": "A b"}])[0].endswith("A b\n")


def test_the_crontab_names_this_nura_and_this_configuration(folder: Path) -> None:
    subprocess.run([NURA, "init", "-c", "here.yaml"], cwd=folder, check=True, timeout=60, capture_output=True)
    text = (folder / "here.crontab").read_text()
    assert f"NURA={NURA}\nNURA_CONFIG={folder / 'here.yaml'}\n" in text
    assert '*/15 * * * *  "$NURA" run\n' in text


def test_a_shape_leaves_out_what_says_nothing_to_a_model() -> None:
    records = [
        {"id": n, "title": "A b", "url": "https://x.example/a", "at": "2026-01-02T03:04:05Z", "updatedAt": "x"}
        for n in range(3)
    ]
    shape = shape_of(records)
    assert shape.key == "id"
    assert ("title",) in [text.path for text in shape.texts]
    assert not {("url",), ("at",)} & {text.path for text in shape.texts}
    assert shape.keep == ["updatedAt"]


def test_comments_are_the_options_own_descriptions() -> None:
    text = starter.configuration(starter.Start("w", Shape("id", [], [])))
    for option in ("provider", "model", "key", "prompt"):
        assert str(configuration.WorkloadConfig.model_fields[option].description) in text


# --- a table


def database(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "app.db")) as db, db:
        for statement in statements:
            db.execute(statement)


def test_from_a_table_and_back_into_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database(
        folder,
        'CREATE TABLE "my articles" (id INTEGER PRIMARY KEY, title TEXT NOT NULL, "a body" TEXT, updated_at TEXT, summary TEXT)',
        "INSERT INTO \"my articles\" VALUES (1, 'One title', NULL, '2026', NULL), (2, 'Two', 'b b', '2026', 'has one')",
    )
    monkeypatch.setenv("APP", "sqlite:///app.db")
    assert invoke("--database-env", "APP", "--table", "my articles").exit_code == 0
    report = check.run(check.Checked(folder / "nura.yaml"))
    assert [one for one in report.result["checks"] if one["level"] != "ok"] == []
    assert nura("enqueue", "--from-source", cwd=folder, APP=os.environ["APP"]).returncode == 0
    assert nura("run", "--wait", "30s", cwd=folder, APP=os.environ["APP"]).returncode == 0
    with closing(sqlite3.connect(folder / "app.db")) as db:
        [(one,), (two,)] = db.execute('SELECT summary FROM "my articles" ORDER BY id')
    assert "title: One title" in one
    assert two == "has one"


def test_of_a_table_without_a_column_for_answers_it_says_what_makes_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database(folder, "CREATE TABLE t (a TEXT, b INTEGER, words TEXT, label VARCHAR(20), PRIMARY KEY (a, b))")
    monkeypatch.setenv("APP", "sqlite:///app.db")
    assert invoke("--database-env", "APP", "--table", "t").exit_code == 0
    text = (folder / "nura.yaml").read_text()
    assert "ALTER TABLE t ADD COLUMN answer TEXT" in text
    database(folder, "ALTER TABLE t ADD COLUMN answer TEXT")
    active = text.replace("    # write_back:", "    write_back:").replace("    #   ", "      ")
    (folder / "nura.yaml").write_text(active)
    [workload] = configuration.load(folder / "nura.yaml").workloads.values()
    assert workload.key == ["a", "b"]
    assert workload.write_back is not None
    assert check.run(check.Checked(folder / "nura.yaml")).exit_code == 0


@pytest.mark.parametrize(
    ("variable", "table", "code", "said"),
    [
        ("postgresql://u:hunter2hunter2@h/x", "t", 2, "takes the name of an environment variable"),
        ("ABSENT", "t", 2, "ABSENT: is not set"),
        ("APP", "tt", 78, "the database has no table tt, did you mean t"),
        ("APP", "loose", 2, "has no primary key"),
        ("BAD", "t", 78, "URL cannot be read"),
        ("NONE", "t", 78, "no database at"),
    ],
)
def test_a_table_that_cannot_be_looked_at_is_said_without_its_url(
    folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str, table: str, code: int, said: str
) -> None:
    database(folder, "CREATE TABLE t (id INTEGER PRIMARY KEY)", "CREATE TABLE loose (a TEXT)")
    for name, url in (("APP", "sqlite:///app.db"), ("BAD", "no url hunter2hunter2"), ("NONE", "sqlite:///none.db")):
        monkeypatch.setenv(name, url)
    ended = invoke("--database-env", variable, "--table", table)
    assert (ended.exit_code, said in ended.stderr) == (code, True), ended.output
    assert "hunter2" not in ended.output
    assert [path.name for path in folder.iterdir()] == ["app.db"]
