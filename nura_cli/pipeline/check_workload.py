"""``nura check`` of databases and workloads: all that dispatch would stop at, and what may be trouble later."""

import difflib
import json
import os
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from nura_cli import providers
from nura_cli.config import Config, WorkloadConfig, prompt_text, system_text
from nura_cli.delivery.expressions import reads
from nura_cli.delivery.write_back import WriteBack
from nura_cli.dialects import vendors
from nura_cli.dialects.base import Dialect
from nura_cli.errors import ConfigError, InputError, NuraError, StateError
from nura_cli.pipeline import budgets, estimate, lines, targets
from nura_cli.pipeline.findings import Finding, fail, ok, open_to_others, warn
from nura_cli.pipeline.keys import Keys
from nura_cli.pipeline.needs import Needs
from nura_cli.pipeline.render import compiled
from nura_cli.pipeline.samples import samples


def database(name: str, config: Config) -> Iterator[Finding]:
    """Look at a database: whether it can be read, and, for SQLite, written. Raises ConfigError, DatabaseDown."""
    from nura_cli.delivery import source

    given = config.databases[name]
    url = given.secret()
    source.ask(url)
    variable = f"; its URL is from the environment ({given.url_env}), which cron's is not" if given.url_env else ""
    yield ok("", f"can be asked{variable}")
    yield from open_to_others("", "url_file", given.url_file)
    if url.startswith("sqlite"):
        file = next(iter(given.files()), None)
        if file is not None and any(one.database == name for one in _written(config)):
            yield from _file_written(file)


def _written(config: Config) -> list[Any]:
    return [one.write_back for one in config.workloads.values() if one.write_back is not None]


def _file_written(file: Path) -> Iterator[Finding]:
    """Yield a failure where this user may not write a SQLite database: the file, or beside it, where its journal comes."""
    for one in (file, file.parent):
        if not os.access(one, os.W_OK):
            hint = "run nura as a user who may; SQLite writes the file, and a journal beside it"
            yield from fail("", StateError(f"{one}: may not be written", hint=hint))


def workload(name: str, config: Config, broken: Collection[str]) -> Iterator[Finding]:
    """Look at a workload: prompt, schema, options, price, source, write-back and receivers; yields what is found.

    Args:
        broken: the parts that were found to fail: what is to be looked at in such a database is passed over.
    """
    chosen = config.workloads[name]
    dialect = vendors.dialect(config.providers[chosen.provider].dialect)
    needed = {f"provider {chosen.provider}"}
    looks = [_prompt, _schema, _options, _price, _receivers]
    for options, look in ((chosen.source, _source), (chosen.write_back, _write_back)):
        if options is not None:
            needed.add(f"database {options.database}")
            looks += [look] if f"database {options.database}" not in broken else []
    problems = 0
    for look in looks:
        try:
            for found in look(chosen, dialect, config):
                problems += found.problem is not None
                yield found
        except NuraError as error:
            problems += 1
            yield from fail("", error, f"workloads.{name}")
    if not problems:
        wait = sorted(needed & {*broken})
        ready = f"in order by itself; it waits for {', '.join(wait)}" if wait else "ready to be sent"
        yield ok("", f"{chosen.model or 'ready lines'} at {chosen.provider}: {ready}")


def _prompt(chosen: WorkloadConfig, dialect: Dialect, config: Config) -> Iterator[Finding]:
    for read in (lambda: compiled(chosen, prompt_text(chosen)), lambda: system_text(chosen)):
        try:
            read()
        except NuraError as error:
            yield from fail("", error)


def _schema(chosen: WorkloadConfig, dialect: Dialect, config: Config) -> Iterator[Finding]:
    chosen.check()
    yield from ()


