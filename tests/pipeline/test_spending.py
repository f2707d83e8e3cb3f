"""What nura cost says: the sums that are kept beside the ledger, told apart by what an operator asks for."""

import csv
import io
import json
import os
import pty
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nura_cli.cli import build
from nura_cli.errors import UsageError
from nura_cli.pipeline import cost
from nura_cli.state import State, answers, spending
from nura_cli.state.answers import Charge
from tests.conftest import START, Spool
from tests.end_to_end.test_command_line import NURA

DAY = 86400
TODAY = START // DAY * DAY  # 2027-01-15


def spend(path: Path, *rows: tuple[int, str, str, int, int]) -> None:
    """Put sums into a state file: the day as one from today on, workload, model, tokens of its one request, and pico-dollars."""
    with State(path) as state, state.transaction() as db:
        for day, workload, model, tokens, paid in rows:
            db.execute("INSERT OR IGNORE INTO workloads (name) VALUES (?)", (workload,))
            (number,) = db.execute("SELECT id FROM workloads WHERE name = ?", (workload,)).fetchone()
            db.execute("INSERT OR IGNORE INTO lanes VALUES (?, ?, '', '', '')", (number, number))
            db.execute(
                "INSERT INTO trials (lane_id, provider, model, at, outcome, input_tokens, cost, list_cost)"
                " VALUES (?, 'main', ?, ?, 'answered', ?, ?, ?)",
                (number, model, TODAY + day * DAY, tokens, paid, 2 * paid),
            )


def asked(path: Path, by: str, period: cost.Period = cost.Period()) -> Mapping[str, Any]:
    """Return what cost says of a state file."""
    with State(path) as state:
        return cost.run(state, cost.groups(by), period).result


def invoke(path: Path, *options: str) -> tuple[int, str]:
    """Run nura cost; return its exit code, and what it says and prints."""
    ended = CliRunner().invoke(build(["cost"]), ["cost", "--state", str(path), *options])
    return ended.exit_code, ended.output


def test_an_attempt_belongs_to_the_day_on_which_its_batch_was_sent(spool: Spool) -> None:
    spool.clock.advance(TODAY + DAY - 60 - spool.clock())
    spool.fill(3)
    spool.control.fault("rows", match="number 1", status=500)
    spool.dispatch()
    spool.clock.advance(2 * DAY)
    spool.settle()
    found = asked(spool.state_path, "day,workload")
    assert [(row["day"], row["attempts"], row["unanswered"]) for row in found["rows"]] == [
        ("2027-01-15", 3, 1),
        ("2027-01-18", 1, 0),
    ]
    status = spool.status()
    assert {name: found["total"]["cost"][name] for name in ("paid", "list", "saved")} == {
        name: status["cost"][name] for name in ("paid", "list", "saved")
    }
    assert found["total"]["usage"]["input_tokens"] == status["usage"]["input_tokens"] > 0
    spool.check()


def test_what_was_read_from_a_cache_and_what_was_written_there_are_told_apart(anthropic_spool: Spool) -> None:
    usage = {"input_tokens": 5, "output_tokens": 7, "cache_read_input_tokens": 30, "cache_creation_input_tokens": 200}
    anthropic_spool.control.fault("patch", body={"usage": usage})
    anthropic_spool.fill(2)
    anthropic_spool.round()
    (row,) = asked(anthropic_spool.state_path, "model,provider")["rows"]
    assert (row["model"], row["provider"]) == ("claude-haiku-4-5", "main")
    assert list(row["usage"].values()) == [470, 60, 400, 14]
    anthropic_spool.check()


