"""Batches: made, moved by guarded updates, looked up by what they still need."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from nura_cli.errors import StateError
from nura_cli.state import log, packed
from nura_cli.state.connection import Connection
from nura_cli.states import BATCH_ARROWS, BatchStatus, check_arrow


class File(NamedTuple):
    """A file in the spool, as it was when it was whole: its size in bytes, and its sha256."""

    bytes: int
    sha256: str


def in_json(files: Mapping[str, File]) -> str:
    """Return files by part, as ``spooled`` keeps them."""
    return json.dumps({part: file._asdict() for part, file in files.items()})


def _files(spooled: str | None) -> dict[str, File]:
    return {part: File(**file) for part, file in json.loads(spooled or "{}").items()}


class Batch(NamedTuple):
    """One row of ``batches``. Times are unix seconds; ``parts``, ``faults``, ``marker`` and ``spooled`` are JSON.

    Attributes:
        address: which account at which address it was sent to; compared with the configuration before it is touched.
        revision: hash of the spec it was rendered with.
        tag: 80 random bits that start each of its custom_ids.
        requests, bytes: of its request file.
        parts: what the provider offers for download, part name → id.
        spooled: what lies in the spool, part name → {bytes, sha256}.
        marker: the newest page of the provider's list before the create: {id, created_at, date, account}.
        sent_at: the server's clock when the create was sent, as well as it is known.
        absent_at: the server's clock when it was first looked for in vain: before it is confirmed, on the list; after
            that, when it, or its results, were first not found.
        held: why a person has to decide, or None.
        completed, failed: requests, as the provider counts them; as nura counted them once reconciled.
        answered: tasks that an answer of this batch completed.
        plan: what its answers set off, as it was when it was claimed (JSON); None for one of an earlier release.
        reason: why it failed, in words; before that, why its create was refused for now.
        absent_here, missed: this machine's clock when ``absent_at`` was noted, and what was missed, in words.
        asked_at: when the provider was last asked after it alone.
        short_at: when it first came home with fewer answers than the provider counts.
        ending: how the provider ended it: completed, expired or cancelled.
        cancelled: tasks that its cancelling made ``cancelled``, until a person has decided about them.
        cancel_at: when a person wished it cancelled.
        cancel_taken_at: when the provider took that.
        rendered: under which name the spec is kept with its members in the order in which they were sent; None for one of an
            earlier release.
        cancel_why: who wished it, and why, in words.
        validated_at: when it was first seen that the provider had looked at its requests and took them.
        account: whose it is, as the provider says; None where it is not known.
        basis: what its estimate goes by: learned, max_tokens or floor; None for one of an earlier release.
        expected_input, expected_output: tokens that it was expected to use when it was sent.
        expected_cost: what it was expected to cost then, in pico-dollars; None where no price is known.
        worst_cost: what it may cost at most, in pico-dollars; None where no bound is known.
        billed_answers: its attempts that used any tokens, once it was reconciled.
        billed_input, billed_output: the tokens that these used.
        billed_cached, billed_written: of the input, those that were read from a cache, and written to one.
        billed_cost: what they cost, in pico-dollars; None before that, or where the cost of one is not known.
        canary: it shows a new revision before the rest of that is sent.
    """

    id: int
    queue_id: int
    workload: str
    provider: str
    address: str
    dialect: str
    endpoint: str
    model: str
    revision: str
    tag: str
    status: BatchStatus
    remote_id: str | None
    remote_status: str | None
    requests: int
    bytes: int
    sha256: str | None
    input_file_id: str | None
    parts: str | None
    spooled: str | None
    faults: str | None
    marker: str | None
    sent_at: int | None
    absent_at: int | None
    held: str | None
    completed: int | None
    failed: int | None
    answered: int
    reason: str | None
    created_at: int
    submitted_at: int | None
    expires_at: int | None
    ended_at: int | None
    final_at: int | None
    cleaned_at: int | None
    plan: str | None
    absent_here: int | None
    missed: str | None
    asked_at: int | None
    short_at: int | None
    ending: str | None
    cancelled: int
    cancel_at: int | None
    cancel_taken_at: int | None
    rendered: str | None
    cancel_why: str | None
    validated_at: int | None
    account: str | None
    basis: str | None
    expected_input: int | None
    expected_output: int | None
    expected_cost: int | None
    worst_cost: int | None
    billed_answers: int | None
    billed_input: int | None
    billed_output: int | None
    billed_cached: int | None
    billed_written: int | None
    billed_cost: int | None
    canary: int

    @property
    def offered(self) -> dict[str, str]:
        """What the provider offers for download: the ids of its parts."""
        return dict(json.loads(self.parts or "{}"))

    @property
    def files(self) -> dict[str, File]:
        """What lies in the spool of its results, by part."""
        return _files(self.spooled)


_COLUMNS = tuple({"queue_id": "lane_id"}.get(name, name) for name in Batch._fields)
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM batches"
_FINAL = frozenset(status for status, arrows in BATCH_ARROWS.items() if not arrows)


def _batch(row: Sequence[Any]) -> Batch:
    batch = Batch(*row)
    return batch._replace(status=BatchStatus(batch.status))


def add(
    db: Connection,
    *,
    queue_id: int,
    workload: str,
    provider: str,
    address: str,
    dialect: str,
    endpoint: str,
    model: str,
    revision: str,
    spec: str,
    tag: str,
    plan: str | None = None,
    rendered: tuple[str, str] | None = None,
    canary: bool = False,
    account: str | None = None,
    envelope: bytes = b"",
) -> int:
    """Add a batch in ``processing`` with the spec it will be rendered with, and what its answers set off; return its id.

    Args:
        rendered: the spec once more, its members in the order in which they are sent: the name it is kept under, and its JSON.
        canary: it shows its revision before the rest of that is sent.
        account: whose it will be, as the provider says.
        envelope: a response of the vendor's (JSON) without anything answered; empty where none is known.
    """
    packed.learn(db, revision, packed.content(spec, envelope))
    db.executemany(
        "INSERT OR IGNORE INTO specs (revision, spec) VALUES (?, ?)",
        [(revision, spec), *([rendered] if rendered else [])],
    )
    row = db.execute(
        "INSERT INTO batches (lane_id, workload, provider, address, dialect, endpoint, model, revision, tag, status,"
        " created_at, plan, rendered, canary, account) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'processing', ?, ?, ?, ?, ?) RETURNING id",
        (
            queue_id,
            workload,
            provider,
            address,
            dialect,
            endpoint,
            model,
            revision,
            tag,
            db.now,
            plan,
            rendered[0] if rendered else None,
            canary,
            account,
        ),
    ).fetchone()
    log.batch(db, row[0], None, BatchStatus.PROCESSING, "claimed")
    return int(row[0])


def drop(db: Connection, batch_id: int) -> None:
    """Take back a batch that got no task: nothing was due after all."""
    db.execute("DELETE FROM transitions WHERE batch_id = ?", (batch_id,))
    db.execute("DELETE FROM batches WHERE id = ? AND status = 'processing'", (batch_id,))


def get(db: Connection, batch_id: int) -> Batch | None:
    """Return a batch, or None."""
    row = db.execute(f"{_SELECT} WHERE id = ?", (batch_id,)).fetchone()
    return _batch(row) if row else None


def spec(db: Connection, revision: str) -> str:
    """Return the JSON of a spec."""
    return str(db.execute("SELECT spec FROM specs WHERE revision = ?", (revision,)).fetchone()[0])


def named(db: Connection, name: str) -> list[Batch]:
    """Return the batch with this id here; or those with it at a provider, and those beside which it was sent once more."""
    here = get(db, int(name)) if name.isascii() and name.isdigit() and len(name) < 19 else None
    if here is not None:
        return [here]
    query = f"{_SELECT} WHERE id IN (SELECT id FROM batches WHERE remote_id = :name UNION SELECT batch_id FROM strays WHERE remote_id = :name)"
    return [_batch(row) for row in db.execute(f"{query} ORDER BY id", {"name": name})]


def under_way(db: Connection, *statuses: BatchStatus) -> list[Batch]:
    """Return the batches that are not final, in these statuses (any, when none is named), oldest first."""
    rows = [_batch(row) for row in db.execute(f"{_SELECT} WHERE final_at IS NULL ORDER BY id")]
    return [batch for batch in rows if not statuses or batch.status in statuses]


def unclean(db: Connection, provider: str, before: int) -> list[Batch]:
    """Return a provider's batches that were final at ``before``, and of which it may still keep something."""
    query = (
        f"{_SELECT} WHERE provider = ? AND final_at IS NOT NULL AND cleaned_at IS NULL AND final_at <= ?"
        " ORDER BY final_at, id"
    )
    return [_batch(row) for row in db.execute(query, (provider, before))]


