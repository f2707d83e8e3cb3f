"""The commands as processes: output, exit codes, silence, JSON."""

import fcntl
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import termios
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nura_cli.sandbox import Sandbox
from tests.conftest import OPENAI_FIRST, Spool, cron_environment
from tests.pipeline.forks import completed

NURA = Path(sys.executable).with_name("nura")


def nura(*arguments: str, cwd: Path, given: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run nura as cron would: a bare environment, no terminal."""
    return completed(*arguments, cwd=cwd, given=given, environment=cron_environment(cwd) | environment)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a configuration on the embedded sandbox."""
    config = {
        "providers": {"box": {"kind": "sandbox"}},
        "workloads": {"echo": {"provider": "box", "model": "gpt-4.1-mini", "prompt": "Repeat: {{ text }}"}},
    }
    (tmp_path / "nura.yaml").write_text(json.dumps(config))
    return tmp_path


def test_the_stages_are_silent_on_success_and_find_each_others_work(folder: Path) -> None:
    lines = b"".join(b'{"id": %d, "text": "record %d"}\n' % (n, n) for n in range(20))
    for arguments, given in ((["enqueue", "echo"], lines), (["dispatch"], b""), (["poll"], b""), (["reconcile"], b"")):
        done = nura(*arguments, cwd=folder, given=given)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), arguments
    answers = [json.loads(line) for line in nura("results", "echo", cwd=folder).stdout.splitlines()]
    assert sorted(answer["key"] for answer in answers) == list(range(20))
    table = nura("status", cwd=folder).stdout.decode()
    assert "echo" in table
    assert "20" in table


def test_common_options_stand_before_or_after_the_command(folder: Path) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    config = str(folder / "nura.yaml")
    for arguments in (["-c", config, "--json", "status"], ["status", "--json", "--config", config]):
        done = nura(*arguments, cwd=elsewhere)
        assert json.loads(done.stdout)["command"] == "status"
    assert (folder / "nura.db").exists()
    done = nura("status", "--state", "other.db", "--json", cwd=elsewhere)
    assert done.returncode == 0
    assert (elsewhere / "other.db").exists()


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        (["enqueue", "echo"], {"enqueued", "duplicates", "conflicts", "replaced", "rejected"}),
        (["dispatch"], {"batches", "requests", "not_due", "unconfirmed"}),
        (["poll"], {"checked", "batches"}),
        (["reconcile"], {"tasks", "rows", "events"}),
        (["run"], {"stages"}),
        (["log"], {"entries"}),
        (["status"], {"tasks", "workloads", "batches", "stages", "paused", "deliveries", "usage", "cost"}),
    ],
)
def test_json_is_one_object_with_the_fields_of_the_contract(
    folder: Path, arguments: list[str], fields: set[str]
) -> None:
    done = nura(*arguments, "--json", cwd=folder, given=b'{"id": 1, "text": "x"}\n')
    found = json.loads(done.stdout)
    assert {"command", "exit_code", "skipped", "errors"} | fields <= found.keys()
    assert found["command"] == arguments[0]
    assert found["exit_code"] == done.returncode == 0
    assert found["skipped"] is None


def test_failures_are_plain_lines_and_json_objects(folder: Path) -> None:
    bad = b'{"id": 1, "text": "x"}\nnonsense\n'
    done = nura("enqueue", "echo", "--rejects", "bad.jsonl", cwd=folder, given=bad)
    assert done.returncode == 3
    assert done.stderr.startswith(b"nura enqueue: line 2: not valid JSON")
    assert b"Traceback" not in done.stderr
    assert (folder / "bad.jsonl").read_bytes() == b"nonsense\n"
    done = nura("enqueue", "nosuch", "--json", cwd=folder)
    found = json.loads(done.stdout)
    assert found["exit_code"] == done.returncode == 2
    assert found["errors"][0]["kind"] == "usage"
    assert "echo" in found["errors"][0]["hint"]


