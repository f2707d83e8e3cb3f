"""The fault table of the tests' documentation names tests that exist, so that it cannot rot."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def rows(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield (fault, tests named for it) of every row of the tables headed ``| fault | tests |``."""
    inside = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        inside = cells == ["fault", "tests"] or (inside and bool(cells))
        if inside and cells[0] not in ("fault", "---"):
            yield cells[0], re.findall(r"`([^`]+)`", cells[-1])


TABLE = list(rows((TESTS / "README.md").read_text()))


def test_the_table_is_read() -> None:
    assert len(TABLE) > 50
    assert list(rows("| fault | tests |\n| --- | --- |\n| `x` | `a`, `b` |\n\n| y | `c` |")) == [("`x`", ["a", "b"])]


@pytest.mark.parametrize(("fault", "named"), TABLE)
def test_each_fault_names_tests_that_exist(fault: str, named: list[str]) -> None:
    assert named, f"no test is named for: {fault}"
    for name in named:
        file, _, function = name.partition("::")
        tree = ast.parse((TESTS / file).read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name
        assert function.startswith("test_")
