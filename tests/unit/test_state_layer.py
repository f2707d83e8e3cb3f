"""Only the state layer speaks to the state file: no other module knows of SQLite, or holds a statement."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import nura_cli

ROOT = Path(nura_cli.__file__).parent
OTHER_DATABASES = {"delivery", "sandbox"}
"""They speak to the application's database, and to the sandbox's own."""
MODULES = sorted(
    path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] not in {"state", *OTHER_DATABASES}
)
STATEMENT = re.compile(
    r"\s*(SELECT|INSERT|UPDATE|DELETE|REPLACE|WITH|PRAGMA|BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|CREATE|ALTER|DROP|ATTACH)\b"
    r"(?! of| the| a )"
)
METHODS = {"execute", "executemany", "executescript", "cursor", "commit", "rollback"}


def breaches(tree: ast.AST) -> Iterator[str]:
    """Yield what a module does that only the state layer may."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(name.name.partition(".")[0] == "sqlite3" for name in node.names):
            yield f"line {node.lineno}: imports sqlite3"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "sqlite3":
            yield f"line {node.lineno}: imports from sqlite3"
        elif isinstance(node, ast.Attribute) and node.attr in METHODS:
            yield f"line {node.lineno}: calls .{node.attr}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and STATEMENT.match(node.value):
            yield f"line {node.lineno}: holds a statement: {node.value[:40]}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sql_stands_in_the_state_layer_alone(path: Path) -> None:
    assert list(breaches(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import sqlite3",
        "from sqlite3 import IntegrityError",
        "def f():\n    import sqlite3",
        "state.db.execute(query)",
        "query = 'SELECT id FROM tasks'",
        "query = f'UPDATE tasks SET {x} = 1'",
        "db('SAVEPOINT chunk')",
    ],
)
def test_a_breach_is_seen(code: str) -> None:
    assert list(breaches(ast.parse(code)))


STATE = sorted((ROOT / "state").glob("*.py"))
WHOLE_ROWS = re.compile(r"SELECT (DISTINCT )?(\w+\.)?\*|INTO \W?\w+\W? (VALUES|SELECT)|DEFAULT VALUES")


@pytest.mark.parametrize("path", STATE, ids=lambda path: path.name)
def test_statements_name_their_columns(path: Path) -> None:
    assert WHOLE_ROWS.findall(path.read_text()) == []


def test_one_place_moves_tasks() -> None:
    """That which looks the arrow up; the other statements about the table of tasks say who stands for a key, and no more."""
    written = [text for path in STATE for text in re.findall(r"UPDATE tasks SET [^\n]*", path.read_text())]
    others = [text for text in written if "{assignments}" not in text]
    assert len(written) - len(others) == 1
    assert others
    assert all(text.startswith("UPDATE tasks SET superseded_by = ") and "status" not in text for text in others)
    assert not [path.name for path in STATE if re.search(r"(REPLACE INTO|DELETE FROM) tasks\b", path.read_text())]
