"""Run the benchmarks at full size, and print the table of the README's section "Speed".

``python -m tests.benchmarks``; arguments are pytest's (``-k``, files). ``NURA_BENCH_SCALE`` makes them smaller.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.benchmarks.conftest import TABLE

HEADS = ("figure", "reached", "target", "reference")
FOLDER = Path(__file__).parent


def table(rows: Iterable[Mapping[str, str]]) -> str:
    """Return rows as Markdown: what was measured, what was reached, what is to be, and what the reference does."""
    cells = [HEADS, ("---",) * len(HEADS), *(tuple(row[head] for head in HEADS) for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in cells)


def main(arguments: list[str]) -> int:
    """Run the benchmarks, print the table on standard output and all else on standard error, and return pytest's exit code."""
    with tempfile.NamedTemporaryFile("r") as file:
        environment = {"NURA_BENCH_SCALE": "1", **os.environ, TABLE: file.name}
        files = [] if any(Path(argument).exists() for argument in arguments) else [str(FOLDER)]
        command = [sys.executable, "-m", "pytest", "--timeout", "0", *files, *arguments]
        ended = subprocess.run(command, env=environment, stdout=sys.stderr, check=False)
        print(table(map(json.loads, file)))
    return ended.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
