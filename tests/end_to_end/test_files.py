"""What nura may never write to or follow: its own input, links, and files that would belong to somebody else."""

import json
import os
import pwd
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

NURA = Path(sys.executable).with_name("nura")
CONFIG = """\
state: nura.db
providers:
  box: {kind: sandbox}
  far: {kind: openai, api_key_file: far.key, base_url: "http://127.0.0.1:9/v1"}
databases:
  app: {url: "sqlite:///app.db"}
workloads:
  w:
    provider: box
    model: gpt-4.1-mini
    prompt_file: prompt.txt
    write_back: {database: app, table: t, where: {id: key}, set: {answer: text}}
    events: [{types: [task.completed], command: [./told, handler.py]}]
"""
GOOD = b'{"id": 1, "text": "good"}\n'
BAD = b'{"id": 2, "titel": "bad"}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a configuration, and everything that it names."""
    path = tmp_path / "work"
    path.mkdir()
    (path / "nura.yaml").write_text(CONFIG)
    (path / "prompt.txt").write_text("Say: {{ text }}")
    (path / "far.key").write_text("sk-far\n")
    (path / "app.db").write_bytes(b"a database")
    (path / "app.db-wal").write_bytes(b"its log")
    (path / "told").write_text("#!/bin/sh\n")
    (path / "handler.py").write_text("pass\n")
    (path / "in.jsonl").write_bytes(GOOD + BAD)
    return path


