"""What programs read of nura: the lines of results, each command's ``--json``, events, each field with what it means.

A document is built as one of these types, so that no field can be there that is not described here; the reference that ships
with nura (``nura help fields``, ``json``, ``events``) is written from them. Fields are only ever added: what is here is never
renamed, and keeps its meaning.

The first text of an ``Annotated`` field is its description; an enumeration behind it is the closed list of its words.
"""

from collections.abc import Collection, Iterator, Mapping
from enum import EnumType
from types import UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NotRequired,
    Required,
    TypedDict,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from nura_cli.errors import ProblemKind
from nura_cli.states import BatchStatus, ErrorKind, EventType, Excuse, NeedKind, TaskStatus, Why


class Form(NamedTuple):
    """What a text is a text of, in words."""

    words: str


Time = Annotated[str, Form("time (RFC 3339, UTC)")]
Dollars = Annotated[str, Form("US dollars (decimal string)")]
KeyOf = Annotated[Any, Form("text, whole number, or a list of them")]
Skipped = Literal["locked"]
Anything = Annotated[Any, Form("any JSON")]


class Tokens(TypedDict):
    """Tokens, of every billed attempt."""

    input_tokens: Annotated[int, "tokens of the requests, the cached ones included"]
    cached_input_tokens: Annotated[int, "those of them that the provider had cached"]
    output_tokens: Annotated[int, "tokens of the responses"]


class Cost(TypedDict):
    """What it cost, and what it would have cost without batches."""

    currency: Annotated[Literal["USD"], "of the three amounts"]
    paid: Annotated[Dollars, "at batch prices, as far as prices are known"]
    list: Annotated[Dollars, "what the same would have cost synchronously"]
    saved: Annotated[Dollars, "the difference"]
    unpriced_tasks: Annotated[int, "tasks whose cost is not known, and is in none of these amounts"]


class Error(TypedDict):
    """One thing that went wrong: an entry of ``errors``."""

    kind: Annotated[str, "what kind of problem it is", ProblemKind]
    provider: Annotated[str | None, "the provider it is about"]
    workload: Annotated[str | None, "the workload it is about"]
    batch_id: Annotated[int | None, "the batch it is about"]
    message: Annotated[str, "what happened, for a person; never a secret"]
    hint: Annotated[str | None, "the next step to take"]


class Failure(TypedDict):
    """Why a task has no answer."""

    kind: Annotated[str, "why, in one word", ErrorKind]
    code: Annotated[str | None, "the provider's code, or the `finish_reason` of an answer that was not taken"]
    http_status: Annotated[int | None, "the status that the provider gave for this request"]
    message: Annotated[str | None, "the provider's words, or what is wrong with the answer"]


class Answer(TypedDict):
    """One answer, as expressions of write-back see it: the fields of a line of ``nura results`` that say nothing of the row."""

    seq: Annotated[int, "grows with each settling: a reader goes on with `--after SEQ` where it stopped"]
    workload: Annotated[str, "the workload it belongs to"]
    key: Annotated[KeyOf, "the record's key, with the type it had there; of a ready line its `custom_id`"]
    status: Annotated[str, "`completed`, `failed` or `cancelled`: how the task ended"]
    text: Annotated[str | None, "the answer; null without one, and for embeddings"]
    json: Annotated[
        Anything, "the answer as a document, where the workload has a `schema`; an embedding's vector; else null"
    ]
    response: Annotated[Anything, "the vendor's whole response body, as it came; null without one"]
    finish_reason: Annotated[str | None, "the vendor's word for why the answer ended"]
    usage: Annotated[Tokens, "tokens of all billed attempts of this task"]
    cost: Annotated[Dollars | None, "of all billed attempts; null where it is not known"]
    error: Annotated[Failure | None, "why there is no answer; null for a completed task"]
    model: Annotated[str | None, "the model that answered, as the vendor names it; else the one that was asked"]
    provider: Annotated[str | None, "the provider, by its name in the configuration"]
    batch_id: Annotated[int | None, "the batch that settled it; null where none did"]
    revision: Annotated[str | None, "hash of what it was rendered with: model, system, prompt, params, schema"]
    attempts: Annotated[int, "attempts that counted, this one included"]
    record: Annotated[dict[str, Any], "the fields of the record under `keep`"]
    enqueued_at: Annotated[Time, "when its record was enqueued"]
    finished_at: Annotated[Time, "when it was settled"]


class Result(Answer):
    """One answer: the fields of a line of ``nura results``."""

    row: Annotated[
        Literal["waiting", "failed"] | None,
        "`waiting`: still to be written into its row; `failed`: that was given up; null where it is written, or there is no row",
    ]
    row_error: Annotated[str | None, "why its row was refused last"]


Basis = Literal["learned", "max_tokens", "floor"]


class Batch(TypedDict):
    """A batch, in the one shape that every command gives it."""

    id: Annotated[int, "its number here"]
    workload: Annotated[str, "the workload whose tasks it holds"]
    provider: Annotated[str, "where it was sent, by the name in the configuration"]
    endpoint: Annotated[str, "the vendor's path"]
    model: Annotated[str | None, "its one model; null where ready lines name their own"]
    revision: Annotated[str, "hash of what it was rendered with"]
    status: Annotated[str, "its state here", BatchStatus]
    remote_id: Annotated[str | None, "its id at the provider"]
    remote_status: Annotated[str | None, "the provider's own word for its state"]
    requests: Annotated[int, "requests in it"]
    bytes: Annotated[int, "size of its request file, in bytes"]
    basis: Annotated[
        Basis | None,
        "what its estimate went by: answers of its revision, the most output that it allows, or its input alone; null for one of an earlier release",
    ]
    estimated_cost: Annotated[
        Dollars | None, "what it was expected to cost when it was sent; null where that is not known"
    ]
    completed: Annotated[int | None, "requests that the provider counts as answered"]
    failed: Annotated[int | None, "requests that the provider counts as failed"]
    created_at: Annotated[Time, "when its tasks were claimed"]
    submitted_at: Annotated[Time | None, "when the provider took it"]
    expires_at: Annotated[Time | None, "when its time at the provider is over"]
    ended_at: Annotated[Time | None, "when the provider ended it"]


