"""nura dispatch: what waits becomes batches at the providers.

Takes pending tasks; leaves each in a batch that the provider confirmed, or pending again. In order: undo what a crash
left half claimed, resolve what an earlier run left unconfirmed (:mod:`nura_cli.pipeline.recovery`), then, for each
workload that is due, see that its answers will have somewhere to go, and claim → write the request file → upload, where
the vendor wants that → note the intent → create → note the answer. Every arrow is a commit, and no transaction is open
while the network is spoken to.

What can go wrong: a provider that is down, or refuses the key, pauses itself and nothing else; a batch refused for
certain gives its tasks back; a create without an answer stays ``submitting`` until the provider says what became of it.
It holds the dispatch lock, and is the only stage that writes and sweeps ``requests/``.
"""

import json
import random
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from nura_cli.clock import Clock, rfc3339
from nura_cli.config import Config, WorkloadConfig
from nura_cli.dialects.base import Dialect, Fault, Limits, Spec
from nura_cli.errors import (
    EX_TEMPFAIL,
    ConfigError,
    DatabaseDown,
    InputError,
    KeyRefused,
    NotFound,
    NuraError,
    OnHold,
    ProviderError,
    RateLimited,
    Refused,
    Unconfirmed,
    Unreachable,
)
from nura_cli.pipeline import packing, plans, recovery, retry, settle, spool, targets
from nura_cli.pipeline.accounts import Accounts
from nura_cli.pipeline.render import Prompt, revision, spec_of
from nura_cli.pipeline.report import Report, Trouble, batch_dicts, bug, count, trouble
from nura_cli.pricing import Prices, Usage, decimal_dollars
from nura_cli.providers.base import Provider
from nura_cli.state import State, batches, runs, tasks
from nura_cli.state.batches import Batch
from nura_cli.state.disk import on_disk
from nura_cli.state.file import unforeseen
from nura_cli.state.outbox import Plan
from nura_cli.states import BatchStatus

_PAGE = 1000
"""Tasks read at a time while a request file is written."""
_TOO_LARGE = 413
"""HTTP: the request, a request file or what is made of it, is larger than the provider takes."""
_MOST_REFUSALS = 40
"""Refused batches of one lane after which the search for the culprit goes on in the next run."""


class Sent(Enum):
    """How a create ended, as far as the lane it came from is concerned."""

    TAKEN = "taken"
    REFUSED = "refused"  # for its content: what is left is sent in other batches
    STOP = "stop"  # nothing more of this lane in this run


@dataclass(slots=True)
class Dispatch:
    """One run of the stage: what it works with, and what it has done so far."""

    state: State
    config: Config
    accounts: Accounts
    clock: Clock
    ignore_waits: bool = False
    sent: list[int] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    blocked: set[str] = field(default_factory=set)
    not_due: dict[str, int] = field(default_factory=lambda: {"threshold": 0, "backoff": 0, "paused": 0})
    seen: set[str] = field(default_factory=set)
    worked: bool = False

    def fail(
        self, error: NuraError, *, provider: str | None = None, workload: str | None = None, batch: int | None = None
    ) -> None:
        """Note a trouble; the run goes on."""
        self.troubles.append(trouble(error, provider=provider, workload=workload, batch=batch))

    def bug(self, error: Exception, about: str, batch: Batch | None = None, *, workload: str | None = None) -> None:
        """Note what nobody foresaw about one part of the run; the others go on."""
        name, workload = (batch.provider, batch.workload) if batch else (None, workload)
        self.troubles.append(bug(error, about, provider=name, workload=workload, batch=batch.id if batch else None))

    def plan(self, batch: Batch) -> Plan:
        """Return what the answers of a batch set off."""
        return plans.plan_of(self.config, batch.workload)


