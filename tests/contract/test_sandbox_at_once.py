"""The sandbox answers single requests as it answers them in batches, through the vendors' own SDKs, and bills them apart."""

import anthropic
import openai
import pytest

from nura_cli.sandbox import Sandbox


def test_openais_sdk_is_answered_at_its_endpoints(server: Sandbox) -> None:
    with openai.OpenAI(api_key="k", base_url=server.openai_base_url, max_retries=0) as client:
        chat = client.chat.completions.create(model="gpt-4.1-mini", messages=[{"role": "user", "content": "hello"}])
        assert "hello" in (chat.choices[0].message.content or "")
        assert "hello" in client.responses.create(model="gpt-4.1-mini", input="hello").output_text
        assert client.embeddings.create(model="text-embedding-3-small", input="hello").data[0].embedding
        billed = server.control.billing()
        assert billed["requests"] == 0
        assert billed["synchronous"]["requests"] == 3
        assert billed["synchronous"]["input_tokens"] > 3
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="no-such-model", messages=[{"role": "user", "content": "x"}])
        with pytest.raises(openai.BadRequestError, match="Streaming"):
            client.chat.completions.create(model="gpt-4.1", messages=[{"role": "user", "content": "x"}], stream=True)
        with pytest.raises(openai.BadRequestError, match="Unrecognized request argument"):
            client.chat.completions.create(
                model="gpt-4.1", messages=[{"role": "user", "content": "x"}], extra_body={"invented": 1}
            )
        assert {entry["route"] for entry in server.control.log()} == {"answer"}
        assert client.completions.create(model="m", prompt="hello").choices
        assert client.moderations.create(model="m", input="hello").results
    assert server.control.billing()["synchronous"]["requests"] == 5


def test_anthropics_sdk_is_answered(server: Sandbox) -> None:
    with anthropic.Anthropic(api_key="k", base_url=server.anthropic_base_url, max_retries=0) as client:
        said = client.messages.create(
            model="claude-haiku-4-5", max_tokens=50, messages=[{"role": "user", "content": "hello"}]
        )
        assert "hello" in said.content[0].text  # type: ignore[union-attr]
        assert server.control.billing()["synchronous"] == {
            "requests": 1,
            "input_tokens": said.usage.input_tokens,
            "output_tokens": said.usage.output_tokens,
            "cost": 0,
        }
        with pytest.raises(anthropic.NotFoundError):
            client.messages.create(model="no-such", max_tokens=5, messages=[{"role": "user", "content": "x"}])
        with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
            client.messages.create(model="claude-haiku-4-5", max_tokens=0, messages=[{"role": "user", "content": "x"}])
        server.arm({"what": "status", "route": "answer", "status": 529})
        with pytest.raises(anthropic.APIStatusError, match="529"):
            client.messages.create(model="claude-haiku-4-5", max_tokens=5, messages=[{"role": "user", "content": "x"}])
