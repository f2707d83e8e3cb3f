"""Delivery, the last part of nura reconcile: answers into the application's rows, then events to its receivers.

Takes what the outbox holds; leaves each delivery done, dead (refused for good), or waiting for another try. A row is
written at least once and idempotently; a task's events go out after its row, in order for one task, at least once, under
an id that stays the same; what is told anew of a row that was written after all has another. A superseded task is never
delivered.

What can go wrong: a database or a receiver that can take nothing now rests as a whole, with a growing pause, and nothing
else waits for it; one row or event that is refused is tried again later, and given up after a day or so (a dead letter),
so that the next ones get through. What nobody foresaw is narrowed down to the row, event or receiver that it is about, and
reported; the others go on.
"""

import hashlib
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from nura_cli import contract, progress
from nura_cli.clock import stamp
from nura_cli.config import Config, EventConfig, WorkloadConfig, WriteBackConfig
from nura_cli.errors import EX_CONFIG, EX_PARTIAL, EX_TEMPFAIL, ConfigError, DatabaseDown, NuraError, ProblemKind
from nura_cli.pipeline import backoff
from nura_cli.pipeline.documents import Documents
from nura_cli.pipeline.plans import plan_of, target_of, unowned, written
from nura_cli.pipeline.report import Problem, counted
from nura_cli.pipeline.run import Run
from nura_cli.pipeline.targets import follow, label_of, write_back_of
from nura_cli.state import State, answers, batches, outbox
from nura_cli.state.connection import LONGEST_BACKOFF
from nura_cli.state.file import unforeseen
from nura_cli.state.outbox import Delivery, Ended, row_target
from nura_cli.states import EventType

if TYPE_CHECKING:
    from nura_cli.delivery.events import Event, Outcome, Receiver
    from nura_cli.delivery.write_back import RowOutcome, WriteBack

ROWS = 1000
"""Answers written in one transaction of the application's database, at most."""
BYTES = 16 * 1024 * 1024
"""Records and answers of one page of deliveries, at most; one larger one alone is a page."""
MOST_TRIES = 12
"""After so many refusals, over about a day, a row or an event is a dead letter."""
_MOST_BUGS = 20
"""Deliveries of one workload to one target that fail as nobody foresaw, before it is taken for a problem of all of them."""
_FIRST_TRY_AGAIN = 60
_GIVE_UP_CALLS = 3
"""Calls in a row in which a receiver refused everything: the rest waits for the next run."""


@dataclass(kw_only=True)
class Deliveries(Run):
    """One run, and what it counted."""

    documents: Documents
    rows: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)

    def due(self, workload: str, kind: outbox.Kind, target: str, after: int, limit: int) -> list[Delivery]:
        """Return the next deliveries that are due, as many as one page takes."""
        found = outbox.due(
            self.state.db,
            workload,
            kind,
            target,
            after=after,
            limit=limit,
        )
        size = 0
        for n, delivery in enumerate(found):
            size += delivery.bytes
            if size > BYTES and n:
                return found[:n]
        return found

    def is_paused(self, target: str) -> bool:
        """Whether a target is left alone for now."""
        return bool(backoff.until(outbox.pause_of(self.state.db, target).paused_until, self.clock()))

    def pause(self, target: str, why: str, retry_after: int | None = None) -> None:
        """Leave a target alone for a while."""
        with self.state.transaction() as db:
            rest = backoff.after_outage(
                outbox.pause_of(db, target),
                why,
                retry_after,
                self.clock(),
                backoff.jitter(),
            )
            outbox.pause(db, rest)


