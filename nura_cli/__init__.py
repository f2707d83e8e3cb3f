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
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

if TYPE_CHECKING:
    from nura_cli.config import Config
    from nura_cli.state.selection import Selection

__version__ = "0.1.0"
__all__ = ["Enqueued", "Result", "__version__", "enqueue", "results"]


class Error(TypedDict):
    """One thing that went wrong: an entry of ``errors``, as in ``--json``."""

    kind: str
    provider: str | None
    workload: str | None
    batch_id: int | None
    message: str
    hint: str | None


class Enqueued(TypedDict):
    """What became of records: the counts of ``nura enqueue --json``, and why some were not taken (the first 20).

    ``hint`` says what would have the duplicates tried again that failed or were cancelled; None where there are none.
    """

    enqueued: int
    duplicates: int
    conflicts: int
    replaced: int
    rejected: int
    duplicates_failed: int
    duplicates_cancelled: int
    enqueued_again: int
    hint: str | None
    errors: list[Error]


class Usage(TypedDict):
    """Tokens of all billed attempts; ``input_tokens`` include the cached ones."""

    input_tokens: int
    cached_input_tokens: int
    output_tokens: int


class Failure(TypedDict):
    """Why a task has no answer; ``kind`` is one of :class:`nura_cli.states.ErrorKind`."""

    kind: str
    code: str | None
    http_status: int | None
    message: str | None


class Result(TypedDict):
    """One answer: the fields of a line of ``nura results``.

    ``key`` has the type it had in the record. ``text`` is the answer, ``json`` the same as a document where the workload
    has a schema, ``response`` the vendor's whole body. ``cost`` is in US dollars, as a decimal string, or None where no
    price is known. ``record`` holds the fields under ``keep``. Times are RFC 3339, UTC. ``seq`` grows with each settling.
    ``row`` is ``waiting`` for an answer that is still to be written into its row, ``failed`` where that was given up, and None
    where it is written or there is no row to write; ``row_error`` is why it was refused last.
    """

    seq: int
    workload: str
    key: Any
    status: Literal["completed", "failed", "cancelled"]
    text: str | None
    json: Any
    response: Any
    finish_reason: str | None
    usage: Usage
    cost: str | None
    error: Failure | None
    model: str | None
    provider: str | None
    batch_id: int | None
    revision: str | None
    attempts: int
    record: dict[str, Any]
    enqueued_at: str
    finished_at: str
    row: Literal["waiting", "failed"] | None
    row_error: str | None


def enqueue(
    workload: str,
    records: Iterable[Mapping[str, Any]] | Mapping[str, Any],
    *,
    config: str | os.PathLike[str] | None = None,
    replace: bool = False,
    key_prefix: str = "",
) -> Enqueued:
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
    return cast(Enqueued, report.result | {"errors": [found.as_dict() for found in report.problems]})


def results(
    *workloads: str,
    status: Literal["completed", "failed", "cancelled"] | None = None,
    key: str | int | list[str | int] | None = None,
    since: datetime | None = None,
    after: int = 0,
    config: str | os.PathLike[str] | None = None,
) -> Iterator[Result]:
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


def _read(loaded: "Config", chosen: "Selection", after: int) -> Iterator[Result]:
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
