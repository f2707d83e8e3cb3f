"""One run of a stage: what it works with, and what has gone wrong in it so far.

A part of a run, a batch, a workload or a provider, is done :meth:`Run.apart`: what goes wrong with it is a problem of the
run's, and the other parts go on.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Unpack

from nura_cli.clock import Clock
from nura_cli.config import Config
from nura_cli.errors import ConfigError, KeyRefused, NuraError, ProviderError
from nura_cli.pipeline.accounts import Accounts
from nura_cli.pipeline.report import Concerns, Problem, bug, problem
from nura_cli.state import State
from nura_cli.state.batches import Batch
from nura_cli.state.file import unforeseen


@dataclass(kw_only=True)
class Run:
    """One run of a stage.

    Attributes:
        worked: whether any part of the work was done.
    """

    state: State
    config: Config
    problems: list[Problem] = field(default_factory=list)
    worked: bool = False

    @property
    def clock(self) -> Clock:
        """What gives the time, unix seconds."""
        return self.state.clock

    def note(self, found: Problem) -> None:
        """Note a problem; the run goes on."""
        self.problems.append(found)

    def fail(self, error: NuraError, **concerns: Unpack[Concerns]) -> None:
        """Note an error as a problem; the run goes on."""
        self.note(problem(error, **concerns))

    def bug(self, error: Exception, doing: str, **concerns: Unpack[Concerns]) -> None:
        """Note what nobody foresaw while ``doing`` one part of the run; the others go on."""
        self.note(bug(error, doing, **concerns))

    @contextmanager
    def apart(self, doing: str, *kinds: type[NuraError], **concerns: Unpack[Concerns]) -> Iterator[None]:
        """Keep what goes wrong inside the block to itself.

        Args:
            doing: what is done there, in words: ``batch 3``.
            kinds: the errors that are problems of this part alone; any of nura's, where none is named.
        """
        own = kinds or (NuraError,)
        try:
            yield
        except own as error:
            self.fail(error, **concerns)
        except Exception as error:
            if not unforeseen(error):
                raise
            self.bug(error, doing, **concerns)


@dataclass(kw_only=True)
class ProviderRun(Run):
    """One run of a stage that speaks to providers."""

    accounts: Accounts

    def provider_apart(self, name: str) -> AbstractContextManager[None]:
        """Keep what goes wrong inside the block with one provider, its key or its configuration to itself."""
        return self.apart(name, ProviderError, KeyRefused, ConfigError, provider=name)


def about(batch: Batch) -> Concerns:
    """Return what a problem of a batch concerns."""
    return {"provider": batch.provider, "workload": batch.workload, "batch": batch.id}