def run(state: State, config: Config) -> Deliveries:
    """Deliver what is due: all rows first, then the events.

    Returns:
        What was counted: ``rows`` written, skipped, delayed and failed; ``events`` sent, delayed and dead.
    """
    job = Deliveries(state=state, config=config, documents=Documents(state, config))
    for workload in config.workloads.values():
        if workload.write_back is not None:
            rows = _Rows(job, workload, workload.write_back)
            _guarded(job, workload, f"{workload.name}: its rows", rows.deliver)
    follow(state, config)
    for workload in config.workloads.values():
        for event in workload.events:
            events = _Events(job, workload, event)
            _guarded(job, workload, f"{workload.name}: {label_of(event)}", events.deliver)
    job.problems += _nobodys(job)
    return job


def _guarded(job: Deliveries, workload: WorkloadConfig, doing: str, deliver: Callable[[], None]) -> None:
    """Make one workload's deliveries to one target; what nobody foresaw about them stops no others."""
    try:
        deliver()
    except Exception as error:
        if not unforeseen(error):
            raise
        job.bug(error, doing, workload=workload.name)


class Refusals(NamedTuple):
    """What becomes of deliveries that were refused: those given up, each with why, and those tried again, and when."""

    dead: list[tuple[int, str]]
    again: list[tuple[int, str, int]]


def after_refusals(refused: Sequence[tuple[Delivery, str]], now: int) -> Refusals:
    """Decide what becomes of deliveries that were refused once more, each with what was said."""
    dead = [(one.id, why) for one, why in refused if one.tries + 1 >= MOST_TRIES]
    again = [(one.id, why, now + _backoff(one.tries + 1)) for one, why in refused if one.tries + 1 < MOST_TRIES]
    return Refusals(dead, again)


class _Bugs:
    """What nobody foresaw about single deliveries of one workload to one target: each is tried again, like a refused one."""

    def __init__(self, job: Deliveries, workload: str, kind: outbox.Kind) -> None:
        self._job = job
        self._workload = workload
        self._kind = kind
        self._found: list[tuple[Delivery, Exception]] = []

    def note(self, one: Delivery, error: Exception) -> None:
        """Put a delivery off. Raises the error itself where too many have failed so: it is about all of them."""
        if len(self._found) >= _MOST_BUGS:
            raise error
        self._found.append((one, error))
        why = f"unexpected {type(error).__name__}: {error}"
        with self._job.state.transaction() as db:
            found = after_refusals([(one, why)], self._job.clock())
            outbox.dead(db, found.dead)
            outbox.put_off(db, found.again)

    def report(self) -> None:
        """Say what was found, the first of it in full."""
        if self._found:
            one, error = self._found[0]
            task = f"of task {one.task_id}" if one.task_id is not None else f"about batch {one.batch_id}"
            more = f" (and {len(self._found) - 1} more)" if len(self._found) > 1 else ""
            doing = f"{self._workload}: the {self._kind} {task}{more}"
            self._job.bug(error, doing, workload=self._workload, batch=one.batch_id or None)


def _nobodys(job: Deliveries) -> Iterator[Problem]:
    """Name what waits for a table or a receiver that is no longer in the configuration."""
    for left, text, hint in unowned(outbox.left(job.state.db), job.config.workloads):
        (job.rows if left.kind == "row" else job.events)["delayed"] += left.n
        yield Problem(ProblemKind.CONFIG, text, EX_CONFIG, hint, workload=left.workload, about=left.target)


_COUNTED = {"written": "written", "unchanged": "written"} | dict.fromkeys(("gone", "changed", "skipped"), "skipped")
_WORDS = {"written": "written", "unchanged": "written", "gone": "gone", "changed": "changed"}
"""What an event says of the row before it."""


def is_news(one: Delivery, outcome: str) -> bool:
    """Whether events tell what became of a row: they do, unless they told the same of it before it was due again."""
    return not one.again or _WORDS.get(outcome) != _WORDS.get(one.outcome or "")


