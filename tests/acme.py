"""A made-up third vendor, unlike the others in every fact: its dialect, and a connection that keeps all in a folder.

It takes a file that is uploaded, and a create that looks into it; it keeps no marks, its list forgets what was cleaned up,
and its results name their requests ``ref``. One line in the table of vendors makes nura speak to it.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec

from nura_cli.dialects.base import (
    Answer,
    Dialect,
    Ending,
    Found,
    Frame,
    Limits,
    Measure,
    Page,
    Phase,
    Ready,
    Rejection,
    RemoteBatch,
    ResultLine,
    Said,
    Spec,
    Upload,
)
from nura_cli.dialects.schema_parts import parts
from nura_cli.dialects.vendors import Vendor
from nura_cli.errors import InputError, NotFound, Refused, Unconfirmed
from nura_cli.pricing import Usage
from nura_cli.providers import wire
from nura_cli.providers.base import Account, Download
from nura_cli.states import Blame, ErrorKind, Reason

VENDOR = Vendor("tests.acme:AcmeDialect", "tests.acme:AcmeProvider")
KEPT = 2 * 86400


class AcmeDialect:
    """How Acme words requests and results."""

    name = "acme"
    title = "Acme"
    base_url = "https://batch.acme.example"
    domain = "acme.example"
    price_list = "mistral"
    results_kept = KEPT
    limits = Limits(requests=3, bytes=10_000, inputs=None, line_bytes=4_000)
    endpoints: tuple[str, ...] = ("/generate",)
    at_once = frozenset[str]()
    embeddings = frozenset[str]()
    account_options = frozenset({"project"})
    params_set = frozenset({"engine", "ask"})
    params_set_by_schema = frozenset({"shape"})
    params_required: tuple[str, ...] = ("budget",)
    frame = Frame(b"<<\n", b"\n", b"\n>>")
    id_field = "ref"
    uploads = True
    create_reads_requests = True
    keeps_marks = False
    cleanup_unlists = True
    cancel_keeps_answers = False
    queue_unit: Literal["tokens", "requests"] = "tokens"
    queue_by_model = True

    def ready(self, line: bytes) -> Ready:
        """Take apart ``{"ref", "engine", "ask"}``."""
        found = msgspec.json.decode(line)
        if not isinstance(found, dict) or not found.keys() >= {"ref", "engine", "ask"}:
            raise InputError("not an Acme request: it needs ref, engine and ask")
        body = {name: value for name, value in found.items() if name != "ref"}
        return Ready(found["ref"], self.endpoints[0], found["engine"], msgspec.json.encode(body))

    def inputs(self, endpoint: str, body: bytes) -> int:
        """Return 0."""
        return 0

    def measure(self, endpoint: str, body: bytes) -> Measure:
        """Return how long it is, and what it may say."""
        found = msgspec.json.decode(body)
        return Measure(len(found["ask"].encode()), most_output=found.get("budget"), messages=1)

    def body(self, spec: Spec) -> Callable[[str], bytes]:
        """Return a function from a prompt to a body."""
        shape = {} if spec.answer_schema is None else {"shape": spec.answer_schema}
        fixed = {"engine": spec.model, **shape, **spec.params}
        return lambda prompt: msgspec.json.encode({**fixed, "ask": f"{spec.system or ''}{prompt}"})

    def request(self, custom_id: bytes, endpoint: str, body: bytes) -> bytes:
        """Return one line of the file."""
        return b'{"ref":"%b","please":%b}' % (custom_id, body)

    def result(self, line: bytes) -> ResultLine:
        """Decode ``{"ref", "said"}`` or ``{"ref", "sorry", "about"}``."""
        found = msgspec.json.decode(line, type=dict[str, Any])
        if "ref" not in found:
            raise ValueError("no ref")
        if "sorry" in found:
            code, blame = ("unpaid", Blame.ACCOUNT) if found["sorry"] == "it is not paid" else ("sorry", Blame.TASK)
            return ResultLine(
                found["ref"], None, ErrorKind.REFUSED, None, code, found["sorry"], found.get("about"), blame
            )
        return ResultLine(found["ref"], msgspec.json.encode(found["said"]))

    def answer(self, endpoint: str, body: bytes) -> Answer:
        """Read what was said."""
        said = msgspec.json.decode(body)
        return Answer(said["words"], None, "done", False, False, Usage(said["heard"], 0, 0, 10), said["engine"])

    def said(self, endpoint: str) -> Callable[[Any], Said | None]:
        """Return what leaves every answer to :meth:`answer`."""
        return lambda found: None

    def envelope(self, endpoint: str) -> bytes:
        """Return nothing: what Acme's responses look like is for them to know."""
        return b""

    def result_line(self, custom_id: str, body: bytes | None, error: Mapping[str, Any] | None) -> bytes:
        """Return a line as its results have it."""
        told = {"said": msgspec.Raw(body)} if error is None and body else {"sorry": (error or {})["message"]}
        return msgspec.json.encode({"ref": custom_id, **told})

    def reason(self, fault: Rejection) -> Reason:
        """Translate its two words."""
        return {"brimful": Reason.TOO_MUCH, "unpaid": Reason.SETTINGS}.get(fault.code or "", Reason.CONTENT)

    def faults(self, body: Any) -> tuple[Rejection, ...]:
        """Read ``{"unspeakable": [lines]}``."""
        lines = body.get("unspeakable", []) if isinstance(body, dict) else []
        return tuple(Rejection("unspeakable", "it will not say that", line) for line in lines)

    def schema_problems(self, schema: Mapping[str, Any]) -> Found:
        """Yield each enum: it has none."""
        yield from (((*place, "enum"), "Acme has no enum") for place, part in parts(schema) if "enum" in part)


