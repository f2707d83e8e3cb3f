"""What a budget's window holds: sums of what was spent, and of what may yet be, from the ledger and the rows of batches.

Nothing here counts on its own: what is settled stands in the sums that triggers keep beside the ledger, and what is not is
looked up batch by batch, among those that are under way, watched, or of unknown cost.
"""

import json
from typing import Literal, NamedTuple

from nura_cli.state.connection import Connection

Basis = Literal["expected", "worst"]


class Scope(NamedTuple):
    """Whose spending is meant: a provider's, or a workload's; the other one is None."""

    provider: str | None = None
    workload: str | None = None


class Spent(NamedTuple):
    """What a window holds.

    Attributes:
        settled: what answers cost, as far as that is known, in pico-dollars.
        open: what else may have been spent, or may yet be, in pico-dollars.
        unknown: batches of which neither cost nor estimate is known, and trials, as 0: while there are any, nothing is known.
    """

    settled: int
    open: int
    unknown: tuple[int, ...]

    @property
    def total(self) -> int:
        """What the window holds so far, in pico-dollars."""
        return self.settled + self.open


def spent(db: Connection, scope: Scope, start: int, end: int, basis: Basis, watched_since: int, but: int = 0) -> Spent:
    """Return what was sent from ``start`` on, and before ``end`` (unix seconds, whole days of UTC), has cost or may cost.

    What is under way counts with its estimate, or with what has come of it where that is more; so does what was given up at
    ``watched_since`` or later, and may still turn up. What was answered at an unknown cost counts with its share of the
    estimate (of the worst one, with all that is left of it); a second sending of a batch, with the estimate once more, unless its
    own cost is in the ledger.

    Args:
        basis: which estimate of a batch counts.
        but: a batch that is left out: the one that is asked about.
    """
    where = "AND (:provider IS NULL OR {0}.provider = :provider) AND (:workload IS NULL OR {1} = :workload)"
    values = {**scope._asdict(), "start": start, "end": end, "watched": watched_since, "but": but}
    (settled,) = db.execute(
        "SELECT coalesce(sum(s.cost), 0) FROM spending s JOIN lanes l ON l.id = s.lane_id JOIN workloads w ON w.id = l.workload_id"
        f" WHERE s.day >= :start AND s.day < :end {where.format('s', 'w.name')}",
        values,
    ).fetchone()
    total, unknown = 0, []
    estimate = f"{basis}_cost"
    trials = db.execute(
        f"SELECT t.{estimate} FROM trials t JOIN lanes l ON l.id = t.lane_id JOIN workloads w ON w.id = l.workload_id"
        f" WHERE t.cost IS NULL AND t.at >= :start AND t.at < :end {where.format('t', 'w.name')}",
        values,
    )
    for (guess,) in trials.fetchall():
        total += guess or 0
        unknown += [0] if guess is None else []
    for row in db.execute(_OPEN.format(estimate=estimate, where=where.format("b", "b.workload")), values).fetchall():
        found = _open(*row, whole=basis == "worst")
        total += found or 0
        unknown += [row[0]] if found is None else []
    return Spent(settled, total, tuple(unknown))


_OPEN = """
WITH sent AS (
    SELECT b.id, b.requests, b.{estimate} AS guess,
        b.final_at IS NULL OR (b.status = 'failed' AND b.absent_at IS NOT NULL AND b.final_at >= :watched) AS live,
        (SELECT count(*) FROM strays s WHERE s.batch_id = b.id AND (s.counted_at IS NULL
            OR NOT EXISTS (SELECT 1 FROM attempts a WHERE a.batch_id = b.id AND a.stray = s.remote_id)))
        + (SELECT count(*) FROM sightings s WHERE s.batch_id = b.id AND s.verdict <> 'other') AS copies,
        EXISTS (SELECT 1 FROM attempts a WHERE a.batch_id = b.id AND a.cost IS NULL AND a.outcome <> 'render') AS unknown
    FROM batches b WHERE b.sent_at >= :start AND b.sent_at < :end AND b.id <> :but {where}
)
SELECT id, requests, guess, live, copies,
    CASE WHEN live OR unknown THEN (SELECT coalesce(sum(a.cost), 0) FROM attempts a WHERE a.batch_id = sent.id AND a.stray = '') ELSE 0 END,
    CASE WHEN unknown THEN (SELECT count(*) FROM attempts a
        WHERE a.batch_id = sent.id AND a.cost IS NULL AND a.outcome <> 'render' AND a.stray = '') ELSE 0 END,
    CASE WHEN unknown THEN (SELECT json_group_array(json_array(n, cost)) FROM (
        SELECT count(*) - count(a.cost) AS n, coalesce(sum(a.cost), 0) AS cost FROM attempts a
        WHERE a.batch_id = sent.id AND a.stray <> '' GROUP BY a.stray HAVING count(a.cost) < count(*))) END
FROM sent WHERE live OR copies OR unknown
"""


def _open(
    batch_id: int,
    requests: int,
    guess: int | None,
    live: bool,
    copies: int,
    cost: int,
    unpriced: int,
    seconds: str | None,
    *,
    whole: bool,
) -> int | None:
    """Return what a batch may come to beyond what is settled of it, in pico-dollars; None where nothing tells.

    Args:
        seconds: of each second sending with answers of unknown cost, how many these are, and what the others cost; as JSON.
        whole: answers of unknown cost may have had any part of the estimate that is left; else they had their share of it.
    """
    if guess is None:
        return None

    def rest(n: int, known: int) -> int:
        return max(guess - known, 0) if whole and n else n * -(-guess // max(requests, 1))

    beyond = rest(unpriced, cost)
    second = sum(rest(n, known) for n, known in json.loads(seconds or "[]"))
    return max(guess - cost, beyond) * live + beyond * (not live) + second + copies * guess


def uploaded(db: Connection, scope: Scope, basis: Basis) -> int:
    """Return what batches may cost whose request files are at the provider, and that are yet to be created; in pico-dollars."""
    (total,) = db.execute(
        f"SELECT coalesce(sum({basis}_cost), 0) FROM batches WHERE final_at IS NULL AND status = 'uploaded' AND sent_at IS NULL"
        " AND (:provider IS NULL OR provider = :provider) AND (:workload IS NULL OR workload = :workload)",
        scope._asdict(),
    ).fetchone()
    return int(total)
