"""What became of a create whose answer did not come: the named step for the one doubtful state, ``submitting``.

Before a create, dispatch stores a marker of the provider's list; here, under dispatch's lock, the list is read down to
that marker. A batch of ours on it is adopted, once; extra ones are cancelled and followed; one that is surely absent (read
twice, 15 minutes apart by the server's clock and ours, as the same account) gives its tasks back, and the log says so. A
list proves an absence only at the vendor's own address, or where it has shown a batch of ours before. Whatever cannot be
decided is held, and nothing is ever sent on a guess.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import NamedTuple

from nura_cli.clock import rfc3339
from nura_cli.dialects.base import Dialect, Page, Phase, RemoteBatch
from nura_cli.dialects.reading import Illegible, top_level
from nura_cli.errors import (
    ConfigError,
    Decided,
    KeyRefused,
    NoEndpoint,
    NotFound,
    OnHold,
    ProviderError,
    RateLimited,
    StateError,
    Unconfirmed,
    Unreachable,
)
from nura_cli.pipeline import budgets, holding, search, settle, uploads, wishes
from nura_cli.pipeline.plans import plan_of
from nura_cli.pipeline.report import counted
from nura_cli.pipeline.run import ProviderRun, about
from nura_cli.pipeline.waiting import GIVEN_UP_WATCH, SETTLING_SECONDS, believed_in, refused_before
from nura_cli.providers.base import Provider
from nura_cli.state import State, actions, batches, quotas, standings, tasks
from nura_cli.state.answers import Failure
from nura_cli.state.batches import Batch, Orphan
from nura_cli.state.outbox import Plan
from nura_cli.states import BatchStatus, ErrorKind

SKEW_SECONDS = 30 * 60
"""How far the clocks of one provider's servers may lie apart, and so its batches out of order: 20 minutes were seen."""
_MOST_PAGES = 1000
_HEAD_BYTES = 1 << 16
_LONGEST_HEAD = 1 << 27
_NAMED_AT_MOST = 5


class Marker(NamedTuple):
    """Where the provider's list stood before a create: its newest batch, the server's clock, who asked (no secrets).

    ``over``: the server's clock when the list was first read after the create; whoever sent it was gone by then.
    """

    id: str | None
    created_at: int | None
    date: int | None
    account: str | None
    fingerprint: str
    over: int | None = None

    @classmethod
    def stored(cls, text: str) -> "Marker":
        """Return the marker that a batch keeps as JSON."""
        return cls(**json.loads(text))

    def in_json(self) -> str:
        """Return it as a batch keeps it."""
        return json.dumps(self._asdict())


def marker(page: Page, fingerprint: str) -> Marker:
    """Return the marker of the newest page of a list."""
    newest = page.batches[0] if page.batches else None
    return Marker(
        newest.id if newest else None, newest.created_at if newest else None, page.date, page.account, fingerprint
    )


def look(run: ProviderRun, provider: Provider) -> Marker:
    """Read the newest page of a provider's list: it proves the provider reachable and the key good, and gives a marker.

    On the way it notices batches that carry this state file's id and that it does not know as sent.

    Raises:
        ConfigError: another copy of this state file has sent batches; sending from this one could pay for them twice.
        ProviderError, KeyRefused: the list cannot be read.
    """
    page = provider.page()
    note_shown(run, provider, page.batches)
    _refuse_copies(run, provider, page.batches)
    found = marker(page, run.accounts.fingerprint(provider.name))
    _note_account(run, provider, found.account, found.fingerprint)
    return found


def _note_account(run: ProviderRun, provider: Provider, account: str | None, fingerprint: str | None) -> None:
    """Note whose account a provider's is: the organization's that it names, at its address, else the key's."""
    address, db = run.accounts.address(provider.name), run.state.db
    found = f"{run.accounts.host(provider.name)} {account}" if account else f"{address} {fingerprint}"
    if quotas.account(db, provider.name, address) != found:
        with run.state.transaction() as db:
            quotas.note_account(db, provider.name, address, found)


def shows(state: State, provider: Provider, address: str) -> bool:
    """Return whether a provider's list is known to show what was created there: at home, or once it has shown ours."""
    return provider.own or batches.shows_ours(state.db, address)