class BatchWithMessage(Batch):
    """A batch, and what becomes of it."""

    message: Annotated[str, "what becomes of it, for a person"]


# --- enqueue


class EnqueuedCounts(TypedDict):
    """What became of records: how many of each."""

    enqueued: Annotated[int, "new tasks"]
    duplicates: Annotated[int, "records that are there already, with the same content"]
    conflicts: Annotated[int, "keys that are there with other content; not taken"]
    replaced: Annotated[int, "keys that got other content, by `--replace`"]
    rejected: Annotated[int, "lines that are no record, or lack what the prompt or the row needs; not taken"]


class EnqueuedRecords(EnqueuedCounts):
    """What became of the records of one workload."""

    duplicates_failed: Annotated[int, "duplicates of tasks that failed"]
    duplicates_cancelled: Annotated[int, "duplicates of tasks that are cancelled, and wait for a decision"]
    duplicates_purged: Annotated[
        int, "of `duplicates`: keys that were forgotten, or are to be, and are not sent again by accident"
    ]
    enqueued_again: Annotated[int, "of `enqueued`: keys that had been cancelled"]
    hint: Annotated[str | None, "what would have duplicates without an answer tried again"]


class Enqueued(EnqueuedRecords):
    """What :func:`nura_cli.enqueue` returns: the counts of ``nura enqueue --json``, and why some were not taken."""

    errors: Annotated[list[Error], "why records were not taken; the first 20"]


class Nothing(TypedDict):
    """No field at all."""


class EnqueuedSources(EnqueuedCounts):
    """What became of the records of every source: the sums, and each workload's own."""

    workloads: Annotated[dict[str, EnqueuedRecords | Nothing], "by workload; nothing of one whose source failed"]


class Requests(TypedDict):
    """The requests that lines would become."""

    requests: Annotated[list[Anything], "each as it would stand in the vendor's file"]


# --- dispatch


class NotDue(TypedDict):
    """How many tasks wait, and for what."""

    threshold: Annotated[int, "for more tasks, or more age"]
    backoff: Annotated[int, "for the time of their next attempt, or the end of an outage"]
    paused: Annotated[int, "for the end of a pause of their route"]
    quota: Annotated[int, "for room in the provider's queue"]
    too_large: Annotated[
        int, "for a larger queue or budget: they were passed over, and are looked at again some hours later"
    ]
    budget: Annotated[int, "for the next day or month of a budget, or for what is under way to cost less than it may"]
    canary: Annotated[int, "for the first answers of their revision"]
    changed: Annotated[int, "for the next run: the configuration changed during this one"]
    held: Annotated[int, "for a person, who releases their workload or provider"]


class Wait(TypedDict):
    """Tasks of a workload that wait, and why."""

    workload: Annotated[str, "whose they are"]
    provider: Annotated[str, "where they are to go"]
    model: Annotated[str | None, "the model of the queue they wait in; null where all of the workload's wait"]
    tasks: Annotated[int, "how many"]
    why: Annotated[str, "why, in one word", Why]
    until: Annotated[Time | None, "when it ends by itself"]
    message: Annotated[str, "why, for a person"]


class Waiting(TypedDict):
    """How things stand after dispatch."""

    requests: Annotated[int, "requests in these batches; of those that were refused at once, none"]
    not_due: Annotated[NotDue, "what waits, by reason"]
    waits: Annotated[list[Wait], "what waits, one by one"]
    unconfirmed: Annotated[int, "batches whose create is not confirmed"]


class Dispatched(Waiting):
    """What dispatch did."""

    batches: Annotated[list[Batch], "the batches that were sent"]


class PlannedBatch(TypedDict):
    """A batch that dispatch would send now."""

    workload: Annotated[str, "whose tasks it would hold"]
    provider: Annotated[str, "where it would go"]
    endpoint: Annotated[str, "the vendor's path"]
    model: Annotated[str | None, "its one model; null where ready lines name their own"]
    revision: Annotated[str, "hash of what it would be rendered with"]
    due: Annotated[bool, "always true"]
    requests: Annotated[int, "requests in it"]
    bytes: Annotated[int, "size of its request file, in bytes"]
    basis: Annotated[Basis, "what the estimate goes by"]
    estimated_tokens: Annotated[int, "about how many tokens its requests have"]
    estimated_output_tokens: Annotated[int, "about how many its answers have; 0 where nothing limits them (floor)"]
    estimated_cost: Annotated[Dollars | None, "about what it costs; null where no price is known"]


class Planned(Waiting):
    """What dispatch would do."""

    batches: Annotated[list[PlannedBatch], "the batches that would be sent"]


# --- poll, reconcile, run


class Polled(TypedDict):
    """What poll did."""

    checked: Annotated[int, "batches that were asked after"]
    batches: Annotated[list[Batch], "those that moved on"]


class TasksSettled(TypedDict):
    """What became of the tasks of finished batches."""

    completed: Annotated[int, "have an answer"]
    failed: Annotated[int, "failed for good"]
    retried: Annotated[int, "wait again"]
    missing: Annotated[int, "had no line in the results"]
    late: Annotated[int, "lines for tasks that no longer belonged to the batch: billed only"]
    cancelled: Annotated[int, "were cancelled with their batch"]


class RowsDelivered(TypedDict):
    """What became of rows of the application's."""

    written: Annotated[int, "hold their answer"]
    skipped: Annotated[int, "are gone, or `only_if` left them alone"]
    delayed: Annotated[int, "wait for another try"]
    failed: Annotated[int, "were given up"]


