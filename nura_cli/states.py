"""The states of tasks and batches, the arrows between them, events and errors of tasks: the only place they are written."""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar


class TaskStatus(StrEnum):
    """What may happen next to a task; the comment says who moves it on."""

    PENDING = "pending"  # waits for a batch, perhaps until a time: dispatch
    SUBMITTED = "submitted"  # belongs to one batch: reconcile settles or retries it; dispatch, if its batch was refused
    COMPLETED = "completed"  # has an answer: final
    FAILED = "failed"  # refused for good, or attempts used up: final, until a person retries it
    CANCELLED = "cancelled"  # replaced unsent: final; or somebody cancelled it or its batch: final, until a person resends or retries it


class BatchStatus(StrEnum):
    """What may happen next to a batch; the comment says what a crash leaves to do."""

    PROCESSING = "processing"  # tasks claimed, request file being written: undo the claim
    UPLOADED = "uploaded"  # the provider holds the request file, where it takes one first: go on from the file
    SUBMITTING = "submitting"  # create sent, not confirmed: ask the provider, never guess
    SUBMITTED = "submitted"  # the provider's batch id is known: poll
    COMPLETED = "completed"  # ended, whole results in the spool: reconcile
    RECONCILED = "reconciled"  # every task accounted for: final
    FAILED = "failed"  # refused, surely absent, or its results lost: final


TASK_ARROWS: Mapping[TaskStatus, Mapping[TaskStatus, str]] = {
    TaskStatus.PENDING: {
        TaskStatus.SUBMITTED: "dispatch claims it for a batch",
        TaskStatus.CANCELLED: "enqueue puts another in its place, or cancel withdraws it",
        TaskStatus.FAILED: "reconcile finds it to blame for a refused batch, or dispatch finds its attempts used up",
    },
    TaskStatus.SUBMITTED: {
        TaskStatus.PENDING: "reconcile tries it again, or its batch was not sent, refused or lost",
        TaskStatus.COMPLETED: "reconcile has its answer",
        TaskStatus.FAILED: "reconcile has a refusal or attempts are used up, dispatch cannot render it, or its answer is lost",
        TaskStatus.CANCELLED: "reconcile or dispatch finds its batch cancelled by somebody, or it was replaced and is not sent again",
    },
    TaskStatus.COMPLETED: {},
    TaskStatus.FAILED: {
        TaskStatus.PENDING: "retry has it tried again",
        TaskStatus.COMPLETED: "retry takes the answer that it has",
    },
    TaskStatus.CANCELLED: {
        TaskStatus.PENDING: "resolve resends what a cancelled batch left, or retry has it tried again",
    },
}
"""From each state to those that may follow: who moves a task there, and why."""

BATCH_ARROWS: Mapping[BatchStatus, Mapping[BatchStatus, str]] = {
    BatchStatus.PROCESSING: {
        BatchStatus.UPLOADED: "dispatch has uploaded its request file",
        BatchStatus.SUBMITTING: "dispatch is about to send its create",
        BatchStatus.FAILED: "dispatch was interrupted or refused, it is held or cancelled, or none of its tasks could be rendered",
    },
    BatchStatus.UPLOADED: {
        BatchStatus.SUBMITTING: "dispatch is about to send its create",
        BatchStatus.FAILED: "dispatch gives it back, or cancel undoes it, and nothing of it was sent",
    },
    BatchStatus.SUBMITTING: {
        BatchStatus.SUBMITTED: "dispatch has its id, from the answer or from the provider's list",
        BatchStatus.UPLOADED: "dispatch was refused since its request file is not ready yet, and the list lacks it",
        BatchStatus.FAILED: "dispatch was refused for certain or finds it surely absent, or resolve gives it up",
    },
    BatchStatus.SUBMITTED: {
        BatchStatus.COMPLETED: "poll has it ended, and its results in the spool",
        BatchStatus.FAILED: "poll or resolve gives its results up for lost",
    },
    BatchStatus.COMPLETED: {
        BatchStatus.RECONCILED: "reconcile has accounted for every task",
        BatchStatus.SUBMITTED: "reconcile finds results damaged or too few, and poll is to fetch them again",
        BatchStatus.FAILED: "reconcile finds it refused whole, or resolve gives its results up",
    },
    BatchStatus.RECONCILED: {},
    BatchStatus.FAILED: {},
}
"""From each state to those that may follow: who moves a batch there, and why."""

_Status = TypeVar("_Status", TaskStatus, BatchStatus)


def check_arrow(arrows: Mapping[_Status, Mapping[_Status, str]], old: _Status, new: _Status) -> None:
    """Refuse a move that has no arrow: that is a bug, and nothing is moved.

    Raises:
        AssertionError: there is none from ``old`` to ``new``.
    """
    if new not in arrows[old]:
        raise AssertionError(f"no arrow from {old} to {new}")


class EventType(StrEnum):
    """What the application can be told of."""

    TASK_COMPLETED = "task.completed"  # it has an answer; told after its row was written
    TASK_FAILED = "task.failed"  # it has none, for good; told after its row was written
    TASK_CANCELLED = "task.cancelled"  # it was cancelled; told after its row, where `set_cancelled` writes one
    BATCH_COMPLETED = "batch.completed"  # every task of it is accounted for; told after all its rows
    BATCH_FAILED = "batch.failed"  # it was refused, is surely absent, or its results are lost


