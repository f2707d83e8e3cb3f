"""Request files that their provider is not done with: waited for, gone on from, and never uploaded twice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nura_cli.dialects import topics
from nura_cli.pipeline import uploads
from nura_cli.providers.openai import OpenAIProvider
from nura_cli.sandbox import Sandbox
from tests.conftest import Spool

pytestmark = pytest.mark.long

QUARTER = 15 * 60
HOUR = 3600
DAY = 24 * HOUR


def uploaded(spool: Spool) -> int:
    """Return how many request files were sent."""
    return sum(row["route"] == "upload" for row in spool.control.log())


def creates(spool: Spool) -> list[int]:
    """Return what creates were answered with."""
    return [row["status"] for row in spool.control.log() if row["route"] == "create"]


def said(report: Any) -> str:
    """Return all that a run had to say."""
    return "\n".join(found.line for found in report.problems)


@pytest.mark.parametrize("word", ["pending", "running", "Pending"])
def test_a_file_that_is_soon_ready_is_waited_for_within_the_run(openai_spool: Spool, word: str) -> None:
    spool = openai_spool
    spool.fill(3)
    spool.control.fault("slow_files", word=word, seconds=2)
    report = spool.dispatch()
    assert (report.exit_code, report.problems) == (0, [])
    assert (uploaded(spool), creates(spool)) == (1, [200])
    assert spool.batches() == [(1, "submitted")]
    spool.settle()
    assert spool.counts()["completed"] == 3


@pytest.mark.usefixtures("hurried")
def test_the_next_run_goes_on_from_the_file(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(3)
    spool.control.fault("slow_files", seconds=600)
    for _ in range(3):
        report = spool.dispatch()
        assert (report.exit_code, report.problems, report.result["batches"]) == (0, [], [])
    assert spool.batches() == [(1, "uploaded")]
    assert (uploaded(spool), creates(spool)) == (1, [])
    spool.clock.advance(600)
    spool.settle()
    assert (uploaded(spool), creates(spool)) == (1, [200])
    assert spool.counts()["completed"] == 3
    spool.check()


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("served", [True, False])
def test_a_create_that_comes_too_early_is_no_tasks_fault(openai_spool: Spool, served: bool) -> None:
    spool = openai_spool
    spool.fill(4)
    spool.control.fault("slow_files", word="uploaded", seconds=QUARTER + 60)
    if not served:
        spool.control.fault("status", "file", status=404, times=-1)
    for _ in range(3):
        report = spool.dispatch()
        assert (report.exit_code, report.problems) == (0, [])
    assert (spool.batches(), creates(spool)) == ([(1, "submitting")], [400])
    spool.clock.advance(QUARTER)
    report = spool.dispatch()  # the list lacks it, so that it is created again, once
    assert (report.exit_code, report.problems, creates(spool)) == (0, [], [400, 400])
    spool.clock.advance(QUARTER)
    spool.settle()
    assert (uploaded(spool), spool.counts()["completed"]) == (1, 4)
    assert spool.control.billing()["requests"] == 4
    assert spool.rows("SELECT count(*) FROM suspects") == [(0,)]
    assert spool.rows("SELECT max(cap) FROM routes") == [(None,)]


@pytest.mark.usefixtures("hurried")
def test_while_it_is_said_to_be_pending_no_refusal_is_believed_whatever_its_words(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(3)
    spool.control.fault("slow_files", seconds=90 * 60)
    spool.control.fault("status", "create", status=400, message="Bad request.", times=-1)
    spool.dispatch()
    spool.clock.advance(HOUR + 1)
    report = spool.dispatch()  # so late a create is tried, whatever is said of the file
    assert creates(spool) == [400]
    assert "its request file" in said(report)
    assert "nothing is uploaded twice" in said(report)
    (need,) = spool.status()["attention"]
    assert "is not ready at main: " in need["message"]
    assert "Bad request." in need["message"]
    assert (uploaded(spool), spool.batches()) == (1, [(1, "submitting")])


@pytest.mark.usefixtures("hurried")
def test_a_file_that_is_never_ready_does_not_hold_its_tasks_for_ever(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(3)
    stuck = spool.control.fault("slow_files", seconds=10**9)
    spool.dispatch()
    spool.clock.advance(DAY)
    spool.dispatch()
    assert spool.batches()[0] == (1, "failed")
    assert spool.counts()["pending"] == 3
    spool.control.clear(stuck)
    spool.settle()
    assert spool.counts()["completed"] == 3
    assert spool.control.billing()["requests"] == 3


def test_files_that_nobody_serves_make_no_second_upload(openai_spool: Spool) -> None:
    spool = openai_spool
    for status in (404, 405, 500, 401):
        spool.control.fault("status", "file", status=status)
    spool.control.fault("slow_files", word="odd", seconds=0, ends="uploaded")
    spool.fill(3)
    assert spool.dispatch().problems == []
    assert (uploaded(spool), creates(spool)) == (1, [200])


def test_a_file_that_cannot_be_processed_is_refused(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(3)
    spool.control.fault("slow_files", seconds=0, ends="error")
    report = spool.dispatch()
    assert "the file is error" in said(report)
    assert spool.batches() == [(1, "failed")]
    assert (creates(spool), spool.counts()["pending"]) == ([], 3)


def test_a_list_that_fails_after_the_upload_does_not_cost_the_file(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(3)
    spool.control.fault("status", "list", status=500, skip=1)
    spool.dispatch()
    assert spool.batches() == [(1, "uploaded")]
    spool.settle()
    assert (uploaded(spool), spool.counts()["completed"]) == (1, 3)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("step", ["processed", "create"])
def test_killed_around_the_wait_nothing_is_created_twice(
    openai_spool: Spool, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class Killed(BaseException):
        pass

    def killed_after(work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            with pytest.MonkeyPatch.context():
                try:
                    work(*arguments, **options)
                finally:
                    raise Killed

        return run

    spool = openai_spool
    spool.fill(3)
    spool.control.fault("slow_files", word="uploaded" if step == "create" else "pending", seconds=60)
    with monkeypatch.context() as patch:
        patch.setattr(OpenAIProvider, step, killed_after(getattr(OpenAIProvider, step)))
        with pytest.raises(Killed):
            spool.dispatch()
    assert spool.batches() == [(1, "uploaded" if step == "processed" else "submitting")]
    spool.clock.advance(60)
    spool.settle()
    assert spool.counts()["completed"] == 3
    assert spool.control.billing()["requests"] == 3
    assert creates(spool).count(200) == 1


@pytest.mark.usefixtures("hurried")
def test_what_is_cancelled_while_it_waits_is_never_created(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(3)
    spool.control.fault("slow_files", seconds=60)
    spool.dispatch()
    spool.cancel(batch=1)
    spool.clock.advance(60)
    spool.dispatch()
    assert (creates(spool), spool.counts()["cancelled"]) == ([], 3)


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 400, "message": "The file references a model that is not available yet"},
        {"status": 400, "message": "The file is not ready", "code": "invalid_model"},
        {"status": 402, "message": "The file is not ready"},
        {"status": 404, "message": "The file is not ready"},
        {"status": 413, "message": "The file is not ready"},
        {"status": 400, "message": "Input file: line 2: the file is pending"},
    ],
)
@pytest.mark.parametrize("pending", [False, True])
def test_a_refusal_about_anything_else_is_no_waiting(
    openai_spool: Spool, answer: dict[str, Any], pending: bool, hurried: None
) -> None:
    spool = openai_spool
    spool.fill(3)
    if pending and answer["message"].startswith("The file is not ready"):
        spool.control.fault("slow_files", seconds=2 * HOUR)
    spool.control.fault("status", "create", times=1, **answer)
    spool.dispatch()
    spool.clock.advance(HOUR + 1)
    spool.dispatch()
    assert spool.batches()[0] == (1, "failed")
    assert spool.counts()["pending"] + spool.counts()["submitted"] == 3


def test_a_file_that_is_seen_processed_ends_the_waiting(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(3)
    spool.control.fault("status", "create", status=400, message="The file is still processing.", times=-1)
    spool.dispatch()
    assert spool.batches()[0] == (1, "submitting")
    spool.clock.advance(QUARTER)
    assert "still processing" in said(spool.dispatch())
    assert spool.batches()[0] == (1, "failed")


def test_a_look_at_the_file_that_fails_blames_nobody(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(3)
    spool.control.fault("slow_files", word="uploaded", seconds=QUARTER)
    spool.control.fault("drop_before", "file", skip=1, times=-1)
    spool.dispatch()
    assert spool.batches() == [(1, "submitting")]
    assert spool.rows("SELECT count(*) FROM suspects") == [(0,)]
    assert uploaded(spool) == 1


def test_a_clock_that_was_ahead_makes_no_file_wait_until_then(openai_spool: Spool, hurried: None) -> None:
    spool = openai_spool
    spool.fill(3)
    stuck = spool.control.fault("slow_files", seconds=10**9)
    spool.clock.advance(365 * DAY)
    spool.dispatch()
    spool.clock.advance(-364 * DAY)
    (need,) = [one for one in spool.status()["attention"] if one["kind"] == "upload_pending"]
    assert "is not ready at main" in need["message"]
    spool.dispatch()
    assert spool.batches()[0] == (1, "failed")
    spool.control.clear(stuck)
    spool.settle()
    assert spool.counts()["completed"] == 3


@pytest.mark.parametrize("hidden", [0, 60])
def test_a_create_that_arrived_and_was_answered_as_too_early_is_adopted(openai_spool: Spool, hidden: int) -> None:
    spool = openai_spool
    spool.control.settings(delay=2 * HOUR)
    spool.fill(3)
    if hidden:
        spool.control.fault("hide", seconds=hidden)
    spool.control.fault("status", "create", status=400, message="The file is still processing.", after=True)
    assert spool.dispatch().problems == []
    spool.clock.advance(QUARTER)
    assert spool.dispatch().problems == []
    assert spool.batches() == [(1, "submitted")]
    spool.clock.advance(2 * HOUR)
    spool.settle()
    assert (uploaded(spool), spool.counts()["completed"]) == (1, 3)
    assert spool.control.billing()["requests"] == 3
    assert spool.rows("SELECT count(*) FROM strays") == [(0,)]
    spool.check()


def test_one_that_the_list_shows_late_does_not_stop_the_others(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.control.settings(delay=2 * HOUR)
    spool.fill(3)
    spool.control.fault("hide", seconds=QUARTER + 60)
    spool.control.fault("status", "create", status=400, message="The file is still processing.", after=True)
    spool.dispatch()
    spool.clock.advance(QUARTER)
    spool.control.fault("slow_files", seconds=60)  # and so nothing is created, though the list lacks it
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uploads, "WAIT_SECONDS", 0)
        patch.setattr(OpenAIProvider, "processed", lambda *_: False)
        spool.dispatch()
    assert spool.batches() == [(1, "uploaded")]
    spool.clock.advance(60)
    assert spool.dispatch().problems == []
    assert (spool.batches(), creates(spool)) == ([(1, "submitted")], [400])


def test_a_service_that_never_showed_ours_is_believed_when_it_refuses(tmp_path: Path, server: Sandbox) -> None:
    (tmp_path / "nura").mkdir()
    spool = Spool(tmp_path / "nura", server, "openai", shown=False)
    spool.fill(3)
    spool.control.fault("status", "create", status=400, message="The file is still processing.")
    assert spool.dispatch().problems == []
    spool.clock.advance(QUARTER)
    spool.settle()
    assert (uploaded(spool), spool.counts()["completed"]) == (1, 3)
    assert spool.control.billing()["requests"] == 3


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("moved", [True, False])
@pytest.mark.parametrize("give_up", [True, False])
def test_a_create_that_came_too_early_where_its_provider_left_is_for_a_person(
    openai_spool: Spool, give_up: bool, moved: bool
) -> None:
    spool = openai_spool
    spool.fill(3)
    spool.control.fault("status", "create", status=400, message="The file is still processing.")
    spool.dispatch()
    name = "main" if moved else "next"
    spool.providers = {name: spool.provider(**({"organization": "org-other"} if moved else {}))}
    spool.workloads["echo"] = spool.workload(provider=name)
    spool.write_config()
    spool.clock.advance(HOUR + 60)
    for _ in range(2):
        spool.dispatch()
        (need,) = spool.status()["attention"]
        assert need["kind"] == "unconfirmed"
        assert "still processing" in need["message"]
        assert "nura resolve 1 --resend" in need["hint"]
    spool.resolve("1", give_up=give_up)
    assert spool.batches() == [(1, "failed")]
    assert not any(need["kind"] == "unconfirmed" for need in spool.status()["attention"])
    spool.settle()
    assert (spool.counts()["completed"], spool.counts()["failed"]) == ((0, 3) if give_up else (3, 0))


def test_what_is_cancelled_after_a_create_that_came_too_early_is_looked_for_first(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.control.settings(delay=2 * HOUR)
    spool.fill(3)
    spool.control.fault("status", "create", status=400, message="The file is still processing.", after=True)
    spool.dispatch()
    spool.cancel(batch=1)
    spool.dispatch()
    assert [row["status"] for row in spool.control.log() if row["route"] == "cancel"] == [200]
    assert spool.batches() == [(1, "submitted")]


@pytest.mark.parametrize(
    ("code", "words", "waits"),
    [
        ("file_not_ready", "whatever", True),
        (None, "File 'file-1' is not ready: its status is pending.", True),
        ("invalidPayload", "The specified file is not ready (status=Running).", True),
        (None, "The file file-abc is still being processed. Try again later.", True),
        (None, "Input file with id file-1 is not yet processed", True),
        (None, "The provided file ID file-1 is in status: Pending", True),
        ("BadRequest", "Http 400: File file-1 is not in a processed state.", True),
        (None, "The file is too large.", False),
        (None, "No such File object: file-1", None),
        (None, "requests.3: the profile is not ready", None),
        ("invalid_json_line", "This line is not parseable as valid JSON.", False),
        (None, None, None),
        (None, "Bad request.", None),
        (None, "The status of the file is 'pending'", True),
        (None, "The file is in a state: running out of quota", None),
        (None, "The file references a model that is not available yet", None),
        ("invalid_model", "The file is not ready", False),
        (None, "Input file: line 3: model gpt-x is pending deprecation", None),
        (None, "The file was not processed: line 3 is invalid JSON", None),
        (None, "File file-abc could not be processed", None),
        (None, "The input file has not been processed because your organization is not verified", None),
    ],
)
def test_by_which_words_a_file_is_said_not_to_be_ready(code: str | None, words: str | None, waits: bool | None) -> None:
    assert topics.file_not_ready(code, words) is waits
