"""A client of the sandbox's control endpoint: faults, the clock, the bill, the log. For tests, from any process."""

import json
import urllib.error
import urllib.request
from typing import Any

_SECONDS = 60


class Control:
    """Speaks to ``/_sandbox`` of a running sandbox. What it is told holds for every process that serves the same file."""

    def __init__(self, url: str) -> None:
        """Take the sandbox's address, such as ``http://127.0.0.1:8080``."""
        self._url = url.rstrip("/") + "/_sandbox/"
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def _call(self, name: str, method: str = "GET", body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + name, data, {"Content-Type": "application/json"}, method=method)  # noqa: S310 - loopback
        try:
            with self._opener.open(request, timeout=_SECONDS) as response:
                return json.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                raise ValueError(json.loads(error.read())["error"]) from None

    def fault(self, what: str, route: str | None = None, **options: Any) -> int:
        """Arm a fault; return its number.

        Args:
            what: its kind (:mod:`nura_cli.sandbox.faults` lists them with their options).
            route: the routes that a fault of an exchange concerns: ``upload``, ``create``, ``list``, ``retrieve``,
                ``download``, ``cancel``, ``delete`` …; None for all.
            options: of its kind, and ``times`` (1; -1 for always), ``skip`` (0), ``probability`` (1.0) with ``seed``.

        Raises:
            ValueError: there is no such kind or option.
        """
        where = {} if route is None else {"route": route}
        return int(self._call("faults", "POST", {"what": what, **where, **options})["id"])

    def faults(self) -> list[dict[str, Any]]:
        """Return the armed faults, with ``id``, ``left`` and ``seen``."""
        found: list[dict[str, Any]] = self._call("faults")
        return found

    def clear(self, number: int | None = None) -> None:
        """Disarm one fault, or every one."""
        self._call("faults" if number is None else f"faults?id={number}", "DELETE")

    def advance(self, seconds: float) -> int:
        """Move the sandbox's clock, either way; return the unix seconds it shows then."""
        return int(self._call("advance", "POST", {"seconds": seconds})["now"])

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Change settings (:class:`nura_cli.sandbox.Settings`); return them, with ``now``."""
        found: dict[str, Any] = self._call("settings", "POST", changes)
        return found

    def queue(self, model: str = "*", **numbers: int | None) -> dict[str, Any]:
        """Change some numbers of a model's queue, at any time; return the numbers of every queue, by model.

        Args:
            model: ``*`` for every model that does not say otherwise, and for Anthropic, whose queue is of all models.
            numbers: ``tokens`` and ``requests``, the caps; ``others_tokens`` and ``others_requests``, what somebody else has in
                it (:class:`nura_cli.sandbox.Settings`). None for no cap.

        Raises:
            ValueError: there is no such number, or it is below 0.
        """
        found: dict[str, Any] = self._call("queue", "POST", {"model": model, **numbers})
        return found

    def release(self) -> None:
        """Let go of every request that a ``hold`` fault holds."""
        self._call("release", "POST", {})

    def held(self) -> int:
        """Return how many requests a ``hold`` fault holds now."""
        return sum(row["outcome"] == "held" for row in self.log())

    def billing(self) -> dict[str, Any]:
        """Return the bill.

        ``requests`` answered (each counted), ``distinct`` bodies among them, ``input_tokens``, ``output_tokens``,
        ``cost`` in US dollars (by the settings' ``prices``), ``creates`` that arrived, ``accepted`` ones, and ``twice``: what
        was billed more than once, as ``custom_id`` and as ``digest`` (sha256) of the request's body. All of that is of batches;
        ``synchronous`` has ``requests``, tokens and ``cost`` of what was answered at once, at list price. ``days`` has the same
        of both together by day (UTC, by the sandbox's clock), such as ``2026-11-25``: that of a batch is the one on which it
        was created.
        """
        found: dict[str, Any] = self._call("billing")
        return found

    def log(self, since: int = 0) -> list[dict[str, Any]]:
        """Return the exchanges after number ``since``, oldest first.

        Each with ``id``, ``at``, ``method``, ``path``, ``route``, ``fault`` (what struck), ``status``, and ``outcome``: open,
        held, answered or dropped.
        """
        found: list[dict[str, Any]] = self._call(f"log?since={since}")
        return found

    def batches(self) -> list[dict[str, Any]]:
        """Return every batch, oldest first, with ``id``, ``account``, ``protocol``, ``status``, ``total``, ``tokens`` (of
        OpenAI's, once checked: what it counts in its queue), ``metadata`` …
        """
        found: list[dict[str, Any]] = self._call("batches")
        return found

    def files(self) -> list[dict[str, Any]]:
        """Return every file that is still kept: ``id``, ``filename``, ``purpose``, ``bytes`` …"""
        found: list[dict[str, Any]] = self._call("files")
        return found

    def foreign(self, requests: int = 1, *, protocol: str = "openai", **options: Any) -> str:
        """Insert a batch that somebody else has sent from the same account; return its id.

        Args:
            requests: how many it has.
            protocol: ``openai`` or ``anthropic``.
            options: ``key`` or ``account`` (else that of the newest batch), ``age`` in seconds, ``metadata``.
        """
        return str(self._call("foreign", "POST", {"requests": requests, "protocol": protocol, **options})["id"])