class EventsDelivered(TypedDict):
    """What became of events."""

    sent: Annotated[int, "their receivers have them"]
    delayed: Annotated[int, "wait for another try"]
    dead: Annotated[int, "were given up"]


class Reconciled(TypedDict):
    """What reconcile did."""

    tasks: Annotated[TasksSettled, "tasks of finished batches"]
    rows: Annotated[RowsDelivered, "rows written back"]
    events: Annotated[EventsDelivered, "events sent"]


class Envelope(TypedDict):
    """What every ``--json`` object has, on failure too; of a command that fails as a whole it is all."""

    command: Annotated[str, "the command's name"]
    exit_code: Annotated[int, "the exit code"]
    skipped: Annotated[Skipped | None, "`locked`: another run of the stage is at work, and this one did nothing"]
    errors: Annotated[list[Error], "what went wrong"]


class StageEnvelope(TypedDict):
    """What each stage of ``nura run`` has, beside the fields of its own command."""

    exit_code: Annotated[int, "what the stage alone would end with"]
    skipped: Annotated[Skipped | None, "as above"]
    errors: Annotated[list[Error], "as above"]


class PollStage(StageEnvelope, Polled):
    """poll's part of a run."""


class ReconcileStage(StageEnvelope, Reconciled):
    """reconcile's part of a run."""


class EnqueueStage(StageEnvelope, EnqueuedRecords):
    """A source's part of a run."""


class DispatchStage(StageEnvelope, Dispatched):
    """dispatch's part of a run."""


class Check(TypedDict):
    """One thing that was looked at."""

    level: Annotated[Literal["ok", "warn", "fail"], "in order; perhaps trouble; a stage would stop at it"]
    part: Annotated[str, "what it belongs to, such as `workload echo`"]
    message: Annotated[str, "what was found, for a person; never a secret"]
    hint: Annotated[str | None, "the next step"]


class Begun(TypedDict):
    """What init wrote."""

    config: Annotated[str, "the configuration's file"]
    crontab: Annotated[str, "the file with the lines for cron"]
    workload: Annotated[str, "the name of its workload"]
    key: Annotated[list[str], "the field or fields that name a record"]


class Checked(TypedDict):
    """What was looked at; what fails is among `errors`, too."""

    checks: Annotated[list[Check], "in their order"]


class BackedUp(TypedDict):
    """The backup that was made."""

    path: Annotated[str, "its folder"]
    at: Annotated[Time, "the moment that it shows: what came later may be missing"]
    bytes: Annotated[int, "of all its files"]
    results: Annotated[int, "files of results in it, which wait for reconcile"]
    lacks: Annotated[list[str], "such files that are gone or damaged in the spool, and not in it"]
    held: Annotated[list[str], "providers that are held in it, since their lists may not show what was sent later"]


class Stages(TypedDict):
    """The stages of a run."""

    poll: Annotated[PollStage, "its own fields, and those three"]
    reconcile: Annotated[ReconcileStage, "its own fields, and those three"]
    enqueue: Annotated[
        dict[str, EnqueueStage | StageEnvelope],
        "by workload with a source: its own fields, and those three; these alone of a source that failed",
    ]
    dispatch: Annotated[DispatchStage, "its own fields, and those three"]


class Ran(TypedDict):
    """What the stages of a run did, in all of its rounds."""

    stages: Annotated[Stages, "by stage"]


# --- status


class TaskCounts(TypedDict):
    """Tasks by state."""

    pending: Annotated[int, "wait to be sent"]
    submitted: Annotated[int, "are in a batch"]
    completed: Annotated[int, "have an answer"]
    failed: Annotated[int, "have none, for good"]
    cancelled: Annotated[int, "were withdrawn, or cancelled with their batch"]
    superseded: Annotated[int, "another stands in their place; counted here alone"]


class Group(TypedDict):
    """What has the same words, but for figures and ids."""

    message: Annotated[str | None, "the words, with … for what differs; null for those that were not looked at"]
    n: Annotated[int, "how many"]
    key: Annotated[KeyOf | None, "the key of one of them; null where none is known"]


class FailureGroup(Group):
    """Failed tasks of one kind and code, with the same words but for figures and ids."""

    kind: Annotated[str | None, "as in `error`; null for the rest, that is too much to tell apart", ErrorKind]
    code: Annotated[str | None, "as in `error`"]


class DeadGroup(Group):
    """Deliveries that were given up, with the same words but for figures and ids."""

    kind: Annotated[Literal["row", "event"] | None, "what was to be delivered; null for the rest"]


class Spent(TypedDict):
    """Tokens and money."""

    usage: Annotated[Tokens, "tokens of all billed attempts"]
    cost: Annotated[Cost, "what they cost"]


class WorkloadFigures(Spent):
    """The figures of a workload."""

    tasks: Annotated[TaskCounts, "its tasks"]


class WaitFound(TypedDict):
    """Why tasks did not go when dispatch last came by."""

    model: Annotated[str | None, "for which model; null for all"]
    tasks: Annotated[int, "how many"]
    why: Annotated[str, "what they wait for", Why]
    since: Annotated[Time, "when dispatch first found it so"]
    until: Annotated[Time | None, "when it ends by itself; null where that is not known"]
    message: Annotated[str, "the same, for a person"]


class WorkloadStatus(WorkloadFigures):
    """How a workload stands."""

    purged: Annotated[int, "tasks, superseded ones among them, whose record and answer were forgotten"]
    to_be_purged: Annotated[int, "tasks that are forgotten once nothing of them is under way"]
    waits: Annotated[list[WaitFound], "why tasks did not go when dispatch last came by"]

    oldest_pending_seconds: Annotated[int | None, "age of the oldest that waits, in seconds"]
    failures: Annotated[list[FailureGroup], "what its failed tasks failed for, the most frequent first"]
    dead_deliveries: Annotated[list[DeadGroup], "why deliveries were given up, the most frequent first"]


