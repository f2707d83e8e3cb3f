"""nura run: the stages that cron chains, in one process."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nura_cli import clock, contract
from nura_cli.cli import dispatch, enqueue, pings, poll, reconcile
from nura_cli.cli.session import Session, document, with_session
from nura_cli.cli.stages import Done, Opened, Stage, contained, do, opened
from nura_cli.errors import EX_CONFIG, EX_NOPERM, EX_PARTIAL, EX_TEMPFAIL, ConfigError, UsageError
from nura_cli.pipeline import attention, monitor, queues, remaining, symptoms, waiting
from nura_cli.pipeline.report import Problem, Report, problem

if TYPE_CHECKING:
    from nura_cli.config import WorkloadConfig


EXAMPLES = (
    ("nura run", "one round of everything, as a line of cron"),
    ("nura run --wait 2h classify", "a script that wants its answers: again and again until they are there"),
)
EXIT_CODES = (EX_PARTIAL, EX_TEMPFAIL, EX_NOPERM, EX_CONFIG)


@with_session
def command(
    session: Session,
    workloads: Annotated[
        list[str] | None, typer.Argument(help="Read the sources of these, and send them.", show_default="all")
    ] = None,
    wait: Annotated[
        str | None,
        typer.Option(
            help="Again and again until nothing of them is pending or under way, such as 2h; exit code 75 if something is.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Poll, reconcile, read the sources and dispatch, one after the other."""
    seconds = poll.seconds(wait)
    config = session.config()
    chosen = queues.chosen(config, workloads or [])
    with pings.around(session, config) as pinged:
        with opened(session, config) as at:
            chain = Chain(at=at, chosen=chosen, names=workloads or [], deadline=time.monotonic() + (seconds or 0))
            before = remaining.failed(at.state.db, chosen)
            chain.round(sources=True)
            if seconds is not None:
                chain.stay(seconds)
                chain.end(remaining.failed_meanwhile(before, remaining.failed(at.state.db, chosen), chain.problems()))
            pinged.line = chain.said() if config.ping else ""
        session.finish(chain.report(), printed=[])


@dataclass(kw_only=True)
class Chain:
    """The stages of one command, in this order: quota is free before it is asked for, and written rows are not read again.

    Attributes:
        chosen, names: the workloads to read and send, and as they were given: all, when none is.
        deadline: until when locks are waited for, on the monotonic clock.
        done: what came of each stage in all of its rounds.
        told: the scopes of the lasting problems that were said.
        ending: problems of the whole, which are no stage's.
    """

    at: Opened
    chosen: "Sequence[WorkloadConfig]"
    names: Sequence[str]
    deadline: float
    done: dict[str, Done] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    ending: list[Problem] = field(default_factory=list)

    def round(self, *, sources: bool = False) -> None:
        """Run each stage once; a failure of one is its own."""
        sourced = [one.name for one in self.chosen if sources and one.source is not None]
        reading = [enqueue.stage(given) for given in enqueue.from_sources(self.at.config, sourced)]
        for stage in (poll.stage(), reconcile.stage(), *reading, dispatch.stage(self.names)):
            self._run(contained(stage))

    def _run(self, stage: Stage) -> None:
        known = self.done.get(stage.title)
        earlier = None if known is None or known.skipped else known
        done = do(self.at, stage, earlier=earlier, patience=self.deadline - time.monotonic())
        if done.said and (known is None or done.said != known.said):
            self.at.session.say(f"{stage.title}: {done.said}")
        self._tell(done.printed)
        if done.skipped and earlier is not None:
            self.ending += done.report.problems
        else:
            self.done[stage.title] = done

    def _tell(self, problems: Sequence[Problem]) -> None:
        """Say problems; a lasting one once, however many stages and rounds meet it."""
        for found in problems:
            new = not found.lasting or found.scope not in self.told
            if new and not self.at.session.json:
                self.at.session.tell(found.line)
            self.told.add(found.scope)

    def end(self, problems: Sequence[Problem]) -> None:
        """Note problems of the whole, and say them."""
        self.ending += problems
        self._tell(problems)

    def stay(self, seconds: int) -> None:
        """Go on until nothing of the workloads is left, or comes by itself, or the time is over."""
        pause = waiting.ROUND_SECONDS[0]
        while left := remaining.look(self.at.state.db, self.chosen):
            if not remaining.comes(left, self._met()):
                self.end([remaining.stuck(left)])
                return
            time_left = self.deadline - time.monotonic()
            if time_left <= 0:
                self.end([remaining.late(left, seconds)])
                return
            time.sleep(min(pause, time_left, self._until_due()))
            if not self._up_to_date():
                return
            sent = self._sent()
            self.round()
            pause = waiting.ROUND_SECONDS[0] if self._sent() > sent else waiting.next_pause(pause)

    def _up_to_date(self) -> bool:
        """Go on by today's configuration; return False where it cannot be used."""
        if self.at.config.changed():
            try:
                self.at.reload()
                self.chosen = queues.chosen(self.at.config, self.names)
            except (ConfigError, UsageError) as error:
                self.end([problem(error)])
                return False
        return True

    def _met(self) -> list[Problem]:
        """Return what poll and dispatch met when they were last at it."""
        return [one for title in ("poll", "dispatch") for one in self.done[title].report.problems]

    def _sent(self) -> int:
        return int(self.done["dispatch"].report.result["requests"])

    def _until_due(self) -> float:
        """Return the seconds until the first of what waits has its time; without an end where none has one."""
        now = clock.now()
        times = [clock.parse(one["until"]) for one in self.done["dispatch"].report.result["waits"] if one["until"]]
        return min((at - now for at in times if at > now), default=math.inf)

    def problems(self) -> list[Problem]:
        """Return the problems of all stages and of the whole; a lasting one once."""
        found = [one for done in self.done.values() for one in done.report.problems] + self.ending
        lasting = {one.scope: one for one in reversed(found) if one.lasting}
        return [one for one in found if not one.lasting or lasting[one.scope] is one]

    def said(self) -> str:
        """Return what the monitor is told of the run."""
        summaries = [f"{title}: {done.said.splitlines()[0]}" for title, done in self.done.items() if done.said]
        needs = attention.look(self.at.state, symptoms.loaded(self.at.config))
        return monitor.line(summaries, self.problems(), needs)

    def report(self) -> Report:
        """Return the report of all stages: each one's own, and one exit code by the rule of each."""
        of = {title: document(done.report, done.skipped) for title, done in self.done.items()}
        sources = {title.removeprefix("enqueue "): of.pop(title) for title in list(of) if title.startswith("enqueue ")}
        stages: Any = {name: of[name] for name in ("poll", "reconcile")}
        stages |= {"enqueue": sources, "dispatch": of["dispatch"]}
        worked = any(done.report.worked for done in self.done.values())
        result: contract.Ran = {"stages": stages}
        return Report(result, self.problems(), worked)
