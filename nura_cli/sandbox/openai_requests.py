"""What OpenAI's endpoints make of one request of a batch: their validation of it, and an answer in their shape."""

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from nura_cli.sandbox import answers, endings, openai_tools, strict
from nura_cli.sandbox.answers import Spoken, speak
from nura_cli.sandbox.openai_errors import Problem
from nura_cli.sandbox.openai_tools import Forced


def names(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


CHAT = names(
    "audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens messages metadata"
    " modalities model moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key prompt_cache_options"
    " prompt_cache_retention reasoning_effort response_format safety_identifier seed service_tier stop store stream"
    " stream_options temperature tool_choice tools top_logprobs top_p user verbosity web_search_options"
)
RESPONSES = names(
    "access_programs background background_options context_management conversation image include input instructions"
    " max_output_tokens max_tool_calls metadata model moderation parallel_tool_calls previous_response_id prompt"
    " prompt_cache_key prompt_cache_options prompt_cache_retention reasoning safety_identifier service_tier store stream"
    " stream_options temperature text tool_choice tools top_logprobs top_p truncation user"
)
COUNTED = names(
    "conversation input instructions model parallel_tool_calls personality previous_response_id reasoning text tool_choice"
    " tools truncation"
)
EMBEDDINGS = names("dimensions encoding_format input model user")
COMPLETIONS = names(
    "best_of echo frequency_penalty logit_bias logprobs max_tokens model n presence_penalty prompt seed stop stream"
    " stream_options suffix temperature top_p user"
)
MODERATIONS = frozenset({"input", "model"})
MOST_INPUTS_EACH = 2048
ODD = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError)
"""What comes of a request whose parts are of types nobody thought of, or of a schema that is none: it is refused alone."""
_DEEPEST = 64
_MOST_TOKENS = 10**6
_MOST_CHOICES = 128
_ROLES = ("developer", "system", "user", "assistant", "tool", "function")
_CATEGORIES = sorted(
    names(
        "harassment harassment/threatening hate hate/threatening illicit illicit/violent self-harm self-harm/instructions"
        " self-harm/intent sexual sexual/minors violence violence/graphic"
    )
)
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class Response(NamedTuple):
    """A response's body, and the tokens billed for it (input, output)."""

    body: dict[str, Any]
    usage: tuple[int, int]


