"""Kill -9 at the N-th system call that writes, and at every exchange with the provider; then run the stages again.

By default a few kills of the sweep run, each call in each stage once, and with ``NURA_KILL_SWEEP=part`` more of them;
``NURA_KILL_SWEEP=1 pytest tests/end_to_end/test_kills.py`` counts N up until the run completes, for each call, each stage
and both protocols. How many kills there were is printed at the end.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nura_cli.pipeline import purge
from nura_cli.pipeline.spool import intact, result_file
from nura_cli.sandbox import Sandbox
from nura_cli.state import State, compact
from nura_cli.state.batches import under_way
from nura_cli.states import BatchStatus
from tests import tallies
from tests.conftest import OPENAI_FIRST, PROTOCOLS, START, Spool, cron_environment, need
from tests.databases import Database, opened
from tests.end_to_end.test_command_line import NURA
from tests.pipeline.forks import Command
from tests.pipeline.test_purge import in_layout

SWEEP = os.environ.get("NURA_KILL_SWEEP")
WHOLE = SWEEP == "1"
CALLS = ("pwrite64", "write", "/^rename", "/^unlink", "fsync", "fdatasync", "ftruncate")
STAGES = ("enqueue", "dispatch", "poll", "reconcile", "backup")
RECORDS = 5
MOST = 400
EVERY = (*range(1, MOST), *range(MOST, 20 * MOST, 20))
"""The calls of a verb that are killed in a whole sweep: one that writes the state file anew makes many alike."""
SAMPLE = (1, 3)
pytestmark = pytest.mark.timeout(3600 if WHOLE else 300)
# Enqueue, reconcile and backup talk to no provider: their kills are the same in both protocols, but for what reconcile reads.
KILLS = [
    (stage, call, protocol, SAMPLE)
    for stage in STAGES
    for call in CALLS
    for protocol in PROTOCOLS
    if (stage, protocol) not in (("enqueue", "anthropic"), ("backup", "anthropic"))
]
# Of each stage every second call; the rest, and the other protocol, where more time is given.
FEW = [
    pytest.param(
        stage, call, protocol, SAMPLE[turn // 2 % 2 :][:1],
        marks=() if protocol == "openai" and (turn + number) % 2 == 0 else pytest.mark.long,
    )
    for protocol in PROTOCOLS
    for number, stage in enumerate(STAGES)
    for turn, call in enumerate(CALLS)
    if protocol == "openai" or stage in ("dispatch", "poll")
]  # fmt: skip


def prepared(spool: Spool, stage: str) -> list[str]:
    """Bring a spool to where a stage has work; return the arguments of that stage."""
    now = int(time.time())
    spool.clock.time = now
    spool.control.advance(now - START)
    lines = "".join(json.dumps({"id": i, "text": f"record number {i}"}) + "\n" for i in range(RECORDS))
    (spool.folder / "in.jsonl").write_text(lines)
    if stage != "enqueue":
        spool.fill(RECORDS)
    if stage in ("poll", "reconcile", "backup"):
        spool.dispatch()
    if stage in ("reconcile", "backup"):
        spool.poll()
    return [str(NURA), stage, *{"enqueue": ["echo", "in.jsonl"], "backup": ["."]}.get(stage, [])]


def environment(spool: Spool) -> dict[str, str]:
    """Return cron's environment, with no byte code written: that is no call of the stage's own."""
    return cron_environment(spool.folder) | {"PYTHONDONTWRITEBYTECODE": "1"}


def killed(
    spool: Spool, call: str, n: int, *arguments: str, children: bool = True
) -> subprocess.CompletedProcess[bytes]:
    """Run a command that is killed at the n-th of these system calls, if it makes so many.

    Args:
        children: whether what it starts counts as it does, threads included; else what is killed is nura alone.
    """
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={n}"]
    return subprocess.run(
        [need("strace", "strace"), *(["-f"] if children else []), "-qq", "-o", "/dev/null", *inject, *arguments],
        cwd=spool.folder, env=environment(spool), capture_output=True, timeout=120, check=False,
    )  # fmt: skip


def recovered(spool: Spool) -> None:
    """Run the stages again, and assert that nothing was lost, paid for twice, or left lying about; and that backups are whole."""
    backups = sorted(spool.folder.glob("nura.db.*Z*"))
    if any(path.suffix == ".part" for path in backups):  # of one that was killed: the next one removes it
        backups = [Path(spool.backup(spool.folder).result["path"])]
        assert [*spool.folder.glob("*.part")] == []
    for path in backups:
        with State(path / "nura.db") as copy:
            assert copy.db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            (batch,) = under_way(copy.db, BatchStatus.COMPLETED)
            assert all(intact(result_file(copy, batch, part), file) for part, file in batch.files.items())
    spool.enqueue(*({"id": i, "text": f"record number {i}"} for i in range(RECORDS)))
    spool.settle()
    spool.poll()
    assert spool.counts()["completed"] == RECORDS
    assert sum(spool.counts().values()) == RECORDS
    bill = spool.control.billing()
    assert (bill["requests"], bill["twice"]) == (RECORDS, {"custom_id": [], "digest": []})
    left = [path for folder in ("requests", "results") for path in (spool.folder / "nura.db.spool" / folder).iterdir()]
    assert left == []
    spool.check()


@contextmanager
def fresh(parent: Path, protocol: str, n: int) -> Iterator[Spool]:
    """A spool on a sandbox of its own."""
    folder = parent / f"n{n}"
    folder.mkdir()
    with Sandbox(folder / "box.db") as server:
        (folder / "nura").mkdir()
        yield Spool(folder / "nura", server, protocol)
    shutil.rmtree(folder)


@pytest.mark.parametrize(("stage", "call", "protocol", "sample"), KILLS if SWEEP else FEW)
def test_killed_at_any_call_that_writes_it_loses_nothing_and_pays_once(
    stage: str, call: str, protocol: str, sample: tuple[int, ...], tmp_path: Path
) -> None:
    need("strace", "strace")
    for n in range(1, MOST) if WHOLE else sample:
        with fresh(tmp_path, protocol, n) as spool:
            arguments = prepared(spool, stage)
            done = killed(spool, call, n, *arguments)
            recovered(spool)
        if done.returncode == 0:
            assert n > 1 or call != "pwrite64", "every stage writes to the state file: the kill did not happen"
            return
        assert done.returncode == -signal.SIGKILL, done.stderr
        tallies.kills[f"{stage} {call}"] += 1
    assert not WHOLE, f"{stage} does not complete within {MOST} calls of {call}"


@pytest.mark.parametrize("protocol", PROTOCOLS if SWEEP else OPENAI_FIRST)
@pytest.mark.parametrize("when", [pytest.param("before", marks=() if SWEEP else pytest.mark.long), "after"])
@pytest.mark.parametrize("stage", ["dispatch", "poll"])
def test_killed_at_any_exchange_it_loses_nothing_and_pays_once(
    stage: str, when: str, protocol: str, tmp_path: Path
) -> None:
    for n in range(20):
        with fresh(tmp_path, protocol, n) as spool:
            prepared(spool, stage)
            spool.control.fault("hold", "*", skip=n, after=when == "after", seconds=60)
            command = Command(spool.folder, spool.clock(), stage)
            while command.running and not spool.control.held():
                time.sleep(0.02)
            ended = not command.running
            command.kill()
            command.end()
            spool.control.clear()
            spool.control.release()
            recovered(spool)
        if ended:
            assert n > 1
            return
        tallies.kills[f"{stage} {when} an exchange"] += 1
    raise AssertionError(f"{stage} does not complete within 20 exchanges")


@pytest.mark.long
@pytest.mark.parametrize("spool", OPENAI_FIRST, indirect=True)
def test_what_a_kill_cannot_show_stands_in_the_trace(spool: Spool) -> None:
    """A power cut: a file is written, synced, renamed, its folder synced, and only then is it committed."""
    strace = need("strace", "strace")
    for stage in ("dispatch", "poll"):
        arguments = prepared(spool, stage) if stage == "dispatch" else [str(NURA), stage]
        trace = spool.folder / f"{stage}.trace"
        subprocess.run(
            [strace, "-f", "--seccomp-bpf", "-y", "-qq", "-o", str(trace), "-e", "trace=write,fsync,fdatasync,/^rename,pwrite64", *arguments],
            cwd=spool.folder, env=environment(spool), check=True, timeout=120,
        )  # fmt: skip
        lines = trace.read_text().splitlines()
        folder = "requests" if stage == "dispatch" else "results"
        part = rf"/{folder}/[^>]*\.part"
        steps = [
            _first(lines, rf"write\(\d+<[^>]*{part}", 0),
            _first(lines, rf"fsync\(\d+<[^>]*{part}", 0),
            _first(lines, rf"rename\w*\(.*{folder}", 0),
        ]
        assert steps == sorted(steps)
        synced = _first(lines, rf"fsync\(\d+<[^>]*/{folder}>", steps[-1])
        committed = _first(lines, r"(fsync|fdatasync)\(\d+<[^>]*nura\.db-wal", synced)
        assert steps[-1] < synced < committed


def _first(lines: list[str], pattern: str, after: int) -> int:
    """Return the number of the first line after ``after`` that a pattern matches."""
    for number, line in enumerate(lines[after:], after):
        if re.search(pattern, line):
            return number
    raise AssertionError(f"nothing in the trace matches {pattern}")


# --- reconcile while it delivers: rows into a database, events to a command

TABLE = "CREATE TABLE articles (id INTEGER PRIMARY KEY, n INTEGER NOT NULL DEFAULT 0, summary TEXT)"
OURS = "summary IS NOT NULL AND summary <> 'by hand'"
# The calls of each database, and at which of them the sample kills: with a guard, and with a ledger.
DELIVERING = [
    ("sqlite", "pwrite64", (25, 40), (31, 46)),
    ("sqlite", "write", (2,), (2,)),
    ("sqlite", "fdatasync", (7, 9), (6, 8)),
    ("sqlite", "/^unlink", (1,), (1,)),
    ("postgresql", "sendto", (30, 32), (42, 50)),
    ("postgresql", "recvfrom", (32,), (45,)),
    ("postgresql", "pwrite64", (16,), (24,)),
    ("postgresql", "fdatasync", (5,), (4,)),
]
OPTIONS: dict[str, dict[str, Any]] = {"guard": {"only_if": {"n": "record.n"}}, "ledger": {"ledger": "log"}}


def application(database: Database) -> None:
    """Make the application's tables: articles, a ledger, and an effect for each write of ours."""
    database.run(TABLE)
    for i in range(RECORDS):
        database.run(f"INSERT INTO articles (id) VALUES ({i})")
    database.run("CREATE TABLE log (uid VARCHAR(255) PRIMARY KEY, written_at TIMESTAMP NOT NULL)")
    database.run("CREATE TABLE effects (id INTEGER)")
    if database.kind == "sqlite":
        effect = "INSERT INTO effects SELECT new.id WHERE new.summary <> 'by hand'"
    else:
        effect = "IF new.summary <> 'by hand' THEN INSERT INTO effects VALUES (new.id); END IF"
    database.trigger("AFTER UPDATE ON articles", effect)


