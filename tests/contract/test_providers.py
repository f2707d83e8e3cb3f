"""One suite for the provider interface, over each vendor's SDK and real HTTP."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nura_cli import providers
from nura_cli.config import ProviderConfig
from nura_cli.dialects.base import Phase, RemoteBatch, Spec
from nura_cli.errors import KeyRefused, NotFound, ProviderError, RateLimited, Refused, Unconfirmed, Unreachable
from nura_cli.providers.base import Provider
from nura_cli.sandbox import Sandbox
from nura_cli.states import Reason
from tests.conftest import PROTOCOLS

KEY = "sk-secret-1234567890"


def settings(server: Sandbox, protocol: str, folder: Path, **options: Any) -> ProviderConfig:
    """Return the configuration of a provider on a running sandbox."""
    (folder / "key").write_text(KEY)
    base = server.openai_base_url if protocol == "openai" else server.anthropic_base_url
    return ProviderConfig.model_validate(
        {"kind": protocol, "api_key_file": folder / "key", "base_url": base, **options}
    )


@pytest.fixture(params=PROTOCOLS)
def provider(request: pytest.FixtureRequest, server: Sandbox, tmp_path: Path) -> Iterator[Provider]:
    """Each vendor's provider."""
    made = providers.connect("main", settings(server, request.param, tmp_path), tmp_path / "nura.db")
    yield made
    made.close()


def request_file(provider: Provider, folder: Path, n: int = 3, tag: str = "tag") -> Path:
    """Write a request file as dispatch would."""
    dialect = provider.dialect
    spec = Spec(dialect=dialect.name, endpoint=dialect.endpoints[0], model="m", params={"max_tokens": 99})
    body = dialect.body(spec)
    requests = [dialect.request(f"{tag}-{i}".encode(), spec.endpoint, body(f"say {i}")) for i in range(n)]
    path = folder / "requests.jsonl"
    path.write_bytes(dialect.frame.head + dialect.frame.separator.join(requests) + dialect.frame.tail)
    return path


def send(provider: Provider, folder: Path) -> RemoteBatch:
    """Create a batch as dispatch would."""
    path = request_file(provider, folder)
    source = provider.upload(path, "tag.jsonl") if provider.dialect.uploads else path
    return provider.create(source, endpoint=provider.dialect.endpoints[0], tag="tag", state_id="me")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_headers_of_the_configuration_go_with_every_request(server: Sandbox, tmp_path: Path, protocol: str) -> None:
    headers = {"anthropic-beta": "output-300k-2026-03-24,context-1m-2025-08-07", "X-Team": "a b"}
    for name, value in headers.items():
        server.control.fault("wants_header", name=name, value=value)
    plain = providers.connect("main", settings(server, protocol, tmp_path), tmp_path / "nura.db")
    with pytest.raises(Refused, match="header is required"):
        send(plain, tmp_path)
    plain.close()
    made = providers.connect("main", settings(server, protocol, tmp_path, headers=headers), tmp_path / "nura.db")
    remote = made.retrieve(send(made, tmp_path).id)
    assert [found.id for found in made.page().batches] == [remote.id]
    (part,) = remote.parts.values()
    made.download(part, tmp_path / "got")
    assert made.head(part, 10)
    made.cancel(remote.id)
    made.files()
    made.delete(remote)
    made.close()
    answered = [row for row in server.control.log() if row["status"] != 400]
    assert {row["route"] for row in answered} >= {"create", "retrieve", "list", "download", "delete"}
    assert "HTTP" not in (tmp_path / "got").read_text()


def test_a_batch_from_its_create_to_its_deletion(provider: Provider, server: Sandbox, tmp_path: Path) -> None:
    made = send(provider, tmp_path)
    assert made.phase is Phase.RUNNING
    page = provider.page()
    assert [remote.id for remote in page.batches] == [made.id]
    assert (page.next, page.stuck) == (None, False)
    assert page.date is not None
    ended = provider.retrieve(made.id)
    assert (ended.phase, ended.completed, ended.failed) == (Phase.ENDED, 3, 0)
    (part_id,) = ended.parts.values()
    target = tmp_path / "results"
    got = provider.download(part_id, target)
    assert got.bytes == got.announced == target.stat().st_size
    assert target.stat().st_mode & 0o777 == 0o600
    found = [provider.dialect.result(line) for line in target.read_bytes().splitlines()]
    assert sorted(line.custom_id for line in found) == ["tag-0", "tag-1", "tag-2"]
    assert provider.head(part_id, 40) == target.read_bytes()[:40]
    assert not provider.cancel(made.id)  # it has ended: no error
    provider.delete(ended)
    provider.delete(ended)
    with pytest.raises(NotFound):
        provider.download(part_id, target)
    assert server.control.files() == []


