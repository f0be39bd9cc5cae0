"""How a recorded account behaved: what `ags-flows verify --record` wrote, for the emulator to do the same."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .client_tokens import Repeat
from .instance import Instance
from .transitions import Mode, Transition

FORMAT = 1
NOTICEABLE = 0.02
"""Seconds; what was quicker than that is as quick as the emulator itself."""

_STEPS = {
    "tool.create": "tool.create.seconds",
    "tool.delete": "tool.delete.seconds",
    "instance.stop": "stop.seconds",
    "instance.pause": "pause.seconds",
    "instance.resume": "resume.seconds",
    "snapshot.create": "snapshot.seconds",
}
_NUMBERS = ("list.misses", "token.lifetime")
_CHOICES = {
    **dict.fromkeys(("start.repeat", "tool.repeat"), ("replay", "refuse")),
    **dict.fromkeys(("metadata.update", "tool.tags"), ("merge", "replace")),
}
_STATUSES = (
    *("gone.envd", "gone.code", "gone.port", "paused.envd"),
    *("closed.port", "unauthorized.envd", "unauthorized.port"),
)
_AT_ONCE = {"instance.start": ("start.status", "RUNNING"), "instance.pause": ("pause.status", "PAUSED")}
"""Steps that end before the response if it had that status."""


def read_profile(source: Mapping[str, Any] | Path | str) -> dict[str, Any]:
    """Return a profile from a file, or as it is.

    Raises:
        ValueError: The file cannot be read, or is not a profile.
    """
    if isinstance(source, Mapping):
        return _checked(source)
    try:
        document = json.loads(Path(source).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"the profile {source} cannot be read: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"{source} is not a profile of format {FORMAT}; record one: ags-flows verify --record FILE")
    return _checked(document)


def _checked(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a profile whose values have the right types: it may have been edited."""
    for name in ("answers", "codes"):
        if not isinstance(document.get(name, {}), Mapping):
            raise ValueError(f"the profile's `{name}` must be an object, got {document[name]!r}")
    for name, value in document.get("answers", {}).items():
        if name.endswith(".seconds") or name in _NUMBERS:
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                raise ValueError(f"the profile's `{name}` must be a number >= 0, got {value!r}")
        elif name in _CHOICES and value not in _CHOICES[name]:
            raise ValueError(f"the profile's `{name}` must be one of {', '.join(_CHOICES[name])}, got {value!r}")
        elif name in _STATUSES and (not isinstance(value, int) or not 100 <= value < 600):
            raise ValueError(f"the profile's `{name}` must be an HTTP status, got {value!r}")
    return dict(document)


class Profile:
    """A recorded account; an empty document changes nothing.

    Args:
        document: See `read_profile`.

    Attributes:
        merges_metadata: Whether new metadata is added to the existing metadata.
        merges_tags: Whether new tags of a tool are added to the existing tags.
        shortens_timeouts: Whether a new timeout may end an instance earlier.
        serves_ranges: Whether envd serves ranges of files.
        token_lifetime: Seconds for which a token is valid, or None for the emulator's own.
        forgets_stopped: Whether an instance that has ended is not listed.
        delay: Seconds that every request of the Cloud API and the E2B API takes longer.
        command_delay: Seconds that the start of every command takes longer.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._answers: Mapping[str, Any] = document.get("answers") or {}
        self._codes: Mapping[str, str] = document.get("codes") or {}
        self._looks = 0
        self.merges_metadata = self._answers.get("metadata.update") != "replace"
        self.merges_tags = self._answers.get("tool.tags") == "merge"
        self.shortens_timeouts = self._answers.get("timeout.shortens") is not False
        self.serves_ranges = self._answers.get("files.ranges") is not False
        self.token_lifetime: float | None = self._answers.get("token.lifetime")
        self.forgets_stopped = self._answers.get("stopped.listed") is False
        self.delay = self._seconds("call.seconds")
        self.command_delay = self._seconds("command.seconds")

    def repeat(self, action: str) -> Repeat:
        """Return what a repeated ClientToken of an action does; only tools may differ from all others."""
        name = "tool.repeat" if action == "CreateSandboxTool" else "start.repeat"
        return "refuse" if self._answers.get(name) == "refuse" else "replay"

    def transitions(self) -> dict[str, Transition]:
        """Return how the steps go that were timed."""
        steps = {}
        at_once = {step for step, (name, status) in _AT_ONCE.items() if self._answers.get(name) == status}
        start = "start.call.seconds" if "instance.start" in at_once else "start.seconds"
        for step, name in {**_STEPS, "instance.start": start}.items():
            if step in at_once or name in self._answers:
                mode: Mode = "at_once" if step in at_once else "seconds"
                steps[step] = Transition(mode, self._seconds(name))
        return steps

    def code(self, code: str) -> str:
        """Return the code of an error as the account gave it."""
        return self._codes.get(code) or code

    def status(self, name: str, default: int) -> int:
        """Return an HTTP status of the gateway, such as that of ``gone.port``."""
        return int(self._answers.get(name, default))

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
        seconds = float(self._answers.get(name, 0.0))
        return seconds if seconds >= NOTICEABLE else 0.0
