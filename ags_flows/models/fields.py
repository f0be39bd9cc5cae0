"""Field types with the validation rules of AGS: names, images, resources, paths, ports, timeouts."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo

from ags_flows.models.checks import (
    LONGEST_NAME,
    MOST_COUNT,
    TOOL_NAME,
    check_environment,
    check_name,
    check_path,
    check_texts,
    shown_value,
)
from ags_flows.models.durations import parse_duration
from ags_flows.models.rules import Rule

ImageRegistryType = Literal["enterprise", "personal", "custom", "system"]

_CPU = re.compile(r"(?:[1-9]\d*(?:\.\d+)?|0?\.\d*[1-9]\d*|[1-9]\d*m)")
_MEMORY = re.compile(r"[1-9]\d*(?:Mi|Gi)")
_REGION = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_ROLE = re.compile(r"qcs::cam::uin/\d+:role(Name|Id)/[\w.@+=,-]+", re.ASCII)
_IMAGE = re.compile(r"[A-Za-z0-9][\w.\-/:@]*", re.ASCII)


def _matches(rule: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_NAME and rule.fullmatch(value) is not None


def by(rule: Rule) -> BeforeValidator:
    """Return the validator of fields whose rule is that of an argument."""

    def validate(value: Any, info: ValidationInfo) -> Any:
        return rule(value, info.field_name or "value")

    return BeforeValidator(validate)


def check_tool_name(name: Any) -> str:
    """Return `name`. Raise ValueError if it breaks the rule of AGS for tool names."""
    if not _matches(TOOL_NAME, name):
        raise ValueError(f"{shown_value(name)} is not a tool name: 1 to 50 letters, digits, '_' or '-'")
    return str(name)


def _check_image(image: Any) -> str:
    if isinstance(image, str) and not image.strip():
        raise ValueError("the image name is empty: use a reference such as 'python:3.11'")
    if not _matches(_IMAGE, image):
        raise ValueError(f"{shown_value(image)} is not an image reference such as 'registry.example.com/team/name:tag'")
    return str(image)


def check_image_of_mount(image: Any) -> str:
    """Return `image`. Raise ValueError if it has neither a tag nor a digest."""
    reference = _check_image(image)
    last = reference.rsplit("/", 1)[-1]
    if ":" not in last and "@" not in last:
        raise ValueError(f"{shown_value(image)} needs a tag or a digest: AGS does not mount images without one")
    return reference


def registry_type_of(image: str) -> str | None:
    """Return the registry type of an image's host, or None if the host does not determine it."""
    host = image.split("/", 1)[0].split(":", 1)[0]
    if "/" not in image:
        return None
    if host.endswith(".tencentcloudcr.com"):
        return "enterprise"
    return "personal" if host.endswith("ccr.ccs.tencentyun.com") else None


def check_registry_type(image: str | None, registry_type: str | None) -> None:
    """Raise ValueError if the registry type contradicts the image's host."""
    known = registry_type_of(image or "")
    if known and registry_type in ("enterprise", "personal") and registry_type != known:
        raise ValueError(
            f"image_registry_type={registry_type!r} does not fit image {image!r}: that host is a registry of type "
            f"{known!r} (enterprise: *.tencentcloudcr.com, personal: ccr.ccs.tencentyun.com)"
        )


def _check_role(role: Any) -> str:
    if role != "" and not _matches(_ROLE, role):
        raise ValueError(f"{shown_value(role)} is not a role: write 'qcs::cam::uin/<uin>:roleName/<name>'")
    return str(role)


def _check_region(region: Any) -> str:
    if not _matches(_REGION, region):
        raise ValueError(
            f"{shown_value(region)} is not a region: lower-case letters and digits, joined by '-', as 'ap-guangzhou'"
        )
    return str(region)


def _check_cpu(cpu: Any) -> str:
    text = str(cpu) if isinstance(cpu, (int, float)) and abs(cpu) <= MOST_COUNT else cpu
    if not _matches(_CPU, text):
        raise ValueError(f"{shown_value(cpu)} is not an amount of CPU: write cores ('2', '0.5') or millicores ('500m')")
    return str(text)


def _check_memory(memory: Any) -> str:
    if not _matches(_MEMORY, memory):
        raise ValueError(f"{shown_value(memory)} is not an amount of memory: write '512Mi' or '2Gi'")
    return str(memory)


def check_mount_path(path: Any) -> str:
    """Return `path`. Raise ValueError if it is not an absolute path below `/`."""
    check_path(path, "mount_path")
    if not path.startswith("/") or ".." in path.split("/") or path.rstrip("/") == "":
        raise ValueError(f"{shown_value(path)} is not a mount path: an absolute path below '/', without '..'")
    return str(path)


def _check_timeout(value: Any) -> str:
    parse_duration(value, field=None)
    return str(value)


ToolName = Annotated[str, BeforeValidator(check_tool_name)]
Image = Annotated[str, BeforeValidator(_check_image)]
Cpu = Annotated[str, BeforeValidator(_check_cpu)]
Memory = Annotated[str, BeforeValidator(_check_memory)]
MountPath = Annotated[str, BeforeValidator(check_mount_path)]
Region = Annotated[str, BeforeValidator(_check_region)]
RoleArn = Annotated[str, BeforeValidator(_check_role)]
Name = Annotated[str, by(check_name)]
PathInside = Annotated[str, by(check_path)]
Environment = Annotated[dict[str, str], by(check_environment)]
Tags = Annotated[dict[str, str], by(check_texts)]
PortNumber = Annotated[int, Field(ge=1, le=65535)]
Timeout = Annotated[str, BeforeValidator(_check_timeout)]
