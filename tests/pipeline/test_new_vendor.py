"""A vendor that nura was not made for: one line in the table, and it goes through every stage; an unknown one, through none."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nura_cli import config as configuration
from nura_cli.dialects import vendors
from nura_cli.errors import ConfigError
from nura_cli.pipeline import results
from nura_cli.pipeline.accounts import Accounts
from nura_cli.pipeline.report import Report
from nura_cli.pricing import Prices, Usage, decimal_dollars
from nura_cli.sandbox import Sandbox
from nura_cli.state import State
from tests.acme import KEPT, VENDOR, AcmeProvider
from tests.conftest import Spool

COMMAND = (
    "from nura_cli.dialects import vendors; from tests.acme import VENDOR; vendors.VENDORS['acme'] = VENDOR;"
    "from nura_cli.cli import main; main()"
)


class AcmeSpool(Spool):
    """A spool at Acme."""

    told: dict[str, Any]

    def provider(self, **options: Any) -> dict[str, Any]:
        """Return the configuration of an account at Acme."""
        return {"kind": "acme", "api_key_file": "key", "cleanup_after": "never", **options}

    def workload(self, **options: Any) -> dict[str, Any]:
        """Return the configuration of a workload that repeats what it is told."""
        params = {"budget": 3}
        return {"provider": "main", "model": self.model, "prompt": "Repeat: {{ text }}", "params": params, **options}

    @property
    def model(self) -> str:
        """A model with a known price."""
        return "ministral-8b-latest"

    def tell(self, **told: Any) -> None:
        """Tell the vendor how to behave."""
        self.told = told

    def _run(self, work: Callable[[State, configuration.Config, Accounts], Report], *forms: Any) -> Report:
        (self.folder / "acme").mkdir(exist_ok=True)
        (self.folder / "acme" / "told").write_text(json.dumps({"now": self.clock(), **self.told}))
        return super()._run(work, *forms)

    def written(self) -> str:
        """Return the configuration as that of a vendor that ships with nura: the schema lists those."""
        return super().written().replace('"kind": "acme"', '"kind": "openai"')

    def remotes(self) -> list[str]:
        """Return the batches that the vendor still has."""
        return sorted(path.name for path in (self.folder / "acme").glob("batch-*") if path.stat().st_size)


@pytest.fixture
def acme(tmp_path: Path, server: Sandbox, monkeypatch: pytest.MonkeyPatch) -> AcmeSpool:
    """A spool at a vendor that is registered in one place."""
    monkeypatch.setitem(vendors.VENDORS, "acme", VENDOR)
    AcmeSpool.told = {}
    AcmeProvider.looked_at.clear()
    folder = tmp_path / "nura"
    folder.mkdir()
    return AcmeSpool(folder, server, "acme", shown=False)


def nura(*arguments: str, cwd: Path, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the command line, with Acme in the table."""
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments],
        cwd=cwd,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        input=given,
        capture_output=True,
        timeout=60,
        check=False,
    )


def said(acme: AcmeSpool) -> dict[str, str]:
    """Return what is said of the configuration, by place."""
    acme.write_config()
    with pytest.raises(ConfigError) as caught:
        configuration.load(acme.path)
    return {found.where: found.message for found in caught.value.problems}


# --- the configuration


def test_its_rules_are_those_of_the_configuration(acme: AcmeSpool) -> None:
    acme.providers["main"]["organization"] = "o"
    acme.providers["keyless"] = {"kind": "acme", "protocol": "openai"}
    acme.set(
        endpoint="/v1/messages",
        params={"engine": "x", "shape": {}},
        schema={"type": "object", "properties": {"a": {"enum": [1]}}},
    )
    assert said(acme) == {
        "providers.main.organization": "is for kind: openai",
        "providers.keyless": "give one of api_key_env, api_key_file, api_key_command",
        "providers.keyless.protocol": "is for kind: sandbox",
        "workloads.echo.endpoint": "prompts are rendered for /generate; other endpoints take ready lines",
        "workloads.echo.params.engine": "nura sets this itself",
        "workloads.echo.params.shape": "nura sets this itself",
        "workloads.echo.params": "Acme requires budget",
        "workloads.echo.schema.properties.a.enum": "Acme has no enum",
    }


