"""The configuration file: each option described once, beside its type; all problems reported at once, with their lines.

``nura`` reads one YAML file (``config.example.yaml`` shows every option). Scalars are read as YAML 1.2 reads them: only
``true`` and ``false`` are booleans, and nothing turns into a date. Secrets are never in the file: they come from an
environment variable, a file, or a command, and only when they are needed.
"""

import difflib
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from nura_cli.config_file import beside, problems_in, read_yaml
from nura_cli.errors import ConfigError, Problem

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def duration(value: Any) -> Any:
    """Return the seconds of ``90``, ``30s``, ``15m``, ``1h30m`` or ``7d``.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = str(value).strip()
    if not re.fullmatch(r"(\d+[smhd])+", text):
        raise ValueError("a length of time such as 30s, 15m, 1h30m or 7d")
    return sum(int(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+)([smhd])", text))


def _size(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", str(value).strip())
    if not match or match[2].upper() not in _SIZES:
        raise ValueError("a number of bytes such as 200MB or 64KiB")
    return int(match[1]) * _SIZES[match[2].upper()]


def _or_never(value: Any) -> Any:
    return None if value == "never" else duration(value)


Seconds = Annotated[int, BeforeValidator(duration), Field(ge=0)]
Bytes = Annotated[int, BeforeValidator(_size), Field(gt=0)]
Positive = Annotated[int, Field(gt=0)]


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, hide_input_in_errors=True)


class LimitsConfig(_Options):
    """Lower limits than the vendor's own; they cannot be raised."""

    requests: Positive | None = Field(None, description="requests in one batch")
    bytes: Bytes | None = Field(None, description="size of one request file, such as 50MB")
    inputs: Positive | None = Field(None, description="embedding inputs in one batch")
    enqueued_tokens: Positive | None = Field(
        None, description="estimated prompt tokens under way at once for one model (OpenAI caps them for each account)"
    )


class ProviderConfig(_Options):
    """One account at one provider."""

    kind: Literal["openai", "anthropic", "sandbox"] = Field(description="whose API it speaks; sandbox is built in")
    protocol: Literal["openai", "anthropic"] = Field("openai", description="which API the sandbox speaks")
    api_key_env: str | None = Field(None, description="environment variable that holds the key")
    api_key_file: Path | None = Field(None, description="file that holds the key")
    api_key_command: list[str] | None = Field(None, description="command that prints the key (no shell)")
    base_url: str | None = Field(None, description="address of a compatible service; default: the vendor's own")
    organization: str | None = Field(None, description="OpenAI organization")
    project: str | None = Field(None, description="OpenAI project")
    limits: LimitsConfig = Field(LimitsConfig(), description="lower limits than the vendor's own")
    on_unconfirmed: Literal["adopt", "hold"] = Field(
        "adopt", description="a create whose answer was lost: resolve it at the provider, or wait for a person"
    )
    cleanup_after: Annotated[int | None, BeforeValidator(_or_never)] = Field(
        7 * 86400, description="when files of a finished batch are deleted at the provider; 0 for at once, or never"
    )

    @property
    def dialect(self) -> Literal["openai", "anthropic"]:
        """Whose wording its requests and results have."""
        return self.protocol if self.kind == "sandbox" else self.kind

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        sources = [self.api_key_env, self.api_key_file, self.api_key_command]
        given = sum(source is not None for source in sources)
        if self.kind == "sandbox" and given:
            raise ValueError("the sandbox takes no key")
        if self.kind != "sandbox" and given != 1:
            raise ValueError("give one of api_key_env, api_key_file and api_key_command")
        if "protocol" in self.model_fields_set and self.kind != "sandbox":
            raise ValueError("protocol is for kind: sandbox")
        if self.dialect != "openai" and (self.organization or self.project):
            raise ValueError("organization and project are for kind: openai")
        if self.base_url is not None:
            if self.kind == "sandbox":
                raise ValueError("the sandbox has no base_url: it is started by the command that needs it")
            if not re.match(r"https?://[^/@\s]+(/\S*)?$", self.base_url):
                raise ValueError("base_url must be an http:// or https:// address without credentials")
        return self

    def secret(self) -> str:
        """Return the key, read now from where the configuration says.

        Raises:
            ConfigError: it is not there, or is empty; names the option, never a value.
        """
        if self.kind == "sandbox":
            return "sandbox"
        return _secret("api_key", self.api_key_env, self.api_key_file, self.api_key_command)


class DispatchConfig(_Options):
    """When a workload's waiting tasks are sent: when either is reached."""

    min_requests: Positive = Field(1, description="due when this many wait")
    max_wait: Seconds = Field(3600, description="due when the oldest has waited this long")


class RetryConfig(_Options):
    """How often a task is tried."""

    max_attempts: Positive = Field(3, description="attempts, the first included")


