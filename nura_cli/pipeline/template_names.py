"""Which fields a template cannot do without, as far as its source tells.

A name is needed where it is used. It is not where the template asks whether it is there (``is defined``, ``default``, ``if
x``, ``x or y``), nor where that was asked on the way: within the branches of that ``if``, or after that ``or``. What a
template sets itself is needed from nobody.
"""
# ruff: noqa: N802, N815 - Jinja's visitors look for these names

from collections.abc import Iterable

from jinja2 import nodes
from jinja2.visitor import NodeVisitor

_ASKS = ("default", "d", "defined", "undefined")
_Known = set[str]


def needed(tree: nodes.Template, functions: Iterable[str]) -> set[str]:
    """Return the names that a record must have.

    Args:
        functions: names that may be called without being a field.
    """
    walk = _Walk(frozenset(functions))
    walk.visit(tree, set[str]())
    return walk.found


def _asks(node: nodes.Node) -> bool:
    """Whether a node asks for a name: ``x is defined``, ``x | default(…)``."""
    return isinstance(node, nodes.Filter | nodes.Test) and node.name in _ASKS and isinstance(node.node, nodes.Name)


def _asked(node: nodes.Node | None) -> set[str]:
    """Return the names that an expression asks for."""
    if isinstance(node, nodes.Name):
        return {node.name}
    if isinstance(node, nodes.Not):
        return _asked(node.node)
    if isinstance(node, nodes.And | nodes.Or):
        return _asked(node.left) | _asked(node.right)
    if node is None:
        return set()
    inner = [node, *node.find_all((nodes.Filter, nodes.Test))]
    return {one.node.name for one in inner if _asks(one)}  # type: ignore[attr-defined]  # of these it has a name


class _Walk(NodeVisitor):
    """Goes through a template in the order in which it is rendered, with the names that are known to be there, or asked for."""

    def __init__(self, functions: frozenset[str]) -> None:
        self.found: set[str] = set()
        self._functions = functions

    def generic_visit(self, node: nodes.Node, known: _Known) -> None:
        for child in node.iter_child_nodes():
            self.visit(child, known)

    def _truth(self, node: nodes.Node | None, known: _Known) -> None:
        """Visit an expression of which only the truth is asked."""
        if isinstance(node, nodes.Not):
            self._truth(node.node, known)
        elif isinstance(node, nodes.And | nodes.Or):
            self._truth(node.left, known)
            self._truth(node.right, known | _asked(node.left))
        elif node is not None and not isinstance(node, nodes.Name):
            self.visit(node, known)

    def _all(self, children: Iterable[nodes.Node], known: _Known) -> None:
        for child in children:
            self.visit(child, known)

    def visit_Name(self, node: nodes.Name, known: _Known) -> None:
        if node.ctx != "load":
            known.add(node.name)
        elif node.name not in known:
            self.found.add(node.name)

    def _visit_asking(self, node: nodes.Filter | nodes.Test, known: _Known) -> None:
        if not _asks(node):
            self.generic_visit(node, known)
            return
        self._all([one for one in node.args if not isinstance(one, nodes.Name)], known)
        self._all(node.kwargs, known)

    visit_Filter = visit_Test = _visit_asking

    def visit_Or(self, node: nodes.Or, known: _Known) -> None:
        self._truth(node.left, known)
        if not isinstance(node.right, nodes.Name):
            self.visit(node.right, known | _asked(node.left))

    def visit_And(self, node: nodes.And, known: _Known) -> None:
        self.visit(node.left, known)
        self.visit(node.right, known | _asked(node.left))

    def visit_CondExpr(self, node: nodes.CondExpr, known: _Known) -> None:
        self._truth(node.test, known)
        inner = known | _asked(node.test)
        self._all([one for one in (node.expr1, node.expr2) if one is not None], inner)

    def visit_If(self, node: nodes.If, known: _Known) -> None:
        self._truth(node.test, known)
        asked = _asked(node.test) - known
        inner = known | asked
        for branch in (node.body, node.elif_, node.else_):
            self._all(branch, inner)
        # What a branch has set is there from now on; what was only asked for is not.
        stored = {name.name for name in node.find_all(nodes.Name) if name.ctx == "store"}
        known |= inner - (asked - stored)

    def visit_For(self, node: nodes.For, known: _Known) -> None:
        self.visit(node.iter, known)
        inner = known | {"loop"}
        self.visit(node.target, inner)
        self._truth(node.test, inner)
        self._all(node.body, inner | _asked(node.test))
        self._all(node.else_, set(known))

    def visit_Macro(self, node: nodes.Macro, known: _Known) -> None:
        known.add(node.name)
        self._within(node, known)

    def visit_CallBlock(self, node: nodes.CallBlock, known: _Known) -> None:
        self.visit(node.call, known)
        self._within(node, known)

    def _within(self, node: nodes.Macro | nodes.CallBlock, known: _Known) -> None:
        self._all(node.defaults, known)
        inner = known | {"caller", "varargs", "kwargs"}
        self._all(node.args, inner)
        self._all(node.body, inner)

    def visit_With(self, node: nodes.With, known: _Known) -> None:
        self._all(node.values, known)
        inner = set(known)
        self._all(node.targets, inner)
        self._all(node.body, inner)

    def visit_Assign(self, node: nodes.Assign, known: _Known) -> None:
        self.visit(node.node, known)
        self.visit(node.target, known)

    def visit_AssignBlock(self, node: nodes.AssignBlock, known: _Known) -> None:
        if node.filter is not None:
            self.visit(node.filter, known)
        self._all(node.body, set(known))
        self.visit(node.target, known)

    def visit_Block(self, node: nodes.Block, known: _Known) -> None:
        self._all(node.body, known | {"super"})

    def visit_Call(self, node: nodes.Call, known: _Known) -> None:
        callee = node.node
        if not (isinstance(callee, nodes.Name) and callee.name in self._functions):
            self.visit(callee, known)
        self._all([*node.args, *node.kwargs], known)
        self._all([one for one in (node.dyn_args, node.dyn_kwargs) if one is not None], known)
