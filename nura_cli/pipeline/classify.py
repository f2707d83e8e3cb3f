"""Pure decisions about one result line: is it an answer, does it fit the schema, what did it cost."""

from typing import NamedTuple

from nura_cli import schemas, scrub
from nura_cli.dialects.base import Answer, Dialect, ResultLine, Spec
from nura_cli.dialects.reading import document_in, printable
from nura_cli.dialects.writing import TOKEN_LIMITS
from nura_cli.pipeline.settle import UNKNOWN
from nura_cli.pricing import Prices, Usage
from nura_cli.state.answers import Charge, Failure
from nura_cli.states import ErrorKind

_MESSAGE_CHARACTERS = 500


class Verdict(NamedTuple):
    """What a result line says of its task: a failure or an answer, the body to keep, what it used and cost.

    Attributes:
        said: the body holds what a model said, be it no answer: it may be taken for one later.
    """

    failure: Failure | None
    body: bytes | None
    charge: Charge
    said: bool = False


class Classifier:
    """Judges the result lines of one batch, by the spec it was rendered with."""

    def __init__(self, dialect: Dialect, spec: Spec, prices: Prices, *, accept_truncated: bool = False) -> None:
        """Take what the lines are judged by.

        Args:
            accept_truncated: whether the workload takes a text that ran into its token limit for an answer.
        """
        self._dialect = dialect
        self._spec = spec
        self._prices = prices
        self._check = schemas.check(spec.answer_schema) if spec.answer_schema is not None else None
        self._cut_will_do = accept_truncated or spec.prompt is None or _is_label(spec)

    def classify(self, line: ResultLine) -> Verdict:
        """Return what becomes of the task that a result line is about."""
        if line.error is not None:
            message = shorten(line.message or str(line.error))
            failed = Failure(line.error, message, line.code, line.http_status, line.param, line.blame, line.final)
            unread = line.error is ErrorKind.INVALID_OUTPUT  # what was not read may be an answer
            return Verdict(failed, line.body, UNKNOWN if unread else self._wasted(line.body))
        body = line.body or b""
        answer = self._dialect.answer(self._spec.endpoint, body)
        charge = self._spent(answer.model, _credible(answer))
        failure = _no_answer(answer) or self._unfit(answer)
        said = bool(answer.text) or answer.other
        return Verdict(failure and failure._replace(http_status=line.http_status), body, charge, said)

    def _unfit(self, answer: Answer) -> Failure | None:
        """Return why what a model said is not the answer that was asked for; None where it is."""
        wrong = self._check(document_in(answer)) if self._check else None
        if wrong is None:
            fits = self._check is not None or (self._cut_will_do and bool(answer.text))  # half a tool call is of no use
            if fits or not answer.truncated:
                return None
            return Failure(ErrorKind.TRUNCATED, "the answer ran into its token limit, and was cut there", _code(answer))
        if answer.truncated:
            why = f"the answer ran into its token limit before it was whole ({wrong})"
            return Failure(ErrorKind.TRUNCATED, shorten(why), _code(answer))
        return Failure(ErrorKind.INVALID_OUTPUT, shorten(wrong))

    def _wasted(self, body: bytes | None) -> Charge:
        """Return what a request that failed cost: nothing, unless its response says that it used something, or holds a text."""
        answer = self._dialect.answer(self._spec.endpoint, body) if body else None
        if answer is None:
            return Charge()
        if answer.usage is None:
            said = answer.text or answer.value is not None or (answer.other and answer.spoken)
            return UNKNOWN if said else Charge()
        return self._spent(answer.model, answer.usage)

    def _spent(self, model: str | None, usage: Usage | None) -> Charge:
        """Return what an answer of a model cost, where it names one; else that of the one that was asked for; else unknown."""
        if usage is None:
            return Charge(cost=None, list_cost=None)
        paid, listed = self._prices.cost(self._prices.billed(self._spec.model, model), usage) or (None, None)
        read, written = usage.cached_input_tokens, usage.cache_write_tokens
        return Charge(usage.input_tokens, read, usage.output_tokens, paid, listed, written)


def _credible(answer: Answer) -> Usage | None:
    """Return what an answer used; figures by which it was made of nothing at all do not tell its cost."""
    usage, gives = answer.usage, bool(answer.text) or answer.other or answer.value is not None
    return usage._replace(beyond=True) if usage is not None and gives and not any(usage) else usage


_LABEL_TOKENS = 16
"""A limit on tokens that is so low is meant to cut: what is asked for is a label, and its first words tell."""


def _is_label(spec: Spec) -> bool:
    limits = [spec.params.get(name) for name in TOKEN_LIMITS]
    return any(type(limit) is int and limit <= _LABEL_TOKENS for limit in limits)


def _no_answer(answer: Answer) -> Failure | None:
    """Return why a response holds no answer, whatever was asked for; None where it holds one.

    What is final would be paid for again, and come out the same.
    """
    if answer.refusal:
        return Failure(ErrorKind.REFUSAL, shorten(answer.text or "the model declined to answer"), _code(answer))
    if answer.unfinished is not None:
        why = shorten(f"the response ended unfinished: {answer.finish_reason}")
        return Failure(answer.unfinished, why, _code(answer), final=answer.unfinished is ErrorKind.INVALID_OUTPUT)
    if answer.other or answer.value is not None or answer.text or (answer.text == "" and not answer.truncated):
        return None
    code = _code(answer)
    if answer.truncated:
        did = "only thought" if answer.thought else "said nothing"
        return Failure(ErrorKind.TRUNCATED, f"the model {did} before it ran into its token limit", code)
    if answer.thought:
        return Failure(ErrorKind.INVALID_OUTPUT, "the model only thought, and gave no answer", code, final=True)
    why = "the response holds no text" if answer.spoken else "the response holds no answer"
    return Failure(ErrorKind.INVALID_OUTPUT, why, code, final=answer.spoken)


def _code(answer: Answer) -> str | None:
    """Return why an answer ended, as the code of an error."""
    return None if answer.finish_reason is None else shorten(answer.finish_reason)


def scrubbed(verdict: Verdict) -> Verdict:
    """Return a verdict without the secrets that are known in what it keeps of a failure; what a model said is kept as it came."""
    failure, body = verdict.failure, verdict.body
    if failure is None:
        return verdict
    code, param = (None if words is None else scrub.words(words) for words in (failure.code, failure.param))
    cleaned = failure._replace(message=scrub.words(failure.message), code=code, param=param)
    return verdict._replace(failure=cleaned, body=body if body is None or verdict.said else scrub.body(body))


def shorten(text: str) -> str:
    """Return a provider's or a model's words as one line of bounded length, without control characters."""
    line = printable(text[: 4 * _MESSAGE_CHARACTERS])
    return line if len(line) <= _MESSAGE_CHARACTERS else line[: _MESSAGE_CHARACTERS - 1] + "…"
