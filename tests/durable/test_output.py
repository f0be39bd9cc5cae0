from hypothesis import given
from hypothesis import strategies as st

from ags_flows.durable.output import OutputStream


@given(st.lists(st.sampled_from(["a", "ß", "密", "😀", "\n"]), max_size=30), st.lists(st.integers(0, 99), max_size=9))
def test_lines_are_never_split_inside_a_character(characters, cuts):
    text = "".join(characters)
    data = text.encode()
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    lines = []
    stream = OutputStream("stdout", 1000, lambda name, line: lines.append(line))
    for start, end in zip(edges, edges[1:], strict=False):
        stream.take(data[start:end])
    stream.take(b"", final=True)
    assert "\n".join(lines) == text.removesuffix("\n")
    assert (stream.kept.text(), stream.offset) == (text, len(data))


def test_bytes_that_are_not_utf_8_are_replaced():
    lines = []
    stream = OutputStream("stdout", 1000, lambda name, line: lines.append(line))
    stream.take(b"a\xffb\nc\xc3")
    stream.take(b"", final=True)
    assert lines == ["a�b", "c�"]
    assert stream.kept.text() == "a�b\nc�"
