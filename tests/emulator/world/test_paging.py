"""Pages stay right while things come and go."""

from hypothesis import given
from hypothesis import strategies as st

from ags_flows.emulator.world.paging import by_offset, by_token


@given(
    numbers=st.sets(st.integers(0, 500), max_size=60),
    size=st.integers(1, 100),
    changes=st.lists(st.tuples(st.sets(st.integers(0, 500), max_size=5), st.sets(st.integers(501, 600), max_size=5))),
)
def test_paging_by_token_shows_everything_that_stays_exactly_once(numbers, size, changes):
    current, stayed, seen, token = set(numbers), set(numbers), [], None
    steps = iter(changes)
    while True:
        page = by_token(
            sorted(current, reverse=True), order=int, query="q", now=0.0, size=size, token=token, count=True
        )
        assert page.total == len(numbers)
        seen += page.items
        token = page.next_token
        if not token:
            break
        gone, come = next(steps, (set(), set()))
        stayed -= gone - set(seen)
        current = (current - gone) | come
    assert len(seen) == len(set(seen)) and stayed <= set(seen) <= set(numbers)


@given(st.lists(st.integers(), max_size=250), st.integers(0, 300), st.integers(1, 100))
def test_paging_by_offset_cuts_and_counts(items, offset, limit):
    page = by_offset(items, offset, limit)
    assert page.items == items[offset : offset + limit] and page.total == len(items)
