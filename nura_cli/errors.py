"""What can go wrong, as types: each error carries fields, and the exit code that cron will see.

::

    NuraError                          1   anything unexpected
    ├── UsageError                     2   the command line asks for something that cannot be done
    ├── InputError                     3   part of the input was refused (the good part is kept)
    ├── ConfigError                    78  the configuration, with every problem and its place
    ├── KeyRefused                     77  the provider does not accept the key
    ├── Busy                           75  another process holds what this one needs, for too long
    ├── StateError                     75  a file cannot be used now: locked, disk full, read-only
    │   ├── OutputLost                 75  standard output cannot be written: it goes to a file on such a disk
    │   ├── StateCorrupt               1   it is damaged
    │   │   └── StateForeign           78  it is something else: a text, an application's database
    │   └── StateNewer                 78  a newer nura wrote it
    ├── DatabaseDown                   75  the application's database cannot be used now: down, locked, full
    └── ProviderError                  75  a provider could not be spoken to, or said no
        ├── Unreachable                75  nothing of the request left, or a read had no usable answer
        ├── Incomplete                 3   fewer answers came than the provider counts
        ├── OnHold                     3   a batch waits for a person (0 once that was said)
        ├── Decided                    75  what was in doubt about a batch is decided, against it
        ├── Refused                    3   it answered, and the answer is a certain no
        │   ├── RateLimited            75  … for now: it says when to come back
        │   └── NotFound               3   … it knows no such thing
        │       └── NoEndpoint         75  … it cannot be asked for such things at all
        └── Unconfirmed                75  the request left, and what became of it is unknown

The command line prints ``message``, then ``hint`` (the next step to take). Neither ever holds a secret: words from
outside may stand in both, and what is known of secrets is taken out of them here.
"""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, NamedTuple, TypedDict, Unpack

from nura_cli import scrub

EX_OK = 0
EX_UNEXPECTED = 1
EX_USAGE = 2
EX_PARTIAL = 3
EX_TEMPFAIL = 75
EX_NOPERM = 77
EX_CONFIG = 78
EX_INTERRUPTED = 130
EX_TERMINATED = 143

EXIT_CODES = {
    EX_OK: "done, or nothing to do, or another run of the stage is at work",
    EX_UNEXPECTED: "unexpected: a bug",
    EX_USAGE: "usage",
    EX_PARTIAL: "part of the work failed: lines rejected, tasks failed, a batch refused, one provider of several down",
    EX_TEMPFAIL: "all of it must be tried again later: provider unreachable, state file locked, disk full",
    EX_NOPERM: "the provider refused the key",
    EX_CONFIG: "the configuration, or what it names as the state file is something else",
    EX_INTERRUPTED: "told to stop (SIGINT); what was committed stays",
    EX_TERMINATED: "told to stop (SIGTERM); what was committed stays",
}
"""What each exit code means. Scripts rely on them: none ever gets another meaning."""


class ProblemKind(StrEnum):
    """What kind of problem it is: the closed list of ``errors[].kind`` in ``--json``. Each of the types below has one."""

    UNEXPECTED = "unexpected"  # nobody foresaw it: a bug
    USAGE = "usage"  # the command line asks for something that cannot be done
    INPUT = "input"  # a line, a record or a row is not taken; the others are
    CONFIG = "config"  # the configuration cannot be used, or not for this
    KEY_REFUSED = "key_refused"  # the provider does not accept the key
    BUSY = "busy"  # another run holds what this one needs
    STATE = "state"  # the state file or the spool cannot be used now: locked, disk full, read-only
    STATE_CORRUPT = "state_corrupt"  # it is damaged, or something else
    STATE_NEWER = "state_newer"  # a newer nura wrote it
    DATABASE = "database"  # the application's database cannot be used now
    PROVIDER = "provider"  # a provider could not be spoken to, or its answer could not be used
    UNREACHABLE = "unreachable"  # it cannot be reached, or does not answer
    INCOMPLETE = "incomplete"  # fewer answers came than it counts
    HELD = "held"  # something waits for a person
    BUDGET = "budget"  # what waits could pass what may be spent
    REFUSED = "refused"  # it said no, for certain
    RATE_LIMITED = "rate_limited"  # it said no, for now (429)
    NOT_FOUND = "not_found"  # it knows no such batch or file
    UNCONFIRMED = "unconfirmed"  # what became of a request with an effect is not known
    # What happened in a run that goes on, and ends nothing by itself:
    TASK = "task"  # tasks failed for good
    CANCELLED = "cancelled"  # somebody cancelled a batch at the provider
    RESULTS = "results"  # result lines that are not applied
    SPOOL = "spool"  # a file of results is gone or damaged
    ROW = "row"  # rows were not written, and will not be
    EVENT = "event"  # events were given up
    RECEIVER = "receiver"  # a receiver takes nothing now
    TIMEOUT = "timeout"  # batches are still under way after --wait


