"""The options of delivery: databases, sources, write-back, events."""

import sqlite3
from pathlib import Path

import pytest

from nura_cli import config
from nura_cli.config import DatabaseConfig
from nura_cli.delivery import source
from nura_cli.errors import ConfigError

BASE = """\
providers: {box: {kind: sandbox}}
databases: {app: {url: "sqlite:///app.db"}}
workloads:
  w:
    provider: box
    model: m
    prompt: "{{ a }}"
"""


def problems(tmp_path: Path, text: str) -> dict[str, str]:
    """Return what is said of a configuration, by place."""
    path = tmp_path / "nura.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    return {found.where: found.message for found in caught.value.problems}


def database(tmp_path: Path, options: str) -> DatabaseConfig:
    path = tmp_path / "nura.yaml"
    path.write_text(f"providers: {{box: {{kind: sandbox}}}}\ndatabases: {{app: {{{options}}}}}\n")
    return config.load(path).databases["app"]


@pytest.mark.parametrize(
    ("given", "place", "said"),
    [
        (
            "write_back: {database: ap, table: t, where: {id: key}, set: {s: text}}",
            "write_back.database",
            "did you mean app",
        ),
        ("write_back: {database: app, table: t, where: {}, set: {s: text}}", "write_back.where", "must not be empty"),
        (
            "write_back: {database: app, table: t, where: {id: key}}",
            "write_back",
            "give set, set_failed or set_cancelled",
        ),
        (
            "write_back: {database: app, table: t, where: {id: key}, set_cancelled: {e: record.no}}",
            "write_back.set_cancelled.e",
            "name no under keep",
        ),
        (
            "write_back: {database: app, table: t, where: {id: key}, sets: {s: text}}",
            "write_back.sets",
            "did you mean set",
        ),
        (
            "write_back: {database: app, table: t, where: {id: record.no}, set: {s: text}}",
            "write_back.where.id",
            "name no under keep",
        ),
        ("source: {database: nope, query: SELECT 1}", "source.database", "no database nope"),
        ("source: {database: app}", "source.query", "is required"),
        ("events: [{types: [task.completed]}]", "events.0", "give one of command and webhook"),
        (
            "events: [{types: [task.completed], command: [x, y], answers: true}, {types: [task.failed], command: [x, y]}]",
            "events.1",
            "stands above already",
        ),
        ("events: [{types: [], command: [x]}]", "events.0.types", "must not be empty"),
        ("events: [{types: [task.done], command: [x]}]", "events.0.types.0", "task.completed"),
        ("events: [{types: [task.failed], command: []}]", "events.0.command", "must not be empty"),
        ("events: [{types: [task.failed], command: [x], timeout: 0s}]", "events.0.timeout", "greater than 0"),
        ("events: [{types: [task.failed], command: [x], secret_env: X}]", "events.0.secret_env", "is for a webhook"),
        (
            "events: [{types: [task.failed], webhook: 'https://x/'}]",
            "events.0",
            "needs one of secret_env and secret_file",
        ),
        (
            "events: [{types: [task.failed], webhook: 'https://u:p@x/', secret_env: X}]",
            "events.0.webhook",
            "without credentials",
        ),
        (
            "events: [{types: [task.failed], webhook: 'ftp://x/', secret_env: X}]",
            "events.0.webhook",
            "http:// or https://",
        ),
        (
            "events: [{types: [task.failed], webhook: 'https://x/', secret_env: whsec_a+b}]",
            "events.0.secret_env",
            "never in this file",
        ),
        (
            "events: [{types: [task.failed], webhook: 'https://x/', secret_env: X, env: [A]}]",
            "events.0.env",
            "is for a command",
        ),
    ],
)
def test_what_is_wrong_is_said_at_its_place(tmp_path: Path, given: str, place: str, said: str) -> None:
    found = problems(tmp_path, f"{BASE}    {given}\n")
    assert said in found[f"workloads.w.{place}"]