def note_shown(run: ProviderRun, provider: Provider, listed: Sequence[RemoteBatch]) -> None:
    """Note it where a list shows a batch of ours for the first time: from then on it is known to show what is there."""
    state, address = run.state, run.accounts.address(provider.name)
    if shows(state, provider, address):
        return
    known = batches.known(state.db, [remote.id for remote in listed], address)
    ended = [one for one in listed if one.phase is not Phase.RUNNING]  # some lists show only what is running
    ours = next((one.id for one in ended if one.id in known or one.state_id == state.state_id), None)
    if ours is not None:
        with state.transaction() as db:
            batches.note_shown(db, address, ours)


def unproven(run: ProviderRun) -> set[str]:
    """Return the providers to which nothing more may go: an unconfirmed create is held at their address, and its list has
    never shown a batch of ours, so that nobody can tell what became of anything sent there.
    """
    accounts, db = run.accounts, run.state.db
    submitting = batches.under_way(db, BatchStatus.SUBMITTING)
    doubtful = {batch.address for batch in submitting if not refused_before(batch)}
    silent = [address for address in doubtful if not batches.shows_ours(db, address)]
    names = {name for address in silent for name in accounts.at(address)}
    return {name for name in names if not accounts.own(name)}


def survey(run: ProviderRun, provider: Provider) -> None:
    """Look for batches of another copy of this state file, down to where the list stood when this one last sent.

    In an account that others use too, what a copy sent may no longer be on the newest page. A state file that never sent
    anything looks back to its first record.

    Raises:
        ConfigError, ProviderError, KeyRefused: as :func:`look`.
    """
    state, accounts = run.state, run.accounts
    seen = batches.last_marker(state.db, provider.name, accounts.address(provider.name))
    here = accounts.fingerprint(provider.name)
    born = tasks.first_at(state.db) - SETTLING_SECONDS
    since = Marker(None, born, None, None, here) if seen is None else Marker.stored(seen)
    # Whoever asked then: a key that was changed since does not make the copies unseen.
    scan = read_list(provider, since._replace(account=None, fingerprint=here), here)
    note_shown(run, provider, scan.batches)
    _note_account(run, provider, scan.account, here)
    _refuse_copies(run, provider, scan.batches)


def _refuse_copies(run: ProviderRun, provider: Provider, listed: Sequence[RemoteBatch]) -> None:
    """Raise ConfigError where a listed batch was sent by another copy of this state file; nobody here knows what that has spent.

    One of ours that was taken for absent, or whose create was refused, is set aside; that a batch which is in use has a
    second one is for poll to find out.
    """
    state = run.state
    known = batches.known(state.db, [remote.id for remote in listed])
    uploaded = {batch.input_file_id: batch for batch in batches.under_way(state.db, BatchStatus.UPLOADED)}
    strangers = []
    for remote in listed:
        resumed = uploaded.get(remote.input_file_id) if remote.input_file_id is not None else None
        if remote.id in known or (remote.state_id != state.state_id and resumed is None):
            continue
        batch = resumed or batches.by_tag(state.db, remote.tag or "")
        if batch is None or batch.marker is None:  # this file never got as far as sending it
            strangers.append(remote.id)
        elif batch.status is BatchStatus.FAILED and batch.remote_id is None:
            _set_aside(state, provider, batch, [remote], state.clock())
        elif refused_before(batch) and batch.status is BatchStatus.UPLOADED:
            raise ProviderError(
                f"batch {batch.id}: its create was refused, and arrived after all: {remote.id}",
                hint="the next dispatch takes it",
            )
    if strangers:
        _close_budgets(run, provider)
        raise ConfigError(
            f"{provider.name}: {counted(len(strangers), 'batch', 'batches')} there came from another copy of this state"
            f" file ({', '.join(strangers[:3])}{' …' if len(strangers) > 3 else ''}); sending from this one could pay twice",
            hint="restore that copy; or accept that their tasks are sent again: nura resolve "
            + " ".join(strangers)
            + " --resend",
            provider=provider.name,
        )


