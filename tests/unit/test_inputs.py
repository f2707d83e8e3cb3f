"""What people have and pipe in: known by its beginning, and told with the command that makes JSON Lines of it."""

import bz2
import codecs
import gzip
import io
import json
import lzma
import subprocess
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest

from nura_cli.delivery.forms import NoForm, encode, plain
from nura_cli.errors import InputError
from nura_cli.pipeline.enqueue import Objects, Source
from nura_cli.pipeline.keys import Keys
from nura_cli.pipeline.lines import Line
from tests.conftest import need

RECORDS = [{"id": n, "title": f"title {n}"} for n in range(1, 4)]
JSON_LINES = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()
LIMIT = 1_000_000


def read(data: bytes, name: str = "-", limit: int = LIMIT) -> list[Line]:
    """Return the lines of an input."""
    return list(Source(name, io.BytesIO(data), "w").lines(limit))


def joined(separator: str, before: str = "", after: str = "") -> bytes:
    """Return the records, each as JSON, put together."""
    return (before + separator.join(map(json.dumps, RECORDS)) + after).encode()


ARRAYS = {
    "a line for each": joined(",\n", "[\n", "\n]\n"),
    "brackets beside the elements": joined(",\n", "[", "]\n"),
    "commas first": joined("\n,", "[", "\n]\n"),
    "printed": json.dumps(RECORDS, indent=2).encode(),
    "with blank lines and a mark before it": b"\xef\xbb\xbf\n\n" + json.dumps(RECORDS, indent=1).encode(),
    "of one": b'[\n{"id": 1, "title": "x"}\n]\n',
}
TABLES = {
    "CSV": b'id,title\n1,one\n2,"two, and more"\n3,three\n',
    "CSV;": b"id;title\r\n1;one\r\n2;two\r\n3;three\r\n",
    "CSV of a spreadsheet": b'\xef\xbb\xbfid,title\r\n1,"two\r\nlines"\r\n2,x\r\n3,y\r\n',
    "TSV": b"id\ttitle\n1\tone\n2\ttwo\n3\tthree\n",
}


@pytest.mark.parametrize("data", ARRAYS.values(), ids=ARRAYS)
def test_nothing_of_an_array_goes_in(data: bytes) -> None:
    found = read(data, "all.json")
    assert {line.whole for line in found} == {True}
    command = "tail -c +4 all.json | jq -c '.[]'" if data.startswith(codecs.BOM_UTF8) else "jq -c '.[]' all.json"
    assert {line.fault for line in found} == {
        f"is a JSON array, not one record on each line: {command} | nura enqueue w"
    }


def test_a_document_over_several_lines_is_known() -> None:
    for data in (json.dumps(RECORDS[0], indent=2), "\n".join(json.dumps(record, indent=4) for record in RECORDS)):
        found = read(data.encode(), "-")
        why = "is JSON over several lines, not one record on each line: … | jq -c . | nura enqueue w"
        assert {line.fault for line in found} == {why}


@pytest.mark.parametrize(("kind", "data"), TABLES.items())
def test_a_table_is_known(kind: str, data: bytes) -> None:
    for line in read(data, "t"):
        assert line.whole
        assert line.fault == f"is {kind[:3]}, not one record on each line: nura enqueue --csv w t"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_other_encodings_are_known_with_and_without_a_mark(encoding: str) -> None:
    name = encoding.upper().replace("-LE", "LE").replace("-BE", "BE")
    for line in read(JSON_LINES.decode().encode(encoding), "f"):
        assert line.fault == f"is {name}, not UTF-8: iconv -f {name} -t UTF-8 f | nura enqueue w"


OTHERS = {
    "bzip2": (bz2.compress(JSON_LINES), "is bzip2, not JSON Lines: bzcat f | nura enqueue w"),
    "xz": (lzma.compress(JSON_LINES), "is xz, not JSON Lines: xzcat f | nura enqueue w"),
    "gzip twice": (
        gzip.compress(gzip.compress(JSON_LINES)),
        "is gzip inside of gzip, not JSON Lines: zcat f | zcat | nura",
    ),
    "Parquet": (b"PAR1....", "is Parquet"),
    "ZIP": (b"PK\x03\x04....", "is a ZIP archive"),
    "SQLite": (b"SQLite format 3\0", "is an SQLite database"),
    "tar": (b"name".ljust(257, b"\0") + b"ustar\0", "is a tar archive"),
}


