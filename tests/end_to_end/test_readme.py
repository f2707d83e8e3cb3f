"""The README: its tour runs as it stands, and what is generated in it is not stale."""

import getpass
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from nura_cli.cli import COMMANDS
from nura_cli.states import BATCH_ARROWS, TASK_ARROWS
from tests.end_to_end.test_command_line import NURA

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


BLOCKS = dict(
    zip(("tour", "steps", "tutorial", "month"), re.findall(r"```console\n(.*?)```", README, re.DOTALL), strict=True)
)
"""What the README shows on a terminal, by what it is."""


def steps(block: str) -> list[tuple[str, str]]:
    """Return the commands of a block and the output the README shows for each."""
    found: list[tuple[str, str]] = []
    inside = False
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
            inside = line.endswith("<<'END'")
        elif inside:
            found[-1] = (f"{found[-1][0]}\n{line}", "")
            inside = line != "END"
        else:
            found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
    return found


def steady(text: str) -> str:
    """Return output without what differs from run to run: times, ids, amounts of white space."""
    text = re.sub(r"(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (?=nura )", "", text)  # on a terminal, lines have no time
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", text)
    text = re.sub(r"\d\d:\d\d:\d\d", "TIME", text)
    text = re.sub(rf"\bby (root|tim|{re.escape(getpass.getuser())})\b", "by NAME", text)
    text = re.sub(r"(evt_)?[0-9a-f]{20,}", "ID", text)
    text = re.sub(r"[\d.]+ [KMGT]B free", "SIZE free", text)
    return "\n".join(" ".join(line.split()) for line in text.strip().splitlines())


@pytest.mark.parametrize(
    "block",
    [pytest.param(block, id=name, marks=pytest.mark.long if name == "month" else ()) for name, block in BLOCKS.items()],
)
def test_what_it_shows_is_what_really_happens(tmp_path: Path, block: str) -> None:
    env = {**os.environ, "PATH": f"{NURA.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    (tmp_path / ".venv").symlink_to(sys.prefix)
    for command, expected in steps(block):
        folder = next(path for path in (tmp_path / "nura", tmp_path) if path.is_dir())  # the tour goes there
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False
        )
        shown = (done.stdout + done.stderr).replace(str(tmp_path), "/home/you")
        assert steady(shown) == steady(expected), command
    assert len(steps(block)) > 8


def test_its_python_runs_as_it_stands(tmp_path: Path) -> None:
    prompt = "Summarise: {{ title }} {{ body }}"
    workload = {"provider": "box", "model": "gpt-4.1-mini", "prompt": prompt}
    document = {"providers": {"box": {"kind": "sandbox"}}, "workloads": {"summarize": workload}}
    (tmp_path / "nura.yaml").write_text(json.dumps(document))
    [code] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

    def run(*command: str | Path) -> list[str]:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout.splitlines()

    assert run(sys.executable, "-c", code) == ["3 0 []"]
    for stage in ("dispatch", "poll", "reconcile"):
        run(NURA, stage)
    counts, *answers = run(sys.executable, "-c", code)
    assert counts == "0 3 []"
    assert sorted(line.split()[:2] for line in answers) == [[str(n), "completed"] for n in range(3)]


def test_the_tests_it_names_are_there() -> None:
    named = set(re.findall(r"`((?:tests/[a-z_]+/)?test_\w+\.py)`", README))
    assert len(named) > 6
    for name in named:
        assert list(ROOT.glob(name if "/" in name else f"tests/*/{name}")), name


def diagram(start: str, arrows: Mapping[str, Mapping[str, str]]) -> str:
    """Return a state diagram: on each arrow who moves it, and why."""
    moves = [f"    {old} --> {new}: {why}" for old, news in arrows.items() for new, why in sorted(news.items())]
    return "\n".join(["stateDiagram-v2", f"    [*] --> {start}", *moves])


@pytest.mark.parametrize(
    ("start", "arrows"),
    [
        ("pending: enqueue takes a record", TASK_ARROWS),
        ("processing: dispatch claims tasks for it", BATCH_ARROWS),
    ],
    ids=["task", "batch"],
)
def test_the_diagrams_are_those_of_the_code(start: str, arrows: Mapping[str, Mapping[str, str]]) -> None:
    assert f"```mermaid\n{diagram(start, arrows)}\n```" in README


def test_the_two_commands_stand_in_it_and_nothing_of_a_machine() -> None:
    assert "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/nura demo" in README
    assert "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/pytest" in README
    for command in COMMANDS:
        assert f"nura {command}" in README
