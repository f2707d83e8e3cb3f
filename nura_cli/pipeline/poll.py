"""nura poll: what has ended at the providers comes home to the spool.

Takes batches that are ``submitted``; leaves those that ended ``completed``, their results whole on disk: streamed to a
``.part`` file, checked, synced, renamed, and only then noted. It asks by list pages where that takes fewer requests than
asking for each batch. It also deletes at the provider what is due for it, and follows strays to their end.

What can go wrong: a provider that cannot be reached, alone; a download cut short, which is taken up by the next run; a
batch or results the provider has lost, whose tasks are then sent again. It holds the poll lock, and is the only stage
that writes and sweeps ``results/``.
"""

import errno
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from nura_cli.clock import Clock
from nura_cli.errors import (
    EX_TEMPFAIL,
    ConfigError,
    KeyRefused,
    NotFound,
    NuraError,
    ProviderError,
    RateLimited,
    Refused,
    StateError,
    Unreachable,
)
from nura_cli.pipeline import recovery, retry, spool
from nura_cli.pipeline.accounts import Accounts
from nura_cli.pipeline.report import Report, Trouble, batch_dicts, trouble
from nura_cli.providers.base import Download, Phase, Provider, RemoteBatch
from nura_cli.state import State, batches, runs
from nura_cli.state.batches import Batch, Stray
from nura_cli.state.disk import on_disk, part_of, publish
from nura_cli.states import BatchStatus

_WAIT_SECONDS = (0.2, 30.0)
"""With ``--wait``: seconds between two rounds, from the first to the longest."""
STRAY_MISSED = recovery.WINDOW_SECONDS + recovery.LOST_AFTER
"""Seconds after which a stray that the provider does not know is no longer looked for."""
STRAY_KEPT = 30 * 86400
"""Seconds after which no provider keeps anything of a stray."""


@dataclass(slots=True)
class Poll:
    """One run of the stage: what it works with, and what it has seen so far."""

    state: State
    accounts: Accounts
    clock: Clock
    checked: int = 0
    moved: dict[int, Batch] = field(default_factory=dict)
    troubles: dict[str, Trouble] = field(default_factory=dict)
    worked: bool = False

    def fail(
        self, error: NuraError, *, provider: str | None = None, workload: str | None = None, batch: int | None = None
    ) -> None:
        """Note a trouble; the run goes on. Said once, however many rounds it lasts."""
        found = trouble(error, provider=provider, workload=workload, batch=batch)
        self.troubles[found.scope] = found


