from hypothesis import given
from hypothesis import strategies as st

from ags_flows.cloud.pace import Pace


class Time:
    """A clock that only moves when a thread sleeps."""

    def __init__(self):
        self.now = 0.0

    def sleep(self, seconds):
        self.now += seconds


def moments(rate, count, idle=(), hold=None):
    """Return when each of some callers may start. Some come late, and one comes after a refused request."""
    time = Time()
    pace = Pace(rate, lambda: time.now, time.sleep)
    given_out = []
    for number in range(count):
        if number < len(idle):
            time.now += idle[number]
        if hold and number == hold[0]:
            pace.hold(hold[1])
        pace.wait()
        given_out.append(time.now)
    return given_out


@given(st.integers(1, 40), st.lists(st.floats(0, 1.5), max_size=80), st.integers(1, 150))
def test_no_second_has_more_starts_than_the_rate(rate, idle, count):
    given_out = moments(rate, count, idle)
    assert all(later - earlier >= 1.0 - 1e-9 for earlier, later in zip(given_out, given_out[rate:], strict=False))


def test_a_short_burst_does_not_wait_and_a_long_one_keeps_the_rate():
    given_out = moments(10, 101)
    assert given_out[9] == 0.0
    assert given_out[100] == 10.0


def test_a_refused_request_delays_all_callers():
    assert moments(10, 4, hold=(2, 3.0)) == [0.0, 0.0, 3.0, 3.0]
