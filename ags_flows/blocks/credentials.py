"""The block that holds the keys of Tencent Cloud."""

from __future__ import annotations

from typing import Annotated

from prefect.blocks.core import Block
from pydantic import BeforeValidator, Field, HttpUrl, SecretStr

from ags_flows.settings import KeysFromEnvironment


def _no_secret(value: object) -> object:
    return "" if value is None else value


Secret = Annotated[SecretStr, BeforeValidator(_no_secret)]
"""A secret that may be empty. Not `SecretStr | None`: Prefect's forms show such fields as plain text."""


class TencentCloudCredentials(Block):
    """CAM keys of Tencent Cloud.

    A field that is left empty follows the environment of whoever uses the block, at that moment
    (`TENCENTCLOUD_SECRET_ID`, `TENCENTCLOUD_SECRET_KEY`, `TENCENTCLOUD_TOKEN`); it is never copied into the document.

    Attributes:
        secret_id: SecretId.
        secret_key: SecretKey.
        session_token: The third part of temporary (STS) keys.

    Example:
        ```python
        from ags_flows import TencentCloudCredentials

        TencentCloudCredentials(secret_id="AKID...", secret_key="...").save("BLOCK_NAME")
        credentials = TencentCloudCredentials.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Tencent Cloud Credentials"
    _block_type_slug = "tencent-cloud-credentials"
    _documentation_url = HttpUrl("https://cloud.tencent.com/document/product/598")
    _description = "CAM keys (SecretId, SecretKey) for Tencent Cloud."

    secret_id: Secret = Field(
        default=SecretStr(""), title="SecretId", description="Empty: TENCENTCLOUD_SECRET_ID of whoever runs the flow."
    )
    secret_key: Secret = Field(
        default=SecretStr(""), title="SecretKey", description="Empty: TENCENTCLOUD_SECRET_KEY of whoever runs the flow."
    )
    session_token: Secret = Field(
        default=SecretStr(""),
        title="Session token",
        description="Only with temporary (STS) keys. Empty: TENCENTCLOUD_TOKEN.",
    )

    def resolve(self) -> tuple[SecretStr | None, SecretStr | None, SecretStr | None]:
        """Return SecretId, SecretKey and session token: the block's own, or else the environment's.

        The session token of the environment only belongs to keys that came from there too.
        """
        environment = KeysFromEnvironment()
        own = filled(self.secret_id) or filled(self.secret_key)
        return (
            filled(self.secret_id) or environment.secret_id,
            filled(self.secret_key) or environment.secret_key,
            filled(self.session_token) or (None if own else environment.token),
        )


def filled(secret: SecretStr | None) -> SecretStr | None:
    """Return a secret that is one: parameters of flow runs come back from the server with masks in their place."""
    return secret if secret is not None and secret.get_secret_value().strip("*") else None
