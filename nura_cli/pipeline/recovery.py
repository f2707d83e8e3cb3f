"""What became of a create whose answer did not come: the named step for the one doubtful state, ``submitting``.

Before a create, dispatch stores a marker of the provider's list; here, under dispatch's lock, the list is read down to
that marker. A batch of ours on it is adopted, once; doubles are cancelled and followed; one that is surely absent (read
twice, 15 minutes apart by the server's clock, as the same account) gives its tasks back, and the log says so. Whatever
cannot be decided is held, and nothing is ever sent on a guess.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import NamedTuple, Protocol

from nura_cli.clock import Clock
from nura_cli.errors import ConfigError, KeyRefused, NotFound, NuraError, ProviderError, RateLimited, Unreachable
from nura_cli.pipeline.accounts import Accounts
from nura_cli.pipeline.report import count
from nura_cli.providers.base import Dialect, Page, Phase, Provider, RemoteBatch
from nura_cli.state import State, batches, tasks
from nura_cli.state.batches import Batch, Stray
from nura_cli.states import BatchStatus

SETTLING_SECONDS = 15 * 60
"""How long after a create the provider may take to list it; also the least time between two reads that find it absent."""
WINDOW_SECONDS = 24 * 3600
"""How long a provider takes for a batch at most, where it does not say."""
LOST_AFTER = 3600
"""Seconds past its deadline after which a batch that the provider does not know may be taken for lost."""
SKEW_SECONDS = 60
"""How far the clocks of one provider's servers may lie apart, and so its batches out of order."""
GIVEN_UP_WATCH = 48 * 3600
"""How long a batch that was taken for absent is still looked out for, in seconds."""
_MOST_PAGES = 1000
_HEAD_BYTES = 1 << 16


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


class Job(Protocol):
    """What of the running stage recovery needs: a place for troubles."""

    def fail(
        self, error: NuraError, *, provider: str | None = None, workload: str | None = None, batch: int | None = None
    ) -> None:
        """Note a trouble; the run goes on."""
        ...


def marker(page: Page, fingerprint: str) -> Marker:
    """Return the marker of the newest page of a list."""
    newest = page.batches[0] if page.batches else None
    return Marker(
        newest.id if newest else None, newest.created_at if newest else None, page.date, page.account, fingerprint
    )


def look(state: State, provider: Provider, accounts: Accounts, clock: Clock) -> Marker:
    """Read the newest page of a provider's list: it proves the provider reachable and the key good, and gives a marker.

    On the way it notices batches that carry this state file's id and that it does not know as sent.

    Raises:
        ConfigError: another copy of this state file has sent batches; sending from this one could pay for them twice.
        ProviderError, KeyRefused: the list cannot be read.
    """
    page = provider.page()
    _refuse_copies(state, provider, page.batches, clock)
    return marker(page, accounts.fingerprint(provider.name))


def survey(state: State, accounts: Accounts, provider: Provider, clock: Clock) -> None:
    """Look for batches of another copy of this state file, down to where the list stood when this one last sent.

    In an account that others use too, what a copy sent may no longer be on the newest page. A state file that never sent
    anything looks back to its first record.

    Raises:
        ConfigError, ProviderError, KeyRefused: as :func:`look`.
    """
    seen = batches.last_marker(state.db, provider.name, accounts.address(provider.name))
    here = accounts.fingerprint(provider.name)
    born = tasks.first_at(state.db) - SETTLING_SECONDS
    since = Marker(None, born, None, None, here) if seen is None else Marker(**json.loads(seen))
    # Whoever asked then: a key that was changed since does not make the copies unseen.
    scan = read_list(provider, since._replace(account=None, fingerprint=here), here)
    _refuse_copies(state, provider, scan.batches, clock)


