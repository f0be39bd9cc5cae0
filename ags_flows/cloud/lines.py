"""Lines of a stream of text that comes in pieces."""

from __future__ import annotations

LONGEST_LINE = 1 << 16
"""Characters of the longest piece of a line."""


class LineSplitter:
    r"""Turns pieces of text, wherever they are cut, into lines without their ends, in bounded memory.

    A line ends with `\n` or `\r\n`. Text that ends with `\r`, such as a state of a progress bar, is given with the
    `\r`. A line of `LONGEST_LINE` characters or more is given in pieces of `LONGEST_LINE`; its last piece is shorter,
    and can be empty. See `is_piece`.
    """

    def __init__(self) -> None:
        self._rest = ""

    def feed(self, text: str) -> list[str]:
        """Take a piece of text, and return the lines that it ends."""
        *lines, rest = (self._rest + text).split("\n")
        if any("\r" in line for line in (*lines, rest)):
            lines = [part for line in lines for part in _states(line.removesuffix("\r"))]
            *states, rest = _states(rest)
            lines += states
        if any(len(line) >= LONGEST_LINE for line in lines):
            lines = [piece for line in lines for piece in _pieces(line)]
        while len(rest) >= LONGEST_LINE:
            lines.append(rest[:LONGEST_LINE])
            rest = rest[LONGEST_LINE:]
        self._rest = rest
        return lines

    def close(self) -> list[str]:
        """Return the line that has no end, if there is one."""
        rest, self._rest = self._rest, ""
        return [rest] if rest else []


def is_piece(line: str) -> bool:
    """Return True if a line of `LineSplitter` goes on with the next one."""
    return len(line) == LONGEST_LINE and line[-1] != "\r"


def _states(line: str) -> list[str]:
    """Return the states of a progress bar in a line, each with its carriage return, and what follows the last one."""
    *states, last = line.split("\r")
    return [*(f"{state}\r" for state in states), last]


def _pieces(line: str) -> list[str]:
    end = "\r" if line[-1:] == "\r" else ""
    text = line.removesuffix("\r")
    # One more than fits: the last piece is always shorter.
    pieces = [text[at : at + LONGEST_LINE] for at in range(0, len(text) + 1, LONGEST_LINE)]
    return [*pieces[:-1], pieces[-1] + end]
