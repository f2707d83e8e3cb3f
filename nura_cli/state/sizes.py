"""How much room the state file, and what is kept beside it, takes; nothing is opened, and nothing is made."""

from pathlib import Path
from typing import NamedTuple


class Sizes(NamedTuple):
    """Bytes of a state file, of its write-ahead log, and of all that lies in its spool."""

    state: int
    wal: int
    spool: int


def of(path: Path) -> Sizes:
    """Return the sizes of a state file; what is not there, or vanishes meanwhile, has none."""
    spool = path.with_name(f"{path.name}.spool")
    return Sizes(_size(path), _size(path.with_name(f"{path.name}-wal")), sum(_size(one) for one in spool.rglob("*")))


def _size(path: Path) -> int:
    try:
        found = path.lstat()
    except OSError:
        return 0
    return found.st_size if not path.is_dir() else 0
