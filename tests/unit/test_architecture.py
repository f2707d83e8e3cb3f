"""Who may import whom, and who may know a vendor by name: read from the source, so that nothing has to be run for it."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nura_cli
from nura_cli.dialects import vendors
from nura_cli.sandbox import Sandbox

PACKAGE = Path(nura_cli.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
EACH_FILE = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))

LAYERS = {
    "__init__": {"contract", "pipeline", "dialects", "state", "states", "config", "config_file", "clock"},
    "__main__": {"cli"},
    "progress": set[str](),
    "reference": {"clock", "config", "contract", "dialects", "environment", "errors", "states"},
    "cli": {
        "contract",
        "pipeline",
        "state",
        "dialects",
        "pricing",
        "config",
        "config_file",
        "errors",
        "states",
        "clock",
        "logs",
        "scrub",
        "sandbox",
        "progress",
        "cli",
    },
    "pipeline": {
        "contract",
        "state",
        "providers",
        "delivery",
        "dialects",
        "pricing",
        "schemas",
        "states",
        "config",
        "errors",
        "clock",
        "logs",
        "scrub",
        "progress",
        "pipeline",
    },
    "state": {"states", "errors", "clock", "logs", "state"},
    "providers": {"dialects", "config", "errors", "logs", "progress", "scrub", "providers", "sandbox"},
    "delivery": {"contract", "errors", "clock", "scrub", "delivery"},
    "sandbox": {"sandbox"},
    "config": {"config_file", "dialects", "errors", "schemas", "scrub", "states"},
    "schemas": {"dialects"},
    "dialects": {"errors", "states", "pricing", "scrub", "dialects"},
    "config_file": {"errors"},
    "environment": set[str](),
    "contract": {"errors", "states"},
    "pricing": set[str](),
    "errors": {"scrub"},
    "scrub": set[str](),
    "logs": {"errors", "scrub"},
    "states": set[str](),
    "clock": set[str](),
}

NAMES_VENDORS = {"dialects", "providers", "pricing", "sandbox"}
"""Where a vendor's name may stand. Everybody else asks the dialect."""


def part_of(path: Path) -> str:
    """Return the folder, or the module, right under the package that a file is (in)."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def modules(path: Path) -> set[str]:
    """Return the modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            inside = node.module == "nura_cli"
            names = [f"nura_cli.{alias.name}" for alias in node.names] if inside else [node.module]
        found |= set(names)
    return found


def imports(path: Path) -> set[str]:
    """Return the parts of nura that a module imports, anywhere in it."""
    return {name.split(".")[1] for name in modules(path) if name.startswith("nura_cli.")}


@EACH_FILE
def test_imports_run_one_way(path: Path) -> None:
    part = part_of(path)
    allowed = LAYERS.get(part, set())
    assert imports(path) - {"__version__"} <= allowed | {part}


STAGES = (
    "init",
    "check",
    "enqueue",
    "dispatch",
    "poll",
    "reconcile",
    "status",
    "results",
    "resolve",
    "hold",
    "release",
    "retry",
    "cancel",
    "purge",
    "log",
    "cost",
    "show",
    "redeliver",
    "backup",
)


def test_each_command_has_a_stage_of_its_name() -> None:
    assert all((PACKAGE / folder / f"{stage}.py").is_file() for folder in ("cli", "pipeline") for stage in STAGES)


@pytest.mark.parametrize("path", sorted((PACKAGE / "pipeline").glob("*.py")), ids=lambda path: path.stem)
def test_no_stage_is_imported_by_another_part_of_the_pipeline(path: Path) -> None:
    """What two stages need is a module of its own."""
    named = {
        alias.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "nura_cli.pipeline"
        for alias in node.names
    }
    named |= {
        name.removeprefix("nura_cli.pipeline.") for name in modules(path) if name.startswith("nura_cli.pipeline.")
    }
    assert not named & {*STAGES}


def test_no_vendor_knows_another_and_what_they_share_knows_none() -> None:
    for folder in ("dialects", "providers"):
        for path in (PACKAGE / folder).glob("*.py"):
            others = {f"nura_cli.{part}.{name}" for part in ("dialects", "providers") for name in vendors.names()}
            if path.stem in vendors.names():
                others -= {f"nura_cli.{part}.{path.stem}" for part in ("dialects", "providers")}
            assert not modules(path) & others, path


@EACH_FILE
def test_an_sdk_is_imported_by_the_connection_to_its_vendor_alone(path: Path) -> None:
    loaded = {name.split(".")[0] for name in modules(path)}
    own = {path.stem} if part_of(path) == "providers" else set[str]()
    assert not loaded & {*vendors.names()} - own
    assert part_of(path) != "dialects" or not loaded & {"httpx2", "httpcore2"}


def words_of_vendors() -> list[str]:
    """Return what a vendor is known by: its name, its name as people write it, its host."""
    known = [vendors.dialect(name) for name in vendors.names()]
    return [word for one in known for word in (one.name, one.title, one.domain)]


@EACH_FILE
def test_no_other_file_names_a_vendor(path: Path) -> None:
    if part_of(path) in NAMES_VENDORS:
        return
    naming = re.compile("|".join(map(re.escape, words_of_vendors())), re.IGNORECASE)
    named = [f"{n}: {line}" for n, line in enumerate(path.read_text().splitlines(), 1) if naming.search(line)]
    assert named == []


@EACH_FILE
def test_no_other_file_has_a_vendors_endpoint(path: Path) -> None:
    if part_of(path) in NAMES_VENDORS:
        return
    endpoints = {endpoint for name in vendors.names() for endpoint in vendors.dialect(name).endpoints}
    assert [endpoint for endpoint in sorted(endpoints) if endpoint in path.read_text()] == []


def test_the_table_of_vendors_loads_none_of_them() -> None:
    code = (
        "import sys; from nura_cli import config; from nura_cli.dialects import vendors; vendors.names();"
        "print([name for name in sys.modules if name.startswith('nura_cli.dialects.') or name == 'msgspec'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "['nura_cli.dialects.vendors']"


@pytest.mark.parametrize("name", vendors.names())
def test_each_vendor_of_the_table_is_there_with_both_halves(name: str, tmp_path: Path) -> None:
    from pkgutil import resolve_name

    row = vendors.vendor(name)
    assert vendors.dialect(name).name == name
    assert resolve_name(row.connection).dialect.name == name
    if row.in_sandbox:
        with Sandbox(tmp_path / "box.db") as server:
            assert server.base_url(name).startswith(server.url)
