"""nura show."""

import json
import shlex
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nura_cli.cli.figures import cut, dollars
from nura_cli.cli.grammar import Asked, with_grammar
from nura_cli.cli.session import Session, harmless, output, plain, with_session
from nura_cli.errors import EX_CONFIG, EX_PARTIAL, EX_TEMPFAIL, UsageError
from nura_cli.pipeline.report import Problem, Report, counted

if TYPE_CHECKING:
    from nura_cli.config import Config
    from nura_cli.state import State

_TASKS_SHOWN = 10
"""Tasks of a key that are shown; ``--json`` has them all."""


EXAMPLES = (
    ("nura show classify 4", "all that became of a key: attempts, prompt, answer, deliveries"),
    ("nura show --batch 12", "what became of a batch"),
)
EXIT_CODES = (EX_PARTIAL, EX_TEMPFAIL, EX_CONFIG)


@with_session
@with_grammar
def command(
    session: Session,
    asked: Asked,
    workloads: Annotated[
        list[str] | None,
        typer.Argument(metavar="WORKLOAD [KEY]", help="A workload, and keys of it.", show_default=False),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            help="A batch, by its id here or at the provider; beside anything else: what it holds or settled of that.",
            metavar="ID",
            show_default=False,
        ),
    ] = None,
    request: Annotated[
        bool, typer.Option("--request", help="Print the request of one key as it was sent, and nothing else.")
    ] = False,
    response: Annotated[
        bool, typer.Option("--response", help="Print the response to one key as it came, and nothing else.")
    ] = False,
) -> None:
    """Show what became of a key, or of a batch."""
    from nura_cli.pipeline import show

    given = workloads or []
    asked = replace(asked, workloads=given[:1], keys=[*asked.keys, *given[1:]])
    if request + response + session.json > 1:
        raise UsageError("--request, --response and --json do not go together")
    if batch is None and not asked.anything:
        raise UsageError("nothing is named", hint="nura show WORKLOAD KEY, or nura show --batch ID")
    config = session.config()
    with session.state(config.state, newer=True) as state:
        if batch is not None and not (asked.anything or request or response):
            report = show.batch(state, batch)
            _print(session, report, _batch(report))
            return
        if batch is not None:
            asked = replace(asked, batch=show.find_batch(state, batch).id)
        if request or response:
            _raw(session, state, config, asked, request)
        else:
            report = _report(state, config, asked)
            _print(session, report, _keys(report))


def _report(state: "State", config: "Config", asked: Asked) -> Report:
    from nura_cli.pipeline import show

    problems: list[Problem] = []
    return show.run(state, config, asked.parts(state, config, problems), problems)


def _print(session: Session, report: Report, lines: Iterable[str]) -> None:
    if not session.json:
        with output() as out:
            out.writelines(f"{line}\n".encode("utf-8", "backslashreplace") for line in lines)
    session.finish(report)


def _raw(session: Session, state: "State", config: "Config", asked: Asked, request: bool) -> None:
    """Print one request or response: to a program byte by byte, to a terminal without what it would act upon."""
    from nura_cli.pipeline import show

    problems: list[Problem] = []
    parts = list(asked.parts(state, config, problems))
    for found in problems:
        raise UsageError(found.message)
    if request:
        content, sent = show.request(state, config, parts)
        if not sent:
            session.tell("it was not sent yet: so it would be sent now, with another custom_id")
    else:
        content = show.response(state, parts)
    with output() as out:
        out.write((harmless(content) if sys.stdout.isatty() else content) + b"\n")


# --- keys


def _keys(report: Report) -> Iterator[str]:
    keys = report.result["keys"]
    if len(keys) == 1:
        yield from _history(keys[0])
    for key in keys if len(keys) > 1 else ():
        yield _summary(key)
    if report.result["more"]:
        yield f"and more: these are the first {len(keys)}; nura results has the answers of all"
    if not keys:
        yield "there is nothing of that"


def _standing(key: dict[str, Any]) -> dict[str, Any]:
    """Return the task that stands for a key."""
    return next((task for task in key["tasks"] if task["stands"]), key["tasks"][0])