def test_an_option_of_two_vendors_names_both(acme: AcmeSpool) -> None:
    acme.providers["main"]["project"] = "p"
    acme.providers["claude"] = {"kind": "anthropic", "api_key_file": "key", "project": "p"}
    assert said(acme) == {"providers.claude.project": "is for kind: openai or acme"}


def test_a_vendor_that_the_sandbox_does_not_speak_is_no_protocol_of_it(acme: AcmeSpool) -> None:
    acme.providers["box"] = {"kind": "sandbox", "protocol": "acme"}
    assert said(acme) == {"providers.box.protocol": "must be 'openai' or 'anthropic'"}


def test_an_unknown_vendor_is_answered_with_those_that_are_known(acme: AcmeSpool) -> None:
    acme.providers["other"] = {"kind": "gemini", "api_key_file": "key"}
    acme.set(provider="other")
    assert said(acme)["providers.other.kind"] == "must be 'openai', 'anthropic', 'acme' or 'sandbox'"


# --- the stages


def test_it_goes_through_every_stage(acme: AcmeSpool) -> None:
    acme.fill(5)
    sent = acme.dispatch()
    assert [batch["requests"] for batch in sent.result["batches"]] == [3, 2]
    assert sent.exit_code == 0
    assert acme.rows("SELECT DISTINCT dialect, endpoint, address FROM batches") == [("acme", "/generate", "acme")]
    acme.poll()
    assert [batch["remote_status"] for batch in acme.status()["batches"]] == ["brewing", "brewing"]
    acme.clock.advance(61)
    acme.poll()
    settled = acme.reconcile()
    assert settled.result["tasks"]["completed"] == 5
    answers = {answer["key"]: answer for answer in acme.results()}
    assert {key: answer["text"] for key, answer in answers.items()} == {
        n: f"Repeat: record number {n}" for n in range(5)
    }
    cost = Prices("mistral").cost(acme.model, Usage(len("Repeat: record number 0"), 0, 0, 10))
    assert cost is not None
    assert answers[0]["cost"] == decimal_dollars(cost.paid)
    assert acme.status()["attention"] == []


def test_ready_lines_go_there_too(acme: AcmeSpool) -> None:
    acme.workloads = {"raw": {"provider": "main"}}
    acme.write_config()
    acme.enqueue(
        {"ref": "a", "engine": "e", "ask": "hello"},
        {"ref": "b", "engine": "e", "ask": "be sorry"},
        workload="raw",
    )
    refused = acme.enqueue({"custom_id": "a", "params": {}}, workload="raw")
    assert "not an Acme request" in refused.problems[0].message
    acme.settle()
    found = {answer["key"]: (answer["status"], answer["text"], answer["error"]) for answer in acme.results()}
    assert found["a"] == ("completed", "hello", None)
    assert found["b"][2]["message"] == "it would not"
    config = configuration.load(acme.path)
    with State(config.state) as state:
        lines = [json.loads(line) for line in results.vendor_lines(state, "acme")]
    assert sorted(lines, key=lambda line: str(line["ref"])) == [
        {"ref": "a", "said": {"words": "hello", "engine": "e", "heard": 5}},
        {"ref": "b", "sorry": "it would not"},
    ]


@pytest.mark.parametrize("long", [0, 100_000])
def test_a_create_whose_answer_was_lost_is_found_by_what_its_results_call_their_requests(
    acme: AcmeSpool, long: int
) -> None:
    acme.fill(2)
    acme.tell(lose=True)
    assert [found.kind for found in acme.dispatch().problems] == ["unconfirmed"]
    acme.tell(long=long)
    acme.clock.advance(3600)
    acme.settle()
    assert AcmeProvider.looked_at == [65536]  # an answer need not be whole for its request to be known
    assert acme.counts()["completed"] == 2
    assert acme.remotes() == ["batch-0000"]


@pytest.mark.parametrize(("word", "counts"), [("brimful", False), ("unpaid", True), ("whatever", True)])
def test_its_words_for_refusing_a_batch_are_understood(acme: AcmeSpool, word: str, counts: bool) -> None:
    acme.fill(2)
    acme.tell(refuse=word)
    acme.dispatch()
    acme.clock.advance(61)
    acme.poll()
    report = acme.reconcile()
    assert f"{word}: it says" in report.problems[0].message
    (paused,) = acme.status()["paused"]
    assert ("1 of 20" in paused["why"]) is counts
    assert acme.counts()["pending"] == 2


