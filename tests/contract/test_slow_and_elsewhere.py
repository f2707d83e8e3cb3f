"""Servers that drip, that keep results elsewhere, and that have only a part of the protocol: both vendors' connections."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from nura_cli import providers
from nura_cli.errors import NoEndpoint, NotFound, ProviderError, Unconfirmed, Unreachable
from nura_cli.providers import deadlines, redirects, wire
from nura_cli.providers.base import Provider
from nura_cli.sandbox import Sandbox
from tests.conftest import PROTOCOLS
from tests.contract.test_providers import request_file, send, settings

PATIENCE = 0.4


@pytest.fixture(params=PROTOCOLS)
def provider(request: pytest.FixtureRequest, server: Sandbox, tmp_path: Path) -> Iterator[Provider]:
    """Each vendor's provider, with a header of its own."""
    config = settings(server, request.param, tmp_path, headers={"X-Team": "a secret"})
    made = providers.connect("main", config, tmp_path / "nura.db")
    yield made
    made.close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have little patience, and never enough of it."""
    for name in ("READ_SECONDS", "SEND_SECONDS"):
        monkeypatch.setattr(wire, name, PATIENCE)
    monkeypatch.setattr(deadlines, "MOST_CUTS", 100)


def ended(provider: Provider, folder: Path, n: int = 3) -> str:
    """Return the one part of an ended batch's results."""
    path = request_file(provider, folder, n)
    source = provider.upload(path, "tag.jsonl") if provider.dialect.uploads else path
    made = provider.create(source, endpoint=provider.dialect.endpoints[0], tag="tag", state_id="me")
    (part,) = provider.retrieve(made.id).parts.values()
    return part


CALLS: dict[str, Callable[[Provider, Path, str], Any]] = {
    "list": lambda provider, folder, part: provider.page(),
    "retrieve": lambda provider, folder, part: provider.retrieve("batch_1"),
    "download": lambda provider, folder, part: provider.download(part, folder / "x"),
    "head": lambda provider, folder, part: provider.head(part, 1 << 20),
    "cancel": lambda provider, folder, part: provider.cancel("batch_1"),
    "create": lambda provider, folder, part: send(provider, folder),
}


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("part", ["head", "body"])
@pytest.mark.parametrize("call", CALLS)
def test_an_answer_that_drips_is_cut(provider: Provider, server: Sandbox, tmp_path: Path, call: str, part: str) -> None:
    results = ended(provider, tmp_path)
    server.control.fault("drip", "*", part=part, seconds=0.05, times=-1)
    began = time.monotonic()
    with pytest.raises(ProviderError, match="was over") as caught:
        CALLS[call](provider, tmp_path, results)
    assert time.monotonic() - began < 3 * PATIENCE
    uploaded_only = provider.dialect.uploads  # there the create is never reached
    assert type(caught.value) is (Unconfirmed if call == "create" and not uploaded_only else Unreachable)


@pytest.mark.usefixtures("hasty")
def test_a_download_that_is_slow_and_steady_comes_home(provider: Provider, server: Sandbox, tmp_path: Path) -> None:
    results = ended(provider, tmp_path, 120)
    server.control.fault("drip", "download", bytes=2000, seconds=0.04)
    began = time.monotonic()
    got = provider.download(results, tmp_path / "x")
    assert got.bytes == got.announced
    assert time.monotonic() - began > PATIENCE


