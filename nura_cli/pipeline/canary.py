"""Canaries: a new revision of a workload shows itself with a few requests before the rest of it is sent.

Whatever queue or run they go in, its first requests make one canary, and the rest waits for their answers. These pass the
revision, for good, or fail it: then the workload is held, and a person's release lets the revision go. No task fails by a
canary: until it has passed, an answer that is of no use leaves its task as it was, no attempt counted.

It always ends. Each answer that counts leaves one less to be sent, and at most as many are sent as there are to be; what does
not count (an expiry, the account's trouble, a 5xx) goes round as slowly as anywhere else. Where none is left to be sent, none is
under way and nothing was decided, one more goes, and what it brings home is enough to decide by.
"""

import shlex
from collections import Counter
from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from nura_cli import logs
from nura_cli.config import CanaryConfig
from nura_cli.pipeline import failures, holding
from nura_cli.pipeline.packing import Wait, Why
from nura_cli.pipeline.report import Problem, counted
from nura_cli.state import Connection, canaries, outcomes, standings, tasks
from nura_cli.state.answers import Failure
from nura_cli.state.batches import Batch
from nura_cli.state.canaries import UnderWay
from nura_cli.state.outcomes import Revision
from nura_cli.state.standings import Held, Standing
from nura_cli.states import ErrorKind, Excuse

LEAST = 10
"""Answers that a verdict takes, where that many are sent."""
ANSWERED = "answered"
"""How an attempt ended that gave an answer of use."""
FAULTS = frozenset({ErrorKind.REFUSED, ErrorKind.INVALID_OUTPUT, ErrorKind.TRUNCATED, ErrorKind.REFUSAL})
"""What an attempt may end as that is the fault of what was sent."""
_NO_FAULT = (Excuse.ACCOUNT, Excuse.EXPIRED)


class Verdict(Enum):
    """What is known of a revision, as far as the failures of a batch of it are concerned."""

    PASSED = "passed"  # they count as everywhere
    FAILED = "failed"  # their tasks wait, until a person decides
    UNDECIDED = "undecided"  # their tasks wait, and go with the next canary


class Rows(NamedTuple):
    """What the results of a canary say that are still to be settled.

    Attributes:
        judged: how many ended so, by how (:func:`judged`).
        first: by how, a task that did.
        left: how many other tasks it has, of which nothing was judged.
    """

    judged: Mapping[str, int]
    first: Mapping[str, int]
    left: int


def judged(failure: Failure | None, excused: Excuse | None) -> str | None:
    """Return as what an attempt that ended so counts for its revision; None where it says nothing of it.

    Args:
        excused: as from :func:`nura_cli.pipeline.blame.excuse`.
    """
    if failure is None:
        return ANSWERED
    return failure.kind if failure.kind in FAULTS and excused not in _NO_FAULT else None


def excuse(failure: Failure | None, excused: Excuse | None, verdict: Verdict) -> Excuse | None:
    """Decide why an attempt that ended so counts as none of its task's, by what is known of its revision."""
    if verdict is Verdict.PASSED or failure is None or judged(failure, excused) is None:
        return excused
    return Excuse.CANARY


def decide(ended: Mapping[str, int], rule: CanaryConfig, *, under_way: bool, more: bool) -> Verdict:
    """Decide what answers say of their revision.

    Args:
        ended: how many of them ended so, by how.
        under_way: whether others of the canary are under way: they are waited for.
        more: whether anything else may still be sent, or come: then some answers are not enough.
    """
    n = sum(ended.values())
    if under_way or not n or (n < min(LEAST, rule.requests) and more):
        return Verdict.UNDECIDED
    return Verdict.FAILED if (n - ended.get(ANSWERED, 0)) / n > rule.max_failed else Verdict.PASSED


def left(rule: CanaryConfig, n: int, under_way: UnderWay) -> int:
    """Decide how many requests may still go as a canary, of which ``n`` were judged."""
    rest = rule.requests - n - under_way.requests
    return rest if rest > 0 else int(not under_way.batches)


