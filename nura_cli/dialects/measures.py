"""How much a request may come to, as far as its body says so: what is looked for in it, and what follows from that. Pure.

A vendor's dialect lists the members of its requests that nura knows, each with a :data:`Reader` that says what it means here.
A member that is not listed may cost anything: then no bound of the request's cost is known (an allow-list, since what is
bounded wrongly is paid for). Nothing here raises for odd shapes.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

BYTES_PER_TOKEN, BYTES_PER_DIGIT_TOKEN = 4.6, 1.6
"""UTF-8 bytes of one token of text, and of digits, before anything was learned (o200k: English 4.6, Chinese 4.7, numbers 1.6)."""
_AROUND_MESSAGE, _AROUND_REQUEST = 4, 3
"""Tokens that a vendor puts around one message, and around all (OpenAI's cookbook, How to count tokens: 3 a message and 1 for
its name, 3 for the answer's beginning)."""
_MOST_AROUND_MESSAGE, _MOST_AROUND_REQUEST = 16, 64
"""The same at most: several times what OpenAI's cookbook and Anthropic's Token counting guide show."""
_MOST_HIDDEN = 1000
"""Tokens of the prompt that a vendor adds where there are tools or a schema: 264 to 804 for tools at Anthropic (Tool use,
pricing); of structured output its guide says "slightly higher"."""
_MOST_TOKENS = 10**8
"""A limit of so many tokens limits nothing."""


class Measure(NamedTuple):
    """What a request's body says of what it may cost.

    Attributes:
        text: UTF-8 bytes of all that the model reads, without the JSON around it and without escapes; what is read as JSON
            (schemas, tools, their calls) counts as JSON.
        digits: how many of these bytes are ASCII digits.
        most_output: output tokens that it can have at most, all its answers together; 0 where it has none that is billed; None
            where it sets no maximum.
        unbounded: why no bound of its cost is known, as what the request does ("sets n to 3"); None where one is.
        writes: some of its input may be billed as written to a cache.
        writes_1h: and as kept there for an hour.
        tokens: input tokens that it brings as numbers.
        messages: texts, blocks, items and tools that are put together, each with a few tokens around it.
        hidden: there are tools or a schema, for which the vendor adds a prompt of its own.
    """

    text: int = 0
    digits: int = 0
    most_output: int | None = None
    unbounded: str | None = None
    writes: bool = False
    writes_1h: bool = False
    tokens: int = 0
    messages: int = 0
    hidden: bool = False


def estimate_input(measure: Measure) -> int:
    """Return about how many input tokens a request has, before anything was learned from others like it."""
    text = (measure.text - measure.digits) / BYTES_PER_TOKEN + measure.digits / BYTES_PER_DIGIT_TOKEN
    return round(text + measure.tokens + measure.messages * _AROUND_MESSAGE + _AROUND_REQUEST)


def most_input(measure: Measure) -> int:
    """Return how many input tokens a request has at most, where a bound is known: byte-level encodings make no more than one
    token of a byte.
    """
    around = measure.messages * _MOST_AROUND_MESSAGE + _MOST_AROUND_REQUEST
    return measure.text + measure.tokens + around + (_MOST_HIDDEN if measure.hidden else 0)


class Tally:
    """What a look through a request has found so far.

    Attributes:
        answers: how many it asks for of each prompt.
        prompts: how many it holds, each of which is answered by itself.
        limits: of the output tokens of one answer.
        thoughts: how many of these may be thoughts.
        texts: all that the model reads.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.answers = self.prompts = 1
        self.limits: list[int] = []
        self.texts: list[str] = []
        self.tokens = self.messages = self.thoughts = 0
        self.unbounded: str | None = None
        self.hidden = self.writes = self.writes_1h = False

    def doubt(self, why: str) -> None:
        """Note that no bound of the cost is known; the first reason is kept."""
        self.unbounded = self.unbounded or why

    @property
    def measure(self) -> Measure:
        """What was found in all."""
        text = "".join(self.texts).encode("utf-8", "surrogatepass")
        if self.limits and 0 < max(self.limits) <= self.thoughts:
            self.doubt("may think for longer than its limit on tokens says")
        return Measure(
            text=len(text),
            digits=len(text) - len(text.translate(None, b"0123456789")),
            most_output=max(self.limits) * self.answers * self.prompts if self.limits else None,
            unbounded=self.unbounded,
            writes=self.writes,
            writes_1h=self.writes_1h,
            tokens=self.tokens,
            messages=self.messages,
            hidden=self.hidden,
        )


Reader = Callable[[Tally, str, Any], None]
"""What a member of a request means here, by its name and its value, which is not null."""
Members = Mapping[str, Reader]


def measured(body: bytes, known: Members, tally: Tally) -> Measure:
    """Return what a request's body says, whose known members these are."""
    try:
        walk(tally, "request", msgspec.json.decode(body), known)
        return tally.measure
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return Measure(unbounded="is no JSON that can be read")


def walk(tally: Tally, name: str, found: Any, known: Members) -> None:
    """Look at each member of an object, of which these are known; null, and what is empty, is as if it were not there."""
    if not isinstance(found, dict):
        tally.doubt(odd(name))
        return
    for member, value in found.items():
        read = known.get(member)
        if value is None:
            continue
        if read is not None:
            read(tally, member, value)
        elif value not in _EMPTY:
            tally.doubt(f"sets {shown(member)}, and what that costs is not known")


_EMPTY: tuple[Any, ...] = ("", [])
"""What is as good as not there; an empty object is not: it may switch something on (``web_search_options: {}``)."""


def odd(name: str) -> str:
    """Return what is said of a member whose value has another form than is known."""
    return f"has a {shown(name)} of a form that is not known"


def shown(value: Any) -> str:
    """Return a name or a value of a request as one short printable word."""
    text = str(value)
    return text if text.isprintable() and len(text) <= _LONGEST_WORD else ascii(text[:_LONGEST_WORD])


_LONGEST_WORD = 60


def setting(tally: Tally, name: str, value: Any) -> None:
    """Pass over what is neither read by the model nor changes what a token costs."""


def text(tally: Tally, name: str, value: Any) -> None:
    """Count a text."""
    if isinstance(value, str):
        tally.texts.append(value)
    else:
        tally.doubt(odd(name))


def document(tally: Tally, name: str, value: Any) -> None:
    """Count what the model reads as JSON."""
    tally.texts.append(msgspec.json.encode(value).decode())


def schema(tally: Tally, name: str, value: Any) -> None:
    """Count what the model reads as JSON, with a prompt of the vendor's around it."""
    document(tally, name, value)
    tally.hidden = True


def limit(tally: Tally, name: str, value: Any) -> None:
    """Take the most tokens of an answer; a number that is no limit is none (below 1, some services take it for "any")."""
    if type(value) is int and 0 < value < _MOST_TOKENS:
        tally.limits.append(value)
    else:
        tally.doubt(f"sets {name} to {shown(value)}, which limits nothing")


def answers(tally: Tally, name: str, value: Any) -> None:
    """Take how many answers are asked for, all of them billed."""
    if type(value) is not int or not 0 < value < _MOST_TOKENS:
        tally.doubt(odd(name))
    elif value > 1:
        tally.answers = max(tally.answers, value)
        tally.doubt(f"sets {name} to {value}")


def model(tally: Tally, name: str, value: Any) -> None:
    """Pass over a model's name, but for those of models that search whether they are asked to or not."""
    if not isinstance(value, str) or "-search-" in value:
        tally.doubt(f"asks {shown(value)}, which searches, and what that costs is not known")


def only(*usual: Any) -> Reader:
    """Return the reader of a setting that changes what a token costs, but for these values."""

    def read(tally: Tally, name: str, value: Any) -> None:
        if value not in usual:
            tally.doubt(f"sets {name} to {shown(value)}, and what that costs is not known")

    return read


def members(known: Members) -> Reader:
    """Return the reader of an object of which these members are known."""

    def read(tally: Tally, name: str, value: Any) -> None:
        walk(tally, name, value, known)

    return read


def typed(kinds: Mapping[str, Members], *, default: str = "") -> Reader:
    """Return the reader of a list of objects that say what they are by their ``type``, or else are of the default one."""

    def read(tally: Tally, name: str, value: Any) -> None:
        for one in value if isinstance(value, list) else [value]:
            tally.messages += 1
            kind = one.get("type") if isinstance(one, dict) else None
            known = kinds.get(default if kind is None else kind) if isinstance(kind, str | None) else None
            if known is not None:
                walk(tally, name, one, known)
            elif isinstance(kind, str):
                tally.doubt(f"has {shown(kind)} in its {name}, and what that costs is not known")
            else:
                tally.doubt(odd(name))

    return read


def text_or(other: Reader) -> Reader:
    """Return the reader of a text that may have another form, too."""

    def read(tally: Tally, name: str, value: Any) -> None:
        if isinstance(value, str):
            tally.texts.append(value)
        else:
            other(tally, name, value)

    return read


def each(other: Reader) -> Reader:
    """Return the reader of a list of messages; a text by itself is one."""

    def read(tally: Tally, name: str, value: Any) -> None:
        if isinstance(value, list):
            tally.messages += len(value)
            for one in value:
                other(tally, name, one)
        elif isinstance(value, str):
            tally.messages += 1
            tally.texts.append(value)
        else:
            tally.doubt(odd(name))

    return read


def texts(tally: Tally, name: str, value: Any) -> None:
    """Count texts that are each answered by themselves: one or several, as strings or as the numbers of their tokens."""
    numbers = isinstance(value, list) and bool(value) and all(type(one) is int for one in value)
    listed = value if isinstance(value, list) and not numbers else [value]
    for one in listed:
        if isinstance(one, list) and all(type(number) is int for number in one):
            tally.tokens += len(one)
        else:
            text(tally, name, one)
    tally.prompts = max(len(listed), 1)
    tally.messages += len(listed)
