"""Copies of one sending, batches under two names, suspects that tell nothing."""

import shutil
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from nura_cli.dialects import reading
from nura_cli.errors import UsageError
from nura_cli.pipeline import dispatch
from tests.conftest import Spool
from tests.pipeline.forks import Command

pytestmark = pytest.mark.long

QUARTER = 15 * 60 + 1
HOUR = 3600


def statuses(spool: Spool) -> dict[str, str]:
    """Return what the provider says of each batch, by its id."""
    return {batch["id"]: batch["status"] for batch in spool.control.batches()}


def later(spool: Spool, seconds: int = QUARTER) -> None:
    """Let cron run, some time later."""
    spool.clock.advance(seconds)
    spool.round()


def used(spool: Spool) -> str:
    """Return the provider's id of the one batch that is used."""
    ((remote_id,),) = spool.rows("SELECT remote_id FROM batches")
    return str(remote_id)


# --- a create that was executed twice


def test_a_second_batch_of_one_sending_is_cancelled_once_two_polls_saw_it(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.control.settings(delay=2 * HOUR)
    spool.fill(3)
    spool.control.fault("twice", "create")
    spool.dispatch()
    first = used(spool)
    (copy,) = statuses(spool).keys() - {first}
    spool.poll()
    spool.poll()
    assert {status for status in statuses(spool).values() if "cancel" in status} == set()
    spool.clock.advance(QUARTER)
    spool.dispatch()  # dispatch sees it too, and leaves it to poll
    assert "cancel" not in statuses(spool)[copy]
    spool.poll()
    assert "cancel" in statuses(spool)[copy]
    assert "cancel" not in statuses(spool)[first]
    later(spool, 3 * HOUR)
    later(spool)
    assert spool.counts()["completed"] == 3
    assert spool.rows("SELECT count(*) FROM strays WHERE counted_at IS NULL") == [(0,)]
    assert spool.status()["usage"]["input_tokens"] == spool.control.billing()["input_tokens"]


@pytest.mark.parametrize("status", [404, 405, 500])
def test_a_second_batch_that_cannot_be_asked_after_by_itself_is_cancelled(openai_spool: Spool, status: int) -> None:
    spool = openai_spool
    spool.control.settings(delay=20 * HOUR)
    spool.fill(3)
    spool.control.fault("twice", "create")
    spool.dispatch()
    (copy,) = statuses(spool).keys() - {used(spool)}
    spool.control.fault("status", "retrieve", path=f"*/{copy}", status=status, times=-1)
    spool.poll()
    later(spool)
    assert "cancel" in statuses(spool)[copy]
    for _ in range(25):
        later(spool, HOUR)
    assert spool.counts()["completed"] == 3
    assert spool.control.billing()["requests"] == 3
    uncounted = spool.rows("SELECT count(*) FROM strays WHERE counted_at IS NULL")
    assert uncounted == [(1 if status == 500 else 0,)]  # a list shows what it cost


@pytest.mark.parametrize("known", [True, False])
def test_a_copy_that_is_on_no_list_which_proves_anything_is_not_forgotten(openai_spool: Spool, known: bool) -> None:
    spool = openai_spool
    spool.control.settings(delay=20 * HOUR)
    spool.fill(3)
    spool.control.fault("twice", "create")
    spool.dispatch()
    spool.poll()
    spool.control.fault("status", "cancel", status=500, times=1)
    later(spool)
    assert not any("cancel" in status for status in statuses(spool).values())
    spool.control.fault("status", "retrieve", status=405, times=-1)
    spool.control.fault("hide", seconds=10**9)
    if not known:
        (spool.folder / "key").write_text("sk-of-somebody-else\n")
    spool.clock.advance(30 * HOUR)
    said = "\n".join(one.line for one in spool.poll().problems)
    assert ("proves nothing" in said) is not known
    assert spool.rows("SELECT count(*) FROM strays WHERE counted_at IS NULL") == [(0 if known else 1,)]


def test_a_second_batch_without_a_tag_is_known_by_its_file(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.control.fault("no_metadata")
    spool.control.settings(delay=2 * HOUR)
    spool.fill(3)
    spool.control.fault("twice", "create")
    spool.dispatch()
    for _ in range(2):
        later(spool)
    assert sorted("cancel" in status for status in statuses(spool).values()) == [False, True]
    assert "cancel" not in statuses(spool)[used(spool)]


def test_a_batch_listed_under_another_id_is_not_taken_for_a_second_one(spool: Spool) -> None:
    spool.control.fault("other_id")
    spool.control.settings(delay=2 * HOUR)
    spool.fill(3)
    spool.dispatch()
    for _ in range(4):
        later(spool)
    assert {status for status in statuses(spool).values() if "cancel" in status} == set()
    later(spool, 2 * HOUR)
    for _ in range(3):
        later(spool)
    assert spool.counts()["completed"] == 3
    assert spool.status()["usage"]["input_tokens"] == spool.control.billing()["input_tokens"]
    assert spool.status()["attention"] == []


def test_an_unconfirmed_create_that_is_listed_under_another_id_is_adopted(spool: Spool) -> None:
    spool.control.fault("other_id")
    spool.fill(3)
    spool.control.fault("drop_after", "create")
    spool.settle()
    assert spool.control.billing()["creates"] == 1
    assert spool.counts()["completed"] == 3


def test_a_batch_that_dispatch_is_about_to_confirm_is_no_copy(openai_spool: Spool) -> None:
    """Poll reads the list while dispatch waits for the answer to its create."""
    spool = openai_spool
    spool.control.settings(delay=2 * HOUR)
    spool.fill(3)
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    for _ in range(3):
        spool.clock.advance(QUARTER)
        spool.poll()
    assert spool.batches() == [(1, "submitting")]
    assert {status for status in statuses(spool).values() if "cancel" in status} == set()
    spool.dispatch()
    assert spool.batches() == [(1, "submitted")]


def test_a_create_answered_429_and_executed_all_the_same_is_cancelled_and_counted(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.control.settings(delay=2 * HOUR)
    spool.fill(3)
    spool.control.fault("status", "create", status=429, after=True)
    spool.dispatch()
    later(spool, HOUR)
    assert sorted("cancel" in status for status in statuses(spool).values()) == [False, True]
    spool.control.settings(delay=0)
    spool.settle()
    later(spool)
    assert spool.counts()["completed"] == 3
    assert spool.status()["usage"]["input_tokens"] == spool.control.billing()["input_tokens"]


@pytest.mark.parametrize("how", [{"what": "twice"}, {"what": "status", "status": 429, "after": True}])
def test_on_anthropic_a_possible_copy_is_named_while_it_runs_and_counted_when_it_ends(
    anthropic_spool: Spool, how: dict[str, Any]
) -> None:
    spool = anthropic_spool
    spool.control.settings(delay=2 * HOUR)
    spool.fill(3)
    spool.server.arm({"route": "create", **how})
    spool.dispatch()
    later(spool)
    known = {row[0] for row in spool.rows("SELECT remote_id FROM batches WHERE remote_id IS NOT NULL")}
    (copy,) = statuses(spool).keys() - known
    needs = [need for need in spool.status()["attention"] if copy in need["message"]]
    assert len(needs) == 1
    assert "may be a second sending of batch 1" in needs[0]["message"]
    later(spool, 3 * HOUR)
    for _ in range(3):
        later(spool)
    assert spool.status()["attention"] == []
    assert spool.counts()["completed"] == 3
    assert spool.status()["usage"]["input_tokens"] == spool.control.billing()["input_tokens"]
    assert not [entry for entry in spool.control.log() if entry["route"] == "cancel"]


def test_on_anthropic_a_copy_is_counted_after_a_person_had_it_sent_again(anthropic_spool: Spool) -> None:
    spool = anthropic_spool
    spool.control.settings(delay=2 * HOUR)
    spool.fill(3)
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    spool.resolve("1")
    later(spool)
    assert any("may be a second sending" in need["message"] for need in spool.status()["attention"])
    later(spool, 3 * HOUR)
    for _ in range(3):
        later(spool)
    assert spool.status()["attention"] == []
    assert spool.status()["usage"]["input_tokens"] == spool.control.billing()["input_tokens"]


def test_somebody_elses_batch_of_the_same_size_is_dismissed_once_it_has_ended(anthropic_spool: Spool) -> None:
    spool = anthropic_spool
    spool.control.settings(delay=HOUR)
    spool.fill(3)
    spool.dispatch()
    spool.control.foreign(3, protocol="anthropic", key="sk-test-1")
    spool.poll()
    assert len(spool.status()["attention"]) == 1
    later(spool, 2 * HOUR)
    later(spool)
    assert spool.status()["attention"] == []
    downloads = len([entry for entry in spool.control.log() if entry["route"] == "download"])
    later(spool)
    assert len([entry for entry in spool.control.log() if entry["route"] == "download"]) == downloads
    assert spool.rows("SELECT count(*) FROM strays") == [(0,)]


# --- suspects that tell nothing


def test_a_suspect_that_ended_without_a_line_lets_the_tasks_wait_again_at_an_unknown_cost(
    anthropic_spool: Spool,
) -> None:
    spool = anthropic_spool
    spool.fill(1)
    spool.control.fault("missing")
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    spool.dispatch()
    assert spool.batches() == [(1, "submitting")]
    spool.clock.advance(QUARTER)
    report = spool.dispatch()
    assert any("ended without a result" in found.message for found in report.problems)
    assert spool.batches()[0] == (1, "failed")
    assert spool.rows("SELECT outcome, cost FROM attempts") == [("missing", None)]
    spool.settle()
    assert spool.counts()["completed"] == 1
    assert spool.rows("SELECT count(*) FROM strays") == [(1,)]
    spool.check()


def test_a_suspect_that_holds_nothing_waits_for_one_that_has_not_ended(anthropic_spool: Spool) -> None:
    spool = anthropic_spool
    spool.fill(1)
    spool.control.fault("missing")
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    spool.dispatch()
    spool.control.settings(delay=HOUR)
    spool.control.foreign(1, protocol="anthropic", key="sk-test-1")
    for _ in range(3):
        spool.clock.advance(600)
        spool.dispatch()
    assert spool.batches() == [(1, "submitting")]
    (need,) = spool.status()["attention"]
    (theirs,) = [name for name, status in statuses(spool).items() if status != "ended"]
    assert f"{theirs} (made 20" in need["message"]
    assert "1 request)" in need["message"]
    spool.clock.advance(HOUR)
    spool.settle()
    assert spool.counts()["completed"] == 1


def test_a_suspect_whose_results_were_deleted_stays_held(anthropic_spool: Spool) -> None:
    spool = anthropic_spool
    spool.fill(1)
    spool.control.fault("lost")
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    for _ in range(5):
        spool.clock.advance(QUARTER)
        spool.dispatch()
    assert spool.batches() == [(1, "submitting")]
    assert "were deleted" in spool.status()["attention"][0]["message"]
    assert spool.control.billing()["creates"] == 1


@pytest.mark.parametrize("size", [0, 300_000])
def test_the_tag_is_read_where_it_belongs(anthropic_spool: Spool, size: int) -> None:
    """An answer has a custom_id of its own, before the line's, and the line may be longer than what is read first."""
    spool = anthropic_spool
    spool.fill(1)
    spool.control.fault("late_id", bytes=size)
    spool.control.fault("drop_after", "create")
    for _ in range(3):
        spool.round()
        spool.clock.advance(QUARTER)
    assert spool.control.billing()["creates"] == 1
    assert spool.counts()["completed"] == 1


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b'{"custom_id": "a-1", "x": 1', "a-1"),
        (b'{"x": {"custom_id": "no-1"}, "custom_id": "yes-1", "y": "cut he', "yes-1"),
        (b'{"x": [{"custom_id": "no-1"}], "y": "\\"custom_id\\": \\"no-2\\"", "custom_id" : "yes-1"}', "yes-1"),
        (b'{"x": {"custom_id": "no-1"}, "y": {"z": "cut', None),
        (b'{"y": "custom_id", "z": "no-1", "x": {', None),
        (b'{"custom_id": 7, "y": "no-1"}', None),
        (b"<html>", None),
        (b"", None),
    ],
)
def test_only_the_lines_own_custom_id_counts(line: bytes, name: str | None) -> None:
    assert reading.top_level(line, "custom_id") == name


