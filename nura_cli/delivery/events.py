"""Events: tells the application's commands and webhooks what became of its work.

Takes events that are due and gives, for each, whether the receiver has it (``sent``), said no to it (``refused``), or could
not take anything now (``later``). At least once: what was told and not confirmed is told again, under the same id, by a
later call. Nothing here retries.

A command gets JSON Lines on its standard input: no shell, a bare environment, a time limit for it and all it started. A
webhook gets one POST for each event, signed as the Standard Webhooks specification says
(https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md); no redirect is followed, and
what it answers is read to a small bound.
"""

import asyncio
import contextlib
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, NamedTuple, Protocol

from nura_cli import scrub
from nura_cli.delivery import calls
from nura_cli.delivery.database import plain
from nura_cli.errors import EX_TEMPFAIL, ConfigError

if TYPE_CHECKING:
    import httpx2
    from standardwebhooks import Webhook as Signer

COMMAND_EVENTS = 100
"""Events that one run of a command gets at most."""
WEBHOOK_EVENTS = 64
"""Events of one call to a webhook's :meth:`Webhook.send`, at most."""
_AT_ONCE = 8
_MESSAGE_CHARS = 2000
_ANSWER_BYTES = 500
_BODY_SECONDS = 1.0
_FIRST_LINE = 256
"""Bytes of a script's first line that the system reads (Linux: BINPRM_BUF_SIZE)."""
_GRACE_SECONDS = 2.0
_LOOK_SECONDS = 0.05
_PIPE_BYTES = 1 << 16
"""What a pipe holds: the last words of a child that has ended are read in one piece."""


class Event(NamedTuple):
    """One event.

    Attributes:
        id: the same however often it is sent.
        body: one JSON object on one line, in UTF-8.
    """

    id: str
    body: bytes


class Outcome(NamedTuple):
    """What a receiver made of an event.

    Attributes:
        kind: ``sent``; ``refused``: it answered no to this event (or to all of the call); ``later``: it can take nothing now.
        message: why, without control characters and secrets, at most 2,000 characters.
        retry_after: seconds to wait, where the receiver said so.
    """

    kind: Literal["sent", "refused", "later"]
    message: str = ""
    retry_after: int | None = None


SENT = Outcome("sent")


class Receiver(Protocol):
    """Who is told of events."""

    @property
    def most(self) -> int:
        """Events that one call takes at most."""

    def send(self, events: Sequence[Event]) -> list[Outcome]:
        """Send events; return what became of each, in their order."""

    def close(self) -> None:
        """Give back what was opened."""


class Command:
    """A program that gets events as JSON Lines on its standard input, several at a time.

    It ends with 0 where it has them all; with 75 (``EX_TEMPFAIL``) where it can take nothing now; with anything else, or not
    in time, where it refuses them. What it writes to standard error is kept with what was refused, standard output is not.

    Args:
        argv: the program and its arguments.
        env_names: variables of our environment that it gets, besides PATH, HOME and a UTF-8 locale.
        timeout: seconds it may take, with all that it starts.
        cwd: the folder it runs in.
        call: the file that notes a call that is under way (:mod:`nura_cli.delivery.calls`); None notes none.
    """

    most = COMMAND_EVENTS

    def __init__(
        self,
        argv: Sequence[str],
        env_names: Sequence[str] = (),
        timeout: int = 30,
        cwd: Path | None = None,
        call: Path | None = None,
    ) -> None:
        self._argv = list(argv)
        self._timeout = timeout
        self._cwd = cwd
        self._call = call
        bare = {"PATH": os.environ.get("PATH") or os.defpath, "HOME": os.environ.get("HOME", "/"), "LC_ALL": "C.UTF-8"}
        self._env = bare | {name: os.environ[name] for name in env_names if name in os.environ}

    def send(self, events: Sequence[Event]) -> list[Outcome]:
        """Run the program once, for all of the events, after what a killed run left of it has ended."""
        given = b"".join(event.body + b"\n" for event in events)
        with contextlib.ExitStack() as stack:
            try:
                held = () if self._call is None else (stack.enter_context(calls.call(self._call, self._timeout)),)
            except OSError as error:
                return [_not_started(error)] * len(events)
            return [self._run(given, held)] * len(events)

    def _run(self, given: bytes, held: tuple[int, ...]) -> Outcome:
        """Run the program; ``held`` are descriptors that it inherits."""
        try:
            # A file, not a pipe: a program that reads slowly, or not at all, holds nothing up.
            with tempfile.TemporaryFile() as stdin:
                stdin.write(given)
                stdin.seek(0)
                child = subprocess.Popen(  # noqa: S603 - the operator's own command, without a shell
                    self._argv,
                    stdin=stdin,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env=self._env,
                    cwd=self._cwd,
                    start_new_session=True,
                    pass_fds=held,
                )
        except (OSError, ValueError) as error:
            return _not_started(error)
        with child.stderr as pipe:  # type: ignore[union-attr]  # it is a pipe
            try:
                output = _heard(child, pipe, time.monotonic() + self._timeout)
            except BaseException:  # we are told to stop: so is what we started
                _kill(child)
                raise
            if child.returncode is None:
                _kill(child)
                return Outcome("refused", _with_words(f"did not end within {self._timeout} seconds", output))
        code = child.returncode
        if code == 0:
            return SENT
        ended = f"ended with exit code {code}" if code > 0 else f"was ended by signal {-code}"
        return Outcome("later" if code == EX_TEMPFAIL else "refused", _with_words(ended, output))

    def close(self) -> None:
        """Nothing stays open between calls."""


