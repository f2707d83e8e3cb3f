"""Fault switches: what can be made to go wrong, and the picking of what strikes now.

Every fault is a JSON object ``{"what": KIND, ...}``. All kinds know ``times`` (how often it strikes: 1; -1 for always),
``skip`` (how many occasions it lets pass first: 0), ``probability`` (1.0) with ``seed`` (0). Of an option's choices the first
is meant where none is given.

Of an exchange, by ``route`` (a glob over upload, files, file, download, create, list, retrieve, cancel, delete, models, model,
count, answer (a request outside of a batch), upload_create, upload_part, upload_complete, upload_cancel; ``*``), ``path`` (a glob over the path) and ``method``:

``latency``      ``seconds`` (1); goes together with another fault
``status``       ``status`` (500), ``retry_after``, ``code``, ``message``: the vendor's error with this status, nothing done
                 (``after: true``: after the effect)
``html``         a page of HTML with status 200, nothing done (``after: true``: after the effect)
``drop_before``  the connection closes before anything was done
``drop_after``   everything was done, and the connection closes without an answer
``hold``         waits, before (or with ``after: true`` after) the effect, until released or ``seconds`` (30) have passed
``truncate``     a download that ends early; ``framing`` length, chunked or close; ``keep`` (0.5) the fraction that comes
``framing``      a whole download in this ``framing``
``redirect``     ``status`` (307) to ``to``
``mixed_up``     it is answered as if it were about the batch or file ``of``
``drip``         the answer comes in drops: so many ``bytes`` (1) every ``seconds`` (0.5), of its ``part`` body, or head and all
                 of it; goes together with another fault
``twice``        a create is executed twice and answered with the first of the two batches; goes together with another fault
``create_shape`` a create was executed and is answered with 200 in another ``shape``: batch_id (``{"batch_id": …}``), no_id (the
                 batch without its id), empty (``{}``), wrapped (``{"data": …}``), known (the id of the account's oldest batch)

Of a batch, dealt out when it is first worked on; ``batch`` names the only one it concerns. Rows are chosen by ``fraction``
(1.0, with ``seed``), ``match`` (text in the request) or ``custom_ids``:

``rows``         requests fail: ``status`` (500), ``message``, ``code`` (Anthropic: the error's type), ``param`` (OpenAI), ``shape``:
                 body (the status and the vendor's error in the response), plain (the status alone), error (``error``, no
                 response), zero (status 0, no body), bare (the response's body is itself the error)
``missing``      rows are in no file
``duplicate``    rows come twice
``foreign``      ``n`` (3) rows of nobody come along
``renamed``      rows come with another custom_id: ``x-`` stands before their own
``short``        rows are counted and billed, and in no file until ``seconds`` (60) after the batch ended; then all are
``late_id``      rows' custom_id is the last member of their line, after an answer that holds a ``custom_id`` of its own
                 (somebody-1); with ``bytes`` the line is longer than these
``patch``        answers are otherwise: the vendor's response is changed by ``body`` (a JSON merge patch, RFC 7396); what
                 is billed stays
``expire``       the chosen rows (``fraction`` 0.5) are answered, the rest expires; OpenAI with ``files: false`` names no file
``cancel``       likewise, and the provider has cancelled the rest
``refuse``       OpenAI: the batch fails with ``code`` (token_limit_exceeded), ``message`` and ``line``; Anthropic: the create is
                 refused with ``status`` (400). With ``match`` only a batch that holds this text; ``line: "match"`` names it,
                 "matches" every line that does. OpenAI gives its ``errors`` as a list, null, string, dict (one ``{"code",
                 "message"}``), strings (a list of them), data_strings (``{"data": [string]}``) or in_words (a list of one, which
                 names the lines in its words); with ``at: create`` it looks into the file before it answers the create, as some
                 services do, and refuses that with ``status``: a list has the errors beside a summary, a dict the first one as
                 the error, and the rest says it in words
``lost``         its results are gone: no download
``no_output``    ``output_file_id`` is null, whatever was answered
``unnamed``      it has ended and names no results, though they are counted and billed; Anthropic has none of it either. With
                 ``seconds`` they are there so long after its end
``invalid``      answers are wrong: ``mode`` text (no JSON), schema (JSON that does not fit), length, refusal, empty, silent (empty
                 at the token limit), null, thinking (thoughts alone), tool (a tool call), paused, unfinished, phases (a comment
                 before the answer)
``odd``          answers are written oddly: ``form`` surrogate (a lone one, as an escape, ends the text), bytes (likewise, as bytes),
                 bom (before the line), control (a tab in the text), usage (fractions of tokens), types (members beside the text
                 have types that they do not have), nan, deep (a member of 100,000 levels), garbled (a quarter of the line is cut off)

Standing quirks of compatible services: ``upper_case`` (statuses), ``no_counts``, ``body_string`` (a response's body is a JSON
string), ``no_usage``, ``no_metadata``, ``empty_error_id``, ``empty_error_file``, ``job_create`` (``{"job": …}``), ``missing_500`` (an
unknown batch), ``stuck_list`` (the same page for ever), ``hide`` (batches younger than ``seconds`` are not listed),
``oldest_first`` (the list), ``ties`` (batches of one second are listed oldest first), ``no_times`` (batches do not say when they
were created), ``no_input_file`` (nor from which file), ``no_date`` and ``no_account`` (replies without these headers),
``one_organization`` (every key's account, though each sees its own batches only, as keys of one organization's projects do),
``one_account`` (every key is of the same account and sees the same batches), ``list_shape`` (batches are listed in another
``shape``: batches (``{"batches": […]}``), value (``{"value": […]}``), null (``{"data": null}``), array (a bare array), object
(``{"data": {}}``), error (``{"error": {…}}`` with 200), no_ids (each has ``batch_id`` in place of ``id``)), ``no_has_more`` (lists do
not say whether there are more), ``never_ends`` (no batch ends, whatever time passes or whoever cancels it), ``stale_list``
(batches are listed as they were right after their create), ``only_retrieve`` (a batch moves on only when it is retrieved),
``other_id`` (lists name a batch ``listed-`` and its id, and by that name it is found, and answered, as well), ``list_files``
(``where`` result files are named: list (there only), retrieve (likewise), wrong_list (lists name some that do not exist)),
``forgotten`` (``batch``, which may be a glob, is neither found nor listed; without it none is), ``times`` (those of batches have
another ``form``: ms (milliseconds), far (ten thousand years later), text (seconds as a string), iso), ``skew`` (every second reply
comes from a server whose clock is ``seconds`` (3600) ahead: its Date, and the created_at of the batches it makes),
``slow_files`` (an uploaded file is ``word`` (pending) for ``seconds`` (60), and no batch can be made of it, then it is
processed, or, with ``ends``, what that says), ``elsewhere`` (results are downloaded from a ``host``, other or same, to which a
302 leads; the other one refuses whoever brings a key; with ``again`` it leads on), ``shuffled`` (results come in another order
each time), ``other_status`` (a batch's is always this ``word`` (sealed); ``where`` it is so: all, or list (there only)),
``wants_header`` (requests without a header ``name`` of this ``value`` are refused with 400), ``echo_key`` (error messages, also
those of rows and of refused batches, tell the key that was sent; result files keep it so), ``output_counts`` (the output that
a request may have at most counts in OpenAI's queue, too), ``full_queue`` (a queue that is full is refused in other ``words``:
vendor, azure (OpenAI), plain (without any figure); one that is full of requests with ``code`` (token_limit_exceeded), at OpenAI),
``unpaid`` (how an account is refused that has reached the settings' ``spend_limit``: by ``openai`` rows (those of batches, whose
creates are taken), create (creates as well, 429), hard_limit (likewise, 400); by ``anthropic``, which refuses creates and rows,
usage (400, at the customer's limit), tier (429, at that of the vendor's, without Retry-After), credit (400, nothing left)).
"""

