"""The machine's problems, met by the installed command: full, failing and read-only disks, damaged files, runs that hang.

The sweep makes one system call on a file of ours fail (strace), that time alone or from then on; by default a few of
them fail, with ``NURA_KILL_SWEEP=part`` more, ``NURA_KILL_SWEEP=1 pytest tests/end_to_end/test_machine.py`` lets every
such call fail in every stage. Real disks, small ones of their own, are filled and mounted read-only beside that.
"""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from nura_cli.sandbox import Sandbox
from tests.conftest import PROTOCOLS, Spool, need
from tests.end_to_end.test_command_line import NURA
from tests.end_to_end.test_kills import RECORDS, STAGES, SWEEP, WHOLE, environment, fresh, prepared, recovered
from tests.pipeline.forks import completed

pytestmark = [pytest.mark.long, pytest.mark.timeout(7200 if WHOLE else 300)]
FAILURES = {
    "pwrite64": ("ENOSPC",),
    "write": ("ENOSPC",),
    "ftruncate": ("ENOSPC",),
    "openat": ("ENOSPC", "EROFS"),
    "mkdir": ("ENOSPC",),
    "rename": ("EROFS",),
    "unlink": ("EROFS",),
    "fsync": ("EIO",),
    "fdatasync": ("EIO",),
    "pread64": ("EIO",),
    "read": ("EIO",),
}
RUNS = [
    (stage, protocol)
    for stage in STAGES
    for protocol in (PROTOCOLS if SWEEP else PROTOCOLS[:1])
    if (stage, protocol) not in (("enqueue", "anthropic"), ("backup", "anthropic"))
]
LOCKING = ("dispatch", "poll", "reconcile")
"""The stages of which one run at a time is at work."""
SAMPLED = 12 if SWEEP else 30
"""Without the whole sweep, each run takes one of so many kinds of points, and the middle one of its kind."""


class Point(NamedTuple):
    """One system call that fails: its error, the how manieth of its name it is in its thread, the file it is about."""

    call: str
    error: str
    n: int
    file: str