def _close_budgets(run: ProviderRun, provider: Provider) -> None:
    """Hold a provider under a budget, of whose spending this file cannot know all, until a person releases it."""
    config = run.config
    mine = (one.name for one in config.workloads.values() if one.provider == provider.name)
    budget = next((found for one in mine for found in budgets.of(config, one, provider.name, run.clock())), None)
    held = (
        hold.origin for hold in actions.holds(run.state.db) if (hold.scope, hold.name) == ("provider", provider.name)
    )
    if budget is None or any(held):
        return
    why = f"another copy of this state file has sent batches, and what they cost is not in the sum of {budget.option}"
    with run.state.transaction() as db:
        found = actions.Hold("provider", provider.name, why, db.now, None, "", None)
        actions.hold(db, found)
        actions.note(db, "hold", f"provider is held: {holding.described(found)}", 0, by_itself=True)


def _set_aside(state: State, provider: Provider, batch: Batch, remotes: Sequence[RemoteBatch], now: int) -> None:
    """Cancel batches that carry tasks another batch answers for, and follow them, so that their cost is counted."""
    with state.transaction() as db:
        for remote in remotes:
            batches.add_orphan(db, Orphan(provider.name, remote.id, batch.id, now))
    for remote in remotes:
        if remote.phase is Phase.RUNNING:
            with suppress(ProviderError, KeyRefused):  # poll asks for it until it has ended
                provider.cancel(remote.id)


def resolve(run: ProviderRun) -> None:
    """Find out what became of every unconfirmed create, and of those that were given up lately.

    One batch's problem is its own; of a provider that does not answer, or refuses the key, nothing more is asked.
    """
    state = run.state
    doubtful = [(batch, _resolve) for batch in batches.under_way(state.db, BatchStatus.SUBMITTING)]
    absent = [(batch, _watch) for batch in batches.given_up(state.db, state.clock() - GIVEN_UP_WATCH)]
    down = set()
    for batch, find_out in [*doubtful, *absent]:
        if batch.provider in down:
            continue
        own = (ProviderError, KeyRefused, ConfigError, StateError)
        with run.apart(f"batch {batch.id}", *own, **about(batch)):
            try:
                find_out(run, batch)
            except (Unreachable, RateLimited, KeyRefused) as error:
                if isinstance(error, KeyRefused) or not error.answered:
                    down.add(batch.provider)
                raise


def _resolve(run: ProviderRun, batch: Batch) -> None:
    """Find out what became of one create: adopt what is surely it, hold what is doubtful, give up what is surely absent."""
    state, accounts = run.state, run.accounts
    accounts.check(batch)
    provider = accounts.provider(batch.provider)
    seen = marker_of(batch)
    deleted = seen.id is not None and provider.dialect.cleanup_unlists and batches.cleaned(state.db, seen.id)
    try:
        scan = read_list(provider, seen, accounts.fingerprint(batch.provider), deleted=deleted)
    except NoEndpoint as error:
        raise _hold(state, batch, error.message) from None
    note_shown(run, provider, scan.batches)
    if seen.over is None and scan.date is not None:
        with state.transaction() as db:
            batch = batches.note(db, batch, marker=seen._replace(over=scan.date).in_json())
    found = identify(state, provider, batch, scan.batches)
    refused = refused_before(batch)  # then the provider has said that it is absent, and the list bears that out
    may_be = [*found.ours, *found.undecided]
    sure = batch.cancel_at is not None or (refused and not may_be)  # what is to be cancelled is never sent again
    if not accounts.adopts(batch.provider) and not sure:
        it = f"; it may be {_named(may_be)}" if may_be else ""
        raise _hold(state, batch, f"on_unconfirmed: hold is set for its provider{it}")
    if found.ours:
        oldest_first = [*reversed(found.ours)]
        chosen, *extra_batches = sorted(oldest_first, key=_worth)
        _set_aside(state, provider, batch, extra_batches, state.clock())
        found_late = "found at the provider after its create was not confirmed"
        wishes.ask(state, provider, adopt(state, batch, chosen, state.clock(), found_late))
    elif why := _why_held(scan, found, refused or shows(state, provider, batch.address)):
        raise _hold(state, batch, why)
    elif provider.dialect.cleanup_unlists and _too_late(
        batch, accounts.cleanup_after(batch.provider), scan.date or state.clock()
    ):
        raise _hold(state, batch, "it was looked for too late: it may have ended, and been deleted since")
    elif refused and not found.empty and batch.cancel_at is None:
        uploads.not_listed(state, batch, scan.date or state.clock())
    else:
        _absent(state, batch, scan.date or state.clock(), found.empty, plan_of(run.config, batch.workload))


