"""What one instance has different from its tool, and whether AGS applied it."""

from __future__ import annotations

from typing import Any

from ags_flows.cloud import wire
from ags_flows.models import CustomConfiguration

Fields = dict[str, Any]


def overrides_to_wire(custom: CustomConfiguration | None, auth_mode: str | None) -> Fields:
    """Return the parameters of StartSandboxInstance that override fields of the tool."""
    return wire.present(CustomConfiguration=wire.custom_to_wire(custom) if custom else None, AuthMode=auth_mode)


def ignored_overrides(asked: Fields, shown: Fields) -> str:
    """Return which overrides an instance shows with other values, as text; empty for none.

    What AGS does not show at all cannot be compared, and amounts come back in other units.

    Args:
        asked: Parameters of StartSandboxInstance.
        shown: The instance as AGS returns or lists it.
    """
    custom, real = asked.get("CustomConfiguration") or {}, shown.get("CustomConfiguration") or {}
    ignored = [
        f"{name}={custom[name]!r} (it has {real[name]!r})"
        for name in ("Image", "ImageRegistryType", "Command", "Args")
        if custom.get(name) and real.get(name) and custom[name] != real[name]
    ]
    if custom.get("Env") and real.get("Env"):
        there = {item.get("Name"): item.get("Value") for item in real["Env"]}
        lost = [item["Name"] for item in custom["Env"] if there.get(item["Name"]) != item["Value"]]
        ignored += [f"Env {name}" for name in lost]
    mode, real_mode = asked.get("AuthMode"), shown.get("AuthMode")
    if mode and real_mode and {mode, real_mode} not in ({mode}, {"DEFAULT", "TOKEN"}):
        ignored.append(f"AuthMode={mode!r} (it has {real_mode!r})")
    return ", ".join(ignored)
