"""Both kinds of receivers, held to one behaviour; then what only a command, or only a webhook, has."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifier

from nura_cli.delivery.events import Command, Event, Outcome, Webhook, retry_after
from nura_cli.delivery.events import Receiver as Sender
from nura_cli.errors import ConfigError
from tests.receiver import SECRET, Receiver


def event(n: int, text: str = "x") -> Event:
    """Return an event with a number."""
    return Event(f"evt_{n}", json.dumps({"n": n, "text": text}, ensure_ascii=False).encode())


class CommandHarness:
    """A program that keeps what it gets, and does as the file ``mode`` says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script = folder / "told"
        self.script.write_text(
            f"#!/bin/sh\ncd {folder}\ncase $(cat mode) in\nsent) cat >> got;;\nrefused) echo no such key >&2; exit 9;;\n"
            "later) echo come back >&2; exit 75;;\nslow) sleep 60;;\nesac\n"
        )
        self.script.chmod(0o755)
        self.answer("sent")

    def sender(self) -> Sender:
        return Command([str(self.script)], timeout=1)

    def answer(self, mode: str) -> None:
        (self.folder / "mode").write_text(mode)

    def got(self) -> list[bytes]:
        path = self.folder / "got"
        return path.read_bytes().splitlines() if path.exists() else []

    def away(self) -> None:
        self.script.unlink()


