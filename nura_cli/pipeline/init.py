"""nura init: a first configuration, on the sandbox, made from a sample of the records or from a table.

Takes the beginning of a file, or looks at a table; leaves ``nura.yaml`` and ``nura.crontab``, each whole or not at all, and
overwrites nothing.

What can go wrong: a file is there already, or the sample holds no record (UsageError); there is no such table (ConfigError);
the database cannot be asked now (DatabaseDown).
"""

import contextlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from nura_cli import contract, scrub
from nura_cli.config import NAME, DatabaseConfig
from nura_cli.dialects import vendors
from nura_cli.errors import InputError, UsageError
from nura_cli.pipeline import sample_file, starter
from nura_cli.pipeline.report import Report
from nura_cli.pipeline.shape import Shape, Text, changes, shape_of
from nura_cli.pipeline.starter import Rows, Start

_ANSWERS = re.compile(r"(.*_)?(summary|answer|result|response|output|reply|label|translation)(_.*)?", re.IGNORECASE)
_MOST_TEXTS = 20
_FREE = ("answer", "nura_answer", *(f"nura_answer_{n}" for n in range(2, 100)))
"""What a column for answers is called that is not there yet."""


class Files(NamedTuple):
    """Where the configuration goes, and the crontab's lines beside it."""

    config: Path
    crontab: Path

    @classmethod
    def at(cls, config: Path) -> "Files":
        """Return the files for a configuration at a path. Raises UsageError: one is there already."""
        files = cls(config, config.with_suffix(".crontab"))
        for file in files:
            if os.path.lexists(file):
                raise UsageError(f"{file}: is there already, and is left as it is", hint="name another with -c")
        return files


def run(files: Files, start: Start, program: str) -> Report:
    """Write a first configuration. Raises UsageError: a file cannot be made, or is there already."""
    config = starter.configuration(start)
    _write(files.config, config)
    try:
        _write(files.crontab, starter.crontab(program, str(files.config.absolute())))
    except UsageError:
        files.config.unlink()
        raise
    key = start.shape.key
    result: contract.Begun = {
        "config": str(files.config),
        "crontab": str(files.crontab),
        "workload": start.name,
        "key": key if isinstance(key, list) else [key],
    }
    return Report(result, worked=True)


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8", errors="surrogateescape") as file:
            try:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                path.unlink(missing_ok=True)
                raise
    except FileExistsError as error:
        raise UsageError(f"{path}: is there already, and is left as it is") from error
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error


def plain() -> Start:
    """Return what to begin with where nothing is known of the records."""
    return Start("records", Shape("id", [Text(("text",), optional=False)], []))


def of_sample(stream: BinaryIO, name: str) -> tuple[Start, bool]:
    """Return what to begin with for records like these, and whether they are CSV. Raises UsageError: there are none."""
    sample = sample_file.read(stream, name)
    called = _name(Path(name).name.partition(".")[0])
    ready = _ready(sample.records[0])
    if ready is not None:
        return Start(called, Shape("custom_id", [], []), ready=ready), False
    return Start(called, shape_of(sample.records)), sample.csv


def _ready(record: Mapping[str, Any]) -> str | None:
    """Return the vendor whose ready line a record is; None for a record that is one."""
    for name in vendors.in_sandbox():
        with contextlib.suppress(InputError):
            vendors.dialect(name).ready(json.dumps(record).encode())
            return name
    return None


def of_table(variable: str, named: str, folder: Path) -> Start:
    """Return what to begin with for the rows of a table.

    Args:
        variable: the environment variable that holds the database's URL.
        named: the table, or ``schema.table``.
        folder: the configuration's: a SQLite file is relative to it.

    Raises:
        UsageError: there is no such variable, or the table has no key.
        ConfigError, DatabaseDown: as :func:`nura_cli.delivery.tables.look` has them.
    """
    from nura_cli.delivery import tables

    table = tables.look(_url(variable, folder), named)
    if not table.key:
        raise UsageError(f"table {named} has no primary key, which would find its rows", hint="give it one")
    others = [column for column in table.columns if column.name not in table.key]
    answer = next(
        (one.name for one in others if one.long and one.nullable and one.written and _answers(one.name)), None
    )
    texts = [one for one in others if one.text and one.name != answer and not changes(one.name)]
    chosen = [Text((one.name,), one.nullable) for one in texts if not _answers(one.name)][:_MOST_TEXTS]
    keep = [one.name for one in others if changes(one.name)][:1]
    key = table.key[0] if len(table.key) == 1 else table.key
    query = table.select([*table.key, *(text.path[0] for text in chosen), *keep], answer)
    free = next(name for name in _FREE if name.casefold() not in {one.name.casefold() for one in table.columns})
    rows = Rows(variable, named, table.key, query, answer or free, None if answer else table.add_text(free))
    return Start(_name(named.rpartition(".")[2]), Shape(key, chosen, keep), rows)


def _url(variable: str, folder: Path) -> str:
    """Return the URL that an environment variable holds; what is no name of one is not repeated: it may be the URL itself."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
        scrub.know_url(variable)
        hint = "a URL on a command line is seen by everybody; if it had a password, change that"
        raise UsageError("--database-env takes the name of an environment variable that holds the URL", hint=hint)
    if not os.environ.get(variable):
        raise UsageError(
            f"--database-env {variable}: is not set, or empty", hint=f"export {variable}='sqlite:///app.db', say"
        )
    database = DatabaseConfig(url_env=variable)
    database._config = folder / "nura.yaml"
    return database.secret()


def _answers(name: str) -> bool:
    return _ANSWERS.fullmatch(name) is not None


def _name(text: str) -> str:
    """Return a workload's name made of that of a file or table."""
    found = re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-_")[:60]
    return found if re.fullmatch(NAME, found) else "records"
