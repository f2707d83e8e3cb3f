"""The one table of vendors. A vendor's file is imported when it is first asked for; its SDK, never from here."""

from pkgutil import resolve_name
from typing import TYPE_CHECKING, NamedTuple, cast

from nura_cli.errors import ConfigError
from nura_cli.states import Reason

if TYPE_CHECKING:
    from nura_cli.dialects.base import Dialect, Rejection


class Vendor(NamedTuple):
    """Where the two halves of a vendor are.

    Attributes:
        dialect: its wording and its facts, as ``module:class``.
        connection: its :class:`~nura_cli.providers.base.Provider`, likewise; imported by ``nura_cli.providers`` alone.
        in_sandbox: whether the embedded sandbox speaks its API.
    """

    dialect: str
    connection: str
    in_sandbox: bool = False


VENDORS = {
    "openai": Vendor(
        "nura_cli.dialects.openai:OpenAIDialect", "nura_cli.providers.openai:OpenAIProvider", in_sandbox=True
    ),
    "anthropic": Vendor(
        "nura_cli.dialects.anthropic:AnthropicDialect",
        "nura_cli.providers.anthropic:AnthropicProvider",
        in_sandbox=True,
    ),
}
"""By the name that configurations, state files and specs have; the first is the sandbox's default."""


def names() -> tuple[str, ...]:
    """Return the names of all vendors."""
    return tuple(VENDORS)


def in_sandbox() -> tuple[str, ...]:
    """Return the names of the vendors whose API the embedded sandbox speaks; the first is its default."""
    return tuple(name for name, vendor in VENDORS.items() if vendor.in_sandbox)


def vendor(name: str) -> Vendor:
    """Return a vendor's row.

    Raises:
        ConfigError: there is no such vendor.
    """
    try:
        return VENDORS[name]
    except KeyError:
        raise ConfigError(
            f"there is no vendor {name!r} here: nura knows {', '.join(VENDORS)}",
            hint="where a newer nura wrote this, use that one",
        ) from None


def dialect(name: str) -> "Dialect":
    """Return a vendor's dialect; raises ConfigError as :func:`vendor` does."""
    return cast("Dialect", resolve_name(vendor(name).dialect)())


def reason(name: str, fault: "Rejection") -> Reason:
    """Return what a fault of a refused batch comes down to: by its vendor's words, else by those of any other.

    A gateway that speaks one vendor's protocol in front of another passes on what that one says.

    Raises:
        ConfigError: there is no such vendor.
    """
    asked = (name, *(other for other in VENDORS if other != name))
    found = (dialect(one).reason(fault) for one in asked)
    return next((known for known in found if known is not Reason.CONTENT), Reason.CONTENT)
