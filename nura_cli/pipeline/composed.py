"""Lines of ``nura results``, composed: what nearly every answer has is put together from bytes, and no document is made of it.

Such a line is, byte for byte, what encoding the document would give; :mod:`nura_cli.pipeline.documents` says what it holds. What
is in any way unusual is left to that.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from nura_cli.clock import stamp
from nura_cli.config import Config
from nura_cli.dialects.base import Said, Spec
from nura_cli.dialects.vendors import dialect as dialect_of
from nura_cli.pipeline.documents import Documents, kept
from nura_cli.pricing import decimal_dollars
from nura_cli.state import State, answers, batches, outbox
from nura_cli.state.answers import Brief
from nura_cli.state.selection import Selection

_PAGE = 200
_MOST_CLOSES = 64
_LF, _CR = b"\n\r"
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class _Batch(NamedTuple):
    """What answers of one batch have in common.

    Attributes:
        said: reads a response body, decoded.
        has_schema: the answers are documents.
        keep: the fields of the record that go with each.
        head: what stands between seq and key.
        middle: what stands between model and attempts.
        closes: what comes before the usage, and after the cost, by finish_reason, model and attempts.
    """

    said: Callable[[Any], Said | None]
    has_schema: bool
    keep: Sequence[str]
    head: bytes
    middle: bytes
    closes: dict[tuple[str, str, int], tuple[bytes, bytes]]

    def close(self, why: str, model: str, attempts: int) -> tuple[bytes, bytes]:
        """Return what comes before the usage, and after the cost; and remember it."""
        if len(self.closes) >= _MOST_CLOSES:
            self.closes.clear()
        usage = b',"finish_reason":%b,"usage":{"input_tokens":' % _encode(why)
        rest = b',"error":null,"model":%b%b%d,"record":' % (_encode(model), self.middle, attempts)
        return self.closes.setdefault((why, model, attempts), (usage, rest))


class Lines:
    """Makes the lines of answers; remembers the batches it met."""

    def __init__(self, state: State, config: Config) -> None:
        self._state = state
        self._keep = {name: workload.keep for name, workload in config.workloads.items()}
        self._documents = Documents(state, config)
        self._batches: dict[int, _Batch] = {}

    def of(self, chosen: Selection, after: int) -> Iterator[bytes]:
        """Yield each answer that is meant, with a higher seq than ``after``, as one line of JSON, with its end, by seq."""
        records = any(self._keep.values())
        for page in answers.briefs(self._state.db, chosen, after=after, page=_PAGE, records=records):
            unwritten = outbox.unwritten(self._state.db, [row[1] for row in page])
            lines = [None if unwritten and row[1] in unwritten else self._line(row) for row in page]
            if all(lines):
                yield from filter(None, lines)
                continue
            others = self._others({row[1]: row[0] for row, line in zip(page, lines, strict=True) if line is None})
            for row, line in zip(page, lines, strict=True):
                made = line or others.get(row[0])
                if made is not None:
                    yield made

    def _others(self, unusual: dict[int, int]) -> dict[int, bytes]:
        """Return the lines of answers that are unusual, by seq; of one that was settled anew none, for it comes later.

        Args:
            unusual: their seqs by their tasks.
        """
        return {
            row.seq: msgspec.json.encode(document) + b"\n"
            for part in answers.parts(self._state.db, list(unusual))
            for row, document in zip(part, self._documents.lines(part), strict=True)
            if unusual[row.task_id] == row.seq
        }

    def _line(self, row: Brief) -> bytes | None:
        """Return the line of an answer that is in its row, if it has one; None where that takes a longer look."""
        seq, _, key, completed, finished_at, enqueued_at, attempts, batch_id, given, cached, out, cost, line, body = row
        if not completed or batch_id is None or body is None or _LF in body or _CR in body:
            return None
        batch = self._batches.get(batch_id) or self._batch(batch_id)
        try:
            said = batch.said(_decode(body))
            if said is None or given is None or cached is None or out is None:
                return None
            text, why, model = said
            document = _document(text) if batch.has_schema else b"null"
            record = msgspec.json.encode(kept(line, batch.keep)) if line is not None and batch.keep else b"{}"
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return None
        if document is None:
            return None
        usage, rest = batch.closes.get((why, model, attempts)) or batch.close(why, model, attempts)
        return b"".join(
            (
                b'{"seq":%d%b%b,"status":"completed","text":' % (seq, batch.head, key),
                _encode(text),
                b',"json":',
                document,
                b',"response":',
                body,
                usage,
                b'%d,"cached_input_tokens":%d,"output_tokens":%d},"cost":' % (given, cached, out),
                _dollars(cost),
                rest,
                record,
                _times(enqueued_at, finished_at),
            )
        )

    def _batch(self, batch_id: int) -> _Batch:
        """Look at a batch, and remember what its answers have in common."""
        found = batches.get(self._state.db, batch_id)
        assert found is not None  # an answer names it
        spec = Spec.stored(batches.spec(self._state.db, found.revision))
        self._batches[batch_id] = batch = _Batch(
            said=dialect_of(found.dialect).said(found.endpoint),
            has_schema=spec.answer_schema is not None,
            keep=self._keep.get(found.workload) or (),
            head=b',"workload":%b,"key":' % _encode(found.workload),
            middle=b',"provider":%b,"batch_id":%d,"revision":%b,"attempts":'
            % (_encode(found.provider), batch_id, _encode(found.revision)),
            closes={},
        )
        return batch


def _document(text: str) -> bytes | None:
    """Return an answer that is an object as it stands; None of any other, which may have to be mended.

    Raises:
        MsgspecError, RecursionError: it is no JSON.
    """
    if not (text.startswith("{") and text.endswith("}")) or "\\u" in text or "\n" in text or "\r" in text:
        return None
    _decode(text)
    return text.encode()


@lru_cache(maxsize=1024)
def _times(enqueued_at: int, finished_at: int) -> bytes:
    """Return the end of a line, from its times on."""
    times = (stamp(enqueued_at).encode(), stamp(finished_at).encode())
    return b',"enqueued_at":"%b","finished_at":"%b","row":null,"row_error":null}\n' % times


@lru_cache(maxsize=4096)
def _dollars(cost: int | None) -> bytes:
    return b'"%b"' % decimal_dollars(cost).encode() if cost is not None else b"null"
