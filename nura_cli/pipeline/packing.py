"""Pure decisions of dispatch: when a workload is due, and how much goes into a batch."""

from nura_cli.dialects.base import Limits

BYTES_PER_TOKEN = 4
"""A rough measure for estimates: about four bytes of English JSON make a token."""


def due(waiting: int, oldest: int | None, min_requests: int, max_wait: int, now: int) -> bool:
    """Return whether a workload's waiting tasks are to be sent now.

    Args:
        waiting: tasks that may be sent, counted up to ``min_requests``.
        oldest: when the oldest of them was enqueued, unix seconds; one enqueued in the future is due.
        min_requests, max_wait: the workload's thresholds (requests, seconds); either one will do.
    """
    if oldest is None:
        return False
    return waiting >= min_requests or now - oldest >= max_wait or oldest > now


def lowered(vendor: Limits, requests: int | None, size: int | None, inputs: int | None) -> Limits:
    """Return the vendor's limits, lowered by the configuration where it says less; it cannot raise them."""
    most = min(vendor.bytes, size or vendor.bytes)
    return Limits(
        requests=min(vendor.requests, requests or vendor.requests),
        bytes=most,
        inputs=vendor.inputs if vendor.inputs is None else min(vendor.inputs, inputs or vendor.inputs),
        line_bytes=min(vendor.line_bytes, most),
    )


def token_room(cap: int | None, under_way_bytes: int) -> int | None:
    """Return how many bytes of requests may still be sent under a cap on enqueued tokens, or None without a cap."""
    return None if cap is None else max(0, cap * BYTES_PER_TOKEN - under_way_bytes)
