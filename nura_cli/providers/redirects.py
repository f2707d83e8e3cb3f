"""Where a provider puts the results of a batch: some answer a download with the address of a store of theirs.

Of all that is asked, only a download is followed there, and once. The key goes along only where the address is the same
server's: to anybody else it would be given away, and a store refuses a signed address that comes with one.
"""

from typing import Any, NamedTuple

STATUSES = frozenset((301, 302, 303, 307, 308))
_PLAIN = ("accept", "accept-encoding", "user-agent")
"""The headers that tell nothing about an account."""


class Onward(NamedTuple):
    """Where a download goes on, and the headers with which it is asked for there."""

    url: Any
    headers: list[tuple[str, str]]


def onward(response: Any) -> Onward | None:
    """Return where a download goes on by this answer to it; None where it is no redirect, or one that is not followed.

    From https to http none is: what is read there anybody on the way could have written.
    """
    url = target(response)
    if url is None or url.scheme not in ("http", "https"):
        return None
    asked = response.request
    if asked.url.scheme == "https" != url.scheme:
        return None
    known = origin(url) == origin(asked.url)
    kept = [(name, value) for name, value in asked.headers.multi_items() if name != "host"]
    return Onward(url, [one for one in kept if known or one[0] in _PLAIN])


def target(response: Any) -> Any:
    """Return the URL to which an answer redirects; None where it is no redirect, or names none."""
    import httpx2

    location = response.headers.get("location")
    if response.status_code not in STATUSES or not location:
        return None
    try:
        return response.request.url.join(location)
    except (httpx2.InvalidURL, ValueError):
        return None


def origin(url: Any) -> tuple[str, str, int | None]:
    """Return whose a URL is: its scheme, host and port."""
    port = url.port if url.port is not None else {"http": 80, "https": 443}.get(url.scheme)
    return url.scheme, url.host, port


def shown(url: Any) -> str:
    """Return a URL as it may be shown: a query may be the signature that opens a store, and what comes before an @ a key."""
    return f"{url.scheme}://{url.netloc.decode('ascii')}{url.path}"
