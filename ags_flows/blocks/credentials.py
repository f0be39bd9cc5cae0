"""The block with the keys of Tencent Cloud, or with their source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from prefect.blocks.abstract import CredentialsBlock
from pydantic import BeforeValidator, Field, HttpUrl, SecretStr, model_validator
from typing_extensions import Self

from ags_flows.blocks.environment import e2b_key_from_environment, keys_from_environment
from ags_flows.blocks.explained import Explained
from ags_flows.cloud.connection import DEFAULT_ENDPOINT, DEFAULT_REGION, Connection
from ags_flows.cloud.keys import DEFAULT_STS, KeySource, Method, credential_of, keys_of_profile
from ags_flows.errors import CredentialsError

if TYPE_CHECKING:
    from tencentcloud.ags.v20250920.ags_client import AgsClient

DOCUMENTATION: HttpUrl | None = None
"""Where the documentation of this package is served, None as long as it is only in the repository.

Forms of blocks link to it. Blocks have no logo: Prefect takes only http(s) URLs, and another host may be out of reach.
"""


def _no_secret(value: object) -> object:
    return "" if value is None else value


Secret = Annotated[SecretStr, BeforeValidator(_no_secret)]
"""A secret that may be empty. Not `SecretStr | None`: Prefect's forms show such fields as plain text."""


