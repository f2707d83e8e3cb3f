"""nura sandbox."""

import json
from pathlib import Path
from typing import Annotated

import typer

from nura_cli.cli.session import Session, with_session
from nura_cli.dialects import vendors
from nura_cli.errors import UsageError

EXAMPLES = (
    ("nura sandbox --port 0", "serve on a free port, and print the addresses"),
    ("nura sandbox --delay 30s box.db", "batches take half a minute; remember them in that file"),
)
EXIT_CODES = ()


@with_session
def command(
    session: Session,
    path: Annotated[Path, typer.Argument(help="Where it remembers files and batches.")] = Path("sandbox.db"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 8099,
    delay: Annotated[str, typer.Option(help="How long a batch takes, such as 30s.")] = "0s",
    fault: Annotated[
        list[str] | None,
        typer.Option(help='Arm a fault, as JSON: {"what": "status", "route": "create", "status": 500, "times": 1}.'),
    ] = None,
) -> None:
    """Serve the embedded Batch APIs on loopback, for any client."""
    from nura_cli.config_file import duration
    from nura_cli.sandbox import Sandbox, Settings

    titles = {name: vendors.dialect(name).title for name in vendors.in_sandbox()}

    try:
        server = Sandbox(path, port=port, settings=Settings(delay=int(duration(delay))))
    except OSError as error:
        raise UsageError(f"{path}, port {port}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"--delay {delay}: must be {error}") from error
    try:
        for text in fault or []:
            server.arm(json.loads(text))
    except ValueError as error:
        raise UsageError(f"--fault {text}: {error}") from error
    if session.json:
        addresses = {f"{name}_base_url": server.base_url(name) for name in titles}
        print(json.dumps({"command": "sandbox", "url": server.url, **addresses}), flush=True)
    else:
        for name, title in titles.items():
            print(f"{title + ' base_url:':<19} {server.base_url(name)}", flush=True)
        print(f"{'control:':<19} {server.url}/_sandbox/faults", flush=True)
    server.serve_forever()
