"""The configuration file: each option described once, beside its type; all problems reported at once, with their lines.

``nura`` reads one YAML file (``config.example.yaml`` shows every option). Scalars are read as YAML 1.2 reads them: only
``true`` and ``false`` are booleans, and nothing turns into a date. Secrets are never in the file: they come from an
environment variable, a file, or a command, and only when they are needed.

What one option may be stands beside it; what options mean for each other stands in :func:`_rules`, which looks at the
document as it was read, so that a mistake in one option does not hide those in the others.
"""

import contextlib
import difflib
import os
import re
import stat
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args
from urllib.parse import parse_qsl, quote, unquote

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)

from nura_cli import scrub
from nura_cli.config_file import Marks, beside, digest_of, dotted, duration, problems_in, read_yaml
from nura_cli.dialects import vendors
from nura_cli.errors import ConfigError, ConfigProblem, UsageError
from nura_cli.states import EventType, is_about_task

if TYPE_CHECKING:
    from nura_cli.dialects.base import Dialect

NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}"
_SIZES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def _size(value: Any) -> Any:
    """Return bytes, given as a number or with a unit. Raises ValueError: it is neither."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(r"([0-9]{1,15}) *([A-Za-z]*)", str(value).strip())
    if not match or match[2].upper() not in _SIZES:
        raise ValueError("a number of bytes such as 200MB or 64KiB")
    return int(match[1]) * _SIZES[match[2].upper()]


def _share(value: Any) -> Any:
    """Return a share from 0 to 1, given as such or in per cent. Raises ValueError: it is neither."""
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?) *%", value.strip()) if isinstance(value, str) else None
    share = float(Decimal(match[1]) / 100) if match else value
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ValueError("must be a share such as 10% or 0.1")
    return float(share)


def _dollars(value: Any) -> Any:
    """Return US dollars as they are written. Raises ValueError: it is no amount, or a negative one, or one past all measure."""
    text = f"{Decimal(repr(value)):f}" if isinstance(value, float) else str(value).strip()
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,12})?", text):
        raise ValueError("must be an amount of US dollars such as 20 or 0.50")
    return Decimal(text)


def _or_never(value: Any) -> Any:
    return None if value in ("never", None) else value


def _beside_config(value: Path, info: ValidationInfo) -> Path:
    """Take a relative path from the folder of the configuration, which the validation's context names."""
    if value == Path():
        raise ValueError("must be the name of a file")
    return beside(info.context, value) if info.context else value


