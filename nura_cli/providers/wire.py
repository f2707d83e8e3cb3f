"""What both vendors' SDKs need alike: a client that obeys the configuration alone, and their failures put into words.

Neither SDK retries here: a create must be sent exactly once, and for the rest the next run of cron is the retry. No
redirect is followed, and no connection is kept for a later request: one that the server has closed in the meantime would
make a create doubtful for nothing.
"""

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import msgspec

from nura_cli import logs
from nura_cli.dialects.base import Page, RemoteBatch
from nura_cli.dialects.reading import http_date, line, text
from nura_cli.errors import KeyRefused, NotFound, RateLimited, Refused, StateError, Unconfirmed, Unreachable
from nura_cli.providers.base import Download

READ_SECONDS = 60.0
CONNECT_SECONDS = 10.0
SEND_SECONDS = 900.0
"""How long sending a request file of 256 MB, or waiting for the answer to it, may take."""
_CHUNK_BYTES = 1 << 17
_SPARE_BYTES = 16 * 1024 * 1024
_NO_LIST = object()


@contextmanager
def without_environment(*prefixes: str) -> Iterator[None]:
    """Hide variables with these prefixes while a client is made: the SDKs would take accounts and addresses from them."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(prefixes)}
    try:
        yield
    finally:
        os.environ.update(hidden)


def http_client(base_url: str) -> Any:
    """Return an HTTP client for an SDK: no redirects, no connection kept, bodies not compressed, bounded waits."""
    import httpx2

    def sent(request: Any) -> None:
        request.extensions["nura_began"] = time.monotonic()

    def answered(response: Any) -> None:
        request = response.request
        took = (time.monotonic() - request.extensions.get("nura_began", time.monotonic())) * 1000
        ident = response.headers.get("x-request-id") or response.headers.get("request-id") or "none"
        path, status = line(request.url.path), response.status_code
        logs.exchanged("%s %s: HTTP %s in %.0f ms, request id %s", request.method, path, status, took, line(ident))

    return httpx2.Client(
        base_url=base_url,
        follow_redirects=False,
        limits=httpx2.Limits(max_keepalive_connections=0),
        timeout=httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
        headers={"Accept-Encoding": "identity"},
        event_hooks={"request": [sent], "response": [answered]},
    )


class Listing(NamedTuple):
    """A list as it came: its objects, whether it says that there is more, and whether all of it could be read.

    Attributes:
        more: None where it does not say.
        sound: False where it is null, or has members that are no objects.
    """

    rows: list[dict[str, Any]]
    more: bool | None
    sound: bool


class Caller:
    """Calls one provider's SDK and turns what goes wrong into nura's errors."""

    def __init__(self, name: str) -> None:
        self._name = name

    def read(self, what: str, call: Callable[[], Any]) -> Any:
        """Return what ``call`` returns; it may be repeated, so no outcome of it is doubtful."""
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - the SDKs have no common base; what is not theirs is raised again
            self._raise(what, error, effect=False)

    def create(self, what: str, call: Callable[[], Any]) -> Any:
        """Return what ``call`` returns; when it is not certain that nothing happened, raise ``Unconfirmed``."""
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - as above
            self._raise(what, error, effect=True)

    def document(self, what: str, response: Any, *, effect: bool = False) -> dict[str, Any]:
        """Return the JSON object of a raw response. HTML with a 200, or anything else, is no answer."""
        document = self._json(response)
        if not isinstance(document, dict):
            kind = Unconfirmed if effect else Unreachable
            raise kind(
                f"{self._name}: {what}: the answer is not JSON (HTTP {response.http_response.status_code})",
                http_status=response.http_response.status_code,
                provider=self._name,
            )
        return document

    def listing(self, what: str, response: Any) -> Listing:
        """Return the rows of a raw response that is a list: an object with ``data``, or a bare array (Together).

        Raises:
            Unreachable: it is neither, or none of its rows can be a batch: that is no empty list.
        """
        document = self._json(response)
        found, more = document, None
        if isinstance(document, dict):
            found, more = document.get("data", _NO_LIST), document.get("has_more")
        rows = [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
        ids = sum(text(row.get("id")) is not None for row in rows)
        if not isinstance(found, list | None) or (found and not ids) or document is None:
            named = f"; it has {', '.join(sorted(map(str, document)))}" if isinstance(document, dict) else ""
            raise Unreachable(
                line(f"{self._name}: {what}: the answer is no list as this vendor gives it{named}"),
                http_status=response.http_response.status_code,
                hint="check base_url; a list that cannot be read is never taken for an empty one",
                provider=self._name,
            )
        says = None if more is None else more is True
        return Listing(rows, says, isinstance(found, list) and len(rows) == len(found))

    @staticmethod
    def _json(response: Any) -> Any:
        """Return the JSON of a raw response; None where it is none."""
        try:
            return msgspec.json.decode(response.http_response.content)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None

    def asked_for(self, what: str, remote_id: str, remote: RemoteBatch | None) -> RemoteBatch:
        """Return the batch that an answer is about, once it is the one that was asked for; anything else is no answer."""
        if remote is None or remote.id != remote_id:
            named = "no" if remote is None else "another"
            text = f"{self._name}: {what}: the answer names {named} batch"
            raise Unreachable(text, http_status=200, provider=self._name)
        return remote

    def _raise(self, what: str, error: Exception, *, effect: bool) -> NoReturn:
        import httpx2

        status = getattr(error, "status_code", None)
        if isinstance(status, int):
            raise self._from_status(what, error, status, effect) from None
        wrapped = error.__cause__
        from_sdk = type(error).__name__ in ("APIConnectionError", "APITimeoutError")
        # An SDK's own words hide what happened: a file that could not be read is a "Connection error" too.
        cause = wrapped if isinstance(wrapped, httpx2.TransportError) or (from_sdk and wrapped) else error
        if not from_sdk and not isinstance(cause, httpx2.TransportError):
            raise error
        never_left = isinstance(
            cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout | httpx2.ProxyError
        )
        words = line(f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__)
        logs.exchanged("%s: %s: no answer: %s", self._name, what, words)
        if effect and not never_left:
            raise Unconfirmed(
                f"{self._name}: {what}: sent, and no answer came ({words})",
                hint="nothing is sent again before the provider has said what became of it",
                provider=self._name,
            ) from None
        raise Unreachable(f"{self._name}: {what}: {words}", provider=self._name) from None

    def _from_status(self, what: str, error: Any, status: int, effect: bool) -> Exception:
        """Return the error for an HTTP status: certain for what is certain, doubtful for the rest."""
        code, words = _vendor_words(getattr(error, "body", None))
        detail = line(words) or "no reason given"
        text = f"{self._name}: {what}: HTTP {status}: {detail}"
        fields: dict[str, Any] = {"http_status": status, "code": code, "provider": self._name}
        if status in (401, 403):
            return KeyRefused(text, hint="check the key, and what it is allowed to do", provider=self._name)
        if status == 429:
            return RateLimited(text, retry_after=_retry_after(error.response.headers), **fields)
        if status == 404:
            return NotFound(text, **fields)
        if status in (400, 413, 422):
            return Refused(text, **fields)
        if effect:
            hint = "nothing is sent again before the provider has said what became of it"
            return Unconfirmed(text, hint=hint, **fields)
        return Unreachable(text, retry_after=_retry_after(error.response.headers), **fields)

    def stream(self, what: str, opened: Callable[[], Any], target: Path) -> Download:
        """Write a streamed body to ``target`` (0600); hash and count it on the way.

        Raises:
            StateError: there is less room on the disk than was announced; nothing was written.
            Unreachable: the body was cut.
            NotFound, KeyRefused, RateLimited: as for any read.
        """

        def run() -> Download:
            with opened() as response:
                announced = _announced(response.headers)
                _check_room(target, announced)
                sha, size = hashlib.sha256(), 0
                fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
                with open(fd, "wb", buffering=0) as file:
                    for chunk in response.iter_bytes(_CHUNK_BYTES):
                        sha.update(chunk)
                        size += len(chunk)
                        left = memoryview(chunk)
                        while left:
                            left = left[file.write(left) or 0 :]
                return Download(size, announced, sha.hexdigest())

        done: Download = self.read(what, run)
        return done

    def head(self, what: str, opened: Callable[[], Any], size: int) -> bytes:
        """Return at most the first ``size`` bytes of a streamed body."""

        def run() -> bytes:
            got = b""
            with opened() as response:
                for chunk in response.iter_bytes(min(size, _CHUNK_BYTES)):
                    got += chunk
                    if len(got) >= size:
                        break
            return got[:size]

        first: bytes = self.read(what, run)
        return first


def _announced(headers: Any) -> int | None:
    length = headers.get("content-length", "")
    encoded = headers.get("content-encoding", "identity") != "identity"
    return int(length) if length.isascii() and length.isdigit() and not encoded else None


def _check_room(target: Path, announced: int | None) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < (announced or 0) + _SPARE_BYTES:
        need = ((announced or 0) + _SPARE_BYTES) // 10**6
        raise StateError(
            f"{target.parent}: {free // 10**6} MB are free, and a download needs {need} MB",
            hint="free some room; the next poll fetches it",
        )


def _vendor_words(body: Any) -> tuple[str | None, str]:
    """Return (code, message) of a vendor's error body, whatever its shape."""
    if isinstance(body, str):
        return None, re.sub(r"<[^>]*>", " ", body)
    if not isinstance(body, dict):
        return None, ""
    error = body.get("error", body)
    if isinstance(error, str):
        return None, error
    if not isinstance(error, dict):
        return None, ""
    code = error.get("code") or error.get("type")
    message = error.get("message")
    return (line(code) if isinstance(code, str) else None), (message if isinstance(message, str) else "")