def run(spool: Spool, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[bytes]:
    """Run the command as cron does, to its end; with something before it, from its file."""
    if not before:
        return completed(*arguments, cwd=spool.folder, environment=environment(spool))
    return subprocess.run(
        [*before, NURA, *arguments], cwd=spool.folder, env=environment(spool), capture_output=True, timeout=120, check=False
    )  # fmt: skip


def traced(
    spool: Spool, arguments: list[str], *options: str
) -> tuple[subprocess.CompletedProcess[bytes], list[list[str]]]:
    """Run the command under strace; return how it ended, and the lines of the trace, thread by thread."""
    traces = spool.folder / "traces"
    traces.mkdir()
    done = run(
        spool, *arguments, before=(need("strace", "strace"), "--seccomp-bpf", "-ffyqqo", str(traces / "of"), *options)
    )
    return done, [path.read_text().splitlines() for path in sorted(traces.iterdir())]


def clear(stage: str, done: subprocess.CompletedProcess[bytes], *codes: int) -> str:
    """Assert that a command ended with one of these codes and one line that says what to do next; return the line."""
    said = done.stderr.decode()
    assert done.returncode in codes, (done.returncode, said)
    assert re.fullmatch(rf"nura {stage}: [^\n]+ \([^\n]+\)\n", said), said
    assert not re.search(r"Traceback|bug|unexpected", said), said
    return said


def code_of(spool: Spool, stage: str) -> list[int | None]:
    """Return with which exit code a stage's last run is written down; nothing, when no run of it is."""
    return [code for (code,) in spool.rows("SELECT exit_code FROM runs WHERE stage = ?", stage)]


# --- calls that fail


def points(stage: str, protocol: str, parent: Path) -> list[Point]:
    """Return every point at which a stage writes to, or reads, a file of ours: traced in a run that goes well."""
    with fresh(parent, protocol, 0) as spool:
        done, threads = traced(
            spool, prepared(spool, stage)[1:], "-e", f"trace={','.join(f'?{call}' for call in FAILURES)}"
        )
        assert done.returncode == 0
        found = []
        for lines in threads:
            counts = Counter[str]()
            for line in lines:
                call = line.partition("(")[0]
                counts[call] += 1
                file = _file_of(line, spool.folder)
                if file and (call != "openat" or re.search("O_CREAT|O_RDWR", line)):
                    found += [Point(call, error, counts[call], file) for error in FAILURES[call]]
        return found


def _file_of(line: str, folder: Path) -> str | None:
    """Return the name of the file of ours that a traced call is about, its tag left out."""
    names = re.findall(rf"[<\"]{re.escape(str(folder))}/(nura\.db[^>\"]*)[>\"]", line)
    return re.sub(r"\d{8}T\d{6}Z", "TIME", re.sub(r"[0-9a-f]{20}", "TAG", names[-1])) if names else None


def sampled(found: list[Point], turn: int) -> list[Point]:
    """Return the points to try: all in the whole sweep, else the middle one of some of their kinds, others each turn."""
    kinds = defaultdict[tuple[str, str, str], list[Point]](list)
    for point in found:
        kinds[point.call, point.error, point.file].append(point)
    middle = [kinds[kind][len(kinds[kind]) // 2] for kind in sorted(kinds)]
    return found if WHOLE else middle[turn % SAMPLED :: SAMPLED]


@pytest.mark.parametrize(("stage", "protocol"), RUNS)
def test_a_disk_that_is_full_or_fails_at_any_call_is_said_and_loses_nothing(
    stage: str, protocol: str, tmp_path: Path
) -> None:
    turn = RUNS.index((stage, protocol))
    for number, point in enumerate(sampled(points(stage, protocol, tmp_path), turn)):
        for lasting in (False, True) if WHOLE else ((number + turn) % 2 == 1,):
            if lasting and point.call in ("write", "openat", "read"):
                continue  # it would strike standard error too, or modules that are loaded: what lies on no disk of ours
            with fresh(tmp_path, protocol, number) as spool:
                fails(spool, stage, point, lasting)


def fails(spool: Spool, stage: str, point: Point, lasting: bool) -> None:
    """Let a call fail in a stage, once or from then on, and see what it says and what is left; then all goes on."""
    arguments = prepared(spool, stage)[1:]
    where = f"inject={point.call}:error={point.error}:when={point.n}{'+' if lasting else ''}"
    done, threads = traced(spool, arguments, "-e", f"trace={point.call}", "-e", where)
    hit = [line for lines in threads for line in lines if "INJECTED" in line]
    ours = all(_file_of(line, spool.folder) for line in hit)  # each thread has an n-th call: another may be hit as well
    torn = (point.call, stage, spool.protocol) == ("read", "dispatch", "anthropic")  # in the middle of a create
    # SQLite takes a file that cannot be read for a damaged one: no later run can be promised to do better.
    codes = (3, 75, 1) if point.call == "pread64" else (3, 75)
    assert done.returncode in (0, *codes), done.stderr
    if ours and (done.returncode or done.stderr):
        said = clear(stage, done, *codes)
        named = (str(spool.folder), "its results in the spool", *(["Input/output error"] if torn else []))
        assert any(name in said for name in named), f"{point}: {said}"
    if (
        stage == "backup" and done.returncode == 3
    ):  # it lacks the results that could not be read, and has nothing half of them
        (partial,) = spool.folder.glob("nura.db.*Z")
        assert not list(partial.glob("nura.db.spool/results/*")), point
        shutil.rmtree(partial)
    if not lasting and point.call != "unlink":
        assert not list((spool.folder / "nura.db.spool").glob("*/*.part")), point
    if stage != "enqueue":
        known = {
            None,
            done.returncode,
            *([0] if point.call == "fdatasync" else []),
        }  # an unsynced commit may last after all
        assert set(code_of(spool, stage)) <= known, (point, code_of(spool, stage))
    again = run(spool, *arguments)
    if torn:
        assert again.returncode == 0 or b"its create was not confirmed" in again.stderr
    else:
        assert (again.returncode, again.stderr) == (0, b""), (point, lasting, again.stderr)
    recovered(spool)
    assert spool.rows("PRAGMA journal_mode") == [("wal",)], point


# --- real disks


class Disk:
    """A small file system of its own, with nura's folder as its root."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self._filler = spool.folder / "filler"

    def fill(self, leave: int = 0) -> None:
        """Fill it with a file, but for ``leave`` bytes."""
        room = os.statvfs(self.spool.folder)
        with self._filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - leave)

    def free(self) -> None:
        """Remove that file."""
        self._filler.unlink()

    def mount(self, how: str) -> None:
        """Mount it anew: ``ro`` or ``rw``."""
        subprocess.run(["mount", "-o", f"remount,{how}", self.spool.folder], check=True)


@pytest.fixture
def disk(tmp_path: Path, server: Sandbox, request: pytest.FixtureRequest) -> Iterator[Disk]:
    """A spool on a file system of 64 MB of its own; needs root."""
    need("mount", "mount")
    if os.geteuid() != 0:
        reason = "needs root, to mount a file system"
        (pytest.fail if os.environ.get("NURA_NO_SKIPS") else pytest.skip)(reason)
    folder = tmp_path / "nura"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "nura-test", folder], check=True)
    try:
        yield Disk(Spool(folder, server, getattr(request, "param", "openai")))
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_on_a_full_disk_every_command_says_so_and_works_once_there_is_room(disk: Disk) -> None:
    spool = disk.spool
    prepared(spool, "enqueue")
    for command in (["enqueue", "echo", "in.jsonl"], ["dispatch"], ["poll"], ["reconcile"]):
        disk.fill()
        for failing in (command, ["status"], ["results"]):
            said = clear(failing[0], run(spool, *failing), 75)
            assert f"{spool.state_path}: " in said
            assert "the disk is full" in said
            assert "(free some room" in said
        disk.free()
        done = run(spool, *command)
        assert (done.returncode, done.stderr) == (0, b"")
    assert spool.counts()["completed"] == RECORDS
    recovered(spool)


def test_a_backup_that_has_no_room_leaves_nothing_and_one_of_a_read_only_disk_can_be_made(
    disk: Disk, tmp_path: Path
) -> None:
    spool = disk.spool
    prepared(spool, "backup")
    disk.fill(leave=16_500_000)
    assert re.search(r"a backup takes \d MB, and ", clear("backup", run(spool, "backup", "kept"), 75))
    assert list((spool.folder / "kept").iterdir()) == []
    disk.free()
    disk.mount("ro")
    assert "Read-only" in clear("backup", run(spool, "backup", "kept"), 75)
    done = run(spool, "backup", str(tmp_path / "kept"))
    assert (done.returncode, done.stderr) == (0, b"")
    disk.mount("rw")
    (path,) = (tmp_path / "kept").iterdir()
    spool.restore(str(path))
    recovered(spool)


def test_where_nothing_can_be_written_status_and_results_still_tell(disk: Disk) -> None:
    spool = disk.spool
    prepared(spool, "enqueue")
    for command in (["enqueue", "echo", "in.jsonl"], ["dispatch"], ["poll"], ["reconcile"]):
        disk.mount("ro")
        said = clear(command[0], run(spool, *command), 75)
        assert ("that the disk is mounted writable" if command[0] == "enqueue" else "(mount it writable") in said
        if command[0] != "enqueue":
            assert json.loads(run(spool, "status", "--json").stdout)["tasks"] == spool.counts()
            assert run(spool, "results").returncode == 0
        disk.mount("rw")
        assert run(spool, *command).returncode == 0
    killed_while_writing(spool.state_path)
    disk.mount("ro")
    assert b"killed" in run(spool, "status").stdout
    assert len(run(spool, "results").stdout.splitlines()) == RECORDS
    disk.mount("rw")
    recovered(spool)


def killed_while_writing(state: Path) -> None:
    """Leave a state file as a process does that is killed: a commit stands in the WAL alone."""
    code = (
        "import os, signal, sys; from pathlib import Path; from nura_cli.state import State, runs\n"
        "with State(Path(sys.argv[1])) as state:\n"
        "    with state.transaction() as db: runs.started(db, 'killed', 1)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, state], check=False, timeout=60)
    assert state.with_name(state.name + "-wal").stat().st_size


@pytest.mark.parametrize("disk", PROTOCOLS if WHOLE else PROTOCOLS[:1], indirect=True)
def test_a_request_file_for_which_there_is_no_room_leaves_the_room_there_was(disk: Disk) -> None:
    spool = disk.spool
    spool.enqueue(*({"id": i, "text": f"{i} {'x' * 2000}"} for i in range(4000)))
    disk.fill(leave=5_000_000)
    said = clear("dispatch", run(spool, "dispatch"), 75)
    assert re.search(
        r"nura\.db\.spool/requests/[0-9a-f]{20}\.jsonl\.part: No space left on device \(free some room", said
    )
    assert list(spool.state_path.with_name("nura.db.spool").glob("requests/*")) == []
    assert code_of(spool, "dispatch") == [75]
    assert run(spool, "poll").returncode == run(spool, "reconcile").returncode == 0  # they have room enough
    disk.free()
    done = run(spool, "dispatch")
    assert (done.returncode, done.stderr) == (0, b"")
    spool.settle()
    assert (spool.counts()["completed"], spool.control.billing()["requests"]) == (4000, 4000)


@pytest.mark.parametrize("disk", PROTOCOLS if WHOLE else PROTOCOLS[1:], indirect=True)
def test_a_download_for_which_there_is_no_room_is_not_begun_and_stops_no_other(disk: Disk) -> None:
    spool = disk.spool
    spool.set("small")
    spool.fill(4000)
    spool.fill(1, workload="small")
    spool.dispatch()
    disk.fill(leave=18_000_000)
    said = clear("poll", run(spool, "poll"), 3)
    assert re.search(r"/results: 17 MB are free, and a download needs \d\d MB \(free some room; the next poll", said)
    assert [status for _, status in spool.batches()] == ["submitted", "completed"]
    assert len(list(spool.state_path.with_name("nura.db.spool").glob("results/*"))) == 1
    again = run(spool, "poll")
    assert (again.returncode, again.stderr) == (75, b"")  # nothing else was left to do; it was said at its onset
    disk.free()
    done = run(spool, "poll")
    assert (done.returncode, done.stderr) == (0, b"")
    assert run(spool, "reconcile").returncode == 0
    assert spool.counts()["completed"] == 4001
    assert spool.control.billing()["requests"] == 4001


# --- output that cannot be written


def test_answers_that_cannot_be_written_are_no_bug(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(3)
    spool.round()
    for arguments in (
        ["results"], ["results", "--key", "1"], ["status"], ["status", "--json"], ["dispatch", "-n"],
        ["enqueue", "echo", "-n", "in.jsonl"], ["reconcile", "--json"],
    ):  # fmt: skip
        spool.enqueue({"id": 4, "text": "waits"})
        (spool.folder / "in.jsonl").write_text('{"id": 5, "text": "x"}\n')
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [NURA, *arguments], cwd=spool.folder, env=environment(spool), stdout=full, stderr=subprocess.PIPE,
                timeout=60, check=False,
            )  # fmt: skip
        assert "standard output: No space left" in clear(arguments[0], done, 75)


@pytest.mark.long
def test_a_log_that_cannot_be_written_changes_neither_the_work_nor_the_exit_code(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(3)

    def silent(*arguments: str) -> int:
        with open("/dev/full", "wb") as full:
            return subprocess.run(
                [NURA, *arguments], cwd=spool.folder, env=environment(spool), stderr=full, timeout=60, check=False
            ).returncode

    assert [silent(stage, "-v") for stage in ("dispatch", "poll", "reconcile")] == [0, 0, 0]
    assert spool.counts()["completed"] == 3
    assert silent("dispatch", "-c", "nosuch.yaml") == 78
    spool.control.fault("status", "*", status=503, times=-1)
    spool.enqueue({"id": 4, "text": "x"})
    assert silent("dispatch") == 75


def test_rejected_lines_that_cannot_be_copied_stop_it_and_name_the_file(openai_spool: Spool) -> None:
    spool = openai_spool
    (spool.folder / "in.jsonl").write_text('nonsense\n{"id": 1, "text": "record number 1"}\n')
    arguments = ("enqueue", "echo", "in.jsonl", "--rejects")
    assert "/dev/full: No space left" in clear("enqueue", run(spool, *arguments, "/dev/full"), 75)
    assert b"--rejects no/where" in run(spool, *arguments, "no/where").stderr
    done = run(spool, *arguments, "bad.jsonl")
    assert done.returncode == 3
    assert (spool.folder / "bad.jsonl").read_text() == "nonsense\n"
    assert spool.counts()["pending"] == 1


# --- files that are damaged, newer, locked


DAMAGE: dict[str, Any] = {
    "overwritten in the middle": lambda data: data[: 3 * 16384] + bytes(len(data) - 3 * 16384),
    "its header zeroed": lambda data: bytes(100) + data[100:],
    "cut short": lambda data: data[: len(data) // 2],
    "cut to nothing": lambda data: b"",
}


def every_command(spool: Spool) -> list[list[str]]:
    """Return the commands that open the state file, with their arguments; some of them, without the whole sweep."""
    some = [prepared(spool, "enqueue")[1:], ["dispatch"], ["status"]]
    return [*some, ["poll"], ["reconcile"], ["results"]] if WHOLE else some


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_file_is_said_to_be_and_left_as_it_is(damage: str, openai_spool: Spool) -> None:
    spool = openai_spool
    commands = every_command(spool)
    spool.fill(RECORDS)
    spool.round()
    for stage in LOCKING:
        spool.state_path.with_name(f"nura.db.{stage}.lock").touch()  # these runs were none of the command's
    good = spool.state_path.read_bytes()
    bad = DAMAGE[damage](good)
    spool.state_path.write_bytes(bad)
    for command in commands:
        said = clear(command[0], run(spool, *command), 1)
        assert f"{spool.state_path}: is " in said
        assert re.search(r"damaged|is empty", said)
        assert "restore a backup" in said
    assert spool.state_path.read_bytes() == bad
    spool.state_path.write_bytes(good)
    assert run(spool, "dispatch").returncode == 0
    recovered(spool)


def test_a_state_file_of_a_newer_nura_is_said_to_be_and_left_as_it_is(openai_spool: Spool) -> None:
    spool = openai_spool
    commands = every_command(spool)
    spool.fill(RECORDS)
    (version,) = spool.rows("PRAGMA user_version")[0]
    spool.rows("UPDATE meta SET value = ? WHERE name = 'oldest_version'", str(version + 1))
    spool.rows(f"PRAGMA user_version = {version + 1}")
    newer = spool.state_path.read_bytes()
    for command in commands:
        said = clear(command[0], run(spool, *command), 78)
        assert "written by a newer nura" in said
        assert "run the newer nura; or restore" in said
    assert spool.state_path.read_bytes() == newer
    with sqlite3.connect(spool.state_path) as db:
        db.execute(f"PRAGMA user_version = {version}")
        db.execute("UPDATE meta SET value = ? WHERE name = 'oldest_version'", (str(version),))
    db.close()
    recovered(spool)


# The command with a shorter patience than its half a minute; the whole sweep waits as long as it does.
IMPATIENT = (
    sys.executable, "-c", "import sys; from nura_cli.cli import main; from nura_cli.state import file; "
    "sys.argv = ['nura', *sys.argv[2:]]; file.BUSY_SECONDS = 0.3; main()",
)  # fmt: skip


@contextmanager
def sat_on(state: Path, *statements: str) -> Iterator[None]:
    """Another process that sits on a state file with what it has begun."""
    code = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "for statement in sys.argv[2:]: db.execute(statement).fetchall()\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(state), *statements], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout
    assert holder.stdout.readline() == b"held\n"
    try:
        yield
    finally:
        holder.communicate(timeout=20)


def test_a_state_file_on_which_another_process_sits_is_75_and_readable(openai_spool: Spool) -> None:
    spool, before = openai_spool, () if WHOLE else IMPATIENT
    enqueue = prepared(spool, "enqueue")[1:]
    spool.fill(1)
    with sat_on(spool.state_path, "BEGIN EXCLUSIVE"):
        for command in (enqueue, *([stage] for stage in LOCKING)):
            said = clear(command[0], run(spool, *command, before=before), 75)
            assert f"{spool.state_path}: locked by another process (wait for it, or find it with: fuser -v " in said
        assert json.loads(run(spool, "status", "--json", before=before).stdout)["tasks"]["pending"] == 1
        assert run(spool, "results", before=before).returncode == 0
    assert run(spool, "dispatch").returncode == 0
    with sat_on(spool.state_path, "PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE"):
        for command in ["dispatch"], ["status"]:
            assert "locked by another process" in clear(command[0], run(spool, *command, before=before), 75)
    recovered(spool)


def test_a_run_that_hangs_is_said_once_by_each_stage_and_again_as_often_as_told(openai_spool: Spool) -> None:
    from nura_cli.state import State, locks

    spool = openai_spool
    document = json.loads(spool.path.read_text())
    spool.path.write_text(json.dumps(document | {"remind": "1h"}))
    prepared(spool, "dispatch")
    since = int(time.time()) - 7 * 3600
    with State(spool.state_path) as state:
        for stage in LOCKING:
            with locks.lock(state.lock_path(stage), since):
                said = clear(stage, run(spool, stage), 75)
                assert f"already running (pid {os.getpid()}, since " in said
                assert f"if it hangs, kill {os.getpid()}: nothing is lost" in said
                silent = run(spool, stage)
                assert (silent.returncode, silent.stderr) == (75, b"")
                with state.transaction() as db:
                    db.execute("UPDATE troubles SET said_at = said_at - 3600")
                assert clear(stage, run(spool, stage), 75) == said
    for stage in LOCKING:
        done = run(spool, stage)
        assert (done.returncode, done.stderr) == (0, b"")
    assert spool.rows("SELECT count(*) FROM troubles") == [(0,)]
    recovered(spool)


@pytest.mark.parametrize("damage", ["a byte flipped", "not readable", *(["gone", "cut short"] if WHOLE else [])])
def test_results_in_the_spool_that_are_damaged_are_fetched_again(damage: str, openai_spool: Spool) -> None:
    spool = openai_spool
    prepared(spool, "reconcile")
    (path,) = spool.state_path.with_name("nura.db.spool").glob("results/*")
    data = path.read_bytes()
    before: tuple[str, ...] = ()
    if damage == "gone":
        path.unlink()
    elif damage == "cut short":
        path.write_bytes(data[:-40])
    elif damage == "a byte flipped":
        path.write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])
    else:
        before = (need("strace", "strace"), "-fqqo", "/dev/null", "-P", str(path), "-e", "inject=read:error=EIO")
    said = clear("reconcile", run(spool, "reconcile", before=before), 3)
    assert "its results in the spool are gone or damaged (the next poll fetches them again)" in said
    for stage in ("poll", "reconcile"):
        done = run(spool, stage)
        assert (done.returncode, done.stderr) == (0, b"")
    assert spool.counts()["completed"] == RECORDS
    recovered(spool)


# --- at the same second


def at_once(spool: Spool, *arguments: str) -> None:
    """Run a command twice at the same moment; both end well and say nothing."""
    both = [
        subprocess.Popen(
            [NURA, *arguments], cwd=spool.folder, env=environment(spool), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) for _ in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [(process.returncode, text) for process, text in zip(both, said, strict=True)] == [(0, b"")] * 2


@pytest.mark.long
@pytest.mark.parametrize("spool", PROTOCOLS if SWEEP else PROTOCOLS[:1], indirect=True)
def test_two_of_a_stage_at_the_same_second_never_do_the_same_work_twice(spool: Spool) -> None:
    rounds = 8 if WHOLE else 2 if SWEEP else 1
    with sqlite3.connect(spool.folder / "app.db") as app:
        app.executescript(
            "CREATE TABLE answers (id INTEGER PRIMARY KEY, answer TEXT); CREATE TABLE writes (id INTEGER);"
            "CREATE TRIGGER wrote AFTER UPDATE ON answers BEGIN INSERT INTO writes VALUES (new.id); END"
        )
        app.executemany("INSERT INTO answers (id) VALUES (?)", [(i,) for i in range(rounds * RECORDS)])
    app.close()
    spool.databases = {"app": {"url": "sqlite:///app.db"}}
    spool.set(
        write_back={"database": "app", "table": "answers", "where": {"id": "key"}, "set": {"answer": "text"}},
        events=[
            {"types": ["task.completed", "batch.completed"], "command": ["/bin/sh", "-c", "cat >> told; sleep 0.5"]}
        ],
    )
    prepared(spool, "enqueue")
    spool.control.fault("latency", "*", seconds=0.2, times=-1)  # long enough to meet in the middle
    for n in range(rounds):
        keys = range(n * RECORDS, (n + 1) * RECORDS)
        lines = "".join(json.dumps({"id": i, "text": f"record number {i}"}) + "\n" for i in keys)
        (spool.folder / "in.jsonl").write_text(lines)
        at_once(spool, "enqueue", "echo", "in.jsonl")
        for stage in LOCKING:
            at_once(spool, stage)
        assert spool.counts()["completed"] == sum(spool.counts().values()) == (n + 1) * RECORDS
    done = Counter(row["route"] for row in spool.control.log())
    uploads = rounds if spool.protocol == "openai" else 0
    assert (done["upload"], done["create"], done["download"]) == (uploads, rounds, rounds)
    assert spool.control.billing()["requests"] == rounds * RECORDS
    with sqlite3.connect(spool.folder / "app.db") as app:
        assert app.execute("SELECT count(*), count(DISTINCT id) FROM writes").fetchall() == [(rounds * RECORDS,) * 2]
    app.close()
    told = Counter(json.loads(line)["id"] for line in (spool.folder / "told").read_text().splitlines())
    assert (len(told), set(told.values())) == (rounds * (RECORDS + 1), {1})
    spool.check()
