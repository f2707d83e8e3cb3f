"""What became of tasks: the settling of a chunk of results, the ledger of attempts, the answers as readers see them.

Every writing function runs inside the caller's transaction.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from nura_cli.state import batches, keys, log, outbox, packed, rows, selection, suspects, tasks
from nura_cli.state import pages as paging
from nura_cli.state.connection import Connection
from nura_cli.state.spending import Sums, add_of_batch
from nura_cli.states import Blame, ErrorKind, Excuse, TaskStatus

_LARGEST = 2**63 - 1


class Open(NamedTuple):
    """A task that a batch has still to account for.

    Attributes:
        superseded: another stands for its key by now.
        retry_of: the completed task that it runs again; None for any other.
    """

    attempts: int
    superseded: bool
    retry_of: int | None = None


class Charge(NamedTuple):
    """What one attempt used and cost. Money in pico-dollars; None where no price is known."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    cost: int | None = 0
    list_cost: int | None = 0
    cache_write_tokens: int = 0


CHARGED = ", ".join(Charge._fields)
"""The columns of the ledger that a charge fills, in its order."""


class Failure(NamedTuple):
    """Why an attempt has no answer.

    Attributes:
        param: which part of the request the provider refused, in its words.
        blame: whose fault it is, as far as the provider's words tell.
        final: another attempt would come out the same, whatever the kind.
    """

    kind: ErrorKind
    message: str
    code: str | None = None
    http_status: int | None = None
    param: str | None = None
    blame: Blame = Blame.TASK
    final: bool = False


class Settled(NamedTuple):
    """What becomes of one task after an attempt.

    Attributes:
        to: ``pending`` (with ``not_before``) for a retry, else final.
        attempts: attempts used, this one included.
        failure: None for an answer.
        body: the raw response body, kept for answers and for failures that have one.
        superseded, retry_of: as :class:`Open` has them.
        excused: why it counts as no attempt, where it does not.
    """

    task_id: int
    superseded: bool
    to: TaskStatus
    attempts: int
    not_before: int
    failure: Failure | None
    body: bytes | None
    charge: Charge
    retry_of: int | None = None
    excused: Excuse | None = None

    @property
    def falls_back(self) -> bool:
        """Whether it ran a completed task again and has no answer: the old one stays."""
        return self.retry_of is not None and not self.superseded and self.to not in (_PENDING, TaskStatus.COMPLETED)

    @property
    def told(self) -> bool:
        """Whether the application is told of it."""
        return self.to is not _PENDING and not self.superseded and not self.falls_back


_PENDING = TaskStatus.PENDING
# A re-run of what was replaced is superseded, whether or not that was noted (an earlier release's enqueue does not).
_OPEN = (
    "SELECT t.id, t.attempts, coalesce(t.superseded_by, o.superseded_by) IS NOT NULL, t.retry_of FROM tasks t"
    " LEFT JOIN tasks o ON o.id = t.retry_of WHERE t.status = 'submitted' AND"
)


def open_tasks(db: Connection, batch_id: int, ids: Sequence[int]) -> dict[int, Open]:
    """Return which of these tasks belong to the batch now, unsettled."""
    query = f"{_OPEN} +t.batch_id = ? AND t.id IN (SELECT value FROM json_each(?))"  # the index would be looked at, too
    return _opened(db.execute(query, (batch_id, json.dumps(ids))))


def unaccounted(db: Connection, batch_id: int, limit: int, after: int = 0) -> dict[int, Open]:
    """Return up to ``limit`` tasks the batch has not accounted for, by id, after ``after``."""
    return _opened(db.execute(f"{_OPEN} t.batch_id = ? AND t.id > ? ORDER BY t.id LIMIT ?", (batch_id, after, limit)))


def _opened(rows: Iterable[tuple[int, int, int, int | None]]) -> dict[int, Open]:
    return {task_id: Open(attempts, bool(superseded), retry_of) for task_id, attempts, superseded, retry_of in rows}


