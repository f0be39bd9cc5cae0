"""The e2b SDK attached to a running instance by access token alone: no API key, nothing from E2B_* variables.

The SDK has no public way to attach: a sandbox object is built by hand around a configuration whose headers are one live
dictionary, so that a new token reaches the object's RPC client, its HTTP clients and its signed URLs without rebuilding
it. The names used here are private to the SDK, which is why its version is pinned to a tested range.
"""

from __future__ import annotations

from typing import Any

from e2b import ConnectionConfig
from packaging.version import Version

from ags_flows.cloud.proxies import sandbox_proxy

TOKEN_HEADER = "X-Access-Token"


class LiveConfig(ConnectionConfig):
    """A configuration whose sandbox headers stay the same dictionary for ever."""

    def __init__(self, *, live: dict[str, str], sandbox_url: str | None, **options: Any) -> None:
        """Take what is given, and nothing from the environment where it would decide where requests go."""
        self.live = live
        super().__init__(sandbox_url=sandbox_url, debug=False, **options)
        vars(self)["_sandbox_url"] = sandbox_url
        self.api_key = None

    @property
    def sandbox_headers(self) -> dict[str, str]:
        """The headers of every request to the sandbox."""
        self.live.setdefault("User-Agent", self.headers["User-Agent"])
        return self.live


def attach(
    sandbox_class: Any,
    instance_id: str,
    token: str,
    *,
    domain: str,
    sandbox_url: str | None,
    envd_version: str,
    traffic_token: str | None = None,
    request_timeout: float = 60.0,
) -> Any:
    """Return a sandbox object of the SDK for a running instance.

    Args:
        sandbox_class: `e2b.Sandbox` or `e2b_code_interpreter.Sandbox`.
        instance_id: The instance.
        token: Its access token.
        domain: Such as `ap-guangzhou.tencentags.com`.
        sandbox_url: One URL for all sandboxes that routes by header (an emulator), or None for names.
        envd_version: What to take for granted of envd; it decides how files are uploaded.
        traffic_token: For ports other than envd's, where AGS gives one.
        request_timeout: Seconds for one request.

    Raises:
        ConfigurationError: A proxy variable of the environment is not the URL of a proxy.
    """
    live = {"E2b-Sandbox-Id": instance_id, "E2b-Sandbox-Port": "49983", TOKEN_HEADER: token}
    if traffic_token:
        live["E2B-Traffic-Access-Token"] = traffic_token
    proxy = sandbox_proxy(sandbox_url or f"https://49983-{instance_id}.{domain}")
    config = LiveConfig(live=live, sandbox_url=sandbox_url, domain=domain, request_timeout=request_timeout, proxy=proxy)
    return sandbox_class(
        sandbox_id=instance_id,
        sandbox_domain=domain,
        envd_version=Version(envd_version),
        envd_access_token=token,
        traffic_access_token=traffic_token,
        connection_config=config,
    )


def swap_token(sandbox: Any, token: str) -> None:
    """Give an attached object a new token; requests that are open go on with the old one."""
    sandbox.connection_config.live[TOKEN_HEADER] = token
    sandbox._SandboxBase__envd_access_token = token
    for part in (sandbox, sandbox.files, sandbox.commands, sandbox.pty):
        for client in vars(part).values():
            if hasattr(client, "build_request"):
                client.headers[TOKEN_HEADER] = token
