"""Pure decisions about one result line: is it an answer, does it fit the schema, what did it cost."""

from typing import Any, NamedTuple

from nura_cli import schemas, scrub
from nura_cli.dialects.base import Dialect, ResultLine, Spec
from nura_cli.pricing import Prices
from nura_cli.state.answers import Charge, Failure
from nura_cli.states import ErrorKind

_MESSAGE_CHARACTERS = 500


class Verdict(NamedTuple):
    """What a result line says of its task: a failure or an answer, the body to keep, what it used and cost."""

    failure: Failure | None
    body: bytes | None
    charge: Charge


class Classifier:
    """Judges the result lines of one batch, by the spec it was rendered with."""

    def __init__(self, dialect: Dialect, spec: Spec, prices: Prices) -> None:
        self._dialect = dialect
        self._spec = spec
        self._prices = prices
        self._check = schemas.check(spec.answer_schema) if spec.answer_schema is not None else None

    def classify(self, line: ResultLine) -> Verdict:
        """Return what becomes of the task that a result line is about."""
        if line.error is not None:
            message = shorten(line.message or str(line.error))
            failure = Failure(line.error, message, line.code, line.http_status, line.param, line.blame)
            return Verdict(failure, line.body, Charge())
        body = line.body or b""
        answer = self._dialect.answer(self._spec.endpoint, body)
        charge = self._spent(answer.model or self._spec.model, answer.usage)
        if answer.refusal:
            why = shorten(answer.text or "the model declined to answer")
            return Verdict(Failure(ErrorKind.REFUSAL, why, answer.finish_reason, line.http_status), body, charge)
        says_nothing = answer.text is None and answer.value is None and answer.finish_reason is None
        if (
            says_nothing and self._spec.endpoint in self._dialect.endpoints
        ):  # other endpoints have answers of other forms
            why = "the response holds no answer"
            return Verdict(Failure(ErrorKind.INVALID_OUTPUT, why, None, line.http_status), body, charge)
        wrong = self._check(answer.text) if self._check else None
        if wrong is None:
            return Verdict(None, body, charge)
        if answer.truncated:
            why = f"the answer ran into its token limit before it was whole ({wrong})"
            return Verdict(
                Failure(ErrorKind.TRUNCATED, shorten(why), answer.finish_reason, line.http_status), body, charge
            )
        return Verdict(Failure(ErrorKind.INVALID_OUTPUT, shorten(wrong), None, line.http_status), body, charge)

    def _spent(self, model: str, usage: Any) -> Charge:
        """Return what an answer cost: by the model that it names, else by the one that was asked for, else unknown."""
        if usage is None:
            return Charge(cost=None, list_cost=None)
        cost = self._prices.cost(model, usage)
        if cost is None and self._spec.model and model != self._spec.model:
            cost = self._prices.cost(self._spec.model, usage)
        paid, listed = cost or (None, None)
        return Charge(usage.input_tokens, usage.cached_input_tokens, usage.output_tokens, paid, listed)


def scrubbed(verdict: Verdict) -> Verdict:
    """Return a verdict without the secrets that are known in what it keeps of a failure; an answer is kept as it came."""
    failure, body = verdict.failure, verdict.body
    if failure is None:
        return verdict
    code, param = (None if words is None else scrub.words(words) for words in (failure.code, failure.param))
    cleaned = failure._replace(message=scrub.words(failure.message), code=code, param=param)
    return verdict._replace(failure=cleaned, body=None if body is None else scrub.body(body))


def shorten(text: str) -> str:
    """Return a provider's or a model's words as one line of bounded length, without control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * _MESSAGE_CHARACTERS]).split())
    return line if len(line) <= _MESSAGE_CHARACTERS else line[: _MESSAGE_CHARACTERS - 1] + "…"