class LastRun(TypedDict):
    """A stage's last run."""

    started_at: Annotated[Time, "when it began"]
    ok_at: Annotated[Time | None, "when one last ended with 0"]
    exit_code: Annotated[int | None, "how it ended; null while it is at work, or if it was killed"]
    message: Annotated[str | None, "what went wrong first"]


class Pause(TypedDict):
    """A route to a provider, or a receiver of events, that rests: it ends by itself."""

    provider: Annotated[str | None, "the provider; null for a receiver"]
    endpoint: Annotated[str | None, "the vendor's path; null for all of them"]
    model: Annotated[str | None, "the model; null for all of them"]
    until: Annotated[Time, "when it ends"]
    why: Annotated[str | None, "why, for a person"]


class PauseEnded(Pause):
    """A pause that a release ended."""

    message: Annotated[str, "the same, for a person"]


class Hold(TypedDict):
    """Why nothing is sent of a workload, or to a provider, until a person releases it."""

    scope: Annotated[Literal["workload", "provider"], "what is held"]
    name: Annotated[str, "its name"]
    origin: Annotated[str | None, "why nura holds it by itself; null for a person's hold"]
    since: Annotated[Time, "when it was held"]
    until: Annotated[Time | None, "when it ends by itself; null where only a person ends it"]
    who: Annotated[str, "who holds it; empty for nura itself"]
    why: Annotated[str | None, "the person's reason"]


class HoldWithMessage(Hold):
    """A hold, in words too."""

    message: Annotated[str, "the same, for a person"]


class Snapshot(TypedDict):
    """A copy of the state file from before a migration."""

    path: Annotated[str, "the file"]
    version: Annotated[int, "the version of the state file that it has"]
    bytes: Annotated[int, "its size"]
    made_at: Annotated[Time, "when it was made"]
    kept_until: Annotated[Time, "when reconcile removes it"]


class Sizes(TypedDict):
    """What lies on the disk."""

    state_bytes: Annotated[int, "size of the state file"]
    wal_bytes: Annotated[int, "size of its write-ahead log"]
    spool_bytes: Annotated[int, "size of all that lies in its spool folder"]


class Disk(Sizes):
    """The disk of the state file."""

    folder: Annotated[str, "the folder that the state file lies in"]
    free_bytes: Annotated[int | None, "bytes that are free there; null where nobody can tell"]


class RowsLeft(TypedDict):
    """Rows that are not written."""

    pending: Annotated[int, "still to be delivered"]
    failed: Annotated[int, "given up"]


class EventsLeft(TypedDict):
    """Events that are not sent."""

    pending: Annotated[int, "still to be delivered"]
    dead: Annotated[int, "given up"]


class Deliveries(TypedDict):
    """What is still to be delivered of a workload, and what was given up."""

    rows: Annotated[RowsLeft, "rows of the application's"]
    events: Annotated[EventsLeft, "events"]


class Need(TypedDict):
    """One thing that needs a person."""

    kind: Annotated[str, "what it is, in one word", NeedKind]
    workload: Annotated[str | None, "the workload it is about"]
    batch_id: Annotated[int | None, "the batch it is about"]
    provider: Annotated[str | None, "the provider it is about"]
    message: Annotated[str, "what it is"]
    hint: Annotated[str, "what to type"]


class Status(Spent):
    """Where everything stands."""

    tasks: Annotated[TaskCounts, "tasks of all workloads that are meant"]
    workloads: Annotated[dict[str, WorkloadStatus], "by workload"]
    batches: Annotated[list[Batch], "batches that are not final"]
    stages: Annotated[dict[str, LastRun], "each stage's last run"]
    paused: Annotated[list[Pause], "what rests"]
    holds: Annotated[list[HoldWithMessage], "what is held"]
    snapshots: Annotated[list[Snapshot], "copies of the state file from before migrations"]
    disk: Annotated[Disk, "the disk that the state file lies on"]
    deliveries: Annotated[dict[str, Deliveries], "by workload: what is not delivered"]
    purged_at_providers: Annotated[int, "purged batches of which a provider may keep something still"]
    attention: Annotated[list[Need], "what needs a person"]


# --- show


class Prompt(TypedDict):
    """What was sent of a record, or would be now."""

    batch_id: Annotated[int | None, "the batch it was sent in; null for what waits"]
    system: Annotated[str | None, "the system text"]
    text: Annotated[str | None, "the user's message; null for a ready line"]
    error: Annotated[str | None, "why no prompt can be rendered"]


class Attempt(TypedDict):
    """One sending of a task, and what came of it."""

    batch_id: Annotated[int, "the batch it was sent in"]
    remote_id: Annotated[str | None, "that batch at the provider"]
    provider: Annotated[str | None, "the provider"]
    model: Annotated[str | None, "the model that was asked"]
    at: Annotated[Time, "when it was accounted for"]
    outcome: Annotated[str, "`answered`, or as `error.kind`"]
    late: Annotated[bool, "its answer came too late to be used, and was billed"]
    code: Annotated[str | None, "the provider's code"]
    message: Annotated[str | None, "the provider's words"]
    param: Annotated[str | None, "the part of the request that they are about"]
    excused: Annotated[str | None, "why it does not count as one of the task's attempts", Excuse]
    usage: Annotated[Tokens, "its tokens"]
    cost: Annotated[Dollars | None, "what it cost; null where that is not known"]


class Suspicion(TypedDict):
    """Why a task goes after the others, and apart from them."""

    batch_id: Annotated[int, "the refused batch that it may be to blame for"]
    how: Annotated[Literal["among", "alone", "named"], "among others, alone in it, or named by the provider"]
    since: Annotated[Time, "since when"]
    code: Annotated[str | None, "the provider's code"]
    message: Annotated[str | None, "the provider's words"]


