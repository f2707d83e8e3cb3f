"""Whether two lines say the same, however they are written.

Blanks, the order of members, escapes (``\\u00e9`` and ``é``, ``\\/`` and ``/``) and how an exponent is spelled (``1E+16``, ``1e16``)
are the writer's own; of members of one name the last counts, as for every reader. A number counts by its text: ``19.90``
is not ``19.9``, ``1.0`` not ``1``, ``1e2`` not ``100``.
"""

import json


def same(one: bytes, other: bytes) -> bool:
    """Return whether two lines, both of them sound, are the same document."""
    if one == other:
        return True
    try:
        return _canonical(one) == _canonical(other)
    except RecursionError:  # nested to the very limit: then only the bytes are compared
        return False


def _canonical(line: bytes) -> str:
    return json.dumps(json.loads(line, parse_int=_marked, parse_float=_marked), sort_keys=True)


def _marked(number: str) -> str:
    """Return a number as a string that no line holds: it begins with NUL."""
    digits, e, exponent = number.lower().partition("e")
    if not e:
        return f"\0{number}"
    sign = "-" if exponent.startswith("-") else ""
    return f"\0{digits}e{sign}{exponent.lstrip('+-').lstrip('0') or '0'}"
