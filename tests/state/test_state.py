"""The state file: opened safely, moved by guarded updates, counted as it really is."""

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nura_cli.errors import StateCorrupt, StateError, StateForeign, StateNewer
from nura_cli.state import State, answers, batches, file, keys, locks, outbox, pages, runs, schema, tasks, versions
from nura_cli.state.answers import Charge, Failure, Settled
from nura_cli.state.connection import LONGEST_BACKOFF
from nura_cli.state.selection import Selection
from nura_cli.states import BatchStatus, ErrorKind, TaskStatus
from tests.conftest import KEPT, LEDGER

NOW = 1_800_000_000


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """A new state file."""
    with State(tmp_path / "nura.db", lambda: NOW) as opened:
        yield opened


def add(state: State, *keys: str, queue: tuple[str, str, str] = ("", "", "")) -> list[int]:
    """Insert pending tasks; return their ids."""
    with state.transaction() as db:
        workload = tasks.workload_id(db, "w")
        queue_id = tasks.queue_id(db, workload, *queue)
        first = tasks.next_id(db)
        tasks.insert(db, workload, [tasks.NewTask(queue_id, f'"{key}"', key, b"d", b"{}") for key in keys])
        return list(range(first, first + len(keys)))


def batch(state: State, tag: str = "tag", limit: int = 100) -> batches.Batch:
    """Make a batch and claim what is due for it."""
    with state.transaction() as db:
        batch_id = batches.add(
            db, queue_id=1, workload="w", provider="p", address="a", dialect="openai", endpoint="/v1", model="m",
            revision="r", spec="{}", tag=tag,
        )  # fmt: skip
        tasks.claim(db, 1, batch_id, limit, tasks.last_id(db))
        found = batches.get(db, batch_id)
    assert found is not None
    return found


def counted(state: State) -> None:
    """Assert that the counts are true."""
    real = state.db.execute(
        "SELECT lane_id, status, superseded_by IS NOT NULL, count(*) FROM tasks GROUP BY 1, 2, 3"
    ).fetchall()
    kept = {key: n for key, n in tasks.counts(state.db).items() if n}
    assert kept == {(queue, TaskStatus(status), bool(old)): n for queue, status, old, n in real}


# --- opening


def test_a_new_file_is_private_and_set_up_for_power_cuts(state: State) -> None:
    def pragma(name: str) -> Any:
        return state.db.execute(f"PRAGMA {name}").fetchone()[0]

    assert state.path.stat().st_mode & 0o777 == 0o600
    assert (pragma("journal_mode"), pragma("synchronous"), pragma("page_size")) == ("wal", 2, 16384)
    assert pragma("application_id") == schema.APPLICATION_ID
    for folder in (state.requests, state.results):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert len(state.state_id) == 16


def test_opening_again_keeps_its_id(tmp_path: Path) -> None:
    with State(tmp_path / "n.db") as first:
        known = first.state_id
    with State(tmp_path / "n.db") as second:
        assert second.state_id == known


