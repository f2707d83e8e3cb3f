"""nura hold."""

from typing import Annotated

import typer

from nura_cli.cli.grammar import to_come
from nura_cli.cli.session import Session, with_session
from nura_cli.cli.verbs import WhyOption, acting, chosen, told
from nura_cli.errors import EX_CONFIG, EX_TEMPFAIL

UntilOption = Annotated[
    str | None,
    typer.Option(help="It ends by itself then: a time or date, or in how long, such as 2h.", show_default="a release"),
]


EXAMPLES = (
    ("nura hold classify --why 'the prompt is wrong'", "send nothing of a workload until it is released"),
    ("nura hold --provider sandbox --until 3d", "send nothing to a provider for three days"),
)
EXIT_CODES = (EX_TEMPFAIL, EX_CONFIG)


@with_session
def command(
    session: Session,
    workloads: Annotated[list[str] | None, typer.Argument(help="Send nothing of these.", show_default=False)] = None,
    provider: Annotated[
        list[str] | None,
        typer.Option(help="Send nothing to this provider; may be given more than once.", show_default=False),
    ] = None,
    until: UntilOption = None,
    why: WhyOption = None,
) -> None:
    """Send nothing of a workload, or to a provider, until it is released."""
    scope, names = chosen(workloads, provider)
    at = to_come("--until", until)
    with acting(session, why) as (state, config):
        from nura_cli.pipeline import hold

        report = hold.run(state, config, scope, names, at)
    told(session, report, "holds")
