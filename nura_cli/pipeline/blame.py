"""Whose fault it is that requests were refused: pure decisions, and what is known of a revision's rows to take them by.

An account's trouble is no request's fault: money, a quota or a key settle that alone, and anything that could be about the
account, or the provider itself, does unless another request of that time was answered. What fails alike is no request's
fault either: then the prompt or the options are mended, and nothing is gained by failing a backlog one by one.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from nura_cli.pipeline.failures import alike
from nura_cli.state import Connection, outcomes, standings
from nura_cli.state.answers import Failure
from nura_cli.state.outcomes import Alike, Revision
from nura_cli.state.standings import Held, Standing
from nura_cli.states import Blame, ErrorKind, Excuse

MOST_PUT_BACK = 20
"""How often a task waits again for its account's trouble before its workload is held."""
LATELY = 86400
"""Seconds that are looked back at for what failed alike."""
_FEW = 5
_MANY = 50
_SHARE = 10
"""Where none was ever answered, five alike are enough; else fifty that are all but a tenth of what was judged."""
_FORM_CHARACTERS = 100


class Form(NamedTuple):
    """What requests that were refused alike have in common, without figures: the code, and the part of the request, or else
    the words.
    """

    code: str | None
    what: str | None


def form_of(code: str | None, param: str | None, words: str | None) -> Form:
    """Return the form of a refusal."""
    part = None if param is None else re.sub(r"\d+", "…", param)
    return Form(_plain(code), part or _plain(words))


def _plain(words: str | None) -> str | None:
    found = alike(words)
    return None if found is None else found[:_FORM_CHARACTERS]


class Rows(NamedTuple):
    """What is known of the requests of a revision, or of a file of results.

    Attributes:
        refused: how many were refused, or could not be rendered, by form.
        judged: how many there are: answered, refused, or failed otherwise.
        answered: whether any was answered (or rendered), ever.
    """

    refused: Mapping[Form, int]
    judged: int
    answered: bool


def together(here: Rows, before: Iterable[Alike], judged: int, *, answered: bool) -> Rows:
    """Return what is known of the rows at hand and of those before."""
    forms = Counter(here.refused)
    for one in before:
        forms[form_of(one.code, one.param, one.said)] += one.n
    return Rows(forms, here.judged + judged, here.answered or answered)


def alike_in(rows: Rows) -> frozenset[Form]:
    """Decide which forms of refusal are no request's fault: at least five where none was ever answered, or fifty that are nine in
    ten where some were.
    """
    if not rows.answered:
        return frozenset(form for form, n in rows.refused.items() if n >= _FEW)
    most = rows.judged * (_SHARE - 1)
    return frozenset(form for form, n in rows.refused.items() if n >= _MANY and n * _SHARE >= most)


def excuse(failure: Failure | None, alike: frozenset[Form], *, witnessed: bool) -> Excuse | None:
    """Decide whether an attempt that ended so counts as none of its task's, and why.

    Args:
        alike: as from :func:`alike_in`.
        witnessed: whether another request was answered, in this batch or one sent since.
    """
    if failure is None:
        return None
    if failure.kind is ErrorKind.EXPIRED:
        return Excuse.EXPIRED
    if failure.blame is Blame.ACCOUNT or (failure.blame is Blame.UNSURE and not witnessed):
        return Excuse.ACCOUNT
    if failure.kind is ErrorKind.REFUSED and form_of(failure.code, failure.param, failure.message) in alike:
        return Excuse.ALIKE
    return None


def alike_before(db: Connection, of: Revision, here: Rows) -> frozenset[Form]:
    """Return which forms of refusal in a batch's results are no request's fault, by all that is known of its revision."""
    standing = standings.of(db, of.workload, of.revision) if here.refused else None
    if standing is None or standing.pardons(Held.ALIKE, of.batch_id):
        return frozenset()
    since = _since(db, standing)
    before = outcomes.lately(db, of, ErrorKind.REFUSED, since)
    judged = outcomes.judged(db, of, since)
    return alike_in(together(here, before, judged, answered=outcomes.ever_answered(db, of))) & here.refused.keys()


_QUOTED = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|[\w.,:/-]*\d[\w.,:/-]*")
"""What an error quotes as Python writes it, or a figure."""


def impersonal(words: str, prompt: str) -> str:
    """Return an error's words without what they quote of a record: what is not quoted of the prompt itself goes."""
    return _QUOTED.sub(
        lambda found: found[0] if found[0].strip("'\"") in {*_OWN, *_NAMES.findall(prompt)} else "…", words
    )


_NAMES = re.compile(r"\w+")
_OWN = frozenset(f"{kind} object" for kind in ("str", "dict", "list", "int", "float", "bool", "None"))
"""How Jinja calls a value by its type."""


def unrendered(
    db: Connection, of: Revision, failed: Sequence[tuple[int, str]], requests: int, prompt: str | None
) -> str | None:
    """Return in words why the records of a batch cannot be rendered where that is no record's fault, or None. The words stay when a
    record is forgotten, and so they quote none.

    Args:
        prompt: the template.
        failed: the tasks that cannot be rendered, and why.
        requests: how many could.
    """
    standing = standings.of(db, of.workload, of.revision) if failed else None
    if standing is None or Held.RENDER in standing.pardoned:
        return None
    forms = [form_of(None, None, words) for _, words in failed]
    since = _since(db, standing)
    here = Rows(Counter(forms), requests + len(forms), answered=requests > 0)
    before = outcomes.lately(db, of, ErrorKind.RENDER, since)
    judged = outcomes.rendered(db, of, since) + sum(one.n for one in before)
    found = alike_in(together(here, before, judged, answered=outcomes.ever_rendered(db, of)))
    first = next((words for form, (_, words) in zip(forms, failed, strict=True) if form in found), None)
    if first is None:
        return None
    n = sum(form in found for form in forms)
    many = "record" if n == 1 else "records"
    why = impersonal(first, prompt or "")
    more = "" if why == first else " (nura show KEY tells more)"
    return f"{n:,} of {here.judged:,} {many} cannot be rendered, all alike, and so none of them failed: {why}{more}"


def _since(db: Connection, standing: Standing) -> int:
    """Return how far is looked back: a day, or, where the workload is held for it already, a day before that."""
    return min(db.now, db.now if standing.held_at is None else standing.held_at) - LATELY