def test_a_configuration_with_mistakes_lists_them_all_with_their_lines(folder: Path) -> None:
    (folder / "nura.yaml").write_text(
        "providers:\n  box: {kind: sandbux}\nworkloads:\n  w: {provider: box, modle: x}\n"
    )
    done = nura("dispatch", cwd=folder)
    assert done.returncode == 78
    assert b"nura.yaml:2: providers.box.kind" in done.stderr
    assert b"nura.yaml:4: workloads.w.modle: unknown option; did you mean model?" in done.stderr


def test_without_a_configuration_the_places_are_listed(tmp_path: Path) -> None:
    done = nura("status", cwd=tmp_path)
    assert done.returncode == 78
    for place in (b"nura.yaml", b".config/nura/config.yaml", b"/etc/nura/config.yaml", b"--config"):
        assert place in done.stderr


def test_a_stage_that_is_running_is_left_to_it(folder: Path) -> None:
    from nura_cli import clock
    from nura_cli.state import State, locks

    nura("enqueue", "echo", cwd=folder, given=b'{"id": 1, "text": "x"}\n')
    with State(folder / "nura.db") as state:
        with locks.lock(state.lock_path("dispatch"), clock.now()):
            done = nura("dispatch", "--json", cwd=folder)
            assert json.loads(done.stdout)["skipped"] == "locked"
            assert (done.returncode, done.stderr) == (0, b"")
        with locks.lock(state.lock_path("dispatch"), clock.now() - 7 * 3600):
            done = nura("dispatch", cwd=folder)
            assert done.returncode == 75
            assert b"already running" in done.stderr
            assert nura("dispatch", cwd=folder).stderr == b""  # said once, not by every run
    assert nura("dispatch", "--json", cwd=folder).returncode == 0


def test_a_refused_key_ends_with_77_and_is_never_shown(openai_spool: Spool) -> None:
    openai_spool.control.settings(accept_keys=["another"])
    openai_spool.fill(1)
    done = nura("dispatch", cwd=openai_spool.folder)
    assert done.returncode == 77
    assert b"sk-test-1" not in done.stdout + done.stderr
    assert b"check the key" in done.stderr
    for path in openai_spool.folder.glob("nura.db*"):
        assert path.is_dir() or b"sk-test-1" not in path.read_bytes()


def test_a_provider_that_is_down_is_one_line_at_the_onset_and_recovers(spool: Spool, server: Sandbox) -> None:
    base = server.url
    spool.providers["main"] = spool.provider(base_url=base.replace(base.rsplit(":", 1)[1], "9") + "/v1")
    spool.write_config()
    spool.fill(2)
    first = nura("dispatch", cwd=spool.folder)
    assert first.returncode == 75
    assert first.stderr.count(b"\n") == 1
    second = nura("dispatch", cwd=spool.folder)
    assert (second.returncode, second.stderr) == (75, b"")
    again = nura("dispatch", "--now", cwd=spool.folder)
    assert (again.returncode, again.stderr) == (75, b"")
    spool.providers["main"] = spool.provider()
    spool.write_config()
    done = nura("dispatch", "--now", cwd=spool.folder)
    assert (done.returncode, done.stderr) == (0, b"")
    assert spool.counts()["submitted"] == 2


