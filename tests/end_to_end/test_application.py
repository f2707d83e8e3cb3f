"""The README's tutorial on a real table: the articles get their columns by the very crontab line, and everybody is told.

The configuration and the crontab line are taken out of the README; a webhook is added, and for PostgreSQL one URL changed.
There are 300 articles, and with ``NURA_KILL_SWEEP`` the 2,000 that the sweeps are worth.
"""

import json
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests import postgres
from tests.conftest import cron_environment
from tests.end_to_end.test_command_line import NURA
from tests.end_to_end.test_kills import SWEEP
from tests.end_to_end.test_readme import BLOCKS, README
from tests.pipeline.forks import completed
from tests.receiver import SECRET, Receiver

ARTICLES = 2000 if SWEEP else 300
TABLE = (
    "CREATE TABLE articles (id INTEGER PRIMARY KEY, title TEXT, body TEXT, updated_at TEXT, summary TEXT, label TEXT)"
)
INSERT = (
    "INSERT INTO articles (id, title, body, updated_at) VALUES ({0}, 'World article {0}', 'Body of {0}.', '2026-11-20')"
)
Query = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Query]]:
    """A table of articles: its URL, and how the application asks it."""
    if request.param == "postgresql":
        with postgres.database() as (url, connection):
            connection.execute(TABLE.encode())
            connection.execute("; ".join(INSERT.format(i) for i in range(ARTICLES)).encode())
            yield url, lambda query: connection.execute(query.encode()).fetchall()
        return
    with closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None, timeout=30)) as db:
        db.execute(TABLE)
        db.executescript("BEGIN;" + ";".join(INSERT.format(i) for i in range(ARTICLES)) + ";COMMIT")
        yield "sqlite:///app.db", lambda query: db.execute(query).fetchall()


def configured(folder: Path, url: str, hook: str) -> None:
    """Write the tutorial's configuration and its program, with the URL and a webhook put in."""
    document, script = (
        re.findall(rf"\$ cat > {name} <<'END'\n(.*?)\nEND", BLOCKS["tutorial"], re.DOTALL)[0]
        for name in ("nura.yaml", "told")
    )
    told = "command: [./told]}"
    webhook = f"{told}\n      - {{types: [task.completed, task.failed], webhook: '{hook}', secret_file: hook.key}}"
    (folder / "nura.yaml").write_text(document.replace("sqlite:///app.db", url).replace(told, webhook))
    (folder / "told").write_text(script + "\n")
    (folder / "told").chmod(0o755)
    (folder / "hook.key").write_text(SECRET)


def crontab_line() -> str:
    """Return the command of the tutorial's crontab line."""
    [line] = re.findall(r"^ +\*/15 \* \* \* \*  (.*--from-source.*)$", README, re.MULTILINE)
    return str(line)


def cron(folder: Path) -> str:
    """Run the crontab line as cron does; return what cron would mail."""
    environment = cron_environment(folder) | {"NURA": str(NURA)}
    done = subprocess.run(
        ["/bin/sh", "-c", crontab_line()],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.stdout + done.stderr


def killed_in_the_middle(folder: Path) -> None:
    """Run reconcile, and kill it -9 once it has told of some of its work."""
    process = subprocess.Popen([str(NURA), "reconcile"], cwd=folder, env=cron_environment(folder))
    deadline = time.monotonic() + 60
    while not (folder / "told.jsonl").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("database", "kill"),
    [
        pytest.param("sqlite", True, id="sqlite-killed", marks=pytest.mark.long),
        pytest.param("postgresql", False, id="postgresql", marks=pytest.mark.long),
        pytest.param("sqlite", False, id="sqlite", marks=pytest.mark.long),
        pytest.param("postgresql", True, id="postgresql-killed", marks=pytest.mark.long),
    ],
    indirect=["database"],
)
def test_every_article_gets_its_columns_and_everybody_is_told(
    tmp_path: Path, database: tuple[str, Query], kill: bool
) -> None:
    url, ask = database
    with Receiver() as receiver:
        configured(tmp_path, url, receiver.url)
        if kill:
            for stage in (
                ["enqueue", "summarize", "--from-source"],
                ["enqueue", "label", "--from-source"],
                ["dispatch"],
                ["poll"],
            ):
                done = completed(*stage, cwd=tmp_path, environment=cron_environment(tmp_path))
                assert done.returncode == 0, done.stderr
            killed_in_the_middle(tmp_path)
        assert cron(tmp_path) == ""
        assert cron(tmp_path) == ""
    assert ask("SELECT count(*) FROM articles WHERE summary LIKE '%article%' AND label = 'world'") == [(ARTICLES,)]
    assert all(f"article {key} " in text for key, text in ask("SELECT id, summary FROM articles"))
    events = [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    by_id = {event["id"]: event["data"] for event in events}
    assert sorted((data["workload"], data["key"]) for data in by_id.values()) == [
        (workload, key) for workload in ("label", "summarize") for key in range(ARTICLES)
    ]
    assert {data["row"] for data in by_id.values()} == {"written"}
    assert {post.id for post in receiver.got} == set(by_id)
    if not kill:
        assert len(events) == len(receiver.got) == 2 * ARTICLES
