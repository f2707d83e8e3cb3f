"""The configuration: what it gives, and what it says of everything that is wrong."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from nura_cli import config
from nura_cli.config import (
    BatchBudgetConfig,
    BudgetConfig,
    CanaryConfig,
    Config,
    DatabaseConfig,
    DispatchConfig,
    EventConfig,
    LimitsConfig,
    PriceConfig,
    ProviderConfig,
    RetryConfig,
    SourceConfig,
    WorkloadConfig,
    WriteBackConfig,
)
from nura_cli.errors import EX_CONFIG, ConfigError

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"
PROVIDERS = """\
providers:
  box: {kind: sandbox}
  claude: {kind: sandbox, protocol: anthropic}
  keyed: {kind: openai, api_key_env: NURA_TEST_KEY}
"""


def load(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "nura.yaml"
    path.write_text(text)
    return config.load(path)


def problems(tmp_path: Path, text: str) -> dict[str, str]:
    """Return what is said of a configuration, by place."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    return {found.where: found.message for found in caught.value.problems}


def provider(tmp_path: Path, options: str) -> ProviderConfig:
    return load(tmp_path, f"providers: {{p: {{{options}}}}}").providers["p"]


def workload(tmp_path: Path, options: str) -> WorkloadConfig:
    return load(tmp_path, f"{PROVIDERS}workloads: {{w: {{{options}}}}}").workloads["w"]


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    loaded = load(tmp_path, PROVIDERS + "workloads: {w: {provider: box, model: m, prompt: p}}")
    found = loaded.workloads["w"]
    assert loaded.path == tmp_path / "nura.yaml"
    assert (loaded.state, loaded.remind) == (tmp_path / "nura.db", 6 * 3600)
    assert (found.name, found.key, found.params, found.keep, found.answer_schema) == ("w", "id", {}, [], None)
    assert (found.dispatch.min_requests, found.dispatch.max_wait, found.retry.max_attempts) == (1, 3600, 3)
    keyed = loaded.providers["keyed"]
    assert (keyed.on_unconfirmed, keyed.cleanup_after, keyed.limits) == ("adopt", 7 * 86400, LimitsConfig())


def test_the_dialect_is_the_kind_or_the_protocol_of_the_sandbox(tmp_path: Path) -> None:
    loaded = load(tmp_path, PROVIDERS)
    assert {name: found.dialect for name, found in loaded.providers.items()} == {
        "box": "openai",
        "claude": "anthropic",
        "keyed": "openai",
    }


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("0", 0), ("90", 90), ("30s", 30), ("15m", 900), ("1h30m", 5400), ("7d", 604800), ('"90"', 90)],
)
def test_lengths_of_time(tmp_path: Path, given: str, seconds: int) -> None:
    assert load(tmp_path, f"remind: {given}\n{PROVIDERS}").remind == seconds


@pytest.mark.parametrize("given", ["yes", "true", "1.5h", "1w", "h", "-5", "''", "[1h]", "1:30", "9999999d"])
def test_what_is_no_length_of_time(tmp_path: Path, given: str) -> None:
    assert problems(tmp_path, f"remind: {given}\n{PROVIDERS}").keys() == {"remind"}


@pytest.mark.parametrize(("given", "size"), [("500", 500), ("64KiB", 65536), ("200MB", 200_000_000), ("1 gb", 10**9)])
def test_sizes(tmp_path: Path, given: str, size: int) -> None:
    assert provider(tmp_path, f"kind: sandbox, limits: {{bytes: {given}}}").limits.bytes == size


@pytest.mark.parametrize("given", ["0", "-1", "2TBs", "lots", "true", "1.5MB"])
def test_what_is_no_size(tmp_path: Path, given: str) -> None:
    text = f"providers: {{p: {{kind: sandbox, limits: {{bytes: {given}}}}}}}"
    assert problems(tmp_path, text).keys() == {"providers.p.limits.bytes"}


@pytest.mark.parametrize("given", ["0", "-1", "true", '"5"', "2.0", "1e2"])
def test_a_count_is_a_whole_number_above_zero_and_nothing_that_looks_like_one(tmp_path: Path, given: str) -> None:
    text = PROVIDERS + f"workloads: {{w: {{provider: box, retry: {{max_attempts: {given}}}}}}}"
    assert problems(tmp_path, text).keys() == {"workloads.w.retry.max_attempts"}


