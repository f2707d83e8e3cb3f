"""What nura tells of itself under ``-vv`` and ``NURA_LOG``: decisions, exchanges, and never a key or a record."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Spool
from tests.end_to_end.test_command_line import NURA

LINE = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (nura\.\w+): (.*)$", re.MULTILINE)


def told(folder: Path, *arguments: str, log: str | None = None) -> list[tuple[str, str]]:
    """Run a command; return (logger, message) of each line that it logged."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), **({"NURA_LOG": log} if log else {})}
    done = subprocess.run([NURA, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return LINE.findall(done.stderr)


def test_each_decision_and_each_exchange_is_told_under_vv(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(3)
    lines = told(spool.folder, "dispatch", "-vv")
    decisions = [message for name, message in lines if name == "nura.decisions"]
    exchanges = [message for name, message in lines if name == "nura.exchanges"]
    assert any(re.fullmatch(r"batch 1: submitting -> submitted: .+", message) for message in decisions)
    assert any(message.startswith("3 tasks (batch 1): pending -> submitted: ") for message in decisions)
    assert any(
        re.fullmatch(r"POST /v1/batches: HTTP 200 in \d+ ms, request id \S+", message) for message in exchanges
    ), exchanges
    text = str(lines)
    assert "sk-test-1" not in text
    assert "record number" not in text


@pytest.mark.parametrize(
    ("log", "names"), [("info", {"nura.decisions"}), ("debug", {"nura.decisions", "nura.exchanges"})]
)
def test_a_variable_shows_it_under_cron(openai_spool: Spool, log: str, names: set[str]) -> None:
    openai_spool.fill(1)
    assert {name for name, _ in told(openai_spool.folder, "dispatch", log=log)} == names


def test_nothing_is_told_unasked(openai_spool: Spool) -> None:
    openai_spool.fill(1)
    assert told(openai_spool.folder, "dispatch", "-v") == []


def test_an_exchange_without_an_answer_is_told(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(1)
    spool.control.fault("drop_before", "list")
    with pytest.raises(subprocess.CalledProcessError) as error:
        told(spool.folder, "dispatch", "-vv")
    assert "no answer" in error.value.stderr


def test_another_word_in_the_variable_is_refused(openai_spool: Spool) -> None:
    with pytest.raises(subprocess.CalledProcessError) as error:
        told(openai_spool.folder, "status", log="loud")
    assert error.value.returncode == 2
    assert "NURA_LOG=loud: use info or debug" in error.value.stderr