def _not_started(error: OSError | ValueError) -> Outcome:
    return Outcome("later", f"cannot be started: {getattr(error, 'strerror', None) or error}")


def not_to_be_run(argv: Sequence[str]) -> str | None:
    """Return why a command could not be started, as far as its files tell; None where nothing speaks against it.

    A script is run by the program that its first line names, to the letter: one saved with Windows' line ends names none.
    """
    program = argv[0]
    found = Path(shutil.which(program, mode=os.F_OK, path=os.environ.get("PATH") or os.defpath) or program)
    if not found.exists():
        return f"{program}: there is no such program" + ("" if "/" in program else " in PATH")
    if not found.is_file():
        return f"{program}: is no file"
    if not os.access(found, os.X_OK):
        return f"{program}: may not be run (chmod +x {shlex.quote(str(found))})"
    try:
        with found.open("rb") as file:
            first = file.readline(_FIRST_LINE)
    except OSError:  # a program may be run that may not be read
        return None
    if first.startswith(b"#!"):
        return _no_interpreter(program, first[2:])
    text = first.isascii() and first.decode("ascii").replace("\n", "").replace("\t", "").isprintable()
    return f"{program}: is a text, and does not say by #! what runs it" if text else None


def _no_interpreter(program: str, named: bytes) -> str | None:
    """Return why a script's interpreter, as its first line names it, cannot run it."""
    interpreter = os.fsdecode((named.strip(b" \t\n").split() or [b""])[0])
    if named.rstrip(b"\n").endswith(b"\r"):
        return f"{program}: has Windows' line ends, and is not run so (sed -i 's/\\r$//' {shlex.quote(program)})"
    if not os.access(interpreter, os.X_OK) or not Path(interpreter).is_file():
        return f"{program}: is to be run by {interpreter or 'nothing'}, and there is no such program"
    return None


def _heard(child: "subprocess.Popen[bytes]", pipe: IO[bytes], deadline: float) -> bytes:
    """Wait until a child ends or its time is up; return the end of what it wrote to a pipe, read as it comes.

    What it leaves running in the background may hold the pipe open for ever, or flood it: that is not waited for.
    """
    kept = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while child.poll() is None and time.monotonic() < deadline:
            if selector.select(_LOOK_SECONDS):
                chunk = os.read(pipe.fileno(), _PIPE_BYTES)
                if not chunk:
                    break
                kept += chunk
                del kept[: -4 * _MESSAGE_CHARS]
        if selector.select(0):
            kept += os.read(pipe.fileno(), _PIPE_BYTES)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(max(0.0, deadline - time.monotonic()))
    return bytes(kept)


def _with_words(first: str, output: bytes) -> str:
    """Return a message with the end of what a child output."""
    text = " ".join(scrub.clean(output[-4 * _MESSAGE_CHARS :].decode("utf-8", "replace")).split())
    return plain(f"{first}: {text[-(_MESSAGE_CHARS - len(first) - 2) :]}" if text else first, _MESSAGE_CHARS)


