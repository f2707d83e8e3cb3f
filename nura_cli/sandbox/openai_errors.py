"""What OpenAI answers where it refuses: errors in its shape, of a whole exchange and of one request of a batch."""

from typing import Any

from nura_cli.sandbox.exchange import Failure, Request
from nura_cli.sandbox.quotas import Unpaid

MOST_JSON_BYTES = 32_000_000


class Problem(Exception):
    """A request of a batch that is refused, in the vendor's words."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


def error_of(
    status: int, message: str, kind: str | None = None, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """Return the body of an error in the vendor's shape."""
    kinds = {429: "rate_limit_exceeded", 403: "permission_error"}
    kind = kind or kinds.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def failure(
    status: int,
    message: str,
    kind: str | None = None,
    code: str | None = None,
    param: str | None = None,
    headers: dict[str, str] | None = None,
) -> Failure:
    """Return an error in the vendor's shape."""
    return Failure(status, error_of(status, message, kind, code, param), headers=headers)


def unpaid_body(unpaid: Unpaid) -> dict[str, Any]:
    """Return the body of a refusal for want of money."""
    return error_of(unpaid.status, unpaid.words, unpaid.kind, unpaid.code)


def object_of(request: Request) -> dict[str, Any]:
    """Return the JSON object that a request brings, or raise the vendor's 400."""
    try:
        body = request.json(MOST_JSON_BYTES)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise failure(400, "We could not parse the JSON body of your request.")
    return body