def _options(chosen: WorkloadConfig, dialect: Dialect, config: Config) -> Iterator[Finding]:
    """Yield the request options that the vendor's SDK does not know: a service of another's may."""
    endpoint = chosen.endpoint or dialect.endpoints[0]
    known = providers.known_options(dialect.name, endpoint) if chosen.params else ()
    for name in chosen.params if known else ():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else "a request with it may be refused, one by one, hours later"
            what = f"{dialect.title} is not known to take it at {endpoint}"
            yield warn("", what, hint, f"workloads.{chosen.name}.params.{name}")


def _price(chosen: WorkloadConfig, dialect: Dialect, config: Config) -> Iterator[Finding]:
    model = chosen.model
    if model is not None and not estimate.prices_of(config, chosen.provider, dialect).known(model):
        what = f"no price of {model} is known: is it misspelt? What it costs will be unknown"
        hint = f"if it is not, say its price: providers.{chosen.provider}.prices, in US dollars for a million tokens"
        try:
            budgets.refuse_unpriced(config, chosen, model)
        except ConfigError as error:
            yield from fail("", error, f"workloads.{chosen.name}.model")
        else:
            yield warn("", what, hint, f"workloads.{chosen.name}.model")


def _source(chosen: WorkloadConfig, dialect: Dialect, config: Config) -> Iterator[Finding]:
    """Read the first row of a source: what each row lacks, that one does."""
    from nura_cli.delivery import source

    if chosen.source is None:
        return
    url = config.databases[chosen.source.database].secret()
    with closing(source.rows(url, chosen.source.query)) as rows:
        row = next(rows, None)
    if isinstance(row, source.Unread):
        yield warn("", f"its first row would be rejected: {row.why}", where=f"workloads.{chosen.name}.source")
    elif row is not None and (why := _rejected(chosen, row)):
        yield warn("", f"its first row would be rejected: {why}", where=f"workloads.{chosen.name}.source")


def _rejected(chosen: WorkloadConfig, row: bytes) -> str | None:
    """Return why a row could not be used, or None."""
    prompt, document = compiled(chosen, prompt_text(chosen)), lines.document(row)
    lacking = sorted((prompt.names if prompt else frozenset()) - document.keys())
    if lacking:
        return f"the prompt needs {', '.join(lacking)}, which it lacks{lines.near(lacking, document)}"
    try:
        Needs(chosen).check(Keys(chosen.key, "").of(document).json, document)
    except InputError as error:
        return error.message
    return None


def _receivers(chosen: WorkloadConfig, dialect: Dialect, config: Config) -> Iterator[Finding]:
    for event in chosen.events:
        yield from open_to_others("", "secret_file", event.secret_file)
        if event.secret_env is not None and not os.environ.get(event.secret_env):
            what = f"{targets.label_of(event)}: its secret, {event.secret_env}, is not in this environment"
            yield warn("", what, "where reconcile runs it must be")
    targets.check_receivers(chosen)


def _write_back(chosen: WorkloadConfig, dialect: Dialect, config: Config) -> Iterator[Finding]:
    if chosen.write_back is None:
        return
    with targets.write_back_of(chosen, config) as table:
        table.check()
        if (chosen.endpoint or dialect.endpoints[0]) not in dialect.embeddings:
            for why in dict.fromkeys(_unfit(chosen, table)):
                option, _, words = why.partition(": ")
                what = f"an answer may be such that its row cannot be written: {words}"
                yield warn("", what, where=f"workloads.{chosen.name}.write_back.{option}")


def _unfit(chosen: WorkloadConfig, table: WriteBack) -> Iterator[str]:
    """Yield why answers that the schema allows would not go into their columns; of what needs the record nothing is said."""
    assert chosen.write_back is not None
    sets = chosen.write_back.set_
    sure = {f"set.{column}" for column, expression in sets.items() if reads(expression).roots <= {"json", "text"}}
    for sample in samples(chosen.answer_schema) if chosen.answer_schema else [None]:
        text = "text" if sample is None else json.dumps(sample)
        for why in table.unfit({"status": "completed", "key": None, "json": sample, "text": text}):
            if why.partition(":")[0] in sure:
                yield why
