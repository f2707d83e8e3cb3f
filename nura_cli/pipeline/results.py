"""nura results: the answers, one JSON document a line.

Takes the state file; leaves it as it is. A line has every field of the contract, whether the task completed or failed, or
it is the vendor's own, for programs that read its result files. ``row`` says of an answer that is not in the application's
row whether it is still to be written there (``waiting``), or that was given up (``failed``), and ``row_error`` what was said
last. ``seq`` grows with each settling, so a reader goes on with ``--after`` where it stopped. No read transaction is held
while the reader is slow.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from nura_cli.config import Config
from nura_cli.dialects.vendors import dialect as dialect_of
from nura_cli.errors import InputError, UsageError
from nura_cli.pipeline.composed import Lines
from nura_cli.pipeline.documents import Documents, error_of, one_line
from nura_cli.state import State, answers, selection, tasks
from nura_cli.state.selection import Selection

if TYPE_CHECKING:
    from nura_cli import contract

_PAGE = 200


_ALL = Selection()


def stream(state: State, config: Config, chosen: Selection = _ALL, *, after: int = 0) -> "Iterator[contract.Result]":
    """Yield the document of each answer that is meant, by seq; a superseded task has none."""
    documents = Documents(state, config)
    for page in answers.pages(state.db, chosen, after=after, page=_PAGE):
        yield from documents.lines(page)


def lines(state: State, config: Config, chosen: Selection = _ALL, *, after: int = 0) -> Iterator[bytes]:
    """Yield what :func:`stream` does, each document as one line of JSON, with its end; several times as fast."""
    return Lines(state, config).of(chosen, after)


def unanswered(state: State, chosen: Selection) -> Iterator[InputError]:
    """Yield each key of a selection that has no answer, with what becomes of it."""
    for found in selection.unanswered(state.db, chosen.workloads, chosen.keys or ()):
        if found.purged:
            yield InputError(f"{found.workload}, key {found.key}: purged: its record and its answer are gone")
            continue
        if found.wished:
            yield InputError(f"{found.workload}, key {found.key}: to be purged once nothing of it is under way")
            continue
        earlier = "; what was answered before is superseded: its record was replaced" if found.superseded else ""
        yield InputError(f"{found.workload}, key {found.key}: {found.status}, no answer yet{earlier}")


def check_known(state: State, config: Config, workloads: Sequence[str]) -> None:
    """Check names of workloads: one that left the configuration still has its answers.

    Raises:
        UsageError: one never was there.
    """
    past = {queue.workload for queue in tasks.queues(state.db)}
    for name in workloads:
        if name not in past:
            config.workload(name)


def vendor_lines(state: State, dialect: str, chosen: Selection = _ALL, *, after: int = 0) -> Iterator[bytes]:
    """Yield each answer that is meant as a line of a vendor's result files, under the application's own custom_id.

    Raises:
        UsageError: there are answers of the other vendor among them; nothing was given yet.
    """
    others = answers.dialects(state.db, chosen.workloads) - {dialect}
    if others:
        raise UsageError(
            f"--format {dialect}: there are answers in another vendor's form",
            hint=f"name the workloads, or use --format {others.pop()}",
        )
    write = dialect_of(dialect).result_line
    for page in answers.pages(state.db, chosen, after=after, page=_PAGE):
        for row in page:
            body = bytes(one_line(row.body)) if row.body else None
            yield write(_custom_id(row.key), body, error_of(row))


def _custom_id(key: str) -> str:
    """Return a key (as JSON) as a custom_id: a string as it is, anything else as JSON writes it."""
    return str(msgspec.json.decode(key)) if key.startswith('"') else key
