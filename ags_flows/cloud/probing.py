"""Whether the data plane is reachable, without a sandbox."""

from __future__ import annotations

from ags_flows.cloud.attachment import ENVD_VERSION
from ags_flows.cloud.connection import Connection
from ags_flows.errors import UnreachableError

NO_SANDBOX = "sdi-probe"
"""The id of a sandbox that does not exist."""

PROBE_TIMEOUT = 10.0


def probe_data_plane(connection: Connection) -> None:
    """Send a request to a sandbox that does not exist: any response shows that the data plane is reachable.

    Raises:
        ConfigurationError: A proxy variable of the environment is not the URL of a proxy.
        UnreachableError: There is no response.
    """
    import httpx
    from e2b import AuthenticationException, Sandbox, SandboxException

    from ags_flows.cloud.e2b_internals import attach
    from ags_flows.cloud.sandbox_errors import map_sandbox_error

    sandbox = attach(
        Sandbox,
        NO_SANDBOX,
        "none",
        domain=connection.domain,
        sandbox_url=connection.data_url,
        envd_version=ENVD_VERSION,
        request_timeout=PROBE_TIMEOUT,
    )
    try:
        sandbox.is_running()
    except (AuthenticationException, SandboxException, httpx.HTTPError) as error:
        mapped = map_sandbox_error(error, NO_SANDBOX, "look")
        if isinstance(mapped, UnreachableError):
            raise mapped from error