@pytest.mark.parametrize(("data", "said"), OTHERS.values(), ids=OTHERS)
def test_other_files_are_known(data: bytes, said: str) -> None:
    assert str(read(data, "f")[0].fault).startswith(said)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        JSON_LINES,
        b'[1, 2]\n{"id": 1}\n',  # a bad line, and a good one
        b'[1, 2\n{"id": 1}\n',
        b'{"id": 1, "title": "x,\n{"id": 2}\n',
        b'{"id": 1,\n{"id": 2}\n',
        b'{"id": 1},\n{"id": 2}\n',
        b'a, b\n{"id": 1}\n',
        b'"id,title"\n{"id": 1}\n',
        b"\xff\xfd garbage\n",
        b"[" * 100_000 + b'\n{"id": 1}\n',
    ],
)
def test_a_bad_first_line_does_not_condemn_the_others(data: bytes) -> None:
    assert not any(line.whole for line in read(data))


@pytest.mark.parametrize("data", [*ARRAYS.values(), JSON_LINES.decode().encode("utf-16-le")])
@pytest.mark.parametrize("packed", [False, True])
def test_the_command_that_is_told_does_it(tmp_path: Path, data: bytes, packed: bool) -> None:
    need("jq", "jq")
    file = tmp_path / "it's a file.json"
    file.write_bytes(gzip.compress(data) if packed else data)
    command = str(read(file.read_bytes(), str(file))[0].fault).partition(": ")[2].removesuffix(" | nura enqueue w")
    done = subprocess.run(["/bin/bash", "-c", command], capture_output=True, check=True, timeout=60)
    records = [json.loads(line.data) for line in read(done.stdout)]
    assert [int(record["id"]) for record in records] == ([1] if data == ARRAYS["of one"] else [1, 2, 3])


# --- compressed


def zstd(data: bytes) -> bytes:
    """Return data as the zstd tool packs them."""
    tool = need("zstd", "zstd")
    return subprocess.run([tool, "-q", "-c"], input=data, capture_output=True, check=True, timeout=60).stdout


PACKERS = {"gzip": gzip.compress, "zstd": zstd}
EACH_PACKER = pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)


@EACH_PACKER
def test_what_is_compressed_is_read_by_its_first_bytes(pack: Any) -> None:
    several = pack(JSON_LINES) + pack(b'{"id": 4}\n{"id"') + pack(b": 5}")
    assert [json.loads(line.data)["id"] for line in read(several, "no-ending")] == [1, 2, 3, 4, 5]
    assert {line.fault for line in read(pack(ARRAYS["printed"]), "f")} == {
        f"is a JSON array, not one record on each line: {'z' if pack is gzip.compress else 'zstd'}cat f | jq -c '.[]'"
        " | nura enqueue w"
    }