def _summary(key: dict[str, Any]) -> str:
    task = _standing(key)
    result = task["result"]
    at = result["finished_at"] if result else task["enqueued_at"]
    error = f" {_error(result['error'])}" if result and result["error"] else ""
    return f"{_name(key)}: {task['status']} {'purged' if task['purged'] else at}{error}"


def _name(key: dict[str, Any]) -> str:
    return plain(f"{key['workload']} {_text(key['key'])}")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _error(error: dict[str, Any]) -> str:
    code = f" ({error['code']})" if error["code"] else ""
    return cut(plain(f"{error['kind']}{code}: {error['message']}"))


def _history(key: dict[str, Any]) -> Iterator[str]:
    yield f"{_name(key)}: {key['status']}"
    if key["held"] and key["status"] == "pending":
        yield from _held(key["held"])
    for task in key["tasks"][:_TASKS_SHOWN]:
        yield from _task(task)
    if len(key["tasks"]) > _TASKS_SHOWN:
        yield f"and {counted(len(key['tasks']) - _TASKS_SHOWN, 'earlier task')}: --json has them"
    task = _standing(key)
    if task["purged"]:
        yield "its record and its answer were purged; what it used and cost stays"
        return
    prompt, result = task["prompt"], task["result"]
    how = f"as it was sent in batch {prompt['batch_id']}" if prompt["batch_id"] else "as it would be sent now"
    how = "which was not sent" if prompt["error"] else how
    yield from _section("record", json.dumps(task["record"], ensure_ascii=False))
    yield from _section(f"system, {how}", prompt["system"])
    yield from _section(f"prompt, {how}", prompt["error"] or prompt["text"])
    if result:
        yield from _section(
            "answer", result["text"] if result["json"] is None or result["text"] else json.dumps(result["json"])
        )


def _held(held: dict[str, Any]) -> Iterator[str]:
    until = f", until {held['until']}" if held["until"] else ""
    who = f", by {held['who']}" if held["who"] else ""
    why = ": ".join(one for one in (held["origin"], held["why"]) if one)
    yield "  " + cut(plain(f"held since {held['at']}{until}{who}{f': {why}' if why else ''}"))
    yield f"  type: nura release {'--provider ' if held['scope'] == 'provider' else ''}{shlex.quote(held['name'])}"


def _section(title: str, text: str | None) -> Iterator[str]:
    """Yield words from outside under a title, set in, so that none of them looks like one of ours."""
    if text is not None:
        yield f"{title}:"
        yield from (f"  {line}" for line in plain(text).split("\n"))


def _task(task: dict[str, Any]) -> Iterator[str]:
    result = task["result"]
    again = f", runs task {task['retry_of']} again" if task["retry_of"] else ""
    gone = f", superseded by task {task['superseded_by']}" if task["superseded_by"] else ""
    until = f", not before {task['not_before']}" if task["not_before"] else ""
    under_way = f" in batch {task['batch_id']}" if task["batch_id"] else ""
    at = f" {result['finished_at']}" if result else under_way
    purged = ", purged" if task["purged"] else ""
    yield f"task {task['task_id']}: {task['status']}{at}{until}{again}{gone}{purged}"
    if task["enqueued_at"]:
        yield f"  enqueued {task['enqueued_at']}"
    if task["suspected"]:
        yield f"  {_suspected(task['suspected'])}"
    if result and result["error"]:
        yield f"  {_error(result['error'])}"
    for attempt in task["attempts"]:
        yield from _attempt(attempt)
    for delivery in task["deliveries"]:
        yield from _delivery(delivery)


_EXCUSES = {
    "account": "the account's trouble, or the provider's",
    "alike": "all were refused alike",
    "expired": "its batch's time was over first",
    "canary": "its revision had yet to show itself",
}


def _suspected(found: dict[str, Any]) -> str:
    """Return why a task goes after the others, and apart from them."""
    words = ": ".join(one for one in (found["code"], found["message"]) if one)
    how = {
        "among": "it is one of those that may be to blame, and they are tried apart",
        "alone": "it was alone in it, and is tried again once another batch was taken",
        "named": "the provider names it, and it fails once the rest was taken",
    }[found["how"]]
    return cut(plain(f"batch {found['batch_id']} was refused: {how}{f' ({words})' if words else ''}"))


