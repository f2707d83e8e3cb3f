"""What the tests count, printed at the end of a run: each worker hands its counts on to where that end is printed."""

from collections import Counter
from collections.abc import Iterator, Mapping

kills: Counter[str] = Counter()
"""What was killed, as ``stage where``."""
walk: Counter[str] = Counter()
"""What the random walks did."""
ratios: Counter[str] = Counter()
"""What the benchmarks measured, a line each."""
_all = {"kills": kills, "walk": walk, "ratios": ratios}


def counted() -> dict[str, dict[str, int]]:
    """Return what was counted in this process, by name."""
    return {name: dict(counts) for name, counts in _all.items()}


def add(others: Mapping[str, Mapping[str, int]]) -> None:
    """Add what another process counted."""
    for name, counts in others.items():
        _all[name].update(counts)


def lines() -> Iterator[str]:
    """Yield a line for each thing that was counted at all."""
    if kills:
        yield _kills()
    if walk:
        yield _walk()
    yield from ratios


def _kills() -> str:
    stages: Counter[str] = Counter()
    for kill, n in kills.items():
        stages[kill.split()[0]] += n
    return f"kill -9: {kills.total()} kills ({_listed(stages)}), nothing lost, nothing billed twice"


def _walk() -> str:
    faults = Counter({name.removeprefix("fault: "): n for name, n in walk.items() if name.startswith("fault: ") and n})
    seeds = sorted(name.removeprefix("seed ") for name in walk if name.startswith("seed "))
    return (
        f"random walk: {walk['walks']} walks, {walk['steps']} steps, {walk['runs']} runs, {walk['kills']} kills,"
        f" {walk['decided --resend'] + walk['decided --give-up']} decisions by a person, {walk['released']} releases, {walk['retried']} tasks retried, {walk['purged']} keys purged, {faults.total()} faults ({_listed(faults)}); {walk['accepted']} tasks accepted and settled,"
        f" {walk['billed']} requests billed; NURA_WALK_SEED={' '.join(seeds)}"
    )


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items()))
