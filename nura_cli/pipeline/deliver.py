"""Delivery, the last part of nura reconcile: answers into the application's rows, then events to its receivers.

Takes what the outbox holds; leaves each delivery done, dead (refused for good), or waiting for another try. A row is
written at least once and idempotently; a task's events go out after its row, in order for one task, at least once, under
an id that stays the same. A superseded task is never delivered.

What can go wrong: a database or a receiver that can take nothing now rests as a whole, with a growing pause, and nothing
else waits for it; one delivery that is refused is tried again later, and given up after a day or so (a dead letter), so
that the next ones get through.
"""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from nura_cli.clock import Clock, rfc3339
from nura_cli.config import Config, DatabaseConfig, EventConfig, WorkloadConfig, WriteBackConfig
from nura_cli.errors import EX_CONFIG, EX_PARTIAL, EX_TEMPFAIL, ConfigError, DatabaseDown, NuraError
from nura_cli.pipeline import retry
from nura_cli.pipeline.report import Trouble, count, trouble
from nura_cli.pipeline.results import Documents
from nura_cli.state import State, answers, batches, outbox
from nura_cli.state.outbox import Delivery, Plan

if TYPE_CHECKING:
    from nura_cli.delivery.events import Event, Outcome, Receiver
    from nura_cli.delivery.write_back import RowOutcome, WriteBack

ROWS = 1000
"""Answers written in one transaction of the application's database, at most."""
BYTES = 16 * 1024 * 1024
"""Records and answers of one page of deliveries, at most; one larger one alone is a page."""
MOST_TRIES = 12
"""After so many refusals, over about a day, an event is a dead letter."""
_FIRST_TRY_AGAIN = 60
_GIVE_UP_CALLS = 3
"""Calls in a row in which a receiver refused everything: the rest waits for the next run."""


def plan_of(config: Config, workload: str) -> Plan:
    """Return what the answers of a workload set off; nothing, where it left the configuration."""
    options = config.workloads.get(workload)
    if options is None:
        return Plan()
    written = options.write_back
    rows = {"completed": written.set_, "failed": written.set_failed} if written else {}
    events: dict[str, tuple[str, ...]] = {}
    for event in options.events:
        for kind in event.types:
            events[kind] = (*events.get(kind, ()), target_of(event))
    return Plan(frozenset(status for status, columns in rows.items() if columns), events)


def target_of(event: EventConfig) -> str:
    """Return what stands for a receiver in the state file: a hash, since an address may hold a secret."""
    named = json.dumps([event.command, event.webhook])
    return hashlib.sha256(named.encode()).hexdigest()[:16]


def label_of(event: EventConfig) -> str:
    """Return a receiver's name for messages: its program, or its address's host."""
    if event.webhook is not None:
        return f"webhook {'/'.join(event.webhook.split('?')[0].split('/')[:3])}"
    return f"command {(event.command or ['?'])[0]}"


def write_back_of(workload: WorkloadConfig, config: Config) -> "WriteBack":
    """Return the table a workload's answers go to; nothing is opened yet. Raises ConfigError: its URL is not to be had."""
    from nura_cli.delivery.write_back import WriteBack

    options = workload.write_back
    if options is None:
        raise ConfigError(f"workload {workload.name} has no write_back", workload=workload.name)
    return WriteBack(
        config.databases[options.database].secret(),
        table=options.table,
        where=options.where,
        set_=options.set_,
        only_if=options.only_if,
        set_failed=options.set_failed,
        nullable=options.nullable,
        ledger=options.ledger,
        path=f"workloads.{workload.name}.write_back",
    )


def checked(state: State, workload: WorkloadConfig, config: Config) -> None:
    """See that a workload's answers will have somewhere to go, before anything is sent and paid for.

    A database that cannot be asked now holds nothing up where these very options were found right before.

    Raises:
        ConfigError: database, table, columns or expressions are wrong; with every problem, each at its option.
        DatabaseDown: it cannot be asked now, and never was.
    """
    options = workload.write_back
    if options is None:
        return
    name, digest = f"write_back:{workload.name}", _digest(options, config.databases[options.database])
    try:
        with write_back_of(workload, config) as table:
            table.check()
    except DatabaseDown as error:
        if outbox.known_good(state.db, name) == digest:
            return
        raise DatabaseDown(
            error.message, hint="nothing is sent before the table could be looked at once", workload=workload.name
        ) from error
    if outbox.known_good(state.db, name) != digest:
        with state.transaction() as db:
            outbox.remember_good(db, name, digest)


def _digest(options: WriteBackConfig, database: DatabaseConfig) -> str:
    """Return a hash of what was checked; the URL is part of it only where it stands, without a secret, in the file."""
    return hashlib.sha256((options.model_dump_json() + database.model_dump_json()).encode()).hexdigest()


