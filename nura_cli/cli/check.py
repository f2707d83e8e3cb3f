"""nura check."""

from collections.abc import Callable
from typing import Annotated

import typer

from nura_cli import scrub
from nura_cli.cli.session import Session, output, plain, with_session
from nura_cli.errors import EX_CONFIG, EX_NOPERM, EX_PARTIAL, EX_TEMPFAIL
from nura_cli.pipeline.findings import Finding

EXAMPLES = (
    ("nura check", "look at everything, in order or not"),
    ("nura check --online", "ask each provider, too, whether it takes the key"),
    ("nura check -q", "say only what fails"),
)
EXIT_CODES = (EX_PARTIAL, EX_TEMPFAIL, EX_NOPERM, EX_CONFIG)


@with_session
def command(
    session: Session,
    online: Annotated[
        bool, typer.Option("--online", help="Ask each provider for its list of batches, once; it is free.")
    ] = False,
) -> None:
    """Look for all that can be found before anything is paid for. Writes nothing."""
    from nura_cli.pipeline import check

    report = check.run(check.Checked(session.config_path(), session.state_option, online), told=_told(session))
    session.finish(report, printed=None if session.quiet else [])


def _told(session: Session) -> Callable[[Finding], None]:
    """Return what prints a finding on a line, as soon as it is there; asking a provider may take its time."""

    def told(found: Finding) -> None:
        if session.json or session.quiet:
            return
        hint = f" ({found.hint})" if found.hint else ""
        with output() as out:
            line = plain(scrub.clean(f"{found.level:<4}  {found.part}: {found.message}{hint}"))
            out.write(f"{line}\n".encode("utf-8", "backslashreplace"))

    return told
