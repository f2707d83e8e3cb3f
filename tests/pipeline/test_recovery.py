"""Creates whose answers were lost: each intent is paid for once, whatever happened on the way."""

import json
import shutil
import sqlite3
import time
from contextlib import closing
from typing import Any

import pytest

from nura_cli.errors import Unreachable, UsageError
from nura_cli.pipeline import dispatch
from tests.conftest import Spool
from tests.pipeline.forks import Command

QUARTER = 15 * 60 + 1


def creates(spool: Spool) -> int:
    """Return how many creates arrived at the provider's door."""
    return sum(entry["route"] == "create" for entry in spool.control.log())


def foreign(spool: Spool, n: int, tag: str = "other") -> str:
    """Create a batch of somebody else's in the same account, with n requests; return its id."""
    import anthropic
    import openai

    if spool.protocol == "anthropic":
        with anthropic.Anthropic(
            api_key="sk-test-1", base_url=spool.server.anthropic_base_url, max_retries=0
        ) as claude:
            message: Any = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "theirs"}]}
            requests: Any = [{"custom_id": f"{tag}-{i}", "params": message} for i in range(n)]
            return claude.messages.batches.create(requests=requests).id
    with openai.OpenAI(api_key="sk-test-1", base_url=spool.server.openai_base_url, max_retries=0) as gpt:
        body = {"model": "m", "messages": [{"role": "user", "content": "theirs"}]}
        lines = [
            json.dumps({"custom_id": f"{tag}-{i}", "method": "POST", "url": "/v1/chat/completions", "body": body})
            for i in range(n)
        ]
        file = gpt.files.create(file=("theirs.jsonl", "\n".join(lines).encode()), purpose="batch")
        return gpt.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h").id


def backed_up(spool: Spool) -> None:
    """Make a copy of the state file as it is now."""
    with closing(sqlite3.connect(spool.state_path)) as db, closing(sqlite3.connect(spool.folder / "backup")) as copy:
        db.backup(copy)


def restored(spool: Spool) -> None:
    """Put the copy of the state file back."""
    for path in spool.folder.glob("nura.db-*"):
        path.unlink()
    shutil.copy(spool.folder / "backup", spool.state_path)


@pytest.mark.parametrize("fault", [{"what": "drop_after"}, {"what": "html", "after": True}])
def test_a_create_that_arrived_is_adopted_and_not_sent_again(spool: Spool, fault: dict[str, Any]) -> None:
    spool.fill(5)
    spool.server.arm({"route": "create", **fault})
    report = spool.dispatch()
    assert report.result["unconfirmed"] == 1
    assert report.exit_code == 75
    assert spool.batches() == [(1, "submitting")]
    spool.settle()
    assert creates(spool) == 1
    assert spool.batches() == [(1, "reconciled")]
    assert spool.counts()["completed"] == 5
    spool.check()


def test_a_create_that_never_arrived_is_sent_again_after_two_looks_a_quarter_of_an_hour_apart(spool: Spool) -> None:
    spool.fill(4)
    spool.control.fault("drop_before", "create")
    spool.dispatch()
    spool.dispatch()
    assert spool.batches() == [(1, "submitting")]
    spool.clock.advance(600)
    spool.dispatch()
    assert spool.batches() == [(1, "submitting")]
    assert spool.control.batches() == []
    spool.clock.advance(QUARTER)
    report = spool.dispatch()
    assert any("never arrived" in found.message for found in report.problems)
    assert spool.batches() == [(1, "failed"), (2, "submitted")]
    spool.settle()
    assert spool.counts()["completed"] == 4
    assert spool.control.billing()["requests"] == 4
    assert spool.rows("SELECT max(attempts) FROM tasks") == [(1,)]
    spool.check()


