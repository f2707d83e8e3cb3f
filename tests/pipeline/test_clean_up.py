"""What is left at the provider is deleted when it is due, by ids and names of this state file alone."""

import openai
import pytest

from tests.conftest import Spool

SECOND_PROTOCOL_IS_LONG = True


def kept(spool: Spool) -> list[str]:
    """Return the names of the files that the provider still keeps."""
    return [file["filename"] for file in spool.control.files()]


def test_an_upload_that_a_crashed_dispatch_left_is_deleted_by_its_exact_name(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.providers["main"] = spool.provider(cleanup_after="7d")
    spool.write_config()
    spool.fill(2)
    spool.control.fault("drop_after", "upload")
    assert spool.dispatch().exit_code == 75
    (orphan,) = kept(spool)
    theirs = f"{orphan.removesuffix('.jsonl')}-theirs.jsonl"
    with openai.OpenAI(api_key="sk-test-1", base_url=spool.server.openai_base_url, max_retries=0) as gpt:
        gpt.files.create(file=(theirs, b'{"custom_id": "x"}\n'), purpose="batch")
    spool.settle()
    assert {orphan, theirs} < set(kept(spool))
    spool.clock.advance(8 * 86400)
    spool.poll()
    assert kept(spool) == [theirs]
    assert spool.counts()["completed"] == 2


@pytest.mark.parametrize(("after", "remain"), [("0", False), ("never", True)])
def test_clean_up_may_be_at_once_or_never(spool: Spool, after: str, remain: bool) -> None:
    spool.providers["main"] = spool.provider(cleanup_after=after)
    spool.write_config()
    spool.fill(2)
    spool.settle()
    spool.poll()
    left = spool.control.files() if spool.protocol == "openai" else spool.control.batches()
    assert bool(left) is remain
    spool.clock.advance(25 * 86400)
    spool.poll()
    left = spool.control.files() if spool.protocol == "openai" else spool.control.batches()
    assert bool(left) is remain


@pytest.mark.parametrize("status", [405, 501])
def test_what_is_refused_is_not_deleted_and_is_asked_for_again(spool: Spool, status: int) -> None:
    spool.providers["main"] = spool.provider(cleanup_after="1h", limits={"requests": 1})
    spool.write_config()
    spool.fill(3)
    spool.settle()
    refused = spool.control.fault("status", "delete", status=status, times=-1)
    spool.clock.advance(2 * 3600)
    report = spool.poll()
    (said,) = report.problems
    assert (report.exit_code, said.lasting) == (0, True)  # one line each `remind`
    assert [row["route"] for row in spool.control.log()].count("delete") == 2  # in a run, however much is due
    assert f"HTTP {status}" in said.message
    assert "3 batches" in said.message
    assert "cleanup_after: never" in str(said.hint)
    spool.control.clear(refused)
    assert spool.poll().problems == []
    assert (spool.control.files() if spool.protocol == "openai" else spool.control.batches()) == []


@pytest.mark.parametrize("status", [405, 501])
def test_what_cannot_be_deleted_of_one_batch_keeps_no_other(spool: Spool, status: int) -> None:
    spool.providers["main"] = spool.provider(cleanup_after="1h", limits={"requests": 1})
    spool.write_config()
    spool.fill(3)
    spool.settle()
    spool.control.fault("status", "delete", status=status, times=1)
    spool.clock.advance(2 * 3600)
    report = spool.poll()
    assert (report.exit_code, len(report.problems)) == (0, 1)
    assert "1 batch " in report.problems[0].message
    assert "never" not in str(report.problems[0].hint)
    assert spool.rows("SELECT id FROM batches WHERE cleaned_at IS NULL") == [(1,)]
    assert spool.poll().problems == []
    assert (spool.control.files() if spool.protocol == "openai" else spool.control.batches()) == []


@pytest.mark.parametrize("status", [404, 405])
def test_where_uploads_are_not_listed_all_else_is_deleted(openai_spool: Spool, status: int) -> None:
    spool = openai_spool
    spool.providers["main"] = spool.provider(cleanup_after="7d")
    spool.write_config()
    spool.fill(2)
    spool.control.fault("drop_after", "upload")
    spool.dispatch()
    (orphan,) = kept(spool)
    spool.settle()
    gone = spool.control.fault("status", "files", status=status, times=-1)
    spool.clock.advance(8 * 86400)
    report = spool.poll()
    assert (report.exit_code, len(report.problems)) == (0, 1)
    assert f"HTTP {status}" in report.problems[0].message
    assert kept(spool) == [orphan]
    spool.control.clear(gone)
    spool.poll()
    assert kept(spool) == []
