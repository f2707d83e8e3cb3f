"""Connections to providers; each vendor's file, and its SDK, is imported when it is first needed."""

from collections.abc import Collection
from pathlib import Path
from pkgutil import resolve_name
from typing import cast
from urllib.parse import urlsplit

from nura_cli.config import ProviderConfig
from nura_cli.dialects import vendors
from nura_cli.providers.base import Account, Provider


def connect(name: str, config: ProviderConfig, state: Path) -> Provider:
    """Return a connection to a configured provider.

    The sandbox is served by this very process, on a free port of the loopback, over ``<state>.<name>.sandbox``: runs of
    cron find the batches of the run before. From there on it is spoken to like any other, at an address of its own.

    Raises:
        ConfigError: its key cannot be read.
    """
    if config.kind == "sandbox":
        from nura_cli.sandbox import Sandbox

        server = Sandbox(state.with_name(f"{state.name}.{name}.sandbox"))
        server.start()
        return _opened(Account(name, config, server.base_url(config.dialect), True, server.stop))
    address = config.base_url or vendors.dialect(config.dialect).base_url
    return _opened(Account(name, config, address, at_home(config)))


def at_home(config: ProviderConfig) -> bool:
    """Return whether a provider is spoken to at its vendor's own address; the sandbox is its own vendor."""
    if config.kind == "sandbox" or config.base_url is None:
        return True
    domain = vendors.dialect(config.dialect).domain
    host = urlsplit(config.base_url).hostname or ""
    return host == domain or host.endswith(f".{domain}")


def known_options(vendor: str, endpoint: str) -> Collection[str]:
    """Return the request options that a vendor's installed SDK knows at an endpoint; none where it does not know that."""
    return cast(type[Provider], resolve_name(vendors.vendor(vendor).connection)).options(endpoint)


def _opened(account: Account) -> Provider:
    connection = resolve_name(vendors.vendor(account.config.dialect).connection)
    return cast(Provider, connection(account))