class WebhookHarness:
    """A receiver on loopback."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver

    def sender(self) -> Sender:
        return Webhook(self.receiver.url, SECRET, timeout=1)

    def answer(self, mode: str) -> None:
        self.receiver.answers = {"sent": [], "refused": [400] * 100, "later": [503] * 100, "slow": [-5] * 100}[mode]

    def got(self) -> list[bytes]:
        return [post.body for post in self.receiver.got]

    def away(self) -> None:
        self.receiver.stop()


Harness = CommandHarness | WebhookHarness


@pytest.fixture(params=["command", "webhook"])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    if request.param == "command":
        yield CommandHarness(tmp_path)
        return
    with Receiver() as receiver:
        yield WebhookHarness(receiver)


def send(harness: Harness, *events: Event) -> list[Outcome]:
    sender = harness.sender()
    try:
        return sender.send(events)
    finally:
        sender.close()


def test_what_is_sent_arrives_byte_for_byte(harness: Harness) -> None:
    events = [event(1), event(2, "Ünïcode \u2028 \x7f"), event(3, "y" * 100_000)]
    assert [outcome.kind for outcome in send(harness, *events)] == ["sent"] * 3
    assert sorted(harness.got()) == sorted(one.body for one in events)


def test_as_many_as_one_call_takes_arrive_and_calls_follow_one_another(harness: Harness) -> None:
    sender = harness.sender()
    events = [event(n) for n in range(3 * sender.most)]
    for start in range(0, len(events), sender.most):
        assert {outcome.kind for outcome in sender.send(events[start : start + sender.most])} == {"sent"}
    sender.close()
    assert sorted(harness.got()) == sorted(one.body for one in events)


def test_a_refusal_is_told_with_the_receivers_reason(harness: Harness) -> None:
    harness.answer("refused")
    outcomes = send(harness, event(1), event(2))
    assert [outcome.kind for outcome in outcomes] == ["refused", "refused"]
    assert "9: no such key" in outcomes[0].message or "status 400" in outcomes[0].message
    assert harness.got() == []


def test_a_receiver_that_can_take_nothing_now_has_refused_nothing(harness: Harness) -> None:
    harness.answer("later")
    assert {outcome.kind for outcome in send(harness, *map(event, range(20)))} == {"later"}


def test_one_that_does_not_answer_in_time_is_left(harness: Harness) -> None:
    harness.answer("slow")
    began = time.monotonic()
    [outcome] = send(harness, event(1))
    assert outcome.kind == "refused"
    assert "within 1 second" in outcome.message
    assert time.monotonic() - began < 30


def test_one_that_is_not_there_is_told_from_one_that_refuses(harness: Harness) -> None:
    harness.away()
    outcomes = send(harness, event(1), event(2))
    assert {outcome.kind for outcome in outcomes} == {"later"}
    assert outcomes[0].message.startswith("cannot be ")


def test_the_same_event_may_be_sent_again(harness: Harness) -> None:
    send(harness, event(1))
    assert send(harness, event(1))[0].kind == "sent"
    assert harness.got() == [event(1).body] * 2


# --- commands


def script(folder: Path, text: str) -> Command:
    path = folder / "script"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return Command([str(path)], ["NURA_TEST_NAMED", "NURA_TEST_ABSENT"], timeout=2, cwd=folder)


def test_a_command_gets_a_bare_environment_and_what_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NURA_TEST_NAMED", "yes")
    monkeypatch.setenv("NURA_TEST_SECRET", "no")
    command = script(tmp_path, "env > env; pwd > cwd")
    assert command.send([event(1)])[0].kind == "sent"
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert names - {"PWD", "_", "SHLVL", "OLDPWD"} == {"PATH", "HOME", "LC_ALL", "NURA_TEST_NAMED"}
    assert (tmp_path / "cwd").read_text().strip() == str(tmp_path)


def test_no_shell_reads_the_arguments(tmp_path: Path) -> None:
    command = script(tmp_path, 'printf "%s" "$1" > first')
    hostile = Command([str(tmp_path / "script"), "$(touch owned); `id`"], cwd=tmp_path)
    assert hostile.send([event(1)])[0].kind == "sent"
    assert (tmp_path / "first").read_text() == "$(touch owned); `id`"
    assert not (tmp_path / "owned").exists()
    command.close()


@pytest.mark.parametrize("text", ["exit 0", "exec 0<&-; exit 0", "head -c 1 >/dev/null; exit 0"])
def test_a_command_may_ignore_its_input(tmp_path: Path, text: str) -> None:
    events = [event(n, "z" * 100_000) for n in range(20)]
    assert {outcome.kind for outcome in script(tmp_path, text).send(events)} == {"sent"}


def test_of_a_flood_of_errors_the_end_is_kept(tmp_path: Path) -> None:
    text = "head -c 10000000 /dev/zero | tr '\\0' 'e' >&2; printf 'the \\033[31mlast words' >&2; exit 1"
    [outcome] = script(tmp_path, text).send([event(1)])
    assert outcome.kind == "refused"
    assert len(outcome.message) <= 2000
    assert outcome.message.endswith("last words")
    assert "\033" not in outcome.message


def test_a_command_ended_by_a_signal_says_so(tmp_path: Path) -> None:
    assert script(tmp_path, "kill -9 $$").send([event(1)]) == [Outcome("refused", "was ended by signal 9")]


def test_what_a_command_leaves_in_the_background_holds_nothing_up(tmp_path: Path) -> None:
    began = time.monotonic()
    command = script(tmp_path, "sleep 60 & echo $! > child; exit 0")
    assert command.send([event(1)])[0].kind == "sent"
    assert time.monotonic() - began < 30
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


def test_what_many_calls_leave_in_the_background_is_not_held_on_to(tmp_path: Path) -> None:
    command = script(tmp_path, "sleep 60 & echo $! >> children; echo left >&2; exit 1")
    before = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        assert command.send([event(1)]) == [Outcome("refused", "ended with exit code 1: left")]
    assert (threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))) == before
    for child in (tmp_path / "children").read_text().split():
        os.kill(int(child), signal.SIGKILL)


def test_a_flood_from_the_background_holds_nothing_up(tmp_path: Path) -> None:
    command = script(tmp_path, "yes >&2 & echo $! > child; exit 3")
    assert command.send([event(1)])[0].message.startswith("ended with exit code 3")
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 30
    while not ended(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert ended(child)  # nobody reads what it writes


def test_a_command_may_close_its_errors_and_go_on(tmp_path: Path) -> None:
    command = script(tmp_path, "exec 2>&-; sleep 0.3; cat > got; exit 0")
    assert command.send([event(1)])[0].kind == "sent"
    assert (tmp_path / "got").read_bytes() == event(1).body + b"\n"


def test_with_a_command_that_takes_too_long_all_that_it_started_ends(tmp_path: Path) -> None:
    command = script(tmp_path, "trap '' TERM; (trap '' TERM; sleep 60) & echo $! > child; wait; sleep 60")
    assert command.send([event(1)])[0].kind == "refused"
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not ended(child):
        time.sleep(0.02)
    assert ended(child)


def ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


class Told(BaseException):
    """What a signal handler raises."""


def test_when_we_are_told_to_stop_the_command_is_too(tmp_path: Path) -> None:
    def stop(number: int, frame: object) -> None:
        raise Told

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        with pytest.raises(Told):
            Command([str(script(tmp_path, "echo $$ > me; sleep 60")._argv[0])], timeout=50, cwd=tmp_path).send(
                [event(1)]
            )
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert ended(int((tmp_path / "me").read_text()))


@pytest.mark.parametrize("mode", [0o644, 0o755])
def test_a_file_that_is_no_program_is_for_later(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "noise"
    path.write_bytes(b"\x00\x01 no program")
    path.chmod(mode)
    assert Command([str(path)]).send([event(1)])[0].kind == "later"


# --- webhooks


def test_the_signature_is_that_of_the_specification() -> None:
    """The example of the specification's reference libraries."""
    verifier = Verifier("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signer = Webhook("http://127.0.0.1/", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")._signer
    at = datetime.fromtimestamp(1614265330, UTC)
    signature = signer.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", at, '{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert verifier.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", at, '{"test": 2432232314}') == signature


