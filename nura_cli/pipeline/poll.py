"""nura poll: what has ended at the providers comes home to the spool.

Takes batches that are ``submitted``; leaves those that ended ``completed``, their results whole on disk: streamed to a
``.part`` file, checked, synced, renamed, and only then noted. It asks by list pages where that takes fewer requests than
asking for each batch, and after each batch by itself once an hour, since lists can be stale. It also looks through the
lists for copies of what was sent (:mod:`nura_cli.pipeline.copies`), deletes at the provider what is due for it, and follows
orphans to their end. What a person wished cancelled (``nura cancel``) it asks the provider to cancel, until that is taken.

What can go wrong: a provider that cannot be reached, alone; a download cut short, which is taken up by the next run;
results that were paid for and cannot be had: they are looked for again, and the batch is held until a person decides.
Nothing that ended is sent again by itself. It holds the poll lock, and is the only stage that writes and sweeps
``results/``.
"""

import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from nura_cli import contract, progress
from nura_cli.config import Config
from nura_cli.dialects.base import Ending, Phase, RemoteBatch, stored_rejections
from nura_cli.errors import (
    EX_TEMPFAIL,
    ConfigError,
    Decided,
    Incomplete,
    KeyRefused,
    NotFound,
    NuraError,
    OnHold,
    ProblemKind,
    ProviderError,
    RateLimited,
    Refused,
    StateError,
    Unreachable,
)
from nura_cli.pipeline import backoff, copies, enqueued, plans, recovery, search, settle, shown, spool, waiting, wishes
from nura_cli.pipeline.accounts import Accounts
from nura_cli.pipeline.report import Problem, Report, batch_dicts, counted
from nura_cli.pipeline.run import ProviderRun, about
from nura_cli.providers.base import Provider
from nura_cli.state import State, actions, batches, purges, runs, standings, tasks
from nura_cli.state.answers import Failure
from nura_cli.state.batches import Batch, File, Orphan
from nura_cli.state.file import unforeseen
from nura_cli.state.purges import AtProvider
from nura_cli.states import BatchStatus, ErrorKind

ORPHAN_MISSED = waiting.WINDOW_SECONDS + waiting.LOST_AFTER
"""Seconds after which an orphan that the provider does not know is no longer looked for."""
ORPHAN_KEPT = 30 * 86400
"""Seconds after which no provider keeps anything of an orphan."""


@dataclass(kw_only=True)
class Poll(ProviderRun):
    """One run of the stage, and what it has seen so far.

    Attributes:
        lists: what the lists of providers showed in this round, where a batch was not to be had by itself.
    """

    checked: int = 0
    moved: dict[int, Batch] = field(default_factory=dict)
    looked: set[int] = field(default_factory=set)
    lists: dict[str, shown.Shown] = field(default_factory=dict)

    def begin_round(self) -> None:
        """Forget the lists and the problems of the round before, except about batches that are looked for once a run, and what
        was decided.
        """
        self.lists.clear()
        self.problems = [one for one in self.problems if one.batch_id in self.looked or one.stays is False]

    def note(self, found: Problem) -> None:
        """Note a problem; the run goes on. Said once, however many rounds it lasts."""
        self.problems = [one for one in self.problems if one.scope != found.scope] + [found]


