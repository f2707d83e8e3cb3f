"""Request files that their provider is not done with: a batch waits for its own, and is never uploaded twice for that.

A run waits some seconds; then the batch stays ``uploaded``, and the next run goes on from its file.

A create that is refused since its file is not ready had no effect, most likely: a gateway that tries again can have sent
it twice, and pass on the second answer. So the batch stays ``submitting``, with the provider's words as its reason, and
the refusal counts as the first of the two looks that :mod:`nura_cli.pipeline.recovery` takes: not before the list lacks
it, a quarter of an hour later, is the create sent again. Its marker stays until then.
"""

import time
from collections.abc import Callable

from nura_cli.dialects import topics, vendors
from nura_cli.errors import NotFound, ProviderError, RateLimited, Refused, Rejection
from nura_cli.pipeline.waiting import (
    SETTLING_SECONDS,
    UNREADY_LONG_SECONDS,
    UNREADY_MOST_SECONDS,
    age,
    believed_in,
    refused_before,
)
from nura_cli.providers.base import Provider
from nura_cli.state import State, batches
from nura_cli.state.batches import Batch
from nura_cli.states import BatchStatus, Reason

WAIT_SECONDS = 45.0
"""How long one run waits for files, all together."""
_PAUSES = (0.5, 8.0)
"""Seconds between two looks at a file: at first, and at most."""


class Patience:
    """What one run has left of its time to wait for files.

    Args:
        sleep: waits for so many seconds.
    """

    def __init__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        self._left = WAIT_SECONDS
        self._pause = _PAUSES[0]
        self._sleep = sleep

    def wait(self) -> bool:
        """Wait a while, each time longer; return False, at once, where no time is left."""
        if self._left <= 0:
            return False
        self._sleep(min(self._pause, self._left))
        self._left -= self._pause
        self._pause = min(self._pause * 1.5, _PAUSES[1])
        return True


def waits(provider: Provider, batch: Batch, now: int) -> bool:
    """Return whether a batch is to wait for its file, as the provider tells of it.

    Raises:
        Refused: the file could not be processed.
    """
    return provider.processed(str(batch.input_file_id)) is False and age(batch, now) < UNREADY_LONG_SECONDS


def refused_for_now(provider: Provider, batch: Batch, error: ProviderError, now: int) -> bool:
    """Return whether a create was refused since its file is not ready: by the words, and by what is said of the file.

    Where the words are about anything else they are believed; where they tell nothing, the file must be seen not to be
    ready, or not be seen at all: a network that fails is no reason to blame a batch. A file that is said to be ready, and
    not to be, is ready after a quarter of an hour.
    """
    if not isinstance(error, Refused) or isinstance(error, RateLimited | NotFound) or batch.input_file_id is None:
        return False
    if age(batch, now) >= UNREADY_MOST_SECONDS or (said := _said(batch, error)) is False:
        return False
    try:
        ready = provider.processed(batch.input_file_id)
    except ProviderError as seen:
        return isinstance(seen, RateLimited) or not isinstance(seen, Refused)
    return ready is False or (said is True and not (ready and age(batch, now) >= SETTLING_SECONDS))


def _said(batch: Batch, error: Refused) -> bool | None:
    """Return whether a refusal's words are about a file that is not ready; None where they do not tell."""
    faults = error.faults or (Rejection(error.code, error.message, None),)
    if any(fault.line is not None for fault in faults):
        return False
    codes = (Rejection(fault.code, None, None) for fault in faults)
    if any(vendors.reason(batch.dialect, code) is not Reason.CONTENT for code in codes):
        return False
    found = {topics.file_not_ready(fault.code, fault.message, error.http_status) for fault in faults}
    return False if False in found else True in found or None


def note_refused(state: State, batch: Batch, error: Refused) -> Batch:
    """Note that a create was refused since its file is not ready, in which words; that is the first look in vain."""
    with state.transaction() as db:
        here = state.clock()
        return batches.note(
            db, batch, reason=error.message, absent_at=batch.sent_at or here, absent_here=here, missed=_missed(batch)
        )


def ask_again(state: State) -> None:
    """Let recovery look once more for what was to be created again, and was not."""
    for batch in batches.under_way(state.db, BatchStatus.UPLOADED):
        if refused_before(batch):
            with state.transaction() as db:
                batches.move(db, batch, BatchStatus.SUBMITTING, "its create, which was refused, is looked for again")


def not_listed(state: State, batch: Batch, date: int) -> None:
    """Go back to a batch's file once the list has lacked its refused create for long enough; until then, wait.

    Args:
        date: the server's clock, unix seconds.
    """
    now = state.clock()
    left = believed_in(batch, _missed(batch), date, now)
    with state.transaction() as db:
        if left is None:
            batches.note(db, batch, absent_at=date, absent_here=now, missed=_missed(batch), held=None)
        elif left == 0:
            why = "its create was refused, and is not listed: its file was not ready there yet"
            batches.move(db, batch, BatchStatus.UPLOADED, why, held=None)


def _missed(batch: Batch) -> str:
    return f"{batch.provider} does not list it"
