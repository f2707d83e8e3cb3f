"""No secret stays anywhere: what a provider, a database or a hook repeats of one is neither said nor kept."""

import json
import sqlite3
import sys
from contextlib import closing
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
import typer

from nura_cli import config as configuration
from nura_cli import scrub
from nura_cli.cli import session
from nura_cli.pipeline import results
from nura_cli.state import State
from tests.conftest import Spool
from tests.pipeline.forks import Command

pytestmark = pytest.mark.long


KEY = 'nura-test/9f8e7d6c5b4a"3210'
COMMAND = [sys.executable, "-c", "open('asked', 'a').write('.'); print(open('secret').read())"]
STAGES = ("dispatch", "poll", "reconcile", "poll", "results", "status")


def told(spool: Spool, *options: str, stages: tuple[str, ...] = STAGES) -> str:
    """Run stages as processes; return all that they said."""
    return "".join(Command(spool.folder, spool.clock(), *options, stage).end().out for stage in stages)


def command(spool: Spool, *arguments: str) -> str:
    """Run one command as a process; return what it said."""
    return Command(spool.folder, spool.clock(), *arguments).end().out


def kept(spool: Spool) -> bytes:
    """Return all that lies in and beside the state file."""
    return b"".join(path.read_bytes() for path in spool.folder.rglob("nura.db*") if path.is_file())


def raw_lines(spool: Spool) -> list[bytes]:
    """Return the lines of results as they are printed."""
    config = configuration.load(spool.path)
    with State(config.state) as state:
        return [msgspec.json.encode(document) for document in results.stream(state, config)]


def nowhere(secret: str, *texts: str | bytes) -> bool:
    """Whether a secret stands in no text, plain or escaped."""
    forms = {secret, quote(secret, safe=""), json.dumps(secret)[1:-1], json.dumps(secret)[1:-1].replace("/", "\\/")}
    bytes_of = [text.encode() if isinstance(text, str) else text for text in texts]
    return not any(form.encode() in text for form in forms for text in bytes_of)


def keyed(spool: Spool, **source: Any) -> None:
    """Give the provider a key by one of the options for it; the key itself lies in the file ``secret``."""
    (spool.folder / "secret").write_text(KEY)
    main = {name: value for name, value in spool.provider().items() if name != "api_key_file"}
    spool.providers["main"] = main | source
    spool.set(retry={"max_attempts": 1})
    spool.fill(4)


@pytest.mark.parametrize(
    "source",
    [{"api_key_file": "secret"}, pytest.param({"api_key_command": COMMAND}, marks=pytest.mark.long)],
    ids=["file", "command"],
)
@pytest.mark.parametrize("shape", ["body", "error"])
@pytest.mark.parametrize("options", [pytest.param((), marks=pytest.mark.long), ("--json", "-v")], ids=["", "json"])
def test_a_key_in_a_rows_error_is_kept_nowhere(
    spool: Spool, source: dict[str, Any], shape: str, options: tuple[str, ...]
) -> None:
    keyed(spool, **source)
    words = f"This request has a key in it: {KEY}; cut: {KEY[:20]}"
    spool.control.fault("rows", status=400, message=words, shape=shape, match="number 1")
    said = told(spool, *options)
    assert nowhere(KEY, said, kept(spool))
    assert nowhere(KEY[:20], said, kept(spool))
    (failed,) = spool.results(statuses=["failed"])
    assert "This request has a key in it: [secret]" in failed["error"]["message"]
    assert spool.counts()["completed"] == 3


def test_a_key_that_is_refused_in_a_row_is_kept_nowhere(spool: Spool) -> None:
    keyed(spool, api_key_file="secret")
    words = f"Incorrect API key provided: {KEY}; cut: {KEY[:20]}"
    spool.control.fault("rows", status=401, message=words, match="number 1")
    said = told(spool)
    assert nowhere(KEY, said, kept(spool))
    assert "Incorrect API key provided: [secret]" in said
    assert (spool.counts()["completed"], spool.counts()["pending"]) == (3, 1)


