"""nura reconcile: every task of a finished batch is accounted for, then the application is told.

Takes ``completed`` batches and the results that poll left in the spool; leaves each of their tasks settled or waiting for
another attempt, and the batch ``reconciled``. Lines come in any order; a line is applied only when it bears the batch's
tag and names a task that belongs to the batch now. One transaction holds a chunk's task changes, answers and outgoing
deliveries; the last one also makes the batch final, so a crash in between is simply run again. Tasks that a provider named
when it refused their batch fail once it has taken another one. Then what a person wished forgotten while it was under way is
forgotten (:mod:`nura_cli.pipeline.forgetting`), what is due in the outbox is delivered (:mod:`nura_cli.pipeline.deliver`), and what is older than its
workload's ``retention`` is dropped (:mod:`nura_cli.pipeline.retention`).

What can go wrong: a spool file gone or damaged sends its batch back to be fetched again; a line that cannot be read is
kept, at unknown cost, where it says whose it is, and counted and logged where it does not; a database or a receiver that fails delays its own deliveries and nothing else. What nobody foresaw
about one line, or one batch, leaves that task, or that batch, as it is, and is reported: the others go on. It holds the
reconcile lock and never talks to a provider; it reads the providers' keys only to take them out of what they say.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from nura_cli import contract, progress
from nura_cli.config import Config
from nura_cli.dialects.base import Dialect, Ending, ResultLine, Spec, rejections
from nura_cli.dialects.vendors import dialect as dialect_of
from nura_cli.errors import EX_OK, EX_PARTIAL, ConfigError, ProblemKind, StateError
from nura_cli.pipeline import (
    aside,
    attention,
    backoff,
    blame,
    canary,
    deliver,
    estimate,
    forgetting,
    holding,
    plans,
    refusals,
    retention,
    settle,
    spool,
)
from nura_cli.pipeline.classify import Classifier, Verdict, scrubbed
from nura_cli.pipeline.report import Problem, Report, counted, ordinal
from nura_cli.pipeline.run import Run, about
from nura_cli.pricing import Prices
from nura_cli.state import (
    Connection,
    State,
    answers,
    batches,
    outbox,
    outcomes,
    runs,
    snapshots,
    standings,
    suspects,
    tasks,
)
from nura_cli.state.answers import Charge, Failure, Open, Settled
from nura_cli.state.batches import Batch, Orphan
from nura_cli.state.file import unforeseen
from nura_cli.state.standings import Held, Standing
from nura_cli.states import BatchStatus, Blame, ErrorKind, EventType, Excuse, TaskStatus

CHUNK_LINES = 2000
CHUNK_BYTES = 8 * 1024 * 1024
_DEFAULT_ATTEMPTS = 3


class Expired(NamedTuple):
    """How many tasks wait again because their batch expired, and how often one of them has at most."""

    n: int = 0
    times: int = 0


@dataclass(kw_only=True)
class Reconcile(Run):
    """One run of the stage, and what it counted.

    Attributes:
        failures, in_vain: by workload and kind of error, the tasks that failed, and those that ran completed ones again and
            have no answer.
        put_back: by workload and the provider's words, the tasks that wait again for what is no fault of theirs.
        expired: by workload, the tasks whose batch's time was over first, and how often that befell one of them at most.
        unshown: by workload, the tasks that wait again since their revision has not shown itself.
    """

    tasks: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    failures: dict[str, Counter[str]] = field(default_factory=dict)
    in_vain: dict[str, Counter[str]] = field(default_factory=dict)
    put_back: dict[str, Counter[str]] = field(default_factory=dict)
    expired: dict[str, Expired] = field(default_factory=dict)
    unshown: Counter[str] = field(default_factory=Counter)
    prices: dict[str, Prices] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)

    def prices_of(self, batch: Batch) -> Prices:
        """Return the price list of a batch's provider."""
        if batch.provider not in self.prices:
            self.prices[batch.provider] = estimate.prices_of(self.config, batch.provider, dialect_of(batch.dialect))
        return self.prices[batch.provider]

    def know_key(self, batch: Batch) -> None:
        """Have the key known of a batch's provider, whose words about a failure are to be kept.

        A command that prints the key is run only here, once: most runs of reconcile keep no such words. Without the key,
        for whatever reason, they are kept as they are.
        """
        account = self.config.providers.get(batch.provider)
        if account is not None and account.api_key_command is not None and batch.provider not in self.asked:
            self.asked.add(batch.provider)
            with contextlib.suppress(ConfigError):
                account.secret()


