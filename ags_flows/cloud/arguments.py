"""Rules for arguments of the control plane, checked before anything is sent."""

from __future__ import annotations

from ags_flows.errors import ConfigurationError
from ags_flows.models.checks import check_tool


def is_tool_id(tool: str) -> bool:
    """Return True if a reference is an id: `sdt-`, lower-case letters and digits. Names must not have this form.

    Raises:
        ConfigurationError: It is neither an id nor a name.
    """
    return check_tool(tool).startswith("sdt-")


def check_client_token(token: str | None) -> str | None:
    """Return the token, if there is one.

    Raises:
        ConfigurationError: It is empty, or too long for AGS.
    """
    if token is not None and not 1 <= len(token) <= 64:
        raise ConfigurationError(f"client_token has {len(token)} characters.", hint="AGS takes 1 to 64.")
    return token