def _retry_after(headers: Any) -> int | None:
    """Return the seconds that a Retry-After header asks for: a number, or a date against the reply's own Date."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", value):
        return int(float(value)) + 1
    when, now = http_date(value), http_date(headers.get("date", ""))
    return max(0, when - now) if when is not None and now is not None else None


def page(
    listing: Listing,
    read: Callable[[dict[str, Any]], RemoteBatch | None],
    size: int,
    cursor: str | None,
    raw: Any,
    account: str,
) -> Page:
    """Return one page of a list: where it goes on, whether its cursor is stuck, whose it is and when it was read.

    Args:
        read: makes a batch of a row; None for one without an id.
        size: how many were asked for: where the list does not say whether there is more, a full page may have a next one.
        cursor: what this page was asked for with; a page that holds it, or ends with it, has not advanced.
        raw: the response.
        account: the header in which the vendor names the account that asks.
    """
    headers = raw.http_response.headers
    read_rows = [read(row) for row in listing.rows]
    found = [remote for remote in read_rows if remote is not None]
    more = len(listing.rows) >= size if listing.more is None else listing.more
    last = found[-1].id if found else None
    stuck = more and (last is None or cursor in [remote.id for remote in found])
    onward = last if more and not stuck else None
    sound = listing.sound and len(found) == len(read_rows)
    return Page(found, onward, http_date(headers.get("date", "")), text(headers.get(account)), stuck, sound)


def idempotent(caller: Caller, what: str, call: Callable[[], Any]) -> None:
    """Make a request whose refusal means that there is nothing left to do: already ended, already gone."""
    try:
        caller.read(what, call)
    except (NotFound, Refused) as error:
        if isinstance(error, RateLimited):
            raise
    except Unreachable as error:
        if error.http_status != 409:
            raise
