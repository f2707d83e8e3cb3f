"""The reference that ships with nura: what it says is what the code says, and nothing is left out."""

import ast
import configparser
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import typer

import nura_cli
from nura_cli import config as configuration
from nura_cli import config_file, contract, errors, reference
from nura_cli.cli import COMMANDS, build, helptext
from nura_cli.cli import help as topics
from nura_cli.config import Config
from nura_cli.delivery.events import Event, Webhook
from nura_cli.environment import VARIABLES
from nura_cli.errors import ProblemKind
from nura_cli.states import BatchStatus, ErrorKind, EventType, Excuse, TaskStatus, Why
from tests.receiver import SECRET

ROOT = Path(__file__).parents[2]
PACKAGE = Path(nura_cli.__file__).parent
README = (ROOT / "README.md").read_text()
EXAMPLE = (ROOT / "config.example.yaml").read_text()
GROUP: Any = typer.main.get_command(build())


@pytest.mark.parametrize("name", reference.files())
def test_each_page_is_as_it_is_written_today(name: str) -> None:
    """Else: python -m nura_cli.reference."""
    assert (reference.FOLDER / name).read_text() == reference.files()[name]


def test_the_readme_links_each_page() -> None:
    for page in reference.FOLDER.glob("*.md"):
        assert f"(nura_cli/help/{page.name})" in README


def test_the_reference_is_in_the_package() -> None:
    assert {*reference.PAGES, "upgrade", "restore", "cron", "schema"} == topics.topics().keys()


# --- documents


def test_each_command_says_what_it_prints_as_json() -> None:
    assert contract.DOCUMENTS.keys() == set(COMMANDS)


def documents() -> set[Any]:
    """Return every type of document there is."""
    given = [form for forms in contract.DOCUMENTS.values() for form in forms.values()]
    return {*given, *reference._inner([*given, contract.Envelope, contract.Result, contract.EventTold])}


@pytest.mark.parametrize("document", sorted(documents(), key=str), ids=lambda one: str(one.__name__))
def test_each_field_is_described(document: Any) -> None:
    for field in contract.fields(document):
        assert len(field.description) > 3, field.name
        assert reference._type(field.type)


@pytest.mark.parametrize("words", [TaskStatus, BatchStatus, ErrorKind, EventType, Excuse, ProblemKind, Why])
def test_each_word_of_a_closed_list_is_explained(words: Any) -> None:
    told = reference._comments(words)
    assert told.keys() == set(words)
    assert all(len(comment) > 2 for comment in told.values())


def test_lists_of_words_and_figures_by_word_are_the_same() -> None:
    assert list(contract.NotDue.__annotations__) == [*Why]
    assert list(contract.TaskCounts.__annotations__) == [*TaskStatus, "superseded"]


# --- exit codes, environment


def test_each_exit_code_is_explained() -> None:
    numbers = {value for name, value in vars(errors).items() if name.startswith("EX_")}
    assert errors.EXIT_CODES.keys() == numbers
    for code, words in errors.EXIT_CODES.items():
        assert re.search(rf"^\| [^|]*\b{code}\b[^|]* \| {re.escape(words.partition(' (SIG')[0])}", README, re.MULTILINE)


def variables(path: Path) -> set[str]:
    """Return the environment variables that a module names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Subscript):
            where, name = node.value, node.slice
        elif isinstance(node, ast.Call) and node.args:
            where, name = node.func, node.args[0]
            where = where.value if isinstance(where, ast.Attribute) and where.attr in ("get", "pop") else where
        else:
            continue
        mapping = ast.unparse(where)
        if mapping in ("os.environ", "os.getenv", "environment", "env") and isinstance(name, ast.Constant):
            found.add(str(name.value))
    return found


def test_each_environment_variable_that_is_read_is_explained() -> None:
    sources = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] != "sandbox"]
    read = set[str]().union(*map(variables, sources))
    assert {"NURA_CONFIG", "NO_COLOR", "SUDO_USER"} <= read
    assert read <= VARIABLES.keys()


# --- help


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("columns", [80, 60, 132, 1])
def test_help_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, name: str, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = topics._of_command(name)
    assert max(map(len, text.splitlines())) <= max(columns, 60)
    assert not re.search(r"<\w+>|list\[", text)
    assert text.count("\n  $ nura ") >= 2


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_understood_as_they_stand(name: str) -> None:
    module = __import__(f"nura_cli.cli.{name}", fromlist=["EXAMPLES"])
    for typed, _ in module.EXAMPLES:
        nura, command, *arguments = shlex.split(typed)
        assert (nura, command) == ("nura", name)
        above = typer.Context(GROUP, info_name="nura")
        GROUP.commands[name].make_context(name, arguments, parent=above, resilient_parsing=False)


@pytest.mark.parametrize("name", ["nura", *COMMANDS])
def test_a_default_is_what_typer_would_make_of_it(name: str) -> None:
    """For it is not asked (:mod:`nura_cli.cli.defaults`)."""
    command = GROUP if name == "nura" else GROUP.commands[name]
    context = typer.Context(command, info_name=name)
    for one in command.get_params(context):
        if not one.required and one.callback is None:
            made = type(one).process_value(one, context, one.default)
            assert made == one.default or (made == () and one.default is None), one.name
            assert type(made) is type(one.default) or one.default is None, one.name


def test_what_is_typed_is_converted_and_refused_as_ever() -> None:
    def parameters(*arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = (
            GROUP.commands["log"].make_context("log", [*arguments], parent=typer.Context(GROUP)).params
        )
        return found

    assert (parameters()["batch"], parameters("--batch", "7")["batch"]) == (None, 7)
    assert (parameters()["config"], parameters("-c", "x.yaml")["config"]) == (None, Path("x.yaml"))
    with pytest.raises(typer.BadParameter):
        parameters("--batch", "many")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_is_described_and_has_a_name_for_its_value(name: str) -> None:
    for one in GROUP.commands[name].params:
        assert one.help, one.name
        assert one.is_flag or one.count or helptext._name(one) if one.param_type_name == "option" else one.help


# --- the configuration


def validator() -> Any:
    return jsonschema_rs.Draft202012Validator(reference.config_schema())


def test_the_example_is_valid_by_the_schema_that_it_names() -> None:
    first = EXAMPLE.splitlines()[0]
    named = first.removeprefix("# yaml-language-server: $schema=")
    assert json.loads((ROOT / named).read_text()) == reference.config_schema()
    document, _, problems = config_file.load(EXAMPLE)
    assert not problems
    assert validator().is_valid(document)


@pytest.mark.parametrize(
    "option",
    [
        {"providers": {"a": {"kind": "sandbox", "cleanup_after": value}}}
        for value in ("never", None, 0, "7d", "1h30m", " 90 ")
    ]
    + [{"providers": {"a": {"kind": "sandbox", "limits": {"bytes": value}}}} for value in (1000, "64KiB", "200 mb")]
    + [
        {"providers": {"a": {"kind": "sandbox"}}, "workloads": {"w": {"provider": "a", "key": value}}}
        for value in ("id", ["tenant", "id"])
    ],
    ids=str,
)
def test_whatever_nura_takes_is_valid_by_the_schema(option: dict[str, Any]) -> None:
    Config.model_validate(option)
    assert list(validator().iter_errors(option)) == []


@pytest.mark.parametrize(
    "option",
    [
        {},
        {"providers": {"a": {"kind": "sandbux"}}},
        {"providers": {"a": {"kind": "sandbox"}}, "workload": {}},
        {"providers": {"a": {"kind": "sandbox", "cleanup_after": "soon"}}},
        {"providers": {"a": {"kind": "sandbox", "limits": {"bytes": 0}}}},
    ],
    ids=str,
)
def test_what_an_editor_should_mark_is_not(option: dict[str, Any]) -> None:
    assert not validator().is_valid(option)


def options() -> set[str]:
    """Return the paths of the configuration's options, as its page has them."""
    return set(re.findall(r"^- `([^`]+)`", "\n".join(reference.config()), re.MULTILINE))


