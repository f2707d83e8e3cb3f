"""The sandbox's server: reads requests, lets faults strike, hands the rest to the protocol, sends the replies."""

import io
import json
import random
import re
import secrets
import socket
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Self

from nura_cli.sandbox import anthropic_api, desk, faults, oddities, openai_api
from nura_cli.sandbox.control import Control
from nura_cli.sandbox.exchange import Failure, Html, Json, Reply, Request, SendFile
from nura_cli.sandbox.faults import Fault
from nura_cli.sandbox.store import Settings, Store

_PAGE = b"<!DOCTYPE html><html><body><h1>Welcome</h1>This is no API.</body></html>"
_PIECE = 1 << 17
_HOLD_SECONDS = 30.0
_HOLD_POLL_SECONDS = 0.02
_STOP_SECONDS = 5.0
_STORED = "/_stored/"
"""Where results lie that are downloaded from elsewhere."""


class Sandbox:
    """Both Batch APIs on one port of the loopback, over one SQLite file. A context manager that starts and stops it."""

    def __init__(self, path: Path, *, port: int = 0, host: str = "127.0.0.1", settings: Settings | None = None) -> None:
        """Prepare a sandbox over the file at ``path`` (made with its folder ``<path>.d`` where missing).

        Args:
            port: 0 takes a free one.
            settings: None keeps what the file has.

        Raises:
            OSError: the file cannot be opened or is no sandbox's, or the port is taken.
        """
        self._store = Store(path)
        try:
            if settings is not None:
                self._store.configure(settings)
            self._server = _Server((host, port), _Handler)
        except BaseException:
            self._store.close()
            raise
        self._server.store = self._store
        self._server.url = self.url
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The address, such as ``http://127.0.0.1:41873``."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    @property
    def openai_base_url(self) -> str:
        """The base URL for the OpenAI SDK."""
        return f"{self.url}/v1"

    @property
    def anthropic_base_url(self) -> str:
        """The base URL for the Anthropic SDK."""
        return self.url

    def base_url(self, protocol: str) -> str:
        """Return the base URL for the SDK of ``openai`` or ``anthropic``. Raises KeyError for any other."""
        return {"openai": self.openai_base_url, "anthropic": self.anthropic_base_url}[protocol]

    @property
    def control(self) -> Control:
        """A client of the control endpoint."""
        return Control(self.url)

    def arm(self, fault: Fault) -> int:
        """Arm a fault (:mod:`nura_cli.sandbox.faults`); return its number. Raises ValueError for one that is unknown."""
        return self._store.arm(fault)

    def start(self) -> Self:
        """Serve in a thread of this process."""
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def serve_forever(self) -> None:
        """Serve in this thread until interrupted."""
        try:
            self._server.serve_forever(poll_interval=0.2)
        finally:
            self._close()

    def stop(self) -> None:
        """Stop serving: open connections are closed, and the file."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._thread = None
        self._close()

    def _close(self) -> None:
        self._server.server_close()
        self._server.hang_up()
        self._store.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *details: object) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    store: Store
    url: str

    def __init__(self, *arguments: Any) -> None:
        self.stopping = threading.Event()
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._guard = threading.Lock()
        super().__init__(*arguments)

    @contextmanager
    def connected(self, connection: socket.socket) -> Iterator[None]:
        """Know a connection for as long as it is served."""
        with self._guard:
            self._connections[connection] = threading.current_thread()
        try:
            yield
        finally:
            with self._guard:
                del self._connections[connection]

    def hang_up(self) -> None:
        """Close every connection, and wait (for a bounded time) until its thread is done with the file."""
        self.stopping.set()
        with self._guard:
            left = dict(self._connections)
        for connection in left:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        deadline = time.monotonic() + _STOP_SECONDS
        for thread in left.values():
            thread.join(max(0.0, deadline - time.monotonic()))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away, or a full disk, is no mistake of the sandbox's; anything else is one, and is shown."""
        if not isinstance(sys.exc_info()[1], OSError) and not self.stopping.is_set():
            super().handle_error(request, client_address)


