"""The document of an answer: what a line of nura results is made of, and what events carry."""

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from nura_cli.clock import stamp
from nura_cli.config import Config
from nura_cli.dialects.base import Answer, Dialect, Spec
from nura_cli.dialects.reading import document as readable
from nura_cli.dialects.reading import document_in
from nura_cli.dialects.vendors import dialect as dialect_of
from nura_cli.pricing import decimal_dollars
from nura_cli.state import State, answers, batches, outbox
from nura_cli.state.answers import Row, Spending
from nura_cli.state.outbox import Unwritten

if TYPE_CHECKING:
    from nura_cli import contract

_NOTHING = Answer()


class Documents:
    """Makes the documents of answers; remembers the specs and dialects it met."""

    def __init__(self, state: State, config: Config) -> None:
        self._state = state
        self._keep = {name: workload.keep for name, workload in config.workloads.items()}
        self._specs: dict[str, Spec] = {}
        self._dialects: dict[str, Dialect] = {}

    def of(self, rows: Sequence[Row]) -> "list[contract.Answer]":
        """Return the documents of a page of answers."""
        return cast("list[contract.Answer]", self.parts(rows, _FIELDS))

    def parts(self, rows: Sequence[Row], fields: Collection[str]) -> list[dict[str, Any]]:
        """Return of the documents of a page of answers these fields alone; a name that no field has is no matter."""
        charged = not _CHARGED.isdisjoint(fields)
        charges = answers.spending(self._state.db, [row.task_id for row in rows]) if charged else {}
        made = [(name, make) for name, make in _FIELDS.items() if name in fields]
        return [
            {name: make(its) for name, make in made}
            for its in (self._source(row, charges.get(row.task_id)) for row in rows)
        ]

    def lines(self, rows: Sequence[Row]) -> "list[contract.Result]":
        """Return the documents of a page of answers, each with what became of its row: the lines of nura results."""
        unwritten = outbox.unwritten(self._state.db, [row.task_id for row in rows])
        pairs = zip(self.of(rows), (unwritten.get(row.task_id) for row in rows), strict=True)
        return [_with_row(document, found) for document, found in pairs]

    def of_one(self, row: Row, charge: Spending, spec: Spec) -> "contract.Answer":
        """Return the document of an answer that no batch gave, to a request that was rendered with ``spec``."""
        self._specs[row.revision or ""] = spec
        its = self._source(row, charge)
        return cast("contract.Answer", {name: make(its) for name, make in _FIELDS.items()})

    def _source(self, row: Row, charge: Spending | None) -> "_Source":
        answer = self._answer(row)
        has_schema = answer is not _NOTHING and self._has_schema(row)
        text = document_in(answer) if has_schema else answer.text
        return _Source(row, charge, answer, text, has_schema, self._keep.get(row.workload) or ())

    def _answer(self, row: Row) -> Answer:
        if row.body is None or row.dialect is None:
            return _NOTHING
        if row.dialect not in self._dialects:
            self._dialects[row.dialect] = dialect_of(row.dialect)
        return self._dialects[row.dialect].answer(row.endpoint or "", row.body)

    def _has_schema(self, row: Row) -> bool:
        if row.revision is None:
            return False
        if row.revision not in self._specs:
            self._specs[row.revision] = Spec.stored(batches.spec(self._state.db, row.revision))
        return self._specs[row.revision].answer_schema is not None


class _Source(NamedTuple):
    """What the document of one answer is made of.

    Attributes:
        charge: what its attempts used; None where none did.
        text: what its text is; of a document, as any reader takes it.
        has_schema: its workload asked for a document.
        keep: the fields of the record that go with it.
    """

    row: Row
    charge: Spending | None
    answer: Answer
    text: str | None
    has_schema: bool
    keep: Sequence[str]


_FIELDS: dict[str, Callable[[_Source], Any]] = {
    "seq": lambda its: its.row.seq,
    "workload": lambda its: its.row.workload,
    "key": lambda its: msgspec.Raw(its.row.key.encode()),
    "status": lambda its: its.row.status,
    "text": lambda its: its.text if its.row.status == "completed" else None,
    "json": lambda its: _json(its) if its.row.status == "completed" else None,
    "response": lambda its: one_line(its.row.body) if its.row.body else None,
    "finish_reason": lambda its: its.answer.finish_reason,
    "usage": lambda its: _usage(its.charge),
    "cost": lambda its: decimal_dollars(its.charge.cost) if its.charge else "0.00",
    "error": lambda its: error_of(its.row),
    "model": lambda its: its.answer.model or its.row.model or None,
    "provider": lambda its: its.row.provider,
    "batch_id": lambda its: its.row.batch_id,
    "revision": lambda its: its.row.revision,
    "attempts": lambda its: its.row.attempts,
    "record": lambda its: kept(its.row.line, its.keep) if its.keep else {},
    "enqueued_at": lambda its: stamp(its.row.enqueued_at),
    "finished_at": lambda its: stamp(its.row.finished_at),
}
"""Each field of :class:`nura_cli.contract.Answer`, in the order of a line, and how it is made."""
_CHARGED = frozenset({"usage", "cost"})
"""Those that take a look at the attempts."""


def _json(its: _Source) -> Any:
    """Return the answer as a document, where the workload asked for one."""
    if its.answer.value is not None:
        return its.answer.value
    return one_line(its.text.encode()) if its.text is not None and its.has_schema else None


def kept(line: bytes, names: Sequence[str]) -> dict[str, msgspec.Raw]:
    """Return the fields of a record (one JSON object) that go with its answer."""
    record = _fields(line)
    return {name: record[name] for name in names if name in record}


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def _with_row(document: "contract.Answer", found: Unwritten | None) -> "contract.Result":
    if found is None:
        return {**document, "row": None, "row_error": None}
    return {**document, "row": "failed" if found.given_up else "waiting", "row_error": found.said}


def one_line(document: bytes) -> msgspec.Raw:
    """Return a JSON document as it is, but on one line: a model may well answer with an indented one. One that not every reader
    takes (a number of thousands of digits) is mended.
    """
    try:
        msgspec.json.decode(document)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        try:
            return msgspec.Raw(msgspec.json.encode(readable(document)))
        except (ValueError, RecursionError):
            return msgspec.Raw(msgspec.json.encode(document.decode("utf-8", "replace")))
    indented = b"\n" in document or b"\r" in document
    return msgspec.Raw(msgspec.json.format(document, indent=-1) if indented else document)


def _usage(charge: Spending | None) -> "contract.Tokens":
    """Return what all attempts of a task used, nothing where none did."""
    return {
        "input_tokens": charge.input_tokens if charge else 0,
        "cached_input_tokens": charge.cached_input_tokens if charge else 0,
        "output_tokens": charge.output_tokens if charge else 0,
    }


def error_of(row: Row) -> "contract.Failure | None":
    """Return why a task has no answer, as documents tell it; None where it has one."""
    if row.error_kind is None:
        return None
    return {
        "kind": row.error_kind,
        "code": row.error_code,
        "http_status": row.http_status,
        "message": row.error_message,
    }
