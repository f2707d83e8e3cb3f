"""nura show: what became of a key, or of a batch.

Takes the state file and the configuration; leaves both as they are, takes no lock, and speaks to nobody. Of a key it tells every task
that stands or stood for it, each attempt with its batch and the provider's words, each delivery, and what was sent: the
prompt, and on demand the request itself, are rendered again from the kept record with what the batch was rendered with.
What waits is shown as it would be sent now; where no prompt can be rendered, that is told in its place. A template that
throws dice (``random``) renders otherwise each time.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import msgspec

from nura_cli import contract
from nura_cli.clock import rfc3339, stamp
from nura_cli.config import Config
from nura_cli.dialects.base import Spec
from nura_cli.dialects.vendors import dialect as dialect_of
from nura_cli.errors import ConfigError, InputError, UsageError
from nura_cli.pipeline import attention, plans, render
from nura_cli.pipeline.documents import Documents, one_line
from nura_cli.pipeline.lines import key_of
from nura_cli.pipeline.report import Problem, Report, batch_dict
from nura_cli.pipeline.targets import label_of
from nura_cli.pricing import decimal_dollars
from nura_cli.state import Connection, State, actions, answers, batches, suspects, versions
from nura_cli.state.batches import Batch
from nura_cli.state.selection import Selection
from nura_cli.state.versions import Attempt, Moved, Named, Told, Version
from nura_cli.states import TaskStatus

MOST = 20
"""Keys that are shown at most: of more, nura results has the answers."""
_UNSENT_TAG = "x" * 20
"""Stands for the tag of a batch that is yet to come, which is as long."""


def run(state: State, config: Config, parts: Iterable[Selection], problems: list[Problem]) -> Report:
    """Tell the history of the keys that are meant, of at most :data:`MOST`.

    Args:
        parts: which tasks; ``problems`` of what names none of them are noted there meanwhile.

    Returns:
        ``keys``, and whether there are ``more`` of them.
    """
    found = list(dict.fromkeys((one.workload, one.key) for one in _named(state, parts, MOST + 1)))
    histories = _Histories(state, config)
    keys = [histories.of(workload, key) for workload, key in found[:MOST]]
    result: contract.Keys = {"keys": keys, "more": len(found) > MOST}
    return Report(result, problems, worked=bool(found))


def _named(state: State, parts: Iterable[Selection], most: int) -> list[Named]:
    found: list[Named] = []
    for part in parts:
        found += versions.named(state.db, part, most - len(found))
        if len(found) >= most:
            break
    return found


class _Histories:
    """Tells what became of keys; remembers the batches and what they were rendered with."""

    def __init__(self, state: State, config: Config) -> None:
        self._db = state.db
        self._config = config
        self._documents = Documents(state, config)
        self._labels = {
            (name, plans.target_of(event)): label_of(event)
            for name, workload in config.workloads.items()
            for event in workload.events
        }

    def of(self, workload: str, key: str) -> contract.KeyShown:
        """Return the history of a key (JSON) of a workload, its newest task first."""
        found = versions.versions(self._db, workload, _identity(key))
        ids = [one.task_id for one in found]
        rows = answers.of_tasks(self._db, ids)
        results = {
            row.task_id: _decoded(one)
            for row, one in zip(rows.values(), self._documents.lines([*rows.values()]), strict=True)
        }
        attempts, told = _by_task(versions.attempts(self._db, ids)), _by_task(versions.deliveries(self._db, ids))
        return {
            "workload": workload,
            "key": msgspec.json.decode(key),
            "status": next((str(one.status) for one in found if one.stands), None),
            "held": self._held(workload),
            "tasks": [
                {
                    "task_id": one.task_id,
                    "stands": one.stands,
                    "status": str(one.status),
                    "superseded_by": one.superseded_by,
                    "retry_of": one.retry_of,
                    "batch_id": one.batch_id,
                    "enqueued_at": rfc3339(one.enqueued_at),
                    "purged": one.line is None,
                    "not_before": rfc3339(one.not_before or None) if one.status is TaskStatus.PENDING else None,
                    "suspected": self._suspected(one.task_id),
                    "record": None if one.line is None else msgspec.json.decode(one.line),
                    "prompt": self._prompt(workload, one),
                    "attempts": [_attempt(each) for each in attempts[one.task_id]],
                    "result": results.get(one.task_id),
                    "deliveries": [self._delivery(workload, each) for each in told[one.task_id]],
                }
                for one in found
            ],
        }

    def _held(self, workload: str) -> contract.HoldShown | None:
        options = self._config.workloads.get(workload)
        found = actions.held(self._db, workload, options.provider if options else "")
        return found and {
            "scope": found.scope,
            "name": found.name,
            "origin": found.origin,
            "at": stamp(found.at),
            "until": rfc3339(found.until),
            "who": found.who,
            "why": found.why,
        }

    def _suspected(self, task_id: int) -> contract.Suspicion | None:
        """Return for the refusal of which batch a task may be to blame, and how it came under suspicion; None for most."""
        found = suspects.of(self._db, task_id)
        return found and {
            "batch_id": found.batch_id,
            "how": found.how,
            "since": stamp(found.since),
            "code": found.code,
            "message": found.said,
        }

    def _prompt(self, workload: str, version: Version) -> contract.Prompt:
        batch = _batch_of(self._db, version)
        found: contract.Prompt = {"batch_id": batch and batch.id, "system": None, "text": None, "error": None}
        if version.line is None:
            return {**found, "error": _PURGED}
        try:
            spec = _spec(self._db, batch) if batch else _today(self._config, workload, version).spec
            text = render.prompt_of(workload, spec, version.line)
        except (ConfigError, InputError, UsageError) as error:
            return {**found, "error": error.message}
        return {**found, "system": spec.system, "text": text}

    def _delivery(self, workload: str, one: Told) -> contract.Delivery:
        receiver = self._labels.get((workload, one.target), "a receiver that is no longer in the configuration")
        return {
            "id": one.id,
            "kind": one.kind,
            "type": one.type,
            "target": one.target if one.kind == "row" else receiver,
            "status": one.status,
            "outcome": one.outcome,
            "tries": one.tries,
            "message": one.said,
            "row": one.row,
            "row_error": one.row_error,
            "not_before": rfc3339(one.not_before or None) if one.status == "pending" else None,
            "created_at": stamp(one.created_at),
            "done_at": rfc3339(one.done_at),
        }


_PURGED = "it was purged, and there is nothing to render"


def _identity(key: str) -> str:
    return key_of(msgspec.json.decode(key)).identity


def _decoded(document: Mapping[str, Any]) -> Any:
    return msgspec.json.decode(msgspec.json.encode(document))


def _by_task(rows: Iterable[Any]) -> Mapping[int, list[Any]]:
    found = defaultdict[int, list[Any]](list)
    for row in rows:
        found[row.task_id].append(row)
    return found


def _attempt(one: Attempt) -> contract.Attempt:
    return {
        "batch_id": one.batch_id,
        "remote_id": one.remote_id,
        "provider": one.provider,
        "model": one.model or None,
        "at": stamp(one.at),
        "outcome": one.outcome,
        "late": one.late,
        "code": one.code,
        "message": one.said,
        "param": one.param,
        "excused": one.excused,
        "usage": _usage(one),
        "cost": decimal_dollars(one.cost),
    }


def _usage(*attempts: Attempt | versions.Ended) -> contract.Tokens:
    return {
        "input_tokens": sum(one.input_tokens for one in attempts),
        "cached_input_tokens": sum(one.cached_input_tokens for one in attempts),
        "output_tokens": sum(one.output_tokens for one in attempts),
    }


# --- what was sent, and what came back


def _batch_of(db: Connection, version: Version) -> Batch | None:
    """Return the batch that a task is in, or was in last; None where it waits to be sent, or never was."""
    if version.status is TaskStatus.PENDING:
        return None
    last = versions.last_batch(db, version.task_id) if version.batch_id is None else version.batch_id
    return None if last is None else batches.get(db, last)


def _spec(db: Connection, batch: Batch) -> Spec:
    return Spec.stored(batches.spec(db, batch.rendered or batch.revision))


def _today(config: Config, workload: str, version: Version) -> render.Rendering:
    options = config.workload(workload)
    spoken = dialect_of(config.providers[options.provider].dialect)
    return render.rendering(options, spoken, version.endpoint, version.model)


def _the_one(state: State, parts: Iterable[Selection]) -> tuple[str, Version]:
    """Return the task that stands for the one key that is meant, and its workload.

    Raises:
        UsageError: none is, or several are.
    """
    found = _named(state, parts, 2)
    if len(found) != 1:
        raise UsageError(
            f"{'several keys are' if found else 'no key is'} meant by that", hint="name a workload and one key of it"
        )
    one = found[0]
    every = versions.versions(state.db, one.workload, _identity(one.key))
    return one.workload, next(version for version in every if version.task_id == one.task_id)


class Raw(NamedTuple):
    """Bytes as they went over the wire, and whether they did; a request that waits is as it would be sent now."""

    content: bytes
    sent: bool = True


def request(state: State, config: Config, parts: Iterable[Selection]) -> Raw:
    """Return the request of the one key that is meant, as it stood, or would stand now, in the file of its batch.

    Raises:
        UsageError: not one key is meant.
        InputError, ConfigError: it cannot be rendered.
    """
    workload, version = _the_one(state, parts)
    if version.line is None:
        raise InputError(_PURGED)
    batch = _batch_of(state.db, version)
    rendering = render.rendered(workload, _spec(state.db, batch)) if batch else _today(config, workload, version)
    tag = batch.tag if batch else _UNSENT_TAG
    made = rendering.maker(tag, rendering.dialect.limits)
    return Raw(made(version.task_id, version.line).data, batch is not None)


def response(state: State, parts: Iterable[Selection]) -> bytes:
    """Return the response to the one key that is meant, as the provider gave it, on one line.

    Raises:
        UsageError: not one key is meant.
        InputError: none is kept.
    """
    _, version = _the_one(state, parts)
    row = answers.of_tasks(state.db, [version.task_id]).get(version.task_id)
    if row is None or row.body is None:
        what = "it was purged" if version.line is None else f"it is {version.status}"
        raise InputError(f"{what}, and no response is kept", hint="nura show without --response tells why")
    return bytes(one_line(row.body))


# --- a batch


def batch(state: State, name: str) -> Report:
    """Tell what became of a batch: its times, counts, tokens and cost, its log, and what needs a person.

    Args:
        name: its id here, or at its provider.

    Raises:
        UsageError: there is no such batch, or there are several.
    """
    found = find_batch(state, name)
    ended = versions.outcomes(state.db, found.id)
    held, purged = versions.tasks_of(state.db, found.id), versions.purged_of(state.db, found.id)
    needs = [*attention.about([found], state.clock()), *attention.cancelled([found] if found.cancelled else [])]
    settled = sum(n for status, n in held.items() if status is not TaskStatus.SUBMITTED)
    result: contract.BatchShown = {
        **batch_dict(found),
        "reason": found.reason,
        "held": found.held,
        "final_at": rfc3339(found.final_at),
        "cancel_at": rfc3339(found.cancel_at),
        "cancel_taken_at": rfc3339(found.cancel_taken_at),
        "extra_batches": batches.beside(state.db, found.id),
        "tasks": {str(status): n for status, n in held.items()},
        "purged": purged,
        "went_on": sum(one.n for one in ended) - settled - purged,
        "outcomes": {one.outcome: one.n for one in ended},
        "usage": _usage(*ended),
        "cost": decimal_dollars(_sum([one.cost for one in ended])),
        "attention": [need.as_dict() for need in needs],
        "log": [_line(one) for one in folded(versions.log_of(state.db, found.id))],
    }
    one_batch: contract.OneBatch = {"batch": result}
    return Report(one_batch, worked=True)


def find_batch(state: State, name: str) -> Batch:
    """Return the batch with this id, here or at its provider. Raises UsageError: there is none, or there are several."""
    found = batches.named(state.db, name)
    if not found:
        raise UsageError(
            f"no batch {name}", hint="nura status names those under way; nura results the batch of each answer"
        )
    if len(found) > 1:
        ids = " and ".join(str(one.id) for one in found)
        raise UsageError(f"{name} is the id of batches {ids}", hint=f"name one of them: --batch {found[-1].id}")
    return found[0]


def _sum(costs: Sequence[int | None]) -> int | None:
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None


def folded(log: Iterable[Moved]) -> list[Moved]:
    """Return a log in which moves of one kind that follow each other, chunk by chunk, are one line with all of their tasks."""
    found = []
    for _, same in groupby(log, key=lambda one: one._replace(at=0, n=0)):
        moves = list(same)
        found.append(moves[-1]._replace(n=sum(one.n for one in moves)))
    return found


def _line(one: Moved) -> contract.LogLine:
    return {
        "at": stamp(one.at),
        "what": one.what,
        "before": one.before,
        "after": one.after,
        "n": one.n,
        "why": one.why,
        "who": one.who,
    }
