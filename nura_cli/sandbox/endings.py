"""How an answer may end that is none: what each vendor's endpoints say when a model gave null, only thought, or was paused.

``null`` (no text), ``thinking`` (thoughts alone), ``tool`` (a tool call, which is an answer), ``paused`` (not whole, and it
would not be another time), ``unfinished`` (the provider did not end it), ``phases`` (a comment before the final answer).
"""

from typing import Any

MODES = ("null", "thinking", "tool", "paused", "unfinished", "phases")
_THOUGHT = "Let me see."
_COMMENT = "First I look at the text. "


def openai(body: dict[str, Any], mode: str | None) -> dict[str, Any]:
    """Return a response of an OpenAI endpoint that ended so; one without a message is as it was."""
    if mode not in MODES:
        return body
    if "output" in body:
        return {**body, **_response(body, mode)}
    if "choices" not in body:
        return body
    return {**body, "choices": [{**choice, **_choice(choice, mode)} for choice in body["choices"]]}


def _choice(choice: dict[str, Any], mode: str) -> dict[str, Any]:
    message = {**choice.get("message", {}), "content": None}
    if mode == "tool":
        call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        return {"message": {**message, "tool_calls": [call]}, "finish_reason": "tool_calls"}
    if mode in ("paused", "unfinished"):
        return {"finish_reason": "pause_turn" if mode == "paused" else "error"}
    if mode == "phases":
        return {}
    thought = {"reasoning_content": _THOUGHT} if mode == "thinking" else {}
    return {"message": {**message, **thought}, "text": None, "finish_reason": "stop"}


def _response(body: dict[str, Any], mode: str) -> dict[str, Any]:
    if mode == "tool":
        return {"output": [{"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"}]}
    if mode == "paused":
        return {"status": "incomplete", "incomplete_details": None}
    if mode == "unfinished":
        return {"status": "in_progress"}
    if mode == "phases":
        (final,) = body["output"]
        part = {"type": "output_text", "text": _COMMENT, "annotations": []}
        return {"output": [{**final, "phase": "commentary", "content": [part]}, {**final, "phase": "final_answer"}]}
    return {"output": [{"type": "reasoning", "summary": []}] if mode == "thinking" else []}


def anthropic(message: dict[str, Any], mode: str | None) -> dict[str, Any]:
    """Return a message that ended so."""
    changes: dict[str, dict[str, Any]] = {
        "null": {"content": None},
        "thinking": {"content": [{"type": "thinking", "thinking": _THOUGHT, "signature": "s"}]},
        "tool": {
            "content": [{"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}],
            "stop_reason": "tool_use",
        },
        "paused": {"stop_reason": "pause_turn"},
        "unfinished": {"content": [], "stop_reason": None},
    }
    return {**message, **changes.get(mode or "", {})}