def settled(spool: Spool, database: Database, options: dict[str, Any]) -> None:
    """Bring a spool to where all is settled and nothing delivered, since its database was not to be found."""
    tell = spool.folder / "tell"
    tell.write_text("#!/bin/sh\nexec cat >> told.jsonl\n")
    tell.chmod(0o755)
    write_back = {"database": "app", "table": "articles", "where": {"id": "key"}, "set": {"summary": "text"}}
    events = [{"types": ["task.completed", "batch.completed"], "command": ["./tell"]}]
    spool.clock.time = int(time.time())
    spool.control.advance(spool.clock.time - START)
    spool.databases["app"] = {"url": database.url}
    spool.set(write_back=write_back | options, events=events, keep=["n"])
    spool.enqueue(*({"id": i, "text": f"record number {i}", "n": 0} for i in range(RECORDS)))
    spool.dispatch()
    spool.poll()
    spool.databases["app"] = {"url": "sqlite:///not-there.db"}
    spool.write_config()
    assert spool.reconcile().result["rows"]["delayed"] == RECORDS
    spool.databases["app"] = {"url": database.url}
    spool.write_config()


def delivered(spool: Spool, database: Database, by_hand: set[int]) -> None:
    """Let cron run on, and assert that each row holds what it should, was written once, and that everybody was told."""
    for _ in range(6):
        spool.reconcile()
        spool.clock.advance(7 * 3600)
    assert spool.rows("SELECT status, count(*) FROM deliveries GROUP BY status") == [("done", 2 * RECORDS + 1)]
    summaries = dict(database.run("SELECT id, summary FROM articles ORDER BY id"))
    assert {i for i, summary in summaries.items() if summary == "by hand"} == by_hand
    assert all(f"record number {i}" in summary for i, summary in summaries.items() if i not in by_hand)
    effects = database.run("SELECT id FROM effects ORDER BY id")
    assert len(effects) == len(set(effects))
    assert {i for (i,) in effects} >= summaries.keys() - by_hand
    told = [json.loads(line) for line in (spool.folder / "told.jsonl").read_text().splitlines()]
    keys = {event["id"]: event["data"]["key"] for event in told}
    assert sorted(key for key in keys.values() if key is not None) == list(range(RECORDS))
    assert len(keys) == RECORDS + 1
    spool.check()