def run(state: State, config: Config) -> Report:
    """Settle every finished batch.

    Returns:
        ``tasks`` by what became of them.
    """
    config.know_secrets()
    snapshots.sweep(state.path, state.clock())
    job = Reconcile(state=state, config=config)
    waiting = batches.under_way(state.db, BatchStatus.COMPLETED)
    with progress.going("settling answers", sum(batch.requests for batch in waiting)) as step:
        for batch in waiting:
            with job.apart(f"batch {batch.id}", **about(batch)):
                _reconcile(job, batch, step)
    _convict(job)
    for orphan in batches.orphans(state.db):
        doing = f"an extra batch beside batch {orphan.batch_id}"
        with job.apart(doing, provider=orphan.provider, batch=orphan.batch_id):
            if orphan.spooled is not None:
                _count_orphan(job, orphan)
    with job.apart("what is to be forgotten", StateError):
        if left := forgetting.carry_out(state):
            job.note(forgetting.untidy(state, left, "the next nura reconcile after that removes it", EX_OK))
    delivered = deliver.run(state, config)
    retention.keep(job)
    return _report(job, delivered)


def _report(job: Reconcile, delivered: deliver.Deliveries) -> Report:
    """Return the report: what was settled and delivered, a problem for each workload with failures and each kind of odd line."""
    for workload, kinds in job.failures.items():
        listed = ", ".join(f"{kind} {n}" for kind, n in kinds.most_common())
        text = f"{workload}: {counted(kinds.total(), 'task')} failed: {listed}"
        hint = f"see nura results {workload} --status failed"
        job.note(Problem(ProblemKind.TASK, text, EX_PARTIAL, hint=hint, workload=workload))
    for workload, kinds in job.in_vain.items():
        job.note(settle.in_vain(workload, kinds))
    for workload, found in job.expired.items():
        often = f"; one of them for the {ordinal(found.times)} time" if found.times > 1 else ""
        expired = counted(found.n, "task expired unanswered, and waits", "tasks expired unanswered, and wait")
        text = f"{workload}: {expired} again{often}"
        job.note(Problem(ProblemKind.TASK, text, EX_OK, workload=workload, about="expired"))
    for workload, n in (+job.unshown).items():
        waiting = counted(n, "task waits", "tasks wait")
        text = f"{workload}: {waiting} again, no attempt counted: the answers are of no use, and their revision has not shown itself"
        job.note(Problem(ProblemKind.TASK, text, EX_OK, workload=workload, about="canary"))
    for workload, words in job.put_back.items():
        waiting = counted(words.total(), "task waits", "tasks wait")
        text = f"{workload}: {waiting} again, no attempt counted: {words.most_common(1)[0][0]}"
        job.note(Problem(ProblemKind.REFUSED, text, EX_PARTIAL, workload=workload, about="put_back"))
    for what, n in (+job.ignored).items():
        job.note(
            Problem(
                ProblemKind.RESULTS,
                f"{counted(n, 'result line was', 'result lines were')} {what}, and not applied",
                EX_PARTIAL,
            )
        )
    counted_up = {"tasks": job.tasks, "rows": delivered.rows, "events": delivered.events}
    result = {part: none | +counted_up[part] for part, none in contract.nothing(contract.Reconciled).items()}
    worked = bool(job.tasks or delivered.rows["written"] or delivered.events["sent"])
    return Report(result, [*job.problems, *delivered.problems], worked)


