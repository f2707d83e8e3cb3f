"""nura try: some records at once, by the vendor's synchronous call, at list price: what a batch would make of them.

Takes records (of a file, of a source, or those of tasks); leaves tasks and the application's database as they are. Each is
rendered as dispatch does, sent once, one after the other, and judged as reconcile does. What it used and cost goes into the
ledger: the request is entered before it is sent, at an unknown cost, and what it came to afterwards.

What can go wrong: a record that cannot be rendered, or that the provider refuses, is told, and the next one is tried; a
provider that is down, asks to be left alone or refuses the key ends it. A request that was sent and has no answer (the
connection broke, or somebody stopped it) may have been paid for: its cost stays unknown. Nothing is sent a second time.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from nura_cli import contract
from nura_cli.config import Config, WorkloadConfig
from nura_cli.delivery.expressions import compiled, plain_document
from nura_cli.dialects.base import Dialect, ResultLine, Spec
from nura_cli.dialects.measures import estimate_input
from nura_cli.errors import (
    EX_PARTIAL,
    InputError,
    KeyRefused,
    OnHold,
    ProblemKind,
    ProviderError,
    RateLimited,
    Refused,
    Unconfirmed,
    UsageError,
)
from nura_cli.pipeline import budgets, estimate, holding, render
from nura_cli.pipeline.accounts import Accounts
from nura_cli.pipeline.classify import Classifier, Verdict, scrubbed
from nura_cli.pipeline.documents import Documents
from nura_cli.pipeline.estimate import Gauge, Weight
from nura_cli.pipeline.lines import shown
from nura_cli.pipeline.report import Problem, Report, problem
from nura_cli.pricing import Prices, decimal_dollars
from nura_cli.state import Connection, State, actions, keys, tasks, trials, versions
from nura_cli.state.actions import Hold
from nura_cli.state.answers import Charge, Row, Spending
from nura_cli.state.selection import Selection

_ANSWERED = 200
_encode = msgspec.json.Encoder(decimal_format="number").encode


class Record(NamedTuple):
    """What is tried: its key as JSON, the line as it would be kept; a ready line's endpoint and model, which others lack."""

    key: str
    line: bytes
    endpoint: str = ""
    model: str = ""


def waiting(state: State, workload: str, most: int) -> list[Record]:
    """Return the records of up to ``most`` tasks of a workload that wait, those first that would be sent first."""
    pages = tasks.waiting(state.db, Selection(workloads=[workload]), tasks.last_id(state.db))
    return [_record(state, workload, one.key) for one in islice((one for page in pages for one in page), most)]


def of_keys(state: State, workload: str, keys: Sequence[str]) -> list[Record]:
    """Return the records of the tasks that stand for these keys (in their text form). Raises UsageError: one is nobody's."""
    found: list[Record] = []
    for key in dict.fromkeys(keys):
        named = versions.named(state.db, Selection(workloads=[workload], keys=[key]), 1)
        if not named:
            raise UsageError(f"{workload} has no key {shown(key)}", hint="the records of a file can be tried, too")
        found.append(_record(state, workload, named[0].key))
    return found


def _record(state: State, workload: str, key: str) -> Record:
    every = versions.versions(state.db, workload, keys.identity(msgspec.json.decode(key)))
    one = next(version for version in every if version.stands)
    if one.line is None:
        raise UsageError(f"{workload}, key {key}: purged, there is nothing to try")
    return Record(key, one.line, one.endpoint, one.model)


class Request(NamedTuple):
    """A record as it would be sent: what it is rendered with, its prompt (None of a ready line), and the bytes of its body."""

    record: Record
    spec: Spec
    prompt: str | None
    body: bytes


@dataclass(kw_only=True)
class Trial:
    """What is about to be tried.

    Attributes:
        requests: those that can be sent.
        problems: why others cannot.
        hold: what holds the workload, which keeps nobody from trying what was mended; None for most.
    """

    state: State
    config: Config
    accounts: Accounts
    workload: WorkloadConfig
    requests: list[Request] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    hold: Hold | None = None

    @property
    def dialect(self) -> Dialect:
        """The vendor's dialect."""
        return self.accounts.dialect(self.workload.provider)

    @property
    def prices(self) -> Prices:
        """The price list of the provider."""
        return estimate.prices_of(self.config, self.workload.provider, self.dialect)


def plan(state: State, config: Config, accounts: Accounts, workload: str, records: Sequence[Record]) -> Trial:
    """Render what is to be tried; nothing is sent.

    Raises:
        UsageError: the provider answers no single request there.
        OnHold: the provider is held.
    """
    job = Trial(state=state, config=config, accounts=accounts, workload=config.workload(workload))
    job.hold = actions.held(state.db, workload, "")
    _check_free(state.db, job)
    for record in records:
        try:
            job.requests.append(_request(job, record))
        except InputError as error:
            job.problems.append(_about(job, record, problem(error)))
    return job


