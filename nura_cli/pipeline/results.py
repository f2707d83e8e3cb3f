"""nura results: the answers, one JSON document a line.

Takes the state file; leaves it as it is. A line has every field of the contract, whether the task completed or failed, or
it is the vendor's own, for programs that read its result files. ``seq`` grows with each settling, so a reader goes on with
``--after`` where it stopped. No read transaction is held while
the reader is slow.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from nura_cli.clock import rfc3339
from nura_cli.config import Config
from nura_cli.errors import UsageError
from nura_cli.pricing import decimal_dollars
from nura_cli.providers import dialect as dialect_of
from nura_cli.providers.base import Answer, Dialect, Spec
from nura_cli.state import State, answers, batches, tasks
from nura_cli.state.answers import Row, Spending

_PAGE = 200
_LINE_ENDS = re.compile(rb"[\r\n]")
_NOTHING = Answer(None, None, None, False, False, None, None)


class Documents:
    """Makes the documents of answers; remembers the specs and dialects it met."""

    def __init__(self, state: State, config: Config) -> None:
        self._state = state
        self._keep = {name: workload.keep for name, workload in config.workloads.items()}
        self._specs: dict[str, Spec] = {}
        self._dialects: dict[str, Dialect] = {}

    def of(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Return the documents of a page of answers."""
        spent = answers.spending(self._state.db, [row.task_id for row in rows])
        return [self._document(row, spent.get(row.task_id)) for row in rows]

    def _document(self, row: Row, spent: Spending | None) -> dict[str, Any]:
        answer = self._answer(row)
        answered = row.status == "completed"
        return {
            "seq": row.seq,
            "workload": row.workload,
            "key": msgspec.Raw(row.key.encode()),
            "status": row.status,
            "text": answer.text if answered else None,
            "json": self._json(row, answer) if answered else None,
            "response": _one_line(row.body) if row.body else None,
            "finish_reason": answer.finish_reason,
            "usage": _usage(spent),
            "cost": decimal_dollars(spent.cost) if spent else "0.00",
            "error": _error(row),
            "model": answer.model or row.model or None,
            "provider": row.provider,
            "batch_id": row.batch_id,
            "revision": row.revision,
            "attempts": row.attempts,
            "record": self._record(row),
            "enqueued_at": rfc3339(row.enqueued_at),
            "finished_at": rfc3339(row.finished_at),
        }

    def _answer(self, row: Row) -> Answer:
        if row.body is None or row.dialect is None:
            return _NOTHING
        if row.dialect not in self._dialects:
            self._dialects[row.dialect] = dialect_of(row.dialect)
        return self._dialects[row.dialect].answer(row.endpoint or "", row.body)

    def _json(self, row: Row, answer: Answer) -> Any:
        """Return the answer as a document, where the workload asked for one."""
        if answer.value is not None:
            return answer.value
        if row.revision is None or answer.text is None:
            return None
        if row.revision not in self._specs:
            self._specs[row.revision] = msgspec.json.decode(batches.spec(self._state.db, row.revision), type=Spec)
        return _one_line(answer.text.encode()) if self._specs[row.revision].answer_schema is not None else None

    def _record(self, row: Row) -> dict[str, Any]:
        names = self._keep.get(row.workload)
        if not names:
            return {}
        record = msgspec.json.decode(row.line, type=dict[str, msgspec.Raw])
        return {name: record[name] for name in names if name in record}


def _one_line(document: bytes) -> msgspec.Raw:
    """Return a JSON document as it is, but on one line: a model may well answer with an indented one."""
    return msgspec.Raw(msgspec.json.format(document, indent=-1) if _LINE_ENDS.search(document) else document)


def _usage(spent: Spending | None) -> dict[str, int]:
    return {
        "input_tokens": spent.input_tokens if spent else 0,
        "cached_input_tokens": spent.cached_input_tokens if spent else 0,
        "output_tokens": spent.output_tokens if spent else 0,
    }


def _error(row: Row) -> dict[str, Any] | None:
    if row.error_kind is None:
        return None
    return {
        "kind": row.error_kind,
        "code": row.error_code,
        "http_status": row.http_status,
        "message": row.error_message,
    }


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
    past = {lane.workload for lane in tasks.lanes(state.db)}
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
            body = bytes(_one_line(row.body)) if row.body else None
            yield write(_custom_id(row.key), body, _error(row))


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
