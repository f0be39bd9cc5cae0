"""How a recorded account behaved: what `ags-flows verify --record` wrote, for the emulator to do the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import TypedDict

from ags_flows.emulator.world.client_tokens import Repeat
from ags_flows.emulator.world.given import findings
from ags_flows.emulator.world.instance import Instance
from ags_flows.emulator.world.transitions import Transition

FORMAT: Literal[1] = 1
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
_AT_ONCE = {"instance.start": ("start.status", "RUNNING"), "instance.pause": ("pause.status", "PAUSED")}
"""Steps that end before the response if it had that status."""


_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_HttpStatus = Annotated[int, Field(ge=100, lt=600)]
_Change = Literal["merge", "replace"]
_Code = Literal[
    "AuthFailure.SignatureFailure",
    "FailedOperation.DuplicateRequest",
    "InvalidParameter.Filters",
    "InvalidParameterValue.OffsetTooLarge",
    "InvalidParameterValue.SandboxTool",
    "InvalidParameterValue.Timeout",
    "MissingParameter",
    "ResourceNotFound.SandboxInstance",
    "ResourceNotFound.SandboxTool",
    "UnsupportedOperation.SandboxInstance",
]
"""The codes that `ags-flows verify` looks for."""

_Answers = TypedDict(
    "_Answers",
    {
        "call.seconds": _Seconds,
        "closed.port": _HttpStatus,
        "command.seconds": _Seconds,
        "files.ranges": bool,
        "gone.code": _HttpStatus,
        "gone.envd": _HttpStatus,
        "gone.port": _HttpStatus,
        "list.misses": Annotated[float, Field(ge=0, le=1)],
        "list.seconds": _Seconds,
        "metadata.seconds": _Seconds,
        "metadata.update": _Change,
        "pause.seconds": _Seconds,
        # Empty: the response has no status.
        "pause.status": Literal["PAUSING", "PAUSED", ""],
        "paused.envd": _HttpStatus,
        "resume.seconds": _Seconds,
        "snapshot.seconds": _Seconds,
        "start.call.seconds": _Seconds,
        "start.repeat": Repeat,
        "start.repeat.lasts": bool,
        "start.seconds": _Seconds,
        "start.status": Literal["STARTING", "RUNNING"],
        "stop.seconds": _Seconds,
        "stopped.listed": bool,
        "timeout.shortens": bool,
        "token.lifetime": Annotated[float, Field(gt=0, allow_inf_nan=False)],
        "tool.create.seconds": _Seconds,
        "tool.delete.seconds": _Seconds,
        "tool.repeat": Repeat,
        "tool.tags": _Change,
        "unauthorized.envd": _HttpStatus,
        "unauthorized.port": _HttpStatus,
    },
    total=False,
)


class _Document(BaseModel):
    """A profile: what may stand in it, with the types and ranges of the values."""

    model_config = ConfigDict(strict=True, extra="forbid")

    format: Literal[1] = FORMAT
    recorded: str = ""
    region: str = ""
    answers: _Answers = {}
    codes: dict[_Code, str] = {}
    checks: dict[str, str] = {}


def read_profile(source: Mapping[str, Any] | Path | str) -> dict[str, Any]:
    """Return a profile from a file, or as it is.

    Raises:
        ValueError: The file cannot be read, or is not a profile, or has unknown fields or wrong values.
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
    """Return a profile that may have been edited.

    Raises:
        ValueError: It has unknown fields or wrong values. The message names all of them.
    """
    try:
        _Document.model_validate(dict(document))
    except ValidationError as error:
        raise ValueError(findings(error, "the profile's ")) from None
    return dict(document)


class Profile:
    """A recorded account; an empty document changes nothing.

    Args:
        document: See `read_profile`.
        start: When a start returns, ``async`` or ``at-once``, whatever the document has; None: as in the document.

    Attributes:
        merges_metadata: Whether new metadata is added to the existing metadata.
        merges_tags: Whether new tags of a tool are added to the existing tags.
        shortens_timeouts: Whether a new timeout may end an instance earlier.
        serves_ranges: Whether envd serves ranges of files.
        token_lifetime: Seconds for which a token is valid, or None for the emulator's own.
        forgets_stopped: Whether an instance that has ended is not listed.
        delay: Seconds that every request of the Cloud API and the E2B API takes longer.
        start_delay: Seconds that a start's request takes longer than other requests.
        command_delay: Seconds that the start of every command takes longer.
    """

    def __init__(self, document: Mapping[str, Any], start: str | None = None) -> None:
        status = {"start.status": "RUNNING" if start == "at-once" else "STARTING"} if start is not None else {}
        self._answers: Mapping[str, Any] = {**document.get("answers", {}), **status}
        self._codes: Mapping[str, str] = document.get("codes", {})
        self._looks = 0
        self.merges_metadata = self._answers.get("metadata.update") != "replace"
        self.merges_tags = self._answers.get("tool.tags") == "merge"
        self.shortens_timeouts = self._answers.get("timeout.shortens") is not False
        self.serves_ranges = self._answers.get("files.ranges") is not False
        self.token_lifetime: float | None = self._answers.get("token.lifetime")
        self.forgets_stopped = self._answers.get("stopped.listed") is False
        self.delay = self._seconds("call.seconds")
        self.start_delay = max(0.0, self._seconds("start.call.seconds") - self.delay)
        self.command_delay = self._seconds("command.seconds")

    def repeat(self, action: str) -> Repeat:
        """Return what a repeated ClientToken of an action does; only tools may differ from all others."""
        name = "tool.repeat" if action == "CreateSandboxTool" else "start.repeat"
        return "refuse" if self._answers.get(name) == "refuse" else "replay"

    def transitions(self) -> dict[str, Transition]:
        """Return how the steps go that were timed; a recorded duration begins with the request itself."""
        at_once = {step for step, (name, status) in _AT_ONCE.items() if self._answers.get(name) == status}
        seconds = {
            step: max(0.0, self._seconds(name) - self.delay)
            for step, name in _STEPS.items()
            if step in at_once or name in self._answers
        }
        seconds["instance.start"] = self.start_delay
        if "instance.start" not in at_once:
            seconds["instance.start"] += self._seconds("start.seconds")
        return {step: Transition("at_once" if step in at_once else "seconds", value) for step, value in seconds.items()}

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
        late += self.start_delay if late else 0.0
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
