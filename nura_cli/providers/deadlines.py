"""Every exchange with a provider has a deadline, however slowly its server gives or takes.

A timeout of a socket begins anew with each byte: a server that gives one now and then could hold a run for ever. Here an
exchange is given its *patience*, which a body that moves renews: so many bytes buy a second, and never more than the
patience in all. So what moves faster than :data:`FLOOR` is never cut, whatever its size, and what drips is cut soon; then
the answer has the whole patience anew. An answer in JSON is small, and buys nothing. Only the time that the network takes
counts: a disk here that stalls is not the server's fault.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpcore2
import httpx2

FLOOR = 16_000
"""Bytes a second below which a body is cut, in the end: 256 MB take no more than four and a half hours."""
MOST_CUTS = 9
"""After so many files that were cut, nothing more is asked for :data:`REST_SECONDS`: other providers wait for their turn."""
_ANSWER_WEIGHS = 3
"""As so many files an answer counts: it is the server that is slow, and not one file that keeps others from coming home."""
REST_SECONDS = 600.0


class Deadline:
    """The deadline of the exchange that a client has under way: it has one at a time."""

    def __init__(self) -> None:
        self._patience = 0.0
        self._left = 0.0
        self._body = False
        self._answering = False
        self._cuts: list[float] = []

    def begin(self, request: httpx2.Request) -> None:
        """Begin an exchange. Its patience, in seconds, is what the request says that a read may take.

        Raises:
            httpx2.ConnectTimeout: too much was cut lately; nothing is sent.
        """
        now = time.monotonic()
        self._cuts = [at for at in self._cuts if now < at + REST_SECONDS]
        if len(self._cuts) >= MOST_CUTS:
            words = f"too many answers were too slow, and nothing is asked for {REST_SECONDS / 60:.0f} minutes"
            raise httpx2.ConnectTimeout(words, request=request)
        self._patience = float(request.extensions["timeout"]["read"])
        self._left = self._patience
        self._body = "json" not in request.headers.get("accept", "json")
        self._answering = False

    def sent(self, size: int) -> None:
        """Note that so many bytes were sent."""
        self._moved(size)

    def read(self, size: int) -> None:
        """Note that so many bytes came."""
        if self._body:
            self._moved(size)

    def answering(self) -> None:
        """Note that the answer is waited for: it has the whole patience anew, once."""
        if not self._answering:
            self._answering = True
            self._left = self._patience

    def _moved(self, size: int) -> None:
        self._left = min(self._patience, self._left + size / FLOOR)

    @contextmanager
    def kept(self, timeout: float | None, late: type[httpcore2.TimeoutException]) -> Iterator[float]:
        """Give the seconds that one step may take.

        Args:
            timeout: what it may take by itself, in seconds; None for as long as there is.
            late: what is raised when the time is over.
        """
        began, left = time.monotonic(), self._left
        try:
            if left <= 0:
                raise late
            yield left if timeout is None else min(left, timeout)
        except httpcore2.TimeoutException:
            now = time.monotonic()
            self._cuts += [now] * (1 if self._body else _ANSWER_WEIGHS)
            if now < began + left:
                raise
            words = f"its time, {self._patience:g} seconds and one for each {FLOOR // 1000} kB of a file, was over"
            raise late(words) from None
        finally:
            self._left = left - (time.monotonic() - began)


class _Stream(httpcore2.NetworkStream):
    """A connection, each step of which is taken within a deadline."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._deadline.answering()
        with self._deadline.kept(timeout, httpcore2.ReadTimeout) as left:
            found = self._stream.read(max_bytes, left)
        self._deadline.read(len(found))
        return found

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        view = memoryview(buffer)
        while view:
            with self._deadline.kept(timeout, httpcore2.WriteTimeout) as left:
                self._stream.write(bytes(view[:FLOOR]), left)
            self._deadline.sent(len(view[:FLOOR]))
            view = view[FLOOR:]

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        with self._deadline.kept(timeout, httpcore2.ConnectTimeout) as left:
            return _Stream(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore2.NetworkBackend):
    """What opens connections, each of which keeps to a deadline."""

    def __init__(self, backend: httpcore2.NetworkBackend, deadline: Deadline, connect: float | None) -> None:
        self._backend = backend
        self._deadline = deadline
        self._connect = connect

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *arguments: Any, **options: Any
    ) -> httpcore2.NetworkStream:
        # The SDKs give a connection the time of a whole exchange, and each address of a host has it anew.
        with self._deadline.kept(self._connect or timeout, httpcore2.ConnectTimeout) as left:
            return _Stream(self._backend.connect_tcp(host, port, left, *arguments, **options), self._deadline)


def keep(client: httpx2.Client, deadline: Deadline) -> None:
    """Have all that a client sends and reads keep to a deadline, on its way through a proxy, too.

    A client that is given a transport of one's own takes no proxy from the environment any more: so it keeps those that it
    has made, and these are given the backend that httpcore2 has for this.
    """
    for transport in (client._transport, *client._mounts.values()):
        if isinstance(transport, httpx2.HTTPTransport):
            pool = transport._pool
            pool._network_backend = _Backend(pool._network_backend, deadline, client.timeout.connect)
