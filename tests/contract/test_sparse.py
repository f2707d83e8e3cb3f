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


@pytest.mark.parametrize("vendor", vendors.names())
def test_a_connection_imports_less_than_half_of_its_sdk(vendor: str, tmp_path: Any) -> None:
    (tmp_path / "key").write_text("k")
    (tmp_path / "key").chmod(0o600)
    assert told(FEW, vendor, str(tmp_path / "key")) < told(WHOLE, vendor) / 2