def test_that_a_batch_never_arrived_is_said_though_it_was_in_doubt_before(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(4)
    spool.control.fault("drop_before", "create")

    def said() -> str:
        return Command(spool.folder, spool.clock(), "dispatch").end().out

    assert "no answer came" in said()
    spool.clock.advance(QUARTER)
    assert "was not confirmed, and main does not list it" in said()
    spool.clock.advance(600)
    assert said() == ""
    spool.clock.advance(QUARTER)
    assert "batch 1: never arrived at main; its tasks wait again" in said()


def test_a_service_that_drops_metadata_is_asked_by_the_input_file(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.control.fault("no_metadata", times=-1)
    spool.fill(3)
    spool.control.fault("drop_after", "create")
    spool.settle()
    assert creates(spool) == 1
    assert spool.counts()["completed"] == 3
    spool.check()


def test_foreign_batches_are_never_taken_and_never_touched(spool: Spool) -> None:
    before = foreign(spool, 4)
    spool.fill(4)
    spool.control.fault("drop_before", "create")
    spool.dispatch()
    after = foreign(spool, 4, "third")
    for _ in range(3):
        spool.clock.advance(QUARTER)
        spool.dispatch()
    spool.settle()
    assert spool.counts()["completed"] == 4
    known = {row[0] for row in spool.rows("SELECT remote_id FROM batches WHERE remote_id IS NOT NULL")}
    assert not known & {before, after}
    assert not [entry for entry in spool.control.log() if entry["route"] in ("cancel", "delete")]
    assert {entry["id"]: entry["status"] for entry in spool.control.batches()}[before] in ("completed", "ended")
    spool.check()


def test_a_suspect_that_has_not_ended_holds_the_batch_and_says_what_to_type(anthropic_spool: Spool) -> None:
    spool = anthropic_spool
    spool.control.settings(delay=7200)
    spool.fill(4)
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    spool.clock.advance(3600)
    report = spool.dispatch()
    assert any("--adopt REMOTE_ID" in (found.hint or "") for found in report.problems)
    (need,) = spool.status()["attention"]
    assert "held" in need["message"]
    assert "nura resolve 1" in need["hint"]
    spool.clock.advance(3600)
    spool.settle()
    assert creates(spool) == 1
    assert spool.counts()["completed"] == 4
    spool.check()


def test_doubles_of_one_intent_are_cancelled_followed_and_counted(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.control.settings(delay=600)
    spool.fill(3)
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    (made,) = spool.control.batches()
    import openai

    metadata = made["metadata"]
    with openai.OpenAI(api_key="sk-test-1", base_url=spool.server.openai_base_url, max_retries=0) as gpt:
        double = gpt.batches.create(
            input_file_id=made["input_file_id"],
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata=metadata,
        )
    spool.dispatch()
    assert spool.rows("SELECT remote_id FROM batches") == [(made["id"],)]
    assert spool.rows("SELECT remote_id FROM strays") == [(double.id,)]
    spool.settle()
    statuses = {batch["id"]: batch["status"] for batch in spool.control.batches()}
    assert statuses == {made["id"]: "completed", double.id: "cancelled"}
    spool.poll()
    spool.reconcile()
    assert spool.rows("SELECT count(*) FROM strays WHERE counted_at IS NULL") == [(0,)]
    assert spool.counts()["completed"] == 3
    assert spool.control.billing()["requests"] == 3


def given_up(spool: Spool) -> None:
    """Send three records in a batch that arrives unseen, is taken for absent and sent again; from now on it is seen."""
    spool.control.settings(delay=10**5)
    spool.fill(3)
    spool.control.fault("hide", times=-1, seconds=10**6)
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    for _ in range(2):
        spool.clock.advance(QUARTER)
        spool.dispatch()
    assert [status for _, status in spool.batches()] == ["failed", "submitted"]
    spool.control.clear()


def test_a_batch_that_turns_up_after_it_was_given_up_is_cancelled(openai_spool: Spool) -> None:
    spool = openai_spool
    given_up(spool)
    spool.enqueue({"id": 50, "text": "record number 50"})
    spool.dispatch()
    assert len(spool.rows("SELECT * FROM strays")) == 1
    assert spool.control.batches()[0]["status"] in ("cancelling", "cancelled")
    spool.control.settings(delay=0)
    spool.settle()
    spool.check()
    assert spool.counts()["completed"] == 4
    assert spool.control.billing()["requests"] == 4


def test_a_batch_that_turns_up_is_cancelled_though_nothing_else_is_to_be_sent(openai_spool: Spool) -> None:
    spool = openai_spool
    given_up(spool)
    spool.control.fault("status", "cancel", status=500)
    spool.dispatch()
    spool.poll()  # asks again for what was not done at once
    assert spool.control.batches()[0]["status"] == "cancelling"


def test_a_double_that_was_refused_is_not_the_one_that_is_taken(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.control.settings(delay=600)
    spool.fill(3)
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    (made,) = spool.control.batches()
    spool.control.fault("refuse", batch=made["id"], code="token_limit_exceeded")
    double = spool.control.foreign(3, key="sk-test-1", metadata=made["metadata"])
    spool.dispatch()
    assert spool.rows("SELECT remote_id FROM batches") == [(double,)]
    assert spool.rows("SELECT remote_id FROM strays") == [(made["id"],)]
    assert [batch["status"] for batch in spool.control.batches()] == ["failed", "in_progress"]


def orphan(spool: Spool) -> str:
    """Make a double of one intent, under way at the provider and known here; return its id."""
    spool.control.settings(delay=600)
    spool.fill(3)
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    (made,) = spool.control.batches()
    double = spool.control.foreign(3, key="sk-test-1", metadata=made["metadata"])
    spool.control.fault("status", "cancel", status=500)
    spool.dispatch()
    assert spool.rows("SELECT remote_id FROM strays") == [(double,)]
    return double


def uncounted(spool: Spool) -> int:
    """Return how many strays are still followed."""
    return int(spool.rows("SELECT count(*) FROM strays WHERE counted_at IS NULL")[0][0])


def test_a_double_that_is_not_found_once_is_still_cancelled(openai_spool: Spool) -> None:
    spool = openai_spool
    double = orphan(spool)
    spool.control.fault("status", "retrieve", path=f"*/{double}", status=404)
    spool.poll()
    assert spool.control.batches()[1]["status"] == "cancelling"
    for _ in range(2):
        spool.poll()
        spool.reconcile()
    assert uncounted(spool) == 0


def test_a_double_that_the_provider_never_knew_is_let_go_after_its_24_hours(openai_spool: Spool) -> None:
    spool = openai_spool
    double = orphan(spool)
    spool.control.fault("status", "retrieve", path=f"*/{double}", status=404, times=-1)
    spool.control.fault("hide", seconds=10**9)
    spool.poll()
    spool.clock.advance(3600)
    assert "asking after" in spool.poll().problems[0].message
    assert uncounted(spool) == 1
    spool.clock.advance(24 * 3600)
    spool.poll()
    assert uncounted(spool) == 0


def test_a_double_whose_provider_left_the_configuration_holds_nothing_up(openai_spool: Spool) -> None:
    spool = openai_spool
    orphan(spool)
    spool.clock.advance(600)
    before = spool.providers
    spool.poll()
    spool.reconcile()
    spool.providers = {"other": spool.provider()}
    spool.set(provider="other")
    spool.rows("UPDATE strays SET spooled = NULL, counted_at = NULL")
    spool.enqueue({"id": 8, "text": "record number 8"})
    _, report, _ = spool.round()
    assert any("is not in the configuration" in found.message for found in report.problems)
    assert report.exit_code == 0
    assert any("--give-up" in str(found.hint) for found in report.problems)
    spool.clock.advance(600)
    spool.settle()
    assert spool.counts()["completed"] == 4
    spool.clock.advance(86400 + 3600)
    (need,) = spool.status()["attention"]
    assert "an extra batch beside batch 1" in need["message"]
    spool.clock.advance(30 * 86400)
    assert spool.poll().exit_code == 0
    spool.providers |= before


def test_a_doubles_results_that_are_damaged_in_the_spool_are_fetched_again(openai_spool: Spool) -> None:
    spool = openai_spool
    double = orphan(spool)
    spool.clock.advance(600)
    spool.poll()
    (path,) = (spool.folder / "nura.db.spool" / "results").glob("stray-*")
    path.write_bytes(path.read_bytes()[:-40])
    spool.reconcile()
    assert uncounted(spool) == 1
    spool.poll()
    spool.reconcile()
    assert uncounted(spool) == 0
    assert double


def test_another_accounts_key_proves_nothing(spool: Spool) -> None:
    spool.fill(2)
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    (spool.folder / "key").write_text("sk-somebody-else\n")
    for _ in range(3):
        spool.clock.advance(QUARTER)
        report = spool.dispatch()
    assert any("another account" in found.message for found in report.problems)
    assert spool.batches() == [(1, "submitting")]
    (spool.folder / "key").write_text("sk-test-1\n")
    spool.settle()
    assert creates(spool) == 1
    assert spool.counts()["completed"] == 2


def test_a_list_that_cannot_be_read_to_its_end_proves_nothing(spool: Spool) -> None:
    spool.fill(2)
    spool.control.fault("drop_before", "create")
    spool.dispatch()
    foreign(spool, 3)
    spool.control.fault("stuck_list", times=-1)
    for _ in range(3):
        spool.clock.advance(QUARTER)
        report = spool.dispatch()
    assert any("read to its end" in found.message for found in report.problems)
    assert spool.batches() == [(1, "submitting")]
    spool.control.clear()
    spool.control.fault("status", "list", status=500, times=-1)
    spool.clock.advance(QUARTER)
    report = spool.dispatch()
    assert report.exit_code in (3, 75)
    assert spool.batches() == [(1, "submitting")]
    spool.control.clear()
    spool.settle()
    assert spool.counts()["completed"] == 2
    assert spool.control.billing()["requests"] == 2 + 3


def test_a_list_that_fails_half_way_proves_nothing(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nura_cli.providers.openai.OpenAIProvider.page_size", 5)
    monkeypatch.setattr("nura_cli.providers.anthropic.AnthropicProvider.page_size", 5)
    spool.fill(2)
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    for _ in range(7):  # more than a page of others' batches, newer than ours
        spool.control.foreign(1, protocol=spool.protocol, key="sk-test-1")
    for _ in range(3):
        spool.clock.advance(QUARTER)
        fault = spool.control.fault("status", "list", status=500, skip=1, times=-1)
        assert spool.dispatch().exit_code == 75
        (seen,) = [found["seen"] for found in spool.control.faults() if found["id"] == fault]
        assert seen > 1
        assert spool.batches() == [(1, "submitting")]
        spool.control.clear(fault)
    spool.settle()
    assert creates(spool) == 1
    assert spool.counts()["completed"] == 2


@pytest.mark.parametrize("quirk", ["ties", "oldest_first", "no_times"])
def test_a_list_in_another_order_proves_nothing_before_it_is_read_to_its_end(spool: Spool, quirk: str) -> None:
    """Batches of one second may be listed in any order, and a compatible service may list oldest first, or tell no times."""
    spool.control.fault(quirk)
    spool.control.fault("no_account")
    spool.fill(1)
    spool.settle()
    spool.control.foreign(3, protocol=spool.protocol, key="sk-test-1")
    spool.enqueue({"id": 8, "text": "record number 8"})
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    for _ in range(3):
        spool.clock.advance(QUARTER)
        spool.dispatch()
    assert creates(spool) == 2
    spool.settle()
    assert spool.counts()["completed"] == 2
    spool.check()


def test_a_provider_whose_clocks_disagree_by_seconds_hides_nothing(spool: Spool) -> None:
    spool.control.foreign(3, protocol=spool.protocol, key="sk-test-1", age=86400)
    spool.control.foreign(3, protocol=spool.protocol, key="sk-test-1", age=-5)  # made by a server that runs ahead
    spool.control.fault("ties")  # listed by their times
    spool.fill(1)
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    for _ in range(3):
        spool.clock.advance(QUARTER)
        spool.dispatch()
    assert creates(spool) == 1
    spool.settle()
    assert spool.counts()["completed"] == 1


def test_a_service_without_a_clock_or_an_account_is_asked_all_the_same(spool: Spool) -> None:
    for quirk in ("no_date", "no_account"):
        spool.control.fault(quirk)
    spool.fill(3)
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    spool.control.fault("drop_before", "create")
    spool.enqueue({"id": 8, "text": "record number 8"})
    spool.dispatch()
    assert spool.batches() == [(1, "submitted"), (2, "submitting")]
    for _ in range(2):
        spool.clock.advance(QUARTER)
        spool.dispatch()
    assert spool.batches()[1] == (2, "failed")
    spool.settle()
    assert spool.counts()["completed"] == 4
    assert spool.control.billing()["requests"] == 4


def test_a_service_that_names_neither_tag_nor_file_is_asked_for_its_results(openai_spool: Spool) -> None:
    spool = openai_spool
    for quirk in ("no_metadata", "no_input_file"):
        spool.control.fault(quirk)
    spool.control.settings(delay=7200)
    spool.fill(3)
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    spool.control.foreign(3, key="sk-test-1")
    for _ in range(2):
        spool.clock.advance(QUARTER)
        spool.dispatch()
    assert spool.batches() == [(1, "submitting")]
    assert "nura resolve 1" in spool.status()["attention"][0]["hint"]
    spool.clock.advance(7200)
    spool.settle()
    assert creates(spool) == 1
    assert spool.counts()["completed"] == 3


def test_a_create_that_took_long_to_arrive_is_found(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large file on a slow line, or a proxy that took its time: the batch is made long after its create was begun."""
    monkeypatch.setattr("nura_cli.providers.wire.SEND_SECONDS", 0.3)
    monkeypatch.setattr("nura_cli.providers.wire.READ_SECONDS", 0.3)
    spool.fill(4)
    spool.control.fault("hold", "create", seconds=50)
    assert spool.dispatch().result["unconfirmed"] == 1
    spool.clock.advance(40 * 60)
    spool.control.release()
    while not spool.control.batches():
        time.sleep(0.01)
    monkeypatch.undo()
    for _ in range(3):
        spool.dispatch()
        spool.clock.advance(QUARTER)
    spool.settle()
    assert creates(spool) == 1
    assert spool.counts()["completed"] == 4


def test_ours_is_known_by_any_of_its_results(anthropic_spool: Spool) -> None:
    spool = anthropic_spool
    spool.fill(2)
    spool.control.fault("foreign", n=40)  # somebody else's lines come first
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    for _ in range(3):
        spool.clock.advance(QUARTER)
        spool.dispatch()
    spool.settle()
    assert creates(spool) == 1
    assert spool.counts()["completed"] == 2


def test_a_page_of_html_for_results_tells_nothing(anthropic_spool: Spool) -> None:
    spool = anthropic_spool
    spool.fill(2)
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    spool.control.fault("html", "download", times=-1)
    for _ in range(3):
        spool.clock.advance(QUARTER)
        spool.dispatch()
    assert spool.batches() == [(1, "submitting")]
    spool.control.clear()
    spool.settle()
    assert creates(spool) == 1
    assert spool.counts()["completed"] == 2


@pytest.mark.parametrize("arrives", [True, False])
def test_clean_up_of_the_batch_before_it_does_not_hold_a_create_for_ever(spool: Spool, arrives: bool) -> None:
    spool.providers["main"] = spool.provider(cleanup_after="0")
    spool.write_config()
    spool.fill(1)
    spool.settle()
    spool.enqueue({"id": 8, "text": "record number 8"})
    spool.control.fault("drop_after" if arrives else "drop_before", "create")
    spool.dispatch()
    spool.poll()  # deletes the first batch, which is the second's marker
    spool.settle()
    assert spool.counts()["completed"] == 2
    assert spool.control.billing()["requests"] == 2
    assert creates(spool) == (2 if arrives else 3)


def test_a_clock_that_jumps_here_does_not_shorten_the_wait(spool: Spool) -> None:
    spool.fill(2)
    spool.control.fault("drop_before", "create")
    spool.dispatch()
    spool.dispatch()
    spool.clock.time += 5 * 86400  # only this machine's clock: the server's counts
    spool.dispatch()
    assert spool.batches() == [(1, "submitting")]
    spool.clock.time -= 30 * 86400
    spool.dispatch()
    assert spool.batches() == [(1, "submitting")]


def test_a_clock_that_jumps_here_makes_no_batch_lost(spool: Spool) -> None:
    spool.control.settings(delay=7200)
    spool.fill(2)
    spool.dispatch()
    spool.clock.time += 5 * 86400  # only this machine's clock
    spool.control.fault("status", "retrieve", status=404)
    report = spool.poll()
    assert report.exit_code == 3
    assert "its time is over" in report.problems[1].message
    assert spool.batches() == [(1, "submitted")]
    spool.control.advance(7200)
    spool.settle()
    assert spool.counts()["completed"] == 2
    assert spool.control.billing()["requests"] == 2


def test_a_batch_the_provider_has_forgotten_is_sent_again_once_where_that_is_wanted(spool: Spool) -> None:
    spool.providers["main"] = spool.provider(on_lost="resend")
    spool.write_config()
    spool.control.settings(delay=7200)
    spool.fill(2)
    spool.dispatch()
    spool.control.fault("status", "retrieve", status=404, times=-1)
    spool.control.fault("hide")
    spool.clock.advance(24 * 3600)
    spool.poll()
    assert spool.batches() == [(1, "submitted")]
    spool.clock.advance(3660)  # the sandbox's clock goes on while this test runs: a minute to spare
    (spool.folder / "key").write_text("sk-somebody-else\n")
    spool.poll()
    assert spool.batches() == [(1, "submitted")]  # another account's list proves nothing
    (spool.folder / "key").write_text("sk-test-1\n")
    spool.poll()
    assert spool.batches() == [(1, "submitted")]  # once is not enough
    spool.clock.advance(QUARTER)
    spool.poll()
    assert spool.batches() == [(1, "failed")]
    spool.control.clear()
    spool.control.settings(delay=0)
    spool.settle()
    assert spool.counts()["completed"] == 2
    assert {outcome for (outcome,) in spool.rows("SELECT outcome FROM attempts")} == {"lost", "answered"}


def test_hold_waits_for_a_person_who_adopts(spool: Spool) -> None:
    spool.providers["main"] = spool.provider(on_unconfirmed="hold")
    spool.write_config()
    spool.fill(3)
    spool.control.fault("drop_after", "create")
    spool.dispatch()
    spool.clock.advance(QUARTER)
    spool.dispatch()
    assert spool.batches() == [(1, "submitting")]
    wrong = foreign(spool, 3)
    spool.poll()
    (right,) = [batch["id"] for batch in spool.control.batches() if batch["id"] != wrong]
    if spool.protocol == "anthropic":
        with pytest.raises(UsageError, match="other requests"):
            spool.resolve("1", adopt=wrong)
    spool.resolve("1", adopt=right)
    spool.settle()
    assert spool.counts()["completed"] == 3
    assert creates(spool) == 2  # ours and theirs


def test_a_create_nobody_can_ask_after_is_said_to_need_a_person(spool: Spool) -> None:
    spool.fill(3)
    spool.control.fault("drop_before", "create")
    spool.dispatch()
    assert spool.status()["attention"] == []
    spool.control.fault("status", "list", status=500, times=-1)
    spool.clock.advance(3700)
    spool.dispatch()
    (need,) = spool.status()["attention"]
    assert "whether it arrived" in need["message"]
    assert "nura dispatch -v" in need["hint"]
    assert "nura resolve 1 --resend" in need["hint"]
    spool.control.clear()
    spool.resolve("1")
    spool.settle()
    assert spool.counts()["completed"] == 3
    assert spool.control.billing()["requests"] == 3


def test_a_batch_whose_provider_is_gone_for_good_is_given_up_by_a_person(spool: Spool) -> None:
    spool.control.settings(delay=7200)
    spool.fill(3)
    spool.dispatch()
    spool.providers = {"other": spool.provider()}
    spool.set(provider="other")
    spool.clock.advance(20 * 3600)
    with pytest.raises(UsageError, match="its time is not over"):
        spool.resolve("1")
    spool.clock.advance(30 * 3600)
    assert "nura resolve 1 --resend" in spool.status()["attention"][0]["hint"]
    assert str(spool.poll().problems[0].hint).endswith("nura resolve 1 --resend")
    spool.resolve("1")
    spool.settle()
    assert spool.counts()["completed"] == 3
    spool.providers["main"] = spool.provider()
    spool.write_config()
    spool.poll()
    spool.reconcile()
    assert uncounted(spool) == 0
    assert spool.status()["usage"]["input_tokens"] == spool.control.billing()["input_tokens"]
    spool.check()


def test_a_person_who_adopts_somebody_elses_batch_loses_and_deletes_nothing(spool: Spool) -> None:
    spool.providers["main"] = spool.provider(on_unconfirmed="hold", cleanup_after="0")
    spool.write_config()
    spool.control.settings(delay=3600)
    if spool.protocol == "openai":
        spool.control.fault("no_metadata")
        spool.control.fault("no_input_file")
    spool.fill(3)
    spool.control.fault("drop_before", "create")
    spool.dispatch()
    smaller = foreign(spool, 2)
    theirs = foreign(spool, 3)
    spool.dispatch()
    with pytest.raises(UsageError, match="2 requests"):
        spool.resolve("1", adopt=smaller)
    spool.resolve("1", adopt=theirs)  # what nobody can tell before it has ended
    spool.clock.advance(3600)
    spool.round()
    spool.clock.advance(QUARTER)
    assert spool.poll().exit_code == 3
    assert "other requests' results" in spool.status()["attention"][0]["message"]
    spool.resolve("1")
    spool.clock.advance(3600)
    spool.settle()
    assert spool.counts()["completed"] == 3
    assert not [entry for entry in spool.control.log() if entry["route"] == "cancel"]
    spool.clock.advance(86400)
    spool.poll()
    assert theirs in {batch["id"] for batch in spool.control.batches()}
    files = {file["filename"] for file in spool.control.files()}
    assert spool.protocol == "anthropic" or {"theirs.jsonl", f"{theirs}_output.jsonl"} <= files


def test_hold_waits_for_a_person_who_sends_again(spool: Spool) -> None:
    spool.providers["main"] = spool.provider(on_unconfirmed="hold")
    spool.write_config()
    spool.fill(3)
    spool.control.fault("drop_before", "create")
    spool.dispatch()
    spool.resolve("1")
    assert spool.counts()["pending"] == 3
    with pytest.raises(UsageError, match="failed"):
        spool.resolve("1")
    spool.settle()
    assert spool.counts()["completed"] == 3


def test_a_restored_state_file_is_noticed_before_it_sends_again(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(3)
    spool.status()
    backed_up(spool)
    spool.dispatch()
    restored(spool)
    report = spool.dispatch()
    assert report.exit_code == 78
    (sent,) = [batch["id"] for batch in spool.control.batches()]
    assert sent in report.problems[0].message
    assert f"nura resolve {sent} --resend" in str(report.problems[0].hint)
    assert creates(spool) == 1
    spool.resolve(sent)
    spool.settle()
    assert spool.counts()["completed"] == 3


def test_what_a_copy_sent_is_found_behind_the_batches_of_others(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(1)
    spool.dispatch()
    spool.fill(3)
    backed_up(spool)
    spool.dispatch()
    spool.clock.advance(60)
    for _ in range(120):  # more than a page of the list
        spool.control.foreign(1, protocol="openai", key="sk-test-1")
    restored(spool)
    report = spool.dispatch()
    assert report.exit_code == 78
    assert "came from another copy" in report.problems[0].message
    assert creates(spool) == 2


def test_a_copy_made_before_the_batch_was_sent_is_noticed_too(
    openai_spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy holds a batch that is being written; the original sends it; the copy must not undo it and send again."""
    spool = openai_spool
    spool.fill(3)
    spool.status()

    def copied(*given: Any) -> Any:
        backed_up(spool)
        return real(*given)

    real = dispatch._send
    monkeypatch.setattr(dispatch, "_send", copied)
    spool.dispatch()
    restored(spool)
    assert spool.batches() == [(1, "processing")]
    assert spool.dispatch().exit_code == 78
    assert creates(spool) == 1


def test_a_batch_that_is_under_way_is_never_disowned(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.providers = {
        "down": spool.provider(base_url="http://127.0.0.1:9/v1"),
        "keyless": spool.provider(api_key_file="no-such-file"),
        **spool.providers,
    }
    spool.write_config()
    spool.control.settings(delay=600)
    spool.fill(3)
    spool.dispatch()
    (ours,) = [batch["id"] for batch in spool.control.batches()]
    with pytest.raises(UsageError, match="already belongs"):
        spool.resolve(ours)
    ((state_id,),) = spool.rows("SELECT value FROM meta WHERE name = 'state_id'")
    copys = spool.control.foreign(3, key="sk-test-1", metadata={"nura_state": state_id, "nura_tag": "x"})
    spool.control.fault("status", "cancel", status=500)
    with pytest.raises(Unreachable):
        spool.resolve(copys)
    spool.resolve(copys)  # the same command again
    assert [batch["status"] for batch in spool.control.batches()] == ["validating", "cancelling"]


def test_a_batch_whose_provider_moved_is_held_alone(spool: Spool) -> None:
    spool.providers["other"] = spool.provider()
    spool.workloads["second"] = spool.workload(provider="other", prompt="Second: {{ text }}")
    spool.write_config()
    spool.fill(2)
    spool.fill(2, workload="second")
    spool.dispatch()
    moved = spool.providers["main"]["base_url"]
    spool.providers["main"] = spool.provider(base_url="http://127.0.0.1:9/v1")
    spool.write_config()
    report = spool.poll()
    spool.reconcile()
    assert any("was sent to" in found.message for found in report.problems)
    assert spool.counts()["completed"] == 2
    spool.providers["main"] = spool.provider(base_url=moved)
    spool.write_config()
    spool.settle()
    assert spool.counts()["completed"] == 4


def test_a_crash_between_claim_and_create_gives_the_tasks_back(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    spool.fill(3)
    for step in (
        "nura_cli.pipeline.spool.write",
        "nura_cli.pipeline.dispatch._send",
        "nura_cli.pipeline.dispatch._create",
    ):

        def crash(*arguments: Any, **options: Any) -> Any:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(step, crash)
            with pytest.raises(KeyboardInterrupt):
                spool.dispatch()
        assert spool.counts()["submitted"] == 3
    spool.settle()
    assert creates(spool) == 1
    assert spool.counts()["completed"] == 3
    spool.check()


def test_token_limits_pause_the_route_and_send_smaller(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(8)
    spool.control.fault("refuse", code="token_limit_exceeded", message="Enqueued token limit reached")
    _, _, settled = spool.round()
    assert settled.exit_code == 3
    assert spool.counts()["pending"] == 8
    (paused,) = spool.status()["paused"]
    assert "token_limit_exceeded" in paused["why"]
    assert spool.dispatch().result["not_due"]["paused"] == 8
    spool.clock.advance(301)
    assert [batch["requests"] for batch in spool.dispatch().result["batches"]] == [4]
    spool.settle()
    assert spool.counts()["completed"] == 8
    assert spool.rows("SELECT max(attempts) FROM tasks") == [(1,)]


def test_the_request_that_the_vendor_names_fails_alone(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(6)
    spool.control.fault("refuse", code="invalid_request", message="line is bad", line=3, match="number 2")
    spool.settle()
    by_key = {answer["key"]: answer for answer in spool.results()}
    assert by_key[2]["error"]["kind"] == "refused"
    assert by_key[2]["error"]["message"] == "line is bad"
    assert spool.counts()["completed"] == 5
    spool.check()


def test_an_unnamed_culprit_is_found_by_halving(spool: Spool) -> None:
    spool.fill(9)
    spool.control.fault("refuse", code="invalid_request", message="something is bad", match="number 5", times=-1)
    spool.settle(rounds=20)
    found = spool.counts()
    assert (found["completed"], found["failed"]) == (8, 1)
    (failed,) = [answer for answer in spool.results() if answer["status"] == "failed"]
    assert failed["key"] == 5
    assert spool.control.billing()["requests"] == 8
    spool.check()


def test_one_workload_that_is_wrong_stops_no_other(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.workloads["wrong"] = spool.workload(model="no-such-model")
    spool.write_config()
    spool.fill(2)
    spool.fill(2, workload="wrong")
    spool.round()
    found = spool.status()["workloads"]
    assert found["echo"]["tasks"]["completed"] == 2
    assert found["wrong"]["tasks"]["pending"] == 2
    assert "model_not_found" in spool.status()["paused"][0]["why"]


def test_one_provider_that_is_down_stops_no_other(spool: Spool) -> None:
    spool.providers["down"] = spool.provider(base_url="http://127.0.0.1:9/v1")
    spool.workloads["lost"] = spool.workload(provider="down")
    spool.write_config()
    spool.fill(2)
    spool.fill(2, workload="lost")
    report = spool.dispatch()
    assert report.exit_code == 3
    assert report.result["requests"] == 2
    assert spool.status()["workloads"]["lost"]["tasks"]["pending"] == 2


def test_retry_after_becomes_a_pause_and_never_a_sleep(spool: Spool) -> None:
    spool.fill(1)
    spool.control.fault("status", "list", status=429, retry_after=3000)
    assert spool.dispatch().exit_code == 75
    assert spool.dispatch().result["not_due"]["backoff"] == 1
    spool.clock.advance(3100)
    assert spool.dispatch().result["requests"] == 1