class WorkloadConfig(_Options):
    """One kind of work: its prompt, its provider, and where its answers go."""

    name: str = Field("", exclude=True, init=False)
    provider: str = Field(description="one of providers:")
    endpoint: str | None = Field(None, description="default /v1/chat/completions, or /v1/messages (Anthropic)")
    model: str | None = Field(None, description="model; needed with a prompt")
    key: str | Annotated[list[str], Field(min_length=1)] = Field(
        "id", description="field (or fields) that names a record"
    )
    system: str | None = Field(None, description="system text, sent as it is")
    system_file: Path | None = Field(None, description="file with the system text")
    prompt: str | None = Field(
        None, description="Jinja template of the user's message; without one, ready lines are taken"
    )
    prompt_file: Path | None = Field(None, description="file with the template")
    params: dict[str, Any] = Field({}, description="request options, passed on as they are")
    answer_schema: dict[str, Any] | None = Field(None, alias="schema", description="JSON schema that answers must fit")
    keep: list[str] = Field([], description="fields of the record that travel to results and events")
    dispatch: DispatchConfig = Field(DispatchConfig(), description="when waiting tasks are sent")
    retry: RetryConfig = Field(RetryConfig(), description="how often a task is tried")

    @property
    def has_prompt(self) -> bool:
        """Whether it takes records and renders them; else it takes ready lines."""
        return self.prompt is not None or self.prompt_file is not None

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if self.prompt is not None and self.prompt_file is not None:
            raise ValueError("give one of prompt and prompt_file")
        if self.system is not None and self.system_file is not None:
            raise ValueError("give one of system and system_file")
        if self.has_prompt and not self.model:
            raise ValueError("a workload with a prompt needs a model")
        if not self.has_prompt:
            extra = {"model", "system", "system_file", "params", "endpoint"} & self.model_fields_set
            if extra:
                raise ValueError(
                    f"without a prompt it takes ready lines, which bring their own {', '.join(sorted(extra))}"
                )
        return self


class Config(_Options):
    """The whole file."""

    path: Path = Field(Path(), exclude=True, init=False)
    state: Path = Field(Path("nura.db"), description="the state file; relative to this file, like every path in it")
    remind: Seconds = Field(6 * 3600, description="how often a lasting trouble is said again")
    providers: dict[str, ProviderConfig] = Field(description="accounts, by a name of your choice")
    workloads: dict[str, WorkloadConfig] = Field({}, description="kinds of work, by name")


def load(path: Path) -> Config:
    """Read and check a configuration file.

    Raises:
        ConfigError: with every problem in it, each with its path and line.
    """
    document, marks = read_yaml(path)
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        raise problems_in(path, [_problem(found, marks) for found in error.errors()]) from None
    config = _named(config, path)
    wrong = [Problem(".".join(map(str, where)), _line(marks, where), why) for where, why in _cross_checks(config)]
    if wrong:
        raise problems_in(path, wrong)
    return config


def _named(config: Config, path: Path) -> Config:
    """Return the configuration with names filled in and every path made absolute, relative to the file's folder."""
    workloads = {}
    for name, workload in config.workloads.items():
        files = {field: _beside_or_none(path, getattr(workload, field)) for field in ("prompt_file", "system_file")}
        workloads[name] = workload.model_copy(update={"name": name, **files})
    providers = {
        name: provider.model_copy(update={"api_key_file": _beside_or_none(path, provider.api_key_file)})
        for name, provider in config.providers.items()
    }
    update = {
        "path": path,
        "state": beside(path, config.state),
        "workloads": workloads,
        "providers": providers,
    }
    return config.model_copy(update=update)


def _beside_or_none(path: Path, other: Path | None) -> Path | None:
    return None if other is None else beside(path, other)


RENDERED = {
    "openai": ("/v1/chat/completions", "/v1/responses", "/v1/embeddings"),
    "anthropic": ("/v1/messages",),
}
_OURS = {"model", "messages", "input", "instructions", "system", "stream", "store"}


def _cross_checks(config: Config) -> Iterator[tuple[tuple[Any, ...], str]]:
    for section in ("providers", "workloads"):
        for name in getattr(config, section):
            if not re.match(NAME, name):
                yield (section, name), "a name has letters, digits, - and _, and begins with a letter or digit"
    if not config.providers:
        yield ("providers",), "name at least one provider"
    for name, workload in config.workloads.items():
        yield from _check_workload(config, ("workloads", name), workload)


def _check_workload(
    config: Config, where: tuple[Any, ...], workload: WorkloadConfig
) -> Iterator[tuple[tuple[Any, ...], str]]:
    provider = config.providers.get(workload.provider)
    if provider is None:
        yield (*where, "provider"), f"no provider {workload.provider}{_like(workload.provider, config.providers)}"
        return
    if workload.has_prompt:
        rendered = RENDERED[provider.dialect]
        if workload.endpoint is not None and workload.endpoint not in rendered:
            yield (
                (*where, "endpoint"),
                f"prompts are rendered for {', '.join(rendered)}; other endpoints take ready lines",
            )
        schema_ours = {"response_format", "text", "output_config"} if workload.answer_schema is not None else set[str]()
        for option in sorted((_OURS | schema_ours) & workload.params.keys()):
            yield (*where, "params", option), "nura sets this itself"
        if provider.dialect == "anthropic" and "max_tokens" not in workload.params:
            yield (*where, "params"), "Anthropic requires max_tokens"


