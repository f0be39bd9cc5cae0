from hypothesis import given
from hypothesis import strategies as st

from ags_flows.cloud.lines import LONGEST_LINE, LineSplitter, is_piece


def split(*pieces):
    splitter = LineSplitter()
    return [line for piece in pieces for line in splitter.feed(piece)] + splitter.close()


def joined(lines):
    return "".join(line if is_piece(line) or line.endswith("\r") else f"{line}\n" for line in lines)


def test_lines_of_unix_and_windows_lose_their_ends():
    assert split("one\r\ntwo\n\nthr", "ee") == ["one", "two", "", "three"]


def test_states_of_a_progress_bar_keep_their_carriage_return():
    assert split("10%\r", "20%\r30", "%\r\nend\r\r\n") == ["10%\r", "20%\r", "30%", "end\r", ""]


def test_a_long_line_comes_in_pieces_and_the_last_one_is_shorter():
    for length in (LONGEST_LINE - 1, LONGEST_LINE, LONGEST_LINE + 1, 3 * LONGEST_LINE):
        for end in ("\n", "\r"):
            whole = split(f"{'x' * length}{end}y\n")
            assert joined(whole) == f"{'x' * length}{end}y\n"
            assert split(*["x" * 1000] * (length // 1000), "x" * (length % 1000), f"{end}y\n") == whole
            assert [is_piece(line) for line in whole] == [True] * (length // LONGEST_LINE) + [False] * 2


@given(st.lists(st.text("ab\n\r", max_size=12), max_size=12))
def test_nothing_is_lost_or_doubled_wherever_the_text_is_cut(pieces):
    text = "".join(pieces)
    lines = split(*pieces)
    assert "".join(lines).replace("\r", "") == text.replace("\n", "").replace("\r", "")
    plain = text.replace("\r", "")
    assert joined(split(*(piece.replace("\r", "") for piece in pieces))).removesuffix("\n") == plain.removesuffix("\n")
