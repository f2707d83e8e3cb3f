"""What most tests need: a spool in a temporary folder, on a sandbox that a test can make fail."""

import io
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings

from nura_cli import config as configuration
from nura_cli import contract
from nura_cli.pipeline import (
    backup,
    cancel,
    dispatch,
    enqueue,
    hold,
    poll,
    preview,
    purge,
    reconcile,
    redeliver,
    release,
    resolve,
    results,
    retry,
    show,
    status,
    uploads,
)
from nura_cli.pipeline.accounts import Accounts
from nura_cli.pipeline.report import Report
from nura_cli.pipeline.symptoms import Alert, loaded
from nura_cli.sandbox import Control, Sandbox
from nura_cli.state import State, batches, outbox
from nura_cli.state.actions import Scope
from nura_cli.state.answers import Charge
from nura_cli.state.selection import Selection
from nura_cli.state.spending import Sums
from tests import documents, tallies

PROTOCOLS = ("openai", "anthropic")
OPENAI_FIRST = ("openai", pytest.param("anthropic", marks=pytest.mark.long))
"""The protocols of a test in which real processes meet the provider, and to which it hardly matters which."""
START = 1_800_000_000
MEMORY = Path("/dev/shm")
ROOM = 2 * 1024**3
# A loaded machine fails no test, and a green tree stays green: examples that nobody has seen belong to the soak.
settings.register_profile("nura", deadline=None, derandomize="NURA_WALK" not in os.environ)
settings.load_profile("nura")
# The processes that tests start keep what Python compiled: else each of the hundreds would compile nura anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_configure(config: pytest.Config) -> None:
    """Settle, before there are workers, what they share: where their folders lie, and the seed of a soak's walks.

    Kills lose nothing that was written, synced to a disk or not: beside each other, tests need not wait for one.
    """
    if config.getoption("numprocesses", None) and _is_roomy(MEMORY):
        os.environ.setdefault("TMPDIR", str(MEMORY))
        tempfile.tempdir = None  # it is looked for once, and then remembered
    if os.environ.get("NURA_WALK"):
        os.environ.setdefault("NURA_WALK_SEED", str(secrets.randbelow(2**32)))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the second protocol as long in modules that say ``SECOND_PROTOCOL_IS_LONG``: what they show hardly depends on it."""
    for item in items:
        found = getattr(item, "callspec", None)
        module = getattr(item, "module", None)
        if (
            found is not None
            and getattr(module, "SECOND_PROTOCOL_IS_LONG", False)
            and PROTOCOLS[1] in found.params.values()
        ):
            item.add_marker(pytest.mark.long)


def _is_roomy(folder: Path) -> bool:
    """Return whether tests may lie in a folder: room enough, and programs may be run from there."""
    if not os.access(folder, os.W_OK | os.X_OK):
        return False
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize >= ROOM and not found.f_flag & os.ST_NOEXEC


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let a worker hand on what its tests counted."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tallies"] = tallies.counted()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add what a worker counted; one that crashed hands on nothing."""
    tallies.add(getattr(node, "workeroutput", {}).get("tallies", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what all tests counted."""
    for line in tallies.lines():
        terminalreporter.write_line(line)


def need(tool: str, package: str) -> str:
    """Return the path of a system tool, or skip the test and say how to get it; where skips are not allowed, fail."""
    found = shutil.which(tool) or shutil.which(tool, path="/usr/sbin:/sbin")
    if found is None:
        reason = f"needs {tool}: apt-get install {package}"
        if os.environ.get("NURA_NO_SKIPS"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def cron_environment(home: Path) -> dict[str, str]:
    """Return the environment that cron gives, and with it that nobody is trusted, as in this process."""
    return {"PATH": "/usr/bin:/bin", "HOME": str(home), "SSL_CERT_DIR": os.environ["SSL_CERT_DIR"]}


class Clock:
    """A clock that stands still until it is moved; the sandbox's moves along."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self.time = START
        control.advance(START - int(time.time()))

    def __call__(self) -> int:
        return self.time

    def advance(self, seconds: int) -> None:
        """Move this clock, and the provider's."""
        self.time += seconds
        self._control.advance(seconds)


_SUMMED = (
    "count(*), sum(outcome <> 'answered'), sum(input_tokens), sum(cached_input_tokens), sum(cache_write_tokens),"
    " sum(output_tokens), sum(coalesce(cost, 0)), sum(coalesce(list_cost, 0)), sum(cost IS NULL)"
)
_SPENT_ON = (*Charge._fields, "outcome")
LEDGER = (
    f"SELECT at - at % 86400, lane_id, provider, model, {_SUMMED} FROM"
    f" (SELECT b.sent_at AS at, b.lane_id, b.provider, b.model, a.{', a.'.join(_SPENT_ON)} FROM attempts a"
    " JOIN batches b ON b.id = a.batch_id WHERE b.sent_at IS NOT NULL AND a.outcome <> 'render'"
    f" UNION ALL SELECT at, lane_id, provider, model, {', '.join(_SPENT_ON)} FROM trials) GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
)
KEPT = f"SELECT day, lane_id, provider, model, {', '.join(Sums._fields)} FROM spending ORDER BY 1, 2, 3, 4"
"""The sums of the ledger, and those that are kept of it."""


STANDING = "(SELECT task_id, digest FROM keys UNION ALL SELECT task_id, digest FROM hashes)"
"""As SQL: the tasks that stand for their keys, in whatever way a state file keeps these."""


class Spool:
    """nura in a temporary folder: the stages as methods, each a run of its own, as cron would have it."""

    def __init__(self, folder: Path, server: Sandbox, protocol: str, *, shown: bool = True) -> None:
        self.folder = folder
        self.server = server
        self.protocol = protocol
        self.control = server.control
        self.clock = Clock(self.control)
        (folder / "key").write_text("sk-test-1\n")
        self.providers: dict[str, Any] = {"main": self.provider()}
        self.databases: dict[str, Any] = {}
        self.workloads: dict[str, Any] = {"echo": self.workload()}
        self.path = folder / "nura.yaml"
        self.write_config()
        if shown:
            self._note_shown()

    def _note_shown(self) -> None:
        """Let the provider's list have shown a batch of this state file before, so that absence from it counts."""
        address = f"{self.protocol} {self.providers['main']['base_url']}"
        with State(self.state_path, self.clock) as state, state.transaction() as db:
            batches.note_shown(db, address, "an earlier batch")

    def provider(self, **options: Any) -> dict[str, Any]:
        """Return the configuration of a provider on the sandbox."""
        base = self.server.openai_base_url if self.protocol == "openai" else self.server.anthropic_base_url
        return {"kind": self.protocol, "base_url": base, "api_key_file": "key", "cleanup_after": "never", **options}

    def workload(self, **options: Any) -> dict[str, Any]:
        """Return the configuration of a workload that repeats what it is told."""
        params = {"max_tokens": 300} if self.protocol == "anthropic" else {}
        return {"provider": "main", "model": self.model, "prompt": "Repeat: {{ text }}", "params": params, **options}

    @property
    def model(self) -> str:
        """A model with a known price."""
        return "claude-haiku-4-5" if self.protocol == "anthropic" else "gpt-4.1-mini"

    def write_config(self) -> None:
        """Write the configuration file anew."""
        document = {
            "state": "nura.db",
            "providers": self.providers,
            "databases": self.databases,
            "workloads": self.workloads,
        }
        self.path.write_text(json.dumps(document))

    def set(self, workload: str = "echo", **options: Any) -> None:
        """Give a workload more options."""
        self.workloads[workload] = {**self.workloads.get(workload, self.workload()), **options}
        self.write_config()

    @property
    def state_path(self) -> Path:
        """The state file."""
        return self.folder / "nura.db"

    def _run(self, work: Callable[[State, configuration.Config, Accounts], Report], *forms: Any) -> Report:
        """Run something with the state file open; its report is what the contract says of it, in one of its forms."""
        config = configuration.load(self.path)
        with State(config.state, self.clock) as state, Accounts(config, state.path, state.state_id) as accounts:
            report = work(state, config, accounts)
        documents.check_configuration(self.written())
        documents.check(report.result, *forms)
        return report

    def written(self) -> str:
        """Return the configuration as the schema may know it."""
        return self.path.read_text()

    def enqueue(self, *records: Mapping[str, Any] | bytes, workload: str = "echo", **options: Any) -> Report:
        """Enqueue records (or raw lines)."""
        lines = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in records]
        source = enqueue.Source("-", io.BytesIO(b"\n".join(lines) + b"\n"))

        def work(state: State, config: configuration.Config, accounts: Accounts) -> Report:
            chosen = config.workloads[workload]
            return enqueue.run(state, chosen, accounts.dialect(chosen.provider), [source], **options)

        return self._run(work, contract.EnqueuedRecords)

    def enqueue_from_source(self, workload: str = "echo") -> Report:
        """Enqueue what the workload's own source gives."""

        def work(state: State, config: configuration.Config, accounts: Accounts) -> Report:
            chosen = config.workloads[workload]
            rows = enqueue.from_source(chosen, config)
            return enqueue.run(state, chosen, accounts.dialect(chosen.provider), [rows])

        return self._run(work, contract.EnqueuedRecords)

    def fill(self, n: int, workload: str = "echo") -> None:
        """Enqueue n records, with keys from 0 on."""
        self.enqueue(*({"id": i, "text": f"record number {i}"} for i in range(n)), workload=workload)

    def dispatch(self, **options: Any) -> Report:
        """Run dispatch."""
        return self._run(
            lambda state, config, accounts: dispatch.run(state, config, accounts, **options), contract.Dispatched
        )

    def preview(self, **options: Any) -> Report:
        """Run a dry run of dispatch."""
        return self._run(
            lambda state, config, accounts: preview.run(state, config, accounts, **options), contract.Planned
        )

    def poll(self, **options: Any) -> Report:
        """Run poll."""
        return self._run(lambda state, config, accounts: poll.run(state, config, accounts, **options), contract.Polled)

    def reconcile(self) -> Report:
        """Run reconcile."""
        return self._run(lambda state, config, accounts: reconcile.run(state, config), contract.Reconciled)

    def resolve(self, *names: str, adopt: str | None = None, give_up: bool = False) -> Report:
        """Run resolve: with ``--resend``, unless told otherwise."""
        decision = adopt or (resolve.Decision.GIVE_UP if give_up else resolve.Decision.RESEND)
        return self._run(
            lambda state, config, accounts: resolve.run(state, config, accounts, names, decision), contract.Resolved
        )

    def hold(self, *names: str, scope: Scope = "workload", until: int | None = None, why: str | None = None) -> Report:
        """Run hold, as somebody called tim."""

        def work(state: State, config: configuration.Config, accounts: Accounts) -> Report:
            state.db.who, state.db.why = "tim", why
            return hold.run(state, config, scope, names, until)

        return self._run(work, contract.Held)

    def release(self, *names: str, scope: Scope = "workload") -> Report:
        """Run release, as somebody called ann."""

        def work(state: State, config: configuration.Config, accounts: Accounts) -> Report:
            state.db.who = "ann"
            return release.run(state, config, scope, names)

        return self._run(work, contract.Released)

    def retry(self, *workloads: str, **chosen: Any) -> Report:
        """Run retry, as somebody who agrees to it."""

        def work(state: State, config: configuration.Config, accounts: Accounts) -> Report:
            statuses = retry.check(chosen.pop("statuses", ()))
            meant = Selection(workloads=workloads or ["echo"], statuses=statuses, **chosen)
            return retry.run(retry.plan(state, config, [meant], []))

        return self._run(work, contract.Retried)

    def show(self, *keys: str, batch: str | None = None, workload: str = "echo", **options: Any) -> dict[str, Any]:
        """Return what show says of keys of a workload, or of a batch."""

        def work(state: State, config: configuration.Config, accounts: Accounts) -> Report:
            chosen = Selection(workloads=[workload], keys=keys or None, **options)
            return show.run(state, config, [chosen], []) if batch is None else show.batch(state, batch)

        return dict(self._run(work, contract.Keys, contract.OneBatch).result)

    def redeliver(self, *kinds: outbox.Kind, made: bool = False, drop: bool = False, **chosen: Any) -> Report:
        """Run redeliver on what is chosen: on all, unless told otherwise."""
        wanted = redeliver.Wanted(kinds or ("row", "event"), made, drop)
        return self._run(
            lambda state, config, accounts: redeliver.run(state, config, [Selection(**chosen)], wanted),
            contract.RedeliveredAll,
        )

    def cancel(
        self, *workloads: str, batch: int | None = None, under_way: bool = False, dry_run: bool = False, **chosen: Any
    ) -> Report:
        """Run cancel, as a person who says why: of what waits, or of batches."""

        def work(state: State, config: configuration.Config, accounts: Accounts) -> Report:
            state.db.who, state.db.why = "tim", "a runaway"
            names = workloads or (() if batch is not None else ("echo",))
            if under_way or batch is not None:
                meant = cancel.meant(state, names, batch)
                return cancel.under_way(state, config, accounts, meant, dry_run=dry_run)
            parts = [Selection(workloads=names, **chosen)]
            return cancel.waiting(state, config, accounts, parts, workloads=names, dry_run=dry_run)

        return self._run(work, contract.CancelledTasks, contract.CancelledBatches)

    def backup(self, folder: Path | None = None) -> Report:
        """Run backup, into a folder of its own where none is given."""

        def work(state: State, config: configuration.Config, accounts: Accounts) -> Report:
            return backup.run(state, folder or self.folder / "kept", config)

        return self._run(work, contract.BackedUp)

    def restore(self, path: str) -> None:
        """Put a backup in the place of the state file and the spool, as ``nura help restore`` has it."""
        for old in (self.state_path, *self.folder.glob("nura.db-*")):
            old.unlink(missing_ok=True)
        shutil.rmtree(self.folder / "nura.db.spool", ignore_errors=True)
        shutil.copytree(path, self.folder, dirs_exist_ok=True)

    def purge(self, *keys: str, workload: str = "echo", again: bool = False, why: str | None = None) -> Report:
        """Run purge on keys of a workload, as somebody who agrees to it."""

        def work(state: State, config: configuration.Config, accounts: Accounts) -> Report:
            state.db.who, state.db.why = "tim", why
            chosen = Selection(workloads=[workload], keys=keys)
            return purge.run(purge.plan(state, config, [chosen], [], again=again))

        return self._run(work, contract.Purged)

    def purge_old(self, *workloads: str, seconds: int, read_to: int | None = None, undelivered: bool = False) -> Report:
        """Run purge on what is so old, as somebody who agrees to it."""

        def work(state: State, config: configuration.Config, accounts: Accounts) -> Report:
            state.db.who = "tim"
            return purge.run_old(
                purge.plan_old(state, config, workloads, seconds, read_to=read_to, undelivered=undelivered)
            )

        return self._run(work, contract.Purged)

    def round(self) -> tuple[Report, Report, Report]:
        """Run the three stages, as one line of cron does."""
        return self.dispatch(), self.poll(), self.reconcile()

    def settle(self, rounds: int = 12) -> None:
        """Let cron run, with hours in between, until nothing is left to do."""
        for _ in range(rounds):
            self.round()
            if not any(self.counts()[name] for name in ("pending", "submitted")):
                return
            self.clock.advance(7 * 3600)
        raise AssertionError(f"not settled after {rounds} rounds: {self.counts()}")

    def status(self, alert: Alert = Alert(None, None)) -> dict[str, Any]:
        """Return what status says; that something has waited for long only where ``alert`` says so: there is no cron here."""

        def work(state: State, config: configuration.Config, accounts: Accounts) -> Report:
            return status.run(state, loaded(config)._replace(alert=alert))

        return dict(self._run(work, contract.Status).result)

    def counts(self) -> dict[str, int]:
        """Return the tasks by state."""
        found: dict[str, int] = self.status()["tasks"]
        return found

    def results(self, after: int = 0, key: str | None = None, **options: Any) -> list[dict[str, Any]]:
        """Return the documents of results."""
        config = configuration.load(self.path)
        chosen = Selection(keys=None if key is None else [key], **options)
        with State(config.state) as state:
            encoded = list(results.lines(state, config, chosen, after=after))
            made = results.stream(state, config, chosen, after=after)
            assert encoded == [msgspec.json.encode(document) + b"\n" for document in made]
        found = [json.loads(line) for line in encoded]
        for one in found:
            documents.check(one, contract.Result)
        return found

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return rows of the state file: for what no command shows."""
        with State(self.state_path) as state:
            return state.db.execute(query, values).fetchall()

    def batches(self) -> list[tuple[Any, ...]]:
        """Return (id, status) of every batch."""
        return self.rows("SELECT id, status FROM batches ORDER BY id")

    def check(self) -> None:
        """Assert what must always hold: sound file, true counts, one version of each key, nothing billed twice, answers at their keys."""
        assert self.rows("PRAGMA integrity_check") == [("ok",)]
        real = self.rows(
            "SELECT lane_id, status, superseded_by IS NOT NULL, count(*) FROM tasks GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
        )
        kept = self.rows("SELECT lane_id, status, superseded, n FROM counts WHERE n > 0 ORDER BY 1, 2, 3")
        assert real == kept
        self.check_sums()
        lost = f"SELECT k.task_id FROM {STANDING} k LEFT JOIN tasks t ON t.id = k.task_id WHERE t.id IS NULL OR t.superseded_by IS NOT NULL"
        assert self.rows(lost) == []
        beside = (
            f"SELECT t.id, t.status, o.status FROM tasks t LEFT JOIN {STANDING} k ON k.task_id = t.id"
            " LEFT JOIN tasks o ON o.id = t.retry_of WHERE t.superseded_by IS NULL AND k.task_id IS NULL"
            " AND EXISTS (SELECT 1 FROM records r WHERE r.task_id = t.id)"  # what was purged may stand for nothing
        )
        assert {found[1:] for found in self.rows(beside)} <= {("pending", "completed"), ("submitted", "completed")}
        twice = (
            "SELECT retry_of FROM tasks WHERE superseded_by IS NULL AND status IN ('pending', 'submitted')"
            " AND retry_of IS NOT NULL GROUP BY retry_of HAVING count(*) > 1"
        )
        assert self.rows(twice) == []
        assert self.control.billing()["twice"]["custom_id"] == []
        for answer in self.results(statuses=["completed"], workloads=["echo"]):
            assert f"record number {answer['key']} " in answer["text"] + " ", answer

    def check_sums(self) -> None:
        """Assert that the kept sums are those of the ledger, by day, queue, provider and model, and a queue's totals those of all."""
        assert self.rows(KEPT) == self.rows(LEDGER)
        figures = (
            "sum(input_tokens), sum(cached_input_tokens), sum(output_tokens), sum(cost), sum(list_cost), sum(unpriced)"
        )
        of_lanes = f"SELECT lane_id, {figures} FROM %s GROUP BY lane_id HAVING sum(input_tokens + output_tokens + cost + unpriced)"
        assert self.rows(of_lanes % "spending") == self.rows(of_lanes % "totals")


@pytest.fixture(scope="session", autouse=True)
def _no_certificates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Trust nobody: all is spoken to on loopback without TLS, and each client would read all of a system's certificates."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SSL_CERT_FILE", raising=False)
        patch.setenv("SSL_CERT_DIR", str(tmp_path_factory.mktemp("no-certificates")))
        yield


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sandbox]:
    """A running sandbox."""
    with Sandbox(tmp_path / "box.db") as running:
        yield running


@pytest.fixture(params=OPENAI_FIRST)
def spool(request: pytest.FixtureRequest, tmp_path: Path, server: Sandbox) -> Spool:
    """A spool on a running sandbox, in each protocol."""
    folder = tmp_path / "nura"
    folder.mkdir()
    return Spool(folder, server, request.param)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no run wait for a file."""
    monkeypatch.setattr(uploads, "WAIT_SECONDS", 0)


@pytest.fixture
def openai_spool(tmp_path: Path, server: Sandbox) -> Spool:
    """A spool that speaks OpenAI's protocol."""
    folder = tmp_path / "nura"
    folder.mkdir()
    return Spool(folder, server, "openai")


@pytest.fixture
def anthropic_spool(tmp_path: Path, server: Sandbox) -> Spool:
    """A spool that speaks Anthropic's protocol."""
    folder = tmp_path / "nura"
    folder.mkdir()
    return Spool(folder, server, "anthropic")
