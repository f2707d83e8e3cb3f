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
