"""nura dispatch: what waits becomes batches at the providers.

Takes pending tasks; leaves each in a batch that the provider confirmed, or pending again. In order: undo what a crash
left half claimed, resolve what an earlier run left unconfirmed (:mod:`nura_cli.pipeline.recovery`), then, for each
workload that is due, see that its answers will have somewhere to go, and claim → write the request file → upload, where
the vendor wants that → note the intent → create → note the answer. Every arrow is a commit, and no transaction is open
while the network is spoken to.

What can go wrong: a provider that is down, or refuses the key, pauses itself and nothing else; a batch refused for
certain gives its tasks back; one that a person wished cancelled (``nura cancel``) is not created, and its tasks are
cancelled; a create without an answer stays ``submitting`` until the provider says what became of it. Of what a person
holds nothing goes: holds are read before each upload, and in the commit of each intent to create. It holds the dispatch
lock, and is the only stage that writes and sweeps ``requests/``.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from nura_cli import contract, logs
from nura_cli.config import Config, WorkloadConfig
from nura_cli.dialects import vendors
from nura_cli.dialects.base import Rejection
from nura_cli.errors import (
    EX_OK,
    ConfigError,
    KeyRefused,
    NotFound,
    OnHold,
    ProblemKind,
    ProviderError,
    RateLimited,
    Refused,
    Unconfirmed,
    Unreachable,
)
from nura_cli.pipeline import (
    backoff,
    blame,
    budgets,
    enqueued,
    holding,
    plans,
    queues,
    recovery,
    refusals,
    settle,
    spool,
    targets,
    uploads,
    waiting,
    wishes,
)
from nura_cli.pipeline.accounts import Accounts
from nura_cli.pipeline.budgets import Fund
from nura_cli.pipeline.packing import Load, Room, Wait, Why
from nura_cli.pipeline.queues import Sent, Visit, Walk
from nura_cli.pipeline.render import ordered, revision
from nura_cli.pipeline.report import Problem, Report, batch_dicts, counted
from nura_cli.pipeline.run import about
from nura_cli.progress import Step, going
from nura_cli.providers.base import Provider
from nura_cli.state import Connection, State, actions, batches, outcomes, quotas, runs, suspects, tasks, waits
from nura_cli.state.actions import Hold
from nura_cli.state.batches import Batch
from nura_cli.state.connection import LONGEST_BACKOFF
from nura_cli.state.disk import on_disk
from nura_cli.state.standings import Held
from nura_cli.state.waits import Waits
from nura_cli.states import BatchStatus, ErrorKind, Reason

_PAGE = 1000
"""Tasks read at a time while a request file is written."""
_TOO_LARGE = 413
"""HTTP: the request, a request file or what is made of it, is larger than the provider takes."""


@dataclass(kw_only=True)
class Dispatch(Walk):
    """One run of the stage.

    Attributes:
        sent: ids of the batches whose create was sent.
        seen: providers whose list was looked at for batches of another copy of the state file.
        patience: what is left of the time to wait for files that a provider is not done with.
        passed: tasks whose request would never fit.
    """

    sent: list[int] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    patience: uploads.Patience = field(default_factory=uploads.Patience)
    passed: set[int] = field(default_factory=set)

    def check_targets(self, workload: WorkloadConfig) -> None:
        """See that a workload's answers will have somewhere to go, and remember it."""
        targets.checked(self.state, workload, self.config)

    def block(self, provider: str, error: ProviderError | KeyRefused) -> None:
        """Leave a provider alone for the rest of the run, and for a while after an outage."""
        super().block(provider, error)
        if not isinstance(error, KeyRefused):
            with self.state.transaction() as db:
                route = runs.route(db, provider)
                rest = backoff.after_outage(route, error.message, error.retry_after, self.clock(), backoff.jitter())
                runs.learn(db, rest)

    def end_used_up(self, visit: Visit) -> None:
        """Fail them, each with what its last attempt failed for."""
        plan, total = plans.plan_of(self.config, visit.workload.name), 0
        while True:
            with self.state.transaction() as db:
                ids = tasks.used_up(db, visit.queue.id, visit.workload.retry.max_attempts, settle.CHUNK_TASKS)
                ends = outcomes.last_failures(db, ids)
                settled = settle.fail_waiting(db, visit.queue.id, ends, plan, "its attempts are used up") if ids else []
            total += len(settled)
            if len(settled) < settle.CHUNK_TASKS:
                break
            self.state.yield_to_writers()
        self.used_up(visit.workload, total, "failed")

    def next_batch(self, visit: Visit, room: Room) -> Sent:
        """Claim, write and send the next batch of a queue."""
        provider = self.accounts.provider(visit.workload.provider)
        batch = _open(self, visit, room, provider)
        if isinstance(batch, Sent):
            return batch
        self.progress(f"{batch.workload}: writing batch {batch.id}")
        sealed = _write(self, batch, visit, room)
        if isinstance(sealed, Sent):
            return sealed
        self.progress(f"{batch.workload}: sending batch {batch.id}, {counted(sealed.requests, 'request')}")
        return _send(self, sealed, provider)