def test_a_key_in_a_batchs_error_is_kept_nowhere(spool: Spool) -> None:
    keyed(spool, api_key_file="secret")
    spool.control.fault("refuse", code=KEY, message=f"no such key: {KEY}", line=2)
    said = told(spool)
    assert "no such key: [secret]" in said
    assert nowhere(KEY, said, kept(spool))


@pytest.mark.parametrize("route", ["create", "list", "retrieve", "download"])
def test_a_key_in_a_refusal_is_kept_nowhere(spool: Spool, route: str) -> None:
    keyed(spool, api_key_file="secret")
    spool.control.fault("status", route, status=400, message=f"no such key: {KEY}", code=KEY, times=-1)
    said = told(spool)
    assert nowhere(KEY, said, kept(spool))


def test_an_answer_that_holds_a_secret_is_not_touched(openai_spool: Spool) -> None:
    keyed(openai_spool, api_key_file="secret")
    openai_spool.enqueue({"id": "it", "text": f"record number it {KEY}"})
    told(openai_spool)
    (answer,) = openai_spool.results(key="it")
    assert KEY in answer["text"]


def test_a_command_for_the_key_is_run_by_reconcile_only_for_words_about_a_failure(spool: Spool) -> None:
    keyed(spool, api_key_command=COMMAND)
    told(spool, stages=("dispatch", "poll"))
    asked = (spool.folder / "asked").read_text()
    assert told(spool, stages=("reconcile",)) == ""
    assert (spool.folder / "asked").read_text() == asked
    spool.enqueue({"id": 8, "text": "a"}, {"id": 9, "text": "b"})
    spool.control.fault("rows", status=400, message="no")
    told(spool, stages=("dispatch", "poll"))
    asked = (spool.folder / "asked").read_text()
    told(spool, stages=("reconcile",))
    assert (spool.folder / "asked").read_text() == asked + "."


def test_reconcile_goes_on_without_a_key_that_cannot_be_read(spool: Spool) -> None:
    keyed(spool, api_key_command=COMMAND)
    spool.control.fault("rows", status=400, message="not this", match="number 1")
    told(spool, stages=("dispatch", "poll"))
    (spool.folder / "secret").unlink()
    assert told(spool, stages=("reconcile",)).count("\n") == 1
    assert spool.counts()["completed"] == 3


def hook(spool: Spool, code: str, **options: Any) -> None:
    """Have a program told of events."""
    spool.set(events=[{"types": ["task.completed"], "command": [sys.executable, "-c", code], **options}])


def test_a_key_that_a_hook_repeats_is_kept_nowhere(openai_spool: Spool) -> None:
    keyed(openai_spool, api_key_file="secret")
    hook(openai_spool, "import sys; sys.exit('x' * 1990 + open('secret').read() * 3)")
    said = told(openai_spool)
    assert "[secret]" in said
    assert nowhere(KEY, said, kept(openai_spool))
    assert KEY[-12:].encode() not in kept(openai_spool)


def written(spool: Spool, url: str) -> None:
    """Have answers written into a database whose URL lies in a file."""
    (spool.folder / "url").write_text(url)
    spool.databases["app"] = {"url": "sqlite:///app.db"}
    with closing(sqlite3.connect(spool.folder / "app.db")) as db:
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)")
    spool.set(write_back={"database": "app", "table": "t", "where": {"id": "key"}, "set": {"a": "text"}})
    spool.fill(2)
    told(spool, stages=("dispatch", "poll"))
    spool.databases["app"] = {"url_file": "url"}
    spool.write_config()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@ss:w/rd@127.0.0.1/db",
        pytest.param("postgresql://u:p%40ss%3Aw%2Frd@127.0.0.1:9/db", marks=pytest.mark.long),
        pytest.param("mysql://u:p@ss:w/rd@127.0.0.1/db", marks=pytest.mark.long),
        "mysql://u:p%40ss%3Aw%2Frd@127.0.0.1:9/db",
        pytest.param("postgresql://127.0.0.1:9/db?user=u&password=p%40ss%3Aw%2Frd", marks=pytest.mark.long),
        "sqlite:///p@ss:w/rd",
    ],
)
@pytest.mark.parametrize("options", [("-v",), pytest.param(("--json",), marks=pytest.mark.long)], ids=["-v", "--json"])
def test_a_databases_password_is_said_and_kept_nowhere(openai_spool: Spool, url: str, options: tuple[str, ...]) -> None:
    written(openai_spool, url)
    said = told(openai_spool, *options, stages=("reconcile", "reconcile", "status", "dispatch"))
    assert "unexpected" not in said
    assert "Traceback" not in said
    if "sqlite" not in url:
        assert nowhere("p@ss:w/rd", said, kept(openai_spool))
        assert not any(part in said for part in ("ss:w", "'w'", "w/rd"))