def test_a_source_needs_a_prompt(tmp_path: Path) -> None:
    text = BASE.replace("    model: m\n", "").replace('    prompt: "{{ a }}"\n', "")
    found = problems(tmp_path, text + "    source: {database: app, query: SELECT 1}\n")
    assert "needs a prompt" in found["workloads.w.source"]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:secret@host/db",
        "postgresql://user:sec/ret@host/db",
        "mysql+pymysql://user:@host/db",
        "postgresql://user@host/db?password=secret",
        "postgresql://host/db?sslmode=require&sslpassword=secret",
    ],
)
def test_a_password_is_never_in_the_file(tmp_path: Path, url: str) -> None:
    path = tmp_path / "nura.yaml"
    path.write_text(f"providers: {{box: {{kind: sandbox}}}}\ndatabases: {{app: {{url: '{url}'}}}}\n")
    with pytest.raises(ConfigError, match="url_env or url_file") as caught:
        config.load(path)
    assert "sec" not in str(caught.value)


def test_a_sqlite_file_is_relative_to_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_URL", "sqlite:///data/app.db?timeout=3")
    (tmp_path / "url").write_text("sqlite+pysqlite:///app.db\n")
    (tmp_path / "url").chmod(0o600)
    assert database(tmp_path, "url: 'sqlite:///app.db'").secret() == f"sqlite:///{tmp_path}/app.db"
    assert database(tmp_path, "url: 'sqlite:////var/app.db'").secret() == "sqlite:////var/app.db"
    assert database(tmp_path, "url_env: APP_URL").secret() == f"sqlite:///{tmp_path}/data/app.db?timeout=3"
    assert database(tmp_path, "url_file: url").secret() == f"sqlite+pysqlite:///{tmp_path}/app.db"
    assert database(tmp_path, "url: 'postgresql://me@host/db'").secret() == "postgresql://me@host/db"


@pytest.mark.parametrize("folder", ["plain", "a%20b", "wh?at#x", "ü é"])
@pytest.mark.parametrize(
    ("file", "url"),
    [
        ("app.db", "app.db?timeout=1"),
        ("a b.db", "a b.db"),
        ("a b.db", "a%20b.db"),
        ("x%20y.db", "x%20y.db"),
        ("x%20y.db", "x%2520y.db"),
        ("w?z.db", "w?z.db"),
        ("w?z.db", "w%3Fz.db?timeout=1"),
        ("h#z.db", "h#z.db"),
    ],
)
def test_a_sqlite_file_is_found_whatever_its_name_means_in_a_url(
    tmp_path: Path, folder: str, file: str, url: str
) -> None:
    home = tmp_path / folder
    home.mkdir()
    with sqlite3.connect(home / file) as db:
        db.execute("CREATE TABLE t AS SELECT 1 AS a")
    db.close()
    found = database(home, f"url: 'sqlite:///{url}'")
    assert list(source.rows(found.secret(), "SELECT a FROM t")) == [b'{"a":1}']
    assert home / file in found.files()
    assert [path.name for path in home.iterdir() if path.suffix == ".db"] == [file]


def test_a_url_that_is_not_to_be_had_names_its_option_and_no_value(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="url_env: the environment variable NURA_NOT_SET"):
        database(tmp_path, "url_env: NURA_NOT_SET").secret()
    assert "give one of url, url_env, url_file" in str(
        problems(tmp_path, "providers: {box: {kind: sandbox}}\ndatabases: {app: {}}\n")
    )


def test_a_program_is_relative_to_the_configuration_unless_it_is_a_name(tmp_path: Path) -> None:
    path = tmp_path / "nura.yaml"
    events = "[{types: [task.failed], command: [./tell, -x]}, {types: [task.failed], command: [logger]}]"
    path.write_text(f"{BASE}    events: {events}\n")
    first, second = config.load(path).workloads["w"].events
    assert first.command == [str(tmp_path / "tell"), "-x"]
    assert second.command == ["logger"]
