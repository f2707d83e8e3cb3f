"""How long an exchange may take: pure decisions over a clock."""

import httpcore2
import httpx2
import pytest

from nura_cli.providers import deadlines
from nura_cli.providers.deadlines import FLOOR, Deadline

PATIENCE = 60.0


class Clock:
    """A monotonic clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that deadlines go by."""
    made = Clock()
    monkeypatch.setattr(deadlines, "time", made)
    return made


def begun(accept: str = "application/json") -> Deadline:
    """Return the deadline of an exchange that begins now."""
    made = Deadline()
    made.begin(request(accept))
    return made


def request(accept: str = "application/json") -> httpx2.Request:
    """Return a request."""
    extensions = {"timeout": {"read": PATIENCE}}
    return httpx2.Request("GET", "http://there/", headers={"Accept": accept}, extensions=extensions)


def left(deadline: Deadline, timeout: float | None = None) -> float:
    """Return the seconds that the next step may take."""
    with deadline.kept(timeout, httpcore2.ReadTimeout) as seconds:
        return seconds


def step(clock: Clock, deadline: Deadline, seconds: float) -> None:
    """Take a step that lasts so long."""
    with deadline.kept(None, httpcore2.ReadTimeout):
        clock.now += seconds


def test_what_is_done_between_two_steps_takes_none_of_the_time(clock: Clock) -> None:
    deadline = begun("application/binary")
    step(clock, deadline, PATIENCE - 1)
    clock.now += 10 * PATIENCE
    assert left(deadline) == 1


def test_256_mb_over_a_line_just_above_the_floor_are_never_cut(clock: Clock) -> None:
    deadline, size = begun(), 256_000_000
    for _ in range(0, size, FLOOR):
        assert left(deadline) > 0
        step(clock, deadline, 0.99)
        deadline.sent(FLOOR)
    deadline.answering()
    assert left(deadline) == PATIENCE


def test_what_drips_is_cut_after_little_more_than_the_patience(clock: Clock) -> None:
    deadline = begun("application/binary")
    for _ in range(2 * int(PATIENCE)):
        step(clock, deadline, 0.5)
        deadline.read(1)
    step(clock, deadline, 0.1)  # a hundred bytes buy less than that
    with pytest.raises(httpcore2.ReadTimeout, match="its time"):
        left(deadline)


def test_what_went_fast_before_makes_a_drip_no_longer(clock: Clock) -> None:
    deadline = begun("application/binary")
    deadline.read(200_000_000)
    assert left(deadline) == PATIENCE


def test_an_answer_in_json_has_its_patience_and_no_more(clock: Clock) -> None:
    deadline = begun()
    for _ in range(59):
        step(clock, deadline, 1)
        deadline.read(10 * FLOOR)
        deadline.answering()
    assert left(deadline) == 2
    step(clock, deadline, 2)
    with pytest.raises(httpcore2.ReadTimeout):
        left(deadline)


def test_a_step_takes_no_longer_than_it_may_by_itself(clock: Clock) -> None:
    assert left(begun(), 10) == 10
    with pytest.raises(httpcore2.ConnectTimeout, match="no route"), begun().kept(10, httpcore2.ReadTimeout):
        raise httpcore2.ConnectTimeout("no route")


@pytest.mark.parametrize(("accept", "most"), [("application/json", 3), ("application/binary", 9)])
def test_after_some_that_were_cut_nothing_is_asked_for_ten_minutes(clock: Clock, accept: str, most: int) -> None:
    deadline = Deadline()
    for _ in range(most):
        deadline.begin(request(accept))
        step(clock, deadline, PATIENCE)
        with pytest.raises(httpcore2.ReadTimeout):
            left(deadline)
    with pytest.raises(httpx2.ConnectTimeout, match="too slow"):
        deadline.begin(request())
    clock.now += deadlines.REST_SECONDS
    deadline.begin(request())
