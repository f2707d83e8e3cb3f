"""A client of the sandbox's control endpoint: faults, the clock, the bill, the log. For tests, from any process."""

import json
import urllib.request
from typing import Any


class Control:
    """Speaks to ``/_sandbox`` of a running sandbox."""

    def __init__(self, url: str) -> None:
        """Take the sandbox's address, such as ``http://127.0.0.1:8080``."""
        self._url = url.rstrip("/") + "/_sandbox/"

    def _call(self, name: str, method: str = "GET", body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + name, data, {"Content-Type": "application/json"}, method=method)  # noqa: S310 - loopback
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - loopback
            return json.loads(response.read())

    def fault(self, what: str, route: str = "*", *, times: int = 1, skip: int = 0, **options: Any) -> None:
        """Arm a fault (:mod:`nura_cli.sandbox.faults` lists them).

        Args:
            what: its kind.
            route: the routes it concerns: ``upload``, ``create``, ``list``, ``retrieve``, ``download``, ``cancel`` …
            times: how often it strikes; -1 for always.
            skip: how many requests it lets pass first.
            options: of its kind.
        """
        self._call("faults", "POST", {"what": what, "route": route, "times": times, "skip": skip, **options})

    def clear(self) -> None:
        """Disarm every fault."""
        self._call("faults", "DELETE")

    def advance(self, seconds: int) -> None:
        """Move the sandbox's clock, either way, for every process that serves this sandbox."""
        self._call("advance", "POST", {"seconds": seconds})

    def settings(self, **changes: Any) -> None:
        """Change settings of the running sandbox: ``delay``, ``accept_keys``."""
        self._call("settings", "POST", changes)

    def release(self) -> None:
        """Let go of every request that a ``hold`` fault holds."""
        self._call("release", "POST", {})

    def billing(self) -> dict[str, Any]:
        """Return what was billed: ``requests``, ``creates``, ``twice`` (custom_ids and body digests billed more than once)."""
        found: dict[str, Any] = self._call("billing")
        return found

    def log(self) -> list[dict[str, Any]]:
        """Return the exchanges so far, oldest first: ``method``, ``path``, ``route``, ``status``, ``fault``."""
        found: list[dict[str, Any]] = self._call("log")
        return found

    def batches(self) -> list[dict[str, Any]]:
        """Return every batch, oldest first, with ``id``, ``account``, ``status``, ``total``, ``metadata``."""
        found: list[dict[str, Any]] = self._call("batches")
        return found

    def files(self) -> list[dict[str, Any]]:
        """Return every file that is still kept: ``id``, ``filename``, ``purpose``, ``bytes``."""
        found: list[dict[str, Any]] = self._call("files")
        return found
