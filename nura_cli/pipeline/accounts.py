"""The configured providers as one run uses them: connected when first needed, closed together."""

import hashlib
import hmac
from pathlib import Path
from types import TracebackType
from typing import Self

from nura_cli import providers
from nura_cli.config import Config, ProviderConfig
from nura_cli.dialects import vendors
from nura_cli.dialects.base import Dialect, Limits
from nura_cli.errors import ConfigError
from nura_cli.pipeline.packing import lowered
from nura_cli.providers.base import Provider
from nura_cli.state.batches import Batch
from nura_cli.state.disk import refuse_link


class Accounts:
    """Connections to providers by their name in the configuration. A context manager: leaving it closes them all."""

    def __init__(self, config: Config, state: Path, state_id: str) -> None:
        self._config = config
        self._state = state
        self._state_id = state_id
        self._open: dict[str, Provider] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for provider in self._open.values():
            provider.close()

    def provider(self, name: str) -> Provider:
        """Return the connection to a provider.

        Raises:
            ConfigError: it is not configured, or its key cannot be read.
            StateError: a link stands where an embedded one keeps its file.
        """
        if name not in self._open:
            for suffix in ("", "-wal", "-shm", ".d"):  # what a provider that is embedded keeps
                refuse_link(self._state.with_name(f"{self._state.name}.{name}.sandbox{suffix}"))
            self._open[name] = providers.connect(name, self._settings(name), self._state)
        return self._open[name]

    def names(self) -> list[str]:
        """Return the names of all configured providers."""
        return list(self._config.providers)

    def dialect(self, name: str) -> Dialect:
        """Return a provider's dialect, without a connection."""
        return vendors.dialect(self._settings(name).dialect)

    def limits(self, name: str) -> Limits:
        """Return the vendor's limits, lowered by the configuration."""
        given = self._settings(name).limits
        return lowered(self.dialect(name).limits, given.requests, given.bytes, given.inputs)

    def address(self, name: str) -> str:
        """Return where a provider's batches are: kind, address and account as configured, without the key."""
        return address(self._settings(name))

    def host(self, name: str) -> str:
        """Return where a provider is: kind and address, whoever asks; one that is embedded is one of its own."""
        config = self._settings(name)
        return f"{config.kind} {config.base_url or (name if config.kind == 'sandbox' else '')}".strip()

    def own(self, name: str) -> bool:
        """Return whether a provider is spoken to at its vendor's own address, without a connection."""
        return providers.at_home(self._settings(name))

    def fingerprint(self, name: str) -> str:
        """Return a keyed hash of a provider's key: tells whether it is the same key, and nothing else about it."""
        secret = self._settings(name).secret().encode()
        return hmac.new(self._state_id.encode(), secret, hashlib.sha256).hexdigest()[:32]

    def adopts(self, name: str) -> bool:
        """Return whether an unconfirmed create may be resolved without a person (``on_unconfirmed: adopt``)."""
        return self._settings(name).on_unconfirmed == "adopt"

    def resends_lost(self, name: str) -> bool:
        """Return whether tasks whose results are lost are sent again without a person (``on_lost: resend``)."""
        return self._settings(name).on_lost == "resend"

    def at(self, address: str) -> list[str]:
        """Return the names of the configured providers at an address."""
        return [name for name in self._config.providers if self.address(name) == address]

    def cleanup_after(self, name: str) -> int | None:
        """Return after how many seconds what the provider keeps of a final batch is deleted; None for never."""
        return self._settings(name).cleanup_after

    def check(self, batch: Batch) -> None:
        """Check that a batch under way is still where the configuration points.

        Raises:
            ConfigError: its provider has left the file, or has another address; the batch is held, alone.
        """
        known = self._config.providers.get(batch.provider)
        gone = f"; if it is gone for good, once the batch's time is over: nura resolve {batch.id} --resend"
        if known is None:
            raise ConfigError(
                f"batch {batch.id}: its provider {batch.provider} is no longer in the configuration",
                hint=f"put it back until the batch is done{gone}",
                provider=batch.provider,
            )
        if address(known) != batch.address:
            raise ConfigError(
                f"batch {batch.id}: was sent to {batch.address}, and {batch.provider} is now {address(known)}",
                hint=f"set it back until the batch is done, or give the new address another provider name{gone}",
                provider=batch.provider,
            )

    def _settings(self, name: str) -> ProviderConfig:
        try:
            return self._config.providers[name]
        except KeyError:
            raise ConfigError(f"provider {name} is not in the configuration", provider=name) from None


def address(config: ProviderConfig) -> str:
    """Return a provider's kind, address and account as one line without secrets."""
    parts = [config.kind if config.kind != "sandbox" else f"sandbox-{config.dialect}"]
    parts += [part for part in (config.base_url, config.organization, config.project) if part]
    return " ".join(parts)
