"""State files of the layout that releases before version 7 made, and go on with."""

import sqlite3
from contextlib import closing
from pathlib import Path

LAYOUTS = ("earlier", "newer", "taken over")
"""A file of the earlier layout, one of the newer, and one that was brought from the earlier into the newer."""
EARLIER = """
DELETE FROM meta WHERE name = 'layout';
UPDATE meta SET value = '4' WHERE name = 'oldest_version';
CREATE INDEX answers_finished ON answers (finished_at);
PRAGMA auto_vacuum = none;
VACUUM;
"""


def make_earlier(path: Path) -> None:
    """Turn a file without a task into one of the earlier layout."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        assert db.execute("SELECT count(*) FROM tasks").fetchone() == (0,)
        db.executescript(EARLIER)
        assert db.execute("PRAGMA auto_vacuum").fetchone() == (0,)
