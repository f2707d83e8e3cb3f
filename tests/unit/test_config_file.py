"""The configuration file as a file: where it is looked for, and how its YAML is read."""

import os
from pathlib import Path
from typing import Any

import pytest

from nura_cli import config_file
from nura_cli.errors import EX_CONFIG, ConfigError


def value(text: str) -> Any:
    document, _, problems = config_file.load(f"a: {text}\n")
    assert problems == []
    return document["a"]


def wrong(text: str) -> list[tuple[str, int | None]]:
    """Return the place and line of everything that is wrong with a text."""
    document, _, problems = config_file.load(text)
    assert document is None
    return [(found.where, found.line) for found in problems]


@pytest.mark.parametrize(
    "text", ["yes", "no", "on", "off", "True", "FALSE", "y", "NULL", "Null", "2001-01-01", "12:30:00"]
)
def test_words_dates_and_times_stay_text(text: str) -> None:
    assert value(text) == text


@pytest.mark.parametrize(
    "text", ["1_000", "0x1F", "0o17", "017", "1:30", ".inf", ".nan", "1e", "e1", ".", "1.2.3", "<<", "="]
)
def test_what_only_looks_like_a_number_stays_text(text: str) -> None:
    assert value(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("0", 0),
        ("-12", -12),
        ("+5", 5),
        ("1.50", 1.5),
        (".5", 0.5),
        ("-0.25", -0.25),
        ("1e3", 1000.0),
        ("2.", 2.0),
        ('"5"', "5"),
        ("'true'", "true"),
        ("!!str 5", "5"),
    ],
)
def test_scalars_of_yaml_1_2(text: str, expected: object) -> None:
    found = value(text)
    assert (found, type(found)) == (expected, type(expected))


def test_names_are_text_as_in_json() -> None:
    assert value("{1: a, true: b, null: c, no: d}") == {"1": "a", "true": "b", "null": "c", "no": "d"}


@pytest.mark.parametrize("text", ["!!timestamp 2001-01-01", "!!binary aGk=", "!!bool maybe", "!!int 0x1F", "!!set {a}"])
@pytest.mark.parametrize("place", ["a: {}", "a: [{}]"])
def test_a_tag_that_makes_something_else_of_a_value_is_refused(text: str, place: str) -> None:
    assert {line for _, line in wrong(place.format(text))} == {1}


def test_a_tag_runs_nothing(tmp_path: Path) -> None:
    target = tmp_path / "made"
    assert wrong(f"a: !!python/object/apply:pathlib.Path.touch [!!python/object:pathlib.Path {target}]") != []
    assert not target.exists()


def test_numbers_past_what_json_readers_take_are_refused() -> None:
    assert wrong("a: 1e999\nb: " + "9" * 5000) == [("a", 1), ("b", 2)]


def test_a_name_that_stands_twice_is_refused_wherever_it_is() -> None:
    assert wrong('a: 1\nb:\n  - {c: 1, c: 2}\na: 2\n"1": x\n1: y') == [("b.0.c", 3), ("a", 4), ("1", 6)]


def test_a_name_that_is_no_text_is_refused() -> None:
    assert wrong("a:\n  ? [b]\n  : 1") == [("a", 2)]


@pytest.mark.parametrize(
    "template",
    [
        *("{{ x }}", "{{x}}", "{{ x.y }}", "{{ x | default('a') }}", "{{ x }} and {{ y }}", "{{ x }}: {{ y }}"),
        *("Summarise: {{ x }}", "{% if x %}a{% endif %}", "{# a note #} {{ x }}", "`{{ x }}`"),
    ],
)
def test_a_template_without_quotes_is_said_to_need_them(template: str) -> None:
    document, _, [problem] = config_file.load(f"workloads:\n  w:\n    prompt: {template}\n    model: m\n")
    assert document is None
    assert """in quotes, as in "{{ title }}", or on lines of its own under |""" in problem.message


@pytest.mark.parametrize("value", ["'{{ x }}'", "Say {{ x }}", '"Summarise: {{ x }}"', "|\n      {{ x }}: {{ y }}"])
def test_a_template_with_quotes_needs_none(value: str) -> None:
    document, _, problems = config_file.load(f"workloads:\n  w:\n    prompt: {value}\n")
    assert "{{ x }}" in document["workloads"]["w"]["prompt"]
    assert problems == []