def existing(db: Connection, ids: Sequence[int]) -> set[int]:
    """Return which of these ids are tasks at all."""
    rows = db.execute("SELECT id FROM tasks WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(ids),))
    return {row[0] for row in rows}


def settle(db: Connection, queue: int, batch_id: int, settled: Sequence[Settled], why: str) -> None:
    """Apply what became of a chunk of a batch's tasks: status, attempt, answer, counts, totals, one log row a kind.

    The tasks were seen by :func:`open_tasks` in this very transaction, so each update hits its row. A re-run that completes
    takes the place of what it ran again; one that does not leaves it there.
    """
    again = [s for s in settled if s.retry_of is not None]
    _mark_overtaken(db, queue, [s.task_id for s in again if s.superseded])
    note_moment(db)
    pack = packed.packer(db, batch_id)
    answers, failed = [s for s in settled if s.failure is None], [s for s in settled if s.failure is not None]
    of_answers = _summed([s.charge for s in answers])
    _settle_answered(db, batch_id, answers, of_answers, pack)
    _settle_failed(db, batch_id, failed, pack)
    moved = Counter([(s.to, s.superseded) for s in settled])
    answered = sum(n for (to, _), n in moved.items() if to is TaskStatus.COMPLETED)
    cancelled = sum([s.told for s in settled if s.to is TaskStatus.CANCELLED])
    db.execute(  # what an operator of nura's wished cancelled needs nobody
        "UPDATE batches SET answered = answered + ?, cancelled = cancelled + CASE WHEN cancel_at IS NULL THEN ? ELSE 0 END"
        " WHERE id = ?",
        (answered, cancelled, batch_id),
    )
    for (to, superseded), n in moved.items():
        tasks.add_to_counts(db, {(queue, TaskStatus.SUBMITTED, superseded): -n, (queue, to, superseded): n})
        log.task(db, queue, batch_id, TaskStatus.SUBMITTED, to, n, why)
    _add_totals(db, queue, of_answers.plus(_summed([s.charge for s in failed])))
    suspects.clear(db, [s.task_id for s in settled])
    for to in (TaskStatus.FAILED, TaskStatus.CANCELLED):
        fall_back(db, queue, to, [s.task_id for s in again if s.falls_back and s.to is to])
    _take_places(db, [(s.retry_of, s.task_id) for s in again if s.retry_of is not None and s.told])


def _settle_answered(
    db: Connection, batch_id: int, settled: Sequence[Settled], sums: Sums, pack: packed.Packer
) -> None:
    """Move tasks that were answered, with their attempts and answers: nearly all that are ever settled, so all of them at once.

    Args:
        sums: of their charges.
    """
    if not settled:
        return
    alike = (batch_id, db.now)
    move = tasks.moving(
        TaskStatus.SUBMITTED, TaskStatus.COMPLETED, "batch_id = NULL", "attempts = attempts + 1", "not_before = 0"
    )
    ids = json.dumps([s.task_id for s in settled])
    db.execute(f"{move} AND +batch_id = ? AND id IN (SELECT value FROM json_each(?))", (batch_id, ids))
    rows.insert(
        db,
        f"INSERT INTO attempts (batch_id, at, outcome, summed, task_id, {CHARGED})",
        "(?1, ?2, 'answered', 1, ?, ?, ?, ?, ?, ?, ?)",
        [(s.task_id, *s.charge) for s in settled],
        alike,
    )
    add_of_batch(db, batch_id, sums)
    rows.insert(
        db,
        "INSERT OR REPLACE INTO answers (batch_id, finished_at, status, task_id, attempts, body)",
        "(?1, ?2, 'completed', ?, ?, ?)",
        [(s.task_id, s.attempts, pack(s.body)) for s in settled],
        alike,
    )


def _settle_failed(db: Connection, batch_id: int, settled: Sequence[Settled], pack: packed.Packer) -> None:
    """Move tasks that have no answer, with their attempts, and what became of those that are final."""
    for to in {s.to for s in settled}:
        move = tasks.moving(TaskStatus.SUBMITTED, to, "batch_id = NULL", "attempts = ?", "not_before = ?")
        rows = [(s.attempts, s.not_before, s.task_id, batch_id) for s in settled if s.to is to]
        db.executemany(f"{move} AND id = ? AND batch_id = ?", rows)
    _enter(db, [(batch_id, s) for s in settled])
    _enter_answers(db, [(batch_id, s) for s in settled if s.to is not TaskStatus.PENDING], pack)


def _enter(db: Connection, ended: Iterable[tuple[int | None, Settled]]) -> None:
    """Enter attempts into the ledger, each with the batch that it was."""
    rows.insert(
        db,
        f"INSERT INTO attempts (at, batch_id, task_id, outcome, code, said, param, excused, {CHARGED})",
        "(?1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(batch_id, s.task_id, *_outcome(s.failure), s.excused, *s.charge) for batch_id, s in ended],
        (db.now,),
    )


def _mark_overtaken(db: Connection, queue: int, ids: Sequence[int]) -> None:
    """Note of submitted re-runs that what they run again was replaced, where whoever replaced it did not."""
    n = db.execute(
        "UPDATE tasks SET superseded_by = (SELECT o.superseded_by FROM tasks o WHERE o.id = tasks.retry_of)"
        " WHERE id IN (SELECT value FROM json_each(?)) AND superseded_by IS NULL",
        (json.dumps(list(ids)),),
    ).rowcount
    tasks.add_to_counts(db, {(queue, TaskStatus.SUBMITTED, False): -n, (queue, TaskStatus.SUBMITTED, True): n})


def _take_places(db: Connection, pairs: Sequence[tuple[int, int]]) -> None:
    """Let re-runs that have an answer stand for the keys of what they ran again: (old, new)."""
    if not pairs:
        return
    named = tasks.identities(db, [new for _, new in pairs])
    moved = sum(keys.point(db, *named[new], old, new) for old, new in pairs)
    if moved != len(pairs):
        raise AssertionError(f"{len(pairs)} re-runs took the places of {moved} tasks")
    tasks.supersede(db, pairs, "run again, with a new answer")


def fall_back(db: Connection, queue: int, status: TaskStatus, ids: Sequence[int]) -> None:
    """Let re-runs that ended so, without an answer, be superseded by what they ran again; other tasks stay as they are."""
    n = db.execute(
        "UPDATE tasks SET superseded_by = retry_of WHERE id IN (SELECT value FROM json_each(?))"
        " AND retry_of IS NOT NULL AND superseded_by IS NULL",
        (json.dumps(list(ids)),),
    ).rowcount
    tasks.add_to_counts(db, {(queue, status, False): -n, (queue, status, True): n})


def _outcome(failure: Failure | None) -> tuple[str, str | None, str | None, str | None]:
    if failure is None:
        return "answered", None, None, None
    return failure.kind, failure.code, failure.message, failure.param


def _enter_answers(
    db: Connection, ended: Iterable[tuple[int | None, Settled]], pack: packed.Packer = lambda body: body
) -> None:
    """Enter what became of tasks that are final, each with its batch, for readers."""
    rows.insert(
        db,
        "INSERT OR REPLACE INTO answers (finished_at, task_id, batch_id, status, attempts, error_kind, error_message,"
        " error_code, http_status, body)",
        "(?1, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (s.task_id, batch_id, s.to, s.attempts, *(s.failure[:4] if s.failure else (None,) * 4), pack(s.body))
            for batch_id, s in ended
        ],
        (db.now,),
    )


