"""The document of an answer: what a line of nura results is made of, and what events carry."""

from collections.abc import Sequence
from typing import Any

import msgspec

from nura_cli import contract
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

_NOTHING = Answer()


class Documents:
    """Makes the documents of answers; remembers the specs and dialects it met."""

    def __init__(self, state: State, config: Config) -> None:
        self._state = state
        self._keep = {name: workload.keep for name, workload in config.workloads.items()}
        self._specs: dict[str, Spec] = {}
        self._dialects: dict[str, Dialect] = {}

    def of(self, rows: Sequence[Row]) -> list[contract.Answer]:
        """Return the documents of a page of answers."""
        charge = answers.spending(self._state.db, [row.task_id for row in rows])
        return [self._document(row, charge.get(row.task_id)) for row in rows]

    def lines(self, rows: Sequence[Row]) -> list[contract.Result]:
        """Return the documents of a page of answers, each with what became of its row: the lines of nura results."""
        unwritten = outbox.unwritten(self._state.db, [row.task_id for row in rows])
        pairs = zip(self.of(rows), (unwritten.get(row.task_id) for row in rows), strict=True)
        return [_with_row(document, found) for document, found in pairs]

    def of_one(self, row: Row, charge: Spending, spec: Spec) -> contract.Answer:
        """Return the document of an answer that no batch gave, to a request that was rendered with ``spec``."""
        self._specs[row.revision or ""] = spec
        return self._document(row, charge)

    def _document(self, row: Row, charge: Spending | None) -> contract.Answer:
        answer = self._answer(row)
        answered = row.status == "completed"
        return {
            "seq": row.seq,
            "workload": row.workload,
            "key": msgspec.Raw(row.key.encode()),
            "status": row.status,
            "text": answer.text if answered else None,  # of a document, as any reader takes it
            "json": self._json(row, answer) if answered else None,
            "response": one_line(row.body) if row.body else None,
            "finish_reason": answer.finish_reason,
            "usage": _usage(charge),
            "cost": decimal_dollars(charge.cost) if charge else "0.00",
            "error": error_of(row),
            "model": answer.model or row.model or None,
            "provider": row.provider,
            "batch_id": row.batch_id,
            "revision": row.revision,
            "attempts": row.attempts,
            "record": self._record(row),
            "enqueued_at": stamp(row.enqueued_at),
            "finished_at": stamp(row.finished_at),
        }

    def _answer(self, row: Row) -> Answer:
        if row.body is None or row.dialect is None:
            return _NOTHING
        if row.dialect not in self._dialects:
            self._dialects[row.dialect] = dialect_of(row.dialect)
        answer = self._dialects[row.dialect].answer(row.endpoint or "", row.body)
        return answer._replace(text=document_in(answer)) if self._has_schema(row) else answer

    def _json(self, row: Row, answer: Answer) -> Any:
        """Return the answer as a document, where the workload asked for one."""
        if answer.value is not None:
            return answer.value
        return one_line(answer.text.encode()) if answer.text is not None and self._has_schema(row) else None

    def _has_schema(self, row: Row) -> bool:
        if row.revision is None:
            return False
        if row.revision not in self._specs:
            self._specs[row.revision] = Spec.stored(batches.spec(self._state.db, row.revision))
        return self._specs[row.revision].answer_schema is not None

    def _record(self, row: Row) -> dict[str, Any]:
        names = self._keep.get(row.workload)
        return kept(row.line, names) if names else {}


def kept(line: bytes, names: Sequence[str]) -> dict[str, msgspec.Raw]:
    """Return the fields of a record (one JSON object) that go with its answer."""
    record = _fields(line)
    return {name: record[name] for name in names if name in record}


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def _with_row(document: contract.Answer, found: Unwritten | None) -> contract.Result:
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


def _usage(charge: Spending | None) -> contract.Tokens:
    """Return what all attempts of a task used, nothing where none did."""
    return {
        "input_tokens": charge.input_tokens if charge else 0,
        "cached_input_tokens": charge.cached_input_tokens if charge else 0,
        "output_tokens": charge.output_tokens if charge else 0,
    }


def error_of(row: Row) -> contract.Failure | None:
    """Return why a task has no answer, as documents tell it; None where it has one."""
    if row.error_kind is None:
        return None
    return {
        "kind": row.error_kind,
        "code": row.error_code,
        "http_status": row.http_status,
        "message": row.error_message,
    }
