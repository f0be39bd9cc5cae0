"""How a recorded account behaved: what `ags-flows verify --record` wrote, for the emulator to do the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from .instance import Instance
from .transitions import Transition

FORMAT = 1
NOTICEABLE = 0.02
"""Seconds; what was quicker than that is as quick as the emulator itself."""

_STEPS = {
    "tool.create": "tool.create.seconds",
    "instance.stop": "stop.seconds",
    "instance.pause": "pause.seconds",
    "instance.resume": "resume.seconds",
}


def read_profile(source: Mapping[str, Any] | Path | str) -> dict[str, Any]:
    """Return a profile from a file, or as it is.

    Raises:
        ValueError: The file cannot be read, or is not a profile.
    """
    if isinstance(source, Mapping):
        return dict(source)
    try:
        document = json.loads(Path(source).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"the profile {source} cannot be read: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"{source} is not a profile of format {FORMAT}; record one: ags-flows verify --record FILE")
    return document


class Profile:
    """A recorded account; an empty document changes nothing.

    Args:
        document: See `read_profile`.

    Attributes:
        repeat: What a repeated ClientToken does: ``replay`` or ``refuse``.
        merges_metadata: Whether new metadata is added to the existing metadata.
        token_lifetime: Seconds for which a token is valid, or None for the emulator's own.
        forgets_stopped: Whether an instance that has ended is not listed.
        delay: Seconds that every request of the Cloud API takes longer.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._answers: Mapping[str, Any] = document.get("answers") or {}
        self._codes: Mapping[str, str] = document.get("codes") or {}
        self._looks = 0
        self.repeat: Literal["replay", "refuse"] = (
            "refuse" if self._answers.get("start.repeat") == "refuse" else "replay"
        )
        self.merges_metadata = self._answers.get("metadata.update") != "replace"
        self.token_lifetime: float | None = self._answers.get("token.lifetime")
        self.forgets_stopped = self._answers.get("stopped.listed") is False
        self.delay = self._seconds("call.seconds")

    def transitions(self) -> dict[str, Transition]:
        """Return how the steps go that were timed."""
        steps = {
            step: Transition("seconds", self._seconds(name)) for step, name in _STEPS.items() if name in self._answers
        }
        if self._answers.get("start.status") == "RUNNING":
            steps["instance.start"] = Transition("at_once", self._seconds("start.call.seconds"))
        elif "start.seconds" in self._answers:
            steps["instance.start"] = Transition("seconds", self._seconds("start.seconds"))
        return steps

    def code(self, code: str) -> str:
        """Return the code of an error as the account gave it."""
        return self._codes.get(code) or code

    def status(self, name: str, default: int) -> int:
        """Return an HTTP status of the gateway, such as that of ``gone.port``."""
        status = self._answers.get(name)
        return status if isinstance(status, int) and 100 <= status < 600 else default

    def listed(self, instances: Iterable[Instance], now: float, *, by_id: bool) -> list[Instance]:
        """Return what a list shows: new instances late, and now and then one less, where the account did so.

        Args:
            instances: What there is.
            now: The emulator's time.
            by_id: Whether the request names ids.
        """
        late = 0.0 if by_id else self._seconds("list.seconds")
        shown = [each for each in instances if each.created + late <= now]
        misses = float(self._answers.get("list.misses") or 0.0)
        if misses > 0:
            self._looks += 1
            if int(self._looks * misses) > int((self._looks - 1) * misses):
                return shown[1:]
        return shown

    def _seconds(self, name: str) -> float:
        seconds = self._answers.get(name)
        return float(seconds) if isinstance(seconds, (int, float)) and seconds >= NOTICEABLE else 0.0
