"""A webhook receiver on loopback that checks each signature with the library, and answers as it is told."""

import http.server
import threading
import time
from types import TracebackType
from typing import Any, NamedTuple, Self

from standardwebhooks import Webhook

from nura_cli import contract
from tests import documents

SECRET = "whsec_" + "bnVyYS10ZXN0LXNlY3JldC1udXJh"


class Post(NamedTuple):
    """What came: the id of its header, the event, and the raw body."""

    id: str
    event: Any
    body: bytes


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 64  # the five of the library are fewer than the connections that come at once


class Receiver:
    """A context manager; ``got`` are the POSTs whose signature was good, ``answers`` the statuses to give next (then 204).

    An answer of -5 is none, for 5 seconds.
    """

    def __init__(self, headers: dict[str, str] | None = None) -> None:
        self.got: list[Post] = []
        self.refused = 0
        self.answers: list[int] = []
        self.headers = headers or {}
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?token=secret-token"

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = receiver._take(dict(self.headers), body)
                if status < 0:
                    time.sleep(-status)
                    return
                self.send_response(status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        return Handler

    def _take(self, headers: dict[str, str], body: bytes) -> int:
        with self._lock:
            event = Webhook(SECRET).verify(body, headers)
            if "data" in event:
                documents.check(event, contract.EventTold)
            status = self.answers.pop(0) if self.answers else 204
            if 200 <= status < 300:
                self.got.append(Post(headers["webhook-id"], event, body))
            else:
                self.refused += 1
            return status

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Be there no longer."""
        self._server.shutdown()
        self._server.server_close()
