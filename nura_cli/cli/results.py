"""nura results."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from nura_cli.cli.grammar import Asked, with_grammar
from nura_cli.cli.session import Session, harmless, output, with_session
from nura_cli.dialects import vendors
from nura_cli.errors import EX_CONFIG, EX_PARTIAL, EX_TEMPFAIL
from nura_cli.pipeline.report import Problem

if TYPE_CHECKING:
    from nura_cli.config import Config
    from nura_cli.state import State
    from nura_cli.state.selection import Selection

_FLUSH_BYTES = 1 << 16


_OURS = "nura"
_FORMS = (_OURS, *vendors.names())


def _form(value: str) -> str:
    """Return what a line is to look like, once it is known here."""
    if value not in _FORMS:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(map(repr, _FORMS))}.")
    return value


EXAMPLES = (
    ("nura results classify --status failed", "what has no answer, and why"),
    ("nura results --after 1200", "what was settled since the answer with that seq"),
)
EXIT_CODES = (EX_PARTIAL, EX_TEMPFAIL, EX_CONFIG)


@with_session
@with_grammar
def command(
    session: Session,
    asked: Asked,
    after: Annotated[int, typer.Option(help="Only answers with a higher seq.", min=0)] = 0,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="nura's own lines, or those of the vendor's result files with your custom_id.",
            metavar="|".join(_FORMS),
            callback=_form,
        ),
    ] = _OURS,
) -> None:
    """Print answers as JSON Lines."""
    config = session.config()
    problems: list[Problem] = []
    with session.state(config.state, newer=True) as state:
        out = bytearray()
        for chosen in asked.parts(state, config, problems):
            for line in _lines(state, config, form, chosen, after):
                out += harmless(line)
                out += b"\n"
                if len(out) >= _FLUSH_BYTES:
                    _put(out)
                    out.clear()
        _put(out)
    for found in problems:
        session.tell(found.line)
    if problems:
        raise typer.Exit(EX_PARTIAL)


def _put(lines: bytes | bytearray) -> None:
    with output() as out:
        out.write(lines)


def _lines(state: "State", config: "Config", form: str, chosen: "Selection", after: int) -> Iterator[bytes]:
    import msgspec

    from nura_cli.pipeline import results

    if form != _OURS:
        return results.vendor_lines(state, form, chosen, after=after)
    return map(msgspec.json.encode, results.stream(state, config, chosen, after=after))
