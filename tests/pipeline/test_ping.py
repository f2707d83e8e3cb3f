"""``ping:`` in the configuration: ``nura run`` tells a monitor that it begins and how it ends, whatever the monitor does."""

import http.server
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Self

import pytest

from nura_cli import config as configuration
from nura_cli.errors import ConfigError
from tests.conftest import Spool
from tests.pipeline.forks import Command, Ended

TOKEN = "5d1d86a5-0c60-4b6a-9c69-b7a4ee0b6d1f"


class Monitor:
    """A monitor on loopback; ``got`` are path and body of what came, ``status`` is what it answers."""

    def __init__(self) -> None:
        self.got: list[tuple[str, str]] = []
        self.status = 200
        self.seconds = 0.0
        monitor = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                monitor.got.append((self.path.replace(TOKEN, "T"), body))
                time.sleep(monitor.seconds)
                self.send_response(monitor.status)
                self.send_header("Location", f"{monitor.url}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/{TOKEN}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def paths(self) -> list[str]:
        """What came, by path alone."""
        return [path for path, _ in self.got]


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    """A running monitor."""
    with Monitor() as running:
        yield running


def options(spool: Spool, **more: Any) -> None:
    """Give the configuration options at its top."""
    spool.path.write_text(json.dumps(json.loads(spool.path.read_text()) | more))


def ran(spool: Spool, *arguments: str) -> Ended:
    """Run ``nura run``; return how it ended."""
    return Command(spool.folder, spool.clock(), "run", *arguments).end()


def test_a_run_is_told_at_its_beginning_and_at_its_end(openai_spool: Spool, monitor: Monitor) -> None:
    options(openai_spool, ping=monitor.url)
    openai_spool.fill(3)
    assert ran(openai_spool) == Ended(0, "")
    assert monitor.got == [
        ("/T/start", ""),
        (
            "/T/0",
            "poll: 0 batches checked, 0 downloaded; reconcile: nothing to account for; dispatch: 3 requests sent in 1 batch",
        ),
    ]
    for stage in ("dispatch", "poll", "reconcile", "status"):
        Command(openai_spool.folder, openai_spool.clock(), stage).end()
    assert len(monitor.got) == 2


def test_the_end_has_the_exit_code_and_no_word_of_records_or_providers(openai_spool: Spool, monitor: Monitor) -> None:
    options(openai_spool, ping=f"{monitor.url}?rid=7")
    openai_spool.control.settings(delay=0)
    openai_spool.enqueue({"id": "secret-key", "text": "secret words"})
    openai_spool.control.fault("status", route="create", status=403, code="secret_code", message="secret message")
    ended = ran(openai_spool)
    start, (path, body) = monitor.got
    assert start == ("/T/start?rid=7", "")
    assert path == f"/T/{ended.code}?rid=7"
    assert ended.code != 0
    assert "secret" not in body
    assert "problems: 1 " in body


def test_what_needs_a_person_is_told_by_kind(openai_spool: Spool, monitor: Monitor) -> None:
    options(openai_spool, ping=monitor.url)
    openai_spool.set(prompt="{{ text.nothing.at_all }}")
    options(openai_spool, ping=monitor.url)
    openai_spool.fill(2)
    assert ran(openai_spool).code == 3
    path, body = monitor.got[-1]
    assert path == "/T/3"
    assert body.endswith("; problems: 1 input; needs you: 1 tasks_failed")


def test_a_run_that_does_not_get_far_is_told_too(openai_spool: Spool, monitor: Monitor) -> None:
    options(openai_spool, ping=monitor.url)
    openai_spool.state_path.write_text("no database")
    ended = ran(openai_spool)
    assert ended.code == 78
    assert monitor.got == [("/T/start", ""), ("/T/78", "state_corrupt")]


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_monitor_that_refuses_changes_no_exit_code_and_is_named_now_and_then(
    openai_spool: Spool, monitor: Monitor, status: int
) -> None:
    options(openai_spool, ping=monitor.url)
    monitor.status = status
    ended = ran(openai_spool)
    assert ended.code == 0
    assert ended.out.startswith(f"nura run: the monitor was not told of this run: it was answered with status {status}")
    assert ended.out.count("\n") == 1
    assert TOKEN not in ended.out
    assert monitor.paths == ["/T/start", "/T/0"]
    assert ran(openai_spool) == Ended(0, "")
    openai_spool.clock.advance(7 * 3600)
    assert "was not told" in ran(openai_spool).out
    monitor.status = 200
    assert ran(openai_spool) == Ended(0, "")
    monitor.status = status
    assert "was not told" in ran(openai_spool).out


def test_a_monitor_that_is_not_there_is_named(openai_spool: Spool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    options(openai_spool, ping=f"http://127.0.0.1:{port}/{TOKEN}")
    ended = ran(openai_spool)
    assert ended.code == 0
    assert "it was not reached: Connection refused" in ended.out
    assert TOKEN not in ended.out


@pytest.mark.long
def test_a_monitor_that_does_not_answer_is_waited_for_five_seconds(openai_spool: Spool, monitor: Monitor) -> None:
    options(openai_spool, ping=monitor.url)
    monitor.seconds = 60
    before = time.monotonic()
    ended = ran(openai_spool)
    assert ended.code == 0
    assert 10 <= time.monotonic() - before < 30
    assert "there was no answer within 5 seconds" in ended.out


def test_its_address_may_stand_elsewhere(openai_spool: Spool, monitor: Monitor) -> None:
    (openai_spool.folder / "ping").write_text(monitor.url + "\n")
    options(openai_spool, ping={"url_file": "ping"})
    assert ran(openai_spool).code == 0
    options(openai_spool, ping={"url_env": "NURA_TEST_PING"})
    os.environ["NURA_TEST_PING"] = monitor.url
    try:
        assert configuration.load(openai_spool.path).ping.secret() == monitor.url  # type: ignore[union-attr]
    finally:
        del os.environ["NURA_TEST_PING"]
    ended = ran(openai_spool)
    assert ended.code == 0
    assert "url_env: the environment variable NURA_TEST_PING is not set, or empty" in ended.out
    assert monitor.paths == ["/T/start", "/T/0"]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("no address", "must be an http:// or https:// address"),
        ("https://user:word@host/x", "must be an http:// or https:// address"),
        ({}, "give one of url, url_env, url_file"),
        ({"url": "http://a", "url_env": "B"}, "give one of url, url_env, url_file"),
        ({"url_file": "f", "retries": 3}, "unknown option"),
        (["http://a"], "must be"),
    ],
)
def test_a_wrong_one_is_a_mistake_of_the_configuration(openai_spool: Spool, given: Any, why: str) -> None:
    options(openai_spool, ping=given)
    with pytest.raises(ConfigError, match=why):
        configuration.load(openai_spool.path)
