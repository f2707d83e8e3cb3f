"""How long what does not come is waited for, before it is believed: pure decisions over a batch's times.

Nothing is believed to be missing on one look. The second comes a quarter of an hour later, by the server's clock *and* by
ours: the servers of one provider may disagree by more than that, and so may a clock here that was set.
"""

from nura_cli.dialects import vendors
from nura_cli.state.batches import Batch
from nura_cli.states import BatchStatus

GIVEN_UP_WATCH = 48 * 3600
"""How long a batch that was taken for absent is still looked out for, in seconds."""
SETTLING_SECONDS = 15 * 60
"""How long after a create the provider may take to list it; also the least time between two looks that miss something."""
WINDOW_SECONDS = 24 * 3600
"""How long a provider takes for a batch at most, where it does not say."""
LONGEST_WINDOW = 15 * 24 * 3600
"""The longest time that a service takes for a batch (SiliconFlow: 336 hours; Groq: 7 days), in seconds, and a day."""
LOST_AFTER = 3600
"""Seconds past its deadline after which a batch needs a person, whatever the provider says of it."""
ALONE_SECONDS = 3600
"""A batch that lists show running is asked after by itself this often: lists can be stale (litellm#22982)."""
SHORT_SECONDS = 24 * 3600
"""How long answers that the provider counts, and that its files lack, are looked for again."""
UNREADY_LONG_SECONDS = 3600
"""After so long it is said that a request file is not ready, and a create is tried whatever is said of the file."""
UNREADY_MOST_SECONDS = 24 * 3600
"""After so long a create that is refused is refused, whatever the file is waiting for."""

ROUND_SECONDS = (0.2, 30.0)
"""With ``--wait``: seconds between two rounds, from the first to the longest."""


def next_pause(pause: float) -> float:
    """Return the seconds between two rounds after a round that came to nothing, where they were ``pause`` before it."""
    return min(pause * 1.5, ROUND_SECONDS[1])


def age(batch: Batch, now: int) -> int:
    """Return how many seconds ago a batch was begun; one that was begun well ahead of now, by a wrong clock, is old."""
    ahead = batch.created_at - now
    return UNREADY_MOST_SECONDS if ahead > UNREADY_LONG_SECONDS else max(0, -ahead)


def refused_before(batch: Batch) -> bool:
    """Return whether a batch's last create was refused since its file was not ready; ``reason`` has the words."""
    return batch.status in (BatchStatus.UPLOADED, BatchStatus.SUBMITTING) and batch.reason is not None


def sent(batch: Batch) -> int:
    """Return the unix second at which a batch was taken by the provider; by our clock, where the two are days apart."""
    at = batch.submitted_at or batch.created_at
    return at if abs(at - batch.created_at) < WINDOW_SECONDS else batch.created_at


def deadline(batch: Batch) -> int:
    """Return the unix second at which the provider's time for a batch is over; a time that cannot be is not believed."""
    deadline, begun = batch.expires_at, sent(batch)
    return deadline if deadline is not None and begun < deadline <= begun + LONGEST_WINDOW else begun + WINDOW_SECONDS


def overdue(batch: Batch, now: int) -> bool:
    """Return whether a batch should long have ended."""
    return now >= deadline(batch) + LOST_AFTER


def kept_until(batch: Batch) -> int:
    """Return the unix second at which a batch's results go from the provider."""
    return sent(batch) + vendors.dialect(batch.dialect).results_kept


def kept(batch: Batch, now: int) -> bool:
    """Return whether the provider may still have results of a batch."""
    return now < kept_until(batch)


def asked_alone(batch: Batch, now: int) -> bool:
    """Return whether a batch that a list shows running is to be asked after by itself: hourly, always past its time, and
    always where it was seen to have ended: a stale list does not take that back.
    """
    if amiss(batch):
        return True
    last = batch.created_at if batch.asked_at is None else batch.asked_at
    return now >= deadline(batch) or not last <= now < last + ALONE_SECONDS


def amiss(batch: Batch) -> bool:
    """Return whether something of a batch is missing, or may be: it is looked for once a run, and not waited for."""
    return batch.held is not None or batch.short_at is not None or batch.absent_at is not None


def believed_in(batch: Batch, what: str, date: int, now: int) -> int | None:
    """Return in how many seconds what was looked for in vain may be believed missing; 0 for now.

    Args:
        what: is missing, in words: two looks that miss different things are two first looks.
        date: the server's clock, unix seconds.
        now: ours.

    Returns:
        None where this is the first look: none was noted before, or a clock was set back since.
    """
    first, here = batch.absent_at, batch.absent_here
    if batch.missed != what or first is None or here is None or date < first or now < here:
        return None
    return max(0, SETTLING_SECONDS - min(date - first, now - here))


def short_over(batch: Batch, date: int, now: int) -> bool:
    """Return whether answers that are counted and did not come have been looked for long enough, by both clocks.

    Args:
        date: the server's clock, unix seconds; its day begins with the second look, when ``absent_at`` is noted.
        now: ours.
    """
    if batch.short_at is None or batch.absent_at is None:
        return False
    return now >= batch.short_at + SHORT_SECONDS and date >= batch.absent_at + SHORT_SECONDS - ALONE_SECONDS


def asked_for_the_rest(batch: Batch, now: int) -> bool:
    """Return whether a batch of which answers are missing is to be looked at: by every run at first, then hourly; daily once it is held."""
    first, last = batch.short_at or now, batch.asked_at or 0
    every = ALONE_SECONDS if batch.held is None else WINDOW_SECONDS
    return now < first + 2 * ALONE_SECONDS or not last <= now < last + every
