"""What needs a person: one definition, told by ``nura status``, by ``--json`` and by ``--exit-code``."""

import json
from typing import Any

import pytest

from nura_cli.config import AlertConfig
from nura_cli.pipeline import symptoms
from nura_cli.pipeline.symptoms import Alert
from nura_cli.state import State
from nura_cli.states import NeedKind
from tests.conftest import Spool
from tests.pipeline.forks import Command

HOUR = 3600
STAGES = ("dispatch", "poll", "reconcile")


def nura(spool: Spool, *arguments: str) -> Any:
    """Run the command line at the spool's time; return how it ended."""
    return Command(spool.folder, spool.clock(), *arguments).end()


def needs(spool: Spool, *arguments: str) -> list[dict[str, Any]]:
    """Return what ``nura status --json`` says needs a person."""
    found: list[dict[str, Any]] = json.loads(nura(spool, "status", "--json", *arguments).out)["attention"]
    return found


def kinds(spool: Spool) -> list[str]:
    """Return the kinds of what needs a person."""
    return [need["kind"] for need in needs(spool)]


def given(spool: Spool, *records: dict[str, Any]) -> str:
    """Write records to a file; return its name."""
    (spool.folder / "in.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return "in.jsonl"


def test_the_kinds_of_what_needs_a_person_stay() -> None:
    assert " ".join(NeedKind) == (
        "configuration disk foreign_owner no_success oldest_pending enqueue tasks_failed batch_held results_lost batch_late"
        " results_expire unconfirmed upload_pending not_cancelled held cancelled extra_batch possible_copy unconfigured purge_pending"
        " delivery_failed delivery_unowned"
    )


def test_the_bounds_that_hold_without_a_word_of_it_are_those_of_the_options() -> None:
    assert Alert(**AlertConfig().model_dump()) == Alert()


def test_nothing_needs_anybody_where_all_is_well(openai_spool: Spool) -> None:
    openai_spool.fill(3)
    for stage in STAGES:
        nura(openai_spool, stage)
    assert nura(openai_spool, "status", "--exit-code").code == 0
    assert needs(openai_spool) == []


def test_a_configuration_that_does_not_load_is_named_with_its_line_until_it_is_mended(openai_spool: Spool) -> None:
    openai_spool.fill(3)
    nura(openai_spool, "dispatch")
    good = openai_spool.path.read_text()
    openai_spool.set(modle="x")
    (need,) = needs(openai_spool)
    assert need["kind"] == "configuration"
    assert need["message"].startswith(
        "the configuration cannot be used, and no stage runs: nura.yaml:1: workloads.echo.modle"
    )
    assert need["hint"].endswith("nura check")
    ended = nura(openai_spool, "status", "--exit-code")
    assert ended.code == 3
    assert ended.out.startswith("needs you: the configuration cannot be used")
    openai_spool.path.write_text(good)
    assert needs(openai_spool) == []


@pytest.mark.parametrize("line", ["state: nura.db", "state: 'nura.db'  # here", 'state: "nura.db"', "remind: 6h"])
def test_a_configuration_that_is_no_yaml_hides_no_state(openai_spool: Spool, line: str) -> None:
    openai_spool.fill(3)
    openai_spool.path.write_text(f"{line}\nproviders: [\n")
    ended = nura(openai_spool, "status", "--json", "--exit-code")
    found = json.loads(ended.out)
    assert (ended.code, found["exit_code"], found["tasks"]["pending"]) == (3, 3, 3)
    assert [need["kind"] for need in found["attention"]] == ["configuration"]


def test_a_configuration_that_is_no_yaml_and_names_no_state_file_is_an_error(openai_spool: Spool) -> None:
    openai_spool.path.write_text("state: elsewhere.db\nproviders: [\n")
    ended = nura(openai_spool, "status")
    assert ended.code == 78
    assert ": YAML: while parsing" in ended.out
    assert not (openai_spool.folder / "elsewhere.db").exists()


def test_tasks_that_failed_lately_are_named_by_workload(openai_spool: Spool) -> None:
    openai_spool.set(prompt="{{ text.nothing.at_all }}")
    openai_spool.fill(3)
    openai_spool.dispatch()
    (need,) = openai_spool.status()["attention"]
    assert (need["kind"], need["workload"]) == ("tasks_failed", "echo")
    assert need["message"] == "echo: 3 tasks failed in the last 26h: render"
    assert need["hint"] == "nura show echo 2; once it is mended, nura retry echo"
    openai_spool.clock.advance(25 * HOUR)
    assert [need["kind"] for need in openai_spool.status()["attention"]] == ["tasks_failed"]
    openai_spool.clock.advance(2 * HOUR)
    assert openai_spool.status()["attention"] == []


def test_tasks_that_wait_again_need_nobody(openai_spool: Spool) -> None:
    openai_spool.set(prompt="{{ text.nothing.at_all }}")
    openai_spool.fill(3)
    openai_spool.dispatch()
    assert [need["kind"] for need in openai_spool.status()["attention"]] == ["tasks_failed"]
    openai_spool.retry("echo")
    assert openai_spool.status()["attention"] == []


def test_an_enqueue_that_fails_is_named_until_one_ends_well(openai_spool: Spool) -> None:
    good, bad = {"id": 1, "text": "a"}, {"id": 2, "txet": "b"}
    assert nura(openai_spool, "enqueue", "echo", given(openai_spool, good, bad)).code == 3
    (need,) = needs(openai_spool)
    assert (need["kind"], need["workload"]) == ("enqueue", "echo")
    assert need["message"].startswith(
        "echo: the last enqueue (2027-01-15T08:00:00Z) ended with exit code 3: in.jsonl, line 2"
    )
    assert need["hint"] == "nura log echo; mend it, and enqueue the same again"
    assert nura(openai_spool, "enqueue", "echo", given(openai_spool, good)).code == 0
    assert needs(openai_spool) == []
    assert nura(openai_spool, "enqueue", "echo", given(openai_spool, bad)).code == 3
    openai_spool.clock.advance(27 * HOUR)
    assert "enqueue" not in kinds(openai_spool)


def test_a_disk_without_room_for_what_is_under_way_needs_somebody(openai_spool: Spool, monkeypatch: Any) -> None:
    openai_spool.fill(3)
    openai_spool.dispatch()
    (size,) = openai_spool.rows("SELECT bytes FROM batches")[0]
    free = symptoms.ROOM + size
    monkeypatch.setattr(symptoms, "free_bytes", lambda state: free)
    assert openai_spool.status()["attention"] == []
    free -= 1
    (need,) = openai_spool.status()["attention"]
    assert need["kind"] == "disk"
    assert need["message"].startswith(f"{openai_spool.folder} has 64 MB left, and what is under way may need 64 MB")


def test_work_that_waits_while_no_stage_ends_well_needs_somebody(openai_spool: Spool) -> None:
    openai_spool.fill(3)
    openai_spool.clock.advance(2 * HOUR - 1)
    assert needs(openai_spool) == []
    openai_spool.clock.advance(1)
    (need,) = needs(openai_spool)
    assert need["kind"] == "no_success"
    assert need["message"] == "work waits, and no stage has ended well yet"
    for stage in STAGES:
        assert nura(openai_spool, stage).code == 0
    openai_spool.clock.advance(HOUR)
    openai_spool.enqueue({"id": "later", "text": "x"})
    assert needs(openai_spool) == []
    openai_spool.clock.advance(HOUR)
    (openai_spool.folder / "key").unlink()
    nura(openai_spool, "poll")
    assert "no_success" not in kinds(openai_spool)
    openai_spool.clock.advance(HOUR)
    assert "no_success" in kinds(openai_spool)


def test_work_that_came_just_now_does_not_wait_since_the_last_run(openai_spool: Spool) -> None:
    for stage in STAGES:
        nura(openai_spool, stage)
    openai_spool.clock.advance(100 * HOUR)
    openai_spool.fill(3)
    assert needs(openai_spool) == []
    openai_spool.clock.advance(2 * HOUR)
    assert kinds(openai_spool) == ["no_success"]


def test_what_has_been_pending_for_a_day_needs_somebody(openai_spool: Spool) -> None:
    openai_spool.set(dispatch={"min_requests": 100, "max_wait": "30d"})
    openai_spool.fill(3)
    openai_spool.clock.advance(26 * HOUR)
    (need,) = openai_spool.status(Alert(no_success=None))["attention"]
    assert (need["kind"], need["workload"]) == ("oldest_pending", "echo")
    assert need["message"] == "echo: 3 tasks are pending, the oldest for 1d 2h"
    assert need["hint"].startswith("nura dispatch --dry-run echo")
    openai_spool.hold("echo")
    assert openai_spool.status(Alert(no_success=None))["attention"] == []
    openai_spool.release("echo")
    assert openai_spool.status(Alert(no_success=None))["attention"] == []
    openai_spool.clock.advance(26 * HOUR)
    assert len(openai_spool.status(Alert(no_success=None))["attention"]) == 1


def alert(spool: Spool, options: Any) -> None:
    """Give the configuration an ``alert``."""
    spool.path.write_text(json.dumps(json.loads(spool.path.read_text()) | {"alert": options}))


def test_when_waiting_needs_somebody_is_an_option(openai_spool: Spool) -> None:
    openai_spool.fill(3)
    openai_spool.clock.advance(HOUR)
    alert(openai_spool, {"no_success": "1h", "oldest_pending": "30m"})
    assert kinds(openai_spool) == ["no_success", "oldest_pending"]
    alert(openai_spool, {"no_success": "never", "oldest_pending": 7200})
    assert kinds(openai_spool) == []
    alert(openai_spool, {"no_success": "soon"})
    openai_spool.clock.advance(HOUR)
    assert kinds(openai_spool) == ["configuration", "no_success"]


def test_attention_is_of_the_whole_whatever_is_asked_for(openai_spool: Spool) -> None:
    openai_spool.set("other")
    openai_spool.fill(1)
    openai_spool.clock.advance(26 * HOUR)
    assert [need["kind"] for need in needs(openai_spool, "other")] == ["no_success", "oldest_pending"]
    assert nura(openai_spool, "status", "other", "--exit-code").code == 3


def test_status_is_quick_on_a_file_in_which_much_failed(openai_spool: Spool) -> None:
    """It looks at the newest failures alone, in pages, and through no table."""
    with State(openai_spool.state_path) as state:
        plans = []
        state.db.set_trace_callback(
            lambda text: (
                plans.append(text) if "answers a CROSS JOIN tasks t ON t.id" in text and "seq <" in text else None
            )
        )
        from nura_cli.state import failures

        failures.lately(state.db, 0, 100)
        state.db.set_trace_callback(None)
        (query,) = plans
        details = " ".join(row[3] for row in state.db.execute(f"EXPLAIN QUERY PLAN {query}"))
    assert "USING INDEX answers_unanswered" in details
    assert "TEMP B-TREE" not in details
    assert "SCAN" not in details
