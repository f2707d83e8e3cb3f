"""Prompts as templates: Jinja's immutable sandbox, held to data, to one piece, and to what a rendering may cost.

Takes a template's source and records; gives prompts. What a prompt prints is data: a record's own fields come before
whatever Python's types have of the same name, a method is only ever called, and an undefined name is an error, except
where the template asks for it (``is defined``, ``default``, ``if x``, ``x or y``).

A template is rewritten once, when it is read: what loops, is called, is cut out or put together goes through the
environment below, which measures it (:mod:`nura_cli.pipeline.bounds`).
"""
# ruff: noqa: N802 - Jinja's visitors look for these names

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, Undefined, meta, nodes, pass_eval_context
from jinja2.filters import make_attrgetter
from jinja2.nodes import EvalContext
from jinja2.runtime import Context, markup_join, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.visitor import NodeTransformer

from nura_cli.errors import ConfigError, ConfigProblem, InputError
from nura_cli.pipeline import bounds, numbers
from nura_cli.pipeline.bounds import Meter, NotData
from nura_cli.pipeline.template_names import needed

_ELSEWHERE = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
_WORDS = {
    str: "a string",
    dict: "a mapping",
    list: "a list",
    int: "a number",
    float: "a number",
    numbers.Number: "a number",
}

_SCOPE = ("_loop_vars", "_block_vars")
"""What Jinja's compiler hands on with every call that stands in a loop or a block."""

# Filters of the rewritten template. No template can write these names: they have a blank.
_EACH, _CALLED, _FOUND, _CUT, _JOINED = "nura each", "nura called", "nura found", "nura cut", "nura joined"


class _Absent(StrictUndefined):
    """A name that is not there: it may be asked for (``if x``, ``x or y``), and nothing else may be done with it."""

    __slots__ = ()

    def __bool__(self) -> bool:  # type: ignore[override]  # there it always raises
        return False

    def __repr__(self) -> str:
        return str(self)


class _Rewritten(NodeTransformer):
    """Sends through the environment what Jinja's compiler would do without it.

    Args:
        functions: names that may be called and are no data.
        taken: names that the template gives to something of its own.
    """

    def __init__(self, functions: Iterable[str], taken: Iterable[str]) -> None:
        self._functions = frozenset(functions) - frozenset(taken)

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _filtered(node.iter, _EACH)
        return node

    def visit_Call(self, node: nodes.Call) -> nodes.Node:
        self.generic_visit(node)
        callee = node.node
        if isinstance(callee, nodes.Name) and callee.name in self._functions:
            node.node = nodes.EnvironmentAttribute(f"nura_{callee.name}", lineno=node.lineno)
        elif isinstance(callee, nodes.Getattr):
            node.node = _filtered(callee.node, _CALLED, nodes.Const(callee.attr, lineno=node.lineno))
        elif isinstance(callee, nodes.Getitem):
            node.node = _filtered(callee.node, _FOUND, callee.arg)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        ends = [
            part or nodes.Const(None, lineno=node.lineno) for part in (node.arg.start, node.arg.stop, node.arg.step)
        ]
        return _filtered(node.node, _CUT, *ends)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), _JOINED)


