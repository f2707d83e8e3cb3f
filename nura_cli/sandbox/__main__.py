"""``python -m nura_cli.sandbox PATH``: the sandbox as a process of its own; prints its address once it listens."""

import argparse
import json
import signal
from contextlib import suppress
from pathlib import Path

from nura_cli.sandbox.server import Sandbox
from nura_cli.sandbox.store import Settings


def main() -> None:
    """Serve until interrupted or terminated."""
    parser = argparse.ArgumentParser(
        prog="python -m nura_cli.sandbox", description="Serve the embedded Batch APIs on loopback."
    )
    parser.add_argument("path", type=Path, help="the file it keeps, made where it is missing")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--delay", type=int, help="seconds a batch takes; without it, as the file says")
    parser.add_argument("--fault", action="append", default=[], type=json.loads, help="a fault, as JSON")
    given = parser.parse_args()
    settings = None if given.delay is None else Settings(delay=given.delay)
    server = Sandbox(given.path, port=given.port, settings=settings)
    for fault in given.fault:
        server.arm(fault)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(server.url, flush=True)  # noqa: T201 - its one line of output
    with suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == "__main__":
    main()