class About(TypedDict, total=False):
    """What every error may be told: the next step to take, and what it concerns, where that is known.

    ``part`` is what of the provider's it is about alone (a file), and so says nothing of the rest.
    """

    hint: str | None
    provider: str | None
    workload: str | None
    batch_id: int | None
    part: str | None


class NuraError(Exception):
    """Any failure nura can name.

    Args:
        message: one line for a person, without secrets and without the name of the command.
        about: as :class:`About`.
    """

    exit_code: ClassVar[int] = EX_UNEXPECTED
    kind: ClassVar[ProblemKind] = ProblemKind.UNEXPECTED

    def __init__(self, message: str, **about: Unpack[About]) -> None:
        self.message = scrub.clean(message)
        super().__init__(self.message)
        hint = about.get("hint")
        self.hint = None if hint is None else scrub.clean(hint)
        self.provider = about.get("provider")
        self.workload = about.get("workload")
        self.batch_id = about.get("batch_id")
        self.part = about.get("part")


class UsageError(NuraError):
    """The command line asks for something that cannot be done."""

    exit_code = EX_USAGE
    kind = ProblemKind.USAGE


class InputError(NuraError):
    """One line or one record is refused; the rest of the input is not concerned."""

    exit_code = EX_PARTIAL
    kind = ProblemKind.INPUT


class ConfigProblem(NamedTuple):
    """One thing wrong in the configuration: its dotted path, its line in the file (1-based, if known), and why."""

    where: str
    line: int | None
    message: str


class ConfigError(NuraError):
    """The configuration cannot be used.

    Args:
        path: the file, if there is one.
        problems: everything wrong with it, in the order of the file.
    """

    exit_code = EX_CONFIG
    kind = ProblemKind.CONFIG

    def __init__(
        self,
        message: str,
        *,
        path: Path | None = None,
        problems: Sequence[ConfigProblem] = (),
        **about: Unpack[About],
    ) -> None:
        super().__init__(message, **about)
        self.path = path
        self.problems = tuple(problems)


class KeyRefused(NuraError):
    """The provider answered 401 or 403: the key is wrong, or may not do this."""

    exit_code = EX_NOPERM
    kind = ProblemKind.KEY_REFUSED


class Busy(NuraError):
    """Another run of the same stage has held its lock for longer than a run can take."""

    exit_code = EX_TEMPFAIL
    kind = ProblemKind.BUSY


class StateError(NuraError):
    """The state file or the spool cannot be used now; the same command works once the cause is gone."""

    exit_code = EX_TEMPFAIL
    kind = ProblemKind.STATE


class OutputLost(StateError):
    """Standard output cannot be written."""


class StateCorrupt(StateError):
    """The state file is not a sound SQLite database of nura's."""

    exit_code = EX_UNEXPECTED
    kind = ProblemKind.STATE_CORRUPT


class StateForeign(StateCorrupt):
    """What is named as the state file is something else, and is left alone."""

    exit_code = EX_CONFIG