def note_moment(db: Connection) -> None:
    """Note which answer is the first of this second, before it comes."""
    if db.keeps_text:  # such a file has an index
        return
    db.execute(
        "INSERT OR IGNORE INTO moments (at, seq)"
        " SELECT ?, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'answers'), 0) + 1",
        (db.now,),
    )


class Withdrawn(NamedTuple):
    """How many tasks were withdrawn, and the ids of those of which the application is to be told."""

    n: int
    told: list[int]


def withdraw(db: Connection, queue: int, ids: Sequence[int], why: str) -> Withdrawn:
    """Make those of a queue's tasks that still wait ``cancelled``: no batch settled them.

    One that runs a completed task again gives its place back to that one: of it nobody is told.
    """
    failure = Failure(ErrorKind.CANCELLED, why)
    settled = end_waiting(db, queue, TaskStatus.CANCELLED, dict.fromkeys(ids, (None, failure)), why)
    return Withdrawn(len(settled), [one.task_id for one in settled if one.told])


def end_waiting(
    db: Connection,
    queue: int,
    to: TaskStatus,
    ends: Mapping[int, tuple[int | None, Failure]],
    why: str,
    *,
    attempt: bool = False,
) -> list[Settled]:
    """End those of a queue's tasks that still wait, and stand for their keys, without another attempt; return them.

    Args:
        to: ``failed`` or ``cancelled``.
        ends: by task, the batch that it was in when it failed, None for one that no batch settles, and why it ends.
        why: for the log.
        attempt: that it was in that batch counts as an attempt of its, as it did not before.
    """
    gone = db.execute(
        f"{tasks.moving(TaskStatus.PENDING, to, f'attempts = attempts + {attempt:d}')} AND superseded_by IS NULL"
        f" AND {tasks.OF_QUEUE} AND id IN (SELECT value FROM json_each(?)) RETURNING id, attempts, retry_of",
        (queue, json.dumps(list(ends))),
    ).fetchall()
    settled = [
        Settled(task_id, False, to, n, 0, ends[task_id][1], None, Charge(), retry_of) for task_id, n, retry_of in gone
    ]
    note_moment(db)
    _enter_answers(db, [(ends[one.task_id][0], one) for one in settled])
    if attempt:
        _enter(db, [(ends[one.task_id][0], one) for one in settled])
    if settled:
        n = len(settled)
        tasks.add_to_counts(db, {(queue, TaskStatus.PENDING, False): -n, (queue, to, False): n})
        log.task(db, queue, None, TaskStatus.PENDING, to, n, why)
    fall_back(db, queue, to, [one.task_id for one in settled if one.falls_back])
    suspects.clear(db, [one.task_id for one in settled])
    return settled