class Delivery(TypedDict):
    """A row or an event about a task."""

    id: Annotated[int, "its number"]
    kind: Annotated[str, "`row` or `event`"]
    type: Annotated[str, "of an event: its type; of a row: which settling it tells"]
    target: Annotated[str, "the option that says what is written, or the receiver"]
    status: Annotated[str, "`pending`: it waits; `done`: it was made, or closed; `dead`: it was given up"]
    outcome: Annotated[str | None, "what became of it, in one word, such as `written`, `sent`, `gone`, `superseded`"]
    tries: Annotated[int, "how often it was refused"]
    message: Annotated[str | None, "what was said last"]
    row: Annotated[str | None, "of an event: what it says of the row"]
    row_error: Annotated[str | None, "of an event: why the row was not written"]
    not_before: Annotated[Time | None, "when it is tried again"]
    created_at: Annotated[Time, "when it was due"]
    done_at: Annotated[Time | None, "when it was made, or given up"]


class TaskShown(TypedDict):
    """One of the tasks that stand or stood for a key."""

    task_id: Annotated[int, "its number"]
    stands: Annotated[bool, "whether it stands for the key now"]
    status: Annotated[str, "its state", TaskStatus]
    superseded_by: Annotated[int | None, "the task that took its place"]
    retry_of: Annotated[int | None, "the completed task that it runs again"]
    batch_id: Annotated[int | None, "the batch it is in"]
    enqueued_at: Annotated[Time | None, "when its record was enqueued; null of what was purged"]
    purged: Annotated[bool, "whether its record and its answer were forgotten"]
    not_before: Annotated[Time | None, "when it may be sent, where that is put off"]
    suspected: Annotated[Suspicion | None, "why it is tried apart from others"]
    record: Annotated[Anything, "the record, or the ready line, as it is kept; null of what was purged"]
    prompt: Annotated[Prompt, "what was sent, or would be"]
    attempts: Annotated[list[Attempt], "by time"]
    result: Annotated[Result | None, "its line of results; null until it is settled"]
    deliveries: Annotated[list[Delivery], "its rows and events"]


class HoldShown(TypedDict):
    """What holds a key's workload or provider."""

    scope: Annotated[Literal["workload", "provider"], "what is held"]
    name: Annotated[str, "its name"]
    origin: Annotated[str, "why nura holds it by itself; empty for a person's hold"]
    at: Annotated[Time, "when it was held"]
    until: Annotated[Time | None, "when it ends by itself"]
    who: Annotated[str, "who holds it; empty for nura itself"]
    why: Annotated[str | None, "the person's reason"]


class KeyShown(TypedDict):
    """The history of a key."""

    workload: Annotated[str, "the workload"]
    key: Annotated[KeyOf, "the key"]
    status: Annotated[str | None, "the state of the task that stands for it", TaskStatus]
    held: Annotated[HoldShown | None, "what holds it"]
    tasks: Annotated[list[TaskShown], "its tasks, the newest first"]


class LogLine(TypedDict):
    """A line of a batch's log."""

    at: Annotated[Time, "when"]
    what: Annotated[str, "`batch`, `task`, or the command that a person gave"]
    before: Annotated[str | None, "the state before; null for a new one, and for what a person did"]
    after: Annotated[str | None, "the state after; null for what a person did"]
    n: Annotated[int, "how many"]
    why: Annotated[str | None, "the reason, in words"]
    who: Annotated[str | None, "the person; null for a stage"]


class BatchShown(Batch):
    """The history of a batch."""

    reason: Annotated[str | None, "why it ended as it did"]
    held: Annotated[str | None, "why it waits for a person"]
    final_at: Annotated[Time | None, "when it was done with"]
    cancel_at: Annotated[Time | None, "when a person wished it cancelled"]
    cancel_taken_at: Annotated[Time | None, "when the provider took that"]
    extra_batches: Annotated[list[str], "second sendings of it at the provider, which are not used"]
    tasks: Annotated[dict[str, int], "tasks that it holds or settled, by state"]
    purged: Annotated[int, "tasks that it settled, and that were forgotten since"]
    went_on: Annotated[int, "tasks that went on to another batch, or wait for one"]
    outcomes: Annotated[dict[str, int], "its attempts, by outcome"]
    usage: Annotated[Tokens, "tokens of its attempts"]
    cost: Annotated[Dollars | None, "what they cost; null where one has no known cost"]
    attention: Annotated[list[Need], "what of it needs a person"]
    log: Annotated[list[LogLine], "what happened to it, oldest first"]


class Keys(TypedDict):
    """Histories of keys."""

    keys: Annotated[list[KeyShown], "at most 20"]
    more: Annotated[bool, "whether there are more of them"]


class OneBatch(TypedDict):
    """The history of one batch."""

    batch: Annotated[BatchShown, "the batch"]


# --- what persons do


class HoldSet(HoldWithMessage):
    """A hold that was set, or stood already."""

    new: Annotated[bool, "whether it was set now"]
    tasks: Annotated[int, "tasks that wait"]
    under_way: Annotated[int, "batches that go on all the same"]


class Held(TypedDict):
    """What hold did."""

    held: Annotated[int, "holds that were set"]
    already: Annotated[int, "holds that stood already"]
    holds: Annotated[list[HoldSet], "all that were asked for"]


class HoldLifted(HoldWithMessage):
    """A hold that was lifted."""

    tasks: Annotated[int, "tasks that wait for the next dispatch"]


class NotHeld(TypedDict):
    """What was not held."""

    name: Annotated[str, "its name"]
    message: Annotated[str, "that, for a person"]


