"""What nura may never write to or follow: its own input, links, and files that would belong to somebody else."""

import json
import os
import pwd
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nura_cli.errors import NuraError
from nura_cli.state import State, locks
from tests.conftest import cron_environment
from tests.pipeline.forks import completed

pytestmark = pytest.mark.long

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
    (path / "told").chmod(0o755)
    (path / "handler.py").write_text("pass\n")
    (path / "in.jsonl").write_bytes(GOOD + BAD)
    return path


def run(folder: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run nura in a folder; with streams that are given, from its file, and with pipes for the others."""
    if options:
        return subprocess.run(
            [str(NURA), *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False, **options
        )
    done = completed(*arguments, cwd=folder, environment=cron_environment(folder))
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def reach_the_provider(folder: Path) -> None:
    """Leave the database out of the configuration: dispatch looks at the table first, and this one is none."""
    lines = CONFIG.splitlines(keepends=True)
    left = [line for line in lines if not line.lstrip().startswith(("databases", "app:", "write_back"))]
    (folder / "nura.yaml").write_text("".join(left))


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
    done = run(folder, "enqueue", "w", "--rejects", "/dev/stdout", "in.jsonl", input="")
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
        process.stdin.write(BAD * 20_000)
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
    assert "through no link" in done.stderr
    assert [(treasure / "kept").read_text(), (treasure / "requests" / "kept").read_text()] == ["kept", "kept"]
    planted.unlink()
    assert "link" not in run(folder, "dispatch").stderr


@pytest.mark.parametrize("suffix", ["-wal", "-shm", ".box.sandbox", ".box.sandbox.d", ".poll.lock", ".migrate.lock"])
@pytest.mark.parametrize("link", ["symbolic", "dangling", "hard"])
def test_no_link_takes_the_place_of_a_file_of_nuras_own(folder: Path, suffix: str, link: str) -> None:
    reach_the_provider(folder)
    run(folder, "enqueue", "w", "in.jsonl")
    if suffix == ".migrate.lock":
        (folder / "nura.db").unlink()
        (folder / "nura.db.migrate.lock").unlink()
    planted = folder / f"nura.db{suffix}"
    if link == "hard":
        os.link(folder / "prompt.txt", planted)
    else:
        planted.symlink_to("prompt.txt" if link == "symbolic" else "nowhere")
    before = contents(folder)
    done = run(folder, "poll" if "poll" in suffix else "dispatch")
    assert done.returncode == 75
    assert f"{planted}: " in done.stderr
    assert "remove it" in done.stderr
    assert (folder / "prompt.txt").read_bytes() == before["prompt.txt"]
    assert not (folder / "nowhere").exists()


@pytest.mark.parametrize("place", ["nura.db.spool", "nura.db.dispatch.lock", "nura.db.spool/requests/other"])
def test_what_stands_where_nura_keeps_something_of_another_kind_is_named_and_left_alone(
    folder: Path, place: str
) -> None:
    run(folder, "enqueue", "w", "in.jsonl")
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    if place == "nura.db.spool":
        (folder / place).write_text("kept")
    else:
        (folder / place).mkdir()
    done = run(folder, "dispatch")
    assert done.returncode == 75
    assert f"{folder / place}: " in done.stderr
    assert "move it away" in done.stderr
    assert (folder / place).exists()


@pytest.mark.parametrize("kind", ["folder", "pipe", "/dev/null"])
def test_a_state_file_that_is_no_plain_file_is_refused_in_words(folder: Path, kind: str) -> None:
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    done = run(folder, "--state", kind, "enqueue", "w", "in.jsonl")
    assert done.returncode == 75
    assert "is no plain file" in done.stderr


def test_the_sandbox_does_not_advise_to_remove_a_state_file(folder: Path) -> None:
    run(folder, "enqueue", "w", "in.jsonl")
    done = run(folder, "sandbox", "nura.db", "--port", "0")
    assert done.returncode == 2
    assert "is no sandbox's file" in done.stderr
    assert "remove" not in done.stderr


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


def test_root_makes_no_state_file_in_another_users_folder(folder: Path) -> None:
    theirs(folder)
    done = run(folder, "enqueue", "w", "in.jsonl")
    assert done.returncode == 78
    assert "sudo -u 'nobody' nura" in done.stderr
    assert not (folder / "nura.db").exists()


def test_files_that_belong_to_somebody_else_are_named_with_what_to_type(folder: Path) -> None:
    reach_the_provider(folder)
    run(folder, "enqueue", "w", "in.jsonl")
    assert run(folder, "dispatch").returncode == 0
    theirs(folder)
    os.chown(folder / "nura.db.dispatch.lock", 0, 0)
    os.chown(folder / "nura.db.spool" / "requests", 0, 0)
    os.chown(folder / "nura.db.box.sandbox.d" / "open.lock", 0, 0)
    for n in range(20):
        (folder / "nura.db.spool" / "requests" / f"{n}.jsonl").write_text("of root's")
    (folder / "nura.db.bak").write_text("a backup of root's, in nobody's way")
    found = json.loads(run(folder, "--json", "status").stdout)
    (need,) = [need for need in found["attention"] if "belong" in need["message"]]
    assert "23 files beside" in need["message"]
    assert need["hint"].startswith("sudo chown -R 'nobody' ")
    assert "nura.db.dispatch.lock" in need["hint"]
    assert "nura.db.bak" not in need["hint"]
    subprocess.run(need["hint"].removeprefix("sudo "), shell=True, check=True)
    found = json.loads(run(folder, "--json", "status").stdout)
    assert [need for need in found["attention"] if "belong" in need["message"]] == []


def as_nobody(done: Callable[[], None]) -> str:
    """Return what a child says that has become nobody: the error that the call ends with."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(pwd.getpwnam("nobody").pw_uid)
            done()
        except NuraError as error:
            os.write(writer, f"{error.message} ({error.hint})".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as said:
        text = said.read().decode()
    os.waitpid(child, 0)
    return text


@pytest.mark.parametrize("name", ["nura.db.dispatch.lock", "nura.db-wal", "nura.db"])
def test_the_owner_who_may_not_write_a_file_is_told_whose_it_is_and_what_to_type(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "nura.db"
        State(path).close()
        theirs(Path(folder))
        (Path(folder) / name).touch(0o600)
        os.chown(Path(folder) / name, 0, 0)

        def work() -> None:
            with State(path) as state, locks.lock(state.lock_path("dispatch"), 0), state.transaction():
                pass

        said = as_nobody(work)
        assert name in said
        assert re.search(rf"sudo chown '?nobody'? [^ ]*{re.escape(name)}", said)
        assert ("sudo -u 'root' nura" in said) == (name == "nura.db")
