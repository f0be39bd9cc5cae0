"""The fields of `AGSConfig` as keyword arguments, for callers that take them all."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from pydantic import SecretStr
from typing_extensions import Unpack

from ags_flows.blocks.config import AGSConfig
from ags_flows.blocks.credentials import TencentCloudCredentials
from ags_flows.models import ImageRegistryType


class ConfigFields(TypedDict, total=False):
    """Fields of `AGSConfig`, which documents them."""

    type: Literal["tencentags"]
    credentials: TencentCloudCredentials
    secret_id: str | SecretStr
    secret_key: str | SecretStr
    region: str
    http_endpoint: str
    domain: str
    skip_ssl_verify: bool
    tool_id: str
    timeout: str
    lease: str
    port: int
    startup_timeout: float
    runtime_timeout: float
    image: str
    image_registry_type: ImageRegistryType
    cpu: str
    memory: str
    role_arn: str
    mount_name: str
    mount_image: str
    mount_image_registry_type: ImageRegistryType
    mount_path: str
    image_subpath: str
    mount_readonly: bool


def with_fields(config: AGSConfig | None = None, **fields: Unpack[ConfigFields]) -> AGSConfig:
    """Return a configuration with other values of some fields. A domain that follows the region follows the new one.

    Args:
        config: The other fields. Default: the environment's.
        **fields: What is different.

    Raises:
        ConfigurationError: There is no field of this name, or a value breaks the rule of its field.
    """
    values: dict[str, Any] = {}
    if config is not None:
        if not fields:
            return config
        values = {name: getattr(config, name) for name in AGSConfig.model_fields}
        # Empty if it only follows the region, as it is saved.
        values["domain"] = config.model_dump(include={"domain"})["domain"]
    return AGSConfig(**{**values, **fields})
