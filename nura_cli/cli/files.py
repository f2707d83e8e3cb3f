"""Files that a command writes for others to read: whole or not at all, and never in the place of anything else."""

import os
import secrets
from pathlib import Path

from nura_cli.errors import UsageError
from nura_cli.state.disk import on_disk, publish


def write(option: str, path: Path, text: str, *, begins: str, mode: int) -> None:
    """Write a file under a name of its own, and give it its name once it is on the disk.

    Args:
        option: the option that names it, for what is said.
        begins: how every such file begins: one that begins otherwise is somebody else's, and is left alone.
        mode: of a new file, less the umask; one that is there keeps its own.

    Raises:
        UsageError: the name is that of a folder, a device or another file; or its folder is not there.
        StateError: the disk fails.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise UsageError(f"{option} {path}: is a folder", hint="name a file in it")
    if not target.parent.is_dir():
        raise UsageError(f"{option} {path}: there is no folder {target.parent}", hint="make it, or name another")
    with on_disk(path):
        kept = _mode_of(option, path, target, begins.encode())
        _replace(target, text.encode("utf-8", "backslashreplace"), mode, kept)


def _mode_of(option: str, path: Path, target: Path, begins: bytes) -> int | None:
    """Return the mode of the file that is to be replaced, None where there is none. Raises UsageError: it is no such file."""
    if not os.path.lexists(target):
        return None
    if not target.is_file():
        raise UsageError(f"{option} {path}: is no plain file", hint="give another name")
    with target.open("rb") as file:
        found = file.read(len(begins))
        if found not in (b"", begins):
            raise UsageError(
                f"{option} {path}: is another file, and would be overwritten", hint="give another name, or remove it"
            )
        return os.fstat(file.fileno()).st_mode & 0o777


def _replace(target: Path, content: bytes, mode: int, kept: int | None) -> None:
    part = target.with_name(f".{secrets.token_hex(8)}.part")  # whoever collects files by their names passes it over
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
            if kept is not None:
                os.fchmod(file.fileno(), kept)
            file.write(content)
        publish(part, target)
    finally:
        part.unlink(missing_ok=True)