def clean(db: Connection, batch: Batch) -> None:
    """Note that the provider keeps nothing of a final batch any more."""
    db.execute("UPDATE batches SET cleaned_at = ? WHERE id = ? AND final_at IS NOT NULL", (db.now, batch.id))


def cleaned(db: Connection, remote_id: str) -> bool:
    """Return whether what a provider kept of a batch was deleted there by this file's clean-up."""
    query = "SELECT 1 FROM batches WHERE remote_id = ? AND cleaned_at IS NOT NULL"
    return db.execute(query, (remote_id,)).fetchone() is not None


def by_tag(db: Connection, tag: str) -> Batch | None:
    """Return the batch that carries a tag, or None."""
    row = db.execute(f"{_SELECT} WHERE tag = ?", (tag,)).fetchone()
    return _batch(row) if row else None


def last_marker(db: Connection, provider: str, address: str) -> str | None:
    """Return the marker (JSON) of the newest batch whose create was sent to a provider, or None."""
    row = db.execute(
        "SELECT marker FROM batches WHERE provider = ? AND address = ? AND marker IS NOT NULL ORDER BY id DESC LIMIT 1",
        (provider, address),
    ).fetchone()
    return str(row[0]) if row else None


def shows_ours(db: Connection, address: str) -> bool:
    """Return whether the list at an address has ever shown a batch of ours: what is not on it is then not there."""
    return db.execute("SELECT 1 FROM meta WHERE name = ?", (f"listed:{address}",)).fetchone() is not None


