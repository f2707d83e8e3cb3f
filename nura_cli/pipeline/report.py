"""What a stage has to say when it ends: its problems, its exit code, and a batch as every command shows it."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, cast

from nura_cli import scrub
from nura_cli.clock import rfc3339, stamp
from nura_cli.errors import EX_OK, EX_PARTIAL, EX_TEMPFAIL, EX_UNEXPECTED, Decided, NuraError, ProblemKind
from nura_cli.pricing import decimal_dollars
from nura_cli.state.batches import Batch

if TYPE_CHECKING:
    from nura_cli import contract

_OUTAGES = frozenset({ProblemKind.UNREACHABLE, ProblemKind.RATE_LIMITED})
_LASTING = _OUTAGES | {
    ProblemKind.KEY_REFUSED,
    ProblemKind.CONFIG,
    ProblemKind.PROVIDER,
    ProblemKind.UNCONFIRMED,
    ProblemKind.BUSY,
    ProblemKind.STATE,
    ProblemKind.DATABASE,
    ProblemKind.RECEIVER,
    ProblemKind.HELD,
    ProblemKind.BUDGET,
    ProblemKind.INCOMPLETE,
}
_THEIR_WORDS = frozenset({ProblemKind.KEY_REFUSED, ProblemKind.UNCONFIRMED, ProblemKind.DATABASE, ProblemKind.RECEIVER})
"""Kinds whose messages are in others' words, and may be other ones each time for the same thing."""
_FIGURES = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that went wrong in a run that went on.

    Attributes:
        kind: the error's kind.
        message, hint: for a person; what is known of secrets is taken out of the message.
        exit_code: what the run would end with, were this all; 0 for what was said before and waits for a person.
        about: what tells it from another problem of its kind, where provider, workload and batch do not.
        stays: whether it is met again in the next run; None where its kind tells.
    """

    kind: ProblemKind
    message: str
    exit_code: int
    hint: str | None = None
    provider: str | None = None
    workload: str | None = None
    batch_id: int | None = None
    about: str | None = None
    stays: bool | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", scrub.clean(self.message))

    @property
    def lasting(self) -> bool:
        """Whether it is a condition that lasts from run to run, rather than something that happened in this one."""
        return self.kind in _LASTING if self.stays is None else self.stays

    @property
    def scope(self) -> str:
        """What the problem is about, and what is said of that: the same in the next run, if it lasts.

        What nura says of one batch or workload in other words is another thing; figures, as in "3 rows wait", make none.
        """
        if self.kind in _OUTAGES and self.about is None:
            return f"outage:{self.provider}"
        said = None if self.kind in _THEIR_WORDS else _FIGURES.sub("#", self.message)
        parts = (self.kind, self.provider, self.workload, self.batch_id, self.about or said)
        return ":".join(str(part or "") for part in parts)

    @property
    def line(self) -> str:
        """The message and the hint on one line."""
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def as_dict(self) -> "contract.Error":
        """Return the entry of ``errors`` in ``--json``."""
        return {
            "kind": str(self.kind),
            "provider": self.provider,
            "workload": self.workload,
            "batch_id": self.batch_id,
            "message": self.message,
            "hint": self.hint,
        }


class Concerns(TypedDict, total=False):
    """What a problem concerns; ``about`` as :class:`Problem` has it."""

    provider: str | None
    workload: str | None
    batch: int | None
    about: str | None


def problem(error: NuraError, **concerns: Unpack[Concerns]) -> Problem:
    """Return an error as a problem of the run; what the error does not say of itself is given here."""
    return Problem(
        kind=error.kind,
        message=error.message,
        exit_code=error.exit_code,
        hint=error.hint,
        provider=error.provider or concerns.get("provider"),
        workload=error.workload or concerns.get("workload"),
        batch_id=error.batch_id or concerns.get("batch"),
        about=error.part or (None if error.kind in _OUTAGES else concerns.get("about")),
        stays=False if isinstance(error, Decided) else None,
    )


def bug(error: Exception, doing: str, **concerns: Unpack[Concerns]) -> Problem:
    """Return what nobody foresaw as a problem of one part of a run (exit code 1); the other parts go on.

    Args:
        doing: what was being done, in words: ``batch 3``, ``the row of key 7``.
    """
    return Problem(
        kind=NuraError.kind,
        message=f"{doing}: unexpected {type(error).__name__}: {error}",
        exit_code=EX_UNEXPECTED,
        hint="this is a bug of nura's: please report it with this line; the others went on, and it is tried again",
        provider=concerns.get("provider"),
        workload=concerns.get("workload"),
        batch_id=concerns.get("batch"),
        about=doing,
    )


@dataclass(slots=True)
class Report:
    """What a run did: the fields of its ``--json`` object, and its problems.

    Attributes:
        result: the command's own fields, as :mod:`nura_cli.contract` has them; empty for one that failed as a whole.
        worked: whether any part of the work was done or found in order, so that a failure is one of a part.
    """

    result: Mapping[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    worked: bool = False

    @property
    def exit_code(self) -> int:
        """The exit code of the run."""
        return exit_code(self.problems, self.worked)


def exit_code(problems: Iterable[Problem], worked: bool) -> int:
    """Return the exit code of a run with these problems.

    One kind of problem and nothing else done: its own code. Part done and part not, or problems of several kinds: 3. What
    nobody expected is 1 whatever else was done, and that the time of ``--wait`` is over 75: there is more to come.
    """
    problems = list(problems)
    codes = {problem.exit_code for problem in problems} - {EX_OK}
    if not codes:
        return EX_OK
    if EX_UNEXPECTED in codes:
        return EX_UNEXPECTED
    if any(problem.kind is ProblemKind.TIMEOUT for problem in problems):
        return EX_TEMPFAIL
    if worked or len(codes) > 1:
        return EX_PARTIAL
    return codes.pop()


def together(earlier: Report, later: Report, standing: Collection[str] = ()) -> Report:
    """Return two runs of a stage as one: what they did is added up.

    A lasting problem of the earlier one is over, unless the later one met it too.

    Args:
        standing: the fields that say how things stand: they are as the later run found them.
    """
    result = {
        name: found if name in standing or name not in earlier.result else _added(earlier.result[name], found)
        for name, found in later.result.items()
    }
    happened = [found for found in earlier.problems if not found.lasting]
    return Report(result, [*happened, *later.problems], earlier.worked or later.worked)


def _added(one: Any, other: Any) -> Any:
    """Return two counts, mappings of counts, or lists of batches as one; of a batch in both, the later."""
    if isinstance(other, dict):
        return {name: _added(one[name], n) for name, n in other.items()}
    if isinstance(other, list):
        return list({batch["id"]: batch for batch in (*one, *other)}.values())
    return one + other


def ordinal(n: int) -> str:
    """Return a number as a place in a row: ``1st``, ``2nd``, ``12th``."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th") if n % 100 not in (11, 12, 13) else "th"
    return f"{n:,}{ending}"


def counted(n: int, one: str, many: str = "") -> str:
    """Return a number with its noun: ``1 batch``, ``2 batches``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def batch_dict(batch: Batch) -> "contract.Batch":
    """Return a batch in the one shape that every command's ``--json`` gives it."""
    return {
        "id": batch.id,
        "workload": batch.workload,
        "provider": batch.provider,
        "endpoint": batch.endpoint,
        "model": batch.model or None,
        "revision": batch.revision,
        "status": str(batch.status),
        "remote_id": batch.remote_id,
        "remote_status": batch.remote_status,
        "requests": batch.requests,
        "bytes": batch.bytes,
        "basis": cast("contract.Basis | None", batch.basis),
        "estimated_cost": decimal_dollars(batch.expected_cost),
        "completed": batch.completed,
        "failed": batch.failed,
        "created_at": stamp(batch.created_at),
        "submitted_at": rfc3339(batch.submitted_at),
        "expires_at": rfc3339(batch.expires_at),
        "ended_at": rfc3339(batch.ended_at),
    }


def batch_dicts(batches: Sequence[Batch]) -> "list[contract.Batch]":
    """Return several batches in that shape."""
    return [batch_dict(batch) for batch in batches]
