"""Templates: data is printed and nothing else, optional names are, and no rendering costs more than its bounds."""

import resource
import time
from pathlib import Path
from typing import Any

import pytest

from nura_cli import config
from nura_cli.errors import ConfigError, InputError
from nura_cli.pipeline import bounds
from nura_cli.pipeline.numbers import record_of
from nura_cli.pipeline.render import compiled, spec_of
from nura_cli.pipeline.templates import Prompt

RECORD = record_of(
    b'{"meta": "a b", "d": {"title": "T", "items": [1, 2]}, "names": ["a", "b"], "price": 19.90, "tiny": 0.00001,'
    b' "big": 123456789012345678901234567890, "exact": 1234567890123456.78, "zero": -0, "power": 1E2, "xs": [3, 1.50]}'
)


def render(source: str, record: dict[str, Any] | None = None) -> str:
    """Return what a template makes of a record."""
    return Prompt(source, "w").render(RECORD if record is None else record)


def refusal(source: str, record: dict[str, Any] | None = None) -> str:
    """Return why a template makes nothing of a record."""
    with pytest.raises(InputError) as caught:
        render(source, record)
    return caught.value.message


# --- fields and methods


@pytest.mark.parametrize(
    "use",
    [
        "{{ METHOD }}",
        "{% if METHOD %}x{% endif %}",
        "{{ 'x' if METHOD else 'y' }}",
        "{{ METHOD or 'x' }}",
        "{{ METHOD | upper }}",
        "{{ METHOD | default('x') }}",
        "{{ METHOD is defined }}",
        "{{ [METHOD] }}",
        "{{ 'x' ~ METHOD }}",
        "{{ '%s' % METHOD }}",
        "{% set f = METHOD %}{{ f() }}",
        "{% for x in METHOD %}{% endfor %}",
    ],
)
@pytest.mark.parametrize("method", ["meta.title", "d.values", "names.index", "meta['title']"])
def test_a_method_that_is_not_called_is_an_error_that_names_it(use: str, method: str) -> None:
    name = method.replace("['", ".").rstrip("]'").split(".")[1]
    assert f"{name} is a method of" in refusal(use.replace("METHOD", method))


def test_nor_does_one_come_in_by_another_way() -> None:
    assert "title is a method" in refusal("{{ names | map(attribute='title') | list }}")
    assert "upper is a method" in refusal("{{ meta | attr('upper') }}")
    assert "title is a method" in refusal("{{ '{0.title}'.format(meta) }}")
    assert "only ever called" in refusal("{% macro m() %}{% endmacro %}{{ m }}")
    assert "has yet to make" in refusal("{{ names | map('upper') }}")
    assert "has yet to make" in refusal("{{ ['x', names | map('upper')] }}")
    assert "has yet to make" in refusal("{{ names | reverse }}")
    assert "namespace is no data" in refusal("{% set n = namespace(a=1) %}{{ n }}").lower()
    assert "'range' is undefined" in refusal("{{ range }}")


def test_a_field_comes_before_a_method_and_a_method_that_is_called_works() -> None:
    assert render("{{ d.title }} {{ d.items }} {{ d['items'] }}") == "T [1, 2] [1, 2]"
    assert render("{{ meta.upper() }} {{ d.items() | list }} {{ d['keys']() | list }}") == (
        "A B [('title', 'T'), ('items', [1, 2])] ['title', 'items']"
    )
    assert render("{% for key, value in d.items() %}{{ key }} {% endfor %}{{ ','.join(names) }}") == "title items a,b"
    assert render("{% for n in range(2) %}{{ loop.cycle('x', 'y') }}{{ meta.center(7) }}{% endfor %}") == (
        "x  a b  y  a b  "
    )
    assert render("{{ range }} {{ range(2) | list }}", {"range": "far"}) == "far [0, 1]"
    assert render("{{ d['values'] | default('none') }}") == "none"
    assert render("{% block b %}x{% endblock %}{{ self.b() }}{% filter upper %}y{% endfilter %}") == "xxY"
    assert render("{% macro m(a) %}[{{ a }}{{ caller() }}]{% endmacro %}{% call m(1) %}c{% endcall %}") == "[1c]"
    assert render("{% for n in xs recursive %}{{ loop([]) }}{{ loop.last }}{% endfor %}") == "FalseTrue"


