"""``x-custom-config``: how an E2B client configures a custom sandbox, in its metadata."""

from __future__ import annotations

import json
from typing import Any

from ags_flows.emulator.cloudapi import schema
from ags_flows.emulator.world.configuration import detail
from ags_flows.emulator.world.instance import Instance
from ags_flows.emulator.world.refusal import Refusal

Json = dict[str, Any]

KEY = "x-custom-config"

_NAMES: dict[str, Any] = {
    "image": "Image",
    "imageRegistryType": "ImageRegistryType",
    "command": "Command",
    "args": "Args",
    "env": ("Env", {"name": "Name", "value": "Value"}),
    "ports": ("Ports", {"name": "Name", "port": "Port", "protocol": "Protocol"}),
    "resources": ("Resources", {"cpu": "CPU", "memory": "Memory", "storage": "Storage"}),
    "probe": (
        "Probe",
        {
            "httpGet": ("HttpGet", {"path": "Path", "port": "Port", "scheme": "Scheme"}),
            "readyTimeoutMs": "ReadyTimeoutMs",
            "probeTimeoutMs": "ProbeTimeoutMs",
            "probePeriodMs": "ProbePeriodMs",
            "successThreshold": "SuccessThreshold",
            "failureThreshold": "FailureThreshold",
        },
    ),
}


def read(metadata: dict[str, str]) -> Json | None:
    """Return the custom configuration that the metadata holds, as the Cloud API has it, or None.

    Raises:
        Refusal: ``InvalidParameter`` when it is not JSON or holds what is not known.
    """
    text = metadata.get(KEY)
    if text is None:
        return None
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refusal("InvalidParameter", f"Metadata {KEY} is not valid JSON: {str(error)[:200]}") from error
    if not isinstance(given, dict):
        raise Refusal("InvalidParameter", f"Metadata {KEY} must be a JSON object.")
    given.pop("imageDigest", None)
    return schema.checked_model("CustomConfiguration", _renamed(given, _NAMES, KEY))


def shown_metadata(instance: Instance) -> dict[str, str]:
    """Return an instance's metadata; a custom configuration in it with the image's digest."""
    metadata = dict(instance.metadata)
    if KEY in metadata and (instance.custom or {}).get("Image"):
        try:
            config = json.loads(metadata[KEY])
        except ValueError:
            return metadata
        if isinstance(config, dict) and config.get("image"):
            config["imageDigest"] = (detail(instance.custom) or {}).get("ImageDigest")
            metadata[KEY] = json.dumps(config, ensure_ascii=False, separators=(",", ":"))
    return metadata


def _renamed(value: Any, names: dict[str, Any], where: str) -> Any:
    if isinstance(value, list):
        return [_renamed(item, names, where) for item in value]
    if not isinstance(value, dict):
        return value
    result = {}
    for key, item in value.items():
        name = names.get(key)
        if name is None:
            raise Refusal("InvalidParameter", f"{where} does not know {key[:60]!r}; it knows {', '.join(names)}.")
        if isinstance(name, tuple):
            result[name[0]] = _renamed(item, name[1], f"{where}.{key}")
        else:
            result[name] = item
    return result
