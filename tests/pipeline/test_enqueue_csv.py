"""nura enqueue --csv: tables as tools and people write them, and what becomes of rows that are none."""

import codecs
import csv
import gzip
import io
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from nura_cli.config import load
from nura_cli.dialects.vendors import dialect
from nura_cli.pipeline import enqueue
from nura_cli.pipeline.csv_in import split
from nura_cli.pipeline.enqueue import Source
from nura_cli.pipeline.lines import Line
from nura_cli.pipeline.report import Report
from nura_cli.state import State
from tests.conftest import Spool, cron_environment
from tests.pipeline.forks import completed

NURA = Path(sys.executable).with_name("nura")
LIMIT = 1_000


def rows(data: bytes, limit: int = LIMIT) -> list[Line]:
    """Return the rows of a table."""
    return list(split(io.BytesIO(data), limit))


def records(data: bytes) -> list[dict[str, str]]:
    """Return the records of a table, each row of which is one."""
    found = rows(data)
    assert [line.fault for line in found if line.fault] == []
    return [json.loads(line.data) for line in found]


A, B = {"id": "1", "title": "one"}, {"id": "2", "title": 'two, "and"\nmore; | x'}
TABLES = {
    "commas": b'id,title\n1,one\n2,"two, ""and""\nmore; | x"\n',
    "semicolons": b'id;title\r\n1;one\r\n2;"two, ""and""\nmore; | x"\r\n',
    "tabs": b'id\ttitle\n1\tone\n2\t"two, ""and""\nmore; | x"',
    "bars": b'id|title\n1|one\n2|"two, ""and""\nmore; | x"\n',
    "all in quotes, with a mark": codecs.BOM_UTF8 + b'"id","title"\n"1","one"\n"2","two, ""and""\nmore; | x"\n',
    "blanks around names, empty rows": b'\n id , title \n\n1,one\n,\n2,"two, ""and""\nmore; | x"\n\n',
    "a column without a name": b',id,title\n0,1,one\n1,2,"two, ""and""\nmore; | x"\n',
}


@pytest.mark.parametrize("data", TABLES.values(), ids=TABLES)
def test_tables_of_every_kind_are_the_same_records(data: bytes) -> None:
    assert records(data) == [A, B]


@pytest.mark.parametrize("value", ["", "007", "1.10", "true", "null", " a ", '"', ",", "é\u2028☃", "a\r\nb", "=1"])
def test_every_value_is_text_and_as_it_was(value: str) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([["id", "v"], ["k", value]])
    assert records(text.getvalue().encode()) == [{"id": "k", "v": value}]


def test_a_table_of_one_column_and_one_without_rows() -> None:
    assert records(b"id\na\nb\n") == [{"id": "a"}, {"id": "b"}]
    assert rows(b"id,title\n") == rows(b"") == rows(b"\n\n") == []


def test_a_row_that_is_none_is_told_by_its_first_line_as_it_stood() -> None:
    data = b'id,t\n1,"a\nb"\n2\n3,x,y\n4,\xff\n5,"x"y\n6,' + b"z" * 2 * LIMIT + b'\n7,ok\n8,"open\n9,x\n'
    found = {line.number: line for line in rows(data)}
    assert {n: line.fault and line.fault.split(" (")[0] for n, line in found.items()} == {
        2: None,
        4: "has 1 cells, and the header has 2",
        5: "has 3 cells, and the header has 2",
        6: "not valid UTF-8",
        7: "cannot be read as CSV: ',' expected after '\"'",
        8: "longer than the 1,000 bytes a request may have",
        9: None,
        10: "cannot be read as CSV: unexpected end of data",
    }
    assert [found[n].raw for n in (2, 5, 6, 10)] == [b'1,"a\nb"', b"3,x,y", b"4,\xff", b'8,"open\n9,x']
    assert str(found[10].fault).endswith("(from here to line 11)")
    assert {line.header for line in found.values()} == {b"id,t"}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"id,id\n1,2\n", "its header: names id twice"),
        (b'{"id":1,"a":"b"}\n{"id":2}\n', "is JSON, not CSV: leave out --csv"),
        (b'[{"id":1}]\n', "is JSON, not CSV"),
        (b"i\xff,a\n1,2\n", "its header: not valid UTF-8"),
        (b'"id,a\n1,2\n', "its header: cannot be read as CSV: unexpected end of data"),
        ("id,a\n1,2\n".encode("utf-16"), "is UTF-16, not UTF-8: … | iconv -f UTF-16 -t UTF-8 | nura enqueue --csv w"),
        (b"PAR1....", "is Parquet, not CSV"),
    ],
)
def test_nothing_of_what_is_no_table_goes_in(data: bytes, why: str) -> None:
    found = list(Source("-", io.BytesIO(data), "w", csv=True).lines(LIMIT))
    assert str(found[0].fault).startswith(why)
    assert {(line.fault, line.whole) for line in found} == {(found[0].fault, True)}