def _like(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else f"; there is {', '.join(known) or 'none'}"


def _line(marks: Mapping[tuple[Any, ...], int], where: tuple[Any, ...]) -> int | None:
    while where and where not in marks:
        where = where[:-1]
    return marks.get(where)


def _problem(error: Any, marks: Mapping[tuple[Any, ...], int]) -> Problem:
    """Put one of pydantic's findings into words, with its path and line."""
    raw = tuple(
        part for part in error["loc"] if not str(part).startswith(("function-", "constrained-", "list[", "str"))
    )
    where = tuple(part for n, part in enumerate(raw) if n < 2 or raw[: n + 1] in marks or n == len(raw) - 1) or raw
    kind, message = error["type"], error["msg"]
    if kind == "extra_forbidden":
        message = "unknown option" + _suggestion(where)
    elif kind == "missing":
        message = "is required"
    elif kind == "value_error":
        message = message.removeprefix("Value error, ")
        if "such as" in message:
            message = f"must be {message}"
    else:
        message = message[0].lower() + message[1:]
    return Problem(".".join(map(str, where)), _line(marks, where), message)


_SECRETS = {"api_key": "api_key_env or api_key_file", "key": "api_key_env or api_key_file"}


def _suggestion(where: tuple[Any, ...]) -> str:
    option = str(where[-1])
    if option in _SECRETS and where[0] == "providers":
        return f"; secrets are never in this file: use {_SECRETS[option]}"
    options = {alias for model in _models(where) for alias in _aliases(model)}
    close = difflib.get_close_matches(option, options, 1)
    return f"; did you mean {close[0]}?" if close else ""


_SECTIONS: dict[str, type[BaseModel]] = {
    "limits": LimitsConfig,
    "dispatch": DispatchConfig,
    "retry": RetryConfig,
}
_TOP: dict[str, type[BaseModel]] = {
    "providers": ProviderConfig,
    "workloads": WorkloadConfig,
}


def _models(where: tuple[Any, ...]) -> list[type[BaseModel]]:
    """Return the model whose options stand at a path."""
    if len(where) == 1:
        return [Config]
    inner = [_SECTIONS[part] for part in where[2:-1] if part in _SECTIONS]
    return inner[-1:] or [_TOP[where[0]]] if where[0] in _TOP else []


def _aliases(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items() if not field.exclude]


def prompt_text(workload: WorkloadConfig) -> str | None:
    """Return a workload's template, read from its file where it names one; None when it takes ready lines.

    Raises:
        ConfigError: the file cannot be read.
    """
    return _text(workload, "prompt_file", workload.prompt, workload.prompt_file)


def system_text(workload: WorkloadConfig) -> str | None:
    """Return a workload's system text, read from its file where it names one. Raises ConfigError like prompt_text."""
    return _text(workload, "system_file", workload.system, workload.system_file)


def _text(workload: WorkloadConfig, option: str, inline: str | None, file: Path | None) -> str | None:
    if file is None:
        return inline
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise ConfigError(f"workloads.{workload.name}.{option}: {file}: {why}", workload=workload.name) from error


def _secret(option: str, env: str | None, file: Path | None, command: list[str] | None) -> str:
    """Read a secret from the one place that is given; its value is in no message."""
    if env is not None:
        value, place = os.environ.get(env, ""), f"{option}_env: the environment variable {env}"
    elif file is not None:
        place = f"{option}_file: {file}"
        try:
            value = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise ConfigError(f"{place}: {why}", hint="cron's user must be able to read it") from None
    else:
        value, place = _printed(option, command or []), f"{option}_command: {(command or ['?'])[0]}"
    value = value.strip()
    if not value:
        raise ConfigError(
            f"{place} is not set, or empty", hint="cron starts with an almost empty environment: use a file"
        )
    if not value.isprintable() or not value.isascii():
        raise ConfigError(f"{place}: holds more than one line, or characters no key has")
    return value


def _printed(option: str, command: list[str]) -> str:
    place = f"{option}_command: {command[0]}"
    try:
        done = subprocess.run(command, capture_output=True, timeout=30, check=False, stdin=subprocess.DEVNULL)  # noqa: S603 - the operator's own command, without a shell
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{place}: cannot be run: {type(error).__name__}") from None
    if done.returncode:
        raise ConfigError(f"{place}: ended with exit code {done.returncode}")
    return done.stdout.decode("utf-8", "replace")