@dataclass(slots=True)
class Deliveries:
    """One run: what it works with, and what it counted."""

    state: State
    config: Config
    clock: Clock
    documents: Documents
    rows: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    troubles: list[Trouble] = field(default_factory=list)

    def due(self, workload: str, kind: outbox.Kind, target: str, after: int, limit: int) -> list[Delivery]:
        """Return the next deliveries that are due, as many as one page takes."""
        now = self.clock()
        found = outbox.due(
            self.state.db,
            workload,
            kind,
            target,
            now=now,
            horizon=now + retry.LONGEST_BACKOFF,
            after=after,
            limit=limit,
        )
        size = 0
        for n, delivery in enumerate(found):
            size += delivery.bytes
            if size > BYTES and n:
                return found[:n]
        return found

    def rests(self, target: str) -> bool:
        """Whether a target is left alone for now."""
        return bool(retry.until(outbox.rest(self.state.db, target).paused_until, self.clock()))

    def pause(self, target: str, why: str, retry_after: int | None = None) -> None:
        """Leave a target alone for a while."""
        with self.state.transaction() as db:
            rest = retry.after_outage(
                outbox.rest(db, target),
                why,
                retry_after,
                self.clock(),
                random.random(),  # noqa: S311 - jitter
            )
            outbox.pause(db, rest)


def run(state: State, config: Config, clock: Clock) -> Deliveries:
    """Deliver what is due: all rows first, then the events.

    Returns:
        What was counted: ``rows`` written, skipped, delayed and failed; ``events`` sent, delayed and dead.
    """
    job = Deliveries(state, config, clock, Documents(state, config))
    for workload in config.workloads.values():
        if workload.write_back is not None:
            _Rows(job, workload, workload.write_back).deliver()
    for workload in config.workloads.values():
        for event in workload.events:
            _Events(job, workload, event).deliver()
    job.troubles += _nobodys(job)
    return job


def _nobodys(job: Deliveries) -> Iterator[Trouble]:
    """Find what waits for a table or a receiver that is no longer in the configuration, or has another address there."""
    workloads = job.config.workloads.items()
    known = {(name, "row", "") for name, workload in workloads if workload.write_back is not None}
    known |= {(name, "event", target_of(event)) for name, workload in workloads for event in workload.events}
    for left in outbox.left(job.state.db):
        if left.status == "pending" and (left.workload, left.kind, left.target) not in known:
            counter, whom = (job.rows, "table") if left.kind == "row" else (job.events, "receiver")
            counter["delayed"] += left.n
            what = count(left.n, f"{left.kind} waits", f"{left.kind}s wait")
            text = f"{left.workload}: {what} for a {whom} that is no longer in the configuration"
            hint = "put it back until they are delivered"
            yield Trouble("config", text, EX_CONFIG, hint, workload=left.workload, about=left.target)


_COUNTED = {"written": "written", "unchanged": "written", "failed": "failed"} | dict.fromkeys(
    ("gone", "changed", "skipped"), "skipped"
)
_WORDS = {"written": "written", "unchanged": "written", "gone": "gone", "changed": "changed"} | dict.fromkeys(
    ("failed", "skipped")
)


