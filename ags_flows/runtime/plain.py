"""Rules of arguments that are plain dicts: `{"name": "web", "port": 8000}` is a `Port`. A wrong key is an error."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ags_flows.errors import ConfigurationError
from ags_flows.models import CustomConfiguration, ImageSource, Port, Probe, Resources, StorageMount
from ags_flows.models.checks import (
    check_environment,
    check_instance_id,
    check_name,
    check_texts,
    check_tool,
    shown_value,
)
from ags_flows.models.rules import Rule, each

_MOUNT = {"name", "mount_path", "readonly", "image", "image_registry_type", "subpath"}
_PROBE = {f"probe_{name}": name for name in Probe.model_fields}
_CUSTOM = {"image", "image_registry_type", "command", "command_args", "env_vars", "ports", "cpu", "memory", *_PROBE}


def if_given(rule: Rule) -> Rule:
    """Return the rule of an argument whose empty value, such as `""` or 0, means that it is left out."""
    return lambda value, field: rule(value, field) if value or isinstance(value, bool) else None


OF_TOOL: dict[str, Rule] = {name: if_given(check_tool) for name in ("tool_id", "tool_name")}
"""The rules of arguments that name a tool or are left out."""


def _pairs(key: str, whole: Rule) -> Rule:
    """Return the rule of `[{"name": "A", "value": "1"}]`, which becomes `{"A": "1"}`.

    Args:
        key: What the name is called.
        whole: The rule of the mapping.
    """

    def check(pairs: Any, field: str) -> Any:
        found: dict[str, Any] = {}
        for index, pair in enumerate(each(_dict({key, "value"}, {key, "value"}))(pairs, field)):
            name = str(check_name(pair[key], f"{field}[{index}]: {key}") or "")
            if name in found:
                raise ConfigurationError(f"{field}[{index}]: {key}={name!r} is there twice.")
            found[name] = pair["value"]
        return whole(found, field)

    return check


check_env_vars = _pairs("name", check_environment)
check_tags = _pairs("key", check_texts)


def check_wanted_tags(tags: Any, field: str) -> Any:
    """Return tags that are a mapping already, or pairs."""
    return check_texts(tags, field) if isinstance(tags, Mapping) else check_tags(tags, field)


def check_ports(ports: Any, field: str) -> Any:
    """Return `[{"name": "web", "port": 8000, "protocol": "TCP"}]` as ports."""
    known = _dict({"name", "port", "protocol"}, {"name", "port"})
    return tuple(Port(**port) for port in each(known)(ports, field))


def check_mounts(mounts: Any, field: str) -> Any:
    """Return dicts of image mounts as mounts.

    Raises:
        ConfigurationError: A key is missing, or means nothing.
    """
    found = []
    for mount in each(_dict(_MOUNT, {"name", "mount_path", "image"}))(mounts, field):
        of_image = {name: mount[name] for name in ("image", "image_registry_type", "subpath") if name in mount}
        others = {name: value for name, value in mount.items() if name not in of_image}
        found.append(StorageMount(source=ImageSource(**of_image), **others))
    return tuple(found)


def check_custom(config: Any, field: str) -> Any:
    """Return what one instance has different from its tool, from a dict with the names of `create_tool`.

    Raises:
        ConfigurationError: A key means nothing.
    """
    if isinstance(config, CustomConfiguration):
        return config
    _dict(_CUSTOM)(config, field)
    names = {"command_args": "args", "env_vars": "env"}
    rules = {"env_vars": check_env_vars, "ports": check_ports}
    fields: dict[str, Any] = {
        names.get(name, name): rules[name](config[name], name) if name in rules else config[name]
        for name in ("image", "image_registry_type", "command", "command_args", *rules)
        if config.get(name) is not None
    }
    resources = {name: config[name] for name in ("cpu", "memory") if name in config}
    probe = {name: config[key] for key, name in _PROBE.items() if key in config}
    return CustomConfiguration(
        **fields,
        resources=Resources(**resources) if resources else None,
        probe=Probe(**probe) if probe else None,
    )


def check_sandbox(sandbox: Any, field: str) -> Any:
    """Return a sandbox of the e2b SDK."""
    try:
        check_instance_id(sandbox.sandbox_id)
    except (AttributeError, ConfigurationError):
        raise ConfigurationError(
            f"{field} must be a sandbox of the e2b SDK, got {shown_value(sandbox)}.",
            hint="`create_e2b_sandbox` returns one.",
        ) from None
    return sandbox


def _dict(names: Collection[str], required: Collection[str] = ()) -> Rule:
    """Return the rule of a dict with some keys."""
    hint = f"Its keys: {', '.join(sorted(names))}."

    def check(given: Any, field: str) -> Any:
        if not isinstance(given, Mapping):
            raise ConfigurationError(f"{field}: {shown_value(given)} is not a dict.", hint=hint)
        for wrong, why in (({*given} - {*names}, "means nothing here"), ({*required} - {*given}, "is missing")):
            if wrong:
                keys = ", ".join(sorted(map(shown_value, wrong))[:5])
                raise ConfigurationError(f"{field}: {keys} {why}.", hint=hint)
        return given

    return check
