"""Files of both layouts, and those that go from one into the other while they are used: nobody can tell them apart."""

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nura_cli.dialects import vendors
from nura_cli.errors import Busy, StateCorrupt, StateNewer
from nura_cli.state import State, compact, keys, locks, packed, schema, tasks
from nura_cli.states import TaskStatus
from tests.conftest import START, Spool
from tests.layouts import LAYOUTS, make_earlier

pytestmark = pytest.mark.long


def envelope(dialect: str, endpoint: str) -> bytes:
    """Return a response without anything answered."""
    return vendors.dialect(dialect).envelope(endpoint)


def convert(spool: Spool) -> None:
    """Bring the file of a spool into the newer layout."""
    with State(spool.state_path, spool.clock) as state:
        compact.convert(state, lambda done, total: None, envelope)
        compact.vacuum(state)
        assert not compact.due(state)


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    """The name of a layout."""
    return str(request.param)


@pytest.fixture
def kept(openai_spool: Spool, layout: str) -> Spool:
    """A spool whose file has a layout."""
    if layout != "newer":
        make_earlier(openai_spool.state_path)
    return openai_spool


@pytest.fixture
def before(openai_spool: Spool) -> Spool:
    """A spool whose file has the earlier layout."""
    make_earlier(openai_spool.state_path)
    return openai_spool


def settled(spool: Spool, layout: str) -> None:
    """Let three records be answered, and then the file be taken over, where it is to be."""
    spool.fill(3)
    spool.settle()
    if layout == "taken over":
        convert(spool)


def texts(spool: Spool) -> dict[Any, str]:
    """Return the answers by key."""
    return {one["key"]: one["text"] for one in spool.results()}


def test_records_go_through_and_come_again_as_duplicates(kept: Spool, layout: str) -> None:
    settled(kept, layout)
    kept.check()
    assert kept.enqueue({"id": 1, "text": "record number 1"}).result["duplicates"] == 1
    assert kept.enqueue({"id": 1, "text": "another"}).result["conflicts"] == 1
    assert kept.enqueue({"id": 3, "text": "record number 3"}).result["enqueued"] == 1
    kept.settle()
    kept.check()
    assert sorted(texts(kept)) == [0, 1, 2, 3]
    assert kept.control.billing()["requests"] == 4


def test_what_is_replaced_and_run_again_stands_for_its_key(kept: Spool, layout: str) -> None:
    settled(kept, layout)
    first = texts(kept)
    kept.enqueue({"id": 0, "text": "record number 0 anew"}, replace=True)
    kept.set(prompt="Repeat once more: {{ text }}")
    kept.retry(statuses=[TaskStatus.COMPLETED], keys=["1"])
    kept.settle()
    kept.check()
    now = texts(kept)
    assert "number 0 anew" in now[0]
    assert "once more" in now[1]
    assert now[2] == first[2]
    (shown,) = kept.show("0")["keys"]
    assert [one["task_id"] for one in shown["tasks"]] == [4, 1]
    assert "anew" in str(shown["tasks"][0]["record"])
    assert [one["task_id"] for one in kept.show("1")["keys"][0]["tasks"]] == [5, 2]


def test_what_came_since_a_time_is_found(kept: Spool, layout: str) -> None:
    settled(kept, layout)
    kept.clock.advance(3600)
    kept.enqueue({"id": 3, "text": "record number 3"})
    kept.settle()
    assert [one["key"] for one in kept.results(since=START + 1)] == [3]
    assert len(kept.results(since=START)) == 4
    assert kept.results(since=kept.clock() + 1) == []


def test_since_a_clock_was_set_back_nothing_is_missed(kept: Spool, layout: str) -> None:
    settled(kept, layout)
    kept.clock.time -= 3600
    kept.enqueue({"id": 3, "text": "record number 3"})
    kept.settle()
    assert {one["key"] for one in kept.results(since=START)} == {0, 1, 2}
    assert {one["key"] for one in kept.results(since=START - 3600)} == {0, 1, 2, 3}


def test_rows_and_events_are_made_and_made_again(kept: Spool, layout: str, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None)) as app:
        app.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)")
        app.executemany("INSERT INTO t (id) VALUES (?)", [(n,) for n in range(3)])
        kept.databases["app"] = {"url": f"sqlite:///{tmp_path}/app.db"}
        kept.set(write_back={"database": "app", "table": "t", "where": {"id": "key"}, "set": {"a": "text"}})
        settled(kept, layout)
        written = dict(app.execute("SELECT id, a FROM t"))
        assert written == texts(kept)
        app.execute("UPDATE t SET a = NULL")
        assert kept.redeliver("row", made=True).result["rows"]["due"] == 3
        kept.reconcile()
        assert dict(app.execute("SELECT id, a FROM t")) == written


