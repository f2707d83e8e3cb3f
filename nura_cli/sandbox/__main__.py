"""``python -m nura_cli.sandbox PATH``: the sandbox as a process of its own; prints its address once it listens."""

import argparse
from pathlib import Path

from nura_cli.sandbox.server import Sandbox
from nura_cli.sandbox.store import Settings


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="Serve the embedded Batch APIs on loopback.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay", type=int, default=0)
    given = parser.parse_args()
    server = Sandbox(given.path, port=given.port, settings=Settings(delay=given.delay))
    print(server.url, flush=True)  # noqa: T201 - its one line of output
    server.serve_forever()


if __name__ == "__main__":
    main()
