from hypothesis import given
from hypothesis import strategies as st

from ags_flows.cloud.head_and_tail import HeadAndTail


def test_what_fits_is_kept_whole():
    kept = HeadAndTail(10)
    kept.add(b"12345")
    kept.add(b"67890")
    assert (kept.text(), kept.size, kept.truncated) == ("1234567890", 10, False)


def test_the_middle_of_long_output_is_replaced_by_its_size():
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


def cut(data, limit):
    kept = HeadAndTail(limit)
    kept.add(data)
    head, _, tail = kept.text().split("\n", 1)[0], "", kept.text().rsplit("...\n", 1)[1]
    return head, tail


@given(st.lists(st.sampled_from(["a", "ß", "密", "😀"]), min_size=20, max_size=60), st.integers(2, 19))
def test_a_cut_is_never_inside_of_a_character(characters, limit):
    text = "".join(characters)
    head, tail = cut(text.encode(), limit)
    assert text.startswith(head) and text.endswith(tail)
    assert limit - 6 <= len((head + tail).encode()) <= limit


def test_a_cut_is_not_inside_of_a_word():
    assert cut(b"one two three four five six", 12) == ("one ", " six")
    assert cut(b"one two three four five six", 14) == ("one two", " six")


def test_a_word_that_is_longer_than_any_is_cut():
    head, tail = cut(b"a " + b"x" * 100_000 + b" b", 20_000)
    assert (len(head), len(tail)) == (10_000, 10_000)


def test_the_number_of_bytes_left_out_is_exact():
    kept = HeadAndTail(12)
    for letter in "one two three four five six":
        kept.add(letter.encode())
    assert kept.text() == "one \n... 19 bytes left out ...\n six"
