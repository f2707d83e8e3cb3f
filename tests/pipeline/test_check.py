"""nura check: what can be found before anything is paid for is found, each part by itself, and nothing is written."""

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nura_cli import contract
from nura_cli.cli import build
from nura_cli.pipeline import check
from nura_cli.pipeline.check import Checked
from nura_cli.pipeline.report import Report
from nura_cli.state import State, schema
from nura_cli.state.locks import lock
from tests import documents
from tests.conftest import START, Spool

ANSWER = {
    "type": "object",
    "properties": {"n": {"type": ["integer", "null"]}, "s": {"type": "string"}},
    "required": ["n", "s"],
    "additionalProperties": False,
}


@pytest.fixture
def openai_spool(openai_spool: Spool) -> Spool:
    """A spool whose key is its owner's alone."""
    (openai_spool.folder / "key").chmod(0o600)
    return openai_spool


def checked(spool: Spool, **options: Any) -> Report:
    """Check the spool's configuration, by its clock."""
    report = check.run(Checked(spool.path, clock=spool.clock, **options))
    documents.check(report.result, contract.Checked)
    return report


def told(report: Report, level: str) -> list[str]:
    """Return what was found on a level: what it belongs to, and what is said of it."""
    return [f"{one['part']}: {one['message']}" for one in report.result["checks"] if one["level"] == level]


def table(spool: Spool, columns: str = "id INTEGER PRIMARY KEY, text TEXT, n INTEGER", **options: Any) -> None:
    """Give the workload a table that its answers go to."""
    with closing(sqlite3.connect(spool.folder / "app.db")) as db:
        db.execute(f"CREATE TABLE t ({columns})")
    spool.databases["app"] = {"url": "sqlite:///app.db"}
    back = {"database": "app", "table": "t", "where": {"id": "key"}, "set": {"text": "text"}, **options}
    spool.set(write_back=back)


def contents(folder: Path) -> dict[str, Any]:
    """Return every file of a folder, with its bytes and the times at which it and its inode were last changed."""
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_ctime_ns, path.is_file() and path.read_bytes())
        for path in [folder, *sorted(folder.rglob("*"))]
    }


def test_what_is_in_order_is_said_to_be(openai_spool: Spool) -> None:
    spool = openai_spool
    table(spool)
    spool.fill(1)
    report = checked(spool)
    assert (report.exit_code, told(report, "warn"), told(report, "fail")) == (0, [], [])
    parts = [one["part"] for one in report.result["checks"]]
    assert parts == ["configuration", "provider main", "database app", "workload echo", "state", "state"]


def test_nothing_is_written_and_nobody_is_asked(openai_spool: Spool) -> None:
    spool = openai_spool
    table(spool)
    spool.providers["box"] = {"kind": "sandbox"}
    spool.set("boxed", provider="box")
    asked = len(spool.control.log())
    before = contents(spool.folder)
    assert not spool.state_path.exists() or before
    checked(spool, online=False)
    assert contents(spool.folder) == before
    spool.fill(2)
    before = contents(spool.folder)
    assert checked(spool).exit_code == 0
    assert contents(spool.folder) == before
    assert len(spool.control.log()) == asked