@pytest.mark.parametrize("options", [{}, {"verbose": True}, {"json": True}], ids=["", "-v", "--json"])
def test_what_nobody_foresaw_is_told_without_secrets(
    capsys: pytest.CaptureFixture[str], options: dict[str, Any]
) -> None:
    scrub.know(KEY)

    def work() -> None:
        raise ValueError(f"invalid literal: {KEY!r}")

    with pytest.raises(typer.Exit) as caught:
        session.run(session.Session("reconcile", **options), work)
    said = "".join(capsys.readouterr())
    assert caught.value.exit_code == 1
    assert "unexpected ValueError: invalid literal: '[secret]'" in said
    assert ("Traceback" in said) == ("verbose" in options)
    assert nowhere(KEY, said)


def test_characters_that_a_terminal_acts_upon_are_escaped_in_what_is_printed(openai_spool: Spool) -> None:
    odd = "".join(map(chr, (0x7F, 0x85, 0x9B, 0x61C, 0x200E, 0x200F, 0x2028, 0x2029, *range(0x202A, 0x202F))))
    odd += "".join(map(chr, range(0x2066, 0x206A)))
    openai_spool.set(keep=["text"])
    openai_spool.enqueue({"id": f"{odd[3:]}é", "text": f"{odd} café 文"})
    (openai_spool.folder / "records").write_text(json.dumps({"id": 1, "text": odd}))
    preview = command(openai_spool, "enqueue", "echo", "records", "-n")
    told(openai_spool, stages=("dispatch", "poll", "reconcile"))
    shown = [command(openai_spool, "results", "--format", form) for form in ("nura", "openai")]
    for line in (preview, *shown):
        assert not set(odd) & set(line)
        assert line.count("\n") == len(line.splitlines()) == 1
    answer = json.loads(shown[0])
    assert answer["record"]["text"] == f"{odd} café 文"
    assert "café 文" in shown[0]
    assert json.loads(shown[1])["response"]["body"]["choices"][0]["message"]["content"] == answer["text"]


def test_messages_and_their_json_hold_no_such_character(openai_spool: Spool) -> None:
    odd = "a\x7f\x85\x9b\u202e\u2066\u2028b"
    openai_spool.fill(1)
    openai_spool.control.fault("refuse", code="odd", message=odd, times=-1)
    for options in ((), ("--json",)):
        said = told(openai_spool, *options)
        assert not set(odd[1:-1]) & set(said)


def test_an_answer_with_a_carriage_return_between_its_words_is_printed_on_one_line(openai_spool: Spool) -> None:
    openai_spool.fill(1)
    told(openai_spool, stages=("dispatch", "poll", "reconcile"))
    with closing(sqlite3.connect(openai_spool.folder / "nura.db")) as db, db:
        db.execute("UPDATE answers SET body = CAST(replace(body, ',', ',' || char(13)) AS BLOB)")
    (line,) = raw_lines(openai_spool)
    assert not set(b"\r\n") & set(line)


def test_what_is_no_text_is_told_as_json_all_the_same(openai_spool: Spool) -> None:
    said = command(openai_spool, "--json", "-c", "no-\udcff-file.yaml", "poll")
    assert "no-" in json.loads(said)["errors"][0]["message"]