@EACH_PACKER
@pytest.mark.parametrize("damage", ["truncated", "flipped", "garbage", "head alone"])
def test_a_damaged_archive_gives_its_good_part_and_an_error(pack: Any, damage: str) -> None:
    whole = "".join(json.dumps({"id": n, "text": f"{n * 7919 % 100_003}"}) + "\n" for n in range(20_000)).encode()
    packed = bytearray(pack(whole))
    if damage == "truncated":
        del packed[len(packed) // 2 :]
    elif damage == "flipped":
        packed[-3] ^= 0xFF
    elif damage == "garbage":
        packed += b"garbage"
    else:
        del packed[6:]
    *good, last = read(bytes(packed))
    assert str(last.fault).startswith("compressed data: it ")
    assert [line.data for line in good] == whole.split(b"\n")[: len(good)]
    least = {"truncated": 5_000, "flipped": 10_000, "garbage": 20_000, "head alone": 0}[damage]
    assert least <= len(good) <= 20_000


@EACH_PACKER
def test_a_line_that_unpacks_without_end_is_bounded(pack: Any) -> None:
    packed = pack(b'{"id": 1}\n' + b"x" * 100_000_000 + b'\n{"id": 2}\n')
    tracemalloc.start()
    try:
        first, bomb, last = read(packed, limit=100_000)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    assert (first.data, len(bomb.data), last.data) == (b'{"id": 1}', 100_000, b'{"id": 2}')
    assert "longer than the 100,000 bytes" in str(bomb.fault)


def test_a_stream_that_gives_little_at_a_time_is_read_whole() -> None:
    class Dripping(io.BytesIO):
        def read1(self, size: int | None = -1) -> bytes:
            return super().read1(min(size or 7, 7))

    for data in (JSON_LINES, gzip.compress(JSON_LINES)):
        assert [json.loads(line.data) for line in Source("-", Dripping(data)).lines(LIMIT)] == RECORDS


# --- keys


@pytest.mark.parametrize(
    ("named", "record", "key"),
    [
        ("id", {"id": 1.0}, "1"),
        ("id", {"id": -0.0}, "0"),
        ("id", {"id": Decimal("7.00")}, "7"),
        ("id", {"id": [1.0, "a"]}, '[1,"a"]'),
        (["a", "b"], {"a": 2.0, "b": "x"}, '[2,"x"]'),
        ("_id.$oid", {"_id": {"$oid": "65a1"}}, '"65a1"'),
        ('_id."$oid"', {"_id": {"$oid": "65a1"}}, '"65a1"'),
        (["_id.$oid", "n"], {"_id": {"$oid": "65a1"}, "n": 3}, '["65a1",3]'),
        ("meta.id", {"meta": {"id": 5}}, "5"),
        ("meta.id", {"meta.id": "flat", "meta": {"id": 5}}, '"flat"'),
        ("ids[0]", {"ids": [4, 5]}, "4"),
        ("join('-', [a, b])", {"a": "x", "b": "y"}, '"x-y"'),
        ("the id", {"the id": 1}, "1"),
        ("über.größe", {"über": {"größe": 1}}, "1"),
    ],
)
def test_a_key_is_a_field_or_a_path(named: Any, record: dict[str, Any], key: str) -> None:
    assert Keys(named).of(record).json == key


@pytest.mark.parametrize(
    ("named", "record", "said"),
    [
        ("id", {"id": 1.5}, "a fraction"),
        ("id", {"id": 1e300}, "a fraction"),
        ("id", {"id": 9007199254740992.0}, "a fraction"),
        ("id", {"ID": 1}, "key field id is missing; the record has ID; did you mean id, or key: ID?"),
        ("id", {"_id": {"$oid": "65a1"}}, "the record has _id; did you mean id, or key: _id.\\$oid"),
        ("_id", {"_id": {"$oid": "65a1"}}, "its key is an object; .*; write key: _id.\\$oid"),
        ("id", {"id": {"0": 1, "1": 2}}, 'to_json\\(orient="records", lines=True\\)'),
        ("_id.$oid", {"_id": "65a1"}, "its key field _id.\\$oid is missing"),
        ("_id.$oid", {"_id": {"$oid": None}}, "its key is null"),
        ("a[", {"a": [1]}, "its key field a\\[ is missing"),
        ("abs(a)", {"a": "x"}, "its key abs\\(a\\): "),
        ("id", {f"\x1b[31m{n}": n for n in range(1000)}, "its key field id is missing$"),
        ("id", {"id": json.loads('{"a":' * 900 + "1" + "}" * 900)}, "its key is an object"),
    ],
)
def test_what_is_no_key_is_said_with_what_to_write(named: Any, record: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Keys(named).of(record)


# --- Python's own values


class Colour(Enum):
    """A value by a name."""

    RED = "red"


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (Decimal("19.90"), b"19.90"),
        (Decimal("1234567890123456.78"), b"1234567890123456.78"),
        (datetime(2026, 3, 29, 2, 30, tzinfo=UTC), b'"2026-03-29T02:30:00+00:00"'),
        (date(2026, 3, 29), b'"2026-03-29"'),
        (time(2, 30), b'"02:30:00"'),
        (timedelta(hours=26), b'"26:00:00"'),
        (UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
        (Colour.RED, b'"red"'),
        ((1, [Decimal("2.0")]), b"[1,[2.0]]"),
        (MappingProxyType({1: date(2026, 1, 1)}), b'{"1":"2026-01-01"}'),
        (Fraction(1, 2), b"0.5"),
    ],
)
def test_values_have_one_form_wherever_they_come_from(value: object, form: bytes) -> None:
    assert encode(plain(value)) == form


@pytest.mark.parametrize("value", [b"x", bytearray(b"x"), {1, 2}, object(), 1j])
def test_what_has_no_form_is_named(value: object) -> None:
    with pytest.raises(NoForm, match=f"Object of type {type(value).__name__}"):
        plain(value)


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), Decimal("NaN"), [float("inf")]])
def test_what_json_has_no_number_for_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="JSON has no"):
        plain(value)


def test_any_mapping_is_a_record() -> None:
    class Row:
        """A row as some drivers give it: names and values, and no more of a mapping."""

        def keys(self) -> Iterator[str]:
            return iter(("id", "on"))

        def __getitem__(self, name: str) -> object:
            return {"id": 1, "on": date(2026, 1, 2)}[name]

    given: list[Any] = [{"id": 1, "on": date(2026, 1, 2)}, MappingProxyType({"id": 1, "on": "2026-01-02"}), Row()]
    found = list(Objects("records", given).lines(LIMIT))
    assert {line.data for line in found} == {b'{"id":1,"on":"2026-01-02"}'}
    wrong: list[Any] = ["id", 7, {"id": 1, "raw": b"x"}, {"id": 1, "n": Decimal("Infinity")}]
    assert [line.fault for line in Objects("records", wrong).lines(LIMIT)] == [
        "has no form in JSON: a str is no mapping of fields",
        "has no form in JSON: a int is no mapping of fields",
        "has no form in JSON: Object of type bytes has no form in JSON (field raw)",
        "has no form in JSON: JSON has no Infinity (field n)",
    ]