def test_two_that_open_it_first_at_once_agree(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from nura_cli.state import State
for path in map(Path, sys.argv[1:]):
    print("ready", flush=True)
    sys.stdin.readline()
    with State(path) as state:
        print(state.state_id, flush=True)
"""
    paths = [str(tmp_path / f"{n}.db") for n in range(40)]
    several = [
        subprocess.Popen([sys.executable, "-c", code, *paths], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    with contextlib.ExitStack() as stack:
        pipes = [(stack.enter_context(process).stdin, process.stdout) for process in several]
        for path in paths:
            assert [said.readline() if said else "" for _, said in pipes] == ["ready\n"] * 3
            for start, _ in pipes:
                print(file=start, flush=True)
            ids = {said.readline() if said else "" for _, said in pipes}
            assert len(ids) == 1, path
            assert len(ids.pop().strip()) == 16, path
    assert [process.returncode for process in several] == [0, 0, 0]


def test_what_cannot_be_a_state_file_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("this is no database at all, but long enough to look at" * 40)
    with pytest.raises(StateCorrupt, match="not an SQLite database"):
        State(tmp_path / "text")
    with sqlite3.connect(tmp_path / "other") as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    with pytest.raises(StateCorrupt, match="not nura's"):
        State(tmp_path / "other")
    with pytest.raises(StateError, match="no such state file"):
        State(tmp_path / "absent", create=False)
    with pytest.raises(StateError, match="No such file") as caught:
        State(tmp_path / "no" / "folder" / "n.db")
    assert caught.value.exit_code == 75
    assert "folder" in str(caught.value.hint)


@pytest.mark.parametrize("what", ["", "x\n", "id,title\n1,one\n", "x" * 99, "y" * 5000, "SQLite format 3\0"])
def test_what_is_something_else_is_a_matter_of_configuration_and_left_as_it_is(tmp_path: Path, what: str) -> None:
    """A text, or an application's database (where nothing is given): not even its journal's mode is changed."""
    file = tmp_path / "theirs"
    if what:
        file.write_text(what)
    else:
        with sqlite3.connect(file) as db:
            db.execute("CREATE TABLE theirs (x)")
        db.close()
    before = file.read_bytes()
    with pytest.raises(StateForeign) as caught:
        State(file)
    assert caught.value.exit_code == 78
    assert caught.value.hint == "set state: (or --state) to a file of nura's own"
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


def test_a_state_file_that_was_overwritten_by_a_text_is_damaged(tmp_path: Path) -> None:
    """Stages have run on it: it was the right file once, and a backup is what helps."""
    with State(tmp_path / "n.db"):
        pass
    (tmp_path / "n.db.dispatch.lock").touch()
    (tmp_path / "n.db").write_text("oh no " * 1000)
    with pytest.raises(StateCorrupt, match="not an SQLite database") as caught:
        State(tmp_path / "n.db")
    assert (caught.value.exit_code, "backup" in str(caught.value.hint)) == (1, True)


@pytest.mark.parametrize("name", ["a%20b.db", "what?.db", "x#y.db", "ü é.db", "?mode=ro", "file:n.db"])
def test_a_name_is_a_name_whatever_it_means_in_a_uri(tmp_path: Path, name: str) -> None:
    with State(tmp_path / name) as state:
        made = state.state_id
    assert (tmp_path / name).is_file()
    with State(tmp_path / name) as state:
        assert state.state_id == made


def described(db: sqlite3.Connection) -> set[tuple[Any, ...]]:
    """Return what a file's tables and indexes are, without their comments and spacing."""
    rows = db.execute("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL")
    return {(kind, name, " ".join(re.sub(r"--.*", "", sql).replace('"', "").split())) for kind, name, sql in rows}


ONLY_BEFORE = {("index", "answers_finished", "CREATE INDEX answers_finished ON answers (finished_at)")}
"""What earlier files keep that new ones do without."""


def test_a_file_of_each_earlier_version_is_brought_up_to_date(tmp_path: Path) -> None:
    """Each was dumped from a file that the nura of its time had written: settled, sent, waiting and replaced records."""
    earlier = sorted(Path(__file__).parent.glob("version_*.sql"))
    assert [path.stem for path in earlier] == [f"version_{n}" for n in range(1, schema.VERSION)]
    with State(tmp_path / "new.db") as new:
        wanted = described(new.db)
    for dump in earlier:
        with closing(sqlite3.connect(tmp_path / dump.stem)) as db:
            db.executescript(dump.read_text())
        with State(tmp_path / dump.stem) as state:
            assert state.db.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
            assert state.state_id == "7dec9d25a5863144"
            assert described(state.db) - wanted == ONLY_BEFORE
            assert wanted - described(state.db) == set()
            assert state.db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            counted(state)
            assert state.db.execute(KEPT).fetchall() == state.db.execute(LEDGER).fetchall() != []
            assert [row.key for page in answers.pages(state.db) for row in page] == ["0", "1"]
            if dump.stem in ("version_1", "version_2"):
                assert [batch.status for batch in batches.under_way(state.db)] == [BatchStatus.SUBMITTED]
            else:
                found = [batches.get(state.db, number) for number in range(1, 8)]
                assert {batch.status for batch in found if batch} == set(BatchStatus)
            with state.transaction() as db:
                outbox.add_for_tasks(db, 1, 1, [(1, TaskStatus.COMPLETED)], outbox.Plan(frozenset({"completed"})))
            assert outbox.waiting(state.db, "echo", "row", "set") == 1


def test_a_file_of_a_newer_nura_is_left_alone(state: State) -> None:
    state.db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    with pytest.raises(StateNewer, match="newer") as caught:
        State(state.path)
    assert caught.value.exit_code == 78


def test_a_damaged_file_is_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "n.db"
    with State(path) as state:
        add(state, *(f"k{n}" for n in range(2000)))
    data = bytearray(path.read_bytes())
    data[16384 * 3 :] = b"\xff" * (len(data) - 16384 * 3)
    path.write_bytes(data)
    with pytest.raises(StateCorrupt, match="damaged"):
        read_all(path)


def read_all(path: Path) -> None:
    """Read through the records of a state file."""
    with State(path) as state:
        state.db.execute("SELECT count(*), max(key) FROM records").fetchall()


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p"])
def test_network_file_systems_are_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 1 0:1 / / rw - ext4 x rw\n2 1 0:2 / {tmp_path} rw - {kind} server:/x rw\n")
    assert file.file_system(tmp_path / "deep", mounts) == kind
    assert file.file_system(Path("/usr"), mounts) == "ext4"
    monkeypatch.setattr(file, "file_system", lambda folder: kind)
    with pytest.raises(StateError, match="network file system"):
        State(tmp_path / "n.db")


def test_a_state_file_that_is_mounted_without_its_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a state" / "n.db"
    path.parent.mkdir()
    mounts = tmp_path / "mountinfo"
    escaped = str(path).replace(" ", "\\040")
    mounts.write_text(f"1 1 0:1 / / rw - ext4 x rw\n2 1 0:1 /srv/n.db {escaped} rw - ext4 x rw\n")
    assert file.mounted_alone(path, mounts)
    assert not file.mounted_alone(path.parent, mounts)
    assert not file.mounted_alone(path, tmp_path / "no-such-file")
    State(path).close()
    monkeypatch.setattr(file, "mounted_alone", lambda path: True)
    with pytest.raises(StateError, match="mounted by itself"):
        State(path)


def test_a_file_that_another_process_sits_on_is_75_and_says_so(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "BUSY_SECONDS", 0.05)
    code = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None); db.execute('BEGIN IMMEDIATE');"
        "print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(state.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(StateError, match="locked") as caught, State(state.path) as other:
            with other.transaction():
                pass
        assert caught.value.exit_code == 75
    finally:
        holder.communicate(timeout=20)
    with state.transaction():
        pass


