"""nura release."""

from typing import Annotated

import typer

from nura_cli.cli.session import Session, with_session
from nura_cli.cli.verbs import WhyOption, acting, chosen, told
from nura_cli.errors import EX_CONFIG, EX_TEMPFAIL

EXAMPLES = (
    ("nura release classify", "send it again"),
    ("nura release --provider sandbox", "lift its hold, and end its pauses"),
)
EXIT_CODES = (EX_TEMPFAIL, EX_CONFIG)


@with_session
def command(
    session: Session,
    workloads: Annotated[list[str] | None, typer.Argument(help="Send these again.", show_default=False)] = None,
    provider: Annotated[
        list[str] | None,
        typer.Option(
            help="Send to this provider again, now if it rests; may be given more than once.", show_default=False
        ),
    ] = None,
    why: WhyOption = None,
) -> None:
    """Lift what holds a workload or a provider, and end a provider's pauses."""
    scope, names = chosen(workloads, provider)
    with acting(session, why) as (state, config):
        from nura_cli.pipeline import release

        report = release.run(state, config, scope, names)
    told(session, report, "released", "resumed", "not_held", "still_held")