class _Rows:
    """The rows of one workload."""

    def __init__(self, job: Deliveries, workload: WorkloadConfig, options: WriteBackConfig) -> None:
        self._job = job
        self._workload = workload
        self._target = f"database {options.database}"
        self._plan = plan_of(job.config, workload.name)
        self._left: dict[str, list[str]] = {}

    def deliver(self) -> None:
        """Write all that is due, page by page; a database that is down delays all of it."""
        job = self._job
        if not outbox.waiting(job.state.db, self._workload.name, "row", ""):
            return
        if job.rests(self._target):
            self._delay(outbox.rest(job.state.db, self._target).why)
            return
        try:
            with write_back_of(self._workload, job.config) as table:
                self._write(table)
        except DatabaseDown as error:
            job.pause(self._target, f"{self._target}: {error.message}")
            self._delay(f"{self._target}: {error.message}")
        except ConfigError as error:
            job.rows["delayed"] += outbox.waiting(job.state.db, self._workload.name, "row", "")
            job.troubles.append(trouble(error, workload=self._workload.name))
        self._report()

    def _delay(self, why: str) -> None:
        job = self._job
        n = outbox.waiting(job.state.db, self._workload.name, "row", "")
        job.rows["delayed"] += n
        text = f"{self._workload.name}: {count(n, 'row waits', 'rows wait')} for {why}"
        hint = "they are written once it is back"
        job.troubles.append(
            Trouble("database", text, EX_TEMPFAIL, hint, workload=self._workload.name, about=self._target)
        )

    def _write(self, table: "WriteBack") -> None:
        job, after = self._job, 0
        while page := job.due(self._workload.name, "row", "", after, ROWS):
            after = page[-1].id
            due = [delivery for delivery in page if not delivery.overtaken]
            documents = self._documents(due)
            outcomes = table.write(documents, job.clock()) if documents else []
            with job.state.transaction() as db:
                outbox.done(db, [(one.id, "superseded") for one in page if one.overtaken], job.clock())
                self._settle(db, due, outcomes)
            for document, outcome in zip(documents, outcomes, strict=True):
                self._count(outcome, document)
        with job.state.transaction() as db:
            outbox.resume(db, self._target)

    def _documents(self, due: Sequence[Delivery]) -> list[dict[str, Any]]:
        """Return the documents that the expressions look at, each with the id of its delivery for a ledger."""
        rows = answers.of_tasks(self._job.state.db, [one.task_id for one in due if one.task_id is not None])
        ordered = [rows[one.task_id] for one in due if one.task_id is not None]
        return [
            document | {"delivery_id": f"{row.tag}-{row.task_id}"}
            for row, document in zip(ordered, self._job.documents.of(ordered), strict=True)
        ]

    def _settle(self, db: Any, due: Sequence[Delivery], outcomes: "Sequence[RowOutcome]") -> None:
        now = self._job.clock()
        pairs = list(zip(due, outcomes, strict=True))
        outbox.done(db, [(one.id, outcome.kind) for one, outcome in pairs if outcome.kind != "failed"], now)
        outbox.dead(db, [(one.id, outcome.reason or "") for one, outcome in pairs if outcome.kind == "failed"], now)
        outbox.after_rows(db, [(one, _WORDS[outcome.kind], outcome.reason) for one, outcome in pairs], self._plan, now)

    def _count(self, outcome: "RowOutcome", document: dict[str, Any]) -> None:
        self._job.rows[_COUNTED[outcome.kind]] += 1
        if outcome.kind in ("gone", "changed", "failed"):
            reason = f": {outcome.reason}" if outcome.reason else ""
            self._left.setdefault(outcome.kind, []).append(
                f"key {msgspec.json.encode(document['key']).decode()}{reason}"
            )

    def _report(self) -> None:
        words = {
            "gone": ("no longer there", "nothing is invented for a row that the application deleted"),
            "changed": ("changed since", "only_if left them as they are"),
            "failed": ("not written", f"the answers are kept: nura results {self._workload.name}"),
        }
        for kind, keys in self._left.items():
            what, hint = words[kind]
            text = f"{self._workload.name}: {count(len(keys), 'row was', 'rows were')} {what}, the first: {keys[0]}"
            self._job.troubles.append(Trouble("row", text, EX_PARTIAL, hint, workload=self._workload.name))


