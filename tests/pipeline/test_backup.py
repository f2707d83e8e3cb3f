"""nura backup: a copy that is whole, or not there, made while all goes on; and what becomes of one that is put back."""

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from nura_cli import config as configuration
from nura_cli.errors import StateCorrupt, StateError, UsageError
from nura_cli.pipeline import backup
from nura_cli.state import State, backups
from tests.conftest import Spool
from tests.pipeline.forks import Command

HOUR = 3600


def downloads(spool: Spool) -> int:
    """Return how many results were asked for at the provider."""
    return sum(entry["route"] in ("content", "results") for entry in spool.control.log())


def files(path: str | Path) -> list[str]:
    """Return the files of a backup, by their paths in it, each tag left out."""
    return sorted(str(one.relative_to(path)) for one in Path(path).rglob("*") if one.is_file())


def whole(path: str | Path) -> list[tuple[str, int]]:
    """Assert that a copy is sound, and needs no file beside it; return its tasks by state."""
    with closing(sqlite3.connect(f"file:{path}/nura.db?mode=ro", uri=True)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA journal_mode").fetchall() == [("delete",)]
        counted = db.execute("SELECT status, count(*) FROM tasks GROUP BY status ORDER BY status").fetchall()
        kept = db.execute("SELECT status, sum(n) FROM counts WHERE n > 0 GROUP BY status ORDER BY status").fetchall()
    assert counted == kept
    return counted


def test_a_backup_holds_what_waits_in_the_spool_and_is_gone_on_from_without_the_provider(spool: Spool) -> None:
    spool.fill(5)
    spool.dispatch()
    spool.poll()
    report = spool.backup()
    assert (report.exit_code, report.result["results"], report.result["lacks"]) == (0, 1, [])
    (tag,) = spool.rows("SELECT tag FROM batches")[0]
    assert [name.replace(tag, "TAG") for name in files(report.result["path"])] == [
        "nura.db",
        f"nura.db.spool/results/TAG.{'output' if spool.protocol == 'openai' else 'results'}.jsonl",
    ]
    assert whole(report.result["path"]) == [("submitted", 5)]
    spool.restore(report.result["path"])
    before = downloads(spool)
    spool.reconcile()
    assert (spool.counts()["completed"], downloads(spool)) == (5, before)
    assert spool.control.billing()["requests"] == 5
    spool.check()


def test_a_backup_made_in_the_middle_of_work_is_put_back_and_nothing_is_lost_or_paid_twice(openai_spool: Spool) -> None:
    """One batch is settled, one at home, one under way, and some tasks wait; then the original sends these, and is lost."""
    spool = openai_spool
    spool.fill(2)
    spool.settle()
    spool.fill(4)
    spool.dispatch()
    spool.poll()
    spool.control.settings(delay=HOUR)
    spool.fill(6)
    spool.dispatch()
    spool.fill(8)
    assert [status for _, status in spool.batches()] == ["reconciled", "completed", "submitted"]
    path = spool.backup().result["path"]
    spool.dispatch()
    spool.reconcile()
    spool.restore(path)
    assert spool.counts() == {
        "pending": 2,
        "submitted": 4,
        "completed": 2,
        "failed": 0,
        "cancelled": 0,
        "superseded": 0,
    }
    held = spool.dispatch()
    assert (held.exit_code, len(spool.control.batches())) == (0, 4)
    assert "nura help restore" in held.problems[0].message
    spool.release("main", scope="provider")
    refused = spool.dispatch()
    sent = spool.control.batches()[-1]["id"]
    assert (refused.exit_code, len(spool.control.batches())) == (78, 4)
    assert f"nura resolve {sent} --resend" in str(refused.problems[0].hint)
    spool.resolve(sent)  # it has answered nothing yet, and is cancelled
    spool.clock.advance(2 * HOUR)
    spool.settle()
    assert spool.counts()["completed"] == 8
    bill = spool.control.billing()
    assert (bill["requests"], bill["twice"]) == (8, {"custom_id": [], "digest": []})
    spool.check()


def test_what_keeps_no_mark_sends_nothing_from_a_copy_until_a_person_says_so(anthropic_spool: Spool) -> None:
    spool = anthropic_spool
    spool.fill(3)
    path = spool.backup().result["path"]
    spool.dispatch()
    assert spool.status()["attention"] == []  # of the original nothing is held
    spool.restore(path)
    spool.clock.advance(48 * HOUR)
    spool.round()
    assert (len(spool.control.batches()), spool.counts()["pending"]) == (1, 3)
    (need,) = [one for one in spool.status()["attention"] if one["kind"] == "held"]
    assert "nura help restore" in need["message"]
    assert need["hint"] == "nura release --provider main"
    spool.cancel("echo")  # a person has seen in the console that they were answered
    spool.release("main", scope="provider")
    spool.settle()
    assert spool.control.billing()["creates"] == 1


def test_only_what_shows_our_marks_at_home_is_not_held_in_a_copy(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.providers |= {
        "home": {"kind": "openai", "api_key_file": "key"},
        "elsewhere": {"kind": "anthropic", "api_key_file": "key"},
        "box": {"kind": "sandbox"},
    }
    spool.write_config()
    assert spool.backup().result["held"] == ["elsewhere", "main"]
    spool.fill(1)
    spool.dispatch()
    spool.workloads["echo"]["provider"] = "home"
    del spool.providers["main"]  # and it may come back
    spool.write_config()
    assert spool.backup().result["held"] == ["elsewhere", "main"]


def test_where_the_configuration_cannot_be_used_there_is_a_backup_all_the_same_and_all_is_held(
    openai_spool: Spool,
) -> None:
    spool = openai_spool
    spool.fill(1)
    spool.dispatch()
    spool.path.write_text("state: nura.db\nproviders: {home: {kind: openai, nonsense: 1}}\nworkloads: {}\n")
    ended = Command(spool.folder, spool.clock(), "backup", "kept").end()
    assert ended.code == 0
    assert "every provider is held in the copy" in ended.out
    (path,) = (spool.folder / "kept").iterdir()
    with closing(sqlite3.connect(path / "nura.db")) as db:
        assert db.execute("SELECT scope, name FROM holds").fetchall() == [("provider", "home"), ("provider", "main")]


# --- others at work


def interrupted(monkeypatch: pytest.MonkeyPatch, name: str, work: Callable[[], Any]) -> None:
    """Have something happen, once, right before a step of a backup."""
    real = getattr(backups, name)
    due = [work]

    def first(*given: Any) -> Any:
        while due:
            due.pop()()
        return real(*given)

    monkeypatch.setattr(backups, name, first)


@pytest.mark.parametrize(
    ("step", "results"), [("opened", 0), ("check_room", 1), ("copy", 1), ("spool_made", 1), ("finish", 1)]
)
def test_results_that_are_settled_and_swept_meanwhile_are_in_it_as_its_state_file_says(
    openai_spool: Spool, monkeypatch: pytest.MonkeyPatch, step: str, results: int
) -> None:
    spool = openai_spool
    spool.fill(3)
    spool.dispatch()
    spool.poll()

    def settled() -> None:
        spool.reconcile()
        spool.poll()  # which sweeps

    interrupted(monkeypatch, step, settled)
    report = spool.backup()
    assert spool.counts()["completed"] == 3
    assert list((spool.folder / "nura.db.spool" / "results").iterdir()) == []
    assert (report.exit_code, report.result["results"], report.result["lacks"]) == (0, results, [])
    spool.restore(report.result["path"])
    before = downloads(spool)
    spool.reconcile()
    assert (spool.counts()["completed"], downloads(spool)) == (3, before)
    spool.check()


@pytest.mark.parametrize("harm", ["gone", "damaged"])
def test_results_that_are_gone_or_damaged_in_the_spool_are_said_and_fetched_again(
    openai_spool: Spool, harm: str
) -> None:
    spool = openai_spool
    spool.fill(3)
    spool.dispatch()
    spool.poll()
    (path,) = (spool.folder / "nura.db.spool" / "results").iterdir()
    path.unlink() if harm == "gone" else path.write_bytes(b"{" + path.read_bytes()[1:-1] + b"x")
    report = spool.backup()
    assert (report.exit_code, report.result["results"], report.result["lacks"]) == (3, 0, [path.name])
    assert f"gone from {path.parent} or damaged there" in report.problems[0].message
    assert files(report.result["path"]) == ["nura.db"]
    spool.restore(report.result["path"])
    spool.settle()
    assert (spool.counts()["completed"], spool.control.billing()["requests"]) == (3, 3)
    assert spool.backup().exit_code == 0


def test_an_empty_file_of_results_is_whole_and_what_is_kept_aside_is_in_it(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(3)
    spool.dispatch()
    spool.poll()
    with State(spool.state_path) as state:
        (state.aside / "x.output.0123.json").write_bytes(b"an answer that is too long")
        (state.aside / "y.part").write_bytes(b"left half written")
        (state.requests / "x.jsonl").write_bytes(b"a request")
        (state.calls / "x").write_bytes(b"a call")
        empty = state.results / f"{spool.rows('SELECT tag FROM batches')[0][0]}.error.jsonl"
        empty.touch()
        with state.transaction() as db:
            db.execute(
                "UPDATE batches SET spooled = json_set(spooled, '$.error', json(?))",
                (json.dumps({"bytes": 0, "sha256": hashlib.sha256().hexdigest()}),),
            )
    report = spool.backup()
    names = files(report.result["path"])
    assert (report.exit_code, report.result["results"]) == (0, 2)
    assert [name for name in names if "aside" in name] == ["nura.db.spool/aside/x.output.0123.json"]
    assert f"nura.db.spool/results/{empty.name}" in names
    assert not [name for name in names if "requests" in name or "calls" in name]


def test_it_is_whole_while_others_write(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(10)
    lines = "".join(f'{{"id": {i}, "text": "record number {i}"}}\n' for i in range(15_000))
    (spool.folder / "in.jsonl").write_text(lines)
    busy = Command(spool.folder, spool.clock(), "enqueue", "echo", "in.jsonl")
    seen = []
    while busy.running:
        seen += [n for _, n in whole(spool.backup().result["path"])]
    assert busy.end().code == 0
    assert seen == sorted(seen)
    assert whole(spool.backup().result["path"]) == [("pending", 15_000)]
    spool.check()


# --- whole, or not there


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Have new files open to others, but for what ``mask`` takes away."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def test_nobody_else_may_read_it_and_two_of_one_second_stand_beside_each_other(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(1)
    spool.dispatch()
    spool.poll()
    with umask(0):
        paths = [Path(spool.backup().result["path"]) for _ in range(3)]
    assert [path.name for path in paths] == [f"nura.db.20270115T080000Z{n}" for n in ("", "-2", "-3")]
    for one in (spool.folder / "kept", *(spool.folder / "kept").rglob("*")):
        assert one.stat().st_mode & 0o777 == (0o700 if one.is_dir() else 0o600), one


def test_what_a_killed_one_left_is_removed_and_one_at_work_is_left_alone(openai_spool: Spool) -> None:
    spool = openai_spool
    kept = spool.folder / "kept"
    done = spool.backup().result["path"]
    for name in ("nura.db.20260101T000000Z.part", "other.db.20260101T000000Z.part", "nura.db.old.part"):
        (kept / name / "nura.db.spool").mkdir(parents=True)
        (kept / name / "nura.db").write_bytes(b"half")
    with backups.made(kept, "nura.db", spool.clock()) as part:
        (part / "nura.db").write_bytes(b"at work")
        second = spool.backup().result["path"]
        assert (part / "nura.db").read_bytes() == b"at work"
    names = {Path(done).name, Path(second).name, backups.lasting(part).name}
    assert {one.name for one in kept.iterdir()} == names | {"other.db.20260101T000000Z.part", "nura.db.old.part"}
    assert len(names) == 3


def left(spool: Spool) -> list[str]:
    """Return what lies where backups are kept."""
    return sorted(one.name for one in (spool.folder / "kept").iterdir())


def test_without_room_nothing_is_written_and_it_is_said_how_much_it_takes(
    openai_spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = openai_spool
    spool.fill(1)
    monkeypatch.setattr(backups, "_SPARED", 1 << 60)
    with pytest.raises(StateError, match=r"kept: a backup takes \d+ MB, and [\d,]+ MB are free") as caught:
        spool.backup()
    assert (caught.value.exit_code, left(spool)) == (75, [])


def test_a_damaged_state_file_makes_no_backup_and_takes_none_away(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(500)
    spool.backup()
    before = left(spool)
    with State(spool.state_path) as state:
        page_size = state.db.execute("PRAGMA page_size").fetchone()[0]
        (root,) = state.db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'records'").fetchone()
    with spool.state_path.open("r+b") as file:
        file.seek((root - 1) * page_size)
        file.write(b"\xff" * 200)
    with pytest.raises(StateCorrupt, match=r"nura\.db: is damaged") as caught:
        spool.backup()
    assert str(spool.state_path) in str(caught.value)
    assert (caught.value.exit_code, left(spool)) == (1, before)


def test_where_it_cannot_be_kept_is_said_and_leaves_nothing(openai_spool: Spool) -> None:
    spool = openai_spool
    with pytest.raises(StateError, match="No such file") as caught:
        spool.backup(spool.folder / "not" / "there")
    assert caught.value.exit_code == 75
    with pytest.raises(UsageError, match="lies in the spool"):
        spool.backup(spool.folder / "nura.db.spool" / "aside" / "kept")
    (spool.folder / "kept").write_text("somebody's")
    with pytest.raises(StateError, match="kept"):
        spool.backup()
    assert (spool.folder / "kept").read_text() == "somebody's"


def test_a_state_file_without_a_spool_gets_none_by_it(openai_spool: Spool) -> None:
    """Whoever makes a backup may be somebody else than the owner: no folder is made beside the state file."""
    spool = openai_spool
    spool.fill(1)
    shutil.rmtree(spool.folder / "nura.db.spool", ignore_errors=True)
    with State(spool.state_path, spool.clock) as state:
        backup.run(state, spool.folder / "kept", configuration.load(spool.path))
    assert not (spool.folder / "nura.db.spool").exists()