def test_the_id_travels_in_the_header() -> None:
    with Receiver() as receiver:
        sender = Webhook(receiver.url, SECRET)
        sender.send([event(n) for n in range(9)])
        sender.close()
    assert {post.id: post.event["n"] for post in receiver.got} == {f"evt_{n}": n for n in range(9)}


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_no base64!", "pläin", "whsec_abc$"])
def test_a_secret_that_is_none_is_a_matter_of_configuration_and_is_not_shown(secret: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Webhook("https://127.0.0.1/", secret)
    assert secret[6:] == "" or secret[6:] not in str(caught.value)


@pytest.mark.parametrize("secret", [SECRET, SECRET.removeprefix("whsec_"), SECRET + "=="])
def test_a_secret_may_be_written_in_each_usual_form(secret: str) -> None:
    with Receiver() as receiver:
        sender = Webhook(receiver.url, secret)
        assert sender.send([event(1)])[0].kind == "sent"
        sender.close()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    with Receiver() as elsewhere, Receiver({"Location": elsewhere.url}) as receiver:
        receiver.answers = [status]
        sender = Webhook(receiver.url, SECRET)
        [outcome] = sender.send([event(1)])
        sender.close()
    assert outcome == Outcome("refused", f"answered with status {status}, and redirects are not followed")
    assert elsewhere.got == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, "sent"),
        (202, "sent"),
        (204, "sent"),
        (400, "refused"),
        (401, "refused"),
        (410, "refused"),
        (429, "later"),
        (500, "refused"),
        (502, "refused"),
        (503, "later"),
    ],
)
def test_each_status_means_what_it_says(status: int, kind: str) -> None:
    with Receiver({"Retry-After": "120"}) as receiver:
        receiver.answers = [status]
        sender = Webhook(receiver.url, SECRET)
        [outcome] = sender.send([event(1)])
        sender.close()
    assert outcome.kind == kind
    assert outcome.retry_after == (120 if kind == "later" else None)


def test_once_the_receiver_can_take_nothing_the_rest_is_not_sent() -> None:
    with Receiver() as receiver:
        receiver.answers = [204] * 3 + [503] * 100
        sender = Webhook(receiver.url, SECRET)
        outcomes = sender.send([event(n) for n in range(60)])
        sender.close()
    assert sum(outcome.kind == "sent" for outcome in outcomes) == 3
    assert receiver.refused <= 8


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/")
    with Receiver() as receiver:
        sender = Webhook(receiver.url, SECRET)
        assert sender.send([event(1)])[0].kind == "sent"
        sender.close()