# --- names that may be absent


@pytest.mark.parametrize(
    ("source", "given"),
    [
        ("{{ x | default('-') }}", "-"),
        ("{{ x or '-' }}", "-"),
        ("{{ x or y or '-' }}", "-"),
        ("{% if x %}{{ x }}{% endif %}", ""),
        ("{% if x is defined and x > 3 %}{{ x }}{% endif %}", ""),
        ("{% if not x or x.y %}-{% else %}{{ x }}{% endif %}", "-"),
        ("{% if meta and x %}{{ x }}{% elif y %}{{ y }}{% endif %}", ""),
        ("{{ x if x else '-' }}", "-"),
        ("{{ x if x is defined else '-' }}", "-"),
        ("{% for a in x or [] %}{{ a }}{% endfor %}", ""),
        ("{% if x is not defined %}{% set x = 'set' %}{% endif %}{{ x }}", "set"),
        ("{% set x = x | default('set') %}{{ x }}", "set"),
        ("{% for a in names if x %}{{ a }}{{ x }}{% endfor %}", ""),
    ],
)
def test_a_name_that_is_asked_for_may_be_absent(source: str, given: str) -> None:
    prompt = Prompt(source, "w")
    assert prompt.names <= {"meta", "names"}
    assert prompt.render(RECORD) == given


@pytest.mark.parametrize(
    "source",
    [
        "{{ x }}",
        "{{ x | upper }}",
        "{% if x == 1 %}{% endif %}",
        "{% for a in x %}{% endfor %}",
        "{% if x %}{% endif %}{{ x }}",
        "{{ x | default('') }}{{ x }}",
        "{{ x ~ 'y' }}",
        "{{ [x] }}",
        "{{ x and 'y' }}{{ x }}",
        "{% for x in names %}{% endfor %}{{ x }}",
        "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(x) }}",
    ],
)
def test_a_name_that_is_used_is_needed(source: str) -> None:
    assert "x" in Prompt(source, "w").names
    assert "undefined" in refusal(source)


def test_members_are_asked_for_likewise() -> None:
    assert render("{% if d.nope %}x{% endif %}{{ d.nope or '-' }}{{ d.nope | default('-') }}") == "--"
    assert "nope" in refusal("{{ d.nope }}")


# --- numbers


def test_numbers_come_out_as_they_went_in() -> None:
    assert render("{{ price }} {{ tiny }} {{ big }} {{ exact }} {{ zero }} {{ power }} {{ xs }}") == (
        "19.90 0.00001 123456789012345678901234567890 1234567890123456.78 -0 1E2 [3, 1.50]"
    )
    assert render("{{ record | tojson }}", record_of(b'{"a": [19.90, -0, {"b": 1E2}], "c": "19.90"}')) == (
        '{"a": [19.90, -0, {"b": 1E2}], "c": "19.90"}'
    )
    assert render("{{ price ~ '!' }}{{ price | string }} {{ '%s {}' | format(price) }} {{ '{}'.format(price) }}") == (
        "19.90!19.90 19.90 {} 19.90"
    )
    assert render("{{ xs | join('/') }} {{ xs | sort }} {{ xs | max }} {{ xs | pprint }}") == (
        "3/1.50 [1.50, 3] 3 [3, 1.50]"
    )


def test_and_may_be_computed_with() -> None:
    assert render("{{ price + 1 }} {{ price * 2 }} {{ price | round }} {{ price | int }} {{ big + 1 }}") == (
        "20.9 39.8 20.0 19 123456789012345678901234567891"
    )
    assert render("{{ price > 19 }} {{ price == 19.9 }} {{ price is number }} {{ xs | sum }} {{ -price }}") == (
        "True True True 4.5 -19.9"
    )
    assert render("{{ '%.1f' % price }} {{ '{:.1f}'.format(price) }} {{ price | float }}") == "19.9 19.9 19.9"


