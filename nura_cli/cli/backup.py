"""nura backup."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nura_cli.cli.session import Outline, Session, with_session
from nura_cli.errors import EX_CONFIG, EX_PARTIAL, EX_TEMPFAIL, ConfigError

if TYPE_CHECKING:
    from nura_cli.config import Config

EXAMPLES = (
    ("nura backup /var/backups/nura", "copy the state file and the results that wait, while all goes on"),
    ("nura backup /var/backups/nura --json", "... and print where the copy is, and what it lacks"),
)
EXIT_CODES = (EX_PARTIAL, EX_TEMPFAIL, EX_CONFIG)


@with_session
def command(
    session: Session,
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Where backups are kept; each is a folder of its own in it.", show_default=False
        ),
    ],
) -> None:
    """Copy the state file and the spool's results, while everything runs."""
    from nura_cli.pipeline import backup

    outline = session.outline()
    with session.state(outline.state) as state:
        report = backup.run(state, folder, _config(session, outline), _providers(outline))
    size = f"{report.result['bytes'] / 1e6:,.1f} MB"
    session.say(f"{report.result['path']}: {size}; nura help restore says how to put it back")
    session.finish(report)


def _config(session: Session, outline: Outline) -> "Config | None":
    """Return the configuration; None where there is none, or it is wrong: that is no time to go without a backup."""
    if outline.config is None:
        return None
    try:
        return session.config()
    except ConfigError as error:
        session.tell(f"the configuration cannot be used, and every provider is held in the copy: {error.message}")
        return None


def _providers(outline: Outline) -> list[str]:
    """Return the providers that a configuration names, right or wrong as the rest of it may be."""
    listed = outline.document.get("providers")
    return [str(name) for name in listed] if isinstance(listed, dict) else []