class _Rows:
    """The rows of one workload."""

    def __init__(self, job: Deliveries, workload: WorkloadConfig, options: WriteBackConfig) -> None:
        self._job = job
        self._workload = workload
        self._database = f"database {options.database}"
        self._targets = [row_target(status) for status in written(workload)]
        self._plan = plan_of(job.config, workload.name)
        self._bugs = _Bugs(job, workload.name, "row")
        self._left: dict[str, list[str]] = {}

    def deliver(self) -> None:
        """Write all that is due, page by page; a database that is down delays all of it."""
        waiting = self._waiting
        if not waiting:
            return
        try:
            self._attempt(waiting)
        finally:
            self._job.rows["delayed"] += self._waiting
            self._report()

    def _attempt(self, waiting: int) -> None:
        """Write the rows, unless the database rests; where it can take nothing now, let it."""
        job = self._job
        if job.is_paused(self._database):
            self._delay(outbox.pause_of(job.state.db, self._database).why)
            return
        try:
            with write_back_of(self._workload, job.config) as table:
                self._write(table, waiting)
        except DatabaseDown as error:
            job.pause(self._database, f"{self._database}: {error.message}")
            self._delay(f"{self._database}: {error.message}")
        except ConfigError as error:
            job.fail(error, workload=self._workload.name)

    @property
    def _waiting(self) -> int:
        db = self._job.state.db
        return sum(outbox.waiting(db, self._workload.name, "row", target) for target in self._targets)

    def _delay(self, why: str) -> None:
        text = f"{self._workload.name}: {counted(self._waiting, 'row waits', 'rows wait')} for {why}"
        hint = "they are written once it is back"
        self._job.note(
            Problem(ProblemKind.DATABASE, text, EX_TEMPFAIL, hint, workload=self._workload.name, about=self._database)
        )

    def _write(self, table: "WriteBack", waiting: int) -> None:
        """Write all that is due, page by page, and forget that the database ever rested."""
        job = self._job
        with progress.going(f"{self._workload.name}: writing rows", waiting) as step:
            for target in self._targets:
                after = 0
                while page := job.due(self._workload.name, "row", target, after, ROWS):
                    after = page[-1].id
                    self._page(table, page)
                    step.add(len(page))
        with job.state.transaction() as db:
            outbox.resume(db, self._database)

    def _page(self, table: "WriteBack", page: Sequence[Delivery]) -> None:
        """Deliver a page: what was refused before apart from the rest, which would have to wait for it again."""
        with self._job.state.transaction() as db:
            outbox.done(db, [(one.id, "superseded") for one in page if one.overtaken])
        due = [one for one in page if not one.overtaken]
        self._deliver(table, [one for one in due if not one.tries])
        self._deliver(table, [one for one in due if one.tries], suspects=True)

    def _deliver(self, table: "WriteBack", due: Sequence[Delivery], suspects: bool = False) -> None:
        """Write rows in one piece; where that fails as nobody foresaw, in halves, until the row is found."""
        if not due:
            return
        rows = answers.of_tasks(self._job.state.db, [one.task_id for one in due if one.task_id is not None])
        due = [one for one in due if one.task_id in rows]  # what was forgotten meanwhile is not written
        try:
            documents = self._documents(table, [rows[one.task_id] for one in due if one.task_id is not None])
            outcomes = table.write(documents, self._job.clock(), suspects=suspects) if due else []
        except Exception as error:
            if not unforeseen(error):
                raise
            if len(due) == 1:
                self._bugs.note(due[0], error)
                return
            middle = len(due) // 2
            self._deliver(table, due[:middle], suspects)
            self._deliver(table, due[middle:], suspects)
            return
        self._settle(due, documents, outcomes)

    def _documents(self, table: "WriteBack", ordered: Sequence[answers.Row]) -> list[dict[str, Any]]:
        """Return the documents, as far as the expressions look at them, with their keys, and the ids of deliveries for a ledger."""
        made = self._job.documents
        found = made.of(ordered) if table.fields is None else made.parts(ordered, {"key", *table.fields})
        return [
            {**document, "delivery_id": outbox.uid(row.tag, row.task_id)}
            for row, document in zip(ordered, found, strict=True)
        ]

    def _settle(
        self, due: Sequence[Delivery], documents: Sequence[dict[str, Any]], outcomes: "Sequence[RowOutcome]"
    ) -> None:
        now = self._job.clock()
        pairs = list(zip(due, outcomes, strict=True))
        found = after_refusals(
            [(one, outcome.reason or "") for one, outcome in pairs if outcome.kind == "refused"], now
        )
        lost = [(one.id, outcome.reason or "") for one, outcome in pairs if outcome.kind == "failed"]
        made = [(one.id, outcome.kind) for one, outcome in pairs if outcome.kind in _COUNTED]
        final = {delivery for delivery, _ in (*made, *lost, *found.dead)}
        ended = [
            Ended(one.id, one.type, one.batch_id, _WORDS.get(outcome.kind), outcome.reason)
            for one, outcome in pairs
            if one.id in final and is_news(one, outcome.kind)
        ]
        with self._job.state.transaction() as db:
            outbox.done(db, made)
            outbox.dead(db, [*lost, *found.dead])
            outbox.put_off(db, found.again)
            outbox.after_rows(db, ended, self._plan)
        for (one, outcome), document in zip(pairs, documents, strict=True):
            self._count(
                "given up" if one.id in final and outcome.kind == "refused" else outcome.kind, outcome, document
            )

    def _count(self, kind: str, outcome: "RowOutcome", document: dict[str, Any]) -> None:
        counter = _COUNTED.get(kind, "failed" if kind in ("failed", "given up") else None)
        if counter is not None:  # else it waits
            self._job.rows[counter] += 1
        if kind in _NOTICES:
            reason = f": {outcome.reason}" if outcome.reason else ""
            key = msgspec.json.encode(document["key"]).decode()
            self._left.setdefault(kind, []).append(f"key {key}{reason}")

    def _report(self) -> None:
        name = self._workload.name
        for kind, keys in self._left.items():
            what, hint = _NOTICES[kind]
            text = f"{name}: {counted(len(keys), 'row was', 'rows were')} {what}, the first: {keys[0]}"
            self._job.note(Problem(ProblemKind.ROW, text, EX_PARTIAL, hint.format(shlex.quote(name)), workload=name))
        self._bugs.report()