# --- one piece


@pytest.mark.parametrize(
    "source",
    [
        "fine\n{% include 'a' %}",
        "fine\n{% import 'a' as a %}",
        "fine\n{% from 'a' import b %}",
        "fine\n{% extends 'a' %}",
        "fine\n{% if false %}{% include 'a' %}{% endif %}",
    ],
)
def test_another_template_is_refused_with_file_and_line(tmp_path: Path, source: str) -> None:
    (tmp_path / "p.txt").write_text(source)
    document = "providers: {box: {kind: sandbox}}\nworkloads:\n  w: {provider: box, model: m, PROMPT}\n"
    path = tmp_path / "nura.yaml"
    inline = source.replace("\n", "\\n").replace('"', '\\"')
    for prompt, place in (
        ("prompt_file: p.txt", f"{tmp_path / 'p.txt'}:2: "),
        (f'prompt: "{inline}"', f"{path}:3: workloads.w.prompt (line 2): "),
    ):
        path.write_text(document.replace("PROMPT", prompt))
        workload = config.load(path).workloads["w"]
        with pytest.raises(ConfigError, match="one piece") as caught:
            compiled(workload, config.prompt_text(workload))
        assert caught.value.message.startswith(place)
        assert caught.value.workload == "w"


@pytest.mark.parametrize(
    "source", ["{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "{% for a in x %}" * 30 + "{% endfor %}" * 30]
)
def test_what_cannot_be_compiled_is_a_matter_of_the_configuration_too(source: str) -> None:
    with pytest.raises(ConfigError, match="no template that can be used"):
        Prompt(source, "w")


def test_a_byte_order_mark_is_not_sent(tmp_path: Path) -> None:
    for name in ("prompt", "system"):
        (tmp_path / f"{name}.txt").write_text(name, encoding="utf-8-sig")
    path = tmp_path / "nura.yaml"
    path.write_text(
        "providers: {box: {kind: sandbox}}\nworkloads:\n"
        "  w: {provider: box, model: m, prompt_file: prompt.txt, system_file: system.txt}\n"
    )
    from nura_cli.dialects.vendors import dialect

    spec = spec_of(config.load(path).workloads["w"], dialect("openai"))
    assert (spec.prompt, spec.system) == ("prompt", "system")


# --- bounds

TOO_LARGE = [
    "{{ 'x' * 10**10 }}",
    "{{ [1] * 10**10 }}",
    "{{ 10**10 * 'x' }}",
    "{{ 'a' | center(10**9) }}",
    "{{ 'a' | center(width=10**9) }}",
    "{{ 'a'.center(10**10) }}",
    "{{ 'a'.zfill(10**10) }}",
    "{{ 'a\t'.expandtabs(10**10) }}",
    "{{ '%10000000000d' % 1 }}",
    "{{ '%*d' % (10**10, 1) }}",
    "{{ '%.9999999999f' | format(1) }}",
    "{{ '{:>10000000000}'.format(1) }}",
    "{{ '{:>{w}}'.format(1, w=10**10) }}",
    "{{ '{a:>9999999999}'.format_map({'a': 1}) }}",
    "{{ lipsum(10**9) }}",
    "{{ lipsum(n=10**5, min=10**3, max=10**4) }}",
    "{% set n = namespace(s='x' * 1000) %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "{% set n = namespace(s='x' * 1000) %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "{% set n = namespace(s=[1]) %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "{% set n = namespace(s=[1]) %}{% for i in range(99) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s }}",
    "{% set n = namespace(s=7) %}{% for i in range(99) %}{% set n.s = n.s * n.s %}{% endfor %}",
    "{% set n = namespace(l=[]) %}{% for i in range(999) %}{% set n.l = n.l + ['x' * 10**7] %}{% endfor %}",
    "{{ 9 ** (10**9) }}",
    "{{ ('a' * 10**6) | replace('a', 'b' * 10**6) }}",
    "{{ ('a' * 10**6).replace('a', 'b' * 10**6) }}",
    "{{ 'a' | indent(10**9, true) }}",
    "{{ ['a'] | batch(10**9, 'x') | list }}",
    "{{ ['a'] | slice(10**9) | list }}",
    "{{ [1] | tojson(indent=10**9) }}",
    "{{ 3 | round(10**9, 'ceil') }}",
    "{{ 5 .to_bytes(10**10, 'big') }}",
    "{{ ([[1] * 1000] * 10**5) | sum(start=[]) }}",
    "{% set b = 'x' * 10**6 %}{{ ([b] * 10**5) | join }}",
    "{% set b = 'x' * 10**6 %}{{ ''.join([b] * 10**5) }}",
    "{% set b = 'x' * 10**6 %}{{ ([b] * 1000) | upper }}",
    "{% set b = 'x' * 10**6 %}{{ '%s' % ([b] * 1000,) }}",
    "{% set b = 'x' * 10**6 %}{% set q %}{% for i in range(10**5) %}{{ b }}{% endfor %}{% endset %}",
    "{% set b = 'x' * 10**6 %}{% for i in range(10**5) %}{{ b }}{% endfor %}",
    "{% macro m() %}" + "y" * 999 + "{% endmacro %}{% for i in range(10**5) %}{{ m() }}{% endfor %}",
    "{{ range(10**5) | map('center', 10**5) | join }}",
    "{{ ('a ' * 10**7).split() | length }}",
    "{% for i in range(10**5) %}{% set x = ('x' * 10**6)[1:] %}{% endfor %}",
    "{{ 'x'.translate({120: 'y' * 10**8}) }}",
    "{{ ('a b ' * 10**6) | title | length }}",
    "{{ ('<!-->' * 10**6) | title | length }}",
    "{{ ('a b ' * 10**6) | urlize | length }}",
    "{{ ('a b ' * 10**6) | wordwrap | length }}",
    "{{ ('a b ' * 10**6) | wordcount }}",
    "{{ ['a b ' * 10**6] | pprint }}",
    "{{ range(10**12) }}",
]


@pytest.mark.parametrize("source", TOO_LARGE)
def test_what_would_build_gigabytes_ends_as_an_error_of_its_record(source: str) -> None:
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    assert any(words in refusal(source) for words in ("build more", "characters", "too many digits", "too big"))
    assert time.thread_time() - start < 2 * bounds.MOST_SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KB


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(10**5) %}{% for b in range(10**5) %}{% endfor %}{% endfor %}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
        "{% set l = range(10**5) | list %}{% for i in l %}{% if -1 in l %}{% endif %}{% endfor %}",
        "{% set l = range(10**5) | list %}{{ l | select('in', l | reverse | list) | list | length }}",
    ],
)
def test_what_loops_without_end_ends_as_an_error_of_its_record(source: str) -> None:
    start = time.thread_time()
    assert "more than 2 seconds" in refusal(source)
    assert time.thread_time() - start < 3 * bounds.MOST_SECONDS


def test_a_word_without_end_is_not_taken_apart() -> None:
    word = {"x": "a" * 8_000_000}
    assert "too long for what is done with it" in refusal("{{ x | urlize }}", word)
    assert "too long for what is done with it" in refusal("{{ x | wordwrap(10) }}", word)


def test_what_is_large_and_honest_is_rendered() -> None:
    text = {"x": "word " * 1_000_000, "rows": [{"a": f"n{n}", "b": n} for n in range(20_000)]}
    assert len(render("{{ x | trim | replace('word', 'wort') | upper }}", text)) == 4_999_999
    assert render("{% for row in rows %}{{ row.a | upper }}: {{ row.b + 1 }}\n{% endfor %}", text).count("\n") == 20_000


def test_each_rendering_starts_anew() -> None:
    prompt = Prompt("{{ 'x' * n }}", "w")
    for _ in range(5):
        assert len(prompt.render({"n": 30_000_000})) == 30_000_000
        with pytest.raises(InputError):
            prompt.render({"n": 10**10})