@pytest.mark.parametrize(
    ("given", "amount"),
    [
        ("20", "20"),
        ("20.00", "20"),
        ("0.40", "0.4"),
        (".5", "0.5"),
        ("1e-2", "0.01"),
        ("1e-05", "0.00001"),
        ("3e2", "300"),
        ("0", "0"),
        ("'0.000000000001'", "0.000000000001"),
        ("9000000", "9000000"),
    ],
)
def test_amounts_of_money_are_exact(tmp_path: Path, given: str, amount: str) -> None:
    found = provider(tmp_path, f"kind: sandbox, budget: {{day: {given}}}").budget.day
    assert found == Decimal(amount)


@pytest.mark.parametrize(
    "given",
    [
        "-1",
        "$20",
        "20 USD",
        "'0,50'",
        "true",
        "''",
        "[20]",
        "1e-13",
        "1e300",
        "9000000.01",
        "12345678901",
        "1_000",
        "\u0665",
    ],
)
def test_what_is_no_amount_of_money(tmp_path: Path, given: str) -> None:
    found = problems(tmp_path, f"providers: {{p: {{kind: sandbox, budget: {{month: {given}}}}}}}")
    assert found.keys() == {"providers.p.budget.month"}
    assert found["providers.p.budget.month"] in (
        "must be an amount of US dollars such as 20 or 0.50",
        "must be less than or equal to 9000000",
    )


@pytest.mark.parametrize(
    ("given", "share"), [("0.5", 0.5), ("20%", 0.2), ("7.5 %", 0.075), ("29%", 0.29), ("0", 0), ("1", 1), ("100%", 1)]
)
def test_shares(tmp_path: Path, given: str, share: float) -> None:
    assert provider(tmp_path, f"kind: sandbox, batch_discount: {given}").batch_discount == share


@pytest.mark.parametrize("given", ["50", "1.01", "-0.1", "101%", "half", "true", "'%'", "[0.5]"])
def test_what_is_no_share(tmp_path: Path, given: str) -> None:
    found = problems(tmp_path, f"providers: {{p: {{kind: sandbox, batch_discount: {given}}}}}")
    assert found == {"providers.p.batch_discount": "must be a share such as 10% or 0.1"}


def test_prices_are_by_model_and_the_output_of_one_is_never_left_open(tmp_path: Path) -> None:
    found = provider(tmp_path, "kind: sandbox, prices: {my-model: {input: 0.40, output: 1.60, cached_input: 0.04}}")
    assert found.prices == {
        "my-model": PriceConfig(input=Decimal("0.4"), output=Decimal("1.6"), cached_input=Decimal("0.04"))
    }
    assert found.prices["my-model"].cache_write is None
    text = "providers: {p: {kind: sandbox, prices: {m: {input: 20000}, n: 0.4}}}"
    assert problems(tmp_path, text) == {
        "providers.p.prices.m.input": "must be less than or equal to 10000",
        "providers.p.prices.m.output": "is required",
        "providers.p.prices.n": "must be a mapping of options",
    }


def test_what_may_be_spent_and_who_goes_first_is_open_unless_it_is_given(tmp_path: Path) -> None:
    found = workload(tmp_path, "provider: box, budget: {}, canary: {}")
    assert found.budget == BatchBudgetConfig(day=None, month=None, batch=None, basis="expected")
    assert found.canary == CanaryConfig(requests=20, max_failed=0.1)
    bare = load(tmp_path, PROVIDERS + "workloads: {w: {provider: box}}")
    assert (bare.workloads["w"].canary, bare.workloads["w"].priority) == (None, 0)
    assert bare.providers["box"].budget == BudgetConfig()
    assert (bare.providers["box"].prices, bare.providers["box"].batch_discount) == ({}, None)


@pytest.mark.parametrize(("given", "seconds"), [("never", None), ("0", 0), ("0s", 0), ("2d", 172800)])
def test_cleanup_may_be_at_once_or_never(tmp_path: Path, given: str, seconds: int | None) -> None:
    assert provider(tmp_path, f"kind: sandbox, cleanup_after: {given}").cleanup_after == seconds


