"""Plain dicts as values: `{"name": "web", "port": 8000}` is a `Port`. A key that means nothing is an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ags_flows.errors import ConfigurationError
from ags_flows.models import CustomConfiguration, ImageSource, Port, Probe, Resources, StorageMount

_MOUNT = {"name", "mount_path", "readonly", "image", "image_registry_type", "subpath"}
_PROBE = {f"probe_{name}": name for name in Probe.model_fields}
_CUSTOM = {"image", "image_registry_type", "command", "command_args", "env_vars", "ports", "cpu", "memory", *_PROBE}


def text_pairs(field: str, pairs: Sequence[Mapping[str, str]] | None, key: str) -> dict[str, str]:
    """Return `[{"name": "A", "value": "1"}]` as `{"A": "1"}`; `key` is what the name is called.

    Raises:
        ConfigurationError: An item is something else, or a name comes twice.
    """
    found: dict[str, str] = {}
    for index, pair in enumerate(pairs or ()):
        _known(f"{field}[{index}]", pair, {key, "value"}, required={key, "value"})
        if pair[key] in found:
            raise ConfigurationError(f"{field}[{index}]: {key}={pair[key]!r} is there twice.")
        found[str(pair[key])] = str(pair["value"])
    return found


def ports_of(ports: Sequence[Mapping[str, Any]] | None) -> tuple[Port, ...]:
    """Return `[{"name": "web", "port": 8000, "protocol": "TCP"}]` as ports."""
    for index, port in enumerate(ports or ()):
        _known(f"ports[{index}]", port, {"name", "port", "protocol"}, required={"name", "port"})
    return tuple(Port(**port) for port in ports or ())


def mounts_of(mounts: Sequence[Mapping[str, Any]] | None) -> tuple[StorageMount, ...]:
    """Return dicts of image mounts as mounts.

    Raises:
        ConfigurationError: A key is missing, or means nothing.
    """
    found = []
    for index, mount in enumerate(mounts or ()):
        _known(f"storage_mounts[{index}]", mount, _MOUNT, required={"name", "mount_path", "image"})
        source = ImageSource(
            image=mount["image"],
            image_registry_type=mount.get("image_registry_type", "enterprise"),
            subpath=mount.get("subpath", "/"),
        )
        found.append(
            StorageMount(
                name=mount["name"],
                mount_path=mount["mount_path"],
                source=source,
                readonly=mount.get("readonly", False),
            )
        )
    return tuple(found)


def custom_of(config: Mapping[str, Any] | CustomConfiguration | None) -> CustomConfiguration | None:
    """Return what one instance has different from its tool, from a dict with the names of `create_tool`.

    Raises:
        ConfigurationError: A key means nothing.
    """
    if config is None or isinstance(config, CustomConfiguration):
        return config
    _known("custom_config", config, _CUSTOM, required=set())
    fields: dict[str, Any] = {name: config[name] for name in ("image", "image_registry_type") if name in config}
    resources = {name: config[name] for name in ("cpu", "memory") if name in config}
    probe = {name: config[key] for key, name in _PROBE.items() if key in config}
    return CustomConfiguration(
        **fields,
        command=tuple(config.get("command") or ()),
        args=tuple(config.get("command_args") or ()),
        env=text_pairs("env_vars", config.get("env_vars"), "name"),
        ports=ports_of(config.get("ports")),
        resources=Resources(**resources) if resources else None,
        probe=Probe(**probe) if probe else None,
    )


def _known(field: str, given: Any, names: set[str], *, required: set[str]) -> None:
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{field}={given!r} is not a dict.", hint=f"Its keys: {', '.join(sorted(names))}.")
    for wrong, why in ((set(given) - names, "means nothing here"), (required - set(given), "is missing")):
        if wrong:
            raise ConfigurationError(
                f"{field}: {', '.join(sorted(map(repr, wrong)))} {why}.", hint=f"Its keys: {', '.join(sorted(names))}."
            )