_MENDED = "nura results {0} has the answers, and why (row_error); once that is mended: nura redeliver {0} --rows"
_NOTICES = {
    "gone": ("no longer there", "nothing is invented for a row that the application deleted"),
    "changed": ("changed since", "only_if left them as they are"),
    "failed": ("not written", _MENDED),
    "refused": ("refused", "tried again later, and less and less often, for about a day"),
    "given up": (f"given up after {MOST_TRIES} tries", _MENDED),
}
"""How outcomes that a person should know of are said, and what else there is to say."""


class _Events:
    """The events of one workload for one receiver."""

    def __init__(self, job: Deliveries, workload: WorkloadConfig, options: EventConfig) -> None:
        self._job = job
        self._workload = workload
        self._options = options
        self._target = target_of(options)
        self._label = label_of(options)
        self._bugs = _Bugs(job, workload.name, "event")
        self._refused = 0
        self._last_error = ""

    def deliver(self) -> None:
        """Send all that is due, call by call; a receiver that can take nothing now delays all of it."""
        job = self._job
        waiting = self._waiting
        if not waiting:
            return
        if job.is_paused(self._target):
            self._later(outbox.pause_of(job.state.db, self._target).why)
            return
        try:
            receiver = self._receiver
        except NuraError as error:
            job.events["delayed"] += self._waiting
            job.fail(error, workload=self._workload.name)
            return
        try:
            with progress.going(f"{self._workload.name}: sending events", waiting) as step:
                self._send(receiver, step)
        finally:
            self._bugs.report()
            receiver.close()

    @property
    def _waiting(self) -> int:
        return outbox.waiting(self._job.state.db, self._workload.name, "event", self._target)

    @cached_property
    def _receiver(self) -> "Receiver":
        from nura_cli.delivery.events import Command, Webhook

        options = self._options
        if options.webhook is not None:
            return Webhook(options.webhook, options.secret(), options.timeout)
        folder = self._job.config.path.parent
        call = self._job.state.calls / hashlib.sha256(self._target.encode()).hexdigest()[:20]
        return Command(options.command or [], options.env, options.timeout, folder, call)

    def _send(self, receiver: "Receiver", step: progress.Step) -> None:
        """Send call after call until nothing is due, the receiver can take no more now, or refuses everything."""
        job, after, in_a_row = self._job, 0, 0
        while in_a_row < _GIVE_UP_CALLS:
            page = call_of(job.due(self._workload.name, "event", self._target, after, receiver.most), receiver.most)
            if not page:
                break
            after = page[-1].id
            due, bodies = self._made([delivery for delivery in page if not delivery.overtaken])
            outcomes = receiver.send(bodies) if bodies else []
            self._settle(page, due, outcomes)
            step.add(len(page))
            later = next((outcome for outcome in outcomes if outcome.kind == "later"), None)
            if later is not None:
                job.pause(self._target, f"{self._label}: {later.message}", later.retry_after)
                self._later(f"{self._label}: {later.message}")
                return
            in_a_row = in_a_row + 1 if due and all(outcome.kind == "refused" for outcome in outcomes) else 0
        self._again()

    def _made(self, due: Sequence[Delivery]) -> "tuple[Sequence[Delivery], list[Event]]":
        """Return what can be sent, and its events; where that fails as nobody foresaw, without those it fails for."""
        rows = answers.of_tasks(self._job.state.db, [one.task_id for one in due if one.task_id is not None])
        due = [
            one for one in due if one.task_id is None or one.task_id in rows
        ]  # what was forgotten meanwhile is not told
        try:
            return due, self._bodies(due, rows)
        except Exception as error:
            if not unforeseen(error):
                raise
            if len(due) == 1:
                self._bugs.note(due[0], error)
                return [], []
        made = [self._made([one]) for one in due]
        return [one for part, _ in made for one in part], [event for _, part in made for event in part]

    def _bodies(self, due: Sequence[Delivery], rows: dict[int, answers.Row]) -> "list[Event]":
        """Return the events to send: the document of each task, the figures of each batch, under ids that stay."""
        from nura_cli.delivery.events import Event

        job = self._job
        documents = dict(zip(rows, job.documents.of(list(rows.values())), strict=True))
        events = []
        for one in due:
            tag, data, at = self._about(one, rows, documents)
            name = event_id(one, tag)
            body: contract.EventTold = {"type": one.type, "timestamp": stamp(at), "data": data}
            if self._options.command is not None:
                body = {"id": name, **body}
            events.append(Event(name, msgspec.json.encode(body)))
        return events

    def _about(
        self, one: Delivery, rows: dict[int, answers.Row], documents: dict[int, contract.Answer]
    ) -> tuple[str, contract.TaskTold | contract.BatchTold, int]:
        """Return the tag of the batch an event comes from, what it tells, and when that happened (unix seconds)."""
        if one.task_id is not None:
            row, document = rows[one.task_id], documents[one.task_id]
            return row.tag or "", task_data(one, document, self._options.answers), row.finished_at
        batch = batches.get(self._job.state.db, one.batch_id)
        if batch is None:
            raise LookupError(f"the state file lacks batch {one.batch_id}, which an event is about")
        return batch.tag, batch_data(one, batch), batch.final_at or one.created_at

    def _settle(self, page: Sequence[Delivery], due: Sequence[Delivery], outcomes: "Sequence[Outcome]") -> None:
        job = self._job
        now = job.clock()
        pairs = list(zip(due, outcomes, strict=True))
        sent = [(one.id, "sent") for one, outcome in pairs if outcome.kind == "sent"]
        refused = [(one, outcome.message) for one, outcome in pairs if outcome.kind == "refused"]
        found = after_refusals(refused, now)
        with job.state.transaction() as db:
            outbox.done(db, [*sent, *((one.id, "superseded") for one in page if one.overtaken)])
            outbox.dead(db, found.dead)
            outbox.put_off(db, found.again)
            if sent:
                outbox.resume(db, self._target)
        job.events["sent"] += len(sent)
        job.events["dead"] += len(found.dead)
        self._refused += len(refused)
        self._last_error = refused[-1][1] if refused else self._last_error
        if found.dead:
            text = (
                f"{self._workload.name}: {counted(len(found.dead), 'event was', 'events were')} given up after {MOST_TRIES} tries:"
                f" {self._label}: {self._last_error}"
            )
            hint = f"once it takes them: nura redeliver {shlex.quote(self._workload.name)} --events"
            job.note(Problem(ProblemKind.EVENT, text, EX_PARTIAL, hint, workload=self._workload.name))

    def _later(self, why: str) -> None:
        n = self._waiting
        self._job.events["delayed"] += n
        text = f"{self._workload.name}: {counted(n, 'event waits', 'events wait')} for {why}"
        self._job.note(
            Problem(ProblemKind.RECEIVER, text, EX_TEMPFAIL, workload=self._workload.name, about=self._target)
        )

    def _again(self) -> None:
        """Say that events were refused, and how many wait for another try."""
        n = self._waiting
        self._job.events["delayed"] += n
        if self._refused and n:
            text = (
                f"{self._workload.name}: {self._label} refused {counted(self._refused, 'event')}, {n:,} will be tried again:"
                f" {self._last_error}"
            )
            about = f"{self._target}: refuses"
            self._job.note(Problem(ProblemKind.RECEIVER, text, EX_PARTIAL, workload=self._workload.name, about=about))