def _variable(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise ValueError("must be the name of an environment variable; the secret itself is never in this file")
    return value


def _not_a_key(value: Path) -> Path:
    if value.name.startswith("sk-"):
        raise ValueError("must be the name of a file; this looks like the key itself, which is never in this file")
    return value


def _program(value: list[str], info: ValidationInfo) -> list[str]:
    """Make the program's path absolute where it is a path and not a name to be looked up in PATH."""
    if info.context and ("/" in value[0] or value[0].startswith("~")):
        return [str(beside(info.context, value[0])), *value[1:]]
    return value


def _address(value: str) -> str:
    if not re.fullmatch(r"https?://[^/@\s?#]+(/[^\s?#]*)?", value):
        raise ValueError("must be an http:// or https:// address without credentials and without a query")
    return value


def _without_password(value: str) -> str:
    """Refuse a password where SQLAlchemy would find one: between the user's name and @, or in the query."""
    if re.match(r"[^:/]*://[^:/]*:[^@]*@", value) or re.search(r"[?&](password|passwd|pwd|sslpassword)=", value, re.I):
        raise ValueError("must be a URL without a password; one with a password goes into url_env or url_file")
    if not re.match(r"[A-Za-z][A-Za-z0-9_+]*://", value):
        raise ValueError("must be a SQLAlchemy URL such as sqlite:///app.db or postgresql://user@host/name")
    return value


def _receiver(value: str) -> str:
    if not re.fullmatch(r"https?://[^/@\s?#]+([/?][^\s#]*)?", value):
        raise ValueError("must be an http:// or https:// address without credentials")
    return value


def _field_names(value: Any) -> Any:
    """Check that an option names fields: one, or a list of them. Raises ValueError."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError("must be the name of a field, or a list of names")
    return value


_LONGEST = 100 * 365 * 86400
# What each of these takes as it is written, for the schema that editors read; the title says it in words.
_DURATION = {
    "title": "length of time",
    "type": ["integer", "string"],
    "minimum": 0,
    "pattern": r"^\s*[0-9]+[0-9smhd]*\s*$",
}
_BYTES = {
    "title": "size",
    "type": ["integer", "string"],
    "exclusiveMinimum": 0,
    "pattern": r"^\s*[0-9]+ *[A-Za-z]*\s*$",
}
_FIELDS = {"title": "field or fields", "type": ["string", "array"], "items": {"type": "string"}, "minItems": 1}
Seconds = Annotated[int, BeforeValidator(duration), Field(ge=0, le=_LONGEST), WithJsonSchema(_DURATION)]
SecondsOrNever = Annotated[
    Seconds | None,
    BeforeValidator(_or_never),
    WithJsonSchema({"anyOf": [_DURATION, {"const": "never"}, {"type": "null"}]}),
]
Bytes = Annotated[int, BeforeValidator(_size), Field(gt=0), WithJsonSchema(_BYTES)]
Positive = Annotated[int, Field(gt=0, lt=2**63, strict=True)]
Share = Annotated[
    float,
    BeforeValidator(_share),
    WithJsonSchema({"title": "share", "type": ["number", "string"], "minimum": 0, "maximum": 1}),
]
_DOLLARS = {"title": "US dollars", "type": ["number", "string"], "minimum": 0}
# Pico-dollars fit into a column of SQLite's: those of a budget, and the price of a hundred million tokens.
_MOST_DOLLARS, _HIGHEST_PRICE = 9_000_000, 10_000
Dollars = Annotated[
    Decimal, BeforeValidator(_dollars), Field(le=_MOST_DOLLARS), WithJsonSchema(_DOLLARS | {"maximum": _MOST_DOLLARS})
]
Price = Annotated[Dollars, Field(le=_HIGHEST_PRICE), WithJsonSchema(_DOLLARS | {"maximum": _HIGHEST_PRICE})]
File = Annotated[Path, AfterValidator(_beside_config), WithJsonSchema({"title": "file", "type": "string"})]


def _kinds() -> tuple[str, ...]:
    return (*vendors.names(), "sandbox")


def _kind(value: Any) -> str:
    return _one_of(value, _kinds())


def _protocol(value: Any) -> str:
    return _one_of(value, vendors.in_sandbox())


def _one_of(value: Any, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ValueError(f"must be {', '.join(map(repr, known[:-1]))} or {known[-1]!r}")
    return str(value)


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, hide_input_in_errors=True)


class LimitsConfig(_Options):
    """Lower limits than the vendor's own; they cannot be raised."""

    requests: Positive | None = Field(None, description="requests in one batch")
    bytes: Bytes | None = Field(None, description="size of one request file, such as 50MB")
    inputs: Positive | None = Field(None, description="embedding inputs in one batch")
    enqueued_tokens: Positive | None = Field(
        None,
        description="estimated prompt tokens under way at once for one model (some vendors cap them for each account)",
    )
    enqueued_requests: Positive | None = Field(
        None, description="requests under way at once, where the vendor counts them: for one model, or all together"
    )


class BudgetConfig(_Options):
    """What may be spent, in US dollars; days and months are those of UTC."""

    day: Dollars | None = Field(None, description="what is sent in one day may cost")
    month: Dollars | None = Field(None, description="what is sent in one month may cost")
    basis: Literal["expected", "worst"] = Field(
        "expected",
        description="what a request counts for until its cost is known: as expected, or with all the output it may have",
    )


class BatchBudgetConfig(BudgetConfig):
    """What a workload may spend."""

    batch: Dollars | None = Field(None, description="what one batch may cost")


class PriceConfig(_Options):
    """What a model costs, in US dollars for a million tokens; list prices, of which batches have their discount."""

    input: Price = Field(description="of input")
    output: Price = Field(description="of output; 0 where there is none, as of embeddings")
    cached_input: Price | None = Field(None, description="of input read from a cache; default: as input")
    cache_write: Price | None = Field(
        None,
        description="of input written to a cache; default: 1.25 times the input; kept there for an hour, twice the input at least",
    )


class CanaryConfig(_Options):
    """How a new revision of a workload shows itself before the rest of its tasks is sent."""

    requests: Positive = Field(20, description="how many are sent first")
    max_failed: Share = Field(0.1, description="the share of them that may come home without an answer of use")


class ProviderConfig(_Options):
    """One account at one provider."""

    kind: Annotated[str, PlainValidator(_kind), WithJsonSchema({"enum": [*_kinds()]})] = Field(
        description="whose API it speaks; sandbox is built in"
    )
    protocol: Annotated[str, PlainValidator(_protocol), WithJsonSchema({"enum": [*vendors.in_sandbox()]})] = Field(
        default_factory=lambda: vendors.in_sandbox()[0], description="which API the sandbox speaks"
    )
    api_key_env: Annotated[str, AfterValidator(_variable)] | None = Field(
        None, description="environment variable that holds the key"
    )
    api_key_file: Annotated[File, AfterValidator(_not_a_key)] | None = Field(
        None, description="file that holds the key"
    )
    api_key_command: Annotated[list[str], Field(min_length=1), AfterValidator(_program)] | None = Field(
        None, description="command that prints the key (no shell)"
    )
    base_url: Annotated[str, AfterValidator(_address)] | None = Field(
        None, description="address of a compatible service; default: the vendor's own"
    )
    organization: str | None = Field(None, description="organization to act for, where the vendor has such")
    project: str | None = Field(None, description="project to act for, where the vendor has such")
    headers: dict[str, str] = Field({}, description="HTTP headers that go with every request; never secrets")
    limits: LimitsConfig = Field(default_factory=LimitsConfig, description="lower limits than the vendor's own")
    budget: BudgetConfig = Field(default_factory=BudgetConfig, description="what may be spent there, in US dollars")
    prices: dict[str, PriceConfig] = Field(
        {},
        description="list prices by model, in US dollars for a million tokens, which go before nura's own price list;"
        " one holds for the dated versions of its model too",
    )
    batch_discount: Share | None = Field(
        None,
        description="what batches cost less than the list price, as a share: of all models' tokens, never of tools' calls;"
        " default: as the price list says, else the half that the vendor documents; of prices that are given here, that half at"
        " the vendor's own address, and nothing at another base_url",
    )
    on_unconfirmed: Literal["adopt", "hold"] = Field(
        "adopt", description="a create whose answer was lost: resolve it at the provider, or wait for a person"
    )
    on_lost: Literal["hold", "resend"] = Field(
        "hold",
        description="results that were paid for and cannot be had: wait for a person, or send each task again, once",
    )
    cleanup_after: SecondsOrNever = Field(
        7 * 86400, description="when files of a finished batch are deleted at the provider; 0 for at once, or never"
    )

    @property
    def dialect(self) -> str:
        """Whose wording its requests and results have: a vendor's name."""
        return self.protocol if self.kind == "sandbox" else self.kind

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


class DatabaseConfig(_Options):
    """A database of the application's, by SQLAlchemy URL."""

    url: Annotated[str, AfterValidator(_without_password)] | None = Field(
        None, description="SQLAlchemy URL without a password, such as sqlite:///app.db"
    )
    url_env: Annotated[str, AfterValidator(_variable)] | None = Field(
        None, description="environment variable that holds the URL"
    )
    url_file: File | None = Field(None, description="file that holds the URL")

    _config: Path = PrivateAttr(Path())

    def secret(self) -> str:
        """Return the URL, read now from where the configuration says; a SQLite file is relative to the configuration.

        Raises:
            ConfigError: it is not there, or is empty; names the option, never a value.
        """
        url = self.url if self.url is not None else _secret("url", self.url_env, self.url_file, None)
        scrub.know_url(url)
        scheme, slashes, rest = url.partition(":///")
        if not re.fullmatch(r"sqlite(\+[a-z]+)?", scheme) or not slashes or rest.startswith((":", "file:")) or not rest:
            return url
        file, mark, query = self._file(rest)
        return f"{scheme}:///{quote(str(file))}{mark}{query}"

    def _file(self, rest: str) -> tuple[Path, str, str]:
        """Return the file that the end of a SQLite URL names, and the options behind it.

        In a URL a blank is %20 and a question mark %3F; a file whose own name is written so, or with a ?, is that file.
        """
        whole, (path, mark, query) = beside(self._config, rest), rest.partition("?")
        if mark and whole.is_file():
            return whole, "", ""
        literal, decoded = beside(self._config, path), beside(self._config, unquote(path))
        return (literal if literal != decoded and literal.is_file() else decoded), mark, query

    def files(self) -> Iterator[Path]:
        """Yield the files of a SQLite database, with those that SQLite keeps beside it, and what a URL's options may name:
        certificates and keys. Where the URL cannot be had there are none.
        """
        with suppress(ConfigError):
            address, _, options = self.secret().partition("?")
            yield from (beside(self._config, value) for _, value in parse_qsl(options))
            scheme, _, name = address.partition(":///")
            if scheme.partition("+")[0] == "sqlite" and name:
                file = beside(self._config, unquote(name))
                yield from (file.with_name(file.name + suffix) for suffix in ("", "-wal", "-shm", "-journal"))


class WriteBackConfig(_Options):
    """Where answers go in the application's database. Values are JMESPath over the fields of a line of ``nura results``."""

    database: str = Field(description="one of databases:")
    table: str = Field(description="table, or schema.table", min_length=1)
    where: dict[str, str] = Field(min_length=1, description="column: expression; together they name the row")
    set_: dict[str, str] = Field({}, alias="set", description="column: expression, for a completed task")
    set_failed: dict[str, str] = Field({}, description="column: expression, for a failed task")
    set_cancelled: dict[str, str] = Field({}, description="column: expression, for a cancelled task")
    only_if: dict[str, str] = Field({}, description="column: expression; write only while the row still holds this")
    nullable: list[str] = Field([], description="columns of set, set_failed and set_cancelled that may become NULL")
    ledger: str | None = Field(None, description="table that notes each delivery in the same transaction: exactly once")


class EventConfig(_Options):
    """One receiver of events: a command or a webhook."""

    types: list[EventType] = Field(min_length=1, description="which events it gets")
    command: Annotated[list[str], Field(min_length=1), AfterValidator(_program)] | None = Field(
        None, description="program and arguments (no shell); events on stdin as JSON Lines"
    )
    env: list[Annotated[str, AfterValidator(_variable)]] = Field(
        [], description="environment variables passed on to the command"
    )
    webhook: Annotated[str, AfterValidator(_receiver)] | None = Field(
        None, description="address that gets a signed POST for each event (Standard Webhooks)"
    )
    secret_env: Annotated[str, AfterValidator(_variable)] | None = Field(
        None, description="environment variable that holds the webhook's secret"
    )
    secret_file: File | None = Field(None, description="file that holds the webhook's secret")
    answers: bool = Field(False, description="whether events carry the answer: text and json")
    timeout: Annotated[Seconds, Field(gt=0, le=600)] = Field(30, description="how long one call may take")

    def secret(self) -> str:
        """Return the webhook's secret. Raises ConfigError like :meth:`ProviderConfig.secret`."""
        secret = _secret("secret", self.secret_env, self.secret_file, None)
        scrub.know(secret.removeprefix("whsec_"))
        return secret


class SourceConfig(_Options):
    """Where ``nura enqueue --from-source`` reads its records."""

    database: str = Field(description="one of databases:")
    query: str = Field(description="a SELECT; each row becomes a record", min_length=1)


class WorkloadConfig(_Options):
    """One kind of work: its prompt, its provider, and where its answers go."""

    provider: str = Field(description="one of providers:")
    endpoint: str | None = Field(None, description="path at the vendor; default: its first for prompts")
    model: str | None = Field(None, description="model; needed with a prompt")
    key: Annotated[str | list[str], PlainValidator(_field_names), WithJsonSchema(_FIELDS)] = Field(
        "id", description="field (or fields) that names a record, or a path into it such as _id.$oid"
    )
    system: str | None = Field(None, description="system text, sent as it is")
    system_file: File | None = Field(None, description="file with the system text")
    prompt: str | None = Field(
        None, description="Jinja template of the user's message; without one, ready lines are taken"
    )
    prompt_file: File | None = Field(None, description="file with the template")
    params: dict[str, Any] = Field({}, description="request options, passed on as they are")
    answer_schema: dict[str, Any] | None = Field(None, alias="schema", description="JSON schema that answers must fit")
    accept_truncated: bool = Field(False, description="whether a text cut at its token limit is an answer")
    keep: list[str] = Field([], description="fields of the record that travel to results and events")
    dispatch: DispatchConfig = Field(default_factory=DispatchConfig, description="when waiting tasks are sent")
    priority: int = Field(0, ge=-1000, le=1000, strict=True, description="where room is scarce, higher ones go first")
    budget: BatchBudgetConfig = Field(default_factory=BatchBudgetConfig, description="what it may spend, in US dollars")
    canary: CanaryConfig | None = Field(None, description="a new revision shows itself first, with a few requests")
    retry: RetryConfig = Field(default_factory=RetryConfig, description="how often a task is tried")
    source: SourceConfig | None = Field(None, description="where enqueue --from-source reads")
    write_back: WriteBackConfig | None = Field(None, description="the application's table that gets the answers")
    events: list[EventConfig] = Field([], description="who is told")
    retention: Seconds | None = Field(
        None, description="how long records and answers are kept once they are delivered; default: for ever"
    )

    _name: str = PrivateAttr("")
    _path: Path = PrivateAttr(Path())
    _prompt_line: int | None = PrivateAttr(None)
    _unfit: list[ConfigProblem] = PrivateAttr(default_factory=list)

    @property
    def name(self) -> str:
        """Its name in the file."""
        return self._name

    def check(self) -> None:
        """See that its vendor would take what is sent. Raises ConfigError with every problem: of this workload alone."""
        if self._unfit:
            raise problems_in(self._path, self._unfit, workload=self._name)

    @property
    def has_prompt(self) -> bool:
        """Whether it takes records and renders them; else it takes ready lines."""
        return self.prompt is not None or self.prompt_file is not None


class AlertConfig(_Options):
    """When what waits needs a person, to whom ``nura status`` then says so."""

    oldest_pending: SecondsOrNever = Field(26 * 3600, description="a task has been pending for so long; or never")
    no_success: SecondsOrNever = Field(
        2 * 3600, description="work waits, and no stage has ended well for so long; or never"
    )


class PingConfig(_Options):
    """The monitor that ``nura run`` tells when it begins and how it ends."""

    url: Annotated[str, AfterValidator(_receiver)] | None = Field(
        None, description="its address, to which /start and /EXIT_CODE are added"
    )
    url_env: Annotated[str, AfterValidator(_variable)] | None = Field(
        None, description="environment variable that holds the address"
    )
    url_file: File | None = Field(None, description="file that holds the address")

    def secret(self) -> str:
        """Return the address. Raises ConfigError like :meth:`ProviderConfig.secret`, and where it is no address."""
        url = self.url if self.url is not None else _secret("url", self.url_env, self.url_file, None)
        scrub.know(url)
        try:
            return _receiver(url)
        except ValueError as error:
            raise ConfigError(f"ping.url_{'env' if self.url_env else 'file'}: {error}") from None


def _address_alone(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


class Config(_Options):
    """The whole file."""

    state: File = Field(
        Path("nura.db"),
        validate_default=True,
        description="the state file; relative to this file, like every path in it",
    )
    remind: Seconds = Field(6 * 3600, description="how often a lasting problem is said again")
    alert: AlertConfig = Field(default_factory=AlertConfig, description="when what waits needs a person")
    ping: Annotated[
        PingConfig | None, BeforeValidator(_address_alone, json_schema_input_type=str | PingConfig | None)
    ] = Field(
        None,
        description="the monitor that nura run tells when it begins and how it ends: an address, or where it stands",
    )
    providers: dict[str, ProviderConfig] = Field(description="accounts, by a name of your choice")
    databases: dict[str, DatabaseConfig] = Field({}, description="the application's databases, by name")
    workloads: dict[str, WorkloadConfig] = Field({}, description="kinds of work, by name")

    _path: Path = PrivateAttr(Path())
    _digest: str | None = PrivateAttr(None)
    _read: dict[Path, object] = PrivateAttr(default_factory=dict)
    _lines: dict[str, int] = PrivateAttr(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file it was read from."""
        return self._path

    @property
    def digest(self) -> str | None:
        """What tells this version of the file, read by this version of nura, from others."""
        return self._digest

    def changed(self) -> bool:
        """Return whether a file that says what is sent, this one or a prompt's, has changed since it was read."""
        return any(_stamp(file) != before for file, before in self._read.items())

    def files(self) -> Iterator[tuple[str, Path]]:
        """Yield every file that the configuration reads or keeps, with what it is: nothing else may be written there."""
        yield "the configuration", self._path
        yield "the state file", self.state
        events = [event for workload in self.workloads.values() for event in workload.events]
        named = [
            *(("a key file", provider.api_key_file) for provider in self.providers.values()),
            *(("a file with a database's URL", database.url_file) for database in self.databases.values()),
            *(("a webhook's secret", event.secret_file) for event in events),
            ("a file with a monitor's address", self.ping.url_file if self.ping else None),
            *(("a prompt", workload.prompt_file) for workload in self.workloads.values()),
            *(("a system text", workload.system_file) for workload in self.workloads.values()),
        ]
        yield from ((what, file) for what, file in named if file is not None)
        for database in self.databases.values():
            yield from (("a database, or a file of one", file) for file in database.files())
        commands = [provider.api_key_command for provider in self.providers.values()] + [
            event.command for event in events
        ]
        for word in (word for command in commands for word in command or ()):
            yield "a file of a command that the configuration runs", beside(self._path, word)

    def line(self, where: str) -> int | None:
        """Return the line of what stands at a dotted path, such as ``workloads.echo.model``, or of what it would stand in."""
        while where and where not in self._lines:
            where = where.rpartition(".")[0]
        return self._lines.get(where)

    def workload(self, name: str) -> WorkloadConfig:
        """Return a workload by its name. Raises UsageError for one that is not configured."""
        try:
            return self.workloads[name]
        except KeyError:
            hint = f"there is {', '.join(self.workloads) or 'none'}"
            raise UsageError(f"no workload {name} in {self._path}", hint=hint) from None

    def know_secrets(self) -> None:
        """Have the secrets known that can be read without running a command, so that no word from outside repeats one.

        One that cannot be read is passed over: whoever needs it says so.
        """
        webhooks = [event for workload in self.workloads.values() for event in workload.events if event.webhook]
        readers = [
            *(provider.secret for provider in self.providers.values() if provider.api_key_command is None),
            *(database.secret for database in self.databases.values()),
            *(webhook.secret for webhook in webhooks),
            *((self.ping.secret,) if self.ping else ()),
        ]
        for read in readers:
            with contextlib.suppress(ConfigError):
                read()


def load(path: Path) -> Config:
    """Read and check a configuration file.

    What a vendor would refuse of a workload's schema is found here, and is a problem of that workload when it is to be sent
    (:meth:`WorkloadConfig.check`): answers that are under way come home all the same.

    Raises:
        ConfigError: with every problem in it, each with its path and line.
    """
    before, digest = _stamp(path), digest_of(path)
    document, marks = read_yaml(path)
    config, found = _validated(path, document)
    unfit = _unfit(document, marks)
    if config is None or found:
        raise problems_in(path, [*_problems(found, marks), *(problem for _, problem in unfit)])
    config._digest = digest
    return _read(config, path, before, marks, unfit)


def sound_part(path: Path) -> tuple[Config | None, list[ConfigProblem]]:
    """Read a configuration file with mistakes in it.

    Returns:
        Its providers, databases and workloads without those that have mistakes, or that name one of these; None where the
        rest cannot be used either. And every mistake but those of schemas: each is a problem of its workload's.

    Raises:
        ConfigError: it cannot be read, or is no YAML.
    """
    before = _stamp(path)
    document, marks = read_yaml(path)
    config, found = _validated(path, document)
    problems = _problems(found, marks)
    while _without(document, found):
        config, found = _validated(path, document)
    if config is None:
        return None, problems
    unfit = _unfit(document, marks)
    return _read(config, path, before, marks, unfit), problems


def _without(document: dict[str, Any], found: Iterable[tuple[Any, ...]]) -> bool:
    """Take out of a document the entries, or else the options, in which something is wrong; return whether any was."""
    n = 0
    for where in found:
        section = document.get(where[0]) if where else None
        if isinstance(section, dict) and where[1:2]:
            n += section.pop(where[1], None) is not None
        elif where and where[0] != "providers":
            n += document.pop(where[0], None) is not None
    return n > 0


def _validated(path: Path, document: Mapping[str, Any]) -> tuple[Config | None, dict[tuple[Any, ...], str]]:
    """Return a document as a configuration, None where it makes none, and what is wrong at which place."""
    found = dict(_rules(document))
    try:
        config: Config | None = Config.model_validate(document, context=path)
    except ValidationError as error:
        found |= {one["loc"]: _wording(one) for one in error.errors(include_url=False, include_input=False)}
        config = None
    return config, found


def _unfit(document: Mapping[str, Any], marks: Marks) -> list[tuple[str, ConfigProblem]]:
    """Return what is wrong with schemas, each with the name of its workload."""
    return [
        (where[1], ConfigProblem(dotted(where), _line(marks, where), why)) for where, why in _schema_rules(document)
    ]


def _problems(found: Mapping[tuple[Any, ...], str], marks: Marks) -> list[ConfigProblem]:
    return [ConfigProblem(dotted(where), _line(marks, where), why) for where, why in found.items()]


def _read(
    config: Config, path: Path, before: object, marks: Marks, unfit: Sequence[tuple[str, ConfigProblem]]
) -> Config:
    """Return a configuration that knows where it was read, and what is wrong with schemas of its workloads."""
    config._path = path
    config._lines = {dotted(where): line for where, line in marks.items()}
    prompts = [file for one in config.workloads.values() for file in (one.prompt_file, one.system_file) if file]
    config._read = {path: before, **{file: _stamp(file) for file in prompts}}
    for name, workload in config.workloads.items():
        workload._name, workload._path = name, path
        workload._prompt_line = _line(marks, ("workloads", name, "prompt"))
        workload._unfit = [problem for whose, problem in unfit if whose == name]
    for database in config.databases.values():
        database._config = path
    return config


def _stamp(file: Path) -> object:
    """Return what tells one version of a file from another; None where it cannot be read."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


_KEYS = ("api_key_env", "api_key_file", "api_key_command")
_ACCOUNT_OPTIONS = {"organization", "project"}
_SETS = ("set", "set_failed", "set_cancelled")
_RENDERED_ONLY = ("model", "system", "system_file", "params", "endpoint", "key", "source")

Found = Iterator[tuple[tuple[Any, ...], str]]
"""Places in the document, each with what is wrong there."""


def _rules(document: Mapping[str, Any]) -> Found:
    """Find what options mean for each other, in a document that may have any other fault as well."""
    providers = dict(_entries(document, "providers"))
    databases = dict(_entries(document, "databases"))
    for section in ("providers", "databases", "workloads"):
        named = document.get(section)
        for name in named if isinstance(named, dict) else ():
            if not re.fullmatch(NAME, name):
                yield (section, name), "a name has letters, digits, - and _, and begins with a letter or digit"
    ping = document.get("ping")
    if isinstance(ping, dict) and sum(ping.get(name) is not None for name in ("url", "url_env", "url_file")) != 1:
        yield ("ping",), "give one of url, url_env, url_file"
    if document.get("providers") == {}:
        yield ("providers",), "name at least one provider"
    for name, options in providers.items():
        for where, why in _provider_rules(options):
            yield ("providers", name, *where), why
    for name, options in _entries(document, "workloads"):
        for where, why in [*_workload_rules(options, providers), *_delivery_rules(options, databases)]:
            yield ("workloads", name, *where), why
    for name, options in databases.items():
        if len(options.keys() & {"url", "url_env", "url_file"}) != 1:
            yield ("databases", name), "give one of url, url_env, url_file"


def _entries(document: Mapping[str, Any], section: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the named entries of a section, without options that say nothing; what is no mapping is told elsewhere."""
    named = document.get(section)
    for name, options in named.items() if isinstance(named, dict) else ():
        if isinstance(options, dict):
            yield name, {option: value for option, value in options.items() if value is not None}


def _provider_rules(options: Mapping[str, Any]) -> Found:
    """Find what options of one provider contradict each other, or its kind."""
    kind = options.get("kind")
    if kind == "sandbox":
        for option in sorted(options.keys() & {*_KEYS, "base_url"}):
            yield (option,), "the sandbox runs inside the command that needs it: it has no key and no address"
    elif kind in vendors.names():
        if len(options.keys() & set(_KEYS)) != 1:
            yield (), f"give one of {', '.join(_KEYS)}"
        if "protocol" in options:
            yield ("protocol",), "is for kind: sandbox"
    yield from _header_rules(options.get("headers"))
    if kind in _kinds():
        for option in sorted(options.keys() & _ACCOUNT_OPTIONS):
            takers = [name for name in vendors.names() if option in vendors.dialect(name).account_options]
            if kind not in takers:
                yield (option,), f"is for kind: {' or '.join(takers)}"


# What nura, the SDKs or HTTP itself set: about the connection, the body, the account and the version that is spoken.
_OUR_HEADERS = frozenset(
    (
        *("accept", "accept-charset", "accept-encoding", "connection", "date", "expect", "host", "idempotency-key"),
        *("keep-alive", "range", "te", "trailer", "transfer-encoding", "upgrade", "user-agent", "via"),
        *(f"{name}-{option}" for name in vendors.names() for option in ("version", *_ACCOUNT_OPTIONS)),
    )
)
_OUR_PREFIXES = ("content-", "if-", "proxy-", "x-stainless-")
_SECRET_HEADERS = re.compile(
    r"(^|[-_])(authorization|auth|(api-?)?key|token|secret|password|cookie2?|credentials?|signature)$"
)
_LONGEST_HEADER = 4096


def _header_rules(headers: Any) -> Found:
    """Find headers that cannot go with requests; of a value only its option is told, never what it is."""
    seen: set[str] = set()
    for name, value in headers.items() if isinstance(headers, dict) else ():
        why = _header_problem(str(name), value)
        if why is None and name.lower() in seen:
            why = "stands here twice: a header is the same in capitals"
        seen.add(str(name).lower())
        if why is not None:
            yield ("headers", name), why


def _header_problem(name: str, value: Any) -> str | None:
    lower = name.lower()
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", name):
        return "is no name of an HTTP header"
    if _SECRET_HEADERS.search(lower) or (isinstance(value, str) and re.match(r"(?i)sk-|bearer\s|basic\s", value)):
        return f"looks like a secret; secrets are never in this file: use {' or '.join(_KEYS)}"
    if lower in _OUR_HEADERS or lower.startswith(_OUR_PREFIXES):
        return "nura sets this itself"
    if not isinstance(value, str):
        return "must be text"
    if not re.fullmatch(r"[!-~]([ -~]*[!-~])?", value) or len(value) > _LONGEST_HEADER:
        return f"must be one line of at most {_LONGEST_HEADER} printable ASCII characters, without space around it"
    return None


def _dialect(name: Any) -> "Dialect | None":
    """Return the dialect of what should be a vendor's name; None where it is none."""
    return vendors.dialect(name) if isinstance(name, str) and name in vendors.names() else None


def _workload_rules(options: Mapping[str, Any], providers: Mapping[str, Mapping[str, Any]]) -> Found:
    """Find what options of one workload contradict each other, or its provider's vendor."""
    for option in ("prompt", "system"):
        if option in options and f"{option}_file" in options:
            yield (f"{option}_file",), f"give one of {option} and {option}_file"
    name = options.get("provider")
    if isinstance(name, str) and name not in providers:
        yield ("provider",), f"no provider {name}{_like(name, providers)}"
    if "prompt" in options or "prompt_file" in options:
        yield from _prompt_rules(options, _spoken(options, providers))
    else:
        for option in sorted(options.keys() & set(_RENDERED_ONLY)):
            yield (option,), "needs a prompt; ready lines bring their own"


def _spoken(options: Mapping[str, Any], providers: Mapping[str, Mapping[str, Any]]) -> "Dialect | None":
    """Return the dialect of a workload's provider; None where its provider is wrong."""
    name = options.get("provider")
    provider = providers.get(name, {}) if isinstance(name, str) else {}
    kind = provider.get("kind")
    return _dialect(provider.get("protocol", vendors.in_sandbox()[0]) if kind == "sandbox" else kind)


def _schema_rules(document: Mapping[str, Any]) -> Found:
    """Find what the vendors would refuse of the schemas of workloads that render prompts."""
    providers = dict(_entries(document, "providers"))
    for name, options in _entries(document, "workloads"):
        dialect = _spoken(options, providers)
        rendered = "prompt" in options or "prompt_file" in options
        if rendered and isinstance(options.get("schema"), dict) and dialect is not None:
            from nura_cli import schemas

            for place, why in schemas.problems(options["schema"], dialect):
                yield ("workloads", name, "schema", *place), why


def _prompt_rules(options: Mapping[str, Any], dialect: "Dialect | None") -> Found:
    """Find what is wrong with a workload that renders prompts; where its provider is wrong, what all vendors refuse alike."""
    if "model" not in options:
        yield (), "a workload with a prompt needs a model"
    asked = [vendors.dialect(name) for name in vendors.names()] if dialect is None else [dialect]
    first, *others = (dict(_vendor_rules(options, one)) for one in asked)
    yield from ((where, why) for where, why in first.items() if all(other.get(where) == why for other in others))


def _vendor_rules(options: Mapping[str, Any], dialect: "Dialect") -> Found:
    """Find what a vendor would not take of a workload that renders prompts."""
    endpoint = options.get("endpoint")
    if isinstance(endpoint, str) and endpoint not in dialect.endpoints:
        yield (
            ("endpoint",),
            f"prompts are rendered for {', '.join(dialect.endpoints)}; other endpoints take ready lines",
        )
    if isinstance(endpoint, str) and endpoint in dialect.embeddings:
        for option in sorted(options.keys() & {"system", "system_file", "schema"}):
            yield (option,), "embeddings have none"
    params = options.get("params", {})
    given = params.keys() if isinstance(params, dict) else set[str]()
    ours = dialect.params_set | (dialect.params_set_by_schema if "schema" in options else frozenset())
    for option in sorted(given & ours):
        yield ("params", option), "nura sets this itself"
    missing = [option for option in dialect.params_required if option not in given]
    if missing:
        yield ("params",), f"{dialect.title} requires {', '.join(missing)}"


def _delivery_rules(options: Mapping[str, Any], databases: Mapping[str, Any]) -> Found:
    """Find what is wrong between a workload's source, write-back and events, and the databases there are."""
    for option in ("source", "write_back"):
        given = options.get(option)
        name = given.get("database") if isinstance(given, dict) else None
        if isinstance(name, str) and name not in databases:
            yield (option, "database"), f"no database {name}{_like(name, databases)}"
        if option == "write_back" and isinstance(given, dict) and not any(given.get(name) for name in _SETS):
            yield (option,), "give set, set_failed or set_cancelled, or more of them"
    yield from _record_rules(options)
    events = options.get("events")
    notified: list[Any] = []
    for n, event in enumerate(events if isinstance(events, list) else ()):
        if isinstance(event, dict):
            for where, why in _event_rules({option: value for option, value in event.items() if value is not None}):
                yield ("events", n, *where), why
            receiver = event.get("command"), event.get("webhook")
            if receiver in notified and receiver != (None, None):
                yield ("events", n), "is a receiver that stands above already: give it all its types there"
            notified.append(receiver)
    if options.get("retention") is not None and not (options.get("write_back") or _tells_of_tasks(events)):
        yield (
            ("retention",),
            "is for a workload with write_back or task.* events; else nobody knows what was read: nura purge --older-than",
        )


def _tells_of_tasks(events: Any) -> bool:
    """Return whether one of these receivers, as they were given, gets events about single tasks."""
    types = [one.get("types") for one in (events if isinstance(events, list) else ()) if isinstance(one, dict)]
    return any(isinstance(kind, str) and is_about_task(kind) for its in types if isinstance(its, list) for kind in its)


def _record_rules(options: Mapping[str, Any]) -> Found:
    """Find fields of the record that write-back looks at and that do not travel: they would be null in every answer."""
    keep, given = options.get("keep", []), options.get("write_back")
    for option in ("where", "only_if", *_SETS):
        columns = given.get(option) if isinstance(given, dict) else None
        for column, expression in columns.items() if isinstance(columns, dict) else ():
            for name in re.findall(
                r"\brecord\.([A-Za-z_][A-Za-z0-9_]*)", expression if isinstance(expression, str) else ""
            ):
                if isinstance(keep, list) and name not in keep:
                    yield ("write_back", option, column), f"record has no {name}: name {name} under keep"


def _event_rules(event: Mapping[str, Any]) -> Found:
    """Find what options of one receiver contradict each other: it is a command or a webhook."""
    if ("command" in event) == ("webhook" in event):
        yield (), "give one of command and webhook"
    elif "webhook" in event:
        if ("secret_env" in event) == ("secret_file" in event):
            yield (), "a webhook needs one of secret_env and secret_file"
        if "env" in event:
            yield ("env",), "is for a command"
    else:
        for option in sorted(event.keys() & {"secret_env", "secret_file"}):
            yield (option,), "is for a webhook"


def _like(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else f"; there is {', '.join(known) or 'none'}"


def _line(marks: Marks, where: tuple[Any, ...]) -> int | None:
    while where and where not in marks:
        where = where[:-1]
    return marks.get(where)


_WORDS = {
    "missing": "is required",
    "model_type": "must be a mapping of options",
    "dict_type": "must be a mapping",
    "list_type": "must be a list",
    "string_type": "must be text",
    "path_type": "must be the name of a file",
    "int_type": "must be a whole number",
    "too_short": "must not be empty",
}


def _wording(error: Any) -> str:
    """Put one of pydantic's findings into words."""
    kind, message = error["type"], str(error["msg"])
    if kind == "extra_forbidden":
        return "unknown option" + _suggestion(error["loc"])
    if kind == "value_error":
        message = message.removeprefix("Value error, ")
        return message if message.startswith("must be") else f"must be {message}"
    return _WORDS.get(kind) or message.replace("Input should", "must")


_SECRETS = {"api_key", "key", "secret", "token", "password"}


def _suggestion(where: tuple[Any, ...]) -> str:
    """Return what to do about an option that is not known: the one that was meant, or where secrets go."""
    option = str(where[-1])
    if option in _SECRETS and where[0] == "providers":
        return f"; secrets are never in this file: use {' or '.join(_KEYS)}"
    close = difflib.get_close_matches(option, _options_at(where[:-1]), 1)
    return f"; did you mean {close[0]}?" if close else ""


def _options_at(where: tuple[Any, ...]) -> Mapping[str, Any]:
    """Return the options at a path, by name, each with what it may be."""
    kind: Any = Config
    for part in where:
        options = _options(kind)
        kind = _without_none(options[part] if part in options else (get_args(kind) or (None,))[-1])
    return _options(kind)


def _options(kind: Any) -> dict[str, Any]:
    fields = kind.model_fields if isinstance(kind, type) and issubclass(kind, BaseModel) else {}
    return {field.alias or name: field.annotation for name, field in fields.items()}


def _without_none(kind: Any) -> Any:
    """Return what an option may be, where it may be left out too."""
    return get_args(kind)[0] if type(None) in get_args(kind) else kind


def prompt_text(workload: WorkloadConfig) -> str | None:
    """Return a workload's template, read from its file where it names one; None when it takes ready lines.

    Raises:
        ConfigError: the file cannot be read.
    """
    return _text(workload, "prompt_file", workload.prompt, workload.prompt_file)


def prompt_place(workload: WorkloadConfig) -> Callable[[int | None], str]:
    """Return what says where a line of a workload's template stands: in its file, or below its option in the configuration."""

    def place(line: int | None) -> str:
        if workload.prompt_file is not None:
            return f"{workload.prompt_file}:{line or 1}: workloads.{workload.name}.prompt_file"
        within = f" (line {line})" if line else ""
        return f"{workload._path}:{workload._prompt_line or 1}: workloads.{workload.name}.prompt{within}"

    return place


def system_text(workload: WorkloadConfig) -> str | None:
    """Return a workload's system text, read from its file where it names one. Raises ConfigError like prompt_text."""
    return _text(workload, "system_file", workload.system, workload.system_file)


def _text(workload: WorkloadConfig, option: str, inline: str | None, file: Path | None) -> str | None:
    """Return a prompt's text, from the option or from its file. Raises ConfigError: the file cannot be read."""
    if file is None:
        return inline
    try:
        return file.read_text(encoding="utf-8-sig")  # a byte-order mark is no part of the text
    except (OSError, UnicodeDecodeError) as error:
        why = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise ConfigError(f"workloads.{workload.name}.{option}: {file}: {why}", workload=workload.name) from error


def _secret(option: str, env: str | None, file: Path | None, command: list[str] | None) -> str:
    """Read a secret from the one place that is given; its value is in no message, and from then on in no word from outside."""
    if env is not None:
        value, place = os.environ.get(env, ""), f"{option}_env: the environment variable {env}"
    elif file is not None:
        place = f"{option}_file: {file}"
        try:
            if file.stat().st_mode & stat.S_IWOTH:
                raise ConfigError(f"{place}: anyone may write to it", hint=f"chmod 600 {file}")
            value = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise ConfigError(f"{place}: {why}", hint="cron's user must be able to read it") from None
    else:
        value, place = _printed(option, command or []), f"{option}_command: {(command or ['?'])[0]}"
    value = value.strip()
    scrub.know(value)
    if not value:
        raise ConfigError(
            f"{place} is not set, or empty", hint="cron starts with an almost empty environment: use a file"
        )
    if not value.isprintable() or not value.isascii():
        raise ConfigError(f"{place}: holds more than one line, or characters no key has")
    return value


def _printed(option: str, command: list[str]) -> str:
    """Return what a secret's command prints. Raises ConfigError: it does not end well, and soon; its output is in no message."""
    place = f"{option}_command: {command[0]}"
    try:
        done = subprocess.run(command, capture_output=True, timeout=30, check=False, stdin=subprocess.DEVNULL)  # noqa: S603 - the operator's own command, without a shell
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{place}: cannot be run: {type(error).__name__}") from None
    if done.returncode:
        raise ConfigError(f"{place}: ended with exit code {done.returncode}")
    return done.stdout.decode("utf-8", "replace")
