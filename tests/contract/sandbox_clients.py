"""What the sandbox's tests share: requests to send, and short ways to send them with the vendors' SDKs."""

import io
import json
from collections.abc import Iterable
from typing import Any, Final

from anthropic import Anthropic
from anthropic.types.messages import MessageBatch
from openai import OpenAI
from openai.types import Batch, FileObject

from nura_cli.sandbox import Sandbox

CHAT: Final = "/v1/chat/completions"
KEY = "sk-test-1"


def openai_client(server: Sandbox, key: str = KEY) -> OpenAI:
    """Return the real client, which retries nothing."""
    return OpenAI(api_key=key, base_url=server.openai_base_url, max_retries=0, timeout=30)


def anthropic_client(server: Sandbox, key: str = KEY) -> Anthropic:
    """Return the real client, which retries nothing."""
    return Anthropic(api_key=key, base_url=server.anthropic_base_url, max_retries=0, timeout=30)


def chat(n: int | str, /, url: str = CHAT, **body: Any) -> dict[str, Any]:
    """Return a line of an OpenAI input file; its prompt names its custom_id."""
    message = {"role": "user", "content": f"Repeat: this is c{n}."}
    return {
        "custom_id": f"c{n}",
        "method": "POST",
        "url": url,
        "body": {"model": "gpt-4.1-mini", "messages": [message], **body},
    }


def chats(n: int) -> list[dict[str, Any]]:
    """Return n lines of an OpenAI input file."""
    return [chat(i) for i in range(n)]


def jsonl(lines: Iterable[dict[str, Any] | bytes]) -> bytes:
    """Return lines as the bytes of a file."""
    return b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)


def upload(client: OpenAI, lines: Iterable[dict[str, Any] | bytes], name: str = "in.jsonl") -> FileObject:
    """Upload an input file."""
    return client.files.create(file=(name, io.BytesIO(jsonl(lines))), purpose="batch")


def send(client: OpenAI, lines: Iterable[dict[str, Any] | bytes], endpoint: Any = CHAT, **options: Any) -> Batch:
    """Upload an input file and create its batch."""
    file = upload(client, lines)
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **options)


def run(client: OpenAI, lines: Iterable[dict[str, Any] | bytes], endpoint: Any = CHAT, **options: Any) -> Batch:
    """Send a batch and ask after it once."""
    return client.batches.retrieve(send(client, lines, endpoint, **options).id)


def rows(client: OpenAI, file_id: str | None) -> dict[str, dict[str, Any]]:
    """Return the lines of an output or error file by custom_id."""
    assert file_id
    lines = client.files.content(file_id).read().split(b"\n")
    assert lines.pop() == b""
    return {row["custom_id"]: row for row in map(json.loads, lines)}


def ask(n: int | str, /, **params: Any) -> dict[str, Any]:
    """Return a request of an Anthropic batch; its prompt names its custom_id."""
    messages = [{"role": "user", "content": f"Repeat: this is a{n}."}]
    return {
        "custom_id": f"a{n}",
        "params": {"model": "claude-haiku-4-5", "max_tokens": 300, "messages": messages, **params},
    }


def asks(n: int) -> list[Any]:
    """Return n requests of an Anthropic batch."""
    return [ask(i) for i in range(n)]


def finish(client: Anthropic, requests: Any) -> MessageBatch:
    """Create a batch and ask after it once."""
    return client.messages.batches.retrieve(client.messages.batches.create(requests=requests).id)


def results(client: Anthropic, batch_id: str) -> dict[str, Any]:
    """Return the results of a batch by custom_id, as the SDK parses them."""
    return {one.custom_id: one.result for one in client.messages.batches.results(batch_id)}


def post_raw(client: Anthropic, body: bytes) -> MessageBatch:
    """Create a batch from the bytes of a body."""
    headers = {"Content-Type": "application/json"}
    return client.post("/v1/messages/batches", content=body, cast_to=MessageBatch, options={"headers": headers})
