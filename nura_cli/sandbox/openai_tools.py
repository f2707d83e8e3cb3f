"""The tools of OpenAI's requests: which one a request forces the model to call, and the call in the shape of each endpoint.

Only a forced tool is called (``tool_choice`` names one, or is ``required``): left to itself, the model answers in words.
"""

import json
from typing import Any, NamedTuple

from nura_cli.sandbox import strict
from nura_cli.sandbox.openai_errors import Problem

_MODES = ("none", "auto", "required")
_CALLED = ("function", "custom")
"""The kinds of tools whose calls are the client's to answer; any other is the vendor's own."""


class Forced(NamedTuple):
    """The tool that must be called.

    Attributes:
        kind: ``function`` or ``custom``; ``function_call`` for one of the older ``functions``.
        schema: what its arguments must fit; None for one that takes plain text.
        named: the request names it, and does not only require that one is called.
    """

    name: str
    kind: str
    schema: dict[str, Any] | None
    named: bool

    def call(self, said: str, ident: str) -> dict[str, Any]:
        """Return the call as a chat message has it."""
        words = {"name": self.name, "input" if self.kind == "custom" else "arguments": said}
        return words if self.kind == "function_call" else {"id": f"call_{ident}", "type": self.kind, self.kind: words}

    def item(self, said: str, ident: str, status: str) -> dict[str, Any]:
        """Return the call as an item of a response's output."""
        base = {"call_id": f"call_{ident}", "name": self.name, "status": status}
        if self.kind == "custom":
            return {**base, "id": f"ctc_{ident}", "type": "custom_tool_call", "input": said}
        return {**base, "id": f"fc_{ident}", "type": "function_call", "arguments": said}


def arguments(schema: object) -> dict[str, Any]:
    """Return the schema of a tool's arguments, which are always an object."""
    return {"type": "object", **schema} if isinstance(schema, dict) else {"type": "object", "properties": {}}


def of_chat(body: dict[str, Any]) -> Forced | None:
    """Return the tool that a chat request forces, or None. Raises Problem for tools, or a choice, that make no sense."""
    older = _older(body)
    return older or _forced(body, [_of_chat(tool, n) for n, tool in enumerate(_list(body, "tools"))])


def of_response(body: dict[str, Any]) -> Forced | None:
    """Return the tool that a Responses request forces, or None. Raises Problem as :func:`of_chat` does."""
    return _forced(body, [one for n, tool in enumerate(_list(body, "tools")) for one in _of_response(tool, n)])


class _Tool(NamedTuple):
    """A tool that a request offers; its name is empty where it is one of the vendor's own."""

    name: str
    kind: str
    schema: dict[str, Any] | None


def _list(body: dict[str, Any], name: str) -> list[Any]:
    given = body.get(name) or []
    if not isinstance(given, list):
        raise Problem(f"Invalid type for '{name}': expected an array of objects.", name, "invalid_type")
    return given


def _of_chat(tool: Any, n: int) -> _Tool:
    kind = tool.get("type") if isinstance(tool, dict) else None
    if kind not in _CALLED:
        place = f"tools[{n}].type"
        raise Problem(
            f"Invalid value: '{kind}'. Supported values are: 'function' and 'custom'.", place, "invalid_value"
        )
    return _named(kind, tool.get(kind), f"tools[{n}].{kind}")


def _of_response(tool: Any, n: int) -> list[_Tool]:
    """Return a tool, or those of a namespace."""
    kind = tool.get("type") if isinstance(tool, dict) else None
    if not isinstance(kind, str):
        raise Problem(f"Missing required parameter: 'tools[{n}].type'.", f"tools[{n}]", "missing_required_parameter")
    if kind == "namespace":
        return [one for m, inner in enumerate(_list(tool, "tools")) for one in _of_response(inner, m)]
    return [_named(kind, tool, f"tools[{n}]") if kind in _CALLED else _Tool("", kind, None)]


def _named(kind: str, tool: Any, place: str) -> _Tool:
    """Return a tool that the client answers, checked as the vendor does."""
    name = tool.get("name") if isinstance(tool, dict) else None
    if not isinstance(name, str) or not name:
        raise Problem(f"Missing required parameter: '{place}.name'.", f"{place}.name", "missing_required_parameter")
    if kind == "custom":
        return _Tool(name, kind, None)
    schema = tool.get("parameters")
    problem = strict.openai(arguments(schema)) if tool.get("strict") is True else None
    if problem:
        place = f"{place}.parameters"
        raise Problem(f"Invalid schema for function '{name}': {problem}", place, "invalid_function_parameters")
    return _Tool(name, kind, arguments(schema))


def _older(body: dict[str, Any]) -> Forced | None:
    """Return the function that ``function_call`` names, or None."""
    known = [_named("function", one, f"functions[{n}]") for n, one in enumerate(_list(body, "functions"))]
    choice = body.get("function_call")
    if not isinstance(choice, dict):
        return None
    found = next((one for one in known if one.name == choice.get("name")), None)
    if found is None:
        raise Problem("Invalid value for 'function_call': no function named so was specified.", "function_call")
    return Forced(found.name, "function_call", found.schema, named=True)


def _forced(body: dict[str, Any], tools: list[_Tool]) -> Forced | None:
    choice = body.get("tool_choice")
    if choice in (None, "none", "auto"):
        return None
    if not tools:
        raise Problem("'tool_choice' is only allowed when 'tools' are specified.", "tool_choice")
    if choice == "required":
        return _first(tools)
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "allowed_tools":
        return _first(_allowed(choice, tools))
    if not isinstance(kind, str):
        words = f"Invalid value: '{json.dumps(choice)[:64]}'. Supported values are: {', '.join(map(repr, _MODES))}."
        raise Problem(words, "tool_choice", "invalid_value")
    if kind not in _CALLED:
        return None
    name = _name(choice)
    found = next((tool for tool in tools if (tool.name, tool.kind) == (name, kind)), None)
    if found is None:
        raise Problem(f"Tool choice '{name}' not found in 'tools' parameter.", "tool_choice")
    return Forced(*found, named=True)


def _name(choice: dict[str, Any]) -> Any:
    """Return the name in a choice of either endpoint's shape."""
    inner = choice.get(choice["type"])
    return inner.get("name") if isinstance(inner, dict) else choice.get("name")


def _allowed(choice: dict[str, Any], tools: list[_Tool]) -> list[_Tool]:
    """Return the tools of which one must be called: none where the model may also answer in words."""
    inner = choice.get("allowed_tools", choice)
    given = inner.get("tools") if isinstance(inner, dict) else None
    if not isinstance(given, list):
        raise Problem("Missing required parameter: 'tool_choice.tools'.", "tool_choice", "missing_required_parameter")
    names = [_name(one) for one in given if isinstance(one, dict) and isinstance(one.get("type"), str)]
    return [tool for tool in tools if tool.name in names] if inner.get("mode") == "required" else []


def _first(tools: list[_Tool]) -> Forced | None:
    """Return the first tool that is the client's to answer; the vendor's own are not called."""
    found = next((tool for tool in tools if tool.kind in _CALLED), None)
    return found and Forced(*found, named=False)
