"""nura results: the answers, one JSON document a line.

Takes the state file; leaves it as it is. A line has every field of the contract, whether the task completed or failed, or
it is the vendor's own, for programs that read its result files. ``seq`` grows with each settling, so a reader goes on with
``--after`` where it stopped. No read transaction is held while
the reader is slow.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from nura_cli.config import Config
from nura_cli.dialects.vendors import dialect as dialect_of
from nura_cli.errors import UsageError
from nura_cli.pipeline.documents import Documents, error_of, one_line
from nura_cli.state import State, answers, tasks
from nura_cli.state.answers import Row

_PAGE = 200


class Wanted(NamedTuple):
    """Which answers are asked for.

    Attributes:
        workloads, statuses: keep only these (all, when empty).
        since: settled at this unix second or later.
        after: only answers with a higher seq.
        key: the identity of the one record whose answer it is (of each workload), or None.
    """

    workloads: Sequence[str] = ()
    statuses: Sequence[str] = ()
    since: int | None = None
    after: int = 0
    key: str | None = None


_ALL = Wanted()


def stream(state: State, config: Config, wanted: Wanted = _ALL) -> Iterator[dict[str, Any]]:
    """Yield the document of each answer that is wanted, by seq; a superseded task has none."""
    documents = Documents(state, config)
    for page in _pages(state, wanted):
        yield from documents.of(page)


def check_known(state: State, config: Config, workloads: Sequence[str]) -> None:
    """Check names of workloads: one that left the configuration still has its answers.

    Raises:
        UsageError: one never was there.
    """
    past = {queue.workload for queue in tasks.queues(state.db)}
    for name in workloads:
        if name not in past:
            config.workload(name)


def vendor_lines(state: State, dialect: str, wanted: Wanted = _ALL) -> Iterator[bytes]:
    """Yield each answer that is wanted as a line of a vendor's result files, under the application's own custom_id.

    Raises:
        UsageError: there are answers of the other vendor among them; nothing was given yet.
    """
    others = answers.dialects(state.db, wanted.workloads) - {dialect}
    if others:
        raise UsageError(
            f"--format {dialect}: there are answers in another vendor's form",
            hint=f"name the workloads, or use --format {others.pop()}",
        )
    write = dialect_of(dialect).result_line
    for page in _pages(state, wanted):
        for row in page:
            body = bytes(one_line(row.body)) if row.body else None
            yield write(_custom_id(row.key), body, error_of(row))


def _custom_id(key: str) -> str:
    """Return a key (as JSON) as a custom_id: a string as it is, anything else as JSON writes it."""
    return str(msgspec.json.decode(key)) if key.startswith('"') else key


def _pages(state: State, wanted: Wanted) -> Iterator[list[Row]]:
    if wanted.key is None:
        yield from answers.pages(
            state.db,
            workloads=wanted.workloads,
            statuses=wanted.statuses,
            since=wanted.since,
            after=wanted.after,
            page=_PAGE,
        )
        return
    ids = answers.of_key(state.db, wanted.workloads, wanted.key)
    yield [row for row in answers.of_tasks(state.db, ids).values() if _matches(row, wanted)]


def _matches(row: Row, wanted: Wanted) -> bool:
    in_status = not wanted.statuses or row.status in wanted.statuses
    return in_status and row.seq > wanted.after and row.finished_at >= (wanted.since or 0)