@pytest.mark.usefixtures("hasty")
def test_a_disk_that_stalls_is_not_the_servers_fault(
    provider: Provider, server: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = ended(provider, tmp_path, 120)
    server.control.fault("drip", "download", bytes=20_000, seconds=0.01)
    monkeypatch.setattr(deadlines, "MOST_CUTS", 1)
    monkeypatch.setattr(wire, "_check_room", lambda *_: time.sleep(1.5 * PATIENCE))
    for _ in range(2):
        got = provider.download(results, tmp_path / "x")
        assert got.bytes == got.announced


@pytest.mark.parametrize("host", ["other", "same"])
def test_results_that_lie_elsewhere_are_fetched_there_without_the_key(
    provider: Provider, server: Sandbox, tmp_path: Path, host: str
) -> None:
    results = ended(provider, tmp_path)
    whole = provider.download(results, tmp_path / "whole")
    server.control.fault("elsewhere", host=host, times=-1)
    assert provider.download(results, tmp_path / "x") == whole
    assert provider.head(results, 40) == (tmp_path / "whole").read_bytes()[:40]
    assert [row["status"] for row in server.control.log() if row["route"] == "stored"] == [200, 200]


def test_a_second_redirect_is_not_followed(provider: Provider, server: Sandbox, tmp_path: Path) -> None:
    results = ended(provider, tmp_path)
    server.control.fault("elsewhere", again=True, times=-1)
    with pytest.raises(Unreachable, match="redirected to localhost") as caught:
        provider.download(results, tmp_path / "x")
    assert "s3cret" not in str(caught.value)


def test_what_a_store_answers_is_no_word_of_the_providers(provider: Provider, server: Sandbox, tmp_path: Path) -> None:
    results = ended(provider, tmp_path)
    to = server.url.replace("127.0.0.1", "localhost")
    server.control.fault("redirect", "download", to=f"{to}/_stored/none", status=302)
    server.control.fault("elsewhere")
    with pytest.raises(Unreachable, match="HTTP 403"):  # of a store's, and about no key of ours
        provider.download(results, tmp_path / "x")
    server.control.fault("redirect", "download", to=f"{to}/v1/nothing", status=302)
    with pytest.raises(Unreachable, match="redirected to localhost"):
        provider.download(results, tmp_path / "x")


@pytest.mark.parametrize("status", [405, 501])
def test_what_says_that_an_endpoint_is_missing_says_so_of_questions_alone(
    provider: Provider, server: Sandbox, tmp_path: Path, status: int
) -> None:
    results = ended(provider, tmp_path)
    for route in ("download", "cancel", "delete"):
        server.control.fault("status", route, status=status, times=-1)
    batch = provider.page().batches[0]
    for call in (
        lambda: provider.download(results, tmp_path / "x"),
        lambda: provider.head(results, 40),
        lambda: provider.cancel(batch.id),
        lambda: provider.delete(batch),
    ):
        with pytest.raises(Unreachable, match=f"HTTP {status}"):
            call()


def test_any_other_redirect_is_told_in_words(provider: Provider, server: Sandbox, tmp_path: Path) -> None:
    server.control.fault("redirect", "*", to="https://elsewhere.example/v2?key=1", times=-1)
    words = r"redirects to https://elsewhere\.example/v2, and is not followed; set base_url"
    with pytest.raises(Unreachable, match=words):
        provider.page()
    with pytest.raises(Unreachable, match=words):
        provider.retrieve("batch_1")
    source: Path | str = "file-1" if provider.dialect.uploads else request_file(provider, tmp_path)
    with pytest.raises(Unconfirmed, match=words):
        provider.create(source, endpoint=provider.dialect.endpoints[0], tag="tag", state_id="me")


@pytest.mark.parametrize(
    ("asked", "to", "kept"),
    [
        ("https://a.example/x", "/y", "all"),
        ("https://a.example/x", "https://a.example:443/y", "all"),
        ("https://a.example/x", "https://a.example:8443/y", "plain"),
        ("https://a.example/x", "https://b.a.example/y", "plain"),
        ("https://a.example/x", "//b.example/y", "plain"),
        ("http://a.example/x", "https://a.example/y", "plain"),
        ("https://a.example/x", "http://a.example/y", "none"),
        ("https://a.example/x", "file:///etc/passwd", "none"),
        ("https://a.example/x", "http://[", "none"),
        ("https://a.example/x", "", "none"),
    ],
)
def test_the_key_goes_along_only_to_the_same_server(asked: str, to: str, kept: str) -> None:
    headers = {"Authorization": "Bearer k", "X-Api-Key": "k", "X-Team": "t", "Accept": "application/binary"}
    answer = httpx2.Response(302, headers={"Location": to}, request=httpx2.Request("GET", asked, headers=headers))
    onward = redirects.onward(answer)
    names = None if onward is None else {name for name, _ in onward.headers}
    plain = {"accept"}
    assert names == {"all": plain | {"authorization", "x-api-key", "x-team"}, "plain": plain, "none": None}[kept]


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_service_without_a_list_or_single_batches_says_so(
    provider: Provider, server: Sandbox, tmp_path: Path, status: int
) -> None:
    server.control.fault("status", "list", status=status, times=-1)
    with pytest.raises(NoEndpoint, match="has no list of batches"):
        provider.page()
    server.control.fault("status", "retrieve", status=status, times=-1)
    with pytest.raises(NotFound):
        provider.retrieve("batch_1")


def test_whether_an_uploaded_file_is_ready(server: Sandbox, tmp_path: Path) -> None:
    made = providers.connect("main", settings(server, "openai", tmp_path), tmp_path / "nura.db")
    again = providers.connect("main", settings(server, "openai", tmp_path), tmp_path / "nura.db")
    path = request_file(made, tmp_path)
    quick = made.upload(path, "a.jsonl")
    assert made.processed(quick) is True
    assert not any(row["route"] == "file" for row in server.control.log())  # the upload's answer said so
    slow = server.control.fault("slow_files", seconds=60)
    file_id = made.upload(path, "b.jsonl")
    assert (made.processed(file_id), again.processed(file_id)) == (False, False)
    server.control.clear(slow)
    assert made.processed(file_id) is True
    for word, ready in (("uploaded", None), ("odd", None), ("RUNNING", False), ("Succeeded", True)):
        quirk = server.control.fault("slow_files", ends=word, seconds=0)
        assert again.processed(file_id) is ready
        server.control.clear(quirk)
    server.control.fault("slow_files", ends="error", seconds=0)
    with pytest.raises(ProviderError, match="the file is error"):
        made.processed(file_id)
    for status in (401, 404, 405, 500):
        server.control.fault("status", "file", status=status)
        assert made.processed(file_id) is None
    server.control.fault("html", "file")
    assert made.processed(file_id) is None
    made.close()
    again.close()