import fnmatch
import random
from collections.abc import Iterable
from typing import Any

from nura_cli.sandbox import endings

Fault = dict[str, Any]

EXCHANGE = frozenset(
    {
        "latency",
        "status",
        "html",
        "drop_before",
        "drop_after",
        "hold",
        "truncate",
        "framing",
        "drip",
        "redirect",
        "mixed_up",
        "twice",
        "create_shape",
    }
)
COMPANIONS = ("latency", "drip", "twice")
"""Faults of an exchange that go together with another one."""
BATCH = frozenset(
    {
        "rows",
        "missing",
        "duplicate",
        "foreign",
        "renamed",
        "short",
        "late_id",
        "patch",
        "unnamed",
        "expire",
        "cancel",
        "refuse",
        "lost",
        "no_output",
        "invalid",
        "odd",
    }
)
QUIRKS = frozenset(
    {
        "upper_case",
        "no_counts",
        "body_string",
        "no_usage",
        "no_metadata",
        "empty_error_id",
        "empty_error_file",
        "job_create",
        "missing_500",
        "stuck_list",
        "hide",
        "oldest_first",
        "ties",
        "no_times",
        "no_input_file",
        "no_date",
        "no_account",
        "one_organization",
        "one_account",
        "list_shape",
        "no_has_more",
        "never_ends",
        "stale_list",
        "only_retrieve",
        "other_id",
        "list_files",
        "forgotten",
        "times",
        "skew",
        "slow_files",
        "elsewhere",
        "shuffled",
        "other_status",
        "wants_header",
        "echo_key",
        "output_counts",
        "full_queue",
        "unpaid",
    }
)
_ANY = {"what", "times", "skip", "probability", "seed"}
_ROWS = {"batch", "fraction", "match", "custom_ids"}
_OPTIONS: dict[str, set[str]] = {
    "latency": {"seconds"},
    "status": {"status", "retry_after", "code", "message", "after"},
    "html": {"after"},
    "drop_before": set(),
    "drop_after": set(),
    "hold": {"after", "seconds"},
    "truncate": {"framing", "keep"},
    "framing": {"framing"},
    "drip": {"bytes", "seconds", "part"},
    "redirect": {"status", "to"},
    "mixed_up": {"of"},
    "create_shape": {"shape"},
    "rows": {"status", "shape", "message", "code", "param"},
    "foreign": {"n"},
    "short": {"seconds"},
    "unnamed": {"seconds"},
    "late_id": {"bytes"},
    "patch": {"body"},
    "expire": {"files"},
    "cancel": {"files"},
    "refuse": {"code", "message", "line", "status", "errors", "at"},
    "invalid": {"mode"},
    "odd": {"form"},
    "hide": {"seconds"},
    "list_shape": {"shape"},
    "list_files": {"where"},
    "forgotten": {"batch"},
    "times": {"form"},
    "skew": {"seconds"},
    "slow_files": {"seconds", "word", "ends"},
    "elsewhere": {"host", "again"},
    "other_status": {"word", "where"},
    "wants_header": {"name", "value"},
    "full_queue": {"words", "code"},
    "unpaid": {"openai", "anthropic"},
}
_FRAMINGS = ("length", "chunked", "close")
_CHOICES = {
    ("truncate", "framing"): _FRAMINGS,
    ("framing", "framing"): _FRAMINGS,
    ("drip", "part"): ("body", "head"),
    ("elsewhere", "host"): ("other", "same"),
    ("rows", "shape"): ("body", "plain", "error", "zero", "bare"),
    ("invalid", "mode"): ("text", "schema", "length", "refusal", "empty", "silent", *endings.MODES),
    ("odd", "form"): ("surrogate", "bytes", "bom", "control", "usage", "types", "nan", "deep", "garbled"),
    ("refuse", "errors"): ("list", "null", "string", "dict", "strings", "data_strings", "in_words"),
    ("refuse", "at"): ("check", "create"),
    ("times", "form"): ("ms", "far", "text", "iso"),
    ("other_status", "where"): ("all", "list"),
    ("list_files", "where"): ("list", "retrieve", "wrong_list"),
    ("create_shape", "shape"): ("batch_id", "no_id", "empty", "wrapped", "known"),
    ("full_queue", "words"): ("vendor", "azure", "plain"),
    ("unpaid", "openai"): ("rows", "create", "hard_limit"),
    ("unpaid", "anthropic"): ("usage", "tier", "credit"),
    ("list_shape", "shape"): ("batches", "value", "null", "array", "object", "error", "no_ids"),
}
_ROUTES = {"twice": "create", "create_shape": "create"}
"""The only route that such a fault can concern, where it is not every one."""