# --- restored state files, and a person's part


def test_a_resumed_upload_is_guarded_by_the_survey(openai_spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy was made between upload and create; the original sent it, and many batches of others came since."""
    spool = openai_spool
    spool.fill(1)
    spool.settle()
    spool.enqueue({"id": 7, "text": "record number 7"})
    real = dispatch._create

    def copied(*given: Any) -> Any:
        with closing(sqlite3.connect(spool.state_path)) as db, closing(sqlite3.connect(spool.folder / "copy")) as copy:
            db.backup(copy)
        return real(*given)

    with monkeypatch.context() as patched:
        patched.setattr(dispatch, "_create", copied)
        spool.dispatch()
    spool.clock.advance(60)
    for _ in range(120):  # more than a page of the list
        spool.control.foreign(1, protocol="openai", key="sk-test-1")
    for path in spool.folder.glob("nura.db-*"):
        path.unlink()
    shutil.copy(spool.folder / "copy", spool.state_path)
    assert spool.batches()[1] == (2, "uploaded")
    spool.control.fault("no_metadata")  # by its file, too
    for _ in range(2):
        report = spool.dispatch()
        assert report.exit_code == 78
        assert "came from another copy" in report.problems[0].message
    assert spool.control.billing()["creates"] == 2


def test_a_person_cannot_adopt_what_is_not_ours(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.providers["main"] = spool.provider(on_unconfirmed="hold")
    spool.write_config()
    spool.fill(3)
    spool.control.fault("drop_before", "create")
    spool.dispatch()
    other = spool.control.foreign(3, key="sk-test-1", metadata={"nura_tag": "another"})
    spool.control.settings(delay=HOUR)
    file = spool.control.foreign(3, key="sk-test-1")
    with pytest.raises(UsageError, match="another tag"):
        spool.resolve("1", adopt=other)
    with pytest.raises(UsageError, match="another file"):
        spool.resolve("1", adopt=file)
    assert spool.batches() == [(1, "submitting")]


def test_a_decision_while_dispatch_is_at_work_ends_with_75_and_words(spool: Spool) -> None:
    spool.fill(2)
    spool.control.fault("hold", "create", seconds=50)
    busy = Command(spool.folder, spool.clock(), "dispatch")
    while not spool.control.held():
        assert busy.running
    ended = Command(spool.folder, spool.clock(), "resolve", "1", "--resend").end()
    assert ended.code == 75
    assert "dispatch is at work" in ended.out
    assert "nothing was done" in ended.out
    spool.control.release()
    assert busy.end().code == 0


# --- seldom, and dear


@pytest.mark.parametrize("odd", [0, 1])
def test_a_create_on_a_server_that_is_ahead_is_found_by_one_that_is_not(anthropic_spool: Spool, odd: int) -> None:
    """Every second answer comes from a server that is 20 minutes ahead: the create's, or the one before it."""
    spool = anthropic_spool
    spool.control.fault("skew", seconds=1200)
    spool.control.settings(delay=HOUR)
    spool.fill(3)
    for _ in range(odd):
        spool.control.foreign(1, protocol="anthropic", key="sk-test-1")
        spool.poll()
        Command(spool.folder, spool.clock(), "dispatch", "-n").end()
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    for _ in range(3):
        spool.clock.advance(QUARTER)
        spool.dispatch()
    later(spool, 2 * HOUR)
    later(spool)
    assert spool.counts()["completed"] == 3
    assert spool.control.billing()["creates"] == 1


def test_our_tag_under_an_id_that_is_taken_is_held_and_not_absent(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.control.settings(delay=HOUR)
    spool.fill(3)
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    (made,) = statuses(spool)
    spool.rows("INSERT INTO strays (provider, remote_id, batch_id, found_at) VALUES ('elsewhere', ?, 99, 0)", made)
    for _ in range(4):
        spool.clock.advance(QUARTER)
        spool.dispatch()
    assert spool.batches() == [(1, "submitting")]
    assert made in spool.status()["attention"][0]["message"]


def test_an_empty_suspect_is_not_believed_because_it_was_not_listed_before(anthropic_spool: Spool) -> None:
    spool = anthropic_spool
    spool.fill(1)
    spool.control.fault("short", seconds=1200)
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    hidden = spool.control.fault("hide", seconds=10**6)
    spool.dispatch()
    spool.control.clear(hidden)
    for _ in range(4):
        later(spool)
    assert spool.counts()["completed"] == 1
    assert spool.control.billing()["creates"] == 1


def test_a_list_that_things_are_deleted_from_proves_no_absence_late(anthropic_spool: Spool) -> None:
    """A copy taken right after a create: the original brought it home meanwhile, and cleaned up."""
    spool = anthropic_spool
    spool.fill(2)
    spool.control.fault("drop_before", "create")
    spool.dispatch()
    spool.clock.advance(2 * 86400)
    for _ in range(3):
        later(spool)
    assert spool.batches() == [(1, "submitting")]
    assert "too late" in spool.status()["attention"][0]["message"]


def test_the_answer_to_a_create_about_another_batch_is_no_answer(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.control.settings(delay=HOUR)
    theirs = spool.control.foreign(1, key="sk-test-1")
    spool.fill(3)
    spool.control.fault("mixed_up", "create", of=theirs)
    spool.dispatch()
    for _ in range(4):
        later(spool)
    later(spool, HOUR)
    assert "cancel" not in statuses(spool)[theirs]
    assert spool.counts()["completed"] == 3
    assert spool.control.billing()["creates"] == 1


def test_what_was_given_up_is_not_cancelled_at_another_address(spool: Spool) -> None:
    spool.control.fault("never_ends")
    spool.fill(2)
    spool.dispatch()
    spool.clock.advance(26 * HOUR)
    spool.poll()
    there = spool.providers["main"]["base_url"]
    spool.providers["main"] = spool.provider(base_url=there.replace("127.0.0.1", "localhost"))
    spool.write_config()
    spool.resolve("1")
    report = spool.poll()
    assert "has another address now" in "\n".join(found.line for found in report.problems)
    assert not [entry for entry in spool.control.log() if entry["route"] == "cancel"]


def test_a_batch_that_cannot_be_looked_into_stops_no_poll(anthropic_spool: Spool) -> None:
    spool = anthropic_spool
    spool.fill(3)
    spool.dispatch()
    theirs = spool.control.foreign(3, protocol="anthropic", key="sk-test-1")
    spool.control.fault("status", "download", path=f"*{theirs}*", status=403, times=-1)
    for _ in range(3):
        spool.clock.advance(QUARTER)
        assert spool.poll().exit_code == 0
    assert theirs in spool.status()["attention"][0]["message"]


def test_a_create_answered_with_an_id_that_nobody_knows_is_found_by_its_tag(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(3)
    spool.dispatch()
    spool.rows("UPDATE batches SET remote_id = 'batch_phantom'")
    later(spool, HOUR)
    assert spool.counts()["completed"] == 3
    assert spool.control.billing()["creates"] == 1


def test_a_copy_that_never_ends_is_let_go_once_nothing_is_kept(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.control.fault("never_ends")
    spool.fill(2)
    spool.dispatch()
    spool.clock.advance(26 * HOUR)
    spool.poll()
    spool.resolve("1", give_up=True)
    later(spool, 31 * 86400)
    later(spool)
    assert spool.rows("SELECT count(*) FROM strays WHERE counted_at IS NULL") == [(0,)]
    assert spool.status()["attention"] == []


def test_a_suspect_that_runs_for_long_does_not_hide_that_ours_was_looked_for_in_time(anthropic_spool: Spool) -> None:
    spool = anthropic_spool
    spool.control.settings(delay=5 * HOUR)
    spool.fill(3)
    spool.control.fault("drop_before", "create")
    spool.dispatch()
    spool.control.foreign(3, protocol="anthropic", key="sk-test-1")
    for _ in range(30):
        spool.clock.advance(HOUR)
        spool.dispatch()
    assert spool.batches()[0] == (1, "failed")
    spool.settle()
    assert spool.counts()["completed"] == 3


# --- copies whose answers cannot be had


def copied(spool: Spool, fault: str | None = None) -> str:
    """Send three records in a batch that is created twice; return the provider's id of the second, which is followed.

    Args:
        fault: what is the matter with the second one.
    """
    if fault is not None:
        spool.control.fault(fault, skip=1)
    spool.control.settings(delay=2 * HOUR)
    spool.fill(3)
    spool.control.fault("twice", "create")
    spool.dispatch()
    (copy,) = statuses(spool).keys() - {used(spool)}
    spool.poll()
    spool.clock.advance(QUARTER)
    spool.control.fault("status", "cancel", status=409, times=-1)  # it is too late to cancel it
    spool.poll()
    return copy


def unpriced(spool: Spool) -> int:
    """Return how many tasks have an attempt of unknown cost."""
    return int(spool.status()["cost"]["unpriced_tasks"])


@pytest.mark.parametrize("loss", ["gone", "unnamed", "unknown"])
def test_a_copy_whose_answers_cannot_be_had_has_an_unknown_cost(openai_spool: Spool, loss: str) -> None:
    spool = openai_spool
    copy = copied(spool, {"gone": "lost", "unnamed": "unnamed"}.get(loss))
    if loss == "unknown":
        spool.control.fault("forgotten", batch=copy)
    later(spool, 3 * HOUR)
    assert spool.counts()["completed"] == 3
    for _ in range(3):
        later(spool, 12 * HOUR)
    assert spool.rows("SELECT count(*) FROM strays WHERE counted_at IS NULL") == [(0,)]
    assert spool.rows("SELECT outcome, late, cost, stray FROM attempts WHERE stray <> ''") == 3 * [
        ("late", 1, None, copy)
    ]
    assert unpriced(spool) == 3
    assert spool.status()["attention"] == []


def test_a_copy_that_was_cancelled_before_it_answered_cost_nothing(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.control.settings(delay=2 * HOUR)
    spool.fill(3)
    spool.control.fault("twice", "create")
    spool.dispatch()
    spool.poll()
    for _ in range(6):
        later(spool, HOUR)
    assert spool.rows("SELECT count(*) FROM strays WHERE counted_at IS NULL") == [(0,)]
    assert unpriced(spool) == 0


def test_a_person_lets_go_of_a_copy_that_cannot_be_followed(openai_spool: Spool) -> None:
    spool = openai_spool
    copy = copied(spool)
    spool.control.settings(delay=0)
    spool.clock.advance(HOUR)
    spool.control.fault("status", "retrieve", path=f"*/{copy}", status=403, times=-1)
    spool.round()
    assert spool.counts()["completed"] == 3
    with pytest.raises(UsageError, match="is not followed"):
        spool.resolve("nobody", give_up=True)
    spool.clock.advance(27 * HOUR)
    (need,) = spool.status()["attention"]
    assert f"nura resolve {copy} --give-up" in need["hint"]
    spool.resolve(copy, give_up=True)
    assert spool.poll().exit_code == 0
    assert spool.status()["attention"] == []
    assert unpriced(spool) == 3


def test_a_possible_copy_that_vanishes_is_no_longer_named(anthropic_spool: Spool) -> None:
    spool = anthropic_spool
    spool.control.settings(delay=HOUR)
    spool.fill(3)
    spool.dispatch()
    theirs = spool.control.foreign(3, protocol="anthropic", key="sk-test-1")
    spool.poll()
    assert len(spool.status()["attention"]) == 1
    spool.control.fault("forgotten", batch=theirs)
    spool.poll()
    assert spool.status()["attention"] == []


def test_a_lost_batch_that_is_listed_under_another_id_is_counted_once(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.control.fault("other_id")
    spool.fill(3)
    spool.control.fault("renamed")
    spool.round()
    later(spool)
    spool.resolve("1", give_up=True)
    for _ in range(4):
        later(spool, HOUR)
    assert spool.rows("SELECT remote_id FROM strays") == [(used(spool),)]
    assert unpriced(spool) == 3
