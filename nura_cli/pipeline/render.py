"""Requests: what a workload's lines become now, or became in a batch: a prompt in the dialect's body, or the bytes as they came."""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from nura_cli.config import WorkloadConfig, prompt_place, prompt_text, system_text
from nura_cli.dialects.base import Dialect, Limits, Spec
from nura_cli.dialects.vendors import dialect as dialect_of
from nura_cli.errors import InputError
from nura_cli.pipeline.numbers import record_of
from nura_cli.pipeline.packing import Request
from nura_cli.pipeline.templates import Prompt


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
            return Request(dialect.request(b"%b-%d" % (prefix, task_id), spec.endpoint, content), content, inputs)

        return made


def rendering(workload: WorkloadConfig, dialect: Dialect, endpoint: str = "", model: str = "") -> Rendering:
    """Return how what waits of a workload becomes requests now; ready lines bring their endpoint and model.

    Raises:
        ConfigError: its prompt or system file cannot be read, or is no valid template.
    """
    spec = spec_of(workload, dialect, endpoint, model)
    return Rendering(spec, dialect, _body_maker(compiled(workload, spec.prompt), spec, dialect))


def compiled(workload: WorkloadConfig, source: str | None) -> Prompt | None:
    """Return a workload's prompt, ready to be rendered; None where it takes ready lines.

    Raises:
        ConfigError: it is no valid template; says in which file and line.
    """
    return None if source is None else Prompt(source, workload.name, prompt_place(workload))


def rendered(workload: str, spec: Spec) -> Rendering:
    """Return how lines became requests in a batch of this workload that was rendered with a spec."""
    spoken = dialect_of(spec.dialect)
    prompt = None if spec.prompt is None else Prompt(spec.prompt, workload)
    return Rendering(spec, spoken, _body_maker(prompt, spec, spoken))


def prompt_of(workload: str, spec: Spec, line: bytes) -> str | None:
    """Return the prompt that a spec makes of a kept line; None for a ready one. Raises InputError where it makes none."""
    return None if spec.prompt is None else Prompt(spec.prompt, workload).render(record_of(line))


def _body_maker(prompt: Prompt | None, spec: Spec, dialect: Dialect) -> Callable[[bytes], bytes]:
    """Return the function that makes a kept line the body of a request: a ready line is one, a record is rendered."""
    if prompt is None:
        return lambda line: line
    wrap = dialect.body(spec)

    def body(line: bytes) -> bytes:
        try:
            return wrap(prompt.render(record_of(line)))
        except UnicodeEncodeError as error:
            raise InputError("its prompt has a lone surrogate") from error

    return body
