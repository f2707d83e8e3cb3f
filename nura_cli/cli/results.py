"""nura results."""

import json
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from nura_cli import clock
from nura_cli.cli.session import Session, harmless, output, with_session
from nura_cli.dialects import vendors
from nura_cli.errors import UsageError

if TYPE_CHECKING:
    from nura_cli.config import Config
    from nura_cli.pipeline.results import Wanted
    from nura_cli.state import State

_FLUSH_BYTES = 1 << 16


class Final(StrEnum):
    """The states an answer can be in."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


_OURS = "nura"
_FORMS = (_OURS, *vendors.names())


def _form(value: str) -> str:
    """Return what a line is to look like, once it is known here."""
    if value not in _FORMS:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(map(repr, _FORMS))}.")
    return value


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
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="nura's own lines, or those of the vendor's result files with your custom_id.",
            metavar=f"<{'|'.join(_FORMS)}>",
            callback=_form,
        ),
    ] = _OURS,
) -> None:
    """Print answers as JSON Lines."""
    from nura_cli.pipeline import results

    config = session.config()
    names = workloads or []
    wanted = results.Wanted(names, status or [], _moment(since), after, None if key is None else _identity(key))
    with session.state(config.state, newer=True) as state:
        results.check_known(state, config, names)
        out = bytearray()
        for line in _lines(state, config, form, wanted):
            out += harmless(line)
            out += b"\n"
            if len(out) >= _FLUSH_BYTES:
                _put(out)
                out.clear()
        _put(out)


def _put(lines: bytes | bytearray) -> None:
    with output() as out:
        out.write(lines)


def _lines(state: "State", config: "Config", form: str, wanted: "Wanted") -> Iterator[bytes]:
    import msgspec

    from nura_cli.pipeline import results

    if form != _OURS:
        return results.vendor_lines(state, form, wanted)
    return map(msgspec.json.encode, results.stream(state, config, wanted))


def _identity(key: str) -> str:
    from nura_cli.errors import InputError
    from nura_cli.pipeline import lines

    try:
        return lines.key_of(json.loads(key) if key.startswith("[") else key).identity
    except (ValueError, InputError) as error:
        raise UsageError(f"--key {key}: {error}") from error


def _moment(since: str | None) -> int | None:
    from nura_cli.config import duration

    if since is None:
        return None
    try:
        return clock.now() - int(duration(since)) if since[-1:] in "smhd" else clock.parse(since)
    except ValueError as error:
        message = f"--since {since}: neither a time such as 2026-01-02T03:04:05Z nor a length of time such as 2h"
        raise UsageError(message) from error
