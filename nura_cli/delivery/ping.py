"""A ping: one POST by which a monitor (healthchecks.io and its like) learns that a run began, or how it ended.

No redirect is followed, nobody's proxy is used, nothing of the answer but its status is read, and nothing is tried again: a
monitor that is down is its operator's trouble, and must not hold up the run.
"""

import http.client
import ssl
import threading
from urllib.parse import urlsplit

from nura_cli import scrub

SECONDS = 5.0
"""What a ping may take in all, looking up the address included."""


def send(url: str, part: str, body: str = "") -> str | None:
    """Send a ping; return why it was not taken, without a word of the address, or None.

    Args:
        url: http or https; whoever knows it can ping, so it is no word to say.
        part: what is added to its path: ``start``, or an exit code.
        body: text that the monitor shows.
    """
    for secret in (url, "/" + url.partition("://")[2].partition("/")[2]):
        scrub.know(secret)
    said: list[str | None] = []
    thread = threading.Thread(target=lambda: said.append(_post(url, part, body)), daemon=True)
    thread.start()
    thread.join(SECONDS)
    why = said[0] if said else f"there was no answer within {SECONDS:g} seconds"
    return None if why is None else scrub.clean(why)


def _post(url: str, part: str, body: str) -> str | None:
    try:
        address = urlsplit(url)
        connection = _connection(address.scheme, address.hostname or "", address.port)
        target = f"{address.path.rstrip('/')}/{part}{'?' if address.query else ''}{address.query}"
        headers = {"user-agent": "nura", "content-type": "text/plain; charset=utf-8", "connection": "close"}
        try:
            connection.request("POST", target, body.encode(), headers)
            status = connection.getresponse().status
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"it was not reached: {getattr(error, 'strerror', None) or error or type(error).__name__}"
    if 200 <= status < 300:
        return None
    redirected = ", and redirects are not followed" if 300 <= status < 400 else ""
    return f"it was answered with status {status}{redirected}"


def _connection(scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
    if scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=SECONDS, context=context)
    return http.client.HTTPConnection(host, port, timeout=SECONDS)