def run(
    state: State,
    config: Config,
    accounts: Accounts,
    clock: Clock,
    *,
    workloads: Sequence[str] = (),
    ignore_waits: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> Report:
    """Recover, then send what is due.

    Args:
        workloads: send only these (all, when empty); recovery concerns every batch.
        ignore_waits: send what waits without regard to thresholds, backoff and outage pauses (``--now``).
        progress: told in words what is going on.

    Returns:
        ``batches`` sent or settled in this run, ``requests`` in them, ``not_due`` tasks by reason, and ``unconfirmed``
        batches left.

    Raises:
        UsageError: a workload is not configured; nothing was done.
    """
    chosen = [config.workload(name) for name in workloads or config.workloads]
    job = Dispatch(state, config, accounts, clock, ignore_waits)
    spool.sweep(state.requests, set())
    _undo_claims(job)
    recovery.resolve(state, accounts, clock, job)
    job.blocked |= recovery.unproven(state, accounts)
    for batch in batches.under_way(state.db, BatchStatus.UPLOADED):
        if batch.provider not in job.blocked:
            progress(f"batch {batch.id}: going on from its uploaded file")
            _guarded(job, batch.provider, batch.workload, partial(_resume, job, batch))
    for workload in chosen:
        _guarded(job, workload.provider, workload.name, partial(_send_workload, job, workload, progress))
    return _report(job)


def _report(job: Dispatch) -> Report:
    sent = [batch for batch_id in job.sent if (batch := batches.get(job.state.db, batch_id))]
    result: dict[str, Any] = {
        "batches": batch_dicts(sent),
        "requests": sum(batch.requests for batch in sent if batch.status is not BatchStatus.FAILED),
        "not_due": job.not_due,
        "unconfirmed": len(batches.under_way(job.state.db, BatchStatus.SUBMITTING)),
    }
    return Report(result, job.troubles, job.worked)


def _undo_claims(job: Dispatch) -> None:
    """Give back what a crash left claimed and unsent: harmless, since nothing of it reached a create."""
    for batch in batches.under_way(job.state.db, BatchStatus.PROCESSING):
        with job.state.transaction() as db:
            tasks.release(db, batch.id, job.clock(), "an earlier run was interrupted")
            batches.move(
                db, batch, BatchStatus.FAILED, job.clock(), "interrupted before it was sent", reason="interrupted"
            )


def _guarded(job: Dispatch, provider: str, workload: str, work: Callable[[], None]) -> None:
    """Do one provider's or workload's work; its failure is noted and concerns no other."""
    try:
        work()
    except (KeyRefused, RateLimited, Unreachable) as error:
        _block(job, provider, error)
    except (ProviderError, ConfigError) as error:
        job.fail(error, provider=provider, workload=workload)
    except Exception as error:
        if not unforeseen(error):
            raise
        job.bug(error, f"workload {workload}", workload=workload)


def _block(job: Dispatch, provider: str, error: ProviderError | KeyRefused) -> None:
    """Leave a provider alone for the rest of the run, and for a while after an outage."""
    job.blocked.add(provider)
    job.fail(error, provider=provider)
    if not isinstance(error, KeyRefused):
        with job.state.transaction() as db:
            route = runs.route(db, provider)
            rest = retry.after_outage(route, error.message, error.retry_after, job.clock(), random.random())  # noqa: S311 - jitter
            runs.learn(db, rest)


def _send_workload(job: Dispatch, workload: WorkloadConfig, progress: Callable[[str], None]) -> None:
    now = job.clock()
    horizon = now + retry.LONGEST_BACKOFF
    lanes = [lane for lane in tasks.lanes(job.state.db) if lane.workload == workload.name]
    if not _is_due(job, workload, lanes, now, horizon):
        return
    if workload.provider in job.blocked:
        _hold(job, "paused", lanes)
        return
    rest = runs.route(job.state.db, workload.provider)
    if not job.ignore_waits and retry.until(rest.paused_until, now):
        _hold(job, "backoff", lanes)
        text = f"{workload.provider} is left alone until {rfc3339(rest.paused_until)}: {rest.why}"
        job.troubles.append(Trouble("unreachable", text, EX_TEMPFAIL, provider=workload.provider))
        return
    try:
        targets.checked(job.state, workload, job.config)
    except (ConfigError, DatabaseDown) as error:
        job.fail(error, workload=workload.name)
        return
    upto = tasks.last_id(job.state.db)
    for lane in lanes:
        _guarded(job, workload.provider, workload.name, partial(_send_lane, job, workload, lane, upto, progress))


def _is_due(job: Dispatch, workload: WorkloadConfig, lanes: list[tasks.Lane], now: int, horizon: int) -> bool:
    db, rule = job.state.db, workload.dispatch
    least = 1 if job.ignore_waits else rule.min_requests
    if job.ignore_waits:
        horizon = -1
    waiting = sum(tasks.due_count(db, lane.id, now, horizon, least) for lane in lanes)
    oldest = min(
        (at for lane in lanes if (at := tasks.oldest_due(db, lane.id, now, horizon)) is not None), default=None
    )
    if packing.due(waiting, oldest, least, rule.max_wait, now):
        return True
    _hold(job, "threshold" if waiting else "backoff", lanes)
    return False


def _hold(job: Dispatch, why: str, lanes: list[tasks.Lane]) -> None:
    job.not_due[why] += sum(tasks.pending_count(job.state.db, lane.id) for lane in lanes)


def _send_lane(
    job: Dispatch, workload: WorkloadConfig, lane: tasks.Lane, upto: int, progress: Callable[[str], None]
) -> None:
    """Send all that is due of one lane, batch by batch."""
    provider = job.accounts.provider(workload.provider)
    dialect = provider.dialect
    if lane.dialect and lane.dialect != dialect.name:
        raise ConfigError(
            f"workload {workload.name}: {lane.dialect} lines wait in it, and its provider takes {dialect.name} ones",
            hint=f"set its provider to one that speaks {lane.dialect}",
            workload=workload.name,
        )
    if bool(lane.dialect) == workload.has_prompt:
        kind = "ready lines" if lane.dialect else "records"
        raise ConfigError(
            f"workload {workload.name}: {kind} wait in it, and with its prompt {'set' if lane.dialect else 'gone'} they cannot be sent",
            hint="use another workload's name for the other kind",
            workload=workload.name,
        )
    spec = spec_of(workload, dialect, lane.endpoint, lane.model)
    refusals = 0
    while workload.provider not in job.blocked and refusals < _MOST_REFUSALS:
        route = runs.route(job.state.db, workload.provider, spec.endpoint, spec.model)
        if not job.ignore_waits and retry.until(route.paused_until, job.clock()):
            _hold(job, "paused", [lane])
            return
        limits = job.accounts.limits(workload.provider)
        aim = _aim(job, workload, spec)
        if aim == 0:
            _hold(job, "paused", [lane])
            return
        batch = _open(job, workload, lane, spec, provider, route, limits, upto)
        if batch is None:
            return
        progress(f"{workload.name}: writing batch {batch.id}")
        sealed = _write(job, batch, workload, spec, dialect, limits, aim)
        if sealed is not None:
            progress(f"{workload.name}: sending batch {batch.id}, {count(sealed.requests, 'request')}")
            sent = _send(job, sealed, provider)
            if sent is Sent.STOP:
                return
            refusals += sent is Sent.REFUSED


def _aim(job: Dispatch, workload: WorkloadConfig, spec: Spec) -> int | None:
    """Return how many bytes fit under the configured cap on enqueued tokens; None without one."""
    cap = job.config.providers[workload.provider].limits.enqueued_tokens
    if cap is None:
        return None
    waiting = sum(
        batch.bytes
        for batch in batches.under_way(job.state.db)
        if batch.provider == workload.provider and batch.model == spec.model
    )
    return packing.token_room(cap, waiting)


def _open(
    job: Dispatch,
    workload: WorkloadConfig,
    lane: tasks.Lane,
    spec: Spec,
    provider: Provider,
    route: runs.Route,
    limits: Limits,
    upto: int,
) -> Batch | None:
    """Claim what is due for a new batch, once the provider has shown itself reachable and the key good."""
    now = job.clock()
    horizon = -1 if job.ignore_waits else now + retry.LONGEST_BACKOFF
    if not tasks.due_count(job.state.db, lane.id, now, horizon, 1):
        return None
    _surveyed(job, provider)
    name, text = revision(spec)
    with job.state.transaction() as db:
        batch_id = batches.add(
            db,
            lane_id=lane.id,
            workload=workload.name,
            provider=workload.provider,
            address=job.accounts.address(workload.provider),
            dialect=provider.dialect.name,
            endpoint=spec.endpoint,
            model=spec.model,
            revision=name,
            spec=text,
            tag=new_tag(),
            at=now,
            plan=plans.plan_of(job.config, workload.name).text,
        )
        most = min(limits.requests, route.cap or limits.requests)
        if not tasks.claim(db, lane.id, batch_id, most, now, horizon, upto):
            batches.drop(db, batch_id)
            return None
        return batches.get(db, batch_id)


def _surveyed(job: Dispatch, provider: Provider) -> None:
    """See, once a run, that no other copy of this state file has sent anything to a provider. Raises ConfigError."""
    if provider.name not in job.seen:
        recovery.survey(job.state, job.accounts, provider, job.clock)
        job.seen.add(provider.name)


def new_tag() -> str:
    """Return 80 random bits as 20 hex digits: never derived from ids, so a copied state file cannot make it again."""
    return secrets.token_hex(10)


def _write(
    job: Dispatch,
    batch: Batch,
    workload: WorkloadConfig,
    spec: Spec,
    dialect: Dialect,
    limits: Limits,
    aim: int | None,
) -> Batch | None:
    """Write the request file, fail the tasks that cannot be rendered, give back those that did not fit."""
    sealed = spool.write(
        request_file(job.state, batch),
        _rows(job.state, batch),
        body_maker(workload, spec, dialect),
        dialect=dialect,
        endpoint=spec.endpoint,
        tag=batch.tag,
        limits=limits,
        aim=aim,
    )
    with job.state.transaction() as db:
        now = job.clock()
        settle.fail_unrendered(db, batch, sealed.failed, plans.plan_of(job.config, batch.workload), now)
        if sealed.last_id:
            tasks.release(db, batch.id, now, "did not fit into the batch", after=sealed.last_id)
        if not sealed.requests:
            batches.move(db, batch, BatchStatus.FAILED, now, "none of its tasks could be rendered", reason="empty")
            written = None
        else:
            written = batches.note(db, batch, requests=sealed.requests, bytes=sealed.bytes, sha256=sealed.sha256)
    if sealed.failed:
        job.worked = True
        first = f"task {sealed.failed[0][0]}: {sealed.failed[0][1]}"
        message = (
            f"{workload.name}: {count(len(sealed.failed), 'task')} failed, since no prompt can be rendered; {first}"
        )
        job.fail(InputError(message, hint=f"see nura results {workload.name} --status failed"), workload=workload.name)
    return written


def request_file(state: State, batch: Batch) -> Path:
    """Return the path of a batch's request file; where it is uploaded, its name must end in ``.jsonl``."""
    return state.requests / f"{batch.tag}.jsonl"


def _rows(state: State, batch: Batch) -> Iterator[tuple[int, bytes]]:
    """Yield (task id, line) of a batch by id, in pages, so that no read is open while the file is written."""
    after = 0
    while rows := tasks.page(state.db, batch.id, after, _PAGE):
        yield from rows
        after = rows[-1][0]


def body_maker(workload: WorkloadConfig, spec: Spec, dialect: Dialect) -> Callable[[bytes], bytes]:
    """Return a function from a kept line to a request's body: rendered from a record, or the bytes as they came."""
    if spec.prompt is None:
        return lambda line: line
    prompt = Prompt(spec.prompt, workload.name)
    wrap = dialect.body(spec)
    decode = msgspec.json.Decoder(dict[str, Any]).decode  # the line was checked when it was enqueued

    def body(line: bytes) -> bytes:
        try:
            return wrap(prompt.render(decode(line)))
        except UnicodeEncodeError as error:
            raise InputError("its prompt has a lone surrogate") from error

    return body


def _send(job: Dispatch, batch: Batch, provider: Provider) -> Sent:
    """Upload and create one sealed batch. What fails before the create is sent gives its tasks back."""
    path = request_file(job.state, batch)
    try:
        if provider.dialect.uploads:
            with on_disk(path):
                file_id = provider.upload(path, path.name)
            with job.state.transaction() as db:
                batch = batches.move(
                    db, batch, BatchStatus.UPLOADED, job.clock(), "request file uploaded", input_file_id=file_id
                )
        return _create(job, batch, provider, batch.input_file_id or path)
    except (ProviderError, KeyRefused, ConfigError) as error:
        if isinstance(error, Refused) and error.http_status == _TOO_LARGE:
            return _refused(job, batch, error, content=True)
        _give_back(job, batch, error)
        raise
    finally:
        path.unlink(missing_ok=True)


def _resume(job: Dispatch, batch: Batch) -> None:
    """Go on with a batch whose file an earlier run uploaded; give its tasks back where its provider has left or moved."""
    try:
        job.accounts.check(batch)
    except ConfigError as error:
        _give_back(job, batch, error)
        return
    provider = job.accounts.provider(batch.provider)
    _surveyed(job, provider)
    _create(job, batch, provider, str(batch.input_file_id))


def _create(job: Dispatch, batch: Batch, provider: Provider, source: Path | str) -> Sent:
    """Commit the intent with a marker of the provider's list, send the create once, commit what was answered."""
    seen = recovery.look(job.state, provider, job.accounts, job.clock)
    with job.state.transaction() as db:
        batch = batches.move(
            db,
            batch,
            BatchStatus.SUBMITTING,
            job.clock(),
            "create is being sent",
            marker=json.dumps(seen._asdict()),
            sent_at=seen.date or job.clock(),
        )
    job.sent.append(batch.id)
    try:
        with on_disk(request_file(job.state, batch)):
            remote = provider.create(source, endpoint=batch.endpoint, tag=batch.tag, state_id=job.state.state_id)
        recovery.check_ours(remote, batch)
    except Unconfirmed as error:  # the one doubtful outcome: recovery finds out, in a later run
        job.blocked |= {batch.provider, *recovery.unproven(job.state, job.accounts)}
        job.fail(error, provider=batch.provider, workload=batch.workload, batch=batch.id)
        return Sent.STOP
    except (Refused, KeyRefused, Unreachable) as error:
        return _refused(job, batch, error, content=provider.dialect.create_reads_requests)
    try:
        recovery.adopt(job.state, batch, remote, job.clock(), "created")
    except OnHold as error:
        job.blocked.add(batch.provider)
        job.fail(error, provider=batch.provider, workload=batch.workload, batch=batch.id)
        return Sent.STOP
    with job.state.transaction() as db:
        whole = runs.route(db, batch.provider)
        runs.learn(db, whole._replace(paused_until=0, strikes=0, why=None))
        route = runs.route(db, batch.provider, batch.endpoint, batch.model)
        runs.learn(db, retry.after_accept(route, batch.requests))
    job.worked = True
    return Sent.TAKEN


def _give_back(job: Dispatch, batch: Batch, error: NuraError) -> None:
    """Undo a batch that was surely not created: its tasks wait again, no attempt counted."""
    with job.state.transaction() as db:
        now = job.clock()
        tasks.release(db, batch.id, now, error.message)
        batches.move(db, batch, BatchStatus.FAILED, now, error.message, reason=error.message)


def _refused(job: Dispatch, batch: Batch, error: Refused | KeyRefused | Unreachable, *, content: bool) -> Sent:
    """A certain no: nothing was done, so the tasks go back, and the one to blame fails if it is known.

    Args:
        content: whether it can be about what the batch holds.
    """
    if isinstance(error, KeyRefused | RateLimited | Unreachable):
        _give_back(job, batch, error)
        _block(job, batch.provider, error)
        return Sent.STOP
    job.fail(error, provider=batch.provider, workload=batch.workload, batch=batch.id)
    if isinstance(error, NotFound):
        _give_back(job, batch, error)
        return Sent.STOP
    code = "request_too_large" if error.http_status == _TOO_LARGE else error.code
    faults = (Fault(code, error.message, None),)
    plan = plans.plan_of(job.config, batch.workload)
    with job.state.transaction() as db:
        refusal = settle.refused_batch(
            db,
            batch,
            faults,
            plan,
            job.clock(),
            random.random(),  # noqa: S311 - jitter
            content=content,
        )
    return Sent.STOP if refusal.pause else Sent.REFUSED


def plan(
    state: State, config: Config, dialects: Callable[[str], Dialect], clock: Clock, workloads: Sequence[str]
) -> Report:
    """Say what a run would send (``--dry-run``): renders what waits, writes nothing, speaks to nobody."""
    now = clock()
    horizon = now + retry.LONGEST_BACKOFF
    planned: list[dict[str, Any]] = []
    failing: list[Trouble] = []
    for workload in [config.workload(name) for name in workloads or config.workloads]:
        dialect = dialects(workload.provider)
        prices = Prices(dialect.price_list, config.providers[workload.provider].base_url)
        set_ = config.providers[workload.provider].limits
        limits = packing.lowered(dialect.limits, set_.requests, set_.bytes, set_.inputs)
        lanes = [lane for lane in tasks.lanes(state.db) if lane.workload == workload.name]
        waiting = sum(
            tasks.due_count(state.db, lane.id, now, horizon, workload.dispatch.min_requests) for lane in lanes
        )
        ages = [at for lane in lanes if (at := tasks.oldest_due(state.db, lane.id, now, horizon)) is not None]
        is_due = packing.due(
            waiting, min(ages, default=None), workload.dispatch.min_requests, workload.dispatch.max_wait, now
        )
        for lane in lanes:
            spec = spec_of(workload, dialect, lane.endpoint, lane.model)
            rows = _pending(state, lane.id, now, horizon)
            lane_plan = _plan_lane(workload, spec, dialect, limits, rows, is_due, failing)
            for batch in lane_plan:
                cost = prices.cost(spec.model, Usage(batch["estimated_tokens"]))
                batch["estimated_cost"] = decimal_dollars(cost.paid) if cost else None
            planned += lane_plan
    result = {"batches": planned, "requests": sum(batch["requests"] for batch in planned)}
    return Report(result, failing, worked=True)


def _pending(state: State, lane: int, now: int, horizon: int) -> Iterator[tuple[int, bytes]]:
    after = 0
    while rows := tasks.pending_page(state.db, lane, now, horizon, after, _PAGE):
        yield from rows
        after = rows[-1][0]


def _plan_lane(
    workload: WorkloadConfig,
    spec: Spec,
    dialect: Dialect,
    limits: Limits,
    rows: Iterator[tuple[int, bytes]],
    is_due: bool,
    failing: list[Trouble],
) -> list[dict[str, Any]]:
    body = body_maker(workload, spec, dialect)
    planned: list[dict[str, Any]] = []
    size = 0
    for task_id, line in rows:
        try:
            request = len(dialect.request(b"x" * 36, spec.endpoint, body(line))) + 1
        except InputError as error:
            failing.append(
                Trouble("input", f"{workload.name}: task {task_id}: {error.message}", 3, workload=workload.name)
            )
            continue
        if not planned or planned[-1]["requests"] >= limits.requests or size + request > limits.bytes:
            planned.append(
                {
                    "workload": workload.name,
                    "provider": workload.provider,
                    "endpoint": spec.endpoint,
                    "model": spec.model or None,
                    "revision": revision(spec)[0],
                    "due": is_due,
                    "requests": 0,
                    "bytes": 0,
                    "estimated_tokens": 0,
                }
            )
            size = 0
        size += request
        last = planned[-1]
        last["requests"] += 1
        last["bytes"] = size
        last["estimated_tokens"] = size // packing.BYTES_PER_TOKEN
    return planned
