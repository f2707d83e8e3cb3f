"""nura backup: a copy of the state file, and of the results in the spool, while everything else runs.

Takes the state file as it is at one moment, and the spool; leaves a folder ``STATE.TIME`` that holds both under their own names, each
file synced and checked: whole, or not there. It writes nothing where the stages write, takes none of their locks, and stops none.

Copied are the state file, the results that it says are in the spool (``results/``, by their sha256), and answers that were too
long to read (``aside/``). Not copied is what recovery does without: request files (a claim that was not sent is undone, an upload
is gone on from at the provider), and notes of calls that are under way.

In which order: at one moment of the state file, all files that it names are opened; then it is copied as that moment has
it, and the files after it. Reconcile may settle a batch meanwhile, and poll remove its results: what is open can be read all the
same. If one has gone before it was opened, its batch was settled between the moment and the look: a later moment is taken, which
knows that. What is gone or damaged at each of them is so in the spool, too; the copy says ``completed``, and after a restore
reconcile sends that batch back to poll, which fetches the results again.

What was sent after that moment, the copy does not know. Where the provider's list shows it by our marks, dispatch finds out. In the
copy alone, every other provider is held: one whose vendor keeps no marks, one at an address that is not its vendor's, and all of
them where the configuration cannot be used.

What can go wrong: no room, a disk that fails, a damaged state file: nothing is left of this backup, and nothing of earlier ones is
touched. What a kill leaves of one is removed by the next run.
"""

import errno
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from os import path as paths
from pathlib import Path
from typing import BinaryIO, NamedTuple

from nura_cli import contract, progress
from nura_cli.clock import stamp
from nura_cli.config import Config
from nura_cli.dialects import vendors
from nura_cli.errors import EX_PARTIAL, ProblemKind, UsageError
from nura_cli.pipeline import spool
from nura_cli.pipeline.report import Problem, Report, counted
from nura_cli.providers import at_home
from nura_cli.state import Connection, State, backups, batches
from nura_cli.state.batches import File
from nura_cli.states import BatchStatus

_MOMENTS = 5
"""How many moments are tried, as long as files that one names have gone."""
_PIECE_BYTES = 1 << 20


class Results(NamedTuple):
    """Results that the state file names: what each file should be, by its name, and those that are there, open."""

    named: Mapping[str, File]
    there: Mapping[str, BinaryIO]


def run(state: State, folder: Path, config: Config | None, providers: Collection[str] = ()) -> Report:
    """Make a backup.

    Args:
        folder: where backups are kept; it is made where it is not there, in a folder that is.
        config: tells which providers show what was sent to them; None where it cannot be used.
        providers: those that the configuration names all the same.

    Returns:
        Its ``path``; exit code 3 where results in the spool are gone or damaged.

    Raises:
        UsageError: the folder lies in the spool.
        StateError: there is no room for it, or a disk fails; nothing is left of it.
        StateCorrupt: the state file is damaged.
    """
    folder, at = Path(paths.realpath(folder)), state.clock()
    if folder.is_relative_to(backups.spool_of(state.path)):
        raise UsageError(f"{folder} lies in the spool, which the stages sweep", hint="name a folder elsewhere")
    with backups.made(folder, state.path.name, at) as part:
        copy = part / state.path.name
        with ExitStack() as files:
            results = _copy_state(state, copy, files)
            lacks = _copy_spool(state.path, copy, results)
        held = _held(state, config, providers)
        why = f"this is a copy of the state file as it was at {stamp(at)}, and what was sent since then does not show there: see nura help restore"
        backups.finish(copy, state.path, held, why, at)
        size = sum(path.stat().st_size for path in part.rglob("*") if path.is_file())
    result: contract.BackedUp = {
        "path": str(backups.lasting(part)),
        "at": stamp(at),
        "bytes": size,
        "results": len(results.named) - len(lacks),
        "lacks": lacks,
        "held": held,
    }
    return Report(result, [_lacking(backups.spool_of(state.path, "results"), lacks)] if lacks else [], worked=True)


def _held(state: State, config: Config | None, providers: Collection[str]) -> list[str]:
    """Return the providers whose lists may not show what was sent to them since a copy was made."""
    if config is None:
        return sorted({*providers, *backups.providers(state.db)})
    shown = {name for name, one in config.providers.items() if _marks(one.dialect) and at_home(one)}
    return sorted({*config.providers, *backups.providers(state.db)} - shown)


def _marks(dialect: str) -> bool:
    return vendors.dialect(dialect).keeps_marks


def _copy_state(state: State, copy: Path, files: ExitStack) -> Results:
    """Copy the state file at a moment of which all results are there; leave these open in ``files``."""
    folder = backups.spool_of(state.path, "results")
    for left in reversed(range(_MOMENTS)):
        with ExitStack() as found, backups.one_moment(state) as db:
            named = _named(db)
            there = found.enter_context(backups.opened([folder / name for name in named]))
            if left and len(there) < len(named):
                continue
            size = backups.size(db)
            aside = sum(path.stat().st_size for path in backups.kept_aside(state.path))
            backups.check_room(copy.parent.parent, size + sum(one.bytes for one in named.values()) + aside)
            with progress.going("copying the state file", size, in_bytes=True) as step:
                backups.copy(db, state.path, copy, step.to)
            files.push(found.pop_all())
            break
    return Results(named, {path.name: file for path, file in there.items()})


def _named(db: Connection) -> dict[str, File]:
    """Return the files of results that a state file says are in the spool, by name."""
    found = {
        spool.result_name(batch, part): file
        for batch in batches.under_way(db, BatchStatus.COMPLETED)
        for part, file in batch.files.items()
    }
    for orphan in batches.orphans(db):
        found |= {spool.orphan_name(orphan, part): file for part, file in orphan.files.items()}
    return found


def _copy_spool(source: Path, copy: Path, results: Results) -> list[str]:
    """Copy the results that are open, and what is kept aside; return the names of those that are gone or damaged."""
    lacks = sorted(results.named.keys() - results.there.keys())
    into = backups.spool_made(copy, "results")
    with progress.going("copying results", sum(one.bytes for one in results.named.values()), in_bytes=True) as step:
        for name, file in results.there.items():
            target = into / name
            target.touch(0o600)  # one that is empty is whole, too
            if spool.write(target, _pieces(file, step)) != results.named[name]:
                target.unlink()
                lacks.append(name)
    into = backups.spool_made(copy, "aside")
    with progress.going("copying what is kept aside") as step:
        for path in backups.kept_aside(source):
            with backups.opened([path]) as found:
                for file in found.values():
                    spool.write(into / path.name, _pieces(file, step))
    return lacks


def _pieces(file: BinaryIO, step: progress.Step) -> Iterator[bytes]:
    """Yield a file in pieces; one that the disk cannot read ends there, and is not what it should be."""
    try:
        while piece := file.read(_PIECE_BYTES):
            step.add(len(piece))
            yield piece
    except OSError as error:
        if error.errno != errno.EIO:
            raise


def _lacking(folder: Path, lacks: Collection[str]) -> Problem:
    n = counted(len(lacks), "file of results is", "files of results are")
    return Problem(
        ProblemKind.SPOOL,
        f"{n} gone from {folder} or damaged there, and not in the backup: {', '.join(lacks)}",
        EX_PARTIAL,
        hint="reconcile finds that out, and the next poll fetches them again; then make another one",
    )
