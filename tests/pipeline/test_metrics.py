"""``nura status --prometheus FILE``: metrics that Prometheus reads, in a file that is whole at any time."""

import json
import os
import stat
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from nura_cli.pipeline import metrics
from nura_cli.states import NeedKind
from tests.conftest import Spool
from tests.pipeline.forks import Command, Ended


def written(spool: Spool, name: str = "nura.prom", *arguments: str) -> Ended:
    """Write metrics; return how that ended."""
    return Command(spool.folder, spool.clock(), "status", "--prometheus", name, *arguments).end()


def values(text: str) -> dict[tuple[str, ...], float]:
    """Return the values by name and labels, as Prometheus' own client for Python reads them."""
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation and family.type in ("gauge", "counter") for family in families)
    samples = [sample for family in families for sample in family.samples]
    found = {(sample.name, *sample.labels.values()): sample.value for sample in samples}
    assert len(found) == len(samples)
    return found


def test_it_says_what_status_says(openai_spool: Spool) -> None:
    openai_spool.fill(3)
    openai_spool.settle()
    openai_spool.enqueue({"id": "later", "text": "x"})
    Command(openai_spool.folder, openai_spool.clock(), "poll").end()
    openai_spool.clock.advance(2 * 3600)
    assert written(openai_spool) == Ended(0, "")
    found = values((openai_spool.folder / "nura.prom").read_text())
    status = openai_spool.status()
    row = status["workloads"]["echo"]
    assert found["nura_tasks", "echo", "completed"] == 3
    assert found["nura_tasks", "echo", "pending"] == 1
    assert found["nura_oldest_pending_seconds", "echo"] == 2 * 3600
    assert found["nura_input_tokens_total", "echo"] == row["usage"]["input_tokens"] > 0
    assert found["nura_cost_dollars_total", "echo"] == float(row["cost"]["paid"]) > 0
    assert found["nura_list_cost_dollars_total", "echo"] == float(row["cost"]["list"])
    assert found["nura_stage_success_timestamp_seconds", "poll"] == openai_spool.clock() - 2 * 3600
    assert found["nura_stage_exit_code", "poll"] == 0
    assert found["nura_status_timestamp_seconds",] == openai_spool.clock()
    assert found["nura_disk_free_bytes",] > 0
    assert {kind: found["nura_attention", kind] for kind in NeedKind if found["nura_attention", kind]} == {
        "no_success": 1
    }


def test_labels_are_escaped(openai_spool: Spool) -> None:
    status = openai_spool.status()
    odd = 'a "name"\\ of\ntwo lines'
    status["workloads"] = {odd: status["workloads"]["echo"]}
    assert values(metrics.text(status, 1))["nura_tasks", odd, "pending"] == 0


def test_it_is_replaced_whole_and_others_may_read_it(openai_spool: Spool) -> None:
    before = os.umask(0o022)
    try:
        written(openai_spool)
    finally:
        os.umask(before)
    file = openai_spool.folder / "nura.prom"
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    file.chmod(0o640)
    first = file.stat().st_ino
    with file.open() as reading:
        written(openai_spool)
        assert reading.read().endswith("nura_pauses 0\n")
    assert file.stat().st_ino != first
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [path.name for path in openai_spool.folder.iterdir() if path.name.endswith(".part")] == []


@pytest.mark.parametrize("name", ["nura.yaml", "nura.db", "key", "no/folder", ".", "/dev/null"])
def test_it_takes_nothing_elses_place(openai_spool: Spool, name: str) -> None:
    path = openai_spool.folder / name
    before = path.read_bytes() if path.is_file() else None
    ended = written(openai_spool, name)
    assert ended.code == 2
    assert f"--prometheus {name}: " in ended.out
    assert "Traceback" not in ended.out
    assert (path.read_bytes() if path.is_file() else None) == before
    assert Path("/dev/null").is_char_device()


def test_it_goes_together_with_the_other_answers(openai_spool: Spool) -> None:
    openai_spool.fill(1)
    openai_spool.clock.advance(3 * 3600)
    ended = written(openai_spool, "nura.prom", "--json", "--exit-code")
    assert ended.code == 3
    assert json.loads(ended.out)["attention"][0]["kind"] == "no_success"