class Released(TypedDict):
    """What release did."""

    released: Annotated[list[HoldLifted], "holds that were lifted"]
    resumed: Annotated[list[PauseEnded], "pauses that were ended"]
    not_held: Annotated[list[NotHeld], "names of which there was neither"]
    still_held: Annotated[list[HoldWithMessage], "other holds of what was named"]


class LeftAlone(TypedDict):
    """Completed tasks that were left alone."""

    unchanged: Annotated[int, "their answer is of today's revision"]
    running: Annotated[int, "they are being run again already"]


class Estimated(TypedDict):
    """About what a sending comes to."""

    estimated_tokens: Annotated[int, "about how many tokens the requests have"]
    estimated_cost: Annotated[Dollars | None, "about what they cost; null where no price is known"]


class Retried(TypedDict):
    """What retry did, or would do."""

    dry_run: Annotated[bool, "whether nothing was done"]
    retried: Annotated[int, "tasks that wait again"]
    taken: Annotated[int, "truncated ones that were completed with the answer they had"]
    rerun: Annotated[int, "new tasks that run a completed one again"]
    left: Annotated[LeftAlone, "completed ones that were left alone"]
    workloads: Annotated[dict[str, Estimated], "by workload"]


class Withdrawn(TypedDict):
    """Tasks of a workload that were withdrawn."""

    n: Annotated[int, "how many"]
    keys: Annotated[list[str], "the first of their keys, as JSON"]


class GoingOn(TypedDict):
    """Batches that go on all the same."""

    batches: Annotated[int, "how many"]
    estimated_cost: Annotated[Dollars | None, "about what they cost; null where no price is known"]
    unpriced: Annotated[int, "those of them without a known price"]
    message: Annotated[str | None, "the same, for a person; null where there is none"]


class Cancelled(TypedDict):
    """What cancel did, or would do."""

    cancelled: Annotated[int, "tasks that were withdrawn"]
    under_way: Annotated[GoingOn, "batches that go on"]
    dry_run: Annotated[bool, "whether nothing was done"]


class CancelledTasks(Cancelled):
    """… to what waits."""

    tasks: Annotated[dict[str, Withdrawn], "by workload"]


class Compacted(TypedDict):
    """A state file that was written anew, or would be."""

    before_bytes: Annotated[int, "its size before"]
    after_bytes: Annotated[int | None, "its size after that; null with `-n`"]
    needs_bytes: Annotated[int, "the disk that this needs meanwhile; 0 where its free pages are only given back"]
    seconds: Annotated[int, "about how long it takes"]


class Purged(TypedDict):
    """What purge did, or would do."""

    purged: Annotated[int, "keys that are forgotten, or tasks that were dropped by their age"]
    later: Annotated[int, "keys that are forgotten once nothing of them is under way"]
    before: Annotated[int, "keys that were forgotten before"]
    workloads: Annotated[dict[str, int], "by workload: of what was purged"]
    at_providers: Annotated[int, "batches of which the next polls have the providers delete what they keep"]
    emptied: Annotated[
        bool, "whether nothing is left of it in the write-ahead log and on free pages; see also `out_of_reach`"
    ]
    compacted: Annotated[Compacted | None, "what came of `--compact`; null without it"]
    out_of_reach: Annotated[list[str], "what may still hold some of it, in words"]
    dry_run: Annotated[bool, "whether nothing was done"]


class CancelledBatches(Cancelled):
    """… to batches."""

    batches: Annotated[list[BatchWithMessage], "the batches that were meant"]
    waiting: Annotated[dict[str, int], "by workload: tasks that still wait"]


class Redelivered(TypedDict):
    """Deliveries of one kind."""

    due: Annotated[int, "are due again"]
    superseded: Annotated[int, "another answer has taken their place: closed"]
    dropped: Annotated[int, "were closed, by `--drop`"]


class RedeliveredAll(TypedDict):
    """What redeliver did, or would do."""

    rows: Annotated[Redelivered, "rows of the application's"]
    events: Annotated[Redelivered, "events"]


class Resolved(TypedDict):
    """What was decided."""

    done: Annotated[str | None, "what became of the batches, for a person"]


# --- log


class RunEntry(TypedDict):
    """A run of a stage."""

    kind: Annotated[Literal["run"], "a run"]
    at: Annotated[Time, "when it began"]
    stage: Annotated[str, "the stage"]
    workload: Annotated[str | None, "of enqueue: whose source was read"]
    pid: Annotated[int, "its process"]
    ended_at: Annotated[Time | None, "when it ended"]
    exit_code: Annotated[int | None, "how it ended"]
    killed: Annotated[bool, "whether it has no end because its process is gone"]
    message: Annotated[str | None, "what went wrong first, or else what it did"]


class Entry(TypedDict):
    """What actions and moves have in common."""

    at: Annotated[Time, "when"]
    workload: Annotated[str | None, "the workload it is about"]
    batch_id: Annotated[int | None, "the batch it is about"]
    n: Annotated[int, "how many tasks, rows or events that were"]


class ActionEntry(Entry):
    """What a person did; or what ended by itself."""

    kind: Annotated[Literal["action"], "an action"]
    verb: Annotated[str, "the command"]
    who: Annotated[str, "the person; empty for nura itself"]
    what: Annotated[str, "what was done"]
    why: Annotated[str | None, "the person's reason"]


MoveEntry = TypedDict(
    "MoveEntry",
    {
        "kind": Annotated[str, "`task` or `batch`: what moved"],
        "at": Annotated[Time, "when"],
        "workload": Annotated[str | None, "whose"],
        "batch_id": Annotated[int | None, "the batch it is about"],
        "n": Annotated[int, "how many"],
        "from": Annotated[str | None, "the state before; null for a new one"],
        "to": Annotated[str, "the state after"],
        "why": Annotated[str, "the reason, in words"],
    },
)
"""A move of tasks, or of a batch."""