class _Events:
    """The events of one workload for one receiver."""

    def __init__(self, job: Deliveries, workload: WorkloadConfig, options: EventConfig) -> None:
        self._job = job
        self._workload = workload
        self._options = options
        self._target = target_of(options)
        self._label = label_of(options)
        self._refused = 0
        self._said = ""

    def deliver(self) -> None:
        """Send all that is due, call by call; a receiver that can take nothing now delays all of it."""
        job = self._job
        if not self._waiting:
            return
        if job.rests(self._target):
            self._later(outbox.rest(job.state.db, self._target).why)
            return
        try:
            receiver = self._receiver
        except NuraError as error:
            job.events["delayed"] += self._waiting
            job.troubles.append(trouble(error, workload=self._workload.name))
            return
        try:
            self._send(receiver)
        finally:
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
        return Command(options.command or [], options.env, options.timeout, folder)

    def _send(self, receiver: "Receiver") -> None:
        job, after, in_a_row = self._job, 0, 0
        while in_a_row < _GIVE_UP_CALLS:
            page = call_of(job.due(self._workload.name, "event", self._target, after, receiver.most), receiver.most)
            if not page:
                break
            after = page[-1].id
            due = [delivery for delivery in page if not delivery.overtaken]
            outcomes = receiver.send(self._bodies(due)) if due else []
            self._settle(page, due, outcomes)
            later = next((outcome for outcome in outcomes if outcome.kind == "later"), None)
            if later is not None:
                job.pause(self._target, f"{self._label}: {later.message}", later.retry_after)
                self._later(f"{self._label}: {later.message}")
                return
            in_a_row = in_a_row + 1 if due and all(outcome.kind == "refused" for outcome in outcomes) else 0
        self._again()

    def _bodies(self, due: Sequence[Delivery]) -> "list[Event]":
        from nura_cli.delivery.events import Event

        job = self._job
        rows = answers.of_tasks(job.state.db, [one.task_id for one in due if one.task_id is not None])
        documents = dict(zip(rows, job.documents.of(list(rows.values())), strict=True))
        events = []
        for one in due:
            tag, data, at = self._about(one, rows, documents)
            name = f"evt_{tag}" if one.task_id is None else f"evt_{tag}-{one.task_id}"
            body = {"type": one.type, "timestamp": rfc3339(at), "data": data}
            if self._options.command is not None:
                body = {"id": name, **body}
            events.append(Event(name, msgspec.json.encode(body)))
        return events

    def _about(
        self, one: Delivery, rows: dict[int, answers.Row], documents: dict[int, dict[str, Any]]
    ) -> tuple[str, dict[str, Any], int]:
        """Return the tag of the batch an event comes from, what it tells, and when that happened (unix seconds)."""
        if one.task_id is not None:
            row, document = rows[one.task_id], documents[one.task_id]
            return row.tag or "", task_data(one, document, self._options.answers), row.finished_at
        batch = batches.get(self._job.state.db, one.batch_id)
        if batch is None:
            raise NuraError(f"the state file lacks batch {one.batch_id}, which an event is about")
        return batch.tag, batch_data(one, batch), batch.final_at or one.created_at

    def _settle(self, page: Sequence[Delivery], due: Sequence[Delivery], outcomes: "Sequence[Outcome]") -> None:
        job = self._job
        now = job.clock()
        sent = [(one.id, "sent") for one, outcome in zip(due, outcomes, strict=True) if outcome.kind == "sent"]
        refused = [(one, outcome) for one, outcome in zip(due, outcomes, strict=True) if outcome.kind == "refused"]
        dead = [(one.id, outcome.message) for one, outcome in refused if one.tries + 1 >= MOST_TRIES]
        again = [
            (one.id, outcome.message, now + _backoff(one.tries + 1))
            for one, outcome in refused
            if one.tries + 1 < MOST_TRIES
        ]
        with job.state.transaction() as db:
            outbox.done(db, [*sent, *((one.id, "superseded") for one in page if one.overtaken)], now)
            outbox.dead(db, dead, now)
            outbox.put_off(db, again)
            if sent:
                outbox.resume(db, self._target)
        job.events["sent"] += len(sent)
        job.events["dead"] += len(dead)
        self._refused += len(refused)
        self._said = refused[-1][1].message if refused else self._said
        if dead:
            text = (
                f"{self._workload.name}: {count(len(dead), 'event was', 'events were')} given up after {MOST_TRIES} tries:"
                f" {self._label}: {self._said}"
            )
            job.troubles.append(Trouble("event", text, EX_PARTIAL, "see nura status", workload=self._workload.name))

    def _later(self, why: str) -> None:
        n = self._waiting
        self._job.events["delayed"] += n
        text = f"{self._workload.name}: {count(n, 'event waits', 'events wait')} for {why}"
        self._job.troubles.append(
            Trouble("receiver", text, EX_TEMPFAIL, workload=self._workload.name, about=self._target)
        )

    def _again(self) -> None:
        """Say that events were refused, and how many wait for another try."""
        n = self._waiting
        self._job.events["delayed"] += n
        if self._refused and n:
            text = (
                f"{self._workload.name}: {self._label} refused {count(self._refused, 'event')}, {n:,} will be tried again:"
                f" {self._said}"
            )
            self._job.troubles.append(
                Trouble("receiver", text, EX_PARTIAL, workload=self._workload.name, about=self._target)
            )


def call_of(due: Sequence[Delivery], most: int) -> Sequence[Delivery]:
    """Return which of the due events one call takes: those as often refused as the first, ever fewer of them.

    A call that is refused as a whole does not say which event is to blame; halved each time, it is found in the end, and
    the others get through.
    """
    alike = next((n for n, one in enumerate(due) if one.tries != due[0].tries), len(due))
    return due[: min(alike, max(1, most >> due[0].tries))] if due else due


def _backoff(tries: int) -> int:
    return retry.backoff(_FIRST_TRY_AGAIN, tries, retry.LONGEST_BACKOFF, random.random())  # noqa: S311 - jitter


def task_data(one: Delivery, document: dict[str, Any], with_answer: bool) -> dict[str, Any]:
    """Return what an event tells of a task; the answer travels only where it was asked for."""
    data = {
        "workload": document["workload"],
        "key": document["key"],
        "status": document["status"],
        "batch_id": document["batch_id"],
        "record": document["record"],
        "row": one.row,
        "row_error": one.row_error,
        "error": document["error"],
    }
    return data | {"text": document["text"], "json": document["json"]} if with_answer else data


def batch_data(one: Delivery, batch: batches.Batch) -> dict[str, Any]:
    """Return what an event tells of a batch."""
    failed = one.type == "batch.failed"
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
