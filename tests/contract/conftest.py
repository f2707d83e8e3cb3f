"""The vendors' own clients, connected to the sandbox of a test."""

from collections.abc import Iterator

import pytest
from anthropic import Anthropic
from openai import OpenAI

from nura_cli.sandbox import Sandbox
from tests.contract.sandbox_clients import anthropic_client, openai_client


@pytest.fixture
def client(server: Sandbox) -> Iterator[OpenAI]:
    """Return OpenAI's client."""
    with openai_client(server) as made:
        yield made


@pytest.fixture
def claude(server: Sandbox) -> Iterator[Anthropic]:
    """Return Anthropic's client."""
    with anthropic_client(server) as made:
        yield made
