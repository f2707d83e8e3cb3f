"""nura results."""

import json
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from nura_cli import clock
from nura_cli.cli.session import Session, check_workloads, with_session
from nura_cli.errors import UsageError

if TYPE_CHECKING:
    from nura_cli.config import Config
    from nura_cli.state import State

_FLUSH_BYTES = 1 << 16


class Final(StrEnum):
    """The states an answer can be in."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@with_session
def command(
    session: Session,
    workloads: Annotated[list[str] | None, typer.Argument(help="Only these.", show_default="all")] = None,
    status: Annotated[
        list[Final] | None,
        typer.Option(help="Only these; may be given more than once.", show_default="all"),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="The answer to one record, by its key (a composite one as a JSON array).")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Settled since then: an RFC 3339 time or date, or how long ago, such as 2h.")
    ] = None,
    after: Annotated[int, typer.Option(help="Only answers with a higher seq.", min=0)] = 0,
) -> None:
    """Print answers as JSON Lines."""
    import msgspec

    from nura_cli.pipeline import results
    from nura_cli.state import State

    config = session.config()
    names = workloads or []
    with State(config.state) as state:
        _known(state, config, names)
        if key is not None:
            found = _of_key(state, config, names, key)
            sys.stdout.buffer.write(b"".join(msgspec.json.encode(document) + b"\n" for document in found))
            return
        out = bytearray()
        documents = results.stream(
            state, config, workloads=names, statuses=status or [], since=_moment(since), after=after
        )
        for document in documents:
            out += msgspec.json.encode(document)
            out += b"\n"
            if len(out) >= _FLUSH_BYTES:
                sys.stdout.buffer.write(out)
                out.clear()
        sys.stdout.buffer.write(out)
    sys.stdout.flush()


def _known(state: "State", config: "Config", names: list[str]) -> None:
    """A workload that left the configuration still has its answers; one that never was is a typing error."""
    from nura_cli.state import tasks

    past = {lane.workload for lane in tasks.lanes(state.db)}
    check_workloads(config, [name for name in names if name not in past])


def _of_key(state: "State", config: "Config", names: list[str], key: str) -> list[object]:
    from nura_cli.errors import InputError
    from nura_cli.pipeline import lines, results

    try:
        identity = lines.key_of(json.loads(key) if key.startswith("[") else key).identity
    except (ValueError, InputError) as error:
        raise UsageError(f"--key {key}: {error}") from error
    found = (results.of_key(state, config, name, identity) for name in names or config.workloads)
    return [document for document in found if document is not None]


def _moment(since: str | None) -> int | None:
    from nura_cli.config import duration

    if since is None:
        return None
    try:
        return clock.now() - int(duration(since)) if since[-1:] in "smhd" else clock.parse(since)
    except ValueError as error:
        message = f"--since {since}: neither a time such as 2026-01-02T03:04:05Z nor a length of time such as 2h"
        raise UsageError(message) from error