def _too_late(batch: Batch, cleanup_after: int | None, date: int) -> bool:
    """Return whether a list from which batches can be deleted may have lost one since its create: another copy of this state
    file may have brought it home and cleaned up after it.
    """
    kept_for = max(
        _DELETED_AFTER[0], min(_DELETED_AFTER[1], _DELETED_AFTER[1] if cleanup_after is None else cleanup_after)
    )
    first_look = marker_of(batch).over
    return (date if first_look is None else first_look) - (batch.sent_at or date) > kept_for


_DELETED_AFTER = (3600, 24 * 3600)
"""Seconds after a create within which its list must first be looked at to prove an absence: at least, and at most."""


def _why_held(scan: "Scan", found: "Found", shown: bool) -> str | None:
    """Return why a batch that is not surely on the list is not surely absent from it either, or None."""
    if scan.doubt:
        return scan.doubt
    if found.taken:
        return f"what bears its tag has an id that belongs to another batch here: {_named(found.taken)}"
    if found.changed:
        return f"its tag stands in results under changed custom_ids: {_named(found.changed)}"
    if found.undecided:
        n = counted(
            len(found.undecided), "batch there may be it; its results", "batches there may be it; their results"
        )
        return f"{n} will tell once {'it ends' if len(found.undecided) == 1 else 'they end'}: {_named(found.undecided)}"
    if found.deleted:
        return f"the results of what may be it were deleted, and would have told: {_named(found.deleted)}"
    if not shown:
        return "that its list lacks it proves nothing: the list at this address has never shown a batch of ours"
    return None


def _named(remotes: Sequence[RemoteBatch]) -> str:
    """Return batches in words by which a person recognises them in the provider's console."""
    words = [
        f"{one.id} ({f'made {rfc3339(one.created_at)}' if one.created_at is not None else 'of unknown age'},"
        f" {counted(one.total, 'request') if one.total else 'of unknown size'})"
        for one in remotes[:_NAMED_AT_MOST]
    ]
    more = len(remotes) - len(words)
    return ", ".join(words) + (f" and {more} more" if more > 0 else "")


def _worth(remote: RemoteBatch) -> tuple[bool, int, int]:
    """Sort key: one that was not refused, then most results, else the oldest."""
    return remote.phase is Phase.REFUSED, -(remote.completed or 0), remote.created_at or 0


def marker_of(batch: Batch) -> Marker:
    """Return the marker that was stored with a batch's intent."""
    return Marker.stored(batch.marker or "{}")


def _hold(state: State, batch: Batch, why: str) -> OnHold:
    with state.transaction() as db:
        batches.note(db, batch, held=why, absent_at=None, absent_here=None, missed=None)
    return OnHold(
        f"batch {batch.id}: whether it arrived at {batch.provider} is not known, and it is held: {why}",
        hint=f"it is looked at again by every dispatch; to decide yourself: nura resolve {batch.id}"
        " --adopt REMOTE_ID | --resend | --give-up",
        new=batch.held is None,
        provider=batch.provider,
        batch_id=batch.id,
    )


def _absent(state: State, batch: Batch, date: int, empty: Sequence[RemoteBatch], plan: Plan) -> None:
    """Note that the list does not have it, or that what may be it holds nothing; the second time, long enough after the
    first, believe it.
    """
    now = state.clock()
    what = f"what may be it holds nothing: {_named(empty)}" if empty else f"{batch.provider} does not list it"
    left = believed_in(batch, what, date, now)
    if left is None:
        with state.transaction() as db:
            batches.note(db, batch, absent_at=date, absent_here=now, missed=what, held=None)
    if left is None or left > 0:
        raise ProviderError(
            f"batch {batch.id}: its create was not confirmed, and {what}",
            hint=f"it is asked again in {SETTLING_SECONDS if left is None else left} seconds before anything is sent anew",
        )
    if empty:
        _hollow(state, batch, empty, plan)
        return
    why = "surely absent: its create was not confirmed, and the provider's list, read twice, lacks it"
    if give_up(state, batch, plan, why):
        raise Decided(
            f"batch {batch.id}: never arrived at {batch.provider}; its tasks wait again",
            hint="nothing to do: they are sent by the next batch",
        )


