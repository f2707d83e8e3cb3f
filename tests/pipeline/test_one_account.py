"""Several names, keys and state files on one account: what is under way there belongs to whoever sent it, and stays."""

from pathlib import Path

import pytest

from tests.conftest import Spool
from tests.pipeline.test_recovery import QUARTER, creates

SECOND_PROTOCOL_IS_LONG = True


def touched(spool: Spool) -> list[str]:
    """Return the paths of what was cancelled or deleted at the provider."""
    return [entry["path"] for entry in spool.control.log() if entry["route"] in ("cancel", "delete")]


def test_one_account_under_two_names_is_one_account(spool: Spool) -> None:
    spool.providers["second"] = spool.provider()
    spool.set("other", provider="second", prompt="Second: {{ text }}")
    spool.control.settings(delay=3600)
    spool.fill(2)
    spool.dispatch()
    spool.fill(2, workload="other")
    spool.dispatch()
    spool.enqueue({"id": 70, "text": "record number 70"})
    spool.dispatch()
    assert touched(spool) == []
    assert spool.rows("SELECT * FROM strays") == []
    spool.clock.advance(3600)
    spool.settle()
    assert spool.counts()["completed"] == 5
    assert spool.rows("SELECT max(attempts) FROM tasks") == [(1,)]
    spool.check()


def test_a_provider_that_is_renamed_loses_nothing_of_what_is_under_way(spool: Spool) -> None:
    spool.control.settings(delay=3600)
    spool.fill(2)
    spool.dispatch()
    spool.providers = {"renamed": spool.provider()}
    spool.set(provider="renamed")
    spool.enqueue({"id": 70, "text": "record number 70"})
    spool.dispatch()
    assert touched(spool) == []
    spool.clock.advance(3600)
    report = spool.poll()
    assert any("put it back" in (found.hint or "") for found in report.problems)
    spool.providers["main"] = spool.provider()
    spool.write_config()
    spool.settle()
    assert spool.counts()["completed"] == 3
    assert spool.control.billing()["requests"] == 3
    spool.check()


def test_a_key_of_another_project_of_the_organization_proves_nothing(spool: Spool) -> None:
    spool.control.fault("one_organization")
    spool.fill(2)
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    (spool.folder / "key").write_text("sk-other-project\n")
    for _ in range(3):
        spool.clock.advance(QUARTER)
        report = spool.dispatch()
    assert any("key" in found.message for found in report.problems)
    assert spool.batches() == [(1, "submitting")]
    (need,) = spool.status()["attention"]
    assert "nura resolve 1" in need["hint"]
    (spool.folder / "key").write_text("sk-test-1\n")
    spool.settle()
    assert creates(spool) == 1
    assert spool.counts()["completed"] == 2


def test_an_older_batch_of_another_project_does_not_stand_for_the_marker(spool: Spool) -> None:
    spool.control.fault("one_organization")
    spool.control.foreign(1, protocol=spool.protocol, key="sk-other-project", age=86400)
    spool.control.foreign(1, protocol=spool.protocol, key="sk-test-1", age=3600)
    spool.fill(2)
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    (spool.folder / "key").write_text("sk-other-project\n")
    for _ in range(3):
        spool.clock.advance(QUARTER)
        spool.dispatch()
    assert spool.batches() == [(1, "submitting")]


@pytest.mark.parametrize("arrives", [True, False])
@pytest.mark.parametrize("named", [True, False])
def test_a_new_key_of_the_same_account_resolves_what_the_old_one_sent(spool: Spool, named: bool, arrives: bool) -> None:
    spool.control.fault("one_account")
    if not named:
        spool.control.fault("no_account")
    spool.fill(1)
    spool.settle()
    spool.enqueue({"id": 8, "text": "record number 8"})
    spool.control.fault("drop_after" if arrives else "drop_before", "create")
    spool.dispatch()
    (spool.folder / "key").write_text("sk-the-next-one\n")
    for _ in range(3):
        spool.clock.advance(QUARTER)
        spool.dispatch()
    if arrives:  # what bears its tag is it, whoever reads the list
        assert spool.batches()[1] == (2, "submitted")
    elif named:
        assert spool.batches()[1] == (2, "failed")
    else:  # nothing says whose the new key is
        assert spool.batches()[1] == (2, "submitting")
        assert "nura resolve 2" in spool.status()["attention"][0]["hint"]
        (spool.folder / "key").write_text("sk-test-1\n")
    spool.settle()
    assert spool.counts()["completed"] == 2
    assert spool.control.billing()["requests"] == 2


def test_a_key_of_another_project_makes_no_batch_lost(spool: Spool) -> None:
    spool.control.fault("one_organization")
    spool.control.foreign(1, protocol=spool.protocol, key="sk-other-project", age=86400)
    spool.control.settings(delay=7200)
    spool.fill(2)
    spool.dispatch()
    (spool.folder / "key").write_text("sk-other-project\n")
    spool.clock.advance(30 * 3600)
    for _ in range(3):
        spool.poll()
        spool.clock.advance(QUARTER)
    assert spool.batches() == [(1, "submitted")]
    assert "proves nothing: the key was changed since" in spool.status()["attention"][0]["message"]
    (spool.folder / "key").write_text("sk-test-1\n")
    spool.settle()
    assert spool.counts()["completed"] == 2
    assert spool.rows("SELECT count(*) FROM attempts") == [(2,)]


@pytest.mark.parametrize("named", [True, False])
def test_a_new_key_reads_off_the_list_what_the_old_one_sent(spool: Spool, named: bool) -> None:
    spool.control.fault("one_account")
    if not named:
        spool.control.fault("no_account")
    spool.control.fault("status", "retrieve", status=405, times=-1)
    spool.control.settings(delay=2 * 3600)
    spool.fill(2)
    spool.dispatch()
    (spool.folder / "key").write_text("sk-the-next-one\n")
    spool.clock.advance(3 * 3600)
    (said,) = spool.poll().problems
    assert "its list is gone by" in said.message
    spool.reconcile()
    assert spool.counts()["completed"] == 2
    assert spool.control.billing()["requests"] == 2


def test_two_state_files_on_one_account_leave_each_other_alone(spool: Spool, tmp_path: Path) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    second = Spool(folder, spool.server, spool.protocol)
    second.clock = spool.clock
    spool.control.settings(delay=600)
    spool.fill(3)
    second.fill(3)
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    second.control.fault("drop_after", "create")
    second.dispatch()
    for _ in range(3):
        spool.clock.advance(QUARTER)
        for one in (spool, second):
            one.round()
    assert touched(spool) == []
    assert spool.counts()["completed"] == second.counts()["completed"] == 3
    assert spool.control.billing()["requests"] == 6
