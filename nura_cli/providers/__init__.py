"""Providers by the name of their dialect; each vendor's file, and its SDK, is imported when it is first needed."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from nura_cli.config import ProviderConfig
from nura_cli.providers.base import Dialect, Provider


def dialect(name: str) -> Dialect:
    """Return the dialect ``openai`` or ``anthropic``; never imports an SDK."""
    if name == "openai":
        from nura_cli.providers.openai import OpenAIDialect

        return OpenAIDialect()
    from nura_cli.providers.anthropic import AnthropicDialect

    return AnthropicDialect()


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
        base_url = server.openai_base_url if config.dialect == "openai" else server.anthropic_base_url
        return _client(name, config, base_url, server.stop)
    return _client(name, config, config.base_url, None)


def at_home(config: ProviderConfig) -> bool:
    """Return whether a provider is spoken to at its vendor's own address; the sandbox is its own vendor."""
    if config.kind == "sandbox" or config.base_url is None:
        return True
    if config.kind == "openai":
        from nura_cli.providers.openai import DOMAIN
    else:
        from nura_cli.providers.anthropic import DOMAIN
    host = urlsplit(config.base_url).hostname or ""
    return host == DOMAIN or host.endswith(f".{DOMAIN}")


def _client(name: str, config: ProviderConfig, base_url: str | None, on_close: Callable[[], None] | None) -> Provider:
    own = at_home(config)
    if config.dialect == "openai":
        from nura_cli.providers.openai import OpenAIProvider

        return OpenAIProvider(name, config, base_url, on_close, own=own)
    from nura_cli.providers.anthropic import AnthropicProvider

    return AnthropicProvider(name, config, base_url, on_close, own=own)