def _refuse_copies(state: State, provider: Provider, listed: Sequence[RemoteBatch], clock: Clock) -> None:
    """Raise ConfigError where a listed batch was sent by another copy of this state file; set doubles of ours aside."""
    known = batches.known(state.db, [remote.id for remote in listed])
    strangers = []
    for remote in listed:
        if remote.state_id != state.state_id or remote.id in known:
            continue
        batch = batches.by_tag(state.db, remote.tag or "")
        if batch is None or batch.marker is None:  # this file never got as far as sending it
            strangers.append(remote.id)
        elif batch.status is not BatchStatus.SUBMITTING:
            _set_aside(state, provider, batch, [remote], clock())
    if strangers:
        raise ConfigError(
            f"{provider.name}: {count(len(strangers), 'batch', 'batches')} there came from another copy of this state"
            f" file ({', '.join(strangers[:3])}{' …' if len(strangers) > 3 else ''}); sending from this one could pay twice",
            hint="restore that copy; or accept that their tasks are sent again: nura resolve "
            + " ".join(strangers)
            + " --resend",
            provider=provider.name,
        )


def _set_aside(state: State, provider: Provider, batch: Batch, remotes: Sequence[RemoteBatch], now: int) -> None:
    """Cancel batches that carry tasks another batch answers for, and follow them, so that their cost is counted."""
    with state.transaction() as db:
        for remote in remotes:
            batches.add_stray(db, Stray(provider.name, remote.id, batch.id, now))
    for remote in remotes:
        if remote.phase is Phase.RUNNING:
            with suppress(ProviderError, KeyRefused):  # poll asks for it until it has ended
                provider.cancel(remote.id)


def resolve(state: State, accounts: Accounts, clock: Clock, job: Job) -> None:
    """Find out what became of every unconfirmed create, and of those that were given up lately.

    One batch's trouble is its own; of a provider that does not answer, or refuses the key, nothing more is asked.
    """
    doubtful = [(batch, _resolve) for batch in batches.under_way(state.db, BatchStatus.SUBMITTING)]
    absent = [(batch, _watch) for batch in batches.given_up(state.db, clock() - GIVEN_UP_WATCH)]
    down = set()
    for batch, find_out in [*doubtful, *absent]:
        if batch.provider in down:
            continue
        try:
            find_out(state, accounts, clock, batch)
        except (ProviderError, KeyRefused, ConfigError) as error:
            job.fail(error, provider=batch.provider, workload=batch.workload, batch=batch.id)
            silent = isinstance(error, Unreachable | RateLimited) and not error.answered
            if silent or isinstance(error, KeyRefused):
                down.add(batch.provider)


def _resolve(state: State, accounts: Accounts, clock: Clock, batch: Batch) -> None:
    accounts.check(batch)
    provider = accounts.provider(batch.provider)
    if not accounts.adopts(batch.provider):
        raise _hold(state, batch, "on_unconfirmed: hold is set for its provider")
    seen = marker_of(batch)
    deleted = seen.id is not None and not provider.uploads and batches.cleaned(state.db, seen.id)
    scan = read_list(provider, seen, accounts.fingerprint(batch.provider), deleted=deleted)
    if seen.over is None and scan.date is not None:
        with state.transaction() as db:
            batch = batches.note(db, batch, marker=json.dumps(seen._replace(over=scan.date)._asdict()))
    found = identify(state, provider, batch, scan.batches)
    if found.ours:
        oldest_first = [*reversed(found.ours)]
        chosen, *doubles = sorted(oldest_first, key=_worth)
        _set_aside(state, provider, batch, doubles, clock())
        adopt(state, batch, chosen, clock(), "found at the provider after its create was not confirmed")
    elif scan.doubt:
        raise _hold(state, batch, scan.doubt)
    elif found.undecided:
        raise _hold(
            state, batch, f"{len(found.undecided)} batches there may be it; their results will tell once they end"
        )
    else:
        _absent(state, batch, scan.date or clock(), clock())


def _worth(remote: RemoteBatch) -> tuple[bool, int, int]:
    """Sort key: one that was not refused, then most results, else the oldest."""
    return remote.phase is Phase.REFUSED, -(remote.completed or 0), remote.created_at or 0