def _filtered(node: nodes.Node, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox of one template: fields before methods, and every step measured."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self) -> None:
        super().__init__(
            undefined=_Absent, keep_trailing_newline=True, autoescape=False, finalize=self._printed, cache_size=0
        )
        self.meter = Meter()
        self.functions = frozenset(self.globals)
        for name, function in self.globals.items():
            setattr(self, f"nura_{name}", function)
        self.globals = {}
        self.policies["json.dumps_function"] = numbers.dumps
        self.filters["sum"] = self._summed(self.filters["sum"])
        self.filters["join"] = self._joined_by(self.filters["join"])
        self.filters["list"] = lambda value: list(self.meter.each(value))
        self.filters = {name: self._metered(name, function) for name, function in self.filters.items()} | {
            _EACH: self.meter.each,
            _CALLED: super().getattr,
            _FOUND: super().getitem,
            _CUT: lambda value, *ends: self.meter.built(value[slice(*ends)]),
            _JOINED: self._joined,
        }
        tests: dict[str, Any] = dict(self.tests)
        self.tests = {name: self._metered(name, function) for name, function in tests.items()}

    # --- data, and what is none

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return a field of a value: of a mapping its member, never its method."""
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return self._data(super().getattr(obj, attribute), obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return a member of a value, as ``[…]`` and filters with an ``attribute`` ask for it."""
        if isinstance(obj, dict) and isinstance(argument, str) and argument not in obj:
            return self.undefined(obj=obj, name=argument)
        return self._data(super().getitem(obj, argument), obj, argument)

    def _data(self, value: Any, obj: Any, name: Any) -> Any:
        """Return a value that is data. Raises NotData: it is a method, and is not called."""
        if callable(value) and not isinstance(value, Undefined):
            kind = _WORDS.get(type(obj), type(obj).__name__)
            raise NotData(f"{name} is a method of {kind}, and no field of it: only {name}() would give something")
        return value

    def _printed(self, value: Any) -> Any:
        """Return a value that is to be printed. Raises NotData, UndefinedError: there is none in it, or not all of it."""
        if type(value) is not str:
            self.meter.text(value)
        return value

    # --- steps

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - as in Jinja: kwargs may be named self
        """Call what a template calls."""
        meter, name = __self.meter, getattr(__obj, "__name__", "")
        meter.tick()
        given = {name: value for name, value in kwargs.items() if name not in _SCOPE}
        if isinstance(owner := getattr(__obj, "__self__", None), str | bytes | int):
            if name == "join" and args and isinstance(owner, str | bytes):
                args = (__self._parts(args[0], len(owner)), *args[1:])
            elif name in bounds.METHODS:
                meter.take(bounds.METHODS[name](owner, *args, **given))
        elif name in bounds.FUNCTIONS:
            meter.take(bounds.FUNCTIONS[name](*args, **given))
        return meter.built(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context | None, operator: str, left: Any, right: Any) -> Any:
        """Do what an operator does."""
        self.meter.tick()
        bounds.operated(self.meter, operator, left, right)
        return self.binop_table[operator](left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return ``str.format`` in the sandbox, which measures what each place is filled with."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        @functools.wraps(wrapped)
        def formatted(*args: Any, **kwargs: Any) -> str:
            given, named = ((), args[0]) if value.__name__ == "format_map" else (args, kwargs)
            text = value.__self__
            made: str = type(text)(_Formatter(self).vformat(text, given, named))
            return made

        return formatted

    def concat(self, pieces: Iterable[str]) -> str:  # in Jinja a class attribute: str.join
        """Return pieces of output as one."""
        parts = list(pieces)
        self.meter.take(sum(map(len, parts)))
        return "".join(parts)

    def _metered(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a filter or test that counts as a step, and whose result is measured, beforehand where it must be."""
        grows, skip = bounds.FILTERS.get(name), 1 if getattr(function, "jinja_pass_arg", None) else 0
        meter = self.meter

        @functools.wraps(function)
        def metered(*args: Any, **kwargs: Any) -> Any:
            meter.tick()
            given = args[skip:]
            if name in bounds.TEXTUAL:
                meter.text(given[0])
                bounds.taken_apart(meter, name, *given)
            if grows is not None:
                meter.take(grows(*given, **kwargs))
            elif name == "format":
                bounds.formatted(meter, given[0], kwargs or given[1:])
            return meter.built(function(*args, **kwargs))

        return metered

    def _parts(self, values: Iterable[Any], between: int) -> list[Any]:
        """Return what is to be joined."""
        parts = list(self.meter.each(values))
        self.meter.take(between * len(parts))
        for part in parts:
            self.meter.text(part)
        return parts

    @pass_eval_context
    def _joined(self, context: EvalContext, values: list[Any]) -> str:
        """Return what ``~`` makes of values."""
        parts = self._parts(values, 0)
        return str_join(parts) if not context.autoescape else markup_join(parts)

    def _joined_by(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @pass_eval_context
        def join(context: EvalContext, value: Iterable[Any], d: str = "", attribute: Any = None) -> Any:
            if attribute is not None:
                value = map(make_attrgetter(self, attribute), value)
            return original(context, self._parts(value, len(str(d))), d)

        return join

    def _summed(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def total(context: Any, iterable: Iterable[Any], attribute: Any = None, start: Any = 0) -> Any:
            if isinstance(start, int | float):
                return original(context, self.meter.each(iterable), attribute, start)
            if attribute is not None:
                iterable = map(make_attrgetter(self, attribute), iterable)
            return functools.reduce(functools.partial(self.call_binop, None, "+"), iterable, start)

        return total


class _Formatter(SandboxedFormatter):
    """Fills the places of ``str.format``."""

    def format_field(self, value: Any, format_spec: str) -> Any:
        environment: Any = self._env
        bounds.spelled(environment.meter, value, format_spec)
        return super().format_field(value, format_spec)


class Prompt:
    """A compiled template.

    Attributes:
        names: the top-level names a record must have. ``record`` is the whole record; a name that the template asks for
            somewhere (``is defined``, ``default``, ``if x``, ``x or y``) may be absent there, and where that was asked.
    """

    def __init__(self, source: str, workload: str, place: Callable[[int | None], str] | None = None) -> None:
        """Compile ``source``.

        Args:
            place: says, of a line of the source, where that stands; None where it is the workload's prompt, wherever that was.

        Raises:
            ConfigError: it is no valid template, or takes in another one; says where.
        """
        self._place = place or functools.partial(_of_prompt, workload)
        self._workload = workload
        self._environment = environment = _Environment()
        try:
            tree = environment.parse(source)
            for node in tree.find_all(_ELSEWHERE):
                word = type(node).__name__.lower().replace("fromimport", "from … import")
                raise self._wrong(f"{{% {word} %}} is not possible: a prompt stands in one piece", node.lineno)
            names = needed(tree, environment.functions)
            tree = _Rewritten(environment.functions, _taken(tree)).visit(tree)
            self.names = names & meta.find_undeclared_variables(tree) - {"record"}
            self._render = environment.from_string(tree)
        except TemplateError as error:
            raise self._wrong(f"is no valid template: {error}", getattr(error, "lineno", None)) from error
        except (RecursionError, SyntaxError, ValueError, MemoryError) as error:
            raise self._wrong(f"is no template that can be used: {type(error).__name__}: {error}", None) from error

    def _wrong(self, why: str, line: int | None) -> ConfigError:
        where = self._place(line)
        problem = ConfigProblem(f"workloads.{self._workload}.prompt", line, why)
        return ConfigError(f"{where}: {why}", problems=[problem], workload=self._workload)

    def render(self, record: Mapping[str, Any]) -> str:
        """Return the prompt of one record.

        Raises:
            InputError: the template fails on this record, or would build too much of it; says why.
        """
        pieces, length = [], 0
        try:
            self._environment.meter.start()
            # What Template.render() does, without merging Jinja's chain of globals anew for each record: that takes
            # longer than a prompt's rendering itself.
            context = self._render.new_context({"record": record, **record}, shared=True)
            for piece in self._render.root_render_func(context):
                pieces.append(piece)
                length += len(piece)
                if length > bounds.MOST_TEXT:
                    raise bounds.TooMuch(f"it has more than {bounds.MOST_TEXT:,} characters")
            return "".join(pieces)
        except (bounds.TooMuch, NotData) as error:
            raise InputError(f"its prompt cannot be rendered: {error}") from error
        except Exception as error:
            raise InputError(f"its prompt cannot be rendered: {type(error).__name__}: {error}") from error


def _of_prompt(workload: str, line: int | None) -> str:
    return f"workload {workload}: its prompt" + (f" (line {line})" if line else "")


def _taken(tree: nodes.Template) -> set[str]:
    """Return the names that a template gives to values and macros of its own."""
    stored = {node.name for node in tree.find_all(nodes.Name) if node.ctx != "load"}
    return stored | {node.name for node in tree.find_all(nodes.Macro)}
