"""The configuration: found, read as YAML 1.2, and all its problems told at once."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from nura_cli import config, config_file
from nura_cli.errors import ConfigError

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"
GOOD = "providers: {box: {kind: sandbox}}\nworkloads: {w: {provider: box, model: m, prompt: x}}\n"


def load(folder: Path, text: str) -> config.Config:
    path = folder / "nura.yaml"
    path.write_text(text)
    return config.load(path)


def problems(folder: Path, text: str) -> dict[str, tuple[int | None, str]]:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    assert caught.value.exit_code == 78
    return {found.where: (found.line, found.message) for found in caught.value.problems}


def test_the_example_loads_as_it_stands_and_names_every_option() -> None:
    loaded = config.load(EXAMPLE)
    assert set(loaded.workloads) == {"classify", "raw"}
    text = EXAMPLE.read_text()
    models = (
        config.Config, config.ProviderConfig, config.LimitsConfig, config.WorkloadConfig, config.DispatchConfig,
        config.RetryConfig,
    )  # fmt: skip
    for model in models:
        for name, field in model.model_fields.items():
            if not field.exclude:
                assert f"{field.alias or name}:" in text, name
                assert field.description, name


def test_the_first_place_that_has_a_file_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    env = {"HOME": str(home)}
    with pytest.raises(ConfigError) as caught:
        config_file.find(None, env)
    for place in ("nura.yaml", str(home / ".config/nura/config.yaml"), "/etc/nura/config.yaml"):
        assert place in caught.value.message
    usual = home / ".config/nura/config.yaml"
    usual.parent.mkdir(parents=True)
    usual.write_text(GOOD)
    assert config_file.find(None, env) == usual
    (tmp_path / "nura.yaml").write_text(GOOD)
    assert config_file.find(None, env) == Path("nura.yaml")
    (tmp_path / "named.yaml").write_text(GOOD)
    assert config_file.find(None, {**env, "NURA_CONFIG": str(tmp_path / "named.yaml")}) == tmp_path / "named.yaml"
    with pytest.raises(ConfigError, match="--config"):
        config_file.find(tmp_path / "absent.yaml", env)


def test_all_problems_come_at_once_with_their_lines(tmp_path: Path) -> None:
    text = """\
remind: yes
providers:
  box: {kind: sandboxx}
  gpt: {kind: openai, api_key_env: A, limits: {request: 4}}
workloads:
  w:
    provider: box
    modle: m
    retry: {max_attempts: 0}
