"""What a refusal says, and of whom: a task fails for its own content alone, never for a file, an account or an outage."""

from typing import Any

import pytest

from tests.conftest import Spool
from tests.pipeline.test_recovery import creates

pytestmark = pytest.mark.long


def crash(*arguments: Any, **options: Any) -> Any:
    """End a run as a kill would."""
    raise KeyboardInterrupt


def uploaded(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a batch whose request file is uploaded and whose create was not sent."""
    with monkeypatch.context() as patched:
        patched.setattr("nura_cli.pipeline.dispatch._create", crash)
        with pytest.raises(KeyboardInterrupt):
            spool.dispatch()
    assert spool.batches() == [(1, "uploaded")]


@pytest.mark.parametrize("n", [1, 5])
def test_a_file_the_provider_cannot_find_at_once_is_no_tasks_fault(openai_spool: Spool, n: int) -> None:
    """The vendor answers a create right after its upload with this now and then (curator#116)."""
    spool = openai_spool
    spool.fill(n)
    words = "Cannot find file file-x, or project proj_y does not have access to it."
    spool.control.fault("status", "create", status=400, code="invalid_request_error", message=words, times=3)
    for _ in range(3):
        report = spool.dispatch()
        assert any(words in found.message for found in report.problems)
        assert spool.counts()["pending"] == n
        assert words in spool.status()["paused"][0]["why"]
        spool.clock.advance(2 * 3600)
    spool.settle()
    assert spool.counts()["completed"] == n
    assert spool.control.billing()["requests"] == n
    assert len(spool.batches()) == 4


@pytest.mark.parametrize("status", [400, 404])
def test_an_upload_that_has_expired_gives_its_tasks_back(
    openai_spool: Spool, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    spool = openai_spool
    spool.fill(1)
    uploaded(spool, monkeypatch)
    spool.clock.advance(31 * 86400)
    if status == 400:
        spool.control.fault("status", "create", status=400, code="invalid_request_error", message="no such file")
    spool.dispatch()
    assert spool.counts()["failed"] == 0
    spool.clock.advance(2 * 3600)
    spool.settle()
    assert spool.counts()["completed"] == 1
    assert creates(spool) == 2


def test_an_upload_whose_provider_left_the_configuration_holds_no_task(
    openai_spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = openai_spool
    spool.fill(3)
    uploaded(spool, monkeypatch)
    spool.providers = {"other": spool.provider()}
    spool.set(provider="other")
    spool.dispatch()
    assert spool.batches() == [(1, "failed"), (2, "submitted")]
    spool.settle()
    assert spool.counts()["completed"] == 3


@pytest.mark.parametrize("code", ["server_error", "internal_error"])
def test_an_outage_that_fails_whole_batches_is_no_tasks_fault(openai_spool: Spool, code: str) -> None:
    spool = openai_spool
    spool.fill(1)
    spool.control.fault("refuse", code=code, message="The server had an error", times=4)
    for _ in range(4):
        spool.round()
        assert spool.counts()["pending"] == 1
        assert spool.status()["paused"][0]["why"].startswith(code)
        spool.clock.advance(2 * 3600)
    spool.settle()
    assert spool.counts()["completed"] == 1
    assert spool.rows("SELECT attempts FROM tasks") == [(1,)]


def test_a_request_file_too_large_to_upload_is_sent_in_smaller_ones(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(8)
    spool.control.fault("status", "upload", status=413, message="too large", times=1)
    spool.dispatch()
    spool.settle()
    assert spool.counts()["completed"] == 8
    assert spool.rows("SELECT max(requests) FROM batches WHERE status = 'reconciled'") == [(4,)]


def test_an_upload_that_is_refused_for_a_line_is_searched_and_for_ever_is_held(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(3)
    spool.control.fault("status", "upload", status=400, message="Line 2: invalid request", times=1)
    spool.dispatch()
    spool.settle()
    assert (spool.counts()["failed"], spool.counts()["completed"]) == (1, 2)
    spool.fill(9)
    spool.control.fault("status", "upload", status=400, message="we do not like it", times=-1)
    for _ in range(25):
        spool.dispatch()
        spool.clock.advance(2 * 3600)
    assert len(spool.status()["holds"]) == 1
    assert spool.counts()["pending"] == 6
    assert len(spool.batches()) < 25


@pytest.mark.parametrize("status", [400, 403])
def test_a_full_account_is_no_tasks_fault(openai_spool: Spool, status: int) -> None:
    spool = openai_spool
    spool.fill(1)
    words = "You have exceeded your file storage quota."
    spool.control.fault("status", "upload", status=status, message=words, times=2)
    for _ in range(2):
        assert spool.dispatch().exit_code in (3, 77)
        assert spool.counts()["pending"] == 1
        spool.clock.advance(6 * 60)
    spool.settle()
    assert spool.counts()["completed"] == 1


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC."),
        (400, "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade."),
        (402, "Insufficient Balance"),
    ],
)
def test_an_account_without_money_makes_no_batch_smaller_and_no_task_fail(
    spool: Spool, status: int, words: str
) -> None:
    spool.fill(8)
    spool.control.fault("status", "create", status=status, code="invalid_request_error", message=words, times=6)
    for _ in range(6):
        spool.dispatch()
        assert spool.counts()["pending"] == 8
        assert words[:40] in spool.status()["paused"][0]["why"]
        spool.clock.advance(2 * 3600)
    spool.settle()
    assert spool.counts()["completed"] == 8
    assert spool.rows("SELECT requests FROM batches") == [(8,)] * 7
    assert spool.rows("SELECT DISTINCT attempts FROM tasks") == [(1,)]


@pytest.mark.parametrize(
    ("code", "words", "requests"),
    [
        ("billing_not_active", "Your account is not active, please check your billing details on our website.", 8),
        ("odd", "Enqueued request limit reached for m. Limit: 1,000,000 enqueued requests.", 8),
        ("invalid_request_error", "File is too large.", 4),
        ("odd", "Please try again later.", 8),
    ],
)
def test_what_a_failed_batch_says_counts_whatever_its_code(
    openai_spool: Spool, code: str, words: str, requests: int
) -> None:
    spool = openai_spool
    spool.fill(8)
    spool.control.fault("refuse", code=code, message=words)
    spool.round()
    assert spool.counts()["pending"] == 8
    spool.clock.advance(2 * 3600)
    spool.settle()
    assert spool.counts()["completed"] == 8
    assert spool.rows("SELECT max(requests) FROM batches WHERE status = 'reconciled'") == [(requests,)]