def run(
    state: State,
    config: Config,
    accounts: Accounts,
    *,
    workloads: Sequence[str] = (),
    ignore_waits: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> Report:
    """Recover, then send what is due.

    Args:
        workloads: send only these (all, when empty); recovery concerns every batch.
        ignore_waits: send what waits without regard to thresholds, backoff and outage pauses (``--now``); not what is held.
        progress: told in words what is going on.

    Returns:
        ``batches`` sent or settled in this run, ``requests`` in them, ``not_due`` tasks by reason, ``waits`` with each reason
        in full, and ``unconfirmed`` batches left.

    Raises:
        UsageError: a workload is not configured; nothing was done.
    """
    chosen = queues.chosen(config, workloads)
    job = Dispatch(state=state, config=config, accounts=accounts, ignore_waits=ignore_waits, progress=progress)
    spool.sweep(state.requests, set())
    with state.transaction() as db:
        holding.end_passed(db, config)
    uploads.ask_again(state)
    _undo_claims(job)
    recovery.resolve(job)
    job.blocked |= recovery.unproven(job)
    for batch in batches.under_way(state.db, BatchStatus.UPLOADED):
        if batch.provider not in job.blocked:
            progress(f"batch {batch.id}: going on from its uploaded file")
            queues.guarded(job, batch.provider, batch.workload, partial(_resume, job, batch))
    queues.go(job, chosen)
    _note_waits(job, chosen)
    return _report(job)


def _note_waits(job: Dispatch, chosen: Sequence[WorkloadConfig]) -> None:
    """Keep why tasks wait, for nura status; tell the log where that is new or over, and everybody where a budget is open again."""
    names, now = [one.name for one in chosen if one.name not in job.unsure], job.clock()
    found: dict[tuple[str, str, str], Waits] = {}
    for one in job.waits:
        wait = Waits(
            one.workload.name, one.model or "", str(one.wait.why), one.tasks, one.wait.words, one.wait.until, now
        )
        before = found.get(wait[:3])
        more = wait if before is None or wait.n > before.n else before
        found[wait[:3]] = more if before is None else more._replace(n=before.n + wait.n)
    went = {batch.workload for batch_id in job.sent if (batch := batches.get(job.state.db, batch_id))}
    with job.state.transaction() as db:
        new, over = waits.note(db, names, list(found.values()), list(job.config.workloads))
    for began in new:
        logs.decided("%s: %s tasks wait (%s): %s", began.workload, began.n, began.why, began.words)
    for ended in over:
        logs.decided("%s: no task waits any more for that (%s): %s", ended.workload, ended.why, ended.words)
        if ended.why == Why.BUDGET and ended.workload in went:
            text = f"{ended.workload}: its budget has room again, and what waited for it goes"
            job.note(Problem(ProblemKind.BUDGET, text, EX_OK, workload=ended.workload, stays=False))


def _report(job: Dispatch) -> Report:
    sent = [batch for batch_id in job.sent if (batch := batches.get(job.state.db, batch_id))]
    requests = sum(batch.requests for batch in sent if batch.status is not BatchStatus.FAILED)
    result: contract.Dispatched = {"batches": batch_dicts(sent), **job.waiting(requests)}
    return Report(result, job.problems, job.worked)


def _undo_claims(job: Dispatch) -> None:
    """Give back what a crash left claimed and unsent, and what a person held or wished cancelled since: harmless, since nothing
    of it reached a create.
    """
    for batch in batches.under_way(job.state.db, BatchStatus.PROCESSING, BatchStatus.UPLOADED):
        if batch.status is BatchStatus.PROCESSING or batch.cancel_at is not None:
            _give_back(job, batch, "an earlier run was interrupted before it was sent")
        elif hold := _held(job, batch):
            _keep_back(job, batch, hold)


def _open(job: Dispatch, visit: Visit, room: Room, provider: Provider) -> Batch | Sent:
    """Claim what is due for a new batch, once the provider has shown itself reachable and the key good, and whose account it is."""
    queue = visit.queue.id
    workload, spec = visit.workload, visit.rendering.spec
    name, text = revision(spec)
    _forget_others(job, queue, name)
    beside = tasks.due_beside(job.state.db, queue, visit.last_id)
    apart = [] if beside else job.apart_now(visit, room)
    if not beside and not apart:
        return Sent.DONE
    before = job.account(provider.name)
    _surveyed(job, provider)
    now = job.account(provider.name)
    if now != before and (room.bounds or quotas.any_of(job.state.db, now)):
        return Sent.EMPTY  # how much room there is has to be decided anew
    with job.state.transaction() as db:
        batch_id = batches.add(
            db,
            queue_id=queue,
            workload=workload.name,
            provider=workload.provider,
            address=job.accounts.address(workload.provider),
            dialect=provider.dialect.name,
            endpoint=spec.endpoint,
            model=spec.model,
            revision=name,
            spec=text,
            tag=new_tag(),
            plan=plans.plan_of(job.config, workload.name).text,
            rendered=ordered(spec),
            account=quotas.account(db, provider.name, job.accounts.address(provider.name)),
            canary=room.canary,
            envelope=provider.dialect.envelope(spec.endpoint),
        )
        claimed = _claim(db, visit, room, batch_id, apart, job.passed)
        if not claimed:
            batches.drop(db, batch_id)
            return Sent.DONE
    return batches.get(job.state.db, batch_id) or Sent.DONE


def _claim(db: Connection, visit: Visit, room: Room, batch_id: int, apart: Sequence[int], passed: Iterable[int]) -> int:
    """Claim for a batch what is due, or these suspects, where there are some; return how many it got.

    Args:
        passed: tasks that were passed over in this run.
    """
    queue = visit.queue.id
    if not apart:
        return tasks.claim(db, queue, batch_id, room.claim, visit.last_id, passed)
    if (first := suspects.of(db, apart[0])) is not None and first.how == "named":
        suspects.alone(db, queue)  # there was no rest to wait for; that some are taken convicts none of the others
    return tasks.claim_suspects(db, queue, batch_id, apart)


def _forget_others(job: Dispatch, queue: int, name: str) -> None:
    """Let the suspects of a queue go that were refused under another revision than the one in which they are sent now."""
    if suspects.others(job.state.db, queue, name):
        with job.state.transaction() as db:
            suspects.clear_others(db, queue, name)


def _surveyed(job: Dispatch, provider: Provider) -> None:
    """See, once a run, that no other copy of this state file has sent anything to a provider. Raises ConfigError."""
    if provider.name not in job.seen:
        recovery.survey(job, provider)
        job.seen.add(provider.name)


def new_tag() -> str:
    """Return 80 random bits as 20 hex digits: never derived from ids, so a copied state file cannot make it again."""
    return secrets.token_hex(10)


def _write(job: Dispatch, batch: Batch, visit: Visit, room: Room) -> Batch | Sent:
    """Write the request file, fail the tasks that cannot be rendered, give back those that did not fit, or never will."""
    load = Load(room, visit.rendering.dialect.frame, visit.gauge(room))
    with going(f"{batch.workload}: writing batch {batch.id}", tasks.outstanding(job.state.db, batch.id)) as step:
        pieces = load.pieces(_rows(job.state, batch, step), visit.rendering.maker(batch.tag, room.limits))
        sealed = spool.write(request_file(job.state, batch), pieces)
    if load.failed and _held_unrendered(job, batch, load, visit.rendering.spec.prompt):
        request_file(job.state, batch).unlink(missing_ok=True)
        return Sent.EMPTY
    plan = plans.plan_of(job.config, batch.workload)
    written: Batch | Sent
    with settle.undoing(job.state, batch, plan) as db:
        unrendered = settle.fail_unrendered(db, batch, load.failed, plan)
        if load.passed:
            why = f"passed over, since its request {load.passed[0][1].words}"
            tasks.put_off(db, batch.id, (task_id for task_id, _ in load.passed), why, db.now + LONGEST_BACKOFF)
            job.passed.update(task_id for task_id, _ in load.passed)
        if load.full is not None or load.last_id:
            tasks.release(db, batch.id, "did not fit into the batch", after=load.last_id)
        if not load.requests:
            if load.failed:
                batches.move(db, batch, BatchStatus.FAILED, "none of its tasks could be rendered", reason="empty")
            else:
                batches.drop(db, batch.id)
            written = Sent.EMPTY if load.full is None else queues.no_room(load.full)
        else:
            expected = load.estimate
            written = batches.note(
                db,
                batch,
                requests=load.requests,
                bytes=sealed.bytes,
                sha256=sealed.sha256,
                basis=expected.basis,
                expected_input=expected.input,
                expected_output=expected.output,
                expected_cost=expected.cost,
                worst_cost=expected.worst,
            )
    job.passed_over(visit, load.passed)
    if load.full is not None and not load.requests:
        job.note_waits(visit.workload, job.pending(visit.queue.id) - job.aside(visit), load.full, visit.model or None)
    in_vain = {one.task_id for one in unrendered if one.falls_back}
    failed = [one for one in load.failed if one[0] not in in_vain]
    job.unrendered(visit.workload, failed, "failed", f"see nura results {batch.workload} --status failed")
    if in_vain:
        job.note(settle.in_vain(batch.workload, Counter({str(ErrorKind.RENDER): len(in_vain)})))
    return written


def _held_unrendered(job: Dispatch, batch: Batch, load: Load, prompt: str | None) -> bool:
    """Return whether the records of a batch cannot be rendered for what is no record's fault; then the workload is held, and none of
    its tasks fails.
    """
    reason = blame.unrendered(job.state.db, outcomes.revision_of(batch), load.failed, load.requests, prompt)
    if reason is None:
        return False
    with job.state.transaction() as db:
        found = holding.hold_by_itself(db, batch.workload, batch.revision, Held.RENDER, reason)
    _give_back(job, batch, reason)
    if found is not None:
        job.note(found)
    return True


def request_file(state: State, batch: Batch) -> Path:
    """Return the path of a batch's request file; where it is uploaded, its name must end in ``.jsonl``."""
    return state.requests / f"{batch.tag}.jsonl"


def _rows(state: State, batch: Batch, step: Step) -> Iterator[tuple[int, bytes]]:
    """Yield (task id, line) of a batch by id, in pages, so that no read is open while the file is written."""
    after = 0
    while rows := tasks.page(state.db, batch.id, after, _PAGE):
        yield from rows
        after = rows[-1][0]
        step.add(len(rows))


def _send(job: Dispatch, batch: Batch, provider: Provider) -> Sent:
    """Upload and create one sealed batch. What fails, or is held, before anything is at the provider gives its tasks back."""
    path = request_file(job.state, batch)
    try:
        if (wish := batches.wish(job.state.db, batch.id)) is not None:
            _give_back(job, batch, wish)
            return Sent.EMPTY
        if provider.dialect.uploads:
            if hold := _held(job, batch):
                return _keep_back(job, batch, hold)
            try:
                with on_disk(path):
                    file_id = provider.upload(path, path.name)
            except Refused as error:
                return _refused(job, batch, error, content=_looked_into(batch, error))
            with job.state.transaction() as db:
                batch = batches.move(db, batch, BatchStatus.UPLOADED, "request file uploaded", input_file_id=file_id)
        else:
            return _create(job, batch, provider, path)
    except (ProviderError, KeyRefused, ConfigError) as error:
        _give_back(job, batch, error.message)
        raise
    finally:
        path.unlink(missing_ok=True)
    return _from_file(job, batch, provider)


def _from_file(job: Dispatch, batch: Batch, provider: Provider) -> Sent:
    """Create a batch from its uploaded file, once the provider is done with that; what fails before goes on in the next run.

    A file that is not ready within the time of this run is left to the next one, and the batches behind it may go.
    """
    try:
        while uploads.waits(provider, batch, job.clock()):
            job.progress(f"{batch.workload}: waiting for the request file of batch {batch.id}")
            if not job.patience.wait():
                return _left_waiting(job, batch)
    except Refused as error:
        if isinstance(error, RateLimited):
            raise
        return _refused(job, batch, error, content=_looked_into(batch, error))
    return _create(job, batch, provider, str(batch.input_file_id))


def _left_waiting(job: Dispatch, batch: Batch) -> Sent:
    """Leave a batch whose file is not ready to the next run; say so once that has lasted, in the provider's words."""
    if waiting.age(batch, job.clock()) >= waiting.UNREADY_LONG_SECONDS:
        message = f"batch {batch.id}: its request file, {batch.input_file_id}, is not ready at {batch.provider}"
        said = f": {batch.reason}" if batch.reason else ""
        job.fail(
            ProviderError(message + said, hint="it is asked after again, and nothing is uploaded twice"), **about(batch)
        )
    return Sent.NOT_READY


def _resume(job: Dispatch, batch: Batch) -> None:
    """Go on with a batch whose file an earlier run uploaded; give its tasks back where its provider has left or moved."""
    try:
        job.accounts.check(batch)
    except ConfigError as error:
        _give_back(job, batch, error.message)
        return
    if _priced_otherwise(job, batch):
        _give_back(job, batch, "the configuration was changed since it was written, and what it costs may be, too")
        return
    provider = job.accounts.provider(batch.provider)
    _surveyed(job, provider)
    _from_file(job, batch, provider)


def _priced_otherwise(job: Dispatch, batch: Batch) -> bool:
    """Return whether a batch counts for a budget, and the prices by which it does may not be today's."""
    if not any(budgets.of(job.config, batch.workload, batch.provider, job.clock())):
        return False
    found = (job.config.path.stat(), job.config.path.lstat())  # one that was put into its place may have an old time
    return max(max(one.st_mtime, one.st_ctime) for one in found) >= batch.created_at


def _create(job: Dispatch, batch: Batch, provider: Provider, source: Path | str) -> Sent:
    """Commit the intent with a marker of the provider's list, send the create once, commit what was answered."""
    intended = _intend(job, batch, recovery.look(job, provider))
    if isinstance(intended, Hold):
        return _keep_back(job, batch, intended)
    if isinstance(intended, Fund):
        _give_back(job, batch, intended.words)
        if (workload := job.config.workloads.get(batch.workload)) is not None:
            wait = Wait(Why.BUDGET, intended.words, intended.budget.end)
            job.note_waits(workload, batch.requests, wait, batch.model or None)
        return Sent.UNFUNDED
    if intended is None:
        _give_back(job, batch, "it was wished cancelled")
        return Sent.EMPTY
    batch = intended
    job.sent.append(batch.id)
    try:
        with on_disk(request_file(job.state, batch)):
            remote = provider.create(source, endpoint=batch.endpoint, tag=batch.tag, state_id=job.state.state_id)
        recovery.check_ours(remote, batch)
    except Unconfirmed as error:  # the one doubtful outcome: recovery finds out, in a later run
        job.blocked |= {batch.provider, *recovery.unproven(job)}
        job.fail(error, provider=batch.provider, workload=batch.workload, batch=batch.id)
        return Sent.STOP
    except (Refused, KeyRefused, Unreachable) as error:
        if isinstance(error, Refused) and uploads.refused_for_now(provider, batch, error, job.clock()):
            return _not_ready(job, batch, error)
        return _refused(job, batch, error, content=provider.dialect.create_reads_requests)
    try:
        batch = recovery.adopt(job.state, batch, remote, job.clock(), "created")
    except OnHold as error:
        job.blocked.add(batch.provider)
        job.fail(error, provider=batch.provider, workload=batch.workload, batch=batch.id)
        return Sent.STOP
    with job.apart(f"batch {batch.id}, cancelling it", ProviderError, KeyRefused, **about(batch)):
        wishes.ask(job.state, provider, batch)  # it may have been wished while the create was under way
    with job.state.transaction() as db:
        whole = runs.route(db, batch.provider)
        runs.learn(db, whole._replace(paused_until=0, failures_in_a_row=0, why=None))
        route = runs.route(db, batch.provider, batch.endpoint, batch.model)
        runs.learn(db, backoff.after_accept(route, batch.requests))
    job.worked = True
    return Sent.TAKEN


def _not_ready(job: Dispatch, batch: Batch, error: Refused) -> Sent:
    """Leave a batch whose create was refused for now to recovery, which looks for it before it is created again."""
    job.sent.remove(batch.id)
    return _left_waiting(job, uploads.note_refused(job.state, batch, error))


def _intend(job: Dispatch, batch: Batch, seen: recovery.Marker) -> Batch | Hold | Fund | None:
    """Commit the intent to create a batch; or return what holds it by now, the budget that has no room for it (any more), or None
    where a person wished it cancelled: of these, nothing is created.
    """
    sent_at = seen.date or job.clock()
    with job.state.transaction() as db:
        if batches.wish(db, batch.id) is not None:
            return None
        return (
            actions.held(db, batch.workload, batch.provider)
            or _passed(job, batch, sent_at)
            or batches.move(
                db,
                batch,
                BatchStatus.SUBMITTING,
                "create is being sent",
                marker=seen.in_json(),
                sent_at=sent_at,
                account=quotas.account(db, batch.provider, batch.address),
                reason=None,
                absent_at=None,
                absent_here=None,
                missed=None,
            )
        )


def _passed(job: Dispatch, batch: Batch, sent_at: int) -> Fund | None:
    """Return the budget that a batch would pass if it were sent at a unix second, or None."""
    for budget in budgets.of(job.config, batch.workload, batch.provider, sent_at):
        cost = batch.worst_cost if budget.basis == "worst" else batch.expected_cost
        found = budgets.fund(job.state.db, budget, but=batch.id)
        if cost is None or cost > found.left:
            return found
    return None


def _held(job: Dispatch, batch: Batch) -> Hold | None:
    """Return what holds a batch's workload or provider at this moment, noted as what is to be said; or None."""
    hold = actions.held(job.state.db, batch.workload, batch.provider)
    if hold is not None:
        job.note_hold(hold)
    return hold


def _keep_back(job: Dispatch, batch: Batch, hold: Hold) -> Sent:
    """Stop before a hold: the tasks go back, to be rendered and sent anew once it is released; an upload costs nothing."""
    job.note_hold(hold)
    _give_back(job, batch, holding.described(hold))
    return Sent.HELD


def _give_back(job: Dispatch, batch: Batch, why: str) -> None:
    """Undo a batch that was surely not created: its tasks wait again, no attempt counted, or are cancelled, as was wished."""
    settle.give_back(job.state, batch, plans.plan_of(job.config, batch.workload), why)


def _refused(job: Dispatch, batch: Batch, error: Refused | KeyRefused | Unreachable, *, content: bool) -> Sent:
    """A certain no: nothing was done, so the tasks go back, and who is to blame fails or is looked for.

    Args:
        content: whether it can be about what the batch holds.
    """
    queue_full = isinstance(error, RateLimited) and any(enqueued.is_full(fault) for fault in _faults(error))
    if isinstance(error, KeyRefused | Unreachable) or (isinstance(error, RateLimited) and not queue_full):
        _give_back(job, batch, error.message)
        job.block(batch.provider, error)
        return Sent.STOP
    job.fail(error, provider=batch.provider, workload=batch.workload, batch=batch.id)
    faults, plan = _faults(error), plans.plan_of(job.config, batch.workload)
    with settle.undoing(job.state, batch, plan) as db:
        refusal = refusals.refused_batch(
            db,
            batch,
            faults,
            plan,
            backoff.jitter(),
            content=(content or _too_large(batch, error)) and not isinstance(error, NotFound),
        )
    if refusal.held is not None:
        job.note(refusal.held)
        return Sent.HELD
    return Sent.STOP if refusal.pause else Sent.REFUSED


def _faults(error: Refused) -> tuple[Rejection, ...]:
    """Return why the provider refused a file or a create: each fault that it names, else what it says of the whole."""
    code = "request_too_large" if error.http_status == _TOO_LARGE else error.code
    return error.faults or (Rejection(code, error.message, None),)


def _looked_into(batch: Batch, error: Refused) -> bool:
    """Return whether a file was refused for what it holds: a line is named, or it is too large."""
    return _too_large(batch, error) or any(fault.line is not None for fault in error.faults)


def _too_large(batch: Batch, error: Refused) -> bool:
    """Return whether a file, or the batch that would be made of it, was refused for its size: by the status or by the words."""
    return any(vendors.reason(batch.dialect, fault) is Reason.TOO_LARGE for fault in _faults(error))
