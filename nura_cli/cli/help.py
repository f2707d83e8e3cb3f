"""nura help: the reference that ships with nura, and each command's ``--help``."""

import difflib
import sys
from importlib import resources
from typing import Annotated, Any

import typer

from nura_cli import contract
from nura_cli.cli.helptext import page, summary
from nura_cli.cli.session import Session, output, with_session
from nura_cli.errors import EX_TEMPFAIL, UsageError
from nura_cli.pipeline.report import Report

EXAMPLES = (
    ("nura help fields", "every field of a line of nura results"),
    ("nura help dispatch", "the same as nura dispatch --help"),
)
EXIT_CODES = (EX_TEMPFAIL,)
_SCHEMA = "schema"


def topics() -> dict[str, str]:
    """Return each topic and what it tells, in a few words."""
    pages = resources.files("nura_cli") / "help"
    names = sorted(one.name.removesuffix(".md") for one in pages.iterdir() if one.name.endswith(".md"))
    titles = {name: text_of(name).partition("\n")[0].removeprefix("# ") for name in names}
    return {**titles, _SCHEMA: "JSON Schema of the configuration, for editors"}


def text_of(topic: str) -> str:
    """Return the text of a topic."""
    name = "config.schema.json" if topic == _SCHEMA else f"{topic}.md"
    return (resources.files("nura_cli") / "help" / name).read_text(encoding="utf-8")


def _completed(incomplete: str) -> list[str]:
    from nura_cli.cli import COMMANDS

    return [name for name in (*topics(), *COMMANDS) if name.startswith(incomplete)]


@with_session
def command(
    session: Session,
    topic: Annotated[
        str | None,
        typer.Argument(
            metavar="TOPIC|COMMAND", help="What about; without one, all are listed.", autocompletion=_completed
        ),
    ] = None,
) -> None:
    """Explain fields, options, exit codes, states and more; or a command."""
    from nura_cli.cli import COMMANDS

    if topic is None:
        _list(session)
    elif topic in COMMANDS:
        _print(session, topic, _of_command(topic), markdown=False)
    elif topic in topics():
        _print(session, topic, text_of(topic), markdown=topic != _SCHEMA)
    else:
        near = difflib.get_close_matches(topic, [*topics(), *COMMANDS], 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "nura help lists what there is"
        raise UsageError(f"there is no help about {topic}", hint=hint)


def _list(session: Session) -> None:
    from nura_cli.cli import build

    group: Any = typer.main.get_command(build())
    found: contract.Topics = {
        "commands": {name: summary(one) for name, one in group.commands.items()},
        "topics": topics(),
    }
    if not session.json:
        with output():
            sections = [("Topics", [*found["topics"].items()]), ("Commands", [*found["commands"].items()])]
            print(page("nura help TOPIC, or nura help COMMAND", command.__doc__, sections), end="")
    session.finish(Report(found))


def _of_command(name: str) -> str:
    from nura_cli.cli import build

    group: Any = typer.main.get_command(build([name]))
    above = typer.Context(group, info_name="nura", **group.context_settings)
    return str(typer.Context(group.commands[name], parent=above, info_name=name).get_help()) + "\n"


def _print(session: Session, topic: str, text: str, *, markdown: bool) -> None:
    """Print a page: set for a person on a terminal, as it is elsewhere."""
    if session.json:
        found: contract.Help = {"topic": topic, "text": text}
        session.finish(Report(found))
        return
    with output():
        if markdown and sys.stdout.isatty():
            from rich.console import Console
            from rich.markdown import Markdown

            Console().print(Markdown(text))
        else:
            print(text, end="")