DELIVERIES = [
    (kind, call, option, sample)
    for kind, call, *samples in DELIVERING
    for option, sample in zip(OPTIONS, samples, strict=True)
]
FEW_DELIVERIES = [
    pytest.param(
        kind, call, list(OPTIONS)[turn % 2], samples[turn % 2][:1], marks=() if turn % 2 == 0 else pytest.mark.long
    )
    for turn, (kind, call, *samples) in enumerate(DELIVERING)
]


@pytest.mark.parametrize(("kind", "call", "option", "sample"), DELIVERIES if SWEEP else FEW_DELIVERIES)
def test_killed_at_any_call_while_it_delivers_each_row_is_written_once_and_everybody_told(
    kind: str, call: str, option: str, sample: tuple[int, ...], tmp_path: Path
) -> None:
    need("strace", "strace")
    for n in range(1, MOST) if WHOLE else sample:
        with fresh(tmp_path, "openai", n) as spool, opened(kind, spool.folder) as database:
            application(database)
            settled(spool, database, OPTIONS[option])
            done = killed(spool, call, n, str(NURA), "reconcile", children=False)
            # The application goes on meanwhile: what was written is edited, and with a guard what was not, too.
            written = {i for (i,) in database.run(f"SELECT id FROM articles WHERE {OURS}")}
            by_hand = written if option == "ledger" else {0, 3}
            for i in by_hand:
                database.run(f"UPDATE articles SET n = 1, summary = 'by hand' WHERE id = {i}")
            delivered(spool, database, by_hand)
        if done.returncode == 0:
            assert n > 1, f"nothing was killed at a call of {call}"
            return
        assert done.returncode == -signal.SIGKILL, done.stderr
        tallies.kills[f"reconcile {call} {kind}"] += 1
    assert not WHOLE, f"reconcile does not complete within {MOST} calls of {call}"