def _attempt(attempt: dict[str, Any]) -> Iterator[str]:
    where = " ".join(part for part in (attempt["provider"], attempt["model"], attempt["remote_id"]) if part)
    late = ", too late to be used" if attempt["late"] else ""
    excused = f", not counted: {_EXCUSES[attempt['excused']]}" if attempt["excused"] else ""
    yield f"  {attempt['at']} batch {attempt['batch_id']}: {attempt['outcome']}{late}{excused}"
    yield f"    {plain(where)}"
    yield f"    {_spent(attempt)}"
    if attempt["message"]:
        code = f"{attempt['code']}: " if attempt["code"] else ""
        yield f"    {cut(plain(code + attempt['message']))}"


def _spent(spent: dict[str, Any]) -> str:
    usage = spent["usage"]
    cost = "price unknown" if spent["cost"] is None else f"paid {dollars(spent['cost'])}"
    return f"{usage['input_tokens']:,} tokens in, {usage['output_tokens']:,} out, {cost}"


def _delivery(delivery: dict[str, Any]) -> Iterator[str]:
    what = f"row ({delivery['target']})" if delivery["kind"] == "row" else f"{delivery['type']} to {delivery['target']}"
    tries = f", {counted(delivery['tries'], 'try', 'tries')}" if delivery["tries"] else ""
    until = f", not before {delivery['not_before']}" if delivery["not_before"] else ""
    became = {
        "pending": f"waits since {delivery['created_at']}{until}",
        "done": f"{delivery['outcome']} {delivery['done_at']}",
        "dead": f"given up {delivery['done_at']}",
    }
    yield f"  {plain(what)}: {became[delivery['status']]}{tries}"
    if delivery["message"]:
        yield f"    the last: {cut(plain(delivery['message']))}"


# --- a batch

_TIMES = (
    ("created", "created_at"),
    ("submitted", "submitted_at"),
    ("expires", "expires_at"),
    ("ended", "ended_at"),
    ("final", "final_at"),
    ("cancelling taken", "cancel_taken_at"),
)


def _batch(report: Report) -> Iterator[str]:
    found = report.result["batch"]
    yield plain(f"batch {found['id']}: {found['status']}, of {found['workload']}")
    there = f" ({found['remote_status']} there)" if found["remote_status"] else ""
    yield plain(f"  {found['remote_id'] or 'no id yet'} at {found['provider']}{there}")
    yield plain(f"  {found['endpoint']} {found['model'] or ''} revision {found['revision']}")
    yield from (f"  {word} {found[name]}" for word, name in _TIMES if found[name])
    if found["cancel_at"]:
        taken = found["cancel_taken_at"] or found["final_at"]
        yet = "" if taken else f", which {plain(found['provider'])} has not taken yet: nura poll -v"
        yield f"  to be cancelled since {found['cancel_at']}{yet}"
    if found["reason"]:
        yield f"  {cut(plain(found['reason']))}"
    counts = ", ".join(f"{n:,} {word}" for word, n in {**found["tasks"], "purged": found["purged"]}.items() if n)
    n = found["went_on"]
    on = f"; {n:,} went on to another batch, or {'waits' if n == 1 else 'wait'}" if n else ""
    yield f"{counted(found['requests'], 'request')}, {found['bytes']:,} bytes: {counts or 'no task'}{on}"
    failed = ", ".join(f"{n:,} {kind}" for kind, n in found["outcomes"].items() if kind != "answered")
    if failed:
        yield f"  without an answer: {failed}"
    yield f"  {_spent(found)}"
    for remote_id in found["extra_batches"]:
        yield plain(f"  {remote_id} carried its tasks too, and is not used")
    for need in found["attention"]:
        yield f"needs you: {cut(plain(need['message']))}"
        yield f"  type: {need['hint']}"
    yield "log:"
    for line in found["log"]:
        yield from _line(line)


def _line(line: dict[str, Any]) -> Iterator[str]:
    if line["who"] is not None:
        yield plain(f"  {line['at']} nura {line['what']} by {line['who']}")
    else:
        what = "batch" if line["what"] == "batch" else counted(line["n"], "task")
        yield f"  {line['at']} {what}: {line['before'] or 'new'} -> {line['after']}"
    if line["why"]:
        yield f"    {cut(plain(line['why']))}"