def is_about_task(event: str) -> bool:
    """Return whether a type of events tells of single tasks."""
    return event.startswith("task.")


class ErrorKind(StrEnum):
    """Why a task has no answer it could keep: the closed list of ``error.kind`` in ``nura results``."""

    REFUSED = "refused"  # a 4xx about this request: the same request would be refused again
    RATE_LIMITED = "rate_limited"  # 429
    PROVIDER_ERROR = "provider_error"  # 5xx, or an error nobody can classify
    EXPIRED = "expired"  # the batch's 24 hours ended first
    CANCELLED = "cancelled"  # cancelled at the provider, or withdrawn here
    MISSING = "missing"  # the batch ended without a line for it
    INVALID_OUTPUT = "invalid_output"  # the answer does not parse, or breaks the workload's schema
    TRUNCATED = "truncated"  # the answer ran into its token limit before its document was whole
    REFUSAL = "refusal"  # the model declined to answer
    RENDER = "render"  # its prompt could not be rendered, or is larger than the provider takes
    LOST = "lost"  # answered and billed, but the provider no longer has the results


class Reason(StrEnum):
    """Why a provider refuses a whole batch, whatever its words: the closed list that decisions go by."""

    TOO_MUCH = "too_much"  # more is enqueued there than it takes: a rest helps
    TOO_LARGE = "too_large"  # this batch is: a smaller one will do
    SETTINGS = "settings"  # about the account, or the workload's options: no single request is to blame
    OUTAGE = "outage"  # the provider's own problem: it will pass
    CONTENT = "content"  # a request in it is to blame; also what nobody can classify


class Blame(StrEnum):
    """Whose fault the error of a single request is, as far as the vendor's words tell."""

    TASK = "task"  # about this request: the same one would be refused again, or is worth another attempt
    ACCOUNT = "account"  # money, quota or the key: no request's, however many others were answered
    UNSURE = "unsure"  # a model, a permission, a region, the provider's own failure: no request's, unless others were answered


class Why(StrEnum):
    """What tasks wait for: the closed list of ``waits[].why`` in ``nura dispatch --json``."""

    THRESHOLD = "threshold"  # more tasks, or more age
    BACKOFF = "backoff"  # the time of their next attempt, or the end of an outage
    PAUSED = "paused"  # the end of a pause of their route
    QUOTA = "quota"  # room in the provider's queue
    TOO_LARGE = "too_large"  # a larger queue or budget: passed over, and looked at again some hours later
    BUDGET = "budget"  # the next day or month, or what is under way to cost less than it may
    CANARY = "canary"  # the first answers of their revision
    CHANGED = "changed"  # the next run: what says how they are sent was changed while this one was at work
    HELD = "held"  # a person, who releases their workload or provider


class Excuse(StrEnum):
    """Why an attempt does not count as one of its task's."""

    ACCOUNT = "account"  # the account's or the provider's trouble
    ALIKE = "alike"  # it was refused as all of its kind were
    EXPIRED = "expired"  # its batch's time was over first
    CANARY = "canary"  # its revision had yet to show itself, and did not, or has not yet


RETRYABLE: frozenset[ErrorKind] = frozenset(
    {
        ErrorKind.RATE_LIMITED,
        ErrorKind.PROVIDER_ERROR,
        ErrorKind.EXPIRED,
        ErrorKind.MISSING,
        ErrorKind.INVALID_OUTPUT,
        ErrorKind.LOST,
    }
)


class NeedKind(StrEnum):
    """What needs a person: the kind of an entry of ``attention``, and the label of its metric."""

    CONFIGURATION = "configuration"  # it does not load: no stage runs
    DISK = "disk"  # it is nearly full
    FOREIGN_OWNER = "foreign_owner"  # files beside the state file are somebody else's
    NO_SUCCESS = "no_success"  # work waits, and no stage has ended well for long
    OLDEST_PENDING = "oldest_pending"  # tasks have waited for long
    ENQUEUE = "enqueue"  # the last one failed
    TASKS_FAILED = "tasks_failed"  # in the last 26 hours
    BATCH_HELD = "batch_held"  # whether its create arrived cannot be told
    RESULTS_LOST = "results_lost"  # they may have been paid for, and cannot be had
    BATCH_LATE = "batch_late"  # past its time, or home and not settled
    RESULTS_EXPIRE = "results_expire"  # soon, at the provider
    UNCONFIRMED = "unconfirmed"  # whether a create arrived is not known yet
    UPLOAD_PENDING = "upload_pending"  # the provider is not done with a request file for long
    NOT_CANCELLED = "not_cancelled"  # a batch goes on that was to be cancelled
    HELD = "held"  # nura itself holds a workload
    CANCELLED = "cancelled"  # somebody cancelled a batch at the provider
    EXTRA_BATCH = "extra_batch"  # it is not known to have ended
    POSSIBLE_COPY = "possible_copy"  # a batch at a provider may be a second sending
    UNCONFIGURED = "unconfigured"  # tasks wait for a workload that is not configured any more
    PURGE_PENDING = "purge_pending"  # what a person wished forgotten is still under way after long
    DELIVERY_FAILED = "delivery_failed"  # rows or events were given up
    DELIVERY_UNOWNED = "delivery_unowned"  # rows or events wait for what is not configured any more