# --- the verbs of an operator: killed half-way, each is simply run again

VERBS = {
    "retry": ["retry", "echo", "--yes"],
    "cancel": ["cancel", "echo"],
    "cancel-under-way": ["cancel", "echo", "--under-way"],
    "redeliver": ["redeliver", "echo"],
    "purge": ["purge", "echo", "--yes", "--key", "0", "--key", "1", "--key", "2"],
    "purge-old": ["purge", "echo", "--yes", "--older-than", "1s", "--undelivered"],
    "compact": ["purge", "--compact", "--yes"],
}
VERB_CALLS = ("pwrite64", "fdatasync", "write")
VERB_KILLS = [
    pytest.param(verb, call, SAMPLE, marks=() if SWEEP or call == "fdatasync" else pytest.mark.long)
    for verb in VERBS
    for call in VERB_CALLS
]


def gone_wrong(spool: Spool, verb: str, database: Database) -> None:
    """Bring a spool to where a verb has something to do."""
    if verb == "redeliver":
        application(database)
        settled(spool, database, {})
        spool.rows("UPDATE deliveries SET status = 'dead', done_at = 1, said = 'no'")
        return
    spool.clock.time = int(time.time()) - 60
    spool.control.advance(spool.clock.time - START)
    in_layout(spool, "earlier" if verb == "compact" else "newer")
    spool.fill(RECORDS)
    if verb in ("purge", "purge-old", "compact"):
        spool.settle()
    if verb == "retry":
        spool.set(prompt="{{ txet }}")
        assert spool.dispatch().exit_code == 3
        spool.release("echo")  # what cannot be rendered, alike, is held at first
        assert spool.dispatch().exit_code == 3
        assert spool.counts()["failed"] == RECORDS
        spool.set(prompt="Repeat: {{ text }}")
    if verb == "cancel-under-way":
        spool.control.settings(delay=3600)
        spool.dispatch()