def _reconcile(job: Reconcile, batch: Batch, step: progress.Step) -> None:
    """Settle one finished batch; back to poll with one whose results are gone, damaged or too few."""
    if batch.faults is not None:
        _refused(job, batch)
        return
    if batch.reason is not None:  # an earlier release took its results for lost: they are looked for again first
        with job.state.transaction() as db:
            why = "its results are looked for again"
            batches.move(db, batch, BatchStatus.SUBMITTED, why, reason=None, spooled=None)
        return
    spooled = batch.files
    paths = {part: spool.result_file(job.state, batch, part) for part in spooled}
    if not all(spool.intact(path, spooled[part]) for part, path in paths.items()):
        with job.state.transaction() as db:
            batches.move(db, batch, BatchStatus.SUBMITTED, "its results in the spool are gone or damaged", spooled=None)
        job.note(
            Problem(
                ProblemKind.SPOOL,
                f"batch {batch.id}: its results in the spool are gone or damaged",
                EX_PARTIAL,
                hint="the next poll fetches them again",
                batch_id=batch.id,
            )
        )
        return
    settling = Settling(job, batch, list(paths.values()))
    settling.judge()
    for part, path in paths.items():
        with spool.opened(job.state, path) as file:
            for chunk in chunks(file):
                settling.apply(chunk, all_answers=part == "output")
                step.add(len(chunk))
                job.state.yield_to_writers()
    if batch.short_at is not None or settling.unsure():
        settling.report()
        with job.state.transaction() as db:
            why = "the answers that came are applied, the rest is looked for again"
            short_at = job.clock() if batch.short_at is None else batch.short_at
            batches.move(db, batch, BatchStatus.SUBMITTED, why, short_at=short_at)
        return
    settling.finish()
    _say_cancelled(job, batch)


def _say_cancelled(job: Reconcile, batch: Batch) -> None:
    found = batches.get(job.state.db, batch.id)
    if found is not None and found.cancelled:
        (need,) = attention.cancelled([found])
        job.note(
            Problem(
                ProblemKind.CANCELLED,
                need.message,
                EX_PARTIAL,
                need.hint,
                batch.provider,
                batch.workload,
                batch.id,
            )
        )


def _refused(job: Reconcile, batch: Batch) -> None:
    faults, plan = rejections(batch.faults), plans.plan_of(job.config, batch.workload)
    with settle.undoing(job.state, batch, plan) as db:
        wished = batches.wish(db, batch.id) is not None
        refusal = refusals.refused_batch(db, batch, faults, plan, backoff.jitter())
    _tally(job, batch, refusal.settled)
    text = f"batch {batch.id} was refused by {batch.provider}: {refusals.describe(faults)}"
    again = "its other tasks wait again" if refusal.settled else "its tasks wait again"
    again += "; who is to blame is looked for" if refusal.searched else ""
    hint = "its tasks are cancelled, as was wished" if wished else again
    if refusal.held is not None:
        job.note(refusal.held)
    job.note(
        Problem(
            ProblemKind.REFUSED,
            text,
            EX_PARTIAL,
            hint,
            provider=batch.provider,
            workload=batch.workload,
            batch_id=batch.id,
        )
    )


def _convict(job: Reconcile) -> None:
    """Fail the tasks that a provider named when it refused their batch, once it has taken another one without them."""
    if not suspects.any_at_all(job.state.db):
        return
    with job.state.transaction() as db:
        suspects.clear_ended(db)
    for batch_id in suspects.convicted(job.state.db):
        batch = batches.get(job.state.db, batch_id)
        if batch is None:
            continue
        with job.apart(f"batch {batch.id}", **about(batch)):
            with job.state.transaction() as db:
                settled = refusals.convicted(db, batch, plans.plan_of(job.config, batch.workload))
            _tally(job, batch, settled)
        job.state.yield_to_writers()