def test_a_state_file_that_is_in_use_is_read_and_left(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(1)
    with State(spool.state_path, spool.clock) as state, state.transaction() as db:
        db.execute("UPDATE meta SET value = value")
        with lock(state.lock_path("poll"), START - 60):
            report = checked(spool)
    assert report.exit_code == 0
    assert f"state: poll is at work (process {os.getpid()}, for 1m)" in told(report, "ok")
    assert not [line for line in told(checked(spool), "ok") if "dispatch is at work" in line]


def test_an_older_state_file_is_left_for_the_next_command(openai_spool: Spool) -> None:
    spool = openai_spool
    old = (Path(__file__).parents[1] / "state" / "version_4.sql").read_text()
    spool.state_path.unlink()
    with closing(sqlite3.connect(spool.state_path)) as db:
        db.executescript(old)
    spool.state_path.chmod(0o600)
    before = contents(spool.folder)
    assert any("of an older nura (schema 4)" in line for line in told(checked(spool), "ok"))
    assert contents(spool.folder) == before


def test_what_cannot_be_a_state_file_fails(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(1)
    with closing(sqlite3.connect(spool.state_path)) as db:
        db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    report = checked(spool)
    assert (report.exit_code, report.problems[0].kind) == (78, "state_newer")
    text = spool.folder / "other.txt"
    text.write_text("no database" * 100)
    assert (checked(spool, state=text).exit_code, len(told(checked(spool, state=text), "fail"))) == (78, 1)
    report = checked(spool, state=spool.folder / "nowhere" / "nura.db")
    assert (report.exit_code, told(report, "fail")) == (
        75,
        [f"state: {spool.folder}/nowhere: No such file or directory"],
    )


def test_a_clock_that_was_set_back_is_a_warning(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(1)
    spool.dispatch()
    spool.clock.advance(-7200)
    report = checked(spool)
    assert report.exit_code == 0
    assert any("the state file has times 2h later" in line for line in told(report, "warn"))


def test_each_mistake_is_told_with_its_line_and_hides_no_other(openai_spool: Spool) -> None:
    spool = openai_spool
    (spool.folder / "prompt.txt").write_text("{{ a }}\n{% if %}")
    spool.path.write_text(
        """\
providers:
  main: {kind: openai, api_key_file: absent}
  other: {kind: opneai}
databases:
  app: {url: "sqlite:///absent.db"}
workloads:
  one:
    provider: main
    model: gpt-4.1-mini
    prompt_file: prompt.txt
    schema: {type: object}
    write_back: {database: app, table: t, where: {id: key}, set: {a: text}}
    events:
      - {types: [task.completed], command: [./absent]}
  two: {provider: other, model: m, prompt: "{{ a }}"}
  three: {provider: main, model: m, prompt: x, timeout: 5}
"""
    )
    report = checked(spool)
    lines = "\n".join(told(report, "fail"))
    for place, why in (
        ("nura.yaml:3: providers.other.kind", "must be 'openai'"),
        ("nura.yaml:16: workloads.three.timeout", "unknown option"),
        ("nura.yaml:2: providers.main", "absent: No such file"),
        ("nura.yaml:5: databases.app", "no database at"),
        ("prompt.txt:2: workloads.one.prompt_file", "is no valid template"),
        ("nura.yaml:11: workloads.one.schema", "additionalProperties"),
        ("nura.yaml:14: workloads.one.events.0.command", "there is no such program"),
    ):
        assert any(place in line and why in line for line in lines.splitlines()), (place, lines)
    assert report.exit_code == 78
    assert any("the others once those are mended" in line for line in told(report, "warn"))


@pytest.mark.parametrize("text", ["a: [", "", "providers: 5", "providers: {}", "- a"])
def test_a_file_that_makes_no_configuration_is_one_failure(openai_spool: Spool, text: str) -> None:
    openai_spool.path.write_text(text)
    report = checked(openai_spool)
    assert (report.exit_code, bool(told(report, "fail"))) == (78, True)


def test_options_that_nobody_knows_and_models_without_a_price_are_warnings(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.set(params={"max_token": 5, "seed": 1}, model="gpt-4.1-mimi")
    report = checked(spool)
    assert report.exit_code == 0
    found = [one for one in report.result["checks"] if one["level"] == "warn"]
    assert ["workloads.echo.params.max_token" in found[0]["message"], found[0]["hint"]] == [
        True,
        "did you mean max_tokens?",
    ]
    assert "no price of gpt-4.1-mimi is known" in found[1]["message"]
    assert "providers.main.prices" in found[1]["hint"]
    assert len(found) == 2
    spool.providers["main"] = spool.provider(prices={"gpt-4.1-mimi": {"input": 1, "output": 2}})
    spool.set(model="gpt-4.1-mimi")
    assert not [line for line in told(checked(spool), "warn") if "price" in line]


def test_an_option_that_anthropic_has_withdrawn_is_a_warning(anthropic_spool: Spool) -> None:
    spool = anthropic_spool
    spool.set(params={"max_tokens": 5, "temperature": 0})
    assert ["temperature" in line for line in told(checked(spool), "warn") if "params" in line] == [True]
    spool.set(params={"max_tokens": 5, "thinking": {"type": "disabled"}})
    assert not [line for line in told(checked(spool), "warn") if "params" in line]


def test_answers_that_a_column_cannot_take_are_warnings(openai_spool: Spool) -> None:
    spool = openai_spool
    table(spool, set={"text": "json.n", "n": "json.s"})
    spool.set(schema=ANSWER)
    found = "\n".join(told(checked(spool), "warn"))
    assert (
        'write_back.set.n: an answer may be such that its row cannot be written: "text" is not a whole number' in found
    )
    assert "write_back.set.text" in found
    assert "json.n is null (list text under nullable)" in found


def test_what_a_broken_database_keeps_from_being_looked_at_is_not_told_again(openai_spool: Spool) -> None:
    spool = openai_spool
    table(spool)
    spool.set(source={"database": "app", "query": "SELECT 1 AS id, 'a' AS text"})
    (spool.folder / "app.db").unlink()
    report = checked(spool)
    assert (report.exit_code, len(told(report, "fail"))) == (78, 1)
    assert any("in order by itself; it waits for database app" in line for line in told(report, "ok"))


def test_what_a_table_lacks_fails_at_its_option(openai_spool: Spool) -> None:
    spool = openai_spool
    table(spool, set={"txet": "text"})
    report = checked(spool)
    assert report.exit_code == 78
    assert any("write_back.set.txet: table t has no column txet, did you mean text" in x for x in told(report, "fail"))


def test_a_source_whose_rows_lack_what_the_prompt_needs_is_a_warning(openai_spool: Spool) -> None:
    spool = openai_spool
    table(spool)
    with closing(sqlite3.connect(spool.folder / "app.db")) as db, db:
        db.execute("INSERT INTO t VALUES (1, 'a', 2)")
    for query, said in (("SELECT id, n FROM t", "the prompt needs text"), ("SELECT text FROM t", "key field id")):
        spool.set(source={"database": "app", "query": query})
        assert any(said in line for line in told(checked(spool), "warn")), query
    spool.set(source={"database": "app", "query": "SELECT id, text FROM t"})
    assert told(checked(spool), "warn") == []
    spool.set(source={"database": "app", "query": "SELECT nothing FROM t"})
    assert checked(spool).exit_code == 78


def test_files_of_secrets_that_others_may_read_are_warnings_and_no_secret_is_told(openai_spool: Spool) -> None:
    spool = openai_spool
    (spool.folder / "key").chmod(0o644)
    report = checked(spool)
    assert any("others may read it (mode 0644)" in line for line in told(report, "warn"))
    assert "sk-test-1" not in json.dumps(report.result)


def test_roots_check_of_anothers_state_file_fails_as_its_stages_would(openai_spool: Spool) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, who alone may give files away")
    os.chown(openai_spool.state_path, 65534, -1)
    report = checked(openai_spool)
    assert (report.exit_code, ["belongs to" in line for line in told(report, "fail")]) == (78, [True])


def test_a_sqlite_file_that_may_not_be_written_fails(openai_spool: Spool) -> None:
    table(openai_spool)
    (openai_spool.folder / "app.db").chmod(0o400)
    if os.geteuid() == 0:  # root may write everything: what may be is asked for the real user
        os.setreuid(65534, -1)
    try:
        report = checked(openai_spool)
    finally:
        if os.geteuid() == 0:
            os.setreuid(0, -1)
    assert any("app.db: may not be written" in line for line in told(report, "fail"))


# --- online


def test_online_asks_each_provider_for_its_list_once(openai_spool: Spool) -> None:
    spool = openai_spool
    report = checked(spool, online=True)
    assert report.exit_code == 0
    assert "provider main: takes the key, and lists its batches" in told(report, "ok")
    assert [row["route"] for row in spool.control.log()] == ["list"]
    spool.clock.time += 1000
    assert any("16m ahead of the provider's" in line for line in told(checked(spool, online=True), "warn"))


@pytest.mark.parametrize(("status", "code"), [(401, 77), (503, 75)])
def test_online_a_provider_that_says_no_is_told_by_the_exit_code(openai_spool: Spool, status: int, code: int) -> None:
    spool = openai_spool
    spool.control.fault("status", "list", status=status, times=-1)
    assert checked(spool, online=True).exit_code == code
    spool.set(schema={"type": "object"})
    assert checked(spool, online=True).exit_code == 3


# --- the command


def invoke(spool: Spool, *options: str) -> Any:
    return CliRunner().invoke(build(["check"]), ["check", "-c", str(spool.path), *options])


def test_each_finding_is_a_line_and_quiet_says_only_what_fails(openai_spool: Spool) -> None:
    spool = openai_spool
    ended = invoke(spool)
    assert ended.exit_code == 0
    assert [line[:4] for line in ended.stdout.splitlines()] == ["ok  "] * 5
    assert invoke(spool, "-q").output == ""
    spool.set(prompt="{{ a", params={"max_token": 1})
    ended = invoke(spool)
    assert (ended.exit_code, ended.stderr) == (78, "")
    assert [line[:4] for line in ended.stdout.splitlines()].count("fail") == 1
    quiet = invoke(spool, "-q")
    assert (quiet.exit_code, quiet.stdout, quiet.stderr.count("\n")) == (78, "", 1)
    document = json.loads(invoke(spool, "--json").stdout)
    assert (document["exit_code"], len(document["errors"])) == (78, 1)
    documents.check(document, (contract.Envelope, contract.Checked))
