"""What all SDKs need alike: a client that obeys the configuration alone, answers read, and failures put into words.

A vendor's connection has the SDK's calls made by a :class:`Caller`. No SDK retries here: a create must be sent exactly
once, and for the rest the next run of cron is the retry. No redirect is followed, but for a download's
(:mod:`nura_cli.providers.redirects`), and no connection is kept for a later request: one that the server has closed in the
meantime would make a create doubtful for nothing. How long each exchange may take stands in
:mod:`nura_cli.providers.deadlines`.
"""

import hashlib
import io
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import msgspec

from nura_cli import logs, progress
from nura_cli.dialects.base import Page, Rejection, RemoteBatch
from nura_cli.dialects.reading import http_date, line, text
from nura_cli.errors import KeyRefused, NoEndpoint, NotFound, RateLimited, Refused, StateError, Unconfirmed, Unreachable
from nura_cli.providers import redirects
from nura_cli.providers.base import Account, Download

READ_SECONDS = 60.0
"""The patience of an exchange, in seconds: how long it may take, beside what the bytes of a file buy."""
CONNECT_SECONDS = 10.0
SEND_SECONDS = 900.0
"""The most patience, with a large request file: so long its server may look into 256 MB before it answers."""
ANSWER_SECONDS = 600.0
"""How long a model may take for one answer (the SDKs' own default)."""
_TRYING = "trying a request"
_CHUNK_BYTES = 1 << 17
_SPARE_BYTES = 16 * 1024 * 1024
_NO_LIST = object()
_TOO_LARGE = "request_too_large"
"""What nura calls an HTTP 413."""

Made = TypeVar("Made")
Opened = Callable[[], AbstractContextManager[Any]]
"""Opens the stream of a body, as an SDK gives it."""


@contextmanager
def _endpoint_asked_for() -> Iterator[None]:
    """Raise NotFound where a question after batches is answered as if there were no such endpoint.

    To all else such an answer says nothing: a gateway gives it, and what was asked for is there all the same.
    """
    try:
        yield
    except Unreachable as error:
        if not error.endpoint_may_lack:
            raise
        raise NotFound(
            error.message, http_status=error.http_status, code=error.code, faults=error.faults, provider=error.provider
        ) from None