def test_answers_are_packed_and_read_as_they_came_where_the_layout_has_it(kept: Spool, layout: str) -> None:
    settled(kept, layout)
    bodies = [row[0] for row in kept.rows("SELECT body FROM answers")]
    assert {body[:1] for body in bodies} == {b"{" if layout == "earlier" else b"\xff"}
    with State(kept.state_path) as state:
        whole = [packed.unpack(state.db, body) for body in bodies]
        sizes = [row[0] for row in state.db.execute(f"SELECT {packed.size('body')} FROM answers")]
    assert sizes == list(map(len, whole))
    if layout != "earlier":
        assert sum(map(len, bodies)) < 0.3 * sum(sizes)


def test_no_dictionary_holds_a_record_or_an_answer(kept: Spool, layout: str) -> None:
    settled(kept, layout)
    assert all(b"record number" not in row[0] for row in kept.rows("SELECT content FROM dictionaries"))


# --- damage


@pytest.mark.parametrize(
    "damage",
    [
        "substr(body, 1, 20)",
        "substr(body, 1, 3) || x'00' || substr(body, 5)",
        "x'ff7fff' || substr(body, 4)",
        "x'ff'",
        "substr(body, 1, length(body) - 1)",
        "substr(body, 1, 7) || x'a4ffffffffffff7f' || substr(body, 9)",
    ],
)
def test_a_packed_value_that_is_damaged_is_said_to_be(openai_spool: Spool, damage: str) -> None:
    openai_spool.fill(3)
    openai_spool.settle()
    with closing(sqlite3.connect(openai_spool.state_path, isolation_level=None)) as db:
        db.execute(f"UPDATE answers SET body = CAST({damage} AS BLOB) WHERE task_id = 2")
    with pytest.raises(StateCorrupt, match="is damaged, or the disk cannot read it"):
        openai_spool.results()
    assert openai_spool.results(key="0")


# --- from one layout into the other


def test_an_earlier_release_is_shut_out_of_what_was_taken_over_and_of_no_other(kept: Spool, layout: str) -> None:
    settled(kept, layout)
    with State(kept.state_path) as state:
        oldest = int(state.db.execute("SELECT value FROM meta WHERE name = 'oldest_version'").fetchone()[0])
    assert (oldest < 7) is (layout == "earlier")
    if layout == "taken over":
        with closing(sqlite3.connect(kept.state_path)) as db, pytest.raises(sqlite3.OperationalError, match="key_text"):
            db.execute("INSERT INTO keys VALUES (1, '7', 9, x'00')")


def test_a_process_that_opened_it_before_writes_what_is_right(before: Spool) -> None:
    before.fill(3)
    before.round()
    with State(before.state_path, before.clock) as stale:
        assert stale.db.keeps_text
        convert(before)
        with stale.transaction() as db:
            queue = tasks.queue_id(db, 1, "", "", "")
            line = b'{"id": 9, "text": "record number 9"}'
            with pytest.raises(keys.KeyTaken):
                tasks.insert(db, 1, [tasks.NewTask(queue, "0", "0", b"d", line)])
            tasks.insert(db, 1, [tasks.NewTask(queue, "9", "9", b"d", line)])
    assert before.rows("SELECT count(*) FROM keys") == [(0,)]
    before.settle()
    before.check()
    assert sorted(texts(before)) == [0, 1, 2, 9]


