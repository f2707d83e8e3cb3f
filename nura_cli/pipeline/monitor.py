"""The monitor that the configuration names under ``ping:``: told that a run begins or ends, with what may be known of it there."""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from nura_cli.delivery import ping
from nura_cli.errors import ConfigError
from nura_cli.pipeline.person import Need
from nura_cli.pipeline.report import Problem

if TYPE_CHECKING:
    from nura_cli.config import PingConfig


def tell(options: "PingConfig", part: str, line: str = "") -> str | None:
    """Tell the monitor; return why it was not told, or None.

    Args:
        part: ``start``, or an exit code.
        line: what it shows beside that.
    """
    try:
        return ping.send(options.secret(), part, line)
    except ConfigError as error:
        return error.message


def line(summaries: Iterable[str], problems: Iterable[Problem], needs: Iterable[Need]) -> str:
    """Return what a run did and met, in one line: counts and kinds, without any words of records or providers."""
    parts = list(summaries)
    for title, kinds in (
        ("problems", Counter(str(one.kind) for one in problems)),
        ("needs you", Counter(str(one.kind) for one in needs)),
    ):
        if kinds:
            parts.append(f"{title}: {', '.join(f'{n:,} {kind}' for kind, n in kinds.items())}")
    return "; ".join(parts)