def marker_of(batch: Batch) -> Marker:
    """Return the marker that was stored with a batch's intent."""
    return Marker(**json.loads(batch.marker or "{}"))


def _hold(state: State, batch: Batch, why: str) -> ProviderError:
    with state.transaction() as db:
        batches.note(db, batch, held=why, absent_at=None)
    return ProviderError(
        f"batch {batch.id}: whether it arrived at {batch.provider} is not known, and it is held: {why}",
        hint=f"it is looked at again by every dispatch; to decide yourself: nura resolve {batch.id}"
        " --adopt REMOTE_ID | --resend",
        batch_id=batch.id,
    )


def _absent(state: State, batch: Batch, date: int, now: int) -> None:
    """Note that the list does not have it; the second time, long enough after the first, believe it."""
    first = batch.absent_at
    if first is None or date < first:
        with state.transaction() as db:
            batches.note(db, batch, absent_at=date, held=None)
        raise ProviderError(
            f"batch {batch.id}: its create was not confirmed, and {batch.provider} does not list it",
            hint="it is asked again in 15 minutes before anything is sent anew",
        )
    if date - first < SETTLING_SECONDS:
        raise ProviderError(
            f"batch {batch.id}: its create was not confirmed, and {batch.provider} does not list it",
            hint=f"it is asked again in {SETTLING_SECONDS - (date - first)} seconds before anything is sent anew",
        )
    give_up(
        state, batch, now, "surely absent: its create was not confirmed, and the provider's list, read twice, lacks it"
    )
    raise ProviderError(
        f"batch {batch.id}: never arrived at {batch.provider}; its tasks wait again",
        hint="nothing to do: they are sent by the next batch",
    )


def give_up(state: State, batch: Batch, now: int, why: str) -> None:
    """Take an unconfirmed batch for absent: its tasks wait again, no attempt counted."""
    with state.transaction() as db:
        tasks.release(db, batch.id, now, why)
        batches.move(db, batch, BatchStatus.FAILED, now, why, reason=why, absent_at=batch.absent_at or now, held=None)


def abandon(state: State, batch: Batch, now: int, why: str) -> None:
    """Give up a batch that the provider had taken: its tasks wait again, and it is followed as a stray."""
    with state.transaction() as db:
        batches.add_stray(db, Stray(batch.provider, str(batch.remote_id), batch.id, now))
        tasks.release(db, batch.id, now, why)
        batches.move(db, batch, BatchStatus.FAILED, now, why, reason=why)


def deadline(batch: Batch) -> int:
    """Return the unix second at which the provider's time for a batch is over."""
    return batch.expires_at or (batch.submitted_at or batch.created_at) + WINDOW_SECONDS


def adopt(state: State, batch: Batch, remote: RemoteBatch, now: int, why: str) -> Batch:
    """Take a batch at the provider for this one: ``submitted``, and polled from now on."""
    with state.transaction() as db:
        return batches.move(
            db,
            batch,
            BatchStatus.SUBMITTED,
            now,
            why,
            remote_id=remote.id,
            remote_status=remote.status,
            submitted_at=remote.created_at or now,
            expires_at=remote.expires_at,
            held=None,
            absent_at=None,
            input_file_id=batch.input_file_id or remote.input_file_id,
        )


class Scan(NamedTuple):
    """The provider's list down to a marker, newest first; ``doubt`` says why it does not count as read, if it does not."""

    batches: Sequence[RemoteBatch]
    date: int | None
    doubt: str | None