def _hollow(state: State, batch: Batch, empty: Sequence[RemoteBatch], plan: Plan) -> None:
    """Let the tasks of a batch wait again that may well have run, and holds no line of anybody's: none can be applied."""
    why = f"its create was not confirmed, and what may be it has ended without a result: {_named(empty)}"
    suspects = [remote.id for remote in empty]
    settle.lose(state, batch, Failure(ErrorKind.MISSING, why), plan, resend=True, followed=suspects)
    wished = batches.wish(state.db, batch.id) is not None
    raise Decided(
        f"batch {batch.id}: {why}; its tasks {'are cancelled' if wished else 'wait again'}",
        hint=f"nothing to do{'' if wished else ': they are sent by the next batch'}; what the first one cost is not known",
    )


def give_up(state: State, batch: Batch, plan: Plan, why: str) -> bool:
    """Take an unconfirmed batch for absent: its tasks wait again, no attempt counted, or are cancelled, where a person wished
    the batch so. Return whether they wait.
    """
    settle.give_back(state, batch, plan, why, absent_at=batch.absent_at or state.clock(), held=None)
    return batches.wish(state.db, batch.id) is None


def adopt(state: State, batch: Batch, remote: RemoteBatch, now: int, why: str) -> Batch:
    """Take a batch at the provider for this one: ``submitted``, and polled from now on.

    Raises:
        OnHold: the provider's id for it already belongs to another batch, so that one of the two is not told apart.
    """
    if batches.known(state.db, [remote.id]):
        raise _hold(state, batch, f"the provider gave it the id {remote.id}, which belongs to another batch already")
    with state.transaction() as db:
        taken = search.taken(batch.dialect, remote)
        return batches.move(
            db,
            batch,
            BatchStatus.SUBMITTED,
            why,
            validated_at=standings.next_second(db, batch.workload, batch.revision) if taken else None,
            remote_id=remote.id,
            remote_status=remote.status,
            submitted_at=remote.created_at or now,
            expires_at=remote.expires_at,
            held=None,
            reason=None,
            absent_at=None,
            absent_here=None,
            missed=None,
            input_file_id=batch.input_file_id or remote.input_file_id,
        )


class Scan(NamedTuple):
    """The provider's list down to a marker, newest first; ``doubt`` says why it does not count as read, if it does not; ``account``
    is who the provider says is asking.
    """

    batches: Sequence[RemoteBatch]
    date: int | None
    doubt: str | None
    account: str | None = None


def read_list(provider: Provider, seen: Marker, fingerprint: str, *, deleted: bool = False) -> Scan:
    """Read a provider's list of batches down to well before the marker.

    The marker itself is no place to stop at: of batches made in one second any may be listed first, the clocks of one
    provider's servers lie some seconds apart, and a service that lists oldest first has the newest behind it. A list that may be
    another account's is read all the same: what is on it is there, only what it lacks proves nothing.

    Args:
        deleted: whether the marker is a batch that this very state file had deleted meanwhile.

    Raises:
        ProviderError, KeyRefused: it cannot be read now.
    """
    found: dict[str, RemoteBatch] = {}
    cursor = None
    sound = same = True
    for _ in range(_MOST_PAGES):
        page = provider.page(cursor)
        sound = sound and page.sound
        same = same and _same_account(seen, page, fingerprint)
        found |= {remote.id: remote for remote in page.batches}
        past = _reaches_past(page, seen)
        if past or page.next is None:
            doubt = "the provider's list cannot be read to its end" if page.stuck and not past else None
            doubt = doubt if sound else "the provider's list is null, or has rows without an id"
            doubt = doubt if same else "the key now belongs to another account than the one that sent it"
            whole = past or deleted or seen.id is None
            doubt = doubt or _doubt(seen, seen.id in found, whole, fingerprint)
            return Scan(list(found.values()), page.date, doubt, page.account)
        cursor = page.next
    return Scan(list(found.values()), None, "the provider's list does not end")