def late(
    db: Connection,
    queue: int,
    batch_id: int,
    lines: Iterable[tuple[int, Charge]],
    orphan: str = "",
    *,
    same: bool = True,
) -> int:
    """Bill answers that are applied to nothing, in the ledger; return how many were not there yet.

    Their task no longer belongs to the batch, or they are those of an orphan (its remote id). An attempt of the batch that
    was taken for lost, at unknown cost, is known to have cost this much now.

    Args:
        same: whether they are of the batch's own sending, and not of a second one.
    """
    billed = []
    for task_id, charge in lines:
        if same and _found_again(db, queue, batch_id, task_id, charge):
            billed.append(charge)
            continue
        added = db.execute(
            f"INSERT OR IGNORE INTO attempts (task_id, batch_id, at, outcome, late, {CHARGED}, stray)"
            " VALUES (?, ?, ?, 'late', 1, ?, ?, ?, ?, ?, ?, ?)",
            (task_id, batch_id, db.now, *charge, orphan),
        ).rowcount
        billed += [charge] * added
    add_totals(db, queue, billed)
    return len(billed)


def _found_again(db: Connection, queue: int, batch_id: int, task_id: int, charge: Charge) -> bool:
    """Put what an attempt cost that was taken for lost into its place in the ledger; return whether there is one."""
    found = db.execute(
        f"UPDATE attempts SET late = 1, ({CHARGED}) = (?, ?, ?, ?, ?, ?)"
        " WHERE task_id = ? AND batch_id = ? AND stray = '' AND late = 0 AND cost IS NULL"
        " AND outcome IN ('lost', 'missing')",
        (*charge, task_id, batch_id),
    ).rowcount
    if found:
        known_now(db, queue)
    return bool(found)