def run(folder: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run nura in a folder."""
    return subprocess.run(
        [str(NURA), *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False, **options
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Return what stands in the files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# --- --rejects


@pytest.mark.parametrize(
    "name",
    [
        "in.jsonl",
        "./in.jsonl",
        "link",
        "twin",
        "nura.yaml",
        "prompt.txt",
        "far.key",
        "app.db",
        "app.db-wal",
        "app.db-journal",
        "told",
        "handler.py",
    ],
)
def test_rejects_never_go_into_what_is_read(folder: Path, name: str) -> None:
    (folder / "link").symlink_to("in.jsonl")
    os.link(folder / "in.jsonl", folder / "twin")
    before = contents(folder)
    done = run(folder, "enqueue", "w", "--rejects", name, "in.jsonl")
    assert done.returncode == 2
    assert "--rejects" in done.stderr
    assert "Traceback" not in done.stderr
    after = contents(folder)
    assert {file: after[file] for file in before} == before
    assert not (folder / "app.db-journal").exists()


@pytest.mark.parametrize(
    "name",
    ["nura.db", "nura.db-wal", "nura.db.dispatch.lock", "nura.db.spool/requests/x", "nura.db.box.sandbox.d/x"],
)
def test_rejects_never_go_into_what_belongs_to_the_state_file(folder: Path, name: str) -> None:
    run(folder, "enqueue", "w", "in.jsonl")
    state = (folder / "nura.db").read_bytes()
    done = run(folder, "enqueue", "w", "--rejects", name, "in.jsonl")
    assert done.returncode == 2
    assert "belongs to the state file" in done.stderr
    assert (folder / "nura.db").read_bytes() == state


def test_rejects_never_go_into_standard_input(folder: Path) -> None:
    with (folder / "in.jsonl").open("rb") as file:
        done = run(folder, "enqueue", "w", "--rejects", "in.jsonl", stdin=file)
    assert done.returncode == 2
    assert "is standard input" in done.stderr
    assert (folder / "in.jsonl").read_bytes() == GOOD + BAD


def test_rejects_never_go_into_a_pipe_that_is_read(folder: Path) -> None:
    done = run(folder, "enqueue", "w", "--rejects", "/dev/stdin", input=BAD.decode())
    assert done.returncode == 2
    assert "is standard input" in done.stderr


def test_rejects_never_go_into_the_configured_state_file_while_another_is_in_use(folder: Path) -> None:
    run(folder, "enqueue", "w", "in.jsonl")
    state = (folder / "nura.db").read_bytes()
    done = run(folder, "--state", "other.db", "enqueue", "w", "--rejects", "nura.db", "in.jsonl")
    assert done.returncode == 2
    assert "is a database" in done.stderr
    assert (folder / "nura.db").read_bytes() == state


def test_rejects_take_their_name_whole_and_replace_those_of_the_run_before(folder: Path) -> None:
    (folder / "bad.jsonl").write_text("of the run before\n")
    assert run(folder, "enqueue", "w", "--rejects", "bad.jsonl", "in.jsonl").returncode == 3
    assert (folder / "bad.jsonl").read_bytes() == BAD
    assert (folder / "bad.jsonl").stat().st_mode & 0o777 == 0o600
    assert not list(folder.glob("*.part"))
    (folder / "in.jsonl").write_bytes(GOOD)
    assert run(folder, "enqueue", "w", "--rejects", "bad.jsonl", "in.jsonl").returncode == 0
    assert (folder / "bad.jsonl").read_bytes() == BAD  # nothing was refused, and nothing is written


def test_rejects_may_go_to_a_device_or_a_pipe(folder: Path) -> None:
    assert run(folder, "enqueue", "w", "--rejects", "/dev/null", "in.jsonl").returncode == 3
    done = run(folder, "enqueue", "w", "--rejects", "/dev/stdout", "in.jsonl")
    assert (done.returncode, done.stdout.encode()) == (3, BAD)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "cron.log"])
def test_rejects_go_into_a_log_that_the_shell_appends_to_and_what_stands_there_stays(folder: Path, name: str) -> None:
    (folder / "cron.log").write_text("of yesterday\n")
    with (folder / "cron.log").open("ab") as log:
        done = subprocess.run(
            [NURA, "enqueue", "w", "--rejects", name, "in.jsonl"],
            cwd=folder,
            stdout=log,
            stderr=subprocess.PIPE,
            timeout=60,
        )
        log.write(b"of the next command\n")
    assert done.returncode == 3
    assert (folder / "cron.log").read_bytes() == b"of yesterday\n" + BAD + b"of the next command\n"


def test_rejects_may_go_to_a_named_pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with subprocess.Popen(["/bin/cat", "pipe"], cwd=folder, stdout=subprocess.PIPE) as reader:
        assert run(folder, "enqueue", "w", "--rejects", "pipe", "in.jsonl").returncode == 3
        assert reader.communicate(timeout=10)[0] == BAD


def test_what_stands_beside_the_rejects_is_left_alone(folder: Path) -> None:
    (folder / "bad.jsonl.part").write_text("somebody's own\n")
    os.link(folder / "prompt.txt", folder / "other.part")
    before = contents(folder)
    for name in ("bad.jsonl", "other"):
        assert run(folder, "enqueue", "w", "--rejects", name, "in.jsonl").returncode == 3
    after = contents(folder)
    assert {file: after[file] for file in before} == before
    assert (after["bad.jsonl"], after["other"]) == (BAD, BAD)


@pytest.mark.parametrize(
    ("name", "why"), [("folder", "is a folder"), ("no/such", "there is no folder"), ("loop", "Too many levels")]
)
def test_rejects_that_could_not_be_written_stop_it_before_a_line_is_stored(folder: Path, name: str, why: str) -> None:
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to("loop")
    done = run(folder, "enqueue", "w", "--rejects", name, "in.jsonl")
    assert done.returncode == 2
    assert why in done.stderr
    assert not (folder / "nura.db").exists()


def test_a_run_that_is_killed_leaves_the_rejects_of_the_run_before(folder: Path) -> None:
    (folder / "bad.jsonl").write_text("of the run before\n")
    arguments = [str(NURA), "enqueue", "w", "--rejects", "bad.jsonl"]
    with subprocess.Popen(arguments, cwd=folder, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        process.stdin.write(BAD * 100_000)
        process.stdin.flush()
        for _ in range(200):
            if list(folder.glob(".bad.jsonl.*.part")):
                break
            time.sleep(0.05)
        process.kill()
    assert list(folder.glob(".bad.jsonl.*.part"))
    assert (folder / "bad.jsonl").read_text() == "of the run before\n"


# --- one file under two names


def test_a_state_file_under_two_names_has_one_set_of_locks_and_one_spool(folder: Path) -> None:
    real = folder / "releases" / "1"
    real.mkdir(parents=True)
    (folder / "current").symlink_to("releases/1")
    (folder / "linked.db").symlink_to("releases/1/nura.db")
    for n, state in enumerate(["current/nura.db", "linked.db", "releases/1/nura.db"]):
        line = json.dumps({"id": n, "text": "x"})
        assert run(folder, "--state", state, "enqueue", "w", input=line).returncode == 0
        assert run(folder, "--state", state, "dispatch").returncode in (0, 75, 78)
    names = {path.name for path in real.iterdir()}
    assert {"nura.db", "nura.db.dispatch.lock", "nura.db.spool"} <= names
    assert not [path for path in folder.iterdir() if path.name.startswith("linked.db.")]


def test_a_hard_link_to_the_state_file_is_refused_in_words(folder: Path) -> None:
    run(folder, "enqueue", "w", "in.jsonl")
    os.link(folder / "nura.db", folder / "second.db")
    for state in ("nura.db", "second.db"):
        done = run(folder, "--state", state, "status")
        assert done.returncode == 75
        assert "hard link" in done.stderr
    (folder / "second.db").unlink()
    assert run(folder, "status").returncode == 0


@pytest.mark.parametrize("place", ["nura.db.spool", "nura.db.spool/requests", "nura.db.dispatch.lock"])
def test_a_planted_link_is_refused_and_what_it_points_to_is_left_alone(folder: Path, place: str) -> None:
    run(folder, "enqueue", "w", "in.jsonl")
    treasure = folder / "treasure"
    (treasure / "requests").mkdir(parents=True)
    (treasure / "kept").write_text("kept")
    (treasure / "requests" / "kept").write_text("kept")
    planted = folder / place
    planted.parent.mkdir(exist_ok=True)
    planted.symlink_to(treasure / "kept" if place.endswith("lock") else treasure)
    done = run(folder, "dispatch")
    assert done.returncode == 75
    assert f"{planted}: " in done.stderr
    assert "it is a link" in done.stderr
    assert [(treasure / "kept").read_text(), (treasure / "requests" / "kept").read_text()] == ["kept", "kept"]
    planted.unlink()
    assert "link" not in run(folder, "dispatch").stderr


# --- root


def theirs(folder: Path) -> pwd.struct_passwd:
    """Give the folder to another user, as far as this one may; fail where skips are forbidden, else skip."""
    if os.geteuid() != 0:
        if os.environ.get("NURA_NO_SKIPS"):
            pytest.fail("needs root, who may give files to another user")
        pytest.skip("needs root, who may give files to another user: run it with sudo")
    nobody = pwd.getpwnam("nobody")
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    return nobody


def test_root_leaves_nothing_behind_that_stops_the_owners_stages(folder: Path) -> None:
    run(folder, "enqueue", "w", "in.jsonl")
    nobody = theirs(folder)
    for stage in ("dispatch", "poll", "reconcile"):
        done = run(folder, stage)
        assert done.returncode == 78
        assert "sudo -u 'nobody' nura" in done.stderr
    for command in (["enqueue", "w", "in.jsonl"], ["status"], ["results"]):
        run(folder, *command)
    assert {path.lstat().st_uid for path in folder.rglob("*")} == {nobody.pw_uid}


def test_files_that_belong_to_somebody_else_are_named_with_what_to_type(folder: Path) -> None:
    run(folder, "enqueue", "w", "in.jsonl")
    run(folder, "dispatch")
    theirs(folder)
    os.chown(folder / "nura.db.dispatch.lock", 0, 0)
    os.chown(folder / "nura.db.spool" / "requests", 0, 0)
    found = json.loads(run(folder, "--json", "status").stdout)
    (need,) = [need for need in found["attention"] if "belong" in need["message"]]
    assert "2 files beside" in need["message"]
    assert need["hint"].startswith("sudo chown 'nobody' ")
    assert "nura.db.dispatch.lock" in need["hint"]
    subprocess.run(need["hint"].removeprefix("sudo "), shell=True, check=True)
    found = json.loads(run(folder, "--json", "status").stdout)
    assert [need for need in found["attention"] if "belong" in need["message"]] == []