class TencentCloudCredentials(Explained, CredentialsBlock):
    """Keys of Tencent Cloud, or how to get temporary ones.

    A key that is left empty is read from the environment of the process that uses the block, when it is used
    (`TENCENTCLOUD_SECRET_ID`, `TENCENTCLOUD_SECRET_KEY`, `TENCENTCLOUD_TOKEN`, `E2B_API_KEY`); it is never copied
    into the document. Temporary keys are renewed before they expire, for as long as a run takes.

    Attributes:
        method: `keys`: those of this block or of the environment. `assume-role`: temporary keys of the role
            `role_arn`, got with those. `cvm-role`: those of the role of the CVM that the run is on. `tke-oidc`: those
            of the service account of the TKE pod that the run is in. `profile`: those of the file
            `~/.tencentcloud/credentials`.
        secret_id: SecretId.
        secret_key: SecretKey.
        session_token: The third part of temporary (STS) keys that were got elsewhere.
        role_arn: The role to assume, `qcs::cam::uin/<uin>:roleName/<name>`.
        role_session_name: What audit logs call the runs that assumed the role.
        role_duration: Seconds that keys of `assume-role` live, 600 to 43200; they are renewed before.
        cvm_role_name: The CVM's role; empty: read from its metadata service.
        sts_endpoint: Host of STS, for `assume-role` and `tke-oidc`.
        e2b_api_key: Key for the E2B-compatible API, where that is used beside the Cloud API.

    Example:
        ```python
        from ags_flows import TencentCloudCredentials

        TencentCloudCredentials(secret_id="AKID...", secret_key="...").save("BLOCK_NAME", overwrite=True)
        credentials = TencentCloudCredentials.load("BLOCK_NAME")
        client = credentials.get_client(region="ap-shanghai")
        ```
    """

    _block_type_name = "Tencent Cloud Credentials"
    _block_type_slug = "tencent-cloud-credentials"
    _documentation_url = DOCUMENTATION
    _description = "Keys of Tencent Cloud (SecretId, SecretKey), or how to get temporary ones."

    method: Method = Field(
        default="keys",
        title="Method",
        description="Where keys come from: the fields below or the environment (keys), a role that they assume "
        "(assume-role), the role of the CVM (cvm-role) or TKE pod (tke-oidc) that the run is on, or the file "
        "~/.tencentcloud/credentials (profile).",
    )
    secret_id: Secret = Field(
        default=SecretStr(""),
        title="SecretId",
        description="For keys and assume-role. Empty: TENCENTCLOUD_SECRET_ID of the process that runs the flow.",
    )
    secret_key: Secret = Field(
        default=SecretStr(""),
        title="SecretKey",
        description="For keys and assume-role. Empty: TENCENTCLOUD_SECRET_KEY of the process that runs the flow.",
    )
    session_token: Secret = Field(
        default=SecretStr(""),
        title="Session token",
        description="Only with temporary (STS) keys from elsewhere. Empty: TENCENTCLOUD_TOKEN.",
    )
    role_arn: str = Field(
        default="",
        title="Assume role: ARN",
        description="The role to assume, such as qcs::cam::uin/100000000001:roleName/nightly. Not the role of "
        "sandboxes, which stands in AGS Config.",
    )
    role_session_name: str = Field(
        default="ags-flows",
        pattern=r"^[A-Za-z0-9_.,:=@-]{2,128}$",
        title="Assume role: session name",
        description="What audit logs call the runs that assumed the role; 2 to 128 letters, digits or _.,:=@-.",
    )
    role_duration: int = Field(
        default=7200,
        ge=600,
        le=43200,
        title="Assume role: duration",
        description="Seconds that the role's temporary keys live, 600 to 43200; they are renewed before.",
    )
    cvm_role_name: str = Field(
        default="",
        title="CVM role: name",
        description="The role that is bound to the CVM. Empty: read from its metadata service.",
    )
    sts_endpoint: str = Field(
        default=DEFAULT_STS,
        pattern=r"^[A-Za-z0-9.-]+(:\d+)?$",
        title="STS endpoint",
        description="Host that gives temporary keys, for assume-role and tke-oidc.",
    )
    e2b_api_key: Secret = Field(
        default=SecretStr(""),
        title="E2B API key",
        description="For the E2B-compatible API. Empty: E2B_API_KEY of the process that runs the flow.",
    )

    @model_validator(mode="after")
    def _a_role_to_assume_is_named(self) -> Self:
        if self.method == "assume-role" and not self.role_arn:
            raise ValueError("role_arn: method 'assume-role' needs it, such as 'qcs::cam::uin/<uin>:roleName/<name>'")
        return self

    def resolve(self) -> tuple[SecretStr | None, SecretStr | None, SecretStr | None]:
        """Return SecretId, SecretKey and session token: the block's own, or else the environment's.

        The session token of the environment only belongs to keys that came from there too. Methods that need no keys
        return none.

        Raises:
            CredentialsError: The profile file has no keys.
        """
        if self.method in ("cvm-role", "tke-oidc"):
            return None, None, None
        if self.method == "profile":
            secret_id, secret_key = keys_of_profile()
            return SecretStr(secret_id), SecretStr(secret_key), None
        environment = keys_from_environment()
        own = filled(self.secret_id) or filled(self.secret_key)
        return (
            filled(self.secret_id) or environment.secret_id,
            filled(self.secret_key) or environment.secret_key,
            filled(self.session_token) or (None if own else environment.token),
        )

    def key_source(self) -> KeySource:
        """Return how to get temporary keys."""
        return KeySource(
            method=self.method,
            role_arn=self.role_arn,
            session_name=self.role_session_name,
            seconds=self.role_duration,
            sts_endpoint=self.sts_endpoint,
            cvm_role=self.cvm_role_name,
        )

    def require_e2b_key(self) -> str:
        """Return the E2B API key.

        Raises:
            CredentialsError: Neither the block nor the environment has one.
        """
        key = filled(self.e2b_api_key) or e2b_key_from_environment()
        if key is None:
            raise CredentialsError(
                "There is no E2B API key.",
                hint="Set E2B_API_KEY, or give TencentCloudCredentials(e2b_api_key=...); the console of AGS makes one.",
            )
        return key.get_secret_value()

    def get_client(self, region: str = DEFAULT_REGION, endpoint: str = DEFAULT_ENDPOINT) -> AgsClient:
        """Return the SDK's own client of AGS, for what this package does not wrap.

        Args:
            region: Region of AGS.
            endpoint: Control plane: a host, or the URL of an emulator.

        Raises:
            CredentialsError: There are no keys.
        """
        from ags_flows.cloud.transport import sdk_client

        secret_id, secret_key, session_token = self.resolve()
        connection = Connection(
            endpoint=endpoint,
            region=region,
            secret_id=secret_id,
            secret_key=secret_key,
            session_token=session_token,
            key_source=self.key_source(),
        )
        return sdk_client(connection, credential_of(connection))


def filled(secret: SecretStr | None) -> SecretStr | None:
    """Return the secret, or None for a mask: parameters of flow runs come back from the server with masks."""
    return secret if secret is not None and secret.get_secret_value().strip("*") else None