def unknown(db: Connection, queue: int, batch_id: int, orphan: str, *, same: bool) -> int:
    """Bill an orphan whose answers cannot be had: an attempt of unknown cost for each task its batch accounted for; return how many.

    It reads the whole ledger, since nothing else says whose tasks they were: for what hardly ever happens.

    Args:
        same: whether it may be the batch's own sending; what is billed at an unknown cost already is then not billed again.
    """
    added = db.execute(
        "INSERT OR IGNORE INTO attempts (task_id, batch_id, at, outcome, late, cost, list_cost, stray)"
        " SELECT task_id, batch_id, :at, 'late', 1, NULL, NULL, :stray FROM attempts"
        " WHERE batch_id = :batch AND stray = '' AND NOT (:same AND cost IS NULL AND outcome IN ('lost', 'missing'))",
        {"at": db.now, "stray": orphan, "batch": batch_id, "same": same},
    ).rowcount
    add_totals(db, queue, [Charge(cost=None, list_cost=None)] * added)
    return added


def lost_before(db: Connection, batch_id: int, ids: Sequence[int]) -> set[int]:
    """Return which of these tasks have had answers lost in another batch than this one."""
    rows = db.execute(
        "SELECT DISTINCT task_id FROM attempts WHERE task_id IN (SELECT value FROM json_each(?)) AND batch_id <> ?"
        " AND outcome IN ('lost', 'missing') AND (cost IS NULL OR late = 1)",
        (json.dumps(list(ids)), batch_id),
    )
    return {row[0] for row in rows}


def put_back(db: Connection, queue: int, batch_id: int, limit: int, why: str) -> int:
    """Make up to ``limit`` tasks that a batch left cancelled pending again, with fresh attempts; return how many."""
    ids = [
        row[0]
        for row in db.execute(
            "SELECT a.task_id FROM answers a JOIN tasks t ON t.id = a.task_id WHERE a.batch_id = ?"
            " AND a.status = 'cancelled' AND t.status = 'cancelled' AND t.superseded_by IS NULL LIMIT ?",
            (batch_id, limit),
        )
    ]
    wait_again(db, queue, TaskStatus.CANCELLED, ids, why, batch_id=batch_id)
    return len(ids)


def wait_again(
    db: Connection, queue: int, old: TaskStatus, ids: Sequence[int], why: str, *, batch_id: int | None = None
) -> None:
    """Make tasks of a queue that failed, or were cancelled, pending again, with fresh attempts; the ledger stays as it is.

    What the application was still to be told of their failure is closed.

    Args:
        old: the status of all of them; none is superseded.
        batch_id: for the log: the batch of which that is all or a part.
    """
    if not ids:
        return
    listed = json.dumps(list(ids))
    outbox.withdraw(db, ids, "retried")
    batches.forget_cancelled(db, ids)
    move = tasks.moving(old, TaskStatus.PENDING, "attempts = 0", "not_before = 0")
    n = db.execute(f"{move} AND id IN (SELECT value FROM json_each(?))", (listed,)).rowcount
    db.execute("DELETE FROM answers WHERE task_id IN (SELECT value FROM json_each(?))", (listed,))
    tasks.add_to_counts(db, {(queue, old, False): -n, (queue, TaskStatus.PENDING, False): n})
    log.task(db, queue, batch_id, old, TaskStatus.PENDING, n, why)


class Totals(NamedTuple):
    """What a queue used and cost so far. Money in pico-dollars."""

    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    cost: int
    list_cost: int
    unpriced: int


_TOTALS = ", ".join(Totals._fields)


def add_totals(db: Connection, queue: int, charges: Sequence[Charge]) -> None:
    """Add what attempts used and cost to the queue's totals; an attempt without a price counts as unpriced."""
    _add_totals(db, queue, _summed(charges))


