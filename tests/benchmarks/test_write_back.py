"""Answers into the application's table, against a bare ``executemany`` update of the same rows by the same driver."""

import json
import random
import sqlite3
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nura_cli import config as configuration
from nura_cli.delivery.write_back import WriteBack
from nura_cli.pipeline import deliver
from nura_cli.pipeline.plans import plan_of
from nura_cli.state import State, outbox
from nura_cli.states import TaskStatus
from tests import postgres
from tests.benchmarks import test_results
from tests.benchmarks.conftest import scaled, tell

TABLE = "CREATE TABLE articles (id INTEGER PRIMARY KEY, title TEXT, updated_at TEXT, summary TEXT, label TEXT)"
CHUNK = 2000
TITLE = "a title of some length, as a row of a real table has, and then a little more of it"


def keys(rows: int, answers: int) -> list[int]:
    """Return the ids of the rows to write, in no order."""
    return random.Random(4).sample(range(rows), answers)


def documents(ids: list[int], word: str) -> Iterator[dict[str, Any]]:
    """Yield the answers of rows, made as they are asked for."""
    for i in ids:
        yield {
            "seq": i,
            "key": i,
            "status": "completed",
            "json": {"summary": f"{word} summary of article {i}, in one sentence", "label": "news"},
            "record": {"updated_at": "2026-01-02T03:04:05Z"},
        }


def write(url: str, ids: list[int], word: str) -> float:
    """Write answers for rows, chunk by chunk as the pipeline does, and return the seconds that the writing took."""
    options: dict[str, Any] = {"where": {"id": "key"}, "only_if": {"updated_at": "record.updated_at"}}
    total = 0.0
    with WriteBack(
        url, table="articles", set_={"summary": "json.summary", "label": "json.label"}, **options
    ) as write_back:
        for start in range(0, len(ids), CHUNK):
            chunk = list(documents(ids[start : start + CHUNK], word))
            began = time.perf_counter()
            outcomes = write_back.write(chunk, 0)
            total += time.perf_counter() - began
            assert {outcome.kind for outcome in outcomes} == {"written"}
    return total


def bare(ids: list[int], word: str, update: Callable[[list[tuple[Any, ...]]], None]) -> float:
    """Update the same rows with the same values, in as many transactions, and return the seconds that took."""
    total = 0.0
    for start in range(0, len(ids), CHUNK):
        chunk = documents(ids[start : start + CHUNK], word)
        rows = [(one["json"]["summary"], one["json"]["label"], one["key"]) for one in chunk]
        began = time.perf_counter()
        update(rows)
        total += time.perf_counter() - began
    return total


def peak(url: str, ids: list[int], word: str) -> float:
    """Return the peak of Python's own memory while answers are written, in MB."""
    tracemalloc.start()
    try:
        write(url, ids, word)
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def compare(name: str, url: str, ids: list[int], update: Callable[[list[tuple[Any, ...]]], None], target: str) -> None:
    """Note the ratio, of the least of three turns each, and that memory does not grow with the number of answers."""
    n = len(ids)
    bare(ids, "warm-up", update)  # rows grow to the size they will have, for both
    write(url, ids[:1], "begun")  # and both are connected, and have loaded what they need
    turns = [(bare(ids, f"their{turn}", update), write(url, ids, f"ours!{turn}")) for turn in range(3)]
    reference, measured = (min(times) for times in zip(*turns, strict=True))
    few, all_of_them = peak(url, ids[: max(1, n // 10)], "a tenth:"), peak(url, ids, "all:")
    tell(
        f"write back {n:,} answers into {name}", measured, reference, target,
        f"peak {all_of_them:.0f} MB ({few:.0f} MB for a tenth)",
        does="a bare `executemany` of the same rows",
    )  # fmt: skip


def test_sqlite(tmp_path: Path) -> None:
    rows, n = scaled(1_000_000), scaled(100_000)
    db = sqlite3.connect(tmp_path / "app.db")
    db.execute(TABLE)
    db.executemany(
        "INSERT INTO articles VALUES (?, ?, '2026-01-02T03:04:05Z', NULL, NULL)", ((i, TITLE) for i in range(rows))
    )
    db.commit()

    def update(values: list[tuple[Any, ...]]) -> None:
        db.executemany("UPDATE articles SET summary = ?, label = ? WHERE id = ?", values)
        db.commit()

    ids, url = keys(rows, n), f"sqlite:///{tmp_path}/app.db"
    compare("SQLite", url, ids, update, "at most 1.3")
    assert db.execute("SELECT count(*) FROM articles WHERE summary LIKE 'all:%'").fetchone() == (n,)
    db.close()


def test_deliver(tmp_path: Path) -> None:
    n = scaled(20_000)
    options = {"database": "app", "table": "articles", "where": {"id": "key"}, "set": {"summary": "text"}}
    workload = {**test_results.CONFIG["workloads"]["records"], "write_back": options}
    settings = {
        **test_results.CONFIG,
        "workloads": {"records": workload},
        "databases": {"app": {"url": "sqlite:///app.db"}},
    }
    (tmp_path / "nura.yaml").write_text(json.dumps(settings))
    config = configuration.load(tmp_path / "nura.yaml")
    db = sqlite3.connect(tmp_path / "app.db")
    db.execute(TABLE)
    db.executemany("INSERT INTO articles VALUES (?, ?, NULL, ?, NULL)", ((i, TITLE, "old" * 480) for i in range(n + 1)))
    db.commit()
    began = time.process_time()
    for start in range(1, n + 1, deliver.ROWS):
        rows = [("word " * 280, i) for i in range(start, min(start + deliver.ROWS, n + 1))]
        db.executemany("UPDATE articles SET summary = ? WHERE id = ?", rows)
        db.commit()
    reference = time.process_time() - began
    db.execute("UPDATE articles SET summary = ?", ("old" * 480,))
    db.commit()
    with State(config.state) as state:
        test_results.fill(state, n)
        with state.transaction() as inside:
            due = [(i, TaskStatus.COMPLETED) for i in range(1, n + 1)]
            outbox.add_for_tasks(inside, 1, 1, due, plan_of(config, "records"))
        began = time.process_time()
        assert deliver.run(state, config).rows == {"written": n, "delayed": 0}
        measured = time.process_time() - began
    assert db.execute("SELECT count(*) FROM articles WHERE summary LIKE 'word %'").fetchone() == (n,)
    db.close()
    does = "a bare `executemany` of the same rows"
    tell(f"deliver {n:,} answers from the state file into SQLite, CPU", measured, reference, "no target", does=does)


def test_postgresql() -> None:
    rows, n = scaled(1_000_000), scaled(100_000)
    with postgres.database() as (url, connection):
        connection.execute(TABLE)
        fill = "INSERT INTO articles SELECT i, %s, '2026-01-02T03:04:05Z' FROM generate_series(0, %s) AS i"
        connection.execute(fill, (TITLE, rows - 1))
        connection.execute("VACUUM ANALYZE articles")

        def update(values: list[tuple[Any, ...]]) -> None:
            with connection.transaction(), connection.cursor() as cursor:
                cursor.executemany("UPDATE articles SET summary = %s, label = %s WHERE id = %s", values)

        ids = keys(rows, n)
        compare("PostgreSQL", url, ids, update, "at most 1.1")
        found = connection.execute("SELECT count(*) FROM articles WHERE summary LIKE 'all:%'").fetchone()
        assert found == (n,)
