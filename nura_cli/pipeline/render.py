"""Prompts and requests: a workload's template in Jinja's immutable sandbox, where an undefined name is an error."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from jinja2 import StrictUndefined, TemplateError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from nura_cli.config import WorkloadConfig, prompt_text, system_text
from nura_cli.dialects.base import Dialect, Limits, Spec
from nura_cli.dialects.vendors import dialect as dialect_of
from nura_cli.errors import ConfigError, InputError
from nura_cli.pipeline.packing import Request


class Prompt:
    """A compiled template.

    Attributes:
        names: the top-level names a record must have. ``record`` is the whole record; a name that is only ever given a
            ``default`` or asked ``is defined`` may be absent.
    """

    def __init__(self, source: str, workload: str) -> None:
        """Compile ``source``.

        Raises:
            ConfigError: it is no valid template; says where.
        """
        environment = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
        )
        try:
            tree = environment.parse(source)
            self._template = environment.from_string(tree)
        except TemplateError as error:
            line = getattr(error, "lineno", None)
            place = f" (line {line} of the prompt)" if line else ""
            raise ConfigError(f"workload {workload}: its prompt is no valid template: {error}{place}") from error
        self._globals = dict(self._template.globals)
        self.names = frozenset(_required(tree)) - {"record"}

    def render(self, record: Mapping[str, Any]) -> str:
        """Return the prompt of one record.

        Raises:
            InputError: the template fails on this record; says why.
        """
        try:
            # What Template.render() does, without merging Jinja's chain of globals anew for each record: that takes
            # longer than a prompt's rendering itself.
            names = {**self._globals, "record": record, **record}
            context = self._template.new_context(names, shared=True)
            return "".join(self._template.root_render_func(context))
        except Exception as error:
            raise InputError(f"its prompt cannot be rendered: {type(error).__name__}: {error}") from error


def _required(tree: nodes.Template) -> set[str]:
    """Return the undeclared names of a template, without those used only where being absent is provided for."""
    optional = [
        node.node.name
        for node in tree.find_all((nodes.Filter, nodes.Test))
        if isinstance(node, nodes.Filter | nodes.Test)
        and node.name in ("default", "d", "defined", "undefined")
        and isinstance(node.node, nodes.Name)
    ]
    used = [node.name for node in tree.find_all(nodes.Name) if node.ctx == "load"]
    return {name for name in meta.find_undeclared_variables(tree) if used.count(name) > optional.count(name)}


def revision(spec: Spec) -> tuple[str, str]:
    """Return a spec's revision (12 hex digits of its hash) and its JSON."""
    text = msgspec.json.encode(spec, order="sorted")
    return hashlib.sha256(text).hexdigest()[:12], text.decode()


def ordered(spec: Spec) -> tuple[str, str]:
    """Return a spec's JSON with its members in the order in which they are sent, and the name under which it is kept.

    A revision does not depend on that order; the bytes of a request do.
    """
    text = msgspec.json.encode(spec)
    return hashlib.sha256(text).hexdigest()[:12], text.decode()


def spec_of(workload: WorkloadConfig, dialect: Dialect, endpoint: str = "", model: str = "") -> Spec:
    """Return what a batch of this workload is rendered with now; ready lines bring their endpoint and model.

    Raises:
        ConfigError: its prompt or system file cannot be read.
    """
    return Spec(
        dialect=dialect.name,
        endpoint=endpoint or workload.endpoint or dialect.endpoints[0],
        model=model or workload.model or "",
        system=system_text(workload),
        prompt=prompt_text(workload),
        params=dict(workload.params),
        answer_schema=workload.answer_schema,
    )


class Rendering(NamedTuple):
    """How the lines of one queue become requests now.

    Attributes:
        spec: what they are rendered with.
        body: from a kept line to a request's body: rendered from a record, or the bytes as they came.
    """

    spec: Spec
    dialect: Dialect
    body: Callable[[bytes], bytes]

    def maker(self, tag: str, limits: Limits) -> Callable[[int, bytes], Request]:
        """Return a function from a task id and its line to the task's request in the batch with this tag.

        It raises InputError where the line cannot be rendered. Inputs are counted only where they are limited.
        """
        (spec, dialect, body), prefix = self, tag.encode()

        def made(task_id: int, line: bytes) -> Request:
            content = body(line)
            inputs = 0 if limits.inputs is None else dialect.inputs(spec.endpoint, content)
            return Request(dialect.request(b"%b-%d" % (prefix, task_id), spec.endpoint, content), inputs)

        return made


def rendering(workload: WorkloadConfig, dialect: Dialect, endpoint: str = "", model: str = "") -> Rendering:
    """Return how what waits of a workload becomes requests now; ready lines bring their endpoint and model.

    Raises:
        ConfigError: its prompt or system file cannot be read, or is no valid template.
    """
    spec = spec_of(workload, dialect, endpoint, model)
    return Rendering(spec, dialect, _body_maker(workload.name, spec, dialect))


def rendered(workload: str, spec: Spec) -> Rendering:
    """Return how lines became requests in a batch of this workload that was rendered with a spec."""
    spoken = dialect_of(spec.dialect)
    return Rendering(spec, spoken, _body_maker(workload, spec, spoken))


def prompt_of(workload: str, spec: Spec, line: bytes) -> str | None:
    """Return the prompt that a spec makes of a kept line; None for a ready one. Raises InputError where it makes none."""
    return None if spec.prompt is None else Prompt(spec.prompt, workload).render(msgspec.json.decode(line))


def _body_maker(workload: str, spec: Spec, dialect: Dialect) -> Callable[[bytes], bytes]:
    """Return the function that makes a kept line the body of a request: a ready line is one, a record is rendered."""
    if spec.prompt is None:
        return lambda line: line
    prompt = Prompt(spec.prompt, workload)
    wrap = dialect.body(spec)
    decode = msgspec.json.Decoder(dict[str, Any]).decode  # the line was checked when it was enqueued

    def body(line: bytes) -> bytes:
        try:
            return wrap(prompt.render(decode(line)))
        except UnicodeEncodeError as error:
            raise InputError("its prompt has a lone surrogate") from error

    return body