def put_right(spool: Spool, verb: str, database: Database) -> None:
    """Run a verb again, and the stages, and assert that all is as the verb would have it, once."""
    if verb == "redeliver":
        spool.redeliver()
        delivered(spool, database, set())
    elif verb == "retry":
        spool.retry()
        recovered(spool)
    elif verb in ("purge", "purge-old", "compact"):
        forgotten(spool, verb)
    else:
        spool.cancel(under_way=verb == "cancel-under-way")
        spool.settle()
        assert spool.counts()["cancelled"] == RECORDS
        assert spool.control.billing()["requests"] == 0
        assert spool.status()["attention"] == []
        spool.check()


def forgotten(spool: Spool, verb: str) -> None:
    """Purge again, or compact, and assert that what was meant is gone, all else is there, and nothing is sent again."""
    if verb == "purge":
        spool.purge("0", "1", "2")
    elif verb == "purge-old":
        spool.clock.advance(120)
        spool.purge_old(seconds=1, undelivered=True)
    else:
        with State(spool.state_path, spool.clock) as state:
            purge.run_compact(state, purge.plan_compact(state))
            assert not compact.due(state)
    recovered(spool)
    assert [one["key"] for one in spool.results()] == {"purge": [3, 4], "purge-old": [], "compact": [0, 1, 2, 3, 4]}[
        verb
    ]
    assert spool.status()["workloads"]["echo"]["purged"] == RECORDS - len(spool.results())


@pytest.mark.parametrize(("verb", "call", "sample"), VERB_KILLS)
def test_a_verb_that_is_killed_at_any_call_is_simply_run_again(
    verb: str, call: str, sample: tuple[int, ...], tmp_path: Path
) -> None:
    need("strace", "strace")
    for n in EVERY if WHOLE else sample:
        with fresh(tmp_path, "openai", n) as spool, opened("sqlite", spool.folder) as database:
            gone_wrong(spool, verb, database)
            done = killed(spool, call, n, str(NURA), *VERBS[verb])
            put_right(spool, verb, database)
        if done.returncode == 0:
            assert n > 1 or call != "pwrite64", "every verb writes to the state file: the kill did not happen"
            return
        assert done.returncode == -signal.SIGKILL, done.stderr
        tallies.kills[f"{verb} {call}"] += 1
    assert not WHOLE, f"{verb} does not complete within {EVERY[-1]} calls of {call}"