def note_shown(db: Connection, address: str, remote_id: str) -> None:
    """Note that the list at an address has shown a batch of ours."""
    db.execute("INSERT OR IGNORE INTO meta (name, value) VALUES (?, ?)", (f"listed:{address}", remote_id))


def still(db: Connection, batch: Batch) -> None:
    """Check, before something is done to a batch's tasks, that it stands where ``batch`` says.

    Raises:
        StateError: it does not.
    """
    if db.execute("SELECT 1 FROM batches WHERE id = ? AND status = ?", (batch.id, batch.status)).fetchone() is None:
        raise _moved(batch)


def sent_since(db: Connection, provider: str, since: int) -> list[Batch]:
    """Return the batches whose create was sent to a provider, and that were made at ``since`` or later, oldest first."""
    query = f"{_SELECT} WHERE provider = ? AND created_at >= ? AND marker IS NOT NULL ORDER BY id"
    return [_batch(row) for row in db.execute(query, (provider, since))]


def cancelled(db: Connection) -> list[Batch]:
    """Return the batches that somebody cancelled, and about whose cancelled tasks nobody has decided yet."""
    return [_batch(row) for row in db.execute(f"{_SELECT} WHERE cancelled > 0 ORDER BY id")]


def decided(db: Connection, batch: Batch) -> None:
    """Note that a person has decided about a batch's cancelled tasks."""
    db.execute("UPDATE batches SET cancelled = 0 WHERE id = ?", (batch.id,))


def took(db: Connection, batch_id: int, n: int) -> None:
    """Count so many answers of a batch more, which had counted as failed."""
    db.execute(
        "UPDATE batches SET answered = answered + :n, completed = completed + iif(final_at IS NULL, 0, :n),"
        " failed = max(failed - iif(final_at IS NULL, 0, :n), 0) WHERE id = :id",
        {"n": n, "id": batch_id},
    )


