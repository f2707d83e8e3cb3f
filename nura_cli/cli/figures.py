"""Figures and words as commands show them to a person."""

_LONGEST = 200


def cut(text: str) -> str:
    """Return text on one line, and no longer than can be read at a glance."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def dollars(text: str) -> str:
    """Return an amount with four decimals, or, where that would show nothing, with two figures."""
    whole, _, fraction = text.partition(".")
    leading = len(fraction) - len(fraction.lstrip("0"))
    places = leading + 2 if whole == "0" and 4 <= leading < len(fraction) else 4
    return f"${int(whole):,}.{fraction[:places].ljust(2, '0')}"


def short(n: int) -> str:
    """Return a count in at most five characters, for where there is no room for all its figures: ``12.3k``, ``4.57M``."""
    for unit, whole in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if n >= whole:
            return f"{n / whole:.{2 if n < 10 * whole else 1 if n < 100 * whole else 0}f}{unit}"
    return str(n)


def short_dollars(text: str) -> str:
    """Return an amount for where there is no room for all its figures: from a dollar on in cents."""
    return f"${float(text):,.2f}" if float(text) >= 1 else dollars(text)