def test_relative_paths_are_relative_to_the_file_and_never_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    monkeypatch.setenv("HOME", "/home/someone")
    (folder / "nura.yaml").write_text(
        "state: ../var/n.db\n"
        "providers:\n"
        "  file: {kind: openai, api_key_file: keys/a}\n"
        "  home: {kind: openai, api_key_file: ~/a}\n"
        "  command: {kind: openai, api_key_command: [bin/key, ./x]}\n"
        "  found: {kind: openai, api_key_command: [pass, show]}\n"
        "workloads: {w: {provider: file, model: m, prompt_file: p.txt, system_file: /abs/s.txt}}\n"
    )
    monkeypatch.chdir(tmp_path)
    loaded = config.load(Path("etc/nura.yaml"))
    assert loaded.state == folder / "../var/n.db"
    assert loaded.providers["file"].api_key_file == folder / "keys/a"
    assert loaded.providers["home"].api_key_file == Path("/home/someone/a")
    assert loaded.providers["command"].api_key_command == [str(folder / "bin/key"), "./x"]
    assert loaded.providers["found"].api_key_command == ["pass", "show"]
    assert loaded.workloads["w"].prompt_file == folder / "p.txt"
    assert loaded.workloads["w"].system_file == Path("/abs/s.txt")


def test_every_problem_is_reported_at_once_with_its_place_and_line(tmp_path: Path) -> None:
    text = (
        "state: ''\n"
        "providers:\n"
        "  box: {kind: sandbox, limit: {}}\n"
        "  other: {kind: openai, on_unconfirmed: maybe}\n"
        "workloads:\n"
        "  w:\n"
        "    provider: bax\n"
        "    prompt: a\n"
        "    prompt_file: b\n"
        "    retry: {max_attempts: 0}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert [(found.line, found.where) for found in caught.value.problems] == [
        (1, "state"),
        (3, "providers.box.limit"),
        (4, "providers.other"),
        (4, "providers.other.on_unconfirmed"),
        (6, "workloads.w"),
        (7, "workloads.w.provider"),
        (9, "workloads.w.prompt_file"),
        (10, "workloads.w.retry.max_attempts"),
    ]
    assert caught.value.exit_code == EX_CONFIG
    assert len(caught.value.message.splitlines()) == 8
    assert f"{tmp_path / 'nura.yaml'}:7: workloads.w.provider: no provider bax; did you mean box?" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("stat: x", "stat", "unknown option; did you mean state?"),
        ("zzz: x", "zzz", "unknown option"),
        ("path: /x", "path", "unknown option"),
        ("workloads: {w: {provider: box, name: x}}", "workloads.w.name", "unknown option"),
        ("workloads: {w: {provider: box, shema: {}}}", "workloads.w.shema", "unknown option; did you mean schema?"),
        (
            "workloads: {w: {provider: box, retry: {max_atempts: 1}}}",
            "workloads.w.retry.max_atempts",
            "unknown option; did you mean max_attempts?",
        ),
        (
            "workloads: {w: {provider: box, budget: {bach: 1}}}",
            "workloads.w.budget.bach",
            "unknown option; did you mean batch?",
        ),
        (
            "workloads: {w: {provider: box, canary: {max_fail: 1}}}",
            "workloads.w.canary.max_fail",
            "unknown option; did you mean max_failed?",
        ),
        (
            "workloads: {retry: {provider: box, events: [{types: [batch.failed], command: [x], timout: 1}]}}",
            "workloads.retry.events.0.timout",
            "unknown option; did you mean timeout?",
        ),
        ("workloads: {w: {provider: box, canary: 20}}", "workloads.w.canary", "must be a mapping of options"),
        (
            "workloads: {w: {provider: box, budget: {basis: worse}}}",
            "workloads.w.budget.basis",
            "must be 'expected' or 'worst'",
        ),
        ("workloads: {w: }", "workloads.w", "must be a mapping of options"),
        ("workloads: [a]", "workloads", "must be a mapping"),
        ("workloads: {w: {}}", "workloads.w.provider", "is required"),
        ("workloads: {w: {provider: [a]}}", "workloads.w.provider", "must be text"),
        (
            "workloads: {w: {provider: nobody}}",
            "workloads.w.provider",
            "no provider nobody; there is box, claude, keyed",
        ),
        ("workloads: {w: {provider: box, keep: title}}", "workloads.w.keep", "must be a list"),
    ],
)
def test_a_problem_is_put_into_plain_words(tmp_path: Path, text: str, place: str, words: str) -> None:
    assert problems(tmp_path, f"{PROVIDERS}{text}\n") == {place: words}