def chunks(file: BinaryIO) -> Iterator[list[bytes]]:
    """Yield the lines of a result file in chunks bounded in lines and bytes; as :func:`spool.rows` gives them."""
    lines: list[bytes] = []
    size = 0
    for line in spool.rows(file):
        lines.append(line)
        size += len(line)
        if len(lines) >= CHUNK_LINES or size >= CHUNK_BYTES:
            yield lines
            lines, size = [], 0
    if lines:
        yield lines


class Others(NamedTuple):
    """What is known of other requests: the forms of refusal that are no request's fault, and whether any was answered."""

    alike: frozenset[blame.Form]
    answered: bool


_NONE = Others(frozenset(), answered=False)


class Settling:
    """The settling of one batch, chunk by chunk."""

    def __init__(self, job: Reconcile, batch: Batch, paths: Sequence[Path]) -> None:
        self._job = job
        self._batch = batch
        self._paths = paths
        self._dialect = dialect_of(batch.dialect)
        spec = Spec.stored(batches.spec(job.state.db, batch.revision))
        workload = job.config.workloads.get(batch.workload)
        self._classifier = Classifier(
            self._dialect,
            spec,
            job.prices_of(batch),
            accept_truncated=workload is not None and workload.accept_truncated,
        )
        self._canary_rule = workload.canary if workload is not None else None
        self._canary = canary.Verdict.PASSED
        self._plan = plans.plan_of(job.config, batch.workload)
        self._max_attempts = workload.retry.max_attempts if workload else _DEFAULT_ATTEMPTS
        self._answers = 0
        self._left: dict[int, Exception] = {}
        self._unread: Exception | None = None
        self._others: Others | None = None
        self._answered: frozenset[int] = frozenset()
        self._nameless = False

    def judge(self) -> None:
        """Decide what the batch, where it is a canary, says of its revision, before the first of its rows is settled."""
        job, batch, rule = self._job, self._batch, self._canary_rule
        before = canary.known(job.state.db, batch, rule)
        if before is not None or rule is None:
            self._canary = before or canary.Verdict.PASSED
            return
        self._canary = canary.Verdict.UNDECIDED
        try:
            rows = self._shown()
        except Exception as error:
            if not unforeseen(error):
                raise
            return  # it is met, and said, when the row is settled; the batch comes up again
        with job.state.transaction() as db:
            self._canary, held = canary.judge(db, batch, rule, rows)
        job.problems += [held] if held is not None else []

    def _shown(self) -> canary.Rows:
        """Return what those results say of the revision that are still to be settled."""
        self._look()
        witnessed = self._others is not None and self._others.answered
        found: dict[int, str | None] = {}
        for task_id, line in self._all_lines():
            if task_id not in found and (line.error is None or task_id not in self._answered):
                failure = self._verdict(line).failure
                found[task_id] = canary.judged(failure, blame.excuse(failure, frozenset(), witnessed=witnessed))
        db = self._job.state.db
        still = answers.open_tasks(db, self._batch.id, [one for one, ended in found.items() if ended is not None])
        first: dict[str, int] = {}
        for task_id in still:
            first.setdefault(str(found[task_id]), task_id)
        counts = Counter(str(found[task_id]) for task_id in still)
        return canary.Rows(counts, first, tasks.outstanding(db, self._batch.id) - len(still))

    def apply(self, chunk: list[bytes], *, all_answers: bool) -> None:
        """Settle the tasks that a chunk of result lines is about.

        Args:
            all_answers: whether its file holds only what the vendor counts as completed.
        """
        lines: dict[int, ResultLine] = {}
        for line in chunk:
            task_id, result = self._read(line)
            if result is not None:
                before = lines.setdefault(task_id, result)
                if before is not result:
                    self._job.ignored["repeated"] += 1
                    if before.error is not None and result.error is None:  # what was answered was paid for
                        lines[task_id] = result
        self._answers += sum(all_answers or line.error is None for line in lines.values())
        self._apply(lines)

    def _apply(self, lines: dict[int, ResultLine]) -> None:
        """Settle what lines are about; one of which nobody foresaw what it does is found by halving, and left alone."""
        try:
            self._settle(lines)
        except Exception as error:
            if not unforeseen(error):
                raise
            if len(lines) < 2:
                self._left |= dict.fromkeys(lines, error)
                return
            listed = list(lines.items())
            self._apply(dict(listed[: len(listed) // 2]))
            self._apply(dict(listed[len(listed) // 2 :]))

    def _settle(self, lines: Mapping[int, ResultLine]) -> None:
        """Settle the tasks that lines are about, in one transaction."""
        job, batch = self._job, self._batch
        if any(line.error is not None for line in lines.values()):
            self._look()
        meant = {
            task_id: line for task_id, line in lines.items() if line.error is None or task_id not in self._answered
        }
        verdicts = {task_id: self._verdict(line) for task_id, line in meant.items()}
        now = job.clock()
        with job.state.transaction() as db:
            found, wish = answers.open_tasks(db, batch.id, list(meant)), batches.wish(db, batch.id)
            settled = [self._settled(task_id, task, verdicts[task_id], now, wish) for task_id, task in found.items()]
            settle.settle_tasks(db, batch, settled, self._plan, "its result came")
            held = self._hold(db, settled)
            others = {task_id: verdict.charge for task_id, verdict in verdicts.items() if task_id not in found}
            late, unknown = self._late(db, others) if others else (0, 0)
        job.problems += held
        _tally(job, batch, settled)
        job.tasks["late"] += late
        job.ignored["about tasks nobody knows"] += unknown
        job.ignored["repeated"] += len(lines) - len(meant)

    def _look(self) -> None:
        """Look once at all the rows of the batch, and at what became of others, before a failure is put down to anybody.

        A task may have two lines, far from each other: what was answered was paid for, and its other line says nothing.
        """
        if self._others is not None:
            return
        answered, refused, forms = set[int](), dict[int, blame.Form](), dict[blame.Form, blame.Form]()
        for task_id, line in self._all_lines():
            if line.error is None:
                answered.add(task_id)
            refusal = line.error is ErrorKind.REFUSED and line.blame is not Blame.ACCOUNT
            if refusal and (failure := self._verdict(line).failure):
                form = blame.form_of(failure.code, failure.param, failure.message)
                refused[task_id] = forms.setdefault(form, form)
        self._answered = frozenset(answered)
        alone = Counter(form for task_id, form in refused.items() if task_id not in answered)
        rows = blame.Rows(alone, len(answered) + alone.total(), bool(answered) or self._batch.answered > 0)
        db = self._job.state.db
        alike = blame.alike_before(db, outcomes.revision_of(self._batch), rows)
        self._others = Others(alike, rows.answered or outcomes.answered_since(db, self._batch))

    def _all_lines(self) -> Iterator[tuple[int, ResultLine]]:
        """Yield each of the batch's own lines, of all its files, with the task that it is about."""
        for path in self._paths:
            with spool.opened(self._job.state, path) as file:
                for chunk in chunks(file):
                    for raw in chunk:
                        task_id, line = self._own(raw)
                        if line is not None:
                            yield task_id, line

    def _own(self, raw: bytes) -> tuple[int, ResultLine | None]:
        """Return the task that a line of the batch is about; what is wrong with other lines is no matter here."""
        try:
            found = spool.read_line(raw, self._dialect, self._batch.tag)
        except Exception:  # noqa: BLE001 - it is met, and said, when it is settled
            return 0, None
        return (0, None) if found is None or found.task_id is None else (found.task_id, found.result)

    def _hold(self, db: Connection, settled: Sequence[Settled]) -> list[Problem]:
        """Rest the route, or hold the workload, for what is no task's fault among these; return what is to be said of it."""
        waiting = [one for one in settled if one.excused and one.to is TaskStatus.PENDING]
        put_back = [one for one in waiting if one.excused is Excuse.ACCOUNT]
        alike = [one for one in waiting if one.excused is Excuse.ALIKE]
        if not waiting:
            return []
        said = []
        # Read here and not once a batch: a person may let the workload go on between two chunks.
        standing = standings.of(db, self._batch.workload, self._batch.revision)
        if put_back:
            why = settle.words(put_back[0].failure)
            self._rest(db, why)
            ids = [one.task_id for one in put_back]
            most = outcomes.most_excused(db, ids, Excuse.ACCOUNT, standing.released_at)
            if most >= blame.MOST_PUT_BACK:
                reason = f"the account's trouble goes on, {most} times for one task, the last time: {why}"
                said.append(self._held(db, standing, Held.ACCOUNT, reason))
        if alike:
            n = counted(len(alike), "request")
            reason = f"{n} of batch {self._batch.id} refused alike, and so none of them failed: {settle.words(alike[0].failure)}"
            said.append(self._held(db, standing, Held.ALIKE, reason))
        return [one for one in said if one is not None]

    def _rest(self, db: Connection, why: str) -> None:
        """Let the batch's route rest; one that rests already does so no longer for it."""
        batch = self._batch
        route = runs.route(db, batch.provider, batch.endpoint, batch.model)
        remedy = backoff.Remedy(pause=True)
        runs.learn(db, backoff.after_refusal(route, remedy, batch.requests, why, db.now, backoff.jitter()))

    def _held(self, db: Connection, standing: Standing, why: Held, reason: str) -> Problem | None:
        """Hold the workload; not for what was sent before a person let it go on: that goes out as it is mended."""
        if self._batch.id <= standing.released_after:
            return None
        return holding.hold_by_itself(db, self._batch.workload, self._batch.revision, why, reason)

    def _verdict(self, line: ResultLine) -> Verdict:
        verdict = self._classifier.classify(line)
        if verdict.failure is None:
            return verdict
        self._job.know_key(self._batch)
        return scrubbed(verdict)

    def _read(self, line: bytes) -> tuple[int, ResultLine | None]:
        """Return the task a line is about, if it is one of this batch's lines at all."""
        try:
            found = spool.read_line(line, self._dialect, self._batch.tag)
        except ValueError as error:
            self._nameless |= isinstance(error, aside.Nameless)
            self._job.ignored["unreadable"] += 1
            return 0, None
        except Exception as error:  # noqa: BLE001 - whose line it is stays unknown: no task of the batch is missing for sure
            self._unread = error
            return 0, None
        if found is None:
            return 0, None
        if found.task_id is None:
            self._job.ignored["not of their batch"] += 1
            return 0, None
        return found.task_id, found.result

    def _late(self, db: Any, charge: Mapping[int, Charge]) -> tuple[int, int]:
        """Bill lines for tasks that are no longer this batch's; those it accounted for before are repeats.

        Returns:
            How many were billed, and how many are about no task at all.
        """
        known = answers.existing(db, list(charge))
        billed = [(task_id, used) for task_id, used in charge.items() if task_id in known]
        return answers.late(db, self._batch.queue_id, self._batch.id, billed), len(charge) - len(known)

    def _settled(self, task_id: int, task: Open, verdict: Verdict, now: int, wish: str | None) -> Settled:
        """Return what becomes of a task; ``wish`` says who wished its batch cancelled, and why, where somebody did."""
        failure, others = verdict.failure, self._others or _NONE
        if failure is None:
            n, again = task.attempts + 1, task.retry_of
            return Settled(
                task_id, task.superseded, TaskStatus.COMPLETED, n, 0, None, verdict.body, verdict.charge, again
            )
        excused = canary.excuse(failure, blame.excuse(failure, others.alike, witnessed=others.answered), self._canary)
        attempts = task.attempts if excused else task.attempts + 1
        if wish is not None and failure is not None and failure.kind is ErrorKind.CANCELLED:
            failure = failure._replace(message=wish)
        to, not_before = backoff.next_status(
            failure,
            attempts,
            self._max_attempts,
            task.superseded,
            now,
            backoff.jitter(),
            wished=wish is not None,
            excused=excused,
        )
        return Settled(
            task_id,
            task.superseded,
            to,
            attempts,
            not_before,
            failure,
            verdict.body,
            verdict.charge,
            task.retry_of,
            excused,
        )

    def unsure(self) -> bool:
        """Return whether a task without a line may have been answered by one that is set aside and names nobody."""
        if not self._nameless or self._batch.ending == Ending.CANCELLED:
            return False
        return tasks.outstanding(self._job.state.db, self._batch.id) > 0

    def finish(self) -> None:
        """Account for the tasks without a line, then make the batch final; not while a line of it is left as it is."""
        self.report()
        if self._unread is not None:
            return
        job, batch = self._job, self._batch
        failure = _WITHOUT_LINE[Ending(batch.ending or Ending.COMPLETED)]
        untold = failure.kind is ErrorKind.MISSING or _answered_more(batch, self._answers)
        nothing = Verdict(failure, None, settle.UNKNOWN if untold else Charge())
        while True:
            now = job.clock()
            with job.state.transaction() as db:
                open_ones = answers.unaccounted(db, batch.id, CHUNK_LINES + len(self._left))
                left = {task_id: task for task_id, task in open_ones.items() if task_id not in self._left}
                wish = batches.wish(db, batch.id)
                settled = [self._settled(task_id, task, nothing, now, wish) for task_id, task in left.items()]
                settle.settle_tasks(db, batch, settled, self._plan, failure.message)
                if len(left) < CHUNK_LINES and not self._left:
                    self._final(db)
            _tally(job, batch, settled)
            job.tasks["missing"] += len(settled) if failure.kind is ErrorKind.MISSING else 0
            if len(left) < CHUNK_LINES:
                return

    def report(self) -> None:
        """Say which lines nobody foresaw; their batch is taken up again by the next run."""
        batch = self._batch
        where: dict[str, Any] = {"provider": batch.provider, "workload": batch.workload, "batch": batch.id}
        if self._unread is not None:
            self._job.bug(self._unread, f"batch {batch.id}, reading a result line", **where)
        if self._left:
            task_id, error = next(iter(self._left.items()))
            more = f" and of {len(self._left) - 1:,} more" if len(self._left) > 1 else ""
            self._job.bug(error, f"batch {batch.id}, the result of task {task_id}{more}", **where)

    def _final(self, db: Any) -> None:
        batches.still(db, self._batch)
        batch = batches.get(db, self._batch.id) or self._batch
        counted = {
            "completed": batch.answered,
            "failed": batch.requests - batch.answered,
            **batches.billed(db, batch.id),
        }
        batches.move(db, batch, BatchStatus.RECONCILED, "every task is accounted for", **counted)
        outbox.add_for_batch(db, batch.queue_id, batch.id, EventType.BATCH_COMPLETED, self._plan)


def _answered_more(batch: Batch, answers: int) -> bool:
    """Return whether a batch that was cut off may have answered more than the lines that came: then their cost is not known."""
    if batch.completed is not None:
        return batch.completed > answers
    return not batch.files or batch.files.keys() != batch.offered.keys()


_WITHOUT_LINE = {
    Ending.COMPLETED: Failure(ErrorKind.MISSING, "the batch ended without a result for it"),
    Ending.EXPIRED: Failure(ErrorKind.EXPIRED, "its batch expired before it was answered"),
    Ending.CANCELLED: Failure(ErrorKind.CANCELLED, "its batch was cancelled at the provider"),
}
"""Why a request has no line in the results, by how the provider ended its batch."""


def _tally(job: Reconcile, batch: Batch, settled: list[Settled]) -> None:
    """Count what became of a batch's tasks, for the report."""
    expired = []
    for one in settled:
        if one.failure is None:
            continue
        if one.excused and one.to is TaskStatus.PENDING:
            expired += [one.task_id] if one.excused is Excuse.EXPIRED else []
            job.unshown[batch.workload] += one.excused is Excuse.CANARY
            if one.excused not in (Excuse.EXPIRED, Excuse.CANARY):
                job.put_back.setdefault(batch.workload, Counter())[settle.words(one.failure)] += 1
        if one.to is TaskStatus.CANCELLED and batch.cancel_at is not None:
            continue  # as was wished
        if one.falls_back:
            job.in_vain.setdefault(batch.workload, Counter())[one.failure.kind] += 1
        elif one.told and one.to is TaskStatus.FAILED:
            job.failures.setdefault(batch.workload, Counter())[one.failure.kind] += 1
    for to, n in Counter([one.to for one in settled]).items():
        job.tasks[_TALLIED[to]] += n
    if expired:
        before, times = job.expired.get(batch.workload, Expired())
        often = outcomes.most_excused(job.state.db, expired, Excuse.EXPIRED)
        job.expired[batch.workload] = Expired(before + len(expired), max(times, often))


_TALLIED = {
    TaskStatus.PENDING: "retried",
    TaskStatus.COMPLETED: "completed",
    TaskStatus.FAILED: "failed",
    TaskStatus.CANCELLED: "cancelled",
}


def _count_orphan(job: Reconcile, orphan: Orphan) -> None:
    """Bill what an orphan answered, nothing of it is applied; where its results in the spool are not whole, poll fetches them again."""
    batch = batches.get(job.state.db, orphan.batch_id)
    if batch is None:
        return
    spooled = orphan.files
    paths = {part: spool.orphan_file(job.state, orphan, part) for part in spooled}
    if not all(spool.intact(path, spooled[part]) for part, path in paths.items()):
        with job.state.transaction() as db:
            batches.orphan_spooled(db, orphan, None)
        return
    settling = OrphanBill(job, batch, orphan)
    for path in paths.values():
        settling.bill(path)
    with job.state.transaction() as db:
        batches.counted(db, orphan)


class OrphanBill:
    """The billing of one orphan's results."""

    def __init__(self, job: Reconcile, batch: Batch, orphan: Orphan) -> None:
        self._job = job
        self._batch = batch
        own = orphan.remote_id == batch.remote_id  # one that was given up itself
        self._of = "" if own else orphan.remote_id
        self._same = own or batch.remote_id is None
        self._dialect: Dialect = dialect_of(batch.dialect)
        spec = Spec.stored(batches.spec(job.state.db, batch.revision))
        self._classifier = Classifier(self._dialect, spec, job.prices_of(batch))

    def bill(self, path: Path) -> None:
        """Add the usage of each answered line of a file to the ledger."""
        with spool.opened(self._job.state, path) as file:
            for chunk in chunks(file):
                billed = [line for raw in chunk if (line := self._line(raw))]
                with self._job.state.transaction() as db:
                    n = answers.late(db, self._batch.queue_id, self._batch.id, billed, self._of, same=self._same)
                self._job.tasks["late"] += n

    def _line(self, raw: bytes) -> tuple[int, Charge] | None:
        """Return what one line adds: nothing where its request was not answered; one that cannot be read may have been."""
        try:
            found = spool.read_line(raw, self._dialect, self._batch.tag)
        except ValueError:
            return None
        if found is None or found.task_id is None:
            return None
        charge = self._classifier.classify(found.result).charge
        return None if found.result.error is not None and charge == Charge() else (found.task_id, charge)
