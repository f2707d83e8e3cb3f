"""nura: a spool for LLM work, driven by cron.

Records piped into ``nura enqueue`` wait as tasks in one SQLite file; ``nura dispatch`` renders and packs them into
provider batches, ``nura poll`` brings the finished batches' results home, ``nura reconcile`` accounts for every task,
writes the answers back to the application's own records and triggers its events; cron chains the stages, and a crash
at any point loses nothing and pays for nothing twice.

An application in Python needs two functions: :func:`enqueue` puts its records into the spool, :func:`results` gives the
answers. Both work beside running stages, from any process and thread; what goes wrong is a
:class:`nura_cli.errors.NuraError` with a ``message`` and a ``hint``.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    from nura_cli.config import Config
    from nura_cli.contract import Enqueued, Result
    from nura_cli.state.selection import Selection

__version__ = "0.1.0"
__all__ = ["Enqueued", "Result", "__version__", "enqueue", "results"]


def __getattr__(name: str) -> Any:
    """Return a type of what these functions return; the command needs none of them."""
    if name not in ("Enqueued", "Result"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from nura_cli import contract

    return getattr(contract, name)


def enqueue(
    workload: str,
    records: Iterable[Mapping[str, Any]] | Mapping[str, Any],
    *,
    config: str | os.PathLike[str] | None = None,
    replace: bool = False,
    key_prefix: str = "",
) -> "Enqueued":
    """Put records into the spool, like ``nura enqueue``.

    They are read as they are asked for, and committed in chunks: what was counted is in the spool, whatever happens next.
    After an error, be it of their own iterator (which comes out as it is), the same records may simply be given again;
    those that are in already count as duplicates.

    Args:
        workload: a workload of the configuration.
        records: mappings: records, or ready requests where the workload has no prompt; a single mapping is one record. Decimals
            become numbers with all their digits; dates and times RFC 3339 text, UUIDs their text, as ``--from-source`` has them.
        config: the configuration file; None looks where the command looks.
        replace: a key that was enqueued with other content gets the new one.
        key_prefix: put before each key.

    Returns:
        How many were enqueued, duplicates, conflicts (the key is there with other content), replaced and rejected.

    Raises:
        UsageError: there is no such workload; or what is given is no iterable of mappings, but text or a whole table.
        ConfigError: the configuration cannot be used.
        StateError: the state file cannot be written now.
    """
    from nura_cli.dialects.vendors import dialect
    from nura_cli.pipeline import enqueue as stage
    from nura_cli.state import State

    given = stage.records_of(records)
    loaded = _loaded(config)
    chosen = loaded.workload(workload)
    try:
        with State(loaded.state, newer=True) as state:
            report = stage.run(
                state,
                chosen,
                dialect(loaded.providers[chosen.provider].dialect),
                [stage.Objects("records", given)],
                replace=replace,
                key_prefix=key_prefix,
            )
    except stage.GiverFailed as failed:
        raise failed.error from None
    return cast("Enqueued", {**report.result, "errors": [found.as_dict() for found in report.problems]})


def results(
    *workloads: str,
    status: Literal["completed", "failed", "cancelled"] | None = None,
    key: str | int | list[str | int] | None = None,
    since: datetime | None = None,
    after: int = 0,
    config: str | os.PathLike[str] | None = None,
) -> "Iterator[Result]":
    """Return an iterator over answers, oldest settling first, like ``nura results``.

    They are read in pages, as they are asked for and by the thread that asks: memory stays flat, and a slow reader holds up
    no stage. A reader that remembers the ``seq`` of the last answer it handled goes on from there with ``after``.

    Args:
        workloads: only these (all, when none is named).
        status: only tasks that ended so.
        key: only the record with this key; a list for a composite one.
        since: only what settled then or later; a time without a zone is UTC.
        after: only answers with a higher ``seq``.
        config: the configuration file; None looks where the command looks.

    Raises:
        UsageError: there never was such a workload.
        InputError: the key is none.
        ConfigError: the configuration cannot be used.
        StateError: the state file cannot be read now.
    """
    from nura_cli.pipeline.lines import key_of
    from nura_cli.state.selection import Selection
    from nura_cli.states import TaskStatus

    if since is not None and since.tzinfo is None:
        since = since.replace(tzinfo=UTC)
    chosen = Selection(
        workloads,
        [TaskStatus(status)] if status else [],
        None if key is None else [key_of(key).identity],
        since=None if since is None else int(since.timestamp()),
    )
    return _read(_loaded(config), chosen, after)


def _read(loaded: "Config", chosen: "Selection", after: int) -> "Iterator[Result]":
    import msgspec

    from nura_cli.pipeline import results as stage
    from nura_cli.state import State

    with State(loaded.state, newer=True) as state:
        stage.check_known(state, loaded, chosen.workloads)
        for document in stage.stream(state, loaded, chosen, after=after):
            yield msgspec.json.decode(msgspec.json.encode(document))  # what stands in it as raw JSON is decoded, too


def _loaded(path: str | os.PathLike[str] | None) -> "Config":
    from nura_cli import config, config_file

    return config.load(config_file.find(None if path is None else Path(path), os.environ))