def text_of(content: Any, depth: int = 0) -> str:
    """Return the text of a message's content: a string, a part, a message, or a list of these; none from far inside."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and depth < _DEEPEST:
        return "".join([text_of(part, depth + 1) for part in content])
    if isinstance(content, dict) and depth < _DEEPEST:
        return text_of(content.get("text", content.get("content")), depth + 1)
    return ""


def respond(endpoint: str, body: dict[str, Any], created: int, mode: str | None = None) -> Response:
    """Return an endpoint's answer to a request.

    Args:
        created: unix seconds.
        mode: how a fault wants the answer wrong (:func:`nura_cli.sandbox.answers.speak`).

    Raises:
        Problem: the endpoint refuses the request.
    """
    known, answer = _ENDPOINTS.get(endpoint, (None, _other))
    for name in body if known is not None else ():
        if name not in (known or ()):
            raise Problem(f"Unrecognized request argument supplied: {name}", name)
    if body.get("stream"):
        raise Problem("Streaming is not supported in the Batch API.", "stream")
    try:
        ident = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:24]
        found: Response = answer(body, ident, created, mode)
    except ODD as error:
        raise Problem(f"We could not process this request ({error}).") from error
    return found._replace(body=endings.openai(found.body, mode))


def _number(body: dict[str, Any], name: str, low: float, high: float, *, whole: bool = False) -> None:
    value = body.get(name)
    if value is None:
        return
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        wanted = "an integer" if whole else "a decimal"
        raise Problem(
            f"Invalid type for '{name}': expected {wanted}, but got {json.dumps(value)[:40]}.", name, "invalid_type"
        )
    if not low <= value <= high:
        which, bound = ("below minimum", low) if value < low else ("above maximum", high)
        code = f"integer_{which.replace(' ', '_')}_value" if whole else f"decimal_{which.replace(' ', '_')}_value"
        raise Problem(f"Invalid '{name}': {which} value. Expected a value of {bound}, but got {value}.", name, code)


def _required(body: dict[str, Any], name: str) -> Any:
    if body.get(name) in (None, "", []):
        raise Problem(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")
    return body[name]


def _sampling(body: dict[str, Any]) -> None:
    _number(body, "temperature", 0, 2)
    _number(body, "top_p", 0, 1)
    _number(body, "n", 1, _MOST_CHOICES, whole=True)


def _messages(messages: Any) -> list[dict[str, Any]]:
    if not isinstance(messages, list):
        raise Problem("Invalid type for 'messages': expected an array of objects.", "messages", "invalid_type")
    for n, message in enumerate(messages):
        if not isinstance(message, dict):
            raise Problem(f"Invalid type for 'messages[{n}]': expected an object.", f"messages[{n}]", "invalid_type")
        if message.get("role") not in _ROLES:
            place = f"messages[{n}].role"
            raise Problem(
                f"Invalid value: '{message.get('role')}'. Supported values are: {', '.join(_ROLES)}.",
                place,
                "invalid_value",
            )
        if not isinstance(message.get("content"), str | list) and message["role"] != "assistant":
            place = f"messages[{n}].content"
            raise Problem(f"Invalid type for '{place}': expected a string or an array of parts.", place, "invalid_type")
    return messages


def _schema(form: Any, inner: Any, place: str, messages: Any) -> Any:
    """Return the JSON schema that a response format asks for, or None."""
    if form is None:
        return None
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "json_object":
        if "json" not in json.dumps(messages).lower():
            raise Problem(f"The messages must contain the word 'json' to use '{place}' of type 'json_object'.", place)
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    if kind == "text":
        return None
    if kind != "json_schema" or not isinstance(inner, dict):
        raise Problem(f"Invalid value for '{place}'. Supported types are: text, json_object, json_schema.", place)
    if not isinstance(inner.get("name"), str) or not _NAME.fullmatch(inner["name"]):
        raise Problem(f"Invalid '{place}.name': expected letters, digits, - and _, at most 64.", f"{place}.name")
    schema = inner.get("schema")
    if not isinstance(schema, dict):
        raise Problem(f"Missing required parameter: '{place}.schema'.", f"{place}.schema", "missing_required_parameter")
    problem = strict.openai(schema) if inner.get("strict") else None
    if problem:
        raise Problem(f"Invalid schema for {place} '{inner['name']}': {problem}", place)
    return schema


def _chat(body: dict[str, Any], ident: str, created: int, mode: str | None) -> Response:
    messages = _messages(_required(body, "messages"))
    if "max_tokens" in body and "max_completion_tokens" in body:
        raise Problem(
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.", "max_tokens"
        )
    for name in ("max_tokens", "max_completion_tokens"):
        _number(body, name, 1, _MOST_TOKENS, whole=True)
    _sampling(body)
    form = body.get("response_format")
    inner = form.get("json_schema") if isinstance(form, dict) else None
    schema = _schema(form, inner, "response_format", messages)
    forced = openai_tools.of_chat(body)
    most = body.get("max_completion_tokens", body.get("max_tokens"))
    said = speak(text_of(messages[-1].get("content")), forced.schema if forced else schema, most, mode)
    choices = [_choice(n, said, forced, f"{ident}{n}") for n in range(body.get("n") or 1)]
    usage = (_count_chat(body), said.tokens * len(choices))
    shown = {
        "id": f"chatcmpl-{ident}",
        "object": "chat.completion",
        "created": created,
        "model": body.get("model"),
        "choices": choices,
        "usage": _usage(usage),
        "service_tier": "default",
        "system_fingerprint": None,
    }
    return Response(shown, usage)


def _count_chat(body: dict[str, Any]) -> int:
    """Return how many input tokens a chat request has: its messages, its tools, and the schema of its answer."""
    texts = [text_of(one.get("content")) for one in body["messages"]]
    inner = (body.get("response_format") or {}).get("json_schema") or {}
    asked = [answers.written(part) for part in (inner.get("schema"), body.get("tools"), body.get("functions"))]
    return answers.tokens("".join((*texts, *asked))) + answers.MESSAGE_TOKENS * len(texts)


def _choice(n: int, said: Spoken, forced: Forced | None, ident: str) -> dict[str, Any]:
    """Return a choice of a chat completion: words, a refusal, or the call of the tool that is forced."""
    refused = said.reason == "refusal"
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if refused or forced else said.text,
        "refusal": said.text if refused else None,
        "annotations": [],
    }
    reason = "stop" if refused else said.reason
    if forced and not refused:
        call = forced.call(said.text, ident)
        message |= {"function_call": call} if forced.kind == "function_call" else {"tool_calls": [call]}
        # A tool that is named ends with stop, one that is required with tool_calls: 500 of 500 each, in
        # community.openai.com/t/function-call-with-finish-reason-of-stop/437226/45.
        reason = "tool_calls" if reason == "stop" and not forced.named else reason
    return {"index": n, "message": message, "logprobs": None, "finish_reason": reason}


def _usage(used: tuple[int, int]) -> dict[str, Any]:
    return {
        "prompt_tokens": used[0],
        "completion_tokens": used[1],
        "total_tokens": sum(used),
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _responses(body: dict[str, Any], ident: str, created: int, mode: str | None) -> Response:
    given = _required(body, "input")
    if not isinstance(given, str | list):
        raise Problem("Invalid type for 'input': expected a string or an array of items.", "input", "invalid_type")
    _number(body, "max_output_tokens", 16, _MOST_TOKENS, whole=True)
    _sampling(body)
    text = body.get("text") or {}
    form = text.get("format") if isinstance(text, dict) else None
    schema = _schema(form, form, "text.format", given)
    forced = openai_tools.of_response(body)
    last = given if isinstance(given, str) else given[-1:]
    said = speak(text_of(last), forced.schema if forced else schema, body.get("max_output_tokens"), mode)
    usage = (count(body), said.tokens)
    status = "incomplete" if said.reason == "length" else "completed"
    shown = {
        "id": f"resp_{ident}",
        "object": "response",
        "created_at": created,
        "status": status,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "error": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "metadata": body.get("metadata") or {},
        "model": body.get("model"),
        "output": [_item(said, forced, ident, status)],
        "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
        "temperature": body.get("temperature", 1.0),
        "text": {"format": form or {"type": "text"}},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "top_p": body.get("top_p", 1.0),
        "usage": {
            "input_tokens": usage[0],
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": usage[1],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": sum(usage),
        },
    }
    return Response(shown, usage)


def count(body: dict[str, Any]) -> int:
    """Return how many input tokens a Responses request has; a batch is billed as many."""
    given, form = body.get("input"), (body.get("text") or {}).get("format") or {}
    asked = answers.written(form.get("schema")) + answers.written(body.get("tools"))
    messages = bool(body.get("instructions")) + (len(given) if isinstance(given, list) else bool(given))
    said = text_of(body.get("instructions")) + text_of(given)
    return answers.tokens(said + asked) + answers.MESSAGE_TOKENS * messages


def counted(body: dict[str, Any]) -> int:
    """Return how many input tokens a request that only asks for their number has. Raises Problem as :func:`respond` does."""
    for name in body:
        if name not in COUNTED:
            raise Problem(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
    if not isinstance(body.get("input"), str | list | None):
        raise Problem("Invalid type for 'input': expected a string or an array of items.", "input", "invalid_type")
    try:
        openai_tools.of_response(body)
        return count(body)
    except ODD as error:
        raise Problem(f"We could not process this request ({error}).") from error


def _item(said: Spoken, forced: Forced | None, ident: str, status: str) -> dict[str, Any]:
    """Return the one item of a response's output: a message, or the call of the tool that is forced."""
    if forced and said.reason != "refusal":
        return forced.item(said.text, ident, status)
    part: dict[str, Any] = {"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}
    if said.reason == "refusal":
        part = {"type": "refusal", "refusal": said.text}
    return {"id": f"msg_{ident}", "type": "message", "role": "assistant", "status": status, "content": [part]}


def inputs_of(body: dict[str, Any]) -> int:
    """Return how many embedding inputs a request has: its strings, or its arrays of tokens."""
    given = body.get("input")
    tokens = isinstance(given, list) and all(isinstance(item, int) for item in given)
    return len(given) if isinstance(given, list) and not tokens else 1


def _embeddings(body: dict[str, Any], ident: str, created: int, mode: str | None) -> Response:
    given = _required(body, "input")
    if not isinstance(given, str | list) or inputs_of(body) > MOST_INPUTS_EACH:
        raise Problem(f"'$.input' is invalid: a string, or at most {MOST_INPUTS_EACH} of them.", "input")
    _number(body, "dimensions", 1, 4096, whole=True)
    texts = _texts(body)
    size = body.get("dimensions") or 8
    data = [{"object": "embedding", "index": n, "embedding": _vector(text, size)} for n, text in enumerate(texts)]
    used = _count_inputs(body)
    usage = {"prompt_tokens": used, "total_tokens": used}
    return Response({"object": "list", "data": data, "model": body.get("model"), "usage": usage}, (used, 0))


def _texts(body: dict[str, Any]) -> list[Any]:
    """Return the embedding inputs of a request: each a string, or an array of tokens."""
    given = body["input"]
    many = isinstance(given, list) and inputs_of(body) == len(given) and isinstance(given[0], str | list)
    return list(given) if many else [given]


def _count_inputs(body: dict[str, Any]) -> int:
    return sum(len(text) if isinstance(text, list) else answers.tokens(text) for text in _texts(body))


def _vector(text: Any, size: int) -> list[float]:
    """Return a vector of length 1 that depends on the text alone."""
    seed = json.dumps(text).encode()
    digest = b"".join(hashlib.sha256(seed + bytes([n % 256])).digest() for n in range(size // 32 + 1))
    numbers = [byte - 127.5 for byte in digest[:size]]
    length = sum(number * number for number in numbers) ** 0.5
    return [round(number / length, 6) for number in numbers]


def _completions(body: dict[str, Any], ident: str, created: int, mode: str | None) -> Response:
    prompt = text_of(_required(body, "prompt"))
    _number(body, "max_tokens", 1, _MOST_TOKENS, whole=True)
    _sampling(body)
    said = speak(prompt, None, body.get("max_tokens", 16), mode)
    usage = (_count_prompt(body), said.tokens)
    choice = {
        "index": 0,
        "text": said.text,
        "finish_reason": "length" if said.reason == "length" else "stop",
        "logprobs": None,
    }
    shown = {"id": f"cmpl-{ident}", "object": "text_completion", "created": created, "model": body.get("model")}
    return Response({**shown, "choices": [choice], "usage": _usage(usage)}, usage)


def _count_prompt(body: dict[str, Any]) -> int:
    return answers.tokens(text_of(body["prompt"]))


def _moderations(body: dict[str, Any], ident: str, created: int, mode: str | None) -> Response:
    given = _required(body, "input")
    one = {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": dict.fromkeys(_CATEGORIES, 0.0),
        "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
    }
    texts = given if isinstance(given, list) else [given]
    model = body.get("model") or "omni-moderation-latest"
    return Response({"id": f"modr-{ident}", "model": model, "results": [one for _ in texts]}, (0, 0))


def _other(body: dict[str, Any], ident: str, created: int, mode: str | None) -> Response:
    raise Problem("The sandbox answers no requests of this endpoint.")


_COUNTS: dict[str, Callable[[dict[str, Any]], int]] = {
    "/v1/chat/completions": _count_chat,
    "/v1/responses": count,
    "/v1/embeddings": _count_inputs,
    "/v1/completions": _count_prompt,
}
_MAXIMA = ("max_completion_tokens", "max_tokens", "max_output_tokens")


def enqueued(endpoint: str, body: dict[str, Any], *, output: bool) -> int:
    """Return how many tokens a request has while it waits: those of its input, as it is billed; none where it makes no sense.

    Args:
        output: count what is reserved for its answers, too: their maximum, where it names one.
    """
    try:
        counts = _COUNTS.get(endpoint)
        return (counts(body) if counts else 0) + (_reserved(body) if output else 0)
    except ODD:
        return 0


def _reserved(body: dict[str, Any]) -> int:
    """Return how many tokens the answers to a request may have: none where it does not say."""
    most = next((int(body[name]) for name in _MAXIMA if body.get(name)), 0)
    return min(most, _MOST_TOKENS) * min(int(body.get("n") or 1), _MOST_CHOICES)


_ENDPOINTS: dict[str, tuple[frozenset[str], Callable[..., Response]]] = {
    "/v1/chat/completions": (CHAT, _chat),
    "/v1/responses": (RESPONSES, _responses),
    "/v1/embeddings": (EMBEDDINGS, _embeddings),
    "/v1/completions": (COMPLETIONS, _completions),
    "/v1/moderations": (MODERATIONS, _moderations),
}
