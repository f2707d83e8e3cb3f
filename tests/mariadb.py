"""A real MariaDB for the tests, where one is installed and asked for: ``NURA_MARIADB=1``; one server a session."""

import atexit
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pymysql  # type: ignore[import-untyped]  # it brings no types

from tests.conftest import need

ASKED_FOR = bool(os.environ.get("NURA_MARIADB"))
_numbers = itertools.count(1)


class Server:
    """A MariaDB server on a socket in a temporary folder, without a port."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="nura-my-"))
        self.socket = self.folder / "socket"
        user = pwd.getpwuid(os.geteuid()).pw_name
        if os.geteuid() == 0:  # it refuses to run as root
            user = "mysql"
            shutil.chown(self.folder, user)
        common = ["--no-defaults", f"--user={user}", f"--datadir={self.folder / 'data'}"]
        subprocess.run(
            [need("mariadb-install-db", "mariadb-server"), *common, "--auth-root-authentication-method=normal"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            timeout=120,
        )
        options = [f"--socket={self.socket}", "--skip-networking", "--innodb-flush-log-at-trx-commit=0"]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [need("mariadbd", "mariadb-server"), *common, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while b"ready for connections" not in (said := (self.folder / "log").read_bytes()):
            assert time.monotonic() < deadline, said[-2000:]
            assert self._process.poll() is None, said[-2000:]
            time.sleep(0.05)

    def connect(self, name: str | None = None) -> "pymysql.Connection[Any]":
        """Return a connection of the driver's own, in autocommit; names stand in double quotes, as elsewhere."""
        mode = "SET SESSION sql_mode = CONCAT(@@sql_mode, ',ANSI_QUOTES,PIPES_AS_CONCAT')"
        return pymysql.connect(
            unix_socket=str(self.socket), user="root", database=name, autocommit=True, init_command=mode
        )

    def remove(self) -> None:
        """Stop it and leave nothing behind."""
        self._process.terminate()
        self._process.wait(60)
        shutil.rmtree(self.folder, ignore_errors=True)


@cache
def server() -> Server:
    """Return the session's server, started when it is first asked for and removed at the end."""
    started = Server()
    atexit.register(started.remove)
    return started


@contextmanager
def database() -> Iterator[tuple[str, "pymysql.Connection[Any]"]]:
    """Give a new empty database: its URL, and a connection to it; it is dropped afterwards."""
    running = server()
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with closing(running.connect()) as admin:
        admin.cursor().execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    try:
        with closing(running.connect(name)) as connection:
            yield f"mariadb://root@/{name}?unix_socket={running.socket}", connection
    finally:
        with closing(running.connect()) as admin:
            admin.cursor().execute(f"DROP DATABASE {name}")