class RawServer:
    """Answers each connection with given bytes, again and again, until it is closed."""

    def __init__(self, answer: bytes, *, endless: bool = False) -> None:
        self._answer = answer
        self._endless = endless
        self.sent = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/hook"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                try:
                    connection.sendall(self._answer)
                    while self._endless and self.sent < 50_000_000:
                        connection.sendall(b"x" * 65536)
                        self.sent += 65536
                except OSError:
                    continue

    def close(self) -> None:
        """Be gone when this returns: an accept that outlives its socket takes the connections of whoever gets its number next."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


def answered(answer: bytes, *, endless: bool = False) -> tuple[Outcome, RawServer]:
    server = RawServer(answer, endless=endless)
    sender = Webhook(server.url, SECRET, timeout=2)
    try:
        return sender.send([event(1)])[0], server
    finally:
        sender.close()
        server.close()


@pytest.mark.parametrize("answer", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 999\xff\r\n", b"\x16\x03\x01" * 50])
def test_what_is_no_http_is_no_answer(answer: bytes) -> None:
    outcome, _ = answered(answer)
    assert outcome.kind == "refused"
    assert outcome.message.isprintable()


def test_of_an_endless_answer_only_the_beginning_is_read() -> None:
    outcome, server = answered(b"HTTP/1.1 500 No\r\n\r\n\x1b[31m", endless=True)
    assert outcome.kind == "refused"
    assert len(outcome.message) < 1000
    assert "\x1b" not in outcome.message
    assert server.sent < 40_000_000


@pytest.mark.parametrize(
    ("body", "endless"),
    [(b"Content-Length: 1000000\r\n\r\n", True), (b"\r\n", True), (b"Content-Length: 9\r\n\r\ncut", False)],
    ids=["a megabyte", "endless", "cut short"],
)
def test_what_was_taken_is_taken_whatever_follows_in_the_body(body: bytes, endless: bool) -> None:
    outcome, _ = answered(b"HTTP/1.1 200 OK\r\n" + body, endless=endless)
    assert outcome.kind == "sent"


def test_a_body_that_never_comes_is_not_waited_for_and_the_status_counts() -> None:
    with Held(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n") as server:
        sender = Webhook(server.url, SECRET, timeout=60)
        assert {outcome.kind for outcome in sender.send([event(n) for n in range(8)])} == {"sent"}
        sender.close()


class Held:
    """Answers each connection with given bytes, then says nothing more and does not hang up."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/hook"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        with contextlib.ExitStack() as stack:
            while True:
                try:
                    connection, _ = self._socket.accept()
                except OSError:
                    return
                stack.enter_context(connection)
                connection.recv(65536)
                connection.sendall(self._answer)

    def __enter__(self) -> "Held":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


@pytest.mark.parametrize("host", ["x" * 70 + ".example", "nowhere.invalid", "a..b"])
def test_a_name_that_leads_nowhere_is_for_later(host: str) -> None:
    sender = Webhook(f"http://{host}/", SECRET, timeout=5)
    [outcome] = sender.send([event(1)])
    sender.close()
    assert outcome.kind == "later" or host == "a..b"


def test_an_answer_that_comes_drop_by_drop_is_out_of_time_all_the_same() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def drip() -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            for n in range(100):
                if stop.wait(0.2):
                    return
                connection.sendall(b"X-%d: y\r\n" % n)

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    sender = Webhook(f"http://127.0.0.1:{server.getsockname()[1]}/", SECRET, timeout=1)
    assert sender.send([event(1)]) == [Outcome("refused", "gave no answer within 1 seconds")]
    sender.close()
    stop.set()
    thread.join()
    server.close()


