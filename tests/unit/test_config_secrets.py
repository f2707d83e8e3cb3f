"""Secrets: read when asked for, from where the configuration says, and shown nowhere."""

import json
import sys
import traceback
from pathlib import Path

import pytest

from nura_cli import config
from nura_cli.config import ProviderConfig
from nura_cli.errors import ConfigError

KEY = "sk-proj-abcdefghijklmnop"


def provider(tmp_path: Path, options: str) -> ProviderConfig:
    path = tmp_path / "nura.yaml"
    path.write_text(f"providers: {{p: {{{options}}}}}")
    return config.load(path).providers["p"]


def refused(found: ProviderConfig) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        found.secret()
    assert KEY not in "".join(traceback.format_exception(caught.value))
    return caught.value


def printing(code: str, *arguments: str) -> str:
    """Return a provider whose key is what a program prints."""
    return f"kind: anthropic, api_key_command: {json.dumps([sys.executable, '-c', code, *arguments])}"


def test_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = provider(tmp_path, "kind: openai, api_key_env: NURA_TEST_KEY")
    monkeypatch.setenv("NURA_TEST_KEY", KEY + "\n")
    assert found.secret() == KEY
    monkeypatch.setenv("NURA_TEST_KEY", " ")
    assert "NURA_TEST_KEY is not set, or empty" in refused(found).message
    monkeypatch.delenv("NURA_TEST_KEY")
    error = refused(found)
    assert "NURA_TEST_KEY is not set, or empty" in error.message
    assert "use a file" in str(error.hint)


def test_from_a_file(tmp_path: Path) -> None:
    found = provider(tmp_path, "kind: openai, api_key_file: key")
    assert "key: No such file or directory" in refused(found).message
    (tmp_path / "key").write_text(KEY + "\n")
    (tmp_path / "key").chmod(0o600)
    assert found.secret() == KEY
    (tmp_path / "key").write_text("\n")
    assert "is not set, or empty" in refused(found).message
    (tmp_path / "key").write_bytes(b"\xff\xfe")
    assert "not UTF-8" in refused(found).message


def test_from_a_file_that_anyone_may_write_to(tmp_path: Path) -> None:
    found = provider(tmp_path, "kind: openai, api_key_file: key")
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "key").chmod(0o666)
    error = refused(found)
    assert "anyone may write to it" in error.message
    assert error.hint == f"chmod 600 {tmp_path / 'key'}"


def test_from_a_command(tmp_path: Path) -> None:
    assert provider(tmp_path, printing(f'print("{KEY}")')).secret() == KEY
    assert "is not set, or empty" in refused(provider(tmp_path, printing("pass"))).message
    failing = printing(f'import sys; print("{KEY}"); sys.exit("{KEY}")')
    assert "ended with exit code 1" in refused(provider(tmp_path, failing)).message
    absent = provider(tmp_path, "kind: openai, api_key_command: [./absent]")
    assert f"{tmp_path}/absent: cannot be run" in refused(absent).message


def test_a_command_is_no_shell(tmp_path: Path) -> None:
    found = provider(tmp_path, printing("import sys; print(sys.argv[1])", "$(echo;id)"))
    assert found.secret() == "$(echo;id)"


@pytest.mark.parametrize("value", [f"{KEY}\nmore", f"{KEY}\x1b[0m", f"{KEY}é"])
def test_what_cannot_be_a_key_is_refused_without_showing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("NURA_TEST_KEY", value)
    assert "no key has" in refused(provider(tmp_path, "kind: openai, api_key_env: NURA_TEST_KEY")).message


def test_the_sandbox_needs_none(tmp_path: Path) -> None:
    assert provider(tmp_path, "kind: sandbox").secret()


def test_reading_the_configuration_reads_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NURA_TEST_KEY", raising=False)
    marker = tmp_path / "ran"
    code = f'open("{marker}", "w")'
    path = tmp_path / "nura.yaml"
    path.write_text(f"providers: {{a: {{kind: openai, api_key_env: NURA_TEST_KEY}}, b: {{{printing(code)}}}}}")
    assert list(config.load(path).providers) == ["a", "b"]
    assert not marker.exists()


def test_a_key_is_not_part_of_what_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NURA_TEST_KEY", KEY)
    found = provider(tmp_path, "kind: openai, api_key_env: NURA_TEST_KEY")
    assert found.secret() == KEY
    assert KEY not in repr(found) + str(found) + found.model_dump_json()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (f"kind: openai, api_key: {KEY}", "use api_key_env or api_key_file or api_key_command"),
        (f"kind: openai, password: {KEY}", "use api_key_env or api_key_file or api_key_command"),
        (f"kind: openai, api_key_env: {KEY}", "must be the name of an environment variable"),
        (f"kind: openai, api_key_file: {KEY}", "this looks like the key itself"),
        (f"kind: openai, api_key_env: A, limits: {KEY}", "must be a mapping of options"),
        (f"kind: openai, api_key_env: A, base_url: 'https://u:{KEY}@x.example'", "without credentials"),
        (f"kind: {KEY}, api_key_env: A", "must be 'openai'"),
    ],
)
def test_a_key_in_the_file_is_refused_without_showing_it(tmp_path: Path, options: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        provider(tmp_path, options)
    assert words in caught.value.message
    assert KEY not in "".join(traceback.format_exception(caught.value))
