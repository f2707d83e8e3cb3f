"""Two reconcile at once, as real processes: of one state file, and of one and its copy, which the lock does not part."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Spool
from tests.databases import KINDS, Database, opened
from tests.end_to_end.test_command_line import NURA
from tests.end_to_end.test_kills import OPTIONS, RECORDS, application, delivered, environment, fresh, settled


def both(first: Spool, second: Spool) -> None:
    """Run reconcile twice at once; whatever one of them delays, it says so."""
    runs = [
        subprocess.Popen([str(NURA), "reconcile"], cwd=spool.folder, env=environment(spool), stderr=subprocess.PIPE)
        for spool in (first, second)
    ]
    for run in runs:
        said = run.communicate(timeout=120)[1]
        assert run.returncode in (0, 3, 75), said
        assert b"Traceback" not in said


def copied(spool: Spool, folder: Path) -> Spool:
    """Return a spool with a copy of another's state file and configuration: the same deliveries are due in both."""
    shutil.copytree(spool.folder, folder)
    copy = Spool(folder, spool.server, spool.protocol)
    copy.databases, copy.workloads, copy.clock.time = spool.databases, dict(spool.workloads), spool.clock.time
    [event] = spool.workloads["echo"]["events"]
    copy.set(
        events=[event | {"command": [str(spool.folder / "tell")]}]
    )  # the same receiver, which writes where it is run
    return copy


@pytest.mark.parametrize(
    "option", [pytest.param(name, marks=() if turn == 0 else pytest.mark.long) for turn, name in enumerate(OPTIONS)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_two_runs_of_one_state_file_write_each_row_once(kind: str, option: str, tmp_path: Path) -> None:
    with fresh(tmp_path, "openai", 1) as spool, opened(kind, tmp_path) as database:
        application(database)
        settled(spool, database, OPTIONS[option])
        both(spool, spool)
        told(spool, database)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_with_a_ledger_a_state_file_and_its_copy_have_one_effect_between_them(kind: str, tmp_path: Path) -> None:
    with fresh(tmp_path, "openai", 1) as spool, opened(kind, tmp_path) as database:
        application(database)
        settled(spool, database, OPTIONS["ledger"])
        copy = copied(spool, tmp_path / "copy")
        both(spool, copy)
        told(spool, database)
        delivered(copy, database, set())
        assert database.run("SELECT count(*) FROM log") == [(RECORDS,)]


def told(spool: Spool, database: Database) -> None:
    """Assert that all is delivered and each event was told once: nothing was killed."""
    delivered(spool, database, set())
    assert len((spool.folder / "told.jsonl").read_text().splitlines()) == RECORDS + 1