def run(
    state: State,
    accounts: Accounts,
    clock: Clock,
    *,
    wait: int | None = None,
    progress: Callable[[int, int], None] = lambda ended, total: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Report:
    """Ask after every batch under way, and bring home what has ended.

    Args:
        wait: seconds to stay until all have ended; None asks once.
        progress: told how many of how many have ended.

    Returns:
        ``checked``, and the ``batches`` that changed. With ``wait``, exit code 75 when time runs out first.
    """
    job = Poll(state, accounts, clock)
    _sweep(state)
    total = len(batches.under_way(state.db, BatchStatus.SUBMITTED))
    deadline = time.monotonic() + (wait or 0)
    pause, longest = _WAIT_SECONDS
    while True:
        job.troubles.clear()
        _round(job)
        left = len(batches.under_way(state.db, BatchStatus.SUBMITTED))
        progress(total - left, total)
        if wait is None or not left or time.monotonic() >= deadline:
            break
        sleep(min(pause, max(0.0, deadline - time.monotonic())))
        pause = min(pause * 1.5, longest)
    _follow_strays(job)
    _clean_up(job)
    troubles = list(job.troubles.values())
    if wait is not None and left:
        late = f"{left} of {total} batches have not ended within {wait} seconds"
        return Report(_result(job), [*troubles, Trouble("timeout", late, EX_TEMPFAIL)], worked=False)
    return Report(_result(job), troubles, job.worked)


def _result(job: Poll) -> dict[str, object]:
    return {"checked": job.checked, "batches": batch_dicts(list(job.moved.values()))}


def _round(job: Poll) -> None:
    by_provider: dict[str, list[Batch]] = {}
    for batch in batches.under_way(job.state.db, BatchStatus.SUBMITTED):
        try:
            job.accounts.check(batch)
            by_provider.setdefault(batch.provider, []).append(batch)
        except ConfigError as error:
            job.fail(error, batch=batch.id)
    for name, group in by_provider.items():
        try:
            _ask(job, job.accounts.provider(name), group)
        except (ProviderError, KeyRefused, ConfigError) as error:
            job.fail(error, provider=name)


def _ask(job: Poll, provider: Provider, group: Sequence[Batch]) -> None:
    """Ask one provider after its batches: by pages of its list while that pays, then one by one."""
    waiting = {str(batch.remote_id): batch for batch in group}
    cursor = None
    pages = 0
    while listing_pays(len(waiting), provider.page_size, pages, len(group)):
        page = provider.page(cursor)
        pages += 1
        for remote in page.batches:
            batch = waiting.pop(remote.id, None)
            if batch is not None:
                _see(job, provider, batch, remote)
        cursor = page.next
        if cursor is None:
            break
    for batch in waiting.values():
        try:
            _ask_after(job, provider, batch)
        except ProviderError as error:
            if not _answered(error):
                raise
            job.fail(error, provider=batch.provider, workload=batch.workload, batch=batch.id)


def _ask_after(job: Poll, provider: Provider, batch: Batch) -> None:
    try:
        remote = provider.retrieve(str(batch.remote_id))
    except NotFound:
        _not_found(job, provider, batch)
    else:
        _see(job, provider, batch, remote)


def _answered(error: ProviderError) -> bool:
    """Return whether the provider did answer, if not with what was asked for, and does not ask to be left alone: the
    trouble may be about this one thing, and the next one is asked for all the same.
    """
    return error.http_status is not None and not isinstance(error, RateLimited)


def listing_pays(waiting: int, page_size: int, pages: int, total: int) -> bool:
    """Return whether one more page of the list may cost fewer requests than asking for the rest one by one.

    Pages already read are spent; at worst (an account full of others' batches) as many pages are read as asking for
    each batch would have taken, so the cost is never more than twice the least.
    """
    return waiting > 2 and pages < max(2 * -(-total // page_size), total // 4)


def _see(job: Poll, provider: Provider, batch: Batch, remote: RemoteBatch) -> None:
    """Note what the provider says of a batch; when it has ended, bring it home. Its trouble is its own."""
    job.checked += 1
    told = {
        "remote_status": remote.status,
        "completed": remote.completed if remote.completed is not None else batch.completed,
        "failed": remote.failed if remote.failed is not None else batch.failed,
        "expires_at": remote.expires_at or batch.expires_at,
        "input_file_id": batch.input_file_id or remote.input_file_id,
        "absent_at": None if remote.phase is Phase.RUNNING else batch.absent_at,
    }
    try:
        if any(getattr(batch, name) != value for name, value in told.items()):
            with job.state.transaction() as db:
                batch = batches.note(db, batch, **told)
            job.moved[batch.id] = batch
        if remote.phase is not Phase.RUNNING:
            job.moved[batch.id] = _bring_home(job, provider, batch, remote)
        job.worked = True
    except (ProviderError, KeyRefused, StateError) as error:
        job.fail(error, provider=batch.provider, workload=batch.workload, batch=batch.id)


def _bring_home(job: Poll, provider: Provider, batch: Batch, remote: RemoteBatch) -> Batch:
    """Download what an ended batch has; note it ``completed`` once all of it is whole, or surely lost."""
    spooled: dict[str, dict[str, object]] = {}
    faults = msgspec.json.encode(remote.faults).decode() if remote.phase is Phase.REFUSED else None
    lost, foreign = _unnamed(batch, remote) if remote.phase is Phase.ENDED else None, False
    for part, part_id in remote.parts.items() if remote.phase is Phase.ENDED else ():
        path = result_file(job.state, batch, part)
        try:
            got = fetch(provider, part_id, path)
        except NotFound:
            lost = f"does not find its {part} file"
            continue
        if part != "error" and not bears(path, batch.tag):
            lost, foreign = f"gives other requests' results for its {part} file", True
            continue
        spooled[part] = {"bytes": got.bytes, "sha256": got.sha256}
    if lost and not _absent_twice(job, provider, batch):
        raise NotFound(f"batch {batch.id}: {batch.provider} {lost}", hint="it is asked again in 15 minutes")
    now = job.clock()
    with job.state.transaction() as db:
        route = runs.route(db, batch.provider, batch.endpoint, batch.model)
        if faults is None:
            runs.learn(db, retry.after_success(route, batch.requests))
        return batches.move(
            db,
            batch,
            BatchStatus.COMPLETED,
            now,
            f"the provider says {remote.status}",
            parts=json.dumps(dict(remote.parts)),
            spooled=json.dumps(spooled),
            faults=faults,
            reason=f"{batch.provider} {lost}" if lost else None,
            absent_at=None,
            ended_at=remote.ended_at or now,
            cleaned_at=now if foreign else None,  # what is somebody else's is not ours to delete
        )


def _unnamed(batch: Batch, remote: RemoteBatch) -> str | None:
    """Return what is amiss where an ended batch names no results that could hold what it says it answered."""
    answers = remote.parts.keys() - {"error"}
    if remote.completed and not answers:
        return f"counts {remote.completed:,} answers and names no file of them"
    return "names no results at all" if not remote.parts else None


def _absent_twice(job: Poll, provider: Provider, batch: Batch) -> bool:
    """Return whether something of a batch was looked for in vain twice, a quarter of an hour apart by the server's clock.

    The first time is noted. Sending again on one 404 could pay twice.
    """
    date = provider.page().date or job.clock()
    first = batch.absent_at
    if first is not None and date - first >= recovery.SETTLING_SECONDS:
        return True
    if first is None or date < first:
        with job.state.transaction() as db:
            batches.note(db, batch, absent_at=date)
    return False


def bears(path: Path, tag: str) -> bool:
    """Return whether a result file has a line with this tag, or no line at all."""
    mark = f'"{tag}-'.encode()
    with on_disk(path), path.open("rb") as file:
        return any(mark in line for line in file) or not file.tell()


def result_file(state: State, batch: Batch, part: str) -> Path:
    """Return where a part of a batch's results lies in the spool."""
    return state.results / f"{batch.tag}.{part}.jsonl"


def fetch(provider: Provider, part_id: str, target: Path) -> Download:
    """Download one part whole to ``target``: through a ``.part`` file, checked, synced, renamed, the folder synced.

    Whole means: as long as was announced, and its last line parses; where no length was announced, a second download
    has to give the same bytes.

    Raises:
        Unreachable: it came short; the next run tries again.
        NotFound: the provider no longer has it.
        StateError: there is no room for it on the disk, or the disk fails.
    """
    with part_of(target) as part:
        got = provider.download(part_id, part)
        if got.announced is None:
            with part_of(part) as again:
                second = provider.download(part_id, again)
            if second.sha256 != got.sha256:
                raise Unreachable(f"two downloads of {part_id} differ; it is fetched again by the next run")
        elif got.bytes != got.announced:
            raise Unreachable(
                f"{part_id}: {got.bytes:,} of {got.announced:,} bytes came; it is fetched again by the next run"
            )
        if not ends_whole(part):
            raise Unreachable(f"{part_id}: its last line is cut; it is fetched again by the next run")
        publish(part, target)
    return got


_TAIL = 1 << 16


def ends_whole(path: Path) -> bool:
    """Return whether the last line of a file is a whole JSON document (an empty file is whole)."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        length = _TAIL
        while True:
            file.seek(max(0, size - length))
            tail = file.read().rstrip(b" \r\n")
            if b"\n" in tail or length >= size:
                break
            length *= 4
    line = tail.rpartition(b"\n")[2]
    try:
        msgspec.json.decode(line, type=msgspec.Raw) if line else None
    except msgspec.MsgspecError:
        return False
    return True


def intact(path: Path, expected: dict[str, object]) -> bool:
    """Return whether a spool file is still what was downloaded: its length and sha256. One the disk cannot read is not.

    Raises:
        StateError: it may not be read, or the disk does not say.
    """
    with on_disk(path):
        if not path.is_file() or path.stat().st_size != expected["bytes"]:
            return False
        try:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == expected["sha256"]
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return False


def _not_found(job: Poll, provider: Provider, batch: Batch) -> None:
    """A batch the provider does not know (yet): transient after a create, and final only past its deadline."""
    job.checked += 1
    now = job.clock()
    deadline = recovery.deadline(batch)
    gone = now >= deadline + recovery.LOST_AFTER and _forgotten(job, provider, batch, deadline)
    if gone and _absent_twice(job, provider, batch):
        with job.state.transaction() as db:
            why = f"{batch.provider} no longer knows it, {(now - deadline) // 60} minutes past its deadline"
            job.moved[batch.id] = batches.move(
                db, batch, BatchStatus.COMPLETED, now, why, parts="{}", spooled="{}", reason=why, ended_at=now
            )
    elif now - (batch.submitted_at or now) > recovery.SETTLING_SECONDS:
        over = now >= deadline + recovery.LOST_AFTER
        lost = NotFound(
            f"batch {batch.id}: {batch.provider} does not know {batch.remote_id}, and is asked again",
            hint=f"if it is gone for good: nura resolve {batch.id} --resend" if over else None,
        )
        job.fail(lost, provider=batch.provider, workload=batch.workload, batch=batch.id)


def _forgotten(job: Poll, provider: Provider, batch: Batch, deadline: int) -> bool:
    """Return whether a batch is gone for good: the provider's list lacks it too, read as the same account, and by the
    server's clock its time is over. Sending its tasks again on less could pay for them twice.
    """
    seen = recovery.marker_of(batch)._replace(id=None)  # the batch before it may long be deleted; its date will do
    scan = recovery.read_list(provider, seen, job.accounts.fingerprint(provider.name))
    listed = any(remote.id == batch.remote_id for remote in scan.batches)
    return not listed and scan.doubt is None and (scan.date or job.clock()) >= deadline + recovery.LOST_AFTER


def _sweep(state: State) -> None:
    """Delete spool files that nothing waiting for reconcile owns: those of finished batches, and what a crash left."""
    owned = {
        result_file(state, batch, part).name
        for batch in batches.under_way(state.db, BatchStatus.COMPLETED)
        for part in json.loads(batch.spooled or "{}")
    }
    for stray in batches.strays(state.db):
        owned |= {stray_file(state, stray, part).name for part in json.loads(stray.spooled or "{}")}
    spool.sweep(state.results, owned)


def _follow_strays(job: Poll) -> None:
    """Cancel strays until they have ended, and leave their results for reconcile to count."""
    for stray in batches.strays(job.state.db):
        if stray.spooled is not None:
            continue
        age = job.clock() - stray.found_at
        try:
            if age >= STRAY_KEPT:  # nothing is kept of it for so long
                raise NotFound(f"{stray.remote_id} at {stray.provider} was never seen to end")
            _follow(job, job.accounts.provider(stray.provider), stray)
        except NotFound as error:
            if age >= STRAY_MISSED:
                with job.state.transaction() as db:
                    batches.counted(db, stray, job.clock())
            elif age > recovery.SETTLING_SECONDS:
                job.fail(error, provider=stray.provider, batch=stray.batch_id)
        except (ProviderError, KeyRefused, ConfigError, StateError) as error:
            job.fail(error, provider=stray.provider, batch=stray.batch_id)


def _follow(job: Poll, provider: Provider, stray: Stray) -> None:
    remote = provider.retrieve(stray.remote_id)
    if remote.phase is Phase.RUNNING:
        provider.cancel(stray.remote_id)
        return
    spooled = {}
    for part, part_id in remote.parts.items():
        got = fetch(provider, part_id, stray_file(job.state, stray, part))
        spooled[part] = {"bytes": got.bytes, "sha256": got.sha256}
    with job.state.transaction() as db:
        batches.stray_spooled(db, stray, json.dumps(spooled))


def stray_file(state: State, stray: Stray, part: str) -> Path:
    """Return where a part of a stray's results lies in the spool."""
    return state.results / f"stray-{hashlib.sha256(stray.remote_id.encode()).hexdigest()[:20]}.{part}.jsonl"


def _clean_up(job: Poll) -> None:
    """Delete at each provider what it still keeps of batches that are long final: only by ids and tags of this file."""
    for name in job.accounts.names():
        after = job.accounts.cleanup_after(name)
        if after is None:
            continue
        due = [
            batch
            for batch in batches.unclean(job.state.db, name, job.clock() - after)
            if batch.address == job.accounts.address(name)
        ]
        if due:
            try:
                _delete(job, job.accounts.provider(name), due)
            except (ProviderError, KeyRefused, ConfigError) as error:
                job.fail(error, provider=name)


def _delete(job: Poll, provider: Provider, due: Sequence[Batch]) -> None:
    nameless = [batch for batch in due if batch.remote_id is None and batch.input_file_id is None and batch.requests]
    orphans = find_uploads(provider, nameless) if nameless and provider.uploads else {}
    for batch in due:
        try:
            _delete_one(provider, batch, batch.input_file_id or orphans.get(batch.tag))
        except ProviderError as error:
            if not _answered(error):
                raise
            job.fail(error, provider=batch.provider, workload=batch.workload, batch=batch.id)
            if not isinstance(error, Refused):
                continue  # a certain no would be said by every run: what is left there stays
        with job.state.transaction() as db:
            batches.clean(db, batch, job.clock())


def _delete_one(provider: Provider, batch: Batch, file_id: str | None) -> None:
    if batch.remote_id is not None:
        parts = json.loads(batch.parts or "{}")
        provider.delete(
            RemoteBatch(batch.remote_id, batch.remote_status or "", Phase.ENDED, input_file_id=file_id, parts=parts)
        )
    elif file_id is not None:
        provider.delete_file(file_id)


_MOST_FILE_PAGES = 50


def find_uploads(provider: Provider, nameless: Sequence[Batch]) -> dict[str, str]:
    """Return the file ids of uploads whose answer was lost, by the tag that is their exact filename."""
    wanted = {f"{batch.tag}.jsonl": batch.tag for batch in nameless}
    oldest = min(batch.created_at for batch in nameless) - recovery.SETTLING_SECONDS
    found: dict[str, str] = {}
    cursor = None
    for _ in range(_MOST_FILE_PAGES):
        uploads, cursor = provider.files(cursor)
        found |= {wanted[upload.filename]: upload.id for upload in uploads if upload.filename in wanted}
        past = uploads and (uploads[-1].created_at or oldest) < oldest
        if cursor is None or past or len(found) == len(wanted):
            break
    return found
