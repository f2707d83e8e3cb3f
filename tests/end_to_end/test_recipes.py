"""The README's recipes for pandas and Parquet, as they stand there."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.test_command_line import NURA
from tests.end_to_end.test_readme import README


def need_modules(*names: str) -> None:
    """Skip the test where a module is missing, and say how to get it; where skips are not allowed, fail."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        reason = f"needs {' and '.join(missing)}: pip install -e '.[recipes]'"
        if os.environ.get("NURA_NO_SKIPS"):
            pytest.fail(reason)
        pytest.skip(reason)


def test_answers_go_into_pandas_and_parquet_as_they_are(tmp_path: Path) -> None:
    need_modules("pandas", "pyarrow")
    [recipe] = re.findall(r"\*\*Into pandas, and Parquet\.\*\*.*?\n\n((?:    .*\n)+)", README)
    workload = {
        "provider": "box",
        "model": "gpt-4.1-mini",
        "prompt": "Which section? world {{ text }}",
        "schema": {
            "type": "object",
            "properties": {"section": {"type": "string", "enum": ["world", "sports"]}},
            "required": ["section"],
            "additionalProperties": False,
        },
    }
    document = {"state": "nura.db", "providers": {"box": {"kind": "sandbox"}}, "workloads": {"classify": workload}}
    (tmp_path / "nura.yaml").write_text(json.dumps(document))
    (tmp_path / "f.csv").write_text('id,text\n007,a\n8,"b, c"\n')
    folders = f"{Path(sys.executable).parent}:{NURA.parent}"
    env = {**os.environ, "PATH": f"{folders}:{os.environ['PATH']}"}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout

    run("nura", "enqueue", "--csv", "classify", "f.csv")
    run("nura", "run", "--wait", "1m")
    shown = run("bash", "-ec", recipe)
    assert [line.split(maxsplit=1) for line in shown.splitlines()[1:]] == [
        ["007", '{"section": "world"}'],
        ["8", '{"section": "world"}'],
    ]
    code = "import pandas; print(pandas.read_parquet('answers.parquet').to_json(orient='records', date_format='iso'))"
    first, second = json.loads(run(sys.executable, "-c", code))
    assert (first["key"], first["json.section"], second["key"]) == ("007", "world", "8")
    assert isinstance(first["cost"], str)
    assert re.match(r"20\d\d-\d\d-\d\dT", first["finished_at"])