@pytest.mark.parametrize(
    ("options", "place", "words"),
    [
        ("prices: {m: {input: 1, output: 1, cached: 1}}", ".prices.m.cached", "; did you mean cached_input?"),
        (
            "prices: {limits: {input: 1, output: 1, cachd_input: 1}}",
            ".prices.limits.cachd_input",
            "; did you mean cached_input?",
        ),
        ("budget: {dai: 1}", ".budget.dai", "; did you mean day?"),
        ("budget: {batch: 1}", ".budget.batch", ""),  # an option of workloads alone
        ("batch_discont: 0.2", ".batch_discont", "; did you mean batch_discount?"),
    ],
)
def test_the_option_that_was_meant_is_one_of_that_place(tmp_path: Path, options: str, place: str, words: str) -> None:
    found = problems(tmp_path, f"providers: {{p: {{kind: sandbox, {options}}}}}")
    assert found == {f"providers.p{place}": f"unknown option{words}"}


@pytest.mark.parametrize("name", ["-a", "a b", "a.b", '"a\\n"', "ä", "x" * 64, '""'])
def test_names_are_plain(tmp_path: Path, name: str) -> None:
    found = problems(tmp_path, f"providers: {{{name}: {{kind: sandbox}}}}")
    assert list(found.values()) == ["a name has letters, digits, - and _, and begins with a letter or digit"]
    assert all("\n" not in place for place in found)


@pytest.mark.parametrize("text", ["providers: {}", "state: x", "providers: [a]", "providers:"])
def test_there_must_be_a_provider(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text).keys() == {"providers"}


@pytest.mark.parametrize(
    ("options", "places"),
    [
        ("kind: openai", {""}),
        ("kind: openai, api_key_env: A, api_key_file: b", {""}),
        ("kind: openai, api_key_env: A, protocol: openai", {".protocol"}),
        ("kind: anthropic, api_key_env: A, organization: o, project: p", {".organization", ".project"}),
        ("kind: sandbox, api_key_env: A", {".api_key_env"}),
        ("kind: sandbox, base_url: 'http://127.0.0.1:1'", {".base_url"}),
        ("kind: sandbox, organization: o", {".organization"}),
        ("kind: azure", {".kind"}),
        ("kind: openai, api_key_command: []", {".api_key_command"}),
        ("kind: openai, api_key_command: pass show", {".api_key_command"}),
    ],
)
def test_options_of_a_provider_that_do_not_go_together(tmp_path: Path, options: str, places: set[str]) -> None:
    found = problems(tmp_path, f"providers: {{p: {{{options}}}}}")
    assert found.keys() == {f"providers.p{place}" for place in places}


@pytest.mark.parametrize(
    "address",
    ["ftp://x", "x.example", "https://", "https://u:p@x.example/v1", "https://x.example/v1?key=a", "file:///x"],
)
def test_a_base_url_is_an_address_without_credentials(tmp_path: Path, address: str) -> None:
    found = problems(tmp_path, f"providers: {{p: {{kind: openai, api_key_env: A, base_url: '{address}'}}}}")
    assert found.keys() == {"providers.p.base_url"}
    assert not re.search("p@|key=a", str(found))


BETA = "output-300k-2026-03-24,context-1m-2025-08-07"