def test_a_script_that_wants_its_answers_needs_one_line(folder: Path) -> None:
    def real(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        environment = cron_environment(folder)
        return subprocess.run(
            [NURA, *arguments], cwd=folder, env=environment, input=given, capture_output=True, timeout=120, check=False
        )

    real("enqueue", "echo", given=b'{"id": 1, "text": "x"}\n')
    done = real("run", "--wait", "1m", "echo")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert json.loads(real("results", "echo").stdout)["status"] == "completed"
    said = real("log").stdout
    assert b"dispatch: exit code 0" in said
    assert b"echo: 1 task of batch 1: submitted -> completed: its result came" in said


@pytest.mark.parametrize("spool", OPENAI_FIRST, indirect=True)
def test_told_to_stop_it_leaves_with_143_and_loses_nothing(spool: Spool) -> None:
    spool.fill(3)
    spool.control.fault("hold", "create", seconds=200)
    process = subprocess.Popen(
        [NURA, "dispatch"], cwd=spool.folder, env=cron_environment(spool.folder), stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 150  # a busy machine starts slowly
    while not any(entry["route"] == "create" for entry in spool.control.log()):
        assert time.monotonic() < deadline, "no create came"
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    spool.control.release()
    assert process.returncode == 143
    assert b"Traceback" not in stderr
    assert spool.counts()["submitted"] == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_told_to_stop_enqueue_stores_what_a_pipe_gave_whole(folder: Path, number: int, code: int) -> None:
    with subprocess.Popen(
        [NURA, "enqueue", "echo"],
        cwd=folder,
        env=cron_environment(folder),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(b'{"id": 1, "text": "x"}\n{"id": 2, "text": "y"}\n{"id": 3')
        process.stdin.flush()
        deadline = time.monotonic() + 150
        while any(fcntl.ioctl(process.stdin, termios.FIONREAD, bytes(4))):
            assert time.monotonic() < deadline, "nothing was read"
            time.sleep(0.02)
        time.sleep(0.1)
        process.send_signal(number)
        assert process.wait(30) == code
        assert process.stderr is not None
        assert process.stderr.read() == b""
    with closing(sqlite3.connect(folder / "nura.db")) as state:
        assert state.execute("SELECT count(*) FROM tasks WHERE status = 'pending'").fetchone() == (2,)


def test_results_can_be_read_on_from_where_a_reader_stopped(folder: Path) -> None:
    nura("enqueue", "echo", cwd=folder, given=b'{"id": 1, "text": "x"}\n{"id": 2, "text": "y"}\n')
    for stage in ("dispatch", "poll", "reconcile"):
        nura(stage, cwd=folder)

    def read(*options: str) -> list[Any]:
        return [json.loads(line) for line in nura("results", *options, cwd=folder).stdout.splitlines()]

    both = read()
    assert [answer["seq"] for answer in both] == [1, 2]
    assert [answer["seq"] for answer in read("--after", "1")] == [2]
    assert [answer["key"] for answer in read("echo", "--key", "2")] == [2]
    assert read("--status", "failed") == []
    assert len(read("--since", "1h")) == 2
    assert read("--since", "2099-01-01") == []
    assert nura("results", "--since", "soon", cwd=folder).returncode == 2


def test_a_reader_that_has_had_enough_is_no_error(folder: Path) -> None:
    lines = b"".join(b'{"id": %d, "text": "%s"}\n' % (n, b"x" * 500) for n in range(400))
    nura("enqueue", "echo", cwd=folder, given=lines)
    for stage in ("dispatch", "poll", "reconcile"):
        nura(stage, cwd=folder)
    done = subprocess.run(
        f"{NURA} results | head -n 1", shell=True, cwd=folder, capture_output=True, timeout=60, check=False
    )
    assert done.stderr == b""
    assert len(done.stdout.splitlines()) == 1


def test_a_preview_prints_requests_and_stores_nothing(folder: Path) -> None:
    given = b'{"id": 1, "text": "first"}\n{"id": 2}\n{"id": 3, "text": "third"}\n'
    done = nura("enqueue", "echo", "-n", "--limit", "2", cwd=folder, given=given)
    assert done.returncode == 3
    (request,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert request["body"]["messages"][0]["content"] == "Repeat: first"
    assert b"line 2" in done.stderr
    assert not (folder / "nura.db").exists()


def test_a_dry_run_of_dispatch_says_what_goes_and_what_waits_and_makes_no_file(folder: Path) -> None:
    done = nura("dispatch", "-n", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert [path.name for path in folder.iterdir()] == ["nura.yaml"]
    assert nura("dispatch", "-n", "nowhere", cwd=folder).returncode == 2
    config = json.loads((folder / "nura.yaml").read_text())
    config["workloads"]["later"] = {**config["workloads"]["echo"], "dispatch": {"min_requests": 5}}
    (folder / "nura.yaml").write_text(json.dumps(config))
    for workload in ("echo", "later"):
        nura("enqueue", workload, cwd=folder, given=b'{"id": 1, "text": "first"}\n{"id": 2, "text": "second"}\n')
    names = sorted(path.name for path in folder.iterdir())
    goes, waits = nura("dispatch", "-n", cwd=folder).stdout.decode().splitlines()
    assert re.fullmatch(
        r"echo: 2 requests, 3\d\d bytes, about \d\d tokens, for its input about \$[\d.]+, to box \(gpt-4\.1-mini\)",
        goes,
    )
    assert re.fullmatch(r"later: 2 wait until \S+Z \(threshold: 2 of the 5 that are sent together are there\)", waits)
    assert len(nura("dispatch", "-n", "--now", cwd=folder).stdout.splitlines()) == 2
    found = json.loads(nura("dispatch", "-n", "--json", cwd=folder).stdout)
    assert (found["requests"], found["not_due"]["threshold"], found["waits"][0]["workload"]) == (2, 2, "later")
    assert sorted(path.name for path in folder.iterdir()) == names


def test_the_demo_runs_the_whole_pipeline(tmp_path: Path) -> None:
    done = nura("demo", cwd=tmp_path)
    assert done.returncode == 0
    shown = done.stdout.decode()
    for stage in ("enqueue", "dispatch", "poll", "reconcile", "results", "status", "nura init", "nura check"):
        assert stage in shown
    assert "36 tasks completed" in shown
    assert list(tmp_path.iterdir()) == []


def test_enqueue_and_status_load_neither_sdks_nor_what_they_do_not_need(folder: Path) -> None:
    nura("enqueue", "echo", cwd=folder, given=b'{"id": 1, "text": "x"}\n')
    others = ["openai", "anthropic", "sqlite_utils", "genai_prices"]
    looks = [*others, "rich.table", "jinja2", "msgspec", "pydantic", "nura_cli.contract"]
    for arguments, banned in (
        (["enqueue", "echo"], others),
        (["log"], looks),
        (["help", "fields"], [*others, "rich", "jinja2", "sqlalchemy"]),
        (["cost"], [*looks, "sqlalchemy"]),
        (["status", "--json"], [*looks, "html"]),
    ):
        code = (
            "import sys; sys.argv = ['nura', *sys.argv[1:]]\nfrom nura_cli.cli import main\n"
            f"try: main()\nfinally: print([name for name in {banned!r} if name in sys.modules], file=sys.stderr)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], input=b'{"id": 2, "text": "x"}\n',
            capture_output=True, cwd=folder, env={**os.environ}, timeout=60, check=False,
        )  # fmt: skip
        assert done.stderr.strip() == b"[]", arguments


def test_it_is_a_program_of_pythons_too(folder: Path) -> None:
    command = [sys.executable, "-m", "nura_cli", "status", "--json"]
    done = subprocess.run(command, capture_output=True, cwd=folder, timeout=60, check=True)
    assert json.loads(done.stdout)["command"] == "status"


def test_the_sandbox_serves_any_client(tmp_path: Path) -> None:
    import openai

    command = [
        str(NURA),
        "sandbox",
        "box.db",
        "--port",
        "0",
        "--json",
        "--fault",
        '{"what": "status", "route": "files"}',
    ]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["openai_base_url"]
        with openai.OpenAI(api_key="x", base_url=url, max_retries=0) as client:
            with pytest.raises(openai.InternalServerError):
                client.files.list()
            assert client.files.list().data == []
    finally:
        process.terminate()
        process.wait(timeout=20)
        if process.stdout:
            process.stdout.close()
    assert process.returncode == 143


def test_figures_are_said_with_their_nouns(folder: Path) -> None:
    line = b'{"id": 1, "text": "record 1"}\n'
    said = nura("enqueue", "echo", "-v", cwd=folder, given=line).stderr
    assert re.fullmatch(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ nura enqueue: 1 enqueued\n", said)
    again = nura("enqueue", "echo", "-v", cwd=folder, given=line).stderr
    assert again.endswith(b"Z nura enqueue: 0 enqueued, 1 duplicate\n")