def forget_cancelled(db: Connection, tasks: Sequence[int]) -> None:
    """Note that nobody has to decide any more about those of these tasks that a batch left cancelled."""
    db.execute(
        "WITH left AS (SELECT batch_id, count(*) AS n FROM answers WHERE status = 'cancelled'"
        " AND task_id IN (SELECT value FROM json_each(?)) AND batch_id IS NOT NULL GROUP BY batch_id)"
        " UPDATE batches SET cancelled = max(batches.cancelled - left.n, 0) FROM left"
        " WHERE batches.id = left.batch_id AND batches.cancelled > 0",
        (json.dumps(list(tasks)),),
    )


def wish_cancelled(db: Connection, batch: Batch, why: str) -> bool:
    """Note that a person wishes a batch cancelled; return whether that is new: not of one that is final, or wished so before.

    Tasks of it that somebody else's cancelling stopped need nobody any more: a person has decided.
    """
    query = (
        "UPDATE batches SET cancel_at = ?, cancel_why = ?, cancelled = 0"
        " WHERE id = ? AND final_at IS NULL AND cancel_at IS NULL"
    )
    return bool(db.execute(query, (db.now, why, batch.id)).rowcount)


def wish(db: Connection, batch_id: int) -> str | None:
    """Return who wished a batch cancelled, and why, in words; None where nobody did. It may have been wished just now."""
    row = db.execute("SELECT cancel_why FROM batches WHERE id = ? AND cancel_at IS NOT NULL", (batch_id,)).fetchone()
    return str(row[0]) if row else None


def cancel_taken(db: Connection, batch: Batch) -> None:
    """Note that the provider has taken the wish to cancel a batch, wherever another process has moved it meanwhile."""
    db.execute("UPDATE batches SET cancel_taken_at = ? WHERE id = ? AND cancel_at IS NOT NULL", (db.now, batch.id))


def given_up(db: Connection, since: int) -> list[Batch]:
    """Return batches taken for absent at ``since`` or later: a create of theirs may still turn up."""
    query = f"{_SELECT} WHERE status = 'failed' AND absent_at IS NOT NULL AND final_at >= ? ORDER BY id"
    return [_batch(row) for row in db.execute(query, (since,))]


def known(db: Connection, remote_ids: Iterable[str], address: str | None = None) -> set[str]:
    """Return which of these remote ids already belong to a batch, or are orphans.

    Whatever the provider is called: one account may stand in the configuration under two names, or under a new one.

    Args:
        address: count only batches that were sent there, and no orphans.
    """
    query = (
        "SELECT remote_id FROM batches WHERE remote_id IN (SELECT value FROM json_each(:ids))"
        " AND (:address IS NULL OR address = :address)"
        " UNION SELECT remote_id FROM strays WHERE :address IS NULL AND remote_id IN (SELECT value FROM json_each(:ids))"
    )
    return {row[0] for row in db.execute(query, {"ids": json.dumps(list(remote_ids)), "address": address})}


def disowned(db: Connection, remote_id: str) -> bool:
    """Return whether a remote id is an orphan whose tasks no batch of this file has."""
    query = "SELECT 1 FROM strays WHERE remote_id = ? AND batch_id = 0"
    return db.execute(query, (remote_id,)).fetchone() is not None


class Orphan(NamedTuple):
    """A batch at the provider that is ours and not used: an extra batch of one intent, or one found after it was given up.

    ``batch_id`` is the batch whose tasks it carries; 0 when this state file knows none (it was restored from a copy).
    ``spooled`` is what lies in the spool of its results, as for a batch; None before they were downloaded.
    """

    provider: str
    remote_id: str
    batch_id: int
    found_at: int
    spooled: str | None = None

    @property
    def files(self) -> dict[str, File]:
        """What lies in the spool of its results, by part."""
        return _files(self.spooled)


