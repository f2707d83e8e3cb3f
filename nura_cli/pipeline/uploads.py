"""Request files that their provider is not done with: a batch waits for its own, and is never uploaded twice for that.

A run waits some seconds; then the batch stays ``uploaded``, and the next run goes on from its file.
"""

import time
from collections.abc import Callable

from nura_cli.dialects import topics
from nura_cli.errors import ProviderError, RateLimited, Refused
from nura_cli.providers.base import Provider
from nura_cli.state.batches import Batch

WAIT_SECONDS = 45.0
"""How long one run waits for files, all together."""
_PAUSES = (0.5, 8.0)
"""Seconds between two looks at a file: at first, and at most."""
LONG_SECONDS = 3600
"""After so long it is said that a file is not ready, and a create is tried whatever is said of the file."""
MOST_SECONDS = 24 * 3600
"""After so long a create that is refused is refused, whatever the file is waiting for."""


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


def age(batch: Batch, now: int) -> int:
    """Return how many seconds ago a batch was begun; a clock that was set back makes it no younger than that."""
    return max(0, now - batch.created_at)


def waits(provider: Provider, batch: Batch, now: int) -> bool:
    """Return whether a batch is to wait for its file, as the provider tells of it.

    Raises:
        Refused: the file could not be processed.
    """
    return provider.processed(str(batch.input_file_id)) is False and age(batch, now) < LONG_SECONDS


def refused_for_now(provider: Provider, batch: Batch, error: ProviderError, now: int) -> bool:
    """Return whether a create was refused since its file is not ready: by the words, or by what is said of the file."""
    if not isinstance(error, Refused) or isinstance(error, RateLimited) or batch.input_file_id is None:
        return False
    if age(batch, now) >= MOST_SECONDS:
        return False
    if topics.file_not_ready(error.code, error.message):
        return True
    try:
        return provider.processed(batch.input_file_id) is False
    except ProviderError:
        return False