def test_every_option_has_a_description_and_stands_in_the_example() -> None:
    found = options()
    assert {"workloads.NAME.events[].timeout", "providers.NAME.limits.enqueued_tokens"} <= found
    for path in found:
        name = path.rpartition(".")[2]
        assert re.search(rf"^[\s#-]*{name}:|[{{ ]{name}:", EXAMPLE, re.MULTILINE), path


def test_the_example_shows_the_defaults(tmp_path: Path) -> None:
    """But for what is different in each place: keys, names and what is not set unless it is given."""
    file = tmp_path / "nura.yaml"
    file.write_text(EXAMPLE)
    shown = configuration.load(file)
    blank = configuration.ProviderConfig(kind="sandbox")
    given = shown.providers["openai"]
    for name in ("on_unconfirmed", "on_lost", "cleanup_after"):
        assert getattr(given, name) == getattr(blank, name)
    workload = shown.workloads["classify"]
    default = configuration.WorkloadConfig(provider="sandbox")
    assert (workload.dispatch, workload.retry, workload.key) == (default.dispatch, default.retry, default.key)
    assert shown.remind == Config.model_fields["remind"].default


# --- samples


SAMPLES = re.findall(r"```(\w+)\n(.*?)```", (reference.FOLDER / "cron.md").read_text(), re.DOTALL)


def test_the_crontab_lines_are_those_of_the_example() -> None:
    lines = [text.strip() for kind, text in SAMPLES if kind == "crontab"]
    example = (ROOT / "crontab.example").read_text()
    assert len(lines) == 3
    for line in lines:
        assert line in example


UNITS = {
    "service": {
        "Unit": {"Description", "Wants", "After"},
        "Service": {"Type", "User", "Environment", "ExecStart", "SuccessExitStatus", "TimeoutStopSec", "UMask"},
    },
    "timer": {"Unit": {"Description"}, "Timer": {"OnCalendar", "Persistent"}, "Install": {"WantedBy"}},
}
"""What a unit of systemd's may say, as far as these say it (systemd.unit, .service, .exec and .timer)."""


def test_the_units_are_such(tmp_path: Path) -> None:
    """By systemd's own word, where it is there."""
    units = dict(zip(UNITS, (text for kind, text in SAMPLES if kind == "ini"), strict=True))
    program = tmp_path / "nura"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for kind, text in units.items():
        parser = configparser.RawConfigParser()
        parser.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their capitals
        parser.read_string(text)
        assert {name: {*parser[name]} for name in parser.sections()} == UNITS[kind]
        (tmp_path / f"nura.{kind}").write_text(text.replace("/usr/local/bin/nura", str(program)))
    if verify := shutil.which("systemd-analyze"):
        files = [tmp_path / f"nura.{kind}" for kind in units]
        done = subprocess.run(
            [verify, "verify", "--man=no", *files], capture_output=True, text=True, timeout=60, check=False
        )
        assert [line for line in done.stderr.splitlines() if "nura" in line] == []


def test_the_headers_are_those_of_a_post() -> None:
    post = Webhook("https://ops.example/hook", SECRET)
    assert post._headers(Event("evt_1", b"{}")).keys() == contract.HEADERS.keys()
    post.close()


def test_pages_are_markdown_without_broken_parts() -> None:
    for page in reference.FOLDER.glob("*.md"):
        text = page.read_text()
        assert text.startswith("# ")
        assert text.count("```") % 2 == 0
        assert "None" not in text
