"""The sandbox's server: reads requests, lets faults strike, hands the rest to the protocol, sends the replies."""

import json
import os
import threading
import time
import urllib.parse
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from nura_cli.sandbox import anthropic_api, openai_api
from nura_cli.sandbox.control import Control
from nura_cli.sandbox.http import Failure, Html, Json, Reply, Request, SendFile
from nura_cli.sandbox.store import Settings, Store

_PAGE = b"<!DOCTYPE html><html><body><h1>Welcome</h1>This is no API.</body></html>"
_HOLD_SECONDS = 30.0


class Sandbox:
    """Both Batch APIs on one port of the loopback, over one SQLite file. A context manager that starts and stops it."""

    def __init__(self, path: Path, *, port: int = 0, host: str = "127.0.0.1", settings: Settings | None = None) -> None:
        """Prepare a sandbox over the file at ``path`` (made with its folder ``<path>.d`` where missing).

        Args:
            port: 0 takes a free one.
            settings: None keeps what the file has.
        """
        self._store = Store(path)
        if settings is not None:
            self._store.set(delay=settings.delay, accept_keys=list(settings.accept_keys))
        self._server = _Server((host, port), _Handler)
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

    @property
    def control(self) -> Control:
        """A client of the control endpoint."""
        return Control(self.url)

    def arm(self, fault: dict[str, Any]) -> None:
        """Arm a fault (:mod:`nura_cli.sandbox.faults`). Raises ValueError for an unknown kind."""
        self._store.arm(fault)

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
            self._server.server_close()
            self._store.close()

    def stop(self) -> None:
        """Stop serving and close the file."""
        self._server.shutdown()
        self._server.server_close()
        if self._thread:
            self._thread.join()
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
        super().__init__(*arguments)
        self.released = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is its own affair; anything else is a mistake of the sandbox's, and is shown."""
        import sys

        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Dropped(Exception):
    """The connection is to be closed without an answer."""


