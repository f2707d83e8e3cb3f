"""What became of a key or a batch can be told: what was sent, byte by byte, what came back, and what is to be typed."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from nura_cli import config as configuration
from nura_cli.cli import build
from nura_cli.cli.figures import cut
from nura_cli.dialects import vendors
from nura_cli.errors import UsageError
from nura_cli.pipeline import failures, show
from nura_cli.state import State, actions
from nura_cli.state.actions import Hold
from nura_cli.state.failures import Said
from nura_cli.state.selection import Selection
from nura_cli.state.versions import Moved
from tests.conftest import Spool
from tests.pipeline.test_delivery import REFUSING, WRITE_BACK, App

SECOND_PROTOCOL_IS_LONG = True

SCHEMA = {
    "type": "object",
    "properties": {"why": {"type": "string"}, "answer": {"type": "string"}},
    "required": ["why", "answer"],
    "additionalProperties": False,
}


def nura(spool: Spool, *arguments: str, given: str = "") -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(build(), [*arguments, "-c", str(spool.path)], input=given)


def sent_files(spool: Spool) -> list[bytes]:
    """Return what the provider was sent: the request files, or the bodies of creates."""
    return [path.read_bytes() for path in (spool.folder.parent / "box.db.d").iterdir()]


def request(spool: Spool, key: str, workload: str = "echo") -> bytes:
    """Return the request of a key as show renders it."""
    config = configuration.load(spool.path)
    with State(config.state, spool.clock) as state:
        return show.request(state, config, [Selection(workloads=[workload], keys=[key])]).content


def task(spool: Spool, key: str, **options: Any) -> dict[str, Any]:
    """Return the task that stands for a key, as show tells it."""
    (found,) = spool.show(key, **options)["keys"]
    return next(one for one in found["tasks"] if one["stands"])


# --- what was sent, and what came back


def test_a_request_is_rendered_again_byte_by_byte(spool: Spool) -> None:
    """The order of the workload's options and of its schema's members counts, and so do later changes of its configuration."""
    params = {"top_p": 0.5, "max_tokens": 300, "temperature": 0.25}
    spool.set(schema=SCHEMA, params=params, system='Be "brief" — é.', prompt="Repeat: {{ text }}\n")
    spool.enqueue(*({"id": i, "text": f"record number {i} ü\n"} for i in range(3)))
    spool.dispatch()
    frame = vendors.dialect(spool.protocol).frame
    spool.set(params={"max_tokens": 9}, prompt="Something else: {{ text }}")
    requests = [request(spool, str(i)) for i in range(3)]
    assert frame.head + frame.separator.join(requests) + frame.tail in sent_files(spool)
    assert b"Repeat" in requests[0]
    spool.set(params=dict(sorted(params.items())), prompt="Repeat: {{ text }}\n")
    spool.enqueue({"id": 8, "text": "x"})
    spool.dispatch()
    assert any(request(spool, "8") in content for content in sent_files(spool))
    assert requests == [request(spool, str(i)) for i in range(3)]
    (one, other) = spool.rows("SELECT revision, rendered FROM batches ORDER BY id")
    assert one[0] == other[0]
    assert one[1] != other[1]


def test_a_ready_line_is_shown_as_it_was_sent(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.workloads["raw"] = {"provider": "main"}
    spool.write_config()
    body = {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "Repeat: x"}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    spool.enqueue(line, workload="raw")
    spool.dispatch()
    assert any(content == request(spool, "a", "raw") + b"\n" for content in sent_files(spool))
    assert task(spool, "a", workload="raw")["prompt"]["text"] is None


def test_what_waits_is_shown_as_it_would_be_sent_now(openai_spool: Spool) -> None:
    openai_spool.fill(1)
    openai_spool.set(prompt="Say: {{ text }}", system="Briefly.")
    found = task(openai_spool, "0")["prompt"]
    assert (found["batch_id"], found["system"], found["text"]) == (None, "Briefly.", "Say: record number 0")
    said = nura(openai_spool, "show", "echo", "0", "--request")
    assert b'"Say: record number 0"' in said.stdout_bytes
    assert "was not sent yet" in said.stderr
    openai_spool.set(prompt="Say: {{ words }}")
    assert "'words' is undefined" in task(openai_spool, "0")["prompt"]["error"]
    assert nura(openai_spool, "show", "echo", "0", "--request").exit_code == 3
    del openai_spool.workloads["echo"]
    openai_spool.set("other")
    assert "no workload echo" in task(openai_spool, "0")["prompt"]["error"]


def test_a_response_is_printed_as_it_came(openai_spool: Spool) -> None:
    openai_spool.fill(1)
    assert nura(openai_spool, "show", "echo", "0", "--response").exit_code == 3
    openai_spool.round()
    (answer,) = openai_spool.results()
    said = nura(openai_spool, "show", "echo", "0", "--response")
    assert said.exit_code == 0
    assert said.stdout.count("\n") == 1
    assert json.loads(said.stdout) == answer["response"]


# --- the history of a key


def test_each_attempt_is_told_with_the_providers_words(spool: Spool) -> None:
    spool.fill(2)
    spool.control.fault("rows", match="number 1", status=500, message="try later, please")
    spool.round()
    found = task(spool, "1")
    assert found["status"] == "pending"
    assert found["not_before"] is not None
    assert found["prompt"]["batch_id"] is None
    spool.settle()
    found = task(spool, "1")
    first, second = found["attempts"]
    assert (first["outcome"], first["message"]) == ("provider_error", "try later, please")
    assert (second["outcome"], second["batch_id"], second["message"]) == ("answered", 2, None)
    assert {one["remote_id"] for one in (first, second)} == {one["id"] for one in spool.control.batches()}
    assert second["usage"]["input_tokens"] > 0
    assert found["prompt"] == {"batch_id": 2, "system": None, "text": "Repeat: record number 1", "error": None}
    assert found["result"] == spool.results(key="1")[0]


def test_every_version_of_a_key_is_told(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(1)
    spool.round()
    spool.enqueue({"id": 0, "text": "record number 0 anew"}, replace=True)
    spool.enqueue({"id": 0, "text": "record number 0 at last"}, replace=True)
    (key,) = spool.show("0")["keys"]
    assert [(one["status"], one["stands"]) for one in key["tasks"]] == [
        ("pending", True),
        ("cancelled", False),
        ("completed", False),
    ]
    newest, middle, oldest = key["tasks"]
    assert (oldest["superseded_by"], middle["superseded_by"]) == (middle["task_id"], newest["task_id"])
    assert (key["status"], newest["record"]["text"]) == ("pending", "record number 0 at last")
    assert oldest["result"]["text"]
    said = nura(spool, "show", "echo", "0").stdout
    assert f"task {oldest['task_id']}: completed" in said
    assert f"superseded by task {middle['task_id']}" in said


def test_a_task_that_is_run_again_is_told_beside_the_one_whose_answer_stands(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(1)
    spool.round()
    spool.enqueue({"id": 1, "text": "again"})
    spool.rows("UPDATE tasks SET retry_of = 1 WHERE id = 2")
    (key,) = spool.show("0")["keys"]
    assert [(one["task_id"], one["stands"], one["retry_of"]) for one in key["tasks"]] == [
        (2, False, 1),
        (1, True, None),
    ]
    assert key["status"] == "completed"
    assert "runs task 1 again" in nura(spool, "show", "echo", "0").stdout


def test_deliveries_are_told_with_the_last_refusal(openai_spool: Spool, tmp_path: Path) -> None:
    spool = openai_spool
    spool.databases["app"] = {"url": "sqlite:///app.db?timeout=0.2"}
    spool.set(write_back=WRITE_BACK, events=[{"types": ["task.completed"], "command": ["/bin/false"]}])
    app = App(spool.folder / "app.db", 10)
    app.run(REFUSING)
    spool.fill(8)
    spool.round()
    (row,) = task(spool, "7")["deliveries"]
    assert (row["kind"], row["target"], row["status"], row["tries"], row["message"]) == (
        "row",
        "set",
        "pending",
        1,
        "not this",
    )
    assert row["not_before"] is not None
    row, event = task(spool, "1")["deliveries"]
    assert (row["outcome"], row["status"]) == ("written", "done")
    assert (event["target"], event["status"], event["row"]) == ("command /bin/false", "pending", "written")
    said = nura(spool, "show", "echo", "7").stdout
    assert "the last: not this" in said


def test_words_from_outside_are_shown_as_data(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.enqueue({"id": "k\u202e", "text": "[red]x[/red] \x1b[31m\nlog:\n"})
    said = nura(spool, "show", "echo", "--status", "pending").stdout
    assert "[red]x[/red] \\x1b[31m\n  log:\n" in said
    assert "\x1b" not in said
    assert "k\\u202e" in said


def test_what_fits_in_80_columns_does(openai_spool: Spool) -> None:
    openai_spool.fill(1)
    openai_spool.round()
    for arguments in (["echo", "0"], ["--batch", "1"]):
        assert max(map(len, nura(openai_spool, "show", *arguments).stdout.splitlines())) <= 80


def test_what_holds_a_key_back_is_told_with_what_to_type(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(1)
    assert spool.show("0")["keys"][0]["held"] is None
    with State(spool.state_path, spool.clock) as state, state.transaction() as db:
        actions.hold(db, Hold("provider", "main", "", db.now, db.now + 60, "tim", "too\ndear"))
    said = nura(spool, "show", "echo", "0").stdout
    assert "  held since 2027-01-15T08:00:00Z, until 2027-01-15T08:01:00Z, by tim: too dear\n" in said
    assert "  type: nura release --provider main\n" in said
    with State(spool.state_path, spool.clock) as state, state.transaction() as db:
        actions.hold(db, Hold("workload", "echo", "", db.now - 1, None, "", None))
    said = nura(spool, "show", "echo", "0").stdout
    assert "  held since 2027-01-15T07:59:59Z\n  type: nura release echo\n" in said


# --- which keys


def test_several_keys_are_a_line_each_and_no_more_than_can_be_read(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(30)
    spool.control.fault("rows", match="number 7", status=400, message="no\nsuch  thing")
    spool.dispatch()
    assert spool.show(statuses=["submitted"], batch_id=1)["more"] is True
    assert nura(spool, "show", "--batch", "1", "--status", "submitted").stdout.startswith("echo 0: submitted")
    spool.poll()
    spool.reconcile()
    spool.enqueue({"id": "w", "text": "x"})
    assert nura(spool, "show", "echo", "7", "w").stdout.splitlines() == [
        "echo w: pending 2027-01-15T08:00:00Z",
        "echo 7: failed 2027-01-15T08:00:00Z refused (invalid_request_error): no such thing",
    ]
    said = nura(spool, "show", "echo").stdout.splitlines()
    assert len(said) == 21
    assert said[-1].startswith("and more")
    (found,) = json.loads(nura(spool, "show", "--error", "refused", "--json").stdout)["keys"]
    assert found["key"] == 7
    assert nura(spool, "show", "echo", "--error", "expired").stdout == "there is nothing of that\n"


def test_keys_come_from_a_pipe_and_unknown_ones_are_named(openai_spool: Spool) -> None:
    openai_spool.fill(3)
    said = nura(openai_spool, "show", "echo", "--keys-from", "-", given='0\n17\n{"key": 2}\n')
    assert said.exit_code == 3
    assert said.stdout.splitlines() == ["echo 2: pending 2027-01-15T08:00:00Z", "echo 0: pending 2027-01-15T08:00:00Z"]
    assert "line 2: key 17: no such key; beside it there are" in said.stderr


MISTAKES: tuple[tuple[list[str], str], ...] = (
    ([], "nothing is named"),
    (["echo", "20"], "key 20: no such key; beside it there are 2, 1, 0"),
    (["ecko", "2"], "no workload ecko"),
    (["echo", ""], "--key : its key is empty"),
    (["echo", '["a",'], "--key"),
    (["echo", '["a", "b"]'], 'key ["a","b"]: no such key'),
    (["echo", "--request"], "several keys are meant"),
    (["echo", "0", "--request", "--response"], "do not go together"),
    (["--batch", "9"], "no batch 9"),
    (["--batch", "batch_x", "echo"], "no batch batch_x"),
    (["--batch", "9" * 30], "no batch 999"),
    (["--batch", "-1"], "no batch -1"),
    (["--batch", ""], "no batch"),
)


def test_what_is_not_there_is_said_with_what_is(openai_spool: Spool) -> None:
    openai_spool.fill(3)
    for arguments, words in MISTAKES:
        said = nura(openai_spool, "show", *arguments)
        assert (said.exit_code, said.stdout) == (2, ""), arguments
        assert words in said.stderr


# --- a batch


def test_a_batch_is_told_with_its_log_its_cost_and_what_it_holds(spool: Spool) -> None:
    spool.fill(4)
    spool.control.fault("rows", match="number 1", status=500)
    spool.dispatch()
    assert spool.show(batch="1")["batch"]["tasks"] == {"submitted": 4}
    spool.poll()
    spool.reconcile()
    found = spool.show(batch="1")["batch"]
    assert found["tasks"] == {"submitted": 0, "completed": 3}
    assert found["outcomes"] == {"answered": 3, "provider_error": 1}
    assert found["went_on"] == 1
    assert found["cost"] == spool.status()["cost"]["paid"]
    assert found["usage"] == spool.status()["usage"]
    assert [(one["before"], one["after"]) for one in found["log"] if one["what"] == "batch"][-2:] == [
        ("submitted", "completed"),
        ("completed", "reconciled"),
    ]
    assert all(one["why"] and one["at"] for one in found["log"])
    assert spool.show(batch=found["remote_id"]) == {"batch": found}
    said = nura(spool, "show", "--batch", "1").stdout
    assert "4 requests" in said
    assert "3 completed; 1 went on to another batch, or waits" in said
    assert "without an answer: 1 provider_error" in said
    spool.clock.advance(3600)
    spool.control.fault("rows", match="number 1", status=400)
    spool.round()
    assert spool.show(batch="2")["batch"]["tasks"] == {"submitted": 0, "failed": 1}
    assert spool.show(batch="2")["batch"]["outcomes"] == {"refused": 1}


def test_a_batch_that_needs_a_person_says_what_to_type(openai_spool: Spool) -> None:
    openai_spool.fill(2)
    openai_spool.control.fault("cancel", fraction=0)
    openai_spool.round()
    (need,) = openai_spool.show(batch="1")["batch"]["attention"]
    assert "was cancelled" in need["message"]
    said = nura(openai_spool, "show", "--batch", "1").stdout
    assert "needs you: batch 1 was cancelled" in said
    assert "type: nura resolve 1 --resend" in said


def test_a_wish_to_cancel_is_told_until_the_provider_took_it(openai_spool: Spool) -> None:
    openai_spool.fill(1)
    openai_spool.dispatch()
    openai_spool.rows("UPDATE batches SET cancel_at = ?", openai_spool.clock())
    said = nura(openai_spool, "show", "--batch", "1").stdout
    assert "  to be cancelled since 2027-01-15T08:00:00Z, which main has not taken yet: nura poll -v\n" in said
    openai_spool.rows("UPDATE batches SET cancel_taken_at = ?", openai_spool.clock() + 5)
    said = nura(openai_spool, "show", "--batch", "1").stdout
    assert "  to be cancelled since 2027-01-15T08:00:00Z\n" in said
    assert "  cancelling taken 2027-01-15T08:00:05Z\n" in said


def test_what_persons_did_stands_in_the_log_and_chunks_are_one_line() -> None:
    chunk = Moved(1, "task", "submitted", "completed", 2000, "its result came", None)
    person = Moved(3, "cancel", None, None, 5, "5 tasks (too dear)", "tim")
    log = [chunk, chunk._replace(at=2, n=50), person, person._replace(at=4)]
    assert show.folded(log) == [chunk._replace(at=2, n=2050), person._replace(at=4, n=10)]


# --- failures in status


def test_status_tells_failures_by_their_words_with_a_key_to_look_at(openai_spool: Spool) -> None:
    spool = openai_spool
    said = (
        "line 4: input of 100 tokens in req_1ab",
        "line 5: input of 2,200 tokens in req_2cd",
        "nope-2 does not exist",
    )
    for n, words in enumerate(said):
        spool.enqueue({"id": f"key-{n}", "text": f"record number {n}"})
        spool.control.fault("rows", match="record", status=400, message=words)
        spool.round()
    spool.rows("UPDATE answers SET error_code = iif(task_id < 3, 'too_long', 'no_model')")
    first, second = spool.status()["workloads"]["echo"]["failures"]
    assert first == {
        "kind": "refused",
        "code": "too_long",
        "message": "line … input of … tokens in …",
        "n": 2,
        "key": "key-1",
    }
    assert (second["message"], second["n"], second["key"]) == ("nope-2 does not exist", 1, "key-2")
    shown = nura(spool, "status").stdout
    assert "echo: 2 tasks failed, refused (too_long): line … input of … tokens in …\n" in shown
    assert "type: nura show echo key-1; once it is mended, nura retry echo --error refused:too_long" in shown
    spool.enqueue({"id": "key-2", "text": "record number 9"}, replace=True)
    assert [one["n"] for one in spool.status()["workloads"]["echo"]["failures"]] == [2]


def test_status_tells_why_deliveries_were_given_up(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.databases["app"] = {"url": "sqlite:///app.db?timeout=0.2"}
    set_ = {"summary": "text", "updated": "contains(text, 'number 7') && text || `2`"}
    spool.set(write_back={**WRITE_BACK, "set": set_})
    App(spool.folder / "app.db", 10)
    spool.fill(10)
    spool.round()
    (dead,) = spool.status()["workloads"]["echo"]["dead_deliveries"]
    assert (dead["kind"], dead["n"], dead["key"]) == ("row", 1, 7)
    assert dead["message"].startswith("set.updated:")
    assert "nura show echo 7; once it is mended, nura redeliver echo --rows" in nura(spool, "status").stdout


def test_status_takes_workloads(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.set("other")
    spool.fill(3)
    spool.fill(2, workload="other")
    spool.dispatch()
    found = json.loads(nura(spool, "status", "other", "--json").stdout)
    assert found["workloads"].keys() == found["deliveries"].keys() == {"other"}
    assert found["tasks"]["submitted"] == 2
    assert [one["workload"] for one in found["batches"]] == ["other"]
    assert "echo" not in nura(spool, "status", "other").stdout
    said = nura(spool, "status", "othr")
    assert (said.exit_code, said.stderr) == (2, "nura status: no workload othr (there is echo, other)\n")


@pytest.mark.parametrize(
    ("said", "n", "groups"),
    [
        (["a"] * 3, 3, [(3, "a")]),
        (["a 1", "a 2"], 2, [(2, "a …")]),
        (["a  1\nb"], 1, [(1, "a  1\nb")]),
        (["a"] * 3, 900, [(900, "a")]),
        (["b", "a", "a"], 900, [(2, "a"), (1, "b"), (897, None)]),
        ([None, None], 2, [(2, None)]),
        (["at 12:30:01 in /v1/x_9f: 4,096 > 1.5", "at 1 in v2: 3 > 2"], 2, [(2, "at … in … … > …")]),
    ],
)
def test_alike_words_are_one_group(said: list[str | None], n: int, groups: list[tuple[int, str | None]]) -> None:
    found = failures.grouped([Said(words, str(i)) for i, words in enumerate(said)], n)
    assert [(one.n, one.words) for one in found] == groups
    assert sum(one.n for one in found) == n


KEYS: list[Any] = [1, -1, "2", "a b", "-v", "[1]", '{"x": 1}', '"', " x", "ü'\"", ["a", 1], "$(x)", "--", "\u202e"]


def test_a_key_is_shown_as_it_can_be_typed(openai_spool: Spool) -> None:
    openai_spool.enqueue(*({"id": key, "text": "x"} for key in KEYS))
    for key in KEYS:
        (one,) = shlex.split(failures.argument(key))
        (found,) = json.loads(nura(openai_spool, "show", "echo", one, "--json").stdout)["keys"]
        assert found["key"] == key


def test_long_words_are_cut() -> None:
    assert cut("a\n b") == "a b"
    assert len(cut("x" * 5000)) == 200


def test_a_batch_with_two_owners_is_named_by_its_number(openai_spool: Spool) -> None:
    openai_spool.fill(1)
    openai_spool.dispatch()
    openai_spool.fill(2)
    openai_spool.dispatch()
    remote_id = openai_spool.show(batch="1")["batch"]["remote_id"]
    openai_spool.rows(
        "INSERT INTO strays (provider, remote_id, batch_id, found_at) VALUES ('main', ?, 2, 1)", remote_id
    )
    assert openai_spool.show(batch="2")["batch"]["extra_batches"] == [remote_id]
    with pytest.raises(UsageError, match="of batches 1 and 2"):
        openai_spool.show(batch=remote_id)


@pytest.mark.parametrize(
    ("n", "line", "words"),
    [
        (4, None, "batch 1 was refused: it is one of those that may be to blame, and they are tried apart"),
        (4, 1, "batch 1 was refused: the provider names it, and it fails once the rest was taken (odd: it is bad)"),
        (1, None, "it was alone in it, and is tried again once another batch was taken (odd: it is bad)"),
    ],
)
def test_who_may_be_to_blame_for_a_refused_batch_is_told(
    openai_spool: Spool, n: int, line: int | None, words: str
) -> None:
    openai_spool.fill(n)
    openai_spool.control.fault("refuse", code="odd", message="it is bad", line=line)
    openai_spool.round()
    assert words in nura(openai_spool, "show", "echo", "0").stdout
