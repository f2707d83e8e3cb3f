"""Secrets that this process has read, taken out of every word from outside before it is said or kept.

A provider may repeat the key in its error, a driver the password, a hook's program what it was given. Whoever reads a
secret makes it known here; from then on :func:`clean` takes it out of any text, in each form in which it may come back.
An answer is never cleaned: it is the application's, as it came.
"""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, quote_plus, unquote

MARK = "[secret]"
"""What stands where a secret stood."""
SHORTEST = 8
"""Characters of the shortest secret that is taken out: a shorter one would be found in every other word."""
_TELLING = 16
"""Characters of a secret that was cut off, at the end or the beginning of a text, from which it is taken out as well."""
_LIKE_A_KEY = re.compile(r"\b(sk|key)-[\w*.-]{4,}")
_PASSWORDS = r"(?:password|passwd|pwd|sslpassword)"

_known: dict[str, tuple[str, str]] = {}
"""Each form of each secret, the longest first, with as much of its beginning and of its end as tells it from other words."""


def know(secret: str) -> None:
    """Have a secret taken out of all texts from now on; one of fewer than :data:`SHORTEST` characters is left alone."""
    new = {form for form in _forms(secret) if len(form) >= SHORTEST} - _known.keys()
    for form in sorted(_known.keys() | new, key=len, reverse=True) if new else ():
        sure = max(SHORTEST, min(_TELLING, len(form) // 2))
        _known.pop(form, None)
        _known[form] = form[:sure], form[-sure:]


def know_url(url: str) -> None:
    """Have the passwords in a database's URL known: where one stands, and what was meant where its ``@`` is not escaped."""
    for pattern in (r"[^:/]*://[^:/]*:([^@]*)@", r"[^:/]*://[^:/]*:(.*)@", rf"[?&]{_PASSWORDS}=([^&#]*)"):
        for password in re.findall(pattern, url, re.IGNORECASE | re.DOTALL):
            know(password)


def clean(text: str) -> str:
    """Return a text without the secrets that are known, those included that were cut off at one of its ends."""
    for secret, (begin, end) in _known.items():
        if begin in text or end in text:
            text = text.replace(secret, MARK)
            text = _without_end(_without_beginning(text, secret, len(begin)), secret, len(end))
    return text


def words(text: str) -> str:
    """Return a provider's words without the secrets that are known, and without what looks like a key."""
    return _LIKE_A_KEY.sub(MARK, clean(text))


def body(document: bytes) -> bytes:
    """Return a JSON document without secrets in its texts, however they are escaped there.

    One that holds none is returned as it is, byte for byte.
    """
    text = document.decode("utf-8", "replace")
    try:
        found = json.loads(text)
        cleaned = _within(found)
        if cleaned == found:
            return document
        return json.dumps(cleaned, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
    except (ValueError, RecursionError):
        return words(text).encode()


def _within(value: Any) -> Any:
    """Return a value with the known secrets taken out of every string in it."""
    if isinstance(value, str):
        return words(value)
    if isinstance(value, list):
        return [_within(item) for item in value]
    if isinstance(value, dict):
        return {words(key): _within(item) for key, item in value.items()}
    return value


def _forms(secret: str) -> Iterator[str]:
    """Yield the forms in which a secret may come back: plain, for a URL, in JSON, quoted by Python, in HTML."""
    from html import escape  # with its table of entities, for which a command without secrets need not wait

    for plain in dict.fromkeys((secret, unquote(secret))):
        in_urls = [quote(plain, safe=""), quote(plain), quote_plus(plain)]
        yield from (plain, *in_urls, *(re.sub(r"%..", lambda found: found[0].lower(), one) for one in in_urls))
        in_json = json.dumps(plain)[1:-1]
        yield from (in_json, in_json.replace("/", "\\/"), json.dumps(plain, ensure_ascii=False)[1:-1])
        yield from (repr(plain)[1:-1], escape(plain))


def _without_beginning(text: str, secret: str, sure: int) -> str:
    """Take out the beginning of a secret that ends a text, be it that whoever cut it there says so with dots."""
    shown = text.rstrip(".…")
    for n in range(len(secret) - 1, sure - 1, -1):
        if shown.endswith(secret[:n]):
            return shown[:-n] + MARK + text[len(shown) :]
    return text


def _without_end(text: str, secret: str, sure: int) -> str:
    """Take out the end of a secret that begins a text, likewise."""
    shown = text.lstrip(".…")
    for n in range(len(secret) - 1, sure - 1, -1):
        if shown.startswith(secret[-n:]):
            return text[: len(text) - len(shown)] + MARK + shown[n:]
    return text
