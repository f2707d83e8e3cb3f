"""Tables and lines as a terminal has room for them: figures whole, names cut in their middle, words never broken."""

import re

import pytest

from nura_cli.cli.layout import Cell, Column, Screen, cells, cut, table
from nura_cli.cli.status import _lines

WIDTHS = (60, 72, 80, 100, 132, 200)
LONG = "w" + "x" * 58 + "-end"
COLUMNS = [Column("workload"), *(Column(name, figures=True) for name in ("pending", "under way", "completed", "paid"))]
FIGURES = ("10,000,000", "1,234,567", "9,876,543,210", "$7,654,321.8901")


def lines(width: int | None, *names: str) -> list[str]:
    """Return the lines of a table with large figures."""
    return list(table(Screen(width), COLUMNS, [[Cell(name), *map(Cell, FIGURES)] for name in names]))


@pytest.mark.parametrize("width", [30, 40, *WIDTHS])
def test_a_table_fits_and_shows_every_figure_whole(width: int) -> None:
    shown = lines(width, "a", LONG)
    assert max(map(cells, shown)) <= width
    assert all("\n".join(shown).count(figure) == 2 for figure in FIGURES)


def test_a_name_is_cut_in_its_middle_and_with_an_ellipsis() -> None:
    assert "…" not in "".join(lines(200, LONG))
    (row,) = lines(80, LONG)[1:]
    assert re.match(r"wx+…x*-end ", row)
    assert cut("abcdef", 5) == "ab…ef"
    assert cut("日本語日本語", 7) == "日…本語" or cells(cut("日本語日本語", 7)) <= 7


def test_a_pipe_gets_everything_whole_and_without_colour() -> None:
    head, row = lines(None, LONG)
    assert row.split() == [LONG, *FIGURES]
    assert "\x1b" not in head + row


def test_figures_stand_below_each_other() -> None:
    head, *rows = list(table(Screen(80), COLUMNS[:2], [[Cell("a"), Cell("1")], [Cell("b"), Cell("1,000")]]))
    assert {len(line) for line in (head, *rows)} == {len(head)}


def test_where_figures_have_no_room_beside_each_other_a_row_is_a_paragraph() -> None:
    assert lines(40, "a") == [
        "a",
        "  pending 10,000,000",
        "  under way 1,234,567",
        "  completed 9,876,543,210",
        "  paid $7,654,321.8901",
    ]


def test_text_is_broken_between_words_alone() -> None:
    text = "nura show tickets 'a key'; once it is mended, nura retry tickets --error render"
    broken = Screen(30).wrapped(text, "    ")
    assert max(map(len, broken.split("\n"))) <= 30
    assert broken.split() == text.split()
    path = "/a/path/" + "that/goes/on/" * 9
    assert Screen(30).wrapped(f"see {path} now") == f"see\n{path}\nnow"
    assert Screen().wrapped(text) == text


def entry(n: int, name: str = "echo") -> dict[str, object]:
    """Return a batch as status has it."""
    sent = "2027-01-01T00:00:00Z"
    return {
        "id": n,
        "workload": name,
        "provider": "main",
        "status": "submitted",
        "remote_status": "in_progress",
        "requests": 50_000,
        "created_at": sent,
        "submitted_at": sent,
        "expires_at": sent,
        "ended_at": None,
    }


def found(**parts: object) -> dict[str, object]:
    """Return a report of status."""
    row = {
        "tasks": {
            "pending": 10_000_000,
            "submitted": 3_250_000,
            "completed": 123_456_789,
            "failed": 1000,
            "cancelled": 7,
        },
        "oldest_pending_seconds": 93_000,
        "cost": {"paid": "12345.678901"},
        "waits": [],
        "purged": 12_345,
        "to_be_purged": 1,
        "failures": [],
        "dead_deliveries": [],
    }
    cost = {"paid": "12345.678901", "list": "24691.357802", "saved": "12345.678901", "unpriced_tasks": 1_000_000}
    usage = {"input_tokens": 10**12, "output_tokens": 10**11}
    ended = {"started_at": "2027-01-01T00:00:00Z", "exit_code": 3, "message": "a word " * 40}
    return {
        "workloads": {"echo": row, LONG: row},
        "batches": [],
        "stages": {"dispatch": ended},
        "deliveries": {},
        "paused": [],
        "holds": [],
        "snapshots": [],
        "purged_at_providers": 0,
        "attention": [],
        "disk": {"state_bytes": 4096, "wal_bytes": 0, "spool_bytes": 0},
        "usage": usage,
        "cost": cost,
        **parts,
    }


@pytest.mark.parametrize("width", WIDTHS)
def test_status_fits_the_screen(width: int) -> None:
    needs = [{"message": f"batch {n} is held: " + "a long reason " * 20, "hint": "nura resolve " * 9} for n in range(3)]
    shown = "\n".join(_lines(found(attention=needs, batches=[entry(1), entry(2, LONG)]), Screen(width), every=False))
    assert [line for line in shown.split("\n") if cells(line) > width and " " in line.strip()] == []
    assert shown.count("123,456,789") == 2
    assert shown.startswith("needs you: batch 0 is held:")


def test_what_is_much_is_folded_until_all_of_it_is_wanted() -> None:
    many = found(batches=[entry(n) for n in range(65)], attention=[{"message": "m", "hint": "h"}] * 65)
    folded = list(_lines(many, Screen(80), every=False))
    assert sum(line.count("\n") + 1 for line in folded) < 24 + 20
    text = " ".join("\n".join(folded).split())
    assert "echo: 65 batches under way, 3,250,000 requests, the oldest" in text
    assert "(nura status echo)" in text
    assert "needs you: 55 more type: nura status -v" in text
    assert sum("in_progress" in line for line in _lines(many, Screen(80), every=True)) == 65


def test_colours_mean_something() -> None:
    shown = list(_lines(found(attention=[{"message": "m", "hint": "h"}]), Screen(80, colours=True), every=False))
    assert shown[0] == "\x1b[33mneeds you: m\x1b[0m"
    assert any(line.startswith("\x1b[31mdispatch: last run") for line in shown)
    assert all("\x1b[31m" in line for line in shown if " 1,000 " in line)