def _add_totals(db: Connection, queue: int, sums: Sums) -> None:
    added = [getattr(sums, column) for column in Totals._fields]
    before = db.execute(f"SELECT {_TOTALS} FROM totals WHERE lane_id = ?", (queue,)).fetchone() or [0] * len(added)
    now = [min(old + new, _LARGEST) for old, new in zip(before, added, strict=True)]
    changes = ", ".join(f"{column} = excluded.{column}" for column in Totals._fields)
    db.execute(
        f"INSERT INTO totals (lane_id, {_TOTALS}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET {changes}",
        (queue, *now),
    )


def _summed(charges: Sequence[Charge]) -> Sums:
    """Return the sums of charges, all of them of answers.

    Added up here: SQLite would make a sum past 64 bits a fraction, which its columns refuse. There it stays at the largest.
    """
    given, cached, said, cost, list_cost, written = zip(*charges, strict=True) if charges else ((),) * 6
    return Sums(
        attempts=len(charges),
        input_tokens=sum(given),
        cached_input_tokens=sum(cached),
        cache_write_tokens=sum(written),
        output_tokens=sum(said),
        cost=min(sum(filter(None, cost)), _LARGEST),
        list_cost=min(sum(filter(None, list_cost)), _LARGEST),
        unpriced=cost.count(None),
    )


def known_now(db: Connection, queue: int) -> None:
    """Count one attempt less of a queue's totals as unpriced: what it cost is known now, and added."""
    db.execute("UPDATE totals SET unpriced = unpriced - 1 WHERE lane_id = ?", (queue,))


def totals(db: Connection) -> dict[int, Totals]:
    """Return each queue's totals."""
    return {row[0]: Totals(*row[1:]) for row in db.execute(f"SELECT lane_id, {_TOTALS} FROM totals")}


class Row(NamedTuple):
    """One answer with all that a line of ``nura results`` is made from."""

    seq: int
    task_id: int
    workload: str
    key: str
    line: bytes
    status: str
    finished_at: int
    enqueued_at: int
    attempts: int
    error_kind: str | None
    error_code: str | None
    http_status: int | None
    error_message: str | None
    body: bytes | None
    batch_id: int | None
    revision: str | None
    provider: str | None
    dialect: str | None
    endpoint: str | None
    model: str | None
    tag: str | None


TAG = "coalesce(b.tag || iif(a.taken, '-taken', ''), (SELECT value FROM meta WHERE name = 'state_id') || '-' || a.finished_at || '-' || a.seq)"
"""The tag of the batch ``b`` that an answer ``a`` comes from, as SQL; what stands for it where no batch gave it. An answer that was
taken later is told under another: under the tag itself its failure was."""
_COLUMNS = (
    "SELECT a.seq, a.task_id, w.name, r.key, r.line, a.status, a.finished_at, r.enqueued_at, a.attempts, a.error_kind,"
    " a.error_code, a.http_status, a.error_message, a.body, a.batch_id, b.revision, b.provider, b.dialect, b.endpoint,"
    f" b.model, {TAG} FROM"
)
_WIDE = "JOIN records r ON r.task_id = a.task_id LEFT JOIN batches b ON b.id = a.batch_id"
_ALL = selection.Selection()
_FIRST = "SELECT min(seq) FROM answers WHERE finished_at >= ?"
_FIRST_MOMENT = "SELECT min(seq) FROM moments WHERE at >= ?"
"""Where the answers since some time begin, by the index of an earlier layout, and by what newer files have in its place."""


def pages(
    db: Connection, chosen: selection.Selection = _ALL, *, after: int = 0, page: int = 200
) -> Iterator[list[Row]]:
    """Yield answers of a selection of tasks, by seq, in pages that are not empty, and bounded in bytes.

    No read transaction is held between two pages, however slow the caller is.

    Args:
        after: only answers with a higher seq.
        page: rows fetched at a time, at most.
    """
    for found in _found(db, chosen, _begin(db, chosen, after), page):
        for part in parts(db, list(found)):
            if rows := [row for row in part if row.seq == found[row.task_id]]:  # one that was settled anew comes later
                yield rows


