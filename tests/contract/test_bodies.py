"""Answers that are too large, or unpack without end, from a server that does what it likes."""

import contextlib
import gzip
import shutil
import threading
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from nura_cli import providers
from nura_cli.config import ProviderConfig
from nura_cli.errors import StateError, Unconfirmed, Unreachable
from nura_cli.providers import bodies
from nura_cli.providers.base import Provider
from tests.conftest import PROTOCOLS

LIST = b'{"data":[{"id":"b1","status":"completed","processing_status":"ended"}],"has_more":false}'


class Server:
    """Answers every request with ``body``, in ``encoding``."""

    def __init__(self) -> None:
        self.body, self.encoding, self.status = LIST, "", 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                self.send_response(outer.status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(outer.body)))
                if outer.status == 302:
                    self.send_header("location", f"{outer.url}{self.path}again")
                if outer.encoding:
                    self.send_header("content-encoding", outer.encoding)
                self.end_headers()
                with contextlib.suppress(OSError):  # whoever asked has had enough
                    self.wfile.write(outer.body)

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def odd() -> Iterator[Server]:
    """A running server."""
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.http.shutdown()
    thread.join()
    server.http.server_close()


@pytest.fixture(params=PROTOCOLS)
def provider(request: pytest.FixtureRequest, odd: Server, tmp_path: Path) -> Iterator[Provider]:
    """Each vendor's provider, at that server."""
    (tmp_path / "key").write_text("k")
    given = {"kind": request.param, "api_key_file": tmp_path / "key", "base_url": odd.url}
    made = providers.connect("main", ProviderConfig.model_validate(given), tmp_path / "nura.db")
    yield made
    made.close()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "x-gzip": lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:]),
}


@pytest.mark.parametrize("encoding", PACKED)
def test_what_is_packed_though_nobody_asked_for_that_is_unpacked(
    provider: Provider, odd: Server, tmp_path: Path, encoding: str
) -> None:
    odd.body, odd.encoding = PACKED[encoding](LIST), encoding
    assert [remote.id for remote in provider.page().batches] == ["b1"]
    got = provider.download("f", tmp_path / "got")
    assert ((tmp_path / "got").read_bytes(), got.announced, got.bytes) == (LIST, None, len(LIST))


@pytest.mark.parametrize("encoding", ["utf-8", "aws-chunked", "identity", "none, utf-8"])
def test_what_names_no_way_of_packing_packs_nothing(
    provider: Provider, odd: Server, tmp_path: Path, encoding: str
) -> None:
    odd.encoding = encoding
    assert [remote.id for remote in provider.page().batches] == ["b1"]
    got = provider.download("f", tmp_path / "got")
    assert ((tmp_path / "got").read_bytes(), got.announced) == (LIST, len(LIST))


def test_what_is_packed_twice_is_unpacked_twice(provider: Provider, odd: Server) -> None:
    odd.body, odd.encoding = gzip.compress(zlib.compress(LIST)), "deflate, Identity , GZIP"
    assert [remote.id for remote in provider.page().batches] == ["b1"]


@pytest.mark.parametrize(
    ("encoding", "body", "words"),
    [("gzip", gzip.compress(LIST)[:-9], "cut short"), ("gzip", LIST, "and is not"), ("br", LIST, "not asked for")],
    ids=["cut", "plain", "unknown"],
)
def test_what_cannot_be_unpacked_is_said_and_never_half_of_it_believed(
    provider: Provider, odd: Server, tmp_path: Path, encoding: str, body: bytes, words: str
) -> None:
    odd.body, odd.encoding = body, encoding
    with pytest.raises(Unreachable, match=words):
        provider.page()
    with pytest.raises(Unreachable, match=words):
        provider.download("f", tmp_path / "got")


@pytest.mark.parametrize("encoding", ["", "gzip"])
@pytest.mark.parametrize("status", [200, 404, 500])
def test_an_answer_without_end_is_broken_off(
    provider: Provider, odd: Server, monkeypatch: pytest.MonkeyPatch, encoding: str, status: int
) -> None:
    monkeypatch.setattr(bodies, "MOST_ANSWER_BYTES", 3 << 20)
    large = LIST[:-1] + b',"more":"' + b"x" * (4 << 20) + b'"}'
    odd.body, odd.encoding, odd.status = gzip.compress(large) if encoding else large, encoding, status
    for ask in (provider.page, lambda: provider.retrieve("b1")):
        with pytest.raises(Unreachable, match="more than 3 MiB"):
            ask()
    if provider.dialect.uploads:
        with pytest.raises(Unconfirmed, match="more than 3 MiB"):
            provider.create("file-1", endpoint="/v1/x", tag="t", state_id="s")


@pytest.mark.parametrize("status", [300, 302, 307, 404, 500])
def test_whatever_else_answers_a_download_is_bounded_too(
    provider: Provider, odd: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(bodies, "MOST_ANSWER_BYTES", 1 << 20)
    odd.body, odd.status = b"x" * (2 << 20), status
    with pytest.raises(Unreachable, match="more than 1 MiB"):
        provider.download("f", tmp_path / "got")


def test_a_download_that_unpacks_without_end_leaves_the_room_that_is_kept_free(
    provider: Provider, odd: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd.body, odd.encoding = gzip.compress(bytes(200 << 20)), "gzip"
    room = 100 << 20

    class Usage:
        @property
        def free(self) -> int:
            written = (tmp_path / "got").stat().st_size if (tmp_path / "got").exists() else 0
            return room - written

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage())
    with pytest.raises(StateError, match="are free, and a download needs"):
        provider.download("f", tmp_path / "got")
    assert (tmp_path / "got").stat().st_size < room