def test_plain_http_where_tls_is_spoken_is_for_later() -> None:
    with Receiver() as receiver:
        sender = Webhook(receiver.url.replace("http:", "https:"), SECRET, timeout=2)
        [outcome] = sender.send([event(1)])
        sender.close()
    assert outcome.kind == "later"
    assert "secret-token" not in outcome.message


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        ("0", 0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 60),
        ("Wed, 21 Oct 2020 07:28:00 GMT", 0),
        ("soon", None),
        ("-5", None),
        ("", None),
        ("9" * 40, 999_999_999),
    ],
)
def test_retry_after_has_two_forms(value: str, seconds: Any) -> None:
    now = datetime(2026, 10, 21, 7, 27, tzinfo=UTC).timestamp()
    assert retry_after({"retry-after": value}, now) == seconds


def left_by_a_killed_run(tmp_path: Path, seconds: float) -> subprocess.Popen[bytes]:
    """Deliver an old version by a command that takes its time, and kill the deliverer; return once the command is at work."""
    program = tmp_path / "keep"
    program.write_text(
        f'#!/bin/sh\nread -r line\ncase $line in *old*) touch begun; sleep {seconds};; esac\necho "$line" >> told\n'
    )
    program.chmod(0o755)
    deliver = (
        "import sys; from pathlib import Path; from nura_cli.delivery.events import Command, Event\n"
        "Command([sys.argv[1]], cwd=Path(sys.argv[2]), call=Path(sys.argv[2], 'call')).send([Event('1', b'old')])"
    )
    killed = subprocess.Popen([sys.executable, "-c", deliver, str(program), str(tmp_path)])
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    return killed


def test_what_a_killed_run_left_running_is_waited_for_and_delivers_nothing_old_after_what_is_newer(
    tmp_path: Path,
) -> None:
    left_by_a_killed_run(tmp_path, 1)
    command = Command([str(tmp_path / "keep")], timeout=30, cwd=tmp_path, call=tmp_path / "call")
    assert command.send([Event("2", b"new")])[0].kind == "sent"
    assert (tmp_path / "told").read_text().split() == ["old", "new"]
    assert not (tmp_path / "call").exists()


def test_a_clock_that_was_set_forward_meanwhile_shortens_no_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_by_a_killed_run(tmp_path, 1)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    command = Command([str(tmp_path / "keep")], timeout=30, cwd=tmp_path, call=tmp_path / "call")
    assert command.send([Event("2", b"new")])[0].kind == "sent"
    assert (tmp_path / "told").read_text().split() == ["old", "new"]


def test_it_is_waited_for_no_longer_than_it_may_take(tmp_path: Path) -> None:
    left_by_a_killed_run(tmp_path, 3)
    command = Command([str(tmp_path / "keep")], timeout=1, cwd=tmp_path, call=tmp_path / "call")
    began = time.monotonic()
    assert command.send([Event("2", b"new")])[0].kind == "sent"
    assert time.monotonic() - began < 2
    began = time.monotonic()
    assert command.send([Event("3", b"newer")])[0].kind == "sent"  # and not once more for the next call
    assert time.monotonic() - began < 0.9
    assert (tmp_path / "told").read_text().split() == ["new", "newer"]


def test_a_call_that_ended_is_not_waited_for_whatever_it_left_in_the_background(tmp_path: Path) -> None:
    program = tmp_path / "told"
    program.write_text("#!/bin/sh\n(sleep 3 >/dev/null 2>&1) &\nexit 0\n")
    program.chmod(0o755)
    command = Command([str(program)], cwd=tmp_path, call=tmp_path / "call")
    began = time.monotonic()
    assert [command.send([event(n)])[0].kind for n in range(2)] == ["sent", "sent"]
    assert time.monotonic() - began < 2


def test_a_link_in_the_place_of_a_call_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "call").symlink_to("theirs")
    command = Command(["/bin/true"], cwd=tmp_path, call=tmp_path / "call")
    assert command.send([event(1)])[0].kind == "later"
    assert (tmp_path / "theirs").read_text() == "theirs"