LogEntry = RunEntry | ActionEntry | MoveEntry


class Logged(TypedDict):
    """What happened."""

    entries: Annotated[list[LogEntry], "oldest first"]


# --- sandbox, help


class SandboxAddresses(TypedDict):
    """Where the sandbox serves. Of each vendor it speaks for there is also ``NAME_base_url``. No envelope: it goes on serving."""

    command: Annotated[Literal["sandbox"], "the command's name"]
    url: Annotated[str, "its address"]


class Topics(TypedDict):
    """What there is help about."""

    commands: Annotated[dict[str, str], "each command, and what it does"]
    topics: Annotated[dict[str, str], "each topic, and what it tells"]


class Help(TypedDict):
    """Help about one thing."""

    topic: Annotated[str, "the topic or command"]
    text: Annotated[str, "its page, in Markdown; of a command its `--help`"]


# --- cost, try


class AllTokens(Tokens):
    """Tokens, those written into the provider's cache told apart."""

    cache_write_tokens: Annotated[int, "tokens of the requests that were written into the provider's cache"]


class AttemptsCost(TypedDict):
    """What attempts cost."""

    currency: Annotated[Literal["USD"], "of the three amounts"]
    paid: Annotated[Dollars, "what was paid, as far as prices are known"]
    list: Annotated[Dollars, "what the same would have cost synchronously"]
    saved: Annotated[Dollars, "the difference"]
    unpriced_attempts: Annotated[int, "attempts whose cost is not known, and is in none of these amounts"]


class EstimateTold(TypedDict):
    """What batches that have come home were expected to cost when they were sent, and what they cost."""

    batches: Annotated[int, "how many of them have an estimate and a known cost"]
    estimated: Annotated[Dollars, "what they were expected to cost"]
    paid: Annotated[Dollars, "what they cost"]


class CostFigures(TypedDict):
    """Figures of attempts."""

    attempts: Annotated[int, "requests that were sent and accounted for"]
    unanswered: Annotated[int, "those of them that gave no answer that was used"]
    usage: Annotated[AllTokens, "their tokens"]
    cost: Annotated[AttemptsCost, "what they cost"]
    estimate: Annotated[EstimateTold, "how near the estimates were"]


class CostRow(CostFigures):
    """The figures of one group; of what it is about, as ``--by`` asked."""

    workload: Annotated[NotRequired[str], "whose attempts"]
    model: Annotated[NotRequired[str], "the model that was asked; empty where none is known"]
    provider: Annotated[NotRequired[str], "where they went"]
    day: Annotated[NotRequired[str], "the day (UTC) on which they were sent, such as 2026-11-26"]
    month: Annotated[NotRequired[str], "the month (UTC) in which they were sent, such as 2026-11"]


class CostTold(TypedDict):
    """What was spent."""

    since: Annotated[str | None, "the first day (UTC) that is meant; null for all until then"]
    until: Annotated[str | None, "the first day that is no longer meant; null for all since then"]
    by: Annotated[list[str], "what the figures are told apart by"]
    rows: Annotated[list[CostRow], "the figures of each group, in order"]
    total: Annotated[CostFigures, "all of them together"]


class TriedColumn(TypedDict):
    """What a column of the application's row would be given."""

    option: Annotated[str, "the option of `write_back` that says so"]
    column: Annotated[str, "the column"]
    value: Annotated[Anything, "what it would be given"]
    error: Annotated[str | None, "why the expression gives nothing"]


class Tried(TypedDict):
    """A request that was tried, and what came of it."""

    key: Annotated[KeyOf, "the record's key"]
    status: Annotated[Literal["completed", "failed"], "how a task would have ended"]
    text: Annotated[str | None, "the answer; null without one, and for embeddings"]
    json: Annotated[Anything, "the answer as a document, as in results"]
    finish_reason: Annotated[str | None, "the vendor's word for why the answer ended"]
    error: Annotated[Failure | None, "why there is no answer"]
    model: Annotated[str | None, "the model that answered"]
    cost: Annotated[Dollars | None, "what was paid, at list price; null where it is not known"]
    usage: Annotated[AllTokens, "its tokens"]
    system: Annotated[str | None, "the system text"]
    prompt: Annotated[str | None, "the user's message; null for a ready line"]
    fits: Annotated[bool | None, "whether the answer fits the schema; null without one"]
    columns: Annotated[list[TriedColumn], "what the row's columns would be given"]


class TriedCost(TypedDict):
    """What the requests cost."""

    currency: Annotated[Literal["USD"], "of the amount"]
    paid: Annotated[Dollars, "at list price, as far as prices are known"]
    unpriced_attempts: Annotated[int, "answers whose cost is not known"]


class WaitingCost(TypedDict):
    """What the work that waits would cost."""

    tasks: Annotated[int, "tasks of the workload that wait"]
    estimated_cost: Annotated[
        Dollars | None, "about what they cost in batches, at the mean of these; null where none is known"
    ]


class TriedWhere(TypedDict):
    """Whose records were tried, and where."""

    workload: Annotated[str, "the workload"]
    provider: Annotated[str, "where the requests went, or would go"]


class Trials(TriedWhere):
    """What came of the records that were tried."""

    trials: Annotated[list[Tried], "those that were answered"]
    cost: Annotated[TriedCost, "what they cost"]
    waiting: Annotated[WaitingCost, "what the rest would cost"]


class PlannedTrial(TypedDict):
    """A request that would be tried."""

    key: Annotated[KeyOf, "the record's key"]
    prompt: Annotated[str | None, "the user's message; null for a ready line"]
    body: Annotated[Anything, "the body of the request"]


class PlannedTrials(TriedWhere):
    """What would be tried."""

    requests: Annotated[list[PlannedTrial], "each as it would be sent"]