class StateNewer(StateError):
    """The state file was written by a newer nura than this one."""

    exit_code = EX_CONFIG
    kind = ProblemKind.STATE_NEWER


class DatabaseDown(NuraError):
    """The application's database cannot be used now; what is due there waits, and the same again works once it is back."""

    exit_code = EX_TEMPFAIL
    kind = ProblemKind.DATABASE


class Rejection(NamedTuple):
    """Why a provider refused a batch: its code, its words, and the 1-based request line, where it names one."""

    code: str | None
    message: str | None
    line: int | None


class ProviderError(NuraError):
    """A provider could not be spoken to, or refused.

    Args:
        http_status: the status of its answer, if there was one.
        code: the provider's own word for it, if it gave one.
        retry_after: seconds it asks to wait, if it does.
        faults: what it found wrong, each with its code, its own words and the request line that it names, if it does.
    """

    exit_code = EX_TEMPFAIL
    kind = ProblemKind.PROVIDER

    def __init__(
        self,
        message: str,
        *,
        http_status: int | None = None,
        code: str | None = None,
        retry_after: int | None = None,
        faults: Sequence[Rejection] = (),
        **about: Unpack[About],
    ) -> None:
        super().__init__(message, **about)
        self.http_status = http_status
        self.code = code
        self.retry_after = retry_after
        self.faults = tuple(fault._replace(message=fault.message and scrub.clean(fault.message)) for fault in faults)

    @property
    def answered(self) -> bool:
        """Whether the provider did answer, if not with what was asked for, and does not ask to be left alone: the problem
        may be about this one thing, and the next one is asked for all the same.
        """
        return self.http_status is not None and not isinstance(self, RateLimited)

    @property
    def endpoint_may_lack(self) -> bool:
        """Whether it was answered as by a service that has no such endpoint (405, 501), or by a gateway that lets nothing through."""
        return self.http_status in (405, 501)


class Unreachable(ProviderError):
    """Nothing of the request left this machine, or a request that only reads had no usable answer: try again."""

    kind = ProblemKind.UNREACHABLE


class Incomplete(ProviderError):
    """Fewer answers came than the provider counts; those that came are applied, and the rest is looked for again."""

    exit_code = EX_PARTIAL
    kind = ProblemKind.INCOMPLETE


class OnHold(ProviderError):
    """What became of a batch cannot be told, and sending again could pay twice: a person decides (``nura resolve``).

    Args:
        message, about: as of any.
        new: whether it is held from this run on; the run that sets a hold ends with 3, later ones with 0.
    """

    kind = ProblemKind.HELD

    def __init__(self, message: str, *, new: bool, **about: Unpack[About]) -> None:
        super().__init__(message, **about)
        self.new = new

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # of the other types it is a constant
        """3 for the run that sets the hold, else 0."""
        return EX_PARTIAL if self.new else EX_OK


class Refused(ProviderError):
    """The provider answered with a certain no: nothing was done, and the same request would be refused again."""

    exit_code = EX_PARTIAL
    kind = ProblemKind.REFUSED


class RateLimited(Refused):
    """A certain no for now (429); ``retry_after`` says when to come back, if the provider does."""

    exit_code = EX_TEMPFAIL
    kind = ProblemKind.RATE_LIMITED


class NotFound(Refused):
    """The provider knows no such batch or file (404)."""

    kind = ProblemKind.NOT_FOUND


class Decided(ProviderError):
    """What was in doubt about a batch is decided, against it: that happens once, and is said whatever was said before."""


class NoEndpoint(NotFound):
    """The service has no part of the protocol that nura cannot do without: a list of batches."""

    exit_code = EX_TEMPFAIL
    kind = ProblemKind.PROVIDER


class Unconfirmed(ProviderError):
    """A request with an effect left, and its answer did not come, or could not be understood."""

    kind = ProblemKind.UNCONFIRMED