def test_a_transaction_that_fails_leaves_nothing(state: State) -> None:
    def fail() -> None:
        with state.transaction() as db:
            tasks.workload_id(db, "w")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert state.db.execute("SELECT count(*) FROM workloads").fetchone() == (0,)


# --- locks


def test_a_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    code = (
        "import sys; from pathlib import Path; from nura_cli.state import locks\n"
        "with locks.lock(Path(sys.argv[1]), 77): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(locks.Held) as caught, locks.lock(path, NOW):
            pass
        assert caught.value.holder == (holder.pid, 77)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate(timeout=20)
    with locks.lock(path, NOW):
        assert path.read_text() == f"{os.getpid()} {NOW}\n"
    assert path.exists()


# --- tasks


def test_a_taken_key_takes_nothing_in(state: State) -> None:
    add(state, "a", "b")
    with pytest.raises(keys.KeyTaken):
        add(state, "c", "a")
    assert tasks.current(state.db, 1, ["a", "c"]).keys() == {"a"}
    counted(state)


def test_claiming_takes_retried_tasks_first_then_the_oldest(state: State) -> None:
    first, second, third, fourth = add(state, "a", "b", "c", "d")
    state.db.execute("UPDATE tasks SET not_before = ? WHERE id = ?", (NOW - 5, third))
    state.db.execute("UPDATE tasks SET not_before = ? WHERE id = ?", (NOW + 60, second))
    taken = batch(state, limit=2)
    assert [row[0] for row in tasks.page(state.db, taken.id, 0, 9)] == [first, third]
    again = batch(state, "tag2")
    assert [row[0] for row in tasks.page(state.db, again.id, 0, 9)] == [fourth]
    assert tasks.due_count(state.db, 1, 9) == 0
    state.db.clock = lambda: NOW + 59 - LONGEST_BACKOFF
    assert tasks.due_count(state.db, 1, 9) == 1  # further away than any backoff: a wrong clock's
    assert tasks.oldest_pending(state.db, 1) == NOW
    counted(state)


def test_what_is_released_waits_again_and_what_is_superseded_does_not(state: State) -> None:
    old, _ = add(state, "a", "b")
    claimed = batch(state)
    with state.transaction() as db:
        tasks.replace(db, 1, tasks.NewTask(1, '"a"', "a", b"new", b"{}"), old)
        assert tasks.release(db, claimed.id, "test") == 2
    assert tasks.counts(state.db)[(1, TaskStatus.PENDING, False)] == 2
    assert tasks.counts(state.db)[(1, TaskStatus.CANCELLED, True)] == 1
    counted(state)


# --- batches


def test_a_batch_moves_along_its_arrows_and_only_from_where_it_stands(state: State) -> None:
    add(state, "a")
    first = batch(state)
    with state.transaction() as db:
        uploaded = batches.move(db, first, BatchStatus.UPLOADED, "x", input_file_id="f")
    assert uploaded.status is BatchStatus.UPLOADED
    with pytest.raises(StateError, match="no longer processing"), state.transaction() as db:
        batches.move(db, first, BatchStatus.FAILED, "x")
    with pytest.raises(AssertionError, match="no arrow"), state.transaction() as db:
        batches.move(db, uploaded, BatchStatus.RECONCILED, "x")
    with pytest.raises(sqlite3.IntegrityError), state.transaction() as db:  # submitting without a marker
        batches.move(db, uploaded, BatchStatus.SUBMITTING, "x")
    with state.transaction() as db:
        failed = batches.move(db, uploaded, BatchStatus.FAILED, "x")
    assert failed.final_at == NOW
    moves = state.db.execute("SELECT from_status, to_status FROM transitions WHERE what = 'batch'").fetchall()
    assert moves == [(None, "processing"), ("processing", "uploaded"), ("uploaded", "failed")]


def test_a_remote_batch_belongs_to_one_batch_only(state: State) -> None:
    add(state, "a", "b")
    for tag in ("one", "two"):
        claimed = batch(state, tag, limit=1)
        with state.transaction() as db:
            claimed = batches.move(db, claimed, BatchStatus.SUBMITTING, "x", marker="{}")
        if tag == "one":
            with state.transaction() as db:
                batches.move(db, claimed, BatchStatus.SUBMITTED, "x", remote_id="r")
        else:
            with pytest.raises(sqlite3.IntegrityError), state.transaction() as db:
                batches.move(db, claimed, BatchStatus.SUBMITTED, "x", remote_id="r")
    assert batches.known(state.db, ["r", "s"]) == {"r"}


# --- answers


def settle(state: State, found: batches.Batch, *settled: Settled) -> None:
    with state.transaction() as db:
        answers.settle(db, found.queue_id, found.id, settled, "x")


def test_settling_keeps_answers_attempts_and_totals(state: State) -> None:
    one, two, three = add(state, "a", "b", "c")
    claimed = batch(state)
    failure = Failure(ErrorKind.PROVIDER_ERROR, "m", "c", 500)
    settle(
        state,
        claimed,
        Settled(one, False, TaskStatus.COMPLETED, 1, 0, None, b"{}", Charge(10, 4, 5, 100, 200)),
        Settled(two, False, TaskStatus.PENDING, 1, NOW + 9, failure, None, Charge(cost=None, list_cost=None)),
    )
    assert answers.open_tasks(state.db, claimed.id, [one, two, three]) == {three: answers.Open(0, False)}
    assert answers.totals(state.db)[1] == (10, 4, 5, 100, 200, 1)
    [[row]] = answers.pages(state.db)
    assert (row.task_id, row.status, row.key, row.body) == (one, "completed", '"a"', b"{}")
    assert answers.spending(state.db, [one, two]) == {one: (10, 4, 5, 100, 200), two: (0, 0, 0, None, None)}
    for names in (["w"], []):
        assert [[row]] == list(answers.pages(state.db, Selection(names, keys=["a"])))
    counted(state)


def sent(state: State, tag: str, at: int | None) -> batches.Batch:
    """Make a batch of all that waits, sent at a time."""
    found = batch(state, tag, limit=1000)
    with state.transaction() as db:
        db.execute("UPDATE batches SET sent_at = ? WHERE id = ?", (at, found.id))
    return found


MANY = 250
"""More tasks than one statement takes, and no multiple of that."""
PAST = NOW - NOW % 86400


@pytest.mark.parametrize("priced", [True, False])
def test_the_sums_of_a_chunk_are_those_of_its_attempts(state: State, priced: bool) -> None:
    """Answers are summed at once, all else one by one: refused, unrendered, cancelled, tried again, late, of a second sending."""
    ids = add(state, *map(str, range(MANY)))
    claimed = sent(state, "one", PAST - 1)
    kinds = (ErrorKind.PROVIDER_ERROR, ErrorKind.REFUSED, ErrorKind.RENDER, ErrorKind.CANCELLED, ErrorKind.LOST)
    ends = (TaskStatus.PENDING, TaskStatus.FAILED, TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.PENDING)
    dear = 10**9 if priced else None
    charges = [Charge(n, n // 3, n % 7, dear and n * dear, dear and 2 * n * dear, n % 5) for n in ids]
    settled = [
        Settled(n, False, TaskStatus.COMPLETED, 1, 0, None, b"{}", charge)
        if n % 3
        else Settled(n, False, ends[n % 5], 1, 0, Failure(kinds[n % 5], "m"), None, charge)
        for n, charge in zip(ids, charges, strict=True)
    ]
    settled[0] = settled[0]._replace(charge=Charge(cost=None, list_cost=None))
    settle(state, claimed, *settled[:230])
    settle(state, claimed, *settled[230:])
    with state.transaction() as db:
        answers.late(db, 1, claimed.id, [(n, Charge(n, 0, 1, 5, 10)) for n in ids[::4]], "copy", same=False)
        answers.late(db, 1, claimed.id, [(n, Charge(n, 0, 1, 5, 10)) for n in ids])
        answers.unknown(db, 1, claimed.id, "another", same=False)
    again = sent(state, "two", PAST)
    waiting = list(answers.unaccounted(state.db, again.id, MANY))
    settle(state, again, *(Settled(n, False, TaskStatus.COMPLETED, 2, 0, None, b"{}", Charge(1)) for n in waiting))
    assert {day for day, *_ in state.db.execute(KEPT)} == {PAST - 86400, PAST}
    assert state.db.execute(KEPT).fetchall() == state.db.execute(LEDGER).fetchall()
    counted(state)


def test_what_was_never_sent_is_not_summed_and_past_64_bits_a_sum_stays_at_the_largest(state: State) -> None:
    ids = add(state, *map(str, range(MANY)))
    claimed = sent(state, "one", None)
    dear = [Settled(n, False, TaskStatus.COMPLETED, 1, 0, None, b"{}", Charge(1, 0, 1, 2**61, 2**62)) for n in ids]
    settle(state, claimed, *dear[:1])
    assert state.db.execute(KEPT).fetchall() == []
    with state.transaction() as db:
        db.execute("UPDATE batches SET sent_at = ? WHERE id = ?", (NOW, claimed.id))
    settle(state, claimed, *dear[1:2])
    assert state.db.execute("SELECT attempts, cost, list_cost FROM spending").fetchall() == [(1, 2**61, 2**62)]
    settle(state, claimed, *dear[2:])
    most = 2**63 - 1
    assert state.db.execute("SELECT attempts, cost, list_cost FROM spending").fetchall() == [(MANY - 1, most, most)]
    assert answers.totals(state.db)[1] == (MANY, 0, MANY, most, most, 0)


def test_late_lines_are_billed_once(state: State) -> None:
    (one,) = add(state, "a")
    claimed = batch(state)
    for _ in range(2):
        with state.transaction() as db:
            answers.late(db, 1, claimed.id, [(one, Charge(7, 0, 1, 5, 10))])
    assert answers.totals(state.db)[1].input_tokens == 7
    with state.transaction() as db:
        assert answers.late(db, 1, claimed.id, [(one, Charge(7, 0, 1, 5, 10))], "stray") == 1


def test_reading_pages_by_seq(state: State) -> None:
    ids = add(state, *"abcdefg")
    claimed = batch(state)
    settle(
        state, claimed, *(Settled(i, False, TaskStatus.COMPLETED, 1, 0, None, b"{}", Charge()) for i in reversed(ids))
    )
    rows = [row for page in answers.pages(state.db, page=2) for row in page]
    assert [row.seq for row in rows] == list(range(1, 8))
    assert [row.task_id for row in rows] == ids[::-1]
    assert [[row.seq for row in page] for page in answers.pages(state.db, after=5, page=2)] == [[6, 7]]
    assert list(answers.pages(state.db, Selection(["other"]))) == []
    assert list(answers.pages(state.db, Selection(since=NOW + 1))) == []


def test_answers_in_brief_come_as_the_others_do(state: State) -> None:
    ids = add(state, *"abcdefg")
    claimed = batch(state)
    settle(
        state,
        claimed,
        *(Settled(i, False, TaskStatus.COMPLETED, 1, 0, None, b"{}", Charge(5, 1, 2, 10)) for i in reversed(ids)),
    )
    with state.transaction() as db:
        answers.late(db, 1, claimed.id, [(ids[1], Charge(7, 0, 1, 5, 10))], "stray")
    for chosen in (Selection(), Selection(["w"]), Selection(since=0), Selection(batch_id=claimed.id)):
        pages = list(answers.briefs(state.db, chosen, page=2, records=True))
        others = [row for page in answers.pages(state.db, chosen) for row in page]
        assert [len(page) for page in pages] == [2, 2, 2, 1]
        rows = [row for page in pages for row in page]
        assert [(row[0], row[1], row[2].decode(), row[-2], row[-1]) for row in rows] == [
            (one.seq, one.task_id, one.key, one.line, one.body) for one in others
        ]
        assert [row[8:12] for row in rows] == [(5, 1, 2, 10)] * 5 + [(12, 1, 3, 15)] + [(5, 1, 2, 10)]
    assert [[row[0] for row in page] for page in answers.briefs(state.db, after=5, page=2)] == [[6, 7]]
    assert list(answers.briefs(state.db, Selection(["other"]))) == []
    assert list(answers.briefs(state.db, Selection(since=NOW + 1))) == []


def test_wide_answers_are_read_a_few_at_a_time_and_never_sorted(state: State) -> None:
    ids = add(state, *"abcde")
    body = b'"' + b"x" * (pages.PAGE_BYTES // 2) + b'"'
    settle(state, batch(state), *(Settled(i, False, TaskStatus.COMPLETED, 1, 0, None, body, Charge()) for i in ids))
    for chosen in (Selection(), Selection(["w"], since=0, until=NOW * 2), Selection(statuses=[TaskStatus.COMPLETED])):
        said: list[str] = []
        state.db.set_trace_callback(said.append)
        assert [len(page) for page in answers.briefs(state.db, chosen)] == [2, 2, 1]
        state.db.set_trace_callback(None)
        wide = [statement for statement in said if "a.body" in statement]
        plans = [row[3] for one in wide for row in state.db.execute(f"EXPLAIN QUERY PLAN {one}")]
        assert wide
        assert not [step for step in plans if "TEMP B-TREE" in step]


# --- runs


def test_a_lasting_trouble_is_said_at_its_onset_and_at_intervals(state: State) -> None:
    def say(at: int, stage: str = "poll") -> bool:
        state.db.clock = lambda: NOW + at
        return runs.problem(state.db, stage, "outage:p", "down", 100)

    assert [say(0), say(50), say(99), say(100), say(150)] == [True, False, False, True, False]
    assert say(151, "dispatch") is False  # another stage met the same outage
    assert say(-5000) is True  # a clock set back
    runs.over(state.db, "poll", set())
    runs.over(state.db, "dispatch", set())
    assert say(160) is True


def test_a_run_keeps_when_it_last_ended_well(state: State) -> None:
    def later(seconds: int) -> None:
        state.db.clock = lambda: NOW + seconds

    runs.started(state.db, "poll", 1)
    later(1)
    runs.ended(state.db, "poll", 0, None)
    later(5)
    runs.started(state.db, "poll", 2)
    assert runs.runs(state.db)["poll"] == ("poll", NOW + 5, 2, None, NOW + 1, None, None)
    later(6)
    runs.ended(state.db, "poll", 75, "down")
    assert runs.runs(state.db)["poll"][3:] == (NOW + 6, NOW + 1, 75, "down")


def test_a_route_nothing_is_known_of_leaves_no_row(state: State) -> None:
    route = runs.route(state.db, "p", "e", "m")
    runs.learn(state.db, route._replace(failures_in_a_row=2, why="x"))
    assert runs.route(state.db, "p", "e", "m").failures_in_a_row == 2
    runs.learn(state.db, route)
    assert runs.routes(state.db) == []


# --- whatever is done in whatever order


class Moves(RuleBasedStateMachine):
    """Random moves of tasks and batches; the counts stay true, and no task is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State(Path(f"/dev/shm/nura-test-{os.getpid()}-{id(self)}.db"), lambda: NOW)
        self.keys = 0
        self.tags = 0
        self.inserted = 0

    def teardown(self) -> None:
        self.state.close()
        for path in self.state.path.parent.glob(self.state.path.name + "*"):
            path.unlink()

    @rule(n=st.integers(1, 5))
    def enqueue(self, n: int) -> None:
        add(self.state, *(f"k{self.keys + i}" for i in range(n)))
        self.keys += n
        self.inserted += n

    @rule(n=st.integers(1, 4))
    def claim(self, n: int) -> None:
        if self.keys:
            self.tags += 1
            batch(self.state, f"tag{self.tags}", n)

    @rule(pick=st.integers(0, 100))
    def replace(self, pick: int) -> None:
        if self.keys:
            key = f"k{pick % self.keys}"
            with self.state.transaction() as db:
                old = tasks.current(db, 1, [key])[key].task_id
                tasks.replace(db, 1, tasks.NewTask(1, f'"{key}"', key, b"new", b"{}"), old)
            self.inserted += 1

    @rule(to=st.sampled_from([TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.PENDING]), n=st.integers(1, 3))
    def settle(self, to: TaskStatus, n: int) -> None:
        for found in batches.under_way(self.state.db)[:1]:
            left = answers.unaccounted(self.state.db, found.id, n)
            failure = None if to is TaskStatus.COMPLETED else Failure(ErrorKind.MISSING, "x")
            settled = [
                Settled(i, task.superseded, TaskStatus.FAILED if task.superseded else to, 1, 0, failure or Failure(ErrorKind.MISSING, "x") if task.superseded else failure, None, Charge())
                for i, task in left.items()
            ]  # fmt: skip
            settle(self.state, found, *settled)

    @rule()
    def release(self) -> None:
        for found in batches.under_way(self.state.db)[:1]:
            with self.state.transaction() as db:
                tasks.release(db, found.id, "x")
                batches.move(db, found, BatchStatus.FAILED, "x")

    @invariant()
    def nothing_is_lost(self) -> None:
        counted(self.state)
        assert sum(tasks.counts(self.state.db).values()) == self.inserted


Moves.TestCase.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
TestMoves = Moves.TestCase


def test_keys_go_on_through_the_levels_and_are_found_in_each(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "LEVELS", (30,))
    for first in range(0, 600, 20):
        add(state, *(f"k{n}" for n in range(first, first + 20)))
        assert levels(state) == kept_levels(state)
    assert sum(levels(state).values()) == 600
    assert levels(state).get(0, 0) < 100 < levels(state)[1]
    found = keys.find(state.db, 1, [f"k{n}" for n in range(620)])
    assert {key: one.task_id for key, one in found.items()} == {f"k{n}": n + 1 for n in range(600)}
    for key in ("k0", "k300", "k599"):
        with pytest.raises(keys.KeyTaken):
            add(state, "new", key)


def levels(state: State) -> dict[int, int]:
    """Return how many hashes stand in each level."""
    return dict(state.db.execute("SELECT level, count(*) FROM hashes GROUP BY 1").fetchall())


def kept_levels(state: State) -> dict[int, int]:
    """Return how many hashes each level is said to have, where it has any."""
    return dict(state.db.execute("SELECT level, n FROM levels WHERE n > 0").fetchall())


def test_keys_with_equal_hashes_are_told_apart(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "hash_of", lambda db, workload, key: b"x" * keys.HASH_BYTES)
    add(state, "a")
    with pytest.raises(keys.KeyTaken):
        add(state, "b")
    with state.transaction() as db:
        queue = tasks.queue_id(db, 1, "", "", "")
        tasks.insert(db, 1, [tasks.NewTask(queue, '"b"', "b", b"d", b"{}")], unseen=True)
    found = keys.find(state.db, 1, ["a", "b", "c"])
    assert {key: one.task_id for key, one in found.items()} == {"a": 1, "b": 2}
    assert [row.key for row in versions.named(state.db, Selection(keys=["b"]), 9)] == ['"b"']


@pytest.mark.parametrize("again", [False, True])
def test_a_key_is_forgotten_and_known_again_unless_it_may_be_enqueued_again(state: State, again: bool) -> None:
    add(state, "a", "b")
    with state.transaction() as db:
        keys.forget(db, 1, "a", 1, again=again)
    assert keys.find(state.db, 1, ["a"]).keys() == (set() if again else {"a"})
    assert keys.find(state.db, 1, ["b"])["b"].digest == b"d"
    assert levels(state) == kept_levels(state)