def take_orphan(db: Connection, batch: Batch, remote_id: str) -> None:
    """Stop following a batch's own orphan that is not counted yet: it is to be used in its place."""
    db.execute("DELETE FROM strays WHERE remote_id = ? AND batch_id = ? AND counted_at IS NULL", (remote_id, batch.id))


def add_orphan(db: Connection, orphan: Orphan) -> None:
    """Note an orphan; a known one changes nothing."""
    at = orphan.found_at
    db.execute(
        "INSERT OR IGNORE INTO strays (provider, remote_id, batch_id, found_at, counted_at) VALUES (?, ?, ?, ?, ?)",
        (orphan.provider, orphan.remote_id, orphan.batch_id, at, None if orphan.batch_id else at),
    )
    if orphan.batch_id:
        log.batch(db, orphan.batch_id, None, "stray", f"{orphan.remote_id} carries its tasks too, and is not used")


def orphans(db: Connection) -> list[Orphan]:
    """Return the orphans whose cost is not counted yet, the longest known first."""
    query = f"SELECT {', '.join(Orphan._fields)} FROM strays WHERE counted_at IS NULL ORDER BY found_at"
    return [Orphan(*row) for row in db.execute(query)]


def beside(db: Connection, batch_id: int) -> list[str]:
    """Return the ids at the provider of the batches that carried a batch's tasks too, and are not used."""
    query = "SELECT remote_id FROM strays WHERE batch_id = ? ORDER BY found_at, remote_id"
    return [row[0] for row in db.execute(query, (batch_id,))]


def orphan_spooled(db: Connection, orphan: Orphan, spooled: str | None) -> None:
    """Note that an orphan's results lie in the spool (``spooled``: as a batch's), or are to be fetched again (None)."""
    db.execute(
        "UPDATE strays SET spooled = ? WHERE provider = ? AND remote_id = ?",
        (spooled, orphan.provider, orphan.remote_id),
    )


def counted(db: Connection, orphan: Orphan) -> None:
    """Note that an orphan has ended and what it cost stands in the ledger."""
    db.execute(
        "UPDATE strays SET counted_at = ? WHERE provider = ? AND remote_id = ?",
        (db.now, orphan.provider, orphan.remote_id),
    )


class Sighting(NamedTuple):
    """A batch on a provider's list that may be a copy of one of ours, which is used under another id.

    Attributes:
        first_at: when it was first seen, unix seconds, by our clock.
        verdict: ``copy`` (it has our tag), ``possible`` (like ours by time and size, still running), ``other``.
    """

    provider: str
    remote_id: str
    batch_id: int
    first_at: int
    verdict: str


def sightings(db: Connection) -> list[Sighting]:
    """Return what was seen on the lists and is not decided, or was found to be somebody else's."""
    query = f"SELECT {', '.join(Sighting._fields)} FROM sightings ORDER BY first_at, remote_id"
    return [Sighting(*row) for row in db.execute(query)]


def sight(db: Connection, seen: Sighting) -> None:
    """Note a sighting; of a known one the verdict changes, and when it was first seen stays."""
    db.execute(
        "INSERT INTO sightings (provider, remote_id, batch_id, first_at, verdict) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET verdict = excluded.verdict",
        seen,
    )


def forget(db: Connection, seen: Sighting) -> None:
    """Forget a sighting: it is decided, or too long ago to matter."""
    db.execute("DELETE FROM sightings WHERE provider = ? AND remote_id = ?", (seen.provider, seen.remote_id))


def move(db: Connection, batch: Batch, to: BatchStatus, why: str, **changes: str | int | None) -> Batch:
    """Move a batch along an arrow of :data:`BATCH_ARROWS`, with changes to its other columns; return it as it is now.

    Raises:
        StateError: it no longer stands where ``batch`` says; nothing was changed.
    """
    check_arrow(BATCH_ARROWS, batch.status, to)
    if to in _FINAL:
        changes["final_at"] = db.now
    moved = _update(db, batch, {"status": to, **changes})
    log.batch(db, batch.id, batch.status, to, why)
    return moved


def note(db: Connection, batch: Batch, **changes: str | int | None) -> Batch:
    """Change columns of a batch that stays where it is; return it as it is now.

    Raises:
        StateError: it no longer stands where ``batch`` says; nothing was changed.
    """
    return _update(db, batch, changes)


