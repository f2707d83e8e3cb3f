"""A table as nura init looks at it: its key, its texts, and the SQL that it is read and given a column by, in each database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from nura_cli.delivery import tables
from nura_cli.errors import ConfigError
from tests.databases import KINDS, Database, opened


@pytest.fixture(params=KINDS)
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database with a table whose names need quotes."""
    with opened(request.param, tmp_path) as found:
        mark = "`" if found.kind == "mariadb" else '"'
        found.run(
            "CREATE TABLE t (tenant VARCHAR(20), id INTEGER, Body TEXT NOT NULL, title VARCHAR(300), short VARCHAR(10),"
            f" at TIMESTAMP NULL, {mark}order by{mark} TEXT, PRIMARY KEY (tenant, id))"
        )
        found.run("INSERT INTO t (tenant, id, Body) VALUES ('a', 1, 'x')")
        yield found


def test_key_and_columns_are_those_of_the_database(app: Database) -> None:
    found = tables.look(app.url, "t")
    assert found.key == ["tenant", "id"]
    columns = {column.name.lower(): column for column in found.columns}
    assert [name for name, column in columns.items() if column.text] == ["tenant", "body", "title", "short", "order by"]
    assert [name for name, column in columns.items() if column.long] == ["body", "title", "order by"]
    assert (columns["body"].nullable, columns["title"].nullable) == (False, True)


def test_its_sql_is_understood_there(app: Database) -> None:
    found = tables.look(app.url, "t")
    query = found.select(["tenant", "id", "order by"], "order by")
    assert app.records(query) == [{"tenant": "a", "id": 1, "order by": None}]
    app.run(found.add_text("answer"))
    assert tables.look(app.url, "t").columns[-1].name == "answer"


def test_a_table_that_is_not_there_is_told_with_what_is_near(app: Database) -> None:
    for name in ("tt", "nowhere.t"):
        with pytest.raises(ConfigError, match=f"the database has no table {name}"):
            tables.look(app.url, name)
