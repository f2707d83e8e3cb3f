"""What is under way in an account's queue, and what nura learned of how much it takes.

A queue is an account's, whatever the provider is called in the configuration: the organization that the provider names, at its
address; where it names none, the key's. Some vendors count for each model, others for all of them together.
"""

from collections.abc import Iterable

from nura_cli.dialects import queues as words
from nura_cli.dialects import vendors
from nura_cli.dialects.base import Rejection
from nura_cli.pipeline import quotas
from nura_cli.pipeline.quotas import Queue
from nura_cli.state import Connection, batches
from nura_cli.state import quotas as rows
from nura_cli.state.batches import Batch
from nura_cli.state.quotas import UnderWay, Unit

UNITS: tuple[Unit, ...] = ("tokens", "requests")


def queue_of(dialect: str, account: str, model: str, unit: Unit) -> Queue:
    """Return the queue in which requests of an account for a model are counted."""
    return Queue(account, model if vendors.dialect(dialect).queue_by_model else "", unit)


def holder(batch: Batch) -> str:
    """Return whose account a batch is, as well as it is known."""
    return batch.account or batch.address


def within(under_way: Iterable[UnderWay], queue: Queue, address: str) -> list[UnderWay]:
    """Return what is under way in a queue; of what was sent to its ``address`` nobody may know whose account it was."""
    return [
        one
        for one in under_way
        if (one.account == queue.account or (one.account is None and one.address == address))
        and (not queue.model or one.model == queue.model)
    ]


def used(inside: Iterable[UnderWay], unit: Unit) -> int:
    """Return what takes so much of a queue, in its units."""
    return sum(one.tokens if unit == "tokens" else one.requests for one in inside)


def is_full(fault: Rejection) -> bool:
    """Return whether a refusal says that a queue is full."""
    return words.full(fault) is not None


def learn_refusal(db: Connection, batch: Batch, faults: Iterable[Rejection], jitter: float) -> None:
    """Note what a refusal says of the queue that a batch was to join; nothing, where it is about something else."""
    found = next((one for fault in faults if (one := words.full(fault)) is not None), None)
    if found is None:
        return
    unit: Unit = found.unit or vendors.dialect(batch.dialect).queue_unit
    queue = queue_of(batch.dialect, holder(batch), batch.model, unit)
    own = batch.requests if unit == "requests" else batch.expected_input
    beside = [one for one in within(rows.under_way(db), queue, batch.address) if one.id != batch.id]
    total = used(beside, unit) + (own if own is not None else batch.bytes // rows.BYTES_PER_TOKEN)
    known, newest = rows.quota(db, *queue), batches.newest(db)
    rows.learn(db, quotas.after_refusal(known, queue, found.cap, total, batch.id, newest, db.now, jitter))


def learn_success(db: Connection, batch: Batch) -> None:
    """Note that a batch was taken, and has ended: what its queue takes may be more."""
    for unit in UNITS:
        queue = queue_of(batch.dialect, holder(batch), batch.model, unit)
        known = rows.quota(db, *queue)
        if known is not None:
            rows.learn(db, quotas.after_success(known))
