"""What the queues of accounts take, whose accounts they are, and what is under way there.

Every writing function runs inside the caller's transaction.
"""

import json
from collections.abc import Sequence
from typing import Literal, NamedTuple

from nura_cli.state.connection import Connection
from nura_cli.states import BatchStatus

Unit = Literal["tokens", "requests"]

_HOLDS_ROOM = (BatchStatus.UPLOADED, BatchStatus.SUBMITTING, BatchStatus.SUBMITTED)
"""Batches that take room in a queue, or are about to: neither those that are only being written, nor those that have ended."""
BYTES_PER_TOKEN = 4
"""For batches of earlier releases, which kept no estimate: about four bytes of English JSON make a token."""
_LATE = 3600
"""Seconds after a batch's time when it is taken to have ended, whatever is known of it."""


class Quota(NamedTuple):
    """What a queue takes at once, learned from refusals.

    Attributes:
        account: whose queue it is.
        model: for which model; "" where all are counted together.
        unit: what is counted.
        cap: as the provider said it, or what was under way when it refused more; in units.
        share: of the cap, what is used now.
        ceiling: the share at which it refused last.
        said: whether the cap stood in the provider's words.
        refused_at: when it last refused, unix seconds.
        refused_after: the newest batch when that was counted: of those that were sent before, no other one counts.
        paused_until: nothing more goes into it before this unix second.
        strikes: how many batches it has refused in a row.
    """

    account: str
    model: str
    unit: Unit
    cap: int
    share: float
    ceiling: float
    said: bool
    refused_at: int
    refused_after: int = 0
    paused_until: int = 0
    strikes: int = 0


_QUOTA = ", ".join(Quota._fields)


def quota(db: Connection, account: str, model: str, unit: Unit) -> Quota | None:
    """Return what is known of a queue, or None."""
    row = db.execute(
        f"SELECT {_QUOTA} FROM quotas WHERE account = ? AND model = ? AND unit = ?", (account, model, unit)
    ).fetchone()
    return None if row is None else Quota(*row)._replace(said=bool(row[6]))


def any_of(db: Connection, account: str) -> bool:
    """Return whether anything was learned of an account's queues."""
    return db.execute("SELECT 1 FROM quotas WHERE account = ? LIMIT 1", (account,)).fetchone() is not None


def learn(db: Connection, known: Quota) -> None:
    """Store what is known of a queue now."""
    db.execute(f"INSERT OR REPLACE INTO quotas ({_QUOTA}) VALUES ({', '.join('?' * len(known))})", known)


def unpause(db: Connection, providers: Sequence[str]) -> None:
    """End the pauses of the queues of these providers' accounts: a person wants it."""
    db.execute(
        "UPDATE quotas SET paused_until = 0, strikes = 0 WHERE account IN ("
        " SELECT account FROM accounts WHERE provider IN (SELECT value FROM json_each(?1))"
        " UNION SELECT address FROM batches WHERE account IS NULL AND provider IN (SELECT value FROM json_each(?1)))",
        (json.dumps(list(providers)),),
    )


def account(db: Connection, provider: str, address: str) -> str | None:
    """Return whose account a provider's is, as was last noted; None where nothing was."""
    row = db.execute("SELECT account FROM accounts WHERE provider = ? AND address = ?", (provider, address)).fetchone()
    return None if row is None else str(row[0])


def note_account(db: Connection, provider: str, address: str, account: str) -> None:
    """Note whose account a provider's is."""
    db.execute(
        "INSERT INTO accounts (provider, address, account) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET account = excluded.account",
        (provider, address, account),
    )


class UnderWay(NamedTuple):
    """A batch that takes room in a queue.

    Attributes:
        id: the batch's.
        account: whose it is; None where the provider did not say.
        tokens: of its input, as estimated.
        decided: whether the provider is known to have taken its requests.
        sent_at: when its create was sent, unix seconds; None where it was not.
    """

    id: int
    address: str
    account: str | None
    model: str
    requests: int
    tokens: int
    decided: bool
    sent_at: int | None


def under_way(db: Connection) -> list[UnderWay]:
    """Return the batches that take room in queues, oldest first: not those that are past their time, or that a person has to decide
    about, or of which something is missed.
    """
    rows = db.execute(
        "SELECT id, address, account, model, requests, coalesce(expected_input, bytes / ?), validated_at IS NOT NULL, sent_at"
        " FROM batches WHERE final_at IS NULL"
        f" AND status IN ({', '.join('?' * len(_HOLDS_ROOM))}) AND held IS NULL AND absent_at IS NULL AND short_at IS NULL"
        " AND (expires_at IS NULL OR expires_at > ?) ORDER BY id",
        (BYTES_PER_TOKEN, *_HOLDS_ROOM, db.now - _LATE),
    ).fetchall()
    return [UnderWay(*row) for row in rows]
