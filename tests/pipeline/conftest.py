"""What the random walk counts."""

import pytest

from tests.pipeline import test_random_walk as walk


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the walks did, and the seed that takes them again."""
    tally = walk.tally
    if tally:
        faults = {name.removeprefix("fault: "): n for name, n in tally.items() if name.startswith("fault: ") and n}
        listed = ", ".join(f"{name} {n}" for name, n in sorted(faults.items()))
        terminalreporter.write_line(
            f"random walk: {tally['walks']} walks, {tally['steps']} steps, {tally['runs']} runs, {tally['kills']} kills,"
            f" {sum(faults.values())} faults ({listed}); {tally['accepted']} tasks accepted and settled,"
            f" {tally['billed']} requests billed; NURA_WALK_SEED={walk.SEED}"
        )
