"""What failed and what could not be delivered, by kind, code and words, for a person: alike words are one group."""

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from nura_cli.state import Connection, failures
from nura_cli.state.failures import Said
from nura_cli.state.outbox import Left

if TYPE_CHECKING:
    from nura_cli import contract

LOOKED_AT = 1000
"""Of each kind and code: how many of the newest are asked for their words."""
MOST_GROUPS = 10
"""Groups of a workload that are told apart; the rest is one."""
_VARIES = re.compile(r"[\w.,:/-]*\d[\w.,:/-]*")
"""A figure, an id, a time, a path with a number: what differs where the words are the same."""
_SPECIAL = ('"', "[", "{", "-", " ")


class Group(NamedTuple):
    """Failures with the same words: how many, the words, and the key of one, as JSON.

    ``words`` are those of the newest where all say the same, and else what they have in common. They are None for those that
    were not looked at, or that say nothing.
    """

    n: int
    words: str | None
    key: str | None


def alike(words: str | None) -> str | None:
    """Return words without their figures and ids, and on one line."""
    return None if words is None else _VARIES.sub("…", " ".join(words.split()))


def grouped(said: Sequence[Said], n: int) -> list[Group]:
    """Return the groups of ``n`` failures of one kind, the largest first.

    Args:
        said: the newest of them. Where these all say the same, so do the others; else the others are a group without words.
    """
    counts, first, same = Counter[str | None](), dict[str | None, Said](), dict[str | None, bool]()
    for one in said:
        form = alike(one.words)
        counts[form] += 1
        first.setdefault(form, one)
        same[form] = same.get(form, True) and one.words == first[form].words
    if len(counts) == 1:
        counts = Counter(dict.fromkeys(counts, n))
    groups = [Group(m, first[form].words if same[form] else form, first[form].key) for form, m in counts.most_common()]
    left = n - counts.total()
    return [*groups, Group(left, None, None)] if left > 0 else groups


def of_tasks(db: Connection, workloads: Iterable[str]) -> "dict[str, list[contract.FailureGroup]]":
    """Return, for each of these workloads, what its failed tasks failed for."""
    found: dict[str, list[contract.FailureGroup]] = {name: [] for name in workloads}
    for one in failures.failed(db):
        if one.workload in found:
            groups = grouped(failures.words(db, one, LOOKED_AT), one.n)
            found[one.workload] += [{"kind": one.kind, "code": one.code, **_group(group)} for group in groups]
    return {name: _largest(entries, {"kind": None, "code": None, **_REST}) for name, entries in found.items()}


def of_deliveries(
    db: Connection, workloads: Iterable[str], left: Iterable[Left]
) -> "dict[str, list[contract.DeadGroup]]":
    """Return, for each of these workloads, why its deliveries were given up."""
    found: dict[str, list[contract.DeadGroup]] = {name: [] for name in workloads}
    for one in left:
        if one.status == "dead" and one.workload in found:
            groups = grouped(failures.dead_words(db, one, LOOKED_AT), one.n)
            found[one.workload] += [{"kind": one.kind, **_group(group)} for group in groups]
    return {name: _largest(entries, {"kind": None, **_REST}) for name, entries in found.items()}


def _group(group: Group) -> "contract.Group":
    return {"message": group.words, "n": group.n, "key": group.key and json.loads(group.key)}


_REST: "contract.Group" = {"message": None, "n": 0, "key": None}
_Entry = TypeVar("_Entry", bound="contract.Group")


def _largest(entries: list[_Entry], other: _Entry) -> list[_Entry]:
    """Return the largest groups, and what is left as one of no kind, ``other``."""
    by_size = sorted(entries, key=lambda one: -one["n"])
    other["n"] = sum(one["n"] for one in by_size[MOST_GROUPS:])
    return [*by_size[:MOST_GROUPS], *([other] if other["n"] else [])]


def argument(key: Any) -> str:
    """Return a key as it is typed in a shell, in the form that ``--key`` takes."""
    plain = key if isinstance(key, str) and not key.startswith(_SPECIAL) and key.strip() == key else None
    if isinstance(key, int) and key >= 0:
        plain = str(key)
    return shlex.quote(
        json.dumps(str(key) if isinstance(key, int) else key, ensure_ascii=False) if plain is None else plain
    )
