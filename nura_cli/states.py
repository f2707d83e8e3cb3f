"""The states of tasks and batches, and the arrows between them: the only place they are written."""

from enum import StrEnum


class TaskStatus(StrEnum):
    """What may happen next to a task; the comment says who moves it on."""

    PENDING = "pending"  # waits for a batch, perhaps until a time: dispatch
    SUBMITTED = "submitted"  # belongs to one batch: reconcile settles or retries it; dispatch, if its batch was refused
    COMPLETED = "completed"  # has an answer: final
    FAILED = "failed"  # refused for good, or attempts used up: final, until an operator retries it
    CANCELLED = "cancelled"  # withdrawn, or somebody cancelled its batch: final, until an operator retries it


class BatchStatus(StrEnum):
    """What may happen next to a batch; the comment says what a crash leaves to do."""

    PROCESSING = "processing"  # tasks claimed, request file being written: undo the claim
    UPLOADED = "uploaded"  # the provider holds the request file, where it takes one first: go on from the file
    SUBMITTING = "submitting"  # create sent, not confirmed: ask the provider, never guess
    SUBMITTED = "submitted"  # the provider's batch id is known: poll
    COMPLETED = "completed"  # ended, whole results in the spool: reconcile
    RECONCILED = "reconciled"  # every task accounted for: final
    FAILED = "failed"  # refused, surely absent, or its results lost: final


TASK_ARROWS: dict[TaskStatus, frozenset[TaskStatus]] = {
    TaskStatus.PENDING: frozenset({TaskStatus.SUBMITTED, TaskStatus.FAILED, TaskStatus.CANCELLED}),
    TaskStatus.SUBMITTED: frozenset(
        {TaskStatus.PENDING, TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED}
    ),
    TaskStatus.COMPLETED: frozenset(),
    TaskStatus.FAILED: frozenset({TaskStatus.PENDING}),
    TaskStatus.CANCELLED: frozenset({TaskStatus.PENDING}),
}

BATCH_ARROWS: dict[BatchStatus, frozenset[BatchStatus]] = {
    BatchStatus.PROCESSING: frozenset({BatchStatus.UPLOADED, BatchStatus.SUBMITTING, BatchStatus.FAILED}),
    BatchStatus.UPLOADED: frozenset({BatchStatus.SUBMITTING, BatchStatus.FAILED}),
    BatchStatus.SUBMITTING: frozenset({BatchStatus.SUBMITTED, BatchStatus.FAILED}),
    BatchStatus.SUBMITTED: frozenset({BatchStatus.COMPLETED, BatchStatus.FAILED}),
    BatchStatus.COMPLETED: frozenset({BatchStatus.RECONCILED, BatchStatus.SUBMITTED, BatchStatus.FAILED}),
    BatchStatus.RECONCILED: frozenset(),
    BatchStatus.FAILED: frozenset(),
}


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
    OUTAGE = "outage"  # the provider's own trouble: it will pass
    CONTENT = "content"  # a request in it is to blame; also what nobody can classify


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
