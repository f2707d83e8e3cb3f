"""Secrets are taken out of words from outside, in each form in which they come back; answers are not touched."""

import json
import traceback
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nura_cli import scrub
from nura_cli.delivery.database import open_engine, speaking, transaction
from nura_cli.delivery.database import plain as delivered
from nura_cli.errors import ConfigError, NuraError, ProblemKind
from nura_cli.pipeline.classify import Verdict, scrubbed
from nura_cli.pipeline.report import Problem, bug
from nura_cli.state.answers import Charge, Failure
from nura_cli.states import ErrorKind

KEY = 's3cr3t/with "odd" & 100% är+'
PLAIN = "abcdefghij0123456789abcdefghij"


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    before = dict(scrub._known)
    scrub.know(KEY)
    scrub.know(PLAIN)
    yield
    scrub._known.clear()
    scrub._known.update(before)


FORMS = [
    KEY,
    quote(KEY),
    quote(KEY, safe=""),
    quote(KEY, safe="").lower(),
    quote_plus(KEY),
    json.dumps(KEY)[1:-1],
    json.dumps(KEY)[1:-1].replace("/", "\\/"),
    json.dumps(KEY, ensure_ascii=False)[1:-1],
    repr(KEY)[1:-1],
    KEY.replace("&", "&amp;").replace('"', "&quot;"),
]


@pytest.mark.parametrize("form", FORMS)
def test_a_secret_is_found_in_each_of_its_forms(form: str) -> None:
    assert scrub.clean(f"before {form} after") == "before [secret] after"


def test_a_secret_that_is_known_escaped_is_found_as_it_is() -> None:
    scrub.know("p%40ss%3Aw%2Frd")
    assert scrub.clean("for p@ss:w/rd and p%40ss%3Aw%2Frd") == "for [secret] and [secret]"


@given(st.integers(16, len(PLAIN)))
def test_a_secret_that_was_cut_is_found_at_either_end_of_a_text(left: int) -> None:
    for dots in ("", "…", "..."):
        assert scrub.clean(f"the key {PLAIN[:left]}{dots}") == f"the key [secret]{dots}"
        assert scrub.clean(f"{dots}{PLAIN[-left:]} is no key") == f"{dots}[secret] is no key"


def test_short_secrets_and_other_words_are_left_alone() -> None:
    scrub.know("1234567")
    scrub.know("")
    assert scrub.clean("1234567 abcdefghij") == "1234567 abcdefghij"
    assert scrub.clean("") == ""


def test_what_looks_like_a_key_is_taken_out_of_a_providers_words_alone() -> None:
    assert scrub.words("the key sk-proj-abc***xyz. is wrong") == "the key [secret] is wrong"
    assert scrub.clean("/etc/key-openai.txt") == "/etc/key-openai.txt"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:longpassword@host/db",
        "postgresql+psycopg://u:longpassword@host:5432/db?sslmode=require",
        "mysql://u@example:longpassword@host/db",
        "postgresql://u@host/db?sslpassword=longpassword&sslmode=require",
        "postgresql://host/db?user=u&password=longpassword",
    ],
)
def test_the_password_in_a_url_is_known_and_so_is_the_rest_not(url: str) -> None:
    scrub.know_url(url)
    assert scrub.clean("user u, password longpassword at host/db") == "user u, password [secret] at host/db"


def test_no_error_and_no_trouble_holds_a_secret() -> None:
    error = NuraError(f"the provider said {PLAIN}", hint=f"look at {PLAIN}")
    assert PLAIN not in str(error) + error.message + str(error.hint) + repr(error)
    assert PLAIN not in Problem(ProblemKind.ROW, f"refused: {PLAIN}", 3).line
    assert PLAIN not in bug(ValueError(PLAIN), "batch 1").line
    assert delivered(f"said {PLAIN}", 12) == "said [secre…"


def test_a_failures_words_and_body_are_cleaned_and_an_answer_is_not() -> None:
    body = json.dumps({"error": {"message": f"key {KEY}", KEY: [KEY, 1.50]}}).replace("/", "\\/").encode()
    failed = scrubbed(Verdict(Failure(ErrorKind.REFUSED, f"bad {KEY}", KEY), body, Charge()))
    assert failed.failure == Failure(ErrorKind.REFUSED, "bad [secret]", "[secret]")
    assert json.loads(failed.body or b"") == {"error": {"message": "key [secret]", "[secret]": ["[secret]", 1.5]}}
    answer = Verdict(None, body, Charge())
    assert scrubbed(answer) is answer


@given(st.recursive(st.none() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=8))
def test_a_body_without_secrets_stays_as_it_is(document: object) -> None:
    body = json.dumps(document, indent=1).encode()
    assert scrub.body(body) == body


@pytest.mark.parametrize("body", [b"\xff", b"", b"[" * 100_000, f'{{"a": "{PLAIN}"'.encode()])
def test_a_body_that_is_no_json_is_cleaned_as_text(body: bytes) -> None:
    assert PLAIN.encode() not in scrub.body(body)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "mysql", "mariadb", "postgresql+psycopg"])
@pytest.mark.parametrize(
    "rest",
    [
        "u:p@ss:w/rd@host/db",
        "u:p@ss/rd@host/db",
        "u:p@ssword@host/db",
        "u:p@ssword@host:5432/db",
        "u:p@ss?word@host/db",
        "u:p@ss#word@host/db",
        "u:passw@:rd@host/db",
        "u:pass:w0rd",
        "u:password@host:port/db",
        "host:passw0rd/db",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_a_word_of_it(scheme: str, rest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_engine(f"{scheme}://{rest}")
    assert caught.value.message == "the database's URL cannot be read"
    assert "write @ as %40" in str(caught.value.hint)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "url", ["", "x", "://", "nothing://u:longpassword@h/d", "postgresql://u:longpassword@h/d?a=b@c"]
)
def test_so_is_what_is_no_url_at_all(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_engine(url)
    assert "longpassword" not in "".join(traceback.format_exception_only(caught.value))
    assert caught.value.__suppress_context__


def reach(url: str) -> None:
    engine = open_engine(url)
    with speaking(engine), transaction(engine):
        pass


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:longp%E2%80%99assword@127.0.0.1:9/d",
        "mysql://u:longpassword@127.0.0.1:9/d?no_such_option=1",
        "postgresql://u:longpassword@127.0.0.1:9/d?connect_timeout=soon",
        "postgresql://u:long%00password@127.0.0.1:9/d",
    ],
)
def test_what_a_driver_does_not_take_is_a_matter_of_the_configuration_or_of_the_database(url: str) -> None:
    with pytest.raises(NuraError) as caught:
        reach(url)
    assert "password" not in caught.value.message


def test_an_at_sign_in_a_users_name_or_in_the_name_of_a_file_is_fine(tmp_path: object) -> None:
    assert open_engine("mysql://user@server:pw@server.example/db").url.username == "user@server"
    assert open_engine("postgresql://u:p%40ss%3Aw%2Frd@host/db").url.password == "p@ss:w/rd"
    file = f"{tmp_path}/a@b.db"
    with open(file, "w"):
        assert open_engine(f"sqlite:///{file}").url.database == file
