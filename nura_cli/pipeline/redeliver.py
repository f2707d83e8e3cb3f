"""nura redeliver: rows and events that were given up are due again, or nobody gets them any more.

Takes the outbox, and which tasks are meant; leaves each delivery of theirs that was given up due again under its id, with all
its tries before it, for the next reconcile. With ``made`` those that were made are due again, too: the application's table was
lost. With ``drop`` those that were given up are closed instead, and with them what waits for a table or a receiver that left
the configuration; the events that waited for such a row follow. Only the answer that stands is ever delivered: what another
has overtaken is closed as superseded.

An event says for ever what it said under its id. What has become of a row since is told under another, after the row.

What can go wrong: where the application keeps a ledger, the entries of rows that were made are deleted there before the rows
are due, so that a crash in between leaves only what may be done once more; a ledger that cannot be reached keeps the
deliveries of its workload as they were, and the other workloads go on. Killed half-way, it is run again.

It needs no lock to make due what was given up, which no stage touches. For ``made`` and ``drop`` the caller holds reconcile's:
nothing is being written whose entry is deleted, or which is closed, here.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from nura_cli import contract
from nura_cli.config import Config
from nura_cli.errors import ConfigError
from nura_cli.pipeline.plans import plan_of, unowned
from nura_cli.pipeline.report import Report, counted
from nura_cli.pipeline.run import Run
from nura_cli.pipeline.targets import follow, write_back_of
from nura_cli.state import Connection, State, actions, outbox, over, tasks
from nura_cli.state.outbox import Ended, Kind
from nura_cli.state.over import Over
from nura_cli.state.selection import CHUNK, Selection

if TYPE_CHECKING:
    from nura_cli.delivery.write_back import WriteBack

Becomes = Literal["due", "superseded", "dropped"]
_BECOMES: tuple[Becomes, ...] = get_args(Becomes)
_DROPPED = "closed by a person, and not written"
"""What events say of a row that was waiting when it was closed."""


class Wanted(NamedTuple):
    """What is to be done: for rows, events or both; ``made`` and ``drop`` as above."""

    kinds: Sequence[Kind] = ("row", "event")
    made: bool = False
    drop: bool = False


@dataclass(kw_only=True)
class _Redelivery(Run):
    """One run, and what it counted."""

    wanted: Wanted
    dry: bool
    upto: int
    opened: ExitStack
    tables: "dict[str, WriteBack]" = field(default_factory=dict)
    counts: dict[Kind, Counter[Becomes]] = field(default_factory=lambda: {"row": Counter(), "event": Counter()})

    def table(self, workload: str) -> "WriteBack":
        """Return the table of a workload, opened once. Raises ConfigError: it is not in the configuration, or its URL is wrong."""
        if workload not in self.tables:
            options = self.config.workloads.get(workload)
            if options is None or options.write_back is None:
                hint = f"put workloads.{workload}{'.write_back' if options else ''} back first"
                raise ConfigError(f"{workload}: its table is no longer in the configuration", hint=hint)
            self.tables[workload] = self.opened.enter_context(write_back_of(options, self.config))
        return self.tables[workload]


_BOTH = Wanted()


def run(
    state: State, config: Config, parts: Iterable[Selection], wanted: Wanted = _BOTH, *, dry: bool = False
) -> Report:
    """Make deliveries of the selected tasks due again, or close them.

    Args:
        dry: only count them.

    Returns:
        What was counted, of ``rows`` and of ``events``: ``due``, ``superseded`` and ``dropped``.
    """
    known = list(dict.fromkeys(queue.workload for queue in tasks.queues(state.db)))
    with ExitStack() as opened:
        if wanted.drop and not dry:
            follow(state, config)  # what has somebody to go to is not closed
        upto = over.last_id(state.db)
        job = _Redelivery(state=state, config=config, wanted=wanted, dry=dry, upto=upto, opened=opened)
        for chosen in parts:
            for name in chosen.workloads or known:
                with job.apart(name, workload=name):
                    for kind in wanted.kinds:
                        for page in _pages(job, name, kind, chosen):
                            _move(job, name, kind, page)
    result: contract.RedeliveredAll = {
        "rows": contract.figures(contract.Redelivered, job.counts["row"]),
        "events": contract.figures(contract.Redelivered, job.counts["event"]),
    }
    return Report(result, job.problems, worked=any(found.total() for found in job.counts.values()))


def _pages(job: _Redelivery, workload: str, kind: Kind, chosen: Selection) -> Iterator[list[Over]]:
    """Yield the deliveries of one kind that are meant, in pages."""
    db = job.state.db
    sources = [partial(over.over, db, workload, kind, chosen, made=job.wanted.made, upto=job.upto)]
    if job.wanted.drop:
        left = [one for one in outbox.left(db) if (one.workload, one.kind) == (workload, kind)]
        sources += [
            partial(over.waiting, db, workload, kind, one.left.target) for one in unowned(left, job.config.workloads)
        ]
    for source in sources:
        page, after = source(after=0), 0
        while page:
            meant = over.meant(db, chosen, page)
            yield [one for one in page if one.id in meant]
            after = page[-1].id
            page = source(after=after) if len(page) == CHUNK else []


def becomes(one: Over, *, drop: bool) -> Becomes | None:
    """Decide what becomes of a delivery that is meant; None where it stays what it is."""
    if one.overtaken:
        return None if one.status == "done" else "superseded"
    return "dropped" if drop else "due"


def _move(job: _Redelivery, workload: str, kind: Kind, page: Sequence[Over]) -> None:
    """Do what is wanted with one page of deliveries, in one transaction, and note it."""
    groups = {what: [one for one in page if becomes(one, drop=job.wanted.drop) == what] for what in _BECOMES}
    if job.dry:
        job.counts[kind].update({what: len(found) for what, found in groups.items()})
        return
    made = [one for one in groups["due"] if one.status == "done"]
    if kind == "row" and made:
        job.table(workload).forget([outbox.uid(one.tag, one.task_id) for one in made if one.task_id is not None])
    with job.state.transaction() as db:
        moved = _moved(db, kind, groups, made=job.wanted.made)
        if kind == "row":
            _follow(job, db, workload, groups["dropped"])
        if sum(moved.values()):
            actions.note(db, "redeliver", described({kind: moved}), sum(moved.values()), workload=workload)
    job.counts[kind].update(moved)
    job.state.yield_to_writers()


def _moved(db: Connection, kind: Kind, groups: dict[Becomes, list[Over]], *, made: bool) -> dict[Becomes, int]:
    ids = {what: [one.id for one in found] for what, found in groups.items()}
    return {
        "due": over.make_due(db, kind, ids["due"], made=made),
        "superseded": over.close(db, ids["superseded"], "superseded"),
        "dropped": over.close(db, ids["dropped"], "dropped"),
    }


def _follow(job: _Redelivery, db: Connection, workload: str, rows: Sequence[Over]) -> None:
    """Add the events that waited for rows which are not written any more, unless they told of the row before."""
    ended = [
        Ended(one.id, one.type, one.batch_id, None, _DROPPED)
        for one in rows
        if one.status == "pending" and not one.again
    ]
    outbox.after_rows(db, ended, plan_of(job.config, workload))


def described(counts: dict[Kind, dict[Becomes, int]]) -> str:
    """Return what was counted, in words: ``3 rows due again, 1 row superseded``."""
    words = {"due": "due again", "superseded": "superseded", "dropped": "dropped"}
    return ", ".join(
        f"{counted(n, kind)} {words[what]}" for kind, found in counts.items() for what, n in found.items() if n
    )
