"""A vendor's SDK, imported as far as it is used.

The ``__init__`` of an SDK's packages imports thousands of types so that each has a shorter name, and of these nura's calls use a
few dozen. A package prepared here is imported without: a name that its ``__init__`` takes from a module of the package, before
it does anything of its own, is taken from there when it is first asked for. Whatever else is asked of it runs its ``__init__``
as it stands, and it is as if that had been run at the beginning. Nothing of the SDK is left out, and nothing is replaced but the
few functions that a connection names as those it never has called: in their place stands what imports them when they are called.
"""

import ast
import gc
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import find_spec
from itertools import takewhile
from types import ModuleType
from typing import Any


@contextmanager
def importing(package: str, *, uncalled: Collection[str] = ()) -> Iterator[None]:
    """Import a package in this block, and all packages in it, now or later, as far as they are used.

    One that is imported already stays as it is. What is made while something is imported stays, and is not searched for garbage.

    Args:
        uncalled: functions, as ``package.in.it:name``, whose modules are imported when they are called; what is there no longer,
            or is no function, is imported as all else is.
    """
    if package not in sys.modules:
        sys.meta_path.insert(0, _Finder(package, uncalled))
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()


class _Finder:
    """What finds the packages of one SDK."""

    def __init__(self, package: str, uncalled: Collection[str]) -> None:
        self._package = package
        self._uncalled = uncalled

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] != self._package:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.submodule_search_locations and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path, self._uncalled)
        return spec


class _Loader(SourceFileLoader):
    """What makes a package whose ``__init__`` is not run before something is asked that only that knows."""

    def __init__(self, name: str, path: str, uncalled: Collection[str]) -> None:
        super().__init__(name, path)
        self._uncalled = uncalled

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        origins = _taken(ast.parse(self.get_data(self.path)), name)

        def asked(attribute: str) -> Any:
            if (origin := origins.get(attribute)) is not None:
                later = f"{name}:{attribute}" in self._uncalled and _is_function(*origin)
                value = _when_called(*origin) if later else getattr(import_module(origin[0]), origin[1])
                return module.__dict__.setdefault(attribute, value)
            if find_spec(f"{name}.{attribute}") is not None:
                return import_module(f"{name}.{attribute}")
            del module.__getattr__
            super(_Loader, self).exec_module(module)
            return getattr(module, attribute)

        module.__getattr__ = asked  # type: ignore[method-assign]  # as PEP 562 has it


def _is_function(module: str, name: str) -> bool:
    """Return whether a module defines a function of this name; it is read for that, and not imported."""
    spec = find_spec(module)
    source = spec.loader.get_source(module) if spec and isinstance(spec.loader, SourceFileLoader) else None
    return source is not None and f"\ndef {name}(" in source


def _when_called(module: str, name: str) -> Callable[..., Any]:
    """Return what does as a module's function does, and imports the module for it."""

    def function(*given: Any, **named: Any) -> Any:
        return getattr(import_module(module), name)(*given, **named)

    return function


def _taken(tree: ast.Module, package: str) -> Mapping[str, tuple[str, str]]:
    """Return the names that a package's ``__init__`` takes from its own modules before it does anything else: the module of each,
    and its name there. What it takes later may need what it does.
    """
    taken = {
        one.asname or one.name: (f"{package}.{statement.module}", one.name)
        for statement in takewhile(_takes, tree.body)
        if isinstance(statement, ast.ImportFrom) and statement.level == 1 and statement.module is not None
        for one in statement.names
    }
    for statement in tree.body:
        for node in () if isinstance(statement, ast.Import | ast.ImportFrom) else ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                taken.pop(node.id, None)
    return taken


def _takes(statement: ast.stmt) -> bool:
    """Return whether a statement does no more than to import, to list names, or to say something."""
    listing = isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__"
    return listing or isinstance(statement, ast.Import | ast.ImportFrom | ast.Expr)
