"""Rules for arguments of the control plane, checked before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ags_flows.errors import ConfigurationError
from ags_flows.models import TOOL_NAME

_INSTANCE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)


def is_tool_id(tool: str) -> bool:
    """Return True if a reference is an id: `sdt-`, lower-case letters and digits. Names must not have this form.

    Raises:
        ConfigurationError: It is neither an id nor a name.
    """
    if not TOOL_NAME.fullmatch(tool):
        raise ConfigurationError(
            f"{tool!r} is neither a tool's id nor a tool's name.",
            hint="Names have 1 to 50 letters, digits, '_' or '-'; ids begin with 'sdt-'.",
        )
    return tool.startswith("sdt-")


def check_instance_id(instance_id: str, field: str = "instance") -> str:
    """Return the id of an instance; AGS has had several forms, all of which fit into a host's name.

    Raises:
        ConfigurationError: It cannot be an id.
    """
    if not _INSTANCE_ID.fullmatch(instance_id):
        raise ConfigurationError(
            f"instance: {instance_id!r} is not an instance's id.",
            hint="Ids are letters, digits and '-', as AGS gives them.",
        )
    return instance_id


def check_client_token(token: str | None) -> str | None:
    """Return the token, if there is one.

    Raises:
        ConfigurationError: It is empty, or too long for AGS.
    """
    if token is not None and not 1 <= len(token) <= 64:
        raise ConfigurationError(f"client_token has {len(token)} characters.", hint="AGS takes 1 to 64.")
    return token


def check_metadata(metadata: Mapping[str, str] | None) -> Mapping[str, str]:
    """Return the metadata, empty for none.

    Raises:
        ConfigurationError: A name is empty, or something is not a text.
    """
    for name, value in (metadata or {}).items():
        if not name or not isinstance(name, str) or not isinstance(value, str):
            raise ConfigurationError(
                f"metadata: {name!r}={value!r} is not a name and a text.", hint="Names and values are strings."
            )
    return metadata or {}