def _check_free(db: Connection, job: Trial) -> None:
    """Check that nothing holds the provider, nor anything the workload that did not when this began.

    Raises:
        OnHold: it does.
    """
    hold = actions.held(db, "", job.workload.provider)
    if hold is None and job.hold is None:
        hold = actions.held(db, job.workload.name, "")
    if hold is not None:
        raise OnHold(holding.described(hold), new=True, hint=holding.release_command(hold))


def _request(job: Trial, record: Record) -> Request:
    rendering = render.rendering(job.workload, job.dialect, record.endpoint, record.model)
    spec = rendering.spec
    if spec.endpoint not in job.dialect.at_once:
        where = f"at {spec.endpoint} outside of a batch"
        raise UsageError(f"{job.workload.name}: {job.workload.provider} answers no request {where}")
    body = rendering.body(record.line)
    return Request(record, spec, render.prompt_of(job.workload.name, spec, record.line), body)


def _about(job: Trial, record: Record, found: Problem) -> Problem:
    text = f"{job.workload.name} {record.key}: {found.message}"
    return Problem(found.kind, text, found.exit_code, found.hint, job.workload.provider, job.workload.name)


class Price(NamedTuple):
    """What requests may cost at list price, in pico-dollars: about so much for their input, and at most so much for what is
    answered; None where that is not known, or nothing limits it.
    """

    input: int | None
    output: int | None


def price(job: Trial) -> Price:
    """Return what the requests may come to."""
    inputs: list[int | None] = []
    outputs: list[int | None] = []
    for one in job.requests:
        rates = job.prices.rates(one.spec.model, listed=True)
        found = job.dialect.measure(one.spec.endpoint, one.body)
        given = None if rates is None else rates.expected(estimate_input(found), 0)
        inputs.append(given)
        if rates is None or given is None or found.most_output is None:
            outputs.append(None)
        else:
            outputs.append(rates.expected(estimate_input(found), found.most_output) - given)
    return Price(_sum(inputs), _sum(outputs))


def _sum(costs: Sequence[int | None]) -> int | None:
    """Return all of them together, or None where one is not known."""
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None


def run(job: Trial, *, told: Callable[[contract.Tried], None] = lambda trial: None) -> Report:
    """Send the requests, one after the other, and say what came of each.

    Args:
        told: gets each as soon as it is there.

    Returns:
        ``trials``, each with its prompt, answer, columns and cost; ``cost`` of all; and for ``waiting`` tasks of the workload
        about what they would cost in batches, at the mean of these.
    """
    found: list[contract.Tried] = []
    charges: list[Charge] = []
    for trial, charge in _tried(job):
        charges.append(charge)
        found.append(trial)
        told(trial)
    return Report(_result(job, found, charges), job.problems, worked=bool(found))


def _tried(job: Trial) -> Iterator[tuple[contract.Tried, Charge]]:
    """Try one request after the other; yield what is told of each that was answered, and what it had cost in a batch."""
    documents, provider = Documents(job.state, job.config), job.accounts.provider(job.workload.provider)
    for request in job.requests:
        try:
            number, queue = _begin(job, request)
            response = provider.answer(request.spec.endpoint, request.body)
        except OnHold as error:  # since this began: nothing more is sent
            job.problems.append(problem(error))
            return
        except Unconfirmed as error:
            hint = "it may have been answered, and paid for: its cost counts as unknown"
            job.problems.append(_about(job, request.record, replace(problem(error), hint=hint)))
            return
        except (KeyRefused, ProviderError) as error:
            _end(job, number, queue, str(error.kind), Charge())
            job.problems.append(_about(job, request.record, problem(error)))
            if not isinstance(error, Refused) or isinstance(error, RateLimited):
                return
            continue
        verdict = _judged(job, request, response)
        spent = verdict.charge._replace(cost=verdict.charge.list_cost)  # at once, the list price is what is paid
        _end(job, number, queue, verdict.failure.kind if verdict.failure else "answered", spent)
        if verdict.failure is not None:
            failed = Problem(ProblemKind.TASK, f"{verdict.failure.kind}: {verdict.failure.message}", EX_PARTIAL)
            job.problems.append(_about(job, request.record, failed))
        yield _told(job, documents, request, verdict._replace(charge=spent)), verdict.charge


def _begin(job: Trial, request: Request) -> tuple[int, int]:
    """Enter a request before it is sent; return its number in the ledger, and its queue.

    Raises:
        OnHold: somebody holds the provider, or the workload, by now; or a budget has no room for it.
    """
    name, record = job.workload.name, request.record
    dialect = job.dialect.name if record.endpoint else ""
    with job.state.transaction() as db:
        _check_free(db, job)
        weight = _weight(job, request)
        _check_budgets(db, job, weight)
        queue = tasks.queue_id(db, tasks.workload_id(db, name), dialect, record.endpoint, record.model)
        costs = weight.expected, weight.worst
        number = trials.begin(db, queue, job.workload.provider, request.spec.model, *costs)
        actions.note(db, "try", f"1 request is tried at once: key {record.key}", 1, workload=name)
    return number, queue