def test_a_cancel_is_taken_once_the_provider_itself_says_so(
    provider: Provider, server: Sandbox, tmp_path: Path
) -> None:
    server.control.settings(delay=3600)
    made = send(provider, tmp_path)
    server.control.fault("html", "cancel")
    assert not provider.cancel(made.id)
    server.control.fault("status", "cancel", status=404)  # so soon after a create
    assert not provider.cancel(made.id)
    server.control.fault("status", "cancel", status=409)
    assert not provider.cancel(made.id)
    server.control.fault("status", "cancel", status=429)
    with pytest.raises(RateLimited):
        provider.cancel(made.id)
    assert provider.cancel(made.id)
    assert provider.cancel(made.id)
    assert not provider.cancel(f"{made.id}0")


def test_where_there_is_metadata_the_list_shows_whose_a_batch_is(provider: Provider, tmp_path: Path) -> None:
    made = send(provider, tmp_path)
    (listed,) = provider.page().batches
    told = (listed.tag, listed.state_id, listed.input_file_id is not None)
    assert told == (("tag", "me", True) if provider.dialect.keeps_marks else (None, None, False))
    assert listed.total == (3 if not provider.dialect.uploads else listed.total)
    assert listed.id == made.id


def test_uploads_are_listed_by_their_exact_names(provider: Provider, tmp_path: Path) -> None:
    if not provider.dialect.uploads:
        assert provider.files() == ([], None)
        return
    file_id = provider.upload(request_file(provider, tmp_path), "abc.jsonl")
    uploads, after = provider.files()
    assert [(upload.id, upload.filename) for upload in uploads] == [(file_id, "abc.jsonl")]
    assert after is None
    provider.delete_file(file_id)
    assert provider.files() == ([], None)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"what": "status", "status": 401}, KeyRefused),
        ({"what": "status", "status": 403}, KeyRefused),
        ({"what": "status", "status": 429, "retry_after": 7}, RateLimited),
        ({"what": "status", "status": 400}, Refused),
        ({"what": "status", "status": 402}, Refused),
        ({"what": "status", "status": 413}, Refused),
        ({"what": "status", "status": 422}, Refused),
        ({"what": "status", "status": 404}, NotFound),
        ({"what": "status", "status": 408}, Unconfirmed),
        ({"what": "status", "status": 409}, Unconfirmed),
        ({"what": "status", "status": 500}, Unconfirmed),
        ({"what": "status", "status": 503}, Unconfirmed),
        ({"what": "redirect"}, Unconfirmed),
        ({"what": "html"}, Unconfirmed),
        ({"what": "html", "after": True}, Unconfirmed),
        ({"what": "drop_before"}, Unconfirmed),
        ({"what": "drop_after"}, Unconfirmed),
    ],
)
def test_a_create_is_sent_once_and_only_what_is_certain_is_called_so(
    provider: Provider, server: Sandbox, tmp_path: Path, fault: dict[str, object], kind: type[Exception]
) -> None:
    server.arm({"route": "create", **fault})
    with pytest.raises(kind) as caught:
        send(provider, tmp_path)
    assert type(caught.value) is kind
    assert sum(entry["route"] == "create" for entry in server.control.log()) == 1
    if kind is RateLimited:
        assert isinstance(caught.value, RateLimited)
        assert caught.value.retry_after == 8  # a second to spare


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"what": "status", "status": 401}, KeyRefused),
        ({"what": "status", "status": 429}, RateLimited),
        ({"what": "status", "status": 404}, NotFound),
        ({"what": "status", "status": 500}, Unreachable),
        ({"what": "redirect"}, Unreachable),
        ({"what": "html"}, Unreachable),
        ({"what": "drop_before"}, Unreachable),
    ],
)
def test_reads_that_fail_are_never_doubtful(
    provider: Provider, server: Sandbox, tmp_path: Path, fault: dict[str, object], kind: type[Exception]
) -> None:
    made = send(provider, tmp_path)
    server.arm({"route": "*", "times": -1, **fault})
    with pytest.raises(kind):
        provider.page()
    with pytest.raises(kind):
        provider.retrieve(made.id)


@pytest.mark.parametrize("fault", [{"what": "html"}, {"what": "status", "status": 500}, {"what": "drop_before"}])
def test_a_download_depends_on_no_other_answer(
    provider: Provider, server: Sandbox, tmp_path: Path, fault: dict[str, object]
) -> None:
    ended = provider.retrieve(send(provider, tmp_path).id)
    (part_id,) = ended.parts.values()
    server.arm({"route": "retrieve", "times": -1, **fault})
    assert provider.download(part_id, tmp_path / "x").bytes > 0
    assert provider.head(part_id, 1 << 20) == (tmp_path / "x").read_bytes()


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_cut_download_is_said_to_be_cut(provider: Provider, server: Sandbox, tmp_path: Path, framing: str) -> None:
    ended = provider.retrieve(send(provider, tmp_path).id)
    server.control.fault("truncate", "download", framing=framing)
    with pytest.raises(Unreachable):
        provider.download(next(iter(ended.parts.values())), tmp_path / "x")