class _Handler(BaseHTTPRequestHandler):
    rfile: Any
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 120
    server: _Server

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing: the log is at the control endpoint."""

    def handle_expect_100(self) -> bool:
        """Let the client send its body."""
        return super().handle_expect_100()

    def finish(self) -> None:
        """End the connection, and this thread's hold on the file."""
        super().finish()
        self.server.store.release()

    def do_GET(self) -> None:
        """Answer a request of any method."""
        split = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(split.query))
        request = Request(self.command, split.path, query, self.headers, self.rfile, self.server.url)
        try:
            if split.path.startswith("/_sandbox/"):
                self._send_json(self._control(request), 200)
                return
            self._exchange(request)
        except _Dropped:
            self.close_connection = True
        except Failure as failure:
            request.drain()
            self._send(failure.status, failure.body, failure.kind)

    do_POST = do_GET  # noqa: N815
    do_DELETE = do_GET  # noqa: N815

    def _exchange(self, request: Request) -> None:
        store = self.server.store
        api: Any = anthropic_api if request.path.startswith("/v1/messages") else openai_api
        name = api.route(request)
        fault = store.strike(name) or {}
        what = fault.get("what", "")
        store.note(request.method, self.path, name, None, what or None)
        if what == "latency":
            time.sleep(float(fault.get("seconds", 1)))
        if what == "hold" and not fault.get("after"):
            self._hold(fault)
        if what == "drop_before":
            raise _Dropped
        if what == "status":
            raise self._failure(api, fault)
        if what == "redirect":
            request.drain()
            self._send(307, b"", "text/plain", {"Location": fault.get("to", self.server.url + "/elsewhere")})
            return
        if what == "html" and not fault.get("after"):
            request.drain()
            self._reply(Html(_PAGE), {})
            return
        try:
            reply: Reply | Failure = self._handle(api, request, name)
        except Failure as failure:
            reply = failure
        if name == "create":
            accepted = not isinstance(reply, Failure)
            store.db.execute("INSERT INTO creates VALUES (?, ?, ?)", (request.account, store.now(), accepted))
        if what == "hold" and fault.get("after"):
            self._hold(fault)
        if what == "drop_after":
            raise _Dropped
        if isinstance(reply, Failure):
            raise reply
        self._reply(Html(_PAGE) if what == "html" else reply, fault)

    def _handle(self, api: Any, request: Request, name: str) -> Reply:
        request.account = api.account_of(request.headers)
        allowed = self.server.store.setting("accept_keys", [])
        if allowed and request.account not in allowed:
            if api is anthropic_api:
                raise anthropic_api.failure(401, "invalid x-api-key", "authentication_error")
            raise openai_api.failure(401, f"Incorrect API key provided: {request.account}.", code="invalid_api_key")
        reply: Reply = api.handle(self.server.store, request, name)
        request.drain()
        return reply

    def _failure(self, api: Any, fault: dict[str, Any]) -> Failure:
        status = int(fault.get("status", 500))
        words = fault.get("message", f"the sandbox answers {status}")
        kinds = {429: "rate_limit_error", 529: "overloaded_error", 401: "authentication_error", 403: "permission_error"}
        if api is anthropic_api:
            default = "api_error" if status >= 500 else "invalid_request_error"
            failure = anthropic_api.failure(status, words, fault.get("code", kinds.get(status, default)))
        else:
            failure = openai_api.failure(status, words, code=fault.get("code"))
        self._extra = {"Retry-After": str(fault["retry_after"])} if "retry_after" in fault else {}
        return failure

    _extra: dict[str, str] = {}  # noqa: RUF012 - replaced, never changed

    def _hold(self, fault: dict[str, Any]) -> None:
        self.server.released.clear()
        self.server.released.wait(float(fault.get("seconds", _HOLD_SECONDS)))

    def _control(self, request: Request) -> Any:
        store, name = self.server.store, request.path.removeprefix("/_sandbox/")
        body = request.json()
        if name == "faults":
            if request.method == "POST":
                store.arm(body)
            elif request.method == "DELETE":
                store.disarm()
            return [dict(row) for row in store.db.execute("SELECT * FROM faults")]
        if name == "advance":
            with store.transaction():
                store.set(offset=int(store.setting("offset", 0)) + int(body["seconds"]))
            return {"now": store.now()}
        if name == "settings":
            store.set(**body)
            return body
        if name == "release":
            self.server.released.set()
            return {}
        if name == "billing":
            return store.billing()
        if name == "files":
            rows = store.db.execute("SELECT * FROM files WHERE expires_at > ? ORDER BY seq", (store.now(),))
            return [dict(row) for row in rows]
        if name == "batches":
            columns = "id, account, protocol, created_at, status, total, metadata, input_file_id, ended_at"
            return [dict(row) for row in store.db.execute(f"SELECT {columns} FROM batches ORDER BY seq")]  # noqa: S608 - constant
        if name == "log":
            return [dict(row) for row in store.db.execute("SELECT * FROM log ORDER BY id")]
        raise openai_api.failure(404, "no such control")

    def _reply(self, reply: Reply, fault: dict[str, Any]) -> None:
        if isinstance(reply, Json):
            self._send_json(reply.body, reply.status)
        elif isinstance(reply, Html):
            self._send(reply.status, reply.body, "text/html")
        else:
            self._send_file(reply, fault)

    def _send_json(self, body: Any, status: int) -> None:
        self._send(status, json.dumps(body).encode(), "application/json")

    def _head(self, status: int, kind: str, extra: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("x-request-id", f"req_{os.urandom(8).hex()}")
        for name, value in {**extra, **self._extra}.items():
            self.send_header(name, value)
        self._extra = {}

    def _send(self, status: int, body: bytes, kind: str, extra: dict[str, str] | None = None) -> None:
        self._head(status, kind, {"Content-Length": str(len(body)), **(extra or {})})
        self.end_headers()
        self.wfile.write(body)

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Return the Date header: the sandbox's own clock."""
        return formatdate(self.server.store.now() if timestamp is None else timestamp, usegmt=True)

    def _send_file(self, reply: SendFile, fault: dict[str, Any]) -> None:
        size = reply.path.stat().st_size
        cut = fault.get("what") == "truncate"
        framing = fault.get("framing", "length") if fault.get("what") in ("truncate", "framing") else "length"
        keep = int(size * float(fault.get("keep", 0.5))) if cut else size
        extra = {
            "length": {"Content-Length": str(size)},
            "chunked": {"Transfer-Encoding": "chunked"},
            "close": {"Connection": "close"},
        }[framing]
        self._head(200, reply.kind, extra)
        self.end_headers()
        with reply.path.open("rb") as file:
            while keep and (piece := file.read(min(keep, 1 << 17))):
                keep -= len(piece)
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if framing == "chunked" else piece)
        if framing == "chunked" and not cut:
            self.wfile.write(b"0\r\n\r\n")
        if cut or framing == "close":
            raise _Dropped