def _kill(child: "subprocess.Popen[bytes]") -> None:
    """End a child and all of its group: politely, then for certain."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_SECONDS)


class Webhook:
    """An address that gets a signed POST for each event.

    Args:
        url: http or https; it may hold a secret, so no message shows more of it than the caller does.
        secret: base64, with or without ``whsec_`` before it.
        timeout: seconds that one POST may take in all.

    Raises:
        ConfigError: the secret is not base64, or empty.
    """

    most = WEBHOOK_EVENTS

    def __init__(self, url: str, secret: str, timeout: int = 30) -> None:
        for part in (url, "/" + url.partition("://")[2].partition("/")[2]):
            scrub.know(part)
        self._url = url
        self._timeout = timeout
        self._signer = _signer(secret)
        self._resting: Outcome | None = None
        self._runner = asyncio.Runner()

    def send(self, events: Sequence[Event]) -> list[Outcome]:
        """Send events, several at a time; once the receiver can take nothing, those not begun are left for later."""
        self._resting = None
        return self._runner.run(self._send(events))

    async def _send(self, events: Sequence[Event]) -> list[Outcome]:
        turns = asyncio.Semaphore(_AT_ONCE)

        async def one(event: Event) -> Outcome:
            async with turns:
                outcome = self._resting or await self._post(self._client, event)
            if outcome.kind == "later":
                self._resting = outcome
            return outcome

        return await asyncio.gather(*(one(event) for event in events))

    async def _post(self, client: "httpx2.AsyncClient", event: Event) -> Outcome:
        import httpx2

        try:
            request = client.build_request("POST", self._url, content=event.body, headers=self._headers(event))
            async with asyncio.timeout(self._timeout):
                answer = await client.send(request, stream=True)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, UnicodeError) as error:
            return Outcome("later", plain(f"cannot be reached: {_why(error)}", _MESSAGE_CHARS))
        except (TimeoutError, httpx2.TimeoutException):
            return Outcome("refused", f"gave no answer within {self._timeout} seconds")
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            return Outcome("refused", plain(f"gave no answer: {_why(error)}", _MESSAGE_CHARS))
        return _outcome(answer, await _beginning(answer))

    def _headers(self, event: Event) -> dict[str, str]:
        now = datetime.now(UTC)
        return {
            "content-type": "application/json",
            "user-agent": "nura",
            "webhook-id": event.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(event.id, now, event.body.decode()),
        }

    @cached_property
    def _client(self) -> "httpx2.AsyncClient":
        import ssl

        import httpx2

        return httpx2.AsyncClient(
            verify=ssl.create_default_context(),
            trust_env=False,
            follow_redirects=False,
            timeout=self._timeout,
            limits=httpx2.Limits(max_connections=_AT_ONCE),
        )

    def close(self) -> None:
        """Close the connections."""
        if "_client" in self.__dict__:
            self._runner.run(self._client.aclose())
        self._runner.close()


def check_secret(secret: str) -> None:
    """Raise ConfigError where a webhook's events could not be signed with a secret."""
    _signer(secret)


def _signer(secret: str) -> "Signer":
    import base64
    import binascii

    from standardwebhooks import Webhook as Signer

    text = secret.removeprefix("whsec_").rstrip("=")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        hint = "it is whsec_ and 24 to 64 random bytes in base64"
        raise ConfigError("the webhook's secret is not base64, or empty", hint=hint)
    return Signer(key)


async def _beginning(answer: "httpx2.Response") -> bytes:
    """Return the beginning of an answer's body, to be shown to a person; what it means stands in its status alone.

    A body that was read to its end lets the connection be used again; one that does not end is left soon.
    """
    import httpx2

    body = b""
    with contextlib.suppress(TimeoutError, httpx2.HTTPError):
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in answer.aiter_raw(_ANSWER_BYTES):
                body += chunk
                if len(body) >= _ANSWER_BYTES:
                    break
    with contextlib.suppress(httpx2.HTTPError):
        await answer.aclose()
    return body[:_ANSWER_BYTES]


def _outcome(answer: "httpx2.Response", body: bytes) -> Outcome:
    """Return what an answer means."""
    status = answer.status_code
    if 200 <= status < 300:
        return SENT
    if 300 <= status < 400:
        return Outcome("refused", f"answered with status {status}, and redirects are not followed")
    words = " ".join(body.decode("utf-8", "replace").split())
    message = plain(f"answered with status {status}{': ' if words else ''}{words}", _MESSAGE_CHARS)
    if status in (429, 503):
        return Outcome("later", message, retry_after(answer.headers, time.time()))
    return Outcome("refused", message)


def retry_after(headers: Mapping[str, str], now: float) -> int | None:
    """Return the seconds that a ``Retry-After`` header asks for (RFC 9110, 10.2.3: seconds, or an HTTP date), or None."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return int(text[:9])
    try:
        return max(0, int(parsedate_to_datetime(text).timestamp() - now))
    except (TypeError, ValueError, OverflowError, IndexError):
        return None


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__