def test_headers_of_a_provider_are_names_and_texts(tmp_path: Path) -> None:
    found = provider(
        tmp_path, f"kind: sandbox, headers: {{anthropic-beta: '{BETA}', X-Team: 'a b', x_max-tokens: '5'}}"
    )
    assert found.headers == {"anthropic-beta": BETA, "X-Team": "a b", "x_max-tokens": "5"}
    assert provider(tmp_path, "kind: sandbox").headers == {}


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ("'': a", "is no name of an HTTP header"),
        ("'a b': a", "is no name of an HTTP header"),
        ("'a:': a", "is no name of an HTTP header"),
        ('"a\\r\\nb": a', "is no name of an HTTP header"),
        ("'ümlaut': a", "is no name of an HTTP header"),
        ("Authorization: a", "looks like a secret"),
        ("x-api-key: a", "looks like a secret"),
        ("api-key: a", "looks like a secret"),
        ("Helicone-Auth: a", "looks like a secret"),
        ("x_gateway_token: a", "looks like a secret"),
        ("Cookie: a", "looks like a secret"),
        ("x-team: 'Bearer HIDDEN'", "looks like a secret"),
        ("x-team: sk-HIDDEN", "looks like a secret"),
        ("Content-Type: a", "nura sets this itself"),
        ("content-length: '1'", "nura sets this itself"),
        ("Host: a", "nura sets this itself"),
        ("Transfer-Encoding: chunked", "nura sets this itself"),
        ("anthropic-version: '2026-10-21'", "nura sets this itself"),
        ("OpenAI-Organization: o", "nura sets this itself"),
        ("x-stainless-retry-count: '1'", "nura sets this itself"),
        ("user-agent: a", "nura sets this itself"),
        ("a: ''", "must be one line"),
        ("a: ' HIDDEN'", "must be one line"),
        ('a: "HIDDEN\\r\\nb: c"', "must be one line"),
        ('a: "HIDDEN\\0"', "must be one line"),
        ("a: HIDDENé", "must be one line"),
        (f"a: {'HIDDEN' * 1000}", "must be one line"),
        ("a: 5", "must be text"),
        ("a: true", "must be text"),
        ("a: null", "must be text"),
        ("a: [HIDDEN]", "must be text"),
        ("a: b, A: c", "stands here twice"),
    ],
)
def test_a_header_that_cannot_go_with_requests_is_named_without_its_value(
    tmp_path: Path, headers: str, why: str
) -> None:
    found = problems(tmp_path, f"providers: {{p: {{kind: sandbox, headers: {{{headers}}}}}}}")
    ((place, problem),) = found.items()
    assert place.startswith("providers.p.headers.")
    assert why in str(problem)
    assert "HIDDEN" not in str(found)


@pytest.mark.parametrize("headers", ["a", "[a]", "5", "[{a: b}]"])
def test_headers_are_a_mapping(tmp_path: Path, headers: str) -> None:
    found = problems(tmp_path, f"providers: {{p: {{kind: sandbox, headers: {headers}}}}}")
    assert found.keys() == {"providers.p.headers"}


@pytest.mark.parametrize(
    ("options", "places"),
    [
        ("provider: box, prompt: a", {""}),
        ("provider: box, model: m, prompt: a, prompt_file: b", {".prompt_file"}),
        ("provider: box, model: m, prompt: a, system: a, system_file: b", {".system_file"}),
        ("provider: box, model: m, params: {n: 1}, key: a", {".model", ".params", ".key"}),
        ("provider: box, endpoint: /v1/moderations", {".endpoint"}),
        ("provider: box, model: m, prompt: a, endpoint: /v1/messages", {".endpoint"}),
        ("provider: box, model: m, prompt: a, endpoint: /v1/embeddings, system: s, schema: {}", {".system", ".schema"}),
        (
            "provider: box, model: m, prompt: a, params: {messages: [], stream: true}",
            {".params.messages", ".params.stream"},
        ),
        (
            "provider: box, model: m, prompt: a, schema: {type: object, additionalProperties: false}, params: {response_format: {}}",
            {".params.response_format"},
        ),
        ("provider: claude, model: m, prompt: a", {".params"}),
        ("provider: claude, model: m, prompt: a, params: {max_tokens: 9}, endpoint: /v1/responses", {".endpoint"}),
        ("provider: box, model: m, prompt: a, key: 5", {".key"}),
        ("provider: box, model: m, prompt: a, key: []", {".key"}),
        ("provider: box, model: m, prompt: a, key: [a, 1]", {".key"}),
    ],
)
def test_options_of_a_workload_that_do_not_go_together(tmp_path: Path, options: str, places: set[str]) -> None:
    found = problems(tmp_path, f"{PROVIDERS}workloads: {{w: {{{options}}}}}")
    assert found.keys() == {f"workloads.w{place}" for place in places}


def test_a_wrong_provider_hides_nothing_that_every_vendor_refuses(tmp_path: Path) -> None:
    text = "workloads: {w: {provider: bax, model: m, prompt: a, params: {stream: true, max_tokens: 5}}}"
    assert problems(tmp_path, PROVIDERS + text) == {
        "workloads.w.provider": "no provider bax; did you mean box?",
        "workloads.w.params.stream": "nura sets this itself",
    }


def test_what_nura_does_not_set_is_left_to_the_user(tmp_path: Path) -> None:
    found = workload(
        tmp_path, "provider: box, model: m, prompt: a, key: [tenant, id], params: {response_format: {x: 1}}"
    )
    assert (found.params, found.key) == ({"response_format": {"x": 1}}, ["tenant", "id"])


