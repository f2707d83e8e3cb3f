"""Copies of one sending: batches at a provider that carry our tasks beside the one that is used.

A create may have been executed twice (a proxy repeated it, an answer of 429 came although it was done), and a restored
state file may have sent what its original sent. Poll looks through the lists for them. Where the vendor keeps our tag, a
batch that bears it is a copy; it is cancelled when two polls, a quarter of an hour apart, have seen it beside the one that
is used, and what it cost is counted. Where it keeps no mark, one that is like ours by time and size is named to the
operator while it runs, and its results tell whose it is once it has ended.

A batch may be listed under another id than its create was answered with: while the list does not show the one that is
used, nothing on it is taken for a second one.
"""

from collections.abc import Mapping, Sequence, Set

from nura_cli.dialects.base import Phase, RemoteBatch
from nura_cli.pipeline import recovery
from nura_cli.pipeline.run import ProviderRun
from nura_cli.pipeline.waiting import SETTLING_SECONDS
from nura_cli.providers.base import Provider
from nura_cli.state import State, batches
from nura_cli.state.batches import Batch, Orphan, Sighting
from nura_cli.states import BatchStatus

WATCHED_SECONDS = 48 * 3600
"""How long after it was made a batch is looked for on the list a second time."""
_MOST_PAGES = 20
_DISPATCHS = frozenset({BatchStatus.PROCESSING, BatchStatus.UPLOADED, BatchStatus.SUBMITTING})
"""Where dispatch alone finds out what is at the provider."""


def look_through(run: ProviderRun) -> None:
    """Look for copies of what was sent lately, at each provider that something was sent to."""
    state, accounts = run.state, run.accounts
    if batches.sightings(state.db):
        _forget_decided(state, state.clock())
    for name in accounts.names():
        address = accounts.address(name)
        sent = [
            one for one in batches.sent_since(state.db, name, state.clock() - WATCHED_SECONDS) if one.address == address
        ]
        if not sent:
            continue
        with run.provider_apart(name):
            _look(state, accounts.provider(name), sent)


def _forget_decided(state: State, now: int) -> None:
    """Forget what is known for one of ours by now, and what was seen too long ago to matter."""
    with state.transaction() as db:
        sightings = batches.sightings(db)
        known = batches.known(db, [seen.remote_id for seen in sightings])
        for seen in sightings:
            if seen.remote_id in known or now - seen.first_at > 2 * WATCHED_SECONDS:
                batches.forget(db, seen)


def _look(state: State, provider: Provider, sent: Sequence[Batch]) -> None:
    """Look through one provider's list: note what bears our tag, and find out about what may be ours without one."""
    listed, whole = _listed(provider, sent)
    if whole:
        _forget_vanished(state, provider.name, {one.id for one in listed})
    marked = {one.id: one for one in listed if provider.dialect.keeps_marks}
    files = {one.input_file_id: one for one in sent if one.input_file_id is not None}
    _note_copies(state, provider.name, marked, files, state.clock())
    for remote in listed:
        if remote.id not in marked or (remote.tag is None and remote.input_file_id is None):
            _identify(state, provider, remote, [one.id for one in listed], sent, state.clock())


def _forget_vanished(state: State, provider: str, listed: Set[str]) -> None:
    """Forget what may have been a second sending and is no longer on the list: it cannot be looked into, nor cancelled."""
    gone = [
        seen
        for seen in batches.sightings(state.db)
        if seen.provider == provider and seen.verdict == "possible" and seen.remote_id not in listed
    ]
    if gone:
        with state.transaction() as db:
            for seen in gone:
                batches.forget(db, seen)


def _listed(provider: Provider, sent: Sequence[Batch]) -> tuple[list[RemoteBatch], bool]:
    """Read the list down to where it stood before the oldest of these creates; return it, and whether it reached so far."""
    oldest = min((at for one in sent if (at := recovery.marker_of(one).date) is not None), default=None)
    found: dict[str, RemoteBatch] = {}
    cursor = None
    for _ in range(_MOST_PAGES):
        page = provider.page(cursor)
        found |= {remote.id: remote for remote in page.batches}
        last = page.batches[-1].created_at if page.batches else None
        past = oldest is not None and last is not None and last < oldest - recovery.SKEW_SECONDS
        cursor = page.next
        if past or (cursor is None and page.sound and not page.stuck):
            return list(found.values()), True
        if cursor is None:
            break
    return list(found.values()), False


def _note_copies(
    state: State, provider: str, listed: Mapping[str, RemoteBatch], files: Mapping[str, Batch], now: int
) -> None:
    """Note which listed batches bear the tag of a batch that is used under another id, and set aside those seen before.

    What is known of them is read in one transaction, after the list was: a dispatch may confirm a create meanwhile.

    Args:
        files: the batches that were sent lately, by the id of their request file: some services drop the tag.
    """
    with state.transaction() as db:
        known = batches.known(db, listed)
        seen = {one.remote_id: one for one in batches.sightings(db) if one.provider == provider}
        for remote in listed.values():
            sent = files.get(remote.input_file_id or "")
            batch = batches.by_tag(db, remote.tag) if remote.tag else batches.get(db, sent.id) if sent else None
            if remote.id in known or batch is None or batch.status in _DISPATCHS:
                continue
            if batch.remote_id is not None and batch.remote_id not in listed:
                continue  # it may be the one that is used, under the list's own name for it
            before = seen.get(remote.id)
            if before is None or now < before.first_at:
                batches.forget(db, Sighting(provider, remote.id, batch.id, now, "copy"))
                batches.sight(db, Sighting(provider, remote.id, batch.id, now, "copy"))
            elif now - before.first_at >= SETTLING_SECONDS:
                batches.add_orphan(db, Orphan(provider, remote.id, batch.id, now))
                batches.forget(db, before)


def _identify(
    state: State, provider: Provider, remote: RemoteBatch, listed: Sequence[str], sent: Sequence[Batch], now: int
) -> None:
    """Find out whether a listed batch without a mark is a copy of a sending, by what its results say once it has ended."""
    if batches.known(state.db, [remote.id]) or _decided(state, provider.name, remote.id):
        return
    like = [one for one in sent if one.status not in _DISPATCHS and recovery.suspect(remote, one)]
    if not like:
        return
    tags = recovery.tags_of(provider, remote) if remote.phase is Phase.ENDED else recovery.Tags(frozenset(), "running")
    ours = next((one for one in sent if one.tag in tags.found), None)
    with state.transaction() as db:
        if batches.known(db, [remote.id]):
            return
        batch = batches.get(db, ours.id if ours else like[0].id)
        verdict = "possible" if tags.why in ("running", "deleted") and not tags.found else "other"
        seen = Sighting(provider.name, remote.id, like[0].id, now, verdict)
        if ours is None or batch is None or batch.status in _DISPATCHS:
            batches.sight(db, seen)
        elif batch.remote_id is None or batch.remote_id in listed:
            batches.add_orphan(db, Orphan(provider.name, remote.id, batch.id, now))
            batches.forget(db, seen)
        else:  # the one that is used, under the list's own name for it
            batches.sight(db, seen)


def _decided(state: State, provider: str, remote_id: str) -> bool:
    return any(
        one.verdict == "other" and (one.provider, one.remote_id) == (provider, remote_id)
        for one in batches.sightings(state.db)
    )
