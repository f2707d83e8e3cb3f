"""nura purge: what is forgotten stands nowhere any more, is not paid for again by accident, and everything else stays right."""

import gzip
import hashlib
import json
import random
import sqlite3
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from nura_cli.errors import StateError, UsageError
from nura_cli.pipeline import blame, forgetting, purge, quotes, retention
from nura_cli.state import State, actions
from nura_cli.state.purges import Seen
from nura_cli.states import TaskStatus
from tests.conftest import Spool
from tests.pipeline.forks import Command
from tests.pipeline.test_delivery import App, app  # noqa: F401 - the fixture app

pytestmark = pytest.mark.long

HOUR = 3600
DAY = 24 * HOUR
LAYOUTS = pytest.mark.parametrize("layout", ["newer", "earlier"])
KEY, TEXT = "ann.example@mail.test", "Ann lives in the third house on the left"
OTHERS = [
    {"id": f"bob-{n}@mail.test", "text": f"record number bob-{n}@mail.test and no more of Bob {n}"} for n in range(3)
]


def forms(text: str) -> set[bytes]:
    """Return how a text may stand in a file."""
    return {text.encode(), json.dumps(text)[1:-1].encode(), text.encode("utf-16-le")}


def contents(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield what each file of a folder holds, byte by byte, and what it holds once it is decompressed."""
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        data = path.read_bytes()
        yield path, data
        if data[:2] == b"\x1f\x8b":
            yield path, gzip.decompress(data)
        at = data.find(b"\x78\x9c")
        while at >= 0:
            with suppress(zlib.error):
                yield path, zlib.decompressobj().decompress(data[at:])
            at = data.find(b"\x78\x9c", at + 1)


def where(spool: Spool, *texts: str) -> set[tuple[str, str]]:
    """Return in which files of the spool's folder these texts stand."""
    wanted = {text: forms(text) for text in texts}
    return {
        (path.name, text)
        for path, data in contents(spool.folder)
        for text, ways in wanted.items()
        if any(way in data for way in ways)
    }


def packed(spool: Spool, ids: Collection[int]) -> set[bytes]:
    """Return pieces of what the state file keeps packed of tasks, and of no other: whoever has the file can unpack that."""
    rows = spool.rows("SELECT task_id, line FROM records UNION ALL SELECT task_id, body FROM answers")
    kept = [(task_id in ids, bytes(value)) for task_id, value in rows if value is not None and value[:1] != b"{"]
    others = b"".join(value for mine, value in kept if not mine)
    own = {value[n : n + 24] for mine, value in kept if mine for n in range(24, len(value) - 24, 24)}
    return {piece for piece in own if piece not in others}


def remains(spool: Spool, pieces: Iterable[bytes]) -> set[bytes]:
    """Return which of these pieces stand in a file of the spool's folder."""
    wanted = set(pieces)
    return {
        piece for path in spool.folder.rglob("*") if path.is_file() for piece in wanted if piece in path.read_bytes()
    }


def in_layout(spool: Spool, layout: str) -> None:
    """Let the state file, in which nothing is yet, have the layout that it would have from an earlier release."""
    if layout == "earlier":
        with closing(sqlite3.connect(spool.state_path, isolation_level=None)) as db:
            db.execute("DELETE FROM meta WHERE name = 'layout'")
            db.execute("UPDATE meta SET value = '4' WHERE name = 'oldest_version'")
            db.execute("CREATE INDEX IF NOT EXISTS answers_finished ON answers (finished_at)")
            db.execute("PRAGMA auto_vacuum = NONE")
            db.execute("VACUUM")


def said(text: str) -> str:
    """Return a text that names its key, so that an answer at another key shows."""
    return f"record number {KEY} and {text}"


def person(spool: Spool, **more: Any) -> None:
    """Enqueue a person's record among others."""
    spool.enqueue(*OTHERS, {"id": KEY, "text": said(TEXT), **more})


@LAYOUTS
def test_what_is_forgotten_stands_in_no_file(spool: Spool, layout: str) -> None:
    in_layout(spool, layout)
    person(spool)
    spool.settle()
    spool.poll()
    kept = packed(spool, [4])
    assert where(spool, KEY)
    assert bool(remains(spool, kept)) is (layout == "newer")
    report = spool.purge(KEY)
    assert (report.exit_code, report.result["purged"], report.result["emptied"]) == (0, 1, True)
    assert where(spool, KEY, TEXT) == set()
    assert remains(spool, kept) == set()
    assert len(spool.results()) == 3
    spool.check()
    assert spool.counts()["completed"] == 4
    assert len(spool.results()) == 3
    assert spool.status()["workloads"]["echo"]["purged"] == 1


def test_every_version_is_forgotten(spool: Spool) -> None:
    person(spool)
    spool.settle()
    spool.enqueue({"id": KEY, "text": said(f"{TEXT}, she moved")}, replace=True)
    spool.settle()
    spool.set(prompt="Say again: {{ text }}")
    spool.retry(keys=[KEY], statuses=[TaskStatus.COMPLETED])
    spool.settle()
    spool.enqueue({"id": KEY, "text": said(f"{TEXT}, and waits")}, replace=True)
    spool.purge(KEY)
    assert where(spool, KEY, TEXT) == set()
    assert {name: n for name, n in spool.counts().items() if n} == {"completed": 3, "cancelled": 1, "superseded": 3}
    assert spool.status()["workloads"]["echo"]["purged"] == 4
    spool.settle()
    spool.check()


@LAYOUTS
def test_what_is_forgotten_among_many_stands_in_no_file(openai_spool: Spool, layout: str) -> None:
    """Pages were split, rows were replaced and answered anew before."""
    spool = openai_spool
    in_layout(spool, layout)
    gone = range(0, 600, 7)
    for version in ("at first", "then"):
        spool.enqueue(*({"id": n, "text": " ".join(unique(version, n))} for n in range(600)), replace=True)
        spool.settle()
    ids = [row[0] for row in spool.rows("SELECT task_id, key FROM records") if int(row[1]) in gone]
    kept = packed(spool, ids)
    assert bool(remains(spool, kept)) is (layout == "newer")
    assert spool.purge(*map(str, gone)).result["purged"] == len(gone)
    assert remains(spool, kept) == set()
    words = {word.encode() for n in gone for version in ("at first", "then") for word in unique(version, n)}
    assert remains(spool, words) == set()
    assert len(spool.results()) == 600 - len(gone)


def test_what_was_moved_within_the_file_stands_nowhere_either(openai_spool: Spool) -> None:
    """Rows are moved when others beside them go, and what they leave where they were is overwritten by nobody."""
    spool = openai_spool
    order = list(range(600))
    random.Random(0).shuffle(order)
    spool.enqueue(*({"id": n, "text": " ".join(unique("once", n)[: 1 + n % 20])} for n in range(600)))
    for start in range(0, 600, 100):
        gone = order[start : start + 100]
        assert spool.purge(*map(str, gone)).result["out_of_reach"][0].startswith("backups")
        assert remains(spool, {word.encode() for n in gone for word in unique("once", n)[: 1 + n % 20]}) == set()


@pytest.mark.parametrize("why", ["it is large", "the disk is full"])
def test_of_what_is_not_written_anew_it_is_said_that_rows_were_moved_until_it_is_compacted(
    openai_spool: Spool, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    spool = openai_spool
    if why == "it is large":
        monkeypatch.setattr(forgetting, "FREE_PAGES", 10)
    else:
        monkeypatch.setattr(forgetting, "free_bytes", lambda state: 1000)
    person(spool)
    spool.settle()
    report = spool.purge(KEY)
    assert (report.exit_code, report.result["emptied"]) == (0, True)
    assert report.result["out_of_reach"][0].startswith("what was replaced or moved within the state file")
    with State(spool.state_path, spool.clock) as state:
        found = purge.plan_compact(state)
        assert "is written anew" in str(purge.question_compact(found, "nura.db"))
        assert purge.run_compact(state, found)[1] == []
        assert purge.plan_compact(state)["needs_bytes"] == 0
        monkeypatch.undo()
    assert spool.purge(KEY).result["out_of_reach"][0].startswith("backups")
    spool.check()


def unique(version: str, n: int) -> list[str]:
    """Return words that no other record has."""
    return [hashlib.sha256(f"{version} {n} {m}".encode()).hexdigest() for m in range(20)]


@LAYOUTS
def test_it_is_not_paid_for_again_by_accident(spool: Spool, layout: str) -> None:
    in_layout(spool, layout)
    person(spool)
    spool.settle()
    spool.purge(KEY)
    spent = spool.control.billing()["requests"]
    for line in ({"id": KEY, "text": said(TEXT)}, {"id": KEY, "text": "something else"}):
        for replace in (False, True):
            report = spool.enqueue(line, replace=replace)
            assert report.result["duplicates"] == report.result["duplicates_purged"] == 1
            assert "purged" in report.result["hint"]
    spool.settle()
    assert spool.control.billing()["requests"] == spent
    assert spool.purge(KEY, again=True).result["before"] == 1
    assert spool.enqueue({"id": KEY, "text": said(TEXT)}).result["enqueued"] == 1
    spool.settle()
    assert spool.control.billing()["requests"] == spent + 1
    spool.check()


def test_what_waits_is_withdrawn_and_nobody_is_told(openai_spool: Spool, app: App) -> None:  # noqa: F811
    spool = openai_spool
    spool.enqueue({"id": 1, "text": TEXT}, {"id": 2, "text": "record number 2"})
    assert spool.purge("1").result["purged"] == 1
    assert where(spool, TEXT) == set()
    assert spool.counts()["cancelled"] == 1
    spool.settle()
    assert spool.control.billing()["requests"] == 1
    assert spool.rows("SELECT count(*) FROM deliveries WHERE task_id = 1") == [(0,)]
    assert spool.enqueue({"id": 1, "text": TEXT}).result["duplicates"] == 1
    spool.check()


def under_way(spool: Spool) -> None:
    spool.control.settings(delay=2 * HOUR)
    person(spool)
    spool.dispatch()


@LAYOUTS
def test_what_is_under_way_is_forgotten_once_it_is_not(spool: Spool, layout: str) -> None:
    in_layout(spool, layout)
    under_way(spool)
    report = spool.purge(KEY)
    assert (report.result["purged"], report.result["later"]) == (0, 1)
    assert spool.status()["workloads"]["echo"]["to_be_purged"] == 1
    assert spool.enqueue({"id": KEY, "text": "another line"}, replace=True).result["duplicates"] == 1
    spool.settle()
    assert spool.control.billing()["requests"] == 4
    spool.poll()
    assert where(spool, KEY, TEXT) == set()
    assert spool.counts()["completed"] == 4
    assert spool.rows("SELECT count(*) FROM attempts") == [(4,)]
    assert spool.rows("SELECT * FROM purges") == []
    spool.check()


def test_what_is_to_be_forgotten_is_not_delivered(openai_spool: Spool, app: App) -> None:  # noqa: F811
    spool = openai_spool
    spool.control.settings(delay=2 * HOUR)
    spool.enqueue({"id": 1, "text": TEXT}, {"id": 2, "text": "record number 2"})
    spool.dispatch()
    spool.purge("1")
    spool.settle()
    assert spool.rows("SELECT DISTINCT task_id FROM deliveries") == [(2,)]
    assert where(spool, TEXT) == set()


@LAYOUTS
def test_with_allow_again_a_line_comes_in_once_the_old_one_is_at_rest(openai_spool: Spool, layout: str) -> None:
    spool = openai_spool
    in_layout(spool, layout)
    under_way(spool)
    assert spool.purge(KEY, again=True).result["later"] == 1
    taken = spool.enqueue({"id": KEY, "text": said(TEXT)}).result
    assert (taken["enqueued"], taken["duplicates"], taken["duplicates_purged"]) == (0, 1, 1)
    assert "under way still" in taken["hint"]
    spool.settle()
    assert where(spool, KEY) == set()
    assert spool.enqueue({"id": KEY, "text": said(TEXT)}).result["enqueued"] == 1
    spool.settle()
    assert len(spool.results(key=KEY)) == 1
    spool.check()


@LAYOUTS
@pytest.mark.parametrize("again", [False, True])
def test_a_key_is_forgotten_though_an_older_version_was_under_way(
    openai_spool: Spool, layout: str, again: bool
) -> None:
    spool = openai_spool
    in_layout(spool, layout)
    under_way(spool)
    spool.enqueue({"id": KEY, "text": said("she moved")}, replace=True)
    assert spool.purge(KEY, again=again).result["later"] == 1
    spool.settle()
    spool.poll()
    assert where(spool, KEY, TEXT) == set()
    taken = spool.enqueue({"id": KEY, "text": said("she moved")}).result
    assert (taken["enqueued"], taken["duplicates_purged"]) == ((1, 0) if again else (0, 1))
    spool.check()


def test_a_line_that_replaced_what_is_to_be_forgotten_stays(openai_spool: Spool) -> None:
    spool = openai_spool
    under_way(spool)
    spool.purge(KEY, again=True)
    assert spool.enqueue({"id": KEY, "text": said("this is new")}, replace=True).result["replaced"] == 1
    assert spool.enqueue({"id": KEY, "text": said("this is new")}).result["duplicates_purged"] == 0
    spool.settle()
    spool.settle()
    assert where(spool, TEXT) == set()
    (answer,) = spool.results(key=KEY)
    assert "this is new" in json.dumps(answer)
    spool.check()


def test_a_re_run_that_is_to_be_forgotten_lets_its_key_go(openai_spool: Spool) -> None:
    spool = openai_spool
    person(spool)
    spool.settle()
    spool.set(prompt="Say again: {{ text }}")
    spool.retry(keys=[KEY], statuses=[TaskStatus.COMPLETED])
    spool.control.settings(delay=2 * HOUR)
    spool.dispatch()
    spool.purge(KEY, again=True)
    assert spool.enqueue({"id": KEY, "text": said(TEXT)}).result["duplicates_purged"] == 1
    spool.settle()
    assert where(spool, KEY, TEXT) == set()
    assert spool.enqueue({"id": KEY, "text": said(TEXT)}).result["enqueued"] == 1


def test_what_is_to_be_forgotten_is_in_no_results(openai_spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = openai_spool
    under_way(spool)
    spool.purge(KEY)
    monkeypatch.setattr(forgetting, "carry_out", lambda state: None)
    spool.settle()
    assert len(spool.results()) == 3
    assert spool.results(key=KEY) == []
    found = Command(spool.folder, spool.clock(), "results", "--key", KEY).end()
    assert "to be purged" in found.out


def test_a_wish_and_what_is_dropped_shut_older_releases_out(openai_spool: Spool) -> None:
    spool = openai_spool
    in_layout(spool, "earlier")
    query = "SELECT value FROM meta WHERE name = 'oldest_version'"
    under_way(spool)
    assert spool.rows(query) == [("4",)]
    spool.purge(KEY, again=True)
    assert spool.rows(query) == [("7",)]


def test_dropping_by_age_shuts_older_releases_out(openai_spool: Spool) -> None:
    spool = openai_spool
    in_layout(spool, "earlier")
    old(spool, 2)
    assert spool.purge_old(seconds=DAY, undelivered=True).result["purged"] == 2
    assert spool.rows("SELECT value FROM meta WHERE name = 'oldest_version'") == [("7",)]


def waits_again(spool: Spool) -> None:
    """Let a task that was under way wait again, as a batch that is given back does."""
    with closing(sqlite3.connect(spool.state_path)) as db:
        db.execute("UPDATE tasks SET status = 'pending', batch_id = NULL")
        db.execute("UPDATE counts SET n = CASE status WHEN 'pending' THEN 1 ELSE 0 END")
        db.commit()


def test_nobody_is_told_of_a_cancelled_task_that_is_to_be_forgotten(openai_spool: Spool, app: App) -> None:  # noqa: F811
    spool = openai_spool
    spool.set(write_back={**spool.workloads["echo"]["write_back"], "set_cancelled": {"summary": "'gone'"}})
    spool.control.settings(delay=2 * HOUR)
    spool.enqueue({"id": 1, "text": TEXT})
    spool.dispatch()
    spool.purge("1")
    waits_again(spool)
    assert spool.cancel("echo").result["cancelled"] == 1
    assert spool.rows("SELECT * FROM deliveries") == []


@pytest.mark.parametrize("again", [False, True])
def test_a_failed_sending_of_what_is_to_be_forgotten_is_not_sent_again(spool: Spool, again: bool) -> None:
    spool.control.settings(delay=2 * HOUR)
    person(spool)
    spool.dispatch()
    spool.purge(KEY, again=again)
    spool.control.fault("expire")
    spool.clock.advance(26 * HOUR)
    spool.poll()
    spool.reconcile()
    spool.settle()
    spool.poll()
    assert where(spool, KEY, TEXT) == set()
    assert (spool.enqueue({"id": KEY, "text": said(TEXT)}).result["enqueued"] == 1) is again


def test_what_providers_keep_is_deleted_whatever_is_configured(spool: Spool) -> None:
    person(spool)
    spool.settle()
    kept = spool.control.files if spool.protocol == "openai" else spool.control.batches
    spool.poll()
    assert kept()
    assert spool.purge(KEY).result["at_providers"] == 1
    assert spool.poll().exit_code == 0
    assert kept() == []
    assert spool.purge(KEY).result["at_providers"] == 0


def doubled(spool: Spool) -> None:
    """Let a batch with a person's record end, and an extra batch beside it."""
    if spool.protocol == "openai":
        spool.control.fault("twice", "create")
    person(spool)
    spool.dispatch()
    for _ in range(8):
        spool.clock.advance(HOUR)
        spool.poll()
        spool.reconcile()


@pytest.mark.parametrize("status", [403, 405, 501])
@pytest.mark.parametrize("twice", [False, True])
def test_where_nothing_can_be_deleted_that_is_said_for_a_week(openai_spool: Spool, status: int, twice: bool) -> None:
    spool = openai_spool
    if twice:
        doubled(spool)
    else:
        person(spool)
        spool.settle()
    spool.purge(KEY)
    spool.control.fault("status", "delete", status=status, times=-1)
    for _ in range(3):
        spool.clock.advance(HOUR)
        report = spool.poll()
        (said_so,) = report.problems
        assert (report.exit_code, said_so.lasting) == (0, True)
        assert "1 batch is left there" in said_so.message
        assert spool.status()["purged_at_providers"] == 1
    spool.clock.advance(7 * DAY)
    report = spool.poll()
    assert (report.exit_code, len(report.problems)) == (0, 1)
    assert spool.status()["purged_at_providers"] == 0
    ((who, what),) = spool.rows("SELECT who, what FROM actions WHERE batch_id = 1")
    assert (who, "main keeps what it has of batch 1, which was purged" in what) == ("", True)
    assert spool.poll().problems == []


@pytest.mark.parametrize("twice", [False, True])
def test_what_is_refused_for_certain_is_let_go_and_noted(openai_spool: Spool, twice: bool) -> None:
    spool = openai_spool
    if twice:
        doubled(spool)
    else:
        person(spool)
        spool.settle()
    spool.purge(KEY)
    spool.control.fault("status", "delete", status=400, times=-1)
    report = spool.poll()
    (said_so,) = report.problems
    assert (report.exit_code, said_so.lasting) == (0, False)
    assert "main keeps what it has of batch 1" in said_so.message
    assert spool.status()["purged_at_providers"] == 0
    assert spool.rows("SELECT count(*) FROM actions WHERE batch_id = 1") == [(1,)]
    assert spool.poll().problems == []


def test_what_is_gone_at_a_provider_is_no_problem(spool: Spool) -> None:
    person(spool)
    spool.settle()
    spool.purge(KEY)
    spool.control.fault("status", "delete", status=404, times=-1)
    assert spool.poll().problems == []
    assert spool.status()["purged_at_providers"] == 0


def test_a_provider_that_is_down_is_asked_again(openai_spool: Spool) -> None:
    spool = openai_spool
    person(spool)
    spool.settle()
    spool.purge(KEY)
    fault = spool.control.fault("status", "delete", status=500, times=-1)
    assert spool.poll().exit_code != 0
    spool.control.clear(fault)
    assert spool.status()["purged_at_providers"] == 1
    assert spool.poll().exit_code == 0
    assert spool.status()["purged_at_providers"] == 0


def test_a_wish_that_waits_for_long_needs_a_person(openai_spool: Spool) -> None:
    spool = openai_spool
    under_way(spool)
    spool.purge(KEY)
    spool.clock.advance(DAY)
    kinds = [need["kind"] for need in spool.status()["attention"]]
    assert "purge_pending" not in kinds
    spool.clock.advance(DAY)
    (need,) = [need for need in spool.status()["attention"] if need["kind"] == "purge_pending"]
    assert need["message"].startswith("1 task is to be purged")
    spool.settle()
    assert "purge_pending" not in [need["kind"] for need in spool.status()["attention"]]


def test_words_about_it_go_too_and_the_log_says_that_it_was_purged(spool: Spool) -> None:
    person(spool)
    words = f"the record of {KEY} says {TEXT}"
    spool.settle()
    with State(spool.state_path, spool.clock) as state, state.transaction() as db:
        db.execute("UPDATE attempts SET outcome = 'refused', said = ? WHERE task_id = 4", (words,))
        for table, column in (("transitions", "why"), ("batches", "reason")):
            db.execute(f"UPDATE {table} SET {column} = ?", (f"refused: {words}",))
        db.execute("INSERT INTO troubles VALUES ('poll', ?, 0, 0, ?)", (words, words))
        db.execute("UPDATE batches SET faults = ?", (json.dumps([{"message": words}]),))
    spool.purge(KEY, why=f"{KEY} asked for it")
    assert where(spool, KEY, TEXT) == set()
    (done,) = spool.rows("SELECT verb, who, what, why FROM actions")
    assert done == ("purge", "tim", "1 key is forgotten", "(purged) asked for it")


def test_a_hold_s_words_go_too(openai_spool: Spool) -> None:
    spool = openai_spool
    words = f"the user {KEY} wrote '{TEXT}' and that is not allowed"
    spool.control.fault("rows", status=400, code="bad_thing", message=words, times=-1)
    spool.enqueue({"id": KEY, "text": said(TEXT)}, *({"id": f"key-{n}", "text": "abc"} for n in range(8)))
    for _ in range(3):
        spool.clock.advance(HOUR)
        spool.round()
    assert TEXT in spool.rows("SELECT origin FROM holds")[0][0]
    spool.purge(KEY, *(f"key-{n}" for n in range(8)))
    assert where(spool, KEY, TEXT) == set()
    assert len(spool.status()["holds"]) == 1


@pytest.mark.parametrize(
    "words",
    [
        f"a message says '{TEXT}', which is not allowed today",
        f"{TEXT} is not allowed",
        f"record number {KEY} and Ann lives in the third … was cut",
        "Ann  lives in the third\nhouse: is not allowed in the house of others",
        f"the key is {KEY} Ann lives in the third house",
    ],
)
def test_what_a_batch_was_refused_for_quotes_it_no_more(openai_spool: Spool, words: str) -> None:
    """Nobody knows which of a refused batch's requests its words are about."""
    spool = openai_spool
    spool.control.fault("refuse", code="bad_thing", message=words)
    spool.enqueue(*OTHERS, {"id": KEY, "text": f"record number {KEY}: {TEXT}, record number {KEY} and {TEXT}"})
    spool.settle()
    spool.clock.advance(HOUR)
    spool.settle()
    assert spool.counts()["completed"] == 4
    assert spool.rows("SELECT reason FROM batches WHERE reason LIKE '%Ann%'")
    spool.purge(KEY)
    assert where(spool, KEY, TEXT, "Ann lives in the third", " ".join(words.split()), "third\nhouse") == set()
    ((reason, faults),) = spool.rows("SELECT reason, faults FROM batches WHERE reason <> ''")
    assert "(purged)" in reason
    assert "(purged)" in faults
    spool.check()


def test_a_refusal_that_is_found_out_while_it_is_to_be_forgotten_quotes_it_no_more(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.control.fault("refuse", code="bad_thing", message=f"{TEXT} is not allowed")
    spool.enqueue(*OTHERS, {"id": KEY, "text": f"record number {KEY}: {TEXT}"})
    spool.dispatch()
    spool.poll()
    spool.purge(KEY)
    assert spool.status()["workloads"]["echo"]["to_be_purged"] == 1
    assert where(spool, TEXT)
    spool.settle()
    assert where(spool, KEY, TEXT) == set()


def test_a_fault_that_is_not_the_first_quotes_it_no_more(openai_spool: Spool) -> None:
    spool = openai_spool
    person(spool)
    spool.settle()
    faults = [["bad_thing", "something is wrong", None], ["bad_thing", f"the text '{TEXT}' is not allowed", None]]
    with State(spool.state_path, spool.clock) as state, state.transaction() as db:
        db.execute("UPDATE batches SET reason = 'bad_thing: something is wrong', faults = ?", (json.dumps(faults),))
    spool.purge(KEY)
    assert where(spool, TEXT) == set()
    assert spool.rows("SELECT reason FROM batches") == [("bad_thing: something is wrong",)]


def test_what_a_batch_is_still_to_be_judged_by_stays(openai_spool: Spool) -> None:
    """A record may hold the very words of a refusal of others, that reconcile is to go by."""
    spool = openai_spool
    words = "Enqueued token limit reached for gpt-4.1-mini. Please try again once some batches have been completed."
    spool.enqueue({"id": KEY, "text": f"record number {KEY} token_limit_exceeded {words}"})
    spool.settle()
    spool.control.fault("refuse", code="token_limit_exceeded", message=words)
    spool.enqueue(*OTHERS)
    spool.dispatch()
    spool.poll()
    before = spool.rows("SELECT faults FROM batches ORDER BY id")
    assert words in before[-1][0]
    with State(spool.state_path, spool.clock) as state, state.transaction() as db:
        db.execute("UPDATE batches SET cancel_why = ?", (f"{KEY} complained",))
    spool.purge(KEY)
    assert where(spool, KEY) == set()
    assert spool.rows("SELECT faults FROM batches ORDER BY id") == before
    spool.reconcile()
    assert spool.rows("SELECT count(*) FROM suspects") == [(0,)]


@pytest.mark.parametrize(
    ("text", "record", "left"),
    [
        ("it says 'a line of Sixteen' there", {"a": "not a line of Sixteen, b"}, "it says '(purged)' there"),
        ("a line  of Sixteen", {"a": ["b", {"c": "a line of\tSixteen"}]}, "(purged)"),
        ("fifteen letters", {"a": "fifteen letters and more"}, "fifteen letters"),
        ("call 4915112345 or 49151 now", {"a": 4915112345, "b": 49151}, "call (purged) or 49151 now"),
        ("mail to a@mail.test", {"a": "a@mail.test", "b": "to"}, "mail to (purged)"),
        ("a@mail.tests", {"a": "a@mail.test"}, "a@mail.tests"),
        ("of Katharina, Jürgen H", {"a": "Katharina", "b": "Jürgen H"}, "of (purged), (purged)"),
        ("one is 0123456789abcdef, another ghijklmnopqrstuv", {"a": "0123456789abcdefghijklmnopqrstuv"},
         "one is (purged), another (purged)"),
        ("to Ann Miller street 5, 12345 Town", {"a": "Ann Miller", "b": "Miller street 5, 12345 Town"}, "to (purged)"),
        ("'J\\u00f6rg M\\u00fc\\u00dfigg\\u00e4nger'", {"a": "Jörg Müßiggänger"}, "'(purged)'"),
        ("'Ann Lee\\nMain St 5\\n12345 Town'", {"a": "Ann Lee\nMain St 5\n12345 Town"}, "'(purged)'"),
        ("the Dampf schiff fahrts gesellschaft", {"a": "Dampf\u00adschiff\u00adfahrts\u00adgesellschaft"}, "the (purged)"),
        ("names ann.miller@mail.test", {"people": {"ann.miller@mail.test": 1}}, "names (purged)"),
        ("custom_ids of requests, model gpt-4.1-mini-long-name", {"custom_ids": 1, "a": "requests", "model": "gpt-4.1-mini-long-name"},
         "custom_ids of requests, model gpt-4.1-mini-long-name"),
        ("nothing of it", {"a": "b" * 100_000, "c": None, "d": True, "e": 1.5}, "nothing of it"),
        ("", {"a": "a line of sixteen"}, ""),
    ],
)  # fmt: skip
def test_what_words_quote_of_a_record_is_taken_out(text: str, record: dict[str, Any], left: str) -> None:
    found = quotes.of([text], [json.dumps(record).encode()], {"gpt-4.1-mini-long-name"})
    assert quotes.cleaner((), (), found)(text) == left


def test_what_begins_in_another_piece_is_taken_out_to_its_end() -> None:
    found = quotes.of(
        ["record 4711-Ann Miller lives at 5 Main Street"], [b'{"a": "4711-Ann Ann Miller lives at 5 Main Street"}']
    )
    assert (
        quotes.cleaner(["4711-Ann"], (), found)("record 4711-Ann Miller lives at 5 Main Street now")
        == "record (purged) now"
    )


@pytest.mark.parametrize(
    "record",
    [
        b'{"a": ' * 2000 + b'"a line of Sixteen"' + b"}" * 2000,
        b"no JSON, a line of Sixteen",
        b'{"a": "\xff\xfe", "b": "a line of Sixteen"}',
        b'{"n": ' + b"9" * 5000 + b', "b": "a line of Sixteen"}',
    ],
    ids=["nested", "no JSON", "no UTF-8", "a long number"],
)
def test_quotes_of_a_record_that_is_hard_to_read_are_found(record: bytes) -> None:
    found = quotes.of(["it says a line of Sixteen"], [record])
    assert quotes.cleaner((), (), found)("it says a line of Sixteen.") == "it says (purged)."


def test_two_holds_that_are_alike_without_what_was_forgotten_are_one(openai_spool: Spool) -> None:
    spool = openai_spool
    person(spool)
    spool.settle()
    with State(spool.state_path, spool.clock) as state, state.transaction() as db:
        for origin in (f"refused: {KEY}", "refused: (purged)", "refused: all"):
            actions.hold(db, actions.Hold("workload", "echo", origin, 0, None, "", None))
    spool.purge(KEY)
    assert where(spool, KEY) == set()
    assert {row[0] for row in spool.rows("SELECT origin FROM holds")} == {"refused: (purged)", "refused: all"}


def test_a_hold_quotes_no_record(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.set(prompt="{% set m = {'a': 1} %}{{ m[text] + 1 }}")
    spool.enqueue(*({"id": f"person-{n}", "text": f"Ann{n} lives in house {n}"} for n in range(8)))
    spool.dispatch()
    (held,) = spool.status()["holds"]
    assert "UndefinedError: 'dict object' has no attribute …" in held["message"]
    spool.purge("person-0")
    assert where(spool, "Ann0 lives in house 0", "person-0") == set()


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ("UndefinedError: 'nmae' is undefined", "UndefinedError: 'nmae' is undefined"),
        ("UndefinedError: 'dict object' has no attribute 'Ann'", "UndefinedError: 'dict object' has no attribute …"),
        ("KeyError: 49151123", "KeyError: …"),
        ("ValueError: invalid literal: \"Ann's\", 'and \\'so\\' on'", "ValueError: invalid literal: …, …"),
    ],
)
def test_words_of_an_error_are_left_without_what_they_quote_of_a_record(words: str, left: str) -> None:
    assert blame.impersonal(words, "{{ nmae }}") == left


def test_show_results_and_retry_say_that_it_was_purged(spool: Spool) -> None:
    person(spool)
    spool.settle()
    spool.purge(KEY)
    (shown,) = spool.show(KEY)["keys"]
    (task,) = shown["tasks"]
    assert (shown["key"], shown["status"], task["purged"], task["record"], task["result"]) == (
        KEY,
        "completed",
        True,
        None,
        None,
    )
    assert task["attempts"][0]["usage"]["output_tokens"] > 0
    batch = spool.show(batch="1")["batch"]
    assert (batch["purged"], batch["went_on"]) == (1, 0)
    report = spool.retry(keys=[KEY], statuses=[TaskStatus.COMPLETED], until=2**40)
    assert report.exit_code == 3
    assert "purged" in report.problems[0].message
    assert spool.redeliver(made=True).exit_code == 0
    assert spool.results(key=KEY) == []


def test_what_lies_aside_and_is_no_file_of_nura_s_stops_nothing(openai_spool: Spool, app: App) -> None:  # noqa: F811
    spool = openai_spool
    spool.control.settings(delay=2 * HOUR)
    spool.enqueue({"id": 1, "text": TEXT}, {"id": 2, "text": "record number 2"})
    spool.dispatch()
    spool.purge("1")
    with State(spool.state_path) as state:
        (state.aside / "folder").mkdir()
        (state.aside / "link").symlink_to("nowhere")
    spool.settle()
    assert where(spool, TEXT) == set()
    assert spool.rows("SELECT task_id, status FROM deliveries") == [(2, "done")]


def test_two_that_forget_the_same_at_once_meet_no_file_that_is_gone(
    openai_spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = openai_spool
    person(spool)
    spool.settle()
    with State(spool.state_path) as state:
        (state.aside / "line").write_text('{"custom_id": "tag-4"}')
    look = forgetting._names

    def late(path: Path) -> list[str]:
        path.unlink()
        return look(path)

    monkeypatch.setattr(forgetting, "_names", late)
    assert spool.purge(KEY).exit_code == 0


def test_where_nothing_can_be_forgotten_now_deliveries_are_made_all_the_same(
    openai_spool: Spool,
    app: App,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spool = openai_spool
    spool.control.settings(delay=2 * HOUR)
    spool.enqueue({"id": 1, "text": TEXT}, {"id": 2, "text": "record number 2"})
    spool.dispatch()
    spool.purge("1")
    spool.clock.advance(3 * HOUR)
    spool.poll()

    def full(state: State) -> None:
        raise StateError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(forgetting, "tidy", full)
        report = spool.reconcile()
    assert (report.exit_code, [one.message for one in report.problems]) == (3, ["the disk is full"])
    assert spool.rows("SELECT task_id, status FROM deliveries") == [(2, "done")]
    assert spool.reconcile().problems == []
    assert where(spool, TEXT) == set()


def test_a_reader_that_stays_is_told_of(openai_spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "WAL_SECONDS", 0.2)
    spool = openai_spool
    person(spool)
    spool.settle()
    with State(spool.state_path, spool.clock) as reader:
        reader.db.execute("BEGIN")
        reader.db.execute("SELECT count(*) FROM records").fetchone()
        report = spool.purge(KEY)
        assert (report.exit_code, report.result["emptied"]) == (3, False)
        assert "reading" in report.problems[0].message
        reader.db.execute("COMMIT")
    assert spool.purge(KEY).result["emptied"]
    assert where(spool, KEY, TEXT) == set()


def test_what_a_killed_purge_left_is_removed_by_the_next_reconcile(
    openai_spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = openai_spool
    person(spool)
    spool.settle()
    with State(spool.state_path, spool.clock) as other:  # nobody is the last one out, who would empty the WAL
        other.db.execute("SELECT 1 FROM meta").fetchone()
        with monkeypatch.context() as patch:
            patch.setattr(forgetting, "tidy", lambda state: None)
            spool.purge(KEY)
        assert where(spool, TEXT)
        spool.reconcile()
        assert where(spool, KEY, TEXT) == set()


def test_what_a_killed_purge_left_is_removed_by_compacting(
    openai_spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = openai_spool
    person(spool)
    spool.settle()
    monkeypatch.setattr(forgetting, "tidy", lambda state: None)
    spool.purge(KEY)
    with State(spool.state_path, spool.clock) as state:
        found = purge.plan_compact(state)
        assert found["needs_bytes"] > 0
        assert purge.run_compact(state, found)[1] == []
        assert purge.plan_compact(state)["needs_bytes"] == 0
    assert where(spool, KEY, TEXT) == set()


def test_reconcile_says_once_that_a_reader_keeps_traces_and_removes_them_later(
    openai_spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "WAL_SECONDS", 0.2)
    spool = openai_spool
    under_way(spool)
    spool.purge(KEY)
    spool.clock.advance(3 * HOUR)
    spool.poll()
    with State(spool.state_path, spool.clock) as reader:
        reader.db.execute("BEGIN")
        reader.db.execute("SELECT count(*) FROM records").fetchone()
        for _ in range(2):
            report = spool.reconcile()
            (problem,) = report.problems
            assert (report.exit_code, problem.lasting, "reading" in problem.message) == (0, True, True)
        reader.db.execute("COMMIT")
        assert spool.reconcile().problems == []
        assert where(spool, KEY, TEXT) == set()


@pytest.mark.parametrize("layout", ["earlier"])
def test_too_many_free_pages_are_told_apart_from_readers(
    openai_spool: Spool, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = openai_spool
    in_layout(spool, layout)
    spool.enqueue(*({"id": n, "text": f"record number {n} " + "x" * 20000} for n in range(100)))
    spool.settle()
    spool.clock.advance(2 * DAY)
    spool.purge_old(seconds=DAY, undelivered=True)
    person(spool)
    spool.settle()
    monkeypatch.setattr(forgetting, "FREE_PAGES", 10)
    report = spool.purge(KEY)
    assert (report.exit_code, report.result["emptied"]) == (3, False)
    assert "free pages" in report.problems[0].message
    assert "purge --compact" in str(report.problems[0].hint)
    assert any("purge --compact" in one for one in report.result["out_of_reach"])
    (problem,) = spool.reconcile().problems
    assert (problem.exit_code, "free pages" in problem.message) == (0, True)
    assert Command(spool.folder, spool.clock(), "purge", "--compact", "--yes").end().code == 0
    assert spool.reconcile().problems == []
    monkeypatch.undo()
    report = spool.purge(KEY)
    assert (report.exit_code, report.result["emptied"]) == (0, True)
    assert not any("purge --compact" in one for one in report.result["out_of_reach"])


def test_what_a_provider_keeps_at_another_address_is_out_of_reach(openai_spool: Spool) -> None:
    spool = openai_spool
    person(spool)
    spool.settle()
    with closing(sqlite3.connect(spool.state_path)) as db:
        db.execute("UPDATE batches SET address = 'openai https://old.test/v1'")
        db.commit()
    found = spool.purge(KEY).result["out_of_reach"]
    assert "what openai https://old.test/v1, where main is not any more, keeps of batch 1" in found


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("key 17: refused", "key (purged): refused"),
        ("17 rows were refused", "17 rows were refused"),
        ("key 170: refused", "key 170: refused"),
        ('line "17" is odd', 'line "(purged)" is odd'),
    ],
)
def test_a_short_key_is_found_only_where_it_is_named(text: str, left: str) -> None:
    assert quotes.cleaner(["17"], ())(text) == left


def test_a_composite_key_is_found_in_words() -> None:
    clean = quotes.cleaner(['\x1e["acme","ann@mail.test"]'], ())
    assert clean('key ["acme", "ann@mail.test"]: gone; ann@mail.test left') == "key (purged): gone; (purged) left"


def test_the_command_asks_first_and_needs_keys(spool: Spool) -> None:
    person(spool)
    (spool.folder / "gone").write_text(f"{KEY}\nnobody@mail.test\n")
    refused = Command(spool.folder, spool.clock(), "purge", "echo", "--key", KEY).end()
    assert refused.code == 2
    assert "--yes" in refused.out
    assert Command(spool.folder, spool.clock(), "purge", "echo", "--yes").end().code == 2
    dry = Command(spool.folder, spool.clock(), "purge", "echo", "--key", KEY, "-n").end()
    assert (dry.code, "1 key of echo is forgotten" in dry.out) == (0, True)
    done = Command(
        spool.folder, spool.clock(), "purge", "echo", "--keys-from", str(spool.folder / "gone"), "--yes"
    ).end()
    assert done.code == 3
    assert "1 key forgotten" in done.out
    assert "nobody@mail.test" in done.out
    (spool.folder / "gone").unlink()
    assert where(spool, KEY, TEXT) == set()


def test_that_a_forgotten_key_may_come_again_is_agreed_to_first(openai_spool: Spool) -> None:
    spool = openai_spool
    person(spool)
    spool.settle()
    spool.purge(KEY)
    arguments = ("purge", "echo", "--key", KEY, "--allow-again")
    refused = Command(spool.folder, spool.clock(), *arguments).end()
    assert (refused.code, "forgotten before, may be enqueued, and paid for, again" in refused.out) == (2, True)
    assert spool.enqueue({"id": KEY, "text": said(TEXT)}).result["duplicates_purged"] == 1
    assert Command(spool.folder, spool.clock(), *arguments, "--yes").end().code == 0
    assert spool.enqueue({"id": KEY, "text": said(TEXT)}).result["enqueued"] == 1


def test_keys_are_forgotten_of_the_one_workload_that_is_named(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.set("other")
    spool.fill(2)
    spool.fill(2, "other")
    (spool.folder / "gone").write_text("1\n")
    for workloads in ((), ("echo", "other")):
        for keys in (("--key", "1"), ("--keys-from", str(spool.folder / "gone"))):
            refused = Command(spool.folder, spool.clock(), "purge", *workloads, *keys, "--yes").end()
            assert (refused.code, "exactly one" in refused.out) == (2, True), refused
    assert Command(spool.folder, spool.clock(), "purge", "echo", "--key", "1", "--yes").end().code == 0
    assert spool.rows("SELECT count(*) FROM records") == [(3,)]


def test_two_at_once_forget_each_key_once(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(500)
    arguments = [f"--key={n}" for n in range(500)]
    both = [Command(spool.folder, spool.clock(), "purge", "echo", "--yes", *arguments) for _ in range(2)]
    ended = [one.end() for one in both]
    assert [one.code for one in ended] == [0, 0], ended
    assert spool.status()["workloads"]["echo"]["purged"] == 500
    assert spool.counts()["cancelled"] == 500
    spool.check()


# --- by age


def old(spool: Spool, n: int = 10) -> None:
    """Let some answers come, and two days pass."""
    spool.fill(n)
    spool.settle()
    spool.clock.advance(2 * DAY)


def away(spool: Spool, app: App) -> None:  # noqa: F811
    """Let some answers come while the application's table is away, and two days pass."""
    spool.fill(3)
    spool.dispatch()
    app.run("ALTER TABLE articles RENAME TO away")
    spool.poll()
    spool.reconcile()
    spool.clock.advance(2 * DAY)


def test_what_is_delivered_and_old_is_dropped(openai_spool: Spool, app: App) -> None:  # noqa: F811
    spool = openai_spool
    old(spool, 5)
    spool.enqueue({"id": 7, "text": "record number 7"})
    spool.settle()
    before = spool.counts()
    report = spool.purge_old(seconds=DAY)
    assert (report.exit_code, report.result["purged"], report.result["workloads"]) == (0, 5, {"echo": 5})
    assert [one["key"] for one in spool.results()] == [7]
    assert spool.counts() == before
    assert spool.status()["workloads"]["echo"]["purged"] == 5
    assert spool.rows("SELECT count(*) FROM attempts") == [(6,)]
    assert spool.rows("SELECT count(*) FROM deliveries") == [(1,)]
    assert {name for n in range(5) for name, _ in where(spool, f"record number {n}")} == {"app.db"}
    assert [row[1] for row in app.run("SELECT id, summary FROM articles WHERE id < 5")] != [None] * 5
    spool.check()


@pytest.mark.parametrize("by_retention", [False, True])
def test_what_the_spool_still_has_of_what_is_dropped_goes_too(
    openai_spool: Spool,
    app: App,  # noqa: F811
    by_retention: bool,
) -> None:
    spool = openai_spool
    if by_retention:
        spool.set(retention="1d")
    old(spool, 3)
    with State(spool.state_path, spool.clock) as state:
        (tag,) = state.db.execute("SELECT tag FROM batches").fetchone()
        left = (
            state.results / f"{tag}.0.jsonl"
        )  # as a reconcile that was killed, or a poll that came late, would leave it
        left.write_text("record number 1")
    if by_retention:
        spool.reconcile()
    else:
        spool.purge_old(seconds=DAY)
    assert spool.results() == []
    assert not left.exists()


def test_what_is_not_delivered_stays_unless_that_is_said(openai_spool: Spool, app: App) -> None:  # noqa: F811
    spool = openai_spool
    away(spool, app)
    assert spool.purge_old(seconds=DAY).result["purged"] == 0
    assert spool.purge_old(seconds=DAY, undelivered=True).result["purged"] == 3
    app.run("ALTER TABLE away RENAME TO articles")
    spool.settle()
    assert app.run("SELECT count(*) FROM articles WHERE summary IS NOT NULL") == [(0,)]
    assert spool.status()["attention"] == []
    spool.check()


def test_what_nobody_was_told_of_stays(openai_spool: Spool, app: App) -> None:  # noqa: F811
    """A failed task of a workload that writes rows of completed ones alone."""
    spool = openai_spool
    spool.set(prompt="{{ 100 // n }} {{ text }}")
    spool.enqueue(*({"id": n, "n": n, "text": f"record number {n}"} for n in range(6)))
    spool.settle()
    spool.clock.advance(2 * DAY)
    assert spool.purge_old(seconds=DAY).result["purged"] == 5
    (left,) = spool.results()
    assert (left["key"], left["status"]) == (0, "failed")
    assert spool.purge_old(seconds=DAY, read_to=left["seq"] - 1).result["purged"] == 0
    assert spool.purge_old(seconds=DAY, read_to=left["seq"]).result["purged"] == 1
    spool.check()


def test_answers_from_before_there_was_a_delivery_stay(openai_spool: Spool, request: pytest.FixtureRequest) -> None:
    spool = openai_spool
    old(spool, 3)
    request.getfixturevalue("app")  # from now on, rows are written
    spool.set(retention="1d")
    for _ in range(3):
        spool.reconcile()
        spool.clock.advance(DAY)
    assert spool.purge_old(seconds=DAY).result["purged"] == 0
    assert len(spool.results()) == 3


def test_what_a_person_closed_undelivered_stays(openai_spool: Spool, app: App) -> None:  # noqa: F811
    spool = openai_spool
    away(spool, app)
    spool.set(write_back=None, events=[{"types": ["task.failed"], "command": ["/bin/cat"]}])
    assert spool.redeliver(drop=True).result["rows"]["dropped"] == 3
    assert spool.purge_old(seconds=DAY).result["purged"] == 0
    assert len(spool.results()) == 3


def test_an_answer_that_another_took_the_place_of_counts_as_over(openai_spool: Spool, app: App) -> None:  # noqa: F811
    spool = openai_spool
    away(spool, app)
    spool.enqueue({"id": 0, "text": "record number 0 anew"}, replace=True)
    assert spool.purge_old(seconds=DAY).result["purged"] == 1
    spool.check()


@pytest.mark.parametrize("of_all", [False, True])
def test_what_was_read_bounds_what_is_dropped_of_every_workload(
    openai_spool: Spool,
    app: App,  # noqa: F811
    of_all: bool,
) -> None:
    spool = openai_spool
    old(spool, 5)
    read = spool.results()[1]["seq"]
    assert spool.purge_old(*(() if of_all else ("echo",)), seconds=DAY, read_to=read).result["purged"] == 2
    assert len(spool.results()) == 3


def test_of_what_delivers_nothing_somebody_says_what_was_read(spool: Spool) -> None:
    old(spool)
    with pytest.raises(UsageError, match="echo: delivers nothing"):
        spool.purge_old("echo", seconds=DAY)
    read = spool.results()[3]["seq"]
    assert spool.purge_old("echo", seconds=DAY, read_to=read).result["purged"] == 4
    assert len(spool.results(after=read)) == 6
    assert spool.purge_old("echo", seconds=DAY, undelivered=True).result["purged"] == 6
    spool.check()


def test_a_line_that_comes_in_again_is_a_duplicate_and_another_one_a_conflict(spool: Spool) -> None:
    old(spool, 2)
    spool.purge_old(seconds=DAY, undelivered=True)
    assert spool.enqueue({"id": 0, "text": "record number 0"}).result["duplicates"] == 1
    report = spool.enqueue({"id": 0, "text": "record number 0 anew"})
    assert report.result["conflicts"] == 1
    assert "purged" in report.problems[0].message
    assert spool.enqueue({"id": 0, "text": "record number 0 anew"}, replace=True).result["replaced"] == 1
    spool.settle()
    assert spool.control.billing()["requests"] == 3
    spool.check()


@LAYOUTS
def test_a_key_whose_record_went_by_age_is_forgotten_as_others_are(spool: Spool, layout: str) -> None:
    """Its digest was kept, and in an earlier file its text."""
    in_layout(spool, layout)
    person(spool)
    spool.settle()
    spool.clock.advance(2 * DAY)
    spool.purge_old(seconds=DAY, undelivered=True)
    assert bool(where(spool, KEY)) is (layout == "earlier")
    command = ("purge", "echo", "--key", KEY)
    assert "1 key of echo is forgotten" in Command(spool.folder, spool.clock(), *command, "-n").end().out
    assert Command(spool.folder, spool.clock(), *command).end().code == 2
    assert spool.purge(KEY).result["purged"] == 1
    assert where(spool, KEY) == set()
    assert spool.purge(KEY).result["before"] == 1
    assert spool.enqueue({"id": KEY, "text": said(TEXT)}).result["duplicates_purged"] == 1
    spool.check()


def test_older_versions_go_with_the_one_that_took_their_place(spool: Spool) -> None:
    spool.enqueue({"id": 1, "text": "record number 1 at first"})
    spool.enqueue({"id": 1, "text": "record number 1 then"}, replace=True)
    spool.settle()
    spool.clock.advance(2 * DAY)
    assert spool.purge_old(seconds=DAY, undelivered=True).result["purged"] == 2
    assert spool.rows("SELECT * FROM records") == []


def test_what_a_rerun_may_fall_back_to_stays(spool: Spool) -> None:
    old(spool, 2)
    spool.set(prompt="Say again: {{ text }}")
    spool.retry(keys=["1"], statuses=[TaskStatus.COMPLETED])
    assert spool.purge_old(seconds=DAY, undelivered=True).result["purged"] == 1
    assert [one["key"] for one in spool.results()] == [1]


def test_retention_lets_reconcile_drop_what_is_old_in_pages(
    openai_spool: Spool,
    app: App,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention, "PAGE", 2)
    monkeypatch.setattr(retention, "PAGES_A_RUN", 2)
    spool = openai_spool
    spool.set(retention="1d")
    old(spool)
    left = []
    for _ in range(4):
        spool.reconcile()
        left.append(len(spool.results()))
    assert left == [6, 2, 0, 0]
    assert spool.status()["workloads"]["echo"]["purged"] == 10
    spool.check()


def test_retention_gets_to_the_end_however_much_is_kept(
    openai_spool: Spool,
    app: App,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It goes on where it ended, the next day, too."""
    monkeypatch.setattr(retention, "PAGE", 2)
    monkeypatch.setattr(retention, "PAGES_A_RUN", 1)
    spool = openai_spool
    spool.set("kept")
    spool.fill(9, "kept")
    spool.settle()
    spool.set(retention="1d")
    old(spool, 3)
    for _ in range(8):
        spool.clock.advance(DAY)
        spool.reconcile()
    assert spool.results(workloads=["echo"]) == []
    assert len(spool.results()) == 9
    spool.set("kept", write_back=spool.workloads["echo"]["write_back"], retention="1d")
    for _ in range(8):
        spool.clock.advance(DAY)
        spool.reconcile()
    assert len(spool.results()) == 9  # nobody was told of them


@LAYOUTS
def test_answers_of_a_clock_that_was_ahead_hold_up_no_others(
    openai_spool: Spool,
    app: App,  # noqa: F811
    layout: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention, "PAGE", 2)
    spool = openai_spool
    in_layout(spool, layout)
    spool.fill(2)
    spool.dispatch()
    spool.poll()
    right = spool.clock.time
    spool.clock.time = right + 400 * DAY
    spool.reconcile()
    spool.clock.time = right
    spool.fill(5)
    spool.settle()
    spool.clock.advance(2 * DAY)
    assert spool.purge_old(seconds=DAY).result["purged"] == 3
    assert [one["key"] for one in spool.results()] == [0, 1]
    spool.clock.advance(400 * DAY)
    assert spool.purge_old(seconds=DAY).result["purged"] == 2


def test_a_clock_that_leaps_drops_nothing_until_it_is_seen_to_be_right(openai_spool: Spool, app: App) -> None:  # noqa: F811
    spool = openai_spool
    spool.set(retention="90d")
    spool.fill(3)
    spool.settle()
    for _ in range(2):
        spool.clock.advance(DAY)
        assert spool.reconcile().problems == []
    right = spool.clock.time
    for leap in (3650, 400, 3650):
        spool.clock.time = right + leap * DAY
        report = spool.reconcile()
        assert report.exit_code == 0
        assert "clock" in report.problems[0].message
        spool.clock.advance(HOUR)
        spool.reconcile()
    spool.clock.time = right + HOUR
    assert spool.reconcile().problems == []
    assert len(spool.results()) == 3
    spool.clock.advance(300 * DAY)  # it was switched off meanwhile
    assert len(spool.reconcile().problems) == 1
    spool.clock.advance(DAY)
    assert spool.reconcile().problems == []
    assert spool.results() == []


@pytest.mark.parametrize(
    ("before", "days", "after"),
    [
        (Seen(), 100, Seen(0, 100 * DAY)),
        (Seen(0, 100 * DAY), 100.5, Seen(0, 100 * DAY)),
        (Seen(0, 100 * DAY), 101, Seen(101 * DAY)),
        (Seen(0, 100 * DAY), 1000, Seen(0, 1000 * DAY)),
        (Seen(100 * DAY), 101, Seen(101 * DAY)),
        (Seen(100 * DAY), 300, Seen(300 * DAY)),
        (Seen(100 * DAY), 301, Seen(100 * DAY, 301 * DAY)),
        (Seen(100 * DAY, 301 * DAY), 308, Seen(308 * DAY)),  # cron runs weekly
        (Seen(100 * DAY, 1000 * DAY), 100.5, Seen(int(100.5 * DAY))),
        (Seen(1000 * DAY), 100, Seen(100 * DAY)),  # set back: less is old now
    ],
)
def test_a_clock_is_believed_while_it_goes_on_and_where_two_runs_agree(before: Seen, days: float, after: Seen) -> None:
    assert retention.believed(before, int(days * DAY)) == after


def test_retention_goes_by_what_is_delivered_and_looks_again_the_next_day(openai_spool: Spool, app: App) -> None:  # noqa: F811
    spool = openai_spool
    spool.set(retention="1d")
    away(spool, app)
    spool.reconcile()
    assert len(spool.results()) == 3
    app.run("ALTER TABLE away RENAME TO articles")
    spool.clock.advance(8 * HOUR)
    spool.reconcile()
    spool.clock.advance(DAY)
    spool.reconcile()
    assert spool.results() == []
    assert app.run("SELECT count(*) FROM articles WHERE summary IS NOT NULL") == [(3,)]


def test_retention_begins_with_the_file(openai_spool: Spool, app: App) -> None:  # noqa: F811
    spool = openai_spool
    spool.set(retention="90d")
    spool.fill(3)
    spool.settle()
    spool.clock.advance(91 * DAY)
    assert spool.reconcile().problems == []
    assert spool.results() == []


def test_retention_that_is_set_later_believes_the_clock_that_was_seen_to_go_on(openai_spool: Spool, app: App) -> None:  # noqa: F811
    spool = openai_spool
    spool.fill(3)
    spool.settle()
    for _ in range(4):
        spool.clock.advance(DAY)
        assert spool.reconcile().problems == []
    assert len(spool.results()) == 3
    spool.set(retention="2d")
    assert spool.reconcile().problems == []
    assert spool.results() == []


def test_a_clock_that_leaps_is_told_of_where_something_is_to_be_dropped(openai_spool: Spool, app: App) -> None:  # noqa: F811
    spool = openai_spool
    spool.fill(3)
    spool.settle()
    spool.clock.advance(400 * DAY)
    assert spool.reconcile().problems == []
    spool.set(retention="90d")
    assert [problem.hint for problem in spool.reconcile().problems] == [
        "where that is right, it goes on within a day or two by itself, and nura purge --older-than does it at once"
    ]
    assert len(spool.results()) == 3


@pytest.mark.parametrize("types", [None, ["batch.completed", "batch.failed"]])
def test_retention_without_a_delivery_is_refused(spool: Spool, types: list[str] | None) -> None:
    spool.set(retention="90d", events=[{"types": types, "command": ["/bin/cat"]}] if types else [])
    assert not loads(spool)
    spool.set(events=[{"types": [*(types or ()), "task.completed"], "command": ["/bin/cat"]}])
    assert loads(spool)


def loads(spool: Spool) -> bool:
    """Return whether the configuration loads; else it is retention that is refused."""
    done = Command(spool.folder, spool.clock(), "reconcile").end()
    assert done.code in (0, 78), done
    assert ("retention" in done.out) is (done.code == 78)
    return done.code == 0


def test_a_workload_that_tells_of_batches_alone_delivers_nothing(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.set(events=[{"types": ["batch.completed"], "command": ["/bin/cat"]}])
    old(spool, 3)
    with pytest.raises(UsageError, match="echo: delivers nothing"):
        spool.purge_old("echo", seconds=DAY)


def test_the_command_drops_by_age(spool: Spool) -> None:
    old(spool, 2)
    arguments = ("purge", "echo", "--older-than", "1d")
    assert Command(spool.folder, spool.clock(), *arguments, "--yes").end().code == 2
    unread = Command(spool.folder, spool.clock(), *arguments, "--read-to", "0", "-n").end()
    assert (unread.code, "nothing so old was delivered, or read" in unread.out) == (0, True), unread
    dry = Command(spool.folder, spool.clock(), *arguments, "--undelivered", "-n").end()
    assert (dry.code, "2 answers of echo are dropped" in dry.out) == (0, True), dry
    done = Command(spool.folder, spool.clock(), *arguments, "--read-to", "2", "--yes").end()
    assert (done.code, "2 tasks lost" in done.out) == (0, True)
    assert Command(spool.folder, spool.clock(), *arguments, "--allow-again", "--yes").end().code == 2


# --- the file


def filled(spool: Spool, layout: str) -> int:
    """Let two hundred long records be answered and dropped; return the size of the state file before that."""
    in_layout(spool, layout)
    spool.enqueue(*({"id": n, "text": f"record number {n} " + f"{n:07} " * 1000} for n in range(200)))
    spool.settle()
    with State(spool.state_path, spool.clock):
        pass  # the last one out writes the WAL into the file
    before = spool.state_path.stat().st_size
    spool.clock.advance(2 * DAY)
    assert spool.purge_old(seconds=DAY, undelivered=True).result["purged"] == 200
    return before


def test_a_new_file_shrinks_by_itself(openai_spool: Spool) -> None:
    assert openai_spool.state_path.stat().st_size < filled(openai_spool, "newer") / 2
    openai_spool.check()


def test_a_new_file_shrinks_by_retention(openai_spool: Spool, app: App) -> None:  # noqa: F811
    spool = openai_spool
    spool.set(retention="1d")
    spool.enqueue(*({"id": n, "text": f"record number {n} " + f"{n:07} " * 1000} for n in range(200)))
    spool.settle()
    with State(spool.state_path, spool.clock):
        pass  # the last one out writes the WAL into the file
    before = spool.state_path.stat().st_size
    spool.clock.advance(2 * DAY)
    spool.reconcile()
    assert spool.status()["workloads"]["echo"]["purged"] == 200
    assert spool.state_path.stat().st_size < before / 2


def test_an_earlier_file_shrinks_once_it_is_compacted(openai_spool: Spool) -> None:
    spool = openai_spool
    before = filled(spool, "earlier")
    assert spool.state_path.stat().st_size == before
    spool.fill(5)
    dry = Command(spool.folder, spool.clock(), "purge", "--compact", "-n").end()
    assert (dry.code, "MB of disk" in dry.out, "earlier" in dry.out or "older" in dry.out) == (0, True, True)
    assert Command(spool.folder, spool.clock(), "purge", "--compact").end().code == 2
    done = Command(spool.folder, spool.clock(), "purge", "--compact", "--yes").end()
    assert (done.code, "compacted" in done.out) == (0, True), done
    assert spool.state_path.stat().st_size < before / 2
    assert spool.enqueue({"id": 0, "text": "record number 0"}).result["conflicts"] == 1  # its digest was kept
    spool.fill(200)
    spool.settle()
    spool.check()
    assert "compacted" in spool.rows("SELECT what FROM actions ORDER BY id DESC LIMIT 1")[0][0]


def test_compacting_says_that_a_reader_keeps_it_from_being_done(
    openai_spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "WAL_SECONDS", 0.2)
    spool = openai_spool
    filled(spool, "earlier")
    with State(spool.state_path, spool.clock) as reader:
        reader.db.execute("BEGIN")
        reader.db.execute("SELECT count(*) FROM records").fetchone()
        done = Command(spool.folder, spool.clock(), "purge", "--compact", "--yes", "--json").end()
        assert (done.code, json.loads(done.out)["emptied"], "another process is reading" in done.out) == (
            3,
            False,
            True,
        )
        reader.db.execute("COMMIT")
    done = Command(spool.folder, spool.clock(), "purge", "--compact", "--yes", "--json").end()
    assert (done.code, json.loads(done.out)["emptied"]) == (0, True)


def test_compacting_is_refused_where_the_disk_is_too_small(
    openai_spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = openai_spool
    filled(spool, "earlier")
    monkeypatch.setattr(purge, "free_bytes", lambda state: 1000)
    with State(spool.state_path, spool.clock) as state, pytest.raises(StateError, match="nothing was done"):
        purge.run_compact(state, purge.plan_compact(state))
    spool.check()


def test_status_tells_the_sizes(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(20)
    spool.dispatch()
    spool.poll()
    with State(spool.state_path, spool.clock):
        disk = spool.status()["disk"]
        assert disk["state_bytes"] == spool.state_path.stat().st_size
    assert disk["spool_bytes"] == sum(path.stat().st_size for path in (spool.folder / "nura.db.spool").rglob("*.jsonl"))
    shown = Command(spool.folder, spool.clock(), "status", "-v").end()
    assert "on the disk: state file" in shown.out