def room(db: Connection, rule: CanaryConfig | None, of: Revision, planned: int = 0) -> int | Wait | None:
    """Return how much of a revision may go now to show it.

    Args:
        rule: its workload's ``canary``.
        planned: requests that go as a canary before, and that the state file knows nothing of.

    Returns:
        The requests that may go; why none may; or None where it need not show itself, or has.
    """
    if rule is None or _known(db, of) is not None:
        return None
    found = canaries.under_way(db, of)
    sent = UnderWay(found.batches + bool(planned), found.requests + planned)
    n = sum(one.n for one in canaries.ended(db, of, (ANSWERED, *FAULTS)))
    most = left(rule, n, sent)
    first = counted(n + sent.requests, "request")
    return most or Wait(
        Why.CANARY, f"revision {of.revision} shows itself with its first {first} before the rest is sent"
    )


def known(db: Connection, batch: Batch, rule: CanaryConfig | None) -> Verdict | None:
    """Return what the failures of a batch are to be taken for by what is known already; None where that is to be decided.

    Of a revision that a person let go on, what was sent before waits, and goes out as it may be mended.
    """
    if not batch.canary:
        return Verdict.PASSED
    standing = _known(db, outcomes.revision_of(batch))
    if standing is None:
        return Verdict.PASSED if rule is None else None
    before = Held.CANARY in standing.pardoned and not standing.pardons(Held.CANARY, batch.id)
    return Verdict.FAILED if before else Verdict.PASSED


def _known(db: Connection, of: Revision) -> Standing | None:
    """Return how a revision stands that has shown itself, was answered without, or was let go on; else None."""
    standing = standings.of(db, of.workload, of.revision)
    shown = standing.passed or Held.CANARY in standing.pardoned
    return standing if shown or canaries.answered_beside(db, of.workload, of.revision) else None


def judge(db: Connection, batch: Batch, rule: CanaryConfig, rows: Rows) -> tuple[Verdict, Problem | None]:
    """Decide what a canary that came home says of its revision, and keep it: before any of its rows is settled, so that
    it stands whatever comes in between.

    Returns:
        The verdict, and that the workload is held from now on, to be said once; or None, as where a later revision has shown itself.
    """
    if (before := known(db, batch, rule)) is not None:
        return before, None
    of = outcomes.revision_of(batch)
    settled = canaries.ended(db, of, (ANSWERED, *FAULTS))
    ended = Counter({one.outcome: one.n for one in settled}) + Counter(rows.judged)
    more = rows.left > 0 or tasks.pending(db).get(batch.workload, 0) > 0
    verdict = decide(ended, rule, under_way=canaries.under_way(db, of).batches > 0, more=more)
    logs.decided("%s: the canary of revision %s is %s: %s", batch.workload, batch.revision, verdict.value, dict(ended))
    if verdict is Verdict.PASSED:
        standings.passed(db, batch.workload, batch.revision)
    if verdict is not Verdict.FAILED:
        return verdict, None
    if canaries.passed_since(db, of):  # nothing more is made of this one
        return verdict, None
    kinds = Counter({kind: n for kind, n in ended.items() if kind != ANSWERED})
    tasks_of = {**{one.outcome: one.task_id for one in settled}, **rows.first}
    example = tasks_of[kinds.most_common(1)[0][0]]
    which = f"--batch {batch.id}" if example is None else failures.argument(canaries.key(db, example))
    reason = _words(batch, kinds, ended.total(), which)
    return verdict, holding.hold_by_itself(db, batch.workload, batch.revision, Held.CANARY, reason)


def _words(batch: Batch, kinds: Counter[str], n: int, which: str) -> str:
    """Return why a revision did not pass, and where to look. What a model said is no part of it."""
    listed = ", ".join(f"{kind} {m:,}" for kind, m in kinds.most_common())
    are = "is" if kinds.total() == 1 else "are"
    look = f"nura show {shlex.quote(batch.workload)} {which}"
    of = f"{kinds.total():,} of its first {counted(n, 'answer')}" if n > 1 else "its first answer"
    return f"{of} under revision {batch.revision} {are} of no use ({listed}), so nothing more of it is sent; see {look}"