def check(fault: Any) -> Fault:
    """Return a fault that is complete and known.

    Raises:
        ValueError: it is no object, of no known kind, or has an option or a choice that its kind does not know.
    """
    if not isinstance(fault, dict) or fault.get("what") not in EXCHANGE | BATCH | QUIRKS:
        raise ValueError(f"unknown fault: {fault!r}")
    what = fault["what"]
    known = _ANY | _OPTIONS.get(what, set())
    known |= {"route", "path", "method"} if what in EXCHANGE else set()
    known |= _ROWS if what in BATCH else set()
    unknown = sorted(fault.keys() - known)
    if unknown:
        raise ValueError(f"fault {what}: unknown option {unknown[0]}")
    for (kind, name), choices in _CHOICES.items():
        if kind == what and fault.get(name, choices[0]) not in choices:
            raise ValueError(f"fault {what}: {name} is one of {', '.join(choices)}")
    return fault


def choice(fault: Fault, name: str) -> str:
    """Return what a fault chooses by an option: what it says, or the first there is."""
    return str(fault.get(name, _CHOICES[fault["what"], name][0]))


def concerns(fault: Fault, route: str, method: str, path: str) -> bool:
    """Return whether an exchange's fault is about this exchange."""
    return (
        fault["what"] in EXCHANGE
        and route == _ROUTES.get(fault["what"], route)
        and fnmatch.fnmatchcase(route, fault.get("route", "*"))
        and fnmatch.fnmatchcase(path, fault.get("path", "*"))
        and fault.get("method", method) == method
    )


def failures_in_a_row(fault: Fault, occasion: int) -> bool:
    """Return whether a fault strikes on its occasion of this number (from 0), by ``skip`` and ``probability``."""
    if occasion < int(fault.get("skip", 0)):
        return False
    return draw(fault, f"occasion-{occasion}") < float(fault.get("probability", 1))


def draw(fault: Fault, what: object) -> float:
    """Return a repeatable number in [0, 1)."""
    return random.Random(f"{fault.get('seed', 0)}:{what}").random()  # noqa: S311 - repeatable on purpose


def hits(fault: Fault, number: int, custom_id: str, request: bytes) -> bool:
    """Return whether a batch's fault is about its request ``number`` (from 0)."""
    if "match" in fault:
        return str(fault["match"]).encode() in request
    if "custom_ids" in fault:
        return custom_id in fault["custom_ids"]
    return draw(fault, number) < float(fault.get("fraction", 1))


def of(faults: Iterable[Fault], what: str) -> Fault | None:
    """Return the first fault of a kind, or None."""
    return next((fault for fault in faults if fault["what"] == what), None)
