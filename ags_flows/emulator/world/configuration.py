"""The rules for what a tool or an instance is configured with, and the form in which AGS shows it."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from decimal import Decimal, InvalidOperation
from typing import Any

from ags_flows.emulator.world.refusal import Refusal

Json = dict[str, Any]

TOOL_TYPES = (
    "browser",
    "code-interpreter",
    "mobile",
    "osworld",
    "custom",
    "swebench",
    "aio",
    "android-world",
    "waa",
)
AUTH_MODES = ("DEFAULT", "TOKEN", "NONE", "PUBLIC")
REGISTRIES = ("enterprise", "personal", "custom", "system")

_ENV_NAME = re.compile(r"[^\x00=]+")
_BINARY = {"Ki": 1, "Mi": 1024, "Gi": 1024**2, "Ti": 1024**3}
_DECIMAL = {"k": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
_ROLE = re.compile(r"qcs::cam::uin/[0-9]+:roleName/[A-Za-z0-9_.@+=,-]+")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*")


def check_network(network: Json | None) -> Json:
    """Return the network configuration after checking it.

    Raises:
        Refusal: when the mode is unknown or a VPC is not fully given.
    """
    if network is None:
        raise Refusal("MissingParameter", "The request is missing a required parameter `NetworkConfiguration`.")
    mode = network.get("NetworkMode")
    if mode not in ("PUBLIC", "VPC", "SANDBOX", "INTERNAL_SERVICE"):
        raise Refusal("InvalidParameterValue", f"NetworkMode must be PUBLIC, VPC or SANDBOX, not {mode!r}.")
    if mode == "VPC":
        vpc = network.get("VpcConfig") or {}
        subnets, groups = vpc.get("SubnetIds") or [], vpc.get("SecurityGroupIds") or []
        if not subnets or not groups:
            raise Refusal("MissingParameter.VPCParameters", "NetworkMode VPC needs SubnetIds and SecurityGroupIds.")
        _check_ids(subnets, "subnet-", "InvalidParameterValue.SubnetId")
        _check_ids(groups, "sg-", "InvalidParameterValue.SecurityGroupId")
    return network


def check_custom(custom: Json, *, whole: bool, tool_type: str, role_arn: str | None, strict_roles: bool) -> None:
    """Check a custom configuration.

    Args:
        custom: The configuration as sent.
        whole: Whether it stands alone (a tool's) or overrides parts of a tool's (an instance's).
        tool_type: The tool's type; ``custom`` and ``swebench`` need an image.
        role_arn: The tool's role.
        strict_roles: Whether images of enterprise and personal registries need a role.

    Raises:
        Refusal: for the first rule that is broken.
    """
    image = custom.get("Image")
    if image is None and whole and tool_type in ("custom", "swebench"):
        raise Refusal("InvalidParameterValue.Image", f"A tool of type {tool_type} needs CustomConfiguration.Image.")
    if image is not None and not (len(image) <= 1024 and _IMAGE.fullmatch(image)):
        shown = "empty" if not image else f"{image[:100]!r}"
        raise Refusal("InvalidParameterValue.Image", f"CustomConfiguration.Image is not a valid image: {shown}.")
    registry = custom.get("ImageRegistryType")
    if registry is not None and registry not in REGISTRIES:
        raise Refusal(
            "InvalidParameterValue.ImageRegistry",
            f"ImageRegistryType must be enterprise, personal or custom, not {registry!r}.",
        )
    if image and registry in ("enterprise", "personal") and strict_roles and not role_arn:
        raise Refusal("MissingParameter.RoleArn", f"An image of a registry of type {registry} needs RoleArn.")
    for variable in custom.get("Env") or []:
        name = variable.get("Name")
        if not name or not _ENV_NAME.fullmatch(name) or "\0" in (variable.get("Value") or ""):
            raise Refusal("InvalidParameterValue", f"CustomConfiguration.Env has a bad variable name: {name!r}.")
    for part in [*(custom.get("Command") or []), *(custom.get("Args") or [])]:
        if "\0" in part:
            raise Refusal("InvalidParameterValue", "CustomConfiguration.Command and Args must not hold NUL.")
    _check_ports(custom.get("Ports") or [])
    _check_resources(custom.get("Resources") or {})
    if custom.get("Probe") is not None:
        _check_probe(custom["Probe"])
    for server in (custom.get("DNSConfig") or {}).get("Servers") or []:
        try:
            ipaddress.ip_address(server)
        except ValueError:
            raise Refusal("InvalidParameterValue", f"DNSConfig.Servers holds {server!r}, no IP address.") from None


def check_role(role_arn: str | None) -> None:
    """Check a role's form.

    Raises:
        Refusal: ``InvalidParameterValue.RoleArn``.
    """
    if role_arn is not None and not _ROLE.fullmatch(role_arn):
        raise Refusal(
            "InvalidParameterValue.RoleArn",
            f"RoleArn {role_arn!r} is not of the form qcs::cam::uin/<uin>:roleName/<name>.",
        )


def check_logs(logs: Json, role_arn: str | None) -> None:
    """Check a log configuration.

    Raises:
        Refusal: when a file is not directly under /logs, there are over 10, or CLS has no role.
    """
    files = (logs.get("LogSources") or {}).get("Files") or []
    if len(files) > 10 or any(not re.fullmatch(r"/logs/[^/\x00]+", file) for file in files):
        raise Refusal("InvalidParameterValue", "LogSources.Files takes up to 10 files directly under /logs/.")
    if logs.get("CLSConfig") and not role_arn:
        raise Refusal("MissingParameter.RoleArn", "Logs to CLS need RoleArn.")


def check_tags(tags: list[Json] | None) -> list[Json]:
    """Return the tags after checking them.

    Raises:
        Refusal: ``InvalidParameter.Tags`` for a key that is empty, too long, double or reserved.
    """
    seen: set[str] = set()
    for tag in tags or []:
        key, value = tag.get("Key") or "", tag.get("Value") or ""
        if not key or len(key) > 127 or len(value) > 255:
            raise Refusal(
                "InvalidParameter.Tags", f"Tag {key[:40]!r}: a key has 1 to 127 characters, a value up to 255."
            )
        if key.startswith("qcs"):
            raise Refusal("InvalidParameter.Tags", f"Tag {key!r}: keys that begin with qcs are reserved.")
        if key in seen:
            raise Refusal("InvalidParameter.Tags", f"Tag {key!r} is given twice.")
        seen.add(key)
    if len(seen) > 50:
        raise Refusal("InvalidParameter.Tags", "A resource takes at most 50 tags.")
    return [{"Key": tag["Key"], "Value": tag.get("Value") or ""} for tag in tags or []]


def detail(custom: Json | None) -> Json | None:
    """Return a custom configuration as AGS shows it: with a digest, and quantities in their canonical form."""
    if custom is None:
        return None
    shown = {key: value for key, value in custom.items() if value is not None}
    if shown.get("Image"):
        shown.setdefault("ImageRegistryType", "personal")
        shown["ImageDigest"] = digest_of(shown["Image"])
    if shown.get("Resources"):
        resources = dict(shown["Resources"])
        if resources.get("CPU"):
            resources["CPU"] = f"{milli_cpus(resources['CPU'])}m"
        if resources.get("Memory"):
            resources["Memory"] = f"{max(1, kibibytes(resources['Memory'], 'Memory') // 1024)}Mi"
        shown["Resources"] = resources
    return shown


def merged(base: Json | None, over: Json | None) -> Json | None:
    """Return a tool's custom configuration with an instance's laid over it, field by field."""
    if base is None and over is None:
        return None
    result = dict(base or {})
    for key, value in (over or {}).items():
        if value is None:
            continue
        if key == "Resources":
            result[key] = {**(result.get(key) or {}), **value}
        elif key == "Env":
            names = {variable["Name"] for variable in value}
            kept = [variable for variable in result.get(key) or [] if variable["Name"] not in names]
            result[key] = [*kept, *value]
        else:
            result[key] = value
    if (over or {}).get("Image") and "ImageRegistryType" not in (over or {}):
        result.setdefault("ImageRegistryType", "personal")
    return result


def digest_of(image: str) -> str:
    """Return the digest in the reference, or one made up from it: the same for the same reference."""
    if "@sha256:" in image:
        return "sha256:" + image.rsplit("@sha256:", 1)[1]
    return "sha256:" + hashlib.sha256(image.encode()).hexdigest()


def unpullable(image: str | None) -> str | None:
    """Return why an image cannot be pulled, or None.

    The emulator runs the host's programs whatever the image, with one exception to try failures by hand: a
    registry under the reserved top-level domain ``.invalid`` does not exist.
    """
    host = (image or "").split("/", 1)[0].rsplit(":", 1)[0]
    if host.endswith(".invalid") and "/" in (image or ""):
        return f"failed to pull image {image}: lookup {host}: no such host"
    return None


def milli_cpus(text: str) -> int:
    """Return thousandths of a CPU of ``2``, ``0.5`` or ``500m``.

    Raises:
        Refusal: when it is not a positive quantity.
    """
    try:
        amount = Decimal(text[:-1]) if text.endswith("m") else Decimal(text) * 1000
        if amount.is_finite() and 1 <= amount <= 1_000_000:
            return int(amount)
    except InvalidOperation:
        pass
    raise Refusal("InvalidParameterValue", f"Resources.CPU {text[:40]!r} is not a quantity such as 2 or 500m.")


def kibibytes(text: str, field: str) -> int:
    """Return KiB of ``4Gi``, ``512Mi``, ``1G`` or a number of bytes.

    Raises:
        Refusal: when it is not a positive quantity.
    """
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)([A-Za-z]{0,2})", text, re.ASCII)
    if match:
        number, unit = Decimal(match[1]), match[2]
        if unit in _BINARY:
            amount = int(number * _BINARY[unit])
        elif unit in _DECIMAL or not unit:
            amount = int(number * _DECIMAL.get(unit, 1) / 1024)
        else:
            amount = 0
        if amount > 0:
            return amount
    raise Refusal("InvalidParameterValue", f"Resources.{field} {text[:40]!r} is not a quantity such as 4Gi or 512Mi.")


def _check_ids(ids: list[str], prefix: str, code: str) -> None:
    for each in ids:
        if not re.fullmatch(re.escape(prefix) + r"[A-Za-z0-9-]+", each):
            raise Refusal(code, f"{each!r} is not an id of the form {prefix}xxxxxxxx.")


def _check_ports(ports: list[Json]) -> None:
    seen: set[tuple[int, str]] = set()
    for entry in ports:
        port, protocol = entry.get("Port"), (entry.get("Protocol") or "TCP").upper()
        if not isinstance(port, int) or not 1 <= port <= 65535:
            raise Refusal("InvalidParameterValue", f"CustomConfiguration.Ports: port must be 1 to 65535, not {port!r}.")
        if protocol not in ("TCP", "UDP", "HTTP", "HTTPS"):
            raise Refusal("InvalidParameterValue", f"CustomConfiguration.Ports: unknown protocol {protocol!r}.")
        if (port, protocol) in seen:
            raise Refusal("InvalidParameterValue", f"CustomConfiguration.Ports: port {port} is given twice.")
        seen.add((port, protocol))


def _check_resources(resources: Json) -> None:
    if resources.get("CPU") is not None:
        milli_cpus(resources["CPU"])
    if resources.get("Memory") is not None:
        kibibytes(resources["Memory"], "Memory")
    if resources.get("Storage") not in (None, "", "1Gi", "5Gi", "10Gi", "20Gi"):
        raise Refusal("InvalidParameterValue", "Resources.Storage must be one of 1Gi, 5Gi, 10Gi, 20Gi.")


def _check_probe(probe: Json) -> None:
    get = probe.get("HttpGet")
    if get is None:
        raise Refusal("MissingParameter", "The request is missing a required parameter `Probe.HttpGet`.")
    port = get.get("Port")
    if not isinstance(port, int) or not 1 <= port <= 65535:
        raise Refusal("InvalidParameterValue", f"Probe.HttpGet.Port must be 1 to 65535, not {port!r}.")
    path = get.get("Path") or "/"
    if not path.startswith("/") or re.search(r"[\x00-\x20\x7f]", path):
        raise Refusal("InvalidParameterValue", f"Probe.HttpGet.Path must begin with /, not {path[:40]!r}.")
    if (get.get("Scheme") or "HTTP").upper() not in ("HTTP", "HTTPS"):
        raise Refusal("InvalidParameterValue", "Probe.HttpGet.Scheme must be HTTP or HTTPS.")
    for name in ("ReadyTimeoutMs", "ProbeTimeoutMs", "ProbePeriodMs", "SuccessThreshold", "FailureThreshold"):
        value = probe.get(name)
        if value is not None and not 1 <= value <= 3_600_000:
            raise Refusal("InvalidParameterValue", f"Probe.{name} must be 1 to 3600000, not {value}.")
