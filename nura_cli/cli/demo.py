"""nura demo: the whole pipeline on the embedded sandbox, in a throwaway folder."""

import importlib.resources
import io
import sys
import tempfile
from collections import Counter
from pathlib import Path

from nura_cli.cli.session import Session, plain, with_session
from nura_cli.contract import Result
from nura_cli.errors import EX_TEMPFAIL

CONFIG = """\
state: nura.db
providers:
  sandbox: {kind: sandbox}
workloads:
  tickets:
    provider: sandbox
    model: gpt-4.1-mini
    key: id
    system: You sort the mail of a support desk.
    prompt: "Which team should answer this?\\n\\n{{ text }}"
    params: {max_completion_tokens: 50}
    schema:
      type: object
      properties:
        team: {type: string, enum: [billing, bug, account, shipping, feature]}
      required: [team]
      additionalProperties: false
    keep: [text]
"""
_SHOWN = 6


EXAMPLES = (
    ("nura demo", "see the pipeline work"),
    ("nura demo --json", "its figures alone"),
)
EXIT_CODES = (EX_TEMPFAIL,)


@with_session
def command(session: Session) -> None:
    """Try the whole pipeline in seconds: no key, no network, nothing left behind."""
    with tempfile.TemporaryDirectory(prefix="nura-demo-") as folder:
        _run(session, Path(folder))


def _run(session: Session, folder: Path) -> None:
    """Take the sample tickets through each stage in turn, saying what it does and what came of it."""
    from nura_cli import config as configuration
    from nura_cli.pipeline import dispatch, enqueue, poll, reconcile, results, status, symptoms
    from nura_cli.pipeline.accounts import Accounts
    from nura_cli.state import State

    path = folder / "nura.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    config = configuration.load(path)
    tickets = importlib.resources.files("nura_cli.cli").joinpath("demo_tickets.jsonl").read_bytes()
    workload = config.workloads["tickets"]
    with State(config.state) as state, Accounts(config, state.path, state.state_id) as accounts:
        say = _Steps(session)
        say("enqueue", "support tickets, piped in as JSON Lines")
        source = enqueue.Source("-", io.BytesIO(tickets))
        report = enqueue.run(state, workload, accounts.dialect(workload.provider), [source])
        say.done(f"{report.result['enqueued']} tasks wait in {config.state.name}")
        say("dispatch", "renders their prompts, packs them into a batch, sends it")
        report = dispatch.run(state, config, accounts)
        say.done(f"{report.result['requests']} requests in batch {report.result['batches'][0]['remote_id']}")
        say("poll", "asks whether the batch has ended, downloads its results")
        poll.run(state, config, accounts, wait=60)
        say.done("results are home")
        say("reconcile", "maps each answer back to its record")
        report = reconcile.run(state, config)
        say.done(f"{report.result['tasks']['completed']} tasks completed")
        documents = list(results.stream(state, config))
        if not session.json:
            _answers(documents)
        say("status", "adds it all up")
        report = status.run(state, symptoms.loaded(config))
        cost = report.result["cost"]
        say.done(f"paid ${cost['paid']}, synchronously it would have been ${cost['list']} (the sandbox bills nothing)")
        if session.json:
            session.finish(report)
        else:
            print(_NEXT)


class _Steps:
    """Says what each stage does, and what came of it."""

    def __init__(self, session: Session) -> None:
        self._silent = session.json or session.quiet

    def __call__(self, stage: str, text: str) -> None:
        if not self._silent:
            print(f"nura {stage:<10} {text}", flush=True)

    def done(self, text: str) -> None:
        if not self._silent:
            print(f"     {'':<10} → {text}", flush=True)


def _answers(documents: list[Result]) -> None:
    import msgspec

    answers = [msgspec.json.decode(msgspec.json.encode(document)) for document in documents]
    answers.sort(key=lambda answer: answer["key"])
    print("\nnura results    some of the answers:")
    for answer in answers[:: len(answers) // _SHOWN][:_SHOWN]:
        print(f"  {plain(answer['key'])}  {plain(answer['json']['team']):<9} {plain(answer['record']['text'])}")
    teams = Counter(answer["json"]["team"] for answer in answers)
    print("  all of them:", ", ".join(f"{team} {n}" for team, n in teams.most_common()), "\n")
    sys.stdout.flush()


_NEXT = """
That was the whole pipeline. To go on with your own records:
  1. nura init --from FILE       writes nura.yaml for records like yours, on the sandbox
  2. nura check                  says what is still to be done
  3. nura enqueue WORKLOAD FILE; nura run --wait 1m; nura results WORKLOAD
  4. let cron do step 3: nura.crontab, which init wrote, too"""
