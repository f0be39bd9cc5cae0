"""Responses to code cells: lines, kept output, kept results."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ags_flows.cloud import cell_response
from ags_flows.cloud.cell_response import Pieces, Received, lines_of
from ags_flows.errors import OutcomeUnknownError


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_lines_are_split_on_line_feeds_alone(pieces):
    whole = b"".join(pieces)
    lines = whole.split(b"\n")
    assert list(lines_of(pieces)) == (lines if lines[-1] else lines[:-1])


def test_a_line_that_is_too_long_is_left_out():
    assert list(lines_of([b"ab\n", b"abc", b"def", b"ghi\nab", b"c\nabcdef"], longest=4)) == [b"ab", None, b"abc", None]


@given(st.lists(st.text(max_size=10), max_size=40), st.integers(0, 60))
def test_kept_output_is_head_and_tail(pieces, limit):
    kept = Pieces(limit)
    for piece in pieces:
        kept.add(piece)
    found = kept.pieces()
    whole = "".join(pieces)
    assert limit > 0 or found == []
    if limit and len(whole) <= limit // 2:
        assert "".join(found) == whole
    notes = [number for number, piece in enumerate(found) if "characters left out" in piece]
    if notes:
        assert whole.startswith("".join(found[: notes[0]])) and whole.endswith("".join(found[notes[0] + 1 :]))


def test_more_results_than_fit_are_left_out_but_the_value_is_kept(monkeypatch):
    monkeypatch.setattr(cell_response, "KEPT_RESULTS", 200)
    received = Received(None, None, keep_logs=False)
    for number in range(10):
        received.take(json.dumps({"type": "result", "text": str(number), "is_main_result": number == 9}).encode())
    assert [one.text for one in received.execution.results][-1] == "9"
    assert len(received.execution.results) < 10 and not received.complete


@pytest.mark.parametrize("lines", [b"", b"\n", b'{"message": "OK"}', b'{"type": "stdout", "text": "x"}\n'])
def test_a_response_without_an_execution_is_an_unknown_outcome(lines):
    with pytest.raises(OutcomeUnknownError):
        cell_response._read([lines], Received(keep_logs=False))


@pytest.mark.parametrize(
    "line", [b'{"type": "number_of_executions", "execution_count": 1}', b'{"type": "error", "name": "E", "value": ""}']
)
def test_a_response_with_an_execution_or_an_error_is_accepted(line):
    cell_response._read([line], Received(keep_logs=False))


@pytest.mark.parametrize("line", [b"nonsense", b"[]", b'{"type": "stdout"}'])
def test_a_line_of_another_program_is_an_error(line):
    with pytest.raises((ValueError, KeyError)):
        Received(None, None, keep_logs=False).take(line)