def test_a_quote_that_is_never_closed_takes_no_memory() -> None:
    data = b'id,t\n1,"' + (b"x" * 99 + b"\n") * 30_000
    tracemalloc.start()
    found = split(io.BytesIO(data), 10_000)
    first = next(found)
    n = sum(1 for _ in found)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(first.fault).startswith("longer than the 10,000 bytes a request may have (from here to line 10")
    assert n > 20_000
    assert peak < 500_000


def run(spool: Spool, *arguments: str, given: bytes = b"", code: int = 0) -> tuple[str, str]:
    """Run ``nura enqueue``; return what it printed, and what it said."""
    done = completed("enqueue", *arguments, cwd=spool.folder, environment=cron_environment(spool.folder), given=given)
    assert done.returncode == code, done.stderr
    return done.stdout.decode(), done.stderr.decode()


TABLE = b"id,text\r\n1,record number 1\r\nx\r\n2,record number 2\r\n3,a,b\r\n"


@pytest.mark.parametrize("packed", [False, True])
def test_rows_become_answers_and_what_is_refused_is_a_table_again(openai_spool: Spool, packed: bool) -> None:
    spool = openai_spool
    (spool.folder / "t").write_bytes(gzip.compress(TABLE) if packed else TABLE)
    _, said = run(spool, "--csv", "echo", "t", "--rejects", "bad", code=3)
    assert "t, line 3: has 1 cells, and the header has 2" in said
    assert (spool.folder / "bad").read_bytes() == b"id,text\nx\n3,a,b\n"
    spool.settle()
    assert sorted(one["key"] for one in spool.results()) == ["1", "2"]
    assert json.loads(run(spool, "--csv", "echo", "--json", given=TABLE, code=3)[0])["duplicates"] == 2


def test_a_key_is_the_same_as_a_number_and_as_text(openai_spool: Spool) -> None:
    run(openai_spool, "--csv", "echo", given=b"id,text\n1,a\n")
    assert "enqueued with other content" in run(openai_spool, "echo", given=b'{"id": 1, "text": "b"}\n', code=3)[1]


def test_a_dry_run_shows_the_requests_of_rows(openai_spool: Spool) -> None:
    out, said = run(openai_spool, "--csv", "-n", "echo", given=TABLE, code=3)
    assert out.count("Repeat: record number") == 2
    assert "line 3: has 1 cells" in said


def test_a_table_without_the_option_is_told_to_use_it(openai_spool: Spool) -> None:
    (openai_spool.folder / "a b.csv").write_bytes(TABLE)
    assert (
        "is CSV, not one record on each line: nura enqueue --csv echo 'a b.csv'"
        in run(openai_spool, "echo", "a b.csv", code=3)[1]
    )
    assert "… | nura enqueue --csv echo" in run(openai_spool, "echo", given=TABLE, code=3)[1]


def test_it_goes_with_records_only(openai_spool: Spool) -> None:
    openai_spool.workloads["ready"] = {"provider": "main"}
    openai_spool.write_config()
    assert "takes ready lines" in run(openai_spool, "--csv", "ready", given=TABLE, code=2)[1]
    assert "goes without files" in run(openai_spool, "--csv", "--from-source", code=2)[1]


def taken(spool: Spool, source: Source) -> Report:
    """Enqueue a source."""
    config = load(spool.path)
    with State(config.state) as state:
        return enqueue.run(state, config.workloads["echo"], dialect(spool.protocol), [source])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"id,text\n11,a\n12,trunc", True),
        (gzip.compress(b"id,text\n11,a\n12,trunc"), True),
        (b'id,text\r\n11,a\r\n12,"b\r\nc"', True),
        (b"id,text\n11,a\n12,b\n", False),
        (b"id,text\r\n11,a\r\n12,b\r\n\r\n", False),
    ],
    ids=["cut", "packed", "quoted", "whole", "blank"],
)
def test_a_last_row_without_a_line_end_is_taken_and_out_of_a_pipe_told_of(
    openai_spool: Spool, data: bytes, said: bool
) -> None:
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    with open(reader, "rb") as pipe:
        report = taken(openai_spool, Source("-", pipe, csv=True))
    assert (report.exit_code, openai_spool.counts()["pending"]) == (0, 2)
    assert ["the last row has no line end" in one.line for one in report.problems] == [True] * said
    file = openai_spool.folder / "t.csv"
    file.write_bytes(data)
    with file.open("rb") as stream:
        assert taken(openai_spool, Source("t.csv", stream, csv=True)).problems == []


def test_what_is_told_of_a_last_row_goes_to_standard_error_and_is_no_failure(openai_spool: Spool) -> None:
    done = subprocess.run(
        [NURA, "enqueue", "echo", "--csv"],
        cwd=openai_spool.folder,
        env=cron_environment(openai_spool.folder),
        input=b"id,text\n11,a\n12,trunc",
        capture_output=True,
        check=True,
    )
    assert done.stdout == b""
    assert b"line 3: the last row has no line end" in done.stderr