def read_list(provider: Provider, seen: Marker, fingerprint: str, *, deleted: bool = False) -> Scan:
    """Read a provider's list of batches down to well before the marker.

    The marker itself is no place to stop at: of batches made in one second any may be listed first, the clocks of one
    provider's servers lie some seconds apart, and a service that lists oldest first has the newest behind it.

    Args:
        deleted: whether the marker is a batch that this very state file had deleted meanwhile.

    Raises:
        ProviderError, KeyRefused: it cannot be read now.
    """
    found: dict[str, RemoteBatch] = {}
    cursor = None
    for _ in range(_MOST_PAGES):
        page = provider.page(cursor)
        if not _same_account(seen, page, fingerprint):
            return Scan(
                list(found.values()), page.date, "the key now belongs to another account than the one that sent it"
            )
        found |= {remote.id: remote for remote in page.batches}
        past = _reaches_past(page, seen)
        if past or page.next is None:
            doubt = "the provider's list cannot be read to its end" if page.stuck and not past else None
            whole = past or deleted or seen.id is None
            return Scan(list(found.values()), page.date, doubt or _doubt(seen, seen.id in found, whole, fingerprint))
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
    """Which batches of a list are surely ours, and which may be."""

    ours: list[RemoteBatch]
    undecided: list[RemoteBatch]


def identify(state: State, provider: Provider, batch: Batch, listed: Sequence[RemoteBatch]) -> Found:
    """Tell which of the listed batches came from this batch's create, of those that belong to no batch yet.

    By metadata or input file where the provider names them; else by time and size, and for certain only by the
    custom_ids in an ended batch's results.

    Raises:
        ProviderError: the results of a suspect cannot be read now.
    """
    known = batches.known(state.db, [remote.id for remote in listed])
    fresh = [remote for remote in listed if remote.id not in known]
    ours = [remote for remote in fresh if _bears(remote, batch)]
    if ours:
        return Found(ours, [])
    undecided = []
    for remote in fresh:
        if not _suspect(remote, batch):
            continue
        tags = tags_of(provider, remote)
        if tags is None:
            undecided.append(remote)
        elif batch.tag in tags:
            ours.append(remote)
    return Found(ours, undecided)


def _bears(remote: RemoteBatch, batch: Batch) -> bool:
    by_file = remote.input_file_id is not None and remote.input_file_id == batch.input_file_id
    return remote.tag == batch.tag or by_file


def _suspect(remote: RemoteBatch, batch: Batch) -> bool:
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
    late = seen.over is not None and remote.created_at is not None and remote.created_at > seen.over + SETTLING_SECONDS
    return not early and not late


def tags_of(provider: Provider, remote: RemoteBatch) -> frozenset[str] | None:
    """Return the tags of a batch: its own, or what stands before the dash in the custom_ids that its results begin with.

    All of them: a line of somebody else's may stand among ours. None means that nothing can be known yet: it has not
    ended, or its results are gone, or empty, or no results at all (a page of HTML).

    Raises:
        ProviderError: its results cannot be read now.
    """
    if remote.tag:
        return frozenset({remote.tag})
    tags: set[str] = set()
    for part in remote.parts.values():
        try:
            head = provider.head(part, _HEAD_BYTES)
        except NotFound:
            return None
        *whole, cut = head.split(b"\n")
        found = [_tag(provider.dialect, line) for line in whole] or [_tag_in(cut)]
        tags |= {tag for tag in found if tag is not None}
    return frozenset(tags) or None


def _tag(dialect: Dialect, line: bytes) -> str | None:
    """Return what stands before the dash in the custom_id of a result line; None where it is no such line."""
    try:
        return dialect.result(line).custom_id.rpartition("-")[0]
    except ValueError:
        return None


def _tag_in(line: bytes) -> str | None:
    """Read the tag out of a first line that is longer than what was read of it."""
    start = line.find(b'"custom_id"')
    quoted = line[start:].partition(b":")[2].lstrip().split(b'"')
    return quoted[1].decode("utf-8", "replace").rpartition("-")[0] if start >= 0 and len(quoted) > 2 else None


def _watch(state: State, accounts: Accounts, clock: Clock, batch: Batch) -> None:
    """Look out for a batch that was taken for absent: one that turns up after all is cancelled and followed."""
    if batch.provider not in accounts.names() or batch.address != accounts.address(batch.provider):
        return
    provider = accounts.provider(batch.provider)
    scan = read_list(provider, marker_of(batch), accounts.fingerprint(provider.name))
    _set_aside(state, provider, batch, identify(state, provider, batch, scan.batches).ours, clock())