@contextmanager
def without_environment(*prefixes: str) -> Iterator[None]:
    """Hide variables with these prefixes while a client is made: the SDKs would take accounts and addresses from them."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(prefixes)}
    try:
        yield
    finally:
        os.environ.update(hidden)


def sdk_options(account: Account) -> dict[str, Any]:
    """Return what any vendor's SDK client is made with: the account's key, address and headers; each request is sent once.

    Raises:
        ConfigError: the key cannot be read.
    """
    return {
        "api_key": account.config.secret(),
        "base_url": account.address,
        "default_headers": dict(account.config.headers),
        "max_retries": 0,
        "http_client": _http_client(account.address),
        "timeout": READ_SECONDS,
    }


def given(**options: str | None) -> dict[str, Any]:
    """Return the options that are not None: an SDK has a value of its own for one that is left out."""
    return {name: value for name, value in options.items() if value is not None}


def patience(path: Path) -> float:
    """Return the patience, in seconds, with the exchange that sends this request file: some of it is still on its way when all
    of it seems to be sent.
    """
    from nura_cli.providers.deadlines import FLOOR

    return min(SEND_SECONDS, READ_SECONDS + path.stat().st_size / FLOOR)


@contextmanager
def sending(path: Path) -> Iterator[progress.Read]:
    """Give the block a request file to send, open."""
    with progress.going("sending requests", path.stat().st_size, in_bytes=True) as step:
        with progress.Read(io.FileIO(path), step) as file:
            yield file


def _http_client(base_url: str) -> Any:
    """Return an HTTP client for an SDK: no redirects, no connection kept, bodies not compressed, a bound and a deadline for all."""
    import httpx2

    from nura_cli.providers import bodies, deadlines

    deadline = deadlines.Deadline()

    def sent(request: Any) -> None:
        request.extensions["nura_began"] = time.monotonic()
        deadline.begin(request)

    def answered(response: Any) -> None:
        request = response.request
        took = (time.monotonic() - request.extensions.get("nura_began", time.monotonic())) * 1000
        ident = response.headers.get("x-request-id") or response.headers.get("request-id") or "none"
        path, status = line(request.url.path), response.status_code
        logs.exchanged("%s %s: HTTP %s in %.0f ms, request id %s", request.method, path, status, took, line(ident))

    client = bodies.Client(
        base_url=base_url,
        follow_redirects=False,
        limits=httpx2.Limits(max_keepalive_connections=0),
        timeout=httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
        headers={"Accept-Encoding": "identity"},
        event_hooks={"request": [sent], "response": [answered]},
    )
    deadlines.keep(client, deadline)
    return client


class Listing(NamedTuple):
    """A list as it came: its objects, whether it says that there is more, and whether all of it could be read.

    Attributes:
        more: None where it does not say.
        sound: False where it is null, or has members that are no objects.
        headers: of the response that it came in.
    """

    rows: list[dict[str, Any]]
    more: bool | None
    sound: bool
    headers: Mapping[str, str]


class Caller:
    """Has one provider's calls made: reads their answers, and turns what goes wrong into nura's errors.

    Args:
        name: the provider's, for the errors.
        read: makes a batch of the vendor's object; None for one without an id.
        faults: reads why something was refused, from the body of the answer.
        client: the SDK's HTTP client, by which a download is followed to where it is stored.

    A ``call`` sends one request and returns the SDK's raw response.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[Mapping[str, Any]], RemoteBatch | None],
        faults: Callable[[Any], tuple[Rejection, ...]],
        client: Any,
    ) -> None:
        self._name = name
        self._read = read
        self._faults = faults
        self._client = client

    def create(self, call: Callable[[], Any]) -> RemoteBatch:
        """Return the batch that ``call`` creates.

        Raises:
            Unconfirmed: it is not certain that nothing happened.
        """
        what = "creating a batch"
        remote = self._read(self.document(what, call, effect=True))
        if remote is None:
            raise Unconfirmed(f"{self._name}: {what}: the answer names no batch", provider=self._name)
        return remote

    def answer(self, call: Callable[[], Any]) -> bytes:
        """Return the JSON object, as it came, with which a single request is answered.

        Raises:
            Unconfirmed: it is not certain that nothing happened.
        """
        made = self._made(_TRYING, call, effect=True)
        status = made.http_response.status_code
        if not isinstance(self._json(made), dict):
            words = f"{self._name}: {_TRYING}: the answer is not JSON (HTTP {status})"
            raise Unconfirmed(words, http_status=status, provider=self._name)
        return bytes(made.http_response.content)

    def retrieve(self, remote_id: str, call: Callable[[], Any]) -> RemoteBatch:
        """Return the batch that was asked for; an answer about anything else is no answer.

        Raises:
            NotFound: there is no such batch, or the service has no answer for single ones.
        """
        what = f"asking after {remote_id}"
        with _endpoint_asked_for():
            remote = self._read(self.document(what, call))
        if remote is None or remote.id != remote_id:
            named = "no" if remote is None else "another"
            raise Unreachable(
                f"{self._name}: {what}: the answer names {named} batch", http_status=200, provider=self._name
            )
        return remote

    def page(self, call: Callable[[], Any], *, size: int, cursor: str | None, account: str) -> Page:
        """Return one page of batches: where the list goes on, whether it is stuck, whose it is and when it was read.

        Args:
            size: how many were asked for: where the list does not say whether there is more, a full page may have a
                next one.
            cursor: what this page was asked for with; a page that holds it, or ends with it, has not advanced.
            account: the header in which the vendor names the account that asks.

        Raises:
            NoEndpoint: there is no list of batches at this address.
        """
        try:
            with _endpoint_asked_for():
                listing = self.listing("listing batches", call)
        except NotFound as error:
            raise NoEndpoint(
                f"{error.message}: {self._name} has no list of batches here, and nothing is sent there, for nobody could"
                " tell what became of a create whose answer is lost",
                hint="check base_url; what was sent comes home, and what is not confirmed a person decides",
                http_status=error.http_status,
                code=error.code,
                provider=self._name,
            ) from None
        read_rows = [self._read(row) for row in listing.rows]
        found = [remote for remote in read_rows if remote is not None]
        more = len(listing.rows) >= size if listing.more is None else listing.more
        last = found[-1].id if found else None
        stuck = more and (last is None or cursor in [remote.id for remote in found])
        onward = last if more and not stuck else None
        sound = listing.sound and len(found) == len(read_rows)
        date = http_date(listing.headers.get("date", ""))
        return Page(found, onward, date, text(listing.headers.get(account)), stuck, sound)

    def cancel(self, remote_id: str, call: Callable[[], Any]) -> bool:
        """Ask for a batch to be cancelled; return whether that was taken. Being refused, with a 409 too, means, most likely, that
        it has ended already; HTML with a 200 comes from somebody else.
        """
        try:
            response = self._made(f"cancelling {remote_id}", call)
        except (NotFound, Refused) as error:
            if isinstance(error, RateLimited):
                raise
            return False
        except Unreachable as error:
            if error.http_status != 409:
                raise
            return False
        return not response.http_response.content.strip() or isinstance(self._json(response), dict)

    def delete(self, name: str, call: Callable[[], Any]) -> None:
        """Delete a batch or a file. Gone (404) is fine."""
        try:
            self._made(f"deleting {name}", call)
        except NotFound:
            return
        except Unreachable as error:
            if error.endpoint_may_lack:
                error.hint = "if it stays so, nothing can be deleted there: set cleanup_after: never"
            raise

    def download(self, name: str, opened: Opened, target: Path) -> Download:
        """Write a streamed body to ``target``, as :func:`save` does.

        Raises:
            Unreachable: the body was cut, or is not to be had where it was redirected to.
            NotFound, KeyRefused, RateLimited: as for any read.
        """

        def run() -> Download:
            with self._followed(opened) as response:
                announced = _announced(response.headers)
                with progress.going("downloading answers", announced, in_bytes=True) as step:
                    return save(response.iter_bytes(_CHUNK_BYTES), target, announced, step)

        return self._made(f"downloading {name}", run)

    def head(self, name: str, opened: Opened, size: int) -> bytes:
        """Return at most the first ``size`` bytes of a streamed body."""

        def run() -> bytes:
            got = b""
            with self._followed(opened) as response:
                for chunk in response.iter_bytes(min(size, _CHUNK_BYTES)):
                    got += chunk
                    if len(got) >= size:
                        break
            return got[:size]

        return self._made(f"reading {name}", run)

    @contextmanager
    def _followed(self, opened: Opened) -> Iterator[Any]:
        """Open the stream of a body, where its provider keeps it: one redirect is followed.

        Raises:
            httpx2.HTTPStatusError: where it was sent to, it is not.
        """
        with ExitStack() as stack:
            try:
                response = stack.enter_context(opened())
            except Exception as error:
                answer = getattr(error, "response", None)
                onward = None if answer is None else redirects.onward(answer)
                if onward is None:
                    raise
                request = self._client.build_request("GET", onward.url, headers=onward.headers)
                response = stack.enter_context(closing(self._client.send(request, stream=True)))
                if not response.is_success:
                    response.read()
                    response.raise_for_status()
            yield response

    def document(self, what: str, call: Callable[[], Any], *, effect: bool = False) -> dict[str, Any]:
        """Return the JSON object that a call answers. HTML with a 200, or anything else, is no answer.

        Args:
            what: what the call does, in words.
            effect: whether it may have had its effect when no answer says so: then ``Unconfirmed`` is raised.
        """
        response = self._made(what, call, effect=effect)
        document = self._json(response)
        if not isinstance(document, dict):
            kind = Unconfirmed if effect else Unreachable
            raise kind(
                f"{self._name}: {what}: the answer is not JSON (HTTP {response.http_response.status_code})",
                http_status=response.http_response.status_code,
                provider=self._name,
            )
        return document

    def listing(self, what: str, call: Callable[[], Any]) -> Listing:
        """Return the rows that a call lists: in an object, as its ``data``, or in a bare array (Together).

        Raises:
            Unreachable: it is neither, or none of its rows can be a batch: that is no empty list.
        """
        response = self._made(what, call)
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
        sound = isinstance(found, list) and len(rows) == len(found)
        return Listing(rows, says, sound, response.http_response.headers)

    @staticmethod
    def _json(response: Any) -> Any:
        """Return the JSON of a raw response; None where it is none."""
        try:
            return msgspec.json.decode(response.http_response.content)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None

    def _made(self, what: str, call: Callable[[], Made], *, effect: bool = False) -> Made:
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - the SDKs have no common base; what is not theirs is raised again
            self._raise(what, error, effect=effect)

    def _raise(self, what: str, error: Exception, *, effect: bool) -> NoReturn:
        import httpx2

        if isinstance(error, httpx2.HTTPStatusError):
            raise self._from_elsewhere(what, error.response) from None
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
        body = _error_body(error)
        code, words = _vendor_words(body)
        detail = self._redirected(error.response) or line(words) or "no reason given"
        text = f"{self._name}: {what}: HTTP {status}: {detail}"
        faults = self._faults(words if isinstance(body, str) else body)
        if status == 413:
            faults = tuple(fault._replace(code=_TOO_LARGE) for fault in faults) or (Rejection(_TOO_LARGE, None, None),)
        fields: dict[str, Any] = {"http_status": status, "code": code, "faults": faults, "provider": self._name}
        if status in (401, 403):
            return KeyRefused(text, hint="check the key, and what it is allowed to do", provider=self._name)
        if status == 429:
            return RateLimited(text, retry_after=_retry_after(error.response.headers), **fields)
        if status == 404:
            return NotFound(text, **fields)
        if status in (400, 402, 413, 422):
            return Refused(text, **fields)
        if effect:
            hint = "nothing is sent again before the provider has said what became of it"
            return Unconfirmed(text, hint=hint, **fields)
        return Unreachable(text, retry_after=_retry_after(error.response.headers), **fields)

    def _from_elsewhere(self, what: str, answer: Any) -> Exception:
        """Return the error for the answer of where a download was sent to. What is said there is about no key of ours, and a 404
        proves no loss: an address that is over, or wrong, is answered so too.
        """
        detail = self._redirected(answer) or "no results are there"
        text = f"{self._name}: {what}: redirected to {answer.request.url.host}, HTTP {answer.status_code}: {detail}"
        return Unreachable(text, http_status=answer.status_code, provider=self._name)

    @staticmethod
    def _redirected(answer: Any) -> str | None:
        """Return in words where an answer redirects to, and is not followed; None where it does not."""
        url = redirects.target(answer)
        if url is None:
            return None
        return f"it redirects to {line(redirects.shown(url))}, and is not followed; set base_url to where the API is"