def test_a_body_without_a_length_has_none_announced(provider: Provider, server: Sandbox, tmp_path: Path) -> None:
    ended = provider.retrieve(send(provider, tmp_path).id)
    server.control.fault("truncate", "download", framing="close")
    got = provider.download(next(iter(ended.parts.values())), tmp_path / "x")
    assert got.announced is None
    assert got.bytes > 0


def test_a_list_that_does_not_advance_is_noticed(provider: Provider, server: Sandbox, tmp_path: Path) -> None:
    send(provider, tmp_path)
    server.control.fault("stuck_list", times=-1)
    first = provider.page()
    assert provider.page(first.next or first.batches[-1].id).stuck


def test_nothing_left_when_nobody_listens(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for protocol in PROTOCOLS:
        (tmp_path / "key").write_text(KEY)
        base = f"http://127.0.0.1:{port}" + ("/v1" if protocol == "openai" else "")
        config = ProviderConfig.model_validate({"kind": protocol, "api_key_file": tmp_path / "key", "base_url": base})
        made = providers.connect("main", config, tmp_path / "nura.db")
        source: Path | str = "file-x" if made.dialect.uploads else request_file(made, tmp_path)
        with pytest.raises(Unreachable):
            made.create(source, endpoint=made.dialect.endpoints[0], tag="t", state_id="s")
        made.close()


def test_the_environment_counts_for_nothing(
    server: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/trap")
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, "trap")
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "x-api-key: trap")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-trap: trap")
    server.control.settings(accept_keys=[KEY])
    for protocol in PROTOCOLS:
        made = providers.connect("main", settings(server, protocol, tmp_path), tmp_path / "nura.db")
        assert made.page().batches == []
        made.close()
    assert os.environ["OPENAI_ORG_ID"] == "trap"


@pytest.mark.parametrize("form", ["list", "dict", "in_words"])
def test_a_refused_create_carries_each_line_that_it_names(
    provider: Provider, server: Sandbox, tmp_path: Path, form: str
) -> None:
    server.control.fault("refuse", at="create", errors=form, code="bad", message="no", match="say 1", line="matches")
    with pytest.raises(Refused) as caught:
        send(provider, tmp_path)
    (fault,) = caught.value.faults
    assert (fault.code, fault.line) == ("bad", 2)
    assert (fault.message or "").endswith("no")
    assert (caught.value.code, caught.value.http_status) == ("bad", 400)


@pytest.mark.parametrize(
    ("status", "code", "words", "reason"),
    [
        (400, "invalid_request_error", "File is too large.", Reason.TOO_LARGE),
        (413, "odd", "whatever", Reason.TOO_LARGE),
        (400, "invalid_request_error", "Your credit balance is too low to access the API.", Reason.SETTINGS),
        (402, "odd", "Insufficient Balance", Reason.SETTINGS),
        (429, "odd", "Enqueued request limit reached for m. Limit: 1,000,000 enqueued requests.", Reason.TOO_MUCH),
        (422, "odd", "whatever", Reason.CONTENT),
    ],
)
def test_a_refusal_says_in_the_vendors_own_words_what_it_comes_down_to(
    provider: Provider, server: Sandbox, tmp_path: Path, status: int, code: str, words: str, reason: Reason
) -> None:
    route = "upload" if provider.dialect.uploads else "create"
    server.control.fault("status", route, status=status, code=code, message=words)
    with pytest.raises(Refused) as caught:
        send(provider, tmp_path)
    (fault,) = caught.value.faults
    assert fault.message == words
    assert provider.dialect.reason(fault) is reason


def test_a_key_that_the_server_repeats_is_not_repeated_here(provider: Provider, server: Sandbox) -> None:
    server.control.fault(
        "status", "*", status=400, message=f"Incorrect API key provided: {KEY}. \x1b[31m sk-proj-abc***xyz"
    )
    with pytest.raises(ProviderError) as caught:
        provider.page()
    assert KEY not in f"{caught.value}{caught.value.faults}"
    assert "sk-proj" not in f"{caught.value}{caught.value.faults}"
    assert "\x1b" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_embedded_sandbox_remembers_from_one_connection_to_the_next(tmp_path: Path) -> None:
    for protocol in PROTOCOLS:
        config = ProviderConfig.model_validate({"kind": "sandbox", "protocol": protocol})
        first = providers.connect(protocol, config, tmp_path / "nura.db")
        made = send(first, tmp_path)
        first.close()
        second = providers.connect(protocol, config, tmp_path / "nura.db")
        assert second.retrieve(made.id).phase is Phase.ENDED
        second.close()


def test_dialects_load_no_sdk() -> None:
    code = (
        "import sys, json; from nura_cli.dialects import vendors; [vendors.dialect(name) for name in vendors.names()];"
        "print(json.dumps([m for m in ('openai', 'anthropic', 'httpx2') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout) == []