class AcmeProvider:
    """An account at Acme, in the folder ``acme`` beside the key. What is told stands in its file ``told``, as JSON."""

    dialect: Dialect = AcmeDialect()
    page_size = 2
    looked_at: ClassVar[list[int]] = []
    """How many bytes of results were asked for, each time that only their beginning was."""

    def __init__(self, account: Account) -> None:
        """Open the folder."""
        assert account.address == self.dialect.base_url
        assert account.config.api_key_file is not None
        assert account.config.secret()
        self.name, self.own = account.name, account.own
        self.folder = account.config.api_key_file.parent / "acme"
        self.folder.mkdir(exist_ok=True)

    def close(self) -> None:
        """Do nothing."""

    @staticmethod
    def options(endpoint: str) -> Collection[str]:
        """Return none: there is no SDK."""
        return ()

    @property
    def told(self) -> dict[str, Any]:
        """What a test tells: the time (``now``), why batches are refused (``refuse``), how many bytes answers have more
        (``long``), whether creates are lost on the way there (``drop``) or on the way back (``lose``), whether a refused one
        names the lines that are to blame (``names``).
        """
        found: dict[str, Any] = json.loads((self.folder / "told").read_text())
        return found

    def upload(self, path: Path, filename: str) -> str:
        """Keep a copy."""
        (self.folder / f"file-{filename}").write_bytes(path.read_bytes())
        return f"file-{filename}"

    def processed(self, file_id: str) -> bool | None:
        """Return True: it takes a file at once."""
        return True

    def create(self, source: Path | str, *, endpoint: str, tag: str, state_id: str) -> RemoteBatch:
        """Note a batch, once its file was looked at."""
        lost = Unconfirmed(f"{self.name}: no answer came", provider=self.name)
        if self.told.get("drop"):
            raise lost
        assert endpoint == "/generate"
        head, *lines, tail = (self.folder / str(source)).read_text().split("\n")
        assert (head, tail) == ("<<", ">>")
        wrong = [n for n, line in enumerate(lines, 1) if "unspeakable" in line]
        if wrong:
            faults = self.dialect.faults({"unspeakable": wrong if self.told.get("names") else [None]})
            raise Refused(
                f"{self.name}: unspeakable", http_status=422, code="unspeakable", faults=faults, provider=self.name
            )
        remote_id = f"batch-{len(list(self.folder.glob('batch-*'))):04}"
        note = {"file": source, "created": self.told["now"], "total": len(lines)}
        (self.folder / remote_id).write_text(json.dumps(note))
        if self.told.get("lose"):
            raise lost
        return self.retrieve(remote_id)

    def answer(self, endpoint: str, body: bytes) -> bytes:
        """Not part of what Acme does."""
        raise NotImplementedError

    def page(self, cursor: str | None = None) -> Page:
        """Return two batches, newest first."""
        every = sorted((path.name for path in self.folder.glob("batch-*") if path.stat().st_size), reverse=True)
        older = [one for one in every if cursor is None or one < cursor]
        shown = [self.retrieve(one) for one in older[: self.page_size]]
        return Page(shown, shown[-1].id if len(older) > len(shown) else None, self.told["now"], "an account")

    def retrieve(self, remote_id: str) -> RemoteBatch:
        """Return one batch: it ends a minute after its create."""
        path = self.folder / remote_id
        if not path.exists() or not path.stat().st_size:
            raise NotFound(f"{self.name}: no {remote_id}", http_status=404, provider=self.name)
        note = json.loads(path.read_text())
        remote = RemoteBatch(remote_id, "brewing", Phase.RUNNING, created_at=note["created"], total=note["total"])
        if note.get("cancelled"):
            return remote._replace(
                status="poured away", phase=Phase.ENDED, ending=Ending.CANCELLED, completed=0, failed=note["total"]
            )
        if self.told["now"] < note["created"] + 60:
            return remote
        if refuse := self.told.get("refuse"):
            return remote._replace(status="spilt", phase=Phase.REFUSED, faults=(Rejection(refuse, "it says", None),))
        ended = remote._replace(status="poured", phase=Phase.ENDED, ending=Ending.COMPLETED)
        return ended._replace(completed=note["total"], failed=0, parts={"results": remote_id})

    def _results(self, remote_id: str) -> bytes:
        self.retrieve(remote_id)
        note = json.loads((self.folder / remote_id).read_text())
        lines = (self.folder / note["file"]).read_text().split("\n")[1:-1]
        return b"".join(self._result(json.loads(line)) for line in reversed(lines))

    def _result(self, request: dict[str, Any]) -> bytes:
        please = request["please"]
        for told, sorry in (("sorry", "it would not"), ("unpaid", "it is not paid")):
            if told in please["ask"]:
                return msgspec.json.encode({"ref": request["ref"], "sorry": sorry, "about": "ask"}) + b"\n"
        words = please["ask"] + "!" * self.told.get("long", 0)
        said = {"words": words, "engine": please["engine"], "heard": len(please["ask"])}
        return msgspec.json.encode({"ref": request["ref"], "said": said}) + b"\n"

    def download(self, part_id: str, target: Path) -> Download:
        """Write the results."""
        found = self._results(part_id)
        return wire.save([found], target, len(found))

    def head(self, part_id: str, size: int) -> bytes:
        """Return their beginning."""
        self.looked_at.append(size)
        return self._results(part_id)[:size]

    def cancel(self, remote_id: str) -> bool:
        """Stop one batch, unless it has ended; what it has answered is poured away."""
        if self.retrieve(remote_id).phase is not Phase.RUNNING:
            return False
        note = json.loads((self.folder / remote_id).read_text())
        (self.folder / remote_id).write_text(json.dumps(note | {"cancelled": True}))
        return True

    def files(self, cursor: str | None = None) -> tuple[Sequence[Upload], str | None]:
        """Return all files."""
        return [Upload(path.name, path.name.removeprefix("file-"), None) for path in self.folder.glob("file-*")], None

    def delete(self, remote: RemoteBatch) -> None:
        """Take it off the list, with its file."""
        (self.folder / remote.id).write_text("")
        self.delete_file(str(remote.input_file_id))

    def delete_file(self, file_id: str) -> None:
        """Delete one file."""
        (self.folder / file_id).unlink(missing_ok=True)