# --- events

Row = Literal["written", "gone", "changed"]


class TaskFacts(TypedDict):
    """What an event tells of a task, without its answer."""

    workload: Annotated[str, "the workload"]
    key: Annotated[KeyOf, "the record's key"]
    status: Annotated[str, "`completed`, `failed` or `cancelled`: how the task ended"]
    batch_id: Annotated[int | None, "the batch that settled it"]
    record: Annotated[dict[str, Any], "the fields of the record under `keep`"]
    row: Annotated[
        str | None,
        "`written`; `gone`: there is no such row; `changed`: `only_if` left it alone; null where no row is to be written, or it was given up",
    ]
    row_error: Annotated[str | None, "why the row was not written"]
    error: Annotated[Failure | None, "why there is no answer"]


class TaskTold(TaskFacts):
    """``data`` of an event about a task."""

    text: Annotated[NotRequired[str | None], "the answer; with `answers: true`"]
    json: Annotated[NotRequired[Anything], "the answer as a document; with `answers: true`"]


class BatchFailure(TypedDict):
    """Why a batch failed."""

    kind: Annotated[Literal["batch"], "always that"]
    code: Annotated[None, "always null"]
    http_status: Annotated[None, "always null"]
    message: Annotated[str | None, "the reason, in words"]


class BatchTold(TypedDict):
    """``data`` of an event about a batch."""

    workload: Annotated[str, "the workload"]
    key: Annotated[None, "always null"]
    status: Annotated[Literal["completed", "failed"], "how the batch ended"]
    batch_id: Annotated[int, "the batch"]
    record: Annotated[None, "always null"]
    row: Annotated[None, "always null"]
    error: Annotated[BatchFailure | None, "why it failed"]
    requests: Annotated[int, "requests in it"]
    completed: Annotated[int | None, "those that the provider counts as answered"]
    failed: Annotated[int | None, "those that the provider counts as failed"]


class EventTold(TypedDict):
    """An event."""

    id: Annotated[
        NotRequired[str], "the same however often it is sent; a webhook has it in its `webhook-id` header instead"
    ]
    type: Annotated[str, "what happened", EventType]
    timestamp: Annotated[Time, "when it happened"]
    data: Annotated[TaskTold | BatchTold, "what it is about"]


HEADERS: Mapping[str, str] = {
    "content-type": "`application/json`",
    "user-agent": "`nura`",
    "webhook-id": "the event's id: the same however often it is sent",
    "webhook-timestamp": "when this attempt was made, in unix seconds",
    "webhook-signature": "`v1,` and the base64 of an HMAC-SHA256 of `ID.TIMESTAMP.BODY`, with the webhook's secret",
}
"""The headers of a webhook's POST, as Standard Webhooks has them."""

DOCUMENTS: Mapping[str, Mapping[str, Any]] = {
    "enqueue": {"": EnqueuedRecords, "with `--from-source` and no workload": EnqueuedSources, "with `-n`": Requests},
    "dispatch": {"": Dispatched, "with `-n`": Planned},
    "poll": {"": Polled},
    "reconcile": {"": Reconciled},
    "run": {"": Ran},
    "status": {"": Status},
    "results": {},
    "show": {"": Keys, "of a batch": OneBatch},
    "hold": {"": Held},
    "release": {"": Released},
    "retry": {"": Retried},
    "cancel": {"": CancelledTasks, "of batches": CancelledBatches},
    "purge": {"": Purged},
    "redeliver": {"": RedeliveredAll},
    "resolve": {"": Resolved},
    "demo": {"": Status},
    "sandbox": {"": SandboxAddresses},
    "init": {"": Begun},
    "check": {"": Checked},
    "log": {"": Logged},
    "cost": {"": CostTold},
    "backup": {"": BackedUp},
    "try": {"": Trials, "with `-n`": PlannedTrials},
    "help": {"": Topics, "of a topic or command": Help},
}
"""Each command's own fields of ``--json``, by when it gives them; results prints lines instead, each a :class:`Result`."""


Document = TypeVar("Document")


class Field(NamedTuple):
    """One field of a document.

    Attributes:
        type: what it holds, without its description.
        optional: it may be left out.
        words: the closed list of what it may say; empty where there is none.
    """

    name: str
    type: Any
    description: str
    optional: bool = False
    words: Collection[str] = ()


def fields(document: Any) -> Iterator[Field]:
    """Yield the fields of a type of document, in their order."""
    optional = document.__optional_keys__
    for name, hint in get_type_hints(document, include_extras=True).items():
        given, *about = get_args(hint)
        words = [str(word) for one in about if isinstance(one, EnumType) for word in cast(Iterator[Any], iter(one))]
        description = next(one for one in about if isinstance(one, str))
        forms = [one for one in about if isinstance(one, Form)]
        kind = Annotated[(_bare(given), *forms)] if forms else _bare(given)
        yield Field(name, kind, description, name in optional, words)


def _bare(hint: Any) -> Any:
    """Return a type without what says whether its field must be there."""
    return get_args(hint)[0] if get_origin(hint) in (NotRequired, Required) else hint


def figures(document: type[Document], counts: Mapping[Any, int]) -> Document:
    """Return a document of figures alone, each out of what was counted under its name."""
    return cast(Document, {name: counts[name] for name in get_type_hints(document)})


def nothing(document: Any) -> dict[str, Any]:
    """Return a document in which nothing happened: zero, null, and what is empty."""
    return {field.name: _nothing(field.type) for field in fields(document) if not field.optional}


def _nothing(kind: Any) -> Any:
    if is_typeddict(kind):
        return nothing(kind)
    origin = get_origin(kind)
    if origin is Annotated:
        return _nothing(get_args(kind)[0])
    if origin in (Union, UnionType):
        return None
    return None if origin is Literal else (origin or kind)()