def _reaches_past(page: Page, seen: Marker) -> bool:
    """Return whether a page, seen to be newest first, reaches to batches that are surely older than the marker."""
    times = [remote.created_at for remote in page.batches if remote.created_at is not None]
    if seen.created_at is None or len(times) < max(2, len(page.batches)):
        return False
    newest_first = times[0] > times[-1] and all(a + SKEW_SECONDS >= b for a, b in pairwise(times))
    return newest_first and times[-1] < seen.created_at - SKEW_SECONDS


def _doubt(seen: Marker, met: bool, whole: bool, fingerprint: str) -> str | None:
    """Return why a list that was read to its end, or past the marker, is no proof; None where it is."""
    if met:
        return None
    if seen.fingerprint != fingerprint:  # keys of one organization's projects and workspaces see lists of their own
        return "the key was changed since, and the newest batch from before it is not on this key's list"
    return None if whole else "the newest batch from before it is no longer listed, so the list cannot be trusted"


def _same_account(seen: Marker, page: Page, fingerprint: str) -> bool:
    if seen.account is not None and page.account is not None:
        return seen.account == page.account
    return seen.fingerprint == fingerprint


class Found(NamedTuple):
    """Which batches of a list are surely ours, and which may be.

    Attributes:
        undecided: may be ours, and have not ended.
        deleted: may be ours, have ended, and have no results any more that would tell.
        empty: may be ours, and have ended without a line of anybody's.
        taken: bear our tag, under an id that belongs to another batch here.
        changed: have our tag in custom_ids that were changed, so that nothing of them can be applied.
    """

    ours: list[RemoteBatch]
    undecided: list[RemoteBatch]
    deleted: list[RemoteBatch]
    empty: list[RemoteBatch]
    taken: list[RemoteBatch]
    changed: list[RemoteBatch]


def identify(state: State, provider: Provider, batch: Batch, listed: Sequence[RemoteBatch]) -> Found:
    """Tell which of the listed batches came from this batch's create, of those that belong to no batch yet.

    By metadata or input file where the provider names them; else by time and size, and for certain only by the
    custom_ids in an ended batch's results.

    Raises:
        ProviderError: the results of a suspect cannot be read now.
    """
    known = batches.known(state.db, [remote.id for remote in listed])
    fresh = [remote for remote in listed if remote.id not in known]
    ours = [remote for remote in fresh if has_tag(remote, batch)]
    taken = [remote for remote in listed if remote.id in known and has_tag(remote, batch)]
    found = Found(ours, [], [], [], taken, [])
    if ours:
        return found
    for remote in fresh:
        if suspect(remote, batch):
            tags = tags_of(provider, remote)
            if batch.tag in tags.found:
                found.ours.append(remote)
            elif any(batch.tag in tag for tag in tags.found):
                found.changed.append(remote)
            elif not tags.found:
                {"running": found.undecided, "deleted": found.deleted, "empty": found.empty}[tags.why].append(remote)
    return found


def has_tag(remote: RemoteBatch, batch: Batch) -> bool:
    """Return whether a listed batch has this one's tag, or was made from its file."""
    by_file = remote.input_file_id is not None and remote.input_file_id == batch.input_file_id
    return remote.tag == batch.tag or by_file


def check_ours(remote: RemoteBatch, batch: Batch) -> None:
    """Check that the answer to a create is about the batch that was sent, as far as it tells.

    Raises:
        Unconfirmed: it names another tag, file or number of requests: what became of ours is not known.
    """
    other_tag = remote.tag not in (None, batch.tag)
    other_file = (
        remote.tag is None and None not in (remote.input_file_id, batch.input_file_id) and not has_tag(remote, batch)
    )
    if other_tag or other_file or remote.total not in (None, 0, batch.requests):
        raise Unconfirmed(
            f"{batch.provider}: creating a batch: the answer is about another one ({remote.id})",
            hint="nothing is sent again before the provider has said what became of it",
            provider=batch.provider,
        )