def _begin(db: Connection, chosen: selection.Selection, after: int) -> int:
    """Return after which seq answers of a selection begin, if not before ``after``."""
    if chosen.since is None or chosen.keys is not None:
        return after
    first = db.execute(_FIRST if db.keeps_text else _FIRST_MOMENT, (chosen.since,)).fetchone()[0]
    return max(after, _LARGEST if first is None else first - 1)


def _found(db: Connection, chosen: selection.Selection, after: int, page: int) -> Iterator[dict[int, int]]:
    """Yield which answers :func:`pages` is to give, as many at a time: their seqs, in that order, by the ids of their tasks."""
    tables, where, values = selection.settled(chosen)
    query = f"SELECT a.task_id, a.seq FROM {tables} WHERE {where} AND a.seq > :after ORDER BY a.seq LIMIT :page"
    while found := dict(db.execute(query, {**values, "after": after, "page": page}).fetchall()):
        yield found
        after = max(found.values())


Brief = tuple[
    int,
    int,
    bytes,
    bool,
    int,
    int,
    int,
    int | None,
    int | None,
    int | None,
    int | None,
    int | None,
    bytes | None,
    bytes | None,
]
"""One answer with that alone in which it differs from others of its batch: seq, task, key, whether it is completed, finished_at,
enqueued_at, attempts, batch; of all billed attempts the input tokens, those that were cached, the output tokens (None where there is
no attempt) and the cost in pico-dollars (None where one has no price); the record, where it was asked for, and the body.

A plain tuple: hundreds of thousands of them are taken apart one after the other."""
_BRIEF = (
    "SELECT a.seq, a.task_id, CAST(r.key AS BLOB), a.status = 'completed', a.finished_at, r.enqueued_at, a.attempts, a.batch_id,"
    " x.input_tokens, x.cached_input_tokens, x.output_tokens, x.cost, iif(:records, r.line, NULL), a.body FROM"
)
_BESIDE = "CROSS JOIN records r ON r.task_id = a.task_id LEFT JOIN attempts x ON x.task_id = a.task_id"
_PAID = slice(8, 12)
_LINE_OF_BRIEF, _BODY_OF_BRIEF = 12, 13
"""Where the sums of an attempt, the record and the body stand in a row of that query."""


def briefs(
    db: Connection, chosen: selection.Selection = _ALL, *, after: int = 0, page: int = 200, records: bool = False
) -> Iterator[list[Brief]]:
    """Yield the answers that :func:`pages` gives, in brief, likewise.

    Args:
        records: whether the records are asked for.
    """
    after = _begin(db, chosen, after)
    if chosen == _ALL._replace(workloads=chosen.workloads, since=chosen.since, until=chosen.until):
        # Read as they lie there. Any other selection may have to be sorted, which is done by numbers alone.
        tables, where, values = selection.settled(chosen)
        query = f"{_BRIEF} {tables} {_BESIDE} WHERE {where} AND a.seq > :after ORDER BY a.seq"
        while rows := _first_briefs(db, query, {**values, "after": after, "records": records}, page):
            yield rows
            after = rows[-1][0]
        return
    query = f"{_BRIEF} json_each(:seqs) s CROSS JOIN answers a ON a.seq = s.value {_BESIDE}"
    for found in _found(db, chosen, after, page):
        seqs = list(found.values())
        while rows := _first_briefs(db, query, {"seqs": json.dumps(seqs), "records": records}, page):
            yield rows
            seqs = seqs[seqs.index(rows[-1][0]) + 1 :]


