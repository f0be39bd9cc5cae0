from hypothesis import given
from hypothesis import strategies as st

from ags_flows.cloud.head_and_tail import HeadAndTail


def test_what_fits_is_kept_whole():
    kept = HeadAndTail(10)
    kept.add(b"12345")
    kept.add(b"67890")
    assert (kept.text(), kept.size, kept.truncated) == ("1234567890", 10, False)


def test_what_does_not_fit_loses_its_middle_and_says_how_much():
    kept = HeadAndTail(10)
    for _ in range(100):
        kept.add(b"abcdefghij")
    assert kept.text() == "abcde\n... 990 bytes left out ...\nfghij"
    assert (kept.size, kept.truncated) == (1000, True)


@given(st.lists(st.binary(max_size=40), max_size=40), st.integers(2, 60))
def test_head_and_tail_are_right_however_the_pieces_come(pieces, limit):
    kept = HeadAndTail(limit)
    for piece in pieces:
        kept.add(piece)
    whole = b"".join(pieces)
    assert kept.size == len(whole)
    assert kept.truncated == (len(whole) > limit)
    if not kept.truncated:
        assert kept.text() == whole.decode("utf-8", "replace")
    assert sum(map(len, kept._tail)) <= limit + 40


def test_a_limit_of_nothing_only_counts():
    kept = HeadAndTail(0)
    kept.add(b"abc")
    assert (kept.size, kept.truncated) == (3, True)
    assert kept.text() == "\n... 3 bytes left out ...\n"