class _Drops:
    """A stream on which everything is sent in drops."""

    def __init__(self, out: Any, drip: Fault, stopping: threading.Event) -> None:
        self._out = out
        self._size, self._seconds = int(drip.get("bytes", 1)), float(drip.get("seconds", 0.5))
        self._whole = int(faults.choice(drip, "part") == "body")
        self._stopping = stopping

    def write(self, data: bytes) -> None:
        """Send bytes; the first of all, the head, at once where the body alone drips."""
        if self._whole:
            self._whole -= 1
            self._out.write(data)
            return
        for at in range(0, len(data), self._size):
            self._out.write(data[at : at + self._size])
            if self._stopping.wait(self._seconds):
                raise _Dropped


class _Dropped(Exception):
    """The connection is to be closed without an answer."""


class _Handler(BaseHTTPRequestHandler):
    """One connection, in a thread of its own."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 120
    server: _Server
    connection: socket.socket
    rfile: Any
    wfile: Any

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing: the log is at the control endpoint."""

    def handle(self) -> None:
        """Answer the connection's requests, one after the other."""
        with self.server.connected(self.connection):
            try:
                super().handle()
            finally:
                self.server.store.release()

    def do_GET(self) -> None:
        """Answer a request of any method."""
        split = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(split.query))
        request = Request(self.command, split.path, query, self.headers, self.rfile, self.server.url)
        if split.path.startswith("/_sandbox/"):
            status, body = desk.answer(self.server.store, request)
            self._send(status, json.dumps(body).encode(), "application/json", {})
            return
        try:
            if split.path.startswith(_STORED):
                self._from_store(request)
            else:
                self._exchange(request)
        except _Dropped:
            self.close_connection = True

    do_POST = do_GET  # noqa: N815 - the base class's way to name methods
    do_PUT = do_GET  # noqa: N815 - as http.server calls it
    do_PATCH = do_GET  # noqa: N815 - as http.server calls it
    do_DELETE = do_GET  # noqa: N815 - as http.server calls it

    def _exchange(self, request: Request) -> None:
        """Answer a request of either protocol; whatever becomes of it is logged."""
        store = self.server.store
        self._anthropic = anthropic_api.speaks(request.path, request.headers)
        api: Any = anthropic_api if self._anthropic else openai_api
        name = api.route(request)
        struck = store.strike(name, request.method, request.path)
        self._releases = store.releases()
        number = store.note(request.method, self.path, name, struck)
        store.hear(api.key_of(request.headers))
        self._meet_quirks(request, number)
        request.executions = 2 if faults.of(struck, "twice") else 1
        arrivals = [store.arrived(api.PROTOCOL) for _ in range(request.executions)] if name == "create" else []
        self._request_id = f"req_{secrets.token_hex(12)}"
        self._account = ""
        with self._logged(number):
            reply = self._reply_to(api, request, name, struck, number)
            if isinstance(reply, Json):
                reply = self._shown(name, reply, arrivals, struck)
            reply = self._late(api, reply, struck, number)
            store.outcome(number, "answered", reply.status)
            with self._dripping(faults.of(struck, "drip")):
                self._deliver(reply, struck)

    @contextmanager
    def _logged(self, number: int) -> Iterator[None]:
        """Log an exchange that breaks off as dropped.

        That one is answered is logged before its answer goes out: whoever has read an answer finds it in the log.
        """
        try:
            yield
        except BaseException:
            if not self.server.stopping.is_set():
                self.server.store.outcome(number, "dropped")
            raise

    def _from_store(self, request: Request) -> None:
        """Serve results from where a download was led to: another host refuses a key, as signed addresses do."""
        store = self.server.store
        self._quirks = {quirk["what"]: quirk for quirk in store.standing()}
        elsewhere, self._request_id, self._account = self._quirks.get("elsewhere", {}), "", ""
        number = store.note(request.method, request.path, "stored", [])
        path = store.body(Path(request.path).name)
        keyed = "Authorization" in request.headers or "X-Api-Key" in request.headers
        if keyed == (elsewhere.get("host", "other") == "other") or not path.exists():
            reply: Reply | Failure = Failure(403, b"<Error>InvalidArgument</Error>", "application/xml")
        elif elsewhere.get("again"):
            reply = self._led_elsewhere(path, elsewhere)
        else:
            reply = SendFile(path, "application/octet-stream")
        with self._logged(number):
            store.outcome(number, "answered", reply.status)
            self._deliver(reply, [])

    def _led_elsewhere(self, path: Path, elsewhere: Fault) -> Failure:
        """Return what leads a download to where its results are stored."""
        other = faults.choice({"what": "elsewhere", **elsewhere}, "host") == "other"
        url = self.server.url.replace("127.0.0.1", "localhost") if other else self.server.url
        return Failure(302, "", "text/plain", {"Location": f"{url}{_STORED}{path.name}?signature=s3cret"})

    @contextmanager
    def _dripping(self, drip: Fault | None) -> Iterator[None]:
        """Send what is sent meanwhile in drops, where a fault wants that."""
        out = self.wfile
        if drip is not None:
            self.wfile = _Drops(out, drip, self.server.stopping)
        try:
            yield
        finally:
            self.wfile = out

    def _meet_quirks(self, request: Request, number: int) -> None:
        """Take the quirks that an exchange meets from its beginning to its end."""
        self._quirks = {quirk["what"]: quirk for quirk in self.server.store.standing()}
        self._other = oddities.understand(request, self._quirks)
        skew = self._quirks.get("skew")
        self._ahead = request.ahead = int(skew.get("seconds", 3600)) if skew and number % 2 == 0 else 0

    def _shown(self, name: str, reply: Json, arrivals: list[int], struck: list[Fault]) -> Json:
        """Note what a create has made; return the reply as the quirks, or the create's fault, have it."""
        store, body = self.server.store, oddities.shown(name, reply.body, self._quirks, other=self._other)
        if arrivals:
            batch_id = reply.body.get("job", reply.body)["id"]
            for arrival in arrivals:
                store.accepted(arrival, batch_id)
            shape = faults.of(struck, "create_shape")
            if shape:
                body = oddities.created(body, batch_id, store.oldest(batch_id), shape)
        return Json(body, reply.status)

    def _late(self, api: Any, reply: Reply | Failure, struck: list[Fault], number: int) -> Reply | Failure:
        """Let the faults strike that come after the effect; return what is answered then."""
        for fault in struck:
            if fault["what"] == "drop_after":
                raise _Dropped
            if fault["what"] == "hold" and fault.get("after"):
                self._hold(fault, number)
            elif fault["what"] in ("status", "html") and fault.get("after"):
                return self._instead(api, fault)
        return reply

    def _reply_to(self, api: Any, request: Request, name: str, struck: list[Fault], number: int) -> Reply | Failure:
        """Return what the protocol, or a fault that strikes before anything is done, answers."""
        for fault in struck:
            what = fault["what"]
            if what == "latency":
                self.server.stopping.wait(float(fault.get("seconds", 1)))
            elif what == "hold" and not fault.get("after"):
                self._hold(fault, number)
            elif what == "drop_before":
                raise _Dropped
            elif what == "mixed_up":
                request.path = re.sub(r"/(batches|files)/[^/]+", rf"/\1/{fault['of']}", request.path)
            elif what in ("status", "html", "redirect") and not fault.get("after"):
                request.drain()
                return self._instead(api, fault)
        wanted = self._quirks.get("wants_header")
        try:
            if wanted and request.headers.get(wanted["name"]) != wanted["value"]:
                raise api.failure(400, f"{wanted['name']}: header is required")
            request.account = self._account = api.account(request.headers)
            if not self.server.store.accepts(request.account):
                raise api.refused_key()
            if "one_account" in self.server.store.quirks():
                request.account = self._account = "org-one"
            reply: Reply | Failure = api.handle(self.server.store, request, name)
        except Failure as failure:
            reply = failure
        except UnicodeEncodeError:
            reply = api.failure(400, "The request holds what is no Unicode text.")
        request.drain()
        if isinstance(reply, SendFile) and "elsewhere" in self._quirks:
            return self._led_elsewhere(reply.path, self._quirks["elsewhere"])
        return reply

    def _instead(self, api: Any, fault: Fault) -> Reply | Failure:
        if fault["what"] == "html":
            return Html(_PAGE)
        if fault["what"] == "redirect":
            to = {"Location": fault.get("to", f"{self.server.url}/elsewhere")}
            return Failure(int(fault.get("status", 307)), "", "text/plain", to)
        status = int(fault.get("status", 500))
        headers = {"Retry-After": str(fault["retry_after"])} if "retry_after" in fault else {}
        words = fault.get("message", f"the sandbox answers {status}")
        failure: Failure = api.failure(status, words, code=fault.get("code"), headers=headers)
        return failure

    def _hold(self, fault: Fault, number: int) -> None:
        """Wait until somebody lets go, in whatever process, or the fault's time is over."""
        store, until = self.server.store, time.monotonic() + float(fault.get("seconds", _HOLD_SECONDS))
        store.outcome(number, "held")
        while time.monotonic() < until and store.releases() == self._releases:
            if self.server.stopping.wait(_HOLD_POLL_SECONDS):
                raise _Dropped
        store.outcome(number, "open")

    def _deliver(self, reply: Reply | Failure, struck: list[Fault]) -> None:
        """Send a reply."""
        if isinstance(reply, Failure):
            body = oddities.echoed(reply.body, self.server.store.echo())
            if isinstance(body, dict) and "request_id" in body:
                body = {**body, "request_id": self._request_id}
            data = json.dumps(body).encode() if isinstance(body, dict) else body if isinstance(body, bytes) else b""
            self._send(reply.status, data, reply.kind, reply.headers)
        elif isinstance(reply, SendFile):
            self._send_file(reply, faults.of(struck, "truncate"), faults.of(struck, "framing"))
        elif isinstance(reply, Json):
            self._send(reply.status, json.dumps(reply.body).encode(), "application/json", {})
        else:
            self._send(reply.status, reply.body, "text/html; charset=utf-8", {})

    _anthropic = False
    _request_id = ""
    _account = ""
    _releases = 0
    _quirks: Mapping[str, Fault] = MappingProxyType({})
    _other = False
    _ahead = 0

    def _head(self, status: int, kind: str, headers: dict[str, str]) -> None:
        """Send the head: the request's id and the account as either vendor names them."""
        store, anthropic = self.server.store, self._anthropic
        quirks = store.quirks()
        self.send_response_only(status)
        self.send_header("Server", self.version_string())
        if "no_date" not in quirks:
            self.send_header("Date", self.date_time_string())
        self.send_header("Content-Type", kind)
        if self._request_id:
            self.send_header("request-id" if anthropic else "x-request-id", self._request_id)
        if self._account and "no_account" not in quirks:
            name = "anthropic-organization-id" if anthropic else "openai-organization"
            self.send_header(name, store.organization(self._account))
        for name, value in headers.items():
            self.send_header(name, value)

    def _send(self, status: int, body: bytes, kind: str, headers: dict[str, str]) -> None:
        self._head(status, kind, {"Content-Length": str(len(body)), **headers})
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        """Return the Server header."""
        return "nura-sandbox"

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Return the Date header: the sandbox's own clock, or one that is ahead of it."""
        return formatdate(self.server.store.now() + self._ahead if timestamp is None else timestamp, usegmt=True)

    def _opened(self, path: Path) -> BinaryIO:
        """Open a file of results, its lines in another order each time where that is wanted."""
        if "shuffled" not in self._quirks:
            return path.open("rb")
        lines = path.read_bytes().splitlines(keepends=True)
        return io.BytesIO(b"".join(random.sample(lines, len(lines))))

    def _send_file(self, reply: SendFile, cut: Fault | None, framed: Fault | None) -> None:
        """Send a file's bytes in the framing that a fault wants, or cut short."""
        with self._opened(reply.path) as file:
            size = reply.path.stat().st_size
            framing = (cut or framed or {}).get("framing", "length")
            keep = int(size * float(cut.get("keep", 0.5))) if cut else size
            headers = {
                "length": {"Content-Length": str(size)},
                "chunked": {"Transfer-Encoding": "chunked"},
                "close": {"Connection": "close"},
            }
            self._head(200, reply.kind, headers[framing])
            self.end_headers()
            while keep and (piece := file.read(min(keep, _PIECE))):
                keep -= len(piece)
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if framing == "chunked" else piece)
        if framing == "chunked" and not cut:
            self.wfile.write(b"0\r\n\r\n")
        if cut:
            self.close_connection = True