def test_every_place_has_its_line() -> None:
    _, marks, _ = config_file.load("a:\n  b:\n    - 1\n    - c: 2\n")
    assert (marks["a",], marks["a", "b"], marks["a", "b", 1], marks["a", "b", 1, "c"]) == (1, 2, 4, 4)


def test_aliases_stand_for_what_they_name() -> None:
    document, _, problems = config_file.load("a: &x {b: 1}\nc: *x\n")
    assert (document, problems) == ({"a": {"b": 1}, "c": {"b": 1}}, [])


LAUGHS = "l0: &l0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        "a: &a [*a]",
        "a: &a {b: *a}",
        "[" * 100_000,
        "- " * 100_000,
        "a: " + "{a: " * 100_000,
        "a: *b",
        "a: [1",
        "a:\n\t- b",
        "a: b\n---\nc: d",
        "a: \0",
        'a: "\\ud800"',
        "a: !<",
        "%YAML 9.9\n---\na: b",
        "a: b: c",
    ],
    ids=lambda text: text[:12],
)
def test_hostile_and_broken_files_end_in_one_plain_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "nura.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config_file.read_yaml(path)
    assert caught.value.exit_code == EX_CONFIG
    assert len(caught.value.problems) == 1
    assert caught.value.message.startswith(f"{path}:")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("data", [b"", b"# nothing\n", b"- a\n", b"word\n", b"a: \xe9\n", "a: b".encode("utf-16")])
def test_what_is_no_mapping_in_utf_8_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "nura.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"nura\.yaml: (is empty, or not a mapping|cannot be read: it is not UTF-8)"):
        config_file.read_yaml(path)


def test_a_bom_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "nura.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: b\n")
    assert config_file.read_yaml(path)[0] == {"a": "b"}


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        config_file.read_yaml(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        config_file.read_yaml(tmp_path / "absent")


def place(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a: b\n")
    return path


def test_the_first_place_that_has_one_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    env = {"HOME": str(tmp_path)}
    home = place(tmp_path / ".config/nura/config.yaml")
    assert config_file.find(None, env) == home
    xdg = place(tmp_path / "xdg/nura/config.yaml")
    env["XDG_CONFIG_HOME"] = str(tmp_path / "xdg")
    assert config_file.find(None, env) == xdg
    place(work / "nura.yaml")
    assert config_file.find(None, env) == Path("nura.yaml")
    env["NURA_CONFIG"] = str(place(tmp_path / "env.yaml"))
    assert config_file.find(None, env) == tmp_path / "env.yaml"
    assert config_file.find(place(tmp_path / "given.yaml"), env) == tmp_path / "given.yaml"


def test_one_that_is_named_and_absent_is_no_reason_to_take_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place(tmp_path / "nura.yaml")
    with pytest.raises(ConfigError, match=r"absent: No such file or directory \(from --config\)"):
        config_file.find(tmp_path / "absent", {})
    with pytest.raises(ConfigError, match=r"~nobody-of-that-name/x: No such file or directory \(from NURA_CONFIG\)"):
        config_file.find(None, {"NURA_CONFIG": "~nobody-of-that-name/x"})


def test_none_found_lists_the_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        config_file.find(None, {"HOME": str(tmp_path)})
    for listed in ("nura.yaml", f"{tmp_path}/.config/nura/config.yaml", "/etc/nura/config.yaml"):
        assert listed in caught.value.message
    assert "--config" in str(caught.value.hint)


def test_a_pipe_may_be_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert config_file.find(tmp_path / "pipe", {}) == tmp_path / "pipe"


def test_the_state_file_lies_beside_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    path = tmp_path / "nura.yaml"
    assert config_file.state_path(path, {}) == tmp_path / "nura.db"
    assert config_file.state_path(path, {"state": "var/n.db"}) == tmp_path / "var/n.db"
    assert config_file.state_path(path, {"state": "/var/n.db"}) == Path("/var/n.db")
    assert config_file.state_path(path, {"state": "~/n.db"}) == Path("/home/someone/n.db")