def test_a_create_that_looks_into_its_requests_finds_the_one_to_blame(acme: AcmeSpool) -> None:
    acme.enqueue(*({"id": n, "text": "unspeakable" if n == 1 else f"record number {n}"} for n in range(3)))
    acme.settle()
    assert {answer["key"]: answer["status"] for answer in acme.results()} == {
        0: "completed",
        1: "failed",
        2: "completed",
    }


def test_a_create_that_names_its_bad_requests_sets_all_of_them_aside_at_once(acme: AcmeSpool) -> None:
    """Where a create is refused before anything is looked at, and names a line all the same, the queue stood still (stdapi.ai#240)."""
    acme.enqueue(*({"id": n, "text": "record number 1" if n == 1 else "unspeakable"} for n in range(3)))
    acme.tell(names=True)
    acme.settle()
    assert acme.rows("SELECT requests FROM batches ORDER BY id") == [(3,), (1,)]
    assert {answer["key"]: (answer["error"] or {}).get("message") for answer in acme.results()} == {
        0: "it will not say that",
        1: None,
        2: "it will not say that",
    }


def test_how_long_it_keeps_results_is_what_status_warns_of(acme: AcmeSpool) -> None:
    acme.fill(1)
    acme.dispatch()
    acme.clock.advance(KEPT - 3 * 3600)
    (need,) = acme.status()["attention"]
    assert "expire at main in 3h" in need["message"]


def test_what_was_cleaned_up_there_is_gone_from_its_list(acme: AcmeSpool) -> None:
    acme.providers["main"] = acme.provider(cleanup_after="1h")
    acme.write_config()
    acme.fill(1)
    acme.settle()
    acme.clock.advance(3700)
    assert acme.poll().exit_code == 0
    assert acme.remotes() == []
    assert not list((acme.folder / "acme").glob("file-*"))


def test_a_create_that_never_came_is_absent_though_the_batch_before_it_was_cleaned_up(acme: AcmeSpool) -> None:
    acme.providers["main"] = acme.provider(cleanup_after="1h")
    acme.write_config()
    acme.fill(1)
    acme.settle()
    acme.clock.advance(3000)
    acme.enqueue({"id": 1, "text": "record number 1"})
    acme.tell(drop=True)
    acme.dispatch(ignore_waits=True)
    acme.tell()
    acme.clock.advance(1000)
    acme.poll()
    assert acme.remotes() == []
    acme.settle()
    assert acme.counts()["completed"] == 2
    assert acme.rows("SELECT count(*) FROM batches WHERE held IS NOT NULL") == [(0,)]


# --- the command line


def test_the_command_line_speaks_of_it_and_to_it(acme: AcmeSpool) -> None:
    shown = nura("enqueue", "echo", "-n", cwd=acme.folder, given=b'{"id": 1, "text": "x"}\n')
    assert json.loads(shown.stdout) == {
        "ref": "preview-1",
        "please": {"engine": acme.model, "budget": 3, "ask": "Repeat: x"},
    }
    acme.fill(1)
    acme.settle()
    lines = nura("results", "--format", "acme", cwd=acme.folder)
    assert json.loads(lines.stdout)["ref"] == "0"
    assert json.loads(nura("status", "--json", cwd=acme.folder).stdout)["tasks"]["completed"] == 1
    wrong = nura("results", "--format", "openai", cwd=acme.folder)
    assert (wrong.returncode, b"use --format acme" in wrong.stderr) == (2, True)
    unknown = nura("results", "--format", "gemini", cwd=acme.folder)
    assert unknown.returncode == 2
    assert b"'acme'" in unknown.stderr


def test_a_state_file_of_a_vendor_that_is_not_known_here_is_no_bug_and_no_other_vendors(
    acme: AcmeSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme.fill(2)
    acme.dispatch()
    acme.clock.advance(61)
    acme.poll()
    monkeypatch.delitem(vendors.VENDORS, "acme")
    acme.providers["main"] = {"kind": "openai", "api_key_file": "key"}
    acme.write_config()
    report = acme.reconcile()
    assert report.exit_code == 78
    assert "there is no vendor 'acme' here: nura knows openai, anthropic" in report.problems[0].message
    assert acme.rows("SELECT status FROM tasks") == [("submitted",), ("submitted",)]
    with pytest.raises(ConfigError, match="no vendor 'acme'"):
        acme.status()