def _first_briefs(db: Connection, query: str, values: Mapping[str, object], page: int) -> list[Brief]:
    """Return the first answers of a query, until they fill a page, or are as many. What it gives is attempts, those of one answer
    side by side.
    """
    rows: list[Any] = []
    size = seq = 0
    with closing(db.execute(query, values)) as found:
        for row in found:
            if row[0] == seq:
                rows[-1] = _added(rows[-1], row)
                continue
            if size >= paging.PAGE_BYTES or len(rows) == page:
                break
            seq, line, body = row[0], row[_LINE_OF_BRIEF], row[_BODY_OF_BRIEF]
            if line is not None:
                line = packed.unpack(db, line)
                size += len(line)
            if body is not None:
                body = packed.unpack(db, body)
                size += len(body)
            rows.append(row if body is row[_BODY_OF_BRIEF] and line is None else (*row[:_LINE_OF_BRIEF], line, body))
    return rows


def _added(row: Any, other: Any) -> Any:
    """Return an answer with one more of its attempts."""
    *tokens, cost = [None if None in pair else sum(pair) for pair in zip(row[_PAID], other[_PAID], strict=True)]
    return (*row[: _PAID.start], *tokens, cost, *row[_PAID.stop :])


def parts(db: Connection, ids: Sequence[int]) -> Iterator[list[Row]]:
    """Yield the answers of these tasks, in the order of their ids here, in pages that are bounded in bytes."""
    sizes: dict[int, int] = dict(
        db.execute(
            f"SELECT a.task_id, coalesce({packed.size('a.body')}, 0) + {packed.size('r.line')} FROM answers a"
            " JOIN records r ON r.task_id = a.task_id WHERE a.task_id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(ids)),),
        ).fetchall()
    )
    for part in paging.split([one for one in ids if one in sizes], sizes.__getitem__):
        found = of_tasks(db, part)
        yield [found[one] for one in part if one in found]


def dialects(db: Connection, workloads: Sequence[str] = ()) -> set[str]:
    """Return the dialects that batches of these workloads (all, when empty) were sent in."""
    rows = db.execute(
        "SELECT DISTINCT dialect FROM batches WHERE :all OR workload IN (SELECT value FROM json_each(:workloads))",
        {"all": not workloads, "workloads": json.dumps(list(workloads))},
    )
    return {row[0] for row in rows}


def of_tasks(db: Connection, ids: Sequence[int]) -> dict[int, Row]:
    """Return the answers of these tasks, superseded or not; a task without one is left out."""
    tables = "answers a JOIN tasks t ON t.id = a.task_id JOIN lanes l ON l.id = t.lane_id JOIN workloads w ON w.id = l.workload_id"
    query = f"{_COLUMNS} {tables} {_WIDE} WHERE a.task_id IN (SELECT value FROM json_each(?))"
    return {row[1]: _row(db, row) for row in db.execute(query, (json.dumps(list(ids)),))}


_LINE, _BODY = Row._fields.index("line"), Row._fields.index("body")


def _row(db: Connection, row: Sequence[Any]) -> Row:
    values = list(row)
    values[_LINE], values[_BODY] = packed.unpack(db, row[_LINE]), packed.unpack_any(db, row[_BODY])
    return Row(*values)


class Spending(NamedTuple):
    """What all billed attempts of one task used and cost together; cost is None when one has no price."""

    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    cost: int | None
    list_cost: int | None


def spending(db: Connection, ids: Sequence[int]) -> dict[int, Spending]:
    """Return what these tasks' attempts used and cost."""
    rows = db.execute(
        "SELECT task_id, sum(input_tokens), sum(cached_input_tokens), sum(output_tokens),"
        " CASE WHEN count(cost) = count(*) THEN sum(cost) END, CASE WHEN count(cost) = count(*) THEN sum(list_cost) END"
        " FROM attempts WHERE task_id IN (SELECT value FROM json_each(?)) GROUP BY task_id",
        (json.dumps(list(ids)),),
    )
    return {row[0]: Spending(*row[1:]) for row in rows}