def test_others_go_on_while_it_is_taken_over(before: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between any two chunks a record is enqueued, another comes again, and the stages run."""
    monkeypatch.setattr(compact, "_CHUNK", 7)
    before.fill(20)
    before.settle()
    came = 20

    def between(done: int, total: int) -> None:
        nonlocal came
        assert 0 < done <= total
        again = before.enqueue({"id": came - 20, "text": f"record number {came - 20}"})
        assert again.result["duplicates"] == 1
        if came < 26:
            before.enqueue({"id": came, "text": f"record number {came}"})
            before.round()
            came += 1
        before.check()

    with State(before.state_path, before.clock) as state:
        compact.convert(state, between, envelope)
    assert came == 26
    assert before.rows("SELECT count(*) FROM keys") == [(0,)]
    before.settle()
    convert(before)
    before.check()
    assert len(texts(before)) == 26
    assert before.control.billing()["requests"] == 26


def killed(path: Path, at: int) -> bool:
    """Take a file over in a process that is killed as it begins or ends its ``at``-th transaction; return whether it was."""
    child = os.fork()
    if not child:
        left = at

        def kill(statement: str) -> None:
            nonlocal left
            left -= statement in ("BEGIN IMMEDIATE", "COMMIT", "VACUUM")
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

        state = State(path, lambda: START)
        state.db.set_trace_callback(kill)
        compact.convert(state, lambda done, total: None, envelope)
        compact.vacuum(state)
        state.close()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_where_it_is_killed_the_file_is_right_and_the_next_time_it_goes_on(
    before: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compact, "_CHUNK", 5)
    before.fill(8)
    before.settle()
    wanted = before.results()
    whole = before.state_path.read_bytes()
    at = 1
    while killed(before.state_path, at):
        assert before.results() == wanted
        before.check()
        assert before.enqueue({"id": 3, "text": "record number 3"}).result["duplicates"] == 1
        convert(before)
        assert before.rows("SELECT count(*) FROM keys") == [(0,)]
        assert before.results() == wanted
        before.check()
        before.state_path.write_bytes(whole)
        at += 1
    assert at > 15


def test_no_stage_is_at_work_when_older_releases_are_shut_out(before: Spool) -> None:
    with State(before.state_path, before.clock) as state, locks.lock(state.lock_path("poll"), before.clock()):
        with pytest.raises(Busy, match=r"poll is at work \(pid \d+\)"):
            compact.convert(state, lambda done, total: None)
        assert compact.due(state)
        assert state.db.execute("SELECT 1 FROM meta WHERE name = 'layout'").fetchone() is None


def test_what_was_deleted_is_given_back_in_chunks(openai_spool: Spool) -> None:
    with State(openai_spool.state_path) as state:
        with state.transaction() as db:
            db.execute("CREATE TABLE wide (a BLOB)")
            db.execute(
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)"
                " INSERT INTO wide (a) SELECT zeroblob(16000) FROM n"
            )
            db.execute("DROP TABLE wide")
        pages = state.db.execute("PRAGMA page_count").fetchone()[0]
        rounds = 1
        while compact.shrink(state, pages=100):
            rounds += 1
        assert rounds in (3, 4)
        assert state.db.execute("PRAGMA page_count").fetchone()[0] <= pages - 300
        assert not compact.shrink(state)


def test_a_file_of_the_earlier_layout_gives_nothing_back_until_it_is_written_anew(before: Spool) -> None:
    with State(before.state_path) as state:
        assert not compact.shrink(state)
        assert compact.due(state)
        assert compact.needs(state) > 2 * before.state_path.stat().st_size
        compact.convert(state, lambda done, total: None)
        assert compact.due(state)
        compact.vacuum(state)
        assert not compact.due(state)
        assert not list(before.folder.glob("etilqs*"))


def test_a_release_without_this_layout_refuses_a_new_file(openai_spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "VERSION", 6)
    with pytest.raises(StateNewer, match="written by a newer nura") as refused:
        State(openai_spool.state_path, newer=True)
    assert refused.value.exit_code == 78


CLOSED_TO_OTHERS = (
    "INSERT INTO runs (stage, started_at, pid) VALUES ('poll', 1, 1) ON CONFLICT DO UPDATE SET pid = 1",
    "UPDATE runs SET pid = 1",
    "INSERT INTO keys (workload_id, key, task_id, digest) VALUES (1, 'new', 1, x'')",
    "INSERT INTO answers (task_id, status, finished_at, attempts) VALUES (1, 'cancelled', 1, 1)",
)


@pytest.mark.parametrize("how", ["taken over", "forgotten"])
def test_who_has_the_file_open_in_an_earlier_release_begins_no_stage_and_takes_in_nothing_any_more(
    before: Spool, how: str
) -> None:
    before.fill(2)
    with closing(sqlite3.connect(before.state_path, isolation_level=None)) as old:
        for statement in CLOSED_TO_OTHERS[:3]:
            old.execute("BEGIN")
            old.execute(statement)
            old.execute("ROLLBACK")
        if how == "taken over":
            convert(before)
        else:
            before.purge("1")
        for statement in CLOSED_TO_OTHERS:
            with pytest.raises(sqlite3.OperationalError, match="no such function"):
                old.execute(statement)
    before.fill(3)
    before.settle()
    before.check()