"""
    found = problems(tmp_path, text)
    assert found["remind"][0] == 1
    assert "30s" in found["remind"][1]
    assert found["providers.box.kind"][0] == 3
    assert found["providers.gpt.limits.request"] == (4, "unknown option; did you mean requests?")
    assert found["workloads.w.modle"] == (8, "unknown option; did you mean model?")
    assert found["workloads.w.retry.max_attempts"][0] == 9


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("providers: {gpt: {kind: openai, api_key: sk-1}}", "providers.gpt.api_key", "api_key_file"),
        ("providers: {gpt: {kind: openai}}", "providers.gpt", "api_key_env"),
        ("providers: {gpt: {kind: openai, api_key_env: A, api_key_file: b}}", "providers.gpt", "one of"),
        ("providers: {gpt: {kind: openai, api_key_env: A, base_url: 'https://u:p@x'}}", "providers.gpt", "credentials"),
        ("providers: {a/b: {kind: sandbox}}", "providers.a/b", "letters"),
        (GOOD.replace("provider: box", "provider: bax"), "workloads.w.provider", "did you mean box"),
        (GOOD.replace("model: m, ", ""), "workloads.w", "needs a model"),
        (GOOD.replace("prompt: x", "system: x"), "workloads.w", "ready lines"),
        (GOOD.replace("prompt: x", "prompt: x, params: {model: y}"), "workloads.w.params.model", "itself"),
        (GOOD.replace("prompt: x", "prompt: x, endpoint: /v1/videos"), "workloads.w.endpoint", "ready lines"),
        (GOOD.replace("kind: sandbox", "kind: sandbox, protocol: anthropic"), "workloads.w.params", "max_tokens"),
        ("providers: {}", "providers", "at least one"),
    ],
)
def test_mistakes_are_named_with_the_way_out(tmp_path: Path, text: str, where: str, words: str) -> None:
    found = problems(tmp_path, text)
    assert words in found[where][1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("- 1\n", "mapping"),
        ("a: [1\nb: 2\n", "flow sequence"),
        ("state: a\nstate: b\n", "stands here twice"),
        ("a: &a [x, x]\nb: &b [*a, *a]\n" + "".join(f"{chr(99 + i)}: &{chr(99 + i)} [{', '.join([f'*{chr(98 + i)}'] * 9)}]\n" for i in range(9)), "aliases"),
    ],
)  # fmt: skip
def test_files_that_are_no_configuration(tmp_path: Path, text: str, words: str) -> None:
    start = time.monotonic()
    with pytest.raises(ConfigError, match=words):
        load(tmp_path, text)
    assert time.monotonic() - start < 60  # bounded, not timed


def test_a_file_that_is_not_utf8_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "nura.yaml").write_bytes(b"state: \xff\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        config.load(tmp_path / "nura.yaml")


def test_scalars_are_those_of_yaml_1_2() -> None:
    text = (
        "a: on\nb: 012\nc: 1:30\nd: 2020-01-01\ne: true\nf: True\ng: 1e3\nh: ~\ni:\nj: 0x10\nk: 1_000\nl: -5\nm: no\n"
    )
    found, marks, wrong = config_file.load(text)
    assert found == {
        "a": "on", "b": "012", "c": "1:30", "d": "2020-01-01", "e": True, "f": "True", "g": 1000.0, "h": None,
        "i": None, "j": "0x10", "k": "1_000", "l": -5, "m": "no",
    }  # fmt: skip
    assert marks[("c",)] == 3
    assert wrong == []


def test_paths_are_relative_to_the_file_and_never_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    (tmp_path / "p.txt").write_text("Say {{ x }}")
    text = (
        "providers: {g: {kind: openai, api_key_file: k}}\nworkloads: {w: {provider: g, model: m, prompt_file: p.txt}}\n"
    )
    loaded = load(tmp_path, text)
    assert loaded.state == tmp_path / "nura.db"
    assert loaded.providers["g"].api_key_file == tmp_path / "k"
    assert config.prompt_text(loaded.workloads["w"]) == "Say {{ x }}"
    (tmp_path / "p.txt").unlink()
    with pytest.raises(ConfigError, match=r"workloads\.w\.prompt_file"):
        config.prompt_text(loaded.workloads["w"])


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("30s", 30), ("15m", 900), ("1h30m", 5400), ("7d", 604800)])
def test_lengths_of_time(tmp_path: Path, text: str, seconds: int) -> None:
    assert load(tmp_path, GOOD + f"remind: {text}\n").remind == seconds


@pytest.mark.parametrize("text", ["-1", "1.5h", "soon", "1w", "''"])
def test_lengths_of_time_that_are_none(tmp_path: Path, text: str) -> None:
    assert "remind" in problems(tmp_path, GOOD + f"remind: {text}\n")


def test_sizes_and_never(tmp_path: Path) -> None:
    text = "providers: {box: {kind: sandbox, cleanup_after: never, limits: {bytes: 64KiB}}}"
    box = load(tmp_path, text).providers["box"]
    assert (box.limits.bytes, box.cleanup_after) == (65536, None)
    assert load(tmp_path, text.replace("never", "0s")).providers["box"].cleanup_after == 0


def provider(**options: Any) -> config.ProviderConfig:
    return config.ProviderConfig.model_validate({"kind": "openai", **options})


def test_a_key_is_read_from_the_environment_a_file_or_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "sk-env")
    assert provider(api_key_env="A_KEY").secret() == "sk-env"
    (tmp_path / "key").write_text("sk-file\n")
    assert provider(api_key_file=tmp_path / "key").secret() == "sk-file"
    assert provider(api_key_command=["echo", "sk-command"]).secret() == "sk-command"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"api_key_env": "NO_SUCH_KEY"}, "NO_SUCH_KEY"),
        ({"api_key_file": "/no/such/file"}, "/no/such/file"),
        ({"api_key_command": ["false"]}, "exit code 1"),
        ({"api_key_command": ["/no/such/program"]}, "cannot be run"),
        ({"api_key_command": ["printf", "two\nlines"]}, "more than one line"),
    ],
)
def test_a_key_that_cannot_be_read_names_its_option_and_no_value(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        provider(**options).secret()
    assert "two" not in caught.value.message
    assert os.environ.get("NO_SUCH_KEY") is None
