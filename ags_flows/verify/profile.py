"""A profile: what an account did, as JSON without ids and secrets, to be kept, compared, and emulated."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ags_flows.errors import ConfigurationError
from ags_flows.verify.account import Account
from ags_flows.verify.check import Result

FORMAT = 1
FACTOR, SLACK = 3.0, 1.0
"""Durations differ when one is more than three times the other, and by more than a second."""

_KINDS = {"recorded": str, "region": str, "answers": dict, "codes": dict, "checks": dict}


@dataclass(frozen=True)
class Profile:
    """What was seen of an account.

    Attributes:
        recorded: When, in UTC.
        region: Where.
        answers: What was learned, by name.
        codes: Error codes that differ: the expected code to the actual one.
        checks: The status of each check, by ``group: sentence``.
        format: The version of this format.
    """

    recorded: str
    region: str
    answers: dict[str, Any] = field(default_factory=dict)
    codes: dict[str, str] = field(default_factory=dict)
    checks: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT

    @classmethod
    def of(cls, account: Account, results: Iterable[Result]) -> Profile:
        """Return what a run has seen."""
        return cls(
            recorded=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            region=account.connection.region,
            answers=dict(sorted(account.answers.items())),
            codes={expected: code for expected, code in sorted(account.codes.items()) if code != expected},
            checks={one.key: one.status for one in results},
        )

    @classmethod
    def load(cls, path: Path) -> Profile:
        """Read a profile.

        Raises:
            ConfigurationError: The file cannot be read, or is not a profile.
        """
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"The profile {path} cannot be read: {error}.") from error
        if not isinstance(fields, dict) or fields.get("format") != FORMAT:
            raise ConfigurationError(
                f"{path} is not a profile of format {FORMAT}.", hint="Record one: ags-flows verify --record FILE"
            )
        known = {name: fields[name] for name in cls.__dataclass_fields__ if name in fields}
        for name, kind in _KINDS.items():
            if not isinstance(known.setdefault(name, kind()), kind):
                raise ConfigurationError(
                    f"The profile {path} cannot be read: `{name}` is {known[name]!r}.",
                    hint="Record another one: ags-flows verify --record FILE",
                )
        return cls(**known)

    @staticmethod
    def check_writable(path: Path) -> None:
        """Check that a profile can be written, before it takes minutes to find out what is in it.

        Raises:
            ConfigurationError: The file cannot be written.
        """
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise ConfigurationError(
                f"The profile {path} cannot be written.", hint="Give a file in a directory that exists."
            )

    def save(self, path: Path) -> None:
        """Write it.

        Raises:
            ConfigurationError: The file cannot be written.
        """
        try:
            path.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"The profile {path} cannot be written: {error}.") from error

    def differences(self, other: Profile, results: Iterable[Result] = ()) -> list[dict[str, Any]]:
        """Return what is different in another profile, as rows: what, here, there.

        What only one of them has is not a difference: a run of some groups learns less.

        Args:
            other: The other profile.
            results: Of this profile's run: a check that differs by another row is not in the list too.
        """
        learned = {one.key: {name for name in one.learned if not name.endswith("seconds")} for one in results}
        rows: list[dict[str, Any]] = []
        for kind in ("answers", "codes", "checks"):
            mine, theirs = getattr(self, kind), getattr(other, kind)
            for name in mine:
                if name not in theirs or not _differ(name, mine[name], theirs[name]):
                    continue
                found = {row["what"] for row in rows} & learned.get(name, set())
                if not (found and {mine[name], theirs[name]} == {"as expected", "different"}):
                    rows.append({"what": name, "now": mine[name], "recorded": theirs[name]})
        return rows


def _differ(name: str, one: Any, other: Any) -> bool:
    if name.endswith("seconds") and isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return abs(one - other) > SLACK and max(one, other) > FACTOR * min(one, other)
    if name == "token.lifetime":
        return bool(abs(one - other) > 120)
    return bool(one != other)