def _update(db: Connection, batch: Batch, changes: dict[str, Any]) -> Batch:
    """Change columns of a batch that is still in the state it was read in. Raises StateError: another process moved it."""
    unknown = changes.keys() - set(_COLUMNS)
    if unknown:
        raise AssertionError(f"no such columns: {unknown}")
    assignments = ", ".join(f"{column} = :{column}" for column in changes)
    query = f"UPDATE batches SET {assignments} WHERE id = :_id AND status = :_status RETURNING {', '.join(_COLUMNS)}"
    row = db.execute(query, {**changes, "_id": batch.id, "_status": batch.status}).fetchone()
    if row is None:
        raise _moved(batch)
    return _batch(row)


def _moved(batch: Batch) -> StateError:
    return StateError(
        f"batch {batch.id} is no longer {batch.status}: another process moved it",
        hint="nura status shows where it is; run the same command again if it is still to be done",
        batch_id=batch.id,
    )


def billed(db: Connection, batch_id: int) -> dict[str, int | None]:
    """Return what the answers of a batch came to, by column: how many used tokens, these tokens, and what all of it cost."""
    row = db.execute(
        "SELECT coalesce(sum(input_tokens > 0 OR output_tokens > 0), 0), coalesce(sum(input_tokens), 0),"
        " coalesce(sum(output_tokens), 0), coalesce(sum(cached_input_tokens), 0), coalesce(sum(cache_write_tokens), 0),"
        " CASE WHEN count(*) = count(cost) THEN coalesce(sum(cost), 0) END"
        " FROM attempts WHERE batch_id = ? AND stray = '' AND outcome <> 'render'",
        (batch_id,),
    ).fetchone()
    names = ("answers", "input", "output", "cached", "written", "cost")
    return {f"billed_{name}": found for name, found in zip(names, row, strict=True)}


def history(db: Connection, queue: int, workload: str, revision: str) -> list[tuple[int, ...]]:
    """Return what the newest batches of a queue under a revision came to, the newest first.

    Each as requests, bytes of the request file, answers that used tokens, and their tokens: of input, of output, of input read from
    a cache, and written to one.
    """
    return db.execute(
        "SELECT requests, bytes, billed_answers, billed_input, billed_output, billed_cached, billed_written FROM batches"
        " WHERE revision = ? AND workload = ? AND final_at IS NOT NULL AND lane_id = ? AND billed_answers > 0"
        " ORDER BY final_at DESC LIMIT ?",
        (revision, workload, queue, _LEARNED_FROM),
    ).fetchall()


_LEARNED_FROM = 50


def newest(db: Connection) -> int:
    """Return the id of the newest batch there is; 0 for none."""
    return int(db.execute("SELECT coalesce(max(id), 0) FROM batches").fetchone()[0])


def last_sent(db: Connection, queue: int) -> int | None:
    """Return when a batch of a queue was last sent, unix seconds, or None."""
    row = db.execute("SELECT max(sent_at) FROM batches WHERE lane_id = ? AND sent_at IS NOT NULL", (queue,)).fetchone()
    return None if row[0] is None else int(row[0])


def last_workloads(db: Connection, provider: str, n: int) -> list[str]:
    """Return whose the last batches were that were sent to a provider, up to ``n``."""
    query = "SELECT workload FROM batches WHERE provider = ? AND sent_at IS NOT NULL ORDER BY id DESC LIMIT ?"
    return [row[0] for row in db.execute(query, (provider, n))]


def durations(db: Connection) -> list[int]:
    """Return how many seconds the newest batches that have ended took at their providers."""
    rows = db.execute(
        "SELECT ended_at - submitted_at FROM (SELECT ended_at, submitted_at FROM batches ORDER BY id DESC LIMIT ?)"
        " WHERE ended_at >= submitted_at",
        (_NEWEST,),
    )
    return [row[0] for row in rows]


_NEWEST = 1000
"""The newest batches, which are looked at for how long they took."""