def save(
    chunks: Iterable[bytes], target: Path, announced: int | None, step: progress.Step = progress.NOBODY
) -> Download:
    """Write a body to ``target`` (made 0600, replaced if it exists; not synced); count and hash it on the way.

    Args:
        announced: how many bytes it is said to have, or None.

    Raises:
        StateError: there is less room on the disk than was announced, and nothing was written; or less than is left free.
    """
    _check_room(target, announced)
    sha, size = hashlib.sha256(), 0
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb", buffering=0) as file:
        for chunk in chunks:
            sha.update(chunk)
            before, size = size, size + len(chunk)
            step.add(len(chunk))
            if size // _SPARE_BYTES > before // _SPARE_BYTES:  # it may have announced nothing, or unpack without end
                _check_room(target, None)
            left = memoryview(chunk)
            while left:
                left = left[file.write(left) or 0 :]
    return Download(size, announced, sha.hexdigest())


def _announced(headers: Mapping[str, str]) -> int | None:
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


def _error_body(error: Any) -> Any:
    """Return the whole body of an error's answer: its JSON, else what the SDK made of it, which leaves out what stands beside
    the error.
    """
    try:
        return msgspec.json.decode(error.response.content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, RuntimeError):  # RuntimeError: it was not read
        return getattr(error, "body", None)


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


def _retry_after(headers: Mapping[str, str]) -> int | None:
    """Return the seconds that a Retry-After header asks for: a number, or a date against the reply's own Date."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", value):
        return int(float(value)) + 1
    when, now = http_date(value), http_date(headers.get("date", ""))
    return max(0, when - now) if when is not None and now is not None else None