def call_of(due: Sequence[Delivery], most: int) -> Sequence[Delivery]:
    """Return which of the due events one call takes: those as often refused as the first, ever fewer of them.

    A call that is refused as a whole does not say which event is to blame; halved each time, it is found in the end, and
    the others get through.
    """
    alike = next((n for n, one in enumerate(due) if one.tries != due[0].tries), len(due))
    return due[: min(alike, max(1, most >> due[0].tries))] if due else due


def _backoff(tries: int) -> int:
    return backoff.backoff(_FIRST_TRY_AGAIN, tries, LONGEST_BACKOFF, backoff.jitter())


def event_id(one: Delivery, tag: str) -> str:
    """Return the id of an event, the same however often it is sent; what is told anew of a task has another.

    Args:
        tag: of the batch that it comes from.
    """
    task = "" if one.task_id is None else f"-{one.task_id}"
    return f"evt_{tag}{task}" + (f"-{one.again}" if one.again else "")


def task_data(one: Delivery, document: contract.Answer, with_answer: bool) -> contract.TaskTold:
    """Return what an event tells of a task; the answer travels only where it was asked for."""
    data: contract.TaskTold = {
        "workload": document["workload"],
        "key": document["key"],
        "status": document["status"],
        "batch_id": document["batch_id"],
        "record": document["record"],
        "row": one.row,
        "row_error": one.row_error,
        "error": document["error"],
    }
    return {**data, "text": document["text"], "json": document["json"]} if with_answer else data


def batch_data(one: Delivery, batch: batches.Batch) -> contract.BatchTold:
    """Return what an event tells of a batch."""
    failed = one.type == EventType.BATCH_FAILED
    return {
        "workload": batch.workload,
        "key": None,
        "status": "failed" if failed else "completed",
        "batch_id": batch.id,
        "record": None,
        "row": None,
        "error": {"kind": "batch", "code": None, "http_status": None, "message": batch.reason} if failed else None,
        "requests": batch.requests,
        "completed": batch.completed,
        "failed": batch.failed,
    }