def _weight(job: Trial, request: Request) -> Weight:
    """Return what a request may come to at list price."""
    rates = job.prices.rates(request.spec.model, listed=True)
    measure = partial(job.dialect.measure, request.spec.endpoint)
    return Gauge(measure, rates, None, bounded=True).weigh(request.body, len(request.body))


def _check_budgets(db: Connection, job: Trial, weight: Weight) -> None:
    """Check that no budget is passed by a request; what one batch may cost is none of its. Raises OnHold: one may be."""
    for budget in budgets.of(job.config, job.workload.name, job.workload.provider, db.now):
        cost, found = (weight.worst if budget.basis == "worst" else weight.expected), budgets.fund(db, budget)
        if budget.start is not None and (cost is None or cost > found.left):
            about = (
                "what it costs is not known" if cost is None else f"up to {budgets.short_dollars(cost)} at list price"
            )
            raise OnHold(f"{found.words}; {about}", new=True, hint="set a larger budget, or wait until it opens")


def _end(job: Trial, number: int, queue: int, outcome: str, spent: Charge) -> None:
    with job.state.transaction() as db:
        trials.end(db, number, queue, outcome, spent)


def _judged(job: Trial, request: Request, response: bytes) -> Verdict:
    judge = Classifier(job.dialect, request.spec, job.prices, accept_truncated=job.workload.accept_truncated)
    return scrubbed(judge.classify(ResultLine("", response, http_status=_ANSWERED)))


# --- what is told


def _told(job: Trial, documents: Documents, request: Request, verdict: Verdict) -> contract.Tried:
    """Return what is told of one request: prompt, answer, whether it fits the schema, columns, tokens and cost."""
    record, spec, charge, failure = request.record, request.spec, verdict.charge, verdict.failure
    status, now = "failed" if failure else "completed", job.state.clock()
    why = failure[:4] if failure else (None, None, None, None)
    row = Row(
        seq=0,
        task_id=0,
        workload=job.workload.name,
        key=record.key,
        line=record.line,
        status=status,
        finished_at=now,
        enqueued_at=now,
        attempts=1,
        error_kind=why[0],
        error_code=why[2],
        http_status=why[3],
        error_message=why[1],
        body=verdict.body,
        batch_id=None,
        revision=render.revision(spec)[0],
        provider=job.workload.provider,
        dialect=spec.dialect,
        endpoint=spec.endpoint,
        model=spec.model,
        tag=None,
    )
    document = documents.of_one(row, Spending(*charge[:5]), spec)
    return {
        "key": _plain(document["key"]),
        "status": "failed" if failure else "completed",
        "text": document["text"],
        "json": _plain(document["json"]),
        "finish_reason": document["finish_reason"],
        "error": document["error"],
        "model": document["model"],
        "cost": document["cost"],
        "usage": {**document["usage"], "cache_write_tokens": charge.cache_write_tokens},
        "system": spec.system,
        "prompt": request.prompt,
        "fits": None if spec.answer_schema is None else failure is None,
        "columns": _columns(job.workload, document),
    }


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; None for one that no reader takes."""
    try:
        return msgspec.json.decode(_encode(value))
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def _columns(workload: WorkloadConfig, document: contract.Answer) -> list[contract.TriedColumn]:
    """Return what each column of the application's row would be given; whether it takes it, only the database knows."""
    options = workload.write_back
    if options is None:
        return []
    done = document["status"] == "completed"
    name, sets = ("set", options.set_) if done else ("set_failed", options.set_failed)
    return [
        _column(option, column, expression, document)
        for option, given in (("where", options.where), (name, sets))
        for column, expression in given.items()
    ]


def _column(option: str, column: str, expression: str, document: contract.Answer) -> contract.TriedColumn:
    try:
        value = _plain(compiled(expression)(plain_document(document)))
    except ValueError as error:
        return {"option": option, "column": column, "value": None, "error": str(error)}
    return {"option": option, "column": column, "value": value, "error": None}


def _result(job: Trial, found: list[contract.Tried], charges: Sequence[Charge]) -> contract.Trials:
    waiting = sum(
        tasks.pending_count(job.state.db, queue.id)
        for queue in tasks.queues(job.state.db)
        if queue.workload == job.workload.name
    )
    known = [one for one in charges if one.cost is not None and one.list_cost is not None]
    unanswered = sum(one.kind is ProblemKind.UNCONFIRMED for one in job.problems)
    mean = sum(one.cost or 0 for one in known) // len(known) if known else None
    return {
        "workload": job.workload.name,
        "provider": job.workload.provider,
        "trials": found,
        "cost": {
            "currency": "USD",
            "paid": decimal_dollars(sum(one.list_cost or 0 for one in known)),
            "unpriced_attempts": len(charges) - len(known) + unanswered,
        },
        "waiting": {"tasks": waiting, "estimated_cost": None if mean is None else decimal_dollars(mean * waiting)},
    }
