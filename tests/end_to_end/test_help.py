"""Help, and what a shell completes: the installed command."""

import json
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from nura_cli import reference
from tests.conftest import cron_environment
from tests.end_to_end.test_command_line import NURA, nura

TIMED = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ nura \w+: ")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a configuration on the embedded sandbox."""
    workload = {"provider": "box", "model": "gpt-4.1-mini", "prompt": "Repeat: {{ text }}"}
    config = {
        "providers": {"box": {"kind": "sandbox"}, "spare": {"kind": "sandbox"}},
        "workloads": {"classify": workload, "clean": workload, "echo": workload},
    }
    (tmp_path / "nura.yaml").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize("topic", ["fields", "upgrade", "schema"])
def test_a_topic_is_printed_as_it_ships(tmp_path: Path, topic: str) -> None:
    done = nura("help", topic, cwd=tmp_path)
    page = reference.FOLDER / {"schema": "config.schema.json"}.get(topic, f"{topic}.md")
    assert (done.returncode, done.stdout) == (0, page.read_bytes())
    assert json.loads(nura("help", topic, "--json", cwd=tmp_path).stdout)["text"] == page.read_text()


def test_help_alone_lists_topics_and_commands(tmp_path: Path) -> None:
    text = nura("help", cwd=tmp_path).stdout.decode()
    assert re.search(r"(?m)^  exit-codes +Exit codes", text)
    assert re.search(r"(?m)^  dispatch +Pack what waits", text)
    listed = json.loads(nura("help", "--json", cwd=tmp_path).stdout)
    assert {"fields", "upgrade"} <= listed["topics"].keys()
    assert {"enqueue", "help"} <= listed["commands"].keys()


@pytest.mark.parametrize("command", ["dispatch", "help"])
def test_help_of_a_command_is_its_own(tmp_path: Path, command: str) -> None:
    asked = nura("help", command, cwd=tmp_path).stdout
    assert asked == nura(command, "--help", cwd=tmp_path).stdout
    assert b"Exit codes:" in asked


def test_help_about_nothing_names_what_is_near(tmp_path: Path) -> None:
    done = nura("help", "field", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == b"nura help: there is no help about field (did you mean fields?)\n"
    assert b"nura help lists what there is" in nura("help", "xyzzy", cwd=tmp_path).stderr


def on_a_terminal(folder: Path, *arguments: str, **environment: str) -> str:
    """Return what a command prints on a terminal of 80 columns."""
    ours, its = pty.openpty()
    env = {**cron_environment(folder), "COLUMNS": "80", "TERM": "xterm", **environment}
    with subprocess.Popen([NURA, *arguments], cwd=folder, env=env, stdout=its, stdin=its) as child:
        os.close(its)
        found = b""
        while True:
            try:
                chunk = os.read(ours, 1 << 16)
            except OSError:  # nobody is at its other end any more
                break
            found += chunk
        assert child.wait(60) == 0
    os.close(ours)
    return found.decode().replace("\r\n", "\n")


def test_on_a_terminal_a_page_is_set_for_reading(tmp_path: Path) -> None:
    text = on_a_terminal(tmp_path, "help", "exit-codes", NO_COLOR="1")
    assert "\n # " not in text
    assert "\x1b[3" not in text
    assert max(len(re.sub(r"\x1b\[[\d;]*m", "", line)) for line in text.splitlines()) <= 80
    assert "\x1b[1m" in on_a_terminal(tmp_path, "dispatch", "--help")
    assert "\x1b" not in on_a_terminal(tmp_path, "dispatch", "--help", NO_COLOR="1")


def test_a_reader_that_has_had_enough_is_no_trouble(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{NURA} help json | head -1"],
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        check=False,
        env=cron_environment(tmp_path),
    )
    assert (done.stdout, done.stderr) == (b"# What each command prints with `--json`\n", b"")


# --- what a shell completes


def completed(folder: Path, line: str, shell: str = "bash") -> list[str]:
    """Return what a shell is told that could stand at the end of a line."""
    asked = {"bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}}
    others = {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = nura(cwd=folder, given=b"", _NURA_COMPLETE=f"complete_{shell}", **asked.get(shell, others))
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode().split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("nura enqueue cl", ["classify", "clean"]),
        ("nura status ", ["classify", "clean", "echo"]),
        ("nura run e", ["echo"]),
        ("nura -c nura.yaml retry ec", ["echo"]),
        ("nura hold --provider s", ["spare"]),
        ("nura reso", ["resolve"]),
        ("nura dispatch --n", ["--now"]),
        ("nura help ex", ["exit-codes"]),
    ],
)
def test_a_shell_completes_names(folder: Path, line: str, expected: list[str]) -> None:
    assert completed(folder, line) == expected


def test_another_shell_does_as_well(folder: Path) -> None:
    assert completed(folder, "nura enqueue cl", "fish") == ["classify", "clean"]


def test_a_shell_completes_batches_and_leaves_no_trace(folder: Path) -> None:
    for text in ("x", "y"):
        nura("enqueue", "echo", cwd=folder, given=b'{"id": "%s", "text": "x"}\n' % text.encode())
        nura("dispatch", cwd=folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    for line in ("nura show --batch ", "nura resolve ", "nura log --batch "):
        assert completed(folder, line) == ["2", "1"]
    assert completed(folder, "nura cancel --batch 2") == ["2"]
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("line", ["nura enqueue ", "nura show --batch ", "nura hold --provider "])
def test_nothing_is_said_where_nothing_can_be_read(folder: Path, line: str) -> None:
    state, config = folder / "nura.db", folder / "nura.yaml"
    state.write_text("no database")
    assert isinstance(completed(folder, line), list)
    for broken in ("{", "[]", "providers: 3\nworkloads: [x]\nstate: []\n"):
        config.write_text(broken)
        assert completed(folder, line) == []
    config.unlink()
    assert completed(folder, line) == []


def test_completion_loads_nothing_heavy(folder: Path) -> None:
    env = {
        **cron_environment(folder),
        "_NURA_COMPLETE": "complete_bash",
        "COMP_WORDS": "nura retry e",
        "COMP_CWORD": "2",
    }
    code = (
        "import atexit, sys; atexit.register(lambda: print(sorted({'openai', 'anthropic', 'sqlalchemy', 'sqlite_utils',"
        " 'genai_prices', 'jinja2'} & {*sys.modules}), file=sys.stderr)); sys.argv = ['nura'];"
        "from nura_cli.cli import main; main()"
    )
    python = NURA.with_name("python")
    done = subprocess.run(
        [python, "-c", code], cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.split(), done.stderr.strip()) == (["echo"], "[]")


# --- times


def test_off_a_terminal_what_v_adds_has_times_and_errors_alone_have_none(folder: Path) -> None:
    given = b'{"id": 1, "text": "x"}\nnonsense\n'
    said = nura("enqueue", "echo", "-v", cwd=folder, given=given).stderr
    assert said.count(b"\n") == 2
    assert all(TIMED.match(line) for line in said.splitlines())
    alone = nura("enqueue", "echo", cwd=folder, given=given).stderr
    assert alone.startswith(b"nura enqueue: line 2: ")
