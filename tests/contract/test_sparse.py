"""The SDKs as far as they are used: fewer modules, the same names, and the same things behind them."""

import json
import subprocess
import sys
from typing import Any

import pytest

from nura_cli.dialects import vendors

SAME = """
import ast, json, sys
from pathlib import Path
from importlib import import_module
from nura_cli.providers import sparse

vendor = sys.argv[1]
with sparse.importing(vendor):
    import_module(vendor)
told = {}
for name in (vendor, f"{vendor}.types", f"{vendor}.resources"):
    package = import_module(name)
    body = ast.parse(Path(package.__file__).read_text()).body
    names = {a.asname or a.name for s in body if isinstance(s, ast.ImportFrom) and s.level == 1 for a in s.names} - {"*"}
    before = {one: getattr(package, one) for one in sorted(names)}
    whole = hasattr(package, "nothing_of_this_name")  # runs the body
    told[name] = {
        "names": len(names),
        "others": [one for one in names if vars(package)[one] is not before[one]],
        "odd": whole,
        "star": sorted(names - set(dir(package))),
    }
print(json.dumps(told))
"""
FEW = """
import json, sys
from pathlib import Path
from nura_cli.config import ProviderConfig
from nura_cli.providers import connect

vendor, key = sys.argv[1:]
connect("x", ProviderConfig.model_validate({"kind": vendor, "api_key_file": key}), Path("state.db")).close()
print(json.dumps(sum(name.startswith(f"{vendor}.") for name in sys.modules)))
"""
WHOLE = (
    "import json, sys; __import__(sys.argv[1]); print(json.dumps(sum(n.startswith(sys.argv[1]) for n in sys.modules)))"
)


def told(code: str, *arguments: str) -> Any:
    """Return what a process of its own prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("vendor", vendors.names())
def test_each_name_is_the_one_that_the_whole_sdk_has(vendor: str) -> None:
    for package, found in told(SAME, vendor).items():
        assert (found["others"], found["odd"], found["star"]) == ([], False, []), package


UNCALLED = """
import json, sys
from importlib import import_module
from nura_cli.providers import sparse
from nura_cli.providers.anthropic import _UNCALLED

def given(name):
    package, _, attribute = name.partition(":")
    return getattr(import_module(package), attribute, None)

others = ["anthropic.lib._tracing:OpenTelemetryConfig", "anthropic.lib._tracing:nothing_of_this_name"]
with sparse.importing("anthropic", uncalled=[*_UNCALLED, *others]):
    import anthropic
functions = {name: given(name) for name in _UNCALLED}
types = [name for name in sys.modules if name.startswith("anthropic.types.")]
print(json.dumps({
    "named": _UNCALLED,
    "stand_ins": [name for name, one in functions.items() if one.__module__ == sparse.__name__],
    "types": types,
    "got": functions["anthropic.lib._tracing:get"]({"stop": 7}, "stop"),
    "class": isinstance(given(others[0]), type),
    "nothing": given(others[1]),
}))
"""


def test_a_function_that_is_never_called_imports_its_module_if_it_is() -> None:
    """Where this fails for a newer SDK all works as before, but each start costs more: look for what costs it now."""
    found = told(UNCALLED)
    assert found["stand_ins"] == found["named"]
    assert (found["types"], found["got"]) == ([], 7)


def test_what_is_no_function_or_is_not_there_has_nothing_in_its_place() -> None:
    found = told(UNCALLED)
    assert (found["class"], found["nothing"]) == (True, None)


@pytest.mark.parametrize("vendor", vendors.names())
def test_a_connection_imports_less_than_a_quarter_of_its_sdk(vendor: str, tmp_path: Any) -> None:
    (tmp_path / "key").write_text("k")
    (tmp_path / "key").chmod(0o600)
    assert told(FEW, vendor, str(tmp_path / "key")) < told(WHOLE, vendor) / 4
