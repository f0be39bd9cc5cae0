"""Where AGS is and how to get in: the one value that both planes are built from."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import SecretStr

from ags_flows.cloud.keys import KeySource
from ags_flows.errors import ConfigurationError, CredentialsError
from ags_flows.models.checks import check_count, check_instance_id

DEFAULT_ENDPOINT = "ags.tencentcloudapi.com"
DEFAULT_REGION = "ap-guangzhou"
CONSOLE = "https://console.cloud.tencent.com/ags"


@dataclass(frozen=True)
class Connection:
    """The URLs and keys of one account in one region. Compares by value, so that it can key a cache.

    Attributes:
        endpoint: Host of the control plane, or a URL with scheme and port (`http://127.0.0.1:8600`).
        region: Such as `ap-guangzhou`.
        domain: Data plane: a domain (`ap-guangzhou.tencentags.com`), or the URL of an emulator.
        secret_id: CAM SecretId, None when there is none.
        secret_key: CAM SecretKey.
        session_token: The third part of temporary (STS) keys.
        key_source: How to get temporary keys instead, from these keys or without any.
        verify_tls: Whether certificates are checked.
        request_timeout: Seconds for one request to the control plane (AGS needs up to 60).
        runtime_timeout: Seconds for one request to a sandbox.
    """

    endpoint: str = DEFAULT_ENDPOINT
    region: str = DEFAULT_REGION
    domain: str = ""
    secret_id: SecretStr | None = None
    secret_key: SecretStr | None = None
    session_token: SecretStr | None = None
    key_source: KeySource = KeySource()
    verify_tls: bool = True
    request_timeout: float = 60.0
    runtime_timeout: float = 60.0

    @property
    def control_url(self) -> str:
        """The control plane's URL with its scheme."""
        return _with_scheme(self.endpoint)

    @property
    def data_url(self) -> str | None:
        """The one URL of an emulator's data plane, routed by header; None for the real cloud's names."""
        return self.domain.rstrip("/") if "://" in self.domain else None

    @property
    def console_url(self) -> str:
        """Where a person sees the account's sandboxes: the console of AGS, or an emulator's status page."""
        return self.data_url or CONSOLE

    def instance_url(self, instance_id: str, port: int) -> str:
        """Return the URL of a port of an instance.

        The real cloud gives every port a name, `https://{port}-{instance}.{domain}`. An emulator on an IP address
        has no names to give: it takes the path `/sandbox/{instance}/{port}`.
        """
        check_instance_id(instance_id)
        check_count(port, "port", least=1, most=65535)
        if self.data_url is None:
            return f"https://{port}-{instance_id}.{self.domain}"
        return f"{self.data_url}/sandbox/{instance_id}/{port}"

    def require_keys(self) -> tuple[str, str]:
        """Return SecretId and SecretKey.

        Raises:
            CredentialsError: One of them is missing.
        """
        values = {
            "TENCENTCLOUD_SECRET_ID": self.secret_id and self.secret_id.get_secret_value(),
            "TENCENTCLOUD_SECRET_KEY": self.secret_key and self.secret_key.get_secret_value(),
        }
        missing = [name for name, value in values.items() if not value]
        if missing:
            raise CredentialsError(
                f"No Tencent Cloud credentials: {' and '.join(missing)} not set.",
                hint=(
                    "Set the variables, or give AGSConfig(credentials=TencentCloudCredentials(secret_id=..., "
                    "secret_key=...)). To work without a cloud account, start `ags-flows emulator` and export "
                    "the lines that it prints."
                ),
            )
        return str(values["TENCENTCLOUD_SECRET_ID"]), str(values["TENCENTCLOUD_SECRET_KEY"])


def domain_of(endpoint: str, region: str) -> str:
    """Return the data plane that belongs to a control plane: an emulator serves both, AGS has one a region."""
    host = urlsplit(_with_scheme(endpoint)).hostname or ""
    if "://" in endpoint and not host.endswith(".tencentcloudapi.com"):
        return endpoint.rstrip("/")
    internal = "internal." if ".internal." in host else ""
    return f"{region}.{internal}tencentags.com"


def check_domain(domain: str, region: str) -> None:
    """Refuse a domain of another region: AGS would respond with 401, as for a wrong token.

    Raises:
        ConfigurationError: `domain` names a region and it is not `region`.
    """
    if domain.endswith(".tencentags.com") and domain.split(".")[0] != region:
        raise ConfigurationError(
            f"domain={domain!r} and region={region!r} disagree.",
            hint=f"Leave domain empty, or use '{region}.tencentags.com'.",
        )


def _with_scheme(endpoint: str) -> str:
    return (endpoint if "://" in endpoint else f"https://{endpoint}").rstrip("/")
