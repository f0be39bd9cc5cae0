"""Field types with the validation rules of AGS: names, images, resources, paths, ports, timeouts."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ags_flows.models.checks import TOOL_NAME
from ags_flows.models.durations import parse_duration

ImageRegistryType = Literal["enterprise", "personal", "custom", "system"]

_CPU = re.compile(r"(?:[1-9]\d*(?:\.\d+)?|0?\.\d*[1-9]\d*|[1-9]\d*m)")
_MEMORY = re.compile(r"[1-9]\d*(?:Mi|Gi)")
_REGION = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_ROLE = re.compile(r"qcs::cam::uin/\d+:role(Name|Id)/[\w.@+=,-]+", re.ASCII)
_IMAGE = re.compile(r"[A-Za-z0-9][\w.\-/:@]*", re.ASCII)


def check_tool_name(name: str) -> str:
    """Return `name`. Raise ValueError if it breaks the rule of AGS for tool names."""
    if not TOOL_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a tool name: 1 to 50 letters, digits, '_' or '-'")
    return name


def _check_image(image: str) -> str:
    if not image.strip():
        raise ValueError("the image name is empty: use a reference such as 'python:3.11'")
    if not _IMAGE.fullmatch(image):
        raise ValueError(f"{image!r} is not an image reference such as 'registry.example.com/team/name:tag'")
    return image


def check_image_of_mount(image: str) -> str:
    """Return `image`. Raise ValueError if it has neither a tag nor a digest."""
    last = _check_image(image).rsplit("/", 1)[-1]
    if ":" not in last and "@" not in last:
        raise ValueError(f"{image!r} needs a tag or a digest: AGS does not mount images without one")
    return image


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


def _check_role(role: str) -> str:
    if role and not _ROLE.fullmatch(role):
        raise ValueError(f"{role!r} is not a role: write 'qcs::cam::uin/<uin>:roleName/<name>'")
    return role


def _check_region(region: Any) -> str:
    if not isinstance(region, str) or not _REGION.fullmatch(region):
        raise ValueError(f"{region!r} is not a region: lower-case letters and digits, joined by '-', as 'ap-guangzhou'")
    return region


def _check_cpu(cpu: Any) -> str:
    text = str(cpu)
    if not _CPU.fullmatch(text):
        raise ValueError(f"{cpu!r} is not an amount of CPU: write cores ('2', '0.5') or millicores ('500m')")
    return text


def _check_memory(memory: str) -> str:
    if not _MEMORY.fullmatch(memory):
        raise ValueError(f"{memory!r} is not an amount of memory: write '512Mi' or '2Gi'")
    return memory


def check_mount_path(path: str) -> str:
    """Return `path`. Raise ValueError if it is not an absolute path below `/`."""
    if not path.startswith("/") or "\0" in path or ".." in path.split("/") or path.rstrip("/") == "":
        raise ValueError(f"{path!r} is not a mount path: an absolute path below '/', without '..'")
    return path


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
PortNumber = Annotated[int, Field(ge=1, le=65535)]
Timeout = Annotated[str, BeforeValidator(_check_timeout)]
