"""Parts of known texts at the ends of a text that was cut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ags_flows.run.spellings import SHORTEST


class Parts:
    """Finds parts of forms at the ends of a text that was cut.

    Args:
        forms: Texts of four characters or more.
    """

    def __init__(self, forms: Iterable[str]) -> None:
        self.forms = sorted(forms)
        self.starts = _by_start(self.forms)
        self._longest = max(map(len, self.forms), default=0)
        self._reversed = _by_start([form[::-1] for form in self.forms])

    def at_start(self, text: str) -> int:
        """Return where the part of a form ends that a text begins with; 0 if there is none."""
        start = text[: self._longest][::-1]
        return len(start) - _unfinished(start, self._reversed, self._longest)

    def at_end(self, text: str) -> int:
        """Return where the part of a form begins that a text ends with; the length if there is none."""
        return _unfinished(text, self.starts, self._longest)

    def has(self, text: str) -> bool:
        """Return True if a text is a part of a form."""
        return len(text) < self._longest and any(text in form for form in self.forms)


def _by_start(forms: list[str]) -> dict[str, list[str]]:
    starts: dict[str, list[str]] = {}
    for form in forms:
        starts.setdefault(form[:SHORTEST], []).append(form)
    return starts


def _unfinished(text: str, starts: Mapping[str, list[str]], longest: int) -> int:
    """Return where the earliest end of a text begins that is a part of a form, from its start."""
    size = len(text)
    for at in range(max(0, size - longest + 1), size - SHORTEST + 1):
        for form in starts.get(text[at : at + SHORTEST], ()):
            if len(form) > size - at and form.startswith(text[at:]):
                return at
    return size