def test_a_workload_without_a_prompt_takes_ready_lines(tmp_path: Path) -> None:
    assert not workload(tmp_path, "provider: box").has_prompt
    assert workload(tmp_path, "provider: box, model: m, prompt_file: a").has_prompt


def test_texts_come_from_the_file_or_from_beside_it(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("Über {{ x }}\n", encoding="utf-8")
    found = workload(tmp_path, "provider: box, model: m, prompt_file: p.txt, system: Be brief.")
    assert (config.prompt_text(found), config.system_text(found)) == ("Über {{ x }}\n", "Be brief.")


def test_a_text_that_cannot_be_read_is_named_when_it_is_needed(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_bytes(b"\xff")
    found = workload(tmp_path, "provider: box, model: m, prompt_file: absent.txt, system_file: s.txt")
    with pytest.raises(ConfigError, match=r"workloads\.w\.prompt_file: .*absent\.txt: No such file"):
        config.prompt_text(found)
    with pytest.raises(ConfigError, match=r"workloads\.w\.system_file: .*s\.txt: it is not UTF-8"):
        config.system_text(found)


def options(model: type[BaseModel], where: str = "") -> list[str]:
    """Return every option of a model, as dotted paths."""
    inner: dict[str, type[BaseModel]] = {
        "providers": ProviderConfig,
        "databases": DatabaseConfig,
        "workloads": WorkloadConfig,
        "limits": LimitsConfig,
        "budget": BatchBudgetConfig,
        "prices": PriceConfig,
        "canary": CanaryConfig,
        "dispatch": DispatchConfig,
        "retry": RetryConfig,
        "source": SourceConfig,
        "write_back": WriteBackConfig,
        "events": EventConfig,
    }
    found = []
    for name, field in model.model_fields.items():
        option = field.alias or name
        found += [where + option, *(options(inner[option], f"{where}{option}.") if option in inner else [])]
    return found


@pytest.mark.parametrize("option", options(Config))
def test_the_example_shows_every_option(option: str) -> None:
    name = option.rpartition(".")[2]
    text = EXAMPLE.read_text()
    shown = rf"^ *(- |# |.*# or )?{name}:( |$)|^ *# .*[{{ ]{name}: "
    assert re.search(shown, text, re.MULTILINE), f"{option} is not in the example"


def test_the_example_works_as_it_stands_with_no_key_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    loaded = config.load(EXAMPLE)
    assert {loaded.providers[found.provider].kind for found in loaded.workloads.values()} == {"sandbox"}


def uncommented(text: str) -> str:
    """Return the example with each option that is commented out in place of the one it is an alternative to."""
    names = (
        *("base_url", "organization", "project", "enqueued_tokens", "enqueued_requests", "endpoint"),
        *("budget", "prices", "  my-model", "batch_discount", "canary", "retention"),
    )
    return re.sub(rf"^( *)# ({'|'.join(names)}):", r"\1\2:", text, flags=re.MULTILINE)


def test_what_the_example_has_in_comments_is_valid_too(tmp_path: Path) -> None:
    loaded = load(tmp_path, uncommented(EXAMPLE.read_text()))
    assert loaded.providers["openai"].base_url is not None
    assert loaded.providers["openai"].limits.enqueued_tokens is not None
    assert loaded.providers["openai"].limits.enqueued_requests is not None
    assert loaded.providers["openai"].prices["my-model"].output > 0
    assert loaded.providers["openai"].batch_discount == 0.5
    assert loaded.providers["openai"].budget.month is not None
    assert loaded.workloads["summarize"].retention == 90 * 86400
    classify = loaded.workloads["classify"]
    assert (classify.budget.basis, classify.canary, classify.endpoint is None) == ("worst", CanaryConfig(), False)


def test_every_option_is_described() -> None:
    models: tuple[Any, ...] = (
        *(Config, ProviderConfig, LimitsConfig, DatabaseConfig, WorkloadConfig, DispatchConfig, RetryConfig),
        *(SourceConfig, WriteBackConfig, EventConfig, BudgetConfig, BatchBudgetConfig, PriceConfig, CanaryConfig),
    )
    bare = [
        f"{model.__name__}.{name}"
        for model in models
        for name, field in model.model_fields.items()
        if not field.description
    ]
    assert bare == []