def test_what_was_never_sent_is_no_attempt_and_an_unknown_cost_is_unpriced(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.set(prompt="{{ text }}{{ text.no() if n }}")
    spool.enqueue({"id": 0, "text": "record number 0", "n": 1}, {"id": 1, "text": "record number 1", "n": 0})
    spool.control.fault("patch", body={"usage": None})
    spool.settle()
    assert (spool.counts()["completed"], spool.counts()["failed"]) == (1, 1)
    total = asked(spool.state_path, "workload")["total"]
    assert (total["attempts"], total["unanswered"]) == (1, 0)
    assert (total["cost"]["paid"], total["cost"]["unpriced_attempts"]) == ("0.00", 1)
    spool.check()


def test_what_a_lost_answer_cost_is_put_into_its_place_on_its_day(openai_spool: Spool) -> None:
    spool = openai_spool
    spool.fill(2)
    spool.server.arm({"what": "lost", "times": -1})
    spool.round()
    for _ in range(2):
        spool.clock.advance(1000)
        spool.round()
    spool.resolve("1", give_up=True)
    before = asked(spool.state_path, "day")["rows"][0]
    assert (before["unanswered"], before["cost"]["unpriced_attempts"]) == (2, 2)
    with State(spool.state_path, spool.clock) as state, state.transaction() as db:
        assert answers.late(db, 1, 1, [(1, Charge(7, 3, 4, 50, 100, 2)), (2, Charge(7, 0, 4, 50, 100))]) == 2
    after = asked(spool.state_path, "day")["rows"][0]
    assert (after["attempts"], after["unanswered"], after["cost"]["unpriced_attempts"]) == (2, 2, 0)
    assert (list(after["usage"].values()), after["cost"]["list"]) == ([14, 3, 2, 8], "0.0000000002")
    spool.check_sums()


def test_an_older_nura_that_has_the_file_open_keeps_the_sums_too(openai_spool: Spool) -> None:
    openai_spool.fill(1)
    openai_spool.round()
    with State(openai_spool.state_path) as state, state.transaction() as db:
        db.execute(
            "INSERT OR IGNORE INTO attempts (task_id, batch_id, at, outcome, late, input_tokens, cached_input_tokens,"
            " output_tokens, cost, list_cost, stray) VALUES (1, 1, 1, 'late', 1, 10, 0, 5, 7, 14, 'b')"
        )
        db.execute("UPDATE totals SET input_tokens = input_tokens + 10, output_tokens = output_tokens + 5,"
                   " cost = cost + 7, list_cost = list_cost + 14")  # fmt: skip
    assert asked(openai_spool.state_path, "workload")["total"]["attempts"] == 2
    openai_spool.check_sums()


def test_the_sums_stay_when_the_ledger_goes_and_past_64_bits_at_the_largest(tmp_path: Path) -> None:
    path = tmp_path / "n.db"
    spend(path, (0, "a", "m", 3, 2**61), (0, "a", "m", 2**62, 2**61), (0, "a", "m", 2**62, 5))
    with State(path) as state, state.transaction() as db:
        db.execute("DELETE FROM trials")
    total = asked(path, "workload")["total"]
    assert (total["attempts"], total["usage"]["input_tokens"]) == (3, 2**63 - 1)
    assert total["cost"]["list"] == "9223372.036854775807"


def test_sums_are_told_apart_by_what_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "n.db"
    spend(path, (-20, "b", "m", 1, 10), (-1, "a", "n", 2, 20), (0, "a", "m", 4, 40), (17, "b", "m", 8, 80))

    def tokens(by: str, period: cost.Period = cost.Period()) -> dict[str, int]:
        rows = asked(path, by, period)["rows"]
        return {" ".join(row[name] for name in by.split(",")): row["usage"]["input_tokens"] for row in rows}

    assert tokens("workload") == {"a": 6, "b": 9}
    assert tokens("model") == {"m": 13, "n": 2}
    assert tokens("month") == {"2026-12": 1, "2027-01": 6, "2027-02": 8}
    assert list(tokens("workload,day")) == ["a 2027-01-14", "a 2027-01-15", "b 2026-12-26", "b 2027-02-01"]
    assert tokens("provider", cost.month("2027-01")) == {"main": 6}
    assert tokens("day", cost.since(TODAY + 5, TODAY + DAY)) == {"2027-01-15": 4}
    assert tokens("day", cost.since(None, TODAY)) == {"2026-12-26": 1, "2027-01-14": 2}
    assert tokens("workload", cost.month("1999-12")) == {}
    found = asked(path, "day", cost.since(TODAY + 5, TODAY + 6))
    assert (found["since"], found["until"]) == ("2027-01-15", "2027-01-16")
    assert asked(path, "day")["until"] is None
    assert cost.month("9999-12").since > cost.month("9999-11").since


def test_only_the_sums_are_read(tmp_path: Path) -> None:
    statements: list[str] = []
    with State(tmp_path / "n.db") as state:
        state.db.set_trace_callback(statements.append)
        assert list(spending.spent(state.db, TODAY, TODAY + DAY)) == []
        state.db.set_trace_callback(None)
        plan = [row[3] for one in statements for row in state.db.execute(f"EXPLAIN QUERY PLAN {one}")]
    assert plan[0] == "SEARCH s USING PRIMARY KEY (day>? AND day<?)"
    assert all(step.startswith("SEARCH") for step in plan)


def test_as_csv_no_name_is_a_formula(tmp_path: Path) -> None:
    path = tmp_path / "n.db"
    spend(path, (0, "a", "=1+1", 1, 10**12), (0, "a", 'my "own", model', 2, 5))
    options = ["--csv", "--by", "model,workload", "--month", "2027-01"]
    text = CliRunner().invoke(build(["cost"]), ["cost", "--state", str(path), *options]).stdout_bytes.decode()
    assert text.count("\r\n") == text.count("\n") == 3
    head, *rows = csv.reader(io.StringIO(text))
    assert ",".join(head) == (
        "model,workload,attempts,unanswered,input_tokens,cached_input_tokens,cache_write_tokens,output_tokens,"
        "paid,list,saved,unpriced_attempts,estimated,estimated_paid"
    )
    assert rows == [
        ["'=1+1", "a", "1", "0", "1", "0", "0", "0", "1.00", "2.00", "1.00", "0", "0.00", "0.00"],
        [
            'my "own", model',
            "a",
            "1",
            "0",
            "2",
            "0",
            "0",
            "0",
            "0.000000000005",
            "0.00000000001",
            "0.000000000005",
            "0",
            "0.00",
            "0.00",
        ],
    ]


def test_in_a_pipe_the_table_has_every_column(tmp_path: Path) -> None:
    path = tmp_path / "n.db"
    spend(path, (0, "a", "m", 12_345, 10**12), (0, "bb", "m", 1, 10**9))
    code, text = invoke(path, "--since", "2027-01-01")
    assert code == 0
    assert [line.split() for line in text.splitlines()] == [
        [
            "workload",
            "attempts",
            "no",
            "answer",
            "in",
            "cached",
            "written",
            "out",
            "paid",
            "list",
            "saved",
            "unpriced",
            "estimated",
            "came",
            "to",
        ],
        ["a", "1", "0", "12345", "0", "0", "0", "$1.00", "$2.00", "$1.00", "0", "$0.00", "$0.00"],
        ["bb", "1", "0", "1", "0", "0", "0", "$0.001", "$0.002", "$0.001", "0", "$0.00", "$0.00"],
        ["total", "2", "0", "12346", "0", "0", "0", "$1.001", "$2.002", "$1.001", "0", "$0.00", "$0.00"],
    ]
    assert len({len(line) for line in text.splitlines()}) == 1
    code, text = invoke(path, "--since", "2027-01-01", "--json")
    assert (json.loads(text)["command"], [row["workload"] for row in json.loads(text)["rows"]]) == ("cost", ["a", "bb"])


@pytest.mark.parametrize(("width", "tokens"), [(100, "1,234,567,890"), (80, "1.23G")])
def test_on_a_terminal_it_shows_what_is_not_nothing_and_fits(tmp_path: Path, width: int, tokens: str) -> None:
    path = tmp_path / "n.db"
    spend(path, (0, "a workload", "a-model", 1_234_567_890, 10**16 + 12_345), (0, "b", "m", 1, 10**8))
    leader, follower = pty.openpty()
    subprocess.run(
        [NURA, "cost", "--state", path, "--month", "2027-01", "--by", "workload,model"],
        stdout=follower, env={**os.environ, "COLUMNS": str(width)}, timeout=60, check=True,
    )  # fmt: skip
    os.close(follower)
    lines = os.read(leader, 1 << 16).decode().splitlines()
    os.close(leader)
    assert 60 < max(map(len, lines)) <= width
    assert lines[0].split() == ["workload", "model", "attempts", "in", "out", "paid", "list", "saved"]
    assert lines[1].split()[4] == tokens
    assert lines[1].split()[6] in ("$10,000.00", "$10,000.0000")


def test_without_a_word_it_is_this_months_and_by_month_it_is_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "n.db"
    monkeypatch.setattr("nura_cli.clock.now", lambda: START)
    spend(path, (-20, "a", "m", 1, 10), (0, "a", "m", 2, 20))
    assert json.loads(invoke(path, "--json")[1])["total"]["usage"]["input_tokens"] == 2
    assert json.loads(invoke(path, "--json", "--since", "30d")[1])["total"]["usage"]["input_tokens"] == 3
    assert [row["month"] for row in json.loads(invoke(path, "--json", "--by", "month")[1])["rows"]] == [
        "2026-12",
        "2027-01",
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--month", "2026-13"], "--month 2026-13: is not a month (write it as 2026-11)"),
        (["--month", "November"], "write it as 2026-11"),
        (["--month", "2026-11-01"], "is not a month"),
        (
            ["--month", "2026-11", "--since", "2d"],
            "--month says both ends (give --month alone, or --since and --until)",
        ),
        (["--since", "yesterday"], "--since yesterday: neither a time such as"),
        (["--by", "workload,week"], "--by workload,week: 'week' is none of workload, model, provider, day, month"),
        (["--by", ""], "'' is none of"),
        (["--csv", "--json"], "give one of them"),
    ],
)
def test_what_makes_no_sense_is_said_and_ends_with_2(tmp_path: Path, options: list[str], said: str) -> None:
    with State(tmp_path / "n.db"):
        pass
    code, text = invoke(tmp_path / "n.db", *options)
    assert code == 2
    assert said in text
    with pytest.raises(UsageError):
        cost.groups("workload;model")