def run(
    state: State,
    config: Config,
    accounts: Accounts,
    *,
    wait: int | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Report:
    """Ask after every batch under way, and bring home what has ended.

    Args:
        wait: seconds to stay until all have ended; None asks once. What has ended and cannot be had is not waited for.

    Returns:
        ``checked``, and the ``batches`` that changed. With ``wait``, exit code 75 when time runs out first.
    """
    job = Poll(state=state, config=config, accounts=accounts)
    _sweep(state)
    total = len(_awaited(state))
    deadline = time.monotonic() + (wait or 0)
    pause = waiting.ROUND_SECONDS[0]
    with progress.going("batches ended", total, at_once=wait is not None) as step:
        while True:
            job.begin_round()
            _round(job)
            left = len(_awaited(state))
            step.to(total - left)
            if wait is None or not left or time.monotonic() >= deadline:
                break
            sleep(min(pause, max(0.0, deadline - time.monotonic())))
            pause = waiting.next_pause(pause)
    copies.look_through(job)
    _follow_orphans(job)
    _clean_up(job)
    if wait is not None and left:
        late = f"{left} of {total} batches have not ended within {wait} seconds"
        return Report(_result(job), [*job.problems, Problem(ProblemKind.TIMEOUT, late, EX_TEMPFAIL)], worked=False)
    return Report(_result(job), job.problems, job.worked)


def _awaited(state: State) -> list[Batch]:
    """Return the batches that have not ended yet; those of which something is missing have."""
    return [one for one in batches.under_way(state.db, BatchStatus.SUBMITTED) if not waiting.amiss(one)]


def _result(job: Poll) -> contract.Polled:
    return {"checked": job.checked, "batches": batch_dicts(list(job.moved.values()))}


def _round(job: Poll) -> None:
    """Ask after every batch under way once, provider by provider."""
    by_provider: dict[str, list[Batch]] = {}
    for batch in batches.under_way(job.state.db, BatchStatus.SUBMITTED):
        try:
            job.accounts.check(batch)
            if _looked_for(job, batch):
                by_provider.setdefault(batch.provider, []).append(batch)
        except NuraError as error:
            job.fail(error, **about(batch))
    for name, group in by_provider.items():
        with job.provider_apart(name):
            _ask(job, job.accounts.provider(name), group)


def _looked_for(job: Poll, batch: Batch) -> bool:
    """Return whether a batch is to be asked after in this round; one of which something is missing is so once a run.

    Raises:
        OnHold: it waits for a person, and there is nothing more to be had of it.
        Incomplete: the rest of its answers is looked for again by a later run.
    """
    now = job.clock()
    if waiting.amiss(batch):
        if batch.id in job.looked:
            return False
        job.looked.add(batch.id)
    gone = batch.absent_at is not None and not waiting.kept(batch, now)
    later = batch.short_at is not None and not waiting.asked_for_the_rest(batch, now)
    if batch.held is not None and batch.cancel_at is None and (gone or later):
        raise _on_hold(batch, batch.held, new=False)
    if later:
        raise _still_short(batch, "some answers that are counted have not come yet")
    return True


def _ask(job: Poll, provider: Provider, group: Sequence[Batch]) -> None:
    """Ask one provider after its batches: by pages of its list while that pays, then one by one."""
    unseen = {str(batch.remote_id): batch for batch in group}
    alone = dict(unseen)
    try:
        _ask_by_list(job, provider, unseen, alone)
    except ProviderError as error:
        if not error.answered:
            raise
        job.fail(error, provider=provider.name)
    for batch in alone.values():
        _guarded(job, batch, partial(_ask_after, job, provider, batch))


def _ask_by_list(job: Poll, provider: Provider, unseen: dict[str, Batch], alone: dict[str, Batch]) -> None:
    """Read pages of a list while that pays; what they tell of enough of a batch leaves ``alone``."""
    total, cursor, pages = len(unseen), None, 0
    while listing_pays(len(unseen), provider.page_size, pages, total):
        page = provider.page(cursor)
        pages += 1
        recovery.note_shown(job, provider, page.batches)
        for remote in page.batches:
            batch = unseen.pop(remote.id, None)
            if batch is None or remote.phase is Phase.REFUSED:
                continue  # that it was refused is believed when it says so itself
            if remote.phase is Phase.RUNNING and waiting.asked_alone(batch, job.clock()):
                continue
            del alone[remote.id]
            _guarded(job, batch, partial(_see, job, provider, batch, remote))
        cursor = page.next
        if cursor is None:
            break


class _Down(Exception):
    """A provider did not answer: nothing more is asked of it in this run."""

    def __init__(self, error: ProviderError | KeyRefused) -> None:
        super().__init__(error.message)
        self.error = error


def _guarded(job: Poll, batch: Batch, work: Callable[[], None]) -> None:
    """Do what is to be done about one batch: its problem, an unforeseen one too, is its own."""
    try:
        work()
    except _Down as down:
        raise down.error from None
    except NuraError as error:
        job.fail(error, **about(batch))
    except Exception as error:
        if not unforeseen(error):
            raise
        job.bug(error, f"batch {batch.id}", **about(batch))


def _ask_after(job: Poll, provider: Provider, batch: Batch) -> None:
    """Ask after one batch by itself. Raises _Down: its provider does not answer."""
    try:
        remote = provider.retrieve(str(batch.remote_id))
    except NotFound as error:
        _not_by_itself(job, provider, batch, error)
        return
    except KeyRefused as error:
        raise _Down(error) from None
    except ProviderError as error:
        if not error.answered:
            raise _Down(error) from None
        _pass_wish_on(job, provider, batch)
        if waiting.overdue(batch, job.clock()):
            raise _hold(job, batch, f"its time is over, and {batch.provider} cannot say what became of it") from error
        raise
    _see(job, provider, batch, remote, alone=True)


def listing_pays(left: int, page_size: int, pages: int, total: int) -> bool:
    """Return whether one more page of the list may cost fewer requests than asking for the rest one by one.

    Pages already read are spent; at worst (an account full of others' batches) as many pages are read as asking for
    each batch would have taken, so the cost is never more than twice the least.
    """
    return left > 2 and pages < max(2 * -(-total // page_size), total // 4)


def _see(job: Poll, provider: Provider, batch: Batch, remote: RemoteBatch, *, alone: bool = False) -> None:
    """Note what the provider says of a batch; when it has ended, bring it home.

    Args:
        alone: it was asked after by itself, and not read off a list.
    """
    job.checked += 1
    may_run = remote.phase is Phase.RUNNING
    remote = _at_last(batch, remote, job.clock())
    running = remote.phase is Phase.RUNNING
    seen: dict[str, str | int | None] = {
        "remote_status": remote.status,
        "completed": _most(remote, batch) if running or waiting.amiss(batch) else remote.completed,
        "failed": remote.failed if remote.failed is not None else batch.failed,
        "expires_at": remote.expires_at or batch.expires_at,
        "input_file_id": batch.input_file_id or remote.input_file_id,
        "absent_at": None if running else batch.absent_at,
        "absent_here": None if running else batch.absent_here,
        "missed": None if running else batch.missed,
        "asked_at": job.clock() if alone and waiting.asked_alone(batch, job.clock()) else batch.asked_at,
    }
    taken = batch.validated_at is None and search.taken(batch.dialect, remote)
    if taken or any(getattr(batch, name) != value for name, value in seen.items()):
        with job.state.transaction() as db:
            if taken:
                seen["validated_at"] = standings.next_second(db, batch.workload, batch.revision)
            batch = batches.note(db, batch, **seen)
        job.moved[batch.id] = batch
    if may_run:
        _pass_wish_on(job, provider, batch)
    if not running:
        job.moved[batch.id] = _bring_home(job, provider, batch, remote)
    elif waiting.overdue(batch, job.clock()):
        raise _hold(job, batch, f"its time is over, and {batch.provider} says {remote.status}")
    elif batch.held is not None:
        with job.state.transaction() as db:
            job.moved[batch.id] = batches.note(db, batch, held=None)
    job.worked = True


def _pass_wish_on(job: Poll, provider: Provider, batch: Batch) -> None:
    """Ask a provider to cancel a batch that may be at work, where a person wished so; what keeps it from that is told of."""
    with job.apart(f"batch {batch.id}, cancelling it", ProviderError, KeyRefused, **about(batch)):
        wishes.ask(job.state, provider, batch)


def _at_last(batch: Batch, remote: RemoteBatch, now: int) -> RemoteBatch:
    """Return a batch as one that has ended where its time is over, it names results, and its status is a word that nobody
    knows.
    """
    if remote.known or not remote.parts or now < waiting.deadline(batch):
        return remote
    return remote._replace(phase=Phase.ENDED, ending=Ending.COMPLETED)


def _hold(job: Poll, batch: Batch, why: str) -> OnHold:
    """Leave a batch to a person; it is still looked for."""
    if batch.held != why:
        with job.state.transaction() as db:
            job.moved[batch.id] = batches.note(db, batch, held=why)
    return _on_hold(batch, why, new=batch.held is None)


def _on_hold(batch: Batch, why: str, *, new: bool) -> OnHold:
    return OnHold(
        f"batch {batch.id} is held: {why}",
        hint=f"nura resolve {batch.id} --resend pays for its tasks again, --give-up does not"
        + ("" if batch.short_at is not None else "; it comes home by itself if its results do"),
        new=new,
        provider=batch.provider,
        batch_id=batch.id,
    )


class Home(NamedTuple):
    """What came home of an ended batch.

    Attributes:
        parts, spooled: what is offered, and what lies in the spool of it.
        lines: what the files hold of the batch's own lines.
        lacks: what could not be had, in words, or None.
        answers: whether that may have been answers, and not only the lines of requests that failed.
        alone: the provider says that the batch has ended when asked after it by itself, and not on a list only.
    """

    parts: dict[str, str]
    spooled: dict[str, File]
    lines: spool.Lines
    lacks: str | None = None
    answers: bool = False
    alone: bool = False

    def missing(self, batch: Batch) -> int:
        """Return how many of a batch's requests have no line."""
        return max(0, batch.requests - len(self.lines.tasks))


_NOTHING = Home({}, {}, spool.Lines(frozenset(), frozenset(), 0))


def _bring_home(job: Poll, provider: Provider, batch: Batch, remote: RemoteBatch) -> Batch:
    """Download what an ended batch has; note it ``completed`` once all of it is whole."""
    if remote.phase is Phase.REFUSED and not waiting.amiss(batch) and not batch.completed and not batch.answered:
        return _completed(job, batch, remote, _NOTHING, faults=stored_rejections(remote.faults))
    home = _fetched(job, provider, batch, remote)
    if not remote.known:
        return _unheard_of(job, provider, batch, remote, home)
    if home.lacks or home.missing(batch):
        remote, home = _asked_otherwise(job, provider, batch, remote, home)
    if home.lacks:
        return _lacking(job, provider, batch, remote, home)
    return _counted(job, provider, batch, remote, home)


def _unheard_of(job: Poll, provider: Provider, batch: Batch, remote: RemoteBatch, home: Home) -> Batch:
    """Take what came of a batch of which nobody can say how it ended: a request without a line may still be at work."""
    if home.lacks:
        raise _hold(job, batch, f"its time is over, {batch.provider} says {remote.status}, and {home.lacks}")
    if home.missing(batch):
        n = counted(home.missing(batch), "request has", "requests have")
        why = f"{batch.provider} says {remote.status}, which nobody knows, and {n} no result"
        return _short(job, provider, batch, remote, home, why)
    return _completed(job, batch, remote, home)


def _counted(job: Poll, provider: Provider, batch: Batch, remote: RemoteBatch, home: Home) -> Batch:
    """Compare what came of a batch with what the provider counts, before a request without a line is believed to have none."""
    claimed = spool.claimed(remote.completed, home.lines, batch.requests)
    if claimed:
        why = f"{batch.provider} counts {counted(claimed, 'answer')} more than its results hold"
        return _short(job, provider, batch, remote, home, why)
    why = f"{batch.provider} does not count, and {counted(home.missing(batch), 'request')} came without a result"
    untold = remote.completed is None and home.missing(batch)
    if untold and _missed_for(job, provider, batch, why) > 0:
        raise NotFound(f"batch {batch.id}: {why}", hint="it is looked for again in 15 minutes")
    return _completed(job, batch, remote, home)


def _asked_otherwise(
    job: Poll, provider: Provider, batch: Batch, remote: RemoteBatch, home: Home
) -> tuple[RemoteBatch, Home]:
    """Ask after a batch of which something is missing by itself and on its list; return what tells most of it.

    The larger of two counts is believed: it may have been paid for.
    """
    others, alone = _told_otherwise(provider, remote)
    known = [one.completed for one in (remote, *others)] + ([batch.completed] if waiting.amiss(batch) else [])
    most = max((n for n in known if n is not None), default=None)
    for other in others:
        if home.lacks and other.parts and other.parts != remote.parts:
            again = _fetched(job, provider, batch, other)
            remote, home = (remote, home) if again.lacks else (other, again)
    by_itself = next((one for one in others if one.ending is not None), remote)
    return remote._replace(completed=most, ending=by_itself.ending), home._replace(alone=alone)


def _fetched(job: Poll, provider: Provider, batch: Batch, remote: RemoteBatch) -> Home:
    """Download the parts that a batch names, and look into them."""
    spooled: dict[str, File] = {}
    lines = _NOTHING.lines
    lacks = _unnamed(remote)
    answers = lacks is not None
    for part, part_id in remote.parts.items():
        path = spool.result_file(job.state, batch, part)
        try:
            got = spool.fetch(job.state, provider, part_id, path)
        except NotFound:
            lacks, answers = lacks or f"does not find its {part} file", answers or part != "error"
            continue
        found = _known(job, batch, spool.lines_of(path, provider.dialect, batch.tag))
        if part != "error" and found.others and not found.tasks:
            lacks, answers = f"gives other requests' results for its {part} file", True
            continue
        spooled[part] = got
        lines = lines.plus(found, all_answers=part == "output")
    if (
        remote.completed is None
        and not lacks
        and not remote.parts.keys() - {"error"}
        and len(lines.tasks) < batch.requests
    ):
        lacks, answers = "names no file of answers, and counts none", True
    return Home(dict(remote.parts), spooled, lines, lacks, answers)


def _known(job: Poll, batch: Batch, lines: spool.Lines) -> spool.Lines:
    """Take out of a file's lines those about tasks that were never this batch's: their custom_ids came back changed."""
    ids = tasks.ever_of(job.state.db, batch.id, lines.tasks)
    return lines._replace(tasks=ids, answered=lines.answered & ids, others=lines.others + len(lines.tasks - ids))


def _most(remote: RemoteBatch, batch: Batch) -> int | None:
    """Return the larger of what a provider counts now and what it counted before."""
    counts = [n for n in (remote.completed, batch.completed) if n is not None]
    return max(counts, default=None)


def _unnamed(remote: RemoteBatch) -> str | None:
    """Return what is amiss where an ended batch names no results that could hold what it says it answered."""
    if remote.completed and not remote.parts.keys() - {"error"}:
        return f"counts {remote.completed:,} answers and names no file of them"
    return "names no results at all" if not remote.parts else None


def _told_otherwise(provider: Provider, remote: RemoteBatch) -> tuple[list[RemoteBatch], bool]:
    """Return an ended batch as the provider tells it when asked after it alone, and on the newest page of its list: the two
    can disagree (litellm#36049). Also return whether it is told alone.

    Raises:
        ProviderError: it cannot be asked after by itself now, or is said to be running then: nothing is believed missing.
    """
    try:
        alone = [provider.retrieve(remote.id)]
    except NotFound:
        alone = []  # what the list still shows
    if any(one.phase is Phase.RUNNING for one in alone):
        raise Unreachable(
            f"{remote.id}: the list says {remote.status}, and {alone[0].status} when it is asked after by itself"
        )
    ended = [one for one in alone if one.phase is Phase.ENDED]
    told_alone = bool(ended)
    with suppress(ProviderError):
        ended += [one for one in provider.page().batches if one.id == remote.id and one.phase is Phase.ENDED]
    return ended, told_alone


def _lacking(job: Poll, provider: Provider, batch: Batch, remote: RemoteBatch, home: Home) -> Batch:
    """Decide about an ended batch of which something cannot be had: not on one look, and never by sending it again."""
    without_files = not remote.parts
    if without_files and home.alone and remote.ending is Ending.CANCELLED and remote.completed == 0:
        return _completed(job, batch, remote, _NOTHING)
    why = f"{batch.provider} {home.lacks}"
    if _missed_for(job, provider, batch, why) > 0:
        raise NotFound(f"batch {batch.id}: {why}", hint="it is looked for again in 15 minutes")
    did_nothing = remote.ending is Ending.EXPIRED and remote.completed == 0
    if without_files and (did_nothing or remote.ending is Ending.CANCELLED):
        return _completed(job, batch, remote, _NOTHING)
    if not home.answers:
        return _counted(job, provider, batch, remote, home)
    return _lost(job, batch, Failure(ErrorKind.LOST, why), remote.ending, unsure=_came_in_part(batch, home))


def _missed_for(job: Poll, provider: Provider, batch: Batch, what: str) -> int:
    """Note what of a batch was looked for in vain; return in how many seconds that is to be believed."""
    now = job.clock()
    date = _date(provider) or now
    left = waiting.believed_in(batch, what, date, now)
    if left is None:
        with job.state.transaction() as db:
            job.moved[batch.id] = batches.note(db, batch, absent_at=date, absent_here=now, missed=what)
        return waiting.SETTLING_SECONDS
    return left


def _date(provider: Provider) -> int | None:
    """Return the clock of a provider's server, unix seconds; None where it does not say."""
    try:
        return provider.page().date
    except ProviderError:
        return None


def _lost(job: Poll, batch: Batch, failure: Failure, ending: Ending | None = None, *, unsure: bool = False) -> Batch:
    """Results that were paid for cannot be had: a person decides, or (``on_lost: resend``) each task is sent again, once.

    Nothing of a batch that somebody cancelled is sent again by itself, nor where its answers may be there, or may yet come
    (``unsure``); of one that an operator wished cancelled the tasks are cancelled.
    """
    wished = batches.wish(job.state.db, batch.id) is not None
    resend = job.accounts.resends_lost(batch.provider) and batch.held != _TWICE
    resend = resend and not unsure and ending is not Ending.CANCELLED
    if wished or resend:
        plan = plans.plan_of(job.config, batch.workload)
        done = settle.lose(job.state, batch, failure, plan, resend=True, once=not wished)
        what = "cancelled" if wished else "sent again (on_lost: resend)"
        message = f"batch {batch.id}: {failure.message}; its tasks are {what}, at an unknown cost"
        hint = "nothing to do" + ("" if wished else ": they are sent by the next batch")
        job.fail(Decided(message, hint=hint), **about(batch))
        if done:
            return batches.get(job.state.db, batch.id) or batch
        raise _hold(job, batch, _TWICE)
    raise _hold(job, batch, batch.held if batch.held == _TWICE else failure.message)


_TWICE = "answers to tasks of it were lost before, and nothing is sent again twice by itself"


def _short(job: Poll, provider: Provider, batch: Batch, remote: RemoteBatch, home: Home, why: str) -> Batch:
    """Take what came of a batch whose files lack answers that may have been paid for; the rest is looked for again, for a day."""
    now = job.clock()
    began = batch.short_at if batch.short_at is not None and batch.short_at <= now else now
    if home.lines.nameless:
        many = counted(home.lines.nameless, "line of its results names", "lines of its results name")
        why = f"{many} no request, and {'is' if home.lines.nameless == 1 else 'are'} kept in {job.state.aside}"
    new = tasks.outstanding(job.state.db, batch.id) > home.missing(batch)
    if new and batch.files != home.spooled:  # a file that came before holds what reconcile could not apply
        job.fail(_still_short(batch, why), **about(batch))
        return _completed(job, batch, remote, home, short_at=began)
    date, batch = _looked_again(job, provider, batch, began)
    if not waiting.short_over(batch, date, now):
        raise _still_short(batch, why)
    if remote.ending is Ending.CANCELLED:  # what has no line is cancelled with the rest, at an unknown cost
        return _completed(job, batch, remote, home)
    unsure = home.lines.nameless > 0 or not remote.known  # an answer may be kept, or a request still at work
    return _lost(job, batch, Failure(ErrorKind.MISSING, why), unsure=unsure)


def _came_in_part(batch: Batch, home: Home = _NOTHING) -> bool:
    """Return whether some of a batch's answers came, and among them, perhaps, one that names no request."""
    return batch.short_at is not None or home.lines.nameless > 0


def _looked_again(job: Poll, provider: Provider, batch: Batch, began: int) -> tuple[int, Batch]:
    """Note that the rest of a short batch was looked for; return the server's clock, and the batch."""
    now = job.clock()
    date = _date(provider) or now
    first: dict[str, str | int | None] = {"absent_at": date, "absent_here": now, "missed": _REST}
    if waiting.believed_in(batch, _REST, date, now) is not None:
        first = {}
    with job.state.transaction() as db:
        return date, batches.note(db, batch, short_at=began, asked_at=now, **first)


_REST = "the rest of its answers"


def _still_short(batch: Batch, why: str) -> Incomplete:
    return Incomplete(f"batch {batch.id}: {why}", hint="the rest is looked for again, for a day")


def _completed(
    job: Poll,
    batch: Batch,
    remote: RemoteBatch,
    home: Home,
    *,
    faults: str | None = None,
    short_at: int | None = None,
    followed: bool = False,
) -> Batch:
    """Note that what a batch has is home, and whether it is ``followed`` all the same; reconcile goes on from there."""
    now = job.clock()
    with job.state.transaction() as db:
        if followed:
            batches.add_orphan(db, Orphan(batch.provider, str(batch.remote_id), batch.id, now))
        route = runs.route(db, batch.provider, batch.endpoint, batch.model)
        if faults is None and home.lines.answered:
            runs.learn(db, backoff.after_success(route, batch.requests))
            enqueued.learn_success(db, batch)
        return batches.move(
            db,
            batch,
            BatchStatus.COMPLETED,
            f"the provider says {remote.status}",
            parts=json.dumps(home.parts),
            spooled=batches.in_json(home.spooled),
            faults=faults,
            ending=remote.ending,
            held=None,
            absent_at=None,
            absent_here=None,
            missed=None,
            short_at=short_at,
            completed=remote.completed,
            asked_at=now,
            ended_at=remote.ended_at or now,
        )


def _not_by_itself(job: Poll, provider: Provider, batch: Batch, error: NotFound) -> None:
    """Go by the list where a batch is not to be had by itself; one that is not on it either is not found.

    That lasts at a service that has no answer for single batches, and is told of; after a create it passes.
    """
    listed = _on_list(job, provider).batches.get(str(batch.remote_id))
    if listed is None:
        _pass_wish_on(job, provider, batch)
        _not_found(job, provider, batch)
        return
    if job.clock() - waiting.sent(batch) > waiting.SETTLING_SECONDS:
        text = f"{provider.name} lists batches that it does not find one by one (HTTP {error.http_status}); its list is gone by"
        job.note(Problem(ProblemKind.PROVIDER, text, 0, provider=provider.name, about="one by one"))
    _see_listed(job, provider, batch, listed)


def _see_listed(job: Poll, provider: Provider, batch: Batch, listed: RemoteBatch) -> None:
    """Note what only a list says of a batch. That it was refused would have all of it sent again, and lists can be wrong: that
    takes a second look, and the batch is followed from then on.

    Raises:
        NotFound: it is said to be refused, for less than a quarter of an hour.
        OnHold: its requests were seen taken before.
    """
    if listed.phase is not Phase.REFUSED:
        _see(job, provider, batch, listed, alone=True)
        return
    job.checked += 1
    _pass_wish_on(job, provider, batch)
    why = f"{batch.provider} says {listed.status} on its list, and does not find it by itself"
    if _missed_for(job, provider, batch, why) > 0:
        raise NotFound(f"batch {batch.id}: {why}", hint="it is looked for again in 15 minutes")
    if batch.validated_at is not None or batch.completed or batch.answered or batch.short_at is not None:
        raise _hold(job, batch, f"{why}; its requests were taken before")
    job.moved[batch.id] = _completed(
        job, batch, listed, _NOTHING, faults=stored_rejections(listed.faults), followed=True
    )
    job.worked = True


def _on_list(job: Poll, provider: Provider) -> shown.Shown:
    """Return what a provider's list shows; it is read once a round."""
    if provider.name not in job.lists:
        job.lists[provider.name] = shown.read(job.state, job.accounts, provider)
    return job.lists[provider.name]


def _not_found(job: Poll, provider: Provider, batch: Batch) -> None:
    """A batch the provider does not know (yet): transient after a create, and to be decided only past its deadline."""
    job.checked += 1
    now = job.clock()
    if not waiting.overdue(batch, now):
        if not 0 <= now - waiting.sent(batch) <= waiting.SETTLING_SECONDS:
            if (other := _other_name(job, provider, batch)) is not None:
                _see_listed(job, provider, *other)
                return
            text = f"batch {batch.id}: {batch.provider} does not know {batch.remote_id}, and is asked again"
            raise NotFound(text + _on_list(job, provider).lacks())
        return
    if (other := _other_name(job, provider, batch)) is not None:
        _see_listed(job, provider, *other)
        return
    why = f"its time is over, and {batch.provider} no longer knows it"
    sure = job.accounts.resends_lost(batch.provider) or batch.cancel_at is not None
    if sure and _forgotten(job, provider, batch):
        if _missed_for(job, provider, batch, why) > 0:
            raise NotFound(f"batch {batch.id}: {why}", hint="it is looked for again in 15 minutes")
        job.moved[batch.id] = _lost(job, batch, Failure(ErrorKind.LOST, why), unsure=_came_in_part(batch))
        return
    raise _hold(job, batch, why + _on_list(job, provider).lacks())


def _other_name(job: Poll, provider: Provider, batch: Batch) -> tuple[Batch, RemoteBatch] | None:
    """Return a batch under the id by which the list knows it, where its create was answered with one that nobody knows.

    Only the one batch on the newest page that bears its tag, or was made from its file, and belongs to no other.
    """
    try:
        listed = [one for one in provider.page().batches if recovery.has_tag(one, batch)]
    except ProviderError:
        return None
    if len(listed) != 1 or batches.known(job.state.db, [listed[0].id]):
        return None
    with job.state.transaction() as db:
        return batches.note(db, batch, remote_id=listed[0].id, cancel_taken_at=None), listed[0]


def _forgotten(job: Poll, provider: Provider, batch: Batch) -> bool:
    """Return whether a batch is gone for good: the provider's list lacks it too, read as the same account, and by the
    server's clock its time is over. Sending its tasks again on less could pay for them twice.
    """
    seen = recovery.marker_of(batch)._replace(id=None)  # the batch before it may long be deleted; its date will do
    scan = recovery.read_list(provider, seen, job.accounts.fingerprint(provider.name))
    listed = any(remote.id == batch.remote_id for remote in scan.batches)
    shown = recovery.shows(job.state, provider, batch.address)
    return not listed and scan.doubt is None and shown and waiting.overdue(batch, scan.date or job.clock())


def _sweep(state: State) -> None:
    """Delete spool files that nothing waiting for reconcile owns: those of finished batches, and what a crash left."""
    owned = {
        spool.result_file(state, batch, part).name
        for batch in batches.under_way(state.db, BatchStatus.COMPLETED)
        for part in batch.files
    }
    for orphan in batches.orphans(state.db):
        owned |= {spool.orphan_file(state, orphan, part).name for part in orphan.files}
    spool.sweep(state.results, owned)
    spool.sweep(state.aside, {path.name for path in state.aside.iterdir() if path.suffix != ".part"})


def _follow_orphans(job: Poll) -> None:
    """Cancel orphans until they have ended, and leave their results for reconcile to count."""
    for orphan in batches.orphans(job.state.db):
        if orphan.spooled is not None:
            continue
        try:
            _follow(job, orphan)
        except (ProviderError, KeyRefused, ConfigError, StateError) as error:
            _not_followed(job, orphan, error)
        except Exception as error:
            if not unforeseen(error):
                raise
            job.bug(
                error, f"{orphan.remote_id}, which is followed for batch {orphan.batch_id}", provider=orphan.provider
            )


def _elsewhere(job: Poll, orphan: Orphan) -> str | None:
    """Return why an orphan cannot be asked after where its provider's name points now, or None: an id means another batch there."""
    if orphan.provider not in job.accounts.names():
        return f"provider {orphan.provider} is not in the configuration"
    batch = batches.get(job.state.db, orphan.batch_id)
    if batch is not None and batch.address != job.accounts.address(orphan.provider):
        return f"it was sent to {batch.address}, and {orphan.provider} has another address now"
    return None


def _not_followed(job: Poll, orphan: Orphan, error: NuraError) -> None:
    """Say that an orphan could not be followed; let it go once nothing can be there any more."""
    age = job.clock() - orphan.found_at
    missed = isinstance(error, NotFound)
    batch = batches.get(job.state.db, orphan.batch_id)
    known_lost = missed and batch is not None and batch.remote_id == orphan.remote_id
    if age >= (ORPHAN_MISSED if missed else ORPHAN_KEPT):
        with job.state.transaction() as db:
            settle.let_go(db, orphan)
    elif not known_lost and (not missed or age > waiting.SETTLING_SECONDS):
        job.fail(error, provider=orphan.provider, batch=orphan.batch_id, about=orphan.remote_id)


def _follow(job: Poll, orphan: Orphan) -> None:
    """Cancel an orphan that runs; download what one that has ended answered."""
    if (why := _elsewhere(job, orphan)) is not None:
        raise OnHold(
            f"{orphan.remote_id}, an extra batch beside batch {orphan.batch_id}, is not followed: {why}",
            hint=f"put it back until it has ended, or let go of it: nura resolve {shlex.quote(orphan.remote_id)} --give-up",
            new=False,
        )
    provider = job.accounts.provider(orphan.provider)
    remote = _told(job, provider, orphan)
    if remote.phase is Phase.RUNNING:
        if job.clock() - orphan.found_at >= ORPHAN_KEPT:
            raise Unreachable(f"{orphan.remote_id} has not ended within 30 days")
        provider.cancel(orphan.remote_id)
        return
    if remote.phase is Phase.ENDED and remote.completed != 0 and not remote.parts.keys() - {"error"}:
        raise NotFound(f"{orphan.remote_id} names no results; what it cost is not known")
    spooled = {}
    for part, part_id in remote.parts.items():
        with suppress(*([NotFound] if part == "error" else [])):  # requests that failed cost nothing
            path = spool.orphan_file(job.state, orphan, part)
            spooled[part] = spool.fetch(job.state, provider, part_id, path)
    with job.state.transaction() as db:
        batches.orphan_spooled(db, orphan, batches.in_json(spooled))


def _told(job: Poll, provider: Provider, orphan: Orphan) -> RemoteBatch:
    """Return an orphan as its provider tells it, by itself or on its list; one that neither tells is cancelled unseen. What only
    a list says to have ended with nothing may be at work, and counts as running for a day.

    Raises:
        NotFound: it is on neither.
        ProviderError: it cannot be asked after now, or the list proves nothing.
    """
    try:
        return provider.retrieve(orphan.remote_id)
    except ProviderError as error:
        if not error.answered:
            raise
        problem = error
    if isinstance(problem, NotFound):
        listed = _on_list(job, provider)
        if (remote := listed.batches.get(orphan.remote_id)) is not None:
            unsure = not remote.parts and job.clock() - orphan.found_at < ORPHAN_MISSED
            return remote._replace(phase=Phase.RUNNING) if unsure else remote
        problem = Unreachable(problem.message + listed.lacks()) if listed.doubt else problem
    with suppress(ProviderError, KeyRefused):
        provider.cancel(orphan.remote_id)
    raise problem


def _clean_up(job: Poll) -> None:
    """Delete at each provider what it still keeps of batches that are long final, or were purged: only by ids and tags of this file."""
    for name in job.accounts.names():
        here, after = job.accounts.address(name), job.accounts.cleanup_after(name)
        purged = [one for one in purges.at_provider(job.state.db, name) if one.batch.address == here]
        ids = {one.batch.id for one in purged}
        old = [] if after is None else batches.unclean(job.state.db, name, job.clock() - after)
        due = [batch for batch in old if batch.address == here and batch.id not in ids]
        try:
            if due:
                _delete(job, job.accounts.provider(name), due)
            if purged:
                _end_purges(job, job.accounts.provider(name), purged)
        except (ProviderError, KeyRefused, ConfigError) as error:
            job.fail(error, provider=name)


LET_GO_AFTER = 7 * 86400
"""Seconds for which a provider is asked to delete what was purged where it has no way to, or the key may not."""


def _end_purges(job: Poll, provider: Provider, purged: Sequence[AtProvider]) -> None:
    """Delete at a provider whatever it keeps of purged batches and of the orphans beside them; note of which nothing is left there.

    A no that is certain ends it, and stands in the log; one that may be the key's, or the service's, is said while it lasts, and ends
    it after a week. Where the oldest and the newest are met with such a no, nothing else is tried in this run.
    """
    uploads, refused = _uploads_of_purged(job, provider, [one.batch for one in purged])
    lacking, deleted = 0, False
    for one in [*purged[:1], *reversed(purged[1:])]:
        if one.batch.id in refused:
            continue
        if lacking > 1 and not deleted:
            break
        try:
            _delete_purged(job, provider, one.batch, uploads)
        except (ProviderError, KeyRefused) as error:
            if not _says_no(error):
                if isinstance(error, KeyRefused) or not error.answered:
                    raise
                job.fail(error, **about(one.batch))
                continue
            refused[one.batch.id] = error
            lacking += not _certain(error)
            continue
        deleted = True
        with job.state.transaction() as db:
            batches.clean(db, one.batch)
            purges.nothing_there(db, one.batch.id)
    _say_refused(job, provider, purged, refused)


def _delete_purged(job: Poll, provider: Provider, batch: Batch, uploads: Mapping[str, str]) -> None:
    """Delete at a provider what it keeps of one purged batch, and of the orphans beside it; what is not there is gone."""
    if batch.cleaned_at is None:
        with suppress(NotFound):
            _delete_one(provider, batch, batch.input_file_id or uploads.get(batch.tag))
    for remote_id in batches.beside(job.state.db, batch.id):
        with suppress(NotFound):
            provider.delete(provider.retrieve(remote_id))


def _uploads_of_purged(
    job: Poll, provider: Provider, purged: Sequence[Batch]
) -> tuple[dict[str, str], dict[int, NuraError]]:
    """Return uploads without an answer, by tag, and the batches of which nobody can tell, with why: uploads are not listed."""
    nameless = [one for one in purged if one.cleaned_at is None and _is_nameless(one)]
    if not (nameless and provider.dialect.uploads):
        return {}, {}
    try:
        return find_uploads(provider, nameless), {}
    except (ProviderError, KeyRefused) as error:
        if not _says_no(error):
            raise
        return {}, dict.fromkeys((one.id for one in nameless), error)


def _says_no(error: NuraError) -> bool:
    """Return whether a deletion is not only put off."""
    if isinstance(error, ProviderError):
        return error.endpoint_may_lack or _certain(error)
    return isinstance(error, KeyRefused)


def _certain(error: NuraError) -> bool:
    """Return whether a deletion was refused for certain: the same is refused again."""
    return isinstance(error, Refused) and not isinstance(error, RateLimited) and not error.endpoint_may_lack


def _say_refused(job: Poll, provider: Provider, purged: Sequence[AtProvider], refused: Mapping[int, NuraError]) -> None:
    """Say what a provider does not delete; what it never will is let go, and noted in the log."""
    lasting = []
    for one in purged:
        error = refused.get(one.batch.id)
        if error is None:
            continue
        if not _certain(error) and job.clock() - one.since < LET_GO_AFTER:
            lasting.append(error)
            continue
        text = f"{provider.name} keeps what it has of batch {one.batch.id}, which was purged: {error.message}"
        with job.state.transaction() as db:
            if _certain(error):
                batches.clean(db, one.batch)
            purges.nothing_there(db, one.batch.id)
            actions.note(
                db,
                "purge",
                text,
                one.batch.requests,
                workload=one.batch.workload,
                batch_id=one.batch.id,
                by_itself=True,
            )
        hint = "delete it in the provider's console, if that can be done there"
        job.note(Problem(ProblemKind.REFUSED, text, 0, hint, one.batch.provider, one.batch.workload, one.batch.id))
    if lasting:
        hint = "every poll tries it again for a week; then it is let go, and the log says so"
        _say_left(job, provider, lasting[0], len(lasting), hint)


def _delete(job: Poll, provider: Provider, due: Sequence[Batch]) -> None:
    """Delete at a provider what it keeps of batches, uploads without an answer included; note each that is gone.

    Where the oldest and the newest cannot be deleted (405), nothing else is tried in this run.
    """
    orphans, due = _uploads_of(job, provider, due)
    lacking: list[ProviderError] = []
    deleted = False
    for batch in [*due[:1], *reversed(due[1:])]:
        file_id = batch.input_file_id or orphans.get(batch.tag)
        try:
            _delete_one(provider, batch, file_id)
            deleted = deleted or (batch.remote_id or file_id) is not None
        except ProviderError as error:
            if not error.answered:
                raise
            if error.endpoint_may_lack:
                lacking.append(error)
                if len(lacking) > 1 and not deleted:
                    break
                continue
            job.fail(error, **about(batch))
            if not isinstance(error, Refused):
                continue  # a certain no would be said by every run: what is left there stays
        with job.state.transaction() as db:
            batches.clean(db, batch)
    if lacking:
        left, hint = (len(lacking), "it is tried again by every poll") if deleted else (len(due), lacking[0].hint)
        _say_left(job, provider, lacking[0], left, hint)


def _uploads_of(job: Poll, provider: Provider, due: Sequence[Batch]) -> tuple[dict[str, str], Sequence[Batch]]:
    """Return uploads without an answer, by tag, and the batches due without those of which nobody can tell: uploads are not listed."""
    nameless = [batch for batch in due if _is_nameless(batch)]
    try:
        return find_uploads(provider, nameless) if nameless and provider.dialect.uploads else {}, due
    except ProviderError as error:
        if not (error.endpoint_may_lack or isinstance(error, NotFound)):
            raise
        hint = "if it stays so, their uploads cannot be found there: set cleanup_after: never"
        _say_left(job, provider, error, len(nameless), hint)
        return {}, [batch for batch in due if batch not in nameless]


def _is_nameless(batch: Batch) -> bool:
    """Return whether there may be an upload of a batch whose id nobody knows."""
    return bool(batch.remote_id is None and batch.input_file_id is None and batch.requests)


def _say_left(job: Poll, provider: Provider, error: NuraError, left: int, hint: str | None) -> None:
    """Say that a provider has no way to delete what is due: that lasts, and keeps nothing from coming home."""
    text = f"{error.message}; what it keeps of {counted(left, 'batch', 'batches')} is left there"
    job.note(Problem(ProblemKind.PROVIDER, text, 0, hint, provider=provider.name, about="deleting"))


def _delete_one(provider: Provider, batch: Batch, file_id: str | None) -> None:
    """Delete one batch at its provider, or only its file where no batch was made of it."""
    if batch.remote_id is not None:
        provider.delete(
            RemoteBatch(
                batch.remote_id, batch.remote_status or "", Phase.ENDED, input_file_id=file_id, parts=batch.offered
            )
        )
    elif file_id is not None:
        provider.delete_file(file_id)


_MOST_FILE_PAGES = 50


def find_uploads(provider: Provider, nameless: Sequence[Batch]) -> dict[str, str]:
    """Return the file ids of uploads whose answer was lost, by the tag that is their exact filename."""
    wanted = {f"{batch.tag}.jsonl": batch.tag for batch in nameless}
    oldest = min(batch.created_at for batch in nameless) - waiting.SETTLING_SECONDS
    found: dict[str, str] = {}
    cursor = None
    for _ in range(_MOST_FILE_PAGES):
        uploads, cursor = provider.files(cursor)
        found |= {wanted[upload.filename]: upload.id for upload in uploads if upload.filename in wanted}
        past = uploads and (uploads[-1].created_at or oldest) < oldest
        if cursor is None or past or len(found) == len(wanted):
            break
    return found