def suspect(remote: RemoteBatch, batch: Batch) -> bool:
    """Return whether a listed batch may be this one: it names no other origin, and neither size nor time speak against it.

    Times are compared by the server's clock alone, from right before the create was sent until nobody could be sending
    it any more.
    """
    if remote.tag is not None or (remote.input_file_id is not None and batch.input_file_id is not None):
        return False
    if remote.total not in (None, 0, batch.requests):
        return False
    seen = marker_of(batch)
    early = seen.date is not None and remote.created_at is not None and remote.created_at < seen.date - SKEW_SECONDS
    latest = None if seen.over is None else seen.over + SETTLING_SECONDS + SKEW_SECONDS
    late = latest is not None and remote.created_at is not None and remote.created_at > latest
    return not early and not late


class Tags(NamedTuple):
    """What a batch at a provider tells of who sent it.

    Attributes:
        found: its own tag, or those of its results' custom_ids; empty where nothing can be known.
        why: where nothing can be known: ``running`` (or its results cannot be made sense of now), ``deleted`` or ``empty``.
    """

    found: frozenset[str]
    why: str = ""


def tags_of(provider: Provider, remote: RemoteBatch) -> Tags:
    """Return the tags of a batch: its own, or what stands before the dash in the custom_ids that its results begin with.

    All of them: a line of somebody else's may stand among ours. Results that the provider will not show now (it may be
    somebody else's batch) count as those of one that is still running.

    Raises:
        ProviderError: the provider does not answer.
    """
    if remote.tag:
        return Tags(frozenset({remote.tag}))
    if remote.phase is not Phase.ENDED:
        return Tags(frozenset(), "running")
    if not remote.parts:
        return Tags(frozenset(), "deleted")
    tags: set[str] = set()
    why = "empty"
    for part in remote.parts.values():
        try:
            in_part = _tags_in(provider, part)
        except NotFound:
            why = "deleted"
            continue
        except (ProviderError, KeyRefused) as error:
            if isinstance(error, ProviderError) and not error.answered:
                raise
            in_part = None
        if in_part is None:
            why = "running"
        else:
            tags |= in_part
    return Tags(frozenset(tags), why)


def _tags_in(provider: Provider, part: str) -> set[str] | None:
    """Return the tags of the custom_ids at the beginning of a part; none where it is empty, None where it is no results.

    A first line whose custom_id stands behind a long answer is read as far as it takes.
    """
    size = _HEAD_BYTES
    while True:
        head = provider.head(part, size)
        *whole, cut = head.split(b"\n")
        if len(head) < size:
            whole.append(cut)
        tags = {tag for line in whole if (tag := _tag(provider.dialect, line)) is not None}
        if not whole and (name := top_level(cut, provider.dialect.id_field)) is not None:
            tags.add(name.rpartition("-")[0])
        if tags or len(head) < size or whole or size >= _LONGEST_HEAD:
            return tags if tags or not head.strip() else None
        size *= 8


def _tag(dialect: Dialect, line: bytes) -> str | None:
    """Return what stands before the dash in the custom_id of a result line; None where it is no such line."""
    try:
        return dialect.result(line).custom_id.rpartition("-")[0]
    except Illegible as error:
        return error.custom_ids[0].rpartition("-")[0] if len(error.custom_ids) == 1 else None
    except ValueError:
        return None


def _watch(run: ProviderRun, batch: Batch) -> None:
    """Look out for a batch that was taken for absent: one that turns up after all is cancelled and followed."""
    state, accounts = run.state, run.accounts
    if batch.provider not in accounts.names() or batch.address != accounts.address(batch.provider):
        return
    provider = accounts.provider(batch.provider)
    scan = read_list(provider, marker_of(batch), accounts.fingerprint(provider.name))
    if batch.remote_id is not None and all(one.id != batch.remote_id for one in scan.batches):
        return  # what bears its tag may be this very batch, under the list's own name for it, and is followed already
    _set_aside(state, provider, batch, identify(state, provider, batch, scan.batches).ours, state.clock())
