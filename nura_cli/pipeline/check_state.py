"""``nura check`` of the state file: whether it can be used, who is at work on it, whose files are beside it, room and clock."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from nura_cli.clock import span, stamp
from nura_cli.errors import StateError
from nura_cli.pipeline import attention
from nura_cli.pipeline.findings import Finding, ok, open_to_others, warn
from nura_cli.state import disk, schema
from nura_cli.state import look as looking
from nura_cli.state.file import explained, refuse_root
from nura_cli.state.locks import HUNG_AFTER

_ROOM = 10**9
"""Bytes free on the disk, below which it is said: a batch of 200 MB is there as a request file and as results."""
_AHEAD = 3600
"""Seconds by which a time of the state file may be ahead of the clock."""


def state(path: Path, now: int) -> Iterator[Finding]:
    """Look at a state file at the unix second ``now``; yields what is found.

    Raises:
        StateError: it cannot be used; of each kind that opening it has.
        ConfigError: as root, where it is another user's.
    """
    found = looking.look(path)
    with explained(path):
        refuse_root(path if path.exists() else path.parent, "beside it" if path.exists() else "there")
    _writable(path)
    if found is None:
        yield ok("", f"{path}: is made with the first record")
    elif found.version < schema.VERSION:
        yield ok("", f"{path}: of an older nura (schema {found.version}); the next command migrates it")
    else:
        yield ok("", f"{path}: can be read and written")
    if path.exists():
        yield from open_to_others("", "state file", path)
        for need in attention.foreign_owners(path):
            yield warn("", need.message, need.hint)
        yield from _at_work(path, now)
    yield from _room(path)
    if found is not None and found.latest > now + _AHEAD:
        ahead = span(found.latest - now)
        yield warn("", f"the clock says {stamp(now)}, and the state file has times {ahead} later", "set the clock")


def _writable(path: Path) -> None:
    """Raise StateError where the state file, or what lies beside it, could not be written."""
    for one in [path.parent, *([path] if path.exists() else [])]:
        with disk.on_disk(one):
            if not one.exists():
                raise FileNotFoundError(2, os.strerror(2), str(one))
            if not os.access(one, os.W_OK | (os.X_OK if one.is_dir() else 0)):
                raise PermissionError(13, os.strerror(13), str(one))
    if os.statvfs(path.parent).f_flag & os.ST_RDONLY:
        raise StateError(f"{path}: its disk is mounted read-only", hint="mount it writable")


def _at_work(path: Path, now: int) -> Iterator[Finding]:
    for stage, holder in looking.holders(path).items():
        long = now - holder.since
        what = f"{stage} is at work (process {holder.pid}, for {span(long)})"
        yield warn("", what, f"see what it does: ps {holder.pid}") if long > HUNG_AFTER else ok("", what)


def _room(path: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(path.parent).free
    said = f"{free / 1e9:,.1f} GB free beside {path.name}"
    yield warn("", said, disk.NO_ROOM) if free < _ROOM else ok("", said)
